//! The names of all keys, once. The reader refuses others, and a test holds that the commented example
//! names each of these.

/// Section (`*` stands for a name that the user chooses) and its keys.
pub const KEYS: &[(&str, &[&str])] = &[
    ("", &["databases", "listen", "limits", "auth", "servers", "pools", "jobs", "workers"]),
    ("listen", &["address", "http", "threads", "shutdown_grace", "tls"]),
    ("listen.tls", &["mode", "certificate", "key", "client_ca", "client_certificates"]),
    (
        "limits",
        &[
            "max_clients",
            "login_timeout",
            "request_buffer",
            "statement_bytes",
            "verdict_cache",
            "prepared_per_client",
            "prepared_per_backend",
            "catalog_refresh",
        ],
    ),
    ("auth", &["method", "users_file"]),
    ("servers.*", &["url", "max_connections"]),
    (
        "pools.*",
        &[
            "servers",
            "max_connections",
            "min_connections",
            "max_waiting",
            "wait_timeout",
            "idle_timeout",
            "max_lifetime",
            "connect_timeout",
            "check_after",
            "close_timeout",
            "mode",
            "max_pinned",
            "pinned_idle_timeout",
        ],
    ),
    ("jobs", &["presets", "schemas", "rules"]),
    ("jobs.rules", &["schemas", "tables", "functions", "channels"]),
    ("workers", &["application_names", "users"]),
];

/// What other poolers call it: (their name, our section, our key).
const ELSEWHERE: &[(&str, &str, &str)] = &[
    ("pool_size", "pools.*", "max_connections"),
    ("default_pool_size", "pools.*", "max_connections"),
    ("min_pool_size", "pools.*", "min_connections"),
    ("query_wait_timeout", "pools.*", "wait_timeout"),
    ("checkout_timeout", "pools.*", "wait_timeout"),
    ("server_idle_timeout", "pools.*", "idle_timeout"),
    ("server_lifetime", "pools.*", "max_lifetime"),
    ("server_connect_timeout", "pools.*", "connect_timeout"),
    ("pool_mode", "pools.*", "mode"),
    ("max_client_conn", "limits", "max_clients"),
    ("client_login_timeout", "limits", "login_timeout"),
    ("max_prepared_statements", "limits", "prepared_per_backend"),
    ("max_db_connections", "servers.*", "max_connections"),
    ("auth_type", "auth", "method"),
    ("auth_file", "auth", "users_file"),
    ("listen_addr", "listen", "address"),
    ("client_tls_sslmode", "listen.tls", "mode"),
    ("client_tls_cert_file", "listen.tls", "certificate"),
    ("client_tls_key_file", "listen.tls", "key"),
    ("client_tls_ca_file", "listen.tls", "client_ca"),
    ("server_tls_sslmode", "servers.*", "url"),
    ("server_tls_ca_file", "servers.*", "url"),
    ("sslmode", "servers.*", "url"),
    ("sslrootcert", "servers.*", "url"),
    ("password", "servers.*", "url"),
    ("host", "servers.*", "url"),
    ("port", "servers.*", "url"),
    ("user", "servers.*", "url"),
];

/// The keys of a section.
pub(super) fn of(section: &str) -> &'static [&'static str] {
    KEYS.iter().find(|(name, _)| *name == section).map_or(&[], |(_, keys)| keys)
}

/// What to write in place of an unknown key.
pub(super) fn hint(section: &str, key: &str) -> String {
    if let Some(near) = nearest(key, of(section)) {
        return format!("did you mean {near}?");
    }
    let elsewhere =
        ELSEWHERE.iter().find(|(theirs, ..)| *theirs == key).map(|&(_, section, key)| (section, key));
    let moved = || KEYS.iter().find(|(_, keys)| keys.contains(&key)).map(|&(section, _)| (section, key));
    match elsewhere.or_else(moved) {
        Some((other, "url")) if other == section => "it is a part of url".to_owned(),
        Some((other, ours)) if other == section => format!("here it is called {ours}"),
        Some(("", ours)) => format!("{ours} stands at the top of the file, before the first [section]"),
        Some((other, ours)) => format!("write {ours} in [{}]", other.replace('*', "NAME")),
        None => format!("known here: {}", of(section).join(", ")),
    }
}

/// The candidate that differs least, if it differs by little.
pub(super) fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let bound = (word.chars().count() / 3).clamp(1, 4);
    candidates
        .iter()
        .map(|candidate| (edits(word, candidate), *candidate))
        .filter(|(edits, _)| *edits <= bound)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance, on one row.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        row[0] = left;
        for (y, cell) in b.iter().zip(&mut row[1..]) {
            let best = (diagonal + usize::from(x != *y)).min(left + 1).min(*cell + 1);
            diagonal = *cell;
            *cell = best;
            left = best;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_edits() {
        for (a, b, expected) in [("", "", 0), ("a", "", 1), ("kitten", "sitting", 3), ("ab", "ba", 2)] {
            assert_eq!(edits(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn suggests() {
        assert_eq!(hint("pools.*", "max_conections"), "did you mean max_connections?");
        assert_eq!(hint("pools.*", "pool_size"), "here it is called max_connections");
        assert_eq!(hint("listen", "max_client_conn"), "write max_clients in [limits]");
        assert_eq!(hint("auth", "users"), "write users in [workers]");
        assert_eq!(hint("workers", "zzz"), "known here: application_names, users");
    }
}
