//! The contract of the run queue over both adapters, and what only RabbitMQ can be asked.

use std::sync::Arc;

use holdfast_shared::backends::embedded::EmbeddedQueue;
use holdfast_shared::backends::rabbitmq::RabbitQueue;
use holdfast_shared::ports::run_queue::{RunHint, RunQueue, Settlement};
use holdfast_shared::testkit::event_log_suite::lease;
use holdfast_shared::testkit::run_queue_suite::SharedQueue;

use crate::services;

mod rabbitmq {
    use super::*;

    async fn run<F: Future<Output = ()>>(case: impl FnOnce(SharedQueue) -> F) {
        let queues = services::Queues::new();
        let queue = RabbitQueue::connect(&services::amqp_url(), queues.prefix()).await.expect("RabbitMQ answers");
        case(Arc::new(queue)).await;
        queues.remove().await;
    }

    holdfast_shared::run_queue_contract!(run);

    #[tokio::test]
    async fn a_dead_letter_is_kept_for_an_operator() {
        let queues = services::Queues::new();
        let queue = RabbitQueue::connect(&services::amqp_url(), queues.prefix()).await.expect("RabbitMQ answers");
        let hint = RunHint { run: lease().run, trace: None };
        queue.publish(std::slice::from_ref(&hint)).await.expect("published");
        let mut consumer = queue.consume(1).await.expect("a place");
        consumer.next().await.expect("a delivery").settle(Settlement::DeadLetter).await.expect("settled");
        let dead = queues.take_dead_letter().await;
        assert!(dead.contains(&hint.run.to_string()), "{dead}");
        queues.remove().await;
    }

    #[tokio::test]
    async fn the_queues_are_replicated_and_survive_the_broker() {
        let queues = services::Queues::new();
        let _queue = RabbitQueue::connect(&services::amqp_url(), queues.prefix()).await.expect("RabbitMQ answers");
        queues.declare_as("quorum").await.expect("it is one already");
        queues.declare_as("classic").await.expect_err("it is a quorum queue");
        queues.remove().await;
    }
}

mod embedded {
    use super::*;

    async fn run<F: Future<Output = ()>>(case: impl FnOnce(SharedQueue) -> F) {
        case(Arc::new(EmbeddedQueue::default())).await;
    }

    holdfast_shared::run_queue_contract!(run);

    #[tokio::test]
    async fn a_dead_letter_is_kept_for_an_operator() {
        let queue = EmbeddedQueue::default();
        let hint = RunHint { run: lease().run, trace: None };
        queue.publish(std::slice::from_ref(&hint)).await.expect("published");
        let mut consumer = queue.consume(1).await.expect("a place");
        consumer.next().await.expect("a delivery").settle(Settlement::DeadLetter).await.expect("settled");
        assert_eq!(queue.dead_letters(), [hint]);
    }
}
