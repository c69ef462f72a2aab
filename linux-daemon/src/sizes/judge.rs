//! Where large packets vanish, by what is known of all ways at a place.
//!
//! A host that does not answer large echoes, or cuts its replies, looks like a way that does not carry them. So a size
//! that vanishes is believed where the way there was found to be it; else only where it does to two hosts at least, and
//! nothing larger passes to any other. What passed to others before it first vanished says nothing of that: they
//! are searched again first.

use std::collections::{BTreeMap, BTreeSet};

use bufferbane_core::time::Monotonic;
use bufferbane_store::{Direction, Larger};

use super::{Hole, Known, News, Place, SOON_NS, Sizes, Target, place};
use crate::errands::Key;

/// What is told of places, and what is in doubt.
#[derive(Debug, Default)]
pub(super) struct Holes {
    told: BTreeMap<Place, Told>,
    /// What was found before no longer makes a hole of a place.
    doubted: BTreeMap<Place, Monotonic>,
}

#[derive(Debug)]
struct Told {
    hole: Hole,
    /// Since when none of its targets is probed.
    gone: Option<Monotonic>,
}

/// What is to be believed of a place.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Hole(Hole),
    /// Somewhere they vanish, but what that is remains to be found out.
    Open,
    Clear,
}

impl Sizes {
    /// One way was searched; `is_news`: something was found of it.
    pub(super) fn judge(&mut self, now: Monotonic, key: &Key, is_news: bool, news: &mut Vec<News>) {
        let of = place(key);
        let ways = self.targets.iter().filter(|(k, _)| place(k) == of);
        let ways: Vec<(&Key, &Target)> = ways.collect();
        let since = self.holes.doubted.get(&of).copied();
        let told = &mut self.holes.told;
        match verdict(&ways, since.unwrap_or(Monotonic::ZERO)) {
            Verdict::Hole(hole) => {
                if told.get(&of).is_none_or(|t| t.hole != hole) {
                    news.push(News::Hole(of.clone(), now, hole.clone()));
                }
                told.insert(of, Told { hole, gone: None });
            }
            Verdict::Open => {}
            Verdict::Clear => {
                let is_own = |t: &Told| t.hole.targets.contains(&key.1);
                if is_news && told.get(&of).is_some_and(is_own) {
                    told.remove(&of);
                    news.push(News::Mended(of, now));
                }
            }
        }
    }

    /// Holes of which nobody can find out any more whether they are still there.
    pub(super) fn unwatched(&mut self, now: Monotonic, news: &mut Vec<News>) {
        let targets = &self.targets;
        self.holes.told.retain(|of, told| {
            let is_probed = |key: &Key| place(key) == *of && told.hole.targets.contains(&key.1);
            if targets.keys().any(is_probed) {
                told.gone = None;
                return true;
            }
            // Interfaces go and come back.
            let since = *told.gone.get_or_insert(now);
            let stays = now.saturating_since(since) < SOON_NS;
            if !stays {
                news.push(News::Unwatched(of.clone(), since));
            }
            stays
        });
    }

    /// What vanishes at a place, if anything does.
    pub(super) fn hole_at(&self, of: &Place) -> Option<&Hole> {
        self.holes.told.get(of).map(|t| &t.hole)
    }

    /// An event that spoke for a hole at a place, too, is over: a hole is told anew if it is found once more.
    pub(crate) fn doubt(&mut self, now: Monotonic, of: &Place) {
        if self.holes.told.remove(of).is_some() {
            self.holes.doubted.insert(of.clone(), now);
            self.hurry(now, 0, |key| place(key) == *of);
        }
    }
}

/// What is to be believed of the ways of one place; what was found before `since` makes no hole.
fn verdict(ways: &[(&Key, &Target)], since: Monotonic) -> Verdict {
    let (mut believed, mut is_open) = (Vec::<&Known>::new(), false);
    let silent = ways.iter().filter_map(|(key, target)| {
        let known = target.known.as_ref()?;
        (known.size.larger == Larger::Silent).then_some((*key, known))
    });
    for (key, known) in silent.clone() {
        let size = &known.size;
        if known.last < since {
            is_open = true;
            continue;
        }
        if size.direction == Some(Direction::Up) {
            believed.push(known);
            continue;
        }
        let (mut others_pass, mut is_asked) = (false, false);
        for (_, other) in ways.iter().filter(|(k, _)| *k != key) {
            let larger = other.known.as_ref().filter(|o| {
                let both_ways =
                    o.size.larger == Larger::Silent || o.size.direction != Some(Direction::Up);
                o.size.passes_bytes > size.passes_bytes && both_ways
            });
            others_pass |= larger.is_some_and(|o| o.last >= known.first);
            is_asked |= match other.searched {
                None => true,
                Some(at) => larger.is_some() && at < known.first,
            };
        }
        let alike = silent
            .clone()
            .filter(|(_, k)| k.size.passes_bytes == size.passes_bytes);
        let names: BTreeSet<_> = alike.clone().map(|(k, _)| &k.1).collect();
        let addresses: BTreeSet<_> = alike.map(|(k, _)| k.2).collect();
        if others_pass {
            continue;
        }
        if is_asked || names.len() < 2 || addresses.len() < 2 {
            is_open = true;
        } else {
            believed.push(known);
        }
    }
    let Some((first, more)) = believed.split_first() else {
        return if is_open {
            Verdict::Open
        } else {
            Verdict::Clear
        };
    };
    let mut hole = Hole {
        passes_bytes: first.size.passes_bytes,
        interface_bytes: first.size.interface_bytes,
        direction: first.size.direction,
        targets: vec![first.size.target.clone()],
    };
    for Known { size, .. } in more {
        hole.passes_bytes = hole.passes_bytes.min(size.passes_bytes);
        hole.direction = hole.direction.filter(|d| Some(*d) == size.direction);
        if !hole.targets.contains(&size.target) {
            hole.targets.push(size.target.clone());
        }
    }
    Verdict::Hole(hole)
}
