//! CertificateSigningRequest: a certificate asked for, approved, and issued.

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

use super::fields::{list, text};
use super::meta::{age_cell, name_cell};
use crate::kind::{Info, Resource, Subresource};
use crate::table::{Cell, Column, human_duration};
use crate::validation::{Errors, Path};

impl Resource for CertificateSigningRequest {
    const INFO: Info = Info {
        short_names: &["csr"],
        subresources: &[Subresource::Status, Subresource::Approval],
        selectable_fields: &["spec.signerName"],
        columns: &[
            Column::NAME,
            Column::AGE,
            Column::text("SignerName", "signerName indicates the requested signer, and is a qualified name."),
            Column::text(
                "Requestor",
                "username contains the name of the user that created the CertificateSigningRequest.",
            ),
            Column::text(
                "RequestedDuration",
                "expirationSeconds is the requested duration of validity of the issued certificate.",
            ),
            Column::text("Condition", "conditions applied to the request."),
        ],
        ..Info::cluster("certificatesigningrequests", "certificatesigningrequest")
    };

    fn prepare_create(&mut self) {
        self.status = Some(Default::default());
    }

    fn prepare_update(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
        self.status.clone_from(&old.status);
    }

    fn prepare_status_update(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
    }

    fn validate(&self, errors: &mut Errors) {
        let at = Path::new("spec");
        let spec = &self.spec;
        if !spec.request.0.starts_with(b"-----BEGIN CERTIFICATE REQUEST-----") {
            errors.invalid(
                &at.child("request"),
                crate::validation::json(&spec.request),
                "PEM block type must be CERTIFICATE REQUEST",
            );
        }
        if list(&spec.usages).is_empty() {
            errors.required(&at.child("usages"), "");
        }
        match spec.signer_name.split_once('/') {
            _ if spec.signer_name.is_empty() => errors.required(&at.child("signerName"), ""),
            Some((domain, path)) if domain.contains('.') && !path.is_empty() => {}
            _ => {
                let why = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
                errors.invalid(&at.child("signerName"), &spec.signer_name, why);
            }
        }
        if let Some(seconds) = spec.expiration_seconds.filter(|s| *s < 600) {
            let why = "may not specify a duration less than 600 seconds (10 minutes)";
            errors.invalid(&at.child("expirationSeconds"), seconds, why);
        }
    }

    fn selectable_field(&self, name: &str) -> std::borrow::Cow<'_, str> {
        if name == "spec.signerName" { self.spec.signer_name.as_str().into() } else { "".into() }
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        let status = self.status.as_ref();
        let has = |name: &str| status.is_some_and(|s| list(&s.conditions).iter().any(|c| c.type_ == name));
        let mut condition = if has("Denied") {
            "Denied"
        } else if has("Approved") {
            "Approved"
        } else {
            "Pending"
        }
        .to_owned();
        if has("Failed") {
            condition.push_str(",Failed");
        }
        if status.and_then(|s| s.certificate.as_ref()).is_some_and(|c| !c.0.is_empty()) {
            condition.push_str(",Issued");
        }
        let asked = self.spec.expiration_seconds.map(|s| human_duration(i64::from(s)));
        vec![
            name_cell(&self.metadata),
            age_cell(&self.metadata, now),
            self.spec.signer_name.clone().into(),
            text(&self.spec.username).into(),
            asked.unwrap_or_else(|| "<none>".to_owned()).into(),
            condition.into(),
        ]
    }
}
