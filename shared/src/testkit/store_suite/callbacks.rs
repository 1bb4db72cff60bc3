//! Callbacks.

use std::collections::BTreeSet;

use super::*;
use crate::ports::store::TakenCallback;

const HOUR: Duration = Duration::from_secs(3600);

impl Scene {
    async fn accept_with_callback(&self, url: &str) -> RunId {
        let mut new = self.new_run("hello");
        new.run.request.callback_url = Some(CallbackUrl::parse(url).expect("a URL"));
        assert!(matches!(self.store.accept_run(&new).await.expect("accepted"), Accepted::New(_)));
        new.run.id
    }

    /// A run that has ended and has a callback.
    async fn ended(&self, url: &str) -> RunId {
        let run = self.accept_with_callback(url).await;
        let lease = self.claim(run).await.lease;
        self.settle(&lease).await;
        run
    }

    async fn due(&self) -> Option<TakenCallback> {
        self.store.take_callback(&[], HOUR).await.expect("an answer")
    }
}

fn tried(result: CallbackResult) -> CallbackTry {
    CallbackTry { at: now(), result }
}

/// See the name.
pub async fn a_callback_is_entered_exactly_with_the_end(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let url = "https://example.com/done";

    // Between steps.
    let run = scene.accept_with_callback(url).await;
    let lease = scene.claim(run).await.lease;
    assert_eq!(scene.due().await, None, "it has not ended");
    let end = end_of(&scene.run(run).await, StopReason::Error);
    let unfinished = RunEnd { events: Vec::new(), ..end.clone() };
    assert!(store.settle(&lease, &unfinished).await.is_err());
    assert_eq!(scene.due().await, None, "an end that failed is none");
    store.settle(&lease, &end).await.expect("settled");
    let taken = scene.due().await.expect("a callback");
    assert_eq!((taken.failed, &taken.run), (0, &scene.run(run).await));
    assert!(taken.run.state.has_ended());
    assert_eq!(taken.run.request.callback_url, CallbackUrl::parse(url).ok());
    assert_eq!(scene.due().await, None, "one run, one callback");

    // With the last step, which asks for an approval; a cancel of that is no second end.
    let run = scene.accept_with_callback(url).await;
    let lease = scene.claim(run).await.lease;
    let step = scene.begin(&lease, 1).await;
    let asked = Answer { parts: Vec::new(), calls: vec![call("a")], made_by: None };
    let request =
        Message { run_id: Some(run), step_id: Some(step), ..message(scene.agent, Body::ApprovalRequest(asked)) };
    let asks = ApprovalChange::Ask { request: request.id, deadline: None };
    let commit = StepCommit {
        stop_reason: Some(StopReason::RequiresApproval),
        approval: Some(asks),
        ..step_commit(step, vec![request], Vec::new())
    };
    let end = end_of(&scene.run(run).await, StopReason::RequiresApproval);
    store.commit_step(&lease, &commit, Some(&end)).await.expect("committed");
    let taken = scene.due().await.expect("a callback");
    assert_eq!((taken.run.id, taken.run.state.status()), (run, RunStatus::Completed));
    assert!(store.callback_tried(&taken, &tried(CallbackResult::Answered(200)), None).await.expect("noted"));
    let cancel = ApprovalCancel { at: now(), response: new_id(), returns: new_id() };
    store.cancel_approval(run, &cancel).await.expect("cancelled").expect("it waited");
    let cancelled = scene.run(run).await;
    assert_eq!(cancelled.state.status(), RunStatus::Cancelled);
    assert!(cancelled.callback.is_some(), "what came of it stays");
    assert_eq!(scene.due().await, None);

    // Without a worker.
    let run = scene.accept_with_callback(url).await;
    let CancelRequest::Created(found) = store.request_cancel(run, now()).await.expect("an answer") else {
        panic!("no worker has it")
    };
    store.settle_created(run, &end_of(&found, StopReason::Cancelled)).await.expect("settled").expect("it was created");
    let taken = scene.due().await.expect("a callback");
    assert_eq!((taken.run.id, taken.run.state.status()), (run, RunStatus::Cancelled));

    // And none for who wants none.
    let lease = scene.claim(scene.accept("quiet").await).await.lease;
    scene.settle(&lease).await;
    assert_eq!(scene.due().await, None);
}

/// See the name.
pub async fn a_callback_has_one_taker_at_a_time(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let mut ended = BTreeSet::new();
    for number in 0..6 {
        ended.insert(scene.ended(&format!("https://example.com/{number}")).await.to_string());
    }
    let takers: Vec<_> = (0..12)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.take_callback(&[], HOUR).await.expect("an answer") })
        })
        .collect();
    let mut taken = Vec::new();
    for taker in takers {
        taken.extend(taker.await.expect("no panic").map(|taken| taken.run.id.to_string()));
    }
    // Somebody may come away empty while another one looks at the same row; what is left is there for the next.
    while let Some(left) = scene.due().await {
        taken.push(left.run.id.to_string());
    }
    assert_eq!(taken.len(), 6, "each once: {taken:?}");
    assert_eq!(taken.into_iter().collect::<BTreeSet<_>>(), ended);

    // Who waits for one receiver is not in the way of another.
    scene.ended("https://slow.example/a").await;
    let quick = scene.ended("https://quick.example/b").await;
    let slow = vec!["https://slow.example".to_owned()];
    let taken = store.take_callback(&slow, HOUR).await.expect("an answer").expect("a callback");
    assert_eq!(taken.run.id, quick);
    assert_eq!(store.take_callback(&slow, HOUR).await.expect("an answer"), None);
    assert!(scene.due().await.is_some());
}

/// See the name.
pub async fn a_callback_is_taken_again_after_its_takers_silence(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let run = scene.ended("https://example.com/done").await;
    let silent = store.take_callback(&[], Duration::ZERO).await.expect("an answer").expect("a callback");
    let heir = scene.due().await.expect("the same callback");
    assert_eq!((silent.run.id, heir.run.id, heir.failed), (run, run, 0));
    let late = tried(CallbackResult::Failed("late".to_owned()));
    for pause in [None, Some(Duration::ZERO)] {
        assert!(!store.callback_tried(&silent, &late, pause).await.expect("an answer"), "it is the heir's now");
    }
    assert_eq!(scene.run(run).await.callback, None);
    assert_eq!(scene.due().await, None);
    assert!(store.callback_tried(&heir, &tried(CallbackResult::Answered(200)), None).await.expect("noted"));
    assert!(!store.callback_tried(&silent, &late, None).await.expect("an answer"), "it is done");
    assert_eq!(scene.run(run).await.callback.map(|tried| tried.result), Some(CallbackResult::Answered(200)));
}

/// See the name.
pub async fn what_came_of_a_callback_is_kept(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let run = scene.ended("https://example.com/done").await;
    assert_eq!(scene.run(run).await.callback, None);
    let results =
        [CallbackResult::Failed("no answer".to_owned()), CallbackResult::Answered(503), CallbackResult::Answered(204)];
    for (failed, result) in (0..).zip(results) {
        let taken = scene.due().await.expect("a callback");
        assert_eq!(taken.failed, failed);
        let tried = tried(result);
        let pause = (!tried.result.is_success()).then_some(Duration::ZERO);
        assert!(store.callback_tried(&taken, &tried, pause).await.expect("noted"));
        assert_eq!(scene.run(run).await.callback, Some(tried));
    }
    assert_eq!(scene.due().await, None, "it is done");
    let run = scene.ended("https://example.com/done").await;
    let taken = scene.due().await.expect("a callback");
    let strange = tried(CallbackResult::Failed("nul \0 quote '".to_owned()));
    assert!(store.callback_tried(&taken, &strange, Some(HOUR)).await.expect("noted"));
    assert_eq!(scene.due().await, None, "not before the pause is over");
    let kept = scene.run(run).await.callback.expect("a try");
    assert_eq!((kept.at, kept.result.status()), (strange.at, None));
}
