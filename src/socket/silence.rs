//! Whether a peer has fallen silent: it acknowledges nothing of what was sent to it, again and again.
//!
//! `TCP_USER_TIMEOUT` is no measure of that: since Linux 5.11 it also ends the connection to a peer that is well and
//! only takes nothing for a while, such as a server whose COPY waits for a lock. So the kernel is asked how often it
//! has sent in vain (`sock_diag(7)`): an answer of any kind, also one that there is no room yet, sets that to zero.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Type};
use tokio::net::TcpStream;

use super::Socket;

const AF_NETLINK: i32 = 16;
const NETLINK_SOCK_DIAG: i32 = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const IPPROTO_TCP: u8 = 6;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// `struct nlmsghdr`.
const HEADER_BYTES: usize = 16;

/// Timers of a socket (`idiag_timer`).
const RETRANSMITS: u8 = 1;
const PROBES_WINDOW: u8 = 4;

/// The first probe of a closed window may have its answer still under way.
const FIRST_PROBES: u8 = 2;

/// How often peers are looked at within the time that they have.
pub const LOOKS: u32 = 6;

/// Never more often than this.
const LOOK_AT_LEAST: Duration = Duration::from_millis(250);

/// The pause between two looks at a peer that has so long.
pub fn pause(limit: Duration) -> Duration {
    (limit / LOOKS).max(LOOK_AT_LEAST)
}

/// What is known of one peer. Boxed: few are silent at any time, and every client has one.
#[derive(Debug, Default)]
pub struct Silence(Option<Box<Unanswered>>);

#[derive(Clone, Copy, Debug)]
struct Unanswered {
    since: Instant,
    tries: u8,
}

impl Silence {
    /// Looks at the peer; true if it has been silent for as long as `limit` allows, as far as that can be known by
    /// looking [`LOOKS`] times within it.
    pub fn lasts(&mut self, socket: &Socket, limit: Duration) -> bool {
        let tcp = match socket {
            Socket::Tcp(tcp) => tcp,
            Socket::Tls(stream) => stream.tcp(),
            Socket::Unix(_) => return false,
        };
        // Where the kernel does not tell, its own bound holds.
        let tries = tries_in_vain(tcp).unwrap_or(0);
        self.note(tries, Instant::now(), limit.saturating_sub(pause(limit)))
    }

    // Heard => Unanswered => (Unanswered | Heard)
    fn note(&mut self, tries: u8, now: Instant, limit: Duration) -> bool {
        self.0 = match self.0.take() {
            _ if tries == 0 => None,
            Some(before) if before.tries <= tries => Some(Unanswered { tries, ..*before }.into()),
            // Fewer than before: there was an answer in between.
            _ => Some(Unanswered { since: now, tries }.into()),
        };
        self.0.as_ref().is_some_and(|unanswered| now.saturating_duration_since(unanswered.since) >= limit)
    }
}

/// How often the kernel has sent the same to the peer, or asked it for room, since the peer last answered.
fn tries_in_vain(tcp: &TcpStream) -> io::Result<u8> {
    let request = request(tcp.local_addr()?, tcp.peer_addr()?);
    let mut netlink =
        socket2::Socket::new(Domain::from(AF_NETLINK), Type::DGRAM, Some(Protocol::from(NETLINK_SOCK_DIAG)))?;
    // The kernel answers before the request returns.
    netlink.set_nonblocking(true)?;
    netlink.write_all(&request)?;
    let mut answer = [0; 512];
    let len = netlink.read(&mut answer)?;
    Ok(read_tries(answer.get(..len).unwrap_or_default()).unwrap_or(0))
}

/// `struct nlmsghdr`, then `struct inet_diag_req_v2`.
fn request(local: SocketAddr, peer: SocketAddr) -> Vec<u8> {
    let family = if local.is_ipv4() { AF_INET } else { AF_INET6 };
    let mut body = vec![family, IPPROTO_TCP, 0, 0];
    // All states.
    body.extend(u32::MAX.to_ne_bytes());
    body.extend(local.port().to_be_bytes());
    body.extend(peer.port().to_be_bytes());
    for address in [local.ip(), peer.ip()] {
        let mut bytes = [0; 16];
        match address {
            IpAddr::V4(address) => bytes[..4].copy_from_slice(&address.octets()),
            IpAddr::V6(address) => bytes = address.octets(),
        }
        body.extend(bytes);
    }
    // Any interface, and no cookie.
    body.extend(0_u32.to_ne_bytes());
    body.extend([u8::MAX; 8]);
    let mut request = Vec::with_capacity(HEADER_BYTES + body.len());
    request.extend(((HEADER_BYTES + body.len()) as u32).to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend(NLM_F_REQUEST.to_ne_bytes());
    // A number of the request, and of who asks: the kernel fills that in.
    request.extend([0; 8]);
    request.extend(body);
    request
}

/// `struct nlmsghdr`, then `struct inet_diag_msg`: family, state, timer, retrans.
fn read_tries(answer: &[u8]) -> Option<u8> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    if kind != SOCK_DIAG_BY_FAMILY {
        return None;
    }
    let [timer, tries] = answer.get(HEADER_BYTES + 2..HEADER_BYTES + 4)?.try_into().ok()?;
    match timer {
        RETRANSMITS => Some(tries),
        PROBES_WINDOW if tries >= FIRST_PROBES => Some(tries),
        _ => Some(0),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (one, other) = tokio::join!(TcpStream::connect(address), listener.accept());
        (one.expect("connected"), other.expect("accepted").0)
    }

    #[tokio::test]
    async fn a_peer_that_only_takes_nothing_is_not_silent() {
        let (full, _paused) = pair().await;
        assert_eq!(tries_in_vain(&full).expect("the kernel tells"), 0);
        let mut sent = 0;
        while let Ok(more) = full.try_write(&[0; 4096]) {
            sent += more;
        }
        assert!(sent > 0);
        let limit = Duration::from_secs(2);
        let (mut silence, began) = (Silence::default(), Instant::now());
        let socket = Socket::Tcp(full);
        while began.elapsed() < 2 * limit {
            assert!(!silence.lasts(&socket, limit), "{silence:?} after {:?}", began.elapsed());
            tokio::time::sleep(pause(limit)).await;
        }
    }

    #[test]
    fn tries_that_grow_for_long_enough_are_silence() {
        let (start, limit) = (Instant::now(), Duration::from_secs(25));
        let looks = |tries: &[u8]| -> Vec<bool> {
            let mut silence = Silence::default();
            let look = |(number, tries): (u32, &u8)| {
                silence.note(*tries, start + number * Duration::from_secs(5), limit)
            };
            (0..).zip(tries).map(look).collect()
        };
        assert_eq!(looks(&[1, 3, 5, 6, 6, 7]), [false, false, false, false, false, true]);
        assert_eq!(looks(&[0, 1, 3, 5, 6, 6, 7])[5..], [false, true]);
        assert_eq!(looks(&[5, 6, 1, 3, 4, 5, 6, 7])[6..], [false, true], "an answer came after the second");
        assert_eq!(looks(&[3, 3, 3, 3, 3, 0, 3]), [false; 7]);
    }
}
