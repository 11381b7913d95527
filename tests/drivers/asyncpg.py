"""asyncpg through the URL in DATABASE_URL. Prints `ok NAME` for each check and `all ok` at the end.

It prepares everything by the extended protocol, with names of its own, and keeps them.
"""

import asyncio
import os

import asyncpg

URL = os.environ["DATABASE_URL"]
CLIENTS = 50


def ok(name):
    print("ok", name, flush=True)


async def basics(connection):
    assert await connection.fetchval("SELECT $1::int + 1", 41) == 42
    assert await connection.execute("SELECT 1; SELECT 2") == "SELECT 1"
    row = await connection.fetchrow("SELECT $1::text AS a, $2::timestamptz IS NULL AS b, $3::int[] AS c", "å", None, [1, 2])
    assert dict(row) == {"a": "å", "b": True, "c": [1, 2]}, row
    ok("queries")


async def prepared(connection):
    statement = await connection.prepare("SELECT $1::int * $2::int")
    for number in range(20):
        assert await statement.fetchval(number, 3) == number * 3
    assert [parameter.name for parameter in statement.get_parameters()] == ["int4", "int4"]
    ok("prepared statements")


async def transactions(connection):
    async with connection.transaction():
        await connection.execute("CREATE TEMP TABLE tx (id int) ON COMMIT DROP")
        await connection.executemany("INSERT INTO tx VALUES ($1)", [(n,) for n in range(100)])
        try:
            async with connection.transaction():
                await connection.execute("DELETE FROM tx")
                raise KeyError
        except KeyError:
            pass
        assert await connection.fetchval("SELECT count(*) FROM tx") == 100
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        assert await connection.fetchval("SHOW transaction_isolation") == "repeatable read"
    ok("transactions, savepoints, executemany")


async def failures(connection):
    try:
        await connection.fetch("SELECT 1 / $1::int", 0)
    except asyncpg.DivisionByZeroError:
        pass
    else:
        raise AssertionError("division by zero must fail")
    try:
        await connection.fetch("SELECT * FROM does_not_exist")
    except asyncpg.UndefinedTableError:
        pass
    else:
        raise AssertionError("a missing table must fail")
    assert await connection.fetchval("SELECT 1") == 1
    ok("errors")


async def cursors(connection):
    async with connection.transaction():
        total = 0
        async for row in connection.cursor("SELECT generate_series(1, $1::int) AS n", 1000, prefetch=10):
            total += row["n"]
        assert total == 500_500, total
    ok("cursors")


async def copy(connection):
    async with connection.transaction():
        await connection.execute("CREATE TEMP TABLE copied (id int, name text) ON COMMIT DROP")
        records = [(n, f"name {n}") for n in range(10_000)]
        assert await connection.copy_records_to_table("copied", records=records) == "COPY 10000"
        chunks = []

        async def collect(data):
            chunks.append(data)

        await connection.copy_from_query("SELECT id FROM copied ORDER BY id", output=collect)
        assert b"".join(chunks).split() == [str(n).encode() for n in range(10_000)]
    ok("copy both ways")


async def cancel(connection):
    try:
        await connection.fetchval("SELECT pg_sleep(30)", timeout=0.3)
    except asyncio.TimeoutError:
        pass
    else:
        raise AssertionError("the statement must be cancelled")
    assert await connection.fetchval("SELECT 1") == 1
    ok("cancel by timeout")


async def listen(connection):
    heard = asyncio.get_running_loop().create_future()
    await connection.add_listener("driver_channel", lambda *arguments: heard.set_result(arguments[3]))
    await connection.execute("SELECT pg_notify('driver_channel', 'hello')")
    assert await asyncio.wait_for(heard, 10) == "hello"
    await connection.reset()
    ok("listen, notify, reset")


async def load():
    """As many clients as fit into the pool five times over, each in its own transactions."""
    connections = await asyncio.gather(*(asyncpg.connect(URL) for _ in range(CLIENTS)))
    await connections[0].execute("CREATE TABLE IF NOT EXISTS driver_load (client int, number int)")

    async def work(client, connection):
        for number in range(20):
            async with connection.transaction():
                await connection.execute("INSERT INTO driver_load VALUES ($1, $2)", client, number)
                mine = await connection.fetchval("SELECT count(*) FROM driver_load WHERE client = $1", client)
                assert mine == number + 1, (client, mine, number)

    await asyncio.gather(*(work(n, connection) for n, connection in enumerate(connections)))
    assert await connections[0].fetchval("SELECT count(*) FROM driver_load") == CLIENTS * 20
    await connections[0].execute("DROP TABLE driver_load")
    await asyncio.gather(*(connection.close() for connection in connections))
    ok("fifty clients at once")


async def main():
    connection = await asyncpg.connect(URL)
    for check in [basics, prepared, transactions, failures, cursors, copy, cancel, listen]:
        await check(connection)
    await connection.close()
    await load()
    print("all ok", flush=True)


asyncio.run(main())
