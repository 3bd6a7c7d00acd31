//! The macro benchmark: the release binary beside the relays that one would take instead of it, in one run.
//!
//!     cargo bench --bench edge                          every scene, three rounds
//!     cargo bench --bench edge -- paced burst           these scenes
//!       --rounds N  --peers floor,sedge,...  --no-calls
//!     cargo bench --bench edge -- plots                 the plots alone; `plot-streams`, `plot-size`: one of them
//!     cargo bench --bench edge -- paced --stacks        record sedge's stacks, into target/bench/SCENE.sedge.perf
//!
//! Every peer is a process of its own on one core; the upstream and the clients are this process, on the others. The rounds are
//! interleaved, so that whatever else the machine does meets all peers alike, and a ratio is taken within its round. What the
//! clients read is compared with what the upstream said, byte for byte; a scene in which a byte was wrong has failed.
//! In the scenes with durable streams (`fanout`, `append`, `disk-append`, `catchup`, and `streams-100`, `streams-100k` with their twins on
//! disk) the peers are servers of streams: the floor keeps one log and only moves its bytes between sockets and file, axum is a
//! broadcast channel behind `Sse`, and nginx' nchan (Debian: libnginx-mod-nchan) and the server of the crate `durable-streams`
//! (`cargo install durable-streams`; `DURABLE_STREAMS_SERVER` names its binary) take part where they are installed.
//! What every reader has read is compared with what was appended, and what was acknowledged is read back.
//!
//! CPU time is the kernel's accounting of the peer's threads. It includes the kernel's work for its sockets.
//!
//! Results go to the terminal, to `target/bench/edge.json` and, of `plots`, to `target/bench/*.svg`. The binary is built beside, without what
//! the benchmark's own dependencies would switch on in it; `SEDGE_BIN` names another.

#![allow(missing_docs, unreachable_pub, clippy::print_stdout, reason = "a program, and one that prints")]

mod answer;
mod client;
mod durable;
mod load;
mod peers;
mod plan;
mod plot;
mod process;
mod report;
mod scenes;
mod script;
mod upstream;
mod watch;

use std::path::{Path, PathBuf};
use std::process::Command;

use peers::{Kind, Role, Site};
use process::Ask;
use report::Results;
use scenes::{Certificate, Scene};

/// What most gateways in Rust would link as well.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Over what events are plotted.
const PLOTS: [&str; 2] = ["streams", "size"];

struct Options {
    scenes: Vec<Scene>,
    /// By name, as their files are called.
    plots: Vec<&'static str>,
    rounds: usize,
    peers: Vec<Kind>,
    calls: bool,
    stacks: bool,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == peers::SUBCOMMAND) {
        peers::run_own(&args[1..]).expect("the relay");
        return;
    }
    let options = options(&args);
    let target = target();
    let scratch = target.join("bench");
    std::fs::create_dir_all(&scratch).expect("a folder for the results");
    let sedge = binary(&scratch);
    let cores = process::cores();
    let (edge, rest) = cores.split_at(1);
    if rest.is_empty() {
        eprintln!("edge: one core only: the load takes turns with what it measures");
    }
    let rest = if rest.is_empty() { edge } else { rest };
    process::raise_descriptor_limit();
    let certificate = Certificate::new(&scratch);
    let site = Site {
        scratch: &scratch,
        sedge: &sedge,
        cores: (edge, rest),
        upstream: ([127, 0, 0, 1], 0).into(),
        tls: Some(&certificate),
        role: Role::Relay,
    };
    process::stay_on(rest);
    println!("edge: {} on core {}, load on {rest:?}, {} rounds", sedge.display(), edge[0], options.rounds);
    if options.stacks {
        for scene in &options.scenes {
            let sample = scenes::run(*scene, Kind::Sedge, &site, Some(Ask::Stacks)).expect("the scene");
            println!("{}: {:.2} us for each {}", scene.name(), sample.cpu_us, scene.unit());
        }
        return;
    }
    let mut all = Vec::new();
    for scene in &options.scenes {
        let results = measure(*scene, &options, &site, options.calls);
        print!("{}", results.table());
        all.push(results.json());
        save(&scratch.join("edge.json"), &serde_json::Value::from(all.clone()));
    }
    for plot in &options.plots {
        let scenes = if *plot == "streams" { scenes::by_streams() } else { scenes::by_bytes() };
        draw(&options, &site, plot, scenes);
    }
}

/// The rounds of a scene, peer by peer, and one more in which system calls are counted.
fn measure(scene: Scene, options: &Options, site: &Site<'_>, calls: bool) -> Results {
    let chosen = options.peers.iter().filter(|kind| kind.is_here() && scene.is_for(**kind));
    let mut peers: Vec<_> = chosen.map(|kind| (*kind, Vec::new(), Vec::new())).collect();
    for _ in 0..options.rounds {
        for (kind, samples, errors) in &mut peers {
            match scenes::run(scene, *kind, site, None) {
                Ok(sample) => samples.push(sample),
                Err(error) => errors.push(error),
            }
        }
    }
    for (kind, samples, errors) in peers.iter_mut().filter(|_| calls && process::is_installed("perf")) {
        match scenes::run(scene, *kind, site, Some(Ask::SystemCalls)) {
            Ok(counted) => samples.iter_mut().for_each(|sample| sample.calls = counted.calls),
            Err(error) => errors.push(error),
        }
    }
    Results { scene, peers }
}

/// Two plots over something that grows: CPU time for each event, and that as a multiple of the floor's in the same round, which
/// is what remains comparable when the machine is slower for a minute.
fn draw(options: &Options, site: &Site<'_>, name: &str, scenes: Vec<(f64, Scene)>) {
    let lines = || options.peers.iter().map(|kind| plot::Line { name: kind.name(), points: Vec::new() });
    let (mut times, mut ratios): (Vec<_>, Vec<_>) = (lines().collect(), lines().collect());
    for (x, scene) in scenes {
        let results = measure(scene, options, site, false);
        println!("\n{name} = {x}{}", results.table());
        for (at, kind) in options.peers.iter().enumerate() {
            times[at].points.extend(results.cpu_us(*kind).map(|y| (x, y)));
            ratios[at].points.extend(results.ratio(*kind, Kind::Floor).map(|y| (x, y)));
        }
    }
    let (title, x_label) = match name {
        "streams" => ("What an event costs, by streams open (9,000 events a second in all)", "streams"),
        _ => ("What an event costs, by its size (200 streams, an event every 40 ms)", "bytes of an event"),
    };
    for (suffix, y_label, mut lines) in [
        ("", "CPU time, microseconds an event", times),
        ("-ratio", "CPU time, as a multiple of the floor's", ratios),
    ] {
        lines.retain(|line| !line.points.is_empty());
        let svg = plot::svg(title, x_label, y_label, &lines);
        std::fs::write(site.scratch.join(format!("{name}{suffix}.svg")), svg).expect("write the plot");
    }
}

fn options(args: &[String]) -> Options {
    let mut options = Options {
        scenes: Vec::new(),
        plots: Vec::new(),
        rounds: 3,
        peers: Kind::ALL.to_vec(),
        calls: true,
        stacks: false,
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap_or_else(|| usage(arg));
        match arg.as_str() {
            // cargo's own.
            "--bench" => {}
            "--rounds" => options.rounds = value().parse().unwrap_or_else(|_| usage(arg)),
            "--peers" => {
                let names: Vec<&str> = value().split(',').collect();
                options.peers.retain(|kind| names.contains(&kind.name()));
            }
            "--no-calls" => options.calls = false,
            "--stacks" => options.stacks = true,
            "plots" => options.plots = PLOTS.to_vec(),
            "plot-streams" => options.plots.push("streams"),
            "plot-size" => options.plots.push("size"),
            name => match scenes::all().into_iter().find(|scene| scene.name() == name) {
                Some(scene) => options.scenes.push(scene),
                None => usage(arg),
            },
        }
    }
    if options.scenes.is_empty() && options.plots.is_empty() {
        (options.scenes, options.plots) = (scenes::all(), PLOTS.to_vec());
    }
    options
}

fn usage(arg: &str) -> ! {
    let names: Vec<&str> = scenes::all().iter().map(|scene| scene.name()).collect();
    eprintln!(
        "edge: {arg}? There are: {} plots plot-streams plot-size --rounds N --peers A,B --no-calls --stacks",
        names.join(" ")
    );
    std::process::exit(2);
}

/// Where cargo builds: the benchmark's own binary lies in it, two folders down.
fn target() -> PathBuf {
    let own = std::env::current_exe().expect("the benchmark's own path");
    own.ancestors().nth(3).expect("a target folder").to_owned()
}

/// The release binary, built as its users build it: a build together with this benchmark would get its dependencies' features.
fn binary(scratch: &Path) -> PathBuf {
    if let Some(path) = std::env::var_os("SEDGE_BIN") {
        return std::path::absolute(path).expect("a path");
    }
    let target = scratch.join("build");
    let built = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()))
        .args(["build", "--release", "--locked", "--bin", "sedge", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .status();
    assert!(built.is_ok_and(|status| status.success()), "the release binary could not be built");
    target.join("release/sedge")
}

fn save(path: &Path, json: &serde_json::Value) {
    let text = serde_json::to_string_pretty(json).expect("JSON");
    std::fs::write(path, text + "\n").expect("write the results");
}
