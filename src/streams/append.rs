//! Appending to a stream, and closing it: judged, taken and put into the journal in one step under the stream's lock.
//!
//! The order of the judgements is the protocol's (PROTOCOL.md, 5.2 and 5.2.1): a producer that has been fenced off learns so
//! even of a closed stream, that a stream is closed counts before everything else that may be wrong.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::log::{Log, Record, Stored, overhead};
use super::model::bounds::Bounds;
use super::model::producer::{Claim, Verdict};
use super::owners::{OverQuota, Weight};
use super::store::journal::{AppendError, Ticket};
use super::store::journal_entry::{self, Claimed, Entry, Trim};
use super::store::redis::Unavailable;
use super::stream::{Common, Pending, Presence, State, Stream};
use crate::telemetry::AppendRefusal;

/// What is to be appended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Append<'a> {
    /// The payload, as it is kept. Empty only if it closes.
    pub(crate) bytes: Bytes,
    /// Where its messages end, if it is made of messages.
    pub(crate) ends: Box<[u32]>,
    /// What its sender says that it is.
    pub(crate) content_type: Option<&'a str>,
    /// The publisher's name for it.
    pub(crate) event: Option<&'a str>,
    /// What its producer says.
    pub(crate) claim: Option<Claim<'a>>,
    /// `Stream-Seq`.
    pub(crate) seq: Option<&'a str>,
    /// Nothing comes after it.
    pub(crate) close: bool,
    /// It is sedge's own word: what a response is kept with, and how it ends.
    pub(crate) own: bool,
}

/// What became of it, and what has to be durable before anyone is told.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// What became of it.
    pub(crate) result: Result<Appended, Refused>,
    /// To be waited for first, whatever the result: it may rest on what is not durable yet.
    pub(crate) ticket: Option<Ticket>,
}

/// It is in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Appended {
    /// Where the stream ends.
    pub(crate) tail: u64,
    /// The stream is closed.
    pub(crate) closed: bool,
    /// It was there already; the last number of its producer's session that is.
    pub(crate) duplicate: Option<u64>,
}

/// Why it is not.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The stream was deleted.
    Gone,
    /// It is closed, and ends here.
    Closed(u64),
    /// It is a kept response, to which nobody but sedge appends.
    Generated,
    /// It holds something else.
    ContentType,
    /// A newer session of the producer has taken over.
    Fenced(u64),
    /// An append before it is missing: the one with this number.
    Gap(u64),
    /// A new session does not begin with 0.
    BadStart,
    /// The stream knows as many producers as it may.
    TooManyProducers(usize),
    /// `Stream-Seq` is not greater than the last.
    NotInSequence,
    /// The streams of its key hold as much as they may.
    Quota(OverQuota),
    /// There is no memory left for streams.
    Full,
    /// It cannot be stored.
    Store(AppendError),
    /// Redis cannot be asked.
    Unavailable(Unavailable),
}

impl Refused {
    /// The same, as it is counted.
    pub(crate) fn reason(&self) -> AppendRefusal {
        match self {
            Refused::Gone => AppendRefusal::Gone,
            Refused::Closed(_) => AppendRefusal::Closed,
            Refused::Generated => AppendRefusal::Generated,
            Refused::ContentType => AppendRefusal::ContentType,
            Refused::Fenced(_) => AppendRefusal::StaleEpoch,
            Refused::Gap(_) | Refused::BadStart | Refused::NotInSequence => AppendRefusal::Sequence,
            Refused::TooManyProducers(_) => AppendRefusal::TooManyProducers,
            Refused::Quota(_) => AppendRefusal::Quota,
            Refused::Full => AppendRefusal::Full,
            Refused::Store(_) | Refused::Unavailable(_) => AppendRefusal::Storage,
        }
    }
}

impl Stream {
    /// Appends, if nothing stands against it. `now` is in milliseconds since 1970.
    pub(crate) fn append(self: &Arc<Self>, append: &Append<'_>, now: u64) -> Outcome {
        let (outcome, visible) = {
            let mut state = self.lock();
            let (before, weight) = (state.held(), state.log.weight());
            let result = self.take(&mut state, append, now);
            if matches!(result, Ok(Appended { duplicate: None, .. })) {
                self.trim(&mut state, now);
            }
            self.common.weigh(self.owner.as_deref(), weight, state.log.weight());
            let (after, held) = (state.held(), &self.common.held);
            if after >= before {
                held.fetch_add(after - before, Ordering::Relaxed);
            } else {
                held.fetch_sub(before - after, Ordering::Relaxed);
            }
            state.chill(&self.common);
            let visible =
                self.common.journal.is_none() && matches!(result, Ok(Appended { duplicate: None, .. }));
            (Outcome { result, ticket: state.last_ticket() }, visible)
        };
        if visible {
            self.publish();
        }
        outcome
    }

    fn take(&self, state: &mut State, append: &Append<'_>, now: u64) -> Result<Appended, Refused> {
        if state.presence != Presence::Present {
            return Err(Refused::Gone);
        }
        if self.generated && !append.own && !append.bytes.is_empty() {
            return Err(Refused::Generated);
        }
        let done =
            |state: &State, duplicate| Appended { tail: state.log.tail, closed: state.closed, duplicate };
        let bounds = self.common.bounds.load();
        let verdict = append.claim.map(|claim| state.producers.judge(claim, bounds.producers));
        if let Some(Verdict::Fenced { epoch }) = verdict {
            return Err(Refused::Fenced(epoch));
        }
        if state.closed {
            let is_closer =
                append.claim.zip(state.closer.as_ref()).is_some_and(|(claim, (id, epoch, seq))| {
                    (claim.id, claim.epoch, claim.seq) == (id, *epoch, *seq)
                });
            let again = append.close && append.bytes.is_empty() && append.claim.is_none();
            return match is_closer || again {
                true => Ok(done(state, Some(append.claim.map_or(0, |claim| claim.seq)))),
                false => Err(Refused::Closed(state.log.tail)),
            };
        }
        if !append.bytes.is_empty() && !append.content_type.is_some_and(|kind| self.kind.is(kind)) {
            return Err(Refused::ContentType);
        }
        match verdict {
            None | Some(Verdict::Accept | Verdict::Fenced { .. }) => {}
            Some(Verdict::Duplicate { last }) => return Ok(done(state, Some(last))),
            Some(Verdict::Gap { expected }) => return Err(Refused::Gap(expected)),
            Some(Verdict::BadStart) => return Err(Refused::BadStart),
            Some(Verdict::TooMany) => return Err(Refused::TooManyProducers(bounds.producers)),
        }
        if let (Some(new), Some(last)) = (append.seq, &state.seq)
            && new.as_bytes() <= last.as_bytes()
        {
            return Err(Refused::NotInSequence);
        }
        if !append.bytes.is_empty() {
            let (payload, beside) = (append.bytes.len() as u64, overhead(&append.ends, append.event));
            self.make_room(state, payload + beside, &bounds)?;
            self.keep_quota(state, Weight { payload, beside }, &bounds)?;
        }
        self.put(state, append, now).map_err(Refused::Store)?;
        state.stopped |= self.generated && append.close && !append.own;
        Ok(done(state, None))
    }

    /// Whoever grows pays when memory is short. In memory alone it gives up its own oldest records; with a disk payloads are let
    /// go of, and only what has to be known of each record counts.
    fn make_room(&self, state: &mut State, cost: u64, bounds: &Bounds) -> Result<(), Refused> {
        let wanted = self.common.held() + cost;
        if self.common.journal.is_some() {
            // Payloads that are not durable yet cannot be let go of, and those of others are once a second.
            return if wanted > bounds.memory * 2 { Err(Refused::Full) } else { Ok(()) };
        }
        let over = wanted.saturating_sub(bounds.memory);
        if over == 0 {
            return Ok(());
        }
        let before = state.log.held();
        if before < over || state.forks > 0 {
            return Err(Refused::Full);
        }
        state.log.trim(|log, _| before - log.held() >= over, &mut Vec::new());
        Ok(())
    }

    /// Likewise where its key has too much.
    fn keep_quota(&self, state: &mut State, more: Weight, bounds: &Bounds) -> Result<(), Refused> {
        let Some(owner) = self.owner.as_deref().filter(|_| self.common.remote.is_none()) else {
            return Ok(());
        };
        let before = state.log.weight();
        let Some((over, quota)) = self.common.excess(owner, more, bounds) else { return Ok(()) };
        let has = before.payload + before.beside;
        if self.common.journal.is_some() || has < over || state.forks > 0 {
            return Err(Refused::Quota(quota));
        }
        let left = |log: &Log| log.weight().payload + log.weight().beside;
        state.log.trim(|log, _| has - left(log) >= over, &mut Vec::new());
        Ok(())
    }

    fn put(&self, state: &mut State, append: &Append<'_>, now: u64) -> Result<(), AppendError> {
        let (start, order) = (state.log.tail, self.common.next_order());
        let stored = match &self.common.journal {
            None => None,
            Some(journal) => {
                let entry = Entry::Append(journal_entry::Append {
                    stream: self.id,
                    start,
                    at: now,
                    order,
                    event: append.event.map(Into::into),
                    claim: append.claim.map(|claim| Claimed {
                        id: claim.id.into(),
                        epoch: claim.epoch,
                        seq: claim.seq,
                    }),
                    seq: append.seq.map(Into::into),
                    close: append.close,
                    ends: append.ends.to_vec(),
                });
                let (body, skip) = entry.write(&append.bytes);
                let ticket = journal.append(&body)?;
                let shared = append.bytes.is_empty();
                if shared {
                    state.anchors.push(ticket.location);
                }
                let end = start + append.bytes.len() as u64;
                state.pending.push_back(Pending { ticket, end, order, closes: append.close });
                Some(Stored { location: ticket.location, skip, shared })
            }
        };
        state.apply(append, start, order, now, stored);
        state.used = state.used.max(now);
        if self.common.journal.is_none() {
            (state.visible, state.closed_visible) = (state.log.tail, state.closed);
        }
        Ok(())
    }

    /// Gives up what is older or more than is kept.
    pub(crate) fn trim(&self, state: &mut State, now: u64) {
        let bounds = self.common.bounds.load();
        let (visible, records, bytes) = (state.visible, bounds.keep_records, bounds.keep_bytes);
        // With a journal each trim is a record of its own, so several appends share one.
        let slack = if self.common.journal.is_some() { 8 } else { u64::MAX };
        let over = |limit: u64, is: u64| limit > 0 && is > limit + limit / slack;
        let is_over = over(bytes, state.log.tail - state.log.start)
            || over(records as u64, state.log.len() as u64)
            || bounds.keep_ms > 0
                && state.log.oldest().is_some_and(|record| record.at + bounds.keep_ms < now);
        if !is_over {
            return;
        }
        let keep = |log: &Log, record: &Record| {
            record.end > visible
                || !(bytes > 0 && log.tail - log.start > bytes
                    || records > 0 && log.len() > records
                    || bounds.keep_ms > 0 && record.at + bounds.keep_ms < now)
        };
        let mut dead = Vec::new();
        if state.log.trim(keep, &mut dead) {
            self.note_trim(state, dead);
        }
    }

    fn note_trim(&self, state: &mut State, mut dead: Vec<super::store::journal::Location>) {
        let Some(journal) = &self.common.journal else { return };
        let claimed = |(id, epoch, seq)| Claimed { id: std::borrow::Cow::Borrowed(id), epoch, seq };
        let entry = Entry::Trim(Trim {
            stream: self.id,
            start: state.log.start,
            lost: state.log.lost,
            producers: state.producers.sessions().map(claimed).collect(),
            seq: state.seq.as_deref().map(Into::into),
        });
        let (body, _) = entry.write(&[]);
        dead.extend(state.trimmed);
        // If it cannot be stored there is more than was kept after a restart: nobody is misled.
        if let Ok(ticket) = journal.append_retiring(&body, &dead) {
            state.trimmed = Some(ticket.location);
        }
    }
}

impl State {
    /// What an append that was taken changes.
    pub(crate) fn apply(
        &mut self,
        append: &Append<'_>,
        start: u64,
        order: u64,
        at: u64,
        stored: Option<Stored>,
    ) {
        if !append.bytes.is_empty() {
            self.log.push(Record {
                start,
                end: start + append.bytes.len() as u64,
                order,
                at,
                event: append.event.map(Into::into),
                ends: append.ends.clone(),
                bytes: Some(append.bytes.clone()),
                stored,
            });
        }
        self.note(append.claim, append.seq, append.close);
    }

    /// What it changes beside the log.
    pub(crate) fn note(&mut self, claim: Option<Claim<'_>>, seq: Option<&str>, close: bool) {
        if let Some(claim) = claim {
            self.producers.record(claim);
        }
        if let Some(seq) = seq {
            self.seq = Some(seq.into());
        }
        if close {
            self.closed = true;
            self.closer = claim.map(|claim| (claim.id.into(), claim.epoch, claim.seq));
        }
    }
}

impl Common {
    /// Bytes of memory that all streams take.
    pub(crate) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }
}
