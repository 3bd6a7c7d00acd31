//! The request peek against serde_json, and against itself in pieces: whatever serde_json takes for an object, the peek
//! reads to its end, and finds the same `model` and `stream`, and no less than the `max_tokens` that are asked for.
//!
//! The first byte is the size of the pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sedge::testing::openai::{Peek, PeekState, Subject};
use serde_json::{Map, Value};

fuzz_target!(|data: &[u8]| {
    let Some((&size, body)) = data.split_first() else { return };
    let whole = peek(body, body.len().max(1));
    let split = peek(body, usize::from(size).max(1));
    assert_eq!(whole.state(), split.state());
    assert_eq!(whole.model(), split.model());
    assert_eq!(whole.model_span(), split.model_span());
    assert_eq!(whole.model_too_long(), split.model_too_long());
    assert_eq!(whole.stream(), split.stream());
    for subject in [Subject::Model, Subject::Stream, Subject::Tokens] {
        assert_eq!(whole.doubt(subject), split.doubt(subject));
    }
    assert_eq!((whole.choices(), whole.prompts()), (split.choices(), split.prompts()));
    assert_eq!(whole.max_tokens(), split.max_tokens());

    // The same bytes as parts of a form.
    let form = [b"--XyZ\r\nContent-Disposition: form-data; name=", body].concat();
    let (whole_form, split_form) = (form_peek(&form, form.len()), form_peek(&form, usize::from(size).max(1)));
    assert_eq!(whole_form.state(), split_form.state());
    assert_eq!((whole_form.model(), whole_form.model_span()), (split_form.model(), split_form.model_span()));
    if let (Some(model), Some(span)) = (whole_form.model(), whole_form.model_span()) {
        assert_eq!(&form[span.start as usize..span.end as usize], model.as_bytes());
    }

    let Ok(object) = serde_json::from_slice::<Map<String, Value>>(body) else { return };
    assert_eq!(whole.state(), PeekState::Done);
    assert_eq!(whole.stream(), object.get("stream").and_then(Value::as_bool));
    if let Some(most @ 1..) = object.get("max_tokens").and_then(Value::as_u64) {
        assert!(whole.max_tokens().is_some_and(|seen| seen as f64 >= most as f64));
    }
    let model = object.get("model").and_then(Value::as_str);
    assert_eq!(whole.model(), model.filter(|_| !whole.model_too_long()));
    if let Some(span) = whole.model_span() {
        let token = &body[span.start as usize..span.end as usize];
        assert_eq!(serde_json::from_slice::<String>(token).ok().as_deref(), model);
    }
});

fn peek(body: &[u8], size: usize) -> Peek {
    let mut peek = Peek::default();
    body.chunks(size).for_each(|piece| peek.feed(piece));
    peek
}

fn form_peek(body: &[u8], size: usize) -> Peek {
    let mut peek = Peek::of_form(b"multipart/form-data; boundary=XyZ").expect("a plain boundary");
    body.chunks(size).for_each(|piece| peek.feed(piece));
    peek
}
