"""Clients of the server under test. HOLDFAST_BASE_URL is one API, HOLDFAST_OTHER_BASE_URL another one of the same cluster
(or the same one)."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from letta_client import Letta
from letta_client.types import AgentState

HERE = os.environ["HOLDFAST_BASE_URL"]
THERE = os.environ.get("HOLDFAST_OTHER_BASE_URL", HERE)
KEY = os.environ.get("HOLDFAST_API_KEY")


@pytest.fixture()
def client() -> Iterator[Letta]:
    """Refuses answers that do not fit the SDK's types."""
    with Letta(base_url=HERE, api_key=KEY, max_retries=0, _strict_response_validation=True) as made:
        yield made


@pytest.fixture()
def other() -> Iterator[Letta]:
    """Another client object, at another API where there is one."""
    with Letta(base_url=THERE, api_key=KEY, max_retries=0, _strict_response_validation=True) as made:
        yield made


@pytest.fixture()
def agent(client: Letta) -> Iterator[AgentState]:
    """An agent of one's own."""
    made = client.agents.create(
        name="sdk tester",
        system="You answer briefly.",
        memory_blocks=[{"label": "human", "value": "The human's name is Ada."}],
    )
    yield made
    client.agents.delete(made.id)
