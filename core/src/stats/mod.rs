//! Statistics of samples, in bounded memory and mergeable, so that a minute, an hour and a month are
//! the same thing.

pub mod failures;
pub mod histogram;
pub mod jitter;
pub mod loss_runs;
pub mod moments;
pub mod summary;
