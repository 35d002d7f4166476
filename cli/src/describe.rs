//! `coracle describe`: what there is to know about an object, with its Events, in kubectl's layout.

mod access;
mod config;
mod events;
mod generic;
mod job;
mod limits;
mod network;
mod node;
mod page;
mod pod;
mod policy;
mod scaling;
mod service;
mod storage;
mod workload;

use std::collections::BTreeMap;

use clap::Args;
use serde_json::Value;

use crate::{
    cluster::{Call, Cluster},
    discovery::{ApiKind, Discovery},
    failure::{self, AlreadySaid},
    manifest::Files,
    print::elastic,
    target,
};

use page::Page;

/// Shows all about objects.
#[derive(Debug, Args)]
pub(crate) struct Describe {
    /// KIND [NAME…] or KIND/NAME…; a name may be cut short
    #[arg(value_name = "KIND[/NAME]")]
    words: Vec<String>,

    #[command(flatten)]
    files: Files,

    /// Labels to select by
    #[arg(long, short = 'l', value_name = "SELECTOR")]
    selector: Option<String>,

    /// Objects of all namespaces
    #[arg(long, short = 'A')]
    all_namespaces: bool,

    /// Show Events
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    show_events: bool,
}

/// An object and what is known around it.
struct Subject {
    kind: ApiKind,
    object: Value,
    /// Its Events; nothing when they are not wanted.
    events: Option<Vec<Value>>,
    /// Other objects its page tells of, by their resource: a node's pods and Lease, a Deployment's ReplicaSets.
    related: BTreeMap<&'static str, Vec<Value>>,
}

impl Subject {
    fn related(&self, resource: &str) -> &[Value] {
        self.related.get(resource).map_or(&[], Vec::as_slice)
    }
}

impl Describe {
    pub(crate) async fn run(self, cluster: &Cluster) -> anyhow::Result<()> {
        let discovery = Discovery::fetch(cluster).await?;
        let mut failed = false;
        let (mut pages, mut cut) = (Vec::new(), String::new());
        for (kind, namespace, name) in self.wanted(cluster, &discovery)? {
            match self.find(cluster, &kind, &namespace, name.as_deref()).await {
                Ok(objects) => {
                    for object in objects {
                        // kubectl ends the page of an object whose name was cut short by a line of its own.
                        let is_cut = name.as_deref().is_some_and(|name| object["metadata"]["name"] != name);
                        let subject = self.subject(cluster, kind.clone(), object).await?;
                        let page = render(&subject, jiff::Timestamp::now());
                        match is_cut {
                            true => cut.push_str(&(page + "\n")),
                            false => pages.push(page),
                        }
                    }
                }
                Err(error) => {
                    failed = true;
                    eprintln!("{}", failure::explain(&error).unwrap_or_default());
                }
            }
        }
        if pages.is_empty() && cut.is_empty() && !failed {
            eprintln!("No resources found in {} namespace.", cluster.namespace);
        }
        print!("{}{cut}", pages.join("\n\n"));
        if failed { Err(AlreadySaid.into()) } else { Ok(()) }
    }

    fn wanted(
        &self,
        cluster: &Cluster,
        discovery: &Discovery,
    ) -> anyhow::Result<Vec<(ApiKind, String, Option<String>)>> {
        if !self.files.is_empty() {
            let targets = self.files.read()?.into_iter().map(|manifest| manifest.resolve(discovery, cluster));
            return targets
                .map(|target| target.map(|target| (target.kind, target.namespace, Some(target.name))))
                .collect();
        }
        let wanted = target::resolve(&self.words, discovery)?.into_iter();
        Ok(wanted.map(|wanted| (wanted.kind, cluster.namespace.clone(), wanted.name)).collect())
    }

    /// The object of a name, those whose names begin with it, or all.
    async fn find(
        &self,
        cluster: &Cluster,
        kind: &ApiKind,
        namespace: &str,
        name: Option<&str>,
    ) -> anyhow::Result<Vec<Value>> {
        let missing = match name {
            Some(name) => match cluster.json(Call::get(kind.object(namespace, name))).await {
                Ok(object) => return Ok(vec![object]),
                // Names that begin so are looked for where one kind and one name are given.
                Err(error) if failure::is_not_found(&error) && self.words.len() == 2 => Some(error),
                Err(error) => return Err(error),
            },
            None => None,
        };
        let collection = kind.collection((!self.all_namespaces).then_some(namespace));
        let objects = list(cluster, Call::get(collection).maybe("labelSelector", self.selector.as_deref())).await?;
        let Some(missing) = missing else { return Ok(objects) };
        let prefix = name.unwrap_or_default();
        let begins = |object: &Value| object["metadata"]["name"].as_str().is_some_and(|name| name.starts_with(prefix));
        let found: Vec<Value> = objects.into_iter().filter(begins).collect();
        if found.is_empty() { Err(missing) } else { Ok(found) }
    }

    async fn subject(&self, cluster: &Cluster, kind: ApiKind, object: Value) -> anyhow::Result<Subject> {
        let mut related = BTreeMap::new();
        for (resource, call) in around(&kind, &object) {
            related.insert(resource, list(cluster, call).await?);
        }
        let wanted = self.show_events && has_events(&kind);
        let events = if wanted { Some(events::fetch(cluster, &kind, &object).await?) } else { None };
        Ok(Subject { kind, object, events, related })
    }
}

/// What else is asked for to tell of an object.
fn around(kind: &ApiKind, object: &Value) -> Vec<(&'static str, Call)> {
    let metadata = &object["metadata"];
    let namespace = metadata["namespace"].as_str().unwrap_or_default();
    let name = metadata["name"].as_str().unwrap_or_default();
    let selected = |resource: &'static str, group: &str| {
        crate::logs::selector(object).map(|selector| {
            (resource, Call::get(format!("{group}/namespaces/{namespace}/{resource}")).query("labelSelector", selector))
        })
    };
    let all: Vec<Option<(&'static str, Call)>> = match kind.resource().as_str() {
        "nodes" => vec![
            Some(("pods", Call::get("/api/v1/pods").query("fieldSelector", format!("spec.nodeName={name}")))),
            Some((
                "leases",
                Call::get("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases")
                    .query("fieldSelector", format!("metadata.name={name}")),
            )),
        ],
        "deployments.apps" => vec![selected("replicasets", "/apis/apps/v1")],
        "replicasets.apps" | "statefulsets.apps" | "daemonsets.apps" => vec![selected("pods", "/api/v1")],
        "services" => vec![Some((
            "endpointslices",
            Call::get(format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"))
                .query("labelSelector", format!("kubernetes.io/service-name={name}")),
        ))],
        "ingresses.networking.k8s.io" => vec![
            Some(("services", Call::get(format!("/api/v1/namespaces/{namespace}/services")))),
            Some((
                "endpointslices",
                Call::get(format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices")),
            )),
        ],
        "persistentvolumeclaims" => vec![Some(("pods", Call::get(format!("/api/v1/namespaces/{namespace}/pods"))))],
        "namespaces" => vec![
            Some(("resourcequotas", Call::get(format!("/api/v1/namespaces/{name}/resourcequotas")))),
            Some(("limitranges", Call::get(format!("/api/v1/namespaces/{name}/limitranges")))),
        ],
        _ => Vec::new(),
    };
    all.into_iter().flatten().collect()
}

/// kubectl shows no Events with these.
fn has_events(kind: &ApiKind) -> bool {
    !matches!(
        kind.resource().as_str(),
        "namespaces"
            | "resourcequotas"
            | "limitranges"
            | "secrets"
            | "networkpolicies.networking.k8s.io"
            | "roles.rbac.authorization.k8s.io"
            | "clusterroles.rbac.authorization.k8s.io"
            | "rolebindings.rbac.authorization.k8s.io"
            | "clusterrolebindings.rbac.authorization.k8s.io"
    )
}

/// The page about a template of pods, its cells still ended by tabs.
pub(crate) fn pod_template(template: &Value) -> String {
    let mut page = Page::default();
    pod::template(&mut page, template);
    page.text
}

async fn list(cluster: &Cluster, call: Call) -> anyhow::Result<Vec<Value>> {
    let mut list = cluster.json(call).await?;
    Ok(list["items"].as_array_mut().map(std::mem::take).unwrap_or_default())
}

/// The text about one object.
fn render(subject: &Subject, now: jiff::Timestamp) -> String {
    let mut page = Page::default();
    let object = &subject.object;
    match subject.kind.resource().as_str() {
        "pods" => pod::describe(&mut page, object),
        "nodes" => {
            let (pods, leases) = (subject.related("pods"), subject.related("leases"));
            node::describe(&mut page, object, pods, leases.first(), now);
        }
        "deployments.apps" => workload::deployment(&mut page, object, subject.related("replicasets")),
        "replicasets.apps" => workload::replica_set(&mut page, object, subject.related("pods")),
        "statefulsets.apps" => workload::stateful_set(&mut page, object, subject.related("pods")),
        "daemonsets.apps" => workload::daemon_set(&mut page, object, subject.related("pods")),
        "cronjobs.batch" => job::cron(&mut page, object),
        "endpointslices.discovery.k8s.io" => service::endpoint_slice(&mut page, object),
        "poddisruptionbudgets.policy" => policy::budget(&mut page, object),
        "priorityclasses.scheduling.k8s.io" => policy::priority_class(&mut page, object),
        "storageclasses.storage.k8s.io" => policy::storage_class(&mut page, object),
        "rolebindings.rbac.authorization.k8s.io" | "clusterrolebindings.rbac.authorization.k8s.io" => {
            policy::binding(&mut page, object);
        }
        "roles.rbac.authorization.k8s.io" | "clusterroles.rbac.authorization.k8s.io" => access::role(&mut page, object),
        "certificatesigningrequests.certificates.k8s.io" => access::certificate_request(&mut page, object),
        "networkpolicies.networking.k8s.io" => network::policy(&mut page, object),
        "ingresses.networking.k8s.io" => {
            let (services, slices) = (subject.related("services"), subject.related("endpointslices"));
            network::ingress(&mut page, object, services, slices);
        }
        "ingressclasses.networking.k8s.io" => network::class(&mut page, object),
        "persistentvolumes" => storage::volume(&mut page, object),
        "persistentvolumeclaims" => storage::claim(&mut page, object, subject.related("pods")),
        "horizontalpodautoscalers.autoscaling" => scaling::describe(&mut page, object),
        "services" => service::describe(&mut page, object, subject.related("endpointslices")),
        "endpoints" => service::endpoints(&mut page, object),
        "jobs.batch" => job::describe(&mut page, object),
        "configmaps" => config::config_map(&mut page, object),
        "secrets" => config::secret(&mut page, object),
        "serviceaccounts" => config::service_account(&mut page, object),
        "namespaces" => {
            let (quotas, ranges) = (subject.related("resourcequotas"), subject.related("limitranges"));
            limits::namespace(&mut page, object, quotas, ranges);
        }
        "resourcequotas" => limits::quota(&mut page, object),
        "limitranges" => limits::limit_range(&mut page, object),
        _ => generic::describe(&mut page, object),
    }
    if let Some(events) = &subject.events {
        events::write(&mut page, events, now);
    }
    elastic::align(&page.text)
}

#[cfg(test)]
mod tests;
