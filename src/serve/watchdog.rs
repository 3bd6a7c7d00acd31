//! The watchdog: a thread that looks whether the cores still run ([`crate::telemetry::turns`]), and says so when one does not.

use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::runtime::clock::Clock;
use crate::telemetry::Registry;
use crate::telemetry::turns::{Finding, LOOK_MS, STUCK_MS, Watch};
use crate::tell;

/// Watches the cores for as long as anyone counts in `registry`.
pub(crate) fn start(registry: &Arc<Registry>) -> io::Result<()> {
    let registry = Arc::downgrade(registry);
    std::thread::Builder::new().name("sedge-watchdog".into()).spawn(move || watch(&registry)).map(drop)
}

#[expect(clippy::disallowed_methods, reason = "a thread of its own that has nothing else to do")]
fn watch(registry: &Weak<Registry>) {
    let (mut watch, clock) = (Watch::default(), Clock::default());
    while let Some(registry) = registry.upgrade() {
        let turns = &registry.turns;
        for finding in watch.look(turns, clock.micros() / 1000) {
            match finding {
                Finding::Stuck(core, _) => tell!(
                    "sedge: core {} has not run for {} s: its connections are not served, and /livez says 503 until it runs again",
                    turns.name(core),
                    STUCK_MS / 1000
                ),
                Finding::Back(core, ms) => {
                    tell!("sedge: core {} runs again after {} s", turns.name(core), ms / 1000);
                }
            }
        }
        drop(registry);
        std::thread::sleep(Duration::from_millis(LOOK_MS));
    }
}
