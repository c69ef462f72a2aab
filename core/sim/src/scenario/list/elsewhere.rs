//! Trouble that is not of the access line: in the house, at the far end, on the path, of one family.

use bufferbane_core::detect::verdict::Cause;
use bufferbane_core::detect::{Direction, Kind, Role, SeriesFacts};
use rand_chacha::ChaCha8Rng;
use rand_core::Rng;

use super::parts::{
    BERLIN, CLOUDFLARE, DEAD, GATEWAY, GOOGLE, MINUTE, QUAD9, VIENNA, between, calm, far, home,
    reflector, six, spec, two_lines, two_reflectors, while_of,
};
use crate::scenario::spec::{Edges, Scenario, What};
use crate::{MS, S};

pub(super) fn target_dead(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    s.blame = (Cause::FarEnd, None);
    let e = s.expect(Kind::RoutingFault, None, Edges::Answered);
    s.effect(while_of(rng, 5), DEAD, |f| f.target == QUAD9, Some(e));
    s
}

/// One host is dead, and when it is well again another one.
pub(super) fn targets_dead_in_turn(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    s.blame = (Cause::FarEnd, None);
    let (from, to) = (12 * MINUTE, 12 * MINUTE + between(rng, 80 * S, 150 * S));
    let next = to + between(rng, 20 * S, 150 * S);
    let until = next + between(rng, 80 * S, 150 * S);
    let e = s.expect(Kind::RoutingFault, None, Edges::Answered);
    s.effect((from, to), DEAD, |f| f.target == QUAD9, Some(e));
    let e = s.expect(Kind::RoutingFault, None, Edges::Answered);
    s.effect((next, until), DEAD, |f| f.target == GOOGLE, Some(e));
    s
}

/// One reflector is lossy, and when it is well again another one.
pub(super) fn reflectors_lossy_in_turn(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(two_reflectors());
    s.blame = (Cause::FarEnd, Some(Direction::Down));
    let (from, to) = (12 * MINUTE, 12 * MINUTE + between(rng, 150 * S, 200 * S));
    let next = to + between(rng, 60 * S, 150 * S);
    let until = next + between(rng, 150 * S, 200 * S);
    let what = What::Loss {
        up: 0.0,
        down: 0.12,
    };
    let who: [fn(&SeriesFacts) -> bool; 2] = [|f| f.target == VIENNA, |f| f.target == BERLIN];
    for (span, who) in [(from, to), (next, until)].into_iter().zip(who) {
        let e = s.expect(Kind::PacketLoss, Some(Direction::Down), Edges::Touched);
        s.also(Kind::RoutingFault, e);
        s.effect(span, what, who, Some(e));
    }
    s
}

pub(super) fn reflector_lossy(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(two_reflectors());
    s.blame = (Cause::FarEnd, Some(Direction::Down));
    let e = s.expect(Kind::PacketLoss, Some(Direction::Down), Edges::Touched);
    s.also(Kind::RoutingFault, e);
    let what = What::Loss {
        up: 0.0,
        down: 0.08,
    };
    s.effect(while_of(rng, 9), what, |f| f.target == VIENNA, Some(e));
    s
}

/// One far target for a moment: too short for a routing fault, and not the line's all the same.
pub(super) fn target_lossy_short(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(two_reflectors());
    s.blame = (Cause::FarEnd, Some(Direction::Up));
    let e = s.expect(Kind::PacketLoss, Some(Direction::Up), Edges::Touched);
    let what = What::Loss {
        up: 0.25,
        down: 0.0,
    };
    let from = while_of(rng, 9).0;
    s.effect((from, from + 45 * S), what, |f| f.target == VIENNA, Some(e));
    s
}

/// Likewise its delay.
pub(super) fn target_slow_short(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(two_reflectors());
    s.blame = (Cause::FarEnd, Some(Direction::Down));
    let e = s.expect(Kind::LatencySpike, Some(Direction::Down), Edges::Touched);
    let what = What::Delay {
        up_ns: 0,
        down_ns: 120 * MS,
        wobble_ns: 8 * MS,
    };
    let from = while_of(rng, 8).0;
    s.effect((from, from + 40 * S), what, |f| f.target == VIENNA, Some(e));
    s
}

/// A reflector that allows less than is sent says so: nothing of that is the line's.
pub(super) fn reflector_refuses(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(two_reflectors());
    let what = What::Refused { share: 0.25 };
    s.effect(while_of(rng, 9), what, |f| f.target == VIENNA, None);
    s
}

pub(super) fn provider_path(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(two_reflectors());
    s.blame = (Cause::ProviderPath, Some(Direction::Down));
    let e = s.expect(Kind::LatencySpike, Some(Direction::Down), Edges::Touched);
    s.also(Kind::RoutingFault, e);
    let what = What::Delay {
        up_ns: 0,
        down_ns: 120 * MS,
        wobble_ns: 8 * MS,
    };
    let who = |f: &SeriesFacts| f.target == VIENNA || f.target == GOOGLE;
    s.effect(while_of(rng, 8), what, who, Some(e));
    s
}

pub(super) fn wifi_bad(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(two_lines());
    s.blame = (Cause::InHouse, Some(Direction::Both));
    let e = s.expect(Kind::PacketLoss, Some(Direction::Both), Edges::Touched);
    s.also(Kind::InterfaceDiffers, e);
    let what = What::Loss {
        up: 0.06,
        down: 0.06,
    };
    s.effect(while_of(rng, 20), what, |f| f.line == 0, Some(e));
    s
}

pub(super) fn wifi_jitter(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(two_lines());
    for spec in &mut s.series {
        if spec.facts.target == GATEWAY {
            spec.facts.interval_ns = 100 * MS;
        }
    }
    s.blame = (Cause::InHouse, Some(Direction::Both));
    let e = s.expect(Kind::HighJitter, Some(Direction::Both), Edges::Touched);
    s.also(Kind::InterfaceDiffers, e);
    let what = What::Jitter {
        up_ns: 30 * MS,
        down_ns: 30 * MS,
    };
    s.effect(while_of(rng, 15), what, |f| f.line == 0, Some(e));
    s
}

pub(super) fn ipv6_bad(rng: &mut ChaCha8Rng) -> Scenario {
    let mut series = home(0);
    series.push(six(reflector(0, VIENNA, 26 * MS)));
    series.push(six(spec(0, QUAD9, Role::Far, 200 * MS, 15 * MS)));
    let mut s = calm(series);
    s.blame = (Cause::Family, Some(Direction::Up));
    let e = s.expect(Kind::PacketLoss, Some(Direction::Up), Edges::Touched);
    s.also(Kind::FamilyDiffers, e);
    let what = What::Loss {
        up: 0.09,
        down: 0.0,
    };
    s.effect(while_of(rng, 10), what, |f| f.family == 6, Some(e));
    s
}

/// What is well known over IPv6: a reflector that IPv4 reaches, too, and hosts that have no twin.
fn six_of_few_probes() -> Scenario {
    let mut series = home(0);
    series.push(six(reflector(0, VIENNA, 26 * MS)));
    for target in [QUAD9, CLOUDFLARE] {
        series.push(six(spec(0, 10 + target, Role::Far, S, 15 * MS)));
    }
    calm(series)
}

/// The reflector tells within seconds that IPv6 loses, and that it is well again; the others minutes later.
pub(super) fn ipv6_bad_for_slow_series(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = six_of_few_probes();
    s.blame = (Cause::Family, Some(Direction::Up));
    let e = s.expect(Kind::PacketLoss, Some(Direction::Up), Edges::Touched);
    s.also(Kind::FamilyDiffers, e);
    let what = What::Loss {
        up: f64::from(10 + rng.next_u32() % 20) / 100.0,
        down: 0.0,
    };
    s.effect(while_of(rng, 5), what, |f| f.family == 6, Some(e));
    s
}

/// Nothing comes back over IPv6, and then all does again, one after the other.
pub(super) fn ipv6_dead(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = six_of_few_probes();
    s.blame = (Cause::Family, None);
    let e = s.expect(Kind::FamilyDiffers, None, Edges::Answered);
    s.effect(while_of(rng, 3), DEAD, |f| f.family == 6, Some(e));
    s
}

pub(super) fn mtu_hole(rng: &mut ChaCha8Rng) -> Scenario {
    let mut series = home(0);
    let mut large = reflector(0, VIENNA, 24 * MS);
    large.facts.size = 1400;
    series.push(large);
    let mut s = calm(series);
    s.blame = (Cause::Mtu, None);
    let e = s.expect(Kind::MtuBlackHole, None, Edges::Answered);
    let what = What::Cut {
        up: true,
        down: false,
        unsent: false,
    };
    s.effect(while_of(rng, 6), what, |f| f.size == 1400, Some(e));
    s
}

/// The same of a reflector whose probes have all sizes in turn.
pub(super) fn mtu_hole_of_mixed(rng: &mut ChaCha8Rng) -> Scenario {
    let mut series = home(0);
    series[1].facts.size = 0;
    series[1].sizes = &[128, 512, 1400];
    let mut s = calm(series);
    s.blame = (Cause::Mtu, Some(Direction::Up));
    let e = s.expect(Kind::PacketLoss, Some(Direction::Up), Edges::Touched);
    s.also(Kind::MtuBlackHole, e);
    let span = while_of(rng, 6);
    s.effect(span, What::Hole(1400), |f| f.target == VIENNA, Some(e));
    s
}

/// All that is beyond the provider is reached by another way at once; and one way flaps for some minutes.
pub(super) fn route_changes_of_all(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    s.blame = (Cause::Nothing, None);
    let (from, to) = while_of(rng, 8);
    let what = What::Path {
        hops: 2,
        longer_ns: 5 * MS,
    };
    for at in [from, to] {
        let e = s.expect(Kind::RouteChange, Some(Direction::Down), Edges::Given);
        // Who is probed once a second sees it within one.
        s.expected[e].bounds_ns = Some((at, at + S));
    }
    s.effect((from, to), what, far, None);
    let e = s.expect(Kind::RouteChange, Some(Direction::Down), Edges::Given);
    let mut at = to + between(rng, 8 * MINUTE, 9 * MINUTE);
    let first = at;
    for _ in 0..10 {
        let until = at + between(rng, 8 * S, 15 * S);
        s.effect((at, until), what, |f| f.target == VIENNA, None);
        s.expected[e].bounds_ns = Some((first, until));
        at = until + between(rng, 8 * S, 15 * S);
    }
    s
}

pub(super) fn route_changes(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    // A change of path is no fault.
    s.blame = (Cause::Nothing, None);
    let (from, to) = while_of(rng, 20);
    for at in [from, to] {
        let e = s.expect(Kind::RouteChange, Some(Direction::Down), Edges::Given);
        s.expected[e].bounds_ns = Some((at, at));
    }
    let what = What::Path {
        hops: 3,
        longer_ns: 70 * MS,
    };
    s.effect((from, to), what, |f| f.target == VIENNA, None);
    s
}
