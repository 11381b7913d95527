//! Asking the server itself what a session has left on its backend: settings and state that cannot be moved.

use std::fmt::Write as _;

use super::{
    Backend, Broken,
    query::Answer,
    settings::{Settings, quote_value, unhex},
};
use crate::sql::quote_literal;

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
    /// The settings are larger than what is carried of one session.
    LargeSettings,
    /// A replication connection.
    Replication,
}

impl PinReason {
    /// Every reason, in the order of their discriminants.
    pub const ALL: [Self; 14] = [
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
        Self::LargeSettings,
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
            Self::LargeSettings => "large_settings",
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

/// State that a session has left on its backend.
#[derive(Debug, Default)]
pub struct Residue {
    /// The first kind of state found that cannot be moved.
    pub pin: Option<PinReason>,
    /// All settings in force that the session (or we for it) set; only if they were asked for.
    pub settings: Option<Settings>,
    /// More are there than are read.
    pub is_large: bool,
    /// Bytes for the client that arrived meanwhile.
    pub for_client: Vec<u8>,
}

/// State that a DISCARD ALL would end, one row a kind. The session's search path may name operators of anybody's.
const STATE: &str = "\
SELECT 'temp' AS k, NULL AS n, NULL AS v WHERE EXISTS (SELECT FROM pg_catalog.pg_depend \
 WHERE refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass::pg_catalog.oid \
 AND refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema() \
 AND refobjid OPERATOR(pg_catalog.<>) 0::pg_catalog.oid) \
UNION ALL SELECT 'lock', NULL, NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_locks \
 WHERE locktype OPERATOR(pg_catalog.=) 'advisory'::pg_catalog.text \
 AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()) \
UNION ALL SELECT 'prepared', NULL, NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE from_sql) \
UNION ALL SELECT 'cursor', NULL, NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable) \
UNION ALL SELECT 'listen', NULL, NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_listening_channels())";

/// Settings whose value comes from the session. Those of a transaction are still said to come from the session when the
/// transaction is over.
const IS_SET: &str = "\
source OPERATOR(pg_catalog.=) 'session'::pg_catalog.text AND name OPERATOR(pg_catalog.<>) ALL (\
 '{transaction_isolation,transaction_read_only,transaction_deferrable}'::pg_catalog.text[])";

/// What of a session's settings is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The session's own settings with a dot in their name: the server does not list them.
    pub custom: &'a [String],
    /// The ones that functions may have set.
    pub others: &'a [String],
    /// Names and values of more bytes than this in all are not read.
    pub bytes_max: usize,
}

/// Settings of a session that may keep the server from answering, and the values by which it answers.
const OBSTACLES: [(&str, &str); 3] = [("statement_timeout", "0"), ("lock_timeout", "0"), ("role", "none")];

/// Questions are asked again so often while a timeout of the session's own may end them.
const ATTEMPTS: usize = 5;

impl Backend {
    /// Asks the server what the session has left; for settings, if they are `asked` for. One with a dot in its name that
    /// was ever set is never forgotten: after RESET or a rollback it is empty, where another one is an error.
    pub async fn probe(&mut self, asked: Option<Asked<'_>>) -> Result<Residue, Broken> {
        let (answer, own) = self.ask_unhindered(&self.question(asked)).await?;
        let for_client = answer.for_client;
        if let Some(error) = &answer.error {
            tracing::debug!(%error, "what a session has left on its backend cannot be asked for");
            return Ok(Residue { pin: Some(PinReason::Unknown), for_client, ..Residue::default() });
        }
        let mut residue = Residue { for_client, ..Residue::default() };
        let mut found = Vec::new();
        let mut is_large = false;
        for row in answer.rows {
            let mut columns = row.into_iter();
            let kind = columns.next().flatten().unwrap_or_default();
            if kind != "set" {
                residue.pin = residue.pin.or(PinReason::from_row(&kind));
                continue;
            }
            let name = columns.next().flatten().unwrap_or_default();
            match columns.next().flatten() {
                Some(digits) => {
                    let value =
                        unhex(&digits).ok_or_else(|| self.nonsense(&"a setting is not in hexadecimal"))?;
                    found.push((name, value));
                }
                None => is_large = true,
            }
        }
        found.extend(own.into_iter().filter(|(name, value)| name != "role" || value != b"none"));
        residue.settings = asked.map(|asked| {
            let settings = Settings::new(found);
            is_large |= settings.size() > asked.bytes_max;
            settings
        });
        residue.is_large = is_large;
        if is_large {
            residue.pin = residue.pin.or(Some(PinReason::LargeSettings));
        }
        Ok(residue)
    }

    /// Asks what the session's own settings may keep the server from answering (a timeout, a role that may not read
    /// what is asked): they are put out of the way, if need be, and back. Gives them if they were: from then on they
    /// count as set by the session.
    pub async fn ask_unhindered(&mut self, sql: &str) -> Result<(Answer, Vec<(String, Vec<u8>)>), Broken> {
        let mut answer = self.ask(sql).await?;
        if answer.error.is_none() {
            return Ok((answer, Vec::new()));
        }
        let Some(values) = self.clear_obstacles().await? else { return Ok((answer, Vec::new())) };
        let for_client = std::mem::take(&mut answer.for_client);
        answer = self.ask(sql).await?;
        answer.for_client.splice(0..0, for_client);
        self.restore_obstacles(&values).await?;
        Ok((answer, values))
    }

    fn question(&self, asked: Option<Asked<'_>>) -> String {
        let mut sql = String::from(STATE);
        let Some(Asked { custom, others, bytes_max }) = asked else { return sql };
        let _ = write!(
            sql,
            " UNION ALL SELECT 'set', name, {} FROM pg_catalog.pg_settings WHERE {IS_SET}",
            digits("setting", bytes_max)
        );
        let user = quote_literal(self.server.login(&self.identity, &self.credentials).user);
        let current = |name: &str| format!("pg_catalog.current_setting({}, true)", quote_literal(name));
        let mut named = |name: &str, value: &str, condition: &str| {
            let (name, shown) = (quote_literal(name), digits(value, bytes_max));
            let _ = write!(sql, " UNION ALL SELECT 'set', {name}, {shown} WHERE {value} {condition}");
        };
        // Roles are not in `pg_settings`.
        named("role", &current("role"), "OPERATOR(pg_catalog.<>) 'none'::pg_catalog.text");
        let other_user = format!("OPERATOR(pg_catalog.<>) {user}::pg_catalog.text");
        named("session_authorization", "session_user::pg_catalog.text", &other_user);
        for name in custom {
            named(name, &current(name), "IS NOT NULL");
        }
        // Empty, it may be what another session has left of it.
        let is_some = "OPERATOR(pg_catalog.<>) ''::pg_catalog.text";
        for name in others {
            named(name, &current(name), is_some);
        }
        sql
    }

    /// Puts settings of the session out of the way, and gives their values; `None` if the server does not let us.
    async fn clear_obstacles(&mut self) -> Result<Option<Vec<(String, Vec<u8>)>>, Broken> {
        let current = |name| digits(&format!("pg_catalog.current_setting('{name}')"), i32::MAX as usize);
        let current = OBSTACLES.map(|(name, _)| current(name));
        let clear = OBSTACLES.map(|(name, value)| set_config(name, value.as_bytes()));
        let Some(rows) = self.ask_again(&format!("SELECT {}", current.join(","))).await? else {
            return Ok(None);
        };
        let values: Option<Vec<_>> =
            rows.into_iter().flatten().map(|value| value.as_deref().and_then(unhex)).collect();
        let values = values.ok_or_else(|| self.nonsense(&"a setting is not in hexadecimal"))?;
        let values: Vec<_> = OBSTACLES.map(|(name, _)| name.to_owned()).into_iter().zip(values).collect();
        Ok(self.ask_again(&format!("SELECT {}", clear.join(","))).await?.map(|_| values))
    }

    /// The session has its own settings back; a backend that does not take them is of no use.
    async fn restore_obstacles(&mut self, values: &[(String, Vec<u8>)]) -> Result<(), Broken> {
        let restore: Vec<String> = values.iter().map(|(name, value)| set_config(name, value)).collect();
        match self.ask_again(&format!("SELECT {}", restore.join(","))).await? {
            Some(_) => Ok(()),
            None => Err(self.nonsense(&"it does not take a session's own settings back")),
        }
    }

    /// The rows of a short question, or `None` for an error.
    async fn ask_again(&mut self, sql: &str) -> Result<Option<Vec<Vec<Option<String>>>>, Broken> {
        for _ in 0..ATTEMPTS {
            let answer = self.ask(sql).await?;
            if answer.error.is_none() {
                return Ok(Some(answer.rows));
            }
        }
        Ok(None)
    }
}

fn set_config(name: &str, value: &[u8]) -> String {
    format!("pg_catalog.set_config('{name}',{}, false)", quote_value(value))
}

/// An expression for the hexadecimal digits of a text in the encoding of the database; NULL if it is longer than that.
fn digits(text: &str, bytes_max: usize) -> String {
    format!(
        "CASE WHEN pg_catalog.octet_length({text}) OPERATOR(pg_catalog.<=) {bytes_max}::pg_catalog.int8 \
         THEN pg_catalog.encode(pg_catalog.convert_to({text}, pg_catalog.getdatabaseencoding()), 'hex') END"
    )
}
