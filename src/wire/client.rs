//! The messages of a client, read once: what each step of a request looks at, without copying anything.
//!
//! Source: PostgreSQL documentation, "Message Formats"; what a server accepts: `exec_*_message` in postgres.c.

use super::{
    frame::split_message,
    read::{Body, Malformed},
};

/// What one message of a client says.
#[derive(Clone, Copy, Debug)]
pub enum ClientMessage<'a> {
    /// Query.
    Query {
        /// The statements.
        text: &'a [u8],
    },
    /// Parse.
    Parse(Parse<'a>),
    /// Bind.
    Bind(Bind<'a>),
    /// Describe.
    Describe(Item<'a>),
    /// Close.
    Close(Item<'a>),
    /// Execute.
    Execute {
        /// The portal's name, empty for the unnamed one.
        portal: &'a [u8],
    },
    /// Sync.
    Sync,
    /// Flush.
    Flush,
    /// Any other: FunctionCall, data of COPY, Terminate, a password.
    Other,
}

/// A Parse message.
#[derive(Clone, Copy, Debug)]
pub struct Parse<'a> {
    /// The statement's name, empty for the unnamed one.
    pub name: &'a [u8],
    /// Its text.
    pub text: &'a [u8],
    /// The count of parameter types, and their OIDs.
    pub types: &'a [u8],
    /// The text, a zero, and `types`.
    pub body: &'a [u8],
}

/// A Bind message.
#[derive(Clone, Copy, Debug)]
pub struct Bind<'a> {
    /// The portal's name, empty for the unnamed one.
    pub portal: &'a [u8],
    /// The statement's name, empty for the unnamed one.
    pub statement: &'a [u8],
    /// Formats and values: what is behind the names.
    pub rest: Body<'a>,
}

/// What a Describe or Close message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// The prepared statement of this name.
    Statement(&'a [u8]),
    /// The portal of this name. The server refuses what is neither of them.
    Portal(&'a [u8]),
}

/// A message and its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Framed<'a> {
    /// What it says.
    pub message: ClientMessage<'a>,
    /// All of its bytes.
    pub whole: &'a [u8],
}

/// The whole messages at the front of some bytes, one after the other.
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> ClientMessage<'a> {
    /// Reads the body of a message with this tag.
    #[expect(clippy::inline_always, reason = "as for the iterator")]
    #[inline(always)]
    pub fn read(tag: u8, body: &'a [u8]) -> Result<Self, Malformed> {
        Ok(match tag {
            b'Q' => Self::Query { text: Body::new(body, "Query").text()? },
            b'P' => Self::Parse(Parse::read(body)?),
            b'B' => Self::Bind(Bind::read(body)?),
            b'D' => Self::Describe(Item::read(body, "Describe")?),
            b'C' => Self::Close(Item::read(body, "Close")?),
            b'E' => Self::Execute { portal: Body::new(body, "Execute").cstring()? },
            b'S' => Self::Sync,
            b'H' => Self::Flush,
            _ => Self::Other,
        })
    }
}

impl<'a> Parse<'a> {
    /// Reads a Parse message's body.
    #[inline]
    pub fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut body = Body::new(body, "Parse");
        let name = body.cstring()?;
        let behind = body.rest();
        Ok(Self { name, text: body.text()?, types: body.rest(), body: behind })
    }
}

impl<'a> Bind<'a> {
    /// Reads the names of a Bind message, of which the rest may be yet to come.
    #[inline]
    pub fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut body = Body::new(body, "Bind");
        Ok(Self { portal: body.cstring()?, statement: body.cstring()?, rest: body })
    }

    /// Whether it binds no values.
    pub fn has_no_values(self) -> Result<bool, Malformed> {
        Ok(self.values()?.int16()? == 0)
    }

    /// Whether all columns of its result are to be text.
    pub fn gives_text(self) -> Result<bool, Malformed> {
        let mut body = self.values()?;
        for _ in 0..body.int16()?.cast_unsigned() {
            if let Ok(len) = usize::try_from(body.int32()?) {
                body.take(len)?;
            }
        }
        let mut is_text = true;
        for _ in 0..body.int16()?.cast_unsigned() {
            is_text &= body.int16()? == 0;
        }
        Ok(is_text)
    }

    /// Whether all of its values are written as text.
    pub fn has_only_texts(self) -> Result<bool, Malformed> {
        let mut body = self.rest;
        let mut are_texts = true;
        for _ in 0..body.int16()?.cast_unsigned() {
            are_texts &= body.int16()? == 0;
        }
        Ok(are_texts)
    }

    /// Calls `look` with each value that is not NULL.
    pub fn for_each_value(self, mut look: impl FnMut(&'a [u8])) -> Result<(), Malformed> {
        self.for_each_parameter(|_, value| value.into_iter().for_each(&mut look))
    }

    /// Calls `look` with the position of each parameter, from zero, and its value; `None` is NULL.
    pub fn for_each_parameter(self, mut look: impl FnMut(usize, Option<&'a [u8]>)) -> Result<(), Malformed> {
        let mut body = self.values()?;
        for parameter in 0..usize::from(body.int16()?.cast_unsigned()) {
            let value = match usize::try_from(body.int32()?) {
                Ok(len) => Some(body.take(len)?),
                Err(_) => None,
            };
            look(parameter, value);
        }
        Ok(())
    }

    /// The count of values, and the values: what is behind the formats of the parameters.
    fn values(self) -> Result<Body<'a>, Malformed> {
        let mut body = self.rest;
        for _ in 0..body.int16()?.cast_unsigned() {
            body.int16()?;
        }
        Ok(body)
    }
}

impl<'a> Item<'a> {
    /// Reads the body of a message of this kind.
    #[inline]
    pub fn read(body: &'a [u8], what: &'static str) -> Result<Self, Malformed> {
        let mut body = Body::new(body, what);
        let (kind, name) = (body.byte()?, body.cstring()?);
        Ok(if kind == b'S' { Self::Statement(name) } else { Self::Portal(name) })
    }
}

impl<'a> Messages<'a> {
    /// The whole messages at the front of these bytes.
    pub const fn of(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The bytes behind the last message that was given out.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Framed<'a>, Malformed>;

    #[expect(
        clippy::inline_always,
        reason = "who looks at few kinds of messages spends nothing on reading the others"
    )]
    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        let before = self.rest;
        // What is no message at all was refused when the request's end was looked for.
        let (tag, body, after) = split_message(before).ok().flatten()?;
        self.rest = after;
        let whole = &before[..before.len() - after.len()];
        Some(ClientMessage::read(tag, body).map(|message| Framed { message, whole }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::message;

    /// One of each kind that a request is made of.
    fn pipeline() -> Vec<u8> {
        let mut bytes = Vec::new();
        message::parse(&mut bytes, b"s".as_slice(), b"SELECT $1", &[0, 1, 0, 0, 0, 23]);
        message::bind(
            &mut bytes,
            b"p",
            b"s".as_slice(),
            b"\0\x01\0\x01\0\x02\0\0\0\x01x\xff\xff\xff\xff\0\0",
        );
        message::raw(&mut bytes, b'D', b"Pp\0");
        message::raw(&mut bytes, b'E', b"p\0\0\0\0\0");
        message::raw(&mut bytes, b'C', b"Ss\0");
        message::sync(&mut bytes);
        bytes
    }

    #[test]
    fn every_kind_is_read() {
        let bytes = pipeline();
        let mut messages = Messages::of(&bytes);
        let mut next = || messages.next().expect("there is one more").expect("it is well formed").message;
        let ClientMessage::Parse(parse) = next() else { panic!("no Parse") };
        assert_eq!((parse.name, parse.text, parse.types.len()), (&b"s"[..], &b"SELECT $1"[..], 6));
        let ClientMessage::Bind(bind) = next() else { panic!("no Bind") };
        assert_eq!((bind.portal, bind.statement), (&b"p"[..], &b"s"[..]));
        let mut values = Vec::new();
        bind.for_each_parameter(|at, value| values.push((at, value))).expect("it is well formed");
        assert_eq!(values, [(0, Some(&b"x"[..])), (1, None)]);
        assert_eq!(bind.has_no_values(), Ok(false));
        assert!(matches!(next(), ClientMessage::Describe(Item::Portal(b"p"))));
        assert!(matches!(next(), ClientMessage::Execute { portal: b"p" }));
        assert!(matches!(next(), ClientMessage::Close(Item::Statement(b"s"))));
        assert!(matches!(next(), ClientMessage::Sync));
        assert!(messages.next().is_none() && messages.rest().is_empty());
    }

    #[test]
    fn a_body_that_ends_too_early_is_an_error() {
        for (tag, body) in [(b'Q', &b"SELECT"[..]), (b'P', b"s\0SELECT"), (b'B', b"p\0"), (b'D', b"")] {
            assert!(ClientMessage::read(tag, body).is_err(), "{}", tag.escape_ascii());
        }
        let bind = Bind::read(b"\0\0\0\0\0\x01\0\0\0\x05x").expect("its names are there");
        assert!(bind.for_each_value(|_| {}).is_err());
    }

    proptest::proptest! {
        /// Wherever the bytes are cut, the same messages come out of the first part as of the whole.
        #[test]
        fn a_message_is_given_out_when_it_is_whole(cut in 0usize..200) {
            let bytes = pipeline();
            let cut = cut.min(bytes.len());
            let mut messages = Messages::of(&bytes[..cut]);
            let mut len = 0;
            for (framed, whole) in messages.by_ref().zip(Messages::of(&bytes)) {
                let (framed, whole) = (framed.expect("well formed"), whole.expect("well formed"));
                proptest::prop_assert_eq!(framed.whole, whole.whole);
                len += framed.whole.len();
            }
            proptest::prop_assert_eq!(messages.rest(), &bytes[len..cut]);
            let next = Messages::of(&bytes[len..]).next().map(|next| next.expect("well formed").whole.len());
            proptest::prop_assert!(next.is_none_or(|next| len + next > cut));
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            for framed in Messages::of(&bytes).flatten() {
                if let ClientMessage::Bind(bind) = framed.message {
                    let _ = bind.for_each_value(|_| {});
                }
            }
        }
    }
}
