//! The hops of a way, each with its loss and round-trip times.
//!
//! First every hop is looked for in turn, one message at a time, until the target answers, a router
//! refuses, or nobody has answered for some hops. Then rounds of one message to each hop follow, spread
//! over the round so that no router has to answer two at once. All messages are of one flow
//! (`message`).
//!
//! A router answers when it likes: a hop without an answer is no hop without a way. What is lost on the
//! way is lost at every hop from there on.

pub(crate) mod message;
pub mod way;

use core::net::IpAddr;

use heapless::Vec;

use crate::drop_reason::DropReason;
use crate::time::Monotonic;
use crate::wire::icmp::{Refusal, Report};

use message::Which;
pub use message::{MESSAGE_LEN, Transport};

/// The most hops that a way may have.
pub const MAX_HOPS: u8 = 30;
/// The shortest round, ns.
pub const MIN_ROUND_NS: u64 = 100_000_000;
/// What is not answered after this long is lost, ns.
pub const PATIENCE_NS: u64 = 2_000_000_000;
/// How long each hop is waited for while they are looked for, ns.
pub const SEEK_NS: u64 = 500_000_000;
/// After so many hops in a row without an answer none is looked for any more.
pub const SILENT_HOPS: u8 = 5;
/// How many addresses of a hop are kept.
pub const ADDRESSES: usize = 4;
/// Messages that are remembered.
const SLOTS: usize = 1024;

/// A message is remembered for as long as it may be answered.
const _: () =
    assert!(MAX_HOPS as u64 * PATIENCE_NS.div_ceil(MIN_ROUND_NS) + MAX_HOPS as u64 <= SLOTS as u64);
const _: () = assert!((u16::MAX as usize + 1).is_multiple_of(SLOTS));

/// What is traced, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceConfig {
    /// Where to.
    pub target: IpAddr,
    /// The address that is sent from, where it is known: what is reported from there is this host's own word, as where
    /// nobody answers on the link, and no router's.
    pub source: Option<IpAddr>,
    /// What is sent.
    pub transport: Transport,
    /// Random: tells our messages from everybody else's.
    pub cookie: u64,
    /// Messages to each hop; the first is the one that finds it.
    pub rounds: u16,
    /// Length of a round, ns; at least [`MIN_ROUND_NS`].
    pub round_ns: u64,
    /// How many hops are looked for at most, 1 to [`MAX_HOPS`].
    pub max_hops: u8,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this message now.
    Send(Outgoing),
    /// Wait for answers, at most until then.
    Wait(Monotonic),
    /// It is over.
    End,
}

/// A message to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// TTL or hop limit.
    pub ttl: u8,
    /// Names it in [`Trace::handle_unsent`].
    pub number: u16,
    bytes: [u8; MESSAGE_LEN],
    len: usize,
}

impl Outgoing {
    /// What is sent: an ICMP message, or the payload of a UDP datagram.
    #[must_use]
    pub fn message(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// One hop of the way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hop {
    /// Messages sent to it.
    pub sent: u32,
    /// Messages answered by it in time.
    pub answered: u32,
    /// Who answered, in the order of their first answers: more than one where the way changes or is
    /// shared all the same. Of more than [`ADDRESSES`] the later ones are not kept.
    pub addresses: Vec<IpAddr, ADDRESSES>,
}

/// Where the way ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Behind the last hop nobody answers.
    Silence,
    /// The last hop is the target.
    Target,
    /// The router at the last hop refuses what is sent there.
    Refused(Refusal),
}

/// An answer that counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The hop, from 1.
    pub hop: u8,
    /// Who answered.
    pub from: IpAddr,
    /// Round-trip time, ns.
    pub rtt_ns: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    sent: Monotonic,
    number: u16,
    ttl: u8,
    waiting: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Looking for this hop; where it has been asked, until then.
    Seek(u8, Option<Monotonic>),
    /// Rounds that are over, the hop whose turn is next, and when the round began.
    Round(u16, u8, Monotonic),
    /// The last messages may still be answered until then.
    Last(Monotonic),
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Trace {
    config: TraceConfig,
    hops: [Hop; MAX_HOPS as usize],
    length: u8,
    end: End,
    phase: Phase,
    next: u16,
    slots: [Slot; SLOTS],
}

impl Trace {
    /// A trace that has not begun; figures out of range are brought into it.
    #[must_use]
    pub fn new(config: TraceConfig) -> Self {
        Self {
            config: TraceConfig {
                rounds: config.rounds.max(1),
                round_ns: config.round_ns.max(MIN_ROUND_NS),
                max_hops: config.max_hops.clamp(1, MAX_HOPS),
                ..config
            },
            hops: [const {
                Hop {
                    sent: 0,
                    answered: 0,
                    addresses: Vec::new(),
                }
            }; MAX_HOPS as usize],
            length: 0,
            end: End::Silence,
            phase: Phase::Seek(1, None),
            next: 0,
            slots: [Slot::default(); SLOTS],
        }
    }

    /// The hops of the way, the nearest first.
    #[must_use]
    pub fn hops(&self) -> &[Hop] {
        &self.hops[..usize::from(self.length)]
    }

    /// Where the way ends, as far as is known.
    #[must_use]
    pub const fn end(&self) -> End {
        self.end
    }

    /// Rounds that are over, of [`TraceConfig::rounds`].
    #[must_use]
    pub const fn rounds(&self) -> u16 {
        match self.phase {
            Phase::Seek(..) => 0,
            Phase::Round(rounds, ..) => rounds,
            Phase::Last(_) => self.config.rounds,
        }
    }

    /// What to do at `now`.
    pub fn step(&mut self, now: Monotonic) -> Step {
        loop {
            match self.phase {
                Phase::Seek(ttl, None) => {
                    self.phase = Phase::Seek(ttl, Some(now.saturating_add(SEEK_NS)));
                    return self.send(ttl, now);
                }
                Phase::Seek(_, Some(until)) if now < until => return Step::Wait(until),
                Phase::Seek(ttl, Some(_)) => self.seek_on(ttl, now),
                Phase::Round(round, hop, begun) => {
                    if round >= self.config.rounds || self.length == 0 {
                        self.phase = Phase::Last(now.saturating_add(PATIENCE_NS));
                        continue;
                    }
                    let apart = self.config.round_ns / u64::from(self.length);
                    let due = begun.saturating_add(apart * u64::from(hop - 1));
                    if now < due {
                        return Step::Wait(due);
                    }
                    self.phase = if hop >= self.length {
                        // A driver that was held up goes on from now, and does not hurry after.
                        let planned = begun.saturating_add(self.config.round_ns);
                        Phase::Round(round + 1, 1, planned.max(now))
                    } else {
                        Phase::Round(round, hop + 1, begun)
                    };
                    return self.send(hop, now);
                }
                Phase::Last(until) if now < until && self.slots.iter().any(|s| s.waiting) => {
                    return Step::Wait(until);
                }
                Phase::Last(_) => return Step::End,
            }
        }
    }

    /// The message could not be sent, and so cannot be lost.
    pub fn handle_unsent(&mut self, number: u16) {
        let slot = &mut self.slots[usize::from(number) % SLOTS];
        if slot.waiting && slot.number == number {
            slot.waiting = false;
            self.hops[usize::from(slot.ttl) - 1].sent -= 1;
        }
    }

    /// `from` reports at `now` what became of a message, of which `quoted` is the beginning (of the
    /// ICMP message, or of UDP's payload).
    ///
    /// # Errors
    /// Why it is not used: [`DropReason::Unmatched`] where it answers none of our messages, or one that
    /// was answered before or has been given up, or is this host's own word.
    pub fn handle_report(
        &mut self,
        now: Monotonic,
        from: IpAddr,
        report: Report,
        quoted: &[u8],
    ) -> Result<Answer, DropReason> {
        let which = message::of_quoted(self.config.transport, self.config.cookie, quoted)?;
        if Some(from) == self.config.source && from != self.config.target {
            return Err(DropReason::Unmatched);
        }
        let number = match which {
            Which::Number(number) => number,
            Which::Any => self.attribute(now, from).ok_or(DropReason::Unmatched)?,
        };
        self.answered(now, from, number, report)
    }

    /// An ICMP message, without an IP header, came from `from` at `now`.
    ///
    /// # Errors
    /// As [`Trace::handle_report`].
    pub fn handle_reply(
        &mut self,
        now: Monotonic,
        from: IpAddr,
        message: &[u8],
    ) -> Result<Answer, DropReason> {
        let which = message::of_reply(self.config.transport, self.config.cookie, message)?;
        let Which::Number(number) = which else {
            return Err(DropReason::Unmatched);
        };
        if from != self.config.target {
            return Err(DropReason::Unmatched);
        }
        // To us it is what a refusal by the target is: it has come that far.
        self.answered(now, from, number, Report::Unreachable(Refusal::Port))
    }

    fn answered(
        &mut self,
        now: Monotonic,
        from: IpAddr,
        number: u16,
        report: Report,
    ) -> Result<Answer, DropReason> {
        let slot = &mut self.slots[usize::from(number) % SLOTS];
        let rtt_ns = now.saturating_since(slot.sent);
        if !slot.waiting || slot.number != number || rtt_ns > PATIENCE_NS {
            return Err(DropReason::Unmatched);
        }
        slot.waiting = false;
        let ttl = slot.ttl;
        let hop = &mut self.hops[usize::from(ttl) - 1];
        hop.answered += 1;
        if !hop.addresses.contains(&from) {
            // The first few are enough.
            let _ = hop.addresses.push(from);
        }
        self.note_end(ttl, from, report);
        if let Phase::Seek(sought, Some(_)) = self.phase
            && (sought == ttl || self.end != End::Silence)
        {
            self.seek_on(sought, now);
        }
        Ok(Answer {
            hop: ttl,
            from,
            rtt_ns,
        })
    }

    /// What an answer to a message that goes as far as `ttl` says of the way's length.
    fn note_end(&mut self, ttl: u8, from: IpAddr, report: Report) {
        let target = from == self.config.target || report == Report::Unreachable(Refusal::Port);
        match report {
            // What goes farther than the target is far ends there, too.
            _ if target && self.end == End::Target => self.length = self.length.min(ttl),
            _ if target => (self.end, self.length) = (End::Target, ttl),
            Report::Unreachable(why) if self.end == End::Silence && ttl >= self.length => {
                // Whoever has said that a message ended there refuses what would go on.
                let known = |h: &Hop| h.addresses.contains(&from);
                let at = self.hops.iter().position(known);
                self.length = at.map_or(ttl, |i| i as u8 + 1);
                self.end = End::Refused(why);
            }
            Report::Unreachable(_) => {}
            // The way has become longer.
            Report::Exceeded if ttl == self.length && self.end == End::Target => {
                self.length = (ttl + 1).min(self.config.max_hops);
            }
            Report::Exceeded if self.end == End::Silence => self.length = self.length.max(ttl),
            Report::Exceeded => {}
        }
    }

    /// The hop after `ttl` is looked for, unless there is none.
    fn seek_on(&mut self, ttl: u8, now: Monotonic) {
        let silent = ttl.saturating_sub(self.length);
        self.phase =
            if self.end != End::Silence || ttl >= self.config.max_hops || silent >= SILENT_HOPS {
                Phase::Round(1, 1, now)
            } else {
                Phase::Seek(ttl + 1, None)
            };
    }

    fn send(&mut self, ttl: u8, now: Monotonic) -> Step {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.slots[usize::from(number) % SLOTS] = Slot {
            sent: now,
            number,
            ttl,
            waiting: true,
        };
        self.hops[usize::from(ttl) - 1].sent += 1;
        let mut bytes = [0; MESSAGE_LEN];
        let TraceConfig {
            transport, cookie, ..
        } = self.config;
        let len = message::emit(transport, cookie, number, &mut bytes);
        Step::Send(Outgoing {
            ttl,
            number,
            bytes,
            len,
        })
    }

    /// The number of the message that `from` most likely means where it quotes nothing: the oldest that
    /// waits at a hop where it has answered before, else the one whose hop is being looked for.
    fn attribute(&self, now: Monotonic, from: IpAddr) -> Option<u16> {
        let waits = |s: &&Slot| s.waiting && now.saturating_since(s.sent) <= PATIENCE_NS;
        let at = |s: &&Slot| {
            let hop = &self.hops[usize::from(s.ttl) - 1];
            hop.addresses.contains(&from)
        };
        let known = self.slots.iter().filter(waits).filter(at);
        if let Some(slot) = known.min_by_key(|s| s.sent) {
            return Some(slot.number);
        }
        let Phase::Seek(ttl, Some(_)) = self.phase else {
            return None;
        };
        // A hop that was found already, answering twice, is not the next one.
        let found = self.hops.iter().any(|h| h.addresses.contains(&from));
        let mut waiting = self.slots.iter().filter(waits);
        let slot = waiting.find(|s| s.ttl == ttl).filter(|_| !found)?;
        Some(slot.number)
    }
}

#[cfg(test)]
mod tests;
