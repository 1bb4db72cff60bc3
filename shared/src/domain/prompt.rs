//! The system message of an agent, compiled from its base text, its memory and its tool rules, and what a request adds
//! to it (api/05 §1).
//!
//! It is compiled when the agent or its memory changes and then stored, not at each step, so that providers can keep
//! the prompt in their caches.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use chrono_tz::Tz;

use super::Timestamp;
use super::agent::AgentSettings;
use super::block::Block;
use super::ids::AgentId;
use super::run::ClientSkill;
use super::tool_rule::ToolRuleKind;

/// Where the memory goes in the base text, if it says so.
const MEMORY_TOKEN: &str = "{CORE_MEMORY}";
/// Blocks whose labels begin so are skills.
const SKILL_LABEL: &str = "skills/";
/// The file that a skill's folder is read by; a location may name it.
const SKILL_FILE: &str = "/SKILL.md";

/// What the prompt tells besides settings and blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PromptFacts {
    /// The agent.
    pub agent_id: AgentId,
    /// Time of this compile.
    pub compiled_at: Timestamp,
    /// Stored messages that are not in context.
    pub messages_outside: u64,
}

/// Compiles the system message.
#[must_use]
pub fn compile(settings: &AgentSettings, blocks: &[Block], facts: &PromptFacts) -> String {
    let mut memory = String::new();
    write_blocks(&mut memory, &settings.agent_type, blocks);
    write_tool_rules(&mut memory, settings);
    write_metadata(&mut memory, &settings.timezone, facts);
    if settings.system.contains(MEMORY_TOKEN) {
        settings.system.replace(MEMORY_TOKEN, &memory)
    } else if settings.system.is_empty() {
        memory
    } else {
        format!("{}\n\n{memory}", settings.system)
    }
}

/// What a request's system message says of skills: those that its client has, and the agent's own, which stand in its
/// blocks and win on equal names. `None` without any. It goes after the compiled text and is never stored.
#[must_use]
pub fn skills(client: &[ClientSkill], blocks: &[Block]) -> Option<String> {
    let mut skills: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
    for skill in client {
        skills.insert(&skill.name, (&skill.location, &skill.description));
    }
    for block in blocks {
        if let Some(name) = block.label.strip_prefix(SKILL_LABEL) {
            skills.insert(name, (&block.label, block.details.description.as_deref().unwrap_or_default()));
        }
    }
    if skills.is_empty() {
        return None;
    }
    let mut folders: BTreeMap<&str, String> = BTreeMap::new();
    for (name, (location, description)) in skills {
        let place = location.strip_suffix(SKILL_FILE).unwrap_or(location).trim_end_matches('/');
        let folder = place.rsplit_once('/').map_or(".", |(folder, _)| folder);
        let line = folders.entry(folder).or_default();
        let description = description.lines().next().unwrap_or_default();
        // Writing to a String cannot fail; the results are of no interest.
        let _ = writeln!(line, "- {name}: {description} ({location})");
    }
    let mut text = String::from(
        "<available_skills>\nInstructions for special kinds of work. Before such work, read what stands at the place \
         in brackets.\n",
    );
    for (folder, lines) in folders {
        let _ = write!(text, "\n{folder}/\n{lines}");
    }
    text.push_str("</available_skills>");
    Some(text)
}

fn write_blocks(text: &mut String, agent_type: &str, blocks: &[Block]) {
    if blocks.is_empty() || matches!(agent_type, "react_agent" | "workflow_agent") {
        return;
    }
    text.push_str("<memory_blocks>\nThe following memory blocks are always in your context:\n\n");
    for block in blocks {
        write_block(text, block);
    }
    text.push_str("</memory_blocks>\n\n");
}

fn write_block(text: &mut String, block: &Block) {
    let label = &block.label;
    let description = block.details.description.as_deref().unwrap_or_default();
    let read_only = if block.details.read_only { "- read_only=true\n" } else { "" };
    let current = block.value.chars().count();
    let limit = block.details.limit;
    let value = &block.value;
    let _ = write!(
        text,
        "<{label}>\n<description>\n{description}\n</description>\n<metadata>\n{read_only}- chars_current={current}\n- chars_limit={limit}\n</metadata>\n<value>\n{value}\n</value>\n</{label}>\n\n",
    );
}

/// The rules that a model can follow by itself. Those of tools that the agent has not are without effect, and the rest
/// is told when it applies.
fn write_tool_rules(text: &mut String, settings: &AgentSettings) {
    let is_told = |kind: &ToolRuleKind| match kind {
        ToolRuleKind::ConstrainChildTools { .. }
        | ToolRuleKind::ParentLastTool { .. }
        | ToolRuleKind::Conditional { .. }
        | ToolRuleKind::MaxCountPerStep { .. }
        | ToolRuleKind::ExitLoop
        | ToolRuleKind::ContinueLoop => true,
        ToolRuleKind::RunFirst { .. } | ToolRuleKind::RequiredBeforeExit | ToolRuleKind::RequiresApproval => false,
    };
    let rules = settings.tool_rules.iter().filter(|rule| settings.tools.contains(&rule.tool_name));
    let mut rules = rules.filter(|rule| is_told(&rule.kind)).peekable();
    if rules.peek().is_none() {
        return;
    }
    text.push_str("<tool_usage_rules>\nA call of a tool that breaks one of these rules is refused:\n\n");
    for rule in rules {
        let _ = writeln!(text, "<tool_rule>\n{}\n</tool_rule>", rule.sentence());
    }
    text.push_str("</tool_usage_rules>\n\n");
}

fn write_metadata(text: &mut String, timezone: &str, facts: &PromptFacts) {
    // A zone that is not known has no better stand-in than UTC, which the text then says.
    let zone = timezone.parse::<Tz>().unwrap_or(Tz::UTC);
    let time = facts.compiled_at.with_timezone(&zone).format("%Y-%m-%d %H:%M:%S %Z (UTC%:z)");
    let _ = write!(
        text,
        "<memory_metadata>\n- AGENT_ID: {}\n- CONVERSATION_ID: default\n- System prompt last compiled: {time}\n- {} earlier messages are stored outside of this context\n</memory_metadata>",
        facts.agent_id, facts.messages_outside,
    );
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::block::BlockDetails;
    use crate::domain::ids::{BlockId, Id as _};
    use crate::domain::model::ModelHandle;

    const UUID: uuid::Uuid = uuid::Uuid::from_u128(0x6612_baae_74a3_460d_9bfb_4c94_1f64_cd2d);

    fn settings(tools: &[&str], rules: serde_json::Value) -> AgentSettings {
        AgentSettings {
            tools: tools.iter().map(|name| (*name).to_owned()).collect(),
            tool_rules: serde_json::from_value(rules).expect("rules"),
            ..AgentSettings::new("letta_v1_agent", "Base.", ModelHandle::demo())
        }
    }

    fn block(label: &str, description: &str) -> Block {
        let details = BlockDetails { description: Some(description.to_owned()), ..BlockDetails::new(100) };
        let at = Timestamp::UNIX_EPOCH;
        let (label, value) = (label.to_owned(), "v".to_owned());
        Block { id: BlockId::from_uuid(UUID), label, value, details, created_at: at, updated_at: at }
    }

    fn compiled(settings: &AgentSettings) -> String {
        let compiled_at = "2026-07-15T10:00:00Z".parse().expect("a time");
        compile(settings, &[], &PromptFacts { agent_id: AgentId::from_uuid(UUID), compiled_at, messages_outside: 3 })
    }

    #[test]
    fn the_rules_that_a_model_can_follow_are_told_if_their_tool_is_there() {
        let rules = json!([
            {"type": "run_first", "tool_name": "first"},
            {"type": "constrain_child_tools", "tool_name": "load", "children": ["sort", "close"]},
            {"type": "parent_last_tool", "tool_name": "draft", "children": ["send"]},
            {"type": "conditional", "tool_name": "sort", "child_output_mapping": {"bug": "file"}, "default_child": "ask"},
            {"type": "max_count_per_step", "tool_name": "find", "max_count_limit": 3},
            {"type": "exit_loop", "tool_name": "send"},
            {"type": "continue_loop", "tool_name": "note"},
            {"type": "required_before_exit", "tool_name": "log"},
            {"type": "requires_approval", "tool_name": "close"},
            {"type": "exit_loop", "tool_name": "absent"},
        ]);
        let all = ["first", "load", "draft", "sort", "find", "send", "note", "log", "close"];
        let text = compiled(&settings(&all, rules.clone()));
        assert_eq!(text.matches("<tool_rule>").count(), 6, "{text}");
        for told in ["sort, close", "bug leads to file; ", "find can be called 3 times", "A call of send ends"] {
            assert!(text.contains(told), "'{told}' is missing in {text}");
        }
        assert!(!text.contains("absent"), "{text}");
        assert!(!compiled(&settings(&["first", "log", "close"], rules)).contains("tool_usage_rules"));
    }

    #[test]
    fn times_are_told_in_the_zone_of_the_agent() {
        for (zone, expected) in [
            ("UTC", "2026-07-15 10:00:00 UTC (UTC+00:00)"),
            ("Europe/Oslo", "2026-07-15 12:00:00 CEST (UTC+02:00)"),
            ("America/New_York", "2026-07-15 06:00:00 EDT (UTC-04:00)"),
            ("Middle/Earth", "2026-07-15 10:00:00 UTC (UTC+00:00)"),
        ] {
            let settings = AgentSettings { timezone: zone.to_owned(), ..settings(&[], json!([])) };
            let text = compiled(&settings);
            assert!(text.contains(&format!("compiled: {expected}\n")), "{zone}: {text}");
        }
    }

    #[test]
    fn skills_stand_by_folder_and_the_agents_own_win() {
        let skill = |name: &str, location: &str| ClientSkill {
            name: name.to_owned(),
            description: format!("Client's {name}.\nMore of it."),
            location: location.to_owned(),
        };
        let client = [
            skill("pdf", "/home/me/skills/pdf/SKILL.md"),
            skill("chart", "/home/me/skills/chart/SKILL.md"),
            skill("travel", "/srv/travel.md"),
        ];
        let blocks = [block("human", "Who."), block("skills/travel", "Own travel.\nMore of it.")];
        let text = skills(&client, &blocks).expect("skills");
        let expected = "\n/home/me/skills/\n\
            - chart: Client's chart. (/home/me/skills/chart/SKILL.md)\n\
            - pdf: Client's pdf. (/home/me/skills/pdf/SKILL.md)\n\
            \nskills/\n\
            - travel: Own travel. (skills/travel)\n\
            </available_skills>";
        assert!(text.starts_with("<available_skills>\n") && text.ends_with(expected), "{text}");
        assert_eq!(skills(&[], &blocks[..1]), None);
    }
}
