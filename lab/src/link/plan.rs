//! What a line is meant to do to packets.

use std::net::IpAddr;

/// Most far hosts that a plan may name.
pub(super) const MOST_NAMED: usize = 4;

/// What one direction does to packets that arrive while this holds. Zero and `None` leave a part
/// out, so `Direction::delay(..)` with a few fields changed says only what matters.
#[derive(Clone, Debug, PartialEq)]
pub struct Direction {
    /// Every packet takes this long, ns.
    pub delay_ns: u64,
    /// Up to this much is added to the delay of each packet, evenly distributed, ns. Packets stay in
    /// order.
    pub jitter_ns: u64,
    /// Bits per second; 0 is without limit.
    pub rate_bps: u64,
    /// What may pass in the long run, where `rate_bps` holds for bursts only.
    pub bucket: Option<Bucket>,
    /// Packets may leave at grants only.
    pub grants: Option<Grants>,
    /// Bytes that may wait; what does not fit is dropped.
    pub buffer_bytes: u64,
    /// A packet that would have to wait longer than this is dropped, ns; 0 is without limit.
    pub buffer_ns: u64,
    /// Larger IP packets vanish, bytes; 0 is without limit.
    pub largest_bytes: u64,
    /// Share of packets lost, each by itself, per million.
    pub loss_ppm: u32,
    /// Losses in runs.
    pub bursts: Option<Bursts>,
    /// Everything is lost.
    pub outage: bool,
    /// Everything is lost now and then.
    pub outages: Option<Outages>,
    /// Share of packets held back by `reorder_ns` while others pass them, per million.
    pub reorder_ppm: u32,
    /// See `reorder_ppm`, ns.
    pub reorder_ns: u64,
    /// Share of packets that are delivered twice, per million.
    pub duplicate_ppm: u32,
    /// What is changed in the headers.
    pub rewrite: Rewrite,
    /// All this is done to packets from and to these far hosts, and the others only take `delay_ns`; where none is
    /// named, it is done to all.
    pub only: [Option<IpAddr>; MOST_NAMED],
}

/// A token bucket: bursts pass at the line's rate until the bucket is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// How fast it fills, bits per second.
    pub sustained_bps: u64,
    /// How much it holds, bytes.
    pub burst_bytes: u64,
}

/// Request and grant, as a DOCSIS upstream has it: a packet asks when it arrives, and leaves at the
/// first grant that comes at least `lead_ns` later, together with all others that have asked by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grants {
    /// From one grant to the next, ns; a MAP interval is 2 ms on many lines.
    pub every_ns: u64,
    /// From the request to the earliest grant for it, ns.
    pub lead_ns: u64,
}

/// Losses after Gilbert and Elliott: a good state without losses, and a bad one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bursts {
    /// Chance of each packet in the good state to begin a bad one, per million.
    pub begin_ppm: u32,
    /// How many packets a bad state lasts on average.
    pub mean_packets: u32,
    /// Share of packets lost in the bad state, per million.
    pub loss_ppm: u32,
}

/// Outages that come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outages {
    /// From the start of the link until the first, ns.
    pub first_ns: u64,
    /// From the begin of one to the begin of the next, ns; 0: there is only the first.
    pub every_ns: u64,
    /// How long each lasts, ns.
    pub length_ns: u64,
}

impl Outages {
    /// Whether there is one `since_start_ns` after the start of the link.
    #[must_use]
    pub const fn covers(&self, since_start_ns: u64) -> bool {
        let Some(since_first) = since_start_ns.checked_sub(self.first_ns) else {
            return false;
        };
        let since_begin = match self.every_ns {
            0 => since_first,
            every => since_first % every,
        };
        since_begin < self.length_ns
    }
}

/// Changes of the IP header on the way: bleaching, and hops more than there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// What is left of the TOS or traffic class; all ones: everything.
    pub tos_keep: u8,
    /// What is set in it afterwards.
    pub tos_set: u8,
    /// How much is taken from the TTL or hop limit, which stays at least 1.
    pub ttl_less: u8,
}

impl Rewrite {
    /// Nothing is changed.
    pub const NONE: Self = Self {
        tos_keep: 0xff,
        tos_set: 0,
        ttl_less: 0,
    };

    /// The DSCP is cleared and ECN left alone.
    pub const BLEACH_DSCP: Self = Self {
        tos_keep: 0x03,
        ..Self::NONE
    };
}

impl Direction {
    /// Only a delay, ns.
    #[must_use]
    pub const fn delay(delay_ns: u64) -> Self {
        Self {
            delay_ns,
            jitter_ns: 0,
            rate_bps: 0,
            bucket: None,
            grants: None,
            buffer_bytes: 1 << 20,
            buffer_ns: 0,
            largest_bytes: 0,
            loss_ppm: 0,
            bursts: None,
            outage: false,
            outages: None,
            reorder_ppm: 0,
            reorder_ns: 0,
            duplicate_ppm: 0,
            rewrite: Rewrite::NONE,
            only: [None; MOST_NAMED],
        }
    }

    /// Whether nothing is done to packets from and to this far host.
    pub(super) fn spares(&self, far: IpAddr) -> bool {
        self.only.iter().any(Option::is_some) && !self.only.contains(&Some(far))
    }

    /// Whether packets may have to wait.
    pub(super) const fn queues(&self) -> bool {
        self.rate_bps > 0 || self.bucket.is_some() || self.grants.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outages_come_back_where_they_should() {
        let once = Outages {
            first_ns: 100,
            every_ns: 0,
            length_ns: 10,
        };
        let covered = |o: Outages| (0..1000).filter(|&t| o.covers(t)).collect::<Vec<u64>>();
        assert_eq!(covered(once), (100..110).collect::<Vec<u64>>());
        let again = Outages {
            every_ns: 400,
            ..once
        };
        let expected: Vec<u64> = (100..110).chain(500..510).chain(900..910).collect();
        assert_eq!(covered(again), expected);
    }
}
