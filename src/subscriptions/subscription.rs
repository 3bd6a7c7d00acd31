//! One subscription: the state machine that the room's header draws.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::action::Action;
use super::glob::Glob;
use super::links::{self, Full, How, Links, Look};
use super::phase::Phase;
use super::progress::{self, Progress};
use super::question::Question;
use super::record::Written;
use super::refusal::{Code, Refusal};
use super::settings::{self, Kind, Settings};
use super::source::{Extent, Source};
use super::token::Tokens;
use super::{OVERHEAD_BYTES, Reply, SHOWN_BYTES, STREAMS_MAX, UnixMillis, path, view};
use crate::streams::model::offset::Offset;
use crate::telemetry::Nonces;

/// What a step needs from outside, and what it asks for.
pub(crate) struct Turn<'a> {
    pub(crate) now: UnixMillis,
    pub(crate) source: &'a dyn Source,
    /// The name of the key that it is asked with.
    pub(crate) key: Option<&'a str>,
    pub(crate) tokens: &'a Tokens,
    pub(crate) ids: &'a mut Nonces,
    /// Bytes of memory that subscriptions may still take.
    pub(crate) room: u64,
    pub(crate) actions: Vec<Action>,
    /// Streams that have become the subscription's (true) or ceased to be (false).
    pub(crate) watched: Vec<(Arc<str>, bool)>,
}

/// A subscription.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) id: Arc<str>,
    /// Which life of its id.
    pub(crate) life: u64,
    /// The name of the key that made it, whose it is; none is everyone's.
    pub(crate) key: Option<Box<str>>,
    pub(crate) settings: Settings,
    pub(crate) hash: [u8; 32],
    pub(crate) glob: Option<Glob>,
    /// Where the server is reached, without a slash at the end.
    pub(crate) origin: String,
    pub(crate) created_at: UnixMillis,
    pub(crate) links: Links,
    /// That of the last wake.
    pub(crate) generation: u64,
    pub(crate) phase: Phase,
    /// Wakes that could not be told, in a row.
    pub(crate) failures: u32,
    /// Something beside the links has to be stored again.
    pub(crate) changed: bool,
    pub(crate) written: Written,
}

impl Subscription {
    /// A new one, with the streams that there are, from their ends on.
    pub(crate) fn create(
        id: &Arc<str>,
        settings: Settings,
        origin: &str,
        turn: &mut Turn<'_>,
    ) -> Result<Subscription, Refusal> {
        let own = OVERHEAD_BYTES + settings.held() + id.len() as u64;
        turn.room = turn.room.checked_sub(own).ok_or(Full::Memory).map_err(too_many)?;
        let mut subscription = Subscription {
            id: Arc::clone(id),
            life: turn.ids.next_u64(),
            key: turn.key.map(Into::into),
            hash: settings.hash(),
            glob: settings.glob(),
            settings,
            origin: origin.to_owned(),
            created_at: turn.now,
            links: Links::default(),
            generation: 0,
            phase: Phase::Idle,
            failures: 0,
            changed: true,
            written: Written::default(),
        };
        for path in subscription.settings.streams.clone() {
            subscription.link_explicitly(path.into(), turn)?;
        }
        subscription.link_matching(turn, |extent| extent.tail).map_err(too_many)?;
        // Something may have been appended meanwhile to a stream that is linked both ways.
        subscription.settle(turn);
        Ok(subscription)
    }

    /// Bytes of memory that it takes, with what its webhook has shown.
    pub(crate) fn held(&self) -> u64 {
        let shown = match &self.phase {
            Phase::Delivering { tails, .. } => tails.len() as u64 * SHOWN_BYTES,
            _ => 0,
        };
        let own = OVERHEAD_BYTES + self.settings.held() + self.id.len() as u64;
        own + self.links.held() + shown
    }

    /// Somebody wants to make one, as it is.
    pub(crate) fn confirm(&self, settings: &Settings, kid: &str) -> Result<Reply, Refusal> {
        match self.hash == settings.hash() {
            true => Ok(Reply { status: 200, body: view::subscription(self, kid) }),
            false => Err(Refusal::new(
                Code::AlreadyExists,
                "There is a subscription with this id and another configuration. Delete it first, or take another id.",
            )),
        }
    }

    /// Whether it answers what is asked with the key called `key`. A wake's token is worth as much as its own key.
    pub(crate) fn answers(&self, question: &Question, key: Option<&str>) -> bool {
        self.key.is_none() || self.key.as_deref() == key || question.has_token()
    }

    fn link_explicitly(&mut self, path: Arc<str>, turn: &mut Turn<'_>) -> Result<(), Refusal> {
        let extent = turn.source.extent(&path, self.key.as_deref());
        let link = self.links.link(&path, How::Explicit, extent, |extent| extent.tail, &mut turn.room);
        if link.map_err(too_many)? {
            turn.watched.push((path, true));
        }
        Ok(())
    }

    /// Links what the pattern matches and is not linked yet.
    pub(crate) fn link_matching(
        &mut self,
        turn: &mut Turn<'_>,
        from: impl Fn(&Extent) -> Offset,
    ) -> Result<(), Full> {
        let Some(glob) = self.glob.clone() else { return Ok(()) };
        let (source, key) = (turn.source, self.key.clone());
        let mut result = Ok(());
        source.matching(&|path| glob.matches(path), key.as_deref(), &mut |path, extent| {
            result = self.link_by_glob(path, extent, &from, turn);
            if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        result
    }

    pub(crate) fn link_by_glob(
        &mut self,
        path: &str,
        extent: Extent,
        from: impl Fn(&Extent) -> Offset,
        turn: &mut Turn<'_>,
    ) -> Result<(), Full> {
        // Each wake would be new work, and each work another wake.
        let wakes_itself = self.settings.wake_stream.as_deref() == Some(path);
        if wakes_itself || path::is_reserved(path) || self.links.get(path).is_some_and(|link| link.glob) {
            return Ok(());
        }
        let path: Arc<str> = path.into();
        if self.links.link(&path, How::Glob, Some(extent), from, &mut turn.room)? {
            turn.watched.push((path, true));
        }
        Ok(())
    }

    /// A stream was created: if the pattern matches, all that it holds is work.
    pub(crate) fn discover(&mut self, path: &str, extent: Extent, turn: &mut Turn<'_>) -> Result<(), Full> {
        if self.glob.as_ref().is_some_and(|glob| glob.matches(path)) {
            self.link_by_glob(path, extent, |extent| extent.start, turn)?;
            self.settle(turn);
        }
        Ok(())
    }

    /// Something has happened to one of its streams.
    pub(crate) fn look(&mut self, path: &Arc<str>, extent: Option<Extent>, turn: &mut Turn<'_>) {
        self.note(path, extent, turn);
        self.settle(turn);
    }

    /// Looks at one of its streams, without waking anyone yet.
    pub(crate) fn refresh(&mut self, path: &Arc<str>, turn: &mut Turn<'_>) {
        let extent = turn.source.extent(path, self.key.as_deref());
        self.note(path, extent, turn);
    }

    fn note(&mut self, path: &Arc<str>, extent: Option<Extent>, turn: &mut Turn<'_>) {
        if self.links.look(path, extent) == Look::Gone {
            turn.watched.push((Arc::clone(path), false));
        }
    }

    /// The body of a POST to its streams.
    pub(crate) fn add_streams(&mut self, body: &[u8], turn: &mut Turn<'_>) -> Result<Reply, Refusal> {
        let body = settings::object(body)?;
        let Some(list) = body.get("streams") else {
            return Err(Refusal::field("streams", "is missing: it is what to add"));
        };
        let paths = settings::paths(list)?;
        if self.settings.wake_stream.as_ref().is_some_and(|wake| paths.contains(wake)) {
            return Err(Refusal::field("streams", "has the wake stream: it would wake itself for ever"));
        }
        let new = || paths.iter().filter(|path| self.links.get(path).is_none());
        if self.links.len() + new().count() > STREAMS_MAX {
            return Err(too_many(Full::Streams));
        }
        if new().map(|path| links::cost(path)).sum::<u64>() > turn.room {
            return Err(too_many(Full::Memory));
        }
        for path in paths {
            self.link_explicitly(path.into(), turn)?;
        }
        // One that was linked before has been looked at again.
        self.settle(turn);
        Ok(Reply::empty())
    }

    /// A stream is not named any more; that it never was is as good.
    pub(crate) fn remove_stream(&mut self, path: &str, turn: &mut Turn<'_>) -> Reply {
        // What cannot be a path was never added.
        if let Ok(path) = path::normalize(path) {
            if self.links.unlink(&path) {
                turn.watched.push((path.into(), false));
            }
            self.settle(turn);
        }
        Reply::empty()
    }

    /// Does what is due.
    pub(crate) fn advance(&mut self, turn: &mut Turn<'_>) {
        if self.phase.due().is_none_or(|due| due > turn.now) {
            return;
        }
        match std::mem::take(&mut self.phase) {
            Phase::Waiting { wake: Some(wake), .. } => self.tell(wake, turn),
            // Whoever was asked has neither answered nor called back: asking again at once would only ask faster.
            Phase::Delivering { called_back: false, .. } => self.fail(None, turn),
            _ => self.enter(Phase::Idle),
        }
        self.settle(turn);
    }

    /// Goes on after a restart: nobody will hear what becomes of what was being told, so it is told again.
    pub(crate) fn resume(&mut self, turn: &mut Turn<'_>) {
        match std::mem::take(&mut self.phase) {
            Phase::Delivering { wake, until, called_back: true, .. } => {
                self.enter(Phase::Held { wake, holder: String::new(), until });
            }
            Phase::Delivering { wake, .. } | Phase::Offered { wake, announced: false } => {
                self.enter(Phase::Waiting { wake: Some(wake), until: turn.now });
            }
            phase => self.phase = phase,
        }
        self.settle(turn);
        self.advance(turn);
    }

    /// A worker wants the wake.
    pub(crate) fn claim(&mut self, body: &[u8], turn: &mut Turn<'_>) -> Result<Reply, Refusal> {
        let holder = progress::worker(body)?;
        self.must_be(Kind::PullWake)?;
        if self.phase == Phase::Idle {
            // Whoever was just told of an append may be faster than the news of it.
            let paths: Vec<_> = self.links.iter().map(|(path, _)| Arc::clone(path)).collect();
            paths.iter().for_each(|path| self.refresh(path, turn));
            self.settle(turn);
        }
        let wake = match &self.phase {
            Phase::Held { wake, holder, .. } => {
                return Err(Refusal::already_claimed(holder, wake.generation));
            }
            phase => phase.wake().cloned(),
        };
        let Some(wake) = wake else {
            return Err(Refusal::new(
                Code::NoPendingWork,
                "There is nothing to do. An event in the wake stream tells when there is.",
            ));
        };
        let token = turn.tokens.mint(&self.id, self.life, wake.generation, turn.now);
        let reply = view::claim(&wake, &token, &self.links.show(), self.settings.lease_ttl_ms);
        self.failures = 0;
        self.enter(Phase::Held { wake, holder, until: turn.now + self.settings.lease_ttl_ms });
        Ok(reply)
    }

    /// A worker (ack) or a receiver (callback) says how far it is.
    pub(crate) fn progress(
        &mut self,
        kind: Kind,
        token: Option<&str>,
        body: &[u8],
        turn: &mut Turn<'_>,
    ) -> Result<Reply, Refusal> {
        let progress = self.fence(kind, token, body, turn)?;
        let mut judged = Vec::with_capacity(progress.acks.len());
        for (path, offset) in &progress.acks {
            if let Some(path) = self.links.key(path) {
                // Whoever has read it may know more of its end than has been told here.
                self.refresh(&path, turn);
            }
            judged.push(self.links.judge(path, offset)?);
        }
        for (path, cursor) in judged {
            self.links.advance(&path, cursor);
        }
        self.failures = 0;
        if progress.done {
            self.enter(Phase::Idle);
            self.settle(turn);
            return Ok(view::progress(self.phase != Phase::Idle));
        }
        let until = turn.now + self.settings.lease_ttl_ms;
        let phase = match std::mem::take(&mut self.phase) {
            Phase::Delivering { wake, tails, .. } => {
                Phase::Delivering { wake, until, called_back: true, tails }
            }
            Phase::Held { wake, holder, .. } => Phase::Held { wake, holder, until },
            // A delivery that seemed to have failed has arrived.
            Phase::Waiting { wake: Some(wake), .. } => Phase::Held { wake, holder: String::new(), until },
            phase => unreachable!("the fence lets nobody through to {phase:?}"),
        };
        self.enter(phase);
        Ok(view::progress(false))
    }

    /// A worker gives its wake back.
    pub(crate) fn release(
        &mut self,
        token: Option<&str>,
        body: &[u8],
        turn: &mut Turn<'_>,
    ) -> Result<Reply, Refusal> {
        self.fence(Kind::PullWake, token, body, turn)?;
        self.enter(Phase::Idle);
        self.settle(turn);
        Ok(Reply::empty())
    }

    /// Lets nobody through but who holds the current wake.
    fn fence(
        &self,
        kind: Kind,
        token: Option<&str>,
        body: &[u8],
        turn: &Turn<'_>,
    ) -> Result<Progress, Refusal> {
        let token = token.ok_or_else(progress::no_token)?;
        let generation = turn.tokens.check(token, &self.id, self.life, turn.now)?;
        self.must_be(kind)?;
        let progress = Progress::parse(body)?;
        let current = match (&self.phase, self.phase.wake()) {
            // Nobody has claimed it, so nobody has a token of it.
            (Phase::Offered { .. }, _) | (_, None) => return Err(Refusal::fenced()),
            (Phase::Waiting { .. }, _) if kind == Kind::PullWake => return Err(Refusal::fenced()),
            (_, Some(wake)) => wake,
        };
        let is_current = generation == current.generation
            && progress.generation == current.generation
            && progress.wake_id == current.id;
        if is_current { Ok(progress) } else { Err(Refusal::fenced()) }
    }

    fn must_be(&self, kind: Kind) -> Result<(), Refusal> {
        match (self.settings.kind == kind, kind) {
            (true, _) => Ok(()),
            (false, Kind::PullWake) => Err(Refusal::new(
                Code::InvalidRequest,
                "This is a webhook subscription: its receiver answers to the callback_url of a wake.",
            )),
            (false, Kind::Webhook) => Err(Refusal::new(
                Code::InvalidRequest,
                "This is a pull-wake subscription: its workers claim, then ack or release.",
            )),
        }
    }

    pub(crate) fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.changed = true;
    }
}

pub(crate) fn too_many(full: Full) -> Refusal {
    match full {
        Full::Streams => Refusal::new(
            Code::LimitReached,
            format!(
                "A subscription may have {STREAMS_MAX} streams. Use a narrower pattern, or several subscriptions."
            ),
        ),
        Full::Memory => Refusal::new(
            Code::NoMemory,
            "There is no memory left for subscriptions and their streams: delete some, or raise `memory` in [streams].",
        ),
    }
}
