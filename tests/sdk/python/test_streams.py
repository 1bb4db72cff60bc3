"""Background streams, resumes, and the other ways to send."""

from __future__ import annotations

import asyncio
import json
import typing

import letta_client
import pytest
import strict
from conftest import HERE, KEY, THERE
from letta_client import AsyncLetta, Letta
from letta_client.types import AgentState
from letta_client.types.agents import LettaResponse, Run, ToolCallDelta
from sending import finished

SLOW = "[[demo tokens=40 delay_ms=30]]"
REMEMBER = '[[demo tool=memory_insert {"label":"human","new_string":"She likes fjords."}]]'
PLAIN = ["ping", "assistant_message", "stop_reason", "usage_statistics"]
TOOL = ["ping", "tool_call_message", "tool_return_message", "assistant_message", "stop_reason", "usage_statistics"]


def test_a_background_stream_shows_each_token(client: Letta, agent: AgentState) -> None:
    items = list(client.agents.messages.stream(agent.id, input=SLOW, background=True, stream_tokens=True))
    assert strict.stream(items) == PLAIN
    assert len([item for item in items if item.message_type == "assistant_message"]) == 40
    assert items[-2].stop_reason == "end_turn"
    assert items[-1].run_ids == [items[0].run_id]


def test_another_client_resumes_where_the_first_was_cut(client: Letta, other: Letta, agent: AgentState) -> None:
    first = []
    with client.agents.messages.stream(agent.id, input=SLOW, background=True, stream_tokens=True) as stream:
        for item in stream:
            first.append(item)
            if len(first) == 8:
                break
    run_id, cursor = first[0].run_id, first[-1].seq_id
    assert run_id and cursor == 8
    rest = list(other.runs.messages.stream(run_id, starting_after=cursor))
    assert strict.stream(rest, cursor) == PLAIN[1:]
    whole = list(other.runs.messages.stream(run_id, starting_after=0))
    assert strict.stream(whole) == PLAIN
    dumped = [item.to_dict() for item in whole]
    assert [item.to_dict() for item in first + rest] == dumped
    beyond = list(client.runs.messages.stream(run_id, starting_after=10_000))
    assert [item.to_dict() for item in beyond] == dumped[-2:]


@pytest.mark.parametrize("stream_tokens", [False, True])
def test_a_tool_call_and_its_return(client: Letta, agent: AgentState, stream_tokens: bool) -> None:
    items = list(client.agents.messages.stream(agent.id, input=REMEMBER, background=True, stream_tokens=stream_tokens))
    assert strict.stream(items) == TOOL
    calls = [item for item in items if item.message_type == "tool_call_message"]
    if stream_tokens:
        assert all(isinstance(call.tool_calls, ToolCallDelta) for call in calls)
    else:
        assert all(isinstance(call.tool_calls, list) for call in calls)
    arguments = json.loads("".join(call.tool_call.arguments or "" for call in calls))
    assert arguments["new_string"] == "She likes fjords."
    returned = next(item for item in items if item.message_type == "tool_return_message")
    assert (returned.status, returned.tool_call_id) == ("success", calls[0].tool_call.tool_call_id)
    assert "fjords" in client.agents.retrieve(agent.id).blocks[0].value


def test_create_with_streaming_is_the_same_stream(client: Letta, agent: AgentState) -> None:
    items = list(client.agents.messages.create(agent.id, input="hello", streaming=True, background=True))
    assert strict.stream(items) == PLAIN
    foreground = list(client.agents.messages.create(agent.id, input="hello", streaming=True, stream_tokens=True))
    for item in foreground:
        strict.event(item)
        assert getattr(item, "seq_id", None) is None, "numbers are for background runs"


def test_create_without_streaming_answers_at_the_end(client: Letta, agent: AgentState) -> None:
    answer = client.agents.messages.create(agent.id, messages=[{"role": "user", "content": REMEMBER}])
    strict.validate(answer, LettaResponse)
    for item in answer.messages:
        strict.message(item)
    assert [item.message_type for item in answer.messages] == TOOL[1:4]
    assert (answer.stop_reason.stop_reason, answer.usage.step_count) == ("end_turn", 2)


def test_create_async_is_polled_and_resumed(client: Letta, other: Letta, agent: AgentState) -> None:
    run = client.agents.messages.create_async(agent.id, messages=[{"role": "user", "content": REMEMBER}])
    strict.validate(run, Run)
    assert (run.status, run.background) == ("created", True)
    run = finished(other, run.id)
    strict.validate(run, Run)
    assert (run.status, run.stop_reason) == ("completed", "end_turn")
    assert strict.stream(list(other.runs.messages.stream(run.id)))[-3:] == TOOL[-3:]


def test_everything_about_a_run(client: Letta, other: Letta, agent: AgentState) -> None:
    items = list(client.agents.messages.stream(agent.id, input=REMEMBER, background=True))
    run_id = typing.cast(str, items[0].run_id)
    listed = list(other.runs.messages.list(run_id))
    for item in listed:
        strict.message(item)
    assert [item.message_type for item in listed] == ["user_message", *TOOL[1:4]]
    streamed = {(item.message_type, item.id, item.otid) for item in items if getattr(item, "otid", None)}
    assert {(item.message_type, item.id, item.otid) for item in listed[1:]} == streamed
    steps = list(other.runs.steps.list(run_id))
    for step in steps:
        strict.validate(step)
        assert (step.run_id, step.status) == (run_id, "success")
    assert len(steps) == 2
    usage = other.runs.usage.retrieve(run_id)
    strict.validate(usage)
    assert usage.total_tokens == items[-1].total_tokens


def test_runs_are_listed_in_pages(client: Letta, agent: AgentState) -> None:
    made = [finished(client, client.agents.messages.create_async(
        agent.id, messages=[{"role": "user", "content": "hello"}]).id).id for _ in range(5)]
    found = list(client.runs.list(agent_id=agent.id, limit=2))
    for run in found:
        strict.validate(run, Run)
    assert [run.id for run in found] == made[::-1]
    assert [run.id for run in client.runs.list(agent_id=agent.id, limit=2, order="asc")] == made
    assert list(client.runs.list(agent_id=agent.id, active=True)) == []
    assert len(list(client.runs.list(agent_id=agent.id, statuses=["completed"], limit=2))) == 5


def test_a_cancel_ends_the_stream(client: Letta, other: Letta, agent: AgentState) -> None:
    items = []
    with client.agents.messages.stream(agent.id, input="[[demo hang]]", background=True) as stream:
        for item in stream:
            if not items:
                assert other.agents.messages.cancel(agent.id) == {item.run_id: "cancelled"}
            items.append(item)
    assert strict.stream(items) == ["ping", "stop_reason", "usage_statistics"]
    assert items[-2].stop_reason == "cancelled"
    assert finished(other, items[0].run_id).status == "cancelled"


def test_a_failed_run_raises(client: Letta, agent: AgentState) -> None:
    items = []
    with pytest.raises(letta_client.APIStatusError) as raised:
        for item in client.agents.messages.stream(agent.id, input="[[demo error=500]]", background=True):
            items.append(item)
    assert strict.stream(items) == ["ping", "stop_reason", "usage_statistics"]
    assert items[1].stop_reason == "llm_api_error"
    body = typing.cast(dict[str, object], raised.value.body)
    strict.validate(strict.STREAM_ONLY["error_message"].model_validate(body))
    assert body["error_type"] == "llm_error"
    assert finished(client, items[0].run_id).status == "failed"


def test_a_request_sent_twice_is_one_run(client: Letta, other: Letta, agent: AgentState) -> None:
    messages = [{"role": "user", "content": "hello", "otid": "a-request-sent-twice"}]
    first = list(client.agents.messages.stream(agent.id, messages=messages, background=True))
    second = list(other.agents.messages.stream(agent.id, messages=messages, background=True))
    assert [item.to_dict() for item in first] == [item.to_dict() for item in second]
    assert len(list(client.runs.list(agent_id=agent.id))) == 1


def test_the_async_client_does_the_same() -> None:
    async def work() -> None:
        async with (
            AsyncLetta(base_url=HERE, api_key=KEY, max_retries=0, _strict_response_validation=True) as here,
            AsyncLetta(base_url=THERE, api_key=KEY, max_retries=0, _strict_response_validation=True) as there,
        ):
            agent = await here.agents.create(name="async tester")
            first = []
            stream = await here.agents.messages.stream(agent.id, input=SLOW, background=True, stream_tokens=True)
            async for item in stream:
                first.append(item)
                if len(first) == 5:
                    break
            await stream.close()
            run_id, cursor = first[0].run_id, first[-1].seq_id
            assert run_id and cursor
            rest = [item async for item in await there.runs.messages.stream(run_id, starting_after=cursor)]
            assert strict.stream(first + rest) == PLAIN
            streams = await asyncio.gather(*(there.runs.messages.stream(run_id) for _ in range(5)))
            for readers in await asyncio.gather(*(read(stream) for stream in streams)):
                assert [item.to_dict() for item in readers] == [item.to_dict() for item in first + rest]
            answer = await there.agents.messages.create(agent.id, input="hello")
            strict.validate(answer, LettaResponse)
            with pytest.raises(letta_client.NotFoundError):
                await there.runs.retrieve("run-00000000-0000-4000-8000-000000000000")
            runs = [run async for run in here.runs.list(agent_id=agent.id, limit=1)]
            assert len(runs) == 2
            await here.agents.delete(agent.id)

    async def read(stream: typing.Any) -> list[typing.Any]:
        return [item async for item in stream]

    asyncio.run(work())
