//! `sedge import litellm.yaml`: a configuration of LiteLLM's proxy becomes a `sedge.toml`.
//!
//! What may never happen:
//! - a setting that is left out without a word: whatever is not carried over is named by file, line and path, with the reason;
//! - a secret in the output: a key in clear text becomes a reference to the environment, a master key its SHA-256,
//!   and a URL loses its user information and its query.

pub(crate) mod expansion;
pub(crate) mod gateway;
pub(crate) mod litellm;
pub(crate) mod provider;
pub(crate) mod toml;
pub(crate) mod yaml;

use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// The longest file that is read.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What `sedge import` was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportArgs {
    /// LiteLLM's file.
    pub(crate) file: PathBuf,
    /// `--output`: where the result goes; standard output if nowhere.
    pub(crate) output: Option<PathBuf>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Imported {
    /// The new configuration.
    pub(crate) toml: String,
    /// What was not carried over, or differently, in the order of the file.
    pub(crate) remarks: Vec<Remark>,
    /// How many of the file's models can be asked for.
    pub(crate) models: usize,
}

/// One thing that was not carried over, or differently.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Remark {
    /// Its line in LiteLLM's file, from 1.
    pub(crate) line: usize,
    /// Where it stands in it.
    pub(crate) path: String,
    /// What became of it, and why.
    pub(crate) what: String,
}

/// Why there is nothing.
#[derive(Debug)]
#[non_exhaustive]
pub(crate) enum ImportError {
    /// The file cannot be read.
    Read(PathBuf, io::Error),
    /// It is not YAML, or more of it than can be read.
    Yaml(PathBuf, String),
    /// None of its models can be carried over, for these reasons.
    Nothing(PathBuf, Vec<Remark>),
    /// The output cannot be written.
    Write(PathBuf, io::Error),
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImportError::Read(file, error) => write!(f, "{}: cannot be read: {error}", file.display()),
            ImportError::Yaml(file, error) => {
                write!(f, "{}: is no YAML that can be read: {error}", file.display())
            }
            ImportError::Nothing(file, remarks) => {
                write!(
                    f,
                    "{}: holds no model that sedge can relay to\n{}",
                    file.display(),
                    told(file, remarks)
                )
            }
            ImportError::Write(file, error) if error.kind() == io::ErrorKind::AlreadyExists => {
                write!(f, "{} is there already; remove it first, or choose another --output", file.display())
            }
            ImportError::Write(file, error) => write!(f, "{}: cannot be written: {error}", file.display()),
        }
    }
}

impl std::error::Error for ImportError {}

/// Reads `args.file` and makes a configuration of it.
pub(crate) fn run(args: &ImportArgs) -> Result<Imported, ImportError> {
    let file = &args.file;
    let text = read(file).map_err(|error| ImportError::Read(file.clone(), error))?;
    expansion::check(&text).map_err(|error| ImportError::Yaml(file.clone(), error))?;
    let documents = yaml::parse(&text).map_err(|error| ImportError::Yaml(file.clone(), error))?;
    let Some(document) = documents.first() else {
        return Err(ImportError::Nothing(file.clone(), Vec::new()));
    };
    let imported = litellm::import(&yaml::Node::root(document), file);
    if imported.models == 0 {
        return Err(ImportError::Nothing(file.clone(), imported.remarks));
    }
    if let Some(output) = &args.output {
        write(output, &imported.toml).map_err(|error| ImportError::Write(output.clone(), error))?;
    }
    Ok(imported)
}

/// The whole of a file that is no longer than any configuration.
fn read(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(file)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it is longer than {FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
}

/// The remarks, a line each.
pub(crate) fn told(file: &Path, remarks: &[Remark]) -> String {
    let line =
        |remark: &Remark| format!("{}:{}: {}: {}", file.display(), remark.line, remark.path, remark.what);
    remarks.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn write(output: &Path, toml: &str) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).open(output)?.write_all(toml.as_bytes())
}
