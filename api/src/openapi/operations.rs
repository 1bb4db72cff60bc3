//! The operations, in the order of the router.

use holdfast_shared::domain::ids::{AgentId, BlockId, ConversationId, Id, MessageId, RunId, StepId, ToolId};
use holdfast_shared::domain::message::MessageType;
use holdfast_shared::domain::run::RunStatus;
use holdfast_shared::domain::stop_reason::StopReason;
use holdfast_shared::wire::tool::TOOL_TYPES;
use serde_json::{Value, json};

use super::Operation;
use super::schema::{any_of, boolean, count, id, list, map, nothing, reference, string, time, whole, word, words};
use crate::extract::MOST_ROWS;
use crate::routes::agents::RELATIONS as AGENT_RELATIONS;
use crate::routes::runs::MOST_SPANS;

fn get(path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    Operation::new("get", path, id, summary)
}

fn post(path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    Operation::new("post", path, id, summary)
}

fn put(path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    Operation::new("put", path, id, summary)
}

fn patch(path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    Operation::new("patch", path, id, summary)
}

fn delete(path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    Operation::new("delete", path, id, summary)
}

/// A value of the query, or an empty one, which says nothing.
fn or_empty(schema: Value) -> Value {
    any_of([schema, json!({"const": ""})])
}

impl Operation {
    /// What chooses a page of a list of things with such ids.
    fn page<I: Id>(self, default: u32) -> Self {
        self.query("after", "Only what comes after this one in the order that is asked for", or_empty(id::<I>()))
            .query("before", "Only what comes before this one in the order that is asked for", or_empty(id::<I>()))
            .query("limit", &format!("At most so many; {default} if nothing is said"), or_empty(rows()))
            .query("order", "`asc`: oldest first; `desc`: newest first", or_empty(words(["asc", "desc"])))
    }

    /// The one order that a list has.
    fn by_creation(self) -> Self {
        self.query("order_by", "What the order is about", or_empty(word("created_at")))
    }

    fn flag(self, name: &str, description: &str) -> Self {
        self.query(name, description, or_empty(boolean()))
    }

    fn text(self, name: &str, description: &str) -> Self {
        self.query(name, description, string())
    }

    /// What all three ways to send refuse.
    fn sends(self) -> Self {
        self.takes("SendRequest").refuses(&[400, 404, 409, 410])
    }
}

fn lists(name: &str) -> Value {
    list(reference(name))
}

/// Every operation.
pub(super) fn all() -> Vec<Operation> {
    [health(), agents(), messages(), memory(), tools(), conversations(), blocks(), history(), runs()]
        .into_iter()
        .flatten()
        .collect()
}

fn health() -> Vec<Operation> {
    vec![
        get("/v1/health", "health", "Whether the process lives: always 200")
            .gives("It does", reference("Health"))
            .open(),
        get("/v1/ready", "ready", "Whether the service should get requests")
            .gives("It should", reference("Health"))
            .gives_with(503, "It should not", "application/json", json!({"schema": reference("Health")}))
            .open(),
        get("/v1/models", "listModels", "List models")
            .query("provider_category", "Only `base` models are there", list(string()))
            .text("provider_name", "Only those of this provider")
            .text("provider_type", "Only those of this kind of provider")
            .gives("Models", lists("Model")),
        get("/v1/models/embedding", "listEmbeddingModels", "List models for embeddings: there are none")
            .gives("None", list(json!({}))),
    ]
}

/// The relations of agents that can be asked for; all are always shown.
fn including(operation: Operation) -> Operation {
    let relations = AGENT_RELATIONS.map(|relation| format!("agent.{relation}"));
    let relations = words(relations.iter().map(String::as_str));
    operation.query("include", "Relations to show: all are shown anyway", list(or_empty(relations)))
}

/// What chooses agents.
fn choosing_agents(operation: Operation) -> Operation {
    let order = || or_empty(words(["created_at", "updated_at", "last_run_completion"]));
    let reasons = words(StopReason::ALL.map(StopReason::as_str));
    operation
        .query("order_by", "What the order is about", order())
        .query("sort_by", "Former name of `order_by`", order())
        .text("name", "Only those of exactly this name")
        .text("query_text", "Only those whose name has this text in it")
        .query("tags", "Only those with one of these tags", list(string()))
        .flag("match_all_tags", "Only those with all of these tags")
        .query("last_stop_reason", "Only those whose last run ended so", or_empty(reasons))
        .text("project_id", "Only those of this project")
        .text("template_id", "Only those of this template")
        .text("base_template_id", "Only those of this base template")
        .text("identity_id", "Only those with this identity")
}

fn agents() -> Vec<Operation> {
    vec![
        including(choosing_agents(get("/v1/agents", "listAgents", "List agents").page::<AgentId>(50)))
            .flag("ascending", "Oldest first")
            .gives("Agents", lists("AgentState")),
        choosing_agents(get("/v1/agents/count", "countAgents", "Count agents")).gives("How many", count()),
        post("/v1/agents", "createAgent", "Make an agent")
            .takes("CreateAgent")
            .refuses(&[400, 404, 409])
            .gives("The agent", reference("AgentState")),
        including(get("/v1/agents/{agent_id}", "retrieveAgent", "An agent"))
            .gives("The agent", reference("AgentState")),
        patch("/v1/agents/{agent_id}", "updateAgent", "Change an agent")
            .takes("UpdateAgent")
            .refuses(&[400, 409])
            .gives("The changed agent", reference("AgentState")),
        delete("/v1/agents/{agent_id}", "deleteAgent", "Delete an agent, and cancel its runs")
            .gives("It is gone", reference("Deleted")),
        post("/v1/agents/{agent_id}/recompile", "recompileAgent", "Compile an agent's system message anew")
            .flag("dry_run", "Only show it")
            .flag("update_timestamp", "Has no effect: it always tells the time of this compile")
            .gives("The system message", string()),
    ]
}

fn messages() -> Vec<Operation> {
    vec![
        get("/v1/agents/{agent_id}/messages", "listMessages", "List the messages of an agent")
            .page::<MessageId>(100)
            .query("include_return_message_types", "Only these kinds", list(or_empty(message_types())))
            .flag("use_assistant_message", "Show what legacy agents say by a tool as their messages")
            .text("assistant_message_tool_name", "That tool")
            .text("assistant_message_tool_kwarg", "Its argument that is shown")
            .query("conversation_id", "Only those of this conversation; `default`: of none", conversation())
            .gives("Messages, oldest first unless `order` says otherwise", lists("Message")),
        post("/v1/agents/{agent_id}/messages", "sendMessage", "Send, and get all that came of it or a stream")
            .sends()
            .refuses(&[429, 504])
            .gives("All that came of it, when the run has ended", reference("LettaResponse"))
            .streams(),
        post("/v1/agents/{agent_id}/messages/stream", "streamMessage", "Send, and follow the run").sends().streams(),
        post("/v1/agents/{agent_id}/messages/async", "sendMessageAsync", "Send, and get the run at once")
            .sends()
            .gives("The run", reference("Run")),
        compacts(post("/v1/agents/{agent_id}/summarize", "compactAgent", "Compact the context of an agent"))
            .may_take("CompactRequest"),
        patch("/v1/agents/{agent_id}/reset-messages", "resetMessages", "Empty the context of an agent")
            .may_take("ResetRequest")
            .refuses(&[409])
            .gives("The agent", reference("AgentState")),
        post("/v1/agents/{agent_id}/messages/cancel", "cancelRuns", "Cancel runs of an agent")
            .may_take("CancelRequest")
            .refuses(&[409])
            .gives("What became of each", reference("Cancelled")),
    ]
}

fn memory() -> Vec<Operation> {
    vec![
        get("/v1/agents/{agent_id}/core-memory", "retrieveMemory", "The memory of an agent")
            .gives("Its memory", reference("Memory")),
        get("/v1/agents/{agent_id}/core-memory/blocks", "listAgentBlocks", "List the blocks of an agent")
            .page::<BlockId>(100)
            .by_creation()
            .gives("Blocks", lists("Block")),
        get(
            "/v1/agents/{agent_id}/core-memory/blocks/{name}",
            "retrieveAgentBlock",
            "A block of an agent, by its label",
        )
        .gives("The block", reference("Block")),
        patch("/v1/agents/{agent_id}/core-memory/blocks/{name}", "updateAgentBlock", "Change a block of an agent")
            .takes("UpdateBlock")
            .refuses(&[409])
            .gives("The changed block", reference("Block")),
        patch(
            "/v1/agents/{agent_id}/core-memory/blocks/attach/{block_id}",
            "attachBlock",
            "Attach a block to an agent",
        )
        .refuses(&[409])
        .gives("The changed agent", reference("AgentState")),
        patch(
            "/v1/agents/{agent_id}/core-memory/blocks/detach/{block_id}",
            "detachBlock",
            "Detach a block from an agent",
        )
        .refuses(&[409])
        .gives("The changed agent", reference("AgentState")),
    ]
}

/// A conversation of the query.
fn conversation() -> Value {
    any_of([id::<ConversationId>(), json!({"enum": ["default", ""]})])
}

/// What compacts a context.
fn compacts(operation: Operation) -> Operation {
    operation.refuses(&[400, 404, 409, 429, 504]).gives("What came of it", reference("Compacted"))
}

fn conversations() -> Vec<Operation> {
    const BESIDE_DEFAULT: &str = "The agent, where the conversation is `default`";
    let orders = words(["created_at", "last_message_at", "last_run_completion"]);
    let agent = || or_empty(id::<AgentId>());
    vec![
        get("/v1/conversations", "listConversations", "List conversations")
            .page::<ConversationId>(50)
            .query("order_by", "What the order is about", or_empty(orders))
            .query("agent_id", "Only those of this agent", agent())
            .text("summary_search", "Only those whose summary has this text in it")
            .query("archive_status", "Which, if some are put away", or_empty(words(["unarchived", "archived", "all"])))
            .gives("Conversations", lists("Conversation")),
        post("/v1/conversations", "createConversation", "Make a conversation")
            .needs("agent_id", "Its agent", id::<AgentId>())
            .may_take("CreateConversation")
            .refuses(&[404])
            .gives("The conversation", reference("Conversation")),
        get("/v1/conversations/{conversation_id}", "retrieveConversation", "A conversation")
            .gives("The conversation", reference("Conversation")),
        patch("/v1/conversations/{conversation_id}", "updateConversation", "Change a conversation")
            .takes("UpdateConversation")
            .gives("The changed conversation", reference("Conversation")),
        delete(
            "/v1/conversations/{conversation_id}",
            "deleteConversation",
            "Delete a conversation, and cancel its runs",
        )
        .gives("It is gone", nothing()),
        get("/v1/conversations/{conversation_id}/messages", "listConversationMessages", "List its messages")
            .page::<MessageId>(100)
            .by_creation()
            .query("agent_id", BESIDE_DEFAULT, agent())
            .query("include_return_message_types", "Only these kinds", list(or_empty(message_types())))
            .flag("include_err", "Has no effect: messages of failed steps are not kept")
            .flag("use_assistant_message", "Show what legacy agents say by a tool as their messages")
            .text("assistant_message_tool_name", "That tool")
            .text("assistant_message_tool_kwarg", "Its argument that is shown")
            .gives("Messages", lists("Message")),
        post("/v1/conversations/{conversation_id}/messages", "sendConversationMessage", "Send, and follow the run")
            .takes("ConversationSendRequest")
            .refuses(&[400, 404, 409, 410, 429, 504])
            .gives("All that came of it, with `streaming` false", reference("LettaResponse"))
            .streams(),
        post("/v1/conversations/{conversation_id}/stream", "resumeConversation", "Follow one of its runs")
            .query("starting_after", "The number of the last event that was read", or_empty(whole()))
            .header("Last-Event-ID", "The same number, as an `EventSource` sends it", string())
            .may_take("ConversationResumeRequest")
            .refuses(&[400, 410])
            .streams(),
        post("/v1/conversations/{conversation_id}/cancel", "cancelConversation", "Cancel its runs")
            .query("agent_id", BESIDE_DEFAULT, agent())
            .refuses(&[409])
            .gives("What became of each", reference("Cancelled")),
        post(
            "/v1/conversations/{conversation_id}/fork",
            "forkConversation",
            "Make another that begins with its messages",
        )
        .query("agent_id", BESIDE_DEFAULT, agent())
        .query("message_id", "The last message that both share", or_empty(id::<MessageId>()))
        .flag("hidden", "Whether the new one is hidden")
        .gives("The new conversation", reference("Conversation")),
        post(
            "/v1/conversations/{conversation_id}/recompile",
            "recompileConversation",
            "Compile its system message anew",
        )
        .flag("dry_run", "Only show it")
        .may_take("OfAgent")
        .gives("The system message", string()),
        compacts(post("/v1/conversations/{conversation_id}/compact", "compactConversation", "Compact its context"))
            .may_take("ConversationCompactRequest"),
    ]
}

fn history() -> Vec<Operation> {
    let date = || or_empty(any_of([time(), json!({"type": "string", "format": "date"})]));
    vec![
        get("/v1/messages", "listAllMessages", "List the messages of all agents")
            .page::<MessageId>(100)
            .by_creation()
            .query("conversation_id", "Only those of this conversation; `default`: of none", conversation())
            .query("include_return_message_types", "Only these kinds", list(or_empty(message_types())))
            .refuses(&[404])
            .gives("Messages", lists("Message")),
        post("/v1/messages/search", "searchMessages", "Find messages that have all words of a query")
            .takes("SearchRequest")
            .refuses(&[404])
            .gives("What was found, the newest first", lists("FoundMessage")),
        get("/v1/messages/{message_id}", "retrieveMessage", "All that is shown of a message")
            .gives("Its parts", lists("Message")),
        get("/v1/steps", "listSteps", "List steps")
            .page::<StepId>(50)
            .by_creation()
            .query("agent_id", "Only those of this agent", or_empty(id::<AgentId>()))
            .text("model", "Only those that called this model")
            .query("start_date", "Only those that began then or later", date())
            .query("end_date", "Only those that began then or earlier", date())
            .query("feedback", "Only those with this feedback", or_empty(words(["positive", "negative"])))
            .flag("has_feedback", "Only those with any feedback, or only the others")
            .query("tags", "Only those with one of these tags", list(string()))
            .query("trace_ids", "Only those of one of these traces", list(string()))
            .text("project_id", "Only those of this project: there are none")
            .gives("Steps", lists("Step")),
        get("/v1/steps/{step_id}", "retrieveStep", "A step").gives("The step", reference("Step")),
        get("/v1/steps/{step_id}/messages", "listStepMessages", "List the messages of a step")
            .page::<MessageId>(100)
            .by_creation()
            .gives("Messages", lists("Message")),
        get("/v1/steps/{step_id}/metrics", "retrieveStepMetrics", "How long a step took")
            .gives("Its metrics", reference("StepMetrics")),
        get("/v1/steps/{step_id}/trace", "retrieveStepTrace", "What went to the provider: it is not kept")
            .gives("Nothing", nothing()),
        patch("/v1/steps/{step_id}/feedback", "rateStep", "Say whether a step was good, and tag it")
            .takes("StepFeedback")
            .gives("The step", reference("Step")),
    ]
}

fn blocks() -> Vec<Operation> {
    let choosing = |operation: Operation| {
        operation
            .text("label", "Only those with this label")
            .text("label_search", "Only those whose label has this text in it")
            .text("value_search", "Only those whose value has this text in it")
            .text("description_search", "Only those whose description has this text in it")
            .text("name", "Only those of this name as a template")
            .text("project_id", "Only those of this project")
            .flag("templates_only", "Only templates")
            .query("tags", "Only those with one of these tags", list(string()))
            .flag("match_all_tags", "Only those with all of these tags")
            .query("connected_to_agents_count_gt", "Only those of more agents", or_empty(whole()))
            .query("connected_to_agents_count_lt", "Only those of fewer agents", or_empty(whole()))
            .query(
                "connected_to_agents_count_eq",
                "Only those of one of these numbers of agents",
                list(or_empty(whole())),
            )
    };
    vec![
        choosing(get("/v1/blocks", "listBlocks", "List blocks").page::<BlockId>(50).by_creation())
            .gives("Blocks", lists("Block")),
        post("/v1/blocks", "createBlock", "Make a block").takes("NewBlock").gives("The block", reference("Block")),
        choosing(get("/v1/blocks/count", "countBlocks", "Count blocks")).gives("How many", count()),
        get("/v1/blocks/{block_id}", "retrieveBlock", "A block").gives("The block", reference("Block")),
        patch("/v1/blocks/{block_id}", "updateBlock", "Change a block")
            .takes("UpdateBlock")
            .refuses(&[409])
            .gives("The changed block", reference("Block")),
        delete("/v1/blocks/{block_id}", "deleteBlock", "Delete a block, and detach it from all agents")
            .gives("It is gone", nothing()),
        including(get("/v1/blocks/{block_id}/agents", "listBlockAgents", "List the agents of a block"))
            .page::<AgentId>(50)
            .by_creation()
            .flag("ascending", "Oldest first")
            .gives("Agents", lists("AgentState")),
        get("/v1/tags", "listTags", "List the tags of agents")
            .text("after", "Only what comes after this one")
            .text("before", "Only what comes before this one")
            .query("limit", "At most so many; 50 if nothing is said", or_empty(rows()))
            .query("order", "`asc` or `desc`, by name", or_empty(words(["asc", "desc"])))
            .query("order_by", "What the order is about", or_empty(word("name")))
            .text("name", "Only those with this text in them")
            .text("query_text", "Former name of `name`")
            .gives("Tags", list(string())),
    ]
}

fn message_types() -> Value {
    words(MessageType::ALL.map(MessageType::as_str))
}

/// How many rows can be asked for.
fn rows() -> Value {
    json!({"type": "integer", "minimum": 1, "maximum": MOST_ROWS})
}

fn tools() -> Vec<Operation> {
    let filtered = |operation: Operation| {
        let types = || list(or_empty(words(TOOL_TYPES)));
        operation
            .text("name", "Only those of exactly this name")
            .query("names", "Only those of these names", list(string()))
            .query("tool_ids", "Only these", list(or_empty(id::<ToolId>())))
            .text("search", "Only those whose name has this text in it")
            .query("tool_types", "Only these kinds", types())
            .query("exclude_tool_types", "None of these kinds", types())
            .flag("return_only_letta_tools", "Only those that the server brings along")
            .refuses(&[400])
    };
    vec![
        get("/v1/agents/{agent_id}/tools", "listAgentTools", "List the tools of an agent")
            .page::<ToolId>(10)
            .by_creation()
            .gives("Tools", lists("Tool")),
        patch("/v1/agents/{agent_id}/tools/attach/{tool_id}", "attachTool", "Attach a tool to an agent")
            .gives("The changed agent", reference("AgentState")),
        patch("/v1/agents/{agent_id}/tools/detach/{tool_id}", "detachTool", "Detach a tool from an agent")
            .gives("The changed agent", reference("AgentState")),
        patch("/v1/agents/{agent_id}/tools/approval/{name}", "setToolApproval", "Say whether calls of a tool wait")
            .flag("requires_approval", "The same as in the body, which wins")
            .may_take("ToolApproval")
            .gives("The changed agent", reference("AgentState")),
        post("/v1/agents/{agent_id}/tools/{name}/run", "runTool", "Call a tool of an agent")
            .may_take("RunTool")
            .refuses(&[400, 409, 429, 504])
            .gives("What came of it", reference("ToolExecutionResult")),
        filtered(get("/v1/tools", "listTools", "List tools").page::<ToolId>(50).by_creation())
            .gives("Tools", lists("Tool")),
        post("/v1/tools", "createTool", "Make a tool, or replace the one of its name")
            .takes("CreateTool")
            .refuses(&[400])
            .gives("The tool", reference("Tool")),
        put("/v1/tools", "upsertTool", "Make a tool, or replace the one of its name")
            .takes("CreateTool")
            .refuses(&[400])
            .gives("The tool", reference("Tool")),
        filtered(get("/v1/tools/count", "countTools", "Count tools")).gives("How many", count()),
        get("/v1/tools/{tool_id}", "retrieveTool", "A tool").gives("The tool", reference("Tool")),
        patch("/v1/tools/{tool_id}", "updateTool", "Change a tool")
            .takes("UpdateTool")
            .refuses(&[400])
            .gives("The changed tool", reference("Tool")),
        delete("/v1/tools/{tool_id}", "deleteTool", "Delete a tool, and detach it from all agents")
            .refuses(&[400])
            .gives("It is gone", nothing()),
    ]
}

fn runs() -> Vec<Operation> {
    let resumes = |operation: Operation| {
        operation
            .query("starting_after", "The number of the last event that was read", or_empty(whole()))
            .flag("include_pings", "Whether silence is filled by pings rather than comments")
            .header("Last-Event-ID", "The same number, as an `EventSource` sends it", string())
            .may_take("ResumeRequest")
            .refuses(&[400, 410])
            .streams()
    };
    vec![
        get("/v1/runs", "listRuns", "List runs")
            .page::<RunId>(100)
            .by_creation()
            .flag("ascending", "Oldest first")
            .query("agent_id", "Only those of this agent", or_empty(id::<AgentId>()))
            .query("agent_ids", "Only those of these agents", list(or_empty(id::<AgentId>())))
            .query(
                "statuses",
                "Only those in one of these states",
                list(or_empty(words(RunStatus::ALL.map(RunStatus::as_str)))),
            )
            .flag("active", "Only those that have not ended, unless `statuses` says otherwise")
            .flag("background", "Only those that can be resumed, or only the others")
            .query("stop_reason", "Only those that ended so", or_empty(words(StopReason::ALL.map(StopReason::as_str))))
            .query("conversation_id", "Only those of this conversation; `default`: of none", conversation())
            .gives("Runs", lists("Run")),
        get("/v1/runs/active", "listActiveRuns", "List runs that have not ended: at most 100, the newest first")
            .query("agent_id", "Only those of this agent", or_empty(id::<AgentId>()))
            .flag("background", "Only those that can be resumed, or only the others")
            .gives("Runs", lists("Run")),
        get("/v1/runs/{run_id}", "retrieveRun", "A run").gives("The run", reference("Run")),
        delete("/v1/runs/{run_id}", "deleteRun", "Delete a run that has ended; its messages stay")
            .refuses(&[409])
            .gives("It is gone", map()),
        get("/v1/runs/{run_id}/messages", "listRunMessages", "List the messages of a run")
            .page::<MessageId>(100)
            .by_creation()
            .gives("Messages", lists("Message")),
        get("/v1/runs/{run_id}/steps", "listRunSteps", "List the steps of a run")
            .page::<StepId>(100)
            .by_creation()
            .gives("Steps", lists("Step")),
        get("/v1/runs/{run_id}/usage", "retrieveRunUsage", "The tokens of a run")
            .gives("Its tokens", reference("Usage")),
        get("/v1/runs/{run_id}/trace", "retrieveRunTrace", "Spans of a run: they are sent elsewhere, not kept here")
            .query(
                "limit",
                "At most so many",
                or_empty(json!({"type": "integer", "minimum": 1, "maximum": MOST_SPANS})),
            )
            .gives("None", list(json!({}))),
        get("/v1/runs/{run_id}/metrics", "retrieveRunMetrics", "How long a run took")
            .gives("Its metrics", reference("RunMetrics")),
        resumes(get("/v1/runs/{run_id}/stream", "followRun", "Follow a run, from any of its events")),
        resumes(post("/v1/runs/{run_id}/stream", "resumeRun", "Follow a run, from any of its events")),
    ]
}
