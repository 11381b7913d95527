//! Who may ask for what: names by which this is asked, and the token of actions.
//!
//! A page of somebody else's in an operator's browser can send requests here. It can read no answer, since nothing here
//! allows that to other origins, unless it makes its own name lead here (DNS rebinding): so what comes to this machine's own
//! addresses must ask by such a name. And it can do nothing, since actions need a header that it does not know.

use hyper::{
    StatusCode,
    header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue, WWW_AUTHENTICATE},
};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::super::answer::{self, Answer};
use crate::auth::Secret;

/// Refuses a request to an address of this machine alone by a name that may be anybody's.
pub(in super::super) fn refuse_foreign_name(headers: &HeaderMap, is_local: bool) -> Option<Answer> {
    let name = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    (is_local && !is_own(name)).then(|| {
        let hint = "Ask by an IP address, by localhost, or by a name without dots.";
        answer::error(StatusCode::MISDIRECTED_REQUEST, "this is not served under that name", hint)
    })
}

/// Whether a name, with or without a port, is nobody else's: an IP address, `localhost`, or a name without dots.
fn is_own(host: &str) -> bool {
    let name = if let Some(inside) = host.strip_prefix('[') {
        inside.split(']').next().unwrap_or_default()
    } else {
        host.rsplit_once(':').map_or(host, |(name, _)| name)
    };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name.parse::<std::net::IpAddr>().is_ok() || !name.contains('.') || name.ends_with(".localhost")
}

/// Refuses an action without the token.
pub(super) fn refuse_stranger(headers: &HeaderMap, token: Option<&Secret>) -> Option<Answer> {
    let Some(token) = token else {
        let hint = "Set listen.http_token, or BULKHEAD_HTTP_TOKEN without a file, and send it as \
                    `Authorization: Bearer TOKEN`.";
        return Some(answer::error(
            StatusCode::FORBIDDEN,
            "there are no actions over HTTP without listen.http_token",
            hint,
        ));
    };
    let given = headers.get(AUTHORIZATION).and_then(|value| bearer(value.as_bytes())).unwrap_or_default();
    (!is_same(given, token.expose().as_bytes())).then(|| {
        let hint = "Send the value of listen.http_token as `Authorization: Bearer TOKEN`.";
        let mut refused = answer::error(StatusCode::UNAUTHORIZED, "the token is missing or wrong", hint);
        refused.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        refused
    })
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// Whether both are the same, in a time that tells neither their contents nor their lengths.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    Sha256::digest(one).ct_eq(&Sha256::digest(other)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_nobody_else_can_have_are_own() {
        for own in [
            "127.0.0.1:9930",
            "127.0.0.1",
            "[::1]:9930",
            "[::1]",
            "localhost:9930",
            "LOCALHOST.",
            "bulkhead:9930",
            "a.localhost",
            "",
        ] {
            assert!(is_own(own), "{own}");
        }
        for foreign in [
            "evil.example",
            "evil.example:9930",
            "127.0.0.1.evil.example",
            "localhost.evil.example:1",
            "a.b.",
        ] {
            assert!(!is_own(foreign), "{foreign}");
        }
    }

    #[test]
    fn the_token_must_be_the_same() {
        let token = Secret::new("0123456789abcdef");
        let status = |value: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert(AUTHORIZATION, HeaderValue::from_static(value));
            }
            refuse_stranger(&headers, Some(&token)).map(|refused| refused.status())
        };
        for right in ["Bearer 0123456789abcdef", "bearer 0123456789abcdef", "BEARER  0123456789abcdef "] {
            assert_eq!(status(Some(right)), None, "{right}");
        }
        for wrong in [
            None,
            Some(""),
            Some("Bearer"),
            Some("Bearer "),
            Some("Bearer 0123456789abcde"),
            Some("Bearer 0123456789abcdef0"),
            Some("Basic 0123456789abcdef"),
            Some("0123456789abcdef"),
        ] {
            assert_eq!(status(wrong), Some(StatusCode::UNAUTHORIZED), "{wrong:?}");
        }
        let none = refuse_stranger(&HeaderMap::new(), None).map(|refused| refused.status());
        assert_eq!(none, Some(StatusCode::FORBIDDEN));
    }
}
