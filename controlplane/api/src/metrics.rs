//! The types of `metrics.k8s.io/v1beta1` (`k8s.io/metrics`), which `k8s-openapi` does not have: what nodes and pods use.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::duration;

/// `metrics.k8s.io`.
pub const GROUP: &str = "metrics.k8s.io";
const VERSION: &str = "v1beta1";
const API_VERSION: &str = "metrics.k8s.io/v1beta1";

/// Amounts by the name of the resource: `cpu` in cores, averaged over the window, and `memory`, the working set in bytes.
pub type Usage = BTreeMap<String, Quantity>;

/// The span of time that an average is over; `metav1.Duration` in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Its length.
    pub nanoseconds: i64,
}

impl Serialize for Window {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&duration::format(self.nanoseconds))
    }
}

impl<'de> Deserialize<'de> for Window {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        let nanoseconds = duration::parse(&text);
        nanoseconds
            .map(|nanoseconds| Self { nanoseconds })
            .ok_or_else(|| serde::de::Error::custom(format_args!("time: invalid duration {text:?}")))
    }
}

/// What a node uses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "NodeText", into = "NodeText")]
pub struct NodeMetrics {
    /// The node's name and labels.
    pub metadata: ObjectMeta,
    /// The end of the window.
    pub timestamp: Option<Time>,
    /// What the figures are about.
    pub window: Window,
    /// The figures.
    pub usage: Usage,
}

/// What the containers of a pod use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "PodText", into = "PodText")]
pub struct PodMetrics {
    /// The pod's name, namespace and labels.
    pub metadata: ObjectMeta,
    /// The end of the window.
    pub timestamp: Option<Time>,
    /// What the figures are about.
    pub window: Window,
    /// The running containers.
    pub containers: Vec<ContainerMetrics>,
}

/// What a container uses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerMetrics {
    /// The container's name.
    pub name: String,
    /// The figures.
    pub usage: Usage,
}

/// A [`NodeMetrics`] as it is written.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NodeText {
    kind: Cow<'static, str>,
    api_version: Cow<'static, str>,
    metadata: ObjectMeta,
    timestamp: Option<Time>,
    window: Window,
    usage: Usage,
}

impl From<NodeMetrics> for NodeText {
    fn from(NodeMetrics { metadata, timestamp, window, usage }: NodeMetrics) -> Self {
        let (kind, api_version) = ("NodeMetrics".into(), API_VERSION.into());
        Self { kind, api_version, metadata, timestamp, window, usage }
    }
}

impl From<NodeText> for NodeMetrics {
    fn from(NodeText { metadata, timestamp, window, usage, .. }: NodeText) -> Self {
        Self { metadata, timestamp, window, usage }
    }
}

/// A [`PodMetrics`] as it is written.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodText {
    kind: Cow<'static, str>,
    api_version: Cow<'static, str>,
    metadata: ObjectMeta,
    timestamp: Option<Time>,
    window: Window,
    containers: Vec<ContainerMetrics>,
}

impl From<PodMetrics> for PodText {
    fn from(PodMetrics { metadata, timestamp, window, containers }: PodMetrics) -> Self {
        let (kind, api_version) = ("PodMetrics".into(), API_VERSION.into());
        Self { kind, api_version, metadata, timestamp, window, containers }
    }
}

impl From<PodText> for PodMetrics {
    fn from(PodText { metadata, timestamp, window, containers, .. }: PodText) -> Self {
        Self { metadata, timestamp, window, containers }
    }
}

macro_rules! resource {
    ($type:ty, $kind:literal, $plural:literal, $scope:ident) => {
        impl k8s_openapi::Resource for $type {
            const API_VERSION: &'static str = API_VERSION;
            const GROUP: &'static str = GROUP;
            const KIND: &'static str = $kind;
            const VERSION: &'static str = VERSION;
            const URL_PATH_SEGMENT: &'static str = $plural;
            type Scope = k8s_openapi::$scope;
        }

        impl k8s_openapi::ListableResource for $type {
            const LIST_KIND: &'static str = concat!($kind, "List");
        }

        impl k8s_openapi::Metadata for $type {
            type Ty = ObjectMeta;

            fn metadata(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn metadata_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

resource!(NodeMetrics, "NodeMetrics", "nodes", ClusterResourceScope);
resource!(PodMetrics, "PodMetrics", "pods", NamespaceResourceScope);
