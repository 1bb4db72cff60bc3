"""The check of recorded events must be able to fail."""

from __future__ import annotations

import json
import typing

import pytest
from check_events import faults

PING: dict[str, typing.Any] = {"message_type": "ping", "id": "ping-1", "date": "2026-01-15T10:00:00+00:00", "seq_id": 1}
CALL = {"name": None, "arguments": "{", "tool_call_id": "call_1"}
DELTA = {**PING, "message_type": "tool_call_message", "id": "message-1", "tool_call": CALL, "tool_calls": CALL}
SUMMARY = {**PING, "message_type": "summary_message", "summary": "Much was said."}


@pytest.mark.parametrize("event", [PING, DELTA, SUMMARY, {"message_type": "stop_reason", "stop_reason": "end_turn"}])
def test_good_events_pass(event: dict[str, typing.Any]) -> None:
    assert faults([json.dumps(event)]) == []


@pytest.mark.parametrize("event", [
    {"message_type": "ping"},
    {**PING, "seq_id": "1"},
    {**PING, "date": "yesterday"},
    {**PING, "message_type": "pong"},
    {**DELTA, "tool_calls": [CALL]},
    {**SUMMARY, "summary": None},
    {"message_type": "stop_reason", "stop_reason": "bored"},
])
def test_bad_events_are_found(event: dict[str, typing.Any]) -> None:
    assert len(faults([json.dumps(event)])) == 1
