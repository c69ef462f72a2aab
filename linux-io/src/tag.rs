//! What `user_data` of the ring says: which operation a completion belongs to.

/// The kinds of operation on the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Op {
    /// Multishot receive of a socket.
    Receive = 1,
    /// Multishot poll of a socket's error queue.
    ErrorPoll = 2,
    /// A send whose success is not reported; its key is in the tag.
    QuietSend = 3,
    /// A send that holds its slot until it completes; `index` is the slot.
    SlotSend = 4,
    /// Read of the waker's event counter.
    Waker = 5,
    /// The timer of kernels without absolute wait.
    Timer = 6,
    /// Nobody waits for it: cancellations, timer updates.
    Ignored = 7,
    /// Multishot accept of a listening socket.
    Accept = 8,
    /// Connecting a stream, or writing its first bytes.
    StreamOpen = 9,
    /// Handing a stream's bytes over.
    StreamSend = 10,
    /// Receiving a stream's bytes.
    StreamReceive = 11,
    /// Writing a note of a stream's receiver.
    StreamNote = 12,
    /// As [`Op::QuietSend`], of several datagrams; the key is the first one's.
    JoinedSend = 13,
    /// As [`Op::QuietSend`], of one datagram that the kernel looks at as the first of several: that the socket's option
    /// would take apart if it were longer.
    UsualSend = 14,
}

/// An operation, its place in a table, that place's generation, and 32 bits of the operation's own.
///
/// Bits: 60–63 operation, 44–59 index, 32–43 generation, 0–31 key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    pub(crate) op: Op,
    pub(crate) index: u16,
    pub(crate) generation: u16,
    pub(crate) key: u32,
}

/// Generations count modulo this.
pub(crate) const GENERATIONS: u16 = 1 << 12;

impl Tag {
    pub(crate) const fn new(op: Op, index: u16, generation: u16, key: u32) -> Self {
        Self {
            op,
            index,
            generation: generation % GENERATIONS,
            key,
        }
    }

    pub(crate) const fn pack(self) -> u64 {
        (self.op as u64) << 60
            | (self.index as u64) << 44
            | (self.generation as u64) << 32
            | self.key as u64
    }

    pub(crate) const fn unpack(bits: u64) -> Option<Self> {
        let op = match bits >> 60 {
            1 => Op::Receive,
            2 => Op::ErrorPoll,
            3 => Op::QuietSend,
            4 => Op::SlotSend,
            5 => Op::Waker,
            6 => Op::Timer,
            7 => Op::Ignored,
            8 => Op::Accept,
            9 => Op::StreamOpen,
            10 => Op::StreamSend,
            11 => Op::StreamReceive,
            12 => Op::StreamNote,
            13 => Op::JoinedSend,
            14 => Op::UsualSend,
            _ => return None,
        };
        Some(Self {
            op,
            index: (bits >> 44) as u16,
            generation: (bits >> 32) as u16 % GENERATIONS,
            key: bits as u32,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn tags_survive_packing(op in 1u64..=14, index in any::<u16>(), generation in 0..GENERATIONS, key in any::<u32>()) {
            let op = Tag::unpack(op << 60).unwrap().op;
            let tag = Tag::new(op, index, generation, key);
            prop_assert_eq!(Tag::unpack(tag.pack()), Some(tag));
        }

        #[test]
        fn unpacking_is_total(bits in any::<u64>()) {
            if let Some(tag) = Tag::unpack(bits) {
                prop_assert_eq!(tag.pack(), bits);
            }
        }
    }
}
