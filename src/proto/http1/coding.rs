//! Content codings: which one an answer may have, by the client's `Accept-Encoding` (RFC 9110, 12.5.3).
//!
//! A coding is an offer, never a duty: a client that says nothing, nothing we understand, or nothing well-formed gets
//! the bytes as they are. A field that is wrong anywhere is ignored as a whole, for half of a wish may be its opposite.
//! So is a wish that cannot be met (`identity;q=0` and none of ours): RFC 9110, 12.4.1 leaves disregarding it to the
//! server, and bytes that any client can read serve it better than 406.

use super::fields::{elements, is_token};

/// How an answer's bytes are coded on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Coding {
    /// Zstandard (RFC 8878).
    Zstd,
    /// Brotli (RFC 7932).
    Brotli,
    /// DEFLATE in the format of gzip (RFC 1952).
    Gzip,
    /// As they are.
    Identity,
}

impl Coding {
    /// In the order of preference among equals: what codes most for the least work comes first, `identity` last.
    pub const ALL: [Self; 4] = [Self::Zstd, Self::Brotli, Self::Gzip, Self::Identity];

    /// The registered name, as `Content-Encoding` has it. `identity` belongs into no `Content-Encoding` (RFC 9110, 8.4).
    pub fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
            Self::Identity => "identity",
        }
    }

    /// The coding called `name` in any case; `x-gzip` is an old name of gzip's (RFC 9110, 8.4.1.3).
    fn called(name: &[u8]) -> Option<Self> {
        let known = Self::ALL.into_iter().find(|coding| name.eq_ignore_ascii_case(coding.name().as_bytes()));
        known.or_else(|| name.eq_ignore_ascii_case(b"x-gzip").then_some(Self::Gzip))
    }
}

/// The coding that the values of all `Accept-Encoding` fields of a head, in any order, like best.
///
/// Of equal weights the first in [`Coding::ALL`] wins. A coding that is named twice has the lower of its weights: who
/// refuses it once does not get it.
///
/// ```
/// use sedge::http::coding::{Coding, negotiate};
///
/// assert_eq!(negotiate([&b"gzip, deflate, br, zstd"[..]]), Coding::Zstd);
/// assert_eq!(negotiate([&b"gzip;q=1.0, *;q=0.5"[..]]), Coding::Gzip);
/// assert_eq!(negotiate([]), Coding::Identity);
/// ```
pub(crate) fn negotiate<'v>(values: impl IntoIterator<Item = &'v [u8]>) -> Coding {
    let mut named: [Option<Weight>; Coding::ALL.len()] = [None; Coding::ALL.len()];
    let mut others: Option<Weight> = None;
    for element in values.into_iter().flat_map(elements).filter(|element| !element.is_empty()) {
        let Some((name, weight)) = preference(element) else { return Coding::Identity };
        let kept = match Coding::called(name) {
            Some(coding) => &mut named[coding as usize],
            None if name == b"*" => &mut others,
            None => continue,
        };
        *kept = Some(kept.map_or(weight, |before| before.min(weight)));
    }
    let mut best = (Coding::Identity, 0);
    for coding in Coding::ALL {
        let weight = named[coding as usize].or(others).unwrap_or(0);
        if weight > best.1 {
            best = (coding, weight);
        }
    }
    best.0
}

/// A weight in thousandths, 0 to 1000.
type Weight = u16;

/// One `codings [ weight ]`, whitespace around it removed; `None` if it is not one.
fn preference(element: &[u8]) -> Option<(&[u8], Weight)> {
    let mut parts = element.splitn(2, |&byte| byte == b';');
    let name = parts.next()?.trim_ascii_end();
    let weight = parts.next().map_or(Some(WEIGHT_MAX), |parameter| weight(parameter.trim_ascii_start()))?;
    // `*` is a token as well.
    is_token(name).then_some((name, weight))
}

const WEIGHT_MAX: Weight = 1000;

/// `q=` and a qvalue (RFC 9110, 12.4.2): 0 to 1, at most three digits after the point.
fn weight(parameter: &[u8]) -> Option<Weight> {
    let [b'q' | b'Q', b'=', whole @ (b'0' | b'1'), rest @ ..] = parameter else { return None };
    let digits = match rest {
        [] => &[][..],
        [b'.', digits @ ..] if digits.len() <= 3 => digits,
        _ => return None,
    };
    let mut thousandths = Weight::from(whole - b'0');
    for place in 0..3 {
        let digit = match digits.get(place) {
            None => 0,
            Some(digit @ b'0'..=b'9') => Weight::from(digit - b'0'),
            Some(_) => return None,
        };
        thousandths = thousandths * 10 + digit;
    }
    (thousandths <= WEIGHT_MAX).then_some(thousandths)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    fn of(value: &str) -> Coding {
        negotiate([value.as_bytes()])
    }

    #[test]
    fn weights_choose_and_ties_are_ours() {
        for (value, coding) in [
            ("", Coding::Identity),
            ("gzip", Coding::Gzip),
            ("X-GZip", Coding::Gzip),
            ("deflate", Coding::Identity),
            ("gzip, deflate, br, zstd", Coding::Zstd),
            ("gzip, br", Coding::Brotli),
            ("compress;q=0.5, gzip;q=1.0", Coding::Gzip),
            ("zstd;q=0.9, br;q=0.901", Coding::Brotli),
            ("*", Coding::Zstd),
            ("*;q=0.1, zstd;q=0", Coding::Brotli),
            ("identity;q=1, *;q=0", Coding::Identity),
            ("gzip;q=0.5, identity", Coding::Identity),
            ("gzip, identity", Coding::Gzip),
            ("gzip;q=0.001", Coding::Gzip),
            ("gzip;q=0", Coding::Identity),
            ("gzip;q=0.000", Coding::Identity),
            ("identity;q=0, gzip;q=0.2", Coding::Gzip),
            ("gzip, gzip;q=0, br;q=0.1", Coding::Brotli),
            (", ,gzip ;\tQ=0.5 ,,", Coding::Gzip),
            // Cannot be met.
            ("*;q=0", Coding::Identity),
            ("identity;q=0", Coding::Identity),
        ] {
            assert_eq!(of(value), coding, "{value:?}");
        }
    }

    #[test]
    fn a_field_wrong_anywhere_is_no_wish() {
        for wrong in [
            "zstd;q=1.001",
            "zstd;q=2",
            "zstd;q=0.1234",
            "zstd;q=.5",
            "zstd;q=",
            "zstd;q",
            "zstd;",
            "zstd;q=1;q=1",
            "zstd; q = 1",
            "zstd;level=3",
            "zs td",
            "z@std",
            "\"zstd\"",
            ";q=1",
            "zstd;q=-1",
            "zstd;q=1e0",
            "zstd;q=0.+1",
        ] {
            assert_eq!(of(wrong), Coding::Identity, "{wrong:?}");
            assert_eq!(of(&format!("gzip, {wrong}")), Coding::Identity, "gzip, {wrong:?}");
            assert_eq!(negotiate([&b"gzip"[..], wrong.as_bytes()]), Coding::Identity, "gzip / {wrong:?}");
        }
    }

    const NAMES: [&str; 8] = ["zstd", "br", "gzip", "x-gzip", "identity", "*", "deflate", "dcb"];

    fn elements_of_a_field() -> impl Strategy<Value = Vec<(&'static str, Weight)>> {
        vec((select(&NAMES[..]), prop_oneof![Just(0), Just(1000), 0..=1000_u16]), 0..8)
    }

    proptest! {
        #[test]
        fn no_other_coding_is_liked_better(
            elements in elements_of_a_field(),
            style in vec((any::<bool>(), select(&["", " ", "\t", "  "][..]), 0..3_usize), 8),
            cut in 0..8_usize,
        ) {
            let written: Vec<String> = elements.iter().zip(&style).map(|(&(name, weight), &(upper, space, empty))| {
                let name = if upper { name.to_ascii_uppercase() } else { name.to_owned() };
                let weight = match weight {
                    1000 if upper => String::new(),
                    1000 => format!("{space};{space}q=1"),
                    _ => format!("{space};{space}q=0.{weight:03}"),
                };
                format!("{}{space}{name}{weight}{space}", ",".repeat(empty))
            }).collect();
            let (first, second) = written.split_at(cut.min(written.len()));
            let (first, second) = (first.join(","), second.join(","));
            let chosen = negotiate([first.as_bytes(), second.as_bytes()]);

            // Looked up the slow way: what the client said of each coding.
            let said = |names: &[&str]| elements.iter().filter(|e| names.contains(&e.0)).map(|e| e.1).min();
            let weight = |coding: Coding| {
                let names: &[&str] = if coding == Coding::Gzip { &["gzip", "x-gzip"] } else { &[coding.name()] };
                said(names).or(said(&["*"])).unwrap_or(0)
            };
            for other in Coding::ALL {
                prop_assert!(weight(other) <= weight(chosen), "{other:?} over {chosen:?}");
                prop_assert!(weight(other) < weight(chosen) || other >= chosen || weight(other) == 0, "{other:?} ties");
            }
            prop_assert!(chosen == Coding::Identity || weight(chosen) > 0, "refused, yet chosen");
        }

        #[test]
        fn any_bytes_get_an_answer_and_only_names_bring_a_coding(value in vec(select(b"zstdbrgip*;q=01., \t\x80\"".as_slice()), 0..40)) {
            let chosen = negotiate([&value[..]]);
            let text = String::from_utf8_lossy(&value).into_owned();
            prop_assert!(chosen == Coding::Identity || text.contains(chosen.name()) || text.contains('*'), "{text:?}");
        }
    }
}
