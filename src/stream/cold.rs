//! The bytes of pieces, wherever they are: those in memory shared, those on disk or in Redis read, without making a core wait
//! for it.

use std::cell::Cell;
use std::ops::Range;

use bytes::Bytes;

use super::journal::{Journal, Location, ReadError, Wait};
use super::log::{Piece, Source};
use super::streams::Streams;

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
pub async fn bytes(streams: &Streams, pieces: &[Piece]) -> Result<Vec<Bytes>, ReadError> {
    if let Some(remote) = &streams.common.remote {
        return remote.bytes(pieces).await;
    }
    let journal = streams.journal();
    let wanted: Vec<Wanted> = pieces.iter().filter_map(wanted).collect();
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

/// A record, and what of it: no more is held, however long it is.
type Wanted = (Location, Range<usize>);

fn wanted(piece: &Piece) -> Option<Wanted> {
    match piece.source {
        Source::Stored(location, skip) => {
            let from = skip as usize;
            Some((location, from..from + (piece.end - piece.start) as usize))
        }
        _ => None,
    }
}

fn take(journal: &Journal, wanted: &[Wanted], wait: Wait, read: &mut Vec<Bytes>) -> Result<(), ReadError> {
    // A thread that may wait for the disk comes and goes, and there may be many.
    let is_core = wait == Wait::Not;
    let mut buffer = if is_core { BUFFER.take() } else { Vec::new() };
    let locations: Vec<Location> = wanted.iter().map(|(location, _)| *location).collect();
    let mut ranges = wanted.iter().map(|(_, range)| range.clone());
    let result = journal.read_each(&locations, wait, &mut buffer, |body| {
        let part = ranges.next().and_then(|range| body.get(range)).unwrap_or_default();
        read.push(Bytes::copy_from_slice(part));
    });
    if is_core && buffer.capacity() <= BUFFER_BYTES_MAX {
        BUFFER.set(buffer);
    }
    result
}
