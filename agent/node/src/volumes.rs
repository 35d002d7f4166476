//! Volumes: directories of pods, host paths, and files from the API that are replaced all at once, in memory where that can
//! be. Tokens are asked for here and again when four fifths of their life are over. What goes into a file was decided by `agent/core`.

pub(crate) mod empty_dir;
pub(crate) mod memory;
pub(crate) mod sub_path;
mod writer;

use std::{
    collections::{BTreeMap, HashSet},
    fs, io,
    os::unix::fs::{DirBuilderExt, FileTypeExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use coracle_agent_core::{
    PodUid,
    effect::{MountFailure, MountResult, NodeFacts, SubPath, SubPathResult},
    env::{References, Sources},
    field::Surroundings,
    volume::{self, File, Files, HostPathKind, Plan, Token},
    workload::ContainerKey,
};
use jiff::Timestamp;
use k8s_openapi::api::{
    authentication::v1::TokenRequest,
    core::v1::{Pod, ServiceAccount, Volume},
};
use kube::{Api, Client, api::PostParams};
use parking_lot::Mutex;
use serde_json::json;

use self::empty_dir::Medium;
pub(crate) use self::memory::Generated;
use crate::references::Lookup;

/// Longest life after which a token is asked for anew, as the kubelet's `maxTTL`.
const TOKEN_MAX_AGE: Duration = Duration::from_secs(24 * 3600);

/// What a pod's group may do with files that are ours to replace (`pkg/volume`, `SetVolumeOwnership`).
const GROUP_READ: u32 = 0o440;

/// Volumes that are used as they were left are brought up to date after this, and again until the control plane answers.
const TRY_AGAIN: Duration = Duration::from_secs(10);

/// Makes and removes volumes.
#[derive(Clone)]
pub(crate) struct Volumes {
    client: Client,
    lookup: Lookup,
    pods_dir: PathBuf,
    generated: Generated,
    tokens: Arc<Mutex<BTreeMap<(String, Token), HeldToken>>>,
    parts: sub_path::Held,
}

/// A token in use: it is not asked for again at every change of its volume.
#[derive(Clone)]
struct HeldToken {
    text: String,
    renew_at: Timestamp,
}

/// Why a volume was not made.
enum Failed {
    /// The control plane cannot be asked.
    Away(String),
    /// It cannot be made as it is declared, or not on this disk.
    Wrong(String),
}

/// What a mount came to.
pub(crate) struct Mounted {
    pub(crate) result: MountResult,
    /// When its tokens want to be renewed.
    pub(crate) renew_at: Option<Timestamp>,
}

impl Volumes {
    pub(crate) fn new(client: Client, lookup: Lookup, pods_dir: PathBuf, generated: Generated) -> Self {
        Self { client, lookup, pods_dir, generated, tokens: Arc::default(), parts: sub_path::Held::default() }
    }

    /// Makes all volumes of a pod, or brings them up to date. Safe to repeat. While the control plane is away, files that are
    /// there from before stay as they are, and new ones are made of what was recorded, without tokens.
    pub(crate) async fn mount(&self, pod: &Pod, facts: &NodeFacts, ips: &[std::net::IpAddr]) -> Mounted {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
        let (mut paths, mut failures, mut renew_at) = (BTreeMap::new(), Vec::new(), None);
        let wanted = volume::references(pod);
        let uid = PodUid::new(pod.metadata.uid.clone().unwrap_or_default());
        let sources = self.lookup.find(&uid, namespace, &wanted).await;
        for volume in volumes {
            let made = match &sources {
                Ok(sources) => self.one(pod, volume, sources, facts, ips).await,
                Err(error) if is_generated(volume) => Err(Failed::Away(error.to_string())),
                Err(_) => self.one(pod, volume, &Sources::default(), facts, ips).await,
            };
            let made = match made {
                Err(Failed::Away(why)) => self.without_control_plane(pod, volume, &wanted, (facts, ips), why).await,
                Err(Failed::Wrong(message)) => Err(message),
                Ok(made) => Ok(made),
            };
            match made {
                Ok((path, renew)) => {
                    paths.insert(volume.name.clone(), path);
                    renew_at = [renew_at, renew].into_iter().flatten().min();
                }
                Err(message) => failures.push(MountFailure { volume: volume.name.clone(), message }),
            }
        }
        let result = if failures.is_empty() { Ok(paths) } else { Err(failures) };
        Mounted { result, renew_at }
    }

    /// What an earlier mount left, or what the records give, where the control plane cannot be asked for something newer.
    async fn without_control_plane(
        &self,
        pod: &Pod,
        volume: &Volume,
        wanted: &References,
        (facts, ips): (&NodeFacts, &[std::net::IpAddr]),
        why: String,
    ) -> Result<(PathBuf, Option<Timestamp>), String> {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let dir = self.generated.volume(&self.pods_dir, uid, &volume.name);
        let soon = Some(Timestamp::now() + TRY_AGAIN);
        if writer::is_there(&dir) {
            tracing::debug!(why, dir = %dir.display(), "a volume is used as it was left");
            return Ok((dir, soon));
        }
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let around = Surroundings { pod_ips: ips, host_ips: &facts.ips, allocatable: &facts.allocatable };
        // What was never recorded, secrets above all, is not known without the control plane: that is the reason to tell.
        let sources = self.lookup.recorded(namespace, wanted);
        let Ok(Plan::Files(Files { mut files, .. })) = volume::plan(pod, volume, &sources, &around) else {
            return Err(why);
        };
        let group = fs_group(pod);
        if group.is_some() {
            files.values_mut().for_each(|file| file.mode |= GROUP_READ);
        }
        tracing::info!(why, dir = %dir.display(), "a volume is made of the agent's records, without tokens");
        blocking(move || writer::replace(&dir, &files, group).map(|()| dir)).await.map(|dir| (dir, soon))
    }

    /// Removes a pod's directories. Host paths are not in them.
    pub(crate) async fn unmount(&self, uid: &str) {
        self.tokens.lock().retain(|(owner, _), _| owner != uid);
        self.parts.drop_pod(uid);
        let (this, uid) = (self.clone(), uid.to_owned());
        let removed = tokio::task::spawn_blocking(move || this.remove(&uid).map_err(|error| (uid, error)));
        if let Ok(Err((uid, error))) = removed.await {
            tracing::warn!(%error, uid, "a pod's directory cannot be removed");
        }
    }

    /// Removes directories of these pods: left by an agent that was killed.
    pub(crate) fn sweep(&self, gone: &HashSet<String>) -> io::Result<()> {
        gone.iter().try_for_each(|uid| self.remove(uid))
    }

    /// Removes a pod's directories, with what is mounted in them.
    fn remove(&self, uid: &str) -> io::Result<()> {
        if let Some(dir) = self.generated.pod(uid) {
            remove_all(&dir)?;
        }
        let dir = self.pods_dir.join(uid);
        sub_path::unbind(&dir)?;
        empty_dir::unmount_all(&dir.join("volumes"))?;
        remove_all(&dir)
    }

    /// Finds or makes parts of volumes, and holds them open until the pod's volumes are removed.
    pub(crate) async fn sub_paths(&self, key: ContainerKey, wants: Vec<SubPath>) -> SubPathResult {
        let parts = self.parts.clone();
        let find = move || {
            let one = |want: SubPath| {
                sub_path::find_or_make(&want.base, &want.path).map_err(|error| {
                    tracing::warn!(%error, volume = want.volume, path = want.path, "a part of a volume cannot be shown");
                    want.volume
                })
            };
            let found = wants.into_iter().map(one).collect::<Result<_, _>>()?;
            Ok(parts.keep(&key, found))
        };
        tokio::task::spawn_blocking(find).await.unwrap_or_else(|error| Err(error.to_string()))
    }

    /// Bytes that a pod's `emptyDir` volumes hold.
    pub(crate) fn used_bytes(&self, uid: &str, volumes: &[String]) -> BTreeMap<String, u64> {
        let dir = self.pods_dir.join(uid).join("volumes");
        volumes.iter().map(|name| (name.clone(), empty_dir::used_bytes(&dir.join(name)))).collect()
    }

    /// Where a volume of a pod is, if it is the pod's own, and whether it takes room on the node's disk.
    pub(crate) fn place(&self, uid: &str, volume: &Volume) -> Option<(PathBuf, bool)> {
        if let Some(source) = &volume.empty_dir {
            let dir = self.pods_dir.join(uid).join("volumes").join(&volume.name);
            return Some((dir, source.medium.as_deref().is_none_or(str::is_empty)));
        }
        let on_disk = volume.config_map.is_some() && self.generated.root().is_none();
        is_generated(volume).then(|| (self.generated.volume(&self.pods_dir, uid, &volume.name), on_disk))
    }

    async fn one(
        &self,
        pod: &Pod,
        volume: &Volume,
        sources: &Sources,
        facts: &NodeFacts,
        ips: &[std::net::IpAddr],
    ) -> Result<(PathBuf, Option<Timestamp>), Failed> {
        let around = Surroundings { pod_ips: ips, host_ips: &facts.ips, allocatable: &facts.allocatable };
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let dir = self.pods_dir.join(uid).join("volumes").join(&volume.name);
        let plan = volume::plan(pod, volume, sources, &around).map_err(Failed::Wrong)?;
        let group = fs_group(pod);
        let mut renew_at = None;
        let files = match plan {
            Plan::EmptyDir { memory, size_limit_bytes } => {
                let limit = size_limit_bytes.and_then(|bytes| u64::try_from(bytes).ok());
                let medium = if memory { Medium::Memory(limit) } else { Medium::Disk };
                let made = blocking(move || empty_dir::make(&dir, medium, group).map(|()| dir));
                return made.await.map(|dir| (dir, None)).map_err(Failed::Wrong);
            }
            Plan::HostPath { path, kind } => {
                let found = blocking(move || host_path(Path::new(&path), kind));
                return found.await.map(|path| (path, None)).map_err(Failed::Wrong);
            }
            Plan::Files(Files { mut files, tokens }) => {
                for token in tokens {
                    let held = self.token(pod, uid, &token).await?;
                    renew_at = [renew_at, Some(held.renew_at)].into_iter().flatten().min();
                    // With a group of its own the token is for it alone.
                    let mode = if group.is_some() { 0o600 } else { token.mode };
                    files.insert(token.path.clone(), File { data: held.text.into_bytes(), mode });
                }
                if group.is_some() {
                    files.values_mut().for_each(|file| file.mode |= GROUP_READ);
                }
                files
            }
        };
        let dir = self.generated.volume(&self.pods_dir, uid, &volume.name);
        let replaced = blocking(move || writer::replace(&dir, &files, group).map(|()| dir));
        let dir = replaced.await.map_err(Failed::Wrong)?;
        Ok((dir, renew_at))
    }

    async fn token(&self, pod: &Pod, uid: &str, token: &Token) -> Result<HeldToken, Failed> {
        let key = (uid.to_owned(), token.clone());
        let now = Timestamp::now();
        if let Some(held) = self.tokens.lock().get(&key).filter(|held| held.renew_at > now) {
            return Ok(held.clone());
        }
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("default");
        let request: TokenRequest = serde_json::from_value(json!({
            "metadata": {},
            "spec": {
                "audiences": token.audience.iter().collect::<Vec<_>>(),
                "expirationSeconds": token.expiration_seconds,
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod.metadata.name, "uid": uid},
            },
        }))
        .map_err(|error| Failed::Wrong(error.to_string()))?;
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let failed = |error: kube::Error| match error {
            kube::Error::Api(status) => Failed::Wrong(format!("failed to fetch token: {}", status.message)),
            error => Failed::Away(format!("failed to fetch token: {error}")),
        };
        let none = || Failed::Wrong("failed to fetch token: the answer holds none".to_owned());
        let answer = accounts.create_token_request(account, &PostParams::default(), &request).await.map_err(failed)?;
        let status = answer.status.ok_or_else(none)?;
        let (Some(text), Some(expires)) = (status.token, status.expiration_timestamp) else {
            return Err(none());
        };
        let renew_at = renewal(now, expires.0);
        let held = HeldToken { text, renew_at };
        self.tokens.lock().insert(key, held.clone());
        Ok(held)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// When a token that was given at `now` is asked for anew: when four fifths of its life are over, and once a day.
fn renewal(now: Timestamp, expires: Timestamp) -> Timestamp {
    let life = Duration::try_from(expires.duration_since(now)).unwrap_or_default();
    now + (life * 4 / 5).min(TOKEN_MAX_AGE)
}

/// Whether a volume's files come from the API.
fn is_generated(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some()
}

/// `fsGroup` of a pod.
fn fs_group(pod: &Pod) -> Option<u32> {
    let context = pod.spec.as_ref()?.security_context.as_ref()?;
    context.fs_group.and_then(|group| u32::try_from(group).ok())
}

fn remove_all(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn host_path(path: &Path, kind: HostPathKind) -> io::Result<PathBuf> {
    let refused = |what: &str| {
        let message = format!("hostPath type check failed: {} is not a {what}", path.display());
        Err(io::Error::new(io::ErrorKind::InvalidInput, message))
    };
    match kind {
        HostPathKind::DirectoryOrCreate if !path.exists() => {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(path)?;
        }
        HostPathKind::FileOrCreate if !path.exists() => {
            // Kubernetes does not make the parent directory either.
            fs::OpenOptions::new().create(true).append(true).open(path)?;
        }
        _ => {}
    }
    let found = fs::metadata(path).ok().map(|meta| meta.file_type());
    let is = |check: fn(&fs::FileType) -> bool| found.as_ref().is_some_and(check);
    match kind {
        HostPathKind::Any => {}
        HostPathKind::Directory | HostPathKind::DirectoryOrCreate if !is(fs::FileType::is_dir) => {
            return refused("directory");
        }
        HostPathKind::File | HostPathKind::FileOrCreate if !is(fs::FileType::is_file) => return refused("file"),
        HostPathKind::Socket if !is(FileTypeExt::is_socket) => return refused("socket file"),
        HostPathKind::CharDevice if !is(FileTypeExt::is_char_device) => return refused("character device"),
        HostPathKind::BlockDevice if !is(FileTypeExt::is_block_device) => return refused("block device"),
        _ => {}
    }
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_renewed_after_four_fifths_of_their_life_and_once_a_day() {
        let check = |life: i64, renewed_after: i64| {
            let start = Timestamp::from_second(1_000_000).unwrap();
            let renewed = renewal(start, start + jiff::SignedDuration::from_secs(life));
            assert_eq!(renewed, start + jiff::SignedDuration::from_secs(renewed_after));
        };
        check(3600, 2880);
        check(600, 480);
        check(30 * 86_400, 86_400);
        // An answer that is over already is asked for again at once, not in the past.
        check(-5, 0);
    }

    #[test]
    fn every_type_of_host_path_is_told_from_the_others() {
        use std::os::unix::net::UnixListener;
        let dir = tempfile::tempdir().unwrap();
        let (file, socket) = (dir.path().join("f"), dir.path().join("s"));
        fs::write(&file, "x").unwrap();
        let _listener = UnixListener::bind(&socket).unwrap();
        let kinds = [
            (HostPathKind::Directory, "directory"),
            (HostPathKind::File, "file"),
            (HostPathKind::Socket, "socket file"),
            (HostPathKind::CharDevice, "character device"),
            (HostPathKind::BlockDevice, "block device"),
        ];
        let there = [dir.path(), &file, &socket, Path::new("/dev/null")];
        for (number, (kind, what)) in kinds.into_iter().enumerate() {
            for (other, path) in there.iter().enumerate() {
                let told = host_path(path, kind).map(drop).map_err(|error| error.to_string());
                let refused = format!("hostPath type check failed: {} is not a {what}", path.display());
                assert_eq!(told, if number == other { Ok(()) } else { Err(refused) });
            }
            assert!(host_path(&dir.path().join("none"), kind).is_err());
        }
        let made = dir.path().join("new");
        host_path(&made, HostPathKind::FileOrCreate).unwrap();
        assert!(made.is_file());
        assert!(host_path(&dir.path().join("no/parent"), HostPathKind::FileOrCreate).is_err());
    }

    #[test]
    fn host_path_types_are_checked_and_made() {
        let dir = tempfile::tempdir().unwrap();
        let (file, new) = (dir.path().join("f"), dir.path().join("a/b"));
        fs::write(&file, "x").unwrap();
        let error = host_path(&file, HostPathKind::Directory).unwrap_err().to_string();
        assert_eq!(error, format!("hostPath type check failed: {} is not a directory", file.display()));
        assert!(host_path(&file, HostPathKind::File).is_ok());
        assert!(host_path(&new, HostPathKind::Directory).is_err());
        assert!(host_path(&new, HostPathKind::DirectoryOrCreate).is_ok());
        assert!(new.is_dir());
        assert!(host_path(&dir.path().join("none"), HostPathKind::Any).is_ok());
    }
}
