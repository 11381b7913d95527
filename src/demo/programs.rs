//! Where PostgreSQL's programs are, and as which user its servers may run.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// An installation of PostgreSQL.
#[derive(Debug)]
pub struct Programs {
    /// The folder of `initdb` and `postgres`.
    pub bin: PathBuf,
    /// Whom the servers run as if this program runs as root, which PostgreSQL refuses.
    pub owner: Option<Owner>,
}

/// A user of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its number.
    pub uid: u32,
    /// The number of its group.
    pub gid: u32,
}

/// What is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// `initdb` and `postgres`.
    #[error(
        "PostgreSQL's server programs (initdb, postgres) were not found. Install them: `apt-get install postgresql` on \
         Debian and Ubuntu, `dnf install postgresql-server` on Fedora, `brew install postgresql` on macOS; or name \
         their folder in {variable}"
    )]
    Postgres {
        /// The environment variable that may name their folder.
        variable: String,
    },
    /// A user that servers can run as.
    #[error(
        "PostgreSQL does not run as root, and there is no user `postgres` or `nobody`: run this as another user"
    )]
    User,
}

impl Programs {
    /// The installation whose folder an environment variable names; without it the newest one that is found.
    pub fn find(variable: &str) -> Result<Self, Missing> {
        let bin = find_bin(variable).ok_or_else(|| Missing::Postgres { variable: variable.to_owned() })?;
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let owner = if rustix::process::geteuid().is_root() {
            Some(unprivileged(&users).ok_or(Missing::User)?)
        } else {
            None
        };
        Ok(Self { bin, owner })
    }

    /// The path of a program: in the installation's folder, else by name from the `PATH`.
    pub fn path(&self, program: &str) -> PathBuf {
        let inside = self.bin.join(program);
        if inside.exists() { inside } else { PathBuf::from(program) }
    }
}

fn find_bin(variable: &str) -> Option<PathBuf> {
    let complete = |folder: &PathBuf| folder.join("initdb").exists() && folder.join("postgres").exists();
    if let Some(folder) = env::var_os(variable) {
        return Some(PathBuf::from(folder)).filter(complete);
    }
    let mut folders = Vec::new();
    // Debian and Ubuntu, Red Hat's own repository's, Homebrew.
    for base in ["/usr/lib/postgresql", "/usr", "/opt/homebrew/opt", "/usr/local/opt"] {
        folders.extend(versioned_folders(Path::new(base)));
    }
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        folders.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    folders.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    folders.into_iter().find(complete)
}

/// `base/15/bin`, `base/pgsql-15/bin` or `base/postgresql@15/bin`, the highest number first.
fn versioned_folders(base: &Path) -> Vec<PathBuf> {
    let version_of = |path: &Path| -> Option<u32> {
        let name = path.file_name()?.to_str()?;
        name.trim_start_matches("postgresql@").trim_start_matches("pgsql-").parse().ok()
    };
    let entries = fs::read_dir(base).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .filter_map(|entry| version_of(&entry.path()).map(|number| (number, entry.path().join("bin"))))
        .collect();
    found.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
    found.into_iter().map(|(_, path)| path).collect()
}

/// The user `postgres`, which the distribution's packages create, else `nobody`.
fn unprivileged(users: &str) -> Option<Owner> {
    let find = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some(Owner { uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? })
    };
    find("postgres").or_else(|| find("nobody"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_run_as_postgres_else_as_nobody() {
        let nobody = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65533:nobody:/:/bin/false\n";
        assert_eq!(unprivileged(nobody), Some(Owner { uid: 65534, gid: 65533 }));
        let both = format!("{nobody}postgres:x:107:115::/var/lib/postgresql:/bin/bash\n");
        assert_eq!(unprivileged(&both), Some(Owner { uid: 107, gid: 115 }));
        assert_eq!(unprivileged("root:x:0:0::/:/bin/sh\n"), None);
    }
}
