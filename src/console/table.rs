//! Results: columns, values, and how both are written.

use crate::wire::message::{self, ColumnType};

/// The columns of a result: a letter for the type of each, as in PgBouncer's source, and their names.
#[derive(Clone, Debug)]
pub(super) struct Columns {
    kinds: &'static str,
    names: Vec<&'static str>,
}

/// A value of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    Text(String),
    Static(&'static str),
    Int(i64),
}

/// Rows of a result, made as they are sent.
pub(super) type Rows = Box<dyn Iterator<Item = Vec<Value>> + Send>;

/// The format of a column's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    Binary,
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Static(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::from(number as u64)
    }
}

impl From<bool> for Value {
    fn from(is: bool) -> Self {
        Self::Int(i64::from(is))
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl Columns {
    /// Columns of these types (`s` text, `i` int4, `q` int8, `N` numeric) and names.
    pub(super) fn new(kinds: &'static str, names: &[&'static str]) -> Self {
        debug_assert_eq!(kinds.len(), names.len(), "{names:?}");
        Self { kinds, names: names.to_vec() }
    }

    /// The position of the column of this name.
    pub(super) fn position(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|column| *column == name)
    }

    /// The names, in order.
    pub(super) fn names(&self) -> &[&'static str] {
        &self.names
    }

    fn kinds(&self) -> impl Iterator<Item = u8> {
        self.kinds.bytes()
    }

    /// Writes the RowDescription.
    pub(super) fn describe(&self, out: &mut Vec<u8>, formats: &[Format]) {
        let columns = self.names.iter().zip(self.kinds.as_bytes()).enumerate().map(|(at, (name, kind))| {
            let (oid, len) = match *kind {
                b'i' => (23, 4),
                b'q' => (20, 8),
                b'N' => (1700, -1),
                _ => (25, -1),
            };
            (*name, ColumnType { oid, len, format: format_of(formats, at) as i16 })
        });
        message::row_description(out, columns);
    }

    /// Writes a row.
    pub(super) fn write(&self, out: &mut Vec<u8>, row: &[Value], formats: &[Format]) {
        let values = row.iter().zip(self.kinds()).enumerate();
        message::data_row(out, row.len(), |out| {
            for (at, (value, kind)) in values {
                write_value(out, value, kind, format_of(formats, at));
            }
        });
    }

    /// The formats of all columns, by those that a Bind asks for: none for text, one for all, or one for each. `None`
    /// if they are neither.
    pub(super) fn formats(&self, asked: &[i16]) -> Option<Vec<Format>> {
        if asked.len() > 1 && asked.len() != self.names.len() {
            return None;
        }
        let format = |code: &i16| match code {
            0 => Some(Format::Text),
            1 => Some(Format::Binary),
            _ => None,
        };
        asked.iter().map(format).collect()
    }
}

/// No rows.
pub(super) fn none() -> Rows {
    Box::new(std::iter::empty())
}

/// One row.
pub(super) fn one<const N: usize>(row: [Value; N]) -> Rows {
    Box::new(std::iter::once(Vec::from(row)))
}

/// Rows that are all there.
pub(super) fn all(rows: Vec<Vec<Value>>) -> Rows {
    Box::new(rows.into_iter())
}

fn format_of(formats: &[Format], at: usize) -> Format {
    match formats {
        [] => Format::Text,
        [all] => *all,
        each => each.get(at).copied().unwrap_or(Format::Text),
    }
}

/// Writes a value with its length in front.
fn write_value(out: &mut Vec<u8>, value: &Value, kind: u8, format: Format) {
    let mut bytes = |bytes: &[u8]| {
        out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        out.extend_from_slice(bytes);
    };
    match value {
        Value::Null => out.extend_from_slice(&(-1_i32).to_be_bytes()),
        Value::Text(text) => bytes(text.as_bytes()),
        Value::Static(text) => bytes(text.as_bytes()),
        Value::Int(number) => {
            // What is larger than the type is told as the largest of it.
            let number = if kind == b'i' { (*number).clamp(0, i64::from(i32::MAX)) } else { *number };
            match (format, kind) {
                (Format::Binary, b'i') => bytes(&(number as i32).to_be_bytes()),
                (Format::Binary, b'q') => bytes(&number.to_be_bytes()),
                (Format::Binary, b'N') => bytes(&numeric(number.unsigned_abs())),
                _ => bytes(number.to_string().as_bytes()),
            }
        }
    }
}

/// A whole number as a binary numeric (`numeric_send`): digits to the base of 10,000, the highest first.
fn numeric(mut number: u64) -> Vec<u8> {
    let mut digits = Vec::new();
    while number > 0 {
        digits.push((number % 10_000) as u16);
        number /= 10_000;
    }
    // Sign and scale are zero.
    let weight = (digits.len() as i16 - 1).max(0);
    let head = [digits.len() as u16, weight.cast_unsigned(), 0, 0];
    head.into_iter().chain(digits.into_iter().rev()).flat_map(u16::to_be_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_their_type_says() {
        let written = |kind, format, number| {
            let mut out = Vec::new();
            write_value(&mut out, &Value::Int(number), kind, format);
            out
        };
        assert_eq!(written(b'i', Format::Text, 12), b"\0\0\0\x0212");
        assert_eq!(written(b'i', Format::Binary, 258), b"\0\0\0\x04\0\0\x01\x02");
        assert_eq!(written(b'i', Format::Binary, i64::MAX), b"\0\0\0\x04\x7f\xff\xff\xff");
        assert_eq!(written(b'q', Format::Binary, 1), b"\0\0\0\x08\0\0\0\0\0\0\0\x01");
        assert_eq!(numeric(0), b"\0\0\0\0\0\0\0\0");
        // 1_0002_0003
        assert_eq!(numeric(100_020_003), b"\0\x03\0\x02\0\0\0\0\0\x01\0\x02\0\x03");
    }

    #[test]
    fn formats_are_for_all_or_for_each() {
        let columns = Columns::new("si", &["a", "b"]);
        assert_eq!(columns.formats(&[]), Some(vec![]));
        assert_eq!(columns.formats(&[1]), Some(vec![Format::Binary]));
        assert_eq!(columns.formats(&[0, 1]), Some(vec![Format::Text, Format::Binary]));
        assert_eq!((columns.formats(&[0, 1, 1]), columns.formats(&[2])), (None, None));
    }
}
