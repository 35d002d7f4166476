//! APIService: a group and version that another server serves.

use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;

use super::meta::spec_and_status;
use crate::kind::{Info, NameRule, Resource, Subresource};

impl Resource for APIService {
    const INFO: Info = Info {
        categories: &["api-extensions"],
        subresources: &[Subresource::Status],
        name_rule: NameRule::PathSegment,
        ..Info::cluster("apiservices", "apiservice")
    };

    spec_and_status!();
}
