//! Globs on identifiers: `*` for any characters, `?` for one. Case is ignored.

/// A compiled glob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Glob {
    pattern: Box<[u8]>,
    wild: bool,
}

impl Glob {
    pub(super) fn new(pattern: &str) -> Self {
        let pattern = pattern.to_lowercase().into_bytes().into_boxed_slice();
        let wild = pattern.iter().any(|byte| matches!(byte, b'*' | b'?'));
        Self { pattern, wild }
    }

    pub(super) fn matches(&self, name: &str) -> bool {
        let name = name.as_bytes();
        if !self.wild {
            return name.eq_ignore_ascii_case(&self.pattern);
        }
        matches(&self.pattern, name)
    }
}

/// Greedy match that goes back to the last `*` only: no worse than pattern times name.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(b'?') => (p, n) = (p + 1, n + 1),
            Some(&byte) if byte == name[n].to_ascii_lowercase() => (p, n) = (p + 1, n + 1),
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, n) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::Glob;

    #[test]
    fn matches() {
        for (pattern, name, expected) in [
            ("oban_jobs", "oban_jobs", true),
            ("oban_jobs", "OBAN_JOBS", true),
            ("oban_jobs", "oban_jobs2", false),
            ("oban_*", "oban_jobs", true),
            ("*_jobs", "oban_jobs", true),
            ("a*b*c", "aXXbYYc", true),
            ("a*b*c", "aXXcYYb", false),
            ("j????", "j1234", true),
            ("j????", "j123", false),
            ("*", "", true),
            ("", "a", false),
        ] {
            assert_eq!(Glob::new(pattern).matches(name), expected, "{pattern} {name}");
        }
    }
}
