//! An answer that is kept as a durable stream: made when its head is there, read to its end whoever listens, and closed with
//! how it ended.
//!
//! | what happens | the upstream | the client | the stream |
//! | --- | --- | --- | --- |
//! | there is no room for it | is asked all the same | `Sedge-Durable: off` in its head | is none |
//! | it ends | | the end | is closed |
//! | it breaks off, or a limit passes | is given up | an error event | the same error event, and is closed |
//! | the client reads more slowly than it comes | is read on | gets the rest from the stream ([`crate::relay::pump::catch_up`]) | goes on |
//! | the client leaves, or reads nothing for too long | is read on | may come back as a reader | goes on |
//! | what the client would read next is kept no more | is read on | an error event | goes on |
//! | a client closes the stream | is cancelled | an error event | keeps what there is |
//! | a client deletes the stream | is cancelled | an error event | is gone |

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::outcome_as_told;
use crate::downstream::deadlines::Timeout;
use crate::proto::http1::fields::write_field;
use crate::proto::openai::ApiError;
use crate::relay::context::Core;
use crate::relay::exchange::{After, Answer, Counted, Exchange, millis};
use crate::relay::pump::catch_up::{Laggard, Sides, Step};
use crate::relay::pump::recorder::{CONTENT_TYPE, Tee};
use crate::relay::pump::{Ending, Framing};
use crate::relay::request_record::outcome_of;
use crate::runtime::clock::unix_millis;
use crate::streams::store::journal::Ticket;
use crate::streams::{Created, Creation, Kind, Lifetime, NotCreated};
use crate::telemetry::Outcome;

impl Exchange<'_> {
    /// Makes the stream that the answer becomes, and says where it is. Where there is no room for it, or no storage, the answer
    /// goes on without one, and its head says so.
    pub(crate) async fn keep(&mut self, core: &Rc<Core>) -> (Option<Box<Tee>>, Option<Ticket>) {
        // Where no key protects the response, its name does.
        let name = format!("gen_{}", core.nonces.borrow_mut().name());
        let created = match self.make_stream(core, &name).await {
            Ok(created) => created,
            Err(error) => {
                self.go_without(&error);
                return (None, None);
            }
        };
        (Some(self.begin_keeping(core, &created)), created.ticket)
    }

    /// Writes a stream that was made from now on, and says where it is.
    pub(crate) fn begin_keeping(&mut self, core: &Rc<Core>, created: &Created) -> Box<Tee> {
        let (streams, stream) = (&core.shared.streams, &created.stream);
        core.hub.appended(created.ticket, stream);
        let mut lines = Vec::with_capacity(128);
        write_field(&mut lines, "Location", format!("/v1/stream/{}", stream.name).as_bytes());
        let begin = stream.offset(stream.status().tail);
        write_field(&mut lines, "Stream-Next-Offset", begin.to_string().as_bytes());
        self.request.kept_at = Some(lines.into());
        Tee::new(stream, &core.hub, streams, self.request.api())
    }

    pub(crate) async fn make_stream(&self, core: &Rc<Core>, name: &str) -> Result<Created, NotCreated> {
        let streams = &core.shared.streams;
        if let Some(remote) = streams.remote().filter(|remote| !remote.is_up()) {
            // Nobody waits for it to come back.
            return Err(NotCreated::Unavailable(remote.is_away()));
        }
        let owner = self.request.holder().map(|holder| holder.name.to_string());
        let creation = Creation {
            name,
            kind: Kind::new(CONTENT_TYPE),
            lifetime: Lifetime::Idle(self.settings.config.streams.keep_answers.as_secs().max(1)),
            bytes: Bytes::new(),
            ends: Box::default(),
            closed: false,
            fork: None,
            owner: owner.as_deref(),
            generated: true,
        };
        streams.begin(&creation, unix_millis()).await
    }

    /// The answer is not kept.
    pub(crate) fn go_without(&mut self, error: &NotCreated) {
        let reason = match error {
            NotCreated::Full => "full",
            NotCreated::Quota(_) => "quota",
            _ => "storage",
        };
        self.core.metrics.answers_not_kept.inc();
        let mut lines = Vec::with_capacity(48);
        write_field(&mut lines, "Sedge-Durable", format!("off; reason={reason}").as_bytes());
        self.request.kept_at = Some(lines.into());
    }

    /// The answer has ended for its client, in one way or another. It goes on for its stream if the upstream has not ended.
    pub(crate) async fn end_kept(&mut self, answer: &mut Answer, mut ending: Ending) -> (Outcome, After) {
        if matches!(ending, Ending::Behind) {
            ending = match Box::pin(self.fall_back(answer)).await {
                Ok(ending) => ending,
                Err((laggard, ending)) => return Box::pin(self.end_behind(answer, laggard, ending)).await,
            };
        }
        let terminal = answer.download.terminal();
        let is_stalled = matches!(ending, Ending::Timeout(Timeout::ClientStall));
        if (is_stalled || matches!(ending, Ending::Gone)) && !terminal {
            self.ledger.answer(&answer.download);
            if is_stalled {
                self.client.let_go();
            }
            self.go_on(answer).await;
            return (if is_stalled { Outcome::ClientStalled } else { Outcome::ClientGone }, After::Abort);
        }
        let error = self.error_of(&ending).filter(|_| !terminal);
        self.close_kept(answer, error.as_ref());
        match (&ending, error) {
            (Ending::Deleted | Ending::Stopped, Some(error)) => {
                answer.download.cancel();
                self.ledger.answer(&answer.download);
                self.part(&answer.download, &error, Outcome::ClientGone).await
            }
            _ => Box::pin(self.end(answer, ending)).await,
        }
    }

    /// Why an answer that ended so is not whole; none for one that is, or that goes on without its client.
    fn error_of(&self, ending: &Ending) -> Option<ApiError> {
        match ending {
            Ending::Deleted => Some(ApiError::answer_deleted()),
            Ending::Stopped => Some(ApiError::response_stopped()),
            Ending::Cut(cut) => Some(cut.error()),
            Ending::Timeout(timeout) => Some(self.timeout_error(*timeout)),
            Ending::Finished | Ending::Gone | Ending::Behind => None,
        }
    }

    /// Reads the upstream to its end for the stream alone.
    async fn go_on(&mut self, answer: &mut Answer) {
        // What limits it is the request's time and the upstream's silence, as if somebody listened.
        let mut limits = answer.limits;
        limits.read_on = u32::MAX;
        let whole = self.read_on(&mut answer.download, &limits).await || answer.download.terminal();
        self.close_kept(answer, (!whole).then(ApiError::upstream_closed).as_ref());
    }

    /// Goes on with a client whose socket is full. Gives back how the answer has ended, and for whom: for a client that had all
    /// that was read, or for one that had not.
    async fn fall_back(&mut self, answer: &mut Answer) -> Result<Ending, (Laggard, Ending)> {
        let (client, core) = (self.client, self.core);
        let stall = millis(self.settings.config.timeouts.client_stall);
        let _streaming = Counted::new(core, |metrics| &metrics.streams_open);
        let errors = self.request.error_form();
        let sides = Sides { client, core, idle: answer.limits.idle, stall, errors };
        let Answer { download, .. } = answer;
        loop {
            let mut laggard = Laggard::new(download);
            client.deadlines.reads_on(true);
            client.arm();
            let ended = loop {
                match poll_fn(|cx| laggard.poll(cx, download, &mut self.upload, sides)).await {
                    Step::CaughtUp => break None,
                    Step::Ended(ending) => break Some(ending),
                    Step::Over(ending) => {
                        let error = self.error_of(&ending).filter(|_| !download.terminal());
                        let event = error.map(|error| errors.event_for_all(&error, download.events));
                        if let Some(tee) = &mut download.tee {
                            tee.finish(event);
                        }
                        client.deadlines.idle(0);
                        laggard.over = Some(ending);
                    }
                }
            };
            client.deadlines.reads_on(false);
            if let Some(tee) = &mut download.tee {
                tee.lend(false);
            }
            if let Some(ending) = ended {
                return Err((laggard, ending));
            }
            if !laggard.reads {
                client.deadlines.active(core.shard.clock.millis());
            }
            client.deadlines.idle(sides.idle);
            client.set_beat(download.beat());
            client.arm();
            match poll_fn(|cx| download.poll(cx, client, core, &mut self.upload)).await {
                Ending::Behind => {}
                ending => return Ok(ending),
            }
        }
    }

    /// The answer has ended for a client that was behind.
    async fn end_behind(
        &mut self,
        answer: &mut Answer,
        laggard: Laggard,
        ending: Ending,
    ) -> (Outcome, After) {
        let framing = answer.download.framing();
        self.ledger.answer(&answer.download);
        // It has it all, or at least the event that says so.
        let has_all = laggard.position == answer.download.bytes && answer.download.terminal();
        let terminal = has_all || laggard.scanner.terminal() || laggard.scanner.error_seen();
        let leaves = matches!(ending, Ending::Gone | Ending::Timeout(Timeout::ClientStall));
        if !leaves {
            answer.download.cancel();
            let error = self.error_of(&ending).filter(|_| !answer.download.terminal());
            self.close_kept(answer, error.as_ref());
        }
        let (outcome, after) = match &ending {
            Ending::Finished => return Box::pin(self.end(answer, ending)).await,
            _ if laggard.lost => {
                self.ledger.error = ApiError::rest_not_kept().code;
                // A body that ends by close must not end by one now, unless the stream itself has told.
                let abort = framing == Framing::Close && !laggard.scanner.at_boundary();
                if abort || self.client.is_blocked() {
                    self.client.let_go();
                    (Outcome::ClientStalled, After::Abort)
                } else {
                    let close = |cx: &mut Context<'_>| self.client.stream().poll_shutdown(cx).is_ready();
                    poll_fn(|cx| Poll::Ready(close(cx))).await;
                    (Outcome::ClientStalled, After::Close)
                }
            }
            // It has said that it is over: nothing is missing, and a last chunk that was not sent is not made up.
            _ if terminal => (outcome_as_told(&answer.download), After::Close),
            Ending::Gone => (Outcome::ClientGone, After::Abort),
            Ending::Timeout(Timeout::ClientStall) => {
                self.client.let_go();
                (Outcome::ClientStalled, After::Abort)
            }
            _ => {
                let error = self.error_of(&ending).unwrap_or_else(ApiError::upstream_closed);
                let event = self.request.error_form().event(&error, laggard.events);
                let event = laggard.parting(framing, &event);
                let outcome = match ending {
                    Ending::Cut(_) => Outcome::UpstreamCut,
                    Ending::Timeout(timeout) => outcome_of(timeout),
                    _ => Outcome::ClientGone,
                };
                self.part_with(event, framing, &error, outcome).await
            }
        };
        if leaves && laggard.over.is_none() && !terminal {
            self.go_on(answer).await;
        }
        self.close_kept(answer, None);
        // What it was not sent is not counted as sent.
        (self.ledger.bytes_out, self.ledger.events) = (laggard.position, laggard.events);
        (outcome, after)
    }

    fn close_kept(&self, answer: &mut Answer, error: Option<&ApiError>) {
        if let Some(mut tee) = answer.download.tee.take() {
            let form = self.request.error_form();
            tee.finish(error.map(|error| form.event_for_all(error, answer.download.events)));
        }
    }
}
