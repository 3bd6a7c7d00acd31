//! The bytes of pieces, wherever they are: those in memory shared, those on disk or in Redis read, without making a core wait
//! for it.

use std::cell::Cell;
use std::ops::Range;

use bytes::Bytes;

use super::journal::{Journal, Location, ReadError, Wait};
use crate::streams::log::{Piece, Source};
use crate::streams::page::Unreadable;
use crate::streams::registry::Streams;
use crate::streams::render::Before;
use crate::streams::stream::Stream;

/// The largest buffer that a core keeps for its next read; one long record may have needed more.
const BUFFER_BYTES_MAX: usize = 512 << 10;

thread_local! {
    /// What a core reads goes here first. Made anew for each read it would have to be filled with zeros each time.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The bytes of each of `pieces`.
///
/// # Errors
/// If a record was given up meanwhile, is damaged, or the disk or Redis refuses.
pub(crate) async fn bytes(streams: &Streams, pieces: &[Piece]) -> Result<Vec<Bytes>, ReadError> {
    if let Some(remote) = &streams.common.remote {
        return remote.bytes(pieces).await;
    }
    let journal = streams.journal();
    let wanted: Vec<Wanted> = pieces.iter().filter_map(Wanted::of).collect();
    let mut read = Vec::with_capacity(wanted.len());
    if let Some(journal) = journal.filter(|_| !wanted.is_empty()) {
        match take(journal, &wanted, Wait::Not, &mut read) {
            Err(ReadError::Cold) => {
                let (journal, left) = (journal.clone(), wanted[read.len()..].to_vec());
                let waited = tokio::task::spawn_blocking(move || {
                    let mut read = Vec::with_capacity(left.len());
                    take(&journal, &left, Wait::ForTheDisk, &mut read).map(|()| read)
                });
                let error = |_| ReadError::Io(std::io::Error::other("the reading thread has died"));
                read.extend(waited.await.map_err(error)??);
            }
            other => other?,
        }
    }
    let mut read = read.into_iter();
    let bytes = pieces.iter().map(|piece| match &piece.source {
        Source::Here(bytes) => bytes.clone(),
        Source::Stored(..) => read.next().unwrap_or_default(),
        Source::Remote(..) => unreachable!("what is in Redis is read there"),
    });
    Ok(bytes.collect())
}

/// The last bytes before a position, three at most.
///
/// # Errors
/// As [`bytes()`].
pub(crate) async fn before(streams: &Streams, stream: &Stream, position: u64) -> Result<Before, ReadError> {
    let mut from = position.saturating_sub(3);
    while from < position {
        match stream.page(from, position, u64::MAX) {
            Ok(page) => return Ok(Before::of(&bytes(streams, &page.pieces).await?.concat())),
            Err(Unreadable::Trimmed(start)) if start.position > from => from = start.position,
            Err(_) => break,
        }
    }
    Ok(Before::default())
}

/// A record that is longer is read in parts, in bytes.
const LONG_BYTES: usize = 128 << 10;

/// A record, and what of it: no more is held, however long it is.
#[derive(Clone, Debug)]
struct Wanted {
    location: Location,
    part: Range<usize>,
    /// It is the first part of its record, and so the one with which all of it is checked.
    is_first: bool,
}

impl Wanted {
    fn of(piece: &Piece) -> Option<Wanted> {
        let Source::Stored(location, skip) = piece.source else { return None };
        let from = skip as usize;
        let part = from..from + (piece.end - piece.start) as usize;
        Some(Wanted { location, part, is_first: piece.start == piece.record_start })
    }

    fn is_of_long(&self) -> bool {
        self.location.length as usize > LONG_BYTES && self.part.len() < self.location.length as usize / 2
    }
}

fn take(journal: &Journal, wanted: &[Wanted], wait: Wait, read: &mut Vec<Bytes>) -> Result<(), ReadError> {
    // A thread that may wait for the disk comes and goes, and there may be many.
    let is_core = wait == Wait::Not;
    let mut buffer = if is_core { BUFFER.take() } else { Vec::new() };
    let runs = wanted.chunk_by(|one, other| !one.is_of_long() && !other.is_of_long());
    let mut result = Ok(());
    for run in runs {
        result = match run {
            [one] if one.is_of_long() => {
                let part = one.part.clone();
                let result = journal.read_part(one.location, part, one.is_first, wait, &mut buffer);
                result.map(|()| read.push(Bytes::copy_from_slice(&buffer)))
            }
            run => take_whole(journal, run, wait, &mut buffer, read),
        };
        if result.is_err() {
            break;
        }
    }
    if is_core && buffer.capacity() <= BUFFER_BYTES_MAX {
        BUFFER.set(buffer);
    }
    result
}

fn take_whole(
    journal: &Journal,
    wanted: &[Wanted],
    wait: Wait,
    buffer: &mut Vec<u8>,
    read: &mut Vec<Bytes>,
) -> Result<(), ReadError> {
    let locations: Vec<Location> = wanted.iter().map(|one| one.location).collect();
    let mut parts = wanted.iter().map(|one| one.part.clone());
    journal.read_each(&locations, wait, buffer, |body| {
        let part = parts.next().and_then(|part| body.get(part)).unwrap_or_default();
        read.push(Bytes::copy_from_slice(part));
    })
}
