"""Calls that wait for the client: for its approval, or for its result."""

from __future__ import annotations

import asyncio
import json
import typing
from collections.abc import Iterator

import httpx
import letta_client
import pytest
import strict
from conftest import HERE, KEY, THERE
from letta_client import AsyncLetta, DefaultHttpxClient, Letta
from letta_client.types import AgentState
from letta_client.types.agents import ApprovalRequestMessage, ToolCall, ToolCallMessage
from sending import WAYS, Sent, finished, send, send_async

FJORDS = '[[demo tool=memory_insert {"label":"human","new_string":"She likes fjords."}]]'
LAKES = '[[demo tool=memory_insert {"label":"human","new_string":"She likes lakes."}]]'
EVE = '[[demo tool=memory_replace {"label":"human","old_string":"Ada","new_string":"Eve"}]]'
GATE = {"type": "requires_approval", "tool_name": "memory_insert"}
ASKED = ["approval_request_message"]
ANSWERED = ["tool_return_message", "assistant_message"]
LOOK = {
    "name": "look_outside",
    "description": "Looks out of the client's window.",
    "parameters": {"type": "object", "properties": {"window": {"type": "string"}}, "required": ["window"]},
}
CALL_LOOK = '[[demo tool=look_outside {"window":"north"}]]'
PNG = "iVBORw0KGgpyZXN0"
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}


@pytest.fixture()
def gated(client: Letta) -> Iterator[AgentState]:
    """An agent that may not write to its memory by itself, and makes several calls in one answer."""
    made = client.agents.create(
        name="gated",
        memory_blocks=[{"label": "human", "value": "The human's name is Ada."}],
        tool_rules=[GATE],
        parallel_tool_calls=True,
    )
    yield made
    client.agents.delete(made.id)


def answer(*entries: dict[str, object], **more: object) -> dict[str, typing.Any]:
    return {"messages": [{"type": "approval", "approvals": list(entries), **more}]}


def approve(call: ToolCall) -> dict[str, object]:
    return {"type": "approval", "tool_call_id": call.tool_call_id, "approve": True}


def deny(call: ToolCall, reason: str | None = None) -> dict[str, object]:
    return {"type": "approval", "tool_call_id": call.tool_call_id, "approve": False, "reason": reason}


def returned(call: ToolCall, result: object, **more: object) -> dict[str, object]:
    entry = {"type": "tool", "tool_call_id": call.tool_call_id, "tool_return": result, "status": "success"}
    return {**entry, **more}


def human(client: Letta, agent_id: str) -> str:
    return client.agents.blocks.retrieve("human", agent_id=agent_id).value


def pending(client: Letta, agent_id: str) -> list[ToolCall]:
    """The calls that the agent says it waits with."""
    request = client.agents.retrieve(agent_id).pending_approval
    if request is None:
        return []
    strict.validate(request, ApprovalRequestMessage)
    assert isinstance(request.tool_calls, list)
    return request.tool_calls


def history(client: Letta, agent_id: str) -> list[typing.Any]:
    listed = [item for item in client.agents.messages.list(agent_id, order="asc") if item.message_type != "system_message"]
    for item in listed:
        strict.message(item)
    return listed


def assert_asks(client: Letta, agent_id: str, asked: Sent, *names: str) -> list[ToolCall]:
    """The run ended with calls that wait, and the agent shows the same ones."""
    assert (asked.kinds[-1:], asked.stop_reason) == (ASKED, "requires_approval")
    calls = asked.calls()
    assert [call.name for call in calls] == list(names)
    assert pending(client, agent_id) == calls
    run = client.runs.retrieve(asked.run_id)
    assert (run.status, run.stop_reason) == ("completed", "requires_approval")
    return calls


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("verdict", ["approved", "denied", "denied for no reason", "returned"])
def test_a_gated_call_and_its_answer(client: Letta, other: Letta, gated: AgentState, way: str, verdict: str) -> None:
    asked = send(client, gated.id, way, input=FJORDS)
    assert asked.kinds == ASKED
    [call] = assert_asks(other, gated.id, asked, "memory_insert")
    assert json.loads(call.arguments)["new_string"] == "She likes fjords."
    assert "fjords" not in human(client, gated.id), "nothing has run"
    entry, status, text = {
        "approved": (approve(call), "success", "She likes fjords."),
        "denied": (deny(call, "Not now."), "error", "Error: request to call tool denied. User reason: Not now."),
        "denied for no reason": (deny(call), "error", "Error: request to call tool denied."),
        "returned": (returned(call, "Noted on paper.", stdout=["scribble"]), "success", "Noted on paper."),
    }[verdict]
    # Another client object, at another API, which knows nothing but ids.
    said = send(other, gated.id, way, **answer(entry))
    assert (said.kinds, said.stop_reason) == (ANSWERED, "end_turn")
    [result] = said.returns
    assert (result.tool_call_id, result.status) == (call.tool_call_id, status)
    assert text in result.tool_return
    assert result.stdout == (["scribble"] if verdict == "returned" else None)
    assert said.messages[0].step_id == asked.messages[0].step_id, "the result belongs to the step that asked"
    assert said.run_id != asked.run_id
    assert text[:30] in said.text, "the model has seen the result"
    assert ("fjords" in human(client, gated.id)) == (verdict == "approved")
    assert pending(client, gated.id) == []
    listed = history(client, gated.id)
    assert [item.message_type for item in listed] == [
        "user_message", "approval_request_message", "approval_response_message", *ANSWERED,
    ]
    assert [one.tool_call_id for one in listed[2].approvals] == [call.tool_call_id]
    assert send(client, gated.id, way, input="hello").kinds == ["assistant_message"]


@pytest.mark.parametrize("way", WAYS)
def test_two_calls_are_answered_together(client: Letta, other: Letta, gated: AgentState, way: str) -> None:
    asked = send(client, gated.id, way, input=FJORDS + LAKES)
    fjords, lakes = assert_asks(other, gated.id, asked, "memory_insert", "memory_insert")
    for entries in [(approve(fjords),), (approve(fjords), approve(lakes), deny(lakes))]:
        with pytest.raises(letta_client.BadRequestError) as incomplete:
            send(client, gated.id, way, **answer(*entries))
        assert lakes.tool_call_id in str(incomplete.value)
    assert pending(client, gated.id) == [fjords, lakes], "a refused answer settles nothing"
    said = send(other, gated.id, way, **answer(approve(fjords), deny(lakes, "Too wet.")))
    assert (said.kinds, said.stop_reason) == (ANSWERED, "end_turn")
    # Denials come before what ran.
    assert [(one.tool_call_id, one.status) for one in said.returns] == [
        (lakes.tool_call_id, "error"), (fjords.tool_call_id, "success"),
    ]
    assert "fjords" in human(client, gated.id) and "lakes" not in human(client, gated.id)


@pytest.mark.parametrize("way", WAYS)
def test_a_free_call_waits_beside_a_gated_one(client: Letta, other: Letta, gated: AgentState, way: str) -> None:
    asked = send(client, gated.id, way, input=EVE + FJORDS)
    assert asked.kinds == ["tool_call_message", *ASKED]
    [gate] = assert_asks(other, gated.id, asked, "memory_insert")
    [free] = asked.calls(ToolCallMessage)
    assert (free.name, human(client, gated.id)) == ("memory_replace", "The human's name is Ada."), "nothing has run"
    said = send(other, gated.id, way, **answer(deny(gate)))
    assert [(one.tool_call_id, one.status) for one in said.returns] == [
        (gate.tool_call_id, "error"), (free.tool_call_id, "success"),
    ]
    assert human(client, gated.id) == "The human's name is Eve."
    again = send(client, gated.id, way, **answer(deny(gate)))
    assert (again.kinds, again.stop_reason) == (["assistant_message"], "end_turn")


def test_a_message_while_calls_wait_is_refused(gated: AgentState) -> None:
    sent: list[httpx.Request] = []
    http_client = DefaultHttpxClient(event_hooks={"request": [sent.append]})
    with Letta(base_url=HERE, api_key=KEY, http_client=http_client, _strict_response_validation=True) as client:
        asked = send(client, gated.id, "steps", input=FJORDS)
        request_id = asked.messages[0].id
        runs = [run.id for run in client.runs.list(agent_id=gated.id)]
        for way in WAYS:
            sent.clear()
            with pytest.raises(letta_client.ConflictError) as refused:
                send(client, gated.id, way, input="hello")
            body = typing.cast(dict[str, typing.Any], refused.value.body)
            assert body["detail"]["code"] == "PENDING_APPROVAL" and body["detail"]["message"]
            assert body["detail"]["pending_request_id"] == request_id
            assert len(sent) == 1, "the SDK does not try again what cannot succeed"
        assert [run.id for run in client.runs.list(agent_id=gated.id)] == runs, "a refused message makes no run"
        said = send(client, gated.id, "steps", **answer(approve(asked.calls()[0])))
        assert said.stop_reason == "end_turn"


@pytest.mark.parametrize("way", WAYS)
def test_an_answer_that_comes_again_changes_nothing(client: Letta, other: Letta, gated: AgentState, way: str) -> None:
    [call] = send(client, gated.id, way, input=FJORDS).calls()
    first = send(client, gated.id, way, **answer(approve(call), otid="an-answer"))
    again = send(other, gated.id, way, **answer(approve(call), otid="an-answer"))
    if way != "async":
        assert again.run_id == first.run_id, "the same request is the same run"
    # Without the key it is a request of its own, which finds the call answered: the agent goes on.
    third = send(other, gated.id, way, **answer(deny(call)))
    assert (third.kinds, third.stop_reason) == (["assistant_message"], "end_turn")
    assert human(client, gated.id).count("fjords") == 1
    results = [item for item in history(client, gated.id) if item.message_type == "tool_return_message"]
    assert [one.status for item in results for one in item.tool_returns] == ["success"]


def test_an_answer_to_nothing_is_refused(client: Letta, gated: AgentState) -> None:
    call = ToolCall(tool_call_id="call_nothing", name="memory_insert", arguments="{}")
    with pytest.raises(letta_client.BadRequestError) as nothing:
        send(client, gated.id, "steps", **answer(approve(call)))
    assert "No tool call is currently awaiting approval" in str(nothing.value)
    [real] = send(client, gated.id, "steps", input=FJORDS).calls()
    with pytest.raises(letta_client.BadRequestError) as other_call:
        send(client, gated.id, "steps", **answer(approve(call)))
    assert "call_nothing" in str(other_call.value) and real.tool_call_id in str(other_call.value)
    with pytest.raises(letta_client.UnprocessableEntityError):
        client.agents.messages.create(gated.id, messages=[{"type": "approval", "approvals": []}])


def test_the_older_form_of_an_answer(client: Letta, other: Letta, gated: AgentState) -> None:
    asked = send(client, gated.id, "tokens", input=FJORDS)
    request_id = asked.messages[0].id
    message = {"type": "approval", "approval_request_id": request_id, "approve": False, "reason": "No."}
    said = send(other, gated.id, "tokens", messages=[message])
    assert (said.kinds, said.returns[0].tool_return.endswith("User reason: No.")) == (ANSWERED, True)


def test_what_comes_with_an_answer_is_seen_after_it(client: Letta, gated: AgentState) -> None:
    [call] = send(client, gated.id, "steps", input=FJORDS).calls()
    request = answer(approve(call))
    request["messages"].append({"role": "user", "content": "And what is new?"})
    said = send(client, gated.id, "steps", **request)
    assert (said.kinds, said.stop_reason) == (ANSWERED, "end_turn")
    assert "And what is new?" in said.text


def test_a_run_that_waits_is_cancelled(client: Letta, other: Letta, gated: AgentState) -> None:
    asked = send(client, gated.id, "tokens", input=EVE + FJORDS)
    assert other.agents.messages.cancel(gated.id) == {asked.run_id: "cancelled"}
    run = finished(client, asked.run_id)
    assert (run.status, run.stop_reason) == ("cancelled", "cancelled")
    assert pending(client, gated.id) == []
    listed = history(client, gated.id)
    kinds = [item.message_type for item in listed]
    assert kinds == ["user_message", "tool_call_message", *ASKED, "approval_response_message", "tool_return_message"]
    assert all("cancelled" in one.reason for one in listed[3].approvals)
    assert [one.status for one in listed[4].tool_returns] == ["error", "error"]
    assert human(client, gated.id) == "The human's name is Ada."
    assert send(client, gated.id, "create", input="hello").kinds == ["assistant_message"]
    with pytest.raises(letta_client.ConflictError):
        client.agents.messages.cancel(gated.id)


@pytest.mark.parametrize("way", WAYS)
def test_a_tool_of_the_client(client: Letta, other: Letta, agent: AgentState, way: str) -> None:
    asked = send(client, agent.id, way, input=CALL_LOOK, client_tools=[LOOK])
    [call] = assert_asks(other, agent.id, asked, "look_outside")
    assert json.loads(call.arguments) == {"window": "north"}
    for tool_return, shown in [("Snow.", "Snow."), ([{"type": "text", "text": "A view:"}, IMAGE], "A view:")]:
        message = {"type": "tool_return", "tool_returns": [returned(call, tool_return, stderr=["brr"])]}
        said = send(other, agent.id, way, messages=[message], client_tools=[LOOK])
        assert (said.kinds, said.stop_reason) == (ANSWERED, "end_turn")
        [result] = said.returns
        assert (result.status, result.stderr) == ("success", ["brr"])
        assert shown in said.text
        if isinstance(tool_return, str):
            assert result.tool_return == tool_return
        else:
            assert [part.type for part in result.tool_return] == ["text", "image"]
            assert result.tool_return[1].source.data == PNG
        [call] = send(client, agent.id, way, input=CALL_LOOK, client_tools=[LOOK]).calls()
    # What failed at the client is a result like any other.
    said = send(other, agent.id, way, **answer(returned(call, "The blind is shut.", status="error")))
    assert (said.returns[0].status, said.stop_reason) == ("error", "end_turn")
    # The next request does not bring the tool along, so there is none.
    said = send(client, agent.id, way, input=CALL_LOOK)
    assert (said.kinds, said.stop_reason) == (["tool_call_message", *ANSWERED], "end_turn")
    assert (said.returns[0].status, "ToolConstraintError" in said.returns[0].tool_return) == ("error", True)


@pytest.mark.parametrize("way", WAYS)
def test_a_tool_of_the_client_hides_one_of_the_server(client: Letta, agent: AgentState, way: str) -> None:
    own = {"name": "memory_insert", "description": "Writes into the client's book."}
    [call] = send(client, agent.id, way, input=FJORDS, client_tools=[own]).calls()
    said = send(client, agent.id, way, **answer(returned(call, "In the book.")))
    assert said.returns[0].tool_return == "In the book."
    assert "fjords" not in human(client, agent.id)


@pytest.mark.parametrize("way", WAYS[:-1])
def test_the_async_client_does_the_same(way: str) -> None:
    async def work() -> None:
        async with (
            AsyncLetta(base_url=HERE, api_key=KEY, max_retries=0, _strict_response_validation=True) as here,
            AsyncLetta(base_url=THERE, api_key=KEY, max_retries=0, _strict_response_validation=True) as there,
        ):
            made = await here.agents.create(
                name="async gated",
                memory_blocks=[{"label": "human", "value": "Ada."}],
                tool_rules=[GATE],
                parallel_tool_calls=True,
            )
            asked = await send_async(here, made.id, way, input=FJORDS + CALL_LOOK, client_tools=[LOOK])
            assert (asked.kinds, asked.stop_reason) == (ASKED, "requires_approval")
            state = await there.agents.retrieve(made.id)
            assert state.pending_approval is not None and state.pending_approval.tool_calls == asked.calls()
            with pytest.raises(letta_client.ConflictError):
                await send_async(there, made.id, way, input="hello")
            insert, look = asked.calls()
            entries = (approve(insert), returned(look, "Snow."))
            said = await send_async(there, made.id, way, client_tools=[LOOK], **answer(*entries))
            assert (said.kinds, said.stop_reason) == (ANSWERED, "end_turn")
            assert [one.tool_call_id for one in said.returns] == [look.tool_call_id, insert.tool_call_id]
            asked = await send_async(here, made.id, way, input=FJORDS)
            assert await there.agents.messages.cancel(made.id) == {asked.run_id: "cancelled"}
            assert (await here.runs.retrieve(asked.run_id)).status == "cancelled"
            await here.agents.delete(made.id)

    asyncio.run(work())
