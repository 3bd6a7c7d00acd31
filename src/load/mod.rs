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

pub mod answer;
mod exchange;
pub mod failure;
pub mod knee;
pub mod plot;
mod progress;
pub mod report;
pub mod request;
mod run;
pub mod table;
pub mod tally;
pub mod verify;
pub mod worker;

use std::path::PathBuf;
use std::time::Duration;

pub use run::{LoadError, run};

use crate::config::{Secret, UpstreamUrl};

/// Steps of one test at most.
pub const STEPS_MAX: usize = 64;

/// Users, or requests a second, of one step at most.
pub const LOAD_MAX: u32 = 1_000_000;

/// Threads at most.
pub const THREADS_MAX: usize = 256;

/// What `sedge load` was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadArgs {
    /// The API's base.
    pub url: UpstreamUrl,
    /// How much, in steps.
    pub load: Load,
    /// How long a step is measured.
    pub duration: Duration,
    /// How long it runs before that.
    pub warmup: Duration,
    /// How long a request may take.
    pub timeout: Duration,
    /// Threads; none: one per core.
    pub threads: Option<usize>,
    /// What is asked.
    pub content: Content,
    /// Fields added to each request; they take the place of those that are sent anyway.
    pub headers: Vec<(String, String)>,
    /// Sent as `Authorization`, unless `headers` has one.
    pub key: Option<Secret>,
    /// Where the report goes as JSON.
    pub json: Option<PathBuf>,
    /// Where the plot goes.
    pub svg: Option<PathBuf>,
    /// Certificate authorities that are trusted beside the system's.
    pub ca: Vec<PathBuf>,
}

/// How the load is made, step by step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Load {
    /// So many users, each with one request at a time.
    Users(Vec<u32>),
    /// So many requests a second.
    Rate(Vec<u32>),
}

impl Load {
    /// The steps.
    pub fn steps(&self) -> &[u32] {
        match self {
            Load::Users(steps) | Load::Rate(steps) => steps,
        }
    }

    /// What a step's number counts, in reports.
    pub fn unit(&self) -> &'static str {
        match self {
            Load::Users(_) => "users",
            Load::Rate(_) => "requests a second",
        }
    }
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
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
