//! What the journal of durable streams costs on this machine's disk, beside a loop that only writes and syncs.
//!
//!     cargo bench --bench journal [-- DIRECTORY]

#![allow(missing_docs, reason = "nothing here is a library")]
#![allow(clippy::disallowed_methods, reason = "the bans are for the edge's data path; this is a stopwatch")]
#![allow(clippy::print_stdout, reason = "a table is what it is for")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use sedge::testing::streams::journal::{Fsync, Journal, Settings, Wait};

const RECORD_BYTES: usize = 256;

/// How long each row is measured.
const ROW: Duration = Duration::from_secs(2);

/// What is read back, in bytes.
const READ_BYTES: usize = 100 << 20;

fn main() {
    let given = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    let directory = given
        .map_or_else(std::env::temp_dir, PathBuf::from)
        .join(format!("sedge-bench-{}", std::process::id()));
    println!("| what | appends a second | a batch | CPU an append |");
    println!("| --- | --- | --- | --- |");
    raw(&directory);
    for (name, fsync) in [
        ("always", Fsync::Always),
        ("interval 1 s", Fsync::Interval(Duration::from_secs(1))),
        ("never", Fsync::Never),
    ] {
        for appenders in [1, 64, 1_024] {
            let _ = fs::remove_dir_all(&directory);
            appends(&directory, name, fsync, appenders);
        }
    }
    for record in [RECORD_BYTES, 4 << 10, 64 << 10] {
        let _ = fs::remove_dir_all(&directory);
        reads(&directory, record);
    }
    let _ = fs::remove_dir_all(&directory);
}

/// CPU time of this process.
fn cpu() -> Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(used.tv_sec as u64, used.tv_nsec as u32)
}

/// One write and one fdatasync for each record: what a disk gives to one who waits.
fn raw(directory: &Path) {
    fs::create_dir_all(directory).expect("a directory");
    let mut file = fs::File::create(directory.join("raw")).expect("a file");
    let (start, used, mut count) = (Instant::now(), cpu(), 0_u32);
    while start.elapsed() < ROW {
        file.write_all(&[7; RECORD_BYTES]).expect("written");
        file.sync_data().expect("synced");
        count += 1;
    }
    row("write and fdatasync in a loop", count, start.elapsed(), 1.0, cpu() - used);
}

fn row(name: &str, count: u32, time: Duration, batch: f64, used: Duration) {
    let rate = f64::from(count) / time.as_secs_f64();
    println!("| {name} | {rate:.0} | {batch:.1} | {:.1} µs |", used.as_secs_f64() * 1e6 / f64::from(count));
}

/// Tasks of one core that append, each when its last append was acknowledged.
fn appends(directory: &Path, name: &str, fsync: Fsync, appenders: usize) {
    let settings = Settings { fsync, ..Settings::default() };
    let opened = Journal::open(directory, &settings, |_, _| Ok(())).expect("opened");
    let (journal, keeper) = (opened.journal, opened.writer.spawn().expect("a thread"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    let (start, used) = (Instant::now(), cpu());
    let count = runtime.expect("a runtime").block_on(async {
        let waiters = Rc::new(journal.waiters());
        let serve = Rc::clone(&waiters);
        tokio::task::spawn_local(async move { serve.serve().await });
        let tasks: Vec<_> = (0..appenders)
            .map(|_| {
                let (journal, waiters) = (journal.clone(), Rc::clone(&waiters));
                tokio::task::spawn_local(async move {
                    let mut count = 0_u32;
                    while start.elapsed() < ROW {
                        let ticket = journal.append(&[7; RECORD_BYTES]).expect("taken");
                        waiters.durable(ticket).await.expect("durable");
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        let mut count = 0;
        for task in tasks {
            count += task.await.expect("no task panics");
        }
        count
    });
    let (time, used) = (start.elapsed(), cpu() - used);
    let batch = f64::from(count) / journal.stats().batches.get() as f64;
    row(&format!("fsync = {name}, {appenders} appenders"), count, time, batch, used);
    keeper.close();
}

/// Reads back what the kernel has in its cache, and opens a journal of that size.
fn reads(directory: &Path, record: usize) {
    let settings = Settings { fsync: Fsync::Never, ..Settings::default() };
    let opened = Journal::open(directory, &settings, |_, _| Ok(())).expect("opened");
    let (journal, keeper) = (opened.journal, opened.writer.spawn().expect("a thread"));
    let body = vec![7; record];
    let mut tickets: Vec<_> = Vec::new();
    for _ in 0..READ_BYTES / record {
        tickets.push(loop {
            // The queue is bounded: whoever fills it waits.
            match journal.append(&body) {
                Ok(ticket) => break ticket,
                Err(_) => std::thread::yield_now(),
            }
        });
    }
    while tickets.last().is_some_and(|ticket| journal.outcome(*ticket).is_none()) {
        std::thread::yield_now();
    }
    let locations: Vec<_> = tickets.iter().map(|ticket| ticket.location).collect();
    let start = Instant::now();
    for location in &locations {
        assert_eq!(journal.read(*location).expect("read").len(), record);
    }
    let read = start.elapsed();
    let (start, mut bytes) = (Instant::now(), 0);
    journal.read_each(&locations, Wait::Not, &mut Vec::new(), |body| bytes += body.len()).expect("read");
    let together = start.elapsed();
    assert_eq!(bytes, locations.len() * record);
    keeper.close();
    drop(journal);
    let start = Instant::now();
    let again = Journal::open(directory, &settings, |_, _| Ok(())).expect("opened again");
    assert_eq!(again.recovery.records as usize, tickets.len());
    println!(
        "\n100 MiB in records of {record} bytes: read one by one in {read:.0?}, together in {together:.0?}, opened in {:.0?}",
        start.elapsed()
    );
}
