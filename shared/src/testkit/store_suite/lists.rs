//! Pages, filters and searches.

use super::*;

/// See the name.
pub async fn pages_of_runs_follow_the_requested_order(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let mut runs = Vec::new();
    for text in ["0", "1", "2", "3", "4", "5"] {
        runs.push(scene.accept(text).await);
    }
    let (asc, desc) = (Order::Ascending, Order::Descending);
    // Order, after, before, limit, and what is wanted.
    type Case = (Order, Option<usize>, Option<usize>, u32, &'static [usize]);
    let cases: [Case; 10] = [
        (asc, None, None, 3, &[0, 1, 2]),
        (desc, None, None, 3, &[5, 4, 3]),
        (asc, Some(1), None, 2, &[2, 3]),
        (desc, Some(4), None, 2, &[3, 2]),
        (asc, None, Some(4), 2, &[2, 3]),
        (desc, None, Some(1), 2, &[3, 2]),
        (asc, Some(0), Some(5), 2, &[1, 2]),
        (desc, Some(5), Some(0), 10, &[4, 3, 2, 1]),
        (asc, Some(5), None, 2, &[]),
        (desc, Some(0), None, 2, &[]),
    ];
    for (order, after, before, limit, wanted) in cases {
        let page =
            Page { after: after.map(|place| runs[place]), before: before.map(|place| runs[place]), limit, order };
        let found = store.runs(&scene.tenant, &RunFilter::default(), &page).await.expect("readable");
        let found: Vec<_> = found.iter().map(|run| run.id).collect();
        let wanted: Vec<_> = wanted.iter().map(|place| runs[*place]).collect();
        assert_eq!(found, wanted, "{order:?} after {after:?} before {before:?}");
    }
}

/// See the name.
pub async fn pages_of_agents_messages_and_steps_have_no_gap_or_repeat(store: SharedStore) {
    let tenant = TenantId::default();
    let same_time = now();
    let mut agents = Vec::new();
    for _ in 0..5 {
        let (agent, system) = new_agent("Ada", default_settings());
        let agent = Agent { created_at: same_time, updated_at: same_time, ..agent };
        store.create_agent(&tenant, &agent, &[], std::slice::from_ref(&system)).await.expect("a new agent");
        agents.push(agent.id);
    }
    for order in [Order::Ascending, Order::Descending] {
        for order_by in [AgentOrder::Creation, AgentOrder::Change, AgentOrder::Completion] {
            let filter = AgentFilter { order_by, ..AgentFilter::default() };
            let mut found = Vec::new();
            let mut page = Page { after: None, before: None, limit: 2, order };
            loop {
                let part = store.agents(&tenant, &filter, &page).await.expect("readable");
                let Some(last) = part.last() else { break };
                page.after = Some(last.id);
                found.extend(part.into_iter().map(|agent| agent.id));
            }
            found.sort_unstable();
            agents.sort_unstable();
            assert_eq!(found, agents, "also between agents of the same time");
        }
    }

    let scene = Scene::new(&store).await;
    let run = scene.accept("one").await;
    let lease = scene.claim(run).await.lease;
    let mut steps = Vec::new();
    for number in 1..=4 {
        let step = scene.begin(&lease, number).await;
        let said = answer_record(scene.agent, run, step, &[]).message;
        store.commit_step(&lease, &step_commit(step, vec![said], Vec::new()), None).await.expect("committed");
        steps.push(step);
    }
    let page = Page { after: Some(steps[3]), before: None, limit: 2, order: Order::Descending };
    let found = store.steps(run, &page).await.expect("readable");
    assert_eq!(found.iter().map(|step| step.id).collect::<Vec<_>>(), [steps[2], steps[1]]);
    let history = scene.history().await;
    assert_eq!(texts(&history), ["system", "one", "assistant", "assistant", "assistant", "assistant"]);
    let filter = MessageFilter::run(scene.agent, run);
    let page = Page { after: None, before: Some(history[4].id), limit: 2, order: Order::Ascending };
    let found = store.messages(&filter, &page).await.expect("readable");
    assert_eq!(found, history[2..4]);
    let all = store.messages(&filter, &first_page(Order::Ascending)).await.expect("readable");
    assert_eq!(all, history[1..], "only the run's");
}

/// See the name.
pub async fn unknown_cursors_are_refused(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let run = scene.accept("one").await;
    let filter = MessageFilter::agent(scene.agent);
    let page = Page { before: Some(new_id()), ..first_page(Order::Ascending) };
    let messages = store.messages(&filter, &page).await.map(|_| ());
    let page = Page { after: Some(new_id()), ..first_page(Order::Ascending) };
    let runs = store.runs(&scene.tenant, &RunFilter::default(), &page).await.map(|_| ());
    let page = Page { after: Some(new_id()), ..first_page(Order::Ascending) };
    let agents = store.agents(&scene.tenant, &AgentFilter::default(), &page).await.map(|_| ());
    let page = Page { after: Some(new_id()), ..first_page(Order::Ascending) };
    let steps = store.steps(run, &page).await.map(|_| ());
    let neighbour = Scene::new(&store).await.history().await;
    let page = Page { after: Some(neighbour[0].id), ..first_page(Order::Ascending) };
    let foreign = store.messages(&filter, &page).await.map(|_| ());
    for answer in [messages, runs, agents, steps, foreign] {
        assert!(matches!(answer, Err(StoreError::UnknownCursor)), "{answer:?}");
    }
}

/// See the name.
pub async fn runs_are_filtered(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let ended = scene.accept("one").await;
    let lease = scene.claim(ended).await.lease;
    scene.settle(&lease).await;
    let running = scene.accept("two").await;
    scene.claim(running).await;
    let mut foreground = scene.new_run("three");
    foreground.run.request.attachment = Attachment::Foreground;
    store.accept_run(&foreground).await.expect("accepted");
    let neighbour = Scene::new(&store).await;
    let elsewhere = neighbour.accept("one").await;
    let created = foreground.run.id;
    let all = RunFilter::default;
    let cases = [
        (all(), vec![ended, running, created, elsewhere]),
        (RunFilter { agents: vec![scene.agent], ..all() }, vec![ended, running, created]),
        (RunFilter { agents: vec![scene.agent, neighbour.agent], ..all() }, vec![ended, running, created, elsewhere]),
        (
            RunFilter { statuses: vec![RunStatus::Created, RunStatus::Running], ..all() },
            vec![running, created, elsewhere],
        ),
        (RunFilter { background: Some(false), ..all() }, vec![created]),
        (RunFilter { background: Some(true), ..all() }, vec![ended, running, elsewhere]),
        (RunFilter { stop_reason: Some(StopReason::EndTurn), ..all() }, vec![ended]),
    ];
    for (filter, wanted) in cases {
        let found = store.runs(&scene.tenant, &filter, &first_page(Order::Ascending)).await.expect("readable");
        assert_eq!(found.iter().map(|run| run.id).collect::<Vec<_>>(), wanted, "{filter:?}");
    }
}

/// See the name.
pub async fn messages_are_searched_in_any_case(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let old = scene.accept("Grüße aus ÖSTERREICH, 100%").await;
    scene.accept("a_b").await;
    scene.accept("something else").await;
    let all = MessageSearch { query: None, roles: Vec::new(), from: None, until: None, limit: 10 };
    let search = |query: &str| MessageSearch { query: Some(query.parse().expect("words")), ..all.clone() };
    let cases = [
        (all.clone(), vec!["something else", "a_b", "Grüße aus ÖSTERREICH, 100%"]),
        (MessageSearch { limit: 1, ..all.clone() }, vec!["something else"]),
        (search("österreich"), vec!["Grüße aus ÖSTERREICH, 100%"]),
        (search("0%"), vec!["Grüße aus ÖSTERREICH, 100%"]),
        (search("ÖSTER grüße"), vec!["Grüße aus ÖSTERREICH, 100%"]),
        (search("grüße else"), vec![]),
        (search("_"), vec!["a_b"]),
        (search("compiled"), vec![]),
        (MessageSearch { roles: vec![Role::System], ..search("compiled") }, vec!["system"]),
        (
            MessageSearch { until: Some(scene.run(old).await.created_at - Duration::from_secs(9)), ..all.clone() },
            vec![],
        ),
        (MessageSearch { from: Some(now() + Duration::from_secs(9)), ..all.clone() }, vec![]),
    ];
    for (search, wanted) in cases {
        let found = store.search_messages(scene.agent, &search).await.expect("readable");
        assert_eq!(texts(&found), wanted, "{search:?}");
    }
}
