//! Blocks of samples: columns of one series, packed. What the store keeps.
//!
//! ```text
//! 0        magic  0xBB 0x01 (the second byte is the format's version)
//! 2        count  varint, number of samples, 1 to 2048
//! ..       columns, each: id u8, length varint, bytes (column.rs draws them)
//! end - 4  CRC-32C of everything before it, little-endian
//! ```
//!
//! A reader passes over columns whose id it does not know, and takes a column that is absent to be
//! zero throughout, so that later columns can be added. Every field of a [`Sample`] but its series
//! index comes back exactly.

mod column;

use column::Column;

use crate::limits::MAX_BLOCK_SAMPLES;
use crate::sample::{Flags, Sample, SeriesIndex, Status};
use crate::time::{ClockSource, Monotonic};
use crate::varint::{Reader, Writer, unzigzag, zigzag};

const MAGIC: [u8; 2] = [0xBB, 1];
const CHECKSUM: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);

/// Columns and their numbers in the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Id {
    /// The first sample's `seq`, its `sent` and the mean interval: three values, whatever `count` is.
    Frame = 0,
    /// `seq` minus that of the sample before minus 1, zigzag.
    Seq = 1,
    /// `sent` minus what the mean interval foretells from `seq`, zigzag.
    Sent = 2,
    Status = 3,
    Flags = 4,
    Size = 5,
    /// Of answered samples only.
    Rtt = 6,
    /// 1 where `raw_up_ns` is known.
    RawUpKnown = 7,
    /// Where known: minus the smallest in the block.
    RawUp = 8,
    /// 1 where `raw_down_ns` is known.
    RawDownKnown = 9,
    /// Where known: minus (`rtt_ns` − `raw_up_ns`), which is what it should be, zigzag.
    RawDown = 10,
    SendLate = 11,
    Errno = 12,
    /// `tx`, `rx`, `remote_rx` and `remote_tx`, two bits each from the lowest.
    Clocks = 13,
    /// 0 where not known, else the value plus 1; likewise the next two.
    TtlUp = 14,
    TtlDown = 15,
    TosSeen = 16,
    /// 1 where `rtt_ns` is there although the status says it is not answered, or the reverse.
    RttOdd = 17,
}

const IDS: usize = 18;

/// Why a block cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockError {
    /// It does not begin like a block.
    Magic,
    /// A version that this program does not know.
    Version(u8),
    /// It ends too early, or a number in it cannot be.
    Damaged,
    /// Its checksum is wrong.
    Checksum,
}

impl core::fmt::Display for BlockError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Magic => f.write_str("not a block of samples"),
            Self::Version(v) => write!(f, "block format version {v} is newer than this program"),
            Self::Damaged => f.write_str("damaged block of samples"),
            Self::Checksum => f.write_str("block of samples with a wrong checksum"),
        }
    }
}

impl core::error::Error for BlockError {}

/// Packs `samples`, 1 to [`MAX_BLOCK_SAMPLES`] of one series, into `out`. Gives the length of the
/// block; `None` where there are too many or too few, or `out` is too small.
pub fn encode(samples: &[Sample], out: &mut [u8]) -> Option<usize> {
    let (first, last) = (samples.first()?, samples.last()?);
    if samples.len() > MAX_BLOCK_SAMPLES {
        return None;
    }
    let frame = Frame::of(first, last);
    let mut w = Writer::new(out);
    w.bytes(&MAGIC);
    w.unsigned(samples.len() as u64);

    let each = samples.iter();
    let answered = samples.iter().filter(|s| s.rtt_ns.is_some());
    let up = samples.iter().filter_map(|s| s.raw_up_ns.map(|v| (s, v)));
    let down = samples.iter().filter_map(|s| s.raw_down_ns.map(|v| (s, v)));
    let before = core::iter::once(first.seq.wrapping_sub(1)).chain(samples.iter().map(|s| s.seq));

    column(
        &mut w,
        Id::Frame,
        [frame.seq, frame.sent, frame.interval].into_iter(),
    );
    column(
        &mut w,
        Id::Seq,
        each.clone()
            .zip(before)
            .map(|(s, b)| zigzag(s.seq.wrapping_sub(b).wrapping_sub(1) as i64)),
    );
    column(
        &mut w,
        Id::Sent,
        each.clone()
            .map(|s| zigzag(s.sent.as_nanos().wrapping_sub(frame.expected(s.seq)) as i64)),
    );
    column(&mut w, Id::Status, each.clone().map(|s| s.status as u64));
    column(
        &mut w,
        Id::Flags,
        each.clone().map(|s| u64::from(s.flags.bits())),
    );
    column(&mut w, Id::Size, each.clone().map(|s| u64::from(s.size)));
    column(
        &mut w,
        Id::RttOdd,
        each.clone()
            .map(|s| u64::from(s.rtt_ns.is_some() != s.status.is_answered())),
    );
    column(&mut w, Id::Rtt, answered.map(|s| s.rtt_ns.unwrap_or(0)));
    column(
        &mut w,
        Id::RawUpKnown,
        each.clone().map(|s| u64::from(s.raw_up_ns.is_some())),
    );
    // A sum modulo 2^64 keeps the order of near neighbours, which is all that packing needs.
    column(
        &mut w,
        Id::RawUp,
        up.map(|(_, v)| (v as u64).wrapping_add(1 << 63)),
    );
    column(
        &mut w,
        Id::RawDownKnown,
        each.clone().map(|s| u64::from(s.raw_down_ns.is_some())),
    );
    column(
        &mut w,
        Id::RawDown,
        down.map(|(s, v)| zigzag(v.wrapping_sub(expected_down(s)))),
    );
    column(
        &mut w,
        Id::SendLate,
        each.clone().map(|s| zigzag(s.send_late_ns)),
    );
    column(&mut w, Id::Errno, each.clone().map(|s| u64::from(s.errno)));
    column(
        &mut w,
        Id::Clocks,
        each.clone().map(|s| {
            s.tx_clock as u64
                | (s.rx_clock as u64) << 2
                | (s.remote_rx_clock as u64) << 4
                | (s.remote_tx_clock as u64) << 6
        }),
    );
    column(&mut w, Id::TtlUp, each.clone().map(|s| optional(s.ttl_up)));
    column(
        &mut w,
        Id::TtlDown,
        each.clone().map(|s| optional(s.ttl_down)),
    );
    column(&mut w, Id::TosSeen, each.map(|s| optional(s.tos_seen)));

    let sum = CHECKSUM.checksum(w.written());
    w.bytes(&sum.to_le_bytes());
    w.finish()
}

/// Opens a block; the samples come out in the order they went in, with series index 0.
///
/// # Errors
/// [`BlockError`] for whatever is not a whole, undamaged block of a known version.
pub fn decode(bytes: &[u8]) -> Result<Samples<'_>, BlockError> {
    if bytes.first() != Some(&MAGIC[0]) {
        return Err(BlockError::Magic);
    }
    let (body, sum) = bytes.split_last_chunk::<4>().ok_or(BlockError::Damaged)?;
    let version = *body.get(1).ok_or(BlockError::Damaged)?;
    if version != MAGIC[1] {
        return Err(BlockError::Version(version));
    }
    if CHECKSUM.checksum(body) != u32::from_le_bytes(*sum) {
        return Err(BlockError::Checksum);
    }
    Samples::open(&body[2..]).ok_or(BlockError::Damaged)
}

/// Writes one column: its id, its length and its bytes. Nothing where all values are 0.
fn column<I: Iterator<Item = u64> + Clone>(w: &mut Writer<'_>, id: Id, values: I) {
    if values.clone().all(|v| v == 0) {
        return;
    }
    w.u8(id as u8);
    w.unsigned(column::encoded_len(&values));
    column::encode(&values, w);
}

/// What `sent` is expected to be: a straight line through the block's first and last sample.
#[derive(Clone, Copy, Debug)]
struct Frame {
    seq: u64,
    sent: u64,
    interval: u64,
}

impl Frame {
    fn of(first: &Sample, last: &Sample) -> Self {
        let probes = last.seq.saturating_sub(first.seq);
        let span_ns = last.sent.saturating_since(first.sent);
        let interval = span_ns.checked_div(probes).unwrap_or(0);
        Self {
            seq: first.seq,
            sent: first.sent.as_nanos(),
            interval,
        }
    }

    fn expected(&self, seq: u64) -> u64 {
        self.sent
            .wrapping_add(seq.wrapping_sub(self.seq).wrapping_mul(self.interval))
    }
}

/// The way down is what the way up leaves of the round trip, unless a duplicate or a clamped
/// residence time says otherwise.
fn expected_down(s: &Sample) -> i64 {
    (s.rtt_ns.unwrap_or(0) as i64).wrapping_sub(s.raw_up_ns.unwrap_or(0))
}

fn optional(value: Option<u8>) -> u64 {
    value.map_or(0, |v| u64::from(v) + 1)
}

/// The samples of a block, one after the other.
///
/// A block whose checksum is right but whose numbers cannot be ends early; [`Samples::is_damaged`]
/// tells.
#[derive(Clone, Debug)]
pub struct Samples<'a> {
    left: usize,
    damaged: bool,
    frame: Frame,
    seq: u64,
    columns: [Column<'a>; IDS],
}

impl<'a> Samples<'a> {
    fn open(body: &'a [u8]) -> Option<Self> {
        let mut r = Reader::new(body);
        let count = usize::try_from(r.unsigned()?).ok()?;
        if count == 0 || count > MAX_BLOCK_SAMPLES {
            return None;
        }
        let mut parts: [Option<&[u8]>; IDS] = [None; IDS];
        while !r.rest().is_empty() {
            let id = usize::from(r.u8()?);
            let len = usize::try_from(r.unsigned()?).ok()?;
            let bytes = r.bytes(len)?;
            if let Some(part) = parts.get_mut(id) {
                if part.is_some() {
                    return None;
                }
                *part = Some(bytes);
            }
        }
        let open = |id: Id, count: usize| match parts[id as usize] {
            Some(bytes) => Column::open(bytes, count),
            None => Some(Column::constant(0)),
        };
        let ones = |id: Id| {
            let mut c = open(id, count)?;
            let mut ones = 0;
            for _ in 0..count {
                ones += usize::from(c.next()? == 1);
            }
            Some(ones)
        };
        let mut frame = open(Id::Frame, 3)?;
        let frame = Frame {
            seq: frame.next()?,
            sent: frame.next()?,
            interval: frame.next()?,
        };
        let answered = {
            let (mut status, mut odd) = (open(Id::Status, count)?, open(Id::RttOdd, count)?);
            let mut n = 0;
            for _ in 0..count {
                let status = u8::try_from(status.next()?)
                    .ok()
                    .and_then(Status::from_u8)?;
                n += usize::from(status.is_answered() != (odd.next()? == 1));
            }
            n
        };
        let c = |id| open(id, count);
        let columns = [
            Column::constant(0),
            c(Id::Seq)?,
            c(Id::Sent)?,
            c(Id::Status)?,
            c(Id::Flags)?,
            c(Id::Size)?,
            open(Id::Rtt, answered)?,
            c(Id::RawUpKnown)?,
            open(Id::RawUp, ones(Id::RawUpKnown)?)?,
            c(Id::RawDownKnown)?,
            open(Id::RawDown, ones(Id::RawDownKnown)?)?,
            c(Id::SendLate)?,
            c(Id::Errno)?,
            c(Id::Clocks)?,
            c(Id::TtlUp)?,
            c(Id::TtlDown)?,
            c(Id::TosSeen)?,
            c(Id::RttOdd)?,
        ];
        Some(Self {
            left: count,
            damaged: false,
            frame,
            seq: frame.seq.wrapping_sub(1),
            columns,
        })
    }

    /// Whether a number that cannot be has ended the block early.
    #[must_use]
    pub const fn is_damaged(&self) -> bool {
        self.damaged
    }

    fn read(&mut self) -> Option<Sample> {
        let mut get = |id: Id| self.columns[id as usize].next();
        let seq = self
            .seq
            .wrapping_add(1)
            .wrapping_add(unzigzag(get(Id::Seq)?) as u64);
        let sent = self
            .frame
            .expected(seq)
            .wrapping_add(unzigzag(get(Id::Sent)?) as u64);
        let status = u8::try_from(get(Id::Status)?)
            .ok()
            .and_then(Status::from_u8)?;
        let size = u16::try_from(get(Id::Size)?).ok()?;
        let mut s = Sample::lost(SeriesIndex(0), seq, Monotonic::from_nanos(sent), size);
        s.status = status;
        s.flags = Flags::from_bits(u8::try_from(get(Id::Flags)?).ok()?);
        if status.is_answered() != (get(Id::RttOdd)? == 1) {
            s.rtt_ns = Some(get(Id::Rtt)?);
        }
        if get(Id::RawUpKnown)? == 1 {
            s.raw_up_ns = Some(get(Id::RawUp)?.wrapping_sub(1 << 63) as i64);
        }
        if get(Id::RawDownKnown)? == 1 {
            let difference = unzigzag(get(Id::RawDown)?);
            s.raw_down_ns = Some(expected_down(&s).wrapping_add(difference));
        }
        s.send_late_ns = unzigzag(get(Id::SendLate)?);
        s.errno = u16::try_from(get(Id::Errno)?).ok()?;
        let clocks = get(Id::Clocks)?;
        let clock = |shift: u32| ClockSource::from_u8((clocks >> shift & 3) as u8);
        s.tx_clock = clock(0)?;
        s.rx_clock = clock(2)?;
        s.remote_rx_clock = clock(4)?;
        s.remote_tx_clock = clock(6)?;
        let mut octet = |id: Id| match get(id)? {
            0 => Some(None),
            v => u8::try_from(v - 1).ok().map(Some),
        };
        s.ttl_up = octet(Id::TtlUp)?;
        s.ttl_down = octet(Id::TtlDown)?;
        s.tos_seen = octet(Id::TosSeen)?;
        self.seq = seq;
        Some(s)
    }
}

impl Iterator for Samples<'_> {
    type Item = Sample;

    fn next(&mut self) -> Option<Sample> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let sample = self.read();
        if sample.is_none() {
            self.damaged = true;
            self.left = 0;
        }
        sample
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left))
    }
}

#[cfg(test)]
pub(crate) mod tests;
