//! Registry logins out of `imagePullSecrets`, matched to images as the kubelet's keyring does
//! (`k8s.io/kubernetes/pkg/credentialprovider`): by host, port and path prefix, `*`, `?` and `[…]` in the parts of a host's name, the
//! more specific key first, every match a candidate. It only reads Secrets it is given.

use std::fmt;

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD},
};
use k8s_openapi::api::core::v1::Secret;
use serde_json::Value;

/// What `docker login` writes for the default registry, as a key.
const DEFAULT_REGISTRY: &str = "index.docker.io";

/// The logins of a pod's Secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Keyring {
    /// The more specific key first, which is the reverse of the alphabet; logins of one key in the order of their Secrets.
    logins: Vec<(String, Login)>,
    /// Why a Secret cannot be read. With one such no login is used, and the pull that would need them fails.
    broken: Option<String>,
}

/// A user name and a password.
type Login = (String, String);

impl fmt::Debug for Keyring {
    /// Never prints a login.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<&String> = self.logins.iter().map(|(key, _)| key).collect();
        f.debug_struct("Keyring").field("keys", &keys).field("broken", &self.broken).finish()
    }
}

impl Keyring {
    /// The logins of Secrets of the types `kubernetes.io/dockerconfigjson` and `kubernetes.io/dockercfg`; others hold none.
    pub fn of<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let mut keyring = Self::default();
        for secret in secrets {
            match read(secret) {
                Ok(logins) => keyring.logins.extend(logins),
                Err(why) => {
                    let name = secret.metadata.name.as_deref().unwrap_or_default();
                    let broken = Some(format!("the image pull secret {name:?} cannot be read: {why}"));
                    return Self { logins: Vec::new(), broken };
                }
            }
        }
        keyring.logins.sort_by(|(one, _), (other, _)| other.cmp(one));
        keyring
    }

    /// User names and passwords to try for a repository (`docker.io/library/hello`), in this order. None at all means that it
    /// is asked for without a login; with some, it is not.
    ///
    /// # Errors
    /// A Secret cannot be read; the words are for the user.
    pub fn lookup(&self, repository: &str) -> Result<Vec<(String, String)>, String> {
        if let Some(why) = &self.broken {
            return Err(why.clone());
        }
        let of = |wanted: &dyn Fn(&str) -> bool| -> Vec<Login> {
            self.logins.iter().filter(|(key, _)| wanted(key)).map(|(_, login)| login.clone()).collect()
        };
        let found = of(&|key| fits(key, repository));
        if found.is_empty() && is_default(repository) {
            return Ok(of(&|key| key == DEFAULT_REGISTRY));
        }
        Ok(found)
    }
}

fn read(secret: &Secret) -> Result<Vec<(String, Login)>, String> {
    let (key, nested) = match secret.type_.as_deref() {
        Some("kubernetes.io/dockerconfigjson") => (".dockerconfigjson", true),
        Some("kubernetes.io/dockercfg") => (".dockercfg", false),
        _ => return Ok(Vec::new()),
    };
    let data = secret.data.as_ref().and_then(|data| data.get(key)).filter(|data| !data.0.is_empty());
    let Some(data) = data else { return Ok(Vec::new()) };
    // Its error tells a place and never what is there.
    let mut config: Value = serde_json::from_slice(&data.0).map_err(|error| format!("{key}: {error}"))?;
    let auths = if nested { config["auths"].take() } else { config };
    match auths {
        Value::Object(auths) => {
            auths.iter().map(|(registry, entry)| Ok((index(registry), login(registry, entry)?))).collect()
        }
        Value::Null => Ok(Vec::new()),
        _ => Err(format!("{key}: the registries are no object")),
    }
}

/// The key of an entry: host and path, without scheme, and without the API's version that Docker puts there.
fn index(registry: &str) -> String {
    let bare = registry.strip_prefix("https://").or(registry.strip_prefix("http://")).unwrap_or(registry);
    let (host, path) = bare.find('/').map_or((bare, ""), |at| bare.split_at(at));
    let path = match path.strip_prefix("/v1/").or(path.strip_prefix("/v2/")) {
        // The slash before what follows stays.
        Some(rest) => &path[path.len() - rest.len() - 1..],
        None => path,
    };
    if path == "/" { host.to_owned() } else { format!("{host}{path}") }
}

fn login(registry: &str, entry: &Value) -> Result<Login, String> {
    let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    let encoded = text("auth");
    if encoded.is_empty() {
        return Ok((text("username"), text("password")));
    }
    let engine = if encoded.ends_with('=') { STANDARD } else { STANDARD_NO_PAD };
    // Padding is also absent where none is needed.
    let decoded = engine.decode(encoded.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let parts = decoded.as_deref().and_then(|text| text.split_once(':'));
    let (user, password) = parts.ok_or_else(|| {
        format!("unable to parse auth field of {registry:?}, must be formatted as base64(username:password)")
    })?;
    Ok((user.to_owned(), password.trim_end_matches('\0').to_owned()))
}

/// Whether a key is for a repository: as many parts in the host's name, the same port, and a path that begins so.
fn fits(key: &str, repository: &str) -> bool {
    let split = |text: &str| -> (String, String, String) {
        let (authority, path) = text.find('/').map_or((text, ""), |at| text.split_at(at));
        // The colons of an address in brackets are its own.
        let after_bracket = authority.rfind(']').map_or(0, |at| at + 1);
        let (host, port) = match authority[after_bracket..].rfind(':') {
            Some(at) => (&authority[..after_bracket + at], &authority[after_bracket + at + 1..]),
            None => (authority, ""),
        };
        (host.to_owned(), port.to_owned(), path.to_owned())
    };
    let ((key_host, key_port, key_path), (host, port, path)) = (split(key), split(repository));
    let (key_parts, parts): (Vec<_>, Vec<_>) = (key_host.split('.').collect(), host.split('.').collect());
    key_port == port
        && path.starts_with(&key_path)
        && key_parts.len() == parts.len()
        && key_parts.iter().zip(&parts).all(|(pattern, part)| glob(pattern.as_bytes(), part.as_bytes()))
}

/// Go's `filepath.Match` on a part of a host's name: `*`, `?`, `[a-z]`, `[^a-z]`, and `\` before what is meant as it is. A
/// pattern that is malformed fits nothing.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match pattern {
        [] => text.is_empty(),
        [b'*', rest @ ..] => (0..=text.len()).any(|skipped| glob(rest, &text[skipped..])),
        [b'?', rest @ ..] => !text.is_empty() && glob(rest, &text[1..]),
        [b'[', rest @ ..] => match (class(rest, text.first().copied()), text) {
            (Some((true, rest)), [_, text @ ..]) => glob(rest, text),
            _ => false,
        },
        [b'\\', byte, rest @ ..] | [byte, rest @ ..] => text.first() == Some(byte) && glob(rest, &text[1..]),
    }
}

/// Whether a class of characters, after its bracket, has a byte; and what follows the class.
fn class(pattern: &[u8], byte: Option<u8>) -> Option<(bool, &[u8])> {
    let byte = byte?;
    let (negated, mut rest) = match pattern {
        [b'^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut has = false;
    loop {
        let (low, after) = match rest {
            [b']', after @ ..] if rest.len() < pattern.len() - usize::from(negated) => {
                return Some((has != negated, after));
            }
            [b'\\', low, after @ ..] => (*low, after),
            [low, after @ ..] if !b"]-".contains(low) => (*low, after),
            _ => return None,
        };
        let (high, after) = match after {
            [b'-', b'\\', high, after @ ..] => (*high, after),
            [b'-', high, after @ ..] if *high != b']' => (*high, after),
            [b'-', ..] => return None,
            after => (low, after),
        };
        has |= (low..=high).contains(&byte);
        rest = after;
    }
}

/// Whether a repository is Docker Hub's.
fn is_default(repository: &str) -> bool {
    match repository.split_once('/') {
        None => true,
        Some((host, _)) => host == "docker.io" || host == DEFAULT_REGISTRY || !host.contains(['.', ':']),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    fn secret(kind: &str, text: &str) -> Secret {
        let key = kind.replace("kubernetes.io/", ".");
        let data = Some([(key, ByteString(text.as_bytes().to_vec()))].into());
        let mut secret = Secret { type_: Some(kind.to_owned()), data, ..Secret::default() };
        secret.metadata.name = Some("pull".to_owned());
        secret
    }

    fn json(text: &str) -> Secret {
        secret("kubernetes.io/dockerconfigjson", text)
    }

    fn users(keyring: &Keyring, repository: &str) -> Vec<String> {
        keyring.lookup(repository).unwrap().into_iter().map(|(user, password)| format!("{user}/{password}")).collect()
    }

    #[test]
    fn both_types_and_both_forms_of_an_entry_are_read() {
        let new = json(
            r#"{"auths": {"https://index.docker.io/v1/": {"auth": "dTpwOnc="}, "ghcr.io": {"username": "a", "password": "b"}}}"#,
        );
        let old =
            secret("kubernetes.io/dockercfg", r#"{"quay.io": {"auth": "eDp5eg", "email": "nobody@example.org"}}"#);
        let opaque = secret("Opaque", r#"{"auths": {"quay.io": {"username": "not", "password": "ours"}}}"#);
        let keyring = Keyring::of([&new, &old, &opaque]);
        assert_eq!(users(&keyring, "docker.io/library/hello"), ["u/p:w"]);
        assert_eq!(users(&keyring, "ghcr.io/team/hello"), ["a/b"]);
        assert_eq!(users(&keyring, "quay.io/hello"), ["x/yz"]);
        assert_eq!(
            format!("{keyring:?}"),
            r#"Keyring { keys: ["quay.io", "index.docker.io", "ghcr.io"], broken: None }"#
        );
    }

    #[test]
    fn keys_fit_as_in_the_kubelet_s_keyring() {
        for (key, repository, expect) in [
            ("ghcr.io", "ghcr.io/team/hello", true),
            ("https://ghcr.io/", "ghcr.io/team/hello", true),
            ("http://ghcr.io/v2/", "ghcr.io/team/hello", true),
            ("https://ghcr.io/v1/team", "ghcr.io/team/hello", true),
            ("https://ghcr.io/v1/other", "ghcr.io/team/hello", false),
            ("ghcr.io/team", "ghcr.io/team/hello", true),
            // A prefix is one of text, not of parts.
            ("ghcr.io/te", "ghcr.io/team/hello", true),
            ("ghcr.io/team/hello/more", "ghcr.io/team/hello", false),
            ("*.io", "ghcr.io/team/hello", true),
            ("*.io", "a.ghcr.io/team/hello", false),
            ("*.*.io", "a.ghcr.io/team/hello", true),
            ("prefix*.io", "prefixed.io/x", true),
            ("prefix*.io", "other.io/x", false),
            ("g?cr.[a-j]o", "ghcr.io/x", true),
            ("gh[^a-d]r.io", "ghcr.io/x", false),
            ("gh[.io", "gh[.io/x", false),
            ("r.example", "r.example:5000/x", false),
            ("r.example:5000", "r.example:5000/x", true),
            ("r.example:5001", "r.example:5000/x", false),
            ("*.example:5000", "r.example:5000/x", true),
            ("[fd00::1]:5000", "[fd00::1]:5000/x", false),
            ("index.docker.io", "docker.io/library/hello", true),
            ("docker.io", "docker.io/library/hello", true),
            ("index.docker.io", "quay.io/hello", false),
        ] {
            let text = serde_json::json!({"auths": {key: {"username": "u", "password": "p"}}}).to_string();
            let found = !users(&Keyring::of([&json(&text)]), repository).is_empty();
            assert_eq!(found, expect, "{key} for {repository}");
        }
    }

    #[test]
    fn the_more_specific_comes_first_and_every_match_is_a_candidate() {
        let first = json(
            r#"{"auths": {"r.io": {"username": "1", "password": ""}, "r.io/team": {"username": "2", "password": ""},
                "*.io": {"username": "3", "password": ""}, "other.io": {"username": "4", "password": ""}}}"#,
        );
        let second = json(r#"{"auths": {"r.io": {"username": "5", "password": ""}}}"#);
        let keyring = Keyring::of([&first, &second]);
        assert_eq!(users(&keyring, "r.io/team/hello"), ["2/", "1/", "5/", "3/"]);
        assert_eq!(users(&keyring, "r.io/else"), ["1/", "5/", "3/"]);
        assert!(users(&keyring, "nowhere.example/x").is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_told_without_what_is_in_it() {
        for (text, why) in [
            ("sesame", "expected value at line 1"),
            (r#"{"auths": "sesame"}"#, "the registries are no object"),
            (r#"{"auths": {"r.io": {"auth": "c2VzYW1l"}}}"#, "base64(username:password)"),
            (r#"{"auths": {"r.io": {"auth": "sesame!"}}}"#, "unable to parse auth field of \"r.io\""),
        ] {
            let error = Keyring::of([&json(text)]).lookup("r.io/x").unwrap_err();
            assert!(error.starts_with("the image pull secret \"pull\" cannot be read: "), "{error}");
            assert!(error.contains(why) && !error.contains("sesame"), "{error}");
        }
    }
}
