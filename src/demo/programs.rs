//! Where PostgreSQL's programs are, and as which user its servers may run.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::Failure;

/// Names the folder of PostgreSQL's programs, where the search would find others or none.
pub(super) const FOLDER_VARIABLE: &str = "BULKHEAD_DEMO_PG_BIN";

/// An installation of PostgreSQL.
#[derive(Debug)]
pub(super) struct Programs {
    bin: PathBuf,
    /// Whom the servers run as if the demonstration runs as root, which PostgreSQL refuses.
    pub(super) owner: Option<Owner>,
}

/// A user of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Programs {
    /// The newest installation that is found, or why there is none.
    pub(super) fn find() -> Result<Self, Failure> {
        let bin = find_bin().ok_or(Failure::NoPostgres)?;
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let owner = if rustix::process::geteuid().is_root() {
            Some(unprivileged(&users).ok_or(Failure::NoUser)?)
        } else {
            None
        };
        Ok(Self { bin, owner })
    }

    /// The path of a program: in the installation's folder, else by name from the `PATH`.
    pub(super) fn path(&self, program: &str) -> PathBuf {
        let inside = self.bin.join(program);
        if inside.exists() { inside } else { PathBuf::from(program) }
    }
}

fn find_bin() -> Option<PathBuf> {
    let complete = |folder: &PathBuf| folder.join("initdb").exists() && folder.join("postgres").exists();
    if let Some(folder) = env::var_os(FOLDER_VARIABLE) {
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
