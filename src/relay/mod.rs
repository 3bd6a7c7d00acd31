//! One request to an upstream and its answer back, in the task of the client's connection. Nothing here crosses a channel
//! or a core; while an answer streams, the task owns both sockets and this state, and no buffer.
//!
//! ```text
//! receive ──► route ──► connect ──► send ──► first byte ──► pump ──► finished
//!    │          │          │          │          │            │
//!    └──────────┴──────────┴──────────┴──────────┘            │
//!      error as a whole answer, with a status                 └─► error event, connection closed
//! ```
//!
//! The line between the two kinds of error is the first byte written to the client: before it a failure can still be told by
//! a status, after it only in the stream. A stream that failed is never given a last chunk.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`exchange`] | the course of a request |
//! | [`plan`], [`request_limits`] | what is decided before an upstream is asked; whether it may be asked at all |
//! | [`request`] | a request as it is kept: its body, how it may be sent again, what an upstream is sent |
//! | [`attempt`] | one upstream after the other until there is a response: failover, retry, hedging, fallback |
//! | [`response_head`] | the head of a response, towards the client |
//! | [`pump`] | a response on its way: relayed, looked at, recorded, caught up with |
//! | [`finish`] | how it ends, what the client is told, which connections can be used again |
//! | [`request_record`], [`request_summary`] | what is remembered for log and metrics; of a response that goes on for days |
//! | [`context`], [`settings`] | what the tasks of a core share; a configuration made ready |

pub(crate) mod attempt;
pub(crate) mod context;
pub(crate) mod exchange;
pub(crate) mod finish;
pub(crate) mod plan;
pub(crate) mod pump;
pub(crate) mod request;
pub(crate) mod request_limits;
pub(crate) mod request_record;
pub(crate) mod request_summary;
pub(crate) mod response_head;
pub(crate) mod settings;
