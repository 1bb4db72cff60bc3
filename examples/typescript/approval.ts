/**
 * Lets an agent use a tool only after a human has agreed.
 *
 *     npx tsx approval.ts                asks you
 *     npx tsx approval.ts --approve
 *     npx tsx approval.ts --deny
 *
 * The run ends when the tool is to be called. The answer is a new run, which goes on where the first one stopped; it may
 * come much later, and from another program: the agent's id is all that it needs.
 */
import assert from 'node:assert/strict';
import { createInterface } from 'node:readline/promises';
import { parseArgs } from 'node:util';
import Letta from '@letta-ai/letta-client';

// Tools that run at the server are written in Python.
const SOURCE = `
def transfer_money(to: str, amount: int) -> str:
    """Transfer money.

    Args:
        to: Who gets it.
        amount: How much, in euros.
    """
    return f"{to} has {amount} euros more."
`;

const { values: given } = parseArgs({ options: { approve: { type: 'boolean' }, deny: { type: 'boolean' } } });

/** Asks the human, unless the command line has answered. */
async function agrees(question: string): Promise<boolean> {
  if (given.approve || given.deny) {
    console.log(question, given.deny ? 'No.' : 'Yes.');
    return !given.deny;
  }
  const terminal = createInterface({ input: process.stdin, output: process.stdout });
  const said = await terminal.question(`${question} [y/N] `);
  terminal.close();
  return ['y', 'yes'].includes(said.trim().toLowerCase());
}

const client = new Letta({ baseURL: process.env.LETTA_BASE_URL ?? 'http://localhost:8283' });
const tool = await client.tools.upsert({ source_code: SOURCE, default_requires_approval: true });
// The built-in model calls what its directive says. For another one, set its key for the server, name it here,
// model: 'openai/gpt-4.1-mini' for example, and ask in plain words: input: 'Please give Ada 250 euros.'
const agent = await client.agents.create({ name: 'approval', model: 'holdfast/demo', tool_ids: [tool.id] });
const asked = await client.agents.messages.create(agent.id, {
  input: '[[demo tool=transfer_money {"to": "Ada", "amount": 250}]]',
});
assert.equal(asked.stop_reason.stop_reason, 'requires_approval');
console.log('The run ended with requires_approval. Nothing has been called yet.');

// Everything that waits is answered together.
const waiting = (await client.agents.retrieve(agent.id)).pending_approval?.tool_calls;
assert(Array.isArray(waiting), 'the agent says what waits');
const approvals: Letta.Agents.ApprovalReturn[] = [];
for (const call of waiting) {
  const approve = await agrees(`May the agent call ${call.name}(${call.arguments})?`);
  const reason = approve ? null : 'Too much.';
  approvals.push({ type: 'approval', tool_call_id: call.tool_call_id, approve, reason });
}

const done = await client.agents.messages.create(agent.id, { messages: [{ type: 'approval', approvals }] });
assert.notEqual(done.messages[0]?.run_id, asked.messages[0]?.run_id, 'the answer is a run of its own');
console.log(`The answer is a new run, ${done.messages[0]?.run_id}:`);
const statuses: string[] = [];
for (const message of done.messages) {
  if (message.message_type === 'tool_return_message') {
    for (const result of message.tool_returns ?? []) {
      statuses.push(result.status);
      console.log(`  tool (${result.status}): ${result.tool_return}`);
    }
  } else if (message.message_type === 'assistant_message') {
    console.log(`  agent: ${message.content}`);
  }
}
assert.deepEqual(statuses, approvals.map(({ approve }) => (approve ? 'success' : 'error')));
assert.equal(done.stop_reason.stop_reason, 'end_turn');
