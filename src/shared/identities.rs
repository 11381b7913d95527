//! Who may come in, and as whom they are known to servers.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    auth::{AuthError, ScramKeys, ScramVerifier, Users, scram::MockKey},
    backend::{Credentials, Identity, secret::LoginSecret},
    metrics::Evictions,
};

/// How clients prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// SCRAM-SHA-256.
    ScramSha256,
    /// md5; users of whom only a SCRAM verifier is known use SCRAM.
    Md5,
    /// Whoever names a known user.
    Trust,
}

/// At most so many (database, user) pairs are kept.
const IDENTITIES_MAX: usize = 10_000;

/// The known users and the identities in use.
#[derive(Debug)]
pub struct Identities {
    /// The method asked of clients.
    pub method: Method,
    /// The known users, the URL's among them.
    pub users: Users,
    /// The primary's URL's user.
    pub url_user: String,
    /// The primary's URL's database.
    pub url_database: String,
    /// The databases that clients may ask for; `*` means any.
    pub databases: Vec<String>,
    /// A login is proven at the server again when the last proof is older; zero: every login.
    pub reprove_after: Duration,
    /// Makes exchanges with unknown users look like any other; the same in every snapshot.
    pub mock: MockKey,
    known: Arc<Known>,
}

/// The identities in use, the same objects in every snapshot: sessions and backends refer to them.
#[derive(Debug, Default)]
struct Known(Mutex<Logins>);

/// How the users of the snapshot in force log in to servers.
#[derive(Debug, Default)]
struct Logins {
    secrets: HashMap<String, Arc<LoginSecret>>,
    url_user: String,
    url_database: String,
    identities: HashMap<(String, String), Arc<Identity>>,
    evictions: Evictions,
}

impl Identities {
    /// For these users; `url` is the primary's URL's user and database.
    pub fn new(
        method: Method,
        users: Users,
        secrets: HashMap<String, Arc<LoginSecret>>,
        (url_user, url_database): (String, String),
        databases: Vec<String>,
        reprove_after: Duration,
    ) -> Result<Self, AuthError> {
        let logins = Logins {
            secrets,
            url_user: url_user.clone(),
            url_database: url_database.clone(),
            identities: HashMap::new(),
            evictions: Evictions::default(),
        };
        let known = Arc::new(Known(Mutex::new(logins)));
        Ok(Self {
            method,
            users,
            url_user,
            url_database,
            databases,
            reprove_after,
            mock: MockKey::random()?,
            known,
        })
    }

    /// Takes over from the snapshot before: its identities, what its clients have proven and what was derived from
    /// passwords, as far as those are still the same. From now on all identities log in as these users do. One
    /// whose user is gone logs in as before, for the sessions that it still has.
    pub fn succeed(&mut self, before: &Self) {
        self.users.keep_derived(&before.users);
        self.mock = before.mock.clone();
        let ours = std::mem::replace(&mut self.known, Arc::clone(&before.known));
        let Logins { secrets, url_user, url_database, .. } = std::mem::take(&mut *ours.lock());
        let mut logins = self.known.lock();
        for (user, secret) in secrets {
            let same = logins.secrets.get(&user).is_some_and(|kept| kept.verifier() == secret.verifier());
            if !same {
                logins.secrets.insert(user, secret);
            }
        }
        logins.secrets.retain(|user, _| self.users.get(user).is_some());
        (logins.url_user, logins.url_database) = (url_user, url_database);
        for identity in logins.identities.values() {
            let mut credentials = logins.credentials(&identity.database, &identity.user);
            if credentials.secret.is_none() {
                credentials.secret.clone_from(&identity.credentials().secret);
            }
            identity.set_credentials(credentials);
        }
    }

    /// Whether clients may ask for the database.
    pub fn serves(&self, database: &str) -> bool {
        self.databases.iter().any(|served| served == "*" || served == database)
    }

    /// A client has proven its key: it opens servers that keep the same verifier.
    pub fn set_proven(&self, user: &str, verifier: &ScramVerifier, keys: ScramKeys) {
        let secret = self.known.lock().secrets.get(user).cloned();
        if let Some(secret) = secret {
            secret.set_proven(verifier, keys);
        }
    }

    /// An identity whose connections serve one session only: they are opened with these startup parameters.
    pub fn one_sessions(&self, database: &str, user: &str, startup: Vec<(String, String)>) -> Identity {
        let credentials = self.known.lock().credentials(database, user);
        Identity::new(database, user, credentials).with_startup(startup)
    }

    /// A server has refused the login of this identity: its backends have no future, nor have those of the same user in
    /// other databases if `is_user_s`.
    pub fn revoke(&self, refused: &Identity, is_user_s: bool) {
        // The lock also keeps two threads from changing credentials at once.
        for identity in self.known.lock().identities.values() {
            let is_alike =
                identity.user == refused.user && (is_user_s || identity.database == refused.database);
            if is_alike {
                identity.revoke();
            }
        }
    }

    /// Identities that nobody used any more, and that have made room for others.
    pub fn evicted(&self) -> u64 {
        self.known.lock().evictions.read()
    }

    /// The identity of a pair; `None` if there are too many.
    pub fn identity(&self, database: &str, user: &str) -> Option<Arc<Identity>> {
        let mut logins = self.known.lock();
        let key = (database.to_owned(), user.to_owned());
        if let Some(identity) = logins.identities.get(&key) {
            return Some(Arc::clone(identity));
        }
        if logins.identities.len() >= IDENTITIES_MAX {
            // Those that no session and no backend uses any more.
            let before = logins.identities.len();
            logins.identities.retain(|_, identity| Arc::strong_count(identity) > 1);
            logins.evictions.add(before - logins.identities.len());
        }
        if logins.identities.len() >= IDENTITIES_MAX {
            return None;
        }
        let identity = Arc::new(Identity::new(database, user, logins.credentials(database, user)));
        logins.identities.insert(key, Arc::clone(&identity));
        Some(identity)
    }
}

impl Known {
    fn lock(&self) -> MutexGuard<'_, Logins> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Logins {
    fn credentials(&self, database: &str, user: &str) -> Credentials {
        Credentials {
            secret: self.secrets.get(user).cloned(),
            is_url_user: user == self.url_user,
            is_url_database: database == self.url_database,
            ..Credentials::default()
        }
    }
}
