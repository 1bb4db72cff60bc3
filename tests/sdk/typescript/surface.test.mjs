// Each method of the TypeScript SDK that the server serves, called: what it answers, and how it fails. And that no method is
// forgotten. A row names the arguments; the method is found by the row's name, which is the Python one (tests/fixtures).
//
// HOLDFAST_BASE_URL is an API.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import Letta, {
  APIConnectionError, APIError, BadRequestError, ConflictError, NotFoundError, UnprocessableEntityError,
} from '@letta-ai/letta-client';

const baseURL = process.env.HOLDFAST_BASE_URL;
const apiKey = process.env.HOLDFAST_API_KEY ?? null;
const client = new Letta({ baseURL, apiKey, maxRetries: 0 });
const METHODS = JSON.parse(readFileSync(new URL('sdk_methods.json', import.meta.url), 'utf8'));
const SERVED = Object.keys(METHODS).filter((name) => METHODS[name].priority !== 'P3');
// These take nothing that could be wrong.
const INFALLIBLE = ['health', 'models.embeddings.list'];

const NONE = '00000000-0000-4000-8000-000000000000';
const BAD = 'nonsense';
const WORDS = '[[demo tokens=3 delay_ms=1]]';
const REMEMBER = '[[demo tool=memory_insert {"label":"human","new_string":"She likes fjords."}]]';

/** A well-formed id that nothing has. */
const absent = (kind) => `${kind}-${NONE}`;
const unique = (name) => `${name}_${randomUUID().slice(0, 8)}`;
const source = (name) =>
  `def ${name}(city: str) -> str:\n    """Looks up the weather.\n\n    Args:\n        city: Where.\n    """\n    return "-4"\n`;

async function collect(items) {
  const all = [];
  for await (const item of await items) all.push(item);
  return all;
}

/** Something that is made when it is first asked for. */
function once(make) {
  let made;
  return () => (made ??= make());
}

const newAgent = async (more = {}) => client.agents.create({
  name: unique('surface'), memory_blocks: [{ label: 'human', value: "The human's name is Ada." }], ...more,
});
const newTool = async () => (await client.tools.create({ source_code: source(unique('other')) })).id;
const toolName = unique('get_weather');
const tool = once(async () => (await client.tools.create({ source_code: source(toolName) })).id);
const agent = once(async () => (await newAgent({ tool_ids: [await tool()], tags: ['surface'] })).id);
const run = once(async () => {
  const { id } = await client.agents.messages.createAsync(await agent(), { messages: [{ role: 'user', content: REMEMBER }] });
  const until = Date.now() + 60_000;
  while (['created', 'running'].includes((await client.runs.retrieve(id)).status)) {
    assert.ok(Date.now() < until, `${id} does not end`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return id;
});
const step = once(async () => (await client.runs.steps.list(await run())).items[0].id);
const message = once(async () => (await client.runs.messages.list(await run())).items[0].id);
const newBlock = async () => (await client.blocks.create({ label: unique('notes'), value: 'Nothing yet.' })).id;
const block = once(async () => {
  const id = await newBlock();
  await client.agents.blocks.attach(id, { agent_id: await agent() });
  return id;
});
const newConversation = async () => (await client.conversations.create({ agent_id: await agent() })).id;
const conversation = once(async () => {
  const id = await newConversation();
  await collect(client.conversations.messages.create(id, { input: WORDS, background: true }));
  return id;
});
const hanging = async () => {
  const { id } = await newAgent();
  await client.agents.messages.createAsync(id, { messages: [{ role: 'user', content: '[[demo hang]]' }] });
  return id;
};
const hangingConversation = async () => {
  const id = await newConversation();
  const stream = await client.conversations.messages.create(id, { input: '[[demo hang]]', background: true });
  for await (const _ of stream) break;
  return id;
};
const talk = async (id, send) => {
  for (let turn = 0; turn < 6; turn += 1) await send(id, { input: '[[demo tokens=60 delay_ms=0]]' });
  return id;
};
const talked = async () => talk((await newAgent()).id, (id, body) => client.agents.messages.create(id, body));
const talkedConversation = async () =>
  talk(await newConversation(), (id, body) => collect(client.conversations.messages.create(id, body)));

/** The failures of a call that takes an id: none such, and no id at all. */
const byId = (kind, ...more) => [
  [() => [absent(kind), ...more], NotFoundError],
  [() => [BAD, ...more], kind === 'run' ? BadRequestError : UnprocessableEntityError],
];
/** The failures of a call that names an agent beside its first argument. */
const ofAgent = (first, more = {}) => [
  [async () => [await first(), { agent_id: absent('agent'), ...more }], NotFoundError],
  [async () => [await first(), { agent_id: BAD, ...more }], UnprocessableEntityError],
];
const malformed = (make) => [[make, UnprocessableEntityError]];
const missing = (make) => [[make, NotFoundError]];
const ids = (items) => items.map(({ id }) => id);
const ends = (reason) => (items) => items.filter((item) => item.message_type === 'stop_reason').every((item) => item.stop_reason === reason)
  && items.at(-1).message_type === 'usage_statistics';

/** Name of a method: the arguments of a call that succeeds, what is so after it, and calls that fail with their classes. */
const TABLE = {
  'agents.messages.stream': [async () => [await agent(), { input: WORDS, background: true, stream_tokens: true }], ends('end_turn'),
    [...byId('agent', { input: 'x' }), ...malformed(async () => [await agent(), { input: 'x', max_steps: 0 }])]],
  'agents.messages.create': [async () => [await agent(), { input: WORDS }], (answer) => answer.stop_reason.stop_reason === 'end_turn',
    [...byId('agent', { input: 'x' }), ...malformed(async () => [await agent(), {}])]],
  'agents.create': [() => [{ name: unique('made'), tags: ['made'] }], (answer) => answer.tags[0] === 'made',
    [...missing(() => [{ model: 'nobody/knows-this' }]), [() => [{ name: 'a/b' }], BadRequestError],
      ...malformed(() => [{ memory_blocks: [{ label: 'human' }] }])]],
  'agents.retrieve': [async () => [await agent()], async (answer) => answer.id === await agent(), byId('agent')],
  'agents.list': [async () => [{ tags: [await agent() && 'surface'], limit: 1 }], async (items) => ids(items).includes(await agent()),
    [...missing(() => [{ after: absent('agent') }]), ...malformed(() => [{ limit: -1 }])]],
  'agents.update': [async () => [(await newAgent()).id, { name: 'renamed' }], (answer) => answer.name === 'renamed',
    [...byId('agent', { name: 'x' }), ...malformed(async () => [await agent(), { tool_rules: [{ type: BAD, tool_name: 'x' }] }])]],
  'agents.delete': [async () => [(await newAgent()).id], (answer) => 'message' in answer, byId('agent')],
  'agents.tools.attach': [async () => [await tool(), { agent_id: (await newAgent()).id }],
    async (answer) => answer === null || ids(answer.tools).includes(await tool()),
    [...ofAgent(tool), ...missing(async () => [absent('tool'), { agent_id: await agent() }])]],
  'agents.tools.list': [async () => [await agent(), { limit: 1 }], (items) => items.length === 4, byId('agent')],
  'agents.tools.update_approval': [async () => ['memory_insert', { agent_id: (await newAgent()).id, body_requires_approval: true }],
    (answer) => answer === null || answer.tool_rules[0].type === 'requires_approval',
    [...ofAgent(() => 'memory_insert', { body_requires_approval: true }),
      ...missing(async () => ['no_such_tool', { agent_id: await agent(), body_requires_approval: true }]),
      ...malformed(async () => ['memory_insert', { agent_id: await agent(), body_requires_approval: 'maybe' }])]],
  'tools.create': [() => [{ source_code: source('made_too'), tags: ['made'] }], (answer) => answer.name === 'made_too',
    malformed(() => [{ source_code: source('made_too'), return_char_limit: 0 }])],
  'tools.upsert': [async () => [{ source_code: await tool() && source(toolName), description: 'Changed.' }],
    async (answer) => answer.id === await tool() && answer.description === 'Changed.',
    malformed(() => [{ source_code: source('made_too'), source_type: 'cobol' }])],
  'tools.list': [async () => [{ tool_ids: [await tool(), await newTool()], limit: 1 }], (items) => items.length === 2,
    [...missing(() => [{ after: absent('tool') }]), ...malformed(() => [{ limit: -1 }]), [() => [{ tool_types: [BAD] }], BadRequestError]]],
  'tools.retrieve': [async () => [await tool()], (answer) => answer.name === toolName, byId('tool')],
  'models.list': [() => [{ provider_category: ['base'] }], (items) => items.some(({ handle }) => handle === 'holdfast/demo'),
    malformed(() => [{ provider_category: [BAD] }])],
  'health': [() => [], (answer) => answer.status === 'ok' && typeof answer.version === 'string', []],

  'runs.list': [async () => [{ agent_id: await run() && await agent(), statuses: ['completed'], limit: 1 }],
    async (items) => ids(items).includes(await run()),
    [...missing(() => [{ after: absent('run') }]), ...malformed(() => [{ statuses: [BAD] }]), ...malformed(() => [{ limit: 0 }])]],
  'runs.retrieve': [async () => [await run()], async (answer) => answer.id === await run(), byId('run')],
  'runs.messages.list': [async () => [await run(), { limit: 1 }], (items) => items.length === 4,
    [...byId('run'), ...missing(async () => [await run(), { after: absent('message') }])]],
  'runs.messages.stream': [async () => [await run(), { starting_after: 2 }], ends('end_turn'),
    [...byId('run'), ...malformed(async () => [await run(), { poll_interval: 0 }])]],
  'runs.steps.list': [async () => [await run(), { limit: 1 }], (items) => items.length === 2, byId('run')],
  'runs.usage.retrieve': [async () => [await run()], (answer) => answer.total_tokens > 0, byId('run')],
  'agents.messages.cancel': [async () => [await hanging()], (answer) => Object.values(answer)[0] === 'cancelled',
    [...byId('agent'), [async () => [(await newAgent()).id], ConflictError]]],
  'agents.messages.list': [async () => [await run() && await agent(), { limit: 1, order: 'asc' }],
    async (items) => ids(items).includes(await message()),
    [...byId('agent'), ...missing(async () => [await agent(), { after: absent('message') }]),
      ...malformed(async () => [await agent(), { include_return_message_types: [BAD] }])]],
  'agents.messages.create_async': [async () => [(await newAgent()).id, { input: WORDS }], (answer) => answer.status === 'created',
    [...byId('agent', { input: 'x' }), ...malformed(async () => [await agent(), { input: '' }])]],
  'conversations.messages.create': [async () => [await newConversation(), { input: WORDS }], ends('end_turn'),
    [...byId('conv', { input: 'x' }), ...malformed(async () => [await conversation(), { input: '' }]),
      [async () => [await hangingConversation(), { input: 'x' }], ConflictError]]],
  'conversations.messages.stream': [
    async () => [await conversation(), { run_id: (await client.runs.list({ conversation_id: await conversation() })).items[0].id }],
    ends('end_turn'), [...byId('conv', {}), [async () => [await newConversation(), {}], BadRequestError]]],
  'conversations.messages.list': [async () => [await conversation(), { limit: 1, order: 'asc' }], (items) => items.length >= 2,
    [...byId('conv'), ...missing(async () => [await conversation(), { after: absent('message') }])]],
  'conversations.cancel': [async () => [await hangingConversation()], (answer) => Object.values(answer)[0] === 'cancelled',
    [...byId('conv'), [async () => [await newConversation()], ConflictError]]],
  'steps.list': [async () => [{ agent_id: await run() && await agent(), limit: 1 }], async (items) => ids(items).includes(await step()),
    [...missing(() => [{ after: absent('step') }]), ...malformed(() => [{ feedback: BAD }])]],
  'steps.retrieve': [async () => [await step()], async (answer) => answer.run_id === await run(), byId('step')],
  'agents.blocks.list': [async () => [(await newAgent()).id, { limit: 1 }], (items) => items[0].label === 'human', byId('agent')],
  'agents.blocks.retrieve': [async () => ['human', { agent_id: await agent() }], (answer) => answer.label === 'human',
    [...ofAgent(() => 'human'), ...missing(async () => ['no such label', { agent_id: await agent() }])]],
  'agents.blocks.update': [async () => ['human', { agent_id: (await newAgent()).id, value: 'Bo' }], (answer) => answer.value === 'Bo',
    [...ofAgent(() => 'human'), ...malformed(async () => ['human', { agent_id: await agent(), value: 'too long', limit: 3 }])]],

  'agents.messages.reset': [async () => [await talked(), {}], (answer) => answer === null || answer.message_ids.length === 1,
    [...byId('agent', {}), [async () => [await hanging(), {}], ConflictError]]],
  'agents.messages.compact': [async () => [await talked()], (answer) => answer.num_messages_after < answer.num_messages_before,
    [...byId('agent'), [async () => [(await newAgent()).id], BadRequestError],
      ...malformed(async () => [await agent(), { compaction_settings: { mode: BAD } }])]],
  'agents.recompile': [async () => [await agent(), { dry_run: true }], (answer) => answer.includes('Ada'),
    [...byId('agent'), ...malformed(async () => [await agent(), { dry_run: 'maybe' }])]],
  'agents.tools.detach': [async () => [await tool(), { agent_id: (await newAgent({ tool_ids: [await tool()] })).id }],
    async (answer) => answer === null || !ids(answer.tools).includes(await tool()), ofAgent(tool)],
  'agents.tools.run': [async () => [toolName, { agent_id: await agent(), args: { city: 'Oslo' } }],
    (answer) => answer.status === 'success' && answer.func_return === '-4',
    [...ofAgent(() => toolName), ...missing(async () => ['no_such_tool', { agent_id: await agent() }])]],
  'agents.blocks.attach': [async () => [await newBlock(), { agent_id: (await newAgent()).id }], (answer) => answer.blocks.length === 2,
    [...ofAgent(block), ...missing(async () => [absent('block'), { agent_id: await agent() }])]],
  'agents.blocks.detach': [async () => { const made = await newAgent(); return [made.blocks[0].id, { agent_id: made.id }]; },
    (answer) => answer.blocks.length === 0, ofAgent(block)],
  'blocks.create': [() => [{ label: unique('made'), value: 'x', tags: ['made'] }], (answer) => answer.value === 'x',
    malformed(() => [{ label: 'x', value: 'too long', limit: 3 }])],
  'blocks.retrieve': [async () => [await block()], async (answer) => answer.id === await block(), byId('block')],
  'blocks.update': [async () => [await newBlock(), { value: 'y' }], (answer) => answer.value === 'y', byId('block', { value: 'y' })],
  'blocks.list': [async () => [{ limit: 1, label: (await client.blocks.retrieve(await block())).label }],
    async (items) => items.length === 1 && items[0].id === await block(),
    [...missing(() => [{ after: absent('block') }]), ...malformed(() => [{ limit: -1 }])]],
  'blocks.delete': [async () => [await newBlock()], () => true, byId('block')],
  'blocks.agents.list': [async () => [await block(), { limit: 1 }], async (items) => items[0].id === await agent(), byId('block')],
  'tools.update': [async () => [await newTool(), { description: 'Changed.' }], (answer) => answer.description === 'Changed.',
    [...byId('tool', { description: 'x' }), ...malformed(async () => [await tool(), { return_char_limit: 0 }])]],
  'tools.delete': [async () => [await newTool()], () => true, byId('tool')],
  'messages.list': [async () => [{ limit: await run() && 1000 }], async (items) => ids(items).includes(await message()),
    [...missing(() => [{ after: absent('message') }]), ...malformed(() => [{ limit: -1 }])]],
  'messages.retrieve': [async () => [await message()], async (items) => items[0].id === await message(), byId('message')],
  'messages.search': [async () => [{ query: 'fjords', agent_id: await run() && await agent(), search_mode: 'fts' }],
    async (items) => items.some((item) => item.message_id), malformed(() => [{ query: 3 }])],
  'runs.trace.retrieve': [async () => [await run(), { limit: 10 }], Array.isArray,
    [...byId('run'), ...malformed(async () => [await run(), { limit: 0 }])]],
  'steps.messages.list': [async () => [await step(), { limit: 1 }], (items) => items.length > 0, byId('step')],
  'steps.metrics.retrieve': [async () => [await step()], async (answer) => answer.id === await step(), byId('step')],
  'steps.trace.retrieve': [async () => [await step()], () => true, byId('step')],
  'steps.feedback.create': [async () => [await step(), { feedback: 'positive' }], (answer) => answer.feedback === 'positive',
    [...byId('step', { feedback: 'positive' }), ...malformed(async () => [await step(), { feedback: BAD }])]],
  'conversations.create': [async () => [{ agent_id: await agent(), summary: 'About fjords.' }], (answer) => answer.summary === 'About fjords.',
    [...missing(() => [{ agent_id: absent('agent') }]), ...malformed(() => [{ agent_id: BAD }])]],
  'conversations.retrieve': [async () => [await conversation()], async (answer) => answer.id === await conversation(), byId('conv')],
  'conversations.update': [async () => [await newConversation(), { summary: 'New.' }], (answer) => answer.summary === 'New.',
    byId('conv', { summary: 'x' })],
  'conversations.list': [async () => [{ agent_id: await conversation() && await agent() }],
    async (items) => ids(items).includes(await conversation()),
    [...missing(() => [{ after: absent('conv') }]), ...malformed(() => [{ limit: -1 }])]],
  'conversations.delete': [async () => [await newConversation()], () => true, byId('conv')],
  'conversations.fork': [async () => [await conversation()], async (answer) => answer.id !== await conversation(), byId('conv')],
  'conversations.recompile': [async () => [await conversation()], (answer) => answer.includes('Ada'), byId('conv')],
  'conversations.messages.compact': [async () => [await talkedConversation()],
    (answer) => answer.num_messages_after < answer.num_messages_before,
    [...byId('conv'), [async () => [await newConversation()], BadRequestError]]],
  'tags.list': [async () => [{ name: await agent() && 'surface' }], (items) => items[0] === 'surface', malformed(() => [{ limit: -1 }])],
  'models.embeddings.list': [() => [], Array.isArray, []],
};

/** Keys that the SDK's types declare as required, by the prefix of an object's id. */
const REQUIRED = {
  agent: ['name', 'system', 'agent_type', 'llm_config', 'memory', 'blocks', 'tools', 'sources', 'tags'],
  run: ['agent_id', 'status', 'created_at'],
  block: ['value'],
  tool: ['name', 'json_schema', 'tool_type'],
  conv: ['agent_id'],
  message: ['date', 'message_type'],
  step: [],
  ping: ['date', 'message_type'],
};

/** Asserts that everything in an answer has what its type declares. */
function typed(answer) {
  if (Array.isArray(answer)) answer.forEach(typed);
  else if (typeof answer?.id === 'string') {
    // Compaction events have a bare UUID, metrics the id of their step.
    const prefix = answer.id.split('-')[0];
    if (answer.message_type === 'event_message') return;
    for (const key of REQUIRED[prefix] ?? assert.fail(`what is ${answer.id}?`)) {
      assert.notEqual(answer[key] ?? null, null, `${key} is missing in ${JSON.stringify(answer)}`);
    }
  }
}

const camel = (name) => name.replace(/_(\w)/g, (_, letter) => letter.toUpperCase());

/** Calls a method by its Python name; answers all pages, the whole stream. */
async function call(name, parameters) {
  const parts = name.split('.').map(camel);
  const last = parts.pop();
  const owner = parts.reduce((found, part) => found[part], client);
  const answer = await owner[last](...parameters);
  return answer?.[Symbol.asyncIterator] ? collect(answer) : answer;
}

for (const name of SERVED) {
  test(`${name} answers`, async () => {
    const [parameters, isRight] = TABLE[name];
    const answer = await call(name, await parameters());
    typed(answer);
    assert.ok(await isRight(answer), JSON.stringify(answer));
  });
  for (const [number, [parameters, expected]] of (TABLE[name]?.[2] ?? []).entries()) {
    test(`${name} fails, ${number}`, async () => {
      const given = await parameters();
      await assert.rejects(call(name, given), (error) => {
        assert.ok(error instanceof expected, `${error}`);
        const detail = error.error?.detail;
        assert.ok(detail && detail !== 'Not Found', JSON.stringify(error.error));
        return true;
      });
    });
  }
}

/** The methods of the SDK, found by looking at it. */
function methods(found, prefix) {
  const names = Object.getOwnPropertyNames(Object.getPrototypeOf(found)).filter((name) => name !== 'constructor' && !name.startsWith('_'));
  const nested = Object.entries(found).filter(([name, value]) => !name.startsWith('_') && value?._client);
  return [...names.map((name) => prefix + name), ...nested.flatMap(([name, value]) => methods(value, `${prefix}${name}.`))];
}

test('no method is forgotten', () => {
  const found = Object.entries(client).filter(([name, value]) => !name.startsWith('_') && value?._client);
  const all = ['health', ...found.flatMap(([name, value]) => methods(value, `${name}.`))];
  assert.deepEqual(all.sort(), Object.keys(METHODS).map((name) => name.split('.').map(camel).join('.')).sort());
  assert.deepEqual(Object.keys(TABLE).sort(), SERVED.sort());
  assert.deepEqual(Object.keys(TABLE).filter((name) => TABLE[name][2].length === 0).sort(), INFALLIBLE);
});

test('what is not served is not found', async () => {
  for (const [name, { priority, request }] of Object.entries(METHODS)) {
    if (priority !== 'P3') continue;
    const [verb, path] = request.split(' ');
    const owner = await agent();
    const filled = path.replace(/\{(\w+)\}/g, (_, part) => (part === 'agent_id' ? owner : `some-${part}`));
    await assert.rejects(client[verb.toLowerCase()](filled, verb === 'GET' ? {} : { body: {} }), (error) => {
      assert.ok(error instanceof NotFoundError, `${name}: ${error}`);
      assert.deepEqual(error.error, { detail: 'Not Found' }, name);
      return true;
    });
  }
});

test('answers show status and headers, and options are taken', async () => {
  const id = await agent();
  const response = await client.agents.retrieve(id).asResponse();
  assert.equal(response.status, 200);
  assert.match(response.headers.get('content-type'), /^application\/json/);
  const { data, response: whole } = await client.agents.retrieve(id).withResponse();
  assert.deepEqual([data.id, whole.status], [id, 200]);
  assert.equal((await client.withOptions({ timeout: 20_000, maxRetries: 1 }).agents.retrieve(id)).id, id);
  await assert.rejects(client.withOptions({ baseURL: 'http://127.0.0.1:9' }).health(), APIConnectionError);
  const made = await client.post(`/v1/agents/${id}/messages/async`, { body: { messages: [{ role: 'user', content: 'hi' }] } });
  assert.equal(made.status, 'created');
  assert.equal((await client.get(`/v1/runs/${await run()}/metrics`)).num_steps, 2);
  await assert.rejects(client.patch(`/v1/agents/${id}/messages/${await message()}`, { body: {} }), (error) => {
    assert.ok(error instanceof APIError && error.status === 405, `${error}`);
    return true;
  });
});

test('pages go on by themselves', async () => {
  const { id } = await newAgent();
  for (let number = 0; number < 5; number += 1) await client.agents.messages.create(id, { input: `number ${number}` });
  const whole = ids((await client.agents.messages.list(id, { limit: 100, order: 'asc' })).items);
  assert.deepEqual(ids(await collect(client.agents.messages.list(id, { limit: 2, order: 'asc' }))), whole);
  assert.deepEqual(ids(await collect(client.agents.messages.list(id, { limit: 2, order: 'desc' }))), [...whole].reverse());
  assert.deepEqual(ids(await collect(client.agents.messages.list(id, { limit: 4 }))), whole.slice(-4));
  const page = await client.runs.list({ agent_id: id, limit: 2 });
  assert.ok(page.hasNextPage());
  assert.equal((await page.getNextPage()).items.length, 2);
  assert.equal(new Set(ids(await collect(client.runs.list({ agent_id: id, limit: 2 })))).size, 5);
});

test('requests are encoded as the server reads them', async () => {
  const sent = [];
  const spy = new Letta({
    baseURL, apiKey, maxRetries: 0, fetch: (url, init) => { sent.push([String(url), init]); return fetch(url, init); },
  });
  const id = await agent();
  const found = await spy.runs.list({ agent_id: await run() && id, statuses: ['failed', 'completed'], background: true });
  assert.match(sent.at(-1)[0], /statuses=failed&statuses=completed/);
  assert.ok(ids(found.items).includes(await run()));
  await spy.agents.retrieve(id, {}, { query: { filter: { by: { name: 'x' } }, list: [1, 2] } });
  assert.match(decodeURIComponent(sent.at(-1)[0]), /filter\.by\.name=x/);
  // null stands for nothing: what is optional stays as it is.
  const own = (await newAgent({ description: 'kept' })).id;
  const changed = await spy.agents.update(own, { name: 'renamed', description: null, tags: null, metadata: null });
  assert.equal(JSON.parse(sent.at(-1)[1].body).description, null);
  assert.deepEqual([changed.name, changed.description, changed.tags], ['renamed', 'kept', []]);
  const answer = await spy.agents.messages.create(own, {
    messages: [{ role: 'user', content: 'hi', otid: null, name: null }], client_tools: null, override_model: null,
  });
  assert.deepEqual(answer.messages.map((item) => item.message_type), ['assistant_message']);
});
