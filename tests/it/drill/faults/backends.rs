//! Connections to servers that end, one by one or all.

use crate::support::eventually;

use super::{BUSY, Bound, Fault, Group, LISTEN, LOST, PINNED, TOLD};
use crate::drill::stage::{SOON, Shape, Stage};

pub(in crate::drill) static BACKENDS: Group = Group {
    shape: Shape::Replicated,
    faults: &[
        Fault {
            name: "idle server connections ended",
            bring: |stage| Box::pin(idle(stage)),
            own: "",
            sees: TOLD,
            bound: Bound::Wait,
        },
        Fault {
            name: "server connections ended in a transaction",
            bring: |stage| Box::pin(in_transaction(stage)),
            own: "",
            sees: BUSY,
            bound: Bound::Wait,
        },
        Fault {
            name: "server connections ended during a statement",
            bring: |stage| Box::pin(during_statement(stage)),
            own: "",
            sees: TOLD,
            bound: Bound::Wait,
        },
        Fault {
            name: "server connections ended during `COMMIT`",
            bring: |stage| Box::pin(during_commit(stage)),
            own: "",
            sees: BUSY,
            bound: Bound::Wait,
        },
        Fault {
            name: "server connections ended during `COPY`",
            bring: |stage| Box::pin(during_copy(stage)),
            own: "",
            sees: BUSY,
            bound: Bound::Wait,
        },
        Fault {
            name: "the connection that listens ended",
            bring: |stage| Box::pin(listening(stage)),
            own: "",
            sees: &[(LISTEN, "57P01†")],
            bound: Bound::Wait,
        },
        Fault {
            name: "connections of pinned sessions ended",
            bring: |stage| Box::pin(pinned(stage)),
            own: "",
            sees: &[(PINNED, "57P01 57P01† 08006 08006†")],
            bound: Bound::Wait,
        },
        Fault {
            name: "all connections to the primary ended",
            bring: |stage| Box::pin(all(stage)),
            own: "",
            sees: TOLD,
            bound: Bound::Wait,
        },
        Fault {
            name: "all connections to the replica ended",
            bring: |stage| Box::pin(of_replica(stage)),
            own: "",
            sees: &[],
            bound: Bound::Wait,
        },
        Fault {
            name: "a server process killed (-9): the server recovers",
            bring: |stage| Box::pin(killed(stage)),
            own: "",
            sees: LOST,
            bound: Bound::Wait,
        },
    ],
};

/// Of the one that listens for everybody.
const LISTENS: &str = "(query LIKE '%LISTEN %' OR query = ';') AND query NOT LIKE '%pg_listening_channels%'";

/// Ends backends as soon as there are some that `condition` holds for.
async fn end(stage: &Stage, condition: &str) {
    eventually(&format!("backends where {condition}"), SOON, async || {
        (stage.primary().end_app_backends(condition).await > 0).then_some(())
    })
    .await;
}

/// Those that wait for the next session; one may be taken at that very moment.
async fn idle(stage: &mut Stage) {
    end(stage, &format!("state = 'idle' AND NOT ({LISTENS}) AND query NOT LIKE '%mine%'")).await;
}

async fn in_transaction(stage: &mut Stage) {
    end(stage, "state = 'idle in transaction'").await;
}

async fn during_statement(stage: &mut Stage) {
    end(stage, "state = 'active' AND query LIKE 'INSERT%'").await;
}

async fn during_commit(stage: &mut Stage) {
    end(stage, "state = 'active' AND query = 'COMMIT'").await;
}

async fn during_copy(stage: &mut Stage) {
    end(stage, "state = 'active' AND query LIKE 'COPY%'").await;
}

async fn listening(stage: &mut Stage) {
    end(stage, LISTENS).await;
}

async fn pinned(stage: &mut Stage) {
    end(stage, "query LIKE '%FROM mine%'").await;
}

async fn all(stage: &mut Stage) {
    end(stage, "true").await;
}

/// A read that runs is run once more, on the primary.
async fn of_replica(stage: &mut Stage) {
    let mut reader = stage.client().await;
    let sql = "SELECT count(*) FROM generate_series(1, 3000000) n";
    stage.begin_read_on_replica(&mut reader, sql, "generate_series").await;
    assert!(stage.replica().end_app_backends("true").await > 0);
    let told = stage.told(&mut reader).await;
    assert_eq!(told, "", "the read is run once more");
}

async fn killed(stage: &mut Stage) {
    let some = "SELECT pid FROM pg_stat_activity WHERE usename = 'app' LIMIT 1";
    let pid = stage.primary().value(some).await.parse().expect("a process id");
    stage.primary().kill_backend(pid).await;
}
