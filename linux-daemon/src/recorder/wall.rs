//! The wall clock: whether it can be believed, and what it shows where the line is.

use bufferbane_core::time::Monotonic;
use bufferbane_linux_io::clock;
use bufferbane_store::Trust;
use jiff::tz::TimeZone;

use super::SECOND_NS;

/// An unset clock shows a time before this, ns since 1970: 2026-01-01.
const PLAUSIBLE_FROM_NS: i64 = 1_767_225_600 * SECOND_NS as i64;

/// From monotonic time to local time, ns, where the clock can be believed.
pub(super) fn local_offset_ns(now: Monotonic, trust: Trust, zone: &TimeZone) -> Option<i64> {
    if trust == Trust::None {
        return None;
    }
    let local_ns = local_ns(clock::wall_now(), zone)?;
    local_ns.checked_sub(i64::try_from(now.as_nanos()).ok()?)
}

/// What clocks of a zone show at `wall_ns` since 1970, ns since then.
pub(super) fn local_ns(wall_ns: i64, zone: &TimeZone) -> Option<i64> {
    let at = jiff::Timestamp::from_nanosecond(wall_ns.into()).ok()?;
    let zone_s = zone.to_offset(at).seconds();
    wall_ns.checked_add(i64::from(zone_s) * SECOND_NS as i64)
}

/// How far the wall clock can be believed just now.
pub(crate) fn trust() -> Trust {
    if clock::wall_now() < PLAUSIBLE_FROM_NS {
        Trust::None
    } else if clock::is_disciplined() {
        Trust::Disciplined
    } else {
        Trust::Plausible
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configured_zone_decides_the_local_time() {
        let now = clock::now();
        let zone = |name| TimeZone::get(name).unwrap();
        let local_ns = |name| local_offset_ns(now, Trust::Plausible, &zone(name)).unwrap();
        let hours = (local_ns("Asia/Tokyo") - local_ns("UTC")) as f64 / 3.6e12;
        assert!((hours - 9.0).abs() < 0.01, "{hours}");
        assert_eq!(local_offset_ns(now, Trust::None, &TimeZone::UTC), None);
    }

    #[test]
    fn local_time_follows_summer_time_both_ways() {
        const HOUR_NS: i64 = 3_600 * SECOND_NS as i64;
        let vienna = TimeZone::get("Europe/Vienna").unwrap();
        // 2026-03-29 and 2026-10-25, 01:00 UTC.
        for (changes_s, before_h, after_h) in [(1_774_746_000, 1, 2), (1_792_890_000, 2, 1)] {
            let changes_ns = changes_s * SECOND_NS as i64;
            let ahead_h = |at_ns| (local_ns(at_ns, &vienna).unwrap() - at_ns) / HOUR_NS;
            assert_eq!(ahead_h(changes_ns - 1), before_h);
            assert_eq!(ahead_h(changes_ns), after_h);
        }
    }
}
