//! What of a request is of use until it has been sent: the fields that go to an upstream, and what its client says who it is; and the
//! head that is made of them.

use super::Request;
use super::credentials::Credentials;
use crate::proto::http1::fields::{write_field, write_number};
use crate::proto::http1::request::RequestBody;
use crate::runtime::clock::Millis;
use crate::upstream::target::Target;

/// Nothing may change the bytes on their way here, and whoever is asked may know who asks (RFC 9110, 7.6.3).
const OF_EVERY_REQUEST: &[u8] = b"Accept-Encoding: identity\r\nVia: 1.1 sedge\r\n";

/// What of a request is of use until it has been sent.
pub(crate) struct Sending {
    /// What the client says who it is.
    pub(crate) credentials: Credentials,
    /// The server that the client meant, and right behind it the fields to forward, as lines, without those that are written for
    /// each upstream.
    pub(crate) lines: Vec<u8>,
    /// Where the fields begin.
    pub(crate) host_bytes: usize,
    /// Which codings the client takes, for an answer that is made here; upstreams are asked for none.
    pub(crate) accepted: Vec<u8>,
    /// What the stream is to be called that keeps the answer, until it is made.
    pub(crate) durable_id: Option<Box<str>>,
}

impl Request {
    /// The fields to forward, as lines.
    pub(crate) fn fields(&self) -> &[u8] {
        self.sending().fields()
    }

    /// What is of use until it has been sent.
    pub(crate) fn sending(&self) -> &Sending {
        static NOTHING: Sending = Sending::NOTHING;
        self.sending.as_deref().unwrap_or(&NOTHING)
    }

    /// The server that the client meant, as it called it.
    pub(crate) fn host(&self) -> &[u8] {
        let Sending { lines, host_bytes, .. } = self.sending();
        &lines[..*host_bytes]
    }

    /// The fields have been sent for the last time.
    pub(crate) fn forget_fields(&mut self) {
        self.sending = None;
    }

    /// The head for `target`, normalised: one form for everything that can be said in several.
    pub fn write(&self, target: &Target, framing: &RequestBody, left: Left) -> Vec<u8> {
        // A client's key is not shown to an upstream that has one of its own.
        let ours = target.authorization().filter(|(_, yields)| !(*yields && self.carries_key()));
        let stripped = ours.and_then(|_| self.target_without_keys());
        let (prefix, rest) = target.path(stripped.as_deref().unwrap_or(&self.target));
        let fields = self.sending().fields();
        let mut head = Vec::with_capacity(fields.len() + self.target.len() + 512);
        for part in [&self.method, " ", prefix, rest, " HTTP/1.1\r\n"] {
            head.extend_from_slice(part.as_bytes());
        }
        write_field(&mut head, "Host", target.authority.as_bytes());
        head.extend_from_slice(fields);
        match ours {
            Some((ours, _)) => write_field(&mut head, "Authorization", ours.as_bytes()),
            None => self.write_credentials(&mut head),
        }
        head.extend_from_slice(OF_EVERY_REQUEST);
        write_field(&mut head, "X-Request-Id", self.id.as_bytes());
        write_field(&mut head, "Traceparent", &self.trace.traceparent());
        if let Some(ms) = left.total {
            write_number(&mut head, "X-Request-Timeout-Ms", ms);
        }
        if let Some(ms) = left.answer {
            write_number(&mut head, "X-Stainless-Timeout", ms.div_ceil(1000));
        }
        match framing {
            RequestBody::None => {}
            RequestBody::Length(length) => {
                write_number(&mut head, "Content-Length", *length);
            }
            RequestBody::Chunked => write_field(&mut head, "Transfer-Encoding", b"chunked"),
        }
        head.extend_from_slice(b"\r\n");
        head
    }
}

impl Sending {
    pub(crate) const NOTHING: Sending = Sending {
        credentials: Credentials::NOTHING,
        lines: Vec::new(),
        host_bytes: 0,
        accepted: Vec::new(),
        durable_id: None,
    };

    fn fields(&self) -> &[u8] {
        &self.lines[self.host_bytes..]
    }

    pub(crate) fn forget_tracestate(&mut self) {
        let (host, fields) = self.lines.split_at(self.host_bytes);
        let is_state = |line: &&[u8]| line.len() > 11 && line[..11].eq_ignore_ascii_case(b"tracestate:");
        let kept = fields.split_inclusive(|&byte| byte == b'\n').filter(|line| !is_state(line));
        self.lines = [host].into_iter().chain(kept).collect::<Vec<_>>().concat();
    }
}

/// What is left of a request's time, in milliseconds, for the upstream that is asked now.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Left {
    /// Of the whole request's.
    pub total: Option<Millis>,
    /// Of the time until the answer begins, where the client has told one.
    pub answer: Option<Millis>,
}
