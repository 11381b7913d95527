//! TLS towards a server: libpq's `sslmode` and what belongs to it.

use std::{path::PathBuf, sync::Arc};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore,
    client::Resumption,
    pki_types::ServerName,
    sign::SingleCertAndKey,
    version::{TLS12, TLS13},
};

use super::{ALPN, Problem, files, provider, verify::ServerVerifier};

/// The parameters of a server's URL that are about TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectorSettings {
    /// `sslmode`
    pub mode: SslMode,
    /// `sslrootcert`: whom to trust. Without it nobody is verified.
    pub roots: Option<Roots>,
    /// `sslcert`: PEM file, the certificate shown to the server.
    pub certificate: Option<PathBuf>,
    /// `sslkey`: PEM file, its private key.
    pub key: Option<PathBuf>,
    /// `sslnegotiation`
    pub negotiation: Negotiation,
    /// `channel_binding`
    pub channel_binding: ChannelBinding,
}

/// How much a server's connection must be encrypted, as in libpq; in rising order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    /// Never.
    Disable,
    /// Only if the server insists.
    Allow,
    /// If the server can (libpq's default).
    #[default]
    Prefer,
    /// Always.
    Require,
    /// Always, and the certificate must be signed by a known authority.
    VerifyCa,
    /// That, and it must be this host's.
    VerifyFull,
}

/// Whose signature on a server's certificate counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// The authorities that the system trusts.
    System,
    /// Those of a PEM file.
    File(PathBuf),
}

/// How TLS begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Negotiation {
    /// With a request in PostgreSQL's protocol.
    #[default]
    Postgres,
    /// At once (PostgreSQL 17 and later).
    Direct,
}

/// Whether a login is tied to the server's certificate (SCRAM-SHA-256-PLUS).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// If the server offers it.
    #[default]
    Prefer,
    /// A login without it fails.
    Require,
}

/// One way to begin a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// Without TLS.
    Plain,
    /// With TLS, or without it if the server has none.
    IfOffered,
    /// With TLS, or not at all.
    Tls,
}

/// Ready to shake hands with a server.
#[derive(Clone, Debug, Default)]
pub struct Connector {
    settings: ConnectorSettings,
    tls: Option<Arc<ClientConfig>>,
    /// Of the files' contents: see [`Connector::is_alike`].
    files: Vec<files::Digest>,
}

/// Reads the files and checks that they fit together. `key` is the configuration's name for the URL.
pub fn connector(settings: &ConnectorSettings, key: &str) -> Result<Connector, Problem> {
    let settings = settings.clone();
    if settings.mode == SslMode::Disable {
        return Ok(Connector { settings, tls: None, files: Vec::new() });
    }
    let verifier = server_verifier(&settings, &format!("{key} (sslrootcert)"))?;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .expect("the provider has both versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut tls = match (&settings.certificate, &settings.key) {
        (Some(certificate), Some(secret)) => {
            let (certificate_key, secret_key) = (format!("{key} (sslcert)"), format!("{key} (sslkey)"));
            let keys = files::PairKeys { certificate: &certificate_key, key: &secret_key };
            let pair = files::pair(certificate, secret, keys)?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair)))
        }
        _ => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![ALPN.to_vec()];
    // PostgreSQL resumes nothing.
    tls.resumption = Resumption::disabled();
    let roots = match &settings.roots {
        Some(Roots::File(path)) => Some(path),
        Some(Roots::System) | None => None,
    };
    let named = [roots, settings.certificate.as_ref(), settings.key.as_ref()];
    let files = named.into_iter().flatten().map(|path| files::digest(path, key)).collect::<Result<_, _>>()?;
    Ok(Connector { settings, tls: Some(Arc::new(tls)), files })
}

fn server_verifier(settings: &ConnectorSettings, key: &str) -> Result<ServerVerifier, Problem> {
    let provider = provider();
    let (store, pinned) = match &settings.roots {
        None => return Ok(ServerVerifier::none(&provider)),
        Some(Roots::File(path)) => files::roots(path, key)?,
        Some(Roots::System) => (system_roots(key)?, Vec::new()),
    };
    // With authorities given, weaker modes verify as verify-ca does (libpq).
    let names = settings.mode == SslMode::VerifyFull;
    ServerVerifier::new(&provider, store, pinned, names).map_err(|error| {
        Problem::new(key, error, "name a PEM file of certificate authorities, or write sslrootcert=system")
    })
}

fn system_roots(key: &str) -> Result<RootCertStore, Problem> {
    let loaded = rustls_native_certs::load_native_certs();
    let mut store = RootCertStore::empty();
    let (taken, _) = store.add_parsable_certificates(loaded.certs);
    if taken == 0 {
        let why = loaded.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
        return Err(Problem::new(
            key,
            format!("the system has no certificate authorities{why}"),
            "install the package ca-certificates, or set SSL_CERT_FILE, or name a PEM file",
        ));
    }
    Ok(store)
}

impl Connector {
    /// Whether both have the same settings and were made from the same files, byte for byte. Of the system's
    /// authorities only the setting is compared.
    pub fn is_alike(&self, other: &Self) -> bool {
        self.settings == other.settings && self.files == other.files
    }

    /// The ways to try, in this order.
    pub fn attempts(&self) -> &'static [Encryption] {
        match self.settings.mode {
            SslMode::Disable => &[Encryption::Plain],
            SslMode::Allow => &[Encryption::Plain, Encryption::Tls],
            SslMode::Prefer => &[Encryption::IfOffered, Encryption::Plain],
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => &[Encryption::Tls],
        }
    }

    /// How TLS begins.
    pub const fn negotiation(&self) -> Negotiation {
        self.settings.negotiation
    }

    /// Whether logins are tied to the server's certificate.
    pub const fn channel_binding(&self) -> ChannelBinding {
        self.settings.channel_binding
    }

    /// Where the trusted authorities come from, for messages.
    pub fn trusts(&self) -> String {
        match &self.settings.roots {
            None => "nobody".to_owned(),
            Some(Roots::System) => "the system's authorities (sslrootcert=system)".to_owned(),
            Some(Roots::File(path)) => format!("sslrootcert={}", path.display()),
        }
    }

    /// A new connection to `host`, a name or an address. Only names are sent along (SNI).
    pub fn connection(&self, host: &str) -> Result<ClientConnection, String> {
        let tls = self.tls.as_ref().ok_or("sslmode=disable")?;
        // A name may be written with the dot of the root, certificates have none.
        let name = ServerName::try_from(host.strip_suffix('.').unwrap_or(host).to_owned())
            .map_err(|_| format!("\"{host}\" is no name that a certificate could have"))?;
        ClientConnection::new(Arc::clone(tls), name).map_err(|error| error.to_string())
    }
}
