//! One stream that many append to, each when its last append was acknowledged. Then it is read from its beginning: all that was
//! acknowledged has to be there, once, and in each connection's order.

use std::collections::VecDeque;
use std::time::Duration;

use super::super::load::now;
use super::super::peers::streams::{What, request};
use super::super::peers::{Kind, Peer, Role, Site};
use super::super::process::Ask;
use super::super::scenes::{NOTHING, Sample, percentiles};
use super::super::script::words;
use super::super::watch::Watch;
use super::caller::Caller;
use super::crew::Crew;
use super::folder;

const CONNECTIONS: usize = 64;

/// Bytes of an append.
const BYTES: usize = 256;

/// How long it is measured.
const TIME: Duration = Duration::from_secs(2);

/// Runs it with one peer.
pub fn run(scene: &str, disk: bool, kind: Kind, site: &Site<'_>, ask: Option<Ask>) -> Result<Sample, String> {
    let folder = folder(site);
    let site = Site { role: Role::Streams(disk.then_some(&folder)), ..*site };
    let peer = Peer::start(kind, &site);
    let mut caller = Caller::connect(peer.addr)?;
    if kind != Kind::Floor {
        caller.call((&request(kind, What::Make, "log"), b""), &mut [0; 4096], |_| Ok(()))?;
    }
    let mut appenders = Appenders::connect(kind, &peer, "log")?;
    let mut sample = NOTHING;
    appenders.work(TIME / 10)?;
    appenders.crew.delays.clear();
    let mut watch = Watch::new(peer.pid(), kind, scene, &site, ask);
    watch.start(pause);
    let answered = appenders.work(TIME)?;
    watch.stop(&mut sample, answered as f64);
    sample.first_us = percentiles(&mut appenders.crew.delays);
    appenders.read_back(kind, &mut caller)?;
    Ok(sample)
}

/// Those who append to one stream.
pub struct Appenders {
    head: String,
    name: String,
    /// What each has appended.
    counts: Vec<u32>,
    /// The connections.
    pub crew: Crew,
}

impl Appenders {
    /// Connects all of them; the stream is there.
    pub fn connect(kind: Kind, peer: &Peer, name: &str) -> Result<Appenders, String> {
        let crew = Crew::connect(peer.addr, CONNECTIONS)?;
        let head = request(kind, What::Append, name);
        Ok(Appenders { head, name: name.into(), counts: vec![0; CONNECTIONS], crew })
    }

    /// Appends for `time`, and waits for the last acknowledgement. How many there were.
    pub fn work(&mut self, time: Duration) -> Result<u64, String> {
        let until = now() + time.as_nanos() as u64;
        let filling = filling();
        self.crew.work(|at, head, body| {
            if now() >= until {
                return false;
            }
            head.push_str(&self.head);
            record(at, self.counts[at], &filling, body);
            self.counts[at] += 1;
            true
        })
    }

    /// Reads it all, and compares.
    fn read_back(&self, kind: Kind, caller: &mut Caller) -> Result<(), String> {
        let filling = filling();
        let mut found = vec![0; CONNECTIONS];
        let (mut unread, mut expected) = (VecDeque::new(), Vec::new());
        read_all(kind, &self.name, caller, &mut vec![0; 256 * 1024], |piece| {
            unread.extend(piece);
            while unread.len() >= BYTES {
                let record_: Vec<u8> = unread.drain(..BYTES).collect();
                let text = String::from_utf8_lossy(&record_);
                let at = text.get(..2).and_then(|at| at.parse::<usize>().ok()).filter(|at| *at < CONNECTIONS);
                let at = at.ok_or_else(|| format!("nobody has appended {text:.40}"))?;
                expected.clear();
                record(at, found[at], &filling, &mut expected);
                if record_ != expected {
                    return Err(format!("append {} of connection {at} reads {text:.40}", found[at]));
                }
                found[at] += 1;
            }
            Ok(())
        })?;
        if found != self.counts || !unread.is_empty() {
            let (kept, asked) = (found.iter().sum::<u32>(), self.counts.iter().sum::<u32>());
            return Err(format!("of {asked} acknowledged appends there are {kept}"));
        }
        Ok(())
    }
}

fn filling() -> String {
    words(0, BYTES - 12)
}

/// Append `number` of connection `at`.
fn record(at: usize, number: u32, filling: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{at:02} {number:08} {filling}").as_bytes());
}

/// Reads a stream from its beginning to where its server says that it is up to date.
pub fn read_all(
    kind: Kind,
    name: &str,
    caller: &mut Caller,
    room: &mut [u8],
    mut sink: impl FnMut(&[u8]) -> Result<(), String>,
) -> Result<(), String> {
    let mut offset = "-1".to_owned();
    loop {
        let head = request(kind, What::Read(&offset), name);
        caller.call((&head, b""), room, &mut sink)?;
        match &caller.answer().next_offset {
            Some(next) if !caller.answer().up_to_date && *next != offset => offset.clone_from(next),
            _ => return Ok(()),
        }
    }
}

/// Lets time pass.
#[expect(clippy::disallowed_methods, reason = "nobody is served by this thread meanwhile")]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}
