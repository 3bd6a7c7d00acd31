//! Many streams, each with an append, that nobody asks for: what each of them holds, what they cost while nothing happens, and
//! whether an append to another one costs more because they are there.

use std::time::Duration;

use super::super::load::now;
use super::super::peers::streams::{What, request};
use super::super::peers::{Kind, Peer, Role, Site};
use super::super::process::{Ask, Cpu, memory};
use super::super::scenes::{NOTHING, Sample, kib, percentiles};
use super::super::script::words;
use super::super::watch::Watch;
use super::append::{Appenders, pause};
use super::caller::Caller;
use super::crew::Crew;
use super::{Kept, folder};

/// Who makes the streams.
const CONNECTIONS: usize = 64;

/// Bytes of the append that each has.
const BYTES: usize = 64;

/// What settles after the streams were made has settled by then.
const SETTLES: Duration = Duration::from_secs(1);

/// How long each half is measured.
const TIME: Duration = Duration::from_secs(2);

/// Runs it with one peer.
pub fn run(kept: Kept, kind: Kind, site: &Site<'_>, ask: Option<Ask>) -> Result<Sample, String> {
    let folder = folder(site);
    let site = Site { role: Role::Streams(kept.disk.then_some(&folder)), ..*site };
    let peer = Peer::start(kind, &site);
    let mut caller = Caller::connect(peer.addr)?;
    caller.call((&request(kind, What::Make, "busy"), b""), &mut [0; 4096], |_| Ok(()))?;
    let mut appenders = Appenders::connect(kind, &peer, "busy")?;
    let mut crew = Crew::connect(peer.addr, CONNECTIONS)?;
    let mut made = 0;
    let mut make = |count: usize| {
        crew.work(|_, head, body| {
            if made == count {
                return false;
            }
            head.push_str(&request(kind, What::Make, &format!("idle/{made:06}")));
            body.extend_from_slice(words(made, BYTES).as_bytes());
            made += 1;
            true
        })
    };
    let mut sample = NOTHING;
    // The first few bring what any number of them needs.
    let few = CONNECTIONS.min(kept.streams / 2);
    make(few)?;
    let before = memory(peer.pid());
    make(kept.streams)?;
    pause(SETTLES);
    sample.kib = kib(memory(peer.pid()), before, kept.streams - few);
    let (cpu, at) = (Cpu::of(peer.pid()), now());
    pause(TIME);
    let seconds = (now() - at) as f64 / 1e9;
    sample.idle_us = Cpu::of(peer.pid()).since(cpu).ns as f64 / 1000.0 / seconds;
    appenders.work(TIME / 10)?;
    appenders.crew.delays.clear();
    let mut watch = Watch::new(peer.pid(), kind, kept.name, &site, ask);
    watch.start(pause);
    let answered = appenders.work(TIME)?;
    watch.stop(&mut sample, answered as f64);
    sample.first_us = percentiles(&mut appenders.crew.delays);
    Ok(sample)
}
