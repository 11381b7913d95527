//! Bounds that are reached, of Bulkhead and of the server, and logins that the server refuses.

use std::time::Duration;

use tokio::net::TcpStream;

use crate::support::{Login, connect, eventually};

use super::{Bound, FULL, Fault, Group, LISTEN, PINNED, PIPELINE, TRANSACTION, WRITERS, pause, told_and};
use crate::drill::{
    session::Session,
    stage::{SOON, Shape, Stage},
};

/// A little longer than anybody waits for a connection.
const LONG: Duration = Duration::from_millis(2300);

/// As many as the harness's servers take.
const SERVER_CONNECTIONS: usize = 100;

pub(in crate::drill) static BOUNDS: Group = Group {
    shape: Shape::Replicated,
    faults: &[
        Fault {
            name: "pool full for longer than `wait_timeout`",
            bring: |stage| Box::pin(pool_full(stage)),
            own: "",
            sees: FULL,
            bound: Bound::Wait,
        },
        Fault {
            name: "more waiting than `max_waiting`",
            bring: |stage| Box::pin(queue_full(stage)),
            own: "",
            sees: FULL,
            bound: Bound::Wait,
        },
        Fault {
            name: "more pinned than `max_pinned`",
            bring: |stage| Box::pin(pins_full(stage)),
            own: "53300",
            sees: &[],
            bound: Bound::Wait,
        },
        Fault {
            name: "more clients than `max_clients`",
            bring: |stage| Box::pin(too_many_clients(stage)),
            own: "53300†",
            sees: &[],
            bound: Bound::Wait,
        },
        Fault {
            name: "unfinished requests above `request_buffer_total`",
            bring: |stage| Box::pin(requests_full(stage)),
            own: "53200†",
            sees: &[],
            bound: Bound::Wait,
        },
        Fault {
            name: "file descriptors exhausted",
            bring: |stage| Box::pin(descriptors(stage)),
            own: "",
            sees: &[],
            bound: Bound::Wait,
        },
        Fault {
            name: "the server's `max_connections` taken by others",
            bring: |stage| Box::pin(server_full(stage)),
            own: "",
            sees: told_and!("53300"),
            bound: Bound::Wait,
        },
        Fault {
            name: "the role's `CONNECTION LIMIT` reached",
            bring: |stage| Box::pin(role_full(stage)),
            own: "",
            sees: told_and!("53300"),
            bound: Bound::Wait,
        },
        Fault {
            name: "login revoked (`NOLOGIN`), connections ended",
            bring: |stage| Box::pin(no_login(stage)),
            own: "",
            sees: told_and!("28000"),
            bound: Bound::Wait,
        },
        Fault {
            name: "password changed, connections ended",
            bring: |stage| Box::pin(password(stage)),
            own: "",
            sees: told_and!("28P01"),
            bound: Bound::Wait,
        },
        Fault {
            name: "database takes no connections (`ALLOW_CONNECTIONS`)",
            bring: |stage| Box::pin(database_closed(stage)),
            own: "",
            sees: told_and!("55000"),
            bound: Bound::Wait,
        },
        Fault {
            name: "database renamed",
            bring: |stage| Box::pin(database_renamed(stage)),
            own: "",
            sees: told_and!("3D000 55000"),
            bound: Bound::Wait,
        },
    ],
};

/// So many transactions as the pool has places, all held.
async fn pool_full(stage: &mut Stage) {
    let mut holders = tokio::task::JoinSet::new();
    for _ in 0..stage.places {
        let mut client = stage.client().await;
        holders.spawn(async move {
            client.ask("BEGIN").await;
            // One that comes late finds it full, too.
            client.ask("SELECT 1").await;
            tokio::time::sleep(LONG).await;
            client.ask("ROLLBACK").await;
        });
    }
    tokio::time::sleep(LONG).await;
    stage.healed();
    holders.join_all().await;
}

/// Two connections besides those that are kept, and one that may wait for them.
async fn queue_full(stage: &mut Stage) {
    let kept = stage.each as i64 + 1;
    stage
        .reconfigure(|config| {
            config.set("pools.primary", "max_connections", kept + 2).set("pools.primary", "max_waiting", 1)
        })
        .await;
    eventually("somebody is refused", SOON, async || stage.load().has_seen_any("53300").then_some(())).await;
    stage.restore().await;
}

/// The pinned sessions of the load are as many as there may be.
async fn pins_full(stage: &mut Stage) {
    let pinned = stage.each as i64;
    stage.reconfigure(|config| config.set("pools.primary", "max_pinned", pinned)).await;
    let mut client = stage.client().await;
    client.query("CREATE TEMP TABLE one_more (a int)").await;
    stage.told(&mut client).await;
    stage.restore().await;
}

async fn too_many_clients(stage: &mut Stage) {
    stage.reconfigure(|config| config.set("limits", "max_clients", 2)).await;
    let refused = Session::login(stage.proxy.port(), "own", &[]).await.err().expect("there is no room");
    stage.load().own(&refused.seen());
    stage.restore().await;
}

/// Of queries that are not whole.
async fn requests_full(stage: &mut Stage) {
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = stage.client().await;
        client.bytes(b"Q").bytes(&450_000_u32.to_be_bytes()).bytes(&vec![b' '; 400_000]);
        client.try_flush().await;
        clients.push(client);
    }
    let mut last = clients.pop().expect("three");
    stage.told(&mut last).await;
    stage.units(10).await;
}

/// Whoever comes meanwhile waits at the door, and is let in afterwards.
async fn descriptors(stage: &mut Stage) {
    stage.proxy.limit_descriptors(Some(stage.proxy.open_descriptors()));
    let before = stage.proxy.log().len();
    let mut waiting = Vec::new();
    eventually("somebody is not let in", SOON, async || {
        // Whoever leaves makes room for one.
        let comer = TcpStream::connect(("127.0.0.1", stage.proxy.port())).await;
        waiting.push(comer.expect("the system takes it"));
        stage.proxy.log()[before..].contains("could not be accepted").then_some(())
    })
    .await;
    stage.units(20).await;
    stage.proxy.limit_descriptors(None);
    drop(waiting);
    stage.healed();
    assert_eq!(stage.client().await.query_value("SELECT 3").await, "3");
}

/// Others take whatever becomes free, until there is nothing left.
async fn server_full(stage: &mut Stage) {
    // One for all, which was there before: few are reserved for superusers.
    let admin = stage.primary().admin().await;
    let end = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'app'";
    let mut others = tokio::task::JoinSet::new();
    for _ in 0..SERVER_CONNECTIONS {
        let url = stage.primary().url(Login::Trust);
        others.spawn(async move {
            loop {
                match connect(&url).await {
                    Ok(other) => break other,
                    Err(_) => pause(5).await,
                }
            }
        });
    }
    eventually("the server takes no more", Duration::from_secs(20), async || {
        admin.query(end, &[]).await.expect("a superuser may").is_empty().then_some(())
    })
    .await;
    tokio::time::sleep(LONG).await;
    others.shutdown().await;
}

async fn role_full(stage: &mut Stage) {
    stage.primary().query("ALTER ROLE app CONNECTION LIMIT 0").await;
    stage.primary().end_app_backends("true").await;
    tokio::time::sleep(LONG).await;
    stage.primary().query("ALTER ROLE app CONNECTION LIMIT -1").await;
}

async fn no_login(stage: &mut Stage) {
    stage.primary().query("ALTER ROLE app NOLOGIN").await;
    stage.primary().end_app_backends("true").await;
    pause(300).await;
    stage.primary().query("ALTER ROLE app LOGIN").await;
}

async fn password(stage: &mut Stage) {
    stage.primary().query("ALTER ROLE app PASSWORD 'another'").await;
    stage.primary().end_app_backends("true").await;
    pause(300).await;
    stage.primary().query("ALTER ROLE app PASSWORD 'secret'").await;
}

async fn database_closed(stage: &mut Stage) {
    let admin = stage.primary().admin_of("postgres").await;
    admin.batch_execute("ALTER DATABASE app ALLOW_CONNECTIONS false").await.expect("a superuser may");
    admin.batch_execute(END_ALL).await.expect("a superuser may");
    pause(300).await;
    admin.batch_execute("ALTER DATABASE app ALLOW_CONNECTIONS true").await.expect("a superuser may");
}

const END_ALL: &str = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname IN ('app', 'gone') \
    AND backend_type = 'client backend'";

async fn database_renamed(stage: &mut Stage) {
    let admin = stage.primary().admin_of("postgres").await;
    for (from, to) in [("app", "gone"), ("gone", "app")] {
        for text in [
            &format!("ALTER DATABASE {from} ALLOW_CONNECTIONS false"),
            END_ALL,
            &format!("ALTER DATABASE {from} RENAME TO {to}"),
            &format!("ALTER DATABASE {to} ALLOW_CONNECTIONS true"),
        ] {
            admin.batch_execute(text).await.unwrap_or_else(|error| panic!("{text}: {error}"));
        }
        if to == "gone" {
            pause(300).await;
        }
    }
}
