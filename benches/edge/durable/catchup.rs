//! A long stream that is read from its beginning. The server is started anew before, so that it has it from its disk, or rather
//! from the kernel's cache of that.

use std::time::Duration;

use super::super::load::now;
use super::super::peers::streams::{What, request};
use super::super::peers::{Kind, Peer, Role, Site};
use super::super::process::Ask;
use super::super::scenes::{NOTHING, Sample};
use super::super::script::words;
use super::super::watch::Watch;
use super::append::{pause, read_all};
use super::caller::Caller;
use super::folder;

/// Bytes of the stream, and of each append to it.
const BYTES: usize = 100_000_000;
const APPEND_BYTES: usize = 16_000;

/// How long it is read again and again.
const TIME: Duration = Duration::from_secs(2);

/// Runs it with one peer.
pub fn run(kind: Kind, site: &Site<'_>, ask: Option<Ask>) -> Result<Sample, String> {
    let folder = folder(site);
    let site = Site { role: Role::Streams(Some(&folder)), ..*site };
    let mut script = Vec::with_capacity(BYTES);
    while script.len() < BYTES {
        let front = format!("{:09} ", script.len());
        script.extend_from_slice(front.as_bytes());
        script.extend_from_slice(words(script.len(), 1000 - front.len()).as_bytes());
    }
    let mut room = vec![0; 256 * 1024];
    let mut peer = Peer::start(kind, &site);
    let mut caller = Caller::connect(peer.addr)?;
    if kind != Kind::Floor {
        caller.call((&request(kind, What::Make, "long"), b""), &mut room, |_| Ok(()))?;
    }
    let head = request(kind, What::Append, "long");
    for piece in script.chunks(APPEND_BYTES) {
        caller.call((&head, piece), &mut room, |_| Ok(()))?;
    }
    peer.kill();
    peer = Peer::start(kind, &site);
    caller = Caller::connect(peer.addr)?;
    let mut read = || {
        let mut cursor = 0;
        read_all(kind, "long", &mut caller, &mut room, |piece| {
            let expected = script.get(cursor..cursor + piece.len());
            cursor += piece.len();
            if expected == Some(piece) { Ok(()) } else { Err(format!("other bytes before {cursor}")) }
        })?;
        if cursor == script.len() { Ok(()) } else { Err(format!("{cursor} bytes of {}", script.len())) }
    };
    read()?;
    let mut sample = NOTHING;
    let mut watch = Watch::new(peer.pid(), kind, "catchup", &site, ask);
    watch.start(pause);
    let until = now() + TIME.as_nanos() as u64;
    let mut times = 0;
    while now() < until {
        read()?;
        times += 1;
    }
    watch.stop(&mut sample, f64::from(times) * BYTES as f64 / 1e6);
    Ok(sample)
}
