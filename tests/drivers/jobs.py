"""Procrastinate as an application uses it, with one URL: its tables live on a job database.

python jobs.py install     its schema
python jobs.py run         jobs plain, scheduled, failing, unique, within transactions
"""

import asyncio
import os
import sys
import time

import procrastinate
import psycopg

URL = os.environ["DATABASE_URL"]
done: list[str] = []
tries = 0
connector = procrastinate.PsycopgConnector(conninfo=URL, min_size=1, max_size=6)
app = procrastinate.App(connector=connector)


@app.task(queue="q", name="plain")
async def plain(n: str) -> None:
    done.append(n)


@app.task(queue="q", name="flaky", retry=procrastinate.RetryStrategy(max_attempts=3, wait=1))
async def flaky(n: str) -> None:
    global tries
    tries += 1
    if tries == 1:
        raise RuntimeError("once")
    done.append(n)


async def expect(*names: str) -> None:
    """Waits until all of these were done; anything else must not have been."""
    end = time.monotonic() + 30
    while len(done) < len(names) and time.monotonic() < end:
        await asyncio.sleep(0.02)
    assert sorted(done) == sorted(names), done


def defer(connection: psycopg.Connection, n: str) -> None:
    """Adds a job in the transaction of this connection."""
    connection.execute(
        "SELECT unnest(procrastinate_defer_jobs_v1(ARRAY[ROW('q', 'plain', 0, NULL, NULL,"
        " jsonb_build_object('n', %s::text), NULL)::procrastinate_job_to_defer_v1])) AS id",
        [n],
    )


async def run() -> None:
    await plain.defer_async(n="plain")
    await plain.configure(schedule_in={"seconds": 1}).defer_async(n="scheduled")
    await flaky.defer_async(n="retried")
    locked = plain.configure(queueing_lock="only", schedule_in={"seconds": 1})
    await locked.defer_async(n="unique")
    try:
        await locked.defer_async(n="unique")
        raise AssertionError("a job of the same queueing lock was added")
    except procrastinate.exceptions.AlreadyEnqueued:
        pass
    with psycopg.connect(URL) as connection:
        connection.execute("INSERT INTO items VALUES ('procrastinate 1')")
        defer(connection, "with its transaction")
        connection.commit()
        defer(connection, "before the rest of its transaction")
        connection.execute("INSERT INTO items VALUES ('procrastinate 2')")
        connection.commit()
        connection.execute("INSERT INTO items VALUES ('procrastinate 3')")
        defer(connection, "rolled back")
        connection.rollback()
    worker = asyncio.create_task(
        app.run_worker_async(
            queues=["q"],
            install_signal_handlers=False,
            # So long that only a notification can be in time.
            fetch_job_polling_interval=600,
        )
    )
    first = ["plain", "with its transaction", "before the rest of its transaction"]
    while not set(first) <= set(done):
        assert not worker.done(), worker
        await asyncio.sleep(0.02)
    with psycopg.connect(URL) as connection:
        connection.execute("INSERT INTO items VALUES ('procrastinate 4')")
        defer(connection, "woken")
        connection.commit()
    end = time.monotonic() + 30
    while "woken" not in done and time.monotonic() < end:
        await asyncio.sleep(0.02)
    assert "woken" in done and "rolled back" not in done, done
    worker.cancel()
    await asyncio.gather(worker, return_exceptions=True)


async def main() -> None:
    async with app.open_async():
        if sys.argv[1] == "install":
            await app.schema_manager.apply_schema_async()
        else:
            await run()
    print("all ok")


asyncio.run(main())
