//! The operations, in the order of the router.

use holdfast_shared::domain::ids::{AgentId, BlockId, Id, MessageId, RunId, StepId, ToolId};
use holdfast_shared::domain::message::MessageType;
use holdfast_shared::domain::run::RunStatus;
use holdfast_shared::domain::stop_reason::StopReason;
use holdfast_shared::wire::tool::TOOL_TYPES;
use serde_json::{Value, json};

use super::Operation;
use super::schema::{any_of, boolean, count, id, list, nothing, reference, string, word, words};
use crate::extract::MOST_ROWS;

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
    fn page<I: Id>(self, rows: u32) -> Self {
        let limit = json!({"type": "integer", "minimum": 1, "maximum": MOST_ROWS});
        self.query("after", "Only what comes after this one in the order that is asked for", or_empty(id::<I>()))
            .query("before", "Only what comes before this one in the order that is asked for", or_empty(id::<I>()))
            .query("limit", &format!("At most so many; {rows} if nothing is said"), or_empty(limit))
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
        self.takes("SendRequest").refuses(&[400, 404, 409])
    }
}

fn lists(name: &str) -> Value {
    list(reference(name))
}

/// Every operation.
pub(super) fn all() -> Vec<Operation> {
    [health(), agents(), messages(), memory(), tools(), runs()].into_iter().flatten().collect()
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

fn agents() -> Vec<Operation> {
    let orders = ["created_at", "updated_at", "last_run_completion"];
    vec![
        get("/v1/agents", "listAgents", "List agents")
            .page::<AgentId>(50)
            .query("order_by", "What the order is about", or_empty(words(orders)))
            .text("name", "Only those of exactly this name")
            .text("query_text", "Only those whose name has this text in it")
            .query("tags", "Only those with one of these tags", list(string()))
            .flag("match_all_tags", "Only those with all of these tags")
            .gives("Agents", lists("AgentState")),
        post("/v1/agents", "createAgent", "Make an agent")
            .takes("CreateAgent")
            .refuses(&[400, 404])
            .gives("The agent", reference("AgentState")),
        get("/v1/agents/{agent_id}", "retrieveAgent", "An agent").gives("The agent", reference("AgentState")),
        patch("/v1/agents/{agent_id}", "updateAgent", "Change an agent")
            .takes("UpdateAgent")
            .refuses(&[400])
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
    let types = words(MessageType::ALL.map(MessageType::as_str));
    vec![
        get("/v1/agents/{agent_id}/messages", "listMessages", "List the messages of an agent")
            .page::<MessageId>(100)
            .query("include_return_message_types", "Only these kinds", list(types))
            .flag("use_assistant_message", "Show what legacy agents say by a tool as their messages")
            .text("assistant_message_tool_name", "That tool")
            .text("assistant_message_tool_kwarg", "Its argument that is shown")
            .query("conversation_id", "Only `default` exists", or_empty(string()))
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
            .gives("Blocks", lists("Block")),
        get(
            "/v1/agents/{agent_id}/core-memory/blocks/{name}",
            "retrieveAgentBlock",
            "A block of an agent, by its label",
        )
        .gives("The block", reference("Block")),
        patch("/v1/agents/{agent_id}/core-memory/blocks/{name}", "updateAgentBlock", "Change a block of an agent")
            .takes("UpdateBlock")
            .refuses(&[400, 409])
            .gives("The changed block", reference("Block")),
    ]
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
    let whole = || json!({"type": "integer"});
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
            .query("statuses", "Only those in one of these states", list(words(RunStatus::ALL.map(RunStatus::as_str))))
            .flag("active", "Only those that have not ended, unless `statuses` says otherwise")
            .flag("background", "Only those that can be resumed, or only the others")
            .query("stop_reason", "Only those that ended so", or_empty(words(StopReason::ALL.map(StopReason::as_str))))
            .text("conversation_id", "Only `default` exists")
            .gives("Runs", lists("Run")),
        get("/v1/runs/{run_id}", "retrieveRun", "A run").gives("The run", reference("Run")),
        get("/v1/runs/{run_id}/messages", "listRunMessages", "List the messages of a run")
            .page::<MessageId>(100)
            .gives("Messages", lists("Message")),
        get("/v1/runs/{run_id}/steps", "listRunSteps", "List the steps of a run")
            .page::<StepId>(100)
            .gives("Steps", lists("Step")),
        get("/v1/runs/{run_id}/usage", "retrieveRunUsage", "The tokens of a run")
            .gives("Its tokens", reference("Usage")),
        get("/v1/runs/{run_id}/trace", "retrieveRunTrace", "Spans of a run: they are sent elsewhere, not kept here")
            .gives("None", list(json!({}))),
        get("/v1/runs/{run_id}/metrics", "retrieveRunMetrics", "How long a run took")
            .gives("Its metrics", reference("RunMetrics")),
        resumes(get("/v1/runs/{run_id}/stream", "followRun", "Follow a run, from any of its events")),
        resumes(post("/v1/runs/{run_id}/stream", "resumeRun", "Follow a run, from any of its events")),
    ]
}
