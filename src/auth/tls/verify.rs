//! Verifying a server's certificate as libpq does: not at all, its chain (verify-ca), or also its name (verify-full).
//!
//! What webpki, made for the web, refuses and libpq takes is added here: a server's own certificate as the trusted one,
//! and a host name in the subject's common name if there are no alternative names.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Verifies by one server's settings.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    algorithms: WebPkiSupportedAlgorithms,
    chain: Option<Chain>,
}

#[derive(Debug)]
struct Chain {
    webpki: Arc<WebPkiServerVerifier>,
    /// Certificates that are trusted as they are.
    pinned: Vec<CertificateDer<'static>>,
    checks_name: bool,
}

impl ServerVerifier {
    /// Takes any certificate, as long as the server has its key.
    pub(super) fn none(provider: &CryptoProvider) -> Self {
        Self { algorithms: provider.signature_verification_algorithms, chain: None }
    }

    /// Takes certificates that lead to `roots` or are among `pinned`; of this host, if `checks_name`.
    pub(super) fn new(
        provider: &Arc<CryptoProvider>,
        roots: RootCertStore,
        pinned: Vec<CertificateDer<'static>>,
        checks_name: bool,
    ) -> Result<Self, String> {
        let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
            .build()
            .map_err(|error| error.to_string())?;
        let chain = Chain { webpki, pinned, checks_name };
        Ok(Self { algorithms: provider.signature_verification_algorithms, chain: Some(chain) })
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        let verified = if chain.pinned.iter().any(|pinned| pinned == end_entity) {
            verify_pinned(end_entity, server_name, now)
        } else {
            let verified =
                chain.webpki.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
            verified.map(|_| ())
        };
        // The name is looked at last: all the rest is fine if this is what is wrong.
        let wrong_name = |error: &Error| {
            matches!(
                error,
                Error::InvalidCertificate(
                    CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
                )
            )
        };
        match verified {
            Err(error) if wrong_name(&error) && !chain.checks_name => Ok(ServerCertVerified::assertion()),
            Err(error) if wrong_name(&error) && has_common_name(end_entity, server_name) => {
                Ok(ServerCertVerified::assertion())
            }
            other => other.map(|()| ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Dates and name of a certificate that is trusted as it is.
fn verify_pinned(
    certificate: &CertificateDer<'_>,
    name: &ServerName<'_>,
    now: UnixTime,
) -> Result<(), Error> {
    let bad = |_| Error::InvalidCertificate(CertificateError::BadEncoding);
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(bad)?;
    let seconds = |time: x509_parser::time::ASN1Time| {
        UnixTime::since_unix_epoch(std::time::Duration::from_secs(
            u64::try_from(time.timestamp()).unwrap_or(0),
        ))
    };
    let (not_before, not_after) =
        (seconds(parsed.validity().not_before), seconds(parsed.validity().not_after));
    if now < not_before {
        return Err(CertificateError::NotValidYetContext { time: now, not_before }.into());
    }
    if now > not_after {
        return Err(CertificateError::ExpiredContext { time: now, not_after }.into());
    }
    let parsed = rustls::server::ParsedCertificate::try_from(certificate)?;
    rustls::client::verify_server_name(&parsed, name)
}

/// Whether the subject's common name is the host's, in a certificate that has no alternative names. `*` stands for the
/// first label.
fn has_common_name(certificate: &CertificateDer<'_>, name: &ServerName<'_>) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return false };
    if !matches!(parsed.subject_alternative_name(), Ok(None)) {
        return false;
    }
    let host = match name {
        ServerName::DnsName(name) => name.as_ref().to_ascii_lowercase(),
        ServerName::IpAddress(address) => std::net::IpAddr::from(*address).to_string(),
        _ => return false,
    };
    let names = parsed.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    names.map(str::to_ascii_lowercase).any(|common| {
        let wildcard = common.strip_prefix("*.").filter(|rest| rest.contains('.'));
        let is_name = matches!(name, ServerName::DnsName(_));
        common == host
            || (is_name && wildcard.is_some() && wildcard == host.split_once('.').map(|(_, rest)| rest))
    })
}
