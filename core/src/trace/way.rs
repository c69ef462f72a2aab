//! Whether two walks went the same way.
//!
//! Routers answer when they like, so silence says nothing: only where two routers answer from the same
//! distance and are not the same one has the way changed. Walks are comparable because their messages
//! are of one flow, the same from walk to walk ([`flow_cookie`]).

use core::net::IpAddr;

/// The port or identifier that the messages of walks are sent with where it is free, so that load balancers
/// see one flow every time.
pub const FLOW: u16 = 33433;

/// What a walk says of the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Against {
    /// Nothing speaks against the same way, and it was seen as far as before.
    Same,
    /// Nothing speaks against the same way as far as it was seen, which is less far than before.
    Shorter,
    /// From this hop on (from 1) it is another way.
    Other(u8),
}

/// Compares a walk with one before it. Each is the addresses that answered at each hop, the nearest
/// first, and whether the last hop is the target.
#[must_use]
pub fn against<H: AsRef<[IpAddr]>>(before: (&[H], bool), after: (&[H], bool)) -> Against {
    let (old, new) = (before.0, after.0);
    let number = |i: usize| u8::try_from(i + 1).unwrap_or(u8::MAX);
    for (i, (a, b)) in old.iter().zip(new).enumerate() {
        let (a, b) = (a.as_ref(), b.as_ref());
        if !a.is_empty() && !b.is_empty() && !a.iter().any(|x| b.contains(x)) {
            return Against::Other(number(i));
        }
    }
    if before.1 && after.1 && old.len() != new.len() {
        // The target is nearer or farther than it was, behind routers that said nothing.
        return Against::Other(number(old.len().min(new.len()) - 1));
    }
    if reach(new) < reach(old) {
        Against::Shorter
    } else {
        Against::Same
    }
}

/// The last hop that answered, from 1; 0 where none did.
#[must_use]
pub fn reach<H: AsRef<[IpAddr]>>(hops: &[H]) -> usize {
    let last = hops.iter().rposition(|h| !h.as_ref().is_empty());
    last.map_or(0, |i| i + 1)
}

/// A cookie for a trace, of 32 random bits, whose messages have the checksum of every other such
/// trace's: each of its 16-bit words has its complement beside it. So load balancers see one flow from
/// walk to walk, and an answer to an earlier walk is not taken for one to this.
#[must_use]
pub const fn flow_cookie(random: u32) -> u64 {
    ((random as u64) << 32) | (!random as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Transport;
    use crate::trace::message::{MESSAGE_LEN, emit};
    use crate::wire::icmp::{Version, checksum};
    use proptest::prelude::*;
    use std::vec::Vec;

    fn way(hops: &[&[u8]]) -> Vec<Vec<IpAddr>> {
        let of = |hop: &&[u8]| hop.iter().map(|n| IpAddr::from([10, 0, 0, *n])).collect();
        hops.iter().map(of).collect()
    }

    #[test]
    fn only_another_router_at_the_same_distance_is_another_way() {
        let old = way(&[&[1], &[2], &[], &[4], &[9]]);
        let says = |new: &[&[u8]], target| against((&old, true), (&way(new), target));
        assert_eq!(says(&[&[1], &[2], &[3], &[4], &[9]], true), Against::Same);
        assert_eq!(says(&[&[1], &[], &[3], &[7, 4], &[9]], true), Against::Same);
        assert_eq!(says(&[&[1], &[2]], false), Against::Shorter);
        assert_eq!(says(&[], false), Against::Shorter);
        assert_eq!(says(&[&[1], &[5], &[3]], false), Against::Other(2));
        // One router less before the target, and one more.
        assert_eq!(says(&[&[1], &[2], &[], &[9]], true), Against::Other(4));
        assert_eq!(
            says(&[&[1], &[2], &[], &[], &[], &[9]], true),
            Against::Other(5)
        );
    }

    proptest! {
        #[test]
        fn silence_is_never_another_way(
            hops in proptest::collection::vec(proptest::collection::vec(0u8..9, 1..4), 1..20),
            silent in any::<u32>(),
            cut in 0usize..20,
        ) {
            let slices: Vec<&[u8]> = hops.iter().map(Vec::as_slice).collect();
            let old = way(&slices);
            prop_assert_eq!(against((&old, true), (&old, true)), Against::Same);
            let mut new = old.clone();
            for (i, hop) in new.iter_mut().enumerate() {
                if silent >> i & 1 == 1 {
                    hop.clear();
                }
            }
            let whole = cut >= new.len();
            new.truncate(cut);
            let expected = if reach(&new) < reach(&old) { Against::Shorter } else { Against::Same };
            prop_assert_eq!(against((&old, true), (&new, whole)), expected);
        }

        #[test]
        fn another_way_is_one_in_either_order(
            a in proptest::collection::vec(proptest::collection::vec(0u8..4, 0..3), 1..8),
            b in proptest::collection::vec(proptest::collection::vec(0u8..4, 0..3), 1..8),
            targets in any::<(bool, bool)>(),
        ) {
            let slices = |w: &[Vec<u8>]| way(&w.iter().map(Vec::as_slice).collect::<Vec<_>>());
            let (a, b) = (slices(&a), slices(&b));
            let there = against((&a, targets.0), (&b, targets.1));
            let back = against((&b, targets.1), (&a, targets.0));
            let other = |x| matches!(x, Against::Other(_));
            prop_assert_eq!(other(there), other(back));
            if other(there) {
                prop_assert_eq!(there, back);
            }
        }

        #[test]
        fn walks_are_of_one_flow(a: u32, b: u32, number: u16, identifier: u16) {
            let v4 = Transport::Echo { version: Version::V4, identifier: Some(identifier) };
            let sum = |transport, random, number| {
                let mut m = [0; MESSAGE_LEN];
                let len = emit(transport, flow_cookie(random), number, &mut m);
                if transport == v4 {
                    u16::from_be_bytes([m[2], m[3]])
                } else {
                    checksum(&m[..len])
                }
            };
            for transport in [v4, Transport::Udp] {
                prop_assert_eq!(sum(transport, a, number), sum(transport, b, 0));
            }
        }
    }
}
