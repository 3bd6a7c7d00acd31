//! One life: everyone does something, in any order.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Value, json};

use super::{Dice, IDS, PATHS, settings};
use crate::subscriptions::source::Source;
use crate::subscriptions::world::{self, Server};
use crate::subscriptions::{Delivered, Delivery, UnixMillis};

/// A wake as a worker or a receiver knows it; nobody forgets any.
#[derive(Clone)]
pub(crate) struct Known {
    pub(crate) id: &'static str,
    pub(crate) wake: Value,
    pub(crate) token: String,
    /// The lease ends then, unless it is extended.
    pub(crate) until: UnixMillis,
    pub(crate) over: bool,
}

/// News of a stream that have not arrived.
pub(crate) enum News {
    Created(&'static str),
    Changed(&'static str),
}

pub(crate) struct Life {
    pub(crate) dice: Dice,
    pub(crate) server: Server,
    pub(crate) known: Vec<Known>,
    /// Webhooks that have arrived and are not answered yet.
    pub(crate) unanswered: Vec<Delivery>,
    pub(crate) news: Vec<News>,
    /// Pull-wake subscriptions of which there is an event that no worker has followed yet.
    pub(crate) events: Vec<&'static str>,
    /// By subscription: its greatest generation, and whose each is.
    pub(crate) generations: HashMap<&'static str, BTreeMap<u64, String>>,
    pub(crate) claimed: BTreeSet<String>,
    /// By subscription and life of a stream: how far its cursor was.
    pub(crate) cursors: BTreeMap<(String, String), String>,
    pub(crate) counts: Counts,
    pub(crate) restarts: u8,
}

/// That something happens at all.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) done: u32,
    pub(crate) fenced: u32,
    pub(crate) expired: u32,
    pub(crate) failed: u32,
    pub(crate) restarts: u32,
}

impl Life {
    pub(crate) fn new(seed: u64) -> Life {
        Life {
            dice: Dice(seed),
            server: Server::new(),
            known: Vec::new(),
            unanswered: Vec::new(),
            news: Vec::new(),
            events: Vec::new(),
            generations: HashMap::new(),
            claimed: BTreeSet::new(),
            cursors: BTreeMap::new(),
            counts: Counts::default(),
            restarts: 1,
        }
    }

    pub(crate) fn now(&self) -> UnixMillis {
        self.server.world.now.get()
    }

    pub(crate) fn step(&mut self) {
        match self.dice.below(100) {
            0..25 => self.publish(),
            25..45 => self.hear(),
            45..57 => self.deliver(),
            57..60 => self.answer(),
            60..68 => self.append_event(),
            68..76 => self.claim(),
            76..90 => self.progress(),
            90..95 => self.wait(),
            95..97 => self.member(),
            97..98 => self.crash(),
            98..99 => self.delete(),
            _ => drop(self.create()),
        }
        self.watch(false);
    }

    pub(crate) fn create(&mut self) -> u16 {
        let id = self.dice.pick(&IDS);
        let (status, _) = self.server.put(id, &settings(id));
        assert!(matches!(status, 200 | 201), "{id}: {status}");
        status
    }

    pub(crate) fn delete(&mut self) {
        let id = self.dice.pick(&IDS);
        self.server.subscriptions.delete(id);
        self.server.obey();
        // Nothing of it may ever work again.
        self.known.iter_mut().filter(|known| known.id == id).for_each(|known| known.over = true);
        self.generations.remove(id);
        self.cursors.retain(|(of, _), _| of != id);
        self.server.deliveries.retain(|delivery| &*delivery.id != id);
        self.server.announcements.retain(|announcement| &*announcement.id != id);
    }

    pub(crate) fn publish(&mut self) {
        let path = self.dice.pick(&PATHS);
        let world = &self.server.world;
        let there = world.extent(path, None).is_some();
        let news = match (there, self.dice.below(12)) {
            (false, 0..6) => {
                world.create(path, self.dice.below(3) as u64);
                News::Created(path)
            }
            (true, 0) => {
                world.delete(path);
                News::Changed(path)
            }
            (true, _) => {
                world.append(path, 1 + self.dice.below(9) as u64);
                News::Changed(path)
            }
            _ => return,
        };
        self.news.push(news);
    }

    /// Some news arrive, in any order, some twice.
    pub(crate) fn hear(&mut self) {
        let Some(news) = self.dice.draw(&mut self.news) else { return };
        let scene = self.server.world.scene();
        match news {
            News::Created(path) => self.server.subscriptions.created(path, scene),
            News::Changed(path) => drop(self.server.subscriptions.changed(path, scene)),
        }
        self.server.obey();
        if self.dice.chance(10) {
            self.news.push(news);
        }
    }

    /// A webhook that is under way arrives, or does not, and its answer arrives, or does not.
    pub(crate) fn deliver(&mut self) {
        let Some(delivery) = self.dice.draw(&mut self.server.deliveries) else { return };
        let wake = world::json(&delivery.body);
        let id = IDS.into_iter().find(|id| **id == *delivery.id).expect("one of ours");
        self.meet(id, &wake);
        let arrives = self.dice.chance(80);
        if arrives {
            let token = wake["callback_token"].as_str().expect("a token").to_owned();
            let until = self.now() + delivery.timeout_ms;
            self.known.push(Known { id, wake, token, until, over: false });
        }
        let outcome = match self.dice.below(4) {
            0 if arrives => Delivered::Done,
            1 if arrives => Delivered::Accepted,
            2 if arrives => return self.unanswered.push(delivery),
            2 => return,
            _ => Delivered::Failed,
        };
        self.counts.failed += u32::from(outcome == Delivered::Failed);
        self.server.delivered(&delivery, outcome);
        self.watch(outcome == Delivered::Done);
    }

    /// A receiver that has taken its time answers.
    pub(crate) fn answer(&mut self) {
        let Some(delivery) = self.dice.draw(&mut self.unanswered) else { return };
        let outcome =
            self.dice.pick(&[Delivered::Done, Delivered::Done, Delivered::Accepted, Delivered::Failed]);
        self.server.delivered(&delivery, outcome);
        self.watch(outcome == Delivered::Done);
    }

    pub(crate) fn append_event(&mut self) {
        let Some(announcement) = self.dice.draw(&mut self.server.announcements) else { return };
        let is_there = self.dice.chance(80);
        if is_there {
            let event = world::json(&announcement.event);
            assert_eq!((&event["type"], &event["subscription_id"]), (&json!("wake"), &json!("pull")));
            self.events.push("pull");
        }
        if is_there || self.dice.chance(50) {
            self.server.announced(&announcement, is_there);
        } else {
            // The process ends before it knows.
            self.server.announcements.push(announcement);
            self.crash();
        }
    }

    pub(crate) fn claim(&mut self) {
        let id = "pull";
        if !self.events.contains(&id) && self.dice.chance(90) {
            return;
        }
        let crashes = self.dice.chance(5);
        let answer = match crashes {
            true => self.server.ask_only(id, "claim", None, &json!({ "worker": "w" })),
            false => self.server.ask(id, "claim", None, &json!({ "worker": "w" })),
        };
        if crashes {
            return self.crash();
        }
        self.events.clear();
        let Ok(wake) = answer else { return };
        self.meet(id, &wake);
        let wake_id = wake["wake_id"].as_str().expect("an id").to_owned();
        assert!(self.claimed.insert(wake_id), "two workers hold one wake");
        let token = wake["token"].as_str().expect("a token").to_owned();
        let until = self.now() + wake["lease_ttl_ms"].as_u64().expect("a lease");
        self.known.push(Known { id, wake, token, until, over: false });
    }

    /// Somebody who has, or had, a wake says how far it is.
    pub(crate) fn progress(&mut self) {
        if self.known.is_empty() {
            return;
        }
        let back = self.dice.below(self.known.len().min(3));
        let at = self.known.len() - 1 - back;
        let Known { id, wake, token, .. } = self.known[at].clone();
        let done = self.dice.chance(40);
        let shown = wake["streams"].as_array().expect("streams").clone();
        let mut acks = Vec::new();
        for stream in &shown {
            let path = stream["path"].as_str().expect("a path");
            let offset = match self.dice.below(10) {
                0..4 => continue,
                4..8 => stream["tail_offset"].as_str().expect("an offset").to_owned(),
                _ => self.server.world.tail(path),
            };
            acks.push(json!({ "stream": path, "offset": offset }));
        }
        // Nor must the name of another one.
        let wake_id = match self.dice.chance(10) {
            true => &self.known[self.dice.below(self.known.len())].wake["wake_id"],
            false => &wake["wake_id"],
        };
        let body =
            json!({ "wake_id": wake_id, "generation": wake["generation"], "acks": acks, "done": done });
        let verb = match (id, self.dice.chance(10)) {
            ("pull", true) => "release",
            ("pull", false) => "ack",
            _ => "callback",
        };
        // A token of another wake must not help.
        let token = match self.dice.chance(10) {
            true => self.known[self.dice.below(self.known.len())].token.clone(),
            false => token,
        };
        let is_its_own = token == self.known[at].token;
        let before = self.all_cursors();
        if self.dice.chance(3) {
            // Nobody hears the answer, and it may have been taken up or not.
            let _ = self.server.ask_only(id, verb, Some(&token), &body);
            self.crash();
            self.known[at].until = self.now() + settings(id)["lease_ttl_ms"].as_u64().expect("a lease");
            return self.watch(true);
        }
        let answer = self.server.ask(id, verb, Some(&token), &body);
        self.judge(at, verb, &body, &answer, is_its_own, before);
    }

    pub(crate) fn wait(&mut self) {
        let ms = match (self.dice.below(4), self.server.subscriptions.next_due()) {
            (0, Some(due)) => (due - self.now()).saturating_sub(1),
            (1 | 2, Some(due)) => due - self.now(),
            _ => self.dice.below(3000) as u64,
        };
        self.counts.expired += u32::from(ms > 0);
        match self.dice.chance(50) {
            true => self.server.pass(ms),
            // Nobody looks at the clock until something else happens.
            false => self.server.world.pass(ms),
        }
    }

    pub(crate) fn member(&mut self) {
        let (id, path) = (self.dice.pick(&IDS), self.dice.pick(&PATHS[..4]));
        if self.dice.chance(50) {
            let _ = self.server.ask(id, "streams", None, &json!({ "streams": [path] }));
        } else {
            let _ = self.server.subscriptions.remove_stream(id, path, self.server.world.scene());
            self.server.obey();
        }
    }

    /// The process ends: of what it has asked for, some has been done, and nobody had an answer for the rest.
    pub(crate) fn crash(&mut self) {
        let actions = self.server.subscriptions.take_actions();
        let kept = self.dice.below(actions.len() + 1);
        for action in actions.into_iter().take(kept) {
            self.server.obey_one(action);
        }
        self.restarts = self.restarts.wrapping_add(1);
        self.counts.restarts += 1;
        self.news.clear();
        self.unanswered.clear();
        // What was sent may still arrive.
        for delivery in std::mem::take(&mut self.server.deliveries) {
            let id = IDS.into_iter().find(|id| **id == *delivery.id).expect("one of ours");
            self.meet(id, &world::json(&delivery.body));
        }
        self.server.restart(self.restarts);
    }
}
