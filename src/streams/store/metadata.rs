//! What is kept beside the streams, under names: in the same journal, so that it is as durable as they are and comes back in one
//! order with them.
//!
//! A note is written whole, and then added to; written whole again it takes the place of all that was there. Without a journal
//! nothing is kept, and nothing fails.

use std::borrow::Cow;
use std::collections::HashMap;

use super::journal::{AppendError, Journal, Location, Ticket};
use super::journal_entry::Entry;

/// The notes.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    journal: Option<Journal>,
    /// Where each is.
    kept: HashMap<Box<str>, Vec<Location>>,
    /// Words that one is gone, to be given up once they are durable.
    graves: Vec<Ticket>,
}

impl Notes {
    /// Writes a note: all of it (`whole`), or what comes behind what is there.
    ///
    /// # Errors
    /// If it cannot be stored. What was there stands.
    pub(crate) fn write(
        &mut self,
        name: &str,
        body: &[u8],
        whole: bool,
    ) -> Result<Option<Ticket>, AppendError> {
        self.sweep();
        let Some(journal) = &self.journal else { return Ok(None) };
        let kept = self.kept.entry(name.into()).or_default();
        let name = Cow::Borrowed(name);
        let ticket = match whole {
            true => {
                let (record, _) = Entry::Note { name, gone: false }.write(body);
                let ticket = journal.append_retiring(&record, kept)?;
                kept.clear();
                ticket
            }
            false => journal.append(&Entry::More { name }.write(body).0)?,
        };
        kept.push(ticket.location);
        Ok(Some(ticket))
    }

    /// Gives a note up.
    ///
    /// # Errors
    /// If the word of it cannot be stored. What was there stands.
    pub(crate) fn erase(&mut self, name: &str) -> Result<Option<Ticket>, AppendError> {
        self.sweep();
        let (Some(journal), Some(kept)) = (&self.journal, self.kept.get(name)) else { return Ok(None) };
        let (record, _) = Entry::Note { name: Cow::Borrowed(name), gone: true }.write(&[]);
        let ticket = journal.append_retiring(&record, kept)?;
        self.kept.remove(name);
        self.graves.push(ticket);
        Ok(Some(ticket))
    }

    fn sweep(&mut self) {
        let Some(journal) = self.journal.as_ref().filter(|_| !self.graves.is_empty()) else { return };
        let is_durable = |ticket: &mut Ticket| matches!(journal.outcome(*ticket), Some(Ok(())));
        let done: Vec<_> = self.graves.extract_if(.., is_durable).map(|ticket| ticket.location).collect();
        journal.retire(&done);
    }
}

/// Each name, and what was written under it, in order.
pub(crate) type Written = Vec<(Box<str>, Vec<u8>)>;

/// Notes as the journal gives them out at a start. What was given up may come as well, but always before what has taken its
/// place.
#[derive(Debug, Default)]
pub(crate) struct Noted(HashMap<Box<str>, Vec<(Location, Vec<u8>)>>);

impl Noted {
    pub(crate) fn replay(
        &mut self,
        name: &str,
        location: Location,
        body: &[u8],
        gone: bool,
        dead: &mut Vec<Location>,
    ) {
        if let Some(before) = self.0.remove(name) {
            dead.extend(before.into_iter().map(|(location, _)| location));
        }
        match gone {
            true => dead.push(location),
            false => drop(self.0.insert(name.into(), vec![(location, body.to_vec())])),
        }
    }

    pub(crate) fn replay_more(
        &mut self,
        name: &str,
        location: Location,
        body: &[u8],
        dead: &mut Vec<Location>,
    ) {
        match self.0.get_mut(name) {
            Some(note) => note.push((location, body.to_vec())),
            // What it was added to is gone, so it is worth nothing.
            None => dead.push(location),
        }
    }

    pub(crate) fn finish(self, journal: Journal) -> (Notes, Written) {
        let mut notes = Notes { journal: Some(journal), ..Notes::default() };
        let mut noted = Vec::new();
        for (name, parts) in self.0 {
            let kept = notes.kept.entry(name.clone()).or_default();
            for (location, body) in parts {
                kept.push(location);
                noted.push((name.clone(), body));
            }
        }
        (notes, noted)
    }
}
