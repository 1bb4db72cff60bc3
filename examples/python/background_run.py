"""Starts a run in the background and prints what the agent says, token by token.

    python background_run.py                        until the answer is whole, or until you press Ctrl-C
    python background_run.py --leave-after 20       goes away after 20 events, as a client does whose connection breaks
    python background_run.py "Hello!"               another message

The run does not notice whether anybody reads. `run.json` always says how far the reader got: `reconnect.py` reads on.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import httpx
from letta_client import Letta  # pip install letta-client==1.12.1

STATE = Path("run.json")

arguments = argparse.ArgumentParser()
arguments.add_argument("message", nargs="?", default="[[demo tokens=200 delay_ms=50]]")
arguments.add_argument("--leave-after", type=int, metavar="EVENTS")
given = arguments.parse_args()

client = Letta(base_url=os.environ.get("LETTA_BASE_URL", "http://localhost:8283"))
# The built-in model needs no key and does what its directive says. For another one, set its key for the server, name it
# here, model="openai/gpt-4.1-mini" for example, and give a message in plain words.
agent = client.agents.create(name="background", model="holdfast/demo")


def remember(run_id: str, seq_id: int) -> None:
    # Written aside and moved into place, so that a program that is killed leaves the old or the new state, and no half.
    aside = STATE.with_suffix(".new")
    aside.write_text(json.dumps({"run_id": run_id, "seq_id": seq_id}))
    aside.replace(STATE)


seq_id, stop_reason = 0, None
# background: the run outlives this program. stream_tokens: events are tokens, not whole messages.
stream = client.agents.messages.create(
    agent.id, input=given.message, streaming=True, background=True, stream_tokens=True
)
try:
    for event in stream:
        if event.message_type == "ping" and seq_id == 0:
            print(f"Run {event.run_id}:")  # the first event says which run it is
        elif event.message_type == "assistant_message":
            print(event.content, end="", flush=True)
        elif event.message_type == "stop_reason":
            stop_reason = event.stop_reason
        if getattr(event, "seq_id", None):
            seq_id = event.seq_id
            remember(event.run_id, seq_id)
        if given.leave_after and seq_id >= given.leave_after:
            print(f"\nLeft after event {seq_id}. The run goes on.")
            sys.exit()
except (KeyboardInterrupt, httpx.TransportError):
    pass

# A stream that ends without a stop reason was cut, with or without an error.
if stop_reason is None:
    sys.exit(f"\nCut after event {seq_id}. The run goes on, and reconnect.py reads on.")
print(f"\nEnded with {stop_reason} after event {seq_id}.")
if stop_reason != "end_turn":
    sys.exit(1)
