use super::*;
use std::vec::Vec as List;

const MS: u64 = 1_000_000;

/// A line with a queue in front of each direction, fed at a rate by the household, probed every 50 ms,
/// its counters read every 100 ms or so.
struct Line {
    h: Household,
    now_ns: u64,
    /// Capacity and load up and down, bit/s.
    capacity: [u64; 2],
    load: [u64; 2],
    buffer_ns: u64,
    /// What probes wait whatever the household does, ns.
    others_ns: u64,
    /// Bytes in each queue, and counted by the interface.
    queued: [f64; 2],
    counted: [f64; 2],
    seconds: List<Second>,
    estimates: List<Estimate>,
    minutes: List<(Monotonic, Minute)>,
}

impl Line {
    fn new(up: u64, down: u64) -> Self {
        Self {
            h: Household::new(),
            now_ns: 100_000 * SECOND_NS + 7 * MS,
            capacity: [up, down],
            load: [0, 0],
            buffer_ns: 200 * MS,
            others_ns: MS,
            queued: [0.0; 2],
            counted: [1e9, 1e12],
            seconds: List::new(),
            estimates: List::new(),
            minutes: List::new(),
        }
    }

    fn queue_ns(&self, i: usize) -> u64 {
        self.others_ns + (self.queued[i] * 8e9 / self.capacity[i] as f64) as u64
    }

    /// Runs for some seconds.
    fn run(&mut self, seconds: u64) -> &mut Self {
        for step in 0..seconds * 200 {
            self.now_ns += 5 * MS;
            for i in 0..2 {
                let comes = self.load[i] as f64 / 8.0 / 200.0;
                let goes = self.capacity[i] as f64 / 8.0 / 200.0;
                let room = self.buffer_ns as f64 * self.capacity[i] as f64 / 8e9;
                let left = (self.queued[i] + comes).min(goes);
                let before = self.queued[i];
                self.queued[i] = (before + comes - left).min(room);
                // Up: what comes, and does not find the queue full; an elastic sender soon sends no
                // more than that. Down: what leaves.
                self.counted[i] += if i == 0 {
                    left + self.queued[i] - before
                } else {
                    left
                };
            }
            let now = Monotonic::from_nanos(self.now_ns);
            if step % 10 == 0 {
                let (up, down) = (self.queue_ns(0), self.queue_ns(1));
                self.h.handle_probe(&Seen {
                    sent: now,
                    rtt_ns: Some(20 * MS + up + down),
                    queue_up_ns: Some(up),
                    queue_down_ns: Some(down),
                    ..Seen::default()
                });
            }
            if step % 20 == 3 {
                let [up, down] = self.counted.map(|b| b as u64);
                self.h.handle_counters(now, up, down);
            }
            self.h.handle_timeout(now);
            self.seconds
                .extend(std::iter::from_fn(|| self.h.poll_second()));
            self.estimates
                .extend(std::iter::from_fn(|| self.h.poll_estimate()));
            self.minutes
                .extend(std::iter::from_fn(|| self.h.poll_minute()));
        }
        self
    }

    fn rates(&self, up: bool) -> List<u64> {
        let of = self.estimates.iter().filter(|e| e.up == up);
        of.filter(|e| e.confidence >= 0.5)
            .map(|e| e.rate_bps)
            .collect()
    }
}

fn near(rate: u64, truth: u64) -> bool {
    rate.abs_diff(truth) * 50 <= truth
}

#[test]
fn a_saturated_line_says_its_capacity_within_two_percent_each_way() {
    let mut line = Line::new(10_000_000, 50_000_000);
    line.run(10);
    assert!(line.estimates.is_empty());
    line.load = [13_000_000, 0];
    line.run(20);
    line.load = [0, 70_000_000];
    line.run(20);
    line.load = [0, 0];
    line.run(10);
    let (up, down) = (line.rates(true), line.rates(false));
    assert!(up.len() >= 5 && down.len() >= 5, "{:?}", line.estimates);
    assert!(up.iter().all(|r| near(*r, 10_000_000)), "{up:?}");
    assert!(down.iter().all(|r| near(*r, 50_000_000)), "{down:?}");
    assert!(line.seconds.len() >= 57);
}

#[test]
fn a_queue_that_is_filling_does_not_count_as_carried() {
    // The buffer is so deep that it fills all the time: 12 Mbit/s come, 10 leave.
    let mut line = Line::new(10_000_000, 50_000_000);
    line.buffer_ns = 30 * SECOND_NS;
    line.run(8);
    line.load = [10_500_000, 0];
    line.run(25);
    let up = line.rates(true);
    assert!(
        up.len() >= 4 && up.iter().all(|r| near(*r, 10_000_000)),
        "{up:?}"
    );
}

#[test]
fn a_line_that_is_only_used_and_a_queue_of_others_say_nothing() {
    let mut line = Line::new(10_000_000, 50_000_000);
    line.load = [6_000_000, 30_000_000];
    line.run(30);
    assert_eq!(line.estimates, []);
    // Now somebody else's traffic delays everything, and the household sends next to nothing.
    line.load = [30_000, 30_000];
    line.others_ns = 60 * MS;
    line.run(30);
    assert_eq!(line.estimates, []);
}

#[test]
fn a_little_traffic_before_a_queue_is_not_believed_to_be_all_the_line_can() {
    let mut line = Line::new(10_000_000, 50_000_000);
    line.run(8);
    line.load = [13_000_000, 0];
    line.run(20);
    line.load = [0, 0];
    line.run(30);
    line.load = [1_000_000, 0];
    line.others_ns = 80 * MS;
    line.run(20);
    let low: List<&Estimate> = line
        .estimates
        .iter()
        .filter(|e| e.up && e.rate_bps < 5_000_000)
        .collect();
    assert!(
        !low.is_empty() && low.iter().all(|e| e.confidence < 0.5),
        "{low:?}"
    );
}

/// Nothing has shown what the line carries: a queue that comes while the household sends what it sent before is not
/// believed to be its own, nor one that was there before anything else was seen.
#[test]
fn a_queue_before_traffic_that_did_not_grow_is_not_believed_before_the_line_is_known() {
    for (calm_s, load_bps) in [(0, 150_000), (10, 150_000), (0, 3_000_000), (10, 3_000_000)] {
        for knows in [false, true] {
            let mut line = Line::new(5_000_000, 50_000_000);
            if knows {
                line.h.handle_measured(true, 5_000_000);
            }
            line.load = [load_bps, 0];
            line.run(calm_s);
            line.others_ns = 200 * MS;
            line.run(30);
            let sure = line.rates(true);
            assert!(knows || line.estimates.len() >= 5, "{:?}", line.estimates);
            // What is more than a quarter of a line that is known may be what others leave of it.
            let believes = knows && load_bps > 5_000_000 / 4;
            assert_eq!(!sure.is_empty(), believes, "{load_bps} {calm_s} {sure:?}");
        }
    }
}

/// A slow line, whose first upload fills it.
#[test]
fn a_queue_that_came_with_the_households_traffic_is_its_own() {
    let mut line = Line::new(400_000, 5_000_000);
    line.load = [20_000, 20_000];
    line.run(10);
    line.load = [500_000, 0];
    line.run(15);
    let up = line.rates(true);
    assert!(
        !up.is_empty() && up.iter().all(|r| near(*r, 400_000)),
        "{up:?}"
    );
}

#[test]
fn a_capacity_that_falls_under_load_is_believed_at_once_and_is_news() {
    let mut line = Line::new(10_000_000, 50_000_000);
    line.run(8);
    line.load = [13_000_000, 0];
    line.run(30);
    line.capacity[0] = 2_000_000;
    line.queued[0] /= 5.0;
    let fell_ns = line.now_ns;
    line.run(15);
    let low = line
        .estimates
        .iter()
        .find(|e| e.up && near(e.rate_bps, 2_000_000) && e.confidence >= 0.5)
        .expect("the lower capacity");
    assert!(low.at.as_nanos() - fell_ns <= 8 * SECOND_NS);
    let news = line.estimates.iter().filter(|e| e.up && e.is_news);
    assert!((2..=5).contains(&news.count()), "{:?}", line.estimates);
}

#[test]
fn a_test_of_our_own_is_not_the_households() {
    let mut line = Line::new(10_000_000, 50_000_000);
    line.run(5);
    line.h.handle_test_begin(Monotonic::from_nanos(line.now_ns));
    line.load = [13_000_000, 0];
    line.run(10);
    line.load = [0, 0];
    line.h.handle_test_end(Monotonic::from_nanos(line.now_ns));
    line.run(70);
    assert_eq!(line.estimates, []);
    for (_, minute) in &line.minutes {
        assert!(minute.up.rate_bps.max() < Some(1_000_000), "{minute:?}");
    }
}

#[test]
fn minutes_say_latency_against_load_and_their_bytes_say_the_same() {
    let mut line = Line::new(10_000_000, 50_000_000);
    line.run(20);
    line.load = [13_000_000, 0];
    line.run(100);
    line.load = [0, 0];
    line.run(80);
    let mut all = Minute::new();
    for (begin, minute) in &line.minutes {
        assert_eq!(begin.as_nanos() % (60 * SECOND_NS), 0);
        let mut bytes = [0; MAX_ENCODED_MINUTE];
        let len = minute.encode(&mut bytes).unwrap();
        assert!(len < 400, "{len}");
        assert_eq!(Minute::decode(&bytes[..len]).as_ref(), Some(minute));
        assert_eq!(Minute::decode(&bytes[..len - 1]), None);
        assert_eq!(all.merge_encoded(&bytes[..len]), Some(()));
    }
    let all = all.up;
    let median = |class| all.queue(class).quantile(0.5).unwrap();
    assert!(median(Class::Idle) < 2 * MS);
    assert!((180 * MS..=210 * MS).contains(&median(Class::Full)));
    assert!((90..=100).contains(&all.standing_s), "{}", all.standing_s);
    let (idle, full) = (all.rate_bps.min(), all.rate_bps.quantile(0.6).unwrap());
    assert!(idle == Some(0), "{idle:?}");
    // Rates are kept with 3 %.
    assert!((9_600_000..=10_400_000).contains(&full), "{full}");
}

#[test]
fn counters_of_a_new_interface_and_silence_begin_anew() {
    let mut line = Line::new(10_000_000, 50_000_000);
    line.load = [13_000_000, 0];
    line.run(10);
    line.counted = [0.0; 2];
    line.run(10);
    line.now_ns += 3600 * SECOND_NS;
    line.run(10);
    assert!(line.seconds.iter().all(|s| s.up_bps < 20_000_000));
    assert!(line.seconds.len() >= 20, "{}", line.seconds.len());
}
