//! What is kept of a subscription beyond the process: JSON records, the first of them whole and the others what has changed
//! since, so that an acknowledgement of one stream among thousands writes one stream.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::UnixMillis;
use super::links::{Cursor, Link, Links};
use super::phase::Phase;
use super::settings::Settings;
use super::subscription::Subscription;

/// A subscription is written whole again when what has changed has taken more bytes than that takes, and more than this.
const CHANGES_BYTES_MIN: usize = 64 << 10;

/// Why a record cannot be taken up.
#[derive(Debug)]
#[non_exhaustive]
pub(crate) enum BadRecord {
    /// It is not one that this version writes.
    Json(serde_json::Error),
    /// It says what has changed in a subscription that is not known.
    Unknown(String),
}

impl fmt::Display for BadRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadRecord::Json(error) => {
                write!(f, "it is no record of a subscription that this version knows ({error})")
            }
            BadRecord::Unknown(id) => {
                write!(f, "it goes on from an earlier record of the subscription `{id}`, which is missing")
            }
        }
    }
}

impl std::error::Error for BadRecord {}

#[derive(Serialize, Deserialize)]
pub(crate) struct Record<'a> {
    pub(crate) id: Cow<'a, str>,
    life: u64,
    /// In whole records alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    made: Option<Made<'a>>,
    generation: u64,
    phase: Cow<'a, Phase>,
    failures: u32,
    /// The last stream that a wake has shown for its work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shown: Option<Cow<'a, str>>,
    streams: Vec<Stream<'a>>,
}

/// What never changes.
#[derive(Serialize, Deserialize)]
struct Made<'a> {
    settings: Cow<'a, Settings>,
    origin: Cow<'a, str>,
    created_at: UnixMillis,
    /// The key whose it is; none is everyone's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<Cow<'a, str>>,
}

#[derive(Serialize, Deserialize)]
struct Stream<'a> {
    path: Cow<'a, str>,
    /// Neither: it is one of the subscription's no more.
    explicit: bool,
    glob: bool,
    /// Which life of the stream, and its offset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    acked: Option<(u64, String)>,
}

/// How much has been written since the last whole record.
#[derive(Debug, Default)]
pub(crate) struct Written {
    whole: usize,
    changes: usize,
}

impl Written {
    fn wants_whole(&self) -> bool {
        self.whole == 0 || self.changes > self.whole.max(CHANGES_BYTES_MIN)
    }

    fn note(&mut self, is_whole: bool, bytes: usize) {
        match is_whole {
            true => *self = Written { whole: bytes, changes: 0 },
            false => self.changes += bytes,
        }
    }
}

impl Subscription {
    /// What has to be stored, if anything, and whether it is all.
    pub(crate) fn take_record(&mut self) -> Option<(Vec<u8>, bool)> {
        if !std::mem::take(&mut self.changed) && !self.links.has_changed() {
            return None;
        }
        let changes = self.links.take_changed();
        let whole = self.written.wants_whole();
        let streams = match whole {
            true => self.links.iter().map(|(path, link)| stream(path, link)).collect(),
            false => changes.iter().map(|(path, link)| stream(path, link)).collect(),
        };
        let bytes = self.record(whole, streams);
        self.written.note(whole, bytes.len());
        Some((bytes, whole))
    }

    /// All of it but its streams.
    pub(crate) fn head(&self) -> Vec<u8> {
        self.record(true, Vec::new())
    }

    fn record(&self, whole: bool, streams: Vec<Stream<'_>>) -> Vec<u8> {
        let made = whole.then(|| Made {
            settings: Cow::Borrowed(&self.settings),
            origin: Cow::Borrowed(&self.origin),
            created_at: self.created_at,
            key: self.key.as_deref().map(Cow::Borrowed),
        });
        let record = Record {
            id: Cow::Borrowed(&self.id),
            life: self.life,
            made,
            generation: self.generation,
            phase: Cow::Borrowed(&self.phase),
            failures: self.failures,
            shown: self.links.shown().map(Cow::Borrowed),
            streams,
        };
        serde_json::to_vec(&record).expect("a record has neither maps nor what cannot be written")
    }
}

impl Record<'_> {
    pub(crate) fn read(bytes: &[u8]) -> Result<Record<'_>, BadRecord> {
        serde_json::from_slice(bytes).map_err(BadRecord::Json)
    }

    /// Takes it up, on top of what the records before it made.
    pub(crate) fn apply(self, known: Option<Subscription>, length: usize) -> Result<Subscription, BadRecord> {
        let is_whole = self.made.is_some();
        let mut subscription = match (self.made, known) {
            (Some(made), _) => {
                let settings = made.settings.into_owned();
                Subscription {
                    id: (&*self.id).into(),
                    life: self.life,
                    key: made.key.map(Into::into),
                    hash: settings.hash(),
                    glob: settings.glob(),
                    settings,
                    origin: made.origin.into_owned(),
                    created_at: made.created_at,
                    links: Links::default(),
                    generation: 0,
                    phase: Phase::Idle,
                    failures: 0,
                    changed: false,
                    written: Written::default(),
                }
            }
            (None, Some(known)) if known.life == self.life => known,
            (None, _) => return Err(BadRecord::Unknown(self.id.into_owned())),
        };
        (subscription.generation, subscription.failures) = (self.generation, self.failures);
        subscription.phase = self.phase.into_owned();
        subscription.links.restore_shown(self.shown.as_deref());
        for stream in self.streams {
            let link = stream.link();
            subscription.links.restore(&stream.path, link);
        }
        subscription.written.note(is_whole, length);
        Ok(subscription)
    }
}

fn stream<'a, L>(path: &'a Arc<str>, link: L) -> Stream<'a>
where
    L: Into<Option<&'a Link>>,
{
    let link: Option<&Link> = link.into();
    Stream {
        path: Cow::Borrowed(path),
        explicit: link.is_some_and(|link| link.explicit),
        glob: link.is_some_and(|link| link.glob),
        acked: link.and_then(|link| link.cursor).map(|cursor| (cursor.life, cursor.acked.to_string())),
    }
}

impl Stream<'_> {
    fn link(&self) -> Option<Link> {
        let cursor = self.acked.as_ref().and_then(|(life, acked)| {
            let acked = acked.parse().ok()?;
            Some(Cursor { life: *life, acked })
        });
        let Stream { explicit, glob, .. } = *self;
        (explicit || glob).then_some(Link { explicit, glob, cursor, tail: None })
    }
}
