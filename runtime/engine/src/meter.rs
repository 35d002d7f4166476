//! CPU time of guests: read from the thread's clock around each poll of a guest's future, and held under the container's
//! limit the way the kernel's bandwidth control does it, by pausing the guest until the next period.

use std::{
    future::Future,
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
use tokio::time::{Instant, Sleep};

use crate::ticker::Ticker;

/// Length of a period of the quota: the default of the kernel's `cpu.max`.
const PERIOD: Duration = Duration::from_millis(100);

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
}

#[derive(Debug)]
struct Period {
    start: Instant,
    /// Use in this period; what goes over the quota is carried into the next.
    used: Duration,
}

impl CpuAccount {
    pub(crate) fn new(quota: Option<CpuQuota>, ticker: Arc<Ticker>) -> Arc<Self> {
        let quota = quota.map(|quota| (quota, Mutex::new(Period { start: Instant::now(), used: Duration::ZERO })));
        Arc::new(Self { used_nanos: AtomicU64::new(0), quota, ticker })
    }

    /// CPU time used since the account was made.
    pub fn used_nanos(&self) -> u64 {
        self.used_nanos.load(Ordering::Relaxed)
    }

    /// Runs a piece of a guest on this thread, on this account.
    fn measure<T>(&self, work: impl FnOnce() -> T) -> T {
        let _running = self.ticker.enter();
        let before = thread_cpu_time();
        let result = work();
        let used = thread_cpu_time().saturating_sub(before);
        self.used_nanos.fetch_add(used.as_nanos() as u64, Ordering::Relaxed);
        if let Some((_, period)) = &self.quota {
            period.lock().used += used;
        }
        result
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

/// A guest's future on an account.
pub struct Metered<F> {
    inner: F,
    account: Arc<CpuAccount>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl<F> Metered<F> {
    /// Puts `inner` on `account`.
    pub fn new(inner: F, account: Arc<CpuAccount>) -> Self {
        Self { inner, account, pause: None }
    }
}

impl<F: Future + Unpin> Future for Metered<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            if let Some(pause) = &mut this.pause {
                ready!(pause.as_mut().poll(cx));
                this.pause = None;
            }
            match this.account.quota.as_ref().and_then(|_| this.account.paused_until(Instant::now())) {
                Some(until) => this.pause = Some(Box::pin(tokio::time::sleep_until(until))),
                None => return this.account.measure(|| Pin::new(&mut this.inner).poll(cx)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(quota: Option<CpuQuota>) -> Arc<CpuAccount> {
        CpuAccount::new(quota, Ticker::start().unwrap())
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

    #[test]
    fn a_quota_is_a_share_of_the_period() {
        assert_eq!(CpuQuota::from_milli(500), CpuQuota(Duration::from_millis(50)));
        assert_eq!(CpuQuota::from_milli(1), CpuQuota(Duration::from_millis(1)));
        assert_eq!(CpuQuota::from_milli(2000), CpuQuota(Duration::from_millis(200)));
    }
}
