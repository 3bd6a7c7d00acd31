//! What is remembered of a request for its line in the log and its place in the metrics.

use std::fmt;
use std::fmt::Write;

use super::context::Core;
use super::pump::Download;
use super::request::Request;
use super::request::replay_buffer::LetGo;
use crate::downstream::deadlines::Timeout;
use crate::proto::openai::{FinishReason, Usage};
use crate::runtime::clock::{Micros, unix_millis};
use crate::telemetry::{Degraded, LabelId, Outcome, Record};

/// Beyond so many bytes no more addresses are noted: the log cuts them.
const CONNECT_ERRORS_BYTES_MAX: usize = 1024;

/// The books of one request.
pub(crate) struct Ledger {
    began: Micros,
    /// When the head of the upstream's response came.
    pub(crate) first_byte: Option<Micros>,
    /// When its stream said its first.
    first_token: Option<Micros>,
    /// Spent here between the request's head and its being written to the upstream, and between the first byte of the answer
    /// and its being written to the client.
    pub(crate) overhead: Micros,
    /// The route taken.
    pub(crate) route: LabelId,
    /// The upstream asked last.
    pub(crate) upstream: LabelId,
    /// What the client was answered; 0 for nothing.
    pub(crate) status: u16,
    /// The client's word for the model.
    pub(crate) model: Option<String>,
    /// The client asked for a stream.
    pub(crate) stream: bool,
    /// Body bytes from the client.
    pub(crate) bytes_in: u64,
    /// Payload bytes to the client.
    pub(crate) bytes_out: u64,
    /// Events to the client.
    pub(crate) events: u64,
    /// Times an upstream was asked.
    pub(crate) attempts: u32,
    /// The attempts that failed and were followed by another: the upstream and why. Boxed, since there are none mostly.
    #[expect(clippy::box_collection, reason = "a pointer where three words would be kept by every stream")]
    pub(crate) tried: Option<Box<String>>,
    /// Why it could not be sent again when it would have been.
    pub(crate) let_go: Option<LetGo>,
    /// The addresses at which no connection came about, each with its upstream and why. Boxed likewise.
    #[expect(clippy::box_collection, reason = "likewise")]
    pub(crate) connect_errors: Option<Box<String>>,
    /// The upstream's own name for the request.
    pub(crate) upstream_request_id: Option<String>,
    /// The `code` of the error that was answered here.
    pub(crate) error: Option<&'static str>,
    usage: Option<Usage>,
    finish_reason: Option<FinishReason>,
}

impl Ledger {
    /// Opens the books at `began`.
    pub(crate) fn new(began: Micros) -> Ledger {
        Ledger {
            began,
            first_byte: None,
            first_token: None,
            overhead: 0,
            route: LabelId::NONE,
            upstream: LabelId::NONE,
            status: 0,
            model: None,
            stream: false,
            bytes_in: 0,
            bytes_out: 0,
            events: 0,
            attempts: 0,
            tried: None,
            let_go: None,
            connect_errors: None,
            upstream_request_id: None,
            error: None,
            usage: None,
            finish_reason: None,
        }
    }

    /// When the request's head was complete.
    pub(crate) fn began(&self) -> Micros {
        self.began
    }

    /// The attempt at the upstream asked last has failed, and another follows.
    pub(crate) fn failed(&mut self, why: impl fmt::Display, core: &Core) {
        self.failed_by(self.upstream, why, core);
    }

    /// Likewise, of an attempt at the upstream of that label.
    pub(crate) fn failed_by(&mut self, upstream: LabelId, why: impl fmt::Display, core: &Core) {
        let name = core.shared.registry.labels.name(upstream);
        let tried = self.tried.get_or_insert_default();
        let separator = if tried.is_empty() { "" } else { ", " };
        let _ = write!(tried, "{separator}{name}: {why}");
    }

    /// No connection to the upstream asked last came about at some of its addresses.
    pub(crate) fn connect_failed(&mut self, addresses: &str, core: &Core) {
        let name = core.shared.registry.labels.name(self.upstream);
        let errors = self.connect_errors.get_or_insert_default();
        if errors.len() < CONNECT_ERRORS_BYTES_MAX {
            let separator = if errors.is_empty() { "" } else { "; " };
            let _ = write!(errors, "{separator}{name} {addresses}");
        }
    }

    /// The tokens that the answer says it took.
    pub(crate) fn tokens(&self) -> Option<u64> {
        self.usage.map(|usage| usage.total)
    }

    /// Takes over what an answer amounted to.
    pub(crate) fn answer(&mut self, download: &Download) {
        self.bytes_out = download.bytes;
        self.events = download.events;
        self.usage(download);
    }

    /// What it says of itself, and no more: what nobody was sent is not counted as sent.
    pub(crate) fn usage(&mut self, download: &Download) {
        let sideband = download.look_at().sideband();
        self.usage = sideband.and_then(|sideband| sideband.usage());
        self.finish_reason = sideband.and_then(|sideband| sideband.finish_reason());
        self.first_token = download.first_content();
    }

    /// Closes them. The client is who asked, or for whom a trusted proxy asked.
    pub(crate) fn close(self, outcome: Outcome, request: &Request, client: std::net::IpAddr, core: &Core) {
        let now = core.shard.clock.micros();
        let metrics = &core.metrics;
        let total = now - self.began;
        metrics.request_finished(self.route, self.upstream, self.status, outcome);
        if let Some(kind) = request.degraded {
            metrics.degraded(kind);
        }
        metrics.bytes_from_clients.add(self.bytes_in);
        if let Some(first) = self.first_token {
            metrics.time_to_first_token.observe_us(first - self.began);
        }
        if self.first_byte.is_some() {
            metrics.overhead.observe_us(self.overhead);
        }
        if outcome != Outcome::Local {
            metrics.request_duration.observe_us(total);
        }
        let Some(log) = &mut *core.log.borrow_mut() else { return };
        let labels = &core.shared.registry.labels;
        let name = |id| if id == LabelId::NONE { None } else { Some(labels.name(id)) };
        let (route, upstream) = (name(self.route), name(self.upstream));
        let trace_id = request.trace.trace_id_hex();
        log.record(&Record {
            unix_ms: unix_millis(),
            request_id: &request.id,
            trace_id: &trace_id,
            client: Some(request.client.unwrap_or(client)),
            key: request.holder().map(|holder| &holder.name[..]),
            method: &request.method,
            path: request.path(),
            route: route.as_deref().unwrap_or_default(),
            upstream: upstream.as_deref().unwrap_or_default(),
            model: self.model.as_deref(),
            stream: self.stream,
            status: self.status,
            outcome,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            events: self.events,
            attempts: self.attempts,
            degraded: request.degraded.map(Degraded::label),
            tried: self.tried.as_deref().map(String::as_str),
            not_retried: self.let_go.map(LetGo::label),
            connect_errors: self.connect_errors.as_deref().map(String::as_str),
            first_byte_us: self.first_byte.map(|first| first - self.began),
            first_token_us: self.first_token.map(|first| first - self.began),
            total_us: total,
            prompt_tokens: self.usage.map(|usage| usage.prompt),
            completion_tokens: self.usage.map(|usage| usage.completion),
            total_tokens: self.usage.map(|usage| usage.total),
            upstream_request_id: self.upstream_request_id.as_deref(),
            finish_reason: self.finish_reason.map(FinishReason::label),
            error_code: self.error,
            limited: request.account().and_then(|account| account.limited.as_deref()),
        });
    }
}

/// How a request that ran into a limit has ended.
pub(crate) fn outcome_of(timeout: Timeout) -> Outcome {
    match timeout {
        Timeout::Connect => Outcome::TimeoutConnect,
        Timeout::UpstreamTls => Outcome::TimeoutTls,
        Timeout::RequestBody | Timeout::RequestHead | Timeout::KeepAlive => Outcome::TimeoutRequestBody,
        Timeout::FirstByte => Outcome::TimeoutFirstByte,
        Timeout::Idle => Outcome::TimeoutIdle,
        Timeout::Total => Outcome::TimeoutTotal,
        Timeout::ClientStall => Outcome::ClientStalled,
        Timeout::Authority => Outcome::Refused,
        Timeout::Drain => Outcome::Drained,
    }
}
