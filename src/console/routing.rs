//! Where requests go and what decides it: routes by class, what causal reads go by, and the job database.

use super::table::{Columns, Rows, Value, all};
use crate::{
    outbox::Figures,
    route::PoolId,
    shared::Snapshot,
    topology::{Role, ServerHealth},
};

pub(super) fn routes_columns() -> Columns {
    Columns::new("ssss", &["requests", "pool", "servers", "when"])
}

/// A row for each kind of requests, with the pool that it uses.
pub(super) fn routes(snapshot: &Snapshot) -> Rows {
    let routes = &snapshot.routes;
    let own = routes.primary;
    let worker = routes.workers.unwrap_or(own);
    let kinds = [
        ("write", own, "what may write, and everything that is not proven to belong elsewhere"),
        ("neutral", own, "what names no object"),
        (
            "read",
            routes.replicas.unwrap_or(own),
            "what is proven to read only; the primary where no replica has what it needs",
        ),
        ("job", routes.jobs.unwrap_or(own), "what names job objects"),
        ("worker", worker, "what workers send besides job statements"),
    ];
    let mut rows: Vec<Vec<Value>> = kinds.map(|(kind, pool, when)| row(snapshot, kind, pool, when)).into();
    let is_routed = |pool: PoolId| kinds.iter().any(|(_, known, _)| *known == pool);
    for at in (0..snapshot.pools.len()).filter_map(|at| u8::try_from(at).ok()) {
        if !is_routed(PoolId(at)) {
            rows.push(row(snapshot, "hint", PoolId(at), "what asks for it by its name"));
        }
    }
    all(rows)
}

fn row(snapshot: &Snapshot, kind: &'static str, pool: PoolId, when: &'static str) -> Vec<Value> {
    let pool = snapshot.pool(pool);
    let servers: Vec<&str> = pool.members.iter().map(|member| member.server_name.as_str()).collect();
    vec![kind.into(), pool.name.clone().into(), servers.join(",").into(), when.into()]
}

pub(super) fn causal_columns() -> Columns {
    Columns::new(
        "ssqqqqiqs",
        &["server", "role", "now", "last_write", "voided", "has", "lag_ms", "lag_bytes", "consistency"],
    )
}

/// A row for each server that reads may use. Times are those of the clock that writes are stamped by: a read of a table that
/// was written last at a time may use a replica that `has` a later one.
pub(super) fn causal(snapshot: &Snapshot) -> Rows {
    let (causal, consistency) = (&snapshot.causal, snapshot.replicas.consistency.name());
    let stamps = &causal.stamps;
    let row = |server: &ServerHealth| -> Vec<Value> {
        let (has, (lag_bytes, lag)) = match server.role {
            Role::Replica => (server.reads().replayed(), server.reads().lag()),
            _ => (causal.newest(), (0, std::time::Duration::ZERO)),
        };
        vec![
            server.name.clone().into(),
            server.role.label().into(),
            stamps.now().into(),
            stamps.last_of_any().into(),
            stamps.voided().into(),
            has.into(),
            (lag.as_millis() as u64).into(),
            lag_bytes.into(),
            consistency.into(),
        ]
    };
    let used = snapshot.health.servers.iter().filter(|server| server.role != Role::Other);
    all(used.map(row).collect())
}

pub(super) fn jobs_columns() -> Columns {
    Columns::new(
        "sssssqqqqqs",
        &[
            "pool",
            "server",
            "elsewhere",
            "ddl",
            "outbox",
            "waiting",
            "lag_ms",
            "relayed",
            "conflicts",
            "refused",
            "trouble",
        ],
    )
}

/// One row: where jobs are, and how the relay gets on; no rows if no pool takes jobs.
pub(super) fn jobs(snapshot: &Snapshot) -> Rows {
    let routes = &snapshot.routes;
    let Some(pool) = routes.jobs.map(|jobs| snapshot.pool(jobs)) else { return all(Vec::new()) };
    let servers: Vec<&str> = pool.members.iter().map(|member| member.server_name.as_str()).collect();
    let (state, figures, trouble) = match &snapshot.outbox {
        None => ("off", Figures::default(), None),
        Some(outbox) if outbox.is_ready() => ("ready", outbox.figures(), outbox.trouble()),
        Some(outbox) if outbox.is_known() => ("not ready", outbox.figures(), outbox.trouble()),
        Some(outbox) => ("not looked at yet", outbox.figures(), outbox.trouble()),
    };
    let ddl = match (routes.jobs_elsewhere, routes.defines_on_both) {
        (false, _) => "",
        (true, true) => "both",
        (true, false) => "jobs",
    };
    let trouble: String =
        trouble.iter().flat_map(|text| text.chars()).map(|c| if c.is_control() { ' ' } else { c }).collect();
    all(vec![vec![
        pool.name.clone().into(),
        servers.join(",").into(),
        if routes.jobs_elsewhere { "yes" } else { "no" }.into(),
        ddl.into(),
        state.into(),
        figures.waiting.into(),
        figures.lag_millis.into(),
        figures.relayed.into(),
        figures.conflicts.into(),
        figures.refused.into(),
        trouble.into(),
    ]])
}
