//! What must never happen, and what must.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::life::Life;
use super::{IDS, settings};
use crate::subscriptions::world::{self, Answer};
use crate::subscriptions::{Code, Delivered, Glob};

impl Life {
    pub(crate) fn judge(
        &mut self,
        at: usize,
        verb: &str,
        body: &Value,
        answer: &Answer,
        is_its_own: bool,
        before: BTreeMap<(String, String), String>,
    ) {
        let now = self.now();
        let (id, ttl) =
            (self.known[at].id, settings(self.known[at].id)["lease_ttl_ms"].as_u64().expect("a lease"));
        match answer {
            Ok(_) => {
                let known = &self.known[at];
                assert!(is_its_own || self.same_wake(at), "a token of another wake was good for this one");
                assert_eq!(
                    body["wake_id"], known.wake["wake_id"],
                    "the name of another wake was good for this one"
                );
                assert!(!known.over, "a wake that is over was taken up");
                let last = self.generations[id].last_key_value().expect("a wake was met");
                assert_eq!(known.wake["generation"], *last.0, "a stale generation was taken up");
                if id == "pull" {
                    assert!(now < known.until, "a lease that has ended was taken up");
                }
                let ends = verb == "release" || body["done"] == true;
                self.counts.done += u32::from(ends);
                let wake_id = known.wake["wake_id"].clone();
                for known in self.known.iter_mut().filter(|known| known.wake["wake_id"] == wake_id) {
                    (known.over, known.until) = (ends, now + ttl);
                }
                self.watch(true);
            }
            Err(code) => {
                self.counts.fenced += u32::from(*code == Code::Fenced);
                for (stream, acked) in self.all_cursors() {
                    let moved = before.get(&stream).is_some_and(|before| *before != acked);
                    assert!(!moved, "a request that was refused has moved the cursor of {stream:?}");
                }
            }
        }
    }

    /// Whether a wake was told more than once, with a token each time.
    pub(crate) fn same_wake(&self, at: usize) -> bool {
        self.known.iter().filter(|known| known.wake["wake_id"] == self.known[at].wake["wake_id"]).count() > 1
    }

    /// Cursors by subscription and life of a stream. Looking at them does what is due, which moves none.
    pub(crate) fn all_cursors(&mut self) -> BTreeMap<(String, String), String> {
        let mut all = BTreeMap::new();
        for id in IDS {
            let body = self.server.get(id);
            for stream in body["streams"].as_array().into_iter().flatten() {
                let acked = stream["acked_offset"].as_str().expect("an offset");
                // The epoch is the life.
                if let Some((epoch, _)) = acked.split_once('-').filter(|(epoch, _)| !epoch.is_empty()) {
                    all.insert((id.to_owned(), format!("{} {epoch}", stream["path"])), acked.to_owned());
                }
            }
        }
        all
    }

    /// A wake is seen for the first time, or again.
    pub(crate) fn meet(&mut self, id: &'static str, wake: &Value) {
        let generation = wake["generation"].as_u64().expect("a generation");
        let wake_id = wake["wake_id"].as_str().expect("an id");
        let known = self.generations.entry(id).or_default();
        if let Some(whose) = known.get(&generation) {
            assert_eq!(whose, wake_id, "two wakes share a generation");
        }
        known.insert(generation, wake_id.to_owned());
    }

    /// What must never happen, whatever the step: a cursor moves that had no right to, or backwards.
    pub(crate) fn watch(&mut self, may_move: bool) {
        // One that was taken away and named again is another one.
        let now = self.all_cursors();
        for (stream, acked) in &now {
            if let Some(before) = self.cursors.get(stream) {
                assert!(before <= acked, "the cursor of {stream:?} went back from {before} to {acked}");
                assert!(may_move || before == acked, "the cursor of {stream:?} moved to {acked} by itself");
            }
        }
        self.cursors = now;
    }

    /// What must happen: when everyone does their work, all of it is done, and then there is silence.
    pub(crate) fn rest(&mut self) {
        for _ in 0..1000 {
            while !self.news.is_empty() {
                self.hear();
            }
            if let Some(delivery) = self.unanswered.pop() {
                self.server.delivered(&delivery, Delivered::Done);
            } else if let Some(delivery) = self.server.deliveries.pop() {
                let id = IDS.into_iter().find(|id| **id == *delivery.id).expect("one of ours");
                self.meet(id, &world::json(&delivery.body));
                self.server.delivered(&delivery, Delivered::Done);
            } else if let Some(announcement) = self.server.announcements.pop() {
                self.server.announced(&announcement, true);
                self.events.push("pull");
            } else if let Some(id) = self.events.pop() {
                let Ok(wake) = self.server.ask(id, "claim", None, &json!({ "worker": "w" })) else {
                    continue;
                };
                self.meet(id, &wake);
                let shown = wake["streams"].as_array().expect("streams");
                let acks: Vec<Value> = shown
                    .iter()
                    .filter(|stream| stream["has_pending"] == true)
                    .map(|stream| json!({ "stream": stream["path"], "offset": stream["tail_offset"] }))
                    .collect();
                let body = json!({ "wake_id": wake["wake_id"], "generation": wake["generation"], "acks": acks, "done": true });
                let done = self.server.ask(id, "ack", wake["token"].as_str(), &body);
                assert!(done.is_ok(), "{done:?}");
            } else if let Some(due) = self.server.subscriptions.next_due() {
                self.server.pass(due.saturating_sub(self.now()));
            } else {
                return self.nothing_is_left();
            }
            self.watch(true);
        }
        panic!("there is no end to it");
    }

    pub(crate) fn nothing_is_left(&mut self) {
        for id in IDS {
            let body = self.server.get(id);
            for stream in body["streams"].as_array().into_iter().flatten() {
                let path = stream["path"].as_str().expect("a path");
                assert_eq!(stream["acked_offset"], self.server.world.tail(path), "{id}: {path} was left");
            }
            if body.is_null() {
                continue;
            }
            // Every stream that matches is linked.
            let linked: BTreeSet<&str> = body["streams"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|it| it["path"].as_str())
                .collect();
            let glob = Glob::parse(body["pattern"].as_str().expect("a pattern")).expect("it was read before");
            for path in self.server.world.streams.borrow().keys() {
                let is_own = body["wake_stream"] == **path;
                assert!(
                    !glob.matches(path) || is_own || linked.contains(&**path),
                    "{id}: {path} is not linked"
                );
            }
        }
    }
}
