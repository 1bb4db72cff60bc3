"""Lets an agent use a tool only after a human has agreed.

    python approval.py                  asks you
    python approval.py --approve
    python approval.py --deny

The run ends when the tool is to be called. The answer is a new run, which goes on where the first one stopped; it may come
much later, and from another program: the agent's id is all that it needs.
"""

import argparse
import os
import sys

from letta_client import Letta  # pip install letta-client==1.12.1

SOURCE = '''
def transfer_money(to: str, amount: int) -> str:
    """Transfer money.

    Args:
        to: Who gets it.
        amount: How much, in euros.
    """
    return f"{to} has {amount} euros more."
'''

arguments = argparse.ArgumentParser()
verdicts = arguments.add_mutually_exclusive_group()
verdicts.add_argument("--approve", dest="approve", action="store_true", default=None)
verdicts.add_argument("--deny", dest="approve", action="store_false", default=None)
given = arguments.parse_args()

client = Letta(base_url=os.environ.get("LETTA_BASE_URL", "http://localhost:8283"))
tool = client.tools.upsert(source_code=SOURCE, default_requires_approval=True)
# The built-in model calls what its directive says. For another one, set its key for the server, name it here,
# model="openai/gpt-4.1-mini" for example, and ask in plain words: input="Please give Ada 250 euros."
agent = client.agents.create(name="approval", model="holdfast/demo", tool_ids=[tool.id])
asked = client.agents.messages.create(agent.id, input='[[demo tool=transfer_money {"to": "Ada", "amount": 250}]]')

if asked.stop_reason.stop_reason != "requires_approval":
    sys.exit(f"The agent did not ask: {asked.stop_reason.stop_reason}")
print("The run ended with requires_approval. Nothing has been called yet.")

# Everything that waits is answered together.
answers = []
for call in client.agents.retrieve(agent.id).pending_approval.tool_calls:
    question = f"May the agent call {call.name}({call.arguments})?"
    approve = given.approve
    if approve is None:
        approve = input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    else:
        print(question, "Yes." if approve else "No.")
    answer = {"type": "approval", "tool_call_id": call.tool_call_id, "approve": approve}
    answers.append(answer if approve else {**answer, "reason": "Too much."})

done = client.agents.messages.create(agent.id, messages=[{"type": "approval", "approvals": answers}])
if done.messages[0].run_id == asked.messages[0].run_id:
    sys.exit("The answer should be a run of its own.")
print(f"The answer is a new run, {done.messages[0].run_id}:")
results = []
for message in done.messages:
    if message.message_type == "tool_return_message":
        results += message.tool_returns
        for result in message.tool_returns:
            print(f"  tool ({result.status}): {result.tool_return}")
    elif message.message_type == "assistant_message":
        print(f"  agent: {message.content}")

expected = ["success" if answer["approve"] else "error" for answer in answers]
if [result.status for result in results] != expected or done.stop_reason.stop_reason != "end_turn":
    sys.exit("That is not what was agreed.")
