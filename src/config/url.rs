//! Server URLs as libpq reads them: `postgres://user:password@host:port/database?parameter=value`.
//!
//! Owns the parts and their defaults. Refuses to show any part of the URL in a message, since a password
//! with a stray `/`, `?` or `@` in it may end up in each of them.

use std::time::Duration;

use percent_encoding::percent_decode_str;

use super::{SslMode, problem::Wrong};

/// The parameters that may follow `?`.
const PARAMETERS: &[&str] = &["application_name", "connect_timeout", "host", "sslmode"];
const ENCODE: &str = "write / @ : ? # % in a user or password as %2F %40 %3A %3F %23 %25";

/// The parts of a URL.
#[derive(PartialEq, Eq)]
pub(super) struct ServerUrl {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: String,
    pub(super) password: Option<String>,
    pub(super) database: String,
    pub(super) ssl_mode: SslMode,
    pub(super) connect_timeout: Option<Duration>,
    pub(super) application_name: Option<String>,
}

impl ServerUrl {
    pub(super) fn parse(url: &str) -> Result<Self, Wrong> {
        let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://")).ok_or_else(
            || Wrong::new("not a postgres:// URL", "write postgres://user:password@host:5432/database"),
        )?;
        let (rest, query) = split(rest, '?');
        let (authority, database) = split(rest, '/');
        let (user, password, location) = authority_parts(authority)?;
        let (host, port) = host_and_port(location)?;
        let mut parts = Self {
            host,
            port,
            database: database.filter(|name| !name.is_empty()).map_or(Ok(user.clone()), decode)?,
            user,
            password,
            ssl_mode: SslMode::Prefer,
            connect_timeout: None,
            application_name: None,
        };
        let leaked = query.is_some_and(|query| query.contains('@'));
        for parameter in query.unwrap_or_default().split('&').filter(|parameter| !parameter.is_empty()) {
            if leaked {
                return Err(Wrong::new("the part after ? cannot be understood", ENCODE));
            }
            parts.set(parameter)?;
        }
        if parts.host.is_empty() {
            return Err(Wrong::new(
                "names no host",
                "write postgres://user:password@host:5432/database, or ?host=/directory for a Unix socket",
            ));
        }
        Ok(parts)
    }

    fn set(&mut self, parameter: &str) -> Result<(), Wrong> {
        let known = || format!("known parameters: {}", PARAMETERS.join(", "));
        let (name, value) = parameter.split_once('=').ok_or_else(|| {
            Wrong::new("a parameter has no value", format!("write name=value; {}", known()))
        })?;
        let value = decode(value)?;
        match name {
            "host" => self.host = value,
            "application_name" => self.application_name = Some(value),
            "sslmode" => self.ssl_mode = ssl_mode(&value)?,
            "connect_timeout" => {
                let seconds = value.parse().map_err(|_| {
                    Wrong::new("connect_timeout is not a number of seconds", "write connect_timeout=5")
                })?;
                // As in libpq, zero means no limit of its own: the pool's applies.
                self.connect_timeout = Some(Duration::from_secs(seconds)).filter(|time| !time.is_zero());
            }
            _ => {
                let name: String = name.chars().take(40).collect();
                return Err(Wrong::new(format!("unknown parameter {name:?}"), known()));
            }
        }
        Ok(())
    }
}

fn split(text: &str, at: char) -> (&str, Option<&str>) {
    match text.split_once(at) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    }
}

/// `user:password@location`
fn authority_parts(authority: &str) -> Result<(String, Option<String>, &str), Wrong> {
    let (login, location) = authority.split_once('@').ok_or_else(|| {
        Wrong::new("names no user", format!("write postgres://user:password@host/database; {ENCODE}"))
    })?;
    if location.contains('@') {
        return Err(Wrong::new("more than one @ before the host", ENCODE));
    }
    let (user, password) = split(login, ':');
    if user.is_empty() {
        return Err(Wrong::new("names no user", "write postgres://user:password@host/database"));
    }
    Ok((decode(user)?, password.filter(|password| !password.is_empty()).map(decode).transpose()?, location))
}

/// `host`, `host:port`, `[::1]:port`, or nothing (the host then comes as a parameter).
fn host_and_port(location: &str) -> Result<(String, u16), Wrong> {
    if location.contains(',') {
        return Err(Wrong::new("names more than one host", "write one [servers.NAME] for each host"));
    }
    let (host, port) = match location.strip_prefix('[') {
        Some(rest) => {
            let unclosed = || Wrong::new("an IPv6 address lacks its ]", "write [::1]:5432");
            let (host, after) = rest.split_once(']').ok_or_else(unclosed)?;
            if host.parse::<std::net::Ipv6Addr>().is_err() || !(after.is_empty() || after.starts_with(':')) {
                return Err(Wrong::new("what stands in [ ] is not an IPv6 address", "write [::1]:5432"));
            }
            (host, after.strip_prefix(':'))
        }
        None => split(location, ':'),
    };
    let bad_port = |_| Wrong::new("the port is not a number from 1 to 65535", ENCODE);
    let port = match port {
        None | Some("") => 5432,
        Some(port) => port.parse::<std::num::NonZeroU16>().map_err(bad_port)?.get(),
    };
    Ok((decode(host)?, port))
}

fn ssl_mode(value: &str) -> Result<SslMode, Wrong> {
    let mode = match value {
        "disable" => SslMode::Disable,
        "allow" => SslMode::Allow,
        "prefer" => SslMode::Prefer,
        "require" => SslMode::Require,
        "verify-ca" => SslMode::VerifyCa,
        "verify-full" => SslMode::VerifyFull,
        _ => {
            return Err(Wrong::new(
                "unknown sslmode",
                "write sslmode=disable, allow, prefer, require, verify-ca or verify-full",
            ));
        }
    };
    if mode >= SslMode::Require {
        return Err(Wrong::new(
            format!("TLS to servers is not supported yet, but sslmode={value} asks for it"),
            "write sslmode=prefer, and only if the network between Bulkhead and the server is trusted",
        ));
    }
    Ok(mode)
}

/// Undoes percent-encoding; as in libpq, `%00` and a `%` without two digits are errors.
fn decode(text: &str) -> Result<String, Wrong> {
    let wrong = || Wrong::new("a % is not followed by two hexadecimal digits", ENCODE);
    for after in text.split('%').skip(1) {
        let digits = after.as_bytes().get(..2).ok_or_else(wrong)?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(wrong());
        }
        if digits == b"00" {
            return Err(Wrong::new("%00 is not allowed", ""));
        }
    }
    let decoded = percent_decode_str(text).decode_utf8();
    Ok(decoded.map_err(|_| Wrong::new("the percent-encoded bytes are not UTF-8", ""))?.into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(url: &str) -> (String, u16, String, Option<String>, String) {
        let url = ServerUrl::parse(url).unwrap_or_else(|wrong| panic!("{url}: {wrong:?}"));
        (url.host, url.port, url.user, url.password, url.database)
    }

    #[test]
    fn reads_what_libpq_reads() {
        let expect = |host: &str, port, user: &str, password: Option<&str>, database: &str| {
            (host.to_owned(), port, user.to_owned(), password.map(str::to_owned), database.to_owned())
        };
        let cases = [
            ("postgres://u:p@h:6000/d", expect("h", 6000, "u", Some("p"), "d")),
            ("postgresql://u@h", expect("h", 5432, "u", None, "u")),
            ("postgres://u:@h:/", expect("h", 5432, "u", None, "u")),
            ("postgres://a%40b:p%2F%c3%a4@h/d%20e", expect("h", 5432, "a@b", Some("p/ä"), "d e")),
            ("postgres://u:p:q@[::1]:5433/d", expect("::1", 5433, "u", Some("p:q"), "d")),
            ("postgres://u@/d?host=/var/run/postgresql", expect("/var/run/postgresql", 5432, "u", None, "d")),
            ("postgres://u@%2Ftmp/d", expect("/tmp", 5432, "u", None, "d")),
        ];
        for (url, expected) in cases {
            assert_eq!(parts(url), expected, "{url}");
        }
    }

    #[test]
    fn reads_parameters() {
        let url = "postgres://u@h/d?sslmode=disable&connect_timeout=7&application_name=my%20app&";
        let url = ServerUrl::parse(url).unwrap_or_else(|wrong| panic!("{wrong:?}"));
        assert_eq!(url.ssl_mode, SslMode::Disable);
        assert_eq!(url.connect_timeout, Some(Duration::from_secs(7)));
        assert_eq!(url.application_name.as_deref(), Some("my app"));
    }

    proptest! {
        #[test]
        fn never_shows_the_password(before in "[a-z:/@?#%&=]{0,12}", after in "[a-z0-9:/@?#%&=]{0,20}") {
            let url = format!("postgres://u:{before}SECRET{after}@host/db");
            if let Err(wrong) = ServerUrl::parse(&url) {
                prop_assert!(!format!("{wrong:?}").contains("SECRET"), "{url}: {wrong:?}");
            }
        }
    }
}
