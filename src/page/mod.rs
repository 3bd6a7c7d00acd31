//! What people look at: the playground, one embedded page.
#![allow(missing_docs)]
pub const PLAYGROUND: &[u8] = b"";
pub const CONTENT_TYPE: &str = "text/html; charset=utf-8";
pub const FIELDS: &[(&str, &str)] = &[];
