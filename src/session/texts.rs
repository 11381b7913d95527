//! The texts and values of a request, read where they are.

use super::{
    classify::Judge,
    named,
    request::{End, Request},
};
use crate::{
    backend::statements::NAME_PREFIX,
    sql::quote_literal,
    wire::{
        client::{Bind, ClientMessage, Framed, Item, Messages, Parse},
        read::Malformed,
    },
};

/// A text that is executed, and what it binds.
type Executed<'a> = (&'a [u8], Option<Bind<'a>>);

impl<'a> Judge<'a> {
    /// The request's messages. Of one that is streamed, which has not come whole, there are none.
    pub(super) fn messages(self, request: Request) -> Messages<'a> {
        Messages::of(&self.inbox[..request.len])
    }

    /// Whether a request runs something itself: is no Bind of a portal, say, that a later one executes.
    pub(super) fn executes(self, request: Request) -> bool {
        let is_execute = |framed: Framed<'_>| matches!(framed.message, ClientMessage::Execute { .. });
        !request.is_extended() || self.messages(request).flatten().any(is_execute)
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
        let Some((text, bind)) = self.executed(request)? else { return Ok(None) };
        let is_plain = bind.is_none_or(|bind| bind.has_no_values().unwrap_or(false));
        Ok(is_plain.then_some(text))
    }

    /// The same with what it binds, in SQL; `None` also for values that are not written as text.
    pub(super) fn executed_sql(self, request: Request) -> Result<Option<String>, Malformed> {
        let Some((text, bind)) = self.executed(request)? else { return Ok(None) };
        let Ok(text) = std::str::from_utf8(text) else { return Ok(None) };
        let Some(bind) = bind.filter(|bind| !bind.has_no_values().unwrap_or(false)) else {
            return Ok(Some(text.to_owned()));
        };
        let mut values = Vec::new();
        let mut is_text = bind.has_only_texts()?;
        bind.for_each_parameter(|_, value| match value.map(std::str::from_utf8) {
            None => values.push("NULL".to_owned()),
            Some(Ok(value)) => {
                values.push(quote_literal(value));
            }
            Some(Err(_)) => is_text = false,
        })?;
        let text = text.trim_end().trim_end_matches(';');
        let sql = format!(
            "PREPARE bulkhead_definition AS {text}\n; EXECUTE bulkhead_definition ({}); DEALLOCATE bulkhead_definition",
            values.join(", ")
        );
        Ok(is_text.then_some(sql))
    }

    /// Whether a request executes one text, and does nothing else.
    pub(super) fn executes_one(self, request: Request) -> Result<bool, Malformed> {
        self.executed(request).map(|executed| executed.is_some())
    }

    /// The text that a request executes which does nothing else, with what it binds if it is an extended one.
    fn executed(self, request: Request) -> Result<Option<Executed<'a>>, Malformed> {
        if request.end == End::Query {
            return self.query_text(request).map(|text| Some((text, None)));
        }
        let mut values: Option<Bind<'a>> = None;
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
                    values = Some(bind);
                    first && bound.is_some() && bind.portal.is_empty()
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
        Ok(bound.filter(|_| executed && request.end == End::Sync).map(|text| (text, values)))
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
