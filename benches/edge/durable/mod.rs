//! The scenes with durable streams: no upstream, but those who append and those who read.

mod caller;
mod fanout;
mod follower;

use super::peers::{Kind, Site};
use super::process::Ask;
use super::scenes::Sample;

/// A scene.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Scene {
    /// One stream that thousands follow.
    Fanout,
}

/// Every one that is run unless others are named.
pub fn all() -> Vec<Scene> {
    vec![Scene::Fanout]
}

impl Scene {
    /// As it is called.
    pub fn name(self) -> &'static str {
        match self {
            Scene::Fanout => "fanout",
        }
    }

    /// What its CPU time is divided by.
    pub fn unit(self) -> &'static str {
        match self {
            Scene::Fanout => "delivery",
        }
    }

    /// Whether the peer can do it.
    pub fn is_for(self, kind: Kind) -> bool {
        match kind {
            Kind::Floor | Kind::Sedge | Kind::DurableStreams => true,
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
    }
}
