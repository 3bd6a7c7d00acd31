//! One stream that thousands follow: what it costs to bring an append to one of them.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::time::Timespec;

use super::super::load::now;
use super::super::peers::streams::{What, request};
use super::super::peers::{Kind, Peer, Role, Site};
use super::super::process::{Ask, memory};
use super::super::scenes::{NOTHING, Sample, kib, percentiles};
use super::super::script::words;
use super::super::watch::Watch;
use super::caller::Caller;
use super::follower::Follower;

const READERS: usize = 2000;

/// Bytes of an append.
const BYTES: usize = 200;

/// Appends that are measured, and from one to the next.
const APPENDS: usize = 200;
const GAP_NS: u64 = 20_000_000;

/// Appends before a point at which memory is read.
const WARM: usize = 10;

/// Readers that wait for their answer at once while they are opened.
const OPENING_MAX: usize = 64;

const PUBLISHER: u64 = u64::MAX;

/// Nothing takes longer than this, or something is broken.
const PATIENCE_NS: u64 = 60_000_000_000;

struct Fanout {
    epoll: OwnedFd,
    kind: Kind,
    peer: Peer,
    publisher: Caller,
    readers: Vec<Follower>,
    /// All that will ever be appended.
    script: Vec<u8>,
    appended: usize,
    sent_at: Vec<u64>,
    /// Appends that readers have read, over all of them.
    delivered: usize,
    delays: Vec<u32>,
    room: Box<[u8]>,
}

/// Runs it with one peer.
pub fn run(kind: Kind, site: &Site<'_>, ask: Option<Ask>) -> Result<Sample, String> {
    let site = Site { role: Role::Streams(None), ..*site };
    let peer = Peer::start(kind, &site);
    let mut fanout = Fanout::new(kind, peer)?;
    let pid = fanout.peer.pid();
    let mut sample = NOTHING;
    fanout.open(1)?;
    fanout.publish(WARM)?;
    let alone = memory(pid);
    fanout.open(READERS)?;
    fanout.publish(WARM)?;
    fanout.rest(Duration::from_millis(300))?;
    sample.kib = kib(memory(pid), alone, READERS - 1);
    let mut watch = Watch::new(pid, kind, "fanout", &site, ask);
    watch.start(|time| drop(fanout.rest(time)));
    fanout.delays.clear();
    fanout.publish(APPENDS)?;
    watch.stop(&mut sample, (READERS * APPENDS) as f64);
    sample.delay_us = percentiles(&mut fanout.delays);
    Ok(sample)
}

impl Fanout {
    /// The stream is made, and nobody follows it.
    fn new(kind: Kind, peer: Peer) -> Result<Fanout, String> {
        let mut room = vec![0; 256 * 1024].into_boxed_slice();
        let mut publisher = Caller::connect(peer.addr)?;
        if matches!(kind, Kind::Sedge | Kind::DurableStreams) {
            publisher.call((&request(kind, What::Make, "news"), b""), &mut room, |_| Ok(()))?;
        }
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|error| error.to_string())?;
        let token = EventData::new_u64(PUBLISHER);
        epoll::add(&epoll, publisher.socket(), token, EventFlags::IN).map_err(|error| error.to_string())?;
        let append = |number: usize| format!("{number:08} {}", words(number, BYTES - 9));
        Ok(Fanout {
            epoll,
            kind,
            peer,
            publisher,
            readers: Vec::new(),
            script: (0..2 * WARM + APPENDS).flat_map(|number| append(number).into_bytes()).collect(),
            appended: 0,
            sent_at: Vec::new(),
            delivered: 0,
            delays: Vec::new(),
            room,
        })
    }

    /// Opens readers until there are `count`, and waits until each has its answer's head.
    fn open(&mut self, count: usize) -> Result<(), String> {
        let head = request(self.kind, What::Follow, "news");
        let give_up = now() + PATIENCE_NS;
        while self.readers.len() < count {
            let reader = Follower::connect(self.peer.addr, &head, self.appended * BYTES)?;
            let token = EventData::new_u64(self.readers.len() as u64);
            epoll::add(&self.epoll, reader.socket(), token, EventFlags::IN)
                .map_err(|error| error.to_string())?;
            self.readers.push(reader);
            let most = if self.readers.len() < count { OPENING_MAX } else { 1 };
            while self.opening() >= most {
                self.turn(give_up)?;
            }
        }
        Ok(())
    }

    /// Readers, of the last that were opened, which wait for their answer. (Older ones have theirs.)
    fn opening(&self) -> usize {
        let last = self.readers.len().saturating_sub(2 * OPENING_MAX);
        self.readers[last..].iter().filter(|reader| !reader.begun()).count()
    }

    /// Appends `count` times, one in [`GAP_NS`], and waits until every reader has them.
    fn publish(&mut self, count: usize) -> Result<(), String> {
        let head = request(self.kind, What::Append, "news");
        let (start, first) = (now(), self.appended);
        let give_up = start + GAP_NS * count as u64 + PATIENCE_NS;
        let wanted = self.delivered + count * self.readers.len();
        while self.appended < first + count || self.delivered < wanted || !self.publisher.ended() {
            let due = start + GAP_NS * (self.appended - first) as u64;
            let free = self.appended == 0 || self.publisher.ended();
            if self.appended < first + count && free && now() >= due {
                let at = self.appended * BYTES;
                self.sent_at.push(now());
                self.publisher.ask(&head, &self.script[at..at + BYTES])?;
                self.appended += 1;
            }
            self.turn(give_up)?;
        }
        Ok(())
    }

    /// Lets happen what happens.
    fn rest(&mut self, time: Duration) -> Result<(), String> {
        let until = now() + time.as_nanos() as u64;
        while now() < until {
            self.turn(u64::MAX)?;
        }
        Ok(())
    }

    fn turn(&mut self, give_up: u64) -> Result<(), String> {
        if now() > give_up {
            return Err("took too long".into());
        }
        let mut events: Vec<Event> = Vec::with_capacity(512);
        let timeout = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.to_string()),
        }
        for event in events {
            match event.data.u64() {
                PUBLISHER => drop(self.publisher.read(&mut self.room, |_| Ok(()))?),
                at => self.deliver(at as usize)?,
            }
        }
        Ok(())
    }

    fn deliver(&mut self, at: usize) -> Result<(), String> {
        let reader = &mut self.readers[at];
        let before = reader.cursor() / BYTES;
        let appended = &self.script[..self.appended * BYTES];
        reader.read(&mut self.room, appended).map_err(|error| format!("reader {at}: {error}"))?;
        let (after, read_at) = (reader.cursor() / BYTES, now());
        self.delivered += after - before;
        self.delays.extend((before..after).map(|number| (read_at - self.sent_at[number]) as u32));
        Ok(())
    }
}
