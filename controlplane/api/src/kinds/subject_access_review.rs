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
