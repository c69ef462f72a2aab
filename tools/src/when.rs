//! Times and ranges of time as people type and read them.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp, Zoned};

use crate::args::Selection;
use crate::fail::Fail;

/// What the last day is, ns.
const DAY_NS: i64 = 86_400_000_000_000;

/// A stretch of wall time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// Begin, ns since 1970.
    pub(crate) from_ns: i64,
    /// End, exclusive.
    pub(crate) to_ns: i64,
    /// Whether the begin was typed as a time, and so is meant exactly.
    pub(crate) begin_typed: bool,
}

/// The zone times are read and shown in.
pub(crate) fn zone(utc: bool) -> TimeZone {
    if utc {
        TimeZone::UTC
    } else {
        TimeZone::system()
    }
}

/// Now, ns since 1970.
pub(crate) fn now_ns() -> i64 {
    bufferbane_linux_io::clock::wall_now()
}

/// A time as a time stamp; beyond the calendar it is the calendar's end.
pub(crate) fn timestamp(ns: i64) -> Timestamp {
    // 64 bits of nanoseconds end in 2262, far within the calendar.
    Timestamp::from_nanosecond(i128::from(ns)).unwrap_or(Timestamp::MAX)
}

/// A time in its zone.
pub(crate) fn zoned(ns: i64, zone: &TimeZone) -> Zoned {
    timestamp(ns).to_zoned(zone.clone())
}

/// RFC 3339 with nanoseconds, in UTC.
pub(crate) fn rfc3339(ns: i64) -> String {
    format!("{:.9}", timestamp(ns))
}

/// The zone's name and its offset at `ns`: `Europe/Vienna (UTC+02:00)`.
pub(crate) fn zone_label(ns: i64, zone: &TimeZone) -> String {
    let offset = zoned(ns, zone).strftime("UTC%:z").to_string();
    match zone.iana_name() {
        Some("UTC" | "Etc/UTC" | "Etc/Unknown") => "UTC".into(),
        Some(name) => format!("{name} ({offset})"),
        None if offset == "UTC+00:00" => "UTC".into(),
        None => offset,
    }
}

/// `2026-05-01 18:00:00` in `zone`.
pub(crate) fn civil(ns: i64, zone: &TimeZone) -> String {
    zoned(ns, zone).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// Both ends of a range and the zone, the date only once where it is the same.
pub(crate) fn range_label(from_ns: i64, to_ns: i64, zone: &TimeZone) -> String {
    let (from, to) = (zoned(from_ns, zone), zoned(to_ns, zone));
    let end = if from.date() == to.date() {
        to.strftime("%H:%M:%S").to_string()
    } else {
        to.strftime("%Y-%m-%d %H:%M:%S").to_string()
    };
    format!(
        "{} to {end} {}",
        from.strftime("%Y-%m-%d %H:%M:%S"),
        zone_label(to_ns, zone)
    )
}

/// A duration, ns.
pub(crate) fn duration(text: &str) -> Result<i64, String> {
    bufferbane_config::parse_duration(text).and_then(|ns| {
        i64::try_from(ns).map_err(|_| format!("\"{text}\" is too long; 106751d is the most"))
    })
}

/// What `text` means at `now_ns`, ns since 1970.
pub(crate) fn instant(text: &str, zone: &TimeZone, now_ns: i64) -> Result<i64, String> {
    let text = text.trim();
    let wrong = || {
        format!(
            "\"{text}\" is not a time; write for example 2026-05-01, \"2026-05-01 18:00\", \
             2026-05-01T18:00:00Z, -2h, today or yesterday"
        )
    };
    let now = zoned(now_ns, zone);
    if let Some(ago) = text.strip_prefix('-') {
        return Ok(now_ns.saturating_sub(duration(ago).map_err(|_| wrong())?));
    }
    let civil = match text {
        "now" => return Ok(now_ns),
        "today" => now.date().to_datetime(Time::midnight()),
        "yesterday" => (now.date() - Span::new().days(1)).to_datetime(Time::midnight()),
        _ => {
            // With an offset or a Z it is a time stamp, without one a time in the zone.
            if let Ok(t) = text.parse::<Timestamp>() {
                return in_range(t).ok_or_else(wrong);
            }
            if let Ok(date) = text.parse::<Date>()
                && text.len() <= "2026-05-01".len()
            {
                date.to_datetime(Time::midnight())
            } else if let Ok(at) = text.parse::<DateTime>() {
                at
            } else if let Ok(time) = text.parse::<Time>() {
                now.date().to_datetime(time)
            } else {
                return Err(wrong());
            }
        }
    };
    let zoned = civil.to_zoned(zone.clone()).map_err(|_| wrong())?;
    in_range(zoned.timestamp()).ok_or_else(wrong)
}

fn in_range(t: Timestamp) -> Option<i64> {
    i64::try_from(t.as_nanosecond()).ok()
}

impl Selection {
    /// The range that was asked for; `None` where none was.
    pub(crate) fn range(&self, now_ns: i64) -> Result<Option<Range>, Fail> {
        let zone = zone(self.utc);
        let read = |option: &str, text: &Option<String>| {
            text.as_ref()
                .map(|t| {
                    instant(t, &zone, now_ns).map_err(|e| Fail::Usage(format!("{option}: {e}")))
                })
                .transpose()
        };
        let (from, to) = (read("--from", &self.from)?, read("--to", &self.to)?);
        let to_ns = to.unwrap_or(now_ns);
        let range = match (&self.last, from) {
            (Some(_), Some(_)) => {
                return Err(Fail::Usage(
                    "--last and --from are two ways to say the same; give one of them".into(),
                ));
            }
            (Some(last), None) => {
                let last = duration(last).map_err(|e| Fail::Usage(format!("--last: {e}")))?;
                Range {
                    from_ns: to_ns.saturating_sub(last),
                    to_ns,
                    begin_typed: false,
                }
            }
            (None, Some(from_ns)) => Range {
                from_ns,
                to_ns,
                begin_typed: true,
            },
            (None, None) if to.is_some() => Range {
                from_ns: to_ns.saturating_sub(DAY_NS),
                to_ns,
                begin_typed: false,
            },
            (None, None) => return Ok(None),
        };
        if range.from_ns >= range.to_ns {
            return Err(Fail::Usage(format!(
                "the range ends ({}) no later than it begins ({})",
                civil(range.to_ns, &zone),
                civil(range.from_ns, &zone)
            )));
        }
        Ok(Some(range))
    }

    /// The range that was asked for, or the last day; it does not begin before the record does
    /// unless its begin was typed.
    pub(crate) fn range_or_day(&self, now_ns: i64, recorded: (i64, i64)) -> Result<Range, Fail> {
        let mut range = self.range(now_ns)?.unwrap_or(Range {
            from_ns: now_ns.saturating_sub(DAY_NS),
            to_ns: now_ns,
            begin_typed: false,
        });
        if !range.begin_typed && recorded.0 < range.to_ns {
            range.from_ns = range.from_ns.max(recorded.0);
        }
        Ok(range)
    }
}

/// The civil times in `[from, to]` that are whole multiples of `step` seconds after midnight (or
/// whole days, months where `step` says so), ns since 1970.
pub(crate) fn ticks(from_ns: i64, to_ns: i64, step: Step, zone: &TimeZone) -> Vec<i64> {
    let (from, to) = (zoned(from_ns, zone), zoned(to_ns, zone));
    let mut ticks = Vec::new();
    let mut put = |at: DateTime| {
        if let Ok(z) = at.to_zoned(zone.clone())
            && let Some(ns) = in_range(z.timestamp())
            && (from_ns..=to_ns).contains(&ns)
            // Where clocks are put forward two civil times are one.
            && ticks.last() != Some(&ns)
        {
            ticks.push(ns);
        }
    };
    match step {
        Step::Months(months) => {
            let mut at = from.date().first_of_month();
            while at <= to.date() {
                if (i32::from(at.month()) - 1) % months == 0 {
                    put(at.to_datetime(Time::midnight()));
                }
                at = at.saturating_add(Span::new().months(1));
            }
        }
        Step::Days(days) => {
            let mut at = from.date();
            while at <= to.date() {
                // Multi-day steps begin at the first of a month, so that zooming keeps them.
                if days == 1 || ((i32::from(at.day()) - 1) % days == 0 && at.day() < 31) {
                    put(at.to_datetime(Time::midnight()));
                }
                at = at.saturating_add(Span::new().days(1));
            }
        }
        Step::Millis(millis) => {
            let mut day = from.date();
            while day <= to.date() {
                let midnight = day.to_datetime(Time::midnight());
                // Skip at once to where the range begins.
                let first = if day == from.date() {
                    from.datetime().duration_since(midnight).as_millis() as i64 / millis
                } else {
                    0
                };
                let mut k = first;
                while k * millis < 86_400_000 {
                    let at = midnight.saturating_add(SignedDuration::from_millis(k * millis));
                    if at > to.datetime() {
                        break;
                    }
                    put(at);
                    k += 1;
                }
                day = day.saturating_add(Span::new().days(1));
            }
        }
    }
    ticks
}

/// How far marks on a time axis are apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Less than a day, ms.
    Millis(i64),
    /// Days.
    Days(i32),
    /// Months.
    Months(i32),
}

impl Step {
    /// All there are, from the finest.
    pub(crate) const ALL: [Self; 27] = {
        const S: i64 = 1000;
        const M: i64 = 60 * S;
        const H: i64 = 60 * M;
        [
            Self::Millis(10),
            Self::Millis(50),
            Self::Millis(100),
            Self::Millis(500),
            Self::Millis(S),
            Self::Millis(2 * S),
            Self::Millis(5 * S),
            Self::Millis(10 * S),
            Self::Millis(15 * S),
            Self::Millis(30 * S),
            Self::Millis(M),
            Self::Millis(2 * M),
            Self::Millis(5 * M),
            Self::Millis(10 * M),
            Self::Millis(15 * M),
            Self::Millis(30 * M),
            Self::Millis(H),
            Self::Millis(2 * H),
            Self::Millis(3 * H),
            Self::Millis(6 * H),
            Self::Millis(12 * H),
            Self::Days(1),
            Self::Days(2),
            Self::Days(5),
            Self::Days(10),
            Self::Months(1),
            Self::Months(3),
        ]
    };

    /// How long it is, about, ns.
    pub(crate) const fn about_ns(self) -> f64 {
        match self {
            Self::Millis(ms) => ms as f64 * 1e6,
            Self::Days(d) => d as f64 * DAY_NS as f64,
            Self::Months(m) => m as f64 * 30.4 * DAY_NS as f64,
        }
    }

    /// How a mark is written.
    pub(crate) fn label(self, ns: i64, zone: &TimeZone) -> String {
        let at = zoned(ns, zone);
        let midnight = at.time() == Time::midnight();
        let format = match self {
            Self::Millis(ms) if ms < 1000 => "%H:%M:%S%.2f",
            Self::Millis(_) if midnight => "%-d %b",
            Self::Millis(ms) if ms < 60_000 => "%H:%M:%S",
            Self::Millis(_) => "%H:%M",
            Self::Days(_) => "%-d %b",
            Self::Months(_) => "%b %Y",
        };
        at.strftime(format).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_777_658_400_000_000_000; // 2026-05-01 18:00:00 UTC
    const H: i64 = 3_600_000_000_000;

    fn vienna() -> TimeZone {
        TimeZone::get("Europe/Vienna").unwrap()
    }

    #[test]
    fn people_write_these_times() {
        let z = vienna();
        let at = |t: &str| instant(t, &z, NOW).map(rfc3339);
        for (text, meant) in [
            ("2026-05-01", "2026-04-30T22:00:00.000000000Z"),
            ("2026-05-01 18:00", "2026-05-01T16:00:00.000000000Z"),
            ("2026-05-01 18:00:30.5", "2026-05-01T16:00:30.500000000Z"),
            ("2026-05-01T18:00:00Z", "2026-05-01T18:00:00.000000000Z"),
            (
                "2026-05-01T18:00:00-05:00",
                "2026-05-01T23:00:00.000000000Z",
            ),
            ("-2h", "2026-05-01T16:00:00.000000000Z"),
            ("now", "2026-05-01T18:00:00.000000000Z"),
            ("today", "2026-04-30T22:00:00.000000000Z"),
            ("yesterday", "2026-04-29T22:00:00.000000000Z"),
            ("07:30", "2026-05-01T05:30:00.000000000Z"),
        ] {
            assert_eq!(at(text).as_deref(), Ok(meant), "{text}");
        }
        for wrong in ["", "soon", "-2", "2026-13-01", "--2h", "9999-01-01"] {
            assert!(at(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn ranges_follow_the_options() {
        let s = |last: Option<&str>, from: Option<&str>, to: Option<&str>| {
            Selection {
                last: last.map(Into::into),
                from: from.map(Into::into),
                to: to.map(Into::into),
                utc: true,
                ..Selection::default()
            }
            .range(NOW)
        };
        assert_eq!(s(None, None, None).unwrap(), None);
        let last = s(Some("1h"), None, None).unwrap().unwrap();
        assert_eq!((last.from_ns, last.to_ns), (NOW - H, NOW));
        let both = s(None, Some("-3h"), Some("-1h")).unwrap().unwrap();
        assert_eq!((both.from_ns, both.to_ns), (NOW - 3 * H, NOW - H));
        let earlier = s(Some("1h"), None, Some("-5h")).unwrap().unwrap();
        assert_eq!((earlier.from_ns, earlier.to_ns), (NOW - 6 * H, NOW - 5 * H));
        for (last, from, to) in [
            (Some("1h"), Some("-2h"), None),
            (None, Some("-1h"), Some("-2h")),
            (Some("soon"), None, None),
        ] {
            assert_eq!(s(last, from, to).unwrap_err().code(), 2);
        }
    }

    #[test]
    fn ticks_are_civil_times_over_a_change_of_clocks() {
        // Clocks go forward at 02:00 on 2026-03-29 in Vienna.
        let z = vienna();
        let from = instant("2026-03-28 20:00", &z, NOW).unwrap();
        let to = instant("2026-03-29 13:00", &z, NOW).unwrap();
        let step = Step::Millis(6 * 3_600_000);
        let labels: Vec<String> = ticks(from, to, step, &z)
            .into_iter()
            .map(|t| step.label(t, &z))
            .collect();
        assert_eq!(labels, ["29 Mar", "06:00", "12:00"]);
        let hourly = ticks(from, to, Step::Millis(3_600_000), &z);
        assert!(hourly.windows(2).all(|w| w[0] < w[1]));
        assert_eq!(hourly.len(), 17);
    }

    #[test]
    fn zones_are_named() {
        assert_eq!(zone_label(NOW, &TimeZone::UTC), "UTC");
        assert_eq!(zone_label(NOW, &vienna()), "Europe/Vienna (UTC+02:00)");
        assert_eq!(
            range_label(NOW - H, NOW, &vienna()),
            "2026-05-01 19:00:00 to 20:00:00 Europe/Vienna (UTC+02:00)"
        );
    }
}
