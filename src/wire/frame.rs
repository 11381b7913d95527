//! Message headers: one tag byte and a length that counts itself but not the tag.

/// Bytes of a header.
pub const HEADER_BYTES: usize = 5;

/// The largest message PostgreSQL takes from a client (`PQ_LARGE_MESSAGE_LIMIT`, 1 GiB - 1).
pub const LARGE_MESSAGE_BYTES: usize = 0x3fff_ffff;

/// The largest message of the kinds that carry no data (`PQ_SMALL_MESSAGE_LIMIT`).
pub const SMALL_MESSAGE_BYTES: usize = 10_000;

/// A message's kind and whole length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The tag byte.
    pub tag: u8,
    /// Bytes of the whole message, tag and length included.
    pub len: usize,
}

/// A header that cannot be right: the connection has lost its place and must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    /// A length below 4 or above the limit of its kind.
    #[error("invalid length {length} of a message of type \"{}\"", tag.escape_ascii())]
    Length {
        /// The message's tag.
        tag: u8,
        /// The length as sent.
        length: u32,
    },
    /// More of a kind, or longer ones, than anybody has a use for.
    #[error("more messages of type \"{}\" than can be kept", tag.escape_ascii())]
    Flood {
        /// The messages' tag.
        tag: u8,
    },
    /// A tag that no client sends.
    #[error("invalid frontend message type {tag}")]
    Tag {
        /// The byte that was sent.
        tag: u8,
    },
}

impl Header {
    /// The header at the start of `bytes`; `None` if fewer than five bytes are there.
    pub fn peek(bytes: &[u8]) -> Result<Option<Self>, BadFrame> {
        let Some(head) = bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let [tag, a, b, c, d] = *head;
        let length = u32::from_be_bytes([a, b, c, d]);
        if length < 4 || length as usize > LARGE_MESSAGE_BYTES {
            return Err(BadFrame::Length { tag, length });
        }
        Ok(Some(Self { tag, len: length as usize + 1 }))
    }

    /// As [`Header::peek`], for messages of a client after startup: also refuses unknown tags and long
    /// messages of kinds that are short (`SocketBackend` in PostgreSQL's `postgres.c`).
    pub fn peek_client(bytes: &[u8]) -> Result<Option<Self>, BadFrame> {
        let Some(&tag) = bytes.first() else { return Ok(None) };
        let limit = CLIENT_LIMITS[usize::from(tag)];
        if limit == 0 {
            return Err(BadFrame::Tag { tag });
        }
        let Some([_, a, b, c, d]) = bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let length = u32::from_be_bytes([*a, *b, *c, *d]);
        if length < 4 || length > limit {
            return Err(BadFrame::Length { tag, length });
        }
        Ok(Some(Self { tag, len: length as usize + 1 }))
    }
}

/// The greatest length of a client's messages by their tag; 0 where there is no such message.
const CLIENT_LIMITS: [u32; 256] = {
    let mut limits = [0; 256];
    let mut tag = 0;
    while tag < 256 {
        limits[tag] = match tag as u8 {
            b'Q' | b'F' | b'B' | b'P' | b'd' => LARGE_MESSAGE_BYTES as u32,
            b'C' | b'D' | b'E' | b'H' | b'S' | b'X' | b'c' | b'f' => SMALL_MESSAGE_BYTES as u32,
            _ => 0,
        };
        tag += 1;
    }
    limits
};

/// A message's tag, its body, and what follows it.
pub type Split<'a> = (u8, &'a [u8], &'a [u8]);

/// Splits a whole message off the front of `bytes`: its tag, its body, and what follows.
pub fn split_message(bytes: &[u8]) -> Result<Option<Split<'_>>, BadFrame> {
    let Some(header) = Header::peek(bytes)? else { return Ok(None) };
    if bytes.len() < header.len {
        return Ok(None);
    }
    let (message, rest) = bytes.split_at(header.len);
    Ok(Some((header.tag, &message[HEADER_BYTES..], rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_needs_five_bytes() {
        assert_eq!(Header::peek(b"Q\0\0\0"), Ok(None));
        assert_eq!(Header::peek(b"S\0\0\0\x04"), Ok(Some(Header { tag: b'S', len: 5 })));
    }

    #[test]
    fn impossible_lengths_and_tags_are_refused() {
        assert!(Header::peek(b"Q\0\0\0\x03").is_err());
        assert!(Header::peek(b"Q\xff\xff\xff\xff").is_err());
        assert!(Header::peek_client(b"z\0\0\0\x04").is_err());
        assert!(Header::peek_client(b"S\0\0\x40\0").is_err());
        assert!(Header::peek_client(b"Q\0\0\x40\0").is_ok());
    }

    #[test]
    fn a_message_is_split_only_when_it_is_whole() {
        assert_eq!(split_message(b"Z\0\0\0\x05"), Ok(None));
        assert_eq!(split_message(b"Z\0\0\0\x05IQ"), Ok(Some((b'Z', &b"I"[..], &b"Q"[..]))));
    }
}
