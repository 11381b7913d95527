//! Framing what a client sends: the bytes up to a request's end. Pure: it looks at headers and moves nothing.

use crate::wire::frame::{BadFrame, Header};

/// What ends a request.
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

/// A request at the start of a session's inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// What it is.
    pub(crate) end: End,
    /// Its bytes in the inbox.
    pub(crate) len: usize,
    /// Bytes of its last message that have not been read yet: it is too long to be kept in memory.
    pub(crate) streaming: usize,
}

/// Finds the first request in `inbox`. `None`: more bytes are needed. A message that does not fit into `limit`
/// bytes is given out in part.
pub(crate) fn first_request(inbox: &[u8], limit: usize) -> Result<Option<Request>, BadFrame> {
    let mut at = 0;
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
            return Ok(Some(Request { end: End::Open, len: at, streaming: 0 }));
        }
        let whole = inbox.len() - at >= header.len;
        if !whole {
            return Ok(incomplete(inbox, at, header, end, limit));
        }
        at += header.len;
        if end != End::Open || header.tag == b'H' {
            return Ok(Some(Request { end, len: at, streaming: 0 }));
        }
    }
    let full = at > 0 && inbox.len() >= limit;
    Ok(full.then_some(Request { end: End::Open, len: at, streaming: 0 }))
}

fn incomplete(inbox: &[u8], at: usize, header: Header, end: End, limit: usize) -> Option<Request> {
    if inbox.len() < limit {
        None
    } else if at > 0 {
        Some(Request { end: End::Open, len: at, streaming: 0 })
    } else {
        Some(Request { end, len: inbox.len(), streaming: header.len - inbox.len() })
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
        let request = Request { end: End::Sync, len: body + 5, streaming: 0 };
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
        let request = Request { end: End::Open, len: body, streaming: 0 };
        assert_eq!(first_request(&bytes, 1000), Ok(Some(request)));
        let request = Request { end: End::Query, len: bytes.len() - body, streaming: 0 };
        assert_eq!(first_request(&bytes[body..], 1000), Ok(Some(request)));
    }

    #[test]
    fn a_message_above_the_limit_comes_in_part() {
        let mut bytes = Vec::new();
        message::query(&mut bytes, &[b'x'; 500]);
        assert_eq!(first_request(&bytes[..99], 100), Ok(None));
        let request = Request { end: End::Query, len: 100, streaming: bytes.len() - 100 };
        assert_eq!(first_request(&bytes[..100], 100), Ok(Some(request)));
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
