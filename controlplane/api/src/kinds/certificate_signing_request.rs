//! CertificateSigningRequest: a certificate asked for, approved, and issued.

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

use crate::kind::{Info, Resource, Subresource};

impl Resource for CertificateSigningRequest {
    const INFO: Info = Info {
        short_names: &["csr"],
        subresources: &[Subresource::Status, Subresource::Approval],
        selectable_fields: &["spec.signerName"],
        ..Info::cluster("certificatesigningrequests", "certificatesigningrequest")
    };
}
