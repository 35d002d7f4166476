//! Earlier revisions of an object: ReplicaSets of a Deployment, ControllerRevisions of the others. Pure.

use anyhow::bail;
use serde_json::{Map, Value, json};

use crate::print::table;

const REVISION: &str = "deployment.kubernetes.io/revision";
const CHANGE_CAUSE: &str = "kubernetes.io/change-cause";

/// Annotations that are the Deployment's own and no part of a revision.
const OWN_ANNOTATIONS: [&str; 5] = [
    crate::apply::LAST_APPLIED,
    REVISION,
    "deployment.kubernetes.io/revision-history",
    "deployment.kubernetes.io/desired-replicas",
    "deployment.kubernetes.io/max-replicas",
];

/// The label that tells ReplicaSets of one Deployment apart.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// What was at a revision.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Revision {
    pub number: i64,
    pub change_cause: Option<String>,
    pub template: Value,
    /// The template as it is kept, with what only the controller writes; the change's cause is an annotation of it.
    pub kept_template: Value,
    /// What the ReplicaSet kept of the Deployment's annotations.
    annotations: Map<String, Value>,
    /// The patch that goes back to it, where it is kept as one.
    pub patch: Option<Value>,
}

/// The revisions among `kept` that are the object's, the oldest first.
pub(super) fn revisions(object: &Value, kept: &[Value]) -> Vec<Revision> {
    let uid = &object["metadata"]["uid"];
    let is_ours = |item: &&Value| {
        item["metadata"]["ownerReferences"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|owner| owner["controller"] == true && owner["uid"] == *uid)
    };
    let mut revisions: Vec<Revision> = kept.iter().filter(is_ours).filter_map(revision).collect();
    revisions.sort_by_key(|revision| revision.number);
    revisions
}

fn revision(item: &Value) -> Option<Revision> {
    let annotations = item["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
    let change_cause = annotations.get(CHANGE_CAUSE).and_then(Value::as_str).map(str::to_owned);
    if let Some(number) = item["revision"].as_i64() {
        let patch = item["data"].clone();
        let mut template = patch["spec"]["template"].clone();
        if let Some(map) = template.as_object_mut() {
            map.remove("$patch");
        }
        let kept_template = with_cause(&template, change_cause.as_deref());
        return Some(Revision { number, change_cause, template, kept_template, annotations, patch: Some(patch) });
    }
    let number = annotations.get(REVISION)?.as_str()?.parse().ok()?;
    let mut template = item["spec"]["template"].clone();
    let kept_template = with_cause(&template, change_cause.as_deref());
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(TEMPLATE_HASH);
    }
    Some(Revision { number, change_cause, template, kept_template, annotations, patch: None })
}

fn with_cause(template: &Value, cause: Option<&str>) -> Value {
    let mut template = template.clone();
    if let Some(cause) = cause.filter(|cause| !cause.is_empty()) {
        template["metadata"]["annotations"][CHANGE_CAUSE] = cause.into();
    }
    template
}

/// kubectl's table of revisions.
pub(super) fn table(revisions: &[Revision]) -> String {
    let mut rows = vec![vec!["REVISION".to_owned(), "CHANGE-CAUSE".to_owned()]];
    for revision in revisions {
        let cause =
            revision.change_cause.clone().filter(|cause| !cause.is_empty()).unwrap_or_else(|| "<none>".to_owned());
        rows.push(vec![revision.number.to_string(), cause]);
    }
    table::Table::new(table::DETAILS).render(&rows)
}

/// The revision to go back to; 0 is the one before the last.
pub(super) fn target(revisions: &[Revision], to: i64) -> anyhow::Result<&Revision> {
    let found = if to == 0 {
        revisions.len().checked_sub(2).and_then(|at| revisions.get(at))
    } else {
        revisions.iter().find(|revision| revision.number == to)
    };
    match found {
        Some(revision) => Ok(revision),
        None if to == 0 => bail!("no rollout history found"),
        None => bail!("unable to find specified revision {to} in history"),
    }
}

/// The operations that take a Deployment back to a revision.
pub(super) fn rollback(object: &Value, revision: &Revision) -> Value {
    let mut annotations = Map::new();
    // The Deployment's own stay, the revision's take the place of the rest.
    for name in OWN_ANNOTATIONS {
        if let Some(value) = object["metadata"]["annotations"].get(name) {
            annotations.insert(name.to_owned(), value.clone());
        }
    }
    for (name, value) in &revision.annotations {
        if !OWN_ANNOTATIONS.contains(&name.as_str()) {
            annotations.insert(name.clone(), value.clone());
        }
    }
    json!([
        {"op": "replace", "path": "/spec/template", "value": revision.template},
        {"op": "add", "path": "/metadata/annotations", "value": annotations},
    ])
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{REVISION, revisions, rollback, table, target};

    fn set(revision: &str, image: &str, owner: &str, cause: Option<&str>) -> Value {
        let mut set = json!({
            "metadata": {"annotations": {REVISION: revision, "note": image}, "ownerReferences": [{"controller": true, "uid": owner}]},
            "spec": {"template": {"metadata": {"labels": {"app": "x", "pod-template-hash": "h"}}, "spec": {"image": image}}},
        });
        if let Some(cause) = cause {
            set["metadata"]["annotations"]["kubernetes.io/change-cause"] = cause.into();
        }
        set
    }

    #[test]
    fn a_deployment_remembers_its_sets() {
        let deployment = json!({"metadata": {"uid": "u", "annotations": {REVISION: "3", "mine": "gone"}}});
        let kept = [
            set("3", "c", "u", Some("third")),
            set("10", "d", "u", None),
            set("1", "a", "u", None),
            set("9", "z", "other", None),
        ];
        let found = revisions(&deployment, &kept);
        assert_eq!(table(&found), "REVISION  CHANGE-CAUSE\n1         <none>\n3         third\n10        <none>\n");
        assert_eq!(target(&found, 0).expect("there is one before").number, 3);
        assert_eq!(target(&found, 1).expect("it is known").template["spec"]["image"], "a");
        assert_eq!(
            target(&found, 7).expect_err("it is not").to_string(),
            "unable to find specified revision 7 in history"
        );
        assert!(target(&found[..1], 0).is_err());
        let patch = rollback(&deployment, &found[0]);
        assert_eq!(patch[0]["value"], json!({"metadata": {"labels": {"app": "x"}}, "spec": {"image": "a"}}));
        assert_eq!(patch[1]["value"], json!({REVISION: "3", "note": "a"}));
    }

    #[test]
    fn controller_revisions_are_patches() {
        let object = json!({"metadata": {"uid": "u"}});
        let kept = [json!({"revision": 2, "metadata": {"ownerReferences": [{"controller": true, "uid": "u"}]},
            "data": {"spec": {"template": {"$patch": "replace", "spec": {}}}}})];
        let found = revisions(&object, &kept);
        assert_eq!(found[0].template, json!({"spec": {}}));
        assert!(found[0].patch.is_some());
    }
}
