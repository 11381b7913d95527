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
