//! An upstream's breaker: when it is left alone, and for how long.

use std::time::Duration;

use super::document::{Table, Value};
use super::units::duration;

/// The longest window: what is counted is kept by the second, for a minute.
const WINDOW_MAX: Duration = Duration::from_secs(60);

/// The most calls, failures or probes that can be asked for.
const COUNT_MAX: u64 = 10_000;

/// When an upstream is taken out of the rotation, and when it is tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// It opens when so many percent of the window's calls have failed; 0 is never.
    pub error_percent: u32,
    /// An answer that begins later than this is slow; 0 is none.
    pub slow: Duration,
    /// It opens when so many percent of the window's calls were slow.
    pub slow_percent: u32,
    /// How far back is looked, in whole seconds.
    pub window: Duration,
    /// Fewer calls than this in the window say nothing.
    pub min_calls: u32,
    /// It opens when so many connections in a row have failed; 0 is never.
    pub connect_failures: u32,
    /// How long it stays open the first time; each next time is twice as long.
    pub cool_down: Duration,
    /// The longest of these times.
    pub max_cool_down: Duration,
    /// How many calls are let through after it, and have to succeed.
    pub probes: u32,
}

impl Default for Breaker {
    fn default() -> Breaker {
        Breaker {
            error_percent: 50,
            slow: Duration::ZERO,
            slow_percent: 50,
            window: Duration::from_secs(30),
            min_calls: 10,
            connect_failures: 3,
            cool_down: Duration::from_secs(1),
            max_cool_down: Duration::from_secs(60),
            probes: 3,
        }
    }
}

/// What an upstream says of its breaker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Breaking {
    /// It is asked whatever it has answered.
    Off,
    /// Nothing: it has one, which holds where a route has somewhere else to go.
    #[default]
    Passing,
    /// It has this one, which holds everywhere.
    Strict(Breaker),
}

impl Breaking {
    /// From `breaker`, a table or a word for all of it.
    pub(crate) fn read(value: &Value<'_>) -> Result<Breaking, String> {
        if !value.is_table() {
            return Ok(match value.boolean().map_err(|_| "must be a table, true or false".to_owned())? {
                true => Breaking::Strict(Breaker::default()),
                false => Breaking::Off,
            });
        }
        let table = value.table("[[upstream]] breaker.")?;
        Ok(Breaking::Strict(Breaker::read(&table)))
    }
}

impl Breaker {
    fn read(table: &Table<'_>) -> Breaker {
        let mut breaker = Breaker::default();
        let percent = |least| move |value: &Value<'_>| Ok(value.integer(least..=100)? as u32);
        let count = |least| move |value: &Value<'_>| Ok(value.integer(least..=COUNT_MAX)? as u32);
        table.set("error_percent", percent(0), &mut breaker.error_percent);
        table.set("slow", duration, &mut breaker.slow);
        table.set("slow_percent", percent(1), &mut breaker.slow_percent);
        table.set("window", window, &mut breaker.window);
        table.set("min_calls", count(1), &mut breaker.min_calls);
        table.set("connect_failures", count(0), &mut breaker.connect_failures);
        table.set("cool_down", some_time, &mut breaker.cool_down);
        table.set("max_cool_down", some_time, &mut breaker.max_cool_down);
        table.set("probes", count(1), &mut breaker.probes);
        if breaker.cool_down > breaker.max_cool_down && table.is_sound() {
            table.fault("cool_down", "is longer than max_cool_down; raise that one, too");
        }
        table.finish(|_| None);
        breaker
    }
}

fn window(value: &Value<'_>) -> Result<Duration, String> {
    let window = duration(value)?;
    match window.subsec_millis() {
        0 if !window.is_zero() && window <= WINDOW_MAX => Ok(window),
        _ => Err(format!("must be a number of whole seconds, from \"1s\" to \"{}s\"", WINDOW_MAX.as_secs())),
    }
}

fn some_time(value: &Value<'_>) -> Result<Duration, String> {
    match duration(value)? {
        Duration::ZERO => Err("is no time; breaker = false leaves the upstream without one".to_owned()),
        time => Ok(time),
    }
}
