//! Framing what a client sends: the bytes up to a request's end. Pure: it looks and moves nothing.

use std::ops::Range;

use crate::wire::{
    frame::{BadFrame, HEADER_BYTES, Header},
    read::{Body, Malformed},
};

/// The message that ends a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// One Query message.
    Query,
    /// Extended messages and their Sync.
    Sync,
    /// Extended messages and a Flush, or as many as came before a message of another kind.
    Open,
    /// One FunctionCall message.
    FunctionCall,
    /// CopyData, CopyDone or CopyFail where no COPY is under way: dropped, as PostgreSQL does.
    StrayCopy,
    /// Terminate.
    Terminate,
}

impl End {
    /// Whether it is all of a request, with everything that the server needs to answer it to its end.
    pub(crate) const fn is_complete(self) -> bool {
        matches!(self, Self::Query | Self::Sync)
    }
}

/// A request at the start of a session's inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// The end that tells the kind of request.
    pub(crate) end: End,
    /// The length of the request in the inbox, in bytes.
    pub(crate) len: usize,
    /// Bytes of its last message that have not been read yet: it is too long to be kept in memory.
    pub(crate) streaming: usize,
    /// The subjects of its messages.
    pub(crate) about: About,
}

impl Request {
    const fn whole(end: End, len: usize, about: About) -> Self {
        Self { end, len, streaming: 0, about }
    }

    /// Whether it is made of messages of the extended protocol.
    pub(crate) const fn is_extended(&self) -> bool {
        matches!(self.end, End::Sync | End::Open)
    }

    /// Whether it ends with its Sync.
    pub(crate) fn is_synced(&self) -> bool {
        self.end == End::Sync
    }

    /// The beginning of a request, of which a part of the messages will be sent before the rest is.
    pub(crate) fn beginning(len: usize) -> Self {
        let about = About { statements: true, portals: true, ..About::default() };
        Self { end: End::Open, len, streaming: 0, about }
    }

    /// Whether it runs anything; else it only prepares, describes and closes statements.
    pub(crate) const fn runs(&self) -> bool {
        !self.is_extended() || self.about.portals
    }

    /// Where the name stands in it of the one statement that it runs, if that is all that it does.
    pub(crate) fn bound_name(&self) -> Option<Range<usize>> {
        match self.about.binds {
            Binds::One { name_bytes } if self.is_synced() => {
                Some(BOUND_NAME_AT..BOUND_NAME_AT + usize::from(name_bytes))
            }
            _ => None,
        }
    }

    /// Whether, without a Sync, it only prepares, describes and closes statements. With a Sync of ours it is complete:
    /// what the client runs next, perhaps much later, needs no backend kept for it.
    pub(crate) fn only_prepares(&self) -> bool {
        self.end == End::Open && self.streaming == 0 && !self.runs()
    }
}

/// The subjects of the messages of an extended request, found while looking for its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent facts, not states of one thing")]
pub(crate) struct About {
    /// The messages name prepared statements, or use the unnamed one without having parsed it: they depend on more than
    /// themselves.
    pub(crate) statements: bool,
    /// The messages make, describe, run or close portals.
    pub(crate) portals: bool,
    /// The messages parse statements.
    pub(crate) parses: bool,
    /// The messages describe the unnamed statement.
    pub(crate) describes_unnamed: bool,
    /// The statement that the messages run, if they do nothing else.
    pub(crate) binds: Binds,
}

/// What some messages of the extended protocol have done until now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Binds {
    /// Nothing.
    #[default]
    Nothing,
    /// A Bind of the unnamed portal of one named statement, and after it messages about this portal only. The name has so many
    /// bytes.
    One { name_bytes: u8 },
    /// Anything else.
    More,
}

/// The longest name of a statement, in bytes, whose request is read once only.
const LONGEST_BOUND_NAME: usize = u8::MAX as usize - 1;

/// Where the name of the statement begins in a Bind of the unnamed portal.
const BOUND_NAME_AT: usize = HEADER_BYTES + 1;

impl Binds {
    /// Takes in one whole message. True if it only goes on with a portal that was bound.
    fn goes_on(&mut self, tag: u8, body: &[u8]) -> bool {
        match (&self, tag) {
            (Self::More, _) => false,
            (Self::One { .. }, b'E') if body.first() == Some(&0) => true,
            (Self::One { .. }, b'D') if body == b"P\0" => true,
            (Self::One { .. }, b'S') => true,
            (Self::Nothing, b'B') if body.first() == Some(&0) => {
                let behind = &body[1..body.len().min(LONGEST_BOUND_NAME + 2)];
                *self = match memchr::memchr(0, behind) {
                    Some(len @ 1..) => Self::One { name_bytes: len as u8 },
                    _ => Self::More,
                };
                false
            }
            _ => {
                *self = Self::More;
                false
            }
        }
    }
}

impl About {
    /// Takes in one whole message.
    fn add(&mut self, tag: u8, body: &[u8]) {
        if self.binds.goes_on(tag, body) {
            return;
        }
        if let (Binds::One { .. }, b'B') = (self.binds, tag) {
            (self.statements, self.portals) = (true, true);
            return;
        }
        let is_statement = || body.first() == Some(&b'S');
        match tag {
            b'P' => {
                self.parses = true;
                self.statements |= body.first() != Some(&0);
            }
            b'B' => {
                self.statements |= !self.parses || names_statement(body).unwrap_or(true);
                self.portals = true;
            }
            b'D' if is_statement() => {
                let is_unnamed = body.get(1) == Some(&0);
                self.describes_unnamed |= is_unnamed;
                self.statements |= !(self.parses && is_unnamed);
            }
            b'C' if is_statement() => self.statements = true,
            b'H' | b'S' => {}
            _ => self.portals = true,
        }
    }
}

/// Whether a Bind is of a named statement.
fn names_statement(body: &[u8]) -> Result<bool, Malformed> {
    let mut body = Body::new(body, "Bind");
    body.cstring()?;
    Ok(!body.cstring()?.is_empty())
}

/// Bytes of a pipeline from which on it is passed on before its end: the server works on it meanwhile, and a
/// client learns of an error before it has sent everything.
const PIPELINE_BYTES: usize = 64 * 1024;

/// Finds the first request in `inbox`. `None`: more bytes are needed. A message that does not fit into `limit`
/// bytes is given out in part.
pub(crate) fn first_request(inbox: &[u8], limit: usize) -> Result<Option<Request>, BadFrame> {
    let mut at = 0;
    let mut about = About::default();
    while let Some(header) = Header::peek_client(&inbox[at..])? {
        let end = match header.tag {
            b'Q' => End::Query,
            b'F' => End::FunctionCall,
            b'X' => End::Terminate,
            b'd' | b'c' | b'f' => End::StrayCopy,
            b'S' => End::Sync,
            _ => End::Open,
        };
        let stands_alone = !matches!(end, End::Sync | End::Open);
        if stands_alone && at > 0 {
            return Ok(Some(Request::whole(End::Open, at, about)));
        }
        let Some(message) = inbox.get(at..at + header.len) else {
            return Ok(incomplete(inbox, at, header, end, limit, about));
        };
        if !stands_alone {
            about.add(header.tag, &message[HEADER_BYTES..]);
        }
        at += header.len;
        if end != End::Open || header.tag == b'H' {
            return Ok(Some(Request::whole(end, at, about)));
        }
    }
    Ok(part(inbox, at, limit, about))
}

/// The messages up to `at`, if they are part of a long pipeline.
fn part(inbox: &[u8], at: usize, limit: usize, about: About) -> Option<Request> {
    let is_long = at > 0 && inbox.len() >= limit.min(PIPELINE_BYTES);
    is_long.then_some(Request::whole(End::Open, at, about))
}

fn incomplete(
    inbox: &[u8],
    at: usize,
    header: Header,
    end: End,
    limit: usize,
    about: About,
) -> Option<Request> {
    if at > 0 {
        part(inbox, at, limit, about)
    } else if inbox.len() < limit {
        None
    } else {
        // Of the unread rest nothing is known.
        let about = About { statements: true, portals: true, ..About::default() };
        Some(Request { end, len: inbox.len(), streaming: header.len - inbox.len(), about })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::message;

    fn extended() -> Vec<u8> {
        let mut bytes = Vec::new();
        message::parse(&mut bytes, b"", b"SELECT 1", b"\0\0");
        message::bind(&mut bytes, b"", b"", b"\0\0\0\0\0\0");
        bytes
    }

    #[test]
    fn a_request_ends_at_query_sync_or_flush() {
        let mut bytes = extended();
        let body = bytes.len();
        assert_eq!(first_request(&bytes, 1000), Ok(None));
        message::sync(&mut bytes);
        let about = About { portals: true, parses: true, binds: Binds::More, ..About::default() };
        let request = Request::whole(End::Sync, body + 5, about);
        assert_eq!(first_request(&bytes, 1000), Ok(Some(request)));
        bytes[body] = b'H';
        let request = Request { end: End::Open, ..request };
        assert_eq!(first_request(&bytes, 1000), Ok(Some(request)));
    }

    #[test]
    fn what_comes_before_a_query_is_a_request_of_its_own() {
        let mut bytes = extended();
        let body = bytes.len();
        message::query(&mut bytes, b"SELECT 2");
        let about = About { portals: true, parses: true, binds: Binds::More, ..About::default() };
        let request = Request::whole(End::Open, body, about);
        assert_eq!(first_request(&bytes, 1000), Ok(Some(request)));
        let request = Request::whole(End::Query, bytes.len() - body, About::default());
        assert_eq!(first_request(&bytes[body..], 1000), Ok(Some(request)));
    }

    #[test]
    fn named_statements_and_portals_are_found() {
        let about = |fill: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = Vec::new();
            fill(&mut bytes);
            message::sync(&mut bytes);
            first_request(&bytes, 1000).expect("valid").expect("whole").about
        };
        let unnamed = |bytes: &mut Vec<u8>| message::parse(bytes, b"", b"SELECT 1", b"\0\0");
        let named = |bytes: &mut Vec<u8>| message::parse(bytes, b"a", b"SELECT 1", b"\0\0");
        let bind = |bytes: &mut Vec<u8>, name: &[u8]| message::bind(bytes, b"p", name, b"\0\0\0\0\0\0");
        let of = |about: About| (about.statements, about.portals);
        assert_eq!(of(about(&|bytes| unnamed(bytes))), (false, false));
        assert_eq!(of(about(&|bytes| named(bytes))), (true, false));
        assert_eq!(of(about(&|bytes| bind(bytes, b""))), (true, true));
        assert_eq!(
            of(about(&|bytes| [unnamed(bytes), bind(bytes, b"")].into_iter().collect())),
            (false, true)
        );
        assert_eq!(
            of(about(&|bytes| [unnamed(bytes), bind(bytes, b"a")].into_iter().collect())),
            (true, true)
        );
        assert_eq!(of(about(&|bytes| message::describe_statement(bytes, b""))), (true, false));
        assert_eq!(of(about(&|bytes| message::close_statement(bytes, b"a"))), (true, false));
        assert_eq!(of(about(&|bytes| message::raw(bytes, b'E', b"\0\0\0\0\0"))), (false, true));
        // What cannot be read is looked at again, and refused, where statements are.
        assert_eq!(
            of(about(&|bytes| [unnamed(bytes), message::raw(bytes, b'B', b"x")].into_iter().collect())),
            (true, true)
        );
    }

    #[test]
    fn a_message_above_the_limit_comes_in_part() {
        let mut bytes = Vec::new();
        message::query(&mut bytes, &[b'x'; 500]);
        assert_eq!(first_request(&bytes[..99], 100), Ok(None));
        let about = About { statements: true, portals: true, ..About::default() };
        let request = Request { end: End::Query, len: 100, streaming: bytes.len() - 100, about };
        assert_eq!(first_request(&bytes[..100], 100), Ok(Some(request)));
    }

    #[test]
    fn a_long_pipeline_is_passed_on_before_its_end() {
        let mut bytes = Vec::new();
        while bytes.len() < PIPELINE_BYTES {
            message::bind(&mut bytes, b"", b"s", &[0; 1000]);
        }
        let len = bytes.len();
        message::bind(&mut bytes, b"", b"s", &[0; 1000]);
        let found = |bytes: &[u8], limit| first_request(bytes, limit).expect("valid");
        assert_eq!(found(&bytes[..PIPELINE_BYTES - 1], 1 << 20), None);
        let request = found(&bytes[..len + 7], 1 << 20).expect("long");
        assert_eq!((request.end, request.len, request.streaming), (End::Open, len, 0));
        assert_eq!(found(&bytes[..2500], 2000).map(|request| request.end), Some(End::Open));
        // One long message is not cut before the limit.
        let mut bytes = Vec::new();
        message::bind(&mut bytes, b"", b"s", &vec![0; 2 * PIPELINE_BYTES]);
        assert_eq!(found(&bytes[..PIPELINE_BYTES + 9], 1 << 20), None);
    }

    #[test]
    fn what_runs_one_prepared_statement_is_told_from_all_else() {
        let bind = |portal: &[u8], name: &[u8]| {
            let mut bytes = Vec::new();
            message::bind(&mut bytes, portal, name, b"\0\0\0\0\0\0");
            bytes
        };
        let raw = |tag: u8, body: &[u8]| {
            let mut bytes = Vec::new();
            message::raw(&mut bytes, tag, body);
            bytes
        };
        let (bound, sync) = (bind(b"", b"name"), raw(b'S', b""));
        let (describe, execute) = (raw(b'D', b"P\0"), raw(b'E', &[0; 5]));
        let name = |messages: &[&[u8]]| {
            let bytes = messages.concat();
            let request = first_request(&bytes, 1 << 20).expect("valid").expect("there");
            request.bound_name().map(|name| bytes[name].to_vec())
        };
        for usual in [
            &[&bound[..], &execute, &sync][..],
            &[&bound, &describe, &execute, &sync],
            &[&bound, &execute, &execute, &sync],
            &[&bound, &sync],
        ] {
            assert_eq!(name(usual).as_deref(), Some(&b"name"[..]));
        }
        for unusual in [
            &[&sync[..]][..],
            &[&execute, &sync],
            &[&bound, &execute, &raw(b'H', b"")],
            &[&bound, &bound, &execute, &sync],
            &[&execute, &bound, &sync],
            &[&raw(b'P', b"name\0SELECT 1\0\0\0"), &bound, &execute, &sync],
            &[&bind(b"portal", b"name"), &execute, &sync],
            &[&bind(b"", b""), &execute, &sync],
            &[&bind(b"", &[b'n'; 255]), &execute, &sync],
            &[&raw(b'B', b"\0name"), &execute, &sync],
            &[&bound, &raw(b'E', b"p\0\0\0\0\0"), &sync],
            &[&bound, &raw(b'D', b"Sname\0"), &execute, &sync],
            &[&bound, &raw(b'D', b"Pp\0"), &execute, &sync],
            &[&bound, &execute, &raw(b'C', b"P\0"), &sync],
        ] {
            assert_eq!(name(unusual), None, "{unusual:?}");
        }
        assert!(name(&[&bind(b"", &[b'n'; 254]), &execute, &sync]).is_some());
    }

    proptest::proptest! {
        #[test]
        fn bytes_may_arrive_in_any_pieces(cuts in proptest::collection::vec(0usize..200, 0..8)) {
            let mut bytes = extended();
            message::sync(&mut bytes);
            message::query(&mut bytes, b"SELECT 2");
            let whole = first_request(&bytes, 1000).expect("valid").expect("there");
            for cut in cuts {
                let part = &bytes[..cut.min(bytes.len())];
                let found = first_request(part, 1000).expect("valid");
                proptest::prop_assert_eq!(found.is_some(), part.len() >= whole.len);
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let _ = first_request(&bytes, 100);
        }
    }
}
