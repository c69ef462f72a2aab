//! `[alerts]`: from where on the line is in trouble.

use bufferbane_config::Section;
use bufferbane_core::detect::Thresholds;

const MS: u64 = 1_000_000;
const S: u64 = 1000 * MS;
const HOUR: u64 = 3600 * S;
/// Windows of a share: the detectors look at no shorter one, and too few probes are sent in one to tell more.
const WINDOW_NS: std::ops::RangeInclusive<u64> = 10 * S..=600 * S;

/// Reads the thresholds of the section; the others are those that hold where nothing is written.
pub(super) fn read(s: &Section<'_>) -> Thresholds {
    let mut t = Thresholds::default();
    read_delay(s, &mut t);
    read_loss(s, &mut t);
    read_capacity(s, &mut t);
    if let Some(ns) = s.duration_ns("differs_for", 10 * S..=HOUR) {
        t.differ_for_ns = ns;
    }
    if let Some(days) = s.number("peak_hour_congestion", 2..=7) {
        t.peak_days = days as u8;
    }
    if let Some(hours) = s.parsed("peak_hours", peak_hours) {
        t.peak_hours = hours;
    }
    if let Some(ns) = s.duration_ns("hold_down", 0..=24 * HOUR) {
        t.hold_down_ns = ns;
    }
    t
}

/// A threshold and the critical one beside it, which moves together with it where it is not written.
struct Pair<T> {
    key: &'static str,
    critical_key: &'static str,
    /// Neither is written.
    default: (T, T),
}

impl<T: Copy + PartialOrd> Pair<T> {
    /// Both, as `get` reads them; `scaled` gives the critical one from `(critical, default, new)`. `is_worse`: whether the
    /// first of two is at least as bad as the second.
    fn read(
        &self,
        s: &Section<'_>,
        get: impl Fn(&Section<'_>, &'static str) -> Option<T>,
        scaled: impl Fn(T, T, T) -> T,
        is_worse: impl Fn(T, T) -> bool,
    ) -> (T, T) {
        let (default, default_critical) = self.default;
        let at = get(s, self.key).unwrap_or(default);
        let critical = get(s, self.critical_key);
        if critical.is_some_and(|c| !is_worse(c, at)) {
            s.mistake(
                self.critical_key,
                format!("is told before {} itself", self.key),
            );
        }
        let critical = critical.unwrap_or_else(|| scaled(default_critical, default, at));
        (at, critical)
    }

    /// Of which more is worse.
    fn more(
        &self,
        s: &Section<'_>,
        get: impl Fn(&Section<'_>, &'static str) -> Option<T>,
        scaled: impl Fn(T, T, T) -> T,
    ) -> (T, T) {
        self.read(s, get, scaled, |critical, at| critical >= at)
    }
}

fn scaled_ns(critical: u64, default: u64, ns: u64) -> u64 {
    u64::try_from(u128::from(critical) * u128::from(ns) / u128::from(default)).unwrap_or(critical)
}

fn read_delay(s: &Section<'_>, t: &mut Thresholds) {
    if let Some(ns) = s.duration_ns("latency_spike", MS..=10 * S) {
        t.spike_ns = ns;
    }
    if let Some(factor) = s.real("latency_spike_factor", 1.0..=100.0) {
        t.spike_factor = factor;
    }
    if let Some(ns) = s.duration_ns("latency_spike_for", S..=600 * S) {
        t.spike_for_ns = ns;
    }
    let delay = |s: &Section<'_>, key| s.duration_ns(key, MS..=10 * S);
    let jitter = Pair {
        key: "high_jitter",
        critical_key: "high_jitter_critical",
        default: (t.jitter_ns, t.jitter_critical_ns),
    };
    (t.jitter_ns, t.jitter_critical_ns) = jitter.more(s, delay, scaled_ns);
    if let Some(ns) = s.duration_ns("high_jitter_within", WINDOW_NS) {
        t.jitter_over_ns = ns;
    }
    let bloat = Pair {
        key: "bufferbloat",
        critical_key: "bufferbloat_critical",
        default: (t.bloat_ns, t.bloat_critical_ns),
    };
    let delay = |s: &Section<'_>, key| s.duration_ns(key, 5 * MS..=10 * S);
    (t.bloat_ns, t.bloat_critical_ns) = bloat.more(s, delay, scaled_ns);
}

fn read_loss(s: &Section<'_>, t: &mut Thresholds) {
    let share = |s: &Section<'_>, key| s.parsed(key, |text| percent(text, 0.05, 50.0));
    let loss = Pair {
        key: "packet_loss",
        critical_key: "packet_loss_critical",
        default: (t.loss, t.loss_critical),
    };
    let scaled = |critical: f64, default: f64, share: f64| share * critical / default;
    (t.loss, t.loss_critical) = loss.more(s, share, scaled);
    if let Some(ns) = s.duration_ns("packet_loss_within", WINDOW_NS) {
        t.loss_over_ns = ns;
    }
    let count = |s: &Section<'_>, key| s.number(key, 2..=1000).map(|n| n as u32);
    let burst = Pair {
        key: "loss_burst",
        critical_key: "loss_burst_critical",
        default: (t.burst, t.burst_critical),
    };
    let scaled = |critical: u32, default: u32, n: u32| (n * critical).div_ceil(default);
    (t.burst, t.burst_critical) = burst.more(s, count, scaled);
    if let Some(ns) = s.duration_ns("micro_outage", 50 * MS..=10 * S) {
        t.micro_outage_ns = ns;
    }
    if let Some(ns) = s.duration_ns("outage", S..=HOUR) {
        t.outage_ns = ns;
    }
    if t.micro_outage_ns > t.outage_ns {
        s.mistake("micro_outage", "is longer than what makes an outage");
    }
}

/// One threshold each for both directions. What a line carries is worse the less it is.
fn read_capacity(s: &Section<'_>, t: &mut Thresholds) {
    let default = *t;
    let share = |s: &Section<'_>, key| s.parsed(key, |text| percent(text, 5.0, 99.0));
    let capacity = Pair {
        key: "capacity",
        critical_key: "capacity_critical",
        default: (t.capacity, t.capacity_critical),
    };
    let scaled = |critical: f64, default: f64, share: f64| share * critical / default;
    let is_worse = |critical: f64, at: f64| critical <= at;
    (t.capacity, t.capacity_critical) = capacity.read(s, share, scaled, is_worse);
    t.capacity_deep = scaled(default.capacity_deep, default.capacity, t.capacity);
    if let Some(ns) = s.duration_ns("capacity_for", S..=HOUR) {
        t.capacity_for_ns = ns;
        t.capacity_deep_for_ns =
            scaled_ns(default.capacity_deep_for_ns, default.capacity_for_ns, ns);
    }
}

/// A share that is written as a percentage, such as "1.5%".
pub(super) fn percent(text: &str, least: f64, most: f64) -> Result<f64, String> {
    text.strip_suffix('%')
        .and_then(|n| n.trim().parse::<f64>().ok())
        .filter(|n| (least..=most).contains(n))
        .map(|n| n / 100.0)
        .ok_or_else(|| {
            format!(
                "\"{text}\" is not a percentage from {least}% to {most}%; write for example \"2%\""
            )
        })
}

/// Whole hours of a day, such as "17-24": after those of the night, 3 to 6, that they are held against, and two at least,
/// as one alone is not called busy.
fn peak_hours(text: &str) -> Result<(u8, u8), String> {
    let hour = |part: &str| part.trim().parse::<u8>().ok();
    text.split_once('-')
        .and_then(|(from, to)| Some((hour(from)?, hour(to)?)))
        .filter(|(from, to)| *from >= 6 && *to <= 24 && from + 2 <= *to)
        .ok_or_else(|| {
            format!("\"{text}\" are no two hours or more from 6 to 24; write for example \"17-24\"")
        })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn read(lines: &str) -> Result<Thresholds, Vec<String>> {
        crate::config::parse("f", &format!("[alerts]\n{lines}"), Path::new("/"))
            .map(|l| l.config.alerts.thresholds)
            .map_err(|m| m.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn each_threshold_has_a_key() {
        let lines = "latency_spike = \"30ms\"\nlatency_spike_factor = 2.5\nlatency_spike_for = \"3s\"\n\
                     high_jitter = \"5ms\"\nhigh_jitter_critical = \"50ms\"\nhigh_jitter_within = \"20s\"\n\
                     packet_loss = \"2%\"\npacket_loss_critical = \"10%\"\npacket_loss_within = \"2m\"\n\
                     loss_burst = 4\nloss_burst_critical = 9\nmicro_outage = \"300ms\"\noutage = \"20s\"\n\
                     bufferbloat = \"60ms\"\nbufferbloat_critical = \"80ms\"\n\
                     capacity = \"40%\"\ncapacity_critical = \"30%\"\ncapacity_for = \"1m\"\n\
                     differs_for = \"90s\"\npeak_hour_congestion = 5\npeak_hours = \"18-23\"\nhold_down = \"1m\"\n";
        let expected = Thresholds {
            spike_factor: 2.5,
            spike_ns: 30 * MS,
            spike_for_ns: 3 * S,
            jitter_ns: 5 * MS,
            jitter_critical_ns: 50 * MS,
            jitter_over_ns: 20 * S,
            loss: 0.02,
            loss_critical: 0.1,
            loss_over_ns: 120 * S,
            burst: 4,
            burst_critical: 9,
            micro_outage_ns: 300 * MS,
            outage_ns: 20 * S,
            bloat_ns: 60 * MS,
            bloat_critical_ns: 80 * MS,
            differ_for_ns: 90 * S,
            capacity: 0.4,
            capacity_critical: 0.3,
            capacity_for_ns: 60 * S,
            capacity_deep: 0.325,
            capacity_deep_for_ns: 12 * S,
            peak_days: 5,
            peak_hours: (18, 23),
            hold_down_ns: 60 * S,
        };
        assert_eq!(read(lines), Ok(expected));
        assert_eq!(read(""), Ok(Thresholds::default()));
        let whole = read("latency_spike_factor = 4\n").unwrap();
        assert_eq!(whole.spike_factor, 4.0);
    }

    #[test]
    fn a_critical_one_that_is_not_written_moves_with_the_other() {
        let t = read(
            "packet_loss = \"2%\"\nbufferbloat = \"50ms\"\nloss_burst = 6\ncapacity = \"40%\"\n",
        )
        .unwrap();
        assert_eq!((t.loss, t.loss_critical), (0.02, 0.04));
        assert_eq!((t.bloat_ns, t.bloat_critical_ns), (50 * MS, 250 * MS));
        assert_eq!((t.burst, t.burst_critical), (6, 10));
        assert_eq!((t.capacity, t.capacity_critical), (0.4, 0.25));
        assert_eq!(
            t.jitter_critical_ns,
            Thresholds::default().jitter_critical_ns
        );
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        for (lines, why) in [
            (
                "latency_spike_factor = 0.5",
                "0.5 is out of range; 1 to 100",
            ),
            ("latency_spike_factor = \"3\"", "must be a number"),
            (
                "packet_loss_critical = \"0.5%\"",
                "is told before packet_loss itself",
            ),
            (
                "high_jitter = \"40ms\"\nhigh_jitter_critical = \"30ms\"",
                "is told before high_jitter itself",
            ),
            (
                "capacity_critical = \"90%\"",
                "is told before capacity itself",
            ),
            ("packet_loss_within = \"1s\"", "10s to 10m is allowed"),
            (
                "micro_outage = \"5s\"\noutage = \"3s\"",
                "is longer than what makes an outage",
            ),
            (
                "peak_hours = \"5-23\"",
                "are no two hours or more from 6 to 24",
            ),
            (
                "peak_hours = \"22-23\"",
                "are no two hours or more from 6 to 24",
            ),
            (
                "peak_hours = \"22-3\"",
                "are no two hours or more from 6 to 24",
            ),
        ] {
            let said = read(lines).unwrap_err();
            assert_eq!(said.len(), 1, "{said:#?}");
            assert!(said[0].contains(why), "{lines}: {said:#?}");
        }
    }
}
