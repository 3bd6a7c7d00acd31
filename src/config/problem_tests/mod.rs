//! What is said of a file that is wrong: each kind of problem, with its exact line. Here what may be wrong with any file; by what
//! it is wrong about: `routes`, `upstreams`, `keys`.

pub(crate) mod keys;
pub(crate) mod routes;
pub(crate) mod upstreams;

use std::path::Path;

use proptest::prelude::*;
use proptest::sample::select;

use super::file;
use super::tests::{Place, UPSTREAM};
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
