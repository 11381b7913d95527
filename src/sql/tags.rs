//! Tags in comments, by which background workers are known: `/*job='Mailer',traceparent='..'*/` as sqlcommenter writes them
//! (<https://google.github.io/sqlcommenter/spec/>), or `/*job:Mailer*/` as Rails did before it.

use super::{
    glob::Glob,
    lexer::{Kind, Lexer},
};

/// Longer values are not looked at.
const VALUE_BYTES_MAX: usize = 256;

/// Which tags are a worker's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags {
    patterns: Vec<String>,
    globs: Vec<(Glob, Glob)>,
}

impl Tags {
    /// Compiles patterns such as `job=*`; what follows the sign is decoded as it is in comments.
    ///
    /// # Errors
    ///
    /// The first pattern that has no key or no `=`.
    pub fn new(patterns: &[String]) -> Result<Self, String> {
        let pair = |pattern: &String| {
            let pair = pattern.split_once('=').filter(|(key, _)| !key.is_empty());
            pair.map(|(key, value)| (Glob::new(key), Glob::new(value))).ok_or_else(|| pattern.clone())
        };
        let globs = patterns.iter().map(pair).collect::<Result<_, _>>()?;
        Ok(Self { patterns: patterns.to_vec(), globs })
    }

    /// The patterns as they were given.
    pub fn patterns(&self) -> &[String] {
        &self.patterns
    }

    /// Whether no tag is a worker's.
    pub(super) const fn is_empty(&self) -> bool {
        self.globs.is_empty()
    }

    /// Whether any comment of a text has a tag of a worker.
    pub(super) fn are_in(&self, text: &[u8]) -> bool {
        !self.is_empty()
            && Lexer::new(text)
                .any(|token| token.kind == Kind::Comment && self.fit(&text[token.start..token.end]))
    }

    /// Whether a comment has a tag of a worker.
    pub(super) fn fit(&self, comment: &[u8]) -> bool {
        // Commas in keys and values are encoded.
        !self.is_empty() && inside(comment).split(|byte| *byte == b',').any(|pair| self.fits(pair))
    }

    fn fits(&self, pair: &[u8]) -> bool {
        let Some(at) = pair.iter().position(|byte| matches!(byte, b'=' | b':')) else { return false };
        let (Some(key), Some(value)) = (decoded(&pair[..at]), decoded(&pair[at + 1..])) else { return false };
        self.globs.iter().any(|(keys, values)| keys.matches(&key) && values.matches(&value))
    }
}

/// The inside of a comment, without its signs.
pub(super) fn inside(comment: &[u8]) -> &[u8] {
    let inside = match comment {
        [b'/', b'*', inside @ .., b'*', b'/'] | [_, _, inside @ ..] => inside,
        other => other,
    };
    inside.trim_ascii()
}

/// A key or a value as it was before it was written into a comment: without quotes, `%2F` for a slash.
fn decoded(raw: &[u8]) -> Option<String> {
    let raw = raw.trim_ascii();
    let raw = raw.strip_prefix(b"'").and_then(|raw| raw.strip_suffix(b"'")).unwrap_or(raw);
    if raw.len() > VALUE_BYTES_MAX {
        return None;
    }
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let [first, after @ ..] = rest {
        let encoded = after.first_chunk().filter(|_| *first == b'%').and_then(|digits| hexadecimal(*digits));
        bytes.push(encoded.unwrap_or(*first));
        rest = if encoded.is_some() { &after[2..] } else { after };
    }
    String::from_utf8(bytes).ok()
}

fn hexadecimal(digits: [u8; 2]) -> Option<u8> {
    let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
    u8::try_from(high? << 4 | low?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(patterns: &[&str]) -> Tags {
        let patterns: Vec<String> = patterns.iter().copied().map(str::to_owned).collect();
        Tags::new(&patterns).expect("they are pairs")
    }

    #[test]
    fn tags_are_found_in_every_comment() {
        let tags = tags(&["job=*", "controller=jobs/*", "who=a'b"]);
        for text in [
            "SELECT 1 /*job='Mailer',traceparent='00-5bd66ef5095369c7b0d1f8f4bd33716a-01'*/",
            "SELECT 1 /*action='run',controller='jobs%2Frunner'*/",
            "/*application:App,job:MailerJob*/ SELECT 1",
            "SELECT /* first */ 1 -- job=x\n",
            "SELECT 1 /* JOB = 'x' */",
            "SELECT 1; SELECT 2 /*job=''*/",
            "SELECT 1 /*who='a%27b'*/",
        ] {
            assert!(tags.are_in(text.as_bytes()), "{text}");
        }
        for text in [
            "SELECT 1",
            "SELECT 1 /*controller='orders'*/",
            "SELECT '/*job=x*/'",
            "SELECT 1 /*jobs='x'*/",
            "SELECT 1 /*action='job=x'*/",
            "SELECT 1 /*job*/",
            "SELECT 1 /*%6=*/",
            "SELECT $$/*job=x*/$$",
            "SELECT 1 /*",
        ] {
            assert!(!tags.are_in(text.as_bytes()), "{text}");
        }
        let long = format!("SELECT 1 /*job='{}'*/", "x".repeat(VALUE_BYTES_MAX + 1));
        assert!(!tags.are_in(long.as_bytes()));
        assert!(!Tags::default().are_in(b"SELECT 1 /*job='x'*/"));
    }

    #[test]
    fn patterns_are_pairs() {
        for wrong in ["job", "=x", ""] {
            assert_eq!(Tags::new(&[wrong.to_owned()]).map(drop), Err(wrong.to_owned()));
        }
        assert!(Tags::new(&["job=".to_owned()]).is_ok());
    }
}
