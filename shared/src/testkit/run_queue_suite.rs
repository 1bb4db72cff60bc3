//! The contract of the run queue: what every adapter promises.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use uuid::Uuid;

use crate::domain::ids::{Id, RunId};
use crate::ports::run_queue::{Consumer, Delivery, RunHint, RunQueue, Settlement};

/// A run queue under test.
pub type SharedQueue = Arc<dyn RunQueue>;

/// How long anything may take that is to happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// Makes a test of each case. The argument is an async function that runs a case on a new, empty queue.
#[macro_export]
macro_rules! run_queue_contract {
    ($run:path) => {
        $crate::run_queue_contract!(@ $run:
            a_published_hint_is_delivered_once
            a_hint_keeps_its_trace
            a_hint_that_is_handed_back_comes_again
            a_hint_that_is_dropped_comes_again
            a_closed_consumer_gives_its_hints_back
            a_closed_consumer_lets_go_of_what_it_did_not_hand_out
            no_more_is_delivered_than_fits
            a_dead_letter_does_not_come_again
            consumers_share_the_hints
            the_queue_says_that_it_is_there
        );
    };
    (@ $run:path: $($case:ident)*) => {$(
        #[tokio::test]
        async fn $case() {
            $run($crate::testkit::run_queue_suite::$case).await;
        }
    )*};
}

fn hint() -> RunHint {
    RunHint { run: RunId::from_uuid(Uuid::new_v4()), trace: None }
}

async fn next(consumer: &mut Box<dyn Consumer>) -> Box<dyn Delivery> {
    let delivery = tokio::time::timeout(PATIENCE, consumer.next()).await.expect("a delivery in time");
    delivery.expect("the queue is open")
}

/// Nothing is there: a hint that is published now is the next to come.
async fn assert_empty(queue: &SharedQueue, consumer: &mut Box<dyn Consumer>) {
    let marker = hint();
    queue.publish(std::slice::from_ref(&marker)).await.expect("published");
    let delivery = next(consumer).await;
    assert_eq!(*delivery.hint(), marker, "something else was still there");
    delivery.settle(Settlement::Done).await.expect("settled");
}

/// See the name.
pub async fn a_published_hint_is_delivered_once(queue: SharedQueue) {
    let hints = [hint(), hint(), hint()];
    queue.publish(&hints).await.expect("published");
    let mut consumer = queue.consume(10).await.expect("a place");
    for hint in &hints {
        let delivery = next(&mut consumer).await;
        assert_eq!(delivery.hint(), hint);
        assert!(!delivery.was_returned());
        delivery.settle(Settlement::Done).await.expect("settled");
    }
    assert_empty(&queue, &mut consumer).await;
}

/// See the name.
pub async fn a_hint_keeps_its_trace(queue: SharedQueue) {
    let hint = RunHint { trace: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()), ..hint() };
    queue.publish(std::slice::from_ref(&hint)).await.expect("published");
    let mut consumer = queue.consume(1).await.expect("a place");
    let delivery = next(&mut consumer).await;
    assert_eq!(*delivery.hint(), hint);
    delivery.settle(Settlement::Done).await.expect("settled");
}

/// See the name.
pub async fn a_hint_that_is_handed_back_comes_again(queue: SharedQueue) {
    let hint = hint();
    queue.publish(std::slice::from_ref(&hint)).await.expect("published");
    let mut consumer = queue.consume(1).await.expect("a place");
    next(&mut consumer).await.settle(Settlement::HandBack).await.expect("settled");
    let again = next(&mut consumer).await;
    assert_eq!(*again.hint(), hint);
    assert!(again.was_returned());
    again.settle(Settlement::Done).await.expect("settled");
    assert_empty(&queue, &mut consumer).await;
}

/// See the name.
pub async fn a_hint_that_is_dropped_comes_again(queue: SharedQueue) {
    let hint = hint();
    queue.publish(std::slice::from_ref(&hint)).await.expect("published");
    let mut consumer = queue.consume(1).await.expect("a place");
    drop(next(&mut consumer).await);
    let again = next(&mut consumer).await;
    assert_eq!(*again.hint(), hint);
    assert!(again.was_returned());
    again.settle(Settlement::Done).await.expect("settled");
}

/// See the name.
pub async fn a_closed_consumer_gives_its_hints_back(queue: SharedQueue) {
    let hints = [hint(), hint()];
    queue.publish(&hints).await.expect("published");
    let mut first = queue.consume(2).await.expect("a place");
    let held = (next(&mut first).await, next(&mut first).await);
    drop(held);
    drop(first);
    let mut second = queue.consume(2).await.expect("a place");
    let mut got = Vec::new();
    for _ in &hints {
        let delivery = next(&mut second).await;
        assert!(delivery.was_returned());
        got.push(delivery.hint().clone());
        delivery.settle(Settlement::Done).await.expect("settled");
    }
    got.sort_by_key(|hint| hints.iter().position(|known| known == hint));
    assert_eq!(got, hints);
}

/// See the name.
pub async fn a_closed_consumer_lets_go_of_what_it_did_not_hand_out(queue: SharedQueue) {
    let hints = [hint(), hint(), hint()];
    queue.publish(&hints).await.expect("published");
    let mut first = queue.consume(3).await.expect("a place");
    let held = next(&mut first).await;
    first.close().await;
    let mut second = queue.consume(3).await.expect("a place");
    let mut got = Vec::new();
    for _ in 1..hints.len() {
        let delivery = next(&mut second).await;
        got.push(delivery.hint().clone());
        delivery.settle(Settlement::Done).await.expect("settled");
    }
    got.sort_by_key(|hint| hints.iter().position(|known| known == hint));
    assert_eq!(got, hints[1..]);
    // What was handed out is still its holder's.
    assert_eq!(*held.hint(), hints[0]);
    held.settle(Settlement::Done).await.expect("settled");
    assert_empty(&queue, &mut second).await;
}

/// See the name.
pub async fn no_more_is_delivered_than_fits(queue: SharedQueue) {
    let hints = [hint(), hint(), hint()];
    queue.publish(&hints).await.expect("published");
    let mut narrow = queue.consume(2).await.expect("a place");
    let (one, two) = (next(&mut narrow).await, next(&mut narrow).await);
    assert!(narrow.next().now_or_never().is_none());
    // The third goes to whoever has room.
    let mut other = queue.consume(2).await.expect("a place");
    let three = next(&mut other).await;
    assert_eq!(*three.hint(), hints[2]);
    for delivery in [one, two, three] {
        delivery.settle(Settlement::Done).await.expect("settled");
    }
}

/// See the name.
pub async fn a_dead_letter_does_not_come_again(queue: SharedQueue) {
    queue.publish(&[hint()]).await.expect("published");
    let mut consumer = queue.consume(1).await.expect("a place");
    next(&mut consumer).await.settle(Settlement::DeadLetter).await.expect("settled");
    assert_empty(&queue, &mut consumer).await;
}

/// See the name.
pub async fn consumers_share_the_hints(queue: SharedQueue) {
    let mut consumers = [queue.consume(1).await.expect("a place"), queue.consume(1).await.expect("a place")];
    let hints = [hint(), hint()];
    queue.publish(&hints).await.expect("published");
    let mut got = Vec::new();
    let mut held = Vec::new();
    for consumer in &mut consumers {
        let delivery = next(consumer).await;
        got.push(delivery.hint().clone());
        held.push(delivery);
    }
    got.sort_by_key(|hint| hints.iter().position(|known| known == hint));
    assert_eq!(got, hints);
    for delivery in held {
        delivery.settle(Settlement::Done).await.expect("settled");
    }
}

/// See the name.
pub async fn the_queue_says_that_it_is_there(queue: SharedQueue) {
    queue.ping().await.expect("there");
    assert!(!queue.name().is_empty());
}
