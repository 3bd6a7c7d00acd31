//! The scenes with durable streams: no upstream, but those who append and those who read.

mod append;
mod caller;
mod catchup;
mod crew;
mod fanout;
mod follower;
mod kept;

use std::fs;
use std::path::PathBuf;

use super::peers::{Kind, Site};
use super::process::Ask;
use super::scenes::Sample;

/// A scene.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Scene {
    /// One stream that thousands follow.
    Fanout,
    /// One stream that many append to.
    Append {
        /// What is acknowledged has been synced.
        disk: bool,
    },
    /// A long stream that is read from its beginning, from disk.
    Catchup,
    /// Many streams, of which one is appended to.
    Kept(Kept),
}

/// A scene with many streams.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Kept {
    /// As it is called.
    pub name: &'static str,
    /// How many there are.
    pub streams: usize,
    /// On disk.
    pub disk: bool,
}

/// Few streams and many, so that what depends on their number shows.
const KEPT: [Kept; 4] = [
    Kept { name: "streams-100", streams: 100, disk: false },
    Kept { name: "streams-100k", streams: 100_000, disk: false },
    Kept { name: "disk-streams-100", streams: 100, disk: true },
    Kept { name: "disk-streams-100k", streams: 100_000, disk: true },
];

/// Every one that is run unless others are named.
pub fn all() -> Vec<Scene> {
    let mut all =
        vec![Scene::Fanout, Scene::Append { disk: false }, Scene::Append { disk: true }, Scene::Catchup];
    all.extend(KEPT.map(Scene::Kept));
    all
}

impl Scene {
    /// As it is called.
    pub fn name(self) -> &'static str {
        match self {
            Scene::Fanout => "fanout",
            Scene::Append { disk: false } => "append",
            Scene::Append { disk: true } => "disk-append",
            Scene::Catchup => "catchup",
            Scene::Kept(kept) => kept.name,
        }
    }

    /// What its CPU time is divided by.
    pub fn unit(self) -> &'static str {
        match self {
            Scene::Fanout => "delivery",
            Scene::Append { .. } | Scene::Kept(_) => "append",
            Scene::Catchup => "MB",
        }
    }

    /// Whether the peer can do it.
    pub fn is_for(self, kind: Kind) -> bool {
        match kind {
            Kind::Sedge | Kind::DurableStreams => true,
            Kind::Floor => !matches!(self, Scene::Kept(_)),
            Kind::Axum | Kind::Nchan => self == Scene::Fanout,
            Kind::Haproxy | Kind::Nginx | Kind::Hyper => false,
        }
    }
}

/// Runs a scene with a peer that is started for it.
pub fn run(scene: Scene, kind: Kind, site: &Site<'_>, ask: Option<Ask>) -> Result<Sample, String> {
    let site = &Site { tls: None, ..*site };
    match scene {
        Scene::Fanout => fanout::run(kind, site, ask),
        Scene::Append { disk } => append::run(scene.name(), disk, kind, site, ask),
        Scene::Catchup => catchup::run(kind, site, ask),
        Scene::Kept(kept) => kept::run(kept, kind, site, ask),
    }
}

/// An empty folder for a peer's streams.
fn folder(site: &Site<'_>) -> PathBuf {
    let folder = site.scratch.join("streams");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder for the streams");
    folder
}
