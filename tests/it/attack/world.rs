//! A server with two databases that are alike, a proxy before one of them, victims behind the proxy, and attackers,
//! each beside its twin that is connected to the other database directly.

use std::{collections::HashMap, time::Duration};

use tokio_postgres::Client;

use super::{
    hows::{How, exchanges},
    objects::{OBJECTS, ROLES, TRUST},
    side::{Heard, Look, Side},
    way::{Deed, Way},
    ways::WAYS,
};
use crate::support::{Login, Postgres, Proxy, ProxyConfig, Random, RawClient, Role, error_code};

/// Victims by name, with their encoding and what they set. What each must see is asked of a direct session.
const VICTIMS: &[(&str, &str, &str)] = &[
    ("blank", "UTF8", ""),
    ("blank, LATIN1", "LATIN1", ""),
    ("t1", "UTF8", "SET app.tenant = 't1'"),
    ("t1, GBK", "GBK", "SET app.tenant = 't1'; SET work_mem = '9MB'"),
    ("t2", "UTF8", "SET app.tenant = 't2'; SET search_path = public, other"),
];

/// What an error may say that the server would not have said: no place is free, or it is not offered.
const REFUSALS: [&str; 2] = ["53300", "0A000"];

/// A timeout may strike at any moment.
const TIMEOUT: &str = "57014";

/// Where a case takes place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) user: &'static str,
    pub(super) database: &'static str,
    pub(super) backends: i64,
    pub(super) replicated: bool,
    /// Whether victims come for one look each: where a session that stays keeps its connection.
    pub(super) fleeting: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    Attack(Attack),
    /// An attacker goes.
    Leave(usize),
}

/// What one attacker does; it logs in when it is not there.
#[derive(Clone, Debug)]
pub(super) struct Attack {
    pub(super) attacker: usize,
    /// Whether it begins as the tenant that victims are, too.
    pub(super) as_tenant: bool,
    pub(super) tongue: &'static str,
    pub(super) way: usize,
    pub(super) how: How,
    pub(super) seed: u64,
}

/// What must not be.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    /// Whose and what: to tell one from another.
    pub(super) kind: String,
    pub(super) detail: String,
    pub(super) step: usize,
}

pub(super) struct World {
    primary: Postgres,
    replica: Option<Postgres>,
    admin: Client,
    number: u64,
    /// Attacks that were answered by a refusal, of how many.
    pub(super) refused: u64,
    pub(super) attacks: u64,
}

/// A proxy with its victims, as long as nothing is wrong.
pub(super) struct Stage {
    place: Place,
    pub(super) proxy: Proxy,
    victims: Vec<Victim>,
    attackers: HashMap<usize, Pair>,
}

struct Victim {
    name: &'static str,
    tongue: &'static str,
    /// `None` if it comes for one look each.
    side: Option<Side>,
    expected: HashMap<Look, Vec<String>>,
}

struct Pair {
    proxied: Side,
    direct: Side,
}

/// What is wrong, roughly and in full.
type Wrong = (String, String);

/// What the answers to an attack say of its result.
enum Answers {
    Alike,
    /// The proxy has said no.
    Refused,
    /// Chance has decided.
    Uncertain,
}

impl Place {
    fn parameters<'a>(self, database: &'a str, tongue: &'a str) -> [(&'static str, &'a str); 3] {
        [("user", self.user), ("database", database), ("client_encoding", tongue)]
    }
}

impl Attack {
    pub(super) fn way(&self) -> &'static Way {
        &WAYS[self.way]
    }
}

impl World {
    pub(super) async fn start(replicated: bool) -> Self {
        let primary = Postgres::builder(Role::Primary).setting("autovacuum", "off").start();
        primary.query(TRUST).await;
        primary.query(ROLES).await;
        primary.query(OBJECTS).await;
        primary.query("CREATE DATABASE app_direct TEMPLATE app OWNER app").await;
        primary.query("CREATE DATABASE ascii TEMPLATE template0 ENCODING 'SQL_ASCII' OWNER app").await;
        let mut admin = RawClient::login(primary.port(), Login::Admin, "ascii").await;
        let made = admin.ask(OBJECTS).await;
        assert_eq!(error_code(&made), None, "{made:?}");
        admin.terminate().await;
        while admin.try_read_message().await.is_some() {}
        primary.query("CREATE DATABASE ascii_direct TEMPLATE ascii OWNER app").await;
        let replica = replicated.then(|| Postgres::start(Role::ReplicaOf(&primary)));
        if let Some(replica) = &replica {
            replica.wait_for_replay(&primary).await;
        }
        let admin = primary.admin().await;
        Self { primary, replica, admin, number: 0, refused: 0, attacks: 0 }
    }

    /// New servers, with the same counts.
    pub(super) async fn renewed(self) -> Self {
        let new = Self::start(self.replica.is_some()).await;
        Self { number: self.number, refused: self.refused, attacks: self.attacks, ..new }
    }

    /// A proxy, and its victims, all of which have been served.
    pub(super) async fn stage(&self, place: Place) -> Stage {
        let mut config = ProxyConfig::primary_only(&self.primary)
            .set("auth", "method", "trust")
            .pool("primary", &["primary"], place.backends)
            .set("pools.primary", "max_pinned", place.backends)
            .set("pools.primary", "wait_timeout", if place.fleeting { "500ms" } else { "5s" });
        if place.user == "app_trust" {
            config = config.set("servers.primary", "url", self.primary.url(Login::Trust));
        }
        if let (true, Some(replica)) = (place.replicated, &self.replica) {
            config = config.set("servers.replica_1", "url", replica.url(Login::App)).pool(
                "replicas",
                &["replica_1"],
                1,
            );
        }
        let proxy = Proxy::start(&config.to_toml());
        let mut victims = Vec::new();
        for (name, tongue, sets) in VICTIMS {
            let direct_database = format!("{}_direct", place.database);
            let parameters = place.parameters(&direct_database, tongue);
            let mut direct = Side::login(self.primary.port(), &parameters).await.prepared().await;
            assert!(sets.is_empty() || direct.ask(sets).await.codes.is_empty(), "{sets}");
            let mut expected = HashMap::new();
            for look in [Look::All, Look::Read] {
                let seen = direct.look(look).await;
                assert!(seen.codes.is_empty(), "{seen:?}");
                expected.insert(look, seen.values);
            }
            direct.leave().await;
            let mut side = None;
            if !place.fleeting {
                let parameters = place.parameters(place.database, tongue);
                let victim = side.insert(Side::login(proxy.port(), &parameters).await.prepared().await);
                assert!(sets.is_empty() || victim.ask(sets).await.codes.is_empty(), "{sets}");
            } else if !sets.is_empty() {
                continue;
            }
            victims.push(Victim { name, tongue, side, expected });
        }
        Stage { place, proxy, victims, attackers: HashMap::new() }
    }

    /// Whether a way, gone simply and straight at the server, changes what its session sees.
    pub(super) async fn leaves(&self, way: &Way, number: u64) -> bool {
        let user = way.user.unwrap_or("app");
        let parameters =
            [("user", user), ("database", "app_direct"), ("client_encoding", way.tongue.unwrap_or("UTF8"))];
        let mut side = Side::login(self.primary.port(), &parameters).await;
        let before = side.look(Look::All).await.seen();
        let oid = oid(&mut side, way).await;
        for exchange in exchanges(way, How::Simple, number, oid) {
            side.exchange(&exchange, &mut Random::new(0)).await;
        }
        let after = side.look(Look::All).await.seen();
        side.leave().await;
        before != after
    }

    /// Takes the steps, up to the first fault.
    pub(super) async fn take(&mut self, stage: &mut Stage, steps: &[Step]) -> Result<(), Fault> {
        for (at, step) in steps.iter().enumerate() {
            let taken = match step {
                Step::Attack(attack) => self.attack(stage, attack).await,
                Step::Leave(attacker) => self.leave(stage, *attacker).await,
            };
            taken.map_err(|(kind, detail)| Fault { kind, detail, step: at })?;
        }
        let left: Vec<_> = stage.attackers.keys().copied().collect();
        for attacker in left {
            let gone = self.leave(stage, attacker).await;
            gone.map_err(|(kind, detail)| Fault { kind, detail, step: steps.len() })?;
        }
        Ok(())
    }

    async fn attack(&mut self, stage: &mut Stage, attack: &Attack) -> Result<(), Wrong> {
        self.number += 1;
        self.attacks += 1;
        let mut pair = match stage.attackers.remove(&attack.attacker) {
            Some(pair) => pair,
            None => self.enter(stage, attack).await,
        };
        let [direct, proxied] = self.carry_out(&mut pair, attack).await;
        stage.look(self.number.is_multiple_of(2)).await?;
        let keeps = match judge(attack, &direct, &proxied)? {
            Answers::Refused => {
                self.refused += 1;
                false
            }
            Answers::Uncertain => false,
            Answers::Alike => pair.compare().await?,
        };
        if keeps {
            stage.attackers.insert(attack.attacker, pair);
            return Ok(());
        }
        self.part(stage, pair).await
    }

    /// Does what the attack says, straight and through the proxy.
    async fn carry_out(&self, pair: &mut Pair, attack: &Attack) -> [Heard; 2] {
        let way = attack.way();
        let oid = oid(&mut pair.direct, way).await;
        let mut random = Random::new(attack.seed);
        let mut told = [Heard::default(), Heard::default()];
        for exchange in exchanges(way, attack.how, self.number, oid) {
            let by_chance = exchange.cancelled || exchange.abandoned;
            for (side, told) in
                [&mut pair.direct, &mut pair.proxied].into_iter().zip(&mut told).skip(usize::from(by_chance))
            {
                let heard = side.exchange(&exchange, &mut random).await;
                told.codes.extend(heard.codes);
                told.ended = told.ended.or(heard.ended);
            }
        }
        for side in [&mut pair.direct, &mut pair.proxied] {
            if !side.is_idle() {
                side.ask("ROLLBACK").await;
            }
        }
        told
    }

    async fn enter(&self, stage: &Stage, attack: &Attack) -> Pair {
        let place = stage.place;
        let direct_database = format!("{}_direct", place.database);
        let tongue = attack.way().tongue.unwrap_or(attack.tongue);
        let [direct, proxied] =
            [direct_database.as_str(), place.database].map(|database| place.parameters(database, tongue));
        let mut pair = Pair {
            direct: Side::login(self.primary.port(), &direct).await.prepared().await,
            proxied: Side::login(stage.proxy.port(), &proxied).await.prepared().await,
        };
        if attack.as_tenant {
            for side in [&mut pair.direct, &mut pair.proxied] {
                side.ask("SET app.tenant = 't1'").await;
            }
        }
        pair
    }

    async fn leave(&self, stage: &mut Stage, attacker: usize) -> Result<(), Wrong> {
        match stage.attackers.remove(&attacker) {
            Some(pair) => self.part(stage, pair).await,
            None => Ok(()),
        }
    }

    /// Both go; what they held is gone with them.
    async fn part(&self, stage: &mut Stage, pair: Pair) -> Result<(), Wrong> {
        pair.direct.leave().await;
        pair.proxied.leave().await;
        let locks = "SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database \
                     WHERE locktype = 'advisory' AND datname = $1";
        let direct_database = format!("{}_direct", stage.place.database);
        for _ in 0..25 {
            let proxied =
                self.admin.query_one(locks, &[&stage.place.database]).await.expect("the server answers");
            let direct = self.admin.query_one(locks, &[&direct_database]).await.expect("the server answers");
            if proxied.get::<_, i64>(0) <= direct.get::<_, i64>(0) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        stage.look(false).await
    }
}

impl Stage {
    /// All victims look at the same time, so that every connection is looked at.
    async fn look(&mut self, prepared: bool) -> Result<(), Wrong> {
        for look in [Look::All, Look::Read] {
            if look == Look::Read && !self.place.replicated {
                continue;
            }
            let mut sides = Vec::new();
            for victim in &mut self.victims {
                let mut side = victim.side.take();
                if side.is_none() {
                    let parameters = self.place.parameters(self.place.database, victim.tongue);
                    side = Side::try_login(self.proxy.port(), &parameters).await;
                }
                let Some(mut side) = side else { continue };
                side.begin_look(look, prepared && !self.place.fleeting).await;
                sides.push((victim, side));
            }
            let mut wrong = None;
            for (victim, mut side) in sides {
                let heard = side.hear(1).await;
                if self.place.fleeting {
                    side.leave().await;
                } else {
                    victim.side = Some(side);
                }
                // One that comes for a look may find no place.
                if self.place.fleeting && heard.codes.iter().any(|code| REFUSALS.contains(&code.as_str())) {
                    continue;
                }
                let who = format!("victim ({})", victim.name);
                let differs = difference(look, &victim.expected[&look], &heard.seen(), "victim", &who);
                wrong = wrong.or(differs);
            }
            if let Some(wrong) = wrong {
                return Err(wrong);
            }
        }
        Ok(())
    }
}

impl Pair {
    /// Whether both are still there; they must see the same.
    async fn compare(&mut self) -> Result<bool, Wrong> {
        let [direct, proxied] = [self.direct.look(Look::All).await, self.proxied.look(Look::All).await];
        let wrong = difference(Look::All, &direct.seen(), &proxied.seen(), "own", "attacker");
        let refused = REFUSALS.iter().any(|code| proxied.codes.iter().any(|told| told == code));
        // A timeout ends the server's connection where exit_on_error is set, and behind the proxy not the client's own.
        let goes_on = !self.direct.is_open() && proxied.codes == [TIMEOUT];
        if refused || !self.direct.is_open() || !self.proxied.is_open() {
            return if refused || goes_on { Ok(false) } else { wrong.map_or(Ok(false), Err) };
        }
        if let Some(wrong) = wrong {
            return Err(wrong);
        }
        let [direct, proxied] = [self.direct.use_mine().await.seen(), self.proxied.use_mine().await.seen()];
        if direct != proxied
            && ![&direct, &proxied].iter().any(|seen| seen.first().is_some_and(|code| code == TIMEOUT))
        {
            return Err((
                "own prepared statement".to_owned(),
                format!("direct {direct:?}, proxied {proxied:?}"),
            ));
        }
        Ok(true)
    }
}

/// The OID of the function that a way calls by a message; both databases are copies of one.
async fn oid(direct: &mut Side, way: &Way) -> Option<u32> {
    let Deed::Call(function, _) = way.deed else { return None };
    let oid = direct.ask(&format!("SELECT '{function}'::regprocedure::oid")).await;
    oid.values.first().and_then(|oid| oid.parse().ok())
}

/// What differs between what should be seen and what is.
fn difference(look: Look, expected: &[String], seen: &[String], kind: &str, who: &str) -> Option<Wrong> {
    if expected == seen {
        return None;
    }
    if expected.len() != seen.len() {
        let short = |seen: &[String]| if seen.len() == 1 { seen[0].clone() } else { "rows".to_owned() };
        let (expected, seen) = (short(expected), short(seen));
        return Some((format!("{kind}: {seen}"), format!("{who} is told {seen}, not {expected}")));
    }
    let names = look.names();
    let all = names.iter().zip(expected.iter().zip(seen)).filter(|(_, (expected, seen))| expected != seen);
    let all: Vec<_> = all.collect();
    let kinds: Vec<_> = all.iter().map(|(name, _)| name.as_str()).collect();
    let details: Vec<_> =
        all.iter().map(|(name, (expected, seen))| format!("{name} is {seen:?}, not {expected:?}")).collect();
    Some((format!("{kind}: {}", kinds.join(", ")), format!("{who}: {}", details.join("; "))))
}

/// Whether both sides were answered alike.
fn judge(attack: &Attack, direct: &Heard, proxied: &Heard) -> Result<Answers, Wrong> {
    let wrong = || Err(("answers".to_owned(), format!("direct {direct:?}, proxied {proxied:?}")));
    if proxied.ended == Some("no answer") {
        return wrong();
    }
    if !attack.how.is_certain() {
        return Ok(Answers::Uncertain);
    }
    // exit_on_error ends the server's connection; behind the proxy the client's own goes on, and so do its errors.
    if direct.ended.is_some() && proxied.ended.is_none() && proxied.codes.starts_with(&direct.codes) {
        return Ok(Answers::Uncertain);
    }
    let told = |heard: &Heard, code: &str| heard.codes.iter().any(|told| told == code);
    if REFUSALS.iter().any(|code| told(proxied, code) && !told(direct, code)) {
        return Ok(Answers::Refused);
    }
    if told(direct, TIMEOUT) != told(proxied, TIMEOUT) {
        return Ok(Answers::Uncertain);
    }
    match (direct.ended, proxied.ended) {
        (None, Some(_)) => Ok(Answers::Refused),
        (Some(_), None) => wrong(),
        _ if direct.codes.is_empty() != proxied.codes.is_empty() => wrong(),
        _ => Ok(Answers::Alike),
    }
}
