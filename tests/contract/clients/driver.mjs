// Drives a broker with upstream's driver, as its users do: start, spawn, talk, look, type, release, end.
//
// Arguments: the broker's program, a directory, the workspace key. Fails with the first thing that is not as
// the driver's own types and comments say.
import assert from 'node:assert/strict';
import { existsSync, statSync } from 'node:fs';
import path from 'node:path';
import { HarnessDriverClient, HarnessDriverProtocolError } from '@agent-relay/harness-driver';

const [binaryPath, cwd, workspaceKey] = process.argv.slice(2);
const PATIENCE = 20_000;

const say = (text) => process.stdout.write(`${text}\n`);

/** Waits until `look` answers something true, and answers that. */
const until = async (what, look) => {
  const end = Date.now() + PATIENCE;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (Date.now() > end) throw new Error(`never: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
};

const refused = async (call, status, code) => {
  const error = await call.then(
    () => assert.fail('it was not refused'),
    (error) => error,
  );
  assert.ok(error instanceof HarnessDriverProtocolError, String(error));
  assert.equal(error.status, status, error.message);
  assert.equal(error.code, code, error.message);
  // People see this text alone.
  assert.match(error.message, /^[^[{]/);
};

const stderr = [];
const client = await HarnessDriverClient.spawn({
  binaryPath,
  cwd,
  brokerName: 'quay',
  workspaceKey,
  channels: ['general'],
  binaryArgs: { persist: true },
  onStderr: (line) => stderr.push(line),
});
const exits = [];
client.onBrokerExit((info) => exits.push(info));
const connection = path.join(cwd, '.agentworkforce/relay/connection.json');

try {
  say('session');
  const session = await client.getSession();
  assert.equal(session.workspace_key, workspaceKey);
  assert.equal(client.workspaceKey, workspaceKey);
  assert.equal(session.protocol_version, 2);
  assert.equal(session.mode, 'persist');
  assert.equal(typeof session.broker_version, 'string');
  assert.equal(typeof session.uptime_secs, 'number');
  assert.ok(['ok', 'degraded'].includes((await client.healthCheck()).status));
  assert.equal((await client.renewLease()).renewed, true);
  assert.equal((await client.getConfig()).workspaceKey, workspaceKey);
  assert.equal((await client.getStatus()).agent_count, 0);
  assert.equal(statSync(connection).mode & 0o777, 0o600);

  // At once, as scripts do: nobody waits for more than the driver itself does.
  say('spawn');
  const otter = await client.spawnPty({ name: 'otter', cli: 'cat', channels: ['general'], idleThresholdSecs: 1 });
  const idle = otter.waitForIdle(PATIENCE);
  assert.deepEqual([otter.name, otter.runtime], ['otter', 'pty']);
  const seal = await client.spawnCli({ name: 'seal', cli: 'cat', transport: 'pty', task: 'count the boats' });
  assert.equal(seal.name, 'seal');
  await refused(client.spawnPty({ name: 'otter', cli: 'cat' }), 409, 'agent_exists');
  await refused(client.spawnPty({ name: '../evil', cli: 'cat' }), 400, 'invalid_name');
  await refused(client.spawnPty({ name: 'whale', cli: 'no-such-program' }), 400, 'program_not_found');
  await refused(client.spawnHeadless({ name: 'whale', cli: 'claude' }), 400, 'unsupported_runtime');
  const agents = await client.listAgents();
  assert.deepEqual(agents.map((agent) => agent.name).sort(), ['otter', 'seal']);
  for (const agent of agents) {
    assert.equal(agent.runtime, 'pty');
    assert.ok(process.kill(agent.pid, 0), 'its process runs');
    assert.deepEqual(agent.channels, ['general']);
    assert.ok(['working', 'idle', 'blocked_on_send'].includes(agent.current_state), agent.current_state);
  }
  assert.equal((await client.getStatus()).agent_count, 2);
  await until('the events of both spawns', () => client.queryEvents({ kind: 'agent_spawned' }).length === 2);
  await until('both are ready', () => ['otter', 'seal'].every((name) => client.getLastEvent('worker_ready', name)));

  await until('health', async () => (await client.healthCheck()).status === 'ok');

  assert.deepEqual(await idle, { reason: 'idle', idleSecs: 1 });

  say('message');
  const stream = client.subscribeWorkerStream('otter')[Symbol.asyncIterator]();
  let shown = '';
  const reading = (async () => {
    for (;;) {
      const { done, value } = await stream.next();
      if (done) return;
      shown += value;
    }
  })();
  const sent = await client.sendMessage({ to: 'otter', from: 'harbormaster', text: 'fuel is low' });
  assert.equal(typeof sent.event_id, 'string');
  await until('the message in the stream of the terminal', () => shown.includes('fuel is low'));
  await client.sendMessage({ to: '#general', text: 'the tide turns', mode: 'steer' });
  await until('the message of the channel', () => shown.includes('the tide turns'));
  await refused(client.sendMessage({ to: 'nobody', text: 'hello' }), 404, 'agent_not_found');
  for (const kind of ['relay_inbound', 'delivery_queued', 'delivery_injected', 'delivery_ack', 'delivery_verified']) {
    await until(`an event ${kind}`, () => client.queryEvents({ kind }).length > 0);
  }
  await until('its confirmation', () => client.queryEvents({ kind: 'message_delivery_confirmed' }).length > 0);

  await until('the first task', async () => (await client.snapshot('seal')).screen.includes('count the boats'));

  say('screen');
  const plain = await client.snapshot('otter');
  assert.equal(plain.format, 'plain');
  assert.ok(plain.screen.includes('fuel is low'), plain.screen);
  assert.equal(plain.screen.split('\n').length - 1, plain.rows, 'one line per row');
  const ansi = await client.snapshot('otter', 'ansi');
  assert.ok(Buffer.from(ansi.screen, 'base64').toString().includes('fuel is low'));
  const [row, col] = plain.cursor;
  assert.ok(row >= 1 && row <= plain.rows && col >= 1 && col <= plain.cols, String(plain.cursor));
  await refused(client.snapshot('nobody'), 404, 'agent_not_found');
  await refused(client.snapshot('otter', 'jpeg'), 400, 'invalid_format');

  say('input');
  assert.deepEqual(await client.sendInput('otter', 'typed by hand\r'), { name: 'otter', bytes_written: 14 });
  await until('what was typed', async () => (await client.snapshot('otter')).screen.includes('typed by hand'));
  assert.deepEqual(await client.resizePty('otter', 30, 100), { name: 'otter', rows: 30, cols: 100 });
  const resized = await client.snapshot('otter');
  assert.deepEqual([resized.rows, resized.cols], [30, 100]);
  await refused(client.resizePty('otter', 0, 0), 400, 'invalid_request');
  await refused(client.sendInput('nobody', 'x'), 404, 'agent_not_found');

  say('input stream');
  const keys = client.openInputStream('otter');
  await keys.waitUntilOpen();
  const written = await Promise.all(['wor', 'd by ', 'wörd\r'].map((chunk) => keys.send(chunk)));
  assert.deepEqual(written.map((ack) => ack.bytes_written), [3, 5, 6]);
  await until('what was streamed', async () => (await client.snapshot('otter')).screen.includes('word by wörd'));
  keys.close();
  const nobody = client.openInputStream('nobody');
  await assert.rejects(nobody.waitUntilOpen());

  say('hold');
  assert.equal(await client.getInboundDeliveryMode('otter'), 'auto_inject');
  assert.deepEqual(await client.setInboundDeliveryMode('otter', 'manual_flush'), { mode: 'manual_flush', flushed: 0 });
  await client.sendMessage({ to: 'otter', text: 'the crane is stuck' });
  const held = await until('it is held', async () => {
    const pending = await client.getPending('otter');
    return pending.length > 0 && pending;
  });
  assert.deepEqual(held.map(({ body, target, mode }) => [body, target, mode]), [['the crane is stuck', 'otter', 'wait']]);
  for (const field of ['priority', 'queued_at_ms']) assert.equal(typeof held[0][field], 'number', field);
  assert.ok(!shown.includes('the crane is stuck'));
  assert.equal((await client.listAgents()).find(({ name }) => name === 'otter').pending_messages, 1);
  assert.deepEqual(await client.flushPending('otter'), { flushed: 1 });
  await until('it is let through', () => shown.includes('the crane is stuck'));
  assert.deepEqual(await client.flushPending('otter'), { flushed: 0 });
  await client.sendMessage({ to: 'otter', text: 'the lock is open' });
  await until('the next one is held', async () => (await client.getPending('otter')).length === 1);
  assert.deepEqual(await client.setInboundDeliveryMode('otter', 'auto_inject'), { mode: 'auto_inject', flushed: 1 });
  await until('the next one', () => shown.includes('the lock is open'));
  const modes = client.queryEvents({ kind: 'agent_inbound_delivery_mode_changed' });
  assert.deepEqual(modes.map(({ previous_mode, mode }) => [previous_mode, mode]), [
    ['auto_inject', 'manual_flush'],
    ['manual_flush', 'auto_inject'],
  ]);
  const drained = client.queryEvents({ kind: 'agent_pending_drained' });
  assert.deepEqual(drained.map(({ count, reason }) => [count, reason]), [
    [1, 'explicit_flush'],
    [1, 'delivery_mode_transition'],
  ]);
  assert.ok(client.queryEvents({ kind: 'delivery_queued' }).some(({ reason }) => reason === 'manual_flush'));
  await refused(client.setInboundDeliveryMode('otter', 'sometimes'), 400, 'invalid_mode');
  await refused(client.getPending('nobody'), 404, 'agent_not_found');

  say('channels');
  await client.subscribeChannels('otter', ['#dockyard']);
  await until('it is listed', async () => (await client.listAgents()).some(({ channels }) => channels.includes('dockyard')));
  await client.sendMessage({ to: '#dockyard', text: 'the slip is free' });
  await until('a message of its new channel', () => shown.includes('the slip is free'));
  await client.unsubscribeChannels('otter', ['dockyard']);
  assert.deepEqual((await client.listAgents()).find(({ name }) => name === 'otter').channels, ['general']);
  await refused(client.subscribeChannels('nobody', ['dockyard']), 404, 'agent_not_found');
  await refused(client.setModel('otter', 'opus', { timeoutMs: 100 }), 409, 'model_not_changeable');
  assert.deepEqual(await client.preflight([{ name: 'whale', cli: 'cat' }]), { queued: 0 });

  say('exit');
  const brief = await client.spawnPty({ name: 'brief', cli: 'sh', args: ['-c', 'read line; exit 7'] });
  const exit = brief.waitForExit(PATIENCE);
  await client.sendInput('brief', '\r');
  const exited = await exit;
  assert.equal(exited.reason, 'exited');
  await until('its code', () => brief.exitCode === 7);
  await until('it is not listed', async () => (await client.listAgents()).every((agent) => agent.name !== 'brief'));

  say('result');
  const submits = `read line; exec "${process.execPath}" -e '
    const { AGENT_RELAY_RESULT_URL, AGENT_RELAY_RESULT_TOKEN, AGENT_RELAY_RESULT_SCHEMA, RELAY_AGENT_NAME } = process.env;
    const body = { agent: RELAY_AGENT_NAME, data: JSON.parse(AGENT_RELAY_RESULT_SCHEMA), metadata: { tries: 1 } };
    const headers = { authorization: "Bearer " + AGENT_RELAY_RESULT_TOKEN, "content-type": "application/json" };
    fetch(AGENT_RELAY_RESULT_URL, { method: "POST", headers, body: JSON.stringify(body) }).then(() => process.exit(0));
  '`;
  const agentResultSchema = { type: 'object', properties: { boats: { type: 'number' } } };
  const clerk = await client.spawnPty({ name: 'clerk', cli: 'sh', args: ['-c', submits], agentResultSchema });
  assert.deepEqual(await clerk.waitForResult(1), { reason: 'timeout' });
  const handedIn = clerk.waitForResult(PATIENCE);
  await client.sendInput('clerk', '\r');
  const { resultId, ...result } = await handedIn;
  assert.equal(typeof resultId, 'string');
  assert.deepEqual(result, { reason: 'result', data: agentResultSchema, final: true, metadata: { tries: 1 } });
  await clerk.waitForExit(PATIENCE);
  assert.equal((await clerk.waitForResult(PATIENCE)).resultId, resultId, 'it is there after the end too');
  assert.equal((await brief.waitForResult(PATIENCE)).reason, 'exited', 'who ends without one, has none');

  say('crashes');
  const struck = await client.spawnPty({ name: 'struck', cli: 'sh', args: ['-c', 'read line; kill -SEGV $$'] });
  await client.sendInput('struck', '\r');
  await struck.waitForExit(PATIENCE);
  const insights = await until('the crash', async () => {
    const seen = await client.getCrashInsights();
    return seen.recent.some((end) => end.agent_name === 'struck') && seen;
  });
  // With the one that could not be started; an end in order is listed, and no crash.
  assert.equal(insights.total_crashes, 3, JSON.stringify(insights));
  const crashes = Object.fromEntries(insights.recent.map((crash) => [crash.agent_name, crash]));
  assert.deepEqual(Object.keys(crashes).sort(), ['brief', 'clerk', 'struck', 'whale']);
  assert.deepEqual([crashes.brief.exit_code, crashes.brief.category], [7, 'error']);
  assert.deepEqual([crashes.struck.signal, crashes.struck.category], ['SIGSEGV', 'segfault']);
  for (const { timestamp, uptime_secs, description } of insights.recent) {
    assert.deepEqual([typeof timestamp, typeof uptime_secs, typeof description], ['number', 'number', 'string']);
    assert.ok(Math.abs(Date.now() / 1000 - timestamp) < 600, 'its time is in seconds');
  }
  for (const [name, category] of [['brief', 'error'], ['struck', 'segfault']]) {
    assert.ok(insights.patterns.some((pattern) => pattern.category === category && pattern.agents.includes(name)));
  }
  assert.ok(insights.health_score < 100 && insights.health_score >= 0, String(insights.health_score));
  await until('none of them is listed', async () => (await client.listAgents()).length === 2);

  say('another client');
  const other = HarnessDriverClient.connect({ cwd });
  assert.equal((await other.listAgents()).length, 2);
  other.disconnect();
  const stranger = new HarnessDriverClient({ baseUrl: client.baseUrl, apiKey: 'br_wrong' });
  await refused(stranger.getSession(), 401, 'unauthorized');

  say('release');
  assert.equal((await seal.release('shift over')).name, 'seal');
  assert.deepEqual((await client.listAgents()).map((agent) => agent.name), ['otter']);
  assert.equal((await client.release('nobody')).success, true);
  await until('the event of the release', () => client.getLastEvent('agent_released', 'seal'));
  const metrics = await client.getMetrics();
  assert.deepEqual(metrics.agents.map((agent) => agent.name), ['otter']);
  assert.equal(metrics.broker.active_agents, 1);

  say('shutdown');
  const [{ pid: left }] = await client.listAgents();
  const { brokerPid } = client;
  await stream.return();
  await reading;
  const began = Date.now();
  await client.shutdown();
  assert.ok(Date.now() - began < 5000, 'the driver had to kill it');
  assert.deepEqual(exits.map(({ code, signal, pid }) => [code, signal, pid]), [[0, null, brokerPid]]);
  assert.throws(() => process.kill(left, 0), 'an agent outlived its broker');
  assert.ok(!existsSync(connection), 'connection.json was left behind');
  say('done');
} catch (error) {
  const events = client.queryEvents().filter((event) => event.kind !== 'worker_stream');
  console.error(error);
  console.error('the broker said:', stderr);
  console.error('events:', events.map((event) => `${event.kind} ${event.name ?? ''}`));
  process.exitCode = 1;
} finally {
  await client.shutdown();
}
