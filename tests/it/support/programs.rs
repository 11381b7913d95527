//! Where PostgreSQL's programs are, and as which user its server may run.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// An installation of PostgreSQL.
#[derive(Debug)]
pub(crate) struct Programs {
    /// The folder of `initdb`, `postgres` and `pgbench`.
    pub(crate) bin: PathBuf,
    /// What `postgres --version` says; part of the key of the cached data folder.
    pub(crate) version: String,
    /// Whom the servers run as when the tests run as root, which PostgreSQL refuses.
    pub(crate) owner: Option<Owner>,
}

/// A user of the system.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// The installation that all tests use: `BULKHEAD_TEST_PG_BIN`, or the newest one found.
pub(crate) fn programs() -> &'static Programs {
    static PROGRAMS: OnceLock<Programs> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let bin = find_bin().expect("PostgreSQL's initdb and postgres are installed: run `make setup`");
        let output = Command::new(bin.join("postgres")).arg("--version").output().expect("postgres runs");
        Programs {
            version: String::from_utf8_lossy(&output.stdout).trim().to_owned(),
            owner: rustix::process::geteuid().is_root().then(unprivileged),
            bin,
        }
    })
}

impl Programs {
    /// The major version, such as 15.
    pub(crate) fn major(&self) -> u32 {
        let number =
            self.version.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
        let major = number.and_then(|word| word.split(|c: char| !c.is_ascii_digit()).next());
        major.and_then(|digits| digits.parse().ok()).expect("postgres --version names a version")
    }

    /// The path of a program: in the installation's folder, else by name from the `PATH`.
    pub(crate) fn path(&self, program: &str) -> PathBuf {
        let inside = self.bin.join(program);
        if inside.exists() { inside } else { PathBuf::from(program) }
    }
}

fn find_bin() -> Option<PathBuf> {
    if let Some(folder) = env::var_os("BULKHEAD_TEST_PG_BIN") {
        return Some(PathBuf::from(folder));
    }
    let mut folders = versioned_folders(Path::new("/usr/lib/postgresql"));
    folders.extend(versioned_folders(Path::new("/opt/homebrew/opt")));
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        folders.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    folders.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    folders.into_iter().find(|folder| folder.join("initdb").exists() && folder.join("postgres").exists())
}

/// `base/*15*/bin`, the highest number first.
fn versioned_folders(base: &Path) -> Vec<PathBuf> {
    let version_of = |path: &Path| -> Option<u32> {
        let name = path.file_name()?.to_str()?;
        name.trim_start_matches("postgresql@").parse().ok()
    };
    let entries = fs::read_dir(base).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .filter_map(|entry| version_of(&entry.path()).map(|number| (number, entry.path().join("bin"))))
        .collect();
    found.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
    found.into_iter().map(|(_, path)| path).collect()
}

/// The user `postgres`, which the distribution's packages create, else `nobody`.
fn unprivileged() -> Owner {
    let users = fs::read_to_string("/etc/passwd").expect("/etc/passwd is readable");
    let find = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some(Owner { uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? })
    };
    find("postgres")
        .or_else(|| find("nobody"))
        .expect("there is a user `postgres` or `nobody` to run servers as")
}
