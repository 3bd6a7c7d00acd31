//! The scenes: what is sent through a peer, and what is read off it meanwhile. Those with durable streams are in `durable`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};

use super::durable;
use super::load::Load;
use super::peers::{Kind, Peer, Site};
use super::plan::{Pace, Plan};
use super::process::{Ask, memory};
use super::watch::Watch;

/// Bytes of one of OpenAI's events with a token in it.
const EVENT_BYTES: usize = 220;

/// Events on each stream before anything is measured.
const WARM_EVENTS: usize = 2;

/// For how long a scene without an end of its own is measured.
const CYCLE: Duration = Duration::from_secs(2);

/// Streams of the scenes that ask for memory: with both sockets of each, what a process of 20,000 descriptors can hold.
const MANY: usize = 9000;

/// A scene.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Scene {
    /// Streams of tokens, as most of the day: each event comes alone.
    Paced(Paced),
    /// Streams that arrive as fast as they can be sent.
    Burst,
    /// Short requests and answers, not streamed.
    Requests {
        /// Over TLS.
        tls: bool,
    },
    /// Streams that are open and say nothing.
    Idle,
    /// Clients that read slowly.
    Slow,
    /// Prompts of 1 MiB.
    Prompt,
    /// Durable streams.
    Durable(durable::Scene),
}

/// A scene of streams with a rhythm.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Paced {
    /// As it is called.
    pub name: &'static str,
    /// Streams open at once.
    pub streams: usize,
    /// Events of each.
    pub events: usize,
    /// From one event of a stream to its next.
    pub interval: Duration,
    /// Bytes of an event.
    pub bytes: usize,
    /// Over TLS.
    pub tls: bool,
}

const PACED: Paced = Paced {
    name: "paced",
    streams: 500,
    events: 100,
    interval: Duration::from_millis(40),
    bytes: EVENT_BYTES,
    tls: false,
};

/// Every scene that is run unless others are named.
pub fn all() -> Vec<Scene> {
    let many = Paced { name: "many", streams: MANY, events: 5, interval: Duration::from_secs(1), ..PACED };
    vec![
        Scene::Paced(PACED),
        Scene::Burst,
        Scene::Requests { tls: false },
        Scene::Paced(many),
        Scene::Idle,
        Scene::Slow,
        Scene::Paced(Paced { name: "tls-paced", tls: true, ..PACED }),
        Scene::Requests { tls: true },
        Scene::Prompt,
    ]
    .into_iter()
    .chain(durable::all().into_iter().map(Scene::Durable))
    .collect()
}

/// The same 9,000 events a second, over more and more streams.
pub fn by_streams() -> Vec<(f64, Scene)> {
    let scene = |streams: usize| Paced {
        name: "streams",
        streams,
        events: (18_000 / streams).max(2),
        interval: Duration::from_micros(streams as u64 * 1_000_000 / 9000),
        ..PACED
    };
    [100, 500, 2000, MANY].iter().map(|&streams| (streams as f64, Scene::Paced(scene(streams)))).collect()
}

/// The same streams, with larger and larger events.
pub fn by_bytes() -> Vec<(f64, Scene)> {
    let scene = |bytes| Paced { name: "size", streams: 200, events: 50, bytes, ..PACED };
    [220, 1024, 4096, 16_000].iter().map(|&bytes| (bytes as f64, Scene::Paced(scene(bytes)))).collect()
}

impl Scene {
    /// As it is called.
    pub fn name(self) -> &'static str {
        match self {
            Scene::Paced(paced) => paced.name,
            Scene::Burst => "burst",
            Scene::Requests { tls: false } => "requests",
            Scene::Requests { tls: true } => "tls-requests",
            Scene::Idle => "idle",
            Scene::Slow => "slow",
            Scene::Prompt => "prompt",
            Scene::Durable(scene) => scene.name(),
        }
    }

    /// What its CPU time is divided by.
    pub fn unit(self) -> &'static str {
        match self {
            Scene::Paced(_) | Scene::Burst => "event",
            Scene::Requests { .. } | Scene::Prompt => "request",
            Scene::Idle => "stream and second",
            Scene::Slow => "stream and second",
            Scene::Durable(scene) => scene.unit(),
        }
    }

    /// Whether the client speaks TLS.
    pub fn tls(self) -> bool {
        matches!(self, Scene::Requests { tls: true } | Scene::Paced(Paced { tls: true, .. }))
    }

    /// Whether the peer can do it.
    pub fn is_for(self, kind: Kind) -> bool {
        match self {
            Scene::Durable(scene) => scene.is_for(kind),
            _ if self.tls() => matches!(kind, Kind::Sedge | Kind::Haproxy | Kind::Nginx),
            _ => !matches!(kind, Kind::Nchan | Kind::DurableStreams),
        }
    }

    fn plan(self) -> Plan {
        let stream = Plan { stream: true, events: 1, bytes: EVENT_BYTES, request: 256, pace: Pace::Told };
        let whole = Plan { stream: false, events: 1, bytes: 1024, request: 1024, pace: Pace::AtOnce };
        match self {
            Scene::Paced(paced) => Plan { events: WARM_EVENTS + paced.events, bytes: paced.bytes, ..stream },
            Scene::Burst => Plan { events: 64, pace: Pace::AtOnce, ..stream },
            Scene::Requests { .. } => whole,
            Scene::Idle => Plan { events: WARM_EVENTS, ..stream },
            Scene::Slow => Plan { events: 8000, bytes: 4096, pace: Pace::Flood, ..stream },
            Scene::Prompt => Plan { request: 1 << 20, ..whole },
            Scene::Durable(_) => stream,
        }
    }
}

/// What one run of a scene through one peer came to. `NaN` is what was not measured.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Microseconds of CPU time for each unit.
    pub cpu_us: f64,
    /// The share of them in user mode.
    pub user: f64,
    /// System calls for each unit.
    pub calls: f64,
    /// KiB of the process's own memory for each stream.
    pub kib: f64,
    /// KiB that were taken from the upstream and not read by the client yet, for each stream.
    pub held_kib: f64,
    /// Units a second.
    pub rate: f64,
    /// Microseconds of CPU time in a second in which nobody asks for anything.
    pub idle_us: f64,
    /// From the upstream's write to the client's read, in microseconds: median and 99th percentile.
    pub delay_us: [f64; 2],
    /// From the request to the first byte of its answer, likewise.
    pub first_us: [f64; 2],
}

/// Nothing measured.
pub const NOTHING: Sample = Sample {
    cpu_us: f64::NAN,
    user: f64::NAN,
    calls: f64::NAN,
    kib: f64::NAN,
    held_kib: f64::NAN,
    rate: f64::NAN,
    idle_us: f64::NAN,
    delay_us: [f64::NAN; 2],
    first_us: [f64::NAN; 2],
};

/// A private authority's certificate for `localhost`.
pub struct Certificate {
    /// The chain, in PEM.
    pub chain: PathBuf,
    /// Its key, in PEM.
    pub key: PathBuf,
    /// What a client needs to trust it.
    pub client: Arc<ClientConfig>,
}

impl Certificate {
    /// Makes one.
    pub fn new(folder: &Path) -> Certificate {
        let authority = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root = params.self_signed(&authority).expect("a root");
        let issuer = rcgen::Issuer::from_params(&params, &authority);
        let key = rcgen::KeyPair::generate().expect("a key");
        let leaf = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("parameters");
        let leaf = leaf.signed_by(&key, &issuer).expect("a certificate");
        let (chain, private) = (folder.join("server.pem"), folder.join("server.pem.key"));
        fs::write(&chain, leaf.pem()).expect("write the certificate");
        fs::write(&private, key.serialize_pem()).expect("write its key");
        let mut roots = RootCertStore::empty();
        roots.add(root.der().clone()).expect("a root");
        let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Certificate { chain, key: private, client: Arc::new(client) }
    }
}

/// Runs a scene through a peer that is started for it. What `perf` is asked for costs the peer some CPU time.
pub fn run(scene: Scene, kind: Kind, site: &Site<'_>, ask: Option<Ask>) -> Result<Sample, String> {
    if let Scene::Durable(scene) = scene {
        return durable::run(scene, kind, site, ask);
    }
    let mut load = Load::new(scene.plan());
    let site = Site { upstream: load.upstream(), tls: site.tls.filter(|_| scene.tls()), ..*site };
    let peer = Peer::start(kind, &site);
    let tls = site.tls.map(|certificate| &certificate.client);
    let open = |load: &mut Load, count| load.open(peer.addr, tls, count, true);
    let mut sample = NOTHING;
    let mut watch = Watch::new(peer.pid(), kind, scene.name(), &site, ask);
    match scene {
        Scene::Paced(paced) => {
            open(&mut load, 1)?;
            let alone = memory(peer.pid());
            open(&mut load, paced.streams)?;
            load.emit(WARM_EVENTS, paced.interval)?;
            load.delays.clear();
            watch.start(|time| drop(load.rest(time)));
            load.emit(paced.events, paced.interval)?;
            watch.stop(&mut sample, (paced.streams * paced.events) as f64);
            sample.kib = kib(memory(peer.pid()), alone, paced.streams - 1);
            sample.delay_us = percentiles(&mut load.delays);
            load.end()?;
        }
        Scene::Burst | Scene::Requests { .. } | Scene::Prompt => {
            open(&mut load, if scene == Scene::Prompt { 8 } else { 64 })?;
            load.cycle(CYCLE / 10)?;
            load.firsts.clear();
            let before = (load.events, load.answers);
            watch.start(|time| drop(load.rest(time)));
            load.cycle(CYCLE)?;
            let (events, answers) = (load.events - before.0, load.answers - before.1);
            watch.stop(&mut sample, if scene == Scene::Burst { events } else { answers } as f64);
        }
        Scene::Idle => {
            open(&mut load, 1)?;
            let alone = memory(peer.pid());
            open(&mut load, MANY)?;
            sample.kib = kib(memory(peer.pid()), alone, MANY - 1);
            watch.start(|time| drop(load.rest(time)));
            load.rest(2 * CYCLE)?;
            watch.stop(&mut sample, MANY as f64 * 2.0 * CYCLE.as_secs_f64());
        }
        Scene::Slow => {
            const CLIENTS: usize = 64;
            let alone = memory(peer.pid());
            load.open(peer.addr, tls, CLIENTS, false)?;
            watch.start(|time| drop(load.rest(time)));
            for _ in 0..40 {
                load.sip(16 * 1024)?;
                load.rest(CYCLE / 20)?;
            }
            watch.stop(&mut sample, CLIENTS as f64 * 2.0 * CYCLE.as_secs_f64());
            sample.kib = kib(memory(peer.pid()), alone, CLIENTS);
            sample.held_kib = kib(load.written_bytes(), load.read_bytes(), CLIENTS);
        }
        Scene::Durable(_) => unreachable!("it has no upstream"),
    }
    sample.first_us = percentiles(&mut load.firsts);
    Ok(sample)
}

/// KiB for each, when so many have come.
pub fn kib(after: u64, before: u64, count: usize) -> f64 {
    (after as f64 - before as f64) / 1024.0 / count as f64
}

/// Median and 99th percentile, in microseconds.
pub fn percentiles(nanoseconds: &mut [u32]) -> [f64; 2] {
    nanoseconds.sort_unstable();
    [0.5, 0.99].map(|part| {
        let at = (nanoseconds.len() as f64 * part) as usize;
        nanoseconds.get(at).map_or(f64::NAN, |&ns| f64::from(ns) / 1000.0)
    })
}
