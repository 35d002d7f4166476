//! `coracle rollout`: how far a change has come, what was before it, and back to that.

mod history;
mod status;

use anyhow::{bail, ensure};
use clap::{Args, Subcommand};
use futures::StreamExt as _;
use serde_json::{Value, json};

use crate::{
    cluster::{Call, Change, Cluster, FIELD_MANAGER, JSON_PATCH, STRATEGIC},
    discovery::{ApiKind, Discovery},
    failure::{self, AlreadySaid},
    manifest::Files,
    target,
};

use history::Revision;
use status::Progress;

/// How a rollout goes, and what may be done about it.
#[derive(Debug, Args)]
pub(crate) struct Rollout {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Waits until a rollout is through, and says how far it is
    Status {
        #[command(flatten)]
        objects: Objects,

        /// Go on until it is through
        #[arg(long, short = 'w', default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
        watch: bool,

        /// How long to wait; 0 is without end
        #[arg(long, value_name = "TIME", default_value = "0s", value_parser = crate::time::duration)]
        timeout: std::time::Duration,
    },
    /// Shows earlier revisions
    History {
        #[command(flatten)]
        objects: Objects,

        /// Show this revision's pods
        #[arg(long, value_name = "REVISION", default_value_t = 0)]
        revision: i64,
    },
    /// Goes back to an earlier revision
    Undo {
        #[command(flatten)]
        objects: Objects,

        /// The revision; 0 is the one before
        #[arg(long, value_name = "REVISION", default_value_t = 0)]
        to_revision: i64,
    },
    /// Lets no change of the pods take effect
    Pause {
        #[command(flatten)]
        objects: Objects,
    },
    /// Lets changes take effect again
    Resume {
        #[command(flatten)]
        objects: Objects,
    },
    /// Replaces all pods by new ones
    Restart {
        #[command(flatten)]
        objects: Objects,
    },
}

#[derive(Debug, Args)]
struct Objects {
    /// KIND/NAME… or KIND NAME…
    #[arg(value_name = "KIND/NAME")]
    words: Vec<String>,

    #[command(flatten)]
    files: Files,
}

/// An object that rolls out.
struct Rolling {
    kind: ApiKind,
    namespace: String,
    name: String,
}

impl Rolling {
    fn path(&self) -> String {
        self.kind.object(&self.namespace, &self.name)
    }

    fn shown(&self) -> String {
        self.kind.named(&self.name)
    }

    fn must_be(&self, kinds: &[&str], what: &str) -> anyhow::Result<()> {
        let (resource, name) = (self.kind.resource(), &self.name);
        ensure!(kinds.contains(&resource.as_str()), "{resource} {name:?} {what} is not supported");
        Ok(())
    }
}

impl Objects {
    async fn find(&self, cluster: &Cluster) -> anyhow::Result<Vec<Rolling>> {
        let discovery = Discovery::fetch(cluster).await?;
        if self.files.is_empty() {
            ensure!(!self.words.is_empty(), "required resource not specified");
            let mut all = Vec::new();
            for wanted in target::resolve(&self.words, &discovery)? {
                let names = match wanted.name {
                    Some(name) => vec![name],
                    None => all_names(cluster, &wanted.kind).await?,
                };
                let rolling = |name| Rolling { kind: wanted.kind.clone(), namespace: cluster.namespace.clone(), name };
                all.extend(names.into_iter().map(rolling));
            }
            return Ok(all);
        }
        let targets = self.files.read()?.into_iter().map(|manifest| manifest.resolve(&discovery, cluster));
        let rolling = |target: crate::manifest::Target| Rolling {
            kind: target.kind,
            namespace: target.namespace,
            name: target.name,
        };
        targets.map(|target| target.map(rolling)).collect()
    }
}

/// The names of all objects of a kind in the namespace.
async fn all_names(cluster: &Cluster, kind: &ApiKind) -> anyhow::Result<Vec<String>> {
    let list = cluster.json(Call::get(kind.collection(Some(&cluster.namespace)))).await?;
    let names = list["items"].as_array().into_iter().flatten().filter_map(|item| item["metadata"]["name"].as_str());
    Ok(names.map(str::to_owned).collect())
}

/// Kinds with a history.
const ROLLED: [&str; 3] = ["deployments.apps", "daemonsets.apps", "statefulsets.apps"];

impl Rollout {
    pub(crate) async fn run(self, cluster: &Cluster) -> anyhow::Result<()> {
        let (What::Status { objects, .. }
        | What::History { objects, .. }
        | What::Undo { objects, .. }
        | What::Pause { objects }
        | What::Resume { objects }
        | What::Restart { objects }) = &self.what;
        let mut failed = false;
        for rolling in objects.find(cluster).await? {
            let done = match &self.what {
                What::Status { watch, timeout, .. } => {
                    let follow = follow(cluster, &rolling, *watch);
                    if timeout.is_zero() {
                        follow.await
                    } else {
                        match tokio::time::timeout(*timeout, follow).await {
                            Ok(result) => result,
                            Err(_) => Err(anyhow::anyhow!("timed out waiting for the condition")),
                        }
                    }
                }
                What::History { revision, .. } => show_history(cluster, &rolling, *revision).await,
                What::Undo { to_revision, .. } => undo(cluster, &rolling, *to_revision).await,
                What::Pause { .. } => pause(cluster, &rolling, Pause::Pause).await,
                What::Resume { .. } => pause(cluster, &rolling, Pause::Resume).await,
                What::Restart { .. } => restart(cluster, &rolling).await,
            };
            if let Err(error) = done {
                failed = true;
                eprintln!("{}", failure::explain(&error).unwrap_or_default());
            }
        }
        if failed { Err(AlreadySaid.into()) } else { Ok(()) }
    }
}

async fn follow(cluster: &Cluster, rolling: &Rolling, watch: bool) -> anyhow::Result<()> {
    ensure!(
        ROLLED.contains(&rolling.kind.resource().as_str()),
        "no status viewer has been implemented for {}",
        rolling.kind.group_kind()
    );
    let call = Call::get(rolling.kind.collection(Some(&rolling.namespace)))
        .query("fieldSelector", format!("metadata.name={}", rolling.name));
    let mut last = String::new();
    loop {
        // Reading it by name says best that it is missing.
        cluster.json(Call::get(rolling.path())).await?;
        let list = cluster.json(call.clone()).await?;
        let version = list["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        if let Some(object) = list["items"].as_array().and_then(|items| items.first())
            && (say_progress(rolling, object, &mut last)? || !watch)
        {
            return Ok(());
        }
        let mut changes = cluster.watch(call.clone(), version).await?;
        while let Some(change) = changes.next().await {
            match change {
                Ok((Change::Deleted, _)) => bail!("object has been deleted"),
                Ok((Change::Bookmark, _)) => {}
                Ok((_, object)) => {
                    if say_progress(rolling, &object, &mut last)? {
                        return Ok(());
                    }
                }
                // A broken watch is begun again with a list.
                Err(_) => break,
            }
        }
    }
}

/// Says how far it is, each thing once; tells whether it is through.
fn say_progress(rolling: &Rolling, object: &Value, last: &mut String) -> anyhow::Result<bool> {
    let (text, through) = match status::progress(&rolling.kind.kind, &rolling.name, object)? {
        Progress::Waiting(text) => (text, false),
        Progress::Through(text) => (text, true),
    };
    if text != *last {
        println!("{text}");
        *last = text;
    }
    Ok(through)
}

async fn revisions(cluster: &Cluster, rolling: &Rolling) -> anyhow::Result<(Value, Vec<Revision>)> {
    rolling.must_be(&ROLLED, "history")?;
    let object = cluster.json(Call::get(rolling.path())).await?;
    let kept = if rolling.kind.kind == "Deployment" { "replicasets" } else { "controllerrevisions" };
    let mut call = Call::get(format!("/apis/apps/v1/namespaces/{}/{kept}", rolling.namespace));
    call = call.maybe("labelSelector", crate::logs::selector(&object));
    let list = cluster.json(call).await?;
    let items = list["items"].as_array().cloned().unwrap_or_default();
    Ok((object.clone(), history::revisions(&object, &items)))
}

async fn show_history(cluster: &Cluster, rolling: &Rolling, revision: i64) -> anyhow::Result<()> {
    let (_, revisions) = revisions(cluster, rolling).await?;
    if revision == 0 {
        println!("{} ", rolling.shown());
        println!("{}", history::table(&revisions));
        return Ok(());
    }
    let Some(found) = revisions.iter().find(|known| known.number == revision) else {
        bail!("unable to find the specified revision")
    };
    println!("{} with revision #{revision}", rolling.shown());
    // kubectl leaves the tabs of this page as they are.
    println!("{}", crate::describe::pod_template(&found.kept_template));
    Ok(())
}

async fn undo(cluster: &Cluster, rolling: &Rolling, to: i64) -> anyhow::Result<()> {
    ensure!(to >= 0, "revision must be 0 or greater");
    let (object, revisions) = revisions(cluster, rolling).await?;
    if object["spec"]["paused"] == true {
        bail!(
            "you cannot rollback a paused {}; resume it first with 'coracle rollout resume {}' and try again",
            rolling.kind.singular,
            rolling.shown()
        );
    }
    let found = history::target(&revisions, to)?;
    let (sort, patch) = match &found.patch {
        Some(patch) => (STRATEGIC, patch.clone()),
        None => (JSON_PATCH, history::rollback(&object, found)),
    };
    if object["spec"]["template"] == found.template {
        println!("{} skipped rollback (current template already matches revision {})", rolling.shown(), found.number);
        return Ok(());
    }
    cluster.json(Call::patch(rolling.path(), sort, &patch).query("fieldManager", FIELD_MANAGER)).await?;
    println!("{} rolled back", rolling.shown());
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pause {
    Pause,
    Resume,
}

async fn pause(cluster: &Cluster, rolling: &Rolling, to: Pause) -> anyhow::Result<()> {
    let (verb, done) = match to {
        Pause::Pause => ("pausing", "paused"),
        Pause::Resume => ("resuming", "resumed"),
    };
    rolling.must_be(&["deployments.apps"], verb)?;
    let object = cluster.json(Call::get(rolling.path())).await?;
    let is_paused = object["spec"]["paused"] == true;
    match to {
        Pause::Pause if is_paused => bail!("{} {:?} is already paused", rolling.kind.resource(), rolling.name),
        Pause::Resume if !is_paused => bail!("{} {:?} is not paused", rolling.kind.resource(), rolling.name),
        _ => {}
    }
    let patch = json!({"spec": {"paused": to == Pause::Pause}});
    cluster.json(Call::patch(rolling.path(), STRATEGIC, &patch).query("fieldManager", FIELD_MANAGER)).await?;
    println!("{} {done}", rolling.shown());
    Ok(())
}

async fn restart(cluster: &Cluster, rolling: &Rolling) -> anyhow::Result<()> {
    rolling.must_be(&ROLLED, "restarting")?;
    let object = cluster.json(Call::get(rolling.path())).await?;
    if object["spec"]["paused"] == true {
        bail!("can't restart paused {} (run rollout resume first)", rolling.kind.singular);
    }
    let now = jiff::Zoned::now().strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
    let annotations = json!({"kubectl.kubernetes.io/restartedAt": now});
    let patch = json!({"spec": {"template": {"metadata": {"annotations": annotations}}}});
    cluster.json(Call::patch(rolling.path(), STRATEGIC, &patch).query("fieldManager", FIELD_MANAGER)).await?;
    println!("{} restarted", rolling.shown());
    Ok(())
}
