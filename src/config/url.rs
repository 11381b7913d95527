//! Server URLs as libpq reads them: `postgres://user:password@host:port/database?parameter=value`.
//!
//! Owns the parts and their defaults. Refuses to show any part of the URL in a message, since a password
//! with a stray `/`, `?` or `@` in it may end up in each of them.

use std::{path::PathBuf, time::Duration};

use percent_encoding::percent_decode_str;

use super::{
    ChannelBinding, ConnectorSettings, HostPort, Negotiation, RequireAuth, Roots, SessionAttrs, SslMode,
    problem::Wrong,
};

/// The parameters that may follow `?`.
const PARAMETERS: &[&str] = &[
    "application_name",
    "channel_binding",
    "connect_timeout",
    "host",
    "port",
    "require_auth",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslnegotiation",
    "sslrootcert",
    "target_session_attrs",
];
const ENCODE: &str = "write / @ : ? # % in a user or password as %2F %40 %3A %3F %23 %25";

/// The parts of a URL.
#[derive(PartialEq, Eq)]
pub(super) struct ServerUrl {
    /// Never empty.
    pub(super) hosts: Vec<HostPort>,
    pub(super) session_attrs: SessionAttrs,
    pub(super) user: String,
    pub(super) password: Option<String>,
    pub(super) database: String,
    pub(super) tls: ConnectorSettings,
    pub(super) connect_timeout: Option<Duration>,
    pub(super) application_name: Option<String>,
    pub(super) require_auth: RequireAuth,
}

impl ServerUrl {
    pub(super) fn parse(url: &str) -> Result<Self, Wrong> {
        let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://")).ok_or_else(
            || Wrong::new("not a postgres:// URL", "write postgres://user:password@host:5432/database"),
        )?;
        let (rest, query) = split(rest, '?');
        let (authority, database) = split(rest, '/');
        let (user, password, location) = authority_parts(authority)?;
        let mut parts = Self {
            hosts: location.split(',').map(host_and_port).collect::<Result<_, _>>()?,
            session_attrs: SessionAttrs::Any,
            database: database.filter(|name| !name.is_empty()).map_or(Ok(user.clone()), decode)?,
            user,
            password,
            tls: ConnectorSettings::default(),
            connect_timeout: None,
            application_name: None,
            require_auth: RequireAuth::default(),
        };
        let mut ssl_mode = None;
        let mut places = Places::default();
        let leaked = query.is_some_and(|query| query.contains('@'));
        for parameter in query.unwrap_or_default().split('&').filter(|parameter| !parameter.is_empty()) {
            if leaked {
                return Err(Wrong::new("the part after ? cannot be understood", ENCODE));
            }
            parts.set(parameter, &mut ssl_mode, &mut places)?;
        }
        parts.tls.mode = ssl_mode.unwrap_or(match parts.tls.roots {
            // As in libpq: those authorities sign for anybody, so only the name says who it is.
            Some(Roots::System) => SslMode::VerifyFull,
            _ => SslMode::Prefer,
        });
        check_tls(&parts.tls)?;
        parts.hosts = places.over(parts.hosts)?;
        if parts.hosts.iter().any(|host| host.host.is_empty()) {
            return Err(Wrong::new(
                "names no host",
                "write postgres://user:password@host:5432/database, or ?host=/directory for a Unix socket",
            ));
        }
        Ok(parts)
    }

    fn set(&mut self, parameter: &str, mode: &mut Option<SslMode>, places: &mut Places) -> Result<(), Wrong> {
        let known = || format!("known parameters: {}", PARAMETERS.join(", "));
        let (name, value) = parameter.split_once('=').ok_or_else(|| {
            Wrong::new("a parameter has no value", format!("write name=value; {}", known()))
        })?;
        let value = decode(value)?;
        match name {
            "host" => places.hosts = Some(value),
            "port" => places.ports = Some(value),
            "target_session_attrs" => self.session_attrs = session_attrs(&value)?,
            "options" => {
                return Err(Wrong::new(
                    "options are not taken from a server's URL: settings belong to the sessions of clients",
                    "put options into the application's URL, or use ALTER ROLE .. SET",
                ));
            }
            "application_name" => self.application_name = Some(value),
            "require_auth" => {
                let hint = "write a list of none, password, md5 and scram-sha-256, or of what is forbidden: !password,!md5";
                self.require_auth = RequireAuth::parse(&value)
                    .map_err(|wrong| Wrong::new(format!("require_auth: {wrong}"), hint))?;
            }
            "sslmode" => *mode = Some(ssl_mode(&value)?),
            "sslrootcert" if value == "system" => self.tls.roots = Some(Roots::System),
            "sslrootcert" => self.tls.roots = file(value).map(Roots::File),
            "sslcert" => self.tls.certificate = file(value),
            "sslkey" => self.tls.key = file(value),
            "sslnegotiation" => self.tls.negotiation = negotiation(&value)?,
            "channel_binding" => self.tls.channel_binding = channel_binding(&value)?,
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

/// Lists of hosts and ports that come as parameters, and hold in place of those before them.
#[derive(Default)]
struct Places {
    hosts: Option<String>,
    ports: Option<String>,
}

impl Places {
    fn over(self, mut named: Vec<HostPort>) -> Result<Vec<HostPort>, Wrong> {
        if let Some(hosts) = self.hosts {
            let ports: Vec<u16> = named.iter().map(|host| host.port).collect();
            let at = |place: usize| ports.get(place).or(ports.first()).copied().unwrap_or(5432);
            let place = |(place, host): (usize, &str)| HostPort { host: host.to_owned(), port: at(place) };
            named = hosts.split(',').enumerate().map(place).collect();
        }
        if let Some(ports) = self.ports {
            let ports = ports.split(',').map(port).collect::<Result<Vec<_>, _>>()?;
            if ports.len() != 1 && ports.len() != named.len() {
                let hint = "write one port for all hosts, or one for each";
                return Err(Wrong::new("there are not as many ports as hosts", hint));
            }
            for (place, host) in named.iter_mut().enumerate() {
                host.port = ports.get(place).copied().unwrap_or(ports[0]);
            }
        }
        Ok(named)
    }
}

fn port(text: &str) -> Result<u16, Wrong> {
    let bad_port = |_| Wrong::new("the port is not a number from 1 to 65535", ENCODE);
    if text.is_empty() {
        return Ok(5432);
    }
    Ok(text.parse::<std::num::NonZeroU16>().map_err(bad_port)?.get())
}

fn session_attrs(value: &str) -> Result<SessionAttrs, Wrong> {
    SessionAttrs::ALL.into_iter().find(|attrs| attrs.name() == value).ok_or_else(|| {
        Wrong::new(
            "unknown target_session_attrs",
            "write any, read-write, read-only, primary, standby or prefer-standby",
        )
    })
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
fn host_and_port(location: &str) -> Result<HostPort, Wrong> {
    let (host, after) = match location.strip_prefix('[') {
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
    Ok(HostPort { host: decode(host)?, port: port(after.unwrap_or_default())? })
}

fn ssl_mode(value: &str) -> Result<SslMode, Wrong> {
    match value {
        "disable" => Ok(SslMode::Disable),
        "allow" => Ok(SslMode::Allow),
        "prefer" => Ok(SslMode::Prefer),
        "require" => Ok(SslMode::Require),
        "verify-ca" => Ok(SslMode::VerifyCa),
        "verify-full" => Ok(SslMode::VerifyFull),
        _ => Err(Wrong::new(
            "unknown sslmode",
            "write sslmode=disable, allow, prefer, require, verify-ca or verify-full",
        )),
    }
}

fn negotiation(value: &str) -> Result<Negotiation, Wrong> {
    match value {
        "postgres" => Ok(Negotiation::Postgres),
        "direct" => Ok(Negotiation::Direct),
        _ => Err(Wrong::new("unknown sslnegotiation", "write sslnegotiation=postgres or direct")),
    }
}

fn channel_binding(value: &str) -> Result<ChannelBinding, Wrong> {
    match value {
        "disable" => Ok(ChannelBinding::Disable),
        "prefer" => Ok(ChannelBinding::Prefer),
        "require" => Ok(ChannelBinding::Require),
        _ => Err(Wrong::new("unknown channel_binding", "write channel_binding=disable, prefer or require")),
    }
}

/// An empty value is none, as in libpq.
fn file(value: String) -> Option<PathBuf> {
    (!value.is_empty()).then(|| PathBuf::from(value))
}

/// How the parameters about TLS must fit together.
fn check_tls(tls: &ConnectorSettings) -> Result<(), Wrong> {
    let verifies = tls.mode >= SslMode::VerifyCa;
    if verifies && tls.roots.is_none() {
        return Err(Wrong::new(
            "sslmode asks to verify the server, but no sslrootcert says whom to trust",
            "write sslrootcert=FILE with the authority's certificate, or sslrootcert=system",
        ));
    }
    if tls.roots == Some(Roots::System) && tls.mode != SslMode::VerifyFull {
        return Err(Wrong::new(
            "a weaker sslmode than verify-full may not be used with sslrootcert=system",
            "write sslmode=verify-full, or leave sslmode out",
        ));
    }
    if tls.negotiation == Negotiation::Direct && tls.mode < SslMode::Require {
        return Err(Wrong::new(
            "a weaker sslmode than require may not be used with sslnegotiation=direct",
            "write sslmode=require, verify-ca or verify-full",
        ));
    }
    if tls.certificate.is_some() != tls.key.is_some() {
        return Err(Wrong::new(
            "sslcert and sslkey belong together, and one is missing",
            "write sslcert=FILE&sslkey=FILE",
        ));
    }
    if tls.channel_binding == ChannelBinding::Require && tls.mode == SslMode::Disable {
        return Err(Wrong::new(
            "channel_binding=require needs TLS, but sslmode=disable",
            "write sslmode=require, verify-ca or verify-full",
        ));
    }
    Ok(())
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
        let [HostPort { host, port }] = <[HostPort; 1]>::try_from(url.hosts).expect("one host");
        (host, port, url.user, url.password, url.database)
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
    fn reads_lists_of_hosts() {
        let hosts = |url: &str| {
            let url = ServerUrl::parse(url).unwrap_or_else(|wrong| panic!("{url}: {wrong:?}"));
            url.hosts.iter().map(HostPort::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(hosts("postgres://u@a,b:6000,[::1]:7000/d"), "a:5432 b:6000 [::1]:7000");
        assert_eq!(hosts("postgres://u@/d?host=a,b&port=1,2"), "a:1 b:2");
        assert_eq!(hosts("postgres://u@/d?port=3&host=a,b"), "a:3 b:3");
        assert_eq!(hosts("postgres://u@a:4/d?host=b"), "b:4");
        for wrong in ["u@a,/d", "u@/d?host=a,b&port=1,2,3", "u@a/d?port=x", "u@a:0,b/d"] {
            assert!(ServerUrl::parse(&format!("postgres://{wrong}")).is_err(), "{wrong}");
        }
        let attrs = |value: &str| {
            ServerUrl::parse(&format!("postgres://u@a/d?target_session_attrs={value}"))
                .map(|url| url.session_attrs)
        };
        assert!(attrs("read-write").is_ok_and(|attrs| attrs == SessionAttrs::ReadWrite));
        assert!(attrs("master").is_err());
    }

    #[test]
    fn reads_parameters() {
        let url = "postgres://u@h/d?sslmode=disable&connect_timeout=7&application_name=my%20app&";
        let url = ServerUrl::parse(url).unwrap_or_else(|wrong| panic!("{wrong:?}"));
        assert_eq!(url.tls.mode, SslMode::Disable);
        assert_eq!(url.connect_timeout, Some(Duration::from_secs(7)));
        assert_eq!(url.application_name.as_deref(), Some("my app"));
        let require = |value: &str| {
            ServerUrl::parse(&format!("postgres://u@h/d?require_auth={value}")).map(|url| url.require_auth)
        };
        assert_eq!(require("").expect("libpq takes it"), RequireAuth::default());
        assert_eq!(require("!password%2C!md5").expect("a list").to_string(), "!password,!md5");
        assert!(require("kerberos").is_err() && require("md5,!none").is_err());
    }

    #[test]
    fn reads_parameters_about_tls() {
        let tls = |query: &str| ServerUrl::parse(&format!("postgres://u@h/d?{query}")).map(|url| url.tls);
        let read = |query: &str| tls(query).unwrap_or_else(|wrong| panic!("{query}: {wrong:?}"));
        assert_eq!(read(""), ConnectorSettings::default());
        assert_eq!(read("sslrootcert=system").mode, SslMode::VerifyFull);
        let all = read(
            "sslmode=verify-ca&sslrootcert=/a%20b.pem&sslcert=c&sslkey=k&sslnegotiation=direct&channel_binding=require",
        );
        let expected = ConnectorSettings {
            mode: SslMode::VerifyCa,
            roots: Some(Roots::File("/a b.pem".into())),
            certificate: Some("c".into()),
            key: Some("k".into()),
            negotiation: Negotiation::Direct,
            channel_binding: ChannelBinding::Require,
        };
        assert_eq!(all, expected);
        for wrong in [
            "sslmode=verify-full",
            "sslmode=require&sslrootcert=system",
            "sslnegotiation=direct",
            "sslcert=c",
            "sslkey=k",
            "sslmode=disable&channel_binding=require",
            "sslnegotiation=fast",
            "channel_binding=maybe",
        ] {
            assert!(tls(wrong).is_err(), "{wrong}");
        }
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
