//! The streams of one subscription: how far each has been processed, how far it reaches, and which have work.
//!
//! A link is `explicit` when a client named the stream and `glob` when the pattern found it; both may be, and it lives as long
//! as one of them holds. Its cursor belongs to one life of the stream: when the name is taken by another stream, the cursor
//! begins where that one begins. Ends are what the engine says they are when it is asked, never what somebody remembers, so it
//! does not matter in which order news of appends, creations and deletions arrive.
//!
//! What may never happen: a cursor moves back in the life of a stream, or beyond its end.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use super::refusal::{Code, Refusal};
use super::source::Extent;
use super::{LINK_OVERHEAD_BYTES, STREAMS_MAX, WAKE_STREAMS_MAX};
use crate::streams::model::offset::Offset;

/// How a stream came to be one of the subscription's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// A client named it.
    Explicit,
    /// The pattern matches it.
    Glob,
}

/// How far one life of a stream has been processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// Which life.
    pub(crate) life: u64,
    /// Up to here.
    pub(crate) acked: Offset,
}

/// One stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) explicit: bool,
    pub(crate) glob: bool,
    /// None while there is no stream of this name.
    pub(crate) cursor: Option<Cursor>,
    /// Where it ends, as far as is known; none while there is no such stream.
    pub(crate) tail: Option<Offset>,
}

impl Link {
    fn has_pending(&self) -> bool {
        match (self.cursor, self.tail) {
            (Some(cursor), Some(tail)) => tail.position > cursor.acked.position,
            _ => false,
        }
    }

    fn set(&mut self, how: How) {
        match how {
            How::Explicit => self.explicit = true,
            How::Glob => self.glob = true,
        }
    }
}

/// A stream as a wake shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) path: Arc<str>,
    pub(crate) link: Link,
}

impl Seen {
    /// The end that is shown.
    pub(crate) fn tail(&self) -> Option<(Arc<str>, Cursor)> {
        let (cursor, acked) = (self.link.cursor?, self.link.tail?);
        Some((Arc::clone(&self.path), Cursor { life: cursor.life, acked }))
    }

    pub(crate) fn has_pending(&self) -> bool {
        self.link.has_pending()
    }
}

/// Up to where work is done when a wake is, by path and life of the stream.
pub(crate) type Tails = Vec<(Arc<str>, Cursor)>;

/// What became of a stream that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// It is still one of the subscription's.
    Stays,
    /// It was there by the pattern alone, and is deleted.
    Gone,
}

/// All streams of a subscription.
#[derive(Debug, Default)]
pub(crate) struct Links {
    all: BTreeMap<Arc<str>, Link>,
    pending: BTreeSet<Arc<str>>,
    /// What has to be stored again.
    changed: BTreeSet<Arc<str>>,
    /// The last that a wake has shown for its work: the next one goes on after it, so that none waits behind the others for
    /// ever.
    shown: Option<Arc<str>>,
    /// Bytes of memory that they take.
    held: u64,
}

/// Bytes of memory that a stream costs the subscription.
pub(crate) fn cost(path: &str) -> u64 {
    LINK_OVERHEAD_BYTES + path.len() as u64
}

impl Links {
    /// Bytes of memory that they take.
    pub(crate) fn held(&self) -> u64 {
        self.held
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Link)> {
        self.all.iter()
    }

    pub(crate) fn get(&self, path: &str) -> Option<&Link> {
        self.all.get(path)
    }

    /// The path of one of them, as it is kept.
    pub(crate) fn key(&self, path: &str) -> Option<Arc<str>> {
        self.all.get_key_value(path).map(|(path, _)| Arc::clone(path))
    }

    /// The first stream with work after the one that was shown last.
    pub(crate) fn first_pending(&self) -> Option<&Arc<str>> {
        self.in_turn().next()
    }

    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    fn in_turn(&self) -> impl Iterator<Item = &Arc<str>> {
        // No path is empty, so all of them come after "".
        let last = self.shown.as_deref().unwrap_or("");
        let after = self.pending.range::<str, _>((Bound::Excluded(last), Bound::Unbounded));
        after.chain(self.pending.range::<str, _>((Bound::Unbounded, Bound::Included(last))))
    }

    /// Makes a stream one of the subscription's, processed up to `from` of what it is now; a link that is there keeps its
    /// cursor. Says whether it is new, or that there are too many. What it costs is taken from `room`, bytes of memory.
    pub(crate) fn link(
        &mut self,
        path: &Arc<str>,
        how: How,
        extent: Option<Extent>,
        from: impl Fn(&Extent) -> Offset,
        room: &mut u64,
    ) -> Result<bool, Full> {
        let is_new = !self.all.contains_key(path);
        if is_new {
            if self.all.len() >= STREAMS_MAX {
                return Err(Full::Streams);
            }
            *room = room.checked_sub(cost(path)).ok_or(Full::Memory)?;
            self.held += cost(path);
        }
        let link = self.all.entry(Arc::clone(path)).or_default();
        link.set(how);
        if is_new && let Some(extent) = &extent {
            link.cursor = Some(Cursor { life: extent.life, acked: from(extent) });
        }
        self.changed.insert(Arc::clone(path));
        self.look(path, extent);
        Ok(is_new)
    }

    /// Takes the client's word for a stream back; the pattern's stays. Says whether the link is gone.
    pub(crate) fn unlink(&mut self, path: &str) -> bool {
        let Some((path, link)) = self.all.get_key_value(path).filter(|(_, link)| link.explicit) else {
            return false;
        };
        let (path, is_gone) = (Arc::clone(path), !link.glob);
        if is_gone {
            self.remove(&path);
        } else if let Some(link) = self.all.get_mut(&path) {
            link.explicit = false;
        }
        self.changed.insert(path);
        is_gone
    }

    fn remove(&mut self, path: &str) {
        if self.all.remove(path).is_some() {
            self.held -= cost(path);
        }
        self.pending.remove(path);
    }

    /// Looks at a stream again, as the engine has it.
    pub(crate) fn look(&mut self, path: &Arc<str>, extent: Option<Extent>) -> Look {
        let Some(link) = self.all.get_mut(path) else { return Look::Gone };
        let before = link.cursor;
        link.tail = extent.map(|extent| extent.tail);
        link.cursor = match (before, extent) {
            (_, None) => None,
            (Some(cursor), Some(extent)) if cursor.life == extent.life => {
                // A log that has lost its end goes on from there, under another epoch if Redis has lost it: what was
                // acknowledged up to here is still what stands before it, for both were lost back to one moment.
                let position = cursor.acked.position.min(extent.tail.position);
                Some(Cursor { acked: Offset { epoch: extent.tail.epoch, position }, ..cursor })
            }
            (_, Some(extent)) => Some(Cursor { life: extent.life, acked: extent.start }),
        };
        if link.cursor != before {
            self.changed.insert(Arc::clone(path));
        }
        if extent.is_none() && !link.explicit {
            self.remove(path);
            return Look::Gone;
        }
        self.note_pending(path);
        Look::Stays
    }

    fn note_pending(&mut self, path: &Arc<str>) {
        match self.all.get(path).is_some_and(Link::has_pending) {
            true => drop(self.pending.insert(Arc::clone(path))),
            false => drop(self.pending.remove(path)),
        }
    }

    /// Whether the cursor of a stream, looked at just now, can move to `offset`.
    pub(crate) fn judge(&self, path: &str, offset: &str) -> Result<(Arc<str>, Cursor), Refusal> {
        let refused = |why: &str| {
            Err(Refusal::new(
                Code::InvalidOffset,
                format!("The offset for `{path}` cannot be acknowledged: {why}."),
            ))
        };
        let Some((path, link)) = self.all.get_key_value(path) else {
            return refused("the subscription has no such stream");
        };
        let (Some(cursor), Some(tail)) = (link.cursor, link.tail) else {
            return refused("there is no such stream now");
        };
        match offset.parse::<Offset>() {
            Err(_) => refused("it is not one that this server has made"),
            Ok(offset) if offset.epoch != tail.epoch => {
                refused("it belongs to an earlier life of the stream")
            }
            Ok(offset) if offset.position < cursor.acked.position => {
                refused("more than that was acknowledged already")
            }
            Ok(offset) if offset.position > tail.position => refused("it is beyond the stream's end"),
            Ok(acked) => Ok((Arc::clone(path), Cursor { acked, ..cursor })),
        }
    }

    /// Moves a cursor forward within the life of the stream it was looked at in; anything else leaves it where it is.
    pub(crate) fn advance(&mut self, path: &Arc<str>, to: Cursor) {
        let Some(link) = self.all.get_mut(path) else { return };
        let (Some(cursor), Some(tail)) = (&mut link.cursor, link.tail) else { return };
        let (from, upto) = (cursor.acked.position, to.acked.position);
        if cursor.life == to.life && from < upto && upto <= tail.position {
            *cursor = to;
            self.changed.insert(Arc::clone(path));
            self.note_pending(path);
        }
    }

    /// The last that a wake has shown for its work.
    pub(crate) fn shown(&self) -> Option<&str> {
        self.shown.as_deref()
    }

    /// The same, as it was stored.
    pub(crate) fn restore_shown(&mut self, shown: Option<&str>) {
        self.shown = shown.map(Into::into);
    }

    /// What a wake shows: those with work, in turn, then the others, as many as it has room for.
    pub(crate) fn show(&mut self) -> Vec<Seen> {
        let mut shown: Vec<Arc<str>> = self.in_turn().take(WAKE_STREAMS_MAX).cloned().collect();
        if shown.last().is_some() {
            self.shown = shown.last().cloned();
        }
        let room = WAKE_STREAMS_MAX - shown.len();
        shown.extend(self.all.keys().filter(|path| !self.pending.contains(*path)).take(room).cloned());
        let seen = |path: Arc<str>| self.all.get(&path).cloned().map(|link| Seen { path, link });
        shown.into_iter().filter_map(seen).collect()
    }

    /// Takes what has to be stored again: each stream, or that it is none any more.
    pub(crate) fn take_changed(&mut self) -> Vec<(Arc<str>, Option<Link>)> {
        let changed = std::mem::take(&mut self.changed);
        changed
            .into_iter()
            .map(|path| {
                let link = self.all.get(&path).cloned();
                (path, link)
            })
            .collect()
    }

    pub(crate) fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Takes up what was stored.
    pub(crate) fn restore(&mut self, path: &str, link: Option<Link>) {
        match link {
            Some(link) => {
                if self.all.insert(path.into(), link).is_none() {
                    self.held += cost(path);
                }
            }
            None => self.remove(path),
        }
    }
}

/// Why no more streams are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// There are as many as one subscription may have.
    Streams,
    /// There is no memory left for them.
    Memory,
}
