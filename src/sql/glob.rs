//! Globs on identifiers: `*` for any characters, `?` for one. Case is ignored.

/// A compiled glob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    pattern: Box<str>,
    wild: bool,
}

impl Glob {
    /// Compiles a pattern.
    pub fn new(pattern: &str) -> Self {
        let pattern = pattern.to_lowercase().into_boxed_str();
        let wild = pattern.contains(['*', '?']);
        Self { pattern, wild }
    }

    /// Whether the whole of `name` matches.
    pub fn matches(&self, name: &str) -> bool {
        if !name.is_ascii() {
            // A character of it is more than a byte.
            let [pattern, name] =
                [&*self.pattern, &name.to_lowercase()].map(|text| text.chars().collect::<Vec<_>>());
            return matches(&pattern, &name, ['*', '?'], |one, other| one == other);
        }
        let (pattern, name) = (self.pattern.as_bytes(), name.as_bytes());
        if !self.wild {
            return name.eq_ignore_ascii_case(pattern);
        }
        matches(pattern, name, [b'*', b'?'], |one, other| one == other.to_ascii_lowercase())
    }
}

/// Greedy match that goes back to the last `*` only: no worse than pattern times name.
fn matches<T: Copy + PartialEq>(
    pattern: &[T],
    name: &[T],
    [many, one]: [T; 2],
    is_same: impl Fn(T, T) -> bool,
) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(wanted) if *wanted == many => {
                star = Some((p, n));
                p += 1;
            }
            Some(wanted) if *wanted == one || is_same(*wanted, name[n]) => (p, n) = (p + 1, n + 1),
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, n) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|wanted| *wanted == many)
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
            ("AUFTRÄGE", "aufträge", true),
            ("aufträge", "AUFTRÄGE", true),
            ("auftr?ge", "Aufträge", true),
            ("auftr??ge", "Aufträge", false),
            ("*Ä*", "aufträge", true),
            ("ä*", "auftrag", false),
        ] {
            assert_eq!(Glob::new(pattern).matches(name), expected, "{pattern} {name}");
        }
    }
}
