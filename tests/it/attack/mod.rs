//! Attacks: sessions that leave state behind on their connection in every way that PostgreSQL knows, and victims which
//! share two or three connections with them. A victim that sees anything but its own (rows, settings, role, path, locks,
//! temporary tables) is a fault; so is an attacker that loses its own, which its twin with a direct connection keeps.
//!
//! The default run goes each way in a few manners, and some random sequences. `make attack` goes on for as many seconds
//! as `BULKHEAD_ATTACK_SECONDS` says, from the seed `BULKHEAD_ATTACK_FIRST` on, and goes all ways in all manners;
//! `BULKHEAD_ATTACK_SEED` takes one random sequence again, and `BULKHEAD_ATTACK_KEEP_GOING=1` collects all faults
//! instead of ending at a handful.

mod begins;
mod discards;
mod encodings;
mod hijack;
mod hows;
mod objects;
mod plans;
mod preambles;
mod shrink;
mod side;
mod way;
mod ways;
mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fmt::Write,
    time::{Duration, Instant},
};

use hows::How;
use ways::WAYS;
use world::{Attack, Place, Stage, Step, World};

use crate::support::Random;

/// Manners in which the default run goes each way; which ones, is another choice for each way.
const MANNERS: usize = 4;

/// Random sequences of the default run, and steps of one.
const SEQUENCES: u64 = 6;
const SEQUENCE_STEPS: usize = 25;

/// Faults after which a run gives up.
const MOST_FAULTS: usize = 5;

const PLAIN: Place = Place { user: "app", database: "app", backends: 2, replicated: false, fleeting: false };
const OLD_STRINGS: Place = Place { user: "app_trust", fleeting: true, ..PLAIN };
const SQL_ASCII: Place = Place { database: "ascii", ..PLAIN };
const REPLICATED: Place = Place { replicated: true, ..PLAIN };
const THREE: Place = Place { backends: 3, ..PLAIN };

/// Encodings of clients. Every way goes in all of them, unless it needs one.
const TONGUES: [&str; 8] = ["UTF8", "LATIN1", "UTF8", "GBK", "SJIS", "BIG5", "UHC", "GB18030"];

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

/// What a run has found, told as it goes.
#[derive(Default)]
struct Findings {
    /// Way and manner with what was wrong.
    faults: BTreeMap<(&'static str, String), String>,
    keep_going: bool,
}

impl Findings {
    fn new() -> Self {
        Self { keep_going: number("BULKHEAD_ATTACK_KEEP_GOING") == Some(1), ..Self::default() }
    }

    #[expect(clippy::print_stderr, clippy::unused_self, reason = "a long run is followed as it goes")]
    fn tell(&self, text: &str) {
        eprintln!("{text}");
    }

    fn add(&mut self, way: &'static str, how: String, what: String) {
        self.tell(&format!("FAULT {way} | {how} | {what}"));
        self.faults.insert((way, how), what);
    }

    fn is_enough(&self) -> bool {
        !self.keep_going && self.faults.len() >= MOST_FAULTS
    }

    fn judge(self, world: &World) {
        let mut text = String::new();
        for ((way, how), what) in &self.faults {
            writeln!(text, "{way} | {how} | {what}").expect("text takes text");
        }
        let (count, attacks, refused) = (self.faults.len(), world.attacks, world.refused);
        assert!(count == 0, "{count} faults in {attacks} attacks ({refused} refused):\n{text}");
        // A proxy that refuses everything leaks nothing.
        assert!(refused * 10 <= attacks, "{refused} of {attacks} attacks were refused");
    }
}

/// One attack by itself, after which the attacker looks at its own and goes.
async fn alone(world: &mut World, stage: &mut Stage, findings: &mut Findings, place: Place, attack: Attack) {
    let (way, how) = (attack.way().name, attack.how);
    let start = if attack.as_tenant { "tenant" } else { "blank" };
    let tongue = attack.way().tongue.unwrap_or(attack.tongue);
    let attacker = attack.attacker;
    let taken = world.take(stage, &[Step::Attack(attack), Step::Leave(attacker)]).await;
    if let Err(fault) = taken {
        let what = format!("{} ({start}, {tongue}, {}): {}", fault.kind, place.name(), fault.detail);
        findings.add(way, format!("{how:?}"), what);
        *stage = world.stage(place).await;
    }
}

impl Place {
    fn name(self) -> String {
        let replicated = if self.replicated { ", replicated" } else { "" };
        format!("{}@{}, {} connections{replicated}", self.user, self.database, self.backends)
    }
}

/// Goes a share of all ways, as far as a place allows them, each in some manners.
async fn go(place: Place, manners: usize, share: usize, shares: usize) {
    let mut findings = Findings::new();
    let mut world = World::start(place.replicated).await;
    let mut stage = world.stage(place).await;
    let long = number("BULKHEAD_ATTACK_SECONDS").is_some();
    let manners = if long { How::ALL.len() } else { manners };
    for (way, what) in WAYS.iter().enumerate().skip(share).step_by(shares) {
        // A role with old strings goes those ways only that are about strings.
        if what.user.is_some_and(|user| user != place.user)
            || (place.fleeting && !what.name.starts_with("old strings"))
        {
            continue;
        }
        for turn in 0..manners {
            // The first manner is the simple one for all, the others go round.
            let at = if turn == 0 || long { turn } else { 1 + (way + turn * 5) % (How::ALL.len() - 1) };
            // Where the proxy believes to know the tenant, other faults show than where it knows of none.
            let as_tenant = (way / shares + turn) % 2 == 1;
            let tongue = if place == PLAIN { "UTF8" } else { TONGUES[(way + turn) % TONGUES.len()] };
            let seed = (way * How::ALL.len() + turn) as u64;
            let attack = Attack { attacker: 0, as_tenant, tongue, way, how: How::ALL[at], seed };
            alone(&mut world, &mut stage, &mut findings, place, attack).await;
            if findings.is_enough() {
                findings.judge(&world);
                return;
            }
        }
    }
    findings.judge(&world);
}

// Four tests, which run beside each other.

#[tokio::test]
async fn no_way_of_the_first_quarter_reaches_another_session() {
    go(PLAIN, MANNERS, 0, 4).await;
}

#[tokio::test]
async fn no_way_of_the_second_quarter_reaches_another_session() {
    go(PLAIN, MANNERS, 1, 4).await;
}

#[tokio::test]
async fn no_way_of_the_third_quarter_reaches_another_session() {
    go(PLAIN, MANNERS, 2, 4).await;
}

#[tokio::test]
async fn no_way_of_the_last_quarter_reaches_another_session() {
    go(PLAIN, MANNERS, 3, 4).await;
}

/// Strings are read by other rules, and the session itself has not said so.
#[tokio::test]
async fn no_way_by_a_role_with_old_strings_reaches_another_session() {
    go(OLD_STRINGS, MANNERS, 0, 1).await;
}

#[tokio::test]
async fn no_way_in_an_ascii_database_reaches_another_session() {
    go(SQL_ASCII, 1, 0, 1).await;
}

#[tokio::test]
async fn no_way_past_a_replica_reaches_another_session() {
    go(REPLICATED, 1, 0, 1).await;
}

/// The attacks are real: straight at the server, each leaves what a look shows.
#[tokio::test]
async fn every_way_leaves_something_that_shows() {
    let world = World::start(false).await;
    let mut lame = BTreeSet::new();
    for (number, way) in WAYS.iter().enumerate() {
        if !world.leaves(way, number as u64).await && !way.traceless {
            lame.insert(way.name);
        }
    }
    assert!(lame.is_empty(), "these ways leave nothing: {lame:#?}");
}

/// A sequence that is the same for every run of its seed.
fn sequence(seed: u64) -> (Place, Vec<Step>) {
    let mut random = Random::new(seed);
    let place = match random.below(6) {
        0 => OLD_STRINGS,
        1 => Place { database: "ascii", ..THREE },
        2 => REPLICATED,
        3 => PLAIN,
        _ => THREE,
    };
    // As many may be pinned at the same time as leave one connection for the others.
    let attackers = place.backends as u64 - 1;
    let mut steps = Vec::new();
    while steps.len() < SEQUENCE_STEPS {
        let attacker = random.below(attackers) as usize;
        if random.below(3) == 0 {
            steps.push(Step::Leave(attacker));
            continue;
        }
        let way = random.below(WAYS.len() as u64) as usize;
        if WAYS[way].user.is_some_and(|user| user != place.user) {
            continue;
        }
        if WAYS[way].tongue.is_some() {
            steps.push(Step::Leave(attacker));
        }
        steps.push(Step::Attack(Attack {
            attacker,
            as_tenant: random.below(2) == 0,
            tongue: TONGUES[random.below(TONGUES.len() as u64) as usize],
            way,
            how: How::ALL[random.below(How::ALL.len() as u64) as usize],
            seed: random.next(),
        }));
    }
    (place, steps)
}

#[tokio::test]
async fn random_attacks_reach_nobody() {
    let mut findings = Findings::new();
    let mut world = World::start(true).await;
    let only = number("BULKHEAD_ATTACK_SEED");
    let seconds = number("BULKHEAD_ATTACK_SECONDS");
    let first = only.or_else(|| number("BULKHEAD_ATTACK_FIRST")).unwrap_or(1);
    let count = if only.is_some() { 1 } else { seconds.map_or(SEQUENCES, |_| u64::MAX - first) };
    let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    for seed in first..first + count {
        if end.is_some_and(|end| Instant::now() > end) || findings.is_enough() {
            break;
        }
        // What the attacks have made grows, and with it the catalog.
        if seed % 100 == 0 {
            world = world.renewed().await;
        }
        let (place, steps) = sequence(seed);
        let start = Instant::now();
        let mut stage = world.stage(place).await;
        if let Err(fault) = world.take(&mut stage, &steps).await {
            findings.tell(&format!("seed {seed} after {:?}: {}", start.elapsed(), fault.kind));
            let (steps, fault) = shrink::shrink(&mut world, place, steps, fault).await;
            let what =
                format!("{} in {}: {}\n{}", fault.kind, place.name(), fault.detail, shrink::tell(&steps));
            findings.add("sequence", format!("seed {seed}"), what);
            if seconds.is_none() && !findings.keep_going {
                break;
            }
        }
    }
    findings.judge(&world);
}
