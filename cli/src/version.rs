//! `coracle version` and `coracle api-resources`: what this program and the server are.

use clap::Args;
use serde_json::json;

use crate::{
    cluster::{Call, Cluster},
    discovery::Discovery,
    options::Options,
    print::{
        table::{OBJECTS, Table},
        yaml,
    },
};

/// Shows this program's version and the server's.
#[derive(Debug, Args)]
pub(crate) struct Version {
    /// This program's only
    #[arg(long)]
    client: bool,

    /// json or yaml
    #[arg(long, short = 'o', value_name = "FORM", value_parser = ["json", "yaml"])]
    output: Option<String>,
}

impl Version {
    pub(crate) async fn run(self, options: &Options) -> anyhow::Result<()> {
        let own = concat!("v", env!("CARGO_PKG_VERSION"));
        let mut versions = json!({"clientVersion": {"gitVersion": own}});
        let mut problem = None;
        if !self.client {
            let asked = async {
                let cluster = Cluster::connect(options).await?;
                cluster.json(Call::get("/version")).await
            };
            match asked.await {
                Ok(version) => versions["serverVersion"] = version,
                Err(error) => problem = Some(error),
            }
        }
        match self.output.as_deref() {
            Some("json") => println!("{}", serde_json::to_string_pretty(&versions)?),
            Some(_) => print!("{}", yaml::write(&versions)),
            None => {
                println!("Client Version: {own}");
                if let Some(version) = versions["serverVersion"]["gitVersion"].as_str() {
                    println!("Server Version: {version}");
                }
            }
        }
        problem.map_or(Ok(()), Err)
    }
}

/// Shows the kinds the server has.
#[derive(Debug, Args)]
pub(crate) struct ApiResources {
    /// Those in a namespace, or those in none
    #[arg(long)]
    namespaced: Option<bool>,

    /// Of this group
    #[arg(long, value_name = "GROUP")]
    api_group: Option<String>,

    /// wide or name
    #[arg(long, short = 'o', value_name = "FORM", value_parser = ["wide", "name"])]
    output: Option<String>,

    /// Leave the line of headings out
    #[arg(long)]
    no_headers: bool,
}

impl ApiResources {
    pub(crate) async fn run(self, cluster: &Cluster) -> anyhow::Result<()> {
        let discovery = Discovery::fetch(cluster).await?;
        let shown = discovery.preferred().into_iter().filter(|kind| {
            self.namespaced.is_none_or(|wanted| kind.namespaced == wanted)
                && self.api_group.as_ref().is_none_or(|group| *group == kind.group)
        });
        if self.output.as_deref() == Some("name") {
            shown.for_each(|kind| println!("{}", kind.resource()));
            return Ok(());
        }
        let wide = self.output.is_some();
        let mut rows: Vec<Vec<String>> = shown
            .map(|kind| {
                let namespaced = kind.namespaced.to_string();
                let mut row = vec![
                    kind.plural.clone(),
                    kind.short_names.join(","),
                    kind.api_version(),
                    namespaced,
                    kind.kind.clone(),
                ];
                if wide {
                    row.extend([kind.verbs.join(","), kind.categories.join(",")]);
                }
                row
            })
            .collect();
        if !self.no_headers {
            let mut head = ["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"].map(str::to_owned).to_vec();
            if wide {
                head.extend(["VERBS", "CATEGORIES"].map(str::to_owned));
            }
            rows.insert(0, head);
        }
        print!("{}", Table::new(OBJECTS).render(&rows));
        Ok(())
    }
}
