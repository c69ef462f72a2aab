//! A close look at a host: quick echoes for some seconds, and what became of them.
//!
//! A series of one probe a second knows an edge to a second. When something looks wrong, a short series of its own
//! shows more: an echo in each slot of [`INTERVAL_NS`], [`ECHOES`] of them. A slot that the driver missed is left out:
//! echoes that were made up for in a row would be a load of their own. What is not answered within
//! [`PATIENCE_NS`] counts as unanswered.
//!
//! Hosts answer echoes when they like, and many answer only so many a second. So what is unanswered here is no loss
//! of the line by itself; [`is_limited`] tells by the regular pings of the same time that it was not.

use core::net::IpAddr;

use crate::drop_reason::DropReason;
use crate::time::Monotonic;
use crate::trace::Transport;
use crate::trace::message::{self, MESSAGE_LEN, Which};

/// One echo in each slot of this length, ns.
pub const INTERVAL_NS: u64 = 50_000_000;
/// Echoes of a look.
pub const ECHOES: usize = 200;
/// From the first slot's begin to the last one's end, ns.
pub const SPAN_NS: u64 = INTERVAL_NS * ECHOES as u64;
/// An echo that is not answered after this long is unanswered, ns.
pub const PATIENCE_NS: u64 = 2_000_000_000;
/// Bytes of the ICMP message, header included: those of a regular ping where nothing else is configured.
pub const MESSAGE_BYTES: usize = 64;
/// Echoes are counted by stretches of so many slots: half a second.
pub const BIN_ECHOES: usize = 10;
/// Such stretches of a look.
pub const BINS: usize = ECHOES / BIN_ECHOES;
/// So many regular pings are needed to say that a host limits its answers.
const ENOUGH_REGULAR: u64 = 5;
/// That they were all answered by chance has to be less likely than one in this.
const CHANCE: f64 = 100.0;

const _: () = assert!(ECHOES.is_multiple_of(BIN_ECHOES) && MESSAGE_BYTES >= MESSAGE_LEN);

/// What a look to `target` sends at most, IP headers included, bytes.
#[must_use]
pub const fn most_bytes(target: IpAddr) -> u64 {
    packet_bytes(target) * ECHOES as u64
}

/// Bytes of an echo to `target`, IP header included.
#[must_use]
pub const fn packet_bytes(target: IpAddr) -> u64 {
    let header = if target.is_ipv4() { 20 } else { 40 };
    header + MESSAGE_BYTES as u64
}

/// What is looked at, and by which echoes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LookConfig {
    /// The host.
    pub target: IpAddr,
    /// Which echoes; nothing answers what is sent over UDP.
    pub transport: Transport,
    /// Random: tells our echoes from everybody else's.
    pub cookie: u64,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this echo now.
    Send(Outgoing),
    /// Wait for answers, at most until then.
    Wait(Monotonic),
    /// It is over.
    End,
}

/// An echo to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Names it in [`Look::handle_unsent`].
    pub number: u16,
    bytes: [u8; MESSAGE_BYTES],
}

impl Outgoing {
    /// The ICMP message.
    #[must_use]
    pub const fn message(&self) -> &[u8] {
        &self.bytes
    }
}

/// What became of the echo of a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Fate {
    /// There was none: the driver came too late.
    #[default]
    Missed,
    /// This host did not let it out.
    Unsent,
    /// Not answered so far.
    Waiting,
    /// After so many ns.
    Answered(u64),
    /// Somebody on the way, or the host, says that it does not get there.
    Refused,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    sent: Monotonic,
    fate: Fate,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Look {
    config: LookConfig,
    begun: Monotonic,
    next: usize,
    slots: [Slot; ECHOES],
}

impl Look {
    /// A look whose first slot begins at `begun`.
    #[must_use]
    pub const fn new(config: LookConfig, begun: Monotonic) -> Self {
        const NONE: Slot = Slot {
            sent: Monotonic::ZERO,
            fate: Fate::Missed,
        };
        Self {
            config,
            begun,
            next: 0,
            slots: [NONE; ECHOES],
        }
    }

    /// What to do at `now`.
    pub fn step(&mut self, now: Monotonic) -> Step {
        if self.next < ECHOES {
            let due = self.begun.saturating_add(INTERVAL_NS * self.next as u64);
            if now < due {
                return Step::Wait(due);
            }
            let slot = now.saturating_since(self.begun) / INTERVAL_NS;
            match usize::try_from(slot) {
                Ok(slot) if slot < ECHOES => return self.send(now, slot),
                _ => self.next = ECHOES,
            }
        }
        let waits = self.slots.iter().rfind(|s| s.fate == Fate::Waiting);
        let until = waits.map(|s| s.sent.saturating_add(PATIENCE_NS));
        until
            .filter(|until| now < *until)
            .map_or(Step::End, Step::Wait)
    }

    fn send(&mut self, now: Monotonic, slot: usize) -> Step {
        self.next = slot + 1;
        self.slots[slot] = Slot {
            sent: now,
            fate: Fate::Waiting,
        };
        let number = slot as u16;
        let mut head = [0; MESSAGE_LEN];
        let len = message::emit(self.config.transport, self.config.cookie, number, &mut head);
        // Zeros behind it leave its checksum as it is.
        let mut bytes = [0; MESSAGE_BYTES];
        bytes[..len].copy_from_slice(&head[..len]);
        Step::Send(Outgoing { number, bytes })
    }

    /// This host did not let the echo out, so it cannot be unanswered.
    pub fn handle_unsent(&mut self, number: u16) {
        if let Some(slot) = self.waiting(number) {
            slot.fate = Fate::Unsent;
        }
    }

    /// An ICMP message, without an IP header, came from `from` at `now`.
    ///
    /// # Errors
    /// Why it is not used: [`DropReason::Unmatched`] where it answers none of our echoes, or one that was answered
    /// before or has been given up.
    pub fn handle_reply(
        &mut self,
        now: Monotonic,
        from: IpAddr,
        reply: &[u8],
    ) -> Result<(), DropReason> {
        let which = message::of_reply(self.config.transport, self.config.cookie, reply)?;
        if from != self.config.target {
            return Err(DropReason::Unmatched);
        }
        let slot = self.of(which)?;
        let rtt_ns = now.saturating_since(slot.sent);
        if rtt_ns > PATIENCE_NS {
            return Err(DropReason::Unmatched);
        }
        slot.fate = Fate::Answered(rtt_ns);
        Ok(())
    }

    /// Somebody reports that an echo, of which `quoted` is the beginning, does not get there.
    ///
    /// # Errors
    /// As [`Look::handle_reply`].
    pub fn handle_refused(&mut self, quoted: &[u8]) -> Result<(), DropReason> {
        let which = message::of_quoted(self.config.transport, self.config.cookie, quoted)?;
        self.of(which)?.fate = Fate::Refused;
        Ok(())
    }

    fn of(&mut self, which: Which) -> Result<&mut Slot, DropReason> {
        match which {
            Which::Number(number) => self.waiting(number).ok_or(DropReason::Unmatched),
            Which::Any => Err(DropReason::Unmatched),
        }
    }

    fn waiting(&mut self, number: u16) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(usize::from(number))?;
        (slot.fate == Fate::Waiting).then_some(slot)
    }

    /// What was found so far; what still waits counts as unanswered.
    #[must_use]
    pub fn found(&self) -> Found {
        let mut found = Found::default();
        let mut rtts = [0; ECHOES];
        let mut run: Option<Silence> = None;
        for (i, slot) in self.slots.iter().enumerate() {
            let bin = &mut found.bins[i / BIN_ECHOES];
            match slot.fate {
                Fate::Missed => continue,
                Fate::Unsent => {
                    found.unsent += 1;
                    continue;
                }
                Fate::Waiting => {}
                Fate::Answered(rtt_ns) => {
                    if let Some(slot) = rtts.get_mut(found.answered as usize) {
                        *slot = rtt_ns;
                    }
                    found.answered += 1;
                    bin.answered += 1;
                }
                Fate::Refused => found.refused += 1,
            }
            found.sent += 1;
            bin.sent += 1;
            if matches!(slot.fate, Fate::Answered(_)) {
                if let Some(open) = run.take() {
                    found.close(open.until(slot.sent));
                }
            } else {
                let open = run.get_or_insert(Silence {
                    from: slot.sent,
                    lasted_ns: 0,
                });
                // Until something else is known: it lasts as long as its slots.
                *open = open.until(slot.sent.saturating_add(INTERVAL_NS));
            }
        }
        if let Some(open) = run {
            found.close(open);
        }
        found.rtt = Rtt::of(&mut rtts[..found.answered as usize]);
        found
    }
}

/// What a look found. Figures of echoes that were sent: those of slots that the driver missed are nowhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Echoes that left.
    pub sent: u64,
    /// Of these, the answered.
    pub answered: u64,
    /// Of the others, those of which somebody said that they do not get there.
    pub refused: u64,
    /// Echoes that this host did not let out; they are not among the sent.
    pub unsent: u64,
    /// How often one or more in a row were unanswered.
    pub runs: u64,
    /// The longest of these runs, the first of equals.
    pub silence: Option<Silence>,
    /// Round-trip times of the answered.
    pub rtt: Option<Rtt>,
    /// The same by half seconds.
    pub bins: [Bin; BINS],
}

impl Found {
    fn close(&mut self, run: Silence) {
        self.runs += 1;
        if self.silence.is_none_or(|s| s.lasted_ns < run.lasted_ns) {
            self.silence = Some(run);
        }
    }
}

/// Echoes of half a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bin {
    /// Those that left.
    pub sent: u64,
    /// Of these, the answered.
    pub answered: u64,
}

/// A stretch without an answer: from when the first unanswered echo was sent until the next answered one was; where there
/// is none, until a slot's length after the last one that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence {
    /// When it began.
    pub from: Monotonic,
    /// How long it lasted, ns.
    pub lasted_ns: u64,
}

impl Silence {
    const fn until(self, end: Monotonic) -> Self {
        Self {
            lasted_ns: end.saturating_since(self.from),
            ..self
        }
    }
}

/// Round-trip times, ns; percentiles are the nearest rank's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rtt {
    /// The shortest.
    pub min_ns: u64,
    /// The median.
    pub median_ns: u64,
    /// The 95th percentile.
    pub p95_ns: u64,
    /// The longest.
    pub max_ns: u64,
}

impl Rtt {
    fn of(rtts: &mut [u64]) -> Option<Self> {
        rtts.sort_unstable();
        let at = |percent: usize| rtts.get((rtts.len() * percent).div_ceil(100).max(1) - 1);
        Some(Self {
            min_ns: *rtts.first()?,
            median_ns: *at(50)?,
            p95_ns: *at(95)?,
            max_ns: *rtts.last()?,
        })
    }
}

/// Whether a host answers only so many echoes a second: `answered` of `sent` quick ones were, and all of the `regular`
/// pings of the same time, which on a line that loses as much would happen less than once in a hundred times.
#[must_use]
pub fn is_limited(sent: u64, answered: u64, regular: Regular) -> bool {
    if sent == 0 || regular.sent < ENOUGH_REGULAR || regular.answered < regular.sent {
        return false;
    }
    let share = answered.min(sent) as f64 / sent as f64;
    let mut chance = 1.0;
    for _ in 0..regular.sent.min(ECHOES as u64) {
        chance *= share;
    }
    chance * CHANCE < 1.0
}

/// What became of the regular pings of the host in the time of a look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Regular {
    /// Those that were sent.
    pub sent: u64,
    /// Of these, the answered.
    pub answered: u64,
}

#[cfg(test)]
mod tests;
