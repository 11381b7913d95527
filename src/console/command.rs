//! Commands, and how a statement's words become one.

use super::{
    lexer::{Statement, Word},
    reply,
    show::Show,
};
use crate::{session::reply::Reply, shared::orders::End};

/// A command of the console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Show(Show),
    /// A setting of a session of PostgreSQL's, which means nothing here: what connection libraries send by themselves.
    Ignored {
        tag: &'static str,
    },
    Begin,
    Commit,
    Rollback,
    Set {
        key: String,
        value: String,
    },
    Reload,
    Pause(Option<String>),
    Resume(Option<String>),
    Reconnect(Option<String>),
    Kill(Option<String>),
    WaitClose(Option<String>),
    Disable(String),
    Enable(String),
    KillClient(String),
    ResetQueries,
    Shutdown(End),
}

/// Settings of PostgreSQL's sessions that may be set here without anything happening.
const IGNORED_SETTINGS: [&str; 17] = [
    "application_name",
    "bytea_output",
    "client_encoding",
    "client_min_messages",
    "datestyle",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "extra_float_digits",
    "idle_in_transaction_session_timeout",
    "intervalstyle",
    "lock_timeout",
    "names",
    "search_path",
    "standard_conforming_strings",
    "statement_timeout",
    "timezone",
    "transaction_timeout",
];

/// Words that begin statements which mean nothing here: what connection pools send to leave nothing behind.
const IGNORED: [(&str, &str); 7] = [
    ("deallocate", "DEALLOCATE"),
    ("discard", "DISCARD"),
    ("reset", "RESET"),
    ("unlisten", "UNLISTEN"),
    ("close", "CLOSE CURSOR"),
    ("savepoint", "SAVEPOINT"),
    ("release", "RELEASE"),
];

impl Command {
    /// The command that a statement is.
    pub(super) fn of(statement: &Statement) -> Result<Self, Reply> {
        let unknown = || reply::unknown_command(&statement.text);
        let (first, rest) = statement.words.split_first().ok_or_else(unknown)?;
        let keyword = if first.is_quoted { String::new() } else { first.text.to_ascii_lowercase() };
        if let ("reset", [queries]) = (keyword.as_str(), rest)
            && queries.is("queries")
        {
            return Ok(Self::ResetQueries);
        }
        if let Some((_, tag)) = IGNORED.iter().find(|(word, _)| *word == keyword) {
            return Ok(Self::Ignored { tag });
        }
        match keyword.as_str() {
            "show" => Show::named(rest).map(Self::Show).ok_or_else(unknown),
            "select" => select(rest).ok_or_else(unknown),
            "set" => set(rest).ok_or_else(unknown),
            "begin" | "start" => Ok(Self::Begin),
            "commit" | "end" => Ok(Self::Commit),
            // Nothing can be undone: ROLLBACK TO ends nothing.
            "rollback" | "abort" if rest.iter().any(|word| word.is("to")) => {
                Ok(Self::Ignored { tag: "ROLLBACK" })
            }
            "rollback" | "abort" => Ok(Self::Rollback),
            "suspend" => Err(reply::not_supported(
                "SUSPEND is not supported: sockets are not handed over to another process",
                "PAUSE holds statements back; a restart by SHUTDOWN WAIT_FOR_CLIENTS lets clients leave by themselves.",
            )),
            _ => control(&keyword, rest).ok_or_else(unknown),
        }
    }

    /// The command's name, if it is for administrators only.
    pub(super) const fn for_admins(&self) -> Option<&'static str> {
        Some(match self {
            Self::Show(_) | Self::Ignored { .. } | Self::Begin | Self::Commit | Self::Rollback => {
                return None;
            }
            _ => self.tag(),
        })
    }

    /// The pool, key or client that it is about; nothing that may be a secret.
    pub(super) fn object(&self) -> &str {
        match self {
            Self::Pause(name)
            | Self::Resume(name)
            | Self::Reconnect(name)
            | Self::Kill(name)
            | Self::WaitClose(name) => name.as_deref().unwrap_or("all pools"),
            Self::Disable(name) | Self::Enable(name) => name,
            Self::KillClient(id) => id,
            Self::Set { key, .. } => key,
            _ => "",
        }
    }

    /// The command tag of its end.
    pub(super) const fn tag(&self) -> &'static str {
        match self {
            Self::Show(_) => "SHOW",
            Self::Ignored { tag } => tag,
            Self::Begin => "BEGIN",
            Self::Commit => "COMMIT",
            Self::Rollback => "ROLLBACK",
            Self::Set { .. } => "SET",
            Self::Reload => "RELOAD",
            Self::Pause(_) => "PAUSE",
            Self::Resume(_) => "RESUME",
            Self::Reconnect(_) => "RECONNECT",
            Self::Kill(_) => "KILL",
            Self::WaitClose(_) => "WAIT_CLOSE",
            Self::Disable(_) => "DISABLE",
            Self::Enable(_) => "ENABLE",
            Self::KillClient(_) => "KILL_CLIENT",
            Self::ResetQueries => "RESET",
            Self::Shutdown(_) => "SHUTDOWN",
        }
    }
}

/// Commands of one word, or of one and a name.
fn control(keyword: &str, rest: &[Word]) -> Option<Command> {
    let name = match rest {
        [] => None,
        [one] => Some(one.text.clone()),
        _ => return None,
    };
    Some(match keyword {
        "reload" if name.is_none() => Command::Reload,
        "pause" => Command::Pause(name),
        "resume" => Command::Resume(name),
        "reconnect" => Command::Reconnect(name),
        "kill" => Command::Kill(name),
        "wait_close" => Command::WaitClose(name),
        "disable" => Command::Disable(name?),
        "enable" => Command::Enable(name?),
        "kill_client" => Command::KillClient(name?),
        "shutdown" => Command::Shutdown(match name.map(|how| how.to_ascii_lowercase()).as_deref() {
            None => End::Now,
            Some("wait_for_servers") => End::Drained,
            Some("wait_for_clients") => End::Left,
            Some(_) => return None,
        }),
        _ => return None,
    })
}

/// The command of what connection libraries select to see whether somebody is there. In PgBouncer, SELECT is SHOW.
fn select(rest: &[Word]) -> Option<Command> {
    let texts: Vec<String> = rest.iter().map(|word| word.text.to_ascii_lowercase()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let show = match texts.as_slice() {
        ["1"] => Show::One,
        ["version" | "pg_catalog.version", "(", ")"] => Show::ServerVersion("version"),
        ["pg_advisory_unlock_all", "(", ")"] => return Some(Command::Ignored { tag: "SELECT 0" }),
        [_] => Show::named(rest)?,
        _ => return None,
    };
    Some(Command::Show(show))
}

fn set(rest: &[Word]) -> Option<Command> {
    let ignored = Some(Command::Ignored { tag: "SET" });
    let (first, behind) = rest.split_first()?;
    if first.is("transaction") || (first.is("time") && behind.first()?.is("zone")) {
        return ignored;
    }
    if first.is("session") && behind.first()?.is("characteristics") {
        return ignored;
    }
    if first.is("session") || first.is("local") {
        return set(behind);
    }
    if IGNORED_SETTINGS.iter().any(|name| first.text.eq_ignore_ascii_case(name)) {
        return ignored;
    }
    let (equals, value) = behind.split_first()?;
    if !(equals.is("=") || equals.is("to")) || value.is_empty() {
        return None;
    }
    // A list is written as in the file.
    let value = if let [one] = value {
        one.text.clone()
    } else {
        value
            .iter()
            .map(|word| if word.is_quoted { format!("{:?}", word.text) } else { word.text.clone() })
            .collect()
    };
    // As PostgreSQL and PgBouncer call it.
    let key = match first.text.to_ascii_lowercase().as_str() {
        "log_level" => "log.level".to_owned(),
        _ => first.text.clone(),
    };
    Some(Command::Set { key, value })
}

#[cfg(test)]
mod tests {
    use super::{super::lexer::statements, *};

    fn of(text: &str) -> Result<Command, String> {
        let statement = statements(text).expect("well formed").remove(0);
        Command::of(&statement).map_err(|reply| reply.code.to_string())
    }

    #[test]
    fn commands_are_read_as_pgbouncer_reads_them() {
        let set = |key: &str, value: &str| Command::Set { key: key.to_owned(), value: value.to_owned() };
        for (text, command) in [
            ("SHOW POOLS", Command::Show(Show::Pools)),
            ("show Servers Health", Command::Show(Show::Health)),
            ("select stats", Command::Show(Show::Stats)),
            ("SELECT 1", Command::Show(Show::One)),
            ("pause", Command::Pause(None)),
            ("PAUSE \"Jobs\"", Command::Pause(Some("Jobs".to_owned()))),
            ("shutdown wait_for_clients", Command::Shutdown(End::Left)),
            ("kill_client 17", Command::KillClient("17".to_owned())),
            ("SET extra_float_digits = 3", Command::Ignored { tag: "SET" }),
            ("SET TIME ZONE 'UTC'", Command::Ignored { tag: "SET" }),
            ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", Command::Ignored { tag: "SET" }),
            ("set limits.max_clients = 7", set("limits.max_clients", "7")),
            ("set pools.jobs.wait_timeout to '3s'", set("pools.jobs.wait_timeout", "3s")),
            ("set workers.users = ['a', 'b']", set("workers.users", "[\"a\",\"b\"]")),
            ("set log_level = 'debug'", set("log.level", "debug")),
            ("reset Queries", Command::ResetQueries),
            ("RESET ALL", Command::Ignored { tag: "RESET" }),
            ("BEGIN READ ONLY", Command::Begin),
            ("DISCARD ALL", Command::Ignored { tag: "DISCARD" }),
        ] {
            assert_eq!(of(text), Ok(command), "{text}");
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in [
            "SHOW nothing",
            "reload x",
            "disable",
            "shutdown now",
            "select x from y",
            "\"show\" pools",
            "set x",
        ] {
            assert_eq!(of(text), Err("42601".to_owned()), "{text}");
        }
        assert_eq!(of("suspend"), Err("0A000".to_owned()));
    }
}
