//! A session from its first byte to its last, on a real server: its task is dropped after each number of polls.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bulkhead::{
    auth::{Secret, Users, Verifier},
    backend::statements::Statements,
    catalog::Source,
    causal::progress::LagBounds,
    door::login,
    listen::{ListenLimits, Listeners, OnGap},
    pool::{Gate, Pool, ServerPool, keep},
    route::{PoolId, Routes},
    shared::{
        self, Current, Process, Replicas, Snapshot, Workers,
        counters::Requests,
        identities::{Identities, Method},
    },
    socket::Socket,
    sql::{Classifier, Rules},
    threads::{Home, Spawner},
    topology::Health,
};
use tokio::{net::TcpListener, runtime::Handle, sync::watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Limited, SOON, at_every_poll, pool::LIMITS, server};
use crate::{
    cuts::{NO_STATE, STATE},
    support::{Postgres, RawClient, Role, eventually},
};

/// The client's bytes come in such pieces.
const PIECE_BYTES: usize = 40;

struct House {
    primary: Postgres,
    listener: TcpListener,
    current: Arc<Current>,
    pool: Arc<ServerPool>,
}

impl House {
    async fn start() -> Self {
        let primary = Postgres::start(Role::Primary);
        primary.query("CREATE TABLE kept (a int); GRANT ALL ON kept TO app").await;
        let spawner = Spawner { tracker: TaskTracker::new(), threads: [Handle::current()].into() };
        let gate = Arc::new(Gate::default());
        let pool =
            Arc::new(ServerPool::new("primary".to_owned(), server(&primary), gate, LIMITS, spawner.clone()));
        tokio::spawn(keep(Arc::clone(&pool), CancellationToken::new()));
        let shared = Arc::new(shared(&pool, spawner));
        let source = Source { primary: Arc::clone(&pool), jobs: None, refresh: Duration::from_secs(3600) };
        let (source, seen) = watch::channel(source);
        let catalogs = Arc::clone(&shared.process.catalogs);
        tokio::spawn(async move {
            catalogs.keep(seen, CancellationToken::new()).await;
            drop(source);
        });
        let listener =
            TcpListener::bind("127.0.0.1:0").await.expect("the loopback interface has a free port");
        Self { primary, listener, current: Arc::new(Current::new(shared)), pool }
    }

    /// A client that has said nothing yet, and its session, which has not begun.
    async fn connect(&self) -> (RawClient, impl Future<Output = ()> + Send + 'static) {
        let port = self.listener.local_addr().expect("it is bound").port();
        let (client, accepted) = tokio::join!(RawClient::open(port), self.listener.accept());
        let (stream, _) = accepted.expect("it was connected");
        stream.set_nodelay(true).expect("TCP sockets have the option");
        (client, login::run(|| Ok(Socket::Tcp(stream)), (), Arc::clone(&self.current), Home(0)))
    }

    /// Nothing is left of a session that is gone, and the next one is served and finds nothing of it.
    async fn check(&self, what: &str) {
        let shared = self.current.load();
        let metrics = &shared.process.metrics;
        assert_eq!(metrics.clients.load(Ordering::Relaxed), 0, "{what}");
        assert_eq!(shared.process.kept.load(Ordering::Relaxed), 0, "{what}");
        for counts in [&metrics.pinned, &self.pool.pins().by_reason] {
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 0), "{what}: {counts:?}");
        }
        eventually(&format!("{what}: all is free again"), SOON, async || {
            let now = self.pool.figures();
            (now.leased + now.waiting + now.connecting + now.closing + now.pinned == 0).then_some(())
        })
        .await;
        let (mut next, session) = self.connect().await;
        let session = tokio::spawn(session);
        next.startup(&[("user", "app_trust"), ("database", "app")]).await;
        assert_eq!(next.authenticate("app_trust", "").await, None, "{what}");
        let answer = next.ask(STATE).await;
        assert_eq!(RawClient::tags(&answer), "TDCZ", "{what}: {answer:?}");
        assert_eq!(answer[1].columns(), [Some(NO_STATE.to_owned())], "{what}");
        next.terminate().await;
        session.await.expect("it does not panic");
        // Of what was in the middle of something the server has nothing left either.
        let busy = "SELECT count(*) FROM pg_stat_activity a WHERE usename = 'app_trust' \
            AND (state <> 'idle' OR EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid))";
        eventually(&format!("{what}: the server is at rest"), SOON, async || {
            let backends = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app_trust'";
            let idle = self.primary.value(busy).await == "0";
            (idle && self.primary.value(backends).await == self.pool.figures().idle.to_string()).then_some(())
        })
        .await;
    }
}

fn shared(pool: &Arc<ServerPool>, spawner: Spawner) -> Snapshot {
    let pools =
        vec![Pool { name: "primary".to_owned(), members: vec![Arc::clone(pool)], keeps_sessions: false }];
    let mut users = Users::default();
    users.insert("app_trust", Verifier::Plain(Secret::new(String::new())));
    let url = ("app_trust".to_owned(), "app".to_owned());
    let identities =
        Identities::new(Method::Trust, users, HashMap::new(), url, vec!["*".to_owned()], Duration::ZERO);
    let listeners =
        Listeners::new(spawner, ListenLimits { bytes_per_session: 1_000, on_gap: OnGap::Disconnect });
    let process = Arc::new(Process::new(Statements::new(100, 1_000_000), listeners));
    Snapshot {
        epoch: 1,
        limits: shared::Limits {
            max_clients: 10,
            login_timeout: Duration::from_secs(10),
            orphan_timeout: Duration::from_secs(10),
            request_buffer: 65_536,
            request_buffer_total: 1_000_000,
            tcp_user_timeout: Duration::ZERO,
            prepared_per_client: 100,
            prepared_bytes_per_client: 1_000_000,
            prepared_per_backend: 100,
            settings_per_client: 1 << 16,
        },
        acceptor: bulkhead::auth::tls::Acceptor::default(),
        outbox: None,
        relay: None,
        identities: identities.expect("the system gives random bytes"),
        classifier: Arc::new(Classifier::new(Rules::default(), 100, 100_000)),
        classifier_epoch: 1,
        routes: Routes {
            primary: PoolId(0),
            replicas: None,
            jobs: None,
            workers: None,
            jobs_elsewhere: false,
            defines_on_both: false,
        },
        health: Health::new(&pools, (PoolId(0), None), &process.causal, LagBounds::default(), None),
        requests: pools.iter().map(|_| Arc::new(Requests::default())).collect(),
        pools,
        workers: Workers::default(),
        greetings: Arc::default(),
        replicas: Replicas::default(),
        console: shared::console::Console::default(),
        process,
    }
}

/// Says what is pending, in pieces, and hears the answer up to this message; false when the session is gone.
async fn talk(client: &mut RawClient, last: u8) -> bool {
    if !client.try_flush_in_pieces(PIECE_BYTES).await {
        return false;
    }
    while let Some(message) = client.try_read_message().await {
        assert_ne!(message.tag, b'E', "{message:?}");
        if message.tag == last {
            return true;
        }
    }
    false
}

async fn query(client: &mut RawClient, sql: &str) -> bool {
    client.message(b'Q', format!("{sql}\0").as_bytes());
    talk(client, b'Z').await
}

/// All that a session may do, one after the other, until it is gone.
async fn live_through_it(client: &mut RawClient) -> bool {
    let begun = ["SELECT 1", "BEGIN", "INSERT INTO kept VALUES (1)", "INSERT INTO kept VALUES (1)", "COMMIT"];
    let settled = [
        "SET app.who = 'first'",
        "DO $$ BEGIN PERFORM set_config('work_mem', '1MB', false); END $$",
        "SELECT pg_advisory_lock(3)",
        "CREATE TEMP TABLE mine (a int)",
        "SELECT count(*) FROM mine",
        "DROP TABLE mine",
        "SELECT pg_advisory_unlock(3)",
        "COPY kept TO STDOUT",
    ];
    for sql in begun {
        if !query(client, sql).await {
            return false;
        }
    }
    client.parse("s", "INSERT INTO kept VALUES (2)").bind("", "s", &[]).execute("", 0).flush_message();
    if !talk(client, b'C').await {
        return false;
    }
    client.bind("", "s", &[]).execute("", 0).sync();
    if !talk(client, b'Z').await {
        return false;
    }
    client.message(b'Q', b"COPY kept FROM STDIN\0");
    if !talk(client, b'G').await {
        return false;
    }
    client.message(b'd', b"3\n").message(b'd', b"3\n").message(b'c', b"");
    if !talk(client, b'Z').await {
        return false;
    }
    for sql in settled {
        if !query(client, sql).await {
            return false;
        }
    }
    client.message(b'X', b"");
    client.try_flush().await
}

#[tokio::test]
async fn a_session() {
    let house = House::start().await;
    // Whatever is done once for all sessions is done.
    house.check("before").await;
    let polls = at_every_poll("a session", async |polls, when| {
        let what = format!("{polls} {when:?}");
        house.primary.query("TRUNCATE kept").await;
        let (mut client, session) = house.connect().await;
        let session = tokio::spawn(Limited::new(session, polls, when));
        let client = tokio::spawn(async move {
            client.startup(&[("user", "app_trust"), ("database", "app")]).await;
            while let Some(message) = client.try_read_message().await {
                if message.tag == b'Z' {
                    return live_through_it(&mut client).await;
                }
            }
            false
        });
        let is_over = session.await.expect("it does not panic").is_some();
        let has_said_all = client.await.expect("it does not panic");
        assert!(has_said_all || !is_over, "{what}");
        house.check(&what).await;
        // Each transaction, and each statement, is there as a whole or not at all.
        let rows = house.primary.value("SELECT string_agg(a::text, '' ORDER BY a) FROM kept").await;
        assert!(["", "11", "1122", "112233"].contains(&rows.as_str()), "{what}: {rows}");
        is_over
    })
    .await;
    assert!(polls > 30, "{polls} polls are too few for all that it does");
}
