//! Writes `src/openapi/definitions.json.z` of `coracle-api`: the definitions of every type the API serves, as OpenAPI v2
//! has them, from the JSON schemas of `k8s-openapi`. With `--check` it writes nothing and fails if the file is stale.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::{
    admissionregistration, apps, authentication, authorization, autoscaling, batch, certificates, coordination, core,
    discovery, events, flowcontrol, networking, node, policy, rbac, resource, scheduling, storage,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use schema::Strategy;

// The table of merge keys, shared as text: this program must build while the file it writes is absent or stale.
#[allow(dead_code)]
#[path = "../../src/patch/schema.rs"]
mod schema;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

fn main() -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../src/openapi/definitions.json.z");
    let text = serde_json::to_vec(&definitions()?)?;
    if std::env::args().any(|a| a == "--check") {
        let mut stored = Vec::new();
        flate2::read::ZlibDecoder::new(std::fs::File::open(&path)?).read_to_end(&mut stored)?;
        ensure!(stored == text, "{} is stale: run this program without --check", path.display());
        return Ok(());
    }
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&text)?;
    let packed = encoder.finish()?;
    println!("{} bytes, {} packed", text.len(), packed.len());
    std::fs::write(&path, packed).with_context(|| format!("write {}", path.display()))
}

fn definitions() -> Result<BTreeMap<String, Value>> {
    let mut generator = SchemaSettings::openapi3().with(|s| s.definitions_path = "/definitions".into()).into_generator();
    let mut lists = BTreeMap::new();
    add_kinds(&mut generator, &mut lists);
    add_others(&mut generator);
    let mut all: BTreeMap<String, Value> =
        generator.take_definitions(false).into_iter().map(|(name, schema)| {
            let fixed = fix(&name, schema);
            (name, fixed)
        }).collect();
    for (name, item) in lists {
        all.insert(name.clone(), list(&name, &item));
    }
    // `k8s-openapi` has no `metrics.k8s.io`: these are of `k8s.io/metrics`, as metrics-server serves them.
    let metrics: BTreeMap<String, Value> = serde_json::from_str(include_str!("../metrics.json"))?;
    all.extend(metrics);
    add_markers(&mut all)?;
    add_patch_strategies(&mut all)?;
    Ok(all)
}

fn add_kinds(g: &mut SchemaGenerator, lists: &mut BTreeMap<String, String>) {
    macro_rules! kinds {
        ($($t:ty),* $(,)?) => {$(
            g.subschema_for::<$t>();
            let name = <$t as schemars::JsonSchema>::schema_name().into_owned();
            lists.insert(format!("{name}List"), name);
        )*};
    }
    kinds![
        core::v1::ConfigMap, core::v1::Endpoints, core::v1::Event, core::v1::LimitRange, core::v1::Namespace,
        core::v1::Node, core::v1::PersistentVolumeClaim, core::v1::PersistentVolume, core::v1::Pod,
        core::v1::PodTemplate, core::v1::ReplicationController, core::v1::ResourceQuota, core::v1::Secret,
        core::v1::ServiceAccount, core::v1::Service, apiregistration::v1::APIService, apps::v1::ControllerRevision,
        apps::v1::DaemonSet, apps::v1::Deployment, apps::v1::ReplicaSet, apps::v1::StatefulSet, events::v1::Event,
        autoscaling::v1::HorizontalPodAutoscaler, autoscaling::v2::HorizontalPodAutoscaler, batch::v1::CronJob,
        batch::v1::Job, certificates::v1::CertificateSigningRequest, networking::v1::IngressClass,
        networking::v1::Ingress, networking::v1::IPAddress, networking::v1::NetworkPolicy, networking::v1::ServiceCIDR,
        policy::v1::PodDisruptionBudget, rbac::v1::ClusterRoleBinding, rbac::v1::ClusterRole, rbac::v1::RoleBinding,
        rbac::v1::Role, storage::v1::CSIDriver, storage::v1::CSINode, storage::v1::CSIStorageCapacity,
        storage::v1::StorageClass, storage::v1::VolumeAttachment, storage::v1::VolumeAttributesClass,
        admissionregistration::v1::MutatingAdmissionPolicy, admissionregistration::v1::MutatingAdmissionPolicyBinding,
        admissionregistration::v1::MutatingWebhookConfiguration, admissionregistration::v1::ValidatingAdmissionPolicy,
        admissionregistration::v1::ValidatingAdmissionPolicyBinding,
        admissionregistration::v1::ValidatingWebhookConfiguration, apiextensions::v1::CustomResourceDefinition,
        scheduling::v1::PriorityClass, coordination::v1::Lease, node::v1::RuntimeClass, discovery::v1::EndpointSlice,
        resource::v1::DeviceClass, resource::v1::ResourceClaim, resource::v1::ResourceClaimTemplate,
        resource::v1::ResourceSlice, flowcontrol::v1::FlowSchema, flowcontrol::v1::PriorityLevelConfiguration,
    ];
}

fn add_others(g: &mut SchemaGenerator) {
    macro_rules! others {
        ($($t:ty),* $(,)?) => {$(g.subschema_for::<$t>();)*};
    }
    others![
        authentication::v1::SelfSubjectReview, authentication::v1::TokenReview, authentication::v1::TokenRequest,
        authorization::v1::LocalSubjectAccessReview, authorization::v1::SelfSubjectAccessReview,
        authorization::v1::SelfSubjectRulesReview, authorization::v1::SubjectAccessReview, autoscaling::v1::Scale,
        core::v1::Binding, policy::v1::Eviction, meta::APIGroup, meta::APIGroupList, meta::APIResourceList,
        meta::APIVersions, meta::DeleteOptions, meta::Status, meta::ListMeta,
        k8s_openapi::apimachinery::pkg::version::Info,
    ];
    // `Patch` and `WatchEvent` have no schema of their own there; they are added below as upstream has them.
}

/// What differs between `k8s-openapi`'s schemas and upstream's definitions.
fn fix(name: &str, mut schema: Value) -> Value {
    match name.rsplit('.').next() {
        Some("IntOrString") => {
            return json!({"description": schema["description"], "type": "string", "format": "int-or-string"});
        }
        Some("Quantity") => return json!({"description": schema["description"], "type": "string"}),
        _ => {}
    }
    // A JSON value of any type: upstream gives no type.
    if name.ends_with(".JSON") || name.contains("JSONSchemaPropsOr") {
        return json!({"description": schema["description"]});
    }
    rename_formats(&mut schema);
    schema
}

fn rename_formats(value: &mut Value) {
    if let Value::Object(fields) = value {
        // Of JSON schemas themselves it is the name of a property.
        if fields.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
            fields.remove("x-kubernetes-int-or-string");
            fields.insert("type".to_owned(), json!("string"));
        }
        fields.values_mut().for_each(rename_formats);
    }
    if let Value::Array(items) = value {
        items.iter_mut().for_each(rename_formats);
    }
}

fn list(name: &str, item: &str) -> Value {
    let kind = name.rsplit('.').next().unwrap_or(name);
    json!({
        "description": format!("{kind} is a collection of {} objects.", kind.trim_end_matches("List")),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"description": "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources", "type": "string"},
            "items": {"description": "items is the list of objects.", "type": "array", "items": {"$ref": format!("#/definitions/{item}")}},
            "kind": {"description": "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds", "type": "string"},
            "metadata": {"$ref": format!("#/definitions/{META}.ListMeta"), "description": "Standard list metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds"},
        },
    })
}

fn property<'a>(all: &'a mut BTreeMap<String, Value>, name: &str, field: &str) -> Option<&'a mut Map<String, Value>> {
    let definition = all.get_mut(name)?;
    if field.is_empty() { definition.as_object_mut() } else { definition["properties"].get_mut(field)?.as_object_mut() }
}

fn add_markers(all: &mut BTreeMap<String, Value>) -> Result<()> {
    all.insert(
        format!("{META}.Patch"),
        json!({"description": "Patch is provided to give a concrete name and type to the Kubernetes PATCH request body.", "type": "object"}),
    );
    for line in include_str!("../markers.tsv").lines().filter(|l| !l.starts_with('#')) {
        let [name, field, marker, value] = line.split('\t').collect::<Vec<_>>()[..] else { bail!("bad line {line:?}") };
        // Types that no served kind reaches have no definition.
        let Some(target) = property(all, name, field) else { continue };
        match marker {
            "atomic" | "set" => drop(target.insert("x-kubernetes-list-type".to_owned(), json!(marker))),
            "map" => {
                let keys: Vec<_> = value.split(',').collect();
                target.insert("x-kubernetes-list-type".to_owned(), json!("map"));
                target.insert("x-kubernetes-list-map-keys".to_owned(), json!(keys));
            }
            "mapAtomic" => drop(target.insert("x-kubernetes-map-type".to_owned(), json!("atomic"))),
            "enum" => {
                // Of lists and maps it is their values that are limited.
                let inner = ["items", "additionalProperties"].into_iter().find(|key| target.contains_key(*key));
                let values: Vec<Value> = serde_json::from_str(value)?;
                match inner {
                    None => drop(target.insert("enum".to_owned(), values.into())),
                    Some(key) => target[key]["enum"] = values.into(),
                }
            }
            "default" => drop(target.insert("default".to_owned(), serde_json::from_str(value)?)),
            other => bail!("unknown marker {other}"),
        }
    }
    Ok(())
}

fn add_patch_strategies(all: &mut BTreeMap<String, Value>) -> Result<()> {
    for ty in schema::types() {
        let suffix = format!(".{}", ty.name);
        let names: Vec<String> = all.keys().filter(|n| n.ends_with(&suffix)).cloned().collect();
        for field in ty.fields {
            let (strategy, key) = match field.strategy {
                Strategy::Plain if field.retain_keys => ("retainKeys", None),
                Strategy::Plain => continue,
                Strategy::Replace => ("replace", None),
                Strategy::MergeSet => ("merge", None),
                Strategy::MergeBy(key) if field.retain_keys => ("merge,retainKeys", Some(key)),
                Strategy::MergeBy(key) => ("merge", Some(key)),
            };
            let mut found = false;
            for name in &names {
                let Some(target) = property(all, name, field.name) else { continue };
                found = true;
                target.insert("x-kubernetes-patch-strategy".to_owned(), json!(strategy));
                if let Some(key) = key {
                    target.insert("x-kubernetes-patch-merge-key".to_owned(), json!(key));
                }
            }
            ensure!(found, "no definition has {}.{}", ty.name, field.name);
        }
    }
    Ok(())
}
