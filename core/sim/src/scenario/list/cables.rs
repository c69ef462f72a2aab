//! Cable lines with each of their properties, and others that have the same without being a cable.

use bufferbane_core::detect::cable::FindingKind::{
    self, Aqm, BondedChannel, DirectionalLoss, Periodicity, Ranging, RequestGrant, UpstreamBuffer,
};
use bufferbane_core::detect::{Direction, Load, SeriesFacts};
use rand_chacha::ChaCha8Rng;

use super::Make;
use super::access::{bloat, bursts, loss, periodic};
use super::parts::{MINUTE, VIENNA, anybody, between, calm, far, home, pings, reflector};
use crate::scenario::spec::{Scenario, What};
use crate::{MS, S};

/// A line, and what has to be found of it: nothing where it is no cable.
#[derive(Clone, Copy)]
pub struct Line {
    /// Its name.
    pub name: &'static str,
    /// Makes it.
    pub make: Make,
    /// Whether what has a cable modem's address answers.
    pub modem: bool,
    /// Whether the line is judged together with a day on which it showed ranging trouble; without that
    /// day nothing must be found of it.
    pub ranged: bool,
    /// Kinds of findings, in order.
    pub expected: &'static [FindingKind],
    /// A figure of one of them: its kind and name, and within what it has to be.
    pub figure: Option<(FindingKind, &'static str, u64, u64)>,
}

const fn line(name: &'static str, make: Make, expected: &'static [FindingKind]) -> Line {
    Line {
        name,
        make,
        modem: false,
        ranged: false,
        expected,
        figure: None,
    }
}

/// A cable that shows ranging trouble on another day.
const fn cable(name: &'static str, make: Make, expected: &'static [FindingKind]) -> Line {
    Line {
        ranged: true,
        ..line(name, make, expected)
    }
}

const fn with(line: Line, of: FindingKind, figure: &'static str, from: u64, to: u64) -> Line {
    Line {
        figure: Some((of, figure, from, to)),
        ..line
    }
}

const fn modem(line: Line) -> Line {
    Line {
        modem: true,
        ..line
    }
}

/// Every line.
pub const ALL: [Line; 27] = [
    with(
        cable("quiet", quiet, &[RequestGrant, Ranging]),
        RequestGrant,
        "interval_ns",
        1_980_000,
        2_020_000,
    ),
    with(
        cable("fast_map", fast_map, &[RequestGrant, Ranging]),
        RequestGrant,
        "interval_ns",
        990_000,
        1_010_000,
    ),
    cable("noisy", noisy, &[RequestGrant, Ranging]),
    cable(
        "lossy_up",
        lossy_up,
        &[RequestGrant, DirectionalLoss, Ranging],
    ),
    cable("lossy_both", lossy_both, &[RequestGrant, Ranging]),
    cable(
        "ingress",
        ingress,
        &[RequestGrant, DirectionalLoss, Ranging],
    ),
    with(
        cable("plateau", plateau, &[RequestGrant, Ranging, UpstreamBuffer]),
        UpstreamBuffer,
        "bytes",
        270_000,
        330_000,
    ),
    with(
        cable("managed", managed, &[RequestGrant, Ranging, Aqm]),
        Aqm,
        "loaded_queue_ns",
        8_000_000,
        16_000_000,
    ),
    with(
        cable("channel", channel, &[RequestGrant, BondedChannel, Ranging]),
        BondedChannel,
        "channels",
        4,
        4,
    ),
    with(
        line("ranging", ranging, &[RequestGrant, Ranging]),
        Ranging,
        "period_ns",
        29_500_000_000,
        30_500_000_000,
    ),
    with(
        cable("time_outs", time_outs, &[RequestGrant, Ranging]),
        Ranging,
        "outages",
        5,
        8,
    ),
    with(
        cable("period", period, &[RequestGrant, Ranging, Periodicity]),
        Periodicity,
        "period_ns",
        12_200_000_000,
        12_400_000_000,
    ),
    modem(with(
        line("no_grants_but_modem", ranging_only, &[Ranging]),
        Ranging,
        "period_ns",
        29_500_000_000,
        30_500_000_000,
    )),
    modem(line("pings_only", pings_only, &[])),
    line("dsl", dsl, &[]),
    line("fibre", fibre, &[]),
    modem(line("fibre_with_that_address", fibre, &[])),
    modem(line("fibre_goes_dead", fibre_goes_dead, &[])),
    modem(line("optical_1_ms", optical_1_ms, &[])),
    modem(line("optical_2_ms", optical_2_ms, &[])),
    line("mobile", mobile, &[]),
    line("mobile_slots", mobile_slots, &[]),
    modem(line("satellite", satellite, &[])),
    line("far_ticks", far_ticks, &[]),
    modem(line("far_ticks_and_that_address", far_ticks, &[])),
    line("radio", radio, &[]),
    line("two_paths", two_paths, &[]),
];

fn grants(s: &mut Scenario, every_ns: u64, collide: u32) {
    let span = (0, s.length_ns + 20 * MINUTE);
    s.effect(span, What::Grants { every_ns, collide }, far, None);
}

fn on_cable(mut s: Scenario) -> Scenario {
    s.noise_ns = s.noise_ns.min(MS / 2);
    grants(&mut s, 2 * MS, 12);
    s
}

fn quiet(_: &mut ChaCha8Rng) -> Scenario {
    on_cable(calm(home(0)))
}

fn fast_map(_: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    s.noise_ns = MS / 4;
    grants(&mut s, MS, 0);
    s
}

/// With as much noise behind it as a MAP is long.
fn noisy(_: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    s.noise_ns = MS;
    grants(&mut s, 2 * MS, 12);
    let what = What::Jitter {
        up_ns: MS,
        down_ns: 6 * MS,
    };
    let span = (0, s.length_ns + 20 * MINUTE);
    s.effect(span, what, far, None);
    s
}

fn lossy_up(rng: &mut ChaCha8Rng) -> Scenario {
    on_cable(loss(rng, 0.02, 0.0, Direction::Up))
}

fn lossy_both(rng: &mut ChaCha8Rng) -> Scenario {
    on_cable(loss(rng, 0.02, 0.02, Direction::Both))
}

fn ingress(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = on_cable(calm(home(0)));
    bursts(rng, &mut s, (10 * MINUTE, 50 * MINUTE), Direction::Up, far);
    s
}

/// 240 ms at 9.7 Mbit/s, and what a packet more takes.
fn plateau(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = on_cable(calm(home(0)));
    let mut at = 12 * MINUTE;
    for _ in 0..3 {
        let up = What::Delay {
            up_ns: 225 * MS,
            down_ns: 0,
            wobble_ns: 15 * MS,
        };
        at = loaded(rng, &mut s, at, up) + between(rng, 5 * MINUTE, 8 * MINUTE);
    }
    s
}

fn loaded(rng: &mut ChaCha8Rng, s: &mut Scenario, from: u64, what: What) -> u64 {
    let span = (from, from + between(rng, 40 * S, 120 * S));
    let load = Load {
        up_bps: 9_700_000,
        down_bps: 300_000,
    };
    s.loads.push((0, span.0, span.1, load));
    s.effect(span, what, far, None);
    span.1
}

/// A queue manager with a target of 10 ms: delay about that, and now and then a packet dropped.
fn managed(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = on_cable(calm(home(0)));
    let mut at = 12 * MINUTE;
    for _ in 0..3 {
        let up = What::Jitter {
            up_ns: 21 * MS,
            down_ns: 0,
        };
        let to = loaded(rng, &mut s, at, up);
        let drops = What::Loss {
            up: 0.01,
            down: 0.0,
        };
        s.effect((at, to), drops, far, None);
        at = to + between(rng, 5 * MINUTE, 8 * MINUTE);
    }
    s
}

/// One of four channels, three times; large packets go over two of them.
fn channel(rng: &mut ChaCha8Rng) -> Scenario {
    let mut series = home(0);
    let mut large = reflector(0, VIENNA, 24 * MS);
    large.facts.size = 1200;
    series.push(large);
    let mut s = on_cable(calm(series));
    let mut at = 12 * MINUTE;
    for _ in 0..3 {
        let span = (at, at + between(rng, 25 * S, 60 * S));
        let small = |f: &SeriesFacts| far(f) && f.size < 800;
        let large = |f: &SeriesFacts| far(f) && f.size >= 800;
        s.effect(
            span,
            What::Loss {
                up: 0.25,
                down: 0.0,
            },
            small,
            None,
        );
        s.effect(
            span,
            What::Loss {
                up: 0.4375,
                down: 0.0,
            },
            large,
            None,
        );
        at = span.1 + between(rng, 6 * MINUTE, 9 * MINUTE);
    }
    s
}

fn ranging(rng: &mut ChaCha8Rng) -> Scenario {
    on_cable(periodic(rng, 30 * S, true))
}

fn ranging_only(rng: &mut ChaCha8Rng) -> Scenario {
    periodic(rng, 30 * S, true)
}

fn period(rng: &mut ChaCha8Rng) -> Scenario {
    on_cable(periodic(rng, 12_300 * MS, true))
}

/// Sixteen time-outs T3 at most, now and then.
fn time_outs(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = on_cable(calm(home(0)));
    goes_dead(rng, &mut s);
    s
}

fn goes_dead(rng: &mut ChaCha8Rng, s: &mut Scenario) {
    let mut at = 10 * MINUTE;
    for _ in 0..8 {
        let span = (at, at + between(rng, 300 * MS, 3200 * MS));
        let cut = What::Cut {
            up: true,
            down: false,
            unsent: false,
        };
        s.effect(span, cut, far, None);
        at = span.1 + between(rng, 2 * MINUTE, 7 * MINUTE);
    }
}

fn pings_only(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = on_cable(calm(pings()));
    let span = (12 * MINUTE, 12 * MINUTE + between(rng, 30 * S, 60 * S));
    s.effect(
        span,
        What::Loss {
            up: 0.25,
            down: 0.0,
        },
        far,
        None,
    );
    s
}

/// Everything a cable shows but the grants: loss upward, a full buffer, a period, a noisy evening.
fn troubled(rng: &mut ChaCha8Rng, frame_ns: u64) -> Scenario {
    let mut s = loss(rng, 0.02, 0.0, Direction::Up);
    s.noise_ns = MS / 2;
    bloat(rng, &mut s, 40 * MINUTE, Direction::Up, 200 * MS);
    if frame_ns > 0 {
        grants(&mut s, frame_ns, 0);
    }
    s
}

/// Symbols of 250 µs, and interference that comes back every 30 s.
fn dsl(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = periodic(rng, 30 * S, true);
    s.noise_ns = MS / 4;
    grants(&mut s, MS / 4, 0);
    s
}

/// Frames of 125 µs.
fn fibre(rng: &mut ChaCha8Rng) -> Scenario {
    troubled(rng, MS / 8)
}

/// Outages as long as a cable modem's time-outs.
fn fibre_goes_dead(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = troubled(rng, MS / 8);
    goes_dead(rng, &mut s);
    s
}

/// A passive optical network that gives out its bandwidth once a millisecond.
fn optical_1_ms(rng: &mut ChaCha8Rng) -> Scenario {
    troubled(rng, MS)
}

/// The same once in two, and it goes dead now and then.
fn optical_2_ms(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = troubled(rng, 2 * MS);
    goes_dead(rng, &mut s);
    s
}

/// Upward slots of a mobile network that shares its time between the directions.
fn mobile_slots(rng: &mut ChaCha8Rng) -> Scenario {
    troubled(rng, 5 * MS / 2)
}

/// A dish: frames of 4/3 ms, and another satellite every 15 s.
fn satellite(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = periodic(rng, 15 * S, true);
    s.noise_ns = MS / 2;
    grants(&mut s, 4 * MS / 3, 0);
    s
}

/// The far end looks at what has arrived every 4 ms.
fn far_ticks(rng: &mut ChaCha8Rng) -> Scenario {
    troubled(rng, 4 * MS)
}

/// A scheduling request every 10 ms, and slots of 1 ms in between.
fn mobile(rng: &mut ChaCha8Rng) -> Scenario {
    troubled(rng, 10 * MS)
}

/// Contention, retries, and looks for other networks.
fn radio(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = troubled(rng, 0);
    s.noise_ns = 4 * MS;
    for n in 0..20 {
        s.radio_scan(n * 3 * MINUTE + between(rng, 0, 2 * MINUTE));
    }
    let what = What::Jitter {
        up_ns: 3 * MS,
        down_ns: 3 * MS,
    };
    let span = (0, s.length_ns + 20 * MINUTE);
    s.effect(span, what, anybody, None);
    s
}

/// Every second packet takes 3 ms longer.
fn two_paths(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = troubled(rng, 0);
    s.noise_ns = MS / 10;
    let span = (0, s.length_ns + 20 * MINUTE);
    s.effect(span, What::Detour { up_ns: 3 * MS }, far, None);
    s
}
