//! Active probes: upstreams that say so are asked how they are, though nobody else asks them. One core does it for all.
//!
//! A probe that fails counts as a connection that failed: so many in a row open the breaker, and users need not find out. While
//! the breaker cools down nobody asks; then probes take the places of those who would have had to try. What a probe's answer takes
//! says nothing about how long a model's takes, so it is not learnt from. Each has a connection of its own: that one comes about is
//! half of what is asked.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::client::Asking;
use super::dial::{Tried, dial};
use super::target::Target;
use crate::relay::context::Core;
use crate::runtime::catch_panic::caught;
use crate::runtime::clock::Millis;

/// How long it is not looked at most who is to be asked: a reload may have brought somebody.
const REST_MS_MAX: Millis = 1000;

/// Asks whenever the time has come, until the process goes down.
pub(crate) async fn run(core: Rc<Core>) {
    // By identity: a reload does not begin anew.
    let mut due: FxHashMap<u64, Millis> = FxHashMap::default();
    while !core.shared.is_draining() {
        let settings = core.settings();
        let now = core.shard.clock.millis();
        due.retain(|identity, _| settings.targets.iter().any(|target| target.identity == *identity));
        for target in &settings.targets {
            let Some(probe) = &target.probe else { continue };
            let at = due.entry(target.identity).or_insert(now);
            if *at <= now {
                *at = now + probe.interval.as_millis() as Millis;
                tokio::task::spawn_local(ask(Rc::clone(&core), Arc::clone(target)));
            }
        }
        drop(settings);
        let next = due.values().min().map_or(REST_MS_MAX, |at| at.saturating_sub(now));
        core.shard.pause(next.min(REST_MS_MAX)).await;
    }
}

async fn ask(core: Rc<Core>, target: Arc<Target>) {
    let Some(permit) = target.may_probe(core.shard.clock.millis()) else { return };
    let limit = target.probe.as_ref().map_or(0, |probe| probe.timeout.as_millis() as Millis);
    let good = tokio::select! {
        // A permit that is not given back keeps its upstream ejected for good.
        good = caught(is_well(&core, &target)) => good.unwrap_or(false),
        () = core.shard.pause(limit) => false,
    };
    target.probed(permit, good, core.shard.clock.micros(), core.chance());
}

/// Whether it answers with a 2xx.
async fn is_well(core: &Core, target: &Target) -> bool {
    let tried = Tried::default();
    let Ok(dialed) = dial(target, None, core.dialer(&tried), |_| {}).await else { return false };
    let request = target.probe_head();
    let mut asking = Asking::new(dialed.stream, &request, 0);
    let answered = poll_fn(|cx| asking.poll_alone(cx, core, false)).await;
    answered.is_ok_and(|answered| (200..300).contains(&answered.status()))
}
