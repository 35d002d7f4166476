//! `coracle describe`: what there is to know about an object, with its Events, in kubectl's layout.

mod events;
mod generic;
mod node;
mod page;
mod pod;
mod service;
mod workload;

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
    /// Other objects its page tells of: a node's pods, a Deployment's ReplicaSets, a Service's EndpointSlices.
    related: Vec<Value>,
}

impl Describe {
    pub(crate) async fn run(self, cluster: &Cluster) -> anyhow::Result<()> {
        let discovery = Discovery::fetch(cluster).await?;
        let mut failed = false;
        let mut pages = Vec::new();
        for (kind, namespace, name) in self.wanted(cluster, &discovery)? {
            match self.find(cluster, &kind, &namespace, name.as_deref()).await {
                Ok(objects) => {
                    for object in objects {
                        let subject = self.subject(cluster, kind.clone(), object).await?;
                        pages.push(render(&subject, jiff::Timestamp::now()));
                    }
                }
                Err(error) => {
                    failed = true;
                    eprintln!("{}", failure::explain(&error).unwrap_or_default());
                }
            }
        }
        if pages.is_empty() && !failed {
            eprintln!("No resources found in {} namespace.", cluster.namespace);
        }
        print!("{}", pages.join("\n\n"));
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
                Err(error) if failure::is_not_found(&error) => Some(error),
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
        let metadata = &object["metadata"];
        let namespace = metadata["namespace"].as_str().unwrap_or_default();
        let name = metadata["name"].as_str().unwrap_or_default();
        let call = match kind.resource().as_str() {
            "nodes" => Some(Call::get("/api/v1/pods").query("fieldSelector", format!("spec.nodeName={name}"))),
            "deployments.apps" => crate::logs::selector(&object).map(|selector| {
                Call::get(format!("/apis/apps/v1/namespaces/{namespace}/replicasets")).query("labelSelector", selector)
            }),
            "services" => Some(
                Call::get(format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"))
                    .query("labelSelector", format!("kubernetes.io/service-name={name}")),
            ),
            _ => None,
        };
        let related = match call {
            Some(call) => list(cluster, call).await?,
            None => Vec::new(),
        };
        let events = if self.show_events { Some(events::fetch(cluster, &kind, &object).await?) } else { None };
        Ok(Subject { kind, object, events, related })
    }
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
        "nodes" => node::describe(&mut page, object, &subject.related, now),
        "deployments.apps" => workload::deployment(&mut page, object, &subject.related),
        "replicasets.apps" => workload::replica_set(&mut page, object),
        "services" => service::describe(&mut page, object, &subject.related),
        _ => generic::describe(&mut page, object),
    }
    if let Some(events) = &subject.events {
        events::write(&mut page, events, now);
    }
    elastic::align(&page.text)
}

#[cfg(test)]
mod tests;
