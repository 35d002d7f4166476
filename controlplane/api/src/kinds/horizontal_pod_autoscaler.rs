//! HorizontalPodAutoscaler: replicas that follow metrics.

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;

use super::meta::spec_and_status;
use crate::kind::{Info, Resource, Subresource};

impl Resource for HorizontalPodAutoscaler {
    const INFO: Info = Info {
        short_names: &["hpa"],
        categories: &["all"],
        subresources: &[Subresource::Status],
        ..Info::namespaced("horizontalpodautoscalers", "horizontalpodautoscaler")
    };

    spec_and_status!();
}
