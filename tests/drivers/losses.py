"""The server's connection is lost within a transaction: psycopg 3 and asyncpg must not take it for committed.

Uses DATABASE_URL. Prints `ok NAME` for each check and `all ok` at the end."""

import asyncio
import os

import asyncpg
import psycopg

URL = os.environ["DATABASE_URL"]


def ok(name):
    print("ok", name, flush=True)


def end_backend(mark):
    """Ends the backend whose last statement has this mark."""
    end = """SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity
        WHERE query LIKE %s AND pid <> pg_backend_pid()"""
    with psycopg.connect(URL, autocommit=True) as other:
        for _ in range(100):
            if other.execute(end, (f"%{mark}%",)).fetchone()[0]:
                return
    raise AssertionError(f"no backend has {mark}")


def count():
    with psycopg.connect(URL, autocommit=True) as other:
        return other.execute("SELECT count(*) FROM losses").fetchone()[0]


def fails(what, act):
    try:
        act()
    except psycopg.OperationalError:
        return
    raise AssertionError(f"{what} returned as if all were well")


def psycopg_commit():
    connection = psycopg.connect(URL)
    connection.execute("INSERT INTO losses VALUES (1) /* commit */")
    end_backend("/* commit */")
    fails("commit()", connection.commit)
    connection.rollback()
    assert connection.execute("SELECT count(*) FROM losses").fetchone() == (0,)
    connection.close()
    ok("psycopg: commit")


def psycopg_prepared_commit():
    # From its sixth time on a statement is prepared; COMMIT never is by psycopg, so by name.
    connection = psycopg.connect(URL, autocommit=True)
    for statement in ("BEGIN", "COMMIT"):
        connection.execute(statement, prepare=True)
    connection.execute("BEGIN", prepare=True)
    connection.execute("INSERT INTO losses VALUES (1) /* prepared */")
    end_backend("/* prepared */")
    fails("SELECT", lambda: connection.execute("SELECT 1"))
    connection.execute("COMMIT", prepare=True)
    assert connection.execute("SELECT count(*) FROM losses").fetchone() == (0,)
    connection.close()
    ok("psycopg: prepared COMMIT after the error")


def psycopg_block():
    connection = psycopg.connect(URL, autocommit=True)

    def block():
        with connection.transaction():
            connection.execute("INSERT INTO losses VALUES (1) /* block */")
            end_backend("/* block */")

    fails("the block", block)
    assert connection.execute("SELECT count(*) FROM losses").fetchone() == (0,)
    connection.close()
    ok("psycopg: a block")


def psycopg_pipeline():
    connection = psycopg.connect(URL, autocommit=True)

    def pipeline():
        with connection.pipeline():
            cursor = connection.execute("INSERT INTO losses VALUES (1) RETURNING 7 /* pipeline */")
            assert cursor.fetchone() == (7,)
            end_backend("/* pipeline */")

    fails("the pipeline", pipeline)
    # As with the server's own connection, this one has gone with it.
    assert connection.broken, connection
    assert count() == 0
    ok("psycopg: a pipeline")


def psycopg_transaction_in_pipeline():
    connection = psycopg.connect(URL, autocommit=True)

    def pipeline():
        with connection.pipeline(), connection.transaction():
            cursor = connection.execute("INSERT INTO losses VALUES (1) RETURNING 7 /* both */")
            assert cursor.fetchone() == (7,)
            end_backend("/* both */")

    fails("the transaction", pipeline)
    assert connection.broken, connection
    assert count() == 0
    ok("psycopg: a transaction in a pipeline")


async def asyncpg_commit():
    connection = await asyncpg.connect(URL)
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("INSERT INTO losses VALUES (1) /* asyncpg */")
    end_backend("/* asyncpg */")
    try:
        await transaction.commit()
    except asyncpg.PostgresError:
        pass
    else:
        raise AssertionError("commit() returned as if all were well")
    assert await connection.fetchval("SELECT count(*) FROM losses") == 0
    await connection.close()
    ok("asyncpg: commit")


async def asyncpg_pool():
    async with asyncpg.create_pool(URL, min_size=1, max_size=1) as pool:
        for statement in (None, "SELECT 1"):
            try:
                async with pool.acquire() as connection, connection.transaction():
                    await connection.execute("INSERT INTO losses VALUES (1) /* pool */")
                    end_backend("/* pool */")
                    if statement:
                        await connection.execute(statement)
            except (asyncpg.PostgresError, asyncpg.InterfaceError):
                pass
            else:
                raise AssertionError("the block returned as if all were well")
            assert await pool.fetchval("SELECT count(*) FROM losses") == 0
    ok("asyncpg: a pool")


with psycopg.connect(URL, autocommit=True) as setup:
    setup.execute("CREATE TABLE losses (a int)")
psycopg_commit()
psycopg_prepared_commit()
psycopg_block()
psycopg_pipeline()
psycopg_transaction_in_pipeline()
asyncio.run(asyncpg_commit())
asyncio.run(asyncpg_pool())
assert count() == 0
print("all ok")
