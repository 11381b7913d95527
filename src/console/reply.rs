//! Errors of the console, each with what to do about it.

use crate::session::reply::Reply;

/// SQLSTATE `syntax_error`.
const SYNTAX: &str = "42601";

/// More consoles than there may be.
pub(super) fn no_place(limit: usize) -> Reply {
    Reply::new(
        "53300",
        format!("{limit} consoles are open already"),
        "Close some, or raise console.max_clients.",
    )
}

/// A user who may not use the console.
pub(super) fn not_allowed(user: &str) -> Reply {
    Reply::new(
        "42501",
        format!("user \"{user}\" may not use the console"),
        "Name the user in console.admin_users, or in console.stats_users if it is only to look.",
    )
}

/// A command that only an administrator may give.
pub(super) fn admins_only(command: &str) -> Reply {
    Reply::new("42501", format!("{command} is for administrators"), "Name the user in console.admin_users.")
}

/// Text that is no command.
pub(super) fn unknown_command(text: &str) -> Reply {
    let shown: String = text.chars().take(100).map(|c| if c.is_control() { ' ' } else { c }).collect();
    Reply::new(SYNTAX, format!("invalid command \"{shown}\""), "SHOW HELP lists the commands.")
}

/// A quote or comment that does not end.
pub(super) fn unterminated() -> Reply {
    Reply::new(SYNTAX, "unterminated quote or comment", "SHOW HELP lists the commands.")
}

/// More statements in one text than the console takes.
pub(super) fn too_many_statements(limit: usize) -> Reply {
    Reply::new("54000", format!("more than {limit} statements in one text"), "Send them in several.")
}

/// A message longer than the console takes.
pub(super) fn too_long(limit_bytes: usize) -> Reply {
    Reply::new("08P01", format!("the console takes no message of more than {limit_bytes} bytes"), "")
}

/// A command that Bulkhead has no use for.
pub(super) fn not_supported(what: &str, hint: &str) -> Reply {
    Reply::new("0A000", what, hint)
}

/// A pool that is not in the configuration.
pub(super) fn no_such_pool(name: &str, pools: &[&str]) -> Reply {
    Reply::new(
        "3D000",
        format!("there is no pool \"{name}\""),
        format!("The pools are {}.", pools.join(", ")),
    )
}

/// A pool is not in the state that the command is about.
pub(super) fn wrong_state(message: String, hint: &str) -> Reply {
    Reply::new("55000", message, hint)
}

/// No client has this number.
pub(super) fn no_such_client(id: &str) -> Reply {
    Reply::new("42704", format!("there is no client {id}"), "SHOW CLIENTS lists them, in the column id.")
}

/// A reload or SET that changed nothing.
pub(super) fn refused(command: &str, problems: &[String]) -> Reply {
    let first = problems.first().map_or("it was refused", String::as_str);
    let reply = Reply::new("F0000", format!("{command} failed, nothing was changed: {first}"), "");
    match problems.len() {
        0 | 1 => reply,
        _ => reply.with_detail(problems.join("\n")),
    }
}

/// The program is going down, and takes no orders.
pub(super) fn going_down() -> Reply {
    Reply::new("57P03", "Bulkhead is going down", "")
}

/// A wait that the client has cancelled.
pub(super) fn cancelled(undone: &str) -> Reply {
    Reply::new("57014", format!("canceling statement due to user request{undone}"), "")
}

/// A statement in a transaction that has failed.
pub(super) fn in_failed_transaction() -> Reply {
    Reply::new(
        "25P02",
        "current transaction is aborted, commands ignored until end of transaction block",
        "Nothing of the console is undone by ROLLBACK.",
    )
}

/// A prepared statement or portal that is not there.
pub(super) fn no_such(what: &str, name: &str) -> Reply {
    let code = if what == "portal" { "34000" } else { "26000" };
    Reply::new(code, format!("{what} \"{name}\" does not exist"), "")
}

/// More prepared statements or portals than the console keeps.
pub(super) fn too_many_kept(limit: usize) -> Reply {
    Reply::new(
        "53400",
        format!("the console keeps no more than {limit} statements and portals"),
        "Close some.",
    )
}

/// Values for parameters that no command has.
pub(super) fn has_no_parameters() -> Reply {
    Reply::new("08P01", "the console's commands have no parameters", "Write the value into the command.")
}

/// Several commands in one prepared statement.
pub(super) fn several_in_one() -> Reply {
    Reply::new(SYNTAX, "cannot insert multiple commands into a prepared statement", "")
}
