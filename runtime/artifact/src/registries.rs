//! `registries.yaml`, in the form that k3s gave it: mirrors of registries, and the logins and certificates of hosts. A file that
//! says anything which is not understood is refused as a whole, with the line; it is read once, at the start.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use regex::Regex;
use reqwest::{Certificate, Client, Identity, Url};
use serde::Deserialize;
use serde_saphyr::Spanned;

use crate::{
    ImageReference,
    pull::{Login, client, is_local},
};

/// What stands for every registry, or every host, that has no entry of its own.
const ANY: &str = "*";
/// Where Docker Hub is asked; `configs` know it by any of these names.
const DOCKER_HUB: &str = "docker.io";
const DOCKER_HUB_HOSTS: [&str; 2] = ["index.docker.io", "registry-1.docker.io"];

/// How registries are reached, beside what their names say. Empty, each is asked at its own name over TLS.
#[derive(Clone, Debug, Default)]
pub struct Registries {
    mirrors: BTreeMap<String, Mirror>,
    hosts: BTreeMap<String, Access>,
}

/// The places of a registry's images that are tried before the registry itself.
#[derive(Clone, Debug, Default)]
struct Mirror {
    /// Each ends with a slash, and the API's version is in it.
    endpoints: Vec<Url>,
    /// The first that fits a repository's path changes it. In the order of the alphabet, since a YAML mapping has none.
    rewrites: Vec<(Regex, String)>,
}

/// How one host is spoken to.
#[derive(Clone, Default)]
struct Access {
    login: Option<Login>,
    /// With certificates of its own, or without a look at the host's.
    client: Option<Client>,
}

impl fmt::Debug for Access {
    /// Never prints a login.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("login", &self.login.is_some()).field("tls", &self.client.is_some()).finish()
    }
}

/// A place where an image may be had.
pub(crate) struct Endpoint<'a> {
    /// Of the API, version and slash included.
    pub(crate) base: Url,
    /// The repository's path there.
    pub(crate) path: String,
    /// Host and path, which a pod's logins are looked up by. A mirror gets those that are meant for it, never the
    /// registry's: whoever runs it need not know them.
    pub(crate) repository: String,
    /// The login of the host, for pulls that bring none.
    pub(crate) login: Option<&'a Login>,
    /// `None` is the one for hosts of which nothing is said.
    pub(crate) client: Option<&'a Client>,
}

/// Why a file of registries is refused.
#[derive(Debug, thiserror::Error)]
pub enum RegistriesError {
    /// It is not there, or cannot be read.
    #[error("cannot read the registries in {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something in it is wrong.
    #[error("{path}:{line}: {message}", path = path.display())]
    Wrong {
        /// Which file.
        path: PathBuf,
        /// Where, from 1.
        line: u64,
        /// What, with the field's name and without any value that may be a secret.
        message: String,
    },
}

impl Registries {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or is wrong.
    pub fn read(path: &Path) -> Result<Self, RegistriesError> {
        let text = fs::read_to_string(path).map_err(|source| RegistriesError::Read { path: path.into(), source })?;
        Self::parse(&text).map_err(|Wrong { line, message }| RegistriesError::Wrong {
            path: path.into(),
            line,
            message,
        })
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        let file: Option<File> = serde_saphyr::from_str(text).map_err(|error| {
            // The piece of the file that the error would show may hold a password.
            let (line, error) = (error.location().map_or(1, |at| at.line()), error.without_snippet());
            Wrong { line, message: error.to_string() }
        })?;
        let file = file.unwrap_or_default();
        let mut registries = Self::default();
        for (name, mirror) in file.mirrors.unwrap_or_default() {
            registries.mirrors.insert(name.clone(), mirror.unwrap_or_default().mirror(&name)?);
        }
        for (name, config) in file.configs.unwrap_or_default() {
            let access = config.unwrap_or_default().access(&name)?;
            registries.hosts.insert(without_scheme(&name).to_owned(), access);
        }
        Ok(registries)
    }

    /// What a file of this text says.
    #[cfg(test)]
    pub(crate) fn of(text: &str) -> Self {
        Self::parse(text).unwrap()
    }

    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        self.mirrors.is_empty() && self.hosts.is_empty()
    }

    /// Whether an image is to be had at another place than its name says, or with other certificates than the machine's.
    pub fn redirect(&self, reference: &ImageReference) -> bool {
        self.mirror(reference).is_some() || self.host(reference.registry()).is_some_and(|host| host.client.is_some())
    }

    /// User name and password of an image's own registry.
    pub fn login(&self, reference: &ImageReference) -> Option<(String, String)> {
        self.host(reference.registry())?.login.clone()
    }

    /// The names of registries and hosts that something is said of which a runtime cannot be told with a pull.
    pub fn redirected(&self) -> Vec<&str> {
        let hosts = self.hosts.iter().filter(|(_, access)| access.client.is_some());
        self.mirrors.keys().map(String::as_str).chain(hosts.map(|(name, _)| name.as_str())).collect()
    }

    /// Where to ask for an image, in this order; the registry itself is the last.
    pub(crate) fn endpoints(&self, reference: &ImageReference) -> Result<Vec<Endpoint<'_>>, String> {
        let mirror = self.mirror(reference);
        let mut all: Vec<Endpoint<'_>> = mirror
            .into_iter()
            .flat_map(|mirror| mirror.endpoints.iter().map(|base| self.mirrored(mirror, base, reference)))
            .collect();
        let registry = reference.registry();
        let access = self.host(registry);
        let client = access.and_then(|access| access.client.as_ref());
        // As Docker and containerd have it: a registry of this machine has no certificate, unless something is said of one.
        let scheme = if is_local(registry) && client.is_none() { "http" } else { "https" };
        let host = if registry == DOCKER_HUB { DOCKER_HUB_HOSTS[0] } else { registry };
        all.push(Endpoint {
            base: Url::parse(&format!("{scheme}://{host}/v2/")).map_err(|error| error.to_string())?,
            path: reference.path().to_owned(),
            repository: reference.repository(),
            login: access.and_then(|access| access.login.as_ref()),
            client,
        });
        Ok(all)
    }

    fn mirrored<'a>(&'a self, mirror: &Mirror, base: &Url, reference: &ImageReference) -> Endpoint<'a> {
        let host = host_of(base);
        let access = self.host(&host);
        let rewritten = mirror.rewrites.iter().find(|(pattern, _)| pattern.is_match(reference.path()));
        let path = rewritten.map_or_else(
            || reference.path().to_owned(),
            |(pattern, to)| pattern.replace_all(reference.path(), to.as_str()).into_owned(),
        );
        Endpoint {
            base: base.clone(),
            repository: format!("{}/{path}", named(base, &host)),
            path,
            login: access.and_then(|access| access.login.as_ref()),
            client: access.and_then(|access| access.client.as_ref()),
        }
    }

    fn mirror(&self, reference: &ImageReference) -> Option<&Mirror> {
        self.mirrors.get(reference.registry()).or_else(|| self.mirrors.get(ANY))
    }

    fn host(&self, name: &str) -> Option<&Access> {
        let hub = DOCKER_HUB_HOSTS.iter().filter(|_| name == DOCKER_HUB).find_map(|host| self.hosts.get(*host));
        self.hosts.get(name).or(hub).or_else(|| self.hosts.get(ANY))
    }
}

/// Host and port of a URL, as `configs` name them.
fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// A mirror's host as logins are looked up by it. A name without a dot or a port would be taken for a user of Docker Hub, whose
/// logins are none of the mirror's: it has its port then.
fn named(base: &Url, host: &str) -> String {
    match base.port_or_known_default() {
        Some(port) if !host.contains(['.', ':']) => format!("{host}:{port}"),
        _ => host.to_owned(),
    }
}

fn without_scheme(name: &str) -> &str {
    name.strip_prefix("https://").or(name.strip_prefix("http://")).unwrap_or(name).trim_end_matches('/')
}

/// What is wrong, and in which line.
#[derive(Debug)]
struct Wrong {
    line: u64,
    message: String,
}

impl Wrong {
    fn at<T>(place: &Spanned<T>, field: &str, why: impl fmt::Display) -> Self {
        Self { line: place.referenced.line(), message: format!("{field}: {why}") }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    mirrors: Option<BTreeMap<String, Option<MirrorFields>>>,
    configs: Option<BTreeMap<String, Option<ConfigFields>>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct MirrorFields {
    endpoint: Option<Vec<Spanned<String>>>,
    rewrite: Option<BTreeMap<String, Spanned<String>>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFields {
    auth: Option<Spanned<AuthFields>>,
    tls: Option<Spanned<TlsFields>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AuthFields {
    username: Option<String>,
    password: Option<String>,
    auth: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsFields {
    ca_file: Option<Spanned<PathBuf>>,
    cert_file: Option<Spanned<PathBuf>>,
    key_file: Option<Spanned<PathBuf>>,
    insecure_skip_verify: Option<bool>,
}

impl MirrorFields {
    fn mirror(self, name: &str) -> Result<Mirror, Wrong> {
        let endpoints = self.endpoint.iter().flatten().map(|text| {
            endpoint(&text.value).map_err(|why| Wrong::at(text, &format!("mirrors.{name:?}.endpoint"), why))
        });
        let rewrites = self.rewrite.iter().flatten().map(|(pattern, to)| {
            let field = format!("mirrors.{name:?}.rewrite.{pattern:?}");
            match Regex::new(pattern) {
                Ok(known) => Ok((known, to.value.clone())),
                Err(_) => Err(Wrong::at(to, &field, "this is no regular expression")),
            }
        });
        Ok(Mirror { endpoints: endpoints.collect::<Result<_, _>>()?, rewrites: rewrites.collect::<Result<_, _>>()? })
    }
}

/// The root of the API at an endpoint: with no path it is `/v2`, any other path is meant as it is.
fn endpoint(text: &str) -> Result<Url, String> {
    let full = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let mut url = Url::parse(&full).map_err(|error| format!("{text:?} is no URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(format!("{text:?} is no URL of a registry, as in https://registry.example:5000"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a login stands under configs, not in the URL".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("{text:?} has more than a host and a path"));
    }
    let path = match url.path().trim_end_matches('/') {
        "" | "/v2" => "/v2/".to_owned(),
        path => format!("{path}/"),
    };
    url.set_path(&path);
    Ok(url)
}

impl ConfigFields {
    fn access(self, name: &str) -> Result<Access, Wrong> {
        let field = |rest: &str| format!("configs.{name:?}.{rest}");
        let login = self.auth.map(|auth| {
            let line = auth.referenced.line();
            auth.value.login().map_err(|why| Wrong { line, message: format!("{}: {why}", field("auth")) })
        });
        let client = self.tls.map(|tls| tls.value.client(&field("tls"), tls.referenced.line()));
        Ok(Access { login: login.transpose()?, client: client.transpose()?.flatten() })
    }
}

impl AuthFields {
    fn login(self) -> Result<Login, &'static str> {
        let encoded = self.auth.filter(|auth| !auth.is_empty());
        match (self.username, self.password, encoded) {
            (Some(user), Some(password), None) => Ok((user, password)),
            (None, None, Some(encoded)) => {
                let decoded = STANDARD.decode(encoded.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
                let parts = decoded.as_deref().and_then(|text| text.split_once(':'));
                let (user, password) = parts.ok_or("auth must be base64 of username:password")?;
                Ok((user.to_owned(), password.to_owned()))
            }
            _ => Err("wanted is username with password, or auth alone"),
        }
    }
}

impl TlsFields {
    /// A client for what is said; `None` where nothing is. `line` is where it is said.
    fn client(self, field: &str, line: u64) -> Result<Option<Client>, Wrong> {
        let read = |file: &Spanned<PathBuf>, name: &str| {
            let why = |error: io::Error| format!("{}: {error}", file.value.display());
            fs::read(&file.value).map_err(|error| Wrong::at(file, &format!("{field}.{name}"), why(error)))
        };
        let mut builder = client();
        let mut said = false;
        if let Some(file) = &self.ca_file {
            let no_certificate = || Wrong::at(file, &format!("{field}.ca_file"), "there is no certificate in it (PEM)");
            let certificates = Certificate::from_pem_bundle(&read(file, "ca_file")?).map_err(|_| no_certificate())?;
            if certificates.is_empty() {
                return Err(no_certificate());
            }
            (builder, said) = (builder.tls_certs_merge(certificates), true);
        }
        match (&self.cert_file, &self.key_file) {
            (None, None) => {}
            (Some(certificate), Some(key)) => {
                let mut pem = read(certificate, "cert_file")?;
                pem.push(b'\n');
                pem.extend(read(key, "key_file")?);
                let identity = Identity::from_pem(&pem).map_err(|_| {
                    Wrong::at(
                        certificate,
                        &format!("{field}.cert_file"),
                        "it and key_file are no certificate with its key (PEM)",
                    )
                })?;
                (builder, said) = (builder.identity(identity), true);
            }
            (Some(one), None) | (None, Some(one)) => {
                return Err(Wrong::at(one, field, "cert_file and key_file are wanted together"));
            }
        }
        if self.insecure_skip_verify == Some(true) {
            (builder, said) = (builder.tls_danger_accept_invalid_certs(true), true);
        }
        let made = said.then(|| builder.build()).transpose();
        made.map_err(|error| Wrong { line, message: format!("{field}: these certificates cannot be used: {error}") })
    }
}

#[cfg(test)]
mod tests;
