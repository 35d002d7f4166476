//! What pods use, as metrics-server tells it.

use super::node_metrics::{COLUMNS, cells};
use crate::kind::{Info, Resource, Storage};
use crate::metrics::{PodMetrics, Usage};
use crate::quantity::Amount;
use crate::table::Cell;

impl Resource for PodMetrics {
    const INFO: Info = Info {
        storage: Storage::Measured,
        columns: COLUMNS,
        has_delete_collection: false,
        is_followed: false,
        ..Info::namespaced("pods", "")
    };

    fn row(&self, _now: jiff::Timestamp) -> Vec<Cell> {
        let sum = |name: &str| {
            let amounts = self.containers.iter().filter_map(|container| Amount::of(container.usage.get(name)?).ok());
            amounts.fold(Amount::ZERO, |sum, amount| sum + amount).to_quantity()
        };
        let usage: Usage = ["cpu", "memory"].map(|name| (name.to_owned(), sum(name))).into();
        cells(self.metadata.name.as_deref(), &usage, self.window)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_is_the_sum_of_the_containers() {
        let of = |name: &str, cpu: &str, memory: &str| json!({"name": name, "usage": {"cpu": cpu, "memory": memory}});
        let text = json!({
            "kind": "PodMetrics", "apiVersion": "metrics.k8s.io/v1beta1", "metadata": {"name": "p", "namespace": "n"},
            "timestamp": "2026-01-01T00:00:00Z", "window": "15.5s",
            "containers": [of("a", "250m", "2Mi"), of("b", "1500000n", "512Ki")],
        });
        let metrics: PodMetrics = serde_json::from_value(text.clone()).unwrap();
        assert_eq!(serde_json::to_value(&metrics).unwrap(), text);
        let row = metrics.row(jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(row, [json!("p"), json!("251500u"), json!("2560Ki"), json!("15.5s")]);
    }
}
