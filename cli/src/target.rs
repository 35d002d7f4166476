//! What the words of a command line mean: `pods`, `pods a b`, `pod/a svc/b`, `pods,services`.

use anyhow::bail;

use crate::discovery::{ApiKind, Discovery};

/// A kind, and one object of it or all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub kind: ApiKind,
    pub name: Option<String>,
}

/// Reads the words behind a command.
pub(crate) fn resolve(words: &[String], discovery: &Discovery) -> anyhow::Result<Vec<Wanted>> {
    let Some(first) = words.first() else {
        bail!(
            "Required resource not specified. Use \"coracle api-resources\" for a complete list of supported resources."
        );
    };
    if words.iter().any(|word| word.contains('/')) {
        return words.iter().map(|word| named(word, discovery)).collect();
    }
    let mut kinds = Vec::new();
    for word in first.split(',').filter(|word| !word.is_empty()) {
        for kind in discovery.find(word)? {
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
    }
    let names = &words[1..];
    if names.is_empty() {
        return Ok(kinds.into_iter().map(|kind| Wanted { kind, name: None }).collect());
    }
    let all = kinds
        .into_iter()
        .flat_map(|kind| names.iter().map(move |name| Wanted { kind: kind.clone(), name: Some(name.clone()) }));
    Ok(all.collect())
}

/// `kind/name`
fn named(word: &str, discovery: &Discovery) -> anyhow::Result<Wanted> {
    match word.split('/').collect::<Vec<_>>().as_slice() {
        [kind, name] if !kind.is_empty() && !name.is_empty() => match discovery.find(kind)?.as_slice() {
            [kind] => Ok(Wanted { kind: kind.clone(), name: Some((*name).to_owned()) }),
            _ => bail!("{kind} is several kinds: a name needs one"),
        },
        [_] => bail!(
            "there is no need to specify a resource type as a separate argument when passing arguments in resource/name form \
             (e.g. 'coracle get resource/<resource_name>' instead of 'coracle get resource resource/<resource_name>'"
        ),
        _ => bail!("arguments in resource/name form must have a single resource and name"),
    }
}

/// Reads words that must name objects, not collections.
pub(crate) fn resolve_named(words: &[String], discovery: &Discovery) -> anyhow::Result<Vec<(ApiKind, String)>> {
    resolve(words, discovery)?
        .into_iter()
        .map(|wanted| match wanted.name {
            Some(name) => Ok((wanted.kind, name)),
            None => bail!("resource(s) were provided, but no name was specified"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::resolve;
    use crate::discovery::Discovery;

    fn check(words: &str, expect: &[&str]) {
        let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        let found = resolve(&words, &Discovery::sample()).unwrap_or_else(|error| panic!("{words:?}: {error}"));
        let found: Vec<String> = found
            .into_iter()
            .map(|wanted| match wanted.name {
                Some(name) => wanted.kind.named(&name),
                None => wanted.kind.resource(),
            })
            .collect();
        assert_eq!(found, expect, "{words:?}");
    }

    #[test]
    fn words_name_kinds_and_objects() {
        check("po", &["pods"]);
        check("po,deploy,pods", &["pods", "deployments.apps"]);
        check("pod a b", &["pod/a", "pod/b"]);
        check("po,no x", &["pod/x", "node/x"]);
        check("po/a deploy/b", &["pod/a", "deployment.apps/b"]);
        check("all", &["pods", "events", "deployments.apps", "events.events.k8s.io"]);
    }

    #[test]
    fn mixed_words_are_refused() {
        for words in [&["pods", "pod/a"][..], &["pod/a", "b"], &["pod/"], &["a/b/c"], &[], &["foos"]] {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            assert!(resolve(&words, &Discovery::sample()).is_err(), "{words:?}");
        }
    }
}
