//! What is known of a user's password for logging in to servers, and the keys that were derived from it.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::Semaphore;

use crate::auth::{ScramKeys, ScramVerifier, Secret, Verifier, md5::Digest, scram};

/// Keys that were derived for servers, kept because deriving takes milliseconds. A few servers, a few salts.
const KEPT_KEYS: usize = 8;

/// A user's password, as far as it is known, for logging in to servers.
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

    /// The form in which the password is known.
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

    /// The digest that md5 authentication needs, if it is known.
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
