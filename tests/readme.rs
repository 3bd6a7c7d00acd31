//! What the README promises about settings is so: its files are accepted, its flags exist, its defaults are the defaults.

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use sedge::testing::config::{Breaker, Limits, Timeouts};
use support::edge::{command, scratch};

const README: &str = include_str!("../README.md");

/// The fenced blocks of a language.
fn blocks(language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    README.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap_or_default()).collect()
}

/// The rows of the tables below a heading, without their first line and rule, each cell trimmed.
fn rows(heading: &str) -> Vec<Vec<&'static str>> {
    let (_, section) = README.split_once(&format!("\n{heading}\n")).expect("the heading");
    let section = section.split("\n#").next().unwrap_or_default();
    let lines = section.lines().filter(|line| line.starts_with('|')).skip(2);
    lines.map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

/// The words of a text that begin with two hyphens.
fn flags(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    words.filter(|word| word.len() > 3 && word.starts_with("--") && !word.starts_with("---")).collect()
}

#[test]
fn every_configuration_is_accepted() {
    let blocks = blocks("toml");
    assert_eq!(blocks.len(), 2);
    for text in blocks {
        let path = scratch("readme.toml");
        std::fs::write(&path, text).expect("write");
        let output = command()
            .args(["check", "--config", path.to_str().expect("UTF-8")])
            .env("OPENAI_API_KEY", "sk-x")
            .env("ADMIN_TOKEN", "x")
            .output()
            .expect("run");
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&said));
    }
}

#[test]
fn its_flags_are_those_of_the_command_line() {
    let output = command().arg("--help").output().expect("run");
    let help = String::from_utf8(output.stdout).expect("UTF-8");
    let (ours, known) = (flags(README), flags(&help));
    // One of cargo's.
    let unknown: Vec<_> = ours.difference(&known).filter(|flag| **flag != "--release").collect();
    assert!(unknown.is_empty(), "the README has flags that --help does not know: {unknown:?}");
    let (_, serve) = help.split_once("Options of serve").expect("its options");
    let serve = flags(serve.split("\n\n").next().unwrap_or_default());
    assert!(serve.len() >= 9, "{serve:?}");
    let missing: Vec<_> = serve.difference(&ours).collect();
    assert!(missing.is_empty(), "--help has flags that the README does not: {missing:?}");
}

#[test]
fn its_timeouts_are_the_defaults() {
    let defaults = Timeouts::default();
    let mut expected = vec![
        ("connect", defaults.connect),
        ("tls", defaults.tls),
        ("request_head", defaults.request_head),
        ("request_body", defaults.request_body),
        ("first_byte", defaults.first_byte),
        ("idle", defaults.idle),
        ("total", defaults.total),
        ("client_stall", defaults.client_stall),
        ("keep_alive", defaults.keep_alive),
    ];
    let mut told: Vec<_> =
        rows("### Timeouts").iter().map(|row| (row[0].trim_matches('`'), time(row[1]))).collect();
    expected.sort_unstable();
    told.sort_unstable();
    assert_eq!(told, expected);
}

#[test]
fn its_limits_are_the_defaults() {
    let defaults = Limits::default();
    let rows = rows("### Limits");
    let told = |name: &str| {
        let row = rows.iter().find(|row| row[0] == format!("`{name}`"));
        number(row.unwrap_or_else(|| panic!("no row {name}"))[1])
    };
    assert_eq!(told("max_connections"), defaults.max_connections as u64);
    assert_eq!(told("max_connections_per_address"), defaults.max_connections_per_address as u64);
    assert_eq!(told("max_body"), defaults.max_body);
    assert_eq!(told("max_model_peek"), defaults.max_model_peek);
    assert_eq!(told("head_memory"), defaults.head_memory);
    assert_eq!(told("stream_memory"), defaults.stream_memory);
}

#[test]
fn its_breaker_is_the_default() {
    let defaults = Breaker::default();
    let rows = rows("### Which upstream is asked");
    let told = |name: &str| {
        let row = rows.iter().find(|row| row[0] == name).unwrap_or_else(|| panic!("no row {name}"));
        row[1].split(", ").collect::<Vec<_>>()
    };
    let count = |number: u32| number.to_string();
    assert_eq!(told("`error_percent`"), [count(defaults.error_percent)]);
    assert_eq!((told("`slow`, `slow_percent`")[0], defaults.slow), ("off", Duration::ZERO));
    assert_eq!(told("`slow`, `slow_percent`")[1], count(defaults.slow_percent));
    assert_eq!(time(told("`window`, `min_calls`")[0]), defaults.window);
    assert_eq!(told("`window`, `min_calls`")[1], count(defaults.min_calls));
    assert_eq!(told("`connect_failures`"), [count(defaults.connect_failures)]);
    let times = [defaults.cool_down, defaults.max_cool_down];
    assert_eq!(told("`cool_down`, `max_cool_down`").into_iter().map(time).collect::<Vec<_>>(), times);
    assert_eq!(told("`probes`"), [count(defaults.probes)]);
}

fn time(text: &str) -> Duration {
    let (number, unit) = text.split_once(' ').unwrap_or_else(|| panic!("no time: {text:?}"));
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => panic!("no unit of time: {text:?}"),
    };
    Duration::from_secs(number.parse::<u64>().expect("a number") * seconds)
}

fn number(text: &str) -> u64 {
    if text == "off" {
        return 0;
    }
    let (number, unit) = text.split_once(' ').unwrap_or((text, ""));
    let bytes = match unit {
        "" => 1,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => panic!("no unit: {text:?}"),
    };
    number.parse::<u64>().expect("a number") * bytes
}
