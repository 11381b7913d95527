// What a program has written it reads, on whichever connection of its pool, at once: node-postgres through the URL in
// DATABASE_URL, ROUNDS times, also with synchronous_commit off. Prints `ok NAME` for each and `all ok` at the end.

import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import path from 'node:path'

const require = createRequire(path.join(process.env.DRIVERS, 'package.json'))
const pg = require('pg')

const rounds = Number(process.env.ROUNDS)
const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 5 })
const lazy = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 5, options: '-c synchronous_commit=off' })
await pool.query('CREATE TABLE own_node (id int PRIMARY KEY, by text)')

for (const [name, writer] of [['pool', pool], ['synchronous_commit off', lazy]]) {
  for (let number = 0; number < rounds; number++) {
    const id = name === 'pool' ? number : -1 - number
    await writer.query('INSERT INTO own_node VALUES ($1, $2)', [id, name])
    const { rows } = await pool.query('SELECT by FROM own_node WHERE id = $1', [id])
    assert.deepEqual(rows, [{ by: name }], `${name} ${number}`)
  }
  console.log('ok', name)
}
await Promise.all([pool.end(), lazy.end()])
console.log('all ok')
