//! What is said of upstreams that are wrong.

use super::assert_problem_like;
use crate::config::tests::UPSTREAM;

#[test]
fn upstreams_are_checked() {
    assert_problem_like(
        "[[upstream]]\nname = \"x\"",
        "1: [[upstream]] url",
        "is missing; write the API's base",
    );
    assert_problem_like(
        "[[upstream]]\nurl = \"api.openai.com\"",
        "2: [[upstream]] url",
        "must begin with https://",
    );
    assert_problem_like(
        &format!("{UPSTREAM}{UPSTREAM}"),
        "6: [[upstream]] name",
        "another upstream is called \"openai\"",
    );
    assert_problem_like(&format!("{UPSTREAM}ca = \"x\""), "5: [[upstream]] ca", "upstream_ca at the top");
    assert_problem_like(
        &format!("{UPSTREAM}timeouts = {{}}"),
        "5: [[upstream]] timeouts",
        "belong to routes",
    );
    assert_problem_like(
        "[[upstream]]\nurl = \"http://localhost:8080/v1\"",
        "2: [[upstream]] url",
        "round in circles",
    );
    assert_problem_like("[[upstream]]\nname = \"\"\nurl = \"http://h\"", "2: [[upstream]] name", "is empty");
    assert_problem_like(
        "[[upstream]]\nname = \"a\\nb\"\nurl = \"http://h\"",
        "2: [[upstream]] name",
        "control characters",
    );
    let long = format!("[[upstream]]\nname = \"{}\"\nurl = \"http://h\"", "x".repeat(65));
    assert_problem_like(&long, "2: [[upstream]] name", "longer than 64 bytes");
}

#[test]
fn an_upstreams_breaker_is_checked() {
    let breaker = |text: &str| format!("[[upstream]]\nurl = \"http://a.example\"\n{text}");
    for (text, key, part) in [
        ("breaker = 3", "breaker", "a table, true or false"),
        ("breaker = { error_percent = 101 }", "breaker.error_percent", "from 0 to 100"),
        ("breaker = { window = \"90s\" }", "breaker.window", "from \"1s\" to \"60s\""),
        ("breaker = { window = \"1500ms\" }", "breaker.window", "whole seconds"),
        ("breaker = { min_calls = 0 }", "breaker.min_calls", "from 1"),
        ("breaker = { cool_down = \"0\" }", "breaker.cool_down", "is no time"),
        ("breaker = { cool_down = \"2m\" }", "breaker.cool_down", "longer than max_cool_down"),
        ("breaker = { errors = 3 }", "breaker.errors", "there is no such key"),
    ] {
        assert_problem_like(&breaker(text), &format!("3: [[upstream]] {key}"), part);
    }
}

#[test]
fn an_upstreams_limit_is_checked() {
    for (text, key, part) in [
        ("{}", ".latency", "say how soon"),
        ("{ latency = \"0\" }", ".latency", "is no time"),
        ("{ latency = \"1s\", min = 0 }", ".min", "from 1"),
        ("{ latency = \"1s\", min = 9, max = 3 }", ".min", "more than max"),
        ("{ latency = \"1s\", queue = 5000 }", ".queue", "from 0 to 1024"),
        ("{ latency = \"1s\", queue_wait = \"2m\" }", ".queue_wait", "longer than 60 s"),
        ("3", "", "must be a table"),
    ] {
        let text = format!("[[upstream]]\nurl = \"http://a.example\"\nconcurrency = {text}");
        assert_problem_like(&text, &format!("3: [[upstream]] concurrency{key}"), part);
    }
}

#[test]
fn a_wrong_upstream_is_not_wrong_in_its_routes_too() {
    let text = "[[upstream]]\nname = \"a\"\nurl = \"nowhere\"\n[[route]]\nupstreams = [\"a\"]";
    assert_problem_like(text, "3: [[upstream]] url", "must begin with https://");
}

#[test]
fn a_probe_needs_a_path_a_time_and_a_breaker() {
    let upstream = |line: &str| format!("[[upstream]]\nname = \"u\"\nurl = \"http://u\"\n{line}\n");
    assert_problem_like(&upstream("probe = { interval = \"5s\" }"), "4: [[upstream]] probe.path", "health");
    assert_problem_like(&upstream("probe = { path = \"health\" }"), "4: [[upstream]] probe.path", "slash");
    assert_problem_like(&upstream("probe = { path = \"/a b\" }"), "4: [[upstream]] probe.path", "spaces");
    assert_problem_like(
        &upstream("probe = { path = \"/h\", interval = \"1ms\" }"),
        "4: [[upstream]] probe.interval",
        "100ms",
    );
    assert_problem_like(
        &upstream("probe = { path = \"/h\" }\nbreaker = false"),
        "4: [[upstream]] probe",
        "breaker = false",
    );
}
