//! The folder that holds everything the demonstration writes, and goes with it.

use std::{
    env, fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt, chown},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use super::{Failure, programs::Owner, random_text};

const PREFIX: &str = "bulkhead-demo-";
/// Removing may meet a process that was killed a moment ago and still writes.
const REMOVALS_MAX: u32 = 50;
const REMOVAL_PAUSE: Duration = Duration::from_millis(20);

/// A folder below the one for temporary files; removed on drop.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Makes it, for nobody but its owner. Removes what runs have left that were killed by SIGKILL: the folder's
    /// name tells the process.
    pub(super) fn new(owner: Option<Owner>) -> Result<Self, Failure> {
        let base = env::temp_dir();
        sweep(&base, owner);
        let path = base.join(format!("{PREFIX}{}-{}", std::process::id(), random_text()?));
        let failed = |error| Failure::File { path: path.clone(), error };
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(failed)?;
        let folder = Self(path.clone());
        if let Some(Owner { uid, gid }) = owner {
            chown(&path, Some(uid), Some(gid)).map_err(failed)?;
        }
        Ok(folder)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// A path inside.
    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file that only its owner may read.
    pub(super) fn write(&self, name: &str, text: &str, owner: Option<Owner>) -> Result<PathBuf, Failure> {
        let path = self.join(name);
        let written = write_private(&path, text, owner);
        written.map_err(|error| Failure::File { path: path.clone(), error })?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        for _ in 0..REMOVALS_MAX {
            match fs::remove_dir_all(&self.0) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => thread::sleep(REMOVAL_PAUSE),
                _ => return,
            }
        }
    }
}

fn write_private(path: &Path, text: &str, owner: Option<Owner>) -> io::Result<()> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    if let Some(Owner { uid, gid }) = owner {
        chown(path, Some(uid), Some(gid))?;
    }
    Ok(())
}

/// Removes own folders whose process is gone. Only Linux tells which processes there are in a file system.
fn sweep(base: &Path, owner: Option<Owner>) {
    if !Path::new("/proc/self").exists() {
        return;
    }
    let own = rustix::process::geteuid().as_raw();
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid =
            name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()?.parse::<u32>().ok());
        let Some(pid) = pid else { continue };
        let is_ours = fs::symlink_metadata(entry.path())
            .is_ok_and(|of| of.uid() == own || owner.is_some_and(|owner| of.uid() == owner.uid));
        if is_ours && !Path::new(&format!("/proc/{pid}")).exists() {
            // What cannot be removed is in nobody's way.
            fs::remove_dir_all(entry.path()).ok();
        }
    }
}
