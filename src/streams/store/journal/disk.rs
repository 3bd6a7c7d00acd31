//! The file operations of a journal, and nothing more: small enough that a simulated disk can stand in for the real one and
//! lose, tear and reorder what was not synced.
//!
//! What the journal relies on, and the simulation takes away everything else: after [`File::sync`] has returned well, every
//! write and truncation of that file that had returned before it survives a crash; after [`Disk::sync`] has, every creation and
//! removal of a name does. After either has failed, nothing is known.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// One directory that belongs to a journal alone.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// An open file of it; it stays readable after its name was removed.
    type File: File;

    /// The names in it, in any order.
    fn names(&self) -> io::Result<Vec<String>>;

    /// A new, empty file to read and write; an error if there is one of that name.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// A file that is there, to read and write.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Takes a name away; those who have the file open go on reading.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes creations and removals durable.
    fn sync(&self) -> io::Result<()>;

    /// What a name is called in messages.
    fn path(&self, name: &str) -> PathBuf;
}

/// One file of a [`Disk`], read and written by position: readers and the writer share it without a cursor between them.
pub trait File: fmt::Debug + Send + Sync + 'static {
    /// Reads up to `buffer.len()` bytes; 0 at the end.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize>;

    /// Like [`File::read_at`], but only what can be read without waiting; `WouldBlock` if that is nothing.
    fn read_at_once(&self, buffer: &mut [u8], at: u64) -> io::Result<usize>;

    /// Writes some of `bytes`, how many is said.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize>;

    /// Makes what was written, and the length, durable.
    fn sync(&self) -> io::Result<()>;

    /// Length in bytes.
    fn length(&self) -> io::Result<u64>;

    /// Cuts the file off at `length` bytes.
    fn truncate(&self, length: u64) -> io::Result<()>;
}

/// Reads until `buffer` is full or the file ends; how much was read.
pub(crate) fn read_up_to(file: &impl File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    fill(buffer, at, |buffer, at| file.read_at(buffer, at))
}

/// Like [`read_up_to`], but `WouldBlock` as soon as that would wait.
pub(crate) fn read_at_once(file: &impl File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    fill(buffer, at, |buffer, at| file.read_at_once(buffer, at))
}

fn fill(buffer: &mut [u8], at: u64, read: impl Fn(&mut [u8], u64) -> io::Result<usize>) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match read(&mut buffer[done..], at + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Writes all of `bytes`; after an error, how many of them arrived is unknown.
pub(crate) fn write_all(file: &impl File, bytes: &[u8], at: u64) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match file.write_at(&bytes[done..], at + done as u64) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Name of the file whose lock says that a directory is in use.
const LOCK_NAME: &str = "lock";

/// A directory of the real disk, locked for as long as this lives.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Open for its syncs.
    handle: fs::File,
    /// The kernel gives the lock back when this is closed, however the process ends.
    _lock: fs::File,
}

impl Directory {
    /// Makes the directory if it is missing (mode 0700: streams may hold what users said) and locks it.
    ///
    /// # Errors
    /// If it cannot be made or opened, or another process has it: `WouldBlock` then.
    pub(crate) fn lock(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        if !path.is_dir() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
            // The name of the directory itself has to survive too.
            if let Some(parent) = path.parent() {
                let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
                fs::File::open(parent)?.sync_all()?;
            }
        }
        let handle = fs::File::open(path)?;
        let lock = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join(LOCK_NAME))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), handle, _lock: lock }),
            Err(fs::TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Disk for Directory {
    type File = fs::File;

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<fs::File> {
        fs::OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(self.path.join(name))
    }

    fn open(&self, name: &str) -> io::Result<fs::File> {
        fs::OpenOptions::new().read(true).write(true).open(self.path.join(name))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        self.handle.sync_all()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl File for fs::File {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, at)
    }

    fn read_at_once(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let mut buffers = [io::IoSliceMut::new(buffer)];
        match rustix::io::preadv2(self, &mut buffers, at, rustix::io::ReadWriteFlags::NOWAIT) {
            // A file system that cannot say whether it would wait.
            Err(rustix::io::Errno::OPNOTSUPP) => Err(io::ErrorKind::WouldBlock.into()),
            result => Ok(result?),
        }
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        FileExt::write_at(self, bytes, at)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}
