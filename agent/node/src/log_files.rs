//! Where pods' logs are, in the layout that log collectors know: `pods/NAMESPACE_NAME_UID/CONTAINER/N.log`, and a link per
//! container in `containers/`. It decides which files and links come and go; a job does it.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use coracle_agent_core::{PodUid, workload::ContainerKey};
use k8s_openapi::api::core::v1::Pod;

/// Logs of ended runs that are kept for each container: the kubelet's `maxPerPodContainerCount`.
const KEPT_RUNS: u32 = 1;

/// The logs of all pods.
#[derive(Debug)]
pub(crate) struct LogFiles {
    pods: PathBuf,
    links: PathBuf,
    places: HashMap<PodUid, Place>,
}

#[derive(Debug, Default)]
struct Place {
    name: String,
    namespace: String,
    /// By container: the links of its latest runs.
    links: HashMap<String, Vec<(u32, PathBuf)>>,
    /// Links of an earlier life of the agent.
    older: Vec<PathBuf>,
}

/// One change on disk. Each part is safe to repeat.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct LogWork {
    /// A link to make: its path and what it points to.
    link: Option<(PathBuf, PathBuf)>,
    /// Links to remove.
    unlink: Vec<PathBuf>,
    /// Remove files of this run and of earlier ones in this directory.
    prune: Option<(PathBuf, u32)>,
    /// Remove this directory.
    remove: Option<PathBuf>,
}

impl LogFiles {
    /// Makes `pods` and `containers` under a root, and takes note of links that are there.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        let (pods, links) = (root.join("pods"), root.join("containers"));
        fs::create_dir_all(&pods)?;
        fs::create_dir_all(&links)?;
        let mut places: HashMap<PodUid, Place> = HashMap::new();
        for entry in fs::read_dir(&links)?.flatten() {
            let Ok(target) = fs::read_link(entry.path()) else { continue };
            // Others may keep links here too: only those into our own directory are ours.
            if let Some(uid) = target.strip_prefix(&pods).ok().and_then(uid_of) {
                places.entry(uid).or_default().older.push(entry.path());
            }
        }
        Ok(Self { pods, links, places })
    }

    /// Directory of all pods' logs.
    pub(crate) fn pods_dir(&self) -> &Path {
        &self.pods
    }

    /// A pod is known from now on.
    pub(crate) fn add(&mut self, uid: &PodUid, pod: &Pod) {
        let place = self.places.entry(uid.clone()).or_default();
        place.name = pod.metadata.name.clone().unwrap_or_default();
        place.namespace = pod.metadata.namespace.clone().unwrap_or_default();
    }

    /// A pod's directory.
    pub(crate) fn directory(&self, uid: &PodUid) -> Option<PathBuf> {
        let place = self.places.get(uid)?;
        Some(self.pods.join(format!("{}_{}_{uid}", place.namespace, place.name)))
    }

    /// A run has begun: it gets its link, and what is older than the last run goes.
    pub(crate) fn created(&mut self, key: &ContainerKey, id: &str) -> Option<LogWork> {
        let dir = self.directory(&key.pod)?.join(&*key.name);
        let place = self.places.get_mut(&key.pod)?;
        let id = id.rsplit("://").next().unwrap_or(id);
        let link = self.links.join(format!("{}_{}_{}-{id}.log", place.name, place.namespace, key.name));
        let runs = place.links.entry(key.name.to_string()).or_default();
        let old = key.attempt.checked_sub(KEPT_RUNS + 1);
        let unlink = runs.extract_if(.., |(attempt, _)| old.is_some_and(|old| *attempt <= old)).map(|(_, path)| path);
        let unlink = unlink.collect();
        runs.push((key.attempt, link.clone()));
        let target = dir.join(format!("{}.log", key.attempt));
        Some(LogWork { link: Some((link, target)), unlink, prune: old.map(|old| (dir, old)), remove: None })
    }

    /// A pod is forgotten.
    pub(crate) fn remove(&mut self, uid: &PodUid) -> Option<LogWork> {
        let remove = self.directory(uid);
        let place = self.places.remove(uid)?;
        let unlink = place.older.into_iter().chain(place.links.into_values().flatten().map(|(_, path)| path));
        Some(LogWork { unlink: unlink.collect(), remove, ..LogWork::default() })
    }
}

impl LogWork {
    /// Does it.
    pub(crate) fn run(self) -> io::Result<()> {
        for path in self.unlink {
            ignore_missing(fs::remove_file(path))?;
        }
        if let Some((path, target)) = self.link {
            ignore_missing(fs::remove_file(&path))?;
            symlink(target, path)?;
        }
        if let Some((dir, last)) = self.prune {
            prune(&dir, last)?;
        }
        self.remove.map_or(Ok(()), |dir| ignore_missing(fs::remove_dir_all(dir)))
    }
}

/// Removes logs and links of these pods: left by an agent that was killed. Others may keep logs beside them.
pub(crate) fn sweep(pods: &Path, gone: &HashSet<String>) -> io::Result<()> {
    let is_gone = |uid: Option<PodUid>| uid.is_some_and(|uid| gone.contains(uid.as_str()));
    if gone.is_empty() {
        return Ok(());
    }
    for entry in fs::read_dir(pods)?.flatten() {
        let name = entry.file_name();
        if is_gone(uid_of(Path::new(&name))) {
            ignore_missing(fs::remove_dir_all(entry.path()))?;
        }
    }
    let links = pods.with_file_name("containers");
    for entry in fs::read_dir(links)?.flatten() {
        let target = fs::read_link(entry.path()).ok();
        if is_gone(target.as_deref().and_then(|target| target.strip_prefix(pods).ok()).and_then(uid_of)) {
            ignore_missing(fs::remove_file(entry.path()))?;
        }
    }
    Ok(())
}

/// The uid in the first part of `NAMESPACE_NAME_UID/…`. Neither namespaces nor names hold an underscore.
fn uid_of(path: &Path) -> Option<PodUid> {
    let first = path.components().next()?.as_os_str().to_str()?;
    let mut parts = first.split('_');
    let (_, _, uid) = (parts.next()?, parts.next()?, parts.next()?);
    parts.next().is_none().then(|| PodUid::new(uid))
}

fn prune(dir: &Path, last: u32) -> io::Result<()> {
    for entry in fs::read_dir(dir)?.flatten() {
        let name = entry.file_name();
        let attempt =
            name.to_str().and_then(|name| name.split_once(".log")).and_then(|(number, _)| number.parse().ok());
        if attempt.is_some_and(|attempt: u32| attempt <= last) {
            ignore_missing(fs::remove_file(entry.path()))?;
        }
    }
    Ok(())
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn run(logs: &mut LogFiles, attempt: u32) {
        let key = ContainerKey { pod: PodUid::new("u1"), name: "app".into(), attempt };
        let dir = logs.directory(&key.pod).unwrap().join("app");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(format!("{attempt}.log")), attempt.to_string()).unwrap();
        fs::write(dir.join(format!("{attempt}.log.20260101-000000")), "rotated").unwrap();
        logs.created(&key, &format!("wasm://id{attempt}")).unwrap().run().unwrap();
    }

    fn pod() -> Pod {
        serde_json::from_value(serde_json::json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u1"}})).unwrap()
    }

    #[test]
    fn collectors_find_the_last_two_runs() {
        let root = tempfile::tempdir().unwrap();
        let mut logs = LogFiles::open(root.path()).unwrap();
        logs.add(&PodUid::new("u1"), &pod());
        for attempt in 0..4 {
            run(&mut logs, attempt);
        }
        let links = root.path().join("containers");
        assert_eq!(names(&links), ["p_ns_app-id2.log", "p_ns_app-id3.log"]);
        assert_eq!(fs::read_to_string(links.join("p_ns_app-id3.log")).unwrap(), "3");
        let dir = root.path().join("pods/ns_p_u1/app");
        assert_eq!(names(&dir), ["2.log", "2.log.20260101-000000", "3.log", "3.log.20260101-000000"]);
        logs.remove(&PodUid::new("u1")).unwrap().run().unwrap();
        assert!(names(&links).is_empty() && names(&root.path().join("pods")).is_empty());
    }

    #[test]
    fn what_a_killed_agent_left_is_found_or_swept() {
        let root = tempfile::tempdir().unwrap();
        let mut logs = LogFiles::open(root.path()).unwrap();
        logs.add(&PodUid::new("u1"), &pod());
        run(&mut logs, 0);
        fs::create_dir_all(root.path().join("pods/ns_gone_u2/app")).unwrap();
        let stale = root.path().join("containers/gone_ns_app-x.log");
        symlink(root.path().join("pods/ns_gone_u2/app/0.log"), &stale).unwrap();
        symlink("/elsewhere/0.log", root.path().join("containers/foreign.log")).unwrap();
        let mut logs = LogFiles::open(root.path()).unwrap();
        sweep(logs.pods_dir(), &["u2".to_owned()].into()).unwrap();
        assert_eq!(names(&root.path().join("pods")), ["ns_p_u1"]);
        assert_eq!(names(&root.path().join("containers")), ["foreign.log", "p_ns_app-id0.log"]);
        logs.add(&PodUid::new("u1"), &pod());
        logs.remove(&PodUid::new("u1")).unwrap().run().unwrap();
        assert_eq!(names(&root.path().join("containers")), ["foreign.log"]);
    }
}
