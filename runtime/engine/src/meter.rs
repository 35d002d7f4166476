//! CPU time of guests: read from the thread's clock around each poll of a guest's future, and held under the container's
//! limit the way the kernel's bandwidth control does it, by pausing the guest until the next period. A guest that computes
//! is moved to threads of its own sort, so that those of its neighbours that wait for little are not behind it in a queue.

use std::{
    cell::Cell,
    future::Future,
    mem,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};
use tokio::{
    task::JoinHandle,
    time::{Instant, Sleep},
};

use crate::{
    busy::BusyLane,
    ticker::{TICK, Ticker},
};

/// Length of a period of the quota: the default of the kernel's `cpu.max`.
const PERIOD: Duration = Duration::from_millis(100);

/// CPU time that a guest uses without ever waiting until it counts as computing.
const COMPUTING_AFTER: Duration = TICK;

thread_local! {
    /// Whether the epoch interrupted the guest that this thread polls.
    static INTERRUPTED: Cell<bool> = const { Cell::new(false) };
}

/// Notes that the guest on this thread was interrupted because its tick is over. The stores' epoch callbacks call it.
pub fn note_interruption() {
    INTERRUPTED.set(true);
}

/// CPU time a container may use in each period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuQuota(Duration);

impl CpuQuota {
    /// The quota of a limit in thousandths of a core; at least 1 ms a period, as the kernel has it.
    pub fn from_milli(milli: u64) -> Self {
        let micros = PERIOD.as_micros() as u64 * milli / 1000;
        Self(Duration::from_micros(micros.max(1000)))
    }
}

/// CPU time used by one container.
#[derive(Debug)]
pub struct CpuAccount {
    used_nanos: AtomicU64,
    quota: Option<(CpuQuota, Mutex<Period>)>,
    ticker: Arc<Ticker>,
    busy: Arc<BusyLane>,
}

#[derive(Debug)]
struct Period {
    start: Instant,
    /// Use in this period; what goes over the quota is carried into the next.
    used: Duration,
}

impl CpuAccount {
    pub(crate) fn new(quota: Option<CpuQuota>, ticker: Arc<Ticker>, busy: Arc<BusyLane>) -> Arc<Self> {
        let quota = quota.map(|quota| (quota, Mutex::new(Period { start: Instant::now(), used: Duration::ZERO })));
        Arc::new(Self { used_nanos: AtomicU64::new(0), quota, ticker, busy })
    }

    /// CPU time used since the account was made.
    pub fn used_nanos(&self) -> u64 {
        self.used_nanos.load(Ordering::Relaxed)
    }

    /// Runs a piece of a guest on this thread, on this account. Gives the CPU time it took, too.
    fn measure<T>(&self, work: impl FnOnce() -> T) -> (T, Duration) {
        let _running = self.ticker.enter();
        let before = thread_cpu_time();
        let result = work();
        let used = thread_cpu_time().saturating_sub(before);
        self.used_nanos.fetch_add(used.as_nanos() as u64, Ordering::Relaxed);
        if let Some((_, period)) = &self.quota {
            period.lock().used += used;
        }
        (result, used)
    }

    /// When the guest may go on, if its quota is used up.
    fn paused_until(&self, now: Instant) -> Option<Instant> {
        let (CpuQuota(quota), period) = self.quota.as_ref()?;
        let mut period = period.lock();
        let elapsed = now.saturating_duration_since(period.start);
        let periods = (elapsed.as_nanos() / PERIOD.as_nanos()).min(u128::from(u32::MAX)) as u32;
        if periods > 0 {
            period.start += PERIOD * periods;
            period.used = period.used.saturating_sub(quota.saturating_mul(periods));
        }
        (period.used >= *quota).then(|| period.start + PERIOD)
    }
}

/// The CPU time this thread has used.
fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A guest's future on an account: polled where its caller is while the guest mostly waits, among the computing ones while
/// it computes. Dropping it ends the guest in either place.
pub struct Metered<F: Future> {
    place: Place<F>,
}

enum Place<F: Future> {
    Here(Paced<F>),
    Away(Away<F>),
    /// Between the two, and after the end.
    Nowhere,
}

/// A guest among the computing ones, which comes back as soon as it waits for something.
struct Away<F: Future>(JoinHandle<Result<F::Output, Paced<F>>>);

impl<F: Future> Drop for Away<F> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<F: Future> Metered<F> {
    /// Puts `inner` on `account`.
    pub fn new(inner: F, account: Arc<CpuAccount>) -> Self {
        Self { place: Place::Here(Paced { inner, account, pause: None, unbroken: Duration::ZERO }) }
    }
}

impl<F> Future for Metered<F>
where
    F: Future + Unpin + Send + 'static,
    F::Output: Send + 'static,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match &mut self.place {
                Place::Here(paced) => match paced.turn(cx) {
                    Turn::Done(output) => {
                        self.place = Place::Nowhere;
                        return Poll::Ready(output);
                    }
                    Turn::Waits | Turn::Interrupted => return Poll::Pending,
                    Turn::Computes => match mem::replace(&mut self.place, Place::Nowhere) {
                        Place::Here(paced) => self.place = paced.send_away(),
                        _ => unreachable!("it was here a line above"),
                    },
                },
                Place::Away(away) => match ready!(Pin::new(&mut away.0).poll(cx)) {
                    Ok(Ok(output)) => {
                        self.place = Place::Nowhere;
                        return Poll::Ready(output);
                    }
                    Ok(Err(paced)) => self.place = Place::Here(paced),
                    Err(error) => match error.try_into_panic() {
                        Ok(panic) => std::panic::resume_unwind(panic),
                        // The runtime is being shut down, and this task with it.
                        Err(_) => return Poll::Pending,
                    },
                },
                Place::Nowhere => panic!("polled after its end"),
            }
        }
    }
}

/// What came of a guest's turn.
enum Turn<T> {
    Done(T),
    /// For something that will wake it.
    Waits,
    /// Its tick was over; it goes on after its neighbours.
    Interrupted,
    /// The same, and it has not waited for anything for long.
    Computes,
}

/// A guest's future held to its quota.
struct Paced<F> {
    inner: F,
    account: Arc<CpuAccount>,
    pause: Option<Pin<Box<Sleep>>>,
    /// CPU time used since it waited for something.
    unbroken: Duration,
}

impl<F: Future + Unpin> Paced<F> {
    fn turn(&mut self, cx: &mut Context<'_>) -> Turn<F::Output> {
        loop {
            if let Some(pause) = &mut self.pause {
                match pause.as_mut().poll(cx) {
                    Poll::Pending => return Turn::Interrupted,
                    Poll::Ready(()) => self.pause = None,
                }
            }
            match self.account.quota.as_ref().and_then(|_| self.account.paused_until(Instant::now())) {
                Some(until) => self.pause = Some(Box::pin(tokio::time::sleep_until(until))),
                None => return self.run(cx),
            }
        }
    }

    fn run(&mut self, cx: &mut Context<'_>) -> Turn<F::Output> {
        INTERRUPTED.set(false);
        let inner = Pin::new(&mut self.inner);
        let (result, used) = self.account.measure(|| inner.poll(cx));
        match result {
            Poll::Ready(output) => Turn::Done(output),
            Poll::Pending if !INTERRUPTED.replace(false) => {
                self.unbroken = Duration::ZERO;
                Turn::Waits
            }
            Poll::Pending => {
                self.unbroken += used;
                if self.unbroken < COMPUTING_AFTER { Turn::Interrupted } else { Turn::Computes }
            }
        }
    }
}

impl<F> Paced<F>
where
    F: Future + Unpin + Send + 'static,
    F::Output: Send + 'static,
{
    /// Lets it compute among its kind, if there is room for them.
    fn send_away(self) -> Place<F> {
        let lane = self.account.busy.clone();
        let Some(runtime) = lane.get() else { return Place::Here(Self { unbroken: Duration::ZERO, ..self }) };
        let mut guest = Some(self);
        let computing = std::future::poll_fn(move |cx| {
            let paced = guest.as_mut().expect("it is not polled after its end");
            match paced.turn(cx) {
                Turn::Done(output) => Poll::Ready(Ok(output)),
                Turn::Waits => Poll::Ready(Err(guest.take().expect("it was there a moment ago"))),
                Turn::Interrupted | Turn::Computes => Poll::Pending,
            }
        });
        Place::Away(Away(runtime.spawn(computing)))
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn account(quota: Option<CpuQuota>) -> Arc<CpuAccount> {
        CpuAccount::new(quota, Ticker::start().unwrap(), Arc::default())
    }

    /// Burns CPU time on this thread.
    fn burn(time: Duration) {
        let start = thread_cpu_time();
        while thread_cpu_time() - start < time {
            std::hint::spin_loop();
        }
    }

    #[tokio::test]
    async fn time_is_counted_while_polled_and_not_while_waiting() {
        let account = account(None);
        let guest = Box::pin(async {
            burn(Duration::from_millis(20));
            tokio::time::sleep(Duration::from_millis(50)).await;
            burn(Duration::from_millis(20));
        });
        Metered::new(guest, account.clone()).await;
        let used = Duration::from_nanos(account.used_nanos());
        assert!(used >= Duration::from_millis(40), "{used:?}");
        assert!(used < Duration::from_millis(60), "{used:?}");
    }

    #[tokio::test]
    async fn a_quota_holds_a_busy_guest_back() {
        let account = account(Some(CpuQuota::from_milli(200)));
        let start = Instant::now();
        let guest = Box::pin(async {
            for _ in 0..30 {
                burn(Duration::from_millis(2));
                tokio::task::yield_now().await;
            }
        });
        Metered::new(guest, account).await;
        // 60 ms of work at 20 ms in each 100 ms reach into the third period.
        assert!(start.elapsed() >= Duration::from_millis(190), "{:?}", start.elapsed());
    }

    /// A guest that computes as wasmtime shows it: pending, woken at once, its interruption noted.
    async fn compute(turns: usize) -> thread::ThreadId {
        for _ in 0..turns {
            burn(TICK);
            note_interruption();
            tokio::task::yield_now().await;
        }
        thread::current().id()
    }

    #[tokio::test]
    async fn a_guest_that_computes_leaves_this_thread_and_one_that_waits_comes_back() {
        let (here, account) = (thread::current().id(), account(None));
        assert_eq!(Metered::new(Box::pin(compute(0)), account.clone()).await, here);
        assert_ne!(Metered::new(Box::pin(compute(3)), account.clone()).await, here);
        let waits = async move {
            let away = compute(3).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
            (away, thread::current().id())
        };
        let (away, back) = Metered::new(Box::pin(waits), account.clone()).await;
        assert!(away != here && back == here);
        assert!(account.used_nanos() >= 6 * TICK.as_nanos() as u64);
    }

    #[tokio::test]
    async fn a_computing_guest_ends_when_it_is_dropped() {
        let held = Arc::new(());
        let guest = held.clone();
        let computing = async move {
            compute(usize::MAX).await;
            drop(guest);
        };
        let metered = Metered::new(Box::pin(computing), account(None));
        assert!(tokio::time::timeout(TICK * 10, metered).await.is_err());
        let deadline = Instant::now() + Duration::from_secs(10);
        while Arc::strong_count(&held) > 1 {
            assert!(Instant::now() < deadline, "it computes on");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    #[should_panic(expected = "as asked")]
    async fn a_panic_far_away_is_a_panic_here() {
        let panics = async {
            compute(3).await;
            panic!("as asked");
        };
        Metered::new(Box::pin(panics), account(None)).await;
    }

    #[test]
    fn a_quota_is_a_share_of_the_period() {
        assert_eq!(CpuQuota::from_milli(500), CpuQuota(Duration::from_millis(50)));
        assert_eq!(CpuQuota::from_milli(1), CpuQuota(Duration::from_millis(1)));
        assert_eq!(CpuQuota::from_milli(2000), CpuQuota(Duration::from_millis(200)));
    }
}
