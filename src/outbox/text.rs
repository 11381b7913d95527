//! Names and values in SQL.

pub(super) use crate::sql::quote_name as name;

/// A text as a literal, as it is read with `standard_conforming_strings`.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A statement that carries out this PL/pgSQL, whatever is in it: a name may hold any delimiter.
pub(super) fn carry_out(body: &str) -> String {
    format!("DO {}", literal(body))
}

/// Texts as an array of type `text[]`.
pub(super) fn array<S: AsRef<str>>(texts: &[S]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| literal(text.as_ref())).collect();
    format!("ARRAY[{}]::pg_catalog.text[]", texts.join(", "))
}

/// A glob as a pattern of LIKE.
pub(super) fn pattern(glob: &str) -> String {
    let mut pattern = String::with_capacity(glob.len() + 4);
    for c in glob.chars() {
        match c {
            '*' => pattern.push('%'),
            '?' => pattern.push('_'),
            '%' | '_' | '\\' => pattern.extend(['\\', c]),
            c => pattern.push(c),
        }
    }
    pattern
}

/// The first field of a row as COPY writes it; `None` if it was cut off, or is NULL.
pub(super) fn first_field(row: &[u8]) -> Option<String> {
    let end = row.iter().position(|byte| matches!(byte, b'\t' | b'\n'))?;
    if &row[..end] == b"\\N" {
        return None;
    }
    let mut field = Vec::with_capacity(end);
    let mut bytes = row[..end].iter();
    while let Some(&byte) = bytes.next() {
        field.push(match byte {
            b'\\' => match *bytes.next()? {
                b'b' => 8,
                b'f' => 12,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'v' => 11,
                other => other,
            },
            byte => byte,
        });
    }
    String::from_utf8(field).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes() {
        assert_eq!(literal("it's \\"), "'it''s \\'");
        assert_eq!(carry_out("BEGIN; 'x'"), "DO 'BEGIN; ''x'''");
        assert_eq!(array(&["a", "b'"]), "ARRAY['a', 'b''']::pg_catalog.text[]");
    }

    #[test]
    fn globs_are_patterns() {
        assert_eq!(pattern("q_*"), "q\\_%");
        assert_eq!(pattern("a?100%\\"), "a_100\\%\\\\");
    }

    #[test]
    fn reads_the_first_field_of_a_row() {
        let cases: [(&[u8], Option<&str>); 6] = [
            (b"12\tx\n", Some("12")),
            (b"only\n", Some("only")),
            (b"a\\tb\\\\c\\n\tx\n", Some("a\tb\\c\n")),
            (b"\tx\n", Some("")),
            (b"\\N\tx\n", None),
            (b"cut off", None),
        ];
        for (row, expected) in cases {
            assert_eq!(first_field(row).as_deref(), expected, "{row:?}");
        }
    }
}
