"""Reads every shape of event that the Rust tests received with the SDK's own union, strictly.

    check_events.py DIRECTORY [--some]

DIRECTORY has files of one JSON event a line (tests/it/recorded.rs). With --some there must be events.
"""

from __future__ import annotations

import json
import pathlib
import sys
import typing
from collections.abc import Iterable

import pydantic
import strict
from letta_client.types.agents.letta_streaming_response import LettaStreamingResponse

UNION: pydantic.TypeAdapter[typing.Any] = pydantic.TypeAdapter(LettaStreamingResponse)
# The SDK shows these, but its union of streams does not have them.
BESIDE = ("summary_message", "event_message")


def fault(line: str) -> str | None:
    """What keeps an event from being what it says, or nothing."""
    kind = json.loads(line).get("message_type")
    expected = (strict.MESSAGES | strict.STREAM_ONLY).get(kind)
    if expected is None:
        return f"no class for message_type {kind!r}"
    adapter = pydantic.TypeAdapter(expected) if kind in BESIDE else UNION
    try:
        item = adapter.validate_json(line, strict=True)
    except pydantic.ValidationError as error:
        return str(error)
    return None if type(item) is expected else f"it became {type(item).__name__}"


def faults(lines: Iterable[str]) -> list[str]:
    """What is wrong with events, each with the event."""
    found = ((line, fault(line)) for line in lines)
    return [f"{line.strip()}\n    {what}" for line, what in found if what]


def main(directory: str, *options: str) -> int:
    """Checks the files of a directory."""
    files = sorted(pathlib.Path(directory).glob("*.jsonl"))
    lines = sorted({line for file in files for line in file.read_text("utf-8").splitlines()})
    kinds = {json.loads(line).get("message_type") for line in lines}
    found = faults(lines)
    for what in found:
        print(what)
    print(f"{len(lines)} events of {len(kinds)} kinds, {len(found)} of them wrong")
    if "--some" in options and not lines:
        print("no events were recorded")
        return 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
