//! `POST /v1/sedge/batch`: several requests at once, answered as one event stream.
//!
//! ```text
//! receive ──► plan ──► head ──► ┌── start what there is room for
//!    │          │               ├── wait: something of a request, the client, a limit ──► write it, all of it
//!    └──────────┴─ 4xx          └── until every request has its outcome ──► [DONE]
//! ```
//!
//! Each request goes through a pair of sockets to the same front door as every other ([`item`]): keys, routes, limits, retries,
//! log and metrics are those of a request of its own, and nothing of them is known here. The batch's task reads from their
//! answers only what its client has taken: a client that does not read stops the requests, and they their upstreams. When it
//! leaves, the sockets close, and each request finds its client gone.
//!
//! What may never happen: a request that has no outcome, or two; a stream that ends with `[DONE]` before all have one.

pub(crate) mod item;
pub(crate) mod plan;

use std::net::IpAddr;
use std::ops::Range;
use std::rc::Rc;
use std::task::{Context, Poll};

use self::item::{Item, Outcome as ItemOutcome};
use self::plan::Plan;
use crate::config::Config;
use crate::downstream::connection::Client;
use crate::downstream::deadlines::Timeout;
use crate::downstream::outbox::{Beat, write_all};
use crate::edge::request_body;
use crate::proto::http1::Version;
use crate::proto::openai::ApiError;
use crate::proto::sse::Scanner;
use crate::relay::context::Core;
use crate::relay::exchange::{After, millis};
use crate::relay::pump::Framing;
use crate::relay::request::Request;
use crate::relay::request::outbound_headers::Left;
use crate::relay::request_record::{Ledger, outcome_of};
use crate::relay::response_head;
use crate::runtime::clock::{Micros, Millis};
use crate::telemetry::Outcome;
use crate::upstream::client::{Stop, guarded};

/// Where batches are asked for.
pub(crate) const PATH: &str = "/v1/sedge/batch";

/// The largest body of a batch.
const BODY_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What is gathered for one write: beyond it the other requests have to wait for the next.
const OUT_BYTES: usize = 64 * 1024;

/// Requests keep the batch's time themselves, and tell more of how they ended; this is for those that do not.
const GRACE_MS: Millis = 250;

/// Whether `request` is a batch.
pub(crate) fn is_batch(request: &Request) -> bool {
    request.path() == PATH
}

/// Answers a batch.
pub(crate) async fn answer(
    client: &Client,
    core: &Rc<Core>,
    request: &Request,
    peer: IpAddr,
    began: Micros,
) -> After {
    let settings = core.settings();
    let mut ledger = Ledger::new(began);
    let received = match is_refused(request) {
        Some(error) => Err(error.into()),
        None => request_body::receive(client, core, request, BODY_BYTES_MAX, &mut ledger).await,
    };
    let body = match received {
        Ok(body) => body,
        Err(failure) => {
            return request_body::refuse(client, core, request, peer, ledger, failure, false).await;
        }
    };
    let plan = match Plan::read(&body) {
        Ok(plan) => plan,
        Err(error) => {
            return request_body::refuse(client, core, request, peer, ledger, error.into(), true).await;
        }
    };
    let framing = if request.version == Version::Http10 { Framing::Close } else { Framing::Chunked };
    let keep = response_head::keeps(request, framing, core);
    (ledger.status, ledger.stream) = (200, true);
    let mut batch = Batch::new(client, core, request, peer, &plan, framing, &settings.config, began);
    let head = response_head::early(request, framing, keep, core);
    let written = match write_all(client, &core.shard, &head).await {
        Ok(()) => batch.run(millis(settings.config.heartbeat)).await,
        Err(stop) => Err(stop),
    };
    (ledger.events, ledger.bytes_out) = (batch.events, batch.bytes);
    drop(batch);
    core.metrics.heartbeats.add(client.take_beats().into());
    client.set_beat(Beat::Hold);
    client.deadlines.reset();
    let (outcome, after) = match written {
        Ok(()) => (Outcome::Finished, if keep { After::Next } else { After::Close }),
        Err(Stop::Timeout(timeout)) => (outcome_of(timeout), After::Abort),
        Err(_) => (Outcome::ClientGone, After::Abort),
    };
    ledger.close(outcome, request, peer, core);
    after
}

fn is_refused(request: &Request) -> Option<ApiError> {
    if &*request.method != "POST" {
        return Some(ApiError::new(405, "method_not_allowed", "A batch is sent with POST."));
    }
    if request.encoded {
        let message = "The batch is compressed. Send it without Content-Encoding.";
        return Some(ApiError::new(415, "unsupported_content_encoding", message));
    }
    None
}

/// A batch that is being answered.
struct Batch<'a> {
    client: &'a Client,
    core: &'a Rc<Core>,
    request: &'a Request,
    peer: IpAddr,
    plan: &'a Plan<'a>,
    framing: Framing,
    /// When it must be over, and when its answers must have begun; 0 for never.
    until: Millis,
    answer_until: Millis,
    /// Those that have not been started.
    waiting: Range<usize>,
    running: Vec<Item>,
    /// Who is looked at first, so that a talkative request does not keep others from being heard.
    turn: usize,
    /// Nothing of an answer is passed on before one has won.
    race: bool,
    events: u64,
    bytes: u64,
}

impl<'a> Batch<'a> {
    #[expect(clippy::too_many_arguments, reason = "what surrounds a batch, each borrowed for itself")]
    fn new(
        client: &'a Client,
        core: &'a Rc<Core>,
        request: &'a Request,
        peer: IpAddr,
        plan: &'a Plan<'a>,
        framing: Framing,
        config: &Config,
        began: Micros,
    ) -> Batch<'a> {
        let total = Some(millis(config.timeouts.total)).filter(|&limit| limit > 0);
        let limit = total.into_iter().chain(request.timeout_ms).chain(plan.timeout_ms).min();
        let at = |limit: Option<u32>| limit.map_or(0, |limit| began / 1000 + Millis::from(limit));
        Batch {
            client,
            core,
            request,
            peer,
            plan,
            framing,
            until: at(limit),
            answer_until: at(request.answer_timeout_ms),
            waiting: 0..plan.lines.len(),
            running: Vec::with_capacity(plan.concurrency),
            turn: 0,
            race: plan.first,
            events: 0,
            bytes: 0,
        }
    }

    /// To its end: every request has its outcome, and the client has all of it.
    async fn run(&mut self, heartbeat: u32) -> Result<(), Stop> {
        let (client, core) = (self.client, self.core);
        client.deadlines.total(if self.until > 0 { self.until + GRACE_MS } else { 0 });
        client.deadlines.heartbeat(core.shard.clock.millis(), heartbeat);
        client.set_beat(self.framing.beat());
        client.arm();
        let mut out = Vec::new();
        loop {
            self.start(&mut out);
            if out.is_empty() && !self.running.is_empty() {
                match guarded(client, |cx| self.poll(cx, &mut out)).await {
                    Ok(()) => {}
                    Err(Stop::Timeout(timeout)) if timeout != Timeout::ClientStall => {
                        return self.end_at_once(timeout, out).await;
                    }
                    Err(stop) => return Err(stop),
                }
            }
            if self.running.is_empty() && self.waiting.is_empty() {
                return self.close(out).await;
            }
            if !out.is_empty() {
                self.write(&out).await?;
                out.clear();
            }
        }
    }

    /// Starts as many as may run at once.
    fn start(&mut self, out: &mut Vec<u8>) {
        while self.running.len() < self.plan.concurrency
            && let Some(index) = self.waiting.next()
        {
            match self.begin(index) {
                Ok(item) => self.running.push(item),
                Err(error) => self.tell(index, &ItemOutcome::of(&error), out),
            }
        }
    }

    fn begin(&self, index: usize) -> Result<Item, ApiError> {
        let now = self.core.shard.clock.millis();
        let left = |until: Millis| match until {
            0 => Ok(None),
            until if until > now => Ok(Some(until - now)),
            _ => Err(out_of_time()),
        };
        let left = Left { total: left(self.until)?, answer: left(self.answer_until)? };
        if self.core.shared.is_draining() {
            return Err(ApiError::draining());
        }
        let line = &self.plan.lines[index];
        let request = item::request(self.request, index, line.url(), line.body(), left);
        let stream = crate::edge::inside(self.core, self.peer).map_err(|_| ApiError::overloaded())?;
        Ok(Item::new(index, stream, request, self.race))
    }

    /// Ready when something has come of one of them.
    fn poll(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<()> {
        let (mut moved, mut ended, mut winner) = (false, Vec::new(), None);
        let running = self.running.len();
        self.turn = (self.turn + 1) % running.max(1);
        for place in 0..running {
            let item = &mut self.running[(self.turn + place) % running];
            let Poll::Ready(outcome) = item.poll(cx, self.core, out) else { continue };
            moved = true;
            let good = outcome.as_ref().map_or(item.spoke, ItemOutcome::is_good);
            if self.race && good {
                item.win(out);
                winner = Some(item.index);
            }
            ended.extend(outcome.map(|outcome| (item.index, outcome)));
            if winner.is_some() || out.len() >= OUT_BYTES {
                break;
            }
        }
        for (index, outcome) in ended {
            self.running.retain(|item| item.index != index);
            self.tell(index, &outcome, out);
        }
        if let Some(winner) = winner {
            self.race = false;
            self.cancel_all_but(winner, out);
        }
        if moved { Poll::Ready(()) } else { Poll::Pending }
    }

    /// One was the first: the others' sockets close, and their upstreams are cancelled.
    fn cancel_all_but(&mut self, winner: usize, out: &mut Vec<u8>) {
        let losers: Vec<usize> =
            self.running.iter().map(|item| item.index).filter(|index| *index != winner).collect();
        self.running.retain(|item| item.index == winner);
        for index in losers.into_iter().chain(std::mem::replace(&mut self.waiting, 0..0)) {
            self.tell(index, &ItemOutcome::cancelled(), out);
        }
    }

    fn tell(&mut self, index: usize, outcome: &ItemOutcome, out: &mut Vec<u8>) {
        self.core.metrics.batch_items.inc();
        outcome.write(index, self.plan.lines[index].custom_id.as_deref(), out);
    }

    /// The time is over: all that have no outcome get one.
    async fn end_at_once(&mut self, timeout: Timeout, mut out: Vec<u8>) -> Result<(), Stop> {
        let error = if timeout == Timeout::Drain { ApiError::draining() } else { out_of_time() };
        let left: Vec<usize> = self.running.drain(..).map(|item| item.index).collect();
        for index in left.into_iter().chain(std::mem::replace(&mut self.waiting, 0..0)) {
            self.tell(index, &ItemOutcome::of(&error), &mut out);
        }
        self.client.deadlines.last_words(self.core.shard.clock.millis());
        self.client.arm();
        self.close(out).await
    }

    /// The last words, and the end of the body.
    async fn close(&mut self, mut out: Vec<u8>) -> Result<(), Stop> {
        self.client.set_beat(Beat::Hold);
        out.extend_from_slice(b"data: [DONE]\n\n");
        self.count(&out);
        let mut bytes = self.framing.event(&out);
        if self.framing == Framing::Chunked {
            bytes.extend_from_slice(b"0\r\n\r\n");
        }
        write_all(self.client, &self.core.shard, &bytes).await
    }

    /// What goes out are whole events.
    fn count(&mut self, out: &[u8]) {
        self.bytes += out.len() as u64;
        self.events += u64::from(Scanner::default().feed(out));
    }

    async fn write(&mut self, out: &[u8]) -> Result<(), Stop> {
        self.count(out);
        write_all(self.client, &self.core.shard, &self.framing.event(out)).await?;
        self.client.deadlines.active(self.core.shard.clock.millis());
        Ok(())
    }
}

fn out_of_time() -> ApiError {
    ApiError::new(
        504,
        "batch_timeout",
        "The batch's time was over before this request was. Ask for less, or give it more.",
    )
}
