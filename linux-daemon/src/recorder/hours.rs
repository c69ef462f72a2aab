//! Hours before this run, read back from rollups: who answered in them, and how long that took while the line was not
//! loaded.

use std::collections::{BTreeMap, HashMap};

use bufferbane_core::detect::{PastHour, clipped};
use bufferbane_core::household::{Minute, MinuteWay};
use bufferbane_core::stats::histogram::Histogram;
use bufferbane_store::{Bucket, Reader, SeriesInfo, SeriesKind, StoreError, Window};
use jiff::tz::TimeZone;

use super::{MINUTE_NS, wall};

const HOUR_NS: i64 = 60 * MINUTE_NS as i64;
/// An hour says something with answers of so long at least, ns.
const LEAST_NS: u64 = 15 * MINUTE_NS;
/// So little is an idle line, bit/s.
const IDLE_BPS: u64 = 100_000;

/// Whom a series asks, and how: interface, address and kind. How often it does may be another matter by now.
pub(super) type Asked = (String, String, SeriesKind);

pub(super) fn asked(info: &SeriesInfo) -> Asked {
    (info.interface.clone(), info.address.clone(), info.kind)
}

/// What one hour of a series was like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hour {
    /// Its middle, ns since 1970.
    at_ns: i64,
    rtt_ns: u32,
    queues_ns: (u32, u32),
    probes: u32,
    idle: bool,
}

/// The hours since `from_ns` of all who answered in them, whatever services say.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn read(reader: &Reader, from_ns: i64) -> Result<HashMap<Asked, Vec<Hour>>, StoreError> {
    let loads = loads(reader, from_ns)?;
    let mut all: HashMap<Asked, Vec<Hour>> = HashMap::new();
    for (id, info) in reader.series()? {
        if info.kind.asks_a_service() {
            continue;
        }
        let mut hours = Vec::new();
        reader.each_hour(id, from_ns, i64::MAX, &mut |b: &Bucket| {
            if b.summary.received == 0 {
                return;
            }
            let median = |h: &Histogram| clipped(h.quantile(0.5).unwrap_or(0));
            let at_ns = b.from_ns + (b.to_ns - b.from_ns) / 2;
            let load = loads
                .get(&info.interface)
                .map_or(Load::Unknown, |l| l.at(at_ns));
            let lasted_ns = b.summary.received.saturating_mul(info.interval_ns);
            hours.push(Hour {
                at_ns,
                // Nothing is known of one that was loaded, or of which little was seen.
                rtt_ns: match load {
                    Load::Loaded => 0,
                    _ if lasted_ns < LEAST_NS => 0,
                    _ => median(&b.summary.rtt),
                },
                queues_ns: (median(&b.summary.queue_up), median(&b.summary.queue_down)),
                probes: u32::try_from(b.summary.received).unwrap_or(u32::MAX),
                idle: load == Load::Idle,
            });
        })?;
        if !hours.is_empty() {
            all.entry(asked(&info)).or_default().extend(hours);
        }
    }
    Ok(all)
}

/// Those of which something is known, in the order of time, by the clocks of a zone. Of two that share an hour of the clock,
/// as around a restart, that with more answers.
pub(super) fn local(hours: &[Hour], zone: &TimeZone) -> impl Iterator<Item = PastHour> + use<> {
    let mut by_hour: BTreeMap<u64, PastHour> = BTreeMap::new();
    for h in hours.iter().filter(|h| h.rtt_ns > 0) {
        let local = wall::local_ns(h.at_ns, zone).and_then(|ns| u64::try_from(ns / HOUR_NS).ok());
        let Some(local_hour) = local else { continue };
        let hour = PastHour {
            local_hour,
            rtt_ns: h.rtt_ns,
            queues_ns: h.queues_ns,
            idle: h.idle,
            probes: h.probes,
        };
        let known = by_hour.entry(local_hour).or_insert(hour);
        if hour.probes > known.probes {
            *known = hour;
        }
    }
    by_hour.into_values()
}

/// How much a line carried in an hour, of what it was seen to carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    /// Next to nothing, of everybody.
    Idle,
    /// More, or nobody knows.
    Unknown,
    /// A quarter or more, for so long that it shows in most probes.
    Loaded,
}

/// What a line carried in an hour.
#[derive(Debug)]
struct Carried {
    /// Begin and end, ns since 1970.
    from_ns: i64,
    to_ns: i64,
    /// Whether that is everybody's traffic.
    everybody: bool,
    /// Upward and downward, what was exceeded in a twentieth and in two fifths of the seconds, bit/s.
    rates_bps: [[u64; 2]; 2],
}

/// The hours of one line.
#[derive(Debug, Default)]
struct Line {
    /// The most that it carried in a second upward and downward, bit/s.
    most_bps: [u64; 2],
    hours: Vec<Carried>,
}

impl Line {
    fn at(&self, at_ns: i64) -> Load {
        let mut hours = self.hours.iter();
        let Some(hour) = hours.find(|h| (h.from_ns..h.to_ns).contains(&at_ns)) else {
            return Load::Unknown;
        };
        let mut ways = self.most_bps.iter().zip(hour.rates_bps);
        let at_least = |most: u64| most.max(IDLE_BPS);
        if ways
            .clone()
            .any(|(most, [_, often])| often > at_least(most / 4))
        {
            Load::Loaded
        } else if hour.everybody && ways.all(|(most, [rare, _])| rare <= at_least(most / 20)) {
            Load::Idle
        } else {
            Load::Unknown
        }
    }
}

fn loads(reader: &Reader, from_ns: i64) -> Result<HashMap<String, Line>, StoreError> {
    let mut lines: HashMap<String, Line> = HashMap::new();
    reader.load(Window::Hour, from_ns, i64::MAX, |interface, load| {
        // Minutes that are in no hour yet are the last ones.
        if load.minutes == 1 {
            return Ok(());
        }
        let mut sum = Box::new(Minute::new());
        load.add_to(&mut sum)?;
        let rates = |way: &MinuteWay| [0.95, 0.6].map(|q| way.rate_bps.quantile(q).unwrap_or(0));
        let line = lines.entry(interface.to_owned()).or_default();
        for (most, way) in line.most_bps.iter_mut().zip([&sum.up, &sum.down]) {
            *most = way.rate_bps.max().unwrap_or(0).max(*most);
        }
        line.hours.push(Carried {
            from_ns: load.from_ns,
            to_ns: load.to_ns,
            everybody: sum.sees_household,
            rates_bps: [rates(&sum.up), rates(&sum.down)],
        });
        Ok(())
    })?;
    Ok(lines)
}
