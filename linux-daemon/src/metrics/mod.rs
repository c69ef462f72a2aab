//! `/metrics`: what the daemon counts, for Prometheus and whatever else reads its formats.
//!
//! The recorder counts as it records, and the control thread renders when somebody asks; the probe
//! thread knows nothing of it. Counters begin with the daemon and never go back while it runs: a
//! series that is taken out of the configuration and put back goes on where it was, and what becomes
//! known later, such as the direction of a loss, is a counter of its own.

mod buckets;
mod fine;
mod meters;
mod page;
mod sink;
mod source;
#[cfg(test)]
mod tests;
mod text;

pub(crate) use buckets::Buckets;
pub(crate) use fine::SCHEMA;
pub(crate) use meters::{Meters, Reading};
pub(crate) use page::{page, tell};
pub(crate) use sink::{Kind, Label, Number, Sink, unit_of};
pub(crate) use source::Source;
pub(crate) use text::Format;
