// pg-boss and graphile-worker as an application uses them, with one URL: their tables live on a job database.
//
//     node jobs.mjs install     their schemas
//     node jobs.mjs run         jobs plain, scheduled, failing, unique, within transactions
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { setTimeout as sleep } from 'node:timers/promises';

const require = createRequire(`${process.env.DRIVERS}/`);
const PgBoss = require('pg-boss');
const pg = require('pg');
const { makeWorkerUtils, run } = require('graphile-worker');
const connectionString = process.env.DATABASE_URL;

/** Waits until all of these were done; anything else must not have been. */
async function expect(done, names) {
  const end = Date.now() + 30_000;
  while (done.length < names.length && Date.now() < end) await sleep(20);
  assert.deepEqual([...done].sort(), [...names].sort());
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
  let tries = 0;
  const runner = await run({
    connectionString,
    // So long that only a notification can be in time.
    pollInterval: 600_000,
    noHandleSignals: true,
    taskList: {
      plain: async (payload) => done.push(payload.n),
      // Its name comes to the job database with the first job of it.
      ordered: async (payload) => done.push(payload.n),
      flaky: async (payload) => {
        if (++tries === 1) throw new Error('once');
        done.push(payload.n);
      },
    },
  });
  await utils.addJob('plain', { n: 'plain' });
  await expect(done, ['plain']);
  await utils.addJob('plain', { n: 'keyed' }, { jobKey: 'only' });
  await expect(done, ['plain', 'keyed']);

  const client = new pg.Client({ connectionString });
  await client.connect();
  const item = (name) => client.query('INSERT INTO items VALUES ($1)', [name]);
  const add = (n, more = '') =>
    client.query(`SELECT graphile_worker.add_job('ordered', json_build_object('n', $1::text)${more})`, [n]);
  await client.query('BEGIN');
  await item('worker 1');
  await add('with its transaction', `, queue_name => 'orders'`);
  await client.query('COMMIT');
  await client.query('BEGIN');
  await add('before the rest of its transaction', `, queue_name => 'orders'`);
  await item('worker 2');
  await client.query('COMMIT');
  await client.query('BEGIN');
  await item('worker 3');
  await add('rolled back');
  await client.query('ROLLBACK');
  await client.query('BEGIN');
  await item('worker 3');
  await assert.rejects(add('keyed', `, job_key => 'only'`), { code: '0A000' });
  await client.query('ROLLBACK');
  await client.end();
  await expect(done, ['plain', 'keyed', 'with its transaction', 'before the rest of its transaction']);
  await runner.stop();
}

const boss = new PgBoss({ connectionString });
boss.on('error', (error) => {
  throw error;
});
await boss.start();
const utils = await makeWorkerUtils({ connectionString });
if (process.argv[2] === 'install') {
  await utils.migrate();
  await boss.createQueue('plain');
} else {
  await pgBoss(boss);
  await graphileWorker(utils);
}
await utils.release();
await boss.stop({ graceful: false });
console.log('all ok');
process.exit(0);
