//! `cuts`: throughput tests that are cut off at random moments, and what they leave behind.
//!
//! Whoever asked hangs up; the daemon or the reflector is told to end or is killed; the line is dead for a
//! while. Afterwards there must be no socket of the test, no test and no session at the reflector, and no
//! descriptor and no thread more than before in whatever still runs.

use std::fmt;
use std::io::BufReader;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use argh::FromArgs;
use nix::sys::signal::Signal;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use serde_json::Value;

use super::child::Program;
use super::setup::{Bench, wait_until};
use super::shapes::{SHAPES, Shape, ask};
use super::{Fail, within};
use crate::home::Home;
use crate::link::{Direction, Way};
use crate::netns::Namespace;

/// What throughput tests leave behind that are cut off at random moments: sockets, sessions, tests,
/// descriptors and threads. Fails where one leaves anything. Needs root or user namespaces.
#[derive(Clone, Copy, Debug, FromArgs)]
#[argh(
    subcommand,
    name = "cuts",
    note = "Example: bufferbane-lab cuts --cuts 24"
)]
pub struct Options {
    /// how many tests are cut off, 1 to 1000 (default: 24)
    #[argh(option, default = "24")]
    pub cuts: u64,
    /// seed of the moments (default: 1)
    #[argh(option, default = "1")]
    pub seed: u64,
}

/// How a test is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// Whoever asked hangs up.
    HangUp,
    /// The daemon gets this signal.
    Daemon(Signal),
    /// The reflector does.
    Reflector(Signal),
    /// Nothing passes the line for a while.
    Line,
}

const CUTS: [Cut; 6] = [
    Cut::HangUp,
    Cut::Daemon(Signal::SIGTERM),
    Cut::Daemon(Signal::SIGKILL),
    Cut::Reflector(Signal::SIGTERM),
    Cut::Reflector(Signal::SIGKILL),
    Cut::Line,
];
const PHASES: [&str; 4] = ["waiting", "idle", "load", "recovery"];
/// Seconds of load.
const SECONDS: u64 = 4;
/// The line is dead for this long.
const DEAD: Duration = Duration::from_secs(7);
/// A reflector takes a client for gone after five seconds, and the session of a test after ten.
const PATIENCE: Duration = Duration::from_secs(14);
/// A test over a dead line goes on to its end.
const LONG_PATIENCE: Duration = Duration::from_secs(40);
const REFLECTOR: ([u8; 4], u16) = ([10, 99, 0, 1], 9876);

/// Runs it and prints the result.
///
/// # Errors
/// What could not be done, and what was left behind.
pub fn run(options: Options) -> Result<(), Fail> {
    within("--cuts", options.cuts, 1..=1000)?;
    crate::netns::possible().map_err(Fail::Failed)?;
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
    let mut site = Site::new()?;
    let mut left = 0;
    println!(
        "Seed {}. After each cut what is left of sockets, sessions, tests, descriptors, threads:",
        options.seed
    );
    for n in 0..options.cuts as usize {
        let cut = CUTS[n % CUTS.len()];
        let phase = PHASES[rng.next_u32() as usize % PHASES.len()];
        let way = Way::BOTH[rng.next_u32() as usize % 2];
        let after = Duration::from_millis(u64::from(rng.next_u32() % 1500));
        let rest = site.cut(cut, way, phase, after)?;
        println!(
            "{:>4}  {cut:<22} {way:?} {phase}+{} ms: {}",
            n + 1,
            after.as_millis(),
            if rest.is_empty() { "nothing" } else { &rest }
        );
        left += usize::from(!rest.is_empty());
    }
    site.revive()?;
    ask::ask(&site.bench.path("daemon.sock"), Way::Up, SECONDS)?;
    println!("A test after all that went to its end.");
    if left > 0 {
        return Err(Fail::Failed(format!("{left} cuts left something behind")));
    }
    Ok(())
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self {
            Self::HangUp => "asker hangs up".to_owned(),
            Self::Daemon(signal) => format!("daemon {signal}"),
            Self::Reflector(signal) => format!("reflector {signal}"),
            Self::Line => "line dead".to_owned(),
        };
        f.pad(&words)
    }
}

/// What a process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Holds {
    descriptors: usize,
    threads: usize,
}

/// What there is.
#[derive(Clone, Copy, Debug)]
struct State {
    /// Of the daemon and the reflector, where they run.
    holds: [Option<Holds>; 2],
    tests: u64,
    /// The daemon's own, those of daemons that are gone (for five minutes), and that of a test.
    sessions: u64,
}

struct Site {
    daemon: Option<Program>,
    reflector: Option<Program>,
    bench: Bench,
    home: Home,
    shape: Shape,
}

impl Site {
    fn new() -> Result<Self, Fail> {
        let shape = SHAPES[2];
        let home = Home::new(1, &shape.up.direction(), &shape.down.direction(), 1)
            .map_err(|e| Fail::of("the emulated line", e))?;
        Ok(Self {
            daemon: None,
            reflector: None,
            bench: Bench::new()?,
            home,
            shape,
        })
    }

    /// Starts what does not run, and waits until it is as quiet as it will be.
    fn revive(&mut self) -> Result<(), Fail> {
        let server = Some(&self.home.server);
        if self.reflector.is_none() {
            self.reflector = Some(self.bench.reflector(REFLECTOR.into(), server, None)?);
        }
        if self.daemon.is_none() {
            let ([a, b, c, d], port) = REFLECTOR;
            let text = format!(
                "target = []\n[[interface]]\nname = \"wan0\"\n[[reflector]]\nname = \"lab\"\n\
                 address = \"{a}.{b}.{c}.{d}:{port}\"\nkey_file = \"lab.key\"\ninterval = \"50ms\"\nfamily = \"4\"\n\
                 [throughput]\nevery = \"never\"\n"
            );
            self.daemon = Some(self.bench.daemon(&text, Some(&self.home.client))?);
        }
        let mut before = None;
        // Its own session, too, has to be there before one more can be told from it.
        let mut settled = || match (self.received(), before) {
            (Some(now), Some(before)) => now > before + 5 && self.sessions() > 0,
            (now, _) => {
                before = now;
                false
            }
        };
        wait_until(&mut settled);
        wait_until(&mut settled);
        if settled() {
            return Ok(());
        }
        Err(Fail::Failed("the reflector is not reached again".into()))
    }

    /// Replies that the daemon has had; `None` while it does not say.
    fn received(&self) -> Option<u64> {
        let status = self.bench.status("daemon.sock").ok()?;
        status["status"]["series"][0]["total"]["received"].as_u64()
    }

    /// Sessions that the reflector has; none while it does not say.
    fn sessions(&self) -> u64 {
        let status = self.bench.status("reflector.sock").unwrap_or_default();
        status["sessions"].as_u64().unwrap_or(0)
    }

    /// Cuts one test off in that phase; what it left behind, in words.
    fn cut(&mut self, cut: Cut, way: Way, phase: &str, after: Duration) -> Result<String, Fail> {
        self.revive()?;
        let before = self.state()?;
        let mut news = ask::begin(&self.bench.path("daemon.sock"), way, SECONDS)?;
        loop {
            let said = ask::next(&mut news)?;
            let now = &said["progress"]["phase"];
            // A short phase may have passed unseen.
            if now == phase || said["test"].is_object() {
                break;
            }
            if said["ok"] != true {
                return Err(Fail::of("the test", &said["error"]));
            }
        }
        std::thread::sleep(after);
        let mut patience = PATIENCE;
        match cut {
            Cut::HangUp => {}
            Cut::Daemon(signal) => end(&mut self.daemon, signal)?,
            Cut::Reflector(signal) => {
                end(&mut self.reflector, signal)?;
                hear_out(&mut news);
            }
            Cut::Line => {
                patience = LONG_PATIENCE;
                let dead = Direction {
                    outage: true,
                    ..Direction::delay(0)
                };
                for way in Way::BOTH {
                    self.home.links[0].change(way, dead.clone());
                }
                std::thread::sleep(DEAD);
                for way in Way::BOTH {
                    self.home.links[0].change(way, self.shape.lane(way).direction());
                }
                hear_out(&mut news);
            }
        }
        // Our own connection is none of what may stay.
        drop(news);
        let begun = Instant::now();
        loop {
            let rest = self.rest(&before)?;
            if rest.is_empty() || begun.elapsed() > patience {
                return Ok(rest);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn state(&self) -> Result<State, Fail> {
        let of = |program: &Option<Program>| program.as_ref().map(holds).transpose();
        let status = match self.reflector {
            Some(_) => self.bench.status("reflector.sock")?,
            None => Value::Null,
        };
        Ok(State {
            holds: [of(&self.daemon)?, of(&self.reflector)?],
            tests: status["tests"]["running"].as_u64().unwrap_or(0),
            sessions: status["sessions"].as_u64().unwrap_or(0),
        })
    }

    /// What is there that was not `before`, in words.
    fn rest(&self, before: &State) -> Result<String, Fail> {
        let mut rest = Vec::new();
        for (name, ns) in [("client", &self.home.client), ("server", &self.home.server)] {
            let sockets = connections(ns)?;
            if !sockets.is_empty() {
                rest.push(format!("at the {name}: {}", sockets.join(", ")));
            }
        }
        let now = self.state()?;
        for (i, name) in ["daemon", "reflector"].into_iter().enumerate() {
            if let Some((now, before)) = now.holds[i].zip(before.holds[i])
                && (now.descriptors > before.descriptors || now.threads > before.threads)
            {
                rest.push(format!("the {name} has {now:?}, had {before:?}"));
            }
        }
        if now.tests > 0 || now.sessions > before.sessions {
            rest.push(format!(
                "{} tests, {} sessions instead of {}",
                now.tests, now.sessions, before.sessions
            ));
        }
        Ok(rest.join("; "))
    }
}

/// Waits for the last of a test's news.
fn hear_out(news: &mut BufReader<UnixStream>) {
    while ask::next(news).is_ok_and(|said| said["progress"].is_object()) {}
}

/// Ends a program, and sees that it is gone.
fn end(program: &mut Option<Program>, signal: Signal) -> Result<(), Fail> {
    match program.take() {
        Some(program) => program.signal(signal, PATIENCE),
        None => Ok(()),
    }
}

fn holds(program: &Program) -> Result<Holds, Fail> {
    let count = |what: &str| {
        let path = format!("/proc/{}/{what}", program.id());
        let entries = std::fs::read_dir(&path).map_err(|e| Fail::of(&path, e))?;
        Ok(entries.count())
    };
    Ok(Holds {
        descriptors: count("fd")?,
        threads: count("task")?,
    })
}

/// TCP sockets within a namespace that do not listen, in whatever state.
fn connections(ns: &Namespace) -> Result<Vec<String>, Fail> {
    let read = || {
        ["tcp", "tcp6"].map(|file| {
            let path = Path::new("/proc/thread-self/net").join(file);
            std::fs::read_to_string(path).unwrap_or_default()
        })
    };
    let tables = ns.inside(read).map_err(|e| Fail::of("a namespace", e))?;
    Ok(tables.iter().flat_map(|t| not_listening(t)).collect())
}

/// Local and remote end and state of each socket of `/proc/net/tcp` that does not listen.
fn not_listening(table: &str) -> Vec<String> {
    const LISTEN: &str = "0A";
    let rows = table.lines().skip(1);
    rows.filter_map(|row| {
        let mut words = row.split_whitespace().skip(1);
        let (local, remote, state) = (words.next()?, words.next()?, words.next()?);
        (state != LISTEN).then(|| format!("{local}-{remote} in state {state}"))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_socket_that_does_not_listen_is_found() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue\n   \
                     0: 0100007F:1F90 00000000:0000 0A 00000000:00000000\n   \
                     1: 0100007F:1F90 0100007F:A001 06 00000000:00000000\n";
        assert_eq!(
            not_listening(table),
            ["0100007F:1F90-0100007F:A001 in state 06"]
        );
        assert!(connections(&Namespace::new("empty").expect("root")).is_ok_and(|c| c.is_empty()));
    }
}
