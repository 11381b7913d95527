//! The shape of a statement, read from the replies to a Describe.

use std::hash::{BuildHasher, Hasher};

use super::{Protocol, Step};
use crate::{
    backend::statements::Shape,
    types::parameters_hash,
    wire::read::{Body, Malformed},
};

/// Stands for a statement that gives no rows.
const NO_DATA: u64 = 1;

/// The shape that a ParameterDescription tells.
pub(super) fn of_parameters(body: &[u8]) -> Shape {
    Shape { parameters: parameters_hash(body), columns: 0 }
}

/// The shape that a RowDescription tells: names, types and their modifiers. The format is the portal's, and where a column comes
/// from may change.
pub(super) fn of_columns(body: &[u8]) -> Shape {
    let columns = hash_columns(Body::new(body, "RowDescription"));
    columns.map_or_else(|_| Shape::default(), |hash| Shape { parameters: 0, columns: hash | 2 })
}

/// The shape that NoData tells.
pub(super) const fn of_no_data() -> Shape {
    Shape { parameters: 0, columns: NO_DATA }
}

impl Protocol {
    /// Whether the next reply is to a Describe that somebody wants to know of.
    pub(super) fn is_describing(&self) -> bool {
        let step = self.parts.front().and_then(|part| part.steps.front());
        matches!(step, Some(Step::PassDescribed(..) | Step::SwallowDescribed(_)))
    }

    /// A step is done; if it is a Describe, its statement's shape is known.
    pub(super) fn on_described(&mut self, step: Option<Step>, tag: u8, body: &[u8]) {
        let told = || if tag == b'n' { of_no_data() } else { of_columns(body) };
        match step {
            Some(Step::PassDescribed(name, id)) => {
                let shape = std::mem::take(&mut self.shape).and(told());
                self.heard().described.push((name, id, shape));
            }
            Some(Step::SwallowDescribed(id)) => {
                let shape = std::mem::take(&mut self.shape).and(told());
                self.heard().confirmed.push((id, shape));
            }
            _ => {}
        }
    }
}

fn hash_columns(mut body: Body<'_>) -> Result<u64, Malformed> {
    let mut hasher = foldhash::fast::FixedState::default().build_hasher();
    let count = body.int16()?;
    hasher.write_i16(count);
    for _ in 0..count {
        hasher.write(body.cstring()?);
        // The table, and the column's number in it.
        body.take(6)?;
        // The type, its length, its modifier.
        hasher.write(body.take(10)?);
        body.int16()?;
    }
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, table: u32, kind: u32, format: u16) -> Vec<u8> {
        let mut body = vec![0, 1];
        body.extend_from_slice(name.as_bytes());
        body.push(0);
        body.extend_from_slice(&table.to_be_bytes());
        body.extend_from_slice(&[0, 1]);
        body.extend_from_slice(&kind.to_be_bytes());
        body.extend_from_slice(&[0, 4, 255, 255, 255, 255]);
        body.extend_from_slice(&format.to_be_bytes());
        body
    }

    #[test]
    fn names_and_types_count_and_nothing_else() {
        let of = |name, table, kind, format| of_columns(&column(name, table, kind, format));
        assert_eq!(of("a", 1, 23, 0), of("a", 2, 23, 1));
        assert_ne!(of("a", 1, 23, 0), of("b", 1, 23, 0));
        assert_ne!(of("a", 1, 23, 0), of("a", 1, 25, 0));
        assert!(of("a", 1, 23, 0).is_told() && of_no_data().is_told());
        assert_ne!(of_no_data(), of_columns(b"\0\0"));
        assert!(!of_columns(b"\0\x01a").is_told(), "malformed");
    }
}
