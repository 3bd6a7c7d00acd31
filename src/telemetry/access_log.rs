//! The access log as a core sees it: one JSON line a request, formatted at the request's end into the core's own buffer
//! and handed to the [`LogWriter`] in batches, every tick or when a batch is full. The core never waits: when the writer
//! cannot keep up, the buffer grows to [`LOG_BUFFER_BYTES`] and then lines are dropped and counted.
//!
//! A line holds no key, no prompt, no answer and no query string.

#[cfg(test)]
#[path = "access_log_tests.rs"]
pub(crate) mod tests;

use std::io::Write;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use memchr::memchr2;

use super::counters::CoreMetrics;
use super::json_line::{Object, decimal, key, three_digits};
use super::log_writer::{Batch, LogWriter, Message};
use super::outcome::Outcome;

/// The most bytes a core holds back while the writer is behind.
pub(crate) const LOG_BUFFER_BYTES: usize = 1024 * 1024;

/// A batch is handed over before the tick when it has this many bytes.
pub(crate) const LOG_BATCH_BYTES: usize = 64 * 1024;

/// Room for a line of the usual length.
const USUAL_LINE_BYTES: usize = 768;

/// The buffers of a core that may be on their way back from the writer.
const RECYCLED_BUFFERS: usize = 4;

/// What is told of a request. Values that a peer chose are escaped and cut to 1024 bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    /// When the request ended, in milliseconds since 1970.
    pub(crate) unix_ms: u64,
    /// Our id of the request, or the client's.
    pub(crate) request_id: &'a str,
    /// The trace it belongs to, in hexadecimal digits ([`TraceContext::trace_id_hex`]); may be empty.
    ///
    /// [`TraceContext::trace_id_hex`]: super::TraceContext::trace_id_hex
    pub(crate) trace_id: &'a [u8],
    /// The client's address.
    pub(crate) client: Option<IpAddr>,
    /// The name of the client's key.
    pub(crate) key: Option<&'a str>,
    /// The request's method.
    pub(crate) method: &'a str,
    /// The request's target; a query is cut off here, whatever the caller did.
    pub(crate) path: &'a str,
    /// The route's name; empty if none matched.
    pub(crate) route: &'a str,
    /// The name of the upstream that was asked last; empty if none was.
    pub(crate) upstream: &'a str,
    /// The model as the client named it.
    pub(crate) model: Option<&'a str>,
    /// Whether the client asked for a stream.
    pub(crate) stream: bool,
    /// The status the client got; 0 when it got none.
    pub(crate) status: u16,
    /// How it ended.
    pub(crate) outcome: Outcome,
    /// Body bytes read from the client.
    pub(crate) bytes_in: u64,
    /// Payload bytes written to the client.
    pub(crate) bytes_out: u64,
    /// Events passed on.
    pub(crate) events: u64,
    /// Upstream connections tried.
    pub(crate) attempts: u32,
    /// What was answered in place of what was asked for.
    pub(crate) degraded: Option<&'a str>,
    /// The attempts before the last, each with its upstream and why it failed.
    pub(crate) tried: Option<&'a str>,
    /// Why it was not sent again when it would have been: its body was not kept.
    pub(crate) not_retried: Option<&'a str>,
    /// The addresses at which no connection came about, each with its upstream and why. For operators: no client is told.
    pub(crate) connect_errors: Option<&'a str>,
    /// From the request's head to the response's, in microseconds.
    pub(crate) first_byte_us: Option<u64>,
    /// From the request's head to the first content of a stream, in microseconds.
    pub(crate) first_token_us: Option<u64>,
    /// From the request's head to its end, in microseconds.
    pub(crate) total_us: u64,
    /// Tokens of the prompt, as the upstream counted them.
    pub(crate) prompt_tokens: Option<u64>,
    /// Tokens of the answer.
    pub(crate) completion_tokens: Option<u64>,
    /// Both together.
    pub(crate) total_tokens: Option<u64>,
    /// The upstream's own id of the request.
    pub(crate) upstream_request_id: Option<&'a str>,
    /// Why the model stopped.
    pub(crate) finish_reason: Option<&'static str>,
    /// The `code` of the error sent to the client.
    pub(crate) error_code: Option<&'static str>,
    /// The limit that the request was refused for: whose, and on what.
    pub(crate) limited: Option<&'a str>,
}

/// One core's end of the access log. Dropping it hands over what is left.
#[derive(Debug)]
pub(crate) struct AccessLog {
    buffer: Vec<u8>,
    clock: Stamp,
    lines: u64,
    to_writer: SyncSender<Message>,
    recycled: Receiver<Vec<u8>>,
    recycle: SyncSender<Vec<u8>>,
    metrics: Arc<CoreMetrics>,
}

impl AccessLog {
    /// The log of the core that owns `metrics`, where dropped lines are counted.
    pub(crate) fn new(writer: &LogWriter, metrics: Arc<CoreMetrics>) -> AccessLog {
        let (recycle, recycled) = sync_channel(RECYCLED_BUFFERS);
        AccessLog {
            buffer: Vec::new(),
            clock: Stamp::default(),
            lines: 0,
            to_writer: writer.sender(),
            recycled,
            recycle,
            metrics,
        }
    }

    /// Writes a request's line into the core's buffer.
    pub(crate) fn record(&mut self, record: &Record<'_>) {
        if self.buffer.len() >= LOG_BATCH_BYTES {
            self.flush();
        }
        if self.buffer.len() >= LOG_BUFFER_BYTES {
            self.metrics.access_log_dropped.inc();
            return;
        }
        if self.buffer.capacity() == 0 {
            // All at once: what grows by doubling is copied each time.
            self.buffer.reserve(LOG_BATCH_BYTES + USUAL_LINE_BYTES);
        }
        write_line(&mut self.buffer, &mut self.clock, record);
        self.lines += 1;
    }

    /// Hands the lines so far to the writer, if it has room for them; else they stay for the next time. Never waits.
    pub(crate) fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        let bytes = std::mem::take(&mut self.buffer);
        let batch = Batch { bytes, lines: self.lines, home: self.recycle.clone() };
        match self.to_writer.try_send(Message::Batch(batch)) {
            Ok(()) => self.buffer = self.recycled.try_recv().unwrap_or_default(),
            Err(TrySendError::Full(Message::Batch(batch))) => {
                self.buffer = batch.bytes;
                return;
            }
            Err(_) => self.metrics.access_log_dropped.add(self.lines),
        }
        self.lines = 0;
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.flush();
        // What the writer has no room for now is lost with its core; `flush` has set this to 0 otherwise.
        self.metrics.access_log_dropped.add(self.lines);
    }
}

/// Appends one record as a line of JSON.
fn write_line(out: &mut Vec<u8>, clock: &mut Stamp, record: &Record<'_>) {
    let path = record.path.as_bytes();
    let path = &path[..memchr2(b'?', b'#', path).unwrap_or(path.len())];
    out.reserve(USUAL_LINE_BYTES);
    let mut line = Object::begin(out);
    line.plain(key!("ts"), |out| clock.write(out, record.unix_ms));
    line.string(key!("request_id"), record.request_id.as_bytes());
    if !record.trace_id.is_empty() {
        line.word(key!("trace_id"), record.trace_id);
    }
    if let Some(client) = record.client {
        line.plain(key!("client"), |out| write_address(out, client.to_canonical()));
    }
    optional(&mut line, key!("key"), record.key);
    line.string(key!("method"), record.method.as_bytes());
    line.string(key!("path"), path);
    optional(&mut line, key!("route"), named(record.route));
    optional(&mut line, key!("upstream"), named(record.upstream));
    optional(&mut line, key!("model"), record.model);
    line.bool(key!("stream"), record.stream);
    line.number(key!("status"), record.status.into());
    line.word(key!("outcome"), record.outcome.label().as_bytes());
    line.number(key!("bytes_in"), record.bytes_in);
    line.number(key!("bytes_out"), record.bytes_out);
    line.number(key!("events"), record.events);
    line.number(key!("attempts"), record.attempts.into());
    optional(&mut line, key!("tried"), record.tried);
    optional(&mut line, key!("not_retried"), record.not_retried);
    optional(&mut line, key!("connect_errors"), record.connect_errors);
    optional(&mut line, key!("degraded"), record.degraded);
    line.milliseconds(key!("first_byte_ms"), record.first_byte_us);
    if record.first_token_us.is_some() {
        line.milliseconds(key!("first_token_ms"), record.first_token_us);
    }
    line.milliseconds(key!("total_ms"), Some(record.total_us));
    let tokens = [
        (key!("prompt_tokens"), record.prompt_tokens),
        (key!("completion_tokens"), record.completion_tokens),
        (key!("total_tokens"), record.total_tokens),
    ];
    for (key, count) in tokens {
        if let Some(count) = count {
            line.number(key, count);
        }
    }
    optional(&mut line, key!("upstream_request_id"), record.upstream_request_id);
    for (key, word) in
        [(key!("finish_reason"), record.finish_reason), (key!("error_code"), record.error_code)]
    {
        if let Some(word) = word {
            line.word(key, word.as_bytes());
        }
    }
    optional(&mut line, key!("limited"), record.limited);
    line.end_line();
}

fn optional(line: &mut Object<'_>, key: &'static str, value: Option<&str>) {
    if let Some(value) = value {
        line.string(key, value.as_bytes());
    }
}

fn named(name: &str) -> Option<&str> {
    (!name.is_empty()).then_some(name)
}

/// Writes times as RFC 3339 in UTC with milliseconds; all but these are the same for a second's lines.
#[derive(Debug, Default)]
struct Stamp {
    second: u64,
    /// `1970-01-01T00:00:00.`, or nothing yet.
    text: Vec<u8>,
}

impl Stamp {
    fn write(&mut self, out: &mut Vec<u8>, unix_ms: u64) {
        let second = unix_ms / 1000;
        if self.text.is_empty() || self.second != second {
            self.second = second;
            self.renew();
        }
        out.extend_from_slice(&self.text);
        let [a, b, c] = three_digits(unix_ms % 1000);
        out.extend_from_slice(&[a, b, c, b'Z']);
    }

    fn renew(&mut self) {
        let (days, second) = (self.second / 86_400, self.second % 86_400);
        let (year, month, day) = civil_date(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        self.text.clear();
        for (value, width, end) in [
            (year, 4, b'-'),
            (month, 2, b'-'),
            (day, 2, b'T'),
            (hour, 2, b':'),
            (minute, 2, b':'),
            (second, 2, b'.'),
        ] {
            decimal(&mut self.text, value, width);
            self.text.push(end);
        }
    }
}

fn write_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        // By hand: the formatter takes five times as long for these four numbers.
        IpAddr::V4(address) => {
            for (at, octet) in address.octets().into_iter().enumerate() {
                if at > 0 {
                    out.push(b'.');
                }
                decimal(out, octet.into(), 1);
            }
        }
        // Writing into a vector cannot fail.
        IpAddr::V6(address) => drop(write!(out, "{address}")),
    }
}

/// Year, month and day of a day counted from 1970-01-01. Years are counted from March, so that the leap day is the last
/// of its year and a month's first day is a linear function of the month.
fn civil_date(days: u64) -> (u64, u64, u64) {
    const DAYS_IN_400_YEARS: u64 = 146_097;
    // From 0000-03-01 to 1970-01-01.
    let days = days + 719_468;
    let (era, day_of_era) = (days / DAYS_IN_400_YEARS, days % DAYS_IN_400_YEARS);
    // Days without the leap days before them: one each 1460 (4 years), none each 36524 (100), one each 146096 (400).
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Five months from March on have 153 days.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}
