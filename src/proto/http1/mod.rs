//! HTTP/1.1 heads and bodies as state machines: bytes in, decisions out. No socket, no clock, no task.
//!
//! A complete head is split by httparse. httparse is a general parser and takes liberties that RFC 9112 leaves to a recipient
//! (bare LF, empty lines, long lines); each of them has been a smuggling vector, so what it lets pass is checked again by a
//! grammar without them ([`mod@line`]), which also checks a head line by line while it arrives. A verdict therefore cannot
//! depend on how bytes were cut into segments, and nothing refused here may reach the other side.
//!
//! A head borrows the caller's buffer; nothing is copied until it is written out again. Every `Err` means the same to
//! a caller: answer it if the peer is a client, then close, for what follows on that connection has no known start.

pub(crate) mod body;
pub(crate) mod chunked;
pub(crate) mod coding;
pub(crate) mod date;
pub(crate) mod fields;
pub(crate) mod framing;
pub(crate) mod line;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod scan;
pub(crate) mod target;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::fmt;

/// The version of a message, as far as it changes anything. Others are not spoken here, as httparse knows none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0: no chunked coding, not kept alive unless it says so.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// Why a message was refused, fit to be answered as it stands.
///
/// From an upstream's response only the message is of use; the client is answered 502.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reject {
    /// The status to answer with.
    pub(crate) status: u16,
    /// The kind of error in one word, for programs.
    pub(crate) code: &'static str,
    /// What is wrong with the message, for people.
    pub message: &'static str,
}

impl Reject {
    const fn bad(message: &'static str) -> Self {
        Self { status: 400, code: "invalid_request", message }
    }

    const fn new(status: u16, code: &'static str, message: &'static str) -> Self {
        Self { status, code, message }
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} {})", self.message, self.status, self.code)
    }
}

impl Error for Reject {}
