//! The end of probing: what waits to see more is judged by what was seen.

use core::ops::DerefMut;

use super::line::LineWatch;
use super::outage::At;
use super::{DIRECTION_NS, LineState, SeriesState, Watch, line_of, watched};
use crate::time::Monotonic;

impl<S, L> Watch<S, L>
where
    S: DerefMut<Target = [SeriesState]>,
    L: DerefMut<Target = [LineState]>,
{
    /// It ends: what waits to see more is judged by what was seen, outages by the answers of the last moment too, and what
    /// has been summed up for records is there to be polled. What had no time to come is no loss. Whether there is more to
    /// do once notices have been polled; to be called until there is not, and nothing else after it.
    pub fn handle_end(&mut self, now: Monotonic) -> bool {
        // Until then it is known of all that was sent what became of it.
        if self.decide(now.saturating_sub(self.hold_ns - DIRECTION_NS)) {
            return true;
        }
        // Later what has become of some is not known: shares of them say nothing, but silence ends with any answer.
        while self.ledger.has_room() {
            let Some((_, place)) = self.first_held() else {
                return self.last_judgement(now);
            };
            let probe = self.take_settled(place).filter(|p| !p.in_test);
            if let Some((probe, s)) = probe.zip(watched(&mut self.series, place)) {
                s.losses.step(&probe);
            }
        }
        true
    }

    /// All that was seen has been handed on. Whether there is more to tell than there is room for; to be called with room.
    fn last_judgement(&mut self, now: Monotonic) -> bool {
        let t = self.thresholds;
        for (n, l) in self.lines.iter_mut().enumerate() {
            let Some(LineWatch { outages, near, .. }) = &mut l.0 else {
                continue;
            };
            let mut at = At {
                ledger: &mut self.ledger,
                line: n as u8,
                near,
            };
            if outages.finish(now, self.hold_ns, &t, &mut at) {
                return true;
            }
        }
        for (n, s) in self.series.iter_mut().enumerate() {
            let Some(s) = &mut s.0 else { continue };
            if let Some(l) = line_of(&mut self.lines, s.line())
                && s.finish(n as u8, now, &l.outages, &t, &mut self.ledger)
            {
                return true;
            }
        }
        for l in self.lines.iter_mut().filter_map(|l| l.0.as_mut()) {
            l.cable.tell(now, true);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::super::{Kind, MAX_LINES, Phase, Probe, Role, SeriesFacts, Thresholds};
    use super::*;
    use crate::sample::Status;

    const MS: u64 = 1_000_000;
    const TIMEOUT_MS: u64 = 3000;
    /// When probing ends, ms.
    const END_MS: u64 = 120_000;
    /// Those are sent every so often, ms.
    const EVERY_MS: [u64; 2] = [50, 1000];

    fn at(ms: u64) -> Monotonic {
        Monotonic::from_nanos(ms * MS)
    }

    /// What is told in two minutes of two far targets: when it began and ended, in ms before the end of probing. An answer
    /// comes when `answer` says, in ms, of the series and when it was sent; and never where it says nothing.
    fn told(answer: impl Fn(usize, u64) -> Option<u64>) -> Vec<(Kind, u64, Option<u64>)> {
        told_of(&EVERY_MS.map(|every_ms| (0, every_ms)), answer)
    }

    /// The same of these series, each of this line and sent every so many ms.
    fn told_of(
        all: &[(u8, u64)],
        answer: impl Fn(usize, u64) -> Option<u64>,
    ) -> Vec<(Kind, u64, Option<u64>)> {
        let (series, lines) = (
            std::vec![SeriesState::default(); all.len()],
            std::vec![LineState::default(); MAX_LINES],
        );
        let mut watch = Watch::new(at(0), Thresholds::default(), series, lines);
        for (n, (line, every_ms)) in all.iter().enumerate() {
            let facts = SeriesFacts {
                line: *line,
                target: n as u16,
                role: Role::Far,
                family: 4,
                size: 64,
                interval_ns: every_ms * MS,
                timeout_ns: TIMEOUT_MS * MS,
            };
            assert!(watch.add_series(at(0), facts).is_some());
        }
        // What becomes known when.
        let mut known = Vec::new();
        for (n, (_, every_ms)) in all.iter().enumerate() {
            for sent_ms in (7 * n as u64..END_MS).step_by(*every_ms as usize) {
                let rtt_ms = answer(n, sent_ms).filter(|rtt_ms| *rtt_ms < TIMEOUT_MS);
                known.push((
                    sent_ms + rtt_ms.unwrap_or(TIMEOUT_MS),
                    sent_ms,
                    n as u8,
                    rtt_ms,
                ));
            }
        }
        known.sort_unstable();
        let mut events = std::collections::BTreeMap::new();
        let mut hear = |watch: &mut Watch<_, _>| {
            while let Some(n) = watch.poll_notice() {
                assert_eq!(
                    n.phase == Phase::Begin,
                    !events.contains_key(&n.id),
                    "{n:?}"
                );
                events.insert(n.id, n.event);
            }
        };
        for (ms, sent_ms, series, rtt_ms) in known.into_iter().filter(|k| k.0 < END_MS) {
            watch.handle_probe(
                series,
                Probe {
                    sent: at(sent_ms),
                    status: if rtt_ms.is_some() {
                        Status::Ok
                    } else {
                        Status::Lost
                    },
                    eighths: 8,
                    in_test: false,
                    dropped: false,
                    ttl_up: None,
                    ttl_down: None,
                    rtt_ns: rtt_ms.map(|ms| (ms * MS) as u32),
                    queue_up_ns: None,
                    queue_down_ns: None,
                    raw_up_ns: None,
                    raw_down_ns: None,
                },
            );
            while watch.handle_timeout(at(ms)) {
                hear(&mut watch);
            }
        }
        while watch.handle_end(at(END_MS)) {
            hear(&mut watch);
        }
        hear(&mut watch);
        assert_eq!(watch.shortfalls(), (0, 0));
        let before_ms = |at: Monotonic| END_MS - at.as_nanos() / MS;
        let all = events.into_values();
        all.map(|e| (e.kind, before_ms(e.start), e.end.map(before_ms)))
            .collect()
    }

    /// The same of a line that is dead from and to so many ms before the end of probing.
    fn dead(from_ms: u64, to_ms: u64) -> Vec<(Kind, u64, Option<u64>)> {
        told(|_, sent_ms| {
            let before_ms = END_MS - sent_ms;
            (before_ms > from_ms || before_ms <= to_ms).then_some(20)
        })
    }

    #[test]
    fn an_outage_of_the_last_seconds_is_told() {
        let micro = |from, to| [(Kind::MicroOutage, from, Some(to))];
        for to_ms in [5700, 4700, 3900, 3100] {
            assert_eq!(dead(to_ms + 300, to_ms), micro(to_ms + 300, to_ms));
        }
        // Not all of its losses are known, but its end is.
        assert_eq!(dead(3500, 2500), micro(3500, 2500));
        // It is told as it lasts, and no longer than that.
        assert_eq!(dead(15_000, 1000), [(Kind::Outage, 15_000, Some(1000))]);
    }

    #[test]
    fn an_outage_that_lasts_is_told_to_have_begun() {
        assert_eq!(dead(5000, 0), [(Kind::MicroOutage, 5000, None)]);
        assert_eq!(dead(3500, 0), [(Kind::MicroOutage, 3500, None)]);
        assert_eq!(dead(20_000, 0), [(Kind::Outage, 20_000, None)]);
    }

    #[test]
    fn an_answer_that_had_no_time_to_come_is_no_loss() {
        assert_eq!(dead(2950, 0), []);
        assert_eq!(dead(2900, 1900), []);
        // Everything takes two seconds now.
        assert_eq!(
            told(|_, ms| Some(if ms < END_MS - 2500 { 20 } else { 2000 })),
            []
        );
        // One in ten is lost, and one in two of the last four seconds.
        let scattered = |n: usize, ms: u64| ((ms / EVERY_MS[n] * 2_654_435_761) >> 16) % 10;
        let told = told(|n, ms| {
            let least = if ms < END_MS - 4000 { 1 } else { 5 };
            (scattered(n, ms) >= least).then_some(20)
        });
        assert!(
            told.iter().all(|(kind, ..)| *kind == Kind::PacketLoss),
            "{told:?}"
        );
    }

    #[test]
    fn a_burst_of_the_last_seconds_is_told() {
        // The first is known to be over; of the second it is the last answer that says so.
        for from_ms in [9500, 8500] {
            let burst = told(|n, ms| {
                let is_in = (from_ms - 5000..=from_ms).contains(&(END_MS - ms));
                (n == 0 || !is_in).then_some(20)
            });
            let (first_ms, last_ms) = (from_ms - 507, from_ms - 4507);
            assert_eq!(burst, [(Kind::LossBurst, first_ms, Some(last_ms))]);
        }
    }

    /// More than there is room for at once.
    #[test]
    fn all_that_the_last_seconds_of_many_lines_show_is_told() {
        let lines = MAX_LINES as u8;
        let all: Vec<(u8, u64)> = (0..lines).flat_map(|l| [(l, 100), (l, 100)]).collect();
        let bursts = told_of(&all, |n, ms| {
            let from_ms = if n % 2 == 0 { 7000 } else { 5500 };
            (!(from_ms - 1000..from_ms).contains(&(END_MS - ms))).then_some(20)
        });
        assert_eq!(bursts.len(), all.len());
        assert!(
            bursts
                .iter()
                .all(|b| b.0 == Kind::LossBurst && b.2.is_some())
        );
        // Both at once.
        let short = told_of(&all, |_, ms| {
            (!(4400..5000).contains(&(END_MS - ms))).then_some(20)
        });
        assert_eq!(short.len(), MAX_LINES);
        assert!(short.iter().all(|s| s.0 == Kind::MicroOutage));
    }
}
