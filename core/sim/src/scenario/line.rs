//! Lines as probes see them: what each probe meets, and what the line itself knows of it.

use std::collections::{BTreeMap, BinaryHeap};

use bufferbane_core::detect::{Kind, Load, Probe, Thresholds};
use bufferbane_core::sample::Status;
use bufferbane_core::time::Monotonic;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use super::oracle::AROUND_NS;
use super::spec::{Edges, Effect, Expected, Scenario, TIMEOUT_NS, What};
use crate::{MS, S};

/// What a line reports.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Report {
    /// What became of a probe.
    Probe(u8, Probe),
    /// More of it.
    Revised(u8, Probe),
    /// Load of a line.
    Load(u8, Load),
    /// A measured capacity: line, whether up, bit/s.
    Capacity(u8, bool, u64),
}

struct Due {
    at_ns: u64,
    order: u64,
    what: Later,
}

enum Later {
    Send(usize),
    Answer(usize, Probe),
    GiveUp(usize, Probe, Status),
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at_ns, other.order).cmp(&(self.at_ns, self.order))
    }
}

#[derive(Default, Clone)]
struct Memory {
    slot: u64,
    /// The latest sent of the answered.
    answered_ns: u64,
    /// Lost, direction not told yet.
    untold: Vec<(Probe, Status)>,
    rtt_before_ns: u64,
    /// The event that the probe before was jittered by.
    jittered_by: Option<usize>,
    /// Losses in a row, and near to each other: their first, their last, and whether three of them
    /// were in a row.
    row: u32,
    chain: (u64, u64, bool),
    /// How many were sent, and lost of them.
    counts: (u64, u64),
    dead_by: Option<usize>,
}

/// What became of a probe near to scattered loss.
#[derive(Clone, Copy, Debug)]
pub struct Fate {
    /// When it was sent, ns.
    pub at_ns: u64,
    /// Of which series.
    pub series: u8,
    /// Whether it was lost.
    pub lost: bool,
}

/// A scenario at work.
pub struct Run {
    /// What happens.
    pub scenario: Scenario,
    rng: ChaCha8Rng,
    due: BinaryHeap<Due>,
    order: u64,
    memory: Vec<Memory>,
    /// First and last probe that an event touched, by event and series.
    pub touched: BTreeMap<(usize, usize), (u64, u64)>,
    /// What became of all probes near to scattered loss, in the order of time.
    pub history: Vec<Fate>,
    /// When that is, ns.
    scattered: Vec<(u64, u64)>,
    next_second_ns: u64,
    next_capacity: usize,
    /// Effects by time, and which of them may matter now.
    first_effect: usize,
    /// Loads by time, and which of them may matter now.
    first_load: usize,
}

impl Run {
    /// At its beginning.
    #[must_use]
    pub fn new(mut scenario: Scenario, seed: u64) -> Self {
        scenario.effects.sort_by_key(|e| e.from_ns);
        scenario.capacities.sort_by_key(|c| c.1);
        scenario.loads.sort_by_key(|l| l.1);
        let is_scattered = |e: &&Effect| {
            let made = e.makes.and_then(|n| scenario.expected.get(n));
            matches!(e.what, What::Loss { .. }) && made.is_some_and(|x| x.kind == Kind::PacketLoss)
        };
        let around = |e: &Effect| (e.from_ns.saturating_sub(AROUND_NS), e.to_ns + AROUND_NS);
        let scattered = scenario.effects.iter().filter(is_scattered).map(around);
        let mut run = Self {
            history: Vec::new(),
            scattered: scattered.collect(),
            memory: vec![Memory::default(); scenario.series.len()],
            touched: BTreeMap::new(),
            rng: ChaCha8Rng::seed_from_u64(seed),
            due: BinaryHeap::new(),
            order: 0,
            scenario,
            next_second_ns: S,
            next_capacity: 0,
            first_effect: 0,
            first_load: 0,
        };
        for i in 0..run.scenario.series.len() {
            let at_ns = run.chance_ns(run.scenario.series[i].facts.interval_ns);
            run.push(at_ns, Later::Send(i));
        }
        run
    }

    /// How many probes a series sent, and how many of these its line lost.
    #[must_use]
    pub fn counts(&self, series: usize) -> (u64, u64) {
        self.memory[series].counts
    }

    fn push(&mut self, at_ns: u64, what: Later) {
        self.order += 1;
        self.due.push(Due {
            at_ns,
            order: self.order,
            what,
        });
    }

    fn chance(&mut self) -> f64 {
        self.rng.next_u32() as f64 / 4_294_967_296.0
    }

    fn chance_ns(&mut self, below_ns: u64) -> u64 {
        if below_ns == 0 {
            0
        } else {
            self.rng.next_u64() % below_ns
        }
    }

    /// Everything that becomes known up to `now_ns`.
    pub fn until(&mut self, now_ns: u64, out: &mut Vec<Report>) {
        while let Some(due) = self.due.peek() {
            if due.at_ns > now_ns {
                break;
            }
            let Some(Due { at_ns, what, .. }) = self.due.pop() else {
                break;
            };
            match what {
                Later::Send(i) => self.send(i, at_ns),
                Later::Answer(i, p) => {
                    let m = &mut self.memory[i];
                    m.answered_ns = m.answered_ns.max(p.sent.as_nanos());
                    out.push(Report::Probe(i as u8, p));
                    for (mut lost, status) in std::mem::take(&mut m.untold) {
                        lost.status = status;
                        out.push(Report::Revised(i as u8, lost));
                    }
                }
                Later::GiveUp(i, mut p, status) => {
                    let m = &mut self.memory[i];
                    if self.scenario.series[i].reflector && status != Status::Unsent {
                        if m.answered_ns > p.sent.as_nanos() {
                            p.status = status;
                        } else {
                            m.untold.push((p, status));
                        }
                    } else if status == Status::Unsent {
                        p.status = status;
                    }
                    out.push(Report::Probe(i as u8, p));
                }
            }
        }
        while self.next_second_ns <= now_ns {
            let at = self.next_second_ns;
            self.next_second_ns += S;
            // Loads may overlap, but none lasts longer than an hour.
            while self
                .scenario
                .loads
                .get(self.first_load)
                .is_some_and(|(_, _, to, _)| to + 3600 * S < at)
            {
                self.first_load += 1;
            }
            for (line, sees) in self.scenario.sees_household.iter().enumerate() {
                if !sees {
                    continue;
                }
                let mut load = Load {
                    up_bps: 20_000,
                    down_bps: 60_000,
                };
                let loads = self.scenario.loads[self.first_load..]
                    .iter()
                    .take_while(|(_, from, ..)| *from < at);
                for (l, from, to, more) in loads {
                    if usize::from(*l) == line && *from < at && at - S < *to {
                        load.up_bps += more.up_bps;
                        load.down_bps += more.down_bps;
                    }
                }
                out.push(Report::Load(line as u8, load));
            }
        }
        while let Some((line, at, up, bps)) =
            self.scenario.capacities.get(self.next_capacity).copied()
        {
            if at > now_ns {
                break;
            }
            self.next_capacity += 1;
            out.push(Report::Capacity(line, up, bps));
        }
    }

    fn touch(&mut self, series: usize, event: usize, at_ns: u64) {
        let e = &mut self.scenario.expected[event];
        if e.edges != Edges::Given {
            let one = self
                .touched
                .entry((event, series))
                .or_insert((at_ns, at_ns));
            for b in [e.bounds_ns.get_or_insert((at_ns, at_ns)), one] {
                *b = (b.0.min(at_ns), b.1.max(at_ns));
            }
        }
    }

    fn send(&mut self, i: usize, at_ns: u64) {
        let spec = self.scenario.series[i];
        let interval_ns = spec.facts.interval_ns;
        let turn = self.memory[i].slot as usize % spec.sizes.len().max(1);
        let size = spec.sizes.get(turn).copied().unwrap_or(spec.facts.size);
        self.memory[i].slot += 1;
        let next_ns = self.memory[i].slot * interval_ns + self.chance_ns(interval_ns * 8 / 10);
        self.push(next_ns.max(at_ns + 1), Later::Send(i));
        while self
            .scenario
            .effects
            .get(self.first_effect)
            .is_some_and(|e| e.to_ns + 10 * S < at_ns)
        {
            self.first_effect += 1;
        }

        let half_ns = spec.base_ns / 2;
        let noise = |r: f64| (-(1.0 - r).ln() * self.scenario.noise_ns as f64 / 2.0) as u64;
        let (a, b) = (self.rng.next_u32(), self.rng.next_u32());
        let unit = |x: u32| f64::from(x) / 4_294_967_296.0;
        let (mut up_ns, mut down_ns) = (noise(unit(a)), noise(unit(b)));
        let day_ns = 86_400 * S;
        if self.scenario.daily_ns > 0 {
            let phase = (at_ns % day_ns) as f64 / day_ns as f64 * std::f64::consts::TAU;
            down_ns += ((1.0 - phase.cos()) / 2.0 * self.scenario.daily_ns as f64) as u64;
        }
        if let Some((from, to, extra_ns)) = self.scenario.evening {
            let (day, hour) = (at_ns / day_ns, at_ns % day_ns / (3600 * S));
            if (from..to).contains(&day) && (19..23).contains(&hour) {
                up_ns += extra_ns;
            }
        }
        // A busy host somewhere: one probe in ten thousand is late by itself.
        if a % 10_000 == 0 {
            down_ns += 10 * MS + self.chance_ns(60 * MS);
        }
        let mut ttl_down = 57;
        let (mut in_test, mut refused) = (false, false);
        let mut lost: Option<(Status, Option<usize>)> = None;
        let (mut base_longer_ns, mut jittered) = (0, None);
        let mut delayed = Vec::new();
        let effects: Vec<Effect> = self.scenario.effects[self.first_effect..]
            .iter()
            .take_while(|e| e.from_ns < at_ns + 10 * S)
            .filter(|e| (e.who)(&spec.facts))
            .copied()
            .collect();
        let within = |e: &Effect, t: u64| (e.from_ns..e.to_ns).contains(&t);
        for e in &effects {
            match e.what {
                What::Delay {
                    up_ns: u,
                    down_ns: d,
                    wobble_ns,
                } if within(e, at_ns) => {
                    let share = self.chance_ns(wobble_ns);
                    up_ns += u + if u > 0 { share } else { 0 };
                    down_ns += d + if u == 0 { share } else { 0 };
                    delayed.push((e.makes, u + d + share));
                }
                What::Jitter {
                    up_ns: u,
                    down_ns: d,
                } if within(e, at_ns) => {
                    up_ns += self.chance_ns(u);
                    down_ns += self.chance_ns(d);
                    jittered = Some(e.makes);
                }
                What::Path { hops, longer_ns } if within(e, at_ns) => {
                    ttl_down -= hops;
                    base_longer_ns += longer_ns;
                    if let Some(event) = e.makes {
                        let bounds = self.scenario.expected[event].bounds_ns;
                        if bounds.is_none() {
                            self.scenario.expected[event].bounds_ns = Some((at_ns, at_ns));
                        }
                    }
                }
                What::Grants { every_ns, collide } if within(e, at_ns) => {
                    // The head end's clock is another, 20 ppm faster.
                    let asked = at_ns + up_ns + at_ns / 50_000;
                    up_ns += asked.next_multiple_of(every_ns) - asked;
                    if collide > 0 && self.rng.next_u32().is_multiple_of(collide) {
                        up_ns += every_ns * (1 + u64::from(self.rng.next_u32() % 3));
                    }
                }
                What::Detour { up_ns: longer_ns } if within(e, at_ns) => {
                    up_ns += longer_ns * self.chance_ns(2);
                }
                What::Test if within(e, at_ns) => in_test = true,
                _ => {}
            }
        }
        let rtt_ns = spec.base_ns + base_longer_ns + up_ns + down_ns;
        for e in &effects {
            match e.what {
                What::Loss { up, down } if within(e, at_ns) => {
                    if lost.is_none() && self.chance() < up {
                        lost = Some((Status::LostUp, e.makes));
                    }
                    if lost.is_none() && self.chance() < down {
                        lost = Some((Status::LostDown, e.makes));
                    }
                }
                What::Hole(from) if within(e, at_ns) && size >= from => {
                    lost = Some((Status::LostUp, e.makes));
                }
                What::Refused { share } if within(e, at_ns) => {
                    if lost.is_none() && self.chance() < share {
                        lost = Some((Status::Lost, None));
                    }
                    refused = true;
                }
                What::Cut { up, down, unsent } => {
                    if unsent && within(e, at_ns) {
                        lost = Some((Status::Unsent, e.makes));
                    } else if up && within(e, at_ns + MS) {
                        lost = Some((Status::LostUp, e.makes));
                    } else if down && within(e, at_ns + rtt_ns) && lost.is_none() {
                        lost = Some((Status::LostDown, e.makes));
                    }
                }
                _ => {}
            }
        }
        if lost.is_none() && self.chance() < self.scenario.background_loss {
            let up = self.rng.next_u32().is_multiple_of(2);
            lost = Some((if up { Status::LostUp } else { Status::LostDown }, None));
        }
        let mut p = Probe {
            sent: Monotonic::from_nanos(at_ns),
            status: Status::Lost,
            eighths: Probe::eighths_of(size),
            in_test,
            dropped: false,
            ttl_up: None,
            ttl_down: None,
            rtt_ns: None,
            queue_up_ns: None,
            queue_down_ns: None,
            raw_up_ns: None,
            raw_down_ns: None,
        };
        p.dropped = refused && lost.is_some();
        if !matches!(lost, Some((Status::Unsent, _))) {
            let counts = &mut self.memory[i].counts;
            counts.0 += 1;
            counts.1 += u64::from(lost.is_some() && !p.dropped);
        }
        self.note_truth(i, at_ns, rtt_ns, &delayed, jittered, lost);
        let mut scattered = self.scattered.iter();
        if scattered.any(|(from, to)| (*from..*to).contains(&at_ns)) {
            self.history.push(Fate {
                at_ns,
                series: i as u8,
                lost: lost.is_some(),
            });
        }
        match lost {
            Some((Status::Unsent, _)) => {
                self.push(at_ns, Later::GiveUp(i, p, Status::Unsent));
            }
            Some((status, _)) => self.push(at_ns + TIMEOUT_NS, Later::GiveUp(i, p, status)),
            None => {
                p.status = Status::Ok;
                p.rtt_ns = Some(bufferbane_core::detect::clipped(rtt_ns));
                p.ttl_down = Some(ttl_down);
                if spec.reflector {
                    p.ttl_up = Some(56);
                    p.queue_up_ns = Some(up_ns as u32);
                    p.queue_down_ns = Some(down_ns as u32);
                    p.raw_up_ns = Some((half_ns + up_ns) as i64 - 777_777_777_777);
                    p.raw_down_ns =
                        Some((half_ns + base_longer_ns + down_ns) as i64 + 777_777_777_777);
                }
                self.push(at_ns + rtt_ns, Later::Answer(i, p));
            }
        }
    }

    /// The event that a burst at `at_ns` makes part of: another one where `event` was over for so long that
    /// trouble which comes back is told again.
    fn after_hold_down(&mut self, event: usize, at_ns: u64) -> usize {
        let e = self.scenario.expected[event];
        let Some((_, last_ns)) = e.bounds_ns else {
            return event;
        };
        if at_ns.saturating_sub(last_ns) < Thresholds::default().hold_down_ns {
            return event;
        }
        let next = self.scenario.expected.len();
        self.scenario.expected.push(Expected {
            bounds_ns: None,
            ..e
        });
        let effects = self.scenario.effects.iter_mut();
        for effect in effects.filter(|f| f.makes == Some(event)) {
            effect.makes = Some(next);
        }
        next
    }

    /// Writes down what the expected events have to say.
    fn note_truth(
        &mut self,
        i: usize,
        at_ns: u64,
        rtt_ns: u64,
        delayed: &[(Option<usize>, u64)],
        jittered: Option<Option<usize>>,
        lost: Option<(Status, Option<usize>)>,
    ) {
        let base_ns = self.scenario.series[i].base_ns;
        if let Some((_, event)) = lost {
            if let Some(event) = event {
                match self.scenario.expected[event].edges {
                    Edges::Runs => {
                        let m = &mut self.memory[i];
                        m.row += 1;
                        if at_ns - m.chain.1 > S / 2 {
                            m.chain = (at_ns, at_ns, false);
                        }
                        m.chain.1 = at_ns;
                        m.chain.2 |= m.row >= 3;
                        let (first, _, told) = m.chain;
                        if told {
                            let event = self.after_hold_down(event, first);
                            self.touch(i, event, first);
                            self.touch(i, event, at_ns);
                        }
                    }
                    Edges::Answered => {
                        self.memory[i].dead_by = Some(event);
                        self.touch(i, event, at_ns);
                    }
                    Edges::Given | Edges::Touched => self.touch(i, event, at_ns),
                }
            }
            return;
        }
        self.memory[i].row = 0;
        if let Some(event) = self.memory[i].dead_by.take() {
            self.touch(i, event, at_ns);
        }
        for (event, extra_ns) in delayed {
            let Some(event) = event else { continue };
            let counts = match self.scenario.expected[*event].kind {
                Kind::Bufferbloat => *extra_ns > 100 * MS,
                _ => *extra_ns > 20 * MS && rtt_ns > 3 * base_ns,
            };
            if counts {
                self.touch(i, *event, at_ns);
            }
        }
        let m = &mut self.memory[i];
        let far_apart = m.rtt_before_ns > 0 && rtt_ns.abs_diff(m.rtt_before_ns) > 10 * MS;
        let event = jittered.flatten();
        m.rtt_before_ns = rtt_ns;
        let before = std::mem::replace(&mut m.jittered_by, event);
        if let Some(event) = event.or(before).filter(|_| far_apart) {
            self.touch(i, event, at_ns);
        }
    }
}
