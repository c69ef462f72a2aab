//! The detector of services against resolvers and servers that know what they did, on a line that does too.

use bufferbane_core::detect::Severity;
use bufferbane_core::detect::service::{Asks, Trouble};
use bufferbane_core::failure::Failure;
use bufferbane_sim::held::{self, Ends};
use bufferbane_sim::services::{Does, Plan, Service, Spell, Told, edges_s, is, run};
use bufferbane_sim::{MS, S};

/// Nothing was tuned on them.
const SEEDS: std::ops::Range<u64> = 1100..1106;

fn spell(from_s: u64, to_s: u64, does: Does) -> Spell {
    Spell { from_s, to_s, does }
}

fn asked(asks: Asks, spells: &[Spell]) -> Service {
    Service {
        asks,
        interval_s: 10,
        spells: spells.to_vec(),
    }
}

fn resolver(spells: &[Spell]) -> Service {
    asked(Asks::Dns, spells)
}

fn plan(services: Vec<Service>, line: &[Spell]) -> Plan {
    Plan {
        services,
        line: line.to_vec(),
        seconds: 3000,
    }
}

/// The one trouble that is told, on each seed: from the first to the last answer that is bad.
fn each_tells_one(plan: &Plan, trouble: Trouble, also: impl Fn(&Told) -> bool) {
    each_tells_one_within(plan, trouble, 1, also);
}

fn each_tells_one_within(
    plan: &Plan,
    trouble: Trouble,
    within_s: u64,
    also: impl Fn(&Told) -> bool,
) {
    for seed in SEEDS {
        let told = run(plan, seed);
        let [one] = &told[..] else {
            panic!("{seed}: {told:#?}");
        };
        let edges = edges_s(&one.news);
        assert!(is(one, trouble, within_s), "{seed}: {edges:?} {one:#?}");
        assert_eq!(one.news.place, 0);
        assert!(also(one), "{seed}: {one:#?}");
    }
}

#[test]
fn a_slow_resolver_is_told_and_how_slow_it_is() {
    let slow = spell(1200, 2000, Does::Slow(350 * MS));
    let plan = plan(vec![resolver(&[slow])], &[]);
    // Names that were asked for elsewhere just before may be taken for it.
    each_tells_one_within(&plan, Trouble::DnsSlow, 60, |t| {
        let median_ns = t.news.evidence.median_ns.unwrap_or(0);
        (365 * MS..400 * MS).contains(&median_ns) && t.news.evidence.only.is_none()
    });
}

#[test]
fn a_resolver_that_answers_servfail_is_told_within_two_minutes() {
    let fails = spell(1200, 2000, Does::Fails(1000, Failure::dns(2)));
    let plan = plan(vec![resolver(&[fails])], &[]);
    each_tells_one(&plan, Trouble::DnsFailing, |t| {
        t.news.evidence.failure == Some(Failure::dns(2))
            && t.news.severity == Severity::Critical
            && t.first_told_s < 1320
    });
}

/// Of every second question: nobody answers.
#[test]
fn a_resolver_that_is_silent_now_and_then_is_told() {
    let silent = spell(1000, 2400, Does::Silent(500));
    let plan = plan(vec![resolver(&[silent])], &[]);
    each_tells_one_within(&plan, Trouble::DnsFailing, 60, |t| {
        t.news.evidence.silent > 0 && t.news.evidence.failure.is_none()
    });
}

#[test]
fn one_of_two_resolvers_is_told_as_the_only_one_and_both_are_not() {
    let fails = spell(1200, 2000, Does::Fails(1000, Failure::dns(2)));
    let one = plan(vec![resolver(&[fails]), resolver(&[])], &[]);
    each_tells_one(&one, Trouble::DnsFailing, |t| {
        t.news.evidence.only == Some(true)
    });
    let both = plan(vec![resolver(&[fails]), resolver(&[fails])], &[]);
    for seed in SEEDS {
        let told = run(&both, seed);
        assert_eq!(told.len(), 2, "{seed}: {told:#?}");
        let only = told.iter().map(|t| t.news.evidence.only);
        assert!(
            only.into_iter().all(|o| o == Some(false)),
            "{seed}: {told:#?}"
        );
    }
}

/// Cache misses and a lost datagram now and then, for six hours each.
#[test]
fn of_those_that_are_well_nothing_is_told() {
    let services = vec![resolver(&[]), resolver(&[]), asked(Asks::Tcp, &[])];
    let plan = Plan {
        seconds: 6 * 3600,
        ..plan(services, &[])
    };
    for seed in 1100..1102 {
        let told = run(&plan, seed);
        assert!(told.is_empty(), "{seed}: {told:#?}");
    }
}

#[test]
fn while_the_line_is_dead_or_slow_nothing_is_told_of_those_behind_it() {
    let services = vec![resolver(&[]), asked(Asks::Tcp, &[])];
    let dead = spell(1200, 1500, Does::Silent(1000));
    let short = spell(2000, 2008, Does::Silent(1000));
    let lossy = spell(2400, 3000, Does::Silent(300));
    let slow = spell(600, 900, Does::Slow(700 * MS));
    let plan = plan(services, &[dead, short, lossy, slow]);
    for seed in SEEDS {
        let told = run(&plan, seed);
        assert!(told.is_empty(), "{seed}: {told:#?}");
    }
}

/// It began before the outage, and goes on after it.
#[test]
fn an_outage_of_the_line_does_not_hide_what_the_resolver_did_before() {
    let fails = spell(1200, 2400, Does::Fails(1000, Failure::dns(5)));
    let dead = spell(1800, 1900, Does::Silent(1000));
    let plan = plan(vec![resolver(&[fails])], &[dead]);
    each_tells_one(&plan, Trouble::DnsFailing, |t| {
        t.news.evidence.silent < 5 && t.news.evidence.failure == Some(Failure::dns(5))
    });
}

#[test]
fn a_server_that_is_slow_to_open_is_told_and_one_that_refuses_too() {
    let slow = spell(1200, 2000, Does::Slow(800 * MS));
    let plan_of = |spell| plan(vec![asked(Asks::Tcp, &[spell])], &[]);
    each_tells_one(&plan_of(slow), Trouble::TcpSlow, |t| {
        t.news.severity == Severity::Warning
    });
    let refuses = spell(1200, 2000, Does::Fails(1000, Failure::errno(111)));
    each_tells_one(&plan_of(refuses), Trouble::TcpFailing, |t| {
        t.news.evidence.failure == Some(Failure::errno(111))
    });
}

/// As of the line's events: precision and recall, edges, and the first verdict. Edges are the first and the last answer that
/// is bad because of it: to a second where all are, to a minute where a name that was asked for elsewhere hides or shows
/// it.
#[test]
fn what_services_do_is_told_as_well_as_what_lines_do() {
    use bufferbane_sim::scenario::Cause;

    let at = |does| spell(1200, 2000, does);
    let slow = at(Does::Slow(350 * MS));
    let fails = at(Does::Fails(1000, Failure::dns(2)));
    let opens_late = at(Does::Slow(800 * MS));
    let refuses = at(Does::Fails(1000, Failure::errno(111)));
    let dead = spell(1200, 1500, Does::Silent(1000));
    let tcp = |spell| asked(Asks::Tcp, &[spell]);
    let well = || vec![resolver(&[]), asked(Asks::Tcp, &[])];
    let beside = |bad| {
        let mut services = well();
        services.insert(0, bad);
        services
    };
    let cases = [
        (
            plan(beside(resolver(&[slow])), &[]),
            Some((Trouble::DnsSlow, 60)),
            Cause::Resolver,
        ),
        (
            plan(beside(resolver(&[fails])), &[]),
            Some((Trouble::DnsFailing, 1)),
            Cause::Resolver,
        ),
        (
            plan(beside(tcp(opens_late)), &[]),
            Some((Trouble::TcpSlow, 1)),
            Cause::Service,
        ),
        (
            plan(beside(tcp(refuses)), &[]),
            Some((Trouble::TcpFailing, 1)),
            Cause::Service,
        ),
        (plan(well(), &[]), None, Cause::Nothing),
        (plan(well(), &[dead]), None, Cause::AccessOutages),
    ];
    let (mut right, mut missed, mut wrong, mut off) = (0, 0, 0, 0);
    for (n, (plan, expected, cause)) in cases.iter().enumerate() {
        for seed in 1110..1118 {
            let (told, first) = bufferbane_sim::services::judge(plan, seed);
            assert_eq!(first, *cause, "case {n}, seed {seed}: {told:#?}");
            let of = |t: &Told| {
                expected.is_some_and(|(trouble, _)| t.news.place == 0 && t.news.trouble == trouble)
            };
            wrong += told.iter().filter(|t| !of(t)).count();
            let Some((trouble, within_s)) = expected else {
                continue;
            };
            let found: Vec<&Told> = told.iter().filter(|t| of(t)).collect();
            missed += usize::from(found.is_empty());
            right += usize::from(!found.is_empty());
            wrong += found.len().saturating_sub(1);
            let is_right = |t: &&Told| is(t, *trouble, *within_s);
            off += usize::from(found.first().is_some_and(|t| !is_right(t)));
        }
    }
    let all = right + missed;
    assert_eq!(all, 32);
    let said =
        format!("{right} right, {missed} missed, {wrong} false, {off} with edges that are off");
    assert!(
        100 * right >= 97 * all && 100 * wrong <= 3 * right && 100 * off <= 3 * right,
        "{said}"
    );
}

/// A connection that is held for three hours while this is so.
fn holding(spells: &[(u64, u64, Ends)], seed: u64) -> held::Outcome {
    let spell = |(from_s, to_s, ends): &(u64, u64, Ends)| held::Spell {
        from_s: *from_s,
        to_s: *to_s,
        ends: *ends,
    };
    let spells: Vec<_> = spells.iter().map(spell).collect();
    held::run(&spells, 3 * 3600, seed)
}

/// That one trouble was told: from the `first` loss to the last but `after`, and of as many.
#[track_caller]
fn is_of_its_losses(outcome: &held::Outcome, first: usize, after: usize) -> held::Told {
    let [told] = outcome.told[..] else {
        panic!("{outcome:#?}");
    };
    let lost = &outcome.lost[first..outcome.lost.len() - after];
    assert_eq!(told.unstable.since, lost[0], "{outcome:#?}");
    assert_eq!(told.end.as_ref(), lost.last(), "{outcome:#?}");
    assert_eq!(told.unstable.drops as usize, lost.len(), "{outcome:#?}");
    told
}

#[test]
fn a_connection_that_is_closed_in_order_or_lost_now_and_then_is_no_trouble() {
    let reset = |s| (s, s + 1, Ends::Reset(0, 0));
    for seed in 1501..1511 {
        let closed = holding(&[(100, 9000, Ends::Closed(60 * S))], seed);
        assert!(closed.closed > 140 && closed.lost.is_empty(), "{closed:?}");
        assert!(closed.told.is_empty(), "{closed:?}");
        let lost = holding(&[reset(500), reset(802), reset(5000)], seed);
        assert_eq!((lost.lost.len(), lost.told.len()), (3, 0), "{lost:?}");
        // A line that is dead for less than keep-alives wait ends none, however often.
        let short: Vec<_> = (0..9)
            .map(|n| (500 + 60 * n, 535 + 60 * n, Ends::Dead))
            .collect();
        assert!(holding(&short, seed).lost.is_empty());
    }
}

#[test]
fn two_losses_in_five_minutes_are_trouble_from_the_first_to_the_last() {
    let reset = |s| (s, s + 1, Ends::Reset(0, 0));
    for seed in 1501..1511 {
        // One long before, and one long after, are none of it.
        let two = holding(&[reset(500), reset(2000), reset(2290), reset(2600)], seed);
        assert_eq!(is_of_its_losses(&two, 1, 1).unstable.each_after_ns, None);
        let often = (1000, 5000, Ends::Reset(20 * S, 250 * S));
        let many = holding(&[often], seed);
        assert!(many.lost.len() > 20, "{many:?}");
        is_of_its_losses(&many, 0, 0);
        // Closed in order meanwhile.
        let closed = (2100, 2200, Ends::Closed(20 * S));
        let both = holding(&[reset(2000), closed, reset(2280)], seed);
        assert_eq!((both.closed, both.lost.len()), (5, 2), "{both:?}");
        is_of_its_losses(&both, 0, 0);
        // A line that dies twice for as long as keep-alives wait, which is known as long after.
        let dead = |s| (s, s + 80, Ends::Dead);
        let outages = holding(&[dead(1000), dead(1200)], seed);
        let told = is_of_its_losses(&outages, 0, 0);
        let at_s = told.unstable.since.as_nanos() / S - 1000;
        assert!((1040..=1070).contains(&at_s), "{at_s}: {outages:?}");
    }
}

#[test]
fn what_ends_each_connection_at_the_same_age_is_told_as_a_timer() {
    for seed in 1501..1511 {
        let forgets = (1000, 4000, Ends::Reset(120 * S, 121 * S));
        let timer = is_of_its_losses(&holding(&[forgets], seed), 0, 0);
        let each_ns = timer.unstable.each_after_ns.unwrap_or(0);
        assert!((120 * S..122 * S).contains(&each_ns), "{timer:?}");
    }
}
