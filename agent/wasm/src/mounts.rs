//! A container's volumes as directories that its guest opens. WASI opens directories only, so a mounted file is shown by a
//! directory made for it that holds a second name of the file.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use coracle_agent_core::workload::{Access, Mount, TerminationMessage};
use coracle_host::{Directory, DirectoryAccess};

/// Directories for a guest, and the directory that was made for mounted files.
#[derive(Debug)]
pub(crate) struct Mounts {
    pub(crate) directories: Vec<Directory>,
    staging: Option<PathBuf>,
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
    /// Prepares the mounts; `staging` is a path that is free for this container.
    pub(crate) fn prepare(
        mounts: &[Mount],
        termination: &TerminationMessage,
        staging: &Path,
    ) -> Result<Self, MountError> {
        let mut prepared = Self { directories: Vec::new(), staging: None };
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
            prepared.staging = Some(staging.to_owned());
            prepared.stage(parent, &mounts, staging.join(number.to_string()))?;
        }
        Ok(prepared)
    }

    /// Shows files of one directory. The directory can be written when one of them can.
    fn stage(&mut self, parent: String, mounts: &[&Mount], directory: PathBuf) -> Result<(), MountError> {
        for mount in mounts {
            let (_, name) = split(&mount.container_path);
            let target = directory.join(name);
            fs::create_dir_all(&directory)
                .and_then(|()| match fs::hard_link(&mount.host_path, &target) {
                    // Another file system: a copy will do for reading.
                    Err(_) if mount.access == Access::ReadOnly => fs::copy(&mount.host_path, &target).map(|_| ()),
                    linked => linked,
                })
                .map_err(|source| error(mount, source))?;
        }
        let writable = mounts.iter().any(|mount| mount.access == Access::ReadWrite);
        let access = if writable { DirectoryAccess::ReadWrite } else { DirectoryAccess::ReadOnly };
        self.directories.push(Directory { host_path: directory, guest_path: parent, access });
        Ok(())
    }

    /// Removes what was made for the container.
    pub(crate) fn clean_up(&self) {
        if let Some(staging) = &self.staging
            && let Err(error) = fs::remove_dir_all(staging)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!("{} cannot be removed: {error}", staging.display());
        }
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        self.clean_up();
    }
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
        let prepared = Mounts::prepare(&mounts, &termination, &staging).unwrap();
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
    fn a_missing_volume_is_named() {
        let mount = Mount::new("/nowhere", "/data", Access::ReadOnly);
        let none = TerminationMessage { path: String::new(), host_path: None, fallback_to_logs: false };
        let error = Mounts::prepare(&[mount], &none, Path::new("/unused")).unwrap_err().to_string();
        assert!(error.starts_with("failed to mount /nowhere at /data: "), "{error}");
    }
}
