//! The cluster's certificates: made at the first start, kept, and made anew in time or when the machine gets other names.

use std::net::{IpAddr, UdpSocket};

use coracle_apiserver::auth::MASTERS;
use coracle_apiserver::pki::{self, Authority, Identity, PkiError};
use jiff::{SignedDuration, Timestamp};

use crate::files::{Files, Half, Kept};
use crate::{ServerConfig, ServerError};

/// Certificates are made anew this long before they end.
const RENEW_BEFORE: SignedDuration = SignedDuration::from_hours(30 * 24);

/// What the API server and its administrator prove themselves with.
pub(crate) struct Certificates {
    authority: Authority,
    server: Leaf,
    admin: Leaf,
}

/// A certificate that is made anew.
struct Leaf {
    identity: Identity,
    ends: Timestamp,
    /// The names it is for, as they are written beside it.
    names: String,
}

impl Certificates {
    /// Reads what is kept, and makes what is missing, damaged or soon at its end. The authority itself is never replaced:
    /// every client and node trusts it by its bytes.
    pub(crate) fn load(files: &Files, config: &ServerConfig, now: Timestamp) -> Result<Self, ServerError> {
        let authority = authority(files, now)?;
        let (names, addresses) = names(config);
        let server =
            load(files, "server", &written(&names, &addresses), now, || authority.server(&names, &addresses, now))?;
        let admin = load(files, "admin", "", now, || authority.client("admin", MASTERS, now))?;
        Ok(Self { authority, server, admin })
    }

    /// Makes anew what soon ends or is for other names than the machine has now. Whether anything was.
    pub(crate) fn renew(&mut self, files: &Files, config: &ServerConfig, now: Timestamp) -> Result<bool, ServerError> {
        let (names, addresses) = names(config);
        let wanted = written(&names, &addresses);
        let mut renewed = false;
        if !self.server.is_good(&wanted, now) {
            let identity = self.authority.server(&names, &addresses, now)?;
            self.server = keep(files, "server", identity, &wanted)?;
            renewed = true;
        }
        if !self.admin.is_good("", now) {
            let identity = self.authority.client("admin", MASTERS, now)?;
            self.admin = keep(files, "admin", identity, "")?;
            renewed = true;
        }
        Ok(renewed)
    }

    /// The authority's certificate, in PEM.
    pub(crate) fn ca(&self) -> &str {
        &self.authority.identity().certificate
    }

    pub(crate) fn server(&self) -> &Identity {
        &self.server.identity
    }

    pub(crate) fn admin(&self) -> &Identity {
        &self.admin.identity
    }
}

impl Leaf {
    fn is_good(&self, names: &str, now: Timestamp) -> bool {
        self.names == names && self.ends.duration_since(now) > RENEW_BEFORE
    }
}

fn authority(files: &Files, now: Timestamp) -> Result<Authority, ServerError> {
    let broken = |half: Half, why: String| {
        Err(ServerError::File {
            path: files.tls_path("ca", half.ending()),
            why: format!(
                "{why}: put it back from a backup. Every client and node trusts this authority; to give them all a new one, \
                 remove ca.crt and ca.key"
            ),
        })
    };
    match files.identity("ca")? {
        Kept::Both(identity) => match Authority::load(identity) {
            Ok(authority) => Ok(authority),
            Err(error) => broken(Half::Certificate, format!("it and its key cannot be read ({error})")),
        },
        Kept::Only(Half::Certificate) => broken(Half::Key, "it is missing".to_owned()),
        // A first start that was cut off between the two: nobody has seen the certificate.
        Kept::Only(Half::Key) | Kept::Nothing => {
            let authority = Authority::generate(now)?;
            files.keep("ca", authority.identity())?;
            Ok(authority)
        }
    }
}

fn load(
    files: &Files,
    name: &str,
    wanted: &str,
    now: Timestamp,
    make: impl FnOnce() -> Result<Identity, PkiError>,
) -> Result<Leaf, ServerError> {
    if let Kept::Both(identity) = files.identity(name)? {
        let path = files.tls_path(name, "names");
        let names = std::fs::read_to_string(path).unwrap_or_default();
        match identity.der().and_then(|_| pki::expiry(&identity.certificate)) {
            Ok(ends) => {
                let leaf = Leaf { identity, ends, names };
                if leaf.is_good(wanted, now) {
                    return Ok(leaf);
                }
            }
            Err(error) => {
                let path = files.tls_path(name, "crt");
                tracing::warn!(path = %path.display(), %error, "a certificate is damaged and is made anew");
            }
        }
    }
    keep(files, name, make()?, wanted)
}

fn keep(files: &Files, name: &str, identity: Identity, names: &str) -> Result<Leaf, ServerError> {
    let ends = pki::expiry(&identity.certificate)?;
    files.keep(name, &identity)?;
    files.write(&files.tls_path(name, "names"), names.as_bytes())?;
    Ok(Leaf { identity, ends, names: names.to_owned() })
}

fn written(names: &[String], addresses: &[IpAddr]) -> String {
    format!("{names:?} {addresses:?}")
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
    let is_name = |n: &str| !n.is_empty() && coracle_api::validation::dns1123_subdomain(n).is_empty();
    let keep = |n: &String| is_name(n.strip_prefix("*.").unwrap_or(n));
    names.retain(keep);
    names.dedup();
    addresses.sort_unstable();
    addresses.dedup();
    (names, addresses)
}

/// The address this machine has towards others. Connecting a UDP socket sends nothing; it only asks the routing table.
#[must_use]
pub fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((IpAddr::from([0, 0, 0, 0]), 0)).ok()?;
    // TEST-NET-1 of RFC 5737: never a real host.
    socket.connect((IpAddr::from([192, 0, 2, 1]), 9)).ok()?;
    socket.local_addr().ok().map(|a| a.ip()).filter(|ip| !ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct World {
        _root: tempfile::TempDir,
        files: Files,
        config: ServerConfig,
    }

    fn world() -> World {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("data");
        World { files: Files::open(&dir).unwrap(), config: ServerConfig::new(dir), _root: root }
    }

    fn day(day: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + day * 86_400).unwrap()
    }

    #[test]
    fn certificates_are_renewed_while_the_server_runs() {
        let mut world = world();
        let mut certificates = Certificates::load(&world.files, &world.config, day(0)).unwrap();
        let first = (certificates.ca().to_owned(), certificates.server().clone(), certificates.admin().clone());
        assert!(!certificates.renew(&world.files, &world.config, day(300)).unwrap());
        assert!(certificates.renew(&world.files, &world.config, day(340)).unwrap());
        assert_eq!(certificates.ca(), first.0);
        assert!(*certificates.server() != first.1 && *certificates.admin() != first.2);
        assert!(!certificates.renew(&world.files, &world.config, day(341)).unwrap());
        // Another name: only the server's certificate has names.
        let before = (certificates.server().clone(), certificates.admin().clone());
        world.config.extra_names.push("edge.example".to_owned());
        assert!(certificates.renew(&world.files, &world.config, day(341)).unwrap());
        assert!(*certificates.server() != before.0 && *certificates.admin() == before.1);
        let again = Certificates::load(&world.files, &world.config, day(342)).unwrap();
        assert!(again.server() == certificates.server() && again.admin() == certificates.admin());
    }

    #[test]
    fn an_authority_is_never_replaced() {
        let world = world();
        Certificates::load(&world.files, &world.config, day(0)).unwrap();
        let kept = fs::read(world.files.tls_path("ca", "key")).unwrap();
        fs::remove_file(world.files.tls_path("ca", "key")).unwrap();
        let missing = Certificates::load(&world.files, &world.config, day(0)).err().unwrap().to_string();
        assert!(missing.contains("ca.key: it is missing: put it back"), "{missing}");
        fs::write(world.files.tls_path("ca", "key"), "no key").unwrap();
        let damaged = Certificates::load(&world.files, &world.config, day(0)).err().unwrap().to_string();
        assert!(damaged.contains("ca.crt: it and its key cannot be read"), "{damaged}");
        fs::write(world.files.tls_path("ca", "key"), kept).unwrap();
        Certificates::load(&world.files, &world.config, day(0)).unwrap();
    }

    #[test]
    fn a_damaged_leaf_is_made_anew() {
        let world = world();
        let first = Certificates::load(&world.files, &world.config, day(0)).unwrap();
        fs::write(world.files.tls_path("server", "crt"), "-----BEGIN CERTIFICATE-----\nx").unwrap();
        fs::remove_file(world.files.tls_path("admin", "key")).unwrap();
        let second = Certificates::load(&world.files, &world.config, day(0)).unwrap();
        assert_eq!(second.ca(), first.ca());
        assert!(second.server() != first.server() && second.admin() != first.admin());
    }
}
