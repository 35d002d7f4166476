//! A container's volumes as directories that its guest opens. WASI opens directories only, so a mounted file is shown by a
//! directory made for it that holds a second name of the file. What a guest may do is said of a directory as a whole: a file
//! that it may only read is shown beside one that it may write by a copy that nobody can write.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use coracle_agent_core::workload::{Access, Mount, TerminationMessage};
use coracle_host::{Directory, DirectoryAccess};
use rustix::fs::{AtFlags, CWD, IFlags, ioctl_getflags, ioctl_setflags, linkat};

/// Directories for a guest, and the directory that was made for mounted files.
#[derive(Debug)]
pub(crate) struct Mounts {
    pub(crate) directories: Vec<Directory>,
    staging: Vec<PathBuf>,
}

/// Where the directories for mounted files are made: paths that are free for one container.
#[derive(Clone, Debug)]
pub(crate) struct Staging {
    /// On the disk.
    pub(crate) disk: PathBuf,
    /// On the file system in memory where what is secret is, if there is one.
    pub(crate) memory: Option<PathBuf>,
}

/// Why a volume cannot be shown.
#[derive(Debug, thiserror::Error)]
#[error("failed to mount {host_path} at {container_path}: {source}")]
pub(crate) struct MountError {
    host_path: PathBuf,
    container_path: String,
    source: io::Error,
}

impl Mounts {
    /// Prepares the mounts.
    pub(crate) fn prepare(
        mounts: &[Mount],
        termination: &TerminationMessage,
        staging: &Staging,
    ) -> Result<Self, MountError> {
        let mut prepared = Self { directories: Vec::new(), staging: Vec::new() };
        let message = termination
            .host_path
            .as_ref()
            .map(|host_path| Mount::new(host_path.clone(), termination.path.clone(), Access::ReadWrite));
        if let Some(message) = &message {
            let (parent, path) = (message.host_path.parent(), &message.host_path);
            parent
                .map_or(Ok(()), fs::create_dir_all)
                .and_then(|()| fs::OpenOptions::new().create(true).write(true).truncate(true).open(path))
                .map_err(|source| error(message, source))?;
        }
        let mut files: BTreeMap<String, Vec<&Mount>> = BTreeMap::new();
        for mount in mounts.iter().chain(&message) {
            let meta = fs::metadata(&mount.host_path).map_err(|source| error(mount, source))?;
            if meta.is_dir() {
                prepared.directories.push(Directory {
                    host_path: mount.host_path.clone(),
                    guest_path: mount.container_path.clone(),
                    access: access(mount.access),
                });
            } else {
                let (parent, _) = split(&mount.container_path);
                files.entry(parent).or_default().push(mount);
            }
        }
        for (number, (parent, mounts)) in files.into_iter().enumerate() {
            let place = place(&mounts, staging);
            if !prepared.staging.contains(place) {
                prepared.staging.push(place.clone());
            }
            prepared.stage(parent, &mounts, place.join(number.to_string()))?;
        }
        Ok(prepared)
    }

    /// Shows files of one directory. The directory can be written when one of them can.
    fn stage(&mut self, parent: String, mounts: &[&Mount], directory: PathBuf) -> Result<(), MountError> {
        let writable = mounts.iter().any(|mount| mount.access == Access::ReadWrite);
        for mount in mounts {
            let (_, name) = split(&mount.container_path);
            let target = directory.join(name);
            let own_copy = writable && mount.access == Access::ReadOnly;
            fs::create_dir_all(&directory)
                .and_then(|()| {
                    match if own_copy { Err(io::ErrorKind::Unsupported.into()) } else { link(mount, &target) } {
                        // Another file system: a copy will do for reading.
                        Err(_) if mount.access == Access::ReadOnly => fs::copy(&mount.host_path, &target).map(drop),
                        linked => linked,
                    }
                })
                .and_then(|()| if own_copy { seal(&target) } else { Ok(()) })
                .map_err(|source| error(mount, source))?;
        }
        let access = if writable { DirectoryAccess::ReadWrite } else { DirectoryAccess::ReadOnly };
        self.directories.push(Directory { host_path: directory, guest_path: parent, access });
        Ok(())
    }

    /// Removes what was made for the container.
    pub(crate) fn clean_up(&self) {
        for staging in &self.staging {
            if let Err(error) = remove_staged(staging) {
                tracing::warn!("{} cannot be removed: {error}", staging.display());
            }
        }
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        self.clean_up();
    }
}

/// Where files of one directory are shown: in memory if one of them is there, so that it never comes to the disk. One that
/// the guest may write has to be shown where it is itself.
fn place<'a>(mounts: &[&Mount], staging: &'a Staging) -> &'a PathBuf {
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev()).ok();
    let Some(memory) = &staging.memory else { return &staging.disk };
    let there = memory.parent().and_then(device);
    let is_there = |mount: &&Mount| there.is_some() && device(&mount.host_path) == there;
    let all_read = mounts.iter().all(|mount| mount.access == Access::ReadOnly || is_there(mount));
    if all_read && mounts.iter().any(is_there) { memory } else { &staging.disk }
}

/// A second name of a mounted file. The path may be the link by which the kernel shows an open file.
fn link(mount: &Mount, target: &Path) -> io::Result<()> {
    Ok(linkat(CWD, &mount.host_path, CWD, target, AtFlags::SYMLINK_FOLLOW)?)
}

/// Makes a copy that nobody can write. The mode is enough for any user but root, whom only the file's own flag stops; where
/// the file system has no such flag the guest may change its copy, and nothing else.
fn seal(path: &Path) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o444))?;
    let file = fs::File::open(path)?;
    let sealed = ioctl_getflags(&file).and_then(|flags| ioctl_setflags(&file, flags | IFlags::IMMUTABLE));
    if let Err(error) = sealed {
        tracing::debug!(%error, path = %path.display(), "a copy is not sealed");
    }
    Ok(())
}

/// Removes staged files, sealed ones too; says nothing when there are none.
pub(crate) fn remove_staged(staging: &Path) -> io::Result<()> {
    match fs::remove_dir_all(staging) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        removed => return removed,
    }
    let mut left = vec![staging.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                left.push(entry.path());
            } else if kind.is_file() {
                let file = fs::File::open(entry.path())?;
                let flags = ioctl_getflags(&file).unwrap_or(IFlags::empty());
                if flags.contains(IFlags::IMMUTABLE) {
                    ioctl_setflags(&file, flags - IFlags::IMMUTABLE)?;
                }
            }
        }
    }
    fs::remove_dir_all(staging)
}

fn error(mount: &Mount, source: io::Error) -> MountError {
    MountError { host_path: mount.host_path.clone(), container_path: mount.container_path.clone(), source }
}

fn access(access: Access) -> DirectoryAccess {
    match access {
        Access::ReadOnly => DirectoryAccess::ReadOnly,
        Access::ReadWrite => DirectoryAccess::ReadWrite,
    }
}

/// Directory and name of a path inside the container.
fn split(path: &str) -> (String, String) {
    let path = path.trim_end_matches('/');
    match path.rsplit_once('/') {
        Some(("", name)) => ("/".into(), name.into()),
        Some((parent, name)) => (parent.into(), name.into()),
        None => ("/".into(), path.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_disk(staging: &Path) -> Staging {
        Staging { disk: staging.to_owned(), memory: None }
    }

    #[test]
    fn files_in_memory_are_shown_in_memory() {
        // Another file system, where the machine has one in memory.
        let Ok(memory) = tempfile::tempdir_in("/dev/shm") else { return };
        let disk = tempfile::tempdir().unwrap();
        if fs::metadata(memory.path()).unwrap().dev() == fs::metadata(disk.path()).unwrap().dev() {
            return;
        }
        fs::write(memory.path().join("secret"), "s").unwrap();
        fs::write(disk.path().join("plain"), "p").unwrap();
        let none = TerminationMessage { path: "/m".into(), host_path: None, fallback_to_logs: false };
        let staging = Staging { disk: disk.path().join("staging"), memory: Some(memory.path().join("staging")) };
        let mount = |path: PathBuf, to: &str, access| Mount::new(path, to, access);
        let secret = |to| mount(memory.path().join("secret"), to, Access::ReadOnly);
        let plain = |to, access| mount(disk.path().join("plain"), to, access);
        let check = |mounts: &[Mount], expect: &[&Path]| {
            let prepared = Mounts::prepare(mounts, &none, &staging).unwrap();
            let shown: Vec<bool> = prepared
                .directories
                .iter()
                .zip(expect)
                .map(|(directory, root)| directory.host_path.starts_with(root))
                .collect();
            assert_eq!(shown, vec![true; expect.len()], "{mounts:?}");
            drop(prepared);
            assert!(!staging.disk.exists() && staging.memory.iter().all(|memory| !memory.exists()));
        };
        let (in_memory, on_disk) = (memory.path(), disk.path());
        check(&[secret("/etc/s"), plain("/opt/p", Access::ReadOnly)], &[in_memory, on_disk]);
        check(&[secret("/etc/s"), plain("/etc/p", Access::ReadOnly)], &[in_memory]);
        check(&[secret("/etc/s"), plain("/etc/p", Access::ReadWrite)], &[on_disk]);
    }

    #[test]
    fn directories_are_shown_as_they_are_and_files_by_a_directory_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir(root.join("volume")).unwrap();
        fs::write(root.join("config"), "a=1").unwrap();
        let mount = |host: &str, path: &str, access| Mount::new(root.join(host), path, access);
        let termination = TerminationMessage {
            path: "/dev/termination-log".into(),
            host_path: Some(root.join("message")),
            fallback_to_logs: false,
        };
        let mounts =
            [mount("volume", "/data", Access::ReadWrite), mount("config", "/etc/app/app.conf", Access::ReadOnly)];
        let staging = root.join("staging");
        let prepared = Mounts::prepare(&mounts, &termination, &on_disk(&staging)).unwrap();
        let shown: Vec<(&str, DirectoryAccess)> =
            prepared.directories.iter().map(|directory| (directory.guest_path.as_str(), directory.access)).collect();
        assert_eq!(
            shown,
            [
                ("/data", DirectoryAccess::ReadWrite),
                ("/dev", DirectoryAccess::ReadWrite),
                ("/etc/app", DirectoryAccess::ReadOnly)
            ]
        );
        assert_eq!(fs::read_to_string(prepared.directories[2].host_path.join("app.conf")).unwrap(), "a=1");
        fs::write(prepared.directories[1].host_path.join("termination-log"), "bye").unwrap();
        assert_eq!(fs::read_to_string(root.join("message")).unwrap(), "bye");
        drop(prepared);
        assert!(!staging.exists());
    }

    #[test]
    fn a_file_that_may_only_be_read_is_safe_beside_one_that_may_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::write(root.join("secret"), "the host's").unwrap();
        let termination = TerminationMessage {
            path: "/dev/message".into(),
            host_path: Some(root.join("message")),
            fallback_to_logs: false,
        };
        let secret = Mount::new(root.join("secret"), "/dev/secret", Access::ReadOnly);
        let staging = root.join("staging");
        let prepared = Mounts::prepare(&[secret], &termination, &on_disk(&staging)).unwrap();
        assert_eq!(prepared.directories.len(), 1);
        let shown = prepared.directories[0].host_path.clone();
        assert_eq!(fs::read_to_string(shown.join("secret")).unwrap(), "the host's");
        // Where the file system can seal a file this fails for root too; the host's file is untouched in any case.
        let probe = root.join("probe");
        fs::write(&probe, "").unwrap();
        seal(&probe).unwrap();
        if fs::write(&probe, "x").is_err() {
            assert!(fs::write(shown.join("secret"), "changed").is_err());
            assert!(fs::rename(shown.join("secret"), shown.join("other")).is_err());
        } else {
            fs::write(shown.join("secret"), "changed").unwrap();
        }
        assert_eq!(fs::read_to_string(root.join("secret")).unwrap(), "the host's");
        fs::write(shown.join("message"), "bye").unwrap();
        assert_eq!(fs::read_to_string(root.join("message")).unwrap(), "bye");
        drop(prepared);
        assert!(!staging.exists());
        let probes = root.join("probes");
        fs::create_dir(&probes).unwrap();
        fs::write(probes.join("x"), "").unwrap();
        seal(&probes.join("x")).unwrap();
        remove_staged(&probes).unwrap();
        remove_staged(&probes).unwrap();
        let file = fs::File::open(&probe).unwrap();
        if let Ok(flags) = ioctl_getflags(&file) {
            let _ = ioctl_setflags(&file, flags - IFlags::IMMUTABLE);
        }
    }

    #[test]
    fn a_file_that_is_given_by_a_descriptor_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::write(root.join("config"), "a=1").unwrap();
        let held = fs::File::open(root.join("config")).unwrap();
        let path = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&held));
        let none = TerminationMessage { path: String::new(), host_path: None, fallback_to_logs: false };
        for access in [Access::ReadOnly, Access::ReadWrite] {
            let mount = Mount::new(&path, "/etc/app.conf", access);
            let prepared = Mounts::prepare(&[mount], &none, &on_disk(&root.join("staging"))).unwrap();
            assert_eq!(fs::read_to_string(prepared.directories[0].host_path.join("app.conf")).unwrap(), "a=1");
        }
    }

    #[test]
    fn a_missing_volume_is_named() {
        let mount = Mount::new("/nowhere", "/data", Access::ReadOnly);
        let none = TerminationMessage { path: String::new(), host_path: None, fallback_to_logs: false };
        let error = Mounts::prepare(&[mount], &none, &on_disk(Path::new("/unused"))).unwrap_err().to_string();
        assert!(error.starts_with("failed to mount /nowhere at /data: "), "{error}");
    }
}
