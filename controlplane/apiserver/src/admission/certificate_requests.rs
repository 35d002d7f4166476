//! What the cluster says about CertificateSigningRequests: who asked is filled in from the caller, nobody asks for the
//! administrators' group (`CertificateSubjectRestriction`), and approval and issuing are kept apart. It signs nothing.

use coracle_api::ApiError;
use coracle_api::kind::Subresource;
use coracle_api::validation::{Errors, FieldPath};
use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition as Condition};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer as _;

use super::{Operation, Plugin, Review};
use crate::auth::{MASTERS, User};
use crate::meta::whole_seconds;

const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";
/// Conditions that never go away again.
const LASTING: [&str; 3] = ["Approved", "Denied", "Failed"];
/// Conditions that only an approver sets.
const DECISIONS: [&str; 2] = ["Approved", "Denied"];

/// See the module.
pub struct CertificateRequests;

impl Plugin for CertificateRequests {
    fn name(&self) -> &'static str {
        "CertificateRequests"
    }

    fn admit(&self, review: &mut Review<'_>) -> Result<(), ApiError> {
        let Some(request) = review.object().as_any().downcast_ref::<CertificateSigningRequest>() else { return Ok(()) };
        let mut request = request.clone();
        let old = review.old.and_then(|o| o.as_any().downcast_ref::<CertificateSigningRequest>());
        match (review.operation, review.subresource, old) {
            (Operation::Create, None, _) => {
                fill_requestor(&mut request, review.user);
                if asks_for_masters(&request) {
                    let why = format!("use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed");
                    return Err(review.forbid(&why));
                }
            }
            (Operation::Update, Some(Subresource::Approval), Some(old)) => {
                fill_times(&mut request, old, review.now);
                checked(review, check_approval(&request, old))?;
            }
            (Operation::Update, Some(Subresource::Status), Some(old)) => {
                keep_decisions(&mut request, old);
                fill_times(&mut request, old, review.now);
                checked(review, check_status(&request, old))?;
            }
            _ => return Ok(()),
        }
        if let Some(target) = review.object_mut().as_any_mut().downcast_mut() {
            *target = request;
        }
        Ok(())
    }
}

fn checked(review: &Review<'_>, errors: Errors) -> Result<(), ApiError> {
    let kind = review.served.kind;
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid(kind.group, kind.kind, review.name, &errors)) }
}

/// The caller is who asks, whatever the object says (`PrepareForCreate` of the strategy).
fn fill_requestor(request: &mut CertificateSigningRequest, user: &User) {
    let spec = &mut request.spec;
    spec.username = Some(user.name.clone());
    spec.uid = Some(user.uid.clone()).filter(|uid| !uid.is_empty());
    spec.groups = Some(user.groups.clone());
    spec.extra = (!user.extra.is_empty()).then(|| user.extra.clone());
}

/// A request that cannot be read is refused by the kind's own rules.
fn asks_for_masters(request: &CertificateSigningRequest) -> bool {
    if request.spec.signer_name != CLIENT_SIGNER {
        return false;
    }
    let Ok((_, pem)) = parse_x509_pem(&request.spec.request.0) else { return false };
    let Ok((_, parsed)) = X509CertificationRequest::from_der(&pem.contents) else { return false };
    let subject = &parsed.certification_request_info.subject;
    subject.iter_organization().any(|o| o.as_str().is_ok_and(|o| o == MASTERS))
}

fn conditions(request: &CertificateSigningRequest) -> &[Condition] {
    request.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default()
}

fn of_type<'a>(request: &'a CertificateSigningRequest, name: &str) -> Vec<&'a Condition> {
    conditions(request).iter().filter(|c| c.type_ == name).collect()
}

/// The times a client leaves out; a condition whose status stays keeps the time of its last change.
fn fill_times(request: &mut CertificateSigningRequest, old: &CertificateSigningRequest, now: Timestamp) {
    let now = whole_seconds(now);
    let Some(list) = request.status.as_mut().and_then(|s| s.conditions.as_mut()) else { return };
    for condition in list {
        condition.last_update_time.get_or_insert_with(|| now.clone());
        let before = conditions(old).iter().find(|c| c.type_ == condition.type_ && c.status == condition.status);
        let kept = before.and_then(|c| c.last_transition_time.clone());
        if kept.is_some() || condition.last_transition_time.is_none() {
            condition.last_transition_time = Some(kept.unwrap_or_else(|| now.clone()));
        }
    }
}

/// An issuer that writes the decisions back as it knows them changes nothing in them.
fn keep_decisions(request: &mut CertificateSigningRequest, old: &CertificateSigningRequest) {
    for name in DECISIONS {
        let kept = of_type(old, name);
        if kept.len() != of_type(request, name).len() {
            continue;
        }
        let list = request.status.iter_mut().flat_map(|s| s.conditions.iter_mut().flatten());
        for (condition, kept) in list.filter(|c| c.type_ == name).zip(kept) {
            condition.clone_from(kept);
        }
    }
}

fn check_conditions(request: &CertificateSigningRequest, old: &CertificateSigningRequest) -> Errors {
    let mut errors = Errors::new();
    let at = FieldPath::new("status").child("conditions");
    let has = |name: &str| !of_type(request, name).is_empty();
    for (i, condition) in conditions(request).iter().enumerate() {
        let at = at.index(i);
        let name = condition.type_.as_str();
        if name.is_empty() {
            errors.required(&at.child("type"), "");
        }
        match condition.status.as_str() {
            "" => errors.required(&at.child("status"), ""),
            "True" => {}
            status if LASTING.contains(&name) => errors.not_supported(&at.child("status"), status, &["True"]),
            "False" | "Unknown" => {}
            status => errors.not_supported(&at.child("status"), status, &["True", "False", "Unknown"]),
        }
        if DECISIONS.contains(&name) && has("Approved") && has("Denied") {
            let why = "Approved and Denied conditions are mutually exclusive";
            errors.invalid(&at.child("type"), name, why);
        }
        if conditions(request)[..i].iter().any(|c| c.type_ == name) {
            errors.duplicate(&at.child("type"), name);
        }
    }
    for name in LASTING {
        if of_type(request, name).len() < of_type(old, name).len() {
            errors.forbidden(&at, format!("updates may not remove a condition of type {name:?}"));
        }
    }
    errors
}

fn check_approval(request: &CertificateSigningRequest, old: &CertificateSigningRequest) -> Errors {
    check_conditions(request, old)
}

fn check_status(request: &CertificateSigningRequest, old: &CertificateSigningRequest) -> Errors {
    let mut errors = check_conditions(request, old);
    let at = FieldPath::new("status");
    for name in DECISIONS {
        let (before, after) = (of_type(old, name), of_type(request, name));
        if after.len() > before.len() {
            errors.forbidden(&at.child("conditions"), format!("updates may not add a condition of type {name:?}"));
        }
    }
    let certificate = |r: &CertificateSigningRequest| {
        r.status.as_ref().and_then(|s| s.certificate.as_ref()).map(|c| c.0.clone()).unwrap_or_default()
    };
    let before = certificate(old);
    if !before.is_empty() && before != certificate(request) {
        errors.forbidden(&at.child("certificate"), "updates may not modify existing certificate content");
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn request(status: Value) -> CertificateSigningRequest {
        serde_json::from_value(json!({
            "metadata": {"name": "a"},
            "spec": {"request": "", "signerName": CLIENT_SIGNER, "usages": ["client auth"], "username": "liar", "groups": [MASTERS]},
            "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn the_caller_is_who_asks() {
        let mut user = User::authenticated("jane", &["dev"]);
        user.extra.insert("a".to_owned(), vec!["b".to_owned()]);
        let mut asked = request(json!({}));
        fill_requestor(&mut asked, &user);
        assert_eq!(asked.spec.username.as_deref(), Some("jane"));
        assert_eq!(asked.spec.uid, None);
        assert_eq!(asked.spec.groups.unwrap(), ["dev", "system:authenticated"]);
        assert_eq!(asked.spec.extra, Some(user.extra));
    }

    fn with_subject(organization: &str, signer: &str) -> CertificateSigningRequest {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, organization);
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        let mut asked = request(json!({}));
        asked.spec.request.0 = pem.into_bytes();
        signer.clone_into(&mut asked.spec.signer_name);
        asked
    }

    #[test]
    fn nobody_asks_for_the_administrators_group() {
        assert!(asks_for_masters(&with_subject(MASTERS, CLIENT_SIGNER)));
        assert!(!asks_for_masters(&with_subject("dev", CLIENT_SIGNER)));
        assert!(!asks_for_masters(&with_subject(MASTERS, "example.com/signer")));
        assert!(!asks_for_masters(&request(json!({}))));
    }

    fn condition(name: &str, status: &str) -> Value {
        json!({"type": name, "status": status})
    }

    #[test]
    fn decisions_and_certificates_are_kept_apart() {
        let check = |rule: fn(&CertificateSigningRequest, &CertificateSigningRequest) -> Errors,
                     old: Value,
                     new: Value,
                     expected: &[&str]| {
            let errors = rule(&request(new), &request(old));
            let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
            assert_eq!(texts, expected);
        };
        let approved = json!({"conditions": [condition("Approved", "True")]});
        check(check_approval, json!({}), approved.clone(), &[]);
        check(
            check_status,
            json!({}),
            approved.clone(),
            &["status.conditions: Forbidden: updates may not add a condition of type \"Approved\""],
        );
        check(
            check_approval,
            approved.clone(),
            json!({}),
            &["status.conditions: Forbidden: updates may not remove a condition of type \"Approved\""],
        );
        check(
            check_approval,
            json!({}),
            json!({"conditions": [condition("Denied", "False")]}),
            &["status.conditions[0].status: Unsupported value: \"False\": supported values: \"True\""],
        );
        let both = json!({"conditions": [condition("Approved", "True"), condition("Denied", "True")]});
        check(
            check_approval,
            json!({}),
            both,
            &[
                "status.conditions[0].type: Invalid value: \"Approved\": Approved and Denied conditions are mutually exclusive",
                "status.conditions[1].type: Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive",
            ],
        );
        let issued = |text: &str| json!({"conditions": [condition("Approved", "True")], "certificate": text});
        check(check_status, approved, issued("YQ=="), &[]);
        check(
            check_status,
            issued("YQ=="),
            issued("Yg=="),
            &["status.certificate: Forbidden: updates may not modify existing certificate content"],
        );
    }

    #[test]
    fn times_are_filled_in_and_kept() {
        let now: Timestamp = "2026-01-02T03:04:05.6Z".parse().unwrap();
        let mut new = request(json!({"conditions": [condition("Approved", "True")]}));
        fill_times(&mut new, &request(json!({})), now);
        let first = conditions(&new)[0].clone();
        assert_eq!(first.last_update_time, Some(whole_seconds(now)));
        assert_eq!(first.last_transition_time, Some(whole_seconds(now)));
        let mut again = request(json!({"conditions": [condition("Approved", "True")]}));
        fill_times(&mut again, &new, now.checked_add(jiff::SignedDuration::from_secs(60)).unwrap());
        assert_eq!(conditions(&again)[0].last_transition_time, first.last_transition_time);
        let mut by_issuer = request(json!({"conditions": [condition("Approved", "True")]}));
        keep_decisions(&mut by_issuer, &new);
        assert_eq!(conditions(&by_issuer), [first]);
    }
}
