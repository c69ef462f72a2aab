//! Throughput tests as reports, exports and `bbtool test` tell them.

mod describe;
#[cfg(test)]
mod tests;

use bufferbane_core::household;
use bufferbane_store::{Datagrams, Direction, Instead, LoadTest, LoadedDelay, Protocol, TestWay};
use serde::Serialize;

use crate::report::Time;
use crate::show::{self, clean};

pub(crate) use describe::describe;

/// What one test carried in one direction.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Throughput {
    /// When the test began.
    pub(crate) at: Time,
    /// The interface.
    pub(crate) interface: String,
    /// The reflector.
    pub(crate) reflector: String,
    /// `up` or `down`.
    pub(crate) direction: Direction,
    /// Mean of the steady part, by the receiver's count.
    pub(crate) mean_bps: u64,
    /// 10 % of its 100 ms were not faster.
    pub(crate) p10_bps: u64,
    /// 90 % of them were not faster.
    pub(crate) p90_bps: u64,
    /// Received in all.
    pub(crate) bytes: u64,
    /// What others carried meanwhile, as far as the interface's counters show it.
    pub(crate) others_bps: Option<u64>,
    /// Segments sent again.
    pub(crate) retransmits: u64,
    /// TCP streams in this direction.
    pub(crate) streams: u8,
    /// `up`, `down`, `both` or `rrul`: what was loaded meanwhile.
    pub(crate) test: String,
    /// Congestion control.
    pub(crate) congestion: String,
    /// Smoothed round-trip time of the streams at the end, µs.
    pub(crate) rtt_us: u64,
    /// Sum of their congestion windows at the end.
    pub(crate) cwnd_bytes: u64,
    /// Whether the test was ended early, because it had moved what the month's budget left.
    pub(crate) cut_short: bool,
    /// `tcp`, or `udp`: datagrams at a given rate.
    pub(crate) protocol: Protocol,
    /// What became of those.
    pub(crate) datagrams: Option<Datagrams>,
    /// Reflectors that were to make the test and did not, in the order in which they were asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) instead_of: Vec<Instead>,
}

/// What the load did to latency in one direction, or to the round trip (`both`).
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Bufferbloat {
    /// When the test began.
    pub(crate) at: Time,
    /// The interface.
    pub(crate) interface: String,
    /// The reflector.
    pub(crate) reflector: String,
    /// `up` or `down`: delay above the direction's floor; `both`: round-trip time.
    pub(crate) direction: Direction,
    /// What waited.
    #[serde(flatten)]
    pub(crate) delay: Waits,
    /// What stood in the queue; `None` for `both`.
    pub(crate) queue_bytes: Option<u64>,
    /// Round trips per minute under load.
    pub(crate) rpm: Option<u32>,
    /// Whether the last seconds' values of it agree.
    pub(crate) rpm_stable: bool,
    /// Which variant of the draft that is.
    pub(crate) rpm_variant: String,
    /// `A+` to `F`.
    pub(crate) grade: String,
    /// Until latency was back after the load.
    pub(crate) recovery_ns: Option<u64>,
    /// `up`, `down`, `both` or `rrul`: what was loaded.
    pub(crate) test: String,
    /// `tcp`, or `udp`: datagrams at a given rate, which need not fill the line.
    pub(crate) protocol: Protocol,
    /// Reflectors that were to make the test and did not: the way to another one may be slower than the line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) instead_of: Vec<Instead>,
    /// What ICMP echoes waited meanwhile, of `both` under `rrul`, where they are answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) icmp: Option<Waits>,
}

/// A delay without load, under load, and how far the second lies above the first, ns.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Waits {
    /// Median without load.
    pub(crate) idle_ns: u64,
    /// 90th percentile without load.
    pub(crate) idle_p90_ns: u64,
    /// 99th percentile without load.
    pub(crate) idle_p99_ns: u64,
    /// Median under load.
    pub(crate) loaded_ns: u64,
    /// 90th percentile under load.
    pub(crate) loaded_p90_ns: u64,
    /// 99th percentile under load.
    pub(crate) loaded_p99_ns: u64,
    /// Difference of the medians.
    pub(crate) increase_ns: u64,
    /// Difference of the 90th percentiles.
    pub(crate) increase_p90_ns: u64,
    /// Difference of the 99th percentiles.
    pub(crate) increase_p99_ns: u64,
}

impl From<LoadedDelay> for Waits {
    fn from(delay: LoadedDelay) -> Self {
        let (idle, loaded, increase) = (delay.idle, delay.loaded, delay.increase);
        Self {
            idle_ns: idle.p50,
            idle_p90_ns: idle.p90,
            idle_p99_ns: idle.p99,
            loaded_ns: loaded.p50,
            loaded_p90_ns: loaded.p90,
            loaded_p99_ns: loaded.p99,
            increase_ns: increase.p50,
            increase_p90_ns: increase.p90,
            increase_p99_ns: increase.p99,
        }
    }
}

/// Each direction that a test loaded.
pub(crate) fn throughput(at_ns: i64, test: &LoadTest) -> impl Iterator<Item = Throughput> + '_ {
    test.ways.iter().map(move |w| Throughput {
        at: Time(at_ns),
        interface: test.interface.clone(),
        reflector: test.reflector.clone(),
        direction: w.direction,
        mean_bps: w.mean_bps,
        p10_bps: w.p10_bps,
        p90_bps: w.p90_bps,
        bytes: w.bytes,
        others_bps: w.others_bps,
        retransmits: w.retransmits,
        streams: w.streams,
        test: test.kind.clone(),
        congestion: test.congestion.clone(),
        rtt_us: w.rtt_us,
        cwnd_bytes: w.cwnd_bytes,
        cut_short: test.cut_short,
        protocol: test.protocol,
        datagrams: w.datagrams,
        instead_of: test.instead_of.clone(),
    })
}

/// Each direction that a test loaded, and the round trip.
pub(crate) fn bufferbloat(at_ns: i64, test: &LoadTest) -> Vec<Bufferbloat> {
    let one = |direction, delay: &LoadedDelay, queue_bytes, grade: String| Bufferbloat {
        at: Time(at_ns),
        interface: test.interface.clone(),
        reflector: test.reflector.clone(),
        direction,
        delay: Waits::from(*delay),
        queue_bytes,
        rpm: test.rpm,
        rpm_stable: test.rpm_stable,
        rpm_variant: test.rpm_variant.clone(),
        grade,
        recovery_ns: test.recovery_ns,
        test: test.kind.clone(),
        protocol: test.protocol,
        instead_of: test.instead_of.clone(),
        icmp: None,
    };
    let ways = test
        .ways
        .iter()
        .map(|w| one(w.direction, &w.delay, Some(w.queue_bytes), w.grade.clone()));
    let grade = test.rtt.grade().as_str().to_owned();
    let mut trip = one(Direction::Both, &test.rtt, None, grade);
    trip.icmp = test.icmp.map(Waits::from);
    ways.chain([trip]).collect()
}

/// What load adds to latency one way, the 90th percentile as in a test's own grade: the median of all tests that loaded
/// this way alone, or of all where none did. Only of tests that filled the line, which a rate that somebody chose need
/// not, nor what another reflector than the wanted one took.
pub(crate) fn added(all: &[Bufferbloat], interface: &str, direction: Direction) -> Option<u64> {
    let full = all.iter().filter(|b| {
        b.interface == interface
            && b.direction == direction
            && b.protocol == Protocol::Tcp
            && b.instead_of.is_empty()
    });
    let (alone, beside): (Vec<&Bufferbloat>, Vec<_>) =
        full.partition(|b| b.test == word(direction));
    let told = if alone.is_empty() { beside } else { alone };
    let mut increases_ns: Vec<u64> = told.iter().map(|b| b.delay.increase_p90_ns).collect();
    increases_ns.sort_unstable();
    let upper = *increases_ns.get(increases_ns.len() / 2)?;
    let lower = increases_ns[(increases_ns.len() - 1) / 2];
    Some(u64::midpoint(lower, upper))
}

/// What load adds, for people: what is too little to be felt is not told to the nanosecond.
fn rise(ns: u64) -> Option<String> {
    (ns >= 100_000).then(|| show::delay(ns))
}

/// `12.3 Mbit/s`.
pub(crate) fn rate(bps: u64) -> String {
    match bps {
        0..1_000_000 => format!("{:.0} kbit/s", bps as f64 / 1e3),
        1_000_000..100_000_000 => format!("{:.1} Mbit/s", bps as f64 / 1e6),
        100_000_000..10_000_000_000 => format!("{:.0} Mbit/s", bps as f64 / 1e6),
        _ => format!("{:.1} Gbit/s", bps as f64 / 1e9),
    }
}

/// What others carried in the direction of a test, bit/s, where that may be why it found no more.
fn others_part(w: &TestWay) -> Option<u64> {
    w.others_bps.filter(|o| household::shared(*o, w.mean_bps))
}

/// `1.20 %` of the datagrams that were sent; `None` where it is not known what the line lost.
fn lost_share(d: &Datagrams) -> Option<String> {
    Some(show::percent(d.lost?, d.sent))
}

/// `1.20 % lost`, or that it is not known.
pub(crate) fn lost(d: &Datagrams, direction: Direction) -> String {
    lost_share(d).map_or_else(
        || format!("lost {}", why_not_known(d, direction)),
        |share| format!("{share} lost"),
    )
}

/// Why it is not known what of the datagrams in `direction` the line lost.
fn why_not_known(d: &Datagrams, direction: Direction) -> String {
    let (sender, receiver) = match direction {
        Direction::Up => ("this host", "the reflector"),
        Direction::Down | Direction::Both => ("the reflector's host", "this host"),
    };
    let sent = d.sender_drops.filter(|n| *n > 0).map(|n| {
        let packets = show::plural(n, "packet", "packets");
        format!("{sender} dropped {packets} in its own queue")
    });
    let received = Some(d.receiver_drops).filter(|n| *n > 0).map(|n| {
        let datagrams = show::plural(n, "datagram", "datagrams");
        format!("{receiver} itself dropped {datagrams}")
    });
    let why: Vec<String> = sent.into_iter().chain(received).collect();
    format!("not known: {}", why.join(", and "))
}

/// `up`, `down` or `both`.
pub(crate) const fn word(direction: Direction) -> &'static str {
    match direction {
        Direction::Up => "up",
        Direction::Down => "down",
        Direction::Both => "both",
    }
}

/// What a report says of its tests: a line for each direction of each, the newest last, no more than
/// `most`.
pub(crate) fn lines(
    throughput: &[Throughput],
    bufferbloat: &[Bufferbloat],
    time: impl Fn(i64) -> String,
    most: usize,
) -> Vec<String> {
    let skipped = throughput.len().saturating_sub(most);
    let mut lines: Vec<String> = throughput
        .iter()
        .skip(skipped)
        .map(|t| {
            let mut line = format!(
                "{}  {} → {} {}: {} ({} to {})",
                time(t.at.0),
                clean(&t.interface),
                clean(&t.reflector),
                word(t.direction),
                rate(t.mean_bps),
                rate(t.p10_bps),
                rate(t.p90_bps),
            );
            if let Some(d) = &t.datagrams {
                line.push_str(&format!(
                    " of {} over UDP, {}",
                    rate(d.offered_bps),
                    lost(d, t.direction)
                ));
            }
            if t.cut_short {
                line.push_str(", cut short by the month's budget");
            }
            for other in &t.instead_of {
                line.push_str(&format!(", instead of {}", clean(&other.reflector)));
            }
            let delay = bufferbloat
                .iter()
                .find(|b| b.at == t.at && b.interface == t.interface && b.direction == t.direction);
            if let Some(b) = delay {
                line.push_str(&format!(
                    "; latency {} higher under load (90th percentile {})",
                    rise(b.delay.increase_ns).as_deref().unwrap_or("no"),
                    rise(b.delay.increase_p90_ns)
                        .as_deref()
                        .unwrap_or("no higher"),
                ));
                if t.protocol == Protocol::Tcp {
                    line.push_str(&format!(": grade {}", b.grade));
                }
                if let Some(rpm) = b.rpm {
                    line.push_str(&format!(", {rpm} RPM"));
                }
            }
            line
        })
        .collect();
    if skipped > 0 {
        lines.push(format!("and {skipped} before these"));
    }
    lines
}
