//! A connection that is held open through a line, with what ended it known: a far end that closes it, somebody who
//! resets it, a timer that forgets it, and a line on which nothing passes.
//!
//! Keep-alives and the waits before it is made again are those of the daemon (docs/services.md).

use bufferbane_core::held::{Drop, Held, Limit, Patience, Unstable};
use bufferbane_core::time::Monotonic;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use crate::{MS, S};

/// Silence after which a keep-alive is sent, and after that the next, ns; so many without an answer end the connection.
const IDLE_NS: u64 = 30 * S;
const EVERY_NS: u64 = 10 * S;
const UNANSWERED: u64 = 4;
/// How long it takes to be made, and after which that is given up, ns.
const MAKING_NS: u64 = 20 * MS;
const GIVEN_UP_NS: u64 = 10 * S;
/// Between two looks at the clock, ns.
const TICK_NS: u64 = 100 * MS;

/// What ends connections for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// Each is reset at such an age, ns: at random between these.
    Reset(u64, u64),
    /// The far end closes each in order at such an age, ns.
    Closed(u64),
    /// Nothing passes.
    Dead,
}

/// The same, with begin and end, seconds.
#[derive(Clone, Copy, Debug)]
pub struct Spell {
    /// Since then.
    pub from_s: u64,
    /// Until then.
    pub to_s: u64,
    /// What.
    pub ends: Ends,
}

/// A trouble that was told.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// What was told last.
    pub unstable: Unstable,
    /// Its last loss, where it is over.
    pub end: Option<Monotonic>,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// When it was lost.
    pub lost: Vec<Monotonic>,
    /// How often the far end closed it.
    pub closed: u64,
    /// What was told.
    pub told: Vec<Told>,
}

enum State {
    Open {
        since: Monotonic,
        /// When the far end was last heard.
        heard: Monotonic,
        /// When it ends if nothing passes for long before, and whether the far end closes it then.
        fate: Option<(Monotonic, bool)>,
    },
    /// The next is made then.
    Until(Monotonic),
}

/// Holds a connection for so many seconds.
#[must_use]
pub fn run(spells: &[Spell], seconds: u64, seed: u64) -> Outcome {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut held = Held::new(Limit::default());
    let mut patience = Patience::default();
    let mut outcome = Outcome::default();
    let begin = Monotonic::from_nanos(1000 * S);
    let mut state = State::Until(begin);
    for tick in 0..seconds * (S / TICK_NS) {
        let at = begin.saturating_add(tick * TICK_NS + random.next_u64() % TICK_NS);
        let second = tick * TICK_NS / S;
        let spell = spells.iter().find(|p| (p.from_s..p.to_s).contains(&second));
        let ends = spell.map(|p| p.ends);
        if let Some(end) = held.handle_timeout(at)
            && let Some(told) = outcome.told.last_mut()
        {
            told.end = Some(end);
        }
        match &mut state {
            State::Until(then) if at < *then => {}
            State::Until(_) if ends == Some(Ends::Dead) => {
                let wait_ns = GIVEN_UP_NS + patience.wait_ns(0);
                state = State::Until(at.saturating_add(wait_ns));
            }
            State::Until(_) => {
                let since = at.saturating_add(MAKING_NS);
                state = State::Open {
                    since,
                    heard: since,
                    fate: None,
                };
            }
            State::Open { since, heard, fate } => {
                let silent_ns = at.saturating_since(*heard);
                let is_over = match ends {
                    Some(Ends::Dead) => silent_ns >= IDLE_NS + UNANSWERED * EVERY_NS,
                    _ => {
                        if silent_ns >= IDLE_NS {
                            *heard = at;
                        }
                        false
                    }
                };
                let of_spell = match ends {
                    Some(Ends::Reset(least_ns, most_ns)) => {
                        let more_ns = random.next_u64() % (most_ns - least_ns + 1);
                        Some((at.saturating_add(least_ns + more_ns), false))
                    }
                    Some(Ends::Closed(age_ns)) => Some((at.saturating_add(age_ns), true)),
                    Some(Ends::Dead) | None => None,
                };
                *fate = fate.or(of_spell);
                let due = fate.filter(|(then, _)| *then <= at && ends != Some(Ends::Dead));
                if !is_over && due.is_none() {
                    continue;
                }
                let age_ns = at.saturating_since(*since);
                state = State::Until(at.saturating_add(patience.wait_ns(age_ns)));
                if due.is_some_and(|(_, is_closed)| is_closed) {
                    outcome.closed += 1;
                    continue;
                }
                outcome.lost.push(at);
                let Some(unstable) = held.handle_drop(Drop { at, age_ns }) else {
                    continue;
                };
                match outcome.told.last_mut().filter(|t| t.end.is_none()) {
                    Some(told) => told.unstable = unstable,
                    None => outcome.told.push(Told {
                        unstable,
                        end: None,
                    }),
                }
            }
        }
    }
    outcome
}
