//! Image references as the Docker and containerd clients read them: `hello` is `docker.io/library/hello:latest`. It asks
//! nobody whether an image exists.

use std::{fmt, str::FromStr};

use crate::Digest;

/// Longest repository name, host included.
const MAX_NAME_BYTES: usize = 255;

/// Longest tag.
const MAX_TAG_BYTES: usize = 128;

const DEFAULT_REGISTRY: &str = "docker.io";

/// A full image reference: always a registry and a path, and a tag, a digest or both.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageReference {
    registry: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is no image reference; in the words of the reference grammar's own parser.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReference {
    /// It does not fit the grammar.
    #[error("invalid reference format")]
    Format,
    /// Repositories are lower-case.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    /// Too long.
    #[error("repository name must not be more than 255 characters")]
    TooLong,
    /// Only sha256 is understood.
    #[error("unsupported digest algorithm")]
    DigestAlgorithm,
}

impl ImageReference {
    /// Host and port of the registry, `docker.io` unless another was named.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository's path in the registry.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag, if there is one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if there is one.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// `registry/path`, without tag and digest.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.registry, self.path)
    }

    /// The same repository at a digest, as `imageID` shows it.
    pub fn at(&self, digest: &Digest) -> String {
        format!("{}@{digest}", self.repository())
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ImageReference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        // 64 hexadecimal digits alone could be an image id.
        if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)) {
            return Err(InvalidReference::Format);
        }
        let (rest, digest) = match text.split_once('@') {
            None => (text, None),
            Some((rest, digest)) => (rest, Some(parse_digest(digest)?)),
        };
        // A colon after the last slash starts a tag; one before it belongs to a port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        let (registry, path) = split_registry(name);
        if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(InvalidReference::Uppercase(path));
        }
        if !registry_is_valid(registry) || !path.split('/').all(component_is_valid) {
            return Err(InvalidReference::Format);
        }
        if tag.is_some_and(|tag| !tag_is_valid(tag)) {
            return Err(InvalidReference::Format);
        }
        if registry.len() + 1 + path.len() > MAX_NAME_BYTES {
            return Err(InvalidReference::TooLong);
        }
        let tag = tag.map(str::to_owned).or_else(|| digest.is_none().then(|| "latest".to_owned()));
        Ok(Self { registry: registry.to_owned(), path, tag, digest })
    }
}

fn parse_digest(text: &str) -> Result<Digest, InvalidReference> {
    Digest::parse(text).ok_or_else(|| match text.split_once(':') {
        Some((algorithm, hex)) if algorithm != "sha256" && !algorithm.is_empty() && hex.len() >= 32 => {
            InvalidReference::DigestAlgorithm
        }
        _ => InvalidReference::Format,
    })
}

/// The first component is a registry when it looks like a host: it holds a dot or a colon, is `localhost`, or has upper-case
/// letters, which a path cannot have.
fn split_registry(name: &str) -> (&str, String) {
    let (registry, path) = match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_REGISTRY, name),
    };
    let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
    if registry == DEFAULT_REGISTRY && !path.contains('/') {
        return (registry, format!("library/{path}"));
    }
    (registry, path.to_owned())
}

fn registry_is_valid(registry: &str) -> bool {
    let (host, port) = match registry.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, port)) => {
                return host.parse::<std::net::Ipv6Addr>().is_ok() && (port.is_empty() || port_is_valid(&port[1..]));
            }
            None => return false,
        },
        None => registry.split_once(':').map_or((registry, None), |(host, port)| (host, Some(port))),
    };
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !label.is_empty() && !label.starts_with('-') && !label.ends_with('-') && label.bytes().all(inner)
    };
    host.split('.').all(label) && port.is_none_or(port_is_valid)
}

fn port_is_valid(port: &str) -> bool {
    !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
}

/// Lower-case letters and digits, parted by one dot, one or two underscores or any number of hyphens.
fn component_is_valid(component: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let separators =
        component.split(|character: char| character.is_ascii_alphanumeric()).filter(|part| !part.is_empty());
    let mut separators = separators;
    component.bytes().next().is_some_and(alphanumeric)
        && component.bytes().last().is_some_and(alphanumeric)
        && component.bytes().all(|byte| alphanumeric(byte) || b"._-".contains(&byte))
        && separators.all(|part| matches!(part, "." | "_" | "__") || part.bytes().all(|byte| byte == b'-'))
}

fn tag_is_valid(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= MAX_TAG_BYTES
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn short_names_get_their_defaults() {
        for (text, full) in [
            ("hello", "docker.io/library/hello:latest"),
            ("hello:v1", "docker.io/library/hello:v1"),
            ("team/hello", "docker.io/team/hello:latest"),
            ("docker.io/hello", "docker.io/library/hello:latest"),
            ("index.docker.io/hello", "docker.io/library/hello:latest"),
            ("ghcr.io/team/hello:1.2-rc.1", "ghcr.io/team/hello:1.2-rc.1"),
            ("localhost/hello", "localhost/hello:latest"),
            ("localhost:5000/a/b/c:x", "localhost:5000/a/b/c:x"),
            ("Registry/hello", "Registry/hello:latest"),
            ("[fd00::1]:5000/hello", "[fd00::1]:5000/hello:latest"),
            ("a__b/c-----d.e:T_1", "docker.io/a__b/c-----d.e:T_1"),
        ] {
            assert_eq!(text.parse::<ImageReference>().unwrap().to_string(), full, "{text}");
        }
    }

    #[test]
    fn a_digest_stands_alone_or_beside_a_tag() {
        let only = format!("hello@sha256:{HEX}").parse::<ImageReference>().unwrap();
        assert_eq!(only.to_string(), format!("docker.io/library/hello@sha256:{HEX}"));
        assert_eq!(only.tag(), None);
        let both = format!("hello:v1@sha256:{HEX}").parse::<ImageReference>().unwrap();
        assert_eq!(both.to_string(), format!("docker.io/library/hello:v1@sha256:{HEX}"));
        assert_eq!(both.at(both.digest().unwrap()), only.to_string());
    }

    #[test]
    fn what_is_no_reference_is_refused_in_docker_s_words() {
        for (text, message) in [
            ("", "invalid reference format"),
            ("hello:", "invalid reference format"),
            ("hello world", "invalid reference format"),
            ("hello@sha256:12", "invalid reference format"),
            (HEX, "invalid reference format"),
            ("a//b", "invalid reference format"),
            ("a/-b", "invalid reference format"),
            ("a___b", "invalid reference format"),
            ("a..b", "invalid reference format"),
            ("localhost:port/a", "invalid reference format"),
            ("Hello", "invalid reference format: repository name (library/Hello) must be lowercase"),
            ("ghcr.io/Team/x", "invalid reference format: repository name (Team/x) must be lowercase"),
        ] {
            assert_eq!(text.parse::<ImageReference>().unwrap_err().to_string(), message, "{text}");
        }
        let long = "a".repeat(256);
        assert_eq!(long.parse::<ImageReference>(), Err(InvalidReference::TooLong));
        let sha512 = format!("hello@sha512:{HEX}");
        assert_eq!(sha512.parse::<ImageReference>(), Err(InvalidReference::DigestAlgorithm));
        assert!(format!("hello:{}", "a".repeat(129)).parse::<ImageReference>().is_err());
    }
}
