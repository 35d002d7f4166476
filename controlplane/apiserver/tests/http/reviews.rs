//! Who somebody is, and requests for certificates.

use coracle_apiserver::Caller;
use coracle_apiserver::auth::{MASTERS, User};
use serde_json::{Value, json};

use crate::harness::Server;

#[tokio::test]
async fn everybody_learns_who_they_are() {
    let server = Server::start().await;
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let answer = server.ok("POST /apis/authentication.k8s.io/v1/selfsubjectreviews", review).await;
    assert_eq!(answer["status"]["userInfo"], json!({"username": "admin", "groups": [MASTERS, "system:authenticated"]}));
}

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

fn request() -> Value {
    let pem = "-----BEGIN CERTIFICATE REQUEST-----\nMA==\n-----END CERTIFICATE REQUEST-----\n";
    use base64::Engine as _;
    json!({
        "metadata": {"name": "r"},
        "spec": {
            "request": base64::engine::general_purpose::STANDARD.encode(pem), "usages": ["client auth"],
            "signerName": "example.com/signer", "username": "somebody else", "groups": [MASTERS],
        },
    })
}

#[tokio::test]
async fn requests_for_certificates_are_approved_and_issued_apart() {
    let server = Server::start().await;
    let node = server.as_user(User::node("n"));
    let made = node.ok(&format!("POST {REQUESTS}"), request()).await;
    assert_eq!(made["spec"]["username"], "system:node:n");
    assert_eq!(made["spec"]["groups"], json!(["system:nodes", "system:authenticated"]));
    let forged = server.ok(&format!("PATCH {REQUESTS}/r"), json!({"spec": {"username": "root"}})).await;
    assert_eq!(forged["spec"], made["spec"]);
    let approved = json!([{"type": "Approved", "status": "True", "reason": "Fine"}]);
    let line = format!("PATCH {REQUESTS}/r/status");
    let why = "CertificateSigningRequest.certificates.k8s.io \"r\" is invalid: status.conditions: Forbidden: updates may not add a condition of type \"Approved\"";
    server.refused(&line, json!({"status": {"conditions": approved}}), 422, "Invalid", why).await;
    let line = format!("PATCH {REQUESTS}/r/approval");
    let body = json!({"status": {"conditions": approved, "certificate": "YQ=="}});
    assert_eq!(node.ask(&line, body.clone()).await.code, 403);
    let done = server.ok(&line, body).await;
    assert_eq!(done["status"].get("certificate"), None, "an approver issues nothing");
    let condition = &done["status"]["conditions"][0];
    assert_eq!(condition["lastUpdateTime"], "2026-01-01T00:00:00Z");
    assert_eq!(condition["lastTransitionTime"], "2026-01-01T00:00:00Z");
    let why = "CertificateSigningRequest.certificates.k8s.io \"r\" is invalid: status.conditions: Forbidden: updates may not remove a condition of type \"Approved\"";
    let none = json!({"status": {"conditions": []}});
    server.refused(&line, none, 422, "Invalid", why).await;
    let issued = server.ok(&format!("PATCH {REQUESTS}/r/status"), json!({"status": {"certificate": "YQ=="}})).await;
    assert_eq!(issued["status"]["certificate"], "YQ==");
    assert_eq!(issued["status"]["conditions"], done["status"]["conditions"]);
}

#[tokio::test]
async fn a_token_is_reviewed_for_the_audiences_it_has() {
    let server = Server::start().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    server.ok(&format!("POST {accounts}"), json!({"metadata": {"name": "robot"}})).await;
    let made = server.ok(&format!("POST {accounts}/robot/token"), json!({"spec": {"audiences": ["vault"]}})).await;
    let token = &made["status"]["token"];
    let review = async |audiences: Value| {
        let review = json!({"spec": {"token": token, "audiences": audiences}});
        server.ok("POST /apis/authentication.k8s.io/v1/tokenreviews", review).await["status"].clone()
    };
    let both = review(json!(["api", "vault"])).await;
    assert_eq!(both["authenticated"], true, "{both}");
    assert_eq!(both["audiences"], json!(["vault"]));
    assert_eq!(both["user"]["username"], "system:serviceaccount:default:robot");
    let foreign = review(json!(["api"])).await;
    assert_eq!(foreign.get("authenticated"), None, "{foreign}");
    assert!(foreign["error"].as_str().is_some_and(|why| why.contains("audiences")), "{foreign}");
}

#[tokio::test]
async fn an_administrator_speaks_for_another_with_all_that_is_said_of_them() {
    let server = Server::start().await;
    let headers = [
        ("content-type", "application/json"),
        ("impersonate-user", "jane"),
        ("impersonate-group", "devs"),
        ("impersonate-uid", "u1"),
        ("impersonate-extra-acme.com%2fproject", "edge"),
        ("impersonate-extra-acme.com%2fproject", "core"),
    ];
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).to_string();
    let line = "POST /apis/authentication.k8s.io/v1/selfsubjectreviews";
    let answer = server.send_proved(line, &headers, &review).await;
    let info = &answer.body["status"]["userInfo"];
    assert_eq!(info["username"], "jane", "{answer:?}");
    assert_eq!(info["uid"], "u1");
    assert_eq!(info["groups"], json!(["devs", "system:authenticated"]));
    assert_eq!(info["extra"], json!({"acme.com/project": ["edge", "core"]}));
    let nobody = server.send_proved(line, &headers[4..], &review).await;
    assert_eq!((nobody.code, nobody.body["reason"].as_str().unwrap()), (400, "BadRequest"));
}

#[tokio::test]
async fn a_certificate_that_proves_nothing_is_told_so() {
    let server = Server::start().await;
    let answer = server.send_from(Caller::Refused, "GET /version", &[], "").await;
    assert_eq!((answer.code, answer.body["reason"].as_str()), (401, Some("Unauthorized")));
    assert_eq!(server.send_from(Caller::Connection(None), "GET /version", &[], "").await.code, 200);
    // A token is as good as without it.
    server.ok("POST /api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "robot"}})).await;
    let line = "POST /api/v1/namespaces/default/serviceaccounts/robot/token";
    let token = server.ok(line, json!({})).await["status"]["token"].as_str().unwrap_or_default().to_owned();
    let bearer = format!("Bearer {token}");
    let answer = server.send_from(Caller::Refused, "GET /api", &[("authorization", &bearer)], "").await;
    assert_eq!(answer.code, 200, "{}", answer.text);
    let answer = server.send_from(Caller::Refused, "GET /api", &[("authorization", "Bearer x")], "").await;
    assert_eq!(answer.code, 401);
}
