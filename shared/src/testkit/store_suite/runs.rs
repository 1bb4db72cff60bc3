//! Accepting, claiming, fencing.

use super::*;

/// See the name.
pub async fn accepting_stores_run_input_events_and_hint_together(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let new = scene.new_run("hello");
    let Accepted::New(entry) = store.accept_run(&new).await.expect("accepted") else { panic!("it is new") };
    assert_eq!((entry.hint.run, &entry.hint.trace), (new.run.id, &new.trace));
    assert_eq!(scene.run(new.run.id).await, new.run);
    let filter = MessageFilter::run(scene.agent, new.run.id);
    let input = store.messages(&filter, &first_page(Order::Ascending)).await.expect("readable");
    assert_eq!(input, new.input);
    assert_eq!(store.events(new.run.id, SeqId::START).await.expect("readable"), new.opening);
}

/// See the name.
pub async fn a_refused_run_leaves_nothing_behind(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let mut broken = scene.new_run("hello");
    broken.opening = vec![event(1, EventKind::Ping), event(3, EventKind::Ping)];
    broken.run.archived = SeqId::new(3);
    let refused = store.accept_run(&broken).await;
    assert!(matches!(refused, Err(StoreError::Corrupt(_))), "{refused:?}");
    assert_eq!(store.run(&scene.tenant, broken.run.id).await.expect("an answer"), None);
    assert_eq!(texts(&scene.history().await), ["system"]);
    assert_eq!(store.events(broken.run.id, SeqId::START).await.expect("an answer"), []);
    let unknown = new_run(&scene.tenant, new_id(), "hello");
    assert_eq!(store.accept_run(&unknown).await.expect("an answer"), Accepted::NoAgent);
    assert_eq!(store.rescue(AT_ONCE, Duration::ZERO).await.expect("searched"), 0);
}

/// See the name.
pub async fn the_same_request_many_times_at_once_makes_one_run(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let key = RequestKey { key: "k".to_owned(), content: "c".to_owned() };
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let new = NewRun { key: Some(key.clone()), ..scene.new_run("hello") };
        let store = Arc::clone(&store);
        tasks.push(tokio::spawn(async move { store.accept_run(&new).await.expect("an answer") }));
    }
    let mut made = Vec::new();
    let mut known = Vec::new();
    for task in tasks {
        match task.await.expect("no panic") {
            Accepted::New(entry) => made.push(entry.hint.run),
            Accepted::Known(run) => known.push(run.id),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(made.len(), 1);
    assert_eq!(known, vec![made[0]; 7]);
    let runs = store.runs(&scene.tenant, &RunFilter::default(), &first_page(Order::Ascending)).await;
    assert_eq!(runs.expect("readable").len(), 1);
    assert_eq!(texts(&scene.history().await), ["system", "hello"]);
    let Some(Accepted::Known(run)) = store.run_by_key(scene.agent, &key).await.expect("an answer") else {
        panic!("the key is known")
    };
    assert_eq!(run.id, made[0]);
}

/// See the name.
pub async fn a_key_that_was_used_for_something_else_is_refused(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let key = RequestKey { key: "k".to_owned(), content: "one".to_owned() };
    let first = NewRun { key: Some(key.clone()), ..scene.new_run("one") };
    assert!(matches!(store.accept_run(&first).await.expect("accepted"), Accepted::New(_)));
    let other = RequestKey { content: "two".to_owned(), ..key };
    let second = NewRun { key: Some(other.clone()), ..scene.new_run("two") };
    assert_eq!(store.accept_run(&second).await.expect("an answer"), Accepted::KeyReused(first.run.id));
    let found = store.run_by_key(scene.agent, &other).await.expect("an answer");
    assert_eq!(found, Some(Accepted::KeyReused(first.run.id)));
    let unknown = RequestKey { key: "l".to_owned(), ..other.clone() };
    assert_eq!(store.run_by_key(scene.agent, &unknown).await.expect("an answer"), None);
    let neighbour = Scene::new(&store).await;
    let same_key = NewRun { key: Some(other), ..neighbour.new_run("two") };
    assert!(matches!(store.accept_run(&same_key).await.expect("accepted"), Accepted::New(_)), "keys are the agent's");
}

/// See the name.
pub async fn a_repeat_without_a_key_can_join_an_active_run(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let content = "hash".to_owned();
    assert_eq!(store.active_run_by_content(Thread::own(scene.agent), &content).await.expect("an answer"), None);
    let new = NewRun { content: Some(content.clone()), ..scene.new_run("hello") };
    store.accept_run(&new).await.expect("accepted");
    let found = store.active_run_by_content(Thread::own(scene.agent), &content).await.expect("an answer");
    assert_eq!(found.map(|run| run.id), Some(new.run.id));
    assert_eq!(store.active_run_by_content(Thread::own(scene.agent), "other").await.expect("an answer"), None);
    store.settle_created(new.run.id, &end_of(&new.run, StopReason::Cancelled)).await.expect("settled");
    assert_eq!(store.active_run_by_content(Thread::own(scene.agent), &content).await.expect("an answer"), None);
}

/// See the name.
pub async fn a_full_line_refuses_and_names_the_active_run(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let oldest = scene.accept("one").await;
    scene.accept("two").await;
    let third = NewRun { max_queued: 2, ..scene.new_run("three") };
    assert_eq!(store.accept_run(&third).await.expect("an answer"), Accepted::TooMany(oldest));
    let lease = scene.claim(oldest).await.lease;
    assert_eq!(store.accept_run(&third).await.expect("an answer"), Accepted::TooMany(oldest));
    scene.settle(&lease).await;
    assert!(matches!(store.accept_run(&third).await.expect("accepted"), Accepted::New(_)));
}

/// See the name.
pub async fn runs_of_an_agent_execute_one_at_a_time_in_order_of_arrival(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let runs = [scene.accept("one").await, scene.accept("two").await, scene.accept("three").await];
    let neighbour = Scene::new(&store).await;
    let elsewhere = neighbour.accept("one").await;
    let worker = live_worker(&store).await;
    for later in &runs[1..] {
        assert_eq!(store.claim(*later, worker, AT_ONCE, now()).await.expect("an answer"), Claim::Blocked);
    }
    for (place, run) in runs.iter().enumerate() {
        let lease = scene.claim(*run).await.lease;
        for later in &runs[place + 1..] {
            assert_eq!(store.claim(*later, worker, AT_ONCE, now()).await.expect("an answer"), Claim::Blocked);
        }
        scene.settle(&lease).await;
        assert_eq!(store.claim(*run, worker, AT_ONCE, now()).await.expect("an answer"), Claim::Gone);
    }
    neighbour.claim(elsewhere).await;
    assert_eq!(store.claim(new_id(), worker, AT_ONCE, now()).await.expect("an answer"), Claim::Gone);
}

/// See the name.
pub async fn of_many_claims_at_once_one_wins(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let run = scene.accept("hello").await;
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let worker = live_worker(&store).await;
        let store = Arc::clone(&store);
        tasks.push(tokio::spawn(async move { store.claim(run, worker, LONG, now()).await.expect("an answer") }));
    }
    let mut winners = 0;
    for task in tasks {
        match task.await.expect("no panic") {
            Claim::Claimed(claimed) => {
                assert_eq!((claimed.lease.epoch.get(), claimed.attempts), (1, 1));
                winners += 1;
            }
            Claim::Held(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(winners, 1);
}

/// See the name.
pub async fn a_live_holder_keeps_its_run_and_a_silent_one_loses_it(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let run = scene.accept("hello").await;
    let first = scene.claim(run).await;
    assert_eq!(first.run.state, RunState::Running);
    assert_eq!(first.steps_done, 0);
    assert_eq!(first.open_step, None);
    for worker in [live_worker(&store).await, first.lease.worker] {
        let Claim::Held(wait) = store.claim(run, worker, LONG, now()).await.expect("an answer") else {
            panic!("it is held")
        };
        assert!(wait > Duration::from_secs(500) && wait <= LONG.0, "{wait:?}");
    }
    let second = scene.take_over(run).await;
    assert_eq!((second.lease.epoch.get(), second.attempts), (2, 2));
    assert_eq!(scene.run(run).await.state, RunState::Running);
}

/// See the name.
pub async fn a_retired_workers_run_can_be_taken_at_once(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let run = scene.accept("hello").await;
    let first = scene.claim(run).await;
    store.retire_worker(first.lease.worker).await.expect("retired");
    store.retire_worker(first.lease.worker).await.expect("retired already");
    assert_eq!(scene.claim(run).await.lease.epoch.get(), 2);
}

/// See the name.
pub async fn a_fenced_worker_can_write_nothing(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let run = scene.accept("hello").await;
    let zombie = scene.claim(run).await.lease;
    let step = scene.begin(&zombie, 1).await;
    let heir = scene.take_over(run).await.lease;
    let state = (scene.run(run).await, scene.history().await, scene.agent().await);
    assert_everything_fenced(&scene, &zombie, step, &state.0).await;
    let wrong_worker = Lease { worker: new_id(), ..heir };
    assert_everything_fenced(&scene, &wrong_worker, step, &state.0).await;
    assert_eq!((scene.run(run).await, scene.history().await, scene.agent().await), state);
    assert_eq!(store.events(run, SeqId::START).await.expect("readable").len(), 1);

    scene.settle(&heir).await;
    let state = (scene.run(run).await, scene.history().await, scene.agent().await);
    assert_everything_fenced(&scene, &heir, step, &state.0).await;
    assert_eq!((scene.run(run).await, scene.history().await, scene.agent().await), state);

    let released = scene.accept("more").await;
    let lease = scene.claim(released).await.lease;
    store.release(&lease).await.expect("released");
    assert_everything_fenced(&scene, &lease, step, &scene.run(released).await).await;
}

/// Tries every method that takes a lease.
async fn assert_everything_fenced(scene: &Scene, lease: &Lease, step: StepId, run: &Run) {
    let store = &scene.store;
    let next = run.archived.get() + 1;
    let new_step = NewStep { id: new_id(), number: 1, model: ModelHandle::demo(), started_at: now(), answers: None };
    let edit = |_: &[Block]| panic!("a fenced edit must not be tried");
    let result = ToolReturn::success(&call("a"), "x".to_owned());
    let commit = step_commit(step, vec![user(scene.agent, "forged")], plain_events(next..=next));
    let end = end_of(run, StopReason::EndTurn);
    assert_fenced(store.context(lease).await);
    assert_fenced(store.archive(lease, &plain_events(next..=next)).await);
    assert_fenced(store.begin_step(lease, &new_step).await);
    assert_fenced(store.record_answer(lease, &answer_record(scene.agent, run.id, step, &[call("a")])).await);
    assert_fenced(store.record_return(lease, step, 0, &result).await);
    assert_fenced(store.edit_memory(lease, step, 0, "a", now(), &edit).await);
    assert_fenced(store.commit_step(lease, &commit, None).await);
    assert_fenced(store.commit_step(lease, &commit, Some(&end)).await);
    assert_fenced(store.settle(lease, &end).await);
    assert_fenced(store.release(lease).await);
}
