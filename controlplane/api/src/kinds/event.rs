//! Event of the core group: something that happened to an object. New-style Events, which have `eventTime`, have stricter
//! rules than the old ones.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::fields::text;
use super::meta::{name_cell, since};
use crate::kind::{Info, Resource};
use crate::table::{Cell, Column, age};
use crate::validation::{Errors, Path, qualified_name};

const WORD_MAX: usize = 128;
const MESSAGE_MAX: usize = 1024;

/// The columns of Events of both groups.
pub(super) const COLUMNS: &[Column] = &[
    Column::text("Last Seen", "The time at which the most recent occurrence of this event was recorded."),
    Column::text("Type", "Type of this event (Normal, Warning), new types could be added in the future"),
    Column::text("Reason", "This should be a short, machine understandable string that gives the reason for the transition into the object's current status."),
    Column::text("Object", "The object that this event is about."),
    Column::text("Subobject", "If referring to a piece of an object instead of an entire object, this string should contain a valid JSON/Go field access statement.").wide(),
    Column::text("Source", "The component reporting this event. Should be a short machine understandable string.").wide(),
    Column::text("Message", "A human-readable description of the status of this operation."),
    Column::text("First Seen", "The time at which the event was first recorded. (Time of server receipt is in TypeMeta.)").wide(),
    Column::integer("Count", "The number of times this event has occurred.").wide(),
    Column { priority: 1, ..Column::NAME },
];

impl Resource for Event {
    const INFO: Info = Info {
        short_names: &["ev"],
        // There are more of them than of anything else, and people read them as text.
        is_followed: false,
        selectable_fields: &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        columns: COLUMNS,
        create_on_update: true,
        ..Info::namespaced("events", "event")
    };

    fn validate(&self, errors: &mut Errors) {
        let about = text(&self.involved_object.namespace);
        let namespace = text(&self.metadata.namespace);
        // Events about objects of the cluster live in `default`; in this one they may come from its own components too.
        let agrees = match about {
            "" if self.event_time.is_some() => matches!(namespace, "" | "default" | "kube-system"),
            "" => matches!(namespace, "" | "default"),
            about => about == namespace,
        };
        if !agrees {
            let at = Path::new("involvedObject");
            errors.invalid(&at.child("namespace"), about, "does not match event.namespace");
        }
        if self.event_time.is_some() {
            validate_new_style(self, errors);
        }
    }

    fn selectable_field(&self, name: &str) -> Cow<'_, str> {
        let about = &self.involved_object;
        let source = self.source.as_ref().map(|s| text(&s.component)).unwrap_or_default();
        let controller = text(&self.reporting_component);
        Cow::Borrowed(match name {
            "involvedObject.kind" => text(&about.kind),
            "involvedObject.namespace" => text(&about.namespace),
            "involvedObject.name" => text(&about.name),
            "involvedObject.uid" => text(&about.uid),
            "involvedObject.apiVersion" => text(&about.api_version),
            "involvedObject.resourceVersion" => text(&about.resource_version),
            "involvedObject.fieldPath" => text(&about.field_path),
            "reason" => text(&self.reason),
            "reportingComponent" => controller,
            "source" if source.is_empty() => controller,
            "source" => source,
            "type" => text(&self.type_),
            _ => "",
        })
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        let micro = |t: Option<&MicroTime>| t.map_or_else(|| "<unknown>".to_owned(), |t| age(t.0, now));
        let first = match &self.first_timestamp {
            Some(time) => since(Some(time), now),
            None => micro(self.event_time.as_ref()),
        };
        let (last, count) = match &self.series {
            Some(series) => (micro(series.last_observed_time.as_ref()), series.count.unwrap_or_default()),
            None => {
                let last = self.last_timestamp.as_ref().map_or_else(|| first.clone(), |t| since(Some(t), now));
                (last, self.count.unwrap_or_default().max(1))
            }
        };
        let about = &self.involved_object;
        let kind = text(&about.kind).to_lowercase();
        let target = if text(&about.name).is_empty() { kind } else { format!("{kind}/{}", text(&about.name)) };
        vec![
            last.into(),
            text(&self.type_).into(),
            text(&self.reason).into(),
            target.into(),
            text(&about.field_path).into(),
            source(self).into(),
            text(&self.message).trim().into(),
            first.into(),
            count.into(),
            name_cell(&self.metadata),
        ]
    }
}

fn source(event: &Event) -> String {
    let or = |a: &Option<String>, b: &Option<String>| {
        if text(a).is_empty() { text(b).to_owned() } else { text(a).to_owned() }
    };
    let old = event.source.clone().unwrap_or_default();
    let component = or(&old.component, &event.reporting_component);
    let host = or(&old.host, &event.reporting_instance);
    if host.is_empty() { component } else { format!("{component}, {host}") }
}

fn validate_new_style(event: &Event, errors: &mut Errors) {
    let controller = text(&event.reporting_component);
    let at = Path::new("reportingController");
    if controller.is_empty() {
        errors.required(&at, "");
    }
    errors.invalid_each(&at, controller, qualified_name(controller));
    for (field, value) in [
        ("reportingInstance", text(&event.reporting_instance)),
        ("action", text(&event.action)),
        ("reason", text(&event.reason)),
    ] {
        if value.is_empty() {
            errors.required(&Path::new(field), "");
        } else if value.len() > WORD_MAX {
            errors.invalid(&Path::new(field), "", format!("can have at most {WORD_MAX} characters"));
        }
    }
    if text(&event.message).len() > MESSAGE_MAX {
        errors.invalid(&Path::new("message"), "", format!("can have at most {MESSAGE_MAX} characters"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{expect, faults, row, with};

    #[test]
    fn events() {
        let event = |rest: Value| {
            with(
                json!({"metadata": {"name": "e", "namespace": "n"}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": "n"}}),
                rest,
            )
        };
        let check = |rest: Value, expected: &[&str]| expect(&faults::<Event>(event(rest)), expected);
        check(json!({}), &[]);
        check(
            json!({"involvedObject": {"namespace": "m"}}),
            &["involvedObject.namespace: Invalid value: \"m\": does not match event.namespace"],
        );
        check(
            json!({"involvedObject": {"namespace": null}}),
            &["involvedObject.namespace: Invalid value: \"\": does not match event.namespace"],
        );
        check(
            json!({"eventTime": "2024-05-01T11:55:00Z", "reason": "R"}),
            &[
                "reportingController: Required value",
                "reportingController: Invalid value",
                "reportingController: Invalid value",
                "reportingInstance: Required value",
                "action: Required value",
            ],
        );
        let old = json!({"type": "Normal", "reason": "Pulled", "message": "done ", "source": {"component": "kubelet", "host": "h"},
            "firstTimestamp": "2024-05-01T11:50:00Z", "lastTimestamp": "2024-05-01T11:59:00Z", "count": 3});
        assert_eq!(row::<Event>(event(old)), "60s|Normal|Pulled|pod/p||kubelet, h|done|10m|3|e");
        let new = json!({"type": "Normal", "reason": "Pulled", "reportingComponent": "c", "eventTime": "2024-05-01T11:59:30.000000Z"});
        assert_eq!(row::<Event>(event(new)), "30s|Normal|Pulled|pod/p||c||30s|1|e");
    }
}
