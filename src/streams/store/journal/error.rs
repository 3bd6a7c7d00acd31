//! What can go wrong with a journal, in the words of whoever has to do something about it.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// A journal cannot be opened. Nothing of it is served then: which streams a damaged record belonged to is not known, and a
/// lost deletion or a lost producer's number would be a wrong answer, not a missing one.
#[derive(Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has the directory.
    Locked(PathBuf),
    /// The disk refused.
    Io {
        /// What was tried.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// What was durable has changed.
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where the first record that is not whole begins.
        byte: u64,
    },
    /// A segment is not there: the manifest has its number, or it lies between others.
    Missing(PathBuf),
    /// A file of another journal, or under another's name.
    Foreign(PathBuf),
    /// Written by another version of sedge.
    Version {
        /// The segment.
        path: PathBuf,
        /// What it says of itself.
        version: u32,
    },
    /// All records are whole, but together they are not all of a stream.
    Incomplete {
        /// The directory.
        path: PathBuf,
        /// The stream.
        name: Box<str>,
        /// What is missing.
        why: String,
    },
    /// A whole record that its owner cannot read.
    Refused {
        /// The segment.
        path: PathBuf,
        /// Where the record begins.
        byte: u64,
        /// What the owner says.
        why: String,
    },
}

const WAY_OUT: &str = "restore the directory from a copy, or move it away to begin with an empty one";

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked(path) => write!(
                f,
                "{}: another process has this directory: stop it, or take another directory",
                path.display()
            ),
            Self::Io { doing, path, error } => write!(f, "{}: could not {doing}: {error}", path.display()),
            Self::Damaged { path, byte } => write!(
                f,
                "{}: damaged at byte {byte}: what was durable there has changed, so none of it is served; check the disk, and {WAY_OUT}",
                path.display()
            ),
            Self::Missing(path) => {
                write!(
                    f,
                    "{}: this segment of the journal is missing, so none of it is served; restore the file from a backup, or move the directory away to begin with an empty one",
                    path.display()
                )
            }
            Self::Foreign(path) => write!(
                f,
                "{}: this file belongs to another journal or another place in it; {WAY_OUT}",
                path.display()
            ),
            Self::Version { path, version } => write!(
                f,
                "{}: written in format {version}, which this sedge does not read; start the sedge that wrote it",
                path.display()
            ),
            Self::Incomplete { path, name, why } => {
                write!(f, "{}: of the stream {name}, {why}; {WAY_OUT}", path.display())
            }
            Self::Refused { path, byte, why } => {
                write!(f, "{}: the record at byte {byte} is whole but cannot be used: {why}", path.display())
            }
        }
    }
}

impl std::error::Error for OpenError {}

/// Why a journal stores nothing now. A write for which there was no room is tried again at the same offset until there is. After
/// any other failure of a write or a sync the content of the disk is unknown, and trying again could call durable what is not:
/// that ends with the process, and the next start reads what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What was tried.
    pub(crate) doing: &'static str,
    /// With which file.
    pub(crate) path: PathBuf,
    /// What the system said.
    pub(crate) error: String,
    /// The disk, a quota or the limit of a file's size has no room: it ends by itself.
    pub(crate) no_room: bool,
}

impl Failure {
    pub(crate) fn new(doing: &'static str, path: PathBuf, error: &io::Error) -> Self {
        Self { doing, path, error: error.to_string(), no_room: false }
    }

    /// The failure of a write, which can be repeated if there was no room for it: nothing was acknowledged of it.
    pub(crate) fn of_write(doing: &'static str, path: PathBuf, error: &io::Error) -> Self {
        Self { no_room: is_no_room(error), ..Self::new(doing, path, error) }
    }
}

/// Whether a write failed with ENOSPC, EDQUOT or EFBIG.
pub(crate) fn is_no_room(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { doing, path, error, no_room } = self;
        let until = if *no_room { "there is room" } else { "a restart" };
        write!(f, "{}: could not {doing}: {error}: nothing more is stored until {until}", path.display())
    }
}

impl std::error::Error for Failure {}

/// An append that was not taken; the journal is as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AppendError {
    /// Longer than [`super::RECORD_BYTES_MAX`].
    TooLong,
    /// More waits for the disk than [`super::queue::QUEUE_BYTES_MAX`]: try again later.
    Busy,
    /// The disk has no room: try again once it has.
    NoRoom,
    /// The disk has failed.
    Stopped(Failure),
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "a record may have at most {} bytes", super::RECORD_BYTES_MAX),
            Self::Busy => f.write_str("too much is waiting for the disk: try again later"),
            Self::NoRoom => f.write_str("the disk is full; appends are refused until there is room"),
            Self::Stopped(failure) => failure.fmt(f),
        }
    }
}

impl std::error::Error for AppendError {}

/// A record that cannot be read.
#[derive(Debug)]
#[non_exhaustive]
pub enum ReadError {
    /// It was retired.
    Gone,
    /// It is not what was written; it is never served.
    Damaged {
        /// Number of the segment.
        segment: u32,
        /// Where in it the record begins.
        byte: u32,
    },
    /// It is on the disk alone, and the reader may not wait for that.
    Cold,
    /// The disk refused.
    Io(io::Error),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::WouldBlock { Self::Cold } else { Self::Io(error) }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("the record is retired"),
            Self::Damaged { segment, byte } => {
                write!(
                    f,
                    "{}: damaged at byte {byte}: it is not served",
                    super::record::segment_name(*segment)
                )
            }
            Self::Cold => f.write_str("the record is not in memory"),
            Self::Io(error) => write!(f, "could not read the record: {error}"),
        }
    }
}

impl std::error::Error for ReadError {}
