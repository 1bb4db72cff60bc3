//! The names in RabbitMQ, and how hints look there.
//!
//! | name | what | who |
//! |---|---|---|
//! | `PREFIX.runs` | quorum queue of hints, durable, dead-lettered to the next | API and workers publish, workers consume |
//! | `PREFIX.runs.dead` | quorum queue of hints that were given up | workers reject to it, operators read it |
//!
//! A message is persistent; its body is `{"v":1,"run":"run-…"}`, its header `traceparent` the trace of the request.

use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{BasicProperties, Channel};
use serde::{Deserialize, Serialize};

use crate::domain::ids::RunId;
use crate::ports::run_queue::RunHint;

/// Deliveries of one message before the broker gives it up by itself. Attempts are counted in the database; this only
/// stops a message that no worker can even look at. Brokers from 4.0 on would otherwise drop it after 20.
const DELIVERY_LIMIT: i64 = 1000;
/// Header of the trace.
const TRACE: &str = "traceparent";
/// Value of the delivery mode that survives a restart of the broker.
const PERSISTENT: u8 = 2;

/// The names of one installation.
#[derive(Debug, Clone)]
pub(super) struct Topology {
    pub(super) runs: ShortString,
    pub(super) dead: ShortString,
}

impl Topology {
    pub(super) fn new(prefix: &str) -> Self {
        Self { runs: format!("{prefix}.runs").into(), dead: format!("{prefix}.runs.dead").into() }
    }

    /// Declares the queues; harmless where they are already there.
    pub(super) async fn declare(&self, channel: &Channel) -> Result<(), lapin::Error> {
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let mut dead = FieldTable::default();
        dead.insert("x-queue-type".into(), text("quorum"));
        channel.queue_declare(self.dead.clone(), options, dead).await?;
        let mut runs = FieldTable::default();
        runs.insert("x-queue-type".into(), text("quorum"));
        runs.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(DELIVERY_LIMIT));
        // The default exchange takes a message to the queue that its routing key names.
        runs.insert("x-dead-letter-exchange".into(), text(""));
        runs.insert("x-dead-letter-routing-key".into(), text(self.dead.as_str()));
        channel.queue_declare(self.runs.clone(), options, runs).await?;
        Ok(())
    }
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(text))
}

/// The body of a message.
#[derive(Debug, Serialize, Deserialize)]
struct Message {
    /// Version of this form.
    v: u8,
    run: RunId,
}

/// A hint as a message.
pub(super) fn encode(hint: &RunHint) -> (Vec<u8>, BasicProperties) {
    let body = format!("{{\"v\":1,\"run\":\"{}\"}}", hint.run).into_bytes();
    let properties =
        BasicProperties::default().with_delivery_mode(PERSISTENT).with_content_type("application/json".into());
    let properties = match &hint.trace {
        Some(trace) => {
            let mut headers = FieldTable::default();
            headers.insert(TRACE.into(), text(trace));
            properties.with_headers(headers)
        }
        None => properties,
    };
    (body, properties)
}

/// A message as a hint; `None` if it is not one.
pub(super) fn decode(body: &[u8], properties: &BasicProperties) -> Option<RunHint> {
    let message: Message = serde_json::from_slice(body).ok().filter(|message: &Message| message.v == 1)?;
    let headers = properties.headers().as_ref();
    let trace = headers.and_then(|headers| headers.inner().get(TRACE)).and_then(|value| match value {
        AMQPValue::LongString(text) => Some(String::from_utf8_lossy(text.as_bytes()).into_owned()),
        _ => None,
    });
    Some(RunHint { run: message.run, trace })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_survives_the_wire() {
        let run = "run-123e4567-e89b-42d3-8456-426614174000".parse().expect("an id");
        for trace in [None, Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned())] {
            let hint = RunHint { run, trace };
            let (body, properties) = encode(&hint);
            assert_eq!(decode(&body, &properties), Some(hint));
        }
    }

    #[test]
    fn other_messages_are_no_hints() {
        let run = "run-123e4567-e89b-42d3-8456-426614174000";
        let cases = [String::new(), "{}".to_owned(), format!("{{\"v\":2,\"run\":\"{run}\"}}"), "{\"v\":1}".to_owned()];
        for body in cases {
            assert_eq!(decode(body.as_bytes(), &BasicProperties::default()), None, "{body}");
        }
    }
}
