use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn rules() -> Rules {
    Rules {
        cool_down: Duration::from_millis(1000),
        max_cool_down: Duration::from_millis(10_000),
        probes: 2,
        ..Rules::default()
    }
}

#[test]
fn it_opens_cools_down_lets_a_few_through_and_closes() {
    let (rules, mut breaker) = (rules(), Breaker::default());
    assert_eq!((breaker.admit(&rules, 0), breaker.gate()), (Ok(Permit::Plain), 0));
    assert!(breaker.trip(&rules, 0, 0));
    assert!(!breaker.trip(&rules, 0, 0), "it is open already");
    assert_eq!((breaker.state(0), breaker.gate()), (State::Open, 500));
    assert_eq!(breaker.admit(&rules, 499), Err(1));
    let (one, two) = (breaker.admit(&rules, 500), breaker.admit(&rules, 500));
    assert_eq!((one, two), (Ok(Permit::Probe(1)), Ok(Permit::Probe(1))));
    assert_eq!(breaker.admit(&rules, 500), Err(PROBING_MS));
    assert_eq!(breaker.probed(1, None, &rules, 600, 0), None);
    assert_eq!(breaker.admit(&rules, 600), Ok(Permit::Probe(1)), "a place that was given back is free");
    assert_eq!(breaker.probed(1, Some(true), &rules, 700, 0), None);
    assert_eq!(breaker.state(700), State::HalfOpen);
    assert_eq!(breaker.probed(1, Some(true), &rules, 700, 0), Some(State::Closed));
    assert_eq!((breaker.admit(&rules, 700), breaker.gate()), (Ok(Permit::Plain), 0));
}

#[test]
fn each_failure_in_a_row_doubles_the_time_and_a_long_peace_forgets_them() {
    let (rules, mut breaker) = (rules(), Breaker::default());
    let mut now = 0;
    breaker.trip(&rules, now, u64::MAX);
    for most in [1000, 2000, 4000, 8000, 10_000, 10_000] {
        let left = breaker.admit(&rules, now).unwrap_err();
        assert!((most / 2..=most).contains(&left), "{left} of {most}");
        now += left;
        let Ok(Permit::Probe(epoch)) = breaker.admit(&rules, now) else { panic!("half-open") };
        assert_eq!(breaker.probed(epoch, Some(false), &rules, now, now), Some(State::Open));
    }
    now += breaker.admit(&rules, now).unwrap_err();
    for _ in 0..2 {
        let Ok(Permit::Probe(epoch)) = breaker.admit(&rules, now) else { panic!("half-open") };
        breaker.probed(epoch, Some(true), &rules, now, 0);
    }
    let soon = now + 1000;
    assert!(breaker.trip(&rules, soon, 0));
    assert_eq!(breaker.admit(&rules, soon), Err(5000), "it has not been closed for long");
    now = soon + 5000;
    for _ in 0..2 {
        let Ok(Permit::Probe(epoch)) = breaker.admit(&rules, now) else { panic!("half-open") };
        breaker.probed(epoch, Some(true), &rules, now, 0);
    }
    now += 30_000;
    assert!(breaker.trip(&rules, now, 0));
    assert_eq!(breaker.admit(&rules, now), Err(500));
}

#[test]
fn parked_is_exactly_as_long_as_was_said() {
    let (rules, mut breaker) = (rules(), Breaker::default());
    breaker.park(100, 3000);
    breaker.park(200, 1000);
    assert_eq!((breaker.state(3099), breaker.admit(&rules, 3099)), (State::Parked, Err(1)));
    assert_eq!((breaker.state(3100), breaker.admit(&rules, 3100)), (State::Closed, Ok(Permit::Plain)));
    assert_eq!(breaker.gate(), 0);
    breaker.park(4000, u64::MAX);
    assert_eq!(breaker.admit(&rules, 4000), Err(PARKED_MAX_MS));
}

#[test]
fn a_probe_of_before_says_nothing_now() {
    let (rules, mut breaker) = (rules(), Breaker::default());
    breaker.trip(&rules, 0, 0);
    assert_eq!(breaker.admit(&rules, 500), Ok(Permit::Probe(1)));
    assert_eq!(breaker.admit(&rules, 500), Ok(Permit::Probe(1)));
    breaker.probed(1, Some(false), &rules, 500, 0);
    assert_eq!(breaker.admit(&rules, 5000), Ok(Permit::Probe(2)));
    assert_eq!(breaker.probed(1, Some(true), &rules, 5000, 0), None);
    assert_eq!(breaker.probed(2, Some(true), &rules, 5000, 0), None);
    assert_eq!(breaker.state(5000), State::HalfOpen);
}

proptest! {
    /// Whatever comes in whatever order: the probes that are out never exceed the places, and places are never lost: as soon as
    /// all are given back, one can be had, or it is open or closed.
    #[test]
    fn places_are_neither_exceeded_nor_lost(steps in proptest::collection::vec((0u8..6, 0u64..2000, any::<u64>()), 1..300)) {
        let (rules, mut breaker, mut now) = (rules(), Breaker::default(), 0);
        let mut out: Vec<u32> = Vec::new();
        for (step, pass, chance) in steps {
            now += pass;
            match step {
                0 | 1 => if let Ok(Permit::Probe(epoch)) = breaker.admit(&rules, now) {
                    out.push(epoch);
                },
                2 => { breaker.trip(&rules, now, chance); }
                3 if chance % 8 == 0 => breaker.park(now, chance % 5000),
                _ if out.is_empty() => {}
                _ => {
                    let epoch = out.swap_remove(chance as usize % out.len());
                    let good = [Some(true), Some(false), None][step as usize - 3];
                    breaker.probed(epoch, good, &rules, now, chance);
                }
            }
            let mine = out.iter().filter(|epoch| **epoch == breaker.epoch).count() as u32;
            match breaker.phase {
                Phase::HalfOpen { out, good } => {
                    prop_assert_eq!(out, mine);
                    prop_assert!(out + good <= rules.probes);
                }
                Phase::Open { until } => prop_assert!(until >= now.min(until) && until <= now + 10_000),
                Phase::Closed => {}
            }
        }
        for epoch in out {
            breaker.probed(epoch, None, &rules, now, 0);
        }
        prop_assert!(breaker.admit(&rules, now + PARKED_MAX_MS).is_ok());
    }
}
