//! The thread that moves the epoch on, so that a guest that computes yields to its neighbours every tick. It sleeps for
//! good whenever a tick finds no guest at work: an idle node is not woken, and a guest that is done within a tick costs one.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, Thread},
    time::Duration,
};

use parking_lot::RwLock;
use wasmtime::{Engine, EngineWeak};

/// Time between two ticks: the longest a computing guest keeps its thread from others.
pub(crate) const TICK: Duration = Duration::from_millis(5);

/// Handle to the ticking thread. The thread ends when the last handle is dropped.
#[derive(Debug)]
pub(crate) struct Ticker {
    state: Arc<State>,
    thread: Thread,
}

#[derive(Debug, Default)]
struct State {
    /// Polls of guests under way.
    running: AtomicUsize,
    asleep: AtomicBool,
    stop: AtomicBool,
    engines: RwLock<Vec<EngineWeakDebug>>,
}

struct EngineWeakDebug(EngineWeak);

impl std::fmt::Debug for EngineWeakDebug {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EngineWeak")
    }
}

impl Ticker {
    /// Starts the thread.
    pub(crate) fn start() -> io::Result<Arc<Self>> {
        let state = Arc::new(State::default());
        let handle = thread::Builder::new().name("wasm-epoch".into()).stack_size(64 * 1024).spawn({
            let state = state.clone();
            move || state.run()
        })?;
        Ok(Arc::new(Self { state, thread: handle.thread().clone() }))
    }

    /// Ticks this engine from now on.
    pub(crate) fn add(&self, engine: &Engine) {
        self.state.engines.write().push(EngineWeakDebug(engine.weak()));
    }

    /// Marks that a guest runs until the guard is dropped.
    pub(crate) fn enter(&self) -> Running<'_> {
        self.state.running.fetch_add(1, Ordering::SeqCst);
        if self.state.asleep.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
        Running(&self.state)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

/// A guest runs while this lives.
pub(crate) struct Running<'a>(&'a State);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl State {
    fn run(&self) {
        loop {
            self.sleep_until_needed();
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            thread::sleep(TICK);
            for engine in self.engines.read().iter() {
                if let Some(engine) = engine.0.upgrade() {
                    engine.increment_epoch();
                }
            }
        }
    }

    /// Parks until a guest runs. `asleep` is set before `running` is read, and [`Ticker::enter`] does the reverse, so one
    /// of the two always sees the other.
    fn sleep_until_needed(&self) {
        self.asleep.store(true, Ordering::SeqCst);
        while self.running.load(Ordering::SeqCst) == 0 && !self.stop.load(Ordering::SeqCst) {
            thread::park();
        }
        self.asleep.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait_until(what: &str, condition: impl Fn() -> bool) {
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while !condition() {
            assert!(std::time::Instant::now() < deadline, "never {what}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn it_sleeps_while_no_guest_runs_and_wakes_for_one() {
        let ticker = Ticker::start().unwrap();
        wait_until("asleep", || ticker.state.asleep.load(Ordering::SeqCst));
        let running = ticker.enter();
        wait_until("awake", || !ticker.state.asleep.load(Ordering::SeqCst));
        drop(running);
        wait_until("asleep again", || ticker.state.asleep.load(Ordering::SeqCst));
    }
}
