//! The kinds that controllers read and write, each known by its `k8s-openapi` type. One table makes the enums and their
//! conversions. Kinds that only the garbage collector and the namespace controller meet are described by [`Resource`] alone.

use std::borrow::Cow;
use std::sync::Arc;

use coracle_api::kind::DecodeError;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Event, Namespace, Node, PersistentVolumeClaim, Pod, ReplicationController, ResourceQuota,
    Secret, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::IPAddress;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Whether a resource lives in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Its objects belong to a namespace.
    Namespaced,
    /// Its objects belong to the cluster.
    Cluster,
}

/// What a client must know of a resource to build its URLs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Resource {
    /// The API group; empty for the core group.
    pub group: Cow<'static, str>,
    /// The version in that group.
    pub version: Cow<'static, str>,
    /// The kind, as in `kind: Pod`.
    pub kind: Cow<'static, str>,
    /// The plural of URLs, as in `pods`.
    pub plural: Cow<'static, str>,
    /// Where its objects live.
    pub scope: Scope,
}

impl Resource {
    /// `group/version`, or `version` alone for the core group.
    pub fn api_version(&self) -> String {
        match self.group.as_ref() {
            "" => self.version.to_string(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// The URL of the collection, `/api/v1/namespaces/x/pods` for example.
    pub fn collection_path(&self, namespace: &str) -> String {
        let root = match self.group.as_ref() {
            "" => format!("/api/{}", self.version),
            group => format!("/apis/{group}/{}", self.version),
        };
        match self.scope {
            Scope::Namespaced => format!("{root}/namespaces/{namespace}/{}", self.plural),
            Scope::Cluster => format!("{root}/{}", self.plural),
        }
    }
}

/// A `k8s-openapi` type that is part of [`Kind`].
pub trait Typed: coracle_api::Resource {
    /// The row of the table.
    const ROW: Kind;
    /// The typed value, if `object` is of this kind.
    fn from_object(object: Object) -> Option<Arc<Self>>;
    /// The erased value.
    fn into_object(self: Arc<Self>) -> Object;
}

/// Something to do with the type behind a [`Kind`].
pub trait KindVisitor {
    /// What comes of it.
    type Output;
    /// Does it.
    fn visit<K: Typed>(self) -> Self::Output;
}

macro_rules! kinds {
    ($($name:ident $scope:ident;)*) => {
        /// A kind that some controller reads or writes in typed form.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "each row is named as its Kubernetes kind")]
        pub enum Kind { $($name),* }

        /// One object of one of the [`Kind`]s, shared with everybody who reads it.
        #[derive(Clone, Debug, PartialEq)]
        #[expect(missing_docs, reason = "each row is named as its Kubernetes kind")]
        pub enum Object { $($name(Arc<$name>)),* }

        impl Kind {
            /// Every kind, in the order of the table.
            pub const ALL: &'static [Kind] = &[$(Kind::$name),*];

            /// How clients address it.
            pub fn resource(self) -> Resource {
                match self {
                    $(Kind::$name => Resource {
                        group: Cow::Borrowed(<$name as k8s_openapi::Resource>::GROUP),
                        version: Cow::Borrowed(<$name as k8s_openapi::Resource>::VERSION),
                        kind: Cow::Borrowed(<$name as k8s_openapi::Resource>::KIND),
                        plural: Cow::Borrowed(<$name as k8s_openapi::Resource>::URL_PATH_SEGMENT),
                        scope: Scope::$scope,
                    }),*
                }
            }

            /// Calls the visitor with the kind's type.
            pub fn visit<V: KindVisitor>(self, visitor: V) -> V::Output {
                match self { $(Kind::$name => visitor.visit::<$name>()),* }
            }

            /// Reads the JSON form of an object of this kind.
            pub fn decode(self, json: &[u8]) -> Result<Object, DecodeError> {
                match self { $(Kind::$name => Ok(Object::$name(coracle_api::kind::decode(json)?))),* }
            }
        }

        impl Object {
            /// The row of the table.
            pub fn kind(&self) -> Kind {
                match self { $(Object::$name(_) => Kind::$name),* }
            }

            /// The object's metadata.
            pub fn meta(&self) -> &ObjectMeta {
                match self { $(Object::$name(object) => &object.metadata),* }
            }

            /// The object's metadata, for a copy of its own.
            pub fn meta_mut(&mut self) -> &mut ObjectMeta {
                match self { $(Object::$name(object) => &mut Arc::make_mut(object).metadata),* }
            }

            /// The JSON form, as a request's body.
            pub fn encode(&self) -> Vec<u8> {
                match self { $(Object::$name(object) => coracle_api::kind::encode(object.as_ref())),* }
            }
        }

        $(impl Typed for $name {
            const ROW: Kind = Kind::$name;
            fn from_object(object: Object) -> Option<Arc<Self>> {
                match object { Object::$name(object) => Some(object), _ => None }
            }
            fn into_object(self: Arc<Self>) -> Object { Object::$name(self) }
        }

        impl From<$name> for Object {
            fn from(object: $name) -> Object { Object::$name(Arc::new(object)) }
        })*
    };
}

kinds! {
    Pod Namespaced;
    ReplicationController Namespaced;
    ReplicaSet Namespaced;
    Deployment Namespaced;
    StatefulSet Namespaced;
    DaemonSet Namespaced;
    ControllerRevision Namespaced;
    Job Namespaced;
    CronJob Namespaced;
    Service Namespaced;
    Endpoints Namespaced;
    EndpointSlice Namespaced;
    ConfigMap Namespaced;
    Secret Namespaced;
    ServiceAccount Namespaced;
    PersistentVolumeClaim Namespaced;
    PodDisruptionBudget Namespaced;
    ResourceQuota Namespaced;
    HorizontalPodAutoscaler Namespaced;
    Event Namespaced;
    Lease Namespaced;
    Namespace Cluster;
    Node Cluster;
    IPAddress Cluster;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        assert_eq!(Kind::Pod.resource().collection_path("a"), "/api/v1/namespaces/a/pods");
        assert_eq!(Kind::Node.resource().collection_path(""), "/api/v1/nodes");
        assert_eq!(Kind::Deployment.resource().collection_path("a"), "/apis/apps/v1/namespaces/a/deployments");
        assert_eq!(Kind::Lease.resource().api_version(), "coordination.k8s.io/v1");
    }
}
