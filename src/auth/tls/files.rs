//! Certificates and keys in PEM files.

use std::{fs, io, path::Path};

use rustls::{
    RootCertStore,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{Error, PemObject as _},
    },
    sign::CertifiedKey,
};
use sha2::{Digest as _, Sha256};

use super::{Problem, provider};

/// A longer file holds no certificates.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// The keys that name a pair of files in the configuration.
#[derive(Clone, Copy, Debug)]
pub(super) struct PairKeys<'a> {
    pub(super) certificate: &'a str,
    pub(super) key: &'a str,
}

/// A certificate with its chain, and the key that belongs to it.
pub(super) fn pair(certificate: &Path, key: &Path, keys: PairKeys<'_>) -> Result<CertifiedKey, Problem> {
    let chain = certificates(certificate, keys.certificate)?;
    let secret = private_key(key, keys.key)?;
    let signing = provider().key_provider.load_private_key(secret).map_err(|error| {
        let message = format!("the key in {} cannot be used: {error}", key.display());
        Problem::new(
            keys.key,
            message,
            "use an RSA key of 2048 bits or more, ECDSA (P-256, P-384, P-521) or Ed25519",
        )
    })?;
    let pair = CertifiedKey::new(chain, signing);
    match pair.keys_match() {
        // A kind of key that cannot tell its public half shows at the first handshake.
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(pair),
        Err(rustls::Error::InconsistentKeys(_)) => {
            let message =
                format!("{} does not belong to the certificate in {}", key.display(), certificate.display());
            let hint = "name the key that the certificate was made for; in the certificate's file the server's own \
                        certificate comes first, then the intermediate ones";
            Err(Problem::new(keys.key, message, hint))
        }
        Err(error) => {
            let message = format!("the certificate in {} cannot be used: {error}", certificate.display());
            Err(Problem::new(keys.certificate, message, "use an X.509 version 3 certificate"))
        }
    }
}

/// All certificates of a file, of which there must be one.
pub(super) fn certificates(path: &Path, key: &str) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let bytes = read(path, key)?;
    let parsed: Result<Vec<_>, Error> = CertificateDer::pem_slice_iter(&bytes).collect();
    let hint = "write a PEM file: -----BEGIN CERTIFICATE-----";
    match parsed {
        Ok(found) if found.is_empty() => {
            Err(Problem::new(key, format!("there is no certificate in {}", path.display()), hint))
        }
        Ok(found) => Ok(found),
        Err(error) => Err(Problem::new(key, format!("{} is damaged: {error}", path.display()), hint)),
    }
}

/// The authorities of a file.
pub(super) fn roots(
    path: &Path,
    key: &str,
) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), Problem> {
    let found = certificates(path, key)?;
    let mut store = RootCertStore::empty();
    for certificate in &found {
        store.add(certificate.clone()).map_err(|error| {
            let message = format!("a certificate in {} cannot be used: {error}", path.display());
            Problem::new(key, message, "name a PEM file of certificate authorities")
        })?;
    }
    Ok((store, found))
}

fn private_key(path: &Path, key: &str) -> Result<PrivateKeyDer<'static>, Problem> {
    let bytes = zeroize::Zeroizing::new(read(path, key)?);
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| {
        let encrypted = bytes.windows(9).any(|window| window == b"ENCRYPTED");
        match error {
            _ if encrypted => Problem::new(
                key,
                format!("the key in {} is protected by a passphrase", path.display()),
                "remove it: openssl pkey -in KEY -out KEY.plain",
            ),
            Error::NoItemsFound => Problem::new(
                key,
                format!("there is no private key in {}", path.display()),
                "write a PEM file: -----BEGIN PRIVATE KEY-----",
            ),
            error => Problem::new(
                key,
                format!("{} is damaged: {error}", path.display()),
                "write a PEM file: -----BEGIN PRIVATE KEY-----",
            ),
        }
    })
}

/// What tells a file's contents from others'.
pub(super) type Digest = [u8; 32];

/// The hash of the whole file.
pub(super) fn digest(path: &Path, key: &str) -> Result<Digest, Problem> {
    Ok(Sha256::digest(zeroize::Zeroizing::new(read(path, key)?)).into())
}

fn read(path: &Path, key: &str) -> Result<Vec<u8>, Problem> {
    let unreadable = |error: io::Error| {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => {
                "write the path of a PEM file, best from the root: /etc/bulkhead/server.crt"
            }
            io::ErrorKind::PermissionDenied => "let the user that Bulkhead runs as read the file",
            _ => "write the path of a PEM file",
        };
        Problem::new(key, format!("cannot read {}: {error}", path.display()), hint)
    };
    let size = fs::metadata(path).map_err(unreadable)?.len();
    if size > FILE_BYTES_MAX {
        let message = format!("{} is longer than {} MiB", path.display(), FILE_BYTES_MAX >> 20);
        return Err(Problem::new(key, message, "write the path of a PEM file"));
    }
    fs::read(path).map_err(unreadable)
}
