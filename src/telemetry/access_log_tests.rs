//! What a line looks like.

use std::net::Ipv4Addr;

use super::*;
use crate::telemetry::ids::Ids;

/// A request of which nothing optional is known.
pub(crate) fn bare_record() -> Record<'static> {
    Record {
        unix_ms: 1_700_000_000_042,
        request_id: "req_1",
        trace_id: b"",
        client: None,
        key: None,
        method: "GET",
        path: "/v1/models",
        route: "",
        upstream: "",
        model: None,
        stream: false,
        status: 404,
        outcome: Outcome::Refused,
        bytes_in: 0,
        bytes_out: 0,
        events: 0,
        attempts: 0,
        tried: None,
        not_retried: None,
        connect_errors: None,
        degraded: None,
        first_byte_us: None,
        first_token_us: None,
        total_us: 0,
        prompt_tokens: None,
        completion_tokens: None,
        total_tokens: None,
        upstream_request_id: None,
        finish_reason: None,
        error_code: None,
        limited: None,
    }
}

fn line(record: &Record<'_>) -> String {
    let mut out = Vec::new();
    write_line(&mut out, &mut Stamp::default(), record);
    String::from_utf8(out).unwrap()
}

fn fields(record: &Record<'_>) -> serde_json::Value {
    serde_json::from_str(&line(record)).unwrap()
}

#[test]
fn a_line_tells_all_that_is_known_in_a_fixed_order() {
    let id = Ids::from_seed([3; 32]).request_id();
    let record = Record {
        request_id: id.as_str(),
        trace_id: &[b'a'; 32],
        client: Some(Ipv4Addr::new(192, 0, 2, 7).to_ipv6_mapped().into()),
        key: Some("team"),
        method: "POST",
        path: "/v1/chat/completions",
        route: "chat",
        upstream: "east",
        model: Some("gpt-x"),
        stream: true,
        status: 200,
        outcome: Outcome::Finished,
        bytes_in: 321,
        bytes_out: 65_536,
        events: 99,
        attempts: 2,
        tried: Some("gpu: 503"),
        not_retried: Some("body"),
        connect_errors: Some("b 10.0.0.1:80 Connection refused"),
        degraded: Some("fallback"),
        first_byte_us: Some(12_345),
        first_token_us: Some(23_456),
        total_us: 2_000_007,
        prompt_tokens: Some(11),
        completion_tokens: Some(22),
        total_tokens: Some(33),
        upstream_request_id: Some("up-1"),
        finish_reason: Some("stop"),
        error_code: Some("none"),
        limited: Some("key team: requests"),
        ..bare_record()
    };
    let expected = format!(
        concat!(
            r#"{{"ts":"2023-11-14T22:13:20.042Z","request_id":"{}","trace_id":"{}","client":"192.0.2.7","#,
            r#""key":"team","method":"POST","path":"/v1/chat/completions","route":"chat","upstream":"east","model":"gpt-x","#,
            r#""stream":true,"status":200,"outcome":"finished","bytes_in":321,"bytes_out":65536,"events":99,"#,
            r#""attempts":2,"tried":"gpu: 503","not_retried":"body","connect_errors":"b 10.0.0.1:80 Connection refused","degraded":"fallback","first_byte_ms":12.345,"first_token_ms":23.456,"total_ms":2000.007,"prompt_tokens":11,"completion_tokens":22,"#,
            r#""total_tokens":33,"upstream_request_id":"up-1","finish_reason":"stop","error_code":"none","limited":"key team: requests"}}"#,
        ),
        id,
        "a".repeat(32)
    );
    assert_eq!(line(&record), expected + "\n");
}

#[test]
fn what_is_not_known_is_absent_but_the_first_byte_is_null() {
    let fields = fields(&bare_record());
    assert!(fields["first_byte_ms"].is_null());
    let keys: Vec<&str> = fields.as_object().unwrap().keys().map(String::as_str).collect();
    let absent =
        ["trace_id", "client", "route", "upstream", "model", "prompt_tokens", "finish_reason", "error_code"];
    assert!(absent.iter().all(|key| !keys.contains(key)), "{keys:?}");
}

#[test]
fn a_query_never_reaches_the_log() {
    for path in ["/v1/x?api_key=sk-secret", "/v1/x#?api_key=sk-secret", "/v1/x?"] {
        assert_eq!(fields(&Record { path, ..bare_record() })["path"], "/v1/x");
    }
    assert_eq!(fields(&Record { path: "?k=v", ..bare_record() })["path"], "");
}

#[test]
fn a_model_cannot_forge_a_line() {
    let model = "x\"}\n{\"status\":200,";
    let record = Record { model: Some(model), ..bare_record() };
    assert_eq!(line(&record).matches('\n').count(), 1);
    assert_eq!(fields(&record)["model"], model);
}

#[test]
fn times_are_those_of_the_calendar() {
    let mut clock = Stamp::default();
    let mut time = |unix_ms| {
        let mut out = Vec::new();
        clock.write(&mut out, unix_ms);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(time(0), "1970-01-01T00:00:00.000Z");
    assert_eq!(time(951_782_399_999), "2000-02-28T23:59:59.999Z");
    assert_eq!(time(951_782_400_000), "2000-02-29T00:00:00.000Z");
    assert_eq!(time(1_709_251_199_000), "2024-02-29T23:59:59.000Z");
    assert_eq!(time(1_709_251_200_000), "2024-03-01T00:00:00.000Z");
    assert_eq!(time(4_107_542_400_001), "2100-03-01T00:00:00.001Z");
}

#[test]
fn every_day_of_eight_centuries_follows_the_one_before() {
    let is_leap =
        |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let (mut year, mut month, mut day) = (1970, 1, 1);
    for days in 0..292_194 {
        assert_eq!(civil_date(days), (year, month, day));
        let length = match month {
            2 => 28 + u64::from(is_leap(year)),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        day += 1;
        if day > length {
            (day, month) = (1, month + 1);
        }
        if month > 12 {
            (month, year) = (1, year + 1);
        }
    }
}
