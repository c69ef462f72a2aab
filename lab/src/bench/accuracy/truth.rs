//! What the line did to each packet of each tool, by the number that the tool gave it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bufferbane_core::trace::way::FLOW;

use crate::link::{Flow, Passage, Way};

/// How long one packet and its answer were on the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Upward, ns.
    pub(super) up_ns: i64,
    /// Downward, ns.
    pub(super) down_ns: i64,
    /// When it reached the line, `CLOCK_REALTIME`, ns.
    pub(super) arrival_ns: i64,
}

/// By number; lost ones are not in it.
pub(super) type Truth = BTreeMap<u64, Line>;

fn of(log: &[Passage], far: IpAddr, way: Way, pick: impl Fn(&Passage) -> bool) -> Vec<Passage> {
    let wanted = |p: &&Passage| p.far == far && p.way == way && pick(p);
    let mut list: Vec<Passage> = log.iter().filter(wanted).copied().collect();
    list.sort_by_key(|p| p.arrival_ns);
    list
}

/// Requests, and the answers that the line got to them.
#[derive(Debug, Default)]
pub(super) struct Exchanges(BTreeMap<u64, (Passage, Option<Passage>)>);

impl Exchanges {
    /// How long those took that got over the line both ways.
    pub(super) fn truth(&self) -> Truth {
        let line = |(n, (request, answer)): (&u64, &(Passage, Option<Passage>))| {
            let took = Line {
                up_ns: request.took_ns()?,
                down_ns: answer.as_ref()?.took_ns()?,
                arrival_ns: request.arrival_ns,
            };
            Some((*n, took))
        };
        self.0.iter().filter_map(line).collect()
    }

    /// Those that the line lost, and which way.
    pub(super) fn lost(&self) -> BTreeMap<u64, Way> {
        let way = |(n, (request, answer)): (&u64, &(Passage, Option<Passage>))| {
            if request.took_ns().is_none() {
                return Some((*n, Way::Up));
            }
            // Without an answer the far end's host has lost it, or it is still on its way.
            answer
                .filter(|a| a.took_ns().is_none())
                .map(|_| (*n, Way::Down))
        };
        self.0.iter().filter_map(way).collect()
    }
}

/// Requests and answers that both carry the number.
fn numbered(up: &[Passage], down: &[Passage], number: impl Fn(&Passage) -> u64) -> Exchanges {
    let answers: BTreeMap<u64, &Passage> = down.iter().map(|p| (number(p), p)).collect();
    let pair = |p: &Passage| (number(p), (*p, answers.get(&number(p)).map(|a| **a)));
    Exchanges(up.iter().map(pair).collect())
}

/// Frames of pings are smaller, bytes: those of the search for the largest packet that passes are not.
const SEARCH_BYTES: u32 = 576;

/// ICMP echoes with `far`, by sequence number. One program talks to each address, and those by which ours
/// walks the way there, or looks for the largest packet that passes, are left out.
pub(super) fn echoes(log: &[Passage], far: IpAddr) -> Truth {
    let pick = |p: &Passage| {
        p.bytes < SEARCH_BYTES && matches!(p.flow, Flow::Echo(identifier, _) if identifier != FLOW)
    };
    let number = |p: &Passage| match p.flow {
        Flow::Echo(_, seq) => u64::from(seq),
        _ => 0,
    };
    let (up, down) = (of(log, far, Way::Up, pick), of(log, far, Way::Down, pick));
    numbered(&up, &down, number).truth()
}

/// irtt's packets, by their number, which is in both directions at the same place.
pub(super) fn irtt(log: &[Passage], far: IpAddr, size: u16) -> Exchanges {
    let pick = |p: &Passage| matches!(p.flow, Flow::Udp(_, _, len) if len == size);
    let number = |p: &Passage| u64::from(((p.mark >> 32) as u32).swap_bytes());
    let (up, down) = (of(log, far, Way::Up, pick), of(log, far, Way::Down, pick));
    numbered(&up, &down, number)
}

/// The reflector answers within this, ns, except where its host stalls; probes are further apart.
const RESIDENCE_NS: i64 = 10_000_000;

/// Our probes, by the counter of their session. The echoes have a counter of their own, so they are
/// told by when they came: each belongs to the oldest request that is not answered yet and has only
/// just got there. What was answered later than that is left out.
pub(super) fn probes(log: &[Passage], far: IpAddr, size: u16) -> Exchanges {
    let pick = |p: &Passage| matches!(p.flow, Flow::Udp(_, _, len) if len == size);
    let requests = of(log, far, Way::Up, pick);
    let mut arrived: Vec<(i64, u64)> = requests
        .iter()
        .filter_map(|p| Some((p.fate.delivered_ns()?, p.mark)))
        .collect();
    arrived.sort_unstable();
    let mut arrived = arrived.into_iter().peekable();
    let mut all = Exchanges(requests.iter().map(|p| (p.mark, (*p, None))).collect());
    for answer in of(log, far, Way::Down, pick) {
        let waits = |at: i64| answer.arrival_ns - at;
        while arrived
            .next_if(|(at, _)| waits(*at) > RESIDENCE_NS)
            .is_some()
        {}
        if let Some((_, mark)) = arrived.next_if(|(at, _)| waits(*at) >= 0)
            && let Some(exchange) = all.0.get_mut(&mark)
        {
            exchange.1 = Some(answer);
        }
    }
    all
}

/// What has to be added to the numbers of `sent` (number, send time) to have those of `truth`: the
/// two count from different beginnings. Probes leave at random times, so the time from leaving to
/// reaching the line is steady for one difference only, whatever the sender's clock does meanwhile.
pub(super) fn align(sent: &[(u64, i64)], truth: &Truth) -> Option<i64> {
    let first = *truth.keys().next()? as i64;
    let begin = sent.first()?.0 as i64;
    let unrest = |shift: i64| {
        let delays: Vec<i64> = sent
            .iter()
            .filter_map(|&(n, at)| {
                let line = truth.get(&u64::try_from(n as i64 + shift).ok()?)?;
                Some(line.arrival_ns - at)
            })
            .collect();
        let enough = delays.len() * 2 > sent.len();
        let steps: i64 = delays.windows(2).map(|w| (w[1] - w[0]).abs()).sum();
        enough.then(|| steps / delays.len() as i64)
    };
    (first - begin - 500..=first - begin + 500)
        .filter_map(|shift| Some((unrest(shift)?, shift)))
        .min()
        .map(|(_, shift)| shift)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Fate;

    #[test]
    fn numbers_are_aligned_in_spite_of_a_wrong_clock() {
        // Slots of 20 ms, each probe somewhere in the first half of its own.
        let offset = |n: u64| (n * 7_919_777 % 10_000_000) as i64;
        let at = |n: u64| n as i64 * 20_000_000 + offset(n);
        let line = |n: u64| Line {
            up_ns: 1,
            down_ns: 1,
            arrival_ns: at(n) + 5_000,
        };
        let truth: Truth = (0..1000).map(|n| (n + 3, line(n))).collect();
        let wrong = |n: u64| at(n) + at(n) / 20_000 + if n > 500 { 100_000_000 } else { 0 };
        let sent: Vec<(u64, i64)> = (20..900).map(|n| (n, wrong(n))).collect();
        assert_eq!(align(&sent, &truth), Some(3));
    }

    /// The log begins while a probe is on its way back, and one is never answered.
    #[test]
    fn an_answer_belongs_to_the_request_that_has_just_arrived() {
        const MS: i64 = 1_000_000;
        let far = IpAddr::from([10, 99, 0, 1]);
        let packet = |way, at_ms: i64, took_ms: i64, mark| Passage {
            flow: Flow::Udp(1, 2, 128),
            far,
            mark,
            fate: Fate::Delivered((at_ms + took_ms) * MS),
            ..Passage::arrived(way, at_ms * MS, 170)
        };
        let log = [
            packet(Way::Down, 5, 20, 70),
            packet(Way::Up, 0, 20, 8),
            packet(Way::Down, 20, 23, 71),
            packet(Way::Up, 20, 22, 9),
            packet(Way::Up, 40, 24, 10),
            packet(Way::Down, 64, 21, 72),
        ];
        let all = probes(&log, far, 128);
        let truth = all.truth();
        let took = |n: u64| truth.get(&n).map(|l| (l.up_ns / MS, l.down_ns / MS));
        assert_eq!(truth.len(), 2);
        assert_eq!(
            (took(8), took(9), took(10)),
            (Some((20, 23)), None, Some((24, 21)))
        );
        assert!(all.lost().is_empty());
    }

    #[test]
    fn a_loss_has_the_way_on_which_the_line_lost_it() {
        const MS: i64 = 1_000_000;
        let far = IpAddr::from([10, 99, 0, 1]);
        let packet = |way, at_ms: i64, mark, fate| Passage {
            flow: Flow::Udp(1, 2, 128),
            far,
            mark,
            fate,
            ..Passage::arrived(way, at_ms * MS, 170)
        };
        let log = [
            packet(Way::Up, 0, 8, Fate::Buffer),
            packet(Way::Up, 20, 9, Fate::Delivered(40 * MS)),
            packet(Way::Down, 40, 70, Fate::Buffer),
            packet(Way::Up, 40, 10, Fate::Delivered(60 * MS)),
        ];
        let lost = probes(&log, far, 128).lost();
        assert_eq!(lost, BTreeMap::from([(8, Way::Up), (9, Way::Down)]));
    }
}
