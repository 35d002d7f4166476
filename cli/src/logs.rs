//! `coracle logs`: what containers said. The node reads the files; this asks for the right ones and puts streams together.

use std::{io::Write as _, time::Duration};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use futures::{StreamExt as _, stream::select_all};
use serde_json::Value;

use crate::{
    cluster::{Call, Change, Cluster},
    discovery::Discovery,
    failure,
    target::{self, Wanted},
};

/// How long a pod of what is named is waited for, as kubectl has it.
const POD_LIMIT: Duration = Duration::from_secs(20);

/// Lines of each pod that are shown where pods are selected by label, unless told otherwise.
const SELECTED_TAIL: i64 = 10;

/// Shows what containers said.
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// POD or KIND/NAME, and the container's name
    #[arg(value_name = "POD|KIND/NAME")]
    words: Vec<String>,

    /// Go on as lines come
    #[arg(long, short = 'f')]
    follow: bool,

    /// Of the container's run before this one
    #[arg(long, short = 'p')]
    previous: bool,

    /// The container
    #[arg(long, short = 'c', value_name = "NAME")]
    container: Option<String>,

    /// All containers of the pods
    #[arg(long)]
    all_containers: bool,

    /// Labels to select pods by
    #[arg(long, short = 'l', value_name = "SELECTOR")]
    selector: Option<String>,

    /// So many last lines; -1 is all
    #[arg(long, value_name = "LINES", allow_negative_numbers = true)]
    tail: Option<i64>,

    /// No older than this, as in 5s, 2m or 3h
    #[arg(long, value_name = "TIME", value_parser = crate::time::duration, conflicts_with = "since_time")]
    since: Option<Duration>,

    /// From this time on (RFC 3339)
    #[arg(long, value_name = "TIME")]
    since_time: Option<String>,

    /// The time before each line
    #[arg(long)]
    timestamps: bool,

    /// Pod and container before each line
    #[arg(long)]
    prefix: bool,

    /// No more than so many bytes of each container
    #[arg(long, value_name = "BYTES")]
    limit_bytes: Option<u64>,

    /// Most streams that are followed at once
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    max_log_requests: usize,

    /// Go on with the others when one container's log cannot be read
    #[arg(long)]
    ignore_errors: bool,
}

/// One container's log.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    pod: String,
    container: String,
}

impl Logs {
    pub(crate) async fn run(self, cluster: &Cluster) -> anyhow::Result<()> {
        let (pods, container) = self.pods(cluster).await?;
        if pods.is_empty() {
            eprintln!("No resources found in {} namespace.", cluster.namespace);
            return Ok(());
        }
        let mut sources = Vec::new();
        for pod in &pods {
            sources.extend(self.sources(pod, container.as_deref())?);
        }
        if self.follow {
            ensure!(
                sources.len() <= self.max_log_requests,
                "you are attempting to follow {} log streams, but maximum allowed concurrency is {}, use --max-log-requests to increase the limit",
                sources.len(),
                self.max_log_requests
            );
        }
        if self.follow && sources.len() > 1 {
            self.follow_all(cluster, &sources).await
        } else {
            self.in_turn(cluster, &sources).await
        }
    }

    /// The pods that are meant, and the container if the words name one.
    async fn pods(&self, cluster: &Cluster) -> anyhow::Result<(Vec<Value>, Option<String>)> {
        let list = async |selector: &str| {
            let path = format!("/api/v1/namespaces/{}/pods", cluster.namespace);
            let mut list = cluster.json(Call::get(path).query("labelSelector", selector)).await?;
            let pods = list["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
            anyhow::Ok(pods)
        };
        if let Some(selector) = &self.selector {
            ensure!(self.words.is_empty(), "only a selector (-l) or a POD name is allowed");
            return Ok((list(selector).await?, self.container.clone()));
        }
        let Some(first) = self.words.first() else {
            bail!("expected 'logs [-f] [-p] (POD | TYPE/NAME) [-c CONTAINER]'.")
        };
        ensure!(self.words.len() <= 2, "expected 'logs [-f] [-p] (POD | TYPE/NAME) [-c CONTAINER]'.");
        let second = self.words.get(1).cloned();
        ensure!(second.is_none() || self.container.is_none(), "only one of -c or an inline [CONTAINER] arg is allowed");
        let container = self.container.clone().or(second);
        let mut wanted = Wanted { kind: crate::discovery::ApiKind::default(), name: Some(first.clone()) };
        if first.contains('/') {
            let discovery = Discovery::fetch(cluster).await?;
            wanted = target::resolve(std::slice::from_ref(first), &discovery)?.remove(0);
        }
        let name = wanted.name.unwrap_or_default();
        if wanted.kind.plural.is_empty() || wanted.kind.resource() == "pods" {
            let call = Call::get(format!("/api/v1/namespaces/{}/pods/{name}", cluster.namespace));
            let pod = cluster.json(call).await.map_err(|error| in_namespace(error, cluster))?;
            return Ok((vec![pod], container));
        }
        let call = Call::get(wanted.kind.object(&cluster.namespace, &name));
        let owner = cluster.json(call).await.map_err(|error| in_namespace(error, cluster))?;
        let shown = wanted.kind.named(&name);
        let selector =
            selector(&owner).with_context(|| format!("cannot get the logs from {shown}: it selects no pods"))?;
        let mut pods = list(&selector).await?;
        if pods.is_empty() {
            pods = first_pods(cluster, &selector).await?;
        }
        sort_as_kubectl(&mut pods);
        if let [pod, _, ..] = pods.as_slice() {
            eprintln!("Found {} pods, using pod/{}", pods.len(), text(&pod["metadata"]["name"]));
        }
        pods.truncate(1);
        Ok((pods, container))
    }

    /// The containers of a pod that are shown.
    fn sources(&self, pod: &Value, container: Option<&str>) -> anyhow::Result<Vec<Source>> {
        let name = text(&pod["metadata"]["name"]);
        let source = |container: &str| Source { pod: name.clone(), container: container.to_owned() };
        let lists = ["initContainers", "containers", "ephemeralContainers"];
        let named = |list: &str| -> Vec<String> {
            pod["spec"][list].as_array().into_iter().flatten().map(|container| text(&container["name"])).collect()
        };
        let all: Vec<String> = lists.iter().flat_map(|list| named(list)).collect();
        if self.all_containers {
            return Ok(all.iter().map(|container| source(container)).collect());
        }
        if let Some(wanted) = container {
            ensure!(all.iter().any(|name| name == wanted), "container {wanted} is not valid for pod {name}");
            return Ok(vec![source(wanted)]);
        }
        let main = named("containers");
        let annotated = pod["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"].as_str();
        let default = annotated
            .filter(|wanted| all.iter().any(|name| name == wanted))
            .map(str::to_owned)
            .or_else(|| main.first().cloned());
        let Some(default) = default else { bail!("pod {name} has no containers") };
        if all.len() > 1 && annotated.is_none() {
            let init = named("initContainers").into_iter().map(|name| name + " (init)");
            let ephemeral = named("ephemeralContainers").into_iter().map(|name| name + " (ephem)");
            let listed: Vec<String> = main.iter().cloned().chain(init).chain(ephemeral).collect();
            eprintln!("Defaulted container {default:?} out of: {}", listed.join(", "));
        }
        Ok(vec![source(&default)])
    }

    fn call(&self, cluster: &Cluster, source: &Source) -> Call {
        let flag = |set: bool| set.then_some("true");
        let tail = self.tail.or_else(|| (self.selector.is_some() && !self.follow).then_some(SELECTED_TAIL));
        Call::get(format!("/api/v1/namespaces/{}/pods/{}/log", cluster.namespace, source.pod))
            .accept("*/*")
            .query("container", &source.container)
            .maybe("follow", flag(self.follow))
            .maybe("previous", flag(self.previous))
            .maybe("timestamps", flag(self.timestamps))
            .maybe("tailLines", tail.filter(|lines| *lines >= 0))
            // The server counts whole seconds, upwards.
            .maybe(
                "sinceSeconds",
                self.since.filter(|since| !since.is_zero()).map(|since| since.as_millis().div_ceil(1000)),
            )
            .maybe("sinceTime", self.since_time.as_deref())
            .maybe("limitBytes", self.limit_bytes)
    }

    fn before(&self, source: &Source) -> String {
        if self.prefix { format!("[pod/{}/{}] ", source.pod, source.container) } else { String::new() }
    }

    async fn in_turn(&self, cluster: &Cluster, sources: &[Source]) -> anyhow::Result<()> {
        for source in sources {
            if let Err(error) = self.copy(cluster, source).await {
                if !self.ignore_errors {
                    return Err(error);
                }
                println!("error: {error:#}");
            }
        }
        Ok(())
    }

    async fn copy(&self, cluster: &Cluster, source: &Source) -> anyhow::Result<()> {
        let call = self.call(cluster, source);
        if !self.prefix {
            let mut bytes = cluster.bytes(call).await?;
            while let Some(chunk) = bytes.next().await {
                write(&chunk.context("the log broke off")?)?;
            }
            return Ok(());
        }
        let before = self.before(source);
        let mut lines = cluster.lines(call).await?;
        while let Some(line) = lines.next().await {
            write_line(&before, &line.context("the log broke off")?)?;
        }
        Ok(())
    }

    /// Lines of all sources as they come, each whole.
    async fn follow_all(&self, cluster: &Cluster, sources: &[Source]) -> anyhow::Result<()> {
        let mut streams = Vec::new();
        for source in sources {
            let before = self.before(source);
            match cluster.lines(self.call(cluster, source)).await {
                Ok(lines) => streams.push(lines.map(move |line| (before.clone(), line))),
                Err(error) if self.ignore_errors => println!("error: {error:#}"),
                Err(error) => return Err(error),
            }
        }
        let mut all = select_all(streams);
        while let Some((before, line)) = all.next().await {
            match line {
                Ok(line) => write_line(&before, &line)?,
                Err(error) if self.ignore_errors => println!("error: {error:#}"),
                Err(error) => return Err(error).context("the log broke off"),
            }
        }
        Ok(())
    }
}

fn write(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()?;
    Ok(())
}

fn write_line(before: &str, line: &[u8]) -> anyhow::Result<()> {
    write(&[before.as_bytes(), line, b"\n"].concat())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Says where something is missing, in kubectl's words.
fn in_namespace(error: anyhow::Error, cluster: &Cluster) -> anyhow::Error {
    if failure::is_not_found(&error) {
        return anyhow::anyhow!("error from server (NotFound): {error} in namespace {:?}", cluster.namespace);
    }
    error
}

/// Waits for the first pod of those that a selector takes.
async fn first_pods(cluster: &Cluster, selector: &str) -> anyhow::Result<Vec<Value>> {
    let path = format!("/api/v1/namespaces/{}/pods", cluster.namespace);
    let call = Call::get(path).query("labelSelector", selector);
    let wait = async {
        loop {
            let mut list = cluster.json(call.clone()).await?;
            let pods = list["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
            if !pods.is_empty() {
                return anyhow::Ok(pods);
            }
            let version = list["metadata"]["resourceVersion"].as_str().unwrap_or_default();
            let mut changes = cluster.watch(call.clone(), version).await?;
            while let Some(change) = changes.next().await {
                match change {
                    Ok((Change::Bookmark | Change::Deleted, _)) => {}
                    Ok((_, pod)) => return Ok(vec![pod]),
                    // A broken watch is begun again with a list.
                    Err(_) => break,
                }
            }
        }
    };
    tokio::time::timeout(POD_LIMIT, wait).await.unwrap_or_else(|_| bail!("timed out waiting for the condition"))
}

/// The pods that an object selects, as a query has it.
pub(crate) fn selector(owner: &Value) -> Option<String> {
    let selector = &owner["spec"]["selector"];
    // A Service's and a ReplicationController's selector is a plain map.
    let labels = selector["matchLabels"]
        .as_object()
        .or_else(|| selector.as_object().filter(|map| !map.contains_key("matchExpressions") && !map.is_empty()));
    let mut parts: Vec<String> = labels
        .into_iter()
        .flatten()
        .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()))
        .collect();
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = expression["key"].as_str().unwrap_or_default();
        let values: Vec<&str> =
            expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        parts.push(match expression["operator"].as_str() {
            Some("In") => format!("{key} in ({})", values.join(",")),
            Some("NotIn") => format!("{key} notin ({})", values.join(",")),
            Some("Exists") => key.to_owned(),
            Some("DoesNotExist") => format!("!{key}"),
            _ => return None,
        });
    }
    (!parts.is_empty()).then(|| parts.join(","))
}

/// The pod with the most to tell first: assigned, running and ready, oldest last restarted.
fn sort_as_kubectl(pods: &mut [Value]) {
    let phase = |pod: &Value| match pod["status"]["phase"].as_str() {
        Some("Running") => 0,
        Some("Pending") => 2,
        _ => 1,
    };
    let ready = |pod: &Value| {
        let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        !conditions.into_iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    };
    pods.sort_by_cached_key(|pod| {
        (pod["spec"]["nodeName"].is_null(), phase(pod), ready(pod), text(&pod["metadata"]["creationTimestamp"]))
    });
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::{Logs, Source, selector};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        logs: Logs,
    }

    fn sources(line: &str, pod: &serde_json::Value) -> Result<Vec<String>, String> {
        let logs = Line::try_parse_from(line.split(' ')).map_err(|error| error.to_string())?.logs;
        let container = logs.container.clone();
        let found = logs.sources(pod, container.as_deref()).map_err(|error| error.to_string())?;
        Ok(found.into_iter().map(|Source { pod, container }| format!("{pod}/{container}")).collect())
    }

    #[test]
    fn containers_are_chosen_as_kubectl_does() {
        let mut pod = json!({"metadata": {"name": "p"}, "spec": {
            "initContainers": [{"name": "i"}], "containers": [{"name": "a"}, {"name": "b"}]}});
        assert_eq!(sources("logs p", &pod), Ok(vec!["p/a".to_owned()]));
        assert_eq!(sources("logs p -c b", &pod), Ok(vec!["p/b".to_owned()]));
        assert_eq!(sources("logs p --all-containers", &pod), Ok(["p/i", "p/a", "p/b"].map(str::to_owned).to_vec()));
        assert_eq!(sources("logs p -c x", &pod), Err("container x is not valid for pod p".to_owned()));
        pod["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/default-container": "b"});
        assert_eq!(sources("logs p", &pod), Ok(vec!["p/b".to_owned()]));
    }

    #[test]
    fn selectors_become_queries() {
        let owner = |selector: serde_json::Value| json!({"spec": {"selector": selector}});
        assert_eq!(selector(&owner(json!({"matchLabels": {"a": "b", "c": "d"}}))).as_deref(), Some("a=b,c=d"));
        assert_eq!(selector(&owner(json!({"app": "x"}))).as_deref(), Some("app=x"));
        let expressions = json!({"matchExpressions": [{"key": "k", "operator": "In", "values": ["x", "y"]}, {"key": "z", "operator": "DoesNotExist"}]});
        assert_eq!(selector(&owner(expressions)).as_deref(), Some("k in (x,y),!z"));
        assert_eq!(selector(&owner(json!({}))), None);
    }
}
