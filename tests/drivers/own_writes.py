"""What a program has written it reads, on another connection, at once: psycopg 3, asyncpg, SQLAlchemy and Django
through the URL in DATABASE_URL, ROUNDS times each. Prints `ok NAME` for each and `all ok` at the end.
"""

import asyncio
import os

import asyncpg
import django
import psycopg
import sqlalchemy
from django.conf import settings
from psycopg.conninfo import conninfo_to_dict

URL = os.environ["DATABASE_URL"]
ROUNDS = int(os.environ["ROUNDS"])


def ok(name):
    print("ok", name, flush=True)


def psycopg_rounds():
    with psycopg.connect(URL, autocommit=True) as writer, psycopg.connect(URL, autocommit=True) as reader:
        writer.execute("DROP TABLE IF EXISTS own_psycopg")
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
    await writer.execute("DROP TABLE IF EXISTS own_asyncpg")
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
    table.drop(engine, checkfirst=True)
    table.create(engine)
    for number in range(ROUNDS):
        with engine.begin() as writer:
            writer.execute(sqlalchemy.insert(table).values(id=number))
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as reader:
            found = reader.scalar(sqlalchemy.select(table.c.id).where(table.c.id == number))
            assert found == number, (number, found)


def django_rounds():
    parts = conninfo_to_dict(URL)
    names = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}
    database = {key: parts.get(name, "") for key, name in names.items()} | {"ENGINE": "django.db.backends.postgresql"}
    # As Django's documentation asks for behind a pooler.
    database["DISABLE_SERVER_SIDE_CURSORS"] = True
    settings.configure(DATABASES={"default": database, "reader": dict(database)}, USE_TZ=True)
    django.setup()
    from django.db import connections, models, transaction

    class Row(models.Model):
        id = models.IntegerField(primary_key=True)
        name = models.TextField()

        class Meta:
            app_label = "own"
            db_table = "own_django"

    with connections["default"].cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS own_django")
    with connections["default"].schema_editor() as editor:
        editor.create_model(Row)
    for number in range(ROUNDS):
        row = Row(id=number, name=f"number {number}")
        if number % 3 == 0:
            row.save()
        elif number % 3 == 1:
            Row.objects.bulk_create([row])
        else:
            with transaction.atomic():
                row.save(force_insert=True)
        found = Row.objects.using("reader").get(id=number)
        assert found.name == row.name, (number, found.name)
        row.name = "changed"
        row.save(update_fields=["name"])
        assert Row.objects.using("reader").filter(id=number, name="changed").exists(), number
    connections.close_all()


psycopg_rounds()
ok("psycopg")
asyncio.run(asyncpg_rounds())
ok("asyncpg")
sqlalchemy_rounds()
ok("SQLAlchemy")
django_rounds()
ok("Django")
print("all ok")
