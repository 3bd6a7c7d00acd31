//! A periodic tick from a timerfd.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use tokio::io::unix::AsyncFd;

/// Becomes ready once every period. Ticks that were missed are merged into one.
pub(crate) struct Ticker {
    timer: AsyncFd<OwnedFd>,
}

impl Ticker {
    /// Must be called within a runtime that has I/O enabled.
    pub(crate) fn new(period: Duration) -> io::Result<Ticker> {
        Ticker::after(period, period)
    }

    /// With the first tick after another time than the period. Must be called within a runtime that has I/O enabled.
    pub(crate) fn after(first: Duration, period: Duration) -> io::Result<Ticker> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let spec =
            |time: Duration| Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
        // A first tick after no time at all would turn the timer off.
        let first = first.max(Duration::from_nanos(1));
        let spec = Itimerspec { it_interval: spec(period), it_value: spec(first) };
        rustix::time::timerfd_settime(&timer, TimerfdTimerFlags::empty(), &spec)?;
        // SAFETY: the descriptor is owned by the `AsyncFd` from here on and `Ticker` never hands it out, so it stays open, and
        // the same, for as long as it is registered.
        #[expect(unsafe_code, reason = "system calls live here")]
        let timer =
            unsafe { AsyncFd::register(timer) }.map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Ticker { timer })
    }

    /// Waits for the next tick.
    pub(crate) async fn tick(&self) -> io::Result<()> {
        let mut count = [0u8; 8];
        loop {
            let mut ready = self.timer.readable().await?;
            match ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut count)?)) {
                Ok(done) => {
                    // The counter is 0 again after a read, so the next read can only say EAGAIN: do not ask.
                    ready.clear_ready();
                    return done.map(|_| ());
                }
                Err(_would_block) => continue,
            }
        }
    }
}
