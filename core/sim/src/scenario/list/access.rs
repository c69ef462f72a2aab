//! Trouble of the access line: loss, outages, delay, and what it carries.

use bufferbane_core::detect::verdict::Cause;
use bufferbane_core::detect::{Direction, Kind, Load, SeriesFacts};
use rand_chacha::ChaCha8Rng;
use rand_core::Rng;

use super::parts::{HOUR, MINUTE, between, blip, calm, far, home, pings, while_of};
use crate::scenario::spec::{Edges, Scenario, What};
use crate::{MS, S};

pub(super) fn loss(rng: &mut ChaCha8Rng, up: f64, down: f64, way: Direction) -> Scenario {
    let mut s = calm(home(0));
    s.blame = (Cause::AccessLoss, Some(way));
    let e = s.expect(Kind::PacketLoss, Some(way), Edges::Touched);
    let span = while_of(rng, 12);
    s.effect(span, What::Loss { up, down }, far, Some(e));
    s
}

pub(super) fn loss_up(rng: &mut ChaCha8Rng) -> Scenario {
    loss(rng, 0.035, 0.0, Direction::Up)
}

pub(super) fn loss_down(rng: &mut ChaCha8Rng) -> Scenario {
    loss(rng, 0.0, 0.06, Direction::Down)
}

pub(super) fn loss_both(rng: &mut ChaCha8Rng) -> Scenario {
    loss(rng, 0.04, 0.04, Direction::Both)
}

/// A fifth of everything, for a quarter of a minute, twice.
pub(super) fn loss_short(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    s.blame = (Cause::AccessLoss, Some(Direction::Up));
    for from in [12 * MINUTE, 30 * MINUTE] {
        let e = s.expect(Kind::PacketLoss, Some(Direction::Up), Edges::Touched);
        let from = between(rng, from, from + 3 * MINUTE);
        let what = What::Loss { up: 0.2, down: 0.0 };
        s.effect((from, from + 15 * S), what, far, Some(e));
    }
    s
}

pub(super) fn bursts(
    rng: &mut ChaCha8Rng,
    s: &mut Scenario,
    (from, to): (u64, u64),
    way: Direction,
    who: fn(&SeriesFacts) -> bool,
) {
    let e = s.expect(Kind::LossBurst, Some(way), Edges::Runs);
    let mut at = from;
    while at < to {
        let span = (at, at + between(rng, 1200 * MS, 2000 * MS));
        let (up, down) = if way == Direction::Up {
            (0.65, 0.0)
        } else {
            (0.0, 0.65)
        };
        s.effect(span, What::Loss { up, down }, who, Some(e));
        at = span.1 + between(rng, 150 * S, 270 * S);
    }
}

pub(super) fn noise_bursts_up(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    s.blame = (Cause::AccessLoss, Some(Direction::Up));
    bursts(rng, &mut s, (12 * MINUTE, 40 * MINUTE), Direction::Up, far);
    s
}

pub(super) fn bursts_down(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    s.blame = (Cause::AccessLoss, Some(Direction::Down));
    bursts(
        rng,
        &mut s,
        (12 * MINUTE, 40 * MINUTE),
        Direction::Down,
        far,
    );
    s
}

/// This happens for so long, again and again over half an hour.
fn again(rng: &mut ChaCha8Rng, (period_ns, long_ns): (u64, u64), up: bool, what: What) -> Scenario {
    let mut s = calm(home(0));
    let way = if up { Direction::Up } else { Direction::Down };
    s.blame = (Cause::Periodic, Some(way));
    let e = s.expect(Kind::PeriodicLoss, Some(way), Edges::Touched);
    let from = between(rng, 12 * MINUTE, 14 * MINUTE);
    for n in 0..(30 * MINUTE / period_ns) {
        let at = from + n * period_ns + between(rng, 0, 40 * MS);
        s.effect((at, at + long_ns), what, far, Some(e));
    }
    s
}

pub(super) fn periodic(rng: &mut ChaCha8Rng, period_ns: u64, up: bool) -> Scenario {
    let (up_share, down) = if up { (1.0, 0.0) } else { (0.0, 1.0) };
    let what = What::Loss { up: up_share, down };
    again(rng, (period_ns, 45 * MS), up, what)
}

pub(super) fn periodic_30s(rng: &mut ChaCha8Rng) -> Scenario {
    periodic(rng, 30 * S, true)
}

pub(super) fn periodic_12s(rng: &mut ChaCha8Rng) -> Scenario {
    periodic(rng, 12_300 * MS, false)
}

/// Something else fills the way for a moment: nothing is lost.
fn periodic_spikes(rng: &mut ChaCha8Rng, spans_ns: (u64, u64), up: bool) -> Scenario {
    again(rng, spans_ns, up, blip(up))
}

pub(super) fn periodic_spikes_30s(rng: &mut ChaCha8Rng) -> Scenario {
    periodic_spikes(rng, (30 * S, 300 * MS), false)
}

pub(super) fn periodic_spikes_12s(rng: &mut ChaCha8Rng) -> Scenario {
    periodic_spikes(rng, (12_300 * MS, 300 * MS), true)
}

/// Nearly as often as can be told, and so shortly that delay does not vary for it.
pub(super) fn periodic_spikes_quick(rng: &mut ChaCha8Rng) -> Scenario {
    periodic_spikes(rng, (2700 * MS, 55 * MS), true)
}

pub(super) fn periodic_outages(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    s.blame = (Cause::Periodic, Some(Direction::Up));
    let (from, times) = (between(rng, 12 * MINUTE, 14 * MINUTE), 24);
    let p = s.expect(Kind::PeriodicLoss, None, Edges::Given);
    s.expected[p].direction = Some(Direction::Up);
    s.expected[p].bounds_ns = Some((from, from + (times - 1) * 45 * S));
    for n in 0..times {
        let at = from + n * 45 * S;
        let span = (at, at + between(rng, 400 * MS, 600 * MS));
        s.cut(Kind::MicroOutage, span, true, false, far);
    }
    s
}

pub(super) fn micro(rng: &mut ChaCha8Rng, s: &mut Scenario, from: u64, times: u64, up: bool) {
    let mut at = from;
    for n in 0..times {
        // The shortest that can be claimed, among longer ones.
        let long = if n % 3 == 0 {
            200 * MS
        } else {
            between(rng, 250 * MS, 6000 * MS)
        };
        s.cut(Kind::MicroOutage, (at, at + long), up, false, far);
        at += long + between(rng, 25 * S, 110 * S);
    }
}

pub(super) fn micro_outages(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    s.blame = (Cause::AccessOutages, None);
    micro(rng, &mut s, 12 * MINUTE, 12, true);
    s
}

pub(super) fn micro_outages_down(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    s.blame = (Cause::AccessOutages, Some(Direction::Down));
    micro(rng, &mut s, 12 * MINUTE, 8, false);
    s
}

pub(super) fn outages(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    s.blame = (Cause::AccessOutages, None);
    let mut at = 12 * MINUTE;
    for n in 0..3 {
        let span = (at, at + between(rng, 12 * S, 150 * S));
        s.cut(Kind::Outage, span, true, n == 1, far);
        at = span.1 + between(rng, 6 * MINUTE, 8 * MINUTE);
    }
    s
}

pub(super) fn outages_pings_only(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(pings());
    s.blame = (Cause::AccessOutages, None);
    let mut at = 12 * MINUTE;
    for n in 0..4 {
        let (kind, long) = if n % 2 == 0 {
            (Kind::Outage, between(rng, 13 * S, 90 * S))
        } else {
            (Kind::MicroOutage, between(rng, 3500 * MS, 7000 * MS))
        };
        s.cut(kind, (at, at + long), true, false, far);
        at += long + between(rng, 6 * MINUTE, 8 * MINUTE);
    }
    s
}

pub(super) fn bloat(
    rng: &mut ChaCha8Rng,
    s: &mut Scenario,
    from: u64,
    way: Direction,
    queue_ns: u64,
) -> u64 {
    let span = (from, from + between(rng, 40 * S, 120 * S));
    let e = s.expect(Kind::Bufferbloat, Some(way), Edges::Touched);
    let up = way == Direction::Up;
    let what = What::Delay {
        up_ns: if up { queue_ns } else { 0 },
        down_ns: if up { 0 } else { queue_ns },
        wobble_ns: queue_ns / 5,
    };
    s.effect(span, what, far, Some(e));
    let load = if up {
        Load {
            up_bps: 9_700_000,
            down_bps: 300_000,
        }
    } else {
        Load {
            up_bps: 400_000,
            down_bps: 95_000_000,
        }
    };
    s.loads.push((0, span.0, span.1, load));
    span.1
}

pub(super) fn bufferbloat_up(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    s.blame = (Cause::Bufferbloat, Some(Direction::Up));
    let mut at = 12 * MINUTE;
    for _ in 0..4 {
        at = bloat(rng, &mut s, at, Direction::Up, 240 * MS) + between(rng, 6 * MINUTE, 8 * MINUTE);
    }
    s
}

/// What a host sends as an upload begins: far more than the line lets through, for so long.
fn rush(s: &mut Scenario, from: u64, long: u64) {
    let load = Load {
        up_bps: 120_000_000,
        down_bps: 300_000,
    };
    s.loads.push((0, from, from + long, load));
}

/// Each upload begins with a second in which far more is sent than passes.
pub(super) fn bufferbloat_rush(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    s.blame = (Cause::Bufferbloat, Some(Direction::Up));
    let mut at = 12 * MINUTE;
    for _ in 0..4 {
        rush(&mut s, at + S / 4, S / 2);
        at = bloat(rng, &mut s, at, Direction::Up, 240 * MS) + between(rng, 6 * MINUTE, 8 * MINUTE);
        at -= at % S;
    }
    s
}

/// Something floods the line upward for a while, and most of that is lost; it was measured what passes.
/// Uploads after it are uploads.
pub(super) fn bufferbloat_flood(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    s.blame = (Cause::Bufferbloat, Some(Direction::Up));
    let mut at = 12 * MINUTE;
    rush(&mut s, at, 20 * S);
    s.capacities.push((0, at + 6 * S, true, 10_000_000));
    for _ in 0..3 {
        at = bloat(rng, &mut s, at, Direction::Up, 240 * MS) + between(rng, 6 * MINUTE, 8 * MINUTE);
    }
    s
}

pub(super) fn bufferbloat_down(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    s.blame = (Cause::Bufferbloat, Some(Direction::Down));
    let mut at = 12 * MINUTE;
    for _ in 0..3 {
        at = bloat(rng, &mut s, at, Direction::Down, 700 * MS)
            + between(rng, 6 * MINUTE, 8 * MINUTE);
    }
    s
}

pub(super) fn spikes(rng: &mut ChaCha8Rng, s: &mut Scenario, way: Direction, long_ns: u64) {
    let mut at = 12 * MINUTE;
    for _ in 0..3 {
        let span = (at, at + between(rng, 15 * S, 90 * S));
        let e = s.expect(Kind::LatencySpike, Some(way), Edges::Touched);
        let up = way == Direction::Up;
        let what = What::Delay {
            up_ns: if up { long_ns } else { 0 },
            down_ns: if up { 0 } else { long_ns },
            wobble_ns: 6 * MS,
        };
        s.effect(span, what, far, Some(e));
        at = span.1 + between(rng, 6 * MINUTE, 8 * MINUTE);
    }
}

pub(super) fn spike_idle_up(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    s.blame = (Cause::AccessDelay, Some(Direction::Up));
    spikes(rng, &mut s, Direction::Up, 90 * MS);
    s
}

/// The household downloads, and somebody else fills the way up behind its line.
pub(super) fn spike_download_up(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    s.blame = (Cause::AccessDelay, Some(Direction::Up));
    spikes(rng, &mut s, Direction::Up, 240 * MS);
    let acknowledges = Load {
        up_bps: 230_000,
        down_bps: 80_000_000,
    };
    s.loads.push((0, 2 * MINUTE, s.length_ns, acknowledges));
    s
}

pub(super) fn spike_unknown_down(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    s.blame = (Cause::AccessDelay, Some(Direction::Down));
    s.sees_household = vec![false];
    spikes(rng, &mut s, Direction::Down, 90 * MS);
    s
}

pub(super) fn jitter_up(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    s.blame = (Cause::AccessDelay, Some(Direction::Up));
    let e = s.expect(Kind::HighJitter, Some(Direction::Up), Edges::Touched);
    let what = What::Jitter {
        up_ns: 44 * MS,
        down_ns: 0,
    };
    s.effect(while_of(rng, 8), what, far, Some(e));
    s
}

pub(super) fn jitter_down(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    s.blame = (Cause::AccessDelay, Some(Direction::Down));
    let e = s.expect(Kind::HighJitter, Some(Direction::Down), Edges::Touched);
    let what = What::Jitter {
        up_ns: 0,
        down_ns: 20 * MS,
    };
    s.effect(while_of(rng, 8), what, far, Some(e));
    s
}

pub(super) fn evening(rng: &mut ChaCha8Rng) -> Scenario {
    let mut series = home(0);
    for s in &mut series {
        s.facts.interval_ns = 2 * S;
    }
    let mut s = calm(series);
    s.blame = (Cause::EveningCongestion, Some(Direction::Up));
    s.length_ns = 8 * 24 * HOUR;
    let first = 1 + u64::from(rng.next_u32() % 2);
    s.evening = Some((first, first + 5, 16 * MS));
    let e = s.expect(Kind::PeakHourCongestion, Some(Direction::Up), Edges::Given);
    let day = 24 * HOUR;
    s.expected[e].bounds_ns = Some((first * day + 19 * HOUR, (first + 4) * day + 23 * HOUR));
    s
}

pub(super) fn capacity_down(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    s.blame = (Cause::CapacityDown, Some(Direction::Both));
    s.length_ns = 2 * HOUR;
    for (up, kind, way, from) in [
        (true, Kind::UploadDegraded, Direction::Up, 40),
        (false, Kind::DownloadDegraded, Direction::Down, 70),
    ] {
        let e = s.expect(kind, Some(way), Edges::Given);
        let (from, to) = (from * MINUTE, (from + 15) * MINUTE);
        let (mut first, mut last) = (u64::MAX, 0);
        for n in 0..230 {
            let at = n * 30 * S + between(rng, 0, 5 * S);
            let normal = if up { 40_000_000 } else { 400_000_000 };
            let mut bps = between(rng, normal * 93 / 100, normal * 107 / 100);
            if (from..to).contains(&at) {
                bps = bps * if up { 60 } else { 35 } / 100;
                first = first.min(at);
                last = last.max(at);
            }
            s.capacities.push((0, at, up, bps));
        }
        s.expected[e].bounds_ns = Some((first, last));
    }
    s
}
