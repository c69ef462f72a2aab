//! What a scenario is made of: series of probes, what happens to them, and what has to be told of it.

use bufferbane_core::detect::verdict::Cause;
use bufferbane_core::detect::{Direction, Kind, Load, SeriesFacts};

use crate::S;

/// When a probe is given up, ns.
pub const TIMEOUT_NS: u64 = 3 * S;

/// A series of a scenario.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// What it is.
    pub facts: SeriesFacts,
    /// RTT on the idle line, ns.
    pub base_ns: u64,
    /// Whether the far end tells which way a probe was lost, and how long it took each way.
    pub reflector: bool,
    /// Bytes that its probes have in turn, where these are several.
    pub sizes: &'static [u16],
}

/// What happens to the probes of some series for some time.
#[derive(Clone, Copy, Debug)]
pub enum What {
    /// Each is lost with these chances.
    Loss {
        /// Upward.
        up: f64,
        /// Downward.
        down: f64,
    },
    /// The far end itself refuses this share of them and says so; whatever is lost meanwhile may be of those.
    Refused {
        /// Chance of each.
        share: f64,
    },
    /// All are lost.
    Cut {
        /// What is on its way up.
        up: bool,
        /// What is on its way down.
        down: bool,
        /// They cannot even be sent.
        unsent: bool,
    },
    /// Those from this size on are lost upward, bytes.
    Hole(u16),
    /// They wait, and some of them up to `wobble_ns` longer.
    Delay {
        /// Upward.
        up_ns: u64,
        /// Downward.
        down_ns: u64,
        /// At random.
        wobble_ns: u64,
    },
    /// Each waits for another random time.
    Jitter {
        /// At most this long upward.
        up_ns: u64,
        /// At most this long downward.
        down_ns: u64,
    },
    /// Replies take so many hops more, and longer.
    Path {
        /// Hops.
        hops: u8,
        /// Longer by, ns.
        longer_ns: u64,
    },
    /// They leave upward at certain instants only.
    Grants {
        /// From one to the next, ns.
        every_ns: u64,
        /// One in so many waits for some further ones; 0: none.
        collide: u32,
    },
    /// Every second takes another path upward.
    Detour {
        /// So much longer, ns.
        up_ns: u64,
    },
    /// It is a load test of our own.
    Test,
}

/// Something that happens between two instants.
#[derive(Clone, Copy, Debug)]
pub struct Effect {
    /// From, ns.
    pub from_ns: u64,
    /// To, exclusive, ns.
    pub to_ns: u64,
    /// What.
    pub what: What,
    /// To which series.
    pub who: fn(&SeriesFacts) -> bool,
    /// The event that it makes part of, by its place in [`Scenario::expected`].
    pub makes: Option<usize>,
}

/// How begin and end of an expected event are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edges {
    /// By the effect itself.
    Given,
    /// By the first and last probe that it touched.
    Touched,
    /// By the first probe that it touched, and the first that was answered after the last of them.
    Answered,
    /// By the first and last loss of bursts: losses near to each other, three of them in a row. Bursts that
    /// are further apart than the hold-down are events of their own.
    Runs,
}

/// An event that has to be told.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// What.
    pub kind: Kind,
    /// Where.
    pub line: u8,
    /// Which way; `None` where no direction may be named: of comparisons, and where nothing came through at all.
    pub direction: Option<Direction>,
    /// How its edges are known.
    pub edges: Edges,
    /// How far the told ones may be from them, ns.
    pub tolerance_ns: u64,
    /// Begin and end, ns; those that are not given are learned as the scenario runs.
    pub bounds_ns: Option<(u64, u64)>,
    /// Shares the begin and end of another.
    pub same_as: Option<usize>,
}

/// One scenario with one seed.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Series.
    pub series: Vec<Spec>,
    /// Whether each line's counters show the household's traffic.
    pub sees_household: Vec<bool>,
    /// What happens.
    pub effects: Vec<Effect>,
    /// Line, from, to, load.
    pub loads: Vec<(u8, u64, u64, Load)>,
    /// Line, when, whether up, bit/s.
    pub capacities: Vec<(u8, u64, bool, u64)>,
    /// What has to be told.
    pub expected: Vec<Expected>,
    /// How long it takes, ns.
    pub length_ns: u64,
    /// Chance that any probe is lost anyway.
    pub background_loss: f64,
    /// Mean of the random part of each delay, ns.
    pub noise_ns: u64,
    /// Delay that comes and goes with the hour, ns at most.
    pub daily_ns: u64,
    /// Extra delay upward in the evening (19 to 23 h) from this day on, to that day, ns.
    pub evening: Option<(u64, u64, u64)>,
    /// What people should be told first: the cause, and which way, where one may be named.
    pub blame: (Cause, Option<Direction>),
}
