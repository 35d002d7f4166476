//! CertificateSigningRequest: a certificate asked for, approved, and issued.

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

use super::fields::{list, text};
use super::meta::{age_cell, name_cell};
use crate::kind::{Info, Resource, Subresource};
use crate::table::{Cell, Column, human_duration};
use crate::validation::{Errors, Path, dns1123_label, dns1123_subdomain};

const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
const MAX_DOMAIN: usize = 253;
/// Two domains and a label, with what separates them.
const MAX_SIGNER: usize = 571;
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

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
        is_acted_on: false,
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
        validate_usages(list(&spec.usages), &at.child("usages"), errors);
        if spec.signer_name == LEGACY_SIGNER {
            let why = "the legacy signerName is not allowed via this API version";
            errors.invalid(&at.child("signerName"), &spec.signer_name, why);
        } else {
            validate_signer(&spec.signer_name, &at.child("signerName"), errors);
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

/// What the certificate is for: known things, each once.
fn validate_usages(usages: &[String], at: &Path<'_>, errors: &mut Errors) {
    if usages.is_empty() {
        errors.required(at, "");
    }
    for (i, usage) in usages.iter().enumerate().filter(|(_, usage)| !USAGES.contains(&usage.as_str())) {
        errors.not_supported(&at.index(i), usage, &USAGES);
    }
    for (i, usage) in usages.iter().enumerate().filter(|(i, usage)| usages[..*i].contains(usage)) {
        errors.duplicate(&at.index(i), usage);
    }
}

/// The name of a signer: a domain, a slash, and a name of its own.
fn validate_signer(name: &str, at: &Path<'_>, errors: &mut Errors) {
    if name.is_empty() {
        return errors.required(at, "");
    }
    let Some((domain, path)) = name.split_once('/').filter(|(_, path)| !path.contains('/')) else {
        let why = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return errors.invalid(at, name, why);
    };
    if domain.len() > MAX_DOMAIN {
        errors.too_long(at, MAX_DOMAIN);
    }
    validate_labels(domain, dns1123_label, at, errors);
    if !domain.contains('.') {
        errors.invalid(at, domain, "should be a domain with at least two segments separated by dots");
    }
    validate_labels(path, dns1123_subdomain, at, errors);
    if name.len() > MAX_SIGNER {
        errors.too_long(at, MAX_SIGNER);
    }
}

/// Labels between dots. Of several that are wrong only the first is told.
fn validate_labels(whole: &str, rule: fn(&str) -> Vec<String>, at: &Path<'_>, errors: &mut Errors) {
    if let Some(label) = whole.split('.').find(|label| !rule(label).is_empty()) {
        for why in rule(label) {
            errors.invalid(at, whole, format!("validating label {label:?}: {why}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{expect, faults, row, with};

    /// The beginning of a request in base64.
    const REQUEST: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0=";

    fn request(spec: Value) -> Value {
        let spec = with(json!({"request": REQUEST, "signerName": "example.com/a", "usages": ["any"]}), spec);
        json!({"metadata": {"name": "r", "creationTimestamp": "2024-05-01T11:55:00Z"}, "spec": spec})
    }

    #[test]
    fn requests() {
        let check =
            |spec: Value, expected: &[&str]| expect(&faults::<CertificateSigningRequest>(request(spec)), expected);
        check(json!({}), &[]);
        check(
            json!({"request": "QQ==", "usages": [], "signerName": "", "expirationSeconds": 599}),
            &[
                "spec.request: Invalid value: \"QQ==\": PEM block type must be CERTIFICATE REQUEST",
                "spec.usages: Required value",
                "spec.signerName: Required value",
                "spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 600 seconds (10 minutes)",
            ],
        );
        check(
            json!({"usages": ["any", "none", "any"]}),
            &[
                "spec.usages[1]: Unsupported value: \"none\": supported values: \"any\", \"cert sign\"",
                "spec.usages[2]: Duplicate value: \"any\"",
            ],
        );
        let signer = |name: &str, expected: &[&str]| check(json!({ "signerName": name }), expected);
        signer("kubernetes.io/kubelet-serving", &[]);
        signer(
            "kubernetes.io/legacy-unknown",
            &[
                "spec.signerName: Invalid value: \"kubernetes.io/legacy-unknown\": the legacy signerName is not allowed via this API version",
            ],
        );
        for name in ["a.b", "a.b/c/d"] {
            let why = format!(
                "spec.signerName: Invalid value: {name:?}: must be a fully qualified domain and path of the form 'example.com/signer-name'"
            );
            signer(name, &[&why]);
        }
        signer(
            "A/B",
            &[
                "spec.signerName: Invalid value: \"A\": validating label \"A\": a lowercase RFC 1123 label",
                "spec.signerName: Invalid value: \"A\": should be a domain with at least two segments separated by dots",
                "spec.signerName: Invalid value: \"B\": validating label \"B\": a lowercase RFC 1123 subdomain",
            ],
        );
        signer(
            &format!("{}.b/c", vec!["a"; 127].join(".")),
            &["spec.signerName: Too long: may not be more than 253 bytes"],
        );
    }

    #[test]
    fn rows() {
        let check = |rest: Value, expected: &str| {
            assert_eq!(row::<CertificateSigningRequest>(with(request(json!({"username": "u"})), rest)), expected);
        };
        check(json!({}), "r|5m|example.com/a|u|<none>|Pending");
        let condition = |name: &str| json!({"type": name, "status": "True"});
        check(
            json!({"spec": {"expirationSeconds": 3600}, "status": {"conditions": [condition("Approved")], "certificate": "QQ=="}}),
            "r|5m|example.com/a|u|60m|Approved,Issued",
        );
        check(
            json!({"status": {"conditions": [condition("Denied"), condition("Failed")]}}),
            "r|5m|example.com/a|u|<none>|Denied,Failed",
        );
    }
}
