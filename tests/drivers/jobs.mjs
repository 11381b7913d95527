// pg-boss and graphile-worker as an application uses them, with one URL: their tables live on a job database.
//
//     node jobs.mjs install     their schemas
//     node jobs.mjs run         jobs plain, scheduled, failing, unique, within transactions; workers are woken
//     node jobs.mjs maintain    jobs by the clock, and what is done is taken away
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { setTimeout as sleep } from 'node:timers/promises';

const require = createRequire(`${process.env.DRIVERS}/`);
const PgBoss = require('pg-boss');
const pg = require('pg');
const { makeWorkerUtils, run } = require('graphile-worker');
const connectionString = process.env.DATABASE_URL;

/** Waits until this holds. */
async function until(what, holds) {
  const end = Date.now() + 30_000;
  while (!(await holds())) {
    assert.ok(Date.now() < end, `waited in vain until ${what}`);
    await sleep(20);
  }
}

/** Waits until all of these were done; anything else must not have been. */
async function expect(done, names) {
  await until(`${names} are done`, () => done.length >= names.length);
  assert.deepEqual([...done].sort(), [...names].sort());
}

async function startBoss(options = {}) {
  const boss = new PgBoss({ connectionString, ...options });
  boss.on('error', (error) => {
    throw error;
  });
  return boss.start();
}

async function pgBoss(boss) {
  const done = [];
  let tries = 0;
  await boss.createQueue('flaky', { retryLimit: 2, retryDelay: 1 });
  await boss.work('plain', { pollingIntervalSeconds: 0.5 }, async (jobs) => {
    for (const job of jobs) done.push(job.data.n);
  });
  await boss.work('flaky', { pollingIntervalSeconds: 0.5 }, async (jobs) => {
    if (++tries === 1) throw new Error('once');
    for (const job of jobs) done.push(job.data.n);
  });
  await boss.send('plain', { n: 'plain' });
  await boss.send('plain', { n: 'scheduled' }, { startAfter: 1 });
  await boss.send('flaky', { n: 'retried' });
  const unique = { singletonKey: 'only', singletonSeconds: 600 };
  assert.ok(await boss.send('plain', { n: 'unique' }, unique));
  assert.equal(await boss.send('plain', { n: 'unique' }, unique), null);

  const client = new pg.Client({ connectionString });
  await client.connect();
  const db = { executeSql: (text, values) => client.query(text, values) };
  const item = (name) => client.query('INSERT INTO items VALUES ($1)', [name]);
  await client.query('BEGIN');
  await item('boss 1');
  assert.ok(await boss.send('plain', { n: 'with its transaction' }, { db }));
  await client.query('COMMIT');
  await client.query('BEGIN');
  assert.ok(await boss.send('plain', { n: 'before the rest of its transaction' }, { db }));
  await item('boss 2');
  await client.query('COMMIT');
  await client.query('BEGIN');
  await item('boss 3');
  assert.ok(await boss.send('plain', { n: 'rolled back' }, { db }));
  await client.query('ROLLBACK');
  await client.end();
  await expect(done, [
    'plain',
    'scheduled',
    'retried',
    'unique',
    'with its transaction',
    'before the rest of its transaction',
  ]);
}

async function graphileWorker(utils) {
  const done = [];
  const runner = await run({
    connectionString,
    // So long that only a notification can be in time.
    pollInterval: 600_000,
    noHandleSignals: true,
    taskList: {
      plain: async (payload) => done.push(payload.n),
      // Its name comes to the job database with the first job of it.
      ordered: async (payload) => done.push(payload.n),
    },
  });
  const client = new pg.Client({ connectionString });
  await client.connect();
  const names = [];
  /** Waits until this one was done, too, and nothing is left to look for: the next one has to wake the worker. */
  const expectAlso = async (name) => {
    names.push(name);
    await expect(done, names);
    await until('it is at rest', async () => !(await client.query('SELECT FROM graphile_worker.jobs')).rowCount);
  };
  await utils.addJob('plain', { n: 'plain' });
  await expectAlso('plain');
  await utils.addJob('plain', { n: 'keyed' }, { jobKey: 'only' });
  await expectAlso('keyed');

  const item = (name) => client.query('INSERT INTO items VALUES ($1)', [name]);
  const add = (n, more = '') =>
    client.query(`SELECT graphile_worker.add_job('ordered', json_build_object('n', $1::text)${more})`, [n]);
  await client.query('BEGIN');
  await item('worker 1');
  await add('with its transaction', `, queue_name => 'orders'`);
  await client.query('COMMIT');
  await expectAlso('with its transaction');
  await client.query('BEGIN');
  await add('before the rest of its transaction', `, queue_name => 'orders'`);
  await item('worker 2');
  await client.query('COMMIT');
  await expectAlso('before the rest of its transaction');
  await client.query('BEGIN');
  await item('worker 3');
  await add('rolled back');
  await client.query('ROLLBACK');
  await client.query('BEGIN');
  await item('worker 4');
  await add('replaced', `, job_key => 'only'`);
  await add('keyed in a transaction', `, job_key => 'only'`);
  await client.query('COMMIT');
  await expectAlso('keyed in a transaction');
  await runner.stop();
  await client.end();
  assert.deepEqual(done, names);
}

/** Its clock fires once a minute, at once for the minute that has begun. */
async function pgBossMaintains(count) {
  let ticks = 0;
  const boss = await startBoss({ cronMonitorIntervalSeconds: 1, cronWorkerIntervalSeconds: 1 });
  await boss.createQueue('tick');
  await boss.work('tick', { pollingIntervalSeconds: 0.5 }, async (jobs) => {
    assert.ok(jobs.every((job) => job.data.by === 'the clock'));
    ticks += jobs.length;
  });
  await boss.schedule('tick', '* * * * *', { by: 'the clock' });
  await until('the clock has fired', () => ticks > 0);
  await boss.unschedule('tick');
  await until('it is noted', async () => (await count(`pgboss.job WHERE state < 'completed'`)) === 0);
  await boss.stop({ graceful: false });

  // So early only without the clock, which looks at what it has added.
  let states;
  const cleaner = await startBoss({
    schedule: false,
    maintenanceIntervalSeconds: 1,
    monitorStateIntervalSeconds: 1,
    archiveCompletedAfterSeconds: 1,
    deleteAfterSeconds: 3,
  });
  cleaner.on('monitor-states', (found) => (states = found));
  await until('jobs are in the archive', async () => (await count('pgboss.archive')) > 0);
  for (const table of ['job', 'archive']) {
    await until(`${table} is empty`, async () => (await count(`pgboss.${table}`)) === 0);
  }
  await until('it has counted no job', () => states?.all === 0);
  await cleaner.stop({ graceful: false });
}

/** Its clock fires at once for what it has missed. */
async function graphileWorkerMaintains(count, client, utils) {
  const done = [];
  let tries = 0;
  await client.query(
    `INSERT INTO graphile_worker._private_known_crontabs (identifier, known_since)
     VALUES ('tick', now() - interval '1 hour')`,
  );
  const runner = await run({
    connectionString,
    pollInterval: 200,
    noHandleSignals: true,
    crontab: '* * * * * tick ?fill=1m&jobKey=tick {by: "the clock"}',
    taskList: {
      tick: async (payload) => {
        assert.equal(payload.by, 'the clock');
        done.push(payload._cron.backfilled ? 'missed tick' : 'tick');
      },
      plain: async (payload) => done.push(payload.n),
      flaky: async (payload) => {
        if (++tries === 1) throw new Error('once');
        done.push(payload.n);
      },
      fails: async () => {
        throw new Error('always');
      },
    },
  });
  const runAt = new Date(Date.now() + 1000);
  await utils.addJob('plain', { n: 'scheduled' }, { runAt });
  await utils.addJob('plain', { n: 'replaced' }, { jobKey: 'only', runAt });
  await utils.addJob('plain', { n: 'unique' }, { jobKey: 'only', runAt });
  await utils.addJob('flaky', { n: 'retried' }, { queueName: 'flaky' });
  await utils.addJob('fails', {}, { maxAttempts: 1, queueName: 'fails' });
  const all = ['missed tick', 'scheduled', 'unique', 'retried'];
  await until(`${all} are done`, () => all.every((name) => done.includes(name)));
  assert.deepEqual(done.filter((name) => name !== 'tick').sort(), [...all].sort());
  const failed = 'graphile_worker.jobs WHERE attempts = max_attempts AND locked_at IS NULL';
  await until('one has failed for good', async () => (await count(failed)) === 1);
  await runner.stop();
  await utils.cleanup({ tasks: ['DELETE_PERMAFAILED_JOBS', 'GC_TASK_IDENTIFIERS', 'GC_JOB_QUEUES'] });
}

async function maintain(utils) {
  const client = new pg.Client({ connectionString });
  await client.connect();
  const count = async (what) => Number((await client.query(`SELECT count(*) FROM ${what}`)).rows[0].count);
  await pgBossMaintains(count);
  await graphileWorkerMaintains(count, client, utils);
  await client.end();
}

const utils = await makeWorkerUtils({ connectionString });
if (process.argv[2] === 'maintain') {
  await maintain(utils);
} else {
  const boss = await startBoss();
  if (process.argv[2] === 'install') {
    await utils.migrate();
    await boss.createQueue('plain');
  } else {
    await pgBoss(boss);
    await graphileWorker(utils);
  }
  await boss.stop({ graceful: false });
}
await utils.release();
console.log('all ok');
process.exit(0);
