//! A request as it is kept while it is on its way: what must be forwarded, already written out, and what is needed to
//! decide, count and log. Made in one pass over the head, which can then be forgotten.

pub(crate) mod body;
pub(crate) mod body_scan;
pub(crate) mod credentials;
pub(crate) mod media_type;
pub(crate) mod memory_share;
pub(crate) mod model_name;
pub(crate) mod outbound_headers;
pub(crate) mod replay_buffer;
pub(crate) mod splice;

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use memchr::{memchr, memmem};

use self::media_type::MediaType;
use self::outbound_headers::Sending;
use super::finish::error_response::ErrorForm;
use crate::admission::api_key::Holder;
use crate::admission::request_limits::Account;
use crate::proto::http1::Version;
use crate::proto::http1::coding::{Coding, negotiate};
use crate::proto::http1::fields::{Lines, is_called, is_of_a_proxy};
use crate::proto::http1::request::{RequestBody, RequestHead};
use crate::proto::openai::Api;
use crate::telemetry::{Degraded, Ids, TraceContext, valid_request_id};

/// A request that has passed the parser.
pub struct Request {
    /// The method. Those that nearly everybody uses are not copied.
    pub(crate) method: Cow<'static, str>,
    /// The path in its one spelling, and the query as it came, unless a key stood in it that is not passed on.
    pub(crate) target: Box<str>,
    /// Where the path ends in it.
    pub(crate) path_bytes: usize,
    /// The client's version.
    pub(crate) version: Version,
    /// How its body is framed.
    pub(crate) body: RequestBody,
    /// The client's connection stays open after the answer.
    pub(crate) keep_alive: bool,
    /// The client waits for `100 Continue`.
    pub(crate) expect_continue: bool,
    /// How the body may be read, by its `Content-Type`; none if it has none.
    pub(crate) media: Option<MediaType>,
    /// The body is compressed: it is passed on as it is and cannot be looked into.
    pub(crate) encoded: bool,
    /// Its identity: the client's `x-request-id` if it is fit to be passed on, else one made here.
    pub(crate) id: Box<str>,
    /// Its place in a trace.
    pub(crate) trace: TraceContext,
    /// What the client gives the whole request, by `x-request-timeout-ms`.
    pub(crate) timeout_ms: Option<u32>,
    /// How long it waits for the answer to begin, by `x-stainless-timeout` (in seconds): OpenAI's SDKs stop that clock when
    /// the head is there, so it never limits a stream that flows.
    pub(crate) answer_timeout_ms: Option<u32>,
    /// Who asks, as a number: by its key, or else its address.
    pub(crate) who: u64,
    /// The client that a trusted proxy asks for.
    pub(crate) client: Option<IpAddr>,
    /// What answers it in place of what was asked for.
    pub(crate) degraded: Option<Degraded>,
    /// Lines for the answer that tell a browser which pages may read it; `None` is that nobody asked, or nothing is to be told.
    pub(crate) cross_origin: Option<Box<[u8]>>,
    /// It is a `GET` for an event stream, as a browser's EventSource sends it.
    pub(crate) event_source: bool,
    /// Its answer is to become a durable stream.
    pub(crate) durable: bool,
    /// Where that is, as lines of the answer's head.
    pub(crate) kept_at: Option<Box<[u8]>>,
    /// Sending it twice has the effect of sending it once (RFC 9110, 9.2.2), or it says so by an `Idempotency-Key`.
    pub(crate) repeatable: bool,
    /// Its limits, if it has any. Boxed: every stream that waits keeps a request, and most have none.
    pub(crate) account: Option<Box<Account>>,
    /// What is of use until it has been sent; nothing after that.
    pub(crate) sending: Option<Box<Sending>>,
}

/// What becomes of a field of the head.
enum Taken {
    /// It goes to the upstream as it is.
    PassedOn,
    /// It is kept here, or dropped.
    Kept,
    /// It continued a trace.
    Continued,
    /// It goes to the upstream as it is, if a trace was continued.
    State,
}

impl Request {
    /// Takes what is needed out of a head. What only a proxy can say is believed of one that is trusted, and dropped
    /// otherwise: from here on it would be taken for our word.
    pub fn new(head: &RequestHead<'_>, from_trusted_proxy: bool, ids: &mut Ids) -> Request {
        let mut request = Request {
            method: method(head.method),
            target: head.target.as_ref().into(),
            path_bytes: memchr(b'?', head.target.as_bytes()).unwrap_or(head.target.len()),
            version: head.version,
            body: head.body,
            keep_alive: head.keep_alive,
            expect_continue: head.expect_continue,
            repeatable: matches!(head.method, "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE"),
            ..Request::nothing(TraceContext::begin(ids))
        };
        // Its fields, but for spaces, are all that is written down.
        let mut sending =
            Box::new(Sending { lines: Vec::with_capacity(head.bytes.len()), ..Sending::NOTHING });
        sending.lines.extend_from_slice(head.host.unwrap_or_default());
        sending.host_bytes = sending.lines.len();
        let (mut traced, mut state) = (false, false);
        let mut lines = Lines::of(head.bytes);
        for field in head.forwarded() {
            if from_trusted_proxy || !is_of_a_proxy(field.name) {
                match request.field(field.name, field.value, ids, &mut sending) {
                    Taken::PassedOn => lines.push(&mut sending.lines, field),
                    Taken::State => {
                        state = true;
                        lines.push(&mut sending.lines, field);
                    }
                    Taken::Kept => {}
                    Taken::Continued => traced = true,
                }
            }
        }
        lines.flush(&mut sending.lines);
        if state && !traced {
            // A tracestate belongs to a traceparent; without a valid one it means nothing (W3C Trace Context, 3.3).
            sending.forget_tracestate();
        }
        request.sending = Some(sending);
        if request.id.is_empty() {
            request.id = ids.request_id().as_str().into();
        }
        request
    }

    /// What stands for a request that could not be parsed, so that its refusal has a name.
    pub(crate) fn unparsed(bytes: &[u8], ids: &mut Ids) -> Request {
        Request {
            // All that matters of it is whether the answer may have a body.
            method: if bytes.starts_with(b"HEAD ") { "HEAD".into() } else { "".into() },
            id: ids.request_id().as_str().into(),
            ..Request::nothing(TraceContext::begin(ids))
        }
    }

    pub(crate) fn nothing(trace: TraceContext) -> Request {
        Request {
            method: "".into(),
            target: "".into(),
            path_bytes: 0,
            version: Version::Http11,
            body: RequestBody::None,
            keep_alive: false,
            expect_continue: false,
            media: None,
            encoded: false,
            id: "".into(),
            trace,
            timeout_ms: None,
            answer_timeout_ms: None,
            account: None,
            who: 0,
            client: None,
            cross_origin: None,
            degraded: None,
            event_source: false,
            durable: false,
            kept_at: None,
            repeatable: false,
            sending: None,
        }
    }

    /// Takes one field in, and says what becomes of it.
    fn field(&mut self, name: &str, value: &[u8], ids: &mut Ids, sending: &mut Sending) -> Taken {
        let is = |other: &str| is_called(name, other);
        // The first letter rules out nearly all comparisons.
        match name.as_bytes()[0] | 0x20 {
            b'h' if is("host") => return Taken::Kept,
            b'a' if is("accept-encoding") => {
                // Nothing else is compressed here.
                if &*self.method == "GET" {
                    sending.accepted.extend_from_slice(value);
                    sending.accepted.push(b',');
                }
                return Taken::Kept;
            }
            b'a' if is("accept") => {
                self.event_source |=
                    &*self.method == "GET" && memmem::find(value, b"text/event-stream").is_some();
            }
            b'a' if is("authorization") => {
                sending.credentials.authorization = Some(value.to_vec());
                return Taken::Kept;
            }
            b'a' | b'x' | b'o' if matches!(name.len(), 7 | 9 | 14 | 25) => {
                if let Some(field) = credentials::field(name) {
                    sending.credentials.keys.push((field, value.to_vec()));
                    return Taken::Kept;
                }
            }
            b'c' if is("cookie") => {
                let cookie = sending.credentials.cookie.get_or_insert_default();
                if !cookie.is_empty() {
                    cookie.extend_from_slice(b"; ");
                }
                cookie.extend_from_slice(value);
                return Taken::Kept;
            }
            b'x' if is("x-request-id") => {
                if self.id.is_empty() && valid_request_id(value) {
                    self.id = String::from_utf8_lossy(value).into();
                }
                return Taken::Kept;
            }
            b't' if is("traceparent") => {
                let parent = TraceContext::parse(value);
                if let Some(parent) = &parent {
                    self.trace = parent.child(ids);
                }
                return if parent.is_some() { Taken::Continued } else { Taken::Kept };
            }
            b't' if is("tracestate") => return Taken::State,
            // Both are written anew for each upstream: what is left of them.
            b'x' if is("x-request-timeout-ms") => {
                self.timeout_ms = number(value);
                return Taken::Kept;
            }
            b'x' if is("x-stainless-timeout") => {
                self.answer_timeout_ms = seconds(value);
                if self.answer_timeout_ms.is_some() {
                    return Taken::Kept;
                }
            }
            b'c' if is("content-type") => {
                // Of two, some take the first and some the last.
                self.media = Some(match self.media {
                    None => MediaType::of(value),
                    Some(_) => MediaType::Ambiguous,
                });
            }
            b'c' if is("content-encoding") => self.encoded |= !value.eq_ignore_ascii_case(b"identity"),
            b's' if is("sedge-durable") => {
                let is_off = value.is_empty() || value.eq_ignore_ascii_case(b"false");
                self.durable = !is_off;
                let is_id = !is_off && !value.eq_ignore_ascii_case(b"true");
                sending.durable_id = is_id.then(|| String::from_utf8_lossy(value).into());
                return Taken::Kept;
            }
            b'i' if is("idempotency-key") => self.repeatable = true,
            _ => {}
        }
        Taken::PassedOn
    }

    /// The API that its path belongs to.
    pub(crate) fn api(&self) -> Api {
        Api::of(self.path())
    }

    /// Whether it has something made by a model, rather than asks for an object that there is.
    pub(crate) fn is_inference(&self) -> bool {
        &*self.method == "POST" && (media_type::reads_json(self.path()) || self.api() == Api::Gemini)
    }

    /// The form in which its client is told of errors.
    pub(crate) fn error_form(&self) -> ErrorForm<'_> {
        ErrorForm { api: self.api(), request_id: &self.id, event_source: self.event_source }
    }

    /// Whether somebody may read its body as JSON.
    pub(crate) fn may_be_json(&self) -> bool {
        match self.media {
            Some(MediaType::Json | MediaType::Unlabelled) | None => true,
            Some(MediaType::Form) => false,
            Some(MediaType::Opaque | MediaType::Ambiguous) => media_type::reads_json(self.path()),
        }
    }

    /// Whether its body is a form that may name a model.
    pub(crate) fn may_be_form(&self) -> bool {
        self.media == Some(MediaType::Form) && media_type::reads_form(self.path())
    }

    /// Whether its body is JSON to everyone who answers its path.
    pub(crate) fn must_be_json(&self) -> bool {
        match self.media {
            Some(MediaType::Json) => true,
            Some(MediaType::Form) => false,
            _ => media_type::reads_json(self.path()),
        }
    }

    /// The path, without the query: what may be logged.
    pub(crate) fn path(&self) -> &str {
        &self.target[..self.path_bytes]
    }

    /// Whose key it came with, where keys are asked for.
    pub(crate) fn holder(&self) -> Option<&Arc<Holder>> {
        self.account.as_ref()?.holder.as_ref()
    }

    /// Its limits, if it has any.
    pub(crate) fn account(&self) -> Option<&Account> {
        self.account.as_deref()
    }

    /// Its limits, from now on.
    pub(crate) fn account_mut(&mut self) -> &mut Account {
        self.account.get_or_insert_default()
    }

    /// The value of the first field of that name, in lower case, among those that are passed on.
    pub(crate) fn field_value(&self, name: &str) -> Option<&[u8]> {
        self.field_values(name).next()
    }

    /// The values of all fields of that name, likewise.
    pub(crate) fn field_values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.fields().split(|&byte| byte == b'\n').filter_map(move |line| {
            let (field, value) = line.split_at_checked(name.len())?;
            field.eq_ignore_ascii_case(name.as_bytes()).then_some(value.strip_prefix(b":")?.trim_ascii())
        })
    }

    /// The content coding that the client likes best.
    pub(crate) fn coding(&self) -> Coding {
        negotiate([&self.sending().accepted[..]])
    }

    /// Where its client reaches this server, as in `https://edge.example`, if it has said so. What a proxy adds is here only if
    /// that is trusted.
    pub(crate) fn origin(&self, tls: bool) -> Option<String> {
        let said = |name| self.field_value(name).and_then(|value| std::str::from_utf8(value).ok());
        let scheme = match said("x-forwarded-proto") {
            Some(scheme @ ("http" | "https")) => scheme,
            _ if tls => "https",
            _ => "http",
        };
        let asked = std::str::from_utf8(self.host()).ok();
        let host = said("x-forwarded-host").or(asked);
        host.filter(|host| !host.is_empty()).map(|host| format!("{scheme}://{host}"))
    }

    /// Whether the method is HEAD, so that the answer has no body.
    pub(crate) fn is_head(&self) -> bool {
        &*self.method == "HEAD"
    }
}

/// A method, without a copy of those that are known.
fn method(name: &str) -> Cow<'static, str> {
    match name {
        "POST" => "POST".into(),
        "GET" => "GET".into(),
        "HEAD" => "HEAD".into(),
        "PUT" => "PUT".into(),
        "DELETE" => "DELETE".into(),
        other => other.to_owned().into(),
    }
}

/// Seconds, with or without a fraction, in milliseconds.
fn seconds(value: &[u8]) -> Option<u32> {
    let seconds: f64 = std::str::from_utf8(value).ok()?.parse().ok()?;
    // Beyond 32 bits it saturates, which is no limit in effect.
    (seconds > 0.0 && seconds.is_finite()).then_some((seconds * 1000.0).ceil() as u32)
}

fn number(value: &[u8]) -> Option<u32> {
    std::str::from_utf8(value).ok()?.parse().ok().filter(|&ms| ms > 0)
}
