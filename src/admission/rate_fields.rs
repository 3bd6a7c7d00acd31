//! The fields that tell a client how much of its rates is left, as OpenAI's API sends them; and how they are brought together with
//! those of an upstream. Of two limits the tighter one is told: it is the one that the next request meets.

use super::rate::{Nanos, Standing};
use crate::proto::http1::fields::write_field;
use crate::proto::http1::response::ResponseHead;

/// What a rate is told to be that is not limited: the largest number that every reader of JSON holds exactly.
const UNLIMITED: u64 = (1 << 53) - 1;

/// The names for requests and for tokens: the limit, what remains of it, and when all of it will.
const NAMES: [[&str; 3]; 2] = [
    ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"],
    ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"],
];

/// How much is left of the requests and of the tokens, where they are limited.
pub(crate) type Standings = [Option<Standing>; 2];

/// Which of the two are told in place of an upstream's.
pub(crate) type Replaced = [bool; 2];

/// All six fields, as lines.
pub(crate) fn lines(standings: Standings) -> Vec<u8> {
    let mut lines = Vec::with_capacity(256);
    for (names, standing) in NAMES.iter().zip(standings) {
        write(
            &mut lines,
            names,
            standing.unwrap_or(Standing { limit: UNLIMITED, remaining: UNLIMITED, reset: 0 }),
        );
    }
    lines
}

/// Whether an upstream tells of its rates itself.
pub(crate) fn tells(head: &ResponseHead<'_>) -> bool {
    head.fields.iter().any(|field| is_of_a_rate(field.name))
}

/// Which of `ours` are tighter than what an upstream tells in `head`, and the lines for those.
pub(crate) fn tighter(head: &ResponseHead<'_>, ours: Standings) -> (Replaced, Vec<u8>) {
    let (mut replaced, mut lines) = ([false; 2], Vec::new());
    for (kind, names) in NAMES.iter().enumerate() {
        let Some(standing) = ours[kind] else { continue };
        let theirs =
            head.field(names[1]).and_then(|value| std::str::from_utf8(value).ok()?.trim().parse().ok());
        if theirs.is_none_or(|theirs: f64| (standing.remaining as f64) < theirs) {
            replaced[kind] = true;
            write(&mut lines, names, standing);
        }
    }
    (replaced, lines)
}

/// Whether the field of an upstream's answer has been replaced.
pub(crate) fn is_replaced(name: &str, replaced: Replaced) -> bool {
    is_of_a_rate(name)
        && NAMES
            .iter()
            .zip(replaced)
            .any(|(names, replaced)| replaced && names.iter().any(|other| name.eq_ignore_ascii_case(other)))
}

fn is_of_a_rate(name: &str) -> bool {
    name.get(..12).is_some_and(|start| start.eq_ignore_ascii_case("x-ratelimit-"))
}

fn write(lines: &mut Vec<u8>, names: &[&str; 3], standing: Standing) {
    let Standing { limit, remaining, reset } = standing;
    let values = [limit.to_string(), remaining.to_string(), span(reset)];
    for (name, value) in names.iter().zip(values) {
        write_field(lines, name, value.as_bytes());
    }
}

/// A time as OpenAI writes it: `8.64s`, `6m0s`, `17ms`.
fn span(ns: Nanos) -> String {
    let ms = ns.div_ceil(1_000_000);
    match ms {
        0 => "0s".to_owned(),
        1..1000 => format!("{ms}ms"),
        _ => {
            let (hours, minutes, rest) = (ms / 3_600_000, ms / 60_000 % 60, ms % 60_000);
            let before = match (hours, minutes) {
                (0, 0) => String::new(),
                (0, minutes) => format!("{minutes}m"),
                (hours, minutes) => format!("{hours}h{minutes}m"),
            };
            match rest % 1000 {
                0 => format!("{before}{}s", rest / 1000),
                _ => format!("{before}{}s", rest as f64 / 1000.0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_others_do() {
        for (ms, written) in [
            (0, "0s"),
            (17, "17ms"),
            (1000, "1s"),
            (8640, "8.64s"),
            (360_000, "6m0s"),
            (3_660_500, "1h1m0.5s"),
        ] {
            assert_eq!(span(ms * 1_000_000), written);
        }
    }
}
