//! ResourceSlice: devices a driver offers, or counters its devices share.

mod device;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use k8s_openapi::api::resource::v1::{CounterSet, Device, ResourcePool, ResourceSlice, ResourceSliceSpec};

use super::devices::{Bound, validate_pool, validate_set};
use super::fields::{list, text};
use super::meta::{age_cell, name_cell};
use super::pod::validate_node_selector;
use super::volume::validate_driver;
use crate::kind::{Info, Resource};
use crate::table::{Cell, Column};
use crate::validation::{Errors, IMMUTABLE, Path, dns1123_subdomain, json};

const MAX_DEVICES: usize = 128;
/// The same where a device has taints, lists of values, or consumes counters.
const MAX_RICH_DEVICES: usize = 64;
const MAX_COUNTER_SETS: usize = 8;
const ONE_PLACE: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";

impl Resource for ResourceSlice {
    const INFO: Info = Info {
        selectable_fields: &["spec.driver", "spec.nodeName"],
        columns: &[
            Column::NAME,
            Column::text(
                "Node",
                "NodeName identifies the node which provides the resources in this pool. A field selector can be used to list only ResourceSlice objects belonging to a certain node.",
            ),
            Column::text(
                "Driver",
                "Driver identifies the DRA driver providing the capacity information. A field selector can be used to list only ResourceSlice objects with a certain driver name.",
            ),
            Column::text(
                "Pool",
                "Name is used to identify the pool. For node-local devices, this is often the node name, but this is not required.",
            ),
            Column::AGE,
        ],
        has_generation: true,
        is_acted_on: false,
        ..Info::cluster("resourceslices", "resourceslice")
    };

    fn apply_defaults(&mut self) {
        let devices = self.spec.devices.iter_mut().flatten();
        for mapping in devices.flat_map(|d| d.node_allocatable_resource_mappings.iter_mut().flatten()) {
            mapping.1.allocation_multiplier.get_or_insert_with(device::one);
        }
    }

    /// A taint begins when the device is first seen with it.
    fn prepare_create(&mut self) {
        let created = self.metadata.creation_timestamp.clone();
        let devices = self.spec.devices.iter_mut().flatten();
        for taint in devices.flat_map(|d| d.taints.iter_mut().flatten()) {
            if taint.time_added.is_none() {
                taint.time_added.clone_from(&created);
            }
        }
    }

    fn spec_changed(&self, old: &Self) -> bool {
        self.spec != old.spec
    }

    fn validate(&self, errors: &mut Errors) {
        let (spec, at) = (&self.spec, Path::new("spec"));
        validate_driver(&spec.driver, &at.child("driver"), errors);
        validate_resource_pool(&spec.pool, &at.child("pool"), errors);
        validate_place(spec, &at, errors);
        if spec.shared_counters.is_some() && spec.devices.is_some() {
            errors.invalid(&at, "", "only one of `sharedCounters` or `devices` is allowed");
        }
        let counters = list(&spec.shared_counters);
        let most = Bound::AtMost(MAX_COUNTER_SETS);
        validate_set(counters, most, |set| &set.name, &at.child("sharedCounters"), errors, validate_counter_set);
    }

    fn validate_create(&self, errors: &mut Errors) {
        validate_devices(&self.spec, None, errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let (spec, old, at) = (&self.spec, &old.spec, Path::new("spec"));
        if spec.pool.name != old.pool.name {
            errors.invalid(&at.child("pool").child("name"), &spec.pool.name, IMMUTABLE);
        }
        if spec.driver != old.driver {
            errors.invalid(&at.child("driver"), &spec.driver, IMMUTABLE);
        }
        if spec.node_name != old.node_name {
            errors.invalid(&at.child("nodeName"), json(&spec.node_name), IMMUTABLE);
        }
        validate_devices(spec, Some(old), errors);
    }

    fn selectable_field(&self, name: &str) -> Cow<'_, str> {
        Cow::Borrowed(match name {
            "spec.driver" => &self.spec.driver,
            "spec.nodeName" => text(&self.spec.node_name),
            _ => "",
        })
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        vec![
            name_cell(&self.metadata),
            json(&self.spec.node_name),
            self.spec.driver.clone().into(),
            self.spec.pool.name.clone().into(),
            age_cell(&self.metadata, now),
        ]
    }
}

fn validate_resource_pool(pool: &ResourcePool, at: &Path<'_>, errors: &mut Errors) {
    validate_pool(&pool.name, &at.child("name"), errors);
    if pool.resource_slice_count <= 0 {
        errors.invalid(&at.child("resourceSliceCount"), pool.resource_slice_count, "must be greater than zero");
    }
    if pool.generation < 0 {
        errors.invalid(&at.child("generation"), pool.generation, "must be greater than or equal to zero");
    }
}

/// Where the devices are: on one node, on some, on all, or each for itself.
fn validate_place(spec: &ResourceSliceSpec, at: &Path<'_>, errors: &mut Errors) {
    let mut set = Vec::new();
    match spec.node_name.as_deref() {
        None => {}
        Some("") => errors.invalid(&at.child("nodeName"), "", "must be either unset or set to a non-empty string"),
        Some(name) => {
            set.push("`nodeName`");
            errors.invalid_each(&at.child("nodeName"), name, dns1123_subdomain(name));
        }
    }
    if let Some(selector) = &spec.node_selector {
        set.push("`nodeSelector`");
        let at = at.child("nodeSelector");
        validate_node_selector(selector, &at, errors);
        if selector.node_selector_terms.len() != 1 {
            let terms = json(&selector.node_selector_terms);
            errors.invalid(&at.child("nodeSelectorTerms"), terms, "must have exactly one node selector term");
        }
    }
    for (field, shown, flag) in [
        ("allNodes", "`allNodes`", spec.all_nodes),
        ("perDeviceNodeSelection", "`perDeviceNodeSelection`", spec.per_device_node_selection),
    ] {
        match flag {
            None => {}
            Some(true) => set.push(shown),
            Some(false) => errors.invalid(&at.child(field), false, "must be either unset or set to true"),
        }
    }
    match set.len() {
        0 => errors.required(at, ONE_PLACE),
        1 => {}
        _ => {
            let shown = format!("{{{}}}", set.join(", "));
            errors.invalid(at, shown, format!("{ONE_PLACE}, but multiple fields are set"));
        }
    }
}

fn validate_counter_set(set: &CounterSet, at: &Path<'_>, errors: &mut Errors) {
    device::validate_counter_name(&set.name, &at.child("name"), errors);
    device::validate_counters(&set.counters, &at.child("counters"), errors);
}

fn validate_devices(spec: &ResourceSliceSpec, old: Option<&ResourceSliceSpec>, errors: &mut Errors) {
    let root = Path::new("spec");
    let at = root.child("devices");
    let devices = list(&spec.devices);
    let most = if devices.iter().any(is_rich) { MAX_RICH_DEVICES } else { MAX_DEVICES };
    let each = spec.per_device_node_selection == Some(true);
    let place = if each { device::Place::PerDevice } else { device::Place::OfSlice };
    validate_set(
        devices,
        Bound::AtMost(most),
        |d| &d.name,
        &at,
        errors,
        |device, at, errors| {
            let old = old.and_then(|old| list(&old.devices).iter().find(|d| d.name == device.name));
            device::validate(device, old, place, at, errors);
        },
    );
}

fn is_rich(device: &Device) -> bool {
    let lists = device
        .attributes
        .iter()
        .flatten()
        .any(|(_, a)| a.bools.is_some() || a.ints.is_some() || a.strings.is_some() || a.versions.is_some());
    lists || !list(&device.taints).is_empty() || !list(&device.consumes_counters).is_empty()
}
