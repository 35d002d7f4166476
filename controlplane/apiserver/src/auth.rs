//! Who calls, and whether they may: identities, and the two interfaces behind which authentication and authorization stand.

pub mod authenticate;
pub mod authorize;
mod node;
pub mod token;

use std::collections::BTreeMap;

use coracle_api::selector::FieldSelector;

use crate::request::{ResourcePath, Verb};

/// Everyone who proved who they are.
pub const AUTHENTICATED: &str = "system:authenticated";
/// Everyone else.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// May do anything.
pub const MASTERS: &str = "system:masters";
/// Agents.
pub const NODES: &str = "system:nodes";
/// Every service account.
pub const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct User {
    /// Unique name.
    pub name: String,
    /// Unique id, empty where there is none.
    pub uid: String,
    /// Groups.
    pub groups: Vec<String>,
    /// What else the authenticator knows.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// A user that proved its name, in `groups` and in `system:authenticated`.
    #[must_use]
    pub fn authenticated(name: impl Into<String>, groups: &[&str]) -> Self {
        let mut groups: Vec<String> = groups.iter().map(|g| (*g).to_owned()).collect();
        groups.push(AUTHENTICATED.to_owned());
        Self { name: name.into(), groups, ..Self::default() }
    }

    /// Nobody in particular.
    #[must_use]
    pub fn anonymous() -> Self {
        Self { name: "system:anonymous".to_owned(), groups: vec![UNAUTHENTICATED.to_owned()], ..Self::default() }
    }

    /// The agent of a node.
    #[must_use]
    pub fn node(name: &str) -> Self {
        Self::authenticated(format!("system:node:{name}"), &[NODES])
    }

    /// A service account.
    #[must_use]
    pub fn service_account(namespace: &str, name: &str, uid: &str) -> Self {
        let mut user = Self::authenticated(
            format!("system:serviceaccount:{namespace}:{name}"),
            &[SERVICE_ACCOUNTS, &format!("{SERVICE_ACCOUNTS}:{namespace}")],
        );
        uid.clone_into(&mut user.uid);
        user
    }

    /// Whether the user is in a group.
    #[must_use]
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// The node whose agent this is.
    #[must_use]
    pub fn node_name(&self) -> Option<&str> {
        if self.is_in(NODES) { self.name.strip_prefix("system:node:") } else { None }
    }
}

/// What an authorizer is asked.
#[derive(Debug, Clone, Copy)]
pub enum Attributes<'a> {
    /// A verb on a resource.
    Resource {
        /// The verb.
        verb: Verb,
        /// The path.
        path: &'a ResourcePath,
        /// The fields by which many are selected; empty where there is no selector.
        fields: &'a FieldSelector,
    },
    /// A verb (the method in lower case) on any other path.
    NonResource {
        /// `get`, `post` …
        verb: &'a str,
        /// The path.
        path: &'a str,
    },
}

/// An authorizer's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Allowed.
    Allow,
    /// Not allowed by anything; the text says more where there is more to say.
    Deny(String),
}
