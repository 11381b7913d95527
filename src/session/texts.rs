//! The texts and values of a request, read where they are.

use super::{
    classify::Judge,
    named,
    request::{End, Request},
};
use crate::{
    backend::statements::NAME_PREFIX,
    wire::{
        client::{ClientMessage, Item, Messages, Parse},
        read::Malformed,
    },
};

impl<'a> Judge<'a> {
    /// The request's messages. Of one that is streamed, which has not come whole, there are none.
    pub(super) fn messages(self, request: Request) -> Messages<'a> {
        Messages::of(&self.inbox[..request.len])
    }

    /// The SQL texts of a request, as far as they can be read.
    pub(super) fn texts(self, request: Request) -> Vec<&'a [u8]> {
        if request.end == End::Query {
            return self.query_text(request).ok().into_iter().collect();
        }
        let text = |message| match message {
            ClientMessage::Parse(parse) => Some(parse.text),
            ClientMessage::Bind(bind) => self.known_text(bind.statement),
            ClientMessage::Describe(Item::Statement(name)) => self.known_text(name),
            _ => None,
        };
        self.messages(request).flatten().filter_map(|framed| text(framed.message)).collect()
    }

    /// The text of the session's statement of this name.
    pub(super) fn known_text(self, name: &[u8]) -> Option<&'a [u8]> {
        let statements = self.own.statements.as_deref()?;
        if name.is_empty() {
            return Some(statements.unnamed.as_ref()?.text());
        }
        statements.own(name).map(|own| &*own.text)
    }

    /// Looks at each value that a request binds.
    pub(super) fn for_each_bound_value(self, request: Request, mut look: impl FnMut(&'a [u8])) {
        for framed in self.messages(request).flatten() {
            if let ClientMessage::Bind(bind) = framed.message {
                // A malformed one is the server's to refuse.
                let _ = bind.for_each_value(&mut look);
            }
        }
    }

    /// The text that a request executes which does nothing else: it parses it perhaps, binds it, without values, to the
    /// unnamed portal, and executes that once. Anything else is the server's to answer.
    pub(super) fn executed_text(self, request: Request) -> Result<Option<&'a [u8]>, Malformed> {
        if request.end == End::Query {
            return self.query_text(request).map(Some);
        }
        let mut parsed: Option<(&[u8], &[u8])> = None;
        let mut bound: Option<&[u8]> = None;
        let mut executed = false;
        for framed in self.messages(request) {
            let fits = match framed?.message {
                ClientMessage::Parse(parse) => {
                    let first = parsed.replace((parse.name, parse.text)).is_none() && bound.is_none();
                    first && !self.refuses_statement(parse)
                }
                ClientMessage::Bind(bind) => {
                    let first = bound.is_none();
                    bound = match parsed {
                        Some((known, text)) => (known == bind.statement).then_some(text),
                        None => self.known_text(bind.statement),
                    };
                    first && bound.is_some() && bind.portal.is_empty() && bind.has_no_values()?
                }
                ClientMessage::Describe(Item::Statement(name)) => {
                    parsed.is_some_and(|(known, _)| known == name)
                }
                ClientMessage::Describe(Item::Portal(portal)) => bound.is_some() && portal.is_empty(),
                ClientMessage::Execute { portal } => {
                    let first = !std::mem::replace(&mut executed, true);
                    first && bound.is_some() && portal.is_empty()
                }
                ClientMessage::Close(_) => executed,
                _ => true,
            };
            if !fits {
                return Ok(None);
            }
        }
        Ok(bound.filter(|_| executed && request.end == End::Sync))
    }

    /// Whether this Parse fails: then nothing of what follows it is executed.
    pub(super) fn refuses_statement(self, Parse { name, text, types, .. }: Parse<'_>) -> bool {
        let limits = &self.view.snapshot.limits;
        let full = |all: &super::SessionStatements| {
            all.named.len() >= limits.prepared_per_client
                || all.named.bytes() + named::cost(name, text, types) > limits.prepared_bytes_per_client
        };
        let known = |all: &super::SessionStatements| all.own(name).is_some();
        name.starts_with(NAME_PREFIX)
            || (!name.is_empty() && self.own.statements.as_deref().is_some_and(|all| known(all) || full(all)))
    }
}
