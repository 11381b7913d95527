//! The end of a transaction that has failed and has no server: it is answered here, however it is said, and what comes
//! behind it goes on as it would on a server. Nothing else is answered: that is refused.

use memchr::memmem;

use super::{
    Ended, Session,
    classify::Judge,
    request::{End, Request},
    transaction::{Ending, LocalTransaction},
};
use crate::{
    route::Demand,
    sql::Control,
    wire::{
        client::{ClientMessage, Item},
        message,
        read::Malformed,
    },
};

/// The server's answer to the end of a failed transaction, COMMIT or not.
const ENDED: &str = "ROLLBACK";

impl Judge<'_> {
    /// How much of an extended request can be answered: up to the first Execute of COMMIT or ROLLBACK, or all of it if
    /// it executes nothing; and whether that ends the transaction.
    fn answerable(self, request: Request) -> Result<Option<(usize, bool)>, Malformed> {
        if request.end == End::FunctionCall {
            return Ok(None);
        }
        let mut parsed: Vec<&[u8]> = Vec::new();
        let mut bound: Option<&[u8]> = None;
        let mut len = 0;
        for framed in self.messages(request) {
            let framed = framed?;
            len += framed.whole.len();
            let fits = match framed.message {
                ClientMessage::Parse(parse) => {
                    parsed.push(parse.name);
                    self.is_end(parse.text) && !self.refuses_statement(parse)
                }
                ClientMessage::Bind(bind) => {
                    bound = Some(bind.portal);
                    self.knows_end(&parsed, bind.statement) && bind.has_no_values()?
                }
                ClientMessage::Describe(Item::Statement(name)) => self.knows_end(&parsed, name),
                ClientMessage::Describe(Item::Portal(portal)) => bound == Some(portal),
                ClientMessage::Execute { portal } if bound == Some(portal) => {
                    return Ok(Some((len, true)));
                }
                ClientMessage::Execute { .. } => false,
                _ => true,
            };
            if !fits {
                return Ok(None);
            }
        }
        // A portal that is executed later would have to be remembered.
        Ok(bound.is_none().then_some((request.len, false)))
    }

    /// Whether the statement of this name is COMMIT or ROLLBACK; `parsed` just now, as only these can be.
    fn knows_end(self, parsed: &[&[u8]], name: &[u8]) -> bool {
        parsed.contains(&name) || self.known_text(name).is_some_and(|text| self.is_end(text))
    }

    fn is_end(self, text: &[u8]) -> bool {
        matches!(self.control_of(text), Control::Commit | Control::Rollback)
    }

    /// The effect of a text on the transaction, however it is to be read otherwise.
    fn control_of(self, text: &[u8]) -> Control {
        self.view.snapshot.classifier.classify(&self.view.catalog.load(), text).control
    }

    /// Whether a request begins with the end of its transaction.
    pub(super) fn begins_with_end(self, request: Request) -> bool {
        if request.streaming > 0 {
            return false;
        }
        let texts = self.texts(request);
        texts.first().is_some_and(|text| self.is_end(text) || leading_end(text).is_some())
    }

    /// The effect that a request may have on the transaction that it is part of.
    pub(super) fn ending(self, request: Request, demand: &Demand) -> Ending {
        let verdict = &demand.verdict;
        match verdict.control {
            // What was not read may be anything.
            _ if verdict.is_unread() => Ending::Commit,
            Control::None | Control::Begin { .. } | Control::Prologue => Ending::No,
            Control::Rollback => Ending::Rollback,
            Control::Commit => Ending::Commit,
            Control::Other => {
                let names_end = |text: &[u8]| {
                    let text = text.to_ascii_lowercase();
                    ["commit", "end", "prepare"]
                        .iter()
                        .any(|word| memmem::find(&text, word.as_bytes()).is_some())
                };
                if self.texts(request).iter().any(|text| names_end(text)) {
                    Ending::Commit
                } else {
                    Ending::No
                }
            }
        }
    }
}

impl Session {
    /// Answers a request in a failed transaction as far as it ends it, and says whether there was anything to answer.
    pub(super) fn answers_failed(&mut self, request: Request) -> Result<bool, Ended> {
        if request.end == End::Query {
            let judge = self.judge();
            return match judge.control_of(judge.query_text(request)?) {
                // Failed => No
                Control::Commit | Control::Rollback => {
                    self.hold.transaction = LocalTransaction::No;
                    self.complete(request, ENDED)?;
                    Ok(true)
                }
                _ => Ok(self.goes_on_behind_end(request)?),
            };
        }
        let Some((len, ends)) = self.judge().answerable(request)? else { return Ok(false) };
        if ends {
            // Failed => No
            self.hold.transaction = LocalTransaction::No;
        }
        // What comes behind is a request of its own.
        let end = if len == request.len { request.end } else { End::Open };
        self.complete(Request { end, len, ..request }, ENDED)?;
        Ok(true)
    }

    /// If a text is several statements of which the first one ends the transaction (asyncpg's reset), all of it is sent:
    /// the rest runs outside of any transaction, as it would on the server, where ROLLBACK only warns. Any other end is
    /// sent as ABORT, which is what it is; the request is then to be looked at again.
    fn goes_on_behind_end(&mut self, request: Request) -> Result<bool, Malformed> {
        let text = self.judge().query_text(request)?;
        let Some(end) = leading_end(text) else { return Ok(false) };
        // Failed => No
        if end.eq_ignore_ascii_case(ENDED.as_bytes()) {
            self.hold.transaction = LocalTransaction::No;
            return Ok(false);
        }
        let (before, behind) = (text.len() - text.trim_ascii_start().len(), end.len());
        // As long as what it takes the place of, if it can be: errors tell where they are in the text.
        let mut anew = [&text[..before], b"ABORT"].concat();
        anew.resize(anew.len().max(before + behind), b' ');
        anew.extend_from_slice(&text[before + behind..]);
        let mut query = Vec::with_capacity(request.len + ENDED.len());
        message::query(&mut query, &anew);
        self.client.inbox.replace(request.len, &query);
        self.hold.transaction = LocalTransaction::No;
        Ok(true)
    }
}

/// The word that begins a text of several statements, if the first one ends a transaction.
fn leading_end(text: &[u8]) -> Option<&[u8]> {
    let text = text.trim_ascii();
    let at = memchr::memchr(b';', text).filter(|at| at + 1 < text.len())?;
    let mut words = text[..at].split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let is = |word: &[u8], all: &[&str]| all.iter().any(|one| word.eq_ignore_ascii_case(one.as_bytes()));
    let end = words.next().filter(|word| is(word, &["commit", "end", "rollback", "abort"]))?;
    // Not ROLLBACK TO, COMMIT AND CHAIN, COMMIT PREPARED.
    words.all(|word| is(word, &["work", "transaction"])).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_goes_on_behind_an_end_is_found() {
        for (text, end) in [
            ("ROLLBACK; SELECT 1", Some("ROLLBACK")),
            (" commit work;SELECT 1;", Some("commit")),
            ("END TRANSACTION ; x", Some("END")),
            ("COMMIT", None),
            ("COMMIT ; ", None),
            ("ROLLBACK TO s; SELECT 1", None),
            ("COMMIT AND CHAIN; SELECT 1", None),
            ("COMMIT PREPARED 'a'; SELECT 1", None),
            ("SELECT 1; COMMIT", None),
            ("", None),
        ] {
            assert_eq!(leading_end(text.as_bytes()), end.map(str::as_bytes), "{text}");
        }
    }
}
