//! `coracle create -f`: makes objects that are not there yet.

use std::str::FromStr;

use clap::Args;

use crate::{
    apply::{How, with_last_applied},
    cluster::{Call, Cluster, FIELD_MANAGER},
    discovery::Discovery,
    failure,
    manifest::{Files, Target},
};

/// Whether anything is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum DryRun {
    /// It is.
    #[default]
    No,
    /// The server does all but the writing.
    Server,
    /// Nothing is sent.
    Client,
}

impl DryRun {
    /// The request's parameter.
    pub(crate) fn parameter(self) -> Option<&'static str> {
        (self == Self::Server).then_some("All")
    }

    /// What is said behind what was done.
    pub(crate) fn remark(self) -> &'static str {
        match self {
            Self::No => "",
            Self::Server => " (server dry run)",
            Self::Client => " (dry run)",
        }
    }
}

impl FromStr for DryRun {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        Ok(match text {
            "none" => Self::No,
            "server" => Self::Server,
            "client" => Self::Client,
            other => anyhow::bail!("invalid dry-run value ({other}). Must be \"none\", \"server\", or \"client\"."),
        })
    }
}

/// Makes objects from files.
#[derive(Debug, Args)]
pub(crate) struct Create {
    #[command(flatten)]
    files: Files,

    #[command(flatten)]
    how: How,

    /// Note the object in its annotation, so that `apply` can be used later
    #[arg(long)]
    save_config: bool,
}

impl Create {
    pub(crate) async fn run(self, cluster: &Cluster) -> anyhow::Result<()> {
        anyhow::ensure!(!self.files.is_empty(), "must specify one of -f and -k");
        let discovery = Discovery::fetch(cluster).await?;
        let mut problems = Vec::new();
        for manifest in self.files.read()? {
            let created = async {
                let target = manifest.resolve(&discovery, cluster)?;
                self.create(cluster, &target).await
            };
            if let Err(error) = created.await {
                problems.push(error);
            }
        }
        failure::say_all(&problems)
    }

    async fn create(&self, cluster: &Cluster, target: &Target) -> anyhow::Result<()> {
        let object = if self.save_config { with_last_applied(&target.object) } else { target.object.clone() };
        let object = if self.how.dry_run == DryRun::Client {
            object
        } else {
            let call = Call::post(target.collection(), &object)
                .query("fieldManager", FIELD_MANAGER)
                .query("fieldValidation", self.how.field_validation()?)
                .maybe("dryRun", self.how.dry_run.parameter());
            cluster.json(call).await.map_err(|error| failure::while_doing(error, "creating", &target.source))?
        };
        self.how.report(target, object, "created")
    }
}
