//! Blocks, their attachment to agents, and what agents can be found by, as they look on the wire.

use serde_json::{Value, json};

use super::client::Client;
use super::harness::{Dev, directory, settings};

const ABSENT: &str = "00000000-0000-4000-8000-000000000000";

async fn create(client: &Client, body: &Value) -> Value {
    client.post("/v1/blocks/", body).await.ok()
}

async fn create_agent(client: &Client, body: &Value) -> String {
    id(&client.post("/v1/agents/", body).await.ok())
}

fn id(object: &Value) -> String {
    object["id"].as_str().expect("an id").to_owned()
}

fn texts<'a>(items: &'a Value, field: &str) -> Vec<&'a str> {
    items.as_array().expect("an array").iter().map(|item| item[field].as_str().expect("a text")).collect()
}

/// The system message as it is stored.
async fn system_message(client: &Client, agent: &str) -> String {
    let messages = client.get(&format!("/v1/agents/{agent}/messages?order=asc&limit=1")).await.ok();
    messages[0]["content"].as_str().expect("a text").to_owned()
}

#[tokio::test]
async fn a_block_is_made_found_changed_and_deleted() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    let client = &dev.client;
    let made = create(client, &json!({"label": "human", "value": "Name: Ada", "template_id": "t-1"})).await;
    let block = format!("/v1/blocks/{}", id(&made));
    assert!(id(&made).starts_with("block-") && id(&made).len() == 42, "{made}");
    assert_eq!((&made["limit"], &made["read_only"], &made["tags"]), (&json!(100_000), &json!(false), &json!([])));
    assert_eq!((&made["metadata"], &made["template_id"]), (&json!({}), &json!("t-1")));
    assert!(made["description"].is_string(), "well-known labels are described");
    assert_eq!(client.get(&block).await.ok(), made);

    let change = json!({"value": "Name: Eve", "tags": ["a"], "metadata": {"k": 1}, "limit": 20, "label": null});
    let changed = client.patch(&block, &change).await.ok();
    for name in ["value", "tags", "metadata", "limit"] {
        assert_eq!(changed[name], change[name], "{name}");
    }
    assert_eq!((&changed["label"], &changed["template_id"]), (&made["label"], &made["template_id"]));
    let detail = client.patch(&block, &json!({"value": "x".repeat(21)})).await.refused(422);
    assert!(detail.starts_with("body.value: ") && detail.contains("20"), "{detail}");
    client.patch(&block, &json!({"limit": 3})).await.refused(422);
    client.patch(&block, &json!({"tags": "a"})).await.refused(422);
    client.patch(&block, &json!({"label": "x".repeat(300)})).await.refused(422);
    assert_eq!(client.get(&block).await.ok(), changed, "what is refused changes nothing");
    for (body, field) in [
        (json!({"value": "x"}), "body.label: "),
        (json!({"label": "a"}), "body.value: "),
        (json!({"label": "a", "value": "abc", "limit": 2}), "body.value: "),
        (json!({"label": "a", "value": "abc", "is_template": "no"}), "body.is_template: "),
    ] {
        let detail = client.post("/v1/blocks", &body).await.refused(422);
        assert!(detail.starts_with(field), "{detail}");
    }

    assert_eq!(client.get("/v1/blocks/count").await.ok(), json!(1));
    assert_eq!(client.delete(&block).await.ok(), Value::Null);
    for answer in [client.get(&block).await, client.delete(&block).await, client.patch(&block, &json!({})).await] {
        answer.refused(404);
    }
    client.get(&format!("{block}/agents")).await.refused(404);
    let wrong = client.get("/v1/blocks/human").await;
    assert_eq!(wrong.body["examples"], json!(["block-123e4567-e89b-42d3-8456-426614174000"]));
    assert_eq!(wrong.refused(422), "String should match pattern 'block-{uuid4}'");
}

#[tokio::test]
async fn blocks_are_listed_by_pages_and_filters() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    let client = &dev.client;
    for body in [
        json!({"label": "one", "value": "Eins", "tags": ["x", "y"], "description": "First"}),
        json!({"label": "two", "value": "zwei", "tags": ["x"], "is_template": true, "template_name": "pair"}),
        json!({"label": "three", "value": "drei", "project_id": "p"}),
    ] {
        create(client, &body).await;
    }
    let all = client.get("/v1/blocks/").await.ok();
    assert_eq!(texts(&all, "label"), ["one", "two", "three"], "oldest first");
    let two = all[1]["id"].as_str().expect("an id");
    create_agent(client, &json!({"block_ids": [two]})).await;
    for (query, wanted) in [
        ("order=desc&limit=2", vec!["three", "two"]),
        (&format!("after={two}"), vec!["three"]),
        (&format!("before={two}&order_by=created_at"), vec!["one"]),
        ("label=two", vec!["two"]),
        ("label_search=T", vec!["two", "three"]),
        ("value_search=eIn", vec!["one"]),
        ("description_search=first", vec!["one"]),
        ("name=pair", vec!["two"]),
        ("templates_only=true", vec!["two"]),
        ("tags=x&tags=y", vec!["one", "two"]),
        ("tags=x&tags=y&match_all_tags=true", vec!["one"]),
        ("project_id=p", vec!["three"]),
        ("connected_to_agents_count_gt=0", vec!["two"]),
        ("connected_to_agents_count_lt=1", vec!["one", "three"]),
        ("connected_to_agents_count_eq=1&connected_to_agents_count_eq=5", vec!["two"]),
        ("identity_id=identity-1", vec![]),
        ("identifier_keys=k", vec![]),
    ] {
        let found = client.get(&format!("/v1/blocks/?{query}")).await.ok();
        assert_eq!(texts(&found, "label"), wanted, "{query}");
    }
    assert_eq!(client.get("/v1/blocks/count?tags=x").await.ok(), json!(2));
    assert_eq!(client.get("/v1/blocks/count?identity_id=i").await.ok(), json!(0));
    client.get("/v1/blocks/?order_by=label").await.refused(422);
    client.get("/v1/blocks/?connected_to_agents_count_gt=99999999999999999999").await.refused(422);
    client.get("/v1/blocks/?templates_only=perhaps").await.refused(422);
    client.get(&format!("/v1/blocks/?after=block-{ABSENT}")).await.refused(404);
    let many = "tags=t&".repeat(2000);
    assert_eq!(client.get(&format!("/v1/blocks/?{many}")).await.ok(), json!([]));
}

#[tokio::test]
async fn agents_share_blocks() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    let client = &dev.client;
    let policy = create(client, &json!({"label": "policy", "value": "Be polite."})).await;
    let policy_id = id(&policy);
    let human = json!([{"label": "human", "value": "Name: Ada."}]);
    let made = client.post("/v1/agents/", &json!({"block_ids": [policy_id], "memory_blocks": human})).await.ok();
    let (one, two) = (id(&made), create_agent(client, &json!({"name": "two"})).await);
    assert_eq!(texts(&made["blocks"], "label"), ["policy", "human"]);
    assert_eq!((&made["blocks"][0], &made["memory"]["blocks"]), (&policy, &made["blocks"]));
    let path = |agent: &str, what: &str, block: &str| format!("/v1/agents/{agent}/core-memory/blocks/{what}/{block}");

    let state = client.patch_bare(&path(&two, "attach", &policy_id)).await.ok();
    assert_eq!(state["blocks"], json!([policy]));
    let again = client.patch_bare(&path(&two, "attach", &policy_id)).await.ok();
    assert_eq!(again["blocks"], state["blocks"], "attaching twice changes nothing");
    let agents = client.get(&format!("/v1/blocks/{policy_id}/agents?include=agent.tools")).await.ok();
    assert_eq!(texts(&agents, "id"), [two.as_str(), one.as_str()], "newest first");
    let page = format!("/v1/blocks/{policy_id}/agents?order=asc&limit=1");
    assert_eq!(texts(&client.get(&page).await.ok(), "id"), [one.as_str()]);
    let rest = client.get(&format!("{page}&after={one}")).await.ok();
    assert_eq!(texts(&rest, "id"), [two.as_str()]);
    client.get(&format!("/v1/blocks/{policy_id}/agents?include=agent.pets")).await.refused(422);

    // By its id, through an agent, and by a tool of a run: all agents have it at once.
    let mut value = "Be brief.";
    client.patch(&format!("/v1/blocks/{policy_id}"), &json!({"value": value})).await.ok();
    for next in ["Be bold.", "Be bold. Never lie.", ""] {
        for agent in [&one, &two] {
            assert!(system_message(client, agent).await.contains(value), "{value}");
            let shown = client.get(&format!("/v1/agents/{agent}/core-memory/blocks/policy")).await.ok();
            assert_eq!(shown["value"], value);
        }
        match next {
            "Be bold." => {
                client
                    .patch(&format!("/v1/agents/{two}/core-memory/blocks/policy"), &json!({"value": next}))
                    .await
                    .ok();
            }
            "Be bold. Never lie." => {
                let text = r#"[[demo tool=memory_replace {"label":"policy","old_string":"bold.","new_string":"bold. Never lie."}]]"#;
                client.send(&one, &json!({"messages": [{"role": "user", "content": text}]})).await.read_to_end().await;
            }
            _ => {}
        }
        value = next;
    }

    let rival = id(&create(client, &json!({"label": "human", "value": "Name: Eve."})).await);
    let taken = client.patch_bare(&path(&one, "attach", &rival)).await;
    assert_eq!(taken.headers["x-should-retry"], "false");
    assert!(taken.refused(409).contains("'human'"));
    let renamed = client.patch(&format!("/v1/blocks/{policy_id}"), &json!({"label": "human"})).await.refused(409);
    assert!(renamed.contains("'human'"), "one of its agents has such a block: {renamed}");

    let state = client.patch_bare(&path(&one, "detach", &policy_id)).await.ok();
    assert_eq!(texts(&state["blocks"], "label"), ["human"]);
    client.patch_bare(&path(&one, "detach", &policy_id)).await.ok();
    assert!(!system_message(client, &one).await.contains("Never lie."));
    client.patch(&format!("/v1/blocks/{policy_id}"), &json!({"label": "human"})).await.ok();
    for what in ["attach", "detach"] {
        client.patch_bare(&path(&one, what, &format!("block-{ABSENT}"))).await.refused(404);
        client.patch_bare(&path(&format!("agent-{ABSENT}"), what, &policy_id)).await.refused(404);
        client.patch_bare(&path(&one, what, "policy")).await.refused(422);
    }

    let own = id(&state["blocks"][0]);
    client.delete(&format!("/v1/agents/{one}")).await.ok();
    assert_eq!(client.get(&format!("/v1/blocks/{own}")).await.ok()["value"], "Name: Ada.", "blocks outlive agents");
    client.delete(&format!("/v1/blocks/{policy_id}")).await.ok();
    assert_eq!(client.get(&format!("/v1/agents/{two}")).await.ok()["blocks"], json!([]));
    assert!(!system_message(client, &two).await.contains("Never lie."));
}

#[tokio::test]
async fn agents_are_made_and_changed_with_blocks_that_exist() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    let client = &dev.client;
    let mut ids = Vec::new();
    for label in ["a", "b", "b"] {
        ids.push(id(&create(client, &json!({"label": label, "value": format!("of {label}")})).await));
    }
    let absent = format!("block-{ABSENT}");
    let detail = client.post("/v1/agents/", &json!({"block_ids": [ids[0], absent]})).await.refused(400);
    assert!(detail.contains(&absent) && !detail.contains(&ids[0]), "{detail}");
    client.post("/v1/agents/", &json!({"block_ids": ["b"]})).await.refused(422);
    client.post("/v1/agents/", &json!({"block_ids": [ids[1], ids[2]]})).await.refused(409);
    let clash = json!({"block_ids": [ids[0]], "memory_blocks": [{"label": "a", "value": "x"}]});
    client.post("/v1/agents/", &clash).await.refused(409);
    assert_eq!(client.get("/v1/agents/count").await.ok(), json!(0), "what is refused leaves nothing behind");

    let agent = format!("/v1/agents/{}", create_agent(client, &json!({"block_ids": [ids[0]]})).await);
    let state = client.patch(&agent, &json!({"block_ids": [ids[1], ids[0]]})).await.ok();
    assert_eq!(texts(&state["blocks"], "id"), [ids[1].as_str(), ids[0].as_str()]);
    let state = client.patch(&agent, &json!({"block_ids": null, "description": "d"})).await.ok();
    assert_eq!(state["blocks"].as_array().map(Vec::len), Some(2), "null is absent");
    client.patch(&agent, &json!({"block_ids": [absent]})).await.refused(400);
    let state = client.patch(&agent, &json!({"block_ids": []})).await.ok();
    assert_eq!((&state["blocks"], &state["description"]), (&json!([]), &json!("d")));
}

#[tokio::test]
async fn a_new_agent_may_begin_with_a_history() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    let client = &dev.client;
    let sequence =
        json!([{"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": "A ferryman."}]);
    let made = client.post("/v1/agents/", &json!({"initial_message_sequence": sequence})).await.ok();
    assert_eq!(made["message_ids"].as_array().map(Vec::len), Some(3));
    let agent = id(&made);
    let listed = client.get(&format!("/v1/agents/{agent}/messages?order=asc")).await.ok();
    let kinds = ["system_message", "user_message", "assistant_message"];
    assert_eq!(texts(&listed, "message_type"), kinds);
    assert_eq!(texts(&listed, "content")[1..], ["Who are you?", "A ferryman."]);
    client.send(&agent, &json!({"input": "And now?"})).await.read_to_end().await;
    let listed = client.get(&format!("/v1/agents/{agent}/messages?order=asc")).await.ok();
    assert_eq!(texts(&listed, "message_type")[..3], kinds, "what follows stands behind it");

    let empty = client.post("/v1/agents/", &json!({"initial_message_sequence": []})).await.ok();
    assert_eq!(empty["message_ids"].as_array().map(Vec::len), Some(1));
    for wrong in [json!("x"), json!([{"role": "tool", "content": "x"}]), json!([{"approvals": [], "type": "approval"}])]
    {
        let detail = client.post("/v1/agents/", &json!({"initial_message_sequence": wrong})).await.refused(422);
        assert!(detail.starts_with("body.initial_message_sequence"), "{detail}");
    }
}

#[tokio::test]
async fn agents_are_found_by_what_is_known_of_them() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    let client = &dev.client;
    for body in [
        json!({"name": "Ada", "tags": ["x", "y"], "project_id": "p", "identity_ids": ["i"]}),
        json!({"name": "Bob", "tags": ["x"], "template_id": "t", "base_template_id": "b"}),
        json!({"name": "Cy"}),
    ] {
        create_agent(client, &body).await;
    }
    let all = client.get("/v1/agents/?ascending=true").await.ok();
    assert_eq!(texts(&all, "name"), ["Ada", "Bob", "Cy"]);
    let path = |place: usize| format!("/v1/agents/{}", id(&all[place]));
    let says = json!({
        "last_stop_reason": "cancelled", "last_run_completion": "2026-01-15T10:00:00Z", "last_run_duration_ms": 12,
    });
    let state = client.patch(&path(0), &says).await.ok();
    assert_eq!(state["last_run_completion"], "2026-01-15T10:00:00.000000Z");
    assert_eq!((&state["last_stop_reason"], &state["last_run_duration_ms"]), (&json!("cancelled"), &json!(12)));
    let state = client.patch(&path(0), &json!({"last_stop_reason": "end_turn"})).await.ok();
    assert_eq!((&state["last_stop_reason"], &state["last_run_duration_ms"]), (&json!("end_turn"), &json!(12)));
    client.patch(&path(1), &json!({"last_stop_reason": "end_turn"})).await.refused(400);
    client.patch(&path(1), &json!({"last_stop_reason": "bored"})).await.refused(422);
    client.patch(&path(1), &json!({"last_run_completion": "+262142-01-01T00:00:00Z"})).await.refused(422);

    let second = id(&all[1]);
    for (query, wanted) in [
        ("", vec!["Cy", "Bob", "Ada"]),
        ("order=asc&limit=1", vec!["Ada"]),
        (&format!("after={second}"), vec!["Ada"]),
        ("order_by=last_run_completion&limit=1", vec!["Ada"]),
        (&format!("sort_by=last_run_completion&order=asc&after={second}"), vec!["Cy", "Ada"]),
        ("order_by=updated_at&limit=1", vec!["Ada"]),
        ("name=Bob", vec!["Bob"]),
        ("query_text=b", vec!["Bob"]),
        ("tags=x&tags=y", vec!["Bob", "Ada"]),
        ("tags=x&tags=y&match_all_tags=true", vec!["Ada"]),
        ("last_stop_reason=end_turn", vec!["Ada"]),
        ("last_stop_reason=error", vec![]),
        ("project_id=p", vec!["Ada"]),
        ("identity_id=i", vec!["Ada"]),
        ("template_id=t", vec!["Bob"]),
        ("base_template_id=b", vec!["Bob"]),
        ("created_by_id=user-1", vec![]),
        ("identifier_keys=k", vec![]),
        ("include=agent.blocks&include=agent.tags&include_relationships=anything&name=Cy", vec!["Cy"]),
    ] {
        // A cursor and its order decide together; ties of a time are broken by the id, which is drawn.
        let found = client.get(&format!("/v1/agents/?{query}")).await.ok();
        let mut found = texts(&found, "name");
        let mut wanted = wanted;
        if query.starts_with("sort_by") {
            assert_eq!(found.last(), Some(&"Ada"), "those that never ran come first");
            found.retain(|name| *name == "Ada");
            wanted.retain(|name| *name == "Ada");
        }
        assert_eq!(found, wanted, "{query}");
    }
    assert_eq!(client.get("/v1/agents/count?tags=x").await.ok(), json!(2));
    assert_eq!(client.get("/v1/agents/count?created_by_id=u").await.ok(), json!(0));
    for wrong in ["include=agent.pets", "include=blocks", "last_stop_reason=bored", "order_by=name", "ascending=up"] {
        client.get(&format!("/v1/agents/?{wrong}")).await.refused(422);
    }
    client.get(&format!("{}?include=agent.secrets", path(0))).await.ok();
    client.get(&format!("{}?include=secrets", path(0))).await.refused(422);
    client.get(&format!("/v1/agents/?{}", "tags=t&".repeat(2000))).await.ok();

    assert_eq!(client.get("/v1/tags/").await.ok(), json!(["x", "y"]));
    assert_eq!(client.get("/v1/tags?order=desc&limit=1&order_by=name").await.ok(), json!(["y"]));
    assert_eq!(client.get("/v1/tags/?after=x").await.ok(), json!(["y"]));
    assert_eq!(client.get("/v1/tags/?before=y&name=X").await.ok(), json!(["x"]));
    assert_eq!(client.get("/v1/tags/?query_text=z").await.ok(), json!([]));
    client.get("/v1/tags/?order_by=size").await.refused(422);
}

#[tokio::test]
async fn tenants_do_not_see_each_others_blocks() {
    let data = directory();
    let keys = settings([("HOLDFAST_API_KEYS", "north=key-of-the-north,south=key-of-the-south")]);
    let dev = Dev::start_with(data.path(), keys).await;
    let (north, south) = (dev.client.with_key("key-of-the-north"), dev.client.with_key("key-of-the-south"));
    let block = id(&create(&north, &json!({"label": "secret", "value": "of the north"})).await);
    let agent = create_agent(&north, &json!({"block_ids": [block], "tags": ["northern"]})).await;
    let own = create_agent(&south, &json!({"name": "southern"})).await;

    let missing = south.get(&format!("/v1/blocks/block-{ABSENT}")).await.refused(404);
    let path = format!("/v1/blocks/{block}");
    assert_eq!(south.get(&path).await.refused(404), missing);
    assert_eq!(south.patch(&path, &json!({"value": "mine"})).await.refused(404), missing);
    assert_eq!(south.delete(&path).await.refused(404), missing);
    assert_eq!(south.get(&format!("{path}/agents")).await.refused(404), missing);
    assert_eq!(south.get("/v1/blocks/").await.ok(), json!([]));
    assert_eq!(south.get("/v1/blocks/count").await.ok(), json!(0));
    assert_eq!(south.get("/v1/tags/").await.ok(), json!([]));
    south.get(&format!("/v1/blocks/?after={block}")).await.refused(404);
    let attach = |agent: &str| format!("/v1/agents/{agent}/core-memory/blocks/attach/{block}");
    assert_eq!(south.patch_bare(&attach(&own)).await.refused(404), missing);
    south.patch_bare(&attach(&agent)).await.refused(404);
    south.patch_bare(&attach(&agent).replace("attach", "detach")).await.refused(404);
    south.patch(&format!("/v1/agents/{own}"), &json!({"block_ids": [block]})).await.refused(400);
    south.post("/v1/agents/", &json!({"block_ids": [block]})).await.refused(400);
    assert_eq!(north.get(&path).await.ok()["value"], "of the north");
}
