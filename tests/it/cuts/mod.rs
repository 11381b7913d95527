//! A connection is cut after each number of bytes, in either direction, while something is under way: what the client was
//! told agrees with what the server did, and whoever comes next finds nothing of it.
//!
//! [`server`], [`reads`] and [`listen`] cut between Bulkhead and the server, [`encrypted`] on both sides, [`client`] between Bulkhead and its client; [`handover`] ends and
//! cancels what makes a connection fit for the next session, at a moment of the test's choosing.

mod client;
mod encrypted;
mod handover;
mod listen;
mod reads;
mod server;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::{
    sync::Mutex,
    task::{JoinSet, LocalSet},
};

use crate::support::{Certificates, Login, Postgres, Proxy, ProxyConfig, RawClient, Relay, Role, eventually};

/// As many cuts are tried at the same time.
const LANES: usize = 4;

/// A connection is free again within this, on a busy machine.
const FREE_WITHIN: Duration = Duration::from_secs(10);

/// Whoever is not idle, in a transaction, or holds a lock, of those who are not the observer.
const BUSY: &str = "SELECT count(*) FROM pg_stat_activity a \
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend' \
    AND (state <> 'idle' OR backend_xid IS NOT NULL OR EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid))";

/// What one session may see of another's on its connection.
pub(crate) const STATE: &str = "SELECT concat_ws('|', coalesce(current_setting('app.who', true), ''), current_setting('search_path'), \
    current_setting('work_mem'), current_user, \
    (SELECT count(*) FROM pg_prepared_statements WHERE from_sql), (SELECT count(*) FROM pg_cursors), \
    (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()), \
    (SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()), \
    (SELECT count(*) FROM pg_listening_channels()))";

/// What is not proven to leave nothing, and leaves settings.
const LEAVES: &str = "DO $$ BEGIN PERFORM set_config('app.who', 'first', false), \
    set_config('work_mem', '1MB', false); END $$";

/// [`STATE`] of a session that has met nobody.
pub(crate) const NO_STATE: &str = "|\"$user\", public|4MB|app_trust|0|0|0|0|0";

/// How lanes are built.
#[derive(Clone, Copy)]
struct Build<'a> {
    /// Connections to the server.
    connections: i64,
    /// Those with TLS on both sides, for clients that want it.
    certificates: Option<&'a Certificates>,
}

impl Build<'_> {
    const PLAIN: Self = Self { connections: 1, certificates: None };
    /// With one for a connection that listens.
    const LISTENING: Self = Self { connections: 3, certificates: None };
}

/// A proxy with one connection to a database of its own, and a relay on either side of it.
struct Lane {
    database: String,
    observer: RawClient,
    proxy: Proxy,
    to_client: Relay,
    to_server: Relay,
}

impl Lane {
    async fn start(primary: &Postgres, number: usize, build: Build<'_>) -> Self {
        let database = format!("lane_{number}");
        primary.query(&format!("CREATE DATABASE {database} OWNER app")).await;
        let mut observer = RawClient::login(primary.port(), Login::Trust, &database).await;
        observer.ask("CREATE TABLE cut (a int)").await;
        let to_server = Relay::start(primary.port());
        let mut url = Login::Trust.url(to_server.port(), &database);
        if build.certificates.is_some() {
            url.push_str("?sslmode=require");
        }
        let mut config = ProxyConfig::primary_only(primary)
            .set("servers.primary", "url", url)
            // The health check has no connection of its own: what is cut is the session's.
            .set("servers.primary", "max_connections", build.connections)
            .set("auth", "method", "trust")
            .pool("primary", &["primary"], build.connections)
            .set("pools.primary", "wait_timeout", "20s")
            .set("pools.primary", "close_timeout", "200ms");
        if let Some(certificates) = build.certificates {
            config = config.set("listen.tls", "certificate", certificates.crt("good")).set(
                "listen.tls",
                "key",
                certificates.pem_key("good"),
            );
        }
        let proxy = Proxy::start(&config.to_toml());
        let to_client = Relay::start(proxy.port());
        Self { database, observer, proxy, to_client, to_server }
    }

    /// A session past the relay of clients.
    async fn client(&self) -> RawClient {
        RawClient::login(self.proxy.port(), Login::Trust, &self.database).await
    }

    /// A session through it.
    async fn client_to_be_cut(&self) -> RawClient {
        RawClient::login(self.to_client.port(), Login::Trust, &self.database).await
    }

    /// Waits until nobody works on the server, in a transaction or with a lock, and counts what is in the table.
    async fn rows(&mut self) -> usize {
        let observer = &mut self.observer;
        let quiet = async || (observer.query_value(BUSY).await == "0").then_some(());
        eventually("the connection is free", FREE_WITHIN, quiet).await;
        self.observer.query_value("SELECT count(*) FROM cut").await.parse().expect("a number")
    }

    /// Somebody else gets the only connection, or a new one in its place, and finds nothing on it; nor is it sent anything
    /// that was another's.
    async fn check_next(&self, what: &dyn std::fmt::Debug) {
        let mut next = self.client().await;
        let answer = next.ask(STATE).await;
        assert_eq!(RawClient::tags(&answer), "TDCZ", "{what:?}: {answer:?}");
        assert_eq!(answer[1].columns(), [Some(NO_STATE.to_owned())], "{what:?}");
    }
}

/// Lanes to one server.
struct Lanes {
    lanes: Vec<Lane>,
    primary: Postgres,
}

impl Lanes {
    async fn start(count: usize) -> Self {
        Self::start_with(count, Build::PLAIN).await
    }

    async fn start_with(count: usize, build: Build<'_>) -> Self {
        let mut primary = Postgres::builder(Role::Primary);
        if let Some(certificates) = build.certificates {
            primary = primary.tls(certificates);
        }
        let primary = primary.start();
        let mut lanes = Vec::new();
        for number in 0..count {
            lanes.push(Lane::start(&primary, number, build).await);
        }
        Self { lanes, primary }
    }

    /// Has each cut tried on some lane, one after the other on each of them, and gives what they have come to.
    async fn try_all<C: 'static, T: 'static>(
        self,
        cuts: impl Iterator<Item = C>,
        attempt: impl AsyncFn(&mut Lane, C) -> T + Clone + 'static,
    ) -> Vec<T> {
        let cuts: Arc<Mutex<VecDeque<C>>> = Arc::new(Mutex::new(cuts.collect()));
        let here = LocalSet::new();
        let mut tasks = JoinSet::new();
        for mut lane in self.lanes {
            let (cuts, attempt) = (Arc::clone(&cuts), attempt.clone());
            let work = async move {
                let mut results = Vec::new();
                loop {
                    let Some(cut) = cuts.lock().await.pop_front() else { return results };
                    results.push(attempt(&mut lane, cut).await);
                }
            };
            tasks.spawn_local_on(work, &here);
        }
        let results = here.run_until(tasks.join_all()).await;
        drop(self.primary);
        results.into_iter().flatten().collect()
    }
}
