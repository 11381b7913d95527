//! The console's rows as JSON objects, and its actions, for those who ask over HTTP: the same figures, by the same names.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Map, Value as Json};

use super::{
    control, own, reply, sockets,
    table::{Columns, Rows, Value},
};
use crate::{
    session::reply::Reply,
    shared::{Snapshot, connections::Connections, orders::Wish},
};

/// Rows, each an object by the names of the columns.
fn objects(columns: &Columns, rows: Rows) -> Vec<Json> {
    let json = |value: Value| match value {
        Value::Null => Json::Null,
        Value::Text(text) => text.into(),
        Value::Static(text) => text.into(),
        Value::Int(number) => number.into(),
    };
    let object = |row: Vec<Value>| {
        let names = columns.names().iter().map(|name| (*name).to_owned());
        Json::Object(names.zip(row.into_iter().map(json)).collect::<Map<_, _>>())
    };
    rows.map(object).collect()
}

/// `SHOW PINS`.
pub(crate) fn pins(snapshot: &Snapshot) -> Vec<Json> {
    objects(&own::pins_columns(), own::pins(snapshot))
}

/// `SHOW REASONS`.
pub(crate) fn reasons(snapshot: &Snapshot) -> Vec<Json> {
    objects(&own::reasons_columns(), own::reasons(snapshot))
}

/// A part of `SHOW CLIENTS`, those that wait first, and how many clients there are.
pub(crate) fn clients(snapshot: &Snapshot, offset: usize, limit: usize) -> (usize, Vec<Json>) {
    let (count, rows) = sockets::some_clients(snapshot, offset, limit);
    (count, objects(&sockets::columns(), rows))
}

/// The connections of a pool that clients of one user and `application_name` hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holders {
    /// The user.
    pub(crate) user: String,
    /// The name that they go by; may be empty.
    pub(crate) application_name: String,
    /// How many connections they hold.
    pub(crate) connections: usize,
    /// For how long one of them has held the same one.
    pub(crate) longest: Duration,
}

/// Holders of the connections of each pool, by the pools' positions; those first that hold most.
pub(crate) fn holders(snapshot: &Snapshot) -> Vec<Vec<Holders>> {
    let connections = Connections::of(snapshot);
    let mut found: Vec<BTreeMap<(String, String), Holders>> = vec![BTreeMap::new(); snapshot.pools.len()];
    for client in &connections.clients {
        let Some(at) = connections.held_by(client) else { continue };
        let (pool, user) = (connections.backends[at].0, client.card().identity.user.clone());
        let application_name = sockets::application_name(client);
        let Some(of_pool) = found.get_mut(usize::from(pool.0)) else { continue };
        let key = (user.clone(), application_name.clone());
        let none = Holders { user, application_name, connections: 0, longest: Duration::ZERO };
        let holders = of_pool.entry(key).or_insert(none);
        holders.connections += 1;
        holders.longest = holders.longest.max(client.ago);
    }
    let sorted = |of_pool: BTreeMap<_, Holders>| {
        let mut all: Vec<Holders> = of_pool.into_values().collect();
        all.sort_by_key(|holders| std::cmp::Reverse((holders.connections, holders.longest)));
        all
    };
    found.into_iter().map(sorted).collect()
}

/// An action of an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// `PAUSE pool`, without waiting until its connections have come back.
    Pause(String),
    /// `RESUME pool`.
    Resume(String),
    /// `RECONNECT pool`.
    Reconnect(String),
    /// `KILL_CLIENT id`.
    Kill(String),
    /// `RELOAD`.
    Reload,
}

impl Action {
    /// Carries it out; gives the changes that a reload has made.
    pub(crate) async fn run(&self, snapshot: &Snapshot) -> Result<Vec<String>, Reply> {
        match self {
            Self::Pause(pool) => control::pause(snapshot, Some(pool)).map(drop)?,
            Self::Resume(pool) => control::resume(snapshot, Some(pool)).map(drop)?,
            Self::Reconnect(pool) => control::reconnect(snapshot, Some(pool)).map(drop)?,
            Self::Kill(id) => match id.parse() {
                Ok(number) if snapshot.process.kill(number) => {}
                _ => return Err(reply::no_such_client(id)),
            },
            Self::Reload => {
                return match snapshot.orders.give(Wish::Reload).await {
                    None => Err(reply::going_down()),
                    Some(Err(problems)) => Err(reply::refused("RELOAD", &problems)),
                    Some(Ok(changes)) => Ok(changes),
                };
            }
        }
        Ok(Vec::new())
    }

    /// The command, and what it is about.
    pub(crate) fn named(&self) -> (&'static str, &str) {
        match self {
            Self::Pause(pool) => ("PAUSE", pool),
            Self::Resume(pool) => ("RESUME", pool),
            Self::Reconnect(pool) => ("RECONNECT", pool),
            Self::Kill(id) => ("KILL_CLIENT", id),
            Self::Reload => ("RELOAD", ""),
        }
    }
}
