//! Types' numbers on a job database that is another server: a session that learns types from the primary is told the
//! primary's, whoever serves it.
//!
//! Only a backend of the job database has a filter ([`Filter`]), and only if some number differs there; to every other
//! one this costs a look at an empty field. A session that is bound to the job database (`dbname=app@jobs`) asks that one
//! for types, too, and is told its numbers as they are.
//!
//! Rows in binary format may contain numbers, and nothing in a row says so: in front of each Execute whose result may be
//! binary its portal is described, unless the client has just done so, and the answer is swallowed.

use std::{
    borrow::Cow,
    task::{Context, Poll, ready},
};

use super::{
    Ended, Session, Stop, View,
    held::Held,
    hold::Leased,
    reply,
    request::Request,
    rewrite::{Rewrite, Rewriting},
};
use crate::{
    backend::{
        Broken,
        filter::{Awaited, Filter},
        protocol::Step,
    },
    pool::Lease,
    route::PoolId,
    socket::Scratch,
    types::{self, Stop as Stopped, Unsaid},
    wire::{
        client::{ClientMessage, Item, Messages},
        message,
        read::Malformed,
    },
};

impl Session {
    /// Sees to it that a backend which was just checked out says the primary's numbers.
    pub(super) fn set_types(&self, lease: &mut Lease, pool: PoolId) {
        if !self.view.snapshot.is_jobs_elsewhere(pool) {
            // It may have had one before a reload.
            lease.types = None;
            return;
        }
        let map = if self.who.bound.is_some() { None } else { self.view.catalog.types() };
        match (map, &mut lease.types) {
            (Some(map), Some(filter)) => filter.replies.set_map(&map),
            (Some(map), types) => *types = Some(Box::new(Filter::new(map))),
            (None, types) => *types = None,
        }
    }

    /// Reads from a backend with a filter once. Ready if something was read, or what a result waited for is there.
    pub(super) fn poll_filtered(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        let Held { leased, .. } = self.held();
        let mut scratch = Scratch::default();
        let chunk = match leased.poll_known(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(broken)) => return Poll::Ready(self.on_broken(broken)),
            Poll::Ready(Ok(true)) => &mut [],
            Poll::Ready(Ok(false)) => match ready!(leased.poll_read(cx, &mut scratch)) {
                Ok(len) => scratch.filled_mut(len),
                Err(broken) => return Poll::Ready(self.on_broken(broken)),
            },
        };
        Poll::Ready(self.on_filtered(chunk))
    }

    fn on_filtered(&mut self, chunk: &mut [u8]) -> Result<(), Ended> {
        let (passed, stop) = self.held().leased.translate(chunk);
        if !passed.is_empty() {
            self.on_backend_bytes(&passed)?;
        }
        // With what was passed the backend may have been given back.
        let Some((stop, Held { view, leased, .. })) = stop.zip(self.held_if_any()) else { return Ok(()) };
        match stop {
            Stopped::Unknown(number) => {
                leased.wait_for_type(number, view);
                Ok(())
            }
            Stopped::Nonsense(what) => {
                let broken = leased.nonsense(&what);
                self.on_broken(broken)
            }
        }
    }
}

impl Leased {
    /// Waits for the type that its replies wait for, if they do: whether it is known now.
    fn poll_known(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Broken>> {
        let Some(filter) = &mut self.types else { return Poll::Ready(Ok(false)) };
        let Some(Awaited { number, reading }) = &mut filter.awaited else { return Poll::Ready(Ok(false)) };
        let read = ready!(reading.as_mut().poll(cx));
        let answered = filter.replies.answer(*number, read);
        filter.awaited = None;
        Poll::Ready(match answered {
            Ok(()) => Ok(true),
            Err(untold) => {
                self.protocol.end_with(reply::untold(&untold));
                Err(self.given_up("its answer has a type that cannot be told"))
            }
        })
    }

    /// Bytes of its replies that go on, in the session's numbers, and why the rest does not, if it does not.
    fn translate<'c>(&mut self, chunk: &'c mut [u8]) -> (Cow<'c, [u8]>, Option<Stopped>) {
        let is_between = self.protocol.is_between_messages();
        let Some(filter) = &mut self.types else { return (Cow::Borrowed(chunk), None) };
        if is_between {
            // What was asked meanwhile has not come this way.
            filter.replies.begin_message();
        }
        filter.replies.translate(chunk)
    }

    fn wait_for_type(&mut self, number: u32, view: &View) {
        if let Some(filter) = &mut self.types {
            let reading = Box::pin(view.snapshot.catalogs.read_types(&view.catalog));
            filter.awaited = Some(Awaited { number, reading });
        }
    }
}

impl Held<'_> {
    /// Whether the types of parameters that a request names have to be looked at.
    pub(super) fn localizes(&self, request: Request) -> bool {
        request.is_extended() && self.leased.types.is_some()
    }

    /// Refuses a request that names a type which the job database does not have. One that is not known may be new: then
    /// the catalogs are read, for some seconds at most.
    pub(super) async fn check_types(self, request: Request) -> Result<(), Stop> {
        let Some(Unsaid::Unknown(_)) = self.unsaid(request)? else { return Ok(()) };
        let read = self.view.snapshot.catalogs.read_types(&self.view.catalog).await;
        if let (Ok(map), Some(filter)) = (&read, &mut self.leased.types) {
            filter.replies.set_map(map);
        }
        match self.unsaid(request)? {
            Some(Unsaid::Unknown(number)) => Err(reply::no_such_type(number, read.err().as_deref()).into()),
            _ => Ok(()),
        }
    }

    /// The first type that a request names and that cannot be said, if it is because nobody knows it; an error, if it is
    /// because only the primary has it.
    fn unsaid(&self, request: Request) -> Result<Option<Unsaid>, Stop> {
        let Some(filter) = &self.leased.types else { return Ok(None) };
        let bytes = self.client.inbox.get(..request.len).unwrap_or_default();
        for framed in Messages::of(bytes) {
            let types = match framed?.message {
                ClientMessage::Parse(parse) => parse.types,
                ClientMessage::Bind(bind) => self.own.parameter_types(bind.statement).0,
                ClientMessage::Describe(Item::Statement(name)) => self.own.parameter_types(name).0,
                _ => continue,
            };
            match types::unsaid_type(filter.map(), types) {
                Some(Unsaid::Lacking(untold)) => return Err(reply::unsaid(&untold).into()),
                Some(unknown) => return Ok(Some(unknown)),
                None => {}
            }
        }
        Ok(None)
    }
}

impl Rewriting<'_> {
    /// Asks what the rows of an Execute will be, if that is not known when they come.
    pub(super) fn ask_rows(&self, message: ClientMessage<'_>, rewrite: &mut Rewrite<'_>) {
        if self.leased.types.is_none() {
            return;
        }
        let described = rewrite.described.take();
        match message {
            ClientMessage::Bind(bind) => {
                // What is malformed is the server's to refuse.
                let is_text = bind.gives_text().unwrap_or(false);
                rewrite.text_portal = is_text.then(|| bind.portal.into());
            }
            ClientMessage::Describe(Item::Portal(portal)) => {
                rewrite.text_portal.take_if(|text| **text != *portal);
                rewrite.described = Some(portal.into());
            }
            ClientMessage::Execute { portal } => {
                let is_known =
                    [&described, &rewrite.text_portal].into_iter().flatten().any(|known| **known == *portal);
                if !is_known {
                    message::describe_portal(rewrite.out, portal);
                    rewrite.push(Step::SwallowRows);
                }
            }
            _ => {}
        }
    }

    /// Puts the values of a Bind message, in `rest`, its part behind the names, into the numbers of the backend.
    pub(super) fn localize_values(&self, statement: &[u8], rest: &mut [u8]) -> Result<(), Malformed> {
        let Some(filter) = &self.leased.types else { return Ok(()) };
        let (declared, told) = self.own.parameter_types(statement);
        match filter.replies.parameters(told.parameters) {
            Some(described) => types::localize_values(filter.map(), described.iter().copied(), rest),
            None => types::localize_values(filter.map(), types::declared(declared), rest),
        }
    }
}
