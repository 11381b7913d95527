// What a program has written it reads, on whichever connection of its pools, at once: node-postgres, postgres.js, knex,
// Drizzle, TypeORM and MikroORM through the URL in DATABASE_URL, ROUNDS times each, every third time in a transaction.
// Prints `ok NAME` for each and `all ok` at the end.

import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import path from 'node:path'

const require = createRequire(path.join(process.env.DRIVERS, 'package.json'))
const url = process.env.DATABASE_URL
const rounds = Number(process.env.ROUNDS)
const max = 5

// What each has: `write` and `write_in_transaction` with a number and a name, `read` of the number that gives the name, and
// `end`. Writers and readers have pools of their own.
const drivers = { node_postgres, synchronous_commit_off, postgres_js, knex, drizzle, typeorm, mikro_orm }

async function node_postgres(table, options) {
  const pg = require('pg')
  const writer = new pg.Pool({ connectionString: url, max, options })
  const reader = new pg.Pool({ connectionString: url, max })
  const insert = `INSERT INTO ${table} VALUES ($1, $2)`
  return {
    write: (id, name) => writer.query(insert, [id, name]),
    async write_in_transaction(id, name) {
      const client = await writer.connect()
      await client.query('BEGIN')
      await client.query(insert, [id, name])
      await client.query('COMMIT')
      client.release()
    },
    async read(id) {
      // Every other time as a prepared statement.
      const prepared = id % 2 ? `read ${table}` : undefined
      const { rows } = await reader.query({ name: prepared, text: `SELECT name FROM ${table} WHERE id = $1`, values: [id] })
      return rows.map((row) => row.name)
    },
    end: () => Promise.all([writer.end(), reader.end()]),
  }
}

function synchronous_commit_off(table) {
  return node_postgres(table, '-c synchronous_commit=off')
}

function postgres_js(table) {
  const postgres = require('postgres')
  const [writer, reader] = [postgres(url, { max }), postgres(url, { max })]
  return {
    write: (id, name) => writer`INSERT INTO ${writer(table)} ${writer({ id, name })}`,
    write_in_transaction: (id, name) => writer.begin((sql) => sql`INSERT INTO ${sql(table)} ${sql({ id, name })}`),
    read: async (id) => (await reader`SELECT name FROM ${reader(table)} WHERE id = ${id}`).map((row) => row.name),
    end: () => Promise.all([writer.end(), reader.end()]),
  }
}

function knex(table) {
  const open = () => require('knex')({ client: 'pg', connection: url, pool: { min: 0, max } })
  const [writer, reader] = [open(), open()]
  return {
    write: (id, name) => writer(table).insert({ id, name }),
    write_in_transaction: (id, name) => writer.transaction((transaction) => transaction(table).insert({ id, name })),
    read: (id) => reader(table).where({ id }).pluck('name'),
    end: () => Promise.all([writer.destroy(), reader.destroy()]),
  }
}

function drizzle(table) {
  const pg = require('pg')
  const { eq } = require('drizzle-orm')
  const { integer, pgTable, text } = require('drizzle-orm/pg-core')
  const pools = [1, 2].map(() => new pg.Pool({ connectionString: url, max }))
  const [writer, reader] = pools.map((client) => require('drizzle-orm/node-postgres').drizzle({ client }))
  const rows = pgTable(table, { id: integer().primaryKey(), name: text() })
  return {
    write: (id, name) => writer.insert(rows).values({ id, name }),
    write_in_transaction: (id, name) => writer.transaction((transaction) => transaction.insert(rows).values({ id, name })),
    async read(id) {
      const found = await reader.select().from(rows).where(eq(rows.id, id))
      return found.map((row) => row.name)
    },
    end: () => Promise.all(pools.map((pool) => pool.end())),
  }
}

async function typeorm(table) {
  const { DataSource, EntitySchema } = require('typeorm')
  const columns = { id: { type: 'int', primary: true }, name: { type: 'text' } }
  const entity = new EntitySchema({ name: table, tableName: table, columns })
  const open = () => new DataSource({ type: 'postgres', url, entities: [entity], poolSize: max }).initialize()
  const [writer, reader] = [await open(), await open()]
  return {
    write: (id, name) => writer.getRepository(entity).insert({ id, name }),
    // It looks first whether the row is there.
    write_in_transaction: (id, name) => writer.getRepository(entity).save({ id, name }),
    read: async (id) => (await reader.getRepository(entity).findBy({ id })).map((row) => row.name),
    end: () => Promise.all([writer.destroy(), reader.destroy()]),
  }
}

async function mikro_orm(table) {
  const { EntitySchema, MikroORM } = require('@mikro-orm/postgresql')
  const properties = { id: { type: 'integer', primary: true }, name: { type: 'text' } }
  const entity = new EntitySchema({ name: table, tableName: table, properties })
  const open = () => MikroORM.init({ clientUrl: url, entities: [entity], pool: { min: 0, max } })
  const [writer, reader] = [await open(), await open()]
  return {
    write: (id, name) => writer.em.fork().insert(entity, { id, name }),
    async write_in_transaction(id, name) {
      const em = writer.em.fork()
      await em.persistAndFlush(em.create(entity, { id, name }))
    },
    read: async (id) => (await reader.em.fork().find(entity, { id })).map((row) => row.name),
    end: () => Promise.all([writer.close(), reader.close()]),
  }
}

for (const [name, open] of Object.entries(drivers)) {
  const table = `own_${name}`
  const driver = await open(table)
  const { Client } = require('pg')
  const client = new Client({ connectionString: url })
  await client.connect()
  await client.query(`DROP TABLE IF EXISTS ${table}`)
  await client.query(`CREATE TABLE ${table} (id int PRIMARY KEY, name text NOT NULL)`)
  await client.end()
  for (let number = 0; number < rounds; number++) {
    const text = `number ${number}`
    await (number % 3 ? driver.write(number, text) : driver.write_in_transaction(number, text))
    assert.deepEqual(await driver.read(number), [text], `${name}: row ${number}`)
  }
  await driver.end()
  console.log('ok', name)
}
console.log('all ok')
