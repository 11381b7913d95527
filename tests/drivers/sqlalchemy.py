"""SQLAlchemy 2 with psycopg 3 and its own connection pool, through the URL in DATABASE_URL.

Prints `ok NAME` for each check and `all ok` at the end.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import sqlalchemy as sa
from sqlalchemy import orm

URL = os.environ["DATABASE_URL"].replace("postgres://", "postgresql+psycopg://", 1)
CLIENTS = 50


class Base(orm.DeclarativeBase):
    pass


class Account(Base):
    __tablename__ = "driver_accounts"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    owner: orm.Mapped[str]
    balance: orm.Mapped[int] = orm.mapped_column(default=0)


def ok(name):
    print("ok", name, flush=True)


engine = sa.create_engine(URL, pool_size=CLIENTS, max_overflow=0)

Base.metadata.drop_all(engine)
Base.metadata.create_all(engine)
columns = [column["name"] for column in sa.inspect(engine).get_columns("driver_accounts")]
assert columns == ["id", "owner", "balance"], columns
ok("create tables and reflect them")

with orm.Session(engine) as session:
    session.add_all([Account(owner=f"owner {number}", balance=100) for number in range(200)])
    session.commit()
    assert session.scalar(sa.select(sa.func.count()).select_from(Account)) == 200
    ok("unit of work")

    first = session.scalars(sa.select(Account).order_by(Account.id).limit(1)).one()
    first.balance = 0
    session.rollback()
    assert session.get(Account, first.id).balance == 100
    with session.begin_nested() as savepoint:
        first.balance = 1
        session.flush()
        savepoint.rollback()
    assert session.get(Account, first.id).balance == 100
    session.commit()
    ok("rollback and savepoint")

    try:
        session.execute(sa.insert(Account).values(id=first.id, owner="twice"))
    except sa.exc.IntegrityError:
        session.rollback()
    else:
        raise AssertionError("a duplicate key must fail")
    ok("errors")

with engine.connect().execution_options(stream_results=True, max_row_buffer=50) as connection:
    assert sum(row.balance for row in connection.execute(sa.select(Account.balance))) == 20_000
ok("streamed results")


def move(number):
    with orm.Session(engine) as session, session.begin():
        rows = session.scalars(sa.select(Account).order_by(Account.id).limit(2).with_for_update()).all()
        rows[0].balance -= number
        rows[1].balance += number


with ThreadPoolExecutor(CLIENTS) as executor:
    list(executor.map(move, range(CLIENTS * 4)))
with engine.connect() as connection:
    assert connection.scalar(sa.select(sa.func.sum(Account.balance))) == 20_000
ok("fifty threads at once")

Base.metadata.drop_all(engine)
engine.dispose()
print("all ok", flush=True)
