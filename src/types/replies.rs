//! The replies of a job backend, put into the primary's numbers before anything else looks at them.

use std::{
    borrow::Cow,
    collections::HashMap,
    hash::{BuildHasher, Hasher},
    mem,
    sync::Arc,
};

use foldhash::fast::RandomState;

use super::{
    FIRST_USER_NUMBER,
    map::{Layout, TypeMap, Untold},
    value::{Halt, Walk, translate},
};
use crate::wire::{
    frame::{BadFrame, HEADER_BYTES, Header},
    read::{Body, Malformed},
};

/// A description that takes more is none of PostgreSQL's: of 65,535 parameters, or of 1,664 columns.
const DESCRIPTION_BYTES_MAX: usize = 320 * 1024;

/// Statements of a backend whose parameters contain numbers, of which it is remembered what they are.
const PARAMETERS_MAX: usize = 1_000;

/// The filter of one backend's replies.
#[derive(Debug)]
pub struct Replies {
    map: Arc<TypeMap>,
    at: At,
    /// Bytes that the server has sent, and that cannot go on yet: of a message in which numbers stand.
    held: Vec<u8>,
    /// The beginning of a header, which has gone on.
    header: Vec<u8>,
    /// The layouts of the columns of the rows that come next, if there are numbers in any.
    columns: Vec<Layout>,
    /// The number of a type of which nothing better will be known.
    given: Option<u32>,
    /// Parameters of statements that have been described, if numbers stand in their values, by [`parameters_hash`].
    parameters: HashMap<u64, Box<[u32]>, RandomState>,
}

/// Where the replies stand.
#[derive(Debug)]
enum At {
    /// Before a message.
    Header,
    /// In a message of no interest, of which so many bytes are left.
    Within(usize),
    /// In a row with so many bytes left.
    Row(Walk, usize),
}

/// The reason why what has come cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// A type of this number has not been heard of: the catalogs are to be read, and then [`Replies::answer`] is to
    /// be called.
    #[error("the type with number {0} is not known")]
    Unknown(u32),
    /// The server sends what makes no sense.
    #[error("{0}")]
    Nonsense(String),
}

/// A number that differs, as good as surely, for different ParameterDescriptions.
pub fn parameters_hash(body: &[u8]) -> u64 {
    let mut hasher = foldhash::fast::FixedState::default().build_hasher();
    hasher.write(body);
    // Never zero: that is for what was not told.
    hasher.finish() | 2
}

impl Replies {
    /// The filter of a backend that begins a conversation.
    pub fn new(map: Arc<TypeMap>) -> Self {
        Self {
            map,
            at: At::Header,
            held: Vec::new(),
            header: Vec::new(),
            columns: Vec::new(),
            given: None,
            parameters: HashMap::default(),
        }
    }

    /// The numbers that it goes by.
    pub fn map(&self) -> &Arc<TypeMap> {
        &self.map
    }

    /// Goes by other numbers from now on.
    pub fn set_map(&mut self, map: &Arc<TypeMap>) {
        if !Arc::ptr_eq(&self.map, map) {
            self.map = Arc::clone(map);
            self.parameters.clear();
        }
    }

    /// The catalogs were read, and this is what they say, or they could not be for this reason: a type of which nothing is
    /// known now is told by its own number, if that stands for nothing else on the primary.
    pub fn answer(&mut self, number: u32, read: Result<Arc<TypeMap>, String>) -> Result<(), Untold> {
        let reason = match read {
            Ok(map) => {
                self.set_map(&map);
                "no catalog has it".to_owned()
            }
            // What the number stands for on the primary is not known.
            Err(reason) => return Err(self.map.untold(number, &reason)),
        };
        if self.map.to_primary().own(number).is_none() && self.is_unknown(number) {
            return Err(self.map.untold(number, &reason));
        }
        self.given = Some(number);
        Ok(())
    }

    fn is_unknown(&self, number: u32) -> bool {
        translate(self.map.to_primary(), None, &mut number.to_be_bytes()).is_err()
    }

    /// The layouts of a statement's parameters that were described so, by [`parameters_hash`], if there are numbers in any.
    pub fn parameters(&self, hash: u64) -> Option<&[u32]> {
        self.parameters.get(&hash).map(|numbers| &**numbers)
    }

    /// The server's next message begins, wherever this stood: what came before has gone another way.
    pub fn begin_message(&mut self) {
        if self.held.is_empty() {
            self.at = At::Header;
            self.header.clear();
        }
    }

    /// Takes bytes from the server; gives those that go on, and why the rest cannot, if it cannot.
    pub fn translate<'c>(&mut self, chunk: &'c mut [u8]) -> (Cow<'c, [u8]>, Option<Stop>) {
        if self.held.is_empty() {
            let (done, stop) = self.walk(chunk);
            self.held.extend_from_slice(&chunk[done..]);
            return (Cow::Borrowed(&chunk[..done]), stop);
        }
        let mut whole = mem::take(&mut self.held);
        whole.extend_from_slice(chunk);
        let (done, stop) = self.walk(&mut whole);
        self.held.extend_from_slice(&whole[done..]);
        whole.truncate(done);
        (Cow::Owned(whole), stop)
    }

    /// Translates what is there. Gives how many bytes go on.
    fn walk(&mut self, bytes: &mut [u8]) -> (usize, Option<Stop>) {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &mut bytes[at..];
            let here = rest.len();
            let (done, stop) = match &mut self.at {
                At::Header => self.on_header(rest),
                At::Within(left) => {
                    let done = here.min(*left);
                    *left -= done;
                    if *left == 0 {
                        self.at = At::Header;
                    }
                    (done, None)
                }
                At::Row(..) => self.on_row(rest),
            };
            at += done;
            if stop.is_some() || done == 0 {
                return (at, stop);
            }
        }
        (at, None)
    }

    fn on_row(&mut self, rest: &mut [u8]) -> (usize, Option<Stop>) {
        let At::Row(walk, left) = &mut self.at else { return (0, None) };
        let here = rest.len().min(*left);
        let way = self.map.to_primary();
        let (mut done, halt) = walk.run(way, &self.columns, self.given, &mut rest[..here]);
        let is_whole = here == *left;
        if is_whole && halt.is_none() {
            done = here;
        }
        *left -= done;
        if *left == 0 {
            self.at = At::Header;
        }
        let stop = halt.map(|halt| match halt {
            Halt::Unknown(number) => Stop::Unknown(number),
            Halt::TooDeep => Stop::Nonsense("a value within too many others".to_owned()),
        });
        (done, stop)
    }

    fn on_header(&mut self, rest: &mut [u8]) -> (usize, Option<Stop>) {
        let is_held = self.header.is_empty() && matches!(rest.first(), Some(b'T' | b't' | b'D'));
        let missing = HEADER_BYTES - self.header.len();
        if rest.len() < missing {
            if is_held {
                return (0, None);
            }
            // Whoever comes next keeps it: between two messages nothing may be held here.
            self.header.extend_from_slice(rest);
            return (rest.len(), None);
        }
        self.header.extend_from_slice(&rest[..missing]);
        let header = Header::peek(&mem::take(&mut self.header));
        let header = match header {
            Ok(Some(header)) => header,
            Ok(None) => return (0, None),
            Err(bad) => return (0, Some(nonsense(&bad))),
        };
        match header.tag {
            b'T' | b't' => return self.on_description(header, rest),
            b'D' if !self.columns.is_empty() && header.len > HEADER_BYTES => {
                let body = header.len - HEADER_BYTES;
                self.at = At::Row(Walk::of_row(body), body);
                return (missing, None);
            }
            // A result has ended, or begins of which nothing was told.
            b'C' | b's' | b'I' | b'E' | b'Z' | b'n' | b'2' => self.columns.clear(),
            _ => {}
        }
        if header.len > HEADER_BYTES {
            self.at = At::Within(header.len - HEADER_BYTES);
        }
        (missing, None)
    }

    fn on_description(&mut self, header: Header, rest: &mut [u8]) -> (usize, Option<Stop>) {
        if header.len > DESCRIPTION_BYTES_MAX {
            return (0, Some(nonsense(&BadFrame::Flood { tag: header.tag })));
        }
        let Some(message) = rest.get_mut(..header.len) else { return (0, None) };
        let body = &mut message[HEADER_BYTES..];
        let told = if header.tag == b'T' { self.on_columns(body) } else { self.on_parameters(body) };
        match told {
            Ok(None) => (header.len, None),
            Ok(Some(number)) => (0, Some(Stop::Unknown(number))),
            Err(malformed) => (0, Some(nonsense(&malformed))),
        }
    }

    /// Translates a RowDescription; the number that is not known, if there is one: then nothing is changed.
    fn on_columns(&mut self, body: &mut [u8]) -> Result<Option<u32>, Malformed> {
        let way = self.map.to_primary();
        let (mut layouts, mut fields) = (Vec::new(), Vec::new());
        let mut reader = Body::new(body, "RowDescription");
        for _ in 0..reader.int16()?.cast_unsigned() {
            reader.cstring()?;
            let at = body.len() - reader.rest().len();
            let table = reader.int32()?.cast_unsigned();
            reader.int16()?;
            let mut number = reader.take(4)?.to_vec();
            let layout = way.layout(read(&number));
            reader.take(6)?;
            let is_binary = reader.int16()? == 1;
            layouts.push(if is_binary { layout } else { Layout::Plain });
            if let Err(Halt::Unknown(unknown)) = translate(way, self.given, &mut number) {
                return Ok(Some(unknown));
            }
            fields.push((at, table, number));
        }
        for (at, table, number) in fields {
            body[at + 6..at + 10].copy_from_slice(&number);
            let same = self.map.table(table);
            body[at..at + 4].copy_from_slice(&same.to_be_bytes());
            if same == 0 {
                body[at + 4..at + 6].copy_from_slice(&[0; 2]);
            }
        }
        let is_plain = layouts.iter().all(|layout| *layout == Layout::Plain);
        self.columns = if is_plain { Vec::new() } else { layouts };
        Ok(None)
    }

    /// Translates a ParameterDescription in the same way, and remembers what contains numbers.
    fn on_parameters(&mut self, body: &mut [u8]) -> Result<Option<u32>, Malformed> {
        let way = self.map.to_primary();
        let count = usize::from(Body::new(body, "ParameterDescription").int16()?.cast_unsigned());
        let Some(numbers) = body.get(2..).filter(|numbers| numbers.len() == count * 4) else {
            return Err(Body::new(body, "ParameterDescription").malformed());
        };
        let mut translated = numbers.to_vec();
        for number in translated.chunks_exact_mut(4) {
            if let Err(Halt::Unknown(unknown)) = translate(way, self.given, number) {
                return Ok(Some(unknown));
            }
        }
        body[2..].copy_from_slice(&translated);
        let numbers: Box<[u32]> = translated.chunks_exact(4).map(read).collect();
        if numbers.iter().any(|number| self.map.layout_on_primary(*number) != Layout::Plain) {
            if self.parameters.len() >= PARAMETERS_MAX {
                self.parameters.clear();
            }
            self.parameters.insert(parameters_hash(body), numbers);
        }
        Ok(None)
    }
}

fn read(number: &[u8]) -> u32 {
    number.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

fn nonsense(what: &dyn std::fmt::Display) -> Stop {
    Stop::Nonsense(what.to_string())
}

/// Whether a number of a Parse message is not PostgreSQL's own.
pub(super) const fn is_users(number: u32) -> bool {
    number >= FIRST_USER_NUMBER
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        types::{
            map::tests::map,
            value::tests::{Value, number, value},
        },
        wire::{TxStatus, message},
    };

    /// A RowDescription: types and formats, of a table of this number.
    fn columns(out: &mut Vec<u8>, table: u32, columns: &[(u32, u16)]) {
        let mut body = (columns.len() as u16).to_be_bytes().to_vec();
        for (number, format) in columns {
            body.extend_from_slice(b"name\0");
            body.extend_from_slice(&table.to_be_bytes());
            body.extend_from_slice(&[0, if table == 0 { 0 } else { 3 }]);
            body.extend_from_slice(&number.to_be_bytes());
            body.extend_from_slice(&[0, 4, 255, 255, 255, 255]);
            body.extend_from_slice(&format.to_be_bytes());
        }
        message::raw(out, b'T', &body);
    }

    /// Everything that a server says of two statements, with numbers from this one on.
    fn conversation(first: u32, table: u32, values: &[Value]) -> Vec<u8> {
        let mut out = Vec::new();
        message::parse_complete(&mut out);
        let parameters = [[0, 2].as_slice(), &(first + 1).to_be_bytes(), &23_u32.to_be_bytes()].concat();
        message::raw(&mut out, b't', &parameters);
        let kinds = values.iter().map(|value| number(first, value.kind()));
        columns(&mut out, table, &kinds.clone().map(|kind| (kind, 0)).collect::<Vec<_>>());
        message::bind_complete(&mut out);
        columns(&mut out, table, &kinds.clone().map(|kind| (kind, 1)).collect::<Vec<_>>());
        for _ in 0..2 {
            let mut row = (values.len() as u16).to_be_bytes().to_vec();
            for value in values {
                value.write(first, &mut row);
            }
            message::raw(&mut out, b'D', &row);
        }
        message::command_complete(&mut out, "SELECT 2");
        message::parameter_status(&mut out, "TimeZone", "UTC");
        // Text, which is nobody's to change.
        message::bind_complete(&mut out);
        message::raw(&mut out, b'D', b"\0\x01\0\0\0\x14\0\0\0\x01\0\0\0\0\0\0\x4e\x20\0\0\0\x01\0\0\0\x01");
        message::command_complete(&mut out, "SELECT 1");
        message::ready(&mut out, TxStatus::Idle);
        out
    }

    fn passed(bytes: &[u8], pieces: &[usize]) -> Vec<u8> {
        let mut replies = Replies::new(Arc::new(map()));
        let (mut out, mut rest) = (Vec::new(), bytes);
        for piece in pieces.iter().cycle() {
            let (now, later) = rest.split_at((*piece).min(rest.len()));
            rest = later;
            let mut chunk = now.to_vec();
            let (done, stop) = replies.translate(&mut chunk);
            assert!(stop.is_none(), "{stop:?}");
            out.extend_from_slice(&done);
            if rest.is_empty() {
                break;
            }
        }
        assert!(replies.held.is_empty());
        out
    }

    proptest! {
        /// However the bytes come, what goes on is what the primary would have said.
        #[test]
        fn replies_are_those_of_the_primary(
            values in prop::collection::vec(value(), 1..4),
            pieces in prop::collection::vec(1..60_usize, 1..5),
        ) {
            let (there, here) = (conversation(20_000, 20_009, &values), conversation(30_000, 30_009, &values));
            for pieces in [&pieces[..], &[1], &[3], &[usize::MAX]] {
                prop_assert!(passed(&there, pieces) == here, "in pieces of {pieces:?}");
            }
            // A table that is not the same has no number.
            let (there, here) = (conversation(20_000, 20_003 + 900, &values), conversation(30_000, 0, &values));
            prop_assert_eq!(passed(&there, &[usize::MAX]), here);
        }

        /// Nothing is held of messages in which nothing stands: a backend that is given back owes nothing.
        #[test]
        fn nothing_is_held_between_messages(cut in 1..6_usize) {
            for tag in [b'S', b'N', b'A', b'Z', b'C', b'1'] {
                let mut message = Vec::new();
                message::raw(&mut message, tag, b"x");
                let mut replies = Replies::new(Arc::new(map()));
                let (one, two) = message.split_at_mut(cut);
                prop_assert_eq!(replies.translate(one).0.len(), cut);
                prop_assert!(replies.held.is_empty());
                prop_assert_eq!(replies.translate(two).0.len(), 6 - cut);
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut replies = Replies::new(Arc::new(map()));
            columns_with_array(&mut replies);
            let mut chunk = bytes;
            let _ = replies.translate(&mut chunk);
        }
    }

    fn columns_with_array(replies: &mut Replies) {
        let mut description = Vec::new();
        columns(&mut description, 0, &[(20_001, 1)]);
        assert!(replies.translate(&mut description).1.is_none() && replies.columns == [Layout::Array]);
    }

    #[test]
    fn parameters_that_contain_numbers_are_remembered() {
        let mut replies = Replies::new(Arc::new(map()));
        let mut description = Vec::new();
        let body = [[0, 2].as_slice(), &20_001_u32.to_be_bytes(), &20_000_u32.to_be_bytes()].concat();
        message::raw(&mut description, b't', &body);
        let (told, _) = replies.translate(&mut description);
        let hash = parameters_hash(&told[5..]);
        assert_eq!(replies.parameters(hash), Some(&[30_001, 30_000][..]));
        let mut description = Vec::new();
        message::raw(&mut description, b't', &[[0, 1].as_slice(), &20_000_u32.to_be_bytes()].concat());
        let (told, _) = replies.translate(&mut description);
        let hash = parameters_hash(&told[5..]);
        assert_eq!(replies.parameters(hash), None);
    }

    #[test]
    fn an_unknown_type_waits_for_the_catalogs() {
        for (read, told) in [
            (Ok(map()), Ok(25_000)),
            (Err("the server is gone".to_owned()), Err("is not known: the server is gone")),
        ] {
            let mut replies = Replies::new(Arc::new(map()));
            let mut description = Vec::new();
            message::parse_complete(&mut description);
            columns(&mut description, 0, &[(23, 0), (25_000, 0)]);
            let (done, stop) = replies.translate(&mut description);
            assert!(matches!(stop, Some(Stop::Unknown(25_000))), "{stop:?}");
            assert_eq!(done.len(), 5, "what came before goes on");
            let answered = replies.answer(25_000, read.map(Arc::new));
            match told {
                Err(reason) => {
                    let untold = answered.expect_err("nothing is known").to_string();
                    assert!(untold.ends_with(reason), "{untold}");
                }
                Ok(number) => {
                    answered.expect("the number is free");
                    let (done, stop) = replies.translate(&mut []);
                    assert!(stop.is_none());
                    let mut expected = Vec::new();
                    columns(&mut expected, 0, &[(23, 0), (number, 0)]);
                    assert_eq!(*done, expected);
                }
            }
        }
        // The number of another type on the primary.
        let mut replies = Replies::new(Arc::new(map()));
        let mut description = Vec::new();
        columns(&mut description, 0, &[(30_000, 0)]);
        assert!(matches!(replies.translate(&mut description).1, Some(Stop::Unknown(30_000))));
        replies.answer(30_000, Ok(Arc::new(map()))).expect_err("it stands for another type");
    }
}
