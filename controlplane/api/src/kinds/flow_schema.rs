//! FlowSchema: which requests belong to which priority level.

use k8s_openapi::api::flowcontrol::v1::{
    FlowSchema, FlowSchemaSpec, NonResourcePolicyRule, PolicyRulesWithSubjects, ResourcePolicyRule, Subject,
};
use serde_json::json as value;

use super::fields::{default_number, is_true, list, text};
use super::meta::{age_cell, name_cell, spec_and_status};
use super::priority_level_configuration::validate_condition_types;
use crate::kind::{Info, Resource, Subresource};
use crate::table::{Cell, Column};
use crate::validation::{Errors, Path, dns1123_label, dns1123_subdomain, json};

const MAX_PRECEDENCE: i32 = 10_000;
const DEFAULT_PRECEDENCE: i32 = 1000;
const DISTINGUISHERS: [&str; 2] = ["ByNamespace", "ByUser"];
const VERBS: [&str; 9] = ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

impl Resource for FlowSchema {
    const INFO: Info = Info {
        subresources: &[Subresource::Status],
        columns: &[
            Column::NAME,
            Column::text(
                "PriorityLevel",
                "`name` is the name of the priority level configuration being referenced Required.",
            ),
            Column::text(
                "MatchingPrecedence",
                "`matchingPrecedence` is used to choose among the FlowSchemas that match a given request. The chosen FlowSchema is among those with the numerically lowest (which we take to be logically highest) MatchingPrecedence.  Each MatchingPrecedence value must be ranged in [1,10000]. Note that if the precedence is not specified, it will be set to 1000 as default.",
            ),
            Column::text(
                "DistinguisherMethod",
                "`distinguisherMethod` defines how to compute the flow distinguisher for requests that match this schema. `nil` specifies that the distinguisher is disabled and thus will always be the empty string.",
            ),
            Column::AGE,
            Column::text("MissingPL", "references a broken or non-existent PriorityLevelConfiguration"),
        ],
        has_generation: true,
        is_acted_on: false,
        ..Info::cluster("flowschemas", "flowschema")
    };

    spec_and_status!();

    fn apply_defaults(&mut self) {
        default_number(&mut self.spec.get_or_insert_default().matching_precedence, DEFAULT_PRECEDENCE);
    }

    fn validate(&self, errors: &mut Errors) {
        let empty = FlowSchemaSpec::default();
        let spec = self.spec.as_ref().unwrap_or(&empty);
        let at = Path::new("spec");
        let name = text(&self.metadata.name);
        validate_spec(name, spec, &at, errors);
        if mandatory(name).is_some_and(|fixed| fixed != *spec) {
            errors.invalid(&at, json(spec), format!("spec of '{name}' must equal the fixed value"));
        }
    }

    fn validate_status_update(&self, _old: &Self, errors: &mut Errors) {
        let conditions = self.status.as_ref().map(|s| list(&s.conditions)).unwrap_or_default();
        validate_condition_types(conditions.iter().map(|c| text(&c.type_)), errors);
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        let empty = FlowSchemaSpec::default();
        let spec = self.spec.as_ref().unwrap_or(&empty);
        let conditions = self.status.as_ref().map(|s| list(&s.conditions)).unwrap_or_default();
        let dangling = conditions.iter().find(|c| text(&c.type_) == "Dangling");
        vec![
            name_cell(&self.metadata),
            spec.priority_level_configuration.name.as_str().into(),
            spec.matching_precedence.unwrap_or_default().into(),
            spec.distinguisher_method.as_ref().map_or("<none>", |m| m.type_.as_str()).into(),
            age_cell(&self.metadata, now),
            dangling.map_or("?", |c| text(&c.status)).into(),
        ]
    }
}

/// The specs of the two schemas without which a cluster could lock itself up. They cannot be changed.
fn mandatory(name: &str) -> Option<FlowSchemaSpec> {
    let (precedence, method, groups): (i32, Option<&str>, &[&str]) = match name {
        "exempt" => (1, None, &["system:masters"]),
        "catch-all" => (MAX_PRECEDENCE, Some("ByUser"), &["system:unauthenticated", "system:authenticated"]),
        _ => return None,
    };
    let subjects: Vec<_> = groups.iter().map(|g| value!({"kind": "Group", "group": {"name": g}})).collect();
    let spec = value!({
        "matchingPrecedence": precedence,
        "priorityLevelConfiguration": {"name": name},
        "distinguisherMethod": method.map(|method| value!({"type": method})),
        "rules": [{
            "subjects": subjects,
            "resourceRules": [{
                "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true,
            }],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
        }],
    });
    Some(serde_json::from_slice(spec.to_string().as_bytes()).expect("it has the shape of the type"))
}

fn validate_spec(name: &str, spec: &FlowSchemaSpec, at: &Path<'_>, errors: &mut Errors) {
    let precedence = spec.matching_precedence.unwrap_or_default();
    let precedence_at = at.child("matchingPrecedence");
    if precedence <= 0 {
        errors.invalid(&precedence_at, precedence, "must be a positive value");
    }
    if precedence > MAX_PRECEDENCE {
        errors.invalid(&precedence_at, precedence, format!("must not be greater than {MAX_PRECEDENCE}"));
    }
    if precedence == 1 && name != "exempt" {
        let why = "only the schema named 'exempt' may have matchingPrecedence 1";
        errors.invalid(&precedence_at, precedence, why);
    }
    if let Some(method) = &spec.distinguisher_method
        && !DISTINGUISHERS.contains(&method.type_.as_str())
    {
        let at = at.child("distinguisherMethod");
        errors.not_supported(&at.child("type"), json(method), &DISTINGUISHERS);
    }
    let level = &spec.priority_level_configuration.name;
    let level_at = at.child("priorityLevelConfiguration");
    if level.is_empty() {
        errors.required(&level_at.child("name"), "must reference a priority level");
    } else {
        errors.invalid_each(&level_at.child("name"), level, dns1123_subdomain(level));
    }
    for (i, rule) in list(&spec.rules).iter().enumerate() {
        validate_rules(rule, &at.child("rules").index(i), errors);
    }
}

fn validate_rules(rules: &PolicyRulesWithSubjects, at: &Path<'_>, errors: &mut Errors) {
    if rules.subjects.is_empty() {
        errors.required(&at.child("subjects"), "subjects must contain at least one value");
    }
    for (i, subject) in rules.subjects.iter().enumerate() {
        validate_subject(subject, &at.child("subjects").index(i), errors);
    }
    let (resources, urls) = (list(&rules.resource_rules), list(&rules.non_resource_rules));
    if resources.is_empty() && urls.is_empty() {
        errors.required(at, "at least one of resourceRules and nonResourceRules has to be non-empty");
    }
    for (i, rule) in resources.iter().enumerate() {
        validate_resource_rule(rule, &at.child("resourceRules").index(i), errors);
    }
    for (i, rule) in urls.iter().enumerate() {
        validate_url_rule(rule, &at.child("nonResourceRules").index(i), errors);
    }
}

/// A subject has the field of its kind, and none of the others.
fn validate_subject(subject: &Subject, at: &Path<'_>, errors: &mut Errors) {
    const KINDS: [&str; 3] = ["Group", "ServiceAccount", "User"];
    let kind = subject.kind.as_str();
    if !KINDS.contains(&kind) {
        return errors.not_supported(&at.child("kind"), kind, &KINDS);
    }
    let user = subject.user.as_ref().map(|u| &u.name);
    let group = subject.group.as_ref().map(|g| &g.name);
    let account = subject.service_account.as_ref();
    for (of, field, name) in [
        ("ServiceAccount", "serviceAccount", account.map(|a| &a.name)),
        ("User", "user", user),
        ("Group", "group", group),
    ] {
        let at = at.child(field);
        match name {
            Some(_) if of != kind => {
                errors.forbidden(&at, format!("{field} is forbidden when subject kind is not '{of}'"));
            }
            None if of == kind => errors.required(&at, format!("{field} is required when subject kind is '{of}'")),
            Some(name) if name.is_empty() => errors.required(&at.child("name"), ""),
            Some(name) if kind == "ServiceAccount" && name != "*" => {
                errors.invalid_each(&at.child("name"), name, dns1123_subdomain(name));
            }
            _ => {}
        }
    }
    if let Some(account) = account.filter(|_| kind == "ServiceAccount") {
        let at = at.child("serviceAccount");
        if account.namespace.is_empty() {
            errors.required(&at.child("namespace"), "must specify namespace for service account");
        } else {
            errors.invalid_each(&at.child("namespace"), &account.namespace, dns1123_label(&account.namespace));
        }
    }
}

/// A `*` that is not alone. Says whether there is one.
fn has_star(values: &[String], others: &str, at: &Path<'_>, errors: &mut Errors) -> bool {
    let star = values.iter().any(|v| v == "*");
    if star && values.len() > 1 {
        errors.invalid(at, json(&values), format!("if '*' is present, must not specify other {others}"));
    }
    star
}

fn validate_verbs(verbs: &[String], at: &Path<'_>, errors: &mut Errors) {
    if verbs.is_empty() {
        errors.required(at, "verbs must contain at least one value");
    } else if !has_star(verbs, "verbs", at, errors) && !verbs.iter().all(|v| VERBS.contains(&v.as_str())) {
        errors.not_supported(at, json(&verbs), &VERBS);
    }
}

fn validate_resource_rule(rule: &ResourcePolicyRule, at: &Path<'_>, errors: &mut Errors) {
    const MEMBER: &str = "each member of this list must be '*' or a DNS-1123 label; ";
    validate_verbs(&rule.verbs, &at.child("verbs"), errors);
    for (field, one, others, values) in [
        ("apiGroups", "api group", "api groups", &rule.api_groups),
        ("resources", "resource", "resources", &rule.resources),
    ] {
        let at = at.child(field);
        if values.is_empty() {
            errors.required(&at, format!("resource rules must supply at least one {one}"));
        }
        has_star(values, others, &at, errors);
    }
    let (namespaces, at) = (list(&rule.namespaces), at.child("namespaces"));
    if namespaces.is_empty() && !is_true(rule.cluster_scope) {
        errors.required(&at, "resource rules that are not cluster scoped must supply at least one namespace");
    } else if !has_star(namespaces, "namespaces", &at, errors) {
        for (i, namespace) in namespaces.iter().enumerate() {
            for why in dns1123_label(namespace) {
                errors.invalid(&at.index(i), namespace, format!("{MEMBER}{why}"));
            }
        }
    }
}

fn validate_url_rule(rule: &NonResourcePolicyRule, at: &Path<'_>, errors: &mut Errors) {
    validate_verbs(&rule.verbs, &at.child("verbs"), errors);
    let (urls, at) = (&rule.non_resource_urls, at.child("nonResourceURLs"));
    if urls.is_empty() {
        errors.required(&at, "nonResourceURLs must contain at least one value");
    } else if !has_star(urls, "non-resource URLs", &at, errors) {
        for (i, url) in urls.iter().enumerate() {
            if let Some(why) = url_fault(url) {
                errors.invalid(&at.index(i), url, why);
            }
        }
    }
}

/// What is wrong with the path of a URL, which may end in `/*`.
fn url_fault(url: &str) -> Option<&'static str> {
    let stars = url.matches('*').count();
    match url {
        "" => Some("must not be empty"),
        "/" => None,
        _ if !url.starts_with('/') => Some("must start with slash"),
        _ if url.contains(' ') => Some("must not contain white-space"),
        _ if url.contains("//") => Some("must not contain double slash"),
        _ if stars > 1 || (stars == 1 && !url.ends_with("/*")) => Some("wildcard can only do suffix matching"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::kinds::testing::{created, expect, faults, row, status_faults, with};

    fn schema(name: &str, spec: Value) -> Value {
        let base = value!({
            "metadata": {"creationTimestamp": "2024-05-01T11:55:00Z"},
            "spec": {
                "priorityLevelConfiguration": {"name": "l"},
                "rules": [{
                    "subjects": [{"kind": "User", "user": {"name": "u"}}],
                    "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz/*"]}],
                }],
            },
        });
        with(base, value!({"metadata": {"name": name}, "spec": spec}))
    }

    #[track_caller]
    fn check(spec: Value, expected: &[&str]) {
        expect(&faults::<FlowSchema>(schema("s", spec)), expected);
    }

    #[track_caller]
    fn check_rule(rule: Value, expected: &[&str]) {
        let subjects = value!({"subjects": [{"kind": "Group", "group": {"name": "g"}}]});
        check(value!({"rules": [with(subjects, rule)]}), expected);
    }

    #[test]
    fn schemas() {
        let made: FlowSchema = created(schema("s", value!({})));
        assert_eq!(made.spec.unwrap().matching_precedence, Some(1000));
        check(value!({}), &[]);
        check(
            value!({"matchingPrecedence": -1, "distinguisherMethod": {"type": "ByDay"}, "priorityLevelConfiguration": {"name": ""}}),
            &[
                "spec.matchingPrecedence: Invalid value: -1: must be a positive value",
                "spec.distinguisherMethod.type: Unsupported value: {\"type\":\"ByDay\"}: supported values: \"ByNamespace\", \"ByUser\"",
                "spec.priorityLevelConfiguration.name: Required value: must reference a priority level",
            ],
        );
        check(
            value!({"matchingPrecedence": 10001, "priorityLevelConfiguration": {"name": "L"}}),
            &[
                "spec.matchingPrecedence: Invalid value: 10001: must not be greater than 10000",
                "spec.priorityLevelConfiguration.name: Invalid value: \"L\": a lowercase RFC 1123 subdomain",
            ],
        );
        check(
            value!({"matchingPrecedence": 1}),
            &[
                "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1",
            ],
        );
    }

    #[test]
    fn subjects() {
        let of = |subject: Value| value!({"subjects": [subject], "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true}]});
        let check = |subject: Value, expected: &[&str]| check_rule(of(subject), expected);
        check(value!({"kind": "ServiceAccount", "serviceAccount": {"name": "*", "namespace": "n"}}), &[]);
        check(
            value!({"kind": "ServiceAccount", "serviceAccount": {"name": "A", "namespace": ""}}),
            &[
                "spec.rules[0].subjects[0].serviceAccount.name: Invalid value: \"A\"",
                "spec.rules[0].subjects[0].serviceAccount.namespace: Required value: must specify namespace for service account",
            ],
        );
        check(
            value!({"kind": "User", "group": {"name": "g"}}),
            &[
                "spec.rules[0].subjects[0].user: Required value: user is required when subject kind is 'User'",
                "spec.rules[0].subjects[0].group: Forbidden: group is forbidden when subject kind is not 'Group'",
            ],
        );
        check(
            value!({"kind": "Group", "group": {"name": ""}}),
            &["spec.rules[0].subjects[0].group.name: Required value"],
        );
        check(
            value!({"kind": "Dog"}),
            &[
                "spec.rules[0].subjects[0].kind: Unsupported value: \"Dog\": supported values: \"Group\", \"ServiceAccount\", \"User\"",
            ],
        );
    }

    #[test]
    fn rules() {
        check_rule(
            value!({"subjects": []}),
            &[
                "spec.rules[0].subjects: Required value: subjects must contain at least one value",
                "spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty",
            ],
        );
        let resource = |rule: Value, expected: &[&str]| {
            let good = value!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "namespaces": ["n"]});
            check_rule(value!({"resourceRules": [with(good, rule)]}), expected);
        };
        resource(value!({}), &[]);
        resource(
            value!({"verbs": [], "apiGroups": [], "resources": [], "namespaces": []}),
            &[
                "spec.rules[0].resourceRules[0].verbs: Required value: verbs must contain at least one value",
                "spec.rules[0].resourceRules[0].apiGroups: Required value: resource rules must supply at least one api group",
                "spec.rules[0].resourceRules[0].resources: Required value: resource rules must supply at least one resource",
                "spec.rules[0].resourceRules[0].namespaces: Required value: resource rules that are not cluster scoped must supply",
            ],
        );
        resource(
            value!({"verbs": ["*", "get"], "apiGroups": ["*", ""], "resources": ["*", "a"], "namespaces": ["*", "n"]}),
            &[
                "spec.rules[0].resourceRules[0].verbs: Invalid value: [\"*\",\"get\"]: if '*' is present, must not specify other verbs",
                "spec.rules[0].resourceRules[0].apiGroups: Invalid value: [\"*\",\"\"]: if '*' is present, must not specify other api groups",
                "spec.rules[0].resourceRules[0].resources: Invalid value: [\"*\",\"a\"]: if '*' is present, must not specify other resources",
                "spec.rules[0].resourceRules[0].namespaces: Invalid value: [\"*\",\"n\"]: if '*' is present, must not specify other namespaces",
            ],
        );
        resource(
            value!({"verbs": ["run"], "namespaces": ["-n"]}),
            &[
                "spec.rules[0].resourceRules[0].verbs: Unsupported value: [\"run\"]: supported values: \"create\", \"delete\"",
                "spec.rules[0].resourceRules[0].namespaces[0]: Invalid value: \"-n\": each member of this list must be '*' or a DNS-1123 label; a lowercase RFC 1123 label",
            ],
        );
        for (url, why) in [
            ("", Some("must not be empty")),
            ("/", None),
            ("/a/*", None),
            ("a", Some("must start with slash")),
            ("/a b", Some("must not contain white-space")),
            ("/a//b", Some("must not contain double slash")),
            ("/a*", Some("wildcard can only do suffix matching")),
            ("/*/*", Some("wildcard can only do suffix matching")),
        ] {
            assert_eq!(url_fault(url), why, "{url}");
        }
    }

    #[test]
    fn mandatory_schemas_status_and_rows() {
        let fixed = serde_json::to_value(mandatory("exempt").unwrap()).unwrap();
        let exempt = |patch: Value| value!({"metadata": {"name": "exempt"}, "spec": with(fixed.clone(), patch)});
        expect(&faults::<FlowSchema>(exempt(value!({}))), &[]);
        let changed = faults::<FlowSchema>(exempt(value!({"matchingPrecedence": 2})));
        assert!(changed[0].ends_with("spec of 'exempt' must equal the fixed value"), "{changed:?}");
        let conditions = value!({"conditions": [{"type": "A"}, {"type": "A"}, {}]});
        expect(
            &status_faults::<FlowSchema>(schema("s", value!({})), conditions),
            &[
                "status.conditions[1].type: Duplicate value: \"A\"",
                "status.conditions[2].type: Required value: must not be empty",
            ],
        );
        assert_eq!(row::<FlowSchema>(schema("s", value!({"matchingPrecedence": 7}))), "s|l|7|<none>|5m|?");
        let dangling = with(
            schema("s", value!({"distinguisherMethod": {"type": "ByUser"}})),
            value!({"status": {"conditions": [{"type": "Dangling", "status": "False"}]}}),
        );
        assert_eq!(row::<FlowSchema>(dangling), "s|l|0|ByUser|5m|False");
    }
}
