//! Agents: the bodies of create and update, and the object (api/04 §1).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::domain::Timestamp;
use crate::domain::agent::{self, Agent, AgentSettings};
use crate::domain::builtin_tools;
use crate::domain::ids::{BlockId, MessageId, ToolId};
use crate::domain::message::{Message, MessageType};
use crate::domain::model::ModelHandle;
use crate::domain::secret::Secret;
use crate::domain::stop_reason::StopReason;
use crate::domain::tool::Tool;
use crate::domain::tool_rule::ToolRule;
use crate::wire::block::{self, NewBlock};
use crate::wire::message::{Shown, slices};
use crate::wire::model::{LlmOptions, ModelFacts, object};
use crate::wire::read::{BodyError, Node};
use crate::wire::request::{SendRequest, read_model_handle};
use crate::wire::{compaction, time, tool, tool_rule};

/// The base text of agents that bring none.
const DEFAULT_SYSTEM: &str = "\
You are an agent with a memory of your own that lasts from one conversation to the next.

Your memory blocks stand in full in your context. Each has a label, a description that says what it is for, a size \
limit in characters, and a value. Use what stands there without being asked to. When you learn something that should \
last, put it into the block that it fits with your memory tools, correct what turns out to be wrong, and keep every \
block short enough for its limit; a block that is marked as read-only is not yours to change. Earlier messages that are \
no longer in your context are not lost: search for them.

Work on a request by calling tools, one after the other, until it is done. As long as you call a tool, you get its \
result and another turn. Do not say what you are going to do: do it. When there is nothing left to do, answer the user \
without calling a tool; that ends your turn.";

/// The base text of agents that talk to the user by a tool (api/05 §9).
const LEGACY_SYSTEM: &str = "\
You are an agent with a memory of your own that lasts from one conversation to the next.

Your memory blocks stand in full in your context. Each has a label, a description that says what it is for, a size \
limit in characters, and a value. Use what stands there without being asked to, and keep it up to date with your memory \
tools. Earlier messages that are no longer in your context are not lost: search for them.

Every turn of yours is a call of a tool. The user sees only what you say with send_message. When you want another turn \
after a call, set its argument request_heartbeat to true; otherwise your work ends with the call until you hear from \
the user again.";

/// The kind of agents that do not say.
const DEFAULT_TYPE: &str = "letta_v1_agent";

/// The kinds of agents.
pub const AGENT_TYPES: [&str; 9] = [
    DEFAULT_TYPE,
    "memgpt_agent",
    "memgpt_v2_agent",
    "react_agent",
    "workflow_agent",
    "split_thread_agent",
    "sleeptime_agent",
    "voice_convo_agent",
    "voice_sleeptime_agent",
];

/// What a setting that is kept and shown as it was sent must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A boolean.
    Flag,
    /// A whole number.
    Number,
    /// A text.
    Text,
    /// A list of texts.
    Texts,
    /// An object.
    Object,
}

impl Form {
    fn check(self, node: &Node<'_>) -> Result<(), BodyError> {
        match self {
            Self::Flag => node.boolean().map(|_| ()),
            Self::Number => node.whole().map(|_| ()),
            Self::Text => node.string().map(|_| ()),
            Self::Texts => node.strings().map(|_| ()),
            Self::Object => node.object().map(|_| ()),
        }
    }
}

/// Settings that are kept and shown as they were sent.
pub const OTHER: [(&str, Form); 17] = [
    ("base_template_id", Form::Text),
    ("compaction_settings", Form::Object),
    ("embedding", Form::Text),
    ("embedding_config", Form::Object),
    ("enable_reasoner", Form::Flag),
    ("enable_sleeptime", Form::Flag),
    ("hidden", Form::Flag),
    ("identity_ids", Form::Texts),
    ("max_files_open", Form::Number),
    ("max_reasoning_tokens", Form::Number),
    ("max_tokens", Form::Number),
    ("parallel_tool_calls", Form::Flag),
    ("per_file_view_window_char_limit", Form::Number),
    ("project_id", Form::Text),
    ("reasoning", Form::Flag),
    ("response_format", Form::Object),
    ("template_id", Form::Text),
];

/// What of these the deprecated `llm_config` says as well.
const OF_LLM_CONFIG: [&str; 5] =
    ["enable_reasoner", "max_reasoning_tokens", "max_tokens", "parallel_tool_calls", "response_format"];

/// A new agent as its client wants it.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateAgent {
    /// Its name, if the client has one for it.
    pub name: Option<String>,
    /// Its model, if the client has one for it.
    pub model: Option<ModelHandle>,
    /// Its memory, as far as it is made with it.
    pub blocks: Vec<NewBlock>,
    /// Blocks that exist and are to be attached.
    pub block_ids: Vec<BlockId>,
    /// What is to stand in its history behind the system message.
    pub history: Option<SendRequest>,
    /// The tools that its client names.
    tools: WantedTools,
    /// Everything else; the model in here is only filled in by [`CreateAgent::settings`].
    patch: SettingsPatch,
    /// Whether the tools of its kind come with it.
    include_base_tools: bool,
    /// Whether the rules of those tools come with it; if the client does not say, its kind does.
    include_base_tool_rules: Option<bool>,
}

/// Tools as a body names them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WantedTools {
    /// By name.
    pub names: Vec<String>,
    /// By id.
    pub ids: Vec<ToolId>,
}

/// A change of an agent; what is absent stays.
#[derive(Debug, Clone, PartialEq)]
pub struct UpdateAgent {
    /// New name.
    pub name: Option<String>,
    /// New model.
    pub model: Option<ModelHandle>,
    /// New list of messages in context.
    pub message_ids: Option<Vec<MessageId>>,
    /// The blocks that are to be attached afterwards.
    pub block_ids: Option<Vec<BlockId>>,
    /// The tools that are to be attached afterwards.
    pub tools: Option<WantedTools>,
    /// Why its last run is said to have ended.
    pub last_stop_reason: Option<StopReason>,
    /// When its last run is said to have ended.
    pub last_run_completion: Option<Timestamp>,
    /// How long its last run is said to have taken, in milliseconds.
    pub last_run_duration_ms: Option<i64>,
    patch: SettingsPatch,
}

/// What both bodies can say about settings.
#[derive(Debug, Clone, PartialEq, Default)]
struct SettingsPatch {
    agent_type: Option<String>,
    system: Option<String>,
    model_settings: Option<Value>,
    /// Single fields of `model_settings`, where the body has no new ones.
    model_options: Map<String, Value>,
    context_window_limit: Option<u64>,
    tool_rules: Option<Vec<ToolRule>>,
    secrets: Option<BTreeMap<String, Secret>>,
    tags: Option<Vec<String>>,
    description: Option<String>,
    metadata: Option<Value>,
    timezone: Option<String>,
    message_buffer_autoclear: Option<bool>,
    other: Map<String, Value>,
}

impl CreateAgent {
    /// Reads a body.
    ///
    /// # Errors
    /// The form is wrong, or it names something that does not exist.
    pub fn parse(body: &Value) -> Result<Self, BodyError> {
        let body = Node::body(body)?;
        Ok(Self {
            name: read_name(&body)?,
            model: read_model(&body)?,
            blocks: block::read_new(&body)?,
            block_ids: body.get("block_ids").map_or_else(|| Ok(Vec::new()), |ids| read_ids(&ids))?,
            history: body.get("initial_message_sequence").map(|list| SendRequest::history(&list)).transpose()?,
            tools: read_tools(&body)?.unwrap_or_default(),
            include_base_tools: body.flag("include_base_tools", true)?,
            include_base_tool_rules: body.get("include_base_tool_rules").map(|rules| rules.boolean()).transpose()?,
            patch: SettingsPatch::parse(&body)?,
        })
    }

    fn agent_type(&self) -> &str {
        self.patch.agent_type.as_deref().unwrap_or(DEFAULT_TYPE)
    }

    /// The tools that it is to have: first those of its kind, unless they are not wanted, then those that its client names.
    #[must_use]
    pub fn tools(&self) -> WantedTools {
        let mut names = Vec::new();
        if self.include_base_tools {
            names.extend(builtin_tools::defaults(self.agent_type()).into_iter().map(str::to_owned));
        }
        names.extend(self.tools.names.iter().cloned());
        WantedTools { names, ids: self.tools.ids.clone() }
    }

    /// The settings of the new agent with its model and its tools.
    #[must_use]
    pub fn settings(&self, model: ModelHandle, tools: &[Tool]) -> AgentSettings {
        let mut settings = AgentSettings::new(self.agent_type(), default_system(self.agent_type()), model);
        self.patch.apply(&mut settings);
        for tool in tools {
            settings.attach(tool);
        }
        // Agents of the older kinds speak by a tool, so that a run of theirs would not end without its rule.
        if self.include_base_tool_rules.unwrap_or_else(|| self.agent_type() != DEFAULT_TYPE) {
            settings.add_base_tool_rules();
        }
        settings
    }
}

impl UpdateAgent {
    /// Reads a body.
    ///
    /// # Errors
    /// The form is wrong, or it names something that does not exist.
    pub fn parse(body: &Value) -> Result<Self, BodyError> {
        let body = Node::body(body)?;
        Ok(Self {
            name: read_name(&body)?,
            model: read_model(&body)?,
            message_ids: body.get("message_ids").map(|ids| read_ids(&ids)).transpose()?,
            block_ids: body.get("block_ids").map(|ids| read_ids(&ids)).transpose()?,
            tools: read_tools(&body)?,
            last_stop_reason: body.get("last_stop_reason").map(|word| read_stop_reason(&word)).transpose()?,
            last_run_completion: body.get("last_run_completion").map(|at| read_time(&at)).transpose()?,
            last_run_duration_ms: body.get("last_run_duration_ms").map(|length| read_duration(&length)).transpose()?,
            patch: SettingsPatch::parse(&body)?,
        })
    }

    /// The settings after the change; `tools` are those that are to be attached then, if the body says which.
    #[must_use]
    pub fn settings(&self, before: &AgentSettings, tools: Option<&[Tool]>) -> AgentSettings {
        let mut after = before.clone();
        self.patch.apply(&mut after);
        if let Some(model) = &self.model {
            after.model = model.clone();
        }
        if let Some(tools) = tools {
            // What stays attached brings no rule again, what is new does; then the order is the client's.
            let names: Vec<String> = tools.iter().map(|tool| tool.spec.name.clone()).collect();
            after.tools.retain(|name| names.contains(name));
            for tool in tools {
                after.attach(tool);
            }
            after.tools = names;
        }
        after
    }
}

impl SettingsPatch {
    fn parse(body: &Node<'_>) -> Result<Self, BodyError> {
        let agent_type = body.get("agent_type");
        if let Some(kind) = &agent_type
            && !AGENT_TYPES.contains(&kind.string()?)
        {
            return Err(kind.malformed("is not a kind of agent"));
        }
        let model_settings = body.get("model_settings");
        let metadata = body.get("metadata");
        for node in [&model_settings, &metadata].into_iter().flatten() {
            node.object()?;
        }
        let mut tool_rules = None;
        if let Some(rules) = body.get("tool_rules") {
            tool_rules = Some(rules.items()?.iter().map(tool_rule::read).collect::<Result<_, _>>()?);
        }
        compaction::check(body)?;
        let config = body.get("llm_config").filter(|_| !body.has("model"));
        let mut other = Map::new();
        for (name, form) in OTHER {
            let of_config = || config.as_ref().filter(|_| OF_LLM_CONFIG.contains(&name))?.get(name);
            let Some(given) = body.get(name).or_else(of_config) else { continue };
            form.check(&given)?;
            other.insert(name.to_owned(), given.value().clone());
        }
        let window = body.get("context_window_limit").or_else(|| config.as_ref()?.get("context_window"));
        Ok(Self {
            agent_type: agent_type.map(|kind| kind.string().map(str::to_owned)).transpose()?,
            system: body.optional_string("system")?,
            model_settings: model_settings.map(|settings| settings.value().clone()),
            model_options: config.as_ref().map(options_of_config).unwrap_or_default(),
            context_window_limit: window.map(|limit| limit.at_least(1)).transpose()?,
            tool_rules,
            secrets: read_secrets(body)?,
            tags: body.get("tags").map(|tags| tags.strings()).transpose()?,
            description: body.optional_string("description")?,
            metadata: metadata.map(|metadata| metadata.value().clone()),
            timezone: body.optional_string("timezone")?,
            message_buffer_autoclear: body
                .get("message_buffer_autoclear")
                .map(|autoclear| autoclear.boolean())
                .transpose()?,
            other,
        })
    }

    fn apply(&self, settings: &mut AgentSettings) {
        fn set<T: Clone>(target: &mut T, value: Option<&T>) {
            if let Some(value) = value {
                *target = value.clone();
            }
        }
        set(&mut settings.agent_type, self.agent_type.as_ref());
        set(&mut settings.system, self.system.as_ref());
        set(&mut settings.tool_rules, self.tool_rules.as_ref());
        set(&mut settings.secrets, self.secrets.as_ref());
        set(&mut settings.tags, self.tags.as_ref());
        set(&mut settings.timezone, self.timezone.as_ref());
        set(&mut settings.message_buffer_autoclear, self.message_buffer_autoclear.as_ref());
        let Self { model_settings, model_options, context_window_limit, description, metadata, .. } = self.clone();
        if model_settings.is_some() {
            settings.model_settings = model_settings;
        } else if !model_options.is_empty() {
            let mut merged = settings.model_settings.as_ref().and_then(Value::as_object).cloned().unwrap_or_default();
            merged.extend(model_options);
            settings.model_settings = Some(Value::Object(merged));
        }
        settings.context_window_limit = context_window_limit.or(settings.context_window_limit);
        settings.description = description.or_else(|| settings.description.take());
        settings.metadata = metadata.or_else(|| settings.metadata.take());
        settings.other.extend(self.other.clone());
    }
}

fn read_name(body: &Node<'_>) -> Result<Option<String>, BodyError> {
    let Some(node) = body.get("name") else { return Ok(None) };
    let name = node.string()?;
    let is_plain = |character: char| character.is_alphanumeric() || " -_'".contains(character);
    if name.trim().is_empty() || !name.chars().all(is_plain) {
        return Err(node.unacceptable("only letters, digits, spaces, '-', '_' and ' are allowed in a name"));
    }
    Ok(Some(name.to_owned()))
}

/// `model`, or what the deprecated `llm_config` says in its place.
fn read_model(body: &Node<'_>) -> Result<Option<ModelHandle>, BodyError> {
    if let Some(model) = body.get("model") {
        return read_model_handle(&model).map(Some);
    }
    let Some(config) = body.get("llm_config") else { return Ok(None) };
    config.object()?;
    if let Some(handle) = config.get("handle") {
        return read_model_handle(&handle).map(Some);
    }
    let model = config.required("model")?;
    let provider = match config.optional_string("provider_name")? {
        Some(provider) => provider,
        None => config.required_string("model_endpoint_type")?.to_owned(),
    };
    let handle = ModelHandle::parse(&format!("{provider}/{}", model.string()?));
    handle.map(Some).ok_or_else(|| model.malformed("must name a model"))
}

/// What `llm_config` says that stands in `model_settings` otherwise; values of a wrong kind say nothing, as in there.
fn options_of_config(config: &Node<'_>) -> Map<String, Value> {
    let mut options = Map::new();
    if let Some(temperature) = config.get("temperature") {
        options.insert("temperature".to_owned(), temperature.value().clone());
    }
    if let Some(effort) = config.get("reasoning_effort") {
        options.insert("reasoning".to_owned(), json!({"reasoning_effort": effort.value()}));
    }
    options
}

fn read_stop_reason(node: &Node<'_>) -> Result<StopReason, BodyError> {
    StopReason::parse(node.string()?).ok_or_else(|| node.malformed("is not a stop reason"))
}

fn read_duration(node: &Node<'_>) -> Result<i64, BodyError> {
    Ok(i64::try_from(node.at_least(0)?).unwrap_or(i64::MAX))
}

fn read_time(node: &Node<'_>) -> Result<Timestamp, BodyError> {
    time::parse(node.string()?).ok_or_else(|| node.malformed("must be a time in the form of ISO 8601"))
}

/// `tools` and `tool_ids`; `None` if the body has neither.
fn read_tools(body: &Node<'_>) -> Result<Option<WantedTools>, BodyError> {
    if !body.has("tools") && !body.has("tool_ids") {
        return Ok(None);
    }
    let ids = body.get("tool_ids").map_or_else(|| Ok(Vec::new()), |ids| read_ids(&ids))?;
    Ok(Some(WantedTools { names: body.string_list("tools")?, ids }))
}

/// `secrets`, and `tool_exec_environment_variables`, its former name; `None` if the body has neither.
fn read_secrets(body: &Node<'_>) -> Result<Option<BTreeMap<String, Secret>>, BodyError> {
    let mut secrets = None;
    for name in ["tool_exec_environment_variables", "secrets"] {
        let Some(given) = body.get(name) else { continue };
        let secrets = secrets.get_or_insert_with(BTreeMap::new);
        for (key, value) in given.fields()? {
            if !is_variable(key) {
                return Err(given.malformed("a name must be letters, digits and '_', and not begin with a digit"));
            }
            secrets.insert(key.to_owned(), Secret::new(value.string()?.to_owned()));
        }
    }
    Ok(secrets)
}

/// Whether a program can have an environment variable of this name: `^[A-Za-z_][A-Za-z0-9_]*$`.
fn is_variable(name: &str) -> bool {
    let begins = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    begins && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn read_ids<T>(list: &Node<'_>) -> Result<Vec<T>, BodyError>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    list.items()?.iter().map(Node::parsed).collect()
}

fn default_system(agent_type: &str) -> &'static str {
    if agent::talks_by_tool(agent_type) { LEGACY_SYSTEM } else { DEFAULT_SYSTEM }
}

/// `AgentState`; the model is described by what the catalogue knows of it.
#[must_use]
pub fn agent_state(agent: &Agent, model: &ModelFacts) -> Value {
    let settings = &agent.settings;
    let other = |name: &str| settings.other.get(name).cloned().unwrap_or(Value::Null);
    let other_or = |name: &str, default: Value| settings.other.get(name).cloned().unwrap_or(default);
    let memory = block::memory(&settings.agent_type, &agent.blocks);
    let secrets: Vec<Value> = settings.secrets.keys().map(|key| secret(agent, key)).collect();
    let tools: Vec<Value> = agent.tools.iter().map(tool::object).collect();
    let mut state = object(json!({
        "id": agent.id,
        "name": agent.name,
        "agent_type": settings.agent_type,
        "system": settings.system,
        "description": settings.description,
        "metadata": settings.metadata,
        "llm_config": model.llm_config(&llm_options(settings)),
        "embedding_config": other("embedding_config"),
        "model": settings.model,
        "embedding": other("embedding"),
        "model_settings": settings.model_settings,
        "compaction_settings": other("compaction_settings"),
        "response_format": other("response_format"),
        "blocks": memory["blocks"],
        "memory": memory,
        "tools": tools,
        "sources": [],
        "tags": settings.tags,
        "tool_rules": settings.tool_rules,
        "message_ids": agent.message_ids,
        "tool_exec_environment_variables": secrets.clone(),
        "secrets": secrets,
    }));
    state.extend(object(json!({
        "project_id": other("project_id"),
        "template_id": other("template_id"),
        "base_template_id": other("base_template_id"),
        "deployment_id": null,
        "entity_id": null,
        "identity_ids": other_or("identity_ids", json!([])),
        "identities": [],
        "pending_approval": agent.pending_approval.as_ref().map(|pending| request(&pending.request)),
        "message_buffer_autoclear": settings.message_buffer_autoclear,
        "enable_sleeptime": other("enable_sleeptime"),
        "multi_agent_group": null,
        "managed_group": null,
        "last_run_completion": agent.last_run_completion.map(time::elsewhere),
        "last_run_duration_ms": agent.last_run_duration_ms,
        "last_stop_reason": agent.last_stop_reason,
        "timezone": settings.timezone,
        "max_files_open": other_or("max_files_open", json!(5)),
        "per_file_view_window_char_limit": other_or("per_file_view_window_char_limit", json!(15_000)),
        "hidden": other("hidden"),
        "created_at": time::elsewhere(agent.created_at),
        "updated_at": time::elsewhere(agent.updated_at),
        "created_by_id": null,
        "last_updated_by_id": null,
    })));
    Value::Object(state)
}

/// `AgentEnvironmentVariable` without its value, which is never shown.
fn secret(agent: &Agent, key: &str) -> Value {
    json!({"agent_id": agent.id, "key": key, "value": ""})
}

/// The slice of a message that asks whether its calls may run.
fn request(message: &Message) -> Option<Value> {
    let asks = |slice: &Shown<'_>| slice.message_type == MessageType::ApprovalRequestMessage;
    let slice = slices(message, None).into_iter().find(asks)?;
    serde_json::to_value(slice).ok()
}

fn llm_options(settings: &AgentSettings) -> LlmOptions {
    let of_settings =
        |name: &str| settings.model_settings.as_ref()?.get(name).filter(|value| !value.is_null()).cloned();
    let of_other = |name: &str| settings.other.get(name).cloned();
    let reasoning = of_settings("reasoning").or_else(|| of_settings("thinking")).unwrap_or(Value::Null);
    let of_reasoning = |name: &str| reasoning.get(name).filter(|value| !value.is_null()).cloned();
    let effort = of_reasoning("reasoning_effort").or_else(|| of_settings("effort"));
    let is_on = match of_reasoning("type") {
        Some(kind) => Some(Value::Bool(kind != "disabled")),
        None => effort.as_ref().map(|effort| Value::Bool(effort != "none")),
    };
    LlmOptions {
        context_window_limit: settings.context_window_limit,
        temperature: of_settings("temperature"),
        max_tokens: of_settings("max_output_tokens").or_else(|| of_other("max_tokens")),
        parallel_tool_calls: of_settings("parallel_tool_calls").or_else(|| of_other("parallel_tool_calls")),
        response_format: of_settings("response_format").or_else(|| of_other("response_format")),
        enable_reasoner: is_on.or_else(|| of_other("reasoning")).or_else(|| of_other("enable_reasoner")),
        reasoning_effort: effort,
        max_reasoning_tokens: of_reasoning("budget_tokens")
            .or_else(|| of_reasoning("thinking_budget"))
            .or_else(|| of_other("max_reasoning_tokens")),
    }
}

/// Body of a reset of an agent's context (api/03 §7). The start messages that it can ask for are none: agents of every type
/// begin without messages here.
///
/// # Errors
/// It has not the form that it should have.
pub fn check_reset_body(body: &Value) -> Result<(), BodyError> {
    Node::body(body)?.flag("add_default_initial_messages", false).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::agent::PendingApproval;
    use crate::domain::message::{Answer, Body, Labels};
    use crate::domain::tool::ToolCall;
    use crate::domain::tool_rule::ToolRuleKind;
    use std::collections::BTreeSet;

    /// The fields of `AgentState`, in the order of the contract's sample.
    const FIELDS: &str = "id name agent_type system description metadata llm_config embedding_config model embedding \
        model_settings compaction_settings response_format memory blocks tools sources tags tool_rules message_ids \
        tool_exec_environment_variables secrets project_id template_id base_template_id deployment_id entity_id \
        identity_ids identities pending_approval message_buffer_autoclear enable_sleeptime multi_agent_group \
        managed_group last_run_completion last_run_duration_ms last_stop_reason timezone max_files_open \
        per_file_view_window_char_limit hidden created_at updated_at created_by_id last_updated_by_id";
    const BLOCK_FIELDS: &str = "id label value limit description read_only metadata hidden is_template template_name \
        template_id base_template_id deployment_id entity_id preserve_on_migration project_id created_by_id \
        last_updated_by_id tags";
    const TOOL_FIELDS: &str = "id tool_type name description source_type source_code json_schema args_json_schema tags \
        return_char_limit pip_requirements npm_requirements default_requires_approval enable_parallel_execution \
        created_by_id last_updated_by_id metadata_ project_id safe_to_repeat timeout_ms";
    const LLM_CONFIG_FIELDS: &str = "model model_endpoint_type model_endpoint context_window handle provider_name \
        provider_category put_inner_thoughts_in_kwargs temperature max_tokens enable_reasoner reasoning_effort \
        max_reasoning_tokens frequency_penalty parallel_tool_calls response_format";

    fn assert_fields(value: &Value, expected: &str) {
        let got: BTreeSet<&str> = value.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(got, expected.split_whitespace().collect());
    }

    fn sample(body: &Value) -> Agent {
        let wanted = CreateAgent::parse(body).expect("a valid body");
        let at: Timestamp = "2026-01-15T09:00:00Z".parse().expect("a time");
        let id = |prefix: &str| format!("{prefix}-123e4567-e89b-42d3-8456-426614174000");
        let block = |block: NewBlock| block.block(id("block").parse().expect("an id"), at);
        let tools: Vec<Tool> =
            wanted.tools().names.iter().filter_map(|name| builtin_tools::by_name(name)).cloned().collect();
        Agent {
            id: id("agent").parse().expect("an id"),
            name: "a".to_owned(),
            settings: wanted.settings(ModelHandle::demo(), &tools),
            blocks: wanted.blocks.into_iter().map(block).collect(),
            tools,
            pending_approval: None,
            message_ids: vec![id("message").parse().expect("an id")],
            last_stop_reason: None,
            last_run_completion: None,
            last_run_duration_ms: None,
            created_at: at,
            updated_at: at,
        }
    }

    #[test]
    fn an_agent_shows_exactly_the_fields_of_the_contract() {
        let agent = sample(&json!({"memory_blocks": [{"label": "human", "value": "Name: Alice"}]}));
        let state = agent_state(&agent, &ModelFacts::unknown(&agent.settings.model));
        assert_fields(&state, FIELDS);
        assert_fields(&state["llm_config"], LLM_CONFIG_FIELDS);
        assert_fields(&state["blocks"][0], BLOCK_FIELDS);
        assert_fields(&state["tools"][0], TOOL_FIELDS);
        assert_fields(&state["memory"], "agent_type blocks file_blocks prompt_template");
        assert_eq!(state["memory"]["blocks"], state["blocks"]);
        assert_eq!(state["created_at"], "2026-01-15T09:00:00.000000Z");
    }

    #[test]
    fn a_new_agent_gets_the_tools_of_its_kind_and_those_named() {
        let names = |body: Value| sample(&body).settings.tools;
        let base = builtin_tools::defaults(DEFAULT_TYPE);
        assert!(!base.is_empty());
        assert_eq!(names(json!({})), base);
        assert_eq!(names(json!({"include_base_tools": false})), [""; 0]);
        let one = base[0];
        assert_eq!(names(json!({"include_base_tools": false, "tools": [one, one]})), [one]);
        assert_eq!(names(json!({"tools": [one]})), base);
    }

    #[test]
    fn a_new_agent_is_told_how_its_kind_ends_a_turn() {
        let system = |body: Value| sample(&body).settings.system;
        assert!(system(json!({})).contains("without calling a tool"));
        assert!(system(json!({"agent_type": "memgpt_agent"})).contains("request_heartbeat"));
        assert_eq!(system(json!({"system": "Mine."})), "Mine.");
    }

    #[test]
    fn settings_without_effect_are_kept_and_shown() {
        let agent = sample(&json!({"hidden": true, "max_files_open": 9, "compaction_settings": {"mode": "all"}}));
        let state = agent_state(&agent, &ModelFacts::unknown(&agent.settings.model));
        assert_eq!((&state["hidden"], &state["max_files_open"]), (&json!(true), &json!(9)));
        assert_eq!(state["compaction_settings"], json!({"mode": "all"}));
    }

    #[test]
    fn secrets_are_kept_and_only_their_names_are_shown() {
        let agent = sample(&json!({
            "secrets": {"KEY": "hidden-value", "BOTH": "wins"},
            "tool_exec_environment_variables": {"OLD_1": "hidden-value", "BOTH": "loses"},
        }));
        let kept: Vec<_> = agent.settings.secrets.iter().map(|(key, value)| (key.as_str(), value.expose())).collect();
        assert_eq!(kept, [("BOTH", "wins"), ("KEY", "hidden-value"), ("OLD_1", "hidden-value")]);
        let state = agent_state(&agent, &ModelFacts::unknown(&agent.settings.model));
        assert!(!state.to_string().contains("hidden-value") && !format!("{agent:?}").contains("hidden-value"));
        let shown = |key: &str| json!({"agent_id": agent.id, "key": key, "value": ""});
        assert_eq!(state["secrets"], json!([shown("BOTH"), shown("KEY"), shown("OLD_1")]));
        assert_eq!(state["tool_exec_environment_variables"], state["secrets"]);
        let update = UpdateAgent::parse(&json!({"secrets": {"NEW": "x"}})).expect("a valid body");
        let after = update.settings(&agent.settings, None);
        assert_eq!(after.secrets.into_keys().collect::<Vec<_>>(), ["NEW"], "the names are replaced as a whole");
    }

    #[test]
    fn older_kinds_of_agents_get_the_base_rules_unless_they_are_not_wanted() {
        let rules = |body: Value| -> Vec<(String, ToolRuleKind)> {
            let rules = sample(&body).settings.tool_rules;
            rules.into_iter().map(|rule| (rule.tool_name, rule.kind)).collect()
        };
        let ends = |name: &str| (name.to_owned(), ToolRuleKind::ExitLoop);
        let goes_on = |name: &str| (name.to_owned(), ToolRuleKind::ContinueLoop);
        assert_eq!(rules(json!({})), []);
        assert_eq!(rules(json!({"include_base_tool_rules": false, "agent_type": "memgpt_agent"})), []);
        let wanted = rules(json!({"include_base_tool_rules": true}));
        assert_eq!(wanted, [goes_on("conversation_search"), goes_on("memory_insert"), goes_on("memory_replace")]);
        let older = rules(json!({"agent_type": "memgpt_v2_agent"}));
        assert_eq!(older.last(), Some(&ends("send_message")));
        assert!(rules(json!({"agent_type": "sleeptime_agent"})).contains(&ends("memory_finish_edits")));
    }

    #[test]
    fn an_agent_shows_what_waits_for_an_answer() {
        let mut agent = sample(&json!({}));
        let call = |id: &str| ToolCall::new(id, "delete_file", "{}");
        let answer = Answer { parts: Vec::new(), calls: vec![call("call_1"), call("call_2")], made_by: None };
        let request = Message {
            id: agent.message_ids[0],
            agent_id: agent.id,
            run_id: None,
            step_id: None,
            body: Body::ApprovalRequest(answer),
            labels: Labels::default(),
            created_at: agent.created_at,
        };
        agent.pending_approval = Some(PendingApproval { request, deadline: None });
        let shown = &agent_state(&agent, &ModelFacts::unknown(&agent.settings.model))["pending_approval"];
        assert_eq!(shown["message_type"], "approval_request_message");
        assert_eq!(
            (&shown["id"], &shown["tool_call"]["tool_call_id"]),
            (&json!(agent.message_ids[0]), &json!("call_1"))
        );
        assert_eq!(shown["tool_calls"].as_array().map(Vec::len), Some(2));
        assert_eq!(shown["date"], "2026-01-15T09:00:00+00:00");
    }

    #[test]
    fn refusals_name_the_field() {
        let block = |block: Value| json!({"memory_blocks": [block]});
        for (body, is_malformed, needle) in [
            (json!({"model": "gpt"}), true, "body.model: "),
            (json!({"name": "a/b"}), false, "body.name: "),
            (json!({"agent_type": "robot"}), true, "body.agent_type: "),
            (json!({"tools": [1]}), true, "body.tools[0]: "),
            (json!({"secrets": {"A B": "x"}}), true, "body.secrets: "),
            (json!({"secrets": {"1A": "x"}}), true, "body.secrets: "),
            (json!({"secrets": {"A": 1}}), true, "body.secrets.A: "),
            (json!({"tool_exec_environment_variables": []}), true, "body.tool_exec_environment_variables: "),
            (json!({"compaction_settings": "all"}), true, "body.compaction_settings: "),
            (json!({"compaction_settings": {"mode": "some"}}), true, "body.compaction_settings.mode: "),
            (
                json!({"compaction_settings": {"sliding_window_percentage": 1}}),
                true,
                "body.compaction_settings.sliding_window_percentage: ",
            ),
            (json!({"compaction_settings": {"clip_chars": 0}}), true, "body.compaction_settings.clip_chars: "),
            (json!({"compaction_settings": {"model": "gpt"}}), true, "body.compaction_settings.model: "),
            (json!({"include_base_tool_rules": 1}), true, "body.include_base_tool_rules: "),
            (json!({"tool_ids": ["x"]}), true, "body.tool_ids[0]: "),
            (json!({"block_ids": ["x"]}), true, "body.block_ids[0]: "),
            (json!({"hidden": "yes"}), true, "body.hidden: "),
            (json!({"max_tokens": 1.5}), true, "body.max_tokens: "),
            (json!({"identity_ids": "x"}), true, "body.identity_ids: "),
            (json!({"llm_config": {"handle": "a/b", "max_tokens": "1"}}), true, "body.llm_config.max_tokens: "),
            (json!({"initial_message_sequence": [{"role": "tool"}]}), true, "body.initial_message_sequence[0]"),
            (
                json!({"initial_message_sequence": [{"type": "approval", "approve": true, "approval_request_id": "x"}]}),
                true,
                "body.initial_message_sequence[0]",
            ),
            (json!({"tool_rules": [{}]}), true, "body.tool_rules[0].type: "),
            (block(json!({"value": "x"})), true, "body.memory_blocks[0].label: "),
            (block(json!({"label": "a"})), true, "body.memory_blocks[0].value: "),
            (block(json!({"label": "a", "value": "xyz", "limit": 2})), true, "body.memory_blocks[0].value: "),
        ] {
            let error = CreateAgent::parse(&body).expect_err("refused");
            let is_as_expected = matches!(error, BodyError::Malformed(_)) == is_malformed;
            assert!(is_as_expected && error.to_string().contains(needle), "{body}: {error:?}");
        }
    }

    #[test]
    fn the_older_ways_to_say_model_options_are_understood_and_shown() {
        let shown = |body: Value| {
            let agent = sample(&body);
            agent_state(&agent, &ModelFacts::unknown(&agent.settings.model))["llm_config"].clone()
        };
        let config = json!({
            "model": "m", "model_endpoint_type": "openai", "context_window": 9000, "temperature": 0.1, "max_tokens": 7,
            "reasoning_effort": "low", "max_reasoning_tokens": 5, "parallel_tool_calls": true,
        });
        let state = shown(json!({"llm_config": config}));
        for name in ["context_window", "temperature", "max_tokens", "reasoning_effort", "max_reasoning_tokens"] {
            assert_eq!(state[name], config[name], "{name}");
        }
        assert_eq!((&state["parallel_tool_calls"], &state["enable_reasoner"]), (&json!(true), &json!(true)));
        let state = shown(json!({"llm_config": config, "model": "a/b", "max_tokens": 8, "reasoning": true}));
        assert_eq!((&state["context_window"], &state["temperature"]), (&json!(128_000), &Value::Null));
        assert_eq!((&state["max_tokens"], &state["enable_reasoner"]), (&json!(8), &json!(true)));
        let settings = json!({"thinking": {"type": "enabled", "budget_tokens": 1024}});
        let state = shown(json!({"model_settings": settings, "max_reasoning_tokens": 1}));
        assert_eq!((&state["enable_reasoner"], &state["max_reasoning_tokens"]), (&json!(true), &json!(1024)));
    }

    #[test]
    fn an_update_says_what_the_last_run_came_to() {
        let update = |body: Value| UpdateAgent::parse(&body);
        let said = update(json!({
            "last_stop_reason": "end_turn", "last_run_completion": "2026-01-15T10:00:00+01:00",
            "last_run_duration_ms": 5.0,
        }));
        let said = said.expect("a valid body");
        assert_eq!((said.last_stop_reason, said.last_run_duration_ms), (Some(StopReason::EndTurn), Some(5)));
        assert_eq!(said.last_run_completion, "2026-01-15T09:00:00Z".parse().ok());
        let nothing = update(json!({"last_stop_reason": null})).expect("a valid body");
        assert_eq!((nothing.last_stop_reason, nothing.last_run_completion), (None, None));
        for (body, path) in [
            (json!({"last_stop_reason": "bored"}), "body.last_stop_reason: "),
            (json!({"last_run_completion": "today"}), "body.last_run_completion: "),
            (json!({"last_run_completion": "+200000-01-01T00:00:00Z"}), "body.last_run_completion: "),
            (json!({"last_run_duration_ms": 0.5}), "body.last_run_duration_ms: "),
            (json!({"last_run_duration_ms": -1}), "body.last_run_duration_ms: "),
        ] {
            let error = update(body).expect_err("refused");
            assert!(error.to_string().starts_with(path), "{error}");
        }
    }

    #[test]
    fn an_update_changes_what_it_names_and_replaces_lists() {
        let before = sample(&json!({"tags": ["a"], "description": "d"})).settings;
        let update = |body: Value, tools| UpdateAgent::parse(&body).expect("a valid body").settings(&before, tools);
        assert_eq!(update(json!({"tags": null, "name": "n"}), None), before);
        let after = update(json!({"tags": ["b"], "model": "openai/x"}), Some(&[]));
        assert_eq!((after.tags, after.tools), (vec!["b".to_owned()], Vec::new()));
        assert_eq!((after.model.as_str(), after.description.as_deref()), ("openai/x", Some("d")));
    }

    #[test]
    fn a_tool_that_is_newly_attached_brings_its_rule_and_one_that_stays_does_not() {
        let tool = |name: &str| {
            let mut tool = builtin_tools::all()[0].clone();
            name.clone_into(&mut tool.spec.name);
            tool.options.default_requires_approval = Some(true);
            tool
        };
        let mut before = sample(&json!({"include_base_tools": false})).settings;
        before.tools = vec!["stays".to_owned(), "goes".to_owned()];
        let update = UpdateAgent::parse(&json!({"tools": ["new", "stays"], "tool_rules": []})).expect("a valid body");
        assert!(update.tools.is_some());
        let after = update.settings(&before, Some(&[tool("new"), tool("stays")]));
        assert_eq!(after.tools, ["new", "stays"]);
        assert_eq!(after.tool_rules, [ToolRule::requires_approval("new")]);
    }
}
