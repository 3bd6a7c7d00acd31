//! What people look at: two pages, each with its style and script inside, made once and then served as bytes.
//!
//! | path | page |
//! | --- | --- |
//! | `/` | the playground: a request, its answer as it streams in, the same request as code |
//! | `/streams` | a durable stream: published to, watched, cut, resumed |
//!
//! A page is served from the edge's own origin, where requests may carry a client's key. So its policy is closed:
//! no asset from elsewhere, no connection but to this origin, no frame around it, and only the very script and style
//! that were built in, each by its hash. The hashes are taken from the page itself, once; an edit of the page cannot
//! leave them behind. A page holds no inline handlers and no `style` attributes, which such a policy refuses.
//!
//! The playground stands as it is served. What both pages have in common stands there, and is put into the other.

use std::sync::LazyLock;

use ring::digest::{SHA256, digest};

/// The value of `Content-Type` for every page.
pub(crate) const CONTENT_TYPE: &str = "text/html; charset=utf-8";

/// A page, ready to be served.
pub(crate) struct Page {
    /// Its bytes.
    html: String,
    /// The header fields that go with it, beside its type.
    fields: [(&'static str, &'static str); 4],
}

/// The playground, served at `/`.
pub(crate) fn playground() -> &'static Page {
    static PAGE: LazyLock<Page> = LazyLock::new(|| Page::new(PLAYGROUND.to_owned()));
    &PAGE
}

/// The page of durable streams, served at `/streams`.
pub(crate) fn streams() -> &'static Page {
    static PAGE: LazyLock<Page> = LazyLock::new(|| {
        let header = between(PLAYGROUND, "<header", "</header>")
            .replace("<span>playground</span>", "<span>streams</span>")
            .replace(r#"href="/streams">streams<"#, r#"href="/">playground<"#);
        let mut html = STREAMS.to_owned();
        for (place, common) in [
            ("{icon}", format!("<link rel=\"icon\"{}>", between(PLAYGROUND, "<link rel=\"icon\"", ">\n"))),
            ("{style}", between(PLAYGROUND, "<style>", "</style>").to_owned()),
            ("{header}", format!("<header{header}</header>")),
            (
                "{theme}",
                format!("// ── The theme{}", between(PLAYGROUND, "// ── The theme", "\n// ── Start")),
            ),
            (
                "{wire}",
                format!("// ── The wire{}", between(PLAYGROUND, "// ── The wire", "\nasync function textOf")),
            ),
        ] {
            html = html.replacen(place, &common, 1);
        }
        Page::new(html)
    });
    &PAGE
}

impl Page {
    fn new(html: String) -> Self {
        // There are two pages, made once and served as long as the process lives.
        let policy: &'static str = policy(&html).leak();
        Self {
            html,
            fields: [
                ("Content-Security-Policy", policy),
                ("X-Content-Type-Options", "nosniff"),
                ("Referrer-Policy", "no-referrer"),
                // A copy may be kept but is asked about each time: a page from before an upgrade would talk to an edge it
                // does not know.
                ("Cache-Control", "no-cache"),
            ],
        }
    }

    /// Its UTF-8 bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.html.as_bytes()
    }

    /// The header fields that go with it, beside its type.
    pub(crate) fn fields(&self) -> &[(&'static str, &'static str)] {
        &self.fields
    }

    #[cfg(test)]
    fn policy(&self) -> &'static str {
        self.fields[0].1
    }
}

/// The value of `Content-Security-Policy` (CSP Level 3).
fn policy(html: &str) -> String {
    let script = source_hash(between(html, "<script>", "</script>"));
    let style = source_hash(between(html, "<style>", "</style>"));
    format!(
        "default-src 'none'; script-src {script}; style-src {style}; img-src data:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'"
    )
}

const PLAYGROUND: &str = include_str!("playground.html");
const STREAMS: &str = include_str!("streams.html");

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

    fn pages() -> [&'static Page; 2] {
        [playground(), streams()]
    }

    #[test]
    fn the_policy_names_the_script_and_the_style_that_are_in_the_page() {
        for page in pages() {
            for tag in ["script", "style"] {
                let elements = page.html.matches(&format!("<{tag}")).count();
                assert_eq!(elements, 1, "one {tag} element, without attributes");
                let inside = between(&page.html, &format!("<{tag}>"), &format!("</{tag}>"));
                assert!(inside.len() > 1000, "the {tag} was not found");
                assert!(page.policy().contains(&format!("{tag}-src {}", source_hash(inside))));
            }
            assert!(page.policy().bytes().all(|b| (0x20..0x7f).contains(&b)), "a header value");
            assert!(page.policy().starts_with("default-src 'none'; "));
        }
    }

    #[test]
    fn a_page_is_whole_in_itself() {
        for page in pages() {
            for outside in [" src=", "@import", "url(", "style=\"", "onclick", "javascript:", "innerHTML"] {
                assert!(!page.html.contains(outside), "{outside} in the page");
            }
            assert!(!page.html.contains('\r'), "a browser hashes lines that end in LF");
            assert_eq!(page.html.matches("https://").count(), 0, "nothing is fetched from elsewhere");
        }
    }

    #[test]
    fn what_is_common_is_in_both() {
        for common in [
            "--reed:",
            "<svg class=\"mark\"",
            "function toggleTheme",
            "class SseParser",
            "<link rel=\"icon\" href=\"data:",
        ] {
            for page in pages() {
                assert_eq!(page.html.matches(common).count(), 1, "{common}");
            }
        }
        assert!(streams().html.contains("<a class=\"other\" href=\"/\">playground</a>"));
        for place in ["{icon}", "{style}", "{header}", "{theme}", "{wire}"] {
            assert!(!streams().html.contains(place), "{place} was not filled");
        }
    }
}
