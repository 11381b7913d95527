//! What operators and their tools ask over HTTP: `/metrics`, `/healthz`, `/readyz`, the API below `/api/v1`, and the live
//! page at `/`.
//!
//! | file | what it holds |
//! |---|---|
//! | `http`, `guest`, `answer` | the server: connections, their bounds, answers |
//! | `paths` | what each path answers |
//! | `health`, `pulse` | `/readyz` and `/healthz` |
//! | `metrics`, `pools`, `process`, `samples` | `/metrics` |
//! | `api` | `/api/v1`: JSON, and actions for those who have the token |
//! | `events`, `fullness` | the last lines of the log, in memory; lines about pools for which clients wait |
//! | `stream`, `page` | the live page and its news |
//!
//! Reads what sessions and pools count anyway, so that a scrape never makes a session wait. Changes nothing but by the
//! console's own commands (`api::act`).

mod answer;
mod api;
mod events;
mod fullness;
mod guest;
mod health;
mod http;
mod metrics;
mod page;
mod paths;
mod pgbouncer;
mod pools;
mod process;
mod pulse;
pub mod queries;
mod samples;
mod stream;

pub use events::{Events, KeepEvents};

pub use http::serve;
pub use metrics::markdown;

#[cfg(test)]
mod fixture {
    use std::{collections::HashMap, sync::Arc, time::Duration};

    use tokio_util::task::TaskTracker;

    use crate::{
        auth::Users,
        backend::{HostPort, Server, SessionAttrs},
        causal::progress::LagBounds,
        listen::{ListenLimits, Listeners, OnGap},
        metrics::Traffic,
        pool::{Gate, Limits, Pool, ServerPool},
        route::{PoolId, Routes},
        shared::{
            self, Process, Replicas, Snapshot, Workers,
            counters::Requests,
            identities::{Identities, Method},
        },
        sql::{Classifier, Rules},
        threads::Spawner,
        topology::Health,
    };

    fn server(name: &str) -> Arc<Server> {
        let (user, database) = ("app".to_owned(), "app".to_owned());
        let host = HostPort { host: "localhost".to_owned(), port: 5432 };
        let (secret, numbers, traffic) = (None, Arc::default(), Arc::new(Traffic::default()));
        Arc::new(Server {
            name: name.to_owned(),
            hosts: vec![host],
            session_attrs: SessionAttrs::Any,
            user,
            secret,
            database,
            numbers,
            traffic,
            in_use: Arc::default(),
            tcp_user_timeout: Duration::ZERO,
            tls: crate::auth::tls::Connector::default(),
            require_auth: crate::auth::RequireAuth::default(),
            application_name: None,
        })
    }

    fn pool(name: &str, members: &[(&Arc<Server>, &Arc<Gate>)]) -> Pool {
        let limits = Limits {
            max_connections: 24,
            min_connections: 0,
            max_waiting: 500,
            wait_timeout: Duration::from_secs(2),
            idle_timeout: Duration::ZERO,
            max_lifetime: Duration::ZERO,
            connect_timeout: Duration::from_secs(1),
            check_after: Duration::from_secs(30),
            close_timeout: Duration::from_secs(1),
            max_pinned: 18,
            pinned_idle_timeout: Duration::ZERO,
            fails_fast: false,
        };
        let member = |(server, gate): &(&Arc<Server>, &Arc<Gate>)| {
            let spawner = Spawner { tracker: TaskTracker::new(), threads: Arc::new([]) };
            Arc::new(ServerPool::new(name.to_owned(), Arc::clone(server), Arc::clone(gate), limits, spawner))
        };
        Pool { name: name.to_owned(), members: members.iter().map(member).collect(), keeps_sessions: false }
    }

    /// Three pools on two servers: `primary` and `jobs` share one, `replicas` has both.
    pub(super) fn shared() -> Snapshot {
        let (main, other) = (server("main"), server("other"));
        let (main_gate, other_gate) = (Arc::default(), Arc::default());
        let pools = vec![
            pool("primary", &[(&main, &main_gate)]),
            pool("replicas", &[(&main, &main_gate), (&other, &other_gate)]),
            pool("jobs", &[(&main, &main_gate)]),
        ];
        let requests = pools.iter().map(|_| Arc::new(Requests::default())).collect();
        let url = ("app".to_owned(), "app".to_owned());
        let identities = Identities::new(
            Method::Trust,
            Users::default(),
            HashMap::new(),
            url,
            vec!["*".to_owned()],
            std::time::Duration::from_secs(60),
        )
        .expect("the system gives random bytes");
        let process = Arc::new(Process::new(
            crate::backend::statements::Statements::new(10, 100_000),
            Listeners::new(
                Spawner { tracker: TaskTracker::new(), threads: Arc::new([]) },
                ListenLimits { bytes_per_session: 1_000, on_gap: OnGap::Disconnect },
            ),
        ));
        let health =
            Health::new(&pools, (PoolId(0), Some(PoolId(1))), &process.causal, LagBounds::default(), None);
        let progress = pools[1].members.iter().filter_map(|member| health.progress(member)).collect();
        Snapshot {
            acceptor: crate::auth::tls::Acceptor::default(),
            outbox: Some(Arc::default()),
            relay: None,
            epoch: 1,
            health,
            limits: shared::Limits {
                request_buffer_total: 1_000_000,
                tcp_user_timeout: Duration::ZERO,
                max_clients: 1_000,
                login_timeout: Duration::from_secs(10),
                orphan_timeout: Duration::from_secs(60),
                request_buffer: 65_536,
                prepared_per_client: 100,
                prepared_bytes_per_client: 1_000_000,
                prepared_per_backend: 100,
                settings_per_client: 1 << 16,
            },
            identities,
            classifier: Arc::new(Classifier::new(Rules::default(), 10, 1_000)),
            classifier_epoch: 1,
            routes: Routes {
                primary: PoolId(0),
                replicas: Some(PoolId(1)),
                jobs: Some(PoolId(2)),
                workers: None,
                jobs_elsewhere: false,
                defines_on_both: false,
            },
            pools,
            requests,
            workers: Workers::default(),
            replicas: Replicas { progress, ..Replicas::default() },
            console: shared::console::Console { names_metrics: true, ..Default::default() },
            greetings: Arc::default(),
            process,
        }
    }
}
