//! The line that moves while a step runs: on a terminal alone, and gone when the step is over.

use std::io::{IsTerminal, Write};
use std::sync::Arc;

use super::worker::{Live, Window};
use crate::runtime::clock::Micros;

/// Back to the line's start, and away with what stands there.
const CLEAR: &str = "\r\x1b[2K";

/// The line of one step.
pub(crate) struct Progress {
    load: u32,
    unit: &'static str,
    window: Window,
    shown: bool,
    drawn: bool,
}

impl Progress {
    pub(crate) fn new(load: u32, unit: &'static str, window: Window) -> Progress {
        Progress { load, unit, window, shown: std::io::stderr().is_terminal(), drawn: false }
    }

    pub(crate) fn draw(&mut self, now: Micros, live: &[Arc<Live>]) {
        if self.shown {
            self.drawn = true;
            let _ = write!(std::io::stderr(), "{CLEAR}{}", self.line(now, live));
        }
    }

    pub(crate) fn clear(&mut self) {
        if std::mem::take(&mut self.drawn) {
            let _ = write!(std::io::stderr(), "{CLEAR}");
        }
    }

    fn line(&self, now: Micros, live: &[Arc<Live>]) -> String {
        let [completed, failed, events] = live
            .iter()
            .map(|live| live.read())
            .fold([0; 3], |sum, next| std::array::from_fn(|i| sum[i] + next[i]));
        let seconds = |until: Micros| until.saturating_sub(now).div_ceil(1_000_000);
        let phase = match now {
            _ if now < self.window.from => format!("warming up, {} s to go", seconds(self.window.from)),
            _ if now < self.window.until => format!("{} s to go", seconds(self.window.until)),
            _ => "waiting for the last answers".to_owned(),
        };
        let Progress { load, unit, .. } = self;
        format!("{load} {unit}: {phase}; {completed} complete, {failed} failed, {events} events")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_tells_the_phase_and_the_sums() {
        let progress = Progress::new(50, "users", Window { from: 2_000_000, until: 12_000_000 });
        let live = [Arc::new(Live::default()), Arc::new(Live::default())];
        live.iter().for_each(|live| live.add_events(4));
        let line = |now| progress.line(now, &live);
        assert_eq!(line(0), "50 users: warming up, 2 s to go; 0 complete, 0 failed, 8 events");
        assert!(line(2_000_001).contains(": 10 s to go;"));
        assert!(line(12_000_000).contains(": waiting for the last answers;"));
    }
}
