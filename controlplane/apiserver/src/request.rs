//! What a request asks for, read from its method, path and query: `RequestInfo` of Kubernetes' API server.
//! It reads the line and the headers only, never the body, and knows nothing of what exists.

use std::borrow::Cow;

use coracle_api::ApiError;
use http::Method;

/// The longest URL that is read. Kubernetes' clients put selectors and field lists there, never data.
pub(crate) const MAX_URL_BYTES: usize = 16 * 1024;

/// What the caller wants done; the words of RBAC rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Read one.
    Get,
    /// Read many.
    List,
    /// Follow changes.
    Watch,
    /// Make one.
    Create,
    /// Replace one.
    Update,
    /// Change one.
    Patch,
    /// Remove one.
    Delete,
    /// Remove many.
    DeleteCollection,
    /// Ask what can be done (`OPTIONS`), which only those behind `proxy` can be asked. Rules have no word for it: only one
    /// for every verb allows it.
    Options,
}

impl Verb {
    /// The word RBAC rules use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Options => "",
        }
    }
}

/// The query of a URL, decoded; few parameters, so a list beats a map.
#[derive(Debug, Clone, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads `a=b&c=d`.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self(form_urlencoded::parse(text.as_bytes()).map(|(k, v)| (k.into_owned(), v.into_owned())).collect())
    }

    /// The text that [`Query::parse`] reads as this.
    #[must_use]
    pub fn encode(&self) -> String {
        form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.0).finish()
    }

    /// The first value of a parameter.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }

    /// Every value of a parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == name).map(|(_, v)| v.as_str())
    }

    /// A boolean as Go's `strconv.ParseBool` after Kubernetes' rule that anything but `0` and `false` is true.
    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|v| !matches!(v.to_ascii_lowercase().as_str(), "0" | "false"))
    }

    /// A boolean that may be absent.
    #[must_use]
    pub fn optional_flag(&self, name: &str) -> Option<bool> {
        self.get(name).map(|_| self.flag(name))
    }

    /// A whole number.
    ///
    /// # Errors
    /// The value is no number.
    pub fn number(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let Some(text) = self.get(name).filter(|t| !t.is_empty()) else { return Ok(None) };
        text.parse()
            .map(Some)
            .map_err(|_| ApiError::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))
    }
}

/// A request for a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourcePath {
    /// API group, empty for the core group.
    pub group: String,
    /// Version.
    pub version: String,
    /// Namespace, empty for the cluster's scope or all namespaces.
    pub namespace: String,
    /// Plural name.
    pub resource: String,
    /// The object's name, empty for the collection.
    pub name: String,
    /// The subresource, empty for none.
    pub subresource: String,
    /// What stands behind the subresource, as it came: its first slash, escapes and empty parts with it.
    pub rest: String,
    /// The deprecated `/watch/` prefix was there.
    pub watch_prefix: bool,
}

/// What a path leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// An object, a collection or a subresource.
    Resource(Box<ResourcePath>),
    /// Anything else: discovery, health, metrics, OpenAPI.
    Other(String),
}

impl Target {
    /// Reads a path such as `/apis/apps/v1/namespaces/default/deployments/web/scale`.
    ///
    /// # Errors
    /// The path holds broken percent-encoding.
    pub fn parse(path: &str) -> Result<Self, ApiError> {
        let mut segments = Vec::with_capacity(10);
        let mut ends = Vec::with_capacity(10);
        let mut end = 0;
        for segment in path.split('/') {
            end += segment.len();
            if !segment.is_empty() {
                segments.push(decode(segment)?);
                ends.push(end);
            }
            end += 1;
        }
        let other = || Self::Other(path.trim_end_matches('/').to_owned());
        let (group, version, rest) = match segments.first().map(AsRef::as_ref) {
            Some("api") if segments.len() >= 3 => ("", segments[1].as_ref(), &segments[2..]),
            Some("apis") if segments.len() >= 4 => (segments[1].as_ref(), segments[2].as_ref(), &segments[3..]),
            _ => return Ok(other()),
        };
        let (watch_prefix, rest) = match rest.first().map(AsRef::as_ref) {
            Some("watch") if rest.len() > 1 => (true, &rest[1..]),
            _ => (false, rest),
        };
        // `/namespaces/x` and its subresources are about the Namespace itself.
        let own = |s: &str| matches!(s, "status" | "finalize");
        let (namespace, rest) = match rest {
            [first, ns, third, ..] if first == "namespaces" && !own(third) => (ns.as_ref(), &rest[2..]),
            _ => ("", rest),
        };
        let before = segments.len() - rest.len();
        let part = |i: usize| rest.get(i).map(|s| s.clone().into_owned()).unwrap_or_default();
        let (resource, name, subresource) = (part(0), part(1), part(2));
        let namespace = if resource == "namespaces" && namespace.is_empty() && group.is_empty() {
            name.clone()
        } else {
            namespace.to_owned()
        };
        Ok(Self::Resource(Box::new(ResourcePath {
            group: group.to_owned(),
            version: version.to_owned(),
            namespace,
            resource,
            name,
            subresource,
            rest: ends.get(before + 2).map(|end| path[*end..].to_owned()).unwrap_or_default(),
            watch_prefix,
        })))
    }
}

fn decode(segment: &str) -> Result<Cow<'_, str>, ApiError> {
    percent_encoding::percent_decode_str(segment)
        .decode_utf8()
        .map_err(|_| ApiError::bad_request("the path holds text that is not UTF-8"))
}

/// The verb of a method on a resource's path.
///
/// # Errors
/// No verb has this method.
pub(crate) fn verb(method: &Method, path: &ResourcePath, query: &Query) -> Result<Verb, ApiError> {
    let named = !path.name.is_empty();
    let watches = query.flag("watch") || path.watch_prefix;
    Ok(match *method {
        Method::GET | Method::HEAD if watches && path.subresource.is_empty() => Verb::Watch,
        Method::GET | Method::HEAD if named => Verb::Get,
        Method::GET | Method::HEAD => Verb::List,
        Method::POST => Verb::Create,
        Method::PUT if named => Verb::Update,
        Method::PATCH if named => Verb::Patch,
        Method::DELETE if named => Verb::Delete,
        Method::DELETE => Verb::DeleteCollection,
        Method::OPTIONS if path.subresource == "proxy" => Verb::Options,
        _ => return Err(ApiError::method_not_known()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(path: &str) -> Option<String> {
        match Target::parse(path).unwrap() {
            Target::Other(_) => None,
            Target::Resource(r) => {
                Some([r.group, r.version, r.namespace, r.resource, r.name, r.subresource, r.rest].join("|"))
            }
        }
    }

    #[test]
    fn paths_are_read_as_kubernetes_reads_them() {
        let cases = [
            ("/api/v1/namespaces/a/pods/b/log", Some("|v1|a|pods|b|log|")),
            ("/api/v1/pods", Some("|v1||pods|||")),
            ("/api/v1/namespaces", Some("|v1||namespaces|||")),
            ("/api/v1/namespaces/a", Some("|v1|a|namespaces|a||")),
            ("/api/v1/namespaces/a/status", Some("|v1|a|namespaces|a|status|")),
            ("/api/v1/namespaces/a/finalize", Some("|v1|a|namespaces|a|finalize|")),
            ("/apis/apps/v1/namespaces/a/deployments/b/scale", Some("apps|v1|a|deployments|b|scale|")),
            (
                "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
                Some("rbac.authorization.k8s.io|v1||clusterroles|system:node||"),
            ),
            ("/api/v1/nodes/n/proxy/stats/summary", Some("|v1||nodes|n|proxy|/stats/summary")),
            ("/api/v1/nodes/n/proxy", Some("|v1||nodes|n|proxy|")),
            ("/api/v1/nodes/n/proxy/", Some("|v1||nodes|n|proxy|/")),
            ("//api/v1//namespaces/a/pods/b:80/proxy//x%2Fy//z/", Some("|v1|a|pods|b:80|proxy|//x%2Fy//z/")),
            ("/api/v1/watch/namespaces/a/pods", Some("|v1|a|pods|||")),
            ("/api", None),
            ("/apis/apps/v1", None),
            ("/healthz", None),
        ];
        for (path, expected) in cases {
            assert_eq!(parsed(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn methods_become_verbs() {
        let check = |method: Method, url: &str, expected: Verb| {
            let (path, query) = url.split_once('?').unwrap_or((url, ""));
            let Target::Resource(path) = Target::parse(path).unwrap() else { panic!("{url}") };
            assert_eq!(verb(&method, &path, &Query::parse(query)).unwrap(), expected, "{url}");
        };
        check(Method::GET, "/api/v1/pods", Verb::List);
        check(Method::GET, "/api/v1/pods?watch=1", Verb::Watch);
        check(Method::GET, "/api/v1/pods?watch=false", Verb::List);
        check(Method::GET, "/api/v1/watch/pods", Verb::Watch);
        check(Method::GET, "/api/v1/namespaces/a/pods/b", Verb::Get);
        check(Method::DELETE, "/api/v1/namespaces/a/pods", Verb::DeleteCollection);
        check(Method::DELETE, "/api/v1/namespaces/a/pods/b", Verb::Delete);
        check(Method::PATCH, "/api/v1/namespaces/a/pods/b", Verb::Patch);
        check(Method::OPTIONS, "/api/v1/namespaces/a/pods/b/proxy/x", Verb::Options);
        let Target::Resource(pods) = Target::parse("/api/v1/pods").unwrap() else { panic!("a resource") };
        assert!(verb(&Method::OPTIONS, &pods, &Query::default()).is_err());
    }
}
