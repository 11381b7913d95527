//! Asking the server itself what a session has left on its backend: settings and state that cannot be moved.

use std::fmt::Write as _;

use super::{
    Backend, Broken,
    settings::{Settings, quote_literal},
};

/// State that ties a session to its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PinReason {
    /// Temporary tables, views, functions or types.
    TempObjects,
    /// Session-level advisory locks.
    AdvisoryLocks,
    /// SQL-level prepared statements.
    PreparedStatements,
    /// Cursors WITH HOLD.
    HeldCursors,
    /// LISTEN.
    Listen,
    /// A library was loaded, or one that keeps state was called.
    Load,
    /// `currval` and `lastval`, for a session that asks for them.
    Sequences,
    /// `setseed`.
    Seed,
    /// A function or DO block may have set parameters that the server does not list.
    HiddenSettings,
    /// The server could not be asked.
    Unknown,
    /// The session keeps its backend because its pool, or it itself, is in session mode.
    SessionMode,
    /// The unnamed prepared statement is too long to be kept here.
    UnnamedStatement,
    /// A replication connection.
    Replication,
}

impl PinReason {
    /// Every reason, in the order of their discriminants.
    pub const ALL: [Self; 13] = [
        Self::TempObjects,
        Self::AdvisoryLocks,
        Self::PreparedStatements,
        Self::HeldCursors,
        Self::Listen,
        Self::Load,
        Self::Sequences,
        Self::Seed,
        Self::HiddenSettings,
        Self::Unknown,
        Self::SessionMode,
        Self::UnnamedStatement,
        Self::Replication,
    ];

    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::TempObjects => "temp_objects",
            Self::AdvisoryLocks => "advisory_locks",
            Self::PreparedStatements => "prepared_statements",
            Self::HeldCursors => "held_cursors",
            Self::Listen => "listen",
            Self::Load => "load",
            Self::Sequences => "sequences",
            Self::Seed => "seed",
            Self::HiddenSettings => "hidden_settings",
            Self::Unknown => "unknown",
            Self::SessionMode => "session_mode",
            Self::UnnamedStatement => "unnamed_statement",
            Self::Replication => "replication",
        }
    }

    /// Whether the server cannot be asked for it.
    pub const fn is_lasting(self) -> bool {
        matches!(self, Self::Load | Self::Sequences | Self::Seed | Self::HiddenSettings)
    }

    fn from_row(kind: &str) -> Option<Self> {
        match kind {
            "temp" => Some(Self::TempObjects),
            "lock" => Some(Self::AdvisoryLocks),
            "prepared" => Some(Self::PreparedStatements),
            "cursor" => Some(Self::HeldCursors),
            "listen" => Some(Self::Listen),
            _ => None,
        }
    }
}

/// What a session has left on its backend.
#[derive(Debug, Default)]
pub struct Residue {
    /// The first kind of state found that cannot be moved.
    pub pin: Option<PinReason>,
    /// All settings in force that the session (or we for it) set; only if they were asked for.
    pub settings: Option<Settings>,
    /// Bytes for the client that arrived meanwhile.
    pub for_client: Vec<u8>,
}

/// State that a DISCARD ALL would end, one row a kind.
const STATE: &str = "\
SELECT 'temp' AS k, NULL AS n, NULL AS v WHERE pg_catalog.pg_my_temp_schema() <> 0 AND \
 EXISTS (SELECT FROM pg_catalog.pg_depend WHERE refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass \
 AND refobjid = pg_catalog.pg_my_temp_schema()) \
UNION ALL SELECT 'lock', NULL, NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_locks \
 WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid()) \
UNION ALL SELECT 'prepared', NULL, NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE from_sql) \
UNION ALL SELECT 'cursor', NULL, NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable) \
UNION ALL SELECT 'listen', NULL, NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_listening_channels())";

/// Settings whose value comes from the session. Roles are not in `pg_settings`.
const SETTINGS: &str = " \
UNION ALL SELECT 'set', name, setting FROM pg_catalog.pg_settings \
 WHERE source = 'session' AND name <> 'exit_on_error' \
UNION ALL SELECT 'set', 'role', pg_catalog.current_setting('role') \
 WHERE pg_catalog.current_setting('role') <> 'none' \
UNION ALL SELECT 'set', 'session_authorization', session_user WHERE session_user <> ";

impl Backend {
    /// Asks the server what the session has left. With `settings`, also for settings; `custom` names those with
    /// a dot that the session may have set, which the server does not list. Such a setting is never forgotten: after
    /// RESET or a rollback it is empty, where one that was never set is an error.
    pub async fn probe(&mut self, settings: bool, custom: &[String]) -> Result<Residue, Broken> {
        let mut sql = String::from(STATE);
        if settings {
            sql.push_str(SETTINGS);
            sql.push_str(&quote_literal(self.server.login(&self.identity, &self.credentials).user));
            for name in custom {
                let name = quote_literal(name);
                let _ = write!(
                    sql,
                    " UNION ALL SELECT 'set', {name}, pg_catalog.current_setting({name}, true) \
                     WHERE pg_catalog.current_setting({name}, true) IS NOT NULL"
                );
            }
        }
        let answer = self.ask(&sql).await?;
        if answer.error.is_some() {
            let pin = Some(PinReason::Unknown);
            return Ok(Residue { pin, settings: None, for_client: answer.for_client });
        }
        let mut residue = Residue { for_client: answer.for_client, ..Residue::default() };
        let mut found = Vec::new();
        for row in answer.rows {
            let mut columns = row.into_iter().map(Option::unwrap_or_default);
            let kind = columns.next().unwrap_or_default();
            if kind == "set" {
                found.push((columns.next().unwrap_or_default(), columns.next().unwrap_or_default()));
            } else {
                residue.pin = residue.pin.or(PinReason::from_row(&kind));
            }
        }
        residue.settings = settings.then(|| Settings::new(found));
        Ok(residue)
    }
}
