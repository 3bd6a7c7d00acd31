//! How a request is cut into segments changes nothing: each of the hostile corpus is answered, and forwarded, as when it comes
//! in one piece, when it comes byte by byte, and when it is cut in two at any place.

mod support;

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use support::{Edge, PATIENCE, answer};

/// Connections at a time. Most of them wait for the pause between two pieces.
const AT_ONCE: usize = 64;

/// How long the edge is left to read a piece before the next one is sent. Too short a pause only makes two pieces one.
const PAUSE: Duration = Duration::from_millis(1);

/// At how many places a request is cut in the usual run. `SEDGE_EVERY_CUT=1` cuts at all of them, up to
/// [`EVERY_CUT`].
const CUTS: usize = 20;

/// More than any request of the corpus has bytes, but for a few of the size of the bounds.
const EVERY_CUT: usize = 2048;

/// A longer request than this, of which the corpus has a few for the bounds, comes in so many pieces instead of bytes.
const PIECES: usize = 256;

/// Fields that are new for each request, or depend on how much of a body was there when the head was forwarded.
const OWN: [&str; 5] =
    ["x-request-id", "traceparent", "x-request-timeout-ms", "content-length", "transfer-encoding"];

/// An upstream that answers each request with what it has received, whatever bytes are in it. The edge has normalised them, so
/// that they can be read in the plainest way.
fn mirror() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let url = format!("http://{}", listener.local_addr().expect("address"));
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut talk = Talk { stream, got: Vec::new(), over: false };
                while let Some(request) = talk.request() {
                    if talk.stream.write_all(&answer("200 OK", &[], request)).is_err() {
                        return;
                    }
                }
            });
        }
    });
    url
}

/// The answers without their date and identity; without `100 Continue`, which depends on whether the body was there; and
/// without what a refusal says in words, since of several faults the one that is found first may be told.
fn normal(raw: &[u8]) -> String {
    const WORDS: (&str, &str) = ("{\"error\":{\"message\":\"", "\",\"type\"");
    let mut text = String::from_utf8_lossy(raw).replace("HTTP/1.1 100 Continue\r\n\r\n", "");
    let mut from = 0;
    while let Some(start) = text[from..].find(WORDS.0).map(|at| from + at + WORDS.0.len()) {
        if let Some(length) = text[start..].find(WORDS.1) {
            text.replace_range(start..start + length, "");
        }
        from = start;
    }
    let is_new = |line: &str| {
        let name = line.split(':').next().unwrap_or_default();
        ["date", "x-request-id", "content-length"].iter().any(|new| name.eq_ignore_ascii_case(new))
    };
    text.split_inclusive('\n').filter(|line| !is_new(line)).collect()
}

struct Case {
    name: String,
    raw: Vec<u8>,
}

fn cases() -> Vec<Case> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/http1/cases.jsonl");
    let lines = std::fs::read_to_string(path).expect("the corpus");
    let case = |line: &str| {
        let case: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let raw = case["raw_base64"].as_str().expect("a request");
        Case { name: case["name"].as_str().expect("a name").to_owned(), raw: support::base64::decode(raw) }
    };
    lines.lines().map(case).collect()
}

/// A client that listens while it speaks.
struct Talk {
    stream: TcpStream,
    got: Vec<u8>,
    over: bool,
}

impl Talk {
    fn new(edge: &Edge) -> Self {
        let stream = TcpStream::connect(edge.addr()).expect("connect");
        stream.set_nodelay(true).expect("nodelay");
        Self { stream, got: Vec::new(), over: false }
    }

    /// The next request, head and body, without what is not the same each time. None if the connection ends before it does.
    fn request(&mut self) -> Option<String> {
        let head = self.until(b"\r\n\r\n")?;
        let own = |line: &&str| {
            let name = line.split(':').next().unwrap_or_default();
            OWN.iter().any(|own| name.eq_ignore_ascii_case(own))
        };
        let mut told: Vec<&str> = head.split("\r\n").filter(|line| !own(line)).collect();
        let value = |name: &str| {
            let mut fields = head.split("\r\n").filter_map(|line| line.split_once(": "));
            fields.find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
        };
        let mut body = String::new();
        if value("transfer-encoding").is_some() {
            loop {
                let line = self.until(b"\r\n")?;
                let size = usize::from_str_radix(line.trim_end(), 16).expect("a bare chunk size");
                let chunk = self.take(size + 2)?;
                if size == 0 {
                    break;
                }
                body += chunk.strip_suffix("\\r\\n").expect("a whole chunk");
            }
        } else if let Some(length) = value("content-length") {
            body = self.take(length.parse().expect("a length"))?;
        }
        told.push(&body);
        Some(told.join("|"))
    }

    /// All up to and with `mark`.
    fn until(&mut self, mark: &[u8]) -> Option<String> {
        loop {
            if let Some(at) = self.got.windows(mark.len()).position(|window| window == mark) {
                let taken: Vec<u8> = self.got.drain(..at + mark.len()).collect();
                return Some(String::from_utf8_lossy(&taken).into_owned());
            }
            self.more()?;
        }
    }

    /// The next bytes, escaped.
    fn take(&mut self, count: usize) -> Option<String> {
        while self.got.len() < count {
            self.more()?;
        }
        Some(self.got.drain(..count).collect::<Vec<u8>>().escape_ascii().to_string())
    }

    fn more(&mut self) -> Option<()> {
        self.listen(Duration::from_secs(300));
        (!self.over).then_some(())
    }

    /// Takes in what comes within `limit`; says whether something did.
    fn listen(&mut self, limit: Duration) -> bool {
        self.stream.set_read_timeout(Some(limit)).expect("a time limit");
        let mut block = [0; 16 * 1024];
        match self.stream.read(&mut block) {
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return false,
            Ok(0) | Err(_) => self.over = true,
            Ok(count) => self.got.extend_from_slice(&block[..count]),
        }
        true
    }
}

/// Sends the pieces, and reads until as much has come as is expected, or the connection has ended; then leaves, and reads on
/// to its end, so that an answer too many is seen.
fn ask(edge: &Edge, pieces: &[&[u8]], expected: Option<&str>) -> String {
    let mut client = Talk::new(edge);
    for (number, piece) in pieces.iter().enumerate() {
        if number > 0 {
            client.listen(PAUSE);
        }
        // It may have heard enough.
        if client.over || client.stream.write_all(piece).is_err() {
            break;
        }
    }
    while !client.over && expected.is_none_or(|expected| normal(&client.got).len() < expected.len()) {
        assert!(client.listen(PATIENCE), "nothing more after {:?}", normal(&client.got));
    }
    // A socket that is gone has been left already.
    let _ = client.stream.shutdown(Shutdown::Write);
    while !client.over {
        assert!(client.listen(PATIENCE), "no end after {:?}", normal(&client.got));
    }
    normal(&client.got)
}

#[test]
fn however_it_is_cut_it_is_the_same_request() {
    let url = mirror();
    let edge = |head: &str| {
        let toml = format!(
            "relay_all = true\n[[upstream]]\nname = \"u\"\nurl = \"{url}\"\n[timeouts]\nrequest_head = \"{head}\"\nrequest_body = \"{head}\"\nkeep_alive = \"{head}\"\n"
        );
        Edge::configured(&toml)
    };
    // What never becomes whole is left alone by the first edge after its limit, and by the second when its client leaves.
    let (whole, cut) = (edge("3s"), edge("1h"));
    let most = if std::env::var_os("SEDGE_EVERY_CUT").is_some() { EVERY_CUT } else { CUTS };

    let work: Arc<Mutex<VecDeque<Case>>> = Arc::new(Mutex::new(cases().into()));
    let results = thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                scope.spawn(|| {
                    let (mut runs, mut different) = (0_usize, Vec::new());
                    loop {
                        let Some(case) = work.lock().expect("the cases").pop_front() else {
                            return (runs, different);
                        };
                        let late = |text: &str| text.find("HTTP/1.1 408 ").unwrap_or(text.len());
                        let mut expected = ask(&whole, &[&case.raw], None);
                        expected.truncate(late(&expected));
                        let bytes: Vec<&[u8]> = case.raw.chunks(case.raw.len().div_ceil(PIECES)).collect();
                        let stride = case.raw.len().div_ceil(most);
                        let cuts = (stride / 2..case.raw.len()).step_by(stride).filter(|&at| at > 0);
                        let twos: Vec<Vec<&[u8]>> =
                            cuts.map(|at| vec![&case.raw[..at], &case.raw[at..]]).collect();
                        for pieces in twos.iter().chain([&bytes]) {
                            runs += 1;
                            let got = ask(&cut, pieces, Some(&expected));
                            if got != expected {
                                let first = pieces.first().map_or(0, |piece| piece.len());
                                different.push(format!(
                                    "{} cut at {first}:\n{got:?}\ninstead of\n{expected:?}",
                                    case.name
                                ));
                            }
                        }
                    }
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker")).collect::<Vec<_>>()
    });
    let runs: usize = results.iter().map(|(runs, _)| runs).sum();
    let different: Vec<String> = results.into_iter().flat_map(|(_, different)| different).collect();
    eprintln!("{runs} requests in pieces, {} answered otherwise than whole", different.len());
    assert!(runs > 470, "{runs} requests");
    assert!(
        different.is_empty(),
        "{}\n{}",
        different.len(),
        different[..different.len().min(5)].join("\n\n")
    );
}
