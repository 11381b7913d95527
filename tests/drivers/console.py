"""The console by psycopg (simple and extended protocol) and asyncpg (extended, binary)."""

import asyncio
import os

import asyncpg
import psycopg

URL = os.environ["DATABASE_URL"]


def by_psycopg():
    with psycopg.connect(URL, autocommit=True) as connection:
        pools = connection.execute("SHOW POOLS")
        names = [column.name for column in pools.description]
        assert names[:4] == ["database", "user", "cl_active", "cl_waiting"], names
        rows = [dict(zip(names, row)) for row in pools]
        assert {row["database"] for row in rows} >= {"primary", "replicas", "jobs"}, rows
        assert all(isinstance(row["sv_idle"], int) for row in rows), rows
        stats = connection.execute("SHOW STATS", binary=True).fetchall()
        assert all(int(value) >= 0 for row in stats for value in row[1:]), stats
        with connection.cursor() as cursor:
            cursor.execute("SHOW VERSION", prepare=True)
            assert "Bulkhead" in cursor.fetchone()[0]
        try:
            connection.execute("SHOW NOTHING")
        except psycopg.errors.SyntaxError as error:
            assert "SHOW HELP" in error.diag.message_hint
        else:
            raise AssertionError("it is no command")
    # In a transaction, as a driver begins it by itself.
    with psycopg.connect(URL) as connection:
        assert connection.execute("SHOW STATE").fetchone() == ("active", "yes")
        connection.commit()


async def by_asyncpg():
    connection = await asyncpg.connect(URL)
    for _ in range(2):
        rows = await connection.fetch("SHOW STATS_TOTALS")
        assert {row["database"] for row in rows} >= {"primary"}, rows
        assert all(int(row["xact_count"]) >= 0 for row in rows), rows
    assert (await connection.fetchrow("SHOW LISTS"))["items"] == 3
    assert await connection.execute("RELOAD") == "RELOAD"
    await connection.close()


by_psycopg()
asyncio.run(by_asyncpg())
print("all ok")
