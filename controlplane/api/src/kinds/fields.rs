//! Optional fields as Kubernetes sees them: unset, empty, zero and `false` are the same wherever Go writes `omitempty`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::quantity::Amount;

/// Amounts by the name of their resource.
pub(crate) type ResourceList = BTreeMap<String, Quantity>;

/// The text, empty when unset.
pub(crate) fn text(field: &Option<String>) -> &str {
    field.as_deref().unwrap_or_default()
}

/// The elements, none when unset.
pub(crate) fn list<T>(field: &Option<Vec<T>>) -> &[T] {
    field.as_deref().unwrap_or_default()
}

/// Whether a flag is set to true.
pub(crate) fn is_true(field: Option<bool>) -> bool {
    field == Some(true)
}

/// A value Go leaves out of the text when it is empty.
pub(crate) trait Blank {
    fn is_blank(&self) -> bool;
}
impl Blank for bool {
    fn is_blank(&self) -> bool {
        !*self
    }
}
impl Blank for i32 {
    fn is_blank(&self) -> bool {
        *self == 0
    }
}
impl Blank for String {
    fn is_blank(&self) -> bool {
        self.is_empty()
    }
}
impl<T> Blank for Vec<T> {
    fn is_blank(&self) -> bool {
        self.is_empty()
    }
}
impl<K, V> Blank for BTreeMap<K, V> {
    fn is_blank(&self) -> bool {
        self.is_empty()
    }
}

/// Unsets each field that is empty, so that two ways to write the same object are one.
macro_rules! omit_empty {
    ($($field:expr),+ $(,)?) => {
        $(if $field.as_ref().is_some_and($crate::kinds::fields::Blank::is_blank) {
            $field = None;
        })+
    };
}
pub(crate) use omit_empty;

/// Sets a field that is unset or empty.
pub(crate) fn default_to(field: &mut Option<String>, value: &str) {
    if field.as_ref().is_none_or(String::is_empty) {
        *field = Some(value.to_owned());
    }
}

/// Sets a number that is unset or 0.
pub(crate) fn default_number(field: &mut Option<i32>, value: i32) {
    if field.unwrap_or_default() == 0 {
        *field = Some(value);
    }
}

/// Writes a quantity in its canonical form. What is no quantity stays, for validation to name.
pub(crate) fn canonical(quantity: &mut Quantity) {
    if let Ok(amount) = Amount::of(quantity) {
        let text = amount.to_string();
        if text != quantity.0 {
            quantity.0 = text;
        }
    }
}

/// The same for amounts of resources, which have at most thousandths (`SetDefaults_ResourceList`).
pub(crate) fn canonical_resources(resources: Option<&mut ResourceList>) {
    for quantity in resources.into_iter().flat_map(BTreeMap::values_mut) {
        if let Ok(amount) = Amount::of(quantity) {
            let rounded = if amount.nano() % 1_000_000 == 0 { amount } else { Amount::from_milli(amount.milli()) };
            let text = rounded.to_string();
            if text != quantity.0 {
                quantity.0 = text;
            }
        }
    }
}
