//! Cuts of connections with TLS, to the server and of clients: in the middle of a record, of the handshake, or between
//! two. What was told as done is there, what was not is there once or not at all.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use tokio_postgres::{Client, NoTls, config::SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{LANES, Lane, Lanes};
use crate::support::Certificates;

/// About so many cuts are tried in each direction.
const CUTS: usize = 120;

#[derive(Clone, Copy, Debug)]
enum Cut {
    /// On the way to the server, or to Bulkhead from a client.
    There(usize),
    Back(usize),
}

/// Which of the two relays cuts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Server,
    Client,
}

/// A client with TLS where `tls` has certificates, or why it is not let in.
async fn connect(
    port: u16,
    lane: &Lane,
    tls: Option<&MakeRustlsConnect>,
) -> Result<Client, tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config
        .host("localhost")
        .hostaddr([127, 0, 0, 1].into())
        .port(port)
        .user("app_trust")
        .dbname(&lane.database);
    let client = if let Some(tls) = tls {
        let (client, connection) = config.ssl_mode(SslMode::Require).connect(tls.clone()).await?;
        tokio::spawn(connection);
        client
    } else {
        let (client, connection) = config.ssl_mode(SslMode::Disable).connect(NoTls).await?;
        tokio::spawn(connection);
        client
    };
    Ok(client)
}

fn connector(certificates: &Certificates) -> MakeRustlsConnect {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(certificates.certificate("ca")).expect("a certificate"))
        .expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    MakeRustlsConnect::new(config)
}

/// Logs in, writes a row by a prepared statement, and gives whether it was told that the row is there.
async fn write(port: u16, lane: &Lane, tls: Option<&MakeRustlsConnect>) -> bool {
    let Ok(client) = connect(port, lane, tls).await else { return false };
    client.execute("INSERT INTO cut VALUES ($1)", &[&1]).await.is_ok_and(|count| count == 1)
}

async fn try_every_cut(side: Side) {
    let certificates = Certificates::new();
    let tls = (side == Side::Client).then(|| connector(&certificates));
    let lanes =
        Lanes::start_with(LANES, super::Build { certificates: Some(&certificates), ..super::Build::PLAIN });
    let mut lanes = lanes.await;
    let lane = &mut lanes.lanes[0];
    let (relay, port) = side.of(lane);
    relay.count();
    assert!(write(port, lane, tls.as_ref()).await, "nothing is cut");
    let (there, back) = side.of(lane).0.counted();
    assert_eq!(lane.rows().await, 1, "nothing is cut");
    if side == Side::Server {
        let encrypted = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
            WHERE datname = current_database() AND pid <> pg_backend_pid()";
        assert_eq!(lane.observer.query_value(encrypted).await, "t");
    }
    let cuts = (0..there).step_by((there / CUTS).max(1)).map(Cut::There);
    let cuts = cuts.chain((0..back).step_by((back / CUTS).max(1)).map(Cut::Back));
    let told = lanes
        .try_all(cuts, async move |lane: &mut Lane, cut| {
            lane.observer.ask("TRUNCATE cut").await;
            let (relay, port) = side.of(lane);
            match cut {
                Cut::There(bytes) => relay.cut_after(Some(bytes), None),
                Cut::Back(bytes) => relay.cut_after(None, Some(bytes)),
            }
            let told = write(port, lane, tls.as_ref()).await;
            side.of(lane).0.cut_after(None, None);
            let rows = lane.rows().await;
            assert!(usize::from(told) <= rows && rows <= 1, "{cut:?}: told {told}, {rows} rows");
            lane.check_next(&cut).await;
            told
        })
        .await;
    assert!(told.contains(&false), "no cut was noticed");
}

impl Side {
    fn of(self, lane: &Lane) -> (&crate::support::Relay, u16) {
        match self {
            Self::Server => (&lane.to_server, lane.proxy.port()),
            Self::Client => (&lane.to_client, lane.to_client.port()),
        }
    }
}

#[tokio::test]
async fn of_the_server() {
    try_every_cut(Side::Server).await;
}

#[tokio::test]
async fn of_a_client() {
    try_every_cut(Side::Client).await;
}
