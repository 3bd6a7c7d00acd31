//! A response head that is accepted is one to httparse, too, with the same parts, and its end is found wherever cut.
//!
//! The first byte chooses where the rest is cut, and whether it answers a HEAD.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sedge::testing::http1::Version;
use sedge::testing::http1::body::BodyDecoder;
use sedge::testing::http1::response::{self, find_head_end};

fuzz_target!(|data: &[u8]| {
    let Some((&choice, bytes)) = data.split_first() else { return };
    let whole = find_head_end(bytes, 0);
    let cut = usize::from(choice).min(bytes.len());
    let first = find_head_end(&bytes[..cut], 0);
    assert_eq!(if first == Ok(None) { find_head_end(bytes, cut) } else { first }, whole);

    let Ok(Some(end)) = whole else { return };
    let Ok(head) = response::parse(&bytes[..end], choice & 1 == 1) else { return };
    let mut fields = [httparse::EMPTY_HEADER; response::FIELD_COUNT];
    let mut theirs = httparse::Response::new(&mut fields);
    let mut as_11 = bytes[..end].to_vec();
    if head.version == Version::Http11 {
        as_11[7] = b'1';
    }
    assert_eq!(theirs.parse(&as_11), Ok(httparse::Status::Complete(end)));
    assert_eq!(theirs.code, Some(head.status));
    let theirs: Vec<_> = theirs.headers.iter().map(|field| (field.name, field.value)).collect();
    let ours: Vec<_> = head.fields.iter().map(|field| (field.name, field.value)).collect();
    assert_eq!(ours, theirs);

    let mut rest = bytes[end..].to_vec();
    if let Ok(decoded) = BodyDecoder::from(head.body).decode_in_place(&mut rest) {
        assert_eq!(rest[decoded.consumed..], bytes[end + decoded.consumed..]);
    }
});
