//! An answer about streams: its fields, and its body if that is short.

use bytes::Bytes;

use crate::proto::http1::fields::{write_field, write_number};
use crate::proto::openai::ApiError;
use crate::streams::{Lifetime, Stream};

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Its fields, as lines.
    pub(crate) lines: Vec<u8>,
    pub(crate) body: Bytes,
    /// It has a body, if only an empty one.
    pub(crate) has_body: bool,
    /// It is an error, with this code.
    pub(crate) error: Option<&'static str>,
}

impl Reply {
    /// One without a body. What browsers need to know of every answer: it is what it says to be, and any page may hold it, if
    /// it may read it at all (PROTOCOL.md, 12.7); and a page that somebody has appended is none of this origin, where people type
    /// their keys into the playground (Content Security Policy Level 3, 6.3.2).
    pub(crate) fn new(status: u16) -> Reply {
        let mut lines = Vec::with_capacity(256);
        write_field(&mut lines, "X-Content-Type-Options", b"nosniff");
        write_field(&mut lines, "Cross-Origin-Resource-Policy", b"cross-origin");
        write_field(&mut lines, "Content-Security-Policy", b"sandbox");
        Reply { status, lines, body: Bytes::new(), has_body: false, error: None }
    }

    /// An error.
    pub(crate) fn error(error: &ApiError) -> Reply {
        let mut reply = Reply::new(error.status).field("Content-Type", "application/json");
        if error.status == 503 {
            reply = reply.field("Retry-After", "1");
        }
        reply.error = error.code;
        reply.field("Cache-Control", "no-store").body(error.body().into())
    }

    pub(crate) fn field(mut self, name: &str, value: &str) -> Reply {
        write_field(&mut self.lines, name, value.as_bytes());
        self
    }

    pub(crate) fn number(mut self, name: &str, value: u64) -> Reply {
        write_number(&mut self.lines, name, value);
        self
    }

    pub(crate) fn body(mut self, body: Bytes) -> Reply {
        (self.body, self.has_body) = (body, true);
        self
    }

    /// Where a stream ends, or is to be read on.
    pub(crate) fn next(self, stream: &Stream, position: u64) -> Reply {
        self.field("Stream-Next-Offset", &stream.offset(position).to_string())
    }

    pub(crate) fn closed_if(self, closed: bool) -> Reply {
        if closed { self.field("Stream-Closed", "true") } else { self }
    }

    /// How long the stream lives.
    pub(crate) fn lifetime(self, lifetime: &Lifetime) -> Reply {
        match lifetime {
            Lifetime::Unbounded => self,
            Lifetime::Idle(seconds) => self.number("Stream-TTL", *seconds),
            Lifetime::Until { text, .. } => self.field("Stream-Expires-At", text),
        }
    }
}
