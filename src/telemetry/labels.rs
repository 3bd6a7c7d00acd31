//! Names of routes and upstreams as small numbers. A name keeps its number for the life of the process, so a reload of the
//! configuration goes on counting where the same name left off, and a core never handles a string to count a request.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Names told apart. Names beyond it share the label "other", so that reloads with ever new names stay bounded.
pub(crate) const MAX_NAMES: usize = 1024;

/// A name's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LabelId(u16);

impl LabelId {
    /// No name: the label stays empty, which to Prometheus is the same as absent.
    pub(crate) const NONE: LabelId = LabelId(0);
    /// The name "other".
    pub(crate) const OTHER: LabelId = LabelId(1);
}

/// The names, by number and by name. Written when a configuration is taken up, read by the scraper.
#[derive(Debug)]
pub(crate) struct Labels(RwLock<Names>);

#[derive(Debug)]
struct Names {
    by_id: Vec<Arc<str>>,
    ids: HashMap<Arc<str>, LabelId>,
}

impl Default for Labels {
    fn default() -> Self {
        let by_id: Vec<Arc<str>> = vec!["".into(), "other".into()];
        let ids = by_id.iter().cloned().zip([LabelId::NONE, LabelId::OTHER]).collect();
        Labels(RwLock::new(Names { by_id, ids }))
    }
}

impl Labels {
    /// The number of `name`, now and ever after; [`LabelId::OTHER`] when there are too many names.
    pub(crate) fn intern(&self, name: &str) -> LabelId {
        let mut names = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = names.ids.get(name) {
            return *id;
        }
        // Two ids are taken from the start.
        if names.by_id.len() >= MAX_NAMES + 2 {
            return LabelId::OTHER;
        }
        let id = LabelId(names.by_id.len() as u16);
        let name: Arc<str> = name.into();
        names.by_id.push(name.clone());
        names.ids.insert(name, id);
        id
    }

    /// The name of `id`.
    pub(crate) fn name(&self, id: LabelId) -> Arc<str> {
        let names = self.0.read().unwrap_or_else(PoisonError::into_inner);
        // An id of another table would be a mistake of ours, and no reason to lose a scrape.
        names.by_id.get(id.0 as usize).unwrap_or(&names.by_id[LabelId::OTHER.0 as usize]).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_number() {
        let labels = Labels::default();
        let chat = labels.intern("chat");
        let embeddings = labels.intern("embeddings");
        assert_ne!(chat, embeddings);
        assert_eq!(labels.intern("chat"), chat);
        assert_eq!(&*labels.name(chat), "chat");
        assert_eq!(&*labels.name(embeddings), "embeddings");
    }

    #[test]
    fn the_reserved_names_are_themselves() {
        let labels = Labels::default();
        assert_eq!(labels.intern("other"), LabelId::OTHER);
        assert_eq!(labels.intern(""), LabelId::NONE);
    }

    #[test]
    fn names_beyond_the_bound_are_other() {
        let labels = Labels::default();
        let last = (0..MAX_NAMES).map(|n| labels.intern(&format!("route-{n}"))).last().unwrap();
        assert_eq!(&*labels.name(last), format!("route-{}", MAX_NAMES - 1));
        assert_eq!(labels.intern("one-too-many"), LabelId::OTHER);
        assert_eq!(labels.intern("route-0"), LabelId(2));
    }
}
