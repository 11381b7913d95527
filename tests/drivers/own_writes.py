"""What a program has written it reads, on another connection, at once: psycopg 3, asyncpg and SQLAlchemy through the URL in
DATABASE_URL, ROUNDS times each. Prints `ok NAME` for each and `all ok` at the end.
"""

import asyncio
import os

import asyncpg
import psycopg
import sqlalchemy

URL = os.environ["DATABASE_URL"]
ROUNDS = int(os.environ["ROUNDS"])


def ok(name):
    print("ok", name, flush=True)


def psycopg_rounds():
    with psycopg.connect(URL, autocommit=True) as writer, psycopg.connect(URL, autocommit=True) as reader:
        writer.execute("CREATE TABLE own_psycopg (id int PRIMARY KEY)")
        for number in range(ROUNDS):
            if number % 10 == 1:
                with writer.cursor().copy("COPY own_psycopg FROM STDIN") as copy:
                    copy.write_row((number,))
            elif number % 10 == 2:
                with writer.transaction():
                    writer.execute("INSERT INTO own_psycopg VALUES (%s)", (number,))
            else:
                writer.execute("INSERT INTO own_psycopg VALUES (%s)", (number,))
            row = reader.execute("SELECT id FROM own_psycopg WHERE id = %s", (number,)).fetchone()
            assert row == (number,), (number, row)


async def asyncpg_rounds():
    writer, reader = await asyncpg.connect(URL), await asyncpg.connect(URL)
    await writer.execute("CREATE TABLE own_asyncpg (id int PRIMARY KEY)")
    for number in range(ROUNDS):
        if number % 10 == 1:
            async with writer.transaction():
                await writer.execute("INSERT INTO own_asyncpg VALUES ($1)", number)
        else:
            await writer.execute("INSERT INTO own_asyncpg VALUES ($1)", number)
        found = await reader.fetchval("SELECT id FROM own_asyncpg WHERE id = $1", number)
        assert found == number, (number, found)
    await writer.close()
    await reader.close()


def sqlalchemy_rounds():
    engine = sqlalchemy.create_engine(URL.replace("postgres://", "postgresql+psycopg://", 1), pool_size=5)
    table = sqlalchemy.Table("own_sqlalchemy", sqlalchemy.MetaData(), sqlalchemy.Column("id", sqlalchemy.Integer))
    table.create(engine)
    for number in range(ROUNDS):
        with engine.begin() as writer:
            writer.execute(sqlalchemy.insert(table).values(id=number))
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as reader:
            found = reader.scalar(sqlalchemy.select(table.c.id).where(table.c.id == number))
            assert found == number, (number, found)


psycopg_rounds()
ok("psycopg")
asyncio.run(asyncpg_rounds())
ok("asyncpg")
sqlalchemy_rounds()
ok("SQLAlchemy")
print("all ok")
