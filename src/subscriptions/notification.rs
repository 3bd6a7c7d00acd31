//! Telling somebody of a wake: when there is one to tell, how, and what came of it.

use std::sync::Arc;

use super::action::{Action, Announcement, Delivered, Delivery};
use super::links::Seen;
use super::phase::{Phase, Wake};
use super::settings::Kind;
use super::subscription::{Subscription, Turn};
use super::{backoff, view};

impl Subscription {
    /// What came of a webhook.
    pub(crate) fn delivered(&mut self, wake_id: &str, outcome: Delivered, turn: &mut Turn<'_>) {
        let Phase::Delivering { wake, .. } = &self.phase else { return };
        if wake.id != wake_id {
            return;
        }
        let Phase::Delivering { wake, until, called_back, tails } = std::mem::take(&mut self.phase) else {
            return;
        };
        match outcome {
            Delivered::Done => {
                for (path, cursor) in tails {
                    self.links.advance(&path, cursor);
                }
                self.failures = 0;
                self.enter(Phase::Idle);
            }
            Delivered::Failed if !called_back => self.fail(Some(wake), turn),
            Delivered::Accepted | Delivered::Failed => {
                self.failures = 0;
                self.enter(Phase::Held { wake, holder: String::new(), until });
            }
        }
        self.settle(turn);
    }

    /// Whether the event of a wake is in the wake stream.
    pub(crate) fn announced(&mut self, wake_id: &str, is_there: bool, turn: &mut Turn<'_>) {
        let Phase::Offered { wake, announced: false } = &self.phase else { return };
        if wake.id != wake_id {
            return;
        }
        let wake = wake.clone();
        if is_there {
            self.failures = 0;
            self.enter(Phase::Offered { wake, announced: true });
        } else {
            self.fail(Some(wake), turn);
        }
    }

    /// After anything that may have made work or ended it: nobody is woken for nothing, and work wakes somebody.
    pub(crate) fn settle(&mut self, turn: &mut Turn<'_>) {
        match (&self.phase, self.links.has_pending()) {
            (Phase::Idle, true) => {
                self.generation += 1;
                let id = format!("w_{}", turn.ids.name());
                self.tell(Wake { id, generation: self.generation }, turn);
            }
            (Phase::Offered { .. } | Phase::Waiting { .. }, false) => self.enter(Phase::Idle),
            _ => {}
        }
    }

    /// Tells somebody of a wake.
    pub(crate) fn tell(&mut self, wake: Wake, turn: &mut Turn<'_>) {
        match self.settings.kind {
            Kind::Webhook => self.deliver(wake, turn),
            Kind::PullWake => self.announce(wake, turn),
        }
    }

    fn deliver(&mut self, wake: Wake, turn: &mut Turn<'_>) {
        let seen = self.links.show();
        let token = turn.tokens.mint(&self.id, self.life, wake.generation, turn.now);
        let timeout_ms = self.settings.lease_ttl_ms;
        turn.actions.push(Action::Deliver(Delivery {
            id: Arc::clone(&self.id),
            wake_id: wake.id.clone(),
            url: self.settings.webhook.clone().unwrap_or_default(),
            body: view::wake(self, &wake, &token, &seen),
            timeout_ms,
        }));
        let tails = seen.iter().filter_map(Seen::tail).collect();
        self.enter(Phase::Delivering { wake, until: turn.now + timeout_ms, called_back: false, tails });
    }

    fn announce(&mut self, wake: Wake, turn: &mut Turn<'_>) {
        let stream = self.links.first_pending().map_or("", |path| &**path);
        turn.actions.push(Action::Announce(Announcement {
            id: Arc::clone(&self.id),
            wake_id: wake.id.clone(),
            stream: self.settings.wake_stream.clone().unwrap_or_default(),
            key: self.key.clone(),
            event: view::event(&self.id, stream, wake.generation, turn.now),
        }));
        self.enter(Phase::Offered { wake, announced: false });
    }

    pub(crate) fn fail(&mut self, wake: Option<Wake>, turn: &mut Turn<'_>) {
        self.failures = self.failures.saturating_add(1);
        let until = turn.now + backoff::delay(self.failures, turn.ids.next_u64());
        self.enter(Phase::Waiting { wake, until });
    }
}
