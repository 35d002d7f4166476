//! Watches every collection of the store and hands over what changed, in one go.

use coracle_store::{ListRange, Listing, Revision, Store, StoreError, Watch, WatchEvent};

use crate::catalog::Catalog;
use crate::index::RowNumber;

/// The watches over all collections of a catalog.
pub(crate) struct Observer {
    watches: Vec<Watch>,
}

impl Observer {
    /// Starts to watch; the lists are what was there before.
    pub(crate) fn open(store: &dyn Store, catalog: &Catalog) -> Result<(Self, Vec<Listing>), StoreError> {
        let mut watches = Vec::with_capacity(catalog.rows.len());
        let mut listings = Vec::with_capacity(catalog.rows.len());
        for row in &catalog.rows {
            let (listing, watch) = store.list_and_watch(&row.collection, &ListRange::all())?;
            watches.push(watch);
            listings.push(listing);
        }
        Ok((Self { watches }, listings))
    }

    /// Everything that changed up to now, and the revision up to which that is complete.
    pub(crate) fn drain(&mut self, store: &dyn Store) -> Result<(Vec<(RowNumber, WatchEvent)>, Revision), StoreError> {
        // Taken first: what is visible by now is in the watches by now.
        let revision = store.revision();
        let mut changes = Vec::new();
        for (row, watch) in self.watches.iter_mut().enumerate() {
            loop {
                let events = watch.try_next()?;
                if events.is_empty() {
                    break;
                }
                changes.extend(events.into_iter().map(|event| (row, event)));
            }
        }
        Ok((changes, revision))
    }
}
