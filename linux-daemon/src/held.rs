//! Connections that are held open: which there are now, what became of those before, and when that is trouble.
//! `ask::hold` holds them; `bufferbane_core::held` says what is trouble.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bufferbane_core::failure::Failure;
use bufferbane_core::held::{Drop, Held, Limit, Unstable};
use bufferbane_core::time::Monotonic;

use crate::status::HeldStatus;

/// Interface, target's name and address.
pub(crate) type Key = (String, String, SocketAddr);

/// Losses that are no trouble are told this seldom, ns: a NAT that forgets every ten minutes fills no list.
const SELDOM_NS: u64 = 3_600_000_000_000;

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The far end closed it in order: its right, and no fault of the line.
    Closed,
    /// It was lost, for this errno.
    Lost(i32),
    /// It was let go on this side for good, because the far end sent too much.
    TooMuch,
}

/// What became of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// It is open since then.
    Open(Monotonic),
    /// It has ended.
    End {
        at: Monotonic,
        /// How long it was open, ns.
        age_ns: u64,
        end: End,
    },
    /// It was let go on this side.
    LetGo,
}

/// The same, and whose it is.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) key: Key,
    pub(crate) what: What,
}

/// What is to be told of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// It was lost, and there is no trouble with it so far.
    Lost(Loss),
    /// It was lost once more.
    Unstable(Loss, Unstable),
    /// The trouble is over, since the last loss.
    Over(Monotonic),
}

/// A connection that was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    pub(crate) at: Monotonic,
    /// How long it was open, ns.
    pub(crate) age_ns: u64,
    pub(crate) errno: i32,
}

impl Loss {
    /// Why, for people.
    pub(crate) fn why(&self) -> String {
        match self.errno {
            // Of keep-alives that nobody acknowledged.
            nix::libc::ETIMEDOUT => "no answer to keep-alives".to_owned(),
            errno => Failure::errno(errno).to_string(),
        }
    }
}

#[derive(Debug)]
struct Connection {
    held: Held,
    open: Option<Monotonic>,
    lost: BTreeMap<String, u64>,
    closed: u64,
    last: Option<(u64, String)>,
    /// When a loss that was no trouble was told last.
    noted: Option<Monotonic>,
}

impl Connection {
    const fn new(limit: Limit) -> Self {
        Self {
            held: Held::new(limit),
            open: None,
            lost: BTreeMap::new(),
            closed: 0,
            last: None,
            noted: None,
        }
    }
}

/// All connections that are held.
#[derive(Debug)]
pub(crate) struct Connections {
    limit: Limit,
    all: BTreeMap<Key, Connection>,
}

impl Connections {
    /// Without any; more drops than `limit` are trouble.
    pub(crate) const fn new(limit: Limit) -> Self {
        Self {
            limit,
            all: BTreeMap::new(),
        }
    }

    /// Another limit from now on.
    pub(crate) fn set_limit(&mut self, limit: Limit) {
        self.limit = limit;
        for c in self.all.values_mut() {
            c.held.set_limit(limit);
        }
    }

    /// Takes in what became of one. `is_asked`: its target is probed; one that is no longer may have a last word to
    /// say, but is shown no more.
    pub(crate) fn hear(&mut self, told: Told, is_asked: bool) -> Option<News> {
        if is_asked && matches!(told.what, What::Open(_)) && !self.all.contains_key(&told.key) {
            let new = Connection::new(self.limit);
            self.all.insert(told.key.clone(), new);
        }
        let c = self.all.get_mut(&told.key)?;
        match told.what {
            What::Open(at) => c.open = Some(at),
            What::LetGo => c.open = None,
            What::End {
                age_ns,
                end: End::Closed,
                ..
            } => {
                c.open = None;
                c.closed += 1;
                c.last = Some((age_ns, "closed by the far end".into()));
            }
            What::End {
                age_ns,
                end: End::TooMuch,
                ..
            } => {
                c.open = None;
                c.last = Some((age_ns, "let go, because the far end sends too much".into()));
            }
            What::End {
                at,
                age_ns,
                end: End::Lost(errno),
            } => {
                c.open = None;
                let loss = Loss { at, age_ns, errno };
                *c.lost.entry(loss.why()).or_default() += 1;
                c.last = Some((age_ns, loss.why()));
                if let Some(news) = c.held.handle_drop(Drop { at, age_ns }) {
                    return Some(News::Unstable(loss, news));
                }
                if c.noted
                    .is_none_or(|before| at.saturating_since(before) >= SELDOM_NS)
                {
                    c.noted = Some(at);
                    return Some(News::Lost(loss));
                }
            }
        }
        None
    }

    /// What has come to its end by `now`.
    pub(crate) fn tick(&mut self, now: Monotonic) -> Vec<(Key, News)> {
        let all = self.all.iter_mut();
        let over = all.filter_map(|(key, c)| {
            let last = c.held.handle_timeout(now)?;
            Some((key.clone(), News::Over(last)))
        });
        over.collect()
    }

    /// Those of this target through this interface are held no more; `address` as series have it.
    pub(crate) fn remove(&mut self, interface: &str, target: &str, address: &str) -> Option<Key> {
        let is = |key: &&Key| is_of(key, (interface, target, address));
        let key = self.all.keys().find(is)?.clone();
        self.all.remove(&key);
        Some(key)
    }

    /// What is shown of them at `now`.
    pub(crate) fn status(&self, now: Monotonic) -> Vec<HeldStatus> {
        let all = self.all.iter();
        all.map(|((interface, target, address), c)| HeldStatus {
            interface: interface.clone(),
            target: target.clone(),
            address: address.to_string(),
            open_ns: c.open.map(|since| now.saturating_since(since)),
            lost: c.lost.clone(),
            closed: c.closed,
            last_open_ns: c.last.as_ref().map(|l| l.0),
            last_end: c.last.as_ref().map(|l| l.1.clone()),
        })
        .collect()
    }
}

/// Whether it is that of a target through an interface; `address` as series have it.
pub(crate) fn is_of(key: &Key, (interface, target, address): (&str, &str, &str)) -> bool {
    key.0 == interface
        && key.1 == target
        && address.strip_suffix("/tcp") == Some(key.2.to_string().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn told(what: What) -> Told {
        Told {
            key: ("wan".into(), "web".into(), ([192, 0, 2, 1], 443).into()),
            what,
        }
    }

    fn at(s: u64) -> Monotonic {
        Monotonic::from_nanos(s * S)
    }

    fn end(s: u64, age_s: u64, end: End) -> Told {
        told(What::End {
            at: at(s),
            age_ns: age_s * S,
            end,
        })
    }

    #[test]
    fn what_the_far_end_closes_is_no_loss_and_two_losses_are_trouble() {
        let mut all = Connections::new(Limit::default());
        for n in 1..50 {
            assert_eq!(all.hear(told(What::Open(at(n * 61))), true), None);
            assert_eq!(all.hear(end(n * 61 + 60, 60, End::Closed), true), None);
        }
        let reset = End::Lost(104);
        let first = all.hear(end(4000, 60, reset), true).unwrap();
        assert!(matches!(first, News::Lost(_)), "{first:?}");
        let second = all
            .hear(end(4100, 7, End::Lost(nix::libc::ETIMEDOUT)), true)
            .unwrap();
        let News::Unstable(loss, Unstable { since, drops, .. }) = second else {
            panic!("{second:?}");
        };
        assert_eq!((since, drops), (at(4000), 2));
        assert_eq!(loss.why(), "no answer to keep-alives");
        all.hear(told(What::Open(at(4110))), true);
        let status = all.status(at(4130));
        assert_eq!((status[0].open_ns, status[0].closed), (Some(20 * S), 49));
        assert_eq!(status[0].lost["connection reset"], 1);
        assert_eq!(status[0].last_open_ns, Some(7 * S));
        assert_eq!(all.tick(at(4399)), []);
        let over = all.tick(at(4400));
        assert!(matches!(over[..], [(_, News::Over(last))] if last == at(4100)));
        // Seldom ones are told seldom, and counted.
        assert_eq!(all.hear(end(5000, 600, reset), true), None);
        assert!(all.hear(end(7600, 600, reset), true).is_some());
        assert_eq!(all.status(at(7600))[0].lost["connection reset"], 3);
        assert_eq!(all.hear(end(7700, 9, End::TooMuch), true), None);
        let last = all.status(at(7700))[0].last_end.clone().unwrap();
        assert!(last.contains("too much"), "{last}");
        // Let go on this side, it is no loss; and what is asked no more is shown no more.
        assert_eq!(all.hear(told(What::LetGo), true), None);
        assert_eq!(all.status(at(5000))[0].open_ns, None);
        assert_eq!(all.remove("wan", "web", "192.0.2.1:443/udp"), None);
        assert!(all.remove("wan", "web", "192.0.2.1:443/tcp").is_some());
        assert!(all.status(at(5000)).is_empty());
    }

    /// What is under way when the target goes, or comes before a connection does.
    #[test]
    fn a_last_word_of_a_target_that_is_gone_shows_no_connection() {
        let mut all = Connections::new(Limit::default());
        for last in [
            told(What::Open(at(1))),
            told(What::LetGo),
            end(9, 8, End::Lost(104)),
        ] {
            assert_eq!(all.hear(last, false), None);
        }
        assert_eq!(all.hear(told(What::LetGo), true), None);
        assert!(all.status(at(10)).is_empty());
        all.hear(told(What::Open(at(11))), true);
        assert_eq!(all.status(at(12)).len(), 1);
    }
}
