//! Services that are asked through a line, with what became of them known: resolvers that are slow, fail or are well,
//! servers that take long, and a line that is dead or lossy for a while.
//!
//! Two hosts are pinged beside them, so that the line's own detectors tell what it did; what they tell is what the
//! services' detector hears of the line.

use std::collections::BTreeMap;

use bufferbane_core::detect::service::{
    Answer, Asks, End, Explains, Limits, LineTrouble, News, ServiceFacts, ServiceState, Services,
    Trouble, Why,
};
use bufferbane_core::detect::verdict::{self, Cause, Fact, Others, Sign};
use bufferbane_core::detect::{
    Event, LineState, Phase, Probe, Role, SeriesFacts, SeriesSet, SeriesState, Thresholds, Watch,
};
use bufferbane_core::failure::Failure;
use bufferbane_core::sample::{Sample, SeriesIndex, Status};
use bufferbane_core::time::Monotonic;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use crate::{MS, S};

/// Of 1000 questions of a service that is well so many are answered late, as the name is asked for elsewhere, and so
/// many not at all.
const MISSES: u64 = 80;
const LOSSES: u64 = 3;
/// Between two pings, ns.
const PING_NS: u64 = 100 * MS;

/// What a service, or a line, does for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    /// It takes so long, ns.
    Slow(u64),
    /// It answers so many of 1000 with this reason.
    Fails(u64, Failure),
    /// It does not answer so many of 1000.
    Silent(u64),
}

/// The same, with begin and end, seconds.
#[derive(Clone, Copy, Debug)]
pub struct Spell {
    /// Since then.
    pub from_s: u64,
    /// Until then.
    pub to_s: u64,
    /// What.
    pub does: Does,
}

/// A service.
#[derive(Clone, Debug)]
pub struct Service {
    /// What it is asked.
    pub asks: Asks,
    /// How often, seconds.
    pub interval_s: u64,
    /// What it does that is not well.
    pub spells: Vec<Spell>,
}

/// Services on one line for some time.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The services.
    pub services: Vec<Service>,
    /// What the line does: only [`Does::Silent`] and [`Does::Slow`] are of a line.
    pub line: Vec<Spell>,
    /// For so long, seconds.
    pub seconds: u64,
}

/// What was told in the end of one trouble of one service.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// The last news.
    pub news: News,
    /// When it was told for the first time, seconds.
    pub first_told_s: u64,
    /// When the first and the last question was asked whose answer the service itself made bad, or was lost by chance right
    /// before or after those: nobody can tell it from them.
    pub touched: Option<(Monotonic, Monotonic)>,
}

impl Told {
    /// How far begin and end are from the first and the last answer that the service made bad, ns; `None` where it made
    /// none bad, or it is not told as over.
    #[must_use]
    pub fn edges_off_ns(&self) -> Option<(u64, u64)> {
        let (first, last) = self.touched?;
        let off_ns = |a: Monotonic, b: Monotonic| a.as_nanos().abs_diff(b.as_nanos());
        Some((off_ns(self.news.since, first), off_ns(self.news.end?, last)))
    }
}

fn now(spells: &[Spell], s: u64) -> Option<Does> {
    let at = spells.iter().find(|p| (p.from_s..p.to_s).contains(&s));
    at.map(|p| p.does)
}

struct Random(ChaCha8Rng);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0.next_u64() % n.max(1)
    }

    fn one_of(&mut self, of_1000: u64) -> bool {
        self.below(1000) < of_1000
    }
}

/// What becomes of a question, and whether the service itself makes that bad.
fn answer(random: &mut Random, service: &Service, line: Option<Does>, s: u64) -> (End, bool) {
    let mut took_ns = 15 * MS + random.below(8 * MS);
    match line {
        Some(Does::Silent(share)) if random.one_of(share) => return (End::Silent, false),
        Some(Does::Slow(ns)) => took_ns += ns,
        _ => {}
    }
    match service.asks {
        Asks::Dns if random.one_of(LOSSES) => return (End::Silent, false),
        // The kernel asks again.
        Asks::Tcp if random.one_of(LOSSES) => took_ns += S,
        Asks::Dns | Asks::Tcp => {}
    }
    if service.asks == Asks::Dns && random.one_of(MISSES) {
        took_ns += 60 * MS + random.below(400 * MS);
    }
    match now(&service.spells, s) {
        Some(Does::Slow(ns)) => (End::Answered(took_ns + ns), true),
        Some(Does::Fails(share, why)) if random.one_of(share) => (End::Failed(why), true),
        Some(Does::Silent(share)) if random.one_of(share) => (End::Silent, true),
        _ => (End::Answered(took_ns), false),
    }
}

/// What a ping meets.
fn ping(random: &mut Random, line: Option<Does>, sent: Monotonic, seq: u64) -> Probe {
    let mut sample = Sample::lost(SeriesIndex(0), seq, sent, 64);
    let is_lost = matches!(line, Some(Does::Silent(share)) if random.one_of(share));
    if !is_lost {
        let more_ns = match line {
            Some(Does::Slow(ns)) => ns,
            _ => 0,
        };
        sample.status = Status::Ok;
        sample.rtt_ns = Some(12 * MS + more_ns + random.below(2 * MS));
    }
    Probe::of(&sample)
}

/// Lets a plan run: what was told, in the order of its being told for the first time.
#[must_use]
pub fn run(plan: &Plan, seed: u64) -> Vec<Told> {
    run_and_hear(plan, seed).0
}

/// The same, and what people would be told first to be at fault.
#[must_use]
pub fn judge(plan: &Plan, seed: u64) -> (Vec<Told>, Cause) {
    let (told, line) = run_and_hear(plan, seed);
    let (begin_ns, end_ns) = (1000 * S, (1000 + plan.seconds) * S);
    let end = |end: Option<Monotonic>| end.map_or(end_ns, Monotonic::as_nanos);
    let mut facts: Vec<Fact> = line
        .iter()
        .map(|e| Fact {
            sign: Sign::Found(e.kind),
            severity: e.severity,
            direction: e.direction,
            line: e.line,
            start_ns: e.start.as_nanos(),
            end_ns: end(e.end),
            series: e.series,
            targets: e.series.len() as u8,
            near: None,
            others: Others::Untold,
            unsure: false,
            blame: None,
        })
        .collect();
    // What the line explains is told as information only.
    for t in told.iter().filter(|t| !t.news.explained) {
        // None of the line's.
        let mut series = SeriesSet::default();
        series.insert(32 + t.news.place);
        facts.push(Fact {
            sign: Sign::Found(t.news.trouble.kind()),
            severity: t.news.severity,
            direction: None,
            line: 0,
            start_ns: t.news.since.as_nanos(),
            end_ns: end(t.news.end),
            series,
            targets: 1,
            near: None,
            others: Others::Untold,
            unsure: false,
            blame: None,
        });
    }
    let first = verdict::judge(&facts, begin_ns, end_ns).into_iter().next();
    (told, first.map_or(Cause::Nothing, |j| j.cause))
}

/// What was told of services, and of the line.
fn run_and_hear(plan: &Plan, seed: u64) -> (Vec<Told>, Vec<Event>) {
    let mut random = Random(ChaCha8Rng::seed_from_u64(seed));
    let begin = Monotonic::from_nanos(1000 * S);
    let room = |n| (0..n).map(|_| SeriesState::default()).collect::<Vec<_>>();
    let mut watch = Watch::new(
        begin,
        Thresholds::default(),
        room(2),
        vec![LineState::default()],
    );
    for target in [100, 101] {
        let facts = SeriesFacts {
            line: 0,
            target,
            role: Role::Far,
            family: 4,
            size: 64,
            interval_ns: PING_NS,
            timeout_ns: 2 * S,
        };
        watch.add_series(begin, facts);
    }
    let states: Vec<ServiceState> = plan
        .services
        .iter()
        .map(|_| ServiceState::default())
        .collect();
    let mut services = Services::new(begin, Limits::default(), states);
    for (n, service) in plan.services.iter().enumerate() {
        services.add(ServiceFacts {
            line: 0,
            target: n as u16,
            host: n as u16,
            asks: service.asks,
            over_tcp: false,
            interval_ns: service.interval_s * S,
            timeout_ns: 6 * S,
        });
    }
    let mut told: Vec<Told> = Vec::new();
    // When each was asked, and whether the answer was bad by its doing, or at all.
    let mut asked: Vec<Vec<(Monotonic, bool, bool)>> = vec![Vec::new(); plan.services.len()];
    let mut of_line: BTreeMap<u32, Event> = BTreeMap::new();
    for s in 0..plan.seconds {
        let line = now(&plan.line, s);
        let second = begin.saturating_add(s * S);
        for n in 0..S / PING_NS {
            let sent = second.saturating_add(n * PING_NS + random.below(20 * MS));
            for place in 0..2 {
                watch.handle_probe(place, ping(&mut random, line, sent, s));
            }
        }
        for (n, service) in plan.services.iter().enumerate() {
            // Not all at once.
            if s % service.interval_s == n as u64 % service.interval_s {
                let sent = second.saturating_add(random.below(S / 2));
                let (end, is_its) = answer(&mut random, service, line, s);
                asked[n].push((sent, is_its, is_its || matches!(end, End::Silent)));
                services.handle_answer(n as u8, Answer { sent, end });
            }
        }
        let at = second.saturating_add(S);
        loop {
            let more = watch.handle_timeout(at);
            while let Some(notice) = watch.poll_notice() {
                if let Some(explains) = Explains::of(notice.event.kind) {
                    let trouble = LineTrouble {
                        line: 0,
                        why: Why::Event(notice.id),
                        from: notice.event.start,
                        to: notice.event.end,
                        explains,
                    };
                    services.handle_line(at, trouble);
                }
                of_line.insert(notice.id, notice.event);
            }
            if !more {
                break;
            }
        }
        while services.handle_timeout(at) {}
        while let Some(news) = services.poll_news() {
            let same = |t: &&mut Told| (t.news.place, t.news.trouble) == (news.place, news.trouble);
            let before = told.iter_mut().rfind(same);
            match before.filter(|_| news.phase != Phase::Begin) {
                Some(t) => t.news = news,
                None => told.push(Told {
                    news,
                    first_told_s: s,
                    touched: None,
                }),
            }
        }
    }
    for t in &mut told {
        t.touched = touched(&asked[usize::from(t.news.place)]);
    }
    (told, of_line.into_values().collect())
}

/// See [`Told::touched`].
fn touched(asked: &[(Monotonic, bool, bool)]) -> Option<(Monotonic, Monotonic)> {
    let first = asked.iter().position(|a| a.1)?;
    let last = asked.iter().rposition(|a| a.1)?;
    let before = asked[..first].iter().rev().take_while(|a| a.2).last();
    let after = asked[last + 1..].iter().take_while(|a| a.2).last();
    Some((
        before.unwrap_or(&asked[first]).0,
        after.unwrap_or(&asked[last]).0,
    ))
}

/// When a trouble began and ended, seconds since the plan's begin.
#[must_use]
pub fn edges_s(news: &News) -> (u64, Option<u64>) {
    let seconds = |at: Monotonic| (at.as_nanos() / S).saturating_sub(1000);
    (seconds(news.since), news.end.map(seconds))
}

/// Whether a trouble is told, with edges that are right to so many seconds.
#[must_use]
pub fn is(told: &Told, trouble: Trouble, within_s: u64) -> bool {
    let near = |off_ns: u64| off_ns <= within_s * S;
    let edges = told.edges_off_ns();
    told.news.trouble == trouble
        && edges.is_some_and(|(begin, end)| near(begin) && near(end))
        && !told.news.explained
}
