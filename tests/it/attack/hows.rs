//! How a way is gone: by which messages, and what happens around it. The result is bytes to send, one exchange after
//! the other.

use super::way::{Deed, Way};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Simple,
    /// All parts in one Query, before a harmless one.
    Batch,
    /// All parts in one Query, before one that fails.
    BatchError,
    Unnamed,
    /// Parsed under a name, and executed in a later request.
    Named,
    /// Described only: nothing is executed.
    Described,
    /// Bound and not executed, though planned.
    Bound,
    Committed,
    RolledBack,
    /// Rolled back to a savepoint, then committed.
    Savepoint,
    /// In a block with an error behind it; COMMIT rolls back.
    Failed,
    /// One pipeline, with one Sync.
    Pipeline,
    /// The last of the pipeline fails.
    PipelineError,
    /// The first of the pipeline fails, so nothing is executed.
    PipelineErrorFirst,
    /// Each part with its Sync, all in one write, between two that fail.
    PipelineSyncs,
    /// With a Flush behind each part.
    Flushed,
    /// A cancel of one's own at some moment.
    Cancelled,
    /// The client goes without reading.
    Vanished,
}

impl How {
    pub(super) const ALL: [Self; 18] = [
        Self::Simple,
        Self::Unnamed,
        Self::Committed,
        Self::RolledBack,
        Self::Named,
        Self::PipelineError,
        Self::Batch,
        Self::Savepoint,
        Self::Bound,
        Self::BatchError,
        Self::Pipeline,
        Self::Failed,
        Self::PipelineErrorFirst,
        Self::PipelineSyncs,
        Self::Flushed,
        Self::Described,
        Self::Cancelled,
        Self::Vanished,
    ];

    /// Whether the attacker and its twin must come to the same state: moments are not the same for both.
    pub(super) fn is_certain(self) -> bool {
        !matches!(self, Self::Cancelled | Self::Vanished)
    }
}

/// What is sent in one write, and how many ReadyForQuery answer it.
#[derive(Clone, Debug, Default)]
pub(super) struct Exchange {
    pub(super) bytes: Vec<u8>,
    pub(super) readies: usize,
    /// A cancel is sent behind it.
    pub(super) cancelled: bool,
    /// The client goes instead of reading the answer.
    pub(super) abandoned: bool,
}

/// One part of a way: a text with its values, or a call.
struct Part {
    text: Vec<u8>,
    values: Vec<Vec<u8>>,
    /// The OID of the function, if this is a FunctionCall message.
    function: Option<u32>,
}

const FAILS: &[u8] = b"SELECT 1 / (SELECT 0)";

impl Exchange {
    pub(super) fn query(text: &[u8]) -> Self {
        let mut exchange = Self::default();
        exchange.say(b'Q', &[text, b"\0"]);
        exchange.readies = 1;
        exchange
    }

    fn say(&mut self, tag: u8, body: &[&[u8]]) -> &mut Self {
        let length: usize = body.iter().map(|piece| piece.len()).sum();
        self.bytes.push(tag);
        self.bytes.extend_from_slice(&(length as u32 + 4).to_be_bytes());
        for piece in body {
            self.bytes.extend_from_slice(piece);
        }
        self
    }

    pub(super) fn parse(&mut self, name: &[u8], text: &[u8]) -> &mut Self {
        self.say(b'P', &[name, b"\0", text, b"\0\0\0"])
    }

    pub(super) fn bind(&mut self, name: &[u8], values: &[Vec<u8>]) -> &mut Self {
        let mut body = [b"\0", name, b"\0\0\0", &(values.len() as u16).to_be_bytes()].concat();
        put_values(&mut body, values);
        self.say(b'B', &[&body, b"\0\0"])
    }

    pub(super) fn execute(&mut self) -> &mut Self {
        self.say(b'E', &[b"\0\0\0\0\0"])
    }

    fn describe(&mut self, kind_and_name: &[u8]) -> &mut Self {
        self.say(b'D', &[kind_and_name, b"\0"])
    }

    pub(super) fn sync(&mut self) -> &mut Self {
        self.readies += 1;
        self.say(b'S', &[])
    }

    fn call(&mut self, function: u32, values: &[Vec<u8>]) -> &mut Self {
        let mut body = function.to_be_bytes().to_vec();
        body.extend_from_slice(&[0, 0]);
        body.extend_from_slice(&(values.len() as u16).to_be_bytes());
        put_values(&mut body, values);
        self.readies += 1;
        self.say(b'F', &[&body, b"\0\0"])
    }

    /// Parse, Bind and Execute of one part.
    fn unit(&mut self, part: &Part) -> &mut Self {
        self.parse(b"", &part.text).bind(b"", &part.values).describe(b"P").execute()
    }

    fn fails(&mut self) -> &mut Self {
        self.parse(b"", FAILS).bind(b"", &[]).execute()
    }
}

fn put_values(body: &mut Vec<u8>, values: &[Vec<u8>]) {
    for value in values {
        body.extend_from_slice(&(value.len() as u32).to_be_bytes());
        body.extend_from_slice(value);
    }
}

/// The exchanges of a way; `number` is one that no other attack has, `oid` tells that of a function.
pub(super) fn exchanges(way: &Way, how: How, number: u64, oid: Option<u32>) -> Vec<Exchange> {
    let parts = parts(way, number, oid);
    let plain = parts.iter().all(|part| part.function.is_none() && part.values.is_empty());
    // A batch of what has values, and a pipeline with what reads from the client or is a call, are not possible.
    let lonely = way.simple || parts.iter().any(|part| part.function.is_some());
    match how {
        How::Batch | How::BatchError if !plain => asks(&parts),
        _ if !lonely => composed(&parts, how, number),
        How::Committed | How::RolledBack | How::Savepoint | How::Failed | How::Cancelled | How::Vanished => {
            composed(&parts, how, number)
        }
        _ => asks(&parts),
    }
}

fn parts(way: &Way, number: u64, oid: Option<u32>) -> Vec<Part> {
    let plain = |text: Vec<u8>| Part { text, values: Vec::new(), function: None };
    match way.deed {
        Deed::Sql(texts) => {
            texts.iter().map(|text| plain(text.replace("{n}", &number.to_string()).into_bytes())).collect()
        }
        Deed::Bytes(texts) => texts.iter().map(|text| plain(text.to_vec())).collect(),
        Deed::Bound(text, values) => vec![Part {
            values: values.iter().map(|value| value.to_vec()).collect(),
            ..plain(text.as_bytes().to_vec())
        }],
        Deed::Large(name, size) => vec![Part {
            values: vec![name.as_bytes().to_vec(), vec![b'x'; size]],
            ..plain(b"SELECT length(set_config($1, $2, false))".to_vec())
        }],
        Deed::Call(_, values) => vec![Part {
            values: values.iter().map(|value| value.as_bytes().to_vec()).collect(),
            function: oid,
            ..plain(Vec::new())
        }],
    }
}

/// Each part by itself, as simply as it can be sent.
fn asks(parts: &[Part]) -> Vec<Exchange> {
    parts.iter().map(ask).collect()
}

fn ask(part: &Part) -> Exchange {
    let mut exchange = Exchange::default();
    match part.function {
        Some(function) => exchange.call(function, &part.values),
        None if part.values.is_empty() => return Exchange::query(&part.text),
        None => exchange.unit(part).sync(),
    };
    exchange
}

fn composed(parts: &[Part], how: How, number: u64) -> Vec<Exchange> {
    let query = |text: &str| Exchange::query(text.as_bytes());
    let around = |before: &[&str], after: &[&str]| {
        let before = before.iter().map(|text| query(text));
        before.chain(parts.iter().map(ask)).chain(after.iter().map(|text| query(text))).collect()
    };
    let joined = |after: &[u8]| {
        let mut text: Vec<u8> = Vec::new();
        for part in parts {
            text.extend_from_slice(&part.text);
            text.extend_from_slice(b"\n;");
        }
        text.extend_from_slice(after);
        vec![Exchange::query(&text)]
    };
    match how {
        How::Simple => asks(parts),
        How::Batch => joined(b"SELECT 1"),
        How::BatchError => joined(FAILS),
        How::Committed => around(&["BEGIN"], &["COMMIT"]),
        How::RolledBack => around(&["BEGIN"], &["ROLLBACK"]),
        How::Savepoint => around(&["BEGIN", "SAVEPOINT s"], &["ROLLBACK TO s", "COMMIT"]),
        How::Failed => around(&["BEGIN", "SELECT 1"], &["SELECT 1 / (SELECT 0)", "COMMIT"]),
        How::Cancelled | How::Vanished => {
            let mut exchanges = asks(parts);
            if let Some(last) = exchanges.last_mut() {
                last.cancelled = how == How::Cancelled;
                last.abandoned = how == How::Vanished;
            }
            exchanges
        }
        _ => extended(parts, how, number),
    }
}

fn extended(parts: &[Part], how: How, number: u64) -> Vec<Exchange> {
    let mut whole = Exchange::default();
    match how {
        How::Named => {
            let name = |at: usize| format!("way_{number}_{at}").into_bytes();
            for (at, part) in parts.iter().enumerate() {
                let mut parsed = Exchange::default();
                parsed.parse(&name(at), &part.text).sync();
                whole.bytes.append(&mut parsed.bytes);
                whole.readies += 1;
            }
            let executed = parts.iter().enumerate().map(|(at, part)| {
                let mut exchange = Exchange::default();
                exchange.bind(&name(at), &part.values).execute().sync();
                exchange
            });
            return [whole].into_iter().chain(executed).collect();
        }
        How::Unnamed => {
            let unit = |part| {
                let mut exchange = Exchange::default();
                exchange.unit(part).sync();
                exchange
            };
            return parts.iter().map(unit).collect();
        }
        How::PipelineErrorFirst => {
            whole.fails();
            for part in parts {
                whole.unit(part);
            }
        }
        How::PipelineError => {
            for part in parts {
                whole.unit(part);
            }
            whole.fails();
        }
        How::PipelineSyncs => {
            whole.fails().sync();
            for part in parts {
                whole.unit(part).sync();
            }
            whole.fails();
        }
        How::Flushed => {
            for part in parts {
                whole.unit(part).say(b'H', &[]);
            }
        }
        How::Described => {
            for part in parts {
                whole.parse(b"", &part.text).describe(b"S");
            }
        }
        How::Bound => {
            for part in parts {
                whole.parse(b"", &part.text).bind(b"", &part.values);
            }
        }
        _ => {
            for part in parts {
                whole.unit(part);
            }
        }
    }
    whole.sync();
    vec![whole]
}
