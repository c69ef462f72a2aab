//! Where the tools run, and one run of all of them side by side.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bufferbane_linux_io::clock;
use bufferbaned::{Daemon, config};

use super::super::Fail;
use super::super::child::{Program, Streams, installed};
use super::super::setup::{Bench, wait_until};
use super::episode::Part;
use super::ours::{self, Ours};
use super::peers::{self, Said};
use crate::home::{Home, SERVERS};
use crate::link::{Direction, Passage};
use crate::netns::Namespace;

/// All tools send one packet in so many ms.
pub(super) const INTERVAL_MS: u64 = 20;
/// Bytes of UDP payload of our probes, and of irtt's packets.
pub(super) const PROBE_BYTES: u16 = 128;
pub(super) const IRTT_BYTES: u16 = 130;

/// The addresses the tools talk to, each alone.
pub(super) const OURS: IpAddr = server(1);
pub(super) const PING: IpAddr = server(2);
pub(super) const FPING: IpAddr = server(3);
pub(super) const IRTT: IpAddr = server(4);
/// What fills the line goes here, up and down.
const SINK: &str = "10.99.0.2:9";
const HOME_SINK: &str = "10.77.0.1:9";

const fn server(n: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 99, 0, n))
}

const MS: u64 = 1_000_000;
const UP_BPS: u64 = 10_000_000;
const DOWN_BPS: u64 = 20_000_000;
/// A little more than the line carries, in percent of its rate.
const FLOOD_PERCENT: u64 = 120;
const FLOOD_BYTES: usize = 1_400;

/// A client and a server, with or without an emulated line between them.
pub(super) enum Site {
    /// 20 ms each way, 10 Mbit/s up with 120 ms of buffer, some jitter.
    Line(Box<Home>),
    /// A virtual cable: nothing takes any time.
    Cable(Namespace, Namespace),
}

impl Site {
    pub(super) fn line() -> Result<Self, Fail> {
        let up = Direction {
            rate_bps: UP_BPS,
            buffer_ns: 120 * MS,
            jitter_ns: 2 * MS,
            ..Direction::delay(20 * MS)
        };
        let down = Direction {
            jitter_ns: MS,
            ..Direction::delay(20 * MS)
        };
        let home = Home::new(1, &up, &down, 1).map_err(|e| Fail::of("the emulated line", e))?;
        Ok(Self::Line(Box::new(home)))
    }

    /// 20 ms each way, and buffers to fill in both directions.
    pub(super) fn bloated() -> Result<Self, Fail> {
        let direction = |rate_bps, buffer_ms, jitter_ns| Direction {
            rate_bps,
            buffer_ns: buffer_ms * MS,
            jitter_ns,
            ..Direction::delay(20 * MS)
        };
        let up = direction(UP_BPS, 120, 2 * MS);
        let down = direction(DOWN_BPS, 80, MS);
        let home = Home::new(1, &up, &down, 1).map_err(|e| Fail::of("the emulated line", e))?;
        Ok(Self::Line(Box::new(home)))
    }

    pub(super) fn cable() -> Result<Self, Fail> {
        let make = || {
            let (client, server) = (Namespace::new("client")?, Namespace::new("server")?);
            client.cable("wan0", &server, "lan0")?;
            client.ip(&["addr", "add", "10.77.0.1/24", "dev", "wan0"])?;
            server.ip(&["addr", "add", "10.77.0.2/24", "dev", "lan0"])?;
            client.ip(&[
                "route",
                "add",
                "10.99.0.0/24",
                "via",
                "10.77.0.2",
                "dev",
                "wan0",
            ])?;
            for n in 1..=SERVERS {
                server.ip(&["addr", "add", &format!("10.99.0.{n}/32"), "dev", "lo"])?;
            }
            Ok(Self::Cable(client, server))
        };
        make().map_err(|e: std::io::Error| Fail::of("a virtual cable", e))
    }

    const fn ends(&self) -> (&Namespace, &Namespace) {
        match self {
            Self::Line(home) => (&home.client, &home.server),
            Self::Cable(client, server) => (client, server),
        }
    }

    /// The log of the line since this was last called; empty for a cable.
    ///
    /// # Errors
    /// Where the log is not whole.
    pub(super) fn log(&self) -> Result<Vec<Passage>, Fail> {
        let Self::Line(home) = self else {
            return Ok(Vec::new());
        };
        let link = &home.links[0];
        if link.missed() + link.left_out() > 0 {
            return Err(Fail::Failed(format!(
                "the line missed {} packets and left {} out of its log",
                link.missed(),
                link.left_out()
            )));
        }
        Ok(link.take_log().concat())
    }
}

/// How one run is done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) seconds: u64,
    /// Whether `stress-ng` keeps every core busy meanwhile.
    pub(super) loaded: bool,
    /// Whether somebody uploads in the middle third.
    pub(super) upload: bool,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Readings {
    pub(super) ours: Ours,
    pub(super) ping: Said,
    pub(super) fping: Said,
    pub(super) irtt: Said,
    /// CPU time of the daemon and of irtt's client for each probe, ns.
    pub(super) cpu_ns: [f64; 2],
}

/// A client clock that is wrong.
#[derive(Clone, Copy, Debug)]
pub(super) struct WrongClock {
    /// How much too fast it runs, parts per billion.
    pub(super) drift_ppb: i64,
    /// By how much it steps in the middle of the run, ns.
    pub(super) step_ns: i64,
}

fn start(
    ns: &Namespace,
    bench: &Bench,
    program: &str,
    package: &str,
    words: &[&str],
) -> Result<Program, Fail> {
    let path = installed(program, package)?;
    let args: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
    let streams = Streams {
        log: &bench.path(&format!("{program}.log")),
        output: Some(&bench.path(&format!("{program}.out"))),
    };
    Program::start_with(&path, &args, Some(ns), None, streams)
}

fn daemon_configuration() -> String {
    format!(
        "[[interface]]\nname = \"wan0\"\n\
         [[target]]\nname = \"server\"\nkind = \"icmp\"\naddress = \"{OURS}\"\ninterval = \"{INTERVAL_MS}ms\"\n\
         [[reflector]]\nname = \"lab\"\naddress = \"{OURS}:9876\"\nkey_file = \"lab.key\"\n\
         interval = \"{INTERVAL_MS}ms\"\nsize = {PROBE_BYTES}\nfamily = \"4\"\n"
    )
}

/// Begins to keep every core busy; that ends with the program.
fn stress(bench: &Bench, seconds: u64) -> Result<Program, Fail> {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let (cores, limit) = (cores.to_string(), format!("{}s", seconds + 60));
    let words = ["--cpu", &cores, "--timeout", &limit];
    let args: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
    let path = installed("stress-ng", "stress-ng")?;
    let stress = Program::start(&path, &args, None, None, &bench.path("stress.log"))?;
    std::thread::sleep(Duration::from_millis(500));
    Ok(stress)
}

/// Fills a line of `rate_bps` from `inside` to `sink` until told to stop.
fn flood(
    inside: &Namespace,
    sink: &'static str,
    rate_bps: u64,
    stop: Arc<AtomicBool>,
) -> Result<std::thread::JoinHandle<()>, Fail> {
    let work = move || {
        let Ok(socket) = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)) else {
            return;
        };
        let gap = Duration::from_nanos(
            FLOOD_BYTES as u64 * 8_000_000_000 / (rate_bps * FLOOD_PERCENT / 100),
        );
        let begun = Instant::now();
        let mut sent = 0;
        while !stop.load(Ordering::Relaxed) {
            while begun.elapsed() >= gap * sent {
                // What does not fit is dropped, here as on the line.
                let _ = socket.send_to(&[0; FLOOD_BYTES], sink);
                sent += 1;
            }
            std::thread::sleep(gap);
        }
    };
    inside.spawn(work).map_err(|e| Fail::of("a load", e))
}

/// Waits, with an upload in the middle third if `run` says so.
fn wait_out(site: &Site, run: Run) -> Result<(), Fail> {
    let third = Duration::from_millis(run.seconds * 1000 / 3);
    std::thread::sleep(third);
    let stop = Arc::new(AtomicBool::new(!run.upload));
    let upload = flood(site.ends().0, SINK, UP_BPS, stop.clone())?;
    std::thread::sleep(third);
    stop.store(true, Ordering::Relaxed);
    upload
        .join()
        .map_err(|_| Fail::Failed("the upload panicked".into()))?;
    std::thread::sleep(third);
    Ok(())
}

/// All tools at the same time.
pub(super) fn side_by_side(site: &Site, run: Run) -> Result<Readings, Fail> {
    let bench = Bench::new()?;
    let (client, server) = site.ends();
    let stress = run
        .loaded
        .then(|| stress(&bench, run.seconds))
        .transpose()?;
    let reflector = bench.reflector((OURS, 9876).into(), Some(server), None)?;
    let bind = format!("{IRTT}:2112");
    let far_irtt = {
        let path = installed("irtt", "irtt")?;
        let words = ["server", "-b", &bind, "-i", "0"];
        let args: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
        Program::start(
            &path,
            &args,
            Some(server),
            None,
            &bench.path("irtt-server.log"),
        )?
    };
    let daemon = bench.daemon(&daemon_configuration(), Some(client))?;
    wait_until(|| ours::answered(&bench) > 10);
    if ours::answered(&bench) == 0 {
        return Err(Fail::Failed(
            "the daemon has no answers over the line".into(),
        ));
    }

    let count = (run.seconds * 1000 / INTERVAL_MS).to_string();
    let period = format!("0.{INTERVAL_MS:03}");
    let ping = start(
        client,
        &bench,
        "ping",
        "iputils-ping",
        &[
            "-n",
            "-i",
            &period,
            "-c",
            &count,
            "-W",
            "1",
            &PING.to_string(),
        ],
    )?;
    let fping = start(
        client,
        &bench,
        "fping",
        "fping",
        &[
            "-c",
            &count,
            "-p",
            &INTERVAL_MS.to_string(),
            "-t",
            "1000",
            &FPING.to_string(),
        ],
    )?;
    let file = bench.path("irtt.json");
    let (duration, interval, length) = (
        format!("{}s", run.seconds),
        format!("{INTERVAL_MS}ms"),
        IRTT_BYTES.to_string(),
    );
    let near_irtt = start(
        client,
        &bench,
        "irtt",
        "irtt",
        &[
            "client",
            "-Q",
            "-i",
            &interval,
            "-d",
            &duration,
            "-l",
            &length,
            "--wait=1s",
            "-o",
            &file.to_string_lossy(),
            &bind,
        ],
    )?;
    // CPU time is taken between two moments at which both have settled.
    std::thread::sleep(Duration::from_millis(500));
    let cpu = || Ok::<_, Fail>([daemon.cpu_ns()?, near_irtt.cpu_ns()?]);
    let (before, begun) = (cpu()?, Instant::now());
    let mut rest = run;
    rest.seconds -= 1;
    wait_out(site, rest)?;
    let (after, took) = (cpu()?, begun.elapsed());
    let probes = took.as_millis() as f64 / INTERVAL_MS as f64;
    let each = |i: usize, series: f64| (after[i] - before[i]) as f64 / (probes * series);
    let cpu_ns = [each(0, 2.0), each(1, 1.0)];
    for program in [ping, fping, near_irtt] {
        program.wait(Duration::from_secs(10))?;
    }
    daemon.stop();
    reflector.stop();
    far_irtt.stop();
    drop(stress);
    let out = |name: &str| bench.path(&format!("{name}.out"));
    Ok(Readings {
        ours: ours::read(&bench.store())?,
        ping: peers::ping(&out("ping"))?,
        fping: peers::fping(&out("fping"))?,
        irtt: peers::irtt(&file)?,
        cpu_ns,
    })
}

/// Our probes alone, while a queue stands upward for `seconds`, and for the second half of them
/// downward too. Gives what they said, and when was what.
pub(super) fn episode(site: &Site, seconds: u64, loaded: bool) -> Result<(Ours, Vec<Part>), Fail> {
    /// Without a queue, before and after it.
    const QUIET: Duration = Duration::from_secs(12);
    let bench = Bench::new()?;
    let (client, server) = site.ends();
    let stress = loaded.then(|| stress(&bench, seconds + 60)).transpose()?;
    let reflector = bench.reflector((OURS, 9876).into(), Some(server), None)?;
    let daemon = bench.daemon(&daemon_configuration(), Some(client))?;
    wait_until(|| ours::answered(&bench) > 10);
    site.log()?;
    let mut parts = Vec::new();
    let mut pass = |name, time: Duration| {
        let begin_ns = clock::wall_now();
        std::thread::sleep(time);
        parts.push(Part {
            name,
            during: begin_ns..clock::wall_now(),
        });
    };
    let half = Duration::from_millis(seconds * 500);
    pass("before", QUIET);
    let stop = Arc::new(AtomicBool::new(false));
    let up = flood(client, SINK, UP_BPS, stop.clone())?;
    pass("queue up", half);
    let down = flood(server, HOME_SINK, DOWN_BPS, stop.clone())?;
    pass("queue both ways", half);
    stop.store(true, Ordering::Relaxed);
    for load in [up, down] {
        load.join()
            .map_err(|_| Fail::Failed("a load panicked".into()))?;
    }
    pass("after", QUIET);
    daemon.stop();
    reflector.stop();
    drop(stress);
    Ok((ours::read(&bench.store())?, parts))
}

/// Our probes alone, from a client whose clock is wrong.
pub(super) fn with_wrong_clock(site: &Site, run: Run, wrong: WrongClock) -> Result<Ours, Fail> {
    let bench = Bench::new()?;
    let (client, server) = site.ends();
    let stress = run
        .loaded
        .then(|| stress(&bench, run.seconds))
        .transpose()?;
    // A process of its own, so that its clock stays right.
    let reflector = bench.reflector((OURS, 9876).into(), Some(server), None)?;
    clock::inject(clock::Skew {
        drift_ppb: wrong.drift_ppb,
        ..clock::Skew::default()
    });
    let step_at_ns = clock::wall_now() + (run.seconds * 1_000_000_000) as i64 / 2;
    clock::inject_step(step_at_ns, wrong.step_ns);
    let result = own_daemon(&bench, client, site, run);
    clock::inject_step(i64::MAX, 0);
    clock::inject(clock::Skew::default());
    result?;
    reflector.stop();
    drop(stress);
    ours::read(&bench.store())
}

fn own_daemon(bench: &Bench, client: &Namespace, site: &Site, run: Run) -> Result<(), Fail> {
    let file = bench.daemon_file(&daemon_configuration())?;
    let loaded = config::load(Path::new(&file)).map_err(|m| Fail::Failed(m.join("\n")))?;
    let mut daemon = client
        .inside(move || Daemon::start(loaded.config, None))
        .map_err(|e| Fail::of("the client's namespace", e))?
        .map_err(|e| Fail::of("the daemon", e))?;
    wait_out(site, run)?;
    daemon.stop();
    Ok(())
}
