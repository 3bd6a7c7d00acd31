//! What is read of a request in pieces against what serde_json reads whole.

use proptest::prelude::*;
use serde_json::Value;

use super::tests::pieces;
use super::{Doubt, MAX_MODEL_BYTES, Peek, PeekState, Reason, Subject};

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
        "\u{17F}tream",
        "\\u017ftream",
        "messages",
        "n",
        "N",
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
        // By Go's `encoding/json`, which folds case beyond ASCII.
        let folded = |key: &str| decoded(key).replace('\u{212A}', "k").replace('\u{17F}', "s").to_ascii_lowercase();
        let doubtful = |name: &str| {
            let spelt: Vec<_> = fields.iter().filter(|(key, _)| folded(key) == name).collect();
            spelt.len() > 1 || spelt.iter().any(|(key, _)| decoded(key) != name)
        };
        for split in [pieces(body.as_bytes(), &cuts), body.as_bytes().chunks(1).collect()] {
            let peek = peeked(&split);
            prop_assert_eq!(peek.state(), PeekState::Done);
            prop_assert_eq!(peek.model(), whole["model"].as_str());
            prop_assert_eq!(peek.stream(), whole["stream"].as_bool());
            let model = &whole["model"];
            let plain = (model.is_string() || model.is_null()) && !doubtful("model");
            prop_assert_eq!(peek.doubt(Subject::Model).is_none(), plain);
            let stream = &whole["stream"];
            let plain = (stream.is_boolean() || stream.is_null()) && !doubtful("stream");
            prop_assert_eq!(peek.doubt(Subject::Stream).is_none(), plain);
            let n = &whole["n"];
            let plain = (n.is_null() || n.as_f64().is_some_and(|n| n >= 0.0)) && !doubtful("n");
            prop_assert_eq!(peek.doubt(Subject::Tokens).is_none(), plain);
            if plain {
                prop_assert_eq!(peek.choices(), n.as_f64().unwrap_or_default().max(1.0).ceil() as u64);
            }
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
}

#[test]
fn peek_reads_a_request() {
    let body = r#"{"messages":[{"model":"inner","stream":false}],"model":"gp\u0074-4o","stream":true}"#;
    let peek = peek(body);
    assert_eq!((peek.state(), peek.model(), peek.stream()), (PeekState::Done, Some("gpt-4o"), Some(true)));
    let span = peek.model_span().unwrap();
    assert_eq!(&body[span.start as usize..span.end as usize], r#""gp\u0074-4o""#);
    assert_eq!((peek.doubt(Subject::Model), peek.doubt(Subject::Stream)), (None, None));
}

#[test]
fn peek_reads_how_much_is_asked_for() {
    for (body, most) in [
        (r#"{"max_tokens":17}"#, Some(17)),
        (r#"{"max_completion_tokens" : 9 ,"max_tokens":5}"#, Some(9)),
        (r#"{"max_output_tokens":1e3}"#, Some(1000)),
        (r#"{"max_tokens":2.5}"#, Some(3)),
        (r#"{"max_tokens":0}"#, None),
        (r#"{"max\u005ftokens":7}"#, Some(7)),
        (r#"{"max_tokens":null}"#, None),
        (r#"{"max_tokens":1e999}"#, Some(u64::MAX)),
        (r#"{"max_tokens":99999999999999999999}"#, Some(u64::MAX)),
        (r#"{"max_tokens":00000000000000000000000005}"#, Some(u64::MAX)),
        (r#"{"x":{"max_tokens":5},"max_tokens_":6,"xmax_tokens":7}"#, None),
    ] {
        let whole = peek(body);
        assert_eq!((whole.max_tokens(), whole.state()), (most, PeekState::Done), "{body}");
        assert_eq!(whole.doubt(Subject::Tokens), None, "{body}");
        let split: Vec<&[u8]> = body.as_bytes().chunks(1).collect();
        assert_eq!(peeked(&split).max_tokens(), most, "{body}");
    }
}

#[test]
fn peek_counts_how_many_answers_are_wanted() {
    for (body, choices, prompts) in [
        (r#"{"prompt":"a"}"#, 1, 1),
        (r#"{"n":3}"#, 3, 1),
        (r#"{"n":2,"best_of":5}"#, 5, 1),
        (r#"{"n":null,"best_of":0}"#, 1, 1),
        (r#"{"n":1e3}"#, 1000, 1),
        (r#"{"prompt":["a","],",[1,2],"\""]}"#, 1, 4),
        (r#"{"prompt":[1,2,3],"n":2}"#, 2, 1),
        (r#"{"prompt":[],"messages":[{"n":7}]}"#, 1, 1),
    ] {
        for split in [vec![body.as_bytes()], body.as_bytes().chunks(1).collect()] {
            let peek = peeked(&split);
            assert_eq!((peek.choices(), peek.prompts()), (choices, prompts), "{body}");
            assert_eq!((peek.state(), peek.doubt(Subject::Tokens)), (PeekState::Done, None), "{body}");
        }
    }
}

#[test]
fn peek_doubts_what_readers_take_differently() {
    for (body, subject, field, reason) in [
        (r#"{"model":"a","model":"a"}"#, Subject::Model, "model", Reason::Repeated),
        (r#"{"model":"a","mod\u0065l":"b"}"#, Subject::Model, "model", Reason::Repeated),
        (r#"{"model":"a","MODEL":"b"}"#, Subject::Model, "model", Reason::Repeated),
        (r#"{"MODEL":"b"}"#, Subject::Model, "model", Reason::Spelling),
        (r#"{"model":["a"]}"#, Subject::Model, "model", Reason::Value),
        (r#"{"stream":true,"stream":null}"#, Subject::Stream, "stream", Reason::Repeated),
        (r#"{"\u017Ftream":true}"#, Subject::Stream, "stream", Reason::Spelling),
        (r#"{"stream":"true"}"#, Subject::Stream, "stream", Reason::Value),
        (r#"{"stream":1}"#, Subject::Stream, "stream", Reason::Value),
        (r#"{"max_tokens":5,"max_tokens":null}"#, Subject::Tokens, "max_tokens", Reason::Repeated),
        ("{\"max_to\u{212A}ens\":5}", Subject::Tokens, "max_tokens", Reason::Spelling),
        (r#"{"max_tokens":-1}"#, Subject::Tokens, "max_tokens", Reason::Value),
        (r#"{"max_tokens":"9"}"#, Subject::Tokens, "max_tokens", Reason::Value),
        (r#"{"max_output_tokens":[9]}"#, Subject::Tokens, "max_output_tokens", Reason::Value),
        (r#"{"max_tokens":true}"#, Subject::Tokens, "max_tokens", Reason::Value),
        (r#"{"max_tokens":NaN}"#, Subject::Tokens, "max_tokens", Reason::Value),
        (r#"{"n":"2"}"#, Subject::Tokens, "n", Reason::Value),
        (r#"{"Best_Of":2}"#, Subject::Tokens, "best_of", Reason::Spelling),
    ] {
        let doubt = Some(Doubt { field, reason });
        assert_eq!(peek(body).doubt(subject), doubt, "{body}");
        let split: Vec<&[u8]> = body.as_bytes().chunks(1).collect();
        assert_eq!(peeked(&split).doubt(subject), doubt, "{body}");
        for other in [Subject::Model, Subject::Stream, Subject::Tokens] {
            assert!(other == subject || peek(body).doubt(other).is_none(), "{body}");
        }
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
        ("\u{FEFF}{}", PeekState::NotUtf8),
        ("\0{\0}", PeekState::NotUtf8),
        ("{\0}\0", PeekState::NotUtf8),
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
    for bom in [&b"\xFF\xFE{\0"[..], b"\xFE\xFF\0{", b"\xFF\xFE\0\0{\0\0\0", b"\0\0\0{"] {
        assert_eq!(peeked(&[bom]).state(), PeekState::NotUtf8);
    }
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
