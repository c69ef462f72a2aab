//! What happens, all at parts of the whole span, so that a short one has all of it:
//!
//! | at | what |
//! |---|---|
//! | 0 | it boots with a clock of 1970, which is set after a minute |
//! | 0.2 to 0.22 | the clock is an hour ahead |
//! | 0.3, 0.7 | the run is cut off without a word, and the host boots again |
//! | 0.4 to 0.42 | one host (the reflector, where there is one) does not answer |
//! | 0.5 | an orderly end; the host boots with a clock that is six years ahead for two minutes |
//! | 0.85 | the size limit is set to what there is without a quarter of the samples |
//! | 0.95 | summer time ends |
//! | hours 10 to 16 of each day | there is a second uplink |
//!
//! After each of these, before it is given up, what the store has of it is held against what was recorded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bufferbane_core::clock::FloorEstimator;
use bufferbane_core::household::Minute;
use bufferbane_core::sample::Status;
use bufferbane_core::time::Monotonic;
use bufferbane_linux_io::counters;
use bufferbane_store::{
    Event, EventId, Reader, SeriesKind, Severity, Trust, Writer, WriterOptions,
};

use super::counted::Counted;
use super::outcome::Outcome;
use super::plan::Plan;
use super::probed::{Probed, probed};
use super::{BLOCK, HEADERS, S, written_bytes};
use crate::bench::Fail;
use crate::synth::line::{Kind, Line};
use crate::synth::{BEGIN_NS, health};

const HOUR_S: u64 = 3600;
const DAY_S: u64 = 24 * HOUR_S;
/// When it is looked whether all is there, and from when on, in hundredths: what is a quarter old is given up.
const LOOKS: [(u64, u64); 4] = [(28, 5), (45, 22), (60, 37), (75, 52)];
/// A boot takes so long.
const BOOT_S: u64 = 90;
/// The daemon starts so long after the kernel.
const STARTED_NS: u64 = 20 * S;

/// A recording as it goes on.
struct Life<'a> {
    plan: &'a Plan,
    path: PathBuf,
    writer: Writer,
    /// The second at which this boot's clock was 0.
    boot_s: u64,
    boots: u32,
    probed: Vec<Probed<'a>>,
    /// What was recorded: committed, and not yet.
    kept: Counted,
    fresh: Counted,
    open: BTreeMap<&'static str, (EventId, Event)>,
    trust: Trust,
    /// How far the wall clock is ahead of the truth, s.
    ahead_s: i64,
    max_bytes: Option<u64>,
    /// Commits of the days that are over.
    told: u64,
    outcome: Outcome,
}

/// Lives through it with a store at `path`, and looks whether all is there.
///
/// # Errors
/// What could not be done, and samples that are missing.
pub fn live(plan: &Plan, path: &Path) -> Result<Outcome, Fail> {
    let lines = [0, 1].map(|i| Line::new(i, plan.seconds * S, plan.seed));
    let mut life = Life::begin(plan, path, &lines)?;
    let begun = written_bytes()?;
    let (mut before, mut commit_at, mut retain_at) = (begun, plan.commit_s, 60);
    let mut next_episode = 0;
    let mut going_on: Vec<(u64, &'static str)> = Vec::new();
    let mut off_until = 0;
    for second in 0..plan.seconds {
        if second > 0 && second % DAY_S == 0 {
            before = life.day_ends(before)?;
        }
        if second == plan.at(10) {
            life.outcome.early_bytes = resident()?;
        }
        let cut_off = second == plan.at(30) || second == plan.at(70);
        if cut_off || second == plan.at(50) {
            life = life.end(second, cut_off)?;
            off_until = second + BOOT_S;
        }
        if second < off_until {
            continue;
        }
        if second == off_until && second > 0 {
            life.boot(second)?;
            retain_at = second + 60;
        }
        let mut told = life.clock(second);
        told |= life.uplinks(second);
        // What the detectors would tell of the first line, at once.
        while let Some(e) = lines[0].episodes.get(next_episode)
            && e.from_ns / S <= second
        {
            next_episode += 1;
            if e.kind != Kind::Silence && e.to_ns / S > second {
                let kind = e.event_kind();
                life.begin_event(second, kind, "eth0");
                going_on.push((e.to_ns / S, kind));
                told = true;
            }
        }
        going_on.retain(|(end, kind)| {
            let over = *end <= second;
            if over {
                life.end_event(second, kind);
                told = true;
            }
            !over
        });
        life.probe(second);
        if second % 60 == 59 {
            life.minute(second)?;
        }
        if told || second >= commit_at {
            commit_at = second + plan.commit_s;
            life.commit()?;
        }
        if let Some((now, from)) = LOOKS.iter().find(|(now, _)| second == plan.at(*now)) {
            life.commit()?;
            let reader = Reader::open(&life.path).map_err(failed)?;
            // What the clock shows is what it was at least a hundredth ago.
            let looked = life
                .kept
                .look(plan, &reader, plan.at(*from)..plan.at(now - 1))?;
            life.outcome.looked(looked);
        }
        if second == plan.at(85) {
            life.limit()?;
        }
        if second >= retain_at {
            let unfinished = life.retain(second)?;
            retain_at = second + if unfinished { 60 } else { HOUR_S };
        }
    }
    if plan.seconds.is_multiple_of(DAY_S) {
        life.day_ends(before)?;
    }
    let headers = life.outcome.commits * HEADERS * BLOCK;
    life.outcome.written_bytes = written_bytes()? - begun + headers;
    life.outcome.late_bytes = resident()?;
    life.finish()
}

fn resident() -> Result<u64, Fail> {
    let usage = counters::process_usage().map_err(|e| Fail::of("/proc/self", e))?;
    Ok(usage.resident_bytes)
}

fn failed(e: impl std::fmt::Display) -> Fail {
    Fail::of("the store", e)
}

impl<'a> Life<'a> {
    fn begin(plan: &'a Plan, path: &Path, lines: &'a [Line; 2]) -> Result<Self, Fail> {
        let writer = open(path)?;
        let mut life = Self {
            plan,
            path: path.to_owned(),
            writer,
            boot_s: 0,
            boots: 0,
            probed: probed(plan, lines),
            kept: Counted::default(),
            fresh: Counted::default(),
            open: BTreeMap::new(),
            trust: Trust::None,
            ahead_s: 0,
            max_bytes: None,
            told: 0,
            outcome: Outcome::default(),
        };
        // 1970, until it is set.
        life.ahead_s = -plan.wall_s(0);
        life.boot(0)?;
        Ok(life)
    }

    fn mono(&self, second: u64) -> Monotonic {
        Monotonic::from_nanos((second - self.boot_s) * S + STARTED_NS)
    }

    /// What the wall clock shows, ns since 1970.
    fn shown_ns(&self, second: u64) -> i64 {
        (self.plan.wall_s(second) + self.ahead_s) * S.cast_signed()
    }

    /// The host has booted.
    fn boot(&mut self, second: u64) -> Result<(), Fail> {
        self.boots += 1;
        self.boot_s = second;
        (self.trust, self.ahead_s) = match self.boots {
            1 => (Trust::None, self.ahead_s),
            3 => (Trust::Plausible, 6 * 365 * DAY_S.cast_signed()),
            _ => (Trust::Disciplined, 0),
        };
        let id = format!("5e17f00d-0000-4000-8000-{:012}", self.boots);
        let (now, wall_ns) = (self.mono(second), self.shown_ns(second));
        let boot = self
            .writer
            .begin_boot(&id, now, wall_ns, self.trust)
            .map_err(failed)?;
        self.kept.begin_boot(boot, second, STARTED_NS);
        for p in &mut self.probed {
            p.synth.id = Some(self.writer.series(&p.synth.info));
            p.waiting.clear();
            if p.synth.info.kind == SeriesKind::Udp {
                p.synth.floor = Some(Box::new(FloorEstimator::default()));
            }
        }
        Ok(())
    }

    /// The run ends, and another opens the store.
    fn end(mut self, second: u64, cut_off: bool) -> Result<Self, Fail> {
        self.open.clear();
        let writer = if cut_off {
            self.fresh = Counted::default();
            drop(self.writer);
            open(&self.path)?
        } else {
            self.settle();
            let now = Monotonic::from_nanos((second - self.boot_s) * S + STARTED_NS);
            self.writer.end_events(now);
            self.writer.close().map_err(failed)?;
            open(&self.path)?
        };
        Ok(Self { writer, ..self })
    }

    /// The clock is set; whether it was.
    fn clock(&mut self, second: u64) -> bool {
        let since_boot_s = second - self.boot_s;
        let (trust, ahead_s) = if second == self.plan.at(20) {
            (Trust::Disciplined, HOUR_S.cast_signed())
        } else if second == self.plan.at(22)
            || (self.boots == 1 && since_boot_s == 60)
            || (self.boots == 3 && since_boot_s == 120)
        {
            (Trust::Disciplined, 0)
        } else {
            return false;
        };
        (self.trust, self.ahead_s) = (trust, ahead_s);
        let (now, wall_ns) = (self.mono(second), self.shown_ns(second));
        self.writer.anchor(now, wall_ns, trust);
        let mut event = self.event_of(second, "clock_step", "");
        event.end_ns = Some(event.start_ns);
        self.writer.event(event);
        true
    }

    /// The second uplink and the host that vanishes; whether something was told of them.
    fn uplinks(&mut self, second: u64) -> bool {
        let kind = match second % DAY_S {
            at if at == 10 * HOUR_S => "link_up",
            at if at == 16 * HOUR_S => "link_down",
            _ if second == self.plan.at(40) => {
                self.begin_event(second, "reflector_lost", "eth0");
                return true;
            }
            _ if second == self.plan.at(42) => {
                self.end_event(second, "reflector_lost");
                return true;
            }
            _ => return false,
        };
        let mut event = self.event_of(second, kind, "wwan0");
        event.end_ns = Some(event.start_ns);
        self.writer.event(event);
        true
    }

    fn event_of(&self, second: u64, kind: &'static str, interface: &str) -> Event {
        let (boot, now) = (self.writer.boot(), self.mono(second));
        let text = format!("{kind}, as it was made up");
        let mut event = Event::new(kind, Severity::Warning, boot, now, text);
        event.interface = interface.to_owned();
        event
    }

    fn begin_event(&mut self, second: u64, kind: &'static str, interface: &str) {
        self.end_event(second, kind);
        let event = self.event_of(second, kind, interface);
        let id = self.writer.event(event.clone());
        self.open.insert(kind, (id, event));
    }

    fn end_event(&mut self, second: u64, kind: &'static str) {
        let now_ns = self.mono(second).as_nanos();
        if let Some((id, mut event)) = self.open.remove(kind) {
            event.end_ns = Some(now_ns);
            self.writer.update_event(id, event);
        }
    }

    /// The probes of a second.
    fn probe(&mut self, second: u64) {
        let vanished = (self.plan.at(40)..self.plan.at(42)).contains(&second);
        let second_uplink = (10 * HOUR_S..16 * HOUR_S).contains(&(second % DAY_S));
        let shift_ns = BEGIN_NS + self.boot_s * S - STARTED_NS;
        for p in &mut self.probed {
            if p.second_uplink && !second_uplink {
                p.waiting.clear();
                continue;
            }
            let (from, to) = (second * S, (second + 1) * S);
            for slot in from.div_ceil(p.interval_ns)..to.div_ceil(p.interval_ns) {
                p.waiting.extend(p.synth.sample(slot, slot * p.interval_ns));
            }
            // Nothing is known of a probe before it has left.
            while let Some(id) = p.synth.id
                && let Some(mut sample) = p.waiting.front().copied()
                && sample.sent.as_nanos() - BEGIN_NS < to
            {
                p.waiting.pop_front();
                let true_ns = sample.sent.as_nanos() - BEGIN_NS;
                sample.sent = Monotonic::from_nanos(sample.sent.as_nanos() - shift_ns);
                if vanished && p.vanishes {
                    sample.status = Status::Lost;
                    (sample.rtt_ns, sample.raw_up_ns, sample.raw_down_ns) = (None, None, None);
                }
                self.writer.record(id, sample);
                if let Some(floor) = &mut p.synth.floor {
                    floor.on_sample(&sample);
                    while let Some(update) = floor.poll_update() {
                        self.writer.floor(id, &update);
                    }
                    // What changed is told by a daemon as events; here it is known.
                    while floor.poll_change().is_some() {}
                }
                // What is recorded before the clock is set is told by the clock that is right.
                let ahead_s = if self.trust == Trust::Disciplined {
                    self.ahead_s
                } else {
                    0
                };
                let shown_s = self.plan.wall_s(true_ns / S) + ahead_s;
                self.fresh.add(self.writer.boot(), shown_s, &sample);
                self.outcome.samples += 1;
            }
        }
    }

    /// What the daemon writes of each minute beside probes.
    fn minute(&mut self, second: u64) -> Result<(), Fail> {
        let now = self.mono(second);
        if let Some(p) = self.probed.first_mut() {
            let row = health(&mut p.synth);
            self.writer.health(now, &row).map_err(failed)?;
        }
        let mut minute = Minute::new();
        for n in 0..60 {
            // Rates that are not all the same take more room.
            let bps = 40_000 + (second * 7919 + n * 104_729) % 400_000;
            minute.down.rate_bps.add(bps * 8);
            minute.up.rate_bps.add(bps);
        }
        let begin = Monotonic::from_nanos(now.as_nanos().saturating_sub(59 * S));
        let written = self.writer.load_minute(begin, "eth0", &minute);
        written.map_err(failed)
    }

    /// Takes down what a day wrote, of which `before` had been written when it began; gives what has been
    /// written by now.
    fn day_ends(&mut self, before: u64) -> Result<u64, Fail> {
        let now = written_bytes()?;
        let commits =
            self.outcome.commits - std::mem::replace(&mut self.told, self.outcome.commits);
        let day = now - before + commits * HEADERS * BLOCK;
        self.outcome.days_bytes.push(day);
        Ok(now)
    }

    /// What was recorded so far is durable.
    fn settle(&mut self) {
        self.kept.append(std::mem::take(&mut self.fresh));
    }

    fn commit(&mut self) -> Result<(), Fail> {
        self.writer.commit().map_err(failed)?;
        self.outcome.commits += 1;
        self.settle();
        Ok(())
    }

    /// From now on there is room for all but a quarter of the samples.
    fn limit(&mut self) -> Result<(), Fail> {
        self.commit()?;
        let reader = Reader::open(&self.path).map_err(failed)?;
        let tables = reader.usage().map_err(failed)?;
        let samples = tables.iter().find(|t| t.table == "blocks");
        let data: u64 = tables.iter().map(|t| t.page_bytes).sum();
        self.outcome.before_limit_bytes = self.writer.file_bytes();
        self.outcome.limit_bytes = data - samples.map_or(0, |t| t.page_bytes / 4);
        self.max_bytes = Some(self.outcome.limit_bytes);
        Ok(())
    }

    /// A pass of retention; whether another is due soon.
    fn retain(&mut self, second: u64) -> Result<bool, Fail> {
        let retention = self.plan.retention(self.max_bytes);
        let report = self
            .writer
            .enforce_retention(&retention, self.shown_ns(second), self.trust)
            .map_err(failed)?;
        self.outcome.blocks_given_up += report.blocks;
        self.outcome.minutes_given_up += report.minutes;
        Ok(report.unfinished)
    }

    /// Ends it in order, and looks at what is there.
    fn finish(mut self) -> Result<Outcome, Fail> {
        while self.retain(self.plan.seconds)? {}
        self.settle();
        self.writer.close().map_err(failed)?;
        let reader = Reader::open(&self.path).map_err(failed)?;
        reader.check().map_err(failed)?;
        // The last tenth: young enough for what is kept, and over the end of summer time.
        let plan = self.plan;
        let looked = self.kept.look(plan, &reader, plan.at(90)..plan.seconds)?;
        self.outcome.looked(looked);
        drop(reader);
        let length = || {
            std::fs::metadata(&self.path)
                .map(|m| m.len())
                .map_err(failed)
        };
        self.outcome.file_bytes = length()?;
        while bufferbane_store::compact(&self.path).map_err(failed)? {}
        self.outcome.compact_bytes = length()?;
        Ok(self.outcome)
    }
}

fn open(path: &Path) -> Result<Writer, Fail> {
    Writer::open(path, WriterOptions::default()).map_err(failed)
}
