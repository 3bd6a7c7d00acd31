//! What the journal holds of streams: one entry a record, and behind it the payload if it has one.
//!
//! Each can be understood when those before it are gone: an append says where it begins, a trim what the appends before it had
//! taught of their producers.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::streams::model::lifetime::Lifetime;

/// One entry. The order of the variants, and of their fields, is the format: only the end may grow.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Entry<'a> {
    /// A stream begins, perhaps with something in it.
    #[serde(borrow)]
    Create(Create<'a>),
    /// Something was appended, or the stream was closed, or both.
    #[serde(borrow)]
    Append(Append<'a>),
    /// The stream was deleted.
    Delete {
        /// Which.
        stream: u64,
    },
    /// The stream has lost what was before `start`.
    #[serde(borrow)]
    Trim(Trim<'a>),
    /// Something was noted beside the streams, under a name; nothing behind it is that it is gone.
    Note {
        /// Its name.
        #[serde(borrow)]
        name: Cow<'a, str>,
        /// It is gone.
        gone: bool,
    },
    /// Something more was noted under a name, behind what was there.
    More {
        /// The name.
        #[serde(borrow)]
        name: Cow<'a, str>,
    },
    /// What an answer is called by whoever has made it.
    Answer {
        /// The stream.
        stream: u64,
        /// The name.
        #[serde(borrow)]
        name: Cow<'a, str>,
    },
}

/// A stream begins.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Create<'a> {
    /// Its number.
    pub(crate) stream: u64,
    #[serde(borrow)]
    pub(crate) name: Cow<'a, str>,
    pub(crate) content_type: Cow<'a, str>,
    pub(crate) epoch: u64,
    pub(crate) lifetime: Lifetime,
    /// In milliseconds since 1970.
    pub(crate) at: u64,
    pub(crate) order: u64,
    /// The stream it goes on from, and where.
    pub(crate) fork: Option<(u64, u64)>,
    /// Whose it is, if not everyone's.
    pub(crate) owner: Option<Cow<'a, str>>,
    pub(crate) closed: bool,
    /// Where the messages of its first content end.
    pub(crate) ends: Vec<u32>,
    /// It is an answer, written by the process that made it and nobody else.
    pub(crate) generated: bool,
}

/// Something was appended.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Append<'a> {
    pub(crate) stream: u64,
    pub(crate) start: u64,
    pub(crate) at: u64,
    pub(crate) order: u64,
    #[serde(borrow)]
    pub(crate) event: Option<Cow<'a, str>>,
    pub(crate) claim: Option<Claimed<'a>>,
    pub(crate) seq: Option<Cow<'a, str>>,
    pub(crate) close: bool,
    pub(crate) ends: Vec<u32>,
}

/// What a producer said.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Claimed<'a> {
    #[serde(borrow)]
    pub(crate) id: Cow<'a, str>,
    pub(crate) epoch: u64,
    pub(crate) seq: u64,
}

/// The beginning is gone.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Trim<'a> {
    pub(crate) stream: u64,
    pub(crate) start: u64,
    /// The last that is gone, in the order of all appends.
    pub(crate) lost: u64,
    /// The producers known by then.
    #[serde(borrow)]
    pub(crate) producers: Vec<Claimed<'a>>,
    pub(crate) seq: Option<Cow<'a, str>>,
}

impl Entry<'_> {
    /// The bytes of a record: the entry, and the payload behind it. Also says where that begins.
    pub(crate) fn write(&self, payload: &[u8]) -> (Vec<u8>, u32) {
        let mut out = postcard::to_extend(self, Vec::with_capacity(payload.len() + 128))
            .expect("an entry can be written: it has neither maps nor unknown lengths");
        let skip = out.len() as u32;
        out.extend_from_slice(payload);
        (out, skip)
    }
}

/// An entry, and the payload behind it.
pub(crate) fn read(bytes: &[u8]) -> Result<(Entry<'_>, &[u8]), String> {
    postcard::take_from_bytes(bytes)
        .map_err(|error| format!("it is no entry that this version knows ({error})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let entry = Entry::Append(Append {
            stream: 7,
            start: u64::MAX,
            at: 1,
            order: 2,
            event: Some("chat".into()),
            claim: Some(Claimed { id: "p".into(), epoch: 3, seq: 4 }),
            seq: None,
            close: true,
            ends: vec![1, 5],
        });
        let (bytes, skip) = entry.write(b"1,234,");
        let (read, payload) = read(&bytes).expect("it was just written");
        assert_eq!((read, payload), (entry, &b"1,234,"[..]));
        assert_eq!(&bytes[skip as usize..], payload);
    }

    #[test]
    fn damage_is_an_error() {
        assert!(read(&[200, 1, 2]).is_err());
        assert!(read(&[]).is_err());
    }
}
