//! The last lines of the log that an operator cares about, kept in memory: `/api/v1/events`.
//!
//! Whatever is logged at level info or above by Bulkhead itself is an event, whatever the log's own filter lets through.
//! Bounded by [`KEPT_MAX`] events of [`MESSAGE_CHARACTERS`] and [`FIELDS_MAX`] fields each.

use std::{
    collections::VecDeque,
    fmt::{Debug, Write as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::Serialize;
use serde_json::{Map, Value as Json};
use tracing::{
    Event as Line, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::layer::{Context, Layer};

/// Events that are kept.
const KEPT_MAX: usize = 200;
/// Characters of a message, and of the value of a field.
const MESSAGE_CHARACTERS: usize = 400;
/// Fields of an event.
const FIELDS_MAX: usize = 12;
/// The program's own lines begin with this.
const OWN_TARGET: &str = "bulkhead";

/// One event.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Event {
    /// Counts up; one that is missing was forgotten.
    id: u64,
    /// In seconds since 1970.
    at_seconds: f64,
    /// `info`, `warn` or `error`.
    level: &'static str,
    message: String,
    fields: Map<String, Json>,
}

/// The last events.
#[derive(Debug, Default)]
pub struct Events(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    kept: VecDeque<Event>,
    count: u64,
}

impl Events {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last ones, the newest first.
    pub(super) fn read(&self, limit: usize) -> Vec<Event> {
        self.lock().kept.iter().rev().take(limit).cloned().collect()
    }

    fn keep(&self, level: &'static str, said: Said) {
        let at_seconds = unix_seconds(SystemTime::now());
        let mut state = self.lock();
        state.count += 1;
        let event = Event { id: state.count, at_seconds, level, message: said.message, fields: said.fields };
        if state.kept.len() >= KEPT_MAX {
            state.kept.pop_front();
        }
        state.kept.push_back(event);
    }
}

/// The layer of the log that keeps events.
#[derive(Debug)]
pub struct KeepEvents(pub Arc<Events>);

impl<S: Subscriber> Layer<S> for KeepEvents {
    fn on_event(&self, line: &Line<'_>, _: Context<'_, S>) {
        let level = match *line.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO => "info",
            Level::DEBUG | Level::TRACE => return,
        };
        if !line.metadata().target().starts_with(OWN_TARGET) {
            return;
        }
        let mut said = Said::default();
        line.record(&mut said);
        self.0.keep(level, said);
    }
}

/// The contents of a line.
#[derive(Debug, Default)]
struct Said {
    message: String,
    fields: Map<String, Json>,
}

impl Said {
    fn put(&mut self, field: &Field, value: Json) {
        // A field of this name stands behind the message itself.
        if field.name() == "message" && self.message.is_empty() {
            self.message = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        } else if self.fields.len() < FIELDS_MAX {
            self.fields.insert(field.name().to_owned(), value);
        }
    }
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut text = Bounded::default();
        // It stops at its bound.
        let _ = write!(text, "{value:?}");
        self.put(field, text.text.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.chars().take(MESSAGE_CHARACTERS).collect::<String>().into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }
}

/// The beginning of a text.
#[derive(Debug, Default)]
struct Bounded {
    text: String,
    characters: usize,
}

impl std::fmt::Write for Bounded {
    fn write_str(&mut self, more: &str) -> std::fmt::Result {
        for character in more.chars() {
            if self.characters >= MESSAGE_CHARACTERS {
                return Err(std::fmt::Error);
            }
            self.text.push(character);
            self.characters += 1;
        }
        Ok(())
    }
}

/// A moment in seconds since 1970.
pub(super) fn unix_seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn what_is_said_is_kept_in_bounds() {
        let events = Arc::new(Events::default());
        let subscriber = tracing_subscriber::registry().with(KeepEvents(Arc::clone(&events)));
        tracing::subscriber::with_default(subscriber, || {
            let message = "why";
            tracing::info!(target: "bulkhead::x", server = "main", open = 3_u64, %message, "the server is {}", "up");
            tracing::debug!(target: "bulkhead::x", "not this");
            tracing::error!(target: "hyper::x", "nor this");
            let long = "<b>".repeat(10_000);
            tracing::warn!(target: "bulkhead::x", long, again = ?long, "{long}");
        });
        let read = events.read(9);
        let told = serde_json::to_value(&read).expect("JSON");
        assert_eq!(read.len(), 2, "{told}");
        assert_eq!(told[1]["message"], "the server is up");
        assert_eq!(told[1]["level"], "info");
        assert_eq!(told[1]["fields"], serde_json::json!({ "server": "main", "open": 3, "message": "why" }));
        for text in [&told[0]["message"], &told[0]["fields"]["long"], &told[0]["fields"]["again"]] {
            assert_eq!(text.as_str().map(|text| text.chars().count()), Some(MESSAGE_CHARACTERS));
        }
    }

    #[test]
    fn the_oldest_is_forgotten() {
        let events = Events::default();
        for number in 0..KEPT_MAX + 7 {
            events.keep("info", Said { message: number.to_string(), fields: Map::new() });
        }
        let read = events.read(usize::MAX);
        assert_eq!((read.len(), read[0].id), (KEPT_MAX, KEPT_MAX as u64 + 7));
        assert_eq!(read[KEPT_MAX - 1].message, "7");
    }
}
