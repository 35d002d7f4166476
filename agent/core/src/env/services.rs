//! The variables that tell a container where Services are: `NAME_SERVICE_HOST` and the older link variables.

use k8s_openapi::api::core::v1::Service;
use serde::{Deserialize, Serialize};

/// Variables of all Services a pod may see, sorted by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ServiceVariables(Vec<(String, String)>);

impl ServiceVariables {
    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(known, _)| known.as_str().cmp(name)).ok()?;
        Some(&self.0[at].1)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// The variables of these Services. Those without a virtual IP have none.
pub fn service_variables<'a>(services: impl IntoIterator<Item = &'a Service>) -> ServiceVariables {
    let mut all = Vec::new();
    for service in services {
        add(&mut all, service);
    }
    all.sort();
    all.dedup_by(|later, earlier| later.0 == earlier.0);
    ServiceVariables(all)
}

fn add(all: &mut Vec<(String, String)>, service: &Service) {
    let Some(spec) = &service.spec else { return };
    let ip = spec.cluster_ip.as_deref().unwrap_or_default();
    if ip.is_empty() || ip == "None" {
        return;
    }
    let ports = spec.ports.as_deref().unwrap_or_default();
    let Some(first) = ports.first() else { return };
    let name = shouted(service.metadata.name.as_deref().unwrap_or_default());
    all.push((format!("{name}_SERVICE_HOST"), ip.to_owned()));
    all.push((format!("{name}_SERVICE_PORT"), first.port.to_string()));
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    for (index, port) in ports.iter().enumerate() {
        if let Some(port_name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            all.push((format!("{name}_SERVICE_PORT_{}", shouted(port_name)), port.port.to_string()));
        }
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{host}:{}", protocol.to_lowercase(), port.port);
        let prefix = format!("{name}_PORT_{}_{}", port.port, protocol.to_uppercase());
        if index == 0 {
            all.push((format!("{name}_PORT"), url.clone()));
        }
        all.push((prefix.clone(), url));
        all.push((format!("{prefix}_PROTO"), protocol.to_lowercase()));
        all.push((format!("{prefix}_PORT"), port.port.to_string()));
        all.push((format!("{prefix}_ADDR"), ip.to_owned()));
    }
}

fn shouted(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}
