//! Lines that are cables and lines that are not: what is found of each, with seeds that nothing is
//! tuned on.

use bufferbane_sim::scenario::cable::{ALL, judge};

#[test]
fn what_a_cable_shows_is_found_and_of_other_lines_nothing() {
    let mut wrong = Vec::new();
    for line in &ALL {
        for seed in 1100..1103 {
            let outcome = judge(line, seed);
            let right = match line.figure {
                Some((_, _, from, to)) => outcome.figure.is_some_and(|f| (from..=to).contains(&f)),
                None => true,
            };
            if outcome.kinds() != outcome.expected || !right {
                wrong.push(format!(
                    "{} with seed {seed}: {:?} instead of {:?}: {:#?}",
                    line.name,
                    outcome.kinds(),
                    outcome.expected,
                    outcome.found
                ));
            }
            let sure = |f: &bufferbane_core::detect::cable::Finding| {
                (0.3..=0.95).contains(&f.confidence) && f.since_ns < f.until_ns
            };
            assert!(outcome.found.iter().all(sure), "{outcome:#?}");
            let name = line.name;
            assert!(outcome.without.is_empty(), "{name}: {:#?}", outcome.without);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
