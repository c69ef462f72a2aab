//! Where families of metrics go: into a text, or into a message that is pushed.

use std::fmt::{self, Display};

use super::buckets::Buckets;

/// What kind of metric a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// The value of a sample. Whole ones are written without losing a digit where that is possible.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Number {
    Whole(u64),
    Real(f64),
}

impl Number {
    /// As a double, which is exact below 2^53.
    pub(crate) const fn as_f64(self) -> f64 {
        match self {
            Self::Whole(n) => n as f64,
            Self::Real(x) => x,
        }
    }
}

impl Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(n) => n.fmt(f),
            Self::Real(x) => x.fmt(f),
        }
    }
}

impl From<u64> for Number {
    fn from(n: u64) -> Self {
        Self::Whole(n)
    }
}

impl From<f64> for Number {
    fn from(x: f64) -> Self {
        Self::Real(x)
    }
}

/// A label and its value.
pub(crate) type Label<'a> = (&'a str, &'a dyn Display);

/// See the module.
pub(crate) trait Sink {
    /// Begins a family; `name` is without `_total`. One that ends in seconds or bytes is in these units.
    fn family(&mut self, name: &'static str, kind: Kind, help: &'static str);

    /// The value that the present family, a counter or a gauge, has for these labels.
    fn value(&mut self, labels: &[Label<'_>], value: impl Into<Number>);

    /// What the present family, one of histograms, has for these labels.
    fn histogram(&mut self, labels: &[Label<'_>], buckets: &Buckets);
}

/// The unit that a family's name says.
pub(crate) fn unit_of(name: &str) -> Option<&'static str> {
    let is_in = |unit: &&str| name.strip_suffix(*unit).is_some_and(|n| n.ends_with('_'));
    ["seconds", "bytes"].into_iter().find(is_in)
}
