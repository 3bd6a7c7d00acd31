//! The text exposition format of Prometheus, version 0.0.4: what `GET /metrics` answers. Names carry base units and, if
//! they only grow, `_total`; series come in a stable order, so that two scrapes can be compared line by line.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use super::counters::{CoreMetrics, RequestKey};
use super::histogram::{Histogram, Scale, Totals};
use super::labels::LabelId;
use super::outcome::{Outcome, Refusal};
use super::panics;
use super::process::ProcessStats;
use super::registry::Registry;
use super::retry_reason::{Again, Degraded};

/// Appends all metrics to `out`.
pub(crate) fn render(registry: &Registry, out: &mut String) {
    let mut page = Page::new(out);
    about(registry, &mut page);
    connections(registry, &mut page);
    requests(registry, &mut page);
    streams(registry, &mut page);
    upstreams(registry, &mut page);
    latencies(registry, &mut page);
    housekeeping(registry, &mut page);
    process(registry, &mut page);
}

fn about(registry: &Registry, page: &mut Page<'_>) {
    page.family("sedge_build_info", "gauge", "The version that runs; always 1.");
    page.labelled("sedge_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    page.gauge("sedge_ready", "Whether new requests are welcome.", u64::from(registry.is_ready()));
    page.gauge("sedge_cores", "Worker cores.", registry.cores().len() as u64);
    let name = "sedge_core_stuck_seconds";
    page.family(name, "gauge", "How long a core has not run, once that is 5 s or more; 0 while it runs.");
    for (core, ms) in registry.turns.stuck() {
        page.labelled(name, &[("core", &registry.turns.name(core))], ms / 1000);
    }
}

fn connections(registry: &Registry, page: &mut Page<'_>) {
    let sum = |read: fn(&CoreMetrics) -> u64| registry.sum(read);
    page.counter(
        "sedge_connections_accepted_total",
        "Client connections accepted.",
        sum(|core| core.connections_accepted.get()),
    );
    page.counter(
        "sedge_connections_handed_total",
        "Client connections that the core which accepted them has handed to one with fewer.",
        sum(|core| core.connections_handed.get()),
    );
    page.gauge("sedge_connections_open", "Client connections open.", sum(|core| core.connections_open.get()));
    let name = "sedge_core_connections_open";
    page.family(name, "gauge", "Client connections open, by core.");
    for (index, core) in registry.cores().iter().enumerate() {
        page.labelled(name, &[("core", &index.to_string())], core.connections_open.get());
    }
    let name = "sedge_connections_refused_total";
    page.family(name, "counter", "Client connections closed before they could carry a request.");
    for reason in Refusal::ALL {
        let refused = registry.sum(|core| core.connections_refused(reason));
        page.labelled(name, &[("reason", reason.label())], refused);
    }
}

fn requests(registry: &Registry, page: &mut Page<'_>) {
    let sum = |read: fn(&CoreMetrics) -> u64| registry.sum(read);
    page.gauge(
        "sedge_requests_open",
        "Requests whose answer has not ended.",
        sum(|core| core.requests_open.get()),
    );
    let (by_status, by_outcome) = finished(registry);
    let labels = &registry.labels;
    let name = "sedge_requests_total";
    page.family(name, "counter", "Finished requests by the status the client got (0: none).");
    for ((route, upstream, status), count) in by_status {
        let (route, upstream) = (labels.name(route), labels.name(upstream));
        let status = status.to_string();
        page.labelled(name, &[("route", &route), ("upstream", &upstream), ("status", &status)], count);
    }
    let name = "sedge_request_outcomes_total";
    page.family(name, "counter", "Finished requests by how they ended.");
    for ((route, outcome), count) in by_outcome {
        page.labelled(name, &[("route", &labels.name(route)), ("outcome", outcome.label())], count);
    }
    page.counter(
        "sedge_batch_requests_total",
        "Requests of batches that have ended.",
        sum(|core| core.batch_items.get()),
    );
    page.counter(
        "sedge_client_received_bytes_total",
        "Body bytes read from clients.",
        sum(|core| core.bytes_from_clients.get()),
    );
    page.counter(
        "sedge_client_sent_bytes_total",
        "Payload bytes passed on to clients, without heads, framing and heartbeats.",
        sum(|core| core.bytes_to_clients.get()),
    );
}

fn streams(registry: &Registry, page: &mut Page<'_>) {
    let sum = |read: fn(&CoreMetrics) -> u64| registry.sum(read);
    page.gauge(
        "sedge_streams_open",
        "Answers being streamed as events.",
        sum(|core| core.streams_open.get()),
    );
    page.counter(
        "sedge_events_relayed_total",
        "Events passed on to clients.",
        sum(|core| core.events_relayed.get()),
    );
    page.counter(
        "sedge_heartbeats_total",
        "Heartbeats written to clients.",
        sum(|core| core.heartbeats.get()),
    );
}

fn upstreams(registry: &Registry, page: &mut Page<'_>) {
    let sum = |read: fn(&CoreMetrics) -> u64| registry.sum(read);
    page.counter(
        "sedge_upstream_connections_opened_total",
        "Upstream connections established.",
        sum(|core| core.upstream_opened.get()),
    );
    page.counter(
        "sedge_upstream_connections_reused_total",
        "Requests that went out on a pooled connection.",
        sum(|core| core.upstream_reused.get()),
    );
    page.counter(
        "sedge_upstream_connections_stale_total",
        "Pooled connections found closed or too old when they were wanted.",
        sum(|core| core.upstream_discarded_stale.get()),
    );
    page.gauge(
        "sedge_upstream_connections_idle",
        "Pooled connections waiting for a request.",
        sum(|core| core.upstream_idle.get()),
    );
    let name = "sedge_upstream_retries_total";
    page.family(name, "counter", "Requests sent again, to the same upstream or another.");
    for reason in Again::ALL {
        page.labelled(name, &[("reason", reason.label())], registry.sum(|core| core.retries(reason)));
    }
    page.counter(
        "sedge_hedges_total",
        "Second upstreams asked beside a slow first.",
        sum(|core| core.hedges.get()),
    );
    page.counter(
        "sedge_hedges_won_total",
        "Second upstreams that answered before the first.",
        sum(|core| core.hedges_won.get()),
    );
    page.counter(
        "sedge_answers_abandoned_total",
        "Answers whose client left and that were read on.",
        sum(|core| core.answers_abandoned.get()),
    );
    page.counter(
        "sedge_answers_not_kept_total",
        "Answers that were to be durable streams and went on without, for want of room or of storage.",
        sum(|core| core.answers_not_kept.get()),
    );
    page.counter(
        "sedge_answers_drained_total",
        "Answers read to their end although their client had left.",
        sum(|core| core.answers_drained.get()),
    );
    let name = "sedge_degraded_answers_total";
    page.family(name, "counter", "Answers in place of those that were asked for, by what they were.");
    for kind in Degraded::ALL {
        page.labelled(name, &[("kind", kind.label())], registry.sum(|core| core.degraded_answers(kind)));
    }
    let name = "sedge_upstream_retries_withheld_total";
    page.family(name, "counter", "Requests that could have been sent again and were not.");
    page.labelled(name, &[("reason", "budget")], sum(|core| core.retries_over_budget.get()));
    page.labelled(name, &[("reason", "time")], sum(|core| core.retries_too_late.get()));
    page.labelled(name, &[("reason", "body")], sum(|core| core.retries_body_too_large.get()));
    page.labelled(name, &[("reason", "memory")], sum(|core| core.retries_no_memory.get()));
    page.counter(
        "sedge_bodies_over_share_total",
        "Requests refused because bodies of the same client hold as much memory as is left for all.",
        sum(|core| core.bodies_over_share.get()),
    );
}

fn latencies(registry: &Registry, page: &mut Page<'_>) {
    page.histogram(
        "sedge_time_to_first_token_seconds",
        "From a request's head to the first content of its stream: text, a tool call, a reason to end. Streams that say nothing, errors and responses that are no streams are not counted.",
        registry,
        |core| &core.time_to_first_token,
    );
    page.histogram(
        "sedge_time_per_output_token_seconds",
        "Between the events of a stream, from its first content on.",
        registry,
        |core| &core.time_per_output_token,
    );
    page.histogram(
        "sedge_request_duration_seconds",
        "From a request's head to the last byte of its answer.",
        registry,
        |core| &core.request_duration,
    );
    page.histogram(
        "sedge_overhead_seconds",
        "Of a request's time, what was spent in sedge itself.",
        registry,
        |core| &core.overhead,
    );
}

fn housekeeping(registry: &Registry, page: &mut Page<'_>) {
    let sum = |read: fn(&CoreMetrics) -> u64| registry.sum(read);
    page.gauge(
        "sedge_buffers_in_use",
        "Blocks of 16 KiB with bytes in flight.",
        sum(|core| core.buffers_in_use.get()),
    );
    page.gauge(
        "sedge_partial_head_bytes",
        "Bytes held for heads of requests that have begun and are not there yet.",
        sum(|core| core.partial_head_bytes.get()),
    );
    page.counter(
        "sedge_buffers_allocated_total",
        "Blocks allocated because the free list was empty.",
        sum(|core| core.buffers_allocated.get()),
    );
    let name = "sedge_access_log_lines_dropped_total";
    page.family(name, "counter", "Access-log lines that were not written.");
    let behind = sum(|core| core.access_log_dropped.get());
    page.labelled(name, &[("reason", "writer_behind")], behind);
    page.labelled(name, &[("reason", "write_error")], registry.access_log_lines_lost.get());
    page.counter(
        "sedge_access_log_write_errors_total",
        "Failures to write or reopen the access log.",
        registry.access_log_write_errors.get(),
    );
    let name = "sedge_config_reloads_total";
    page.family(name, "counter", "Reloads of the configuration.");
    page.labelled(name, &[("result", "ok")], registry.reloads_ok.get());
    page.labelled(name, &[("result", "failed")], registry.reloads_failed.get());
    page.counter(
        "sedge_handovers_failed_total",
        "New processes that were to take over from this one and did not come to serve.",
        registry.handovers_failed.get(),
    );
    page.counter(
        "sedge_panics_total",
        "Bugs of this program that came to light: each has ended one request or task, and is told on standard error.",
        panics::count(),
    );
}

fn process(registry: &Registry, page: &mut Page<'_>) {
    let stats = ProcessStats::read();
    page.gauge(
        "process_start_time_seconds",
        "When the process started, in seconds since 1970.",
        registry.started_unix_ms() as f64 / 1e3,
    );
    page.counter("process_cpu_seconds_total", "CPU time, user and system.", stats.cpu_seconds);
    if let Some(bytes) = stats.resident_bytes {
        page.gauge("process_resident_memory_bytes", "Resident memory.", bytes);
    }
    if let Some(fds) = stats.open_fds {
        page.gauge("process_open_fds", "Open file descriptors.", fds);
    }
    if let Some(fds) = stats.max_fds {
        page.gauge("process_max_fds", "The most file descriptors that may be open.", fds);
    }
}

/// The finished requests of all cores. Each core's lock is held for the copy of its two maps alone.
fn finished(registry: &Registry) -> (BTreeMap<RequestKey, u64>, BTreeMap<(LabelId, Outcome), u64>) {
    let (mut by_status, mut by_outcome) = (BTreeMap::new(), BTreeMap::new());
    for core in registry.cores() {
        let finished = core.finished();
        for (key, count) in &finished.by_status {
            *by_status.entry(*key).or_default() += count;
        }
        for (key, count) in &finished.by_outcome {
            *by_outcome.entry(*key).or_default() += count;
        }
    }
    (by_status, by_outcome)
}

/// The page being written. Writing into a `String` cannot fail, hence the ignored results.
#[derive(Debug)]
pub(crate) struct Page<'a> {
    out: &'a mut String,
}

impl<'a> Page<'a> {
    /// Appends to `out`.
    pub(crate) fn new(out: &'a mut String) -> Page<'a> {
        Page { out }
    }

    /// What `name` is and tells; its series follow.
    pub(crate) fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// A counter without labels.
    pub(crate) fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "counter", help);
        let _ = writeln!(self.out, "{name} {value}");
    }

    /// A gauge without labels.
    pub(crate) fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        let _ = writeln!(self.out, "{name} {value}");
    }

    /// One of its series.
    pub(crate) fn labelled(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        self.out.push_str(name);
        let mut separator = '{';
        for (label, text) in labels {
            self.out.push(separator);
            separator = ',';
            self.out.push_str(label);
            self.out.push_str("=\"");
            escape_label(self.out, text);
            self.out.push('"');
        }
        let _ = writeln!(self.out, "}} {value}");
    }

    /// The sum of a histogram over all cores.
    fn histogram<S: Scale>(
        &mut self,
        name: &str,
        help: &str,
        registry: &Registry,
        of: impl Fn(&CoreMetrics) -> &Histogram<S>,
    ) {
        let mut totals = Totals::default();
        for core in registry.cores() {
            of(core).add_to(&mut totals);
        }
        self.totals::<S>(name, help, &totals);
    }

    /// A histogram over the bounds of `S`. Microseconds become seconds by a division of two exact numbers, whose shortest
    /// decimal form is the bound as people write it: 0.025, never 0.024999.
    pub(crate) fn totals<S: Scale>(&mut self, name: &str, help: &str, totals: &Totals) {
        self.family(name, "histogram", help);
        let mut cumulative = 0;
        for (bound, in_bucket) in S::BOUNDS_US.iter().zip(totals.buckets) {
            cumulative += in_bucket;
            let _ = writeln!(self.out, "{name}_bucket{{le=\"{}\"}} {cumulative}", *bound as f64 / 1e6);
        }
        let count = totals.count();
        let sum = totals.sum_us as f64 / 1e6;
        let _ = writeln!(
            self.out,
            "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {sum}\n{name}_count {count}"
        );
    }
}

/// Label values escape the backslash, the double quote and the line feed.
fn escape_label(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            _ => out.push(c),
        }
    }
}
