// node-postgres through the URL in DATABASE_URL. Prints `ok NAME` for each check and `all ok` at the end.
// DRIVERS is the folder that holds node_modules.

import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import path from 'node:path'

const require = createRequire(path.join(process.env.DRIVERS, 'package.json'))
const pg = require('pg')

const connectionString = process.env.DATABASE_URL
const CLIENTS = 50
const ok = (name) => console.log('ok', name)

const client = new pg.Client({ connectionString })
await client.connect()

const results = await client.query('SELECT 1 AS a; SELECT 2 AS a')
assert.deepEqual(results.map((result) => result.rows[0].a), [1, 2])
ok('simple queries')

const parameters = await client.query('SELECT $1::int + 1 AS a, $2::text AS b, $3::jsonb AS c', [41, "å'", { x: 1 }])
assert.deepEqual(parameters.rows[0], { a: 42, b: "å'", c: { x: 1 } })
ok('parameters')

for (let number = 0; number < 20; number++) {
  const { rows } = await client.query({ name: 'double', text: 'SELECT $1::int * 2 AS a', values: [number] })
  assert.equal(rows[0].a, number * 2)
}
ok('named prepared statement')

await client.query('BEGIN')
await client.query('CREATE TABLE node_gone (id int)')
await client.query('ROLLBACK')
assert.equal((await client.query("SELECT to_regclass('node_gone') AS a")).rows[0].a, null)
ok('rollback')

await assert.rejects(client.query('SELECT 1 / $1::int', [0]), { code: '22012' })
await assert.rejects(client.query('SELEC'), { code: '42601' })
assert.equal((await client.query('SELECT 1 AS a')).rows[0].a, 1)
ok('errors')

const heard = new Promise((resolve) => client.once('notification', resolve))
await client.query('LISTEN node_channel')
await client.query("SELECT pg_notify('node_channel', 'hello')")
assert.equal((await heard).payload, 'hello')
await client.query('UNLISTEN *')
ok('listen and notify')
await client.end()

const pool = new pg.Pool({ connectionString, max: CLIENTS })
await pool.query('CREATE TABLE IF NOT EXISTS node_load (client int, number int)')
await Promise.all(
  Array.from({ length: CLIENTS }, async (_, number) => {
    const one = await pool.connect()
    for (let round = 0; round < 20; round++) {
      await one.query('BEGIN')
      // The same name on every connection, with another text.
      const insert = { name: 'insert', text: `INSERT INTO node_load VALUES (${number}, $1)`, values: [round] }
      await one.query(insert)
      const { rows } = await one.query('SELECT count(*)::int AS a FROM node_load WHERE client = $1', [number])
      assert.equal(rows[0].a, round + 1)
      await one.query('COMMIT')
    }
    one.release()
  }),
)
assert.equal((await pool.query('SELECT count(*)::int AS a FROM node_load')).rows[0].a, CLIENTS * 20)
await pool.query('DROP TABLE node_load')
await pool.end()
ok('fifty clients at once')

console.log('all ok')
