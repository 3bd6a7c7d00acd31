//! Many connections, on each of which one request follows the other's answer.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::time::Timespec;

use super::super::load::now;
use super::caller::Caller;

/// No answer takes longer than this, or something is broken.
const PATIENCE: Timespec = Timespec { tv_sec: 60, tv_nsec: 0 };

/// The connections.
pub struct Crew {
    epoll: OwnedFd,
    callers: Vec<Caller>,
    asked_at: Vec<u64>,
    room: Box<[u8]>,
    /// From each request to the end of its answer, in nanoseconds.
    pub delays: Vec<u32>,
}

impl Crew {
    /// Connects.
    pub fn connect(addr: SocketAddr, count: usize) -> Result<Crew, String> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|error| error.to_string())?;
        let mut callers = Vec::new();
        for at in 0..count {
            let caller = Caller::connect(addr)?;
            epoll::add(&epoll, caller.socket(), EventData::new_u64(at as u64), EventFlags::IN)
                .map_err(|error| error.to_string())?;
            callers.push(caller);
        }
        let room = vec![0; 64 * 1024].into_boxed_slice();
        Ok(Crew { epoll, callers, asked_at: vec![0; count], room, delays: Vec::new() })
    }

    /// Asks on each connection what `next` puts down for it as head and body, until it has nothing more for any; small requests,
    /// that is, which a socket takes at once. How many were answered.
    pub fn work(
        &mut self,
        mut next: impl FnMut(usize, &mut String, &mut Vec<u8>) -> bool,
    ) -> Result<u64, String> {
        let (mut head, mut body) = (String::new(), Vec::new());
        let mut ask = |at: usize, caller: &mut Caller, asked_at: &mut u64| {
            head.clear();
            body.clear();
            if !next(at, &mut head, &mut body) {
                return Ok(false);
            }
            *asked_at = now();
            match caller.ask(&head, &body)? {
                true => Ok(true),
                false => Err("a request that the socket did not take".to_owned()),
            }
        };
        let (mut under_way, mut answered) = (0, 0);
        for (at, caller) in self.callers.iter_mut().enumerate() {
            under_way += usize::from(ask(at, caller, &mut self.asked_at[at])?);
        }
        let mut events: Vec<Event> = Vec::with_capacity(512);
        while under_way > 0 {
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&PATIENCE)) {
                Ok(0) => return Err("no answer for a minute".into()),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.to_string()),
            }
            for event in events.drain(..) {
                let at = event.data.u64() as usize;
                let caller = &mut self.callers[at];
                caller.read(&mut self.room, |_| Ok(()))?;
                if caller.ended() {
                    self.delays.push((now() - self.asked_at[at]) as u32);
                    (under_way, answered) = (under_way - 1, answered + 1);
                    under_way += usize::from(ask(at, caller, &mut self.asked_at[at])?);
                }
            }
        }
        Ok(answered)
    }
}
