//! Blocks, and the agents that share them.

use super::*;

fn other_tenant() -> TenantId {
    TenantId::parse("other").expect("a tenant")
}

async fn created(store: &SharedStore, label: &str, value: &str) -> Block {
    let block = block(label, value);
    store.create_block(&TenantId::default(), &block).await.expect("created");
    block
}

/// An agent that has these blocks and no others.
async fn agent_with(store: &SharedStore, blocks: &[&Block]) -> Scene {
    let (agent, system) = new_agent("Ada", default_settings());
    let agent = Agent { blocks: Vec::new(), ..agent };
    let ids: Vec<_> = blocks.iter().map(|block| block.id).collect();
    let tenant = TenantId::default();
    let made = store.create_agent(&tenant, &agent, &ids, &[system]).await.expect("a new agent");
    assert_eq!(made.blocks.iter().map(|block| block.id).collect::<Vec<_>>(), ids);
    Scene { store: Arc::clone(store), tenant, agent: agent.id }
}

impl Scene {
    async fn prompt(&self) -> String {
        match self.history().await.swap_remove(0).body {
            Body::System(content) => content.text(),
            other => panic!("{other:?}"),
        }
    }

    async fn labels(&self) -> Vec<String> {
        self.agent().await.blocks.into_iter().map(|block| block.label).collect()
    }

    /// A run that has called memory tools, and its step.
    async fn calling(&self, calls: &[ToolCall]) -> (Lease, StepId) {
        let run = self.accept("hello").await;
        let lease = self.claim(run).await.lease;
        let step = self.begin(&lease, 1).await;
        self.answer(&lease, step, calls).await;
        (lease, step)
    }
}

fn set_value(value: &str) -> BlockChange {
    BlockChange { value: Some(value.to_owned()), ..BlockChange::default() }
}

fn set_label(label: &str) -> BlockChange {
    BlockChange { label: Some(label.to_owned()), ..BlockChange::default() }
}

#[track_caller]
fn changed<T: std::fmt::Debug>(outcome: Result<BlockChanged<T>, StoreError>) -> T {
    match outcome.expect("an answer") {
        BlockChanged::Changed(changed) => changed,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(outcome: Result<BlockChanged<T>, StoreError>) -> BlockWriteError {
    match outcome.expect("an answer") {
        BlockChanged::Refused(why) => why,
        other => panic!("{other:?}"),
    }
}

/// See the name.
pub async fn a_block_is_attached_to_any_number_of_agents_and_outlives_them(store: SharedStore) {
    let tenant = TenantId::default();
    let shared = created(&store, "policy", "Be polite.").await;
    assert_eq!(store.block(&tenant, shared.id).await.expect("readable"), Some(shared.clone()));
    let (one, two) = (Scene::new(&store).await, agent_with(&store, &[&shared]).await);
    assert!(two.prompt().await.contains("Be polite."), "what is attached at creation is in the prompt");
    let later = now() + Duration::from_secs(1);
    for _ in 0..2 {
        let agent = changed(store.attach_block(&tenant, one.agent, shared.id, later).await);
        let labels: Vec<_> = agent.blocks.iter().map(|block| block.label.as_str()).collect();
        assert_eq!((labels, agent.updated_at), (vec!["persona", "human", "policy"], later));
    }
    assert!(one.prompt().await.contains("Be polite."));
    let agents = async || {
        let filter = AgentFilter { block: Some(shared.id), ..AgentFilter::default() };
        store.count_agents(&tenant, &filter).await.expect("an answer")
    };
    assert_eq!(agents().await, 2);

    let rival = created(&store, "policy", "Be rude.").await;
    let why = refused(store.attach_block(&tenant, one.agent, rival.id, later).await);
    assert_eq!(why, BlockWriteError::LabelTaken("policy".to_owned()));
    for _ in 0..2 {
        let agent = changed(store.detach_block(&tenant, one.agent, shared.id, later).await);
        assert_eq!(agent.blocks.len(), 2);
    }
    assert!(!one.prompt().await.contains("Be polite."));
    changed(store.attach_block(&tenant, one.agent, rival.id, later).await);

    let persona = one.agent().await.blocks[0].clone();
    changed(store.detach_block(&tenant, one.agent, persona.id, later).await);
    assert_eq!(store.block(&tenant, persona.id).await.expect("readable"), Some(persona), "it was made by the agent");
    assert!(store.delete_agent(&tenant, two.agent, later).await.expect("deleted"));
    assert_eq!((agents().await, store.block(&tenant, shared.id).await.expect("readable")), (0, Some(shared.clone())));

    for outcome in [
        store.attach_block(&tenant, two.agent, shared.id, later).await,
        store.detach_block(&tenant, two.agent, shared.id, later).await,
        store.attach_block(&other_tenant(), one.agent, shared.id, later).await,
    ] {
        assert_eq!(outcome.expect("an answer"), BlockChanged::NoAgent);
    }
    for outcome in [
        store.attach_block(&tenant, one.agent, new_id(), later).await,
        store.detach_block(&tenant, one.agent, new_id(), later).await,
    ] {
        assert_eq!(outcome.expect("an answer"), BlockChanged::NoBlock);
    }
}

/// See the name.
pub async fn an_agent_is_given_the_blocks_that_it_is_to_have(store: SharedStore) {
    let tenant = TenantId::default();
    let (one, two) = (created(&store, "one", "1").await, created(&store, "two", "2").await);
    let scene = agent_with(&store, &[&two, &one]).await;
    let set = async |ids: &[BlockId]| {
        let change = AgentChange { block_ids: Some(ids.to_vec()), ..AgentChange::default() };
        store.change_agent(&tenant, scene.agent, &change, now()).await
    };
    let three = created(&store, "three", "number 3").await;
    let agent = set(&[one.id, three.id, one.id]).await.expect("changed").expect("known");
    assert_eq!(agent.blocks, [one.clone(), three.clone()]);
    let prompt = scene.prompt().await;
    assert!(prompt.contains("number 3") && !prompt.contains("<two>"), "{prompt}");

    let foreign = block("four", "4");
    store.create_block(&other_tenant(), &foreign).await.expect("created");
    let absent: BlockId = new_id();
    let unknown = set(&[two.id, foreign.id, absent]).await;
    assert!(matches!(&unknown, Err(StoreError::UnknownBlocks(ids)) if *ids == [foreign.id, absent]), "{unknown:?}");
    let rival = created(&store, "one", "another 1").await;
    let twice = set(&[one.id, rival.id]).await;
    assert!(matches!(&twice, Err(StoreError::LabelTwice(label)) if label == "one"), "{twice:?}");
    assert_eq!(scene.agent().await.blocks, agent.blocks, "what is refused changes nothing");

    let (agent, system) = new_agent("Eve", default_settings());
    let persona = created(&store, "persona", "I am another.").await;
    let twice = store.create_agent(&tenant, &agent, &[persona.id], std::slice::from_ref(&system)).await;
    assert!(matches!(&twice, Err(StoreError::LabelTwice(label)) if label == "persona"), "{twice:?}");
    let unknown = store.create_agent(&tenant, &agent, &[absent], std::slice::from_ref(&system)).await;
    assert!(matches!(unknown, Err(StoreError::UnknownBlocks(_))), "{unknown:?}");
    assert_eq!(store.agent(&tenant, agent.id).await.expect("readable"), None);
    let history = user(agent.id, "before");
    let made = store.create_agent(&tenant, &agent, &[one.id], &[system, history]).await.expect("a new agent");
    let labels: Vec<_> = made.blocks.iter().map(|block| block.label.as_str()).collect();
    assert_eq!((labels, made.message_ids.len()), (vec!["one", "persona", "human"], 2));
    let scene = Scene { store: Arc::clone(&store), tenant, agent: made.id };
    assert_eq!(texts(&scene.history().await), ["system", "before"]);
}

/// See the name.
pub async fn a_change_of_a_block_is_in_the_prompts_of_all_its_agents(store: SharedStore) {
    let tenant = TenantId::default();
    let shared = created(&store, "policy", "Be polite.").await;
    let (one, two) = (agent_with(&store, &[&shared]).await, agent_with(&store, &[&shared]).await);
    let apart = Scene::new(&store).await;
    let untouched = apart.agent().await;
    let later = now() + Duration::from_secs(1);
    let by_label = BlockName::Label(one.agent, "policy");
    for (name, value) in [(BlockName::Id(shared.id), "Be brief."), (by_label, "Be bold.")] {
        let block = changed(store.change_block(&tenant, name, &set_value(value), later).await);
        assert_eq!((block.value.as_str(), block.updated_at), (value, later));
        for scene in [&one, &two] {
            assert!(scene.prompt().await.contains(value), "{value}");
            let agent = scene.agent().await;
            assert_eq!((agent.blocks, agent.updated_at), (vec![block.clone()], later));
        }
    }
    let changes = [
        (set_label("rules"), "<rules>"),
        (BlockChange { description: Some("how to behave".to_owned()), ..BlockChange::default() }, "how to behave"),
        (BlockChange { read_only: Some(true), ..BlockChange::default() }, "read_only=true"),
        (BlockChange { limit: Some(777), ..BlockChange::default() }, "chars_limit=777"),
    ];
    for (change, text) in changes {
        changed(store.change_block(&tenant, BlockName::Id(shared.id), &change, later).await);
        assert!(one.prompt().await.contains(text) && two.prompt().await.contains(text), "{text}");
    }
    let before = two.prompt().await;
    let quiet = BlockChange { tags: Some(vec!["t".to_owned()]), ..BlockChange::default() };
    let last = later + Duration::from_secs(5);
    changed(store.change_block(&tenant, BlockName::Id(shared.id), &quiet, last).await);
    assert_eq!((two.prompt().await, two.agent().await.updated_at), (before, last), "nothing that a prompt shows");
    assert_eq!(apart.agent().await, untouched);

    let own = created(&store, "own", "mine").await;
    changed(store.attach_block(&tenant, two.agent, own.id, last).await);
    let taken = store.change_block(&tenant, BlockName::Label(one.agent, "rules"), &set_label("own"), last).await;
    assert_eq!(refused(taken), BlockWriteError::LabelTaken("own".to_owned()), "one agent is enough");
    assert_eq!(
        (one.labels().await, two.labels().await),
        (vec!["rules".to_owned()], ["rules", "own"].map(str::to_owned).to_vec())
    );
    let foreign = store.change_block(&other_tenant(), BlockName::Id(shared.id), &quiet, last).await;
    assert_eq!(foreign.expect("an answer"), BlockChanged::NoBlock);
    let too_long = store.change_block(&tenant, BlockName::Id(shared.id), &set_value(&"x".repeat(778)), last).await;
    assert!(matches!(refused(too_long), BlockWriteError::TooLong { length: 778, limit: 777, .. }));
}

/// See the name.
pub async fn a_tool_changes_a_shared_block_for_all_its_agents(store: SharedStore) {
    let tenant = TenantId::default();
    let shared = created(&store, "policy", "Be polite.").await;
    let own = created(&store, "own", "mine").await;
    let (one, two) = (agent_with(&store, &[&shared, &own]).await, agent_with(&store, &[&shared]).await);
    let foreign = created(&store, "notes", "theirs").await;
    changed(store.attach_block(&tenant, two.agent, foreign.id, now()).await);
    let calls = ["a", "b", "c", "d", "e"].map(call);
    let (lease, step) = one.calling(&calls).await;
    type Change = fn(&mut Vec<Block>);
    let edit = async |number: u32, change: Change| {
        let id = calls[number as usize].id.clone();
        let edit = |blocks: &[Block]| {
            let mut after = blocks.to_vec();
            change(&mut after);
            EditOutcome { blocks: Some(after), tool_return: ToolReturn::success(&call(&id), "done".to_owned()) }
        };
        store.edit_memory(&lease, step, number, &id, now(), &edit).await.expect("an answer")
    };

    edit(0, |blocks| "Be brief.".clone_into(&mut blocks[0].value)).await;
    assert!(one.prompt().await.contains("Be brief.") && two.prompt().await.contains("Be brief."));
    let context = store.context(&lease).await.expect("readable");
    assert!(context.system_text().contains("Be polite."), "the run keeps its prompt: {}", context.system_text());

    let collision = edit(1, |blocks| "notes".clone_into(&mut blocks[0].label)).await;
    assert_eq!(collision.status, ToolStatus::Error);
    assert!(collision.text.contains("'notes'"), "{}", collision.text);
    assert_eq!(
        (one.labels().await, two.labels().await),
        (vec!["policy".to_owned(), "own".to_owned()], vec!["policy".to_owned(), "notes".to_owned()])
    );

    edit(2, |blocks| {
        "own".clone_into(&mut blocks[0].label);
        "policy".clone_into(&mut blocks[1].label);
    })
    .await;
    assert_eq!(
        (one.labels().await, two.labels().await),
        (vec!["own".to_owned(), "policy".to_owned()], vec!["own".to_owned(), "notes".to_owned()]),
        "labels change places"
    );

    edit(3, Vec::clear).await;
    assert_eq!((one.labels().await, two.labels().await.len()), (Vec::new(), 2));
    assert!(store.block(&tenant, shared.id).await.expect("readable").is_some(), "another agent has it");
    assert_eq!(store.block(&tenant, own.id).await.expect("readable"), None, "nobody has it");

    store.delete_agent(&tenant, one.agent, now()).await.expect("deleted");
    let late = edit(4, |blocks| blocks.push(block("late", "too late"))).await;
    assert_eq!(late.status, ToolStatus::Error);
    assert_eq!(store.count_blocks(&tenant, &BlockFilter::default()).await.expect("an answer"), 2);
}

/// See the name.
pub async fn a_deleted_block_is_taken_from_all_its_agents(store: SharedStore) {
    let tenant = TenantId::default();
    let shared = created(&store, "policy", "Be polite.").await;
    let scenes = [agent_with(&store, &[&shared]).await, agent_with(&store, &[&shared]).await];
    assert!(!store.delete_block(&other_tenant(), shared.id, now()).await.expect("an answer"));
    let later = now() + Duration::from_secs(1);
    assert!(store.delete_block(&tenant, shared.id, later).await.expect("deleted"));
    for scene in scenes {
        let agent = scene.agent().await;
        assert_eq!((agent.blocks, agent.updated_at), (Vec::new(), later));
        assert!(!scene.prompt().await.contains("Be polite."));
    }
    assert!(!store.delete_block(&tenant, shared.id, later).await.expect("an answer"));
    assert_eq!(store.block(&tenant, shared.id).await.expect("readable"), None);
}

/// Agents that share blocks crosswise, changed in every way at once: nothing waits in a circle, and no prompt is older
/// than the blocks that it shows.
pub async fn changes_of_shared_blocks_at_the_same_time_leave_no_old_prompt(store: SharedStore) {
    const ROUNDS: u32 = 6;
    let tenant = TenantId::default();
    let mut blocks = Vec::new();
    for label in ["a", "b", "c", "d"] {
        blocks.push(created(&store, label, "at first").await);
    }
    let mut scenes = Vec::new();
    for start in 0..4 {
        let attached: Vec<_> = (0..4).map(|place| &blocks[(start + place) % 4]).collect();
        scenes.push(agent_with(&store, &attached).await);
    }
    let mut tasks = tokio::task::JoinSet::new();
    for (number, scene) in scenes.iter().enumerate() {
        let calls: Vec<_> = (0..ROUNDS).map(|round| call(&format!("call {round}"))).collect();
        let (lease, step) = scene.calling(&calls).await;
        let of_the_tool = Arc::clone(&store);
        tasks.spawn(async move {
            for (round, call) in (0..ROUNDS).zip(&calls) {
                let edit = |blocks: &[Block]| {
                    let mut after = blocks.to_vec();
                    for block in &mut after {
                        block.value = format!("by tool {number} in round {round}");
                    }
                    let tool_return = ToolReturn::success(call, String::new());
                    EditOutcome { blocks: Some(after), tool_return }
                };
                let edited = of_the_tool.edit_memory(&lease, step, round, &call.id, now(), &edit).await;
                assert_eq!(edited.expect("no circle").status, ToolStatus::Success);
            }
        });
        let (of_the_client, tenant, agent) = (Arc::clone(&store), tenant.clone(), scene.agent);
        let (changed_block, moved) = (blocks[number].id, blocks[(number + 1) % 4].id);
        tasks.spawn(async move {
            for round in 0..ROUNDS {
                let change = set_value(&format!("by client {number} in round {round}"));
                let name = BlockName::Id(changed_block);
                changed(of_the_client.change_block(&tenant, name, &change, now()).await);
                changed(of_the_client.detach_block(&tenant, agent, moved, now()).await);
                changed(of_the_client.attach_block(&tenant, agent, moved, now()).await);
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("no panic");
    }
    for scene in &scenes {
        let (memory, prompt) = (scene.agent().await.blocks, scene.prompt().await);
        assert_eq!(memory.len(), 4);
        for block in memory {
            let shown = format!("<value>\n{}\n</value>\n</{}>", block.value, block.label);
            assert!(prompt.contains(&shown), "{shown} is not in {prompt}");
        }
    }
}

/// See the name.
pub async fn blocks_are_filtered_and_listed_by_pages(store: SharedStore) {
    let tenant = TenantId::default();
    let same_time = now();
    let named = |label: &str, value: &str, tags: &[&str]| {
        let mut block = block(label, value);
        block.created_at = same_time;
        block.details.tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        block
    };
    let mut one = named("Ärger", "über alles", &["x", "y"]);
    one.details.description = Some("Über Ärger".to_owned());
    let mut two = named("two", "100%", &["x"]);
    two.details.is_template = true;
    two.details.template_name = Some("a template".to_owned());
    let mut three = named("three", "drei", &[]);
    three.details.project_id = Some("p".to_owned());
    three.details.description = None;
    for block in [&one, &two, &three] {
        store.create_block(&tenant, block).await.expect("created");
        store.create_block(&other_tenant(), &named(&block.label, &block.value, &["x"])).await.expect("created");
    }
    let (_first, _second) = (agent_with(&store, &[&one, &two]).await, agent_with(&store, &[&two]).await);
    let text = |text: &str| Some(text.to_owned());
    let tags = |tags: &[&str]| tags.iter().map(|tag| (*tag).to_owned()).collect::<Vec<_>>();
    let all = BlockFilter::default;
    let cases = [
        (all(), vec![&one, &two, &three]),
        (BlockFilter { label: text("two"), ..all() }, vec![&two]),
        (BlockFilter { label: text("TWO"), ..all() }, vec![]),
        (BlockFilter { label_search: text("äRG"), ..all() }, vec![&one]),
        (BlockFilter { value_search: text("ÜBER"), ..all() }, vec![&one]),
        (BlockFilter { value_search: text("%"), ..all() }, vec![&two]),
        (BlockFilter { description_search: text("über"), ..all() }, vec![&one]),
        (BlockFilter { template_name: text("a template"), ..all() }, vec![&two]),
        (BlockFilter { project_id: text("p"), ..all() }, vec![&three]),
        (BlockFilter { templates_only: true, ..all() }, vec![&two]),
        (BlockFilter { tags: tags(&["x", "y"]), ..all() }, vec![&one, &two]),
        (BlockFilter { tags: tags(&["x", "y", "x"]), match_all_tags: true, ..all() }, vec![&one]),
        (BlockFilter { agents_above: Some(0), ..all() }, vec![&one, &two]),
        (BlockFilter { agents_below: Some(2), ..all() }, vec![&one, &three]),
        (BlockFilter { agents_exactly: vec![0, 2], ..all() }, vec![&two, &three]),
        (BlockFilter { agents_above: Some(i64::MAX), agents_below: Some(i64::MIN), ..all() }, vec![]),
    ];
    for (filter, wanted) in cases {
        let found = store.blocks(&tenant, &filter, &first_page(Order::Ascending)).await.expect("readable");
        let mut found: Vec<_> = found.into_iter().map(|block| block.id).collect();
        let mut wanted: Vec<_> = wanted.iter().map(|block| block.id).collect();
        found.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(found, wanted, "{filter:?}");
        assert_eq!(store.count_blocks(&tenant, &filter).await.expect("an answer"), wanted.len() as u64, "{filter:?}");
    }
    let quiet = BlockChange { tags: Some(vec!["z".to_owned()]), is_template: Some(false), ..BlockChange::default() };
    changed(store.change_block(&tenant, BlockName::Id(two.id), &quiet, now()).await);
    let none = BlockFilter { templates_only: true, ..all() };
    assert_eq!(store.count_blocks(&tenant, &none).await.expect("an answer"), 0, "filters follow the changes");
    let tagged = BlockFilter { tags: tags(&["z"]), ..all() };
    assert_eq!(store.count_blocks(&tenant, &tagged).await.expect("an answer"), 1);

    for order in [Order::Ascending, Order::Descending] {
        let mut found = Vec::new();
        let mut page = Page { after: None, before: None, limit: 2, order };
        loop {
            let part = store.blocks(&tenant, &all(), &page).await.expect("readable");
            let Some(last) = part.last() else { break };
            page.after = Some(last.id);
            found.extend(part.into_iter().map(|block| block.id));
        }
        let whole = store.blocks(&tenant, &all(), &first_page(order)).await.expect("readable");
        assert_eq!(found, whole.iter().map(|block| block.id).collect::<Vec<_>>());
    }
    let foreign = Page { after: Some(one.id), ..first_page(Order::Ascending) };
    let unknown = store.blocks(&other_tenant(), &all(), &foreign).await;
    assert!(matches!(unknown, Err(StoreError::UnknownCursor)), "{unknown:?}");
    assert_eq!(store.block(&other_tenant(), one.id).await.expect("readable"), None);
}

/// See the name.
pub async fn agents_are_found_by_their_last_run_and_by_what_they_refer_to(store: SharedStore) {
    let tenant = TenantId::default();
    let refers = |fields: serde_json::Value| {
        let other = fields.as_object().cloned().expect("an object");
        AgentSettings { other, ..default_settings() }
    };
    let settings = [
        refers(serde_json::json!({"project_id": "p", "identity_ids": ["i", "j"]})),
        refers(serde_json::json!({"project_id": "q", "template_id": "t", "base_template_id": "b"})),
        refers(serde_json::json!({"project_id": 1, "identity_ids": null})),
    ];
    let mut scenes = Vec::new();
    for settings in settings {
        scenes.push(Scene::with_settings(&store, settings).await);
    }
    let at = |seconds: u64| now() + Duration::from_secs(seconds);
    let say = async |scene: &Scene, last_run: LastRun| {
        let change = AgentChange { last_run, ..AgentChange::default() };
        store.change_agent(&tenant, scene.agent, &change, now()).await.expect("changed").expect("known")
    };
    let ended =
        |reason, completion| LastRun { stop_reason: Some(reason), completion: Some(completion), duration_ms: Some(7) };
    say(&scenes[0], ended(StopReason::EndTurn, at(9))).await;
    say(&scenes[1], ended(StopReason::Cancelled, at(5))).await;
    let part = LastRun { stop_reason: Some(StopReason::EndTurn), ..LastRun::default() };
    let said = say(&scenes[1], part).await;
    assert_eq!((said.last_stop_reason, said.last_run_duration_ms), (Some(StopReason::EndTurn), Some(7)));
    say(&scenes[1], ended(StopReason::Cancelled, at(5))).await;

    let found = async |filter: AgentFilter, order: Order| -> Vec<usize> {
        let agents = store.agents(&tenant, &filter, &first_page(order)).await.expect("readable");
        assert_eq!(store.count_agents(&tenant, &filter).await.expect("an answer"), agents.len() as u64);
        let place = |agent: &Agent| scenes.iter().position(|scene| scene.agent == agent.id).expect("one of these");
        agents.iter().map(place).collect()
    };
    let by_completion = || AgentFilter { order_by: AgentOrder::Completion, ..AgentFilter::default() };
    assert_eq!(found(by_completion(), Order::Descending).await, [0, 1, 2]);
    assert_eq!(found(by_completion(), Order::Ascending).await, [2, 1, 0]);
    let after = Page { after: Some(scenes[1].agent), ..first_page(Order::Ascending) };
    let rest = store.agents(&tenant, &by_completion(), &after).await.expect("readable");
    assert_eq!(rest.iter().map(|agent| agent.id).collect::<Vec<_>>(), [scenes[0].agent]);

    let reason = |reason| AgentFilter { last_stop_reason: Some(reason), ..AgentFilter::default() };
    assert_eq!(found(reason(StopReason::Cancelled), Order::Ascending).await, [1]);
    assert_eq!(found(reason(StopReason::Error), Order::Ascending).await, [0; 0]);
    let refer = |pairs: &[(ReferenceKind, &str)]| {
        let references = pairs.iter().map(|(kind, value)| (*kind, (*value).to_owned())).collect();
        AgentFilter { references, ..AgentFilter::default() }
    };
    let (project, identity) = (ReferenceKind::Project, ReferenceKind::Identity);
    assert_eq!(found(refer(&[(project, "p")]), Order::Ascending).await, [0]);
    assert_eq!(found(refer(&[(identity, "j"), (project, "p")]), Order::Ascending).await, [0]);
    assert_eq!(found(refer(&[(identity, "j"), (project, "q")]), Order::Ascending).await, [0; 0]);
    assert_eq!(found(refer(&[(ReferenceKind::Template, "t")]), Order::Ascending).await, [1]);
    assert_eq!(found(refer(&[(ReferenceKind::BaseTemplate, "b")]), Order::Ascending).await, [1]);
    let moved = refers(serde_json::json!({"project_id": "p"}));
    let edit = |_: &AgentSettings| moved.clone();
    let change = AgentChange { settings: Some(&edit), ..AgentChange::default() };
    store.change_agent(&tenant, scenes[1].agent, &change, now()).await.expect("changed");
    assert_eq!(found(refer(&[(project, "p")]), Order::Ascending).await, [0, 1]);
    assert_eq!(found(refer(&[(project, "q")]), Order::Ascending).await, [0; 0]);
}

/// See the name.
pub async fn the_tags_of_agents_are_listed_once_each(store: SharedStore) {
    let tenant = TenantId::default();
    let tagged = |tags: &[&str]| AgentSettings {
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        ..default_settings()
    };
    for tags in [&["b", "a"][..], &["Zebra", "b"], &["ä", "c"]] {
        Scene::with_settings(&store, tagged(tags)).await;
    }
    let gone = Scene::with_settings(&store, tagged(&["gone"])).await;
    store.delete_agent(&tenant, gone.agent, now()).await.expect("deleted");
    let (agent, system) = new_agent("Eve", tagged(&["foreign"]));
    store.create_agent(&other_tenant(), &agent, &[], &[system]).await.expect("a new agent");

    let (asc, desc) = (Order::Ascending, Order::Descending);
    let page = |after: Option<&str>, before: Option<&str>, limit, order| Page {
        after: after.map(str::to_owned),
        before: before.map(str::to_owned),
        limit,
        order,
    };
    let cases = [
        (None, page(None, None, 9, asc), vec!["Zebra", "a", "b", "c", "ä"]),
        (None, page(None, None, 2, desc), vec!["ä", "c"]),
        (None, page(Some("a"), None, 2, asc), vec!["b", "c"]),
        (None, page(Some("aa"), None, 1, asc), vec!["b"]),
        (None, page(None, Some("c"), 2, asc), vec!["a", "b"]),
        (None, page(None, Some("a"), 2, desc), vec!["c", "b"]),
        (None, page(Some("Zebra"), Some("c"), 9, asc), vec!["a", "b"]),
        (Some("ZEB"), page(None, None, 9, asc), vec!["Zebra"]),
        (Some("ä"), page(None, None, 9, asc), vec!["ä"]),
        (Some("%"), page(None, None, 9, asc), vec![]),
    ];
    for (text, page, wanted) in cases {
        assert_eq!(store.tags(&tenant, text, &page).await.expect("readable"), wanted, "{text:?} {page:?}");
    }
}
