//! Writes a file that is not there yet, whole or not at all, for its owner and group to read.

use std::fs;
use std::fs::OpenOptions;
use std::io;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Who may read it: it holds secrets.
const MODE: u32 = 0o640;

/// Writes `text` to `path`, after `is_good` has seen it written under another name. Missing directories are made.
///
/// # Errors
///
/// `AlreadyExists` when something is there, which is left alone; else what the system or `is_good` says.
pub(super) fn write_new(path: &Path, text: &str, is_good: impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let new = path.with_extension(format!("new-{}", std::process::id()));
    let attempt = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&new)?;
        // The mask of this process may have taken the group's part.
        file.set_permissions(fs::Permissions::from_mode(MODE))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        is_good(&new)?;
        // Unlike renaming, this replaces nothing.
        fs::hard_link(&new, path)
    };
    let written = attempt();
    // Under its own name it stays; what is left of an attempt doesn't.
    let _ = fs::remove_file(&new);
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_left_alone_and_what_is_refused_leaves_nothing() {
        let home = tempfile::tempdir().unwrap();
        let (there, other) = (home.path().join("there.toml"), home.path().join("deep/other.toml"));
        fs::write(&there, "mine").unwrap();

        let again = write_new(&there, "new", |_| Ok(())).unwrap_err();
        let refused = write_new(&other, "bad", |_| Err(io::Error::other("no"))).unwrap_err();

        assert_eq!((again.kind(), refused.kind()), (io::ErrorKind::AlreadyExists, io::ErrorKind::Other));
        assert_eq!(fs::read_to_string(&there).unwrap(), "mine");
        assert_eq!(fs::read_dir(home.path().join("deep")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 2);
    }

    #[test]
    fn owner_and_group_read_it_and_nobody_else() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("t.toml");

        write_new(&file, "text", |new| {
            (fs::read_to_string(new)? == "text").then_some(()).ok_or_else(|| io::Error::other("partial"))
        })
        .unwrap();

        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_to_string(&file).unwrap(), "text");
    }
}
