//! Which settings are carried from one backend to another by their name.

/// Settings that are never carried, or that change how what follows is read.
const NOT_CARRIED: [&str; 12] = [
    "backslash_quote",
    "client_encoding",
    // A role that may not read all settings is not shown it.
    "dynamic_library_path",
    "exit_on_error",
    "extension_control_path",
    "is_superuser",
    "seed",
    "standard_conforming_strings",
    "transaction_deferrable",
    "transaction_isolation",
    "transaction_read_only",
    "ssl_renegotiation_limit",
];

/// Whether a setting of this name is carried, so that a text that sets it leaves nothing else. The name is as the
/// client gave it, in a literal or as a bound value: `set_config($1, ..)` is proven only if what is bound is such a name.
pub fn is_carried_name(name: &[u8]) -> bool {
    let Ok(name) = std::str::from_utf8(name) else { return false };
    let is_part = |part: &str| {
        part.bytes().next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$'))
    };
    name.len() < 64
        && name.split('.').all(is_part)
        && !NOT_CARRIED.iter().any(|other| name.eq_ignore_ascii_case(other))
}

/// Whether a value of `client_encoding` is one whose texts are read as the server reads them.
pub(super) fn is_plain_encoding(value: &str) -> bool {
    let plain = value.bytes().filter(u8::is_ascii_alphanumeric).map(|byte| byte.to_ascii_lowercase());
    matches!(plain.collect::<Vec<_>>().as_slice(), b"utf8" | b"unicode")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for name in ["search_path", "app.tenant_id", "TimeZone", "a.b.c", "role", "request.jwt.claims"] {
            assert!(is_carried_name(name.as_bytes()), "{name}");
        }
        let long = format!("app.{}", "x".repeat(60));
        for name in [
            "",
            "a.",
            ".b",
            "app.é",
            "app.a-b",
            "exit_on_error",
            "Client_Encoding",
            "a b",
            &long,
            "Dynamic_Library_Path",
        ] {
            assert!(!is_carried_name(name.as_bytes()), "{name}");
        }
        assert!(is_plain_encoding("UTF-8") && is_plain_encoding("unicode") && !is_plain_encoding("SJIS"));
    }
}
