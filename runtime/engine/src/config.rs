//! The wasmtime engines of a node: Cranelift with a pool of instance slots for everything that lasts, once without and once
//! with the component model's own concurrency, and Winch for the first minutes of a big component. Settings live here and
//! nowhere else, for the compiled form depends on them.

use std::sync::{Arc, OnceLock};

use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Strategy};

use crate::{CpuAccount, CpuQuota, EngineError, budget::MAX_TABLE_ELEMENTS, busy::BusyLane, ticker::Ticker};

/// Most memories of guests at once, however much the machine allows: each reserves 4 GiB of address space, and the 128 TiB
/// of a process hold no more than about 30,000, with what else is in them.
const MAX_MEMORIES: u32 = 16_384;

/// Most memories of concurrent guests at once, beside the others.
const MAX_CONCURRENT_MEMORIES: u32 = 4096;

/// One memory in so many is for concurrent guests where the system allows few areas.
const CONCURRENT_SHARE: u32 = 20;

/// Smaller pools to try where address space is limited.
const FALLBACK_MAX_MEMORIES: [u32; 3] = [4096, 1024, 128];

/// Where the system says how many areas the address space of a process may have, and what it has by default.
const MAX_MAP_COUNT: (&str, u32) = ("/proc/sys/vm/max_map_count", 65_530);

/// Areas of an instance at work: its stack and the page that guards it, and in its memory what lies before the initial
/// data, the data, what lies behind them, and what has not been taken yet.
const AREAS_PER_INSTANCE: u32 = 6;

/// Areas left to everything else: code, threads, the allocator, files.
const OTHER_AREAS: u32 = 2048;

/// Bytes of a memory that stay resident in its slot after use, so that the next instance takes no page faults.
const KEEP_RESIDENT_BYTES: usize = 128 * 1024;

/// Slots that keep their memory mapped after use; the rest is given back to the system.
const WARM_SLOTS: u32 = 64;

/// Stack of a guest, host calls included.
const ASYNC_STACK_BYTES: usize = 1024 * 1024;

/// Part of the stack that guest code may use.
const WASM_STACK_BYTES: usize = 512 * 1024;

/// How the engines are made.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Most memories of guests at once, of those that call and are called one at a time: nearly all.
    pub max_memories: u32,
    /// Most memories of concurrent guests at once. Their pool is made when the first of them comes.
    pub max_concurrent_memories: u32,
}

impl Default for EngineOptions {
    /// As many as the system lets this process have.
    fn default() -> Self {
        let (path, otherwise) = MAX_MAP_COUNT;
        let areas = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(otherwise);
        Self::within(areas)
    }
}

impl EngineOptions {
    /// Whether no setting of the system would make the pools bigger.
    pub fn is_full(&self) -> bool {
        self.max_memories >= MAX_MEMORIES && self.max_concurrent_memories >= MAX_CONCURRENT_MEMORIES
    }

    /// Two pools of one size.
    pub fn with_memories(count: u32) -> Self {
        Self { max_memories: count, max_concurrent_memories: count }
    }

    /// What fits in so many areas of the address space. The guards of all stacks are made at once, so a pool that is too
    /// big would leave no areas for what it is to hold.
    fn within(areas: u32) -> Self {
        let smallest = FALLBACK_MAX_MEMORIES[FALLBACK_MAX_MEMORIES.len() - 1];
        let together = areas.saturating_sub(OTHER_AREAS) / AREAS_PER_INSTANCE;
        let max_memories = (together - together / CONCURRENT_SHARE).clamp(smallest, MAX_MEMORIES);
        let max_concurrent_memories = together.saturating_sub(max_memories).clamp(smallest, MAX_CONCURRENT_MEMORIES);
        Self { max_memories, max_concurrent_memories }
    }
}

/// Which engine the code is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tier {
    /// Winch: compiles five times as fast, its code runs slower. It runs every component that Winch knows.
    Quick,
    /// Cranelift, for components whose functions call and are called one at a time, which is all of WASI 0.2: they pay
    /// nothing for the bookkeeping of tasks that concurrency needs at every call.
    Optimized,
    /// Cranelift, for components that use the component model's asynchronous functions, streams and futures: WASI 0.3.
    Concurrent,
}

impl Tier {
    pub(crate) fn file_suffix(self) -> &'static str {
        match self {
            Self::Quick => "winch",
            Self::Optimized => "cranelift",
            Self::Concurrent => "cranelift-async",
        }
    }
}

/// The node's engines. Clones share them.
#[derive(Clone)]
pub struct Engines {
    inner: Arc<Inner>,
}

struct Inner {
    optimized: Engine,
    quick: OnceLock<Option<Engine>>,
    concurrent: OnceLock<Option<Engine>>,
    max_concurrent_memories: u32,
    ticker: Arc<Ticker>,
    busy: Arc<BusyLane>,
}

impl Engines {
    /// Makes the Cranelift engine with the biggest pool this machine allows, and starts the ticker.
    pub fn new(options: &EngineOptions) -> Result<Self, EngineError> {
        let ticker = Ticker::start().map_err(|source| EngineError::Io { what: "start the epoch thread", source })?;
        let optimized = pooled_engine(options.max_memories, Concurrency::No)?;
        ticker.add(&optimized);
        let max_concurrent_memories = options.max_concurrent_memories;
        let (quick, concurrent) = (OnceLock::new(), OnceLock::new());
        let busy = Arc::default();
        Ok(Self { inner: Arc::new(Inner { optimized, quick, concurrent, max_concurrent_memories, ticker, busy }) })
    }

    /// The engine of a tier. All but [`Tier::Optimized`] are made at their first use; the quick one is `None` on machines
    /// that Winch does not know.
    pub fn get(&self, tier: Tier) -> Option<&Engine> {
        match tier {
            Tier::Optimized => Some(&self.inner.optimized),
            Tier::Quick => self.inner.quick.get_or_init(|| self.quick_engine()).as_ref(),
            Tier::Concurrent => self.inner.concurrent.get_or_init(|| self.concurrent_engine()).as_ref(),
        }
    }

    /// The engine that nearly everything ends up on.
    pub fn optimized(&self) -> &Engine {
        &self.inner.optimized
    }

    /// Opens an account for the CPU time of a container.
    pub fn cpu_account(&self, quota: Option<CpuQuota>) -> Arc<CpuAccount> {
        CpuAccount::new(quota, self.inner.ticker.clone(), self.inner.busy.clone())
    }

    fn concurrent_engine(&self) -> Option<Engine> {
        match pooled_engine(self.inner.max_concurrent_memories, Concurrency::Yes) {
            Ok(engine) => {
                self.inner.ticker.add(&engine);
                Some(engine)
            }
            Err(error) => {
                tracing::warn!("no engine for concurrent components on this machine: {error}");
                None
            }
        }
    }

    fn quick_engine(&self) -> Option<Engine> {
        let mut config = base_config(Concurrency::Yes);
        config.strategy(Strategy::Winch);
        match Engine::new(&config) {
            Ok(engine) => {
                self.inner.ticker.add(&engine);
                Some(engine)
            }
            Err(error) => {
                tracing::debug!("no quick compiler on this machine: {error:#}");
                None
            }
        }
    }
}

/// Whether an engine knows the component model's asynchronous functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Concurrency {
    Yes,
    No,
}

/// Settings that all engines share.
fn base_config(concurrency: Concurrency) -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .concurrency_support(concurrency == Concurrency::Yes)
        .wasm_component_model_async(concurrency == Concurrency::Yes)
        .epoch_interruption(true)
        .async_stack_size(ASYNC_STACK_BYTES)
        .max_wasm_stack(WASM_STACK_BYTES)
        .memory_init_cow(true)
        .generate_address_map(true);
    config
}

fn pooled_engine(max_memories: u32, concurrency: Concurrency) -> Result<Engine, EngineError> {
    let smaller = FALLBACK_MAX_MEMORIES.into_iter().filter(|count| *count < max_memories);
    for count in std::iter::once(max_memories).chain(smaller) {
        let mut config = base_config(concurrency);
        config.strategy(Strategy::Cranelift);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(count)));
        match Engine::new(&config) {
            Ok(engine) => {
                tracing::debug!("room for {count} instances, {concurrency:?} concurrency");
                return Ok(engine);
            }
            Err(error) => tracing::info!("no pool of {count} instances on this machine: {error:#}"),
        }
    }
    let mut config = base_config(concurrency);
    config.strategy(Strategy::Cranelift);
    Engine::new(&config).map_err(EngineError::Engine)
}

fn pool(max_memories: u32) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    // A component has a few core modules (adapters) and tables for each memory of its own.
    pool.total_component_instances(max_memories)
        .total_core_instances(max_memories.saturating_mul(4))
        .total_memories(max_memories)
        .total_tables(max_memories.saturating_mul(2))
        .total_stacks(max_memories)
        .table_elements(MAX_TABLE_ELEMENTS)
        .max_unused_warm_slots(WARM_SLOTS)
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
        .table_keep_resident(4096)
        .decommit_batch_size(16)
        .pagemap_scan(Enabled::Auto);
    pool
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_is_as_big_as_the_machine_allows() {
        for (areas, memories, concurrent) in
            [(65_530, 10_051, 529), (262_144, 16_384, 4096), (1_048_576, 16_384, 4096), (1000, 128, 128)]
        {
            let options = EngineOptions::within(areas);
            assert_eq!((options.max_memories, options.max_concurrent_memories), (memories, concurrent), "{areas}");
        }
    }

    #[test]
    fn all_tiers_exist_here_and_differ() {
        let engines = Engines::new(&EngineOptions::default()).unwrap();
        let quick = engines.get(Tier::Quick).expect("Winch knows this machine");
        let concurrent = engines.get(Tier::Concurrent).expect("there is room for another pool");
        let optimized = engines.optimized();
        assert!(!Engine::same(quick, optimized) && !Engine::same(concurrent, optimized));
    }
}
