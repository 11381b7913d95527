"""asyncpg on a job table whose types have other numbers on the job database. Prints `ok NAME` and, at the end, `all ok`.

It learns types from the catalog, takes and sends binary values only, and fails at a number that it cannot find.
"""

import asyncio
import os

import asyncpg

URL = os.environ["DATABASE_URL"]


def ok(name):
    print("ok", name, flush=True)


async def rows(connection):
    row = await connection.fetchrow("SELECT state, states, step, steps, seen, note, notes FROM oban_jobs WHERE id = 1")
    step = ("first", "scheduled", ["retryable"])
    assert row["state"] == "available" and row["states"] == ["available", None, "completed"], row
    assert tuple(row["step"]) == step and row["step"]["after"] == ["retryable"], row
    assert [part and tuple(part) for part in row["steps"]] == [step, None, (None, None, None)], row
    assert row["seen"] == [["available"], ["executing"]] and row["notes"] == ["one", "two"], row
    whole = await connection.fetchval("SELECT oban_jobs FROM oban_jobs WHERE id = 1")
    assert whole["state"] == "available" and whole["steps"][0]["state"] == "scheduled", whole
    span = await connection.fetchval("SELECT span FROM oban_jobs WHERE id = 1")
    assert tuple(span.lower) == step and span.upper["state"] == "executing", span
    ok("rows")


async def parameters(connection):
    found = await connection.fetch("SELECT id FROM oban_jobs WHERE state = ANY ($1) AND id < 5 ORDER BY id", ["available", "completed"])
    assert [row["id"] for row in found] == [1, 2, 3, 4], found
    async with connection.transaction():
        sql = """UPDATE oban_jobs SET state = $1, states = $2, step = $3, steps = $4, note = $5 WHERE id = $6
            RETURNING state, states, step, steps, note"""
        step = ("second", "completed", ["discarded"])
        values = ("executing", ["cancelled"], step, [step, step], "changed")
        row = await connection.fetchrow(sql, *values, 2)
        assert (row["state"], row["states"], row["note"]) == ("executing", ["cancelled"], "changed"), row
        assert tuple(row["step"]) == step and [tuple(part) for part in row["steps"]] == [step, step], row
    assert await connection.fetchval("SELECT state FROM oban_jobs WHERE id = $1", 2) == "executing"
    restored = await connection.execute("""UPDATE oban_jobs AS o
        SET state = $1, states = p.states, step = p.step, steps = p.steps, note = p.note
        FROM oban_jobs AS p WHERE o.id = $2 AND p.id = 1""", "available", 2)
    assert restored == "UPDATE 1", restored
    ok("parameters")


async def prepared(connection):
    statement = await connection.prepare("SELECT step, state FROM oban_jobs WHERE state = $1 ORDER BY id LIMIT 1")
    assert [attribute.type.name for attribute in statement.get_attributes()] == ["job_step", "oban_job_state"]
    for _ in range(10):
        assert (await statement.fetchrow("available"))["state"] == "available"
    async with connection.transaction():
        steps = [row["steps"] async for row in connection.cursor("SELECT steps FROM oban_jobs WHERE id < 5 ORDER BY id", prefetch=1)]
        assert len(steps) == 4 and steps[3] is None and steps[0][0]["name"] == "first", steps
    await connection.executemany("INSERT INTO oban_jobs (id, worker, state, steps) VALUES ($1, 'many', $2, $3)",
        [(n, "scheduled", [("n", "available", [])]) for n in range(100, 120)])
    assert await connection.fetchval("SELECT count(*) FROM oban_jobs WHERE state = 'scheduled'") == 20
    await connection.execute("DELETE FROM oban_jobs WHERE id >= 100")
    ok("prepared statements, cursors, executemany")


async def application(connection):
    row = await connection.fetchrow("SELECT b, ARRAY[b] AS list FROM other_4")
    assert row["b"] == "x" and row["list"] == ["x"], row
    assert await connection.fetchval("SELECT 42 FROM other_4 WHERE b = $1", "x") == 42
    ok("the application's own types")


async def main():
    connections = await asyncio.gather(*(asyncpg.connect(URL) for _ in range(3)))
    for check in [rows, parameters, prepared, application]:
        for connection in connections:
            await check(connection)
    # What was made in the meantime.
    await connections[0].execute("CREATE TYPE made_later AS ENUM ('a')")
    await asyncio.gather(*(connection.close() for connection in connections))
    print("all ok", flush=True)


asyncio.run(main())
