"""Python tools from their source alone, called by an agent."""

from __future__ import annotations

import json
from collections.abc import Iterator

import letta_client
import pytest
from letta_client import Letta
from letta_client.types import AgentState, Tool
from sending import WAYS, send
from strict import validate

SOURCE = '''
import os
import sys

HOUR = 60

def sdk_py_minutes(hours: float, unit: str = "min") -> dict:
    """
    Tells how many minutes some hours have.

    Args:
        hours: How many hours.
        unit: How minutes are written.
    """
    print("converting", hours)
    print("with care", file=sys.stderr)
    return {"answer": f"{hours * HOUR:.0f} {unit}", "key": os.environ.get("CLOCK_KEY")}
'''
CALL = '[[demo tool=sdk_py_minutes {"hours": 1.5}]]'


@pytest.fixture()
def tool(client: Letta) -> Iterator[Tool]:
    """Made from nothing but its source."""
    made = client.tools.create(source_code=SOURCE)
    yield made
    client.tools.delete(made.id)


@pytest.fixture()
def clock(client: Letta, tool: Tool) -> Iterator[AgentState]:
    """An agent with the tool and a secret."""
    made = client.agents.create(name="clock", tool_ids=[tool.id], secrets={"CLOCK_KEY": "tick"})
    yield made
    client.agents.delete(made.id)


def test_the_schema_is_read_from_the_source(client: Letta, other: Letta, tool: Tool) -> None:
    validate(tool, Tool)
    assert (tool.name, tool.description, tool.tool_type, tool.source_type) == (
        "sdk_py_minutes", "Tells how many minutes some hours have.", "custom", "python",
    )
    assert tool.json_schema is not None
    assert tool.json_schema["name"] == "sdk_py_minutes"
    parameters = tool.json_schema["parameters"]
    assert parameters["required"] == ["hours"]
    assert {name: (one["type"], one["description"]) for name, one in parameters["properties"].items()} == {
        "hours": ("number", "How many hours."), "unit": ("string", "How minutes are written."),
    }
    assert other.tools.retrieve(tool.id).to_dict() == tool.to_dict()


@pytest.mark.parametrize("way", WAYS)
def test_it_is_called(client: Letta, other: Letta, clock: AgentState, way: str) -> None:
    said = send(other, clock.id, way, input=CALL)
    assert (said.kinds, said.stop_reason) == (
        ["tool_call_message", "tool_return_message", "assistant_message"], "end_turn",
    )
    [result] = said.returns
    assert result.status == "success"
    assert json.loads(result.tool_return) == {"answer": "90 min", "key": "tick"}
    assert (result.stdout, result.stderr) == (["converting 1.5"], ["with care"])
    assert "converting" not in said.text, "what a tool prints is not for the model"
    shown = next(item for item in said.messages if item.message_type == "tool_return_message")
    assert (shown.stdout, shown.stderr) == (result.stdout, result.stderr)


def test_an_upsert_replaces_the_source(client: Letta, tool: Tool, clock: AgentState) -> None:
    source = tool.source_code
    assert source is not None
    changed = client.tools.upsert(source_code=source.replace("HOUR = 60", "HOUR = 100"))
    validate(changed, Tool)
    assert changed.id == tool.id
    assert "150 min" in send(client, clock.id, "steps", input=CALL).returns[0].tool_return
    broken = client.tools.upsert(source_code=source.replace("return {", "raise ValueError('no time')\n    return {"))
    assert broken.id == tool.id
    said = send(client, clock.id, "steps", input=CALL)
    [result] = said.returns
    assert (result.status, said.stop_reason) == ("error", "end_turn")
    assert result.tool_return == "Error executing function sdk_py_minutes: ValueError: no time"
    assert any("raise ValueError('no time')" in line for line in result.stderr), result.stderr


def test_a_source_that_tells_too_little_is_refused(client: Letta) -> None:
    for source in ["x = 1", "def sdk_py_broken(:\n    pass"]:
        with pytest.raises((letta_client.BadRequestError, letta_client.UnprocessableEntityError)) as refused:
            client.tools.create(source_code=source)
        assert "source_code" in str(refused.value)
