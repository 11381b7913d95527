//! A primary, two replicas or more that fall behind, stop and crash, and Bulkhead before them.

use std::{
    env,
    fmt::{self, Display},
    time::Duration,
};

use tokio::task::block_in_place;

use crate::support::{Login, Postgres, Proxy, ProxyConfig, Random, Role, eventually};

use super::{
    forms::{FORMS, Form},
    reads::{self, Read},
    session::Session,
};

/// Within which replicas that catch up are read again.
const SOON: Duration = Duration::from_secs(10);

/// The key that is written where there is one writer.
pub(super) const KEY: usize = 0;

/// What a configuration may promise of reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Tables,
    Session,
    Strong,
    Eventual,
}

pub(super) struct World {
    // Dropped first, so that it does not complain of its servers.
    pub(super) proxy: Proxy,
    pub(super) config: ProxyConfig,
    pub(super) replicas: Vec<Postgres>,
    pub(super) primary: Postgres,
}

impl Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tables => "tables",
            Self::Session => "session",
            Self::Strong => "strong",
            Self::Eventual => "eventual",
        })
    }
}

impl World {
    /// With a key for each of so many writers.
    pub(super) async fn start(mode: Mode, writers: usize) -> Self {
        Self::configured(writers, |config| config.set("pools.replicas", "consistency", mode.to_string()))
            .await
    }

    pub(super) async fn configured(writers: usize, change: impl FnOnce(ProxyConfig) -> ProxyConfig) -> Self {
        let primary = Postgres::builder(Role::Primary).setting("max_prepared_transactions", 20);
        Self::of(primary.start(), 2, writers, "", change).await
    }

    /// With so many replicas of a primary, behind URLs with these parameters.
    pub(super) async fn of(
        primary: Postgres,
        replicas: usize,
        writers: usize,
        parameters: &str,
        change: impl FnOnce(ProxyConfig) -> ProxyConfig,
    ) -> Self {
        let replica =
            |_| Postgres::builder(Role::ReplicaOf(&primary)).setting("quote_all_identifiers", "on").start();
        let replicas: Vec<Postgres> = (0..replicas).map(replica).collect();
        primary.query("CREATE SCHEMA elsewhere AUTHORIZATION app").await;
        for form in FORMS.iter().copied().flatten() {
            primary.query(&format!("SET ROLE app; {}", form.schema(writers - 1))).await;
        }
        primary.query(&format!("SET ROLE app; {}", reads::schema(writers - 1))).await;
        for replica in &replicas {
            replica.wait_for_replay(&primary).await;
        }
        let url = |server: &Postgres| server.url(Login::App) + parameters;
        let mut config = ProxyConfig::primary_only(&primary)
            .set("auth", "method", "trust")
            .set("servers.primary", "url", url(&primary))
            .pool("primary", &["primary"], 20);
        let names: Vec<String> = (1..=replicas.len()).map(|number| format!("replica_{number}")).collect();
        for (name, replica) in names.iter().zip(&replicas) {
            config = config.set(&format!("servers.{name}"), "url", url(replica));
        }
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let config = change(config.pool("replicas", &names, 10));
        let proxy = Proxy::start(&config.to_toml());
        let world = Self { proxy, config, replicas, primary };
        world.wait_until_replicas_are_read().await;
        world
    }

    /// Nothing is known to be a read before the catalog is.
    async fn wait_until_replicas_are_read(&self) {
        let mut session = self.session(false).await;
        eventually("replicas are read", Duration::from_secs(20), async || {
            let found = Read::Plain.run(&mut session, &FORMS[0][0], KEY, "").await;
            found.expect("the statement is valid").on_replica.then_some(())
        })
        .await;
    }

    pub(super) async fn session(&self, is_raw: bool) -> Session {
        self.session_with(is_raw, "").await
    }

    pub(super) async fn session_with(&self, is_raw: bool, options: &str) -> Session {
        Session::open_with(self.proxy.port(), is_raw, options).await.expect("Bulkhead accepts connections")
    }

    /// Holds back, or lets go, what replicas have received.
    pub(super) async fn set_replay(&self, on: bool) {
        for replica in &self.replicas {
            replica.set_replay(on).await;
        }
    }

    /// Waits until this session reads what the form writes from a replica, and stops both where they are.
    pub(super) async fn stand_still(&self, session: &mut Session, form: &Form) {
        self.wait_until_read(session, form).await;
        self.set_replay(false).await;
    }

    /// Waits until this session reads what the form writes from a replica, and tells what it finds there.
    pub(super) async fn wait_until_read(&self, session: &mut Session, form: &Form) -> u64 {
        eventually(&format!("`{}` is read from a replica", form.name), SOON, async || {
            let found = Read::Plain.run(session, form, KEY, "").await.expect("the statement is valid");
            found.on_replica.then_some(found.version)
        })
        .await
    }

    /// Something happens to a replica. The second is seldom behind for long, so that there is one to be read.
    pub(super) async fn mishap(&self, random: &mut Random) {
        let [behind, other, ..] = &self.replicas[..] else { panic!("two at least") };
        let any = &self.replicas[random.below(self.replicas.len() as u64) as usize];
        match random.below(12) {
            0..5 => set_delay(behind, random.below(5_001)).await,
            5 => set_delay(behind, 0).await,
            6..8 => {
                any.set_replay(false).await;
                tokio::time::sleep(random.pause(800)).await;
                any.set_replay(true).await;
            }
            8 => {
                set_delay(other, random.below(300)).await;
                tokio::time::sleep(random.pause(500)).await;
                set_delay(other, 0).await;
            }
            9 | 10 => {
                any.pause();
                tokio::time::sleep(Duration::from_millis(100) + random.pause(300)).await;
                any.resume();
            }
            _ => {
                any.kill();
                tokio::time::sleep(random.pause(200)).await;
                block_in_place(|| any.boot());
            }
        }
    }

    /// Ends one of the primary's connections that is doing something.
    pub(super) async fn end_a_connection(&self) {
        self.primary
            .query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE usename = 'app' AND state <> 'idle' AND backend_type = 'client backend' LIMIT 1",
            )
            .await;
    }

    /// Undoes every mishap and waits until all replicas have all.
    pub(super) async fn heal(&self) {
        for replica in &self.replicas {
            set_delay(replica, 0).await;
            replica.wait_for_replay(&self.primary).await;
        }
    }
}

pub(super) async fn set_delay(replica: &Postgres, delay_ms: u64) {
    let admin = replica.admin().await;
    // In a crash the server may be on its way down.
    admin.batch_execute(&format!("ALTER SYSTEM SET recovery_min_apply_delay = '{delay_ms}ms'")).await.ok();
    admin.batch_execute("SELECT pg_reload_conf()").await.ok();
}

/// A number of the environment.
pub(super) fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}
