//! The course of one request: received as far as needed, routed, asked, answered, accounted for.

use std::future::poll_fn;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::context::Core;
use super::finish::durable_id;
use super::finish::error_response::Failure;
use super::pump::recorder::Tee;
use super::pump::{Download, Ending, Framing, Look};
use super::request::Request;
use super::request::body::Upload;
use super::request::body_scan::Decides;
use super::request_record::Ledger;
use super::response_head::{self, Learnt};
use super::settings::Settings;
use crate::config::Route;
use crate::downstream::connection::Client;
use crate::downstream::outbox::Beat;
use crate::proto::http1::body::BodyDecoder;
use crate::proto::http1::response::ResponseHead;
use crate::proto::openai::ApiError;
use crate::routing::call::Call;
use crate::runtime::block::Block;
use crate::runtime::clock::Micros;
use crate::runtime::net::stream::Stream;
use crate::streams::store::journal::Ticket;
use crate::telemetry::{CoreMetrics, Gauge};
use crate::upstream::client::{Answered, Stop};

/// What becomes of the client's connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum After {
    /// It can carry the next request.
    Next,
    /// It has to be closed; the client may still be sending.
    Close,
    /// It has to be closed in a way that cannot be taken for an end.
    Abort,
}

impl After {
    /// What follows an answer of our own: the next request, if the client was told so and got it.
    pub(crate) fn written(written: &Result<(), Stop>, keep: bool) -> After {
        match written {
            Ok(()) if keep => After::Next,
            Ok(()) => After::Close,
            Err(_) => After::Abort,
        }
    }
}

/// A request and all that surrounds it while it is on its way.
pub(crate) struct Exchange<'a> {
    pub(crate) client: &'a Client,
    pub(crate) core: &'a Rc<Core>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) request: &'a mut Request,
    pub(crate) upload: Upload,
    pub(crate) ledger: Ledger,
    /// The route that serves it, once that is known: after a fallback another than the ledger's, which is the one that was asked for.
    /// Its index and one: so small because every stream keeps it.
    pub(crate) serving: Option<NonZeroU32>,
    /// The head of a stream has been written although the upstream had not answered.
    pub(crate) early: Option<Framing>,
    /// The client has left, and the answer is read on without it.
    pub(crate) left: bool,
}

/// Relays `request`, and leaves nothing of it behind on the connection but what is returned.
#[expect(
    clippy::manual_async_fn,
    reason = "an async fn keeps its arguments twice, and this one is kept by every connection"
)]
pub(crate) fn relay<'a>(
    client: &'a Client,
    core: &'a Rc<Core>,
    request: &'a mut Request,
    peer: IpAddr,
    began: Micros,
) -> impl Future<Output = After> + 'a {
    async move {
        let settings = core.settings();
        let decides = Decides::of(request, &settings);
        let peek = decides.peek(request);
        let limits = &settings.config.timeouts;
        let now = core.shard.clock.millis();
        let max = settings.config.limits.max_body;
        let upload = Upload::new(&request.body, peek, decides, max, now, millis(limits.request_body));
        let ledger = Ledger::new(began);
        let open = Counted::new(core, |metrics| &metrics.requests_open);
        let mut exchange = Exchange {
            client,
            core,
            settings,
            request,
            upload,
            ledger,
            serving: None,
            early: None,
            left: false,
        };
        // What it takes to get to an answer, and to tell of its end, is large and soon over, so it is boxed, and a failure as
        // well, for which the match keeps room. While the answer streams the task holds what the pump needs and no more, and
        // the pump is polled from here, without a layer between.
        let mut kept = None;
        let (outcome, after) = match Box::pin(exchange.begin(&mut kept)).await.map_err(Box::new) {
            Ok(mut answer) => {
                let streaming = exchange.start(&answer);
                let ending = match answer.over.take() {
                    Some(ending) => ending,
                    None => poll_fn(|cx| answer.download.poll(cx, client, core, &mut exchange.upload)).await,
                };
                drop(streaming);
                match exchange.finished(answer, ending) {
                    Ok(over) => over,
                    Err(open) => Box::pin(exchange.finish(open)).await,
                }
            }
            Err(failure) => {
                exchange.fail_kept(kept.take(), &failure);
                Box::pin(exchange.refuse(*failure)).await
            }
        };
        drop(open);
        core.metrics.heartbeats.add(client.take_beats().into());
        client.set_beat(Beat::Hold);
        client.deadlines.reset();
        exchange.ledger.bytes_in = exchange.upload.received;
        exchange.note_peek();
        exchange.settle(outcome);
        exchange.ledger.close(outcome, request, peer, core);
        after
    }
}

impl Exchange<'_> {
    /// Takes over what the body said of itself, for the log: what stood too far behind to decide anything as well.
    fn note_peek(&mut self) {
        if let Some(peek) = self.upload.take_peek() {
            self.ledger.stream = peek.stream() == Some(true);
            if self.ledger.model.is_none() {
                self.ledger.model = peek.model().map(str::to_owned);
            }
        }
    }

    /// Up to the head of the answer, which is written. What `kept` holds when it fails has to be told of the failure.
    async fn begin(&mut self, kept: &mut Option<Box<Tee>>) -> Result<Box<Answer>, Failure> {
        self.receive().await?;
        let settings = Arc::clone(&self.settings);
        let (index, rewrite) = self.enter(&settings)?;
        let core = Rc::clone(self.core);
        if self.request.durable {
            *kept = Box::pin(self.keep_early(&core)).await?;
        }
        let (index, call, stream, answered) =
            self.attempt(index, rewrite, &settings, kept.as_deref()).await?;
        let ticket = match self.request.durable {
            true => Box::pin(self.keep_answer(&answered, kept)).await,
            false => None,
        };
        let limits = Limits::of(&settings.config.routes[index], &settings);
        let (mut answer, (block, range)) = self.answer(call, stream, answered, limits, kept)?;
        if let Some(ticket) = ticket {
            // Nobody is told where it is before a crash would leave it there. If the disk fails the tee finds out.
            let _ = Box::pin(core.hub.durable(Some(ticket))).await;
        }
        let (client, mut block) = (self.client, Some(block));
        let sent = poll_fn(|cx| Poll::Ready(client.send(cx, &mut block, range.clone()))).await;
        if sent.is_err() {
            answer.over = Some(Ending::Gone);
        }
        Ok(answer)
    }

    /// Finds the route, and enters it if there is room. Says which, and what the model is called there.
    fn enter(&mut self, settings: &Settings) -> Result<(usize, Option<String>), Failure> {
        let (index, rewrite) = self.route(settings)?;
        let (route, label) = settings.route(index);
        self.ledger.route = label;
        self.admit(index)?;
        self.serve_by(index, route)?;
        self.request.durable |= route.durable;
        if let Some(holder) = self.request.holder().filter(|_| self.request.durable) {
            self.client.deadlines.authority.set(holder.authority);
        }
        if let Some(after) = route.early_heartbeat
            && self.ledger.stream
            // Where its stream is stands in the head.
            && !self.request.durable
        {
            self.client.deadlines.early(self.core.shard.clock.millis() + u64::from(millis(after)));
        }
        Ok((index, rewrite))
    }

    /// Makes the stream that the answer to a durable request becomes, where none was made early.
    async fn keep_answer(&mut self, answered: &Answered, kept: &mut Option<Box<Tee>>) -> Option<Ticket> {
        let head = answered.head();
        let is_keepable = is_keepable(&head, &response_head::learn(&head));
        drop(head);
        // That it is not kept has been said.
        if kept.is_some() || self.request.kept_at.is_some() || !is_keepable {
            return None;
        }
        let core = Rc::clone(self.core);
        let (tee, ticket) = self.keep(&core).await;
        *kept = tee;
        ticket
    }

    /// The answer's head, rewritten for the client, with the first bytes of its body behind it.
    fn answer(
        &mut self,
        call: Call,
        stream: Stream,
        answered: Answered,
        limits: Limits,
        kept: &mut Option<Box<Tee>>,
    ) -> Result<(Box<Answer>, Piece), Failure> {
        let (client, core) = (self.client, Rc::clone(self.core));
        let began = core.shard.clock.micros();
        self.ledger.first_byte = Some(began);
        let Answered { mut block, start, checked, rest, .. } = answered;
        let head = checked.over(&block[start..rest.start]);
        let mut learnt = response_head::learn(&head);
        self.tell_tighter(&head, &mut learnt);
        if self.early.is_some() && (head.status != 200 || !learnt.events) {
            let what = format!("The upstream answered {} instead of a stream.", head.status);
            return Err(ApiError::new(502, "upstream_error", what).into());
        }
        let framing = self.early.unwrap_or_else(|| response_head::framing(&head.body, &learnt, self.request));
        let keep = response_head::keeps(self.request, framing, &core);
        let mut download = self.download((call, stream), &head, &learnt, framing, began);
        if let Some(kept) = kept.take() {
            match is_keepable(&head, &learnt) {
                true => download.tee = Some(kept),
                false => self.fail_kept(Some(kept), &durable_id::no_stream(head.status).into()),
            }
        }
        let out = match self.early {
            Some(_) => Vec::new(),
            None => response_head::relayed(&head, &learnt, self.request, framing, keep, &core),
        };
        self.ledger.status = head.status;
        let reusable = head.keep_alive;
        drop(head);
        let body = if rest.is_empty() {
            Ok(rest.start..rest.start)
        } else {
            download.segment(&mut block, rest, client, &core)
        };
        let (first, over) = match body {
            Ok(body) => (join(&core, block, &out, body), None),
            Err(cut) => (join(&core, block, &out, 0..0), Some(Ending::Cut(cut))),
        };
        let keep_alive =
            learnt.keep_alive.map(|seconds| seconds.saturating_mul(1000).min(u32::MAX.into()) as u32);
        let events = learnt.events;
        self.ledger.upstream_request_id = learnt.request_id;
        Ok((Box::new(Answer { download, over, events, limits, keep, reusable, keep_alive }), first))
    }

    fn download(
        &self,
        (mut call, stream): (Call, Stream),
        head: &ResponseHead<'_>,
        learnt: &Learnt,
        framing: Framing,
        now: Micros,
    ) -> Download {
        let api = self.request.api();
        let look = match (learnt.events && !learnt.encoded, learnt.json && !learnt.encoded) {
            (true, _) => Look::events(api),
            (_, true) => Look::json(api, head.status == 200 && self.request.is_inference()),
            _ => Look::Opaque,
        };
        if !matches!(look, Look::Events(..)) {
            call.first_byte(now, self.core.chance());
        }
        let says_end = head.status == 200 && api.says_end();
        Download::new(stream, call, BodyDecoder::from(head.body), framing, (look, says_end), now)
    }

    /// Everything is ready for the pump.
    fn start(&mut self, answer: &Answer) -> Option<Counted> {
        let (client, core) = (self.client, self.core);
        self.request.forget_fields();
        self.upload.forget();
        if self.upload.sent {
            self.note_peek();
        }
        let now = core.shard.clock.micros();
        self.ledger.overhead += now - self.ledger.first_byte.unwrap_or(now);
        client.set_beat(answer.download.beat());
        let heartbeat = if answer.events { answer.limits.heartbeat } else { 0 };
        if !self.left {
            client.deadlines.total(self.until(answer.limits.total));
        }
        client.deadlines.streaming(now / 1000, answer.limits.idle, heartbeat);
        client.arm();
        answer.events.then(|| Counted::new(core, |metrics| &metrics.streams_open))
    }

    /// Writes to the client and waits until it is written.
    pub(crate) async fn write(&self, bytes: Vec<u8>) -> Result<(), Stop> {
        crate::downstream::outbox::write_all(self.client, &self.core.shard, &bytes).await
    }
}

/// Bytes of a block.
type Piece = (Block, Range<usize>);

/// An answer that has begun.
pub(crate) struct Answer {
    pub(crate) download: Download,
    /// It ended with its first bytes: they were broken, or the client had left when they were written.
    over: Option<Ending>,
    /// It is an event stream.
    events: bool,
    pub(crate) limits: Limits,
    /// The client's connection can carry another request.
    pub(crate) keep: bool,
    /// So can the upstream's.
    pub(crate) reusable: bool,
    /// For how long the upstream said that it keeps it, in milliseconds.
    pub(crate) keep_alive: Option<u32>,
}

/// A route's limits on a stream, in milliseconds.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) idle: u32,
    heartbeat: u32,
    total: u32,
    /// For how long an answer is read whose client has left; 0 for not at all.
    pub(crate) read_on: u32,
}

impl Limits {
    fn of(route: &Route, settings: &Settings) -> Limits {
        Limits {
            idle: millis(route.timeouts.idle),
            heartbeat: millis(route.heartbeat.unwrap_or(settings.config.heartbeat)),
            total: millis(route.timeouts.total),
            read_on: route.read_on.map_or(0, millis),
        }
    }
}

/// One more in a gauge, for as long as it is held: a task that is dropped in the middle is counted out, too.
pub(crate) struct Counted {
    metrics: Arc<CoreMetrics>,
    gauge: fn(&CoreMetrics) -> &Gauge,
}

impl Counted {
    pub(crate) fn new(core: &Core, gauge: fn(&CoreMetrics) -> &Gauge) -> Counted {
        gauge(&core.metrics).add(1);
        Counted { metrics: Arc::clone(&core.metrics), gauge }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.gauge)(&self.metrics).sub(1);
    }
}

/// Puts a head right before the first bytes of its body, so that both leave in one write. Nearly always there is room where
/// the upstream's head was.
fn join(core: &Core, mut block: Block, head: &[u8], body: Range<usize>) -> Piece {
    if body.start >= head.len() {
        let start = body.start - head.len();
        block[start..body.start].copy_from_slice(head);
        return (block, start..body.end);
    }
    let length = head.len() + body.len();
    let mut larger = core.shard.blocks.take_large(length);
    larger[..head.len()].copy_from_slice(head);
    larger[head.len()..length].copy_from_slice(&block[body]);
    (larger, 0..length)
}

/// Whether an answer is one that a stream can keep: events, and not compressed.
fn is_keepable(head: &ResponseHead<'_>, learnt: &Learnt) -> bool {
    head.status == 200 && learnt.events && !learnt.encoded
}

/// Whole milliseconds, for cells that hold them in 32 bits (49 days).
pub(crate) fn millis(duration: Duration) -> u32 {
    duration.as_millis().min(u32::MAX.into()) as u32
}
