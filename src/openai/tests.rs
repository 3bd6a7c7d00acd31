//! What is read in pieces against what serde_json reads whole.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::Value;

use super::{ApiError, FinishReason, MAX_MODEL_BYTES, Peek, PeekState, Sideband, USAGE_MAX_BYTES, Usage};

fn pieces<'a>(body: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
    at.extend([0, body.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| &body[pair[0]..pair[1]]).collect()
}

fn peeked(pieces: &[&[u8]]) -> Peek {
    let mut peek = Peek::default();
    pieces.iter().for_each(|piece| peek.feed(piece));
    peek
}

fn peek(body: &str) -> Peek {
    peeked(&[body.as_bytes()])
}

/// JSON text with the escapes and white space that a serialiser would not write.
fn json_text() -> impl Strategy<Value = String> {
    let string = prop::collection::vec(
        prop::sample::select(vec![
            "a",
            "model",
            "stream",
            "\\\"",
            "\\\\",
            "\\n",
            "\\u0041",
            "\\ud83d\\ude00",
            "é",
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            " ",
        ]),
        0..5,
    )
    .prop_map(|parts| format!("\"{}\"", parts.concat()));
    let leaf = prop_oneof![
        string,
        prop::sample::select(vec!["true", "false", "null", "1", "-2.5e+3", "[]", "{}", "\"gpt-4o\""])
            .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[ {} ]", items.join(" ,"))),
            prop::collection::vec((key(), inner), 0..4).prop_map(|fields| object(&fields)),
        ]
    })
}

fn key() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "model",
        "stream",
        "mod\\u0065l",
        "\\u0073tream",
        "messages",
        "n",
        "models",
        "strea",
        "é",
        "",
        "Model",
        "a\\\"b",
    ])
    .prop_map(str::to_owned)
}

fn object(fields: &[(String, String)]) -> String {
    let fields: Vec<String> = fields.iter().map(|(key, value)| format!("\n\"{key}\"\t: {value}")).collect();
    format!("{{{}}}", fields.join(" , "))
}

fn decoded(key: &str) -> String {
    serde_json::from_str(&format!("\"{key}\"")).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn peek_agrees_with_serde_json_however_the_body_is_split(
        fields in prop::collection::vec((key(), json_text()), 0..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let body = object(&fields);
        let whole: Value = serde_json::from_str(&body).unwrap();
        let count = |name: &str| fields.iter().filter(|(key, _)| decoded(key).eq_ignore_ascii_case(name)).count();
        for split in [pieces(body.as_bytes(), &cuts), body.as_bytes().chunks(1).collect()] {
            let peek = peeked(&split);
            prop_assert_eq!(peek.state(), PeekState::Done);
            prop_assert_eq!(peek.model(), whole["model"].as_str());
            prop_assert_eq!(peek.stream(), whole["stream"].as_bool());
            prop_assert_eq!(peek.duplicate(), count("model") > 1 || count("stream") > 1);
            let token = peek.model_span().map(|span| &body[span.start as usize..span.end as usize]);
            let token: Option<String> = token.map(|token| serde_json::from_str(token).unwrap());
            prop_assert_eq!(token.as_deref(), whole["model"].as_str());
        }
    }

    #[test]
    fn peek_says_the_same_of_garbage_however_it_is_split(
        garbage in "[{}\\[\\]\":,\\\\a-u0-9 ]{0,40}",
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let body = format!("{{\"model\":{garbage}");
        let (whole, split) = (peek(&body), peeked(&pieces(body.as_bytes(), &cuts)));
        prop_assert_eq!(whole.state(), split.state());
        prop_assert_eq!(whole.model(), split.model());
        prop_assert_eq!(whole.model_span(), split.model_span());
        if serde_json::from_str::<Value>(&body).is_ok() {
            prop_assert_eq!(whole.state(), PeekState::Done);
        }
    }

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
fn peek_reads_a_request() {
    let body = r#"{"messages":[{"model":"inner","stream":false}],"model":"gp\u0074-4o","stream":true}"#;
    let peek = peek(body);
    assert_eq!((peek.state(), peek.model(), peek.stream()), (PeekState::Done, Some("gpt-4o"), Some(true)));
    let span = peek.model_span().unwrap();
    assert_eq!(&body[span.start as usize..span.end as usize], r#""gp\u0074-4o""#);
    assert!(!peek.duplicate());
}

#[test]
fn peek_reads_how_much_is_asked_for() {
    for (body, most) in [
        (r#"{"max_tokens":17}"#, Some(17)),
        (r#"{"max_completion_tokens" : 9 ,"max_tokens":5}"#, Some(9)),
        (r#"{"max_output_tokens":1e3}"#, Some(1000)),
        (r#"{"MAX_TOKENS":2.5}"#, Some(3)),
        (r#"{"max\u005ftokens":7}"#, Some(7)),
        (r#"{"max_tokens":null}"#, None),
        (r#"{"max_tokens":-1}"#, Some(0)),
        (r#"{"max_tokens":"9"}"#, Some(u64::MAX)),
        (r#"{"max_tokens":[9]}"#, Some(u64::MAX)),
        (r#"{"max_tokens":true}"#, Some(u64::MAX)),
        (r#"{"max_tokens":1e999}"#, Some(u64::MAX)),
        (r#"{"max_tokens":00000000000000000000000005}"#, Some(u64::MAX)),
        (r#"{"x":{"max_tokens":5},"max_tokens_":6,"xmax_tokens":7}"#, None),
    ] {
        let whole = peek(body);
        assert_eq!((whole.max_tokens(), whole.state()), (most, PeekState::Done), "{body}");
        let split: Vec<&[u8]> = body.as_bytes().chunks(1).collect();
        assert_eq!(peeked(&split).max_tokens(), most, "{body}");
    }
}

#[test]
fn peek_tells_of_keys_that_readers_take_differently() {
    for body in [
        r#"{"model":"a","model":"a"}"#,
        r#"{"model":"a","mod\u0065l":"b"}"#,
        r#"{"model":"a","MODEL":"b"}"#,
        r#"{"stream":true,"stream":null}"#,
    ] {
        assert!(peek(body).duplicate(), "{body}");
    }
    assert_eq!(peek(r#"{"model":"a","model":5}"#).model(), None, "the last one counts, as in most readers");
}

#[test]
fn peek_states() {
    for (body, state) in [
        ("", PeekState::NeedMore),
        (" {\"model\":\"a\"", PeekState::NeedMore),
        ("{}", PeekState::Done),
        ("{} trailing", PeekState::Done),
        ("[{}]", PeekState::NotObject),
        ("--boundary", PeekState::NotObject),
        ("{,}", PeekState::Malformed),
        ("{\"a\":1,}", PeekState::Malformed),
        ("{\"a\" 1}", PeekState::Malformed),
        ("{\"a\":}", PeekState::Malformed),
        ("{\"a\":1 \"model\":\"x\"}", PeekState::Malformed),
        ("{\"mo\\del\":\"x\"}", PeekState::Malformed),
        ("{\"model\":\"\\ud800\"}", PeekState::Malformed),
        ("{\"model\":\"\\ud800\\n\"}", PeekState::Malformed),
        ("{\"model\":\"\\udc00\"}", PeekState::Malformed),
    ] {
        assert_eq!(peek(body).state(), state, "{body}");
    }
    assert_eq!(peeked(&[b"{\"model\":\"\xFF\"}"]).state(), PeekState::Malformed);
}

#[test]
fn peek_keeps_no_more_of_a_model_than_its_bound() {
    let fits = format!("{{\"model\":\"{}\"}}", "m".repeat(MAX_MODEL_BYTES));
    assert_eq!(peek(&fits).model().map(str::len), Some(MAX_MODEL_BYTES));
    let body = format!("{{\"model\":\"{}\"}}", "m".repeat(MAX_MODEL_BYTES + 1));
    let peek = peek(&body);
    assert_eq!((peek.model(), peek.model_too_long(), peek.state()), (None, true, PeekState::Done));
    assert_eq!(peek.model_span(), Some(9..body.len() as u64 - 1));
}

#[test]
fn peek_counts_deep_nesting_without_recursion() {
    let deep = 1_000_000;
    let body = format!("{{\"a\":{}{},\"model\":\"x\"}}", "[".repeat(deep), "]".repeat(deep));
    assert_eq!((peek(&body).model(), peek(&body).state()), (Some("x"), PeekState::Done));
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
    assert!(sideband(&[b"{\n    \"err", b"or\": {}}"]).error_seen());
    assert!(!sideband(&[b"{\"id\":1,\"error\":null}"]).error_seen());
    assert!(!sideband(&[b"data: {\"error\":{}}"]).error_seen());
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
fn an_error_in_a_stream_is_one_event_that_the_scanner_knows() {
    let mut scanner = crate::sse::Scanner::default();
    assert_eq!(scanner.feed(&ApiError::new(502, "code", "a\r\n\r\nb").event()), 1);
    assert!(scanner.error_seen() && scanner.at_boundary() && !scanner.terminal());
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
