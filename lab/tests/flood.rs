//! Strangers flood a reflector over IPv4 and IPv6 while it serves a client over both: at half of what the
//! machine can take the client loses what the line drops and nothing else; above that, what the reflector's
//! sockets dropped is counted and never told as the line's loss; and no stranger gets more bytes than it sent.
//! `bufferbane-lab flood` does the same for longer.

mod common;

use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use bufferbane_core::sample::Status;
use bufferbane_lab::bench::flood::{
    Captured, Flood, Kind, bytes, exchanges_from_quiet, join, near, server,
};
use bufferbane_lab::bench::setup::key_number;
use bufferbane_lab::home::Home;
use bufferbane_lab::link::{Direction, Flow, Passage, Way};
use bufferbane_lab::matching::{Sent, compare};
use bufferbane_lab::netns::{self, Namespace};
use bufferbane_lab::skip;
use bufferbane_linux_io::Family;
use bufferbane_reflector::Running;
use bufferbane_store::Reader;
use common::{
    FAMILIES, PORT, PROBE_BYTES, daemon_config, probes_of, reflector_config, start_daemon, wall_ns,
};

/// From one probe of a family to the next, ns.
const INTERVAL_NS: u64 = 50_000_000;
/// How long it is measured what the reflector can take of a flood, and how long a flood takes then.
const MEASURE: Duration = Duration::from_millis(300);
const TIME: Duration = Duration::from_millis(1_200);
/// So often a flood is held against half of what this machine can take just then, where it is busy with something else.
const ATTEMPTS: usize = 4;
/// The line drops so many of a million packets each way at half of what the machine can take.
const LOSS_PPM: u32 = 50_000;
/// For one byte to the stranger so many come from there, at least: whom the kernel looks for on the cable is told, and
/// nothing else. One datagram of twenty answered by as much, wherever the socket does not overflow, would be more.
const QUIET: u64 = 20;
/// Until every loss has its direction.
const SETTLE: Duration = Duration::from_millis(4_500);

fn line(loss_ppm: u32) -> Direction {
    Direction {
        loss_ppm,
        ..Direction::delay(10_000_000)
    }
}

/// What the reflector counts, and what the kernel does.
#[derive(Clone, Copy, Debug)]
struct Counts {
    received: u64,
    socket_drops: u64,
    overload: u64,
    /// Datagrams that no socket of the namespace took.
    kernel_drops: u64,
}

fn kernel_drops() -> u64 {
    let read = |file| std::fs::read_to_string(format!("/proc/thread-self/net/{file}"));
    let (v4, v6) = (
        read("snmp").expect("counters"),
        read("snmp6").expect("counters"),
    );
    let mut rows = v4.lines().filter(|l| l.starts_with("Udp:"));
    let mut row = || rows.next().expect("counters of UDP").split_whitespace();
    let (mut names, mut values) = (row(), row());
    let at = names.position(|n| n == "InErrors").expect("a counter");
    let row = v6.lines().find(|l| l.starts_with("Udp6InErrors"));
    let of = |text: Option<&str>| -> u64 { text.and_then(|n| n.parse().ok()).expect("a number") };
    of(values.nth(at)) + of(row.and_then(|r| r.split_whitespace().nth(1)))
}

/// A reflector in the server's namespace, which tells what it has counted when it is asked.
struct Server {
    ask: Sender<()>,
    told: Receiver<Counts>,
}

impl Server {
    fn start(inside: &Namespace) -> Self {
        let (ask, asked) = channel();
        let (tell, told) = channel();
        let serve = move || {
            // The stranger has another way to it than the client.
            let listen = [([0u8; 4], PORT).into(), ([0u16; 8], PORT).into()];
            let clients = [0, 1].map(|n| vec![key_number(n)]);
            let config = reflector_config(listen, &clients);
            let mut running = Running::start(&config).expect("the reflector starts");
            // Until there is nobody who could ask.
            while let Ok(()) = asked.recv() {
                let status = running.status().expect("statistics");
                let number = |key: &str| status[key].as_u64().expect("a number");
                let counts = Counts {
                    received: number("received"),
                    socket_drops: number("socket_drops"),
                    overload: number("overload"),
                    kernel_drops: kernel_drops(),
                };
                tell.send(counts).expect("somebody waits");
            }
        };
        drop(inside.spawn(serve).expect("the server's namespace"));
        let server = Self { ask, told };
        server.counts();
        server
    }

    fn counts(&self) -> Counts {
        self.ask.send(()).expect("it runs");
        self.told.recv().expect("a reflector")
    }
}

/// What came of one flood.
#[derive(Clone, Copy, Debug)]
struct Run {
    begin_ns: i64,
    /// Datagrams that left.
    sent: u64,
    /// Of those and of probes, what the reflector read.
    taken: u64,
    /// And what it did not, or had no room to answer.
    not_taken: u64,
}

struct Lab {
    stranger: Namespace,
    server: Server,
    captured: [Captured; 2],
}

impl Lab {
    /// Floods over both families at once, with so many datagrams per second together.
    fn flood(&self, kind: Kind, rate: Option<u64>, time: Duration) -> Run {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let flood = |(i, family): (usize, Family)| Flood {
            kind,
            to: SocketAddr::new(near(family), PORT),
            rate: rate.map(|r| r / 2),
            time,
            cpu: i % cpus,
            captured: self.captured[i].clone(),
        };
        let traffic = || bytes(&self.stranger).expect("counters");
        let (before, bytes_before) = (self.server.counts(), traffic());
        let begin_ns = wall_ns();
        let floods: Vec<_> = FAMILIES.into_iter().enumerate().map(flood).collect();
        let floods: Vec<_> = floods
            .into_iter()
            .map(|f| self.stranger.spawn(move || f.run()).expect("inside"))
            .collect();
        let mut sent = 0;
        for flood in floods {
            let left = flood.join().expect("no panic").expect("the flood leaves");
            assert!(left > 50, "{kind:?}: {left}");
            sent += left;
        }
        std::thread::sleep(Duration::from_millis(100));
        let (after, bytes_after) = (self.server.counts(), traffic());
        let [out, in_] = [0, 1].map(|i| bytes_after[i] - bytes_before[i]);
        let run = Run {
            begin_ns,
            sent,
            taken: after.received - before.received,
            not_taken: (after.socket_drops + after.overload)
                - (before.socket_drops + before.overload),
        };
        println!(
            "{} at {rate:?}: {run:?}, {in_} bytes in, {out} bytes out",
            kind.as_str()
        );
        assert!(out * QUIET <= in_, "{kind:?}: {out} bytes for {in_}");
        run
    }
}

/// What the reflector can take of a flood, datagrams per second.
fn capacity(lab: &Lab, kind: Kind) -> u64 {
    let most = lab.flood(kind, None, MEASURE);
    let rate = u128::from(most.taken) * 1_000_000_000 / MEASURE.as_nanos();
    rate as u64
}

/// Floods at half of what the reflector can take. Where this machine was busy with something else meanwhile, so that
/// a socket overflowed or not so much was sent, that is measured anew and held against once more. Gives the times in
/// which no socket overflowed, `CLOCK_REALTIME`, ns.
fn at_half(lab: &Lab, capacities: &[(Kind, u64)]) -> Vec<Range<i64>> {
    let (mut times, mut since_ns) = (Vec::new(), wall_ns());
    for &(kind, mut most) in capacities {
        for attempt in 1.. {
            let run = lab.flood(kind, Some(most / 2), TIME);
            let asked = u128::from(most / 2) * TIME.as_millis() / 1000;
            if run.not_taken == 0 && u128::from(run.sent) * 10 >= asked * 9 {
                break;
            }
            assert!(
                attempt < ATTEMPTS,
                "{kind:?} at half of {most}: {run:?} of {asked}"
            );
            times.push(since_ns..run.begin_ns);
            most = capacity(lab, kind);
            // Until that is of no importance for any later loss.
            std::thread::sleep(SETTLE);
            since_ns = wall_ns();
        }
    }
    times.push(since_ns..wall_ns());
    times
}

fn samples(store: &Path, family: Family, from_ns: i64, to_ns: i64) -> Vec<Sent> {
    let reader = Reader::open(store).expect("a store that was closed");
    let filter = probes_of(&reader, family, from_ns, to_ns);
    let rows = reader.samples(&filter).map(|r| r.expect("readable"));
    rows.map(|r| Sent {
        at_ns: r.wall_ns,
        sample: r.sample,
    })
    .collect()
}

/// A moment soon after this one with no probe near it, so that its stamp and the line's agree on which
/// side of it each is.
fn between_probes(log: &[Passage], after_ns: i64) -> i64 {
    let within = after_ns..after_ns + 1_000_000_000;
    let requests = log.iter().filter(|p| p.way == Way::Up);
    let mut at_ns: Vec<i64> = requests.map(|p| p.arrival_ns).collect();
    at_ns.sort_unstable();
    at_ns.retain(|at| within.contains(at));
    let gaps = at_ns.windows(2).map(|two| (two[1] - two[0], two[0]));
    let (gap, begin) = gaps.max().expect("probes");
    begin + gap / 2
}

/// What a client has been told of the times without an overflow is what the line did, of both families.
fn judge_half(store: &Path, log: &[Passage], family: Family, times: &[Range<i64>]) {
    let (mut probes, mut lost) = (0, [0; 2]);
    for time in times {
        let Some((begin_ns, mut line)) = exchanges_from_quiet(log, time.start) else {
            continue;
        };
        // What comes after may be overflowing.
        let end_ns = between_probes(log, time.end - 1_000_000_000);
        line.retain(|e| e.request.arrival_ns < end_ns);
        let mut seen = samples(store, family, begin_ns - 1_000_000_000, end_ns);
        let first = seen.partition_point(|s| s.at_ns < begin_ns - 15_000_000);
        let outcome = compare(&seen.split_off(first), &line, true);
        assert!(
            outcome.wrong.is_empty(),
            "{family:?} in {time:?}: {:?}",
            outcome.wrong
        );
        probes += outcome.probes;
        lost[0] += outcome.lost_up;
        lost[1] += outcome.lost_down;
    }
    println!("at half, {family:?}: {probes} probes, the line dropped {lost:?}");
    assert!(probes > 100, "{probes}");
    assert!(lost[0] + lost[1] > 0, "nothing to be told of");
}

/// What the reflector did not take is told as lost, all of it and nothing else, and as no loss of the line, which dropped
/// nothing since `from_ns`.
fn judge_highest(store: &Path, log: &[Passage], family: Family, from_ns: i64) {
    let all = samples(store, family, i64::MIN, i64::MAX);
    let lost = |s: &&Sent| {
        matches!(
            s.sample.status,
            Status::Lost | Status::LostUp | Status::LostDown
        )
    };
    let count = |status| {
        let since = all.iter().filter(|s| s.at_ns >= from_ns);
        since.filter(|s| s.sample.status == status).count()
    };
    let told = [Status::LostUp, Status::LostDown, Status::Lost].map(count);
    // Of what reached the reflector, what it did not answer; and what the line dropped, all the time.
    let reached = |p: &&Passage| p.way == Way::Up && p.fate.delivered_ns().is_some();
    let answers = log.iter().filter(|p| p.way == Way::Down).count();
    let unanswered = log.iter().filter(reached).count() - answers;
    let dropped = log.iter().filter(|p| p.fate.delivered_ns().is_none());
    let dropped = dropped.count();
    let in_all = all.iter().filter(lost).count();
    println!(
        "highest, {family:?}: told as lost up, down and somewhere {told:?}; in all {in_all} were lost, \
         {unanswered} not answered, {dropped} dropped by the line"
    );
    assert_eq!(told[..2], [0, 0], "the line dropped nothing");
    assert!(told[2] > 0, "no probe was among what was not taken");
    assert_eq!(in_all, unanswered + dropped, "told as something else");
}

#[test]
fn a_flood_costs_a_client_nothing_that_the_line_did_not_drop() {
    if let Err(why) = netns::possible() {
        return skip(&why);
    }
    let home = Home::new(1, &line(0), &line(0), 4713).expect("a lab");
    let stranger = Namespace::new("stranger").expect("a namespace");
    join(&home.server, &stranger).expect("a cable");
    let server = Server::start(&home.server);
    let captured = FAMILIES.map(|family| {
        let reflector = SocketAddr::new(self::server(family), PORT);
        Captured::from(&home.client, reflector).expect("a client is served")
    });
    let lab = Lab {
        stranger,
        server,
        captured,
    };
    let capacities = Kind::ALL.map(|kind| (kind, capacity(&lab, kind)));
    let before_ns = wall_ns();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let config = daemon_config(dir.path(), &key_number(0), &FAMILIES, INTERVAL_NS);
    let mut daemon = start_daemon(&home, config);
    std::thread::sleep(Duration::from_millis(1_500));

    let change = |loss_ppm| {
        home.links[0].change(Way::Up, line(loss_ppm));
        home.links[0].change(Way::Down, line(loss_ppm));
        std::thread::sleep(Duration::from_millis(200));
    };
    change(LOSS_PPM);
    let half = at_half(&lab, &capacities);
    change(0);
    std::thread::sleep(SETTLE);
    let highest_ns = wall_ns();
    let mut overflowing = 0;
    for kind in Kind::ALL {
        overflowing += lab.flood(kind, None, TIME).not_taken;
    }
    std::thread::sleep(SETTLE);
    let counts = lab.server.counts();
    daemon.stop();
    // The last probes' answers are on the line by then. Of those themselves nothing is told, as they have not timed out.
    std::thread::sleep(Duration::from_millis(200));

    println!("{counts:?}");
    assert!(overflowing > 0, "nothing was too much");
    assert_eq!(counts.socket_drops, counts.kernel_drops, "all are counted");
    let store = dir.path().join("s.redb");
    for family in FAMILIES {
        let far = self::server(family);
        let own = |p: &Passage| {
            matches!(p.flow, Flow::Udp(a, b, PROBE_BYTES) if a == PORT || b == PORT)
                && p.far == far
                && p.arrival_ns >= before_ns
        };
        let log: Vec<Passage> = home.links[0].log().into_iter().filter(own).collect();
        judge_half(&store, &log, family, &half);
        judge_highest(&store, &log, family, highest_ns);
    }
}
