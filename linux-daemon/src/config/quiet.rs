//! Quiet hours: times of the day at which no throughput test runs by itself.

use jiff::Timestamp;
use jiff::tz::TimeZone;

const DAY_MINUTES: u16 = 24 * 60;
const MINUTE_NS: i64 = 60_000_000_000;

/// From one time of the day to another, or over midnight.
///
/// What counts is what a clock on the wall shows: where the clocks are put back, quiet hours that hold
/// the repeated hour hold it twice, and where they are put forward, what is skipped is not missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuietHours {
    /// Minutes since midnight.
    from: u16,
    /// The first that is not quiet any more.
    to: u16,
}

impl QuietHours {
    /// Reads `23:00-07:00`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!("\"{text}\" is no time of the day: {why}; write for example \"23:00-07:00\"")
        };
        let (from, to) = text
            .split_once('-')
            .ok_or_else(|| wrong("begin and end are to be named"))?;
        let minutes = |part: &str| {
            let (hours, minutes) = part.trim().split_once(':')?;
            let number = |digits: &str| {
                let plain = digits.len() <= 2 && digits.bytes().all(|b| b.is_ascii_digit());
                digits.parse::<u16>().ok().filter(|_| plain)
            };
            let (hours, minutes) = (number(hours)?, number(minutes)?);
            let all = hours * 60 + minutes;
            (minutes < 60 && all <= DAY_MINUTES).then_some(all % DAY_MINUTES)
        };
        let of = |part: &str| minutes(part).ok_or_else(|| wrong("00:00 to 24:00 is allowed"));
        let (from, to) = (of(from)?, of(to)?);
        if from == to {
            return Err(wrong("it begins as it ends"));
        }
        Ok(Self { from, to })
    }

    const fn holds(self, minute: u16) -> bool {
        if self.from < self.to {
            self.from <= minute && minute < self.to
        } else {
            self.from <= minute || minute < self.to
        }
    }
}

/// Whether any of these hours hold a part of the time from `wall_ns` (ns since 1970) on that lasts
/// `length_ns`, in this zone.
#[must_use]
pub fn is_quiet(hours: &[QuietHours], zone: &TimeZone, wall_ns: i64, length_ns: i64) -> bool {
    // Quiet hours begin and end with minutes, so none lies between two looks.
    let end_ns = wall_ns.saturating_add(length_ns);
    let looks = (0..)
        .map(|n| wall_ns.saturating_add(n * MINUTE_NS))
        .take_while(|at| *at < end_ns)
        .chain([end_ns]);
    looks
        .filter_map(|at| Timestamp::from_nanosecond(at.into()).ok())
        .any(|at| {
            let shown = zone.to_datetime(at);
            let minute =
                shown.hour().unsigned_abs() as u16 * 60 + shown.minute().unsigned_abs() as u16;
            hours.iter().any(|h| h.holds(minute))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        let at: Timestamp = text.parse().unwrap();
        i64::try_from(at.as_nanosecond()).unwrap()
    }

    fn quiet(hours: &str, zone: &str, from: &str, length_s: i64) -> bool {
        let hours = [QuietHours::parse(hours).unwrap()];
        let zone = TimeZone::get(zone).unwrap();
        is_quiet(&hours, &zone, at(from), length_s * 1_000_000_000)
    }

    #[test]
    fn what_is_no_time_of_the_day_is_refused() {
        for good in ["23:00-07:00", "9:05 - 9:06", "12:00-24:00"] {
            assert!(QuietHours::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "23:00",
            "23-07",
            "25:00-07:00",
            "23:60-07:00",
            "+1:00-2:00",
            "24:01-2:00",
            "7:00-7:00",
            "00:00-24:00",
        ] {
            let why = QuietHours::parse(bad).unwrap_err();
            assert!(why.contains("23:00-07:00"), "{why}");
        }
    }

    #[test]
    fn hours_over_midnight_are_those_of_the_configured_zone() {
        // 22:30 and 23:30 in Vienna in summer.
        assert!(!quiet(
            "23:00-07:00",
            "Europe/Vienna",
            "2026-07-01T20:30:00Z",
            60
        ));
        assert!(quiet(
            "23:00-07:00",
            "Europe/Vienna",
            "2026-07-01T21:30:00Z",
            60
        ));
        assert!(!quiet("23:00-07:00", "UTC", "2026-07-01T21:30:00Z", 60));
        assert!(quiet("23:00-07:00", "UTC", "2026-07-02T06:59:59Z", 0));
        assert!(!quiet("23:00-07:00", "UTC", "2026-07-02T07:00:00Z", 0));
    }

    #[test]
    fn what_would_run_into_them_is_held_too() {
        assert!(!quiet("23:00-07:00", "UTC", "2026-07-01T22:58:59Z", 60));
        assert!(quiet("23:00-07:00", "UTC", "2026-07-01T22:58:59Z", 61));
        // However short they are.
        assert!(quiet("12:00-12:01", "UTC", "2026-07-01T11:59:30Z", 600));
    }

    #[test]
    fn clocks_that_are_put_forward_or_back_miss_no_quiet_hour() {
        let vienna = |hours: &str, from: &str| quiet(hours, "Europe/Vienna", from, 0);
        // 29 March 2026, 01:00 UTC: 02:00 becomes 03:00, which is in half past two to five.
        assert!(!vienna("02:30-05:00", "2026-03-29T00:59:59Z"));
        assert!(vienna("02:30-05:00", "2026-03-29T01:00:00Z"));
        assert!(!vienna("02:30-05:00", "2026-03-29T03:00:00Z"));
        // Hours that are skipped altogether.
        assert!(!vienna("02:15-02:45", "2026-03-29T01:00:00Z"));
        // 25 October 2026, 01:00 UTC: 03:00 becomes 02:00, so half past two comes twice.
        for (time, is) in [
            ("00:29:00", false),
            ("00:30:00", true),
            ("00:59:59", true),
            ("01:00:00", false),
            ("01:30:00", true),
            ("02:00:00", false),
        ] {
            let from = format!("2026-10-25T{time}Z");
            assert_eq!(vienna("02:30-03:00", &from), is, "{time}");
        }
    }
}
