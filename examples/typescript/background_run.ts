/**
 * Starts a run in the background and prints what the agent says, token by token.
 *
 *     npx tsx background_run.ts                      until the answer is whole, or until you press Ctrl-C
 *     npx tsx background_run.ts --leave-after 20     goes away after 20 events, as a client does whose connection breaks
 *     npx tsx background_run.ts 'Hello!'             another message
 *
 * The run does not notice whether anybody reads. `run.json` always says how far the reader got: `reconnect.ts` reads on.
 */
import { renameSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import Letta, { APIError } from '@letta-ai/letta-client';

const STATE = 'run.json';

const { values, positionals } = parseArgs({ allowPositionals: true, options: { 'leave-after': { type: 'string' } } });
const input = positionals[0] ?? '[[demo tokens=200 delay_ms=50]]';
const leaveAfter = Number(values['leave-after'] ?? Infinity);

const client = new Letta({ baseURL: process.env.LETTA_BASE_URL ?? 'http://localhost:8283' });
// The built-in model needs no key and does what its directive says. For another one, set its key for the server, name it
// here, model: 'openai/gpt-4.1-mini' for example, and give a message in plain words.
const agent = await client.agents.create({ name: 'background', model: 'holdfast/demo' });

function remember(runId: string, seqId: number) {
  // Written aside and moved into place, so that a program that is killed leaves the old or the new state, and no half.
  writeFileSync(`${STATE}.new`, JSON.stringify({ run_id: runId, seq_id: seqId }));
  renameSync(`${STATE}.new`, STATE);
}

let [seqId, stopReason]: [number, string | undefined] = [0, undefined];
// background: the run outlives this program. stream_tokens: events are tokens, not whole messages.
const request = { input, streaming: true, background: true, stream_tokens: true } as const;
const stream = await client.agents.messages.create(agent.id, request);
try {
  for await (const event of stream) {
    if (event.message_type === 'ping' && seqId === 0) {
      console.log(`Run ${event.run_id}:`); // the first event says which run it is
    } else if (event.message_type === 'assistant_message') {
      process.stdout.write(String(event.content));
    } else if (event.message_type === 'stop_reason') {
      stopReason = event.stop_reason;
    }
    if ('seq_id' in event && event.seq_id && event.run_id) {
      seqId = event.seq_id;
      remember(event.run_id, seqId);
    }
    if (seqId >= leaveAfter) {
      console.log(`\nLeft after event ${seqId}. The run goes on.`);
      process.exit();
    }
  }
} catch (error) {
  if (error instanceof APIError) throw error; // the run failed, and this says why
}

// A stream that ends without a stop reason was cut, with or without an error.
const end = stopReason ? `Ended with ${stopReason}` : 'Cut, and to be continued by reconnect.ts,';
console.log(`\n${end} after event ${seqId}.`);
process.exitCode = stopReason === 'end_turn' ? 0 : 1;
