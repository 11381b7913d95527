//! Asking the server itself what a session has left on its backend: settings and state that cannot be moved.

use std::fmt::Write as _;

use super::{
    Backend, Broken,
    query::Answer,
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

/// State that a DISCARD ALL would end, one row a kind. The session's search path may name operators of anybody's.
const STATE: &str = "\
SELECT 'temp' AS k, NULL AS n, NULL AS v WHERE EXISTS (SELECT FROM pg_catalog.pg_depend \
 WHERE refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass::pg_catalog.oid \
 AND refobjid OPERATOR(pg_catalog.=) NULLIF(pg_catalog.pg_my_temp_schema(), 0::pg_catalog.oid)) \
UNION ALL SELECT 'lock', NULL, NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_locks \
 WHERE locktype OPERATOR(pg_catalog.=) 'advisory'::pg_catalog.text \
 AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()) \
UNION ALL SELECT 'prepared', NULL, NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE from_sql) \
UNION ALL SELECT 'cursor', NULL, NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable) \
UNION ALL SELECT 'listen', NULL, NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_listening_channels())";

/// Settings whose value comes from the session. Roles are not in `pg_settings`. Those of a transaction are still said
/// to come from the session when the transaction is over.
const SETTINGS: &str = " \
UNION ALL SELECT 'set', name, setting FROM pg_catalog.pg_settings \
 WHERE source OPERATOR(pg_catalog.=) 'session'::pg_catalog.text \
 AND name OPERATOR(pg_catalog.<>) ALL (\
 '{exit_on_error,transaction_isolation,transaction_read_only,transaction_deferrable}'::pg_catalog.text[]) \
UNION ALL SELECT 'set', 'role', pg_catalog.current_setting('role') \
 WHERE pg_catalog.current_setting('role') OPERATOR(pg_catalog.<>) 'none'::pg_catalog.text \
UNION ALL SELECT 'set', 'session_authorization', session_user::pg_catalog.text \
 WHERE session_user::pg_catalog.text OPERATOR(pg_catalog.<>) ";

/// Settings of a session that may keep the server from answering, and the values by which it answers.
const OBSTACLES: [(&str, &str); 3] = [("statement_timeout", "0"), ("lock_timeout", "0"), ("role", "none")];

/// Questions are asked again so often while a timeout of the session's own may end them.
const ATTEMPTS: usize = 5;

impl Backend {
    /// Asks the server what the session has left. With `settings`, also for settings. The server does not list those
    /// with a dot in their name: `custom` names the session's own, `others` what functions may have set. One that was
    /// ever set is never forgotten: after RESET or a rollback it is empty, where another one is an error.
    pub async fn probe(
        &mut self,
        settings: bool,
        custom: &[String],
        others: &[String],
    ) -> Result<Residue, Broken> {
        let (answer, own) = self.ask_unhindered(&self.question(settings, custom, others)).await?;
        let for_client = answer.for_client;
        if let Some(error) = &answer.error {
            tracing::debug!(%error, "what a session has left on its backend cannot be asked for");
            return Ok(Residue { pin: Some(PinReason::Unknown), settings: None, for_client });
        }
        let mut residue = Residue { for_client, ..Residue::default() };
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
        found.extend(own.into_iter().filter(|(name, value)| name != "role" || value != "none"));
        residue.settings = settings.then(|| Settings::new(found));
        Ok(residue)
    }

    /// Asks what the session's own settings may keep the server from answering (a timeout, a role that may not read
    /// what is asked): they are put out of the way, if need be, and back. Gives them if they were: from then on they
    /// count as set by the session.
    pub async fn ask_unhindered(&mut self, sql: &str) -> Result<(Answer, Vec<(String, String)>), Broken> {
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

    fn question(&self, settings: bool, custom: &[String], others: &[String]) -> String {
        let mut sql = String::from(STATE);
        if settings {
            sql.push_str(SETTINGS);
            sql.push_str(&quote_literal(self.server.login(&self.identity, &self.credentials).user));
            sql.push_str("::pg_catalog.text");
            let known = custom.iter().map(|name| (name, "IS NOT NULL"));
            // Empty, it may be what another session has left of it.
            let others = others.iter().map(|name| (name, "OPERATOR(pg_catalog.<>) ''::pg_catalog.text"));
            for (name, is_set) in known.chain(others) {
                let name = quote_literal(name);
                let _ = write!(
                    sql,
                    " UNION ALL SELECT 'set', {name}, pg_catalog.current_setting({name}, true) \
                     WHERE pg_catalog.current_setting({name}, true) {is_set}"
                );
            }
        }
        sql
    }

    /// Puts settings of the session out of the way, and gives their values; `None` if the server does not let us.
    async fn clear_obstacles(&mut self) -> Result<Option<Vec<(String, String)>>, Broken> {
        let current = OBSTACLES.map(|(name, _)| format!("pg_catalog.current_setting('{name}')"));
        let clear = OBSTACLES.map(|(name, value)| set_config(name, value));
        let Some(rows) = self.ask_again(&format!("SELECT {}", current.join(","))).await? else {
            return Ok(None);
        };
        let values = rows.into_iter().flatten().map(Option::unwrap_or_default);
        let values: Vec<_> = OBSTACLES.map(|(name, _)| name.to_owned()).into_iter().zip(values).collect();
        Ok(self.ask_again(&format!("SELECT {}", clear.join(","))).await?.map(|_| values))
    }

    /// The session has its own settings back; a backend that does not take them is of no use.
    async fn restore_obstacles(&mut self, values: &[(String, String)]) -> Result<(), Broken> {
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

fn set_config(name: &str, value: &str) -> String {
    format!("pg_catalog.set_config('{name}',{}, false)", quote_literal(value))
}
