//! `sedge load URL`: a stepped load test that reads what it is sent.
//!
//! Every answer is read to its end and checked: HTTP's framing is complete, each event's data is JSON or `[DONE]`, and a
//! stream is complete only if an event said so. What fails is counted by kind; what is fast but cut is not fast.
//!
//! | file | what it is |
//! | --- | --- |
//! | `run` | a test from its first step to its report; signals |
//! | [`worker`] | a thread's share of a step: its users, or its part of a schedule |
//! | `exchange` | one request over one connection |
//! | [`answer`], [`verify`] | what an answer must be, without a socket or a clock |
//! | [`request`] | the bytes that are sent |
//! | [`tally`], [`knee`], [`failure`] | what was measured, and what follows from it |
//! | [`report`], [`table`], [`plot`], `progress` | what people and programs are told |
//!
//! What is measured, and from when:
//!
//! - **closed loop** (`--steps`): each user sends its next request when the answer to the last one has ended. Times count from
//!   the moment it turns to the request, so the dial of a first request is part of them; a warm-up takes those out.
//! - **open loop** (`--rate`): requests are due at even intervals, whatever the server does, and times count from when one was
//!   *due*: a server that stalls is charged for all who would have come meanwhile (no coordinated omission).
//! - A request is measured if it was begun, or due, between the warm-up and the end of the step. Those in flight at the end
//!   are waited for, else slow answers would be missing from the figures. Rates are of what arrived within the step.
//! - *First byte* is the body's: a head alone tells a reader nothing. *To the end* is of answers that were complete. *Between
//!   events* is of measured requests and of all that arrived within the step, and 0 for events that one read brought.
//!
//! On the server's own machine the test takes its share of the cores: what it finds there is of both together.
#![forbid(unsafe_code)]

pub(crate) mod answer;
pub(crate) mod exchange;
pub(crate) mod failure;
pub(crate) mod knee;
pub(crate) mod plot;
pub(crate) mod progress;
pub(crate) mod report;
pub(crate) mod request;
pub(crate) mod run;
pub(crate) mod table;
pub(crate) mod tally;
pub(crate) mod verify;
pub(crate) mod worker;

use std::path::PathBuf;
use std::time::Duration;

pub(crate) use self::run::run;
use crate::config::{Secret, UpstreamUrl};

/// Steps of one test at most.
pub(crate) const STEPS_MAX: usize = 64;

/// Users, or requests a second, of one step at most.
pub(crate) const LOAD_MAX: u32 = 1_000_000;

/// Threads at most.
pub(crate) const THREADS_MAX: usize = 256;

/// What `sedge load` was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadArgs {
    /// The API's base.
    pub(crate) url: UpstreamUrl,
    /// How much, in steps.
    pub(crate) load: Load,
    /// How long a step is measured.
    pub(crate) duration: Duration,
    /// How long it runs before that.
    pub(crate) warmup: Duration,
    /// How long a request may take.
    pub(crate) timeout: Duration,
    /// Threads; none: one per core.
    pub(crate) threads: Option<usize>,
    /// What is asked.
    pub(crate) content: Content,
    /// Fields added to each request; they take the place of those that are sent anyway.
    pub(crate) headers: Vec<(String, String)>,
    /// Sent as `Authorization`, unless `headers` has one.
    pub(crate) key: Option<Secret>,
    /// Where the report goes as JSON.
    pub(crate) json: Option<PathBuf>,
    /// Where the plot goes.
    pub(crate) svg: Option<PathBuf>,
    /// Certificate authorities that are trusted beside the system's.
    pub(crate) ca: Vec<PathBuf>,
}

/// How the load is made, step by step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// So many users, each with one request at a time.
    Users(Vec<u32>),
    /// So many requests a second.
    Rate(Vec<u32>),
}

impl Load {
    /// The steps.
    pub(crate) fn steps(&self) -> &[u32] {
        match self {
            Load::Users(steps) | Load::Rate(steps) => steps,
        }
    }

    /// What a step's number counts, in reports.
    pub(crate) fn unit(&self) -> &'static str {
        match self {
            Load::Users(_) => "users",
            Load::Rate(_) => "requests a second",
        }
    }
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// A chat completion of one message.
    Chat {
        /// The model's name.
        model: String,
        /// The message.
        prompt: String,
        /// Whether its answer is streamed.
        stream: bool,
    },
    /// The bytes of a file.
    File(PathBuf),
}
