"""Reads on where `background_run.py` left, in a new process and, if you like, at another API of the same cluster.

    python reconnect.py

It knows nothing but what `run.json` says: the run, and the number of the last event that was read. Afterwards it reads the
whole run once more and compares, to show that nothing is missing and nothing came twice.
"""

import json
import os
import sys
from pathlib import Path

from letta_client import Letta  # pip install letta-client==1.12.1

STATE = Path("run.json")

if not STATE.exists():
    sys.exit("There is no run.json here: start background_run.py first, in this directory.")
state = json.loads(STATE.read_text())
run_id, cursor = state["run_id"], state["seq_id"]

client = Letta(base_url=os.environ.get("LETTA_BASE_URL", "http://localhost:8283"))

print(f"Run {run_id} after event {cursor}:")
rest, stop_reason = [], None
for event in client.runs.messages.stream(run_id, starting_after=cursor):
    # If the server was killed in the middle of an answer, it says which messages it begins anew.
    if getattr(event, "superseded_message_ids", None):
        print("\n(The server was interrupted. The answer begins anew.)")
    if event.message_type == "assistant_message":
        print(event.content, end="", flush=True)
    elif event.message_type == "stop_reason":
        stop_reason = event.stop_reason
    # While a run is silent, pings repeat the last number: they keep the connection alive and are no news.
    if (getattr(event, "seq_id", None) or 0) > cursor:
        rest.append(event)
        cursor = event.seq_id
if stop_reason is None:
    sys.exit(f"\nCut again, after event {cursor}: start this program once more.")
print(f"\nEnded with {stop_reason} after event {cursor}.")

whole = [event for event in client.runs.messages.stream(run_id, starting_after=0) if getattr(event, "seq_id", None)]
if [event.seq_id for event in whole] != list(range(1, cursor + 1)):
    sys.exit("The events of the run are not numbered 1, 2, 3 and so on.")
if whole[state["seq_id"] :] != rest:
    sys.exit("What was read in two parts is not what is read at once.")
print(f"Read in two parts: events 1 to {state['seq_id']}, and {len(rest)} more. None is missing, none came twice.")
if stop_reason != "end_turn":
    sys.exit(1)
