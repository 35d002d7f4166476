//! `coracle scale`: how many there are to be.

use clap::Args;
use serde_json::json;

use crate::{
    cluster::{Call, Cluster, FIELD_MANAGER, MERGE},
    create::DryRun,
    discovery::{ApiKind, Discovery},
    failure::{self, AlreadySaid},
    manifest::Files,
    target,
};

/// Tries when someone else writes at the same time.
const MAX_TRIES: u32 = 5;

/// Sets how many there are to be of a Deployment, ReplicaSet or StatefulSet.
#[derive(Debug, Args)]
pub(crate) struct Scale {
    /// KIND/NAME… or KIND NAME…
    #[arg(value_name = "KIND/NAME")]
    words: Vec<String>,

    #[command(flatten)]
    files: Files,

    /// How many
    #[arg(long, value_name = "COUNT", required = true, allow_negative_numbers = true)]
    replicas: i32,

    /// Only if there are so many now
    #[arg(long, value_name = "COUNT")]
    current_replicas: Option<i64>,

    /// Only if this is its version
    #[arg(long, value_name = "VERSION")]
    resource_version: Option<String>,

    /// none, server or client
    #[arg(long, value_name = "HOW", default_value = "none", num_args = 0..=1, default_missing_value = "client")]
    dry_run: DryRun,
}

impl Scale {
    pub(crate) async fn run(self, cluster: &Cluster) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.replicas >= 0,
            "The --replicas=COUNT flag is required, and COUNT must be greater than or equal to 0"
        );
        let discovery = Discovery::fetch(cluster).await?;
        let mut objects: Vec<(ApiKind, String, String)> = Vec::new();
        if self.files.is_empty() {
            let named = target::resolve_named(&self.words, &discovery)?;
            objects.extend(named.into_iter().map(|(kind, name)| (kind, cluster.namespace.clone(), name)));
        } else {
            for manifest in self.files.read()? {
                let target = manifest.resolve(&discovery, cluster)?;
                objects.push((target.kind, target.namespace, target.name));
            }
        }
        let mut failed = false;
        let mut missing = Vec::new();
        for (kind, namespace, name) in &objects {
            if let Err(error) = cluster.json(Call::get(kind.object(namespace, name))).await {
                missing.push(error);
            }
        }
        if !missing.is_empty() && missing.len() == objects.len() {
            let said: Vec<String> = missing.iter().map(|error| format!("{error:#}")).collect();
            let said = if said.len() == 1 { said.concat() } else { format!("[{}]", said.join(", ")) };
            anyhow::bail!("no objects passed to scale {said}");
        }
        for (kind, namespace, name) in &objects {
            match self.scale(cluster, kind, namespace, name).await {
                Ok(()) => println!("{} scaled{}", kind.named(name), self.dry_run.remark()),
                Err(error) => {
                    failed = true;
                    eprintln!("{}", failure::explain(&error).unwrap_or_default());
                }
            }
        }
        if failed { Err(AlreadySaid.into()) } else { Ok(()) }
    }

    async fn scale(&self, cluster: &Cluster, kind: &ApiKind, namespace: &str, name: &str) -> anyhow::Result<()> {
        let path = format!("{}/scale", kind.object(namespace, name));
        if self.dry_run == DryRun::Client {
            cluster.json(Call::get(path)).await?;
            return Ok(());
        }
        if self.current_replicas.is_none() && self.resource_version.is_none() {
            let patch = json!({"spec": {"replicas": self.replicas}});
            let call = Call::patch(path, MERGE, &patch).query("fieldManager", FIELD_MANAGER);
            cluster.json(call.maybe("dryRun", self.dry_run.parameter())).await?;
            return Ok(());
        }
        for attempt in 1.. {
            let mut scale = cluster.json(Call::get(path.clone())).await?;
            self.check(&scale)?;
            scale["spec"]["replicas"] = self.replicas.into();
            let call = Call::put(path.clone(), &scale).query("fieldManager", FIELD_MANAGER);
            match cluster.json(call.maybe("dryRun", self.dry_run.parameter())).await {
                Err(error) if attempt < MAX_TRIES && failure::is_conflict(&error) => {}
                Err(error) => return Err(error),
                Ok(_) => return Ok(()),
            }
        }
        unreachable!("the last try returns")
    }

    /// What must hold before it is scaled.
    fn check(&self, scale: &serde_json::Value) -> anyhow::Result<()> {
        let found = scale["spec"]["replicas"].as_i64().unwrap_or(0);
        if let Some(wanted) = self.current_replicas.filter(|wanted| *wanted != found) {
            anyhow::bail!("Expected replicas to be {wanted}, was {found}");
        }
        let version = scale["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        if let Some(wanted) = self.resource_version.as_deref().filter(|wanted| *wanted != version) {
            anyhow::bail!("Expected resource version to be {wanted}, was {version}");
        }
        Ok(())
    }
}
