//! Calls that wait for the client.

use super::*;

/// A run of the scene's agent that has ended because its calls wait.
pub(super) struct Asking {
    pub(super) run: RunId,
    pub(super) step: StepId,
    request: MessageId,
}

/// Executes a run whose one step has a call that needs no answer and one that waits.
pub(super) async fn ask(scene: &Scene, deadline: Option<Timestamp>) -> Asking {
    let run = scene.accept("delete it").await;
    let lease = scene.claim(run).await.lease;
    let step = scene.begin(&lease, 1).await;
    let made = |body| Message { run_id: Some(run), step_id: Some(step), ..message(scene.agent, body) };
    let free = made(Body::Assistant(Answer { calls: vec![call("free")], ..Answer::default() }));
    let request = made(Body::ApprovalRequest(Answer { calls: vec![call("gated")], ..Answer::default() }));
    let id = request.id;
    let retries =
        vec![Retry { error_type: "llm_error".to_owned(), message: "busy".to_owned(), status: Some(529), waited_ms: 3 }];
    let commit = StepCommit {
        stop_reason: Some(StopReason::RequiresApproval),
        approval: Some(ApprovalChange::Ask { request: id, deadline }),
        retries: retries.clone(),
        ..step_commit(step, vec![free, request], Vec::new())
    };
    let end = end_of(&scene.run(run).await, StopReason::RequiresApproval);
    scene.store.commit_step(&lease, &commit, Some(&end)).await.expect("committed");
    let steps = scene.store.steps(run, &first_page(Order::Ascending)).await.expect("readable");
    assert_eq!(steps[0].retries, retries);
    Asking { run, step, request: id }
}

fn answering(scene: &Scene, asking: &Asking) -> NewRun {
    let mut new = scene.new_run("");
    new.run.request.answering = Some(Answering { request: asking.request, step: asking.step, run: asking.run });
    let answer = CallAnswer::Approval { tool_call_id: "gated".to_owned(), approve: true, reason: None };
    new.input =
        vec![Message { run_id: Some(new.run.id), ..message(scene.agent, Body::ApprovalResponse(vec![answer])) }];
    new
}

async fn begin_answering(scene: &Scene, lease: &Lease, asking: &Asking) -> StepId {
    let step =
        NewStep { id: new_id(), number: 1, model: ModelHandle::demo(), started_at: now(), answers: Some(asking.step) };
    scene.store.begin_step(lease, &step).await.expect("begun");
    step.id
}

pub(super) fn closing_ids() -> ApprovalCancel {
    ApprovalCancel { at: now(), response: new_id(), returns: new_id() }
}

/// See the name.
pub async fn calls_that_wait_keep_other_runs_waiting(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let first = scene.new_run("asks");
    let waits = scene.new_run("waits behind it");
    store.accept_run(&first).await.expect("accepted");
    store.accept_run(&waits).await.expect("accepted");
    let lease = scene.claim(first.run.id).await.lease;
    let step = scene.begin(&lease, 1).await;
    let request = Message {
        run_id: Some(first.run.id),
        step_id: Some(step),
        ..message(scene.agent, Body::ApprovalRequest(Answer { calls: vec![call("gated")], ..Answer::default() }))
    };
    let id = request.id;
    let commit = StepCommit {
        stop_reason: Some(StopReason::RequiresApproval),
        approval: Some(ApprovalChange::Ask { request: id, deadline: None }),
        ..step_commit(step, vec![request], Vec::new())
    };
    let end = end_of(&scene.run(first.run.id).await, StopReason::RequiresApproval);
    let woken = store.commit_step(&lease, &commit, Some(&end)).await.expect("committed");
    assert_eq!(woken, [], "the run behind it has to wait");
    let worker = live_worker(&store).await;
    assert_eq!(store.claim(waits.run.id, worker, LONG, now()).await.expect("an answer"), Claim::Blocked);
    assert_eq!(store.rescue(AT_ONCE, Duration::ZERO).await.expect("an answer"), 0, "it is not lost, it waits");

    let plain = scene.new_run("a plain message");
    assert_eq!(store.accept_run(&plain).await.expect("an answer"), Accepted::ApprovalPending(id));
    let asking = Asking { run: first.run.id, step, request: new_id() };
    let other = answering(&scene, &asking);
    assert_eq!(store.accept_run(&other).await.expect("an answer"), Accepted::NothingPending);

    let woken = store.cancel_approval(first.run.id, &closing_ids()).await.expect("an answer").expect("it waited");
    assert_eq!(woken.iter().map(|entry| entry.hint.run).collect::<Vec<_>>(), [waits.run.id]);
    scene.claim(waits.run.id).await;
}

/// See the name.
pub async fn only_one_run_answers_calls_and_it_goes_first(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let asking = ask(&scene, None).await;
    let answer = answering(&scene, &asking);
    assert!(matches!(store.accept_run(&answer).await.expect("an answer"), Accepted::New(_)));
    let second = answering(&scene, &asking);
    assert_eq!(store.accept_run(&second).await.expect("an answer"), Accepted::BeingAnswered(answer.run.id));

    let lease = scene.claim(answer.run.id).await.lease;
    let step = begin_answering(&scene, &lease, &asking).await;
    let heir = scene.take_over(answer.run.id).await;
    let open = heir.open_step.expect("the step is open");
    let recorded = open.answer.expect("its calls are known");
    assert_eq!((open.id, recorded.answers, recorded.message_id), (step, Some(asking.step), asking.request));
    assert_eq!(recorded.answer.calls, [call("free"), call("gated")]);

    let returns = vec![ToolReturn::success(&call("gated"), "done".to_owned())];
    let results = Message {
        run_id: Some(answer.run.id),
        step_id: Some(asking.step),
        ..message(scene.agent, Body::ToolReturns(returns))
    };
    let commit = StepCommit { approval: Some(ApprovalChange::Settle), ..step_commit(step, vec![results], Vec::new()) };
    store.commit_step(&heir.lease, &commit, None).await.expect("committed");
    let steps = store.steps(answer.run.id, &first_page(Order::Ascending)).await.expect("readable");
    assert_eq!(steps, [], "a step without a model call is not listed");
    let plain = scene.new_run("goes on");
    assert!(matches!(store.accept_run(&plain).await.expect("an answer"), Accepted::New(_)), "nothing waits any more");
    let worker = live_worker(&store).await;
    assert_eq!(store.claim(plain.run.id, worker, LONG, now()).await.expect("an answer"), Claim::Blocked);
    let woken = scene.settle(&heir.lease).await;
    assert_eq!(woken.iter().map(|entry| entry.hint.run).collect::<Vec<_>>(), [plain.run.id]);
    assert_eq!(store.accept_run(&second).await.expect("an answer"), Accepted::NothingPending);
}

/// See the name.
pub async fn a_cancel_settles_calls_that_wait(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let asking = ask(&scene, None).await;
    let ids = closing_ids();
    assert_eq!(store.cancel_approval(new_id(), &ids).await.expect("an answer"), None);
    assert!(store.cancel_approval(asking.run, &ids).await.expect("an answer").is_some());
    assert_eq!(store.cancel_approval(asking.run, &ids).await.expect("an answer"), None, "only once");
    assert_eq!(scene.run(asking.run).await.state.status(), RunStatus::Cancelled);
    let history = scene.history().await;
    let last: Vec<_> = history.iter().rev().take(2).map(|message| (message.id, message.step_id)).collect();
    assert_eq!(last, [(ids.returns, Some(asking.step)), (ids.response, Some(asking.step))]);
    let Some(Body::ToolReturns(returns)) = history.last().map(|message| &message.body) else {
        panic!("the calls have results")
    };
    assert_eq!(returns.iter().map(|one| one.call_id.as_str()).collect::<Vec<_>>(), ["free", "gated"]);
    assert!(returns.iter().all(|one| one.status == ToolStatus::Error && !one.was_executed));
    assert!(matches!(store.accept_run(&scene.new_run("on")).await.expect("an answer"), Accepted::New(_)));
}

/// See the name.
pub async fn calls_are_found_when_their_deadline_has_passed(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let deadline = now();
    let asking = ask(&scene, Some(deadline)).await;
    let second = chrono::Duration::seconds(1);
    assert_eq!(store.expired_approvals(deadline - second, 10).await.expect("readable"), []);
    let expired = store.expired_approvals(deadline, 10).await.expect("readable");
    assert_eq!(expired.len(), 1);
    assert_eq!((&expired[0].tenant, expired[0].request.id), (&scene.tenant, asking.request));
    assert_eq!(expired[0].request.run_id, Some(asking.run));
    let answer = answering(&scene, &asking);
    store.accept_run(&answer).await.expect("accepted");
    assert_eq!(store.expired_approvals(deadline, 10).await.expect("readable"), [], "somebody answers");
}

/// See the name.
pub async fn an_answering_run_that_ends_early_leaves_no_call_open(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let asking = ask(&scene, None).await;
    let failing = answering(&scene, &asking);
    store.accept_run(&failing).await.expect("accepted");
    let lease = scene.claim(failing.run.id).await.lease;
    begin_answering(&scene, &lease, &asking).await;
    store.settle(&lease, &end_of(&scene.run(lease.run).await, StopReason::Error)).await.expect("settled");

    let again = answering(&scene, &asking);
    assert!(matches!(store.accept_run(&again).await.expect("an answer"), Accepted::New(_)), "the calls still wait");
    let lease = scene.claim(again.run.id).await.lease;
    let step = begin_answering(&scene, &lease, &asking).await;
    let done = ToolReturn::success(&call("gated"), "done".to_owned());
    store.record_return(&lease, step, 1, &done).await.expect("recorded");
    store.settle(&lease, &end_of(&scene.run(lease.run).await, StopReason::Cancelled)).await.expect("settled");
    let history = scene.history().await;
    let last = history.last().expect("a message");
    let Body::ToolReturns(returns) = &last.body else { panic!("the calls have results") };
    assert_eq!((last.step_id, returns[0].was_executed, &returns[1]), (Some(asking.step), false, &done));
    assert!(matches!(store.accept_run(&scene.new_run("on")).await.expect("an answer"), Accepted::New(_)));
}

/// See the name.
pub async fn a_call_that_was_begun_is_known_to_the_heir(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let run = scene.accept("hello").await;
    let lease = scene.claim(run).await.lease;
    let step = scene.begin(&lease, 1).await;
    scene.answer(&lease, step, &[call("a"), call("b"), call("c")]).await;
    store.begin_call(&lease, step, 0).await.expect("noted");
    let done = ToolReturn::success(&call("a"), "done".to_owned());
    store.record_return(&lease, step, 0, &done).await.expect("recorded");
    store.begin_call(&lease, step, 0).await.expect("a result stays");
    store.begin_call(&lease, step, 1).await.expect("noted");
    store.begin_call(&lease, step, 1).await.expect("noted before");
    let heir = scene.take_over(run).await;
    assert_fenced(store.begin_call(&lease, step, 2).await);
    let recorded = heir.open_step.expect("open").answer.expect("answered");
    assert_eq!((recorded.returns, recorded.begun), (vec![done], vec![1]));
}

/// See the name.
pub async fn a_decided_end_survives_a_takeover(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let run = scene.accept("hello").await;
    let first = scene.claim(run).await;
    assert_eq!(first.decided, None);
    let step = scene.begin(&first.lease, 1).await;
    let commit = StepCommit { stop_reason: None, ..step_commit(step, Vec::new(), Vec::new()) };
    store.commit_step(&first.lease, &commit, None).await.expect("committed");
    let heir = scene.take_over(run).await;
    assert_eq!((heir.steps_done, heir.decided), (1, None));
    let step = scene.begin(&heir.lease, 2).await;
    let commit = StepCommit { stop_reason: Some(StopReason::EndTurn), ..step_commit(step, Vec::new(), Vec::new()) };
    store.commit_step(&heir.lease, &commit, None).await.expect("committed");
    let heir = scene.take_over(run).await;
    assert_eq!((heir.steps_done, heir.open_step, heir.decided), (2, None, Some(StopReason::EndTurn)));
}

/// See the name.
pub async fn what_a_provider_refused_leaves_the_context(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let run = scene.accept("poison").await;
    let lease = scene.claim(run).await.lease;
    let end = RunEnd { forgets_messages: true, ..end_of(&scene.run(run).await, StopReason::LlmApiError) };
    store.settle(&lease, &end).await.expect("settled");
    assert_eq!(scene.agent().await.message_ids.len(), 1, "only the system message is in context");
    assert_eq!(texts(&scene.history().await), ["system", "poison"], "nothing is forgotten");
}
