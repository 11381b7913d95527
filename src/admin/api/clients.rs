//! `/api/v1/clients`: clients one by one, a page at a time, and how many there are of each kind.

use serde_json::{Value as Json, json};

use crate::{
    console::objects,
    shared::{Snapshot, cancels::Activity},
};

/// Clients on a page, unless it is asked for another number.
const LIMIT: usize = 100;
/// Clients on a page at most.
const LIMIT_MAX: usize = 1_000;

/// Which of them are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Page {
    limit: usize,
    offset: usize,
}

/// The page that a query asks for; an advice if it makes no sense.
pub(super) fn page(query: &str) -> Result<Page, String> {
    let mut page = Page { limit: LIMIT, offset: 0 };
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let number = value.parse::<usize>().ok();
        match (name, number) {
            ("limit", Some(limit @ 1..=LIMIT_MAX)) => page.limit = limit,
            ("offset", Some(offset)) => page.offset = offset,
            _ => return Err(format!("Write limit=1 to limit={LIMIT_MAX}, and offset=0 or more.")),
        }
    }
    Ok(page)
}

impl Page {
    /// Leaves what is on the page.
    pub(super) fn keep<T>(self, rows: &mut Vec<T>) {
        rows.truncate(self.offset.saturating_add(self.limit));
        rows.drain(..self.offset.min(rows.len()));
    }
}

/// One page.
pub(super) fn clients(snapshot: &Snapshot, page: Page) -> Json {
    let (total, clients) = objects::clients(snapshot, page.offset, page.limit);
    json!({ "total": total, "offset": page.offset, "limit": page.limit, "clients": clients })
}

/// How many there are, and what they do.
pub(super) fn counts(snapshot: &Snapshot) -> Json {
    let (mut active, mut waiting, mut idle) = (0_usize, 0_usize, 0_usize);
    for client in snapshot.cancels.seen() {
        match client.activity {
            Activity::Holds(_) => active += 1,
            Activity::Waiting => waiting += 1,
            Activity::Idle => idle += 1,
        }
    }
    let total = active + waiting + idle;
    json!({ "total": total, "active": active, "waiting": waiting, "idle": idle, "max": snapshot.limits.max_clients })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_its_rows() {
        let kept = |limit, offset| {
            let mut rows: Vec<u8> = (0..5).collect();
            Page { limit, offset }.keep(&mut rows);
            rows
        };
        assert_eq!(kept(2, 1), [1, 2]);
        assert_eq!(kept(9, 4), [4]);
        assert_eq!(kept(9, 5), Vec::<u8>::new());
        assert_eq!(kept(1, usize::MAX), Vec::<u8>::new());
    }

    #[test]
    fn pages_are_bounded() {
        let of = |query| page(query).ok();
        assert_eq!(of(""), Some(Page { limit: 100, offset: 0 }));
        assert_eq!(of("limit=1000&offset=7"), Some(Page { limit: 1_000, offset: 7 }));
        for wrong in ["limit=0", "limit=1001", "limit=-1", "offset=x", "offset=", "x=1", "limit"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}
