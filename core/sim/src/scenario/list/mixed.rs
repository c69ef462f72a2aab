//! Several kinds of trouble within one hour or two.

use bufferbane_core::detect::verdict::Cause;
use bufferbane_core::detect::{Direction, Kind};
use rand_chacha::ChaCha8Rng;

use super::access::{bloat, bursts, jitter_up, loss, micro};
use super::parts::{CLOUDFLARE, DAY, DEAD, HOUR, MINUTE, between, blip, calm, far, home};
use crate::scenario::spec::{Edges, Scenario, What};
use crate::{MS, S};

pub(super) fn loss_and_bloat(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = loss(rng, 0.05, 0.0, Direction::Up);
    s.blame = (Cause::AccessLoss, Some(Direction::Up));
    let at = between(rng, 19 * MINUTE, 21 * MINUTE);
    bloat(rng, &mut s, at, Direction::Up, 200 * MS);
    bloat(rng, &mut s, at + 20 * MINUTE, Direction::Up, 200 * MS);
    s
}

pub(super) fn outages_and_jitter(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = jitter_up(rng);
    s.blame = (Cause::AccessOutages, None);
    micro(rng, &mut s, 32 * MINUTE, 8, true);
    let span = (46 * MINUTE, 46 * MINUTE + between(rng, 20 * S, 60 * S));
    s.cut(Kind::Outage, span, true, false, far);
    s
}

pub(super) fn bad_evening_noise(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    s.blame = (Cause::AccessLoss, Some(Direction::Up));
    bursts(rng, &mut s, (12 * MINUTE, 40 * MINUTE), Direction::Up, far);
    let e = s.expect(Kind::RoutingFault, None, Edges::Answered);
    let from = between(rng, 44 * MINUTE, 46 * MINUTE);
    s.effect(
        (from, from + 90 * S),
        DEAD,
        |f| f.target == CLOUDFLARE,
        Some(e),
    );
    s
}

/// A line that has trouble of nearly all kinds every day, and is probed less often than any is: nothing is expected of
/// what is told.
pub(super) fn year(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    for spec in &mut s.series {
        spec.facts.interval_ns *= 10;
    }
    s.series[1].facts.interval_ns = S;
    s.length_ns = 365 * DAY;
    s.daily_ns = 3 * MS;
    s.evening = Some((100, 200, 16 * MS));
    let loss = What::Loss {
        up: 0.06,
        down: 0.0,
    };
    let jitter = What::Jitter {
        up_ns: 0,
        down_ns: 44 * MS,
    };
    let path = What::Path {
        hops: 2,
        longer_ns: 5 * MS,
    };
    for day in 0..365 {
        let mut at = day * DAY + between(rng, 0, 2 * HOUR);
        for n in 0..3 {
            let to = at + between(rng, 12 * MINUTE, 40 * MINUTE);
            s.effect((at, to), loss, far, None);
            at = to + between(rng, 6 * MINUTE, HOUR);
            s.effect((at, at + between(rng, 4 * S, 90 * S)), DEAD, far, None);
            at += between(rng, 8 * MINUTE, HOUR);
            s.effect(
                (at, at + between(rng, 20 * S, 90 * S)),
                blip(n == 1),
                far,
                None,
            );
            at += between(rng, 8 * MINUTE, HOUR);
        }
        s.effect((at, at + 8 * MINUTE), jitter, far, None);
        at += between(rng, 20 * MINUTE, HOUR);
        s.effect(
            (at, at + 30 * MINUTE),
            path,
            |f| f.target == CLOUDFLARE,
            None,
        );
        at += between(rng, 40 * MINUTE, HOUR);
        for n in 0..25 {
            s.effect(
                (at + n * 60 * S, at + n * 60 * S + 1500 * MS),
                DEAD,
                far,
                None,
            );
        }
        at += HOUR;
        bloat(rng, &mut s, at, Direction::Up, 240 * MS);
    }
    s
}

pub(super) fn everything(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = loss(rng, 0.0, 0.06, Direction::Down);
    s.length_ns = 2 * HOUR;
    s.blame = (Cause::AccessOutages, None);
    micro(rng, &mut s, 40 * MINUTE, 8, true);
    let at = 58 * MINUTE;
    bloat(rng, &mut s, at, Direction::Up, 240 * MS);
    // Whatever else there is, this is worse.
    let span = (66 * MINUTE, 66 * MINUTE + between(rng, 120 * S, 210 * S));
    s.cut(Kind::Outage, span, true, true, far);
    let e = s.expect(Kind::LatencySpike, Some(Direction::Down), Edges::Touched);
    let what = What::Delay {
        up_ns: 0,
        down_ns: 90 * MS,
        wobble_ns: 6 * MS,
    };
    s.effect((80 * MINUTE, 81 * MINUTE), what, far, Some(e));
    let e = s.expect(Kind::HighJitter, Some(Direction::Up), Edges::Touched);
    let what = What::Jitter {
        up_ns: 40 * MS,
        down_ns: 0,
    };
    s.effect((90 * MINUTE, 96 * MINUTE), what, far, Some(e));
    s
}
