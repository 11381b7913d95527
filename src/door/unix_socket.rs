//! The Unix socket for clients, `.s.PGSQL.PORT` as PostgreSQL names it.
//!
//! A file that is left from a process which has ended is replaced; one behind which somebody answers is not. While
//! that is found out, the directory is locked, so that of two processes that start at once only one wins.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::fs::{FlockOperation, Mode, OFlags};
use socket2::{Domain, SockAddr, Type};
use tokio::net::UnixListener;

/// Connections that wait to be accepted; the system's own bound (`net.core.somaxconn`) may be lower.
const BACKLOG: i32 = 4096;

/// Whoever else starts up in this directory is done sooner.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// The file of a socket that listens here; removed when this is dropped, unless it has become somebody else's.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    id: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if file_id(&self.path).is_ok_and(|id| id == self.id) {
            // Nobody is left who could be told.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The path of the socket.
pub fn path(dir: &Path, port: u16) -> PathBuf {
    dir.join(format!(".s.PGSQL.{port}"))
}

/// Listens on a socket at `path` with these permissions.
pub fn listen(path: &Path, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let _lock = lock(dir)?;
    remove_stale(path)?;
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile { path: path.to_owned(), id: file_id(path)? };
    // Nobody can connect before it listens, whatever the umask has made of the permissions.
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    socket.set_nonblocking(true)?;
    socket.listen(BACKLOG)?;
    Ok((UnixListener::from_std(socket.into())?, file))
}

/// Locks the directory until the result is dropped.
fn lock(dir: &Path) -> io::Result<impl Sized> {
    let opened = rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let deadline = Instant::now() + LOCK_TIMEOUT;
    loop {
        match rustix::fs::flock(&opened, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(opened),
            // At the start of the program nothing else is to be done meanwhile.
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Removes the file of a socket that nobody listens on any more.
fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(file) if !file.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
        }
        Ok(_) => {}
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        // Whatever else happens (no right to connect, a full backlog), somebody may be there.
        Ok(_) | Err(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there")),
    }
}

fn file_id(path: &Path) -> io::Result<(u64, u64)> {
    let file = fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn replaces_what_is_stale_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = path(folder.path(), 6432);
        // Left behind: bound, and closed without being removed.
        drop(std::os::unix::net::UnixListener::bind(&path).expect("a new socket"));
        let (listener, file) = listen(&path, 0o600).expect("nobody listens there");
        let mode = fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let taken = listen(&path, 0o600).expect_err("somebody listens there");
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        assert!(std::os::unix::net::UnixStream::connect(&path).is_ok(), "it still listens");
        drop((listener, file));
        assert!(!path.exists());
        fs::write(&path, "precious").expect("a writable folder");
        assert!(listen(&path, 0o600).is_err());
        assert_eq!(fs::read_to_string(&path).expect("it is still there"), "precious");
    }

    #[tokio::test]
    async fn a_file_that_became_somebody_elses_stays() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = path(folder.path(), 6432);
        let (listener, file) = listen(&path, 0o777).expect("a new socket");
        fs::remove_file(&path).expect("it is there");
        fs::write(&path, "another").expect("a writable folder");
        drop((listener, file));
        assert!(path.exists());
    }
}
