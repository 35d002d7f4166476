//! What pods are told of Services: variables of their namespace, kept up to date, and recorded for a start with no control
//! plane in sight.

use std::collections::BTreeSet;

use coracle_agent_core::{
    Now,
    env::{ServiceVariables, service_variables},
};
use k8s_openapi::api::core::v1::Service;
use kube::{ResourceExt, runtime::watcher};

use super::EventLoop;

impl EventLoop {
    /// Begins with what an earlier life recorded.
    pub(crate) fn restore_services(&mut self, recorded: std::collections::BTreeMap<String, ServiceVariables>) {
        for (namespace, variables) in &recorded {
            self.agent.set_services(namespace, variables.clone());
        }
        self.state.recorded_services = recorded;
    }

    pub(super) fn service_event(&mut self, now: Now, event: watcher::Event<Service>) {
        let key = |service: &Service| (service.namespace().unwrap_or_default(), service.name_any());
        match event {
            watcher::Event::Init => self.state.known_services.clear(),
            watcher::Event::InitApply(service) => {
                self.state.known_services.insert(key(&service), service);
            }
            watcher::Event::InitDone => {
                let namespaces: BTreeSet<String> =
                    self.state.known_services.keys().map(|(namespace, _)| namespace.clone()).collect();
                self.publish_services("");
                for namespace in namespaces {
                    self.publish_services(&namespace);
                }
                self.state.services_settled = true;
                self.try_open(now);
            }
            watcher::Event::Apply(service) => {
                let key = key(&service);
                let namespace = key.0.clone();
                self.state.known_services.insert(key, service);
                self.publish_services(&namespace);
            }
            watcher::Event::Delete(service) => {
                let key = key(&service);
                self.state.known_services.remove(&key);
                self.publish_services(&key.0);
            }
        }
    }

    /// A namespace's Services and the API server's own are what its pods are told of.
    fn publish_services(&mut self, namespace: &str) {
        let variables = self.variables(namespace);
        if self.state.recorded_services.get(namespace).is_some_and(|recorded| *recorded != variables) {
            self.put_services(namespace, variables.clone());
        }
        self.agent.set_services(namespace, variables);
    }

    /// Records what a namespace's pods are told, from its first pod on.
    pub(super) fn record_services(&mut self, namespace: &str) {
        if self.state.services_settled && !self.state.recorded_services.contains_key(namespace) {
            let variables = self.variables(namespace);
            self.put_services(namespace, variables);
        }
    }

    fn variables(&self, namespace: &str) -> ServiceVariables {
        let all = &self.state.known_services;
        let master = all.get(&("default".to_owned(), "kubernetes".to_owned()));
        let first = (namespace.to_owned(), String::new());
        let own = all.range(first..).take_while(|((of, _), _)| of == namespace).map(|(_, service)| service);
        service_variables(own.chain(master))
    }

    fn put_services(&mut self, namespace: &str, variables: ServiceVariables) {
        self.database.put_services(namespace, &variables);
        self.state.recorded_services.insert(namespace.to_owned(), variables);
    }
}
