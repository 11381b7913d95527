//! Where a server is and who logs in there.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;

use super::{
    connect::Numbers,
    hosts::{HostPort, SessionAttrs},
    in_use::InUse,
    proof::Proofs,
};
use crate::auth::{
    RequireAuth, ScramKeys, ScramVerifier, Secret, Verifier, md5::Digest, scram, tls::Connector,
};

/// Keys that were derived for servers, kept because deriving takes milliseconds. A few servers, a few salts.
const KEPT_KEYS: usize = 8;

/// A (database, user) pair as clients name it. A backend belongs to one.
#[derive(Debug)]
pub struct Identity {
    /// The database as the client named it.
    pub database: String,
    /// The user.
    pub user: String,
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
    /// What proves the user to servers. Unused for the URL's user, for whom each server has its own.
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
    /// What must be found there.
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
    /// What its connections are called until a session's name is put on them.
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

/// Bytes received from a peer and sent to it, as relaxed counters.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Bytes received.
    pub received: AtomicU64,
    /// Bytes sent.
    pub sent: AtomicU64,
}

impl Traffic {
    /// Counts received bytes.
    pub fn count_received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts sent bytes.
    pub fn count_sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Who logs in, and where.
#[derive(Clone, Copy, Debug)]
pub struct Login<'a> {
    /// The user at this server.
    pub user: &'a str,
    /// The database at this server.
    pub database: &'a str,
    /// What proves it.
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
        Self {
            database: database.into(),
            user: user.into(),
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

/// What we know of a user's password, for logging in to servers.
#[derive(Debug)]
pub struct LoginSecret {
    verifier: Verifier,
    /// Keys that a client's own login proved, with the verifier that it was proven against.
    proven: OnceLock<(ScramVerifier, ScramKeys)>,
    derived: Arc<Mutex<Vec<DerivedKeys>>>,
    /// Keys are derived one after the other: a server may ask for seconds of work, and for others the next time.
    deriving: Arc<Semaphore>,
}

#[derive(Clone, Debug)]
struct DerivedKeys {
    salt: Vec<u8>,
    iterations: u32,
    keys: ScramKeys,
}

impl LoginSecret {
    /// From what a users file or URL says.
    pub fn new(verifier: Verifier) -> Self {
        Self {
            verifier,
            proven: OnceLock::new(),
            derived: Arc::default(),
            deriving: Arc::new(Semaphore::new(1)),
        }
    }

    /// What is known of the password.
    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// A client has just proven these keys.
    pub fn set_proven(&self, verifier: &ScramVerifier, keys: ScramKeys) {
        // The first login's keys are as good as any later one's.
        let _ = self.proven.set((verifier.clone(), keys));
    }

    /// The password itself, if it is known.
    pub fn password(&self) -> Option<&Secret> {
        match &self.verifier {
            Verifier::Plain(password) if !password.is_empty() => Some(password),
            _ => None,
        }
    }

    /// What md5 authentication needs, if it is known.
    pub fn md5(&self, user: &str) -> Option<Digest> {
        self.verifier.md5_digest(user)
    }

    /// The keys that a client's own login proved, whether or not they fit a server's challenge.
    pub fn proven_keys(&self) -> Option<ScramKeys> {
        self.proven.get().map(|(_, keys)| keys.clone())
    }

    /// The keys for a server's challenge: derived from the password, or passed through from a client's login if
    /// the server keeps the same verifier. `None` if neither is possible.
    pub async fn keys_for(&self, challenge: &scram::ClientChallenge) -> Option<ScramKeys> {
        if let Some((verifier, keys)) = self.proven.get()
            && challenge.fits(verifier)
        {
            return Some(keys.clone());
        }
        let password = self.password()?;
        let (salt, iterations) = (challenge.salt().to_vec(), challenge.iterations());
        if let Some(keys) = find(&self.derived, &salt, iterations) {
            return Some(keys);
        }
        let turn = Arc::clone(&self.deriving).acquire_owned().await.ok()?;
        // Who had the turn before may have derived the same.
        if let Some(keys) = find(&self.derived, &salt, iterations) {
            return Some(keys);
        }
        let (password, derived) = (password.clone(), Arc::clone(&self.derived));
        // Goes on to its end, and keeps its turn until then, whoever has stopped waiting for it.
        let derive = move || {
            let keys = ScramKeys::derive(&password, &salt, iterations);
            let mut kept = lock(&derived);
            if kept.len() >= KEPT_KEYS {
                kept.remove(0);
            }
            kept.push(DerivedKeys { salt, iterations, keys: keys.clone() });
            drop((kept, turn));
            keys
        };
        tokio::task::spawn_blocking(derive).await.ok()
    }
}

fn find(derived: &Mutex<Vec<DerivedKeys>>, salt: &[u8], iterations: u32) -> Option<ScramKeys> {
    let kept = lock(derived);
    let found = kept.iter().find(|kept| kept.salt == salt && kept.iterations == iterations)?;
    Some(found.keys.clone())
}

fn lock(derived: &Mutex<Vec<DerivedKeys>>) -> std::sync::MutexGuard<'_, Vec<DerivedKeys>> {
    derived.lock().unwrap_or_else(PoisonError::into_inner)
}
