//! The troubles of services, and by which answers each is to be seen.

use super::super::event::Kind;
use super::asked::Past;
use super::{Asks, Limits};

/// Failures that are nothing unusual, whatever is configured as too many.
const USUAL: f64 = 0.1;
/// Answers are slow where so many of them are.
const HALF: f64 = 0.5;

/// What is wrong with a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trouble {
    /// A resolver that fails.
    DnsFailing,
    /// A resolver that takes long.
    DnsSlow,
    /// Connections that do not come about.
    TcpFailing,
    /// Connections that take long to open.
    TcpSlow,
}

/// How a trouble is found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Rule {
    /// A share above `usual` that is no chance, and is `least` at least.
    Share { usual: f64, least: f64 },
    /// So many within a time.
    Drops,
}

impl Trouble {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::DnsFailing,
        Self::DnsSlow,
        Self::TcpFailing,
        Self::TcpSlow,
    ];
    /// How many each service may have at once.
    pub(super) const OF_EACH: usize = 2;
    /// The place of those of failure.
    pub(super) const FAILING: usize = 0;

    /// Those of a service.
    pub(super) const fn of(asks: Asks) -> [Self; Self::OF_EACH] {
        match asks {
            Asks::Dns => [Self::DnsFailing, Self::DnsSlow],
            Asks::Tcp => [Self::TcpFailing, Self::TcpSlow],
        }
    }

    /// The kind of its events.
    #[must_use]
    pub const fn kind(self) -> Kind {
        match self {
            Self::DnsFailing => Kind::DnsFailing,
            Self::DnsSlow => Kind::DnsSlow,
            Self::TcpFailing | Self::TcpSlow => Kind::TcpUnstable,
        }
    }

    /// Whether it is one of slowness, and not of failure.
    #[must_use]
    pub const fn is_slow(self) -> bool {
        matches!(self, Self::DnsSlow | Self::TcpSlow)
    }

    /// Its place among those of its service.
    pub(super) const fn slot(self) -> usize {
        self.is_slow() as usize
    }

    pub(super) const fn rule(self, limits: &Limits) -> Rule {
        match self {
            Self::DnsFailing => Rule::Share {
                usual: limits.dns_failing,
                least: limits.dns_failing,
            },
            Self::DnsSlow | Self::TcpSlow => Rule::Share {
                usual: USUAL,
                least: HALF,
            },
            Self::TcpFailing => Rule::Drops,
        }
    }

    /// Whether an answer is a bad one; `None` where it says nothing of this trouble.
    pub(super) fn is_hit(self, past: &Past, limits: &Limits) -> Option<bool> {
        let slow_ns = match self {
            Self::DnsFailing | Self::TcpFailing => {
                return (!past.excuses_failure()).then(|| past.has_failed());
            }
            Self::DnsSlow => limits.dns_slow_ns,
            Self::TcpSlow => limits.tcp_slow_ns,
        };
        let took_ns = past.took_ns().filter(|_| !past.excuses_delay())?;
        Some(u64::from(took_ns) > slow_ns)
    }
}
