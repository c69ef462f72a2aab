//! `synth`: a plausible store of any size, with what happened in it written beside it.
//!
//! The samples are made, not measured, and the store says so: its targets have documentation
//! addresses. The same options give the same store. It goes through the ordinary [`Writer`], so
//! blocks, rollups and the tail are those of a daemon that ran as long.

mod carried;
pub(crate) mod line;

use std::path::{Path, PathBuf};
use std::time::Instant;

use argh::FromArgs;
use bufferbane_core::clock::FloorEstimator;
use bufferbane_core::sample::{Flags, Sample, SeriesIndex, Status};
use bufferbane_core::stats::histogram::Histogram;
use bufferbane_core::time::{ClockSource, Monotonic};
use bufferbane_store::{
    Event, Health, SeriesInfo, SeriesKind, Severity, StoreError, Trust, Writer, WriterOptions,
};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::bench::{Fail, within};
use carried::Carried;
use line::{Episode, Kind, Line, Load};

/// The wall clock at the first sample, ns since 1970: 2026-05-01 00:00 UTC.
pub const BEGIN_WALL_NS: i64 = 1_777_593_600_000_000_000;
/// The monotonic clock then, ns since boot.
pub(crate) const BEGIN_NS: u64 = 86_400_000_000_000;
/// Of two clocks that have nothing to do with each other, ns.
const OFFSET_NS: i64 = 512_345_678_901_234;
/// How fast they drift apart, parts per billion.
const SKEW_PPB: i64 = 9_300;
/// Samples of so long are committed at once, ns.
const COMMIT_NS: u64 = 1_800_000_000_000;
/// The daemon's health is written so often, ns.
const HEALTH_NS: u64 = 60_000_000_000;
/// Probes of a minute whose lateness is told; enough that its histogram is as large as a daemon's.
const LATENESS_PER_MINUTE: u32 = 480;
/// A reply that takes longer counts as late, ns.
const TIMEOUT_NS: u64 = 2_000_000_000;

/// A plausible store of any size, with what happened in it beside it as JSON.
#[derive(Clone, Debug, FromArgs)]
#[argh(
    subcommand,
    name = "synth",
    note = "Example: bufferbane-lab synth --days 30 --series 8 --hz 1 month.redb"
)]
pub struct Options {
    /// days of samples, from 2026-05-01 00:00 UTC (default: 1)
    #[argh(option, default = "1.0")]
    pub days: f64,
    /// series, four to an interface (default: 8)
    #[argh(option, default = "8")]
    pub series: u64,
    /// probes of each series a second (default: 1)
    #[argh(option, default = "1.0")]
    pub hz: f64,
    /// seed of everything (default: 1)
    #[argh(option, default = "1")]
    pub seed: u64,
    /// the file to make; OUT.json beside it says what happened
    #[argh(positional)]
    pub out: PathBuf,
}

/// What was made.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    /// Samples in it.
    pub samples: u64,
    /// Its size, bytes.
    pub bytes: u64,
}

/// Makes it, and says what it made.
///
/// # Errors
/// What was asked for and cannot be, or what could not be written.
pub fn run(options: &Options) -> Result<(), Fail> {
    let begun = Instant::now();
    let made = make(options)?;
    println!(
        "{}: {} samples in {} bytes ({:.2} each), made in {:.1} s; what happened in it: {}",
        options.out.display(),
        made.samples,
        made.bytes,
        made.bytes as f64 / made.samples.max(1) as f64,
        begun.elapsed().as_secs_f64(),
        truth_path(&options.out).display()
    );
    Ok(())
}

fn truth_path(out: &Path) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(".json");
    PathBuf::from(name)
}

/// Makes the store and the file beside it.
///
/// # Errors
/// See [`run`].
pub fn make(options: &Options) -> Result<Made, Fail> {
    within("--series", options.series, 1..=64)?;
    let usage = |what: &str| Err(Fail::Usage(what.to_owned()));
    if !(0.001..=1000.0).contains(&options.days) {
        return usage("--days is out of range; 0.001 to 1000 is allowed");
    }
    if !(0.01..=1000.0).contains(&options.hz) {
        return usage("--hz is out of range; 0.01 to 1000 is allowed");
    }
    if options.out.exists() {
        return usage(&format!("{} exists already", options.out.display()));
    }
    let span_ns = (options.days * 86_400e9) as u64;
    let interval_ns = (1e9 / options.hz) as u64;
    let failed = |e: &dyn std::fmt::Display| Fail::of(options.out.display(), e);
    let mut writer =
        Writer::open(&options.out, WriterOptions::default()).map_err(|e| failed(&e))?;
    let begin = Monotonic::from_nanos(BEGIN_NS);
    let boot = writer
        .begin_boot(
            "5e17f00d-0000-4000-8000-000000000001",
            begin,
            BEGIN_WALL_NS,
            Trust::Disciplined,
        )
        .map_err(|e| failed(&e))?;
    let interfaces = options.series.div_ceil(4);
    let lines: Vec<Line> = (0..interfaces)
        .map(|i| Line::new(i as usize, span_ns, options.seed))
        .collect();
    let mut series: Vec<Synth<'_>> = (0..options.series)
        .map(|i| {
            let (line, target) = (&lines[i as usize / 4], i as usize % 4);
            let info = info(line, target, interval_ns);
            let id = writer.series(&info);
            (id, Synth::new(line, target, info, options.seed ^ (i << 32)))
        })
        .map(|(id, mut s)| {
            s.id = Some(id);
            s
        })
        .collect();
    let mut carried: Vec<Carried<'_>> = lines
        .iter()
        .map(|line| Carried::new(line, options.seed))
        .collect();
    let samples = write(
        &mut writer,
        (&mut series, &mut carried),
        span_ns,
        interval_ns,
    )
    .map_err(|e| failed(&e))?;
    let mut truth = Vec::new();
    for line in &lines {
        for e in line.episodes.iter().filter(|e| e.kind != Kind::Silence) {
            truth.push(known(line, e));
            if let Some(event) = event(line, e, boot) {
                writer.event(event);
            }
        }
    }
    writer.close().map_err(|e| failed(&e))?;
    let all = json!({
        "made": "synthetic: no line was measured",
        "seed": options.seed,
        "from_ns": BEGIN_WALL_NS,
        "to_ns": BEGIN_WALL_NS + span_ns as i64,
        "samples": samples,
        "series": series.iter().map(|s| json!({
            "interface": s.info.interface, "target": s.info.target, "kind": s.info.kind.as_str(),
            "sent": s.sent, "lost": s.lost,
        })).collect::<Vec<_>>(),
        "not_measured": lines.first().map(|l| l.episodes.iter()
            .filter(|e| e.kind == Kind::Silence)
            .map(|e| json!({"from_ns": wall(e.from_ns), "to_ns": wall(e.to_ns)}))
            .collect::<Vec<_>>()),
        "shaped_from_ns": lines.first().map(|l| wall(l.shaped_from_ns)),
        "events": truth,
    });
    let beside = truth_path(&options.out);
    let text = serde_json::to_string_pretty(&all).map_err(|e| Fail::of(beside.display(), e))?;
    std::fs::write(&beside, text + "\n").map_err(|e| Fail::of(beside.display(), e))?;
    let bytes = std::fs::metadata(&options.out)
        .map_err(|e| failed(&e))?
        .len();
    Ok(Made { samples, bytes })
}

const fn wall(at_ns: u64) -> i64 {
    BEGIN_WALL_NS + at_ns as i64
}

/// What is known of an episode: the truth that a report can be held against.
fn known(line: &Line, e: &Episode) -> Value {
    json!({
        "kind": e.event_kind(), "interface": line.interface, "direction": e.direction(),
        "start_ns": wall(e.from_ns), "end_ns": wall(e.to_ns),
        "queue_ns": e.queue_ns, "loss": e.loss,
    })
}

/// The event that a detector would have raised.
fn event(line: &Line, e: &Episode, boot: u32) -> Option<Event> {
    let seconds = (e.to_ns - e.from_ns) as f64 / 1e9;
    let (severity, text) = match e.kind {
        Kind::Outage => (
            Severity::Critical,
            format!(
                "no target answered over {} for {seconds:.1} s",
                line.interface
            ),
        ),
        Kind::Noise => (
            Severity::Warning,
            format!(
                "{:.0} % of the probes were lost on the way up",
                e.loss * 100.0
            ),
        ),
        Kind::Busy(Load::Up) if e.queue_ns > 100_000_000 => (
            Severity::Warning,
            format!(
                "the queue upward stood at {} ms while the line was used",
                e.queue_ns / 1_000_000
            ),
        ),
        Kind::Busy(_) | Kind::Silence => return None,
    };
    let start = Monotonic::from_nanos(BEGIN_NS + e.from_ns);
    let mut event = Event::new(e.event_kind(), severity, boot, start, text);
    event.interface.clone_from(&line.interface);
    event.end_ns = Some(BEGIN_NS + e.to_ns);
    event.direction = match e.direction() {
        Some("up") => Some(bufferbane_store::Direction::Up),
        Some("down") => Some(bufferbane_store::Direction::Down),
        _ => Some(bufferbane_store::Direction::Both),
    };
    event.values.insert("loss".into(), json!(e.loss));
    if e.queue_ns > 0 {
        event.values.insert("loaded_ns".into(), json!(e.queue_ns));
    }
    Some(event)
}

fn info(line: &Line, target: usize, interval_ns: u64) -> SeriesInfo {
    let (name, address, kind) = [
        ("vienna", "192.0.2.10", SeriesKind::Udp),
        ("gateway", "192.0.2.1", SeriesKind::Icmp),
        ("isp", "198.51.100.1", SeriesKind::Icmp),
        ("quad9", "203.0.113.9", SeriesKind::Icmp),
    ][target];
    SeriesInfo {
        interface: line.interface.clone(),
        interface_kind: line.interface_kind.into(),
        target: name.into(),
        kind,
        family: 4,
        dscp: 0,
        size: if kind == SeriesKind::Udp { 128 } else { 64 },
        interval_ns,
        address: address.into(),
    }
}

/// Feeds the writer slot by slot, all series abreast as a daemon would. Gives the number of samples.
fn write(
    writer: &mut Writer,
    (series, carried): (&mut [Synth<'_>], &mut [Carried<'_>]),
    span_ns: u64,
    interval_ns: u64,
) -> Result<u64, StoreError> {
    let mut samples = 0;
    let (mut next_commit, mut next_health) = (COMMIT_NS, HEALTH_NS);
    for slot in 0..span_ns / interval_ns {
        let at_ns = slot * interval_ns;
        for s in series.iter_mut() {
            let (Some(id), Some(sample)) = (s.id, s.sample(slot, at_ns)) else {
                continue;
            };
            writer.record(id, sample);
            if let Some(floor) = &mut s.floor {
                floor.on_sample(&sample);
                while let Some(update) = floor.poll_update() {
                    writer.floor(id, &update);
                }
                // What changed is told by a daemon as events; here it is known.
                while floor.poll_change().is_some() {}
            }
            samples += 1;
        }
        if at_ns >= next_health {
            next_health += HEALTH_NS;
            for line in carried.iter_mut() {
                line.write(writer, at_ns)?;
            }
            if samples > 0 {
                writer.health(
                    Monotonic::from_nanos(BEGIN_NS + at_ns),
                    &health(&mut series[0]),
                )?;
            }
        }
        if at_ns >= next_commit {
            next_commit += COMMIT_NS;
            writer.commit()?;
        }
    }
    Ok(samples)
}

pub(crate) fn health(s: &mut Synth<'_>) -> Health {
    let mut late = Histogram::new();
    for _ in 0..LATENESS_PER_MINUTE {
        late.add(4_000 + s.spread(9_000.0));
    }
    let mut row = Health {
        cpu_ns: 180_000_000 + s.spread(20_000_000.0),
        wall_ns: HEALTH_NS,
        ..Health::default()
    };
    row.set_send_late(&late);
    row
}

/// One series that is being made.
pub(crate) struct Synth<'a> {
    pub(crate) id: Option<bufferbane_store::SeriesId>,
    line: &'a Line,
    target: usize,
    pub(crate) info: SeriesInfo,
    rng: ChaCha8Rng,
    /// Learns what queueing delay is above, as a daemon does.
    pub(crate) floor: Option<Box<FloorEstimator>>,
    /// The first episode that is not over.
    next: usize,
    sent: u64,
    lost: u64,
}

impl<'a> Synth<'a> {
    pub(crate) fn new(line: &'a Line, target: usize, info: SeriesInfo, seed: u64) -> Self {
        Self {
            id: None,
            line,
            target,
            floor: (info.kind == SeriesKind::Udp).then(Box::default),
            info,
            rng: ChaCha8Rng::seed_from_u64(seed),
            next: 0,
            sent: 0,
            lost: 0,
        }
    }

    /// Evenly distributed in 0 to 1, never 0.
    fn unit(&mut self) -> f64 {
        f64::from(self.rng.next_u32()).max(1.0) / f64::from(u32::MAX)
    }

    /// Exponentially distributed around `mean`.
    fn spread(&mut self, mean: f64) -> u64 {
        (-self.unit().ln() * mean) as u64
    }

    /// The probe of a slot; `None` where nothing was measured.
    pub(crate) fn sample(&mut self, seq: u64, at_ns: u64) -> Option<Sample> {
        let line = self.line;
        while line
            .episodes
            .get(self.next)
            .is_some_and(|e| e.to_ns <= at_ns)
        {
            self.next += 1;
        }
        // Episodes may overlap: all that are going on count.
        let now: Vec<&Episode> = line.episodes[self.next..]
            .iter()
            .take_while(|e| e.from_ns <= at_ns)
            .filter(|e| e.to_ns > at_ns)
            .collect();
        if now.iter().any(|e| e.kind == Kind::Silence) {
            return None;
        }
        let offset_ns = (self.unit() * self.info.interval_ns as f64 * 0.5) as u64;
        let late_ns = 4_000 + self.spread(9_000.0);
        let sent_ns = BEGIN_NS + at_ns + offset_ns + late_ns;
        let mut s = Sample::lost(
            SeriesIndex(0),
            seq,
            Monotonic::from_nanos(sent_ns),
            self.info.size,
        );
        s.send_late_ns = late_ns as i64;
        s.tx_clock = ClockSource::Kernel;
        self.sent += 1;
        let near = self.target == 1;
        let udp = self.info.kind == SeriesKind::Udp;
        let outage = !near && now.iter().any(|e| e.kind == Kind::Outage);
        let mut loss = if near { 0.000_004 } else { line.loss };
        if !near {
            loss += now.iter().map(|e| e.loss).sum::<f64>();
        }
        if outage || self.unit() < loss {
            self.lost += 1;
            let down = !outage && self.unit() < 0.12;
            s.status = match (udp, down) {
                (false, _) => Status::Lost,
                (true, true) => Status::LostDown,
                (true, false) => Status::LostUp,
            };
            return Some(s);
        }
        let [up_ns, down_ns] = self.delays(at_ns, &now, near);
        let rtt_ns = up_ns + down_ns;
        s.status = if rtt_ns > TIMEOUT_NS {
            Status::Late
        } else {
            Status::Ok
        };
        s.flags = Flags::NONE;
        s.rtt_ns = Some(rtt_ns);
        s.rx_clock = ClockSource::Kernel;
        s.ttl_down = Some(57);
        if udp {
            let skew_ns = (i128::from(sent_ns) * i128::from(SKEW_PPB) / 1_000_000_000) as i64;
            s.raw_up_ns = Some(up_ns as i64 + OFFSET_NS + skew_ns);
            s.raw_down_ns = Some(down_ns as i64 - OFFSET_NS - skew_ns);
            s.remote_rx_clock = ClockSource::Kernel;
            s.remote_tx_clock = ClockSource::Kernel;
            s.ttl_up = Some(56);
            s.tos_seen = Some(0);
        }
        Some(s)
    }

    /// How long it takes up and down, ns.
    fn delays(&mut self, at_ns: u64, now: &[&Episode], near: bool) -> [u64; 2] {
        let line = self.line;
        let [floor_up, floor_down] = line.floor_ns[self.target];
        if near {
            return [
                floor_up + self.spread(60_000.0),
                floor_down + self.spread(30_000.0),
            ];
        }
        let mut up = floor_up + self.spread(line.spread_ns[0]);
        let mut down = floor_down + self.spread(line.spread_ns[1]);
        up += self.spread(line.evening_ns(at_ns));
        for e in now {
            if let Kind::Busy(load) = e.kind {
                let queue_ns = e.queue_at(at_ns) * (0.85 + 0.3 * self.unit());
                match load {
                    Load::Up => up += queue_ns as u64,
                    Load::Down => down += queue_ns as u64,
                }
            }
        }
        if self.unit() < 0.000_3 {
            up += self.spread(40e6);
        }
        [up, down]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bufferbane_store::Reader;

    #[test]
    fn the_store_holds_what_the_file_beside_it_says() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("s.redb");
        let options = Options {
            days: 0.25,
            series: 5,
            hz: 0.5,
            seed: 3,
            out: out.clone(),
        };
        let made = make(&options).unwrap();
        let text = std::fs::read_to_string(truth_path(&out)).unwrap();
        let truth: Value = serde_json::from_str(&text).unwrap();
        let reader = Reader::open(&out).unwrap();
        assert_eq!(reader.check().unwrap().samples, made.samples);
        assert_eq!(truth["samples"], made.samples);
        let (from, to) = (BEGIN_WALL_NS, BEGIN_WALL_NS + 21_600_000_000_000);
        let known = truth["series"].as_array().unwrap();
        for ((id, _), known) in reader.series().unwrap().iter().zip(known) {
            let summary = reader.summary(*id, from, to + 10_000_000_000).unwrap();
            assert_eq!(known["sent"], summary.sent);
            assert_eq!(known["lost"], summary.lost);
        }
        // An outage is there in the samples, not only by name.
        let outage = truth["events"]
            .as_array()
            .unwrap()
            .iter()
            .find(|e| e["kind"] == "outage" && e["interface"] == "eth0")
            .unwrap();
        let at = |key: &str| outage[key].as_i64().unwrap();
        let id = *reader.series().unwrap().keys().next().unwrap();
        let within = reader
            .summary(id, at("start_ns") + 4_000_000_000, at("end_ns"))
            .unwrap();
        assert!(within.sent > 3 && within.lost == within.sent, "{within:?}");
        assert!(make(&options).is_err(), "nothing is overwritten");
    }
}
