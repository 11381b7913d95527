//! Who may come in, and as whom they are known to servers.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    auth::{AuthError, ScramKeys, ScramVerifier, Users, scram::MockKey},
    backend::{Identity, address::LoginSecret},
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
    /// Makes exchanges with unknown users look like any other.
    pub mock: MockKey,
    secrets: HashMap<String, Arc<LoginSecret>>,
    known: Mutex<HashMap<(String, String), Arc<Identity>>>,
}

impl Identities {
    /// For these users; `url` is the primary's URL's user and database.
    pub fn new(
        method: Method,
        users: Users,
        secrets: HashMap<String, Arc<LoginSecret>>,
        (url_user, url_database): (String, String),
        databases: Vec<String>,
    ) -> Result<Self, AuthError> {
        let (mock, known) = (MockKey::random()?, Mutex::default());
        Ok(Self { method, users, url_user, url_database, databases, mock, secrets, known })
    }

    /// Whether clients may ask for the database.
    pub fn serves(&self, database: &str) -> bool {
        self.databases.iter().any(|served| served == "*" || served == database)
    }

    /// A client has proven its key: it opens servers that keep the same verifier.
    pub fn set_proven(&self, user: &str, verifier: &ScramVerifier, keys: ScramKeys) {
        if let Some(secret) = self.secrets.get(user) {
            secret.set_proven(verifier, keys);
        }
    }

    /// The identity of a pair; `None` if there are too many.
    pub fn identity(&self, database: &str, user: &str) -> Option<Arc<Identity>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (database.to_owned(), user.to_owned());
        if let Some(identity) = known.get(&key) {
            return Some(Arc::clone(identity));
        }
        if known.len() >= IDENTITIES_MAX {
            // Those that no session and no backend uses any more.
            known.retain(|_, identity| Arc::strong_count(identity) > 1);
        }
        if known.len() >= IDENTITIES_MAX {
            return None;
        }
        let identity = Arc::new(Identity {
            database: key.0.clone(),
            user: key.1.clone(),
            secret: self.secrets.get(user).cloned(),
            is_url_user: user == self.url_user,
            is_url_database: database == self.url_database,
        });
        known.insert(key, Arc::clone(&identity));
        Some(identity)
    }
}
