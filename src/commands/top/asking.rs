//! A thread that asks `/api/v1` once a second.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use serde_json::Value as Json;

use super::super::health;

/// From one question to the next.
const EVERY: Duration = Duration::from_secs(1);
/// How often it is looked at whether something else is wanted.
const LOOK: Duration = Duration::from_millis(50);
/// Answers that may wait to be shown.
const WAITING_MAX: usize = 4;

/// An answer: how it is, and what the tab shows; or why there is none.
#[derive(Debug)]
pub(super) struct Told {
    /// The path of the tab that it is for.
    pub(super) path: &'static str,
    /// `/api/v1/health`, and the tab's.
    pub(super) answer: Result<(Json, Json), String>,
}

/// The thread that asks.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) news: Receiver<Told>,
    wanted: Arc<Mutex<&'static str>>,
}

impl Asking {
    /// Begins to ask for pools.
    pub(super) fn start(address: SocketAddr, is_over: Arc<AtomicBool>) -> Self {
        let wanted = Arc::new(Mutex::new("pools"));
        let (to, news) = sync_channel(WAITING_MAX);
        let path = Arc::clone(&wanted);
        std::thread::spawn(move || ask_until_over(address, &path, &to, &is_over));
        Self { news, wanted }
    }

    /// Asks for this from now on.
    pub(super) fn wants(&self, path: &'static str) {
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = path;
    }
}

fn ask_until_over(
    address: SocketAddr,
    wanted: &Mutex<&'static str>,
    to: &SyncSender<Told>,
    is_over: &AtomicBool,
) {
    let now_wanted = || *wanted.lock().unwrap_or_else(PoisonError::into_inner);
    while !is_over.load(Ordering::Relaxed) {
        let (path, began) = (now_wanted(), Instant::now());
        let answer = ask(address, "health").and_then(|health| Ok((health, ask(address, path)?)));
        if to.send(Told { path, answer }).is_err() {
            return;
        }
        while began.elapsed() < EVERY && now_wanted() == path && !is_over.load(Ordering::Relaxed) {
            std::thread::sleep(LOOK);
        }
    }
}

fn ask(address: SocketAddr, path: &str) -> Result<Json, String> {
    let path = format!("/api/v1/{path}");
    let (status, body) = health::get(address, &path).map_err(|error| error.to_string())?;
    let json: Json =
        serde_json::from_str(&body).map_err(|_| format!("{path} answers no JSON: HTTP {status}"))?;
    match json["error"]["message"].as_str() {
        Some(message) => Err(message.to_owned()),
        None => Ok(json),
    }
}
