//! Parts of volumes. Containers may put links into their volumes and change them at any moment; none of them may lead a mount
//! out of its volume. So a part is looked up once, and from then on it is the open descriptor that counts, never a name: what
//! a container does to the name later changes nothing (CVE-2017-1002101, CVE-2021-25741).

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::{DirBuilderExt, MetadataExt},
    },
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use coracle_agent_core::{PodUid, workload::ContainerKey};
use parking_lot::Mutex;
use rustix::{
    fs::{AtFlags, Mode, OFlags, ResolveFlags, chmodat, mkdirat, open, openat, openat2},
    mount::{UnmountFlags, mount_bind, unmount},
};

/// Lookups of one part, each of which a container has upset by changing the volume meanwhile.
const MAX_LOOKUPS: usize = 8;

/// Where parts are shown to runtimes in other processes, in a pod's directory.
const BOUND: &str = "volume-subpaths";

/// The parts of one pod's containers, by name.
type OfPod = HashMap<Arc<str>, Vec<OwnedFd>>;

/// The parts that containers hold, by pod and container. A new run's replace those of the run before.
#[derive(Clone, Default)]
pub(super) struct Held {
    parts: Arc<Mutex<HashMap<PodUid, OfPod>>>,
}

impl Held {
    /// Keeps a container's parts open, and gives paths by which this process reaches them and nothing else.
    pub(super) fn keep(&self, key: &ContainerKey, parts: Vec<OwnedFd>) -> Vec<PathBuf> {
        let paths = parts.iter().map(|part| descriptors().join(part.as_raw_fd().to_string())).collect();
        self.parts.lock().entry(key.pod.clone()).or_default().insert(key.name.clone(), parts);
        paths
    }

    /// Lets go of a pod's parts.
    pub(super) fn drop_pod(&self, uid: &str) {
        self.parts.lock().retain(|pod, _| pod.as_str() != uid);
    }
}

/// Where this process' descriptors are seen, by itself and by others.
fn descriptors() -> PathBuf {
    PathBuf::from(format!("/proc/{}/fd", std::process::id()))
}

/// Gives a container's parts names that another process may use: a runtime would resolve the descriptor's link to the
/// part's name, and look that up again. A bind mount is the part itself.
pub(crate) fn bind<'a>(
    pods_dir: &Path,
    key: &ContainerKey,
    paths: impl Iterator<Item = &'a mut PathBuf>,
) -> io::Result<()> {
    let ours = descriptors();
    for (number, path) in paths.enumerate().filter(|(_, path)| path.parent() == Some(ours.as_path())) {
        let directory = pods_dir.join(key.pod.as_str()).join(BOUND).join(&*key.name);
        fs::DirBuilder::new().recursive(true).mode(0o750).create(&directory)?;
        let target = directory.join(number.to_string());
        take_down(&target)?;
        if fs::metadata(&*path)?.is_dir() {
            fs::create_dir(&target)?;
        } else {
            fs::File::create_new(&target)?;
        }
        mount_bind(path.as_path(), &target)?;
        *path = target;
    }
    Ok(())
}

/// Takes down what was bound for a pod's containers.
pub(super) fn unbind(pod_dir: &Path) -> io::Result<()> {
    for container in entries(&pod_dir.join(BOUND))? {
        for target in entries(&container)? {
            take_down(&target)?;
        }
    }
    Ok(())
}

fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.map(|entry| Ok(entry?.path())).collect(),
    }
}

/// Unmounts whatever is there, and removes the place.
fn take_down(target: &Path) -> io::Result<()> {
    loop {
        match unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            // Nothing is mounted there any more.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    if fs::symlink_metadata(target)?.is_dir() { fs::remove_dir(target) } else { fs::remove_file(target) }
}

/// Finds a part of a volume, or makes a directory there with the mode of the volume itself.
pub(super) fn find_or_make(base: &Path, path: &str) -> io::Result<OwnedFd> {
    let parts = || Path::new(path).components();
    if parts().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(outside(path));
    }
    let base = open(base, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut last = outside(path);
    for _ in 0..MAX_LOOKUPS {
        match look_up(&base, path) {
            Ok(found) => return Ok(found),
            // A link has come, or a name has gone, between two steps.
            Err(error) if upset(&error) => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

fn outside(path: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, format!("subpath {path:?} not within volume path"))
}

fn upset(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let upset = [Errno::LOOP, Errno::NOENT, Errno::NOTDIR, Errno::AGAIN, Errno::XDEV];
    error.raw_os_error().is_some_and(|code| upset.iter().any(|errno| errno.raw_os_error() == code))
}

fn look_up(base: &OwnedFd, path: &str) -> io::Result<OwnedFd> {
    let real = fs::read_link(descriptors().join(base.as_raw_fd().to_string()))?;
    let wanted = real.join(path);
    // Links are followed by name here, so that those within the volume work, and not at all below: the answer is a wish.
    let mut there = wanted.as_path();
    let mut rest = Vec::new();
    let found = loop {
        match fs::canonicalize(there) {
            Ok(found) => break found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let (Some(parent), Some(name)) = (there.parent(), there.file_name()) else { return Err(outside(path)) };
        rest.push(name.to_owned());
        there = parent;
    };
    let within = found.strip_prefix(&real).map_err(|_| outside(path))?;
    if rest.is_empty() {
        return beneath(base, within, OFlags::PATH);
    }
    let mode = Mode::from_raw_mode(fs::metadata(&real)?.mode() & 0o777);
    let mut directory = beneath(base, within, OFlags::RDONLY | OFlags::DIRECTORY)?;
    for name in rest.iter().rev() {
        directory = make(&directory, name, mode)?;
    }
    Ok(directory)
}

/// Opens a path without links below a directory.
fn beneath(base: &OwnedFd, within: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let within = if within.as_os_str().is_empty() { Path::new(".") } else { within };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    Ok(openat2(base, within, flags | OFlags::CLOEXEC, Mode::empty(), resolve)?)
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
    use std::{
        os::unix::fs::{PermissionsExt, symlink},
        sync::atomic::{AtomicBool, Ordering},
    };

    use super::*;

    /// Where a descriptor's file is now.
    fn place(part: &OwnedFd) -> PathBuf {
        fs::read_link(descriptors().join(part.as_raw_fd().to_string())).unwrap()
    }

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
            let found = find_or_make(&base, path).ok().map(|part| place(&part));
            assert_eq!(found, expect.map(|expect| real.join(expect)), "{path}");
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

    /// A container that swaps a directory for a link to the host, again and again, gets the directory or nothing: not when it
    /// is looked up, and not when it is used later.
    #[test]
    fn a_link_that_comes_and_goes_leads_nowhere() {
        let temp = tempfile::tempdir().unwrap();
        let (base, outside) = (temp.path().join("v"), temp.path().join("host"));
        fs::create_dir_all(base.join("d")).unwrap();
        fs::create_dir_all(&outside).unwrap();
        fs::write(base.join("d/whose"), "mine").unwrap();
        fs::write(outside.join("whose"), "the host's").unwrap();
        let (stop, held) = (AtomicBool::new(false), Held::default());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // What is looked up is made where it is missing, so that any of these may fail.
                while !stop.load(Ordering::Relaxed) {
                    let _ = fs::rename(base.join("d"), base.join("e"));
                    let _ = symlink("../host", base.join("d"));
                    let _ = fs::remove_file(base.join("d"));
                    let _ = fs::rename(base.join("e"), base.join("d"));
                }
            });
            let key = ContainerKey { pod: PodUid::new("u"), name: "c".into(), attempt: 0 };
            for _ in 0..3000 {
                let Ok(part) = find_or_make(&base, "d") else { continue };
                let path = held.keep(&key, vec![part]).remove(0);
                let whose = fs::read_to_string(path.join("whose")).unwrap_or_default();
                assert_ne!(whose, "the host's");
            }
            stop.store(true, Ordering::Relaxed);
        });
        held.drop_pod("u");
        assert!(held.parts.lock().is_empty());
    }

    #[test]
    fn other_processes_get_a_mount_that_goes_with_the_pod() {
        let temp = tempfile::tempdir().unwrap();
        let (base, pods, held) = (temp.path().join("v"), temp.path().join("pods"), Held::default());
        fs::create_dir_all(base.join("d")).unwrap();
        fs::write(base.join("d/a"), "1").unwrap();
        let key = ContainerKey { pod: PodUid::new("u"), name: "c".into(), attempt: 0 };
        let found = ["d", "d/a"].map(|path| find_or_make(&base, path).unwrap());
        let mut shown = held.keep(&key, found.into());
        match bind(&pods, &key, shown.iter_mut()) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !rustix::process::geteuid().is_root() => {
                return;
            }
            bound => bound.expect("this needs the right to mount: run the tests as root"),
        }
        // The name leads elsewhere from now on; what was bound stays what it was.
        fs::rename(base.join("d"), base.join("e")).unwrap();
        assert!(shown.iter().all(|path| path.starts_with(pods.join("u").join(BOUND))), "{shown:?}");
        assert_eq!(fs::read_to_string(shown[0].join("a")).unwrap(), "1");
        assert_eq!(fs::read_to_string(&shown[1]).unwrap(), "1");
        unbind(&pods.join("u")).unwrap();
        assert!(entries(&pods.join("u").join(BOUND).join("c")).unwrap().is_empty());
        assert_eq!(fs::read_to_string(base.join("e/a")).unwrap(), "1");
    }
}
