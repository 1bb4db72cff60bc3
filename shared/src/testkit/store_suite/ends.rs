//! Ends, cancels and releases.

use super::*;

/// See the name.
pub async fn the_end_of_a_run_wakes_the_next_one(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let first = scene.accept("one").await;
    let next = scene.new_run("two");
    store.accept_run(&next).await.expect("accepted");
    scene.accept("three").await;
    let lease = scene.claim(first).await.lease;
    let run = scene.run(first).await;
    let end = end_of(&run, StopReason::Error);
    let entries = store.settle(&lease, &end).await.expect("settled");
    assert_eq!(entries.len(), 1);
    assert_eq!((entries[0].hint.run, &entries[0].hint.trace), (next.run.id, &next.trace));
    let ended = scene.run(first).await;
    let wanted = RunState::Ended {
        reason: StopReason::Error,
        at: end.at,
        error: end.outcome.error.clone(),
        terminal: SeqId::new(2),
    };
    assert_eq!((ended.state, ended.archived), (wanted, SeqId::new(4)));
    let agent = scene.agent().await;
    assert_eq!((agent.last_stop_reason, agent.last_run_completion), (Some(StopReason::Error), Some(end.at)));
    assert_eq!(agent.last_run_duration_ms, Some((end.at - run.created_at).num_milliseconds()));
    let ended = store.ended_among(&[first, next.run.id, new_id()]).await.expect("an answer");
    assert_eq!(ended, [first]);
    assert_eq!(store.ended_among(&[]).await.expect("an answer"), []);
}

/// See the name.
pub async fn the_last_step_and_the_end_are_one_commit(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let first = scene.accept("one").await;
    let second = scene.accept("two").await;
    let lease = scene.claim(first).await.lease;
    let step = scene.begin(&lease, 1).await;
    let answer = answer_record(scene.agent, first, step, &[]).message;
    let commit =
        StepCommit { stop_reason: Some(StopReason::EndTurn), ..step_commit(step, vec![answer], plain_events(2..=3)) };
    let mut run = scene.run(first).await;
    let unfinished = RunEnd { events: plain_events(4..=4), ..end_of(&run, StopReason::EndTurn) };
    let refused = store.commit_step(&lease, &commit, Some(&unfinished)).await;
    assert!(matches!(refused, Err(StoreError::Corrupt(_))), "an end has a stop_reason event: {refused:?}");
    assert_eq!(scene.run(first).await, run, "all or nothing");
    assert_eq!(texts(&scene.history().await), ["system", "one", "two"]);

    run.archived = SeqId::new(3);
    let end = end_of(&run, StopReason::EndTurn);
    let entries = store.commit_step(&lease, &commit, Some(&end)).await.expect("committed");
    assert_eq!(entries.iter().map(|entry| entry.hint.run).collect::<Vec<_>>(), [second]);
    let ended = scene.run(first).await;
    assert_eq!((ended.state.status(), ended.usage), (RunStatus::Completed, commit.run_usage));
    assert_eq!(store.events(first, SeqId::new(3)).await.expect("readable"), end.events);
    let steps = store.steps(first, &first_page(Order::Ascending)).await.expect("readable");
    assert_eq!((steps[0].status, steps[0].stop_reason), (StepStatus::Success, Some(StopReason::EndTurn)));
}

/// See the name.
pub async fn an_end_answers_the_calls_that_it_leaves_open(store: SharedStore) {
    let cases = [
        (StopReason::Cancelled, StepStatus::Cancelled, "The run was cancelled before this call finished."),
        (StopReason::Error, StepStatus::Failed, "The run ended before this call finished."),
    ];
    for (reason, status, text) in cases {
        let scene = Scene::new(&store).await;
        let run = scene.accept("hello").await;
        let lease = scene.claim(run).await.lease;
        let step = scene.begin(&lease, 1).await;
        let calls = [call("a"), call("b")];
        scene.answer(&lease, step, &calls).await;
        let result = ToolReturn::success(&calls[1], "B".to_owned());
        store.record_return(&lease, step, 1, &result).await.expect("recorded");
        let end = end_of(&scene.run(run).await, reason);
        store.settle(&lease, &end).await.expect("settled");
        let history = scene.history().await;
        let last = history.last().expect("messages");
        let wanted = vec![ToolReturn::refused(&calls[0], text.to_owned()), result];
        assert_eq!((&last.body, last.step_id), (&Body::ToolReturns(wanted), Some(step)));
        let steps = store.steps(run, &first_page(Order::Ascending)).await.expect("readable");
        assert_eq!((steps[0].status, steps[0].stop_reason), (status, Some(reason)));
        assert!(steps[0].timing.step_ns.is_some());
        assert_eq!(steps[0].usage, usage(7), "what was paid for is counted");
        assert_eq!(steps[0].error.is_some(), status == StepStatus::Failed);
        assert_eq!(scene.agent().await.message_ids.len(), 4);
    }
}

/// See the name.
pub async fn a_cancel_of_a_created_run_ends_it_without_a_worker(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let run = scene.accept("one").await;
    let next = scene.accept("two").await;
    let CancelRequest::Created(found) = store.request_cancel(run, now()).await.expect("an answer") else {
        panic!("no worker has it")
    };
    assert!(found.id == run && found.cancel_requested);
    let end = end_of(&found, StopReason::Cancelled);
    let entries = store.settle_created(run, &end).await.expect("settled").expect("no worker had it");
    assert_eq!(entries.iter().map(|entry| entry.hint.run).collect::<Vec<_>>(), [next]);
    let ended = scene.run(run).await;
    assert_eq!((ended.state.status(), ended.cancel_requested), (RunStatus::Cancelled, false));
    assert_eq!(store.request_cancel(run, now()).await.expect("an answer"), CancelRequest::Ended);
    assert_eq!(store.settle_created(run, &end).await.expect("an answer"), None);
    let lease = scene.claim(next).await.lease;
    let context = store.context(&lease).await.expect("readable");
    assert_eq!(texts(&context.messages), ["system", "two"], "what was cancelled in time was never said");
}

/// See the name.
pub async fn a_cancel_of_a_running_run_is_heard_at_the_heartbeat(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let run = scene.accept("one").await;
    let lease = scene.claim(run).await.lease;
    assert_eq!(store.heartbeat(lease.worker, &WorkerFacts::default()).await.expect("a heartbeat").cancelled, []);
    for _ in 0..2 {
        assert_eq!(store.request_cancel(run, now()).await.expect("an answer"), CancelRequest::Requested);
    }
    assert_eq!(store.heartbeat(lease.worker, &WorkerFacts::default()).await.expect("a heartbeat").cancelled, [run]);
    assert_eq!(store.heartbeat(new_id(), &WorkerFacts::default()).await.expect("a heartbeat").cancelled, []);
    let found = scene.run(run).await;
    assert!(found.cancel_requested);
    let end = end_of(&found, StopReason::Cancelled);
    assert_eq!(store.settle_created(run, &end).await.expect("an answer"), None, "a worker has it");
    let heir = scene.take_over(run).await;
    assert!(heir.run.cancel_requested, "the wish outlives the worker");
    store.settle(&heir.lease, &end).await.expect("settled");
    let facts = WorkerFacts { sandbox: "none: it is a test".to_owned() };
    store.heartbeat(new_id(), &facts).await.expect("a heartbeat");
    assert!(store.workers(LONG).await.expect("readable").contains(&facts));
    assert_eq!(store.workers(AT_ONCE).await.expect("readable"), [], "all are silent for that long");
    assert_eq!(store.heartbeat(heir.lease.worker, &WorkerFacts::default()).await.expect("a heartbeat").cancelled, []);
}

/// See the name.
pub async fn a_released_run_uses_up_no_attempt(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let run = scene.accept("one").await;
    let blocked = scene.accept("two").await;
    for epoch in 1..=3 {
        let claimed = scene.claim(run).await;
        assert_eq!((claimed.attempts, claimed.lease.epoch.get()), (1, epoch));
        let entries = store.release(&claimed.lease).await.expect("released");
        assert_eq!(entries.iter().map(|entry| entry.hint.run).collect::<Vec<_>>(), [run]);
        assert!(entries[0].hint.trace.is_some());
        assert_eq!(scene.run(run).await.state, RunState::Running);
        let worker = live_worker(&store).await;
        assert_eq!(store.claim(blocked, worker, LONG, now()).await.expect("an answer"), Claim::Blocked);
    }
}
