//! Every sample against the truth.

use bufferbane_core::sample::{Sample, Status};
use bufferbane_core::stats::summary::Summary;
use bufferbane_core::time::ClockSource;

use crate::world::{Truth, World};

/// What a check counted; a world whose samples are wrong does not get one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Probes sent.
    pub sent: u64,
    /// Answered, late ones included.
    pub answered: u64,
    /// Answered after the time-out.
    pub late: u64,
    /// Lost upward, and known to be.
    pub lost_up: u64,
    /// Lost downward, and known to be.
    pub lost_down: u64,
    /// Lost without a direction.
    pub lost: u64,
    /// Still open at the end.
    pub pending: u64,
    /// Answered, but a clock that a time was taken by was set meanwhile, so that the time says nothing.
    pub unsure: u64,
    /// Answered with kernel stamps at all four points.
    pub exact: u64,
}

/// How right what was said of queueing delay was, over some time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct QueueVerdict {
    /// Answered probes.
    pub answered: u64,
    /// Of these, those of which nothing was said.
    pub unknown: u64,
    /// 95 % of what was said was at most this wrong, the worse of both directions, ns.
    pub p95_ns: u64,
    /// The worst, ns.
    pub worst_ns: u64,
    /// The longest that one really waited, up and down, ns.
    pub longest_ns: (u64, u64),
}

impl World {
    /// Compares what was said at once of the queueing delay of probes that left in `during` of true
    /// time, ns, and that both ends' kernels stamped, with what it really was.
    #[must_use]
    pub fn check_queueing(&self, during: std::ops::Range<u64>) -> QueueVerdict {
        let mut verdict = QueueVerdict::default();
        let mut errors = Vec::new();
        for said in self.said.iter().filter(|s| s.exact) {
            let truth = &self.truth[said.seq as usize];
            let (Some(up_ns), Some(down_ns)) = truth.waited_ns else {
                continue;
            };
            if !during.contains(&truth.left_ns) {
                continue;
            }
            verdict.answered += 1;
            verdict.longest_ns.0 = verdict.longest_ns.0.max(up_ns);
            verdict.longest_ns.1 = verdict.longest_ns.1.max(down_ns);
            match said.queueing {
                Some(q) => errors.push(q.up_ns.abs_diff(up_ns).max(q.down_ns.abs_diff(down_ns))),
                None => verdict.unknown += 1,
            }
        }
        errors.sort_unstable();
        verdict.p95_ns = errors.get(errors.len() * 95 / 100).copied().unwrap_or(0);
        verdict.worst_ns = errors.last().copied().unwrap_or(0);
        verdict
    }
    /// Compares every sample with what really happened.
    ///
    /// # Errors
    /// The first sample that is wrong, with the truth.
    pub fn check(&self) -> Result<Verdict, String> {
        let mut verdict = Verdict {
            sent: self.truth.len() as u64,
            ..Verdict::default()
        };
        if self.bytes.1 > self.bytes.0 {
            return Err(format!("amplification: {:?}", self.bytes));
        }
        let mut ends = vec![0u32; self.truth.len()];
        let mut naive = Summary::new();
        for s in self.first.iter().filter(|s| s.status != Status::Duplicate) {
            ends[s.seq as usize] += 1;
        }
        for (seq, truth) in self.truth.iter().enumerate() {
            let Some(sample) = self.last.get(&(seq as u64)) else {
                verdict.pending += 1;
                continue;
            };
            if ends[seq] != 1 {
                return Err(format!("probe {seq} was reported {} times", ends[seq]));
            }
            naive.add(sample);
            check_sample(sample, truth, &mut verdict)
                .map_err(|why| format!("probe {seq}: {why}: {sample:?} {truth:?}"))?;
        }
        if verdict.pending > 4 + 4 * crate::S / 1_000_000 {
            return Err(format!("{} probes have no end", verdict.pending));
        }
        if (naive.sent, naive.received) != (verdict.sent - verdict.pending, verdict.answered) {
            return Err(format!("statistics: {naive:?} against {verdict:?}"));
        }
        Ok(verdict)
    }
}

fn check_sample(s: &Sample, truth: &Truth, verdict: &mut Verdict) -> Result<(), &'static str> {
    match s.status {
        Status::Ok | Status::Late => {
            verdict.answered += 1;
            verdict.late += u64::from(s.status == Status::Late);
            check_times(s, truth, verdict)
        }
        Status::LostUp => {
            verdict.lost_up += 1;
            if truth.arrived.is_empty() {
                Ok(())
            } else {
                Err("said lost up, but it arrived")
            }
        }
        Status::LostDown => {
            verdict.lost_down += 1;
            if truth.arrived.is_empty() {
                return Err("said lost down, but it never arrived");
            }
            unanswered(truth)
        }
        Status::Lost => {
            verdict.lost += 1;
            unanswered(truth)
        }
        Status::Duplicate | Status::Unsent => Err("cannot be the end of a probe here"),
    }
}

fn unanswered(truth: &Truth) -> Result<(), &'static str> {
    if truth.echoed_shown_ns.is_empty() {
        Ok(())
    } else {
        Err("said lost, but its echo came")
    }
}

fn check_times(s: &Sample, truth: &Truth, verdict: &mut Verdict) -> Result<(), &'static str> {
    let Some(&rx_ns) = truth.echoed_shown_ns.first() else {
        return Err("no echo ever came");
    };
    let Some((remote_rx_ns, remote_tx_ns)) = truth.remote_shown_ns else {
        return Err("the reflector never answered");
    };
    let kernel = ClockSource::Kernel;
    if (s.tx_clock == kernel) && !truth.tx_told {
        return Err("a transmit stamp that was never told");
    }
    let exact = s.tx_clock == kernel && s.remote_tx_clock == kernel;
    verdict.exact += u64::from(exact);
    // A clock that is set back meanwhile says that the echo left first: of that nothing is taken off.
    let residence_ns = remote_tx_ns.saturating_sub(remote_rx_ns);
    let truth_ns = (rx_ns - truth.tx_shown_ns).saturating_sub(residence_ns);
    let error_ns = s.rtt_ns.unwrap_or(0).abs_diff(truth_ns);
    // Without the kernel's stamps the program's own are off by what this world makes them.
    let allowed_ns = if exact { 0 } else { 160_000 };
    // What was measured across the setting of a clock by that clock alone means nothing.
    if truth.set_in_hand.1 || (truth.set_in_hand.0 && s.tx_clock != kernel) {
        verdict.unsure += 1;
    } else if error_ns > allowed_ns {
        return Err("a wrong round-trip time");
    }
    Ok(())
}
