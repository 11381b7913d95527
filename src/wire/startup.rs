//! The first packet of a connection: a start, a request for encryption, or a cancel. It has no tag.
//!
//! Source: "Message Formats" (StartupMessage, SSLRequest, GSSENCRequest, CancelRequest) and `postmaster.c`
//! (`ProcessStartupPacket`, `MAX_STARTUP_PACKET_LENGTH`).

use super::read::{Body, Malformed};

/// The largest first packet that PostgreSQL takes.
pub const STARTUP_BYTES: usize = 10_000;

const CANCEL: u32 = 80_877_102;
const SSL: u32 = 80_877_103;
const GSSENC: u32 = 80_877_104;

/// The newest minor version of protocol 3 that we speak (3.2: long cancel keys).
pub const MINOR_VERSION: u16 = 2;

/// A first packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirstPacket {
    /// The client asks for TLS.
    Ssl,
    /// The client asks for GSSAPI encryption.
    GssEnc,
    /// The client asks to cancel what another connection is doing.
    Cancel {
        /// The first half of the key.
        process_id: i32,
        /// The second half: 4 bytes before protocol 3.2, up to 256 since.
        secret: Box<[u8]>,
    },
    /// A session.
    Start(Startup),
}

/// A StartupMessage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Startup {
    /// The minor version that the client asked for.
    pub minor: u16,
    /// `user`; empty when missing.
    pub user: String,
    /// `database`; the user's name when missing.
    pub database: String,
    /// `replication`, if given.
    pub replication: Option<String>,
    /// Settings: every other parameter, in order, `options` included.
    pub settings: Vec<(String, String)>,
    /// Names that start with `_pq_.`: protocol options, none of which we know.
    pub unknown_options: Vec<String>,
}

/// The fault of a first packet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadStart {
    /// The length is below 8 or above [`STARTUP_BYTES`].
    #[error("invalid length of startup packet")]
    Length,
    /// The packet's strings are not as they should be.
    #[error("invalid startup packet layout: expected terminator as last byte")]
    Layout,
    /// Text that is not UTF-8.
    #[error("startup parameters are not valid UTF-8")]
    NotUtf8,
    /// A protocol other than 3.
    #[error("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.2")]
    Version {
        /// Major version asked for.
        major: u16,
        /// Minor version asked for.
        minor: u16,
    },
    /// No user.
    #[error("no PostgreSQL user name specified in startup packet")]
    NoUser,
}

impl From<Malformed> for BadStart {
    fn from(_: Malformed) -> Self {
        Self::Layout
    }
}

/// The length of the packet at the start of `bytes`; `None` until four bytes are there.
pub fn packet_len(bytes: &[u8]) -> Result<Option<usize>, BadStart> {
    let Some(head) = bytes.first_chunk() else { return Ok(None) };
    let len = u32::from_be_bytes(*head) as usize;
    if (8..=STARTUP_BYTES).contains(&len) { Ok(Some(len)) } else { Err(BadStart::Length) }
}

/// Reads a whole first packet, its length included.
pub fn parse(packet: &[u8]) -> Result<FirstPacket, BadStart> {
    let mut body = Body::new(packet, "startup");
    body.int32()?;
    let code = body.int32()? as u32;
    match code {
        SSL => Ok(FirstPacket::Ssl),
        GSSENC => Ok(FirstPacket::GssEnc),
        CANCEL => {
            let process_id = body.int32()?;
            let secret = body.rest();
            if (4..=256).contains(&secret.len()) {
                Ok(FirstPacket::Cancel { process_id, secret: secret.into() })
            } else {
                Err(BadStart::Length)
            }
        }
        version if version >> 16 == 3 => parse_start(body, version as u16).map(FirstPacket::Start),
        version => Err(BadStart::Version { major: (version >> 16) as u16, minor: version as u16 }),
    }
}

fn parse_start(mut body: Body<'_>, minor: u16) -> Result<Startup, BadStart> {
    let mut start = Startup { minor, ..Startup::default() };
    loop {
        let name = text(body.cstring()?)?;
        if name.is_empty() {
            break;
        }
        let value = text(body.cstring()?)?;
        match name.as_str() {
            "user" => start.user = value,
            "database" => start.database = value,
            "replication" => start.replication = Some(value),
            _ if name.starts_with("_pq_.") => start.unknown_options.push(name),
            _ => start.settings.push((name, value)),
        }
    }
    if !body.rest().is_empty() {
        return Err(BadStart::Layout);
    }
    if start.user.is_empty() {
        return Err(BadStart::NoUser);
    }
    if start.database.is_empty() {
        start.database.clone_from(&start.user);
    }
    Ok(start)
}

fn text(bytes: &[u8]) -> Result<String, BadStart> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| BadStart::NotUtf8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start_packet(minor: u32, strings: &[&str]) -> Vec<u8> {
        let mut body = (0x3_0000 | minor).to_be_bytes().to_vec();
        for text in strings {
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
        body.push(0);
        let mut packet = (body.len() as u32 + 4).to_be_bytes().to_vec();
        packet.extend(body);
        packet
    }

    #[test]
    fn a_start_packet_is_read() {
        let packet = start_packet(2, &["user", "ann", "application_name", "x", "_pq_.new", "1"]);
        let FirstPacket::Start(start) = parse(&packet).expect("valid") else { panic!("a start") };
        assert_eq!((start.user.as_str(), start.database.as_str(), start.minor), ("ann", "ann", 2));
        assert_eq!(start.settings, [("application_name".to_owned(), "x".to_owned())]);
        assert_eq!(start.unknown_options, ["_pq_.new"]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(parse(&start_packet(0, &["database", "d"])), Err(BadStart::NoUser));
        assert_eq!(packet_len(&[0, 0, 0x7f, 0]), Err(BadStart::Length));
        let v2 = [0, 0, 0, 8, 0, 2, 0, 0];
        assert_eq!(parse(&v2), Err(BadStart::Version { major: 2, minor: 0 }));
        let mut cut = start_packet(0, &["user", "ann"]);
        cut.pop();
        assert_eq!(parse(&cut), Err(BadStart::Layout));
    }

    proptest::proptest! {
        #[test]
        fn random_packets_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = packet_len(&bytes);
            let _ = parse(&bytes);
        }
    }
}
