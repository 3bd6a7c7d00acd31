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
//! | file | what it is |
//! | --- | --- |
//! | [`client`], [`writing`] | the client's connection, as its task and the wheel see it; what is written to it |
//! | [`deadline`] | its time limits |
//! | [`request`], [`sending`], [`answer`] | a request as it is kept; heads, towards the upstream and towards the client |
//! | [`head_reader`] | heads of responses as they arrive, and the bounds on them |
//! | [`upload`], [`download`] | bodies; `download` is the pump |
//! | [`look`], `beginning`, `cut` | what is seen of a response on its way: its events, its end; its first content; how it breaks off |
//! | [`kept`], [`share`] | a body that may have to be sent again; how much memory a client's bodies may hold |
//! | `splice` | a part of a body that is replaced |
//! | [`framing`] | chunks made around bytes where they lie |
//! | [`attempts`], [`retry`], [`budget`] | one upstream after the other until there is an answer; whether, when, how often |
//! | `attempt` | one of them |
//! | [`hedge`] | a second upstream beside a slow one |
//! | [`hold`] | the beginning of a stream, until it says something |
//! | [`exchange`], [`ask`] | the course of a request; a connection, the request on it, and the head of its answer |
//! | `pick` | who of a route's upstreams is asked, and what is learnt from it |
//! | [`decides`] | the decisions that rest on a request's body |
//! | [`media_type`], [`named`] | how a body may be read; the model that is named outside of it |
//! | `prepare` | what is decided before an upstream is asked |
//! | `ending` | how an answer ends, and what can be used again |
//! | `laggard` | one that is kept, whose client does not read as fast as it comes |
//! | `abandoned` | an answer whose client has left |
//! | `fallback` | what is answered when no upstream of a route does |
//! | `limits` | whether it may be asked at all, by the limits of keys, routes and upstreams |
//! | `refusal` | what a client is told when there is no answer to pass on |
//! | [`models`], `model_lists` | the union of what the upstreams offer; the list of each |
//! | [`core`], [`settings`] | what the tasks of a core share; a configuration made ready |
//! | [`desk`] | subscriptions of streams at work: webhooks sent, workers told |
//! | [`ledger`], [`memo`] | what is remembered for log and metrics; of an answer that goes on for days |

mod abandoned;
pub(crate) mod answer;
pub(crate) mod ask;
mod attempt;
pub(crate) mod attempts;
mod beginning;
pub(crate) mod budget;
pub(crate) mod client;
pub(crate) mod core;
mod credentials;
mod cut;
pub(crate) mod deadline;
pub(crate) mod decides;
pub(crate) mod desk;
pub(crate) mod download;
mod durable_id;
mod ending;
pub(crate) mod exchange;
mod fallback;
pub(crate) mod framing;
pub(crate) mod head_reader;
pub(crate) mod hedge;
pub(crate) mod hold;
pub(crate) mod inbound;
mod keeping;
pub(crate) mod kept;
mod laggard;
pub(crate) mod ledger;
mod limits;
pub(crate) mod look;
pub(crate) mod media_type;
pub(crate) mod memo;
mod model_lists;
pub(crate) mod models;
pub(crate) mod named;
mod pick;
mod prepare;
pub(crate) mod probing;
mod refusal;
pub(crate) mod request;
pub(crate) mod retry;
pub(crate) mod sending;
pub(crate) mod settings;
pub(crate) mod share;
mod splice;
mod tee;
pub(crate) mod upload;
pub(crate) mod writing;
