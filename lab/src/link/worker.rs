//! The thread that does the work of all lines of a home.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::frame;
use super::lane::{Decision, Lane};
use super::passage::{Fate, Passage, Way};
use super::plan::Direction;
use super::wire::{self, Batch, FRAME, Port, wall_ns};
use super::{Shared, Stop};

/// The last part of the wait for a release is spent spinning, ns: a timer may be that late.
const SPIN_NS: i64 = 60_000;
/// Nobody waits longer than this, so that plans and the end are noticed, ns.
const LONGEST_WAIT_NS: i64 = 10_000_000;
/// The kernel stops a real-time thread that has run for 95 % of a second. This one sleeps so much of
/// its time by itself, per mille, in pieces that do not matter.
const SLEEP_PERMILLE: i64 = 90;
const SLEEP_PIECE_NS: i64 = 20_000;
/// Sleep is owed for this long at most, ns: idle time does not make up for busy time much later.
const ACCOUNT_NS: i64 = 50_000_000;
/// How often it asks the kernel what was missed, ns.
const ASK_EVERY_NS: i64 = 100_000_000;

/// A frame on its way.
struct Held {
    bytes: Box<[u8; FRAME]>,
    len: usize,
    /// `None` where nothing is written down of it.
    passage: Option<Passage>,
    line: usize,
    to: usize,
}

/// One line: what it does, and its two ends.
pub(super) struct Line {
    shared: Arc<Shared>,
    /// The client's side first: what arrives at 0 goes up.
    ports: [Port; 2],
    lanes: [Lane; 2],
    plan: [Direction; 2],
    generation: u64,
    /// What is to be logged when the lock is free.
    noted: Vec<(Passage, i64)>,
    missed: u64,
}

impl Line {
    pub(super) fn new(shared: Arc<Shared>, ports: [Port; 2], seed: u64) -> Self {
        let start_ns = wall_ns();
        let plan = shared.plan.lock().map_or_else(
            |poisoned| poisoned.into_inner().clone(),
            |plan| plan.clone(),
        );
        Self {
            shared,
            ports,
            lanes: [Lane::new(seed, start_ns), Lane::new(!seed, start_ns)],
            plan: plan.directions,
            generation: plan.generation,
            noted: Vec::new(),
            missed: 0,
        }
    }

    fn look_at_plan(&mut self) {
        if self.shared.generation.load(Ordering::Acquire) == self.generation {
            return;
        }
        // Never wait for a thread that this one may keep from running; the next turn will do.
        if let Ok(plan) = self.shared.plan.try_lock() {
            self.plan = plan.directions.clone();
            self.generation = plan.generation;
            self.lanes.iter_mut().for_each(Lane::plan_changed);
        }
    }

    fn write_log(&mut self) {
        if self.noted.is_empty() && self.missed == 0 {
            return;
        }
        if let Ok(mut log) = self.shared.log.try_lock() {
            for (passage, now_ns) in self.noted.drain(..) {
                log.add(&passage, now_ns);
            }
            log.add_missed(std::mem::take(&mut self.missed));
        }
    }

    fn ask_kernel(&mut self) {
        self.missed += self.ports.iter().map(Port::missed).sum::<u64>();
    }
}

/// See the module.
pub(super) struct Worker {
    lines: Vec<Line>,
    stop: Arc<Stop>,
    /// (release time, order, place in `held`).
    queue: BinaryHeap<Reverse<(i64, u64, usize)>>,
    held: Vec<Held>,
    free: Vec<usize>,
    order: u64,
    slept_ns: i64,
    account_since_ns: i64,
    poll: Vec<libc::pollfd>,
}

impl Worker {
    pub(super) fn new(lines: Vec<Line>, stop: Arc<Stop>) -> Self {
        Self {
            lines,
            stop,
            queue: BinaryHeap::new(),
            held: Vec::new(),
            free: Vec::new(),
            order: 0,
            slept_ns: 0,
            account_since_ns: wall_ns(),
            poll: Vec::new(),
        }
    }

    pub(super) fn run(mut self) {
        // Without the privilege the releases are a little later, and the log says by how much.
        let _ = bufferbane_linux_io::host::run_realtime(10);
        let mut batch = Batch::new();
        let mut asked_ns = wall_ns();
        while !self.stop.0.load(Ordering::Relaxed) {
            for line in 0..self.lines.len() {
                self.lines[line].look_at_plan();
                self.take_in(line, &mut batch);
            }
            self.release_due();
            for line in &mut self.lines {
                line.write_log();
            }
            let now_ns = wall_ns();
            if now_ns - asked_ns > ASK_EVERY_NS {
                asked_ns = now_ns;
                self.lines.iter_mut().for_each(Line::ask_kernel);
            }
            self.pause(now_ns);
        }
        for line in &mut self.lines {
            line.ask_kernel();
            line.write_log();
        }
    }

    /// Waits for the next arrival or release, or at least gives away the CPU as long as it owes.
    fn pause(&mut self, now_ns: i64) {
        let next_ns = self
            .queue
            .peek()
            .map_or(LONGEST_WAIT_NS, |Reverse((at, ..))| at - now_ns);
        if next_ns > SPIN_NS {
            let ports = self.lines.iter().flat_map(|l| &l.ports);
            wire::wait(
                ports,
                (next_ns - SPIN_NS).min(LONGEST_WAIT_NS),
                &mut self.poll,
            );
            self.slept_ns += wall_ns() - now_ns;
            return;
        }
        let since_ns = now_ns - self.account_since_ns;
        if self.slept_ns * 1000 < since_ns * SLEEP_PERMILLE - SLEEP_PIECE_NS * 1000 {
            wire::sleep(SLEEP_PIECE_NS);
            self.slept_ns += wall_ns() - now_ns;
        }
        if !(0..ACCOUNT_NS).contains(&since_ns) {
            self.account_since_ns = now_ns;
            self.slept_ns = 0;
        }
    }

    fn take_in(&mut self, index: usize, batch: &mut Batch) {
        for from in 0..2 {
            loop {
                let Self {
                    lines,
                    queue,
                    held,
                    free,
                    order,
                    ..
                } = self;
                let Line {
                    ports,
                    lanes,
                    plan,
                    noted,
                    ..
                } = &mut lines[index];
                let (lane, plan, way) = (&mut lanes[from], &plan[from], Way::BOTH[from]);
                let mut hold = |at_ns: i64, frame: &[u8], passage: Option<Passage>| {
                    let place = free.pop().unwrap_or_else(|| {
                        held.push(Held {
                            bytes: Box::new([0; FRAME]),
                            len: 0,
                            passage: None,
                            line: 0,
                            to: 0,
                        });
                        held.len() - 1
                    });
                    let h = &mut held[place];
                    h.bytes[..frame.len()].copy_from_slice(frame);
                    h.len = frame.len();
                    (h.passage, h.line, h.to) = (passage, index, 1 - from);
                    queue.push(Reverse((at_ns, *order, place)));
                    *order += 1;
                };
                let more = batch.receive(&ports[from], |bytes, arrival_ns| {
                    let Some(facts) = frame::facts_of(bytes, way) else {
                        // Neighbour discovery and the like pass at once: losing them would only
                        // confuse.
                        return hold(arrival_ns, bytes, None);
                    };
                    let mut passage = Passage {
                        flow: facts.flow,
                        far: facts.far,
                        mark: facts.mark,
                        tos: facts.tos,
                        ttl: facts.ttl,
                        ..Passage::arrived(way, arrival_ns, bytes.len() as u32)
                    };
                    let decision = if plan.spares(facts.far) {
                        lane.spare(plan, arrival_ns)
                    } else {
                        lane.decide(plan, arrival_ns, bytes.len() as u64)
                    };
                    match decision {
                        Decision::Drop(fate) => {
                            passage.fate = fate;
                            noted.push((passage, arrival_ns));
                        }
                        Decision::Leave {
                            at_ns,
                            queue_ns,
                            twice,
                        } => {
                            if !plan.spares(facts.far) {
                                frame::rewrite(bytes, plan.rewrite);
                            }
                            passage.planned_ns = at_ns;
                            passage.queue_ns = queue_ns;
                            hold(at_ns, bytes, Some(passage));
                            if twice {
                                passage.copy = true;
                                hold(at_ns, bytes, Some(passage));
                            }
                        }
                    }
                });
                self.lines[index].missed += batch.take_oversized();
                if !more {
                    break;
                }
            }
        }
    }

    fn release_due(&mut self) {
        while let Some(&Reverse((at_ns, _, place))) = self.queue.peek() {
            let now_ns = wall_ns();
            if at_ns > now_ns {
                break;
            }
            self.queue.pop();
            let held = &mut self.held[place];
            let line = &mut self.lines[held.line];
            let sent = line.ports[held.to].send(&held.bytes[..held.len]);
            if let Some(mut passage) = held.passage.take() {
                passage.fate = if sent {
                    Fate::Delivered(now_ns)
                } else {
                    Fate::Refused
                };
                line.noted.push((passage, now_ns));
            }
            self.free.push(place);
        }
    }
}
