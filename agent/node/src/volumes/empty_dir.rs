//! `emptyDir`: a directory on disk or in memory, open to every user since containers of a pod may run as different ones,
//! and how much one holds.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use coracle_agent_core::workload::DiskUse;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// Where a directory's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Medium {
    Disk,
    /// A tmpfs of at most so many bytes; `None` is the kernel's default, half of the memory.
    Memory(Option<u64>),
}

/// Makes the directory. Safe to repeat: what is in it stays.
pub(super) fn make(dir: &Path, medium: Medium, group: Option<u32>) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
    if let Medium::Memory(limit) = medium
        && !is_mounted(dir)?
    {
        let size = limit.map_or_else(String::new, |bytes| format!(",size={bytes}"));
        let data = std::ffi::CString::new(format!("mode=0777{size}")).map_err(io::Error::other)?;
        match mount("tmpfs", dir, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(data.as_c_str())) {
            Ok(()) => {}
            // Without privileges it is on disk like the others, and bounded by measuring.
            Err(rustix::io::Errno::PERM) => {
                tracing::debug!(dir = %dir.display(), "an emptyDir in memory is kept on disk: no privilege to mount");
            }
            Err(error) => return Err(error.into()),
        }
    }
    own(dir, group)?;
    let set_gid = if group.is_some() { 0o2000 } else { 0 };
    fs::set_permissions(dir, fs::Permissions::from_mode(0o777 | set_gid))
}

/// Gives a file or directory to a pod's `fsGroup`. Without the privilege it stays as it is: there, all containers of the
/// node run as this user.
pub(super) fn own(path: &Path, group: Option<u32>) -> io::Result<()> {
    match group.map(|group| chown(path, None, Some(group))) {
        Some(Err(error)) if error.kind() != io::ErrorKind::PermissionDenied => Err(error),
        _ => Ok(()),
    }
}

/// Takes down what was mounted under a pod's `volumes` directory.
pub(super) fn unmount_all(volumes: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(volumes) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if is_mounted(&path)? {
            unmount(&path, UnmountFlags::DETACH)?;
        }
    }
    Ok(())
}

/// Bytes on disk below a path.
pub(crate) fn used_bytes(path: &Path) -> u64 {
    usage(path).bytes
}

/// What is below a path, itself too. What goes away meanwhile counts as nothing; links are not followed.
pub(crate) fn usage(path: &Path) -> DiskUse {
    let mut total = DiskUse::default();
    let mut left: Vec<PathBuf> = vec![path.to_owned()];
    while let Some(path) = left.pop() {
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        total += DiskUse { bytes: meta.blocks() * 512, inodes: 1 };
        if meta.is_dir() {
            left.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
    }
    total
}

/// Whether another file system begins here.
pub(super) fn is_mounted(path: &Path) -> io::Result<bool> {
    let Some(parent) = path.parent() else { return Ok(false) };
    Ok(fs::symlink_metadata(path)?.dev() != fs::metadata(parent)?.dev())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_open_keeps_what_it_has_and_is_measured() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("volumes/v");
        make(&dir, Medium::Disk, None).unwrap();
        fs::create_dir(dir.join("sub")).unwrap();
        fs::write(dir.join("sub/data"), vec![1; 100_000]).unwrap();
        std::os::unix::fs::symlink("/usr", dir.join("link")).unwrap();
        make(&dir, Medium::Disk, None).unwrap();
        assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o7777, 0o777);
        let used = used_bytes(&dir);
        assert!((100_000..200_000).contains(&used), "{used}");
        assert_eq!(used_bytes(&temp.path().join("none")), 0);
    }

    #[test]
    fn the_group_of_a_pod_owns_its_directories() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("v");
        // The group this process has is one it may give.
        let group = fs::metadata(temp.path()).unwrap().gid();
        make(&dir, Medium::Disk, Some(group)).unwrap();
        let meta = fs::metadata(&dir).unwrap();
        assert_eq!((meta.gid(), meta.permissions().mode() & 0o7777), (group, 0o2777));
    }

    #[test]
    fn memory_is_bounded_where_it_can_be_mounted_and_taken_down() {
        let temp = tempfile::tempdir().unwrap();
        let volumes = temp.path().join("volumes");
        let dir = volumes.join("v");
        make(&dir, Medium::Memory(Some(1 << 20)), None).unwrap();
        fs::write(dir.join("kept"), "x").unwrap();
        make(&dir, Medium::Memory(Some(1 << 20)), None).unwrap();
        assert_eq!(fs::read_to_string(dir.join("kept")).unwrap(), "x", "a second time mounts nothing over it");
        if is_mounted(&dir).unwrap() {
            assert!(fs::write(dir.join("big"), vec![0; 2 << 20]).is_err(), "the limit is the kernel's");
        }
        unmount_all(&volumes).unwrap();
        assert!(!is_mounted(&dir).unwrap());
        fs::remove_dir_all(&volumes).unwrap();
    }
}
