//! What went wrong in a handshake, in words for the operator: what happened, and what to do.

use std::io;

use rustls::{AlertDescription, CertificateError, Error, pki_types::UnixTime};

use super::Connector;

/// A handshake, or the first words after it, with a server that failed.
pub fn explain_server(error: &io::Error, connector: &Connector, host: &str) -> String {
    let Some(error) = inner(error) else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                "the server hung up during the TLS handshake; see its log".to_owned()
            }
            _ => format!("the TLS handshake failed: {error}"),
        };
    };
    match error {
        Error::InvalidCertificate(certificate) => server_certificate(certificate, connector, host),
        Error::AlertReceived(alert) => {
            format!("the server refused the TLS handshake: {}", alert_text(*alert))
        }
        Error::InvalidMessage(_) => {
            format!("what the server answers is not TLS ({error}): is a PostgreSQL server listening there?")
        }
        Error::PeerIncompatible(_) => {
            format!(
                "the server and Bulkhead have no TLS version or cipher in common (TLS 1.2 is the least): {error}"
            )
        }
        Error::NoApplicationProtocol => {
            "the server speaks TLS, but not PostgreSQL's protocol in it (ALPN)".to_owned()
        }
        other => format!("the TLS handshake failed: {other}"),
    }
}

/// A client's handshake that failed.
pub fn explain_client(error: &io::Error) -> String {
    let Some(error) = inner(error) else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof => "the client hung up".to_owned(),
            _ => error.to_string(),
        };
    };
    match error {
        Error::NoCertificatesPresented => {
            "the client showed no certificate, and listen.tls.client_certificates is \"require\"".to_owned()
        }
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "the client's certificate is not signed by an authority in listen.tls.client_ca".to_owned()
        }
        Error::InvalidCertificate(certificate) => format!("the client's certificate {}", dates(certificate)),
        Error::AlertReceived(alert) => format!("the client refused: {}", alert_text(*alert)),
        Error::InvalidMessage(_) => format!("what the client sent is not TLS ({error})"),
        Error::NoApplicationProtocol => {
            "the client asks for another protocol than postgresql (ALPN)".to_owned()
        }
        other => other.to_string(),
    }
}

fn inner(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

fn server_certificate(error: &CertificateError, connector: &Connector, host: &str) -> String {
    match error {
        CertificateError::UnknownIssuer => format!(
            "the server's certificate is not signed by an authority of {}; name the right file in sslrootcert",
            connector.trusts()
        ),
        CertificateError::NotValidForNameContext { presented, .. } => {
            let names = presented.iter().map(|name| plain_name(name)).collect::<Vec<_>>().join(", ");
            let names = if names.is_empty() { "no host".to_owned() } else { names };
            format!(
                "the server's certificate is for {names}, not for \"{host}\"; connect by that name, or write sslmode=verify-ca"
            )
        }
        CertificateError::NotValidForName => format!("the server's certificate is not for \"{host}\""),
        other => format!("the server's certificate {}", dates(other)),
    }
}

/// `DnsName("a")`, as rustls has it, without the wrapping.
fn plain_name(name: &str) -> String {
    name.split_once('(').map_or(name, |(_, inner)| inner.trim_end_matches(')')).trim_matches('"').to_owned()
}

fn dates(error: &CertificateError) -> String {
    match error {
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("expired on {}; renew it", date(*not_after))
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("is not valid before {}; look at the clocks of both machines", date(*not_before))
        }
        CertificateError::UnknownIssuer => "is not signed by a known authority".to_owned(),
        other => format!("was refused: {}", Error::InvalidCertificate(other.clone())),
    }
}

fn date(time: UnixTime) -> String {
    let parsed = x509_parser::time::ASN1Time::from_timestamp(time.as_secs() as i64);
    parsed.map_or_else(|_| "an unknown date".to_owned(), |time| time.to_string())
}

fn alert_text(alert: AlertDescription) -> String {
    let what = match alert {
        AlertDescription::CertificateRequired => {
            "it asks for a certificate; give one with sslcert and sslkey"
        }
        AlertDescription::UnknownCA => "it does not know the authority of the certificate shown to it",
        AlertDescription::BadCertificate | AlertDescription::CertificateUnknown => {
            "it does not accept the certificate shown to it"
        }
        AlertDescription::CertificateExpired => "the certificate shown to it is not valid now",
        AlertDescription::ProtocolVersion => "no TLS version in common (TLS 1.2 is the least)",
        AlertDescription::HandshakeFailure => "no cipher in common, or a certificate is missing",
        AlertDescription::NoApplicationProtocol => "it does not speak PostgreSQL's protocol in TLS (ALPN)",
        _ => return format!("alert {alert:?}"),
    };
    format!("{what} (alert {alert:?})")
}
