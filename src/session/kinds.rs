//! The kinds of state that a text may leave on a backend, in one table: which effect of a text makes it, what a session
//! that has it is pinned by, how it is known that it is there, and what ends it.
//!
//! Whatever asks about state reads this table: when a backend is given back, what is asked before that, which pins are
//! foreseen, what outlives a question. A kind without a row does not compile, and [`sql`](crate::sql) has the argument why
//! a text that has none of these effects leaves nothing.

use crate::{backend::probe::PinReason, sql::Effects};

/// A kind of state, or a way of leaving some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A setting that the server lists.
    Setting,
    /// A setting that went back to its default.
    Reset,
    /// A setting with a dot in its name, which the server does not list.
    Unlisted,
    /// Settings that a function or DO block may have set whose body is known.
    Opaque,
    /// Anything: what has run is not proven.
    Unproven,
    /// Temporary tables, views, functions, types.
    Temporary,
    /// Objects that are temporary if the search path makes them so.
    Defined,
    /// The same of what is only added.
    Added,
    /// Session-level advisory locks.
    Locks,
    /// LISTEN.
    Channels,
    /// Statements of SQL's PREPARE.
    Prepared,
    /// Cursors WITH HOLD.
    HeldCursors,
    /// A loaded library.
    Library,
    /// The seed of `random()`.
    Seed,
    /// A setting with a dot whose name stands nowhere.
    Hidden,
    /// The values that `currval` and `lastval` give.
    Sequences,
}

/// A row of the table: the facts about one kind.
struct Row {
    /// The effect of a text that may leave it.
    effect: Effects,
    /// How it is known whether it is there.
    known: Known,
    /// The pin of a session that has such state.
    pin: Option<PinReason>,
    /// The pin is seen before the text runs.
    is_foreseen: bool,
    /// The end of such state, if the server cannot be asked for it.
    until: Until,
}

/// How it is known whether there is state of a kind.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    /// The server is asked for its settings.
    Settings,
    /// The server is asked for what it lists of the kind; or it cannot be asked, and the effect is enough.
    Probe,
    /// The server is asked for temporary objects, which these may be.
    Chance,
}

/// The end of state that cannot be asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    /// None is needed: the server can be asked.
    Asked,
    /// The end of the session.
    SessionEnds,
    /// DISCARD ALL.
    AllDiscarded,
    /// DISCARD SEQUENCES.
    SequencesDiscarded,
}

impl Kind {
    /// All of them. Of pins that last the first one counts, which is the one that is harder to end.
    const ALL: [Self; 16] = [
        Self::Setting,
        Self::Reset,
        Self::Unlisted,
        Self::Opaque,
        Self::Unproven,
        Self::Temporary,
        Self::Defined,
        Self::Added,
        Self::Locks,
        Self::Channels,
        Self::Prepared,
        Self::HeldCursors,
        Self::Library,
        Self::Seed,
        Self::Hidden,
        Self::Sequences,
    ];

    const fn row(self) -> Row {
        use PinReason as Pin;
        match self {
            Self::Setting => Row::setting(Effects::SETS),
            Self::Reset => Row::setting(Effects::RESETS),
            Self::Unlisted => Row::setting(Effects::SETS_UNLISTED),
            Self::Opaque => Row::setting(Effects::OPAQUE),
            Self::Unproven => Row::setting(Effects::UNPROVEN),
            Self::Hidden => Row {
                known: Known::Settings,
                ..Row::lasting(Effects::OPAQUE_SETTINGS, Pin::HiddenSettings, Until::AllDiscarded)
            },
            Self::Temporary => Row::listed(Effects::TEMP, Some(Pin::TempObjects)),
            Self::Defined => Row::by_chance(Effects::DDL),
            Self::Added => Row::by_chance(Effects::ADDS),
            Self::Locks => Row::listed(Effects::LOCKS, Some(Pin::AdvisoryLocks)),
            Self::Channels => Row::listed(Effects::LISTENS, None),
            Self::Prepared => Row::listed(Effects::PREPARES, Some(Pin::PreparedStatements)),
            Self::HeldCursors => Row::listed(Effects::HOLDS_CURSOR, Some(Pin::HeldCursors)),
            Self::Library => Row::lasting(Effects::LOADS, Pin::Load, Until::SessionEnds),
            Self::Seed => Row::lasting(Effects::SEEDS, Pin::Seed, Until::SessionEnds),
            // Foreseen as well, but only of sessions that ask for them.
            Self::Sequences => Row {
                is_foreseen: false,
                ..Row::lasting(Effects::CALLS_SEQUENCES, Pin::Sequences, Until::SequencesDiscarded)
            },
        }
    }
}

impl Row {
    const fn setting(effect: Effects) -> Self {
        Self { effect, known: Known::Settings, pin: None, is_foreseen: false, until: Until::Asked }
    }

    const fn listed(effect: Effects, pin: Option<PinReason>) -> Self {
        Self { effect, known: Known::Probe, pin, is_foreseen: pin.is_some(), until: Until::Asked }
    }

    const fn by_chance(effect: Effects) -> Self {
        Self { effect, known: Known::Chance, pin: None, is_foreseen: false, until: Until::Asked }
    }

    const fn lasting(effect: Effects, pin: PinReason, until: Until) -> Self {
        Self { effect, known: Known::Probe, pin: Some(pin), is_foreseen: true, until }
    }
}

/// Effects after which the session has state on its backend, or may have.
pub(super) const LEAVES_STATE: Effects = every(Column::Leaves);

/// Effects that leave state and may have changed settings.
pub(super) const CHANGES_SETTINGS: Effects = every(Column::ChangesSettings);

/// Effects that may make objects, which are temporary by the search path alone.
pub(super) const DEFINES: Effects = every(Column::Defines);

/// Effects of statements that pin, known before they run.
const PINNING: Effects = every(Column::Foreseen);

#[derive(Clone, Copy)]
enum Column {
    Leaves,
    ChangesSettings,
    Defines,
    Foreseen,
}

const fn every(column: Column) -> Effects {
    let mut effects = Effects::NONE;
    let mut at = 0;
    while at < Kind::ALL.len() {
        let row = Kind::ALL[at].row();
        let is_in = match column {
            Column::Leaves => !matches!(row.known, Known::Chance),
            Column::ChangesSettings => matches!(row.known, Known::Settings),
            Column::Defines => matches!(row.known, Known::Chance),
            Column::Foreseen => row.is_foreseen,
        };
        if is_in {
            effects = effects.with(row.effect);
        }
        at += 1;
    }
    effects
}

/// The pin by which a text with these effects will tie its session, if its state outlasts the transaction.
pub(super) fn foreseen_pin(effects: Effects) -> Option<PinReason> {
    if !effects.has(PINNING) {
        return None;
    }
    let mut rows = Kind::ALL.into_iter().map(Kind::row);
    rows.find(|row| row.is_foreseen && effects.has(row.effect)).and_then(|row| row.pin)
}

/// The pin by state that the server cannot be asked for, after texts with these effects: by what they have left, or by
/// what was there and nothing has ended. Which of two effects came first is not known: what is left counts.
pub(super) fn lasting_pin(effects: Effects, pinned: Option<PinReason>) -> Option<PinReason> {
    let is_ended = |until| match until {
        Until::Asked => true,
        Until::SessionEnds => false,
        Until::AllDiscarded => effects.has(Effects::DISCARDS),
        Until::SequencesDiscarded => effects.has(Effects::DISCARDS_SEQUENCES),
    };
    let mut rows = Kind::ALL.into_iter().map(Kind::row).filter(|row| row.until != Until::Asked);
    rows.find(|row| effects.has(row.effect) || (pinned == row.pin && !is_ended(row.until)))
        .and_then(|row| row.pin)
}

/// Whether texts with these effects, or those that pinned the session, have left what no reset of the backend ends.
pub(super) fn outlives_reset(effects: Effects, pinned: Option<PinReason>) -> bool {
    let mut rows = Kind::ALL.into_iter().map(Kind::row).filter(|row| row.until == Until::SessionEnds);
    rows.any(|row| effects.has(row.effect) || pinned == row.pin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_an_effect_of_its_own() {
        let mut seen = Effects::NONE;
        for kind in Kind::ALL {
            let effect = kind.row().effect;
            assert!(effect != Effects::NONE && !seen.has(effect), "{kind:?}");
            seen |= effect;
        }
        assert_eq!(seen, LEAVES_STATE.with(DEFINES));
        for row in Kind::ALL.map(Kind::row) {
            let lasts = row.pin.is_some_and(PinReason::is_lasting);
            assert_eq!(lasts, row.until != Until::Asked, "{:?}", row.pin);
        }
        assert!(!LEAVES_STATE.has(DEFINES));
    }

    #[test]
    fn a_pin_that_cannot_be_asked_for_lasts_until_its_end() {
        use PinReason::{HiddenSettings, Load, Seed, Sequences, TempObjects};
        let (nothing, discards) = (Effects::NONE, Effects::DISCARDS.with(Effects::DISCARDS_SEQUENCES));
        for (effects, pinned, pin) in [
            (nothing, None, None),
            (nothing, Some(TempObjects), None),
            (Effects::TEMP, None, None),
            (Effects::LOADS, None, Some(Load)),
            (discards, Some(Load), Some(Load)),
            (discards, Some(Seed), Some(Seed)),
            (nothing, Some(HiddenSettings), Some(HiddenSettings)),
            (discards, Some(HiddenSettings), None),
            (Effects::OPAQUE_SETTINGS.with(discards), None, Some(HiddenSettings)),
            (Effects::CALLS_SEQUENCES, None, Some(Sequences)),
            (Effects::DISCARDS_SEQUENCES, Some(Sequences), None),
            (Effects::CALLS_SEQUENCES.with(discards), None, Some(Sequences)),
        ] {
            assert_eq!(lasting_pin(effects, pinned), pin, "{effects:?} {pinned:?}");
        }
    }

    #[test]
    fn a_library_and_a_seed_outlive_a_reset() {
        assert!(outlives_reset(Effects::LOADS, None) && outlives_reset(Effects::NONE, Some(PinReason::Seed)));
        let others = LEAVES_STATE.with(DEFINES).without(Effects::LOADS.with(Effects::SEEDS));
        assert!(!outlives_reset(others, Some(PinReason::HiddenSettings)));
    }

    #[test]
    fn nothing_that_pins_begins_on_a_replica() {
        assert_eq!(PINNING.without(crate::sql::NOT_ON_REPLICAS), Effects::NONE);
    }

    #[test]
    fn pins_are_foreseen_by_effects() {
        assert_eq!(foreseen_pin(Effects::SETS), None);
        assert_eq!(foreseen_pin(Effects::CALLS_SEQUENCES), None);
        assert_eq!(foreseen_pin(Effects::SETS.with(Effects::LOCKS)), Some(PinReason::AdvisoryLocks));
        assert_eq!(foreseen_pin(Effects::SEEDS), Some(PinReason::Seed));
    }
}
