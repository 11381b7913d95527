//! Where a server is and who logs in there.

use std::{
    hash::BuildHasher,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;

use super::{
    hosts::{HostPort, SessionAttrs},
    in_use::InUse,
    number::Numbers,
    proof::Proofs,
    secret::LoginSecret,
};
use crate::{
    auth::{RequireAuth, tls::Connector},
    metrics::Traffic,
};

/// A (database, user) pair as clients name it. A backend belongs to one.
#[derive(Debug)]
pub struct Identity {
    /// The database as the client named it.
    pub database: String,
    /// The user.
    pub user: String,
    /// Stands for the database, for what is kept of several in one place. Two may share it.
    pub database_hash: u16,
    /// Stands for database and user, for statistics. Two hardly ever share it.
    pub hash: u64,
    /// Startup parameters of its connections besides user and database. An identity that has some is one session's
    /// own: its connections serve nobody else.
    pub startup: Vec<(String, String)>,
    /// How it logs in from now on.
    credentials: ArcSwap<Credentials>,
    /// Counts the changes of `credentials`.
    generation: AtomicU32,
    /// Whether any of its clients has asked for `currval` or `lastval`: a backend is to forget what it remembers of
    /// sequences before another session gets it.
    pub asks_sequences: AtomicBool,
    /// When servers have last let it in.
    pub proofs: Proofs,
}

/// How an identity logs in to servers. A reload may replace it.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// The secret that proves the user to servers. Unused for the URL's user, for whom each server has its own.
    pub secret: Option<Arc<LoginSecret>>,
    /// Whether the user is the one of the primary's URL.
    pub is_url_user: bool,
    /// Whether the database is the one of the primary's URL.
    pub is_url_database: bool,
    /// Which of the identity's credentials these are; set by the identity.
    pub generation: u32,
}

/// One Postgres instance.
#[derive(Debug)]
pub struct Server {
    /// The key in the configuration.
    pub name: String,
    /// Where it may be, to be tried in this order. Never empty.
    pub hosts: Vec<HostPort>,
    /// The kind of host that must be found there.
    pub session_attrs: SessionAttrs,
    /// How its connections are encrypted.
    pub tls: Connector,
    /// The URL's user.
    pub user: String,
    /// The URL's password.
    pub secret: Option<LoginSecret>,
    /// The URL's database.
    pub database: String,
    /// How it may ask for a password.
    pub require_auth: RequireAuth,
    /// The name of its connections until a session's is put on them.
    pub application_name: Option<String>,
    /// Numbers for backends, shared by all servers.
    pub numbers: Arc<Numbers>,
    /// Bytes that went both ways.
    pub traffic: Arc<Traffic>,
    /// Which of the hosts it is at.
    pub in_use: Arc<InUse>,
    /// How long a peer may be silent; zero for no bound.
    pub tcp_user_timeout: Duration,
}

/// A login at a server: the user, the database, the secret.
#[derive(Clone, Copy, Debug)]
pub struct Login<'a> {
    /// The user at this server.
    pub user: &'a str,
    /// The database at this server.
    pub database: &'a str,
    /// The secret that proves it.
    pub secret: Option<&'a LoginSecret>,
}

impl Server {
    /// How `identity` logs in here with its credentials: the primary's URL user and database stand for every
    /// server's own.
    pub fn login<'a>(&'a self, identity: &'a Identity, credentials: &'a Credentials) -> Login<'a> {
        let database = if credentials.is_url_database { &self.database } else { &identity.database };
        if credentials.is_url_user {
            Login { user: &self.user, database, secret: self.secret.as_ref() }
        } else {
            Login { user: &identity.user, database, secret: credentials.secret.as_deref() }
        }
    }
}

impl Credentials {
    /// The URL's user in the URL's database.
    pub fn of_url() -> Self {
        Self { is_url_user: true, is_url_database: true, ..Self::default() }
    }

    /// Whether a login with these is the same as one with the others.
    fn is_same(&self, other: &Self) -> bool {
        let secret = |one: &Self| one.secret.as_ref().map(Arc::as_ptr);
        secret(self) == secret(other)
            && self.is_url_user == other.is_url_user
            && self.is_url_database == other.is_url_database
    }
}

impl Identity {
    /// A pair and how it logs in.
    pub fn new(database: impl Into<String>, user: impl Into<String>, credentials: Credentials) -> Self {
        let credentials = ArcSwap::from_pointee(Credentials { generation: 0, ..credentials });
        let (database, user) = (database.into(), user.into());
        let state = foldhash::fast::FixedState::default();
        let database_hash = BuildHasher::hash_one(&state, &database);
        Self {
            hash: BuildHasher::hash_one(&state, (&database, &user)),
            database,
            user,
            database_hash: (database_hash >> 16) as u16,
            startup: Vec::new(),
            credentials,
            generation: AtomicU32::new(0),
            asks_sequences: AtomicBool::new(false),
            proofs: Proofs::default(),
        }
    }

    /// With startup parameters of its own.
    #[must_use]
    pub fn with_startup(self, startup: Vec<(String, String)>) -> Self {
        Self { startup, ..self }
    }

    /// Whether its connections are made for one session and no other.
    pub fn is_one_sessions(&self) -> bool {
        !self.startup.is_empty()
    }

    /// How it logs in from now on.
    pub fn credentials(&self) -> Arc<Credentials> {
        self.credentials.load_full()
    }

    /// Whether a backend that has logged in with these would log in with the same today.
    pub fn is_current(&self, credentials: &Credentials) -> bool {
        credentials.generation == self.generation.load(Ordering::Acquire)
    }

    /// From now on it logs in with these. Not to be called from two threads at once.
    pub fn set_credentials(&self, credentials: Credentials) {
        if credentials.is_same(&self.credentials.load()) {
            return;
        }
        self.replace_credentials(credentials);
    }

    /// A server has refused its login: what has logged in before is of no use any more. Not to be called from two
    /// threads at once.
    pub fn revoke(&self) {
        self.replace_credentials((*self.credentials()).clone());
    }

    fn replace_credentials(&self, credentials: Credentials) {
        let generation = self.generation.load(Ordering::Relaxed).wrapping_add(1);
        self.credentials.store(Arc::new(Credentials { generation, ..credentials }));
        self.generation.store(generation, Ordering::Release);
        self.proofs.forget();
    }
}
