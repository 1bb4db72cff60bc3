//! Agents and their context.

use super::*;

/// See the name.
pub async fn an_agent_reads_back_as_it_was_stored(store: SharedStore) {
    let (agent, system) = new_agent("Ada", default_settings());
    let tenant = TenantId::default();
    store.create_agent(&tenant, &agent, &[], std::slice::from_ref(&system)).await.expect("a new agent");
    assert_eq!(store.agent(&tenant, agent.id).await.expect("readable"), Some(agent.clone()));
    let filter = MessageFilter::agent(agent.id);
    assert_eq!(store.messages(&filter, &first_page(Order::Ascending)).await.expect("readable"), vec![system]);
    assert_eq!(store.agent(&tenant, new_id()).await.expect("readable"), None);
}

/// See the name.
pub async fn agents_are_found_by_name_text_and_tags(store: SharedStore) {
    let tenant = TenantId::default();
    for (name, tags) in [("Ada", vec!["math", "first"]), ("Bob Ärger", vec!["math"]), ("Cy", vec![])] {
        let settings = AgentSettings { tags: tags.into_iter().map(str::to_owned).collect(), ..default_settings() };
        let (agent, system) = new_agent(name, settings);
        store.create_agent(&tenant, &agent, &[], std::slice::from_ref(&system)).await.expect("a new agent");
    }
    let tags = || vec!["math".to_owned(), "first".to_owned()];
    let cases = [
        (AgentFilter::default(), vec!["Ada", "Bob Ärger", "Cy"]),
        (AgentFilter { name: Some("Ada".to_owned()), ..AgentFilter::default() }, vec!["Ada"]),
        (AgentFilter { name: Some("ada".to_owned()), ..AgentFilter::default() }, vec![]),
        (AgentFilter { query_text: Some("äRG".to_owned()), ..AgentFilter::default() }, vec!["Bob Ärger"]),
        (AgentFilter { query_text: Some("%".to_owned()), ..AgentFilter::default() }, vec![]),
        (AgentFilter { tags: tags(), ..AgentFilter::default() }, vec!["Ada", "Bob Ärger"]),
        (AgentFilter { tags: tags(), match_all_tags: true, ..AgentFilter::default() }, vec!["Ada"]),
    ];
    for (filter, wanted) in cases {
        let found = store.agents(&tenant, &filter, &first_page(Order::Ascending)).await.expect("readable");
        let names: Vec<_> = found.iter().map(|agent| agent.name.as_str()).collect();
        assert_eq!(names, wanted, "{filter:?}");
    }
}

/// See the name.
pub async fn a_change_of_settings_compiles_the_system_message_anew(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let later = now() + Duration::from_secs(1);
    let rename = AgentChange { name: Some("Eve".to_owned()), ..AgentChange::default() };
    let renamed = store.change_agent(&scene.tenant, scene.agent, &rename, later).await.expect("changed");
    assert_eq!(renamed.map(|agent| (agent.name, agent.updated_at)), Some(("Eve".to_owned(), later)));
    let before = scene.history().await;
    assert_eq!(texts(&before), ["system"]);

    let settings = AgentSettings { system: "Be brief.".to_owned(), ..default_settings() };
    let edit = |_: &AgentSettings| settings.clone();
    let change = AgentChange { settings: Some(&edit), ..AgentChange::default() };
    let changed = store.change_agent(&scene.tenant, scene.agent, &change, later).await.expect("changed");
    assert_eq!(changed.map(|agent| agent.settings), Some(settings.clone()));
    let after = scene.history().await;
    assert_eq!(after[0].id, before[0].id, "the message keeps its id");
    let Body::System(content) = &after[0].body else { panic!("a system message") };
    assert!(content.text().starts_with("Be brief.") && content.text().contains("I help."), "{}", content.text());
    let nobody = store.change_agent(&scene.tenant, new_id(), &change, later).await.expect("an answer");
    assert_eq!(nobody, None);
}

/// See the name.
pub async fn changes_of_settings_at_the_same_time_do_not_undo_each_other(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let tags: Vec<String> = (0..8).map(|number| format!("tag {number}")).collect();
    let adding = tags.iter().map(|tag| {
        let (store, tenant, agent, tag) = (Arc::clone(&store), scene.tenant.clone(), scene.agent, tag.clone());
        tokio::spawn(async move {
            let edit = |before: &AgentSettings| {
                let mut after = before.clone();
                after.tags.push(tag.clone());
                after
            };
            let change = AgentChange { settings: Some(&edit), ..AgentChange::default() };
            store.change_agent(&tenant, agent, &change, now()).await.expect("changed").expect("known");
        })
    });
    for added in adding.collect::<Vec<_>>() {
        added.await.expect("no panic");
    }
    let mut found = scene.agent().await.settings.tags;
    found.sort();
    assert_eq!(found, tags);
    let filter = AgentFilter { tags, match_all_tags: true, ..AgentFilter::default() };
    let agents = store.agents(&scene.tenant, &filter, &first_page(Order::Ascending)).await.expect("readable");
    assert_eq!(agents.len(), 1, "it is found by all of them");
}

/// See the name.
pub async fn a_changed_block_is_in_the_system_message_at_once(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let before = scene.agent().await;
    let later = now() + Duration::from_secs(1);
    let change = BlockChange {
        value: Some("She likes fjords.".to_owned()),
        label: Some("ada".to_owned()),
        ..BlockChange::default()
    };
    let changed = store
        .change_block(&scene.tenant, BlockName::Label(scene.agent, "human"), &change, later)
        .await
        .expect("an answer");
    let BlockChanged::Changed(block) = changed else { panic!("{changed:?}") };
    let after = scene.agent().await;
    assert_eq!(after.blocks, [before.blocks[0].clone(), block.clone()]);
    assert_eq!((block.id, block.label.as_str(), block.updated_at), (before.blocks[1].id, "ada", later));
    assert_eq!(after.updated_at, later);
    let system = scene.history().await.swap_remove(0);
    let Body::System(content) = &system.body else { panic!("a system message") };
    assert!(content.text().contains("<ada>") && content.text().contains("She likes fjords."), "{}", content.text());

    let refused = |changed: Result<BlockChanged, StoreError>| match changed.expect("an answer") {
        BlockChanged::Refused(why) => why,
        other => panic!("{other:?}"),
    };
    let too_long = BlockChange { value: Some("x".repeat(1001)), ..BlockChange::default() };
    let why = refused(store.change_block(&scene.tenant, BlockName::Label(scene.agent, "ada"), &too_long, later).await);
    assert!(matches!(why, BlockWriteError::TooLong { length: 1001, limit: 1000, .. }), "{why:?}");
    let taken = BlockChange { label: Some("persona".to_owned()), ..BlockChange::default() };
    let why = refused(store.change_block(&scene.tenant, BlockName::Label(scene.agent, "ada"), &taken, later).await);
    assert_eq!(why, BlockWriteError::LabelTaken("persona".to_owned()));
    let nothing = BlockChange::default();
    let gone = store
        .change_block(&scene.tenant, BlockName::Label(scene.agent, "human"), &nothing, later)
        .await
        .expect("an answer");
    assert_eq!(gone, BlockChanged::NoBlock);
    let other = TenantId::parse("other").expect("a tenant");
    let foreign =
        store.change_block(&other, BlockName::Label(scene.agent, "ada"), &change, later).await.expect("an answer");
    assert_eq!(foreign, BlockChanged::NoAgent);
    assert_eq!(scene.agent().await, after, "what is refused changes nothing");
}

/// See the name.
pub async fn a_system_message_is_compiled_on_demand(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let text = |history: Vec<Message>| match &history[0].body {
        Body::System(content) => content.text(),
        other => panic!("{other:?}"),
    };
    let before = text(scene.history().await);
    let tried = store
        .recompile(&scene.tenant, Thread::own(scene.agent), false, now())
        .await
        .expect("an answer")
        .expect("known");
    assert!(tried.starts_with("Be kind.") && tried.contains("I help."), "{tried}");
    assert_eq!(text(scene.history().await), before, "only tried");
    let kept =
        store.recompile(&scene.tenant, Thread::own(scene.agent), true, now()).await.expect("an answer").expect("known");
    assert_eq!(text(scene.history().await), kept);
    let other = TenantId::parse("other").expect("a tenant");
    assert_eq!(store.recompile(&other, Thread::own(scene.agent), true, now()).await.expect("an answer"), None);
}

/// See the name.
pub async fn a_client_chooses_what_is_in_context(store: SharedStore) {
    let scene = Scene::new(&store).await;
    for text in ["one", "two"] {
        let run = scene.accept(text).await;
        let lease = scene.claim(run).await.lease;
        scene.settle(&lease).await;
    }
    scene.accept("waiting").await;
    let history = scene.history().await;
    assert_eq!(texts(&history), ["system", "one", "two", "waiting"]);
    let ids: Vec<_> = history.iter().map(|message| message.id).collect();
    assert_eq!(scene.agent().await.message_ids, ids[..3]);
    for wanted in [vec![ids[0], ids[2]], vec![ids[0], ids[1], ids[2]]] {
        let change = AgentChange { message_ids: Some(wanted.clone()), ..AgentChange::default() };
        let agent = store.change_agent(&scene.tenant, scene.agent, &change, now()).await.expect("changed");
        assert_eq!(agent.map(|agent| agent.message_ids), Some(wanted));
    }
    let all = AgentChange { message_ids: Some(ids.clone()), ..AgentChange::default() };
    store.change_agent(&scene.tenant, scene.agent, &all, now()).await.expect("changed");
    assert_eq!(scene.agent().await.message_ids, ids[..3], "the input of a waiting run stays outside");
}

/// See the name.
pub async fn a_deleted_agent_is_unknown_but_its_runs_stay(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let run = scene.accept("hello").await;
    assert!(store.delete_agent(&scene.tenant, scene.agent, now()).await.expect("deleted"));
    assert!(!store.delete_agent(&scene.tenant, scene.agent, now()).await.expect("an answer"));
    assert_eq!(store.agent(&scene.tenant, scene.agent).await.expect("an answer"), None);
    let list = store.agents(&scene.tenant, &AgentFilter::default(), &first_page(Order::Ascending)).await;
    assert_eq!(list.expect("readable"), []);
    let change = AgentChange { name: Some("Eve".to_owned()), ..AgentChange::default() };
    assert_eq!(store.change_agent(&scene.tenant, scene.agent, &change, now()).await.expect("an answer"), None);
    assert_eq!(store.accept_run(&scene.new_run("more")).await.expect("an answer"), Accepted::NoAgent);
    assert_eq!(scene.run(run).await.id, run);
    let lease = scene.claim(run).await.lease;
    assert_eq!(store.context(&lease).await.expect("readable").messages.len(), 2, "accepted is kept");
    scene.settle(&lease).await;
}

/// See the name.
pub async fn tenants_see_nothing_of_each_other(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let run = scene.accept("hello").await;
    let other = TenantId::parse("other").expect("a tenant");
    let change = AgentChange { name: Some("Mallory".to_owned()), ..AgentChange::default() };
    assert_eq!(store.agent(&other, scene.agent).await.expect("an answer"), None);
    assert_eq!(store.change_agent(&other, scene.agent, &change, now()).await.expect("an answer"), None);
    assert!(!store.delete_agent(&other, scene.agent, now()).await.expect("an answer"));
    assert_eq!(store.run(&other, run).await.expect("an answer"), None);
    assert_eq!(store.accept_run(&new_run(&other, scene.agent, "hi")).await.expect("an answer"), Accepted::NoAgent);
    let agents = store.agents(&other, &AgentFilter::default(), &first_page(Order::Ascending)).await;
    assert_eq!(agents.expect("an answer"), []);
    let runs = store.runs(&other, &RunFilter::default(), &first_page(Order::Ascending)).await;
    assert_eq!(runs.expect("an answer"), []);
    let filter = RunFilter { agents: vec![scene.agent], ..RunFilter::default() };
    assert_eq!(store.runs(&other, &filter, &first_page(Order::Ascending)).await.expect("an answer"), []);
    let runs_after = Page { after: Some(run), ..first_page(Order::Ascending) };
    let refused = store.runs(&other, &RunFilter::default(), &runs_after).await;
    assert!(matches!(refused, Err(StoreError::UnknownCursor)), "{refused:?}");
    let agents_after = Page { after: Some(scene.agent), ..first_page(Order::Ascending) };
    let refused = store.agents(&other, &AgentFilter::default(), &agents_after).await;
    assert!(matches!(refused, Err(StoreError::UnknownCursor)), "{refused:?}");
    assert_eq!(scene.agent().await.name, "Ada");
}
