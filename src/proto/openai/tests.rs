//! What is read in pieces against what serde_json reads whole.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::Value;

use super::usage::USAGE_MAX_BYTES;
use super::{Api, ApiError, FinishReason, Sideband, Usage};

pub(crate) fn pieces<'a>(body: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
    at.extend([0, body.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| &body[pair[0]..pair[1]]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sideband_says_the_same_however_the_answer_is_split(
        parts in prop::collection::vec(prop::sample::select(vec![
            "data: {\"choices\":[{\"delta\":{\"content\":\"as: \\\"usage\\\":{\"},\"finish_reason\":null}],\"usage\":null}\n\n",
            "\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4,\"total_tokens\":7}",
            "\"usage\": {\"input_tokens\":9,\"details\":{\"a\":\"}\\\"{\"}}", "\"usage\":", "\"usage", "\"usage\"usage\":",
            "\"usage\":{\"output_tokens\":2}", "\"usage\" :{\"output_tokens\":5}", "\"usage\":{", "}", "{", "\n", " ",
            "\"finish_reason\":\"stop\"", "\"stop_reason\": \"max_tokens\"", "\"finish_reason\":", "null", "_reason",
            "\"native_finish_reason\":\"COMPLETED_SUCCESSFULLY\"", "\"finish_reason\":\"tool_calls\"", "{\"error\"", "data: ",
            "................................................................",
        ]), 0..12),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let body = parts.concat();
        let whole = sideband(&[body.as_bytes()]);
        for split in [pieces(body.as_bytes(), &cuts), body.as_bytes().chunks(1).collect()] {
            let split = sideband(&split);
            prop_assert_eq!(split.usage(), whole.usage());
            prop_assert_eq!(split.finish_reason(), whole.finish_reason());
            prop_assert_eq!(split.error_seen(), whole.error_seen());
        }
    }

    #[test]
    fn sideband_finds_what_serde_json_finds(
        before in "[a-z:,{}\\[\\]\" ]{0,200}",
        prompt in any::<u32>(),
        completion in any::<u32>(),
        reason in prop::sample::select(vec!["stop", "length", "tool_calls", "content_filter", "something_nobody_knows"]),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let body = serde_json::json!({
            "choices": [{ "message": { "content": before }, "finish_reason": reason }],
            "usage": { "prompt_tokens": prompt, "completion_tokens": completion },
        })
        .to_string();
        let sideband = sideband(&pieces(body.as_bytes(), &cuts));
        let (prompt, completion) = (u64::from(prompt), u64::from(completion));
        prop_assert_eq!(sideband.usage(), Some(Usage { prompt, completion, total: prompt + completion }));
        let label = sideband.finish_reason().map(FinishReason::label);
        prop_assert_eq!(label, Some(if reason.starts_with("some") { "other" } else { reason }));
    }
}

fn sideband(pieces: &[&[u8]]) -> Sideband {
    let mut sideband = Sideband::default();
    pieces.iter().for_each(|piece| sideband.feed(piece));
    sideband
}

#[test]
fn sideband_reads_each_dialect() {
    let chat = sideband(&[
        b"data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"length\"}],\"usage\":null}\n\n",
        b"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":7,\"total_tokens\":13}}\n\ndata: [DONE]\n\n",
    ]);
    assert_eq!(chat.usage(), Some(Usage { prompt: 5, completion: 7, total: 13 }));
    assert_eq!(chat.finish_reason(), Some(FinishReason::Length));

    let anthropic = sideband(&[
        b"data: {\"message\":{\"stop_reason\":null,\"usage\":{\"input_tokens\":25,\"output_tokens\":1}}}\n\n",
        b"data: {\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":15}}\n\n",
    ]);
    assert_eq!(anthropic.usage(), Some(Usage { prompt: 25, completion: 15, total: 40 }));
    assert_eq!(anthropic.finish_reason(), Some(FinishReason::Stop));

    let response = sideband(&[
        b"{\n  \"usage\": {\n \"input_tokens\": 3, \"output_tokens\": 4, \"total_tokens\": 7 } }",
    ]);
    assert_eq!(response.usage(), Some(Usage { prompt: 3, completion: 4, total: 7 }));
}

#[test]
fn sideband_passes_over_no_key_wherever_it_stands_in_a_segment() {
    for (before, after) in (0..100).flat_map(|a| (0..100).step_by(3).map(move |b| (a, b))) {
        let (x, y) = ("x".repeat(before), "y".repeat(after));
        let usage = format!("{x}\"usage\": {{\"input_tokens\":1}}{y}\n");
        assert_eq!(sideband(&[usage.as_bytes()]).usage().map(|usage| usage.prompt), Some(1), "{usage}");
        let reason = format!("{x}\"finish_reason\":\"stop\"{y}\n");
        assert_eq!(sideband(&[reason.as_bytes()]).finish_reason(), Some(FinishReason::Stop), "{reason}");
    }
}

#[test]
fn sideband_does_not_take_text_for_usage() {
    let quoted =
        serde_json::json!({ "content": "{\"usage\":{\"prompt_tokens\":1}} \"finish_reason\":\"stop\"" });
    let sideband = sideband(&[quoted.to_string().as_bytes()]);
    assert_eq!((sideband.usage(), sideband.finish_reason()), (None, None));
}

#[test]
fn sideband_passes_over_a_usage_that_is_too_large_or_none() {
    let large = format!("\"usage\":{{\"prompt_tokens\":1,\"x\":\"{}\"}}", "x".repeat(USAGE_MAX_BYTES));
    assert_eq!(sideband(&[large.as_bytes()]).usage(), None);
    let then = "\"usage\":{\"prompt_tokens\":-1} \"usage\":{\"prompt_tokens\":2}";
    let usage = sideband(&[large.as_bytes(), then.as_bytes()]).usage();
    assert_eq!(usage, Some(Usage { prompt: 2, completion: 0, total: 2 }));
}

#[test]
fn sideband_knows_an_answer_that_is_an_error() {
    let json = |pieces: &[&[u8]]| {
        let mut sideband = Sideband::json(Api::Chat);
        pieces.iter().for_each(|piece| sideband.feed(piece));
        sideband
    };
    assert!(json(&[b"{\n    \"err", b"or\": {}}"]).error_seen());
    assert!(json(&[b"{\"id\":1,", b"\"error\": \"x\"}"]).error_seen());
    assert!(!json(&[b"{\"id\":1,\"error\":null}"]).error_seen());
    assert!(!json(&[b"{\"choices\":[{\"error\":{}}]}"]).error_seen());
    assert!(!json(&[b"{\"a\":[1,"]).is_complete() && json(&[b"{\"a\":[1]", b"}\n"]).is_complete());
    let mut whole = Sideband::json(Api::Responses);
    whole.feed_whole(b"{\"id\":\"r\",\"status\":\"failed\",\"usage\":{\"input_tokens\":3}}");
    assert!(whole.error_seen() && whole.usage().is_some_and(|usage| usage.prompt == 3));
    // An upstream that calls its error a stream.
    assert!(sideband(&[b"\n {\"error\":{}}"]).error_seen());
}

#[test]
fn sideband_knows_events_that_are_errors_or_the_last() {
    let events = |api, pieces: &[&[u8]]| {
        let mut sideband = Sideband::events(api);
        pieces.iter().for_each(|piece| sideband.feed(piece));
        sideband
    };
    let chunk = b"data: {\"id\":\"x\",\"choices\":[{\"delta\":{\"content\":\"an \\\"error\\\":{} \"}}]}\n\n";
    let late = b"data: {\"id\":\"chatcmpl-0123456789\",\"object\":\"chat.completion.chunk\",\"error\": {\"code\":500}}\n\n";
    assert!(!events(Api::Chat, &[chunk]).error_seen());
    for cut in 0..late.len() {
        let both = [&chunk[..], &late[..cut]].concat();
        assert!(events(Api::Chat, &[&both, &late[cut..]]).error_seen(), "{cut}");
    }
    assert!(!events(Api::Chat, &[&late[..late.len() - 1]]).error_seen(), "no blank line has ended it");
    assert_eq!(
        events(Api::Chat, &[b"data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"\"}]}\n\n"])
            .finish_reason(),
        None
    );
    // Ordered as a map orders its keys, and without a name.
    let last =
        b"data: {\"response\":{\"error\":null},\"sequence_number\":9,\"type\":\"response.completed\"}\n\n";
    assert!(events(Api::Responses, &[last]).terminal() && !events(Api::Responses, &[last]).error_seen());
    assert!(events(Api::Messages, &[b"data: {\"type\": \"message_stop\"}\n\n"]).terminal());
    let gemini = b"data: {\"candidates\": [{\"content\": {\"parts\": [{\"text\": \"a\"}]},\"finishReason\": \"MAX_TOKENS\"}]}\r\n\r\n";
    let gemini = events(Api::Gemini, &[gemini]);
    assert_eq!((gemini.terminal(), gemini.finish_reason()), (true, Some(FinishReason::Length)));
}

#[test]
fn sideband_passes_over_no_error_wherever_it_stands_in_a_segment() {
    for (before, after) in (0..100).flat_map(|a| (0..100).step_by(3).map(move |b| (a, b))) {
        let (x, y) = ("x".repeat(before), "y".repeat(after));
        let event = format!("data: {{\"{x}\":1,\"error\":{{}},\"{y}\":2}}\n\n");
        assert!(sideband(&[b"data: {}\n\n", event.as_bytes()]).error_seen(), "{event}");
    }
}

#[test]
fn errors_have_all_four_keys() {
    let error = ApiError::model_not_found("a\"b\n");
    assert_eq!(
        String::from_utf8(error.body()).unwrap(),
        "{\"error\":{\"message\":\"The model `a\\\"b\\n` is not configured here. Check its name, or add a route for \
         it.\",\"type\":\"invalid_request_error\",\"param\":\"model\",\"code\":\"model_not_found\"}}"
    );
    let plain = ApiError { code: None, ..ApiError::wrong_key() };
    let body: Value = serde_json::from_slice(&plain.body()).unwrap();
    assert_eq!(body["error"]["type"], "authentication_error");
    assert!(body["error"]["code"].is_null() && body["error"]["param"].is_null());
}

#[test]
fn types_follow_statuses_and_waits_are_told() {
    for (error, status, kind) in [
        (ApiError::no_route("GET", "/x"), 404, "invalid_request_error"),
        (ApiError::body_too_large(10), 413, "invalid_request_error"),
        (ApiError::model_not_allowed("team", Some("gpt")), 403, "invalid_request_error"),
        (ApiError::rate_limited("tokens", "key `team`", Duration::from_secs(2)), 429, "tokens"),
        (ApiError::connect_timeout(Duration::from_millis(1500)), 504, "server_error"),
        (ApiError::draining(), 503, "server_error"),
    ] {
        assert_eq!((error.status, error.kind), (status, kind));
    }
    assert!(ApiError::rate_limited("requests", "x", Duration::from_secs(2)).message.contains("in 2 s."));
    assert!(ApiError::connect_timeout(Duration::from_millis(1500)).message.contains("within 1.500 s."));
}
