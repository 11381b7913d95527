//! Reading the bodies of messages. Every read is checked: a truncated body is an error, never a panic.

/// A body that ends too early or contains what its kind does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed {what} message")]
pub struct Malformed {
    /// Which message.
    pub what: &'static str,
}

/// So many bytes are looked through one by one for the end of a text.
const NEAR: usize = 8;

/// A cursor over a message body.
#[derive(Clone, Copy, Debug)]
pub struct Body<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Body<'a> {
    /// Reads `bytes`, the body of a message called `what` in errors.
    pub const fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    /// The rest that has not been read yet.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The error for this body.
    pub const fn malformed(&self) -> Malformed {
        Malformed { what: self.what }
    }

    /// One byte.
    pub fn byte(&mut self) -> Result<u8, Malformed> {
        let (&first, rest) = self.rest.split_first().ok_or_else(|| self.malformed())?;
        self.rest = rest;
        Ok(first)
    }

    /// A two-byte integer.
    pub fn int16(&mut self) -> Result<i16, Malformed> {
        let (head, rest) = self.rest.split_first_chunk().ok_or_else(|| self.malformed())?;
        self.rest = rest;
        Ok(i16::from_be_bytes(*head))
    }

    /// A four-byte integer.
    pub fn int32(&mut self) -> Result<i32, Malformed> {
        let (head, rest) = self.rest.split_first_chunk().ok_or_else(|| self.malformed())?;
        self.rest = rest;
        Ok(i32::from_be_bytes(*head))
    }

    /// Bytes up to the next zero, which is consumed.
    pub fn cstring(&mut self) -> Result<&'a [u8], Malformed> {
        // Most names are empty or short: a search for longer ones costs more before it begins.
        match self.rest.iter().take(NEAR).position(|byte| *byte == 0) {
            Some(end) => Ok(self.up_to(end)),
            None => self.text(),
        }
    }

    /// The same of what is longer than a name as a rule.
    pub fn text(&mut self) -> Result<&'a [u8], Malformed> {
        let end = memchr::memchr(0, self.rest).ok_or_else(|| self.malformed())?;
        Ok(self.up_to(end))
    }

    /// The bytes before the zero at `end`, which is consumed.
    fn up_to(&mut self, end: usize) -> &'a [u8] {
        let (text, rest) = self.rest.split_at(end);
        self.rest = &rest[1..];
        text
    }

    /// Exactly `count` bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or_else(|| self.malformed())?;
        self.rest = rest;
        Ok(taken)
    }
}

/// The fields of an ErrorResponse or NoticeResponse that we look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorFields {
    /// `S`/`V`: ERROR, FATAL, PANIC, or a notice's severity.
    pub severity: String,
    /// `C`: SQLSTATE.
    pub code: String,
    /// `M`.
    pub message: String,
    /// `D`, empty if absent.
    pub detail: Box<str>,
    /// `H`, empty if absent.
    pub hint: Box<str>,
    /// `R`: the routine of the server's source that reports it, empty if absent.
    pub routine: Box<str>,
}

impl ErrorFields {
    /// Reads the body of an ErrorResponse as far as it goes; text that is not UTF-8 is shown with
    /// replacement characters.
    pub fn parse(body: &[u8]) -> Self {
        let mut fields = Self::default();
        let mut body = Body::new(body, "ErrorResponse");
        while let Ok(kind) = body.byte() {
            if kind == 0 {
                break;
            }
            let Ok(value) = body.cstring() else { break };
            let value = String::from_utf8_lossy(value).into_owned();
            match kind {
                b'S' if fields.severity.is_empty() => fields.severity = value,
                b'V' => fields.severity = value,
                b'C' => fields.code = value,
                b'M' => fields.message = value,
                b'D' => fields.detail = value.into(),
                b'H' => fields.hint = value.into(),
                b'R' => fields.routine = value.into(),
                _ => {}
            }
        }
        fields
    }

    /// Whether the server closes the connection after it.
    pub fn ends_connection(&self) -> bool {
        matches!(self.severity.as_str(), "FATAL" | "PANIC")
    }
}

impl std::fmt::Display for ErrorFields {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} ({})", self.severity, self.message, self.code)
    }
}
