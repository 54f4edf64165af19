//! A unix socket that belongs to its owner alone from the moment it has a name, and whose name goes when it does.

use std::fs;
use std::fs::File;
use std::fs::Permissions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

use socket2::Domain;
use socket2::SockAddr;
use socket2::Socket;
use socket2::Type;
use tokio::net::UnixListener;
use tokio::net::UnixStream;

/// Who may connect.
const MODE: u32 = 0o600;
/// Connections that the kernel holds for us.
const BACKLOG: i32 = 16;

/// Why there is no such socket, and the cure.
#[derive(Debug, thiserror::Error)]
pub enum UnixError {
    /// Another process answers there.
    #[error("control.socket: {}: another server answers there: stop it or choose another path", .0.display())]
    Answered(PathBuf),
    /// Something else has the name.
    #[error("control.socket: {}: is there already and is no socket: remove it or choose another path", .0.display())]
    NoSocket(PathBuf),
    /// The system refuses.
    #[error(
        "control.socket: {}: {error}; give a path of at most 107 bytes in a directory that this process may write to",
        path.display()
    )]
    System {
        /// Where.
        path: PathBuf,
        /// What it says.
        error: io::Error,
    },
}

/// A listening socket with a name. The name is removed when this is dropped, if it still leads here.
#[derive(Debug)]
pub struct Listener {
    io: UnixListener,
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl Listener {
    /// Listens at `path`. A socket that is there already and that nobody answers at is replaced.
    ///
    /// # Errors
    ///
    /// [`UnixError`].
    pub fn bind(path: &Path) -> Result<Self, UnixError> {
        let failed = |error| UnixError::System { path: path.to_owned(), error };
        let socket = match listen(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                remove_stale(path)?;
                listen(path).map_err(failed)?
            }
            listening => listening.map_err(failed)?,
        };
        let about = fs::symlink_metadata(path).map_err(failed)?;
        let io = UnixListener::from_std(socket.into()).map_err(failed)?;
        Ok(Self { io, path: path.to_owned(), identity: (about.dev(), about.ino()) })
    }

    /// The next connection.
    ///
    /// # Errors
    ///
    /// The system's, for lack of descriptors or memory.
    pub async fn accept(&self) -> io::Result<UnixStream> {
        self.io.accept().await.map(|(stream, _)| stream)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Another process may have put its own there meanwhile, or somebody removed it.
        let is_ours = fs::symlink_metadata(&self.path).is_ok_and(|about| (about.dev(), about.ino()) == self.identity);
        if is_ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn listen(path: &Path) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // On Linux the name gets the mode that the socket has when it is bound: nobody can be quicker.
    let file = File::from(OwnedFd::from(socket));
    file.set_permissions(Permissions::from_mode(MODE))?;
    let socket = Socket::from(OwnedFd::from(file));
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Removes a socket that a process left behind, if none does so at the same time.
fn remove_stale(path: &Path) -> Result<(), UnixError> {
    let removed = fs::symlink_metadata(path).and_then(|about| {
        if !about.file_type().is_socket() {
            return Ok(Err(UnixError::NoSocket(path.to_owned())));
        }
        match knock(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map(Ok),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Ok(())),
            // One whose queue is full, or that lets us not in, lives.
            Ok(()) | Err(_) => Ok(Err(UnixError::Answered(path.to_owned()))),
        }
    });
    match removed {
        Ok(removed) => removed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(UnixError::System { path: path.to_owned(), error }),
    }
}

/// Whether somebody answers, without waiting for that.
fn knock(path: &Path) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_its_owners_alone_and_gone_when_it_is_dropped() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("control.sock");

        let listener = Listener::bind(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        drop(listener);

        assert_eq!(mode, 0o600);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn one_that_lives_but_has_no_place_left_is_not_waited_for_and_stays() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("control.sock");
        let _busy = Listener::bind(&path).unwrap();

        // Nobody accepts: each leaves another one in its queue.
        for _ in 0..BACKLOG * 2 {
            let second = Listener::bind(&path).unwrap_err();
            assert!(matches!(second, UnixError::Answered(_)), "{second}");
        }
    }

    #[tokio::test]
    async fn only_a_socket_that_nobody_answers_at_is_replaced() {
        let home = tempfile::tempdir().unwrap();
        let (path, text) = (home.path().join("control.sock"), home.path().join("text"));
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        fs::write(&text, "mine").unwrap();

        let replaced = Listener::bind(&path).unwrap();
        let second = Listener::bind(&path).unwrap_err();
        let no_socket = Listener::bind(&text).unwrap_err();

        assert!(matches!(second, UnixError::Answered(_)), "{second}");
        assert!(matches!(no_socket, UnixError::NoSocket(_)), "{no_socket}");
        drop(replaced);
        assert_eq!(fs::read_to_string(&text).unwrap(), "mine");
    }

    #[tokio::test]
    async fn a_name_that_leads_elsewhere_by_the_end_is_left() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("control.sock");
        let first = Listener::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let _second = Listener::bind(&path).unwrap();

        drop(first);

        assert!(path.exists());
    }

    #[tokio::test]
    async fn a_path_that_is_too_long_or_nowhere_is_refused_in_words() {
        let home = tempfile::tempdir().unwrap();

        for path in [home.path().join("x".repeat(120)), home.path().join("nowhere/control.sock")] {
            let refused = Listener::bind(&path).unwrap_err().to_string();

            assert!(refused.starts_with("control.socket: ") && refused.contains("107 bytes"), "{refused}");
        }
    }
}
