//! Every key and channel in Redis, with what it holds, who writes it and when it goes.
//!
//! | name | holds | written by | goes |
//! |---|---|---|---|
//! | `PREFIX:{RUN}:e` | stream; entry `SEQ-0` has one field `f`: a byte for the kind, then the frame | the append script | after the run, by expiry |
//! | `PREFIX:{RUN}:m` | hash; `epoch` of the writer, `tail` (last number) | the open and append scripts | with the stream |
//! | `PREFIX:{RUN}:c` | channel; a batch: eight bytes for the first number (big endian), then `domain::frames` | the append script | at once |
//! | `PREFIX:signals` | channel; `cancel RUN-ID` | the API | at once |
//!
//! The braces make all names of a run hash to one slot of a cluster.

use crate::domain::ids::{Id, RunId};

/// The names of one installation.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// The stream of a run.
    pub(super) fn events(&self, run: RunId) -> String {
        format!("{}:{{{}}}:e", self.prefix, run.uuid())
    }

    /// The writer and the tail of a run.
    pub(super) fn meta(&self, run: RunId) -> String {
        format!("{}:{{{}}}:m", self.prefix, run.uuid())
    }

    /// The channel of a run.
    pub(super) fn channel(&self, run: RunId) -> String {
        format!("{}:{{{}}}:c", self.prefix, run.uuid())
    }

    /// The run that a channel belongs to.
    pub(super) fn run_of_channel(&self, channel: &[u8]) -> Option<RunId> {
        let channel = std::str::from_utf8(channel).ok()?;
        let uuid = channel.strip_prefix(&self.prefix)?.strip_prefix(":{")?.strip_suffix("}:c")?;
        uuid::Uuid::try_parse(uuid).ok().map(RunId::from_uuid)
    }

    /// The channel of all workers.
    pub(super) fn signals(&self) -> String {
        format!("{}:signals", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_tells_its_run() {
        let run: RunId = "run-123e4567-e89b-42d3-8456-426614174000".parse().expect("an id");
        let keys = Keys::new("team.a");
        assert_eq!(keys.run_of_channel(keys.channel(run).as_bytes()), Some(run));
        assert_eq!(keys.run_of_channel(keys.signals().as_bytes()), None);
        assert_eq!(Keys::new("team").run_of_channel(keys.channel(run).as_bytes()), None);
    }
}
