//! Appends that may be sent twice: what a stream knows of its producers (PROTOCOL.md, section 5.2.1).
//!
//! ```text
//!  unknown ──seq 0──► epoch e, last seq n ──seq n+1──► n+1
//!                     │ seq <= n: a duplicate          │ seq > n+1: a gap
//!                     │ epoch < e: fenced off          │ epoch > e and seq 0: a new session
//! ```
//!
//! Judging and recording are two steps, for an append can still be refused between them (closed, full, not stored): state
//! changes only with the append that it belongs to. Both happen under the lock of one stream.

use std::collections::HashMap;

/// The greatest epoch and sequence number: what a JavaScript number holds exactly.
pub(crate) const NUMBER_MAX: u64 = (1 << 53) - 1;

/// What a producer costs beside its name, in bytes of memory.
const PRODUCER_OVERHEAD_BYTES: u64 = 96;

/// What a producer says with an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim<'a> {
    /// Its name, never empty.
    pub(crate) id: &'a str,
    /// Its session.
    pub(crate) epoch: u64,
    /// The number of the append in that session, from 0.
    pub(crate) seq: u64,
}

/// What becomes of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is new: append, then record it.
    Accept,
    /// It was appended before; this is the last number that was.
    Duplicate {
        /// The highest number accepted in this session.
        last: u64,
    },
    /// A newer session has taken over.
    Fenced {
        /// That session.
        epoch: u64,
    },
    /// Something before it is missing.
    Gap {
        /// The number that comes next.
        expected: u64,
    },
    /// A new session does not begin with 0.
    BadStart,
    /// The stream knows as many producers as it may.
    TooMany,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Session {
    epoch: u64,
    last: u64,
}

/// The producers of one stream.
#[derive(Debug, Default)]
pub(crate) struct Producers {
    sessions: HashMap<Box<str>, Session>,
    /// Bytes of their names.
    names: u64,
}

impl Producers {
    /// Judges a claim; nothing changes. `max` bounds how many producers are known at once.
    pub(crate) fn judge(&self, claim: Claim<'_>, max: usize) -> Verdict {
        let Some(session) = self.sessions.get(claim.id) else {
            return match claim.seq {
                0 if self.sessions.len() < max => Verdict::Accept,
                0 => Verdict::TooMany,
                _ => Verdict::Gap { expected: 0 },
            };
        };
        if claim.epoch < session.epoch {
            return Verdict::Fenced { epoch: session.epoch };
        }
        if claim.epoch > session.epoch {
            return if claim.seq == 0 { Verdict::Accept } else { Verdict::BadStart };
        }
        let expected = session.last + 1;
        match claim.seq {
            seq if seq < expected => Verdict::Duplicate { last: session.last },
            seq if seq == expected => Verdict::Accept,
            _ => Verdict::Gap { expected },
        }
    }

    /// Records a claim that was accepted and whose append has happened.
    pub(crate) fn record(&mut self, claim: Claim<'_>) {
        debug_assert_eq!(self.judge(claim, usize::MAX), Verdict::Accept);
        let session = Session { epoch: claim.epoch, last: claim.seq };
        match self.sessions.get_mut(claim.id) {
            Some(known) => *known = session,
            None => {
                self.names += claim.id.len() as u64;
                self.sessions.insert(claim.id.into(), session);
            }
        }
    }

    /// What they take of memory, in bytes.
    pub(crate) fn held(&self) -> u64 {
        self.names + self.sessions.len() as u64 * PRODUCER_OVERHEAD_BYTES
    }

    /// Takes up what is known of an earlier run: what came last counts.
    pub(crate) fn restore(&mut self, claim: Claim<'_>) {
        let session = Session { epoch: claim.epoch, last: claim.seq };
        let known = self.sessions.entry(claim.id.into()).or_insert_with(|| {
            self.names += claim.id.len() as u64;
            session
        });
        if (known.epoch, known.last) < (session.epoch, session.last) {
            *known = session;
        }
    }

    /// Every producer: its name, its session, and the last number that was appended in it.
    pub(crate) fn sessions(&self) -> impl Iterator<Item = (&str, u64, u64)> {
        self.sessions.iter().map(|(id, session)| (&**id, session.epoch, session.last))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn claim(epoch: u64, seq: u64) -> Claim<'static> {
        Claim { id: "p", epoch, seq }
    }

    fn at(epoch: u64, last: u64) -> Producers {
        let mut producers = Producers::default();
        for seq in 0..=last {
            producers.record(claim(epoch, seq));
        }
        producers
    }

    #[test]
    fn each_rule_of_the_protocol() {
        let producers = at(3, 2);
        for (epoch, seq, verdict) in [
            (3, 3, Verdict::Accept),
            (3, 2, Verdict::Duplicate { last: 2 }),
            (3, 0, Verdict::Duplicate { last: 2 }),
            (3, 4, Verdict::Gap { expected: 3 }),
            (2, 3, Verdict::Fenced { epoch: 3 }),
            (4, 0, Verdict::Accept),
            (4, 1, Verdict::BadStart),
        ] {
            assert_eq!(producers.judge(claim(epoch, seq), 1), verdict, "epoch {epoch}, seq {seq}");
        }
    }

    #[test]
    fn one_too_many_is_refused_and_the_known_go_on() {
        let producers = at(0, 0);
        assert_eq!(producers.judge(Claim { id: "q", epoch: 0, seq: 0 }, 1), Verdict::TooMany);
        assert_eq!(producers.judge(claim(0, 1), 1), Verdict::Accept);
    }

    #[test]
    fn judging_changes_nothing() {
        let producers = at(0, 0);
        assert_eq!(producers.judge(claim(9, 0), 1), Verdict::Accept);
        assert_eq!(producers.judge(claim(0, 1), 1), Verdict::Accept);
    }

    proptest! {
        /// Whatever is sent again and in whatever order: what was accepted in a session is 0, 1, 2, ... once each.
        #[test]
        fn nothing_is_doubled_and_nothing_is_left_out(sent in prop::collection::vec((0..4_u64, 0..6_u64), 0..200)) {
            let mut producers = Producers::default();
            let mut accepted: Vec<(u64, u64)> = Vec::new();
            for (epoch, seq) in sent {
                if producers.judge(claim(epoch, seq), 1) == Verdict::Accept {
                    producers.record(claim(epoch, seq));
                    accepted.push((epoch, seq));
                }
            }
            for pair in accepted.windows(2) {
                let ((epoch, seq), next) = (pair[0], pair[1]);
                prop_assert!(next == (epoch, seq + 1) || (next.0 > epoch && next.1 == 0), "{:?}", pair);
            }
            prop_assert!(accepted.first().is_none_or(|first| first.1 == 0));
        }
    }
}
