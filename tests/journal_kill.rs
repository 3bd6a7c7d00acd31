//! Whatever the journal of durable streams has acknowledged is there after `kill -9`, at any moment: once, in order, with its
//! own bytes.
//!
//! Each round a child process (this program again) goes on where the last one was killed: sixteen producers append numbered
//! records, each when its last one was acknowledged, give up their old ones so that segments are compacted and removed, and a
//! reader reads what was acknowledged. Every acknowledgement is told through a pipe. After a random number of them the child
//! gets SIGKILL, and the journal is opened and compared with what was told. A few rounds by default; `SEDGE_KILL_ROUNDS` for more.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use sedge::testing::streams::journal::{Fsync, Journal, Location, Opened, SEGMENT_BYTES_MIN, Settings};

const ROUNDS: u64 = 6;
const PRODUCERS: usize = 16;

/// Records of one producer that stay.
const KEPT: usize = 400;

const DIRECTORY: &str = "SEDGE_JOURNAL_CHILD";
const SETTINGS: [Fsync; 3] = [Fsync::Always, Fsync::Interval(Duration::from_millis(20)), Fsync::Never];

/// One producer as its records tell it.
#[derive(Clone, Debug, Default)]
struct Told {
    /// Records below this number are given up.
    floor: u64,
    floor_at: Option<Location>,
    records: VecDeque<(u64, Location)>,
    /// Locations that are not needed.
    dead: Vec<Location>,
}

/// What a record says: a value, or that those below a number are given up.
fn body(is_floor: bool, producer: usize, number: u64) -> Vec<u8> {
    let mut body = vec![u8::from(is_floor), producer as u8];
    body.extend(number.to_le_bytes());
    if !is_floor {
        body.resize(body.len() + (number as usize * 7_919 + producer) % 900, number as u8);
    }
    body
}

/// Opens the journal; every record has to be one that was appended, in the order of its producer.
fn open(directory: &Path, fsync: Fsync) -> (Opened, Vec<Told>) {
    let mut told = vec![Told::default(); PRODUCERS];
    let settings = Settings { fsync, segment_bytes: SEGMENT_BYTES_MIN };
    let opened = Journal::open(directory, &settings, |location, bytes| {
        let producer = bytes[1] as usize;
        let number = u64::from_le_bytes(bytes[2..10].try_into().expect("eight bytes"));
        assert_eq!(bytes, body(bytes[0] == 1, producer, number), "its own bytes");
        let told = &mut told[producer];
        if bytes[0] == 1 {
            assert!(number > told.floor, "producer {producer}: floor {number} after {}", told.floor);
            told.floor = number;
            told.dead.extend(told.floor_at.replace(location));
        } else {
            if let Some((last, _)) = told.records.back() {
                assert!(number > *last, "producer {producer}: {number} after {last}");
            }
            told.records.push_back((number, location));
        }
        Ok(())
    })
    .expect("a journal that was only killed can be opened");
    for (producer, told) in told.iter_mut().enumerate() {
        while told.records.front().is_some_and(|(number, _)| *number < told.floor) {
            told.dead.extend(told.records.pop_front().map(|(_, location)| location));
        }
        let numbers = told.records.iter().map(|(number, _)| *number);
        assert!(numbers.eq((told.floor..).take(told.records.len())), "producer {producer}: a hole");
    }
    (opened, told)
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let rounds = std::env::var("SEDGE_KILL_ROUNDS")
        .map_or(ROUNDS, |rounds| rounds.parse().expect("a number of rounds"));
    let directory = std::env::temp_dir().join(format!("sedge-journal-kill-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&directory);
    // The last acknowledged number and floor of each producer.
    let mut acknowledged = [(None, 0); PRODUCERS];
    let (mut told_acks, mut cuts, mut read, mut unacknowledged) = (0_u64, 0, 0, 0);
    for round in 0..rounds {
        let fsync = SETTINGS[round as usize % SETTINGS.len()];
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "child", "--ignored", "--nocapture"])
            .env(DIRECTORY, &directory)
            .env("SEDGE_JOURNAL_ROUND", round.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child");
        let until = 1 + round.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 6_000;
        let mut acks = 0;
        for line in BufReader::new(child.stdout.take().expect("its output")).lines() {
            let line = line.expect("text");
            let mut words = line.split(' ');
            let (word, mut number) =
                (words.next(), || words.next().and_then(|word| word.parse::<u64>().ok()));
            match word {
                Some("ack") => {
                    let (producer, number) =
                        (number().expect("a producer") as usize, number().expect("a number"));
                    acknowledged[producer].0 = Some(number);
                    acks += 1;
                }
                Some("floor") => {
                    let (producer, floor) =
                        (number().expect("a producer") as usize, number().expect("a floor"));
                    acknowledged[producer].1 = floor;
                }
                Some("read") => read += 1,
                _ => {}
            }
            if acks == until {
                child.kill().expect("SIGKILL");
            }
        }
        let status = child.wait().expect("its end");
        let killed = std::os::unix::process::ExitStatusExt::signal(&status) == Some(9);
        assert!(acks >= until && killed, "round {round}: the child ended by itself after {acks}: {status}");
        told_acks += acks;

        let (opened, told) = open(&directory, fsync);
        cuts += u64::from(opened.recovery.cut.is_some());
        for (producer, (told, (last, floor))) in told.iter().zip(&acknowledged).enumerate() {
            let next = told.records.back().map_or(told.floor, |(number, _)| number + 1);
            let acknowledged = last.map_or(0, |last: u64| last + 1);
            assert!(
                next >= acknowledged,
                "round {round}, producer {producer}: {acknowledged} acknowledged, {next} there"
            );
            assert!(
                next <= acknowledged + 1,
                "round {round}, producer {producer}: only one is ever in flight"
            );
            assert!(
                told.floor >= *floor,
                "round {round}, producer {producer}: floor {floor} came back as {}",
                told.floor
            );
            unacknowledged += next - acknowledged;
        }
        // What was given out once is as good as acknowledged.
        for ((last, floor), told) in acknowledged.iter_mut().zip(&told) {
            *last = told.records.back().map(|(number, _)| *number).or(*last);
            *floor = told.floor;
        }
    }
    let bytes: u64 = std::fs::read_dir(&directory)
        .expect("the directory")
        .map(|entry| entry.expect("a name").metadata().expect("a file").len())
        .sum();
    eprintln!(
        "{rounds} rounds: {told_acks} acknowledged, none lost or doubled; {unacknowledged} there without their acknowledgement, \
         {cuts} torn tails cut, {read} reads, {} KiB at the end",
        bytes / 1024
    );
    // Twice what is live (at most 16 times 500 records of 450 bytes and two floors) and a few segments.
    assert!(bytes < 16 << 20, "space comes back: {bytes} bytes");
    let _ = std::fs::remove_dir_all(&directory);
}

/// Tells the parent, whole lines at a time.
fn tell(line: &str) {
    std::io::stdout().lock().write_all(line.as_bytes()).expect("the parent reads");
}

#[test]
#[ignore = "the process that is killed, started by the test"]
fn child() {
    // Any task's panic ends the child, which the parent takes for a failure.
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}");
        std::process::abort();
    }));
    let directory = PathBuf::from(std::env::var_os(DIRECTORY).expect("started by the test"));
    let round: usize = std::env::var("SEDGE_JOURNAL_ROUND").expect("a round").parse().expect("a number");
    let (opened, told) = open(&directory, SETTINGS[round % SETTINGS.len()]);
    let journal = opened.journal;
    let _keeper = opened.writer.spawn().expect("a thread");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    runtime.expect("a runtime").block_on(async {
        let waiters = Rc::new(journal.waiters());
        let serve = Rc::clone(&waiters);
        tokio::task::spawn_local(async move { serve.serve().await });
        let turns = Rc::new(Cell::new(0_usize));
        for (producer, told) in told.into_iter().enumerate() {
            let (journal, waiters, turns) = (journal.clone(), Rc::clone(&waiters), Rc::clone(&turns));
            tokio::task::spawn_local(async move {
                journal.retire(&told.dead);
                let told = RefCell::new(told);
                loop {
                    let number =
                        told.borrow().records.back().map_or(told.borrow().floor, |(number, _)| number + 1);
                    let ticket = journal.append(&body(false, producer, number)).expect("taken");
                    waiters.durable(ticket).await.expect("durable");
                    tell(&format!("ack {producer} {number}\n"));
                    told.borrow_mut().records.push_back((number, ticket.location));
                    give_up(&journal, &waiters, producer, &told).await;
                    turns.set(turns.get() + 1);
                    if turns.get().is_multiple_of(8) {
                        let at = turns.get() * 31 % told.borrow().records.len();
                        let (number, location) = told.borrow().records[at];
                        assert_eq!(journal.read(location).expect("readable"), body(false, producer, number));
                        tell("read\n");
                    }
                }
            });
        }
        // Until the parent has had enough.
        std::future::pending::<()>().await;
    });
}

/// Gives up the older records of a producer that has enough of them.
async fn give_up(
    journal: &Journal,
    waiters: &sedge::testing::streams::journal::Waiters,
    producer: usize,
    told: &RefCell<Told>,
) {
    if told.borrow().records.len() < KEPT + 100 {
        return;
    }
    let (floor, dead): (_, Vec<_>) = {
        let told = told.borrow();
        (told.records[100].0, told.records.iter().take(100).map(|(_, location)| *location).collect())
    };
    let ticket = journal.append_retiring(&body(true, producer, floor), &dead).expect("taken");
    waiters.durable(ticket).await.expect("durable");
    tell(&format!("floor {producer} {floor}\n"));
    let mut told = told.borrow_mut();
    told.records.drain(..100);
    told.floor = floor;
    // What it replaces is needed no longer.
    journal.retire(told.floor_at.replace(ticket.location).as_slice());
}
