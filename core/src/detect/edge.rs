//! Begin and end of trouble, and how well they are known.

use crate::time::Monotonic;

/// An edge that a series tells must be this many times as far from that of a series that knows it
/// better as it is uncertain, to be another one: a usual loss near the trouble looks like a part of it
/// to a series that has few.
const APART: u64 = 15;
/// So many times as uncertain is worse.
const WORSE: u64 = 2;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Edge {
    pub(crate) at: Monotonic,
    /// Known to about this, ns: how far apart the hits of the trouble are.
    pub(crate) grain_ns: u64,
}

/// What a line knows of trouble by its other series.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Beside {
    pub(crate) begin: Option<Edge>,
    /// Where some no longer show it.
    pub(crate) end: Option<Edge>,
}

impl From<Monotonic> for Edge {
    fn from(at: Monotonic) -> Self {
        Self { at, grain_ns: 0 }
    }
}

impl Edge {
    /// The begin of trouble that two series show.
    pub(crate) fn earlier(self, other: Self) -> Self {
        self.better_or(other, |fine, coarse| coarse < fine)
    }

    /// Its end.
    pub(crate) fn later(self, other: Self) -> Self {
        self.better_or(other, |fine, coarse| coarse > fine)
    }

    /// Whether `other` is the same edge and knows better where it is.
    pub(crate) fn is_vague_beside(self, other: Self) -> bool {
        let apart_ns = self.at.saturating_since(other.at) + other.at.saturating_since(self.at);
        self.grain_ns > WORSE * other.grain_ns && apart_ns < APART * self.grain_ns
    }

    fn better_or(self, other: Self, outside: impl Fn(Monotonic, Monotonic) -> bool) -> Self {
        let (fine, coarse) = if self.grain_ns <= other.grain_ns {
            (self, other)
        } else {
            (other, self)
        };
        if !outside(fine.at, coarse.at) || coarse.is_vague_beside(fine) {
            fine
        } else {
            coarse
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn edge(at_s: u64, grain_s: u64) -> Edge {
        Edge {
            at: Monotonic::from_nanos(at_s * 1_000_000_000),
            grain_ns: grain_s * 1_000_000_000,
        }
    }

    #[test]
    fn who_knows_better_tells_the_edge() {
        let stream = edge(1000, 1);
        // A ping's next loss by chance is not the end, nor the one before the begin.
        assert_eq!(stream.later(edge(1060, 25)), stream);
        assert_eq!(edge(940, 25).earlier(stream), stream);
        // But what is much further is another edge, and so is what is known as well.
        assert_eq!(stream.later(edge(1400, 25)), edge(1400, 25));
        assert_eq!(edge(600, 25).earlier(stream), edge(600, 25));
        assert_eq!(stream.later(edge(1001, 25)), stream);
        assert_eq!(stream.later(edge(1060, 2)), edge(1060, 2));
        assert_eq!(stream.earlier(edge(1060, 2)), stream);
        assert_eq!(edge(5, 0).later(edge(3, 0)), edge(5, 0));
        assert_eq!(edge(5, 0).earlier(edge(3, 0)), edge(3, 0));
    }
}
