//! Names and texts as they are written in SQL.

/// A name in quotes.
pub fn quote_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as a literal that reads the same whatever `standard_conforming_strings` is.
pub fn quote_literal(text: &str) -> String {
    format!(" E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_doubled() {
        assert_eq!(quote_name("a\"b\\'"), "\"a\"\"b\\'\"");
        assert_eq!(quote_literal("it's a \\ and \"b\""), " E'it''s a \\\\ and \"b\"'");
    }
}
