//! A thread's share of a step: its users, or its part of the schedule, on a runtime of its own. Threads share nothing that
//! changes but a few counters for the progress line, each its own.

use std::cell::{Cell, RefCell, RefMut};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Notify, watch};

use super::exchange::{Exchange, Over};
use super::failure::{Failure, Kind};
use super::tally::Tally;
use crate::runtime::clock::{Clock, Micros, Millis};
use crate::runtime::net::stream::Stream;
use crate::runtime::net::ticker::Ticker;
use crate::upstream::dial::{Dialer, Time, Tried, dial};
use crate::upstream::resolver::Resolver;
use crate::upstream::target::Target;

/// What a thread reads into.
const BLOCK_BYTES: usize = 64 * 1024;

/// How long a user who found no connection waits before the next try.
const REDIAL_PAUSE: Duration = Duration::from_millis(100);

/// Requests in flight at once in an open loop, on all threads together. A server that is further behind than this is not
/// told of more.
pub(crate) const IN_FLIGHT_MAX: usize = 16_384;

/// The schedule is looked at this often at most: what is due in between is sent together, and charged for the delay.
const SCHEDULE_PERIOD_LEAST: Duration = Duration::from_micros(100);

/// Name look-ups of a thread at once.
const RESOLVER_THREADS_MAX: usize = 4;

/// The part of a step that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    /// The end of the warm-up.
    pub(crate) from: Micros,
    /// The end of the step.
    pub(crate) until: Micros,
}

impl Window {
    /// Whether `time` is within it.
    pub(crate) fn contains(&self, time: Micros) -> bool {
        (self.from..self.until).contains(&time)
    }
}

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// So many users; they come one after the other over this time.
    Users(u32, Duration),
    /// So many requests a second.
    Rate(u32),
}

/// A step, for all of its threads.
pub(crate) struct Plan {
    /// Who is asked.
    pub(crate) target: Target,
    /// The bytes of the request.
    pub(crate) wire: Vec<u8>,
    /// Whether it asks for a stream.
    pub(crate) streamed: bool,
    /// How long a request may take.
    pub(crate) timeout: Duration,
    /// When the warm-up begins, and with it the users and the schedule.
    pub(crate) begin: Micros,
    /// What is measured.
    pub(crate) window: Window,
    /// What is done.
    pub(crate) pace: Pace,
    /// How many threads share it.
    pub(crate) threads: usize,
}

/// What a thread has done so far, for the progress line.
#[derive(Debug, Default)]
pub(crate) struct Live {
    completed: AtomicU64,
    failed: AtomicU64,
    events: AtomicU64,
}

impl Live {
    /// Requests that ended well, those that failed, and events.
    pub(crate) fn read(&self) -> [u64; 3] {
        [&self.completed, &self.failed, &self.events].map(|counter| counter.load(Relaxed))
    }

    pub(crate) fn add_events(&self, count: u64) {
        self.events.fetch_add(count, Relaxed);
    }
}

/// A thread at work.
pub(crate) struct Worker {
    plan: Arc<Plan>,
    index: usize,
    pub(crate) live: Arc<Live>,
    clock: Clock,
    resolver: Rc<Resolver>,
    tally: RefCell<Tally>,
    block: RefCell<Vec<u8>>,
    /// Connections between two requests of a schedule; users keep their own.
    kept: RefCell<Vec<Stream>>,
    in_flight: Cell<usize>,
    idle: Notify,
}

/// Does thread `index`'s share of the plan, until it is done or `stop` changes.
pub(crate) fn run(
    plan: Arc<Plan>,
    index: usize,
    live: Arc<Live>,
    mut stop: watch::Receiver<bool>,
) -> io::Result<Tally> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(RESOLVER_THREADS_MAX)
        .build_local(LocalOptions::default())?;
    let worker = Rc::new(Worker {
        plan,
        index,
        live,
        clock: Clock::default(),
        resolver: Resolver::new(RESOLVER_THREADS_MAX),
        tally: RefCell::default(),
        block: RefCell::new(vec![0; BLOCK_BYTES]),
        kept: RefCell::default(),
        in_flight: Cell::default(),
        idle: Notify::new(),
    });
    runtime.block_on(async {
        let share = async {
            match worker.plan.pace {
                Pace::Users(users, ramp) => worker.admit(users, ramp),
                Pace::Rate(rate) => worker.follow(rate).await?,
            }
            worker.drained().await;
            io::Result::Ok(())
        };
        tokio::select! {
            done = share => done,
            _ = stop.wait_for(|stop| *stop) => Ok(()),
        }
    })?;
    Ok(worker.tally.take())
}

impl Worker {
    pub(crate) fn streamed(&self) -> bool {
        self.plan.streamed
    }

    pub(crate) fn wire(&self) -> &[u8] {
        &self.plan.wire
    }

    pub(crate) fn window(&self) -> Window {
        self.plan.window
    }

    pub(crate) fn now(&self) -> Micros {
        self.clock.micros()
    }

    pub(crate) fn tally(&self) -> RefMut<'_, Tally> {
        self.tally.borrow_mut()
    }

    pub(crate) fn block(&self) -> RefMut<'_, Vec<u8>> {
        self.block.borrow_mut()
    }

    /// Lets this thread's users in: every so-and-so-manyth.
    fn admit(self: &Rc<Self>, users: u32, ramp: Duration) {
        for user in (self.index as u32..users).step_by(self.plan.threads) {
            let after = ramp.mul_f64(f64::from(user) / f64::from(users));
            let worker = Rc::clone(self);
            self.spawn(async move { worker.user(after).await });
        }
    }

    async fn user(&self, after: Duration) {
        let begin = Duration::from_micros(self.plan.begin.saturating_sub(self.now()));
        pause(begin + after).await;
        let mut kept = None;
        loop {
            let now = self.now();
            if now >= self.plan.window.until {
                return;
            }
            let (result, connection) = self.request(kept.take(), now).await;
            kept = connection;
            if result == Some(Kind::Connect) {
                pause(REDIAL_PAUSE).await;
            }
        }
    }

    /// Sends this thread's requests when they are due.
    async fn follow(self: &Rc<Self>, rate: u32) -> io::Result<()> {
        let (threads, rate) = (self.plan.threads as u64, u64::from(rate));
        let Window { until, .. } = self.plan.window;
        let most = (IN_FLIGHT_MAX / self.plan.threads).max(1);
        let origin = self.plan.begin + 1_000_000 * self.index as u64 / rate;
        let due = |number: u64| origin + number * 1_000_000 * threads / rate;
        let period = Duration::from_micros(1_000_000 * threads / rate).max(SCHEDULE_PERIOD_LEAST);
        let first = Duration::from_micros(origin.saturating_sub(self.now()));
        let ticker = Ticker::after(first, period)?;
        let mut number = 0;
        while due(number) < until {
            let now = self.now();
            while due(number) <= now.min(until - 1) && self.in_flight.get() < most {
                let (worker, from) = (Rc::clone(self), due(number));
                self.spawn(async move {
                    let kept = worker.kept.borrow_mut().pop();
                    if let (_, Some(connection)) = worker.request(kept, from).await {
                        worker.kept.borrow_mut().push(connection);
                    }
                });
                number += 1;
            }
            if now >= until {
                break;
            }
            ticker.tick().await?;
        }
        for late in (number..).map(due).take_while(|late| *late < until) {
            self.begin(late);
            self.finish(late, Err(NOT_SENT));
        }
        Ok(())
    }

    fn spawn(self: &Rc<Self>, task: impl Future<Output = ()> + 'static) {
        self.in_flight.set(self.in_flight.get() + 1);
        let worker = Rc::clone(self);
        tokio::task::spawn_local(async move {
            task.await;
            worker.in_flight.set(worker.in_flight.get() - 1);
            if worker.in_flight.get() == 0 {
                worker.idle.notify_one();
            }
        });
    }

    async fn drained(&self) {
        while self.in_flight.get() > 0 {
            self.idle.notified().await;
        }
    }

    /// One request, counted. Its times count `from` then.
    async fn request(&self, kept: Option<Stream>, from: Micros) -> (Option<Kind>, Option<Stream>) {
        self.begin(from);
        let (result, connection) = limited(self.plan.timeout, self.exchange(kept, from)).await;
        let kind = result.as_ref().err().map(|failure| failure.kind);
        self.finish(from, result);
        (kind, connection)
    }

    fn begin(&self, from: Micros) {
        if self.plan.window.contains(from) {
            self.tally().requests += 1;
        }
    }

    fn finish(&self, from: Micros, result: Result<(), Failure>) {
        let now = self.now();
        let mut tally = self.tally();
        let counter = if result.is_ok() { &self.live.completed } else { &self.live.failed };
        counter.fetch_add(1, Relaxed);
        if result.is_ok() && self.plan.window.contains(now) {
            tally.completed_within += 1;
        }
        match (result, self.plan.window.contains(from)) {
            (Ok(()), true) => {
                tally.completed += 1;
                tally.end.record(now.saturating_sub(from));
            }
            (Ok(()), false) => {}
            (Err(failure), true) => tally.fail(failure),
            (Err(_), false) => tally.warmup_failed += 1,
        }
    }

    /// A request over the kept connection, or over a new one.
    ///
    /// A server may close a kept connection just when it is used again. Then not one byte of an answer comes, and the request
    /// is sent once more, as clients do (RFC 9112, 9.3.1); how often that was is reported.
    async fn exchange(&self, kept: Option<Stream>, from: Micros) -> Over {
        let measured = self.plan.window.contains(from);
        if let Some(stream) = kept
            && is_quiet(&stream).await
        {
            match Exchange::new(self, stream, from, measured).run().await {
                (Err(Failure { kind: Kind::NoResponse, .. }), _) => self.tally().resent += 1,
                over => return over,
            }
        }
        let tried = Tried::default();
        let dialer = Dialer { resolver: &self.resolver, time: self, tried: &tried };
        let stream = match dial(&self.plan.target, None, dialer, |_| {}).await {
            Ok(dialed) => dialed.stream,
            Err(error) => {
                let error = match tried.take() {
                    Some(addresses) => format!("no connection to {addresses}"),
                    None => error.to_string(),
                };
                return (Err(Failure::told(Kind::Connect, &error)), None);
            }
        };
        Exchange::new(self, stream, from, measured).run().await
    }
}

impl Time for Worker {
    fn millis(&self) -> Millis {
        self.now() / 1000
    }

    fn pause(&self, ms: Millis) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(pause(Duration::from_millis(ms)))
    }
}

const NOT_SENT: Failure = Failure::new(Kind::NotSent, "16384 requests were in flight already");

/// Whether nothing has come on a connection that is between two requests. A close would have.
async fn is_quiet(stream: &Stream) -> bool {
    poll_fn(|cx| Poll::Ready(stream.poll_read_ready(cx).is_pending())).await
}

#[expect(
    clippy::disallowed_methods,
    reason = "the client's side of the wire: a timer for each request is a user's patience"
)]
async fn limited(time: Duration, over: impl Future<Output = Over>) -> Over {
    const LATE: Failure = Failure::new(Kind::Timeout, "the answer had not ended within --timeout");
    tokio::time::timeout(time, over).await.unwrap_or((Err(LATE), None))
}

/// Waits.
#[expect(clippy::disallowed_methods, reason = "the client's side of the wire, between requests")]
pub(crate) async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}
