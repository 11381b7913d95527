//! What is sent to a job backend, put into its numbers.

use super::{
    map::{Layout, Other, TypeMap, Untold},
    replies::is_users,
    value::Walk,
};
use crate::wire::{
    client::Parse,
    frame::{HEADER_BYTES, split_message},
    read::{Body, Malformed},
};

/// Stands for a type that the job database lacks, which was to be refused before: no server has one of this number.
const NONE: u32 = u32::MAX;

/// Translates the parameter types of all Parse messages among these, as far as they are whole.
pub fn localize_parses(map: &TypeMap, messages: &mut [u8]) {
    let mut at = 0;
    while let Ok(Some((tag, body, _))) = split_message(&messages[at..]) {
        let (len, body_len) = (HEADER_BYTES + body.len(), body.len());
        let types = if tag == b'P' { Parse::read(body).map_or(0, |parse| parse.types.len()) } else { 0 };
        let from = at + HEADER_BYTES + body_len - types;
        localize(map, &mut messages[from..at + len]);
        at += len;
    }
}

/// Translates a count and as many numbers.
fn localize(map: &TypeMap, types: &mut [u8]) {
    let Some(numbers) = types.get_mut(2..) else { return };
    for number in numbers.chunks_exact_mut(4) {
        let own = read(number);
        let other = match map.to_jobs().other(own) {
            Other::Number(other) => other,
            // A type that only the job database has, by its own number, or one that the server will not find.
            Other::Unknown => own,
            Other::Lacks { .. } => NONE,
        };
        number.copy_from_slice(&other.to_be_bytes());
    }
}

/// The type among the parameter types of a Parse message, the count and the numbers, that cannot be said to the job
/// database, if there is one.
pub fn unsaid_type(map: &TypeMap, types: &[u8]) -> Option<Unsaid> {
    declared(types).filter(|number| is_users(*number)).find_map(|number| match map.to_jobs().other(number) {
        Other::Number(_) => None,
        Other::Lacks { .. } => Some(Unsaid::Lacking(map.unsaid(number))),
        // What was told of a type that only the job database has.
        Other::Unknown if map.to_primary().other(number) == Other::Lacks { is_taken: false } => None,
        Other::Unknown => Some(Unsaid::Unknown(number)),
    })
}

/// The numbers of a Parse message's parameter types, behind their count; 0 is for one that the server is to infer.
pub fn declared(types: &[u8]) -> impl Iterator<Item = u32> {
    types.get(2..).unwrap_or_default().chunks_exact(4).map(read)
}

/// The reason why a parameter type cannot be said to the job database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsaid {
    /// The job database has no such type.
    Lacking(Untold),
    /// No type of this number is known: the primary may have it since a short while.
    Unknown(u32),
}

/// Translates the values of a Bind message, in `rest`, its part behind the names, if there are numbers in any by the types
/// of its parameters. A number that the job database has no type for is left as it is: its server tells, if it minds.
pub fn localize_values(
    map: &TypeMap,
    types: impl Iterator<Item = u32>,
    rest: &mut [u8],
) -> Result<(), Malformed> {
    let mut layouts: Vec<Layout> = types.map(|number| map.layout_on_primary(number)).collect();
    if layouts.iter().all(|layout| *layout == Layout::Plain) {
        return Ok(());
    }
    let mut body = Body::new(rest, "Bind");
    let formats = body.int16()?.cast_unsigned();
    let formats = body.take(usize::from(formats) * 2)?;
    for (position, layout) in layouts.iter_mut().enumerate() {
        let own = if formats.len() == 2 { Some(formats) } else { formats.chunks_exact(2).nth(position) };
        if own != Some(&[0, 1]) {
            *layout = Layout::Plain;
        }
    }
    // The values of a row come like this, too: their count, and each with its length.
    let from = rest.len() - body.rest().len();
    let values = &mut rest[from..];
    let way = map.to_jobs();
    let (mut walk, mut at, mut given) = (Walk::of_row(values.len()), 0, None);
    while at < values.len() {
        let (taken, halt) = walk.run(way, &layouts, given, &mut values[at..]);
        at += taken;
        match halt {
            Some(super::value::Halt::Unknown(number)) if way.own(number).is_some() => given = Some(number),
            _ => break,
        }
    }
    Ok(())
}

fn read(number: &[u8]) -> u32 {
    number.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        types::{
            map::tests::map,
            value::tests::{number, value},
        },
        wire::message,
    };

    fn parse(out: &mut Vec<u8>, name: &[u8], types: &[u32]) {
        let numbers = types.iter().flat_map(|number| number.to_be_bytes());
        let types: Vec<u8> = (types.len() as u16).to_be_bytes().into_iter().chain(numbers).collect();
        message::parse(out, name, b"SELECT $1, $2, $3", &types);
    }

    #[test]
    fn parameter_types_are_put_into_the_job_databases_numbers() {
        let messages = |state: u32, states: u32, lacking: u32| {
            let mut out = Vec::new();
            parse(&mut out, b"one", &[state, 0, 23]);
            message::bind_plain(&mut out);
            message::query(&mut out, b"SELECT 1");
            parse(&mut out, b"", &[states, 25_000, lacking]);
            parse(&mut out, b"none", &[]);
            message::sync(&mut out);
            out
        };
        let mut map = map();
        let mut said = messages(30_000, 30_001, 30_900);
        localize_parses(&map, &mut said);
        assert_eq!(said, messages(20_000, 20_001, 30_900));
        // A message that has not come whole is left as it is.
        let mut said = messages(30_000, 30_001, 30_900);
        let end = said.len() - 6;
        let (cut, expected) = (&mut said[..end], messages(20_000, 20_001, 30_900));
        localize_parses(&map, cut);
        assert_eq!(cut[..60], expected[..60]);
        // A type that only the primary has is no type's number.
        let mut here = crate::types::known::tests::known(30_000);
        let found = here.types[&30_000].clone();
        here.types.insert(30_900, crate::types::known::Type { name: "alone".to_owned(), ..found });
        map = TypeMap::of(&crate::types::known::tests::known(20_000), &here);
        let mut said = messages(30_000, 30_001, 30_900);
        localize_parses(&map, &mut said);
        assert_eq!(said, messages(20_000, 20_001, NONE));
        let types = |number: u32| [[0, 1].as_slice(), &number.to_be_bytes()].concat();
        assert!(matches!(unsaid_type(&map, &types(30_900)), Some(Unsaid::Lacking(_))));
        assert_eq!(unsaid_type(&map, &types(25_000)), Some(Unsaid::Unknown(25_000)));
        assert_eq!(unsaid_type(&map, &types(30_000)), None);
        assert_eq!(unsaid_type(&map, &types(25)), None);
    }

    proptest! {
        /// Binary values that contain numbers are those of the job database; what is text, nobody touches.
        #[test]
        fn values_are_those_of_the_job_database(
            values in prop::collection::vec((value(), any::<bool>()), 1..5),
        ) {
            let bound = |first: u32| {
                let mut rest = (values.len() as u16).to_be_bytes().to_vec();
                for (_, is_text) in &values {
                    rest.extend_from_slice(&[0, u8::from(!is_text)]);
                }
                rest.extend_from_slice(&(values.len() as u16).to_be_bytes());
                for (value, is_text) in &values {
                    value.write(if *is_text { 30_000 } else { first }, &mut rest);
                }
                rest.extend_from_slice(&[0, 1, 0, 1]);
                rest
            };
            let (mut said, expected) = (bound(30_000), bound(20_000));
            let types = values.iter().map(|(value, _)| number(30_000, value.kind()));
            localize_values(&map(), types, &mut said).expect("it is well formed");
            prop_assert_eq!(said, expected);
        }

        #[test]
        fn random_values_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut rest = bytes;
            let _ = localize_values(&map(), [30_001, 30_002, 30_007].into_iter(), &mut rest);
            localize_parses(&map(), &mut rest);
        }
    }
}
