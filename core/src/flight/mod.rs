//! What is in flight: replies are matched to requests, and every request ends in one sample.
//!
//! One [`Flight`] serves one stream. The order of calls:
//!
//! 1. [`Flight::on_send`] for each request that is handed to the driver; it gives the number.
//! 2. [`Flight::on_sent`] once, with the transmit stamp, without one, or with the errno.
//! 3. [`Flight::on_reply`] for each reply, and with it whatever the reply says of other requests:
//!    [`Flight::on_residence`] and [`Flight::on_received_word`].
//! 4. [`Flight::handle_timeout`] when [`Flight::poll_timeout`] says so.
//! 5. [`Flight::poll_observation`] until it is empty, after each of these: after every datagram, not every
//!    batch of them.
//! 6. [`Flight::end_answered`] before it is dropped, and step 5 once more.
//!
//! Steps 2 and 3 may come in either order: a reply often overtakes its request's transmit stamp.

mod losses;
mod slot;
#[cfg(test)]
mod tests;

use core::ops::DerefMut;

use heapless::Deque;

pub use losses::LossSlot;
use losses::Losses;
pub use slot::Slot;
use slot::{Heard, State};

use crate::drop_reason::DropReason;
use crate::limits::SENT_LATE_NS;
use crate::packet::SendOutcome;
use crate::sample::{Flags, Observation, SeriesIndex, Status};
use crate::time::{ClockSource, Monotonic, Stamp};

/// Further copies of replies and revisions that may wait to be polled. They are polled after every
/// datagram, so only one's worth ever waits: 64 from a record word, and a duplicate or a late answer.
const EXTRA: usize = 72;

/// A sample is complete without its residence time after this many later replies: the far end sends
/// each transmit stamp in its next two replies, so it cannot come any more.
const REPLIES_UNTIL_RESIDENCE_IS_GONE: u8 = 2;

/// How a stream is matched.
#[derive(Clone, Copy, Debug)]
pub struct FlightConfig {
    /// The series that its samples belong to.
    pub series: SeriesIndex,
    /// A request without an answer after this long is lost, ns.
    pub timeout_ns: u64,
    /// Length of a slot, ns. A request that leaves this much after its deadline, or
    /// [`SENT_LATE_NS`] where that is less, is marked [`Flags::SENT_LATE`].
    pub interval_ns: u64,
    /// Whether the far end tells its transmit time in later replies (interleaved mode, RFC 9769).
    pub interleaved: bool,
}

/// What a reply says of its own request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyFacts {
    /// When the reply arrived.
    pub rx: Stamp,
    /// TTL or hop limit of the reply.
    pub ttl_down: Option<u8>,
    /// The far end's own account, where there is one.
    pub remote: Option<RemoteFacts>,
}

/// What the far end says of a request that it received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteFacts {
    /// When it received the request, on its own time line, ns.
    pub rx_ns: u64,
    /// Who stamped that.
    pub rx_clock: ClockSource,
    /// When it sent the reply, by its own program, ns. A better stamp may follow through
    /// [`Flight::on_residence`].
    pub tx_user_ns: u64,
    /// TTL or hop limit of the request.
    pub ttl_up: Option<u8>,
    /// TOS or traffic-class octet of the request.
    pub tos_seen: Option<u8>,
}

/// Part of the far end's record of what it received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceivedWord {
    /// The request that bit 0 stands for.
    pub first: u64,
    /// Bit `i` is set where request `first + i` was received.
    pub bits: u64,
    /// The request whose answer brought this.
    pub as_of: u64,
    /// How much later than a request `as_of` must have been sent for a clear bit to be believed, ns.
    pub settle_ns: u64,
    /// Clear bits of requests before this one mean nothing: the far end has restarted, or may have
    /// dropped them itself.
    pub believe_from: u64,
}

/// The requests of one stream that wait for their answers.
#[derive(Debug)]
pub struct Flight<S, L> {
    config: FlightConfig,
    slots: S,
    losses: Losses<L>,
    /// The number of the next request.
    next: u64,
    /// No request before this one is unresolved.
    head: u64,
    /// How many slots are in `State::Ended`.
    ended: usize,
    /// The highest number that was answered, and when it had reached the far end, on that one's time
    /// line, where that is told.
    newest_answered: Option<u64>,
    newest_remote_rx_ns: Option<u64>,
    extra: Deque<Observation, EXTRA>,
    overflowed: u64,
}

impl<S, L> Flight<S, L>
where
    S: DerefMut<Target = [Slot]>,
    L: DerefMut<Target = [LossSlot]>,
{
    /// A stream with nothing in flight. `slots` holds what is in flight, `losses` those reported as
    /// lost whose direction may still become known; it may be empty where there is no far end that
    /// tells.
    pub fn new(config: FlightConfig, slots: S, losses: L) -> Self {
        Self {
            config,
            slots,
            losses: Losses::new(losses),
            next: 0,
            head: 0,
            ended: 0,
            newest_answered: None,
            newest_remote_rx_ns: None,
            extra: Deque::new(),
            overflowed: 0,
        }
    }

    /// The number that the next request will have.
    #[must_use]
    pub const fn next_seq(&self) -> u64 {
        self.next
    }

    /// Duplicates and revisions that were lost since the last call because nobody polled for them.
    pub const fn take_overflowed(&mut self) -> u64 {
        core::mem::replace(&mut self.overflowed, 0)
    }

    /// A request of `size` bytes is handed to the driver at `now` for `deadline`. Gives its number,
    /// or `None` where the slot it needs is still in flight: then it must not be sent.
    pub fn on_send(&mut self, now: Monotonic, deadline: Monotonic, size: u16) -> Option<u64> {
        let seq = self.next;
        let index = self.index(seq)?;
        if !matches!(self.slots[index].state, State::Free | State::Reported(_)) {
            return None;
        }
        self.slots[index] = Slot {
            state: State::Waiting,
            seq,
            deadline,
            tx: Stamp::user(now),
            size,
            ..Slot::default()
        };
        self.next = seq + 1;
        Some(seq)
    }

    /// What became of sending request `seq`.
    pub fn on_sent(&mut self, seq: u64, outcome: SendOutcome) {
        let late_after_ns = self.config.interval_ns.min(SENT_LATE_NS);
        let Some(slot) = self.slot_mut(seq) else {
            return;
        };
        match outcome {
            SendOutcome::Stamped(stamp) => {
                slot.tx = stamp;
                slot.tx_final = true;
                slot.mark_late(late_after_ns);
            }
            SendOutcome::NoStamp => {
                slot.tx_final = true;
                slot.mark_late(late_after_ns);
            }
            SendOutcome::Failed(errno) => {
                slot.tx_final = true;
                if slot.state == State::Waiting {
                    slot.errno = errno.clamp(0, i32::from(u16::MAX)) as u16;
                    self.end(seq, Status::Unsent);
                    return;
                }
            }
        }
        self.end_if_complete(seq);
    }

    /// A reply to request `seq` arrived.
    ///
    /// # Errors
    /// [`DropReason::Unmatched`] where `seq` was never sent or is too long ago.
    pub fn on_reply(&mut self, seq: u64, facts: &ReplyFacts) -> Result<(), DropReason> {
        let timeout_ns = self.config.timeout_ns;
        let newest = self.newest_answered;
        let remote_rx_ns = facts.remote.map(|r| r.rx_ns);
        let after_newest = remote_rx_ns
            .zip(self.newest_remote_rx_ns)
            .is_some_and(|(this, newest)| this > newest);
        let slot = self.slot_mut(seq).ok_or(DropReason::Unmatched)?;
        // The stamps decide, not when the driver got round to it: after a stall of this program the
        // time-out may be noticed before a reply that had arrived in time.
        let late = facts.rx.at.saturating_since(slot.tx.at) > timeout_ns;
        let status = if late { Status::Late } else { Status::Ok };
        match slot.state {
            State::Free => return Err(DropReason::Unmatched),
            State::Ended(Status::Unsent) | State::Reported(Status::Unsent) => {
                return Err(DropReason::Unmatched);
            }
            State::Answered
            | State::Ended(Status::Ok | Status::Late)
            | State::Reported(Status::Ok | Status::Late) => {
                let mut copy = *slot;
                copy.take_reply(facts);
                self.push_extra(|config| Observation::New(copy.sample(config, Status::Duplicate)));
                return Ok(());
            }
            State::Waiting => {
                slot.take_reply(facts);
                if newest.is_some_and(|n| n > seq) {
                    slot.flags = slot.flags.with(Flags::REORDERED);
                    if after_newest {
                        slot.flags = slot.flags.with(Flags::REORDERED_UP);
                    }
                }
                if late {
                    self.end(seq, Status::Late);
                } else {
                    slot.state = State::Answered;
                    self.end_if_complete(seq);
                }
            }
            State::Ended(_) => {
                // Timed out a moment ago and not yet polled: it is reported once.
                slot.take_reply(facts);
                slot.state = State::Ended(status);
            }
            State::Reported(_) => {
                slot.take_reply(facts);
                slot.state = State::Reported(status);
                let slot = *slot;
                self.losses.forget(seq);
                self.push_extra(|config| Observation::Revised(slot.sample(config, status)));
            }
        }
        if newest.is_none_or(|n| n < seq) {
            self.newest_answered = Some(seq);
            self.newest_remote_rx_ns = remote_rx_ns;
        }
        self.count_later_replies(seq);
        Ok(())
    }

    /// The far end says when its reply to request `seq` left: `tx_ns` on its own time line, stamped
    /// by `clock`.
    pub fn on_residence(&mut self, seq: u64, tx_ns: u64, clock: ClockSource) {
        let Some(slot) = self.slot_mut(seq) else {
            return;
        };
        if matches!(slot.state, State::Waiting | State::Answered) {
            slot.remote_tx = Some((tx_ns, clock));
            self.end_if_complete(seq);
        }
    }

    /// The far end's receive record for the 64 requests from `word.first` on.
    ///
    /// A set bit is final. A clear one is believed for requests that were sent at least
    /// `word.settle_ns` before request `word.as_of`, whose answer brought the record: a younger one
    /// may have been on its way.
    pub fn on_received_word(&mut self, word: &ReceivedWord) {
        let Some(as_of_sent) = self.sent_at(word.as_of) else {
            return;
        };
        for i in 0..64 {
            let seq = word.first.saturating_add(i);
            if seq >= self.next || seq > word.as_of {
                break;
            }
            let Some(sent) = self.sent_at(seq) else {
                continue;
            };
            let settled = as_of_sent.saturating_since(sent) >= word.settle_ns;
            if word.bits >> i & 1 == 1 {
                self.on_heard(seq, Heard::Received);
            } else if settled && seq < word.believe_from {
                self.losses.forget(seq);
            } else if settled {
                self.on_heard(seq, Heard::NotReceived);
            }
        }
    }

    /// Every loss from `from` up to and without `to` was received (`received`), or none was: for
    /// runs that are longer than the far end's record, by its counts. Gives where to go on once the
    /// observations so far have been polled; `to` when it is done.
    pub fn on_run(&mut self, from: u64, to: u64, received: bool) -> u64 {
        let heard = if received {
            Heard::Received
        } else {
            Heard::NotReceived
        };
        let mut seq = from.max(self.oldest_undirected().unwrap_or(to)).min(to);
        while seq < to && self.extra.len() < EXTRA / 2 {
            self.on_heard(seq, heard);
            seq += 1;
        }
        seq
    }

    /// The direction of losses before `seq` will never be known.
    pub fn forget_before(&mut self, seq: u64) {
        self.losses.forget_before(seq);
    }

    /// The oldest request that is lost or unanswered and whose direction is not known: what to ask
    /// the far end's record for.
    #[must_use]
    pub fn oldest_undirected(&self) -> Option<u64> {
        self.losses.oldest().or_else(|| {
            (self.head..self.next).find(|&seq| {
                self.slot(seq)
                    .is_some_and(|s| s.state == State::Waiting && s.heard == Heard::Nothing)
            })
        })
    }

    /// Nothing more will be learned of losses so far: the far end has restarted.
    pub fn on_remote_restart(&mut self) {
        self.losses.clear();
        self.newest_remote_rx_ns = None;
        for seq in self.head..self.next {
            if let Some(slot) = self.slot_mut(seq) {
                slot.heard = Heard::Nothing;
            }
        }
    }

    /// Our own socket has dropped datagrams since the last one that was received: a reply to whatever
    /// is unanswered may be among them. That goes for what has timed out meanwhile too: the direction
    /// of losses so far stays unknown where it is.
    pub fn on_own_drops(&mut self) {
        self.losses.clear();
        for seq in self.head..self.next {
            if let Some(slot) = self.slot_mut(seq)
                && slot.state == State::Waiting
            {
                slot.flags = slot.flags.with(Flags::OWN_DROPS);
            }
        }
    }

    /// The far end has dropped datagrams itself that were sent between `from` and `to`: what is unanswered of
    /// those may be among them.
    pub fn on_far_drops(&mut self, from: Monotonic, to: Monotonic) {
        for seq in self.head..self.next {
            if let Some(slot) = self.slot_mut(seq)
                && matches!(slot.state, State::Waiting | State::Ended(Status::Lost))
                && (from..=to).contains(&slot.tx.at)
            {
                slot.flags = slot.flags.with(Flags::FAR_DROPS);
            }
        }
    }

    /// When [`Flight::handle_timeout`] is next needed.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Monotonic> {
        (self.head..self.next).find_map(|seq| {
            let slot = self.slot(seq)?;
            matches!(slot.state, State::Waiting | State::Answered)
                .then(|| slot.tx.at.saturating_add(self.config.timeout_ns))
        })
    }

    /// Ends what has waited for the time-out.
    pub fn handle_timeout(&mut self, now: Monotonic) {
        for seq in self.head..self.next {
            let timeout_ns = self.config.timeout_ns;
            let Some(slot) = self.slot(seq) else { continue };
            let due = slot.tx.at.saturating_add(timeout_ns) <= now;
            match slot.state {
                State::Answered if due => self.end(seq, Status::Ok),
                State::Waiting if due => {
                    self.end(seq, slot.heard.status(slot.flags));
                }
                State::Waiting | State::Answered => break,
                _ => {}
            }
        }
        self.advance_head();
    }

    /// What has been answered ends with the stamps it has: its driver ends, and none will follow.
    pub fn end_answered(&mut self) {
        for seq in self.head..self.next {
            if self.slot(seq).is_some_and(|s| s.state == State::Answered) {
                self.end(seq, Status::Ok);
            }
        }
    }

    /// The next sample or revision, until there is none.
    pub fn poll_observation(&mut self) -> Option<Observation> {
        if self.ended > 0 {
            for seq in self.head..self.next {
                let Some(index) = self.index_of(seq) else {
                    continue;
                };
                if let State::Ended(status) = self.slots[index].state {
                    self.slots[index].state = State::Reported(status);
                    self.ended -= 1;
                    let sample = self.slots[index].sample(&self.config, status);
                    if status == Status::Lost {
                        self.losses.push(&sample);
                    }
                    self.advance_head();
                    return Some(Observation::New(sample));
                }
            }
        }
        self.extra.pop_front()
    }

    fn end(&mut self, seq: u64, status: Status) {
        if let Some(slot) = self.slot_mut(seq)
            && !matches!(slot.state, State::Ended(_))
        {
            slot.state = State::Ended(status);
            self.ended += 1;
        }
    }

    fn end_if_complete(&mut self, seq: u64) {
        let interleaved = self.config.interleaved;
        let Some(slot) = self.slot(seq) else { return };
        if slot.state == State::Answered && slot.tx_final {
            let residence_settled = !interleaved
                || slot.remote_tx.is_some()
                || slot.later_replies >= REPLIES_UNTIL_RESIDENCE_IS_GONE;
            if residence_settled {
                self.end(seq, Status::Ok);
            }
        }
    }

    /// A reply to `newer` came: what was answered before it has one chance less to learn its
    /// residence time. Call order matters: `on_residence` from the same reply comes first.
    fn count_later_replies(&mut self, newer: u64) {
        if !self.config.interleaved {
            return;
        }
        for seq in self.head..self.next {
            if seq == newer {
                continue;
            }
            if let Some(slot) = self.slot_mut(seq)
                && slot.state == State::Answered
            {
                slot.later_replies = slot.later_replies.saturating_add(1);
                self.end_if_complete(seq);
            }
        }
    }

    fn on_heard(&mut self, seq: u64, heard: Heard) {
        if let Some(slot) = self.slot_mut(seq) {
            // A record that says "received" cannot be taken back by an older one.
            if slot.heard != Heard::Received {
                slot.heard = heard;
            }
            if let State::Ended(Status::Lost) = slot.state {
                slot.state = State::Ended(heard.status(slot.flags));
                return;
            }
        }
        if let Some(mut sample) = self.losses.take(seq, self.config.series) {
            sample.status = heard.status(sample.flags);
            if sample.status == Status::Lost {
                return;
            }
            sample.flags = sample.flags.with(Flags::DIRECTION_LATER);
            if let Some(slot) = self.slot_mut(seq) {
                slot.flags = slot.flags.with(Flags::DIRECTION_LATER);
                slot.state = State::Reported(sample.status);
            }
            self.push_extra(|_| Observation::Revised(sample));
        }
    }

    fn push_extra(&mut self, make: impl FnOnce(&FlightConfig) -> Observation) {
        if self.extra.push_back(make(&self.config)).is_err() {
            self.overflowed += 1;
        }
    }

    fn advance_head(&mut self) {
        while self.head < self.next {
            match self.slot(self.head).map(|s| s.state) {
                Some(State::Waiting | State::Answered | State::Ended(_)) => break,
                _ => self.head += 1,
            }
        }
    }

    /// When request `seq` was sent, as long as it is remembered.
    #[must_use]
    pub fn sent_at(&self, seq: u64) -> Option<Monotonic> {
        self.slot(seq)
            .map(|s| s.tx.at)
            .or_else(|| self.losses.sent_at(seq))
    }

    fn index(&self, seq: u64) -> Option<usize> {
        (seq % (self.slots.len() as u64).max(1))
            .try_into()
            .ok()
            .filter(|i| *i < self.slots.len())
    }

    fn index_of(&self, seq: u64) -> Option<usize> {
        self.index(seq)
            .filter(|&i| self.slots[i].seq == seq && self.slots[i].state != State::Free)
    }

    fn slot(&self, seq: u64) -> Option<&Slot> {
        self.index_of(seq).map(|i| &self.slots[i])
    }

    fn slot_mut(&mut self, seq: u64) -> Option<&mut Slot> {
        self.index_of(seq).map(|i| &mut self.slots[i])
    }
}
