//! What a daemon has told of episodes, against what they were.

use std::fmt;
use std::ops::Range;
use std::path::Path;

use bufferbane_store::{Direction, Event, Method, Reader};

use super::super::{Fail, percentile};
use crate::link::{Bin, Way};

/// What an episode was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Nothing: the line was idle and well.
    Nothing,
    /// Somebody filled it upward.
    Upload,
    /// Somebody filled it downward.
    Download,
    /// It was slow, and nobody used it.
    SlowWithoutLoad,
    /// It lost packets, and nobody used it.
    LossWithoutLoad,
    /// Neighbours filled it, and nobody in the house used it.
    Neighbours,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Nothing,
        Self::Upload,
        Self::Download,
        Self::SlowWithoutLoad,
        Self::LossWithoutLoad,
        Self::Neighbours,
    ];

    /// A few words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "idle",
            Self::Upload => "upload",
            Self::Download => "download",
            Self::SlowWithoutLoad => "delay without load",
            Self::LossWithoutLoad => "loss without load",
            Self::Neighbours => "load by neighbours",
        }
    }

    const fn is_load(self) -> bool {
        matches!(self, Self::Upload | Self::Download)
    }

    /// Whether an event of this kind, class and direction says so.
    fn is_told_by(self, told: &Told) -> bool {
        let (kind, class) = (told.kind.as_str(), told.class.as_str());
        match self {
            Self::Nothing => false,
            Self::Upload | Self::Download => {
                let way = if self == Self::Upload {
                    Direction::Up
                } else {
                    Direction::Down
                };
                (kind, class, told.direction) == ("bufferbloat", "self_inflicted_queue", Some(way))
            }
            Self::SlowWithoutLoad | Self::Neighbours => {
                (kind, class) == ("latency_spike", "delay_on_idle_line")
            }
            Self::LossWithoutLoad => {
                matches!(kind, "packet_loss" | "loss_burst") && class == "loss_without_load"
            }
        }
    }
}

/// Something that was done to the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Episode {
    /// What.
    pub cause: Cause,
    /// When, `CLOCK_REALTIME`, ns.
    pub during: Range<i64>,
}

impl Episode {
    /// Whether an event of it may begin then. What comes next begins where idle time ends.
    fn may_begin(&self, at_ns: i64) -> bool {
        let (before_ns, after_ns) = match self.cause {
            Cause::Nothing => (0, 0),
            _ => (SLACK_NS, AFTER_NS),
        };
        (self.during.start - before_ns..self.during.end + after_ns).contains(&at_ns)
    }
}

/// An event, as far as it matters here.
#[derive(Clone, Debug, PartialEq)]
struct Told {
    kind: String,
    class: String,
    direction: Option<Direction>,
    begin_ns: i64,
}

/// How far an event's begin may be off, ns: a probe and the moment in which traffic begins to flow.
const SLACK_NS: i64 = 1_000_000_000;
/// What a queue holds when the load has ended, and an event's last second, ns.
const AFTER_NS: i64 = 2_000_000_000;
/// A passive estimate of capacity is of so many seconds, ns.
const ESTIMATE_NS: i64 = 3_000_000_000;
/// Estimates less sure than this are not looked at.
const SURE: f64 = 0.5;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Judgement {
    /// Episodes that were told as what they were, each by one event.
    right: Vec<Cause>,
    /// Everything else, in words.
    wrong: Vec<String>,
    /// Errors of passive estimates of capacity up and down, per mille, without sign.
    capacity_errors: [Vec<i64>; 2],
}

impl Judgement {
    /// Holds what is in the store of a daemon that has been stopped against `episodes`, which are in
    /// order, and against what the line carried.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub fn of_store(store: &Path, carried: &[Bin], episodes: &[Episode]) -> Result<Self, Fail> {
        let failed = |e: &dyn fmt::Display| Fail::of(store.display(), e);
        let reader = Reader::open(store).map_err(|e| failed(&e))?;
        let map = reader.time_map();
        let events = reader.events(i64::MIN, i64::MAX).map_err(|e| failed(&e))?;
        let told: Vec<Told> = events
            .iter()
            .filter_map(|(_, e)| Some(Told::new(e, map.wall_ns(e.boot, e.start_ns)?)))
            .collect();
        let mut judgement = Self::of_events(&told, episodes);
        let capacities = reader
            .capacities(i64::MIN, i64::MAX)
            .map_err(|e| failed(&e))?;
        for (at_ns, capacity) in &capacities {
            let way = match capacity.direction {
                Direction::Up => Way::Up,
                Direction::Down => Way::Down,
                Direction::Both => continue,
            };
            let sure = capacity.method == Method::Passive && capacity.confidence >= SURE;
            if let Some(said) = capacity.sustained_bps.filter(|_| sure) {
                let truth = delivered_bps(carried, way, at_ns - ESTIMATE_NS..*at_ns);
                let error = (said as f64 / truth as f64 - 1.0).abs() * 1000.0;
                judgement.capacity_errors[way as usize].push(error as i64);
            }
        }
        Ok(judgement)
    }

    fn of_events(told: &[Told], episodes: &[Episode]) -> Self {
        let mut judgement = Self::default();
        for episode in episodes {
            let of_it = || told.iter().filter(|t| episode.may_begin(t.begin_ns));
            let fits = of_it().filter(|t| episode.cause.is_told_by(t)).count();
            // A load is one trouble and one event; losses may be told in two ways.
            let enough = match episode.cause {
                Cause::Nothing => true,
                cause if cause.is_load() => fits == 1,
                _ => fits > 0,
            };
            let others: Vec<&Told> = of_it().filter(|t| !t.may_be(episode.cause)).collect();
            if enough && others.is_empty() {
                judgement.right.push(episode.cause);
                continue;
            }
            judgement.wrong.push(format!(
                "{} at {}: {fits} events that say so, and {others:?}",
                episode.cause.as_str(),
                episode.during.start
            ));
        }
        for t in told {
            let by_load = |e: &Episode| e.cause.is_load() && e.may_begin(t.begin_ns);
            if t.kind == "bufferbloat" && !episodes.iter().any(by_load) {
                judgement
                    .wrong
                    .push(format!("bufferbloat without a load: {t:?}"));
            }
        }
        judgement
    }

    /// How many episodes of this cause were told as what they were.
    #[must_use]
    pub fn right(&self, cause: Cause) -> usize {
        self.right.iter().filter(|c| **c == cause).count()
    }

    /// Whether everything was.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.wrong.is_empty()
    }

    /// Of passive estimates of capacity one way: how many there are, and their median error, per mille
    /// of what the line delivered in the same seconds.
    #[must_use]
    pub fn capacity_error(&self, way: Way) -> (usize, i64) {
        let errors = &self.capacity_errors[way as usize];
        (errors.len(), percentile(errors, 500))
    }
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for wrong in &self.wrong {
            writeln!(f, "wrong: {wrong}")?;
        }
        for (way, word) in [(Way::Up, "up"), (Way::Down, "down")] {
            let (estimates, error) = self.capacity_error(way);
            writeln!(
                f,
                "capacity {word}, from the same traffic: {estimates} estimates, median error {:.1} %",
                error as f64 / 10.0
            )?;
        }
        Ok(())
    }
}

impl Told {
    fn new(e: &Event, begin_ns: i64) -> Self {
        Self {
            kind: e.kind.clone(),
            class: e.values["class"].as_str().unwrap_or_default().to_owned(),
            direction: e.direction,
            begin_ns,
        }
    }

    /// Whether this may be said of an episode, too: a load makes losses and jitter, whoever's it is, and
    /// whatever has no class says nothing of its cause.
    fn may_be(&self, cause: Cause) -> bool {
        let classes: &[&str] = match cause {
            Cause::Nothing => &[""],
            Cause::Upload | Cause::Download => &["", "self_inflicted_queue", "loss_under_load"],
            Cause::SlowWithoutLoad => &["", "delay_on_idle_line"],
            Cause::LossWithoutLoad => &["", "loss_without_load"],
            Cause::Neighbours => &["", "delay_on_idle_line", "loss_without_load"],
        };
        let other_way = self.kind == "bufferbloat" && !cause.is_told_by(self);
        classes.contains(&self.class.as_str()) && !other_way
    }
}

/// What a line delivered one way, bit/s of frames.
fn delivered_bps(carried: &[Bin], way: Way, during: Range<i64>) -> u64 {
    let bins = carried
        .iter()
        .filter(|b| b.way == way && during.contains(&b.at_ns));
    let bytes: u64 = bins.map(|b| b.bytes).sum();
    let bits = u128::from(bytes) * 8_000_000_000;
    (bits / u128::from(during.end.abs_diff(during.start).max(1))) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000_000;

    fn told(at_s: i64, kind: &str, class: &str, direction: Direction) -> Told {
        Told {
            kind: kind.into(),
            class: class.into(),
            direction: Some(direction),
            begin_ns: at_s * S,
        }
    }

    fn wrong(told: &[Told]) -> usize {
        let episode = |cause, from: i64, to: i64| Episode {
            cause,
            during: from * S..to * S,
        };
        let episodes = [
            episode(Cause::Nothing, 0, 10),
            episode(Cause::Upload, 20, 30),
            episode(Cause::SlowWithoutLoad, 40, 50),
            episode(Cause::LossWithoutLoad, 60, 70),
            episode(Cause::Neighbours, 80, 90),
        ];
        Judgement::of_events(told, &episodes).wrong.len()
    }

    #[test]
    fn only_the_right_word_at_the_right_time_is_right() {
        use Direction::{Down, Up};
        let right = [
            told(21, "bufferbloat", "self_inflicted_queue", Up),
            told(23, "packet_loss", "loss_under_load", Up),
            told(41, "latency_spike", "delay_on_idle_line", Up),
            told(61, "packet_loss", "loss_without_load", Up),
            told(81, "latency_spike", "delay_on_idle_line", Up),
            told(83, "packet_loss", "loss_without_load", Up),
        ];
        assert_eq!(wrong(&right), 0);
        for i in [0, 2, 3, 4] {
            let mut missing = right.to_vec();
            missing.remove(i);
            assert_eq!(wrong(&missing), 1, "{i}");
        }
        let bloat = |at, way| told(at, "bufferbloat", "self_inflicted_queue", way);
        for (more, mistakes) in [
            // Twice, the other way, on the idle line, in between, and with a wrong class.
            (bloat(25, Up), 1),
            (bloat(25, Down), 1),
            (bloat(5, Up), 2),
            (bloat(35, Up), 1),
            (told(25, "packet_loss", "loss_without_load", Up), 1),
            (told(5, "high_jitter", "delay_on_idle_line", Up), 1),
            // As the household's own.
            (bloat(85, Up), 2),
            (told(85, "packet_loss", "loss_under_load", Up), 1),
        ] {
            let all = [&right[..], std::slice::from_ref(&more)].concat();
            assert_eq!(wrong(&all), mistakes, "{more:?}");
        }
    }
}
