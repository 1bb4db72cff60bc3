//! The tools that the server brings along: what a model is told of them, and which agents get them.
//!
//! What they do is the worker's; the API lists them on agents, so their words and ids stand here.

use std::sync::LazyLock;

use serde_json::{Value, json};
use uuid::Uuid;

use super::Timestamp;
use super::ids::{Id as _, ToolId};
use super::tool::{Tool, ToolOptions, ToolSource, ToolSpec};
use super::tool_rule::ToolRuleKind;

/// Finds earlier messages of the agent.
pub const CONVERSATION_SEARCH: &str = "conversation_search";
/// Inserts lines into a block.
pub const MEMORY_INSERT: &str = "memory_insert";
/// Replaces one piece of a block.
pub const MEMORY_REPLACE: &str = "memory_replace";
/// Replaces a block's whole value.
pub const MEMORY_RETHINK: &str = "memory_rethink";
/// Appends to a block.
pub const CORE_MEMORY_APPEND: &str = "core_memory_append";
/// Replaces all occurrences in a block.
pub const CORE_MEMORY_REPLACE: &str = "core_memory_replace";
/// Handles blocks like files.
pub const MEMORY: &str = "memory";
/// Applies a patch to one block or several.
pub const MEMORY_APPLY_PATCH: &str = "memory_apply_patch";

/// Says something to the user, for agents that speak by tools.
pub const SEND_MESSAGE: &str = "send_message";
/// Says that all edits of the memory are done.
pub const MEMORY_FINISH_EDITS: &str = "memory_finish_edits";

/// All of them; the order is also that of an agent's default tools.
static TOOLS: LazyLock<Vec<Tool>> = LazyLock::new(registry);

/// All built-in tools.
#[must_use]
pub fn all() -> &'static [Tool] {
    &TOOLS
}

/// The built-in tool of that name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static Tool> {
    all().iter().find(|tool| tool.spec.name == name)
}

/// The built-in tool of that id.
#[must_use]
pub fn by_id(id: ToolId) -> Option<&'static Tool> {
    all().iter().find(|tool| tool.id == id)
}

/// Names of the tools that an agent of this type gets without asking.
#[must_use]
pub fn defaults(agent_type: &str) -> Vec<&'static str> {
    let has = |name: &str| match name {
        CONVERSATION_SEARCH => matches!(agent_type, "letta_v1_agent" | "memgpt_v2_agent" | "memgpt_agent"),
        MEMORY_INSERT | MEMORY_REPLACE => {
            matches!(agent_type, "letta_v1_agent" | "memgpt_v2_agent" | "sleeptime_agent")
        }
        MEMORY_RETHINK | MEMORY_FINISH_EDITS => agent_type == "sleeptime_agent",
        SEND_MESSAGE => matches!(agent_type, "memgpt_agent" | "memgpt_v2_agent"),
        CORE_MEMORY_APPEND | CORE_MEMORY_REPLACE => agent_type == "memgpt_agent",
        _ => false,
    };
    all().iter().map(|tool| tool.spec.name.as_str()).filter(|name| has(name)).collect()
}

/// The rule that comes with a built-in tool where base rules are wanted (api/05 §4).
#[must_use]
pub fn base_rule(name: &str) -> Option<ToolRuleKind> {
    match name {
        SEND_MESSAGE | MEMORY_FINISH_EDITS => Some(ToolRuleKind::ExitLoop),
        _ => by_name(name).map(|_| ToolRuleKind::ContinueLoop),
    }
}

/// The kind of the tools that every agent can have.
const CORE: &str = "letta_core";
/// The kind of the tools that reorganise memory.
const SLEEPTIME: &str = "letta_sleeptime_core";

fn registry() -> Vec<Tool> {
    vec![
        builtin(
            0xcca6_b530_c334_4062_b76a_45e8_5c7b_ce1a,
            CORE,
            true,
            spec(
                CONVERSATION_SEARCH,
                "Looks through this agent's own message history, including what is no longer in context, and gives \
                 the newest matches first.",
                &[
                    ("query", text("Words that a message has to contain. Without it, only the other filters count.")),
                    (
                        "roles",
                        json!({
                            "type": "array",
                            "items": {"type": "string", "enum": ["assistant", "user", "tool"]},
                            "description": "Whose messages to look at; user and assistant if left out.",
                        }),
                    ),
                    ("limit", json!({"type": "integer", "description": "How many results at most, 5 if left out."})),
                    (
                        "start_date",
                        text("Nothing older than this moment or day: YYYY-MM-DD or YYYY-MM-DDTHH:MM, itself included."),
                    ),
                    (
                        "end_date",
                        text("Nothing newer than this moment or day: YYYY-MM-DD or YYYY-MM-DDTHH:MM, itself included."),
                    ),
                ],
                &[],
            ),
        ),
        builtin(
            0x7159_afce_8155_4c93_9bf0_61e7_8de6_e349,
            CORE,
            false,
            spec(
                MEMORY_INSERT,
                "Puts new lines into one of your memory blocks, at a place you choose, and leaves the rest as it is.",
                &[
                    ("label", text("Which block, by its label.")),
                    ("new_string", text("What to put in. Do not write line numbers in front.")),
                    (
                        "insert_line",
                        json!({
                            "type": "integer",
                            "description": "The line after which it goes in: 0 for the very start, -1 for the very end.",
                            "default": -1,
                        }),
                    ),
                ],
                &["label", "new_string"],
            ),
        ),
        builtin(
            0x2ef3_1b5e_5935_4955_8234_ea7c_7318_f670,
            CORE,
            false,
            spec(
                MEMORY_REPLACE,
                "Swaps one passage of a memory block for another. The passage has to stand in the block once and only \
                 once, so quote enough of it to be unmistakable.",
                &[
                    ("label", text("Which block, by its label.")),
                    ("old_string", text("The passage as it stands there, letter by letter and without line numbers.")),
                    ("new_string", text("What stands there afterwards; an empty text removes the passage.")),
                ],
                &["label", "old_string", "new_string"],
            ),
        ),
        builtin(
            0x5a3f_bc7a_dc1a_4ea9_ab78_4cdd_9e4e_b266,
            SLEEPTIME,
            false,
            spec(
                MEMORY_RETHINK,
                "Writes a memory block anew from start to end. For small changes use memory_replace or memory_insert.",
                &[
                    ("label", text("Which block, by its label.")),
                    ("new_memory", text("Everything that the block holds from now on.")),
                ],
                &["label", "new_memory"],
            ),
        ),
        builtin(
            0x3d0c_7be1_9f52_4a86_8c1e_6b2f_d407_a951,
            CORE,
            false,
            spec(
                MEMORY,
                "Handles your memory blocks like files in a folder /memories: makes, changes, renames and deletes them.",
                &[
                    (
                        "command",
                        json!({
                            "type": "string",
                            "enum": ["create", "str_replace", "insert", "delete", "rename"],
                            "description": "What to do.",
                        }),
                    ),
                    ("path", text("The block, as /memories/LABEL.")),
                    ("file_text", text("create: what the new block holds.")),
                    (
                        "description",
                        text("create: what the block is for. rename without new_path: its new description."),
                    ),
                    ("old_string", text("str_replace: the passage as it stands there, once and letter by letter.")),
                    ("new_string", text("str_replace: what stands there afterwards.")),
                    (
                        "insert_line",
                        json!({"type": "integer", "description": "insert: the line after which it goes in, 0 for the start."}),
                    ),
                    ("insert_text", text("insert: what to put in.")),
                    ("old_path", text("rename: the block as it is called now.")),
                    ("new_path", text("rename: what it is called afterwards.")),
                ],
                &["command"],
            ),
        ),
        builtin(
            0x91c5_42ef_7a3d_4d18_b6f0_05e9_c8d2_731b,
            CORE,
            false,
            spec(
                MEMORY_APPLY_PATCH,
                "Changes lines of your memory blocks by a patch. Each of its lines begins with a blank (stays), '-' (goes) \
                 or '+' (comes). Headers '*** Add Block: LABEL', '*** Delete Block: LABEL', '*** Update Block: LABEL' and \
                 '*** Move to: LABEL' make it one of several blocks.",
                &[
                    ("label", text("Which block, for a patch without headers.")),
                    ("patch", text("The patch. Lines that stay or go have to stand in the block once, as they are.")),
                ],
                &["label", "patch"],
            ),
        ),
        builtin(
            0x028f_f23e_b822_419b_9fb8_9b77_7632_1fb6,
            CORE,
            false,
            spec(
                CORE_MEMORY_APPEND,
                "Adds a text below what a memory block already holds.",
                &[("label", text("Which block, by its label.")), ("content", text("What to add."))],
                &["label", "content"],
            ),
        ),
        builtin(
            0x8343_84f7_492c_403f_b565_0208_6d28_08dc,
            CORE,
            false,
            spec(
                CORE_MEMORY_REPLACE,
                "Swaps a passage of a memory block for another, everywhere it occurs in that block.",
                &[
                    ("label", text("Which block, by its label.")),
                    ("old_content", text("The passage as it stands there, letter by letter.")),
                    ("new_content", text("What stands there afterwards; an empty text removes the passage.")),
                ],
                &["label", "old_content", "new_content"],
            ),
        ),
        builtin(
            0xc2df_7678_87de_4af8_b622_23c1_86c1_df32,
            CORE,
            false,
            spec(
                SEND_MESSAGE,
                "Says something to the user. Nothing else that you write is shown to them.",
                &[("message", text("What to say."))],
                &["message"],
            ),
        ),
        builtin(
            0x3f2b_f068_e18a_4abe_8533_9172_f19a_c17d,
            SLEEPTIME,
            false,
            spec(
                MEMORY_FINISH_EDITS,
                "Tells that the memory is in order now and that you have nothing more to change in it.",
                &[],
                &[],
            ),
        ),
    ]
}

fn builtin(id: u128, tool_type: &str, is_parallel: bool, spec: ToolSpec) -> Tool {
    Tool {
        id: ToolId::from_uuid(Uuid::from_u128(id)),
        spec,
        source: ToolSource::Builtin { tool_type: tool_type.to_owned() },
        // What these tools change they change in the transaction that records their result.
        options: ToolOptions { is_parallel, is_repeatable: true, ..ToolOptions::default() },
        created_at: Timestamp::UNIX_EPOCH,
        updated_at: Timestamp::UNIX_EPOCH,
    }
}

fn text(description: &str) -> Value {
    json!({"type": "string", "description": description})
}

fn spec(name: &str, description: &str, properties: &[(&str, Value)], required: &[&str]) -> ToolSpec {
    let properties: serde_json::Map<String, Value> =
        properties.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    ToolSpec {
        name: name.to_owned(),
        description: description.to_owned(),
        parameters: json!({"type": "object", "properties": properties, "required": required}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_has_an_id_of_its_own_that_reads_back() {
        for tool in all() {
            let read: ToolId = tool.id.to_string().parse().expect("a valid id");
            assert_eq!(by_id(read), Some(tool));
            assert_eq!(by_name(&tool.spec.name), Some(tool));
            assert_eq!(all().iter().filter(|other| other.id == tool.id).count(), 1, "{}", tool.spec.name);
        }
    }

    #[test]
    fn default_tools_by_agent_type() {
        for (agent_type, names) in [
            ("letta_v1_agent", vec![CONVERSATION_SEARCH, MEMORY_INSERT, MEMORY_REPLACE]),
            ("memgpt_v2_agent", vec![CONVERSATION_SEARCH, MEMORY_INSERT, MEMORY_REPLACE, SEND_MESSAGE]),
            ("memgpt_agent", vec![CONVERSATION_SEARCH, CORE_MEMORY_APPEND, CORE_MEMORY_REPLACE, SEND_MESSAGE]),
            ("sleeptime_agent", vec![MEMORY_INSERT, MEMORY_REPLACE, MEMORY_RETHINK, MEMORY_FINISH_EDITS]),
            ("react_agent", vec![]),
        ] {
            assert_eq!(defaults(agent_type), names, "{agent_type}");
        }
    }

    #[test]
    fn required_arguments_are_described() {
        for tool in all() {
            let properties = tool.spec.parameters["properties"].as_object().expect("properties");
            for required in tool.spec.parameters["required"].as_array().expect("required") {
                assert!(properties.contains_key(required.as_str().expect("a name")), "{}", tool.spec.name);
            }
            assert!(properties.values().all(|schema| schema["description"].is_string()), "{}", tool.spec.name);
        }
    }
}
