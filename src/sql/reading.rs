//! How the server reads the bytes of a text, as far as it decides whether they are classified as it reads them.

use super::lexer::{Kind, Lexer};

/// By which rules the server reads the texts of a session, from what it said last (ParameterStatus).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reading {
    /// `client_encoding` and `server_encoding` are UTF8, `standard_conforming_strings` is on.
    #[default]
    Utf8,
    /// Another encoding, whose bytes over 0x7F never stand for ASCII nor before it: LATIN1, WIN1252, EUC_JP and the like.
    OtherEncoding,
    /// An encoding whose second bytes may look like ASCII, or one that is not known.
    UnsafeEncoding,
    /// `standard_conforming_strings` is off.
    OldStrings,
}

impl Reading {
    /// From the three parameters as the server reports them.
    pub fn new(client_encoding: &str, server_encoding: &str, standard_conforming_strings: &str) -> Self {
        if standard_conforming_strings != "on" {
            return Self::OldStrings;
        }
        let is = |name: &str, other: &str| name.eq_ignore_ascii_case(other);
        if is(client_encoding, "UTF8") && is(server_encoding, "UTF8") {
            return Self::Utf8;
        }
        let client = client_encoding.to_ascii_uppercase();
        let is_other = ["LATIN", "WIN12", "WIN8", "ISO_8859_", "EUC_", "KOI8"]
            .iter()
            .any(|begin| client.starts_with(begin))
            || ["UTF8", "SQL_ASCII", "MULE_INTERNAL"].contains(&client.as_str());
        if is_other { Self::OtherEncoding } else { Self::UnsafeEncoding }
    }

    /// Whether a text is classified as the server reads it.
    pub(super) fn fits(self, text: &[u8]) -> bool {
        match self {
            Self::Utf8 => true,
            Self::OtherEncoding => text.is_ascii() || has_ascii_names(text),
            Self::UnsafeEncoding => text.is_ascii(),
            Self::OldStrings => false,
        }
    }
}

/// Whether bytes over 0x7F stand in literals and comments only.
fn has_ascii_names(text: &[u8]) -> bool {
    Lexer::new(text).all(|token| {
        matches!(token.kind, Kind::Text | Kind::Comment) || text[token.start..token.end].is_ascii()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_parameters() {
        for (client, server, strings, reading) in [
            ("UTF8", "UTF8", "on", Reading::Utf8),
            ("UTF8", "LATIN1", "on", Reading::OtherEncoding),
            ("LATIN1", "UTF8", "on", Reading::OtherEncoding),
            ("EUC_JIS_2004", "UTF8", "on", Reading::OtherEncoding),
            ("SQL_ASCII", "SQL_ASCII", "on", Reading::OtherEncoding),
            ("SJIS", "UTF8", "on", Reading::UnsafeEncoding),
            ("SHIFT_JIS_2004", "UTF8", "on", Reading::UnsafeEncoding),
            ("GB18030", "UTF8", "on", Reading::UnsafeEncoding),
            ("UHC", "UTF8", "on", Reading::UnsafeEncoding),
            ("", "", "on", Reading::UnsafeEncoding),
            ("UTF8", "UTF8", "off", Reading::OldStrings),
            ("UTF8", "UTF8", "", Reading::OldStrings),
        ] {
            assert_eq!(Reading::new(client, server, strings), reading, "{client} {server} {strings}");
        }
    }

    #[test]
    fn by_texts() {
        let (literal, name) = ("SELECT 'é' -- ü".as_bytes(), "SELECT é".as_bytes());
        assert!(Reading::Utf8.fits(name) && Reading::OtherEncoding.fits(literal));
        assert!(!Reading::OtherEncoding.fits(name) && !Reading::UnsafeEncoding.fits(literal));
        assert!(Reading::UnsafeEncoding.fits(b"SELECT 1") && !Reading::OldStrings.fits(b"SELECT 1"));
    }
}
