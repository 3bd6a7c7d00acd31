//! An upstream that fails in every way there is, as chance has it, and answers in between. What a good answer is follows from the
//! request's `x-soak-id` alone, so whoever asked knows every byte of it.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::{Head, LAST_CHUNK, SSE_HEAD, Wire, answer, chunk, reserved};

/// How often the accepting thread looks around.
const LOOK: Duration = Duration::from_millis(2);

/// How long a restart takes.
const DOWN: Duration = Duration::from_millis(150);

/// The first word of a stream that fails at once.
pub const ERROR_EVENT: &str =
    "data: {\"error\":{\"message\":\"no\",\"type\":\"server_error\",\"param\":null,\"code\":\"no\"}}\n\n";

/// The body of an answer that is none.
pub const REFUSAL: &str =
    "{\"error\":{\"message\":\"no\",\"type\":\"server_error\",\"param\":null,\"code\":\"no\"}}";

/// What it does to a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Play {
    Answer,
    Drip,
    ResetBefore,
    CloseBefore,
    StallBefore,
    Refuse(&'static str, &'static str),
    ErrorInside,
    StallAfter,
    LieAboutChunks,
    ResetWithin,
    CloseWithin,
}

impl Play {
    /// About one in three is not answered well.
    fn of(chance: u64) -> Play {
        match chance % 100 {
            0..3 => Play::ResetBefore,
            3..5 => Play::CloseBefore,
            5 => Play::StallBefore,
            6..9 => Play::Refuse("429 Slow", "Retry-After-Ms: 30"),
            9..13 => Play::Refuse("500 Oops", "X-Why: chance"),
            13..15 => Play::Refuse("503 Busy", "Retry-After-Ms: 30"),
            15..17 => Play::ErrorInside,
            17 => Play::StallAfter,
            18..22 => Play::Drip,
            22..25 => Play::LieAboutChunks,
            25..28 => Play::ResetWithin,
            28..31 => Play::CloseWithin,
            _ => Play::Answer,
        }
    }
}

/// The events of the good answer to a request, the last one included.
pub fn events(id: u64) -> Vec<String> {
    let word = |n: u64| {
        let pad = "x".repeat((mix(id ^ n) % 200) as usize);
        format!(
            "data: {{\"id\":\"{id}\",\"n\":{n},\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{pad}.\"}}}}]}}\n\n"
        )
    };
    (0..4 + id % 40).map(word).chain(["data: [DONE]\n\n".to_owned()]).collect()
}

/// A number that looks like chance.
pub fn mix(mut n: u64) -> u64 {
    n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    n = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ n >> 31
}

/// The upstream.
#[derive(Debug)]
pub struct Chaos {
    addr: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Lives so far: a restart ends all connections of the one before.
    life: AtomicU64,
    asked: AtomicU64,
    seed: u64,
}

impl Chaos {
    /// One whose chance follows from `seed`. Its threads end with the process.
    pub fn start(seed: u64) -> Chaos {
        // The port stays its own while it is down.
        let (reserved, addr) = reserved();
        let listener = TcpListener::bind(addr).expect("bind");
        let state = Arc::new(State { seed, ..State::default() });
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            accept(listener, addr, &shared);
            drop(reserved);
        });
        Chaos { addr, state }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Goes down, with everything that is on its way, and comes back.
    pub fn restart(&self) {
        self.state.life.fetch_add(1, Ordering::SeqCst);
    }

    /// Requests it was asked.
    pub fn asked(&self) -> u64 {
        self.state.asked.load(Ordering::SeqCst)
    }
}

fn accept(mut listener: TcpListener, addr: SocketAddr, state: &Arc<State>) {
    let mut life = 0;
    loop {
        listener.set_nonblocking(true).expect("nonblocking");
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).expect("blocking");
                let state = Arc::clone(state);
                thread::spawn(move || serve(Wire::new(stream), life, &state));
            }
            Err(_) => thread::sleep(LOOK),
        }
        if state.life.load(Ordering::SeqCst) != life {
            drop(listener);
            thread::sleep(DOWN);
            life = state.life.load(Ordering::SeqCst);
            listener = loop {
                match TcpListener::bind(addr) {
                    Ok(listener) => break listener,
                    Err(_) => thread::sleep(LOOK),
                }
            };
        }
    }
}

fn serve(mut peer: Wire, life: u64, state: &State) {
    while let Ok(head) = peer.try_read_head() {
        peer.read_request_body(&head);
        let turn = state.asked.fetch_add(1, Ordering::SeqCst);
        let chance = mix(state.seed ^ mix(turn));
        match play(peer, &head, Play::of(chance), chance, &|| state.life.load(Ordering::SeqCst) == life) {
            Some(again) => peer = again,
            None => return,
        }
    }
}

/// Plays it; gives the connection back if it can carry another request.
fn play(mut peer: Wire, head: &Head, play: Play, chance: u64, lives: &dyn Fn() -> bool) -> Option<Wire> {
    let id = head.get("x-soak-id").and_then(|id| id.parse().ok()).expect("an id");
    match play {
        Play::ResetBefore => {
            peer.reset();
            return None;
        }
        Play::CloseBefore => return None,
        Play::StallBefore => {
            peer.silent_for(Duration::from_secs(5));
            return None;
        }
        Play::Refuse(status, field) => {
            peer.try_send(answer(status, &[field, "Content-Type: application/json"], REFUSAL)).ok()?;
            return Some(peer);
        }
        Play::ErrorInside => {
            peer.try_send([SSE_HEAD, &chunk(ERROR_EVENT), LAST_CHUNK].concat()).ok()?;
            return Some(peer);
        }
        _ => {}
    }
    let body = events(id).concat().into_bytes();
    peer.try_send(SSE_HEAD).ok()?;
    let until = match play {
        Play::Answer | Play::Drip => body.len(),
        _ => 1 + (mix(chance) as usize) % (body.len() - 1),
    };
    let (mut sent, mut turn) = (0, chance);
    while sent < until {
        turn = mix(turn);
        let size = if play == Play::Drip && sent < 200 { 1 } else { 1 + (turn % 900) as usize };
        let end = (sent + size).min(until);
        peer.try_send(chunk(&body[sent..end])).ok()?;
        sent = end;
        if !lives() {
            peer.reset();
            return None;
        }
        if turn.is_multiple_of(4) || play == Play::Drip {
            thread::sleep(Duration::from_millis(1));
        }
    }
    match play {
        Play::StallAfter => {
            peer.silent_for(Duration::from_secs(5));
            None
        }
        Play::LieAboutChunks => {
            let _ = peer.try_send(b"zz\r\nnot a chunk\r\n");
            None
        }
        Play::ResetWithin => {
            peer.reset();
            None
        }
        Play::CloseWithin => {
            // More is announced than comes.
            let rest = &body[sent..(sent + 10).min(body.len())];
            let _ = peer.try_send([b"4000\r\n", rest].concat());
            None
        }
        _ => {
            peer.try_send(LAST_CHUNK).ok()?;
            Some(peer)
        }
    }
}
