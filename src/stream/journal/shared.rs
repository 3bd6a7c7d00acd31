//! What the writer and everyone else have in common.

use std::sync::{Arc, Condvar, Mutex};

use super::disk::Disk;
use super::index::Index;
use super::queue::Queue;
use super::stats::Stats;
use super::ticket::Progress;

#[derive(Debug)]
pub(super) struct Shared<D: Disk> {
    pub(super) disk: D,
    pub(super) index: Index<D::File>,
    pub(super) queue: Mutex<Queue>,
    /// Rings when something was put into an empty queue.
    pub(super) bell: Condvar,
    pub(super) progress: Arc<Progress>,
    pub(super) stats: Arc<Stats>,
}
