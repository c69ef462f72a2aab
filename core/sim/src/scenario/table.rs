//! The table of what was told right and wrong, per scenario and per kind.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::Range;

use bufferbane_core::detect::Kind;

use super::{Outcome, Pair, judge, list};

#[derive(Clone, Copy, Default)]
struct Score {
    right: u64,
    missed: u64,
    false_alarms: u64,
    wrong_way: u64,
    /// Of two edges each.
    edges_off: u64,
    /// Edges of scattered loss, how many of these are off, and how many would be as they could be known at best.
    of_loss: u64,
    of_loss_off: u64,
    off_at_best: u64,
    worst_edge_ns: u64,
}

impl Score {
    fn add(&mut self, pair: &Pair) {
        match (&pair.expected, &pair.told) {
            (Some(_), Some(_)) => {
                self.right += 1;
                self.wrong_way += u64::from(pair.direction_right() == Some(false));
                let off = pair.edges_wrong().unwrap_or(0);
                self.edges_off += off;
                if let Some(at_best) = pair.edges_wrong_at_best() {
                    self.of_loss += 2;
                    self.of_loss_off += off;
                    self.off_at_best += at_best;
                }
                if let Some((a, b)) = pair.edges_off_ns() {
                    self.worst_edge_ns = self.worst_edge_ns.max(a).max(b);
                }
            }
            (Some(_), None) => self.missed += 1,
            (None, _) => self.false_alarms += 1,
        }
    }

    fn row(&self, name: &str) -> String {
        let share = |n: u64, of: u64| {
            if of == 0 {
                "    –".to_owned()
            } else {
                format!("{:.3}", n as f64 / of as f64)
            }
        };
        format!(
            "{name:<22} {:>5} {:>6} {:>6} {:>10} {:>7} {:>6} {:>6} {:>10.3}\n",
            self.right,
            self.missed,
            self.false_alarms,
            share(self.right, self.right + self.false_alarms),
            share(self.right, self.right + self.missed),
            self.wrong_way,
            self.edges_off,
            self.worst_edge_ns as f64 / 1e9,
        )
    }
}

/// What came of many scenarios.
#[derive(Clone, Debug)]
pub struct Table {
    /// For people.
    pub text: String,
    /// Events that had to be told.
    pub events: u64,
    /// What is not good enough of it, see [`run`]; empty where it all is.
    pub faults: Vec<String>,
}

/// Outages are all found.
const OUTAGES: [Kind; 2] = [Kind::MicroOutage, Kind::Outage];
/// Share of the edges of scattered loss that are off by more than a second even of who has the whole series before
/// them and knows both rates ([`super::oracle`]): with the seeds 1 to 200, 26 of the 2000 edges of `loss_up`,
/// `loss_down`, `loss_both` and `loss_short`.
const OFF_AT_BEST: f64 = 0.013;
/// What comes by chance more seldom than this is no chance.
const BY_CHANCE: f64 = 0.01;

/// How many of `n` may be off where each is with this chance.
fn most_by_chance(n: u64, share: f64) -> u64 {
    let n = i32::try_from(n).unwrap_or(i32::MAX);
    let mut exactly = (1.0 - share).powi(n);
    let mut more = 1.0 - exactly;
    let mut most = 0;
    while most < n && more > BY_CHANCE {
        exactly *= f64::from(n - most) / f64::from(most + 1) * share / (1.0 - share);
        most += 1;
        more -= exactly;
    }
    most.unsigned_abs().into()
}

/// What is not good enough of all, of each kind, and of the first verdicts, so many of which are wrong.
fn faults(total: &Score, kinds: &BTreeMap<Kind, Score>, verdicts_wrong: u64) -> Vec<String> {
    let mut faults = Vec::new();
    let mut hold = |is_so: bool, what: String| {
        if !is_so {
            faults.push(what);
        }
    };
    let named = kinds
        .iter()
        .map(|(kind, score)| (kind.as_str(), 0.9, score));
    for (name, least, s) in named.chain([("all", 0.97, total)]) {
        let right = s.right as f64;
        let precise = right >= least * (right + s.false_alarms as f64);
        hold(precise, format!("precision of {name} is below {least}"));
        let complete = right >= least * (right + s.missed as f64);
        hold(complete, format!("recall of {name} is below {least}"));
    }
    for (kind, s) in kinds {
        let name = kind.as_str();
        if OUTAGES.contains(kind) {
            hold(s.missed == 0, format!("{} {name} missed", s.missed));
        }
        let most = most_by_chance(s.of_loss, OFF_AT_BEST);
        for (off, what, most) in [
            (s.of_loss_off, " by scattered loss", most),
            (s.edges_off - s.of_loss_off, "", 0),
        ] {
            hold(
                off <= most,
                format!("{off} edges of {name}{what} are off, and {most} may be"),
            );
        }
    }
    let wrong_way = total.wrong_way;
    hold(wrong_way == 0, format!("{wrong_way} wrong directions"));
    hold(
        verdicts_wrong == 0,
        format!("{verdicts_wrong} wrong first verdicts"),
    );
    faults
}

/// Runs scenarios with these seeds, each for so many days where they are given; `verbose` lists every event and not
/// only those that are wrong.
///
/// It is good enough where precision and recall are at least 0.97 in all and 0.9 of each kind, no outage is missed, each
/// direction and each first verdict is right, and each edge is where it belongs: but of scattered loss, and of what is
/// told because of it, not more are off than they would be by chance of who knows it at best.
#[must_use]
pub fn run(
    scenarios: &[(&str, list::Make)],
    seeds: Range<u64>,
    days: Option<u64>,
    verbose: bool,
) -> Table {
    let mut kinds: BTreeMap<Kind, Score> = BTreeMap::new();
    let mut total = Score::default();
    let (mut verdicts_wrong, mut probes) = (0, 0);
    let mut text = format!(
        "{:<22} {:>5} {:>6} {:>6} {:>10} {:>7} {:>6} {:>6} {:>10}\n",
        "", "right", "missed", "false", "precision", "recall", "way", "edges", "worst s"
    );
    for (name, make) in scenarios {
        let mut score = Score::default();
        let mut remarks = Vec::new();
        for seed in seeds.clone() {
            let outcome = judge(*make, seed, days);
            probes += outcome.probes;
            for pair in &outcome.pairs {
                score.add(pair);
                total.add(pair);
                if let Some(kind) = pair.kind() {
                    kinds.entry(kind).or_default().add(pair);
                }
            }
            remarks.extend(remarks_on(&outcome, seed, verbose));
            verdicts_wrong += u64::from(outcome.blame != outcome.blamed);
        }
        text += &score.row(name);
        for r in remarks {
            text += &format!("    {r}\n");
        }
    }
    text += "\nby kind\n";
    for (kind, score) in &kinds {
        text += &score.row(kind.as_str());
    }
    text += &total.row("all");
    let _ = writeln!(
        text,
        "first verdicts that are wrong: {verdicts_wrong}; probes: {probes}"
    );
    if let Some(loss) = kinds.get(&Kind::PacketLoss) {
        let _ = writeln!(
            text,
            "edges of packet_loss that are off: {} of {}, and {} as known at best",
            loss.of_loss_off, loss.of_loss, loss.off_at_best
        );
    }
    Table {
        text,
        events: total.right + total.missed,
        faults: faults(&total, &kinds, verdicts_wrong),
    }
}

fn remarks_on(outcome: &Outcome, seed: u64, verbose: bool) -> Vec<String> {
    let mut remarks = Vec::new();
    for pair in &outcome.pairs {
        let what = match (&pair.expected, &pair.told) {
            (Some(_), None) => "missed",
            (None, _) => "false alarm",
            _ if pair.direction_right() == Some(false) => "wrong way",
            _ if pair.edges_wrong().is_some_and(|n| n > 0) => "edges off",
            _ if verbose => "right",
            _ => continue,
        };
        let kind = pair.kind().map_or("", Kind::as_str);
        let seconds = |ns: u64| ns as f64 / 1e9;
        let expected = pair
            .expected
            .and_then(|e| Some((e.bounds_ns?, e.direction)))
            .map_or_else(String::new, |((a, b), way)| {
                format!(" expected {:.3}–{:.3} {way:?}", seconds(a), seconds(b))
            });
        let told = pair.told.as_ref().map_or_else(String::new, |t| {
            let end = t.end.map_or(-1.0, |e| seconds(e.as_nanos()));
            format!(
                " told {:.3}–{end:.3} {:?} series {:?} {:?}",
                seconds(t.start.as_nanos()),
                t.direction,
                t.series.iter().collect::<Vec<_>>(),
                t.values,
            )
        });
        remarks.push(format!("seed {seed}: {what} {kind}:{expected}{told}"));
    }
    if outcome.blame != outcome.blamed {
        remarks.push(format!(
            "seed {seed}: verdict {:?} instead of {:?}",
            outcome.blamed, outcome.blame
        ));
    }
    remarks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_may_be_off_as_are_by_chance() {
        assert_eq!(most_by_chance(0, 0.01), 0);
        // More than four of a hundred come once in three hundred times, more than three once in fifty.
        assert_eq!(most_by_chance(100, 0.01), 4);
        assert_eq!(most_by_chance(1000, 0.0), 0);
    }

    #[test]
    fn each_rule_can_be_broken() {
        let well = Score {
            right: 100,
            ..Score::default()
        };
        let of = |change: fn(&mut Score)| {
            let mut s = well;
            change(&mut s);
            s
        };
        let off_by_loss = |off| Score {
            edges_off: off,
            of_loss: 200,
            of_loss_off: off,
            ..well
        };
        let faults_of = |kind: Kind, s: Score| faults(&well, &[(kind, s)].into(), 0);
        assert!(faults_of(Kind::Outage, well).is_empty());
        for (kind, bad) in [
            (Kind::Outage, of(|s| s.missed = 1)),
            (Kind::MicroOutage, of(|s| s.missed = 1)),
            (Kind::Outage, of(|s| s.edges_off = 1)),
            (Kind::HighJitter, of(|s| s.edges_off = 1)),
            (Kind::PacketLoss, of(|s| s.edges_off = 1)),
            (Kind::PacketLoss, off_by_loss(9)),
            (Kind::HighJitter, of(|s| s.missed = 12)),
            (Kind::HighJitter, of(|s| s.false_alarms = 12)),
        ] {
            let found = faults_of(kind, bad);
            assert_eq!(found.len(), 1, "{kind:?}: {found:?}");
        }
        assert!(faults_of(Kind::RoutingFault, off_by_loss(3)).is_empty());
        assert!(faults_of(Kind::HighJitter, of(|s| s.missed = 3)).is_empty());
        let none = BTreeMap::new();
        assert_eq!(faults(&well, &none, 1).len(), 1);
        assert_eq!(faults(&of(|s| s.wrong_way = 1), &none, 0).len(), 1);
        assert_eq!(faults(&of(|s| s.missed = 4), &none, 0).len(), 1);
    }
}
