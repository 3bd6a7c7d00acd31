//! The command line: what was asked for, and what to say to a slip of the fingers.

pub(crate) mod load;
pub(crate) mod run;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use lexopt::{Arg, Parser};

use crate::config::{
    Env, ServerTls, UpstreamUrl, WORKERS_MAX, did_you_mean, parse_address, parse_address_or_off,
};
use crate::import::ImportArgs;
use crate::load::LoadArgs;

/// What `--help` prints.
pub(crate) const HELP: &str = "\
sedge: an edge for streams of tokens, in front of every OpenAI-compatible API

Usage:
  sedge [serve] [OPTIONS]             run the edge
  sedge check [OPTIONS]               check the configuration that the same options would serve
  sedge simulate [--listen ADDR]      run the built-in upstream alone: OpenAI-compatible and deterministic
  sedge import FILE [--output FILE]   make a configuration of LiteLLM's; what is left out is named
  sedge load URL [OPTIONS]            load the API at URL, step by step, and check all of its answers

Options of serve and check:
  --listen ADDR        where clients are served                [127.0.0.1:8080]  env SEDGE_LISTEN
  --upstream URL       base URL of the API to relay to; may be repeated, to share the requests
                       among several                                             env OPENAI_BASE_URL
  --config FILE        configuration                [sedge.toml, if it is there]  env SEDGE_CONFIG
  --admin ADDR|off     where metrics and health are served     [127.0.0.1:9091]
  --data-dir DIR       where durable streams are kept; without it they live in memory
  --open               serve beyond loopback, and under any Host, though no client keys are configured
  --relay-all          relay every path, not only /v1/..., under any Host
  --workers N          threads                                   [one per core]
  --tls-cert FILE      serve TLS with this certificate chain (PEM)...
  --tls-key FILE       ... and this private key (PEM)
  --upstream-ca FILE   trust the certificate authorities in this PEM file for upstreams, beside the
                       system's; may be repeated

Options of simulate:
  --listen ADDR        where it listens                        [127.0.0.1:8081]  env SEDGE_LISTEN

Options of load:
  --steps N,N,...      users who ask at the same time, step by step     [50,100,200,400]
  --rate N,N,...       instead of users: requests a second, sent when they are due, whatever the
                       server does; times count from then
  --duration TIME      how long a step is measured, as in 500ms, 10s, 1m           [10s]
  --warmup TIME        how long it runs before that                                 [2s]
  --timeout TIME       how long a request may take                                 [60s]
  --model NAME         the model that is asked                                     [sim]
  --prompt TEXT        what it is asked             [Say something about the sea.]
  --no-stream          ask for whole answers
  --body FILE          instead of model, prompt and stream: the JSON body of every request. It goes to
                       chat/completions, responses or completions, as its keys tell
  --header 'K: V'      a field of every request; may be repeated
  --key env:NAME       where the API key is          [env:OPENAI_API_KEY, if it is set]
  --ca FILE            trust the certificate authorities in this PEM file, beside the system's; may be
                       repeated
  --threads N          threads that make the load                        [one per core]
  --json FILE          write the report as JSON
  --svg FILE           plot throughput and time to first byte

Options of all:
  -h, --help           print this page
  -V, --version        print the version

A setting is taken from the options, else from the environment, else from the file, else it has the
default in brackets. An --upstream, or OPENAI_BASE_URL, takes the place of all [[upstream]] and [[route]]
in the file.

With OPENAI_API_KEY in the environment, requests that carry no key of their own are sent with it: to
--upstream or OPENAI_BASE_URL, or, if nothing names an upstream, to https://api.openai.com/v1. Without it,
and without any upstream, the built-in upstream answers.

Signals:
  TERM, INT            drain: after drain_delay accept nothing new, let streams finish; a second one
                       stops at once
  HUP                  read the configuration again: all of it takes effect, or, if it has errors, none
  USR2                 start the program again in this one's place: it takes over the listening sockets,
                       and this one finishes what it has

Examples:
  sedge                                              try it: the built-in upstream answers
  OPENAI_API_KEY=sk-... sedge                        relay to OpenAI
  sedge --upstream http://127.0.0.1:8000/v1          relay to a vLLM on this machine
  sedge --config sedge.toml --workers 4              as configured, on four threads
  sedge import config.yaml > sedge.toml              go on with what LiteLLM was told
  sedge check --config sedge.toml                    what is wrong with it, by line and key
  sedge load http://127.0.0.1:8080/v1 --svg load.svg how much the edge on this machine carries

Exit codes:
  0                    drained and stopped; for check: nothing is wrong
  1                    failed while running; for check: something is wrong; for load: a request failed
  2                    a bad command line or configuration
";

/// Where the simulator listens if nothing else is said: beside the edge, not in its place.
const SIMULATOR_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8081);

const COMMANDS: [&str; 5] = ["serve", "check", "simulate", "import", "load"];
const FLAGS: [&str; 4] = ["open", "relay-all", "help", "version"];
const VALUED: [&str; 9] =
    ["listen", "upstream", "config", "admin", "data-dir", "workers", "tls-cert", "tls-key", "upstream-ca"];

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Run the edge.
    Serve(ServeArgs),
    /// Say what is wrong with the configuration that the same options would serve.
    Check(ServeArgs),
    /// Make a configuration of LiteLLM's.
    Import(ImportArgs),
    /// Run the built-in upstream alone.
    Simulate(SimulateArgs),
    /// Load an API and tell how it went.
    Load(Box<LoadArgs>),
    /// Print [`HELP`].
    Help,
    /// Print the version.
    Version,
}

/// What `sedge serve` was told. `None`: nothing about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServeArgs {
    /// `--listen`.
    pub(crate) listen: Option<SocketAddr>,
    /// `--upstream`, as often as it was given.
    pub(crate) upstreams: Vec<UpstreamUrl>,
    /// `--config`.
    pub(crate) config: Option<PathBuf>,
    /// `--admin`; `Some(None)` is `off`.
    pub(crate) admin: Option<Option<SocketAddr>>,
    /// `--data-dir`.
    pub(crate) data_dir: Option<PathBuf>,
    /// `--open`.
    pub(crate) open: bool,
    /// `--relay-all`.
    pub(crate) relay_all: bool,
    /// `--workers`; 0 stands for one per core.
    pub(crate) workers: Option<usize>,
    /// `--tls-cert` and `--tls-key`.
    pub(crate) tls: Option<ServerTls>,
    /// `--upstream-ca`, as often as it was given.
    pub(crate) upstream_ca: Vec<PathBuf>,
}

/// What `sedge simulate` was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimulateArgs {
    /// Where it listens.
    pub(crate) listen: SocketAddr,
}

/// What is wrong with a command line. The exit code is 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CliError(String);

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sedge: {}\nsedge --help tells what there is", self.0)
    }
}

impl std::error::Error for CliError {}

/// Reads a command line, without the program's own name.
pub fn parse(args: impl IntoIterator<Item = OsString>, env: Env<'_>) -> Result<Command, CliError> {
    let mut parser = Parser::from_args(args);
    let mut arg = parser.next().map_err(told)?.map(Owned::from);
    let command = match &arg {
        Some(Owned::Value(word)) => {
            let command = command(word)?;
            if command == "load" {
                return load::parse(&mut parser, env);
            }
            if command == "import" {
                return import(&mut parser);
            }
            arg = parser.next().map_err(told)?.map(Owned::from);
            command
        }
        _ => "serve",
    };
    let mut given = Given::default();
    while let Some(next) = arg {
        match next {
            Owned::Short('h') => return Ok(Command::Help),
            Owned::Short('V') => return Ok(Command::Version),
            Owned::Long(name) if name == "help" => return Ok(Command::Help),
            Owned::Long(name) if name == "version" => return Ok(Command::Version),
            Owned::Long(name) => given.option(&name, command, &mut parser)?,
            Owned::Short(letter) => return fault(format!("there is no option -{letter}")),
            Owned::Value(word) => return Err(stray(&word)),
        }
        arg = parser.next().map_err(told)?.map(Owned::from);
    }
    match command {
        "help" => Ok(Command::Help),
        "version" => Ok(Command::Version),
        "simulate" => given.simulate(env).map(Command::Simulate),
        "check" => given.serve().map(Command::Check),
        _ => given.serve().map(Command::Serve),
    }
}

/// The rest of `sedge import`.
fn import(parser: &mut Parser) -> Result<Command, CliError> {
    let (mut file, mut output) = (None, None);
    while let Some(arg) = parser.next().map_err(told)?.map(Owned::from) {
        match arg {
            Owned::Short('h') => return Ok(Command::Help),
            Owned::Long(name) if name == "help" => return Ok(Command::Help),
            Owned::Long(name) if name == "output" => output = Some(path("output", parser)?),
            Owned::Long(name) => return fault(format!("--{name} is not an option of sedge import")),
            Owned::Short(letter) => return fault(format!("there is no option -{letter}")),
            Owned::Value(word) if file.is_none() => file = Some(PathBuf::from(word)),
            Owned::Value(word) => {
                return fault(format!("one file at a time, not {:?} as well", word.to_string_lossy()));
            }
        }
    }
    match file {
        Some(file) => Ok(Command::Import(ImportArgs { file, output })),
        None => fault("which file? sedge import FILE, as in sedge import config.yaml"),
    }
}

/// An argument that does not borrow the parser, which is asked for its value next.
enum Owned {
    Short(char),
    Long(String),
    Value(OsString),
}

impl From<Arg<'_>> for Owned {
    fn from(arg: Arg<'_>) -> Owned {
        match arg {
            Arg::Short(letter) => Owned::Short(letter),
            Arg::Long(name) => Owned::Long(name.to_owned()),
            Arg::Value(word) => Owned::Value(word),
        }
    }
}

/// The options as they came.
#[derive(Default)]
struct Given {
    serve: ServeArgs,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
}

impl Given {
    fn option(&mut self, name: &str, command: &str, parser: &mut Parser) -> Result<(), CliError> {
        let all = || VALUED.into_iter().chain(FLAGS);
        if !all().any(|known| known == name) {
            let near = did_you_mean(name, all()).replace("mean \"", "mean \"--");
            return fault(format!("there is no option --{name}{near}"));
        }
        if command == "simulate" && name != "listen" {
            return fault(format!("--{name} is not an option of sedge simulate"));
        }
        let serve = &mut self.serve;
        match name {
            "open" => serve.open = true,
            "relay-all" => serve.relay_all = true,
            "listen" => serve.listen = Some(text(name, parser, parse_address)?),
            "admin" => serve.admin = Some(text(name, parser, parse_address_or_off)?),
            "data-dir" => serve.data_dir = Some(path(name, parser)?),
            "workers" => serve.workers = Some(text(name, parser, parse_workers)?),
            "upstream" => {
                let url =
                    text(name, parser, |text| UpstreamUrl::parse(text).map_err(|error| error.to_string()))?;
                serve.upstreams.push(url);
            }
            "config" => serve.config = Some(path(name, parser)?),
            "tls-cert" => self.tls_cert = Some(path(name, parser)?),
            "tls-key" => self.tls_key = Some(path(name, parser)?),
            _ => serve.upstream_ca.push(path(name, parser)?),
        }
        Ok(())
    }

    fn serve(self) -> Result<ServeArgs, CliError> {
        let tls = match (self.tls_cert, self.tls_key) {
            (Some(cert), Some(key)) => Some(ServerTls { cert, key }),
            (None, None) => None,
            (Some(_), None) => return fault("--tls-cert needs --tls-key FILE beside it"),
            (None, Some(_)) => return fault("--tls-key needs --tls-cert FILE beside it"),
        };
        Ok(ServeArgs { tls, ..self.serve })
    }

    fn simulate(self, env: Env<'_>) -> Result<SimulateArgs, CliError> {
        let variable = env("SEDGE_LISTEN").filter(|value| !value.is_empty());
        let listen = match (self.serve.listen, variable) {
            (Some(listen), _) => listen,
            (None, Some(text)) => parse_address(&text.to_string_lossy())
                .map_err(|what| CliError(format!("SEDGE_LISTEN: {what}")))?,
            (None, None) => SIMULATOR_LISTEN,
        };
        Ok(SimulateArgs { listen })
    }
}

fn command(word: &OsString) -> Result<&'static str, CliError> {
    let known = COMMANDS.into_iter().chain(["help", "version"]).find(|known| word == known);
    known.ok_or_else(|| {
        let word = word.to_string_lossy();
        match word.contains("://") {
            true => stray(&word.into_owned().into()),
            false => CliError(format!("there is no command {word:?}{}", did_you_mean(&word, COMMANDS))),
        }
    })
}

fn stray(word: &OsString) -> CliError {
    let word = word.to_string_lossy();
    if word.contains("://") {
        return CliError("a URL must follow an option: --upstream URL".to_owned());
    }
    if COMMANDS.contains(&word.as_ref()) {
        return CliError(format!("the command comes first: sedge {word} [OPTIONS]"));
    }
    CliError(format!("{word:?} follows no option that takes a value"))
}

fn text<T>(name: &str, parser: &mut Parser, read: impl Fn(&str) -> Result<T, String>) -> Result<T, CliError> {
    let value = parser.value().map_err(told)?;
    let value = value.to_str().ok_or_else(|| CliError(format!("--{name}: is not text in UTF-8")))?;
    read(value).map_err(|what| CliError(format!("--{name}: {what}")))
}

fn path(name: &str, parser: &mut Parser) -> Result<PathBuf, CliError> {
    let value = parser.value().map_err(told)?;
    if value.is_empty() {
        fault(format!("--{name}: is empty; give the path of a file"))
    } else {
        Ok(value.into())
    }
}

fn parse_workers(text: &str) -> Result<usize, String> {
    let number = text.parse::<u64>().ok().filter(|number| *number <= WORKERS_MAX);
    number.map(|number| number as usize).ok_or_else(|| {
        format!(
            "{text:?} is not a number of threads; write one from 1 to {WORKERS_MAX}, or 0 for one per core"
        )
    })
}

/// lexopt's errors, in our words. A value is not repeated where it may be a secret.
fn told(error: lexopt::Error) -> CliError {
    CliError(match error {
        lexopt::Error::MissingValue { option: Some(option) } => format!("{option} needs a value after it"),
        lexopt::Error::UnexpectedValue { option, .. } => format!("{option} takes no value"),
        other => other.to_string(),
    })
}

fn fault<T>(what: impl Into<String>) -> Result<T, CliError> {
    Err(CliError(what.into()))
}
