//! The policies and the breaker together, on upstreams that are played by a seeded simulation: time is a number, and what an
//! upstream does is a rule.

#[path = "balancer_timing_tests.rs"]
pub(crate) mod timing;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::{Breaker, Breaking, Concurrency, Timeouts, Upstream, UpstreamUrl};
use crate::routing::breaker::State;
use crate::routing::call::Verdict;
use crate::routing::concurrency_limiter::{Place, Shed};
use crate::routing::health::{Healths, Opened};
use crate::telemetry::{Ids, LabelId};

const MS: Micros = 1000;
const SECOND: Micros = 1_000_000;

/// A route over upstreams of these weights and priorities, and chance.
struct Scene {
    route: Route,
    targets: Vec<Arc<Target>>,
    ids: Ids,
    core: usize,
}

impl Scene {
    fn new(balance: Balance, members: &[(u32, u32)]) -> Scene {
        Scene::with(balance, members, Breaking::Passing)
    }

    fn with(balance: Balance, members: &[(u32, u32)], breaking: Breaking) -> Scene {
        let healths = Healths::default();
        let target = |index: usize| {
            let url = UpstreamUrl::parse(&format!("http://127.0.0.1:{}", 1000 + index)).unwrap();
            let upstream = Upstream { breaker: breaking.clone(), ..Upstream::new(format!("u{index}"), url) };
            Arc::new(Target::new(&upstream, LabelId::NONE, None, &healths, 2).unwrap())
        };
        let mut route = Route::everything(members.len(), &Timeouts::default(), 1);
        route.balance = balance;
        for (member, (weight, priority)) in route.upstreams.iter_mut().zip(members) {
            (member.weight, member.priority) = (*weight, *priority);
        }
        route.upstreams.sort_by_key(|member| member.priority);
        let targets = (0..members.len()).map(target).collect();
        Scene { route, targets, ids: Ids::from_seed([7; 32]), core: 0 }
    }

    fn asked(&self, now: Micros) -> Asked<'_> {
        let Scene { route, targets, .. } = self;
        Asked { route, targets, core: self.core, key: 0, streamed: true, now }
    }

    fn pick(&mut self, now: Micros, key: u64, tried: &[usize]) -> Result<Pick, Out> {
        let Scene { route, targets, core, ids } = self;
        let asked = Asked { route, targets, core: *core, key, streamed: true, now };
        asked.pick(tried, |_| true, || ids.next_u64())
    }

    /// A call that comes to this at once.
    fn call(&mut self, now: Micros, verdict: Verdict) -> Result<usize, Out> {
        let Pick { index, mut call } = self.pick(now, 0, &[])?;
        call.end(verdict, now, self.ids.next_u64());
        Ok(index)
    }

    fn state(&self, index: usize, now: Micros) -> State {
        self.targets[index].health.state(now / 1000)
    }

    /// Requests come evenly, `rate` a second for `seconds`; the upstream at `index` begins to answer after `first(index)` and is
    /// done after `rest` more. Says how many each got.
    fn run(&mut self, rate: u64, seconds: u64, first: impl Fn(usize) -> Micros, rest: Micros) -> Vec<u32> {
        let mut shares = vec![0; self.targets.len()];
        let mut due = BinaryHeap::new();
        let mut calls: Vec<Option<Call>> = Vec::new();
        for request in 0..rate * seconds {
            due.push(Reverse((SECOND + request * SECOND / rate, None)));
        }
        while let Some(Reverse((now, what))) = due.pop() {
            match what {
                None => {
                    let Pick { index, call } = self.pick(now, 0, &[]).unwrap();
                    shares[index] += 1;
                    due.push(Reverse((now + first(index), Some((calls.len(), false)))));
                    due.push(Reverse((now + first(index) + rest, Some((calls.len(), true)))));
                    calls.push(Some(call));
                }
                Some((call, false)) => calls[call].as_mut().unwrap().first_content(now, 0),
                Some((call, true)) => calls[call].take().unwrap().end(Verdict::Ok, now, 0),
            }
        }
        shares
    }
}

#[test]
fn p2c_spreads_evenly_over_equals_and_gives_the_slow_one_little() {
    let equal = Scene::new(Balance::P2c, &[(1, 0); 4]).run(100, 60, |_| 300 * MS, SECOND);
    for share in &equal {
        assert!(share.abs_diff(1500) < 300, "{equal:?}");
    }
    let slow = |index| if index == 2 { 3000 * MS } else { 300 * MS };
    let shares = Scene::new(Balance::P2c, &[(1, 0); 4]).run(100, 60, slow, SECOND);
    assert!(shares[2] < 600 && shares[2] > 10, "{shares:?}");
    assert!([0, 1, 3].iter().all(|index| shares[*index] > 1500), "{shares:?}");
}

#[test]
fn p2c_takes_weight_for_capacity() {
    let shares = Scene::new(Balance::P2c, &[(3, 0), (1, 0)]).run(200, 60, |_| 300 * MS, 2 * SECOND);
    assert!(shares[0].abs_diff(9000) < 900, "{shares:?}");
}

#[test]
fn p2c_sends_one_request_ahead_to_one_that_is_not_known() {
    let mut scene = Scene::new(Balance::P2c, &[(1, 0); 2]);
    let calls: Vec<_> = (0..6).map(|_| scene.pick(SECOND, 0, &[]).unwrap()).collect();
    // While nobody has answered, the load alone counts.
    assert_eq!(calls.iter().filter(|pick| pick.index == 0).count(), 3);
    let (answered, waiting): (Vec<_>, Vec<_>) = calls.into_iter().partition(|pick| pick.index == 0);
    for mut pick in answered {
        pick.call.end(Verdict::Ok, 2 * SECOND, 0);
    }
    // The other's three requests are still on their way: it gets no more.
    for _ in 0..5 {
        assert_eq!(scene.pick(2 * SECOND, 0, &[]).unwrap().index, 0);
    }
    drop(waiting);
    assert_eq!(scene.pick(2 * SECOND, 0, &[]).unwrap().index, 1);
}

#[test]
fn weighted_is_chance_by_weight_and_first_is_the_first() {
    let shares = Scene::new(Balance::Weighted, &[(3, 0), (1, 0), (0, 0)]).run(1000, 10, |_| MS, 0);
    assert!(shares[0].abs_diff(7500) < 200 && shares[1].abs_diff(2500) < 200 && shares[2] == 0, "{shares:?}");
    let shares = Scene::new(Balance::First, &[(0, 0), (1, 0), (9, 0)]).run(10, 1, |_| MS, 0);
    assert_eq!(shares, [0, 10, 0]);
}

#[test]
fn sticky_stays_and_only_what_must_moves() {
    let mut scene = Scene::new(Balance::Sticky(None), &[(1, 0); 4]);
    let keys: Vec<u64> = (0..400).map(|key| affinity::hash(format!("{key}").as_bytes())).collect();
    let place = |scene: &mut Scene, now| -> Vec<usize> {
        keys.iter().map(|key| scene.pick(now, *key, &[]).unwrap().index).collect()
    };
    let before = place(&mut scene, 0);
    assert_eq!(before, place(&mut scene, 0));
    scene.targets[1].health.park(5000, SECOND);
    let meanwhile = place(&mut scene, SECOND);
    for (before, meanwhile) in before.iter().zip(&meanwhile) {
        assert!(before == meanwhile || (*before == 1 && *meanwhile != 1));
    }
    assert!(!meanwhile.contains(&1));
    assert_eq!(before, place(&mut scene, 6 * SECOND));
}

#[test]
fn a_lower_priority_is_asked_when_all_of_the_higher_are_out_or_tried() {
    let mut scene = Scene::new(Balance::P2c, &[(1, 7), (1, 0), (1, 0)]);
    assert!((0..50).all(|_| scene.pick(0, 0, &[]).unwrap().index != 0));
    assert_eq!(scene.pick(0, 0, &[1, 2]).unwrap().index, 0);
    scene.targets[1].health.park(5000, 0);
    assert_eq!(scene.pick(0, 0, &[]).unwrap().index, 2);
    scene.targets[2].health.park(3000, 0);
    assert_eq!(scene.pick(0, 0, &[]).unwrap().index, 0);
    scene.targets[0].health.park(9000, 0);
    assert_eq!(scene.pick(SECOND, 0, &[]).err(), Some(Out { retry_after: Some(2000), full: None }));
    assert_ne!(scene.pick(3 * SECOND, 0, &[]).unwrap().index, 0);
}

#[test]
fn too_many_errors_open_over_all_cores_and_success_closes() {
    let mut scene = Scene::new(Balance::First, &[(1, 0), (1, 0)]);
    for call in 0..10 {
        scene.core = call % 2;
        assert_eq!(scene.state(0, SECOND), State::Closed);
        let verdict = if call % 2 == 0 { Verdict::Ok } else { Verdict::Failed };
        assert_eq!(scene.call(SECOND, verdict), Ok(0));
    }
    assert_eq!(scene.state(0, SECOND), State::Open);
    assert_eq!(scene.targets[0].health.opened(Opened::Errors), 1);
    assert_eq!(scene.call(SECOND, Verdict::Ok), Ok(1));
    let probes: Vec<_> = (0..4).map(|_| scene.pick(3 * SECOND, 0, &[]).unwrap()).collect();
    assert_eq!(probes.iter().map(|pick| pick.index).collect::<Vec<_>>(), [0, 0, 0, 1]);
    for mut pick in probes {
        pick.call.first_content(3 * SECOND, 0);
    }
    assert_eq!(scene.state(0, 3 * SECOND), State::Closed);
    // What was before is forgotten.
    scene.call(3 * SECOND, Verdict::Failed).unwrap();
    assert_eq!(scene.state(0, 3 * SECOND), State::Closed);
}

#[test]
fn slow_answers_and_refused_connections_open_as_well() {
    let rules =
        Breaker { slow: Duration::from_secs(2), slow_percent: 80, min_calls: 5, ..Breaker::default() };
    let mut scene = Scene::with(Balance::First, &[(1, 0), (1, 0)], Breaking::Strict(rules));
    for _ in 0..5 {
        let mut pick = scene.pick(SECOND, 0, &[]).unwrap();
        pick.call.first_content(3 * SECOND, 0);
        pick.call.end(Verdict::Ok, 3 * SECOND, 0);
    }
    assert_eq!((scene.state(0, 3 * SECOND), scene.targets[0].health.opened(Opened::Slow)), (State::Open, 1));
    for _ in 0..3 {
        assert_eq!(scene.call(3 * SECOND, Verdict::ConnectFailed), Ok(1));
    }
    assert_eq!(
        (scene.state(1, 3 * SECOND), scene.targets[1].health.opened(Opened::Connect)),
        (State::Open, 1)
    );
}

#[test]
fn what_is_not_the_upstreams_fault_never_counts() {
    let mut scene = Scene::new(Balance::First, &[(1, 0), (1, 0)]);
    for verdict in [Verdict::ClientFault, Verdict::Abandoned, Verdict::Overloaded { retry_after: None }] {
        for _ in 0..100 {
            assert_eq!(scene.call(SECOND, verdict), Ok(0));
        }
    }
    let until = Verdict::Overloaded { retry_after: Some(7000) };
    assert_eq!(scene.call(SECOND, until), Ok(0));
    assert_eq!(scene.call(8 * SECOND - MS, Verdict::Ok), Ok(1));
    assert_eq!(scene.call(8 * SECOND, Verdict::Ok), Ok(0));
}

#[test]
fn the_only_one_there_is_is_asked_unless_it_was_said() {
    for (breaking, refuses) in
        [(Breaking::Passing, false), (Breaking::Off, false), (Breaking::Strict(Breaker::default()), true)]
    {
        let mut scene = Scene::with(Balance::P2c, &[(1, 0)], breaking);
        for _ in 0..30 {
            let _ = scene.call(SECOND, Verdict::Failed);
        }
        assert_eq!(scene.call(SECOND, Verdict::Ok).is_err(), refuses);
        assert_eq!(scene.state(0, SECOND) == State::Open, refuses);
    }
}

#[test]
fn one_that_was_tried_is_asked_again_the_longest_ago_first() {
    let scene = Scene::new(Balance::P2c, &[(1, 0); 3]);
    let asked = scene.asked(SECOND);
    let again = |tried: &[usize]| asked.again(tried, |_| true).map(|pick| pick.index).ok();
    assert_eq!(again(&[0, 1, 2]), Some(0));
    assert_eq!(again(&[0, 1, 2, 0]), Some(1));
    scene.targets[1].health.park(100, SECOND);
    assert_eq!(again(&[0, 1, 2, 0]), Some(2));
    assert_eq!((again(&[1]), asked.soonest()), (None, Some(0)));
}

/// An upstream with this limit and so many places in its queue.
fn limited(max: u32, queue: usize) -> Scene {
    let rules = Concurrency {
        latency: Duration::from_secs(1),
        min: 1,
        max,
        queue,
        queue_wait: Duration::from_secs(1),
    };
    let mut scene = Scene::with(Balance::P2c, &[(1, 0), (1, 0)], Breaking::Strict(Breaker::default()));
    for target in &mut scene.targets {
        Arc::get_mut(target).unwrap().concurrency = Some(rules.clone());
    }
    scene
}

fn poll(place: &mut Place) -> Poll<bool> {
    place.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn who_finds_no_place_waits_for_one_and_keys_take_turns() {
    let mut scene = limited(2, 8);
    let mut calls: Vec<_> = (0..4).map(|_| scene.pick(SECOND, 0, &[]).unwrap()).collect();
    let Err(Out { retry_after: Some(1000), full: Some(_) }) = scene.pick(SECOND, 0, &[]) else {
        panic!("both are full")
    };
    calls.sort_by_key(|pick| pick.index);
    assert_eq!(calls.iter().map(|pick| pick.index).collect::<Vec<_>>(), [0, 0, 1, 1]);
    let target = Arc::clone(&scene.targets[0]);
    let mut places: Vec<_> = [7, 7, 8].map(|key| Place::wait(&target, key).unwrap()).into();
    assert!(places.iter_mut().all(|place| poll(place).is_pending()));
    // The other's place is none of theirs.
    drop(calls.pop());
    assert!(places.iter_mut().all(|place| poll(place).is_pending()));
    drop(calls.remove(0));
    drop(calls.remove(0));
    let turns: Vec<_> = places.iter_mut().map(poll).collect();
    assert_eq!(turns, [Poll::Ready(true), Poll::Pending, Poll::Ready(true)]);
    let asked = scene.asked(SECOND);
    let pick = asked.enter(0, places.remove(0)).unwrap();
    assert_eq!(pick.index, 0);
    // A place that was granted and not taken is the next one's.
    drop(places.pop());
    assert_eq!(poll(&mut places[0]), Poll::Ready(true));
    drop((places, pick, calls));
    assert!(!target.health.turnstile.is_full());
    for target in &scene.targets {
        assert_eq!(target.health.in_flight(), 0);
    }
    let free: Vec<_> = (0..4).map(|_| scene.pick(SECOND, 0, &[]).is_ok()).collect();
    assert_eq!(free, [true; 4]);
}

#[test]
fn a_place_that_came_too_late_is_given_back() {
    let mut scene = limited(1, 8);
    let calls: Vec<_> = (0..2).map(|_| scene.pick(SECOND, 0, &[]).unwrap()).collect();
    let target = Arc::clone(&scene.targets[0]);
    let mut place = Place::wait(&target, 0).unwrap();
    drop(calls);
    assert_eq!(poll(&mut place), Poll::Ready(true));
    // Meanwhile the upstream has asked to be left alone.
    target.health.park(3000, SECOND);
    let asked = scene.asked(SECOND);
    assert_eq!(asked.enter(0, place).err(), Some(Out { retry_after: Some(3000), full: None }));
    let again = Asked { now: 5 * SECOND, ..asked }.again(&[0], |_| true);
    assert!(again.is_ok_and(|pick| pick.index == 0));
    // One whose turn it is not has no place to take.
    let _call = scene.pick(5 * SECOND, 0, &[1]).unwrap();
    let waiting = Place::wait(&target, 0).unwrap();
    let asked = scene.asked(5 * SECOND);
    assert!(asked.enter(0, waiting).is_err());
}

#[test]
fn an_open_breaker_takes_no_place() {
    let mut scene = limited(2, 0);
    scene.targets[0].health.park(5000, SECOND);
    let calls: Vec<_> = (0..2).map(|_| scene.pick(SECOND, 0, &[]).unwrap()).collect();
    assert!(calls.iter().all(|pick| pick.index == 1));
    assert!(scene.pick(SECOND, 0, &[]).is_err_and(|out| out.full == Some(1)));
    assert!(Place::wait(&scene.targets[1], 0).is_none(), "nobody may wait");
    assert_eq!(scene.targets[1].health.turnstile.shed(Shed::Full), 1);
    let later: Vec<_> = (0..3).map(|_| scene.pick(6 * SECOND, 0, &[])).collect();
    assert_eq!(later.iter().filter(|pick| pick.is_ok()).count(), 2, "those of the first are all free");
}

/// A call in the simulation: when it is over, what it comes to, and whether its client waits for that.
#[derive(Clone, Debug)]
struct Planned {
    pass: Micros,
    takes: Micros,
    good: bool,
    leaves: bool,
    core: usize,
}

prop_compose! {
    fn planned()(pass in 0u64..400_000, takes in 0u64..3_000_000, good: bool, leaves in 0u8..8, core in 0usize..2) -> Planned {
        Planned { pass, takes, good, leaves: leaves == 0, core }
    }
}

proptest! {
    /// Whatever comes of the calls: none is in flight when all are over, every half-open place comes back, and once it works
    /// again the upstream is closed again.
    #[test]
    fn nothing_leaks_and_what_recovers_comes_back(plan in proptest::collection::vec(planned(), 1..200), bad_until in 0u64..60) {
        let mut scene = Scene::with(Balance::P2c, &[(1, 0), (2, 0), (1, 1)], Breaking::Strict(Breaker::default()));
        let (mut now, mut open) = (SECOND, Vec::<(Micros, Call, bool, bool)>::new());
        for Planned { pass, takes, good, leaves, core } in plan {
            now += pass;
            let (over, rest): (Vec<_>, Vec<_>) = open.into_iter().partition(|(at, ..)| *at <= now);
            open = rest;
            for (at, mut call, good, leaves) in over {
                match (leaves, good || at > bad_until * SECOND) {
                    (true, _) => drop(call),
                    (_, true) => call.end(Verdict::Ok, at, at),
                    (_, false) => call.end(Verdict::Failed, at, at),
                }
            }
            scene.core = core;
            if let Ok(pick) = scene.pick(now, 0, &[]) {
                open.push((now + takes, pick.call, good, leaves));
            }
        }
        drop(open);
        for target in &scene.targets {
            prop_assert_eq!(target.health.in_flight(), 0);
        }
        // A minute is the longest cool-down.
        now += 61 * SECOND;
        let mut calls = 0;
        while scene.targets.iter().any(|target| target.health.state(now / 1000) != State::Closed) {
            for index in 0..3 {
                let others: Vec<_> = (0..3).filter(|other| *other != index).collect();
                if let Ok(mut pick) = scene.pick(now, 0, &others) {
                    pick.call.end(Verdict::Ok, now, 0);
                }
            }
            calls += 1;
            prop_assert!(calls <= 3);
        }
    }
}
