//! One attempt: a connection, the request on it, and the head of the answer or what came between; a stream that is begun early
//! meanwhile, and a second upstream beside a slow one.

pub(crate) mod failover;
pub(crate) mod fallback;
pub(crate) mod first_content_gate;
pub(crate) mod hedge;
pub(crate) mod retry;
pub(crate) mod retry_budget;
pub(crate) mod selection;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use self::first_content_gate::{Held, Hold};
use self::hedge::{Hedge, Hedged, Rival};
use self::selection::why;
use super::context::Core;
use super::exchange::{Exchange, millis};
use super::pump::Framing;
use super::pump::recorder::Tee;
use super::request::body::Upload;
use super::response_head;
use crate::config::{HedgeAfter, Route};
use crate::downstream::connection::Client;
use crate::downstream::deadlines::Timeout;
use crate::proto::http1::request::RequestBody;
use crate::routing::balancer::Pick;
use crate::routing::call::Call;
use crate::runtime::clock::Millis;
use crate::runtime::net::stream::Stream;
use crate::streams::Stopped;
use crate::telemetry::Again;
use crate::upstream::client::{Answered, Asking, Connected, Stop, guarded_if, open, pooled};
use crate::upstream::dial::Tried;
use crate::upstream::target::Target;

impl Exchange<'_> {
    /// One attempt: sends the request and waits for the head of its answer. A pooled connection that turns out to
    /// have been closed is no attempt of its own; the request goes out once more over a fresh one.
    pub(crate) async fn send(
        &mut self,
        call: &mut Call,
        (head, body): (&[u8], usize),
        asked: &mut Vec<usize>,
        route: &Route,
        kept: Option<&Tee>,
    ) -> Result<(Stream, Answered), Stop> {
        let (client, core) = (self.client, Rc::clone(self.core));
        let (whole, to_head) = (self.upload.sent, self.request.is_head());
        let p95 = || core.recent(self.ledger.route, self.ledger.stream, |recent| recent.p95());
        let held = Held::of(route, self.request);
        let mut hedge = Hedge::new(route.hedge, p95, &core);
        let mut fresh = false;
        loop {
            self.ledger.attempts += 1;
            let pooled = if fresh { Err(None) } else { pooled(&core, call.target()) };
            let Connected { stream, reused } = match pooled {
                Ok(connected) => connected,
                Err(first) => Box::pin(self.open(call.target(), first, route, kept.is_none())).await?,
            };
            if reused.is_some() && !whole && !self.upload.is_kept() {
                // An upstream may close what is idle at any moment.
                self.keep_body(route, &Arc::clone(&self.settings));
            }
            self.ledger.overhead = core.shard.clock.micros() - self.ledger.began();
            let first_byte = millis(route.timeouts.first_byte);
            client.deadlines.phase(Timeout::FirstByte, core.shard.clock.millis(), first_byte);
            client.arm();
            self.upload.limit_upstream(first_byte);
            let mut asking = Asking::new(stream, head, first_byte);
            let mut hold: Option<Box<Hold>> = None;
            // What the first has answered, if it is nothing to pass on while a second is being asked.
            let mut parked = None;
            let began = core.shard.clock.millis();
            let stop = loop {
                let event = guarded_if(client, !self.left, |cx| {
                    if let Some(by) = kept.and_then(|kept| kept.ended_by(cx)) {
                        return Poll::Ready(Event::Stopped(by));
                    }
                    if client.deadlines.early_due.take() {
                        return Poll::Ready(Event::Early);
                    }
                    if parked.is_none()
                        && let Poll::Ready(answered) = poll_first(
                            &mut asking,
                            &mut hold,
                            cx,
                            client,
                            &core,
                            &mut self.upload,
                            held,
                            to_head,
                        )
                    {
                        return Poll::Ready(Event::First(answered));
                    }
                    hedge.poll(cx).map(Event::Hedge)
                });
                match event.await {
                    Ok(Event::Stopped(by)) => break Stop::Stopped(by),
                    Ok(Event::Early) => Box::pin(self.begin_early(route)).await?,
                    Ok(Event::Hedge(Hedged::Due)) => {
                        hedge = self.second(route, asked, &head[body..]);
                    }
                    Ok(Event::Hedge(Hedged::Done(Ok(rival)))) if is_good(&rival.answered, route) => {
                        core.metrics.hedges_won.inc();
                        self.note_beginning(route, began, &rival.answered);
                        let first = parked.as_ref().map(Result::as_ref);
                        match first.and_then(why) {
                            Some(why) => self.ledger.failed(why, &core),
                            None => self.ledger.failed("slow", &core),
                        }
                        match first {
                            Some(first) => self.judge(call, first),
                            None => self.give_up(call),
                        }
                        let Rival { call: winner, stream, answered } = *rival;
                        self.ledger.upstream = winner.target().label;
                        *call = winner;
                        return Ok((stream, answered));
                    }
                    Ok(Event::Hedge(Hedged::Done(lost))) => {
                        let (label, why) = lost.map_or_else(|missed| missed, |rival| rival.lost(&core));
                        self.ledger.failed_by(label, why, &core);
                        match parked.take() {
                            Some(Ok(answered)) => return Ok((asking.stream, answered)),
                            Some(Err(stop)) => break stop,
                            None => {}
                        }
                    }
                    Ok(Event::First(Ok(answered))) if !hedge.is_running() || is_good(&answered, route) => {
                        self.note_beginning(route, began, &answered);
                        return Ok((asking.stream, answered));
                    }
                    Ok(Event::First(Err(stop))) if !hedge.is_running() => break stop,
                    Ok(Event::First(answered)) => parked = Some(answered),
                    Err(Stop::Gone) if self.upload.sent && kept.is_some() => self.leave_to_stream(),
                    Err(Stop::Gone) if self.upload.sent && route.read_on.is_some() => self.leave(route),
                    Err(stop) => break stop,
                }
            };
            let (Stop::Closed { untouched }, Some(idle_for)) = (&stop, reused) else { return Err(stop) };
            core.pool.was_closed(call.target(), idle_for, core.shard.clock.millis());
            let harmless = *untouched || self.request.repeatable;
            if !harmless {
                return Err(stop);
            }
            if !whole {
                if !self.upload.can_rewind() {
                    self.note_let_go();
                    return Err(stop);
                }
                self.upload.rewind_to_head(&core.shard);
                self.keep_body(route, &Arc::clone(&self.settings));
            }
            fresh = true;
            core.metrics.retried(Again::Stale);
        }
    }

    /// A new connection; addresses that failed are told in the log.
    async fn open(
        &mut self,
        target: &Target,
        first: Option<SocketAddr>,
        route: &Route,
        is_for_client: bool,
    ) -> Result<Connected, Stop> {
        let (tried, present) = (Tried::default(), is_for_client && !self.left);
        let opened = open((self.client, present), self.core, target, first, &route.timeouts, &tried).await;
        if let Some(addresses) = tried.take() {
            self.ledger.connect_failed(&addresses, self.core);
        }
        opened
    }

    /// An answer has begun, of an attempt that began at `since`. Errors come fast, and would have every good answer hedged.
    fn note_beginning(&self, route: &Route, since: Millis, answered: &Answered) {
        if route.hedge == Some(HedgeAfter::P95) && is_good(answered, route) && answered.status() < 400 {
            let ms = self.core.shard.clock.micros() / 1000 - since;
            let ms = ms.try_into().unwrap_or(u32::MAX);
            self.core.recent(self.ledger.route, self.ledger.stream, |recent| recent.push(ms));
        }
    }

    /// Asks a second upstream beside those that are being asked, if there is one, and the budget and the time for it.
    fn second(&mut self, route: &Route, asked: &mut Vec<usize>, joined: &[u8]) -> Hedge {
        let core = self.core;
        let other = self.choose(route, asked).ok().filter(|_| !self.left);
        let (Some(Pick { index, call }), Some(left)) = (other, self.left(&route.timeouts)) else {
            return Hedge::Off;
        };
        let length = match self.request.body {
            RequestBody::None => RequestBody::None,
            _ => RequestBody::Length(self.upload.sent_bytes(joined.len())),
        };
        let head = self.request.write(call.target(), &length, left);
        let Some(request) = self.upload.copy(&head, joined, &core.shard) else {
            self.note_let_go();
            return Hedge::Off;
        };
        if !core.budget(self.ledger.route, |budget, now| budget.withdraw(route.retry.budget, now)) {
            core.metrics.retries_over_budget.inc();
            return Hedge::Off;
        }
        if !self.try_upstream(index) {
            return Hedge::Off;
        }
        core.metrics.hedges.inc();
        self.ledger.attempts += 1;
        asked.push(index);
        let how = (self.request.is_head(), Held::of(route, self.request));
        Hedge::run(core, call, request, how)
    }

    /// Begins the stream before the upstream has answered, so that heartbeats can keep the client's connection.
    async fn begin_early(&mut self, route: &Route) -> Result<(), Stop> {
        let framing = match self.request.version {
            crate::proto::http1::Version::Http10 => Framing::Close,
            crate::proto::http1::Version::Http11 => Framing::Chunked,
        };
        let keep = response_head::keeps(self.request, framing, self.core);
        self.write(response_head::early(self.request, framing, keep, self.core)).await?;
        self.early = Some(framing);
        self.ledger.status = 200;
        self.limit_total(&route.timeouts);
        self.client.set_beat(framing.beat());
        let every = route.heartbeat.unwrap_or(self.settings.config.heartbeat);
        self.client.deadlines.heartbeat(self.core.shard.clock.millis(), millis(every));
        self.client.arm();
        Ok(())
    }
}

/// What happens while an upstream is asked.
enum Event {
    /// The stream is to be begun.
    Early,
    /// A client has ended the stream that the answer was to be kept in.
    Stopped(Stopped),
    /// The first upstream has an answer, or none.
    First(Result<Answered, Stop>),
    /// Something has become of the second.
    Hedge(Hedged),
}

/// Moves the first attempt on: up to the head of its answer, or to its first content where the route says so.
#[expect(clippy::too_many_arguments, reason = "they are the parts of an attempt, each borrowed for itself")]
fn poll_first(
    asking: &mut Asking<'_>,
    hold: &mut Option<Box<Hold>>,
    cx: &mut Context<'_>,
    client: &Client,
    core: &Core,
    upload: &mut Upload,
    held: Held,
    to_head: bool,
) -> Poll<Result<Answered, Stop>> {
    loop {
        if let Some(hold) = hold {
            return hold.poll(cx, &mut asking.stream, core);
        }
        let answered = ready!(asking.poll(cx, client, core, upload, to_head))?;
        if !(held.streams || held.documents) || !upload.sent {
            return Poll::Ready(Ok(answered));
        }
        match Hold::begin(answered, held) {
            Ok(begun) => *hold = Some(begun),
            Err(answered) => return Poll::Ready(Ok(answered)),
        }
    }
}

/// Whether an answer is one to pass on although another may come.
fn is_good(answered: &Answered, route: &Route) -> bool {
    !answered.failed && !route.retry.on.contains(&answered.status())
}
