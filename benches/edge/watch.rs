//! What is read off a peer between two points in time: CPU time, and what `perf` is asked for.

use std::path::PathBuf;
use std::time::Duration;

use super::load::now;
use super::peers::{Kind, Site};
use super::process::{Ask, Cpu, Perf};
use super::scenes::Sample;

/// How long `perf` takes to find its way in.
const FINDS_ITS_WAY: Duration = Duration::from_millis(300);

/// What is read off a peer between two points in time.
pub struct Watch {
    pid: u32,
    ask: Option<Ask>,
    out: PathBuf,
    perf: Option<Perf>,
    cpu: Cpu,
    at: u64,
}

impl Watch {
    /// Nothing yet; what `perf` writes goes to a file named after the scene and the peer.
    pub fn new(pid: u32, kind: Kind, scene: &str, site: &Site<'_>, ask: Option<Ask>) -> Watch {
        let out = site.scratch.join(format!("{scene}.{}.perf", kind.name()));
        Watch { pid, ask, out, perf: None, cpu: Cpu::default(), at: 0 }
    }

    /// From here on. `rest` lets happen what happens for a time.
    pub fn start(&mut self, rest: impl FnOnce(Duration)) {
        if let Some(ask) = self.ask {
            self.perf = Perf::start(ask, self.pid, self.out.clone()).ok();
            rest(FINDS_ITS_WAY);
        }
        self.at = now();
        self.cpu = Cpu::of(self.pid);
    }

    /// Until here, in which so many `units` were done.
    pub fn stop(&mut self, sample: &mut Sample, units: f64) {
        let cpu = Cpu::of(self.pid).since(self.cpu);
        sample.cpu_us = cpu.ns as f64 / 1000.0 / units;
        sample.user = cpu.user_share();
        sample.rate = units * 1e9 / (now() - self.at) as f64;
        if let Some(calls) = self.perf.take().and_then(|perf| perf.stop().ok().flatten()) {
            sample.calls = calls as f64 / units;
        }
    }
}
