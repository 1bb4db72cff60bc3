"""The ways to give an agent messages, each read to the end of its run and checked alike."""

from __future__ import annotations

import dataclasses
import itertools
import time
import typing
from collections.abc import Sequence

import pydantic
import strict
from letta_client import AsyncLetta, Letta
from letta_client.types.agents import (
    ApprovalRequestMessage,
    LettaResponse,
    Run,
    ToolCall,
    ToolCallDelta,
)
from letta_client.types.tool_return_message import ToolReturnMessage

DEADLINE_S = 60
WAYS = ["steps", "tokens", "foreground", "create", "async"]


@dataclasses.dataclass
class Sent:
    """What a run showed, without pings and what ends a stream."""

    run_id: str
    stop_reason: str
    messages: list[typing.Any]

    @property
    def kinds(self) -> list[str]:
        """The kinds of the messages, deltas of one counted once."""
        keys = [(item.message_type, item.otid) for item in self.messages]
        return [kind for (kind, _), _ in itertools.groupby(keys)]

    @property
    def text(self) -> str:
        """What the agent said."""
        return "".join(item.content for item in self.messages if item.message_type == "assistant_message")

    @property
    def returns(self) -> list[typing.Any]:
        """The results of its tools."""
        messages = [item for item in self.messages if isinstance(item, ToolReturnMessage)]
        return [one for item in messages for one in item.tool_returns or []]

    def calls(self, kind: type[pydantic.BaseModel] = ApprovalRequestMessage) -> list[ToolCall]:
        """The calls in messages of a class, put together from deltas where they came in deltas."""
        calls: dict[str, ToolCall] = {}
        for item in self.messages:
            if not isinstance(item, kind):
                continue
            given = typing.cast(typing.Any, item).tool_calls
            pieces: Sequence[ToolCall | ToolCallDelta] = given if isinstance(given, list) else [given]
            for piece in pieces:
                assert piece.tool_call_id, "each piece names its call"
                new = ToolCall(tool_call_id=piece.tool_call_id, name=piece.name or "", arguments="")
                call = calls.setdefault(piece.tool_call_id, new)
                call.name = call.name or piece.name or ""
                call.arguments += piece.arguments or ""
        return list(calls.values())


def of_stream(items: Sequence[typing.Any], way: str) -> Sent:
    """What a stream showed, which must be whole: numbered without a gap if it is of a background run, else not at all."""
    if way == "foreground":
        for item in items:
            strict.event(item)
        assert {getattr(item, "seq_id", None) for item in items} == {None}
    else:
        strict.stream(items)
    assert [item.message_type for item in items[-2:]] == ["stop_reason", "usage_statistics"]
    hidden = ("ping", "stop_reason", "usage_statistics")
    return Sent(items[0].run_id, items[-2].stop_reason, [item for item in items if item.message_type not in hidden])


def of_response(answer: LettaResponse) -> Sent:
    """What an answer in one piece has."""
    strict.validate(answer, LettaResponse)
    for item in answer.messages:
        strict.message(item)
    run_ids = {item.run_id for item in answer.messages}
    assert len(run_ids) == 1, "all messages are of one run"
    return Sent(typing.cast(str, run_ids.pop()), answer.stop_reason.stop_reason, list(answer.messages))


def finished(client: Letta, run_id: str) -> Run:
    """Waits for the end of a run."""
    until = time.monotonic() + DEADLINE_S
    while (run := client.runs.retrieve(run_id)).status in ("created", "running"):
        assert time.monotonic() < until, f"{run_id} does not end"
        time.sleep(0.05)
    return run


def request_of(way: str, request: dict[str, typing.Any]) -> dict[str, typing.Any]:
    """The request of a way that streams."""
    return {**request, "streaming": True, "background": way != "foreground", "stream_tokens": way != "steps"}


def send(client: Letta, agent_id: str, way: str, **request: typing.Any) -> Sent:
    """Sends a request in one of the ways."""
    messages = client.agents.messages
    if way == "create":
        return of_response(messages.create(agent_id, **request))
    if way == "async":
        if "input" in request:
            request["messages"] = [{"role": "user", "content": request.pop("input")}]
        run = finished(client, messages.create_async(agent_id, **request).id)
        assert run.status == "completed", run
        return of_stream(list(client.runs.messages.stream(run.id)), way)
    method: typing.Any = messages.create if way == "foreground" else messages.stream
    return of_stream(list(method(agent_id, **request_of(way, request))), way)


async def send_async(client: AsyncLetta, agent_id: str, way: str, **request: typing.Any) -> Sent:
    """The same with the asynchronous client, in the ways that answer at once."""
    messages = client.agents.messages
    if way == "create":
        return of_response(await messages.create(agent_id, **request))
    method: typing.Any = messages.create if way == "foreground" else messages.stream
    return of_stream([item async for item in await method(agent_id, **request_of(way, request))], way)
