//! Which address of a name is connected to, and when: Happy Eyeballs (RFC 8305, section 5) as a state machine. No socket, no
//! clock: addresses and times in, moves out.
//!
//! ```text
//!             ┌────────── one has failed ◄─────────┐
//!             ▼                                    │
//! start the next address ──► wait 250 ms ──► start the next, beside it ... ──► the first to connect wins
//! ```
//!
//! An address that is silent costs 250 ms, and one that refuses costs nothing.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::runtime::clock::Millis;

/// Time between the start of one attempt and that of the next beside it (RFC 8305, 8: "Connection Attempt Delay").
pub(crate) const ATTEMPT_DELAY_MS: Millis = 250;

/// Addresses that compete for one connection.
#[derive(Debug)]
pub(crate) struct Race {
    waiting: VecDeque<SocketAddr>,
    in_flight: usize,
    next_at: Millis,
}

/// The next thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Move {
    /// Start an attempt at this address.
    Start(SocketAddr),
    /// Wait until an attempt ends, or until this time.
    Wait(Option<Millis>),
    /// No attempt is left, and none has succeeded.
    Lost,
}

impl Race {
    /// Between `addresses`, in this order.
    pub(crate) fn new(addresses: impl IntoIterator<Item = SocketAddr>) -> Race {
        Race { waiting: addresses.into_iter().collect(), in_flight: 0, next_at: 0 }
    }

    /// What to do at `now`. To be asked until it says to wait.
    pub(crate) fn step(&mut self, now: Millis) -> Move {
        if (self.in_flight == 0 || now >= self.next_at)
            && let Some(address) = self.waiting.pop_front()
        {
            self.in_flight += 1;
            self.next_at = now + ATTEMPT_DELAY_MS;
            return Move::Start(address);
        }
        match (self.in_flight, self.waiting.is_empty()) {
            (0, _) => Move::Lost,
            (_, true) => Move::Wait(None),
            (_, false) => Move::Wait(Some(self.next_at)),
        }
    }

    /// Whether an attempt can be started at `now`, or none is left to be waited for.
    pub(crate) fn step_is_due(&self, now: Millis) -> bool {
        self.in_flight == 0 || (now >= self.next_at && !self.waiting.is_empty())
    }

    /// An attempt has failed at `now`: the next begins at once.
    pub(crate) fn failed(&mut self, now: Millis) {
        self.in_flight -= 1;
        self.next_at = now;
    }

    /// Addresses that have not been tried.
    pub(crate) fn untried(&self) -> impl Iterator<Item = SocketAddr> {
        self.waiting.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What an address does to an attempt.
    #[derive(Clone, Copy, Debug)]
    enum Answer {
        Accepts(Millis),
        Refuses(Millis),
        Silent,
    }
    use Answer::{Accepts, Refuses, Silent};

    fn address(number: usize) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], number as u16))
    }

    /// A number of an address, and a time.
    type At = (usize, Millis);

    /// Which address wins and when, in a world where time passes in milliseconds; and when each attempt began.
    fn race(answers: &[Answer], limit: Millis) -> (Option<At>, Vec<At>) {
        let mut race = Race::new((0..answers.len()).map(address));
        let (mut began, mut in_flight) = (Vec::new(), Vec::new());
        for now in 0..limit {
            loop {
                in_flight.retain(|&(number, since): &(usize, Millis)| {
                    let over = matches!(answers[number], Refuses(after) if since + after <= now);
                    if over {
                        race.failed(now);
                    }
                    !over
                });
                match race.step(now) {
                    Move::Start(at) => {
                        began.push((usize::from(at.port()), now));
                        in_flight.push((usize::from(at.port()), now));
                    }
                    Move::Wait(_) => break,
                    Move::Lost => return (None, began),
                }
            }
            let won = |&&(number, since): &&(usize, Millis)| matches!(answers[number], Accepts(after) if since + after <= now);
            if let Some(&(number, _)) = in_flight.iter().find(won) {
                return (Some((number, now)), began);
            }
        }
        (None, began)
    }

    #[test]
    fn a_silent_address_costs_a_quarter_of_a_second_and_one_that_refuses_nothing() {
        assert_eq!(race(&[Accepts(3), Accepts(0)], 1000), (Some((0, 3)), vec![(0, 0)]));
        assert_eq!(race(&[Silent, Accepts(1)], 1000), (Some((1, 251)), vec![(0, 0), (1, 250)]));
        assert_eq!(race(&[Refuses(0), Refuses(0), Accepts(0)], 1000).0, Some((2, 0)));
        assert_eq!(race(&[Silent, Refuses(10), Accepts(0)], 1000).0, Some((2, 260)));
        // One that is slow goes on meanwhile.
        assert_eq!(race(&[Accepts(300), Accepts(100)], 1000).0, Some((0, 300)));
        assert_eq!(race(&[Refuses(5), Refuses(0)], 1000).0, None);
        assert_eq!(race(&[], 10), (None, vec![]));
    }

    fn answer() -> impl Strategy<Value = Answer> {
        prop_oneof![(0_u64..600).prop_map(Accepts), (0_u64..600).prop_map(Refuses), Just(Silent)]
    }

    proptest! {
        #[test]
        fn whoever_accepts_is_found(answers in proptest::collection::vec(answer(), 0..12)) {
            let (won, began) = race(&answers, 10_000);
            // Each is tried once at most, in order.
            prop_assert!(began.iter().map(|(number, _)| *number).eq(0..began.len()));
            // Beside one that is in flight none begins earlier than after the delay, unless one has failed meanwhile.
            for pair in began.windows(2) {
                let failed = began.iter().any(|&(number, since)| {
                    matches!(answers[number], Refuses(after) if since + after == pair[1].1)
                });
                prop_assert!(failed || pair[1].1 - pair[0].1 == ATTEMPT_DELAY_MS);
            }
            // No later than if each of those before it had been silent.
            let bound = |(number, answer): (usize, &Answer)| match answer {
                Accepts(after) => Some(number as u64 * ATTEMPT_DELAY_MS + after),
                _ => None,
            };
            let latest = answers.iter().enumerate().filter_map(bound).min();
            prop_assert_eq!(won.is_some(), latest.is_some());
            if let (Some((_, at)), Some(latest)) = (won, latest) {
                prop_assert!(at <= latest, "{at} > {latest}");
            }
        }
    }
}
