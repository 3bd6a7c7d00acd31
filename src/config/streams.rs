//! Durable streams: how much they may hold, and how safely it is kept.

use std::time::Duration;

use super::document::{Table, Value};
use super::secret::{Secret, secret};
use super::units::{duration, size};
use crate::streams::store::journal::Fsync;
use crate::streams::store::redis::check_address;
use crate::streams::{APPEND_BYTES_MAX, Bounds};
use crate::subscriptions::Glob;

/// Less, and hardly anything could be kept.
const MEMORY_MIN_BYTES: u64 = 1 << 20;

/// The most streams, records and producers that can be asked for.
const COUNT_MAX: u64 = 1_000_000_000;

/// What `[streams]` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Streams {
    /// Bounds for all of them.
    pub(crate) bounds: Bounds,
    /// When an append on disk counts as durable.
    pub(crate) fsync: Fsync,
    /// What addresses are signed with that need no key.
    pub(crate) sign_key: Option<Secret>,
    /// How long an answer is kept that nobody reads.
    pub(crate) keep_answers: Duration,
    /// How long a long-poll waits.
    pub(crate) long_poll: Duration,
    /// What is compressed for clients that ask.
    pub(crate) compress: Compress,
    /// The Redis that they are in, if they are not in this process alone.
    pub(crate) redis: Option<Secret>,
}

/// What is compressed for clients that ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Compress {
    /// Nothing.
    Never,
    /// What is read at once.
    #[default]
    Reads,
    /// Events as they come, too.
    Always,
}

impl Default for Streams {
    fn default() -> Streams {
        Streams {
            bounds: Bounds::default(),
            fsync: Fsync::Always,
            sign_key: None,
            keep_answers: Duration::from_secs(3600),
            long_poll: Duration::from_secs(30),
            compress: Compress::default(),
            redis: None,
        }
    }
}

impl Streams {
    /// These, but for what `[streams]` says.
    pub(crate) fn read(mut self, table: &Table<'_>) -> Streams {
        let count = |value: &Value<'_>| value.integer(0..=COUNT_MAX).map(|n| n as usize);
        let some = |value: &Value<'_>| value.integer(1..=COUNT_MAX).map(|n| n as usize);
        let append = |value: &Value<'_>| match size(1)(value)? {
            bytes if bytes > APPEND_BYTES_MAX => Err("must be at most \"32MiB\"".to_owned()),
            bytes => Ok(bytes),
        };
        let bounds = &mut self.bounds;
        table.set("memory", size(MEMORY_MIN_BYTES), &mut bounds.memory);
        table.set("max_streams", some, &mut bounds.streams);
        table.set("max_append", append, &mut bounds.append);
        table.set("max_producers", some, &mut bounds.producers);
        table.set("keep_bytes", size(0), &mut bounds.keep_bytes);
        table.set("keep_records", count, &mut bounds.keep_records);
        let mut keep = Duration::ZERO;
        table.set("keep", duration, &mut keep);
        bounds.keep_ms = keep.as_millis() as u64;
        table.set("shared", shared, &mut bounds.shared);
        table.set("fsync", fsync, &mut self.fsync);
        self.sign_key = table.get("sign_key", secret);
        table.set("keep_answers", duration, &mut self.keep_answers);
        table.set("long_poll", duration, &mut self.long_poll);
        table.set("compress", compress, &mut self.compress);
        self.redis = table.get("redis", redis);
        if self.long_poll.is_zero() {
            table.fault("long_poll", "must be more than nothing: a long-poll waits");
        }
        self
    }
}

/// Patterns over the names of streams.
fn shared(value: &Value<'_>) -> Result<Vec<Glob>, String> {
    Ok(value.each(|item| Glob::parse(item.string()?).map_err(|bad| bad.to_string())))
}

/// `"never"`, `"reads"` or `"always"`.
fn compress(value: &Value<'_>) -> Result<Compress, String> {
    match value.string()? {
        "never" => Ok(Compress::Never),
        "reads" => Ok(Compress::Reads),
        "always" => Ok(Compress::Always),
        _ => Err("must be \"never\", \"reads\" or \"always\"".to_owned()),
    }
}

/// An address of Redis; one with a password stands elsewhere, as secrets do.
fn redis(value: &Value<'_>) -> Result<Secret, String> {
    let text = value.string()?;
    let is_elsewhere = text.starts_with("env:") || text.starts_with("file:");
    let url = match is_elsewhere {
        true => secret(value)?,
        false => Secret::new(text).map_err(|error| error.to_string())?,
    };
    let has_password = check_address(url.expose()).map_err(|error| error.to_string())?;
    if has_password && !is_elsewhere {
        return Err("has a password in it, which must not stand in this file; write where the address is, as \"env:NAME\" \
                    or \"file:/run/secrets/name\""
            .to_owned());
    }
    Ok(url)
}

/// `"always"`, `"never"`, or how much of it a loss of power may take at most, as a time.
fn fsync(value: &Value<'_>) -> Result<Fsync, String> {
    match value.string()? {
        "always" => Ok(Fsync::Always),
        "never" => Ok(Fsync::Never),
        _ => match duration(value) {
            Ok(time) if !time.is_zero() => Ok(Fsync::Interval(time)),
            _ => Err("must be \"always\", \"never\" or a time such as \"100ms\"".to_owned()),
        },
    }
}
