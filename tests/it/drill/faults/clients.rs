//! Clients that vanish, are killed, mean no good or do not read. Each is one of its own; the load must not notice.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::support::{RawClient, Relay, Running, Scratch, eventually, programs};

use super::{Bound, Fault, Group, pause};
use crate::drill::{
    ledger::Told,
    session::ENDS,
    stage::{SOON, Shape, Stage},
};

pub(in crate::drill) static CLIENTS: Group = Group {
    shape: Shape::Replicated,
    faults: &[
        Fault {
            name: "client killed (-9) in a transaction",
            bring: |stage| Box::pin(killed(stage)),
            own: "",
            sees: &[],
            bound: Bound::Wait,
        },
        Fault {
            name: "client gone during `COPY`",
            bring: |stage| Box::pin(gone_in_copy(stage)),
            own: "",
            sees: &[],
            bound: Bound::Wait,
        },
        Fault {
            name: "client gone in the middle of a result",
            bring: |stage| Box::pin(gone_in_result(stage)),
            own: "",
            sees: &[],
            bound: Bound::Wait,
        },
        Fault {
            name: "client gone after a whole statement: it is run",
            bring: |stage| Box::pin(gone_after_statement(stage)),
            own: "",
            sees: &[],
            bound: Bound::Wait,
        },
        Fault {
            name: "client gone in the middle of a message: it is not run",
            bring: |stage| Box::pin(gone_in_message(stage)),
            own: "",
            sees: &[],
            bound: Bound::Wait,
        },
        Fault {
            name: "client gone before the Sync of a pipeline: it is not run",
            bring: |stage| Box::pin(gone_in_pipeline(stage)),
            own: "",
            sees: &[],
            bound: Bound::Wait,
        },
        Fault {
            name: "client closes its sending side only",
            bring: |stage| Box::pin(half_closed(stage)),
            own: "",
            sees: &[],
            bound: Bound::Wait,
        },
        Fault {
            name: "packets to and from a client vanish, in a transaction",
            bring: |stage| Box::pin(vanished(stage)),
            own: "",
            sees: &[],
            bound: Bound::Wait,
        },
        Fault {
            name: "malformed message",
            bring: |stage| Box::pin(malformed(stage)),
            own: "08P01†",
            sees: &[],
            bound: Bound::Wait,
        },
        Fault {
            name: "client takes nothing of a result",
            bring: |stage| Box::pin(deaf(stage)),
            own: "",
            sees: &[],
            bound: Bound::Wait,
        },
        Fault {
            name: "listener too slow",
            bring: |stage| Box::pin(slow_listener(stage)),
            own: "53400†",
            sees: &[],
            bound: Bound::Wait,
        },
        Fault {
            name: "noise in place of a login, and of a TLS handshake",
            bring: |stage| Box::pin(noise(stage)),
            own: "",
            sees: &[],
            bound: Bound::Wait,
        },
        Fault {
            name: "100 half-open logins",
            bring: |stage| Box::pin(half_open(stage)),
            own: "closed†",
            sees: &[],
            bound: Bound::Wait,
        },
        Fault {
            name: "50 logins at once",
            bring: |stage| Box::pin(logins(stage)),
            own: "",
            sees: &[],
            bound: Bound::Wait,
        },
    ],
};

/// Waits until nothing is left of the statements of `own` that contain `text`.
async fn wait_for_end(stage: &Stage, text: &str) {
    let what = format!("state <> 'idle' AND query LIKE '%{text}%'");
    stage.primary().wait_for_app_backends(&what, 0).await;
}

/// psql, as it is killed by an operator or for want of memory.
async fn killed(stage: &mut Stage) {
    let insert = stage.own_insert(Told::NotRun);
    let target = format!("host=127.0.0.1 port={} user=app password=secret dbname=app", stage.proxy.port());
    let folder = Scratch::new();
    let arguments = ["--no-psqlrc", "-d", &target, "-c", "BEGIN", "-c", &insert, "-c", "SELECT pg_sleep(60)"];
    let environment = [("HOME", "/nonexistent")];
    let psql =
        Running::start(&programs().path("psql"), &arguments, &environment, None, &folder.path().join("log"))
            .expect("psql runs");
    stage.primary().wait_for_app_backends("query LIKE '%pg_sleep(60)%' AND state = 'active'", 1).await;
    psql.kill_all();
    wait_for_end(stage, "pg_sleep(60)").await;
}

async fn gone_in_copy(stage: &mut Stage) {
    let mut client = stage.client().await;
    let key = stage.load().own_key(Told::NotRun);
    client.query("COPY drill_rows (key, part, who) FROM STDIN /* own */").await;
    assert_eq!(client.read_message().await.tag, b'G');
    client.message(b'd', format!("{key}\t1\town\n").as_bytes()).flush().await;
    stage.primary().wait_for_app_backends("query LIKE 'COPY%own%' AND state = 'active'", 1).await;
    drop(client);
    wait_for_end(stage, "own */").await;
}

async fn gone_in_result(stage: &mut Stage) {
    let mut client = stage.client().await;
    client.query("SELECT repeat('x', 1000) FROM generate_series(1, 1000000)").await;
    for _ in 0..10 {
        client.read_message().await;
    }
    client.reset();
    for server in [stage.primary(), stage.replica()] {
        server.wait_for_app_backends("state <> 'idle' AND query LIKE '%repeat%'", 0).await;
    }
}

async fn gone_after_statement(stage: &mut Stage) {
    let mut client = stage.client().await;
    client.query(&format!("{}, pg_sleep(0.3)", stage.own_insert(Told::Done))).await;
    stage.primary().wait_for_app_backends("state = 'active' AND query LIKE '%pg_sleep(0.3)%'", 1).await;
    drop(client);
    wait_for_end(stage, "pg_sleep(0.3)").await;
}

async fn gone_in_message(stage: &mut Stage) {
    for (number, keep) in [3, 30, 1000].into_iter().enumerate() {
        let mut client = stage.client().await;
        let text = format!("{}\0", stage.own_insert(Told::NotRun));
        let mut message = vec![b'Q'];
        message.extend_from_slice(&(text.len() as u32 + 4).to_be_bytes());
        message.extend_from_slice(text.as_bytes());
        message.truncate(keep.min(message.len() - 1));
        client.bytes(&message).flush().await;
        if number == 0 { client.reset() } else { drop(client) }
    }
    stage.units(10).await;
}

async fn gone_in_pipeline(stage: &mut Stage) {
    let mut client = stage.client().await;
    client.parse("", &stage.own_insert(Told::NotRun)).bind("", "", &[]).execute("", 0).flush_message();
    client.flush().await;
    client.expect("12C").await;
    drop(client);
    stage.units(10).await;
}

async fn half_closed(stage: &mut Stage) {
    let mut client = stage.client().await;
    client.message(b'Q', format!("{}, pg_sleep(0.1)\0", stage.own_insert(Told::Done)).as_bytes());
    client.parse("", &stage.own_insert(Told::Done)).bind("", "", &[]).execute("", 0).sync();
    client.flush().await;
    client.half_close().await;
    let mut tags = String::new();
    while let Some(message) = client.try_read_message().await {
        tags.push(char::from(message.tag));
    }
    assert_eq!(tags, "CZ12CZ", "it gets all of its answers");
}

async fn vanished(stage: &mut Stage) {
    let relay = Relay::start(stage.proxy.port());
    let mut client = RawClient::app(relay.port()).await;
    client.ask("BEGIN").await;
    client.ask(&stage.own_insert(Told::NotRun)).await;
    // An answer is under way when nothing is acknowledged any more.
    client.query("SELECT pg_sleep(0.1), 'vanished'").await;
    stage.primary().wait_for_app_backends("query LIKE '%vanished%'", 1).await;
    relay.vanish(true);
    wait_for_end(stage, "vanished").await;
}

async fn malformed(stage: &mut Stage) {
    let mut client = stage.client().await;
    client.ask("BEGIN").await;
    client.ask(&stage.own_insert(Told::NotRun)).await;
    client.message(b'~', b"what is this?").flush().await;
    stage.told(&mut client).await;
}

async fn deaf(stage: &mut Stage) {
    let mut client = stage.client().await;
    client.query("SELECT repeat('x', 1000), pg_backend_pid() FROM generate_series(1, 300000)").await;
    let held = "wait_event = 'ClientWrite' AND query LIKE '%repeat%'";
    eventually("a server is held back", SOON, async || {
        for server in [stage.primary(), stage.replica()] {
            let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE {held}");
            if server.value(&sql).await == "1" {
                return Some(());
            }
        }
        None
    })
    .await;
    stage.units(20).await;
    drop(client);
}

async fn slow_listener(stage: &mut Stage) {
    let mut client = stage.client().await;
    client.ask("LISTEN own").await;
    client.ask("BEGIN").await;
    client.ask("SELECT 1").await;
    // 30 times 7 kB are more than the limit.
    let burst = "SELECT pg_notify('own', repeat(n::text, 3500)) FROM generate_series(10, 40) n";
    stage.primary().query(burst).await;
    eventually("its notifications are too many", SOON, async || {
        let overflows = stage.proxy.metric("bulkhead_listener_overflows_total").await?;
        (overflows > 0.0).then_some(())
    })
    .await;
    client.query("COMMIT").await;
    stage.told(&mut client).await;
}

async fn noise(stage: &mut Stage) {
    let ssl_request = [0, 0, 0, 8, 4, 210, 22, 47];
    for number in 0..20 {
        let mut stream = TcpStream::connect(("127.0.0.1", stage.proxy.port())).await.expect("it is accepted");
        let bytes = stage.random.bytes(300);
        if number % 2 == 0 {
            stream.write_all(&ssl_request).await.expect("it is open");
            assert_eq!(stream.read_u8().await.expect("an answer"), b'S', "there is a certificate");
        }
        stream.write_all(&bytes).await.ok();
        stream.shutdown().await.ok();
        let mut said = Vec::new();
        // An alert, an error, or nothing: then it is closed.
        timeout(SOON, stream.read_to_end(&mut said)).await.expect("it is closed").ok();
    }
    stage.units(10).await;
}

async fn half_open(stage: &mut Stage) {
    let mut open = Vec::new();
    for _ in 0..100 {
        let mut stream = TcpStream::connect(("127.0.0.1", stage.proxy.port())).await.expect("it is accepted");
        stream.write_all(&[0, 0, 0, 200, 0]).await.expect("it is open");
        open.push(stream);
    }
    stage.units(10).await;
    for mut stream in open {
        let closed = timeout(SOON, stream.read_u8()).await.expect("within login_timeout");
        assert!(closed.is_err(), "there is nothing to say to it");
    }
    stage.load().own(&format!("closed{ENDS}"));
}

async fn logins(stage: &mut Stage) {
    let mut clients = tokio::task::JoinSet::new();
    let port = stage.proxy.port();
    for _ in 0..50 {
        clients.spawn(async move {
            let mut client = RawClient::app(port).await;
            assert_eq!(client.query_value("SELECT 5").await, "5");
        });
    }
    let ended = timeout(Duration::from_secs(10), clients.join_all()).await;
    assert_eq!(ended.expect("all are served").len(), 50);
    pause(10).await;
}
