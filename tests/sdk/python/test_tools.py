"""Tools, their attachment, tool rules, secrets and core memory."""

from __future__ import annotations

from collections.abc import Iterator

import letta_client
import pytest
from letta_client import Letta
from letta_client.types import AgentState, BlockResponse, Tool
from strict import validate

SCHEMA: dict[str, object] = {
    "name": "sdk_weather",
    "description": "Look up the weather.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "description": "City name."}},
        "required": ["city"],
    },
}
SOURCE = 'def sdk_weather(city: str) -> str:\n    return "-4"\n'
ABSENT = "tool-00000000-0000-4000-8000-000000000000"


@pytest.fixture()
def tool(client: Letta) -> Iterator[Tool]:
    """A tool of one's own."""
    made = client.tools.create(
        source_code=SOURCE,
        json_schema=SCHEMA,
        tags=["sdk"],
        pip_requirements=[{"name": "requests"}],
        return_char_limit=1000,
        extra_body={"safe_to_repeat": True, "timeout_ms": 5000},
    )
    yield made
    try:
        client.tools.delete(made.id)
    except letta_client.NotFoundError:
        pass  # the test did it


def test_a_tool_comes_back_as_it_was_made(client: Letta, other: Letta, tool: Tool) -> None:
    validate(tool, Tool)
    assert (tool.name, tool.tool_type, tool.source_type) == ("sdk_weather", "custom", "python")
    assert (tool.json_schema, tool.tags, tool.return_char_limit) == (SCHEMA, ["sdk"], 1000)
    assert tool.model_extra is not None and tool.model_extra["safe_to_repeat"] is True
    assert other.tools.retrieve(tool.id).to_dict() == tool.to_dict()
    again = client.tools.upsert(source_code=SOURCE, json_schema=SCHEMA, description="ignored", tags=["again"])
    validate(again, Tool)
    assert (again.id, again.tags, again.description) == (tool.id, ["again"], "Look up the weather.")
    changed = other.tools.update(tool.id, metadata={"safe_to_repeat": False, "team": "x"}, description="Weather.")
    validate(changed, Tool)
    assert changed.metadata == {"safe_to_repeat": False, "team": "x"}
    assert changed.model_extra is not None and changed.model_extra["safe_to_repeat"] is False
    assert changed.description == "Weather."
    client.tools.delete(tool.id)
    with pytest.raises(letta_client.NotFoundError):
        other.tools.retrieve(tool.id)


def test_tools_are_listed_with_the_built_in_ones(client: Letta, tool: Tool) -> None:
    names = [found.name for found in client.tools.list(limit=3)]
    assert "sdk_weather" in names and "memory_insert" in names
    assert len(names) == len(set(names)), "auto-paging repeats nothing"
    assert [found.id for found in client.tools.list(name="sdk_weather")] == [tool.id]
    assert [found.id for found in client.tools.list(tool_ids=[tool.id])] == [tool.id]
    kinds = {found.tool_type for found in client.tools.list(return_only_letta_tools=True)}
    assert "custom" not in kinds and "letta_core" in kinds
    assert all(found.tool_type == "custom" for found in client.tools.list(tool_types=["custom"]))
    with pytest.raises(letta_client.BadRequestError):
        client.tools.list(tool_types=["robot"])


def test_a_function_tells_its_name_and_arguments_by_itself(client: Letta) -> None:
    source = '''def sdk_add(one: int, other: int = 2) -> int:
    """Adds numbers.

    Args:
        one (int): A number.
        other (int): Another one.
    """
    return one + other
'''
    made = client.tools.create(source_code=source)
    validate(made, Tool)
    assert (made.name, made.description) == ("sdk_add", "Adds numbers.")
    client.tools.delete(made.id)
    with pytest.raises(letta_client.BadRequestError):
        client.tools.create(source_code="def f(x: int): ...")


def test_tools_that_cannot_be_are_refused(client: Letta) -> None:
    with pytest.raises(letta_client.BadRequestError) as taken:
        client.tools.create(source_code=SOURCE, json_schema={"name": "memory_insert"})
    assert "tool of the server" in str(taken.value)
    with pytest.raises(letta_client.UnprocessableEntityError):
        client.tools.upsert(source_code="export function f() {}", source_type="typescript")
    with pytest.raises(letta_client.UnprocessableEntityError):
        client.tools.create(source_code=SOURCE, json_schema=SCHEMA, return_char_limit=0)
    with pytest.raises(letta_client.NotFoundError):
        client.tools.update(ABSENT, tags=[])
    with pytest.raises(letta_client.NotFoundError):
        client.tools.delete(ABSENT)
    with pytest.raises(letta_client.UnprocessableEntityError):
        client.tools.retrieve("nonsense")
    with pytest.raises(letta_client.NotFoundError):
        client.tools.search(query="weather")


def test_tools_are_attached_approved_and_detached(client: Letta, other: Letta, agent: AgentState, tool: Tool) -> None:
    attached = client.agents.tools.attach(tool.id, agent_id=agent.id)
    assert attached is not None
    validate(attached, AgentState)
    assert "sdk_weather" in [found.name for found in attached.tools]
    assert tool.id in [found.id for found in other.agents.tools.list(agent.id, limit=2)]
    approved = client.agents.tools.update_approval("sdk_weather", agent_id=agent.id, body_requires_approval=True)
    assert approved is not None and approved.tool_rules is not None
    validate(approved, AgentState)
    assert [(rule.type, rule.tool_name) for rule in approved.tool_rules] == [("requires_approval", "sdk_weather")]
    freed = client.agents.tools.update_approval("sdk_weather", agent_id=agent.id, body_requires_approval=False)
    assert freed is not None and freed.tool_rules == []
    detached = client.agents.tools.detach(tool.id, agent_id=agent.id)
    assert detached is not None
    assert "sdk_weather" not in [found.name for found in detached.tools]
    with pytest.raises(letta_client.NotFoundError):
        client.agents.tools.attach(ABSENT, agent_id=agent.id)
    with pytest.raises(letta_client.NotFoundError):
        client.agents.tools.detach(ABSENT, agent_id=agent.id)
    with pytest.raises(letta_client.NotFoundError):
        client.agents.tools.update_approval("nothing", agent_id=agent.id, body_requires_approval=True)
    with pytest.raises(letta_client.NotFoundError):
        client.agents.tools.list("agent-00000000-0000-4000-8000-000000000000")


def test_rules_and_secrets_of_an_agent(client: Letta, tool: Tool) -> None:
    made = client.agents.create(
        name="ruled",
        tools=["sdk_weather"],
        secrets={"API_KEY": "never-shown"},
        tool_rules=[
            {"type": "run_first", "tool_name": "sdk_weather", "args": {"city": "Oslo"}},
            {
                "type": "constrain_child_tools",
                "tool_name": "sdk_weather",
                "children": ["memory_insert"],
                "child_arg_nodes": [{"name": "memory_insert", "args": {"label": "human"}}],
            },
            {"type": "parent_last_tool", "tool_name": "sdk_weather", "children": ["memory_replace"]},
            {"type": "conditional", "tool_name": "sdk_weather", "child_output_mapping": {"-4": "memory_insert"}},
            {"type": "max_count_per_step", "tool_name": "sdk_weather", "max_count_limit": 3},
            {"type": "exit_loop", "tool_name": "memory_replace"},
            {"type": "continue_loop", "tool_name": "memory_insert"},
            {"type": "required_before_exit", "tool_name": "memory_insert"},
            {"type": "requires_approval", "tool_name": "sdk_weather"},
        ],
    )
    try:
        validate(made, AgentState)
        assert made.tool_rules is not None and len(made.tool_rules) == 9
        for rule in made.tool_rules:
            validate(rule)
        assert [(secret.key, secret.value) for secret in made.secrets or []] == [("API_KEY", "")]
        assert "never-shown" not in made.to_json()
        changed = client.agents.update(made.id, tool_rules=[], secrets={"OTHER": "x"})
        assert (changed.tool_rules, [secret.key for secret in changed.secrets or []]) == ([], ["OTHER"])
        with pytest.raises(letta_client.UnprocessableEntityError) as wrong:
            client.agents.update(
                made.id, tool_rules=[{"type": "max_count_per_step", "tool_name": "x", "max_count_limit": 0}]
            )
        assert "tool_rules[0].max_count_limit" in str(wrong.value)
        with pytest.raises(letta_client.BadRequestError) as unknown:
            client.agents.update(made.id, tool_ids=[ABSENT])
        assert ABSENT in str(unknown.value)
        with pytest.raises(letta_client.BadRequestError) as unnamed:
            client.agents.create(tools=["no_such_tool"])
        assert "no_such_tool" in str(unnamed.value)
    finally:
        client.agents.delete(made.id)


def test_core_memory_is_read_and_written(client: Letta, other: Letta, agent: AgentState) -> None:
    blocks = list(client.agents.blocks.list(agent.id))
    assert [block.label for block in blocks] == ["human"]
    read = other.agents.blocks.retrieve("human", agent_id=agent.id)
    validate(read, BlockResponse)
    assert read.to_dict() == blocks[0].to_dict()
    changed = client.agents.blocks.update("human", agent_id=agent.id, value="Her name is Eve.", description="who")
    validate(changed, BlockResponse)
    assert (changed.id, changed.value, changed.description) == (read.id, "Her name is Eve.", "who")
    compiled = other.agents.recompile(agent.id, dry_run=True)
    assert "Her name is Eve." in compiled
    assert "Her name is Eve." in client.agents.recompile(agent.id, update_timestamp=True)
    with pytest.raises(letta_client.UnprocessableEntityError):
        client.agents.blocks.update("human", agent_id=agent.id, value="too long", limit=3)
    with pytest.raises(letta_client.NotFoundError):
        client.agents.blocks.retrieve("nothing", agent_id=agent.id)
    with pytest.raises(letta_client.NotFoundError):
        client.agents.blocks.update("nothing", agent_id=agent.id, value="x")
    with pytest.raises(letta_client.NotFoundError):
        client.agents.recompile("agent-00000000-0000-4000-8000-000000000000")


def test_two_blocks_cannot_share_a_label(client: Letta) -> None:
    made = client.agents.create(memory_blocks=[{"label": "a", "value": "1"}, {"label": "b", "value": "2"}])
    with pytest.raises(letta_client.ConflictError):
        client.agents.blocks.update("a", agent_id=made.id, label="b")
    client.agents.delete(made.id)
