//! Clients' TLS: whether it is offered, the certificate shown, and which certificates of clients are accepted.

use std::{path::PathBuf, sync::Arc};

use rustls::{
    ServerConfig, ServerConnection,
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::SingleCertAndKey,
    version::{TLS12, TLS13},
};

use super::{ALPN, EndPoint, Problem, files, provider};

/// `[listen.tls]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AcceptorSettings {
    /// Whether clients may or must use TLS.
    pub mode: ClientMode,
    /// PEM file: the certificate shown to clients, then its intermediate ones.
    pub certificate: Option<PathBuf>,
    /// PEM file: the certificate's private key.
    pub key: Option<PathBuf>,
    /// PEM file: authorities of clients' certificates. Without it clients are not asked for one.
    pub client_ca: Option<PathBuf>,
    /// Whether clients must show a certificate, if there is a `client_ca`.
    pub client_certificates: ClientCertificates,
}

/// Whether clients may or must use TLS. `allow` and `prefer` are one: it is the client who chooses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientMode {
    /// Not offered.
    #[default]
    Disable,
    /// Used if the client asks for it.
    Prefer,
    /// Clients that do not ask for it are refused.
    Require,
}

/// Whether clients must show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificates {
    /// A certificate that is shown must be valid.
    #[default]
    Optional,
    /// A valid certificate must be shown.
    Require,
}

/// Ready to shake hands with clients.
#[derive(Clone, Debug, Default)]
pub struct Acceptor {
    tls: Option<Arc<ServerConfig>>,
    requires: bool,
    end_point: Option<EndPoint>,
}

/// Reads the files and checks that they fit together.
pub fn acceptor(settings: &AcceptorSettings) -> Result<Acceptor, Problem> {
    if settings.mode == ClientMode::Disable {
        return Ok(Acceptor::default());
    }
    let (Some(certificate), Some(key)) = (&settings.certificate, &settings.key) else {
        let hint = "write certificate and key in [listen.tls], or mode = \"disable\"";
        return Err(Problem::new("listen.tls", "there is no certificate to show", hint));
    };
    let keys = files::PairKeys { certificate: "listen.tls.certificate", key: "listen.tls.key" };
    let pair = files::pair(certificate, key, keys)?;
    let end_point = pair.cert.first().and_then(|certificate| EndPoint::of(certificate));
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .expect("the provider has both versions");
    let builder = match client_verifier(settings)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut tls = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
    tls.alpn_protocols = vec![ALPN.to_vec()];
    // As in PostgreSQL, nothing is resumed: every connection proves and verifies all of it.
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    tls.send_tls13_tickets = 0;
    let requires = settings.mode == ClientMode::Require;
    Ok(Acceptor { tls: Some(Arc::new(tls)), requires, end_point })
}

fn client_verifier(settings: &AcceptorSettings) -> Result<Option<Arc<dyn ClientCertVerifier>>, Problem> {
    let Some(path) = &settings.client_ca else {
        return match settings.client_certificates {
            ClientCertificates::Optional => Ok(None),
            ClientCertificates::Require => Err(Problem::new(
                "listen.tls.client_certificates",
                "clients must show certificates, but no authority is named that would sign them",
                "write client_ca = \"FILE\" in [listen.tls]",
            )),
        };
    };
    let (roots, _) = files::roots(path, "listen.tls.client_ca")?;
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    let builder = match settings.client_certificates {
        ClientCertificates::Optional => builder.allow_unauthenticated(),
        ClientCertificates::Require => builder,
    };
    let verifier = builder.build().map_err(|error| {
        Problem::new("listen.tls.client_ca", error.to_string(), "name a PEM file of certificate authorities")
    })?;
    Ok(Some(verifier))
}

impl Acceptor {
    /// Whether plaintext is refused.
    pub const fn requires_tls(&self) -> bool {
        self.requires
    }

    /// A new connection; `None` if TLS is not offered.
    pub fn connection(&self) -> Option<ServerConnection> {
        let tls = Arc::clone(self.tls.as_ref()?);
        Some(ServerConnection::new(tls).expect("the configuration was built for TCP"))
    }

    /// What SCRAM can bind a login to; `None` if the certificate does not allow it.
    pub fn end_point(&self) -> Option<&EndPoint> {
        self.end_point.as_ref()
    }
}
