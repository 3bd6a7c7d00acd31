//! Carrying out what subscriptions ask for, and telling them when it is time. One task for all cores.

use std::rc::Rc;
use std::sync::{Arc, PoisonError};

use super::{Desk, Order, Task, shared, webhook};
use crate::relay::context::Core;
use crate::runtime::catch_panic::caught;
use crate::runtime::clock::{Millis, unix_millis};
use crate::streams::{Append, Found, Hub};
use crate::subscriptions::{Announcement, Delivered, Scene, Subscriptions};

/// Subscriptions that are advanced before others on the core have their turn.
const SUBSCRIPTIONS_AT_ONCE: usize = 64;

/// The clock is looked at after this long at the latest.
pub(crate) const REST_MS_MAX: Millis = 1000;

/// Carries out orders until the process goes down.
pub(crate) async fn run(core: Rc<Core>) {
    let (desk, hub) = (Arc::clone(&core.shared.desk), Rc::clone(&core.hub));
    if let Some(remote) = desk.streams.remote().cloned() {
        return shared::run(core, desk, remote).await;
    }
    while !core.shared.is_draining() {
        // Whatever calls it again at once, everything else on this core has its turn in between.
        tokio::task::yield_now().await;
        let now = core.shard.clock.millis();
        let advance = |subscriptions: &mut Subscriptions, scene: Scene<'_>| {
            subscriptions.advance(scene, SUBSCRIPTIONS_AT_ONCE)
        };
        let is_more_due = desk.judge(now, None, advance).0.answer;
        desk.tell_lost(now);
        while let Ok(slot) = Arc::clone(&desk.slots).try_acquire_owned() {
            let Some(order) = desk.next() else { break };
            let (core, desk, hub) = (Rc::clone(&core), Arc::clone(&desk), Rc::clone(&hub));
            tokio::task::spawn_local(async move {
                carry_out(&core, &desk, &hub, order).await;
                drop(slot);
            });
        }
        if is_more_due {
            continue;
        }
        let rest = desk.rest(now);
        tokio::select! {
            () = desk.bell.notified() => {}
            () = desk.streams.news().arrived() => {}
            () = core.shard.pause(rest) => {}
            _slot = desk.slots.acquire(), if desk.slots.available_permits() == 0 => {}
        }
    }
}

impl Desk {
    /// What was never asked for has failed, and comes again in its time.
    fn tell_lost(&self, now: Millis) {
        let lost = std::mem::take(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner).lost);
        for task in lost {
            self.judge(now, None, |subscriptions, scene| match task {
                Task::Deliver(it) => subscriptions.delivered(&it.id, &it.wake_id, Delivered::Failed, scene),
                Task::Announce(it) => subscriptions.announced(&it.id, &it.wake_id, false, scene),
            });
        }
    }

    /// The next order, if there is one.
    fn next(&self) -> Option<Order> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).orders.pop_front()
    }

    /// How long nothing happens by itself.
    fn rest(&self, now: Millis) -> Millis {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let due =
            inner.subscriptions.next_due().map_or(Millis::MAX, |due| due.saturating_sub(self.unix(now)));
        due.clamp(1, REST_MS_MAX)
    }
}

async fn carry_out(core: &Rc<Core>, desk: &Desk, hub: &Rc<Hub>, order: Order) {
    // The disk has failed: a restart tells it again.
    if hub.stored(order.after).await.is_err() {
        return;
    }
    let Order { task, holding: _holding, .. } = order;
    match task {
        Task::Deliver(delivery) => {
            let unix = desk.unix(core.shard.clock.millis());
            let sent = Box::pin(caught(webhook::send(core, &desk.keys.signer, unix, &delivery)));
            let outcome = tokio::select! {
                outcome = sent => outcome.unwrap_or(Delivered::Failed),
                () = core.shard.pause(delivery.timeout_ms) => Delivered::Failed,
            };
            desk.webhooks.count(outcome);
            desk.ask(core.shard.clock.millis(), |subscriptions, scene| {
                subscriptions.delivered(&delivery.id, &delivery.wake_id, outcome, scene);
            });
        }
        Task::Announce(announcement) => {
            let is_there = announce(desk, hub, &announcement).await;
            desk.ask(core.shard.clock.millis(), |subscriptions, scene| {
                subscriptions.announced(&announcement.id, &announcement.wake_id, is_there, scene);
            });
        }
    }
}

/// Appends the event of a wake.
async fn announce(desk: &Desk, hub: &Rc<Hub>, announcement: &Announcement) -> bool {
    let now = unix_millis();
    let Found::Present(stream) = desk.streams.find(&announcement.stream, now) else { return false };
    // One that belongs to another key is not to be written to.
    if !stream.is_open_to(announcement.key.as_deref()) {
        return false;
    }
    let Some((bytes, ends)) = announcement.messages(&stream.kind) else { return false };
    let append = Append { bytes, ends, content_type: Some(stream.kind.as_str()), ..Append::default() };
    let outcome = hub.append(&stream, &append, now);
    hub.stored(outcome.ticket).await.is_ok() && outcome.result.is_ok()
}
