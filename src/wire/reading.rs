//! How a server reads the bytes of a text. It says so itself (ParameterStatus); what a client has set is no proof.

/// What decides where a literal ends and which name some bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// `standard_conforming_strings` is off: a backslash escapes in plain literals.
    pub old_strings: bool,
    /// `client_encoding` is UTF-8. In others the second byte of a character may look like a quote or a backslash (GBK,
    /// BIG5, SJIS), or the same bytes be another name.
    pub is_utf8: bool,
}

impl Default for Reading {
    fn default() -> Self {
        Self { old_strings: false, is_utf8: true }
    }
}

impl Reading {
    /// Takes in one reported parameter.
    pub fn note(&mut self, name: &[u8], value: &[u8]) {
        match name {
            b"standard_conforming_strings" => self.old_strings = value != b"on",
            b"client_encoding" => self.is_utf8 = value == b"UTF8",
            _ => {}
        }
    }

    /// Whether the server reads a text as the grammar here does.
    pub fn is_ours(self, text: &[u8]) -> bool {
        !self.old_strings && (self.is_utf8 || text.is_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_reports_decides() {
        let mut reading = Reading::default();
        assert!(reading.is_ours("caf\u{e9}".as_bytes()));
        reading.note(b"client_encoding", b"GBK");
        assert!(!reading.is_ours("caf\u{e9}".as_bytes()) && reading.is_ours(b"cafe"));
        reading.note(b"client_encoding", b"UTF8");
        reading.note(b"standard_conforming_strings", b"off");
        assert!(!reading.is_ours(b"cafe"));
        reading.note(b"standard_conforming_strings", b"on");
        assert_eq!(reading, Reading::default());
    }
}
