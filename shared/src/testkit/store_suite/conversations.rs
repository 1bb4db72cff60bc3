//! Conversations: threads of an agent besides its own.

use super::*;

impl Scene {
    fn wanted(&self, settings: ConversationSettings) -> Conversation {
        Conversation {
            id: new_id(),
            agent_id: self.agent,
            settings,
            message_ids: Vec::new(),
            pending_approval: None,
            archived_at: None,
            last_message_at: None,
            created_at: now(),
            updated_at: now(),
        }
    }

    pub(super) async fn make(&self, settings: ConversationSettings, fork: Option<Fork>) -> Conversation {
        let wanted = self.wanted(settings);
        let made = self.store.create_conversation(&self.tenant, &wanted, new_id(), fork.as_ref()).await;
        match made.expect("an answer") {
            ConversationMade::Made(made) => *made,
            other => panic!("{other:?}"),
        }
    }

    async fn accept_in(&self, thread: Thread, text: &str) -> RunId {
        let mut new = self.new_run(text);
        new.run.conversation_id = thread.conversation;
        let accepted = self.store.accept_run(&new).await.expect("accepted");
        assert!(matches!(accepted, Accepted::New(_)), "{accepted:?}");
        new.run.id
    }

    async fn context(&self, lease: &Lease) -> Vec<String> {
        texts(&self.store.context(lease).await.expect("readable").messages)
    }

    /// Lets a run in a thread say something, and end.
    pub(super) async fn turn(&self, thread: Thread, text: &str, answer: &str) -> Vec<String> {
        let run = self.accept_in(thread, text).await;
        let lease = self.claim(run).await.lease;
        let seen = self.context(&lease).await;
        let step = self.begin(&lease, 1).await;
        let said = Message { step_id: Some(step), run_id: Some(run), ..user(self.agent, answer) };
        self.store.commit_step(&lease, &step_commit(step, vec![said], Vec::new()), None).await.expect("committed");
        self.settle(&lease).await;
        seen
    }

    async fn listed(&self, thread: Thread) -> Vec<Message> {
        let filter = MessageFilter::thread(thread);
        self.store.messages(&filter, &first_page(Order::Ascending)).await.expect("readable")
    }
}

/// See the name.
pub async fn a_conversation_has_a_context_and_a_line_of_its_own(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let own = Thread::own(scene.agent);
    let (one, two) = (
        scene.make(ConversationSettings::default(), None).await,
        scene.make(ConversationSettings::default(), None).await,
    );
    let in_own = scene.accept_in(own, "own").await;
    let first = scene.accept_in(one.thread(), "one").await;
    let behind = scene.accept_in(one.thread(), "one more").await;
    let other = scene.accept_in(two.thread(), "two").await;
    // All at the same time, but those of one thread.
    let leases = [scene.claim(in_own).await.lease, scene.claim(first).await.lease, scene.claim(other).await.lease];
    let worker = live_worker(&store).await;
    assert_eq!(store.claim(behind, worker, LONG, now()).await.expect("an answer"), Claim::Blocked);
    for (lease, text) in leases.iter().zip(["own", "one", "two"]) {
        assert_eq!(scene.context(lease).await, ["system", text]);
    }
    let entries = scene.settle(&leases[1]).await;
    assert_eq!(
        entries.iter().map(|entry| entry.hint.run).collect::<Vec<_>>(),
        [behind],
        "the end wakes its own thread"
    );
    assert_eq!(scene.settle(&leases[2]).await, []);
    assert_eq!(scene.context(&scene.claim(behind).await.lease).await, ["system", "one", "one more"]);
    assert_eq!(scene.run(behind).await.thread(), one.thread());
    let own_ids: Vec<MessageId> = scene.listed(own).await.iter().map(|message| message.id).collect();
    assert_eq!(scene.agent().await.message_ids, own_ids, "the agent shows its own thread");
    let shown = store.conversation(&scene.tenant, one.id).await.expect("readable").expect("known").message_ids;
    assert_eq!(shown, scene.listed(one.thread()).await.iter().map(|message| message.id).collect::<Vec<_>>());
    assert_ne!(shown[0], own_ids[0], "each has its own system message");
    assert_eq!(scene.history().await.len(), 7, "an agent's history has all threads");
    for (threads, count) in [(ThreadScope::All, 4), (ThreadScope::Own, 1), (ThreadScope::Conversation(one.id), 2)] {
        let filter = RunFilter { agents: vec![scene.agent], threads, ..RunFilter::default() };
        let found = store.runs(&scene.tenant, &filter, &first_page(Order::Descending)).await.expect("readable");
        assert_eq!(found.len(), count, "{threads:?}");
    }
}

/// See the name.
pub async fn a_conversation_is_listed_changed_and_deleted(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let named = |text: &str| ConversationSettings { summary: Some(text.to_owned()), ..ConversationSettings::default() };
    let mut made = Vec::new();
    for text in ["Fjords", "Glaciers", "More fjords"] {
        made.push(scene.make(named(text), None).await);
    }
    let ids = |found: Vec<Conversation>| found.iter().map(|one| one.id).collect::<Vec<_>>();
    let list = async |filter: ConversationFilter, page: Page<ConversationId>| {
        ids(store.conversations(&scene.tenant, &filter, &page).await.expect("readable"))
    };
    let [one, two, three] = [made[0].id, made[1].id, made[2].id];
    assert_eq!(list(ConversationFilter::default(), first_page(Order::Ascending)).await, [one, two, three]);
    let page = Page { after: Some(three), before: None, limit: 1, order: Order::Descending };
    assert_eq!(list(ConversationFilter::default(), page).await, [two]);
    let fjords = ConversationFilter { summary: Some("FJORDS".to_owned()), ..ConversationFilter::default() };
    assert_eq!(list(fjords, first_page(Order::Ascending)).await, [one, three]);
    let elsewhere = ConversationFilter { agent: Some(new_id()), ..ConversationFilter::default() };
    assert_eq!(list(elsewhere, first_page(Order::Ascending)).await, []);

    let change = ConversationChange { archived: Some(true), summary: Some("Ice".to_owned()), ..Default::default() };
    let changed = store.change_conversation(&scene.tenant, two, &change, now()).await.expect("changed").expect("known");
    assert!(changed.archived_at.is_some());
    assert_eq!(store.conversation(&scene.tenant, two).await.expect("readable").as_ref(), Some(&changed));
    let archived = |archived| ConversationFilter { archived: Some(archived), ..ConversationFilter::default() };
    assert_eq!(list(archived(true), first_page(Order::Ascending)).await, [two]);
    assert_eq!(list(archived(false), first_page(Order::Ascending)).await, [one, three]);

    scene.turn(made[0].thread(), "hello", "hi").await;
    for order in [ConversationOrder::LastMessage, ConversationOrder::LastRun] {
        let filter = ConversationFilter { order, ..ConversationFilter::default() };
        assert_eq!(list(filter.clone(), first_page(Order::Descending)).await[0], one, "{order:?}");
        let page = Page { after: Some(one), before: None, limit: 5, order: Order::Descending };
        assert_eq!(list(filter, page).await.len(), 2);
    }

    let other = TenantId::parse("other").expect("a tenant");
    assert_eq!(store.conversation(&other, one).await.expect("readable"), None);
    assert_eq!(store.change_conversation(&other, one, &change, now()).await.expect("an answer"), None);
    assert!(!store.delete_conversation(&other, one, now()).await.expect("an answer"));
    let foreign = store.create_conversation(&other, &scene.wanted(named("x")), new_id(), None).await;
    assert_eq!(foreign.expect("an answer"), ConversationMade::NoAgent);

    assert!(store.delete_conversation(&scene.tenant, one, now()).await.expect("deleted"));
    assert!(!store.delete_conversation(&scene.tenant, one, now()).await.expect("an answer"));
    assert_eq!(store.conversation(&scene.tenant, one).await.expect("readable"), None);
    let mut new = scene.new_run("late");
    new.run.conversation_id = Some(one);
    assert_eq!(store.accept_run(&new).await.expect("an answer"), Accepted::NoConversation);
    let strange = Scene::new(&store).await;
    new.run.agent_id = strange.agent;
    new.run.conversation_id = Some(three);
    assert_eq!(store.accept_run(&new).await.expect("an answer"), Accepted::NoConversation, "another agent's");
    assert!(store.delete_agent(&scene.tenant, scene.agent, now()).await.expect("deleted"));
    assert_eq!(store.conversation(&scene.tenant, three).await.expect("readable"), None, "they go with their agent");
    assert_eq!(list(ConversationFilter::default(), first_page(Order::Ascending)).await, []);
}

/// See the name.
pub async fn a_change_of_the_agent_reaches_a_conversation_with_its_next_run(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let settings = ConversationSettings {
        model: ModelHandle::parse("openai/other"),
        context_window_limit: Some(1234),
        ..ConversationSettings::default()
    };
    let thread = scene.make(settings, None).await.thread();
    let system = async |lease: &Lease| store.context(lease).await.expect("readable").system_text();
    let first = scene.accept_in(thread, "one").await;
    let lease = scene.claim(first).await.lease;
    let context = store.context(&lease).await.expect("readable");
    assert_eq!(context.agent.settings.model.as_str(), "openai/other");
    assert_eq!(context.agent.settings.context_window_limit, Some(1234));
    let before = context.system_text();
    assert!(before.contains("I help."), "{before}");
    let change = BlockChange { value: Some("I sing.".to_owned()), ..BlockChange::default() };
    let changed = store
        .change_block(&scene.tenant, BlockName::Label(scene.agent, "persona"), &change, now())
        .await
        .expect("changed");
    assert!(matches!(changed, BlockChanged::Changed(_)));
    assert_eq!(system(&lease).await, before, "a run keeps what its provider has in its cache");
    scene.settle(&lease).await;
    let next = scene.claim(scene.accept_in(thread, "two").await).await.lease;
    assert!(system(&next).await.contains("I sing."));

    let wrong = Thread { agent: scene.agent, conversation: Some(new_id()) };
    assert_eq!(store.recompile(&scene.tenant, wrong, true, now()).await.expect("an answer"), None);
    let text = store.recompile(&scene.tenant, thread, true, now()).await.expect("compiled").expect("known");
    assert_eq!(system(&next).await, text);
    assert_eq!(scene.agent().await.settings, default_settings(), "the agent is as it was");
}

/// See the name.
pub async fn a_fork_shares_messages_and_goes_its_own_way(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let own = Thread::own(scene.agent);
    scene.turn(own, "one", "two").await;
    let waiting = scene.accept_in(own, "not yet").await;
    let fork = scene.make(ConversationSettings::default(), Some(Fork { from: own, until: None })).await;
    let ids = |messages: &[Message]| messages.iter().map(|message| message.id).collect::<Vec<_>>();
    let (source, shared) = (scene.agent().await.message_ids, fork.message_ids.clone());
    assert_eq!((shared[1..].to_vec(), shared[0] == source[0]), (source[1..].to_vec(), false));
    assert_eq!(scene.turn(fork.thread(), "three", "four").await, ["system", "one", "two", "three"]);
    let lease = scene.claim(waiting).await.lease;
    assert_eq!(scene.context(&lease).await, ["system", "one", "two", "not yet"]);
    scene.settle(&lease).await;

    // A compaction of the fork is none of its source's affairs, and the other way round.
    let run = scene.accept_in(fork.thread(), "five").await;
    let lease = scene.claim(run).await.lease;
    let context = store.context(&lease).await.expect("readable").messages;
    assert_eq!(texts(&context), ["system", "one", "two", "three", "four", "five"]);
    let before = ids(&scene.listed(own).await);
    let stats = CompactionStats {
        trigger: CompactionTrigger::PostStepContextCheck,
        context_tokens_before: None,
        context_tokens_after: None,
        context_window: 110,
        messages_count_before: 6,
        messages_count_after: 5,
    };
    let summary = message(scene.agent, Body::Summary(Summary { text: "in short".to_owned(), stats }));
    let compaction = Compaction {
        summary: Message { run_id: Some(run), ..summary },
        dropped: ids(&context[1..2]),
        at: now(),
        run_usage: RunUsage::default(),
        events: Vec::new(),
    };
    store.compact(&lease, &compaction).await.expect("compacted");
    assert_eq!(scene.context(&lease).await, ["system", "summary", "two", "three", "four", "five"]);
    assert_eq!(ids(&scene.listed(own).await), before);
    let second = scene.make(ConversationSettings::default(), Some(Fork { from: fork.thread(), until: None })).await;
    let listed = scene.listed(second.thread()).await;
    let texts = texts(&listed);
    for text in ["one", "summary", "two", "three", "four", "five"] {
        assert!(texts.iter().any(|one| one == text), "a fork of a fork has {text}: {texts:?}");
    }
    let page = Page { after: Some(listed[0].id), before: None, limit: 2, order: Order::Ascending };
    let after = store.messages(&MessageFilter::thread(second.thread()), &page).await.expect("readable");
    assert_eq!(ids(&after), ids(&listed[1..3]), "pages of a fork");
}

/// See the name.
pub async fn a_fork_ends_where_it_is_told_and_holds_no_open_call(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let own = Thread::own(scene.agent);
    let run = scene.accept("one").await;
    let lease = scene.claim(run).await.lease;
    let step = scene.begin(&lease, 1).await;
    let call = call("call_1");
    let asked = scene.answer(&lease, step, std::slice::from_ref(&call)).await;
    let open = scene.make(ConversationSettings::default(), Some(Fork { from: own, until: None })).await;
    assert_eq!(open.message_ids.len(), 2, "a call without its result is left out");
    let returned = Body::ToolReturns(vec![ToolReturn::error(&call, "no".to_owned())]);
    let returned = Message { run_id: Some(run), step_id: Some(step), ..message(scene.agent, returned) };
    let commit = step_commit(step, vec![returned.clone()], Vec::new());
    store.commit_step(&lease, &commit, None).await.expect("committed");
    scene.settle(&lease).await;
    scene.turn(own, "two", "three").await;
    let fork = scene.make(ConversationSettings::default(), Some(Fork { from: own, until: Some(asked) })).await;
    assert_eq!(fork.message_ids[2..], [asked, returned.id], "a call comes with its result");
    let unknown = Fork { from: open.thread(), until: Some(returned.id) };
    let wanted = scene.wanted(ConversationSettings::default());
    let refused = store.create_conversation(&scene.tenant, &wanted, new_id(), Some(&unknown)).await;
    assert_eq!(refused.expect("an answer"), ConversationMade::NoMessage, "a message of another thread");
    assert_eq!(store.conversation(&scene.tenant, wanted.id).await.expect("readable"), None);
}

/// See the name.
pub async fn a_run_is_found_by_the_key_of_its_message(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let conversation = scene.make(ConversationSettings::default(), None).await;
    let key = "k".repeat(5000);
    let mut new = scene.new_run("one");
    new.run.conversation_id = Some(conversation.id);
    new.input[0].labels.otid = Some(key.clone());
    assert!(matches!(store.accept_run(&new).await.expect("accepted"), Accepted::New(_)));
    let found = store.run_by_otid(conversation.thread(), &key).await.expect("readable");
    assert_eq!(found.map(|run| run.id), Some(new.run.id));
    for (thread, key) in [(Thread::own(scene.agent), key.as_str()), (conversation.thread(), &key[1..])] {
        assert_eq!(store.run_by_otid(thread, key).await.expect("readable"), None);
    }
}

/// See the name.
pub async fn calls_wait_in_the_thread_that_asked(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let conversation = scene.make(ConversationSettings::default(), None).await;
    let run = scene.accept_in(conversation.thread(), "one").await;
    let lease = scene.claim(run).await.lease;
    let step = scene.begin(&lease, 1).await;
    let call = call("call_1");
    let asking = Body::ApprovalRequest(Answer { calls: vec![call], ..Answer::default() });
    let request = Message { run_id: Some(run), step_id: Some(step), ..message(scene.agent, asking) };
    let ask = ApprovalChange::Ask { request: request.id, deadline: Some(now()) };
    let commit = StepCommit { approval: Some(ask), ..step_commit(step, vec![request.clone()], Vec::new()) };
    let end = end_of(&scene.run(run).await, StopReason::RequiresApproval);
    store.commit_step(&lease, &commit, Some(&end)).await.expect("committed");
    let waiting = store.conversation(&scene.tenant, conversation.id).await.expect("readable").expect("known");
    assert_eq!(waiting.pending_approval.map(|pending| pending.request.id), Some(request.id));
    assert_eq!(scene.agent().await.pending_approval, None);
    let expired = store.expired_approvals(now(), 10).await.expect("readable");
    assert_eq!(expired.iter().map(|one| one.thread).collect::<Vec<_>>(), [conversation.thread()]);
    let mut new = scene.new_run("two");
    new.run.conversation_id = Some(conversation.id);
    assert_eq!(store.accept_run(&new).await.expect("an answer"), Accepted::ApprovalPending(request.id));
    scene.turn(Thread::own(scene.agent), "own", "goes on").await;
    let cancel = ApprovalCancel { at: now(), response: new_id(), returns: new_id() };
    assert_eq!(store.cancel_approval(run, &cancel).await.expect("cancelled"), Some(Vec::new()));
    let listed = scene.listed(conversation.thread()).await;
    assert_eq!(listed.last().map(|message| message.id), Some(cancel.returns));
}
