//! A minute of a line's load, with what probes waited meanwhile.

use crate::stats::histogram::Histogram;
use crate::varint::{Reader, Writer};

/// Version of the format.
const VERSION: u64 = 1;
/// Bytes that a minute takes at most.
pub const MAX_ENCODED_MINUTE: usize = 16 << 10;
/// Values are rounded to a 16th of an octave (3 %) before they are counted: they spread over so many
/// octaves that rows would grow to kilobytes.
const KEPT_BITS: u32 = 4;

/// How much a line carries, of what it was seen to carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Next to nothing: below a twentieth, or 100 kbit/s.
    Idle,
    /// Something.
    Part,
    /// Three quarters or more.
    Full,
}

impl Class {
    /// All of them, in the order in which they are written.
    pub const ALL: [Self; 3] = [Self::Idle, Self::Part, Self::Full];
}

/// One direction of a minute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MinuteWay {
    /// Rates of its seconds, bit/s, without those in which a test of our own ran.
    pub rate_bps: Histogram,
    /// Queueing delay of probes, ns, by what the line carried in their second ([`Class::ALL`]).
    pub queue_ns: [Histogram; 3],
    /// Seconds through which its queue stood.
    pub standing_s: u32,
}

impl MinuteWay {
    const fn new() -> Self {
        Self {
            rate_bps: Histogram::new(),
            queue_ns: [const { Histogram::new() }; 3],
            standing_s: 0,
        }
    }

    /// The rate of one more second, bit/s.
    pub fn add_rate(&mut self, rate_bps: u64) {
        self.rate_bps.add(rounded(rate_bps));
    }

    /// What one more probe waited in a second of `class`, ns.
    pub fn add_queue(&mut self, class: Class, queue_ns: u64) {
        self.queue_ns[class as usize].add(rounded(queue_ns));
    }

    /// The queueing delay in seconds of one class.
    #[must_use]
    pub const fn queue(&self, class: Class) -> &Histogram {
        &self.queue_ns[class as usize]
    }

    /// That of another minute too, as [`Minute::encode`] writes it.
    fn merge_encoded(&mut self, r: &mut Reader<'_>) -> Option<()> {
        let standing_s = u32::try_from(r.unsigned()?).ok()?;
        self.standing_s = self.standing_s.saturating_add(standing_s);
        self.rate_bps.merge_encoded(r)?;
        self.queue_ns
            .iter_mut()
            .try_for_each(|h| h.merge_encoded(r))
    }
}

/// A minute, or several that were added up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Minute {
    /// Upward.
    pub up: MinuteWay,
    /// Downward.
    pub down: MinuteWay,
    /// Whether the interface's counters show everybody's traffic: only then is little load an idle
    /// line.
    pub sees_household: bool,
}

impl Minute {
    /// One without anything.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            up: MinuteWay::new(),
            down: MinuteWay::new(),
            sees_household: false,
        }
    }

    /// Writes it; gives how many bytes that took, `None` where there was no room.
    #[must_use]
    pub fn encode(&self, out: &mut [u8]) -> Option<usize> {
        let mut w = Writer::new(out);
        w.unsigned(VERSION);
        w.unsigned(self.sees_household.into());
        for way in [&self.up, &self.down] {
            w.unsigned(way.standing_s.into());
            way.rate_bps.encode(&mut w);
            way.queue_ns.iter().for_each(|h| h.encode(&mut w));
        }
        w.finish()
    }

    /// Reads what [`Minute::encode`] wrote; `None` where the bytes are not such a thing.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut minute = Self::new();
        minute.merge_encoded(bytes)?;
        Some(minute)
    }

    /// Adds what [`Minute::encode`] wrote, at a fraction of what decoding it would cost; whether the
    /// household is seen is taken from it. `None` where the bytes are not such a thing; what was read
    /// before that became apparent has been added.
    #[must_use]
    pub fn merge_encoded(&mut self, bytes: &[u8]) -> Option<()> {
        let mut r = Reader::new(bytes);
        if r.unsigned()? != VERSION {
            return None;
        }
        self.sees_household = match r.unsigned()? {
            0 => false,
            1 => true,
            _ => return None,
        };
        self.up.merge_encoded(&mut r)?;
        self.down.merge_encoded(&mut r)?;
        r.rest().is_empty().then_some(())
    }
}

/// The middle of those values that have the leading digits of `value`.
const fn rounded(value: u64) -> u64 {
    let bits = u64::BITS - value.leading_zeros();
    if bits <= KEPT_BITS + 1 {
        return value;
    }
    let less = bits - KEPT_BITS - 1;
    (value >> less << less) | (1 << (less - 1))
}
