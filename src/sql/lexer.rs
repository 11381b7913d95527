//! The boundaries of tokens in an SQL text, by the rules of PostgreSQL's own scanner.
//!
//! It borrows the text and never copies. It knows nothing of grammar or meaning: it tells words from
//! literals from comments, so that [`key`](super::key) can leave literals out and
//! [`parse`](super::parse) can blank comments. `standard_conforming_strings` is taken to be on; the
//! caller does not classify texts of a session where it is off.

use memchr::{memchr, memchr2, memmem};

/// What a stretch of text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// White space.
    Space,
    /// `-- ...` up to the end of the line, or a block comment with those nested in it.
    Comment,
    /// An identifier or keyword without quotes.
    Word,
    /// `"..."`.
    Quoted,
    /// An integer that fits 32 bits, in plain decimal digits.
    Integer,
    /// A plain decimal number that is not an [`Kind::Integer`].
    Decimal,
    /// `'...'`, `E'...'` or `$tag$...$tag$` whose contents cannot make the scanner refuse it.
    Text,
    /// A literal that is rare enough to be kept as written: bit strings, `U&`, hexadecimal numbers, escapes
    /// by code point, strings continued on another line.
    Exotic,
    /// One byte of an operator or of punctuation.
    Symbol,
    /// A literal or comment that does not end, or a NUL byte: nothing after it is read.
    Broken,
}

/// A stretch of text: `start..end` are byte offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// Tokens of a text, in order and without gaps.
#[derive(Clone)]
pub(super) struct Lexer<'t> {
    text: &'t [u8],
    at: usize,
}

impl<'t> Lexer<'t> {
    pub(super) fn new(text: &'t [u8]) -> Self {
        Self { text, at: 0 }
    }

    #[inline]
    fn peek(&self, ahead: usize) -> u8 {
        // NUL cannot stand in an SQL text, so it also serves as the end.
        self.text.get(self.at + ahead).copied().unwrap_or(0)
    }
}

impl Iterator for Lexer<'_> {
    type Item = Token;

    #[expect(clippy::inline_always, reason = "the loop that makes keys is a third slower without")]
    #[inline(always)]
    fn next(&mut self) -> Option<Token> {
        let start = self.at;
        let first = *self.text.get(start)?;
        // Three classes make up nearly all of a text. One after the other they are branches that the
        // processor foresees; a jump by class is not.
        let class = CLASS[first as usize];
        let kind = if class == ByteClass::Word
            || class == ByteClass::Prefix && !matches!(self.peek(1), b'\'' | b'&')
        {
            self.skip_word();
            Kind::Word
        } else if class == ByteClass::Space {
            self.space()
        } else if class == ByteClass::Symbol {
            self.symbol()
        } else {
            self.other(class, first)
        };
        Some(Token { kind, start, end: self.at })
    }
}

// === bytes ===

#[derive(Clone, Copy, PartialEq, Eq)]
enum ByteClass {
    Symbol,
    Word,
    /// Begins a word, or a literal of a special form if a quote follows.
    Prefix,
    Digit,
    Space,
    Quote,
    DoubleQuote,
    Dollar,
    /// `-`, `/` and `.`: more than a symbol if the next byte says so.
    Mark,
    Nul,
}

const CLASS: [ByteClass; 256] = {
    let mut class = [ByteClass::Symbol; 256];
    let mut byte = 0;
    while byte < 256 {
        class[byte] = match byte as u8 {
            b'b' | b'B' | b'e' | b'E' | b'u' | b'U' | b'x' | b'X' => ByteClass::Prefix,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80..=0xff => ByteClass::Word,
            b'0'..=b'9' => ByteClass::Digit,
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => ByteClass::Space,
            b'\'' => ByteClass::Quote,
            b'"' => ByteClass::DoubleQuote,
            b'$' => ByteClass::Dollar,
            b'-' | b'/' | b'.' => ByteClass::Mark,
            0 => ByteClass::Nul,
            _ => ByteClass::Symbol,
        };
        byte += 1;
    }
    class
};

/// Bytes that continue an identifier.
const CONTINUES_WORD: [bool; 256] = {
    let mut continues = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        continues[byte] =
            matches!(CLASS[byte], ByteClass::Word | ByteClass::Prefix | ByteClass::Digit | ByteClass::Dollar);
        byte += 1;
    }
    continues
};

fn is_space(byte: u8) -> bool {
    CLASS[byte as usize] == ByteClass::Space
}

const HIGH_BITS: u64 = 0x8080_8080_8080_8080;

/// The high bit of each of eight bytes that continues an identifier: the same as [`CONTINUES_WORD`].
#[inline]
const fn word_bytes(bytes: u64) -> u64 {
    const fn each(byte: u8) -> u64 {
        u64::from_ne_bytes([byte; 8])
    }
    /// Sets the high bit of bytes from the first to the last, both below 0x80; there is no carry.
    const fn within(bytes: u64, first: u8, last: u8) -> u64 {
        (bytes + each(0x80 - first)) & !(bytes + each(0x7f - last))
    }
    let low = bytes & !HIGH_BITS;
    let letters = within(low | each(0x20), b'a', b'z');
    let others = within(low, b'0', b'9') | within(low, b'_', b'_') | within(low, b'$', b'$');
    (letters | others | bytes) & HIGH_BITS
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Escapes {
    None,
    Backslash,
}

// === tokens ===

impl Lexer<'_> {
    fn other(&mut self, class: ByteClass, first: u8) -> Kind {
        match class {
            ByteClass::Prefix | ByteClass::Word => self.prefixed(first),
            ByteClass::Space => self.space(),
            ByteClass::Symbol => self.symbol(),
            ByteClass::Digit => self.number(),
            ByteClass::Quote => self.string(1, Escapes::None),
            ByteClass::DoubleQuote => self.quoted(1),
            ByteClass::Dollar => self.dollar(),
            ByteClass::Mark => self.mark(first),
            ByteClass::Nul => self.broken(),
        }
    }

    #[inline]
    fn symbol(&mut self) -> Kind {
        self.at += 1;
        Kind::Symbol
    }

    fn broken(&mut self) -> Kind {
        self.at = self.text.len();
        Kind::Broken
    }

    #[inline]
    fn space(&mut self) -> Kind {
        self.at += 1;
        while self.text.get(self.at).is_some_and(|&byte| is_space(byte)) {
            self.at += 1;
        }
        Kind::Space
    }

    fn prefixed(&mut self, first: u8) -> Kind {
        match (first | 0x20, self.peek(1), self.peek(2)) {
            (b'e', b'\'', _) => return self.string(2, Escapes::Backslash),
            (b'b' | b'x', b'\'', _) => return self.exotic(2, Escapes::None),
            (b'u', b'&', b'\'') => return self.exotic(3, Escapes::None),
            (b'u', b'&', b'"') => return self.unicode_name(),
            _ => {}
        }
        self.skip_word();
        Kind::Word
    }

    #[inline]
    fn skip_word(&mut self) {
        self.at += 1;
        // Eight bytes at once: a loop over bytes leaves a word at an unforeseeable point, which costs more.
        while let Some(eight) = self.text.get(self.at..).and_then(<[u8]>::first_chunk) {
            let words = word_bytes(u64::from_le_bytes(*eight));
            if words != HIGH_BITS {
                self.at += ((words ^ HIGH_BITS).trailing_zeros() / 8) as usize;
                return;
            }
            self.at += 8;
        }
        while self.text.get(self.at).is_some_and(|&byte| CONTINUES_WORD[byte as usize]) {
            self.at += 1;
        }
    }

    fn mark(&mut self, first: u8) -> Kind {
        match (first, self.peek(1)) {
            (b'-', b'-') => self.line_comment(),
            (b'/', b'*') => self.block_comment(),
            (b'.', b'0'..=b'9') => self.number(),
            _ => self.symbol(),
        }
    }

    fn line_comment(&mut self) -> Kind {
        let rest = &self.text[self.at..];
        self.at += memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
        Kind::Comment
    }

    fn block_comment(&mut self) -> Kind {
        let mut depth = 1_usize;
        self.at += 2;
        while let Some(found) = memchr2(b'*', b'/', &self.text[self.at..]) {
            self.at += found;
            match (self.peek(0), self.peek(1)) {
                (b'*', b'/') if depth == 1 => {
                    self.at += 2;
                    return Kind::Comment;
                }
                (b'*', b'/') => (self.at, depth) = (self.at + 2, depth - 1),
                (b'/', b'*') => (self.at, depth) = (self.at + 2, depth + 1),
                _ => self.at += 1,
            }
        }
        self.broken()
    }

    /// `"..."` whose opening takes `opening` bytes.
    fn quoted(&mut self, opening: usize) -> Kind {
        self.at += opening;
        while let Some(found) = memchr(b'"', &self.text[self.at..]) {
            self.at += found + 1;
            if self.peek(0) != b'"' {
                return Kind::Quoted;
            }
            self.at += 1;
        }
        self.broken()
    }

    fn unicode_name(&mut self) -> Kind {
        match self.quoted(3) {
            Kind::Quoted => Kind::Exotic,
            other => other,
        }
    }

    fn exotic(&mut self, opening: usize, escapes: Escapes) -> Kind {
        match self.string(opening, escapes) {
            Kind::Text => Kind::Exotic,
            other => other,
        }
    }

    /// `'...'` whose opening takes `opening` bytes, with what continues it on later lines.
    fn string(&mut self, opening: usize, escapes: Escapes) -> Kind {
        self.at += opening;
        let mut kind = Kind::Text;
        loop {
            match self.string_part(escapes) {
                Kind::Text => {}
                Kind::Broken => return Kind::Broken,
                other => kind = other,
            }
            match self.continuation() {
                Continuation::No => return kind,
                Continuation::Doubtful => return Kind::Exotic,
                Continuation::At(next) => (self.at, kind) = (next, Kind::Exotic),
            }
        }
    }

    /// From behind an opening quote to behind the closing one.
    fn string_part(&mut self, escapes: Escapes) -> Kind {
        let mut kind = Kind::Text;
        loop {
            let rest = &self.text[self.at..];
            let found = match escapes {
                Escapes::None => memchr(b'\'', rest),
                Escapes::Backslash => memchr2(b'\'', b'\\', rest),
            };
            let Some(found) = found else {
                return self.broken();
            };
            self.at += found;
            match (self.peek(0), self.peek(1)) {
                (b'\'', b'\'') => self.at += 2,
                (b'\'', _) => {
                    self.at += 1;
                    return kind;
                }
                (_, 0) => return self.broken(),
                // A code point or byte that the scanner may refuse.
                (_, b'0'..=b'9' | b'x' | b'u' | b'U') => {
                    (self.at, kind) = (self.at + 2, Kind::Exotic);
                }
                _ => self.at += 2,
            }
        }
    }

    /// Whether the string that ends here goes on behind white space with a line break in it.
    fn continuation(&self) -> Continuation {
        let mut ahead = Self { text: self.text, at: self.at };
        let (mut line_break, mut comment) = (false, false);
        loop {
            let start = ahead.at;
            match ahead.peek(0) {
                b'\'' if line_break && !comment => return Continuation::At(ahead.at + 1),
                b'\'' if comment => return ahead.after_comment(self.at),
                b'-' if ahead.peek(1) == b'-' => comment |= ahead.line_comment() == Kind::Comment,
                b'/' if ahead.peek(1) == b'*' => comment |= ahead.block_comment() == Kind::Comment,
                byte if is_space(byte) => {
                    ahead.space();
                    line_break |= memchr2(b'\n', b'\r', &self.text[start..ahead.at]).is_some();
                }
                _ => return Continuation::No,
            }
        }
    }

    /// A quote follows comments: with line comments only and a line break it continues the string.
    fn after_comment(&self, gap_start: usize) -> Continuation {
        let gap = &self.text[gap_start..self.at];
        let line_comments_only =
            Lexer::new(gap).all(|token| token.kind == Kind::Space || gap[token.start..].starts_with(b"--"));
        let line_break = memchr2(b'\n', b'\r', gap).is_some();
        if line_comments_only && line_break { Continuation::At(self.at + 1) } else { Continuation::Doubtful }
    }

    /// `$1`, `$tag$...$tag$` or a lone `$`.
    fn dollar(&mut self) -> Kind {
        let tag = match CLASS[self.peek(1) as usize] {
            ByteClass::Digit => {
                self.skip_word();
                return Kind::Symbol;
            }
            ByteClass::Dollar => 2,
            ByteClass::Word | ByteClass::Prefix => {
                let rest = &self.text[self.at + 1..];
                let end = rest.iter().position(|&byte| byte == b'$' || !CONTINUES_WORD[byte as usize]);
                match end {
                    Some(end) if rest[end] == b'$' => end + 2,
                    _ => return self.symbol(),
                }
            }
            _ => return self.symbol(),
        };
        let (tag, body) = self.text[self.at..].split_at(tag);
        match memmem::find(body, tag) {
            Some(end) => {
                self.at += tag.len() + end + tag.len();
                Kind::Text
            }
            None => self.broken(),
        }
    }

    /// A number. What is not plainly decimal, or runs into a word, is left to the parser as it stands.
    fn number(&mut self) -> Kind {
        let start = self.at;
        self.digits();
        let whole = &self.text[start..self.at];
        let fits = !whole.is_empty() && fits_32_bits(whole);
        let mut kind = if fits { Kind::Integer } else { Kind::Decimal };
        // `1..2` are two numbers (`numericfail` in PostgreSQL's scan.l).
        if self.peek(0) == b'.' && self.peek(1) == b'.' && !whole.is_empty() {
            return kind;
        }
        if self.peek(0) == b'.' {
            self.at += 1;
            self.digits();
            kind = Kind::Decimal;
        }
        if self.peek(0) | 0x20 == b'e' {
            let sign = usize::from(matches!(self.peek(1), b'+' | b'-'));
            if self.peek(1 + sign).is_ascii_digit() {
                self.at += 1 + sign;
                self.digits();
                kind = Kind::Decimal;
            }
        }
        let next = self.peek(0);
        if CONTINUES_WORD[next as usize] || next == b'.' {
            self.skip_word();
            kind = Kind::Exotic;
        }
        kind
    }

    fn digits(&mut self) {
        while self.peek(0).is_ascii_digit() {
            self.at += 1;
        }
    }
}

enum Continuation {
    No,
    /// The string goes on behind the quote before this offset.
    At(usize),
    /// The server may see one string or two.
    Doubtful,
}

/// The grammar has two tokens for numbers, parted at the largest 32-bit integer.
fn fits_32_bits(digits: &[u8]) -> bool {
    digits.len() < 10
        || (digits.len() < 19
            && i32::try_from(digits.iter().fold(0_u64, |value, digit| value * 10 + u64::from(digit - b'0')))
                .is_ok())
}

#[cfg(test)]
mod tests;
