/**
 * Gives an agent a tool that runs here, in this program, and not at the server.
 *
 *     npx tsx client_tool.ts             lists the directory that it is started in
 *     npx tsx client_tool.ts /tmp        lists another one
 *
 * The request brings the tool along. When the model calls it the run ends with `requires_approval`; this program does the
 * work and sends the result back, and the agent goes on with it.
 */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import Letta from '@letta-ai/letta-client';

function listFiles({ directory }: { directory: string }): string {
  return readdirSync(directory).sort().join(', ') || 'The directory is empty.';
}

const client_tools = [
  {
    name: 'list_files',
    description: "Lists a directory of the user's computer.",
    parameters: {
      type: 'object',
      properties: { directory: { type: 'string', description: 'Its path.' } },
      required: ['directory'],
    },
  },
];

/** Calls the tool, and makes of whatever happens a result that the model can read. */
function run(call: Letta.Agents.ToolCall): Letta.Agents.ToolReturn {
  console.log(`The agent calls ${call.name}(${call.arguments}).`);
  const returned = (status: 'success' | 'error', tool_return: string): Letta.Agents.ToolReturn => {
    console.log(`  ${status}: ${tool_return}`);
    return { type: 'tool', tool_call_id: call.tool_call_id, status, tool_return };
  };
  try {
    if (call.name !== 'list_files') throw new Error(`there is no tool ${call.name} here`);
    return returned('success', listFiles(JSON.parse(call.arguments)));
  } catch (error) {
    return returned('error', String(error));
  }
}

const client = new Letta({ baseURL: process.env.LETTA_BASE_URL ?? 'http://localhost:8283' });
// The built-in model calls what its directive says. For another one, set its key for the server, name it here,
// model: 'openai/gpt-4.1-mini' for example, and ask in plain words: input: 'Which files are here?'
const agent = await client.agents.create({ name: 'client tool', model: 'holdfast/demo' });
const directory = JSON.stringify({ directory: process.argv[2] ?? '.' });
let answer = await client.agents.messages.create(agent.id, {
  input: `[[demo tool=list_files ${directory}]]`,
  client_tools,
});

let calls = 0;
while (answer.stop_reason.stop_reason === 'requires_approval') {
  // The calls that wait are the last message. Results may come in any order, but together.
  const last = answer.messages.at(-1);
  assert(last?.message_type === 'approval_request_message' && Array.isArray(last.tool_calls));
  const approvals = last.tool_calls.map(run);
  calls += approvals.length;
  answer = await client.agents.messages.create(agent.id, { messages: [{ type: 'approval', approvals }], client_tools });
}

for (const message of answer.messages) {
  if (message.message_type === 'assistant_message') console.log(`The agent says: ${message.content}`);
}
assert(calls > 0, 'the agent called the tool');
assert.equal(answer.stop_reason.stop_reason, 'end_turn');
