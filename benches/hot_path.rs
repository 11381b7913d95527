//! What Bulkhead adds to a transaction besides system calls: walking a server's reply, taking a backend from a
//! pool and giving it back, and telling which replica is fresh enough.

use std::{hint::black_box, sync::Arc, time::Duration};

use bulkhead::{
    backend::{Credentials, HostPort, Identity, Protocol, Server, SessionAttrs, outgoing::Outgoing},
    causal::{Causal, progress::Progress, stamps::Scope},
    clock::Moment,
    pool::{Checkout, Limits, ServerPool, Wants},
    route::PoolId,
    shared::queries::{By, Queries, QueryLimits, Ran},
    sql::{Catalog, Classifier, Rules, Tables},
    threads::{Home, Spawner},
    wire::{TxStatus, message},
};
use criterion::{Criterion, criterion_group, criterion_main};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_util::task::TaskTracker;

/// The reply to a simple SELECT of `rows` rows with one short column.
fn reply(rows: usize) -> Vec<u8> {
    let mut out = Vec::new();
    message::raw(&mut out, b'T', b"\0\x01abalance\0\0\0\x40\0\0\x03\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0");
    for _ in 0..rows {
        message::raw(&mut out, b'D', b"\0\x01\0\0\0\x0212");
    }
    message::command_complete(&mut out, "SELECT 1");
    message::ready(&mut out, TxStatus::Idle);
    out
}

fn walk(criterion: &mut Criterion) {
    for rows in [1, 500] {
        let chunk = reply(rows);
        let mut protocol = Protocol::default();
        criterion.bench_function(&format!("walk a reply of {rows} rows"), |bencher| {
            bencher.iter(|| {
                protocol.sent_simple();
                let mut out = Outgoing::default();
                protocol.receive(black_box(&chunk), &mut out).expect("a valid reply");
                assert_eq!(out.bytes(&chunk).len(), chunk.len());
                protocol.quiescent().expect("everything is answered")
            });
        });
    }
}

/// A server that lets everybody in and says nothing else.
async fn serve_logins(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut startup = [0; 1024];
        let _ = stream.read(&mut startup).await;
        // It has asked for TLS, and goes on without.
        let _ = stream.write_all(b"N").await;
        let _ = stream.read(&mut startup).await;
        let mut out = Vec::new();
        message::authentication(&mut out, 0, &[]);
        message::backend_key(&mut out, 1, b"1234");
        message::ready(&mut out, TxStatus::Idle);
        let _ = stream.write_all(&out).await;
        // The connection is kept for as long as the benchmark runs.
        std::mem::forget(stream);
    }
}

fn pool(spawner: Spawner, port: u16) -> Arc<ServerPool> {
    let server = Server {
        require_auth: bulkhead::auth::RequireAuth::default(),
        application_name: None,
        name: "primary".to_owned(),
        hosts: vec![HostPort { host: "127.0.0.1".to_owned(), port }],
        session_attrs: SessionAttrs::Any,
        user: "app".to_owned(),
        secret: None,
        database: "app".to_owned(),
        numbers: Arc::default(),
        tls: bulkhead::auth::tls::Connector::default(),
        traffic: Arc::default(),
        in_use: Arc::default(),
        tcp_user_timeout: Duration::ZERO,
    };
    let limits = Limits {
        max_connections: 20,
        min_connections: 0,
        max_waiting: 100,
        wait_timeout: Duration::from_secs(5),
        idle_timeout: Duration::ZERO,
        max_lifetime: Duration::ZERO,
        connect_timeout: Duration::from_secs(5),
        check_after: Duration::from_secs(3600),
        close_timeout: Duration::from_secs(1),
        max_pinned: 1,
        pinned_idle_timeout: Duration::ZERO,
        fails_fast: false,
    };
    Arc::new(ServerPool::new("primary".to_owned(), Arc::new(server), Arc::default(), limits, spawner))
}

fn checkout(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let spawner =
        Spawner { tracker: TaskTracker::new(), threads: std::iter::once(runtime.handle().clone()).collect() };
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
    let pool = pool(spawner, listener.local_addr().expect("bound").port());
    runtime.spawn(serve_logins(listener));
    let identity = Arc::new(Identity::new("app", "app", Credentials::of_url()));
    let wants = Wants { identity: &identity, last: None, settings: 0, home: Home(0) };
    // All 20 connections are made, so that the choice is among as many as in a busy pool.
    let leases: Vec<_> = (0..20)
        .map(|_| match pool.checkout(&wants) {
            Checkout::Wait(waiting) => runtime.block_on(waiting).expect("a connection"),
            other => panic!("the pool was empty, and gave {other:?}"),
        })
        .collect();
    for lease in leases {
        let proof = lease.protocol.quiescent().expect("an idle backend");
        lease.release(proof);
    }
    criterion.bench_function("checkout and release", |bencher| {
        bencher.iter(|| match pool.checkout(black_box(&wants)) {
            Checkout::Lease(lease) => {
                let proof = lease.protocol.quiescent().expect("an idle backend");
                lease.release(proof);
            }
            other => panic!("20 backends are idle, and the pool gave {other:?}"),
        });
    });
}

/// What a request costs by that it writes or reads tables, where there are replicas.
fn causal(criterion: &mut Criterion) {
    let causal = Causal::default();
    let names = ["orders", "lines", "users"];
    let tables = names.iter().fold(Tables::NONE, |all, name| all.with(Tables::named(name)));
    let scope = Scope { tables, database: 7 };
    criterion.bench_function("a write of three tables", |bencher| {
        bencher.iter(|| {
            causal.stamps.begin_commit(black_box(&scope));
            causal.stamps.stamp(black_box(&scope));
            causal.stamps.end_commit(black_box(&scope));
        });
    });
    let replicas = [Progress::default(), Progress::default()];
    criterion.bench_function("a read of three tables, with two replicas", |bencher| {
        bencher.iter(|| {
            causal.note_read(bulkhead::clock::last_tick());
            let need = causal.stamps.last(black_box(&scope));
            let fresh =
                replicas.iter().filter(|replica| replica.backends() > 0 || replica.covers(need)).count();
            (fresh, causal.stamps.note_shown(black_box(&scope)))
        });
    });
}

/// What a request costs by that its statement is counted, where its text is known.
fn statistics(criterion: &mut Criterion) {
    let queries = Queries::default();
    queries.set_limits(QueryLimits { queries: 500, texts: 500, text_bytes: 1024 });
    let (identity, catalog) = (Identity::new("app", "app", Credentials::of_url()), Catalog::default());
    let classifier = Classifier::new(Rules::default(), 1000, 10_000);
    let texts: Vec<String> =
        (0..100).map(|at| format!("SELECT abalance FROM accounts{at} WHERE aid = $1")).collect();
    let verdicts: Vec<_> = texts.iter().map(|text| classifier.classify(&catalog, text.as_bytes())).collect();
    let by = By { identity: &identity, pool: PoolId(0), pool_name: "primary" };
    let ran = Ran {
        ended: Moment::now(),
        took: Duration::from_micros(120),
        waited: Duration::ZERO,
        rows: 1,
        failed: false,
        read_on: None,
        goes_on: false,
    };
    let mut next = 0;
    criterion.bench_function("count a statement that is known", |bencher| {
        bencher.iter(|| {
            next = (next + 1) % texts.len();
            queries.learn(black_box(&verdicts[next]), texts[next].as_bytes());
            queries.record(black_box(&verdicts[next]), black_box(by), &ran);
        });
    });
    assert_eq!(queries.left_out(), 0);
    queries.set_limits(QueryLimits { queries: 0, texts: 0, text_bytes: 1024 });
    criterion.bench_function("count no statement", |bencher| {
        bencher.iter(|| {
            next = (next + 1) % texts.len();
            queries.learn(black_box(&verdicts[next]), texts[next].as_bytes());
            queries.record(black_box(&verdicts[next]), black_box(by), &ran);
        });
    });
}

criterion_group!(benches, walk, causal, statistics, checkout);
criterion_main!(benches);
