"""Gives an agent a tool that runs here, in this program, and not at the server.

    python client_tool.py               lists the directory that it is started in
    python client_tool.py /tmp          lists another one

The request brings the tool along. When the model calls it the run ends with `requires_approval`; this program does the
work and sends the result back, and the agent goes on with it.
"""

import json
import os
import sys

from letta_client import Letta  # pip install letta-client==1.12.1


def list_files(directory: str) -> str:
    return ", ".join(sorted(os.listdir(directory))) or "The directory is empty."


LIST_FILES = {
    "name": "list_files",
    "description": "Lists a directory of the user's computer.",
    "parameters": {
        "type": "object",
        "properties": {"directory": {"type": "string", "description": "Its path."}},
        "required": ["directory"],
    },
}


def run(call) -> dict:
    """Calls the tool, and makes of whatever happens a result that the model can read."""
    print(f"The agent calls {call.name}({call.arguments}).")
    try:
        if call.name != "list_files":
            raise ValueError(f"there is no tool {call.name} here")
        status, result = "success", list_files(**json.loads(call.arguments))
    except Exception as error:
        status, result = "error", f"{type(error).__name__}: {error}"
    print(f"  {status}: {result}")
    return {"type": "tool", "tool_call_id": call.tool_call_id, "status": status, "tool_return": result}


client = Letta(base_url=os.environ.get("LETTA_BASE_URL", "http://localhost:8283"))
# The built-in model calls what its directive says. For another one, set its key for the server, name it here,
# model="openai/gpt-4.1-mini" for example, and ask in plain words: input="Which files are here?"
agent = client.agents.create(name="client tool", model="holdfast/demo")
directory = json.dumps({"directory": sys.argv[1] if len(sys.argv) > 1 else "."})
answer = client.agents.messages.create(
    agent.id, input=f"[[demo tool=list_files {directory}]]", client_tools=[LIST_FILES]
)

calls = 0
while answer.stop_reason.stop_reason == "requires_approval":
    # The calls that wait are the last message. Results may come in any order, but together.
    results = [run(call) for call in answer.messages[-1].tool_calls]
    calls += len(results)
    answer = client.agents.messages.create(
        agent.id, messages=[{"type": "approval", "approvals": results}], client_tools=[LIST_FILES]
    )

for message in answer.messages:
    if message.message_type == "assistant_message":
        print(f"The agent says: {message.content}")
if calls == 0 or answer.stop_reason.stop_reason != "end_turn":
    sys.exit(f"After {calls} calls the run ended with {answer.stop_reason.stop_reason}.")
