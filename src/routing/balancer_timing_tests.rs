//! Streams and responses in one piece, timed apart.

use super::*;

/// A response in one piece takes as long as it is long: its time was averaged with the time that streams take to begin, and held
/// against limits that are meant for that.
#[test]
fn whole_responses_and_streams_are_timed_apart() {
    let rules = Breaker { slow: Duration::from_secs(2), min_calls: 2, ..Breaker::default() };
    let mut scene = Scene::with(Balance::P2c, &[(1, 0); 2], Breaking::Strict(rules));
    let now = 60 * SECOND;
    let ask = |scene: &mut Scene, streamed: bool, took: Micros| {
        let mut call = scene.pick(now - took, 0, &[1]).unwrap().call;
        match streamed {
            true => call.first_content(now, 0),
            false => call.first_byte(now, 0),
        }
    };
    ask(&mut scene, true, 300 * MS);
    for _ in 0..10 {
        ask(&mut scene, false, 10 * SECOND);
    }
    let known = [true, false].map(|streamed| scene.targets[0].health.view(0).latency(streamed).read(now));
    assert_eq!(known, [Some(300_000.0), Some(10_000_000.0)]);
    assert_eq!(scene.state(0, now), State::Closed, "nothing that is no stream was slow");
    // Where nothing is streamed, it is all there is to go by.
    let mut scene =
        Scene { targets: vec![Arc::clone(&scene.targets[1]), Arc::clone(&scene.targets[0])], ..scene };
    (0..2).for_each(|_| ask(&mut scene, false, 10 * SECOND));
    assert_eq!(scene.targets[0].health.opened(Opened::Slow), 1);
}
