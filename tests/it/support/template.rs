//! Data folders to copy servers from, so that `initdb` runs once and not for every test. They lie in the build
//! folder, keyed by everything that went into them.

use std::{
    env, fs,
    hash::{DefaultHasher, Hash, Hasher},
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{
    process::leashed,
    programs::{Owner, programs},
};

/// Roles and databases of every server. Single-user mode takes one statement a line.
const BOOTSTRAP: &str = "\
CREATE ROLE admin SUPERUSER LOGIN PASSWORD 'secret';
CREATE ROLE app LOGIN PASSWORD 'secret';
CREATE ROLE app_two LOGIN PASSWORD 'second' IN ROLE app;
CREATE ROLE app_trust LOGIN IN ROLE app;
SET password_encryption = 'md5'; CREATE ROLE app_md5 LOGIN PASSWORD 'secret' IN ROLE app;
CREATE DATABASE app OWNER app;
CREATE DATABASE app_two OWNER app;
";

const INITDB: [&str; 6] =
    ["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--wal-segsize=1"];

/// What a server is a copy of. Two families, because a job database is not a copy of the primary: another system
/// identifier, other OIDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Template {
    App,
    Jobs,
}

impl Template {
    /// The first OID of objects that tests create: the types of the job database must have other OIDs than the same
    /// ones on the primary, as in real life. (Without this, single-user mode takes OIDs that belong to the system.)
    fn first_oid(self) -> &'static str {
        match self {
            Self::App => "20000",
            Self::Jobs => "30000",
        }
    }
}

/// Copies the template to `data`, which must not exist yet.
pub(crate) fn copy_to(template: Template, data: &Path) {
    copy(&cached(template), data);
    if let Some(owner) = programs().owner {
        hand_over(data, owner);
    }
}

/// Gives a file or folder with all its contents to the user that servers run as.
pub(crate) fn hand_over(path: &Path, owner: Owner) {
    run(Command::new("chown").arg("-R").arg(format!("{}:{}", owner.uid, owner.gid)).arg(path));
}

/// A folder that is removed on drop and that servers may use.
#[derive(Debug)]
pub(crate) struct Scratch(tempfile::TempDir);

impl Scratch {
    /// The folder's name tells the process, so that folders left by killed runs are recognised and removed by the
    /// next.
    pub(crate) fn new() -> Self {
        sweep();
        let folder = tempfile::Builder::new()
            .prefix(&format!("bulkhead-{}-", std::process::id()))
            .tempdir()
            .expect("the folder for temporary files is writable");
        if let Some(Owner { uid, gid }) = programs().owner {
            std::os::unix::fs::chown(folder.path(), Some(uid), Some(gid))
                .expect("root may give folders away");
        }
        Self(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

fn sweep() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    if cfg!(not(target_os = "linux")) {
        return;
    }
    ONCE.call_once(|| {
        for entry in fs::read_dir(env::temp_dir()).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let pid = name
                .to_str()
                .and_then(|name| name.strip_prefix("bulkhead-")?.split('-').next()?.parse::<u32>().ok());
            if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
                fs::remove_dir_all(entry.path()).ok();
            }
        }
    });
}

fn cached(template: Template) -> PathBuf {
    let mut key = DefaultHasher::new();
    (&programs().version, BOOTSTRAP, INITDB, template.first_oid()).hash(&mut key);
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let wanted = cache.join(format!("postgres-{template:?}-{:016x}", key.finish()).to_lowercase());
    if !wanted.exists() {
        let folder = Scratch::new();
        let made = folder.path().join("data");
        make(template, &made);
        // Made aside and renamed: tests of one run start at the same time, and whoever renames first wins. Threads of
        // one process must not copy to the same place either.
        let maker = format!("{}-{:?}", std::process::id(), std::thread::current().id());
        let aside = wanted.with_extension(maker);
        copy(&made, &aside);
        if fs::rename(&aside, &wanted).is_err() {
            assert!(wanted.exists(), "{} cannot be renamed to {}", aside.display(), wanted.display());
            fs::remove_dir_all(&aside).ok();
        }
    }
    wanted
}

fn make(template: Template, data: &Path) {
    let programs = programs();
    let initdb = programs.bin.join("initdb");
    run(leashed(&initdb, programs.owner).arg("-D").arg(data).args(INITDB));

    let pg_resetwal = programs.bin.join("pg_resetwal");
    run(leashed(&pg_resetwal, programs.owner).arg("-o").arg(template.first_oid()).arg(data));

    let mut command = leashed(&programs.bin.join("postgres"), programs.owner);
    command.args(["--single", "-F", "-D"]).arg(data).arg("postgres");
    let mut single = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("postgres runs");
    let mut input = single.stdin.take().expect("stdin is piped");
    input.write_all(BOOTSTRAP.as_bytes()).expect("postgres reads");
    drop(input);
    let output = single.wait_with_output().expect("own children can be waited for");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    // Single-user mode reports a failed statement and goes on.
    assert!(
        output.status.success() && !errors.contains("ERROR"),
        "bootstrap of {template:?} failed: {errors}"
    );
}

fn copy(from: &Path, to: &Path) {
    run(Command::new("cp").arg("-R").arg(from).arg(to));
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
}
