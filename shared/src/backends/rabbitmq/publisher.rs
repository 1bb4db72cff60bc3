//! Publishes hints and waits until the broker has them.

use std::time::Duration;

use lapin::Confirmation;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use tokio::sync::Mutex;

use super::{Broker, Link, topology, unavailable};
use crate::ports::run_queue::{QueueError, RunHint};

/// How long the broker may take to confirm.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);

/// The publishing side. A link that broke is made anew by the next publication.
pub(super) struct Publisher {
    broker: Broker,
    link: Mutex<Option<Link>>,
}

impl Publisher {
    pub(super) async fn connect(broker: Broker) -> Result<Self, QueueError> {
        let link = Self::link(&broker).await?;
        Ok(Self { broker, link: Mutex::new(Some(link)) })
    }

    async fn link(broker: &Broker) -> Result<Link, QueueError> {
        let link = broker.link("holdfast publisher").await?;
        link.channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(unavailable)?;
        Ok(link)
    }

    /// The present channel; a new one if the last one broke. The lock is held while connecting, so that many
    /// publishers make one connection.
    async fn channel(&self) -> Result<lapin::Channel, QueueError> {
        let mut link = self.link.lock().await;
        match link.as_ref().filter(|link| link.is_up()) {
            Some(link) => Ok(link.channel.clone()),
            None => {
                let fresh = Self::link(&self.broker).await?;
                let channel = fresh.channel.clone();
                *link = Some(fresh);
                Ok(channel)
            }
        }
    }

    pub(super) async fn publish(&self, hints: &[RunHint]) -> Result<(), QueueError> {
        let channel = self.channel().await?;
        match tokio::time::timeout(CONFIRM_TIMEOUT, self.publish_all(&channel, hints)).await {
            Ok(result) => result,
            Err(_late) => Err(QueueError("the broker does not confirm".to_owned())),
        }
    }

    /// Sends all, then waits for all: confirmations overlap.
    async fn publish_all(&self, channel: &lapin::Channel, hints: &[RunHint]) -> Result<(), QueueError> {
        // Without `mandatory` the broker would confirm a message that no queue takes.
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let mut confirms = Vec::with_capacity(hints.len());
        for hint in hints {
            let (body, properties) = topology::encode(hint);
            let queue = self.broker.topology.runs.clone();
            let sent = channel.basic_publish("".into(), queue, options, &body, properties).await;
            confirms.push(sent.map_err(unavailable)?);
        }
        for confirm in confirms {
            match confirm.await.map_err(unavailable)? {
                Confirmation::Ack(None) => {}
                // An unroutable message is confirmed as well, with the message that came back.
                Confirmation::Ack(Some(_)) => return Err(QueueError("the queue is gone".to_owned())),
                Confirmation::Nack(_) => return Err(QueueError("the broker refused a hint".to_owned())),
                Confirmation::NotRequested => return Err(QueueError("the broker does not confirm".to_owned())),
            }
        }
        Ok(())
    }

    pub(super) async fn ping(&self) -> Result<(), QueueError> {
        let channel = self.channel().await?;
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let queue = self.broker.topology.runs.clone();
        let asked = channel.queue_declare(queue, options, FieldTable::default());
        match tokio::time::timeout(CONFIRM_TIMEOUT, asked).await {
            Ok(result) => result.map(|_queue| ()).map_err(unavailable),
            Err(_late) => Err(QueueError("the broker does not answer".to_owned())),
        }
    }
}
