//! Room for one request, and what has become of it.

use super::{FlightConfig, RemoteFacts, ReplyFacts};
use crate::sample::{Flags, Sample, Status};
use crate::time::{ClockSource, Monotonic, Stamp, signed_difference_ns};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    #[default]
    Free,
    /// Sent or being sent, not answered.
    Waiting,
    /// Answered, but the transmit stamp or the residence time may still come.
    Answered,
    /// Its end is known and not yet polled.
    Ended(Status),
    /// Its end has been reported.
    Reported(Status),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Nothing,
    /// The far end received it, so its reply was lost.
    Received,
    /// The far end did not receive it.
    NotReceived,
}

/// Room for one request. The caller lends a slice of these: at least as many as can be sent within
/// the time-out; a late answer is recognised for as long as its slot is not used again.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    pub(super) state: State,
    pub(super) heard: Heard,
    pub(super) seq: u64,
    pub(super) deadline: Monotonic,
    pub(super) tx: Stamp,
    pub(super) tx_final: bool,
    pub(super) size: u16,
    pub(super) errno: u16,
    pub(super) flags: Flags,
    pub(super) rx: Option<Stamp>,
    pub(super) ttl_down: Option<u8>,
    pub(super) remote: Option<RemoteFacts>,
    pub(super) remote_tx: Option<(u64, ClockSource)>,
    pub(super) later_replies: u8,
}

impl Default for Slot {
    fn default() -> Self {
        Self {
            state: State::Free,
            heard: Heard::Nothing,
            seq: 0,
            deadline: Monotonic::ZERO,
            tx: Stamp::user(Monotonic::ZERO),
            tx_final: false,
            size: 0,
            errno: 0,
            flags: Flags::NONE,
            rx: None,
            ttl_down: None,
            remote: None,
            remote_tx: None,
            later_replies: 0,
        }
    }
}

impl Heard {
    /// How a loss ends of which this was heard. What arrived at the far end was lost on the way down
    /// only where neither end dropped its reply, and what did not was lost on the way up only where
    /// the far end did not drop it.
    pub(super) const fn status(self, flags: Flags) -> Status {
        match self {
            Self::Nothing => Status::Lost,
            _ if flags.contains(Flags::FAR_DROPS) => Status::Lost,
            Self::Received if flags.contains(Flags::OWN_DROPS) => Status::Lost,
            Self::Received => Status::LostDown,
            Self::NotReceived => Status::LostUp,
        }
    }
}

impl Slot {
    pub(super) fn mark_late(&mut self, late_after_ns: u64) {
        if self.tx.at.signed_since(self.deadline) > late_after_ns as i64 {
            self.flags = self.flags.with(Flags::SENT_LATE);
        }
    }

    pub(super) fn take_reply(&mut self, facts: &ReplyFacts) {
        self.rx = Some(facts.rx);
        self.ttl_down = facts.ttl_down;
        self.remote = facts.remote;
    }

    /// The sample this request ends in.
    pub(super) fn sample(&self, config: &FlightConfig, status: Status) -> Sample {
        let mut sample = Sample::lost(config.series, self.seq, self.tx.at, self.size);
        sample.status = status;
        sample.flags = self.flags;
        sample.send_late_ns = self.tx.at.signed_since(self.deadline);
        if status == Status::Unsent {
            sample.errno = self.errno;
        } else {
            sample.tx_clock = self.tx.clock;
        }
        let Some(rx) = self.rx.filter(|_| status.is_answered()) else {
            return sample;
        };
        sample.rx_clock = rx.clock;
        sample.ttl_down = self.ttl_down;
        let whole_ns = rx.at.saturating_since(self.tx.at);
        sample.rtt_ns = Some(whole_ns);
        if let Some(remote) = self.remote {
            // A duplicate's own transmit stamp is never told apart from the first copy's.
            let (tx_ns, tx_clock) = match self.remote_tx {
                Some(stamp) if status != Status::Duplicate => stamp,
                _ => (remote.tx_user_ns, ClockSource::User),
            };
            let residence_ns = tx_ns.saturating_sub(remote.rx_ns);
            sample.rtt_ns = Some(whole_ns.saturating_sub(residence_ns));
            sample.raw_up_ns = Some(signed_difference_ns(remote.rx_ns, self.tx.at.as_nanos()));
            sample.raw_down_ns = Some(signed_difference_ns(rx.at.as_nanos(), tx_ns));
            sample.remote_rx_clock = remote.rx_clock;
            sample.remote_tx_clock = tx_clock;
            sample.ttl_up = remote.ttl_up;
            sample.tos_seen = remote.tos_seen;
        }
        sample
    }
}
