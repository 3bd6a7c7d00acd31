//! The load: an upstream and its clients in one thread, on one epoll, so that both ends of every stream read the same clock and
//! cost the edge's core nothing.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::time::{ClockId, Timespec, clock_gettime};
use rustls::ClientConfig;

use super::client::Client;
use super::peers::listener;
use super::plan::{Pace, Plan};
use super::script::{Script, VARIANTS, request};
use super::upstream::Upstream;

const LISTENER: u64 = u64::MAX;

/// Set in the token of a client; the rest is its index.
const CLIENT: u64 = 1 << 62;

/// Clients that wait for an answer at once while streams are opened.
const OPENING_MAX: usize = 64;

/// Events of one stream that may be under way without their times being mixed up.
const UNDER_WAY: usize = 8;

/// A request of more bytes than this may not fit into a socket at once.
const LARGE_BYTES: usize = 32 * 1024;

/// How often what is due is sent.
const TICK_NS: u64 = 1_000_000;

/// Nothing takes longer than this, or something is broken.
const PATIENCE_NS: u64 = 60_000_000_000;

/// The two ends.
pub struct Load {
    epoll: OwnedFd,
    listener: TcpListener,
    plan: Plan,
    scripts: Vec<Script>,
    upstreams: Vec<Option<Upstream>>,
    clients: Vec<Client>,
    streams: Vec<Stream>,
    room: Box<[u8]>,
    /// Ask again when an answer has ended.
    again: bool,
    /// Events that arrived and were right.
    pub events: u64,
    /// Answers that arrived whole.
    pub answers: u64,
    /// From the upstream's write to the client's read, in nanoseconds, for each event.
    pub delays: Vec<u32>,
    /// From the request's write to the answer's first byte.
    pub firsts: Vec<u32>,
}

#[derive(Clone, Default)]
struct Stream {
    upstream: Option<usize>,
    emitted: usize,
    sent_at: [u64; UNDER_WAY],
}

type Outcome<T> = Result<T, String>;

impl Load {
    /// An upstream that listens, and no clients yet.
    pub fn new(plan: Plan) -> Load {
        let listener = listener((Ipv4Addr::LOCALHOST, 0).into()).expect("an upstream's listener");
        listener.set_nonblocking(true).expect("a socket that does not block");
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("epoll");
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN).expect("epoll");
        let script = |variant| match plan.stream {
            true => Script::stream(variant, plan.events, plan.bytes),
            false => Script::whole(variant, plan.bytes),
        };
        // A flood's scripts are long.
        let variants = if plan.pace == Pace::Flood { 2 } else { VARIANTS };
        Load {
            epoll,
            listener,
            plan,
            scripts: (0..variants).map(script).collect(),
            upstreams: Vec::new(),
            clients: Vec::new(),
            streams: Vec::new(),
            room: vec![0; 256 * 1024].into_boxed_slice(),
            again: false,
            events: 0,
            answers: 0,
            delays: Vec::new(),
            firsts: Vec::new(),
        }
    }

    /// Where the upstream listens.
    pub fn upstream(&self) -> SocketAddr {
        self.listener.local_addr().expect("the upstream's address")
    }

    /// Opens streams until there are `count`, and waits until each has its answer's head.
    pub fn open(
        &mut self,
        addr: SocketAddr,
        tls: Option<&Arc<ClientConfig>>,
        count: usize,
        watched: bool,
    ) -> Outcome<()> {
        let give_up = now() + PATIENCE_NS;
        while self.clients.len() < count {
            let id = self.clients.len();
            let request = request(id, self.plan.stream, self.plan.request);
            let client = Client::connect(addr, tls, request).map_err(|error| format!("connect: {error}"))?;
            if watched {
                self.watch(client.socket(), CLIENT | id as u64, EventFlags::IN)?;
            }
            self.clients.push(client);
            self.streams.push(Stream::default());
            self.ask(id)?;
            while watched && self.opening() >= OPENING_MAX {
                self.turn(give_up)?;
            }
        }
        while watched && self.opening() > 0 {
            self.turn(give_up)?;
        }
        Ok(())
    }

    /// Clients, of the last that were opened, which wait for their answer. (Older ones have theirs.)
    fn opening(&self) -> usize {
        let last = self.clients.len().saturating_sub(2 * OPENING_MAX);
        self.clients[last..].iter().filter(|client| !client.begun() && !client.ended()).count()
    }

    /// Sends `count` more events on each stream, evenly over the streams, one in `interval` on each, and waits until all have
    /// arrived.
    pub fn emit(&mut self, count: usize, interval: Duration) -> Outcome<()> {
        let streams = self.streams.len();
        let (start, gap) = (now(), interval.as_nanos() as u64 / streams as u64);
        let give_up = start + gap * (count * streams) as u64 + PATIENCE_NS;
        let wanted = self.events + (count * streams) as u64;
        let mut sent = 0;
        while self.events < wanted {
            let due = ((now() - start) / gap.max(1)) as usize + 1;
            while sent < due.min(count * streams) {
                self.emit_one(sent % streams)?;
                sent += 1;
            }
            self.turn_for(TICK_NS, give_up)?;
        }
        Ok(())
    }

    fn emit_one(&mut self, stream: usize) -> Outcome<()> {
        let script = &self.scripts[stream % self.scripts.len()];
        let stream = &mut self.streams[stream];
        let number = stream.emitted;
        stream.emitted += 1;
        stream.sent_at[number % UNDER_WAY] = now();
        let at = stream.upstream.ok_or("a stream that the upstream was never asked for")?;
        let upstream = self.upstreams[at].as_mut().ok_or("the upstream's connection was closed")?;
        upstream.write(script.wire_of(number)).map(drop).map_err(|error| format!("upstream: {error}"))
    }

    /// Ends all streams and waits until the clients have seen it.
    pub fn end(&mut self) -> Outcome<()> {
        let wanted = self.answers + self.streams.len() as u64;
        for id in 0..self.streams.len() {
            let script = &self.scripts[id % self.scripts.len()];
            let upstream = self.streams[id].upstream.and_then(|at| self.upstreams[at].as_mut());
            let upstream = upstream.ok_or("the upstream's connection was closed")?;
            upstream.write(&script.end).map_err(|error| format!("upstream: {error}"))?;
            if id % OPENING_MAX == 0 {
                self.turn_for(0, u64::MAX)?;
            }
        }
        let give_up = now() + PATIENCE_NS;
        while self.answers < wanted {
            self.turn(give_up)?;
        }
        Ok(())
    }

    /// Asks again and again on every connection for `time`, and lets what is under way finish.
    pub fn cycle(&mut self, time: Duration) -> Outcome<()> {
        self.again = true;
        for id in 0..self.clients.len() {
            if self.clients[id].ended() {
                self.ask_again(id)?;
            }
        }
        self.rest(time)?;
        self.again = false;
        let give_up = now() + PATIENCE_NS;
        while self.clients.iter().any(|client| !client.ended()) {
            self.turn(give_up)?;
        }
        Ok(())
    }

    /// Lets happen what happens.
    pub fn rest(&mut self, time: Duration) -> Outcome<()> {
        let until = now() + time.as_nanos() as u64;
        while now() < until {
            self.turn_for(TICK_NS, u64::MAX)?;
        }
        Ok(())
    }

    /// Reads up to `bytes` bytes on each client's connection, as a client does that reads slowly.
    pub fn sip(&mut self, bytes: usize) -> Outcome<()> {
        for id in 0..self.clients.len() {
            let script = &self.scripts[id % self.scripts.len()];
            let read = self.clients[id].read(&mut self.room[..bytes], script);
            read.map_err(|error| format!("stream {id}: {error}"))?;
        }
        Ok(())
    }

    /// Payload bytes that the clients have read.
    pub fn read_bytes(&self) -> u64 {
        self.clients.iter().map(|client| client.cursor as u64).sum()
    }

    /// Payload bytes that the upstream's sockets have taken.
    pub fn written_bytes(&self) -> u64 {
        self.streams.iter().map(|stream| (stream.emitted * self.plan.bytes) as u64).sum()
    }

    fn turn(&mut self, give_up: u64) -> Outcome<()> {
        self.turn_for(100 * TICK_NS, give_up)
    }

    fn turn_for(&mut self, ns: u64, give_up: u64) -> Outcome<()> {
        if now() > give_up {
            return Err("took too long".into());
        }
        let mut events: Vec<Event> = Vec::with_capacity(512);
        let timeout = Timespec { tv_sec: 0, tv_nsec: ns as i64 };
        match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.to_string()),
        }
        for event in events {
            let (flags, token) = (event.flags, event.data.u64());
            match token {
                LISTENER => self.accept()?,
                _ if token & CLIENT != 0 => self.client((token & !CLIENT) as usize)?,
                _ => self.upstream_event(token as usize, flags)?,
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> Outcome<()> {
        while let Ok((socket, _)) = self.listener.accept() {
            let upstream = Upstream::new(socket).map_err(|error| error.to_string())?;
            self.watch(upstream.socket(), self.upstreams.len() as u64, EventFlags::IN)?;
            self.upstreams.push(Some(upstream));
        }
        Ok(())
    }

    fn upstream_event(&mut self, at: usize, flags: EventFlags) -> Outcome<()> {
        let Some(upstream) = &mut self.upstreams[at] else { return Ok(()) };
        let failed = |error: io::Error| format!("upstream: {error}");
        if flags.contains(EventFlags::OUT) {
            let flushed = upstream.flush().map_err(failed)?;
            return if flushed { self.answer_on(at) } else { Ok(()) };
        }
        match upstream.read(&mut self.room) {
            // The peer has given the connection up; if a stream was on it, its client will tell.
            Ok(None) | Err(_) => self.upstreams[at] = None,
            Ok(Some(None)) => {}
            Ok(Some(Some(asked))) => {
                let length = request(asked.stream, self.plan.stream, self.plan.request).len();
                if asked.body > length || asked.body < self.plan.request {
                    return Err(format!("a request's body of {} bytes came as {}", length, asked.body));
                }
                upstream.stream = Some(asked.stream);
                self.streams[asked.stream] = Stream { upstream: Some(at), ..Stream::default() };
                return self.begin(at, asked.stream);
            }
        }
        Ok(())
    }

    /// A request has come.
    fn begin(&mut self, at: usize, id: usize) -> Outcome<()> {
        let script = &self.scripts[id % self.scripts.len()];
        let Some(upstream) = &mut self.upstreams[at] else { return Ok(()) };
        let written = match (self.plan.stream, self.plan.pace) {
            (true, Pace::AtOnce) => upstream.write_all(script),
            (false, _) => upstream.write(&[&script.head[..], &script.wire].concat()),
            (true, Pace::Told | Pace::Flood) => upstream.write(&script.head),
        };
        match written.map_err(|error| format!("upstream: {error}"))? {
            true => self.answer_on(at),
            false => self.rewatch(at, true),
        }
    }

    /// The upstream's connection takes more.
    fn answer_on(&mut self, at: usize) -> Outcome<()> {
        let Some(upstream) = &mut self.upstreams[at] else { return Ok(()) };
        let (Some(id), Pace::Flood) = (upstream.stream, self.plan.pace) else {
            return self.rewatch(at, false);
        };
        let script = &self.scripts[id % self.scripts.len()];
        let stream = &mut self.streams[id];
        while stream.emitted < script.events {
            let written =
                upstream.write(script.wire_of(stream.emitted)).map_err(|error| error.to_string())?;
            stream.emitted += 1;
            if !written {
                return self.rewatch(at, true);
            }
        }
        self.rewatch(at, false)
    }

    fn client(&mut self, id: usize) -> Outcome<()> {
        if !self.clients[id].has_asked() && !self.ask(id)? {
            // A TLS handshake goes on; its bytes were read while it was tried to write.
            return Ok(());
        }
        let script = &self.scripts[id % self.scripts.len()];
        let client = &mut self.clients[id];
        let before = client.cursor / script.event;
        let mut more = true;
        while more {
            more = client.read(&mut self.room, script).map_err(|error| format!("stream {id}: {error}"))?;
        }
        let at = now();
        if client.first_at == 0 && client.begun() {
            client.first_at = at;
            self.firsts.push((at - client.asked_at) as u32);
        }
        let after = (client.cursor / script.event).min(script.events);
        self.events += (after - before.min(after)) as u64;
        if self.plan.pace == Pace::Told {
            let sent_at = &self.streams[id].sent_at;
            let late = (before..after).map(|number| (at - sent_at[number % UNDER_WAY]) as u32);
            self.delays.extend(late);
        }
        if client.ended() {
            self.answers += 1;
            if self.again {
                self.ask_again(id)?;
            }
        }
        Ok(())
    }

    fn ask_again(&mut self, id: usize) -> Outcome<()> {
        self.clients[id].ask_again();
        self.ask(id).map(drop)
    }

    /// Writes on a request. Whether all of it is written.
    fn ask(&mut self, id: usize) -> Outcome<bool> {
        let client = &mut self.clients[id];
        if client.asked_at == 0 {
            client.asked_at = now();
        }
        let written = client.write().map_err(|error| format!("stream {id}: {error}"))?;
        if self.plan.request > LARGE_BYTES {
            let mut flags = EventFlags::IN;
            flags.set(EventFlags::OUT, !written);
            let token = EventData::new_u64(CLIENT | id as u64);
            epoll::modify(&self.epoll, self.clients[id].socket(), token, flags)
                .map_err(|error| error.to_string())?;
        }
        Ok(written)
    }

    fn watch(&self, socket: &impl AsFd, token: u64, flags: EventFlags) -> Outcome<()> {
        epoll::add(&self.epoll, socket, EventData::new_u64(token), flags).map_err(|error| error.to_string())
    }

    /// Only those who wait to be written to are told when they can be.
    fn rewatch(&mut self, at: usize, blocked: bool) -> Outcome<()> {
        let Some(upstream) = &mut self.upstreams[at] else { return Ok(()) };
        if std::mem::replace(&mut upstream.blocked, blocked) == blocked {
            return Ok(());
        }
        let mut flags = EventFlags::IN;
        flags.set(EventFlags::OUT, blocked);
        epoll::modify(&self.epoll, upstream.socket(), EventData::new_u64(at as u64), flags)
            .map_err(|error| error.to_string())
    }
}

/// Nanoseconds of the monotonic clock.
pub fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
