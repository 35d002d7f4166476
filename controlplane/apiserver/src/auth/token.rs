//! Service account tokens: JSON Web Tokens (RFC 7519) signed with ES256 (RFC 7518 section 3.4), with the claims of Kubernetes'
//! bound tokens. Signing and the check of a signature; whether what a token is bound to still exists is asked elsewhere.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use ring::digest;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use serde::{Deserialize, Serialize};

/// Clocks of nodes differ a little.
const LEEWAY_SECONDS: i64 = 60;
/// No token of ours is longer.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// The object a token ceases with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundTo {
    /// `Pod`, `Secret` or `Node`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// The node of a pod.
    pub node: Option<Named>,
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Namespace of the service account.
    pub namespace: String,
    /// Its name.
    pub service_account: String,
    /// Its uid.
    pub service_account_uid: String,
    /// Who may be shown the token.
    pub audiences: Vec<String>,
    /// Since when it holds.
    pub issued: Timestamp,
    /// Until when.
    pub expires: Timestamp,
    /// What it is bound to.
    pub bound: Option<BoundTo>,
}

/// Why a token is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is none of ours, or its signature is wrong.
    #[error("invalid bearer token")]
    Invalid,
    /// Its time is over, or not come.
    #[error("token has expired")]
    Expired,
    /// It is for others.
    #[error("token audiences do not include any of the accepted ones")]
    Audience,
    /// The account or the object it was bound to is gone.
    #[error("service account token has been invalidated")]
    Gone,
    /// The key cannot sign.
    #[error("the signing key cannot be used")]
    Key,
}

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
}

#[derive(Serialize, Deserialize)]
struct Payload {
    aud: Vec<String>,
    exp: i64,
    iat: i64,
    iss: String,
    jti: String,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Private,
    nbf: i64,
    sub: String,
}

#[derive(Serialize, Deserialize)]
struct Private {
    namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<Named>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pod: Option<Named>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<Named>,
    serviceaccount: Named,
}

/// An object by its name and uid, as a token's claims have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Its name.
    pub name: String,
    /// Its uid; empty if the object was not there when the token was signed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// Signs and checks tokens with one key.
pub struct Signer {
    key: EcdsaKeyPair,
    key_id: String,
    issuer: String,
    audiences: Vec<String>,
}

impl Signer {
    /// A signer with a PKCS#8 key on P-256. `issuer` is the cluster's own URL and its default audience.
    ///
    /// # Errors
    /// The key is no such key.
    pub fn new(pkcs8: &[u8], issuer: &str) -> Result<Self, TokenError> {
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &SystemRandom::new())
            .map_err(|_| TokenError::Key)?;
        let id = digest::digest(&digest::SHA256, key.public_key().as_ref());
        Ok(Self {
            key_id: URL_SAFE_NO_PAD.encode(id),
            key,
            issuer: issuer.to_owned(),
            audiences: vec![issuer.to_owned()],
        })
    }

    /// A new key, in PKCS#8.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn generate_key() -> Result<Vec<u8>, TokenError> {
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .map(|doc| doc.as_ref().to_vec())
            .map_err(|_| TokenError::Key)
    }

    /// The audiences of tokens that name none.
    #[must_use]
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// The issuer's URL.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The public key as a JSON Web Key Set, as `/openid/v1/jwks` shows it.
    #[must_use]
    pub fn jwks(&self) -> serde_json::Value {
        // An uncompressed point: 0x04, x, y.
        let point = self.key.public_key().as_ref();
        let (x, y) = point[1..].split_at(32);
        serde_json::json!({"keys": [{
            "use": "sig", "kty": "EC", "kid": self.key_id, "crv": "P-256", "alg": "ES256",
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        }]})
    }

    /// Signs a token.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn sign(&self, claims: &Claims) -> Result<String, TokenError> {
        let named = |kind: &str| {
            claims.bound.as_ref().filter(|b| b.kind == kind).map(|b| Named { name: b.name.clone(), uid: b.uid.clone() })
        };
        let pods_node = claims.bound.as_ref().and_then(|b| b.node.clone());
        let payload = Payload {
            aud: claims.audiences.clone(),
            exp: claims.expires.as_second(),
            iat: claims.issued.as_second(),
            iss: self.issuer.clone(),
            jti: uuid::Uuid::new_v4().to_string(),
            kubernetes: Private {
                namespace: claims.namespace.clone(),
                node: named("Node").or(pods_node),
                pod: named("Pod"),
                secret: named("Secret"),
                serviceaccount: Named { name: claims.service_account.clone(), uid: claims.service_account_uid.clone() },
            },
            nbf: claims.issued.as_second(),
            sub: format!("system:serviceaccount:{}:{}", claims.namespace, claims.service_account),
        };
        let header = Header { alg: "ES256".to_owned(), kid: self.key_id.clone() };
        let part =
            |json: serde_json::Result<Vec<u8>>| json.map(|j| URL_SAFE_NO_PAD.encode(j)).map_err(|_| TokenError::Key);
        let mut token = part(serde_json::to_vec(&header))?;
        token.push('.');
        token.push_str(&part(serde_json::to_vec(&payload))?);
        let signature = self.key.sign(&SystemRandom::new(), token.as_bytes()).map_err(|_| TokenError::Key)?;
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(signature));
        Ok(token)
    }

    /// Reads a token of ours, if its signature, time and audience hold.
    ///
    /// # Errors
    /// They do not.
    pub fn verify(&self, token: &str, audiences: &[String], now: Timestamp) -> Result<Claims, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Invalid);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Invalid)?;
        let (header, payload) = signed.split_once('.').ok_or(TokenError::Invalid)?;
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::Invalid);
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| TokenError::Invalid)?;
        if header.alg != "ES256" {
            return Err(TokenError::Invalid);
        }
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key().as_ref())
            .verify(signed.as_bytes(), &decode(signature)?)
            .map_err(|_| TokenError::Invalid)?;
        let payload: Payload = serde_json::from_slice(&decode(payload)?).map_err(|_| TokenError::Invalid)?;
        if payload.iss != self.issuer {
            return Err(TokenError::Invalid);
        }
        let seconds = now.as_second();
        if seconds > payload.exp + LEEWAY_SECONDS || seconds < payload.nbf - LEEWAY_SECONDS {
            return Err(TokenError::Expired);
        }
        if !payload.aud.iter().any(|a| audiences.contains(a)) {
            return Err(TokenError::Audience);
        }
        claims(payload)
    }
}

fn claims(payload: Payload) -> Result<Claims, TokenError> {
    let time = |s| Timestamp::from_second(s).map_err(|_| TokenError::Invalid);
    let private = payload.kubernetes;
    let bound = |kind: &str, named: Named, node: Option<Named>| BoundTo {
        kind: kind.to_owned(),
        name: named.name,
        uid: named.uid,
        node,
    };
    let bound = match (private.pod, private.secret, private.node) {
        (Some(pod), _, node) => Some(bound("Pod", pod, node)),
        (None, Some(secret), _) => Some(bound("Secret", secret, None)),
        (None, None, Some(node)) => Some(bound("Node", node, None)),
        (None, None, None) => None,
    };
    Ok(Claims {
        namespace: private.namespace,
        service_account: private.serviceaccount.name,
        service_account_uid: private.serviceaccount.uid,
        audiences: payload.aud,
        issued: time(payload.iat)?,
        expires: time(payload.exp)?,
        bound,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer() -> Signer {
        Signer::new(&Signer::generate_key().unwrap(), "https://cluster").unwrap()
    }

    fn sample(now: Timestamp) -> Claims {
        Claims {
            namespace: "a".into(),
            service_account: "b".into(),
            service_account_uid: "u".into(),
            audiences: vec!["https://cluster".into()],
            issued: now,
            expires: Timestamp::from_second(now.as_second() + 600).unwrap(),
            bound: Some(BoundTo {
                kind: "Pod".into(),
                name: "p".into(),
                uid: "q".into(),
                node: Some(Named { name: "n".into(), uid: "r".into() }),
            }),
        }
    }

    #[test]
    fn a_token_says_what_was_signed() {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let (ours, theirs) = (signer(), signer());
        let claims = sample(now);
        let token = ours.sign(&claims).unwrap();
        let audiences = ours.audiences().to_vec();
        let at = |s: i64| Timestamp::from_second(now.as_second() + s).unwrap();
        assert_eq!(ours.verify(&token, &audiences, now), Ok(claims));
        assert_eq!(theirs.verify(&token, &audiences, now), Err(TokenError::Invalid));
        assert_eq!(ours.verify(&token, &audiences, at(700)), Err(TokenError::Expired));
        assert_eq!(ours.verify(&token, &audiences, at(-100)), Err(TokenError::Expired));
        assert_eq!(ours.verify(&token, &["x".into()], now), Err(TokenError::Audience));
        let mut forged = token.clone().into_bytes();
        let middle = token.find('.').unwrap() + 5;
        forged[middle] = if forged[middle] == b'A' { b'B' } else { b'A' };
        assert_eq!(ours.verify(&String::from_utf8(forged).unwrap(), &audiences, now), Err(TokenError::Invalid));
        for bad in ["", "a", "a.b", "a.b.c", "..."] {
            assert_eq!(ours.verify(bad, &audiences, now), Err(TokenError::Invalid));
        }
    }
}
