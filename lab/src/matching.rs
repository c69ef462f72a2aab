//! A series of samples against the log of the line that they went through.

use std::cmp::Ordering;
use std::collections::HashMap;

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

/// The first probe of a session reaches the line this soon after its stamp, ns: it takes microseconds,
/// unless the machine is taken away from us between the two. Less than probes of a series are apart.
const NEAR_NS: i64 = 4_000_000;

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

/// A request, and its answer where the far end gave one.
#[derive(Clone, Copy, Debug)]
pub struct Exchange {
    /// What became of the request.
    pub request: Passage,
    /// What became of the answer.
    pub answer: Option<Passage>,
}

/// The exchanges among `log`, which has everything of one series from the beginning, in the order of
/// their requests. Pings are told by their number. A reflector answers every probe that reaches it, in
/// the order in which they come, however long that takes it; so are its answers told.
#[must_use]
pub fn exchanges(log: &[Passage]) -> Vec<Exchange> {
    let of = |way: Way| {
        let mut list: Vec<Passage> = log.iter().filter(|p| p.way == way).copied().collect();
        list.sort_by_key(|p| p.arrival_ns);
        list
    };
    let (requests, answers) = (of(Way::Up), of(Way::Down));
    let by_number: HashMap<Flow, Passage> = answers
        .iter()
        .filter(|p| matches!(p.flow, Flow::Echo(..)))
        .map(|p| (p.flow, *p))
        .collect();
    let mut by_order = answers.iter().filter(|p| !matches!(p.flow, Flow::Echo(..)));
    let mut list: Vec<Exchange> = requests
        .into_iter()
        .map(|request| Exchange {
            request,
            answer: None,
        })
        .collect();
    // A line may let packets overtake each other.
    let mut order: Vec<usize> = (0..list.len()).collect();
    order.sort_by_key(|&i| list[i].request.fate.delivered_ns());
    for i in order {
        let request = &list[i].request;
        if request.fate.delivered_ns().is_some() {
            list[i].answer = match request.flow {
                Flow::Echo(..) => by_number.get(&request.flow).copied(),
                _ => by_order.next().copied(),
            };
        }
    }
    list
}

/// Each of `sent`, one series in the order of time, with its exchange, and in words what has none.
/// A series of UDP has to be its session's only one.
#[must_use]
pub fn pairs<'a>(
    sent: &'a [Sent],
    exchanges: &'a [Exchange],
) -> (Vec<(&'a Sent, &'a Exchange)>, Vec<String>) {
    let (mut pairs, mut wrong) = (Vec::with_capacity(sent.len()), Vec::new());
    let mut rest = exchanges.iter().peekable();
    let mut last = None;
    for s in sent {
        if matches!(s.sample.status, Status::Unsent | Status::Duplicate) {
            wrong.push(format!("cannot be on this line: {:?}", s.sample));
            continue;
        }
        while let Some(e) = rest.next_if(|e| against(&e.request, s, last).is_lt()) {
            let at_ns = e.request.arrival_ns;
            wrong.push(format!("no sample for the request at {at_ns}"));
        }
        match rest.next_if(|e| against(&e.request, s, last).is_eq()) {
            Some(exchange) => {
                last = Some((s, exchange));
                pairs.push((s, exchange));
            }
            None => wrong.push(format!("no request at {} for {:?}", s.at_ns, s.sample)),
        }
    }
    (pairs, wrong)
}

/// Compares `sent`, one series in the order of time, with what the line did.
#[must_use]
pub fn compare(sent: &[Sent], exchanges: &[Exchange], knows_direction: bool) -> Outcome {
    let (pairs, wrong) = pairs(sent, exchanges);
    let mut outcome = Outcome {
        probes: exchanges.len(),
        wrong,
        ..Outcome::default()
    };
    for (s, exchange) in pairs {
        outcome.hold(&s.sample, exchange, knows_direction);
    }
    outcome.rtt_errors_ns.sort_unstable();
    outcome
}

/// Whether `request` is the one of `sent`, or an earlier or a later one. A ping's number says so. Of
/// other probes the counter does, which goes on with their numbers from the `last` pair until a new
/// session begins it again; the time tells that session's first.
fn against(request: &Passage, sent: &Sent, last: Option<(&Sent, &Exchange)>) -> Ordering {
    if let Flow::Echo(_, number) = request.flow {
        let ahead = number.wrapping_sub(sent.sample.seq as u16).cast_signed();
        return ahead.cmp(&0);
    }
    if let Some((before, exchange)) = last
        && let Some(counted) = request.mark.checked_sub(exchange.request.mark)
        && counted > 0
    {
        return counted.cmp(&(sent.sample.seq - before.sample.seq));
    }
    let after_ns = request.arrival_ns - sent.at_ns;
    if after_ns.abs() < NEAR_NS {
        Ordering::Equal
    } else {
        after_ns.cmp(&0)
    }
}

impl Outcome {
    /// Holds one sample against what the line did to its packets.
    fn hold(&mut self, sample: &Sample, exchange: &Exchange, knows_direction: bool) {
        let is = |lost: Status| match sample.status {
            Status::Lost => !knows_direction,
            status => status == lost,
        };
        let request = &exchange.request;
        let Fate::Delivered(up_ns) = request.fate else {
            self.lost_up += 1;
            if !is(Status::LostUp) {
                self.wrong
                    .push(format!("lost up, but said to be {sample:?}"));
            }
            return;
        };
        let Some(answer) = exchange.answer.filter(|a| a.arrival_ns >= up_ns) else {
            self.wrong
                .push(format!("the far end never answered {sample:?}"));
            return;
        };
        let Fate::Delivered(down_ns) = answer.fate else {
            self.lost_down += 1;
            if !is(Status::LostDown) {
                self.wrong
                    .push(format!("lost down, but said to be {sample:?}"));
            }
            return;
        };
        match sample.rtt_ns {
            Some(rtt_ns) if sample.status == Status::Ok => {
                let truth_ns = (up_ns - request.arrival_ns) + (down_ns - answer.arrival_ns);
                self.rtt_errors_ns.push(rtt_ns as i64 - truth_ns);
            }
            _ => self
                .wrong
                .push(format!("answered, but said to be {sample:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use bufferbane_core::sample::SeriesIndex;
    use bufferbane_core::time::Monotonic;

    use super::*;

    const MS: i64 = 1_000_000;

    /// A probe each 10 ms, 5 ms each way; `fates` of request and answer.
    fn log(fates: &[(bool, bool)]) -> Vec<Passage> {
        let mut log = Vec::new();
        for (i, &(up, down)) in fates.iter().enumerate() {
            let at = i as i64 * 10 * MS;
            let fate = |ok: bool, at: i64| if ok { Fate::Delivered(at) } else { Fate::Lost };
            let mut p = Passage::arrived(Way::Up, at, 170);
            p.flow = Flow::Udp(4000, 9876, 128);
            p.fate = fate(up, at + 5 * MS);
            log.push(p);
            if up {
                // The far end may take its time.
                let at = at + 35 * MS;
                let mut p = Passage::arrived(Way::Down, at, 170);
                p.flow = Flow::Udp(9876, 4000, 128);
                p.fate = fate(down, at + 5 * MS);
                log.push(p);
            }
        }
        log
    }

    fn sent(statuses: &[Status]) -> Vec<Sent> {
        let sent = |(i, &status): (usize, &Status)| {
            let mut sample = Sample::lost(SeriesIndex(0), i as u64, Monotonic::ZERO, 128);
            sample.status = status;
            if status == Status::Ok {
                sample.rtt_ns = Some(10_000_003);
            }
            Sent {
                at_ns: i as i64 * 10 * MS - 20_000,
                sample,
            }
        };
        statuses.iter().enumerate().map(sent).collect()
    }

    #[test]
    fn a_probe_that_reaches_the_line_late_is_told_by_its_counter() {
        let mut log = log(&FATES);
        let requests = log.iter_mut().filter(|p| p.way == Way::Up);
        for (counter, p) in (70..).zip(requests) {
            p.mark = counter;
        }
        let third = log.iter_mut().filter(|p| p.way == Way::Up).nth(2);
        third.expect("four requests").arrival_ns += 9_400_000;
        let said = sent(&[Status::Ok, Status::LostUp, Status::LostDown, Status::Ok]);
        let outcome = compare(&said, &exchanges(&log), true);
        assert!(outcome.wrong.is_empty(), "{:?}", outcome.wrong);
        let one_less = [&said[..2], &said[3..]].concat();
        assert_eq!(compare(&one_less, &exchanges(&log), true).wrong.len(), 1);
        log.retain(|p| p.mark != 71);
        assert_eq!(compare(&said, &exchanges(&log), true).wrong.len(), 1);
    }

    const FATES: [(bool, bool); 4] = [(true, true), (false, true), (true, false), (true, true)];

    #[test]
    fn what_agrees_is_counted_however_slow_the_far_end_is() {
        let said = sent(&[Status::Ok, Status::LostUp, Status::LostDown, Status::Ok]);
        let outcome = compare(&said, &exchanges(&log(&FATES)), true);
        assert!(outcome.wrong.is_empty(), "{:?}", outcome.wrong);
        assert_eq!((outcome.lost_up, outcome.lost_down), (1, 1));
        assert_eq!(outcome.rtt_errors_ns, [3, 3]);
    }

    #[test]
    fn every_kind_of_untruth_is_found() {
        use Status::{Late, Lost, LostDown, LostUp, Ok};
        for statuses in [
            [Ok, LostDown, LostDown, Ok],
            [Ok, LostUp, LostUp, Ok],
            [Ok, LostUp, Lost, Ok],
            [LostDown, LostUp, LostDown, Ok],
            [Ok, Ok, LostDown, Ok],
            [Ok, LostUp, LostDown, Late],
        ] {
            let outcome = compare(&sent(&statuses), &exchanges(&log(&FATES)), true);
            assert_eq!(outcome.wrong.len(), 1, "{statuses:?}");
        }
        let all = sent(&[Ok, LostUp, LostDown, Ok]);
        let one_less = [&all[..1], &all[2..]].concat();
        let outcome = compare(&one_less, &exchanges(&log(&FATES)), true);
        assert_eq!(outcome.wrong.len(), 1);
        let outcome = compare(&all, &exchanges(&log(&FATES[..3])), true);
        assert_eq!(outcome.wrong.len(), 1);
        let outcome = compare(
            &sent(&[Ok, Lost, Lost, Ok]),
            &exchanges(&log(&FATES)),
            false,
        );
        assert!(outcome.wrong.is_empty());
    }

    #[test]
    fn pings_are_told_by_their_number_whatever_the_clock_says() {
        let mut log = log(&FATES);
        let mut n = 65534_u16;
        for p in &mut log {
            if p.way == Way::Up {
                n = n.wrapping_add(1);
            }
            p.flow = Flow::Echo(7, n);
        }
        let mut said = sent(&[Status::Ok, Status::Lost, Status::Lost, Status::Ok]);
        for s in &mut said {
            s.sample.seq += 65535;
            s.at_ns += 50 * MS;
        }
        let outcome = compare(&said, &exchanges(&log), false);
        assert!(outcome.wrong.is_empty(), "{:?}", outcome.wrong);
        assert_eq!((outcome.lost_up, outcome.lost_down), (1, 1));
        said.remove(1);
        assert_eq!(compare(&said, &exchanges(&log), false).wrong.len(), 1);
    }
}
