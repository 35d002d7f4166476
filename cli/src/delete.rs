//! `coracle delete`: takes objects away and waits until they are gone.

use std::{str::FromStr, time::Duration};

use anyhow::ensure;
use clap::Args;
use futures::StreamExt as _;
use serde_json::{Value, json};

use crate::{
    cluster::{Call, Change, Cluster},
    create::DryRun,
    discovery::{ApiKind, Discovery},
    failure::{self, AlreadySaid},
    manifest::Files,
    target,
};

/// How long to wait when no time is given, as kubectl has it: a week.
const FOREVER: Duration = Duration::from_secs(7 * 24 * 3600);

/// Takes objects away.
#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// KIND NAME…, KIND/NAME…
    #[arg(value_name = "KIND[/NAME]")]
    words: Vec<String>,

    #[command(flatten)]
    files: Files,

    /// Labels to select by
    #[arg(long, short = 'l', value_name = "SELECTOR")]
    selector: Option<String>,

    /// Fields to select by
    #[arg(long, value_name = "SELECTOR")]
    field_selector: Option<String>,

    /// All objects of the kind in the namespace
    #[arg(long)]
    all: bool,

    /// In all namespaces
    #[arg(long, short = 'A')]
    all_namespaces: bool,

    /// Seconds the object gets to end; 1 is at once, 0 needs --force
    #[arg(long, value_name = "SECONDS", default_value_t = -1, allow_negative_numbers = true)]
    grace_period: i64,

    /// End at once
    #[arg(long)]
    now: bool,

    /// Do not wait for the node's word that it ended
    #[arg(long)]
    force: bool,

    /// What happens to what the object owns: background, foreground or orphan
    #[arg(long, value_name = "HOW", default_value = "background", num_args = 0..=1, default_missing_value = "background")]
    cascade: Cascade,

    /// It is no error when an object is missing
    #[arg(long)]
    ignore_not_found: bool,

    /// Wait until the objects are gone
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    wait: bool,

    /// How long to wait, as in 30s; 0 is without end
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = crate::time::duration)]
    timeout: Duration,

    /// none, server or client
    #[arg(long, value_name = "HOW", default_value = "none", num_args = 0..=1, default_missing_value = "client")]
    dry_run: DryRun,

    /// name
    #[arg(long, short = 'o', value_name = "FORM", value_parser = ["name"])]
    output: Option<String>,
}

/// What happens to what an object owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cascade(&'static str);

impl FromStr for Cascade {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        Ok(Self(match text {
            "background" | "true" => "Background",
            "foreground" => "Foreground",
            "orphan" | "false" => "Orphan",
            other => {
                anyhow::bail!("invalid cascade value ({other}). Must be \"background\", \"foreground\", or \"orphan\"")
            }
        }))
    }
}

/// An object to take away.
#[derive(Debug)]
struct Doomed {
    kind: ApiKind,
    namespace: String,
    name: String,
    /// The file that names it.
    source: Option<String>,
}

impl Delete {
    pub(crate) async fn run(mut self, cluster: &Cluster) -> anyhow::Result<()> {
        self.settle_grace()?;
        let discovery = Discovery::fetch(cluster).await?;
        let (doomed, mut failed) = self.doomed(cluster, &discovery).await?;
        if doomed.is_empty() && !failed {
            println!("No resources found");
            return Ok(());
        }
        let mut waiting = Vec::new();
        for object in doomed {
            match self.delete(cluster, &object).await {
                Ok(uid) => waiting.push((object, uid)),
                Err(error) if self.ignore_not_found && failure::is_not_found(&error) => {}
                Err(error) => {
                    failed = true;
                    eprintln!("{}", failure::explain(&error).unwrap_or_default());
                }
            }
        }
        if self.wait && self.dry_run == DryRun::No {
            let timeout = if self.timeout.is_zero() { FOREVER } else { self.timeout };
            let all = async {
                for (object, uid) in &waiting {
                    gone(cluster, object, uid.as_deref()).await?;
                }
                anyhow::Ok(())
            };
            match tokio::time::timeout(timeout, all).await {
                Ok(result) => result?,
                Err(_) => anyhow::bail!("timed out waiting for the condition"),
            }
        }
        if failed { Err(AlreadySaid.into()) } else { Ok(()) }
    }

    /// The grace period from the three flags that set it.
    fn settle_grace(&mut self) -> anyhow::Result<()> {
        if self.now {
            ensure!(self.grace_period == -1, "--now and --grace-period cannot be specified together");
            self.grace_period = 1;
        }
        if self.grace_period == 0 && !self.force {
            // As kubectl: without --force the least is a second.
            self.grace_period = 1;
        }
        if self.force {
            if self.grace_period < 0 {
                self.grace_period = 0;
            }
            ensure!(self.grace_period == 0, "--force and --grace-period greater than 0 cannot be specified together");
            eprintln!(
                "Warning: Immediate deletion does not wait for confirmation that the running resource has been terminated. \
                 The resource may continue to run on the cluster indefinitely."
            );
        }
        Ok(())
    }

    async fn doomed(&self, cluster: &Cluster, discovery: &Discovery) -> anyhow::Result<(Vec<Doomed>, bool)> {
        if !self.files.is_empty() {
            ensure!(
                self.words.is_empty(),
                "when paths, URLs, or stdin is provided as input, you may not specify resource arguments as well"
            );
            let mut doomed = Vec::new();
            for manifest in self.files.read()? {
                let target = manifest.resolve(discovery, cluster)?;
                let source = Some(target.source);
                doomed.push(Doomed { kind: target.kind, namespace: target.namespace, name: target.name, source });
            }
            return Ok((doomed, false));
        }
        let selects = self.all || self.selector.is_some() || self.field_selector.is_some();
        let wanted = target::resolve(&self.words, discovery)?;
        let mut doomed = Vec::new();
        for wanted in wanted {
            match wanted.name {
                Some(name) => {
                    ensure!(!selects, "name cannot be provided when a selector is specified");
                    ensure!(!self.all_namespaces, "a resource cannot be retrieved by name across all namespaces");
                    let namespace = cluster.namespace.clone();
                    doomed.push(Doomed { kind: wanted.kind, namespace, name, source: None });
                }
                None => {
                    ensure!(selects, "resource(s) were provided, but no name was specified");
                    doomed.extend(self.select(cluster, &wanted.kind).await?);
                }
            }
        }
        Ok((doomed, false))
    }

    async fn select(&self, cluster: &Cluster, kind: &ApiKind) -> anyhow::Result<Vec<Doomed>> {
        if !kind.verbs.iter().any(|verb| verb == "delete") {
            return Ok(Vec::new());
        }
        let path = kind.collection((!self.all_namespaces).then_some(cluster.namespace.as_str()));
        let call = Call::get(path)
            .maybe("labelSelector", self.selector.as_deref())
            .maybe("fieldSelector", self.field_selector.as_deref());
        let list = cluster.json(call).await?;
        let doomed = |object: &Value| Doomed {
            kind: kind.clone(),
            namespace: object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned(),
            name: object["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
            source: None,
        };
        Ok(list["items"].as_array().into_iter().flatten().map(doomed).collect())
    }

    /// Asks for an object's end, and tells its uid where the server does.
    async fn delete(&self, cluster: &Cluster, object: &Doomed) -> anyhow::Result<Option<String>> {
        let mut uid = None;
        if self.dry_run != DryRun::Client {
            let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": self.cascade.0});
            if self.grace_period >= 0 {
                options["gracePeriodSeconds"] = self.grace_period.into();
            }
            if let Some(all) = self.dry_run.parameter() {
                options["dryRun"] = json!([all]);
            }
            let call =
                Call::delete(object.kind.object(&object.namespace, &object.name)).body("application/json", &options);
            let answer = cluster.json(call).await.map_err(|error| match &object.source {
                Some(source) => failure::while_doing(error, "deleting", source),
                None => error,
            })?;
            let found = if answer["kind"] == "Status" { &answer["details"]["uid"] } else { &answer["metadata"]["uid"] };
            uid = found.as_str().map(str::to_owned);
        }
        if self.output.is_some() {
            println!("{}", object.kind.named(&object.name));
        } else {
            let how = if self.grace_period == 0 { "force deleted" } else { "deleted" };
            println!("{} {:?} {how}{}", object.kind.shown(), object.name, self.dry_run.remark());
        }
        Ok(uid)
    }
}

/// Waits until an object is gone, or another has taken its name.
async fn gone(cluster: &Cluster, object: &Doomed, uid: Option<&str>) -> anyhow::Result<()> {
    loop {
        let namespace = Some(object.namespace.as_str());
        let call = Call::get(object.kind.collection(namespace))
            .query("fieldSelector", format!("metadata.name={}", object.name));
        let list = match cluster.json(call.clone()).await {
            Ok(list) => list,
            // Its namespace or kind is gone, and with it the object.
            Err(error) if failure::is_not_found(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        let same = |object: &Value| uid.is_none_or(|uid| object["metadata"]["uid"] == uid);
        if !list["items"].as_array().into_iter().flatten().any(same) {
            return Ok(());
        }
        let version = list["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        let mut changes = cluster.watch(call, version).await?;
        while let Some(change) = changes.next().await {
            match change {
                Ok((Change::Deleted, _)) => return Ok(()),
                Ok((_, object)) if !same(&object) => return Ok(()),
                Ok(_) => {}
                // A broken watch is begun again with a list.
                Err(_) => break,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::Delete;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        delete: Delete,
    }

    fn grace(line: &str) -> Result<i64, String> {
        let mut delete = Line::try_parse_from(line.split(' ')).map_err(|error| error.to_string())?.delete;
        delete.settle_grace().map(|()| delete.grace_period).map_err(|error| error.to_string())
    }

    #[test]
    fn grace_periods_are_kubectls() {
        assert_eq!(grace("delete pod x"), Ok(-1));
        assert_eq!(grace("delete pod x --now"), Ok(1));
        assert_eq!(grace("delete pod x --grace-period=0"), Ok(1));
        assert_eq!(grace("delete pod x --grace-period 0 --force"), Ok(0));
        assert_eq!(grace("delete pod x --force"), Ok(0));
        assert!(grace("delete pod x --force --grace-period=5").is_err());
        assert!(grace("delete pod x --now --grace-period=5").is_err());
    }
}
