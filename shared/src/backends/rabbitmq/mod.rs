//! RabbitMQ: the run queue of a distributed installation.

mod consumer;
mod publisher;
mod topology;

use std::time::Duration;

use async_trait::async_trait;
use lapin::{Channel, Connection, ConnectionProperties};

use self::consumer::RabbitConsumer;
use self::publisher::Publisher;
use self::topology::Topology;
use crate::ports::run_queue::{Consumer, QueueError, RunHint, RunQueue};

/// How long connecting and declaring may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The adapter. Publishing and consuming have connections of their own, so that a broker which slows publishers down
/// does not hold up acknowledgements.
pub struct RabbitQueue {
    broker: Broker,
    publisher: Publisher,
}

/// Where the broker is, and what is declared there.
#[derive(Clone)]
struct Broker {
    url: String,
    topology: Topology,
}

/// A connection with one channel; what was declared is there.
struct Link {
    channel: Channel,
    /// Dropping it closes the channel.
    connection: Connection,
}

impl RabbitQueue {
    /// Connects and declares the queues, whose names begin with `prefix`.
    ///
    /// # Errors
    /// The broker cannot be reached, or has queues of that name with other properties.
    pub async fn connect(url: &str, prefix: &str) -> Result<Self, QueueError> {
        let broker = Broker { url: url.to_owned(), topology: Topology::new(prefix) };
        let publisher = Publisher::connect(broker.clone()).await?;
        Ok(Self { broker, publisher })
    }
}

impl Broker {
    async fn link(&self, name: &str) -> Result<Link, QueueError> {
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let link = async {
            let connection = Connection::connect(&self.url, properties).await?;
            let channel = connection.create_channel().await?;
            self.topology.declare(&channel).await?;
            Ok::<_, lapin::Error>(Link { channel, connection })
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, link).await {
            Ok(link) => link.map_err(unavailable),
            Err(_late) => Err(QueueError("the broker does not answer".to_owned())),
        }
    }
}

impl Link {
    fn is_up(&self) -> bool {
        self.connection.status().connected() && self.channel.status().connected()
    }
}

#[async_trait]
impl RunQueue for RabbitQueue {
    async fn publish(&self, hints: &[RunHint]) -> Result<(), QueueError> {
        self.publisher.publish(hints).await
    }

    async fn consume(&self, prefetch: u16) -> Result<Box<dyn Consumer>, QueueError> {
        Ok(Box::new(RabbitConsumer::connect(self.broker.clone(), prefetch).await?))
    }

    async fn ping(&self) -> Result<(), QueueError> {
        self.publisher.ping().await
    }

    fn name(&self) -> &'static str {
        "rabbitmq"
    }
}

fn unavailable(error: lapin::Error) -> QueueError {
    QueueError(error.to_string())
}
