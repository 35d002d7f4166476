//! Metadata the server gives: names, uids, times, generations. Pure but for the clock and the dice, which the caller hands in.

use coracle_api::ApiError;
use coracle_api::kind::{Kind, Object};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use rand::Rng;

/// The longest base of a generated name: 63 less the suffix.
const MAX_GENERATE_NAME_BASE: usize = 58;
const SUFFIX_LENGTH: usize = 5;
/// The letters of suffixes: no vowels, so that no word appears, and nothing that looks like another
/// (`k8s.io/apimachinery/pkg/util/rand`).
const SUFFIX_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A name from `generateName`.
pub(crate) fn generated_name(base: &str, rng: &mut impl Rng) -> String {
    let cut =
        base.char_indices().map(|(i, c)| i + c.len_utf8()).take_while(|end| *end <= MAX_GENERATE_NAME_BASE).last();
    let mut name = base[..cut.unwrap_or(0)].to_owned();
    for _ in 0..SUFFIX_LENGTH {
        name.push(char::from(SUFFIX_LETTERS[rng.random_range(0..SUFFIX_LETTERS.len())]));
    }
    name
}

/// Kubernetes' times have whole seconds.
pub(crate) fn whole_seconds(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// Fills the metadata of a new object.
///
/// # Errors
/// The namespace does not agree with the path, or the client set what it may not.
pub(crate) fn fill_new(
    kind: &Kind,
    namespace: &str,
    object: &mut dyn Object,
    now: Timestamp,
    rng: &mut impl Rng,
) -> Result<(), ApiError> {
    place(kind, namespace, object.meta_mut())?;
    let meta = object.meta_mut();
    if meta.resource_version.as_deref().is_some_and(|v| !v.is_empty() && v != "0") {
        return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
    }
    if meta.name.as_deref().unwrap_or_default().is_empty()
        && let Some(base) = meta.generate_name.as_deref().filter(|b| !b.is_empty())
    {
        meta.name = Some(generated_name(base, rng));
    }
    meta.resource_version = None;
    meta.self_link = None;
    meta.deletion_timestamp = None;
    meta.deletion_grace_period_seconds = None;
    meta.creation_timestamp = Some(whole_seconds(now));
    meta.uid = Some(uuid::Builder::from_random_bytes(rng.random()).into_uuid().to_string());
    meta.generation = kind.info.has_generation.then_some(1);
    Ok(())
}

/// The object's namespace must be that of the path.
///
/// # Errors
/// It is another.
pub(crate) fn place(kind: &Kind, namespace: &str, meta: &mut ObjectMeta) -> Result<(), ApiError> {
    if !kind.namespaced() {
        // A namespace on what has none is dropped without a word (`EnsureObjectNamespaceMatchesRequestNamespace`).
        meta.namespace = None;
        return Ok(());
    }
    match meta.namespace.as_deref() {
        None | Some("") => meta.namespace = Some(namespace.to_owned()),
        Some(given) if given == namespace => {}
        Some(_) => {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
    }
    Ok(())
}

/// Carries over what an update cannot change.
pub(crate) fn carry_over(new: &mut ObjectMeta, old: &ObjectMeta) {
    new.generate_name.clone_from(&old.generate_name);
    new.creation_timestamp.clone_from(&old.creation_timestamp);
    new.deletion_timestamp.clone_from(&old.deletion_timestamp);
    new.deletion_grace_period_seconds = old.deletion_grace_period_seconds;
    new.self_link = None;
    new.uid.clone_from(&old.uid);
    new.generation = old.generation;
    new.resource_version.clone_from(&old.resource_version);
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;

    #[test]
    fn generated_names_fit_a_label() {
        let mut rng = rand::rngs::StdRng::seed_from_u64(1);
        for base in ["web-", &"x".repeat(80), &"ä".repeat(60)] {
            let name = generated_name(base, &mut rng);
            assert!(name.len() <= 63 && name.len() > SUFFIX_LENGTH, "{name}");
            assert!(base.starts_with(&name[..name.len() - SUFFIX_LENGTH]));
        }
    }
}
