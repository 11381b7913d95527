//! TLS between clients and Bulkhead: libpq in every `sslmode`, other drivers, direct TLS, certificates of both sides that
//! are wrong, and bytes that are no TLS.

use std::{fmt::Write as _, fs, path::Path, process::Command, sync::Arc};

use bytes::BytesMut;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::support::{Certificates, Login, Postgres, Proxy, ProxyConfig, RawClient, Role, Scratch, programs};

/// A proxy that shows this certificate.
fn config(primary: &Postgres, certificates: &Certificates, name: &str) -> ProxyConfig {
    ProxyConfig::primary_only(primary).set("listen.tls", "certificate", certificates.crt(name)).set(
        "listen.tls",
        "key",
        certificates.pem_key(name),
    )
}

/// What psql says: of the connection, or why there is none.
fn psql(port: u16, parameters: &str) -> Result<String, String> {
    psql_commands(port, parameters, &["\\conninfo", "SELECT 6 * 7 AS answer"])
}

fn psql_commands(port: u16, parameters: &str, commands: &[&str]) -> Result<String, String> {
    let target = format!(
        "host=localhost hostaddr=127.0.0.1 port={port} user=app password=secret dbname=app {parameters}"
    );
    let output = Command::new(programs().path("psql"))
        .args(["--no-psqlrc", "--dbname", &target])
        .args(commands.iter().flat_map(|command| ["--command", command]))
        .env("HOME", "/nonexistent")
        .output()
        .expect("psql runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn client_config(certificates: &Certificates, alpn: &[&[u8]]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(certificates.certificate("ca")).expect("a certificate");
    roots.add(ca).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config
}

#[tokio::test]
async fn psql_in_every_sslmode() {
    let primary = Postgres::start(Role::Primary);
    let certificates = Certificates::new();
    let proxy = Proxy::start(&config(&primary, &certificates, "good").to_toml());
    let (ca, other) = (certificates.crt("ca"), certificates.crt("other_ca"));
    for plain in ["sslmode=disable", "sslmode=allow"] {
        let said = psql(proxy.port(), plain).expect(plain);
        assert!(said.contains("42") && !said.contains("SSL connection"), "{plain}: {said}");
    }
    for encrypted in [
        "sslmode=prefer",
        "sslmode=require",
        "sslmode=require channel_binding=require",
        "sslmode=require channel_binding=disable",
        &format!("sslmode=verify-ca sslrootcert={ca}"),
        &format!("sslmode=verify-full sslrootcert={ca} channel_binding=require"),
        "sslmode=require ssl_max_protocol_version=TLSv1.2 channel_binding=require",
    ] {
        let said = psql(proxy.port(), encrypted).expect(encrypted);
        assert!(said.contains("42") && said.contains("SSL connection"), "{encrypted}: {said}");
    }
    let error = psql(proxy.port(), &format!("sslmode=verify-ca sslrootcert={other}")).expect_err("wrong CA");
    assert!(error.contains("certificate verify failed"), "{error}");
    proxy.wait_for_log("it does not know the authority").await;
    let error = psql(proxy.port(), "sslmode=disable channel_binding=require").expect_err("no TLS");
    assert!(error.contains("channel binding"), "{error}");

    // Without a certificate TLS is not offered, and a client that insists is told so by its own library.
    let bare = Proxy::start(&ProxyConfig::primary_only(&primary).to_toml());
    assert!(psql(bare.port(), "sslmode=prefer").is_ok());
    let error = psql(bare.port(), "sslmode=require").expect_err("no TLS");
    assert!(error.contains("server does not support SSL"), "{error}");
}

#[tokio::test]
async fn clients_see_what_is_wrong_with_our_certificate() {
    let primary = Postgres::start(Role::Primary);
    let certificates = Certificates::new();
    let verify = format!("sslmode=verify-full sslrootcert={}", certificates.crt("ca"));
    for (name, what) in [
        ("wrong_host", "does not match host name"),
        ("expired", "certificate verify failed"),
        ("future", "certificate verify failed"),
        ("stranger", "certificate verify failed"),
    ] {
        let proxy = Proxy::start(&config(&primary, &certificates, name).to_toml());
        let error = psql(proxy.port(), &verify).expect_err(name);
        assert!(error.contains(what), "{name}: {error}");
        assert!(psql(proxy.port(), "sslmode=require").is_ok(), "{name} serves who does not verify");
    }
}

#[tokio::test]
async fn who_must_use_tls_and_does_not_is_told_so() {
    let primary = Postgres::start(Role::Primary);
    let certificates = Certificates::new();
    let proxy = Proxy::start(
        &config(&primary, &certificates, "good")
            .set("listen.tls", "mode", "require")
            .set("limits", "login_timeout", "1s")
            .to_toml(),
    );
    let mut plain = RawClient::open(proxy.port()).await;
    plain.startup(&[("user", "app"), ("database", "app")]).await;
    let refused = plain.read_message().await;
    assert_eq!(refused.field(b'C').as_deref(), Some("28000"));
    assert!(refused.field(b'H').unwrap_or_default().contains("sslmode=require"), "{refused:?}");
    assert!(plain.try_read_message().await.is_none());
    assert!(psql(proxy.port(), "sslmode=require").is_ok());

    // No TLS after a yes; TLS that stops in the middle; bytes sent before the yes: each ends with the connection.
    let request = [0, 0, 0, 8, 4, 210, 22, 47];
    for (early, late) in [
        (&b""[..], &b"not a handshake at all"[..]),
        (b"", b"\x16\x03\x01\x02\x00\x01"),
        (b"\x16\x03\x01", b""),
    ] {
        let mut stream = TcpStream::connect(("127.0.0.1", proxy.port())).await.expect("connected");
        stream.write_all(&[&request, early].concat()).await.expect("open");
        let mut answer = [0; 1];
        if early.is_empty() {
            stream.read_exact(&mut answer).await.expect("an answer");
            assert_eq!(&answer, b"S");
            stream.write_all(late).await.expect("open");
        }
        let mut rest = Vec::new();
        // An alert may come, and a reset: never a session.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(10), stream.read_to_end(&mut rest))
            .await
            .expect("closed");
        assert!(rest.first().is_none_or(|byte| *byte == 21), "{rest:?}");
    }
    proxy.wait_for_log("is not TLS").await;
    assert!(psql(proxy.port(), "sslmode=require").is_ok(), "others are served as before");
}

async fn direct(port: u16, config: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
    let name = "localhost".try_into().expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await
}

/// The first message that answers a startup packet.
async fn first_answer(stream: &mut TlsStream<TcpStream>) -> (u8, Vec<u8>) {
    let mut packet = BytesMut::new();
    let parameters = [("user", "app"), ("database", "app")];
    postgres_protocol::message::frontend::startup_message(parameters, &mut packet).expect("text");
    let _ = stream.write_all(&packet).await;
    let mut head = [0; 5];
    stream.read_exact(&mut head).await.expect("an answer");
    let mut body = vec![0; u32::from_be_bytes(head[1..].try_into().expect("four")) as usize - 4];
    stream.read_exact(&mut body).await.expect("a body");
    (head[0], body)
}

#[tokio::test]
async fn direct_tls_must_name_the_protocol() {
    let primary = Postgres::start(Role::Primary);
    let certificates = Certificates::new();
    let proxy = Proxy::start(&config(&primary, &certificates, "good").to_toml());

    let mut named =
        direct(proxy.port(), client_config(&certificates, &[b"postgresql"])).await.expect("shaken");
    assert_eq!(named.get_ref().1.alpn_protocol(), Some(&b"postgresql"[..]));
    let (tag, body) = first_answer(&mut named).await;
    assert_eq!(tag, b'R', "{body:?}");
    let offered = String::from_utf8_lossy(&body[4..]).into_owned();
    assert_eq!(offered, "SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0");

    let mut unnamed = direct(proxy.port(), client_config(&certificates, &[])).await.expect("shaken");
    let (tag, body) = first_answer(&mut unnamed).await;
    assert_eq!(tag, b'E');
    assert!(String::from_utf8_lossy(&body).contains("without ALPN"));

    direct(proxy.port(), client_config(&certificates, &[b"http/1.1"])).await.expect_err("another protocol");
    proxy.wait_for_log("another protocol than postgresql").await;
}

#[tokio::test]
async fn client_certificates_are_asked_for_and_verified() {
    let primary = Postgres::start(Role::Primary);
    let certificates = Certificates::new();
    let config =
        config(&primary, &certificates, "good").set("listen.tls", "client_ca", certificates.crt("ca"));
    let own = |name: &str| {
        format!("sslmode=require sslcert={} sslkey={}", certificates.crt(name), certificates.pem_key(name))
    };
    let optional = Proxy::start(&config.to_toml());
    assert!(psql(optional.port(), "sslmode=require").is_ok());
    assert!(psql(optional.port(), &own("client")).is_ok());
    psql(optional.port(), &own("client_stranger")).expect_err("another authority");
    optional.wait_for_log("not signed by an authority in listen.tls.client_ca").await;

    let required =
        config.set("listen.tls", "client_certificates", "require").set("listen.tls", "mode", "require");
    let required = Proxy::start(&required.to_toml());
    assert!(psql(required.port(), &own("client")).is_ok());
    psql(required.port(), "sslmode=require").expect_err("none shown");
    required.wait_for_log("the client showed no certificate").await;
    psql(required.port(), &own("client_stranger")).expect_err("another authority");
}

/// A connection of tokio-postgres, bound to the certificate.
async fn tokio_postgres(url: &str, certificates: &Certificates) -> tokio_postgres::Client {
    let tls = tokio_postgres_rustls::MakeRustlsConnect::new(client_config(certificates, &[b"postgresql"]));
    let (client, connection) = tokio_postgres::connect(url, tls).await.expect("connected");
    tokio::spawn(connection);
    client
}

#[tokio::test]
async fn large_data_goes_through_tls_on_both_sides() {
    let certificates = Certificates::new();
    let primary = Postgres::builder(Role::Primary).tls(&certificates).only_tls().start();
    let upstream = format!(
        "postgres://app:secret@localhost:{}/app?sslmode=verify-full&sslrootcert={}&channel_binding=require",
        primary.port(),
        certificates.crt("ca")
    );
    let config = config(&primary, &certificates, "good").set("servers.primary", "url", upstream);
    let proxy = Proxy::start(&config.to_toml());
    let url = format!(
        "host=localhost hostaddr=127.0.0.1 port={} user=app password=secret dbname=app sslmode=require channel_binding=require",
        proxy.port()
    );
    let client = tokio_postgres(&url, &certificates).await;

    // 40 MB down, in rows of many sizes.
    let sum = "SELECT md5(string_agg(t, '')) FROM (SELECT repeat(md5(i::text), 1 + i * 7919 % 300) AS t FROM generate_series(1, 8000) i) s";
    let rows = client
        .query("SELECT repeat(md5(i::text), 1 + i * 7919 % 300) FROM generate_series(1, 8000) i", &[])
        .await
        .expect("rows");
    let all: String = rows.iter().map(|row| row.get::<_, String>(0)).collect();
    assert!(all.len() > 30_000_000);
    let expected: String = client.query_one(sum, &[]).await.expect("a sum").get(0);
    let here: String = client.query_one("SELECT md5($1)", &[&all]).await.expect("38 MB up").get(0);
    assert_eq!(here, expected);

    // COPY both ways.
    client.batch_execute("CREATE TABLE copied (n int, t text)").await.expect("created");
    let folder = Scratch::new();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    let mut lines = String::new();
    for n in 0..20_000 {
        writeln!(lines, "{n}\t{}", "y".repeat(1 + n * 7919 % 2000)).expect("text takes text");
    }
    fs::write(&from, &lines).expect("the folder is writable");
    let copied = psql_commands(
        proxy.port(),
        "sslmode=require",
        &[
            &format!("\\copy copied FROM '{}'", from.display()),
            &format!("\\copy copied TO '{}'", to.display()),
        ],
    );
    assert!(copied.expect("copied").contains("COPY 20000"));
    assert!(lines.len() > 15_000_000);
    // A table has no order.
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    let back = fs::read_to_string(&to).expect("written");
    assert!(sorted(&back) == sorted(&lines), "what came back is not what was sent");

    // A cancel over TLS.
    let cancel = client.cancel_token();
    let tls = tokio_postgres_rustls::MakeRustlsConnect::new(client_config(&certificates, &[b"postgresql"]));
    let (slept, ()) = tokio::join!(client.batch_execute("SELECT pg_sleep(60)"), async {
        primary_runs_sleep(&primary).await;
        cancel.cancel_query(tls).await.expect("sent");
    });
    let error = slept.expect_err("cancelled");
    assert_eq!(error.code(), Some(&tokio_postgres::error::SqlState::QUERY_CANCELED));

    // An idle backend that the server has closed is not handed out.
    primary.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'").await;
    primary.wait_for_backends(0).await;
    let one: i32 = client.query_one("SELECT 1", &[]).await.expect("another backend").get(0);
    assert_eq!(one, 1);
}

async fn primary_runs_sleep(primary: &Postgres) {
    crate::support::eventually("the statement runs", std::time::Duration::from_secs(10), async || {
        let sql =
            "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active'";
        (primary.value(sql).await == "1").then_some(())
    })
    .await;
}

/// The drivers' own scripts, over TLS with the certificate verified.
#[test]
fn drivers_of_other_languages() {
    // No replica: the scripts read what they have just written.
    let primary = Postgres::start(Role::Primary);
    let certificates = Certificates::new();
    let config = config(&primary, &certificates, "good").set("listen.tls", "mode", "require");
    let proxy = Proxy::start(&config.to_toml());
    let url = format!(
        "{}?sslmode=verify-full&sslrootcert={}",
        Login::App.url(proxy.port(), "app").replace("127.0.0.1", "localhost"),
        certificates.crt("ca")
    );
    let drivers =
        Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("inside the build folder").join("drivers");
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drivers");
    let mut python = Command::new(drivers.join("venv/bin/python"));
    python.arg("-I").arg(scripts.join("psycopg3.py"));
    let mut node = crate::drivers::node();
    node.arg(scripts.join("node_postgres.mjs"));
    for mut command in [python, node] {
        let output =
            command.env("DATABASE_URL", &url).env("DRIVERS", &drivers).output().expect("run `make setup`");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && text.contains("all ok"), "{command:?}:\n{text}{errors}");
    }
}
