//! The streams as the journal knows them, at a start.
//!
//! Entries come in the order in which they were taken. One of a stream that is not known is of one that was deleted, and is
//! given up; one that contradicts those before it ends the start: what is there is not what was written.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

pub(crate) use super::journal::OpenError;
use super::journal::{self, Journal, Keeper, Location, Recovery, Settings};
use super::journal_entry::{self, Entry};
use super::metadata::{Noted, Notes, Written};
use crate::streams::append::Append;
use crate::streams::change_feed::Heard;
use crate::streams::log::{Log, Record, Stored};
use crate::streams::model::bounds::Bounds;
use crate::streams::model::kind::Kind;
use crate::streams::model::producer::Claim;
use crate::streams::registry::Streams;
use crate::streams::stream::{Base, Presence, State, Stream};
use crate::telemetry::Nonces;

/// What opening a directory gives.
#[derive(Debug)]
pub(crate) struct Opened {
    /// All that is in it.
    pub(crate) streams: Streams,
    /// What is kept beside them.
    pub(crate) notes: Notes,
    /// What was kept there.
    pub(crate) noted: Written,
    /// What was found of the journal.
    pub recovery: Recovery,
    /// Its writer; nothing is stored once it is dropped.
    pub(crate) keeper: Keeper<journal::Directory>,
}

/// One stream, while its entries come.
struct Half {
    create: Made,
    fork: Option<(u64, u64)>,
    state: State,
    /// Where it begins if that is true what was said last: appends before were trimmed, and some of them may be missing.
    start: u64,
    /// Its source is not there: it is about to be deleted itself.
    orphan: bool,
}

struct Made {
    name: Box<str>,
    kind: Kind,
    epoch: u64,
    lifetime: crate::streams::model::lifetime::Lifetime,
    owner: Option<Box<str>>,
    generated: bool,
}

/// What has come so far.
#[derive(Default)]
struct Replay {
    halves: HashMap<u64, Half>,
    dead: Vec<Location>,
    notes: Noted,
    order: u64,
    next: u64,
}

/// Opens the streams in a directory, for so many cores.
///
/// # Errors
/// If the directory cannot be used or holds what is damaged.
pub(crate) fn open(
    path: &Path,
    settings: &Settings,
    cores: usize,
    bounds: Bounds,
    ids: Nonces,
    now: u64,
    interrupted: &[u8],
) -> Result<Opened, OpenError> {
    let mut replay = Replay::default();
    let opened = Journal::open(path, settings, |location, bytes| replay.take(location, bytes, now))?;
    let journal = opened.journal.clone();
    let keeper = opened.writer.spawn().map_err(|error| OpenError::Io {
        doing: "start the writer of",
        path: path.to_owned(),
        error,
    })?;
    journal.retire(&replay.dead);
    let (notes, noted) = std::mem::take(&mut replay.notes).finish(journal.clone());
    let streams = Streams::on(Some(journal), None, opened.number, cores, bounds, ids);
    replay.finish(&streams, path, now, interrupted)?;
    Ok(Opened { streams, notes, noted, recovery: opened.recovery, keeper })
}

impl Replay {
    fn take(&mut self, location: Location, bytes: &[u8], now: u64) -> Result<(), String> {
        let (entry, payload) = journal_entry::read(bytes)?;
        let skip = (bytes.len() - payload.len()) as u32;
        match entry {
            Entry::Create(create) => self.create(create, location, skip, payload.len() as u64, now),
            Entry::Append(append) => self.append(&append, location, skip, payload.len() as u64),
            Entry::Delete { stream } => {
                self.delete(stream, location);
                Ok(())
            }
            Entry::Trim(trim) => self.trim(&trim, location),
            Entry::Note { name, gone } => {
                self.notes.replay(&name, location, payload, gone, &mut self.dead);
                Ok(())
            }
            Entry::More { name } => {
                self.notes.replay_more(&name, location, payload, &mut self.dead);
                Ok(())
            }
            Entry::Answer { stream, name } => {
                match self.halves.get_mut(&stream) {
                    Some(half) => {
                        half.state.answer = Some(name.into());
                        half.state.anchors.push(location);
                    }
                    None => self.dead.push(location),
                }
                Ok(())
            }
        }
    }

    fn create(
        &mut self,
        create: journal_entry::Create<'_>,
        location: Location,
        skip: u32,
        length: u64,
        now: u64,
    ) -> Result<(), String> {
        let kind = Kind::new(&create.content_type)
            .ok_or_else(|| format!("{} has an impossible content type", create.name))?;
        let start = create.fork.map_or(0, |(_, position)| position);
        let mut orphan = false;
        if let Some((source, _)) = create.fork {
            match self.halves.get_mut(&source) {
                Some(source) => source.state.forks += 1,
                None => orphan = true,
            }
        }
        // What nobody could use meanwhile is not held against it.
        let mut state = State::new(start, now.max(create.at));
        state.anchors.push(location);
        if length > 0 {
            state.log.push(Record {
                start,
                end: start + length,
                order: create.order,
                at: create.at,
                event: None,
                ends: create.ends.into(),
                bytes: None,
                stored: Some(Stored { location, skip, shared: true }),
            });
        }
        state.closed = create.closed;
        self.order = self.order.max(create.order + 1);
        self.next = self.next.max(create.stream + 1);
        let made = Made {
            name: create.name.into(),
            kind,
            epoch: create.epoch,
            lifetime: create.lifetime,
            owner: create.owner.map(Into::into),
            generated: create.generated,
        };
        let fork = create.fork;
        self.halves.insert(create.stream, Half { create: made, fork, state, start, orphan });
        Ok(())
    }

    fn append(
        &mut self,
        append: &journal_entry::Append<'_>,
        location: Location,
        skip: u32,
        length: u64,
    ) -> Result<(), String> {
        self.order = self.order.max(append.order + 1);
        let Some(half) = self.halves.get_mut(&append.stream) else {
            self.dead.push(location);
            return Ok(());
        };
        let (name, state) = (&half.create.name, &mut half.state);
        if append.start > state.log.tail {
            // What lies between was given up, so what is before it was as well; the word of it comes later.
            state.log = Log::new(append.start);
        }
        if append.start < state.log.tail {
            return Err(format!(
                "{name} goes on at {} after it had come to {}",
                append.start, state.log.tail
            ));
        }
        if length > 0 {
            state.log.push(Record {
                start: append.start,
                end: append.start + length,
                order: append.order,
                at: append.at,
                event: append.event.as_deref().map(Into::into),
                ends: append.ends.clone().into(),
                bytes: None,
                stored: Some(Stored { location, skip, shared: false }),
            });
        } else {
            state.anchors.push(location);
        }
        let claim =
            append.claim.as_ref().map(|claim| Claim { id: &claim.id, epoch: claim.epoch, seq: claim.seq });
        if let Some(claim) = claim {
            state.producers.restore(claim);
        }
        state.note(None, append.seq.as_deref(), append.close);
        if append.close {
            state.closer = claim.map(|claim| (claim.id.into(), claim.epoch, claim.seq));
        }
        Ok(())
    }

    fn delete(&mut self, stream: u64, location: Location) {
        let Some(half) = self.halves.get_mut(&stream) else { return self.dead.push(location) };
        if half.state.forks > 0 {
            half.state.presence = Presence::Hidden;
            half.state.anchors.push(location);
            return;
        }
        self.dead.push(location);
        let mut last = stream;
        // The sources that only it has kept go with it.
        while let Some(half) = self.halves.remove(&last) {
            self.dead.extend(half.state.locations());
            let Some((source, _)) = half.fork else { return };
            let Some(source_half) = self.halves.get_mut(&source) else { return };
            source_half.state.forks -= 1;
            if source_half.state.forks > 0 || source_half.state.presence != Presence::Hidden {
                return;
            }
            last = source;
        }
    }

    fn trim(&mut self, trim: &journal_entry::Trim<'_>, location: Location) -> Result<(), String> {
        let Some(half) = self.halves.get_mut(&trim.stream) else {
            self.dead.push(location);
            return Ok(());
        };
        let state = &mut half.state;
        state.log.trim(|_, record| record.start >= trim.start, &mut self.dead);
        if state.log.tail < trim.start {
            state.log = Log::new(trim.start);
        }
        state.log.lost = trim.lost;
        half.start = trim.start;
        for claim in &trim.producers {
            state.producers.restore(Claim { id: &claim.id, epoch: claim.epoch, seq: claim.seq });
        }
        if let Some(seq) = &trim.seq {
            state.seq = Some((&**seq).into());
        }
        self.dead.extend(state.trimmed.replace(location));
        Ok(())
    }

    /// Makes streams of them: a source before its forks, which have greater numbers.
    fn finish(self, streams: &Streams, path: &Path, now: u64, interrupted: &[u8]) -> Result<(), OpenError> {
        let mut halves: Vec<(u64, Half)> = self.halves.into_iter().collect();
        halves.sort_unstable_by_key(|(id, _)| *id);
        let mut made: HashMap<u64, Arc<Stream>> = HashMap::with_capacity(halves.len());
        let mut held = 0;
        let mut answers = HashMap::new();
        let mut cut = Vec::new();
        for (id, mut half) in halves {
            if half.orphan || half.state.log.start != half.start {
                let why = match half.orphan {
                    true => "the stream that it goes on from is missing".to_owned(),
                    false => format!("what lies before byte {} of it is missing", half.state.log.start),
                };
                return Err(OpenError::Incomplete { path: path.to_owned(), name: half.create.name, why });
            }
            (half.state.visible, half.state.closed_visible) = (half.state.log.tail, half.state.closed);

            let base = half.fork.and_then(|(source, position)| {
                let source = Arc::clone(made.get(&source)?);
                let depth = source.base.as_ref().map_or(0, |base| base.depth) + 1;
                Some(Base { source, position, depth })
            });
            let Made { name, kind, epoch, lifetime, owner, generated } = half.create;
            let (answer, is_cut) = (half.state.answer.clone(), generated && !half.state.closed);
            let stream = Arc::new(Stream {
                id,
                name,
                kind,
                epoch,
                lifetime,
                owner: owner.map(|owner| streams.common.owners.of(&owner)),
                generated,
                base,
                common: Arc::clone(&streams.common),
                heard: Heard::default(),
                state: Mutex::new(half.state),
            });
            held += stream.cost() + stream.lock().held();
            streams.common.own(&stream);
            if let Some(answer) = answer {
                answers.insert(answer, Arc::clone(&stream));
            }
            if is_cut {
                cut.push(Arc::clone(&stream));
            }
            made.insert(id, stream);
        }
        streams.common.held.store(held, Ordering::Relaxed);
        streams.common.order.store(self.order.max(1), Ordering::Relaxed);
        streams.next.store(self.next.max(1), Ordering::Relaxed);
        let mut names = streams.names.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        names.extend(made.values().map(|stream| (stream.name.clone(), Arc::clone(stream))));
        drop(names);
        *streams.answers.write().unwrap_or_else(std::sync::PoisonError::into_inner) = answers;
        // Whoever wrote these is gone, and their upstreams with it: they end, and say that they are not whole.
        for stream in cut {
            let bytes = Bytes::copy_from_slice(interrupted);
            let kind = stream.kind.as_str().to_owned();
            let last =
                Append { bytes, content_type: Some(&kind), close: true, own: true, ..Append::default() };
            let outcome = stream.append(&last, now);
            if outcome.result.is_err() {
                stream.fail();
            }
            // Nobody reads yet, and whoever does is not to wait for what nobody would wake it for.
            let is_settled =
                |journal: &Journal| outcome.ticket.is_none_or(|ticket| journal.outcome(ticket).is_some());
            while !streams.journal().is_none_or(is_settled) {
                std::thread::yield_now();
            }
        }
        made.values().for_each(|stream| streams.look_again(stream, now));
        Ok(())
    }
}
