//! Memory of one container's instances, counted together against its limit. Going over it traps with
//! [`MemoryLimitExceeded`], so that an end for want of memory is told apart from any other trap.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use wasmtime::ResourceLimiter;

/// Most elements of one table: what the pool's slots hold.
pub(crate) const MAX_TABLE_ELEMENTS: usize = 65_536;

/// Bytes that one table element takes on a 64-bit host.
const TABLE_ELEMENT_BYTES: u64 = 8;

/// Memory in use by all instances of one container.
#[derive(Debug)]
pub struct MemoryBudget {
    limit_bytes: u64,
    used_bytes: AtomicU64,
}

impl MemoryBudget {
    /// A budget; `None` is no limit.
    pub fn new(limit_bytes: Option<u64>) -> Arc<Self> {
        Arc::new(Self { limit_bytes: limit_bytes.unwrap_or(u64::MAX), used_bytes: AtomicU64::new(0) })
    }

    /// Bytes of linear memory and tables that live instances hold.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: u64) -> Result<(), MemoryLimitExceeded> {
        let taken = self.used_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(bytes).filter(|total| *total <= self.limit_bytes)
        });
        taken.map(|_| ()).map_err(|used_bytes| MemoryLimitExceeded {
            limit_bytes: self.limit_bytes,
            wanted_bytes: used_bytes.saturating_add(bytes),
        })
    }

    fn give_back(&self, bytes: u64) {
        let before = self.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
        assert!(before >= bytes, "memory given back was taken before");
    }
}

/// The error an instance traps with when its container's limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryLimitExceeded {
    /// The container's limit.
    pub limit_bytes: u64,
    /// What its instances would have held together.
    pub wanted_bytes: u64,
}

impl fmt::Display for MemoryLimitExceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "memory limit of {} bytes exceeded: {} bytes wanted", self.limit_bytes, self.wanted_bytes)
    }
}

impl std::error::Error for MemoryLimitExceeded {}

/// The limiter of one store: takes from the container's budget and gives everything back when it is dropped.
#[derive(Debug)]
pub struct StoreLimiter {
    budget: Arc<MemoryBudget>,
    held_bytes: u64,
    /// The growth allowed last, which is undone when the engine says that it failed after all.
    pending_bytes: u64,
}

impl StoreLimiter {
    /// A limiter that draws on `budget`.
    pub fn new(budget: Arc<MemoryBudget>) -> Self {
        Self { budget, held_bytes: 0, pending_bytes: 0 }
    }

    fn grow(&mut self, bytes: u64) -> wasmtime::Result<bool> {
        self.budget.take(bytes)?;
        self.held_bytes += bytes;
        self.pending_bytes = bytes;
        Ok(true)
    }

    fn undo(&mut self) {
        self.budget.give_back(self.pending_bytes);
        self.held_bytes -= self.pending_bytes;
        self.pending_bytes = 0;
    }
}

impl Drop for StoreLimiter {
    fn drop(&mut self) {
        self.budget.give_back(self.held_bytes);
    }
}

impl ResourceLimiter for StoreLimiter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        self.pending_bytes = 0;
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        self.grow((desired - current) as u64)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        tracing::debug!("memory growth failed: {error:#}");
        self.undo();
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        self.pending_bytes = 0;
        if desired > MAX_TABLE_ELEMENTS || maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        self.grow((desired - current) as u64 * TABLE_ELEMENT_BYTES)
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        tracing::debug!("table growth failed: {error:#}");
        self.undo();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 65_536;

    #[test]
    fn instances_of_a_container_share_its_limit() {
        let budget = MemoryBudget::new(Some(3 * PAGE as u64));
        let mut first = StoreLimiter::new(budget.clone());
        let mut second = StoreLimiter::new(budget.clone());
        assert!(first.memory_growing(0, 2 * PAGE, None).unwrap());
        assert!(second.memory_growing(0, PAGE, None).unwrap());
        let error = second.memory_growing(PAGE, 2 * PAGE, None).unwrap_err();
        let exceeded = error.downcast_ref::<MemoryLimitExceeded>().expect("the trap says that memory ran out");
        assert_eq!(*exceeded, MemoryLimitExceeded { limit_bytes: 3 * 65_536, wanted_bytes: 4 * 65_536 });
        drop(first);
        assert_eq!(budget.used_bytes(), PAGE as u64);
        assert!(second.memory_growing(PAGE, 3 * PAGE, None).unwrap());
        drop(second);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn a_module_s_own_maximum_is_no_trap() {
        let budget = MemoryBudget::new(None);
        let mut limiter = StoreLimiter::new(budget.clone());
        assert!(!limiter.memory_growing(0, 2 * PAGE, Some(PAGE)).unwrap());
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn a_growth_that_failed_is_given_back() {
        let budget = MemoryBudget::new(None);
        let mut limiter = StoreLimiter::new(budget.clone());
        assert!(limiter.memory_growing(0, PAGE, None).unwrap());
        assert!(limiter.memory_growing(PAGE, 3 * PAGE, None).unwrap());
        limiter.memory_grow_failed(wasmtime::format_err!("no memory")).unwrap();
        assert_eq!(budget.used_bytes(), PAGE as u64);
    }
}
