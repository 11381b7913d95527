//! Certificates of every kind, made for a test: an authority, another one that nobody trusts, and what they sign.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use time::{Duration, OffsetDateTime};

use super::{
    programs::programs,
    template::{self, Scratch},
};

/// A folder of PEM files, `NAME.crt` and `NAME.key`: `ca` and `other_ca`; the servers' `good` (localhost, 127.0.0.1),
/// `wrong_host`, `expired`, `future` and `stranger` (of the other authority); the clients' `client`, `client_stranger`.
pub(crate) struct Certificates {
    folder: Scratch,
}

type Authority = CertifiedIssuer<'static, KeyPair>;

impl Certificates {
    pub(crate) fn new() -> Self {
        let made = Self { folder: Scratch::new() };
        let (ca, other) = (authority("Test authority"), authority("Another authority"));
        fs::write(made.certificate("ca"), ca.as_ref().pem()).expect("the folder is writable");
        fs::write(made.certificate("other_ca"), other.as_ref().pem()).expect("the folder is writable");
        let here = ["localhost", "127.0.0.1"];
        let now = OffsetDateTime::now_utc();
        let valid = (now - Duration::days(1), now + Duration::days(30));
        made.sign("good", &here, valid, &ca);
        made.sign("wrong_host", &["db.example.com"], valid, &ca);
        made.sign("expired", &here, (now - Duration::days(9), now - Duration::days(2)), &ca);
        made.sign("future", &here, (now + Duration::days(2), now + Duration::days(9)), &ca);
        made.sign("stranger", &here, valid, &other);
        made.sign("client", &["app"], valid, &ca);
        made.sign("client_stranger", &["app"], valid, &other);
        if let Some(owner) = programs().owner {
            template::hand_over(made.folder.path(), owner);
        }
        made
    }

    pub(crate) fn certificate(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.crt"))
    }

    pub(crate) fn key(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.key"))
    }

    /// The certificate's path as text, for configurations and URLs.
    pub(crate) fn crt(&self, name: &str) -> String {
        text(&self.certificate(name))
    }

    /// The key's path as text.
    pub(crate) fn pem_key(&self, name: &str) -> String {
        text(&self.key(name))
    }

    fn sign(&self, name: &str, hosts: &[&str], (from, to): (OffsetDateTime, OffsetDateTime), by: &Authority) {
        let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
        let mut params = CertificateParams::new(hosts).expect("names of hosts");
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = from;
        params.not_after = to;
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, by).expect("a certificate");
        fs::write(self.certificate(name), certificate.pem()).expect("the folder is writable");
        fs::write(self.key(name), key.serialize_pem()).expect("the folder is writable");
        fs::set_permissions(self.key(name), fs::Permissions::from_mode(0o600)).expect("the file is ours");
    }
}

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate")
}

fn text(path: &Path) -> String {
    path.to_str().expect("the path is text").to_owned()
}
