//! Every error and notice that Bulkhead itself tells clients: SQLSTATE, wording, hint.

use std::{
    borrow::Cow,
    ops::{Deref, DerefMut},
};

use crate::{
    backend::Broken,
    listen::ListenFailure,
    pool::{Figures, Refusal},
    sql::RenamedAway,
    types::Untold,
    wire::{
        message::{self, Report},
        read::ErrorFields,
    },
};

/// How types come to be the same.
const TYPES_HINT: &str = "Clients learn types from the primary: create the type there and on the job database under the same name; `bulkhead check --connect` compares them.";

/// An error for a client. Boxed: it is rare, and what may hold one is in the memory of every idle session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply(Box<Fields>);

/// The text of a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fields {
    /// SQLSTATE.
    pub(crate) code: Cow<'static, str>,
    /// The message.
    pub(crate) message: String,
    /// More about the cause.
    pub(crate) detail: String,
    /// The advice what to do.
    pub(crate) hint: String,
}

impl Reply {
    pub(crate) fn new(code: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        let (message, hint) = (message.into(), hint.into());
        Self(Box::new(Fields { code: code.into(), message, detail: String::new(), hint }))
    }

    pub(crate) fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// Writes an ErrorResponse that leaves the connection open.
    pub(crate) fn error(&self, out: &mut Vec<u8>) {
        self.write(out, "ERROR");
    }

    /// Writes an ErrorResponse that is the last message.
    pub(crate) fn fatal(&self, out: &mut Vec<u8>) {
        self.write(out, "FATAL");
    }

    fn write(&self, out: &mut Vec<u8>, severity: &str) {
        let (code, message) = (&*self.code, &*self.message);
        message::error(out, Report { severity, code, message, detail: &self.detail, hint: &self.hint });
    }

    /// A server's own error, passed on in the name of Bulkhead.
    pub(crate) fn from_server(fields: &ErrorFields) -> Self {
        Self(Box::new(Fields {
            code: fields.code.clone().into(),
            message: fields.message.clone(),
            detail: fields.detail.to_string(),
            hint: fields.hint.to_string(),
        }))
    }
}

impl Deref for Reply {
    type Target = Fields;

    fn deref(&self) -> &Fields {
        &self.0
    }
}

impl DerefMut for Reply {
    fn deref_mut(&mut self) -> &mut Fields {
        &mut self.0
    }
}

/// No backend for a request.
pub(crate) fn refused(pool: &str, refusal: &Refusal) -> Reply {
    match refusal {
        Refusal::Full { figures, down: Some(error) } => Reply::new(
            "08006",
            format!("pool \"{pool}\" has no connection to spare ({}): {error}", in_words(*figures)),
            "Check that the server runs, answers and can be reached; more connections would not help.",
        ),
        Refusal::Full { figures, down: None } => Reply::new(
            "53300",
            format!("pool \"{pool}\" is full: {}", in_words(*figures)),
            format!(
                "Raise pools.{pool}.max_connections or pools.{pool}.max_waiting, or send fewer statements at once."
            ),
        ),
        Refusal::TimedOut { figures, waited, down: None, full: Some(error) } => Reply::new(
            "53300",
            format!(
                "pool \"{pool}\" had no free connection within {}, and its server takes no more: {error} ({})",
                seconds(*waited),
                in_words(*figures)
            ),
            format!(
                "Raise the server's limit (max_connections, or CONNECTION LIMIT of the role or the database), or lower \
                 pools.{pool}.max_connections."
            ),
        ),
        Refusal::TimedOut { figures, waited, down: None, full: None } => Reply::new(
            "53300",
            format!(
                "pool \"{pool}\" had no free connection within {}: {}",
                seconds(*waited),
                in_words(*figures)
            ),
            format!(
                "Raise pools.{pool}.max_connections or pools.{pool}.wait_timeout, or look for long transactions{}.",
                if figures.pinned > 0 {
                    " and for what pins sessions (bulkhead_pool_pinned in the metrics)"
                } else {
                    ""
                }
            ),
        ),
        Refusal::TimedOut { waited, down: Some(error), .. } => Reply::new(
            "08006",
            format!("pool \"{pool}\" had no free connection within {}: {error}", seconds(*waited)),
            "Check that the server runs, answers and can be reached; more connections would not help.",
        ),
        Refusal::Unreachable(failure) => match &failure.refused {
            Some(fields) => Reply::from_server(fields),
            None => Reply::new(
                "08006",
                format!(
                    "pool \"{pool}\": server \"{}\" cannot be reached: {}",
                    failure.server, failure.message
                ),
                "Check that the server runs and can be reached.",
            ),
        },
        Refusal::Cancelled => Reply::new("57014", "canceling statement due to user request", ""),
        Refusal::Paused { .. } | Refusal::Disabled => held_back(pool, refusal),
        // Only if the pool that has taken its place is not to be found.
        Refusal::Moved => Reply::new(
            "40001",
            format!("pool \"{pool}\" was moved to another server during the transaction"),
            "The transaction is rolled back. Run it again.",
        ),
        Refusal::Closing => shutting_down(),
    }
}

/// An operator keeps the pool from serving.
fn held_back(pool: &str, refusal: &Refusal) -> Reply {
    match refusal {
        Refusal::Paused { waited } => Reply::new(
            "57P03",
            format!("pool \"{pool}\" has been paused for longer than {}", seconds(*waited)),
            "An operator has paused it; RESUME on the console goes on. console.pause_timeout says how long statements wait.",
        ),
        _ => Reply::new(
            "57P03",
            format!("pool \"{pool}\" is disabled"),
            format!("An operator has disabled it; ENABLE {pool} on the console goes on."),
        ),
    }
}

fn in_words(figures: Figures) -> String {
    let Figures { leased, max_connections, waiting, pinned, .. } = figures;
    let pinned =
        if pinned > 0 { format!(", {pinned} of them kept by pinned sessions") } else { String::new() };
    format!("{leased} of {max_connections} connections busy{pinned}, {waiting} waiting")
}

fn seconds(duration: std::time::Duration) -> String {
    format!("{} s", duration.as_secs_f64())
}

/// The connection to the server broke during a statement.
pub(crate) fn broken(error: &Broken, said: Option<&ErrorFields>) -> Reply {
    match said {
        Some(fields) => Reply::from_server(fields)
            .with_detail(format!("{error}. Whether the statement took effect is unknown.")),
        None => Reply::new(
            "08006",
            format!("{error}; whether the statement took effect is unknown"),
            "Look at the server's log. The client's connection stays usable.",
        ),
    }
}

/// The connection to the server broke before anything of the request was sent.
pub(crate) fn not_sent(error: &Broken) -> Reply {
    Reply::new("08006", format!("{error}; the statement was not run"), "Look at the server's log.")
}

/// The connection to the server broke when a transaction was open there, of which nothing had asked for the commit.
pub(crate) fn transaction_lost(error: &Broken, said: Option<&ErrorFields>) -> Reply {
    let mut reply = match said {
        Some(fields) => {
            Reply::from_server(fields).with_detail(format!("{error}. Its open transaction was rolled back."))
        }
        None => Reply::new("08006", format!("{error}; its open transaction was rolled back"), ""),
    };
    if reply.hint.is_empty() {
        "Run the transaction again. The client's connection stays usable.".clone_into(&mut reply.hint);
    }
    reply
}

/// The connection to the server broke when a COMMIT was under way.
pub(crate) fn commit_unknown(error: &Broken, said: Option<&ErrorFields>) -> Reply {
    let reply = Reply::new(
        "08007",
        format!("{error}; whether the transaction was committed is unknown"),
        "Look whether its effects are there before running it again.",
    );
    match said {
        Some(fields) => reply.with_detail(format!("The server said: {}", fields.message)),
        None => reply,
    }
}

/// The connection to the server broke, and the client's ends with it.
pub(crate) fn lost(error: &Broken) -> Reply {
    let message = format!("{error}; whether the last statement took effect is unknown");
    Reply::new("08006", message, "Look at the server's log.")
}

/// A statement that would pin one session too many.
pub(crate) fn pins_full(
    pool: &str,
    max_pinned: usize,
    reason: &str,
    waited: Option<std::time::Duration>,
) -> Reply {
    let waited = waited.map(|waited| format!("; none was given up within {}", seconds(waited)));
    Reply::new(
        "53300",
        format!(
            "pool \"{pool}\" has {max_pinned} pinned connections, and the statement would pin one more ({reason}){}",
            waited.unwrap_or_default()
        ),
        format!(
            "Raise pools.{pool}.max_pinned or pools.{pool}.wait_timeout, or have sessions give up what pins them: temporary objects, session-level \
             advisory locks, SQL-level prepared statements, cursors WITH HOLD; instead of currval and lastval use RETURNING."
        ),
    )
}

/// A pinned session idles while others wait.
pub(crate) fn pinned_idle(pool: &str, reason: &str, idle: std::time::Duration, is_over_bound: bool) -> Reply {
    let key = if is_over_bound { "max_pinned" } else { "pinned_idle_timeout" };
    Reply::new(
        "57P05",
        format!(
            "terminating connection: it was idle for {} and pinned by {reason} while others waited for pool \"{pool}\"",
            seconds(idle)
        ),
        format!("Raise pools.{pool}.{key} or pools.{pool}.max_connections."),
    )
}

/// A wrong value of `bulkhead.pool_mode`.
pub(crate) fn bad_pool_mode(value: &str) -> Reply {
    Reply::new(
        "22023",
        format!("invalid value for parameter \"bulkhead.pool_mode\": \"{value}\""),
        "Use session or transaction.",
    )
}

/// The help for who uses job objects and application objects together.
#[derive(Debug)]
pub(crate) enum Remedy {
    /// Nothing but to use them apart.
    Apart,
    /// An outbox: only jobs are added.
    Outbox,
    /// The outbox that there is, once it is ready; and why it is not, if that is known.
    ReadyOutbox(Option<std::sync::Arc<str>>),
}

/// Job objects and application objects in one statement or transaction.
pub(crate) fn torn(jobs: &str, application: &str, explanation: &str, remedy: Remedy) -> Reply {
    let hint = match remedy {
        Remedy::Apart => {
            "Use separate transactions, or put pools.jobs on the primary's server (pools.jobs.servers).".to_owned()
        }
        Remedy::Outbox => "To add jobs in transactions of the application, set jobs.outbox = true and run `bulkhead jobs init`; or put \
             pools.jobs on the primary's server (pools.jobs.servers)."
            .to_owned(),
        Remedy::ReadyOutbox(trouble) => {
            let trouble = trouble.map(|trouble| format!(": {trouble}")).unwrap_or_default();
            format!("The outbox (jobs.outbox) is not ready{trouble}. Run `bulkhead jobs init`, then see `bulkhead jobs status`.")
        }
    };
    Reply::new(
        "0A000",
        "job tables and application tables live on different servers and cannot be used together",
        hint,
    )
    .with_detail(format!(
        "{explanation}Job objects are served by pool \"{jobs}\", all others by pool \"{application}\"."
    ))
}

/// A transaction that has a part on two servers is to end in a way that cannot be said to both.
pub(crate) fn ends_on_two_servers() -> Reply {
    Reply::new(
        "0A000",
        "a transaction that uses job tables and application tables cannot end like this: they live on different servers",
        "Use COMMIT or ROLLBACK alone.",
    )
}

/// Something that lasts for the rest of a transaction is said while that is on two servers.
pub(crate) fn lasts_on_two_servers() -> Reply {
    Reply::new(
        "0A000",
        "settings and channels cannot be changed in a transaction that uses both the application's and the jobs' server",
        "Say it at the beginning of the transaction, by SET LOCAL, or outside of it.",
    )
}

/// The definitions on the job database may not have been committed there.
pub(crate) fn definitions_not_committed() -> Reply {
    Reply::new(
        "08006",
        "the job database has not said that it has committed what was defined there; the transaction was not committed on the \
         primary",
        "Run the migration again; `bulkhead jobs verify` lists what differs.",
    )
}

/// A job object would get a name by which it is not known as such.
pub(crate) fn renames_jobs_away(renamed: &RenamedAway) -> Reply {
    let RenamedAway { kind, from, to, listed_in } = renamed;
    let inside = if *kind == "schema" { "what is in it" } else { "it" };
    Reply::new(
        "0A000",
        format!(
            "{kind} \"{from}\" is one of job objects and cannot become \"{to}\", which is none: {inside} would be looked for \
             on the primary"
        ),
        format!("Add the new name to {listed_in} and reload the configuration; then rename it."),
    )
}

/// A definition of job objects comes in a way in which it can be made on the job database only.
pub(crate) fn defines_on_one_server(what: &str) -> Reply {
    Reply::new(
        "0A000",
        format!(
            "job objects are defined on the job database and on the primary, and this cannot be said to both: {what}"
        ),
        "Send the definition by itself, with a Sync of its own, or the statements as one text from BEGIN to COMMIT.",
    )
}

/// A transaction that defines job objects has more locks than can be kept.
pub(crate) fn too_many_locks(max: usize) -> Reply {
    Reply::new(
        "54000",
        format!(
            "the transaction defines job objects and holds more than {max} advisory locks on the job database, which were to be \
             held until the primary has committed, too; nothing was committed"
        ),
        "Take one lock for all of the migration.",
    )
}

/// The definitions were committed on the job database, and perhaps not on the primary.
pub(crate) fn definitions_only_there() -> Reply {
    Reply::new(
        "08006",
        "the definitions of job objects were committed on the job database; the primary has not said that it has committed them",
        "Run the migration again if it can be; `bulkhead jobs verify` lists what differs.",
    )
}

/// The tables that a refused request names, in words.
pub(crate) fn named_tables(jobs: &[String], application: &[String]) -> String {
    let list = |title: &str, names: &[String]| {
        if names.is_empty() { String::new() } else { format!("{title}: {}. ", names.join(", ")) }
    };
    format!("{}{}", list("Job objects here", jobs), list("Application tables here", application))
}

/// A pinned session cannot use another server.
pub(crate) fn pinned_elsewhere(pin: &str) -> Reply {
    Reply::new(
        "0A000",
        format!("the session is tied to one server by {pin}, and this statement belongs to another"),
        "Use another connection for it.",
    )
}

/// An advisory lock is to be taken in a transaction that is on a replica.
pub(crate) fn lock_on_replica() -> Reply {
    Reply::new(
        "0A000",
        "this READ ONLY transaction runs on a replica, where nobody would meet its advisory lock",
        "Take the lock with the transaction's first statement, before cursors, savepoints and local settings: then it runs on \
         the primary.",
    )
}

/// A statement that leaves state on its connection, in a transaction that is on a replica.
pub(crate) fn state_on_replica() -> Reply {
    Reply::new(
        "0A000",
        "this READ ONLY transaction runs on a replica, where its session would have to stay after this statement",
        "Send it as the transaction's first statement, before cursors, savepoints and local settings, or outside of it: then it \
         runs on the primary.",
    )
}

/// A statement in a failed transaction.
pub(crate) fn in_failed_transaction() -> Reply {
    Reply::new("25P02", "current transaction is aborted, commands ignored until end of transaction block", "")
}

/// A prepared statement that does not exist.
pub(crate) fn no_such_statement(name: &[u8]) -> Reply {
    let name = String::from_utf8_lossy(name);
    Reply::new("26000", format!("prepared statement \"{name}\" does not exist"), "")
}

/// The unnamed statement, where the session has none.
pub(crate) fn no_unnamed_statement() -> Reply {
    Reply::new("26000", "unnamed prepared statement does not exist", "")
}

/// A prepared statement whose columns are no longer those that the client was told, in the server's words. Drivers know
/// the error by the function of the server's source that is named in it.
pub(crate) fn result_has_changed(out: &mut Vec<u8>) {
    const FIELDS: &[u8] = b"SERROR\0VERROR\0C0A000\0Mcached plan must not change result type\0\
        Fplancache.c\0RRevalidateCachedQuery\0\0";
    message::raw(out, b'E', FIELDS);
}

/// The same in our own words, where it cannot be told within the request.
pub(crate) fn plan_changed() -> Reply {
    Reply::new("0A000", "cached plan must not change result type", "Prepare the statement again.")
}

/// A job database's result with a type that cannot be told.
pub(crate) fn untold(untold: &Untold) -> ErrorFields {
    ErrorFields {
        severity: "ERROR".to_owned(),
        code: "0A000".to_owned(),
        message: untold.to_string(),
        hint: TYPES_HINT.into(),
        ..ErrorFields::default()
    }
}

/// A parameter of a type that the job database lacks.
pub(crate) fn unsaid(untold: &Untold) -> Reply {
    Reply::new("0A000", untold.to_string(), TYPES_HINT)
}

/// A parameter type that no server has; or why that is not known.
pub(crate) fn no_such_type(number: u32, unread: Option<&str>) -> Reply {
    let reply = Reply::new("42704", format!("the primary has no type with number {number}"), TYPES_HINT);
    match unread {
        Some(error) => reply.with_detail(format!("Types could not be looked up: {error}.")),
        None => reply,
    }
}

/// A prepared statement that exists already.
pub(crate) fn statement_exists(name: &[u8]) -> Reply {
    let name = String::from_utf8_lossy(name);
    Reply::new("42P05", format!("prepared statement \"{name}\" already exists"), "")
}

/// The pool that a session is bound to has been taken out.
pub(crate) fn pool_is_gone(pool: &str) -> Reply {
    Reply::new(
        "3D000",
        format!("pool \"{pool}\", which the connection is bound to, is no longer part of the configuration"),
        "Connect again, to another pool or without one.",
    )
}

/// A statement that cannot be given its name on the server now.
pub(crate) fn named_amid_pipeline(name: &[u8]) -> Reply {
    let name = String::from_utf8_lossy(name);
    Reply::new(
        "0A000",
        format!("SQL cannot name prepared statement \"{name}\" before the Sync of a pipeline under way"),
        "Send a Sync first, or bind the statement by the protocol.",
    )
}

/// A name that clients may not use.
pub(crate) fn reserved_name() -> Reply {
    Reply::new("42939", "names of prepared statements must not start with \"bulkhead_\"", "Use another name.")
}

/// More prepared statements than one client may have.
pub(crate) fn too_many_statements(limit: usize) -> Reply {
    Reply::new(
        "53400",
        format!("the session has {limit} prepared statements, which is the limit"),
        "Close or DEALLOCATE some, or raise limits.prepared_per_client.",
    )
}

/// Prepared statements that take more than one client's may.
pub(crate) fn statements_too_large(limit: usize) -> Reply {
    Reply::new(
        "53200",
        format!("the session's prepared statements take more than {limit} bytes, which is the limit"),
        "Close or DEALLOCATE some, or raise limits.prepared_bytes_per_client.",
    )
}

/// A named Parse that does not fit into the buffer.
pub(crate) fn statement_too_long(limit: usize) -> Reply {
    Reply::new(
        "54000",
        format!("a statement prepared by name is longer than {limit} bytes"),
        "Raise limits.request_buffer.",
    )
}

/// The session's settings could not be put on a backend.
pub(crate) fn settings_failed(fields: &ErrorFields) -> Reply {
    Reply::from_server(fields).with_detail(
        "The session's settings could not be applied to another connection; the statement was not run.",
    )
}

/// The client broke the protocol.
pub(crate) fn protocol_violation(what: &str) -> Reply {
    Reply::new("08P01", what, "")
}

/// A message that is no COPY data, in the server's words.
pub(crate) fn unexpected_in_copy(tag: u8) -> Reply {
    Reply::new("08P01", format!("unexpected message type 0x{tag:02X} during COPY from stdin"), "")
}

/// The server's last words to a client whose messages it cannot follow any more.
pub(crate) fn lost_synchronization() -> Reply {
    Reply::new("08P01", "terminating connection because protocol synchronization was lost", "")
}

/// The client has closed its sending side, and its statement takes too long.
pub(crate) fn orphaned(limit: std::time::Duration) -> Reply {
    Reply::new(
        "57014",
        format!("canceling statement because its client closed the connection {} ago", seconds(limit)),
        "Raise limits.orphan_timeout.",
    )
}

/// Going down.
pub(crate) fn shutting_down() -> Reply {
    Reply::new("57P01", "terminating connection due to administrator command", "")
}

/// More clients than allowed.
pub(crate) fn too_many_clients(limit: usize) -> Reply {
    Reply::new("53300", format!("sorry, too many clients already: {limit}"), "Raise limits.max_clients.")
}

/// One identity has as many clients as it may while others have few.
pub(crate) fn too_many_of_identity((user, database): (&str, &str), held: usize, reserve: usize) -> Reply {
    Reply::new(
        "53300",
        format!(
            "too many clients of user \"{user}\" in database \"{database}\" already: {held}; the last {reserve} places \
             are kept for others"
        ),
        "Raise limits.max_clients, or let fewer of them connect.",
    )
}

/// Too many logins of one name are under way: the oldest gives way.
pub(crate) fn too_many_logins(user: &str) -> Reply {
    Reply::new(
        "53300",
        format!("too many logins of user \"{user}\" are under way, and this one is the oldest of them"),
        "Connect again, and answer the request for the password at once; or raise limits.max_clients.",
    )
}

/// The wrong password, or an unknown user: the same for both.
pub(crate) fn authentication_failed(user: &str) -> Reply {
    Reply::new("28P01", format!("password authentication failed for user \"{user}\""), "")
}

/// A database that clients may not ask for.
pub(crate) fn unknown_database(database: &str) -> Reply {
    Reply::new(
        "3D000",
        format!("database \"{database}\" is not served here"),
        "Add it to `databases` in the configuration.",
    )
}

/// A database's name may have been meant to end with the name of a pool.
pub(crate) fn hint_at_pools(mut reply: Reply, database: &str, pools: &[&str]) -> Reply {
    if reply.code == "3D000" && database.contains('@') {
        reply.hint = format!(
            "To bind a connection to a pool, end the database's name with @ and one of: {}.",
            pools.join(", ")
        );
    }
    reply
}

/// A word of the startup parameter `options` that is no option.
pub(crate) fn bad_argument(word: &str) -> Reply {
    Reply::new(
        "42601",
        format!("invalid command-line argument for server process: {word}"),
        "Use -c name=value or --name=value.",
    )
}

/// A setting of the startup parameter `options` without a value.
pub(crate) fn no_value(option: &str) -> Reply {
    Reply::new("42601", format!("{option} requires a value"), "")
}

/// A first packet or startup parameter that is wrong.
pub(crate) fn bad_start(what: &str) -> Reply {
    Reply::new("08P01", what, "")
}

/// The client does not take its notifications.
pub(crate) fn slow_listener(limit_bytes: usize) -> Reply {
    Reply::new(
        "53400",
        format!("more than {limit_bytes} bytes of notifications wait for the client"),
        "Read notifications faster, end transactions sooner, or raise limits.notifications_per_client.",
    )
}

/// The unfinished requests of all clients together have no room for more of this one's.
pub(crate) fn no_room(limit_bytes: usize) -> Reply {
    Reply::new(
        "53200",
        format!("the unfinished requests of all clients would take more than {limit_bytes} bytes"),
        "Send large values in fewer requests at once, or raise limits.request_buffer_total.",
    )
}

/// More channels than one client may have.
pub(crate) fn too_many_channels(limit: usize) -> Reply {
    Reply::new(
        "53400",
        format!("the session listens to {limit} channels, which is the limit"),
        "UNLISTEN some.",
    )
}

/// Notifications may have been missed, and the client is to know.
pub(crate) fn listener_lost() -> Reply {
    Reply::new(
        "57P01",
        "terminating connection due to the loss of notifications",
        "Connect again, LISTEN, and look for what was missed.",
    )
    .with_detail(
        "The server connection that listened for this client was lost; notifications may have been missed.",
    )
}

/// The same, as a warning.
pub(crate) fn notifications_missed(out: &mut Vec<u8>) {
    message::notice(
        out,
        Report {
            severity: "WARNING",
            code: "01000",
            message: "notifications may have been missed",
            detail: "The server connection that listened for this client was lost and replaced.",
            hint: "Look for what was missed.",
        },
    );
}

/// No connection listens for the session.
pub(crate) fn cannot_listen(pool: &str, failure: &ListenFailure) -> Reply {
    match failure {
        ListenFailure::Refused(refusal) => refused(pool, refusal)
            .with_detail("Clients that listen share one server connection, which takes a place of the pool."),
        ListenFailure::Server(fields) => Reply::from_server(fields),
        ListenFailure::Lost | ListenFailure::Closed => Reply::new(
            "08006",
            "the server connection that listens for clients was lost",
            "Try again; look at the server's log.",
        ),
    }
}

/// The server did not answer a question of ours before the client had asked for anything.
pub(crate) fn no_answer(error: &Broken) -> Reply {
    Reply::new("08006", error.to_string(), "Look at the server's load and log.")
}

/// Plaintext where TLS is required.
pub(crate) fn tls_required() -> Reply {
    Reply::new("28000", "connections without TLS are not accepted here", "Connect with sslmode=require.")
}

/// TLS without a request for it, and without ALPN.
pub(crate) fn direct_tls_without_alpn() -> Reply {
    Reply::new(
        "08P01",
        "received direct SSL connection request without ALPN protocol negotiation extension",
        "Name the protocol postgresql in ALPN, or ask for TLS with an SSLRequest.",
    )
}
