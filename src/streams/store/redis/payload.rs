//! Payloads that are not held here, fetched for whoever reads them.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use redis::Value;

use super::link::pause;
use super::long::LONG_BYTES;
use super::remote::Remote;
use super::{Unavailable, meta};
use crate::streams::log::{Piece, Source};
use crate::streams::store::journal::ReadError;

/// How long a reader of what is not in memory waits for Redis, in milliseconds, before it is sent away to come again.
const COLD_MS: u64 = 10_000;

impl Remote {
    /// The bytes of pieces.
    pub(crate) async fn bytes(self: &Arc<Self>, pieces: &[Piece]) -> Result<Vec<Bytes>, ReadError> {
        let mut ranges: Vec<(Arc<str>, u64, u64)> = Vec::new();
        let mut found: HashMap<Arc<str>, HashMap<u64, Bytes>> = HashMap::new();
        for piece in pieces {
            let Source::Remote(name, end, _) = &piece.source else { continue };
            if let Some(long) = self.long.get(name, *end) {
                found.entry(Arc::clone(name)).or_default().insert(*end, long);
                continue;
            }
            match ranges.last_mut().filter(|(last, ..)| last == name) {
                Some((.., last)) => *last = *end,
                None => ranges.push((Arc::clone(name), *end, *end)),
            }
        }
        for (name, first, last) in ranges {
            let me = Arc::clone(self);
            let mut range = redis::cmd("XRANGE");
            range.arg(format!("sedge:l:{name}")).arg(format!("{first}-0")).arg(format!("{last}-0"));
            let answer = self.run(async move { me.patiently(&range).await }).await;
            let payloads =
                answer.and_then(meta::payloads).map_err(|error| ReadError::Io(io::Error::other(error)))?;
            found.entry(name).or_default().extend(payloads);
        }
        let each = pieces.iter().map(|piece| match &piece.source {
            Source::Here(bytes) => Ok(bytes.clone()),
            Source::Remote(name, end, skip) => {
                let record = found.get(name).and_then(|records| records.get(end)).ok_or(ReadError::Gone)?;
                let (from, length) = (*skip as usize, (piece.end - piece.start) as usize);
                if record.len() < from + length {
                    Err(ReadError::Gone)
                } else if length < record.len() / 2 {
                    // What is not wanted of a long one is not to be held for a reader.
                    if record.len() > LONG_BYTES {
                        self.long.put(name, *end, record);
                    }
                    Ok(Bytes::copy_from_slice(&record[from..from + length]))
                } else {
                    Ok(record.slice(from..from + length))
                }
            }
            Source::Stored(..) => unreachable!("nothing of a mirror is on disk"),
        });
        each.collect()
    }

    /// Bytes of long payloads that are held for readers of their parts.
    pub(crate) fn long_bytes(&self) -> u64 {
        self.long.held()
    }

    /// One command, which may wait for Redis.
    async fn patiently(&self, command: &redis::Cmd) -> Result<Value, Unavailable> {
        match self.link.command(command).await {
            Err(error) if !self.is_up() => {
                tokio::select! {
                    () = self.up() => self.link.command(command).await,
                    () = pause(Duration::from_millis(COLD_MS)) => Err(error),
                }
            }
            other => other,
        }
    }
}
