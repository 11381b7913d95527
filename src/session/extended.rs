//! Prepared statements of the protocol, made independent of the backend: a client's name stands for a text; the
//! text has one name on every backend and is parsed there when it is missing (`prepared.rs`).

use super::{
    Session, Stop,
    held::Held,
    hold::Leased,
    prepared::{UNNAMED, key, means_its_own},
    reply::{self, Reply},
    request::{End, Request},
    rewrite::{Done, Rewrite, Rewriting, Rewritten, ServerName},
};
use crate::{
    backend::{
        protocol::{Awaits, Step, Undo},
        statements::{Known, NAME_PREFIX, Statement, StatementId, UnnamedText},
    },
    sql::Effects,
    wire::{
        TxStatus,
        client::{Bind, ClientMessage, Framed, Item, Messages, Parse},
        frame::Header,
        message,
        read::Malformed,
    },
};

/// Stands for a statement that is closed as soon as it is parsed, or that never was.
const NOBODYS: StatementId = StatementId(u64::MAX);

impl Leased {
    /// Whether the request can be sent as it is: it names no prepared statement, and uses the unnamed one only
    /// after parsing it.
    pub(super) fn passes_unchanged(&self, request: Request) -> bool {
        // What is described and not used at once will be used later, and then must be what it was.
        let is_for_later = request.about.describes_unnamed && !request.about.portals;
        if self.types.is_some() {
            // What stands in it are not this backend's numbers.
            return !request.is_extended();
        }
        !request.is_extended() || !(self.counts_replies(request) || request.about.statements || is_for_later)
    }

    /// Between a Flush and its Sync every reply must be told from the others.
    fn counts_replies(&self, request: Request) -> bool {
        request.end == End::Open || self.protocol.is_open()
    }

    /// The server did not take the Parse of these statements: neither it nor the session has them.
    pub(super) fn forget_unparsed(&mut self, ids: &[StatementId]) {
        for id in ids {
            self.statements.remove(*id);
            if *id == UNNAMED {
                self.statements.unnamed = UnnamedText::None;
            }
        }
    }
}

impl Rewriting<'_> {
    /// Writes the request, which is in `inbox`, for the backend to `out`, with the statements that the backend lacks, or a
    /// part of the request, if what becomes of the rest depends on the replies. A refusal means that nothing was noted.
    pub(super) fn rewrite(
        &mut self,
        inbox: &[u8],
        request: Request,
        effects: Effects,
        out: &mut Vec<u8>,
    ) -> Result<Rewritten, Stop> {
        let mut rewrite = Rewrite::new(out, self.leased.counts_replies(request), effects);
        rewrite.may_repeat = self.may_parse_anew(request);
        self.rewrite_messages(&inbox[..request.len], request, &mut rewrite)?;
        Ok(rewrite.finish())
    }

    /// Whether what was executed last may let go of all statements, and more follows that may name some.
    fn ends_part(&self, mut after: Messages<'_>, request: Request, rewrite: &Rewrite<'_>) -> bool {
        if !(self.leased.left.may_discard || rewrite.effects.has(Effects::DISCARDS)) {
            return false;
        }
        let is_end =
            |framed: Framed<'_>| matches!(framed.message, ClientMessage::Sync | ClientMessage::Flush);
        let goes_on = after.any(|framed| !framed.is_ok_and(is_end));
        goes_on || !request.is_synced()
    }

    fn rewrite_messages(
        &mut self,
        messages: &[u8],
        request: Request,
        rewrite: &mut Rewrite<'_>,
    ) -> Result<(), Stop> {
        self.close_surplus(rewrite);
        if request.streaming > 0 {
            // It is one message and no other.
            return match self.rewrite_streamed(messages, request, rewrite)? {
                Done::Sent => Ok(()),
                Done::Cut => {
                    rewrite.cut = Some(0);
                    Ok(())
                }
                Done::Changed => Err(reply::plan_changed().into()),
            };
        }
        let mut rest = Messages::of(messages);
        loop {
            let from = rest.rest();
            let Some(framed) = rest.next() else { break };
            let Framed { message, whole } = framed?;
            self.ask_rows(message, rewrite);
            let done = match message {
                ClientMessage::Parse(parse) => self.rewrite_parse(parse, whole, rewrite),
                ClientMessage::Bind(bind) => self.rewrite_bind(bind, 0, rewrite),
                ClientMessage::Describe(item) => self.rewrite_describe(item, whole, rewrite),
                ClientMessage::Close(item) => {
                    self.rewrite_close(item, whole, rewrite);
                    Ok(Done::Sent)
                }
                ClientMessage::Execute { .. } => {
                    rewrite.send(whole);
                    rewrite.pass(Awaits::Execute);
                    rewrite.executed = true;
                    Ok(Done::Sent)
                }
                _ => {
                    rewrite.send(whole);
                    Ok(Done::Sent)
                }
            };
            match done {
                Ok(Done::Sent) => {}
                Ok(Done::Cut) => {
                    rewrite.cut = Some(messages.len() - from.len());
                    break;
                }
                Ok(Done::Changed) => {
                    let mut error = Vec::new();
                    reply::result_has_changed(&mut error);
                    rewrite.refuse(error, self.parses_unread(from), request.is_synced());
                    break;
                }
                Err(Stop::Refused(reply)) => {
                    let mut error = Vec::new();
                    reply.error(&mut error);
                    rewrite.refuse(error, self.parses_unread(from), request.is_synced());
                    break;
                }
                Err(ended) => return Err(ended),
            }
            rewrite.may_repeat &= matches!(message, ClientMessage::Parse(_) | ClientMessage::Close(_));
            let executes = matches!(message, ClientMessage::Execute { .. });
            if executes && self.ends_part(rest.clone(), request, rewrite) {
                rewrite.cut = Some(messages.len() - rest.rest().len());
                break;
            }
        }
        Ok(())
    }

    /// Whether messages, which will not be sent, have a Parse of a text that cannot be read.
    fn parses_unread(&self, messages: &[u8]) -> bool {
        let judge = self.judge();
        Messages::of(messages).flatten().any(|framed| match framed.message {
            ClientMessage::Parse(parse) => judge.verdict(parse.text).is_unread(),
            _ => false,
        })
    }

    /// The beginning of a message whose rest is streamed.
    fn rewrite_streamed(
        &mut self,
        part: &[u8],
        request: Request,
        rewrite: &mut Rewrite<'_>,
    ) -> Result<Done, Stop> {
        let Ok(Some(Header { tag, .. })) = Header::peek(part) else { return Ok(Done::Sent) };
        let body = &part[5..];
        match tag {
            b'B' => self.rewrite_bind(Bind::read(body)?, request.streaming, rewrite),
            b'P' if body.first() != Some(&0) => {
                Err(reply::statement_too_long(self.view.snapshot.limits.request_buffer).into())
            }
            _ => {
                // Its text is not kept, so it cannot be parsed anywhere else: as long as it lives, the session stays.
                self.own.forget_unnamed();
                let is_parsed = tag == b'P';
                self.leased.statements.unnamed =
                    if is_parsed { UnnamedText::Streamed } else { UnnamedText::None };
                rewrite.send(part);
                rewrite.pass(Awaits::Parse);
                Ok(Done::Sent)
            }
        }
    }

    fn rewrite_parse(
        &mut self,
        parse: Parse<'_>,
        whole: &[u8],
        rewrite: &mut Rewrite<'_>,
    ) -> Result<Done, Stop> {
        if parse.name.is_empty() {
            let hash = self.own.remember_unnamed(parse.body, self.view.snapshot.catalogs.generation());
            self.leased.statements.unnamed = UnnamedText::Kept(hash);
            rewrite.send(whole);
            rewrite.pass(Awaits::Parse);
            return Ok(Done::Sent);
        }
        let judge = self.judge();
        let judged = judge.judged(parse.text);
        let is_own = self.means_its_own(rewrite);
        let statement = self.own.remember_named(parse, judged, is_own, self.view)?;
        let name: Box<[u8]> = key(parse.name).into();
        if self.may_have_sql_names() {
            // If SQL has prepared one of this name, the server says so.
            message::parse(rewrite.out, &*name, &statement.text, &statement.types);
            rewrite.push(Step::SwallowParsed(NOBODYS));
            message::close_statement(rewrite.out, &*name);
            rewrite.push(Step::SwallowClosed(NOBODYS));
        }
        let known = self.leased.statements.touch(statement.id);
        let is_there = known != Known::Missing;
        // Few texts may be parsed in a failed transaction, and the server knows which ones.
        let must_be_new =
            self.status() == TxStatus::Failed || self.leased.statements.is_suspect(statement.id);
        if is_there && !must_be_new {
            rewrite.insert_parsed(Undo::Parse(name));
            return Ok(Done::Sent);
        }
        if is_there {
            rewrite.close(statement.id);
        }
        self.parse_new(&statement, rewrite);
        rewrite.push(Step::PassParsed(statement.id, name));
        Ok(Done::Sent)
    }

    fn rewrite_bind(
        &mut self,
        Bind { portal, statement: name, rest }: Bind<'_>,
        streaming: usize,
        rewrite: &mut Rewrite<'_>,
    ) -> Result<Done, Stop> {
        let there = match self.server_name(name, rewrite)? {
            Ok(there) => there,
            Err(done) => return Ok(done),
        };
        message::bind_head(rewrite.out, portal, &there, rest.rest(), streaming);
        if streaming == 0 {
            let from = rewrite.out.len() - rest.rest().len();
            // What is malformed is the server's to refuse.
            let _ = self.localize_values(name, &mut rewrite.out[from..]);
        }
        rewrite.pass(Awaits::Bind);
        rewrite.bound = None;
        if rewrite.is_untold {
            rewrite.bound = self.own.untold(name).map(|id| (portal.into(), key(name).into(), id));
        }
        Ok(Done::Sent)
    }

    fn rewrite_describe(
        &mut self,
        item: Item<'_>,
        whole: &[u8],
        rewrite: &mut Rewrite<'_>,
    ) -> Result<Done, Stop> {
        let told = match item {
            Item::Statement(name) => {
                let there = match self.server_name(name, rewrite)? {
                    Ok(there) => there,
                    Err(done) => return Ok(done),
                };
                message::describe_statement(rewrite.out, &there);
                self.own.untold(name).filter(|_| rewrite.is_untold).map(|id| (key(name).into(), id))
            }
            Item::Portal(name) => {
                rewrite.send(whole);
                let bound = rewrite.bound.take().filter(|(portal, ..)| **portal == *name);
                bound.map(|(_, name, id)| (name, id))
            }
        };
        match told {
            // What it is told now binds us.
            Some((name, id)) => rewrite.push(Step::PassDescribed(name, id)),
            None => rewrite.pass(Awaits::Describe),
        }
        Ok(Done::Sent)
    }

    fn rewrite_close(&mut self, item: Item<'_>, whole: &[u8], rewrite: &mut Rewrite<'_>) {
        let Item::Statement(name) = item else {
            rewrite.send(whole);
            rewrite.pass(Awaits::Close);
            return;
        };
        if name.is_empty() {
            self.close_unnamed(whole, rewrite);
            return;
        }
        if name.starts_with(NAME_PREFIX) {
            // A client has none of this name, but the backend may.
            message::close_statement(rewrite.out, &NOBODYS);
            rewrite.pass(Awaits::Close);
            return;
        }
        if self.closes_there(name) {
            self.leased.left.effects |= Effects::ENDS_STATE;
            rewrite.send(whole);
            rewrite.pass(Awaits::Close);
            return;
        }
        let closed = self.own.statements.as_mut().and_then(|all| all.named.remove(key(name)));
        if let Some(closed) = closed {
            rewrite.insert_closed(Undo::Close(key(name).into(), closed));
        } else {
            rewrite.send(whole);
            rewrite.pass(Awaits::Close);
        }
    }

    /// Closes the unnamed statement. Where the backend still has one, it does no harm to anybody, unless it is long.
    fn close_unnamed(&mut self, whole: &[u8], rewrite: &mut Rewrite<'_>) {
        if let Some(closed) = self.own.statements.as_mut().and_then(|all| all.unnamed.take()) {
            rewrite.insert_closed(Undo::CloseUnnamed(closed.body.into()));
            return;
        }
        self.leased.statements.unnamed = UnnamedText::None;
        rewrite.send(whole);
        rewrite.pass(Awaits::Close);
    }

    /// The name of a statement on the backend; parsed there first if it is missing.
    fn server_name<'a>(
        &mut self,
        name: &'a [u8],
        rewrite: &mut Rewrite<'_>,
    ) -> Result<Result<ServerName<'a>, Done>, Reply> {
        rewrite.is_untold = name.is_empty();
        if name.is_empty() {
            let done = self.settle_unnamed(rewrite)?;
            return Ok(done.map_or(Ok(ServerName::Unnamed), Err));
        }
        if name.starts_with(NAME_PREFIX) {
            return Err(reply::no_such_statement(name));
        }
        let Some((id, told, is_used)) = self.own.named(name) else {
            // SQL's PREPARE shares the names; a session that has used it is pinned to its backend.
            return if self.leased.may_have_sql_names() {
                Ok(Ok(ServerName::Theirs(name)))
            } else {
                Err(reply::no_such_statement(name))
            };
        };
        rewrite.is_untold = !told.is_told();
        let known = self.leased.statements.touch(id);
        match known {
            Known::There(shape) if is_used && (!told.is_told() || told.fits(shape)) => {
                Ok(Ok(ServerName::Ours(id)))
            }
            _ => self.settle_named(name, known, rewrite),
        }
    }

    fn parse_new(&mut self, statement: &Statement, rewrite: &mut Rewrite<'_>) {
        message::parse(rewrite.out, &statement.id, &statement.text, &statement.types);
        self.leased.statements.insert(statement.id);
    }

    /// Closes the statements that the backend has too many of.
    fn close_surplus(&mut self, rewrite: &mut Rewrite<'_>) {
        let limit = self.view.snapshot.limits.prepared_per_backend;
        let evictions = &self.view.snapshot.metrics.server_statements_evicted;
        for id in self.leased.statements.evict(limit, evictions) {
            rewrite.close(id);
        }
    }

    /// Remembers the unnamed statements of a request, in `inbox`, that is sent as it is. Gives how many there are.
    pub(super) fn remember_unchanged(&mut self, inbox: &[u8], request: Request) -> Result<usize, Malformed> {
        if !request.about.parses {
            return Ok(0);
        }
        let (mut last, mut count) = (None, 0);
        for framed in Messages::of(&inbox[..request.len]) {
            if let ClientMessage::Parse(parse) = framed?.message {
                last = Some(self.own.remember_unnamed(parse.body, self.view.snapshot.catalogs.generation()));
                count += 1;
            }
        }
        if let Some(hash) = last {
            self.leased.statements.unnamed = UnnamedText::Kept(hash);
        }
        Ok(count)
    }
}

impl Session {
    /// The unnamed statement is not known any more, neither here nor on the backend, if there is one.
    pub(super) fn forget_unnamed(&mut self) {
        self.own.forget_unnamed();
        if let Some(Held { leased, .. }) = self.held_if_any() {
            leased.statements.unnamed = UnnamedText::None;
        }
    }

    /// Remembers the statement of a Parse that is answered here.
    pub(super) fn remember_parsed(&mut self, parse: Parse<'_>) -> Result<(), Stop> {
        if parse.name.is_empty() {
            self.own.remember_unnamed(parse.body, self.view.snapshot.catalogs.generation());
            return Ok(());
        }
        let judge = self.judge();
        let judged = judge.judged(parse.text);
        let is_own = means_its_own(&self.hold.transaction, self.hold.backend());
        self.own.remember_named(parse, judged, is_own, &self.view)?;
        Ok(())
    }
}
