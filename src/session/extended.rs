//! Prepared statements of the protocol, made independent of the backend: a client's name stands for a text; the
//! text has one name on every backend and is parsed there when it is missing.

use std::{
    hash::{BuildHasher, Hasher},
    sync::Arc,
};

use super::{
    Limits, Session, Statements, Stop, Unnamed, named,
    reply::{self, Reply},
    request::{End, Request},
    rewrite::{Rewrite, Rewritten, There},
};
use crate::{
    backend::{
        protocol::{Awaits, Step, Undo},
        statements::{Held, NAME_PREFIX, Statement, StatementId, UnnamedText},
    },
    sql::Effects,
    wire::{
        TxStatus,
        frame::{Header, split_message},
        message,
        read::{Body, Malformed},
    },
};

/// Stands for the unnamed statement where a statement's identity is asked for.
const UNNAMED: StatementId = StatementId(0);

/// Stands for a statement that is closed as soon as it is parsed, or that never was.
const NOBODYS: StatementId = StatementId(u64::MAX);

impl Session {
    /// Whether the request can be sent as it is: it names no prepared statement, and uses the unnamed one only
    /// after parsing it.
    pub(crate) fn passes_unchanged(&self, request: Request) -> bool {
        !request.is_extended() || !(self.counts_replies(request) || request.about.statements)
    }

    /// Whether the client's Sync is still to come for what was sent last.
    pub(crate) fn is_amid_pipeline(&self) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.protocol.is_open())
    }

    /// Between a Flush and its Sync every reply must be told from the others.
    fn counts_replies(&self, request: Request) -> bool {
        request.end == End::Open || self.is_amid_pipeline()
    }

    /// Writes the request for the leased backend to `out`, with the statements that the backend lacks. A refusal means
    /// that nothing was noted.
    pub(super) fn rewrite(&mut self, request: Request, out: &mut Vec<u8>) -> Result<Rewritten, Stop> {
        let mut rewrite = Rewrite::new(out, self.counts_replies(request));
        let messages = std::mem::take(&mut self.inbox);
        let written = self.rewrite_messages(&messages[..request.len], request, &mut rewrite);
        self.inbox = messages;
        written.map(|()| rewrite.finish())
    }

    fn rewrite_messages(
        &mut self,
        messages: &[u8],
        request: Request,
        rewrite: &mut Rewrite<'_>,
    ) -> Result<(), Stop> {
        if request.streaming > 0 {
            // It is one message and no other.
            return self.rewrite_streamed(messages, request, rewrite);
        }
        self.close_surplus(rewrite);
        let mut rest = messages;
        while let Ok(Some((tag, body, after))) = split_message(rest) {
            let whole = &rest[..rest.len() - after.len()];
            let done = match tag {
                b'P' => self.rewrite_parse(body, whole, rewrite),
                b'B' => self.rewrite_bind(body, 0, rewrite),
                b'D' => self.rewrite_describe(body, whole, rewrite),
                b'C' => self.rewrite_close(body, whole, rewrite),
                b'E' => {
                    rewrite.send(whole);
                    rewrite.pass(Awaits::Execute);
                    Ok(())
                }
                _ => {
                    rewrite.send(whole);
                    Ok(())
                }
            };
            match done {
                Err(Stop::Refused(reply)) => {
                    rewrite.refuse(&reply, self.parses_unread(rest), request.is_synced());
                    break;
                }
                done => done?,
            }
            rest = after;
        }
        Ok(())
    }

    /// Whether messages, which will not be sent, have a Parse of a text that cannot be read.
    fn parses_unread(&self, mut messages: &[u8]) -> bool {
        while let Ok(Some((tag, body, after))) = split_message(messages) {
            messages = after;
            let mut body = Body::new(body, "Parse");
            if tag == b'P'
                && let (Ok(_), Ok(text)) = (body.cstring(), body.cstring())
                && self.verdict(text).is_unread()
            {
                return true;
            }
        }
        false
    }

    /// The beginning of a message whose rest is streamed.
    fn rewrite_streamed(
        &mut self,
        part: &[u8],
        request: Request,
        rewrite: &mut Rewrite<'_>,
    ) -> Result<(), Stop> {
        let Ok(Some(Header { tag, .. })) = Header::peek(part) else { return Ok(()) };
        let body = &part[5..];
        match tag {
            b'B' => self.rewrite_bind(body, request.streaming, rewrite),
            b'P' if body.first() != Some(&0) => {
                Err(reply::statement_too_long(self.shared.limits.request_buffer).into())
            }
            _ => {
                // Its text is not kept, so it cannot be parsed anywhere else: as long as it lives, the session stays.
                self.forget_unnamed();
                if let Some(held) = self.held().filter(|_| tag == b'P') {
                    held.unnamed = UnnamedText::Streamed;
                }
                rewrite.send(part);
                rewrite.pass(Awaits::Parse);
                Ok(())
            }
        }
    }

    /// Whether the backend has an unnamed statement that is too long to be kept here.
    pub(crate) fn has_long_statement(&self) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.statements.unnamed == UnnamedText::Streamed)
    }

    /// The unnamed statement is not known any more.
    pub(crate) fn forget_unnamed(&mut self) {
        if let Some(statements) = &mut self.statements {
            statements.unnamed = None;
        }
        if let Some(held) = self.held() {
            held.unnamed = UnnamedText::None;
        }
    }

    fn rewrite_parse(&mut self, body: &[u8], whole: &[u8], rewrite: &mut Rewrite<'_>) -> Result<(), Stop> {
        if body.first() == Some(&0) {
            let hash = self.remember_unnamed(&body[1..])?;
            if let Some(held) = self.held() {
                held.unnamed = UnnamedText::Kept(hash);
            }
            rewrite.send(whole);
            rewrite.pass(Awaits::Parse);
            return Ok(());
        }
        let statement = self.remember_named(body)?;
        let name: Box<[u8]> = Body::new(body, "Parse").cstring()?.into();
        if self.may_have_sql_names() {
            // If SQL has prepared one of this name, the server says so.
            message::parse(rewrite.out, &*name, &statement.text, &statement.types);
            rewrite.push(Step::SwallowParsed(NOBODYS));
            message::close_statement(rewrite.out, &*name);
            rewrite.push(Step::SwallowClosed(NOBODYS));
        }
        let is_there = self.held().is_some_and(|held| held.touch(statement.id));
        let has_failed = self.status() == TxStatus::Failed;
        if is_there && !has_failed {
            rewrite.insert_parsed(Undo::Parse(name));
            return Ok(());
        }
        if is_there {
            // Few texts may be parsed now, and the server knows which ones.
            rewrite.close(statement.id);
        }
        self.parse_there(&statement, rewrite);
        rewrite.push(Step::PassParsed(statement.id, name));
        Ok(())
    }

    fn rewrite_bind(&mut self, body: &[u8], streaming: usize, rewrite: &mut Rewrite<'_>) -> Result<(), Stop> {
        let mut body = Body::new(body, "Bind");
        let (portal, name) = (body.cstring()?, body.cstring()?);
        let there = self.name_there(name, rewrite)?;
        message::bind_head(rewrite.out, portal, &there, body.rest(), streaming);
        rewrite.pass(Awaits::Bind);
        Ok(())
    }

    fn rewrite_describe(&mut self, body: &[u8], whole: &[u8], rewrite: &mut Rewrite<'_>) -> Result<(), Stop> {
        let mut body = Body::new(body, "Describe");
        let (kind, name) = (body.byte()?, body.cstring()?);
        if kind == b'S' {
            let there = self.name_there(name, rewrite)?;
            message::describe_statement(rewrite.out, &there);
        } else {
            rewrite.send(whole);
        }
        rewrite.pass(Awaits::Describe);
        Ok(())
    }

    fn rewrite_close(&mut self, body: &[u8], whole: &[u8], rewrite: &mut Rewrite<'_>) -> Result<(), Stop> {
        let mut body = Body::new(body, "Close");
        let (kind, name) = (body.byte()?, body.cstring()?);
        if kind == b'S' && name.is_empty() {
            self.close_unnamed(whole, rewrite);
            return Ok(());
        }
        if kind == b'S' && name.starts_with(NAME_PREFIX) {
            // A client has none of this name, but the backend may.
            message::close_statement(rewrite.out, &NOBODYS);
            rewrite.pass(Awaits::Close);
            return Ok(());
        }
        if kind == b'S' && self.closes_there(name) {
            self.left.effects |= Effects::ENDS_STATE;
            rewrite.send(whole);
            rewrite.pass(Awaits::Close);
            return Ok(());
        }
        let named = self.statements.as_mut().filter(|_| kind == b'S');
        if let Some(closed) = named.and_then(|all| all.named.remove(name)) {
            rewrite.insert_closed(Undo::Close(name.into(), closed));
        } else {
            rewrite.send(whole);
            rewrite.pass(Awaits::Close);
        }
        Ok(())
    }

    /// What the backend has of it does no harm to anybody, unless it is long.
    fn close_unnamed(&mut self, whole: &[u8], rewrite: &mut Rewrite<'_>) {
        if let Some(closed) = self.statements.as_mut().and_then(|all| all.unnamed.take()) {
            rewrite.insert_closed(Undo::CloseUnnamed(closed.body.into()));
            return;
        }
        self.forget_unnamed();
        rewrite.send(whole);
        rewrite.pass(Awaits::Close);
    }

    /// The name of a statement on the backend; parsed there first if it is missing.
    fn name_there<'a>(&mut self, name: &'a [u8], rewrite: &mut Rewrite<'_>) -> Result<There<'a>, Reply> {
        if name.is_empty() {
            return self.unnamed_there(rewrite).map(|()| There::Unnamed);
        }
        if name.starts_with(NAME_PREFIX) {
            return Err(reply::no_such_statement(name));
        }
        let Some(id) = self.named(name).map(|statement| statement.id) else {
            // SQL's PREPARE shares the names; a session that has used it is pinned to its backend.
            let may_have = self.pin.is_some() || self.left.effects.has(Effects::PREPARES);
            return if may_have { Ok(There::Theirs(name)) } else { Err(reply::no_such_statement(name)) };
        };
        if !self.held().is_some_and(|held| held.touch(id)) {
            if let Some(statement) = self.named(name).cloned() {
                self.parse_there(&statement, rewrite);
            }
            rewrite.push(Step::SwallowParsed(id));
        }
        Ok(There::Ours(id))
    }

    fn unnamed_there(&mut self, rewrite: &mut Rewrite<'_>) -> Result<(), Reply> {
        let there = self.lease.as_ref().map(|lease| lease.statements.unnamed).unwrap_or_default();
        let Some(unnamed) = self.statements.as_ref().and_then(|all| all.unnamed.as_ref()) else {
            // What another session has left there is none of this one's.
            let is_own = there == UnnamedText::Streamed;
            return if is_own { Ok(()) } else { Err(reply::no_unnamed_statement()) };
        };
        let known = UnnamedText::Kept(unnamed.hash);
        if there == known {
            return Ok(());
        }
        message::raw(rewrite.out, b'P', &[&[0], unnamed.body.as_slice()].concat());
        if let Some(held) = self.held() {
            held.unnamed = known;
        }
        rewrite.push(Step::SwallowParsed(UNNAMED));
        Ok(())
    }

    fn parse_there(&mut self, statement: &Statement, rewrite: &mut Rewrite<'_>) {
        message::parse(rewrite.out, &statement.id, &statement.text, &statement.types);
        if let Some(held) = self.held() {
            held.insert(statement.id);
        }
    }

    /// Closes the statements that the backend has too many of.
    fn close_surplus(&mut self, rewrite: &mut Rewrite<'_>) {
        let limit = self.shared.limits.prepared_per_backend;
        let surplus = self.held().map(|held| held.evict(limit)).unwrap_or_default();
        for id in surplus {
            rewrite.close(id);
        }
    }

    fn named(&self, name: &[u8]) -> Option<&Arc<Statement>> {
        self.statements.as_deref()?.named.get(name)
    }

    fn held(&mut self) -> Option<&mut Held> {
        self.lease.as_mut().map(|lease| &mut lease.statements)
    }

    // --- what the session remembers ---

    /// Remembers the statement of a Parse that is answered here.
    pub(crate) fn remember_parsed(&mut self, body: &[u8]) -> Result<(), Stop> {
        if body.first() == Some(&0) {
            self.remember_unnamed(&body[1..])?;
        } else {
            self.remember_named(body)?;
        }
        Ok(())
    }

    /// Remembers the unnamed statements of a request that is sent as it is. Gives how many there are.
    pub(crate) fn remember_unchanged(&mut self, request: Request) -> Result<usize, Malformed> {
        if !request.about.parses {
            return Ok(0);
        }
        let messages = std::mem::take(&mut self.inbox);
        let mut rest = &messages[..request.len];
        let (mut last, mut count) = (Ok(None), 0);
        while let Ok(Some((tag, body, after))) = split_message(rest) {
            rest = after;
            if tag == b'P' {
                last = self.remember_unnamed(body.get(1..).unwrap_or_default()).map(Some);
                count += 1;
            }
        }
        self.inbox = messages;
        if let (Some(hash), Some(held)) = (last?, self.held()) {
            held.unnamed = UnnamedText::Kept(hash);
        }
        Ok(count)
    }

    fn remember_unnamed(&mut self, body: &[u8]) -> Result<u64, Malformed> {
        Body::new(body, "Parse").cstring()?;
        let mut hasher = foldhash::fast::FixedState::default().build_hasher();
        hasher.write(body);
        hasher.write_u64(self.settings.parse_hash());
        let hash = hasher.finish();
        let statements = self.statements.get_or_insert_default();
        let mut kept = statements.unnamed.take().map(|unnamed| unnamed.body).unwrap_or_default();
        kept.clear();
        kept.extend_from_slice(body);
        statements.unnamed = Some(Unnamed { body: kept, hash });
        Ok(hash)
    }

    fn remember_named(&mut self, body: &[u8]) -> Result<Arc<Statement>, Stop> {
        let mut body = Body::new(body, "Parse");
        let (name, text) = (body.cstring()?, body.cstring()?);
        if name.starts_with(NAME_PREFIX) {
            return Err(reply::reserved_name().into());
        }
        let judged = (self.verdict(text), self.epochs());
        let Limits { prepared_per_client: limit, prepared_bytes_per_client: bytes, .. } = self.shared.limits;
        let generation = self.shared.catalogs.generation();
        let world = (generation, self.settings.parse_hash());
        let statements = &self.shared.statements;
        let statement = if judged.0.effects.has(Effects::NAMES_STATEMENT) {
            // The server keeps the columns of what it names, which is another session's own.
            statements.unshared(text, body.rest(), judged)
        } else {
            statements.intern(world, text, body.rest(), judged)
        };
        let statements = self.statements.get_or_insert_default();
        if statements.named.contains_key(name) {
            return Err(reply::statement_exists(name).into());
        }
        if statements.named.len() >= limit {
            return Err(reply::too_many_statements(limit).into());
        }
        if statements.named.bytes() + named::cost(name, text, body.rest()) > bytes {
            return Err(reply::statements_too_large(bytes).into());
        }
        statements.named.insert(name.into(), Arc::clone(&statement));
        Ok(statement)
    }

    /// The server did not take the Parse of these statements: neither it nor the session has them.
    pub(crate) fn forget_unparsed(&mut self, ids: &[StatementId]) {
        for id in ids {
            if let Some(held) = self.held() {
                held.remove(*id);
                if *id == UNNAMED {
                    held.unnamed = UnnamedText::None;
                }
            }
        }
    }

    /// The server has skipped messages of the client, or failed at its Parse: what they had done to the client's
    /// statements is undone.
    pub(crate) fn undo(&mut self, undone: Vec<Undo>) {
        for undo in undone.into_iter().rev() {
            let Some(Statements { named, .. }) = self.statements.as_deref_mut() else { return };
            match undo {
                Undo::Parse(name) => drop(named.remove(&name)),
                Undo::Close(name, statement) => drop(named.insert(name, statement)),
                // It was read once, so it can be again.
                Undo::CloseUnnamed(body) => drop(self.remember_unnamed(&body)),
            }
        }
    }
}
