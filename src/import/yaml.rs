//! A YAML document as the import walks it: every value knows its line and its path, and is either used or named.

use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, YamlData};

/// A value in its place.
#[derive(Clone)]
pub(crate) struct Node<'a> {
    yaml: &'a MarkedYaml<'a>,
    /// Where it stands: `model_list[0].litellm_params.model`.
    pub(crate) path: String,
    /// The line of its key, or its own in a list; from 1.
    pub(crate) line: usize,
}

/// Reads the first document of `text`.
pub(crate) fn parse(text: &str) -> Result<Vec<MarkedYaml<'_>>, String> {
    MarkedYaml::load_from_str(text).map_err(|error| error.to_string())
}

impl<'a> Node<'a> {
    /// The document itself.
    pub(crate) fn root(yaml: &'a MarkedYaml<'a>) -> Node<'a> {
        Node { yaml, path: String::new(), line: yaml.span.start.line() }
    }

    /// The members of a mapping, in order; of anything else, none.
    pub(crate) fn members(&self) -> Vec<(String, Node<'a>)> {
        let YamlData::Mapping(mapping) = &self.yaml.data else { return Vec::new() };
        let member = |(key, value): (&'a MarkedYaml<'a>, &'a MarkedYaml<'a>)| {
            let name = scalar(key).unwrap_or_default();
            let path = if self.path.is_empty() { name.clone() } else { format!("{}.{name}", self.path) };
            (name, Node { yaml: value, path, line: key.span.start.line() })
        };
        mapping.iter().map(member).collect()
    }

    /// The member of that name.
    pub(crate) fn get(&self, name: &str) -> Option<Node<'a>> {
        self.members().into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// The items of a list; of anything else, none.
    pub(crate) fn items(&self) -> Vec<Node<'a>> {
        let YamlData::Sequence(items) = &self.yaml.data else { return Vec::new() };
        let item = |(index, yaml): (usize, &'a MarkedYaml<'a>)| Node {
            yaml,
            path: format!("{}[{index}]", self.path),
            line: yaml.span.start.line(),
        };
        items.iter().enumerate().map(item).collect()
    }

    /// A scalar as it would be read as text; `null` is none.
    pub(crate) fn text(&self) -> Option<String> {
        scalar(self.yaml)
    }

    /// A number that is not negative.
    pub(crate) fn number(&self) -> Option<f64> {
        self.text()?.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0)
    }
}

fn scalar(yaml: &MarkedYaml<'_>) -> Option<String> {
    match &yaml.data {
        YamlData::Value(Scalar::String(text)) => Some(text.to_string()),
        YamlData::Value(Scalar::Integer(number)) => Some(number.to_string()),
        YamlData::Value(Scalar::FloatingPoint(number)) => Some(number.to_string()),
        YamlData::Value(Scalar::Boolean(truth)) => Some(truth.to_string()),
        YamlData::Representation(text, ..) => Some(text.to_string()),
        _ => None,
    }
}
