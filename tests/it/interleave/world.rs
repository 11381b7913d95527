//! Two servers with the same database, the proxy before one of them, and a run of steps over both.

use std::{fmt::Write, time::Duration};

use tokio_postgres::Client;

use super::{
    acts::{Act, Chance, about_channels},
    difference::{Difference, Size, Stage, Step},
    statements::Leaves,
    twin::Twin,
};
use crate::support::{Postgres, Proxy, ProxyConfig, Random, Role};

const SESSIONS_MAX: u64 = 5;

/// Every object that the statements name, for up to six sessions.
const SCHEMA: &str = "\
CREATE SCHEMA one; CREATE SCHEMA two;
CREATE TABLE place AS SELECT 'public'::text AS text;
CREATE TABLE one.place AS SELECT 'one'::text AS text, 1 AS number;
CREATE TABLE two.place AS SELECT 2 AS number;
CREATE TABLE shared (id serial, who int, key text);
CREATE SEQUENCE counter;
CREATE FUNCTION raises(text) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'raised %', $1 USING HINT = 'none'; END $$;
CREATE FUNCTION warns(text) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING 'warned %', $1; RETURN 1; END $$;
CREATE FUNCTION leaves_table() RETURNS int LANGUAGE plpgsql AS $$ BEGIN CREATE TEMP TABLE IF NOT EXISTS tt1 (id int); RETURN 1; END $$;
CREATE FUNCTION leaves_lock(int) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RETURN pg_try_advisory_lock($1); END $$;
CREATE FUNCTION leaves_setting(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN set_config('app.a1', $1, false); END $$;
";

/// Two servers that know nothing of each other.
pub(super) struct World {
    proxied: Postgres,
    direct: Postgres,
    count: usize,
    channels: bool,
}

/// Two servers, asked by a superuser.
struct Observers {
    direct: Client,
    proxied: Client,
    database: String,
}

/// A session in the model: what it may hold.
struct Player {
    direct: Twin,
    proxied: Twin,
    left: Leaves,
    prepared: Leaves,
    unnamed: bool,
}

impl Size {
    fn random(random: &mut Random, channels: bool) -> Self {
        let (sessions, backends) = (2 + random.below(SESSIONS_MAX), 1 + random.below(3));
        Self { sessions: sessions as usize, backends: backends as usize, channels }
    }
}

impl Player {
    fn is_in_transaction(&self) -> bool {
        self.direct.status() != b'I'
    }

    fn holds(&self) -> bool {
        self.is_in_transaction() || self.left > Leaves::Nothing
    }

    /// Does the step on both sides; what was said if that differs.
    async fn act(&mut self, act: &Act, leaves: Leaves) -> Result<(), (Vec<String>, Vec<String>)> {
        let direct = self.direct.act(act).await;
        let proxied = self.proxied.act(act).await;
        if direct.len() != proxied.len() || !direct.iter().zip(&proxied).all(|(one, two)| agree(one, two)) {
            return Err((direct, proxied));
        }
        self.compare_notifications().await?;
        if act.parses_unnamed() {
            self.unnamed = !direct.iter().any(|line| line.starts_with("E "));
        } else if !matches!(act, Act::Messages(_)) {
            self.unnamed = true;
        }
        match act {
            Act::Login(_) => (self.left, self.prepared) = (Leaves::Nothing, Leaves::Nothing),
            Act::Query(sql) if sql == "DISCARD ALL" && direct.iter().any(|line| line.starts_with("C ")) => {
                self.prepared = Leaves::Nothing;
                if self.left == Leaves::Pin {
                    self.left = Leaves::Nothing;
                }
            }
            _ => {
                // Texts that cannot be read as the server reads them keep their backend.
                if direct.iter().any(|line| line.contains("standard_conforming_strings=off")) {
                    self.left = Leaves::LastingPin;
                }
                if leaves >= Leaves::Pin {
                    self.left = self.left.max(leaves);
                }
                if let Act::Messages(_) = act {
                    self.prepared = self.prepared.max(leaves);
                }
            }
        }
        Ok(())
    }
}

impl Player {
    /// Outside of transactions both sides have heard the same, sooner or later.
    async fn compare_notifications(&mut self) -> Result<(), (Vec<String>, Vec<String>)> {
        let (direct, proxied) = (&mut self.direct, &mut self.proxied);
        if direct.status() != b'I' || proxied.status() != b'I' {
            return Ok(());
        }
        let most = direct.heard().len().max(proxied.heard().len());
        direct.hear(most).await;
        proxied.hear(most).await;
        if direct.heard() == proxied.heard() {
            return Ok(());
        }
        Err((direct.heard().to_vec(), proxied.heard().to_vec()))
    }
}

impl Observers {
    /// Waits until a session that has left is gone from the server behind the proxy, too, where its backend is closed
    /// a moment after it. What is never gone shows later.
    async fn wait_for_the_end(&self) {
        let locks = "SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database \
                     WHERE locktype = 'advisory' AND datname = $1";
        let open = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND xact_start IS NOT NULL";
        for _ in 0..300 {
            let mut counts = [0; 4];
            for (at, (client, sql)) in
                [(&self.direct, locks), (&self.proxied, locks), (&self.direct, open), (&self.proxied, open)]
                    .into_iter()
                    .enumerate()
            {
                let row = client.query_one(sql, &[&self.database]).await.expect("the server answers");
                counts[at] = row.get::<_, i64>(0);
            }
            if counts[0] == counts[1] && counts[2] >= counts[3] {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl World {
    pub(super) fn start(channels: bool) -> Self {
        let start = || {
            Postgres::builder(Role::Primary)
                .setting("lock_timeout", "100ms")
                .setting("autovacuum", "off")
                .setting("log_checkpoints", "off")
                .setting("log_min_messages", "log")
                .setting("log_min_error_statement", "panic")
                .start()
        };
        Self { proxied: start(), direct: start(), count: 0, channels }
    }

    /// A database of its own for each case, so that cases know nothing of each other.
    async fn prepare(&mut self) -> String {
        self.count += 1;
        let name = format!("case_{}", self.count);
        let mut tables = String::from(SCHEMA);
        for session in 0..=SESSIONS_MAX {
            write!(
                tables,
                "CREATE TABLE own{session} (id int NOT NULL, name text);
                 INSERT INTO own{session} SELECT id, 'row ' || id FROM generate_series(1, 4) id;"
            )
            .expect("text takes text");
        }
        for server in [&self.proxied, &self.direct] {
            if self.count == 1 {
                server.query("CREATE ROLE reader; GRANT reader TO app").await;
                server.query(&format!("SET ROLE app; {tables}")).await;
                server.query("CREATE DATABASE pristine TEMPLATE app OWNER app").await;
            } else {
                server.query(&format!("DROP DATABASE case_{} WITH (FORCE)", self.count - 1)).await;
            }
            server.query(&format!("CREATE DATABASE {name} TEMPLATE pristine OWNER app")).await;
        }
        name
    }

    fn proxy(&self, size: Size) -> Proxy {
        let config = ProxyConfig::primary_only(&self.proxied)
            .pool("primary", &["primary"], (size.backends + usize::from(size.channels)) as i64)
            // The model lets as many be pinned as there are places.
            .set("pools.primary", "max_pinned", size.backends as i64)
            .set("pools.primary", "wait_timeout", "5s");
        Proxy::start(&config.to_toml())
    }

    fn players(&self, size: Size, proxy: &Proxy, database: &str) -> Vec<Player> {
        let player = |_| Player {
            direct: Twin::new(self.direct.port(), database),
            proxied: Twin::new(proxy.port(), database),
            left: Leaves::Nothing,
            prepared: Leaves::Nothing,
            unnamed: true,
        };
        (0..size.sessions).map(player).collect()
    }

    /// Takes the steps that are chosen, one after the other, up to the first difference.
    async fn take(
        &mut self,
        size: Size,
        mut choose: impl FnMut(&[Player], usize) -> Option<(Step, Leaves)>,
    ) -> Result<(), Difference> {
        let database = self.prepare().await;
        let proxy = self.proxy(size);
        let mut players = self.players(size, &proxy, &database);
        let (direct, proxied) = (self.direct.admin().await, self.proxied.admin().await);
        let observers = Observers { direct, proxied, database };
        let mut steps: Vec<Step> = Vec::new();
        while let Some((step, leaves)) = choose(&players, steps.len()) {
            let player = &mut players[step.session];
            let acted = player.act(&step.act, leaves).await;
            if matches!(step.act, Act::Login(_)) {
                observers.wait_for_the_end().await;
            }
            steps.push(step);
            if let Err((direct, proxied)) = acted {
                let same = direct.iter().zip(&proxied).take_while(|(one, other)| agree(one, other)).count();
                return Err(Difference { steps, size, direct, proxied, same });
            }
        }
        Ok(())
    }
}

impl Stage for World {
    async fn run(&mut self, seed: u64, steps: usize) -> Result<(), Difference> {
        let mut random = Random::new(seed);
        let size = Size::random(&mut random, self.channels);
        let choose = |players: &[Player], at| (at < steps).then(|| next(&mut random, players, size));
        self.take(size, choose).await
    }

    async fn replay(&mut self, steps: &[Step], size: Size) -> Result<(), Difference> {
        self.take(size, |_, at| Some((steps.get(at)?.clone(), Leaves::Nothing))).await
    }
}

/// Whether two lines tell the same. What else they may tell is a known difference.
fn agree(direct: &str, proxied: &str) -> bool {
    let fails = |line: &str, code: &str| line.starts_with("E ") && line.contains(&format!(" C={code} "));
    // A Parse of a name that is taken is refused by the proxy, whatever else is wrong with it.
    let refused_name = || direct.starts_with("E S=ERROR") && fails(proxied, "42P05");
    // In a failed transaction a statement that this backend has not been given yet is not parsed, so its parameters
    // are not counted.
    let uncounted = || fails(direct, "08P01") && fails(proxied, "25P02");
    // A backend that has had temporary objects keeps its empty schema for them, whoever has it next.
    let lacks = |line: &str| fails(line, "42883") || fails(line, "42P01");
    let lacks_schema = |line: &str| fails(line, "3F000") && line.contains("\"pg_temp\"");
    let lacks_temp = || (lacks(direct) && lacks_schema(proxied)) || (lacks_schema(direct) && lacks(proxied));
    direct == proxied || refused_name() || uncounted() || lacks_temp()
}

/// The next step: only sessions that hold a backend go on while all backends are held.
fn next(random: &mut Random, players: &[Player], size: Size) -> (Step, Leaves) {
    let held = players.iter().filter(|player| player.holds()).count();
    let session = loop {
        let session = random.below(players.len() as u64) as usize;
        if held < size.backends || players[session].holds() {
            break session;
        }
    };
    let player = &players[session];
    if !player.direct.is_connected() || !player.proxied.is_connected() {
        return (Step { session, act: Act::login(random) }, Leaves::Nothing);
    }
    let crowded = held == size.backends && players.len() > held;
    if player.holds() && random.below(if crowded { 5 } else { 12 }) == 0 {
        let lasting = player.left == Leaves::LastingPin;
        let act = Act::freeing(random, player.is_in_transaction(), lasting);
        return (Step { session, act }, Leaves::Nothing);
    }
    if random.below(60) == 0 {
        return (Step { session, act: Act::login(random) }, Leaves::Nothing);
    }
    if size.channels && random.below(8) == 0 {
        return (Step { session, act: about_channels(random, session) }, Leaves::Pin);
    }
    let chance = Chance {
        session,
        most: Leaves::LastingPin,
        in_transaction: player.is_in_transaction(),
        prepared: player.prepared,
        unnamed: player.unnamed,
    };
    let (act, leaves) = Act::random(random, chance);
    (Step { session, act }, leaves)
}
