//! Compiling at the lowest priority, on threads made for it, so that running guests keep the machine.

use std::sync::Arc;

use rustix::{process::setpriority_process, thread::gettid};
use tokio::sync::{Semaphore, oneshot};
use wasmtime::Engine;

use crate::EngineError;

/// Niceness of the compiler's threads.
const NICE: i32 = 15;

/// Components compiled at once: each takes memory for its size.
const MAX_AT_ONCE: usize = 2;

/// Stack of a compiling thread: Cranelift recurses over deep functions.
const STACK_BYTES: usize = 8 * 1024 * 1024;

/// Compiles components in the background.
#[derive(Debug, Clone)]
pub(crate) struct Compiler {
    permits: Arc<Semaphore>,
    threads: usize,
}

impl Compiler {
    pub(crate) fn new() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        Self { permits: Arc::new(Semaphore::new(MAX_AT_ONCE)), threads }
    }

    /// The compiled form of a component, as it is kept on disk.
    pub(crate) async fn compile(&self, engine: &Engine, wasm: Arc<[u8]>) -> Result<Vec<u8>, EngineError> {
        let _permit = self.permits.acquire().await.map_err(|_| EngineError::CompilerStopped("it was closed".into()))?;
        let (answer, result) = oneshot::channel();
        let (engine, threads) = (engine.clone(), self.threads);
        let builder = std::thread::Builder::new().name("wasm-compile".into()).stack_size(STACK_BYTES);
        builder
            .spawn(move || {
                be_nice();
                // Whoever asked may be gone; then nobody needs the result.
                let _ = answer.send(compile_in_pool(&engine, &wasm, threads));
            })
            .map_err(|source| EngineError::Io { what: "start the compiler's thread", source })?;
        result.await.map_err(|_| EngineError::CompilerStopped("it crashed".into()))?
    }
}

/// The pool lives for one compilation: its threads cost more idle than made anew.
fn compile_in_pool(engine: &Engine, wasm: &[u8], threads: usize) -> Result<Vec<u8>, EngineError> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .stack_size(STACK_BYTES)
        .thread_name(|index| format!("wasm-compile-{index}"))
        .start_handler(|_| be_nice())
        .build()
        .map_err(|error| EngineError::CompilerStopped(error.to_string()))?;
    pool.install(|| engine.precompile_component(wasm)).map_err(EngineError::Compile)
}

/// Lowers the calling thread's priority. Linux counts niceness per thread, and lowering it needs no privilege.
fn be_nice() {
    if let Err(error) = setpriority_process(Some(gettid()), NICE) {
        tracing::debug!("the compiler keeps its priority: {error}");
    }
}
