//! Which logins opened an image that is on the node, so that no pod uses one that another pod's secret fetched (KEP-2535, with the
//! kubelet's policy `NeverVerifyPreloadedImages`: what came by another way than a pull is anyone's). It keeps no login, only
//! salted hashes, in one file that is replaced as a whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{ArtifactError, pull::Login};

/// Who may use an image under the name of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Access {
    /// Every pod: it was pulled without a login, or with one of the node's.
    Everyone,
    /// Pods with one of these logins, as hashes.
    Logins(BTreeSet<String>),
}

/// The file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Records {
    /// Random, so that hashes tell nothing outside of this file.
    salt: String,
    /// By image id, then by repository.
    images: BTreeMap<String, BTreeMap<String, Access>>,
}

/// The records of a node's pulls.
#[derive(Debug)]
pub struct PullRecords {
    /// `None` keeps them in memory only.
    path: Option<PathBuf>,
    records: Mutex<Records>,
}

impl Default for PullRecords {
    /// Records that never reach a disk, and so need no salt.
    fn default() -> Self {
        Self { path: None, records: Mutex::default() }
    }
}

impl PullRecords {
    /// Reads the file; there is none on a new node.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn open(path: PathBuf) -> Result<Self, ArtifactError> {
        let records = match fs::read(&path) {
            Ok(json) => serde_json::from_slice(&json).map_err(|error| {
                ArtifactError::Malformed(format!(
                    "{} is damaged ({error}): remove it, and restart the agent",
                    path.display()
                ))
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let salt = salt().map_err(ArtifactError::io("salt", &path))?;
                Records { salt, images: BTreeMap::new() }
            }
            Err(source) => return Err(ArtifactError::Io { what: "read", path, source }),
        };
        Ok(Self { path: Some(path), records: Mutex::new(records) })
    }

    /// Notes that a pull of an image from a repository went well, with a login of the pod's if it needed one.
    pub fn pulled(&self, image_id: &str, repository: &str, login: Option<&(String, String)>) {
        let mut records = self.records.lock();
        let hash = login.map(|login| hash(&records.salt, login));
        let mut changed = records.clone();
        let known = changed.images.entry(image_id.to_owned()).or_default();
        let access = match (known.get(repository), hash) {
            (Some(Access::Everyone), _) | (_, None) => Access::Everyone,
            (Some(Access::Logins(hashes)), Some(hash)) => {
                Access::Logins(hashes.iter().cloned().chain([hash]).collect())
            }
            (None, Some(hash)) => Access::Logins([hash].into()),
        };
        if known.insert(repository.to_owned(), access.clone()) == Some(access) {
            return;
        }
        // Without the record on the disk a later life would let everyone use it: that is told, and the pull stands.
        if let Err(error) = self.write(&changed) {
            tracing::warn!(%error, image = image_id, "who may use an image is known only until the agent ends");
        }
        *records = changed;
    }

    /// Whether a pod with these logins may use the image under this name without a registry being asked.
    pub fn may_use(&self, image_id: &str, repository: &str, logins: &[(String, String)]) -> bool {
        let records = self.records.lock();
        let Some(known) = records.images.get(image_id) else { return true };
        match known.get(repository) {
            Some(Access::Everyone) => true,
            Some(Access::Logins(hashes)) => logins.iter().any(|login| hashes.contains(&hash(&records.salt, login))),
            // It was fetched under other names: whether this one is open to the pod only the registry knows.
            None => false,
        }
    }

    /// Forgets images that are gone.
    pub fn removed(&self, image_id: &str) {
        let mut records = self.records.lock();
        if records.images.contains_key(image_id) {
            let mut changed = records.clone();
            changed.images.remove(image_id);
            if let Err(error) = self.write(&changed) {
                tracing::warn!(%error, image = image_id, "a removed image is still in the records of pulls");
            }
            *records = changed;
        }
    }

    fn write(&self, records: &Records) -> Result<(), ArtifactError> {
        let Some(path) = &self.path else { return Ok(()) };
        let temporary = path.with_extension("new");
        let json = serde_json::to_vec(records).map_err(|error| ArtifactError::Malformed(error.to_string()))?;
        let write = || {
            let mut file = File::options().create(true).write(true).truncate(true).mode(0o600).open(&temporary)?;
            file.write_all(&json)?;
            file.sync_all()?;
            fs::rename(&temporary, path)
        };
        write().map_err(ArtifactError::io("write", path))
    }
}

fn hash(salt: &str, (user, password): &Login) -> String {
    let mut sum = Sha256::new();
    for part in [salt, user, password] {
        // Lengths keep the parts apart.
        sum.update((part.len() as u64).to_le_bytes());
        sum.update(part);
    }
    sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Random bytes of the kernel's.
fn salt() -> io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(password: &str) -> (String, String) {
        ("user".to_owned(), password.to_owned())
    }

    #[test]
    fn an_image_is_for_those_whose_logins_opened_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pulls.json");
        let records = PullRecords::open(path.clone()).unwrap();
        let (one, other) = (login("sesame"), login("other"));
        assert!(records.may_use("a", "r.io/x", &[]), "what was never pulled is anyone's");
        records.pulled("a", "r.io/x", Some(&one));
        records.pulled("b", "r.io/open", None);
        records.pulled("b", "r.io/open", Some(&one));
        let check = |records: &PullRecords| {
            assert!(!records.may_use("a", "r.io/x", &[]));
            assert!(!records.may_use("a", "r.io/x", std::slice::from_ref(&other)));
            assert!(records.may_use("a", "r.io/x", &[other.clone(), one.clone()]));
            assert!(
                !records.may_use("a", "r.io/other-name", std::slice::from_ref(&one)),
                "under another name it is another's"
            );
            assert!(records.may_use("b", "r.io/open", &[]), "once open, always");
        };
        check(&records);
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains("sesame") && !text.contains("user"), "{text}");
        let records = PullRecords::open(path.clone()).unwrap();
        check(&records);
        records.pulled("a", "r.io/x", Some(&other));
        assert!(records.may_use("a", "r.io/x", &[other]) && records.may_use("a", "r.io/x", &[one]));
        records.removed("a");
        assert!(PullRecords::open(path.clone()).unwrap().may_use("a", "r.io/x", &[]));
        fs::write(&path, "{").unwrap();
        assert!(PullRecords::open(path).unwrap_err().to_string().contains("pulls.json is damaged"));
    }
}
