//! What people look at: the playground, one page with its style and script inside, embedded as bytes.
//!
//! The page is served from the edge's own origin, where requests may carry a client's key. So its policy is closed:
//! no asset from elsewhere, no connection but to this origin, no frame around it, and only the very script and style
//! that were built in, each by its hash. The hashes are taken from the page itself, once; an edit of the page cannot
//! leave them behind. The page holds no inline handlers and no `style` attributes, which such a policy refuses.

use std::sync::LazyLock;

use ring::digest::{SHA256, digest};

/// The playground: UTF-8 HTML, served at `/`.
pub const PLAYGROUND: &[u8] = PAGE.as_bytes();

/// The value of `Content-Type` for [`PLAYGROUND`].
pub const CONTENT_TYPE: &str = "text/html; charset=utf-8";

/// The header fields that go with [`PLAYGROUND`], beside its type. A copy may be kept but is asked about each time:
/// a page from before an upgrade would talk to an edge it does not know.
pub fn fields() -> &'static [(&'static str, &'static str)] {
    static FIELDS: LazyLock<[(&str, &str); 4]> = LazyLock::new(|| {
        [
            ("Content-Security-Policy", policy()),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cache-Control", "no-cache"),
        ]
    });
    &*FIELDS
}

/// The value of `Content-Security-Policy` (CSP Level 3).
fn policy() -> &'static str {
    static POLICY: LazyLock<String> = LazyLock::new(|| {
        let script = source_hash(between(PAGE, "<script>", "</script>"));
        let style = source_hash(between(PAGE, "<style>", "</style>"));
        format!(
            "default-src 'none'; script-src {script}; style-src {style}; img-src data:; connect-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
             require-trusted-types-for 'script'; trusted-types 'none'"
        )
    });
    &POLICY
}

const PAGE: &str = include_str!("playground.html");

/// A `hash-source` of CSP Level 3, section 2.3.1.
fn source_hash(source: &str) -> String {
    format!("'sha256-{}'", base64(digest(&SHA256, source.as_bytes()).as_ref()))
}

/// What stands between the first `open` and the `close` after it; empty when there is none, so that the policy
/// then refuses everything.
fn between<'a>(page: &'a str, open: &str, close: &str) -> &'a str {
    page.split_once(open).and_then(|(_, rest)| rest.split_once(close)).map_or("", |(inside, _)| inside)
}

/// RFC 4648, section 4, with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let [a, b, c] = [0, 1, 2].map(|i| u32::from(group.get(i).copied().unwrap_or(0)));
        let bits = a << 16 | b << 8 | c;
        for i in 0..4 {
            let digit = (bits >> (18 - 6 * i) & 63) as usize;
            out.push(if i <= group.len() { char::from(ALPHABET[digit]) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_the_vectors_of_rfc_4648() {
        let vectors = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
        ];
        for (plain, encoded) in vectors {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xfe]), "+//+");
    }

    #[test]
    fn a_source_hash_is_the_one_browsers_compute() {
        // The example of CSP Level 3, section 8.3.
        assert_eq!(
            source_hash("alert('Hello, world.');"),
            "'sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng='"
        );
    }

    #[test]
    fn the_policy_names_the_script_and_the_style_that_are_in_the_page() {
        for tag in ["script", "style"] {
            assert_eq!(PAGE.matches(&format!("<{tag}")).count(), 1, "one {tag} element, without attributes");
            let inside = between(PAGE, &format!("<{tag}>"), &format!("</{tag}>"));
            assert!(inside.len() > 1000, "the {tag} was not found");
            assert!(policy().contains(&format!("{tag}-src {}", source_hash(inside))));
        }
        assert!(policy().bytes().all(|b| (0x20..0x7f).contains(&b)), "a header value");
        assert!(policy().starts_with("default-src 'none'; "));
    }

    #[test]
    fn the_page_is_whole_in_itself() {
        for outside in [" src=", "@import", "url(", "style=\"", "onclick", "javascript:", "innerHTML"] {
            assert!(!PAGE.contains(outside), "{outside} in the page");
        }
        assert!(!PAGE.contains('\r'), "a browser hashes lines that end in LF");
        assert_eq!(PAGE.matches("https://").count(), 0, "nothing is fetched from elsewhere");
    }
}
