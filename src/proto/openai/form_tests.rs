//! Forms as clients send them, and as nobody should.

use proptest::prelude::*;

use super::*;

const TYPE: &[u8] = b"multipart/form-data; boundary=XyZ";

fn read(pieces: &[&[u8]]) -> (FormState, Vec<Found>) {
    let (mut form, mut found, mut state) = (Form::of(TYPE).unwrap(), Vec::new(), FormState::NeedMore);
    pieces.iter().for_each(|piece| state = form.feed(piece, |field| found.push(field)));
    (state, found)
}

fn part_of(head: &str, content: &str) -> String {
    format!("--XyZ\r\nContent-Disposition: form-data; {head}\r\n\r\n{content}\r\n")
}

fn model(name: &str) -> Option<Option<Reason>> {
    match part(format!("Content-Disposition: form-data; {name}\r\n\r\n").as_bytes()) {
        Some(Part::Model(doubt)) => Some(doubt),
        _ => None,
    }
}

#[test]
fn a_model_is_found_wherever_it_stands() {
    let file = part_of("name=\"file\"; filename=\"model\"", "\r\n--Xy\r\n-\0\n\r--XyzZ");
    let field = part_of("name=\"model\"", "whisper-1");
    for body in [format!("{file}{field}--XyZ--\r\n"), format!("{field}{file}--XyZ--")] {
        for pieces in [vec![body.as_bytes()], body.as_bytes().chunks(1).collect()] {
            let (state, found) = read(&pieces);
            assert_eq!((state, found.len()), (FormState::Done, 1), "{body}");
            assert_eq!(found[0].value.as_deref(), Some(&b"whisper-1"[..]));
            let place = found[0].place.start as usize..found[0].place.end as usize;
            assert_eq!((&body[place], found[0].part), ("whisper-1", Part::Model(None)));
        }
    }
}

#[test]
fn a_part_is_called_what_every_reader_calls_it() {
    for clear in ["name=\"model\"", "name=model", "NAME = \"model\" ", "name=\"model\"; x=\"a;name=b\""] {
        assert_eq!(model(clear), Some(None), "{clear}");
    }
    for doubtful in [
        "name=\"Model\"",
        "name=\" model\"",
        "name=\"model\"; filename=\"a\"",
        "name=\"model\"; filename*=utf-8''a",
        "name=\"x\"; name=\"model\"",
    ] {
        assert!(matches!(model(doubtful), Some(Some(_))), "{doubtful}");
    }
    for unreadable in [
        "name*=utf-8''model",
        "name=\"x\"; name*=utf-8''model",
        "name=\"mod%65l\"",
        "name=\"mo\\del\"",
        "name=\"=?utf-8?q?model?=\"",
        "name=\"model",
        "name=\"model\"x",
        "name=x\r\n ; name=model",
        "name=x\r\nContent-Disposition: form-data; name=model",
        "name=x\nContent-Type: a",
    ] {
        let head = format!("Content-Disposition: form-data; {unreadable}\r\n\r\n");
        assert_eq!(part(head.as_bytes()), None, "{unreadable}");
    }
    for other in ["name=\"file\"; filename=\"na\\\"me=model\"", "name=\"models\"", "filename=\"model\"", ""] {
        assert_eq!(model(other), None, "{other}");
    }
    for coded in ["Content-Transfer-Encoding: base64", "Content-Type: text/plain; charset=utf-16"] {
        let head = format!("{coded}\r\nContent-Disposition: form-data; name=model\r\n\r\n");
        assert!(matches!(part(head.as_bytes()), Some(Part::Model(Some(_)))), "{coded}");
    }
}

#[test]
fn where_readers_would_see_other_parts_nothing_is_read() {
    let field = part_of("name=\"model\"", "a");
    for body in [
        format!("preamble\r\n{field}--XyZ--"),
        format!("\r\n{field}--XyZ--"),
        field.replace("--XyZ\r\n", "--XyZ \r\n"),
        field.replace("--XyZ\r\n", "--XyZ\n"),
        field.replace("\r\n", "\n"),
        format!("{}--XyZ--", part_of("name=\"x\"", "a\n--XyZ\r\n")),
        format!("{}--XyZ--", part_of("name=\"x\"", "a\r--XyZ\r\n")),
        format!("{}--XyZ--", part_of("name=\"x\"", "--XyZ")),
        format!("{}--XyZabc--", part_of("name=\"x\"", "b")),
        part_of(&format!("name=\"{}\"", "x".repeat(HEAD_BYTES_MAX)), ""),
    ] {
        assert_eq!(read(&[body.as_bytes()]).0, FormState::Malformed, "{body:?}");
    }
    for kind in [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=a; boundary=b",
        "multipart/form-data; boundary=a; Boundary=a",
        "multipart/form-data; boundary*=utf-8''a",
        "multipart/form-data; boundary=\"a\\b\"",
        "multipart/form-data; boundary=\"a",
        "multipart/form-data; boundary=a b",
    ] {
        assert!(Form::of(kind.as_bytes()).is_none(), "{kind}");
    }
    assert!(Form::of(b"multipart/form-data; boundary=\"a=b\"").is_some());
}

#[test]
fn no_more_is_kept_of_a_value_than_its_bound() {
    for (length, fits) in [(MAX_MODEL_BYTES, true), (MAX_MODEL_BYTES + 1, false), (1_000_000, false)] {
        let body = part_of("name=model", &"m".repeat(length)) + "--XyZ--";
        let (state, found) = read(&[body.as_bytes()]);
        assert_eq!((state, found[0].value.is_some()), (FormState::Done, fits), "{length}");
        assert_eq!(found[0].place.end - found[0].place.start, length as u64);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn it_says_the_same_however_it_is_cut(
        parts in prop::collection::vec(prop::sample::select(vec![
            "--XyZ", "--XyZ\r\n", "\r\n--XyZ\r\n", "\r\n--XyZ--", "\r\n", "\n", "\r", "--", "-", "Xy", "model",
            "Content-Disposition: form-data; name=model", "\r\n\r\n", "content-disposition: form-data; name=\"stream\"",
            "Content-Type: text/plain\r\n", "true", " ",
        ]), 0..24),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let body = format!("--XyZ\r\n{}", parts.concat());
        let whole = read(&[body.as_bytes()]);
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
        at.extend([0, body.len()]);
        at.sort_unstable();
        let split: Vec<&[u8]> = at.windows(2).map(|pair| &body.as_bytes()[pair[0]..pair[1]]).collect();
        let bytes: Vec<&[u8]> = body.as_bytes().chunks(1).collect();
        for pieces in [split, bytes] {
            let (state, found) = read(&pieces);
            prop_assert_eq!(&found, &whole.1);
            prop_assert_eq!(state, whole.0);
        }
        for Found { place, value, .. } in whole.1 {
            let place = &body.as_bytes()[place.start as usize..place.end as usize];
            prop_assert_eq!(Some(place), value.as_deref());
        }
    }

    #[test]
    fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..200), kind in prop::collection::vec(any::<u8>(), 0..60)) {
        read(&[b"--XyZ\r\nContent-Disposition: form-data; name=", &body]);
        let _ = Form::of(&kind);
        let _ = part(&body);
    }
}
