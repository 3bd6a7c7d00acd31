//! The scripts, each with what all of them share in front, and how they are called.

use std::sync::LazyLock;

use redis::{Script, ScriptInvocation};

macro_rules! script {
    ($file:literal) => {
        LazyLock::new(|| Script::new(concat!(include_str!("common.lua"), include_str!($file))))
    };
}

pub(super) static CREATE: LazyLock<Script> = script!("create.lua");
pub(super) static APPEND: LazyLock<Script> = script!("append.lua");
pub(super) static READ: LazyLock<Script> = script!("read.lua");
pub(super) static DELETE: LazyLock<Script> = script!("delete.lua");
pub(super) static NAME: LazyLock<Script> = script!("name.lua");
pub(super) static SWEEP: LazyLock<Script> = script!("sweep.lua");
pub(super) static LOAD: LazyLock<Script> = script!("load.lua");
pub(super) static COMMIT: LazyLock<Script> = script!("commit.lua");
pub(super) static FORGET: LazyLock<Script> = script!("forget.lua");
pub(super) static DUE: LazyLock<Script> = script!("due.lua");
pub(super) static GLOBS: LazyLock<Script> = script!("globs.lua");
pub(super) static SECRET: LazyLock<Script> = script!("secret.lua");

/// A script and what it is given.
#[derive(Clone)]
pub(super) struct Call {
    script: &'static Script,
    args: Vec<Vec<u8>>,
}

impl Call {
    pub(super) fn of(script: &'static LazyLock<Script>) -> Call {
        Call { script, args: Vec::new() }
    }

    pub(super) fn bytes(mut self, bytes: &[u8]) -> Call {
        self.args.push(bytes.to_vec());
        self
    }

    /// Nothing is an empty text.
    pub(super) fn text<'a>(self, text: impl Into<Option<&'a str>>) -> Call {
        self.bytes(text.into().unwrap_or_default().as_bytes())
    }

    pub(super) fn number(self, number: u64) -> Call {
        self.text(&*number.to_string())
    }

    /// An epoch, as offsets have it.
    pub(super) fn epoch(self, epoch: u64) -> Call {
        self.text(&*format!("{epoch:016x}"))
    }

    pub(super) fn flag(self, is: bool) -> Call {
        self.text(if is { "1" } else { "0" })
    }

    /// All of it, for a store in its life `epoch`.
    pub(super) fn prepare(&self, epoch: &str) -> ScriptInvocation<'_> {
        let mut invocation = self.script.arg(epoch);
        for arg in &self.args {
            invocation.arg(arg);
        }
        invocation
    }
}
