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
    edges_off: u64,
    worst_edge_ns: u64,
}

impl Score {
    fn add(&mut self, pair: &Pair) {
        match (&pair.expected, &pair.told) {
            (Some(_), Some(_)) => {
                self.right += 1;
                self.wrong_way += u64::from(pair.direction_right() == Some(false));
                self.edges_off += u64::from(pair.edges_right() == Some(false));
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
    /// Whether it is good enough: precision and recall at least 0.97 in all and 0.9 of each kind,
    /// 97 % of all edges where they belong (a scattered loss more or less is the end of nothing that
    /// one could be sure of), and no wrong direction or first verdict.
    pub good: bool,
}

/// Runs scenarios with these seeds, each for so many days where they are given; `verbose` lists every event and not only those that are wrong.
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
            verdicts_wrong += u64::from(outcome.cause.0 != outcome.cause.1);
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
    let good = |s: &Score, at_least: f64| {
        let right = s.right as f64;
        right >= at_least * (right + s.missed as f64)
            && right >= at_least * (right + s.false_alarms as f64)
    };
    Table {
        text,
        events: total.right + total.missed,
        good: good(&total, 0.97)
            && kinds.values().all(|s| good(s, 0.9))
            && total.edges_off as f64 <= 0.03 * total.right as f64
            && total.wrong_way + verdicts_wrong == 0,
    }
}

fn remarks_on(outcome: &Outcome, seed: u64, verbose: bool) -> Vec<String> {
    let mut remarks = Vec::new();
    for pair in &outcome.pairs {
        let what = match (&pair.expected, &pair.told) {
            (Some(_), None) => "missed",
            (None, _) => "false alarm",
            _ if pair.direction_right() == Some(false) => "wrong way",
            _ if pair.edges_right() == Some(false) => "edges off",
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
    if outcome.cause.0 != outcome.cause.1 {
        remarks.push(format!(
            "seed {seed}: verdict {:?} instead of {:?}",
            outcome.cause.1, outcome.cause.0
        ));
    }
    remarks
}
