//! Commands at work: each command line is handed to the room that does what it says.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use super::{Command, HELP, ServeArgs};
use crate::cli;
use crate::config::{self, Config};
use crate::runtime::net::inherit::Inherited;
use crate::runtime::net::process;
use crate::simulator::Simulator;
use crate::{import, load, serve, tell};

/// A bad command line or configuration.
const USAGE: u8 = 2;

/// A failure while running.
const FAILURE: u8 = 1;

/// Runs the command line of this process; the exit code is for its `main`.
pub fn main() -> ExitCode {
    let command = match cli::parse(std::env::args_os().skip(1), &env) {
        Ok(command) => command,
        Err(error) => {
            tell!("{error}");
            return ExitCode::from(USAGE);
        }
    };
    match command {
        Command::Help => say(HELP),
        Command::Version => say(concat!("sedge ", env!("CARGO_PKG_VERSION"), "\n")),
        Command::Check(args) => match config::check(&args, &env) {
            Ok((config, summary)) => match &serve::check(&config)[..] {
                [] => say(&format!("{summary}\n")),
                problems => {
                    problems.iter().for_each(|problem| tell!("{problem}"));
                    ExitCode::from(FAILURE)
                }
            },
            Err(errors) => {
                tell!("{errors}");
                ExitCode::from(FAILURE)
            }
        },
        Command::Simulate(args) => match Simulator::run(args.listen) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => complain(FAILURE, &format!("the simulator at {}: {error}", args.listen)),
        },
        Command::Import(args) => match import::run(&args) {
            Ok(imported) => {
                if !imported.remarks.is_empty() {
                    tell!("{}", import::told(&args.file, &imported.remarks));
                }
                let names = imported.models;
                tell!("sedge: {names} of its models; {} remarks, above", imported.remarks.len());
                match &args.output {
                    Some(_) => ExitCode::SUCCESS,
                    None => say(&imported.toml),
                }
            }
            Err(error) => complain(FAILURE, &error),
        },
        Command::Load(args) => match load::run(&args) {
            Ok(code) => code,
            Err(error) => complain(error.exit_code(), &error),
        },
        Command::Serve(args) => run(&args),
    }
}

fn run(args: &ServeArgs) -> ExitCode {
    // First of all: whatever is opened from here on could have the number of one that was not passed on after all.
    let inherited = match Inherited::take(&env) {
        Ok(inherited) => inherited,
        Err(error) => return complain(FAILURE, &error),
    };
    // A process that has only begun must not be killed by a reload or a handover.
    let signals = match serve::EarlySignals::catch() {
        Ok(signals) => signals,
        Err(error) => return complain(FAILURE, &format!("cannot watch for signals: {error}")),
    };
    // Before the first key is read.
    if let Err(error) = process::forbid_core_dumps() {
        tell!("sedge: core dumps could not be turned off ({error}); one would hold keys and prompts");
    }
    let mut config = match config::load(args, &env) {
        Ok(config) => config,
        Err(errors) => {
            tell!("{errors}");
            return ExitCode::from(USAGE);
        }
    };
    for notice in &config.notices {
        tell!("sedge: {notice}");
    }
    // Held until the end: it answers as long as it lives.
    let simulator = match simulator(&config) {
        Ok(simulator) => simulator,
        Err(error) => return complain(FAILURE, &format!("the built-in simulator cannot start: {error}")),
    };
    let lead = |config: &mut Config| {
        if let (true, Some(simulator)) = (config.simulator, &simulator) {
            config.lead_to_simulator(simulator.addr());
        }
    };
    lead(&mut config);
    let reload = || {
        let mut config = config::load(args, &env).map_err(|errors| errors.to_string())?;
        if config.simulator && simulator.is_none() {
            return Err(
                "there is no upstream any more, and the built-in simulator takes over only at a start".into(),
            );
        }
        lead(&mut config);
        Ok(config)
    };
    match serve::serve(config, inherited, signals, reload) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(FAILURE, &error),
    }
}

/// The upstream of a configuration that names none.
fn simulator(config: &Config) -> std::io::Result<Option<Simulator>> {
    match config.simulator {
        true => Simulator::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), 1).map(Some),
        false => Ok(None),
    }
}

fn env(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

#[expect(clippy::print_stdout, reason = "what was asked for goes to standard output")]
fn say(text: &str) -> ExitCode {
    print!("{text}");
    ExitCode::SUCCESS
}

fn complain(code: u8, error: &dyn std::fmt::Display) -> ExitCode {
    tell!("sedge: {error}");
    ExitCode::from(code)
}
