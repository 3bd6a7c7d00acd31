//! A test from its first step to its report.
//!
//! SIGINT or SIGTERM ends it: requests in flight are given up and count as neither complete nor failed, and what was measured
//! until then is reported. A second signal ends the process at once.

use std::fmt;
use std::fs::File;
use std::io;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};

use super::progress::Progress;
use super::report::{Report, Step};
use super::request::Request;
use super::tally::Tally;
use super::worker::{self, Live, Pace, Plan, Window};
use super::{Load, LoadArgs, plot, table};
use crate::config::{Breaking, Quota, Upstream};
use crate::routing::health::Healths;
use crate::runtime::clock::{Clock, Micros};
use crate::runtime::net::{cpu, process, tls};
use crate::telemetry::LabelId;
use crate::upstream::target::Target;

/// How often the progress line is written anew.
const PROGRESS_PERIOD: Duration = Duration::from_millis(250);

/// The share of the warm-up over which users come, so that their requests do not march in step.
const RAMP_SHARE: f64 = 0.5;

/// A step begins when its threads are up: what is due is not late from the start.
const HEADWAY_US: Micros = 5000;

/// The exit code of a process that a signal has ended.
const INTERRUPTED: i32 = 130;

/// Why there was no test, or no report of it.
#[derive(Debug)]
#[non_exhaustive]
pub(crate) enum LoadError {
    /// What was asked for makes no request, or names a file that cannot be used.
    Arguments(String),
    /// The system refused something.
    System(&'static str, io::Error),
    /// A report could not be written.
    Report(PathBuf, io::Error),
}

impl LoadError {
    /// 2 for what the command line got wrong, else 1.
    pub(crate) fn exit_code(&self) -> u8 {
        if let LoadError::Arguments(_) = self { 2 } else { 1 }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Arguments(what) => f.write_str(what),
            LoadError::System(what, error) => write!(f, "{what}: {error}"),
            LoadError::Report(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for LoadError {}

/// Runs the test and tells what came of it: the table on standard output, the files that were asked for. The code is 0 if no
/// request has failed, else 1.
pub(crate) fn run(args: &LoadArgs) -> Result<ExitCode, LoadError> {
    let test = Test::new(args)?;
    // Before the test, so that a slip in a path does not cost its results.
    let json = args.json.as_deref().map(create).transpose()?;
    let svg = args.svg.as_deref().map(create).transpose()?;
    // A lower limit is told by the connections that fail for it.
    let _ = process::raise_descriptor_limit();

    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| LoadError::System("cannot start", error))?;
    let report = runtime.block_on(test.run())?;
    say(&table::footer(&report));
    if let Some((path, mut file)) = json {
        report.write_json(&mut file).map_err(|error| LoadError::Report(path, error))?;
    }
    if let Some((path, mut file)) = svg {
        file.write_all(plot::svg(&report).as_bytes()).map_err(|error| LoadError::Report(path, error))?;
    }
    Ok(if report.has_failures() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn create(path: &Path) -> Result<(PathBuf, File), LoadError> {
    match File::create(path) {
        Ok(file) => Ok((path.to_owned(), file)),
        Err(error) => Err(LoadError::Arguments(format!("{}: {error}", path.display()))),
    }
}

/// A test that can begin.
struct Test<'a> {
    args: &'a LoadArgs,
    upstream: Upstream,
    tls: Option<Arc<rustls::ClientConfig>>,
    request: Request,
    threads: usize,
}

impl<'a> Test<'a> {
    fn new(args: &'a LoadArgs) -> Result<Test<'a>, LoadError> {
        let tls = match args.url.tls || !args.ca.is_empty() {
            true => Some(tls::client(&args.ca).map_err(|error| LoadError::Arguments(error.to_string()))?),
            false => None,
        };
        let upstream = Upstream {
            name: args.url.host.clone(),
            url: args.url.clone(),
            key: None,
            key_if_absent: false,
            max_idle: 0,
            pool_idle_timeout: Duration::ZERO,
            quota: Quota::default(),
            breaker: Breaking::Off,
            concurrency: None,
            probe: None,
        };
        let mut test = Test { args, upstream, tls, request: Request::default(), threads: 0 };
        test.request = Request::new(args, &test.target()?.authority).map_err(LoadError::Arguments)?;
        test.threads = args.threads.unwrap_or_else(|| cpu::allowed().len());
        Ok(test)
    }

    fn target(&self) -> Result<Target, LoadError> {
        Target::new(&self.upstream, LabelId::NONE, self.tls.clone(), &Healths::default(), 1)
            .map_err(|error| LoadError::Arguments(error.to_string()))
    }

    async fn run(&self) -> Result<Report, LoadError> {
        let mut signals =
            Signals::new().map_err(|error| LoadError::System("cannot watch for signals", error))?;
        let mut report = Report::new(self.args, &self.request, self.threads);
        say(&table::header(&report));
        for &load in self.args.load.steps() {
            let step = self.step(load, &mut signals).await?;
            if step.measured_us > 0 {
                say(&table::row(&step));
                report.steps.push(step);
            }
            if signals.seen {
                break;
            }
        }
        report.interrupted = signals.seen;
        report.conclude();
        Ok(report)
    }

    async fn step(&self, load: u32, signals: &mut Signals) -> Result<Step, LoadError> {
        let args = self.args;
        let clock = Clock::default();
        let begin = clock.micros() + HEADWAY_US;
        let from = begin + args.warmup.as_micros() as Micros;
        let window = Window { from, until: from + args.duration.as_micros() as Micros };
        let pace = match &args.load {
            Load::Users(_) => Pace::Users(load, args.warmup.mul_f64(RAMP_SHARE)),
            Load::Rate(_) => Pace::Rate(load),
        };
        let threads = self.threads.min(load as usize);
        let plan = Arc::new(Plan {
            target: self.target()?,
            wire: self.request.wire.clone(),
            streamed: self.request.streamed,
            timeout: args.timeout,
            begin,
            window,
            pace,
            threads,
        });
        let (stop, stopped) = watch::channel(false);
        let (mut live, mut shares) = (Vec::with_capacity(threads), Vec::with_capacity(threads));
        for index in 0..threads {
            let (done, share) = oneshot::channel();
            let (plan, counters, stopped) = (Arc::clone(&plan), Arc::new(Live::default()), stopped.clone());
            live.push(Arc::clone(&counters));
            shares.push(share);
            let thread = std::thread::Builder::new().name(format!("load-{index}"));
            thread
                .spawn(move || drop(done.send(worker::run(plan, index, counters, stopped))))
                .map_err(|error| LoadError::System("cannot start a thread", error))?;
        }

        let mut progress = Progress::new(load, args.load.unit(), window);
        let mut shares = pin!(gathered(shares));
        let tally = loop {
            tokio::select! {
                tally = &mut shares => break tally?,
                () = signals.next() => drop(stop.send(true)),
                () = worker::pause(PROGRESS_PERIOD) => progress.draw(clock.micros(), &live),
            }
        };
        progress.clear();
        let end = if signals.seen { clock.micros().min(window.until) } else { window.until };
        Ok(Step::new(load, end.saturating_sub(window.from), tally))
    }
}

async fn gathered(shares: Vec<oneshot::Receiver<io::Result<Tally>>>) -> Result<Tally, LoadError> {
    let mut sum = Tally::default();
    for share in shares {
        let share = share.await.unwrap_or_else(|_| Err(io::Error::other("it has panicked")));
        sum.add(&share.map_err(|error| LoadError::System("a thread of the test has failed", error))?);
    }
    Ok(sum)
}

/// The signals that end a test.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    seen: bool,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        Ok(Signals { interrupt, terminate, seen: false })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
        if std::mem::replace(&mut self.seen, true) {
            std::process::exit(INTERRUPTED);
        }
    }
}

/// The table is read by people and pipes alike; a pipe that was closed ends nothing.
fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
