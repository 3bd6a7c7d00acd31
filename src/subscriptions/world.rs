//! Streams, a clock and somebody who does what is asked for, all as simple as can be.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

use serde_json::Value;

use super::source::Source;
use super::*;
use crate::streams::model::offset::Offset;
use crate::telemetry::Nonces;

pub(crate) const NOW: UnixMillis = 1_778_324_210_000;

/// The streams.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) streams: RefCell<BTreeMap<String, Extent>>,
    lives: Cell<u64>,
    pub(crate) now: Cell<UnixMillis>,
    /// Bytes that subscriptions may take.
    pub(crate) memory: Cell<u64>,
}

impl Source for World {
    fn extent(&self, path: &str, _: Option<&str>) -> Option<Extent> {
        self.streams.borrow().get(path).copied()
    }

    fn matching(
        &self,
        wants: &dyn Fn(&str) -> bool,
        _: Option<&str>,
        visit: &mut dyn FnMut(&str, Extent) -> ControlFlow<()>,
    ) {
        for (path, extent) in self.streams.borrow().iter().filter(|(path, _)| wants(path)) {
            if visit(path, *extent).is_break() {
                return;
            }
        }
    }
}

impl World {
    pub(crate) fn new() -> World {
        World { now: Cell::new(NOW), memory: Cell::new(u64::MAX), ..World::default() }
    }

    pub(crate) fn scene(&self) -> Scene<'_> {
        Scene { now: self.now.get(), source: self, key: None, memory: self.memory.get() }
    }

    pub(crate) fn pass(&self, ms: UnixMillis) {
        self.now.set(self.now.get() + ms);
    }

    /// Makes a stream that holds so much.
    pub(crate) fn create(&self, path: &str, bytes: u64) {
        self.lives.set(self.lives.get() + 1);
        let life = self.lives.get();
        let at = |position| Offset { epoch: life, position };
        self.streams.borrow_mut().insert(path.into(), Extent { life, start: at(0), tail: at(bytes) });
    }

    pub(crate) fn append(&self, path: &str, bytes: u64) -> bool {
        let mut streams = self.streams.borrow_mut();
        streams.get_mut(path).map(|extent| extent.tail.position += bytes).is_some()
    }

    pub(crate) fn delete(&self, path: &str) -> bool {
        self.streams.borrow_mut().remove(path).is_some()
    }

    pub(crate) fn tail(&self, path: &str) -> String {
        self.extent(path, None).map_or_else(|| "-1".into(), |extent| extent.tail.to_string())
    }
}

/// Subscriptions in a world, whose records are kept.
pub(crate) struct Server {
    pub(crate) world: World,
    secret: Secret,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) records: Vec<Vec<u8>>,
    pub(crate) deliveries: Vec<Delivery>,
    pub(crate) announcements: Vec<Announcement>,
}

pub(crate) type Answer = Result<Value, Code>;

impl Server {
    pub(crate) fn new() -> Server {
        let secret = Secret::from_bytes([7; SECRET_BYTES]);
        Server {
            world: World::new(),
            subscriptions: Subscriptions::new(&secret, Nonces::from_seed([1; 32])),
            secret,
            records: Vec::new(),
            deliveries: Vec::new(),
            announcements: Vec::new(),
        }
    }

    /// Ends and begins again, with what was kept.
    pub(crate) fn restart(&mut self, seed: u8) {
        self.deliveries.clear();
        self.announcements.clear();
        self.subscriptions = Subscriptions::new(&self.secret, Nonces::from_seed([seed; 32]));
        for record in &self.records {
            self.subscriptions.restore(record).expect("what was written is read");
        }
        self.subscriptions.start(self.world.scene());
        self.obey();
    }

    /// Does what is asked for: keeps records, and takes the rest down.
    pub(crate) fn obey(&mut self) {
        for action in self.subscriptions.take_actions() {
            self.obey_one(action);
        }
    }

    pub(crate) fn obey_one(&mut self, action: Action) {
        match action {
            Action::Store { id, record, whole } => {
                if whole {
                    self.forget(&id);
                }
                self.records.push(record);
            }
            Action::Forget { id } => self.forget(&id),
            Action::Deliver(delivery) => self.deliveries.push(delivery),
            Action::Announce(announcement) => self.announcements.push(announcement),
        }
    }

    fn forget(&mut self, id: &str) {
        let begins = format!(r#"{{"id":"{id}","#);
        self.records.retain(|record| !record.starts_with(begins.as_bytes()));
    }

    pub(crate) fn put(&mut self, id: &str, body: &Value) -> (u16, Value) {
        let body = body.to_string();
        let scene = self.world.scene();
        let reply = self.subscriptions.put(id, body.as_bytes(), "http://edge.example", Local::Allowed, scene);
        let result = match reply {
            Ok(reply) => (reply.status, json(&reply.body)),
            Err(refusal) => (refusal.code.status(), json(&refusal.body())),
        };
        self.obey();
        result
    }

    pub(crate) fn get(&mut self, id: &str) -> Value {
        let reply = self.subscriptions.get(id, self.world.scene());
        self.obey();
        reply.map_or(Value::Null, |reply| json(&reply.body))
    }

    /// The cursor of one stream.
    pub(crate) fn acked(&mut self, id: &str, path: &str) -> Option<String> {
        let body = self.get(id);
        let mut streams = body["streams"].as_array().into_iter().flatten();
        streams.find(|stream| stream["path"] == path)?["acked_offset"].as_str().map(str::to_owned)
    }

    /// What a subscription is asked by its own doors.
    pub(crate) fn ask(&mut self, id: &str, verb: &str, token: Option<&str>, body: &Value) -> Answer {
        let reply = self.ask_only(id, verb, token, body);
        self.obey();
        reply
    }

    /// The same, and nothing is done yet of what it asks for.
    pub(crate) fn ask_only(&mut self, id: &str, verb: &str, token: Option<&str>, body: &Value) -> Answer {
        let (scene, body) = (self.world.scene(), body.to_string().into_bytes());
        let subscriptions = &mut self.subscriptions;
        let reply = match verb {
            "claim" => subscriptions.claim(id, &body, scene),
            "ack" => subscriptions.ack(id, token, &body, scene),
            "callback" => subscriptions.callback(id, token, &body, scene),
            "release" => subscriptions.release(id, token, &body, scene),
            "streams" => subscriptions.add_streams(id, &body, scene),
            _ => unreachable!("{verb}"),
        };
        reply.map(|reply| json(&reply.body)).map_err(|refusal| refusal.code)
    }

    pub(crate) fn create(&mut self, path: &str, bytes: u64) {
        self.world.create(path, bytes);
        self.subscriptions.created(path, self.world.scene());
        self.obey();
    }

    pub(crate) fn append(&mut self, path: &str, bytes: u64) {
        assert!(self.world.append(path, bytes), "{path} is there");
        self.subscriptions.changed(path, self.world.scene());
        self.obey();
    }

    pub(crate) fn delete(&mut self, path: &str) {
        self.world.delete(path);
        self.subscriptions.changed(path, self.world.scene());
        self.obey();
    }

    pub(crate) fn pass(&mut self, ms: UnixMillis) {
        self.world.pass(ms);
        self.subscriptions.advance(self.world.scene(), usize::MAX);
        self.obey();
    }

    /// The only webhook that is to be sent, and its body.
    pub(crate) fn delivery(&mut self) -> (Delivery, Value) {
        let delivery = self.deliveries.pop().expect("a webhook is to be sent");
        assert!(self.deliveries.is_empty(), "one alone");
        let body = json(&delivery.body);
        (delivery, body)
    }

    pub(crate) fn delivered(&mut self, delivery: &Delivery, outcome: Delivered) {
        self.subscriptions.delivered(&delivery.id, &delivery.wake_id, outcome, self.world.scene());
        self.obey();
    }

    /// The only event that is to be appended, as it is; it is there now.
    pub(crate) fn announcement(&mut self) -> Value {
        let announcement = self.announcements.pop().expect("an event is to be appended");
        assert!(self.announcements.is_empty(), "one alone");
        self.announced(&announcement, true);
        json(&announcement.event)
    }

    pub(crate) fn announced(&mut self, announcement: &Announcement, is_there: bool) {
        let Announcement { id, wake_id, .. } = announcement;
        self.subscriptions.announced(id, wake_id, is_there, self.world.scene());
        self.obey();
    }
}

pub(crate) fn json(body: &[u8]) -> Value {
    match body {
        [] => Value::Null,
        body => serde_json::from_slice(body).expect("answers are JSON"),
    }
}
