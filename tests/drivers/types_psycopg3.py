"""psycopg 3, with results in binary format, on a job table whose types have other numbers on the job database. Prints `ok
NAME` and, at the end, `all ok`.
"""

import os

import psycopg
from psycopg.types.composite import CompositeInfo, register_composite
from psycopg.types.enum import EnumInfo, register_enum

URL = os.environ["DATABASE_URL"]


def ok(name):
    print("ok", name, flush=True)


with psycopg.connect(URL) as connection:
    state = EnumInfo.fetch(connection, "oban_job_state")
    register_enum(state, connection)
    State = state.enum
    step = CompositeInfo.fetch(connection, "job_step")
    register_composite(step, connection)
    Step = step.python_type
    connection.commit()
    for binary in (False, True):
        cursor = connection.cursor(binary=binary)
        for number in range(12):
            cursor.execute("SELECT state, states, step, steps FROM oban_jobs WHERE id = %s", (1,))
            types = [column.type_code for column in cursor.description]
            assert types == [state.oid, state.array_oid, step.oid, step.array_oid], (types, state, step)
            first = Step("first", State.scheduled, [State.retryable])
            row = cursor.fetchone()
            assert row == (State.available, [State.available, None, State.completed], first, [first, None, Step(None, None, None)]), row
            form = "%b" if binary else "%t"
            sql = f"SELECT count(*) FROM oban_jobs WHERE state = ANY ({form}) AND steps = {form} AND step = {form}"
            found = [first, None, Step(None, None, None)]
            cursor.execute(sql, ([State.available, State.completed], found, first))
            assert cursor.fetchone() == (3,), (binary, number)
            connection.commit()
        ok("binary" if binary else "text")
print("all ok", flush=True)
