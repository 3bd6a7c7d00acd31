//! Reading a stream: where a reader stands, and what there is after it, be it in the stream itself or in what it was forked
//! from.

use super::log::Piece;
use super::model::offset::{Offset, Start};
use super::stream::{Presence, Stream};

/// What readers may know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    /// The first position that can be read.
    pub(crate) start: u64,
    /// The position after the last.
    pub(crate) tail: u64,
    /// There will be no more.
    pub(crate) closed: bool,
}

/// How far one answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Where to read on.
    pub(crate) next: u64,
    /// That is the end.
    pub(crate) up_to_date: bool,
    /// And there will be no more.
    pub(crate) closed: bool,
}

/// A part of a stream.
#[derive(Debug)]
pub(crate) struct Page {
    /// What is in it, in order and without gaps.
    pub(crate) pieces: Vec<Piece>,
    /// Where to read on.
    pub(crate) next: u64,
    /// It reaches to the end.
    pub(crate) up_to_date: bool,
    /// And there will be no more.
    pub(crate) closed: bool,
    /// The first append to the stream that readers may not know of yet, in the order of all.
    pub(crate) settled_before: u64,
}

/// Why a position cannot be read; where it is told, the first one that can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// It is no longer kept; this is the first that is.
    Trimmed(Offset),
    /// It is of another life of the log, which was lost.
    Epoch(Offset),
    /// Nothing has come so far yet.
    Ahead(Offset),
    /// It lies within a message.
    Within,
    /// The stream is no more.
    Deleted,
}

impl Stream {
    /// What readers may know of it now.
    pub(crate) fn status(&self) -> Status {
        let (tail, closed, own) = {
            let mut state = self.lock();
            state.settle(&self.common);
            (state.visible, state.closed_visible, state.log.start)
        };
        Status { start: self.earliest(own), tail, closed }
    }

    /// The first position that can be read: a fork's lies in its source, unless its own beginning was trimmed.
    fn earliest(&self, own: u64) -> u64 {
        let (mut stream, mut start, mut limit) = (self, own, u64::MAX);
        while let Some(base) = stream.base.as_ref().filter(|base| start <= base.position) {
            limit = limit.min(base.position);
            stream = &base.source;
            start = stream.lock().log.start;
        }
        start.min(limit)
    }

    /// Where a reader who wants to begin at `start` stands.
    ///
    /// # Errors
    /// If nothing can be read there.
    pub(crate) fn position(&self, start: Start) -> Result<u64, Unreadable> {
        let status = self.status();
        let position = match start {
            Start::Beginning => return Ok(status.start),
            Start::Now => return Ok(status.tail),
            Start::At(offset) if offset.epoch != self.epoch => {
                return Err(Unreadable::Epoch(self.offset(status.start)));
            }
            Start::At(offset) => offset.position,
        };
        match position {
            _ if position < status.start => Err(Unreadable::Trimmed(self.offset(status.start))),
            _ if position > status.tail => Err(Unreadable::Ahead(self.offset(status.start))),
            _ if !self.is_boundary(position) => Err(Unreadable::Within),
            _ => Ok(position),
        }
    }

    /// The stream among this one and its sources that holds what comes after `position`.
    fn holder(&self, position: u64) -> (&Stream, u64) {
        let (mut stream, mut until) = (self, u64::MAX);
        while let Some(base) = stream.base.as_ref().filter(|base| position < base.position) {
            until = until.min(base.position);
            stream = &base.source;
        }
        (stream, until)
    }

    fn is_boundary(&self, position: u64) -> bool {
        self.holder(position).0.lock().log.is_boundary(position)
    }

    /// Where the `count`th message after `position` ends, if there are as many.
    pub(crate) fn after_messages(&self, mut position: u64, mut count: u64, tail: u64) -> Option<u64> {
        loop {
            let (holder, until) = self.holder(position);
            let until = until.min(tail);
            let (at, left) = holder.lock().log.after_messages(position, count, until);
            match left {
                0 => return Some(at),
                _ if until >= tail => return None,
                // As many as there are lie in this one; the others in the next.
                _ => (position, count) = (until, left),
            }
        }
    }

    /// How far one answer that begins at `from` goes: to where a record ends, after `max` bytes or a few more.
    ///
    /// # Errors
    /// If nothing can be read there any more.
    pub(crate) fn extent(&self, from: u64, max: u64) -> Result<Extent, Unreadable> {
        let (tail, closed) = {
            let mut state = self.lock();
            if state.presence == Presence::Deleted {
                return Err(Unreadable::Deleted);
            }
            state.settle(&self.common);
            (state.visible, state.closed_visible)
        };
        let at = from.saturating_add(max);
        if at >= tail {
            return Ok(Extent { next: tail, up_to_date: true, closed });
        }
        let (holder, until) = self.holder(at);
        let next = holder.lock().log.end_of_record(at).min(until).min(tail);
        Ok(Extent { next, up_to_date: next == tail, closed: closed && next == tail })
    }

    /// What there is between `from` and `until`: whole records until `max` bytes are reached.
    ///
    /// # Errors
    /// If it is no longer there.
    pub(crate) fn page(&self, from: u64, until: u64, max: u64) -> Result<Page, Unreadable> {
        let last = until;
        let mut page = Page {
            pieces: Vec::new(),
            next: from,
            up_to_date: false,
            closed: false,
            settled_before: u64::MAX,
        };
        let mut size = 0;
        loop {
            let (holder, until) = self.holder(page.next);
            let mut state = holder.lock();
            let is_own = std::ptr::eq(holder, self);
            if is_own {
                if state.presence == Presence::Deleted {
                    return Err(Unreadable::Deleted);
                }
                state.settle(&self.common);
            }
            if page.next < state.log.start {
                // Trimmed between two parts: the parts before it are whole.
                if page.next > from {
                    return Ok(page);
                }
                let start = state.log.start;
                return Err(Unreadable::Trimmed(self.offset(start)));
            }
            let there = until.min(if is_own { state.visible } else { u64::MAX });
            let until = there.min(last);
            let before = page.pieces.len();
            state.log.pieces(page.next, until, max, &mut page.pieces);
            for piece in &mut page.pieces[before..] {
                size += piece.end - piece.start;
                page.next = piece.end;
                // A fork may begin within a record of its source.
                piece.message_end = piece.message_end.min(there);
                piece.record_end = piece.record_end.min(there);
            }
            if is_own {
                page.up_to_date = page.next >= state.visible;
                page.closed = page.up_to_date && state.closed_visible;
                page.settled_before = match self.common.remote {
                    Some(_) => state.mirrored + 1,
                    None => state.pending.front().map_or(u64::MAX, |pending| pending.order),
                };
                return Ok(page);
            }
            if size >= max || page.next < until || page.next >= last {
                return Ok(page);
            }
        }
    }

    /// The last record that was trimmed of it, or of what it was forked from, in the order of all appends.
    pub(crate) fn lost(&self) -> u64 {
        let (mut stream, mut lost) = (self, self.lock().log.lost);
        while let Some(base) = &stream.base {
            stream = &base.source;
            lost = lost.max(stream.lock().log.lost);
        }
        lost
    }

    /// Where the first record begins that comes after `order` in the order of all appends; `None` if it was trimmed, unless that
    /// is known of everything up to `told`.
    pub(crate) fn after_order(&self, order: u64, told: u64) -> Option<u64> {
        let mut position = self.lock().log.after_order(order, told)?;
        let mut stream = self;
        // What a fork has of its source came before its own.
        while let Some(base) = stream.base.as_ref().filter(|base| position <= base.position) {
            stream = &base.source;
            position = stream.lock().log.after_order(order, told)?.min(base.position);
        }
        Some(position)
    }
}
