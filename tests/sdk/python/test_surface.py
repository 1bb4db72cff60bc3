"""Each method of both clients of the SDK, called: what it answers, and how it fails. And that no method is forgotten."""

from __future__ import annotations

import asyncio
import inspect
import json
import pathlib
import re
import typing
from collections.abc import Iterator

import httpx
import letta_client
import pydantic
import pytest
import strict
from conftest import HERE, KEY
from letta_client import AsyncLetta, AsyncStream, Letta, Stream
from letta_client.pagination import SyncArrayPage
from letta_client.types import AgentState
from surface import TABLE, Arguments, World

METHODS: dict[str, dict[str, str]] = json.loads(
    (pathlib.Path(__file__).parents[2] / "fixtures" / "sdk_methods.json").read_text("utf-8"))
SERVED = [name for name, method in METHODS.items() if method["priority"] != "P3"]
# These take nothing that could be wrong.
INFALLIBLE = {"health", "models.embeddings.list"}


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """What the calls need, for the whole file."""
    with Letta(base_url=HERE, api_key=KEY, max_retries=0) as client:
        yield World(client)


def method(client: typing.Any, name: str) -> typing.Any:
    """A method by its dotted name."""
    for part in name.split("."):
        client = getattr(client, part)
    return client


def settled(answer: typing.Any) -> typing.Any:
    """What a call answers in the end: all pages, the whole stream."""
    return list(answer) if isinstance(answer, (SyncArrayPage, Stream)) else answer


async def settled_async(answer: typing.Any) -> typing.Any:
    """The same of the asynchronous client."""
    if hasattr(answer, "__aiter__"):
        return [item async for item in answer]
    answer = await answer
    return [item async for item in answer] if isinstance(answer, AsyncStream) else answer


class Callers:
    """Both clients. They refuse answers that do not fit the SDK's types."""

    def __init__(self) -> None:
        options: dict[str, typing.Any] = {"base_url": HERE, "api_key": KEY, "max_retries": 0}
        self.sync = Letta(**options, _strict_response_validation=True)
        self.asynchronous = AsyncLetta(**options, _strict_response_validation=True)
        self.loop = asyncio.new_event_loop()

    def call(self, kind: str, name: str, arguments: Arguments) -> typing.Any:
        """Calls a method of one of them."""
        positional, named = arguments
        if kind == "sync":
            return settled(method(self.sync, name)(*positional, **named))

        async def work() -> typing.Any:
            return await settled_async(method(self.asynchronous, name)(*positional, **named))

        return self.loop.run_until_complete(work())

    def close(self) -> None:
        """Closes connections."""
        self.sync.close()
        self.loop.run_until_complete(self.asynchronous.close())
        self.loop.close()


@pytest.fixture(scope="module")
def callers() -> Iterator[Callers]:
    """Both clients, for the whole file."""
    made = Callers()
    yield made
    made.close()


def verify(answer: typing.Any) -> None:
    """Asserts that everything in an answer is of its class, strictly."""
    if isinstance(answer, list):
        for item in answer:
            verify(item)
    elif getattr(answer, "message_type", None) in strict.MESSAGES | strict.STREAM_ONLY and hasattr(answer, "date"):
        strict.event(answer)
    elif isinstance(answer, pydantic.BaseModel):
        strict.validate(answer)


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("name", SERVED)
def test_a_method_answers(world: World, callers: Callers, name: str, kind: str) -> None:
    row = TABLE[name]
    answer = callers.call(kind, name, row.succeeds(world))
    verify(answer)
    assert row.is_right(answer, world), answer


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("name,number", [(name, at) for name in SERVED if name in TABLE for at in range(len(TABLE[name].fails))])
def test_a_method_fails(world: World, callers: Callers, name: str, number: int, kind: str) -> None:
    arguments, expected = TABLE[name].fails[number]
    arguments = arguments(world)
    with pytest.raises(letta_client.APIStatusError) as raised:
        callers.call(kind, name, arguments)
    assert isinstance(raised.value, expected), raised.value
    body = raised.value.body
    assert isinstance(body, dict) and body["detail"] not in (None, "", "Not Found"), body


def resources(client: typing.Any, prefix: str = "") -> Iterator[str]:
    """The methods of the SDK, found by looking at it."""
    for name in dir(client):
        if name.startswith("_") or name in ("with_raw_response", "with_streaming_response"):
            continue
        found = inspect.getattr_static(type(client), name, None)
        if not hasattr(found, "func") and not inspect.isfunction(found):
            continue
        if inspect.isfunction(found):
            if "extra_headers" in inspect.signature(found).parameters:
                yield prefix + name
        elif type(value := getattr(client, name)).__module__.startswith("letta_client.resources"):
            yield from resources(value, f"{prefix}{name}.")


@pytest.mark.parametrize("client", [Letta, AsyncLetta])
def test_no_method_is_forgotten(client: typing.Any) -> None:
    found = sorted(resources(client(base_url=HERE, api_key="key")))
    assert found == sorted(METHODS), "tests/fixtures/sdk_methods.json"
    assert sorted(TABLE) == sorted(SERVED), "surface.py"
    without = {name for name, row in TABLE.items() if not row.fails}
    assert without == INFALLIBLE, "calls that cannot fail"


def test_what_is_not_served_is_not_found(client: Letta, world: World) -> None:
    for name, described in METHODS.items():
        if described["priority"] != "P3":
            continue
        verb, path = described["request"].split()
        path = re.sub(r"\{(\w+)\}", lambda part: world.agent if part[1] == "agent_id" else f"some-{part[1]}", path)
        send = getattr(client, verb.lower())
        named = {} if verb == "GET" else {"body": {}}
        with pytest.raises(letta_client.NotFoundError) as raised:
            send(path, cast_to=object, **named)
        assert raised.value.body == {"detail": "Not Found"}, name


def test_raw_answers_show_status_and_headers(client: Letta, agent: AgentState) -> None:
    raw = client.agents.with_raw_response.retrieve(agent.id)
    assert (raw.status_code, raw.parse().id) == (200, agent.id)
    assert raw.headers["content-type"].startswith("application/json")
    with client.agents.messages.with_streaming_response.stream(agent.id, input="hello") as streamed:
        assert streamed.headers["content-type"].startswith("text/event-stream")
        assert [item.message_type for item in streamed.parse()][-1] == "usage_statistics"
    with pytest.raises(letta_client.ConflictError) as conflict:
        client.agents.messages.cancel(agent.id)
    assert conflict.value.response.headers["x-should-retry"] == "false"


def test_options_of_a_call(client: Letta, agent: AgentState) -> None:
    assert client.with_options(timeout=20, max_retries=1).agents.retrieve(agent.id).id == agent.id
    assert client.copy(default_headers={"x-more": "y"}).health().status == "ok"
    with pytest.raises(letta_client.APIConnectionError):
        client.with_options(base_url="http://127.0.0.1:9").health()


def test_paths_that_the_sdk_lacks(client: Letta, agent: AgentState, world: World) -> None:
    active = client.get("/v1/runs/active", cast_to=object, options={"params": {"agent_id": agent.id}})
    assert active == []
    metrics = client.get(f"/v1/runs/{world.run}/metrics", cast_to=object)
    assert isinstance(metrics, dict) and (metrics["id"], metrics["num_steps"]) == (world.run, 2)
    run = client.post(
        f"/v1/agents/{agent.id}/messages/async", cast_to=object, body={"messages": [{"role": "user", "content": "hi"}]})
    assert isinstance(run, dict) and run["status"] == "created"
    with pytest.raises(letta_client.APIStatusError) as immutable:
        client.patch(f"/v1/agents/{agent.id}/messages/{world.message}", cast_to=object, body={})
    assert immutable.value.status_code == 405


def test_pages_go_on_by_themselves(client: Letta, agent: AgentState) -> None:
    for number in range(5):
        client.agents.messages.create(agent.id, input=f"number {number}")
    whole = client.agents.messages.list(agent.id, limit=100, order="asc").items
    texts = [item.content for item in whole if item.message_type == "user_message"]
    assert texts == [f"number {number}" for number in range(5)]
    assert [item.id for item in client.agents.messages.list(agent.id, limit=2, order="asc")] == [item.id for item in whole]
    downwards = list(client.agents.messages.list(agent.id, limit=2, order="desc"))
    assert [item.id for item in downwards] == [item.id for item in whole][::-1]
    # Without an order the newest come, oldest first; after them there is nothing newer, so that the pages end.
    plain = client.agents.messages.list(agent.id, limit=4)
    assert [item.id for item in plain.items] == [item.id for item in whole[-4:]]
    assert [item.id for item in plain] == [item.id for item in whole[-4:]]
    newer = list(client.agents.messages.list(agent.id, limit=2, after=whole[2].id))
    assert [item.id for item in newer] == [item.id for item in whole[3:]]
    page = client.runs.list(agent_id=agent.id, limit=2)
    assert page.has_next_page() and len(page.get_next_page().items) == 2
    assert len({run.id for run in page}) == 5


def test_requests_are_encoded_as_the_server_reads_them(agent: AgentState, world: World) -> None:
    sent: list[httpx.Request] = []
    http = httpx.Client(event_hooks={"request": [sent.append]})
    with Letta(base_url=HERE, api_key=KEY, max_retries=0, http_client=http, _strict_response_validation=True) as client:
        client.runs.list(agent_id=agent.id, statuses=["created", "running"], active=True)
        assert str(sent[-1].url).split("?")[1] == f"active=true&agent_id={agent.id}&statuses=created&statuses=running"
        completed = client.runs.list(agent_id=world.agent, statuses=["failed", "completed"], background=True)
        assert world.run in [run.id for run in completed]
        nested = {"filter": {"by": {"name": "x"}}, "list": [1, 2], "nothing": None}
        client.agents.retrieve(agent.id, extra_query=nested)
        query = str(sent[-1].url).split("?")[1]
        assert "filter.by.name=x" in query and "list=1&list=2" in query
        # null stands for nothing: what is optional stays as it is.
        client.agents.update(agent.id, description="kept")
        changed = client.agents.update(agent.id, name="renamed", description=None, tags=None, tool_rules=None, metadata=None)
        assert json.loads(sent[-1].content)["description"] is None
        assert (changed.name, changed.description, changed.tags) == ("renamed", "kept", [])
        answer = client.agents.messages.create(
            agent.id, messages=[{"role": "user", "content": "hi", "otid": None, "name": None, "type": None}],  # type: ignore[typeddict-item]
            client_tools=None, override_model=None, include_return_message_types=None)
        assert [item.message_type for item in answer.messages] == ["assistant_message"]
        runs = client.runs.messages.stream(world.run, include_pings=None, poll_interval=None, batch_size=None, otid=None)
        assert [item.message_type for item in runs][-2:] == ["stop_reason", "usage_statistics"]
