//! `coracle apply`: makes objects what their files say, as kubectl's client-side apply does: what the last applied file had and
//! this one has not is deleted, the rest is merged.

use clap::Args;
use coracle_api::patch::{three_way, three_way_merge};
use serde_json::{Value, json};

use crate::{
    cluster::{Call, Cluster, FIELD_MANAGER, MERGE, STRATEGIC},
    create::DryRun,
    discovery::Discovery,
    failure,
    manifest::{Files, Target},
    output::{Count, Headers, ManagedFields, Output, Shown, render},
};

/// Where kubectl and this keep the last applied object.
pub(crate) const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Tries when someone else writes at the same time, as kubectl has it.
const MAX_TRIES: u32 = 5;

/// Makes objects what their files say.
#[derive(Debug, Args)]
pub(crate) struct Apply {
    #[command(flatten)]
    files: Files,

    #[command(flatten)]
    how: How,
}

/// How objects are written; shared with `server --apply`.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct How {
    /// none, server (check and show, write nothing) or client (send nothing)
    #[arg(long, value_name = "HOW", default_value = "none", num_args = 0..=1, default_missing_value = "client")]
    pub dry_run: DryRun,

    /// name, json, yaml, jsonpath=…
    #[arg(long, short = 'o', value_name = "FORM")]
    pub output: Option<Output>,

    /// strict, warn or ignore: what happens to unknown fields
    #[arg(long, value_name = "HOW", default_value = "strict", num_args = 0..=1, default_missing_value = "strict")]
    pub validate: String,
}

impl How {
    /// The server's word for what happens to unknown fields.
    pub(crate) fn field_validation(&self) -> anyhow::Result<&'static str> {
        Ok(match self.validate.as_str() {
            "strict" | "true" => "Strict",
            "warn" => "Warn",
            "ignore" | "false" => "Ignore",
            other => anyhow::bail!("invalid - validate option {other:?}; must be one of: strict, warn, ignore"),
        })
    }

    /// Says what was done to an object, or shows it.
    pub(crate) fn report(&self, target: &Target, object: Value, done: &str) -> anyhow::Result<()> {
        match &self.output {
            None => {
                let name = object["metadata"]["name"].as_str().unwrap_or(&target.name);
                println!("{} {done}{}", target.kind.named(name), self.dry_run.remark());
            }
            Some(output) => {
                let shown = Shown::new(&target.kind, object, ManagedFields::Hidden);
                print!("{}", render(output, &[shown], Count::One, Headers::Shown)?);
            }
        }
        Ok(())
    }
}

impl Apply {
    pub(crate) async fn run(self, cluster: &Cluster) -> anyhow::Result<()> {
        anyhow::ensure!(!self.files.is_empty(), "must specify one of -f and -k");
        let discovery = Discovery::fetch(cluster).await?;
        apply_files(cluster, &discovery, &self.files, &self.how).await
    }
}

/// Applies all objects of files. One that fails does not keep the others from being applied.
pub(crate) async fn apply_files(
    cluster: &Cluster,
    discovery: &Discovery,
    files: &Files,
    how: &How,
) -> anyhow::Result<()> {
    let mut problems = Vec::new();
    for manifest in files.read()? {
        let applied = async {
            let target = manifest.resolve(discovery, cluster)?;
            let (object, done) = apply(cluster, &target, how).await?;
            how.report(&target, object, done.as_str())
        };
        if let Err(error) = applied.await {
            problems.push(error);
        }
    }
    failure::say_all(&problems)
}

/// What applying did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    Created,
    Configured,
    Unchanged,
}

impl Done {
    fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Unchanged => "unchanged",
        }
    }
}

async fn apply(cluster: &Cluster, target: &Target, how: &How) -> anyhow::Result<(Value, Done)> {
    if target.name.is_empty() {
        if let Some(generated) = target.object["metadata"]["generateName"].as_str().filter(|name| !name.is_empty()) {
            anyhow::bail!("from {generated}: cannot use generate name with apply");
        }
        anyhow::bail!(
            "error when {}\nfrom server for: {:?}: resource name may not be empty",
            retrieving(target),
            target.source
        );
    }
    let modified = with_last_applied(&target.object);
    for attempt in 1.. {
        let current = match cluster.json(Call::get(target.path())).await {
            Ok(current) => Some(current),
            Err(error) if failure::is_not_found(&error) => None,
            Err(error) => {
                let verb = format!("{}\nfrom server for:", retrieving(target));
                return Err(failure::while_doing(error, &verb, &target.source));
            }
        };
        let written = match &current {
            None => create(cluster, target, &modified, how).await,
            Some(current) => configure(cluster, target, current, &modified, how).await,
        };
        match written {
            // Someone else wrote between the reading and the writing.
            Err(error) if attempt < MAX_TRIES && failure::is_conflict(&error) => {}
            Err(error) => {
                let verb = if current.is_none() { "creating" } else { "applying patch to" };
                return Err(failure::while_doing(error, verb, &target.source));
            }
            Ok(written) => return Ok(written),
        }
    }
    unreachable!("the last try returns")
}

/// What is being read, as kubectl names it where that fails.
fn retrieving(target: &Target) -> String {
    let kind = &target.kind;
    let version =
        if kind.group.is_empty() { format!("/{}", kind.version) } else { format!("{}/{}", kind.group, kind.version) };
    format!(
        "retrieving current configuration of:\nResource: {:?}, GroupVersionKind: {:?}\nName: {:?}, Namespace: {:?}",
        format!("{version}, Resource={}", kind.plural),
        format!("{version}, Kind={}", kind.kind),
        target.name,
        target.namespace
    )
}

async fn create(cluster: &Cluster, target: &Target, modified: &Value, how: &How) -> anyhow::Result<(Value, Done)> {
    if how.dry_run == DryRun::Client {
        return Ok((modified.clone(), Done::Created));
    }
    let call = Call::post(target.collection(), modified)
        .query("fieldManager", FIELD_MANAGER)
        .query("fieldValidation", how.field_validation()?)
        .maybe("dryRun", how.dry_run.parameter());
    Ok((cluster.json(call).await?, Done::Created))
}

async fn configure(
    cluster: &Cluster,
    target: &Target,
    current: &Value,
    modified: &Value,
    how: &How,
) -> anyhow::Result<(Value, Done)> {
    let original = last_applied(current);
    if original.is_none() {
        eprintln!(
            "Warning: resource {}/{} is missing the {LAST_APPLIED} annotation which is required by coracle apply. coracle apply \
             should only be used on resources created declaratively by either coracle create --save-config or coracle apply. \
             The missing annotation will be patched automatically.",
            target.kind.plural, target.name
        );
    }
    // Without the server nobody knows what would change: kubectl says that all does.
    if how.dry_run == DryRun::Client {
        return Ok((current.clone(), Done::Configured));
    }
    let (sort, patch) = patch(target, original.as_ref(), modified, current)?;
    if patch == json!({}) {
        return Ok((current.clone(), Done::Unchanged));
    }
    let call = Call::patch(target.path(), sort, &patch)
        .query("fieldManager", FIELD_MANAGER)
        .query("fieldValidation", how.field_validation()?)
        .maybe("dryRun", how.dry_run.parameter());
    Ok((cluster.json(call).await?, Done::Configured))
}

/// The patch that makes `current` what `modified` says, and its content type.
fn patch(
    target: &Target,
    original: Option<&Value>,
    modified: &Value,
    current: &Value,
) -> anyhow::Result<(&'static str, Value)> {
    let empty = json!({});
    let original = original.unwrap_or(&empty);
    let api_version = target.kind.api_version();
    let built_in = coracle_api::kinds::find_by_kind(&api_version, &target.kind.kind).is_some();
    let made = if built_in {
        (STRATEGIC, three_way((&api_version, &target.kind.kind), original, modified, current))
    } else {
        (MERGE, three_way_merge(original, modified, current))
    };
    let patch = made.1.map_err(|error| {
        anyhow::anyhow!(
            "error when creating patch for {} from {}: {error}",
            target.kind.named(&target.name),
            target.source
        )
    })?;
    Ok((made.0, patch))
}

/// The object that was applied last.
fn last_applied(current: &Value) -> Option<Value> {
    let text = current["metadata"]["annotations"][LAST_APPLIED].as_str()?;
    serde_json::from_str(text).ok()
}

/// The object with itself written into its annotation.
pub(crate) fn with_last_applied(object: &Value) -> Value {
    let mut modified = object.clone();
    if let Some(annotations) = modified["metadata"]["annotations"].as_object_mut() {
        annotations.remove(LAST_APPLIED);
    } else if modified["metadata"]["annotations"].is_null() {
        modified["metadata"]["annotations"] = json!({});
    }
    let text = format!("{modified}\n");
    modified["metadata"]["annotations"][LAST_APPLIED] = text.into();
    modified
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{LAST_APPLIED, last_applied, with_last_applied};

    #[test]
    fn the_annotation_holds_the_object_without_itself() {
        let object = json!({"kind": "Pod", "metadata": {"name": "x", "annotations": {LAST_APPLIED: "old", "a": "b"}}});
        let modified = with_last_applied(&object);
        let inner = last_applied(&modified).expect("it is there");
        assert_eq!(inner, json!({"kind": "Pod", "metadata": {"name": "x", "annotations": {"a": "b"}}}));
        // Applying what was applied changes nothing.
        assert_eq!(with_last_applied(&modified), modified);
        assert!(modified["metadata"]["annotations"][LAST_APPLIED].as_str().expect("text").ends_with('\n'));
        let bare = with_last_applied(&json!({"metadata": {"name": "x"}}));
        assert_eq!(last_applied(&bare), Some(json!({"metadata": {"name": "x", "annotations": {}}})));
    }
}
