//! A place in a conversation at which a relay stands still: what comes is held there until it is let go.

use std::sync::OnceLock;

use memchr::memmem;
use tokio::sync::watch;

/// Where bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Towards {
    Upstream,
    Client,
}

/// Where to hold a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The `application_name` of the client whose conversation it is.
    pub(crate) of: &'static str,
    pub(crate) towards: Towards,
    /// Everything from these bytes on is held.
    pub(crate) text: &'static [u8],
}

/// What becomes of what was held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// It goes on.
    Passes,
    /// It is lost, and its connection with it.
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Set(Place),
    Sprung,
    Released(Held),
}

/// The trap of one relay, which springs once each time that it is set.
pub(super) struct Trap(watch::Sender<State>);

/// The first packet of a connection, which says whose it is.
#[derive(Default)]
pub(super) struct Opening(OnceLock<Vec<u8>>);

/// A request for encryption is shorter than any packet that names a client.
const REQUEST_BYTES: usize = 8;

impl Default for Trap {
    fn default() -> Self {
        Self(watch::channel(State::Open).0)
    }
}

impl Trap {
    /// Holds what comes to this place next.
    pub(super) fn set(&self, place: Place) {
        self.0.send_replace(State::Set(place));
    }

    pub(super) fn has_sprung(&self) -> bool {
        *self.0.borrow() == State::Sprung
    }

    pub(super) fn release(&self, held: Held) {
        self.0.send_replace(State::Released(held));
    }

    /// Where these bytes are to be held, if they are.
    pub(super) fn catch(&self, opening: &Opening, towards: Towards, bytes: &[u8]) -> Option<usize> {
        let mut at = None;
        self.0.send_if_modified(|state| {
            if let State::Set(place) = *state {
                let is_there = place.towards == towards && opening.names(place.of);
                at = is_there.then(|| memmem::find(bytes, place.text)).flatten();
            }
            if at.is_some() {
                *state = State::Sprung;
            }
            at.is_some()
        });
        at
    }

    /// Waits until what is held may go on, or may not.
    pub(super) async fn released(&self) -> Held {
        let mut seen = self.0.subscribe();
        let state = seen.wait_for(|state| *state != State::Sprung).await.map(|state| *state);
        match state {
            Ok(State::Released(held)) => held,
            // Set again, or its relay is gone.
            _ => Held::Lost,
        }
    }
}

impl Opening {
    /// Takes what a client sends, of which the first packet counts.
    pub(super) fn hear(&self, bytes: &[u8]) {
        if bytes.len() > REQUEST_BYTES {
            self.0.get_or_init(|| bytes.to_vec());
        }
    }

    fn names(&self, client: &str) -> bool {
        self.0.get().is_some_and(|packet| memmem::find(packet, client.as_bytes()).is_some())
    }
}

#[test]
fn a_trap_holds_one_client_at_its_place_once() {
    let (trap, ours, theirs) = (Trap::default(), Opening::default(), Opening::default());
    ours.hear(&[0; REQUEST_BYTES]);
    ours.hear(b"....application_name\0ours\0");
    ours.hear(b"....application_name\0other\0");
    theirs.hear(b"....application_name\0theirs\0");
    assert_eq!(trap.catch(&ours, Towards::Upstream, b"COMMIT"), None, "it is not set");
    trap.set(Place { of: "ours\0", towards: Towards::Upstream, text: b"COMMIT" });
    assert_eq!(trap.catch(&theirs, Towards::Upstream, b"COMMIT"), None);
    assert_eq!(trap.catch(&ours, Towards::Client, b"COMMIT"), None);
    assert_eq!(trap.catch(&ours, Towards::Upstream, b"BEGIN"), None);
    assert!(!trap.has_sprung());
    assert_eq!(trap.catch(&ours, Towards::Upstream, b"; COMMIT"), Some(2));
    assert!(trap.has_sprung());
    assert_eq!(trap.catch(&ours, Towards::Upstream, b"COMMIT"), None, "it springs once");
}
