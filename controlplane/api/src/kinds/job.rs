//! Job: pods that run to an end. Its selector is made by the server unless the client insists on its own.

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus, PodFailurePolicy};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::fields::{default_to, is_true, list, omit_empty, text};
use super::meta::{age_cell, name_cell, status_apart};
use super::{pod, workload};
use crate::kind::{Info, Resource, Subresource};
use crate::selector::Selector;
use crate::table::{Cell, Column, human_duration};
use crate::validation::{
    Errors, IMMUTABLE, Path, json, qualified_name, validate_label_selector, validate_non_negative,
};

const UID_LABEL: &str = "batch.kubernetes.io/controller-uid";
const NAME_LABEL: &str = "batch.kubernetes.io/job-name";
/// The same labels as Jobs had before labels had prefixes; clients still select by them.
const OLD_LABELS: [&str; 2] = ["controller-uid", "job-name"];
const MAX_INDEXED_PARALLELISM: i32 = 100_000;
const MAX_FAILURE_RULES: usize = 20;

impl Resource for Job {
    const INFO: Info = Info {
        categories: &["all"],
        subresources: &[Subresource::Status],
        selectable_fields: &["status.successful"],
        columns: &[
            Column::NAME,
            Column::text("Status", "Status of the job."),
            Column::text("Completions", "The number of pods which reached phase Succeeded."),
            Column::text("Duration", "Time required to complete the job."),
            Column::AGE,
            Column::text("Containers", "Names of each container in the template.").wide(),
            Column::text("Images", "Images referenced by each container in the template.").wide(),
            Column::text("Selector", "A label query over pods that should match the pod count.").wide(),
        ],
        has_generation: true,
        is_acted_on: false,
        ..Info::namespaced("jobs", "job")
    };

    fn apply_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        if spec.completions.is_none() && spec.parallelism.is_none() {
            spec.completions = Some(1);
        }
        spec.parallelism.get_or_insert(1);
        let retries = if spec.backoff_limit_per_index.is_some() { i32::MAX } else { 6 };
        spec.backoff_limit.get_or_insert(retries);
        default_to(&mut spec.completion_mode, "NonIndexed");
        spec.suspend.get_or_insert(false);
        spec.manual_selector.get_or_insert(false);
        for rule in spec.pod_failure_policy.iter_mut().flat_map(|p| &mut p.rules) {
            for pattern in rule.on_pod_conditions.iter_mut().flatten() {
                default_to(&mut pattern.status, "True");
            }
        }
        let replace = if spec.pod_failure_policy.is_some() { "Failed" } else { "TerminatingOrFailed" };
        default_to(&mut spec.pod_replacement_policy, replace);
        if self.metadata.labels.as_ref().is_none_or(|l| l.is_empty()) {
            self.metadata.labels = spec.template.metadata.as_ref().and_then(|m| m.labels.clone());
            omit_empty!(self.metadata.labels);
        }
        pod::default_template(&mut spec.template);
    }

    fn prepare_create(&mut self) {
        self.status = Some(JobStatus::default());
        generate_selector(self);
    }

    status_apart!();

    fn spec_changed(&self, old: &Self) -> bool {
        self.spec != old.spec
    }

    fn validate(&self, errors: &mut Errors) {
        let empty = JobSpec::default();
        let spec = self.spec.as_ref().unwrap_or(&empty);
        let at = Path::new("spec");
        validate_spec(spec, &at, errors);
        let Some(selector) = &spec.selector else {
            return errors.required(&at.child("selector"), "");
        };
        validate_label_selector(selector, &at.child("selector"), errors);
        if let Ok(selector) = Selector::from_label_selector(selector) {
            workload::validate_matches(&selector, &spec.template, &at.child("template"), errors);
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let (Some(spec), Some(before)) = (&self.spec, &old.spec) else { return };
        let at = Path::new("spec");
        if spec.completions != before.completions {
            let indexed = text(&spec.completion_mode) == "Indexed";
            if !indexed || spec.completions.is_none() {
                errors.invalid(&at.child("completions"), json(&spec.completions), IMMUTABLE);
            } else if spec.completions != spec.parallelism {
                let detail = "can only be modified in tandem with spec.parallelism";
                errors.invalid(&at.child("completions"), json(&spec.completions), detail);
            }
        }
        for (field, changed, shown) in [
            ("selector", spec.selector != before.selector, json(&spec.selector)),
            ("completionMode", spec.completion_mode != before.completion_mode, json(&spec.completion_mode)),
            ("podFailurePolicy", spec.pod_failure_policy != before.pod_failure_policy, json(&spec.pod_failure_policy)),
            (
                "backoffLimitPerIndex",
                spec.backoff_limit_per_index != before.backoff_limit_per_index,
                json(&spec.backoff_limit_per_index),
            ),
            ("managedBy", spec.managed_by != before.managed_by, json(&spec.managed_by)),
            ("successPolicy", spec.success_policy != before.success_policy, json(&spec.success_policy)),
        ] {
            if changed {
                errors.invalid(&at.child(field), shown, IMMUTABLE);
            }
        }
        validate_template_update(self, old, &at.child("template"), errors);
    }

    fn validate_status_update(&self, _old: &Self, errors: &mut Errors) {
        let Some(s) = &self.status else { return };
        let at = Path::new("status");
        for (field, count) in [
            ("active", s.active),
            ("succeeded", s.succeeded),
            ("failed", s.failed),
            ("ready", s.ready),
            ("terminating", s.terminating),
        ] {
            validate_non_negative(count.unwrap_or_default(), &at.child(field), errors);
        }
    }

    fn warnings(&self) -> Vec<String> {
        self.spec.as_ref().map(|spec| workload::template_warnings(&spec.template)).unwrap_or_default()
    }

    fn selectable_field(&self, name: &str) -> Cow<'_, str> {
        match name {
            "status.successful" => {
                Cow::Owned(self.status.as_ref().and_then(|s| s.succeeded).unwrap_or_default().to_string())
            }
            _ => Cow::Borrowed(""),
        }
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        let (no_spec, no_status) = (JobSpec::default(), JobStatus::default());
        let spec = self.spec.as_ref().unwrap_or(&no_spec);
        let status = self.status.as_ref().unwrap_or(&no_status);
        let succeeded = status.succeeded.unwrap_or_default();
        let completions = match (spec.completions, spec.parallelism.unwrap_or_default()) {
            (Some(wanted), _) => format!("{succeeded}/{wanted}"),
            (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
            (None, _) => format!("{succeeded}/1"),
        };
        let duration = status.start_time.as_ref().map(|start| {
            let end = status.completion_time.as_ref().map_or(now, |t| t.0);
            human_duration(end.as_second() - start.0.as_second())
        });
        vec![
            name_cell(&self.metadata),
            state(self, status).into(),
            completions.into(),
            duration.unwrap_or_default().into(),
            age_cell(&self.metadata, now),
            workload::container_names(&spec.template).into(),
            workload::container_images(&spec.template).into(),
            workload::selector_text(spec.selector.as_ref()).into(),
        ]
    }
}

fn state(job: &Job, status: &JobStatus) -> &'static str {
    let has = |kind: &str| list(&status.conditions).iter().any(|c| c.type_ == kind && c.status == "True");
    match () {
        () if has("Complete") => "Complete",
        () if has("Failed") => "Failed",
        () if job.metadata.deletion_timestamp.is_some() => "Terminating",
        () if has("Suspended") => "Suspended",
        () if has("FailureTarget") => "FailureTarget",
        () if has("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

/// Gives the Job a selector by its uid, which no other Job has, and its pods the labels to match.
fn generate_selector(job: &mut Job) {
    let (Some(uid), Some(name)) = (job.metadata.uid.clone(), job.metadata.name.clone()) else { return };
    let Some(spec) = &mut job.spec else { return };
    if is_true(spec.manual_selector) {
        return;
    }
    let labels = spec.template.metadata.get_or_insert_default().labels.get_or_insert_default();
    for (key, value) in [(NAME_LABEL, &name), (UID_LABEL, &uid), (OLD_LABELS[0], &uid), (OLD_LABELS[1], &name)] {
        labels.insert(key.to_owned(), value.clone());
    }
    let selector = spec.selector.get_or_insert_with(LabelSelector::default);
    selector.match_labels.get_or_insert_default().entry(UID_LABEL.to_owned()).or_insert(uid);
}

/// The rules of a Job's spec that hold for the template of a CronJob too.
pub(super) fn validate_spec(spec: &JobSpec, at: &Path<'_>, errors: &mut Errors) {
    for (field, value) in [
        ("parallelism", spec.parallelism.map(i64::from)),
        ("completions", spec.completions.map(i64::from)),
        ("activeDeadlineSeconds", spec.active_deadline_seconds),
        ("backoffLimit", spec.backoff_limit.map(i64::from)),
        ("ttlSecondsAfterFinished", spec.ttl_seconds_after_finished.map(i64::from)),
        ("backoffLimitPerIndex", spec.backoff_limit_per_index.map(i64::from)),
        ("maxFailedIndexes", spec.max_failed_indexes.map(i64::from)),
    ] {
        validate_non_negative(value.unwrap_or_default(), &at.child(field), errors);
    }
    validate_mode(spec, at, errors);
    match spec.pod_replacement_policy.as_deref() {
        None | Some("Failed") => {}
        Some("TerminatingOrFailed") if spec.pod_failure_policy.is_none() => {}
        Some(other) => {
            let known: &[&str] =
                if spec.pod_failure_policy.is_some() { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
            errors.not_supported(&at.child("podReplacementPolicy"), other, known);
        }
    }
    if let Some(manager) = &spec.managed_by {
        errors.invalid_each(&at.child("managedBy"), manager, qualified_name(manager));
        if manager.len() > 63 {
            errors.too_long(&at.child("managedBy"), 63);
        }
    }
    if let Some(policy) = &spec.pod_failure_policy {
        validate_failure_policy(spec, policy, &at.child("podFailurePolicy"), errors);
    }
    let template = at.child("template");
    pod::validate_template(&spec.template, &template, errors);
    let policy = spec.template.spec.as_ref().map(|s| text(&s.restart_policy)).unwrap_or_default();
    let spec_at = template.child("spec");
    let at = spec_at.child("restartPolicy");
    match policy {
        "" | "Always" => errors.required(&at, "valid values: \"OnFailure\", \"Never\""),
        "OnFailure" if spec.pod_failure_policy.is_some() => {
            errors.invalid(&at, policy, "only \"Never\" is supported when podFailurePolicy is specified");
        }
        "OnFailure" | "Never" => {}
        other => errors.not_supported(&at, other, &["OnFailure", "Never"]),
    }
}

fn validate_mode(spec: &JobSpec, at: &Path<'_>, errors: &mut Errors) {
    let mode = text(&spec.completion_mode);
    if !matches!(mode, "" | "NonIndexed" | "Indexed") {
        errors.not_supported(&at.child("completionMode"), mode, &["Indexed", "NonIndexed"]);
    }
    if mode == "Indexed" {
        if spec.completions.is_none() {
            errors.required(&at.child("completions"), "when completion mode is Indexed");
        }
        if let Some(n) = spec.parallelism.filter(|n| *n > MAX_INDEXED_PARALLELISM) {
            let detail =
                format!("must be less than or equal to {MAX_INDEXED_PARALLELISM} when completion mode is Indexed");
            errors.invalid(&at.child("parallelism"), n, detail);
        }
    } else {
        for (field, value) in
            [("backoffLimitPerIndex", spec.backoff_limit_per_index), ("maxFailedIndexes", spec.max_failed_indexes)]
        {
            if let Some(value) = value {
                errors.invalid(&at.child(field), value, "requires indexed completion mode");
            }
        }
        if let Some(policy) = &spec.success_policy {
            errors.invalid(&at.child("successPolicy"), json(policy), "requires indexed completion mode");
        }
    }
    if let Some(most) = spec.max_failed_indexes {
        if spec.completions.is_some_and(|all| most > all) {
            errors.invalid(&at.child("maxFailedIndexes"), most, "must be less than or equal to completions");
        }
        if spec.backoff_limit_per_index.is_none() {
            errors.required(&at.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified");
        }
    }
    if spec.success_policy.as_ref().is_some_and(|p| p.rules.is_empty()) {
        let at = at.child("successPolicy");
        errors.required(&at.child("rules"), "at least one rules must be specified when the successPolicy is specified");
    }
}

fn validate_failure_policy(spec: &JobSpec, policy: &PodFailurePolicy, at: &Path<'_>, errors: &mut Errors) {
    let rules_at = at.child("rules");
    if policy.rules.len() > MAX_FAILURE_RULES {
        errors.too_many(&rules_at, policy.rules.len(), MAX_FAILURE_RULES);
    }
    for (i, rule) in policy.rules.iter().enumerate() {
        let at = rules_at.index(i);
        match rule.action.as_str() {
            "" => {
                errors.required(&at.child("action"), "valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]")
            }
            "FailIndex" if spec.backoff_limit_per_index.is_none() => {
                errors.invalid(&at.child("action"), "FailIndex", "requires the backoffLimitPerIndex to be set");
            }
            "Count" | "FailIndex" | "FailJob" | "Ignore" => {}
            other => errors.not_supported(&at.child("action"), other, &["Count", "FailIndex", "FailJob", "Ignore"]),
        }
        match (&rule.on_exit_codes, list(&rule.on_pod_conditions).is_empty()) {
            (Some(_), false) => {
                errors.invalid(&at, json(rule), "specifying both OnExitCodes and OnPodConditions is not supported");
            }
            (None, true) => {
                errors.invalid(&at, json(rule), "specifying one of OnExitCodes and OnPodConditions is required");
            }
            (Some(codes), true) => {
                let at = at.child("onExitCodes");
                if !matches!(codes.operator.as_str(), "In" | "NotIn") {
                    errors.not_supported(&at.child("operator"), &codes.operator, &["In", "NotIn"]);
                }
                if codes.values.is_empty() {
                    errors.invalid(&at.child("values"), json(&codes.values), "at least one value is required");
                }
                if codes.operator == "In" && codes.values.contains(&0) {
                    errors.invalid(&at.child("values"), 0, "must not be 0 for the In operator");
                }
                if let Some(name) = &codes.container_name {
                    let pod = spec.template.spec.as_ref();
                    let known = |n: &str| {
                        pod.is_some_and(|p| p.containers.iter().chain(list(&p.init_containers)).any(|c| c.name == n))
                    };
                    if !known(name) {
                        let detail = "must be one of the container or initContainer names in the pod template";
                        errors.invalid(&at.child("containerName"), name, detail);
                    }
                }
            }
            (None, false) => {}
        }
    }
}

/// A template stays as it was, but for where its pods go while the Job has never run.
fn validate_template_update(job: &Job, old: &Job, at: &Path<'_>, errors: &mut Errors) {
    let (Some(spec), Some(before)) = (&job.spec, &old.spec) else { return };
    let mut template = spec.template.clone();
    let started = old.status.as_ref().is_some_and(|s| s.start_time.is_some());
    if is_true(before.suspend) && !started {
        if let (Some(new), Some(old)) = (&mut template.spec, &before.template.spec) {
            new.node_selector.clone_from(&old.node_selector);
            new.tolerations.clone_from(&old.tolerations);
            new.scheduling_gates.clone_from(&old.scheduling_gates);
            let node = old.affinity.as_ref().and_then(|a| a.node_affinity.clone());
            let mut affinity = new.affinity.take().unwrap_or_default();
            affinity.node_affinity = node;
            new.affinity = (affinity != Default::default() || old.affinity.is_some()).then_some(affinity);
        }
        let meta = before.template.metadata.as_ref();
        let new = template.metadata.get_or_insert_default();
        new.annotations = meta.and_then(|m| m.annotations.clone());
        new.labels = meta.and_then(|m| m.labels.clone());
        if meta.is_none() {
            template.metadata = None;
        }
    }
    if template != before.template {
        errors.invalid(at, json(&spec.template), IMMUTABLE);
    }
}
