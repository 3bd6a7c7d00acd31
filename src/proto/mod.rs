//! Protocols as pure state machines: bytes, and where it matters a time, go in; bytes and decisions come out. No socket, no clock, no
//! configuration, so that every one of them can be fuzzed.
//!
//! | module | what it speaks |
//! | --- | --- |
//! | [`http1`] | HTTP/1.1: heads and the framing of bodies |
//! | [`sse`] | server-sent events |
//! | [`json`] | JSON that passes in pieces, of which little is read |
//! | [`openai`] | requests and responses of the APIs: what decides, what is counted, what an error is |
//! | [`dialect`], [`error`] | an error, and how each API says it |

pub(crate) mod dialect;
pub(crate) mod error;
pub(crate) mod http1;
pub(crate) mod json;
pub(crate) mod openai;
pub(crate) mod sse;
