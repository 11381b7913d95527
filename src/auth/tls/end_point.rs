//! What SCRAM binds a login to: the digest of the server's certificate (`tls-server-end-point`, RFC 5929 section 4.1).

use std::sync::Arc;

use sha2::{Digest as _, Sha224, Sha256, Sha384, Sha512};
use x509_parser::{
    oid_registry::{
        OID_HASH_SHA1, OID_NIST_HASH_SHA256, OID_NIST_HASH_SHA384, OID_NIST_HASH_SHA512,
        OID_PKCS1_MD5WITHRSAENC, OID_PKCS1_RSASSAPSS, OID_PKCS1_SHA1WITHRSA, OID_PKCS1_SHA224WITHRSA,
        OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA, OID_SIG_ECDSA_WITH_SHA224,
        OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384, OID_SIG_ECDSA_WITH_SHA512, Oid,
    },
    prelude::{FromDer as _, X509Certificate},
    signature_algorithm::SignatureAlgorithm,
    x509::AlgorithmIdentifier,
};

/// The binding data of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndPoint(Arc<[u8]>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hash {
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

impl EndPoint {
    /// Of a certificate in DER. `None` if its signature names no single hash (Ed25519): then there is no such binding.
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let digest: Arc<[u8]> = match hash(&parsed.signature_algorithm)? {
            Hash::Sha224 => Sha224::digest(certificate).as_slice().into(),
            Hash::Sha256 => Sha256::digest(certificate).as_slice().into(),
            Hash::Sha384 => Sha384::digest(certificate).as_slice().into(),
            Hash::Sha512 => Sha512::digest(certificate).as_slice().into(),
        };
        Some(Self(digest))
    }

    /// The digest itself.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    #[cfg(test)]
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

/// The hash of the signature's algorithm, with SHA-256 in place of MD5 and SHA-1.
fn hash(algorithm: &AlgorithmIdentifier<'_>) -> Option<Hash> {
    if algorithm.algorithm == OID_PKCS1_RSASSAPSS {
        let Ok(SignatureAlgorithm::RSASSA_PSS(parameters)) = SignatureAlgorithm::try_from(algorithm) else {
            return None;
        };
        return hash_named(parameters.hash_algorithm_oid());
    }
    let table: [(Oid<'_>, Hash); 12] = [
        (OID_PKCS1_MD5WITHRSAENC, Hash::Sha256),
        (OID_PKCS1_SHA1WITHRSA, Hash::Sha256),
        (OID_PKCS1_SHA224WITHRSA, Hash::Sha224),
        (OID_PKCS1_SHA256WITHRSA, Hash::Sha256),
        (OID_PKCS1_SHA384WITHRSA, Hash::Sha384),
        (OID_PKCS1_SHA512WITHRSA, Hash::Sha512),
        // ecdsa-with-SHA1
        (x509_parser::der_parser::oid!(1.2.840.10045.4.1), Hash::Sha256),
        (OID_SIG_ECDSA_WITH_SHA224, Hash::Sha224),
        (OID_SIG_ECDSA_WITH_SHA256, Hash::Sha256),
        (OID_SIG_ECDSA_WITH_SHA384, Hash::Sha384),
        (OID_SIG_ECDSA_WITH_SHA512, Hash::Sha512),
        // dsa-with-SHA256
        (x509_parser::der_parser::oid!(2.16.840.1.101.3.4.3.2), Hash::Sha256),
    ];
    table.into_iter().find(|(oid, _)| *oid == algorithm.algorithm).map(|(_, hash)| hash)
}

fn hash_named(oid: &Oid<'_>) -> Option<Hash> {
    let table: [(Oid<'_>, Hash); 5] = [
        (OID_HASH_SHA1, Hash::Sha256),
        (x509_parser::der_parser::oid!(2.16.840.1.101.3.4.2.4), Hash::Sha224),
        (OID_NIST_HASH_SHA256, Hash::Sha256),
        (OID_NIST_HASH_SHA384, Hash::Sha384),
        (OID_NIST_HASH_SHA512, Hash::Sha512),
    ];
    table.into_iter().find(|(named, _)| named == oid).map(|(_, hash)| hash)
}

#[cfg(test)]
mod tests {
    use x509_parser::der_parser::oid;

    use super::*;

    #[test]
    fn the_hash_is_that_of_the_signature() {
        let cases = [
            (oid!(1.2.840.113549.1.1.4), Some(Hash::Sha256)),
            (oid!(1.2.840.113549.1.1.5), Some(Hash::Sha256)),
            (oid!(1.2.840.113549.1.1.14), Some(Hash::Sha224)),
            (oid!(1.2.840.113549.1.1.11), Some(Hash::Sha256)),
            (oid!(1.2.840.113549.1.1.12), Some(Hash::Sha384)),
            (oid!(1.2.840.113549.1.1.13), Some(Hash::Sha512)),
            (oid!(1.2.840.10045.4.1), Some(Hash::Sha256)),
            (oid!(1.2.840.10045.4.3.2), Some(Hash::Sha256)),
            (oid!(1.2.840.10045.4.3.3), Some(Hash::Sha384)),
            (oid!(1.2.840.10045.4.3.4), Some(Hash::Sha512)),
            // Ed25519 and Ed448 have no hash of their own; RSASSA-PSS names it in its parameters.
            (oid!(1.3.101.112), None),
            (oid!(1.3.101.113), None),
            (oid!(1.2.840.113549.1.1.10), None),
        ];
        for (oid, expected) in cases {
            assert_eq!(hash(&AlgorithmIdentifier::new(oid.clone(), None)), expected, "{oid}");
        }
        // RSASSA-PSS with SHA-384.
        let mut der = vec![0x30, 0x1e, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 0x0a];
        der.extend_from_slice(&[0x30, 0x11, 0xa0, 0x0f, 0x30, 0x0d, 6, 9]);
        der.extend_from_slice(&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2, 5, 0]);
        let (_, algorithm) = AlgorithmIdentifier::from_der(&der).expect("well-formed");
        assert_eq!(hash(&algorithm), Some(Hash::Sha384));
    }

    #[test]
    fn the_digest_is_of_the_whole_certificate() {
        let made = |algorithm| {
            let key = rcgen::KeyPair::generate_for(algorithm).expect("a key");
            let params = rcgen::CertificateParams::new(Vec::new()).expect("no names");
            params.self_signed(&key).expect("a certificate").der().to_vec()
        };
        let certificate = made(&rcgen::PKCS_ECDSA_P256_SHA256);
        let digest = EndPoint::of(&certificate).expect("bound");
        assert_eq!(digest.bytes(), Sha256::digest(&certificate).as_slice());
        let certificate = made(&rcgen::PKCS_ECDSA_P384_SHA384);
        let digest = EndPoint::of(&certificate).expect("bound");
        assert_eq!(digest.bytes(), Sha384::digest(&certificate).as_slice());
        assert_eq!(EndPoint::of(&made(&rcgen::PKCS_ED25519)), None);
        assert_eq!(EndPoint::of(b"no certificate"), None);
    }
}
