//! Tests of what the parts of this room promise each other; whole requests are judged in `tests/http1_core.rs`.

use super::body::BodyDecoder;
use super::chunked::{ChunkDecoder, ChunkError, SIZE_LINE_BYTES, payloads, size_line};
use super::fields::{is_hop_by_hop, write_field};
use super::request::{self, HeadScanner, RequestBody};
use super::response::{self, ResponseBody, find_head_end};
use super::{Reject, Version, line};

const PLAIN: &str = "POST /v1/chat/completions HTTP/1.1\r\nHost: a.example:8080\r\nAuthorization: Bearer k\r\n\
    Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nTE: trailers\r\nContent-Length: 12\r\nX-Odd: \ta\tb\u{e9} \t\r\n\r\n";

fn status_of(head: &str) -> u16 {
    request::parse(head.as_bytes()).err().map_or(0, |reject| reject.status)
}

/// The status a GET of HTTP/1.1 with these fields beside Host is refused with, 0 if it is not.
fn status_with(fields: &str) -> u16 {
    status_of(&format!("GET / HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n"))
}

fn scan_bytewise(bytes: &[u8]) -> Result<Option<usize>, Reject> {
    let mut scanner = HeadScanner::default();
    for end in 1..=bytes.len() {
        if let Some(head) = scanner.scan(&bytes[..end])? {
            assert_eq!(head, end, "found late");
            return Ok(Some(head));
        }
    }
    Ok(None)
}

#[test]
fn a_plain_head_is_laid_open() {
    let head = request::parse(PLAIN.as_bytes()).expect("well-formed");
    assert_eq!((head.method, &*head.target, head.version), ("POST", "/v1/chat/completions", Version::Http11));
    assert_eq!(head.body, RequestBody::Length(12));
    assert!(head.keep_alive && !head.expect_continue);
    assert_eq!(head.field("AUTHORIZATION"), Some(&b"Bearer k"[..]));
    assert_eq!(head.field("x-odd"), Some("a\tb\u{e9}".as_bytes()));
    let forwarded: Vec<_> = head.forwarded().map(|field| field.name).collect();
    assert_eq!(forwarded, ["Authorization", "X-Odd"]);
}

#[test]
fn a_head_is_found_at_once_and_byte_by_byte() {
    let body = format!("{PLAIN}{{\"a\": 1}}");
    assert_eq!(HeadScanner::default().scan(body.as_bytes()), Ok(Some(PLAIN.len())));
    assert_eq!(scan_bytewise(PLAIN.as_bytes()), Ok(Some(PLAIN.len())));
    let led = format!("\r\n{PLAIN}");
    assert_eq!(scan_bytewise(led.as_bytes()), Ok(Some(led.len())));
    assert_eq!(request::parse(led.as_bytes()).map(|head| head.fields.len()), Ok(7));
}

#[test]
fn a_hopeless_head_is_refused_before_it_is_complete() {
    let long = "a".repeat(8200);
    let many = "X: v\r\n".repeat(101);
    let start = "GET / HTTP/1.1\r\n";
    let wide = format!("X: {}\r\n", &long[..8000]).repeat(5);
    let cases: [(String, u16); 16] = [
        ("\r\n\r\n".into(), 400),
        ("\n".into(), 400),
        ("GET / HTTP/1.1\n".into(), 400),
        ("GET / HTTP/2.0\r\n".into(), 505),
        ("GET  / HTTP/1.1\r\n".into(), 400),
        ("\x16".into(), 400),
        (format!("GET /{long}"), 414),
        (long[..33].into(), 501),
        (format!("{start} "), 400),
        (format!("{start}Host : a\r\n"), 400),
        (format!("{start}Host\r\n"), 400),
        (format!("{start}: a\r\n"), 400),
        (format!("{start}A\rB"), 400),
        (format!("{start}A: {long}"), 431),
        (format!("{start}{many}"), 431),
        (format!("{start}{wide}"), 431),
    ];
    for (head, status) in cases {
        let shown = &head[..head.len().min(40)];
        assert_eq!(scan_bytewise(head.as_bytes()).map_err(|reject| reject.status), Err(status), "{shown:?}");
        let whole = HeadScanner::default().scan(head.as_bytes());
        match whole {
            Ok(Some(end)) => assert_eq!(status_of(&head[..end]), status, "{shown:?}"),
            other => assert_eq!(other.map_err(|reject| reject.status), Err(status), "{shown:?}"),
        }
    }
}

#[test]
fn limits_are_exact() {
    let target = |n: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(n - 14));
    assert_eq!((status_of(&target(8192)), status_of(&target(8193))), (0, 414));
    let field = |n: usize| status_with(&format!("X: {}\r\n", "a".repeat(n - 3)));
    assert_eq!((field(8190), field(8191)), (0, 431));
    let count = |n: usize| status_with(&"X: v\r\n".repeat(n - 1));
    assert_eq!((count(100), count(101)), (0, 431));
    let section = |n: usize| {
        let rest = n - 2 - "Host: a.example\r\n".len() - 4 * 8005;
        status_with(&format!("X: {}\r\n", "a".repeat(8000)).repeat(4))
            + status_with(&format!(
                "{}Y: {}\r\n",
                format!("X: {}\r\n", "a".repeat(8000)).repeat(4),
                "a".repeat(rest - 5)
            ))
    };
    assert_eq!((section(32_768), section(32_769)), (0, 431));
}

#[test]
fn framing_that_can_be_read_in_two_ways_is_refused() {
    for (fields, status) in [
        ("Content-Length: 3\r\n", 0),
        ("Content-Length: 9223372036854775807\r\n", 0),
        ("Transfer-Encoding: Chunked\r\n", 0),
        ("Content-Length: 9223372036854775808\r\n", 400),
        ("Content-Length: 3\r\nContent-Length: 3\r\n", 400),
        ("Content-Length: 3, 3\r\n", 400),
        ("Content-Length: +3\r\n", 400),
        ("Content-Length:\r\n", 400),
        ("Content-Length: 0x3\r\n", 400),
        ("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Transfer-Encoding: chunked, chunked\r\n", 400),
        ("Transfer-Encoding: chunked,\r\n", 400),
        ("Transfer-Encoding: identity\r\n", 400),
        ("Transfer-Encoding: chunked, gzip\r\n", 400),
        ("Transfer-Encoding: \"chunked\"\r\n", 400),
        ("Transfer-Encoding: gzip, chunked\r\n", 501),
        ("Transfer_Encoding: x\r\n", 400),
        ("Content_Length: 3\r\n", 400),
        ("Expect: 100-Continue\r\n", 0),
        ("Expect: 200-ok\r\n", 417),
        ("Host: a.example\r\n", 400),
    ] {
        assert_eq!(status_with(fields), status, "{fields:?}");
    }
    assert_eq!(status_of("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
}

#[test]
fn targets_and_hosts() {
    let get = |target: &str, host: &str| status_of(&format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    for (target, host, status) in [
        ("http://A.example/x", "a.example", 0),
        ("https://[::1]:8080", "[::1]:8080", 0),
        ("/", "[v1.x:y]", 0),
        ("/", "a%41b:", 0),
        ("http://a?x", "a", 0),
        ("http://a:80?x/y", "a:80", 0),
        ("*", "a", 400),
        ("a", "a", 400),
        ("ftp://a/", "a", 400),
        ("http://u@a/", "a", 400),
        ("http://b/", "a", 400),
        ("/a#b", "a", 400),
        ("/\u{e9}", "a", 400),
        ("/", "", 400),
        ("/", ":", 400),
        ("/", ":80", 400),
        ("http://:80/", ":80", 400),
        ("http://?x", "a", 400),
        ("/", "a,b", 400),
        ("/", "a b", 400),
        ("/", "a/b", 400),
        ("/", "a:b", 400),
        ("/", "u@a", 400),
        ("/", "a%4", 400),
        ("/", "[::1", 400),
        ("/", "[::1]x", 400),
    ] {
        assert_eq!(get(target, host), status, "{target} {host}");
    }
    let target = |line: &'static str| request::parse(line.as_bytes()).map(|head| head.target.into_owned());
    assert_eq!(target("GET http://a/x?y HTTP/1.1\r\nHost: a\r\n\r\n"), Ok("/x?y".into()));
    assert_eq!(target("GET http://a?x=/y HTTP/1.1\r\nHost: a\r\n\r\n"), Ok("/?x=/y".into()));
    assert_eq!(target("GET http://a HTTP/1.1\r\nHost: a\r\n\r\n"), Ok("/".into()));
    assert_eq!(target("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"), Ok("*".into()));
    assert_eq!(target("PURGE /x HTTP/1.0\r\n\r\n"), Ok("/x".into()));
    assert_eq!(status_of("GET / HTTP/1.1\r\n\r\n"), 400);
    assert_eq!(status_of("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n"), 405);
    assert_eq!(status_of("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n"), 405);
}

#[test]
fn connection_ends_fields_here_but_not_those_that_protect() {
    let head = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, Authorization, x-a, Content-Length\r\nX-A: 1\r\n\
        Authorization: k\r\nContent-Length: 5\r\nKeep-Alive: 1\r\nProxy-Connection: 1\r\nTrailer: a\r\n\
        Upgrade: h2c\r\nHTTP2-Settings: a\r\nProxy-Authorization: b\r\nExpect: 100-continue\r\n\r\n";
    let head = request::parse(head.as_bytes()).expect("well-formed");
    assert!(!head.keep_alive && head.expect_continue);
    assert_eq!(head.body, RequestBody::Length(5));
    assert_eq!(head.forwarded().map(|field| field.name).collect::<Vec<_>>(), ["Authorization"]);
    let many = format!("Connection: {}\r\n", "a,".repeat(33));
    assert_eq!(status_with(&many), 400);
    assert!(is_hop_by_hop("transfer-ENCODING") && !is_hop_by_hop("x"));
}

#[test]
fn persistence_follows_the_version() {
    let alive = |line: &str| request::parse(line.as_bytes()).map(|head| head.keep_alive);
    assert_eq!(alive("GET / HTTP/1.0\r\n\r\n"), Ok(false));
    assert_eq!(alive("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"), Ok(true));
    assert_eq!(alive("GET / HTTP/1.1\r\nHost: a\r\nConnection: foo , CLOSE\r\n\r\n"), Ok(false));
}

#[test]
fn eight_bytes_at_once_judge_as_one_does() {
    for b in 0..=255 {
        for place in 0..20 {
            let mut text = *b"Abz09-AZazAbz09-AZaz";
            text[place] = b;
            assert_eq!(
                line::token_end(&text, 0),
                if line::is_token_byte(b) { 20 } else { place },
                "{b} {place}"
            );
            assert_eq!(
                line::text_end(&text, 0),
                if line::is_text_byte(b) { 20 } else { place },
                "{b} {place}"
            );
        }
    }
}

#[test]
fn responses() {
    let parse = |head: &'static str, to_head| {
        response::parse(head.as_bytes(), to_head).map(|r| (r.status, r.reason, r.body, r.keep_alive)).ok()
    };
    use ResponseBody as B;
    for (head, want) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", Some((200, "OK", B::Length(3), true))),
        ("HTTP/1.1 200\r\ntransfer-encoding: chunked\r\n\r\n", Some((200, "", B::Chunked, true))),
        ("HTTP/1.1 200 \r\n\r\n", Some((200, "", B::Close, false))),
        ("HTTP/1.0 200 A B\r\nContent-Length: 0\r\n\r\n", Some((200, "A B", B::Length(0), false))),
        ("HTTP/1.1 204 No\r\nContent-Length: 3\r\n\r\n", Some((204, "No", B::None, false))),
        ("HTTP/1.1 304 No\r\nContent-Length: 3\r\n\r\n", Some((304, "No", B::None, true))),
        ("HTTP/1.1 103 E\r\nLink: a\r\n\r\n", Some((103, "E", B::None, true))),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", None),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", None),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n", None),
        ("HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", None),
        ("HTTP/1.1 200 OK\r\nA : b\r\n\r\n", None),
        ("HTTP/1.1 099 OK\r\n\r\n", None),
        ("HTTP/2.0 200 OK\r\n\r\n", None),
        ("HTTP/1.1 200OK\r\n\r\n", None),
        ("HTTP/1.1 200 O\x01\r\n\r\n", None),
        ("ICY 200 OK\r\n\r\n", None),
    ] {
        assert_eq!(parse(head, false), want, "{head:?}");
    }
    let to_head = parse("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", true);
    assert_eq!(to_head, Some((200, "OK", B::None, true)));
}

#[test]
fn the_end_of_a_response_head_is_found_across_reads() {
    let bytes = b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nxyz";
    for cut in 0..bytes.len() {
        let first = find_head_end(&bytes[..cut], 0);
        assert_eq!(first, Ok((cut >= 25).then_some(25)));
        assert_eq!(find_head_end(bytes, cut.min(24)), Ok(Some(25)));
    }
    assert!(find_head_end(b"HTTP/1.1 200 OK\nA: b\n\n", 0).is_err());
    assert!(find_head_end(&[b'a'; response::HEAD_BYTES], 0) == Ok(None));
    assert!(find_head_end(&[b'a'; response::HEAD_BYTES + 1], 0).is_err());
}

fn decode(body: &[u8]) -> Result<(Vec<u8>, usize, bool), ChunkError> {
    let mut buf = body.to_vec();
    let decoded = ChunkDecoder::new().decode_in_place(&mut buf)?;
    assert_eq!(&buf[decoded.consumed..], &body[decoded.consumed..], "touched the next message");
    buf.truncate(decoded.payload);
    Ok((buf, decoded.consumed, decoded.ended))
}

#[test]
fn chunks_are_read_strictly() {
    use ChunkError as E;
    assert!(size_of::<ChunkDecoder>() <= 24);
    let flood = format!("1;{}\r\nx\r\n", "a".repeat(4095));
    let trailers = format!("0\r\n{}\r\n", "X: v\r\n".repeat(11_000));
    for (body, want) in [
        (
            "5;a=\"b\\\"\t\";c ; d = e\r\nhello\r\nA\r\n0123456789\r\n000\r\nX: y\r\n\r\nGET",
            Ok("hello0123456789"),
        ),
        ("5 ;a=b\r\nhello\r\n0\r\n\r\n", Ok("hello")),
        ("5 \r\n", Err(E::Size)),
        ("\r\n", Err(E::Size)),
        ("-1\r\n", Err(E::Size)),
        ("0x5\r\n", Err(E::Size)),
        ("fffffffffffffff\r\n", Ok("")),
        ("1000000000000000\r\n", Err(E::SizeTooLarge)),
        ("00000000000000001", Err(E::SizeTooLarge)),
        ("5\n", Err(E::Size)),
        ("5\rh", Err(E::LineEnd)),
        ("1\r\nab", Err(E::LineEnd)),
        ("5;\r\n", Err(E::Extension)),
        ("5;a=\r\n", Err(E::Extension)),
        ("5;a=b \r\n", Err(E::Extension)),
        ("5;a\n", Err(E::Extension)),
        ("5;a=\"\x7f\"", Err(E::Extension)),
        ("0\r\n x: y\r\n", Err(E::Trailer)),
        ("0\r\nx y\r\n", Err(E::Trailer)),
        ("0\r\nx: \0\r\n", Err(E::Trailer)),
        ("0\r\nx: \n", Err(E::Trailer)),
        (&format!("1;{}\r\nx\r\n", "a".repeat(4096)), Err(E::ExtensionTooLarge)),
        (&flood.repeat(65), Err(E::ExtensionTooLarge)),
        (&trailers, Err(E::TrailerTooLarge)),
    ] {
        let got = decode(body.as_bytes()).map(|(payload, ..)| payload);
        assert_eq!(got, want.map(|text| text.as_bytes().to_vec()), "{:?}", &body[..body.len().min(60)]);
    }
    let mut failed = ChunkDecoder::new();
    assert_eq!(failed.decode_in_place(&mut b"x".to_vec()), Err(E::Size));
    assert_eq!(failed.decode_in_place(&mut b"0\r\n\r\n".to_vec()), Err(E::Size), "an error is for good");
}

#[test]
fn whole_chunks_are_told_from_others() {
    for (buf, want) in [
        ("5\r\nhello\r\n", Some(false)),
        ("5\r\nhello\r\n1A\r\nabcdefghijklmnopqrstuvwxyz\r\n", Some(false)),
        ("5\r\nhello\r\n0\r\n\r\n", Some(true)),
        ("0\r\n\r\n", Some(true)),
        ("", None),
        ("05\r\nhello\r\n", None),
        ("5;a\r\nhello\r\n", None),
        ("5\r\nhello\r", None),
        ("5\r\nhello\r\n0\r\n", None),
        ("0\r\nX: y\r\n\r\n", None),
        ("0\r\n\r\nGET", None),
        ("fffffffffffffff\r\n", None),
    ] {
        let mut decoder = ChunkDecoder::new();
        assert_eq!(decoder.whole(buf.as_bytes()).map(|whole| whole.ended), want, "{buf:?}");
        assert_eq!(decoder.finished(), want == Some(true));
    }
    let all: Vec<_> = payloads(b"5\r\nhello\r\n1\r\n \r\n0\r\n\r\n").collect();
    assert_eq!(all, [&b"hello"[..], b" "]);
    let mut within = ChunkDecoder::new();
    within.decode_in_place(&mut b"5\r\nh".to_vec()).expect("well-formed");
    assert_eq!(within.whole(b"5\r\nhello\r\n"), None);
}

#[test]
fn sizes_and_fields_are_written() {
    let mut room = [0; SIZE_LINE_BYTES];
    for (n, text) in [(1, "1\r\n"), (0xdb, "db\r\n"), (usize::MAX, "ffffffffffffffff\r\n")] {
        let start = size_line(n, &mut room);
        assert_eq!(&room[start..], text.as_bytes());
    }
    let mut out = Vec::new();
    write_field(&mut out, "a", b"b");
    assert_eq!(out, b"a: b\r\n");
}

#[test]
fn bodies_end_as_their_head_says() {
    let mut buf = *b"hello";
    let mut three = BodyDecoder::from(RequestBody::Length(3));
    let decoded = three.decode_in_place(&mut buf).expect("cannot fail");
    assert_eq!((decoded.payload, decoded.consumed, decoded.ended), (3, 3, true));
    let mut close = BodyDecoder::from(ResponseBody::Close);
    let decoded = close.decode_in_place(&mut buf).expect("cannot fail");
    assert_eq!((decoded.payload, decoded.consumed, decoded.ended), (5, 5, false));
    assert!(
        BodyDecoder::from(RequestBody::Length(0)).finished()
            && BodyDecoder::from(ResponseBody::None).finished()
    );
    assert!(!BodyDecoder::from(ResponseBody::Chunked).finished());
}
