//! Times and sizes as people write them.

use std::time::Duration;

use super::document::Value;

/// The longest time that can be set: nothing here lives longer, and its milliseconds fit 32 bits.
const DURATION_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// The largest size: what a 64-bit file offset can tell.
const SIZE_MAX_BYTES: u64 = i64::MAX as u64;

/// A time: `"250ms"`, `"15s"`, `"5m"`, `"1h"`, or `"0"`.
pub(crate) fn duration(value: &Value<'_>) -> Result<Duration, String> {
    if value.is_integer() {
        let number = value.integer(0..=u64::MAX)?;
        return match number {
            0 => Ok(Duration::ZERO),
            _ => Err(format!("has no unit; write \"{number}s\" or \"{number}ms\"")),
        };
    }
    parse_duration(value.string()?)
}

/// A size of `least` bytes at least: a number of bytes, or a text such as `"64KiB"`.
pub(crate) fn size(least: u64) -> impl Fn(&Value<'_>) -> Result<u64, String> {
    move |value| {
        if value.is_integer() {
            return value.integer(least..=SIZE_MAX_BYTES);
        }
        let size = parse_size(value.string()?)?;
        if size < least { Err(format!("must be {least} bytes at least")) } else { Ok(size) }
    }
}

/// A time from a text, as [`duration`] reads it.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text).ok_or_else(|| {
        format!("{text:?} is not a time; write a whole number and its unit, as in \"250ms\", \"15s\", \"5m\" or \"1h\"")
    })?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "" if number == 0 => 1,
        "" => return Err(format!("{text:?} has no unit; write \"{number}s\" or \"{number}ms\"")),
        _ => return Err(format!("{unit:?} is not a unit of time; use ms, s, m or h")),
    };
    let duration = number.checked_mul(millis).map(Duration::from_millis);
    duration.filter(|duration| *duration <= DURATION_MAX).ok_or_else(|| {
        format!(
            "{text:?} is too long; the longest is \"{}h\", and \"0\" is no limit",
            DURATION_MAX.as_secs() / 3600
        )
    })
}

fn parse_size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text).ok_or_else(|| {
        format!("{text:?} is not a size; write a whole number and its unit, as in \"64KiB\" or \"16GiB\"")
    })?;
    let shift = match unit {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => {
            let letter = unit.chars().next().map(|c| c.to_ascii_uppercase()).filter(|c| "KMGT".contains(*c));
            let advice = letter
                .map_or("use B, KiB, MiB, GiB or TiB".to_owned(), |c| format!("write \"{number}{c}iB\""));
            return Err(format!("{unit:?} is not a unit of size; {advice}"));
        }
    };
    let size = number.checked_mul(1 << shift).filter(|size| *size <= SIZE_MAX_BYTES);
    size.ok_or_else(|| format!("{text:?} is more than a file can hold"))
}

/// A whole number and what follows it, with or without a space.
fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    let is_unit = unit.bytes().all(|byte| byte.is_ascii_alphabetic());
    Some((number.parse().ok()?, unit)).filter(|_| is_unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        for (text, millis) in [
            ("250ms", 250),
            ("15s", 15_000),
            ("15 s", 15_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("0", 0),
            ("0s", 0),
            ("720h", 2_592_000_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_told_how_to_be_one() {
        for (text, advice) in [
            ("", "is not a time"),
            ("15", "write \"15s\""),
            ("1.5s", "is not a time"),
            ("-1s", "is not a time"),
            ("15 sec", "use ms, s, m or h"),
            ("1h30m", "is not a time"),
            ("721h", "is too long"),
            ("99999999999999999h", "is too long"),
            ("999999999999999999999s", "is not a time"),
            ("ß", "is not a time"),
        ] {
            let error = parse_duration(text).unwrap_err();
            assert!(error.contains(advice), "{text}: {error}");
        }
    }

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in
            [("0", 0), ("7", 7), ("7B", 7), ("64KiB", 65_536), ("1 MiB", 1 << 20), ("16GiB", 16 << 30)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_told_how_to_be_one() {
        for (text, advice) in [
            ("", "is not a size"),
            ("64kb", "write \"64KiB\""),
            ("64K", "write \"64KiB\""),
            ("1GB", "write \"1GiB\""),
            ("3 bananas", "use B, KiB"),
            ("1.5GiB", "is not a size"),
            ("8388608TiB", "more than a file can hold"),
            ("99999999999999999TiB", "more than a file can hold"),
        ] {
            let error = parse_size(text).unwrap_err();
            assert!(error.contains(advice), "{text}: {error}");
        }
    }
}
