//! The options of `sedge load`.

use std::ffi::OsString;
use std::time::Duration;

use lexopt::Parser;

use super::{CliError, Command, Owned, fault, path, text, told};
use crate::config::{Env, Secret, UpstreamUrl, did_you_mean, parse_duration};
use crate::load::request::parse_header;
use crate::load::{Content, LOAD_MAX, Load, LoadArgs, STEPS_MAX, THREADS_MAX};

const STEPS: [u32; 4] = [50, 100, 200, 400];
const DURATION: Duration = Duration::from_secs(10);
const WARMUP: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(60);
const MODEL: &str = "sim";
const PROMPT: &str = "Say something about the sea.";
const KEY_VARIABLE: &str = "OPENAI_API_KEY";

/// The longest of any of its times: whoever measures for longer has mistyped a unit.
const TIME_MAX: Duration = Duration::from_secs(24 * 3600);

pub(crate) const OPTIONS: [&str; 15] = [
    "steps",
    "rate",
    "duration",
    "warmup",
    "timeout",
    "model",
    "prompt",
    "no-stream",
    "body",
    "header",
    "key",
    "ca",
    "threads",
    "json",
    "svg",
];

/// The options as they came.
#[derive(Default)]
struct Given {
    url: Option<UpstreamUrl>,
    steps: Option<Vec<u32>>,
    rate: Option<Vec<u32>>,
    duration: Option<Duration>,
    warmup: Option<Duration>,
    timeout: Option<Duration>,
    model: Option<String>,
    prompt: Option<String>,
    no_stream: bool,
    body: Option<std::path::PathBuf>,
    headers: Vec<(String, String)>,
    key: Option<String>,
    ca: Vec<std::path::PathBuf>,
    threads: Option<usize>,
    json: Option<std::path::PathBuf>,
    svg: Option<std::path::PathBuf>,
}

/// Reads what follows `sedge load`.
pub(crate) fn parse(parser: &mut Parser, env: Env<'_>) -> Result<Command, CliError> {
    let mut given = Given::default();
    while let Some(arg) = parser.next().map_err(told)?.map(Owned::from) {
        match arg {
            Owned::Short('h') => return Ok(Command::Help),
            Owned::Short('V') => return Ok(Command::Version),
            Owned::Long(name) if name == "help" => return Ok(Command::Help),
            Owned::Long(name) if name == "version" => return Ok(Command::Version),
            Owned::Long(name) => given.option(&name, parser)?,
            Owned::Short(letter) => return fault(format!("there is no option -{letter}")),
            Owned::Value(word) => given.url(&word)?,
        }
    }
    given.finish(env).map(|args| Command::Load(Box::new(args)))
}

impl Given {
    fn url(&mut self, word: &OsString) -> Result<(), CliError> {
        if self.url.is_some() {
            return fault(format!("sedge load takes one URL, and {:?} is a second", word.to_string_lossy()));
        }
        let url = UpstreamUrl::parse(&word.to_string_lossy());
        // What is wrong is not repeated: there may be a password in it.
        self.url = Some(url.map_err(|error| CliError(format!("the URL {error}")))?);
        Ok(())
    }

    fn option(&mut self, name: &str, parser: &mut Parser) -> Result<(), CliError> {
        match name {
            "steps" => self.steps = Some(text(name, parser, parse_steps)?),
            "rate" => self.rate = Some(text(name, parser, parse_steps)?),
            "duration" => self.duration = Some(text(name, parser, parse_time)?),
            "warmup" => self.warmup = Some(text(name, parser, parse_time_or_none)?),
            "timeout" => self.timeout = Some(text(name, parser, parse_time)?),
            "model" => self.model = Some(text(name, parser, |text| Ok(text.to_owned()))?),
            "prompt" => self.prompt = Some(text(name, parser, |text| Ok(text.to_owned()))?),
            "no-stream" => self.no_stream = true,
            "body" => self.body = Some(path(name, parser)?),
            "header" => self.headers.push(text(name, parser, parse_header)?),
            "key" => self.key = Some(text(name, parser, parse_key)?),
            "ca" => self.ca.push(path(name, parser)?),
            "threads" => self.threads = Some(text(name, parser, parse_threads)?),
            "json" => self.json = Some(path(name, parser)?),
            "svg" => self.svg = Some(path(name, parser)?),
            _ => {
                let near = did_you_mean(name, OPTIONS).replace("mean \"", "mean \"--");
                return fault(format!("there is no option --{name} of sedge load{near}"));
            }
        }
        Ok(())
    }

    fn finish(self, env: Env<'_>) -> Result<LoadArgs, CliError> {
        let Some(url) = self.url else {
            return fault("sedge load needs the API's base, as in sedge load http://127.0.0.1:8080/v1");
        };
        let load = match (self.steps, self.rate) {
            (Some(_), Some(_)) => return fault("--steps and --rate exclude each other"),
            (None, Some(rate)) => Load::Rate(rate),
            (steps, None) => Load::Users(steps.unwrap_or(STEPS.to_vec())),
        };
        let content = match self.body {
            Some(_) if self.model.is_some() || self.prompt.is_some() || self.no_stream => {
                return fault(
                    "--body tells model, prompt and stream itself: leave out --model, --prompt and --no-stream",
                );
            }
            Some(path) => Content::File(path),
            None => Content::Chat {
                model: self.model.unwrap_or_else(|| MODEL.to_owned()),
                prompt: self.prompt.unwrap_or_else(|| PROMPT.to_owned()),
                stream: !self.no_stream,
            },
        };
        Ok(LoadArgs {
            url,
            load,
            duration: self.duration.unwrap_or(DURATION),
            warmup: self.warmup.unwrap_or(WARMUP),
            timeout: self.timeout.unwrap_or(TIMEOUT),
            threads: self.threads,
            content,
            headers: self.headers,
            key: key(self.key.as_deref(), env)?,
            json: self.json,
            svg: self.svg,
            ca: self.ca,
        })
    }
}

/// The key from the variable that was named, which then must be set, or from the usual one if it is.
fn key(variable: Option<&str>, env: Env<'_>) -> Result<Option<Secret>, CliError> {
    let name = variable.unwrap_or(KEY_VARIABLE);
    match env(name).filter(|value| !value.is_empty()) {
        Some(value) => match Secret::new(value.to_str().unwrap_or("\0")) {
            Ok(secret) => Ok(Some(secret)),
            Err(error) => fault(format!("the environment variable {name} {error}")),
        },
        None if variable.is_some() => {
            fault(format!("--key: the environment variable {name} is not set, or empty"))
        }
        None => Ok(None),
    }
}

fn parse_steps(text: &str) -> Result<Vec<u32>, String> {
    let number = |text: &str| text.trim().parse().ok().filter(|number| (1..=LOAD_MAX).contains(number));
    let steps: Option<Vec<u32>> = text.split(',').map(number).collect();
    match steps {
        Some(steps) if steps.len() > STEPS_MAX => Err(format!("has more than {STEPS_MAX} steps")),
        Some(steps) if steps.is_sorted_by(|a, b| a < b) => Ok(steps),
        Some(_) => Err(format!("{text:?} does not rise from step to step")),
        None => {
            Err(format!("{text:?} is no list of steps; write numbers from 1 to {LOAD_MAX}, as in 50,100,200"))
        }
    }
}

fn parse_time(text: &str) -> Result<Duration, String> {
    match parse_time_or_none(text)? {
        Duration::ZERO => Err("must be more than 0".to_owned()),
        time => Ok(time),
    }
}

fn parse_time_or_none(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text)?;
    if time > TIME_MAX { Err(format!("{text:?} is too long; the longest is \"24h\"")) } else { Ok(time) }
}

/// `env:NAME`. Anything else may be the key itself, so it is not repeated.
fn parse_key(text: &str) -> Result<String, String> {
    let name = text.strip_prefix("env:").filter(|name| !name.is_empty() && !name.contains(['=', '\0']));
    name.map(str::to_owned)
        .ok_or_else(|| "must name the variable that the key is in, as in --key env:OPENAI_API_KEY".to_owned())
}

fn parse_threads(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=THREADS_MAX).contains(number));
    number.ok_or_else(|| format!("{text:?} is not a number of threads; write one from 1 to {THREADS_MAX}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Command, String> {
        let env = |name: &str| match name {
            KEY_VARIABLE => Some("sk-usual".into()),
            "OTHER" => Some("sk-other".into()),
            "BROKEN" => Some("sk broken".into()),
            _ => None,
        };
        let words = ["load"].iter().chain(words).map(OsString::from);
        crate::cli::parse(words, &env).map_err(|error| error.to_string())
    }

    fn args(words: &[&str]) -> LoadArgs {
        match parsed(words) {
            Ok(Command::Load(args)) => *args,
            other => panic!("{words:?}: {other:?}"),
        }
    }

    #[test]
    fn a_url_is_enough() {
        let expected = LoadArgs {
            url: UpstreamUrl::parse("http://127.0.0.1:8080/v1").unwrap(),
            load: Load::Users(vec![50, 100, 200, 400]),
            duration: Duration::from_secs(10),
            warmup: Duration::from_secs(2),
            timeout: Duration::from_secs(60),
            threads: None,
            content: Content::Chat { model: MODEL.into(), prompt: PROMPT.into(), stream: true },
            headers: Vec::new(),
            key: Some(Secret::new("sk-usual").unwrap()),
            json: None,
            svg: None,
            ca: Vec::new(),
        };
        assert_eq!(args(&["http://127.0.0.1:8080/v1/"]), expected);
    }

    #[test]
    fn every_option_is_understood() {
        let words = [
            "--rate=1,20",
            "--duration",
            "500ms",
            "--warmup",
            "0",
            "--timeout",
            "1m",
            "--model",
            "m",
            "--prompt",
            "p q",
            "--no-stream",
            "--header",
            "x-sim-events: 3",
            "--header",
            "a: b",
            "--key",
            "env:OTHER",
            "--ca",
            "c",
            "--threads",
            "3",
            "--json",
            "j",
            "--svg",
            "s",
            "https://h",
        ];
        let args = args(&words);
        assert_eq!(args.load, Load::Rate(vec![1, 20]));
        assert_eq!(
            (args.duration.as_millis(), args.warmup.as_millis(), args.timeout.as_secs()),
            (500, 0, 60)
        );
        assert_eq!(args.content, Content::Chat { model: "m".into(), prompt: "p q".into(), stream: false });
        assert_eq!(args.headers.len(), 2);
        assert_eq!(args.key.unwrap().expose(), "sk-other");
        assert_eq!((args.threads, args.ca.len()), (Some(3), 1));
        assert_eq!((args.json, args.svg), (Some("j".into()), Some("s".into())));
    }

    #[test]
    fn help_is_near_and_knows_every_option() {
        for option in OPTIONS {
            assert!(crate::cli::HELP.contains(&format!("\n  --{option} ")), "--{option}");
        }
        assert_eq!(parsed(&["--help"]), Ok(Command::Help));
        assert_eq!(parsed(&["http://h", "-V"]), Ok(Command::Version));
    }

    #[test]
    fn a_slip_is_told() {
        for (words, expected) in [
            (&[][..], "needs the API's base"),
            (&["http://h", "http://i"], "takes one URL"),
            (&["127.0.0.1:8080"], "the URL must begin with https://"),
            (&["http://h/v1/chat/completions"], "the URL is one endpoint's"),
            (&["--step", "1"], "there is no option --step of sedge load; did you mean \"--steps\"?"),
            (&["--listen", "x"], "there is no option --listen of sedge load"),
            (&["-x"], "there is no option -x"),
            (&["--steps", "1,0"], "--steps: \"1,0\" is no list of steps"),
            (&["--steps", "100,50"], "does not rise"),
            (&["--rate", "1000001"], "--rate: \"1000001\" is no list"),
            (&["http://h", "--rate", "1", "--steps", "1"], "exclude each other"),
            (&["--duration", "0s"], "--duration: must be more than 0"),
            (&["--duration", "10"], "--duration: \"10\" has no unit"),
            (&["--timeout", "25h"], "--timeout: \"25h\" is too long"),
            (&["http://h", "--body", "b", "--no-stream"], "--body tells"),
            (&["--header", "x"], "--header: has no colon"),
            (&["http://h", "--key", "env:MISSING"], "MISSING is not set"),
            (&["--threads", "0"], "--threads: \"0\" is not a number"),
            (&["--json"], "--json needs a value"),
        ] {
            let told = parsed(words).unwrap_err();
            assert!(told.contains(expected), "{words:?}: {told}");
        }
    }

    #[test]
    fn a_key_is_never_shown() {
        for words in [
            &["http://h", "--key", "sk-other"][..],
            &["http://h", "--key", "env:BROKEN"],
            &["http://u:sk-1@h"],
        ] {
            let told = parsed(words).unwrap_err();
            assert!(!told.contains("sk"), "{told}");
        }
        assert!(!format!("{:?}", args(&["http://h"])).contains("sk-usual"));
    }
}
