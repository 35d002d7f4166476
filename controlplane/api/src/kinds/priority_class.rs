//! PriorityClass: a name for the priority of pods.

use k8s_openapi::api::scheduling::v1::PriorityClass;

use super::fields::{default_to, is_true, text};
use super::meta::{age_cell, name_cell};
use crate::kind::{Info, Resource};
use crate::table::{Cell, Column};
use crate::validation::{Errors, IMMUTABLE, Path};

/// The highest value of a class that is not the system's.
pub(crate) const HIGHEST_USER_PRIORITY: i32 = 1_000_000_000;
/// The system's own classes and their values.
pub(crate) const SYSTEM_CLASSES: [(&str, i32); 2] =
    [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

impl Resource for PriorityClass {
    const INFO: Info = Info {
        short_names: &["pc"],
        columns: &[
            Column::NAME,
            Column::integer("Value", "Value of PriorityClass's Priority."),
            Column { type_: "boolean", ..Column::text("Global-Default", "GlobalDefault of PriorityClass.") },
            Column::AGE,
            Column::text("PreemptionPolicy", "PreemptionPolicy of PriorityClass"),
        ],
        has_generation: true,
        ..Info::cluster("priorityclasses", "priorityclass")
    };

    fn apply_defaults(&mut self) {
        default_to(&mut self.preemption_policy, "PreemptLowerPriority");
    }

    fn validate(&self, errors: &mut Errors) {
        let name = text(&self.metadata.name);
        let value = self.value.unwrap_or_default();
        if name.starts_with("system-") {
            let wrong = match SYSTEM_CLASSES.iter().find(|(known, _)| *known == name) {
                None => Some(format!("{name} is not a known system priority class")),
                Some((_, known)) if *known != value => Some(format!("value of {name} PriorityClass must be {known}")),
                Some(_) if is_true(self.global_default) => {
                    Some(format!("globalDefault of {name} PriorityClass must be false"))
                }
                Some(_) => None,
            };
            if let Some(wrong) = wrong {
                let why = "priority class names with 'system-' prefix are reserved for system use only. error:";
                let at = Path::new("metadata");
                errors.forbidden(&at.child("name"), format!("{why} {wrong}"));
            }
        } else if value > HIGHEST_USER_PRIORITY {
            let why = format!("maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}");
            errors.forbidden(&Path::new("value"), why);
        }
        match text(&self.preemption_policy) {
            "PreemptLowerPriority" | "Never" => {}
            other => errors.not_supported(&Path::new("preemptionPolicy"), other, &["PreemptLowerPriority", "Never"]),
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        if self.value.unwrap_or_default() != old.value.unwrap_or_default() {
            errors.forbidden(&Path::new("value"), "may not be changed in an update.");
        }
        if self.preemption_policy != old.preemption_policy {
            errors.invalid(&Path::new("preemptionPolicy"), text(&self.preemption_policy), IMMUTABLE);
        }
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        vec![
            name_cell(&self.metadata),
            self.value.unwrap_or_default().into(),
            is_true(self.global_default).into(),
            age_cell(&self.metadata, now),
            text(&self.preemption_policy).into(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{created, expect, faults, row, update_faults, with};

    #[test]
    fn classes() {
        let class = |rest: Value| {
            with(json!({"metadata": {"name": "c", "creationTimestamp": "2024-05-01T11:55:00Z"}, "value": 1}), rest)
        };
        let made: PriorityClass = created(class(json!({})));
        assert_eq!(made.preemption_policy.as_deref(), Some("PreemptLowerPriority"));
        let check = |rest: Value, expected: &[&str]| expect(&faults::<PriorityClass>(class(rest)), expected);
        check(json!({"value": 1_000_000_000}), &[]);
        check(
            json!({"value": 1_000_000_001, "preemptionPolicy": "Maybe"}),
            &[
                "value: Forbidden: maximum allowed value of a user defined priority is 1000000000",
                "preemptionPolicy: Unsupported value: \"Maybe\": supported values: \"PreemptLowerPriority\", \"Never\"",
            ],
        );
        let system = |name: &str, value: i32, global: bool, expected: &[&str]| {
            check(json!({"metadata": {"name": name}, "value": value, "globalDefault": global}), expected);
        };
        system("system-node-critical", 2_000_001_000, false, &[]);
        let reserved = |why: &str| {
            format!(
                "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: {why}"
            )
        };
        system("system-x", 1, false, &[&reserved("system-x is not a known system priority class")]);
        system(
            "system-cluster-critical",
            1,
            false,
            &[&reserved("value of system-cluster-critical PriorityClass must be 2000000000")],
        );
        system(
            "system-cluster-critical",
            2_000_000_000,
            true,
            &[&reserved("globalDefault of system-cluster-critical PriorityClass must be false")],
        );
        expect(
            &update_faults::<PriorityClass>(
                class(json!({})),
                class(json!({"value": 2, "preemptionPolicy": "Never", "globalDefault": true})),
            ),
            &[
                "value: Forbidden: may not be changed in an update.",
                "preemptionPolicy: Invalid value: \"Never\": field is immutable",
            ],
        );
        assert_eq!(row::<PriorityClass>(class(json!({"preemptionPolicy": "Never"}))), "c|1|false|5m|Never");
    }
}
