//! The corpus of hostile and odd requests in `tests/http1`, judged by the protocol core alone.
//!
//! Promise: of each case exactly as many requests are accepted as a hardened edge may accept, and the verdict is the
//! same however the network cuts the bytes.

#[path = "support/base64.rs"]
#[allow(dead_code, reason = "the corpus is read here, not written")]
mod base64;

use std::collections::BTreeMap;

use sedge::testing::http1::body::BodyDecoder;
use sedge::testing::http1::request::{self, HeadScanner};

/// Cases up to this size are cut in two at every offset, longer ones at [`SPREAD`] offsets.
const CUT_EVERYWHERE_BYTES: usize = 2048;
const SPREAD: usize = 64;

#[test]
fn every_case_is_judged_as_a_hardened_edge_must() {
    let cases = cases();
    assert!(cases.len() >= 470, "the corpus is incomplete");
    let wrong: Vec<_> =
        cases.iter().filter_map(|case| case.complaint().map(|why| (&case.name, why))).collect();
    assert!(wrong.is_empty(), "{} cases judged wrongly: {wrong:#?}", wrong.len());
}

#[test]
fn no_cut_changes_a_verdict() {
    for case in cases() {
        let whole = judge([&case.raw[..]]);
        assert_eq!(judge(case.raw.chunks(1)), whole, "{}: byte by byte", case.name);
        let length = case.raw.len();
        let step = if length <= CUT_EVERYWHERE_BYTES { 1 } else { length / SPREAD };
        for cut in (1..length).step_by(step) {
            let (first, second) = case.raw.split_at(cut);
            assert_eq!(judge([first, second]), whole, "{}: cut at {cut}", case.name);
        }
    }
}

#[test]
fn fields_of_this_hop_are_not_forwarded() {
    let mut patterns = 0;
    for case in cases() {
        let verdict = judge([&case.raw[..]]);
        for pattern in &case.forbidden {
            let name = pattern.trim_start_matches('^').trim_end_matches(':');
            let leaked = verdict.messages.iter().any(|message| message.forwarded.contains_key(name));
            assert!(!leaked, "{}: {name} was forwarded", case.name);
            patterns += 1;
        }
    }
    assert!(patterns >= 5, "the corpus lost its forbidden fields");
}

/// What a server makes of a connection's bytes.
#[derive(Debug, Default, PartialEq)]
struct Verdict {
    messages: Vec<Message>,
    refused: bool,
    closed: bool,
}

#[derive(Debug, PartialEq)]
struct Message {
    method: String,
    target: String,
    forwarded: BTreeMap<String, Vec<u8>>,
    body: Vec<u8>,
}

fn judge<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Verdict {
    let mut server = Server::default();
    for piece in pieces {
        server.receive(piece);
    }
    server.verdict
}

/// A server's loop around the core: heads, bodies, keep-alive, pipelining.
#[derive(Default)]
struct Server {
    received: Vec<u8>,
    scanner: HeadScanner,
    reading: Option<(Message, BodyDecoder, bool)>,
    verdict: Verdict,
}

impl Server {
    fn receive(&mut self, piece: &[u8]) {
        self.received.extend_from_slice(piece);
        while !self.verdict.refused && !self.verdict.closed {
            let going_on = if self.reading.is_some() { self.body() } else { self.head() };
            match going_on {
                Some(true) => {}
                Some(false) => return,
                None => self.verdict.refused = true,
            }
        }
    }

    /// Some(true) when there is more to do, Some(false) when bytes are wanting, None when refused.
    fn head(&mut self) -> Option<bool> {
        if self.received.is_empty() {
            return Some(false);
        }
        let Some(end) = self.scanner.scan(&self.received).ok()? else { return Some(false) };
        self.scanner = HeadScanner::default();
        let head = request::parse(&self.received[..end]).ok()?;
        let forwarded = head.forwarded().map(|field| (field.name.to_ascii_lowercase(), field.value.to_vec()));
        let message = Message {
            method: head.method.into(),
            target: head.target.to_string(),
            forwarded: forwarded.collect(),
            body: Vec::new(),
        };
        self.reading = Some((message, head.body.into(), head.keep_alive));
        self.received.drain(..end);
        Some(true)
    }

    fn body(&mut self) -> Option<bool> {
        let (mut message, mut decoder, keep_alive) = self.reading.take()?;
        let decoded = decoder.decode_in_place(&mut self.received).ok()?;
        message.body.extend_from_slice(&self.received[..decoded.payload]);
        self.received.drain(..decoded.consumed);
        if decoded.ended {
            self.verdict.messages.push(message);
            self.verdict.closed = !keep_alive;
        } else {
            self.reading = Some((message, decoder, keep_alive));
        }
        Some(decoded.ended)
    }
}

struct Case {
    name: String,
    raw: Vec<u8>,
    strict: String,
    complete: bool,
    fewest: usize,
    most: usize,
    forbidden: Vec<String>,
}

impl Case {
    fn complaint(&self) -> Option<String> {
        let verdict = judge([&self.raw[..]]);
        let accepted = verdict.messages.len();
        let right = match self.strict.as_str() {
            "reject" => accepted == self.fewest && (verdict.refused || verdict.closed || !self.complete),
            "accept" => accepted == self.most && !verdict.refused,
            "either" | "incomplete" => accepted <= self.most && (accepted >= self.fewest || verdict.refused),
            other => return Some(format!("unknown label {other}")),
        };
        (!right).then(|| {
            format!("{}: accepted {accepted} of {}..={}, {verdict:?}", self.strict, self.fewest, self.most)
        })
    }
}

fn cases() -> Vec<Case> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/http1/cases.jsonl");
    let text = std::fs::read_to_string(path).expect("the corpus is part of the repository");
    text.lines().map(|line| case(&serde_json::from_str(line).expect("each line is JSON"))).collect()
}

fn case(json: &serde_json::Value) -> Case {
    let text = |key: &str| json[key].as_str().unwrap_or_else(|| panic!("{key} is a string")).to_owned();
    let count = |key: &str| json[key].as_u64().unwrap_or_else(|| panic!("{key} is a number")) as usize;
    let forbidden = json["forbid_upstream"].as_array().into_iter().flatten();
    Case {
        name: text("name"),
        raw: base64::decode(&text("raw_base64")),
        strict: text("strict"),
        complete: text("kind") != "incomplete",
        fewest: count("n_ok"),
        most: count("n_max"),
        forbidden: forbidden.filter_map(|pattern| pattern.as_str().map(str::to_owned)).collect(),
    }
}
