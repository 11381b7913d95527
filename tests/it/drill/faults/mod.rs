//! The faults: what happens, what each kind of client may see of it, and the bound of its wait.
//!
//! A fault's function returns when it is over; it has made sure that it really took place. Clients of the load go on
//! meanwhile. Rows of clients of its own are in the ledger, too.

mod backends;
mod bounds;
mod clients;
mod networks;
mod operators;
mod promotions;
mod servers;
mod statements;

use std::{future::Future, pin::Pin, time::Duration};

use super::{
    load::{Seen, Who},
    stage::{Shape, Stage, TCP_USER_TIMEOUT, WAIT_TIMEOUT},
    units::Kind,
};

pub(super) use backends::BACKENDS;
pub(super) use bounds::BOUNDS;
pub(super) use clients::CLIENTS;
pub(super) use networks::NETWORKS;
pub(super) use operators::OPERATORS;
pub(super) use promotions::PROMOTIONS;
pub(super) use servers::SERVERS;
pub(super) use statements::STATEMENTS;

pub(super) const GROUPS: [&Group; 8] =
    [&BACKENDS, &STATEMENTS, &SERVERS, &PROMOTIONS, &NETWORKS, &CLIENTS, &BOUNDS, &OPERATORS];

/// Faults that can happen to one stage, one after the other.
pub(super) struct Group {
    pub(super) shape: Shape,
    pub(super) faults: &'static [Fault],
}

type Bring = for<'a> fn(&'a mut Stage) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

pub(super) struct Fault {
    pub(super) name: &'static str,
    /// Brings it about, and returns when it is over.
    pub(super) bring: Bring,
    /// What its own client is told, if it has one.
    own: &'static str,
    /// What kinds of clients may be told; those that are not named see nothing.
    sees: Sees,
    pub(super) bound: Bound,
}

/// How long a statement of the load may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    /// For a connection.
    Wait,
    /// Until silence is taken for an end, and then for a connection.
    Silence,
    /// An answer that was lost, when the question had been acknowledged: the connection that listens has so long for it.
    Answer,
    /// Until the other host is looked for, and then for a connection.
    Hosts,
    /// Whatever is paused, in milliseconds.
    Pause(u64),
}

const ALL: &[Kind] = &super::units::KINDS;
/// Those who write to the primary, outside of pinned sessions.
const WRITERS: &[Kind] = &[Kind::Simple, Kind::Prepared, Kind::Transaction, Kind::Pipeline, Kind::Copy];
const TRANSACTION: &[Kind] = &[Kind::Transaction];
const PIPELINE: &[Kind] = &[Kind::Pipeline];
const JOB: &[Kind] = &[Kind::Job];
const READ: &[Kind] = &[Kind::Read];
const LISTEN: &[Kind] = &[Kind::Listen];
const PINNED: &[Kind] = &[Kind::Pinned];

/// What kinds of clients may be told.
type Sees = &'static [(&'static [Kind], &'static str)];

/// Some of the connections to the primary end that are busy; what they are busy with may have changed by then.
const BUSY: Sees = &[
    (WRITERS, "57P01 08006"),
    (TRANSACTION, "08007"),
    (PIPELINE, "57P01† 08006†"),
    (LISTEN, "57P01 08006 08006†"),
];

/// They end without a word.
const LOST: Sees = &[
    (WRITERS, "08006"),
    (TRANSACTION, "08007"),
    (PIPELINE, "08006†"),
    (LISTEN, "08006 08006† 57P01†"),
    (PINNED, "08006 08006†"),
];

/// Connections to the primary end, the server says why, and refuses new ones with these codes for a while.
macro_rules! told_and {
    ($codes:literal) => {
        &[
            (WRITERS, concat!("57P01 08006 ", $codes)),
            (TRANSACTION, "08007"),
            (PIPELINE, "57P01† 08006†"),
            (LISTEN, concat!("57P01 57P01† 08006 08006† ", $codes)),
            (PINNED, concat!("57P01 57P01† 08006 08006† ", $codes)),
        ]
    };
}
use told_and;

/// Connections to the primary end, and the server says why; one in the very moment of sending may not hear it.
const TOLD: Sees = told_and!("");

/// There is no place for long; pinned sessions have their own.
const FULL: Sees = &[(WRITERS, "53300"), (LISTEN, "53300")];

impl Bound {
    /// As the table has it.
    pub(super) fn name(self) -> String {
        let (wait, silence) = (WAIT_TIMEOUT.as_secs(), TCP_USER_TIMEOUT.as_secs());
        match self {
            Self::Wait => format!("`wait_timeout` {wait} s"),
            Self::Silence => format!("`tcp_user_timeout` {silence} s + `wait_timeout` {wait} s"),
            Self::Answer => format!("5 s + `wait_timeout` {wait} s"),
            Self::Hosts => format!("4 s + `wait_timeout` {wait} s"),
            Self::Pause(milliseconds) => {
                format!("the pause, {:.1} s", Duration::from_millis(milliseconds).as_secs_f64())
            }
        }
    }

    pub(super) fn within(self) -> Duration {
        match self {
            Self::Wait => WAIT_TIMEOUT,
            Self::Silence => TCP_USER_TIMEOUT + WAIT_TIMEOUT,
            Self::Answer => Duration::from_secs(5) + WAIT_TIMEOUT,
            Self::Hosts => Duration::from_secs(4) + WAIT_TIMEOUT,
            Self::Pause(milliseconds) => Duration::from_millis(milliseconds),
        }
    }
}

impl Fault {
    /// A name for keys.
    pub(super) fn key(&self) -> String {
        self.name.chars().filter(char::is_ascii_alphanumeric).collect()
    }

    /// What somebody may be told.
    pub(super) fn expected(&self, who: Who) -> impl Iterator<Item = &'static str> + use<> {
        let own = if who.is_none() { self.own } else { "" };
        let sees = self.sees.iter().filter(move |(kinds, _)| who.is_some_and(|kind| kinds.contains(&kind)));
        let mut codes: Vec<_> =
            sees.map(|(_, codes)| *codes).chain([own]).flat_map(str::split_whitespace).collect();
        codes.sort_unstable();
        codes.dedup();
        codes.into_iter()
    }

    /// What was seen and is not expected, and what its own client has not seen and should.
    pub(super) fn unexpected(&self, seen: &Seen) -> Vec<String> {
        let mut wrong = Vec::new();
        for (who, codes) in seen {
            for (code, words) in codes {
                if !self.expected(*who).any(|expected| expected == code) {
                    let who = who.map_or("its own client", Kind::title);
                    wrong.push(format!("{who} saw {code} {words}"));
                }
            }
        }
        if !self.own.is_empty() && !seen.contains_key(&None) {
            wrong.push(format!("its own client did not see {}", self.own));
        }
        wrong
    }
}

async fn pause(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}
