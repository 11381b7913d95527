//! A console's conversation with its client: the simple and the extended protocol, one message after the other.
//!
//! Bounded: prepared statements and portals by [`KEPT_MAX`], what waits to be sent by [`CHUNK_BYTES`]; a message's length,
//! and how long a client may take nothing, by `client`.

use super::{
    client::{Console, Entry, Portal, Stopped},
    command::Command,
    control::{Notice, Outcome},
    lexer, reply,
    table::{Columns, Format, Rows},
};
use crate::{
    session::reply::{self as session_reply, Reply},
    version::PgBouncer,
    wire::{
        TxStatus,
        client::{Bind, Item, Parse},
        message::{self, Report},
        read::{Body, Malformed},
    },
};

/// Prepared statements and portals of one console, together.
const KEPT_MAX: usize = 100;

/// Results are sent in pieces of this size.
const CHUNK_BYTES: usize = 16 * 1024;

/// Serves a console until its client goes, or it is ended.
pub(crate) async fn run(entry: Entry) {
    let mut console = Console::of(entry);
    if let Stopped::Fatal(reply) = console.serve().await {
        reply.fatal(&mut console.out);
        // A client that does not take it is closed all the same.
        let _ = console.flush().await;
    }
}

impl Console {
    async fn serve(&mut self) -> Stopped {
        loop {
            let served = match self.next_message().await {
                Ok((b'X', _)) => return Stopped::Gone,
                Ok((tag, body)) => self.on_message(tag, &body).await,
                Err(stopped) => Err(stopped),
            };
            if let Err(stopped) = served {
                return stopped;
            }
        }
    }

    async fn on_message(&mut self, tag: u8, body: &[u8]) -> Result<(), Stopped> {
        match tag {
            b'S' => {
                self.skips = false;
                if self.status == TxStatus::Idle {
                    self.portals.clear();
                }
                message::ready(&mut self.out, self.status);
                self.flush().await
            }
            _ if self.skips => Ok(()),
            b'Q' => self.on_query(body).await,
            b'H' => self.flush().await,
            b'F' => {
                let hint = "The console takes commands only.";
                self.fail(&reply::not_supported("function calls are not supported", hint));
                message::ready(&mut self.out, self.status);
                Ok(())
            }
            // Data of a COPY that has ended, as far as the client can know.
            b'd' | b'c' | b'f' => Ok(()),
            _ => {
                let done = match tag {
                    b'P' => self.on_parse(body),
                    b'B' => self.on_bind(body),
                    b'D' => self.on_describe(body),
                    b'C' => self.on_close(body),
                    _ => self.on_execute(body).await,
                };
                self.after(done).map(|failed| self.skips |= failed)
            }
        }
    }

    /// Tells an error that the console survives. True if there was one.
    fn after(&mut self, done: Result<(), Stopped>) -> Result<bool, Stopped> {
        match done {
            Ok(()) => Ok(false),
            Err(Stopped::Refused(reply)) => {
                self.fail(&reply);
                Ok(true)
            }
            Err(Stopped::Cancelled) => {
                self.fail(&reply::cancelled(""));
                Ok(true)
            }
            Err(end) => Err(end),
        }
    }

    fn fail(&mut self, reply: &Reply) {
        reply.error(&mut self.out);
        if self.status == TxStatus::Open {
            self.status = TxStatus::Failed;
        }
    }

    // === The simple protocol ===

    async fn on_query(&mut self, body: &[u8]) -> Result<(), Stopped> {
        let text = Body::new(body, "Query").cstring()?;
        let done = self.run_text(text).await;
        self.after(done)?;
        message::ready(&mut self.out, self.status);
        self.flush().await
    }

    async fn run_text(&mut self, text: &[u8]) -> Result<(), Stopped> {
        let statements = lexer::statements(&String::from_utf8_lossy(text))?;
        if statements.is_empty() {
            message::empty_query(&mut self.out);
        }
        for statement in &statements {
            let command = Command::of(statement)?;
            match self.start(&command).await? {
                Outcome::Done(notice) => self.done(&command, notice),
                Outcome::Rows(columns, rows) => {
                    columns.describe(&mut self.out, &[]);
                    self.send_rows(&columns, rows, &[]).await?;
                    message::command_complete(&mut self.out, command.tag());
                }
            }
        }
        Ok(())
    }

    async fn send_rows(&mut self, columns: &Columns, rows: Rows, formats: &[Format]) -> Result<(), Stopped> {
        for row in rows {
            columns.write(&mut self.out, &row, formats);
            self.send_chunk().await?;
        }
        Ok(())
    }

    async fn send_chunk(&mut self) -> Result<(), Stopped> {
        if self.out.len() < CHUNK_BYTES {
            return Ok(());
        }
        self.flush().await?;
        // Sessions on the same thread have their turn.
        tokio::task::yield_now().await;
        Ok(())
    }

    /// Carries a command out, unless it stands in a transaction that has failed.
    async fn start(&mut self, command: &Command) -> Result<Outcome, Stopped> {
        let ends = matches!(command, Command::Commit | Command::Rollback);
        if self.status == TxStatus::Failed && !ends {
            return Err(reply::in_failed_transaction().into());
        }
        self.execute(command).await
    }

    /// Tells that a command without rows is done.
    fn done(&mut self, command: &Command, notice: Option<Notice>) {
        if let Some(Notice { message, detail }) = notice {
            let report =
                Report { severity: "NOTICE", code: "00000", message: &message, detail: &detail, hint: "" };
            message::notice(&mut self.out, report);
        }
        let tag = match (command, self.status) {
            (Command::Commit, TxStatus::Failed) => "ROLLBACK",
            _ => command.tag(),
        };
        self.status = match command {
            Command::Begin => TxStatus::Open,
            Command::Commit | Command::Rollback => TxStatus::Idle,
            _ => self.status,
        };
        message::command_complete(&mut self.out, tag);
    }

    // === The extended protocol ===

    fn on_parse(&mut self, body: &[u8]) -> Result<(), Stopped> {
        let Parse { name, text, .. } = Parse::read(body)?;
        let mut statements = lexer::statements(&String::from_utf8_lossy(text))?;
        if statements.len() > 1 {
            return Err(reply::several_in_one().into());
        }
        let command = statements.pop().map(|statement| Command::of(&statement)).transpose()?;
        if !name.is_empty() && self.statements.len() + self.portals.len() >= KEPT_MAX {
            return Err(reply::too_many_kept(KEPT_MAX).into());
        }
        self.statements.insert(name.to_vec(), command);
        message::parse_complete(&mut self.out);
        Ok(())
    }

    fn on_bind(&mut self, body: &[u8]) -> Result<(), Stopped> {
        let bind = Bind::read(body)?;
        if !bind.has_no_values()? {
            return Err(reply::has_no_parameters().into());
        }
        let command = self.statement(bind.statement)?.clone();
        let columns = command.as_ref().and_then(|command| columns_of(command, self.like));
        let asked = result_formats(bind.rest)?;
        let formats = match &columns {
            Some(columns) => columns.formats(&asked),
            None => Some(Vec::new()),
        };
        let formats = formats.ok_or_else(|| session_reply::protocol_violation("wrong formats of results"))?;
        if !bind.portal.is_empty() && self.statements.len() + self.portals.len() >= KEPT_MAX {
            return Err(reply::too_many_kept(KEPT_MAX).into());
        }
        let portal = Portal { command, formats, running: None, is_over: false };
        self.portals.insert(bind.portal.to_vec(), portal);
        message::bind_complete(&mut self.out);
        Ok(())
    }

    fn statement(&self, name: &[u8]) -> Result<&Option<Command>, Reply> {
        let unknown = || reply::no_such("prepared statement", &String::from_utf8_lossy(name));
        self.statements.get(name).ok_or_else(unknown)
    }

    fn on_describe(&mut self, body: &[u8]) -> Result<(), Stopped> {
        let (columns, formats) = match Item::read(body, "Describe")? {
            Item::Statement(name) => {
                let command = self.statement(name)?.as_ref();
                let columns = command.and_then(|command| columns_of(command, self.like));
                message::no_parameters(&mut self.out);
                (columns, Vec::new())
            }
            Item::Portal(name) => {
                let unknown = || reply::no_such("portal", &String::from_utf8_lossy(name));
                let portal = self.portals.get(name).ok_or_else(unknown)?;
                let columns = portal.command.as_ref().and_then(|command| columns_of(command, self.like));
                (columns, portal.formats.clone())
            }
        };
        match columns {
            Some(columns) => columns.describe(&mut self.out, &formats),
            None => message::no_data(&mut self.out),
        }
        Ok(())
    }

    fn on_close(&mut self, body: &[u8]) -> Result<(), Stopped> {
        match Item::read(body, "Close")? {
            Item::Statement(name) => drop(self.statements.remove(name)),
            Item::Portal(name) => drop(self.portals.remove(name)),
        }
        message::close_complete(&mut self.out);
        Ok(())
    }

    async fn on_execute(&mut self, body: &[u8]) -> Result<(), Stopped> {
        let mut body = Body::new(body, "Execute");
        let (name, most) = (body.cstring()?, body.int32()?);
        let unknown = || reply::no_such("portal", &String::from_utf8_lossy(name));
        let mut portal = self.portals.remove(name).ok_or_else(unknown)?;
        let Some(command) = portal.command.clone() else {
            message::empty_query(&mut self.out);
            self.portals.insert(name.to_vec(), portal);
            return Ok(());
        };
        if portal.running.is_none() && !portal.is_over {
            match self.start(&command).await? {
                Outcome::Done(notice) => {
                    portal.is_over = true;
                    self.done(&command, notice);
                    self.portals.insert(name.to_vec(), portal);
                    return Ok(());
                }
                Outcome::Rows(columns, rows) => portal.running = Some((columns, rows)),
            }
        }
        let is_suspended = self.send_some(&mut portal, usize::try_from(most).unwrap_or_default()).await?;
        if is_suspended {
            message::portal_suspended(&mut self.out);
        } else {
            message::command_complete(&mut self.out, command.tag());
        }
        self.portals.insert(name.to_vec(), portal);
        Ok(())
    }

    /// Sends the next rows of a portal, `most` at most; zero for all. True if there are more.
    async fn send_some(&mut self, portal: &mut Portal, most: usize) -> Result<bool, Stopped> {
        let Some((columns, rows)) = &mut portal.running else { return Ok(false) };
        let mut sent = 0;
        while most == 0 || sent < most {
            let Some(row) = rows.next() else {
                (portal.running, portal.is_over) = (None, true);
                return Ok(false);
            };
            columns.write(&mut self.out, &row, &portal.formats);
            sent += 1;
            self.send_chunk().await?;
        }
        Ok(true)
    }
}

/// The columns of a command's rows; `None` if it has no rows.
fn columns_of(command: &Command, like: PgBouncer) -> Option<Columns> {
    match command {
        Command::Show(show) => show.columns(like),
        _ => None,
    }
}

/// The formats of results that a Bind without values asks for.
fn result_formats(mut rest: Body<'_>) -> Result<Vec<i16>, Malformed> {
    for _ in 0..rest.int16()?.cast_unsigned() {
        rest.int16()?;
    }
    rest.int16()?;
    let count = rest.int16()?.cast_unsigned();
    (0..count).map(|_| rest.int16()).collect()
}
