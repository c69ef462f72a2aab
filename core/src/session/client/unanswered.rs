//! Which probes have gone unanswered in a row, and when that is reason enough to knock.
//!
//! A reflector that was restarted knows no session any more, and only a knock finds that out. Fast
//! streams notice its silence within a second. Of slow ones the next probe may be an hour away, but one
//! missing echo is no reason: each knock that succeeds costs the reflector another session, and lines
//! lose packets. So it takes two, and where no second probe is due, a check is sent: a probe of no stream.

use super::SILENCE_NS;
use super::knock::FIRST_RETRY_NS;
use crate::time::Monotonic;

/// The second of two counts if it left this long after the first, ns: what loses one probe loses those
/// next to it as well.
const APART_NS: u64 = SILENCE_NS / 2;

/// When the probes left that nothing was heard since.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Unanswered {
    first: Option<Monotonic>,
    second: Option<Monotonic>,
}

impl Unanswered {
    /// A probe leaves, or a check.
    pub(super) fn probed(&mut self, now: Monotonic) {
        let Some(first) = self.first else {
            self.first = Some(now);
            return;
        };
        if self.second.is_none() && now.saturating_since(first) >= APART_NS {
            self.second = Some(now);
        }
    }

    /// From when on to check whether the session is there, should nothing be heard and no other probe leave until
    /// then.
    pub(super) fn check_from(&self) -> Option<Monotonic> {
        let first = self.first.filter(|_| self.second.is_none())?;
        Some(first.saturating_add(SILENCE_NS))
    }

    /// When there is something to do, a check or a knock.
    pub(super) fn poll_timeout(&self) -> Option<Monotonic> {
        self.check_from().or(self.knock_from())
    }

    /// From when on to knock, should nothing be heard until then: when the first has waited for as long
    /// as makes silence, and the second for as long as a knock would before it is repeated.
    pub(super) fn knock_from(&self) -> Option<Monotonic> {
        let (first, second) = (self.first?, self.second?);
        let silence = first.saturating_add(SILENCE_NS);
        Some(silence.max(second.saturating_add(FIRST_RETRY_NS)))
    }
}
