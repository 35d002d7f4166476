//! Registry credentials out of `imagePullSecrets`. It only reads Secrets it is given, and skips what it cannot read, as the
//! kubelet does: a pull then goes on without them.

use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::api::core::v1::Secret;
use serde_json::Value;

use crate::workload::RegistryCredential;

/// The credentials of one Secret of type `kubernetes.io/dockerconfigjson` or `kubernetes.io/dockercfg`.
pub fn credentials(secret: &Secret) -> Vec<RegistryCredential> {
    let data = |key: &str| secret.data.as_ref().and_then(|data| data.get(key));
    let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).ok();
    let auths = match (data(".dockerconfigjson"), data(".dockercfg")) {
        (Some(bytes), _) => json(&bytes.0).map(|value| value["auths"].clone()),
        (None, Some(bytes)) => json(&bytes.0),
        (None, None) => None,
    };
    let Some(Value::Object(auths)) = auths else { return Vec::new() };
    auths.iter().filter_map(|(registry, entry)| credential(registry, entry)).collect()
}

fn credential(registry: &str, entry: &Value) -> Option<RegistryCredential> {
    let text = |key: &str| entry[key].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let encoded = || {
        let decoded = STANDARD.decode(entry["auth"].as_str()?).ok()?;
        let decoded = String::from_utf8(decoded).ok()?;
        decoded.split_once(':').map(|(user, password)| (user.to_owned(), password.to_owned()))
    };
    let (username, password) = text("username").zip(text("password")).or_else(encoded)?;
    let bare = registry.trim_start_matches("https://").trim_start_matches("http://");
    // `https://index.docker.io/v1/` is what `docker login` writes for the default registry.
    let registry = bare.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches("/v2").to_owned();
    Some(RegistryCredential { registry, username, password })
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    #[test]
    fn both_forms_of_an_entry_are_read() {
        let config = r#"{"auths": {"https://index.docker.io/v1/": {"auth": "dTpwOnc="},
            "ghcr.io": {"username": "a", "password": "b"}, "broken": {"auth": "%%"}}}"#;
        let data = [(".dockerconfigjson".to_owned(), ByteString(config.as_bytes().to_vec()))].into();
        let found = credentials(&Secret { data: Some(data), ..Secret::default() });
        let found: Vec<_> =
            found.iter().map(|c| (c.registry.as_str(), c.username.as_str(), c.password.as_str())).collect();
        assert_eq!(found, [("ghcr.io", "a", "b"), ("index.docker.io", "u", "p:w")]);
    }
}
