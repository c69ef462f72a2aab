//! A series of samples against the log of the line that they went through.

use bufferbane_core::sample::{Sample, Status};

use crate::link::{Fate, Flow, Passage, Way};

/// A sample with the time it was sent at, `CLOCK_REALTIME`, ns.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// When it left.
    pub at_ns: i64,
    /// What the program says of it.
    pub sample: Sample,
}

/// A probe reaches the line this soon after its stamp, ns.
const NEAR_NS: i64 = 1_000_000;
/// The far end answers this soon, ns.
const ANSWER_NS: i64 = 20_000_000;

/// What a comparison counted.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Probes that the log has.
    pub probes: usize,
    /// Lost by the line, upward and downward.
    pub lost_up: usize,
    /// See `lost_up`.
    pub lost_down: usize,
    /// Said minus true round-trip time of each answered probe, ns.
    pub rtt_errors_ns: Vec<i64>,
    /// Everything that does not agree, in words.
    pub wrong: Vec<String>,
}

/// Compares `sent`, one series in the order of time, with the requests among `log` that `is_request`
/// picks and the answers that `is_answer` picks.
#[must_use]
pub fn compare(
    sent: &[Sent],
    log: &[Passage],
    is_request: impl Fn(&Flow) -> bool,
    is_answer: impl Fn(&Flow) -> bool,
    knows_direction: bool,
) -> Outcome {
    let of = |way: Way, pick: &dyn Fn(&Flow) -> bool| {
        let mut list: Vec<Passage> = log
            .iter()
            .filter(|p| p.way == way && pick(&p.flow))
            .copied()
            .collect();
        list.sort_by_key(|p| p.arrival_ns);
        list
    };
    let requests = of(Way::Up, &is_request);
    let answers = of(Way::Down, &is_answer);
    let mut outcome = Outcome {
        probes: requests.len(),
        ..Outcome::default()
    };
    let (mut next_request, mut next_answer) = (0, 0);
    for s in sent {
        if matches!(s.sample.status, Status::Unsent | Status::Duplicate) {
            outcome
                .wrong
                .push(format!("cannot be on this line: {:?}", s.sample));
            continue;
        }
        while requests
            .get(next_request)
            .is_some_and(|r| r.arrival_ns < s.at_ns - NEAR_NS)
        {
            let r = requests[next_request];
            outcome
                .wrong
                .push(format!("no sample for the request at {}", r.arrival_ns));
            next_request += 1;
        }
        let Some(request) = requests
            .get(next_request)
            .filter(|r| r.arrival_ns < s.at_ns + NEAR_NS)
        else {
            outcome
                .wrong
                .push(format!("no request at {} for {:?}", s.at_ns, s.sample));
            continue;
        };
        next_request += 1;
        let Fate::Delivered(up_ns) = request.fate else {
            outcome.lost_up += 1;
            let ok = match s.sample.status {
                Status::LostUp => true,
                Status::Lost => !knows_direction,
                _ => false,
            };
            if !ok {
                outcome
                    .wrong
                    .push(format!("lost up, but said to be {:?}", s.sample));
            }
            continue;
        };
        while answers
            .get(next_answer)
            .is_some_and(|a| a.arrival_ns < up_ns - NEAR_NS)
        {
            next_answer += 1;
        }
        let Some(answer) = answers
            .get(next_answer)
            .filter(|a| a.arrival_ns < up_ns + ANSWER_NS)
        else {
            outcome
                .wrong
                .push(format!("the far end never answered {:?}", s.sample));
            continue;
        };
        next_answer += 1;
        let Fate::Delivered(down_ns) = answer.fate else {
            outcome.lost_down += 1;
            let ok = match s.sample.status {
                Status::LostDown => true,
                Status::Lost => !knows_direction,
                _ => false,
            };
            if !ok {
                outcome
                    .wrong
                    .push(format!("lost down, but said to be {:?}", s.sample));
            }
            continue;
        };
        match s.sample.rtt_ns {
            Some(rtt_ns) if s.sample.status == Status::Ok => {
                let truth_ns = (up_ns - request.arrival_ns) + (down_ns - answer.arrival_ns);
                outcome.rtt_errors_ns.push(rtt_ns as i64 - truth_ns);
            }
            _ => outcome
                .wrong
                .push(format!("answered, but said to be {:?}", s.sample)),
        }
    }
    outcome.rtt_errors_ns.sort_unstable();
    outcome
}
