//! What each path answers.

use std::sync::Arc;

use hyper::{
    Method, Request, StatusCode,
    body::{Body as _, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
};

use super::{
    answer::{self, Answer},
    api,
    events::Events,
    guest::Guest,
    health::{Status, readiness},
    metrics, page,
    pulse::Pulse,
    stream::Hub,
};
use crate::shared::{Current, Snapshot};

const API: &str = "/api/v1/";
const STREAM: &str = "/api/v1/stream";

/// Everything that answers are made of.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) current: Arc<Current>,
    pub(super) pulse: Pulse,
    pub(super) hub: Hub,
    pub(super) events: Arc<Events>,
    pub(super) kept: api::Kept,
}

impl Site {
    /// One that tells of this.
    pub(super) fn new(current: Arc<Current>, events: Arc<Events>) -> Self {
        Self { current, pulse: Pulse::default(), hub: Hub::default(), events, kept: api::Kept::default() }
    }

    /// Answers a request. HEAD is answered as GET; hyper leaves the body out.
    pub(super) async fn answer(&self, request: &Request<Incoming>, guest: &Arc<Guest>) -> Answer {
        let (method, path, snapshot) = (request.method(), request.uri().path(), self.current.load());
        if let Some(path_of_api) = path.strip_prefix(API) {
            if let Some(refused) = api::guard::refuse_foreign_name(request.headers(), guest.is_local) {
                return refused;
            }
            if path == STREAM && *method == Method::GET {
                return self.hub.watch(guest);
            }
            let asked = api::Asked {
                method,
                path: path_of_api,
                query: request.uri().query().unwrap_or_default(),
                headers: request.headers(),
                has_body: !request.body().is_end_stream(),
            };
            return api::answer(&asked, &snapshot, &self.kept, &self.events).await;
        }
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut refused = answer::text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        page::file(path).unwrap_or_else(|| for_machines(path, &snapshot, &self.pulse))
    }

    /// Tells those who watch, as long as anybody does.
    pub(super) async fn tell(&self) {
        self.hub.serve(|| api::overview(&self.current.load(), &self.kept, &self.events)).await;
    }
}

/// Answers to scrapers, load balancers and supervisors.
pub(super) fn for_machines(path: &str, shared: &Snapshot, pulse: &Pulse) -> Answer {
    match path {
        "/metrics" => {
            let mut told = answer::text(StatusCode::OK, metrics::text(shared));
            told.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
            told
        }
        "/healthz" if pulse.is_lost() => {
            answer::text(StatusCode::SERVICE_UNAVAILABLE, "a thread does not answer\n")
        }
        "/healthz" => answer::text(StatusCode::OK, "ok\n"),
        "/readyz" => ready(shared),
        _ => answer::text(StatusCode::NOT_FOUND, "there are /, /metrics, /healthz, /readyz and /api/v1/\n"),
    }
}

fn ready(shared: &Snapshot) -> Answer {
    let readiness = readiness(shared);
    let status = match readiness.status {
        Status::Ready | Status::Degraded => StatusCode::OK,
        Status::NotReady => StatusCode::SERVICE_UNAVAILABLE,
    };
    answer::json(status, &readiness)
}
