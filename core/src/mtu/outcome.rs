//! What a search found, and what two of them say of the direction.

use core::net::IpAddr;

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The host answers nothing, so nothing is known.
    NoAnswer,
    /// No message could be sent.
    Unsent,
    /// Too much is lost to tell sizes apart, or this host does not let larger ones out. So much has passed at least.
    Unclear {
        /// The largest size that was answered.
        passes: u16,
    },
    /// All that the interface takes passes.
    Whole {
        /// The largest size.
        passes: u16,
    },
    /// Larger ones do not pass, and a router says so: senders learn it.
    Told {
        /// The largest size that passes.
        passes: u16,
        /// Who says so, and which size is to be sent instead, in its words (0: it names none); none where this
        /// host's own stack refuses it.
        by: Option<(IpAddr, u32)>,
    },
    /// Larger ones vanish, and nobody says so.
    Silent {
        /// The largest size that passes.
        passes: u16,
        /// The smallest that does not.
        vanishes: u16,
    },
}

impl Outcome {
    /// The largest size that was answered.
    #[must_use]
    pub const fn passes(&self) -> Option<u16> {
        match *self {
            Self::NoAnswer | Self::Unsent => None,
            Self::Unclear { passes }
            | Self::Whole { passes }
            | Self::Told { passes, .. }
            | Self::Silent { passes, .. } => Some(passes),
        }
    }
}

/// Whether it is upward that larger ones vanish, where echoes found that they do: `there` is what UDP datagrams of the
/// largest size that passes and the next one found, `is_there_only` whether the echoes' replies were shorter than what
/// was sent ([`Search::is_there_only`](super::Search::is_there_only)). Such replies do not vanish for their size, so that where the way there carries
/// larger ones it is the host that answers none, and neither direction.
#[must_use]
pub const fn is_upward(is_there_only: bool, there: Outcome) -> Option<bool> {
    match there {
        Outcome::Silent { .. } => Some(true),
        Outcome::Whole { .. } if !is_there_only => Some(false),
        _ => None,
    }
}
