//! The scripts, each with what all of them share in front, and how they are called.

use std::sync::LazyLock;

use redis::{Script, ScriptInvocation};

macro_rules! script {
    ($file:literal) => {
        LazyLock::new(|| Script::new(concat!(include_str!("common.lua"), include_str!($file))))
    };
}

pub(crate) static CREATE: LazyLock<Script> = script!("create.lua");
pub(crate) static APPEND: LazyLock<Script> = script!("append.lua");
pub(crate) static READ: LazyLock<Script> = script!("read.lua");
pub(crate) static DELETE: LazyLock<Script> = script!("delete.lua");
pub(crate) static NAME: LazyLock<Script> = script!("name.lua");
pub(crate) static SWEEP: LazyLock<Script> = script!("sweep.lua");
pub(crate) static LOAD: LazyLock<Script> = script!("load.lua");
pub(crate) static COMMIT: LazyLock<Script> = script!("commit.lua");
pub(crate) static FORGET: LazyLock<Script> = script!("forget.lua");
pub(crate) static DUE: LazyLock<Script> = script!("due.lua");
pub(crate) static GLOBS: LazyLock<Script> = script!("globs.lua");
pub(crate) static SECRET: LazyLock<Script> = script!("secret.lua");

/// A script and what it is given.
#[derive(Clone)]
pub(crate) struct Call {
    script: &'static Script,
    args: Vec<Vec<u8>>,
}

impl Call {
    pub(crate) fn of(script: &'static LazyLock<Script>) -> Call {
        Call { script, args: Vec::new() }
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Call {
        self.args.push(bytes.to_vec());
        self
    }

    /// Nothing is an empty text.
    pub(crate) fn text<'a>(self, text: impl Into<Option<&'a str>>) -> Call {
        self.bytes(text.into().unwrap_or_default().as_bytes())
    }

    pub(crate) fn number(self, number: u64) -> Call {
        self.text(&*number.to_string())
    }

    /// An epoch, as offsets have it.
    pub(crate) fn epoch(self, epoch: u64) -> Call {
        self.text(&*format!("{epoch:016x}"))
    }

    pub(crate) fn flag(self, is: bool) -> Call {
        self.text(if is { "1" } else { "0" })
    }

    /// All of it, for a store in its life `epoch`.
    pub(crate) fn prepare(&self, epoch: &str) -> ScriptInvocation<'_> {
        let mut invocation = self.script.arg(epoch);
        for arg in &self.args {
            invocation.arg(arg);
        }
        invocation
    }
}
