//! CustomResourceDefinition: a kind that users add.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

use super::meta::spec_and_status;
use crate::kind::{Info, Resource, Subresource};

impl Resource for CustomResourceDefinition {
    const INFO: Info = Info {
        short_names: &["crd", "crds"],
        categories: &["api-extensions"],
        subresources: &[Subresource::Status],
        has_generation: true,
        ..Info::cluster("customresourcedefinitions", "customresourcedefinition")
    };

    spec_and_status!();
}
