//! What the runtime says of itself and of pods' networks: where it looks for plugins, whether it has one, what sandboxes
//! are made of.

use std::path::PathBuf;

use serde::Deserialize;
use tonic::Status;

use crate::{
    connection::{Connection, call},
    cri::v1::{StatusRequest, StatusResponse},
};

/// The runtime's side of pods' networks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeNetwork {
    /// Where it looks for plugins.
    pub binaries: PathBuf,
    /// Where it looks for their configuration.
    pub configuration: PathBuf,
    /// It has read a configuration: sandboxes can be made.
    pub is_ready: bool,
}

/// The part of containerd's configuration that it tells.
#[derive(Default, Deserialize)]
struct Told {
    #[serde(default)]
    cni: Cni,
}

/// Names of containerd's configuration; where it tells nothing, the places are those of the CNI project.
#[derive(Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Cni {
    bin_dir: PathBuf,
    conf_dir: PathBuf,
}

impl Default for Cni {
    fn default() -> Self {
        Self { bin_dir: "/opt/cni/bin".into(), conf_dir: "/etc/cni/net.d".into() }
    }
}

/// What the runtime makes sandboxes of, where it says it.
pub(crate) async fn sandbox_image(connection: &Connection) -> Result<Option<String>, Status> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Config {
        sandbox_image: Option<String>,
    }
    let answer = connection.runtime().status(call(StatusRequest { verbose: true })).await?.into_inner();
    let config = answer.info.get("config").and_then(|text| serde_json::from_str::<Config>(text).ok());
    Ok(config.and_then(|config| config.sandbox_image).filter(|name| !name.is_empty()))
}

pub(crate) fn of(status: &StatusResponse) -> RuntimeNetwork {
    let told: Told = status.info.get("config").and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let conditions = status.status.iter().flat_map(|status| &status.conditions);
    let is_ready = conditions.into_iter().any(|condition| condition.r#type == "NetworkReady" && condition.status);
    RuntimeNetwork { binaries: told.cni.bin_dir, configuration: told.cni.conf_dir, is_ready }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::cri::v1::{RuntimeCondition, RuntimeStatus};

    #[test]
    fn containerd_says_where_it_looks() {
        let ready = RuntimeCondition { r#type: "NetworkReady".into(), status: true, ..RuntimeCondition::default() };
        let told = r#"{"cni":{"binDir":"/x/bin","confDir":"/x/net.d"},"root":"/x"}"#;
        let answer = StatusResponse {
            status: Some(RuntimeStatus { conditions: vec![ready] }),
            info: HashMap::from([("config".to_owned(), told.to_owned())]),
            ..StatusResponse::default()
        };
        let (binaries, configuration) = ("/x/bin".into(), "/x/net.d".into());
        assert_eq!(of(&answer), RuntimeNetwork { binaries, configuration, is_ready: true });
        let nothing = of(&StatusResponse::default());
        assert_eq!((nothing.binaries.to_str(), nothing.is_ready), (Some("/opt/cni/bin"), false));
    }
}
