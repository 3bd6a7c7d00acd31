//! What the writer and everyone else have in common.

use std::sync::{Arc, Condvar, Mutex};

use super::disk::Disk;
use super::index::Index;
use super::queue::Queue;
use super::stats::Stats;
use super::ticket::Progress;

#[derive(Debug)]
pub(crate) struct Shared<D: Disk> {
    pub(crate) disk: D,
    pub(crate) index: Index<D::File>,
    pub(crate) queue: Mutex<Queue>,
    /// Rings when something was put into an empty queue.
    pub(crate) bell: Condvar,
    pub(crate) progress: Arc<Progress>,
    pub(crate) stats: Arc<Stats>,
}
