//! Which ways of asking for a password a server may use (libpq's `require_auth`).

use std::fmt;

/// How a server asks a client to prove who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Not at all.
    None,
    /// For the password itself.
    Password,
    /// For an md5 digest.
    Md5,
    /// For SCRAM-SHA-256, with or without channel binding.
    Scram,
}

/// The ways that are allowed; all by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequireAuth {
    /// The text as it was written; empty if there was none.
    text: String,
    /// Whether the list names what is forbidden.
    is_negative: bool,
    named: Vec<Asked>,
}

/// libpq's words. Those of GSSAPI and SSPI are taken too: neither is spoken here, so they change nothing but whether
/// anything is allowed at all.
const WORDS: [(&str, Option<Asked>); 6] = [
    ("none", Some(Asked::None)),
    ("password", Some(Asked::Password)),
    ("md5", Some(Asked::Md5)),
    ("scram-sha-256", Some(Asked::Scram)),
    ("gss", None),
    ("sspi", None),
];

impl RequireAuth {
    /// Reads a list of words, all or none of which begin with `!`. An error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut read = Self { text: text.to_owned(), ..Self::default() };
        if text.is_empty() {
            return Ok(read);
        }
        read.is_negative = text.trim_start().starts_with('!');
        let mut seen = Vec::new();
        for word in text.split(',').map(str::trim) {
            let bare = match (word.strip_prefix('!'), read.is_negative) {
                (Some(bare), true) => bare,
                (None, false) => word,
                _ => return Err("names with and without ! cannot be mixed".to_owned()),
            };
            let known = WORDS.iter().find(|(known, _)| *known == bare);
            let (name, asked) = known.ok_or_else(|| "a method is unknown".to_owned())?;
            if seen.contains(name) {
                return Err(format!("{name} is there more than once"));
            }
            seen.push(name);
            read.named.extend(asked);
        }
        Ok(read)
    }

    /// Whether a server may ask in this way.
    pub fn allows(&self, asked: Asked) -> bool {
        self.text.is_empty() || self.named.contains(&asked) != self.is_negative
    }

    /// Whether it was written down that a server may ask in this way.
    pub fn names(&self, asked: Asked) -> bool {
        !self.is_negative && self.named.contains(&asked)
    }
}

impl fmt::Display for RequireAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.text.is_empty() { "any" } else { &self.text })
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "no proof at all",
            Self::Password => "the password itself",
            Self::Md5 => "an md5 digest",
            Self::Scram => "SCRAM-SHA-256",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_libpq_reads_them() {
        let allowed = |text: &str| {
            let read = RequireAuth::parse(text).unwrap_or_else(|wrong| panic!("{text}: {wrong}"));
            [Asked::None, Asked::Password, Asked::Md5, Asked::Scram].map(|asked| u8::from(read.allows(asked)))
        };
        assert_eq!(allowed(""), [1, 1, 1, 1]);
        assert_eq!(allowed("scram-sha-256"), [0, 0, 0, 1]);
        assert_eq!(allowed("md5, scram-sha-256"), [0, 0, 1, 1]);
        assert_eq!(allowed("none,password"), [1, 1, 0, 0]);
        assert_eq!(allowed("!password"), [1, 0, 1, 1]);
        assert_eq!(allowed("!password,!none,!gss"), [0, 0, 1, 1]);
        assert_eq!(allowed("gss"), [0, 0, 0, 0]);
        for wrong in ["x", "!x", "md5,!none", "!md5,none", "md5,md5", "md5,", ",", "!", "SCRAM-SHA-256"] {
            assert!(RequireAuth::parse(wrong).is_err(), "{wrong}");
        }
        let names = |text: &str| RequireAuth::parse(text).is_ok_and(|read| read.names(Asked::Password));
        assert!(names("password") && !names("") && !names("!md5") && !names("!password"));
    }
}
