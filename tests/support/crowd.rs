//! Many clients at once, in the hands of one thread: each may drip, be silent or stop reading, and the time of each one's end
//! is taken. Beside them a [`Probe`], which is what an operator sees meanwhile.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{End, PATIENCE, get};

/// Takes as many descriptors as this user may have.
pub fn raise_descriptors() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("raise the descriptor limit");
}

/// Clients that all do the same.
#[derive(Debug)]
pub struct Crowd {
    pub members: Vec<Member>,
}

#[derive(Debug)]
pub struct Member {
    stream: TcpStream,
    since: Instant,
    /// All that was received.
    pub got: Vec<u8>,
    /// How the connection ended, and how long after its beginning (or after [`Crowd::restart_clocks`]).
    pub ended: Option<(End, Duration)>,
}

impl Crowd {
    #[track_caller]
    pub fn connect(addr: SocketAddr, count: usize) -> Self {
        raise_descriptors();
        let members = (0..count)
            .map(|number| {
                let since = Instant::now();
                let stream = TcpStream::connect_timeout(&addr, PATIENCE);
                let stream = stream.unwrap_or_else(|e| panic!("client {number}: {e}"));
                stream.set_nodelay(true).expect("nodelay");
                stream.set_nonblocking(true).expect("nonblocking");
                Member { stream, since, got: Vec::new(), ended: None }
            })
            .collect();
        Self { members }
    }

    /// The times of all ends are counted from now.
    pub fn restart_clocks(&mut self) {
        let now = Instant::now();
        self.members.iter_mut().for_each(|member| member.since = now);
    }

    /// Everyone who is still there sends these few bytes.
    pub fn say(&mut self, bytes: &[u8]) {
        for member in self.members.iter_mut().filter(|member| member.ended.is_none()) {
            match (&member.stream).write(bytes) {
                Ok(sent) => assert_eq!(sent, bytes.len(), "a few bytes fit"),
                // It ended a moment ago; reading tells how.
                Err(_) => member.hear(),
            }
        }
    }

    /// Everyone sends one byte each time, the last one again and again, until everyone's connection has ended.
    #[track_caller]
    pub fn drip(&mut self, wire: &[u8], every: Duration) {
        self.drip_until(wire, every, || false);
    }

    /// The same, until it is over if that is sooner.
    #[track_caller]
    pub fn drip_until(&mut self, wire: &[u8], every: Duration, mut is_over: impl FnMut() -> bool) {
        let started = Instant::now();
        let mut next = started;
        for turn in 0.. {
            // At least once each time, however long speaking takes: the time of an end is when it is heard.
            self.hear(next.saturating_duration_since(Instant::now()));
            while self.living() > 0 && Instant::now() < next {
                self.hear(next.saturating_duration_since(Instant::now()));
            }
            if self.living() == 0 || is_over() {
                return;
            }
            self.patience(started);
            next = Instant::now() + every;
            let at = turn.min(wire.len() - 1);
            self.say(&wire[at..=at]);
        }
    }

    /// Listens until everyone's connection has ended.
    #[track_caller]
    pub fn wait_ended(&mut self) {
        let started = Instant::now();
        while self.living() > 0 {
            self.patience(started);
            self.hear(Duration::from_millis(100));
        }
    }

    /// Listens until everyone has received what ends with `tail`.
    #[track_caller]
    pub fn wait_received(&mut self, tail: &[u8]) {
        let started = Instant::now();
        while self.members.iter().any(|member| !member.got.ends_with(tail)) {
            self.patience(started);
            self.hear(Duration::from_millis(100));
        }
    }

    /// Connections that have not ended, as far as was heard.
    pub fn living(&self) -> usize {
        self.members.iter().filter(|member| member.ended.is_none()).count()
    }

    /// Checks that each ended within `grace` after `limit`, and not before it; gives back the earliest and the latest.
    #[track_caller]
    pub fn assert_ended_at(&self, limit: Duration, grace: Duration) -> (Duration, Duration) {
        // The edge's coarse clock is up to one tick of 50 ms old.
        let earliest = limit.saturating_sub(Duration::from_millis(100));
        let times = self.members.iter().map(|member| member.ended.expect("an end").1);
        let (first, last) = times.fold((Duration::MAX, Duration::ZERO), |(a, b), t| (a.min(t), b.max(t)));
        assert!(
            first >= earliest && last <= limit + grace,
            "ended after {first:?} to {last:?}, not {limit:?}"
        );
        (first, last)
    }

    /// Checks that everyone's connection has ended, and none long before this time; gives back the earliest and the latest.
    #[track_caller]
    pub fn assert_ended_after(&self, limit: Duration) -> (Duration, Duration) {
        // The edge's coarse clock is as old as its last turn.
        self.assert_ended_at(limit / 2, PATIENCE * 100)
    }

    /// Takes in what comes within `limit`.
    pub fn hear(&mut self, limit: Duration) {
        let mut living: Vec<&mut Member> = self.members.iter_mut().filter(|m| m.ended.is_none()).collect();
        let mut polled: Vec<PollFd<'_>> =
            living.iter().map(|member| PollFd::new(&member.stream, PollFlags::IN)).collect();
        poll(&mut polled, Some(&limit.try_into().expect("a short time"))).expect("poll");
        let ready: Vec<bool> = polled.iter().map(|polled| !polled.revents().is_empty()).collect();
        drop(polled);
        for (member, _) in living.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
            member.hear();
        }
    }

    #[track_caller]
    fn patience(&self, started: Instant) {
        assert!(started.elapsed() < PATIENCE * 2, "{} of {} still there", self.living(), self.members.len());
    }
}

impl Member {
    fn hear(&mut self) {
        let mut block = [0; 4096];
        loop {
            let end = match self.stream.read(&mut block) {
                Ok(0) => End::Closed,
                Ok(count) => {
                    self.got.extend_from_slice(&block[..count]);
                    continue;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(_) => End::Reset,
            };
            self.ended = Some((end, self.since.elapsed()));
            return;
        }
    }
}

/// Asks again and again whether the edge is well, every 20 ms, on a thread of its own.
#[derive(Debug)]
pub struct Probe {
    stop: Sender<()>,
    asking: JoinHandle<Health>,
}

/// What a probe has found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Health {
    pub asked: u32,
    pub failed: u32,
    pub slowest: Duration,
}

impl Probe {
    /// On a new connection each time, as health checks do it.
    pub fn start(addr: SocketAddr) -> Self {
        Self::with(move || is_alive(addr).unwrap_or(false))
    }

    pub fn with(mut is_well: impl FnMut() -> bool + Send + 'static) -> Self {
        let (stop, stopped) = channel();
        let asking = thread::spawn(move || {
            let mut health = Health::default();
            while stopped.recv_timeout(Duration::from_millis(20)) == Err(RecvTimeoutError::Timeout) {
                let started = Instant::now();
                health.asked += 1;
                health.failed += u32::from(!is_well());
                health.slowest = health.slowest.max(started.elapsed());
            }
            health
        });
        Self { stop, asking }
    }

    /// What it found; at least 99.9 % of its questions must have been answered well.
    #[track_caller]
    pub fn finish(self) -> Health {
        self.stop.send(()).expect("the probe is running");
        let health = self.asking.join().expect("the probe");
        assert!(health.asked > 0 && health.failed * 1000 <= health.asked, "{health:?}");
        health
    }
}

fn is_alive(addr: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&get("/livez", &["Connection: close"]))?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer.starts_with(b"HTTP/1.1 200 "))
}
