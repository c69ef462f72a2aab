use super::*;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

const S: u64 = 1_000_000_000;
const RATE_BPS: u64 = 20_000_000;

struct Line {
    pacer: Pacer,
    rng: ChaCha8Rng,
    others_bps: Option<u64>,
}

impl Line {
    fn new(bytes_per_s: u64) -> Self {
        let budget = Budget {
            when: When::AtAlarms,
            bytes_per_s,
            header_bytes: 42,
            most_size: 1452,
        };
        Self {
            pacer: Pacer::new(true, budget, Monotonic::ZERO),
            rng: ChaCha8Rng::seed_from_u64(1),
            others_bps: Some(0),
        }
    }

    /// The trains of so many seconds from `from_s` on, whose rate is known as far as they last.
    fn trains(&mut self, from_s: u64, seconds: u64) -> u32 {
        let mut trains = 0;
        for tick in 0..10 * seconds {
            let now = Monotonic::from_nanos(from_s * S + tick * S / 10);
            let Some(plan) = self.pacer.poll_train(now, self.others_bps, &mut self.rng) else {
                continue;
            };
            trains += 1;
            let bytes = u64::from(plan.count) * (u64::from(plan.size) + 42);
            let span_ns = bytes * 8 * S / RATE_BPS;
            let e = Estimate {
                burst_bps: RATE_BPS,
                sustained_bps: None,
                confidence_permille: if span_ns < SPAN_NS { 300 } else { 950 },
                span_ns,
                arrived: plan.count,
            };
            self.pacer.handle_result(now, Ok(e), self.others_bps);
        }
        trains
    }
}

#[test]
fn at_an_alarm_the_line_is_got_to_know_once_and_then_each_has_one_train() {
    let mut line = Line::new(1_000);
    assert_eq!(line.trains(0, 3_600), 0, "nothing looks wrong");
    line.pacer.alarm();
    // 8 kB, 16, 32, 64 and 128, which lasts for more than 50 ms.
    assert_eq!(line.trains(3_600, 60), 5);
    let known = line.pacer.spent();
    assert!((240_000..270_000).contains(&known), "{known}");
    // That is made up for first.
    line.pacer.alarm();
    assert_eq!(line.trains(3_660, 100), 0);
    assert_eq!(line.trains(3_760, 300), 1);
    assert!(line.pacer.spent() - known < 160_000);
    // What is put aside is spent one by one.
    assert_eq!(line.trains(10_000, 1), 0);
    for alarm in 0..8 {
        line.pacer.alarm();
        assert_eq!(
            line.trains(10_001 + alarm, 1),
            u32::from(alarm < 7),
            "{alarm}"
        );
    }
}

#[test]
fn trains_at_alarms_keep_to_their_bytes_however_often_something_looks_wrong() {
    let mut line = Line::new(1_000);
    for n in 0..8_640 {
        line.pacer.alarm();
        line.trains(n * 10, 10);
    }
    let spent = line.pacer.spent();
    assert!((86_000_000..87_000_000).contains(&spent), "{spent}");
    let mut never = Line::new(1_000);
    never.pacer.set_budget(Budget {
        when: When::Never,
        ..never.pacer.budget
    });
    never.pacer.alarm();
    assert_eq!(never.trains(0, 60), 0);
}

#[test]
fn a_line_that_others_use_is_not_got_to_know_at_an_alarm() {
    let mut line = Line::new(1_000);
    line.others_bps = Some(2_000_000);
    line.pacer.alarm();
    assert_eq!(line.trains(0, 60), 0);
    line.others_bps = Some(100_000);
    assert_eq!(line.trains(60, 60), 5);
}

#[test]
fn a_line_that_says_nothing_has_ten_trains_at_an_alarm() {
    let mut line = Line::new(1_000);
    line.pacer.alarm();
    let mut trains = 0;
    for tick in 0..600 {
        let now = Monotonic::from_nanos(tick * S / 10);
        if line.pacer.poll_train(now, None, &mut line.rng).is_some() {
            trains += 1;
            line.pacer.handle_result(now, Err(Unknown::TooFew), None);
        }
    }
    assert_eq!(trains, u32::from(LEARN_TRAINS));
}
