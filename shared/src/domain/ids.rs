//! Identifiers: `PREFIX-` and a lowercase UUID of version 4, as api/00 §1 writes them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::{Uuid, Variant, Version};

/// Why a text is not the identifier that it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("String should match pattern '{prefix}-{{uuid4}}'")]
pub struct InvalidId {
    /// The prefix that the identifier should have, without the dash.
    pub prefix: &'static str,
}

/// What all identifiers share, so that seams and stores can be generic over them.
pub trait Id: Copy + Eq + fmt::Display + FromStr<Err = InvalidId> + Send + Sync + 'static {
    /// The text before the dash.
    const PREFIX: &'static str;
    /// Wraps a UUID of version 4.
    fn from_uuid(uuid: Uuid) -> Self;
    /// The UUID without its prefix, as stores keep it.
    fn uuid(self) -> Uuid;
}

/// Reads `PREFIX-uuid4`, strictly: one spelling for one id.
fn parse(text: &str, prefix: &'static str) -> Result<Uuid, InvalidId> {
    let invalid = InvalidId { prefix };
    let rest = text.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('-')).ok_or_else(|| invalid.clone())?;
    let uuid = Uuid::try_parse(rest).map_err(|_| invalid.clone())?;
    let mut spelling = Uuid::encode_buffer();
    let canonical = uuid.as_hyphenated().encode_lower(&mut spelling);
    let is_version_4 = uuid.get_version() == Some(Version::Random) && uuid.get_variant() == Variant::RFC4122;
    if canonical == rest && is_version_4 { Ok(uuid) } else { Err(invalid) }
}

macro_rules! id_types {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Uuid);

        impl Id for $name {
            const PREFIX: &'static str = $prefix;
            fn from_uuid(uuid: Uuid) -> Self { Self(uuid) }
            fn uuid(self) -> Uuid { self.0 }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "-{}"), self.0.as_hyphenated())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { fmt::Display::fmt(self, f) }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> { parse(text, $prefix).map(Self) }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> { serializer.collect_str(self) }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

id_types! {
    /// An agent.
    AgentId = "agent";
    /// A memory block.
    BlockId = "block";
    /// A conversation.
    ConversationId = "conv";
    /// A stored message; several shown messages can share it.
    MessageId = "message";
    /// A keep-alive or opening ping.
    PingId = "ping";
    /// One accepted request and its execution.
    RunId = "run";
    /// One model call and the tool calls that it asked for.
    StepId = "step";
    /// A tool.
    ToolId = "tool";
    /// A worker process, new at each start.
    WorkerId = "worker";
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "123e4567-e89b-42d3-8456-426614174000";

    #[test]
    fn an_id_reads_back_what_it_wrote() {
        let text = format!("agent-{SAMPLE}");
        let id: AgentId = text.parse().expect("a valid id");
        assert_eq!(id.to_string(), text);
        assert_eq!(serde_json::to_string(&id).expect("serializes"), format!("\"{text}\""));
    }

    #[test]
    fn one_id_has_one_spelling() {
        for wrong in [
            SAMPLE.to_owned(),
            format!("run-{SAMPLE}"),
            format!("agent-{}", SAMPLE.to_uppercase()),
            format!("agent-{}", SAMPLE.replace('-', "")),
            format!("agent-{{{SAMPLE}}}"),
            "agent-123e4567-e89b-12d3-8456-426614174000".to_owned(),
            "agent-123e4567-e89b-42d3-c456-426614174000".to_owned(),
            String::new(),
        ] {
            assert_eq!(wrong.parse::<AgentId>(), Err(InvalidId { prefix: "agent" }), "{wrong}");
        }
    }
}
