//! The outbox, the rescuer, and texts of any kind.

use super::*;

/// See the name.
pub async fn the_outbox_keeps_hints_until_they_are_done(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let Accepted::New(entry) = store.accept_run(&scene.new_run("one")).await.expect("accepted") else {
        panic!("it is new")
    };
    assert_eq!(store.outbox_due(10).await.expect("an answer"), [], "its writer publishes it first");
    assert_eq!(store.rescue(AT_ONCE, Duration::ZERO).await.expect("searched"), 0, "its hint is not lost");
    scene.drain_outbox(&[entry]).await;
    let neighbour = Scene::new(&store).await;
    let Accepted::New(entry) = store.accept_run(&neighbour.new_run("two")).await.expect("accepted") else {
        panic!("it is new")
    };
    scene.drain_outbox(&[entry]).await;
    assert_eq!(store.rescue(AT_ONCE, Duration::ZERO).await.expect("searched"), 2);
    let first = store.outbox_due(1).await.expect("an answer");
    assert_eq!(first.len(), 1, "the limit holds");
    let second = store.outbox_due(10).await.expect("an answer");
    assert_eq!(second.len(), 1, "what was taken is left to the one who took it");
    assert_ne!(first, second);
    assert!(first[0].hint.trace.is_some());
    assert_eq!(store.outbox_due(10).await.expect("an answer"), []);
    scene.drain_outbox(&first).await;
    scene.drain_outbox(&second).await;
    scene.drain_outbox(&[]).await;
}

/// See the name.
pub async fn lost_runs_are_hinted_again_but_not_too_often(store: SharedStore) {
    let hour = Duration::from_secs(3600);
    let scene = Scene::new(&store).await;
    let new = scene.new_run("one");
    let Accepted::New(entry) = store.accept_run(&new).await.expect("accepted") else { panic!("it is new") };
    let run = new.run.id;
    let Accepted::New(waiting) = store.accept_run(&scene.new_run("two")).await.expect("accepted") else {
        panic!("it is new")
    };
    scene.drain_outbox(&[entry, waiting]).await;

    // A created run at the head of the line, never the one behind it.
    assert_eq!(store.rescue(LONG, hour).await.expect("searched"), 0, "it does not wait for long");
    assert_eq!(store.rescue(LONG, Duration::ZERO).await.expect("searched"), 1);
    let due = store.outbox_due(10).await.expect("an answer");
    assert_eq!(due.iter().map(|entry| entry.hint.run).collect::<Vec<_>>(), [run]);
    scene.drain_outbox(&due).await;
    assert_eq!(store.rescue(LONG, Duration::ZERO).await.expect("searched"), 0, "hinted a moment ago");

    // A running one whose holder is silent.
    let lease = scene.claim(run).await.lease;
    assert_eq!(store.rescue(LONG, hour).await.expect("searched"), 0, "its holder lives");
    assert_eq!(store.rescue(AT_ONCE, hour).await.expect("searched"), 1, "a claim answers the hint before it");
    let due = store.outbox_due(10).await.expect("an answer");
    assert_eq!(due.iter().map(|entry| entry.hint.run).collect::<Vec<_>>(), [run]);
    scene.drain_outbox(&due).await;
    assert_eq!(store.rescue(AT_ONCE, hour).await.expect("searched"), 0, "hinted a moment ago");

    // One whose holder is gone.
    let heir = scene.take_over(run).await.lease;
    assert_fenced(store.release(&lease).await);
    store.retire_worker(heir.worker).await.expect("retired");
    assert_eq!(store.rescue(LONG, hour).await.expect("searched"), 1);
    let due = store.outbox_due(10).await.expect("an answer");
    scene.drain_outbox(&due).await;
    let last = scene.claim(run).await.lease;
    let next = scene.settle(&last).await;
    scene.drain_outbox(&next).await;
    assert_eq!(store.rescue(LONG, hour).await.expect("searched"), 0, "it is over, and the next one is new at the head");
}

/// See the name.
pub async fn any_text_can_be_stored(store: SharedStore) {
    let strange = "nul \0 quote ' \" back \\ emoji 🦀 line\u{2028}end";
    let mut settings = default_settings();
    settings.tags = vec![strange.to_owned(), strange.repeat(500)];
    settings.system = strange.to_owned();
    let (mut agent, system) = new_agent(&strange.repeat(500), settings);
    agent.blocks[0].value = strange.to_owned();
    let tenant = TenantId::default();
    store.create_agent(&tenant, &agent, &[], std::slice::from_ref(&system)).await.expect("a new agent");
    let scene = Scene { store: Arc::clone(&store), tenant, agent: agent.id };
    assert_eq!(scene.agent().await.settings, agent.settings);
    let run = scene.accept(strange).await;
    let lease = scene.claim(run).await.lease;
    assert_eq!(texts(&store.context(&lease).await.expect("readable").messages), ["system", strange]);
    let step = scene.begin(&lease, 1).await;
    let calls = [call(strange)];
    scene.answer(&lease, step, &calls).await;
    let edit = |blocks: &[Block]| EditOutcome {
        blocks: Some(vec![blocks[0].clone(), Block { value: strange.to_owned(), ..blocks[1].clone() }]),
        tool_return: ToolReturn::success(&calls[0], strange.to_owned()),
    };
    let told = store.edit_memory(&lease, step, 0, strange, now(), &edit).await.expect("edited");
    assert_eq!(told.text, strange);
    assert_eq!(scene.agent().await.blocks[1].value, strange.replace('\0', "\u{fffd}"));
    let search = MessageSearch { query: strange.parse().ok(), roles: Vec::new(), from: None, until: None, limit: 9 };
    assert_eq!(store.search_messages(scene.agent, &search).await.expect("readable").len(), 1);
}
