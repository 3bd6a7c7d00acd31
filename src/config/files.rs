//! The files that a configuration names.

use std::fs::File;
use std::io;
use std::io::Read;
use std::path::Path;

/// The longest file that is read as text: far more than anyone writes by hand, and no pipe or device can fill memory.
const FILE_MAX_BYTES: u64 = 4 * 1024 * 1024;

/// The whole of a text.
pub(crate) fn read_text(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let file = open(path)?;
    let read =
        file.take(FILE_MAX_BYTES + 1).read_to_string(&mut text).map_err(|error| describe(path, &error))?;
    if read as u64 > FILE_MAX_BYTES {
        return Err(format!("{} is longer than {FILE_MAX_BYTES} bytes", path.display()));
    }
    Ok(text)
}

/// Whether a file can be read when it is wanted.
pub(crate) fn check_readable(path: &Path) -> Result<(), String> {
    open(path)?.read(&mut [0]).map(drop).map_err(|error| describe(path, &error))
}

/// Whether there is a directory for a file that is going to be written.
pub(crate) fn check_parent(path: &Path) -> Result<(), String> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match parent.is_dir() {
        true => Ok(()),
        false => Err(format!("there is no directory {}", parent.display())),
    }
}

fn open(path: &Path) -> Result<File, String> {
    // Looked at before it is opened: to open a pipe is to wait for who writes into it.
    let kind = path.metadata().map_err(|error| describe(path, &error))?;
    if !kind.is_file() {
        return Err(format!("{} is not a file", path.display()));
    }
    File::open(path).map_err(|error| describe(path, &error))
}

fn describe(path: &Path, error: &io::Error) -> String {
    let path = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => format!("there is no file {path}"),
        io::ErrorKind::PermissionDenied => format!("{path} may not be read by this user"),
        io::ErrorKind::InvalidData => format!("{path} is not text in UTF-8"),
        _ => format!("{path} cannot be read: {error}"),
    }
}
