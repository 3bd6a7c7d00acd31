//! What is said of a file that is wrong: each kind of problem, with its exact line.

use std::path::Path;

use proptest::prelude::*;
use proptest::sample::select;

use super::file;
use super::tests::{Place, UPSTREAM, loaded};
use crate::cli::ServeArgs;

fn problems(text: &str) -> String {
    match Place::new(text).load(&ServeArgs::default(), &[]) {
        Ok(_) => panic!("no problem was found in\n{text}"),
        Err(errors) => errors,
    }
}

/// The file is wrong in one way, which is told so.
fn assert_problem(text: &str, expected: &str) {
    assert_eq!(problems(text), format!("sedge.toml:{expected}"), "of\n{text}");
}

/// The file has one problem, at `place`, of which is said, among other things, `part`.
fn assert_problem_like(text: &str, place: &str, part: &str) {
    let errors = problems(text);
    assert!(!errors.contains('\n'), "one problem was expected:\n{errors}");
    assert!(errors.starts_with(&format!("sedge.toml:{place}: ")) && errors.contains(part), "{errors}");
}

#[test]
fn a_key_that_does_not_exist_is_told_with_the_nearest() {
    assert_problem(
        "# first\nlisen = \"127.0.0.1:1\"",
        "2: lisen: there is no such key; did you mean \"listen\"?",
    );
    assert_problem(
        "[timeouts]\nfirst-byte = \"1s\"",
        "2: [timeouts] first-byte: there is no such key; did you mean \"first_byte\"?",
    );
    assert_problem("\n[upstrem]\nurl = 1", "2: upstrem: there is no such key; did you mean \"upstream\"?");
    assert_problem("tls = { crt = 1 }", TLS_WITHOUT_CERT);
    assert_problem_like("[limits]\nbananas = 1", "2: [limits] bananas", "there are max_connections, ");
    assert_problem_like(
        "[limits]\n\nheartbeat = \"1s\"",
        "3: [limits] heartbeat",
        "at the top of the file, above",
    );
    assert_problem_like("upstreams = []", "1: upstreams", "write [[upstream]]");
    assert_problem_like(&format!("{UPSTREAM}[[route]]\nmodel = \"x\""), "6: [[route]] model", "write models");
    let text = format!("{UPSTREAM}[[route]]\ntimeouts = {{ idel = \"1s\" }}");
    assert_problem(&text, "6: [[route]] timeouts.idel: there is no such key; did you mean \"idle\"?");
    let text = format!(
        "{UPSTREAM}[[route]]\nupstreams = [\n  \"openai\",\n  {{ name = \"openai\", wieght = 1 }},\n]"
    );
    assert!(problems(&text).contains(
        "sedge.toml:8: [[route]] upstreams.wieght: there is no such key; did you mean \"weight\"?"
    ));
}

const TLS_WITHOUT_CERT: &str = "1: [tls] cert: is missing; name the PEM file of the certificate and its chain
sedge.toml:1: [tls] crt: there is no such key; did you mean \"cert\"?
sedge.toml:1: [tls] key: is missing; name the PEM file of the certificate's private key";

#[test]
fn a_text_that_is_no_toml_is_told_with_its_line() {
    assert_problem_like("listen = \"127.0.0.1:1\"\nadmin = off\n", "2", "");
    assert_problem_like("open = true\n\nopen = false\n", "3", "duplicate key");
    let errors = problems("listen =\nopen = true\naccess_log = \"x\n");
    let lines: Vec<_> = errors.lines().map(|line| &line[..14]).collect();
    assert_eq!(lines, ["sedge.toml:1: ", "sedge.toml:3: "], "{errors}");
}

#[test]
fn a_value_of_the_wrong_kind_is_told() {
    assert_problem("listen = 8080", "1: listen: must be a string in quotes, not a whole number");
    assert_problem("open = \"yes\"", "1: open: must be true or false, not a string");
    assert_problem("workers = 1.5", "1: workers: must be a whole number, not a number with a point");
    assert_problem("workers = -1", "1: workers: must be from 0 to 4096, not -1");
    assert_problem("workers = 5000", "1: workers: must be from 0 to 4096, not 5000");
    assert_problem("tls = true", "1: tls: must be a table, not true or false");
    assert_problem("heartbeat = 15", "1: heartbeat: has no unit; write \"15s\" or \"15ms\"");
    assert_problem("heartbeat = []", "1: heartbeat: must be a string in quotes, not a list");
    assert_problem_like("[upstream]\nurl = \"http://h\"", "1: upstream", "two brackets, [[upstream]]");
    assert_problem("route = [1]", "1: route: must be a table, not a whole number");
    assert_problem_like("[limits]\nmax_body = \"1GB\"", "2: [limits] max_body", "write \"1GiB\"");
    assert_problem_like("[limits]\nstream_memory = 1", "2: [limits] stream_memory", "1048576");
    assert_problem_like(
        "[limits]\nmax_model_peek = \"1B\"",
        "2: [limits] max_model_peek",
        "1024 bytes at least",
    );
    assert_problem_like("access_log = \"stdot\"", "1: access_log", "did you mean \"stdout\"?");
    assert_problem_like(
        "access_log = \"/nowhere/at/all.log\"",
        "1: access_log",
        "there is no directory /nowhere/at",
    );
    assert_problem_like("admin = \"none\"", "1: admin", "\"off\" turns it off");
    assert_problem_like("listen = \":80\"", "1: listen", "0.0.0.0:80");
}

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
fn a_secret_is_looked_up_and_never_repeated() {
    let inline = format!("{UPSTREAM}key = \"sk-hunter2\"");
    assert_problem_like(&inline, "5: [[upstream]] key", "\"env:NAME\" or \"file:");
    assert_problem_like(
        &format!("{UPSTREAM}key = \"env:NOPE\""),
        "5: [[upstream]] key",
        "variable NOPE is not set",
    );
    assert_problem_like(
        &format!("{UPSTREAM}key = \"file:nope\""),
        "5: [[upstream]] key",
        "there is no file nope",
    );
    let place = Place::new(&format!("{UPSTREAM}key = \"env:KEY\""));
    for (value, why) in
        [("", "is not set, or empty"), ("hunter2 x", "space"), ("hunter2\r\nX: y", "line break")]
    {
        let error = place.load(&ServeArgs::default(), &[("KEY", value)]).unwrap_err();
        assert!(error.contains(why) && !error.contains("hunter2"), "{error}");
    }
    assert!(!problems(&inline).contains("hunter2"));
    let config = place.load(&ServeArgs::default(), &[("KEY", "sk-hunter2")]).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    let hash = problems("[[key]]\nname = \"x\"\nsha256 = \"sk-hunter2\"");
    assert!(
        hash.contains("sedge.toml:3: [[key]] sha256: is not a SHA-256") && !hash.contains("hunter2"),
        "{hash}"
    );
    let key = problems("[[key]]\nname = \"x\"\nkey = \"sk-hunter2\"");
    assert!(key.contains("sedge.toml:3: [[key]] key: must not stand") && !key.contains("hunter2"), "{key}");
}

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
        &route("aliases = { \"a*\" = \"x\" }"),
        "6: [[route]] aliases.a*",
        "use models for patterns",
    );
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
fn keys_that_cannot_be_read_are_not_missing_too() {
    assert_problem_like(
        "listen = \"0.0.0.0:80\"\n[[key]]\nfile = \"nope\"",
        "3: [[key]] file",
        "there is no file nope",
    );
}

#[test]
fn a_wrong_upstream_is_not_wrong_in_its_routes_too() {
    let text = "[[upstream]]\nname = \"a\"\nurl = \"nowhere\"\n[[route]]\nupstreams = [\"a\"]";
    assert_problem_like(text, "3: [[upstream]] url", "must begin with https://");
}

#[test]
fn client_keys_are_checked() {
    let hash = "00".repeat(32);
    assert_problem_like(&format!("[[key]]\nsha256 = \"{hash}\""), "1: [[key]] name", "is missing");
    assert_problem_like("[[key]]\nname = \"a\"", "1: [[key]] sha256", "sha256sum");
    assert_problem_like(
        &format!("[[key]]\nname = \"a\"\nsha256 = \"{hash}\"\nfile = \"x\""),
        "4: [[key]] file",
        "keep one of them",
    );
    assert_problem_like("[[key]]\nfile = \"nope\"", "2: [[key]] file", "there is no file nope");
    assert_problem_like("[[key]]\nfile = \"/dev/zero\"", "2: [[key]] file", "is not a file");
    let one = format!("[[key]]\nname = \"a\"\nsha256 = \"{hash}\"\n");
    assert_problem_like(
        &format!("{one}{}", one.replace("\"a\"", "\"b\"")),
        "6: [[key]] sha256",
        "\"b\" has the same key as \"a\"",
    );
}

#[test]
fn the_lines_of_a_file_of_keys_are_told_apart() {
    let hash = "00".repeat(32);
    let told = |table: &str, text: &str| {
        let place = Place::new(table);
        place.write("keys", text);
        place.load(&ServeArgs::default(), &[]).map(|config| config.keys.len())
    };
    let (named, plain) = ("[[key]]\nname = \"a\"\nfile = \"keys\"", "[[key]]\nfile = \"keys\"");
    assert_eq!(told(named, &format!("{hash}\n")), Ok(1));
    assert_eq!(told(plain, &format!("a:{hash}\r\n#\n b : {}\n", "11".repeat(32))), Ok(2));
    for (table, text, expected) in [
        (plain, format!("a:{hash}\n{hash}\n"), "keys:2: has no name"),
        (named, format!("\na:{hash}\n"), "keys:2: has its own name"),
        (plain, "a:hunter2\n".to_owned(), "keys:1: is not a SHA-256"),
        (plain, format!(":{hash}"), "keys:1: has a name that is none"),
        (plain, "# none yet\n".to_owned(), "keys: has no key in it"),
    ] {
        let error = told(table, &text).unwrap_err();
        assert!(error.starts_with(expected) && !error.contains("hunter2"), "{error}");
    }
}

#[test]
fn files_that_cannot_be_read_are_told() {
    let errors = problems("upstream_ca = [\n\"no.pem\",\n\"/\"]\n[tls]\ncert = \"c.pem\"\nkey = \"\"");
    let expected = "sedge.toml:2: upstream_ca: there is no file no.pem
sedge.toml:3: upstream_ca: / is not a file
sedge.toml:5: [tls] cert: there is no file c.pem
sedge.toml:6: [tls] key: is empty; give the path of a file";
    assert_eq!(errors, expected);
}

#[test]
fn all_problems_are_told_in_the_order_of_their_lines() {
    let text = "open = 1\nlisten = \"x\"\n\n[[upstream]]\nnmae = \"a\"\n\n[limits]\nmax_body = \"x\"\n";
    let errors = problems(text);
    let places: Vec<_> =
        errors.lines().map(|line| line.split(": ").take(2).collect::<Vec<_>>().join(" ")).collect();
    let expected = [
        "sedge.toml:1 open",
        "sedge.toml:2 listen",
        "sedge.toml:4 [[upstream]] url",
        "sedge.toml:5 [[upstream]] nmae",
        "sedge.toml:8 [limits] max_body",
    ];
    assert_eq!(places, expected, "{errors}");
}

proptest! {
    /// Lines that are right or wrong, in any order: what is wrong with them is told with a line that there is.
    #[test]
    fn any_text_is_read_or_refused_line_by_line(lines in proptest::collection::vec(line(), 0..12)) {
        let text = lines.join("\n");
        let (_, problems) = file::read(Path::new("sedge.toml"), &text, false, &|_| None);
        for problem in problems {
            let line = problem.origin.line.unwrap();
            prop_assert!((1..=lines.len().max(1)).contains(&line), "{}", problem);
            prop_assert!(!problem.to_string().contains('\n'));
        }
    }
}

fn line() -> impl Strategy<Value = String> {
    let keys = vec![
        "listen",
        "admin",
        "tls",
        "key",
        "name",
        "url",
        "models",
        "aliases",
        "upstreams",
        "timeouts",
        "idle",
        "x",
    ];
    let values = vec![
        "1",
        "-1",
        "1.5",
        "true",
        "\"x\"",
        "\"1s\"",
        "\"http://a\"",
        "[]",
        "[1, \"a\"]",
        "{}",
        "1979-05-27",
        "\"",
    ];
    let headers =
        vec!["[[upstream]]", "[[route]]", "[[key]]", "[[tls]]", "[tls]", "[timeouts]", "[limits]", "[route]"];
    prop_oneof![
        4 => (select(keys), select(values)).prop_map(|(key, value)| format!("{key} = {value}")),
        3 => select(headers).prop_map(str::to_owned),
        1 => "[a-z=\\[\\]{}\".# ü]{0,12}",
    ]
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
