//! What the volumes of a pod hold: files of ConfigMaps, Secrets, the downward API and projections as data, with their
//! modes; directories and host paths as plans. It never touches a disk: the shell writes what this says.

use std::collections::BTreeMap;

use coracle_api::quantity::Amount;
use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, ProjectedVolumeSource, Secret, Volume, VolumeProjection,
};

use crate::{
    env::{References, Sources},
    field::{self, Surroundings},
};

/// What a volume is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// A directory that lives as long as the pod.
    EmptyDir {
        /// Kept in memory.
        memory: bool,
        /// Most bytes it may hold.
        size_limit_bytes: Option<i64>,
    },
    /// A path of the node.
    HostPath {
        /// Where.
        path: String,
        /// What must be there.
        kind: HostPathKind,
    },
    /// Files, replaced together when their sources change.
    Files(Files),
}

/// `hostPath.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostPathKind {
    /// Anything, unchecked.
    Any,
    /// A directory, made if missing.
    DirectoryOrCreate,
    /// A directory.
    Directory,
    /// A file, made if missing.
    FileOrCreate,
    /// A file.
    File,
    /// A unix socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

/// Files of a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// By relative path.
    pub files: BTreeMap<String, File>,
    /// Tokens to ask the API server for, each to be written as a file.
    pub tokens: Vec<Token>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its bytes.
    pub data: Vec<u8>,
    /// Its permission bits.
    pub mode: u32,
}

/// A projected service-account token.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token {
    /// Relative path of its file.
    pub path: String,
    /// For whom; `None` is the API server.
    pub audience: Option<String>,
    /// Seconds it is asked to live.
    pub expiration_seconds: i64,
    /// Permission bits of its file.
    pub mode: u32,
}

/// Mode of a file where nothing says otherwise.
const DEFAULT_MODE: i32 = 0o644;
/// Life of a token where nothing says otherwise.
const DEFAULT_EXPIRATION_SECONDS: i64 = 3600;

/// What a pod's volumes refer to.
pub fn references(pod: &Pod) -> References {
    let mut wanted = References::default();
    for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
        if let Some(source) = &volume.config_map {
            wanted.config_map(&source.name);
        }
        if let Some(name) = volume.secret.as_ref().and_then(|source| source.secret_name.as_ref()) {
            wanted.secret(name);
        }
        for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
            if let Some(map) = &source.config_map {
                wanted.config_map(&map.name);
            }
            if let Some(secret) = &source.secret {
                wanted.secret(&secret.name);
            }
        }
    }
    wanted
}

/// Plans one volume. The error is what follows `MountVolume.SetUp failed for volume "x" : `.
pub fn plan(pod: &Pod, volume: &Volume, sources: &Sources, around: &Surroundings<'_>) -> Result<Plan, String> {
    if let Some(source) = &volume.empty_dir {
        let memory = source.medium.as_deref() == Some("Memory");
        let limit = source.size_limit.as_ref().and_then(|limit| Amount::of(limit).ok());
        return Ok(Plan::EmptyDir { memory, size_limit_bytes: limit.map(Amount::value).filter(|bytes| *bytes > 0) });
    }
    if let Some(source) = &volume.host_path {
        let kind = host_path_kind(source.type_.as_deref().unwrap_or_default())?;
        return Ok(Plan::HostPath { path: source.path.clone(), kind });
    }
    let mut files = Files::default();
    if let Some(source) = &volume.config_map {
        let rule = Rule { items: source.items.as_deref(), mode: source.default_mode, optional: source.optional };
        add_config_map(&mut files, &source.name, &rule, sources)?;
    } else if let Some(source) = &volume.secret {
        let rule = Rule { items: source.items.as_deref(), mode: source.default_mode, optional: source.optional };
        add_secret(&mut files, source.secret_name.as_deref().unwrap_or_default(), &rule, sources)?;
    } else if let Some(source) = &volume.downward_api {
        add_downward(&mut files, pod, source.items.as_deref(), source.default_mode, around)?;
    } else if let Some(source) = &volume.projected {
        add_projected(&mut files, pod, source, sources, around)?;
    } else {
        return Err("no volume plugin matched".to_owned());
    }
    Ok(Plan::Files(files))
}

/// How the keys of one source become files.
struct Rule<'a> {
    items: Option<&'a [KeyToPath]>,
    mode: Option<i32>,
    optional: Option<bool>,
}

impl Rule<'_> {
    fn optional(&self) -> bool {
        self.optional == Some(true)
    }
}

fn add_config_map(files: &mut Files, name: &str, rule: &Rule<'_>, sources: &Sources) -> Result<(), String> {
    let Some(map) = sources.config_maps.get(name).and_then(Option::as_deref) else {
        return if rule.optional() { Ok(()) } else { Err(format!("configmap {name:?} not found")) };
    };
    add_keys(files, rule, &config_data(map))
        .map_err(|key| format!("configmap references non-existent config key: {key}"))
}

fn add_secret(files: &mut Files, name: &str, rule: &Rule<'_>, sources: &Sources) -> Result<(), String> {
    let Some(secret) = sources.secrets.get(name).and_then(Option::as_deref) else {
        return if rule.optional() { Ok(()) } else { Err(format!("secret {name:?} not found")) };
    };
    add_keys(files, rule, &secret_data(secret)).map_err(|key| format!("references non-existent secret key: {key}"))
}

fn config_data(map: &ConfigMap) -> BTreeMap<&str, &[u8]> {
    let text = map.data.iter().flatten().map(|(key, value)| (key.as_str(), value.as_bytes()));
    let binary = map.binary_data.iter().flatten().map(|(key, value)| (key.as_str(), value.0.as_slice()));
    text.chain(binary).collect()
}

fn secret_data(secret: &Secret) -> BTreeMap<&str, &[u8]> {
    secret.data.iter().flatten().map(|(key, value)| (key.as_str(), value.0.as_slice())).collect()
}

/// Adds the wanted keys; the error is the first one that is not there.
fn add_keys(files: &mut Files, rule: &Rule<'_>, data: &BTreeMap<&str, &[u8]>) -> Result<(), String> {
    let items = rule.items.unwrap_or_default();
    if items.is_empty() {
        for (key, bytes) in data {
            files.files.insert((*key).to_owned(), File { data: bytes.to_vec(), mode: mode(None, rule.mode) });
        }
        return Ok(());
    }
    for item in items {
        match data.get(item.key.as_str()) {
            Some(bytes) => {
                let file = File { data: bytes.to_vec(), mode: mode(item.mode, rule.mode) };
                files.files.insert(item.path.clone(), file);
            }
            None if rule.optional() => {}
            None => return Err(item.key.clone()),
        }
    }
    Ok(())
}

fn add_downward(
    files: &mut Files,
    pod: &Pod,
    items: Option<&[DownwardAPIVolumeFile]>,
    default_mode: Option<i32>,
    around: &Surroundings<'_>,
) -> Result<(), String> {
    for item in items.unwrap_or_default() {
        let text = if let Some(selector) = &item.field_ref {
            field::field(pod, &selector.field_path, around)?
        } else if let Some(selector) = &item.resource_field_ref {
            let name = selector.container_name.as_deref().unwrap_or_default();
            let own = field::container(pod, name).ok_or_else(|| format!("container {name} not found"))?;
            field::resource(pod, own, selector, around)?
        } else {
            continue;
        };
        let file = File { data: text.into_bytes(), mode: mode(item.mode, default_mode) };
        files.files.insert(item.path.clone(), file);
    }
    Ok(())
}

fn add_projected(
    files: &mut Files,
    pod: &Pod,
    projected: &ProjectedVolumeSource,
    sources: &Sources,
    around: &Surroundings<'_>,
) -> Result<(), String> {
    for source in projected.sources.iter().flatten() {
        add_projection(files, pod, source, projected.default_mode, sources, around)?;
    }
    Ok(())
}

fn add_projection(
    files: &mut Files,
    pod: &Pod,
    source: &VolumeProjection,
    default_mode: Option<i32>,
    sources: &Sources,
    around: &Surroundings<'_>,
) -> Result<(), String> {
    if let Some(map) = &source.config_map {
        let rule = Rule { items: map.items.as_deref(), mode: default_mode, optional: map.optional };
        add_config_map(files, &map.name, &rule, sources)?;
    }
    if let Some(secret) = &source.secret {
        let rule = Rule { items: secret.items.as_deref(), mode: default_mode, optional: secret.optional };
        add_secret(files, &secret.name, &rule, sources)?;
    }
    if let Some(downward) = &source.downward_api {
        add_downward(files, pod, downward.items.as_deref(), default_mode, around)?;
    }
    if let Some(token) = &source.service_account_token {
        files.tokens.push(Token {
            path: token.path.clone(),
            audience: token.audience.clone().filter(|audience| !audience.is_empty()),
            expiration_seconds: token.expiration_seconds.unwrap_or(DEFAULT_EXPIRATION_SECONDS),
            mode: mode(None, default_mode),
        });
    }
    Ok(())
}

fn mode(own: Option<i32>, default: Option<i32>) -> u32 {
    u32::try_from(own.or(default).unwrap_or(DEFAULT_MODE)).unwrap_or(0o644) & 0o777
}

fn host_path_kind(kind: &str) -> Result<HostPathKind, String> {
    Ok(match kind {
        "" => HostPathKind::Any,
        "DirectoryOrCreate" => HostPathKind::DirectoryOrCreate,
        "Directory" => HostPathKind::Directory,
        "FileOrCreate" => HostPathKind::FileOrCreate,
        "File" => HostPathKind::File,
        "Socket" => HostPathKind::Socket,
        "CharDevice" => HostPathKind::CharDevice,
        "BlockDevice" => HostPathKind::BlockDevice,
        other => return Err(format!("hostPath type {other:?} is not known")),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::resources::ResourceMap;
    use serde_json::{Value, json};

    fn planned(volume: Value) -> Result<Plan, String> {
        let map: ConfigMap = serde_json::from_value(json!({"data": {"a": "1", "b": "2"}})).unwrap();
        let sources = Sources { config_maps: [("cm".into(), Some(Arc::new(map)))].into(), ..Sources::default() };
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns"}})).unwrap();
        let volume: Volume = serde_json::from_value(volume).unwrap();
        let around = Surroundings { pod_ips: &[], host_ips: &[], allocatable: &ResourceMap::new() };
        plan(&pod, &volume, &sources, &around)
    }

    fn files(volume: Value) -> Vec<(String, u32)> {
        match planned(volume) {
            Ok(Plan::Files(files)) => files.files.into_iter().map(|(path, file)| (path, file.mode)).collect(),
            other => panic!("not files: {other:?}"),
        }
    }

    #[test]
    fn config_maps_become_files_with_modes() {
        let all = json!({"name": "v", "configMap": {"name": "cm", "defaultMode": 0o400}});
        assert_eq!(files(all), [("a".to_owned(), 0o400), ("b".to_owned(), 0o400)]);
        let one =
            json!({"name": "v", "configMap": {"name": "cm", "items": [{"key": "b", "path": "x/y", "mode": 0o600}]}});
        assert_eq!(files(one), [("x/y".to_owned(), 0o600)]);
    }

    #[test]
    fn missing_sources_fail_unless_optional() {
        let missing = |optional: bool| json!({"name": "v", "configMap": {"name": "no", "optional": optional}});
        assert_eq!(planned(missing(false)), Err("configmap \"no\" not found".to_owned()));
        assert_eq!(planned(missing(true)), Ok(Plan::Files(Files::default())));
        let key = json!({"name": "v", "configMap": {"name": "cm", "items": [{"key": "z", "path": "z"}]}});
        assert_eq!(planned(key), Err("configmap references non-existent config key: z".to_owned()));
    }

    #[test]
    fn the_usual_token_projection_is_understood() {
        let volume = json!({"name": "kube-api-access-x", "projected": {"defaultMode": 0o644, "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "cm", "items": [{"key": "a", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
        ]}});
        let Ok(Plan::Files(files)) = planned(volume) else { panic!("files") };
        assert_eq!(files.files["namespace"].data, b"ns");
        assert_eq!(files.tokens[0].expiration_seconds, 3607);
    }
}
