//! What packet trains say of lines whose rate is known.

use argh::FromArgs;
use bufferbane_core::train::estimate::{Estimate, estimate};
use bufferbane_core::train::pacer::{Budget, Pacer, When};
use bufferbane_core::train::{SPAN_NS, SURE_PERMILLE};
use bufferbane_linux_io::{Family, ProbeSocket, clock};
use bufferbaned::train::Link;
use rand_chacha::ChaCha12Rng;
use rand_core::SeedableRng;

use super::setup::{self, Bench};
use super::{Fail, within};
use crate::home::Home;
use crate::link::{Direction, Way};

/// Ethernet, IPv4 and UDP before a datagram, bytes.
const HEADER: u32 = 42;
/// How far the middle of what trains say may be from the line's rate.
const AIM: f64 = 0.1;
/// A line whose trains say nothing is given up after so many of them.
const TRIES: u64 = 40;
const REFLECTOR: &str = "10.99.0.1:9876";

/// What packet trains say of lines of 1 to 100 Mbit/s, behind a request-grant upstream and behind a token
/// bucket, against what the lines are made to carry. Needs root.
#[derive(Clone, Copy, Debug, FromArgs)]
#[argh(
    subcommand,
    name = "train-bench",
    note = "Example: bufferbane-lab train-bench --trains 20"
)]
pub struct Options {
    /// trains of each line each way, 5 to 99 (default: 11)
    #[argh(option, default = "11")]
    pub trains: u64,
}

/// A line, and what trains are to say of it.
struct Shape {
    name: String,
    plan: String,
    burst_bps: f64,
    sustained_bps: Option<f64>,
}

fn shapes() -> Vec<Shape> {
    let plain = [1, 2, 5, 10, 20, 50, 100].map(|mbit| Shape {
        name: format!("{mbit} Mbit/s"),
        plan: format!("delay=5ms,rate={mbit}Mbit,buffer=1s"),
        burst_bps: f64::from(mbit) * 1e6,
        sustained_bps: None,
    });
    let others = [
        (
            "10, grants of 4 ms",
            "delay=5ms,rate=10Mbit,grants=4ms/2ms,buffer=1s",
            10e6,
            None,
        ),
        (
            "20, bucket not emptied",
            "delay=5ms,rate=20Mbit,bucket=5Mbit/4MiB,buffer=1s",
            20e6,
            None,
        ),
        (
            "20, bucket of 64 KiB",
            "delay=5ms,rate=20Mbit,bucket=5Mbit/64KiB,buffer=1s",
            20e6,
            Some(5e6),
        ),
    ];
    let others = others.map(|(name, plan, burst_bps, sustained_bps)| Shape {
        name: name.into(),
        plan: plan.into(),
        burst_bps,
        sustained_bps,
    });
    plain.into_iter().chain(others).collect()
}

/// Prints the table.
///
/// # Errors
/// What could not be done, and aims that were missed.
pub fn run(options: Options) -> Result<(), Fail> {
    within("--trains", options.trains, 5..=99)?;
    let idle = Direction::delay(5_000_000);
    let home = Home::new(1, &idle, &idle, 1).map_err(|e| Fail::of("a home", e))?;
    let bench = Bench::new()?;
    let listen = REFLECTOR
        .parse()
        .map_err(|e| Fail::of("the reflector's address", e))?;
    let _reflector = bench.reflector(listen, Some(&home.server), None)?;
    println!(
        "{:<24}{:<6}{:>12}{:>12}{:>10}{:>12}{:>10}{:>8}",
        "line", "way", "is Mbit/s", "said p50", "error", "sustained", "sure", "aim"
    );
    let mut missed = Vec::new();
    let mut seed = 0;
    for shape in shapes() {
        let plan = Direction::parse(&shape.plan).map_err(|e| Fail::of(&shape.plan, e))?;
        for (way, name) in [(Way::Up, "up"), (Way::Down, "down")] {
            let other = if way == Way::Up { Way::Down } else { Way::Up };
            home.links[0].change(way, plan.clone());
            home.links[0].change(other, idle.clone());
            let refills = shape.sustained_bps.is_some();
            // A client that draws the same numbers again knocks as the one before, which earns no answer.
            seed += 1;
            let measured = home
                .client
                .spawn(move || measure(way == Way::Up, options.trains, refills, seed))
                .map_err(|e| Fail::of("entering a namespace", e))?
                .join()
                .map_err(|_| Fail::Failed("a train panicked".into()))??;
            let kept = row(&shape, name, &measured);
            if !kept {
                missed.push(format!("{} {name}", shape.name));
            }
        }
    }
    if missed.is_empty() {
        println!(
            "\nevery aim is kept: p50 within 10 %, and no sustained rate where none can be known"
        );
        return Ok(());
    }
    Err(Fail::Failed(format!("missed: {}", missed.join(", "))))
}

/// One line of the table; whether its aim is kept.
fn row(shape: &Shape, way: &str, all: &[Estimate]) -> bool {
    let sure = all
        .iter()
        .filter(|e| e.confidence_permille >= SURE_PERMILLE);
    let mut bursts: Vec<u64> = sure.clone().map(|e| e.burst_bps).collect();
    let mut tails: Vec<u64> = sure.filter_map(|e| e.sustained_bps).collect();
    let middle = |rates: &mut Vec<u64>| {
        rates.sort_unstable();
        rates.get(rates.len() / 2).map(|r| *r as f64)
    };
    let count = bursts.len();
    let said = middle(&mut bursts);
    let tail = middle(&mut tails);
    let near = |said: f64, is: f64| (said / is - 1.0).abs() <= AIM;
    let tails_kept = match (shape.sustained_bps, tail) {
        (Some(is), Some(tail)) => near(tail, is),
        (None, None) => true,
        _ => false,
    };
    let kept = said.is_some_and(|s| near(s, shape.burst_bps)) && tails_kept;
    let mbit = |r: Option<f64>| r.map_or("unknown".into(), |r| format!("{:.2}", r / 1e6));
    println!(
        "{:<24}{:<6}{:>12.2}{:>12}{:>9.1}%{:>12}{:>10}{:>8}",
        shape.name,
        way,
        shape.burst_bps / 1e6,
        mbit(said),
        said.map_or(f64::NAN, |s| 100.0 * (s / shape.burst_bps - 1.0)),
        mbit(tail),
        format!("{count}/{}", all.len()),
        if kept { "kept" } else { "missed" }
    );
    kept
}

/// Trains of one direction, from not knowing the line, as the daemon sends them but without a pause.
/// Behind a bucket that they empty they wait for it to fill.
fn measure(up: bool, wanted: u64, refills: bool, seed: u64) -> Result<Vec<Estimate>, Fail> {
    let failed = |e: String| Fail::of("a train", e);
    let mut rng = ChaCha12Rng::seed_from_u64(seed);
    let remote = REFLECTOR
        .parse()
        .map_err(|e| Fail::of("the reflector's address", e))?;
    let socket = ProbeSocket::udp(Family::V4).interface("wan0");
    let mut link = Link::open(socket, remote, setup::key(), &mut rng).map_err(failed)?;
    link.greet(&mut rng, &|| false).map_err(failed)?;
    let budget = Budget {
        when: When::Share(1_000_000),
        bytes_per_s: u64::MAX,
        header_bytes: HEADER,
        most_size: 1452,
    };
    let mut pacer = Pacer::new(up, budget, clock::now());
    let (mut all, mut sure, mut tries) = (Vec::new(), 0, 0);
    while sure < wanted && tries < TRIES.max(2 * wanted) {
        let Some(plan) = pacer.poll_train(clock::now(), None, &mut rng) else {
            std::thread::sleep(std::time::Duration::from_millis(20));
            continue;
        };
        tries += 1;
        let mut exchange = link.run(plan, &mut rng, &|| false).map_err(failed)?;
        let (sent, arrivals) = exchange.result(HEADER);
        let result = estimate(&sent, arrivals);
        pacer.handle_result(clock::now(), result, None);
        if let Ok(e) = result
            && e.span_ns >= SPAN_NS
        {
            sure += u64::from(e.confidence_permille >= SURE_PERMILLE);
            all.push(e);
        }
        if refills {
            std::thread::sleep(std::time::Duration::from_millis(300));
        }
    }
    Ok(all)
}
