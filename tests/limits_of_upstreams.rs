//! An upstream, or a route to fall back to, that has nothing left is asked by nobody: not at first, not again, not beside another.

mod support;

use support::limits::{REFUSED, REMAINING, number, ok, route, status};
use support::{Edge, STREAM_BODY, Upstream, answer, post, relayed, stream_request};

#[test]
fn an_upstream_that_has_nothing_left_is_passed_over() {
    let (a, b) = (Upstream::serve(|_, _| ok(&[])), Upstream::serve(|_, _| ok(&[])));
    let toml = format!(
        "[[upstream]]\nname = \"a\"\nurl = \"{}\"\nlimits = {{ requests_per_minute = 2 }}\n\n\
         [[upstream]]\nname = \"b\"\nurl = \"{}\"\nlimits = {{ requests_per_minute = 3, max_tokens = 50 }}\n\n\
         [[route]]\nupstreams = [{{ name = \"a\", weight = 1000000 }}, {{ name = \"b\", weight = 1 }}]\n",
        a.url(),
        b.url()
    );
    let edge = Edge::configured(&toml);
    for _ in 0..5 {
        assert_eq!(status(&edge, &stream_request()), 200);
    }
    assert_eq!((a.requests().len(), b.requests().len()), (2, 3));
    let (head, body) = edge.ask(&stream_request());
    let wait = number(&head, "retry-after");
    // The one that is free first: b earns one in 20 s, a in 30 s.
    assert!(
        head.status() == 429 && wait <= 20 && body.text().contains("upstream `b`"),
        "{head:?} {}",
        body.text()
    );
    // For what b does not do at all there is a alone.
    let (head, body) = edge.ask(&post("/v1/chat/completions", &[], r#"{"max_tokens":51}"#));
    assert!(head.status() == 429 && body.text().contains("upstream `a`"), "{head:?} {}", body.text());
    edge.wait_metric(REFUSED, &["scope=\"upstream\"", "limit=\"requests\""], 2.0);
}

#[test]
fn a_retry_is_not_sent_to_an_upstream_that_has_nothing_left() {
    let a = Upstream::serve(|_, _| answer("503 Busy", &[], "busy"));
    let b = Upstream::serve(|_, _| ok(&[]));
    let toml = format!(
        "[[upstream]]\nname = \"a\"\nurl = \"{}\"\n\n[[upstream]]\nname = \"b\"\nurl = \"{}\"\n\
         limits = {{ requests_per_minute = 1, tokens_per_minute = 100000 }}\n\n\
         [[route]]\nupstreams = [{{ name = \"a\", weight = 1000000 }}, {{ name = \"b\", weight = 1 }}]\n\
         retry = {{ attempts = 2 }}\n",
        a.url(),
        b.url()
    );
    let edge = Edge::configured(&toml);
    assert_eq!(status(&edge, &stream_request()), 200);
    assert_eq!(status(&edge, &stream_request()), 503);
    assert_eq!(b.requests().len(), 1);
    // a's failed attempts took nothing of b's, whose usage is known.
    let left = edge.metric(REMAINING, &["scope=\"upstream\"", "limit=\"tokens\""]);
    assert!(left >= 99_993.0, "{left}");
}

#[test]
fn nobody_falls_back_to_a_route_that_has_nothing_left() {
    let (a, b) = (Upstream::serve(|_, _| answer("503 Busy", &[], "busy")), Upstream::serve(|_, _| ok(&[])));
    let edge = Edge::configured(&format!(
        "[[upstream]]\nname = \"a\"\nurl = \"{}\"\n\n[[upstream]]\nname = \"b\"\nurl = \"{}\"\n\n\
         [[route]]\nname = \"first\"\nmodels = [\"m\"]\nupstreams = [\"a\"]\nfallback = \"second\"\n\
         retry = {{ attempts = 1 }}\n\n\
         [[route]]\nname = \"second\"\nmodels = [\"n\"]\nupstreams = [\"b\"]\nlimits = {{ requests_per_minute = 1 }}\n",
        a.url(),
        b.url()
    ));
    assert_eq!(status(&edge, &stream_request()), 200);
    assert_eq!(status(&edge, &stream_request()), 503);
    assert_eq!((a.requests().len(), b.requests().len()), (2, 1));
    assert_eq!(status(&edge, &post("/v1/chat/completions", &[], r#"{"model":"n"}"#)), 429);
}

#[test]
fn a_slow_upstream_is_not_hedged_by_one_that_has_nothing_left() {
    let (a, b) = (Upstream::listen(), Upstream::serve(|_, _| ok(&[])));
    let edge = Edge::configured(&format!(
        "[[upstream]]\nname = \"a\"\nurl = \"{}\"\n\n[[upstream]]\nname = \"b\"\nurl = \"{}\"\n\
         limits = {{ requests_per_minute = 1, streams = 9 }}\n\n\
         [[route]]\nupstreams = [{{ name = \"a\", weight = 1000000 }}, {{ name = \"b\", weight = 1 }}]\n\
         hedge = {{ after = \"100ms\" }}\n",
        a.url(),
        b.url()
    ));
    let mut peers = Vec::new();
    for asked in [1, 1] {
        let mut client = edge.connect();
        client.send(stream_request());
        let mut peer = a.accept();
        let head = peer.read_head();
        peer.read_request_body(&head);
        if peers.is_empty() {
            assert_eq!(client.read_answer().0.status(), 200, "from the second");
        } else {
            // The time for a second is over when that of a request is which has come later, and has a limit of its own.
            let late = post("/v1/chat/completions", &["X-Request-Timeout-Ms: 1500"], STREAM_BODY);
            let (mut late, mut silent, ..) = relayed(&edge, &a, &late);
            assert_eq!(late.read_answer().0.status(), 504);
            silent.wait_closed();
            edge.settle();
            assert!(client.is_silent());
            peer.send(ok(&[]));
            assert_eq!(client.read_answer().0.status(), 200, "from the first");
        }
        assert_eq!(b.requests().len(), asked);
        peers.push(peer);
    }
    let seats = edge.metric(REMAINING, &["scope=\"upstream\"", "limit=\"streams\""]);
    assert!((seats - 9.0).abs() < f64::EPSILON, "{seats}");
}

/// An upstream's fields hid the limit that the next request would meet: a client read that 4711 requests remained, and got 429 for
/// its third. The tighter of the two is told, each with its own limit and reset.
#[test]
fn of_an_upstreams_limits_and_ours_the_tighter_are_told() {
    let told = [
        "X-RateLimit-Limit-Requests: 5000",
        "X-RateLimit-Remaining-Requests: 4711",
        "X-RateLimit-Reset-Requests: 12ms",
        "x-ratelimit-limit-tokens: 1000",
        "x-ratelimit-remaining-tokens: 999",
        "x-ratelimit-reset-tokens: 60ms",
        "x-ratelimit-remaining-images: 3",
    ];
    let upstream = Upstream::serve(move |_, _| ok(&told));
    let ours = "limits = { requests_per_minute = 2, tokens_per_minute = 100000 }";
    let edge = Edge::configured(&route(&upstream.url(), ours));
    let (head, _) = edge.ask(&stream_request());
    assert_eq!(head.all("x-ratelimit-limit-requests"), ["2"], "{head:?}");
    assert_eq!(head.all("x-ratelimit-remaining-requests"), ["1"], "{head:?}");
    assert_eq!(head.all("x-ratelimit-reset-requests").len(), 1, "{head:?}");
    assert_ne!(head.get("x-ratelimit-reset-requests"), Some("12ms"));
    for (what, value) in [("limit", "1000"), ("remaining", "999"), ("reset", "60ms")] {
        assert_eq!(head.all(&format!("x-ratelimit-{what}-tokens")), [value], "{head:?}");
    }
    assert_eq!(head.all("x-ratelimit-remaining-images"), ["3"]);
    // One that is not limited here is the upstream's alone.
    let edge = Edge::configured(&route(&upstream.url(), "limits = { tokens_per_minute = 500 }"));
    let (head, _) = edge.ask(&stream_request());
    assert_eq!(head.all("x-ratelimit-limit-requests"), ["5000"]);
    assert_eq!(head.all("x-ratelimit-limit-tokens"), ["500"]);
}
