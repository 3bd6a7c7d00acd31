//! What is on the disk when a journal is opened.
//!
//! Everything is read once to know that it is whole, before the first record is given out: a start either serves all that was
//! durable or says which byte of which file is wrong. Only the last segment may end in a torn record, for any earlier one was
//! synced before its successor was made; what is torn is cut off and reported. A broken record in the last segment is torn
//! unless a later one was written after it had been synced (`synced` of its head): then it is damage, and the start refuses.
//! The last batch before a crash has no such witness, so damage done to it alone looks like a tear: it is cut, and said.
//!
//! What was read may still be in the kernel's memory alone: a killed process wrote it, or a sync of it has failed, after which
//! kernels take it for clean and never write it again. So the last segment, the only one that can be so, is written once more,
//! byte for byte, and synced, and the directory is synced, before anything is given out: nobody reads what the next crash could
//! take back.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use super::disk::{self, Disk, File};
use super::error::OpenError;
use super::index::Segment;
use super::manifest::{self, Manifest, Noted};
use super::record::{self, Location, Position, SEGMENT_HEAD_BYTES, SegmentFault, SegmentHead};
use super::scan::{Found, Scan};
use super::writer::{self, Account};

/// How much is written again at once, in bytes.
const WRITE_AGAIN_BYTES: usize = 1 << 20;

/// What was found at a start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Records given to their owner.
    pub records: u64,
    /// Bytes of them.
    pub(crate) bytes: u64,
    /// How many segments there are.
    pub(crate) segments: usize,
    /// What a crash had left half written, and was never acknowledged as durable.
    pub cut: Option<Cut>,
}

/// A torn tail that was cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The segment.
    pub(crate) path: PathBuf,
    /// Its length now, in bytes.
    pub(crate) byte: u64,
    /// How many bytes there were behind it.
    pub(crate) lost: u64,
}

/// The segments of a journal, all of them whole.
pub(crate) struct Whole<F> {
    pub(crate) manifest: Manifest<F>,
    pub(crate) segments: VecDeque<Arc<Segment<F>>>,
    pub(crate) accounts: VecDeque<Account>,
    pub(crate) moved: HashMap<Position, Position>,
    /// Length of the last segment in bytes, all of it synced.
    pub(crate) written: u32,
    pub(crate) recovery: Recovery,
}

/// A closure that makes an [`OpenError`] of what the system said.
fn io(doing: &'static str, path: PathBuf) -> impl FnOnce(std::io::Error) -> OpenError {
    move |error| OpenError::Io { doing, path, error }
}

/// Reads everything and gives each record that is not a copy's original to `owner`, in the order of positions.
pub(crate) fn replay<D: Disk>(
    disk: &D,
    mint: impl FnOnce() -> u64,
    mut owner: impl FnMut(Location, &[u8]) -> Result<(), String>,
) -> Result<Whole<D::File>, OpenError> {
    let mut recovery = Recovery::default();
    let names = disk.names().map_err(io("list", disk.path("")))?;
    let found = manifest::find(disk, &names)?;
    let mut numbers: Vec<u32> = names.iter().filter_map(|name| record::segment_number(name)).collect();
    numbers.sort_unstable();
    let removed = manifest::complete(&numbers, found.noted.as_ref(), |name| disk.path(name))?;
    let mut heads = heads(disk, &numbers[removed..], found.noted.as_ref(), &mut recovery)?;
    if heads.is_empty() {
        let journal = mint();
        let first = writer::create(disk, 1, journal, 0).map_err(|(doing, path, error)| OpenError::Io {
            doing,
            path,
            error,
        })?;
        heads.push((Arc::new(first), SegmentHead { journal, before: 0 }));
    }
    let journal = heads[0].1.journal;
    if let Some((foreign, _)) = heads.iter().find(|(_, head)| head.journal != journal) {
        return Err(OpenError::Foreign(disk.path(&record::segment_name(foreign.number))));
    }
    if found.noted.is_some_and(|noted| noted.journal() != journal) {
        return Err(OpenError::Foreign(disk.path(manifest::NAME)));
    }
    let befores: Vec<u32> = heads.iter().skip(1).map(|(_, head)| head.before).collect();
    let segments: VecDeque<_> = heads.into_iter().map(|(segment, _)| segment).collect();

    let last = segments.len() - 1;
    // A tear that was a whole segment has been cut already; then the one before it was synced, and has no other.
    let may_be_torn = recovery.cut.is_none();
    let mut accounts = VecDeque::with_capacity(segments.len());
    let mut copies = BTreeMap::new();
    let mut written = 0;
    for (at, segment) in segments.iter().enumerate() {
        let path = || disk.path(&record::segment_name(segment.number));
        let length = segment.file.length().map_err(io("look at", path()))?;
        let mut account = Account::default();
        let mut scan = Scan::new(&segment.file, segment.number, 0, length);
        let end = loop {
            match scan.next().map_err(io("read", path()))? {
                Found::Record { head, place, .. } => {
                    account.size += head.location.cost();
                    account.live += head.location.cost();
                    if head.location.position != place
                        && let Some((before, length)) =
                            copies.insert(head.location.position, (place, head.location.length))
                    {
                        bury(&mut accounts, &mut account, segments[0].number, place, before, length);
                    }
                }
                // Shortened to a length that looks whole: its successor knows better.
                Found::End if befores.get(at).is_some_and(|before| u64::from(*before) != length) => {
                    return Err(OpenError::Damaged { path: path(), byte: length });
                }
                Found::End => break length,
                Found::Broken => {
                    let byte = scan.at();
                    if at < last || !may_be_torn || scan.synced_beyond(byte).map_err(io("read", path()))? {
                        return Err(OpenError::Damaged { path: path(), byte });
                    }
                    recovery.cut = Some(Cut { path: path(), byte, lost: length - byte });
                    segment.file.truncate(byte).map_err(io("cut", path()))?;
                    break byte;
                }
            }
        };
        accounts.push_back(account);
        written = end;
    }
    let tail = &segments[last];
    let path = || disk.path(&record::segment_name(tail.number));
    write_again(&tail.file, written).map_err(io("write again", path()))?;
    tail.file.sync().map_err(io("sync", path()))?;
    disk.sync().map_err(io("sync the directory of", path()))?;
    let first = segments[0].number;
    let manifest = found.renew(disk, journal, first, tail.number)?;
    finish_removals(disk, &numbers[..removed])?;

    // Copies whose originals are still there were left by a crash.
    let mut moved = HashMap::new();
    for (position, (place, length)) in copies {
        let location = Location { position, length };
        if position.segment() >= first {
            accounts[(place.segment() - first) as usize].bury(place.byte(), location.cost());
            continue;
        }
        let segment = &segments[(place.segment() - first) as usize];
        let path = || disk.path(&record::segment_name(segment.number));
        let end = u64::from(place.byte()) + location.cost();
        let mut scan = Scan::new(&segment.file, segment.number, u64::from(place.byte()), end);
        match scan.next().map_err(io("read", path()))? {
            Found::Record { head, body, .. } if head.location == location => {
                give(&mut owner, &mut recovery, location, body, path(), place)?;
            }
            _ => return Err(OpenError::Damaged { path: path(), byte: u64::from(place.byte()) }),
        }
        moved.insert(position, place);
    }
    for (segment, account) in segments.iter().zip(&accounts) {
        let path = || disk.path(&record::segment_name(segment.number));
        let end = SEGMENT_HEAD_BYTES as u64 + account.size;
        let mut scan = Scan::new(&segment.file, segment.number, 0, end);
        loop {
            match scan.next().map_err(io("read", path()))? {
                Found::Record { head, place, body } => {
                    if head.location.position == place {
                        give(&mut owner, &mut recovery, head.location, body, path(), place)?;
                    }
                }
                Found::End => break,
                Found::Broken => return Err(OpenError::Damaged { path: path(), byte: scan.at() }),
            }
        }
    }
    recovery.segments = segments.len();
    Ok(Whole { manifest, segments, accounts, moved, written: written as u32, recovery })
}

/// Removes segments whose removal a crash has interrupted; their copies are durable.
fn finish_removals<D: Disk>(disk: &D, numbers: &[u32]) -> Result<(), OpenError> {
    for number in numbers {
        let name = record::segment_name(*number);
        disk.remove(&name).map_err(io("remove", disk.path(&name)))?;
    }
    if numbers.is_empty() { Ok(()) } else { disk.sync().map_err(io("sync the directory", disk.path(""))) }
}

/// Writes what is there over itself: the same bytes, so a crash in the midst of it changes nothing.
fn write_again(file: &impl File, length: u64) -> std::io::Result<()> {
    let mut bytes = vec![0; WRITE_AGAIN_BYTES.min(length as usize)];
    let mut at = 0;
    while at < length {
        let part = bytes.len().min((length - at) as usize);
        let read = disk::read_up_to(file, &mut bytes[..part], at)?;
        if read < part {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        disk::write_all(file, &bytes[..read], at)?;
        at += read as u64;
    }
    Ok(())
}

/// Counts the earlier of two copies as dead; it may lie in the segment that is being read.
fn bury(
    accounts: &mut VecDeque<Account>,
    current: &mut Account,
    first: u32,
    now: Position,
    before: Position,
    length: u32,
) {
    let cost = Location { position: before, length }.cost();
    if before.segment() == now.segment() {
        current.bury(before.byte(), cost);
    } else {
        accounts[(before.segment() - first) as usize].bury(before.byte(), cost);
    }
}

fn give(
    owner: &mut impl FnMut(Location, &[u8]) -> Result<(), String>,
    recovery: &mut Recovery,
    location: Location,
    body: &[u8],
    path: PathBuf,
    place: Position,
) -> Result<(), OpenError> {
    recovery.records += 1;
    recovery.bytes += u64::from(location.length);
    owner(location, body).map_err(|why| OpenError::Refused { path, byte: u64::from(place.byte()), why })
}

type Heads<F> = Vec<(Arc<Segment<F>>, SegmentHead)>;

/// The segments of these numbers, which follow one another, and what each says of itself.
fn heads<D: Disk>(
    disk: &D,
    numbers: &[u32],
    noted: Option<&Noted>,
    recovery: &mut Recovery,
) -> Result<Heads<D::File>, OpenError> {
    let mut heads = Vec::with_capacity(numbers.len());
    for (at, &number) in numbers.iter().enumerate() {
        let name = record::segment_name(number);
        let path = || disk.path(&name);
        let file = disk.open(&name).map_err(io("open", path()))?;
        let mut head = [0; SEGMENT_HEAD_BYTES];
        disk::read_up_to(&file, &mut head, 0).map_err(io("read", path()))?;
        match record::read_segment_head(&head, number) {
            Ok(head) => heads.push((Arc::new(Segment { number, file }), head)),
            Err(SegmentFault::Damaged) => {
                let length = file.length().map_err(io("look at", path()))?;
                // A record is written only after the head is durable and noted, so without any the head may be torn.
                let was_whole = noted.is_some_and(|noted| noted.has(number));
                if at + 1 < numbers.len() || length > SEGMENT_HEAD_BYTES as u64 || was_whole {
                    return Err(OpenError::Damaged { path: path(), byte: 0 });
                }
                disk.remove(&name).map_err(io("remove", path()))?;
                disk.sync().map_err(io("sync the directory of", path()))?;
                recovery.cut = Some(Cut { path: path(), byte: 0, lost: length });
            }
            Err(SegmentFault::Number(_)) => return Err(OpenError::Foreign(path())),
            Err(SegmentFault::Version(version)) => return Err(OpenError::Version { path: path(), version }),
        }
    }
    Ok(heads)
}
