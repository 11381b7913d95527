//! `/api/v1`: what the console and `/readyz` tell, as JSON; actions for those who have the token.
//!
//! Stable: fields may be added to an answer, none is taken away or changes its type.

mod act;
mod clients;
pub(super) mod guard;
mod pools;
mod recent;
mod servers;
mod summary;

use hyper::{Method, StatusCode, header::HeaderMap};
use serde::Serialize;
use serde_json::{Value as Json, json};

pub(super) use recent::Recent;

use super::{
    answer::{self, Answer},
    events::Events,
    health, queries,
};
use crate::{console::objects, shared::Snapshot, version, why};

/// Events that the stream repeats.
const STREAMED_EVENTS: usize = 20;
/// Reasons of routing that the stream repeats.
const STREAMED_REASONS: usize = 12;

/// A request to the API.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) method: &'a Method,
    /// Behind `/api/v1/`.
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    pub(super) headers: &'a HeaderMap,
    /// Whether something follows the headers.
    pub(super) has_body: bool,
}

/// The figures that are kept between requests.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) recent: Recent,
}

/// Answers a request. HEAD is answered as GET.
pub(super) async fn answer(asked: &Asked<'_>, snapshot: &Snapshot, kept: &Kept, events: &Events) -> Answer {
    if let Some(action) = act::named(asked.path) {
        if asked.method != Method::POST {
            return not_allowed("POST");
        }
        if let Some(refused) = guard::refuse_stranger(asked.headers, snapshot.console.http_token.as_ref()) {
            return refused;
        }
        if asked.has_body {
            let hint = "Everything is said by the path.";
            return answer::error(StatusCode::PAYLOAD_TOO_LARGE, "actions take no body", hint);
        }
        return act::run(&action, snapshot).await;
    }
    if !matches!(*asked.method, Method::GET | Method::HEAD) {
        return if is_known(asked.path) { not_allowed("GET, HEAD") } else { unknown() };
    }
    if asked.path == "why" {
        return answer::json(StatusCode::OK, &why::report(snapshot).await);
    }
    look(asked, snapshot, kept, events)
}

/// Paths that are only looked at.
const LOOKS: [&str; 10] =
    ["health", "pools", "servers", "clients", "queries", "slow", "why", "events", "pins", "reasons"];

fn is_known(path: &str) -> bool {
    LOOKS.contains(&path) || path == "stream"
}

fn look(asked: &Asked<'_>, snapshot: &Snapshot, kept: &Kept, events: &Events) -> Answer {
    let ok = StatusCode::OK;
    match asked.path {
        "health" => answer::json(ok, &HealthNow::read(snapshot, kept)),
        "pools" => answer::json(ok, &json!({ "pools": pools::pools(snapshot, &kept.recent) })),
        "servers" => answer::json(ok, &json!({ "servers": servers::servers(snapshot) })),
        "clients" => match clients::page(asked.query) {
            Ok(page) => answer::json(ok, &clients::clients(snapshot, page)),
            Err(hint) => answer::error(StatusCode::BAD_REQUEST, "the query makes no sense", &hint),
        },
        "events" => answer::json(ok, &json!({ "events": events.read(usize::MAX) })),
        "pins" => answer::json(ok, &json!({ "pins": objects::pins(snapshot) })),
        "reasons" => answer::json(ok, &json!({ "reasons": objects::reasons(snapshot) })),
        "queries" | "slow" => match clients::page(asked.query) {
            Ok(page) => costs(asked.path, snapshot, page),
            Err(hint) => answer::error(StatusCode::BAD_REQUEST, "the query makes no sense", &hint),
        },
        _ => unknown(),
    }
}

/// `/api/v1/health`: the state in one sentence, and what `/readyz` tells.
#[derive(Debug, Serialize)]
struct HealthNow {
    level: summary::Level,
    summary: String,
    version: &'static str,
    clients: u64,
    max_clients: usize,
    #[serde(flatten)]
    readiness: health::Readiness,
}

impl HealthNow {
    fn read(snapshot: &Snapshot, kept: &Kept) -> Self {
        let (readiness, pools) = (health::readiness(snapshot), pools::pools(snapshot, &kept.recent));
        let (level, summary) = summary::summary(&readiness, &pools);
        let (clients, max_clients) = (snapshot.clients(), snapshot.limits.max_clients);
        Self { level, summary, version: version::VERSION, clients, max_clients, readiness }
    }
}

/// All that the page shows, in one line.
pub(super) fn overview(snapshot: &Snapshot, kept: &Kept, events: &Events) -> String {
    let mut reasons = objects::reasons(snapshot);
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason["requests"].as_u64()));
    reasons.truncate(STREAMED_REASONS);
    let (readiness, pools) = (health::readiness(snapshot), pools::pools(snapshot, &kept.recent));
    let (level, sentence) = summary::summary(&readiness, &pools);
    let pins: Vec<Json> =
        objects::pins(snapshot).into_iter().filter(|pin| pin["pinned"].as_u64() > Some(0)).collect();
    let told = json!({
        "at_seconds": super::events::unix_seconds(std::time::SystemTime::now()),
        "level": level,
        "summary": sentence,
        "status": readiness.status,
        "reasons_not_ready": readiness.reasons,
        "version": version::VERSION,
        "clients": clients::counts(snapshot),
        "pools": pools,
        "servers": servers::servers(snapshot),
        "pins": pins,
        "reasons": reasons,
        "events": events.read(STREAMED_EVENTS),
    });
    told.to_string()
}

fn not_allowed(methods: &'static str) -> Answer {
    let message = format!("only {methods}");
    let mut refused = answer::error(StatusCode::METHOD_NOT_ALLOWED, &message, "");
    refused.headers_mut().insert(hyper::header::ALLOW, hyper::header::HeaderValue::from_static(methods));
    refused
}

fn unknown() -> Answer {
    let hint = format!("There are {} and stream below /api/v1/.", LOOKS.join(", "));
    answer::error(StatusCode::NOT_FOUND, "there is no such path", &hint)
}

/// Statements, by what they have cost or by when they were slow: those of one page.
fn costs(path: &str, snapshot: &Snapshot, page: clients::Page) -> Answer {
    if path == "slow" {
        let mut told = queries::slow(snapshot);
        page.keep(&mut told.slow);
        return answer::json(StatusCode::OK, &told);
    }
    let mut told = queries::queries(snapshot);
    page.keep(&mut told.queries);
    answer::json(StatusCode::OK, &told)
}
