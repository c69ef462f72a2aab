//! One direction of a line: decides from the time a packet arrived when it leaves, if it does.

use std::collections::VecDeque;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use super::passage::Fate;
use super::plan::Direction;

/// Of a frame before its packet.
const ETHERNET_BYTES: u64 = 14;

/// What is to become of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// It does not arrive.
    Drop(Fate),
    /// It leaves.
    Leave {
        /// When, ns.
        at_ns: i64,
        /// How long of that it waited, ns.
        queue_ns: u64,
        /// Twice.
        twice: bool,
    },
}

/// The state of one direction. Times are ns on any one clock that does not go back.
pub(super) struct Lane {
    rng: ChaCha8Rng,
    start_ns: i64,
    /// When the sender has put everything so far onto the line.
    free_at_ns: i64,
    /// When the bucket would be full again.
    bucket_full_ns: i64,
    /// When each packet that waits is on the line, and its size.
    queued: VecDeque<(i64, u64)>,
    queued_bytes: u64,
    /// The latest time at which a packet that keeps its place leaves.
    last_leaves_ns: i64,
    /// The line is in a run of losses.
    bad: bool,
}

impl Lane {
    /// Idle at `start_ns`; `seed` decides everything that is left to chance.
    pub(super) fn new(seed: u64, start_ns: i64) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            start_ns,
            free_at_ns: i64::MIN,
            bucket_full_ns: i64::MIN,
            queued: VecDeque::new(),
            queued_bytes: 0,
            last_leaves_ns: i64::MIN,
            bad: false,
        }
    }

    /// Another plan holds from here on: what comes by a shorter way may overtake what is under way.
    pub(super) const fn plan_changed(&mut self) {
        self.last_leaves_ns = i64::MIN;
    }

    fn chance(&mut self, ppm: u32) -> bool {
        // Drawn whether it matters or not, so that packet n meets the same number in every plan.
        (u64::from(self.rng.next_u32()) * 1_000_000) >> 32 < u64::from(ppm)
    }

    /// Decides over a packet of `bytes` that arrives at `arrival_ns`.
    pub(super) fn decide(&mut self, plan: &Direction, arrival_ns: i64, bytes: u64) -> Decision {
        let alone = self.chance(plan.loss_ppm);
        let in_burst = self.in_burst(plan);
        let held_back = self.chance(plan.reorder_ppm);
        let twice = self.chance(plan.duplicate_ppm);
        let share = u128::from(self.rng.next_u32());
        let jitter_ns = ((share * u128::from(plan.jitter_ns)) >> 32) as i64;

        let since_start_ns = arrival_ns.saturating_sub(self.start_ns).max(0) as u64;
        let scheduled = plan.outages.is_some_and(|o| o.covers(since_start_ns));
        if plan.outage || scheduled {
            return Decision::Drop(Fate::Outage);
        }
        if alone || in_burst {
            return Decision::Drop(Fate::Lost);
        }
        let packet_bytes = bytes.saturating_sub(ETHERNET_BYTES);
        if plan.largest_bytes > 0 && packet_bytes > plan.largest_bytes {
            return Decision::Drop(Fate::Large);
        }
        let Some((queue_ns, on_line_ns)) = self.pass_queue(plan, arrival_ns, bytes) else {
            return Decision::Drop(Fate::Buffer);
        };
        let mut at_ns = on_line_ns + plan.delay_ns as i64 + jitter_ns;
        if held_back {
            at_ns += plan.reorder_ns as i64;
        } else {
            at_ns = at_ns.max(self.last_leaves_ns);
            self.last_leaves_ns = at_ns;
        }
        Decision::Leave {
            at_ns,
            queue_ns,
            twice,
        }
    }

    /// Lets a packet pass that the plan spares.
    pub(super) fn spare(&mut self, plan: &Direction, arrival_ns: i64) -> Decision {
        let at_ns = self.last_leaves_ns.max(arrival_ns + plan.delay_ns as i64);
        self.last_leaves_ns = at_ns;
        Decision::Leave {
            at_ns,
            queue_ns: 0,
            twice: false,
        }
    }

    fn in_burst(&mut self, plan: &Direction) -> bool {
        let Some(bursts) = plan.bursts else {
            self.bad = false;
            return false;
        };
        let change_ppm = if self.bad {
            1_000_000 / bursts.mean_packets.max(1)
        } else {
            bursts.begin_ppm
        };
        let change = self.chance(change_ppm);
        self.bad ^= change;
        let lost = self.chance(bursts.loss_ppm);
        self.bad && lost
    }

    /// How long a packet waits and when it is on the line; `None`: it does not fit.
    fn pass_queue(&mut self, plan: &Direction, arrival_ns: i64, bytes: u64) -> Option<(u64, i64)> {
        if !plan.queues() {
            return Some((0, arrival_ns));
        }
        while let Some(&(on_line_ns, size)) = self.queued.front() {
            if on_line_ns > arrival_ns {
                break;
            }
            self.queued.pop_front();
            self.queued_bytes -= size;
        }
        let time_for =
            |bytes: u64, bps: u64| (bytes as i128 * 8_000_000_000 / i128::from(bps)) as i64;
        let mut begin_ns = self.free_at_ns.max(arrival_ns);
        if let Some(grants) = plan.grants {
            let asked_ns = arrival_ns + grants.lead_ns as i64;
            let every_ns = grants.every_ns.max(1) as i64;
            let granted_ns = asked_ns + (-asked_ns).rem_euclid(every_ns);
            begin_ns = begin_ns.max(granted_ns);
        }
        let mut bucket_full_ns = self.bucket_full_ns;
        if let Some(bucket) = plan.bucket {
            let bps = bucket.sustained_bps.max(1);
            // A packet larger than the bucket would wait for ever.
            let burst_ns = time_for(bucket.burst_bytes.max(bytes), bps);
            let full_ns = bucket_full_ns.max(begin_ns) + time_for(bytes, bps);
            begin_ns = begin_ns.max(full_ns - burst_ns);
            bucket_full_ns = bucket_full_ns.max(begin_ns) + time_for(bytes, bps);
        }
        let queue_ns = (begin_ns - arrival_ns) as u64;
        let too_long = plan.buffer_ns > 0 && queue_ns > plan.buffer_ns;
        if too_long || self.queued_bytes + bytes > plan.buffer_bytes {
            return None;
        }
        let on_line_ns = match plan.rate_bps {
            0 => begin_ns,
            bps => begin_ns + time_for(bytes, bps),
        };
        self.free_at_ns = on_line_ns;
        self.bucket_full_ns = bucket_full_ns;
        self.queued.push_back((on_line_ns, bytes));
        self.queued_bytes += bytes;
        Some((queue_ns, on_line_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::{Bucket, Bursts, Grants, Outages};
    use super::*;

    const MS: i64 = 1_000_000;
    const START: i64 = 1_800_000_000_000_000_000;

    fn leaves(d: Decision) -> Option<i64> {
        match d {
            Decision::Leave { at_ns, .. } => Some(at_ns - START),
            Decision::Drop(_) => None,
        }
    }

    fn lane() -> Lane {
        Lane::new(7, START)
    }

    #[test]
    fn a_rate_spaces_packets_and_both_buffers_drop() {
        // 1000 bytes at 8 Mbit/s take 1 ms.
        let plan = Direction {
            rate_bps: 8_000_000,
            buffer_bytes: 3_000,
            ..Direction::delay(5 * MS as u64)
        };
        let mut l = lane();
        let at: Vec<_> = (0..5)
            .map(|_| leaves(l.decide(&plan, START, 1000)))
            .collect();
        assert_eq!(at, [Some(6 * MS), Some(7 * MS), Some(8 * MS), None, None]);
        // One is on the line by then, so there is room for one.
        let later = START + MS;
        assert_eq!(leaves(l.decide(&plan, later, 1000)), Some(9 * MS));
        assert_eq!(l.decide(&plan, later, 1000), Decision::Drop(Fate::Buffer));

        let plan = Direction {
            buffer_bytes: u64::MAX,
            buffer_ns: 2 * MS as u64,
            ..plan
        };
        let mut l = lane();
        let kept = (0..9).filter(|_| leaves(l.decide(&plan, START, 1000)).is_some());
        assert_eq!(kept.count(), 3, "waits of 0, 1 and 2 ms");
    }

    #[test]
    fn a_bucket_lets_a_burst_pass_and_then_its_own_rate() {
        let plan = Direction {
            rate_bps: 80_000_000,
            bucket: Some(Bucket {
                sustained_bps: 8_000_000,
                burst_bytes: 10_000,
            }),
            ..Direction::delay(0)
        };
        let mut l = lane();
        let at: Vec<_> = (0..60)
            .filter_map(|_| leaves(l.decide(&plan, START, 1000)))
            .collect();
        assert_eq!(at.len(), 60);
        // The burst: 10 packets and what comes in meanwhile, 0.1 ms each.
        assert_eq!(at[9], MS);
        // In the long run a packet each millisecond.
        assert_eq!(at[59] - at[39], 20 * MS);
        // After a pause the bucket is full again.
        let later = START + 1000 * MS;
        let again: Vec<_> = (0..10)
            .filter_map(|_| leaves(l.decide(&plan, later, 1000)))
            .collect();
        assert_eq!(again[9] - again[0], 9 * MS / 10);
    }

    #[test]
    fn grants_let_packets_leave_together_on_a_grid() {
        let plan = Direction {
            rate_bps: 80_000_000,
            grants: Some(Grants {
                every_ns: 2 * MS as u64,
                lead_ns: MS as u64,
            }),
            ..Direction::delay(0)
        };
        let mut l = lane();
        // Asked at 0.5, 0.9 and 1.5 ms; the first two make the grant at 2 ms, the last that at 4 ms.
        let at: Vec<_> = [500_000, 900_000, 1_500_000]
            .iter()
            .filter_map(|t| leaves(l.decide(&plan, START + t, 1000)))
            .collect();
        assert_eq!(at, [2 * MS + 100_000, 2 * MS + 200_000, 4 * MS + 100_000]);
    }

    #[test]
    fn losses_are_as_many_as_asked_for_and_runs_as_long() {
        let alone = Direction {
            loss_ppm: 100_000,
            ..Direction::delay(0)
        };
        let mut l = lane();
        let lost = (0..100_000)
            .filter(|_| leaves(l.decide(&alone, START, 100)).is_none())
            .count();
        assert!((9_500..10_500).contains(&lost), "{lost}");

        let bursts = Direction {
            bursts: Some(Bursts {
                begin_ppm: 1_000,
                mean_packets: 250,
                loss_ppm: 1_000_000,
            }),
            ..Direction::delay(0)
        };
        let mut l = lane();
        let fates: Vec<bool> = (0..1_000_000)
            .map(|_| leaves(l.decide(&bursts, START, 100)).is_none())
            .collect();
        let runs: Vec<usize> = fates
            .chunk_by(|a, b| a == b)
            .filter(|run| run[0])
            .map(<[bool]>::len)
            .collect();
        let mean = runs.iter().sum::<usize>() / runs.len();
        assert!((220..280).contains(&mean), "{mean} in {} runs", runs.len());
        assert!(runs.iter().any(|&r| r > 700));
    }

    #[test]
    fn what_is_spared_passes_and_changes_nothing_for_the_others() {
        let far = "192.0.2.1".parse().expect("an address");
        let plan = Direction {
            bursts: Some(Bursts {
                begin_ppm: 1_000_000,
                mean_packets: 1_000_000,
                loss_ppm: 1_000_000,
            }),
            only: [Some(far), None, None, None],
            ..Direction::delay(5 * MS as u64)
        };
        assert!(!plan.spares(far) && plan.spares("192.0.2.2".parse().expect("an address")));
        assert!(!Direction::delay(0).spares(far));
        let mut l = lane();
        let lost = Decision::Drop(Fate::Lost);
        assert_eq!(l.decide(&plan, START, 100), lost);
        assert_eq!(leaves(l.spare(&plan, START)), Some(5 * MS));
        assert_eq!(l.decide(&plan, START, 100), lost, "the run goes on");
    }

    #[test]
    fn packets_that_are_too_large_vanish() {
        let plan = Direction {
            largest_bytes: 1400,
            ..Direction::delay(0)
        };
        let mut l = lane();
        assert_eq!(leaves(l.decide(&plan, START, 14 + 1400)), Some(0));
        let vanished = Decision::Drop(Fate::Large);
        assert_eq!(l.decide(&plan, START, 14 + 1401), vanished);
    }

    #[test]
    fn jitter_keeps_the_order_and_reordering_does_not() {
        let plan = Direction {
            jitter_ns: 5 * MS as u64,
            ..Direction::delay(MS as u64)
        };
        let series = |plan: &Direction| -> Vec<i64> {
            let mut l = lane();
            (0..1000)
                .filter_map(|i| leaves(l.decide(plan, START + i * MS, 100)))
                .collect()
        };
        let at = series(&plan);
        assert!(at.is_sorted());
        let spread = at.iter().zip(0..).map(|(t, i)| t - i * MS).max();
        assert!(spread.is_some_and(|s| s > 5 * MS), "{spread:?}");

        let swapped = Direction {
            reorder_ppm: 100_000,
            reorder_ns: 3 * MS as u64,
            jitter_ns: 0,
            ..plan
        };
        let at = series(&swapped);
        assert!(!at.is_sorted());
        let late = at.iter().zip(0..).filter(|&(&t, i)| t - i * MS == 4 * MS);
        assert!((60..140).contains(&late.count()));
        assert_eq!(series(&swapped), series(&swapped), "the seed decides");
    }

    #[test]
    fn outages_and_doubles() {
        let plan = Direction {
            outages: Some(Outages {
                first_ns: 10 * MS as u64,
                every_ns: 100 * MS as u64,
                length_ns: 20 * MS as u64,
            }),
            duplicate_ppm: 500_000,
            ..Direction::delay(0)
        };
        let mut l = lane();
        let decisions: Vec<_> = (0..1000)
            .map(|i| l.decide(&plan, START + i * MS, 100))
            .collect();
        let gone = |d: &&Decision| **d == Decision::Drop(Fate::Outage);
        assert_eq!(decisions.iter().filter(gone).count(), 200);
        let doubled = |d: &&Decision| matches!(d, Decision::Leave { twice: true, .. });
        assert!((340..460).contains(&decisions.iter().filter(doubled).count()));
    }
}
