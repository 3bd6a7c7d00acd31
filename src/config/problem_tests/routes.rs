//! What is said of routes that are wrong, and of what they may use.

use super::{assert_problem, assert_problem_like};
use crate::cli::ServeArgs;
use crate::config::tests::{Place, UPSTREAM, loaded};

#[test]
fn routes_are_checked() {
    let route = |lines: &str| format!("{UPSTREAM}[[route]]\n{lines}");
    assert_problem(
        &route("upstreams = [\"opnai\"]"),
        "6: [[route]] upstreams: no upstream is called \"opnai\"; did you mean \"openai\"?",
    );
    assert_problem(
        &route("upstreams = [\n\"openai\",\n\"other\"]"),
        "8: [[route]] upstreams: no upstream is called \"other\"",
    );
    assert_problem_like(&route("upstreams = []"), "6: [[route]] upstreams", "leads nowhere");
    assert_problem_like(
        &route("upstreams = [\"openai\", \"openai\"]"),
        "6: [[route]] upstreams",
        "names \"openai\" twice",
    );
    assert_problem_like(
        &route("upstreams = [{ name = \"openai\", weight = 0 }]"),
        "6: [[route]] upstreams",
        "no weight but 0",
    );
    assert_problem_like(&route("upstreams = [{ weight = 2 }]"), "6: [[route]] upstreams.name", "is missing");
    assert_problem_like(
        &route("upstreams = [{ name = \"openai\", weight = -1 }]"),
        "6: [[route]] upstreams.weight",
        "0 to 1000000",
    );
    assert_problem_like(&route("models = []"), "6: [[route]] models", "takes nothing");
    assert_problem_like(&route("models = [\"a\",\n3]"), "7: [[route]] models", "must be a string");
    assert_problem_like(&route("paths = [\"v1/chat\"]"), "6: [[route]] paths", "write \"/v1/chat\"");
    assert_problem_like(
        &route("aliases = { gpt-4.1 = \"x\" }"),
        "6: [[route]] aliases.gpt-4",
        "must be put in quotes",
    );
    assert_problem_like(
        &route("aliases = { \"a*b*\" = \"x\" }"),
        "6: [[route]] aliases.a*b*",
        "more than one *",
    );
    assert_problem_like(&route("aliases = { \"a\" = \"x*\" }"), "6: [[route]] aliases.a", "no * on the left");
    assert_problem_like(&route("aliases = { \"\" = \"x\" }"), "6: [[route]] aliases.", "no model can have");
    assert_problem_like(
        &route("early_heartbeat_ms = \"2s\""),
        "6: [[route]] early_heartbeat_ms",
        "must be a whole number",
    );
    assert_problem_like(&route("max_body = \"17GiB\""), "6: [[route]] max_body", "[limits] max_body");
    assert_problem_like(
        &route("timeouts = { keep_alive = \"1s\" }"),
        "6: [[route]] timeouts.keep_alive",
        "set it in [timeouts]",
    );
    assert_problem_like("[[route]]\nmodels = \"*\"", "1: [[route]] upstreams", "there is no [[upstream]]");
    let twice = route("name = \"a\"\nmodels = \"x\"\n[[route]]\nname = \"a\"");
    assert_problem_like(&twice, "9: [[route]] name", "another route is called \"a\"");
}

#[test]
fn what_a_route_does_about_failures_is_checked() {
    let route = |text: &str| format!("{UPSTREAM}[[route]]\nname = \"r\"\n{text}");
    for (text, key, part) in [
        ("retry = 3", "retry", "must be a table"),
        ("retry = { attempts = 0 }", "retry.attempts", "from 1 to 10"),
        ("retry = { on = [404] }", "retry.on", "it would be everywhere"),
        ("retry = { on = [\"5xx\"] }", "retry.on", "must be a whole number"),
        ("retry = { backoff_ms = 2000, max_backoff_ms = 1000 }", "retry.backoff_ms", "max_backoff_ms"),
        ("retry = { budget = 3 }", "retry.budget", "there are attempts, on"),
        ("fallback = \"r\"", "fallback", "is this very route"),
        ("fallback = \"elsewhere\"", "fallback", "a model that this very route takes"),
        (
            "fallback = \"elsewhere\"\nmodels = \"m\"",
            "fallback",
            "no other route that is called \"elsewhere\"",
        ),
        ("balance = \"random\"", "balance", "\"p2c\", \"weighted\", \"first\", \"sticky\""),
        ("balance = { sticky = \"a b\" }", "balance.sticky", "no field of a request"),
        ("balance = { sticky = \"Authorization\" }", "balance.sticky", "\"sticky\" alone"),
        ("balance = {}", "balance.sticky", "is missing"),
        ("upstreams = [{ name = \"openai\", priority = -1 }]", "upstreams.priority", "from 0 to 1000"),
        ("commit = \"later\"", "commit", "first_content"),
        ("on_disconnect = \"stay\"", "on_disconnect", "\"cancel\", \"drain\""),
        ("on_disconnect = { drain = \"0\" }", "on_disconnect.drain", "is no time"),
        ("hedge = { after = \"0\" }", "hedge.after", "every request would be sent twice"),
        ("hedge = {}", "hedge.after", "is missing"),
        ("degraded = \"\"", "degraded", "is empty"),
    ] {
        assert_problem_like(&route(text), &format!("7: [[route]] {key}"), part);
    }
}

#[test]
fn a_fallback_that_comes_back_is_told() {
    let routes = |first: &str, second: &str| {
        format!("{UPSTREAM}[[route]]\nname = \"a\"\n{first}\n\n[[route]]\nname = \"b\"\n{second}\n")
    };
    let text = routes("models = [\"m\"]\nfallback = \"x\"", "fallback = \"y\"");
    assert_problem_like(&text, "12: [[route]] fallback", "come back to where it has failed");
    // Another route takes it, on some paths at least.
    for first in ["models = [\"y\"]", "paths = [\"/v1/chat/*\"]"] {
        let place = Place::new(&routes(first, "fallback = \"y\""));
        assert!(place.load(&ServeArgs::default(), &[]).is_ok());
    }
}

#[test]
fn what_is_never_reached_is_told() {
    let text = format!("{UPSTREAM}[[route]]\nname = \"all\"\n\n[[route]]\nmodels = [\"gpt-*\"]");
    assert_problem_like(&text, "9: [[route]] models", "the route \"all\" before it takes every request");
    let text = format!(
        "{UPSTREAM}[[route]]\nname = \"g\"\nmodels = \"gpt-*\"\n[[route]]\naliases = {{ \"gpt-x\" = \"y\" }}"
    );
    assert_problem_like(&text, "9: [[route]] aliases", "\"gpt-x\" is never used: the route \"g\"");
    let by_path =
        format!("{UPSTREAM}[[route]]\npaths = \"/v1/audio/*\"\n[[route]]\naliases = {{ \"gpt-x\" = \"y\" }}");
    assert_eq!(loaded(&by_path).routes.len(), 2);
}

#[test]
fn limits_that_cannot_be_kept_are_told() {
    let with = |limits: &str| format!("{UPSTREAM}[[route]]\nlimits = {limits}");
    assert_problem_like(
        &with("{ requests_per_minute = 0 }"),
        "6: [[route]] limits.requests_per_minute",
        "no limit",
    );
    assert_problem_like(&with("{ tpm = 5 }"), "6: [[route]] limits.tpm", "write tokens_per_minute");
    assert_problem_like(&with("{ streams = \"5\" }"), "6: [[route]] limits.streams", "a whole number");
    assert_problem_like(&with("5"), "6: [[route]] limits", "a table");
    let (one, two) = ("ab".repeat(32), "cd".repeat(32));
    let key = |hash: &str, more: &str| format!("[[key]]\nname = \"k\"\nsha256 = \"{hash}\"\n{more}\n");
    assert_problem_like(&key(&one, "models = []"), "4: [[key]] models", "opens nothing");
    let text = key(&one, "limits = { streams = 1 }") + &key(&two, "");
    assert_problem_like(&text, "7: [[key]] sha256", "has other models or limits");
}

#[test]
fn a_body_cannot_be_kept_beyond_all_memory() {
    let text =
        format!("{UPSTREAM}[limits]\nstream_memory = \"8MiB\"\n[[route]]\nretry = {{ max_body = \"9MiB\" }}");
    assert_problem_like(&text, "8: [[route]] retry.max_body", "more than [limits] stream_memory");
}
