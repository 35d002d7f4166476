//! The operations of a kind: its paths, what each method takes and gives. Neither document's form is known here.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::definitions::definition_name;
use crate::kind::{Kind, Scope, Storage, Subresource};

/// Everything below `paths` in the form of a document, and the names of the definitions it needs.
pub(super) fn paths(
    kinds: &[Kind],
    item: fn(&str) -> Value,
    render: fn(&Operation, &mut BTreeSet<String>) -> Value,
) -> (Map<String, Value>, BTreeSet<String>) {
    let mut roots: BTreeSet<String> = kinds.iter().map(|k| definition_name(k.group, k.version, k.kind)).collect();
    let mut paths: Map<String, Value> = Map::new();
    for operation in kinds.iter().flat_map(of) {
        let slot = paths.entry(operation.path.clone()).or_insert_with(|| item(&operation.path));
        slot[operation.method] = render(&operation, &mut roots);
    }
    (paths, roots)
}

/// How clients say who they are, the same in both documents.
pub(super) fn security() -> Value {
    json!({"BearerToken": {"type": "apiKey", "description": "Bearer Token authentication",
        "name": "authorization", "in": "header"}})
}

/// A query parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) type_: &'static str,
    pub(super) description: &'static str,
}

const fn param(name: &'static str, type_: &'static str, description: &'static str) -> Parameter {
    Parameter { name, type_, description }
}

pub(super) const PRETTY: Parameter = param(
    "pretty",
    "string",
    "If 'true', then the output is pretty printed. Defaults to 'false' unless the user-agent indicates a browser or command-line HTTP tool (curl and wget).",
);
const DRY_RUN: Parameter = param(
    "dryRun",
    "string",
    "When present, indicates that modifications should not be persisted. An invalid or unrecognized dryRun directive will result in an error response and no further processing of the request. Valid values are: - All: all dry run stages will be processed",
);
const FIELD_MANAGER: Parameter = param(
    "fieldManager",
    "string",
    "fieldManager is a name associated with the actor or entity that is making these changes. The value must be less than or 128 characters long, and only contain printable characters, as defined by https://golang.org/pkg/unicode/#IsPrint.",
);
const FIELD_VALIDATION: Parameter = param(
    "fieldValidation",
    "string",
    "fieldValidation instructs the server on how to handle objects in the request (POST/PUT/PATCH) containing unknown or duplicate fields. Valid values are: - Ignore: This will ignore any unknown fields that are silently dropped from the object, and will ignore all but the last duplicate field that the decoder encounters. - Warn: This will send a warning via the standard warning response header for each unknown field that is dropped from the object, and for each duplicate field that is encountered. - Strict: This will fail the request with a BadRequest error if any unknown fields would be dropped from the object, or if any duplicate fields are present.",
);
const FORCE: Parameter = param(
    "force",
    "boolean",
    "Force is going to \"force\" Apply requests. It means user will re-acquire conflicting fields owned by other people. Force flag must be unset for non-apply patch requests.",
);
const WRITE: &[Parameter] = &[DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];
const PATCH: &[Parameter] = &[DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION, FORCE];
const SELECT: &[Parameter] = &[
    param("allowWatchBookmarks", "boolean", "allowWatchBookmarks requests watch events with type \"BOOKMARK\"."),
    param("continue", "string", "The continue option should be set when retrieving more results from the server."),
    param(
        "fieldSelector",
        "string",
        "A selector to restrict the list of returned objects by their fields. Defaults to everything.",
    ),
    param(
        "labelSelector",
        "string",
        "A selector to restrict the list of returned objects by their labels. Defaults to everything.",
    ),
    param("limit", "integer", "limit is a maximum number of responses to return for a list call."),
    param(
        "resourceVersion",
        "string",
        "resourceVersion sets a constraint on what resource versions a request may be served from.",
    ),
    param(
        "resourceVersionMatch",
        "string",
        "resourceVersionMatch determines how resourceVersion is applied to list calls.",
    ),
    param("sendInitialEvents", "boolean", "`sendInitialEvents=true` may be set together with `watch=true`."),
    param(
        "timeoutSeconds",
        "integer",
        "Timeout for the list/watch call. This limits the duration of the call, regardless of any activity or inactivity.",
    ),
    param(
        "watch",
        "boolean",
        "Watch for changes to the described resources and return them as a stream of add, update, and remove notifications.",
    ),
];
const DELETE: &[Parameter] = &[
    DRY_RUN,
    param(
        "gracePeriodSeconds",
        "integer",
        "The duration in seconds before the object should be deleted. Value must be non-negative integer. The value zero indicates delete immediately. If this value is nil, the default grace period for the specified type will be used.",
    ),
    param(
        "orphanDependents",
        "boolean",
        "Deprecated: please use the PropagationPolicy, this field will be deprecated in 1.7. Should the dependent objects be orphaned.",
    ),
    param(
        "propagationPolicy",
        "string",
        "Whether and how garbage collection will be performed. Either this field or OrphanDependents may be set, but not both.",
    ),
];
const LOG: &[Parameter] = &[
    param(
        "container",
        "string",
        "The container for which to stream logs. Defaults to only container if there is one container in the pod.",
    ),
    param("follow", "boolean", "Follow the log stream of the pod. Defaults to false."),
    param(
        "insecureSkipTLSVerifyBackend",
        "boolean",
        "insecureSkipTLSVerifyBackend indicates that the apiserver should not confirm the validity of the serving certificate of the backend it is connecting to.",
    ),
    param(
        "limitBytes",
        "integer",
        "If set, the number of bytes to read from the server before terminating the log output.",
    ),
    param("previous", "boolean", "Return previous terminated container logs. Defaults to false."),
    param("sinceSeconds", "integer", "A relative time in seconds before the current time from which to show logs."),
    param(
        "stream",
        "string",
        "Specify which container log stream to return to the client. Acceptable values are \"All\", \"Stdout\" and \"Stderr\".",
    ),
    param("tailLines", "integer", "If set, the number of lines from the end of the logs to show."),
    param(
        "timestamps",
        "boolean",
        "If true, add an RFC3339 or RFC3339Nano timestamp at the beginning of every line of log output. Defaults to false.",
    ),
];
const STREAMS: &[Parameter] = &[
    param("command", "string", "Command is the remote command to execute. argv array. Not executed within a shell."),
    param(
        "container",
        "string",
        "The container in which to execute the command. Defaults to only container if there is only one container in the pod.",
    ),
    param("stderr", "boolean", "Redirect the standard error stream of the pod for this call."),
    param("stdin", "boolean", "Redirect the standard input stream of the pod for this call. Defaults to false."),
    param("stdout", "boolean", "Redirect the standard output stream of the pod for this call."),
    param("tty", "boolean", "TTY if true indicates that a tty will be allocated for the exec call. Defaults to false."),
];
const PORTS: &[Parameter] = &[param("ports", "integer", "List of ports to forward Required when using WebSockets")];
const TARGET: &[Parameter] = &[param(
    "path",
    "string",
    "Path is the part of URLs that include service endpoints, suffixes, and parameters to use for the current proxy request.",
)];

/// What a request carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Body {
    None,
    /// An object of this definition.
    Object(String),
    /// `DeleteOptions`, which may be left out.
    DeleteOptions,
    /// One of the four sorts of patch.
    Patch,
}

/// What a request is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// An object of this definition, with these codes.
    Object(String, &'static [u16]),
    /// A text or a stream.
    Text,
}

/// One method of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Operation {
    pub(super) path: String,
    pub(super) method: &'static str,
    /// `x-kubernetes-action`.
    pub(super) action: &'static str,
    pub(super) id: String,
    pub(super) tag: String,
    pub(super) description: String,
    pub(super) parameters: &'static [Parameter],
    pub(super) body: Body,
    pub(super) answer: Answer,
    /// Group, version and kind of what the operation is about.
    pub(super) gvk: (&'static str, &'static str, &'static str),
}

/// A path's parameters in braces, in order.
pub(super) fn path_parameters(path: &str) -> impl Iterator<Item = (&str, &'static str)> {
    path.split('/').filter_map(|s| s.strip_prefix('{')?.strip_suffix('}')).map(|name| {
        let description = match name {
            "namespace" => "object name and auth scope, such as for teams and projects",
            "path" => "path to the resource",
            _ => "name of the resource",
        };
        (name, description)
    })
}

/// All operations of a kind.
pub(super) fn of(kind: &Kind) -> Vec<Operation> {
    let mut maker = Maker::new(kind);
    match kind.info.storage {
        Storage::Never => {
            maker.create();
            return maker.operations;
        }
        Storage::Measured => {
            maker.list();
            maker.read();
            return maker.operations;
        }
        Storage::Own | Storage::SharedWith { .. } => {}
    }
    maker.collection();
    maker.item();
    for subresource in kind.info.subresources {
        maker.subresource(*subresource);
    }
    maker.operations
}

struct Maker<'a> {
    kind: &'a Kind,
    /// `/apis/apps/v1/namespaces/{namespace}/deployments`.
    path: String,
    /// `/apis/apps/v1`.
    base: String,
    definition: String,
    /// `AppsV1`.
    group_version: String,
    operations: Vec<Operation>,
}

fn capitalized(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
}

impl<'a> Maker<'a> {
    fn new(kind: &'a Kind) -> Self {
        let base = format!("/{}", super::group_version_path(kind));
        let path = match kind.info.scope {
            Scope::Namespaced => format!("{base}/namespaces/{{namespace}}/{}", kind.info.plural),
            Scope::Cluster => format!("{base}/{}", kind.info.plural),
        };
        let group = kind.group.strip_suffix(".k8s.io").unwrap_or(kind.group);
        let group: String = if group.is_empty() { "Core".into() } else { group.split('.').map(capitalized).collect() };
        Self {
            kind,
            path,
            base,
            definition: definition_name(kind.group, kind.version, kind.kind),
            group_version: format!("{group}{}", capitalized(kind.version)),
            operations: Vec::new(),
        }
    }

    fn scoped(&self) -> &'static str {
        if self.kind.namespaced() { "Namespaced" } else { "" }
    }

    fn gvk(&self) -> (&'static str, &'static str, &'static str) {
        (self.kind.group, self.kind.version, self.kind.kind)
    }

    fn tag(&self) -> String {
        let group = self.kind.group.strip_suffix(".k8s.io").unwrap_or(self.kind.group);
        let group: String =
            if group.is_empty() { "core".into() } else { group.split('.').map(capitalized).collect::<String>() };
        let mut chars = group.chars();
        let group: String = chars.next().map_or_else(String::new, |c| c.to_lowercase().chain(chars).collect());
        format!("{group}_{}", self.kind.version)
    }

    /// An operation on the kind itself; its id is `verb` + group and version + `rest`.
    fn push(
        &mut self,
        path: String,
        (method, action): (&'static str, &'static str),
        verb: &str,
        rest: &str,
    ) -> &mut Operation {
        let description = match action {
            "list" => format!("list or watch objects of kind {}", self.kind.kind),
            "deletecollection" => format!("delete collection of {}", self.kind.kind),
            "get" => format!("read the specified {}", self.kind.kind),
            "put" => format!("replace the specified {}", self.kind.kind),
            "patch" => format!("partially update the specified {}", self.kind.kind),
            "post" => format!("create a {}", self.kind.kind),
            "delete" => format!("delete a {}", self.kind.kind),
            _ => format!("connect {} requests to {}", method.to_uppercase(), self.kind.kind),
        };
        let operation = Operation {
            path,
            method,
            action,
            id: format!("{verb}{}{rest}", self.group_version),
            tag: self.tag(),
            description,
            parameters: &[],
            body: Body::None,
            answer: Answer::Object(self.definition.clone(), &[200]),
            gvk: self.gvk(),
        };
        self.operations.push(operation);
        let last = self.operations.len() - 1;
        &mut self.operations[last]
    }

    fn create(&mut self) {
        let (path, rest, definition) =
            (self.path.clone(), format!("{}{}", self.scoped(), self.kind.kind), self.definition.clone());
        let operation = self.push(path, ("post", "post"), "create", &rest);
        operation.parameters = WRITE;
        operation.body = Body::Object(definition.clone());
        operation.answer = Answer::Object(definition, &[200, 201, 202]);
    }

    fn list(&mut self) {
        let list = definition_name(self.kind.group, self.kind.version, self.kind.list_kind);
        let (path, kind, scoped) = (self.path.clone(), self.kind.kind, self.scoped());
        let operation = self.push(path, ("get", "list"), "list", &format!("{scoped}{kind}"));
        operation.parameters = SELECT;
        operation.answer = Answer::Object(list.clone(), &[200]);
        if self.kind.namespaced() {
            let all = format!("{}/{}", self.base, self.kind.info.plural);
            let operation = self.push(all, ("get", "list"), "list", &format!("{kind}ForAllNamespaces"));
            operation.parameters = SELECT;
            operation.answer = Answer::Object(list, &[200]);
        }
    }

    fn read(&mut self) {
        let path = format!("{}/{{name}}", self.path);
        let rest = format!("{}{}", self.scoped(), self.kind.kind);
        self.push(path, ("get", "get"), "read", &rest);
    }

    fn collection(&mut self) {
        let (path, kind, scoped) = (self.path.clone(), self.kind.kind, self.scoped());
        self.list();
        self.create();
        if self.kind.info.has_delete_collection {
            let rest = format!("Collection{scoped}{kind}");
            let operation = self.push(path, ("delete", "deletecollection"), "delete", &rest);
            operation.parameters = SELECT;
            operation.body = Body::DeleteOptions;
            operation.answer = Answer::Object(definition_name("meta", "v1", "Status"), &[200]);
        }
    }

    fn item(&mut self) {
        let path = format!("{}/{{name}}", self.path);
        let rest = format!("{}{}", self.scoped(), self.kind.kind);
        self.read_replace_patch(&path, &rest, None);
        let operation = self.push(path, ("delete", "delete"), "delete", &rest);
        operation.parameters = DELETE;
        operation.body = Body::DeleteOptions;
        operation.answer = Answer::Object(definition_name("meta", "v1", "Status"), &[200, 202]);
    }

    /// GET, PUT and PATCH of the kind, or of another kind that a subresource shows it as.
    fn read_replace_patch(
        &mut self,
        path: &str,
        rest: &str,
        shown: Option<(&'static str, &'static str, &'static str)>,
    ) {
        let gvk = shown.unwrap_or_else(|| self.gvk());
        let definition = definition_name(gvk.0, gvk.1, gvk.2);
        for (method, verb) in [("get", "read"), ("put", "replace"), ("patch", "patch")] {
            let operation = self.push(path.to_owned(), (method, method), verb, rest);
            operation.gvk = gvk;
            operation.answer = Answer::Object(definition.clone(), if method == "get" { &[200] } else { &[200, 201] });
            match method {
                "put" => (operation.parameters, operation.body) = (WRITE, Body::Object(definition.clone())),
                "patch" => (operation.parameters, operation.body) = (PATCH, Body::Patch),
                _ => {}
            }
        }
    }

    fn subresource(&mut self, subresource: Subresource) {
        let path = format!("{}/{{name}}/{}", self.path, subresource.as_str());
        let name = match subresource {
            Subresource::EphemeralContainers => "Ephemeralcontainers".to_owned(),
            Subresource::PortForward => "Portforward".to_owned(),
            other => capitalized(other.as_str()),
        };
        let rest = format!("{}{}{name}", self.scoped(), self.kind.kind);
        match subresource {
            Subresource::Status | Subresource::EphemeralContainers | Subresource::Resize | Subresource::Approval => {
                self.read_replace_patch(&path, &rest, None);
            }
            Subresource::Scale => self.read_replace_patch(&path, &rest, Some(("autoscaling", "v1", "Scale"))),
            Subresource::Binding => self.post_of(path, &rest, ("", "v1", "Binding")),
            Subresource::Eviction => self.post_of(path, &rest, ("policy", "v1", "Eviction")),
            Subresource::Token => self.post_of(path, &rest, ("authentication.k8s.io", "v1", "TokenRequest")),
            Subresource::Finalize => {
                let definition = self.definition.clone();
                let operation = self.push(path, ("put", "put"), "replace", &rest);
                operation.parameters = WRITE;
                operation.body = Body::Object(definition.clone());
                operation.answer = Answer::Object(definition, &[200, 201]);
            }
            Subresource::Log => {
                let operation = self.push(path, ("get", "get"), "read", &rest);
                operation.parameters = LOG;
                operation.answer = Answer::Text;
            }
            Subresource::Exec | Subresource::Attach => self.connect(path, &rest, &["get", "post"], STREAMS),
            Subresource::PortForward => self.connect(path, &rest, &["get", "post"], PORTS),
            Subresource::Proxy => {
                const METHODS: &[&str] = &["get", "put", "post", "delete", "options", "head", "patch"];
                self.connect(path.clone(), &rest, METHODS, TARGET);
                self.connect(format!("{path}/{{path}}"), &format!("{rest}WithPath"), METHODS, TARGET);
            }
        }
    }

    fn post_of(&mut self, path: String, rest: &str, gvk: (&'static str, &'static str, &'static str)) {
        let definition = definition_name(gvk.0, gvk.1, gvk.2);
        let operation = self.push(path, ("post", "post"), "create", rest);
        operation.gvk = gvk;
        operation.parameters = WRITE;
        operation.body = Body::Object(definition.clone());
        operation.answer = Answer::Object(definition, &[200, 201, 202]);
    }

    fn connect(
        &mut self,
        path: String,
        rest: &str,
        methods: &'static [&'static str],
        parameters: &'static [Parameter],
    ) {
        for method in methods {
            let verb = format!("connect{}", capitalized(method));
            let options = match (self.kind.kind, rest) {
                ("Node", _) => "NodeProxyOptions",
                ("Service", _) => "ServiceProxyOptions",
                (_, rest) if rest.ends_with("Exec") => "PodExecOptions",
                (_, rest) if rest.ends_with("Attach") => "PodAttachOptions",
                (_, rest) if rest.ends_with("Portforward") => "PodPortForwardOptions",
                _ => "PodProxyOptions",
            };
            let operation = self.push(path.clone(), (method, "connect"), &verb, rest);
            // Clients look for the operations of a kind by this, and these take none of an object's.
            operation.gvk = ("", "v1", options);
            operation.parameters = parameters;
            operation.answer = Answer::Text;
        }
    }
}
