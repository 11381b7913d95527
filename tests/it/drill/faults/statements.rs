//! Statements, sessions and writes that the server ends or refuses, and what others do to a session's definitions.

use super::{Bound, Fault, Group, PINNED, WRITERS, pause};
use crate::drill::{
    ledger::Told,
    stage::{Shape, Stage},
};
use crate::support::{RawClient, error_code};

pub(in crate::drill) static STATEMENTS: Group = Group {
    shape: Shape::Replicated,
    faults: &[
        Fault {
            name: "`statement_timeout`",
            bring: |stage| Box::pin(statement_timeout(stage)),
            own: "57014",
            sees: &[],
            bound: Bound::Wait,
        },
        Fault {
            name: "`lock_timeout`",
            bring: |stage| Box::pin(lock_timeout(stage)),
            own: "55P03",
            sees: &[],
            bound: Bound::Wait,
        },
        Fault {
            name: "deadlock",
            bring: |stage| Box::pin(deadlock(stage)),
            own: "40P01",
            sees: &[],
            bound: Bound::Wait,
        },
        Fault {
            name: "serialization failure",
            bring: |stage| Box::pin(serialization(stage)),
            own: "40001",
            sees: &[],
            bound: Bound::Wait,
        },
        Fault {
            name: "cancel",
            bring: |stage| Box::pin(cancel(stage)),
            own: "57014",
            sees: &[],
            bound: Bound::Wait,
        },
        Fault {
            name: "a storm of cancels, late and with wrong keys",
            bring: |stage| Box::pin(cancel_storm(stage)),
            own: "",
            sees: &[],
            bound: Bound::Wait,
        },
        Fault {
            name: "`idle_in_transaction_session_timeout`",
            bring: |stage| Box::pin(idle_in_transaction(stage)),
            own: "25P03†",
            sees: &[],
            bound: Bound::Wait,
        },
        Fault {
            name: "the server's `idle_session_timeout`",
            bring: |stage| Box::pin(idle_session(stage)),
            own: "57P05†",
            sees: &[],
            bound: Bound::Wait,
        },
        Fault {
            name: "primary set read-only",
            bring: |stage| Box::pin(read_only(stage)),
            own: "",
            sees: &[(WRITERS, "25006"), (PINNED, "25006")],
            bound: Bound::Wait,
        },
        Fault {
            name: "writes fail as on a full disk (a trigger's `53100`)",
            bring: |stage| Box::pin(full_disk(stage)),
            own: "",
            sees: &[(WRITERS, "53100"), (PINNED, "53100")],
            bound: Bound::Wait,
        },
        Fault {
            name: "tables locked for 0.5 s",
            bring: |stage| Box::pin(locked(stage)),
            own: "",
            sees: &[],
            bound: Bound::Pause(500),
        },
        Fault {
            name: "DDL that changes a prepared statement's columns",
            bring: |stage| Box::pin(plans(stage)),
            own: "0A000",
            sees: &[],
            bound: Bound::Wait,
        },
        Fault {
            name: "`DISCARD ALL`, `RESET ALL`, `UNLISTEN *` of others",
            bring: |stage| Box::pin(discards(stage)),
            own: "",
            sees: &[],
            bound: Bound::Wait,
        },
        Fault {
            name: "defaults of the role changed",
            bring: |stage| Box::pin(defaults(stage)),
            own: "",
            sees: &[],
            bound: Bound::Wait,
        },
    ],
};

async fn statement_timeout(stage: &mut Stage) {
    let mut client = stage.client().await;
    client.ask("SET statement_timeout = 50").await;
    client.query(&format!("{}, pg_sleep(10)", stage.own_insert(Told::NotRun))).await;
    stage.told(&mut client).await;
    client.ask(&stage.own_insert(Told::Done).replace("SELECT", "SELECT /* it goes on */")).await;
}

async fn lock_timeout(stage: &mut Stage) {
    let mut holder = RawClient::app(stage.primary().port()).await;
    holder.ask("SELECT pg_advisory_lock(7)").await;
    let mut client = stage.client().await;
    client.ask("SET lock_timeout = 50").await;
    client.query(&format!("{}, pg_advisory_xact_lock(7)", stage.own_insert(Told::NotRun))).await;
    stage.told(&mut client).await;
}

/// Whoever waits first looks for a deadlock first, and is the one that is told.
async fn deadlock(stage: &mut Stage) {
    let (mut first, mut second) = (stage.client().await, stage.client().await);
    for (client, number, told) in [(&mut first, 1, Told::NotRun), (&mut second, 2, Told::Done)] {
        client.ask("BEGIN").await;
        client.ask(&stage.own_insert(told)).await;
        client.ask(&format!("SELECT pg_advisory_xact_lock({number})")).await;
    }
    first.query("SELECT pg_advisory_xact_lock(2)").await;
    stage.primary().wait_for_app_backends("wait_event_type = 'Lock'", 1).await;
    second.query("SELECT pg_advisory_xact_lock(1)").await;
    assert_eq!(stage.told(&mut first).await, "40P01");
    assert_eq!(stage.told(&mut second).await, "");
    for client in [&mut first, &mut second] {
        client.ask("COMMIT").await;
    }
}

async fn serialization(stage: &mut Stage) {
    let mut client = stage.client().await;
    client.ask("CREATE TABLE IF NOT EXISTS drill_own AS SELECT 1 AS a").await;
    client.ask("BEGIN ISOLATION LEVEL REPEATABLE READ").await;
    client.ask(&stage.own_insert(Told::NotRun)).await;
    stage.primary().query("UPDATE drill_own SET a = a + 1").await;
    client.query("UPDATE drill_own SET a = 0").await;
    stage.told(&mut client).await;
    assert_eq!(client.ask("COMMIT").await[0].body, &b"ROLLBACK\0"[..]);
}

async fn cancel(stage: &mut Stage) {
    let mut client = stage.client().await;
    let (pid, secret) = client.key().clone();
    client.query(&format!("{}, pg_sleep(10)", stage.own_insert(Told::NotRun))).await;
    stage.primary().wait_for_app_backends("state = 'active' AND query LIKE '%pg_sleep(10)%'", 1).await;
    RawClient::cancel(stage.proxy.port(), pid, &secret).await;
    stage.told(&mut client).await;
}

async fn cancel_storm(stage: &mut Stage) {
    let mut client = stage.client().await;
    let (pid, secret) = client.key().clone();
    for number in 0..30 {
        // Its own statement is over; the connection serves others.
        client.ask("SELECT 1").await;
        RawClient::cancel(stage.proxy.port(), pid, &secret).await;
        let key = stage.random.bytes(4);
        RawClient::cancel(stage.proxy.port(), pid + number, &key).await;
    }
    stage.units(10).await;
}

async fn idle_in_transaction(stage: &mut Stage) {
    let mut client = stage.client().await;
    client.ask("SET idle_in_transaction_session_timeout = 100").await;
    client.ask("BEGIN").await;
    client.ask(&stage.own_insert(Told::NotRun)).await;
    stage.told(&mut client).await;
}

/// It ends what is kept: the pool's idle connections, the one that listens, one of a pinned session.
async fn idle_session(stage: &mut Stage) {
    let mut client = stage.client().await;
    client.ask("CREATE TEMP TABLE own (a int)").await;
    stage.primary().query("ALTER SYSTEM SET idle_session_timeout = '300ms'").await;
    stage.primary().query("SELECT pg_reload_conf()").await;
    pause(50).await;
    // The timeout counts from the end of a statement.
    client.ask("SELECT count(*) FROM own").await;
    stage.told(&mut client).await;
    pause(300).await;
    stage.primary().query("ALTER SYSTEM RESET idle_session_timeout").await;
    stage.primary().query("SELECT pg_reload_conf()").await;
}

async fn read_only(stage: &mut Stage) {
    stage.primary().query("ALTER SYSTEM SET default_transaction_read_only = on").await;
    stage.primary().query("SELECT pg_reload_conf()").await;
    pause(300).await;
    stage.primary().query("ALTER SYSTEM RESET default_transaction_read_only").await;
    stage.primary().query("SELECT pg_reload_conf()").await;
    // The server's processes read it at the next statement, and not all at once.
    pause(100).await;
}

async fn full_disk(stage: &mut Stage) {
    let full = "CREATE OR REPLACE FUNCTION drill_full() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$;
        CREATE TRIGGER full_disk BEFORE INSERT ON drill_rows FOR EACH ROW EXECUTE FUNCTION drill_full()";
    stage.primary().query(full).await;
    pause(300).await;
    stage.primary().query("DROP TRIGGER full_disk ON drill_rows").await;
}

async fn locked(stage: &mut Stage) {
    stage
        .primary()
        .query("BEGIN; LOCK TABLE drill_rows, drill_slow, drill_known; SELECT pg_sleep(0.5); COMMIT")
        .await;
}

/// Also columns that come and go under the load's statements, which do not name them.
async fn plans(stage: &mut Stage) {
    let mut client = stage.client().await;
    client.ask("CREATE TABLE IF NOT EXISTS drill_own AS SELECT 1 AS a").await;
    client.parse("all", "SELECT * FROM drill_own").describe(b'S', "all");
    client.finish().await;
    for change in ["ADD COLUMN extra int", "DROP COLUMN extra"] {
        for table in ["drill_own", "drill_rows"] {
            stage.primary().query(&format!("ALTER TABLE {table} {change}")).await;
        }
        if change.starts_with("ADD") {
            client.bind("", "all", &[]).execute("", 0).sync().flush().await;
            stage.told(&mut client).await;
        }
        stage.units(10).await;
    }
}

async fn discards(stage: &mut Stage) {
    let mut client = stage.client().await;
    for text in
        ["DISCARD ALL", "RESET ALL", "UNLISTEN *", "DEALLOCATE ALL", "SET ROLE app", "DISCARD TEMP"].repeat(5)
    {
        let answer = client.ask(text).await;
        assert_eq!(error_code(&answer), None, "{text}");
    }
    stage.units(10).await;
}

async fn defaults(stage: &mut Stage) {
    let mut client = stage.client().await;
    for value in ["5MB", "6MB"] {
        client.ask(&format!("ALTER ROLE app SET work_mem = '{value}'")).await;
        stage.units(15).await;
    }
    client.ask("ALTER ROLE app RESET work_mem").await;
}
