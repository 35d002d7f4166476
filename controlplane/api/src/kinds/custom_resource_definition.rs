//! CustomResourceDefinition: a kind that users add.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

use super::fields::{list, text};
use super::meta::spec_and_status;
use crate::kind::{Info, Resource, Subresource};
use crate::validation::{Errors, IMMUTABLE, Path, dns1035_label, dns1123_subdomain};

impl Resource for CustomResourceDefinition {
    const INFO: Info = Info {
        short_names: &["crd", "crds"],
        categories: &["api-extensions"],
        subresources: &[Subresource::Status],
        has_generation: true,
        needs_version: true,
        is_acted_on: false,
        ..Info::cluster("customresourcedefinitions", "customresourcedefinition")
    };

    spec_and_status!();

    fn apply_defaults(&mut self) {
        let names = &mut self.spec.names;
        if text(&names.singular).is_empty() {
            names.singular = Some(names.kind.to_lowercase());
        }
        if text(&names.list_kind).is_empty() && !names.kind.is_empty() {
            names.list_kind = Some(format!("{}List", names.kind));
        }
        let conversion = self.spec.conversion.get_or_insert_default();
        if conversion.strategy.is_empty() {
            conversion.strategy = "None".to_owned();
        }
    }

    fn validate(&self, errors: &mut Errors) {
        let (spec, at) = (&self.spec, Path::new("spec"));
        let needed = format!("{}.{}", spec.names.plural, spec.group);
        if text(&self.metadata.name) != needed {
            let at = Path::new("metadata");
            let why = format!("must be spec.names.plural+\".\"+spec.group: {needed:?}");
            errors.invalid(&at.child("name"), text(&self.metadata.name), why);
        }
        if spec.group.is_empty() {
            errors.required(&at.child("group"), "");
        } else {
            errors.invalid_each(&at.child("group"), &spec.group, dns1123_subdomain(&spec.group));
            if !spec.group.contains('.') {
                errors.invalid(&at.child("group"), &spec.group, "should be a domain with at least one dot");
            }
        }
        match spec.scope.as_str() {
            "Cluster" | "Namespaced" => {}
            "" => errors.required(&at.child("scope"), ""),
            other => errors.not_supported(&at.child("scope"), other, &["Cluster", "Namespaced"]),
        }
        if spec.versions.iter().filter(|v| v.storage).count() != 1 {
            errors.invalid(
                &at.child("versions"),
                crate::validation::json(&spec.versions.iter().map(|v| &v.name).collect::<Vec<_>>()),
                "must have exactly one version marked as storage version",
            );
        }
        for (i, version) in spec.versions.iter().enumerate() {
            let all = at.child("versions");
            let at = all.index(i);
            errors.invalid_each(&at.child("name"), &version.name, dns1035_label(&version.name));
            if spec.versions[..i].iter().any(|v| v.name == version.name) {
                errors.duplicate(&at.child("name"), &version.name);
            }
            if version.schema.as_ref().is_none_or(|s| s.open_api_v3_schema.is_none()) {
                let at = at.child("schema");
                errors.required(&at.child("openAPIV3Schema"), "schemas are required");
            }
        }
        let at = at.child("names");
        let names = &spec.names;
        let singular = text(&names.singular);
        for (field, value) in [("plural", names.plural.as_str()), ("singular", singular)] {
            errors.invalid_each(&at.child(field), value, dns1035_label(value));
        }
        let kind = names.kind.to_lowercase();
        errors.invalid_each(&at.child("kind"), &names.kind, dns1035_label(&kind));
        if text(&names.list_kind) == names.kind {
            let why = "kind and listKind may not be the same";
            errors.invalid(&at.child("listKind"), text(&names.list_kind), why);
        }
        for (i, short) in list(&names.short_names).iter().enumerate() {
            errors.invalid_each(&at.child("shortNames").index(i), short, dns1035_label(short));
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let at = Path::new("spec");
        for (field, new, old) in
            [("group", &self.spec.group, &old.spec.group), ("scope", &self.spec.scope, &old.spec.scope)]
        {
            if new != old {
                errors.invalid(&at.child(field), new, IMMUTABLE);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{created, expect, faults, row, update_faults, with};

    fn definition(rest: Value) -> Value {
        let schema = json!({"openAPIV3Schema": {"type": "object"}});
        let definition = json!({
            "metadata": {"name": "widgets.example.com", "creationTimestamp": "2024-05-01T11:55:00Z"},
            "spec": {
                "group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}],
            },
        });
        with(definition, rest)
    }

    #[test]
    fn definitions() {
        let made: CustomResourceDefinition = created(definition(json!({})));
        assert_eq!(made.spec.names.singular.as_deref(), Some("widget"));
        assert_eq!(made.spec.names.list_kind.as_deref(), Some("WidgetList"));
        assert_eq!(made.spec.conversion.unwrap().strategy, "None");
        let check =
            |rest: Value, expected: &[&str]| expect(&faults::<CustomResourceDefinition>(definition(rest)), expected);
        check(json!({}), &[]);
        check(
            json!({"spec": {"group": "local", "scope": "Everywhere", "names": {"plural": "W", "kind": "W-", "listKind": "W-", "shortNames": ["-"]}}}),
            &[
                "metadata.name: Invalid value: \"widgets.example.com\": must be spec.names.plural+\".\"+spec.group: \"W.local\"",
                "spec.group: Invalid value: \"local\": should be a domain with at least one dot",
                "spec.scope: Unsupported value: \"Everywhere\": supported values: \"Cluster\", \"Namespaced\"",
                "spec.names.plural: Invalid value: \"W\": a DNS-1035 label",
                "spec.names.singular: Invalid value: \"w-\": a DNS-1035 label",
                "spec.names.kind: Invalid value: \"W-\": a DNS-1035 label",
                "spec.names.listKind: Invalid value: \"W-\": kind and listKind may not be the same",
                "spec.names.shortNames[0]: Invalid value: \"-\": a DNS-1035 label",
            ],
        );
        check(
            json!({"spec": {"versions": [{"name": "v1", "served": true, "storage": false}, {"name": "v1", "served": true, "storage": false}]}}),
            &[
                "spec.versions: Invalid value: [\"v1\",\"v1\"]: must have exactly one version marked as storage version",
                "spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required",
                "spec.versions[1].name: Duplicate value: \"v1\"",
                "spec.versions[1].schema.openAPIV3Schema: Required value: schemas are required",
            ],
        );
        expect(
            &update_faults::<CustomResourceDefinition>(
                definition(json!({})),
                definition(json!({"spec": {"scope": "Cluster"}})),
            ),
            &["spec.scope: Invalid value: \"Cluster\": field is immutable"],
        );
        assert_eq!(row::<CustomResourceDefinition>(definition(json!({}))), "widgets.example.com|2024-05-01T11:55:00Z");
    }
}
