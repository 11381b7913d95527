//! Whom a client says it is, for the log of those that were refused.

use std::fmt;

/// Names are cut here: the server's own are shorter.
const NAME_CHARS: usize = 128;

/// The user, database and application that a client's first packet names.
#[derive(Clone, Debug, Default)]
pub(super) struct Claim {
    pub(super) user: String,
    pub(super) database: String,
    pub(super) application_name: String,
}

/// A name that may be long.
pub(super) struct Cut<'a>(pub(super) &'a str);

impl fmt::Debug for Cut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(NAME_CHARS) {
            None => fmt::Debug::fmt(self.0, f),
            Some((end, _)) => write!(f, "{:?}..", &self.0[..end]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_cut_between_characters() {
        assert_eq!(format!("{:?}", Cut("a\nb")), "\"a\\nb\"");
        let long = "ä".repeat(5000);
        assert_eq!(format!("{:?}", Cut(&long)).chars().count(), NAME_CHARS + 4);
    }
}
