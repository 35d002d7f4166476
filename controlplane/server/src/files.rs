//! The files of a control plane: certificates, keys, tokens and the kubeconfig, under the data directory.
//! Secrets are readable by their owner only and are replaced as a whole, never written in place.

use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, UdpSocket};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use coracle_apiserver::auth::MASTERS;
use coracle_apiserver::auth::token::Signer;
use coracle_apiserver::pki::{self, Authority, Identity};
use jiff::{SignedDuration, Timestamp};
use rand::Rng as _;
use sha2::{Digest as _, Sha256};

use crate::kubeconfig;
use crate::{ServerConfig, ServerError};

/// Certificates are made anew this long before they end.
const RENEW_BEFORE: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Bytes of randomness in a token.
const TOKEN_BYTES: usize = 32;

/// The data directory of a control plane.
#[derive(Debug, Clone)]
pub struct Files {
    dir: PathBuf,
}

/// What the files hold.
pub(crate) struct Secrets {
    pub(crate) authority: Authority,
    pub(crate) server: Identity,
    pub(crate) admin: Identity,
    pub(crate) token_key: Vec<u8>,
    pub(crate) admin_token: String,
}

impl Files {
    pub(crate) fn open(dir: &Path) -> Result<Self, ServerError> {
        for path in [dir.to_owned(), dir.join("tls"), dir.join("store")] {
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

    /// Reads the secrets, and makes those that are missing or soon end.
    pub(crate) fn secrets(&self, config: &ServerConfig, now: Timestamp) -> Result<Secrets, ServerError> {
        let authority = match self.identity("ca")? {
            Some(identity) => Authority::load(identity)?,
            None => {
                let authority = Authority::generate(now)?;
                self.keep("ca", authority.identity())?;
                authority
            }
        };
        let (names, addresses) = names(config);
        let wanted = format!("{names:?} {addresses:?}");
        let server = self.renewed("server", &wanted, now, || authority.server(&names, &addresses, now))?;
        let admin = self.renewed("admin", "", now, || authority.client("admin", MASTERS, now))?;
        let token_key = match self.read(&self.token_key_path())? {
            Some(key) => key,
            None => {
                let path = self.token_key_path();
                let key =
                    Signer::generate_key().map_err(|e| ServerError::File { path: path.clone(), why: e.to_string() })?;
                write_secret(&path, &key)?;
                key
            }
        };
        let admin_token = self.token(&self.dir.join("tls/admin.token"), "")?;
        let hash = hex(&Sha256::digest(authority.identity().certificate.as_bytes()));
        self.token(&self.dir.join("token"), &format!("coracle.{hash}."))?;
        Ok(Secrets { authority, server, admin, token_key, admin_token })
    }

    pub(crate) fn write_kubeconfig(&self, secrets: &Secrets, port: u16) -> Result<(), ServerError> {
        let text = kubeconfig::render(&secrets.authority.identity().certificate, &secrets.admin, port);
        let path = self.kubeconfig_path();
        if self.read(&path)?.as_deref() == Some(text.as_bytes()) {
            return Ok(());
        }
        write_secret(&path, text.as_bytes())
    }

    /// A certificate that is kept, made anew when it soon ends or is for other names.
    fn renewed(
        &self,
        name: &str,
        wanted: &str,
        now: Timestamp,
        make: impl FnOnce() -> Result<Identity, pki::PkiError>,
    ) -> Result<Identity, ServerError> {
        let names_path = self.dir.join(format!("tls/{name}.names"));
        let same_names = self.read(&names_path)?.unwrap_or_default() == wanted.as_bytes();
        if let Some(identity) = self.identity(name)?.filter(|_| same_names) {
            let ends = pki::expiry(&identity.certificate)?;
            if ends.duration_since(now) > RENEW_BEFORE {
                return Ok(identity);
            }
        }
        let identity = make()?;
        self.keep(name, &identity)?;
        write_secret(&names_path, wanted.as_bytes())?;
        Ok(identity)
    }

    fn identity(&self, name: &str) -> Result<Option<Identity>, ServerError> {
        let text = |ending: &str| -> Result<Option<String>, ServerError> {
            let path = self.dir.join(format!("tls/{name}.{ending}"));
            let Some(bytes) = self.read(&path)? else { return Ok(None) };
            String::from_utf8(bytes).map(Some).map_err(|e| ServerError::File { path, why: e.to_string() })
        };
        Ok(match (text("crt")?, text("key")?) {
            (Some(certificate), Some(key)) => Some(Identity { certificate, key }),
            _ => None,
        })
    }

    fn keep(&self, name: &str, identity: &Identity) -> Result<(), ServerError> {
        // The key first: a certificate without its key would look whole.
        write_secret(&self.dir.join(format!("tls/{name}.key")), identity.key.as_bytes())?;
        write_secret(&self.dir.join(format!("tls/{name}.crt")), identity.certificate.as_bytes())
    }

    fn token(&self, path: &Path, prefix: &str) -> Result<String, ServerError> {
        if let Some(bytes) = self.read(path)? {
            let text = String::from_utf8_lossy(&bytes).trim().to_owned();
            if text.starts_with(prefix) && text.len() > prefix.len() {
                return Ok(text);
            }
        }
        let secret: [u8; TOKEN_BYTES] = rand::rng().random();
        let token = format!("{prefix}{}", hex(&secret));
        write_secret(path, format!("{token}\n").as_bytes())?;
        Ok(token)
    }

    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, ServerError> {
        match fs::read(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(file_error(path, &e)),
        }
    }
}

fn file_error(path: &Path, error: &std::io::Error) -> ServerError {
    ServerError::File { path: path.to_owned(), why: error.to_string() }
}

/// Writes beside, syncs, and renames: after a crash the file is the old one or the new one.
fn write_secret(path: &Path, bytes: &[u8]) -> Result<(), ServerError> {
    let beside = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().map_err(|e| file_error(path, &e))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The names and addresses by which clients reach the API.
fn names(config: &ServerConfig) -> (Vec<String>, Vec<IpAddr>) {
    let mut names: Vec<String> = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
    ]
    .map(str::to_owned)
    .into();
    let first_service = config.service_range.hosts().next().map(IpAddr::V4);
    let mut addresses = vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])];
    addresses.extend(first_service);
    if !config.bind.is_unspecified() {
        addresses.push(config.bind);
    }
    addresses.extend(own_address());
    let host = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
    names.push(host);
    for name in &config.extra_names {
        match name.parse() {
            Ok(address) => addresses.push(address),
            Err(_) => names.push(name.clone()),
        }
    }
    let keep = |n: &String| !n.is_empty() && coracle_api::validation::dns1123_subdomain(n).is_empty();
    names.retain(keep);
    names.dedup();
    addresses.sort_unstable();
    addresses.dedup();
    (names, addresses)
}

/// The address this machine has towards others. Connecting a UDP socket sends nothing; it only asks the routing table.
#[must_use]
pub(crate) fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((IpAddr::from([0, 0, 0, 0]), 0)).ok()?;
    // TEST-NET-1 of RFC 5737: never a real host.
    socket.connect((IpAddr::from([192, 0, 2, 1]), 9)).ok()?;
    socket.local_addr().ok().map(|a| a.ip()).filter(|ip| !ip.is_unspecified())
}
