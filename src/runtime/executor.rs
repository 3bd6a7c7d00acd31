//! A core's thread: pinned, with a `LocalRuntime` of its own.
//!
//! Only I/O is enabled on it. Time comes from the wheel, which a timerfd drives; tokio's timers would make each park ask
//! for the next deadline under a lock.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};

use super::Shard;
use super::block::Pool;
use super::net::cpu;
use super::net::ticker::Ticker;
use super::wheel::TICK_MS;
use crate::tell;

/// Threads that may look up host names at once on a core; nearly every other call is made on the core itself.
pub(crate) const RESOLVER_THREADS_MAX: usize = 6;

/// Starts the thread of a core, pinned to `cpu` if there is one, and runs `main` on it to its end.
pub(crate) fn spawn<Main, Run>(index: usize, cpu: Option<usize>, main: Main) -> io::Result<JoinHandle<()>>
where
    Main: FnOnce(Rc<Shard>) -> Run + Send + 'static,
    Run: Future<Output = ()>,
{
    std::thread::Builder::new().name(format!("sedge-{index}")).spawn(move || {
        if let Some(cpu) = cpu {
            cpu::pin(cpu);
        }
        if let Err(error) = run(index, main) {
            tell!("sedge: core {index} could not start: {error}");
        }
    })
}

fn run<Main, Run>(index: usize, main: Main) -> io::Result<()>
where
    Main: FnOnce(Rc<Shard>) -> Run,
    Run: Future<Output = ()>,
{
    let runtime = Builder::new_current_thread()
        .enable_io()
        .max_blocking_threads(RESOLVER_THREADS_MAX)
        .build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let shard = Rc::new(Shard {
            index,
            blocks: Rc::default(),
            heads: Rc::new(Pool::without_reserve()),
            wheel: super::wheel::Wheel::default(),
            clock: super::clock::Clock::default(),
            ends_at: Cell::new(0),
        });
        shard.clock.micros();
        let ticker = Ticker::new(Duration::from_millis(TICK_MS))?;
        let ticking = Rc::clone(&shard);
        tokio::task::spawn_local(async move {
            // A timerfd that cannot be read any more leaves a core without deadlines; there is no such errno but a bug.
            while ticker.tick().await.is_ok() {
                let now = ticking.clock.micros() / 1000;
                ticking.wheel.advance(now);
            }
        });
        main(shard).await;
        Ok(())
    })
}
