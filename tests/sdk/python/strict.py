"""Strict reading of what the SDK hands out.

The SDK is lenient: an object that does not fit its class silently becomes another one (in streams, a SystemMessage). So
each object is checked twice: it is of the class that its message_type stands for, and its data passes that class's own
validation once more, strictly.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable

import pydantic
from letta_client.types import agents
from letta_client.types.agents import letta_streaming_response as streaming
from letta_client.types.agents.event_message import EventMessage
from letta_client.types.agents.summary_message import SummaryMessage
from letta_client.types.tool_return_message import ToolReturnMessage

MESSAGES: dict[str, type[pydantic.BaseModel]] = {
    "system_message": agents.SystemMessage,
    "user_message": agents.UserMessage,
    "reasoning_message": agents.ReasoningMessage,
    "hidden_reasoning_message": agents.HiddenReasoningMessage,
    "tool_call_message": agents.ToolCallMessage,
    "tool_return_message": ToolReturnMessage,
    "assistant_message": agents.AssistantMessage,
    "approval_request_message": agents.ApprovalRequestMessage,
    "approval_response_message": agents.ApprovalResponseMessage,
    "summary_message": SummaryMessage,
    "event_message": EventMessage,
}
STREAM_ONLY: dict[str, type[pydantic.BaseModel]] = {
    "ping": streaming.LettaPing,
    "error_message": streaming.LettaErrorMessage,
    "stop_reason": streaming.LettaStopReason,
    "usage_statistics": streaming.LettaUsageStatistics,
}


def validate(item: pydantic.BaseModel, expected: type[pydantic.BaseModel] | None = None) -> None:
    """Asserts that the object's data fits its class without any leniency of the SDK."""
    if expected is not None:
        assert type(item) is expected, f"{type(item).__name__} instead of {expected.__name__}: {item!r}"
    pydantic.TypeAdapter(type(item)).validate_json(item.model_dump_json(by_alias=True, warnings="error"))


def message(item: pydantic.BaseModel) -> None:
    """Asserts that an entry of a message list is what it says."""
    validate(item, MESSAGES[typing.cast(str, getattr(item, "message_type"))])


def event(item: pydantic.BaseModel) -> None:
    """Asserts that an item of a stream is what it says."""
    kind = typing.cast(str, getattr(item, "message_type"))
    validate(item, (MESSAGES | STREAM_ONLY)[kind])


def stream(items: Iterable[pydantic.BaseModel], cursor: int = 0) -> list[str]:
    """Asserts that a background stream read after `cursor` is whole; answers the kinds, deltas of a slice once."""
    shape: list[tuple[str, object]] = []
    for item in items:
        event(item)
        kind = typing.cast(str, getattr(item, "message_type"))
        seq = getattr(item, "seq_id", None)
        if kind == "ping" and seq == cursor and cursor > 0:
            continue  # a keepalive: it shows the last number and takes none
        if kind in ("stop_reason", "usage_statistics"):
            assert seq is None, "terminal frames show no number"
        else:
            assert seq == cursor + 1, f"gap or repeat: {seq} after {cursor}"
            cursor += 1
        slice_ = (kind, getattr(item, "otid", None))
        if not shape or shape[-1] != slice_:
            shape.append(slice_)
    return [kind for kind, _ in shape]
