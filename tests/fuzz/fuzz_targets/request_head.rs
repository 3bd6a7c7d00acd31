//! A request head that is accepted is one to httparse, too, with the same parts; the verdict does not depend on cuts.
//!
//! The first byte chooses where the rest is cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sedge::testing::http1::Version;
use sedge::testing::http1::request::{self, HeadScanner, RequestHead};

fuzz_target!(|data: &[u8]| {
    let Some((&cut, bytes)) = data.split_first() else { return };
    let whole = HeadScanner::default().scan(bytes);
    let accepted = matches!(whole, Ok(Some(end)) if request::parse(&bytes[..end]).is_ok());

    let cut = usize::from(cut).min(bytes.len());
    let mut scanner = HeadScanner::default();
    let mut in_pieces = scanner.scan(&bytes[..cut]);
    if in_pieces == Ok(None) {
        in_pieces = scanner.scan(bytes);
    }
    match (whole, in_pieces) {
        (Ok(None), pieces) => assert_eq!(pieces, Ok(None)),
        _ if accepted => assert_eq!(in_pieces, whole),
        (_, Ok(Some(end))) => assert!(request::parse(&bytes[..end]).is_err()),
        (_, pieces) => assert!(pieces.is_err()),
    }

    if let Ok(Some(end)) = whole
        && let Ok(head) = request::parse(&bytes[..end])
    {
        agrees_with_httparse(&head, &bytes[..end]);
        let forwarded: Vec<_> = head.forwarded().collect();
        assert!(forwarded.len() <= head.fields.len());
    }
});

fn agrees_with_httparse(head: &RequestHead<'_>, bytes: &[u8]) {
    // httparse knows no minor version above 1.
    let line_end = bytes[2..].iter().position(|&b| b == b'\r').expect("a request line") + 2;
    let mut as_11 = bytes.to_vec();
    if head.version == Version::Http11 {
        as_11[line_end - 1] = b'1';
    }
    let mut fields = [httparse::EMPTY_HEADER; request::FIELD_COUNT];
    let mut theirs = httparse::Request::new(&mut fields);
    assert_eq!(theirs.parse(&as_11), Ok(httparse::Status::Complete(bytes.len())));
    assert_eq!(theirs.method, Some(head.method));
    assert!(theirs.path.is_some_and(|path| path.ends_with(&*head.target) || head.target.starts_with("/?") || head.target == "/"));
    assert_eq!(theirs.version, Some(u8::from(head.version == Version::Http11)));
    let theirs: Vec<_> = theirs.headers.iter().map(|field| (field.name, field.value)).collect();
    let ours: Vec<_> = head.fields.iter().map(|field| (field.name, field.value)).collect();
    assert_eq!(ours, theirs);
}
