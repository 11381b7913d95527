"""psycopg 3 through the URL in DATABASE_URL. Prints `ok NAME` for each check and `all ok` at the end."""

import os
import threading

import psycopg
from psycopg import errors

URL = os.environ["DATABASE_URL"]
# More connections than the pool has backends.
MANY = 25


def ok(name):
    print("ok", name, flush=True)


def simple(connection):
    # Without parameters and with prepare=False psycopg sends the simple protocol.
    rows = connection.execute("SELECT 1; SELECT 2").fetchall()
    assert rows == [(1,)], rows
    ok("simple queries")


def parameterised(connection):
    row = connection.execute("SELECT %s::int + 1, %s::text, %s::bytea", (41, "å'\"\\", b"\x00\xff")).fetchone()
    assert row == (42, "å'\"\\", b"\x00\xff"), row
    row = connection.cursor(binary=True).execute("SELECT %s::timestamptz", ("2020-01-02 03:04:05+00",)).fetchone()
    assert row[0].year == 2020, row
    ok("parameters")


def prepared(connection):
    for number in range(20):
        assert connection.execute("SELECT %s::int * 2", (number,), prepare=True).fetchone() == (number * 2,)
    ok("prepared statements")


def transactions(connection):
    with connection.transaction():
        connection.execute("CREATE TEMP TABLE tx (id int) ON COMMIT DROP")
        connection.execute("INSERT INTO tx VALUES (1)")
        try:
            with connection.transaction():
                connection.execute("INSERT INTO tx VALUES (2)")
                raise KeyError
        except KeyError:
            pass
        assert connection.execute("SELECT count(*) FROM tx").fetchone() == (1,)
    connection.autocommit = False
    connection.execute("CREATE TABLE gone (id int)")
    connection.rollback()
    assert connection.execute("SELECT to_regclass('gone')").fetchone() == (None,)
    connection.commit()
    connection.autocommit = True
    ok("transactions, savepoints, rollback")


def failures(connection):
    for sql, wanted in [
        ("SELEC", errors.SyntaxError),
        ("SELECT * FROM does_not_exist", errors.UndefinedTable),
        ("SELECT 1 / 0", errors.DivisionByZero),
    ]:
        try:
            connection.execute(sql)
        except wanted:
            pass
        else:
            raise AssertionError(sql)
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
        try:
            cursor.execute("SELECT 1 / %s", (0,))
        except errors.DivisionByZero:
            pass
        try:
            cursor.execute("SELECT 1")
        except errors.InFailedSqlTransaction:
            pass
        else:
            raise AssertionError("the transaction has failed")
        cursor.execute("ROLLBACK")
        assert cursor.execute("SELECT 1").fetchone() == (1,)
    ok("errors")


def copy(connection):
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE copied (id int, name text) ON COMMIT DROP")
        with cursor.copy("COPY copied FROM STDIN") as stream:
            for number in range(10_000):
                stream.write_row((number, f"name {number}"))
        with cursor.copy("COPY (SELECT id, name FROM copied ORDER BY id) TO STDOUT (FORMAT BINARY)") as stream:
            stream.set_types(["int4", "text"])
            rows = list(stream.rows())
        assert len(rows) == 10_000 and rows[-1] == (9_999, "name 9999")
    with connection.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE numbers (id int)")
        try:
            with cursor.copy("COPY numbers FROM STDIN") as stream:
                stream.write("nonsense\n")
        except errors.InvalidTextRepresentation:
            pass
        else:
            raise AssertionError("a bad COPY must fail")
        cursor.execute("DROP TABLE numbers")
        assert cursor.execute("SELECT 1").fetchone() == (1,)
    ok("copy both ways")


def server_side_cursor(connection):
    with connection.transaction(), connection.cursor(name="big") as cursor:
        cursor.itersize = 100
        cursor.execute("SELECT generate_series(1, %s)", (1000,))
        assert sum(row[0] for row in cursor) == 500_500
    ok("server-side cursor")


def pipeline(connection):
    with connection.pipeline():
        cursors = [connection.execute("SELECT %s::int", (number,)) for number in range(50)]
        results = [cursor.fetchone()[0] for cursor in cursors]
    assert results == list(range(50)), results
    try:
        with connection.pipeline():
            connection.execute("SELECT 1 / %s", (0,))
            connection.execute("SELECT 1")
    except errors.DivisionByZero:
        pass
    else:
        raise AssertionError("a failure in a pipeline must show")
    assert connection.execute("SELECT 1").fetchone() == (1,)
    ok("pipeline")


def notices(connection):
    seen = []
    connection.add_notice_handler(lambda diagnostic: seen.append(diagnostic.message_primary))
    connection.execute("DO $$ BEGIN RAISE NOTICE 'hello'; END $$")
    assert seen == ["hello"], seen
    ok("notices")


def settings(connection):
    connection.execute("SET application_name = 'one'")
    connection.execute("SET TIME ZONE 'Asia/Tokyo'")
    assert connection.info.parameter_status("TimeZone") == "Asia/Tokyo"
    assert connection.execute("SHOW application_name").fetchone() == ("one",)
    connection.execute("RESET ALL")
    ok("settings")


def cancel(connection):
    timer = threading.Timer(0.3, connection.cancel)
    timer.start()
    try:
        connection.execute("SELECT pg_sleep(30)")
    except errors.QueryCanceled:
        pass
    else:
        raise AssertionError("the statement must be cancelled")
    timer.join()
    assert connection.execute("SELECT 1").fetchone() == (1,)
    ok("cancel")


def listen(connection):
    with psycopg.connect(URL, autocommit=True) as other:
        connection.execute("LISTEN driver_channel")
        other.execute("SELECT pg_notify('driver_channel', 'hello')")
        notification = next(connection.notifies(timeout=10))
        assert notification.payload == "hello", notification
        connection.execute("UNLISTEN driver_channel")
    ok("listen and notify")


def many_connections():
    """Every connection keeps its prepared statements although they share fewer backends."""
    connections = [psycopg.connect(URL, autocommit=True, prepare_threshold=0) for _ in range(MANY)]
    for round_number in range(5):
        for number, connection in enumerate(connections):
            # The same name on every connection (psycopg counts from 0) with another text.
            row = connection.execute(f"SELECT %s::int + {number}", (round_number,)).fetchone()
            assert row == (round_number + number,), row
    for connection in connections:
        connection.close()
    ok("prepared statements on many connections")


with psycopg.connect(URL, autocommit=True) as main:
    for check in [
        simple,
        parameterised,
        prepared,
        transactions,
        failures,
        copy,
        server_side_cursor,
        pipeline,
        notices,
        settings,
        cancel,
        listen,
    ]:
        check(main)
many_connections()
print("all ok", flush=True)
