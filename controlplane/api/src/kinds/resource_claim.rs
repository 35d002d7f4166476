//! ResourceClaim: devices asked for, and those that were given.

use k8s_openapi::api::resource::v1::{
    AllocatedDeviceStatus, AllocationResult, DeviceRequest, DeviceRequestAllocationResult, NetworkDeviceData,
    ResourceClaim, ResourceClaimConsumerReference, ResourceClaimStatus,
};

use super::devices::{
    Bound, MAX_OF_CLAIM, Seen, default_claim, validate_binding_conditions, validate_claim, validate_configuration,
    validate_list, validate_pool, validate_raw, validate_reference, validate_references, validate_set,
    validate_tolerations, validate_uuid,
};
use super::fields::{list, text};
use super::meta::{age_cell, name_cell, status_apart};
use super::pod::validate_node_selector;
use super::volume::validate_driver;
use crate::kind::{Info, Resource, Subresource};
use crate::table::{Cell, Column};
use crate::validation::{
    Errors, IMMUTABLE, Path, Shown, dns1123_label, json, validate_conditions, validate_interface_address,
};

const MAX_CONSUMERS: usize = 256;
const MAX_DEVICE_CONDITIONS: usize = 8;
const MAX_INTERFACE_NAME: usize = 256;
const MAX_HARDWARE_ADDRESS: usize = 128;
const MAX_IPS: usize = 16;

impl Resource for ResourceClaim {
    const INFO: Info = Info {
        subresources: &[Subresource::Status],
        columns: &[
            Column::NAME,
            Column::text("State", "A summary of the current state (allocated, pending, reserved, etc.)."),
            Column::AGE,
        ],
        is_acted_on: false,
        ..Info::namespaced("resourceclaims", "resourceclaim")
    };

    fn apply_defaults(&mut self) {
        if let Some(claim) = &mut self.spec.devices {
            default_claim(claim);
        }
    }

    fn prepare_create(&mut self) {
        self.status = Some(ResourceClaimStatus::default());
    }

    status_apart!();

    fn validate_create(&self, errors: &mut Errors) {
        if let Some(claim) = &self.spec.devices {
            let at = Path::new("spec");
            validate_claim(claim, &at.child("devices"), errors);
        }
    }

    // A claim that cannot change needs no other rule.
    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        if self.spec != old.spec {
            errors.invalid(&Path::new("spec"), json(&self.spec), IMMUTABLE);
        }
    }

    fn validate_status_update(&self, old: &Self, errors: &mut Errors) {
        let empty = ResourceClaimStatus::default();
        let status = self.status.as_ref().unwrap_or(&empty);
        let old_status = old.status.as_ref().unwrap_or(&empty);
        let at = Path::new("status");
        let consumers = list(&status.reserved_for);
        let consumers_at = at.child("reservedFor");
        validate_set(consumers, Bound::AtMost(MAX_CONSUMERS), |c| &c.uid, &consumers_at, errors, validate_consumer);
        let given: Vec<DeviceId<'_>> = allocated(status).iter().map(DeviceId::from).collect();
        validate_set(
            list(&status.devices),
            Bound::None,
            DeviceId::from,
            &at.child("devices"),
            errors,
            |d, at, errors| {
                validate_device(d, &given, at, errors);
            },
        );
        if !consumers.is_empty() && status.allocation.is_none() {
            errors.forbidden(&consumers_at, "may not be specified when `allocated` is not set");
        } else if self.metadata.deletion_timestamp.is_some() {
            let had = list(&old_status.reserved_for);
            if consumers.iter().any(|c| !had.contains(c)) {
                let why = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
                errors.forbidden(&consumers_at, why);
            }
        }
        let requests = self.spec.devices.as_ref().map(|d| list(&d.requests)).unwrap_or_default();
        match (&status.allocation, &old_status.allocation) {
            (Some(new), Some(old)) if new != old => errors.invalid(&at.child("allocation"), json(new), IMMUTABLE),
            (Some(new), None) => validate_allocation(new, requests, &at.child("allocation"), errors),
            _ => {}
        }
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        vec![name_cell(&self.metadata), state(self).into(), age_cell(&self.metadata, now)]
    }
}

fn state(claim: &ResourceClaim) -> String {
    let mut states = Vec::new();
    let deleted = claim.metadata.deletion_timestamp.is_some();
    if deleted {
        states.push("deleted");
    }
    let status = claim.status.as_ref();
    if status.is_some_and(|s| s.allocation.is_some()) {
        states.push("allocated");
        let reserved = status.is_some_and(|s| !list(&s.reserved_for).is_empty());
        states.extend(reserved.then_some("reserved"));
    } else if !deleted {
        states.push("pending");
    }
    states.join(",")
}

fn allocated(status: &ResourceClaimStatus) -> &[DeviceRequestAllocationResult] {
    let devices = status.allocation.as_ref().and_then(|a| a.devices.as_ref());
    devices.map(|d| list(&d.results)).unwrap_or_default()
}

/// What tells one device from another, or one share of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct DeviceId<'a> {
    driver: &'a str,
    pool: &'a str,
    device: &'a str,
    share: Option<&'a str>,
}

impl<'a> From<&'a DeviceRequestAllocationResult> for DeviceId<'a> {
    fn from(r: &'a DeviceRequestAllocationResult) -> Self {
        Self { driver: &r.driver, pool: &r.pool, device: &r.device, share: r.share_id.as_deref() }
    }
}

impl<'a> From<&'a AllocatedDeviceStatus> for DeviceId<'a> {
    fn from(d: &'a AllocatedDeviceStatus) -> Self {
        Self { driver: &d.driver, pool: &d.pool, device: &d.device, share: d.share_id.as_deref() }
    }
}

impl Shown for DeviceId<'_> {
    fn shown(&self) -> String {
        let Self { driver, pool, device, share } = self;
        let share = share.map(|s| format!("/{s}")).unwrap_or_default();
        format!("{driver}/{pool}/{device}{share}").shown()
    }
}

fn validate_consumer(consumer: &ResourceClaimConsumerReference, at: &Path<'_>, errors: &mut Errors) {
    for (field, value) in [("resource", &consumer.resource), ("name", &consumer.name), ("uid", &consumer.uid)] {
        if value.is_empty() {
            errors.required(&at.child(field), "");
        }
    }
}

fn validate_device(device: &AllocatedDeviceStatus, given: &[DeviceId<'_>], at: &Path<'_>, errors: &mut Errors) {
    validate_driver(&device.driver, &at.child("driver"), errors);
    validate_pool(&device.pool, &at.child("pool"), errors);
    errors.invalid_each(&at.child("device"), &device.device, dns1123_label(&device.device));
    if let Some(share) = &device.share_id {
        validate_uuid(share, &at.child("shareID"), errors);
    }
    let id = DeviceId::from(device);
    if !given.contains(&id) {
        errors.invalid(at, id, "must be an allocated device in the claim");
    }
    let conditions = list(&device.conditions);
    if conditions.len() > MAX_DEVICE_CONDITIONS {
        errors.too_many(&at.child("conditions"), conditions.len(), MAX_DEVICE_CONDITIONS);
    }
    validate_conditions(conditions, &at.child("conditions"), errors);
    if let Some(data) = &device.data {
        validate_raw(data, Seen::New, &at.child("data"), errors);
    }
    if let Some(network) = &device.network_data {
        validate_network(network, &at.child("networkData"), errors);
    }
}

fn validate_network(network: &NetworkDeviceData, at: &Path<'_>, errors: &mut Errors) {
    for (field, value, most) in [
        ("interfaceName", text(&network.interface_name), MAX_INTERFACE_NAME),
        ("hardwareAddress", text(&network.hardware_address), MAX_HARDWARE_ADDRESS),
    ] {
        if value.len() > most {
            errors.too_long(&at.child(field), most);
        }
    }
    validate_set(
        list(&network.ips),
        Bound::AtMost(MAX_IPS),
        |ip| ip,
        &at.child("ips"),
        errors,
        |ip, at, errors| {
            validate_interface_address(ip, at, errors);
        },
    );
}

fn validate_allocation(allocation: &AllocationResult, requests: &[DeviceRequest], at: &Path<'_>, errors: &mut Errors) {
    if let Some(devices) = &allocation.devices {
        let at = at.child("devices");
        let most = Bound::AtMost(MAX_OF_CLAIM);
        validate_list(list(&devices.results), most, &at.child("results"), errors, |result, at, errors| {
            validate_result(result, requests, at, errors);
        });
        // Those of the class and those of the claim.
        let most = Bound::AtMost(2 * MAX_OF_CLAIM);
        validate_list(list(&devices.config), most, &at.child("config"), errors, |config, at, errors| {
            match config.source.as_str() {
                "FromClaim" | "FromClass" => {}
                "" => errors.required(&at.child("source"), ""),
                other => errors.not_supported(&at.child("source"), other, &["FromClaim", "FromClass"]),
            }
            validate_references(list(&config.requests), requests, &at.child("requests"), errors);
            validate_configuration(config.opaque.as_ref(), Seen::New, at, errors);
        });
    }
    if let Some(selector) = &allocation.node_selector {
        validate_node_selector(selector, &at.child("nodeSelector"), errors);
    }
}

fn validate_result(
    result: &DeviceRequestAllocationResult,
    requests: &[DeviceRequest],
    at: &Path<'_>,
    errors: &mut Errors,
) {
    validate_reference(&result.request, requests, &at.child("request"), errors);
    validate_driver(&result.driver, &at.child("driver"), errors);
    validate_pool(&result.pool, &at.child("pool"), errors);
    errors.invalid_each(&at.child("device"), &result.device, dns1123_label(&result.device));
    let (good, bad) = (list(&result.binding_conditions), list(&result.binding_failure_conditions));
    validate_binding_conditions(good, bad, at, errors);
    validate_tolerations(list(&result.tolerations), &at.child("tolerations"), errors);
    if let Some(share) = &result.share_id {
        validate_uuid(share, &at.child("shareID"), errors);
    }
}
