/**
 * Reads on where `background_run.ts` left, in a new process and, if you like, at another API of the same cluster.
 *
 *     npx tsx reconnect.ts
 *
 * It knows nothing but what `run.json` says: the run, and the number of the last event that was read. Afterwards it reads
 * the whole run once more and compares, to show that nothing is missing and nothing came twice.
 */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import Letta from '@letta-ai/letta-client';

const STATE = 'run.json';

if (!existsSync(STATE)) {
  console.error('There is no run.json here: start background_run.ts first, in this directory.');
  process.exit(1);
}
const state: { run_id: string; seq_id: number } = JSON.parse(readFileSync(STATE, 'utf8'));

const client = new Letta({ baseURL: process.env.LETTA_BASE_URL ?? 'http://localhost:8283' });

/** The number of an event. What ends a stream has none. */
const numberOf = (event: object) => ('seq_id' in event && typeof event.seq_id === 'number' ? event.seq_id : 0);

console.log(`Run ${state.run_id} after event ${state.seq_id}:`);
let [cursor, stopReason]: [number, string | undefined] = [state.seq_id, undefined];
const rest: object[] = [];
for await (const event of await client.runs.messages.stream(state.run_id, { starting_after: cursor })) {
  // If the server was killed in the middle of an answer, it says which messages it begins anew.
  if ('superseded_message_ids' in event) console.log('\n(The server was interrupted. The answer begins anew.)');
  if (event.message_type === 'assistant_message') process.stdout.write(String(event.content));
  if (event.message_type === 'stop_reason') stopReason = event.stop_reason;
  // While a run is silent, pings repeat the last number: they keep the connection alive and are no news.
  if (numberOf(event) > cursor) {
    rest.push(event);
    cursor = numberOf(event);
  }
}
assert(stopReason, `cut again, after event ${cursor}: start this program once more`);
console.log(`\nEnded with ${stopReason} after event ${cursor}.`);

const whole: object[] = [];
for await (const event of await client.runs.messages.stream(state.run_id, { starting_after: 0 })) {
  if (numberOf(event) > 0) whole.push(event);
}
const numbers = Array.from({ length: cursor }, (_, index) => index + 1);
assert.deepEqual(whole.map(numberOf), numbers, 'events are numbered 1, 2, 3 and so on');
assert.deepEqual(whole.slice(state.seq_id), rest, 'what was read in two parts is what is read at once');
console.log(`Read in two parts: events 1 to ${state.seq_id}, and ${rest.length} more. None is missing, none came twice.`);
assert.equal(stopReason, 'end_turn');
