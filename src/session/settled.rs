//! What becomes of a backend when its client has been answered: decided here, without a server; `settle.rs` does it.

use super::kinds::{CHANGES_SETTINGS, DEFINES, LEAVES_STATE};
use crate::{backend::probe::PinReason, sql::Effects};

/// The facts about a backend and the session that holds it.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent facts, not states of one thing")]
pub(super) struct Facts {
    /// The server has answered everything, and is in no transaction.
    pub(super) is_quiescent: bool,
    /// Effects that the texts since the checkout may have had.
    pub(super) effects: Effects,
    /// The pin of the session.
    pub(super) pin: Option<PinReason>,
    /// The backend is the session's own until the session ends.
    pub(super) is_kept: bool,
    /// The unnamed statement on it is too long to be kept elsewhere.
    pub(super) has_long_statement: bool,
    /// Definitions have changed since the texts were judged.
    pub(super) is_outdated: bool,
    /// Objects were made, as others have been told, that are temporary by the search path alone, if at all.
    pub(super) has_new_objects: bool,
    /// The server has told what was left, as far as it can be asked.
    pub(super) was_asked: bool,
    /// The backend lacked a statement that it should have had.
    pub(super) lacks_statement: bool,
    /// Statements are there under the client's own names.
    pub(super) has_aliases: bool,
    /// Locks of its last transaction are kept.
    pub(super) keeps_locks: bool,
    /// The session listens there, or is still owed that it is ready.
    pub(super) listens_there: bool,
    /// A cancel was meant for it.
    pub(super) was_hit: bool,
    /// A message of the client is under way to it.
    pub(super) is_streaming: bool,
    /// The backend's socket has not taken everything yet.
    pub(super) has_unsent: bool,
}

/// The next step with a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settle {
    /// Nothing yet: a transaction is open, or an answer is still to come.
    Wait,
    /// A question of ours would end the unnamed statement: the session is pinned by it, and all else is asked for when
    /// it is gone.
    PinByStatement,
    /// The server is asked this, and then it is decided anew.
    Ask(Question),
    /// The session goes on with it.
    Keep,
    /// The next session may have it.
    Release,
}

/// A question to the server; they come in this order. The answer to each ends the reason for it, or the hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// Letting go of the locks that were kept.
    Locks,
    /// The channels that the session listens to there, which are taken over.
    Channels,
    /// A sign of life, which takes the blow of a cancel that is late.
    Life,
    /// The protocol's statements that exist there.
    Statements,
    /// The same, to take away those that have the client's own names.
    Aliases,
    /// State that was left, and settings.
    Residue,
}

/// The next step with a backend of which this is known.
pub(super) fn settled(facts: Facts) -> Settle {
    if !facts.is_quiescent {
        return Settle::Wait;
    }
    if facts.has_long_statement {
        return Settle::PinByStatement;
    }
    if let Some(question) = question(&facts) {
        return Settle::Ask(question);
    }
    // What could not be asked for is asked for after the next request: nobody else gets it before.
    if leaves_residue(&facts)
        || facts.pin.is_some()
        || facts.is_kept
        || facts.is_streaming
        || facts.has_unsent
    {
        return Settle::Keep;
    }
    Settle::Release
}

fn question(facts: &Facts) -> Option<Question> {
    match facts {
        Facts { keeps_locks: true, .. } => Some(Question::Locks),
        Facts { listens_there: true, .. } => Some(Question::Channels),
        Facts { was_hit: true, .. } => Some(Question::Life),
        Facts { lacks_statement: true, .. } => Some(Question::Statements),
        Facts { has_aliases: true, .. } => Some(Question::Aliases),
        Facts { was_asked: false, .. } => leaves_residue(facts).then_some(Question::Residue),
        _ => None,
    }
}

/// Whether something may have been left that the server can be asked for.
fn leaves_residue(facts: &Facts) -> bool {
    let asks = match facts.pin {
        // Nothing else can end a pin that lasts as long as the session.
        _ if facts.is_kept => CHANGES_SETTINGS,
        Some(_) => LEAVES_STATE.with(Effects::ENDS_STATE),
        None => LEAVES_STATE,
    };
    // Something else than what was judged may have run; what was defined may be temporary by the search path alone; and
    // behind a long statement nothing was asked.
    facts.effects.has(asks.with(DEFINES))
        || facts.has_new_objects
        || facts.is_outdated
        || facts.pin == Some(PinReason::UnnamedStatement)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A backend that has served a proven read.
    const CLEAN: Facts = Facts {
        is_quiescent: true,
        effects: Effects::NONE,
        pin: None,
        is_kept: false,
        has_long_statement: false,
        is_outdated: false,
        has_new_objects: false,
        was_asked: false,
        lacks_statement: false,
        has_aliases: false,
        keeps_locks: false,
        listens_there: false,
        was_hit: false,
        is_streaming: false,
        has_unsent: false,
    };

    /// In a transaction nothing is decided, whatever else is known.
    const WAITS: Facts = Facts {
        is_quiescent: false,
        effects: Effects::UNPROVEN,
        pin: Some(PinReason::Load),
        has_long_statement: true,
        was_hit: true,
        ..CLEAN
    };

    #[test]
    fn what_becomes_of_a_backend() {
        let residue = Settle::Ask(Question::Residue);
        let pinned = Facts { pin: Some(PinReason::TempObjects), ..CLEAN };
        let kept = Facts { is_kept: true, ..CLEAN };
        for (facts, expected) in [
            (CLEAN, Settle::Release),
            (WAITS, Settle::Wait),
            // What proves nothing, and what leaves something, is asked for.
            (Facts { effects: Effects::UNPROVEN, ..CLEAN }, residue),
            (Facts { effects: Effects::SETS, ..CLEAN }, residue),
            (Facts { effects: Effects::LOCKS, ..CLEAN }, residue),
            (Facts { effects: Effects::DDL, ..CLEAN }, residue),
            (Facts { effects: Effects::ADDS, ..CLEAN }, residue),
            (Facts { is_outdated: true, ..CLEAN }, residue),
            (Facts { has_new_objects: true, ..CLEAN }, residue),
            // What leaves nothing is not.
            (Facts { effects: Effects::LOCAL, ..CLEAN }, Settle::Release),
            (Facts { effects: Effects::ENDS_STATE, ..CLEAN }, Settle::Release),
            // A pinned session keeps its backend, and looks again when its state may have ended.
            (pinned, Settle::Keep),
            (Facts { effects: Effects::ENDS_STATE, ..pinned }, residue),
            (Facts { effects: Effects::SETS, ..pinned }, residue),
            // In session mode only settings are read again: nothing ends the pin.
            (kept, Settle::Keep),
            (Facts { effects: Effects::LOCKS, ..kept }, Settle::Keep),
            (Facts { effects: Effects::SETS, ..kept }, residue),
            (Facts { is_outdated: true, ..kept }, residue),
            // The long statement comes first, and when it has gone, all is asked for.
            (Facts { has_long_statement: true, effects: Effects::UNPROVEN, ..CLEAN }, Settle::PinByStatement),
            (Facts { pin: Some(PinReason::UnnamedStatement), ..CLEAN }, residue),
            // What is on the backend for this session only is taken away first.
            (Facts { lacks_statement: true, ..CLEAN }, Settle::Ask(Question::Statements)),
            (Facts { has_aliases: true, ..CLEAN }, Settle::Ask(Question::Aliases)),
            (Facts { listens_there: true, ..CLEAN }, Settle::Ask(Question::Channels)),
            // A client that is still to be told that it is ready finds its locks gone then.
            (Facts { keeps_locks: true, listens_there: true, ..CLEAN }, Settle::Ask(Question::Locks)),
            (Facts { keeps_locks: true, ..kept }, Settle::Ask(Question::Locks)),
            (Facts { was_hit: true, ..CLEAN }, Settle::Ask(Question::Life)),
            (Facts { was_hit: true, ..pinned }, Settle::Ask(Question::Life)),
            (Facts { was_hit: true, was_asked: true, ..CLEAN }, Settle::Ask(Question::Life)),
            // What the server does not tell is not asked again and again, and nobody else gets it.
            (Facts { effects: Effects::SETS, was_asked: true, ..pinned }, Settle::Keep),
            (Facts { effects: Effects::SETS, was_asked: true, ..CLEAN }, Settle::Keep),
            (Facts { was_asked: true, ..CLEAN }, Settle::Release),
            // The rest of a message belongs to nobody else.
            (Facts { is_streaming: true, ..CLEAN }, Settle::Keep),
            (Facts { has_unsent: true, ..CLEAN }, Settle::Keep),
        ] {
            assert_eq!(settled(facts), expected, "{facts:?}");
        }
    }

    proptest::proptest! {
        /// No backend is given back of which anything is known that another session could meet.
        #[test]
        fn only_what_is_clean_is_given_back(bits in proptest::prelude::any::<u16>(), effects in proptest::prelude::any::<u64>()) {
            let bit = |at: u32| bits & (1 << at) != 0;
            let facts = Facts {
                is_quiescent: bit(0),
                effects: Effects::from_bits(effects),
                pin: bit(1).then_some(PinReason::Listen),
                is_kept: bit(2),
                has_long_statement: bit(3),
                is_outdated: bit(4),
                lacks_statement: bit(5),
                has_aliases: bit(6),
                listens_there: bit(7),
                was_hit: bit(8),
                is_streaming: bit(9),
                has_unsent: bit(10),
                has_new_objects: bit(11),
                was_asked: bit(12),
                keeps_locks: bit(13),
            };
            let is_clean = facts.is_quiescent
                && !facts.effects.has(LEAVES_STATE.with(DEFINES))
                && bits & 0b10_1111_1111_1110 == 0;
            proptest::prop_assert_eq!(settled(facts) == Settle::Release, is_clean);
        }

        /// Questions come to an end, and each is asked once, in the order that they have.
        #[test]
        fn nothing_is_asked_twice(bits in proptest::prelude::any::<u8>(), effects in proptest::prelude::any::<u64>()) {
            let bit = |at: u32| bits & (1 << at) != 0;
            let mut facts = Facts {
                effects: Effects::from_bits(effects),
                pin: bit(0).then_some(PinReason::Listen),
                is_kept: bit(1),
                has_new_objects: bit(2),
                lacks_statement: bit(3),
                has_aliases: bit(4),
                listens_there: bit(5),
                was_hit: bit(6),
                keeps_locks: bit(7),
                ..CLEAN
            };
            let mut asked = Vec::new();
            while let Settle::Ask(question) = settled(facts) {
                asked.push(question as u8);
                match question {
                    Question::Locks => facts.keeps_locks = false,
                    Question::Channels => facts.listens_there = false,
                    Question::Life => facts.was_hit = false,
                    Question::Statements => facts.lacks_statement = false,
                    Question::Aliases => facts.has_aliases = false,
                    Question::Residue => facts.was_asked = true,
                }
                proptest::prop_assert!(asked.is_sorted_by(|one, next| one < next), "{asked:?}");
            }
        }
    }
}
