//! Tools, and what agents have of them.

use super::*;

fn tool(name: &str) -> Tool {
    let source = ToolSource::Python { code: format!("def {name}(): ...") };
    let parameters = serde_json::json!({"type": "object", "properties": {"city": {"type": "string"}}});
    let spec = ToolSpec { name: name.to_owned(), description: "It does.".to_owned(), parameters };
    let options = ToolOptions { tags: vec!["t".to_owned()], timeout_ms: Some(5), ..ToolOptions::default() };
    Tool { id: new_id(), spec, source, options, created_at: now(), updated_at: now() }
}

fn mcp_tool(name: &str) -> Tool {
    Tool { source: ToolSource::Mcp { server: "files".to_owned(), tool: name.to_owned() }, ..tool(name) }
}

fn other() -> TenantId {
    TenantId::parse("other").expect("a tenant")
}

async fn put(store: &SharedStore, tenant: Option<&TenantId>, tool: &Tool) -> Tool {
    store.put_tool(tenant, tool).await.expect("stored")
}

async fn list(store: &SharedStore, tenant: &TenantId, filter: &ToolFilter) -> Vec<Tool> {
    store.tools(tenant, filter, &first_page(Order::Ascending)).await.expect("readable")
}

fn names(tools: &[Tool]) -> Vec<&str> {
    tools.iter().map(|tool| tool.spec.name.as_str()).collect()
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// See the name.
pub async fn a_tool_takes_the_place_of_the_one_of_its_name(store: SharedStore) {
    let tenant = TenantId::default();
    let first = tool("look");
    assert_eq!(put(&store, Some(&tenant), &first).await, first);
    assert_eq!(store.tool(&tenant, first.id).await.expect("readable"), Some(first.clone()));
    let later = now() + Duration::from_secs(1);
    let endpoint = HttpEndpoint {
        url: "http://a.example".to_owned(),
        method: "POST".to_owned(),
        headers: std::collections::BTreeMap::new(),
    };
    let second = Tool {
        source: ToolSource::Http(endpoint),
        options: ToolOptions { default_requires_approval: Some(true), ..ToolOptions::default() },
        created_at: later,
        updated_at: later,
        ..tool("look")
    };
    let stored = put(&store, Some(&tenant), &second).await;
    assert_eq!(stored, Tool { id: first.id, created_at: first.created_at, ..second });
    let changed = Tool { options: first.options.clone(), created_at: later, ..stored.clone() };
    let wanted = Tool { created_at: first.created_at, ..changed.clone() };
    assert_eq!(store.change_tool(&tenant, &changed).await.expect("an answer"), Some(wanted.clone()));
    assert_eq!(store.tools_by_name(&tenant, &owned(&["look"])).await.expect("readable"), [wanted]);
    assert_eq!(store.change_tool(&tenant, &tool("look")).await.expect("an answer"), None, "by its id, not its name");
}

/// See the name.
pub async fn tools_are_filtered_together_with_the_built_in_ones(store: SharedStore) {
    let tenant = TenantId::default();
    let (look, listen) = (tool("look"), tool("Listen_closely"));
    let read = mcp_tool("read");
    put(&store, Some(&tenant), &look).await;
    put(&store, Some(&tenant), &listen).await;
    put(&store, None, &read).await;
    let search = builtin_tools::by_name("conversation_search").expect("a built-in tool");
    let built_in: Vec<&str> = builtin_tools::all().iter().map(|tool| tool.spec.name.as_str()).collect();
    let all = ToolFilter::default;
    let text = |text: &str| Some(text.to_owned());
    let types = |words: &[&str]| Some(owned(words));
    let cases = [
        (all(), [&built_in[..], &["look", "Listen_closely", "read"]].concat()),
        (ToolFilter { name: text("look"), ..all() }, vec!["look"]),
        (ToolFilter { name: text("LOOK"), ..all() }, vec![]),
        (ToolFilter { names: owned(&["read", "send_message", "\0"]), ..all() }, vec!["send_message", "read"]),
        (ToolFilter { ids: vec![look.id, search.id, new_id()], ..all() }, vec!["conversation_search", "look"]),
        (ToolFilter { search: text("liSTen"), ..all() }, vec!["Listen_closely"]),
        (ToolFilter { search: text("SEARCH"), ..all() }, vec!["conversation_search"]),
        (ToolFilter { search: text("%"), ..all() }, vec![]),
        (ToolFilter { tool_types: types(&["custom"]), ..all() }, vec!["look", "Listen_closely"]),
        (ToolFilter { tool_types: types(&["external_mcp"]), ..all() }, vec!["read"]),
        (ToolFilter { tool_types: types(&["letta_core", "custom"]), name: text("look"), ..all() }, vec!["look"]),
        (ToolFilter { tool_types: types(&[]), ..all() }, vec![]),
    ];
    for (filter, wanted) in cases {
        let found = list(&store, &tenant, &filter).await;
        let mut sorted = (names(&found), wanted);
        // Built-in tools are as old as each other, so that their ids decide.
        sorted.0.sort_unstable();
        sorted.1.sort_unstable();
        assert_eq!(sorted.0, sorted.1, "{filter:?}");
        assert_eq!(store.count_tools(&tenant, &filter).await.expect("readable"), found.len() as u64, "{filter:?}");
    }
}

/// See the name.
pub async fn pages_of_tools_have_no_gap_or_repeat(store: SharedStore) {
    let tenant = TenantId::default();
    let at = now();
    for name in ["one", "two", "three", "four", "five"] {
        put(&store, Some(&tenant), &Tool { created_at: at, ..tool(name) }).await;
    }
    let all: Vec<_> = list(&store, &tenant, &ToolFilter::default()).await.iter().map(|tool| tool.id).collect();
    assert_eq!(all.len(), builtin_tools::all().len() + 5);
    let get = async |page: &Page<ToolId>| -> Vec<ToolId> {
        let found = store.tools(&tenant, &ToolFilter::default(), page).await.expect("readable");
        found.iter().map(|tool| tool.id).collect()
    };
    for order in [Order::Ascending, Order::Descending] {
        let mut expected = all.clone();
        if order == Order::Descending {
            expected.reverse();
        }
        for limit in [1, 2, 3, 100] {
            let (mut forwards, mut page) = (Vec::new(), Page { after: None, before: None, limit, order });
            loop {
                let part = get(&page).await;
                let Some(last) = part.last() else { break };
                page.after = Some(*last);
                forwards.extend(part);
            }
            assert_eq!(forwards, expected, "{order:?}, {limit} at a time");
            let last = *expected.last().expect("tools");
            let (mut backwards, mut page) = (vec![last], Page { after: None, before: Some(last), limit, order });
            loop {
                let part = get(&page).await;
                let Some(first) = part.first() else { break };
                page.before = Some(*first);
                backwards.splice(..0, part);
            }
            assert_eq!(backwards, expected, "{order:?} backwards, {limit} at a time");
        }
        let between = Page { after: Some(expected[1]), before: Some(expected[8]), limit: 3, order };
        assert_eq!(get(&between).await, expected[2..5]);
    }
    let page = Page { after: Some(new_id()), ..first_page(Order::Ascending) };
    let refused = store.tools(&tenant, &ToolFilter::default(), &page).await;
    assert!(matches!(refused, Err(StoreError::UnknownCursor)), "{refused:?}");
}

/// See the name.
pub async fn a_tenant_sees_its_own_tools_and_the_operators(store: SharedStore) {
    let tenant = TenantId::default();
    let own = put(&store, Some(&tenant), &tool("look")).await;
    let foreign = put(&store, Some(&other()), &tool("look")).await;
    assert_ne!(own.id, foreign.id, "a name is free in every tenant");
    assert_eq!(store.tool(&tenant, foreign.id).await.expect("an answer"), None);
    assert_eq!(store.change_tool(&tenant, &foreign).await.expect("an answer"), None);
    assert!(!store.delete_tool(&tenant, foreign.id, now()).await.expect("an answer"));
    let only_own = std::slice::from_ref(&own);
    assert_eq!(store.tools_by_name(&tenant, &owned(&["look"])).await.expect("readable"), only_own);
    let mine = ToolFilter { tool_types: Some(owned(&["custom"])), ..ToolFilter::default() };
    assert_eq!(list(&store, &tenant, &mine).await, only_own);
    let after_foreign = Page { after: Some(foreign.id), ..first_page(Order::Ascending) };
    let refused = store.tools(&tenant, &mine, &after_foreign).await;
    assert!(matches!(refused, Err(StoreError::UnknownCursor)), "{refused:?}");

    let shared = put(&store, None, &mcp_tool("read")).await;
    let hidden = put(&store, None, &mcp_tool("look")).await;
    let again = put(&store, None, &mcp_tool("look")).await;
    assert_eq!(hidden.id, again.id, "also the operator has one tool of a name");
    for tenant in [&tenant, &other()] {
        assert_eq!(store.tool(tenant, shared.id).await.expect("readable"), Some(shared.clone()));
        assert_eq!(store.tool(tenant, hidden.id).await.expect("readable"), None, "hidden by its own");
        assert_eq!(store.change_tool(tenant, &shared).await.expect("an answer"), None);
        assert!(!store.delete_tool(tenant, shared.id, now()).await.expect("an answer"));
    }
    let third = TenantId::parse("third").expect("a tenant");
    assert_eq!(store.tool(&third, hidden.id).await.expect("readable").map(|tool| tool.id), Some(hidden.id));
    let found = store.tools_by_name(&tenant, &owned(&["read", "nothing", "look", "send_message"])).await;
    assert_eq!(names(&found.expect("readable")), ["read", "look", "send_message"]);
    assert!(store.delete_tool(&tenant, own.id, now()).await.expect("deleted"));
    let found = store.tools_by_name(&tenant, &owned(&["look"])).await.expect("readable");
    assert_eq!(found.first().map(|tool| tool.id), Some(hidden.id), "no longer hidden");
    assert_eq!(store.tool(&other(), foreign.id).await.expect("readable"), Some(foreign));
}

/// See the name.
pub async fn agents_and_their_runs_have_the_attached_tools(store: SharedStore) {
    let tenant = TenantId::default();
    let own = put(&store, Some(&tenant), &tool("look")).await;
    let shared = put(&store, None, &mcp_tool("read")).await;
    put(&store, None, &mcp_tool("look")).await;
    put(&store, Some(&other()), &tool("elsewhere")).await;
    let attached = owned(&["read", "elsewhere", "memory_insert", "look", "nothing"]);
    let scene = Scene::with_settings(&store, AgentSettings { tools: attached, ..default_settings() }).await;
    let built_in = builtin_tools::by_name("memory_insert").expect("a built-in tool").clone();
    let wanted = [shared, built_in, own];
    assert_eq!(scene.agent().await.tools, wanted);
    let listed = store.agents(&tenant, &AgentFilter::default(), &first_page(Order::Ascending)).await;
    assert_eq!(listed.expect("readable")[0].tools, wanted);
    let run = scene.accept("hello").await;
    let lease = scene.claim(run).await.lease;
    assert_eq!(store.context(&lease).await.expect("readable").agent.tools, wanted);
}

/// See the name.
pub async fn a_deleted_tool_is_taken_from_the_agents_of_its_tenant(store: SharedStore) {
    let tenant = TenantId::default();
    let look = put(&store, Some(&tenant), &tool("look")).await;
    put(&store, Some(&other()), &tool("look")).await;
    let settings = AgentSettings {
        tools: owned(&["look", "memory_replace"]),
        tool_rules: vec![ToolRule::requires_approval("look"), ToolRule::requires_approval("memory_replace")],
        ..default_settings()
    };
    let scene = Scene::with_settings(&store, settings.clone()).await;
    let talks = AgentSettings { system: "Say \"look\".".to_owned(), ..default_settings() };
    let neighbour = Scene::with_settings(&store, talks).await;
    let untouched = neighbour.agent().await;
    let (stranger, system) = new_agent("Eve", settings);
    store.create_agent(&other(), &stranger, &[], std::slice::from_ref(&system)).await.expect("a new agent");

    let later = now() + Duration::from_secs(1);
    assert!(store.delete_tool(&tenant, look.id, later).await.expect("deleted"));
    assert!(!store.delete_tool(&tenant, look.id, later).await.expect("an answer"));
    assert_eq!(store.tool(&tenant, look.id).await.expect("readable"), None);
    let agent = scene.agent().await;
    assert_eq!(names(&agent.tools), ["memory_replace"]);
    assert_eq!(agent.settings.tools, ["memory_replace"], "another tool of the name is not attached by itself");
    assert_eq!(agent.settings.tool_rules, [ToolRule::requires_approval("memory_replace")]);
    assert_eq!(agent.updated_at, later);
    let system = scene.history().await.swap_remove(0);
    let Body::System(content) = &system.body else { panic!("a system message") };
    assert_ne!(content.text(), "compiled", "the system message is compiled anew");
    assert_eq!(neighbour.agent().await, untouched, "it only talks of it");
    let stranger = store.agent(&other(), stranger.id).await.expect("readable").expect("known");
    assert_eq!(names(&stranger.tools), ["look", "memory_replace"]);
}
