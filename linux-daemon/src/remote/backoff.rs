//! When a receiver that takes no batch is tried again.

use std::time::{Duration, Instant};

/// Between two tries: at first, and at most.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// When to try again: doubled each time, with chance, so that those who were cut off together do not
/// come back together.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    wait: Option<Duration>,
    /// Not before then; at once where it is `None`.
    pub(super) until: Option<Instant>,
}

impl Backoff {
    pub(super) fn is_over(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() >= until)
    }

    /// It failed; whether it had not before. Not before `least` it is tried again.
    pub(super) fn begin(&mut self, least: Option<Duration>) -> bool {
        let first = self.wait.is_none();
        let wait = self.wait.map_or(FIRST_WAIT, |w| (w * 2).min(LONGEST_WAIT));
        self.wait = Some(wait);
        let wait = wait.mul_f64(0.5 + share() / 2.0);
        self.until = Some(Instant::now() + wait.max(least.unwrap_or_default()));
        first
    }

    /// It went well; whether it had not before.
    pub(super) fn end(&mut self) -> bool {
        std::mem::take(self).wait.is_some()
    }
}

/// By chance, at least 0 and below 1.
pub(super) fn share() -> f64 {
    let mut bytes = [0; 4];
    // Without chance all is as well, only less spread out.
    let _ = getrandom::fill(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / 4_294_967_296.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_become_rarer_up_to_a_bound_and_obey_the_receiver() {
        let mut backoff = Backoff::default();
        assert!(backoff.is_over() && !backoff.end());
        let mut waits = Vec::new();
        for n in 0..12 {
            let begin = Instant::now();
            assert_eq!(backoff.begin(None), n == 0);
            assert!(!backoff.is_over());
            waits.push(backoff.until.unwrap() - begin);
        }
        assert!(
            waits[0] <= FIRST_WAIT + Duration::from_millis(100),
            "{waits:?}"
        );
        assert!(waits[11] >= LONGEST_WAIT / 2, "{waits:?}");
        assert!(*waits.iter().max().unwrap() <= LONGEST_WAIT + Duration::from_millis(100));
        let begin = Instant::now();
        backoff.begin(Some(Duration::from_secs(600)));
        assert!(backoff.until.unwrap() - begin >= Duration::from_secs(600));
        assert!(backoff.end() && backoff.is_over());
    }
}
