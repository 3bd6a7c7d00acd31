//! The journal on a disk that keeps only what it must: thousands of lives, each from a seed, each told again by it.
//!
//! An owner that is as simple as one can be stands for the streams: it puts values and kills them. After each crash it compares
//! what it is given with what it knows:
//!
//! - every put that was acknowledged and that nobody tried to kill is there, with its own bytes, once, in order;
//! - a kill that was acknowledged holds for ever; one that was not holds for all of its victims or for none;
//! - what was never acknowledged is there up to some point and not beyond it;
//! - a crash alone never makes a journal that cannot be opened;
//! - a disk without room ends acknowledgements until there is room, and no longer.

pub(crate) mod owner;
pub(crate) mod world;

use std::collections::HashSet;
use std::time::Duration;

use self::owner::{Life, Owner};
use self::world::{Dice, Fault, Simulated};
use super::disk::Disk;
use super::record::segment_number;
use super::{AppendError, Fsync, Journal, OpenError, Opened, manifest};

/// Lives that are lived by `cargo test`; `SEDGE_JOURNAL_SEEDS` for more.
const SEEDS: u64 = 2_000;

const EIO: i32 = 5;
const EFBIG: i32 = 27;
const ENOSPC: i32 = 28;
const EDQUOT: i32 = 122;

fn seeds() -> u64 {
    std::env::var("SEDGE_JOURNAL_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SEEDS)
}

/// A first life, quiet at its end: all of it is durable.
fn lived(seed: u64) -> (Dice, Owner, Life) {
    let mut dice = Dice::new(seed);
    let mut owner = Owner::new(seed, Fsync::Always);
    let mut life = owner.start(seed).expect("an empty disk can be opened");
    life.live(&mut owner, &mut dice, 60);
    life.drain(&mut owner);
    (dice, owner, life)
}

/// Opens the journal without beginning a life; the owner must know each record that it is given.
fn open(owner: &Owner, seed: u64) -> Result<Opened<Simulated>, OpenError> {
    Journal::open_on(owner.disk.clone(), &owner.settings, seed, |location, body| owner.knows(location, body))
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_doubled_whenever_the_machine_stops() {
    let (mut crashes, mut removed, mut copied, mut cut) = (0, 0, 0, 0);
    for seed in 0..seeds() {
        let mut dice = Dice::new(seed);
        let fsync = match dice.below(4) {
            0 => Fsync::Never,
            1 => Fsync::Interval(Duration::from_secs(1)),
            _ => Fsync::Always,
        };
        let mut owner = Owner::new(seed, fsync);
        for _ in 0..1 + dice.below(6) {
            let dead = Fault::Dead { from: 1 + dice.below(120) };
            owner.disk.plan(dice.chance(80).then_some(dead));
            // A start can be interrupted as well: then there is another one.
            if let Some(mut life) = owner.start(seed) {
                cut += u64::from(life.was_cut);
                life.live(&mut owner, &mut dice, 60);
                removed += life.removed();
                copied += life.copied();
                drop(life);
            }
            crashes += 1;
            owner.crash(&mut dice);
        }
        owner.disk.plan(None);
        owner.start(seed).expect("a disk without faults can be opened");
    }
    // A simulation in which nothing ever happens would hold as well.
    if seeds() >= SEEDS {
        assert!(
            crashes > SEEDS && removed > SEEDS && copied > SEEDS && cut > SEEDS / 10,
            "{crashes} crashes, {removed} segments removed, {copied} bytes copied, {cut} cuts"
        );
    }
}

#[test]
fn a_failed_write_or_sync_stops_all_acknowledgements_unless_only_room_was_lacking() {
    let (mut struck, mut resumed) = (0, 0);
    for call in 1..=200 {
        for errno in [EIO, ENOSPC] {
            for power in [false, true] {
                let mut dice = Dice::new(call);
                let mut owner = Owner::new(call, Fsync::Always);
                owner.disk.plan(Some(Fault::Once { call, errno }));
                let Some(mut life) = owner.start(call) else {
                    // The first calls belong to the making of the first segment and of the manifest.
                    assert!(owner.disk.has_struck() && call <= 16, "call {call}");
                    owner.disk.plan(None);
                    owner.start(call).expect("the disk is well again");
                    struck += 1;
                    continue;
                };
                life.live(&mut owner, &mut dice, 400);
                assert!(owner.disk.has_struck(), "call {call} of {}", owner.disk.calls());
                struck += 1;
                if life.lacks > 0 {
                    // A write without room is repeated; a sync never is.
                    assert!(errno == ENOSPC && life.stopped().is_none(), "call {call}");
                    resumed += 1;
                } else {
                    let failure = life.stopped().expect("the journal has stopped");
                    assert!(failure.error.contains(&format!("os error {errno}")), "{failure}");
                    let names_a_file = [".segment: could not ", "manifest: could not "];
                    assert!(names_a_file.iter().any(|text| failure.to_string().contains(text)), "{failure}");
                    assert!(!failure.no_room && failure.to_string().contains("until a restart"), "{failure}");
                    assert_eq!(life.journal.append(b"more"), Err(AppendError::Stopped(failure)));
                }
                drop(life);
                owner.disk.plan(None);
                if power {
                    owner.lose_power();
                }
                owner.start(call).expect("the disk is well again");
            }
        }
    }
    assert_eq!(struck, 800);
    assert!(resumed > 50 && resumed < 350, "{resumed}");
}

/// A full disk ended every append until a restart, though the write that had failed was acknowledged to nobody and could have been
/// written again as soon as there was room.
#[test]
fn a_full_disk_stops_acknowledgements_until_there_is_room() {
    let (mut lacks, mut refused, mut resumed, mut cut, mut removed) = (0, 0, 0, 0, 0);
    for seed in 0..seeds() / 2 {
        let mut dice = Dice::new(seed);
        let fsync = match dice.below(3) {
            0 => Fsync::Never,
            1 => Fsync::Interval(Duration::from_secs(1)),
            _ => Fsync::Always,
        };
        let mut owner = Owner::new(seed, fsync);
        for _ in 0..1 + dice.below(5) {
            let errno = [ENOSPC, EDQUOT, EFBIG][dice.below(3) as usize];
            owner.disk.plan(None);
            let mut life = owner.start(seed).expect("a disk without faults can be opened");
            cut += u64::from(life.was_cut);
            for _ in 0..1 + dice.below(3) {
                let full = Fault::Full { from: 1 + dice.below(40), calls: 1 + dice.below(12), errno };
                owner.disk.plan(Some(full));
                life.live(&mut owner, &mut dice, 60);
                assert_eq!(life.stopped(), None, "seed {seed}");
                life.read_everything(&owner);
            }
            // The process or the machine may stop while there is no room.
            if !life.is_full() || dice.chance(50) {
                owner.disk.plan(None);
                life.drain(&mut owner);
                assert!(!life.is_full(), "seed {seed}");
                resumed += u64::from(life.lacks > 0);
            }
            lacks += life.lacks;
            refused += life.refused;
            removed += life.removed();
            drop(life);
            owner.crash(&mut dice);
        }
        owner.disk.plan(None);
        owner.start(seed).expect("a disk without faults can be opened");
    }
    if seeds() >= SEEDS {
        assert!(
            lacks > SEEDS && refused > SEEDS && resumed > SEEDS / 10 && cut > SEEDS / 100 && removed > SEEDS,
            "{lacks} lacks, {refused} refused, {resumed} resumed, {cut} cuts, {removed} removed"
        );
    }
}

#[test]
fn damage_is_refused_or_cut_and_never_served() {
    let (mut refused, mut cut) = (0, 0);
    for seed in 0..400 {
        let (mut dice, owner, life) = lived(seed);
        let files = owner.disk.files();
        let (name, length) = &files[dice.below(files.len() as u64) as usize];
        let (byte, bit) = (dice.below(*length as u64) as usize, dice.below(8));
        owner.disk.change(name, |bytes| bytes[byte] ^= 1 << bit);
        // Those who read while it happens get an error or the right bytes.
        life.read_everything(&owner);
        let last_batch = life.last_batch.clone();
        drop(life);
        let is_last = *name == files[files.len() - 1].0;
        match open(&owner, seed) {
            Err(OpenError::Damaged { path, byte: at }) => {
                assert_eq!(path, owner.disk.path(name));
                assert!(at <= byte as u64, "seed {seed}: damaged at {byte}, said to be at {at}");
                refused += 1;
            }
            Ok(opened) => {
                // Only what looks like the last batch before a crash.
                let found = opened.recovery.cut.expect("the damage is said");
                assert!(
                    is_last && found.path == owner.disk.path(name) && found.byte <= byte as u64,
                    "seed {seed}: {found:?}"
                );
                if last_batch.0 == *name {
                    assert!(
                        found.byte >= last_batch.1 as u64,
                        "seed {seed}: more than the last batch, {last_batch:?}: {found:?}"
                    );
                }
                cut += 1;
            }
            Err(other) => panic!("seed {seed}: {other}"),
        }
    }
    assert!(refused > 200 && cut > 0, "{refused} refused, {cut} cut");
}

#[test]
fn a_shortened_or_missing_segment_is_refused() {
    let mut seen = HashSet::new();
    for seed in 0..100 {
        let (mut dice, owner, _) = lived(seed);
        let files = owner.disk.files();
        if files.len() < 3 {
            continue;
        }
        let (name, length) = &files[1];
        let at = dice.below(*length as u64) as usize;
        let missing = dice.chance(50);
        if missing {
            owner.disk.take_away(name);
        } else {
            owner.disk.change(name, |bytes| bytes.truncate(at));
        }
        let error = open(&owner, seed).map(drop).expect_err("refused");
        match error {
            OpenError::Missing(path) => assert!(missing && path == owner.disk.path(name)),
            OpenError::Damaged { path, byte } => {
                assert!(!missing && path == owner.disk.path(name) && byte <= at as u64);
            }
            other => panic!("seed {seed}: {other}"),
        }
        seen.insert(missing);
    }
    assert_eq!(seen.len(), 2);
}

/// A first or a last segment that was lost was taken for a shorter journal: its streams were gone, or their last acknowledged appends,
/// and nobody was told.
#[test]
fn a_segment_that_is_lost_at_either_end_is_refused_after_any_crash() {
    let (mut firsts, mut lasts) = (0, 0);
    for seed in 0..seeds() {
        let mut dice = Dice::new(seed);
        let mut owner = Owner::new(seed, Fsync::Always);
        for _ in 0..1 + dice.below(4) {
            owner.disk.plan(dice.chance(80).then_some(Fault::Dead { from: 20 + dice.below(120) }));
            if let Some(mut life) = owner.start(seed) {
                life.live(&mut owner, &mut dice, 60);
            }
            owner.crash(&mut dice);
            owner.disk.plan(None);
            // Right after the crash the last segment may be one that was never noted, and the first one that is to be removed.
            let files = owner.disk.files();
            let last = files.last().filter(|(name, _)| segment_number(name) == owner.last_synced_segment());
            if let Some((name, _)) = last {
                owner.is_missed(name);
                lasts += 1;
            }
        }
        owner.start(seed).expect("with all segments it is opened");
        let files = owner.disk.files();
        owner.is_missed(&files[0].0);
        owner.is_missed(&files[files.len() - 1].0);
        firsts += u64::from(segment_number(&files[0].0) > Some(1));
        owner.start(seed).expect("with all segments it is opened again");
    }
    if seeds() >= SEEDS {
        assert!(firsts > SEEDS / 4 && lasts > SEEDS / 2, "{firsts} firsts, {lasts} lasts");
    }
}

#[test]
fn a_journal_without_any_segment_is_no_new_one() {
    let mut owner = Owner::new(0, Fsync::Always);
    drop(owner.start(0).expect("an empty disk can be opened"));
    owner.is_missed("0000000001.segment");
    assert_eq!(owner.disk.files().len(), 1);
}

#[test]
fn a_directory_of_an_older_sedge_gets_a_manifest() {
    for seed in 0..100 {
        let mut dice = Dice::new(seed);
        let mut owner = Owner::new(seed, Fsync::Always);
        let mut life = owner.start(seed).expect("an empty disk can be opened");
        let mut early = Vec::new();
        owner.disk.change(manifest::NAME, |bytes| early.clone_from(bytes));
        life.live(&mut owner, &mut dice, 80);
        life.drain(&mut owner);
        drop(life);
        let files = owner.disk.files();
        if dice.chance(50) && segment_number(&files[files.len() - 1].0) > Some(2) {
            // A newer one has been here before the older one: its manifest knows one segment.
            owner.disk.change(manifest::NAME, |bytes| *bytes = early);
        } else {
            owner.disk.take_away(manifest::NAME);
        }
        owner.start(seed).expect("it is taken as it is");
        let files = owner.disk.files();
        owner.is_missed(&files[0].0);
        owner.is_missed(&files[files.len() - 1].0);
    }
}

#[test]
fn damage_to_the_manifest_never_hides_a_record() {
    let (mut opened, mut refused) = (0, 0);
    for seed in 0..400 {
        let (mut dice, mut owner, _) = lived(seed);
        let both = dice.chance(20);
        let (slot, byte, bit) = (dice.below(2) as usize, dice.below(40) as usize, dice.below(8));
        owner.disk.change(manifest::NAME, |bytes| {
            bytes[slot * 4096 + byte] ^= 1 << bit;
            if both {
                bytes[(1 - slot) * 4096 + byte] ^= 1 << bit;
            }
        });
        match open(&owner, seed) {
            Ok(_) => {
                assert!(!both, "seed {seed}");
                opened += 1;
                owner.start(seed).expect("all that was acknowledged is there");
            }
            Err(OpenError::Damaged { path, .. }) => {
                assert_eq!(path, owner.disk.path(manifest::NAME));
                refused += 1;
            }
            Err(other) => panic!("seed {seed}: {other}"),
        }
    }
    assert!(opened > 100 && refused > 100, "{opened} opened, {refused} refused");
}

#[test]
fn a_segment_whose_removal_was_not_finished_is_removed() {
    let mut removed = 0;
    for seed in 0..100 {
        let mut dice = Dice::new(seed);
        let mut owner = Owner::new(seed, Fsync::Always);
        let mut life = owner.start(seed).expect("an empty disk can be opened");
        let name = owner.disk.files()[0].0.clone();
        let content = owner.disk.take_away(&name);
        owner.disk.put_back(&name, content);
        while life.removed() == 0 {
            life.live(&mut owner, &mut dice, 10);
        }
        if life.removed() == 1 {
            owner.disk.put_back(&name, content);
            removed += 1;
        }
        drop(life);
        owner.start(seed).expect("it is opened");
        assert_ne!(owner.disk.files()[0].0, name, "seed {seed}");
        owner.disk.lose_power();
        owner.start(seed).expect("it is opened again");
        assert_ne!(owner.disk.files()[0].0, name, "seed {seed}");
    }
    assert!(removed > 50, "{removed}");
}

/// A last segment of which nothing or a part of its head was left was taken for one that a crash had torn, and removed.
#[test]
fn a_last_segment_that_was_durable_is_not_taken_for_torn() {
    for seed in 0..50 {
        let (mut dice, owner, _) = lived(seed);
        let files = owner.disk.files();
        let name = &files[files.len() - 1].0;
        owner.disk.change(name, |bytes| bytes.truncate(dice.below(32) as usize));
        let error = open(&owner, seed).map(drop).expect_err("refused");
        assert!(
            matches!(&error, OpenError::Damaged { path, byte: 0 } if *path == owner.disk.path(name)),
            "seed {seed}: {error}"
        );
        assert_eq!(owner.disk.files().len(), files.len(), "nothing is removed");
    }
}
