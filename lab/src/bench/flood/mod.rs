//! `flood`: what a client of the reflector notices while strangers flood it.
//!
//! ```text
//! client ══ a line that writes down what it drops ══ server: the reflector, alone on a CPU
//! stranger ───────────────── a cable ────────────────┘
//! ```
//!
//! Each flood runs twice beside a client with twenty probes a second. At half of what the reflector
//! can take of it, the client must lose exactly what the line dropped. At the highest rate the
//! reflector's socket overflows, where the stranger is faster than the reflector; the line drops
//! nothing then, and nothing may be told as its loss.

mod captured;
mod source;

use argh::FromArgs;

pub use captured::Captured;
pub use source::{Flood, Kind};

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bufferbane_core::sample::Status;
use bufferbane_linux_io::Family;
use bufferbane_store::{Filter, Reader, SeriesKind};

use super::child::Program;
use super::setup::{Bench, Reflecting, wait_until};
use super::{Fail, within};
use crate::home::Home;
use crate::link::{Direction, Flow, Passage, Way};
use crate::matching::{Exchange, Sent, compare, exchanges};
use crate::netns::Namespace;

/// What a client of the reflector notices while strangers flood it: junk, empty datagrams, wrong tags,
/// replays, made-up sources, at half of what the reflector can take and at the highest rate there is.
/// Needs root.
#[derive(Clone, Copy, Debug, FromArgs)]
#[argh(
    subcommand,
    name = "flood",
    note = "Example: bufferbane-lab flood --seconds 10"
)]
pub struct Options {
    /// how long each flood takes at each rate, 2 to 120 (default: 5)
    #[argh(option, default = "5")]
    pub seconds: u64,
    /// version of IP, 4 or 6 (default: 4)
    #[argh(option, default = "4")]
    pub family: u64,
}

/// The reflector runs here, and the flood there.
const REFLECTOR_CPU: usize = 0;
const FLOOD_CPU: usize = 1;
/// The stranger's addresses.
const STRANGER: [&str; 2] = ["10.65.0.2", "fd65::2"];
/// Sources that it makes up; what is sent to them comes to it.
const MADE_UP: [&str; 2] = ["10.66.0.0/16", "fd66::/64"];
const PORT: u16 = 9876;
const INTERVAL_NS: i64 = 50_000_000;
/// Where nothing has passed the line for this long nothing is on its way: an answer reaches it 10 ms after
/// its request, ns.
const QUIET_NS: i64 = 30_000_000;
/// Bytes of a probe's payload.
const PROBE_BYTES: u16 = 128;
/// Of a hundred packets the line drops so many in each direction, at half rate, ppm.
const LOSS_PPM: u32 = 20_000;
/// After a flood, until every loss has its direction.
const SETTLE: Duration = Duration::from_millis(4_500);
/// How long the reflector's capacity is measured.
const MEASURE: Duration = Duration::from_millis(1_500);

/// What the reflector counts.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    received: u64,
    answered: u64,
    socket_drops: u64,
    overload: u64,
}

/// What came of one flood at one rate.
struct Phase {
    name: &'static str,
    kind: Kind,
    from_ns: i64,
    to_ns: i64,
    /// Datagrams that the stranger sent, per second.
    sent: f64,
    /// What the reflector took of them and what its socket dropped, per second.
    taken: f64,
    dropped: f64,
    overload: u64,
    /// Bytes of frames to the stranger and to all it made up, and from there.
    bytes_out: u64,
    bytes_in: u64,
}

/// Runs it and prints the result.
///
/// # Errors
/// What could not be done, and what the client was told that is not so.
pub fn run(options: Options) -> Result<(), Fail> {
    within("--seconds", options.seconds, 2..=120)?;
    let family = match options.family {
        4 => Family::V4,
        6 => Family::V6,
        other => {
            let why = format!("--family {other} is no version of IP; 4 or 6 is allowed");
            return Err(Fail::Usage(why));
        }
    };
    crate::netns::possible().map_err(Fail::Failed)?;
    let failed = |e: std::io::Error| Fail::of("the floods' namespaces", e);
    let [up, down] = line(0);
    let home = Home::new(1, &up, &down, 4711).map_err(failed)?;
    let stranger = Namespace::new("stranger").map_err(failed)?;
    join(&home.server, &stranger).map_err(failed)?;
    let bench = Bench::new()?;
    let server = SocketAddr::new(server(family), PORT);
    let at = SocketAddr::new(any(family), PORT);
    let two = Reflecting {
        clients: 2,
        sessions_each: 4,
        transmit_stamps: true,
    };
    let reflector = bench.reflector_for(at, two, Some(&home.server), Some(REFLECTOR_CPU))?;
    let text = format!(
        "target = []\n[http]\nlisten = \"\"\n[[interface]]\nname = \"wan0\"\n[[reflector]]\nname = \"server\"\n\
         address = \"{server}\"\nkey_file = \"{}\"\ninterval = \"50ms\"\nsize = {PROBE_BYTES}\n",
        bench.path("0.key").display()
    );
    let daemon = bench.daemon(&text, Some(&home.client))?;
    let captured = Captured::from(&home.client, server)?;
    wait_until(|| counts(&bench).is_ok_and(|c| c.answered > 40));

    println!(
        "Floods of the reflector on CPU {REFLECTOR_CPU} from another namespace, for {} s each, beside a client with \
         20 probes/s.\n{:<14}{:<9}{:>11}{:>11}{:>11}{:>10}{:>13}{:>13}",
        options.seconds,
        "flood",
        "rate",
        "sent/s",
        "taken/s",
        "dropped/s",
        "overload",
        "bytes in",
        "bytes out"
    );
    let time = Duration::from_secs(options.seconds);
    let mut phases = Vec::new();
    for kind in Kind::ALL {
        let lab = Lab {
            to: SocketAddr::new(near(family), PORT),
            stranger: &stranger,
            bench: &bench,
            captured: &captured,
        };
        let most = lab.flood(kind, "measure", None, MEASURE)?;
        for (name, rate, loss_ppm) in [
            ("half", Some((most.taken / 2.0) as u64), LOSS_PPM),
            ("highest", None, 0),
        ] {
            let [up, down] = line(loss_ppm);
            home.links[0].change(Way::Up, up);
            home.links[0].change(Way::Down, down);
            std::thread::sleep(Duration::from_millis(200));
            let phase = lab.flood(kind, name, rate, time)?;
            let [up, down] = line(0);
            home.links[0].change(Way::Up, up);
            home.links[0].change(Way::Down, down);
            std::thread::sleep(SETTLE);
            println!("{phase}");
            phases.push(phase);
        }
    }
    end(daemon, reflector);
    judge(&bench, &home, &phases)
}

fn end(daemon: Program, reflector: Program) {
    daemon.stop();
    reflector.stop();
}

/// What the line does, both ways.
fn line(loss_ppm: u32) -> [Direction; 2] {
    [(); 2].map(|()| Direction {
        loss_ppm,
        ..Direction::delay(10_000_000)
    })
}

/// Where the reflector is to its client, which is the first of a home's servers.
#[must_use]
pub const fn server(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(10, 99, 0, 1)),
        Family::V6 => IpAddr::V6(Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 1)),
    }
}

/// Where it is to the stranger.
#[must_use]
pub const fn near(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(10, 65, 0, 1)),
        Family::V6 => IpAddr::V6(Ipv6Addr::new(0xfd65, 0, 0, 0, 0, 0, 0, 1)),
    }
}

const fn any(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

/// Connects a stranger to the server, which routes all sources that the stranger makes up to it, over IPv4
/// and IPv6.
///
/// # Errors
/// What could not be made.
pub fn join(server: &Namespace, stranger: &Namespace) -> std::io::Result<()> {
    server.cable("strange", stranger, "eth0")?;
    for (i, family) in [Family::V4, Family::V6].into_iter().enumerate() {
        // Nobody else is on this cable, so IPv6 need not look for a second owner first.
        let (length, fresh): (u8, &[&str]) = match family {
            Family::V4 => (24, &[]),
            Family::V6 => (64, &["nodad"]),
        };
        let near = format!("{}/{length}", near(family));
        server.ip(&[&["addr", "add", &near, "dev", "strange"], fresh].concat())?;
        let far = format!("{}/{length}", STRANGER[i]);
        stranger.ip(&[&["addr", "add", &far, "dev", "eth0"], fresh].concat())?;
        server.ip(&["route", "add", MADE_UP[i], "via", STRANGER[i]])?;
    }
    Ok(())
}

fn counts(bench: &Bench) -> Result<Counts, Fail> {
    let status = bench.status("reflector.sock")?;
    let of = |key: &str| {
        status[key]
            .as_u64()
            .ok_or_else(|| Fail::Failed(format!("the reflector's status has no {key}")))
    };
    Ok(Counts {
        received: of("received")?,
        answered: of("answered")?,
        socket_drops: of("socket_drops")?,
        overload: of("overload")?,
    })
}

struct Lab<'a> {
    to: SocketAddr,
    stranger: &'a Namespace,
    bench: &'a Bench,
    captured: &'a Captured,
}

impl Lab<'_> {
    /// Floods for `time` with `rate` datagrams per second, or as many as there can be.
    fn flood(
        &self,
        kind: Kind,
        name: &'static str,
        rate: Option<u64>,
        time: Duration,
    ) -> Result<Phase, Fail> {
        let flood = Flood {
            kind,
            to: self.to,
            rate,
            time,
            cpu: FLOOD_CPU,
            captured: self.captured.clone(),
        };
        let failed = |e: std::io::Error| Fail::of(format!("the flood {}", kind.as_str()), e);
        let before = counts(self.bench)?;
        let bytes_before = bytes(self.stranger).map_err(failed)?;
        let from_ns = wall_ns();
        let sent = self
            .stranger
            .inside(move || flood.run())
            .map_err(failed)??;
        let to_ns = wall_ns();
        // What waits in the socket is taken within milliseconds.
        std::thread::sleep(Duration::from_millis(100));
        let after = counts(self.bench)?;
        let bytes_after = bytes(self.stranger).map_err(failed)?;
        let seconds = (to_ns - from_ns) as f64 / 1e9;
        Ok(Phase {
            name,
            kind,
            from_ns,
            to_ns,
            sent: sent as f64 / seconds,
            taken: (after.received - before.received) as f64 / seconds,
            dropped: (after.socket_drops - before.socket_drops) as f64 / seconds,
            overload: after.overload - before.overload,
            bytes_out: bytes_after[0] - bytes_before[0],
            bytes_in: bytes_after[1] - bytes_before[1],
        })
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:<14}{:<9}{:>11.0}{:>11.0}{:>11.0}{:>10}{:>13}{:>13}",
            self.kind.as_str(),
            self.name,
            self.sent,
            self.taken,
            self.dropped,
            self.overload,
            self.bytes_in,
            self.bytes_out
        )
    }
}

/// Bytes of frames received and sent so far by the interface `eth0` of a stranger's namespace.
///
/// # Errors
/// Where there is no such interface.
pub fn bytes(stranger: &Namespace) -> std::io::Result<[u64; 2]> {
    let text = stranger.inside(|| std::fs::read_to_string("/proc/thread-self/net/dev"))??;
    let line = text.lines().find_map(|l| l.trim().strip_prefix("eth0:"));
    let numbers: Vec<u64> = line
        .into_iter()
        .flat_map(str::split_whitespace)
        .filter_map(|n| n.parse().ok())
        .collect();
    match (numbers.first(), numbers.get(8)) {
        (Some(received), Some(sent)) => Ok([*received, *sent]),
        _ => Err(std::io::Error::other("no counters of eth0")),
    }
}

fn wall_ns() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| d.as_nanos() as i64)
}

/// The exchanges from the first request on that reaches the line at `from_ns` or later and when nothing is
/// on its way, and when that request does. What the reflector's socket dropped before has no answer, which
/// would be taken for that of the next.
#[must_use]
pub fn exchanges_from_quiet(log: &[Passage], from_ns: i64) -> Option<(i64, Vec<Exchange>)> {
    let is_quiet = |at_ns: i64| {
        let before = at_ns - QUIET_NS..at_ns;
        !log.iter().any(|p| before.contains(&p.arrival_ns))
    };
    let begin_ns = log
        .iter()
        .filter(|p| p.way == Way::Up && p.arrival_ns >= from_ns)
        .map(|p| p.arrival_ns)
        .filter(|at_ns| is_quiet(*at_ns))
        .min()?;
    let rest: Vec<_> = log
        .iter()
        .filter(|p| p.arrival_ns >= begin_ns)
        .copied()
        .collect();
    Some((begin_ns, exchanges(&rest)))
}

/// Holds what the client recorded against the line's log.
fn judge(bench: &Bench, home: &Home, phases: &[Phase]) -> Result<(), Fail> {
    let store = bench.store();
    let failed = |e: &dyn std::fmt::Display| Fail::of(store.display(), e);
    let reader = Reader::open(&store).map_err(|e| failed(&e))?;
    let series = reader.series().map_err(|e| failed(&e))?;
    let (id, _) = series
        .iter()
        .find(|(_, info)| info.kind == SeriesKind::Udp)
        .ok_or_else(|| failed(&"no series of probes"))?;
    let own = |p: &Passage| matches!(p.flow, Flow::Udp(from, to, PROBE_BYTES) if from == PORT || to == PORT);
    let log: Vec<Passage> = home.links[0].log().into_iter().filter(own).collect();
    println!(
        "\n{:<14}{:<9}{:>9}{:>9}{:>9}{:>9}  lost, as the client has it",
        "flood", "rate", "probes", "up", "down", "unknown"
    );
    let mut wrong = Vec::new();
    for phase in phases {
        let filter = Filter {
            from_ns: phase.from_ns,
            to_ns: phase.to_ns,
            series: vec![*id],
        };
        let mut samples = Vec::new();
        for row in reader.samples(&filter) {
            let row = row.map_err(|e| failed(&e))?;
            samples.push(Sent {
                at_ns: row.wall_ns,
                sample: row.sample,
            });
        }
        let count = |status| samples.iter().filter(|s| s.sample.status == status).count();
        let [up, down, unknown] = [Status::LostUp, Status::LostDown, Status::Lost].map(count);
        let expected = (phase.to_ns - phase.from_ns) / INTERVAL_NS;
        let mut said = Vec::new();
        if (samples.len() as i64) < expected * 9 / 10 {
            said.push(format!("{} of {expected} probes were sent", samples.len()));
        }
        if phase.name == "half" {
            let Some((begin_ns, line)) = exchanges_from_quiet(&log, phase.from_ns) else {
                return Err(Fail::Failed("the line was never quiet".into()));
            };
            samples.retain(|s| s.at_ns > begin_ns - QUIET_NS / 2);
            let during: Vec<_> = line
                .into_iter()
                .filter(|e| e.request.arrival_ns < phase.to_ns)
                .collect();
            said.extend(compare(&samples, &during, true).wrong.into_iter().take(3));
        } else if up + down > 0 {
            said.push("a loss is told as the line's, which dropped nothing".into());
        } else if unknown > 0 && phase.dropped + phase.overload as f64 == 0.0 {
            said.push("there are losses that nobody counted".into());
        }
        if phase.bytes_out > phase.bytes_in {
            said.push("more bytes went out than came in".into());
        }
        println!(
            "{:<14}{:<9}{:>9}{up:>9}{down:>9}{unknown:>9}  {}",
            phase.kind.as_str(),
            phase.name,
            samples.len(),
            if said.is_empty() {
                "right".to_owned()
            } else {
                said.join("; ")
            }
        );
        wrong.extend(said);
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Fail::Failed(format!("{} findings, see above", wrong.len())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Fate;

    #[test]
    fn an_exchange_that_the_socket_dropped_before_shifts_nothing() {
        const MS: i64 = 1_000_000;
        let mut log = Vec::new();
        // The first and the third get no answer, the sixth's is lost.
        for (i, at_ms) in [0, 50, 100, 112, 150, 200, 250].into_iter().enumerate() {
            let mut pass = |way, at_ms: i64, lost: bool| {
                let mut p = Passage::arrived(way, at_ms * MS, 170);
                let delivered = Fate::Delivered(p.arrival_ns + 10 * MS);
                p.fate = if lost { Fate::Lost } else { delivered };
                p.flow = Flow::Udp(PORT, PORT, PROBE_BYTES);
                log.push(p);
            };
            pass(Way::Up, at_ms, false);
            if !matches!(i, 0 | 2) {
                pass(Way::Down, at_ms + 10, i == 5);
            }
        }
        // The request at 112 comes while something may be on its way, that at 150 too.
        let (begin_ns, line) = exchanges_from_quiet(&log, 101 * MS).unwrap();
        assert_eq!((begin_ns, line.len()), (200 * MS, 2));
        let fates: Vec<_> = line.iter().map(|e| e.answer.map(|a| a.fate)).collect();
        assert_eq!(fates, [Some(Fate::Lost), Some(Fate::Delivered(270 * MS))]);
        assert!(exchanges_from_quiet(&log, 251 * MS).is_none());
    }
}
