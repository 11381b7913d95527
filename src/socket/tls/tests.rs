//! Two ends of a connection with small kernel buffers: every byte arrives, once and in order.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use proptest::prelude::*;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, SupportedProtocolVersion,
};

use super::*;
use crate::socket::Socket;

type Configs = (Arc<ServerConfig>, Arc<ClientConfig>);

fn configs(version: &'static SupportedProtocolVersion) -> Configs {
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let certificate = params.self_signed(&key).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("a pair");
    // As Bulkhead does: a ticket that nobody has read turns the goodbye into a reset.
    server.send_tls13_tickets = 0;
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).expect("a root");
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

/// Two ends of a connection whose kernel buffers hold little.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = tokio::net::TcpSocket::new_v4().expect("a socket");
    listener.set_recv_buffer_size(4096).expect("an option");
    listener.set_send_buffer_size(4096).expect("an option");
    listener.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let listener = listener.listen(1).expect("it listens");
    let connector = tokio::net::TcpSocket::new_v4().expect("a socket");
    connector.set_recv_buffer_size(4096).expect("an option");
    connector.set_send_buffer_size(4096).expect("an option");
    let address = listener.local_addr().expect("an address");
    let (one, other) = tokio::join!(connector.connect(address), listener.accept());
    (one.expect("connected"), other.expect("accepted").0)
}

async fn tls_pair(configs: &Configs) -> (Socket, Socket) {
    let (client, server) = pair().await;
    let name = "localhost".try_into().expect("a name");
    let connection = ClientConnection::new(Arc::clone(&configs.1), name).expect("a connection");
    let accepted = ServerConnection::new(Arc::clone(&configs.0)).expect("a connection");
    let (client, server) = tokio::join!(
        TlsStream::handshake(client, connection, Vec::new()),
        TlsStream::handshake(server, accepted, Vec::new())
    );
    (Socket::Tls(Box::new(client.expect("shaken"))), Socket::Tls(Box::new(server.expect("shaken"))))
}

/// The byte at a place of the stream that one side sends.
fn byte_at(place: usize, seed: u8) -> u8 {
    (place as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0] ^ seed
}

/// One end, which behaves as a session does: it sends at once if nothing is left over, keeps the rest, and reads only
/// while little is left over.
struct End {
    socket: Socket,
    outbox: Vec<u8>,
    sends: VecDeque<usize>,
    sent: usize,
    to_receive: usize,
    received: usize,
    seed: u8,
}

impl End {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let mut moved = false;
            let flushed = self.socket.poll_flush(cx, &mut self.outbox).map(|flushed| flushed.expect("open"));
            if self.outbox.len() < 40_000
                && let Some(size) = self.sends.pop_front()
            {
                let bytes: Vec<u8> = (self.sent..self.sent + size).map(|at| byte_at(at, self.seed)).collect();
                let now =
                    if self.outbox.is_empty() { self.socket.send_now(&bytes).expect("open") } else { 0 };
                assert!(now <= bytes.len());
                self.outbox.extend_from_slice(&bytes[now..]);
                self.sent += size;
                moved = true;
            }
            if self.received < self.to_receive {
                let mut scratch = Scratch::default();
                if let Poll::Ready(read) = self.socket.poll_read(cx, &mut scratch) {
                    let len = read.expect("open");
                    assert_ne!(len, 0, "not closed before everything has come");
                    for byte in scratch.filled(len) {
                        assert_eq!(*byte, byte_at(self.received, !self.seed), "at {}", self.received);
                        self.received += 1;
                    }
                    moved = true;
                }
            }
            let all_sent = self.sends.is_empty() && self.outbox.is_empty() && flushed.is_ready();
            if all_sent && self.received == self.to_receive {
                return Poll::Ready(());
            }
            if !moved {
                return Poll::Pending;
            }
        }
    }
}

async fn pump(configs: &Configs, one: Vec<usize>, other: Vec<usize>) {
    let (client, server) = tls_pair(configs).await;
    let (to_server, to_client): (usize, usize) = (one.iter().sum(), other.iter().sum());
    let end = |socket, sends: Vec<usize>, to_receive, seed| End {
        socket,
        outbox: Vec::new(),
        sends: sends.into(),
        sent: 0,
        to_receive,
        received: 0,
        seed,
    };
    let mut client = end(client, one, to_client, 0);
    let mut server = end(server, other, to_server, 0xff);
    let both = async {
        tokio::join!(std::future::poll_fn(|cx| client.poll(cx)), std::future::poll_fn(|cx| server.poll(cx)))
    };
    tokio::time::timeout(Duration::from_secs(20), both).await.expect("nothing is forgotten");
    // The goodbye comes last, and is seen by both kinds of reading.
    drop(client);
    let mut rest = Vec::new();
    assert!(!server.socket.read_more(&mut rest).await.expect("closed in good order"));
    assert!(matches!(server.socket.read_now(&mut [0; 8]), Some(Ok(0))));
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn every_byte_arrives_once_and_in_order(
        one in proptest::collection::vec(prop_oneof![1_usize..40, 1_usize..70_000, 16_380_usize..16_390], 0..24),
        other in proptest::collection::vec(prop_oneof![1_usize..40, 1_usize..70_000, 16_380_usize..16_390], 0..24),
        old in any::<bool>(),
    ) {
        let version = if old { &rustls::version::TLS12 } else { &rustls::version::TLS13 };
        block_on(pump(&configs(version), one, other));
    }
}

#[tokio::test]
async fn a_rest_is_there_as_long_as_the_peer_lacks_a_byte() {
    let (mut client, mut server) = tls_pair(&configs(&rustls::version::TLS13)).await;
    let mut sent = 0;
    // The peer does not read: at some point the network takes nothing more.
    let rest = loop {
        let bytes: Vec<u8> = (sent..sent + 5000).map(|at| byte_at(at, 0)).collect();
        let now = client.send_now(&bytes).expect("open");
        sent += bytes.len();
        if now < bytes.len() {
            assert_eq!(client.send_now(&bytes[now..]).expect("open"), 0, "nothing moves without the peer");
            break bytes[now..].to_vec();
        }
    };
    let mut received = 0;
    let mut outbox = rest;
    while received < sent {
        let mut some = Vec::new();
        let flush = std::future::poll_fn(|cx| client.poll_flush(cx, &mut outbox));
        let (flushed, more) = tokio::join!(flush, server.read_more(&mut some));
        flushed.expect("open");
        assert!(more.expect("open"));
        for byte in some {
            assert_eq!(byte, byte_at(received, 0));
            received += 1;
        }
        if outbox.is_empty() && received < sent {
            // Nothing is left to flush, so all of it must come without the sender doing anything.
            let mut rest = Vec::new();
            while rest.len() < sent - received {
                assert!(server.read_more(&mut rest).await.expect("open"));
            }
            received += rest.len();
        }
    }
    assert_eq!(received, sent);
}

#[tokio::test]
async fn looking_at_an_idle_connection_sees_data_goodbye_and_damage() {
    let configs = configs(&rustls::version::TLS13);
    let (mut client, mut server) = tls_pair(&configs).await;
    let mut small = [0; 7];
    assert!(client.read_now(&mut small).is_none());
    server.send_all(&[9; 20]).await.expect("open");
    let mut seen = Vec::new();
    while seen.len() < 20 {
        match client.read_now(&mut small) {
            Some(read) => seen.extend_from_slice(&small[..read.expect("open")]),
            None => tokio::task::yield_now().await,
        }
    }
    assert_eq!(seen, [9; 20]);
    server.shutdown().await.expect("open");
    let end = loop {
        if let Some(read) = client.read_now(&mut small) {
            break read;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(end.expect("in good order"), 0);

    // Data that was fine is given out before the error of what follows it.
    let (tcp, mut bare) = pair().await;
    let name = "localhost".try_into().expect("a name");
    let connection = ClientConnection::new(Arc::clone(&configs.1), name).expect("a connection");
    let mut accepted =
        rustls::Connection::from(ServerConnection::new(Arc::clone(&configs.0)).expect("a connection"));
    let peer = async {
        let mut bytes = vec![0; 4096];
        while accepted.is_handshaking() {
            let len = tokio::io::AsyncReadExt::read(&mut bare, &mut bytes).await.expect("open");
            accepted.read_tls(&mut &bytes[..len]).expect("room");
            accepted.process_new_packets().expect("valid");
            let mut out = Vec::new();
            while accepted.wants_write() {
                accepted.write_tls(&mut out).expect("a Vec takes all");
            }
            bare.write_all(&out).await.expect("open");
        }
        let mut out = Vec::new();
        accepted.writer().write_all(b"good").expect("room");
        accepted.write_tls(&mut out).expect("a Vec takes all");
        out.extend_from_slice(&[23, 3, 3, 0, 20]);
        out.extend_from_slice(&[7; 20]);
        bare.write_all(&out).await.expect("open");
        bare
    };
    let (stream, _bare) = tokio::join!(TlsStream::handshake(tcp, connection, Vec::new()), peer);
    let mut socket = Socket::Tls(Box::new(stream.expect("shaken")));
    let mut read = Vec::new();
    assert!(socket.read_more(&mut read).await.expect("the good part"));
    assert_eq!(read, b"good");
    let error = socket.read_more(&mut read).await.expect_err("damaged");
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}
