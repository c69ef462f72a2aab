//! `reflector-bench`: echoes per second of the reflector on one core, against plain loops and irtt.
//!
//! Everybody answers the same number of clients and bytes from one CPU; the load comes from another,
//! made beforehand, and says how busy it was. Rounds alternate; ratios are taken within a round.

mod answer;
mod irtt;
pub(super) mod load;
mod session;

use std::time::Duration;

use argh::FromArgs;
use bufferbane_core::limits::{MAX_DATAGRAM, MIN_PROBE_SIZE};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use serde_json::Value;

use self::answer::{Answerer, KINDS, Kind};
use self::load::{Load, Outcome, Shape, connected, stay_on};
use self::session::Session;
use super::setup::{Bench, Reflecting, key_number};
use super::{Fail, median, within};

/// Echoes per second of the reflector on one core against plain loops and Debian's irtt server, its
/// residence time, and the memory of 10 000 sessions.
#[derive(Clone, Copy, Debug, FromArgs)]
#[argh(
    subcommand,
    name = "reflector-bench",
    note = "Example: bufferbane-lab reflector-bench --rounds 5"
)]
pub struct Options {
    /// rounds of everything, 1 to 99 (default: 5)
    #[argh(option, default = "5")]
    pub rounds: u64,
    /// how long each round of each program takes, 50 to 10000 ms (default: 600)
    #[argh(option, default = "600")]
    pub round_ms: u64,
    /// bytes of UDP payload, 128 to 1452 (default: 172)
    #[argh(option, default = "172")]
    pub size: u64,
}

/// The load runs here.
const LOAD_CPU: usize = 1;
/// More echoes than anybody here gives in a second.
const MOST_PER_SECOND: u64 = 600_000;
const CLIENTS: usize = 100;
const SHAPES: [(&str, Shape); 3] = [
    (
        "one client, one by one",
        Shape {
            clients: 1,
            train: 1,
            window: 64,
        },
    ),
    (
        "a hundred clients, one by one",
        Shape {
            clients: CLIENTS,
            train: 1,
            window: 2,
        },
    ),
    (
        "eight clients, trains of 32",
        Shape {
            clients: 8,
            train: 32,
            window: 64,
        },
    ),
];
/// Half load, as a share of a CPU.
const HALF: f64 = 0.5;
/// What is near enough to it.
const HALF_ABOUT: std::ops::RangeInclusive<f64> = 0.45..=0.55;
/// How often the rate is brought nearer to half load before it is measured.
const LOOKS: usize = 4;
/// Sessions of the memory test: so many keys, and so many sessions of each, which is what a key may
/// have challenges for at once.
const MANY_KEYS: usize = 200;
const SESSIONS_PER_KEY: usize = 50;
/// What they are to take at most, with everything else, bytes.
const AIM_BYTES: u64 = 16 << 20;

/// One kind of answerer in one round.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    per_second: f64,
    per_cpu_second: f64,
    busy: f64,
    load_busy: f64,
    lost: f64,
}

/// Runs it and prints the result.
///
/// # Errors
/// What could not be done.
pub fn run(options: Options) -> Result<(), Fail> {
    within("--rounds", options.rounds, 1..=99)?;
    within("--round-ms", options.round_ms, 50..=10_000)?;
    within(
        "--size",
        options.size,
        MIN_PROBE_SIZE as u64..=MAX_DATAGRAM as u64,
    )?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores <= LOAD_CPU {
        return Err(Fail::Failed(format!(
            "this machine has {cores} CPU; load and reflector need one each"
        )));
    }
    // The thread that makes the load is not the one that waits for programs to start.
    let work = std::thread::spawn(move || {
        stay_on(LOAD_CPU)?;
        measure(options)
    });
    work.join()
        .map_err(|_| Fail::Failed("the load panicked".into()))?
}

fn measure(options: Options) -> Result<(), Fail> {
    let size = options.size as usize;
    println!(
        "Echoes of {size}-byte datagrams over loopback; who answers has CPU {}, the load CPU {LOAD_CPU}. \
         Medians of {} alternating rounds of {} ms. The load sends in one piece what a client may send at \
         once, and receives in one what was sent in one.",
        answer::CPU,
        options.rounds,
        options.round_ms
    );
    let mut capacity = 0.0;
    let mut aims = Vec::new();
    for (name, shape) in SHAPES {
        let rounds = of_shape(options, shape)?;
        println!(
            "\n{name}\n  {:<27}{:>10}{:>15}{:>13}{:>10}{:>9}{:>8}{:>11}{:>8}",
            "",
            "echoes/s",
            "per CPU second",
            "CPU/echo µs",
            "to plain",
            "to irtt",
            "busy",
            "load busy",
            "lost %"
        );
        for kind in Kind::ALL {
            let k = kind as usize;
            let of = |pick: &dyn Fn(&[Round; KINDS]) -> f64| {
                median(&rounds.iter().map(pick).collect::<Vec<_>>())
            };
            let per_cpu = of(&|r| r[k].per_cpu_second);
            let to = |other: Kind| of(&|r| r[k].per_cpu_second / r[other as usize].per_cpu_second);
            let (to_plain, to_irtt) = (to(Kind::Plain), to(Kind::Irtt));
            println!(
                "  {:<27}{:>10.0}{:>15.0}{:>13.2}{:>10.2}{:>9.2}{:>8.2}{:>11.2}{:>8.2}",
                kind.as_str(),
                of(&|r| r[k].per_second),
                per_cpu,
                1e6 / per_cpu,
                to_plain,
                to_irtt,
                of(&|r| r[k].busy),
                of(&|r| r[k].load_busy),
                of(&|r| r[k].lost) * 100.0,
            );
            if kind == Kind::Ours && shape.clients == CLIENTS {
                capacity = of(&|r| r[k].per_second);
            }
            let aimed = match (kind, shape.clients == CLIENTS, shape.train > 1) {
                (Kind::OursReceiving, true, _) => {
                    vec![("plain", to_plain, 1.0), ("irtt", to_irtt, 2.0)]
                }
                (Kind::Ours, true, _) => vec![("plain", to_plain, 0.8), ("irtt", to_irtt, 2.0)],
                (Kind::OursReceiving | Kind::Ours, _, true) => vec![("plain", to_plain, 2.0)],
                _ => Vec::new(),
            };
            aims.extend(aimed.into_iter().map(|aim| (name, kind, aim)));
        }
    }
    println!("\nechoes per CPU second, aimed at");
    for (name, kind, (peer, ratio, aim)) in aims {
        let said = if ratio >= aim { "kept" } else { "missed" };
        println!(
            "  {name}, {}, to {peer}: {ratio:.2}, aim {aim:.1}: {said}",
            kind.as_str()
        );
    }
    residence(options, capacity)?;
    memory()
}

/// All rounds of one shape.
fn of_shape(options: Options, shape: Shape) -> Result<Vec<[Round; KINDS]>, Fail> {
    let keys: Vec<_> = (0..shape.clients).map(key_number).collect();
    let size = options.size as usize;
    let mut pairs = Vec::new();
    for kind in Kind::ALL {
        let answerer = Answerer::start(kind, shape.clients)?;
        let load = Load::new(answerer.at, kind.speech(), shape, size, &keys)?;
        pairs.push((answerer, load));
    }
    let time = Duration::from_millis(options.round_ms);
    let most = (MOST_PER_SECOND * options.round_ms / 1000) as usize;
    let mut rounds = Vec::new();
    for _ in 0..options.rounds {
        let mut round = [Round::default(); KINDS];
        for ((answerer, load), round) in pairs.iter_mut().zip(&mut round) {
            load.prepare(most);
            let before_ns = answerer.cpu_ns()?;
            let outcome = load.run(time)?;
            let cpu_ns = (answerer.cpu_ns()? - before_ns).max(1) as f64;
            let wall_ns = outcome.wall_ns.max(1) as f64;
            let echoes = outcome.echoes as f64;
            if outcome.echoes == 0 {
                return Err(Fail::Failed("nothing was echoed".into()));
            }
            *round = Round {
                per_second: echoes / wall_ns * 1e9,
                per_cpu_second: echoes / cpu_ns * 1e9,
                busy: cpu_ns / wall_ns,
                load_busy: outcome.cpu_ns as f64 / wall_ns,
                lost: outcome.lost as f64 / (echoes + outcome.lost as f64),
            };
        }
        rounds.push(round);
    }
    Ok(rounds)
}

/// How long a probe stays in the reflector when it has half as much to do as it could.
///
/// Probes come one by one here, evenly, as those of many clients do. Who has all it can do finds several at each
/// look and answers them together, which costs less each: half of those are more than half the work. So what it could
/// do is asked of this load: how many of them a second of its CPU is enough for.
fn residence(options: Options, capacity: f64) -> Result<(), Fail> {
    let shape = Shape {
        clients: CLIENTS,
        train: 1,
        window: 2,
    };
    let keys: Vec<_> = (0..CLIENTS).map(key_number).collect();
    let time = Duration::from_millis(options.round_ms);
    let half = |per_cpu_second: f64| (HALF * per_cpu_second).max(1.0);
    let mut rate = half(capacity);
    for round in 0..=LOOKS {
        // The last one has all the time, and nothing else in its figures.
        let is_last = round == LOOKS;
        let answerer = Answerer::start(Kind::Ours, CLIENTS)?;
        let speech = Kind::Ours.speech();
        let mut load = Load::new(answerer.at, speech, shape, options.size as usize, &keys)?;
        let time = time * if is_last { options.rounds as u32 } else { 1 };
        let period_ns = (1e9 / rate) as u64;
        load.prepare((time.as_nanos() as u64 / period_ns) as usize * 2);
        let before_ns = answerer.cpu_ns()?;
        let outcome = load.run_paced(time, period_ns)?;
        let cpu_ns = (answerer.cpu_ns()? - before_ns).max(1) as f64;
        if outcome.echoes == 0 {
            return Err(Fail::Failed("nothing was echoed".into()));
        }
        let per_cpu_second = outcome.echoes as f64 / cpu_ns * 1e9;
        if !is_last {
            rate = half(per_cpu_second);
            continue;
        }
        let second = outcome.echoes as f64 / outcome.wall_ns as f64 * 1e9;
        let busy = cpu_ns / outcome.wall_ns as f64;
        let is_half = if HALF_ABOUT.contains(&busy) {
            "so this is"
        } else {
            "so this is not"
        };
        println!(
            "\nresidence at half load, {CLIENTS} clients, one by one: {second:.0} echoes/s of the {per_cpu_second:.0} that a \
             CPU second is enough for, busy {busy:.2}, {is_half} half; the load skipped {} and was busy {:.2}",
            outcome.skipped,
            outcome.cpu_ns as f64 / outcome.wall_ns as f64
        );
        tell_residence(&answerer.bench.status("reflector.sock")?, &outcome)?;
        println!(
            "  {} opened and found right",
            load.opened().div_ceil(load::OPENED)
        );
    }
    Ok(())
}

fn tell_residence(status: &Value, outcome: &Outcome) -> Result<(), Fail> {
    let residence = &status["residence_ns"];
    let micros = |key: &str| {
        residence[key]
            .as_f64()
            .map(|ns| ns / 1000.0)
            .ok_or_else(|| {
                Fail::Failed(format!("the reflector's status has no residence_ns.{key}"))
            })
    };
    println!(
        "  p50 {:.1} µs, p99 {:.1} µs, max {:.1} µs, by the kernel's stamps of {:.0} % of the echoes; {} lost",
        micros("p50")?,
        micros("p99")?,
        micros("max")?,
        residence["count"].as_f64().unwrap_or(0.0) / outcome.echoes.max(1) as f64 * 100.0,
        outcome.lost,
    );
    Ok(())
}

/// What sessions cost.
fn memory() -> Result<(), Fail> {
    let bench = Bench::new()?;
    let at = ([127, 0, 0, 1], super::setup::free_port()?).into();
    let what = Reflecting {
        clients: MANY_KEYS,
        sessions_each: SESSIONS_PER_KEY,
        transmit_stamps: true,
    };
    let program = bench.reflector_for(at, what, None, Some(answer::CPU))?;
    let before = program.memory()?;
    let socket = connected(at)?;
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut datagram = [0; MIN_PROBE_SIZE];
    let mut answer = [0; 2048];
    for n in 0..MANY_KEYS * SESSIONS_PER_KEY {
        let mut session = Session::knock(&socket, &key_number(n % MANY_KEYS), &mut rng)?;
        // A session that is used has a stream as well.
        session.probe(&mut datagram);
        let echoed = socket
            .send(&datagram)
            .and_then(|_| socket.recv(&mut answer));
        match echoed {
            Ok(len) if session.opens(&answer[..len]) => {}
            Ok(_) => {
                return Err(Fail::Failed(
                    "an answer is not the echo that was asked for".into(),
                ));
            }
            Err(e) => return Err(Fail::of(format!("session {n} of the memory test"), e)),
        }
    }
    let after = program.memory()?;
    // Being asked for them must not cost more than having them.
    let status = bench.status("reflector.sock")?;
    let asked = program.memory()?;
    let sessions = status["sessions"].as_u64();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let most = asked.peak_bytes;
    println!(
        "\nmemory with room for {} sessions: {:.1} MiB resident when none is there, {:.1} MiB with {}, {:.1} MiB \
         once they were listed, never more than {:.1} MiB; aim, below {:.0} MiB: {}",
        MANY_KEYS * SESSIONS_PER_KEY,
        mib(before.resident_bytes),
        mib(after.resident_bytes),
        sessions.unwrap_or(0),
        mib(asked.resident_bytes),
        mib(most),
        mib(AIM_BYTES),
        if most < AIM_BYTES { "kept" } else { "missed" },
    );
    Ok(())
}
