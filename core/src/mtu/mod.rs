//! The largest packet that passes on the way to a host, and what becomes of larger ones.
//!
//! Messages of different sizes, none of which may be cut up on the way, go to the host. First the smallest
//! that each line has to pass, then the largest that the interface takes; where that one is not answered,
//! halving finds the largest that is. A size fails where a router says that it is too big (RFC 1191, RFC 8201),
//! or where none of some tries is answered. That nothing is heard may be plain loss as well, so at the end
//! the largest size that passes and the smallest that does not take turns for some rounds: only if nearly all
//! of the one are answered and none of the other do sizes vanish. A size that this host did not let out is none
//! that vanished on the way.
//!
//! Sizes are those of IP packets, header included, in bytes.

mod outcome;

use core::net::IpAddr;

use crate::drop_reason::DropReason;
use crate::time::Monotonic;
use crate::trace::Transport;
use crate::trace::message::{self, MESSAGE_LEN, Which};
use crate::wire::icmp::{Refusal, Report};
pub use outcome::{Outcome, is_upward};

/// Messages of one search at most.
pub const MAX_MESSAGES: usize = 128;
/// No search takes longer, ns: mostly it is less than a minute, but a line that loses much and answers slowly may make
/// each of those messages be waited for.
pub const LONGEST_SEARCH_NS: u64 = MAX_MESSAGES as u64 / TRIES as u64
    * (LONGEST_NS + (TRIES as u64 - 1) * UNHURRIED_NS)
    + TRIES as u64 * UNHURRIED_NS;
/// The largest size that is looked for: beyond it no line goes.
pub const MAX_SIZE: u16 = 9216;
/// Bytes of a UDP header.
const UDP_HEADER_LEN: usize = 8;
/// Where not even the smallest size that each line has to pass does, this one may.
const FLOOR: u16 = 96;
/// Tries of each size.
const TRIES: u8 = 3;
/// How long the last try of a size is waited for, ns: twice the slowest answer so far and this, at most so long.
const PATIENCE_NS: u64 = 300_000_000;
const LONGEST_NS: u64 = 3_000_000_000;
/// The same before there is an answer, ns.
const FIRST_PATIENCE_NS: u64 = 1_000_000_000;
/// Between two messages that may be answered at any time, ns.
const APART_NS: u64 = 200_000_000;
/// The same where what answers does so about once a second (RFC 1812 section 4.3.2.8), ns.
const UNHURRIED_NS: u64 = 1_050_000_000;
/// Rounds at the end, and how many of the size that passes have to be answered in them.
const ROUNDS: u8 = 10;
const ENOUGH: u8 = 8;

/// What is looked for, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SearchConfig {
    /// Where to.
    pub target: IpAddr,
    /// What is sent. Echoes are answered by messages of the same size, so both directions count, but for hosts that cut
    /// them; what a closed UDP port is sent is answered by a small one, so that only the way there does.
    pub transport: Transport,
    /// Random: tells our messages from everybody else's.
    pub cookie: u64,
    /// The size to begin with, one that passes; none: what each line has to pass.
    pub smallest: Option<u16>,
    /// The largest size that the interface takes.
    pub largest: u16,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this message now, not to be cut up.
    Send(Outgoing),
    /// Wait for answers, at most until then.
    Wait(Monotonic),
    /// It is over.
    End(Outcome),
}

/// A message to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Names it in [`Search::handle_unsent`].
    pub number: u16,
    /// Size of the IP packet, bytes.
    pub size: u16,
    head: [u8; MESSAGE_LEN],
    head_len: usize,
    len: usize,
}

impl Outgoing {
    /// Writes what is sent, an ICMP message or the payload of a UDP datagram, into `out`; gives its length,
    /// or `None` where `out` is too small for it.
    #[must_use]
    pub fn write(&self, out: &mut [u8]) -> Option<usize> {
        let out = out.get_mut(..self.len)?;
        out.fill(0);
        out.get_mut(..self.head_len)?
            .copy_from_slice(&self.head[..self.head_len]);
        Some(self.len)
    }
}

/// Why a size failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failed {
    Silent,
    /// This host did not let all tries out.
    Unsent,
    Told(Option<(IpAddr, u32)>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Begin,
    /// Tries of a size so far, and when the next is due.
    Try(u16, u8, Monotonic),
    /// The sizes that take turns, how many of them are sent, how many of the smaller ones were answered, and
    /// when the next is due.
    Turns(Turns),
    End(Outcome),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Turns {
    passes: u16,
    vanishes: u16,
    sent: u8,
    answered: u8,
    due: Monotonic,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    sent: Monotonic,
    size: u16,
    is_turn: bool,
    waiting: bool,
    /// This host did not let it out, though not for its size.
    is_refused: bool,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Search {
    config: SearchConfig,
    smallest: u16,
    low: Option<u16>,
    high: Option<(u16, Failed)>,
    phase: Phase,
    slots: [Slot; MAX_MESSAGES],
    next: u16,
    sent: u16,
    bytes: u64,
    /// The longest that an answer took, ns.
    slowest_ns: Option<u64>,
    /// Whether an echo was answered by less than was sent.
    is_cut: bool,
}

impl Search {
    /// A search that has not begun; sizes out of range are brought into it.
    #[must_use]
    pub fn new(config: SearchConfig) -> Self {
        let largest = config.largest.clamp(FLOOR, MAX_SIZE);
        // RFC 791 (what each host takes), RFC 8200 section 5.
        let least = if config.target.is_ipv4() { 576 } else { 1280 };
        let smallest = config.smallest.unwrap_or(least).max(FLOOR);
        Self {
            config: SearchConfig { largest, ..config },
            smallest: largest.min(smallest),
            low: None,
            high: None,
            phase: Phase::Begin,
            slots: [Slot::default(); MAX_MESSAGES],
            next: 0,
            sent: 0,
            bytes: 0,
            slowest_ns: None,
            is_cut: false,
        }
    }

    /// Whether what was found is about the way there only: what answers does so with less than it was sent.
    #[must_use]
    pub const fn is_there_only(&self) -> bool {
        self.is_cut || matches!(self.config.transport, Transport::Udp)
    }

    /// Bytes that were sent so far, IP headers included.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What to do at `now`.
    pub fn step(&mut self, now: Monotonic) -> Step {
        loop {
            match self.phase {
                Phase::Begin => self.phase = self.decide(now),
                Phase::End(outcome) => return Step::End(outcome),
                Phase::Try(size, ..) if self.is_known(size) => self.phase = Phase::Begin,
                Phase::Try(_, _, due) if now < due => return Step::Wait(due),
                Phase::Try(size, TRIES, _) => {
                    let why = if self.is_refused(size) {
                        Failed::Unsent
                    } else {
                        Failed::Silent
                    };
                    self.high = Some((size, why));
                    self.phase = Phase::Begin;
                }
                Phase::Try(size, tries, _) => {
                    let wait_ns = if tries + 1 == TRIES {
                        self.patience_ns().max(self.apart_ns())
                    } else {
                        self.apart_ns()
                    };
                    self.phase = Phase::Try(size, tries + 1, now.saturating_add(wait_ns));
                    if let Some(step) = self.send(now, size, false) {
                        return step;
                    }
                }
                Phase::Turns(t) => {
                    let same = self.low == Some(t.passes)
                        && self.high == Some((t.vanishes, Failed::Silent));
                    if !same {
                        self.phase = Phase::Begin;
                        continue;
                    }
                    if now < t.due {
                        return Step::Wait(t.due);
                    }
                    if t.sent == 2 * ROUNDS {
                        let is_clear = t.answered >= ENOUGH && !self.is_refused(t.vanishes);
                        self.phase = Phase::End(if is_clear {
                            Outcome::Silent {
                                passes: t.passes,
                                vanishes: t.vanishes,
                            }
                        } else {
                            Outcome::Unclear { passes: t.passes }
                        });
                        continue;
                    }
                    let wait_ns = if t.sent + 1 == 2 * ROUNDS {
                        self.patience_ns()
                    } else {
                        self.apart_ns()
                    };
                    let size = if t.sent.is_multiple_of(2) {
                        t.vanishes
                    } else {
                        t.passes
                    };
                    self.phase = Phase::Turns(Turns {
                        sent: t.sent + 1,
                        due: now.saturating_add(wait_ns),
                        ..t
                    });
                    if let Some(step) = self.send(now, size, true) {
                        return step;
                    }
                }
            }
        }
    }

    /// The message could not be sent. `is_too_big`: this host says that it is larger than its interface takes; else
    /// it may be for a filter or for want of room, which says nothing of the way.
    pub fn handle_unsent(&mut self, number: u16, is_too_big: bool) {
        let Some(slot) = self.slots.get_mut(usize::from(number)) else {
            return;
        };
        if !core::mem::take(&mut slot.waiting) {
            return;
        }
        let size = slot.size;
        self.sent -= 1;
        self.bytes = self.bytes.saturating_sub(size.into());
        slot.is_refused = !is_too_big;
        if is_too_big {
            self.fails(size, Failed::Told(None));
        } else if self.sent == 0 && self.next >= u16::from(TRIES) {
            self.phase = Phase::End(Outcome::Unsent);
        }
    }

    /// `from` says that a message was too big for where it was to go on, and that `mtu` bytes are not; `quoted`
    /// is the beginning of it (of the ICMP message, or of UDP's payload).
    ///
    /// # Errors
    /// Why it is not used: [`DropReason::Unmatched`] where it is about none of our messages.
    pub fn handle_too_big(
        &mut self,
        from: IpAddr,
        mtu: u32,
        quoted: &[u8],
    ) -> Result<(), DropReason> {
        let which = message::of_quoted(self.config.transport, self.config.cookie, quoted)?;
        let size = self.take(which)?.size;
        let told = Failed::Told(Some((from, mtu)));
        // A size that it names is one that passes there; whether it arrives is tried.
        match u16::try_from(mtu) {
            Ok(mtu) if mtu < size && self.low.is_none_or(|low| mtu >= low) && mtu >= FLOOR => {
                self.fails(mtu + 1, told);
            }
            _ => self.fails(size, told),
        }
        Ok(())
    }

    /// `from` reports at `now` what became of a message, of which `quoted` is the beginning: that nobody has the port
    /// there means that it arrived.
    ///
    /// # Errors
    /// As [`Search::handle_too_big`]; and [`DropReason::Type`] where it says nothing of sizes.
    pub fn handle_report(
        &mut self,
        now: Monotonic,
        from: IpAddr,
        report: Report,
        quoted: &[u8],
    ) -> Result<(), DropReason> {
        let is_arrival = report == Report::Unreachable(Refusal::Port) && from == self.config.target;
        if !is_arrival || self.config.transport != Transport::Udp {
            return Err(DropReason::Type);
        }
        let which = message::of_quoted(self.config.transport, self.config.cookie, quoted)?;
        self.passed(now, which).map(drop)
    }

    /// An ICMP message of `whole_len` bytes, without an IP header, came from `from` at `now`; of a long one the
    /// beginning is enough.
    ///
    /// A reply has to be as long as what it answers (RFC 792, RFC 4443 section 4.2), but some hosts cut it. Then the
    /// size has passed on the way there, and from then on the search is about that way only.
    ///
    /// # Errors
    /// As [`Search::handle_too_big`].
    pub fn handle_reply(
        &mut self,
        now: Monotonic,
        from: IpAddr,
        message: &[u8],
        whole_len: usize,
    ) -> Result<(), DropReason> {
        let which = message::of_reply(self.config.transport, self.config.cookie, message)?;
        if from != self.config.target {
            return Err(DropReason::Unmatched);
        }
        let size = self.passed(now, which)?;
        self.is_cut |= whole_len < usize::from(size) - self.header_len();
        Ok(())
    }

    const fn apart_ns(&self) -> u64 {
        match self.config.transport {
            Transport::Echo { .. } => APART_NS,
            Transport::Udp => UNHURRIED_NS,
        }
    }

    fn patience_ns(&self) -> u64 {
        self.slowest_ns.map_or(FIRST_PATIENCE_NS, |ns| {
            (2 * ns).saturating_add(PATIENCE_NS).min(LONGEST_NS)
        })
    }

    fn is_known(&self, size: u16) -> bool {
        self.low.is_some_and(|low| low >= size) || self.high.is_some_and(|(high, _)| high <= size)
    }

    /// Whether a message of this size was not let out.
    fn is_refused(&self, size: u16) -> bool {
        let mut sent = self.slots.iter().take(self.next.into());
        sent.any(|s| s.size == size && s.is_refused)
    }

    /// What is to be found out next.
    fn decide(&self, now: Monotonic) -> Phase {
        let size = match (self.low, self.high) {
            (None, None) => self.smallest,
            (None, Some((high, _))) if high > self.smallest => self.smallest,
            (None, Some((high, _))) if high > FLOOR => FLOOR,
            (None, Some(_)) => return Phase::End(Outcome::NoAnswer),
            (Some(low), None) if low >= self.config.largest => {
                return Phase::End(Outcome::Whole { passes: low });
            }
            (Some(_), None) => self.config.largest,
            (Some(low), Some((high, failed))) => match (high - low, failed) {
                (_, Failed::Unsent) => return Phase::End(Outcome::Unclear { passes: low }),
                // Most likely it is as the router says.
                (2.., Failed::Told(Some((_, mtu)))) if mtu == u32::from(high - 1) => high - 1,
                (2.., _) => low + (high - low) / 2,
                (_, Failed::Told(by)) => {
                    return Phase::End(Outcome::Told { passes: low, by });
                }
                (_, Failed::Silent) => {
                    return Phase::Turns(Turns {
                        passes: low,
                        vanishes: high,
                        sent: 0,
                        answered: 0,
                        due: now,
                    });
                }
            },
        };
        Phase::Try(size, 0, now)
    }

    /// The message that is meant, which waits no longer.
    fn take(&mut self, which: Which) -> Result<Slot, DropReason> {
        let slot = match which {
            Which::Number(number) => self.slots.get_mut(usize::from(number)),
            // Which it was is not said: the one that is tried now.
            Which::Any => {
                let latest = usize::from(self.next).checked_sub(1);
                latest.and_then(|i| self.slots.get_mut(i))
            }
        };
        let slot = slot.filter(|s| s.waiting).ok_or(DropReason::Unmatched)?;
        slot.waiting = false;
        Ok(*slot)
    }

    /// The message that is meant was answered; gives its size.
    fn passed(&mut self, now: Monotonic, which: Which) -> Result<u16, DropReason> {
        let Slot {
            sent,
            size,
            is_turn,
            ..
        } = self.take(which)?;
        self.slowest_ns = self.slowest_ns.max(Some(now.saturating_since(sent)));
        self.low = self.low.max(Some(size));
        // It was loss and no matter of the size.
        if self.high.is_some_and(|(high, _)| high <= size) {
            self.high = None;
        }
        if let Phase::Turns(t) = &mut self.phase
            && is_turn
            && size == t.passes
        {
            t.answered += 1;
        }
        Ok(size)
    }

    fn fails(&mut self, size: u16, why: Failed) {
        // What has passed before does not fail for its size.
        let is_news = self.low.is_none_or(|low| size > low)
            && self.high.is_none_or(|(high, before)| {
                size < high || (size == high && !matches!(before, Failed::Told(_)))
            });
        if is_news {
            self.high = Some((size, why));
        }
    }

    /// The message to send; none where there were too many, and it is over.
    fn send(&mut self, now: Monotonic, size: u16, is_turn: bool) -> Option<Step> {
        let number = self.next;
        let Some(slot) = self.slots.get_mut(usize::from(number)) else {
            let passes = self.low;
            self.phase =
                Phase::End(passes.map_or(Outcome::NoAnswer, |passes| Outcome::Unclear { passes }));
            return None;
        };
        *slot = Slot {
            sent: now,
            size,
            is_turn,
            waiting: true,
            is_refused: false,
        };
        self.next += 1;
        self.sent += 1;
        self.bytes += u64::from(size);
        let mut head = [0; MESSAGE_LEN];
        let SearchConfig {
            transport, cookie, ..
        } = self.config;
        let head_len = message::emit(transport, cookie, number, &mut head);
        Some(Step::Send(Outgoing {
            number,
            size,
            head,
            head_len,
            len: usize::from(size) - self.header_len(),
        }))
    }

    /// Bytes of the packet before what the sender writes.
    const fn header_len(&self) -> usize {
        let ip = if self.config.target.is_ipv4() { 20 } else { 40 };
        match self.config.transport {
            Transport::Echo { .. } => ip,
            Transport::Udp => ip + UDP_HEADER_LEN,
        }
    }
}

const _: () = assert!(FLOOR as usize >= 40 + UDP_HEADER_LEN + MESSAGE_LEN);

#[cfg(test)]
mod tests;
