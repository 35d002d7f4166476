//! One file system in memory for the files that come from the API: what is secret never touches the disk, and a new pod
//! costs the disk no inodes. One mount serves all pods. It is made when the agent starts, found again when an agent was
//! killed, and gone with the machine: the files are made anew from the API, or from the agent's records.

use std::{
    ffi::CString,
    fs, io,
    path::{Path, PathBuf},
};

use rustix::{
    fs::statfs,
    io::Errno,
    mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount},
};

use super::empty_dir::is_mounted;

/// `TMPFS_MAGIC` of `linux/magic.h`.
const TMPFS: i64 = 0x0102_1994;
/// The part of the machine's memory that files may fill; they take only what they hold. A full one would hold up new pods,
/// a large one lets their files push out the pods themselves.
const PART_OF_MEMORY: u64 = 8;
/// Room for a few hundred volumes on the smallest machine.
const LEAST_BYTES: u64 = 32 << 20;

/// Where files from the API are.
#[derive(Clone, Debug)]
pub(crate) enum Generated {
    /// In memory.
    Memory(PathBuf),
    /// In the pods' directories: this process may not mount.
    Disk,
}

impl Generated {
    /// Mounts a file system at `dir`, or finds the one of an earlier life there.
    pub(crate) fn open(dir: &Path, memory_bytes: u64) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        if is_mounted(dir)? && is_memory(dir)? {
            return Ok(Self::Memory(dir.to_owned()));
        }
        let size = (memory_bytes / PART_OF_MEMORY).max(LEAST_BYTES);
        // Nobody but the pods makes files here, and only the agent does it for them: inodes need no bound of their own.
        let data = CString::new(format!("mode=0750,size={size},nr_inodes=0")).map_err(io::Error::other)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        match mount("tmpfs", dir, "tmpfs", flags, Some(data.as_c_str())) {
            Ok(()) => {
                // Other namespaces of the machine have no business with it.
                mount_change(dir, MountPropagationFlags::PRIVATE)?;
                Ok(Self::Memory(dir.to_owned()))
            }
            Err(Errno::PERM | Errno::ACCESS | Errno::NODEV) => {
                tracing::debug!(dir = %dir.display(), "files of pods are kept on disk: no privilege to mount");
                Ok(Self::Disk)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The directory of a pod's volume.
    pub(super) fn volume(&self, pods_dir: &Path, uid: &str, volume: &str) -> PathBuf {
        match self {
            Self::Memory(root) => root.join(uid).join(volume),
            Self::Disk => pods_dir.join(uid).join("volumes").join(volume),
        }
    }

    /// The directory in memory of a pod, if there is one.
    pub(super) fn pod(&self, uid: &str) -> Option<PathBuf> {
        self.root().map(|root| root.join(uid))
    }

    /// Where the file system is mounted.
    pub(crate) fn root(&self) -> Option<&Path> {
        match self {
            Self::Memory(root) => Some(root),
            Self::Disk => None,
        }
    }

    /// Takes the file system down: nothing runs any more that reads it.
    pub(crate) fn close(&self) {
        if let Some(root) = self.root()
            && let Err(error) = unmount(root, UnmountFlags::DETACH)
        {
            tracing::warn!(%error, dir = %root.display(), "the files of pods in memory cannot be taken down");
        }
    }
}

fn is_memory(dir: &Path) -> io::Result<bool> {
    Ok(i128::from(statfs(dir)?.f_type) == i128::from(TMPFS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_mounted_once_found_again_and_taken_down() {
        let temp = tempfile::tempdir().unwrap();
        let (dir, pods) = (temp.path().join("memory"), temp.path().join("pods"));
        let first = Generated::open(&dir, 1 << 30).unwrap();
        let Generated::Memory(root) = &first else {
            // Without the privilege the files are where the others are.
            assert_eq!(first.volume(&pods, "u", "v"), pods.join("u/volumes/v"));
            return;
        };
        assert!(is_mounted(root).unwrap());
        assert_eq!(first.volume(&pods, "u", "v"), dir.join("u/v"));
        fs::create_dir_all(first.volume(&pods, "u", "v")).unwrap();
        let again = Generated::open(&dir, 1 << 30).unwrap();
        assert!(again.volume(&pods, "u", "v").is_dir(), "what an earlier life left is there");
        assert!(fs::write(root.join("big"), vec![1; (128 << 20) + 1]).is_err(), "an eighth of the memory");
        again.close();
        assert!(!is_mounted(&dir).unwrap());
        assert!(!first.volume(&pods, "u", "v").exists());
    }
}
