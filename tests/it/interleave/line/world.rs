//! A primary, a job database and the one server of the twins; and a run of steps over them.

use std::{collections::BTreeSet, fmt::Write, time::Duration};

use tokio_postgres::Client;

use super::{
    super::{
        acts::{Act, Piece},
        difference::{Difference, Size, Stage, Step},
        twin::Twin,
    },
    judge::{Standing, begins_with_end, comparable, is_refused, is_skipped, only_ends},
    statements::{self, Chance},
};
use crate::{
    outbox::bulkhead,
    support::{Login, Postgres, Proxy, ProxyConfig, Random, RawClient, Role, eventually, oban},
};

const SESSIONS_MAX: u64 = 4;

const LONG: Duration = Duration::from_secs(10);

/// All servers of a case.
pub(super) struct World {
    primary: Postgres,
    jobs: Postgres,
    direct: Postgres,
    observers: Observers,
    outbox: bool,
}

/// Asks the servers as a superuser.
struct Observers {
    primary: Client,
    jobs: Client,
    direct: Client,
}

struct Player {
    direct: Twin,
    proxied: Twin,
    standing: Standing,
    is_repeatable: bool,
}

/// What differs: the twin's lines and those through the proxy.
type Lines = (Vec<String>, Vec<String>);

impl World {
    pub(super) async fn start(outbox: bool) -> Self {
        let start = |role| {
            Postgres::builder(role)
                .setting("lock_timeout", "100ms")
                .setting("autovacuum", "off")
                .setting("fsync", "off")
                .start()
        };
        let (primary, jobs, direct) = (start(Role::Primary), start(Role::Jobs), start(Role::Primary));
        for server in [&primary, &jobs, &direct] {
            oban::install(server).await;
            server.query("SET ROLE app; CREATE UNIQUE INDEX ON oban_jobs ((args->>'key'))").await;
        }
        let mut tables = String::from(
            "SET ROLE app; CREATE TABLE shared (key text PRIMARY KEY);
             CREATE FUNCTION adds_up(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 + 1';",
        );
        for session in 0..SESSIONS_MAX {
            write!(
                tables,
                "CREATE TABLE own{session} (id int PRIMARY KEY, name text);
                 CREATE FUNCTION writes_own{session}(int, text) RETURNS int LANGUAGE plpgsql AS
                 $$ BEGIN INSERT INTO own{session} VALUES ($1, $2); RETURN $1; END $$;
                 CREATE FUNCTION enqueues{session}(int, text) RETURNS int LANGUAGE plpgsql AS
                 $$ BEGIN UPDATE own{session} SET name = $2 WHERE id = $1;
                 INSERT INTO oban_jobs (worker, queue) VALUES ($2, 'q{session}'); RETURN $1; END $$;"
            )
            .expect("text takes text");
        }
        primary.query(&tables).await;
        direct.query(&tables).await;
        let observers = Observers {
            primary: primary.admin().await,
            jobs: jobs.admin().await,
            direct: direct.admin().await,
        };
        let world = Self { primary, jobs, direct, observers, outbox };
        if outbox {
            let (code, text) = bulkhead(&world.config(1), &["jobs", "init"]);
            assert_eq!(code, Some(0), "{text}");
        }
        world
    }

    /// One place more than there are sessions, for the catalog's question.
    fn config(&self, backends: usize) -> ProxyConfig {
        let config = ProxyConfig::primary_only(&self.primary)
            .pool("primary", &["primary"], backends as i64 + 1)
            .set("servers.jobs", "url", self.jobs.url(Login::App))
            .pool("jobs", &["jobs"], backends as i64 + 1)
            .set("jobs", "presets", vec!["oban"])
            // Each session may be pinned on both.
            .set("pools.primary", "max_pinned", backends as i64)
            .set("pools.jobs", "max_pinned", backends as i64);
        if self.outbox {
            config.set("jobs", "outbox", true).set("jobs", "outbox_poll", "20ms")
        } else {
            config
        }
    }

    /// The rows with which a case begins.
    async fn fill(&self) {
        let mut app = String::new();
        let mut jobs = String::from("TRUNCATE oban_jobs;");
        for session in 0..SESSIONS_MAX {
            write!(
                app,
                "TRUNCATE own{session}; INSERT INTO own{session} SELECT id, 'row ' || id FROM generate_series(1, 4) id;"
            )
            .expect("text takes text");
            write!(
                jobs,
                "INSERT INTO oban_jobs (worker, queue) SELECT 'seed{session}_' || n, 'q{session}' FROM generate_series(1, 3) n;"
            )
            .expect("text takes text");
        }
        app += "TRUNCATE shared;";
        for (server, sql) in [
            (&self.primary, format!("{app} TRUNCATE oban_jobs")),
            (&self.jobs, jobs.clone()),
            (&self.direct, format!("{app} {jobs}")),
        ] {
            server.query(&format!("SET lock_timeout = '10s'; SET ROLE app; {sql}")).await;
        }
    }

    async fn proxy(&self, size: Size) -> Proxy {
        let proxy = Proxy::start(&self.config(size.backends).to_toml());
        if self.outbox {
            proxy.wait_for_metric("bulkhead_outbox_ready", 1.0).await;
        }
        let mut client = RawClient::app(proxy.port()).await;
        let known = "bulkhead_requests_total{class=\"read\",pool=\"primary\",reason=\"read_only\"}";
        eventually("reads are known as such", LONG, async || {
            client.ask("SELECT count(*) FROM shared").await;
            proxy.metric(known).await.filter(|count| *count > 0.0)
        })
        .await;
        client.terminate().await;
        proxy
    }

    /// Takes the steps that are chosen, one after the other, up to the first difference.
    async fn take(
        &mut self,
        size: Size,
        mut choose: impl FnMut(&[Player], usize) -> Option<Step>,
    ) -> Result<(), Difference> {
        self.fill().await;
        let proxy = self.proxy(size).await;
        let mut players: Vec<_> =
            (0..size.sessions).map(|_| Player::new(self.direct.port(), proxy.port())).collect();
        let mut steps: Vec<Step> = Vec::new();
        while let Some(step) = choose(&players, steps.len()) {
            let acted = players[step.session].act(&step.act).await;
            let is_over = !players[step.session].is_in_transaction();
            let is_login = matches!(step.act, Act::Login(_));
            steps.push(step);
            let mut compared = match acted {
                Ok(()) if is_login => self.observers.wait_for_the_end().await,
                Ok(()) if is_over => self.observers.compare(self.outbox).await,
                acted => acted,
            };
            for player in &mut players {
                if compared.is_ok() && !player.is_in_transaction() {
                    compared = player.compare_notifications().await;
                }
            }
            if let Err((direct, proxied)) = compared {
                let (one, other) = (comparable(&direct), comparable(&proxied));
                let same = one.iter().zip(&other).take_while(|(one, other)| one == other).count();
                return Err(Difference { steps, size, direct, proxied, same });
            }
        }
        Ok(())
    }
}

impl Stage for World {
    async fn run(&mut self, seed: u64, steps: usize) -> Result<(), Difference> {
        let mut random = Random::new(seed);
        let sessions = 1 + random.below(SESSIONS_MAX) as usize;
        let size = Size { sessions, backends: sessions, channels: false };
        let choose = |players: &[Player], at| (at < steps).then(|| next(&mut random, players, size, at));
        self.take(size, choose).await
    }

    async fn replay(&mut self, steps: &[Step], size: Size) -> Result<(), Difference> {
        self.take(size, |_, at| steps.get(at).cloned()).await
    }
}

impl Player {
    fn new(direct: u16, proxied: u16) -> Self {
        Self {
            direct: Twin::new(direct, "app"),
            proxied: Twin::new(proxied, "app"),
            standing: Standing::default(),
            is_repeatable: false,
        }
    }

    fn is_in_transaction(&self) -> bool {
        self.direct.status() != b'I' || self.proxied.status() != b'I'
    }

    /// Does the step on both sides; what was said if that differs.
    async fn act(&mut self, act: &Act) -> Result<(), Lines> {
        let before = self.direct.status();
        self.standing.note(act);
        self.is_repeatable |= format!("{act:?}").contains("REPEATABLE");
        let proxied = self.proxied.act(act).await;
        if is_refused(&proxied) {
            if !self.standing.may_be_refused() {
                return Err((vec!["no refusal".to_owned()], proxied));
            }
            self.standing.was_refused = true;
            self.undo(act, before, proxied).await?;
        } else if self.standing.was_refused && is_skipped(&proxied) && self.proxied.status() == b'E' {
            // It may have failed before it was opened at a server: only its end is accepted then.
            self.close_statements().await?;
        } else {
            let direct = self.direct.act(act).await;
            if is_skipped(&direct) && is_skipped(&proxied) {
                // A request that is refused as a whole has not closed what the server has.
                self.close_statements().await?;
            } else if !self.standing.agree(&direct, &proxied) {
                return Err((direct, proxied));
            }
        }
        if !self.is_in_transaction() {
            self.standing.end(false);
            self.is_repeatable = false;
        } else if self.proxied.status() == b'T' && format!("{act:?}").contains("AND CHAIN") {
            self.standing.end(true);
        }
        Ok(())
    }

    /// Outside of transactions both sides have heard the same, sooner or later; how often is not compared.
    async fn compare_notifications(&mut self) -> Result<(), Lines> {
        while self.direct.is_connected() && self.proxied.is_connected() {
            let heard = |twin: &Twin| twin.heard().iter().cloned().collect::<BTreeSet<_>>();
            let (direct, proxied) = (heard(&self.direct), heard(&self.proxied));
            if direct == proxied {
                break;
            }
            let late = if direct.is_superset(&proxied) { &mut self.proxied } else { &mut self.direct };
            let count = late.heard().len();
            late.hear(count + 1).await;
            if late.heard().len() == count {
                return Err((direct.into_iter().collect(), proxied.into_iter().collect()));
            }
        }
        Ok(())
    }

    /// What was refused has failed its transaction, and is not said to the twin: that one fails, too.
    async fn undo(&mut self, act: &Act, before: u8, proxied: Vec<String>) -> Result<(), Lines> {
        let query = |sql: &str| Act::Query(sql.to_owned());
        match self.proxied.status() {
            b'I' if before == b'I' => {}
            // A failed one has ended; what stood behind its end was refused.
            b'I' if before == b'E' && (only_ends(&proxied) || begins_with_end(act)) => {
                self.direct.act(&query("ROLLBACK")).await;
            }
            b'E' => {
                if before == b'I' {
                    self.direct.act(&query("BEGIN")).await;
                }
                self.direct.act(&query("SELECT 1 / 0")).await;
            }
            status => return Err((vec![format!("refused, and not {}", char::from(status))], proxied)),
        }
        self.close_statements().await
    }

    /// What was parsed on one side only.
    async fn close_statements(&mut self) -> Result<(), Lines> {
        let close = Act::Messages(vec![Piece::CloseStatement("m1"), Piece::Sync]);
        let (direct, proxied) = (self.direct.act(&close).await, self.proxied.act(&close).await);
        if direct == proxied { Ok(()) } else { Err((direct, proxied)) }
    }
}

impl Observers {
    /// Waits until sessions that have left are gone.
    async fn wait_for_the_end(&self) -> Result<(), Lines> {
        let open = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND state <> 'idle'";
        for _ in 0..1000 {
            let count = async |client: &Client| {
                client.query_one(open, &[]).await.expect("the server answers").get::<_, i64>(0)
            };
            if count(&self.primary).await.max(count(&self.jobs).await) <= count(&self.direct).await {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let open = "SELECT pid, state, application_name, query FROM pg_stat_activity WHERE usename = 'app' AND state <> 'idle'";
        let mut proxied = lines(&self.primary, open).await;
        proxied.extend(lines(&self.jobs, open).await);
        Err((lines(&self.direct, open).await, proxied))
    }

    /// The rows that are there, once nothing is left to be moved.
    async fn compare(&self, outbox: bool) -> Result<(), Lines> {
        if outbox {
            for tries in 0.. {
                let left = lines(&self.primary, "SELECT worker FROM oban_jobs ORDER BY worker").await;
                if left.is_empty() {
                    break;
                }
                if tries > 1000 {
                    return Err((Vec::new(), left));
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        let app: Vec<_> = (0..SESSIONS_MAX)
            .map(|session| format!("SELECT 'own{session}', id, name FROM own{session} ORDER BY id"))
            .chain(["SELECT 'shared', key FROM shared ORDER BY key".to_owned()])
            .collect();
        let jobs = "SELECT 'job', worker, queue, state, attempt, priority, args FROM oban_jobs ORDER BY worker, priority, id";
        let (mut direct, mut proxied) = (Vec::new(), Vec::new());
        for sql in &app {
            direct.extend(lines(&self.direct, sql).await);
            proxied.extend(lines(&self.primary, sql).await);
        }
        direct.extend(lines(&self.direct, jobs).await);
        proxied.extend(lines(&self.jobs, jobs).await);
        if outbox {
            proxied.extend(lines(&self.primary, "SELECT 'refused', * FROM bulkhead.refused").await);
        } else {
            proxied.extend(lines(&self.primary, jobs).await);
        }
        if direct == proxied { Ok(()) } else { Err((direct, proxied)) }
    }
}

async fn lines(client: &Client, sql: &str) -> Vec<String> {
    let messages = client.simple_query(sql).await.expect("the server answers");
    let line = |message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|at| row.get(at).unwrap_or("NULL")).collect::<Vec<_>>().join(" "))
        }
        _ => None,
    };
    messages.into_iter().filter_map(line).collect()
}

/// The next step: only sessions that hold a backend go on while all backends are held.
fn next(random: &mut Random, players: &[Player], size: Size, step: usize) -> Step {
    let held = players.iter().filter(|player| player.is_in_transaction()).count();
    let session = loop {
        let session = random.below(players.len() as u64) as usize;
        if held < size.backends || players[session].is_in_transaction() {
            break session;
        }
    };
    let player = &players[session];
    let is_connected = player.direct.is_connected() && player.proxied.is_connected();
    if !is_connected || random.below(80) == 0 {
        return Step { session, act: Act::Login(Vec::new()) };
    }
    let chance = Chance {
        session,
        in_transaction: player.is_in_transaction(),
        has_failed: player.direct.status() == b'E',
        is_repeatable: player.is_repeatable,
        step,
    };
    Step { session, act: statements::act(random, chance) }
}
