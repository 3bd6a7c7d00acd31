//! How much the streams of each key hold, and how much they may: what the configuration says, or else a fair share.
//!
//! The fair share is as much as is still free: a key alone gets half of the memory, two get a third each, and whatever they
//! do there is room for the next one. What does not have to be in memory is not counted where there is a disk.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use super::model::bounds::Bounds;
use super::registry::guard;
use super::stream::{Common, Stream};

/// A key whose some streams are.
#[derive(Debug)]
pub(crate) struct Owner {
    /// Its name.
    pub(crate) name: Box<str>,
    streams: AtomicU64,
    /// Bytes of what was appended, in memory or on disk.
    payload: AtomicU64,
    /// Bytes of what has to be known of it.
    beside: AtomicU64,
}

/// What a stream, or a part of it, holds, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Weight {
    pub(crate) payload: u64,
    pub(crate) beside: u64,
}

/// The streams of the key hold as much as they may, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OverQuota(pub u64);

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    by_name: Mutex<HashMap<Box<str>, Arc<Owner>>>,
    /// Bytes of what has to be known of all their streams.
    beside: AtomicU64,
}

impl Owners {
    /// The key of that name.
    pub(crate) fn of(&self, name: &str) -> Arc<Owner> {
        let mut owners = guard(&self.by_name);
        if let Some(owner) = owners.get(name) {
            return Arc::clone(owner);
        }
        let owner = Arc::new(Owner {
            name: name.into(),
            streams: AtomicU64::new(0),
            payload: AtomicU64::new(0),
            beside: AtomicU64::new(0),
        });
        owners.insert(name.into(), Arc::clone(&owner));
        owner
    }
}

impl Common {
    /// Takes into the books what a stream of `owner` holds, after it held `before`.
    pub(crate) fn weigh(&self, owner: Option<&Owner>, before: Weight, after: Weight) {
        let Some(owner) = owner else { return };
        let change = |place: &AtomicU64, before: u64, after: u64| {
            place.fetch_add(after.wrapping_sub(before), Relaxed);
        };
        change(&owner.payload, before.payload, after.payload);
        change(&owner.beside, before.beside, after.beside);
        change(&self.owners.beside, before.beside, after.beside);
    }

    /// Counts a stream that is there from now on.
    pub(crate) fn own(&self, stream: &Stream) {
        if let Some(owner) = &stream.owner {
            owner.streams.fetch_add(1, Relaxed);
            self.weigh(Some(owner), Weight::default(), stream.weight());
        }
    }

    /// Counts it out, before it lets go of what it holds.
    pub(crate) fn disown(&self, stream: &Stream) {
        if let Some(owner) = &stream.owner {
            owner.streams.fetch_sub(1, Relaxed);
            self.weigh(Some(owner), stream.weight(), Weight::default());
        }
    }

    /// How many bytes the streams of `owner` would hold too many if they held `more`, and how many they may.
    pub(crate) fn excess(&self, owner: &Owner, more: Weight, bounds: &Bounds) -> Option<(u64, OverQuota)> {
        let (payload, beside) = (owner.payload.load(Relaxed), owner.beside.load(Relaxed));
        let wanted = beside + more.beside;
        if let Some(&most) = bounds.quotas.get(&*owner.name) {
            let wanted = wanted + payload + more.payload;
            return (wanted > most).then(|| (wanted - most, OverQuota(most)));
        }
        let (wanted, held) = match self.journal {
            Some(_) => (wanted, self.owners.beside.load(Relaxed)),
            None => (wanted + payload + more.payload, self.held()),
        };
        let free = bounds.memory.saturating_sub(held);
        // What it gives up is free then.
        (wanted > free).then(|| ((wanted - free).div_ceil(2), OverQuota(free)))
    }

    /// Whether `owner` may make one more stream of so many.
    pub(crate) fn may_own_more(&self, owner: &Owner, all: usize, bounds: &Bounds) -> bool {
        owner.streams.load(Relaxed) < bounds.streams.saturating_sub(all) as u64
    }
}

impl Stream {
    fn weight(&self) -> Weight {
        let held = self.lock().log.weight();
        Weight { beside: held.beside + self.cost(), ..held }
    }

    /// The name of the key whose it is, if it is one's.
    pub(crate) fn owner_name(&self) -> Option<&str> {
        self.owner.as_deref().map(|owner| &*owner.name)
    }
}
