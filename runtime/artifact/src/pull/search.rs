//! The order of a pull's attempts: each place of an image, and at each the logins that are meant for it. It asks one place with
//! one login at a time; what is fetched there, and where to, is the business of whoever searches.

use std::collections::VecDeque;

use reqwest::Client;
use tokio::sync::{OwnedMutexGuard, SemaphorePermit};

use super::{
    Login, Logins,
    registry::{Blob, Registry},
};
use crate::{
    ArtifactError, Digest, ImageReference, PullError,
    manifest::{DOCKER_INDEX, DOCKER_MANIFEST, INDEX, MANIFEST},
    registries::Endpoint,
};

/// A pull under way. While it lives no other one of this reference begins.
pub struct Search<'a> {
    reference: &'a ImageReference,
    client: &'a Client,
    max_manifest_bytes: u64,
    /// What is not tried yet, the place and login in use first.
    left: VecDeque<Place<'a>>,
    /// The first refusal of a login at this place: it says more than that of the next one.
    denied: Option<PullError>,
    /// What the places before said.
    mirrors: Vec<String>,
    _held: Option<(OwnedMutexGuard<()>, SemaphorePermit<'a>)>,
}

/// A place that is not tried yet.
struct Place<'a> {
    endpoint: Endpoint<'a>,
    /// The logins to try; `None` is without one.
    logins: VecDeque<Option<Login>>,
    /// Whether the logins were brought for this pull, and are not the node's.
    brought: bool,
}

/// One place of an image, after the login.
pub struct Remote<'a> {
    registry: Registry<'a>,
    reference: &'a ImageReference,
    max_manifest_bytes: u64,
}

impl<'a> Search<'a> {
    pub(crate) fn new(
        reference: &'a ImageReference,
        endpoints: Vec<Endpoint<'a>>,
        logins: &Logins<'_>,
        client: &'a Client,
        max_manifest_bytes: u64,
    ) -> Self {
        let with_logins = |endpoint: Endpoint<'a>| {
            let brought = logins(&endpoint.repository);
            // As the kubelet and the runtimes have it: what a pod brings goes before what the node knows, and with a login
            // there is no try without one.
            match (brought.is_empty(), endpoint.login) {
                (false, _) => Place { endpoint, logins: brought.into_iter().map(Some).collect(), brought: true },
                (true, known) => Place { endpoint, logins: [known.cloned()].into(), brought: false },
            }
        };
        let left = endpoints.into_iter().map(with_logins).collect();
        Self { reference, client, max_manifest_bytes, left, denied: None, mirrors: Vec::new(), _held: None }
    }

    pub(super) fn holding(self, turn: OwnedMutexGuard<()>, permit: SemaphorePermit<'a>) -> Self {
        Self { _held: Some((turn, permit)), ..self }
    }

    /// Goes to the next place, with the next login.
    pub async fn log_in(&self) -> Result<Remote<'a>, PullError> {
        let Place { endpoint, logins, .. } = self.left.front().ok_or_else(|| self.nothing_left())?;
        let login = logins.front().and_then(Option::as_ref);
        let client = endpoint.client.unwrap_or(self.client).clone();
        let (base, path) = (endpoint.base.clone(), endpoint.path.clone());
        let mut registry = Registry::new(self.reference, client, base, path);
        registry.log_in(login).await?;
        Ok(Remote { registry, reference: self.reference, max_manifest_bytes: self.max_manifest_bytes })
    }

    /// The login that is tried now, if it was brought for this pull: what it opens is not everyone's.
    pub fn login(&self) -> Option<&(String, String)> {
        self.left.front().filter(|place| place.brought)?.logins.front()?.as_ref()
    }

    /// Tells how the attempt failed.
    ///
    /// # Errors
    /// There is nothing else to try, or it would be of no use: this is how the pull has failed.
    pub fn failed(&mut self, error: PullError) -> Result<(), PullError> {
        let Some(Place { endpoint, logins, .. }) = self.left.front_mut() else { return Err(error) };
        let mut error = error;
        if matches!(error, PullError::Denied { .. }) {
            logins.pop_front();
            error = self.denied.take().unwrap_or(error);
            if !logins.is_empty() {
                self.denied = Some(error);
                return Ok(());
            }
        } else if !may_be_elsewhere(&error) {
            return Err(error);
        }
        let told = format!("{}: {error}", endpoint.base);
        self.left.pop_front();
        self.denied = None;
        match (self.left.is_empty(), self.mirrors.is_empty()) {
            (false, _) => {
                self.mirrors.push(told);
                Ok(())
            }
            (true, true) => Err(error),
            (true, false) => Err(PullError::Everywhere { source: Box::new(error), mirrors: self.mirrors.join("; ") }),
        }
    }

    fn nothing_left(&self) -> PullError {
        let message = "every place was tried".to_owned();
        PullError::Registry { reference: self.reference.to_string(), message }
    }
}

/// Whether another place may do better: what this node cannot use or keep is the same everywhere.
fn may_be_elsewhere(error: &PullError) -> bool {
    match error {
        PullError::Artifact { source, .. } => {
            matches!(source, ArtifactError::DigestMismatch { .. } | ArtifactError::Malformed(_))
        }
        _ => true,
    }
}

impl Remote<'_> {
    /// A manifest or an index, and its digest: the one of this digest, else the one that the reference names.
    pub async fn manifest(&self, wanted: Option<&Digest>) -> Result<(Digest, Vec<u8>), PullError> {
        let accepted = [MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_INDEX].join(", ");
        let wanted = wanted.or(self.reference.digest());
        let name = wanted.map_or_else(|| self.reference.tag().unwrap_or("latest").to_owned(), Digest::to_string);
        let json = self.registry.manifest(&name, &accepted, self.max_manifest_bytes).await?;
        let found = Digest::of(&json);
        match wanted {
            Some(wanted) if *wanted != found => {
                let what = "the manifest".to_owned();
                let source = ArtifactError::DigestMismatch { what, expected: wanted.clone(), found };
                Err(PullError::Artifact { reference: self.reference.to_string(), source })
            }
            _ => Ok((found, json)),
        }
    }

    /// A blob of this size, to be read piece by piece. Whoever keeps it checks its digest.
    pub async fn blob(&self, digest: &Digest, bytes: u64) -> Result<Blob, PullError> {
        self.registry.blob(digest, bytes).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Registries;

    fn search<'a>(
        registries: &'a Registries,
        reference: &'a ImageReference,
        logins: &Logins<'_>,
        client: &'a Client,
    ) -> Search<'a> {
        Search::new(reference, registries.endpoints(reference).unwrap(), logins, client, 1)
    }

    fn now(search: &Search<'_>) -> String {
        let place = search.left.front().unwrap();
        let (endpoint, login) = (&place.endpoint, place.logins.front().unwrap().as_ref());
        format!("{} {}", endpoint.base, login.map_or("-", |(user, _)| user))
    }

    fn denied(message: &str) -> PullError {
        PullError::Denied { reference: "r".into(), message: message.into() }
    }

    #[test]
    fn each_place_is_tried_with_each_login_that_is_meant_for_it() {
        let registries = Registries::of(
            "mirrors: {a.io: {endpoint: [https://m.io, https://n.io]}}\nconfigs: {n.io: {auth: {username: n, password: p}}, a.io: {auth: {username: known, password: p}}}",
        );
        let (reference, client) = ("a.io/x".parse().unwrap(), super::super::client().build().unwrap());
        let logins = |repository: &str| match repository {
            "a.io/x" => vec![("1".to_owned(), String::new()), ("2".to_owned(), String::new())],
            _ => Vec::new(),
        };
        let mut search = search(&registries, &reference, &logins, &client);
        let mut seen = vec![now(&search)];
        search.failed(PullError::NotFound { reference: "r".into() }).unwrap();
        seen.push(now(&search));
        assert_eq!(search.login(), None, "the node's login opens it to everyone");
        search.failed(denied("no")).unwrap();
        seen.push(now(&search));
        search.failed(denied("first")).unwrap();
        seen.push(now(&search));
        assert_eq!(seen, ["https://m.io/v2/ -", "https://n.io/v2/ n", "https://a.io/v2/ 1", "https://a.io/v2/ 2"]);
        assert_eq!(search.login().unwrap().0, "2");
        let error = search.failed(denied("second")).unwrap_err();
        assert!(matches!(error.of_registry(), PullError::Denied { message, .. } if message == "first"), "{error}");
        let words = error.to_string();
        assert!(
            words.contains("authorization: first")
                && words.contains("https://m.io/v2/: ")
                && words.contains("not found"),
            "{words}"
        );
    }

    #[test]
    fn what_no_place_can_mend_ends_the_search() {
        let registries = Registries::of("mirrors: {a.io: {endpoint: [https://m.io]}}");
        let (reference, client) = ("a.io/x".parse().unwrap(), super::super::client().build().unwrap());
        for (source, goes_on) in [
            (ArtifactError::NotAComponent("x".into()), false),
            (ArtifactError::TooBig { what: "x".into(), bytes: 2, limit: 1 }, false),
            (ArtifactError::Malformed("x".into()), true),
        ] {
            let mut search = search(&registries, &reference, &|_| Vec::new(), &client);
            let error = PullError::Artifact { reference: "r".into(), source };
            assert_eq!(search.failed(error).is_ok(), goes_on);
        }
    }
}
