//! What is told of the past, across agents and runs.

use super::approvals::{ask, closing_ids};
use super::*;

fn stranger() -> TenantId {
    TenantId::parse("stranger").expect("a tenant")
}

fn told(found: &[FoundMessage]) -> Vec<String> {
    texts(&found.iter().map(|one| one.message.clone()).collect::<Vec<_>>())
}

fn step_ids(steps: &[Step]) -> Vec<StepId> {
    steps.iter().map(|step| step.id).collect()
}

/// Executes a run of one step and says both.
async fn execute(scene: &Scene, text: &str) -> (RunId, StepId) {
    let run = scene.accept(text).await;
    let lease = scene.claim(run).await.lease;
    let step = scene.begin(&lease, 1).await;
    let said = answer_record(scene.agent, run, step, &[]).message;
    scene.store.commit_step(&lease, &step_commit(step, vec![said], Vec::new()), None).await.expect("committed");
    scene.settle(&lease).await;
    (run, step)
}

/// See the name.
pub async fn messages_are_found_across_the_agents_of_a_tenant(store: SharedStore) {
    let same_time = now();
    let (ada, bob) = (Scene::new(&store).await, Scene::new(&store).await);
    for (scene, text) in [(&ada, "1"), (&bob, "2"), (&ada, "3")] {
        let mut new = scene.new_run(text);
        // Before the system messages, two of them at the same moment.
        new.input[0].created_at = same_time - Duration::from_secs(if text == "1" { 9 } else { 5 });
        store.accept_run(&new).await.expect("accepted");
    }
    let everything = MessageScope::Threads(ThreadScope::All);
    for order in [Order::Ascending, Order::Descending] {
        let whole = store.find_messages(&ada.tenant, &everything, &first_page(order)).await.expect("readable");
        let mut by_pages = Vec::new();
        let mut page = Page { limit: 2, ..first_page(order) };
        loop {
            let part = store.find_messages(&ada.tenant, &everything, &page).await.expect("readable");
            let Some(last) = part.last() else { break };
            page.after = Some(last.message.id);
            by_pages.extend(part);
        }
        assert_eq!(by_pages, whole, "{order:?}");
        assert_eq!(whole.len(), 5);
        let mut texts = told(&whole);
        if order == Order::Descending {
            texts.reverse();
        }
        assert_eq!((texts[0].as_str(), texts[3].as_str(), texts[4].as_str()), ("1", "system", "system"), "{order:?}");
        let back = Page { before: Some(whole[4].message.id), limit: 3, ..first_page(order) };
        assert_eq!(store.find_messages(&ada.tenant, &everything, &back).await.expect("readable"), whole[1..4]);
    }
    let one = ada.history().await[1].clone();
    let found = store.message(&ada.tenant, one.id).await.expect("readable").expect("known");
    assert_eq!(found, FoundMessage { message: one.clone(), conversation: None, speech: None });
    assert_eq!(store.message(&stranger(), one.id).await.expect("readable"), None);
    let foreign = store.find_messages(&stranger(), &everything, &first_page(Order::Ascending)).await;
    assert_eq!(foreign.expect("readable"), []);
    let cursor = Page { after: Some(one.id), ..first_page(Order::Ascending) };
    let refused = store.find_messages(&stranger(), &everything, &cursor).await;
    assert!(matches!(refused, Err(StoreError::UnknownCursor)), "{refused:?}");

    let legacy = AgentSettings { agent_type: "memgpt_agent".to_owned(), ..default_settings() };
    let speaker = Scene::with_settings(&store, legacy).await;
    let system = store.message(&ada.tenant, speaker.history().await[0].id).await.expect("readable").expect("known");
    assert_eq!(system.speech.map(|speech| speech.tool).as_deref(), Some("send_message"));

    assert!(store.delete_agent(&ada.tenant, ada.agent, now()).await.expect("deleted"));
    let left = store.find_messages(&ada.tenant, &everything, &cursor).await.expect("its place is still known");
    assert_eq!(told(&left), ["2", "system", "system"]);
    assert_eq!(store.message(&ada.tenant, one.id).await.expect("readable"), None);
}

/// See the name.
pub async fn messages_of_a_group_are_found(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let strange = "g\"1\\\0";
    for (text, group) in [("in", Some(strange)), ("out", Some("g")), ("forged", None), ("in too", Some(strange))] {
        let mut new = scene.new_run(text);
        new.input[0].labels.group_id = group.map(str::to_owned);
        new.input[0].labels.name = Some(format!("\"group_id\":{}", serde_json::json!(strange)));
        store.accept_run(&new).await.expect("accepted");
    }
    let find = async |agent: AgentId, group: &str| {
        let scope = MessageScope::Group { agent, threads: ThreadScope::All, group: group.to_owned() };
        told(&store.find_messages(&scene.tenant, &scope, &first_page(Order::Ascending)).await.expect("readable"))
    };
    assert_eq!(find(scene.agent, strange).await, ["in", "in too"]);
    assert_eq!(find(scene.agent, "g").await, ["out"]);
    assert_eq!(find(Scene::new(&store).await.agent, "g").await, Vec::<String>::new());
}

/// See the name.
pub async fn messages_are_found_by_conversation(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let first = scene.make(ConversationSettings::default(), None).await;
    scene.turn(Thread::own(scene.agent), "own tea", "own").await;
    scene.turn(first.thread(), "first tea", "first").await;
    let fork = scene.make(ConversationSettings::default(), Some(Fork { from: first.thread(), until: None })).await;
    scene.turn(fork.thread(), "fork tea", "fork").await;
    let own = (ThreadScope::Own, vec!["system", "own tea", "own"]);
    let in_first = (ThreadScope::Conversation(first.id), vec!["system", "first tea", "first"]);
    let in_fork = (ThreadScope::Conversation(fork.id), vec!["first tea", "first", "system", "fork tea", "fork"]);
    for (threads, wanted) in [own, in_first, in_fork] {
        let scope = MessageScope::Threads(threads);
        let found = store.find_messages(&scene.tenant, &scope, &first_page(Order::Ascending)).await.expect("readable");
        assert_eq!(told(&found), wanted, "{threads:?}");
        let search = MessageSearch { query: "tea".parse().ok(), roles: Vec::new(), from: None, until: None, limit: 9 };
        let found = store.search_all_messages(&scene.tenant, None, threads, &search).await.expect("readable");
        let mut with_tea = told(&found);
        with_tea.reverse();
        let wanted: Vec<_> = wanted.into_iter().filter(|text| text.contains("tea")).collect();
        assert_eq!(with_tea, wanted, "{threads:?}");
        let newest = match threads {
            ThreadScope::Conversation(id) => Some(id),
            ThreadScope::All | ThreadScope::Own => None,
        };
        assert_eq!(found[0].conversation, newest, "where it was said");
        if threads == ThreadScope::Conversation(fork.id) {
            assert_eq!(found[1].conversation, Some(first.id), "a fork shares what was said elsewhere");
        }
    }
    assert_eq!(store.reset_context(&scene.tenant, scene.agent, now()).await.expect("an answer"), ContextReset::Emptied);
    let seen = scene.turn(first.thread(), "and more tea?", "yes").await;
    assert_eq!(seen, ["system", "first tea", "first", "and more tea?"], "conversations keep their contexts");
}

/// See the name.
pub async fn a_step_tells_its_messages(store: SharedStore) {
    let scene = Scene::new(&store).await;
    execute(&scene, "before").await;
    let asking = ask(&scene, None).await;
    let find = async |tenant: &TenantId, page: Page<MessageId>| {
        store.find_messages(tenant, &MessageScope::Step(asking.step), &page).await
    };
    let all = first_page(Order::Ascending);
    assert_eq!(told(&find(&scene.tenant, all.clone()).await.expect("readable")), ["assistant", "approval"]);
    store.cancel_approval(asking.run, &closing_ids()).await.expect("cancelled");
    let found = find(&scene.tenant, all.clone()).await.expect("readable");
    assert_eq!(told(&found), ["assistant", "approval", "approval", "tool"], "with the answer and the results");
    let page = Page { after: Some(found[2].message.id), limit: 2, ..first_page(Order::Descending) };
    assert_eq!(find(&scene.tenant, page).await.expect("readable"), [found[1].clone(), found[0].clone()]);
    assert_eq!(find(&stranger(), all.clone()).await.expect("readable"), []);
    let elsewhere = Page { after: Some(scene.history().await[0].id), ..all };
    let refused = find(&scene.tenant, elsewhere).await;
    assert!(matches!(refused, Err(StoreError::UnknownCursor)), "{refused:?}");
}

/// See the name.
pub async fn a_search_covers_all_agents_of_a_tenant(store: SharedStore) {
    let (ada, bob) = (Scene::new(&store).await, Scene::new(&store).await);
    ada.accept("Black tea with milk").await;
    bob.accept("Milk and TEA").await;
    bob.accept("milk only").await;
    let legacy = AgentSettings { agent_type: "memgpt_agent".to_owned(), ..default_settings() };
    let speaker = Scene::with_settings(&store, legacy).await;
    let run = speaker.accept("what do you like?").await;
    let lease = speaker.claim(run).await.lease;
    let step = speaker.begin(&lease, 1).await;
    let said = ToolCall::new("call_1", "send_message", r#"{"message":"Tea, no milk."}"#);
    speaker.answer(&lease, step, &[said]).await;
    let search = async |tenant: &TenantId, agent: Option<AgentId>, query: &str, limit: u32| {
        let search = MessageSearch { query: query.parse().ok(), roles: Vec::new(), from: None, until: None, limit };
        told(&store.search_all_messages(tenant, agent, ThreadScope::All, &search).await.expect("readable"))
    };
    let tenant = &ada.tenant;
    assert_eq!(search(tenant, None, "tea milk", 9).await, ["assistant", "Milk and TEA", "Black tea with milk"]);
    assert_eq!(search(tenant, None, "tea milk", 1).await, ["assistant"], "the newest");
    assert_eq!(search(tenant, Some(bob.agent), "milk", 9).await, ["milk only", "Milk and TEA"]);
    assert_eq!(search(&stranger(), None, "milk", 9).await, Vec::<String>::new());
    assert_eq!(search(&stranger(), Some(bob.agent), "milk", 9).await, Vec::<String>::new());
    store.delete_agent(tenant, bob.agent, now()).await.expect("deleted");
    assert_eq!(search(tenant, None, "milk", 9).await, ["assistant", "Black tea with milk"]);
}

/// See the name.
pub async fn steps_are_found_across_the_runs_of_a_tenant(store: SharedStore) {
    let (ada, bob) = (Scene::new(&store).await, Scene::new(&store).await);
    let (_, first) = execute(&ada, "one").await;
    let (_, second) = execute(&bob, "two").await;
    let mut untraced = ada.new_run("three");
    untraced.trace = Some("no trace at all, but a text that some client sends".to_owned());
    store.accept_run(&untraced).await.expect("accepted");
    let lease = ada.claim(untraced.run.id).await.lease;
    let named = NewStep {
        id: new_id(),
        number: 1,
        model: ModelHandle::parse("router/maker/large").expect("a handle"),
        started_at: now(),
        answers: None,
    };
    store.begin_step(&lease, &named).await.expect("begun");
    let pending = named.id;
    let tenant = &ada.tenant;
    let all = [first, second, pending];
    let page = Page { after: Some(pending), limit: 1, ..first_page(Order::Descending) };
    let found = store.find_steps(tenant, &StepFilter::default(), &page).await.expect("readable");
    assert_eq!(step_ids(&found), [second]);
    let page = Page { before: Some(pending), limit: 1, ..first_page(Order::Ascending) };
    let found = store.find_steps(tenant, &StepFilter::default(), &page).await.expect("readable");
    assert_eq!(step_ids(&found), [second]);

    let tags = |tags: &[&str]| tags.iter().map(|tag| (*tag).to_owned()).collect::<Vec<_>>();
    let rate = async |step: StepId, feedback: Feedback, words: &[&str]| {
        let change = FeedbackChange { feedback: Some(Some(feedback)), tags: Some(tags(words)) };
        store.rate_step(tenant, step, &change).await.expect("rated").expect("known")
    };
    rate(first, Feedback::Positive, &["a", "b,\"c\""]).await;
    rate(second, Feedback::Negative, &["b"]).await;
    let step = store.step(tenant, first).await.expect("readable").expect("known");
    assert_eq!(step.trace_id.as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
    let none = StepFilter::default;
    let demo = ModelHandle::demo();
    let cases = [
        (none(), all.to_vec()),
        (StepFilter { agent: Some(ada.agent), ..none() }, vec![first, pending]),
        (StepFilter { model: Some(demo.to_string()), ..none() }, vec![first, second]),
        (StepFilter { model: Some(demo.model().to_owned()), ..none() }, vec![first, second]),
        (StepFilter { model: Some("maker/large".to_owned()), ..none() }, vec![pending]),
        (StepFilter { model: Some("large".to_owned()), ..none() }, vec![]),
        (StepFilter { from: Some(named.started_at), ..none() }, vec![pending]),
        (StepFilter { until: Some(named.started_at), ..none() }, vec![first, second]),
        (StepFilter { feedback: Some(Feedback::Positive), ..none() }, vec![first]),
        (StepFilter { has_feedback: Some(true), ..none() }, vec![first, second]),
        (StepFilter { has_feedback: Some(false), ..none() }, vec![pending]),
        (StepFilter { tags: tags(&["b", "\0"]), ..none() }, vec![second]),
        (StepFilter { tags: tags(&["b,\"c\"", "b"]), ..none() }, vec![first, second]),
        (StepFilter { tags: tags(&["\"c\""]), ..none() }, vec![]),
        (StepFilter { trace_ids: tags(&["0af7651916cd43dd8448eb211c80319c"]), ..none() }, vec![first, second]),
        (StepFilter { trace_ids: tags(&["x"]), ..none() }, vec![]),
    ];
    for (filter, wanted) in cases {
        let found = store.find_steps(tenant, &filter, &first_page(Order::Ascending)).await.expect("readable");
        assert_eq!(step_ids(&found), wanted, "{filter:?}");
    }
    let step = store.step(tenant, pending).await.expect("readable").expect("known");
    assert_eq!((step.status, step.trace_id), (StepStatus::Pending, None));
    assert_eq!(store.step(&stranger(), first).await.expect("readable"), None);
    assert_eq!(store.find_steps(&stranger(), &none(), &first_page(Order::Ascending)).await.expect("readable"), []);
    let page = Page { after: Some(first), ..first_page(Order::Ascending) };
    let refused = store.find_steps(&stranger(), &none(), &page).await;
    assert!(matches!(refused, Err(StoreError::UnknownCursor)), "{refused:?}");
}

/// See the name.
pub async fn a_step_is_rated(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let run = scene.accept("hello").await;
    let lease = scene.claim(run).await.lease;
    let step = scene.begin(&lease, 1).await;
    let rate = async |step: StepId, feedback: Option<Option<Feedback>>, tags: Option<&[&str]>| {
        let tags = tags.map(|tags| tags.iter().map(|tag| (*tag).to_owned()).collect());
        let rated = store.rate_step(&scene.tenant, step, &FeedbackChange { feedback, tags }).await.expect("an answer");
        rated.map(|step| (step.feedback, step.tags))
    };
    let words = |tags: &[&str]| tags.iter().map(|tag| (*tag).to_owned()).collect::<Vec<_>>();
    assert_eq!(rate(step, None, None).await, Some((None, Vec::new())));
    let positive = Some(Feedback::Positive);
    assert_eq!(rate(step, Some(positive), None).await, Some((positive, Vec::new())));
    assert_eq!(rate(step, None, Some(&["a", "a\0"])).await, Some((positive, words(&["a", "a\0"]))));
    assert_eq!(rate(step, Some(None), None).await, Some((None, words(&["a", "a\0"]))));
    let change = FeedbackChange { feedback: Some(positive), tags: None };
    assert_eq!(store.rate_step(&stranger(), step, &change).await.expect("an answer"), None);
    assert_eq!(rate(new_id(), Some(positive), None).await, None);

    // A worker that takes over begins the step anew under another id; what was said of it goes along.
    let heir = scene.take_over(run).await.lease;
    let anew = scene.begin(&heir, 1).await;
    assert_eq!(store.step(&scene.tenant, step).await.expect("readable"), None);
    let tagged = StepFilter { tags: words(&["a"]), ..StepFilter::default() };
    let found = store.find_steps(&scene.tenant, &tagged, &first_page(Order::Ascending)).await.expect("readable");
    assert_eq!(step_ids(&found), [anew]);
    assert_eq!(rate(anew, None, Some(&[])).await, Some((None, Vec::new())));
    let found = store.find_steps(&scene.tenant, &tagged, &first_page(Order::Ascending)).await.expect("readable");
    assert_eq!(found, []);
}

/// See the name.
pub async fn a_deleted_run_leaves_its_messages(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let (run, step) = execute(&scene, "hello").await;
    let rating = FeedbackChange { feedback: None, tags: Some(vec!["a".to_owned()]) };
    store.rate_step(&scene.tenant, step, &rating).await.expect("rated");
    let before = scene.history().await;
    assert_eq!(store.delete_run(&stranger(), run).await.expect("an answer"), RunDeletion::NoRun);
    assert_eq!(store.delete_run(&scene.tenant, run).await.expect("an answer"), RunDeletion::Deleted);
    assert_eq!(store.delete_run(&scene.tenant, run).await.expect("an answer"), RunDeletion::NoRun);
    assert_eq!(store.run(&scene.tenant, run).await.expect("readable"), None);
    assert_eq!(store.events(run, SeqId::START).await.expect("readable"), []);
    assert_eq!(store.step(&scene.tenant, step).await.expect("readable"), None);
    let without_run = |message: &Message| Message { run_id: None, ..message.clone() };
    assert_eq!(scene.history().await, before.iter().map(without_run).collect::<Vec<_>>());
    let next = scene.accept("next").await;
    let lease = scene.claim(next).await.lease;
    let context = store.context(&lease).await.expect("readable");
    assert_eq!(texts(&context.messages), ["system", "hello", "assistant", "next"], "the model still knows");
}

/// See the name.
pub async fn a_run_that_matters_is_not_deleted(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let delete = async |run: RunId| store.delete_run(&scene.tenant, run).await.expect("an answer");
    let created = scene.accept("hello").await;
    assert_eq!(delete(created).await, RunDeletion::Active);
    let lease = scene.claim(created).await.lease;
    assert_eq!(delete(created).await, RunDeletion::Active);
    scene.settle(&lease).await;
    let asking = ask(&scene, None).await;
    assert_eq!(delete(asking.run).await, RunDeletion::Waiting);
    assert_eq!(delete(created).await, RunDeletion::Deleted);
    store.cancel_approval(asking.run, &closing_ids()).await.expect("cancelled");
    assert_eq!(delete(asking.run).await, RunDeletion::Deleted);
}

/// See the name.
pub async fn a_reset_empties_the_context_and_keeps_the_history(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let reset = async |tenant: &TenantId| store.reset_context(tenant, scene.agent, now()).await.expect("an answer");
    execute(&scene, "hello").await;
    let active = scene.accept("more").await;
    assert_eq!(reset(&scene.tenant).await, ContextReset::Busy(active));
    let lease = scene.claim(active).await.lease;
    assert_eq!(reset(&scene.tenant).await, ContextReset::Busy(active));
    scene.settle(&lease).await;
    let asking = ask(&scene, None).await;
    assert_eq!(reset(&scene.tenant).await, ContextReset::Waiting(asking.run));
    assert_eq!(scene.agent().await.message_ids.len(), scene.history().await.len(), "refusals change nothing");
    store.cancel_approval(asking.run, &closing_ids()).await.expect("cancelled");
    assert_eq!(reset(&stranger()).await, ContextReset::NoAgent);

    let before = scene.history().await;
    assert_eq!(reset(&scene.tenant).await, ContextReset::Emptied);
    let after = scene.history().await;
    assert_eq!(after[1..], before[1..]);
    assert_eq!(scene.agent().await.message_ids, [before[0].id], "the system message keeps its id");
    let Body::System(system) = &after[0].body else { panic!("the system message is the first") };
    let outside = format!("- {} earlier messages", before.len() - 1);
    assert!(system.text().contains(&outside), "compiled anew: {}", system.text());
    let next = scene.accept("next").await;
    let lease = scene.claim(next).await.lease;
    assert_eq!(texts(&store.context(&lease).await.expect("readable").messages), ["system", "next"]);
}
