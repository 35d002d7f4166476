//! The questions about rights of `authorization.k8s.io`: may someone do something. They are answered when they are created
//! and kept nowhere; their `status` is the server's answer.

use k8s_openapi::api::authorization::v1::{
    LocalSubjectAccessReview, NonResourceAttributes, ResourceAttributes, SelfSubjectAccessReview,
    SelfSubjectRulesReview, SubjectAccessReview, SubjectAccessReviewSpec,
};

use crate::kind::{Info, Resource, Storage};
use crate::validation::{Errors, FieldPath};

const RESOURCE_ATTRIBUTES: &str = "spec.resourceAttributes";

/// Exactly one of the two sorts of attributes must be there.
fn validate_attributes(
    resource: Option<&ResourceAttributes>,
    other: Option<&NonResourceAttributes>,
    errors: &mut Errors,
) {
    let (path, wrong) = match (resource, other) {
        (Some(_), Some(_)) => {
            ("spec.nonResourceAttributes", "cannot be specified in combination with resourceAttributes")
        }
        (None, None) => {
            (RESOURCE_ATTRIBUTES, "exactly one of nonResourceAttributes or resourceAttributes must be specified")
        }
        _ => return,
    };
    errors.invalid(&FieldPath::new(path), "", wrong);
}

fn validate_spec(spec: &SubjectAccessReviewSpec, errors: &mut Errors) {
    validate_attributes(spec.resource_attributes.as_ref(), spec.non_resource_attributes.as_ref(), errors);
    let nobody = spec.user.as_deref().unwrap_or_default().is_empty() && spec.groups.as_ref().is_none_or(Vec::is_empty);
    if nobody {
        errors.invalid(&FieldPath::new("spec.user"), "", "at least one of user or group must be specified");
    }
}

impl Resource for SubjectAccessReview {
    const INFO: Info = Info { storage: Storage::Never, ..Info::cluster("subjectaccessreviews", "subjectaccessreview") };

    fn prepare_create(&mut self) {
        self.status = None;
    }

    fn validate(&self, errors: &mut Errors) {
        validate_spec(&self.spec, errors);
    }
}

impl Resource for LocalSubjectAccessReview {
    const INFO: Info =
        Info { storage: Storage::Never, ..Info::namespaced("localsubjectaccessreviews", "localsubjectaccessreview") };

    fn prepare_create(&mut self) {
        self.status = None;
    }

    fn validate(&self, errors: &mut Errors) {
        validate_spec(&self.spec, errors);
        let namespace = self.metadata.namespace.as_deref().unwrap_or_default();
        match &self.spec.resource_attributes {
            Some(a) if a.namespace.as_deref().unwrap_or_default() != namespace => {
                let path = FieldPath::new("spec.resourceAttributes.namespace");
                errors.invalid(&path, a.namespace.as_deref().unwrap_or_default(), "must match metadata.namespace");
            }
            _ => {}
        }
        if self.spec.non_resource_attributes.is_some() {
            let why = "disallowed on this kind of request";
            errors.invalid(&FieldPath::new("spec.nonResourceAttributes"), "", why);
        }
    }
}

impl Resource for SelfSubjectAccessReview {
    const INFO: Info =
        Info { storage: Storage::Never, ..Info::cluster("selfsubjectaccessreviews", "selfsubjectaccessreview") };

    fn prepare_create(&mut self) {
        self.status = None;
    }

    fn validate(&self, errors: &mut Errors) {
        let spec = &self.spec;
        validate_attributes(spec.resource_attributes.as_ref(), spec.non_resource_attributes.as_ref(), errors);
    }
}

impl Resource for SelfSubjectRulesReview {
    const INFO: Info =
        Info { storage: Storage::Never, ..Info::cluster("selfsubjectrulesreviews", "selfsubjectrulesreview") };

    fn prepare_create(&mut self) {
        self.status = None;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{created, expect, faults};

    #[test]
    fn questions() {
        let whole = |spec: Value| json!({ "spec": spec });
        let check = |spec: Value, expected: &[&str]| expect(&faults::<SubjectAccessReview>(whole(spec)), expected);
        check(json!({"user": "u", "resourceAttributes": {}}), &[]);
        check(json!({"groups": ["g"], "nonResourceAttributes": {}}), &[]);
        check(
            json!({}),
            &[
                "spec.resourceAttributes: Invalid value: \"\": exactly one of nonResourceAttributes or resourceAttributes must be specified",
                "spec.user: Invalid value: \"\": at least one of user or group must be specified",
            ],
        );
        check(
            json!({"user": "u", "resourceAttributes": {}, "nonResourceAttributes": {}}),
            &[
                "spec.nonResourceAttributes: Invalid value: \"\": cannot be specified in combination with resourceAttributes",
            ],
        );
        let own = |spec: Value, expected: &[&str]| expect(&faults::<SelfSubjectAccessReview>(whole(spec)), expected);
        own(json!({"nonResourceAttributes": {}}), &[]);
        own(json!({}), &["spec.resourceAttributes: Invalid value: \"\": exactly one of"]);
        let local = |spec: Value, expected: &[&str]| {
            let review = json!({"metadata": {"namespace": "n"}, "spec": spec});
            expect(&faults::<LocalSubjectAccessReview>(review), expected);
        };
        local(json!({"user": "u", "resourceAttributes": {"namespace": "n"}}), &[]);
        local(
            json!({"user": "u", "resourceAttributes": {"namespace": "m"}}),
            &["spec.resourceAttributes.namespace: Invalid value: \"m\": must match metadata.namespace"],
        );
        local(
            json!({"user": "u", "nonResourceAttributes": {}}),
            &["spec.nonResourceAttributes: Invalid value: \"\": disallowed on this kind of request"],
        );
    }

    #[test]
    fn answers_are_the_servers() {
        let answered = json!({"spec": {"user": "u"}, "status": {"allowed": true}});
        assert!(created::<SubjectAccessReview>(answered.clone()).status.is_none());
        assert!(created::<LocalSubjectAccessReview>(answered.clone()).status.is_none());
        assert!(created::<SelfSubjectAccessReview>(answered).status.is_none());
        let rules = json!({"spec": {}, "status": {"incomplete": true, "resourceRules": [], "nonResourceRules": []}});
        assert!(created::<SelfSubjectRulesReview>(rules).status.is_none());
    }
}
