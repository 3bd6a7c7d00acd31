//! A stream begins: new, as a fork, or found to be there as it was to be made (PROTOCOL.md, sections 4.2 and 5.1).

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::change_feed::Heard;
use super::log::{Record, Stored, overhead};
use super::model::bounds::{FORK_DEPTH_MAX, STREAM_OVERHEAD_BYTES};
use super::model::kind::Kind;
use super::model::lifetime::Lifetime;
use super::model::offset::Start;
use super::owners::{OverQuota, Weight};
use super::registry::{Found, Streams, guard};
use super::store::journal::{AppendError, Ticket};
use super::store::journal_entry::{Create, Entry};
use super::store::redis::Unavailable;
use super::stream::{Base, Pending, Presence, State, Stream};

/// What is to be created.
#[derive(Debug)]
pub(crate) struct Creation<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// What it holds; a fork holds what its source does.
    pub(crate) kind: Option<Kind>,
    /// How long it lives; a fork of which nothing is said as long as its source.
    pub(crate) lifetime: Lifetime,
    /// Its first content, as it is kept.
    pub(crate) bytes: Bytes,
    /// Where its messages end.
    pub(crate) ends: Box<[u32]>,
    /// Nothing will be appended.
    pub(crate) closed: bool,
    /// What it goes on from.
    pub(crate) fork: Option<Fork<'a>>,
    /// The name of the key that makes it, whose it is; none is everyone's.
    pub(crate) owner: Option<&'a str>,
    /// It is an answer: should this process end before it does, nobody else will end it.
    pub(crate) generated: bool,
}

impl Creation<'_> {
    /// What it goes on from, if that is still the stream that its maker may read.
    pub(crate) fn source(&self, found: Found) -> Result<Arc<Stream>, NotCreated> {
        match found {
            Found::Present(source) if self.fork.is_some_and(|fork| fork.id == source.id) => Ok(source),
            Found::Present(_) | Found::Missing => Err(NotCreated::NoSource),
            Found::Hidden(_) => Err(NotCreated::SourceGone),
        }
    }
}

/// Where a fork goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fork<'a> {
    /// The name of the stream it goes on from.
    pub(crate) source: &'a str,
    /// Its number.
    pub(crate) id: u64,
    /// Where; its end, if nothing is said.
    pub(crate) offset: Option<Start>,
    /// How many bytes, or messages, after that.
    pub(crate) sub_offset: u64,
}

/// It is there.
#[derive(Debug)]
pub(crate) struct Created {
    /// The stream.
    pub(crate) stream: Arc<Stream>,
    /// It was not there before.
    pub(crate) new: bool,
    /// To be waited for before anyone is told.
    pub(crate) ticket: Option<Ticket>,
}

/// Why a stream is not created.
#[derive(Debug)]
pub(crate) enum NotCreated {
    /// There is another of that name.
    Exists,
    /// There is one of that name that belongs to another key.
    Foreign,
    /// The streams of its key hold as much as they may.
    Quota(OverQuota),
    /// There are as many as there may be, or no memory is left for them.
    Full,
    /// There is no source of that name.
    NoSource,
    /// The source was deleted, and is only kept for other forks.
    SourceGone,
    /// The source holds something else.
    SourceKind,
    /// The source does not reach so far, or no reader could stand there.
    BadOffset,
    /// It would be a fork of a fork of a fork, and so on.
    TooDeep,
    /// It cannot be stored.
    Store(AppendError),
    /// Redis cannot be asked.
    Unavailable(Unavailable),
}

impl Streams {
    /// Makes a stream, or finds the one that is as it was to be made.
    ///
    /// # Errors
    /// See [`NotCreated`].
    pub(crate) fn create(&self, creation: &Creation<'_>, now: u64) -> Result<Created, NotCreated> {
        // Over, and not found out yet.
        let _ = self.find(creation.name, now);
        let source = match &creation.fork {
            None => None,
            Some(fork) => Some(creation.source(self.find(fork.source, now))?),
        };
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = names.get(creation.name) {
            return self.same(there, creation, source.as_ref());
        }
        let bounds = self.bounds();
        let cost = STREAM_OVERHEAD_BYTES + creation.bytes.len() as u64 + overhead(&creation.ends, None);
        // On disk payloads are let go of, but not before they are durable.
        let room = if self.common.journal.is_some() { bounds.memory * 2 } else { bounds.memory };
        if names.len() >= bounds.streams || self.common.held() + cost > room {
            return Err(NotCreated::Full);
        }
        let owner = creation.owner.map(|owner| self.common.owners.of(owner));
        if let Some(owner) = &owner {
            let payload = creation.bytes.len() as u64;
            let more = Weight { payload, beside: cost - payload };
            if let Some((_, quota)) = self.common.excess(owner, more, &bounds) {
                return Err(NotCreated::Quota(quota));
            }
            if !self.common.may_own_more(owner, names.len(), &bounds) {
                return Err(NotCreated::Full);
            }
        }
        if source.as_ref().is_some_and(|source| !source.is_present()) {
            return Err(NotCreated::SourceGone);
        }
        let base = match (&creation.fork, source) {
            (Some(fork), Some(source)) => Some(base(fork, source, creation.kind.as_ref())?),
            _ => None,
        };
        let stream = Arc::new(self.make(creation, base, now)?);
        self.common.held.fetch_add(stream.cost() + stream.lock().held(), Ordering::Relaxed);
        self.common.own(&stream);
        if let Some(base) = &stream.base {
            base.source.lock().forks += 1;
        }
        names.insert(creation.name.into(), Arc::clone(&stream));
        drop(names);
        self.look_again(&stream, now);
        self.common.news.created(&stream);
        let ticket = stream.lock().last_ticket();
        Ok(Created { stream, new: true, ticket })
    }

    /// The stream that is there, if it is what was to be made.
    pub(crate) fn same(
        &self,
        there: &Arc<Stream>,
        creation: &Creation<'_>,
        source: Option<&Arc<Stream>>,
    ) -> Result<Created, NotCreated> {
        let state = there.lock();
        let kind = match (&creation.kind, source) {
            (Some(kind), _) => there.kind.is(kind.as_str()),
            (None, Some(_)) => true,
            (None, None) => there.kind.is(super::model::kind::DEFAULT_CONTENT_TYPE),
        };
        let lifetime = match (&creation.lifetime, source) {
            (Lifetime::Unbounded, Some(source)) => &source.lifetime,
            (lifetime, _) => lifetime,
        };
        let ticket = state.last_ticket();
        let closed = state.closed;
        let is_present = state.presence == Presence::Present;
        drop(state);
        let forked = match (&there.base, &creation.fork, source) {
            (None, None, _) => true,
            (Some(is), Some(fork), Some(source)) if is.source.id == source.id => {
                fork.offset.is_none() && fork.sub_offset == 0
                    || base(fork, Arc::clone(source), None).is_ok_and(|base| base.position == is.position)
            }
            _ => false,
        };
        let matches = is_present
            && kind
            && forked
            && there.lifetime == *lifetime
            && closed == creation.closed
            && there.is_open_to(creation.owner);
        match matches {
            true => Ok(Created { stream: Arc::clone(there), new: false, ticket }),
            // That there is a kept response is nobody else's business.
            false if there.is_hidden() || there.is_open_to(creation.owner) => Err(NotCreated::Exists),
            false => Err(NotCreated::Foreign),
        }
    }

    fn make(&self, creation: &Creation<'_>, base: Option<Base>, now: u64) -> Result<Stream, NotCreated> {
        let source = base.as_ref().map(|base| &base.source);
        let kind = match (&creation.kind, source) {
            (_, Some(source)) => source.kind.clone(),
            (Some(kind), None) => kind.clone(),
            (None, None) => {
                Kind::new(super::model::kind::DEFAULT_CONTENT_TYPE).expect("the default is a type")
            }
        };
        let lifetime = match (&creation.lifetime, source) {
            (Lifetime::Unbounded, Some(source)) => source.lifetime.clone(),
            (lifetime, _) => lifetime.clone(),
        };
        // A fork shares its source's positions, so it shares their epoch; a name that comes again has another.
        let epoch = source.map_or_else(|| guard(&self.ids).next_u64(), |source| source.epoch);
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let start = base.as_ref().map_or(0, |base| base.position);
        let order = self.common.next_order();
        let mut state = State::new(start, now);
        let mut stored = None;
        let end = start + creation.bytes.len() as u64;
        if let Some(journal) = &self.common.journal {
            let entry = Entry::Create(Create {
                stream: id,
                name: creation.name.into(),
                content_type: kind.as_str().into(),
                epoch,
                lifetime: lifetime.clone(),
                at: now,
                order,
                fork: base.as_ref().map(|base| (base.source.id, base.position)),
                owner: creation.owner.map(Into::into),
                closed: creation.closed,
                ends: creation.ends.to_vec(),
                generated: creation.generated,
            });
            let (body, skip) = entry.write(&creation.bytes);
            let ticket = journal.append(&body).map_err(NotCreated::Store)?;
            state.anchors.push(ticket.location);
            state.pending.push_back(Pending { ticket, end, order, closes: creation.closed });
            stored = Some(Stored { location: ticket.location, skip, shared: true });
        }
        if !creation.bytes.is_empty() {
            let (ends, bytes) = (creation.ends.clone(), Some(creation.bytes.clone()));
            state.log.push(Record { start, end, order, at: now, event: None, ends, bytes, stored });
        }
        state.closed = creation.closed;
        if self.common.journal.is_none() {
            (state.visible, state.closed_visible) = (state.log.tail, state.closed);
        }
        Ok(Stream {
            id,
            name: creation.name.into(),
            kind,
            epoch,
            lifetime,
            owner: creation.owner.map(|owner| self.common.owners.of(owner)),
            generated: creation.generated,
            base,
            common: Arc::clone(&self.common),
            heard: Heard::default(),
            state: Mutex::new(state),
        })
    }
}

/// Where a fork goes on from `source`.
pub(crate) fn base(fork: &Fork<'_>, source: Arc<Stream>, kind: Option<&Kind>) -> Result<Base, NotCreated> {
    if kind.is_some_and(|kind| !source.kind.is(kind.as_str())) {
        return Err(NotCreated::SourceKind);
    }
    let status = source.status();
    let position = match fork.offset {
        None => status.tail,
        Some(start) => source.position(start).map_err(|_| NotCreated::BadOffset)?,
    };
    let position = match (fork.sub_offset, source.kind.form) {
        (0, _) => Some(position),
        (count, super::model::kind::Form::Json) => source.after_messages(position, count, status.tail),
        (count, _) => position.checked_add(count).filter(|&position| position <= status.tail),
    };
    let position = position.ok_or(NotCreated::BadOffset)?;
    let depth = source.base.as_ref().map_or(0, |base| base.depth) + 1;
    if depth > FORK_DEPTH_MAX {
        return Err(NotCreated::TooDeep);
    }
    Ok(Base { source, position, depth })
}
