//! Values in binary format in which numbers of types stand, translated where they are.
//!
//! The bytes may come in pieces: whatever is incomplete at the end of one, a dozen bytes at most, is looked at with the
//! next. Source of the formats: `array_send`, `record_send`, `range_send`, `multirange_send`.

use super::map::{Layout, Other, Way};

/// Values within values. PostgreSQL's own limit of its stack is far below.
const DEPTH_MAX: usize = 1_000;

/// Bytes in front of an array's dimensions: how many there are, whether there are NULLs, the element's type.
const ARRAY_HEAD: usize = 12;

/// Bytes of the count in front of a row's values.
const COUNT: usize = 2;

/// Bytes of a dimension.
const DIMENSION: usize = 8;

/// Where a walk over values stands.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// Values that are being looked at, the innermost last.
    within: Vec<Within>,
    /// Bytes that come first and say nothing.
    skip: usize,
}

/// Something that is made of values, with the bytes of it that are still to come.
#[derive(Clone, Copy, Debug)]
struct Within {
    left: usize,
    part: Part,
}

/// The part of it that comes next.
#[derive(Clone, Copy, Debug)]
enum Part {
    /// The next of a row's columns, by its position.
    Column(usize),
    /// The beginning of a value of this layout.
    Head(Layout),
    /// Values of one layout, each with its length.
    Values(Layout),
    /// Fields of a record, each with its type and its length.
    Fields,
}

/// The reason why a walk ends before its bytes do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Halt {
    /// The number of no type that is known.
    Unknown(u32),
    /// More values within values than there can be.
    TooDeep,
}

impl Walk {
    /// A walk over the values of a row, which take so many bytes, with their count in front.
    pub(super) fn of_row(bytes: usize) -> Self {
        Self {
            within: vec![Within { left: bytes.saturating_sub(COUNT), part: Part::Column(0) }],
            skip: COUNT,
        }
    }

    /// Translates numbers in these bytes, as far as they go. Gives how many are done with: the others are needed again,
    /// in front of those that follow. `given` is the number that is told of an unknown one.
    pub(super) fn run(
        &mut self,
        way: Way<'_>,
        columns: &[Layout],
        given: Option<u32>,
        bytes: &mut [u8],
    ) -> (usize, Option<Halt>) {
        let mut at = 0;
        loop {
            let skipped = self.skip.min(bytes.len() - at);
            self.skip -= skipped;
            at += skipped;
            if self.skip > 0 {
                return (at, None);
            }
            let Some(&Within { left, part }) = self.within.last() else { return (bytes.len(), None) };
            let need = need(part);
            if left < need {
                // Its end, or what is no such value: nothing of it says anything.
                self.skip = left;
                self.within.pop();
                continue;
            }
            let Some(head) = bytes.get_mut(at..at + need) else { return (at, None) };
            if self.within.len() > DEPTH_MAX {
                return (at, Some(Halt::TooDeep));
            }
            if let Err(halt) = self.step(way, columns, given, head) {
                return (at, Some(halt));
            }
            at += need;
        }
    }

    /// Takes in what comes next, which is all there.
    fn step(
        &mut self,
        way: Way<'_>,
        columns: &[Layout],
        given: Option<u32>,
        head: &mut [u8],
    ) -> Result<(), Halt> {
        let Some(Within { left, part }) = self.within.last_mut() else { return Ok(()) };
        *left -= head.len();
        match *part {
            Part::Column(position) => {
                *part = Part::Column(position + 1);
                let layout = columns.get(position).copied().unwrap_or(Layout::Plain);
                self.enter(layout, head);
            }
            Part::Values(layout) => self.enter(layout, head),
            Part::Fields => {
                let (number, len) = head.split_at_mut(4);
                let layout = way.layout(read(number));
                if let Err(halt) = translate(way, given, number) {
                    *left += number.len() + len.len();
                    return Err(halt);
                }
                self.enter(layout, len);
            }
            Part::Head(Layout::Array) => {
                let number = &mut head[8..];
                let layout = way.layout(read(number));
                if let Err(halt) = translate(way, given, number) {
                    *left += ARRAY_HEAD;
                    return Err(halt);
                }
                let dimensions = (read(&head[..4]) as usize).saturating_mul(DIMENSION).min(*left);
                *left -= dimensions;
                self.skip = dimensions;
                self.go_on(layout);
            }
            Part::Head(Layout::Record) => *part = Part::Fields,
            Part::Head(Layout::Range(of)) => self.go_on(way.layout(of)),
            Part::Head(Layout::Multirange(of)) => *part = Part::Values(Layout::Range(of)),
            Part::Head(Layout::Plain) => self.go_on(Layout::Plain),
        }
        Ok(())
    }

    /// Values of this layout follow.
    fn go_on(&mut self, layout: Layout) {
        let Some(within) = self.within.last_mut() else { return };
        within.part = Part::Values(layout);
        if layout == Layout::Plain {
            self.skip += within.left;
            within.left = 0;
        }
    }

    /// A value of this length follows; a negative one is NULL's.
    fn enter(&mut self, layout: Layout, len: &[u8]) {
        let Some(around) = self.within.last_mut() else { return };
        let len = usize::try_from(read(len).cast_signed()).unwrap_or(0).min(around.left);
        around.left -= len;
        if layout == Layout::Plain {
            self.skip = len;
        } else {
            self.within.push(Within { left: len, part: Part::Head(layout) });
        }
    }
}

/// Bytes that are looked at together.
const fn need(part: Part) -> usize {
    match part {
        Part::Column(_) | Part::Values(_) | Part::Head(Layout::Record | Layout::Multirange(_)) => 4,
        Part::Fields => 8,
        Part::Head(Layout::Array) => ARRAY_HEAD,
        Part::Head(Layout::Range(_)) => 1,
        Part::Head(Layout::Plain) => 0,
    }
}

fn read(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

/// Puts the other server's number in the place of one.
pub(super) fn translate(way: Way<'_>, given: Option<u32>, number: &mut [u8]) -> Result<(), Halt> {
    let own = read(number);
    let other = match way.other(own) {
        Other::Number(other) => other,
        Other::Lacks { is_taken: false } => own,
        Other::Lacks { is_taken: true } | Other::Unknown => {
            given.filter(|given| *given == own).and_then(|given| way.own(given)).ok_or(Halt::Unknown(own))?
        }
    };
    number.copy_from_slice(&other.to_be_bytes());
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::map::{TypeMap, tests::map};

    /// A value as a server sends it; numbers are those of `known`, from the first one on.
    #[derive(Clone, Debug)]
    pub(in crate::types) enum Value {
        Null,
        Plain(Vec<u8>),
        /// An array: its dimensions, and the offset of its element's type.
        Array(usize, u32, Vec<Value>),
        /// Offsets of its fields' types.
        Record(Vec<(u32, Value)>),
        Range(Vec<Value>),
        Multirange(Vec<Value>),
    }

    const INT: u32 = 23;
    const STATE: u32 = 0;
    const STATES: u32 = 1;
    const PAIR: u32 = 2;
    const PAIRS: u32 = 4;
    const RANGE: u32 = 6;
    const MULTIRANGE: u32 = 7;

    impl Value {
        /// The offset of the type; built-in ones are their own.
        pub(in crate::types) fn kind(&self) -> u32 {
            match self {
                Self::Null | Self::Plain(_) => STATE,
                Self::Array(_, PAIR, _) => PAIRS,
                Self::Array(..) => STATES,
                Self::Record(_) => PAIR,
                Self::Range(_) => RANGE,
                Self::Multirange(_) => MULTIRANGE,
            }
        }

        /// The length and the bytes, with numbers from this one on.
        pub(in crate::types) fn write(&self, first: u32, out: &mut Vec<u8>) {
            let at = out.len();
            out.extend_from_slice(&[0xff; 4]);
            match self {
                Self::Null => return,
                Self::Plain(bytes) => out.extend_from_slice(bytes),
                Self::Array(dimensions, of, values) => {
                    out.extend_from_slice(&(*dimensions as u32).to_be_bytes());
                    out.extend_from_slice(&1_u32.to_be_bytes());
                    out.extend_from_slice(&number(first, *of).to_be_bytes());
                    (0..dimensions * 2).for_each(|_| out.extend_from_slice(&1_u32.to_be_bytes()));
                    for value in values {
                        value.write(first, out);
                    }
                }
                Self::Record(fields) => {
                    out.extend_from_slice(&(fields.len() as u32).to_be_bytes());
                    for (of, value) in fields {
                        out.extend_from_slice(&number(first, *of).to_be_bytes());
                        value.write(first, out);
                    }
                }
                Self::Range(bounds) => {
                    out.push(2);
                    for value in bounds {
                        value.write(first, out);
                    }
                }
                Self::Multirange(ranges) => {
                    out.extend_from_slice(&(ranges.len() as u32).to_be_bytes());
                    for value in ranges {
                        value.write(first, out);
                    }
                }
            }
            let len = (out.len() - at - 4) as u32;
            out[at..at + 4].copy_from_slice(&len.to_be_bytes());
        }
    }

    pub(in crate::types) fn number(first: u32, offset: u32) -> u32 {
        if offset == INT { INT } else { first + offset }
    }

    fn pair() -> impl Strategy<Value = Value> {
        let plain = prop::collection::vec(any::<u8>(), 0..9).prop_map(Value::Plain).boxed();
        plain.prop_recursive(3, 20, 4, |inner| {
            let fields = prop::collection::vec((prop::bool::ANY, inner), 0..4);
            fields.prop_map(|fields| {
                let field = |(is_int, value): (bool, Value)| match value {
                    Value::Plain(_) if is_int => (INT, value),
                    value => (value.kind(), value),
                };
                Value::Record(fields.into_iter().map(field).collect())
            })
        })
    }

    /// Values of all layouts.
    pub(in crate::types) fn value() -> impl Strategy<Value = Value> {
        let record = pair().prop_filter("a record", |value| matches!(value, Value::Record(_)));
        let record = record.boxed();
        let plain = prop::collection::vec(any::<u8>(), 0..9).prop_map(Value::Plain);
        let range = prop::collection::vec(record.clone(), 0..3).prop_map(Value::Range).boxed();
        prop_oneof![
            Just(Value::Null),
            plain.clone(),
            (0..3_usize, prop::collection::vec(plain, 0..4)).prop_map(|(n, all)| Value::Array(n, STATE, all)),
            (1..3_usize, prop::collection::vec(prop_oneof![Just(Value::Null), record.clone()], 0..4))
                .prop_map(|(n, all)| Value::Array(n, PAIR, all)),
            record,
            range.clone(),
            prop::collection::vec(range, 0..3).prop_map(Value::Multirange),
        ]
    }

    /// Walks over bytes that come in pieces of these lengths, over and over.
    fn walked(map: &TypeMap, columns: &[Layout], bytes: &[u8], pieces: &[usize]) -> Vec<u8> {
        let mut walk = Walk::of_row(bytes.len());
        let (mut done, mut held) = (Vec::new(), Vec::new());
        let mut rest = bytes;
        for piece in pieces.iter().cycle() {
            let (now, later) = rest.split_at((*piece).min(rest.len()));
            rest = later;
            held.extend_from_slice(now);
            let (taken, halt) = walk.run(map.to_primary(), columns, None, &mut held);
            assert_eq!(halt, None);
            done.extend(held.drain(..taken));
            assert!(held.len() < ARRAY_HEAD, "more is held than a number needs");
            if rest.is_empty() {
                break;
            }
        }
        assert!(held.is_empty());
        done
    }

    proptest! {
        /// However the bytes are cut, what comes out is what the primary would have sent.
        #[test]
        fn values_are_those_of_the_primary(
            values in prop::collection::vec(value(), 1..6),
            pieces in prop::collection::vec(1..40_usize, 1..6),
        ) {
            let map = map();
            let (mut there, mut here) = (vec![0; COUNT], vec![0; COUNT]);
            for value in &values {
                value.write(20_000, &mut there);
                value.write(30_000, &mut here);
            }
            let columns: Vec<Layout> =
                values.iter().map(|value| map.to_primary().layout(20_000 + value.kind())).collect();
            for pieces in [&pieces[..], &[1], &[usize::MAX]] {
                prop_assert_eq!(&walked(&map, &columns, &there, pieces), &here);
            }
        }

        /// Bytes that make no sense are no reason to panic, nor to change their number.
        #[test]
        fn random_bytes_keep_their_length(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let map = map();
            for layout in [Layout::Array, Layout::Record, Layout::Range(20_002), Layout::Multirange(20_002)] {
                let mut walk = Walk::of_row(bytes.len());
                let mut copy = bytes.clone();
                let (taken, halt) = walk.run(map.to_primary(), &[layout; 3], None, &mut copy);
                prop_assert!(taken == copy.len() || halt.is_some() || copy.len() - taken < ARRAY_HEAD);
            }
        }
    }

    #[test]
    fn an_unknown_number_halts_until_it_is_known_or_given() {
        let map = map();
        let mut bytes = vec![0; COUNT];
        Value::Array(1, 5_000, vec![Value::Plain(b"a".to_vec())]).write(20_000, &mut bytes);
        let mut walk = Walk::of_row(bytes.len());
        let columns = [Layout::Array];
        let (taken, halt) = walk.run(map.to_primary(), &columns, None, &mut bytes);
        assert_eq!((taken, halt), (6, Some(Halt::Unknown(25_000))));
        let mut rest = bytes.split_off(taken);
        let (taken, halt) = walk.run(map.to_primary(), &columns, Some(25_001), &mut rest);
        assert_eq!((taken, halt), (0, Some(Halt::Unknown(25_000))), "another one is given");
        let before = rest.clone();
        let (taken, halt) = walk.run(map.to_primary(), &columns, Some(25_000), &mut rest);
        assert_eq!((taken, halt), (rest.len(), None));
        assert!(walk.within.is_empty());
        assert_eq!(rest, before);
    }
}
