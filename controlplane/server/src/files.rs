//! The files of a control plane under its data directory. Secrets are readable by their owner only and are replaced as a
//! whole, never written in place.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use coracle_apiserver::auth::token::Signer;
use coracle_apiserver::pki::Identity;
use rand::Rng as _;

use crate::ServerError;

/// Bytes of randomness in a token.
const TOKEN_BYTES: usize = 32;
/// What tells a data directory from any other that is not empty.
const OURS: [&str; 5] = ["store", "tls", "wasm", "pods", "agent.db"];
/// The root of a file system of its own has this.
const NOBODYS: &str = "lost+found";

/// The data directory of a control plane.
#[derive(Debug, Clone)]
pub struct Files {
    dir: PathBuf,
}

/// Half of what belongs together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Half {
    Certificate,
    Key,
}

impl Half {
    pub(crate) fn ending(self) -> &'static str {
        match self {
            Self::Certificate => "crt",
            Self::Key => "key",
        }
    }
}

/// What is kept of a certificate and its key.
#[derive(Debug)]
pub(crate) enum Kept {
    Both(Identity),
    Only(Half),
    Nothing,
}

impl Files {
    pub(crate) fn open(dir: &Path) -> Result<Self, ServerError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| file_error(dir, &e))?;
        make_private(dir)?;
        for name in ["tls", "store"] {
            let path = dir.join(name);
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(|e| file_error(&path, &e))?;
        }
        Ok(Self { dir: dir.to_owned() })
    }

    /// The data directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig_path(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    pub(crate) fn store_dir(&self) -> PathBuf {
        self.dir.join("store")
    }

    pub(crate) fn token_key_path(&self) -> PathBuf {
        self.dir.join("tls/service-account.key")
    }

    pub(crate) fn tls_path(&self, name: &str, ending: &str) -> PathBuf {
        self.dir.join(format!("tls/{name}.{ending}"))
    }

    /// The store is written before the first certificate is made. If only certificates are left, the cluster's objects are
    /// lost, and an empty cluster in their place would hide it.
    pub(crate) fn check_store(&self) -> Result<(), ServerError> {
        let database = self.store_dir().join("store.db");
        let is_empty = match fs::metadata(&database) {
            Ok(meta) => meta.len() == 0,
            Err(e) if e.kind() == ErrorKind::NotFound => true,
            Err(e) => return Err(file_error(&database, &e)),
        };
        if is_empty && self.tls_path("ca", "crt").exists() {
            let dir = self.dir.display();
            let why = format!(
                "the cluster has certificates but its store is gone or empty: put {dir}/store back from a backup, or remove \
                 {dir} to begin a new cluster"
            );
            return Err(ServerError::File { path: database, why });
        }
        Ok(())
    }

    /// The key that signs tokens of service accounts.
    pub(crate) fn token_key(&self) -> Result<Vec<u8>, ServerError> {
        let path = self.token_key_path();
        if let Some(key) = self.read(&path)? {
            return Ok(key);
        }
        let key = Signer::generate_key().map_err(|e| ServerError::File { path: path.clone(), why: e.to_string() })?;
        write_secret(&path, &key)?;
        Ok(key)
    }

    /// The administrator's bearer token.
    pub(crate) fn admin_token(&self) -> Result<String, ServerError> {
        let path = self.dir.join("tls/admin.token");
        if let Some(bytes) = self.read(&path)? {
            let text = String::from_utf8_lossy(&bytes).trim().to_owned();
            if !text.is_empty() {
                return Ok(text);
            }
        }
        let secret: [u8; TOKEN_BYTES] = rand::rng().random();
        let token: String = secret.iter().map(|b| format!("{b:02x}")).collect();
        write_secret(&path, format!("{token}\n").as_bytes())?;
        Ok(token)
    }

    /// Replaces a file unless it says so already.
    pub(crate) fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), ServerError> {
        if self.read(path)?.as_deref() == Some(bytes) {
            return Ok(());
        }
        write_secret(path, bytes)
    }

    pub(crate) fn identity(&self, name: &str) -> Result<Kept, ServerError> {
        let text = |half: Half| -> Result<Option<String>, ServerError> {
            let path = self.tls_path(name, half.ending());
            let Some(bytes) = self.read(&path)? else { return Ok(None) };
            String::from_utf8(bytes).map(Some).map_err(|_| ServerError::File { path, why: "it is no text".to_owned() })
        };
        Ok(match (text(Half::Certificate)?, text(Half::Key)?) {
            (Some(certificate), Some(key)) => Kept::Both(Identity { certificate, key }),
            (Some(_), None) => Kept::Only(Half::Certificate),
            (None, Some(_)) => Kept::Only(Half::Key),
            (None, None) => Kept::Nothing,
        })
    }

    pub(crate) fn keep(&self, name: &str, identity: &Identity) -> Result<(), ServerError> {
        // The key first: a certificate without its key is found and told.
        write_secret(&self.tls_path(name, "key"), identity.key.as_bytes())?;
        write_secret(&self.tls_path(name, "crt"), identity.certificate.as_bytes())
    }

    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, ServerError> {
        match fs::read(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(file_error(path, &e)),
        }
    }
}

/// Pods' volumes and the nodes' records below the directory hold secrets, so nobody else may look into it, also where it
/// was made by somebody else: an administrator, an init system, a mount. A directory that holds other things is not
/// touched: its mode is its owner's business.
fn make_private(dir: &Path) -> Result<(), ServerError> {
    let failed = |e: std::io::Error| file_error(dir, &e);
    let mode = fs::metadata(dir).map_err(failed)?.mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let mut others = None;
    for entry in fs::read_dir(dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        if OURS.contains(&name.as_str()) {
            others = None;
            break;
        }
        if name != NOBODYS {
            others = Some(name);
        }
    }
    if let Some(name) = others {
        let why = format!("it holds other files ({name}): name a directory of its own with --data-dir");
        return Err(ServerError::File { path: dir.to_owned(), why });
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(mode & 0o700)).map_err(failed)
}

/// What the system says of a file, with what helps.
pub(crate) fn file_error(path: &Path, error: &std::io::Error) -> ServerError {
    let help = match error.kind() {
        ErrorKind::PermissionDenied => "give this user the right to write there, or choose another with --data-dir",
        ErrorKind::ReadOnlyFilesystem => "it cannot be written to: choose another with --data-dir",
        ErrorKind::AlreadyExists | ErrorKind::NotADirectory => "it is no directory: choose another with --data-dir",
        ErrorKind::NotFound => "no directory can be made there: choose another with --data-dir",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "free some space",
        _ => return ServerError::File { path: path.to_owned(), why: error.to_string() },
    };
    ServerError::File { path: path.to_owned(), why: format!("{error}; {help}") }
}

/// Writes beside, syncs, and renames: after a crash the file is the old one or the new one, and once this returns the new.
fn write_secret(path: &Path, bytes: &[u8]) -> Result<(), ServerError> {
    let beside = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        path.parent().map_or(Ok(()), |dir| fs::File::open(dir)?.sync_all())
    };
    write().map_err(|e| file_error(path, &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    fn directory() -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("data");
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        (root, dir)
    }

    #[test]
    fn a_directory_that_was_there_becomes_private() {
        let (_root, dir) = directory();
        fs::create_dir(dir.join(NOBODYS)).unwrap();
        Files::open(&dir).unwrap();
        assert_eq!(mode(&dir), 0o700);
        fs::write(dir.join("notes"), "mine").unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o750)).unwrap();
        Files::open(&dir).unwrap();
        assert_eq!(mode(&dir), 0o700, "it is a data directory, whatever else lies there");
    }

    #[test]
    fn somebody_elses_directory_is_refused_and_left_alone() {
        let (_root, dir) = directory();
        fs::write(dir.join("notes"), "mine").unwrap();
        let error = Files::open(&dir).unwrap_err().to_string();
        assert!(
            error.ends_with("it holds other files (notes): name a directory of its own with --data-dir"),
            "{error}"
        );
        assert_eq!(mode(&dir), 0o755);
    }

    #[test]
    fn a_lost_store_is_told() {
        let (_root, dir) = directory();
        let files = Files::open(&dir).unwrap();
        files.check_store().unwrap();
        fs::write(files.tls_path("ca", "crt"), "a certificate").unwrap();
        let lost = files.check_store().unwrap_err().to_string();
        assert!(lost.contains("store is gone or empty"), "{lost}");
        fs::write(files.store_dir().join("store.db"), "").unwrap();
        assert!(files.check_store().is_err());
        fs::write(files.store_dir().join("store.db"), "objects").unwrap();
        files.check_store().unwrap();
    }
}
