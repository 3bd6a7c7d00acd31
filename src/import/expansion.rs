//! How large a YAML text becomes when each alias is replaced by what it stands for. A few lines whose anchors hold nine aliases of the
//! line before ("billion laughs") become more than any memory holds, so a text is measured before it is loaded.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser};

/// The most values that a text may become: far more than any gateway's configuration has.
const VALUES_MAX: u64 = 200_000;

/// The most bytes of text in them.
const TEXT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The deepest that values may be nested.
const DEPTH_MAX: usize = 100;

/// What a value becomes, with all that is in it.
#[derive(Clone, Copy, Default)]
struct Size {
    values: u64,
    bytes: u64,
}

impl Size {
    fn add(&mut self, other: Size) {
        self.values = self.values.saturating_add(other.values);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// Checks that a text becomes no more than can be held.
///
/// # Errors
/// What is wrong with it, with its line.
pub(crate) fn check(text: &str) -> Result<(), String> {
    let mut anchors: HashMap<usize, Size> = HashMap::new();
    // Of each collection that is open: its anchor, and its size so far. The outermost holds all documents.
    let mut open: Vec<(usize, Size)> = vec![(0, Size::default())];
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| error.to_string())?;
        let line = span.start.line();
        let (anchor, size) = match event {
            Event::SequenceStart(anchor, _) | Event::MappingStart(anchor, _) => {
                if open.len() > DEPTH_MAX {
                    return Err(format!("line {line}: values are nested more than {DEPTH_MAX} deep"));
                }
                open.push((anchor, Size { values: 1, bytes: 0 }));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(closed) => closed,
                None => continue,
            },
            Event::Scalar(text, _, anchor, _) => (anchor, Size { values: 1, bytes: text.len() as u64 }),
            // One that is not known yet is the loader's to refuse.
            Event::Alias(anchor) => (0, anchors.get(&anchor).copied().unwrap_or_default()),
            _ => continue,
        };
        if anchor > 0 {
            anchors.insert(anchor, size);
        }
        if let Some((_, around)) = open.last_mut() {
            around.add(size);
            if around.values > VALUES_MAX || around.bytes > TEXT_BYTES_MAX {
                return Err(format!(
                    "line {line}: with its aliases written out the file has more than {VALUES_MAX} values or {TEXT_BYTES_MAX} bytes; \
                     sedge reads no such file"
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bomb(levels: usize) -> String {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..levels {
            let before = vec![format!("*a{}", level - 1); 9].join(", ");
            text += &format!("a{level}: &a{level} [{before}]\n");
        }
        text
    }

    #[test]
    fn a_text_that_grows_without_end_is_refused_before_it_does() {
        assert_eq!(check(&bomb(5)), Ok(()));
        for levels in [6, 10, 60] {
            let error = check(&bomb(levels)).unwrap_err();
            assert!(error.starts_with("line 6: with its aliases written out"), "{error}");
        }
        let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(1_000_000), ["*a"; 20].join(", "));
        assert!(check(&long).unwrap_err().starts_with("line 2: "));
        assert!(check(&"[".repeat(101)).unwrap_err().contains("nested more than 100 deep"));
        assert!(check(&"[".repeat(100_000)).is_err());
    }

    #[test]
    fn aliases_as_people_use_them_are_fine() {
        let text =
            "base: &base {rpm: 1, tpm: 2}\nmodel_list:\n- {model_name: a, litellm_params: *base}\n- *base\n";
        assert_eq!(check(text), Ok(()));
        assert!(check("a: [").is_err());
    }
}
