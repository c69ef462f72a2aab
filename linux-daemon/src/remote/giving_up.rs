//! When it is told that the oldest batches give way to new ones.

/// Oldest batches count as given up no more once so many new ones had room in a row: sizes differ a little.
const CALM: u32 = 10;

/// When the oldest batches began to be given up for new ones, and how many were since.
#[derive(Debug, Default)]
pub(super) struct GivingUp {
    batches: u64,
    calm: u32,
}

/// What is worth a line in the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Edge {
    Begins,
    /// So many were given up.
    Ends(u64),
}

impl GivingUp {
    /// So many were given up for a new one.
    pub(super) fn note(&mut self, oldest: u64) -> Option<Edge> {
        let before = self.batches;
        if oldest > 0 {
            (self.batches, self.calm) = (before + oldest, 0);
            return (before == 0).then_some(Edge::Begins);
        }
        self.calm += u32::from(before > 0);
        if self.calm < CALM {
            return None;
        }
        *self = Self::default();
        Some(Edge::Ends(before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_up_is_told_when_it_begins_and_when_it_is_over() {
        let mut giving_up = GivingUp::default();
        let mut note = |oldest| giving_up.note(oldest);
        assert!((0..2 * CALM).all(|_| note(0).is_none()));
        assert_eq!(note(1), Some(Edge::Begins));
        assert!([1, 2, 0, 1, 0, 0, 1].iter().all(|n| note(*n).is_none()));
        assert!((1..CALM).all(|_| note(0).is_none()));
        assert_eq!(note(0), Some(Edge::Ends(6)));
        assert!((0..2 * CALM).all(|_| note(0).is_none()));
        assert_eq!(note(2), Some(Edge::Begins));
    }
}
