// The server's connection is lost within a transaction: node-postgres must not take it for committed.
//
// Uses DATABASE_URL; DRIVERS is the folder that holds node_modules. Prints `ok NAME` for each check and `all ok` at the end.
// The same lines come from a connection straight to the server, where whoever has lost it connects again.

import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import path from 'node:path'

const require = createRequire(path.join(process.env.DRIVERS, 'package.json'))
const pg = require('pg')

const connectionString = process.env.DATABASE_URL
const ok = (name) => console.log('ok', name)
const insert = (mark) => `INSERT INTO losses VALUES (1) /* ${mark} */`

// An answer that never comes is a failure like any other.
setTimeout(() => {
  console.error('it hangs after the last line')
  process.exit(1)
}, 30_000).unref()

// A client whose own end is no error that ends the program.
async function connect() {
  const client = new pg.Client({ connectionString })
  client.isLost = false
  client.on('error', () => (client.isLost = true))
  client.on('end', () => (client.isLost = true))
  await client.connect()
  return client
}

const other = await connect()
await other.query('CREATE TABLE losses (a int)')

// Ends the backend whose last statement has this mark.
async function endBackend(mark) {
  const end = `SELECT count(pg_terminate_backend(pid, 5000))::int AS ended FROM pg_stat_activity
    WHERE query LIKE $1 AND pid <> pg_backend_pid()`
  for (let attempt = 0; attempt < 100; attempt++) {
    const { rows } = await other.query(end, [`%/* ${mark} */%`])
    if (rows[0].ended) return
  }
  assert.fail(`no backend has ${mark}`)
}

// Nothing is there, and the client that has lost its transaction, or the next one, goes on.
async function checkAfter(client, name) {
  const { rows } = await other.query('SELECT count(*)::int AS a FROM losses')
  assert.equal(rows[0].a, 0, `${name}: a row of a lost transaction`)
  const next = client.isLost ? await connect() : client
  assert.equal((await next.query('SELECT 1 AS a')).rows[0].a, 1)
  await next.query(insert('not kept'))
  await next.query('DELETE FROM losses')
  await next.end()
  ok(name)
}

{
  const client = await connect()
  await client.query('BEGIN')
  await client.query(insert('commit'))
  await endBackend('commit')
  await assert.rejects(client.query('COMMIT'))
  await checkAfter(client, 'commit')
}

{
  const client = await connect()
  const commit = { name: 'commit', text: 'COMMIT' }
  await client.query('BEGIN')
  await client.query(commit)
  await client.query('BEGIN')
  await client.query(insert('prepared commit'))
  await endBackend('prepared commit')
  await assert.rejects(client.query(commit))
  await checkAfter(client, 'prepared commit')
}

{
  const client = await connect()
  const rollback = { name: 'rollback', text: 'ROLLBACK' }
  await client.query('BEGIN')
  await client.query(rollback)
  await client.query('BEGIN')
  await client.query(insert('rollback'))
  await endBackend('rollback')
  await assert.rejects(client.query('SELECT 1'))
  // What is lost can be rolled back as often as one likes, or there is nobody left to do it.
  const command = await client.query(rollback).then((result) => result.command, () => 'ROLLBACK')
  assert.equal(command, 'ROLLBACK')
  await checkAfter(client, 'prepared rollback after the error')
}

{
  // One row at a time: each of them is asked for by an Execute and a Flush, and the Sync comes at the end.
  const client = await connect()
  const text = `INSERT INTO losses SELECT 1 FROM generate_series(1, 1000) RETURNING a /* pipeline */`
  const query = client.query(new pg.Query({ text, rows: 1 }))
  const first = new Promise((resolve) => query.once('row', resolve))
  const end = new Promise((resolve, reject) => query.once('end', resolve).once('error', reject))
  end.catch(() => {})
  await first
  // What it asks for next is answered by the end of the connection, and not by a thousand rows.
  client.connection.stream.pause()
  await endBackend('pipeline')
  client.connection.stream.resume()
  await assert.rejects(end)
  await checkAfter(client, 'pipeline')
}

for (const statement of [null, 'SELECT 1']) {
  const pool = new pg.Pool({ connectionString, max: 1 })
  pool.on('error', () => {})
  const one = await pool.connect()
  one.on('error', () => {})
  const work = async () => {
    await one.query('BEGIN')
    await one.query(insert('pool'))
    await endBackend('pool')
    if (statement) await one.query(statement)
    await one.query('COMMIT')
  }
  await assert.rejects(work())
  // As applications do it: what cannot be rolled back is not put back into the pool.
  const error = await one.query('ROLLBACK').then(() => undefined, (error) => error)
  one.release(error)
  assert.equal((await pool.query('SELECT count(*)::int AS a FROM losses')).rows[0].a, 0)
  await pool.end()
  ok(statement ? 'pool, a statement before the commit' : 'pool')
}

await other.end()
console.log('all ok')
