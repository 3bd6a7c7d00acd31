//! The journal on a real directory, with its thread.

use std::cell::Cell;
use std::fs;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use super::*;

/// A directory that goes with its test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sedge-journal-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn runtime() -> tokio::runtime::LocalRuntime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(Default::default())
        .expect("a runtime")
}

#[test]
fn a_task_waits_for_its_batch_and_reads_what_it_wrote() {
    for (name, fsync) in [
        ("always", Fsync::Always),
        ("interval", Fsync::Interval(Duration::from_millis(5))),
        ("never", Fsync::Never),
    ] {
        let scratch = Scratch::new(name);
        let settings = Settings { fsync, ..Settings::default() };
        let opened = Journal::open(&scratch.0, &settings, |_, _| panic!("it is empty")).expect("opened");
        let (journal, keeper) = (opened.journal, opened.writer.spawn().expect("a thread"));
        let done = Rc::new(Cell::new(0));
        runtime().block_on(async {
            let waiters = Rc::new(journal.waiters());
            let serve = Rc::clone(&waiters);
            let server = tokio::task::spawn_local(async move { serve.serve().await });
            let tasks: Vec<_> = (0..100_u32)
                .map(|number| {
                    let (journal, waiters, done) = (journal.clone(), Rc::clone(&waiters), Rc::clone(&done));
                    tokio::task::spawn_local(async move {
                        for turn in 0..10_u32 {
                            let body = [number.to_le_bytes(), turn.to_le_bytes()].concat();
                            let ticket = journal.append(&body).expect("taken");
                            waiters.durable(ticket).await.expect("durable");
                            assert_eq!(journal.read(ticket.location).expect("read"), body);
                            done.set(done.get() + 1);
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.expect("no task panics");
            }
            server.abort();
        });
        assert_eq!(done.get(), 1_000);
        let batches = journal.stats().batches.get();
        assert!(batches < 1_000, "100 appenders share batches: {batches}");
        keeper.close();
        drop(journal);

        let mut turns = [0_u32; 100];
        let opened = Journal::open(&scratch.0, &settings, |_, body| {
            let word = |at: usize| u32::from_le_bytes([body[at], body[at + 1], body[at + 2], body[at + 3]]);
            let next = &mut turns[word(0) as usize];
            assert_eq!(word(4), *next, "in the order of the appends");
            *next += 1;
            Ok(())
        })
        .expect("opened again");
        assert_eq!((opened.recovery.records, opened.recovery.cut), (1_000, None));
        assert!(turns.iter().all(|turns| *turns == 10));
    }
}

#[test]
fn a_core_reads_what_the_kernel_holds_in_runs() {
    let scratch = Scratch::new("runs");
    let opened = Journal::open(&scratch.0, &Settings::default(), |_, _| Ok(())).expect("opened");
    let (journal, keeper) = (opened.journal, opened.writer.spawn().expect("a thread"));
    let bodies: Vec<Vec<u8>> = (0..2_000_usize).map(|number| vec![number as u8; number]).collect();
    let locations: Vec<_> = bodies.iter().map(|body| journal.append(body).expect("taken").location).collect();
    let (mut got, mut buffer) = (Vec::new(), Vec::new());
    // All of them are on disk once the thread has ended.
    keeper.close();
    // Every second one, so that others lie between.
    let wanted: Vec<_> = locations.iter().copied().step_by(2).collect();
    loop {
        let result =
            journal.read_each(&wanted[got.len()..], Wait::Not, &mut buffer, |body| got.push(body.to_vec()));
        match result {
            Ok(()) => break,
            // A kernel may drop any page at any time, or its file system cannot tell.
            Err(ReadError::Cold) => got.push(journal.read(wanted[got.len()]).expect("read")),
            Err(error) => panic!("{error}"),
        }
    }
    assert!(got.iter().eq(bodies.iter().step_by(2)));
    assert!(buffer.len() <= 260 << 10, "room for one read, not for all: {}", buffer.len());
    assert!(matches!(
        journal.read_each(&[], Wait::Not, &mut buffer, |_| panic!("nothing was asked for")),
        Ok(())
    ));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test may look at the clock to end")]
fn an_interval_ends_with_a_sync_though_nothing_more_comes() {
    let scratch = Scratch::new("interval-alone");
    let settings = Settings { fsync: Fsync::Interval(Duration::from_millis(2)), ..Settings::default() };
    let opened = Journal::open(&scratch.0, &settings, |_, _| Ok(())).expect("opened");
    let (journal, _keeper) = (opened.journal, opened.writer.spawn().expect("a thread"));
    journal.append(b"the last for a while").expect("taken");
    let began = std::time::Instant::now();
    let syncs = || {
        let mut totals = Default::default();
        journal.stats().sync.add_to(&mut totals);
        totals.buckets.iter().sum::<u64>()
    };
    while syncs() == 0 {
        assert!(began.elapsed() < Duration::from_secs(20), "never synced");
        std::thread::yield_now();
    }
}

#[test]
fn a_directory_has_one_journal_at_a_time() {
    let scratch = Scratch::new("lock");
    let opened = Journal::open(&scratch.0, &Settings::default(), |_, _| Ok(())).expect("opened");
    let error =
        Journal::open(&scratch.0, &Settings::default(), |_, _| Ok(())).map(drop).expect_err("refused");
    assert!(error.to_string().contains("another process has this directory"), "{error}");
    drop(opened);
    Journal::open(&scratch.0, &Settings::default(), |_, _| Ok(())).expect("free again");
}

#[test]
fn a_record_that_its_owner_cannot_use_is_named() {
    let scratch = Scratch::new("refused");
    let opened = Journal::open(&scratch.0, &Settings::default(), |_, _| Ok(())).expect("opened");
    opened.journal.append(b"what?").expect("taken");
    opened.writer.spawn().expect("a thread").close();
    drop(opened.journal);
    let error =
        Journal::open(&scratch.0, &Settings::default(), |_, body| Err(format!("{} bytes", body.len())));
    let error = error.map(drop).expect_err("refused").to_string();
    assert!(
        error.ends_with("0000000001.segment: the record at byte 32 is whole but cannot be used: 5 bytes"),
        "{error}"
    );
}

#[test]
fn whoever_waits_is_told_that_the_journal_has_ended() {
    let scratch = Scratch::new("ended");
    let opened = Journal::open(&scratch.0, &Settings::default(), |_, _| Ok(())).expect("opened");
    let journal = opened.journal;
    let ticket = journal.append(b"taken by nobody").expect("taken");
    runtime().block_on(async {
        let waiters = journal.waiters();
        let (outcome, ()) = tokio::join!(waiters.durable(ticket), async {
            tokio::task::yield_now().await;
            // Its records are written, and then it says that there will be no more.
            opened.writer.spawn().expect("a thread").close();
            waiters.wake_ready();
        });
        outcome.expect("what was taken before the end is written");
        let late = journal.append(b"too late").map(drop).expect_err("refused");
        assert!(matches!(late, AppendError::Stopped(_)), "{late}");
    });
}

/// Who had been woken and had not run yet was taken for one that was forgotten, as long as somebody waited for a later batch: the
/// core went round and round until its budget was used up, at 13 microseconds of CPU time for each append over 64 connections.
#[test]
fn who_was_woken_is_not_woken_again_for_those_who_wait_for_later() {
    use std::pin::pin;
    use std::task::{Context, Waker};
    let scratch = Scratch::new("woken-once");
    let opened = Journal::open(&scratch.0, &Settings::default(), |_, _| Ok(())).expect("opened");
    let (journal, mut writer) = (opened.journal, opened.writer);
    let waiters = journal.waiters();
    let mut context = Context::from_waker(Waker::noop());
    let early = journal.append(b"early").expect("taken");
    let mut first = pin!(waiters.durable(early));
    assert!(first.as_mut().poll(&mut context).is_pending());
    writer.turn().expect("written");
    let late = journal.append(b"late").expect("taken");
    let mut second = pin!(waiters.durable(late));
    assert!(second.as_mut().poll(&mut context).is_pending());
    assert!(!waiters.wake_ready(), "the first is on its way, the second has to wait for the disk");
    assert!(!waiters.wake_ready(), "and nothing has changed");
    assert!(first.as_mut().poll(&mut context).is_ready());
    writer.turn().expect("written");
    assert!(!waiters.wake_ready());
    assert!(second.as_mut().poll(&mut context).is_ready());
}

/// What was dead in the tail stayed until appends had filled it, and in others until there were 128 MiB of it: after a storm of
/// appends and deletions 77 MB were left on disk for less than 1 MB that lived, for as long as nothing more came.
#[test]
#[expect(clippy::disallowed_methods, reason = "a test may look at the clock to end")]
fn space_comes_back_though_nothing_more_is_appended() {
    let scratch = Scratch::new("quiet");
    let settings = Settings { fsync: Fsync::Never, segment_bytes: SEGMENT_BYTES_MIN };
    let floor = u64::from(SEGMENT_BYTES_MIN) / 4;
    // All of it in the tail, or the tail not full enough behind other segments.
    for (round, records) in [500, 2_300].into_iter().enumerate() {
        let mut kept = Vec::new();
        let opened = Journal::open(&scratch.0, &settings, |location, body| {
            kept.push((location, body.to_vec()));
            Ok(())
        })
        .expect("opened");
        let (journal, keeper) = (opened.journal, opened.writer.spawn().expect("a thread"));
        assert_eq!(kept.len(), round, "what was kept before, and nothing else");
        assert!(kept.iter().all(|(_, body)| body[..] == [7; 1_000]));
        let taken: Vec<_> = (0..records).map(|_| journal.append(&[7; 1_000]).expect("taken")).collect();
        let mut dead: Vec<_> = taken.iter().map(|ticket| ticket.location).collect();
        kept.push((dead.swap_remove(records / 2), vec![7; 1_000]));
        journal.retire(&dead);
        let began = std::time::Instant::now();
        let on_disk = || {
            let entries = fs::read_dir(&scratch.0).expect("a directory");
            let lengths =
                entries.map(|entry| entry.and_then(|entry| entry.metadata()).map_or(0, |of| of.len()));
            lengths.sum::<u64>()
        };
        while journal.outcome(taken[records - 1]).is_none() || on_disk() > floor + 8_000 {
            assert!(began.elapsed() < Duration::from_secs(60), "{} bytes stay", on_disk());
            std::thread::yield_now();
        }
        for (location, body) in &kept {
            assert_eq!(journal.read(*location).expect("read"), *body);
        }
        keeper.close();
    }
}

#[test]
fn bounds_are_kept() {
    let scratch = Scratch::new("bounds");
    let opened = Journal::open(&scratch.0, &Settings::default(), |_, _| Ok(())).expect("opened");
    let body = vec![7; RECORD_BYTES_MAX];
    opened.journal.append(&body).expect("a record as long as may be");
    assert_eq!(opened.journal.append(&[0; 1]), Err(AppendError::Busy));
    assert_eq!(opened.journal.append(&vec![0; RECORD_BYTES_MAX + 1]), Err(AppendError::TooLong));
}
