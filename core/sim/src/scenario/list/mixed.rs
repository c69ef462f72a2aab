//! Several kinds of trouble within one hour or two.

use bufferbane_core::detect::verdict::Cause;
use bufferbane_core::detect::{Direction, Kind};
use rand_chacha::ChaCha8Rng;

use super::access::{bloat, bursts, jitter_up, loss, micro};
use super::parts::{CLOUDFLARE, DEAD, HOUR, MINUTE, between, calm, far, home};
use crate::scenario::spec::{Edges, Scenario, What};
use crate::{MS, S};

pub(super) fn loss_and_bloat(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = loss(rng, 0.05, 0.0, Direction::Up);
    s.cause = Cause::AccessLoss;
    let at = between(rng, 19 * MINUTE, 21 * MINUTE);
    bloat(rng, &mut s, at, Direction::Up, 200 * MS);
    bloat(rng, &mut s, at + 20 * MINUTE, Direction::Up, 200 * MS);
    s
}

pub(super) fn outages_and_jitter(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = jitter_up(rng);
    s.cause = Cause::AccessOutages;
    micro(rng, &mut s, 32 * MINUTE, 8, true);
    let span = (46 * MINUTE, 46 * MINUTE + between(rng, 20 * S, 60 * S));
    s.cut(Kind::Outage, span, true, false, far);
    s
}

pub(super) fn bad_evening_noise(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    s.cause = Cause::AccessLoss;
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

pub(super) fn everything(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = loss(rng, 0.0, 0.06, Direction::Down);
    s.length_ns = 2 * HOUR;
    s.cause = Cause::AccessOutages;
    micro(rng, &mut s, 40 * MINUTE, 8, true);
    let at = 58 * MINUTE;
    bloat(rng, &mut s, at, Direction::Up, 240 * MS);
    let span = (66 * MINUTE, 66 * MINUTE + between(rng, 60 * S, 150 * S));
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
