//! Bytes that nearly are responses, from a seed: the same seed, the same bytes, in the same pieces.

use std::net::SocketAddr;

use super::{Wire, chunk, wait_until};

/// Numbers from a seed (SplitMix64).
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    pub fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }
}

/// A response that is right, or damaged somewhere: interim heads, a head, a body in some framing.
pub fn response(random: &mut Random) -> Vec<u8> {
    let mut wire = Vec::new();
    if random.one_in(3) {
        let pad = random.below(900);
        let head = format!("HTTP/1.1 103 Early Hints\r\nLink: {}\r\n\r\n", "a".repeat(pad));
        wire.extend(head.repeat(random.below(130)).into_bytes());
    }
    let status = random
        .pick(&["200 OK", "200", "206 Part", "404 No", "429 Wait", "500 No", "999 ?", "204 No", "304 No"]);
    wire.extend(format!("HTTP/1.{} {status}\r\n", random.pick(&["1", "1", "1", "0"])).into_bytes());
    for _ in 0..random.below(6) {
        let field = random.pick(&[
            "Content-Type: text/event-stream",
            "Content-Type: application/json",
            "Content-Encoding: gzip",
            "Connection: close, x, y",
            "Connection: keep-alive",
            "Keep-Alive: timeout=18446744073709551615, max=1",
            "Retry-After: 99999999999999999999",
            "Retry-After-Ms: 1e308",
            "X-Request-Id: \u{80}\u{ff}",
            "X-RateLimit-Remaining: -1",
            "Date: never",
            "Trailer: x",
        ]);
        wire.extend(format!("{field}\r\n").into_bytes());
    }
    if random.one_in(8) {
        wire.extend(format!("X-Long: {}\r\n", "b".repeat(random.below(70_000))).into_bytes());
    }
    let chunked = random.one_in(2);
    wire.extend_from_slice(match (chunked, random.below(4)) {
        (true, _) => b"Transfer-Encoding: chunked\r\n\r\n",
        (_, 0) => b"Content-Length: 1000\r\n\r\n",
        (_, 1) => b"Content-Length: 0\r\n\r\n",
        (_, 2) => b"Content-Length: 9223372036854775807\r\n\r\n",
        _ => b"\r\n",
    });
    for _ in 0..random.below(12) {
        let payload = random
            .pick(&[
                "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n",
                "data: {\"usage\":{\"prompt_tokens\":18446744073709551615,\"completion_tokens\":7}}\n\n",
                "data: {\"error\":{\"code\":1e999}}\n\n",
                "{\"data\":[{\"id\":\"m\"},{\"id\":7},[],{}]}",
                "id: 1\r\nretry: 99999999999999999999\r\n\r\n",
                "data: [DONE]\n\n",
                "\u{feff}: ping\n\n",
                "event: error\rdata: x\r\r",
            ])
            .repeat(1 + random.below(600));
        if chunked { wire.extend(chunk(payload)) } else { wire.extend(payload.into_bytes()) }
    }
    if chunked {
        wire.extend_from_slice(
            random.pick(&["0\r\n\r\n", "0\r\nA: b\r\n\r\n", "0\r\n", "ffffffffffffffff\r\n", ""]).as_bytes(),
        );
    }
    for _ in 0..if random.one_in(2) { random.below(4) } else { 0 } {
        let place = random.below(wire.len());
        wire[place] = random.next() as u8;
    }
    wire
}

/// Sends `wire` in pieces as `random` will have it. Now and then the edge has read all before the next piece comes.
pub fn send_in_pieces(peer: &mut Wire, wire: &[u8], random: &mut Random) {
    let mut rest = wire;
    let most = [100, 5000, 40_000][random.below(3)];
    let mut waits = 3;
    while !rest.is_empty() {
        let (now, later) = rest.split_at((1 + random.below(most)).min(rest.len()));
        if peer.try_send(now).is_err() {
            return;
        }
        if waits > 0 && random.one_in(3) {
            waits -= 1;
            wait_read(peer);
        }
        rest = later;
    }
}

/// Waits until the other end has read everything that was sent, or is gone.
pub fn wait_read(peer: &Wire) {
    let (Ok(ours), Ok(theirs)) = (peer.stream().local_addr(), peer.stream().peer_addr()) else { return };
    wait_until("the other end has read everything", || {
        // The list is long where much is going on, and the other end may need the processor.
        std::thread::park_timeout(std::time::Duration::from_millis(1));
        let sockets = std::fs::read_to_string("/proc/net/tcp").expect("the kernel's list of sockets");
        // Of ours all is acknowledged, and at the other end nothing waits.
        queues(&sockets, ours, theirs).is_none_or(|(unsent, _)| unsent == 0)
            && queues(&sockets, theirs, ours).is_none_or(|(_, unread)| unread == 0)
    });
}

/// Bytes that wait to be sent and to be read at the socket from `local` to `remote`, if there is one.
fn queues(sockets: &str, local: SocketAddr, remote: SocketAddr) -> Option<(u64, u64)> {
    let address = |address: SocketAddr| match address.ip() {
        std::net::IpAddr::V4(ip) => format!("{:08X}:{:04X}", u32::from_ne_bytes(ip.octets()), address.port()),
        std::net::IpAddr::V6(_) => String::new(),
    };
    let (local, remote) = (address(local), address(remote));
    sockets.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        if words.next()? != local || words.next()? != remote {
            return None;
        }
        let (unsent, unread) = words.nth(1)?.split_once(':')?;
        Some((u64::from_str_radix(unsent, 16).ok()?, u64::from_str_radix(unread, 16).ok()?))
    })
}
