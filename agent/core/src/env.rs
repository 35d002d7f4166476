//! A container's environment: literals, ConfigMaps, Secrets, the downward API and service variables, in the kubelet's
//! order. The objects are given; what is missing becomes the error text the kubelet shows.

mod services;

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVarSource, Pod, Secret};

pub use services::{ServiceVariables, service_variables};

use crate::{
    expand::expand,
    field::{self, Surroundings},
};

/// Objects a pod refers to, by name in its own namespace; `None` says that there is none of that name.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// ConfigMaps.
    pub config_maps: BTreeMap<String, Option<Arc<ConfigMap>>>,
    /// Secrets.
    pub secrets: BTreeMap<String, Option<Arc<Secret>>>,
}

/// Names of the objects a pod refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    /// ConfigMaps.
    pub config_maps: Vec<String>,
    /// Secrets.
    pub secrets: Vec<String>,
}

impl References {
    /// Whether it names nothing.
    pub fn is_empty(&self) -> bool {
        self.config_maps.is_empty() && self.secrets.is_empty()
    }

    pub(crate) fn config_map(&mut self, name: &str) {
        if !self.config_maps.iter().any(|known| known == name) {
            self.config_maps.push(name.to_owned());
        }
    }

    pub(crate) fn secret(&mut self, name: &str) {
        if !self.secrets.iter().any(|known| known == name) {
            self.secrets.push(name.to_owned());
        }
    }
}

/// A resolved environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// Variables in order, one entry per name.
    pub variables: Vec<(String, String)>,
    /// Keys of `envFrom` that cannot be names: what they were in (`configMap ns/name`), and they.
    pub skipped: Vec<(String, Vec<String>)>,
}

impl Environment {
    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn set(&mut self, name: String, value: String) {
        match self.variables.iter_mut().find(|(known, _)| *known == name) {
            Some(entry) => entry.1 = value,
            None => self.variables.push((name, value)),
        }
    }
}

/// What a container's environment refers to.
pub fn references(container: &Container) -> References {
    let mut wanted = References::default();
    for from in container.env_from.iter().flatten() {
        if let Some(source) = &from.config_map_ref {
            wanted.config_map(&source.name);
        }
        if let Some(source) = &from.secret_ref {
            wanted.secret(&source.name);
        }
    }
    for source in container.env.iter().flatten().filter_map(|var| var.value_from.as_ref()) {
        if let Some(key) = &source.config_map_key_ref {
            wanted.config_map(&key.name);
        }
        if let Some(key) = &source.secret_key_ref {
            wanted.secret(&key.name);
        }
    }
    wanted
}

/// Resolves a container's environment. The error is the message of `CreateContainerConfigError`.
pub fn resolve(
    pod: &Pod,
    container: &Container,
    sources: &Sources,
    services: &ServiceVariables,
    around: &Surroundings<'_>,
) -> Result<Environment, String> {
    let mut result = Environment::default();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    add_from(&mut result, namespace, container, sources)?;
    for var in container.env.iter().flatten() {
        let value = match (&var.value, &var.value_from) {
            (Some(value), _) if !value.is_empty() => {
                Some(expand(value, |name| result.get(name).or_else(|| services.get(name)).map(str::to_owned)))
            }
            (_, Some(source)) => one(pod, container, namespace, source, sources, around)?,
            _ => Some(String::new()),
        };
        // An optional reference to nothing sets nothing.
        if let Some(value) = value {
            result.set(var.name.clone(), value);
        }
    }
    for (name, value) in services.iter() {
        if result.get(name).is_none() {
            result.variables.push((name.to_owned(), value.to_owned()));
        }
    }
    Ok(result)
}

fn add_from(result: &mut Environment, namespace: &str, container: &Container, sources: &Sources) -> Result<(), String> {
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let (kind, name, values) = if let Some(source) = &from.config_map_ref {
            let found = config_map(sources, &source.name, source.optional)?;
            let data = found.and_then(|map| map.data.clone()).unwrap_or_default();
            ("configMap", &source.name, data)
        } else if let Some(source) = &from.secret_ref {
            let found = secret(sources, &source.name, source.optional)?;
            let data = found.and_then(|secret| secret.data.as_ref()).into_iter().flatten();
            let text = data.map(|(key, value)| (key.clone(), String::from_utf8_lossy(&value.0).into_owned()));
            ("secret", &source.name, text.collect())
        } else {
            continue;
        };
        let mut skipped = Vec::new();
        for (key, value) in values {
            let variable = format!("{prefix}{key}");
            if is_variable_name(&variable) {
                result.set(variable, value);
            } else {
                skipped.push(variable);
            }
        }
        if !skipped.is_empty() {
            result.skipped.push((format!("{kind} {namespace}/{name}"), skipped));
        }
    }
    Ok(())
}

fn one(
    pod: &Pod,
    container: &Container,
    namespace: &str,
    source: &EnvVarSource,
    sources: &Sources,
    around: &Surroundings<'_>,
) -> Result<Option<String>, String> {
    if let Some(selector) = &source.field_ref {
        return field::field(pod, &selector.field_path, around).map(Some);
    }
    if let Some(selector) = &source.resource_field_ref {
        return field::resource(pod, container, selector, around).map(Some);
    }
    if let Some(selector) = &source.config_map_key_ref {
        let Some(map) = config_map(sources, &selector.name, selector.optional)? else { return Ok(None) };
        let value = map.data.as_ref().and_then(|data| data.get(&selector.key)).cloned();
        return match value {
            None if selector.optional != Some(true) => {
                Err(format!("couldn't find key {} in ConfigMap {namespace}/{}", selector.key, selector.name))
            }
            value => Ok(value),
        };
    }
    if let Some(selector) = &source.secret_key_ref {
        let Some(secret) = secret(sources, &selector.name, selector.optional)? else { return Ok(None) };
        let value = secret.data.as_ref().and_then(|data| data.get(&selector.key));
        let value = value.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned());
        return match value {
            None if selector.optional != Some(true) => {
                Err(format!("couldn't find key {} in Secret {namespace}/{}", selector.key, selector.name))
            }
            value => Ok(value),
        };
    }
    Ok(Some(String::new()))
}

fn config_map<'a>(sources: &'a Sources, name: &str, optional: Option<bool>) -> Result<Option<&'a ConfigMap>, String> {
    match sources.config_maps.get(name).and_then(Option::as_deref) {
        None if optional != Some(true) => Err(format!("configmap {name:?} not found")),
        found => Ok(found),
    }
}

fn secret<'a>(sources: &'a Sources, name: &str, optional: Option<bool>) -> Result<Option<&'a Secret>, String> {
    match sources.secrets.get(name).and_then(Option::as_deref) {
        None if optional != Some(true) => Err(format!("secret {name:?} not found")),
        found => Ok(found),
    }
}

/// Kubernetes' relaxed rule: printable ASCII without `=`.
fn is_variable_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'=')
}

#[cfg(test)]
mod tests;
