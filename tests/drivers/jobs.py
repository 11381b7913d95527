"""Procrastinate as an application uses it, with one URL: its tables live on a job database.

python jobs.py install     its schema
python jobs.py run         jobs plain, scheduled, failing, unique, within transactions; workers are woken
python jobs.py maintain    jobs by the clock, one of which takes away what is done; workers that are gone
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import procrastinate
import psycopg
from procrastinate.builtin_tasks import remove_old_jobs

URL = os.environ["DATABASE_URL"]
done: list[str] = []
tries = 0
# What the worker has come to: it listens, and has looked for a job since it was last woken, in vain.
listens = waits = False


class Connector(procrastinate.PsycopgConnector):
    async def _loop_notify(self, **how: Any) -> None:
        """Waits for notifications, once the server has been told to send them."""
        global listens
        listens = True
        await super()._loop_notify(**how)


app = procrastinate.App(connector=Connector(conninfo=URL, min_size=1, max_size=6))
fetch_job = app.job_manager.fetch_job


async def fetch(**what: Any) -> Any:
    global waits
    waits = False
    job = await fetch_job(**what)
    # Before anything else runs the worker forgets what it was woken by.
    waits = job is None
    return job


app.job_manager.fetch_job = fetch


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


async def until(what: str, holds: Callable[[], Awaitable[bool]]) -> None:
    end = time.monotonic() + 30
    while not await holds():
        assert time.monotonic() < end, f"waited in vain until {what}: {done}"
        await asyncio.sleep(0.02)


async def count(what: str) -> int:
    async with await psycopg.AsyncConnection.connect(URL, autocommit=True) as connection:
        [row] = await (await connection.execute(f"SELECT count(*) FROM {what}")).fetchall()
        return row[0]


@asynccontextmanager
async def working(polling: float) -> AsyncIterator[None]:
    """A worker that looks for jobs as often, in seconds.

    It may be left once it has begun: before that the word to stop is lost, or its row stays behind."""
    global listens, waits
    listens = waits = False
    work = app.run_worker_async(
        queues=["q"], install_signal_handlers=False, fetch_job_polling_interval=polling
    )
    worker = asyncio.create_task(work)
    try:
        yield
    finally:
        worker.cancel()
        [end] = await asyncio.gather(worker, return_exceptions=True)
        assert end is None or isinstance(end, asyncio.CancelledError), end


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
    names = ["plain", "with its transaction", "before the rest of its transaction"]
    to_do = "procrastinate_jobs WHERE status = 'todo' AND scheduled_at IS NULL"

    async def are_added() -> bool:
        return await count(to_do) == len([*names, "retried"])

    async def at_rest() -> bool:
        """All of these were done, and the worker waits to be woken.

        It forgets what wakes it while it looks for a job and finds none, straight at a server, too."""
        left = await count(f"{to_do} OR status = 'doing'")
        return set(names) <= set(done) and left == 0 and listens and waits

    # Nothing that the worker will be told of is about these.
    await until("the first are added", are_added)
    # So long that only a notification can be in time.
    async with working(polling=600):
        await until("the first are done", at_rest)
        for n in range(3):
            names.append(f"woken {n}")
            await plain.defer_async(n=names[-1])
            await until("it is woken", at_rest)
            names.append(f"woken by transaction {n}")
            with psycopg.connect(URL) as connection:
                connection.execute("INSERT INTO items VALUES ('procrastinate 4')")
                defer(connection, names[-1])
                connection.commit()
            await until("it is woken", at_rest)
    names += ["scheduled", "retried", "unique"]
    async with working(polling=0.2):
        await until("all are done", at_rest)
    assert sorted(done) == sorted(names), done


async def maintain() -> None:
    assert await count("procrastinate_jobs") > 0
    ticks: list[int] = []

    @app.periodic(cron="* * * * * */1")
    @app.task(queue="q", name="tick")
    async def tick(timestamp: int) -> None:
        ticks.append(timestamp)

    # As its documentation has it done, but for how often and how soon.
    @app.periodic(cron="* * * * * */1")
    @app.task(queue="q", name="clean", queueing_lock="clean", pass_context=True)
    async def clean(context: procrastinate.JobContext, timestamp: int) -> None:
        await remove_old_jobs(context, max_hours=0)

    async def has_ticked() -> bool:
        return len(ticks) >= 3

    async def is_cleaned() -> bool:
        return await count("procrastinate_jobs WHERE task_name IN ('plain', 'flaky')") == 0

    async with working(polling=600):
        await until("the clock has fired", has_ticked)
        await until("what is done is taken away", is_cleaned)
    assert len(set(ticks)) == len(ticks), ticks
    # Those of the last moment, which nobody has taken.
    for job in await app.job_manager.list_jobs_async(status="todo"):
        assert job.id and await app.job_manager.cancel_job_by_id_async(job.id)
    await app.job_manager.delete_old_jobs(nb_hours=0, include_cancelled=True, include_aborted=True)
    gone = await app.job_manager.register_worker()
    assert await app.job_manager.prune_stalled_workers(seconds_since_heartbeat=0) == [gone]


async def main() -> None:
    async with app.open_async():
        if sys.argv[1] == "install":
            await app.schema_manager.apply_schema_async()
        elif sys.argv[1] == "run":
            await run()
        else:
            await maintain()
    print("all ok")


asyncio.run(main())
