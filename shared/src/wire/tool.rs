//! Tools: the bodies of create and update, and the object (api/04 §2).

use serde_json::{Map, Value, json};

use crate::domain::Timestamp;
use crate::domain::builtin_tools;
use crate::domain::ids::ToolId;
use crate::domain::tool::{
    self, CUSTOM, EXTERNAL_MCP, Tool, ToolOptions, ToolReturn, ToolSource, ToolSpec, ToolStatus,
};
use crate::wire::http_endpoint;
use crate::wire::read::{BodyError, Node};

/// The kinds of tools.
pub const TOOL_TYPES: [&str; 11] = [
    CUSTOM,
    "letta_core",
    "letta_memory_core",
    "letta_builtin",
    "letta_multi_agent_core",
    "letta_sleeptime_core",
    "letta_voice_sleeptime_core",
    "letta_files_core",
    EXTERNAL_MCP,
    "external_langchain",
    "external_composio",
];

/// The language of tools that do not say.
const DEFAULT_SOURCE_TYPE: &str = "python";

/// Most characters that a result may be allowed.
pub const MOST_RETURN_CHARS: u64 = 1_000_000;

/// A tool's own word for "a call that was interrupted may be made again", also inside its metadata: the SDKs' methods
/// have an argument for the one and not for the other.
const SAFE_TO_REPEAT: &str = "safe_to_repeat";

/// Finds out from Python source what a model is to be told of its function; a text says why that cannot be done.
pub type Derive<'a> = &'a dyn Fn(&str) -> Result<ToolSpec, String>;

/// A new tool as its client wants it.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateTool {
    /// What a model is told.
    pub spec: ToolSpec,
    source: ToolSource,
    options: OptionsPatch,
}

impl CreateTool {
    /// Reads a body.
    ///
    /// # Errors
    /// The form is wrong, or it is no tool that can be carried out here.
    pub fn parse(body: &Value, derive: Derive<'_>) -> Result<Self, BodyError> {
        let body = Node::body(body)?;
        let code = body.required("source_code")?;
        let schema = body.get("json_schema").map(|schema| read_schema(&schema)).transpose()?;
        let source = read_source(&body, &code, DEFAULT_SOURCE_TYPE, schema.is_some())?;
        let description = body.optional_string("description")?;
        let spec = match schema {
            Some(schema) => schema.spec(description),
            None => derived(&code, description, derive)?,
        };
        if builtin_tools::by_name(&spec.name).is_some() {
            let why = format!("'{}' is a tool of the server: choose another name", spec.name);
            return Err(body.get("json_schema").unwrap_or(code).unacceptable(&why));
        }
        Ok(Self { spec, source, options: OptionsPatch::parse(&body)? })
    }

    /// The tool. What the body does not say is as it was in the tool of that name, if there was one.
    #[must_use]
    pub fn tool(self, id: ToolId, before: Option<&Tool>, now: Timestamp) -> Tool {
        let options = before.map(|tool| tool.options.clone()).unwrap_or_default();
        let options = self.options.apply(options);
        Tool { id, spec: self.spec, source: self.source, options, created_at: now, updated_at: now }
    }
}

/// The tool after a change; what the body does not name stays.
///
/// # Errors
/// The form is wrong, or it is no tool that can be carried out here.
pub fn changed(before: &Tool, body: &Value, derive: Derive<'_>, now: Timestamp) -> Result<Tool, BodyError> {
    let body = Node::body(body)?;
    let mut after = before.clone();
    let schema = body.get("json_schema").map(|schema| read_schema(&schema)).transpose()?;
    let description = body.optional_string("description")?;
    if let Some(code) = body.get("source_code") {
        after.source = read_source(&body, &code, source_type_of(&before.source), true)?;
        // The schema belongs to the source: a new one brings its own.
        if schema.is_none() && matches!(after.source, ToolSource::Python { .. }) {
            after.spec = derived(&code, description.clone(), derive)?;
        }
    } else if let Some(word) = body.get("source_type")
        && word.string()? != source_type_of(&before.source)
    {
        return Err(word.malformed("can be changed only together with 'source_code'"));
    }
    match (schema, description) {
        (Some(schema), description) => after.spec = schema.spec(description),
        (None, Some(description)) => after.spec.description = description,
        (None, None) => {}
    }
    let renamed = body.get("name").map(|name| name.string().map(str::to_owned)).transpose()?;
    if after.spec.name != before.spec.name || renamed.is_some_and(|name| name != before.spec.name) {
        let why = format!(
            "a tool keeps its name, by which agents, their rules and their histories know it: this one is '{}'. Make a \
             new tool and attach that",
            before.spec.name
        );
        return Err(body.unacceptable(&why));
    }
    after.options = OptionsPatch::parse(&body)?.apply(after.options);
    after.updated_at = now;
    Ok(after)
}

fn derived(code: &Node<'_>, description: Option<String>, derive: Derive<'_>) -> Result<ToolSpec, BodyError> {
    let mut spec = derive(code.string()?).map_err(|why| code.unacceptable(&why))?;
    if !tool::is_name(&spec.name) {
        return Err(bad_name(code, &spec.name));
    }
    spec.description = description.unwrap_or(spec.description);
    Ok(spec)
}

fn bad_name(node: &Node<'_>, name: &str) -> BodyError {
    let shown: String = name.chars().take(tool::NAME_CHARS).collect();
    node.unacceptable(&format!(
        "'{shown}' cannot be a tool's name: model providers take 1 to 64 letters, digits, '_' and '-'"
    ))
}

/// `json_schema`
struct Schema {
    name: String,
    description: Option<String>,
    parameters: Value,
}

impl Schema {
    /// What a model is told; a description beside the schema counts where the schema has none.
    fn spec(self, description: Option<String>) -> ToolSpec {
        let description = self.description.or(description).unwrap_or_default();
        ToolSpec { name: self.name, description, parameters: self.parameters }
    }
}

fn read_schema(node: &Node<'_>) -> Result<Schema, BodyError> {
    node.object()?;
    let name = node.required("name")?;
    if !tool::is_name(name.string()?) {
        return Err(bad_name(&name, name.string()?));
    }
    let mut schema = Schema {
        name: name.string()?.to_owned(),
        description: node.optional_string("description")?,
        parameters: json!({"type": "object", "properties": {}}),
    };
    if let Some(parameters) = node.get("parameters") {
        parameters.object()?;
        parameters.required("type")?.one_of(&["object"])?;
        if let Some(properties) = parameters.get("properties") {
            properties.object()?;
        }
        if let Some(required) = parameters.get("required") {
            required.strings()?;
        }
        schema.parameters = parameters.value().clone();
    }
    Ok(schema)
}

fn read_source(
    body: &Node<'_>,
    code: &Node<'_>,
    default_type: &str,
    has_schema: bool,
) -> Result<ToolSource, BodyError> {
    if code.string()?.trim().is_empty() {
        return Err(code.malformed("must not be empty"));
    }
    let given = body.get("source_type");
    let word = given.as_ref().map_or(Ok(default_type), |word| word.one_of(&["python", "http", "typescript"]))?;
    if word != DEFAULT_SOURCE_TYPE && !has_schema {
        body.required("json_schema")?;
    }
    match word {
        DEFAULT_SOURCE_TYPE => Ok(ToolSource::Python { code: code.string()?.to_owned() }),
        "http" => {
            let endpoint = http_endpoint::parse(code.string()?).map_err(|why| code.malformed(&why))?;
            Ok(ToolSource::Http(endpoint))
        }
        _ => Err(given.as_ref().unwrap_or(code).unacceptable(
            "this is not run here: write the tool in Python, or let it be called over HTTP ('http') or MCP",
        )),
    }
}

const fn source_type_of(source: &ToolSource) -> &'static str {
    match source {
        ToolSource::Builtin { .. } | ToolSource::Python { .. } => DEFAULT_SOURCE_TYPE,
        ToolSource::Http(_) => "http",
        ToolSource::Mcp { .. } => "mcp",
    }
}

/// What a body says about options.
#[derive(Debug, Clone, PartialEq, Default)]
struct OptionsPatch {
    tags: Option<Vec<String>>,
    return_char_limit: Option<u64>,
    default_requires_approval: Option<bool>,
    is_parallel: Option<bool>,
    is_repeatable: Option<bool>,
    timeout_ms: Option<u64>,
    other: Map<String, Value>,
}

impl OptionsPatch {
    fn parse(body: &Node<'_>) -> Result<Self, BodyError> {
        let boolean = |node: &Node<'_>, name: &str| node.get(name).map(|value| value.boolean()).transpose();
        let mut other = Map::new();
        for name in ["pip_requirements", "npm_requirements"] {
            let Some(list) = body.get(name) else { continue };
            for item in list.items()? {
                item.object()?;
                item.required_string("name")?;
                item.optional_string("version")?;
            }
            other.insert(name.to_owned(), list.value().clone());
        }
        if let Some(schema) = body.get("args_json_schema") {
            schema.object()?;
            other.insert("args_json_schema".to_owned(), schema.value().clone());
        }
        let mut is_repeatable = boolean(body, SAFE_TO_REPEAT)?;
        if let Some(metadata) = body.get("metadata_").or_else(|| body.get("metadata")) {
            metadata.object()?;
            is_repeatable = is_repeatable.or(boolean(&metadata, SAFE_TO_REPEAT)?);
            other.insert("metadata_".to_owned(), metadata.value().clone());
        }
        let limit = body.get("return_char_limit");
        let return_char_limit = limit.as_ref().map(|limit| limit.at_least(1)).transpose()?;
        if let Some(limit) = limit
            && return_char_limit > Some(MOST_RETURN_CHARS)
        {
            return Err(limit.malformed(&format!("must be at most {MOST_RETURN_CHARS}")));
        }
        Ok(Self {
            tags: body.get("tags").map(|tags| tags.strings()).transpose()?,
            return_char_limit,
            default_requires_approval: boolean(body, "default_requires_approval")?,
            is_parallel: boolean(body, "enable_parallel_execution")?,
            is_repeatable,
            timeout_ms: body.get("timeout_ms").map(|timeout| timeout.at_least(1)).transpose()?,
            other,
        })
    }

    fn apply(self, before: ToolOptions) -> ToolOptions {
        let mut other = before.other;
        other.extend(self.other);
        let is_repeatable = self.is_repeatable.unwrap_or(before.is_repeatable);
        // Said in two places, it must not say two things.
        if let Some(word) = other.get_mut("metadata_").and_then(|metadata| metadata.get_mut(SAFE_TO_REPEAT)) {
            *word = Value::Bool(is_repeatable);
        }
        ToolOptions {
            tags: self.tags.unwrap_or(before.tags),
            return_char_limit: self.return_char_limit.unwrap_or(before.return_char_limit),
            default_requires_approval: self.default_requires_approval.or(before.default_requires_approval),
            is_parallel: self.is_parallel.unwrap_or(before.is_parallel),
            is_repeatable,
            timeout_ms: self.timeout_ms.or(before.timeout_ms),
            other,
        }
    }
}

/// The kinds that a list is to show: those asked for without those that are not wanted, and of them only the server's own
/// if so; `None` means all. Each word may hold several, separated by commas.
///
/// # Errors
/// A word is no kind of tool.
pub fn filter_types<'a>(
    wanted: impl Iterator<Item = &'a str>,
    unwanted: impl Iterator<Item = &'a str>,
    only_own: bool,
) -> Result<Option<Vec<String>>, BodyError> {
    let (wanted, unwanted) = (split_types("tool_types", wanted)?, split_types("exclude_tool_types", unwanted)?);
    if wanted.is_empty() && unwanted.is_empty() && !only_own {
        return Ok(None);
    }
    let is_shown = |word: &&str| {
        (wanted.is_empty() || wanted.contains(word))
            && !unwanted.contains(word)
            && (!only_own || word.starts_with("letta_"))
    };
    Ok(Some(TOOL_TYPES.into_iter().filter(is_shown).map(str::to_owned).collect()))
}

fn split_types<'a>(name: &str, lists: impl Iterator<Item = &'a str>) -> Result<Vec<&'a str>, BodyError> {
    let words = lists.flat_map(|list| list.split(',')).map(str::trim).filter(|word| !word.is_empty());
    let known = |word: &'a str| {
        if TOOL_TYPES.contains(&word) {
            return Ok(word);
        }
        let shown: String = word.chars().take(64).collect();
        let all = TOOL_TYPES.join(", ");
        let text = format!("INVALID_ARGUMENT: query.{name}: '{shown}' is no kind of tool; there are: {all}");
        Err(BodyError::Unacceptable(text))
    };
    words.map(known).collect()
}

/// A body that says whether a tool's calls wait for the client. Nothing else may stand in it. The TypeScript SDK sends the
/// name of its own argument.
///
/// # Errors
/// The form is wrong.
pub fn parse_approval(body: &Value) -> Result<Option<bool>, BodyError> {
    const NAMES: [&str; 2] = ["requires_approval", "body_requires_approval"];
    let body = Node::body(body)?;
    if let Some((_, stranger)) = body.fields()?.into_iter().find(|(name, _)| !NAMES.contains(name)) {
        return Err(stranger.malformed("is not known here, only 'requires_approval' is"));
    }
    NAMES.into_iter().find_map(|name| body.get(name)).map(|is_required| is_required.boolean()).transpose()
}

/// Body of a call of a tool: its arguments, as JSON text.
///
/// # Errors
/// The form is wrong.
pub fn parse_run(body: &Value) -> Result<String, BodyError> {
    let body = Node::body(body)?;
    let Some(arguments) = body.get("args") else { return Ok("{}".to_owned()) };
    arguments.object()?;
    Ok(arguments.value().to_string())
}

/// `ToolExecutionResult`: what failed has its text among the lines of standard error.
#[must_use]
pub fn execution_result(tool_return: &ToolReturn) -> Value {
    let has_failed = tool_return.status == ToolStatus::Error;
    let mut stderr = tool_return.stderr.clone().unwrap_or_default();
    if has_failed {
        stderr.push(tool_return.text.clone());
    }
    json!({
        "status": tool_return.status,
        "func_return": (!has_failed).then_some(&tool_return.text),
        "stdout": tool_return.stdout.as_deref().unwrap_or_default(),
        "stderr": stderr,
        "agent_state": null,
        "sandbox_config_fingerprint": null,
    })
}

/// `Tool`
#[must_use]
pub fn object(tool: &Tool) -> Value {
    let source_code = match &tool.source {
        ToolSource::Builtin { .. } | ToolSource::Mcp { .. } => None,
        ToolSource::Python { code } => Some(code.clone()),
        ToolSource::Http(endpoint) => serde_json::to_string(endpoint).ok(),
    };
    let options = &tool.options;
    let other = |name: &str| options.other.get(name).cloned().unwrap_or(Value::Null);
    json!({
        "id": tool.id,
        "tool_type": tool.source.tool_type(),
        "name": tool.spec.name,
        "description": tool.spec.description,
        "source_type": source_type_of(&tool.source),
        "source_code": source_code,
        "json_schema": {
            "name": tool.spec.name,
            "description": tool.spec.description,
            "parameters": tool.spec.parameters,
        },
        "args_json_schema": other("args_json_schema"),
        "tags": options.tags,
        "return_char_limit": options.return_char_limit,
        "pip_requirements": other("pip_requirements"),
        "npm_requirements": other("npm_requirements"),
        "default_requires_approval": options.default_requires_approval,
        "enable_parallel_execution": options.is_parallel,
        "safe_to_repeat": options.is_repeatable,
        "timeout_ms": options.timeout_ms,
        "created_by_id": null,
        "last_updated_by_id": null,
        "metadata_": options.other.get("metadata_").cloned().unwrap_or_else(|| Value::Object(Map::new())),
        "project_id": null,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_source(_: &str) -> Result<ToolSpec, String> {
        Err("give json_schema".to_owned())
    }

    /// Takes the first line for the name and the second one for the description.
    fn first_lines(source: &str) -> Result<ToolSpec, String> {
        let mut lines = source.lines();
        let mut line = || lines.next().unwrap_or_default().to_owned();
        Ok(ToolSpec { name: line(), description: line(), parameters: json!({"type": "object", "properties": {}}) })
    }

    fn time(hour: u8) -> Timestamp {
        format!("2026-01-15T{hour:02}:00:00Z").parse().expect("a time")
    }

    fn id() -> ToolId {
        "tool-123e4567-e89b-42d3-8456-426614174000".parse().expect("an id")
    }

    fn with(own: Value) -> Value {
        let mut body = json!({"source_code": "def f(): ...", "json_schema": {"name": "f", "description": "d"}});
        body.as_object_mut().expect("an object").extend(own.as_object().cloned().expect("an object"));
        body
    }

    fn create(body: &Value) -> Tool {
        CreateTool::parse(body, &no_source).expect("a valid body").tool(id(), None, time(9))
    }

    #[test]
    fn a_tool_is_shown_as_it_was_made() {
        let parameters = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
        let own = json!({
            "source_code": "def get_weather(city): ...",
            "json_schema": {"name": "get_weather", "description": "Weather.", "parameters": parameters},
            "tags": ["t"],
            "return_char_limit": 100,
            "pip_requirements": [{"name": "requests", "version": null}],
            "default_requires_approval": true,
            "enable_parallel_execution": true,
            "args_json_schema": {"a": 1},
            "safe_to_repeat": true,
            "timeout_ms": 1500,
        });
        let shown = object(&create(&own));
        for (name, value) in own.as_object().expect("an object") {
            assert_eq!(&shown[name], value, "{name}");
        }
        assert_eq!((&shown["tool_type"], &shown["source_type"]), (&json!("custom"), &json!("python")));
        assert_eq!((&shown["name"], &shown["description"]), (&json!("get_weather"), &json!("Weather.")));
    }

    #[test]
    fn defaults_are_those_of_the_contract() {
        let shown = object(&create(&with(json!({}))));
        for (name, expected) in [
            ("return_char_limit", json!(50_000)),
            ("tags", json!([])),
            ("default_requires_approval", json!(null)),
            ("enable_parallel_execution", json!(false)),
            ("safe_to_repeat", json!(false)),
            ("timeout_ms", json!(null)),
            ("metadata_", json!({})),
            ("pip_requirements", json!(null)),
        ] {
            assert_eq!(shown[name], expected, "{name}");
        }
        assert_eq!(shown["json_schema"]["parameters"], json!({"type": "object", "properties": {}}));
    }

    #[test]
    fn without_a_schema_python_source_tells_its_own() {
        let body = json!({"source_code": "name_of_it\nwhat it is for"});
        let spec = CreateTool::parse(&body, &first_lines).expect("derived").spec;
        assert_eq!((spec.name.as_str(), spec.description.as_str()), ("name_of_it", "what it is for"));
        let body = json!({"source_code": "name_of_it\nwhat it is for", "description": "said"});
        assert_eq!(CreateTool::parse(&body, &first_lines).expect("derived").spec.description, "said");
        let refused = CreateTool::parse(&body, &no_source).expect_err("refused").to_string();
        assert_eq!(refused, "INVALID_ARGUMENT: body.source_code: give json_schema");
    }

    #[test]
    fn an_http_tool_is_a_url_or_tells_more() {
        let endpoint = |code: &str| {
            let tool = create(&with(json!({"source_type": "http", "source_code": code})));
            match tool.source {
                ToolSource::Http(endpoint) => endpoint,
                other => panic!("{other:?}"),
            }
        };
        let plain = endpoint("http://127.0.0.1:80/x");
        assert_eq!((plain.method.as_str(), plain.headers.len()), ("POST", 0));
        let whole = r#"{"url": "https://a.example", "method": "get", "headers": {"X-Key": "${KEY}"}}"#;
        let whole = endpoint(whole);
        assert_eq!((whole.url.as_str(), whole.method.as_str()), ("https://a.example", "GET"));
        assert_eq!(whole.headers["X-Key"], "${KEY}");
        // What is shown can be sent again.
        assert_eq!(endpoint(&serde_json::to_string(&whole).expect("JSON")), whole);
    }

    #[test]
    fn refusals_name_the_field() {
        let http = |code: &str| with(json!({"source_type": "http", "source_code": code}));
        let schema = |schema: Value| with(json!({"json_schema": schema}));
        let parameters = |parameters: Value| schema(json!({"name": "f", "parameters": parameters}));
        for (body, is_malformed, path) in [
            (json!({}), true, "body.source_code: "),
            (json!({"source_code": " "}), true, "body.source_code: "),
            (with(json!({"source_type": "cobol"})), true, "body.source_type: "),
            (with(json!({"source_type": "typescript"})), false, "body.source_type: "),
            (json!({"source_code": "x", "source_type": "typescript"}), true, "body.json_schema: "),
            (json!({"source_code": "http://a", "source_type": "http"}), true, "body.json_schema: "),
            (json!({"source_code": "a name\n"}), false, "body.source_code: "),
            (http("a.example"), true, "body.source_code: "),
            (http(r#"{"url": 1}"#), true, "body.source_code: "),
            (http(r#"{"url": "http://a", "#), true, "body.source_code: "),
            (http(r#"{"url": "http://a", "method": "TRACE"}"#), true, "body.source_code: "),
            (http(r#"{"url": "http://a", "headers": {"a b": "c"}}"#), true, "body.source_code: "),
            (http(r#"{"url": "http://a", "headers": {"a": 1}}"#), true, "body.source_code: "),
            (schema(json!("x")), true, "body.json_schema: "),
            (schema(json!({})), true, "body.json_schema.name: "),
            (schema(json!({"name": "a b"})), false, "body.json_schema.name: "),
            (schema(json!({"name": "memory_insert"})), false, "body.json_schema: "),
            (parameters(json!([])), true, "body.json_schema.parameters: "),
            (parameters(json!({})), true, "body.json_schema.parameters.type: "),
            (parameters(json!({"type": "array"})), true, "body.json_schema.parameters.type: "),
            (parameters(json!({"type": "object", "properties": 1})), true, "body.json_schema.parameters.properties: "),
            (with(json!({"return_char_limit": 0})), true, "body.return_char_limit: "),
            (with(json!({"return_char_limit": 1_000_001})), true, "body.return_char_limit: "),
            (with(json!({"pip_requirements": [{"version": "1"}]})), true, "body.pip_requirements[0].name: "),
            (with(json!({"npm_requirements": ["x"]})), true, "body.npm_requirements[0]: "),
            (with(json!({"timeout_ms": 0})), true, "body.timeout_ms: "),
            (with(json!({"safe_to_repeat": 1})), true, "body.safe_to_repeat: "),
            (with(json!({"metadata": {"safe_to_repeat": 1}})), true, "body.metadata.safe_to_repeat: "),
            (with(json!({"tags": "x"})), true, "body.tags: "),
        ] {
            let error = CreateTool::parse(&body, &first_lines).expect_err("refused");
            let is_as_expected = matches!(error, BodyError::Malformed(_)) == is_malformed;
            assert!(is_as_expected && error.to_string().contains(path), "{body}: {error:?}");
        }
    }

    #[test]
    fn a_tool_put_in_the_place_of_another_keeps_what_it_does_not_say() {
        let before = create(&with(json!({"tags": ["t"], "safe_to_repeat": true, "timeout_ms": 5})));
        let again = CreateTool::parse(&with(json!({"tags": [], "source_code": "new"})), &no_source);
        let after = again.expect("a valid body").tool(id(), Some(&before), time(10));
        assert_eq!((after.options.tags.len(), after.options.timeout_ms), (0, Some(5)));
        assert!(after.options.is_repeatable);
        assert_eq!(after.source, ToolSource::Python { code: "new".to_owned() });
    }

    #[test]
    fn safe_to_repeat_is_said_in_one_voice() {
        let tool = create(&with(json!({"metadata": {"safe_to_repeat": true, "team": "x"}})));
        assert!(tool.options.is_repeatable);
        let tool = changed(&tool, &json!({"safe_to_repeat": false}), &no_source, time(10)).expect("changed");
        assert_eq!(object(&tool)["metadata_"], json!({"safe_to_repeat": false, "team": "x"}));
        let again = json!({"metadata_": {"safe_to_repeat": true}});
        let tool = changed(&tool, &again, &no_source, time(10)).expect("changed");
        assert_eq!(
            (&object(&tool)["safe_to_repeat"], &object(&tool)["metadata_"]),
            (&json!(true), &again["metadata_"])
        );
    }

    #[test]
    fn a_change_leaves_what_it_does_not_name() {
        let before = create(&with(json!({"tags": ["t"]})));
        let change = |body: Value| changed(&before, &body, &first_lines, time(10)).expect("changed");
        let after = change(json!({"description": "new", "tags": null}));
        assert_eq!((after.spec.description.as_str(), &after.options), ("new", &before.options));
        assert_eq!((after.created_at, after.updated_at), (time(9), time(10)));
        let after = change(json!({"source_code": "f\nderived"}));
        assert_eq!(after.spec.description, "derived", "source brings its schema");
        let after = change(json!({"source_code": "http://a", "source_type": "http"}));
        assert_eq!((&after.spec, after.source.tool_type()), (&before.spec, CUSTOM));
        assert!(matches!(after.source, ToolSource::Http(_)));
        let after = change(json!({"json_schema": {"name": "f"}, "description": "beside"}));
        assert_eq!(after.spec.description, "beside");
    }

    #[test]
    fn a_tool_keeps_its_name() {
        let before = create(&with(json!({})));
        for body in [json!({"json_schema": {"name": "g"}}), json!({"source_code": "g"}), json!({"name": "g"})] {
            let error = changed(&before, &body, &first_lines, time(10)).expect_err("refused");
            assert!(matches!(&error, BodyError::Unacceptable(text) if text.contains("keeps its name")), "{error}");
        }
        assert!(changed(&before, &json!({"name": "f"}), &first_lines, time(10)).is_ok());
        let refused = changed(&before, &json!({"source_type": "http"}), &first_lines, time(10));
        assert!(matches!(refused, Err(BodyError::Malformed(_))), "{refused:?}");
    }

    #[test]
    fn kinds_are_filtered_by_words_and_lists_of_words() {
        let filter = |wanted: &[&str], unwanted: &[&str], only_own| {
            filter_types(wanted.iter().copied(), unwanted.iter().copied(), only_own)
        };
        let words = |words: &[&str]| Ok(Some(words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>()));
        assert_eq!(filter(&[], &[], false), Ok(None));
        assert_eq!(
            filter(&["custom, external_mcp", "letta_core"], &["external_mcp"], false),
            words(&["custom", "letta_core"])
        );
        assert_eq!(filter(&["custom"], &[], true), words(&[]));
        let own = filter(&[], &[], true).expect("words").expect("some");
        assert!(own.contains(&"letta_core".to_owned()) && !own.contains(&CUSTOM.to_owned()));
        for refused in [filter(&["robot"], &[], false), filter(&[], &["custom,robot"], false)] {
            assert!(matches!(&refused, Err(BodyError::Unacceptable(text)) if text.contains("'robot'")), "{refused:?}");
        }
    }

    #[test]
    fn an_approval_says_one_thing() {
        assert_eq!(parse_approval(&json!({})), Ok(None));
        assert_eq!(parse_approval(&json!({"requires_approval": true})), Ok(Some(true)));
        assert_eq!(parse_approval(&json!({"body_requires_approval": false})), Ok(Some(false)));
        for body in [json!({"requires_approval": "yes"}), json!({"requires_approval": true, "other": null})] {
            assert!(matches!(parse_approval(&body), Err(BodyError::Malformed(_))), "{body}");
        }
    }
}
