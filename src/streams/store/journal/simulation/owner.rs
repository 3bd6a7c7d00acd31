//! Who owns the records of the simulated journal, and what that owner knows of them.

use std::collections::{HashMap, HashSet};

use super::world::{Dice, Simulated};
use crate::streams::store::journal::disk::Disk;
use crate::streams::store::journal::{
    AppendError, Failure, Fsync, Journal, Location, OpenError, ReadError, Settings, Ticket, Wait, Writer,
    manifest,
};

/// Small, so that segments come and go.
const SEGMENT_BYTES: u32 = 1_500;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Taken; nobody said more.
    Unknown,
    /// Acknowledged, or given out by a start.
    Durable,
    /// A start did not give it out, and none ever may.
    Lost,
}

#[derive(Debug)]
struct Entry {
    location: Location,
    body: Vec<u8>,
    state: State,
    /// Whom it kills; nobody, if it is a put.
    victims: Vec<usize>,
    killer: Option<usize>,
    /// A kill that was given up, as it should be once it is durable.
    retired: bool,
}

/// The owner outlives every crash: it is what the journal is measured by.
#[derive(Debug)]
pub(crate) struct Owner {
    pub(crate) disk: Simulated,
    pub(crate) settings: Settings,
    entries: Vec<Entry>,
    at: HashMap<Location, usize>,
    /// Entries before this one were there when the journal was last opened, and thus synced.
    synced: usize,
}

impl Owner {
    pub(crate) fn new(seed: u64, fsync: Fsync) -> Self {
        let settings = Settings { fsync, segment_bytes: SEGMENT_BYTES };
        Self { disk: Simulated::new(seed), settings, entries: Vec::new(), at: HashMap::new(), synced: 0 }
    }

    /// Whether these are the bytes that were appended there.
    pub(crate) fn knows(&self, location: Location, body: &[u8]) -> Result<(), String> {
        let entry = self.at.get(&location).map(|at| &self.entries[*at]);
        match entry {
            Some(entry) if entry.body == body => Ok(()),
            Some(_) => Err(format!("{location:?} has other bytes")),
            None => Err(format!("{location:?} was never appended, or was lost before")),
        }
    }

    /// Opens the journal and compares; `None` if the disk did not let it.
    pub(crate) fn start(&mut self, seed: u64) -> Option<Life> {
        let mut given = Vec::new();
        let opened = Journal::open_on(self.disk.clone(), &self.settings, seed, |location, body| {
            given.push(location);
            self.knows(location, body)
        });
        let opened = match opened {
            Ok(opened) => opened,
            Err(OpenError::Io { .. }) => return None,
            Err(error) => panic!("seed {seed}: {error}"),
        };
        assert!(given.windows(2).all(|pair| pair[0].position < pair[1].position), "seed {seed}: order");
        let present: HashSet<usize> = given.iter().map(|location| self.at[location]).collect();
        self.compare(&present, seed);
        self.synced = self.entries.len();

        let journal = opened.journal;
        let (mut alive, mut dead) = (Vec::new(), Vec::new());
        for &at in &present {
            let entry = &mut self.entries[at];
            if entry.victims.is_empty() && entry.killer.is_none() {
                alive.push(at);
            } else {
                entry.retired = true;
                dead.push(entry.location);
            }
        }
        alive.sort_unstable();
        journal.retire(&dead);
        let life = Life {
            journal,
            writer: opened.writer,
            alive,
            waiting: Vec::new(),
            was_cut: opened.recovery.cut.is_some(),
            lacks: 0,
            refused: 0,
            last_batch: Default::default(),
        };
        life.read_everything(self);
        Some(life)
    }

    /// What was given out against what is known.
    fn compare(&mut self, present: &HashSet<usize>, seed: u64) {
        // What became of each kill, before the puts are judged by it.
        let mut lost_now = HashSet::new();
        for at in 0..self.entries.len() {
            let entry = &self.entries[at];
            if entry.victims.is_empty() || entry.state != State::Unknown {
                continue;
            }
            let here = |victim: &usize| present.contains(victim);
            let kept = if present.contains(&at) {
                true
            } else if entry.retired {
                // Demoted by a loss of power after it had been acknowledged: it may have gone with its segment, and then all
                // of its victims have, or it was lost, and then all of its victims are there that were not lost with it.
                let gone = !entry.victims.iter().any(here);
                let synced = |victim: &&usize| self.entries[**victim].state == State::Durable;
                let half = !gone && !entry.victims.iter().filter(synced).all(here);
                assert!(!half, "seed {seed}: half of a kill, {at}");
                gone
            } else {
                false
            };
            let victims = entry.victims.clone();
            self.entries[at].state = if kept { State::Durable } else { State::Lost };
            if !kept {
                lost_now.insert(at);
                for victim in victims {
                    self.entries[victim].killer = None;
                }
            }
        }
        let mut ended = None;
        for at in 0..self.entries.len() {
            let entry = &self.entries[at];
            let is_present = present.contains(&at);
            if !entry.victims.is_empty() {
                match entry.state {
                    State::Lost => {
                        assert!(!is_present, "seed {seed}: {at} was lost and came back");
                        ended = ended.or(lost_now.contains(&at).then_some(at));
                    }
                    // Gone with its segment, it may not leave a victim behind.
                    _ if !is_present => {
                        assert!(entry.retired, "seed {seed}: kill {at} is lost");
                        let back = entry.victims.iter().find(|victim| present.contains(victim));
                        assert_eq!(back, None, "seed {seed}: killed by {at} and came back");
                    }
                    _ => {}
                }
                continue;
            }
            match (entry.state, is_present) {
                (State::Lost, true) => panic!("seed {seed}: {at} was lost and came back"),
                (State::Durable, false) => {
                    assert!(entry.killer.is_some(), "seed {seed}: {at} was acknowledged and is lost");
                }
                (State::Unknown, true) => {
                    assert_eq!(ended, None, "seed {seed}: {at} is there, though one before it is lost");
                    self.entries[at].state = State::Durable;
                }
                (State::Unknown, false) if entry.killer.is_none() => {
                    ended = ended.or(Some(at));
                    self.entries[at].state = State::Lost;
                }
                (State::Unknown, false) => self.entries[at].state = State::Durable,
                _ => {}
            }
        }
        // A place whose record was lost may be given to another.
        let entries = &self.entries;
        self.at.retain(|_, at| entries[*at].state != State::Lost);
    }

    /// Number of the last segment in which a record was acknowledged as synced.
    pub(crate) fn last_synced_segment(&self) -> Option<u32> {
        let durable = self.entries.iter().filter(|entry| entry.state == State::Durable);
        durable.map(|entry| entry.location.position.segment()).max()
    }

    /// Tries to open the journal without one of its segments: that it is missing must be said, and nothing changed.
    pub(crate) fn is_missed(&self, name: &str) {
        let content = self.disk.take_away(name);
        let before = self.disk.files();
        let error =
            Journal::open_on(self.disk.clone(), &self.settings, 0, |_, _| panic!("{name} is missing"))
                .map(drop)
                .expect_err(name);
        match &error {
            OpenError::Missing(path) => assert_eq!(*path, self.disk.path(name)),
            // The newest slot of the manifest is torn, so that the older one may be meant.
            OpenError::Damaged { path, .. } => assert_eq!(*path, self.disk.path(manifest::NAME)),
            other => panic!("{name}: {other}"),
        }
        assert_eq!(self.disk.files(), before, "{name}: {error}");
        self.disk.put_back(name, content);
    }

    /// The process or the machine stops.
    pub(crate) fn crash(&mut self, dice: &mut Dice) {
        if dice.chance(60) {
            self.lose_power();
        }
    }

    pub(crate) fn lose_power(&mut self) {
        self.disk.lose_power();
        if self.settings.fsync != Fsync::Always {
            // What was acknowledged without a sync may be lost.
            for entry in &mut self.entries[self.synced..] {
                if entry.state == State::Durable {
                    entry.state = State::Unknown;
                }
            }
        }
    }
}

/// The time between a start and the next crash.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) journal: Journal<Simulated>,
    writer: Writer<Simulated>,
    /// Durable puts that nobody has killed.
    alive: Vec<usize>,
    waiting: Vec<(usize, Ticket)>,
    pub(crate) was_cut: bool,
    /// How many writes found no room.
    pub(crate) lacks: u64,
    /// How many appends were refused for that.
    pub(crate) refused: u64,
    /// The last segment, and where in it the last batch begins.
    pub(crate) last_batch: (String, usize),
}

impl Life {
    /// Does this and that until the disk fails.
    pub(crate) fn live(&mut self, owner: &mut Owner, dice: &mut Dice, steps: usize) {
        for _ in 0..steps {
            match dice.below(100) {
                0..55 => self.put(owner, dice),
                55..70 => self.kill(owner, dice),
                70..80 => self.read(owner, dice),
                80..82 if owner.settings.fsync != Fsync::Always && self.writer.sync().is_err() => return,
                _ if !self.turn(owner, dice) => return,
                _ => {}
            }
        }
    }

    /// Turns until nothing is left to do.
    pub(crate) fn drain(&mut self, owner: &mut Owner) {
        for _ in 0..100 {
            assert!(self.turn(owner, &mut Dice::new(0)), "a disk without faults");
        }
        assert!(self.waiting.is_empty());
    }

    pub(crate) fn stopped(&self) -> Option<Failure> {
        self.journal.failure().cloned()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.writer.is_full()
    }

    pub(crate) fn removed(&self) -> u64 {
        self.journal.stats().removed_segments.get()
    }

    pub(crate) fn copied(&self) -> u64 {
        self.journal.stats().copied_bytes.get()
    }

    /// Right bytes or an error, and an error only where there is damage.
    pub(crate) fn read_everything(&self, owner: &Owner) {
        for &at in &self.alive {
            self.read_one(owner, at);
        }
    }

    /// As a reader that catches up does: many at once, and again from where it stopped if it may not wait.
    fn read_run(&self, owner: &Owner, run: &[usize]) {
        let locations: Vec<_> = run.iter().map(|at| owner.entries[*at].location).collect();
        let (mut got, mut buffer) = (0, Vec::new());
        let mut wait = Wait::Not;
        while got < run.len() {
            let result = self.journal.read_each(&locations[got..], wait, &mut buffer, |body| {
                assert_eq!(body, owner.entries[run[got]].body, "{}", run[got]);
                got += 1;
            });
            wait = match result {
                Ok(()) => break,
                Err(ReadError::Cold) => Wait::ForTheDisk,
                Err(ReadError::Io(_)) if owner.disk.has_struck() => return,
                Err(error) => panic!("{}: {error}", run[got]),
            };
        }
        assert_eq!(got, run.len(), "all of them");
    }

    fn read_one(&self, owner: &Owner, at: usize) {
        let entry = &owner.entries[at];
        match self.journal.read(entry.location) {
            Ok(body) => assert_eq!(body, entry.body, "{at}"),
            Err(ReadError::Io(_)) if owner.disk.has_struck() => {}
            Err(ReadError::Damaged { .. }) if owner.disk.is_damaged() => {}
            Err(error) => panic!("{at}, {:?}: {error}", entry.location),
        }
    }

    fn put(&mut self, owner: &mut Owner, dice: &mut Dice) {
        let length = if dice.chance(4) { dice.below(4_000) } else { dice.below(200) };
        // Some bodies look like segments: zeros, and numbers that could be lengths.
        let filler = if dice.chance(20) { 0 } else { dice.roll() };
        let mut body = (owner.entries.len() as u64).to_le_bytes().to_vec();
        body.extend((0..length).map(|at| (filler >> (at % 8 * 8)) as u8));
        self.append(owner, body, Vec::new());
    }

    fn kill(&mut self, owner: &mut Owner, dice: &mut Dice) {
        let mut victims = Vec::new();
        for _ in 0..1 + dice.below(8) {
            if !self.alive.is_empty() {
                // The old die first, mostly.
                let among = if dice.chance(70) { self.alive.len().div_ceil(4) } else { self.alive.len() };
                victims.push(self.alive.remove(dice.below(among as u64) as usize));
            }
        }
        if !victims.is_empty() {
            let body = format!("kill {} {victims:?}", owner.entries.len()).into_bytes();
            self.append(owner, body, victims);
        }
    }

    fn append(&mut self, owner: &mut Owner, body: Vec<u8>, victims: Vec<usize>) {
        let dead: Vec<_> = victims.iter().map(|victim| owner.entries[*victim].location).collect();
        let ticket = match self.journal.append_retiring(&body, &dead) {
            Ok(ticket) => ticket,
            Err(error) => {
                assert!(error == AppendError::NoRoom && self.writer.is_full(), "{error}");
                self.alive.extend(victims);
                self.alive.sort_unstable();
                self.refused += 1;
                return;
            }
        };
        let at = owner.entries.len();
        for victim in &victims {
            owner.entries[*victim].killer = Some(at);
        }
        let before = owner.at.insert(ticket.location, at).map(|before| &owner.entries[before]);
        // Whether a dead record went with its segment or with the power is not known, and only the latter frees its place.
        let may_be_lost = |entry: &Entry| {
            owner.settings.fsync != Fsync::Always && (entry.killer.is_some() || entry.retired)
        };
        assert!(before.is_none_or(may_be_lost), "a position was given twice: {at}");
        owner.entries.push(Entry {
            location: ticket.location,
            body,
            state: State::Unknown,
            victims,
            killer: None,
            retired: false,
        });
        self.waiting.push((at, ticket));
    }

    fn read(&self, owner: &Owner, dice: &mut Dice) {
        if !self.alive.is_empty() {
            let from = dice.below(self.alive.len() as u64) as usize;
            let to = from + 1 + dice.below((self.alive.len() - from) as u64) as usize;
            if dice.chance(50) {
                self.read_one(owner, self.alive[from]);
            } else {
                self.read_run(owner, &self.alive[from..to]);
            }
        }
    }

    /// `false` once the journal has stopped.
    fn turn(&mut self, owner: &mut Owner, dice: &mut Dice) -> bool {
        let before = owner.disk.files().pop();
        let result = self.writer.commit();
        let after = owner.disk.files().pop();
        if let (true, Some((name, length))) = (after != before, after) {
            let began = before.filter(|(before, _)| *before == name).map_or(0, |(_, length)| length);
            self.last_batch = (name, began.min(length));
        }
        // On other cores, life goes on between the two.
        if result.is_ok() && dice.chance(30) {
            self.kill(owner, dice);
        }
        self.lacks += u64::from(self.writer.is_full());
        let result = result.and_then(|_| self.writer.tidy_as_room_allows());
        if let Err(failure) = &result {
            self.writer.shared.progress.stop(failure.clone());
        }
        let journal = &self.journal;
        self.waiting.retain(|(at, ticket)| {
            let done = matches!(journal.outcome(*ticket), Some(Ok(())));
            if done {
                let entry = &mut owner.entries[*at];
                entry.state = State::Durable;
                if entry.victims.is_empty() {
                    self.alive.push(*at);
                } else {
                    entry.retired = true;
                    journal.retire(&[entry.location]);
                }
            }
            !done
        });
        assert_eq!(result.is_err(), journal.failure().is_some());
        assert_eq!(result.is_ok() && self.writer.is_full(), journal.no_room().is_some());
        for (_, ticket) in &self.waiting {
            let is_told = !matches!(journal.outcome(*ticket), None | Some(Ok(())));
            assert_eq!(is_told, result.is_err() || self.writer.is_full(), "who waits is told");
        }
        result.is_ok()
    }
}
