//! The patterns of all subscriptions, as this node knows them: it matches new streams itself, so that Redis, which does one thing
//! at a time for all nodes, has only those subscriptions to look at that want one.
//!
//! A copy is good for one version. The script that makes a stream refuses to go by another, and then the copy is fetched anew.

use std::collections::HashMap;
use std::sync::Arc;

use redis::Value;

use super::Unavailable;
use super::meta::{garbled, text};
use super::remote::Remote;
use super::scripts::{self, Call};
use crate::streams::registry::guard;
use crate::subscriptions::{Glob, Patterns};

/// How often a copy is fetched for one stream, if it is old each time.
const ATTEMPTS: usize = 16;

/// The patterns of one version.
#[derive(Debug)]
pub(crate) struct Globs {
    /// Of which life of the store.
    epoch: u64,
    version: Box<str>,
    patterns: Patterns,
    /// Where the wakes of a subscription go.
    wakes: HashMap<Arc<str>, Box<str>>,
}

impl Globs {
    fn read(epoch: u64, answer: &[Value]) -> Result<Globs, Unavailable> {
        let [_, version, Value::Array(globs)] = answer else { return Err(garbled("patterns")) };
        let (mut patterns, mut wakes) = (Patterns::default(), HashMap::new());
        for [id, glob] in globs.as_chunks().0 {
            let id: Arc<str> = text(Some(id)).into();
            let (glob, wake) = text(Some(glob)).split_once('\n').unwrap_or_default();
            if let Some(glob) = Glob::restore(glob) {
                patterns.add(&glob, &id);
            }
            if !wake.is_empty() {
                wakes.insert(id, wake.into());
            }
        }
        Ok(Globs { epoch, version: text(Some(version)).into(), patterns, wakes })
    }

    /// Says what is known of a new stream: which version, and who wants it.
    fn tell(&self, call: Call, name: &str) -> Call {
        // Each wake would be new work, and each work another wake.
        let wanted = self.patterns.matching(name).into_iter();
        let wanted = wanted.filter(|id| self.wakes.get(id).is_none_or(|wake| **wake != *name));
        wanted.fold(call.text(&*self.version), |call, id| call.text(&*id))
    }
}

impl Remote {
    /// Makes the stream `name`; `make` is the script's call, but for who wants it.
    pub(crate) async fn make_known(&self, make: &Call, name: &str) -> Result<Vec<Value>, Unavailable> {
        let epoch = self.epoch();
        let mut known = guard(&self.globs).clone().filter(|globs| globs.epoch == epoch);
        for _ in 0..ATTEMPTS {
            let globs = match known.take() {
                Some(globs) => globs,
                None => {
                    let answer = self.link.call(Call::of(&scripts::GLOBS)).await?;
                    let globs = Arc::new(Globs::read(epoch, &answer)?);
                    *guard(&self.globs) = Some(Arc::clone(&globs));
                    globs
                }
            };
            let answer = self.link.call(globs.tell(make.clone(), name)).await?;
            if text(answer.first()) != "globs" {
                return Ok(answer);
            }
        }
        Err(Unavailable::refused("the subscriptions change faster than a stream is made"))
    }
}
