//! The same where subscriptions are in Redis: this node's share of the work. What is due is taken by whichever node is there
//! first, and what a node has written down it carries out.

use std::rc::Rc;
use std::sync::Arc;

use super::task::REST_MS_MAX;
use super::{Desk, webhook};
use crate::relay::context::Core;
use crate::runtime::catch_panic::caught;
use crate::runtime::clock::Millis;
use crate::streams::store::redis::Remote;
use crate::subscriptions::{Delivered, Errand};

/// Subscriptions that are looked at in one go.
const LOOKS_MAX: usize = 32;

/// What the receiver of a webhook has said is told again after this long, in milliseconds, while Redis is away.
const AGAIN_MS: Millis = 250;

/// Looks after subscriptions. While the process drains it takes nothing up any more, but what those who still ask have written
/// down is carried out.
pub(crate) async fn run(core: Rc<Core>, desk: Arc<Desk>, remote: Arc<Remote>) {
    loop {
        tokio::task::yield_now().await;
        // What this node has no room for another one may take.
        let room = desk.slots.available_permits().min(LOOKS_MAX);
        let wait = remote.look_at_due(if core.shared.is_draining() { 0 } else { room }).await;
        while let Ok(slot) = Arc::clone(&desk.slots).try_acquire_owned() {
            let Some((errand, holding)) = remote.next_errand() else { break };
            let (core, desk, remote) = (Rc::clone(&core), Arc::clone(&desk), Arc::clone(&remote));
            tokio::task::spawn_local(async move {
                carry_out(&core, &desk, &remote, errand).await;
                drop((slot, holding));
            });
        }
        let rest = match wait {
            Ok(Some(wait)) if room > 0 && !core.shared.is_draining() => wait.clamp(1, REST_MS_MAX),
            _ => REST_MS_MAX,
        };
        tokio::select! {
            () = remote.called() => {}
            () = core.shard.pause(rest) => {}
            _slot = desk.slots.acquire(), if desk.slots.available_permits() == 0 => {}
        }
    }
}

async fn carry_out(core: &Rc<Core>, desk: &Desk, remote: &Arc<Remote>, errand: Errand) {
    let delivery = &errand.delivery;
    let began = core.shard.clock.millis();
    let outcome = match remote.keys().await {
        Err(_) => Delivered::Failed,
        Ok(keys) => {
            let sent = Box::pin(caught(webhook::send(core, &keys.signer, desk.unix(began), delivery)));
            tokio::select! {
                outcome = sent => outcome.unwrap_or(Delivered::Failed),
                () = core.shard.pause(delivery.timeout_ms) => Delivered::Failed,
            }
        }
    };
    desk.webhooks.count(outcome);
    // When its lease has ended it is somebody else's.
    let until = began + delivery.timeout_ms;
    while remote.delivered(errand.clone(), outcome).await.is_err() && core.shard.clock.millis() < until {
        core.shard.pause(AGAIN_MS).await;
    }
}
