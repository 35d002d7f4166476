//! CronJob: a Job at each time of a schedule.

use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, JobSpec};

use super::fields::{default_to, list, text};
use super::meta::{age_cell, name_cell, since, spec_and_status};
use super::{job, pod, workload};
use crate::kind::{Info, Resource, Subresource};
use crate::table::{Cell, Column};
use crate::validation::{Errors, Path, json, validate_non_negative};

/// A Job's name is the CronJob's and eleven characters more, and becomes the value of a label.
const NAME_MAX: usize = 52;

impl Resource for CronJob {
    const INFO: Info = Info {
        short_names: &["cj"],
        categories: &["all"],
        subresources: &[Subresource::Status],
        columns: &[
            Column::NAME,
            Column::text("Schedule", "The schedule in Cron format, see https://en.wikipedia.org/wiki/Cron."),
            Column::text("Timezone", "The time zone name for the given schedule."),
            Column {
                type_: "boolean",
                ..Column::text("Suspend", "This flag tells the controller to suspend subsequent executions.")
            },
            Column::integer("Active", "A list of pointers to currently running jobs."),
            Column::text("Last Schedule", "Information when was the last time the job was successfully scheduled."),
            Column::AGE,
            Column::text("Containers", "Names of each container in the template.").wide(),
            Column::text("Images", "Images referenced by each container in the template.").wide(),
            Column::text("Selector", "A label query over pods that should match the pod count.").wide(),
        ],
        has_generation: true,
        is_acted_on: false,
        ..Info::namespaced("cronjobs", "cronjob")
    };

    spec_and_status!();

    fn apply_defaults(&mut self) {
        let spec = &mut self.spec;
        default_to(&mut spec.concurrency_policy, "Allow");
        spec.suspend.get_or_insert(false);
        spec.successful_jobs_history_limit.get_or_insert(3);
        spec.failed_jobs_history_limit.get_or_insert(1);
        pod::default_template(&mut spec.job_template.spec.get_or_insert_default().template);
    }

    fn validate(&self, errors: &mut Errors) {
        let spec = &self.spec;
        let at = Path::new("spec");
        validate_schedule(spec, &at, errors);
        if let Some(seconds) = spec.starting_deadline_seconds {
            validate_non_negative(seconds, &at.child("startingDeadlineSeconds"), errors);
        }
        match text(&spec.concurrency_policy) {
            "Allow" | "Forbid" | "Replace" => {}
            "" => errors.required(&at.child("concurrencyPolicy"), ""),
            other => errors.not_supported(&at.child("concurrencyPolicy"), other, &["Allow", "Forbid", "Replace"]),
        }
        for (field, limit) in [
            ("successfulJobsHistoryLimit", spec.successful_jobs_history_limit),
            ("failedJobsHistoryLimit", spec.failed_jobs_history_limit),
        ] {
            validate_non_negative(limit.unwrap_or_default(), &at.child(field), errors);
        }
        let template_at = at.child("jobTemplate");
        let at = template_at.child("spec");
        let empty = JobSpec::default();
        let template = spec.job_template.spec.as_ref().unwrap_or(&empty);
        job::validate_spec(template, &at, errors);
        if let Some(selector) = &template.selector {
            errors.invalid(&at.child("selector"), json(selector), "`selector` will be auto-generated");
        }
        if template.manual_selector == Some(true) {
            errors.not_supported(&at.child("manualSelector"), true, &["false", "nil"]);
        }
    }

    fn validate_create(&self, errors: &mut Errors) {
        let name = text(&self.metadata.name);
        if name.len() > NAME_MAX {
            let meta = Path::new("metadata");
            errors.invalid(&meta.child("name"), name, format!("must be no more than {NAME_MAX} characters"));
        }
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        let spec = &self.spec;
        let no_status = CronJobStatus::default();
        let status = self.status.as_ref().unwrap_or(&no_status);
        let empty = JobSpec::default();
        let job = spec.job_template.spec.as_ref().unwrap_or(&empty);
        let last = status.last_schedule_time.as_ref();
        let suspended = spec.suspend.map_or("<unset>", |s| if s { "True" } else { "False" });
        vec![
            name_cell(&self.metadata),
            spec.schedule.as_str().into(),
            spec.time_zone.clone().unwrap_or_else(|| "<none>".to_owned()).into(),
            suspended.into(),
            list(&status.active).len().into(),
            last.map_or_else(|| "<none>".to_owned(), |t| since(Some(t), now)).into(),
            age_cell(&self.metadata, now),
            workload::container_names(&job.template).into(),
            workload::container_images(&job.template).into(),
            workload::selector_text(job.selector.as_ref()).into(),
        ]
    }
}

fn validate_schedule(spec: &CronJobSpec, at: &Path<'_>, errors: &mut Errors) {
    let schedule = spec.schedule.as_str();
    let schedule_at = at.child("schedule");
    if schedule.is_empty() {
        errors.required(&schedule_at, "");
    } else if schedule.contains("TZ") {
        let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        errors.invalid(&schedule_at, schedule, detail);
    } else if let Err(why) = check_schedule(schedule) {
        errors.invalid(&schedule_at, schedule, why);
    }
    let zone_at = at.child("timeZone");
    match spec.time_zone.as_deref() {
        Some("") => errors.invalid(&zone_at, "", "timeZone must be nil or non-empty string"),
        Some(zone) if zone.eq_ignore_ascii_case("local") => {
            errors.invalid(
                &zone_at,
                zone,
                "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
            );
        }
        _ => {}
    }
}

/// One of the five parts of a schedule: its range, and the names its values may have.
struct Part {
    low: u32,
    high: u32,
    names: &'static [&'static str],
}

const PARTS: [Part; 5] = [
    Part { low: 0, high: 59, names: &[] },
    Part { low: 0, high: 23, names: &[] },
    Part { low: 1, high: 31, names: &[] },
    Part {
        low: 1,
        high: 12,
        names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    },
    Part { low: 0, high: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] },
];

/// Whether a text is a schedule, in the grammar of `github.com/robfig/cron`.
fn check_schedule(schedule: &str) -> Result<(), String> {
    if let Some(word) = schedule.strip_prefix('@') {
        return match word.split_once(' ') {
            None if matches!(word, "yearly" | "annually" | "monthly" | "weekly" | "daily" | "midnight" | "hourly") => {
                Ok(())
            }
            Some(("every", duration)) if is_duration(duration) => Ok(()),
            Some(("every", _)) => Err(format!("failed to parse duration {schedule}: time: invalid duration")),
            _ => Err(format!("unrecognized descriptor: {schedule}")),
        };
    }
    let fields: Vec<&str> = schedule.split_whitespace().collect();
    if fields.len() != PARTS.len() {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    }
    fields
        .iter()
        .zip(&PARTS)
        .try_for_each(|(field, part)| field.split(',').try_for_each(|range| check_range(range, part)))
}

fn is_duration(text: &str) -> bool {
    let units = ["h", "ms", "us", "ns", "m", "s"];
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let unit = units.iter().find_map(|u| rest[digits..].strip_prefix(u));
        match unit {
            Some(after) if digits > 0 => rest = after,
            _ => return false,
        }
    }
    !text.is_empty()
}

fn check_range(range: &str, part: &Part) -> Result<(), String> {
    let (values, step) = range.split_once('/').map_or((range, None), |(v, s)| (v, Some(s)));
    if step.is_some_and(|s| s.contains('/')) {
        return Err(format!("too many slashes: {range}"));
    }
    let (low, high) = match values {
        "*" | "?" => (part.low, part.high),
        _ => {
            let mut ends = values.split('-');
            let low = number(ends.next().unwrap_or_default(), part)?;
            let high = ends.next().map(|end| number(end, part)).transpose()?;
            if ends.next().is_some() {
                return Err(format!("too many hyphens: {range}"));
            }
            (low, high.unwrap_or(if step.is_some() { part.high } else { low }))
        }
    };
    if step.map(plain_number).transpose()? == Some(0) {
        return Err(format!("step of range should be a positive number: {range}"));
    }
    if low < part.low {
        return Err(format!("beginning of range ({low}) below minimum ({}): {range}", part.low));
    }
    if high > part.high {
        return Err(format!("end of range ({high}) above maximum ({}): {range}", part.high));
    }
    if low > high {
        return Err(format!("beginning of range ({low}) beyond end of range ({high}): {range}"));
    }
    Ok(())
}

fn number(text: &str, part: &Part) -> Result<u32, String> {
    let named = part.names.iter().zip(part.low..).find(|(name, _)| name.eq_ignore_ascii_case(text));
    named.map_or_else(|| plain_number(text), |(_, n)| Ok(n))
}

fn plain_number(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{expect, faults, row, with};

    #[test]
    fn schedules() {
        for good in ["* * * * *", "*/5 0-6,12 1 jan-mar MON", "@hourly", "@every 1h30m", "0 0 ? * 0"] {
            assert_eq!(check_schedule(good), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("x * * * *", "failed to parse int from x"),
            ("@never", "unrecognized descriptor: @never"),
            ("@every x", "failed to parse duration"),
        ] {
            let error = check_schedule(bad).unwrap_err();
            assert!(error.starts_with(why), "{bad}: {error}");
        }
    }

    #[test]
    fn cron_jobs() {
        let base = json!({
            "metadata": {"name": "c", "namespace": "n", "creationTimestamp": "2024-05-01T11:55:00Z"},
            "spec": {"schedule": "0 0 * * *", "jobTemplate": {"spec": {"template": {"spec": {
                "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}},
        });
        let check = |patch: serde_json::Value, expected: &[&str]| {
            expect(&faults::<CronJob>(with(base.clone(), patch)), expected);
        };
        check(json!({}), &[]);
        check(
            json!({"metadata": {"name": "a".repeat(53)}, "spec": {"schedule": "TZ=UTC 0 0 * * *", "timeZone": "Local", "concurrencyPolicy": "Maybe"}}),
            &[
                "spec.schedule: Invalid value: \"TZ=UTC 0 0 * * *\": cannot use TZ or CRON_TZ in schedule",
                "spec.timeZone: Invalid value: \"Local\": timeZone must be an explicit time zone",
                "spec.concurrencyPolicy: Unsupported value: \"Maybe\": supported values: \"Allow\", \"Forbid\", \"Replace\"",
                "metadata.name: Invalid value: \"aaa",
            ],
        );
        let line = row::<CronJob>(with(base.clone(), json!({"spec": {"suspend": false}})));
        assert_eq!(line, "c|0 0 * * *|<none>|False|0|<none>|5m|c|i|<none>");
    }
}
