//! A value that fits a JSON schema, as far as those go that SDKs make of a program's types: objects, lists, enumerations,
//! unions and references into the schema itself.
//!
//! A schema that refers to itself has no end, and one that does so several times doubles at every step, so both depth and
//! number of values are bounded.

use serde_json::{Map, Value, json};

/// How deep a schema is followed, references included.
const DEPTH_MAX: u32 = 16;

/// Values that are made of one schema.
const VALUES_MAX: u32 = 10_000;

/// Characters of the text in one piece.
const PIECE_CHARS: usize = 6;

/// A value that fits `schema`, as text in pieces.
pub(crate) fn pieces_of(schema: &Value) -> Vec<String> {
    pieces(&filled(schema).to_string())
}

/// A text in pieces of the length that a model's tokens have.
pub(crate) fn pieces(text: &str) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    characters.chunks(PIECE_CHARS).map(|piece| piece.iter().collect()).collect()
}

fn filled(schema: &Value) -> Value {
    Filler { root: schema, values: 0 }.fill(schema, 0)
}

struct Filler<'a> {
    /// What references start from.
    root: &'a Value,
    values: u32,
}

impl Filler<'_> {
    fn fill(&mut self, schema: &Value, depth: u32) -> Value {
        self.values += 1;
        if depth >= DEPTH_MAX || self.values >= VALUES_MAX {
            return Value::Null;
        }
        if let Some(value) = schema["enum"].get(0).or(schema.get("const")).or(schema.get("default")) {
            return value.clone();
        }
        if let Some(reference) = schema["$ref"].as_str() {
            let meant = reference.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
            return meant.map_or(Value::Null, |meant| self.fill(meant, depth + 1));
        }
        for union in ["anyOf", "oneOf", "allOf"] {
            if let Some(choices) = schema[union].as_array() {
                return self.choose(choices, depth);
            }
        }
        match schema["type"].as_str().or(schema["type"][0].as_str()) {
            Some("string") => json!(text(schema["format"].as_str())),
            Some("integer") => json!(1),
            Some("number") => json!(1.5),
            Some("boolean") => json!(true),
            Some("null") => Value::Null,
            Some("array") if schema["items"].is_object() => json!([self.fill(&schema["items"], depth + 1)]),
            Some("array") => json!([]),
            _ => self.object(schema, depth),
        }
    }

    /// The first choice, unless what is deep down may be nothing.
    fn choose(&mut self, choices: &[Value], depth: u32) -> Value {
        let may_be_null = choices.iter().any(|choice| choice["type"] == "null");
        match choices.first() {
            Some(first) if !(may_be_null && depth > DEPTH_MAX / 2) => self.fill(first, depth + 1),
            _ => Value::Null,
        }
    }

    fn object(&mut self, schema: &Value, depth: u32) -> Value {
        let mut object = Map::new();
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            if self.values >= VALUES_MAX {
                break;
            }
            object.insert(name.clone(), self.fill(property, depth + 1));
        }
        Value::Object(object)
    }
}

/// A text that reads as the format it is to have.
fn text(format: Option<&str>) -> &'static str {
    match format {
        Some("date-time") => "2025-01-01T00:00:00Z",
        Some("date") => "2025-01-01",
        Some("time") => "00:00:00Z",
        Some("email") => "sedge@example.org",
        Some("uuid") => "00000000-0000-4000-8000-000000000000",
        Some("uri") => "https://example.org/sedge",
        _ => "sedge",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simple_properties_have_simple_values() {
        let schema = json!({"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": ["integer", "null"]},
            "unit": {"enum": ["C", "F"]}, "on": {"type": "string", "format": "date"}, "all": {"type": "array", "items": {"type": "boolean"}}}});
        let value = json!({"city": "sedge", "days": 1, "unit": "C", "on": "2025-01-01", "all": [true]});
        assert_eq!(filled(&schema), value);
        assert_eq!(pieces_of(&schema).concat(), value.to_string());
    }

    /// SDKs put every nested type into `$defs`; left unresolved, their own parsers refused the answer.
    #[test]
    fn references_and_unions_are_followed() {
        let schema = json!({"$defs": {"Step": {"type": "object", "properties": {"n": {"type": "integer"}}}},
            "type": "object", "properties": {
                "first": {"$ref": "#/$defs/Step"}, "maybe": {"anyOf": [{"$ref": "#/$defs/Step"}, {"type": "null"}]},
                "gone": {"$ref": "#/$defs/Nothing"}, "elsewhere": {"$ref": "https://example.org/"}}});
        let value = json!({"first": {"n": 1}, "maybe": {"n": 1}, "gone": null, "elsewhere": null});
        assert_eq!(filled(&schema), value);
    }

    #[test]
    fn schemas_without_an_end_come_to_one() {
        let list =
            json!({"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}});
        assert_eq!(filled(&list), json!({"next": {"next": {"next": {"next": null}}}}));
        let properties: Map<String, Value> =
            (0..100).map(|n| (n.to_string(), json!({"$ref": "#"}))).collect();
        let tree = filled(&json!({"properties": properties})).to_string();
        assert!(tree.len() < 20 * VALUES_MAX as usize, "{}", tree.len());
        assert_eq!(filled(&json!({"$ref": "#"})), Value::Null);
    }
}
