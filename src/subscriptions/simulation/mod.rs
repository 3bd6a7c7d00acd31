//! Subscriptions, workers, receivers and publishers, each doing what comes to its mind in any order, thousands of times, each
//! told again by its seed: requests that come late or twice, news that are late, doubled or lost with the process, records that
//! were not kept before a crash, clocks that jump to the very moment of a lease's end.
//!
//! What it holds to is in the room's header: see `watch` for what must never happen, and `rest` for what must.

pub(crate) mod life;
pub(crate) mod rules;

use serde_json::{Value, json};

use self::life::{Counts, Life};

/// Lives that are lived by `cargo test`; `SEDGE_SUBSCRIPTION_SEEDS` for more.
const SEEDS: u64 = 150;
const STEPS: u64 = 120;

const IDS: [&str; 3] = ["hook", "pull", "both"];
const PATHS: [&str; 5] = ["events/a", "events/b", "events/c", "manual/a", "wake/pool"];

/// SplitMix64: the same seed, the same story.
pub(crate) struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.roll() % bound as u64) as usize
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// Takes one out, wherever it is.
    fn draw<T>(&mut self, from: &mut Vec<T>) -> Option<T> {
        (!from.is_empty()).then(|| from.swap_remove(self.below(from.len())))
    }
}

fn settings(id: &str) -> Value {
    match id {
        "hook" => {
            json!({ "type": "webhook", "pattern": "events/*", "webhook": { "url": "http://localhost/" }, "lease_ttl_ms": 1500 })
        }
        "pull" => {
            json!({ "type": "pull-wake", "pattern": "**", "wake_stream": "wake/pool", "lease_ttl_ms": 1000 })
        }
        _ => json!({
            "type": "webhook", "pattern": "events/a", "streams": ["events/b", "manual/a"],
            "webhook": { "url": "http://localhost/" }, "lease_ttl_ms": 1000
        }),
    }
}

#[test]
fn whatever_the_order_work_is_done_and_only_by_those_who_hold_it() {
    let seeds = std::env::var("SEDGE_SUBSCRIPTION_SEEDS").ok().and_then(|text| text.parse().ok());
    let mut total = Counts::default();
    for seed in 0..seeds.unwrap_or(SEEDS) {
        let result = std::panic::catch_unwind(|| {
            let mut life = Life::new(seed);
            for id in IDS {
                life.server.put(id, &settings(id));
            }
            (0..STEPS).for_each(|_| life.step());
            life.rest();
            let subscriptions = &mut life.server.subscriptions;
            assert_eq!(subscriptions.held(), subscriptions.held_by_each());
            for id in IDS {
                subscriptions.delete(id);
            }
            assert_eq!(subscriptions.held(), 0);
            life.counts
        });
        let counts = result.unwrap_or_else(|_| panic!("seed {seed}"));
        total.done += counts.done;
        total.fenced += counts.fenced;
        total.expired += counts.expired;
        total.failed += counts.failed;
        total.restarts += counts.restarts;
    }
    // A simulation in which nothing ever happens would hold as well.
    if seeds.is_none() {
        let least = total.done.min(total.fenced).min(total.expired).min(total.failed).min(total.restarts);
        assert!(least > 50, "{total:?}");
    }
}
