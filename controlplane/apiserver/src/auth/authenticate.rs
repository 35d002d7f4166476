//! Who calls: a client certificate of the cluster's CA, a fixed token, or a service account's token; else nobody.

use std::sync::Arc;

use coracle_api::ApiError;
use coracle_store::Store;
use http::{HeaderMap, header};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Secret, ServiceAccount};
use ring::digest;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::auth::token::{BoundTo, Claims, Signer, TokenError};
use crate::auth::{SERVICE_ACCOUNTS, User};
use crate::registry::{Registry, Stored};

/// A token that proves one fixed identity, the administrator's.
#[derive(Debug, Clone)]
pub struct FixedToken {
    /// The secret text.
    pub token: String,
    /// Who shows it.
    pub user: Arc<User>,
}

/// What a token proves.
#[derive(Debug, Clone)]
pub struct Proved {
    /// Who showed it.
    pub user: Arc<User>,
    /// The audiences that were asked for and that it is meant for.
    pub audiences: Vec<String>,
}

/// Finds out who calls.
pub struct Authenticator {
    signer: Signer,
    fixed: Vec<FixedToken>,
    registry: Registry,
    anonymous: Arc<User>,
}

impl Authenticator {
    /// Tokens signed by `signer`, and the fixed ones.
    #[must_use]
    pub fn new(signer: Signer, fixed: Vec<FixedToken>) -> Self {
        Self { signer, fixed, registry: Registry::default(), anonymous: Arc::new(User::anonymous()) }
    }

    /// The key that signs service account tokens.
    #[must_use]
    pub fn signer(&self) -> &Signer {
        &self.signer
    }

    /// The user of a request. A certificate goes before a token, as Kubernetes has it.
    ///
    /// # Errors
    /// A token was shown that proves nothing: 401.
    pub(crate) fn authenticate(
        &self,
        store: &Arc<dyn Store>,
        headers: &HeaderMap,
        proved: Option<Arc<User>>,
        now: Timestamp,
    ) -> Result<Arc<User>, ApiError> {
        if let Some(user) = proved {
            return impersonate(headers, user);
        }
        let Some(token) = bearer(headers) else { return Ok(Arc::clone(&self.anonymous)) };
        let proved = self.token(store, token, self.signer.audiences(), now).map_err(|why| {
            tracing::debug!(%why, "a bearer token was refused");
            ApiError::unauthorized()
        })?;
        impersonate(headers, proved.user)
    }

    /// The user a token proves to those who accept one of the audiences. A fixed token is for the API's own only.
    ///
    /// # Errors
    /// It proves none.
    pub fn token(
        &self,
        store: &Arc<dyn Store>,
        token: &str,
        audiences: &[String],
        now: Timestamp,
    ) -> Result<Proved, TokenError> {
        let shared =
            |own: &[String]| -> Vec<String> { audiences.iter().filter(|a| own.contains(a)).cloned().collect() };
        // Hashes are compared: how long that takes says nothing of the secret.
        let hash = |text: &str| digest::digest(&digest::SHA256, text.as_bytes());
        let shown = hash(token);
        if let Some(fixed) = self.fixed.iter().find(|fixed| hash(&fixed.token).as_ref() == shown.as_ref()) {
            let audiences = shared(self.signer.audiences());
            if audiences.is_empty() {
                return Err(TokenError::Audience);
            }
            return Ok(Proved { user: Arc::clone(&fixed.user), audiences });
        }
        let claims = self.signer.verify(token, audiences, now)?;
        self.check_alive(store, &claims)?;
        let mut user = User::service_account(&claims.namespace, &claims.service_account, &claims.service_account_uid);
        if let Some(BoundTo { kind, name, uid, node }) = &claims.bound
            && kind == "Pod"
        {
            let mut put = |key: &str, value: &str| {
                user.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
            };
            put("pod-name", name);
            put("pod-uid", uid);
            if let Some(node) = node {
                put("node-name", &node.name);
                if !node.uid.is_empty() {
                    put("node-uid", &node.uid);
                }
            }
        }
        Ok(Proved { user: Arc::new(user), audiences: shared(&claims.audiences) })
    }

    /// A token holds only while its account and what it is bound to exist.
    fn check_alive(&self, store: &Arc<dyn Store>, claims: &Claims) -> Result<(), TokenError> {
        let uid_of = |served: &crate::registry::Served, name: &str| {
            let entry = store.get(&served.key(&claims.namespace, name))?;
            Stored::of(served.kind, entry).ok()?.object().meta().uid.clone()
        };
        let account = self.registry.of::<ServiceAccount>();
        if uid_of(account, &claims.service_account).as_ref() != Some(&claims.service_account_uid) {
            return Err(TokenError::Gone);
        }
        let Some(bound) = &claims.bound else { return Ok(()) };
        let served = match bound.kind.as_str() {
            "Pod" => self.registry.of::<Pod>(),
            "Secret" => self.registry.of::<Secret>(),
            _ => self.registry.of::<Node>(),
        };
        if uid_of(served, &bound.name).as_ref() == Some(&bound.uid) { Ok(()) } else { Err(TokenError::Gone) }
    }
}

/// Whether a request brings a bearer token.
pub(crate) fn has_token(headers: &HeaderMap) -> bool {
    bearer(headers).is_some()
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// `kubectl --as`: an administrator speaks for another.
fn impersonate(headers: &HeaderMap, user: Arc<User>) -> Result<Arc<User>, ApiError> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).filter(|v| !v.is_empty());
    let groups: Vec<String> =
        headers.get_all("impersonate-group").iter().filter_map(|v| v.to_str().ok()).map(str::to_owned).collect();
    let Some(name) = text("impersonate-user") else {
        let has_extra = headers.keys().any(|key| key.as_str().starts_with("impersonate-extra-"));
        if groups.is_empty() && text("impersonate-uid").is_none() && !has_extra {
            return Ok(user);
        }
        return Err(ApiError::bad_request("requested groups, uid or extra without impersonating a user"));
    };
    if !user.is_in(crate::auth::MASTERS) {
        let users = coracle_api::status::ResourceName { group: "", plural: "users" };
        let why = format!(
            "User {:?} cannot impersonate resource \"users\" in API group \"\" at the cluster scope",
            user.name
        );
        return Err(ApiError::forbidden(users, name, &why));
    }
    let mut other = match name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':')) {
        Some((namespace, account)) => User::service_account(namespace, account, ""),
        None if name == "system:anonymous" => User::anonymous(),
        None => User::authenticated(name, &[]),
    };
    if !groups.is_empty() {
        other.groups.retain(|g| g.starts_with(SERVICE_ACCOUNTS) || g == crate::auth::AUTHENTICATED);
        other.groups.splice(0..0, groups);
    }
    if let Some(uid) = text("impersonate-uid") {
        uid.clone_into(&mut other.uid);
    }
    for (key, value) in headers {
        let Some(key) = key.as_str().strip_prefix("impersonate-extra-") else { continue };
        // Keys are escaped, since names of headers cannot hold what keys can; an escape that is none is taken as it is.
        let key = percent_encoding::percent_decode_str(key).decode_utf8_lossy().into_owned();
        let value = value.to_str().map_err(|_| ApiError::bad_request(format!("Impersonate-Extra-{key} is no text")))?;
        other.extra.entry(key).or_default().push(value.to_owned());
    }
    Ok(Arc::new(other))
}

/// The user a client certificate proves: its common name, its organizations as groups. The TLS layer has checked that the
/// cluster's CA signed it.
#[must_use]
pub fn certificate_user(der: &[u8]) -> Option<User> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups: Vec<&str> = subject.iter_organization().filter_map(|o| o.as_str().ok()).collect();
    Some(User::authenticated(name, &groups))
}
