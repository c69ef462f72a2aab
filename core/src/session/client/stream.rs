//! One stream: its probes in flight, and what echoes say of them.

use core::ops::DerefMut;

use crate::drop_reason::DropReason;
use crate::flight::{Flight, LossSlot, ReceivedWord, RemoteFacts, ReplyFacts, Slot};
use crate::limits::RECEIVE_RECORD_BITS;
use crate::packet::RecvMeta;
use crate::sample::SeriesIndex;
use crate::schedule::{Mix, Slots};
use crate::time::ClockSource;
use crate::wire::probe::{NO_RECORD, Reply, WANT_NOTHING};

/// A request counts as not received by the far end when a later one, sent at least this long after
/// it, is known to have arrived, ns: what overtakes by more is late, not reordered.
const SETTLE_NS: u64 = 500_000_000;

/// One stream of a session.
#[derive(Clone, Copy, Debug)]
pub struct StreamConfig {
    /// The series that its samples belong to.
    pub series: SeriesIndex,
    /// Bytes of UDP payload, [`MIN_PROBE_SIZE`](crate::limits::MIN_PROBE_SIZE) to
    /// [`MAX_DATAGRAM`](crate::limits::MAX_DATAGRAM).
    pub size: u16,
    /// One probe in each slot of this length, ns.
    pub interval_ns: u64,
    /// How much of a slot the random offset may take, permille.
    pub spread_permille: u16,
    /// A probe without an answer after this long is lost, ns.
    pub timeout_ns: u64,
}

/// A stream and what is known of it.
#[derive(Debug)]
pub(super) struct Stream<S, L> {
    pub(super) config: StreamConfig,
    pub(super) mix: Mix,
    pub(super) slots: Slots,
    pub(super) flight: Flight<S, L>,
    /// An earlier probe and when the kernel says it left.
    pub(super) earlier: (u64, u64),
    /// The newest answered probe and the far end's count of received ones then.
    pub(super) newest: Option<(u64, u32)>,
    /// Clear bits in the far end's record mean nothing for probes before this one.
    pub(super) believe_from: u64,
    /// The part of the record asked for last.
    pub(super) asked: u64,
    /// A long run whose direction the counts tell: what is left of it.
    pub(super) run: Option<(u64, u64, bool)>,
}

impl<S, L> Stream<S, L>
where
    S: DerefMut<Target = [Slot]>,
    L: DerefMut<Target = [LossSlot]>,
{
    /// Takes from an echo what it says of this stream.
    pub(super) fn take_reply(
        &mut self,
        meta: &RecvMeta,
        reply: &Reply,
        seq: u64,
    ) -> Result<(), DropReason> {
        let clock =
            |which: u32| ClockSource::from_u8(reply.clocks >> (2 * which) & 3).unwrap_or_default();
        for (i, (tx_ns, back)) in reply.tx_ns.iter().zip(&reply.tx_back).enumerate() {
            if back.get() > 0
                && let Some(earlier) = seq.checked_sub(u64::from(back.get()))
            {
                self.flight
                    .on_residence(earlier, tx_ns.get(), clock(i as u32 + 1));
            }
        }
        let rx_ns = reply.rx_ns.get();
        let remote = RemoteFacts {
            rx_ns,
            rx_clock: clock(0),
            tx_user_ns: rx_ns.saturating_add(u64::from(reply.residence_ns.get())),
            ttl_up: Some(reply.ttl).filter(|t| *t > 0),
            tos_seen: (reply.ttl > 0).then_some(reply.tos),
        };
        let facts = ReplyFacts {
            rx: meta.at,
            ttl_down: meta.ttl,
            remote: Some(remote),
        };
        self.flight.on_reply(seq, &facts)?;
        self.take_counts(seq, reply.received.get());
        self.take_record(seq, reply);
        Ok(())
    }

    /// A run that is longer than the far end's record has its direction from the counts, where they
    /// leave no doubt.
    fn take_counts(&mut self, seq: u64, received: u32) {
        let Some((newest, count)) = self.newest else {
            self.newest = Some((seq, received));
            return;
        };
        let Some(sent) = seq.checked_sub(newest).filter(|n| *n > 0) else {
            return;
        };
        self.newest = Some((seq, received));
        let arrived = received.wrapping_sub(count);
        if sent + 128 < RECEIVE_RECORD_BITS as u64 || newest < self.believe_from {
            return;
        }
        if arrived == 1 || u64::from(arrived) == sent {
            self.run = Some((newest + 1, seq, arrived != 1));
        }
    }

    fn take_record(&mut self, seq: u64, reply: &Reply) {
        let back = reply.record_back.get();
        if back == NO_RECORD {
            // Asked for, and not remembered any more: that part will never be known. A run whose
            // direction the counts tell does not need it.
            if self.asked != WANT_NOTHING
                && self.run.is_none()
                && self.asked.saturating_add(RECEIVE_RECORD_BITS as u64) < seq
            {
                self.flight.forget_before(self.asked + 64);
            }
            return;
        }
        let Some(first) = seq.checked_sub(u64::from(back)) else {
            return;
        };
        // The far end's record begins only there: nothing before it will ever be known.
        if first > self.asked && self.run.is_none() {
            self.flight.forget_before(first);
        }
        self.flight.on_received_word(&ReceivedWord {
            first,
            bits: reply.record.get(),
            as_of: seq,
            settle_ns: SETTLE_NS,
            believe_from: self.believe_from,
        });
    }
}
