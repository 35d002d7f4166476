//! Files of the node's data that are nobody else's business: pods' volumes with Secrets and tokens, their logs, the records
//! with whole objects. They are closed to other users also when the data directory was made by somebody and is open to all.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

/// What is left to others: nothing.
const OTHERS: u32 = 0o077;

/// Makes a directory that its owner alone can enter, or closes the one that is there.
pub(crate) fn directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    close(path)
}

/// Makes an empty file that its owner alone can read, or closes the one that is there.
pub(crate) fn file(path: &Path) -> io::Result<()> {
    fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    close(path)
}

fn close(path: &Path) -> io::Result<()> {
    let mode = fs::metadata(path)?.mode() & 0o7777;
    if mode & OTHERS == 0 {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode & !OTHERS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_open_is_closed_and_what_is_new_is_never_open() {
        let temp = tempfile::tempdir().unwrap();
        let mode = |name: &str| fs::metadata(temp.path().join(name)).unwrap().mode() & 0o777;
        fs::create_dir(temp.path().join("old")).unwrap();
        fs::set_permissions(temp.path().join("old"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(temp.path().join("db"), "kept").unwrap();
        fs::set_permissions(temp.path().join("db"), fs::Permissions::from_mode(0o644)).unwrap();
        for name in ["old", "new"] {
            directory(&temp.path().join(name)).unwrap();
            assert_eq!(mode(name), 0o700, "{name}");
        }
        for name in ["db", "other"] {
            file(&temp.path().join(name)).unwrap();
            assert_eq!(mode(name), 0o600, "{name}");
        }
        assert_eq!(fs::read_to_string(temp.path().join("db")).unwrap(), "kept");
    }
}
