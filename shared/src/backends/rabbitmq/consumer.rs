//! A worker's place at the queue. Whatever ends it (a restart of the broker, a closed channel, a cancelled consumer, of
//! which the client library only says that there is nothing more), it is taken again.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::{FutureExt, StreamExt};
use lapin::message::Delivery as Message;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions, BasicRejectOptions,
};
use lapin::types::FieldTable;

use super::{Broker, Link, topology, unavailable};
use crate::ports::run_queue::{Consumer, Delivery, QueueError, RunHint, Settlement};

/// Pause after the first failed try to connect again; it doubles up to [`PAUSE_MOST`].
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MOST: Duration = Duration::from_secs(2);

/// The consuming side.
pub(super) struct RabbitConsumer {
    broker: Broker,
    prefetch: u16,
    place: Option<Place>,
    pause: Duration,
}

struct Place {
    messages: lapin::Consumer,
    /// Shared with the deliveries: as long as one of them is not settled the connection stays. When the last one goes
    /// it is closed, and the broker takes back what is not settled.
    link: Arc<Link>,
}

impl RabbitConsumer {
    pub(super) async fn connect(broker: Broker, prefetch: u16) -> Result<Self, QueueError> {
        let place = Place::take(&broker, prefetch).await?;
        Ok(Self { broker, prefetch, place: Some(place), pause: PAUSE_FIRST })
    }
}

impl Place {
    async fn take(broker: &Broker, prefetch: u16) -> Result<Self, QueueError> {
        let link = broker.link("holdfast worker").await?;
        // Per consumer, not global: quorum queues do not know the latter.
        let qos = BasicQosOptions { global: false };
        link.channel.basic_qos(prefetch, qos).await.map_err(unavailable)?;
        let (queue, options) = (broker.topology.runs.clone(), BasicConsumeOptions::default());
        let consuming = link.channel.basic_consume(queue, "".into(), options, FieldTable::default());
        let messages = consuming.await.map_err(unavailable)?;
        Ok(Self { messages, link: Arc::new(link) })
    }
}

#[async_trait]
impl Consumer for RabbitConsumer {
    async fn next(&mut self) -> Option<Box<dyn Delivery>> {
        loop {
            let Some(place) = &mut self.place else {
                match Place::take(&self.broker, self.prefetch).await {
                    Ok(place) => {
                        self.place = Some(place);
                        self.pause = PAUSE_FIRST;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "no place at the queue; trying again");
                        tokio::time::sleep(self.pause).await;
                        self.pause = (self.pause * 2).min(PAUSE_MOST);
                    }
                }
                continue;
            };
            match place.messages.next().await {
                Some(Ok(message)) => match topology::decode(&message.data, &message.properties) {
                    Some(hint) => {
                        let link = Arc::clone(&place.link);
                        return Some(Box::new(RabbitDelivery { hint, message, is_settled: false, _link: link }));
                    }
                    None => {
                        tracing::warn!("a message that is no hint goes to the dead letters");
                        // A failure means that the place is lost; the message comes again then.
                        let _ = message.reject(BasicRejectOptions { requeue: false }).await;
                    }
                },
                Some(Err(error)) => {
                    tracing::warn!(%error, "the place at the queue is lost");
                    self.place = None;
                }
                None => {
                    tracing::warn!("the broker ended the consumer");
                    self.place = None;
                }
            }
        }
    }

    async fn close(mut self: Box<Self>) {
        let Some(place) = self.place.take() else { return };
        if let Err(error) = place.leave().await {
            tracing::debug!(%error, "the place at the queue was lost already");
        }
    }
}

impl Place {
    /// Tells the broker to send no more, then gives back what it has sent and nobody has taken.
    async fn leave(mut self) -> Result<(), lapin::Error> {
        self.link.channel.basic_cancel(self.messages.tag(), BasicCancelOptions::default()).await?;
        while let Some(Some(Ok(message))) = self.messages.next().now_or_never() {
            message.nack(BasicNackOptions { requeue: true, ..BasicNackOptions::default() }).await?;
        }
        Ok(())
    }
}

struct RabbitDelivery {
    hint: RunHint,
    message: Message,
    is_settled: bool,
    _link: Arc<Link>,
}

#[async_trait]
impl Delivery for RabbitDelivery {
    fn hint(&self) -> &RunHint {
        &self.hint
    }

    fn was_returned(&self) -> bool {
        self.message.redelivered
    }

    async fn settle(mut self: Box<Self>, settlement: Settlement) -> Result<(), QueueError> {
        self.is_settled = true;
        let settled = match settlement {
            Settlement::Done => self.message.ack(BasicAckOptions::default()).await,
            Settlement::HandBack => {
                self.message.nack(BasicNackOptions { requeue: true, ..BasicNackOptions::default() }).await
            }
            Settlement::DeadLetter => self.message.reject(BasicRejectOptions { requeue: false }).await,
        };
        match settled {
            Ok(true) => Ok(()),
            Ok(false) => Err(QueueError("the connection of this delivery is gone".to_owned())),
            Err(error) => Err(unavailable(error)),
        }
    }
}

impl Drop for RabbitDelivery {
    fn drop(&mut self) {
        if !self.is_settled {
            // The first poll hands the frame to the connection; there is nobody to wait for its answer.
            let options = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
            let _ = self.message.nack(options).now_or_never();
        }
    }
}
