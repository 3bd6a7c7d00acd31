//! All subscriptions: by id, by the streams they have, and by when something happens by itself.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use super::action::{Action, Delivered};
use super::keys::{Secret, Signer};
use super::patterns::Patterns;
use super::phase::Phase;
use super::question::Question;
use super::record::{BadRecord, Record, Written};
use super::refusal::Refusal;
use super::settings::{Kind, Settings};
use super::source::Source;
use super::subscription::{Subscription, Turn};
use super::token::Tokens;
use super::webhook_url::Local;
use super::{Reply, SUBSCRIPTIONS_MAX, UnixMillis, view};
use crate::telemetry::Nonces;

/// What there is when something is asked: the time, and the streams.
#[derive(Clone, Copy)]
pub(crate) struct Scene<'a> {
    /// Milliseconds since 1970. It may stand still, and never goes back.
    pub(crate) now: UnixMillis,
    /// The streams.
    pub(crate) source: &'a dyn Source,
    /// Bytes of memory that all subscriptions may take.
    pub(crate) memory: u64,
    /// The name of the key that it is asked with, if there is one.
    pub(crate) key: Option<&'a str>,
}

/// All subscriptions of a server.
#[derive(Debug)]
pub(crate) struct Subscriptions {
    all: HashMap<Arc<str>, Subscription>,
    /// Whose a stream is.
    watchers: HashMap<Arc<str>, Vec<Arc<str>>>,
    patterns: Patterns,
    due: BTreeSet<(UnixMillis, Arc<str>)>,
    actions: Vec<Action>,
    /// Streams that a pattern matches and that were not linked, because the subscription has as many as it may.
    unlinked: u64,
    /// Bytes of memory that all of them take.
    held: u64,
    tokens: Tokens,
    kid: String,
    ids: Nonces,
}

impl Subscriptions {
    /// None yet.
    pub(crate) fn new(secret: &Secret, ids: Nonces) -> Subscriptions {
        Subscriptions {
            all: HashMap::new(),
            watchers: HashMap::new(),
            patterns: Patterns::default(),
            due: BTreeSet::new(),
            actions: Vec::new(),
            unlinked: 0,
            held: 0,
            tokens: secret.tokens(),
            kid: Signer::new(secret).kid().to_owned(),
            ids,
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Bytes of memory that they take.
    pub(crate) fn held(&self) -> u64 {
        self.held
    }

    /// The same, counted anew.
    #[cfg(test)]
    pub(crate) fn held_by_each(&self) -> u64 {
        self.all.values().map(Subscription::held).sum()
    }

    /// How often a stream was left out because a subscription has as many as it may, or there was no memory.
    pub(crate) fn unlinked(&self) -> u64 {
        self.unlinked
    }

    /// What is to be done, since this was asked last.
    pub(crate) fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// When [`Subscriptions::advance`] has something to do.
    pub(crate) fn next_due(&self) -> Option<UnixMillis> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Makes a subscription, or confirms that there is the same. `origin` is where clients reach this server, as in
    /// `https://edge.example`.
    ///
    /// # Errors
    /// If the body is wrong, there is another of that id, or there are too many.
    pub(crate) fn put(
        &mut self,
        id: &str,
        body: &[u8],
        origin: &str,
        local: Local,
        scene: Scene<'_>,
    ) -> Result<Reply, Refusal> {
        let settings = Settings::of(id, body, local)?;
        if let Some(known) = self.all.get(id) {
            return known.confirm(&settings, &self.kid);
        }
        if self.all.len() >= SUBSCRIPTIONS_MAX {
            return Err(Refusal::full());
        }
        let id: Arc<str> = id.into();
        let mut turn = turn(scene, self.held, &self.tokens, &mut self.ids);
        let subscription = Subscription::create(&id, settings, origin, &mut turn)?;
        let (actions, watched) = (turn.actions, turn.watched);
        let body = view::subscription(&subscription, &self.kid);
        if let Some(glob) = &subscription.glob {
            self.patterns.add(glob, &id);
        }
        self.held += subscription.held();
        self.all.insert(Arc::clone(&id), subscription);
        self.after(&id, None, actions, watched);
        Ok(Reply { status: 201, body })
    }

    /// Answers whatever is asked of a subscription.
    ///
    /// # Errors
    /// If it is refused; see the questions.
    pub(crate) fn answer(
        &mut self,
        id: &str,
        question: &Question,
        scene: Scene<'_>,
    ) -> Result<Reply, Refusal> {
        if self.all.get(id).is_some_and(|known| !known.answers(question, scene.key)) {
            return Err(Refusal::of_another_key());
        }
        match question {
            Question::Put { body, origin, local } => self.put(id, body, origin, *local, scene),
            Question::Show => self.get(id, scene),
            Question::Delete => Ok(self.delete(id)),
            Question::Add(body) => self.add_streams(id, body, scene),
            Question::Remove(path) => self.remove_stream(id, path, scene),
            Question::Claim(body) => self.claim(id, body, scene),
            Question::Ack { token, body } => self.ack(id, token.as_deref(), body, scene),
            Question::Callback { token, body } => self.callback(id, token.as_deref(), body, scene),
            Question::Release { token, body } => self.release(id, token.as_deref(), body, scene),
        }
    }

    /// Shows a subscription.
    ///
    /// # Errors
    /// If there is none of this id.
    pub(crate) fn get(&mut self, id: &str, scene: Scene<'_>) -> Result<Reply, Refusal> {
        self.step(id, scene, |_, _| ())?;
        let subscription = self.all.get(id).ok_or_else(Refusal::not_found)?;
        Ok(Reply { status: 200, body: view::subscription(subscription, &self.kid) })
    }

    /// Deletes a subscription; that there is none is as good. Whatever is under way for it is refused from now on.
    pub(crate) fn delete(&mut self, id: &str) -> Reply {
        if let Some((id, subscription)) = self.all.remove_entry(id) {
            if let Some(at) = subscription.phase.due() {
                self.due.remove(&(at, Arc::clone(&id)));
            }
            if let Some(glob) = &subscription.glob {
                self.patterns.remove(glob, &id);
            }
            self.held -= subscription.held();
            for (path, _) in subscription.links.iter() {
                unwatch(&mut self.watchers, path, &id);
            }
            self.actions.push(Action::Forget { id });
        }
        Reply::empty()
    }

    /// Adds streams by name.
    ///
    /// # Errors
    /// If there is no such subscription, or the body is wrong, or there would be too many.
    pub(crate) fn add_streams(&mut self, id: &str, body: &[u8], scene: Scene<'_>) -> Result<Reply, Refusal> {
        self.step(id, scene, |subscription, turn| subscription.add_streams(body, turn))?
    }

    /// Takes a stream that was added by name away again.
    ///
    /// # Errors
    /// If there is no such subscription.
    pub(crate) fn remove_stream(&mut self, id: &str, path: &str, scene: Scene<'_>) -> Result<Reply, Refusal> {
        self.step(id, scene, |subscription, turn| subscription.remove_stream(path, turn))
    }

    /// A worker claims the wake of a pull-wake subscription.
    ///
    /// # Errors
    /// If there is nothing to claim, or another worker has it.
    pub(crate) fn claim(&mut self, id: &str, body: &[u8], scene: Scene<'_>) -> Result<Reply, Refusal> {
        self.step(id, scene, |subscription, turn| subscription.claim(body, turn))?
    }

    /// A worker of a pull-wake subscription says how far it is.
    ///
    /// # Errors
    /// If it does not hold the current wake, or an offset cannot be acknowledged; no cursor has moved then.
    pub(crate) fn ack(
        &mut self,
        id: &str,
        token: Option<&str>,
        body: &[u8],
        scene: Scene<'_>,
    ) -> Result<Reply, Refusal> {
        self.step(id, scene, |subscription, turn| subscription.progress(Kind::PullWake, token, body, turn))?
    }

    /// The receiver of a webhook says how far it is.
    ///
    /// # Errors
    /// As [`Subscriptions::ack`].
    pub(crate) fn callback(
        &mut self,
        id: &str,
        token: Option<&str>,
        body: &[u8],
        scene: Scene<'_>,
    ) -> Result<Reply, Refusal> {
        self.step(id, scene, |subscription, turn| subscription.progress(Kind::Webhook, token, body, turn))?
    }

    /// A worker gives a wake back.
    ///
    /// # Errors
    /// If it does not hold the current wake.
    pub(crate) fn release(
        &mut self,
        id: &str,
        token: Option<&str>,
        body: &[u8],
        scene: Scene<'_>,
    ) -> Result<Reply, Refusal> {
        self.step(id, scene, |subscription, turn| subscription.release(token, body, turn))?
    }

    /// A stream was created. To be said once everyone can find it.
    pub(crate) fn created(&mut self, path: &str, scene: Scene<'_>) {
        let found = self.patterns.matching(path).into_iter().filter_map(|id| {
            let key = self.all.get(&id)?.key.as_deref();
            Some((scene.source.extent(path, key)?, id))
        });
        for (extent, id) in found.collect::<Vec<_>>() {
            if let Ok(Err(_)) = self.step(&id, scene, |it, turn| it.discover(path, extent, turn)) {
                self.unlinked += 1;
            }
        }
        self.changed(path, scene);
    }

    /// Something was appended to a stream, or it was deleted. To be said once everyone can see it; several changes may be said
    /// at once. False says that no subscription has it.
    pub(crate) fn changed(&mut self, path: &str, scene: Scene<'_>) -> bool {
        let Some((path, ids)) = self.watchers.get_key_value(path) else { return false };
        let (path, ids) = (Arc::clone(path), ids.clone());
        for id in ids {
            let _ = self.step(&id, scene, |subscription, turn| {
                let extent = scene.source.extent(&path, subscription.key.as_deref());
                subscription.look(&path, extent, turn);
            });
        }
        true
    }

    /// What came of a webhook.
    pub(crate) fn delivered(&mut self, id: &str, wake_id: &str, outcome: Delivered, scene: Scene<'_>) {
        let _ = self.step(id, scene, |subscription, turn| subscription.delivered(wake_id, outcome, turn));
    }

    /// Whether the event of a wake is in its stream.
    pub(crate) fn announced(&mut self, id: &str, wake_id: &str, is_there: bool, scene: Scene<'_>) {
        let _ = self.step(id, scene, |subscription, turn| subscription.announced(wake_id, is_there, turn));
    }

    /// Does what is due, for so many subscriptions at most. Says whether more is due.
    pub(crate) fn advance(&mut self, scene: Scene<'_>, at_most: usize) -> bool {
        for _ in 0..at_most {
            match self.due.first().cloned() {
                Some((at, id)) if at <= scene.now => drop(self.step(&id, scene, |_, _| ())),
                _ => return false,
            }
        }
        self.next_due().is_some_and(|at| at <= scene.now)
    }

    /// Whether there is one of this id.
    pub(crate) fn has(&self, id: &str) -> bool {
        self.all.contains_key(id)
    }

    /// Takes up a record, at a start. They come in the order in which they were stored.
    ///
    /// # Errors
    /// If it is not one that this version has written.
    pub(crate) fn restore(&mut self, record: &[u8]) -> Result<(), BadRecord> {
        let length = record.len();
        let record = Record::read(record)?;
        let id: Arc<str> = (&*record.id).into();
        let known = self.all.remove(&id);
        self.all.insert(id, record.apply(known, length)?);
        Ok(())
    }

    /// A record of a subscription could not be kept, and what was asked for behind it is not done: the next one says everything.
    pub(crate) fn not_stored(&mut self, id: &str) {
        if let Some(subscription) = self.all.get_mut(id) {
            subscription.written = Written::default();
            subscription.changed = true;
        }
    }

    /// Goes on with what was restored, once, when the streams are there too. What was being told is told again, under the same
    /// wake.
    pub(crate) fn start(&mut self, scene: Scene<'_>) {
        let ids: Vec<_> = self.all.keys().cloned().collect();
        for id in ids {
            let Some(subscription) = self.all.get_mut(&id) else { continue };
            let paths: Vec<_> = subscription.links.iter().map(|(path, _)| Arc::clone(path)).collect();
            for path in &paths {
                watch(&mut self.watchers, path, &id);
            }
            let mut turn = turn(scene, 0, &self.tokens, &mut self.ids);
            for path in &paths {
                subscription.refresh(path, &mut turn);
            }
            for (path, watches) in turn.watched {
                if !watches {
                    unwatch(&mut self.watchers, &path, &id);
                }
            }
            if let Some(glob) = &subscription.glob {
                self.patterns.add(glob, &id);
            }
        }
        self.link_all(scene);
        let ids: Vec<_> = self.all.keys().cloned().collect();
        for id in ids {
            let Some(subscription) = self.all.get_mut(&id) else { continue };
            let mut turn = turn(scene, 0, &self.tokens, &mut self.ids);
            subscription.resume(&mut turn);
            let (actions, watched) = (turn.actions, turn.watched);
            self.after(&id, None, actions, watched);
        }
        self.held = self.all.values().map(Subscription::held).sum();
    }

    /// Links all streams that there are to the subscriptions that want them, new from their beginnings on. Those were promised,
    /// whatever memory there is now.
    fn link_all(&mut self, scene: Scene<'_>) {
        let scene = Scene { memory: u64::MAX, ..scene };
        let Subscriptions { all, watchers, patterns, unlinked, tokens, ids, .. } = self;
        if patterns.is_empty() {
            return;
        }
        let is_wanted = |path: &str| !patterns.matching(path).is_empty();
        // A subscription sees what its key may use: those of one key are looked for together.
        let keys: BTreeSet<_> =
            all.values().filter(|it| it.glob.is_some()).map(|it| it.key.clone()).collect();
        for key in keys {
            scene.source.matching(&is_wanted, key.as_deref(), &mut |path, extent| {
                for id in patterns.matching(path) {
                    let Some(subscription) = all.get_mut(&id).filter(|it| it.key == key) else { continue };
                    let mut turn = turn(scene, 0, tokens, ids);
                    if subscription.link_by_glob(path, extent, |extent| extent.start, &mut turn).is_err() {
                        *unlinked += 1;
                    }
                    turn.watched.iter().for_each(|(path, _)| watch(watchers, path, &id));
                }
                ControlFlow::Continue(())
            });
        }
    }

    /// One step of a subscription, after what is due for it.
    fn step<R>(
        &mut self,
        id: &str,
        scene: Scene<'_>,
        step: impl FnOnce(&mut Subscription, &mut Turn<'_>) -> R,
    ) -> Result<R, Refusal> {
        let subscription = self.all.get_mut(id).ok_or_else(Refusal::not_found)?;
        let (id, due, before) = (Arc::clone(&subscription.id), subscription.phase.due(), subscription.held());
        let mut turn = turn(scene, self.held, &self.tokens, &mut self.ids);
        subscription.advance(&mut turn);
        let result = step(subscription, &mut turn);
        let (actions, watched) = (turn.actions, turn.watched);
        self.held = self.held - before + subscription.held();
        self.after(&id, due, actions, watched);
        Ok(result)
    }

    /// Notes what a step has changed.
    fn after(
        &mut self,
        id: &Arc<str>,
        due: Option<UnixMillis>,
        actions: Vec<Action>,
        watched: Vec<(Arc<str>, bool)>,
    ) {
        for (path, watches) in watched {
            match watches {
                true => watch(&mut self.watchers, &path, id),
                false => unwatch(&mut self.watchers, &path, id),
            }
        }
        let Some(subscription) = self.all.get_mut(id) else { return };
        let next = subscription.phase.due();
        if next != due {
            due.map(|at| self.due.remove(&(at, Arc::clone(id))));
            next.map(|at| self.due.insert((at, Arc::clone(id))));
        }
        if let Some((record, whole)) = subscription.take_record() {
            self.actions.push(Action::Store { id: Arc::clone(id), record, whole });
        }
        self.actions.extend(actions);
        debug_assert!(
            subscription.phase != Phase::Idle || !subscription.links.has_pending(),
            "work wakes somebody"
        );
    }
}

fn turn<'a>(scene: Scene<'a>, held: u64, tokens: &'a Tokens, ids: &'a mut Nonces) -> Turn<'a> {
    let Scene { now, source, memory, key } = scene;
    let room = memory.saturating_sub(held);
    Turn { now, source, key, tokens, ids, room, actions: Vec::new(), watched: Vec::new() }
}

fn watch(watchers: &mut HashMap<Arc<str>, Vec<Arc<str>>>, path: &Arc<str>, id: &Arc<str>) {
    let ids = watchers.entry(Arc::clone(path)).or_default();
    if !ids.contains(id) {
        ids.push(Arc::clone(id));
    }
}

fn unwatch(watchers: &mut HashMap<Arc<str>, Vec<Arc<str>>>, path: &str, id: &Arc<str>) {
    if let Some(ids) = watchers.get_mut(path) {
        ids.retain(|other| other != id);
        if ids.is_empty() {
            watchers.remove(path);
        }
    }
}
