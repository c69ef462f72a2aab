//! Changes of links and routes, gathered: one seldom comes alone.

use std::time::{Duration, Instant};

/// A change that comes this soon after another belongs to it.
const SETTLE: Duration = Duration::from_millis(20);
/// Where changes never cease, what there is by now is acted on after this long.
const LONGEST: Duration = Duration::from_millis(200);

/// Takes in what follows a change. `next` waits for another, at most as long as it is told, and says
/// whether there was one.
pub(super) fn more(mut next: impl FnMut(Duration) -> bool) {
    let until = Instant::now() + LONGEST;
    while Instant::now() < until && next(SETTLE) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_that_never_cease_are_acted_on_all_the_same() {
        let mut changes = 0;
        more(|_| {
            std::thread::sleep(Duration::from_millis(1));
            changes += 1;
            // Seconds of them.
            changes < 5_000
        });
        assert!((1..5_000).contains(&changes), "{changes}");
    }

    #[test]
    fn a_change_alone_is_acted_on_once_no_other_follows() {
        let mut waits = Vec::new();
        more(|patience| {
            waits.push(patience);
            false
        });
        assert_eq!(waits, [SETTLE]);
    }
}
