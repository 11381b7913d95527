//! What PgBouncer has no word for: health of servers, replicas, pins, reasons of routing, shared listening connections,
//! and why users are slow.

use std::sync::atomic::Ordering;

use super::table::{Columns, Rows, Value, all};
use crate::{
    backend::probe::PinReason,
    shared::Snapshot,
    topology::{Known, Role, ServerHealth},
    why::Why,
};

/// Errors that are longer than this are cut.
const ERROR_CHARS: usize = 500;

pub(super) fn health_columns() -> Columns {
    Columns::new(
        "ssssiisiiss",
        &[
            "server",
            "role",
            "state",
            "host",
            "state_seconds",
            "host_seconds",
            "in_recovery",
            "last_check_ms",
            "open_connections",
            "rivals",
            "error",
        ],
    )
}

pub(super) fn health(snapshot: &Snapshot) -> Rows {
    let seconds = |duration: Option<std::time::Duration>| duration.map(|duration| duration.as_secs());
    let row = |server: &ServerHealth| {
        let (state, in_recovery, error) = match server.known() {
            Known::Unchecked => ("unchecked", None, None),
            Known::Up { in_recovery } => ("up", Some(if in_recovery { "yes" } else { "no" }), None),
            Known::Down { error } => ("down", None, Some(error)),
        };
        let full = server.full().map(|(error, _)| format!("takes no more connections: {error}"));
        let members = snapshot.pools.iter().flat_map(|pool| &pool.members);
        let open: usize = members
            .filter(|member| member.server_name == server.name)
            .map(|member| member.figures().leased + member.figures().idle)
            .sum();
        let error = error.or(full).unwrap_or_default();
        let error: String =
            error.chars().take(ERROR_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect();
        vec![
            server.name.clone().into(),
            server.role.label().into(),
            state.into(),
            server.host().into(),
            seconds(server.known_for()).into(),
            seconds(server.host_for()).into(),
            in_recovery.into(),
            server.checked_ago().map(|ago| ago.as_millis() as u64).into(),
            open.into(),
            server.rivals().join(",").into(),
            error.into(),
        ]
    };
    all(snapshot.health.servers.iter().map(row).collect())
}

pub(super) fn replicas_columns() -> Columns {
    Columns::new(
        "sssiqss",
        &["server", "host", "serves_reads", "lag_ms", "lag_bytes", "why_not", "consistency"],
    )
}

pub(super) fn replicas(snapshot: &Snapshot) -> Rows {
    let replicas = snapshot.health.servers.iter().filter(|server| server.role == Role::Replica);
    let consistency = snapshot.replicas.consistency.name();
    let row = |server: &ServerHealth| {
        let (lag_bytes, lag) = server.reads().lag();
        let why_not = snapshot.why_no_reads(server).unwrap_or_default();
        vec![
            server.name.clone().into(),
            server.host().into(),
            if why_not.is_empty() { "yes" } else { "no" }.into(),
            (lag.as_millis() as u64).into(),
            lag_bytes.into(),
            why_not.into(),
            consistency.into(),
        ]
    };
    all(replicas.map(row).collect())
}

pub(super) fn pins_columns() -> Columns {
    Columns::new("sssii", &["pool", "server", "reason", "pinned", "max_pinned"])
}

/// Pins that there are now; of each pool without one, a row that says so.
pub(super) fn pins(snapshot: &Snapshot) -> Rows {
    let mut rows = Vec::new();
    for member in snapshot.pools.iter().flat_map(|pool| &pool.members) {
        let row = |reason: &'static str, pinned: u64| -> Vec<Value> {
            let max = member.limits().max_pinned;
            vec![
                member.name.clone().into(),
                member.server_name.clone().into(),
                reason.into(),
                pinned.into(),
                max.into(),
            ]
        };
        let by_reason = PinReason::ALL.into_iter().zip(&member.pins().by_reason);
        let counts = by_reason.map(|(reason, count)| (reason.label(), count.load(Ordering::Relaxed)));
        let pinned: Vec<_> = counts.filter(|(_, count)| *count > 0).collect();
        if pinned.is_empty() {
            rows.push(row("none", 0));
        }
        rows.extend(pinned.into_iter().map(|(reason, count)| row(reason, count)));
    }
    all(rows)
}

pub(super) fn reasons_columns() -> Columns {
    Columns::new("sssqs", &["pool", "class", "reason", "requests", "meaning"])
}

pub(super) fn reasons(snapshot: &Snapshot) -> Rows {
    let rows = snapshot.pools.iter().zip(&snapshot.requests).flat_map(|(pool, requests)| {
        requests.read().map(|(class, reason, count)| {
            vec![
                pool.name.clone().into(),
                class.label().into(),
                reason.label().into(),
                count.into(),
                reason.words().into(),
            ]
        })
    });
    all(rows.collect())
}

pub(super) fn listeners_columns() -> Columns {
    Columns::new(
        "ssssiis",
        &["server", "database", "user", "pool", "channels", "listening_channels", "state"],
    )
}

pub(super) fn listeners(snapshot: &Snapshot) -> Rows {
    let row = |told: crate::listen::Told| {
        vec![
            told.server.into(),
            told.database.into(),
            told.user.into(),
            told.pool.into(),
            told.wanted.into(),
            told.confirmed.into(),
            if told.is_behind { "connecting" } else { "listening" }.into(),
        ]
    };
    all(snapshot.listeners.told().into_iter().map(row).collect())
}

pub(super) fn why_columns() -> Columns {
    Columns::new("issss", &["place", "severity", "cause", "part", "text"])
}

/// The findings, in a row for each line; then how things are, and what could not be looked at.
pub(super) fn why(why: &Why) -> Rows {
    let mut rows = Vec::new();
    for (at, finding) in why.findings.iter().enumerate() {
        let mut row = |part: &'static str, text: &str| {
            let (severity, cause) = (finding.severity.label(), finding.cause.label());
            rows.push(vec![
                (at + 1).into(),
                severity.into(),
                cause.into(),
                part.into(),
                text.to_owned().into(),
            ]);
        };
        row("finding", &finding.title);
        finding.evidence.iter().for_each(|text| row("evidence", text));
        row("next", &finding.next);
    }
    let mut line = |part: &'static str, text: String| {
        rows.push(vec![Value::Null, Value::Null, Value::Null, part.into(), text.into()]);
    };
    if why.well {
        line("well", "nothing keeps users waiting".to_owned());
    }
    why.figures.iter().for_each(|text| line("figure", text.clone()));
    why.unknown.iter().for_each(|text| line("not known", text.clone()));
    all(rows)
}
