//! Parts of volumes. Containers may put links into their volumes; none of them may lead a mount out of its volume, so what
//! is found is compared with the volume's real place, and what is made is made step by step without following links.

use std::{
    ffi::OsStr,
    fs, io,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Component, Path, PathBuf},
};

use rustix::fs::{AtFlags, Mode, OFlags, chmodat, mkdirat, open, openat};

/// Finds a part of a volume, or makes a directory there with the mode of the volume itself.
pub(super) fn find_or_make(base: &Path, path: &str) -> io::Result<PathBuf> {
    let base = fs::canonicalize(base)?;
    let outside =
        || io::Error::new(io::ErrorKind::PermissionDenied, format!("subpath {path:?} not within volume path"));
    if Path::new(path).components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(outside());
    }
    let wanted = base.join(path);
    match fs::canonicalize(&wanted) {
        Ok(found) if found.starts_with(&base) => return Ok(found),
        Ok(_) => return Err(outside()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // The deepest part that is there; the rest is made below it.
    let mut there = wanted.as_path();
    let mut rest = Vec::new();
    let found = loop {
        let (Some(parent), Some(name)) = (there.parent(), there.file_name()) else { return Err(outside()) };
        rest.push(name.to_owned());
        there = parent;
        match fs::canonicalize(there) {
            Ok(found) => break found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    };
    if !found.starts_with(&base) {
        return Err(outside());
    }
    let mode = Mode::from_raw_mode(fs::metadata(&base)?.mode() & 0o777);
    let mut made = found.clone();
    let mut directory = open(&found, FLAGS, Mode::empty())?;
    for name in rest.iter().rev() {
        directory = make(&directory, name, mode)?;
        made.push(name);
    }
    Ok(made)
}

/// Directories only, and no link as the last part.
const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn make(parent: &OwnedFd, name: &OsStr, mode: Mode) -> io::Result<OwnedFd> {
    match mkdirat(parent, name, mode) {
        // The mode was narrowed by the process' mask; it is that of the volume.
        Ok(()) => chmodat(parent, name, mode, AtFlags::empty())?,
        Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(openat(parent, name, FLAGS, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn no_link_leads_out_of_a_volume() {
        let temp = tempfile::tempdir().unwrap();
        let (base, outside) = (temp.path().join("v"), temp.path().join("secret"));
        fs::create_dir_all(base.join("here")).unwrap();
        fs::create_dir_all(&outside).unwrap();
        fs::set_permissions(&base, fs::Permissions::from_mode(0o777)).unwrap();
        fs::write(base.join("file"), "x").unwrap();
        symlink("../secret", base.join("out")).unwrap();
        symlink("here", base.join("in")).unwrap();
        symlink("nowhere", base.join("dangling")).unwrap();
        let real = fs::canonicalize(&base).unwrap();
        let check = |path: &str, expect: Option<&str>| {
            let found = find_or_make(&base, path);
            assert_eq!(found.ok(), expect.map(|expect| real.join(expect)), "{path}");
        };
        check("here", Some("here"));
        check("file", Some("file"));
        check("in", Some("here"));
        check("new/deep", Some("new/deep"));
        check("in/deep", Some("here/deep"));
        check("out", None);
        check("out/deep", None);
        check("dangling", None);
        check("dangling/deep", None);
        check("../secret", None);
        assert!(fs::read_dir(&outside).unwrap().next().is_none());
        assert_eq!(fs::metadata(base.join("new/deep")).unwrap().permissions().mode() & 0o777, 0o777);
    }
}
