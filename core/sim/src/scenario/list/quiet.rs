//! Lines that have no trouble: nothing may be told of them.

use bufferbane_core::detect::{Load, Role};
use rand_chacha::ChaCha8Rng;

use super::parts::{
    BERLIN, DEAD, HOUR, MINUTE, QUAD9, between, blip, calm, far, home, pings, six, spec,
};
use crate::scenario::spec::{Scenario, What};
use crate::{MS, S};

pub(super) fn quiet_cable(_: &mut ChaCha8Rng) -> Scenario {
    Scenario {
        length_ns: 3 * HOUR,
        noise_ns: 3 * MS,
        ..calm(home(0))
    }
}

pub(super) fn quiet_wifi(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    s.length_ns = 3 * HOUR;
    s.noise_ns = 4 * MS;
    s.background_loss = 0.001;
    for n in 0..60 {
        s.radio_scan(n * 3 * MINUTE + between(rng, 0, 2 * MINUTE));
    }
    s
}

/// Delay stands high for moments, as often as at a period, but whenever it likes.
pub(super) fn quiet_blips(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    s.length_ns = 3 * HOUR;
    let mut at = 2 * MINUTE;
    while at < s.length_ns {
        s.effect((at, at + 300 * MS), blip(true), far, None);
        at += between(rng, 2 * S, 24 * S);
    }
    s
}

pub(super) fn quiet_slight_loss(_: &mut ChaCha8Rng) -> Scenario {
    Scenario {
        length_ns: 3 * HOUR,
        background_loss: 0.004,
        ..calm(home(0))
    }
}

pub(super) fn quiet_daily(_: &mut ChaCha8Rng) -> Scenario {
    let mut series = home(0);
    for s in &mut series {
        s.facts.interval_ns = S;
    }
    Scenario {
        length_ns: 5 * 24 * HOUR,
        daily_ns: 4 * MS,
        ..calm(series)
    }
}

pub(super) fn quiet_household(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    s.length_ns = 3 * HOUR;
    let mut at = 2 * MINUTE;
    while at < s.length_ns - MINUTE {
        let to = at + between(rng, S, 20 * S);
        let load = Load {
            up_bps: between(rng, 6_000_000, 9_500_000),
            down_bps: between(rng, 1_000_000, 90_000_000),
        };
        s.household((at, to), load);
        at = to + between(rng, 5 * S, 2 * MINUTE);
    }
    s
}

/// Thirty days of an ordinary home: the hour of the day shows, a little is lost, the radio scans, the
/// household uses the line behind a good queue manager, and a test of our own runs every hour.
pub(super) fn quiet_month(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    s.length_ns = 30 * 24 * HOUR;
    s.daily_ns = 3 * MS;
    s.noise_ns = 3 * MS;
    s.background_loss = 0.0005;
    let mut at = 10 * MINUTE;
    while at < s.length_ns - HOUR {
        // Much less is going on at night.
        let night = at / HOUR % 24 < 7;
        let to = at + between(rng, S, 60 * S);
        let load = Load {
            up_bps: between(rng, 3_000_000, 9_500_000),
            down_bps: between(rng, 1_000_000, 90_000_000),
        };
        s.household((at, to), load);
        let pause = if night { HOUR } else { 10 * MINUTE };
        at = to + between(rng, 5 * S, pause);
    }
    for hour in 1..30 * 24 {
        s.own_test(hour * HOUR + between(rng, 0, 30 * MINUTE), 0.05);
        for _ in 0..6 {
            s.radio_scan(hour * HOUR + between(rng, 0, HOUR));
        }
    }
    s
}

pub(super) fn quiet_pings_only(_: &mut ChaCha8Rng) -> Scenario {
    Scenario {
        length_ns: 6 * HOUR,
        background_loss: 0.001,
        sees_household: vec![false],
        ..calm(pings())
    }
}

pub(super) fn quiet_own_tests(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    s.length_ns = 3 * HOUR;
    for n in 1..17 {
        let (from, to) = s.own_test(n * 10 * MINUTE + between(rng, 0, MINUTE), 0.1);
        let load = Load {
            up_bps: 10_000_000,
            down_bps: 0,
        };
        s.loads.push((0, from, to, load));
    }
    s
}

pub(super) fn quiet_no_ipv6(_: &mut ChaCha8Rng) -> Scenario {
    let mut series = home(0);
    series.push(six(spec(0, QUAD9, Role::Far, S, 14 * MS)));
    // A host that answers nobody.
    series.push(spec(0, BERLIN, Role::Far, S, 20 * MS));
    let mut s = calm(series);
    let all = (0, s.length_ns + HOUR);
    let unsent = What::Cut {
        up: true,
        down: true,
        unsent: true,
    };
    s.effect(all, unsent, |f| f.family == 6, None);
    s.effect(all, DEAD, |f| f.target == BERLIN, None);
    s
}
