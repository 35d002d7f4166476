//! What nodes use, as metrics-server tells it.

use crate::duration;
use crate::kind::{Info, Resource, Storage};
use crate::metrics::{NodeMetrics, Usage, Window};
use crate::table::{Cell, Column};

/// The columns of metrics-server's tables: the resources by name, between the object's name and the window.
pub(super) const COLUMNS: &[Column] = &[
    Column { description: "Name of the resource", ..Column::NAME },
    Column { format: "quantity", ..Column::text("cpu", "") },
    Column { format: "quantity", ..Column::text("memory", "") },
    Column { format: "duration", ..Column::text("Window", "") },
];

pub(super) fn cells(name: Option<&str>, usage: &Usage, window: Window) -> Vec<Cell> {
    let amount = |name: &str| usage.get(name).map_or_else(|| "0".to_owned(), |quantity| quantity.0.clone());
    vec![
        name.unwrap_or_default().into(),
        amount("cpu").into(),
        amount("memory").into(),
        duration::format(window.nanoseconds).into(),
    ]
}

impl Resource for NodeMetrics {
    const INFO: Info = Info {
        storage: Storage::Measured,
        columns: COLUMNS,
        has_delete_collection: false,
        is_followed: false,
        // metrics-server gives no singular: what `kubectl get` knows is `nodemetrics`, from the kind.
        ..Info::cluster("nodes", "")
    };

    fn row(&self, _now: jiff::Timestamp) -> Vec<Cell> {
        cells(self.metadata.name.as_deref(), &self.usage, self.window)
    }
}
