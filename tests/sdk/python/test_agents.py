"""Agents, models and health."""

from __future__ import annotations

import letta_client
import pytest
from letta_client import Letta
from letta_client.types import AgentState
from strict import message, validate


def test_an_agent_comes_back_as_it_was_made(client: Letta, other: Letta, agent: AgentState) -> None:
    validate(agent, AgentState)
    assert agent.id.startswith("agent-") and len(agent.id) == 42
    assert agent.system == "You answer briefly."
    assert agent.model, "the default model has a handle"
    assert [block.value for block in agent.blocks] == ["The human's name is Ada."]
    assert [block.value for block in agent.memory.blocks] == ["The human's name is Ada."]
    read = other.agents.retrieve(agent.id)
    validate(read, AgentState)
    assert read.to_dict() == agent.to_dict()


def test_an_agent_is_updated_and_deleted(client: Letta) -> None:
    made = client.agents.create(name="first", tags=["sdk"])
    changed = client.agents.update(made.id, name="second", description="changed")
    assert (changed.name, changed.description, changed.tags) == ("second", "changed", ["sdk"])
    client.agents.delete(made.id)
    with pytest.raises(letta_client.NotFoundError):
        client.agents.retrieve(made.id)


def test_lists_page_by_themselves(client: Letta) -> None:
    made = [client.agents.create(name=f"paged {number}", tags=["paged"]).id for number in range(5)]
    found = [found.id for found in client.agents.list(limit=2, tags=["paged"])]
    assert found == made[::-1]
    upwards = [found.id for found in client.agents.list(limit=2, tags=["paged"], order="asc")]
    assert upwards == made
    for id_ in made:
        client.agents.delete(id_)


def test_models_and_health(client: Letta) -> None:
    models = client.models.list()
    for model in models:
        validate(model)
    assert "holdfast/demo" in [model.handle for model in models]
    health = client.health()
    validate(health)
    assert health.status == "ok"


def test_errors_are_the_sdks_own_classes(client: Letta, agent: AgentState) -> None:
    absent = "agent-00000000-0000-4000-8000-000000000000"
    with pytest.raises(letta_client.NotFoundError) as missing:
        client.agents.retrieve(absent)
    assert isinstance(missing.value.body, dict) and isinstance(missing.value.body["detail"], str)
    with pytest.raises(letta_client.NotFoundError):
        client.agents.messages.stream(absent, input="hello")
    with pytest.raises(letta_client.NotFoundError):
        client.runs.retrieve("run-00000000-0000-4000-8000-000000000000")
    with pytest.raises(letta_client.BadRequestError):
        client.runs.retrieve("nonsense")
    with pytest.raises(letta_client.UnprocessableEntityError) as malformed:
        client.agents.messages.stream(agent.id, input="hello", max_steps=0)
    assert "max_steps" in str(malformed.value)
    with pytest.raises(letta_client.UnprocessableEntityError):
        client.agents.messages.create(agent.id)
    with pytest.raises(letta_client.NotFoundError):
        client.agents.create(model="nobody/knows-this")
    with pytest.raises(letta_client.ConflictError):
        client.agents.messages.cancel(agent.id)


def test_the_history_reads_as_messages(client: Letta, agent: AgentState) -> None:
    for number in range(3):
        client.agents.messages.create(agent.id, input=f"number {number}")
    listed = list(client.agents.messages.list(agent.id, limit=2, order="asc"))
    for item in listed:
        message(item)
    kinds = [item.message_type for item in listed if item.message_type != "system_message"]
    assert kinds == ["user_message", "assistant_message"] * 3
    assert len({item.id for item in listed}) == len(listed), "auto-paging repeats nothing"
