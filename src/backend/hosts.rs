//! Where a server may be found, and what must be found there: libpq's lists of hosts and `target_session_attrs`.
//!
//! Pure: `connect` does the trying.

use std::fmt;

/// Where a server may be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// Host name, address, or the directory of a Unix socket (starts with `/`).
    pub host: String,
    /// Port.
    pub port: u16,
}

/// What is taken of the hosts that answer (`target_session_attrs`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SessionAttrs {
    /// Anything.
    #[default]
    Any,
    /// Sessions that may write by default.
    ReadWrite,
    /// Sessions that may not.
    ReadOnly,
    /// Not in recovery.
    Primary,
    /// In recovery.
    Standby,
    /// In recovery, or anything if none of them is.
    PreferStandby,
}

impl HostPort {
    /// Whether it is a Unix socket.
    pub fn is_unix(&self) -> bool {
        self.host.starts_with('/')
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl SessionAttrs {
    /// Each of them.
    pub const ALL: [Self; 6] =
        [Self::Any, Self::ReadWrite, Self::ReadOnly, Self::Primary, Self::Standby, Self::PreferStandby];

    /// The name that libpq has for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::ReadWrite => "read-write",
            Self::ReadOnly => "read-only",
            Self::Primary => "primary",
            Self::Standby => "standby",
            Self::PreferStandby => "prefer-standby",
        }
    }

    /// What to look for, in one pass over all hosts after the other.
    pub const fn passes(self) -> [Option<Self>; 2] {
        match self {
            Self::PreferStandby => [Some(Self::Standby), Some(Self::Any)],
            one => [Some(one), None],
        }
    }

    /// Whether what is looked for may be a primary: then no two hosts are to be it.
    pub const fn may_be_primary(self) -> bool {
        matches!(self, Self::Any | Self::ReadWrite | Self::Primary)
    }

    /// Whether a server will do that reports these parameters at login. Those before PostgreSQL 14, and most poolers,
    /// do not report what is looked at here: they will do only for [`SessionAttrs::Any`].
    pub fn accepts(self, reported: &[(String, String)]) -> bool {
        let is_on =
            |name: &str| reported.iter().find(|(known, _)| known == name).map(|(_, value)| value == "on");
        let standby = is_on("in_hot_standby");
        let read_only =
            standby.map(|standby| standby || is_on("default_transaction_read_only") == Some(true));
        match self {
            Self::Any | Self::PreferStandby => true,
            Self::ReadWrite => read_only == Some(false),
            Self::ReadOnly => read_only == Some(true),
            Self::Primary => standby == Some(false),
            Self::Standby => standby == Some(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_known_by_what_it_reports() {
        let reported = |standby: &str, read_only: &str| {
            let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
            vec![pair("in_hot_standby", standby), pair("default_transaction_read_only", read_only)]
        };
        let accepting = |reported: &[(String, String)]| -> Vec<&str> {
            let all = SessionAttrs::ALL.into_iter().filter(|attrs| attrs.accepts(reported));
            all.map(SessionAttrs::name).collect()
        };
        assert_eq!(accepting(&reported("off", "off")), ["any", "read-write", "primary", "prefer-standby"]);
        assert_eq!(accepting(&reported("off", "on")), ["any", "read-only", "primary", "prefer-standby"]);
        assert_eq!(accepting(&reported("on", "off")), ["any", "read-only", "standby", "prefer-standby"]);
        assert_eq!(accepting(&[]), ["any", "prefer-standby"]);
    }
}
