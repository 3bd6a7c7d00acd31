//! The manifest: a small file with the numbers of the first and the last segment, so that a start notices a segment that is missing
//! at either end. A gap between segments shows by itself; without the manifest a journal whose first or last segment was lost
//! looks like a shorter one. All numbers are little-endian.
//!
//! ```text
//!  slot      magic[8] sequence:u64 journal:u64 version:u32 first:u32 last:u32 crc:u32      40 bytes, crc over the 36 before it
//! ```
//!
//! There are two slots, a page apart and written in turn: a torn write of one leaves the other. The one with the greater `sequence`
//! counts. Each write is synced, whatever the setting, as the head of a segment is:
//!
//! | the manifest changes | a crash in between leaves | which the next start |
//! | --- | --- | --- |
//! | after a new segment is durable, before it gets a record | a segment above `last`, without records | takes |
//! | before a segment is removed, after its copies are durable | a segment below `first` | removes |
//!
//! So all segments from `first` to `last` are there, or a file was lost. A directory without a manifest was written by an older sedge,
//! which has none: it is taken as it is and gets one. So is one whose segments go on beyond `last + 1`: an older sedge has used it
//! since. Each start writes the manifest anew before it relies on it: the kernel may hold a slot that a failed sync never wrote.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crc32c::crc32c;

use super::disk::{self, Disk, File};
use super::error::OpenError;
use super::record;

/// Name of the manifest's file.
pub(crate) const NAME: &str = "manifest";

const SLOT_BYTES: usize = 40;

/// Bytes between the beginnings of the two slots: no disk tears both with one write.
const SLOT_DISTANCE: u64 = 4096;

const MAGIC: &[u8; 8] = b"sedgeman";

/// Changes whenever an older sedge could no longer read what a newer one wrote.
const VERSION: u32 = 1;

/// Reads of a directory in use before [`check`] gives up: it changes once for each segment that comes or goes.
const CHECK_READS_MAX: usize = 8;

/// One slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    sequence: u64,
    journal: u64,
    version: u32,
    first: u32,
    last: u32,
}

impl Slot {
    fn bytes(&self) -> [u8; SLOT_BYTES] {
        let mut bytes = [0; SLOT_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.journal.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.version.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.first.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.last.to_le_bytes());
        let crc = crc32c(&bytes[..36]);
        bytes[36..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// `None` if these bytes are no slot.
    fn read(bytes: &[u8; SLOT_BYTES]) -> Option<Self> {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let long = |at: usize| u64::from(word(at + 4)) << 32 | u64::from(word(at));
        (bytes[..8] == *MAGIC && word(36) == crc32c(&bytes[..36])).then(|| Self {
            sequence: long(8),
            journal: long(16),
            version: word(24),
            first: word(28),
            last: word(32),
        })
    }

    const fn at(sequence: u64) -> u64 {
        (sequence & 1) * SLOT_DISTANCE
    }
}

/// The contents of a manifest that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Noted {
    slot: Slot,
    /// The other slot is not whole: torn by a crash, or damaged and then perhaps the newer one.
    other_is_broken: bool,
}

impl Noted {
    /// Number of the journal that it belongs to.
    pub(crate) const fn journal(&self) -> u64 {
        self.slot.journal
    }

    /// Whether a segment has been durable.
    pub(crate) const fn has(&self, number: u32) -> bool {
        number <= self.slot.last
    }
}

/// Reads a manifest; `None` if its making was torn.
fn read(file: &impl File, path: impl Fn() -> PathBuf) -> Result<Option<Noted>, OpenError> {
    let failed = |error| OpenError::Io { doing: "read", path: path(), error };
    let mut slots = [None; 2];
    for (at, slot) in slots.iter_mut().enumerate() {
        let mut bytes = [0; SLOT_BYTES];
        let read = disk::read_up_to(file, &mut bytes, at as u64 * SLOT_DISTANCE).map_err(failed)?;
        *slot = (read == SLOT_BYTES).then_some(&bytes).and_then(Slot::read);
    }
    let other_is_broken = slots.iter().any(Option::is_none);
    match slots.into_iter().flatten().max_by_key(|slot| slot.sequence) {
        Some(Slot { version, .. }) if version != VERSION => Err(OpenError::Version { path: path(), version }),
        Some(slot) => Ok(Some(Noted { slot, other_is_broken })),
        // The second slot is written only after the first is durable.
        None if file.length().map_err(failed)? > SLOT_BYTES as u64 => {
            Err(OpenError::Damaged { path: path(), byte: 0 })
        }
        None => Ok(None),
    }
}

/// A manifest that is open, to write.
#[derive(Debug)]
pub(crate) struct Manifest<F> {
    file: F,
    slot: Slot,
}

impl<F: File> Manifest<F> {
    /// Number of the journal that it belongs to.
    pub(crate) const fn journal(&self) -> u64 {
        self.slot.journal
    }

    /// Makes it durable that segment `last` is there; it is durable itself.
    pub(crate) fn note_last(&mut self, last: u32) -> io::Result<()> {
        self.write(Slot { last, ..self.slot })
    }

    /// Makes it durable that segments before `first` may be removed.
    pub(crate) fn note_first(&mut self, first: u32) -> io::Result<()> {
        self.write(Slot { first, ..self.slot })
    }

    fn write(&mut self, slot: Slot) -> io::Result<()> {
        let slot = Slot { sequence: self.slot.sequence + 1, ..slot };
        disk::write_all(&self.file, &slot.bytes(), Slot::at(slot.sequence))?;
        self.file.sync()?;
        // Until it is durable, the slot that is stays, and this one is written again.
        self.slot = slot;
        Ok(())
    }
}

/// The manifest of a directory as a start finds it.
#[derive(Debug)]
pub(crate) struct Found<F> {
    file: Option<F>,
    pub(crate) noted: Option<Noted>,
}

/// Opens the manifest, if there is one among `names`, and reads it.
pub(crate) fn find<D: Disk>(disk: &D, names: &[String]) -> Result<Found<D::File>, OpenError> {
    if !names.iter().any(|name| name == NAME) {
        return Ok(Found { file: None, noted: None });
    }
    let path = || disk.path(NAME);
    let file = disk.open(NAME).map_err(|error| OpenError::Io { doing: "open", path: path(), error })?;
    let noted = read(&file, path)?;
    Ok(Found { file: Some(file), noted })
}

impl<F: File> Found<F> {
    /// Writes it anew for the segments from `first` to `last`, which are durable, and makes it if there is none.
    pub(crate) fn renew<D: Disk<File = F>>(
        self,
        disk: &D,
        journal: u64,
        first: u32,
        last: u32,
    ) -> Result<Manifest<F>, OpenError> {
        let io = |doing| move |error| OpenError::Io { doing, path: disk.path(NAME), error };
        let slot = Slot { sequence: 0, journal, version: VERSION, first, last };
        let file = match self.file {
            Some(file) => file,
            None => disk.create(NAME).map_err(io("create"))?,
        };
        // Both slots. The kernel alone may have the one that was read: it is durable before the other, which the disk may hold instead,
        // is overwritten. Of a new one, so that damage to one is never taken for the tear of the making.
        let (before, doing) = match self.noted {
            Some(noted) => (noted.slot, "write again"),
            None => (slot, "write"),
        };
        disk::write_all(&file, &before.bytes(), Slot::at(before.sequence)).map_err(io(doing))?;
        file.sync().map_err(io("sync"))?;
        let mut manifest = Manifest { file, slot: before };
        manifest.write(slot).map_err(io("write"))?;
        if self.noted.is_none() {
            disk.sync().map_err(io("sync the directory of"))?;
        }
        Ok(manifest)
    }
}

/// Looks for all segments of a journal among the sorted `numbers` of those that are there; how many come first whose removal was not
/// finished.
pub(crate) fn complete(
    numbers: &[u32],
    noted: Option<&Noted>,
    path: impl Fn(&str) -> PathBuf,
) -> Result<usize, OpenError> {
    let is_newer =
        |noted: &&Noted| numbers.last().is_none_or(|last| *last <= noted.slot.last.saturating_add(1));
    let noted = noted.filter(is_newer);
    let removed = noted.map_or(0, |noted| numbers.partition_point(|number| *number < noted.slot.first));
    let found = &numbers[removed..];
    let (found_first, found_last) = (found.first().copied(), found.last().copied());
    let first = noted.map(|noted| noted.slot.first).or(found_first);
    let last = noted.map(|noted| noted.slot.last).max(found_last);
    let (Some(first), Some(last)) = (first, last) else { return Ok(removed) };
    let mut found = found.iter();
    let Some(missing) = (first..=last).find(|number| found.next() != Some(number)) else {
        return Ok(removed);
    };
    let is_between = found_first.is_some_and(|first| first < missing) && found_last > Some(missing);
    match noted {
        // Perhaps the slot that is broken knew that it was removed.
        Some(Noted { slot, other_is_broken: true }) if !is_between => {
            Err(OpenError::Damaged { path: path(NAME), byte: Slot::at(slot.sequence + 1) })
        }
        _ => Err(OpenError::Missing(path(&record::segment_name(missing)))),
    }
}

/// Checks that no segment of the journal in a directory is missing. It changes and locks nothing: a process may be using it.
///
/// # Errors
/// If one is missing, or the manifest cannot be read.
pub(crate) fn check(directory: &Path) -> Result<(), OpenError> {
    let path = |name: &str| directory.join(name);
    let io = |doing, path| move |error| OpenError::Io { doing, path, error };
    let noted = || match fs::File::open(path(NAME)) {
        Ok(file) => read(&file, || path(NAME)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io("open", path(NAME))(error)),
    };
    for _ in 0..CHECK_READS_MAX {
        let before = noted()?;
        let mut numbers = Vec::new();
        for entry in fs::read_dir(directory).map_err(io("list", path("")))? {
            let name = entry.map_err(io("list", path("")))?.file_name();
            numbers.extend(name.to_str().and_then(record::segment_number));
        }
        numbers.sort_unstable();
        // Unless the manifest has changed meanwhile, no segment that it names has come or gone.
        if noted()? == before {
            return complete(&numbers, before.as_ref(), path).map(drop);
        }
    }
    Ok(())
}
