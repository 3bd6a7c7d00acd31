//! What is answered when no upstream of a route does: another route's answer, another model's, or a fixed text.
//!
//! A fallback is asked like a route of its own, with its own limits and retries, at most [`FALLBACKS_MAX`] after each other and
//! none twice. The model's name in the body is changed where it lies. The answer's head says that it is not the one that was
//! asked for: `sedge-degraded: fallback`, or `static`.

use std::borrow::Cow;
use std::ops::Range;

use super::failover::Failed;
use super::retry;
use crate::config::Route;
use crate::proto::openai::{Fixed, Peek};
use crate::relay::exchange::{After, Exchange};
use crate::relay::pump::Framing;
use crate::relay::request::body::Upload;
use crate::relay::request::{Request, model_name};
use crate::relay::response_head::{self, Local};
use crate::relay::settings::Settings;
use crate::runtime::Shard;
use crate::runtime::clock::unix_millis;
use crate::telemetry::{Degraded, Outcome};

/// Routes that a request may fall back to, one after the other.
const FALLBACKS_MAX: usize = 3;

/// Where the model's name stands in the body as it is held, if it is known.
pub(crate) struct Name {
    pub(crate) place: Option<Range<u64>>,
    /// The body is a form, in which a name stands as it is.
    is_form: bool,
}

impl Name {
    pub(crate) fn of(peek: Option<&Peek>) -> Name {
        Name { place: peek.and_then(Peek::model_span), is_form: peek.is_some_and(Peek::is_form) }
    }

    /// Gives the model another name, in the query and the path as well. The body must be held from its beginning.
    pub(crate) fn change(
        &mut self,
        name: Option<String>,
        request: &mut Request,
        upload: &mut Upload,
        shard: &Shard,
    ) {
        let Some(name) = name else { return };
        if let Ok(Some((_, place))) = model_name::in_query(&request.target) {
            request.target = model_name::renamed(&request.target, place, &name).into();
        }
        if let Ok(Some((_, place))) = model_name::in_path(request.path()) {
            let target = model_name::renamed(&request.target, place, &name);
            request.path_bytes = target.len() - (request.target.len() - request.path_bytes);
            request.target = target.into();
        }
        let Some(place) = &mut self.place else { return };
        let token = if self.is_form { name } else { serde_json::Value::from(name).to_string() };
        upload.splice(place.clone(), token.as_bytes(), shard);
        place.end = place.start + token.len() as u64;
    }
}

impl Exchange<'_> {
    /// Where a request goes that no upstream of `route` has answered, and what the model is called there. `failed` is the last one
    /// that was asked.
    pub(crate) fn fallback(
        &self,
        route: &Route,
        failed: Option<&Failed>,
        before: &[usize],
        name: &Name,
        settings: &Settings,
    ) -> Option<(usize, String)> {
        let (fallback, config) = (route.fallback.as_deref()?, &settings.config);
        let until = self.client.deadlines.until();
        if self.left
            || before.len() > FALLBACKS_MAX
            || failed.is_some_and(|failed| !self.may_follow(route, failed))
            || !self.upload.can_rewind()
            || !retry::fits(until, self.core.shard.clock.millis(), 0)
        {
            return None;
        }
        let (index, rename) = match config.routes.iter().position(|route| route.name == fallback) {
            Some(index) => {
                let model = self.ledger.model.as_deref();
                let alias = config.routes[index].take(model, self.request.path()).flatten();
                (index, alias.or(model.map(Cow::Borrowed)).unwrap_or_default())
            }
            None => {
                let (index, alias) = config.route(Some(fallback), self.request.path())?;
                // Where the model's place is not known, it cannot be another.
                name.place.as_ref()?;
                (index, alias.unwrap_or(Cow::Borrowed(fallback)))
            }
        };
        let fits = self.body_bytes() <= config.routes[index].max_body;
        (fits && !before.contains(&index) && self.may_fall_back(index)).then(|| (index, rename.into_owned()))
    }

    /// The body that says what `route` says when nobody answers, in the form that was asked for. None where there is no such
    /// form, or where the head is out already and could not tell what this is.
    pub(crate) fn fixed(&self, route: &Route) -> Option<Box<[u8]>> {
        let fixed = Fixed {
            text: route.degraded.as_deref().filter(|_| self.early.is_none())?,
            model: self.ledger.model.as_deref().unwrap_or_default(),
            id: &self.request.id,
            created: unix_millis() / 1000,
        };
        fixed.body(self.request.path(), self.ledger.stream).map(Vec::into_boxed_slice)
    }

    /// Answers with it.
    pub(crate) async fn answer_fixed(&mut self, body: &[u8]) -> (Outcome, After) {
        self.request.degraded = Some(Degraded::Static);
        self.last_words();
        let (content_type, fields): (_, &[_]) = match self.ledger.stream {
            true => ("text/event-stream; charset=utf-8", &[("Cache-Control", "no-cache, no-transform")]),
            false => ("application/json", &[]),
        };
        let keep = self.upload.ended && response_head::keeps(self.request, Framing::Length, self.core);
        let local = Local { status: 200, content_type, body, fields };
        let bytes = local.write(self.request, keep, self.core);
        (self.ledger.status, self.ledger.bytes_out) = (200, body.len() as u64);
        let written = self.write(bytes).await;
        (Outcome::Degraded, After::written(&written, keep))
    }
}
