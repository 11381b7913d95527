//! What classification says of one SQL text.

use super::{consistency::Consistency, tables::Tables, text_id::TextId};

/// The class of a statement decides the pool it runs on.
///
/// The order is the order of strength: of several statements in one text or pipeline the strongest class wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Class {
    /// Names no object: BEGIN, SET, SHOW, advisory locks.
    Neutral,
    /// Proven to change nothing and to give the same answer on a standby.
    Read,
    /// Anything else.
    Write,
    /// Names an object of an enabled job preset or rule.
    Job,
}

/// Why a text got its class. Also a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// A read: nothing in the text can write or depend on the server it runs on.
    ReadOnly,
    /// INSERT, UPDATE, DELETE, MERGE, COPY FROM, also inside a CTE.
    Modifies,
    /// A locking clause (`FOR UPDATE`, `FOR SHARE`).
    RowLocks,
    /// CREATE, ALTER, DROP, GRANT, VACUUM and other utility statements.
    Utility,
    /// Calls a function that is volatile, unknown, or depends on the server or session.
    Function,
    /// Uses a relation that is unsafe on a standby (unlogged, a view over a volatile function, row security).
    Relation,
    /// Uses an operator or a cast that reaches a volatile function.
    Operator,
    /// Reads system catalogs or server statistics, which belong to the primary.
    Catalog,
    /// No catalog has been loaded for this database yet.
    CatalogMissing,
    /// Names a job table, schema, function, type, index or sequence.
    JobObject,
    /// LISTEN, UNLISTEN, NOTIFY or pg_notify on a job channel.
    JobChannel,
    /// A job object is named inside a literal, where that decides (casts to regclass, catalog probes, DO blocks).
    JobLiteral,
    /// A bound value names a job object or channel.
    JobValue,
    /// Transaction control, SET, SHOW and the like: names no object.
    NoObject,
    /// A hint in the first comment.
    Hint,
    /// Longer than the limit for classification.
    TooLong,
    /// Not valid UTF-8, or the grammar refuses it (perhaps newer syntax).
    Unparsed,
    /// The session reads string literals in the old way (`standard_conforming_strings = off`).
    OldStrings,
    /// An empty query.
    Empty,
    /// The fast-path function call message.
    FunctionCall,
    /// Judged to be a read, and refused by a replica because it writes.
    Refused,
}

/// What a text that is exactly one statement does to the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Control {
    /// Nothing.
    None,
    /// BEGIN or START TRANSACTION, which may be deferred.
    Begin {
        /// Whether it may write.
        access: AccessMode,
        /// `ISOLATION LEVEL SERIALIZABLE` was asked for: not possible on a standby.
        serializable: bool,
    },
    /// COMMIT or END, without CHAIN.
    Commit,
    /// ROLLBACK or ABORT, without CHAIN.
    Rollback,
    /// SAVEPOINT, SET LOCAL, SET TRANSACTION, SET CONSTRAINTS: may be kept back until the transaction is opened.
    Prologue,
    /// Other transaction control (RELEASE, ROLLBACK TO, CHAIN, PREPARE TRANSACTION), or several statements
    /// with transaction control among them.
    Other,
}

/// The access mode that BEGIN asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AccessMode {
    /// Nothing: `default_transaction_read_only` decides.
    Default,
    /// `READ ONLY`.
    ReadOnly,
    /// `READ WRITE`.
    ReadWrite,
}

impl Control {
    /// Whether it begins a transaction that a standby can run, where `reads_by_default` is the session's default.
    pub fn begins_on_standby(self, reads_by_default: bool) -> bool {
        match self {
            Self::Begin { serializable: false, access: AccessMode::ReadOnly } => true,
            Self::Begin { serializable: false, access: AccessMode::Default } => reads_by_default,
            _ => false,
        }
    }

    /// Of several statements that come in one request.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        if self == Self::None && other == Self::None { Self::None } else { Self::Other }
    }
}

/// What a text may do to the state of the session, as bit flags.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Effects(u64);

macro_rules! effects {
    ($($(#[$doc:meta])* $name:ident = $bit:expr;)*) => {
        impl Effects {
            $($(#[$doc])* pub const $name: Self = Self(1 << $bit);)*
        }
        impl std::fmt::Debug for Effects {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let mut set = f.debug_set();
                $(if self.has(Self::$name) { set.entry(&format_args!(stringify!($name))); })*
                set.finish()
            }
        }
    };
}

effects! {
    /// May change session settings for longer than the transaction: SET, set_config(.., false), SET ROLE.
    SETS = 0;
    /// Returns settings to their defaults: RESET, SET .. TO DEFAULT, DISCARD ALL.
    RESETS = 1;
    /// Creates temporary objects (tables, views, sequences; also via `pg_temp`, SELECT INTO TEMP).
    TEMP = 2;
    /// Takes session-level advisory locks.
    LOCKS = 3;
    /// LISTEN.
    LISTENS = 4;
    /// SQL-level PREPARE.
    PREPARES = 5;
    /// DECLARE .. WITH HOLD.
    HOLDS_CURSOR = 6;
    /// LOAD, or a function of a library that keeps state: `dblink_connect`, one in C that is no extension's.
    LOADS = 7;
    /// DO, CALL, or a volatile function that is not built in: may have done any of the above.
    OPAQUE = 8;
    /// As OPAQUE, and it may set parameters that the server does not list and whose names stand nowhere.
    OPAQUE_SETTINGS = 9;
    /// May have ended state that pins: DROP, unlock, UNLISTEN, DEALLOCATE, CLOSE, DISCARD.
    ENDS_STATE = 10;
    /// DEALLOCATE, as the only statement of the text.
    DEALLOCATES = 11;
    /// DISCARD ALL, DEALLOCATE ALL: the backend's prepared statements are gone.
    DISCARDS = 12;
    /// Changes definitions: the catalog snapshot is to be refreshed.
    DDL = 13;
    /// The class depends on a bound value: `pg_notify($1, ..)`, `to_regclass($1)`, `relname = $1`.
    BIND_DECIDES = 14;
    /// Contains COPY FROM STDIN.
    COPY_IN = 15;
    /// Names job objects and application objects in one text.
    MIXED = 16;
    /// NOTIFY or pg_notify.
    NOTIFIES = 17;
    /// Sets a parameter whose name has a dot, or `role` or `session_authorization`, or one whose name is computed.
    SETS_UNLISTED = 18;
    /// Calls `pg_listening_channels()`, which the server answers for its own session only.
    ASKS_CHANNELS = 19;
    /// Calls `pg_backend_pid`.
    ASKS_BACKEND = 20;
    /// Names relations that are neither job objects nor system catalogs.
    APP_OBJECTS = 21;
    /// Calls `currval` or `lastval`, which the backend remembers.
    ASKS_SEQUENCES = 22;
    /// `setseed`: the backend goes on from there.
    SEEDS = 23;
    /// DISCARD SEQUENCES, DISCARD ALL: the backend remembers nothing of sequences.
    DISCARDS_SEQUENCES = 24;
    /// DROP DATABASE and the like: refused as long as anybody is connected to the database.
    WANTS_DATABASE = 26;
    /// DROP: what is known of the remaining definitions still holds.
    DROPS = 27;
    /// No verdict has it: a session that asks for `currval` or `lastval` marks what may have called `nextval`.
    CALLS_SEQUENCES = 25;
    /// UNLISTEN, DISCARD ALL.
    UNLISTENS = 28;
    /// Calls what the catalog snapshot does not know: whether that hides settings the server is asked afterwards.
    UNSURE = 29;
    /// Names a prepared statement: EXECUTE, PREPARE, DEALLOCATE, also within EXPLAIN and CREATE TABLE AS.
    NAMES_STATEMENT = 30;
    /// ALTER ROLE .. SET, ALTER DATABASE .. SET: connections have these settings from their beginning.
    CHANGES_DEFAULTS = 31;
    /// Nothing proves that the text leaves no more on its backend than what the session carries: the backend is reset
    /// before another session gets it.
    UNPROVEN = 32;
    /// A bound value is the name of a setting: [`Effects::names_setting`] says which. Proven only if it is one that is
    /// carried ([`is_carried_name`](super::is_carried_name)).
    BOUND_SETTING = 33;
    /// Makes tables, indexes, sequences and schemas that run no code: what is known of everything else goes on to hold. If
    /// anything in the transaction is not proven, it is as DDL.
    ADDS = 51;
    /// Uses job objects for something else than to add jobs that are relayed, or to notify of them: only the job database
    /// can run it.
    JOB_SIDE = 52;
    /// A job statement that is not proven to only read.
    JOB_WRITES = 53;
    /// Defines job objects, in statements or in a DO block.
    JOB_DDL = 54;
    /// Sets a savepoint.
    SAVEPOINT = 55;
    /// Gives up or returns to a savepoint, and does nothing else.
    WITHIN = 56;
    /// Adds jobs that are relayed.
    JOB_ADDS = 57;
    /// Concerns advisory locks of any kind, which those who are on the primary are to meet.
    ADVISORY = 58;
    /// Changes what texts mean until the end of the transaction: SET LOCAL, `set_config(.., true)`, a temporary table
    /// that goes with it.
    LOCAL = 50;
}

/// What may change rows of tables that are not named, or what a name means.
const CHANGES_ANYTHING: Effects = Effects::UNPROVEN
    .with(Effects::DDL)
    .with(Effects::OPAQUE_SETTINGS)
    .with(Effects::UNSURE)
    .with(Effects::WANTS_DATABASE)
    .with(Effects::CHANGES_DEFAULTS);

/// The first bit of sixteen, one for each parameter that may be the name of a setting.
const SETTING_PARAMETERS: u32 = 34;

impl Effects {
    /// No effect.
    pub const NONE: Self = Self(0);

    /// `set_config($n, ..)`, counted from zero; not proven if it is beyond what is counted.
    pub(super) fn bound_setting(parameter: usize) -> Self {
        match u32::try_from(parameter) {
            Ok(parameter) if parameter < 16 => {
                Self::BOUND_SETTING.with(Self(1 << (SETTING_PARAMETERS + parameter)))
            }
            _ => Self::UNPROVEN,
        }
    }

    /// Whether the value of this parameter, counted from zero, is the name of a setting.
    pub const fn names_setting(self, parameter: usize) -> bool {
        parameter < 16 && self.0 & (1 << (SETTING_PARAMETERS as usize + parameter)) != 0
    }

    /// These flags, for tests of what is decided by any of them.
    #[cfg(test)]
    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Whether any flag of `other` is set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Both sets of flags.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The flags of `self` that are not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl std::ops::BitOrAssign for Effects {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// A target asked for by a comment or a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hint {
    /// `route=primary`.
    Primary,
    /// `route=read`.
    Read,
    /// `route=job`.
    Job,
    /// `route=<pool>`: the position of the pool in [`Rules::pools`](super::Rules).
    Pool(u8),
}

/// What classification says of one SQL text: small, copied, cached; never a syntax tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The class.
    pub class: Class,
    /// Why.
    pub reason: Reason,
    /// Transaction control.
    pub control: Control,
    /// Effects on session state.
    pub effects: Effects,
    /// A hint overrides the class.
    pub hint: Option<Hint>,
    /// A hint overrides how fresh a replica must be.
    pub consistency: Option<Consistency>,
    /// A tag in a comment says that a worker sends it.
    pub is_worker: bool,
    /// Of a read the tables that it reads; of anything else those that it may change, and read. See
    /// [`Verdict::changes`].
    pub tables: Tables,
    /// Which text it is of, for statistics.
    pub text: TextId,
}

impl Class {
    /// Every class, weakest first.
    pub const ALL: [Self; 4] = [Self::Neutral, Self::Read, Self::Write, Self::Job];

    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Neutral => "neutral",
            Self::Read => "read",
            Self::Write => "write",
            Self::Job => "job",
        }
    }
}

macro_rules! reasons {
    ($($reason:ident: $label:literal, $words:literal;)*) => {
        impl Reason {
            /// Every reason, in the order of their discriminants.
            pub const ALL: &'static [Self] = &[$(Self::$reason),*];

            /// The metric label.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$reason => $label,)*
                }
            }

            /// For people: completes "because ..".
            pub const fn words(self) -> &'static str {
                match self {
                    $(Self::$reason => $words,)*
                }
            }
        }
    };
}

reasons! {
    ReadOnly: "read_only", "nothing in it can write or depends on the server it runs on";
    Modifies: "modifies", "it modifies rows";
    RowLocks: "row_locks", "it locks rows";
    Utility: "utility", "it is a utility statement";
    Function: "function", "it calls a function that is volatile, unknown, or depends on the server or session";
    Relation: "relation", "it uses a relation that a standby cannot answer for";
    Operator: "operator", "it uses an operator or a type that reaches a volatile function";
    Catalog: "catalog", "it reads system catalogs or server statistics";
    CatalogMissing: "catalog_missing", "the catalog of this database has not been read yet";
    JobObject: "job_object", "it names a job object";
    JobChannel: "job_channel", "it names a job channel";
    JobLiteral: "job_literal", "a literal in it names a job object";
    JobValue: "job_value", "a bound value names a job object or channel";
    NoObject: "no_object", "it names no object";
    Hint: "hint", "a hint says so";
    TooLong: "too_long", "it is too long to be classified";
    Unparsed: "unparsed", "the grammar refuses it";
    OldStrings: "old_strings", "standard_conforming_strings is off";
    Empty: "empty", "it is empty";
    FunctionCall: "function_call", "it is a fast-path function call";
    Refused: "refused", "a replica has refused to run it";
}

impl Verdict {
    /// A verdict without effects.
    pub const fn new(class: Class, reason: Reason) -> Self {
        Self {
            class,
            reason,
            control: Control::None,
            effects: Effects::NONE,
            hint: None,
            consistency: None,
            is_worker: false,
            tables: Tables::NONE,
            text: TextId::NONE,
        }
    }

    /// The tables whose rows it may change.
    pub fn changes(&self) -> Tables {
        if self.class == Class::Read {
            return Tables::NONE;
        }
        if self.effects.has(CHANGES_ANYTHING) { Tables::ALL } else { self.tables }
    }

    /// The tables that it reads.
    pub fn reads(&self) -> Tables {
        let is_known = self.class == Class::Read && !self.effects.has(Effects::UNPROVEN);
        if is_known { self.tables } else { Tables::ALL }
    }

    /// The tables of both, where they are texts of one request: what only reads counts as long as nothing writes.
    pub fn tables_with(&self, other: &Self) -> Tables {
        match (self.class >= Class::Write, other.class >= Class::Write) {
            (true, false) => self.tables,
            (false, true) => other.tables,
            _ => self.tables.with(other.tables),
        }
    }

    /// The effects that a job statement has, beyond both's own, where it is said with another one: a write that names no table
    /// may be anything.
    pub fn beside_jobs(&self, other: &Self) -> Effects {
        let write = match (self.class, other.class) {
            (Class::Job, Class::Write) => other,
            (Class::Write, Class::Job) => self,
            _ => return Effects::NONE,
        };
        let is_told_apart = write.effects.has(Effects::APP_OBJECTS);
        if is_told_apart { Effects::NONE } else { Effects::JOB_SIDE.with(Effects::JOB_WRITES) }
    }

    /// Whether it may call `nextval`, also in a default, a trigger or a function.
    pub fn may_call_nextval(&self) -> bool {
        self.class >= Class::Write
            && !matches!(self.reason, Reason::Catalog | Reason::RowLocks | Reason::JobChannel)
    }

    /// Whether the text was not read: its effects are what it may do at worst.
    pub const fn is_unread(&self) -> bool {
        matches!(self.reason, Reason::Unparsed | Reason::TooLong | Reason::OldStrings)
    }

    /// The same, not proven to leave nothing.
    #[must_use]
    pub const fn unproven(self) -> Self {
        Self { effects: self.effects.with(Effects::UNPROVEN), ..self }
    }

    /// Of every text of a session that reads string literals in the old way: what it does to the session's
    /// state is not known.
    pub const fn old_strings() -> Self {
        Self::unknown(Reason::OldStrings)
    }

    /// Of a text that was not read: it may do anything, as a DO block may.
    pub const fn unknown(reason: Reason) -> Self {
        let effects = Effects::OPAQUE.with(Effects::OPAQUE_SETTINGS).with(Effects::UNPROVEN);
        Self { effects, ..Self::new(Class::Write, reason) }
    }

    /// Of a text that is too long to be read: whatever it leaves, the server is asked for. What it cannot be asked
    /// for is looked for apart (`HiddenSearch`).
    pub const fn too_long() -> Self {
        Self { effects: Effects::OPAQUE.with(Effects::UNPROVEN), ..Self::new(Class::Write, Reason::TooLong) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_distinct() {
        let labels: std::collections::HashSet<_> = Reason::ALL.iter().map(|reason| reason.label()).collect();
        assert_eq!(labels.len(), Reason::ALL.len());
        assert!(std::mem::size_of::<Verdict>() <= 40);
    }
}
