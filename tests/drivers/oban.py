"""oban as an application uses it, with one URL: its tables live on a job database. It needs Python 3.12.

python oban.py install     its schema
python oban.py run         jobs plain, scheduled, failing, within transactions; workers are woken
python oban.py maintain    jobs by the clock, and what is done is taken away; takes until the next minute
"""

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable

import oban.schema
from oban import Job, Oban, worker
from psycopg_pool import AsyncConnectionPool

URL = os.environ["DATABASE_URL"]
# How often it looks for jobs by itself: so long that only a notification can be in time.
NEVER = {"interval": 600.0}
done: list[str] = []
tries = 0


@worker(queue="default")
class Plain:
    async def process(self, job: Job) -> None:
        done.append(job.args["n"])


@worker(queue="default", max_attempts=3)
class Flaky:
    async def process(self, job: Job) -> None:
        global tries
        tries += 1
        if tries == 1:
            raise RuntimeError("once")
        done.append(job.args["n"])

    def backoff(self, job: Job) -> int:
        return 1


async def until(what: str, holds: Callable[[], Awaitable[bool]], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not await holds():
        assert time.monotonic() < end, f"waited in vain until {what}: {done}"
        await asyncio.sleep(0.02)


async def count(pool: AsyncConnectionPool, what: str) -> int:
    async with pool.connection() as connection:
        [row] = await (await connection.execute(f"SELECT count(*) FROM {what}")).fetchall()
        return row[0]


async def run(pool: AsyncConnectionPool) -> None:
    names: list[str] = []

    async def completed() -> bool:
        """So the queue is at rest, and would not look for more."""
        return await count(pool, "oban_jobs WHERE state = 'completed'") == len(names)

    async with Oban(pool=pool, queues={"default": 5}, stager=NEVER) as jobs:
        for n in range(3):
            names.append(f"woken {n}")
            await jobs.enqueue(Plain.new({"n": names[-1]}))
            await until("it is woken", completed)
            names.append(f"with transaction {n}")
            async with pool.connection() as connection:
                await connection.execute("INSERT INTO items VALUES (%s)", [f"oban {n}.1"])
                await jobs.enqueue(Plain.new({"n": names[-1]}), conn=connection)
            await until("it is woken", completed)
            names.append(f"before the rest of transaction {n}")
            async with pool.connection() as connection:
                await jobs.enqueue(Plain.new({"n": names[-1]}), conn=connection)
                await connection.execute("INSERT INTO items VALUES (%s)", [f"oban {n}.2"])
            await until("it is woken", completed)
        async with pool.connection() as connection:
            await connection.execute("INSERT INTO items VALUES ('oban 3')")
            await jobs.enqueue(Plain.new({"n": "rolled back"}), conn=connection)
            await connection.rollback()

    async with Oban(pool=pool, queues={"default": 5}) as jobs:
        scheduled = await jobs.enqueue(Plain.new({"n": "scheduled"}, schedule_in=1))
        assert scheduled.state == "scheduled", scheduled
        await jobs.enqueue(Flaky.new({"n": "retried"}))
        names += ["scheduled", "retried"]
        await until("all are done", completed)
    assert sorted(done) == sorted(names), done
    assert tries == 2, tries


async def maintain(pool: AsyncConnectionPool) -> None:
    assert await count(pool, "oban_jobs") > 0
    pruner = {"max_age": 1, "interval": 0.2}

    @worker(queue="default", cron="* * * * *")
    class Tick:
        async def process(self, job: Job) -> None:
            done.append(job.meta["cron_at"])

    async def is_pruned() -> bool:
        return await count(pool, "oban_jobs WHERE NOT meta ? 'cron'") == 0

    async def is_ticking() -> bool:
        return len(done) > 0

    async def is_empty() -> bool:
        return await count(pool, "oban_jobs") == 0

    async with Oban(pool=pool, queues={"default": 5}, stager=NEVER, pruner=pruner) as jobs:
        assert jobs.is_leader
        await until("the old jobs are taken away", is_pruned)
        await until("the clock has fired", is_ticking, seconds=90)
        await until("its job is taken away", is_empty)
    assert len(set(done)) == len(done), f"a minute has come twice: {done}"


async def main() -> None:
    async with AsyncConnectionPool(URL, min_size=2, max_size=8) as pool:
        if sys.argv[1] == "install":
            await oban.schema.install(pool)
        elif sys.argv[1] == "run":
            await run(pool)
        else:
            await maintain(pool)
    print("all ok")


asyncio.run(main())
