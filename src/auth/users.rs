//! The users that clients may be, and what is known of their passwords.
//!
//! Owns the map from name to verifier and PgBouncer's users file (`"name" "password, md5 or SCRAM"`).
//! Refuses to choose the method: that is a setting. A value is never changed after it is shared: a reload
//! makes a new one.

use std::{
    collections::HashMap,
    fmt, fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use zeroize::Zeroizing;

use super::{
    ScramVerifier, Verifier,
    keys::ITERATIONS_DEFAULT,
    scram::{MockKey, Server},
};

/// A users file may be this long.
pub const FILE_BYTES_MAX: u64 = 16 << 20;
/// A file may hold this many users.
pub const USERS_MAX: usize = 100_000;
/// Names and passwords may be this long.
pub const FIELD_BYTES_MAX: usize = 4096;
/// More problems than this are not listed.
const PROBLEMS_MAX: usize = 20;

/// The known users.
#[derive(Debug, Default)]
pub struct Users {
    by_name: HashMap<Box<str>, Arc<User>, foldhash::fast::RandomState>,
}

/// One user.
#[derive(Debug)]
pub struct User {
    verifier: Verifier,
    /// Derived when a user of whom the password itself is known first logs in with SCRAM, from the salt that it is
    /// shown then.
    derived: OnceLock<ScramVerifier>,
}

/// Why a users file was not taken.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// The file could not be read.
    #[error("cannot read the users file {}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        error: io::Error,
    },
    /// The file is longer than [`FILE_BYTES_MAX`].
    #[error("the users file {} is longer than {} MiB", path.display(), FILE_BYTES_MAX >> 20)]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// Lines of it cannot be understood.
    #[error("{0}")]
    Lines(LineProblems),
}

/// The lines that are wrong, and why. Never quotes a line, since it may hold a password.
#[derive(Debug, PartialEq, Eq)]
pub struct LineProblems {
    /// The file, as it is to be shown.
    pub file: String,
    /// Line (from 1) and what is wrong with it.
    pub problems: Vec<(usize, String)>,
}

impl fmt::Display for LineProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (line, what)) in self.problems.iter().enumerate() {
            let newline = if n == 0 { "" } else { "\n" };
            write!(f, "{newline}{}:{line}: {what}", self.file)?;
        }
        Ok(())
    }
}

impl User {
    /// The form in which the password is known.
    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// What SCRAM checks a client against, if that is there already. `None` may only mean that the password
    /// itself is known and nobody has logged in with it yet: then ask [`User::scram`] on another thread.
    pub fn scram_ready(&self) -> Option<&ScramVerifier> {
        match &self.verifier {
            Verifier::Scram(verifier) => Some(verifier),
            Verifier::Plain(_) => self.derived.get(),
            Verifier::Md5(_) => None,
        }
    }

    /// What SCRAM checks a client against that was shown this salt; `None` if SCRAM cannot check this user (md5, or no
    /// password). Takes about 2 ms once for a user of whom the password itself is known.
    pub fn scram(&self, salt: &[u8]) -> Option<&ScramVerifier> {
        match &self.verifier {
            Verifier::Plain(password) if !password.is_empty() => Some(
                self.derived.get_or_init(|| ScramVerifier::with_salt(password, salt, ITERATIONS_DEFAULT)),
            ),
            _ => self.scram_ready(),
        }
    }
}

impl Users {
    /// Reads a users file.
    pub fn load(path: &Path) -> Result<Self, UsersError> {
        let unreadable = |error| UsersError::Unreadable { path: path.to_owned(), error };
        let file = fs::File::open(path).map_err(unreadable)?;
        let mut bytes = Zeroizing::new(Vec::new());
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(UsersError::TooLong { path: path.to_owned() });
        }
        Self::parse(&bytes).map_err(|problems| {
            UsersError::Lines(LineProblems { file: path.display().to_string(), problems })
        })
    }

    /// Reads a users file's text; all problems at once, each with its line.
    pub fn parse(bytes: &[u8]) -> Result<Self, Vec<(usize, String)>> {
        let mut users = Self::default();
        let mut problems = Vec::new();
        let mut lines: HashMap<String, usize> = HashMap::new();
        for (line, bytes) in (1..).zip(bytes.split(|&byte| byte == b'\n')) {
            match user_line(bytes) {
                Ok(None) => {}
                Ok(Some((name, verifier))) => match lines.insert(name.clone(), line) {
                    Some(first) => problems.push((line, format!("user {name:?} is already on line {first}"))),
                    None => users.insert(&name, verifier),
                },
                Err(what) => problems.push((line, what.to_string())),
            }
            if users.len() > USERS_MAX {
                problems.push((line, format!("more than {USERS_MAX} users")));
            }
            if problems.len() >= PROBLEMS_MAX || users.len() > USERS_MAX {
                break;
            }
        }
        if problems.is_empty() { Ok(users) } else { Err(problems) }
    }

    /// Adds a user, or puts another verifier in the place of the one that was known.
    pub fn insert(&mut self, name: &str, verifier: Verifier) {
        self.by_name.insert(name.into(), Arc::new(User { verifier, derived: OnceLock::new() }));
    }

    /// Keeps what was derived for users of `before` who have the same password here.
    pub fn keep_derived(&mut self, before: &Self) {
        for (name, user) in &mut self.by_name {
            if let Some(known) = before.get(name)
                && known.verifier == user.verifier
            {
                *user = Arc::clone(known);
            }
        }
    }

    /// The user of this name. Shared, so that [`User::scram`] can be called on another thread.
    pub fn get(&self, name: &str) -> Option<&Arc<User>> {
        self.by_name.get(name)
    }

    /// Every user with its name, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Arc<User>)> {
        self.by_name.iter().map(|(name, user)| (name.as_ref(), user))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The exchange to begin with a client who claims to be `name`. All of whom no verifier is given, known or not, are
    /// shown a salt that is made from their names: the first answer tells nobody which users exist.
    pub fn scram_server(&self, name: &str, mock: &MockKey) -> Server {
        match self.get(name).map(|user| user.verifier()) {
            Some(Verifier::Scram(verifier)) => Server::new(verifier),
            _ => Server::salted(name, mock),
        }
    }
}

/// Everything that can be wrong with one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum LineProblem {
    #[error("not UTF-8")]
    NotUtf8,
    #[error("expected \"user\" \"password\", both in double quotes; comments begin with ;")]
    Shape,
    #[error("a double quote is missing; write a quote inside a name or password twice: \"\"")]
    Unclosed,
    #[error("the user's name is empty")]
    NoName,
    #[error("a name or password is longer than {FIELD_BYTES_MAX} bytes")]
    TooLong,
    #[error("the password {0}")]
    Verifier(#[from] super::verifier::BadVerifier),
}

/// One line: `None` if it is empty or a comment. What follows the second field is ignored, as in PgBouncer.
fn user_line(line: &[u8]) -> Result<Option<(String, Verifier)>, LineProblem> {
    let line = std::str::from_utf8(line).map_err(|_| LineProblem::NotUtf8)?.trim();
    if line.is_empty() || line.starts_with(';') {
        return Ok(None);
    }
    let (name, rest) = quoted(line)?;
    let (password, _) = quoted(rest.trim_start())?;
    if name.is_empty() {
        return Err(LineProblem::NoName);
    }
    Ok(Some((name.to_string(), Verifier::parse(&password)?)))
}

/// Takes a quoted field off the front of `text`.
fn quoted(text: &str) -> Result<(Zeroizing<String>, &str), LineProblem> {
    let mut rest = text.strip_prefix('"').ok_or(LineProblem::Shape)?;
    let mut field = Zeroizing::new(String::new());
    loop {
        let (part, after) = rest.split_once('"').ok_or(LineProblem::Unclosed)?;
        field.push_str(part);
        if field.len() > FIELD_BYTES_MAX {
            return Err(LineProblem::TooLong);
        }
        match after.strip_prefix('"') {
            Some(after) => {
                field.push('"');
                rest = after;
            }
            None => return Ok((field, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::auth::{
        AuthError, ScramKeys, Secret, md5,
        scram::{Binding, Client},
    };

    #[test]
    fn reads_a_users_file() {
        let text = "; made by hand\n\n\"ann\" \"pen\"\"cil\" trailing words\r\n  \"b b\"\t\"md5a2286e2058e8275f4419293789626063\"\n\"c\" \"SCRAM-SHA-256$4096:pIq54kvYnoJ+VVQhBijAmA==$I6C8JuqY5j4chQ5I3BO8dELiNeYE2uxiR3lHzorycJM=:EHPQYLfUCLsC16ilWSUdwci/9JmfsiugKuez9+7I2YM=\"\n\"nobody\" \"\"";
        let users = Users::parse(text.as_bytes()).expect("well-formed");
        assert_eq!(users.len(), 4);
        let verifier = |name| users.get(name).map(|user| user.verifier().clone());
        assert_eq!(verifier("ann"), Some(Verifier::Plain(Secret::new("pen\"cil"))));
        assert_eq!(
            verifier("b b"),
            md5::Digest::parse("md5a2286e2058e8275f4419293789626063").map(Verifier::Md5)
        );
        assert!(matches!(verifier("c"), Some(Verifier::Scram(_))));
        assert_eq!(verifier("nobody"), Some(Verifier::Plain(Secret::new(""))));
    }

    #[test]
    fn lists_all_problems_with_their_lines() {
        let text = b"\"a\" \"x\"\nb \"x\"\n\"c\"\n\"d\" \"x\n\"\" \"x\"\n\"e\" \"SCRAM-SHA-256$secret\"\n\xff\n\"a\" \"y\"\n# no";
        let problems = Users::parse(text).expect_err("malformed");
        let shown = LineProblems { file: "users.txt".to_owned(), problems }.to_string();
        insta::assert_snapshot!(shown, @r#"
        users.txt:2: expected "user" "password", both in double quotes; comments begin with ;
        users.txt:3: expected "user" "password", both in double quotes; comments begin with ;
        users.txt:4: a double quote is missing; write a quote inside a name or password twice: ""
        users.txt:5: the user's name is empty
        users.txt:6: the password begins as a SCRAM verifier, but is not SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>
        users.txt:7: not UTF-8
        users.txt:8: user "a" is already on line 1
        users.txt:9: expected "user" "password", both in double quotes; comments begin with ;
        "#);
    }

    #[test]
    fn users_log_in_by_what_is_known_of_them() {
        let mut users = Users::default();
        users.insert("plain", Verifier::Plain(Secret::new("pencil")));
        users.insert("empty", Verifier::Plain(Secret::new("")));
        users.insert("md5", Verifier::Md5(md5::Digest::of("md5", &Secret::new("pencil"))));
        let mock = MockKey::random().expect("randomness");
        let login = |name: &str, password: &str| -> Result<(), AuthError> {
            let (client, first) = Client::start(Binding::Unsupported)?;
            let (server, challenge) = users.scram_server(name, &mock).first(first.as_bytes())?;
            let verifier = users.get(name).and_then(|user| user.scram(server.salt()));
            let client = client.challenge(challenge.as_bytes())?;
            let keys = ScramKeys::derive(&Secret::new(password), client.salt(), client.iterations());
            let (client, answer) = client.answer(&keys);
            client.verify(server.finish(answer.as_bytes(), verifier)?.server_final.as_bytes())
        };
        assert_eq!(login("plain", "pencil"), Ok(()));
        assert_eq!(login("plain", "pencil"), Ok(()));
        assert_eq!(login("plain", "Pencil"), Err(AuthError::Proof));
        assert_eq!(login("empty", ""), Err(AuthError::Proof));
        assert_eq!(login("md5", "pencil"), Err(AuthError::Proof));
        assert_eq!(login("nobody", "pencil"), Err(AuthError::Proof));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "[\"; a\\n]{0,60}") {
            let _ = Users::parse(&bytes);
            let _ = Users::parse(text.as_bytes());
        }

        #[test]
        fn quoting_is_undone(name in "\\PC{1,12}", password in "\\PC{0,12}") {
            let line = format!("\"{}\" \"{}\"", name.replace('"', "\"\""), password.replace('"', "\"\""));
            let users = Users::parse(line.as_bytes()).expect("well-formed");
            prop_assert_eq!(users.get(&name).map(|user| user.verifier().clone()), Some(Verifier::Plain(Secret::new(password))));
        }
    }
}
