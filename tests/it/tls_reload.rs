//! Files of TLS that change on disk while Bulkhead runs, keys that are not as they should be, and two habits of the
//! protocol: the server's name in the client's hello, and cancels without encryption.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{LazyConfigAcceptor, TlsConnector};

use crate::support::{
    Certificates, Postgres, Proxy, ProxyConfig, RawClient, Role, Scratch, Signal, eventually, programs,
};

const OK: &str = "bulkhead_reloads_total{result=\"ok\"}";
const FAILED: &str = "bulkhead_reloads_total{result=\"failed\"}";
const SOON: Duration = Duration::from_secs(10);

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn client_config(certificates: &Certificates) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(certificate(certificates, "ca")).expect("a root");
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    config
}

fn certificate(certificates: &Certificates, name: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(certificates.certificate(name)).expect("a certificate")
}

/// The certificate that a new connection is shown.
async fn shown(port: u16, certificates: &Certificates, host: &'static str) -> CertificateDer<'static> {
    let tcp = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
    let name = host.try_into().expect("a name");
    let connector = TlsConnector::from(Arc::new(client_config(certificates)));
    let stream = connector.connect(name, tcp).await.expect("a certificate of this authority for this host");
    stream.get_ref().1.peer_certificates().expect("servers show one")[0].clone().into_owned()
}

/// Tells the proxy to read its files again; waits until that has worked, or has been refused.
async fn reload(proxy: &Proxy, result: &str) {
    let before = proxy.metric(result).await.expect("the counter is there");
    proxy.signal(Signal::HUP);
    proxy.wait_for_metric(result, before + 1.0).await;
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_new_connections() {
    let primary = Postgres::start(Role::Primary);
    let certificates = Certificates::new();
    let folder = Scratch::new();
    let (crt, key) = (folder.path().join("server.crt"), folder.path().join("server.key"));
    let put = |crt_of: &str, key_of: &str| {
        fs::copy(certificates.certificate(crt_of), &crt).expect("the folder is writable");
        fs::copy(certificates.key(key_of), &key).expect("the folder is writable");
    };
    put("good", "good");
    let config = ProxyConfig::primary_only(&primary)
        .set("listen.tls", "certificate", crt.to_str().expect("text"))
        .set("listen.tls", "key", key.to_str().expect("text"));
    let proxy = Proxy::start(&config.to_toml());
    let port = proxy.port();
    let url = format!(
        "host=localhost hostaddr=127.0.0.1 port={port} user=app password=secret dbname=app sslmode=require"
    );
    let tls = tokio_postgres_rustls::MakeRustlsConnect::new(client_config(&certificates));
    let (old, connection) = tokio_postgres::connect(&url, tls).await.expect("connected");
    tokio::spawn(connection);
    old.batch_execute("BEGIN").await.expect("a transaction");
    assert_eq!(shown(port, &certificates, "localhost").await, certificate(&certificates, "good"));

    put("wrong_host", "wrong_host");
    assert_eq!(
        shown(port, &certificates, "localhost").await,
        certificate(&certificates, "good"),
        "nothing changes before the signal"
    );
    reload(&proxy, OK).await;
    let new = certificate(&certificates, "wrong_host");
    assert_eq!(shown(port, &certificates, "db.example.com").await, new);
    old.batch_execute("SELECT 1; COMMIT").await.expect("the old connection lives on");

    // What cannot be used is refused, with all else that came with it, and said in the log and by the command.
    let command = || {
        let output = Command::new(env!("CARGO_BIN_EXE_bulkhead"))
            .args(["--config", proxy.config_path().to_str().expect("text")])
            .args(["reload", "--pid", &proxy.pid().to_string()])
            .output()
            .expect("the program runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (what, said) in [
        ("another key", "does not belong to the certificate"),
        ("a damaged key", "there is no private key in"),
        ("no key", "cannot read"),
        ("a damaged certificate", "there is no certificate in"),
        ("no certificate", "cannot read"),
    ] {
        put("good", "good");
        match what {
            "another key" => put("good", "client"),
            "a damaged key" => fs::write(&key, "no key").expect("writable"),
            "no key" => fs::remove_file(&key).expect("it is there"),
            "a damaged certificate" => fs::write(&crt, "no certificate").expect("writable"),
            _ => fs::remove_file(&crt).expect("it is there"),
        }
        let before = proxy.log().len();
        reload(&proxy, FAILED).await;
        let log = proxy.log()[before..].to_owned();
        let file = if what.contains("key") { "listen.tls.key" } else { "listen.tls.certificate" };
        for word in [said, file, "reload failed: nothing was changed"] {
            assert!(log.contains(word), "{what}: {word} in {log}");
        }
        assert_eq!(shown(port, &certificates, "db.example.com").await, new, "{what}: the old one goes on");
        let failed = proxy.metric(FAILED).await;
        let (code, told) = command();
        assert_eq!(code, Some(64), "{what}: {told}");
        assert!(told.contains(said) && told.contains(file), "{what}: {told}");
        assert_eq!(proxy.metric(FAILED).await, failed, "{what}: no signal was sent");
    }
    put("good", "good");
    reload(&proxy, OK).await;
    assert_eq!(shown(port, &certificates, "localhost").await, certificate(&certificates, "good"));
    old.batch_execute("SELECT 1").await.expect("the old connection lives on");
}

#[tokio::test]
async fn a_new_authority_is_believed_and_an_old_one_no_more() {
    let certificates = Certificates::new();
    let primary = Postgres::builder(Role::Primary).tls(&certificates).start();
    let folder = Scratch::new();
    let roots = folder.path().join("root.crt");
    let trust = |name: &str| {
        fs::copy(certificates.certificate(name), &roots).expect("the folder is writable");
    };
    trust("ca");
    let url = format!(
        "postgres://app:secret@localhost:{}/app?sslmode=verify-full&sslrootcert={}",
        primary.port(),
        roots.display()
    );
    let config = ProxyConfig::primary_only(&primary).set("servers.primary", "url", url).set(
        "pools.primary",
        "wait_timeout",
        "3s",
    );
    let proxy = Proxy::start(&config.to_toml());
    let mut client = RawClient::app(proxy.port()).await;
    client.query_value("SELECT 1").await;
    client.ask("BEGIN").await;
    client.query_value("SELECT 'a transaction'").await;

    trust("other_ca");
    reload(&proxy, OK).await;
    assert_eq!(client.query_value("SELECT 2").await, "2", "the transaction goes on");
    client.ask("COMMIT").await;
    client.query("SELECT 3").await;
    let [code, message, _] = client.read_error().await.expect("the server is not believed any more");
    assert_eq!(code, "08006", "{message}");
    assert!(message.contains("does not know the authority") || message.contains("sslrootcert"), "{message}");

    trust("ca");
    reload(&proxy, OK).await;
    let client = tokio::sync::Mutex::new(client);
    eventually("the server is believed again", SOON, async || {
        let mut client = client.lock().await;
        client.query("SELECT 4").await;
        client.read_error().await.is_none().then_some(())
    })
    .await;

    fs::write(&roots, "no certificate").expect("the folder is writable");
    reload(&proxy, FAILED).await;
    proxy.wait_for_log("servers.primary.url (sslrootcert)").await;
    assert_eq!(client.lock().await.query_value("SELECT 5").await, "5");
}

/// A server that takes TLS, notes the name in the first hello, and hangs up.
async fn named_in_hello(host: &str) -> Option<String> {
    let certificates = Certificates::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let text = format!(
        "[listen]\naddress = \"{{listen}}\"\nhttp = \"{{http}}\"\n[servers.primary]\n\
         url = \"postgres://app:secret@{host}:{port}/app?sslmode=require\"\n"
    );
    let _proxy = Proxy::start(&text);
    let (mut tcp, _) = listener.accept().await.expect("it connects by itself, to read the catalog");
    let mut request = [0; 8];
    tcp.read_exact(&mut request).await.expect("an SSLRequest");
    assert_eq!(request[4..], 80_877_103_u32.to_be_bytes());
    tcp.write_all(b"S").await.expect("it reads");
    let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), tcp).await.expect("a hello");
    let name = start.client_hello().server_name().map(str::to_owned);
    let key = PrivateKeyDer::from_pem_file(certificates.key("good")).expect("a key");
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate(&certificates, "good")], key)
        .expect("a pair");
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    let mut stream = start.into_stream(Arc::new(config)).await.expect("shaken");
    let mut startup = [0; 8];
    stream.read_exact(&mut startup).await.expect("a startup packet, encrypted");
    assert_eq!(startup[4..], 196_608_u32.to_be_bytes());
    name
}

#[tokio::test]
async fn servers_are_told_by_which_name_they_were_called() {
    assert_eq!(named_in_hello("localhost").await.as_deref(), Some("localhost"));
    // An address is no name (RFC 6066).
    assert_eq!(named_in_hello("127.0.0.1").await, None);
}

/// libpq before version 17 cancels without encryption, however its connection is; a server takes that.
#[tokio::test]
async fn a_cancel_needs_no_encryption() {
    let primary = Postgres::start(Role::Primary);
    let certificates = Certificates::new();
    let config = ProxyConfig::primary_only(&primary)
        .set("listen.tls", "certificate", certificates.crt("good"))
        .set("listen.tls", "key", certificates.pem_key("good"))
        .set("listen.tls", "mode", "require");
    let proxy = Proxy::start(&config.to_toml());
    let target =
        format!("host=127.0.0.1 port={} user=app password=secret dbname=app sslmode=require", proxy.port());
    let psql = Command::new(programs().path("psql"))
        .args(["--no-psqlrc", "--dbname", &target, "--command", "SELECT pg_sleep(60)"])
        .env("HOME", "/nonexistent")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("psql runs");
    let running = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND state = 'active' AND query LIKE '%pg_sleep(60)%'";
    eventually("the statement runs", SOON, async || (primary.value(running).await == "1").then_some(()))
        .await;
    let pid = i32::try_from(psql.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a process");
    rustix::process::kill_process(pid, Signal::INT).expect("our own child");
    let output = tokio::task::spawn_blocking(move || psql.wait_with_output()).await.expect("waited for");
    let said = String::from_utf8_lossy(&output.expect("it ends").stderr).into_owned();
    assert!(said.contains("canceling statement due to user request"), "{said}");
    assert_eq!(proxy.metric("bulkhead_cancel_requests_total").await, Some(1.0));

    // Nothing else comes in unencrypted.
    let mut plain = RawClient::open(proxy.port()).await;
    plain.startup(&[("user", "app"), ("database", "app")]).await;
    assert_eq!(plain.read_message().await.field(b'C').as_deref(), Some("28000"));
    RawClient::cancel(proxy.port(), 1, b"guess").await;
}

#[tokio::test]
async fn keys_with_a_passphrase_are_refused_and_open_ones_warned_about() {
    let primary = Postgres::start(Role::Primary);
    let certificates = Certificates::new();
    let folder = Scratch::new();
    let key = folder.path().join("server.key");
    let config = ProxyConfig::primary_only(&primary)
        .set("listen.tls", "certificate", certificates.crt("good"))
        .set("listen.tls", "key", key.to_str().expect("text"));
    for way in [&["pkey", "-aes256"][..], &["ec", "-aes256"]] {
        let made = Command::new("openssl")
            .args(way)
            .args(["-passout", "pass:hunter2", "-in", &certificates.pem_key("good")])
            .output()
            .expect("openssl is installed");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        fs::write(&key, made.stdout).expect("the folder is writable");
        let proxy = Proxy::spawn(&config.to_toml(), &[]);
        assert_eq!(proxy.wait(SOON).code(), Some(64), "{way:?}");
        for word in ["listen.tls.key", "is protected by a passphrase", "openssl pkey"] {
            assert!(proxy.log().contains(word), "{way:?}: {word} in {}", proxy.log());
        }
    }
    fs::copy(certificates.key("good"), &key).expect("the folder is writable");
    for (mode, warned) in [(0o644, true), (0o640, false), (0o600, false)] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).expect("our own");
        let proxy = Proxy::start(&config.to_toml());
        let warns = proxy.log().contains("everybody on this machine can read the private key");
        assert_eq!(warns, warned, "{mode:o}: {}", proxy.log());
        assert_eq!(shown(proxy.port(), &certificates, "localhost").await, certificate(&certificates, "good"));
    }
}
