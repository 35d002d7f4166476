//! The cluster's names, for the runtime that resolves for its guests.

use std::net::IpAddr;

use coracle_agent_wasm::{ClusterNames, Name};
use coracle_services::{Found, Names};

/// The names that this node's table of Services knows.
pub(crate) struct OfServices(pub(crate) Names);

impl ClusterNames for OfServices {
    fn service(&self, namespace: &str, service: &str) -> Option<Name> {
        self.0.service(namespace, service).map(|found| match found {
            Found::Addresses(addresses) => Name::Addresses(addresses),
            Found::Alias(name) => Name::Alias(name),
        })
    }

    fn endpoint(&self, namespace: &str, service: &str, host: &str) -> Option<Vec<IpAddr>> {
        self.0.endpoint(namespace, service, host)
    }
}
