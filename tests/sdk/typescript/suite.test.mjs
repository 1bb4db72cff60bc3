// The official TypeScript SDK against a running server. It checks nothing at run time, so the suite does: each item has the
// keys that its type declares as required, and a stream has no gap and no repeat.
//
// HOLDFAST_BASE_URL is one API, HOLDFAST_OTHER_BASE_URL another one of the same cluster (or the same one).

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import Letta, { APIError, BadRequestError, ConflictError, NotFoundError, UnprocessableEntityError } from '@letta-ai/letta-client';

const here = process.env.HOLDFAST_BASE_URL;
const there = process.env.HOLDFAST_OTHER_BASE_URL ?? here;
const apiKey = process.env.HOLDFAST_API_KEY ?? null;
const client = new Letta({ baseURL: here, apiKey, maxRetries: 0 });
const other = new Letta({ baseURL: there, apiKey, maxRetries: 0 });

const SLOW = '[[demo tokens=40 delay_ms=30]]';
const REMEMBER = '[[demo tool=memory_insert {"label":"human","new_string":"She likes fjords."}]]';
const PLAIN = ['ping', 'assistant_message', 'stop_reason', 'usage_statistics'];
const TOOL = ['ping', 'tool_call_message', 'tool_return_message', 'assistant_message', 'stop_reason', 'usage_statistics'];

const REQUIRED = {
  ping: ['id', 'date'],
  user_message: ['id', 'date', 'content'],
  system_message: ['id', 'date', 'content'],
  assistant_message: ['id', 'date', 'content'],
  reasoning_message: ['id', 'date', 'reasoning'],
  tool_call_message: ['id', 'date', 'tool_call'],
  tool_return_message: ['id', 'date', 'status', 'tool_call_id', 'tool_return'],
  approval_request_message: ['id', 'date', 'tool_call'],
  approval_response_message: ['id', 'date'],
  stop_reason: ['stop_reason'],
  usage_statistics: [],
  error_message: ['error_type', 'message', 'run_id'],
};

/** Asserts that an item is what its type declares. */
function typed(item) {
  const required = REQUIRED[item.message_type];
  assert.ok(required, `unknown message_type in ${JSON.stringify(item)}`);
  for (const key of required) assert.notEqual(item[key] ?? null, null, `${key} is missing in ${JSON.stringify(item)}`);
  if (required.includes('date')) assert.ok(!Number.isNaN(Date.parse(item.date)), `no date: ${item.date}`);
}

/** Asserts that a background stream read after `cursor` is whole; answers the kinds, deltas of a slice counted once. */
function whole(items, cursor = 0) {
  const shape = [];
  for (const item of items) {
    typed(item);
    if (item.message_type === 'ping' && cursor > 0 && item.seq_id === cursor) continue; // a keepalive
    if (['stop_reason', 'usage_statistics'].includes(item.message_type)) {
      assert.equal(item.seq_id, undefined, 'terminal frames show no number');
    } else {
      assert.equal(item.seq_id, cursor + 1, 'gap or repeat');
      cursor += 1;
    }
    const last = shape.at(-1);
    if (!last || last.kind !== item.message_type || last.otid !== item.otid) shape.push({ kind: item.message_type, otid: item.otid });
  }
  return shape.map(({ kind }) => kind);
}

async function collect(stream) {
  const items = [];
  for await (const item of await stream) items.push(item);
  return items;
}

async function finished(id) {
  const until = Date.now() + 60_000;
  for (;;) {
    const run = await other.runs.retrieve(id);
    if (!['created', 'running'].includes(run.status)) return run;
    assert.ok(Date.now() < until, `${id} does not end`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

const SCHEMA = {
  name: 'sdk_weather',
  description: 'Look up the weather.',
  parameters: { type: 'object', properties: { city: { type: 'string', description: 'City name.' } }, required: ['city'] },
};
const SOURCE = 'def sdk_weather(city: str) -> str:\n    return "-4"\n';

const agents = [];
async function newAgent() {
  const agent = await client.agents.create({
    name: 'sdk tester',
    system: 'You answer briefly.',
    memory_blocks: [{ label: 'human', value: "The human's name is Ada." }],
  });
  agents.push(agent.id);
  return agent;
}

before(async () => {
  const health = await client.health();
  assert.equal(health.status, 'ok');
  assert.equal(typeof health.version, 'string');
});

after(async () => {
  for (const id of agents) await client.agents.delete(id);
});

test('an agent comes back as it was made', async () => {
  const agent = await newAgent();
  for (const key of ['id', 'name', 'system', 'agent_type', 'llm_config', 'memory', 'blocks', 'tools', 'sources', 'tags']) {
    assert.notEqual(agent[key] ?? null, null, `${key} is missing`);
  }
  assert.equal(agent.id.length, 42);
  assert.deepEqual(await other.agents.retrieve(agent.id), agent);
  const changed = await other.agents.update(agent.id, { name: 'renamed' });
  assert.equal(changed.name, 'renamed');
  const models = await client.models.list();
  assert.ok(models.some((model) => model.handle === 'holdfast/demo'));
});

test('a background stream shows each token and another client resumes it', async () => {
  const agent = await newAgent();
  const first = [];
  const stream = await client.agents.messages.stream(agent.id, { input: SLOW, background: true, stream_tokens: true });
  for await (const item of stream) {
    first.push(item);
    if (first.length === 8) break;
  }
  const run = first[0].run_id;
  const rest = await collect(other.runs.messages.stream(run, { starting_after: first.at(-1).seq_id }));
  const all = await collect(other.runs.messages.stream(run, { starting_after: 0 }));
  assert.deepEqual(whole(all), PLAIN);
  assert.deepEqual([...first, ...rest], all);
  assert.equal(all.filter((item) => item.message_type === 'assistant_message').length, 40);
  assert.equal(all.at(-2).stop_reason, 'end_turn');
  assert.deepEqual(await collect(other.runs.messages.stream(run, { starting_after: 10_000 })), all.slice(-2));
});

test('a tool call and its return, in both modes', async () => {
  const agent = await newAgent();
  for (const stream_tokens of [false, true]) {
    const items = await collect(client.agents.messages.stream(agent.id, { input: REMEMBER, background: true, stream_tokens }));
    assert.deepEqual(whole(items), TOOL);
    const calls = items.filter((item) => item.message_type === 'tool_call_message');
    for (const call of calls) assert.equal(Array.isArray(call.tool_calls), !stream_tokens);
    const text = calls.map((call) => call.tool_call.arguments ?? '').join('');
    assert.equal(JSON.parse(text).new_string, 'She likes fjords.');
    const returned = items.find((item) => item.message_type === 'tool_return_message');
    assert.deepEqual([returned.status, returned.tool_call_id], ['success', calls[0].tool_call.tool_call_id]);
  }
});

test('create streams, or answers at the end', async () => {
  const agent = await newAgent();
  const items = await collect(client.agents.messages.create(agent.id, { input: 'hello', streaming: true, background: true }));
  assert.deepEqual(whole(items), PLAIN);
  const answer = await client.agents.messages.create(agent.id, { messages: [{ role: 'user', content: REMEMBER }] });
  answer.messages.forEach(typed);
  assert.deepEqual(answer.messages.map((item) => item.message_type), TOOL.slice(1, 4));
  assert.equal(answer.stop_reason.stop_reason, 'end_turn');
  assert.equal(answer.usage.step_count, 2);
});

test('createAsync is polled, and everything about its run can be read', async () => {
  const agent = await newAgent();
  const started = await client.agents.messages.createAsync(agent.id, { messages: [{ role: 'user', content: REMEMBER }] });
  assert.equal(started.status, 'created');
  const run = await finished(started.id);
  assert.deepEqual([run.status, run.stop_reason, run.background], ['completed', 'end_turn', true]);
  assert.deepEqual(whole(await collect(other.runs.messages.stream(run.id))).slice(-3), TOOL.slice(-3));
  const listed = [];
  for await (const item of other.runs.messages.list(run.id)) listed.push(item);
  listed.forEach(typed);
  assert.deepEqual(listed.map((item) => item.message_type), ['user_message', ...TOOL.slice(1, 4)]);
  const steps = [];
  for await (const step of other.runs.steps.list(run.id)) steps.push(step);
  assert.deepEqual(steps.map((step) => [step.run_id, step.status]), [[run.id, 'success'], [run.id, 'success']]);
  assert.ok((await other.runs.usage.retrieve(run.id)).total_tokens > 0);
});

test('lists page by themselves', async () => {
  const agent = await newAgent();
  const made = [];
  for (let number = 0; number < 5; number += 1) {
    const run = await client.agents.messages.createAsync(agent.id, { messages: [{ role: 'user', content: 'hello' }] });
    made.push((await finished(run.id)).id);
  }
  const found = [];
  for await (const run of client.runs.list({ agent_id: agent.id, limit: 2 })) found.push(run.id);
  assert.deepEqual(found, made.toReversed());
  const history = [];
  for await (const item of client.agents.messages.list(agent.id, { limit: 2, order: 'asc' })) history.push(item);
  history.forEach(typed);
  assert.equal(new Set(history.map((item) => item.id)).size, history.length);
  assert.equal(history.filter((item) => item.message_type === 'assistant_message').length, 5);
});

test('a cancel ends the stream', async () => {
  const agent = await newAgent();
  const items = [];
  for await (const item of await client.agents.messages.stream(agent.id, { input: '[[demo hang]]', background: true })) {
    if (items.length === 0) {
      assert.deepEqual(await other.agents.messages.cancel(agent.id), { [item.run_id]: 'cancelled' });
    }
    items.push(item);
  }
  assert.deepEqual(whole(items), ['ping', 'stop_reason', 'usage_statistics']);
  assert.equal(items.at(-2).stop_reason, 'cancelled');
});

test('a failed run throws', async () => {
  const agent = await newAgent();
  const items = [];
  await assert.rejects(
    async () => {
      const stream = await client.agents.messages.stream(agent.id, { input: '[[demo error=500]]', background: true });
      for await (const item of stream) items.push(item);
    },
    (error) => error instanceof APIError && error.error.error_type === 'llm_error',
  );
  assert.deepEqual(whole(items), ['ping', 'stop_reason', 'usage_statistics']);
});

test('errors are the classes of the SDK', async () => {
  const agent = await newAgent();
  const absent = '00000000-0000-4000-8000-000000000000';
  await assert.rejects(client.agents.retrieve(`agent-${absent}`), NotFoundError);
  await assert.rejects(client.agents.messages.stream(`agent-${absent}`, { input: 'hello' }), NotFoundError);
  await assert.rejects(client.runs.retrieve(`run-${absent}`), NotFoundError);
  await assert.rejects(client.runs.retrieve('nonsense'), BadRequestError);
  await assert.rejects(client.agents.messages.stream(agent.id, { input: 'hello', max_steps: 0 }), UnprocessableEntityError);
  await assert.rejects(client.agents.messages.create(agent.id, {}), UnprocessableEntityError);
  await assert.rejects(client.agents.messages.cancel(agent.id), ConflictError);
});

test('a request sent twice is one run', async () => {
  const agent = await newAgent();
  const body = { messages: [{ role: 'user', content: 'hello', otid: 'a-request-sent-twice' }], background: true };
  const first = await collect(client.agents.messages.stream(agent.id, body));
  assert.deepEqual(await collect(other.agents.messages.stream(agent.id, body)), first);
});

test('a tool is made, found, changed and deleted', async () => {
  const made = await client.tools.create({ source_code: SOURCE, json_schema: SCHEMA, tags: ['sdk'] });
  assert.deepEqual([made.name, made.tool_type, made.tags], ['sdk_weather', 'custom', ['sdk']]);
  assert.deepEqual(made.json_schema, SCHEMA);
  assert.deepEqual(await other.tools.retrieve(made.id), made);
  const again = await client.tools.upsert({ source_code: SOURCE, json_schema: SCHEMA, tags: [] });
  assert.deepEqual([again.id, again.tags], [made.id, []]);
  // The SDK's types name the field as it is on the wire.
  const changed = await client.tools.update(made.id, { metadata_: { safe_to_repeat: true } });
  assert.equal(changed.safe_to_repeat, true);
  const names = [];
  for await (const tool of other.tools.list({ limit: 3 })) names.push(tool.name);
  assert.ok(names.includes('sdk_weather') && names.includes('memory_insert'));
  assert.equal(new Set(names).size, names.length);
  await client.tools.delete(made.id);
  await assert.rejects(other.tools.retrieve(made.id), NotFoundError);
  await assert.rejects(client.tools.delete(made.id), NotFoundError);
  await assert.rejects(client.tools.update(made.id, { tags: [] }), NotFoundError);
  await assert.rejects(client.tools.create({ source_code: SOURCE, json_schema: { name: 'memory_insert' } }), BadRequestError);
  await assert.rejects(client.tools.upsert({ source_code: SOURCE, source_type: 'typescript' }), UnprocessableEntityError);
  await assert.rejects(client.tools.list({ tool_types: ['robot'] }), BadRequestError);
});

test('a tool is attached, approved and detached', async () => {
  const agent = await newAgent();
  const schema = { ...SCHEMA, name: 'sdk_attached' };
  const tool = await client.tools.create({ source_code: SOURCE.replace('sdk_weather', 'sdk_attached'), json_schema: schema });
  const attached = await client.agents.tools.attach(tool.id, { agent_id: agent.id });
  assert.ok(attached.tools.some((one) => one.id === tool.id));
  const listed = [];
  for await (const one of other.agents.tools.list(agent.id, { limit: 2 })) listed.push(one.id);
  assert.deepEqual(listed.toSorted(), attached.tools.map((one) => one.id).toSorted());
  const approve = (name, value) => client.agents.tools.updateApproval(name, { agent_id: agent.id, body_requires_approval: value });
  const approved = await approve('sdk_attached', true);
  assert.deepEqual(approved.tool_rules.map((rule) => [rule.type, rule.tool_name]), [['requires_approval', 'sdk_attached']]);
  assert.deepEqual((await approve('sdk_attached', false)).tool_rules, []);
  const detached = await client.agents.tools.detach(tool.id, { agent_id: agent.id });
  assert.ok(!detached.tools.some((one) => one.id === tool.id));
  const rules = [{ type: 'max_count_per_step', tool_name: 'sdk_attached', max_count_limit: 2 }];
  const ruled = await client.agents.update(agent.id, { tool_ids: [tool.id], tool_rules: rules, secrets: { KEY: 'never-shown' } });
  assert.equal(ruled.tool_rules[0].max_count_limit, 2);
  assert.deepEqual(ruled.secrets.map((secret) => [secret.key, secret.value]), [['KEY', '']]);
  await client.tools.delete(tool.id);
  assert.deepEqual((await other.agents.retrieve(agent.id)).tools, []);
  await assert.rejects(client.agents.tools.attach(tool.id, { agent_id: agent.id }), NotFoundError);
  await assert.rejects(client.agents.tools.detach(tool.id, { agent_id: agent.id }), NotFoundError);
  await assert.rejects(approve('nothing', true), NotFoundError);
  const wrong = [{ type: 'max_count_per_step', tool_name: 'x', max_count_limit: 0 }];
  await assert.rejects(client.agents.update(agent.id, { tool_rules: wrong }), UnprocessableEntityError);
  await assert.rejects(client.agents.update(agent.id, { tool_ids: [tool.id] }), BadRequestError);
  await assert.rejects(client.agents.create({ tools: ['no_such_tool'] }), BadRequestError);
});

test('core memory is read and written by label', async () => {
  const agent = await newAgent();
  const labels = [];
  for await (const block of client.agents.blocks.list(agent.id)) labels.push(block.label);
  assert.deepEqual(labels, ['human']);
  const read = await other.agents.blocks.retrieve('human', { agent_id: agent.id });
  assert.equal(read.value, "The human's name is Ada.");
  const changed = await client.agents.blocks.update('human', { agent_id: agent.id, value: 'Her name is Eve.' });
  assert.deepEqual([changed.id, changed.value], [read.id, 'Her name is Eve.']);
  assert.ok((await other.agents.recompile(agent.id, { dry_run: true })).includes('Her name is Eve.'));
  assert.ok((await client.agents.recompile(agent.id)).includes('Her name is Eve.'));
  await assert.rejects(client.agents.blocks.retrieve('nothing', { agent_id: agent.id }), NotFoundError);
  await assert.rejects(client.agents.blocks.update('nothing', { agent_id: agent.id, value: 'x' }), NotFoundError);
  await assert.rejects(client.agents.blocks.update('human', { agent_id: agent.id, value: 'long', limit: 3 }), UnprocessableEntityError);
});

const FJORDS = REMEMBER;
const LAKES = '[[demo tool=memory_insert {"label":"human","new_string":"She likes lakes."}]]';
const EVE = '[[demo tool=memory_replace {"label":"human","old_string":"Ada","new_string":"Eve"}]]';
const ASKED = ['approval_request_message'];
const ANSWERED = ['tool_return_message', 'assistant_message'];
const WAYS = ['steps', 'tokens', 'create', 'async'];
const LOOK = {
  name: 'look_outside',
  description: "Looks out of the client's window.",
  parameters: { type: 'object', properties: { window: { type: 'string' } }, required: ['window'] },
};
const CALL_LOOK = '[[demo tool=look_outside {"window":"north"}]]';
const IMAGE = { type: 'image', source: { type: 'base64', media_type: 'image/png', data: 'iVBORw0KGgpyZXN0' } };

const approve = (call) => ({ type: 'approval', tool_call_id: call.tool_call_id, approve: true });
const deny = (call, reason) => ({ type: 'approval', tool_call_id: call.tool_call_id, approve: false, reason });
const returned = (call, tool_return, status = 'success') => ({ type: 'tool', tool_call_id: call.tool_call_id, tool_return, status });
const answer = (...approvals) => ({ messages: [{ type: 'approval', approvals }] });
const user = (content) => ({ messages: [{ role: 'user', content }] });
const human = async (id) => (await client.agents.blocks.retrieve('human', { agent_id: id })).value;

/** An agent that may not write to its memory by itself, and makes several calls in one answer. */
async function newGated() {
  const agent = await client.agents.create({
    name: 'gated',
    memory_blocks: [{ label: 'human', value: "The human's name is Ada." }],
    tool_rules: [{ type: 'requires_approval', tool_name: 'memory_insert' }],
    parallel_tool_calls: true,
  });
  agents.push(agent.id);
  return agent;
}

/** Puts calls together from deltas, where they came in deltas. */
function callsIn(items) {
  const calls = [];
  for (const piece of items.flatMap((item) => item.tool_calls)) {
    let call = calls.find((one) => one.tool_call_id === piece.tool_call_id);
    if (!call) calls.push((call = { tool_call_id: piece.tool_call_id, name: null, arguments: '' }));
    call.name ??= piece.name;
    call.arguments += piece.arguments ?? '';
  }
  return calls;
}

/** What a run showed, without pings and what ends a stream. */
function shown(items, run_id, stop_reason) {
  const messages = items.filter((item) => !['ping', 'stop_reason', 'usage_statistics'].includes(item.message_type));
  const is = (type) => messages.filter((item) => item.message_type === type);
  const kinds = [];
  let last = null;
  for (const { message_type, otid } of messages) {
    if (last !== `${message_type} ${otid}`) kinds.push(message_type);
    last = `${message_type} ${otid}`;
  }
  return {
    run_id,
    stop_reason,
    messages,
    kinds,
    text: is('assistant_message').map((item) => item.content).join(''),
    returns: is('tool_return_message').flatMap((item) => item.tool_returns),
    asks: callsIn(is('approval_request_message')),
    calls: callsIn(is('tool_call_message')),
  };
}

/** Sends a request in one of the ways, and reads its run to the end. */
async function send(sdk, id, way, request) {
  const { messages } = sdk.agents;
  if (way === 'create') {
    const got = await messages.create(id, request);
    got.messages.forEach(typed);
    return shown(got.messages, got.messages[0].run_id, got.stop_reason.stop_reason);
  }
  let items;
  if (way === 'async') {
    const run = await finished((await messages.createAsync(id, request)).id);
    assert.equal(run.status, 'completed');
    items = await collect(sdk.runs.messages.stream(run.id));
  } else {
    items = await collect(messages.stream(id, { ...request, background: true, stream_tokens: way === 'tokens' }));
  }
  assert.deepEqual(whole(items).slice(-2), ['stop_reason', 'usage_statistics']);
  return shown(items, items[0].run_id, items.at(-2).stop_reason);
}

/** The run ended with calls that wait, and the agent shows the same ones. */
async function asks(id, asked, ...names) {
  assert.deepEqual([asked.kinds.at(-1), asked.stop_reason], [ASKED[0], 'requires_approval']);
  assert.deepEqual(asked.asks.map((call) => call.name), names);
  const { pending_approval } = await other.agents.retrieve(id);
  typed(pending_approval);
  assert.deepEqual(callsIn([pending_approval]), asked.asks);
  const run = await other.runs.retrieve(asked.run_id);
  assert.deepEqual([run.status, run.stop_reason], ['completed', 'requires_approval']);
  return asked.asks;
}

for (const way of WAYS) {
  test(`a gated call is approved, denied, or answered by the client: ${way}`, async () => {
    for (const [verdict, status, text] of [
      [(call) => approve(call), 'success', 'She likes fjords.'],
      [(call) => deny(call, 'Not now.'), 'error', 'Error: request to call tool denied. User reason: Not now.'],
      [(call) => returned(call, 'On paper.'), 'success', 'On paper.'],
    ]) {
      const agent = await newGated();
      const asked = await send(client, agent.id, way, user(FJORDS));
      assert.deepEqual(asked.kinds, ASKED);
      const [call] = await asks(agent.id, asked, 'memory_insert');
      assert.ok(!(await human(agent.id)).includes('fjords'), 'nothing has run');
      const said = await send(other, agent.id, way, answer(verdict(call)));
      assert.deepEqual([said.kinds, said.stop_reason], [ANSWERED, 'end_turn']);
      assert.deepEqual(said.returns.map((one) => [one.tool_call_id, one.status]), [[call.tool_call_id, status]]);
      assert.ok(said.returns[0].tool_return.includes(text) && said.text.includes(text.slice(0, 30)));
      assert.equal(said.messages[0].step_id, asked.messages[0].step_id);
      assert.equal((await human(agent.id)).includes('fjords'), text.includes('fjords'));
      assert.equal((await client.agents.retrieve(agent.id)).pending_approval ?? null, null);
      const history = [];
      for await (const item of other.agents.messages.list(agent.id, { order: 'asc' })) history.push(item);
      history.forEach(typed);
      assert.deepEqual(
        history.map((item) => item.message_type),
        ['system_message', 'user_message', ...ASKED, 'approval_response_message', ...ANSWERED],
      );
      assert.deepEqual((await send(client, agent.id, way, user('hello'))).kinds, ['assistant_message']);
    }
  });

  test(`several calls are answered together: ${way}`, async () => {
    const agent = await newGated();
    const asked = await send(client, agent.id, way, user(EVE + FJORDS + LAKES));
    assert.deepEqual(asked.kinds, ['tool_call_message', ...ASKED]);
    const [fjords, lakes] = await asks(agent.id, asked, 'memory_insert', 'memory_insert');
    assert.deepEqual(asked.calls.map((call) => call.name), ['memory_replace']);
    await assert.rejects(send(client, agent.id, way, answer(approve(fjords))), BadRequestError);
    const said = await send(other, agent.id, way, answer(approve(fjords), deny(lakes)));
    assert.deepEqual(
      said.returns.map((one) => [one.tool_call_id, one.status]),
      [[lakes.tool_call_id, 'error'], [fjords.tool_call_id, 'success'], [asked.calls[0].tool_call_id, 'success']],
    );
    const value = await human(agent.id);
    assert.ok(value.includes('Eve') && value.includes('fjords') && !value.includes('lakes'), value);
    // The answer again finds the calls answered: nothing is done twice.
    const again = await send(client, agent.id, way, answer(approve(fjords), deny(lakes)));
    assert.equal(again.stop_reason, 'end_turn');
    assert.equal(await human(agent.id), value);
  });

  test(`a tool of the client: ${way}`, async () => {
    const agent = await newAgent();
    const client_tools = [LOOK];
    for (const [result, text] of [['Snow.', 'Snow.'], [[{ type: 'text', text: 'A view:' }, IMAGE], 'A view:']]) {
      const asked = await send(client, agent.id, way, { ...user(CALL_LOOK), client_tools });
      const [call] = await asks(agent.id, asked, 'look_outside');
      assert.deepEqual(JSON.parse(call.arguments), { window: 'north' });
      const request = { messages: [{ type: 'tool_return', tool_returns: [returned(call, result)] }], client_tools };
      const said = await send(other, agent.id, way, request);
      assert.deepEqual([said.kinds, said.stop_reason], [ANSWERED, 'end_turn']);
      assert.ok(said.text.includes(text), said.text);
    }
  });
}

test('a message while calls wait is refused, once, and the run can be cancelled', async () => {
  const agent = await newGated();
  const sent = [];
  const counting = new Letta({
    baseURL: here,
    apiKey,
    fetch: (url, init) => {
      sent.push(url);
      return fetch(url, init);
    },
  });
  const asked = await send(client, agent.id, 'steps', user(FJORDS));
  for (const way of WAYS) {
    sent.length = 0;
    await assert.rejects(send(counting, agent.id, way, user('hello')), (error) => {
      assert.ok(error instanceof ConflictError);
      assert.equal(error.error.detail.code, 'PENDING_APPROVAL');
      assert.equal(error.error.detail.pending_request_id, asked.messages[0].id);
      return true;
    });
    assert.equal(sent.length, 1, 'the SDK does not try again what cannot succeed');
  }
  assert.deepEqual(await other.agents.messages.cancel(agent.id), { [asked.run_id]: 'cancelled' });
  assert.equal((await client.runs.retrieve(asked.run_id)).status, 'cancelled');
  assert.deepEqual((await send(client, agent.id, 'create', user('hello'))).kinds, ['assistant_message']);
  await assert.rejects(send(client, agent.id, 'create', answer(approve({ tool_call_id: 'call_nothing' }))), BadRequestError);
});

test('a Python tool is made from its source alone, and called', async () => {
  const source_code = [
    'import os',
    '',
    'def sdk_js_minutes(hours: float) -> dict:',
    '    """Tells how many minutes some hours have.',
    '',
    '    Args:',
    '        hours: How many hours.',
    '    """',
    '    print("converting", hours)',
    '    return {"minutes": int(hours * 60), "key": os.environ["CLOCK_KEY"]}',
    '',
  ].join('\n');
  const tool = await client.tools.create({ source_code });
  assert.deepEqual([tool.name, tool.description], ['sdk_js_minutes', 'Tells how many minutes some hours have.']);
  assert.deepEqual(tool.json_schema.parameters.properties.hours, { type: 'number', description: 'How many hours.' });
  const agent = await client.agents.create({ name: 'clock', tool_ids: [tool.id], secrets: { CLOCK_KEY: 'tick' } });
  agents.push(agent.id);
  const call = '[[demo tool=sdk_js_minutes {"hours": 1.5}]]';
  for (const way of WAYS) {
    const said = await send(other, agent.id, way, user(call));
    assert.deepEqual([said.kinds, said.stop_reason], [['tool_call_message', ...ANSWERED], 'end_turn']);
    assert.deepEqual(JSON.parse(said.returns[0].tool_return), { minutes: 90, key: 'tick' });
    assert.deepEqual(said.returns[0].stdout, ['converting 1.5']);
  }
  const again = await client.tools.upsert({ source_code: source_code.replace('* 60', '* 100') });
  assert.equal(again.id, tool.id);
  const said = await send(client, agent.id, 'steps', user(call));
  assert.equal(JSON.parse(said.returns[0].tool_return).minutes, 150);
  await client.tools.delete(tool.id);
});

test('images reach the model and stay in the history', async () => {
  const agent = await newAgent();
  for (const source of [IMAGE.source, { type: 'url', url: `data:image/png;base64,${IMAGE.source.data}` }]) {
    const content = [{ type: 'text', text: 'What is this?' }, { type: 'image', source }];
    for (const way of WAYS) {
      const said = await send(client, agent.id, way, user(content));
      assert.ok(said.text.includes('What is this? [image]'), said.text);
    }
  }
  const history = [];
  for await (const item of other.agents.messages.list(agent.id)) history.push(item);
  const sources = history.filter((item) => item.message_type === 'user_message').map((item) => item.content[1].source);
  assert.equal(sources.length, 8);
  for (const source of sources) assert.deepEqual([source.type, source.media_type, source.data], Object.values(IMAGE.source));
});
