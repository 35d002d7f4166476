//! The kinds a server has, and how people call them: plural, singular, short name, kind, category, with or without group.

use anyhow::bail;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::Value;

use crate::cluster::{Call, Cluster};

/// Discovery of all groups in one answer.
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

/// What a name in a path may not hold as it is.
const SEGMENT: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'/')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'`')
    .add(b'{')
    .add(b'}');

/// A kind of object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ApiKind {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub plural: String,
    pub singular: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub namespaced: bool,
    pub verbs: Vec<String>,
}

impl ApiKind {
    /// `deployments.apps`, as the server's messages have it.
    pub(crate) fn resource(&self) -> String {
        dotted(&self.plural, &self.group)
    }

    /// `deployment.apps/hello`, as kubectl's messages have it.
    pub(crate) fn named(&self, name: &str) -> String {
        format!("{}/{name}", self.shown())
    }

    /// `deployment.apps`
    pub(crate) fn shown(&self) -> String {
        dotted(&self.kind.to_lowercase(), &self.group)
    }

    /// `Deployment.apps`
    pub(crate) fn group_kind(&self) -> String {
        dotted(&self.kind, &self.group)
    }

    /// `apps/v1`
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// Path of the objects of a namespace, or of all.
    pub(crate) fn collection(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() { "/api" } else { "/apis" };
        let namespace = namespace.filter(|_| self.namespaced).map(|name| format!("/namespaces/{}", segment(name)));
        format!("{root}/{}{}/{}", self.api_version(), namespace.unwrap_or_default(), self.plural)
    }

    /// Path of one object.
    pub(crate) fn object(&self, namespace: &str, name: &str) -> String {
        format!("{}/{}", self.collection(Some(namespace)), segment(name))
    }
}

fn segment(name: &str) -> String {
    utf8_percent_encode(name, SEGMENT).to_string()
}

fn dotted(name: &str, group: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}

/// All kinds of a server.
#[derive(Debug, Clone, Default)]
pub(crate) struct Discovery {
    kinds: Vec<ApiKind>,
}

impl Discovery {
    /// Asks the server.
    pub(crate) async fn fetch(cluster: &Cluster) -> anyhow::Result<Self> {
        let core = cluster.json(Call::get("/api").accept(AGGREGATED)).await?;
        let groups = cluster.json(Call::get("/apis").accept(AGGREGATED)).await?;
        if core["kind"] != "APIGroupDiscoveryList" {
            bail!("{} does not offer aggregated discovery (Kubernetes 1.30 or later does)", cluster.server());
        }
        Ok(Self { kinds: kinds(&core).chain(kinds(&groups)).collect() })
    }

    /// Each kind in the version that the server prefers, in the order of groups and names.
    pub(crate) fn preferred(&self) -> Vec<&ApiKind> {
        let mut kinds: Vec<&ApiKind> = self.kinds.iter().collect();
        // A group's versions come in the server's order: the first of each kind stays.
        kinds.sort_by_key(|kind| (&kind.group, &kind.plural));
        kinds.dedup_by_key(|kind| (&kind.group, &kind.plural));
        kinds
    }

    /// The kinds that a word means: one, or those of a category such as `all`.
    pub(crate) fn find(&self, word: &str) -> anyhow::Result<Vec<ApiKind>> {
        let in_category = |kind: &&ApiKind| kind.categories.iter().any(|category| category == word);
        let lower = word.to_lowercase();
        if let Some(kind) = self.find_one(&lower) {
            return Ok(vec![kind.clone()]);
        }
        let category: Vec<ApiKind> = self.kinds.iter().filter(in_category).cloned().collect();
        if category.is_empty() {
            bail!("the server doesn't have a resource type {word:?}");
        }
        Ok(category)
    }

    fn find_one(&self, lower: &str) -> Option<&ApiKind> {
        let by = |test: &dyn Fn(&ApiKind) -> bool| self.kinds.iter().find(|kind| test(kind));
        let is = |kind: &ApiKind, word: &str| {
            kind.plural == word || kind.singular == word || kind.kind.to_lowercase() == word
        };
        by(&|kind| is(kind, lower)).or_else(|| by(&|kind| kind.short_names.iter().any(|short| short == lower))).or_else(
            || {
                let (name, rest) = lower.split_once('.')?;
                let is = |kind: &ApiKind| is(kind, name) || kind.short_names.iter().any(|short| short == name);
                by(&|kind| is(kind) && kind.group == rest)
                    .or_else(|| by(&|kind| is(kind) && rest == format!("{}.{}", kind.version, kind.group)))
                    // A group's first part is enough, as kubectl has it.
                    .or_else(|| by(&|kind| is(kind) && kind.group.split('.').next() == Some(rest)))
            },
        )
    }

    /// The kind of an object.
    pub(crate) fn of(&self, api_version: &str, kind: &str) -> Option<&ApiKind> {
        self.kinds.iter().find(|known| known.kind == kind && known.api_version() == api_version)
    }
}

fn kinds(list: &Value) -> impl Iterator<Item = ApiKind> {
    let empty = &[] as &[Value];
    let items = |value: &Value| value.as_array().map_or(empty, Vec::as_slice).to_vec();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let texts = move |value: &Value| items(value).iter().map(text).collect::<Vec<_>>();
    let mut kinds = Vec::new();
    for group in items(&list["items"]) {
        for version in items(&group["versions"]) {
            for resource in items(&version["resources"]) {
                let response = &resource["responseKind"];
                let kind = text(&response["kind"]);
                if kind.is_empty() {
                    continue;
                }
                kinds.push(ApiKind {
                    group: text(&group["metadata"]["name"]),
                    version: text(&version["version"]),
                    plural: text(&resource["resource"]),
                    singular: match resource["singularResource"].as_str() {
                        Some("") | None => kind.to_lowercase(),
                        Some(name) => name.to_owned(),
                    },
                    kind,
                    short_names: texts(&resource["shortNames"]),
                    categories: texts(&resource["categories"]),
                    namespaced: resource["scope"] == "Namespaced",
                    verbs: texts(&resource["verbs"]),
                });
            }
        }
    }
    kinds.into_iter()
}

#[cfg(test)]
impl Discovery {
    /// A few kinds, for the tests of the commands.
    pub(crate) fn sample() -> Self {
        let kind = |group: &str, kind: &str, plural: &str, short: &[&str], namespaced| ApiKind {
            group: group.to_owned(),
            version: "v1".to_owned(),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
            singular: kind.to_lowercase(),
            short_names: short.iter().map(|name| (*name).to_owned()).collect(),
            categories: if namespaced { vec!["all".to_owned()] } else { Vec::new() },
            namespaced,
            verbs: ["get", "list", "watch", "create", "delete", "patch"].map(str::to_owned).to_vec(),
        };
        Self {
            kinds: vec![
                kind("", "Pod", "pods", &["po"], true),
                kind("", "Event", "events", &["ev"], true),
                kind("", "Node", "nodes", &["no"], false),
                kind("apps", "Deployment", "deployments", &["deploy"], true),
                kind("events.k8s.io", "Event", "events", &["ev"], true),
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Discovery, kinds};

    #[test]
    fn kinds_have_many_names() {
        let discovery = Discovery::sample();
        for (word, expect) in [
            ("pods", "pods"),
            ("Pod", "pods"),
            ("po", "pods"),
            ("deploy", "deployments.apps"),
            ("deployments.apps", "deployments.apps"),
            ("deployments.v1.apps", "deployments.apps"),
            ("deploy.apps", "deployments.apps"),
            ("events", "events"),
            ("events.events.k8s.io", "events.events.k8s.io"),
            ("ev.events", "events.events.k8s.io"),
        ] {
            let found = discovery.find(word).unwrap_or_else(|error| panic!("{word}: {error}"));
            assert_eq!(found.iter().map(|kind| kind.resource()).collect::<Vec<_>>(), [expect], "{word}");
        }
        assert_eq!(discovery.find("all").expect("a category").len(), 4);
        assert_eq!(
            discovery.find("foos").expect_err("there is none").to_string(),
            "the server doesn't have a resource type \"foos\""
        );
    }

    #[test]
    fn paths_are_the_servers() {
        let discovery = Discovery::sample();
        let one = |word| discovery.find(word).expect("it is known").remove(0);
        assert_eq!(one("deploy").object("ns", "x"), "/apis/apps/v1/namespaces/ns/deployments/x");
        assert_eq!(one("no").object("ns", "x"), "/api/v1/nodes/x");
        assert_eq!(one("po").collection(None), "/api/v1/pods");
        assert_eq!(one("po").object("n", "a/b?"), "/api/v1/namespaces/n/pods/a%2Fb%3F");
    }

    #[test]
    fn aggregated_discovery_is_read() {
        let list = json!({"items": [{"metadata": {"name": "apps"}, "versions": [{"version": "v1", "resources": [{
            "resource": "deployments", "responseKind": {"group": "apps", "version": "v1", "kind": "Deployment"}, "scope": "Namespaced",
            "singularResource": "deployment", "verbs": ["get"], "shortNames": ["deploy"], "categories": ["all"]}]}]}]});
        let found: Vec<_> = kinds(&list).collect();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].api_version().as_str(), found[0].shown().as_str()), ("apps/v1", "deployment.apps"));
        assert!(found[0].namespaced);
    }
}
