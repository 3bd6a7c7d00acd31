//! A disk that keeps only what it must.
//!
//! A write, a truncation, a creation or a removal is seen at once and durable only after the right sync. A loss of power keeps
//! of the rest whatever it likes: any sectors of any write, in any order, a length without its bytes. A failed sync keeps some
//! of it too and forgets that the rest was ever to be kept, as kernels do.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::streams::store::journal::disk::{Disk, File};

/// What a disk writes whole or not at all, in bytes.
const SECTOR_BYTES: usize = 512;

/// SplitMix64: the same seed, the same story.
#[derive(Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`, which is not 0.
    pub(crate) const fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }

    pub(crate) const fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// Which calls fail, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Every call from this one on: the machine is gone.
    Dead { from: u64 },
    /// This write or sync alone, with this error of the system.
    Once { call: u64, errno: i32 },
    /// So many calls from this one on find no room if they write or create.
    Full { from: u64, calls: u64, errno: i32 },
}

#[derive(Debug)]
enum Pending {
    Write { at: usize, bytes: Vec<u8> },
    Truncate(usize),
}

#[derive(Debug, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Pending>,
}

#[derive(Debug)]
struct World {
    dice: Dice,
    contents: Vec<Content>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    fault: Option<Fault>,
    /// Writes and syncs so far.
    calls: u64,
    /// The fault has happened.
    struck: bool,
    damaged: bool,
}

/// The simulated disk; clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Simulated(Arc<Mutex<World>>);

/// A file of it.
#[derive(Debug)]
pub(crate) struct Handle {
    world: Simulated,
    content: usize,
}

impl Simulated {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(World {
            dice: Dice::new(seed),
            contents: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            fault: None,
            calls: 0,
            struck: false,
            damaged: false,
        })))
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().expect("the simulation does not panic while it holds this")
    }

    /// From now on; calls are counted from here.
    pub(crate) fn plan(&self, fault: Option<Fault>) {
        let mut world = self.world();
        world.fault = fault;
        world.calls = 0;
        world.struck = false;
    }

    pub(crate) fn calls(&self) -> u64 {
        self.world().calls
    }

    pub(crate) fn is_damaged(&self) -> bool {
        self.world().damaged
    }

    pub(crate) fn has_struck(&self) -> bool {
        self.world().struck
    }

    /// The power is gone and comes back.
    pub(crate) fn lose_power(&self) {
        let world = &mut *self.world();
        let percent = [0, 30, 60, 100][world.dice.below(4) as usize];
        for content in &mut world.contents {
            content.settle(&mut world.dice, percent);
            content.now.clone_from(&content.durable);
        }
        // Each name's last change is kept or not, whatever becomes of the others.
        for name in world.names.keys().chain(world.durable_names.keys()).cloned().collect::<Vec<_>>() {
            if world.dice.chance(percent) {
                match world.names.get(&name) {
                    Some(content) => world.durable_names.insert(name, *content),
                    None => world.durable_names.remove(&name),
                };
            }
        }
        world.names.clone_from(&world.durable_names);
    }

    /// Names and lengths of the segments, in order.
    pub(crate) fn files(&self) -> Vec<(String, usize)> {
        let world = self.world();
        let segments = world.names.iter().filter(|(name, _)| name.ends_with(".segment"));
        segments.map(|(name, content)| (name.clone(), world.contents[*content].now.len())).collect()
    }

    /// Damages what is durable.
    pub(crate) fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let world = &mut *self.world();
        world.damaged = true;
        let content = &mut world.contents[world.names[name]];
        assert!(content.pending.is_empty(), "only what is durable is damaged");
        change(&mut content.now);
        content.durable.clone_from(&content.now);
    }

    /// A file is lost; [`Simulated::put_back`] takes what this gives.
    pub(crate) fn take_away(&self, name: &str) -> usize {
        let world = &mut *self.world();
        world.durable_names.remove(name);
        world.names.remove(name).expect("a file of that name")
    }

    pub(crate) fn put_back(&self, name: &str, content: usize) {
        let world = &mut *self.world();
        world.durable_names.insert(name.to_owned(), content);
        world.names.insert(name.to_owned(), content);
    }
}

impl World {
    /// Before each call; `counted` are those that write or sync.
    fn call(&mut self, counted: bool) -> io::Result<()> {
        self.calls += u64::from(counted);
        let error = match self.fault {
            Some(Fault::Dead { from }) if self.calls >= from => io::Error::other("the machine is gone"),
            Some(Fault::Once { call, errno }) if counted && self.calls == call => {
                io::Error::from_raw_os_error(errno)
            }
            _ => return Ok(()),
        };
        self.struck = true;
        Err(error)
    }

    /// Before what takes room, after it was counted.
    fn take_room(&mut self) -> io::Result<()> {
        match self.fault {
            Some(Fault::Full { from, calls, errno }) if (from..from + calls).contains(&self.calls) => {
                self.struck = true;
                Err(io::Error::from_raw_os_error(errno))
            }
            _ => Ok(()),
        }
    }
}

impl Content {
    /// Some of what is pending becomes durable, the rest never will.
    fn settle(&mut self, dice: &mut Dice, percent: u64) {
        for pending in std::mem::take(&mut self.pending) {
            match pending {
                Pending::Truncate(length) => {
                    if dice.chance(percent) {
                        self.durable.truncate(length);
                    }
                }
                Pending::Write { at, bytes } => {
                    let mut from = 0;
                    while from < bytes.len() {
                        let to = bytes.len().min(from + SECTOR_BYTES - (at + from) % SECTOR_BYTES);
                        if dice.chance(percent) {
                            write(&mut self.durable, at + from, &bytes[from..to]);
                        } else if dice.chance(10) {
                            // The length arrived, the bytes did not: zeros, or what was there before.
                            let rubbish: Vec<u8> =
                                bytes[from..to].iter().map(|_| dice.roll() as u8).collect();
                            let zeros = vec![0; to - from];
                            if self.durable.len() <= at + from {
                                write(
                                    &mut self.durable,
                                    at + from,
                                    if dice.chance(50) { &rubbish } else { &zeros },
                                );
                            }
                        }
                        from = to;
                    }
                }
            }
        }
    }
}

fn write(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[at..end].copy_from_slice(bytes);
}

impl Disk for Simulated {
    type File = Handle;

    fn names(&self) -> io::Result<Vec<String>> {
        let mut world = self.world();
        world.call(false)?;
        Ok(world.names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Handle> {
        let mut world = self.world();
        world.call(false)?;
        if world.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if let Err(error) = world.take_room() {
            world.calls += 1;
            return Err(error);
        }
        let content = world.contents.len();
        world.contents.push(Content::default());
        world.names.insert(name.to_owned(), content);
        Ok(Handle { world: self.clone(), content })
    }

    fn open(&self, name: &str) -> io::Result<Handle> {
        let mut world = self.world();
        world.call(false)?;
        let content = *world.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Handle { world: self.clone(), content })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut world = self.world();
        world.call(false)?;
        world.names.remove(name).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync(&self) -> io::Result<()> {
        let world = &mut *self.world();
        world.call(true)?;
        world.durable_names.clone_from(&world.names);
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("/simulated").join(name)
    }
}

impl File for Handle {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let mut world = self.world.world();
        world.call(false)?;
        let now = &world.contents[self.content].now;
        let from = now.len().min(at as usize);
        // Sometimes less than was asked for.
        let mut count = buffer.len().min(now.len() - from);
        buffer[..count].copy_from_slice(&now[from..from + count]);
        if count > 1 && world.dice.chance(5) {
            count -= 1;
        }
        Ok(count)
    }

    fn read_at_once(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        if self.world.world().dice.chance(20) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.read_at(buffer, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        let world = &mut *self.world.world();
        // What is written over takes no more room.
        let needs_room = world.contents[self.content].now.len() < at as usize + bytes.len();
        let result = world.call(true).and_then(|()| if needs_room { world.take_room() } else { Ok(()) });
        // A failed write has written something or nothing, a good one all or some.
        let short = result.is_err() || (bytes.len() > 1 && world.dice.chance(5));
        let count = if short { world.dice.below(bytes.len() as u64) as usize } else { bytes.len() };
        let count = if result.is_ok() { count.max(1) } else { count };
        let content = &mut world.contents[self.content];
        write(&mut content.now, at as usize, &bytes[..count]);
        content.pending.push(Pending::Write { at: at as usize, bytes: bytes[..count].to_vec() });
        result.map(|()| count)
    }

    fn sync(&self) -> io::Result<()> {
        let world = &mut *self.world.world();
        let result = world.call(true);
        let percent = if result.is_ok() { 100 } else { world.dice.below(101) };
        world.contents[self.content].settle(&mut world.dice, percent);
        result
    }

    fn length(&self) -> io::Result<u64> {
        let mut world = self.world.world();
        world.call(false)?;
        Ok(world.contents[self.content].now.len() as u64)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        let mut world = self.world.world();
        world.call(false)?;
        let content = &mut world.contents[self.content];
        content.now.truncate(length as usize);
        content.pending.push(Pending::Truncate(length as usize));
        Ok(())
    }
}
