//! Tools, their attachment and the core memory, as they look on the wire.

use serde_json::{Value, json};

use super::client::Client;
use super::harness::{Dev, directory, settings};

const ABSENT: &str = "00000000-0000-4000-8000-000000000000";

fn weather() -> Value {
    json!({
        "source_code": "def get_weather(city: str) -> str:\n    return city\n",
        "json_schema": {
            "name": "get_weather",
            "description": "Look up the weather.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "description": "City name."}},
                "required": ["city"],
            },
        },
    })
}

fn named(name: &str, own: &Value) -> Value {
    let mut body = weather();
    body["json_schema"]["name"] = json!(name);
    body["source_code"] = json!(format!("def {name}(city: str) -> str:\n    return city\n"));
    body.as_object_mut().expect("an object").extend(own.as_object().expect("an object").clone());
    body
}

async fn create(client: &Client, body: &Value) -> String {
    let tool = client.post("/v1/tools/", body).await.ok();
    tool["id"].as_str().expect("an id").to_owned()
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
async fn a_tool_is_made_found_changed_and_deleted() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    let client = &dev.client;
    let made = client.post("/v1/tools/", &weather()).await.ok();
    let id = made["id"].as_str().expect("an id");
    assert!(id.starts_with("tool-") && id.len() == 41, "{id}");
    assert_eq!((&made["name"], &made["tool_type"]), (&json!("get_weather"), &json!("custom")));
    assert_eq!(made["json_schema"], weather()["json_schema"]);
    assert_eq!(client.get(&format!("/v1/tools/{id}")).await.ok(), made);

    let again = named("get_weather", &json!({"source_code": "def get_weather(city): ...", "tags": ["new"]}));
    let replaced = client.put("/v1/tools", &again).await.ok();
    assert_eq!((&replaced["id"], &replaced["tags"]), (&json!(id), &json!(["new"])));
    assert_eq!(replaced["source_code"], "def get_weather(city): ...");
    let patched = client.patch(&format!("/v1/tools/{id}"), &json!({"metadata_": {"safe_to_repeat": true}})).await.ok();
    assert_eq!((&patched["safe_to_repeat"], &patched["tags"]), (&json!(true), &json!(["new"])));
    let renamed = client.patch(&format!("/v1/tools/{id}"), &json!({"json_schema": {"name": "other"}})).await;
    assert!(renamed.refused(400).contains("keeps its name"));

    assert_eq!(client.delete(&format!("/v1/tools/{id}")).await.ok(), Value::Null);
    client.delete(&format!("/v1/tools/{id}")).await.refused(404);
    client.get(&format!("/v1/tools/{id}")).await.refused(404);
    client.patch(&format!("/v1/tools/{id}"), &json!({})).await.refused(404);
    assert_ne!(create(client, &weather()).await, id, "the name is free again");
}

#[tokio::test]
async fn a_python_function_tells_its_name_and_arguments_by_itself() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    let client = &dev.client;
    let source = "def add(one: int, other: int = 2) -> int:\n    \"\"\"Adds numbers.\n\n    Args:\n        one: A number.\n        \
                  other: Another one.\n    \"\"\"\n    return one + other\n";
    let made = client.post("/v1/tools/", &json!({"source_code": source})).await.ok();
    assert_eq!((&made["name"], &made["description"]), (&json!("add"), &json!("Adds numbers.")));
    let parameters = &made["json_schema"]["parameters"];
    assert_eq!(
        (&parameters["properties"]["one"]["type"], &parameters["required"]),
        (&json!("integer"), &json!(["one"]))
    );
    let tool = format!("/v1/tools/{}", made["id"].as_str().expect("an id"));
    let changed = source.replace("Adds numbers.", "Adds up.");
    let changed = client.patch(&tool, &json!({"source_code": changed})).await.ok();
    assert_eq!(changed["description"], "Adds up.", "new source brings its schema");
    let renamed = client.patch(&tool, &json!({"source_code": source.replace("def add", "def plus")})).await;
    assert!(renamed.refused(400).contains("keeps its name"));

    let undescribed = client.post("/v1/tools/", &json!({"source_code": "def f(x: int): ..."})).await.refused(400);
    assert!(undescribed.starts_with("INVALID_ARGUMENT: body.source_code: "), "{undescribed}");
    let elsewhere = named("other", &json!({"source_code": source}));
    assert!(client.post("/v1/tools/", &elsewhere).await.refused(400).contains("other"), "it defines no such function");
}

#[tokio::test]
async fn tools_that_cannot_be_are_refused_with_a_reason() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    let client = &dev.client;
    let detail = client.post("/v1/tools/", &json!({})).await.refused(422);
    assert!(detail.starts_with("body.source_code: "), "{detail}");
    let detail = client.post("/v1/tools/", &named("get weather", &json!({}))).await.refused(400);
    assert!(detail.contains("body.json_schema.name: "), "{detail}");
    let detail = client.post("/v1/tools/", &named("memory_insert", &json!({}))).await.refused(400);
    assert!(detail.contains("is a tool of the server"), "{detail}");
    client.post("/v1/tools/", &json!({"source_code": "x", "source_type": "typescript"})).await.refused(422);
    let detail = client.post("/v1/tools/", &named("x", &json!({"source_type": "typescript"}))).await.refused(400);
    assert!(detail.contains("is not run here"), "{detail}");
    let detail = client.post("/v1/tools/", &named("x", &json!({"source_type": "http"}))).await.refused(422);
    assert!(detail.starts_with("body.source_code: "), "{detail}");
    let http = named("x", &json!({"source_type": "http", "source_code": "https://a.example/x"}));
    let made = client.post("/v1/tools/", &http).await.ok();
    assert_eq!(made["source_code"], r#"{"url":"https://a.example/x","method":"POST"}"#);

    let built_in = client.get("/v1/tools/?name=memory_insert").await.ok();
    let built_in = format!("/v1/tools/{}", built_in[0]["id"].as_str().expect("an id"));
    for answer in [client.patch(&built_in, &json!({"tags": []})).await, client.delete(&built_in).await] {
        assert!(answer.refused(400).contains("cannot be changed or deleted"));
    }
    let wrong = client.get("/v1/tools/weather").await;
    assert_eq!(wrong.body["examples"], json!(["tool-123e4567-e89b-42d3-8456-426614174000"]));
    assert_eq!(wrong.refused(422), "String should match pattern 'tool-{uuid4}'");
    for path in ["search", "run", "add-base-tools"] {
        assert_eq!(client.post(&format!("/v1/tools/{path}"), &json!({})).await.refused(404), "Not Found");
    }
}

#[tokio::test]
async fn tools_are_listed_by_pages_and_filters() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    let client = &dev.client;
    for name in ["one", "two", "three"] {
        create(client, &named(name, &json!({}))).await;
    }
    let all = client.get("/v1/tools/").await.ok();
    assert_eq!(&texts(&all, "name")[..3], ["three", "two", "one"], "newest first, the built-in ones last");
    let count = client.get("/v1/tools/count").await.ok();
    assert_eq!(count, json!(all.as_array().expect("an array").len()));
    let first = client.get("/v1/tools/?limit=4").await.ok();
    let last = first[3]["id"].as_str().expect("an id");
    let rest = client.get(&format!("/v1/tools/?after={last}")).await.ok();
    let pages = [texts(&first, "id"), texts(&rest, "id")].concat();
    assert_eq!(pages, texts(&all, "id"));
    let oldest = client.get("/v1/tools/?tool_types=custom&order=asc&order_by=created_at").await.ok();
    assert_eq!(texts(&oldest, "name"), ["one", "two", "three"]);
    for (query, wanted) in [
        ("name=two", vec!["two"]),
        ("names=two&names=one", vec!["two", "one"]),
        ("search=THR", vec!["three"]),
        ("exclude_tool_types=letta_core,letta_sleeptime_core&limit=2", vec!["three", "two"]),
        ("return_only_letta_tools=true&search=rethink", vec!["memory_rethink"]),
        ("return_only_letta_tools=true&name=one", vec![]),
        (&format!("tool_ids={}", oldest[1]["id"].as_str().expect("an id")), vec!["two"]),
    ] {
        let found = client.get(&format!("/v1/tools/?{query}")).await.ok();
        assert_eq!(texts(&found, "name"), wanted, "{query}");
    }
    client.get("/v1/tools/?tool_types=robot").await.refused(400);
    client.get("/v1/tools/?order_by=name").await.refused(422);
    client.get(&format!("/v1/tools/?after=tool-{ABSENT}")).await.refused(404);
}

#[tokio::test]
async fn tools_are_attached_and_detached() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    let client = &dev.client;
    let agent = client.create_agent().await;
    let plain = create(client, &named("plain", &json!({}))).await;
    let guarded = create(client, &named("guarded", &json!({"default_requires_approval": true}))).await;
    let path = |what: &str, id: &str| format!("/v1/agents/{agent}/tools/{what}/{id}");
    let rules = |state: &Value| state["tool_rules"].as_array().expect("rules").len();

    client.patch_bare(&path("attach", &plain)).await.ok();
    let state = client.patch_bare(&path("attach", &guarded)).await.ok();
    assert_eq!(texts(&state["tools"], "name")[3..], ["plain", "guarded"]);
    let rule = json!([{"type": "requires_approval", "tool_name": "guarded", "prompt_template": null}]);
    assert_eq!(state["tool_rules"], rule);
    let again = client.patch_bare(&path("attach", &guarded)).await.ok();
    assert_eq!((&again["tools"], &again["tool_rules"]), (&state["tools"], &state["tool_rules"]));
    assert_eq!(client.get(&format!("/v1/agents/{agent}")).await.ok()["tools"], state["tools"]);

    let listed = client.get(&format!("/v1/agents/{agent}/tools")).await.ok();
    assert_eq!(texts(&listed, "name")[..2], ["guarded", "plain"], "newest first");
    let page = client.get(&format!("/v1/agents/{agent}/tools?limit=1&after={guarded}")).await.ok();
    assert_eq!(texts(&page, "name"), ["plain"]);
    for number in 0..8 {
        let id = create(client, &named(&format!("more_{number}"), &json!({}))).await;
        client.patch_bare(&path("attach", &id)).await.ok();
    }
    let listed = client.get(&format!("/v1/agents/{agent}/tools")).await.ok();
    assert_eq!(listed.as_array().map(Vec::len), Some(10), "ten at a time");

    let state = client.patch_bare(&path("detach", &guarded)).await.ok();
    assert!(!texts(&state["tools"], "name").contains(&"guarded"));
    assert_eq!(state["tool_rules"], rule, "detaching leaves the rules");
    client.patch_bare(&path("detach", &guarded)).await.ok();
    client.patch_bare(&path("attach", &format!("tool-{ABSENT}"))).await.refused(404);
    client.patch_bare(&format!("/v1/agents/agent-{ABSENT}/tools/attach/{plain}")).await.refused(404);
    client.patch_bare(&path("attach", "plain")).await.refused(422);

    let approval = path("approval", "plain");
    let state = client.patch(&approval, &json!({"requires_approval": true})).await.ok();
    assert_eq!(rules(&state), 2);
    let state = client.patch_bare(&format!("{approval}?requires_approval=false")).await.ok();
    assert_eq!(rules(&state), 1);
    client.patch_bare(&approval).await.refused(422);
    client.patch(&approval, &json!({"requires_approval": true, "more": 1})).await.refused(422);
    client.patch(&path("approval", "nothing"), &json!({"requires_approval": true})).await.refused(404);

    client.delete(&format!("/v1/tools/{plain}")).await.ok();
    let state = client.get(&format!("/v1/agents/{agent}")).await.ok();
    assert!(!texts(&state["tools"], "name").contains(&"plain"), "a deleted tool is attached nowhere");
}

#[tokio::test]
async fn agents_name_tools_rules_and_secrets() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    let client = &dev.client;
    let look = create(client, &named("look", &json!({"default_requires_approval": true}))).await;
    create(client, &named("listen", &json!({}))).await;
    let rules = json!([
        {"type": "run_first", "tool_name": "look", "args": {"city": "Oslo"}, "prompt_template": null},
        {"type": "run_first", "tool_name": "listen", "args": null, "prompt_template": null},
        {"type": "conditional", "tool_name": "look", "child_output_mapping": {"yes": "listen"},
            "default_child": null, "require_output_mapping": false, "prompt_template": null},
    ]);
    let body = json!({
        "tools": ["listen"],
        "tool_ids": [look],
        "include_base_tools": false,
        "tool_rules": rules,
        "secrets": {"API_KEY": "never-shown"},
        "compaction_settings": {"mode": "sliding_window", "sliding_window_percentage": 0.3},
    });
    let made = client.post("/v1/agents/", &body).await.ok();
    let agent = format!("/v1/agents/{}", made["id"].as_str().expect("an id"));
    assert_eq!(texts(&made["tools"], "name"), ["listen", "look"]);
    let mut all_rules = rules.as_array().expect("rules").clone();
    all_rules.push(json!({"type": "requires_approval", "tool_name": "look", "prompt_template": null}));
    assert_eq!(made["tool_rules"], json!(all_rules));
    assert_eq!(made["secrets"], json!([{"agent_id": made["id"], "key": "API_KEY", "value": ""}]));
    assert!(!made.to_string().contains("never-shown"));
    assert_eq!(client.get(&agent).await.ok(), made);

    let detail = client.post("/v1/agents/", &json!({"tools": ["look", "smell", "taste"]})).await.refused(400);
    assert!(detail.contains("smell, taste") && !detail.contains("look"), "{detail}");
    let absent = format!("tool-{ABSENT}");
    let detail = client.patch(&agent, &json!({"tool_ids": [absent]})).await.refused(400);
    assert!(detail.contains(&absent), "{detail}");
    let wrong =
        json!({"tool_rules": [rules[0], {"type": "conditional", "tool_name": "look", "child_output_mapping": {}}]});
    let detail = client.patch(&agent, &wrong).await.refused(422);
    assert!(detail.starts_with("body.tool_rules[1].child_output_mapping: "), "{detail}");
    let detail = client.patch(&agent, &json!({"secrets": {"1": "x"}})).await.refused(422);
    assert!(detail.starts_with("body.secrets: "), "{detail}");
    let detail = client.patch(&agent, &json!({"compaction_settings": {"mode": "none"}})).await.refused(422);
    assert!(detail.starts_with("body.compaction_settings.mode: "), "{detail}");
    assert_eq!(client.get(&agent).await.ok(), made, "what is refused changes nothing");

    let state = client.patch(&agent, &json!({"tools": ["memory_insert", "look"], "tool_rules": []})).await.ok();
    assert_eq!(texts(&state["tools"], "name"), ["memory_insert", "look"]);
    assert_eq!(state["tool_rules"], json!([]), "a tool that stays brings no rule again");
    assert_eq!(state["secrets"], made["secrets"]);

    let older = client.post("/v1/agents/", &json!({"agent_type": "memgpt_v2_agent"})).await.ok();
    let ends = json!({"type": "exit_loop", "tool_name": "send_message", "prompt_template": null});
    assert!(older["tool_rules"].as_array().expect("rules").contains(&ends), "{}", older["tool_rules"]);
    assert!(texts(&older["tools"], "name").contains(&"send_message"));
}

#[tokio::test]
async fn core_memory_is_read_and_written_by_label() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    let client = &dev.client;
    let blocks = json!([
        {"label": "human", "value": "Name: Ada.", "limit": 20},
        {"label": "notes/today", "value": "Nothing.", "read_only": true},
    ]);
    let made = client.post("/v1/agents/", &json!({"memory_blocks": blocks})).await.ok();
    let agent = made["id"].as_str().expect("an id");
    let memory = format!("/v1/agents/{agent}/core-memory");
    assert_eq!(client.get(&memory).await.ok(), made["memory"]);
    let listed = client.get(&format!("{memory}/blocks")).await.ok();
    assert_eq!(texts(&listed, "label"), ["notes/today", "human"], "newest first");
    let one = client.get(&format!("{memory}/blocks?order=asc&limit=1")).await.ok();
    assert_eq!(one[0], made["blocks"][0]);
    assert_eq!(client.get(&format!("{memory}/blocks/human")).await.ok(), made["blocks"][0]);

    let changed = client.patch(&format!("{memory}/blocks/human"), &json!({"value": "Name: Eve."})).await.ok();
    assert_eq!((&changed["value"], &changed["id"]), (&json!("Name: Eve."), &made["blocks"][0]["id"]));
    let system = system_message(client, agent).await;
    assert!(system.contains("Name: Eve.") && !system.contains("Name: Ada."), "{system}");
    // Only tools are bound by read_only. A label may hold a slash.
    let today = format!("{memory}/blocks/notes%2Ftoday");
    client.patch(&today, &json!({"value": "A walk.", "label": "today"})).await.ok();
    client.get(&today).await.refused(404);
    assert!(system_message(client, agent).await.contains("<today>"));

    let human = format!("{memory}/blocks/human");
    let detail = client.patch(&human, &json!({"value": "x".repeat(21)})).await.refused(422);
    assert!(detail.starts_with("body.value: ") && detail.contains("20"), "{detail}");
    let taken = client.patch(&human, &json!({"label": "today"})).await;
    assert_eq!(taken.headers["x-should-retry"], "false");
    assert!(taken.refused(409).contains("'today'"));
    client.patch(&format!("{memory}/blocks/nothing"), &json!({"value": "x"})).await.refused(404);
    client.patch(&human, &json!({"limit": 0})).await.refused(422);
    assert_eq!(client.get(&human).await.ok(), changed, "what is refused changes nothing");
    for path in ["core-memory", "core-memory/blocks", "core-memory/blocks/human"] {
        client.get(&format!("/v1/agents/agent-{ABSENT}/{path}")).await.refused(404);
    }
}

#[tokio::test]
async fn a_prompt_is_compiled_on_demand() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    let client = &dev.client;
    let agent = client.create_agent().await;
    let path = format!("/v1/agents/{agent}/recompile");
    let before = system_message(client, &agent).await;
    let tried = client.post(&format!("{path}?dry_run=true&update_timestamp=true"), &json!({})).await.ok();
    assert!(tried.as_str().expect("a text").contains("The human's name is Ada."));
    assert_eq!(system_message(client, &agent).await, before, "only tried");
    let kept = client.post(&path, &json!({})).await.ok();
    assert_eq!(kept, json!(system_message(client, &agent).await));
    client.post(&format!("/v1/agents/agent-{ABSENT}/recompile"), &json!({})).await.refused(404);
    client.post(&format!("{path}?dry_run=perhaps"), &json!({})).await.refused(422);
}

#[tokio::test]
async fn tenants_do_not_see_each_others_tools_and_memory() {
    let data = directory();
    let keys = settings([("HOLDFAST_API_KEYS", "north=key-of-the-north,south=key-of-the-south")]);
    let dev = Dev::start_with(data.path(), keys).await;
    let (north, south) = (dev.client.with_key("key-of-the-north"), dev.client.with_key("key-of-the-south"));
    let tool = create(&north, &weather()).await;
    let agent = north.create_agent().await;
    let own = south.create_agent().await;
    let same_name = create(&south, &weather()).await;
    assert_ne!(tool, same_name);
    assert_eq!(texts(&south.get("/v1/tools/?name=get_weather").await.ok(), "id"), [same_name.as_str()]);

    let missing = south.get(&format!("/v1/tools/tool-{ABSENT}")).await.refused(404);
    assert_eq!(south.get(&format!("/v1/tools/{tool}")).await.refused(404), missing);
    assert_eq!(south.patch(&format!("/v1/tools/{tool}"), &json!({"tags": []})).await.refused(404), missing);
    assert_eq!(south.delete(&format!("/v1/tools/{tool}")).await.refused(404), missing);
    south.get(&format!("/v1/tools/?after={tool}")).await.refused(404);
    assert_eq!(south.patch_bare(&format!("/v1/agents/{own}/tools/attach/{tool}")).await.refused(404), missing);
    south.patch(&format!("/v1/agents/{own}"), &json!({"tool_ids": [tool]})).await.refused(400);
    south.patch_bare(&format!("/v1/agents/{agent}/tools/attach/{same_name}")).await.refused(404);
    let foreign = format!("/v1/agents/{agent}");
    south.get(&format!("{foreign}/tools")).await.refused(404);
    south.get(&format!("{foreign}/core-memory/blocks/human")).await.refused(404);
    south.patch(&format!("{foreign}/core-memory/blocks/human"), &json!({"value": "mine"})).await.refused(404);
    south.post(&format!("{foreign}/recompile"), &json!({})).await.refused(404);
    let approval = format!("{foreign}/tools/approval/memory_insert");
    south.patch(&approval, &json!({"requires_approval": true})).await.refused(404);
    assert!(system_message(&north, &agent).await.contains("Ada"));
    north.get(&format!("/v1/tools/{tool}")).await.ok();
}
