//! The way to a far host: who is the first on it that belongs to the provider.
//!
//! Datagrams of one flow leave with a TTL (hop limit) of 1, 2, 3…, and the routers at which they end
//! say so (ICMP time exceeded, RFC 792 and RFC 4443 section 3.3). All of them agree in what load
//! balancers look at, the UDP checksum included, so that they take one and the same way (Augustin et
//! al., "Avoiding traceroute anomalies with Paris traceroute", IMC 2006).

use core::net::IpAddr;

use crate::time::Monotonic;

/// The farthest hop that is looked at.
pub const MAX_TTL: u8 = 10;
/// Datagrams per hop.
pub const ATTEMPTS: u8 = 2;
/// How long the answer to each is waited for, ns.
pub const PATIENCE_NS: u64 = 1_000_000_000;
/// After so many hops in a row without an answer none is expected any more.
pub const SILENT_HOPS: u8 = 4;
/// Bytes of a datagram's payload.
pub const PAYLOAD_LEN: usize = 12;

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send a datagram with this TTL and the payload that belongs to it.
    Send {
        /// TTL or hop limit.
        ttl: u8,
        /// See [`PAYLOAD_LEN`].
        payload: [u8; PAYLOAD_LEN],
    },
    /// Wait for an answer, at most until then.
    Wait(Monotonic),
    /// The search is over.
    End(Outcome),
}

/// How a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// This is the first hop that answers from an address that is not the household's.
    Found {
        /// Its address.
        address: IpAddr,
        /// How many hops away it is.
        ttl: u8,
    },
    /// There is none.
    None {
        /// How many hops answered from addresses of the household.
        answered: u8,
    },
}

/// A search for the first hop of the provider.
#[derive(Clone, Debug)]
pub struct FirstHop {
    cookie: [u8; 8],
    home: Option<IpAddr>,
    ttl: u8,
    attempts: u8,
    waits_until: Option<Monotonic>,
    answered: u8,
    silent: u8,
    last: Option<IpAddr>,
    outcome: Option<Outcome>,
}

impl FirstHop {
    /// A search whose datagrams carry `cookie`, a random number; `home` is the address that they leave from, where
    /// that is on a link of the household: see [`is_home_link`].
    #[must_use]
    pub const fn new(cookie: u64, home: Option<IpAddr>) -> Self {
        Self {
            cookie: cookie.to_be_bytes(),
            home,
            ttl: 1,
            attempts: 0,
            waits_until: None,
            answered: 0,
            silent: 0,
            last: None,
            outcome: None,
        }
    }

    /// What to do at `now`.
    pub fn step(&mut self, now: Monotonic) -> Step {
        if let Some(until) = self.waits_until
            && now < until
            && self.outcome.is_none()
        {
            return Step::Wait(until);
        }
        if self.outcome.is_none() && self.attempts >= ATTEMPTS {
            self.silent += 1;
            self.advance();
        }
        if self.outcome.is_none() && self.silent >= SILENT_HOPS {
            self.reached();
        }
        if let Some(outcome) = self.outcome {
            return Step::End(outcome);
        }
        self.attempts += 1;
        self.waits_until = Some(now.saturating_add(PATIENCE_NS));
        Step::Send {
            ttl: self.ttl,
            payload: self.payload(),
        }
    }

    /// The router `from` reports that a datagram ended there. `quoted` is the beginning of that
    /// datagram's payload; many routers quote none of it, and then it counts as the last one sent.
    pub fn exceeded(&mut self, from: IpAddr, quoted: &[u8]) {
        if self.outcome.is_some() || self.waits_until.is_none() {
            return;
        }
        let Some(ttl) = self.ttl_of(quoted, from) else {
            return;
        };
        if is_providers(from, self.home) {
            self.outcome = Some(Outcome::Found { address: from, ttl });
        } else if ttl == self.ttl {
            self.answered += 1;
            self.silent = 0;
            self.last = Some(from);
            self.advance();
        }
    }

    /// The far host itself has answered: there is no hop before it that is left to find.
    pub const fn reached(&mut self) {
        if self.outcome.is_none() {
            self.outcome = Some(Outcome::None {
                answered: self.answered,
            });
        }
    }

    const fn advance(&mut self) {
        self.attempts = 0;
        self.waits_until = None;
        if self.ttl == MAX_TTL {
            self.reached();
        } else {
            self.ttl += 1;
        }
    }

    /// TTL and its complement, each the high byte of a 16-bit word: the checksum stays the same.
    const fn payload(&self) -> [u8; PAYLOAD_LEN] {
        let [a, b, c, d, e, f, g, h] = self.cookie;
        [a, b, c, d, e, f, g, h, self.ttl, 0, !self.ttl, 0]
    }

    /// Which datagram ended, or none of ours.
    fn ttl_of(&self, quoted: &[u8], from: IpAddr) -> Option<u8> {
        let Some(payload) = quoted.first_chunk::<PAYLOAD_LEN>() else {
            // The hop before this one, late, is not another hop.
            return (self.last != Some(from)).then_some(self.ttl);
        };
        let ttl = payload[8];
        let ours = payload[..8] == self.cookie && (1..=self.ttl).contains(&ttl);
        ours.then_some(ttl)
    }
}

/// Whether a link on which this host has these addresses is one of the household, and not the one that leads to the
/// provider: by its IPv4 addresses, of which those of a household are private; where it has none, by whether this
/// host `is_router`, which is not reached through others of the house.
#[must_use]
pub fn is_home_link(addresses: impl IntoIterator<Item = IpAddr>, is_router: bool) -> bool {
    let v4 = addresses.into_iter().filter_map(|a| match a {
        IpAddr::V4(a) if !a.is_link_local() => Some(a.is_private()),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    });
    v4.reduce(|any, one| any || one).unwrap_or(!is_router)
}

/// Whether `address` is the provider's rather than the household's: public, or of the range for
/// carrier-grade NAT (RFC 6598). A home router's public IPv6 address is of the same /64 as `home`, which is ours on a
/// link of the household.
#[must_use]
pub fn is_providers(address: IpAddr, home: Option<IpAddr>) -> bool {
    match address {
        IpAddr::V4(a) => {
            !(a.is_private()
                || a.is_loopback()
                || a.is_link_local()
                || a.is_unspecified()
                || a.is_multicast()
                || a.is_broadcast())
        }
        IpAddr::V6(a) => {
            let same_link = matches!(home, Some(IpAddr::V6(home))
                if home.segments()[..4] == a.segments()[..4]);
            !(same_link
                || a.is_unique_local()
                || a.is_unicast_link_local()
                || a.is_loopback()
                || a.is_unspecified()
                || a.is_multicast())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::icmp::checksum;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Runs a search over a way of hops, each an address or silence; the far host is behind the
    /// last. Gives the outcome, the datagrams sent, and when it ended.
    fn search(hops: &[Option<IpAddr>], quotes: bool) -> (Outcome, Vec<u8>, u64) {
        let mut s = FirstHop::new(0x0102_0304_0506_0708, Some(ip("2001:db8:1:2::5")));
        let (mut now, mut sent) = (Monotonic::from_nanos(5), Vec::new());
        loop {
            match s.step(now) {
                Step::Send { ttl, payload } => {
                    sent.push(ttl);
                    assert!(sent.len() <= usize::from(MAX_TTL * ATTEMPTS));
                    match hops.get(usize::from(ttl) - 1) {
                        None => s.reached(),
                        Some(None) => {}
                        Some(Some(from)) => {
                            s.exceeded(*from, if quotes { &payload } else { &[] });
                        }
                    }
                }
                Step::Wait(until) => {
                    assert!(until > now);
                    now = until;
                }
                Step::End(outcome) => return (outcome, sent, now.as_nanos()),
            }
        }
    }

    #[test]
    fn the_first_public_hop_is_found_behind_private_and_silent_ones() {
        let hops = [
            Some(ip("192.168.1.1")),
            None,
            Some(ip("10.3.0.1")),
            Some(ip("203.0.113.1")),
            Some(ip("198.51.100.1")),
        ];
        let found = Outcome::Found {
            address: ip("203.0.113.1"),
            ttl: 4,
        };
        for quotes in [false, true] {
            let (outcome, sent, end) = search(&hops, quotes);
            assert_eq!((outcome, &sent[..]), (found, &[1, 2, 2, 3, 4][..]));
            assert_eq!(end, 5 + 2 * PATIENCE_NS);
        }
    }

    #[test]
    fn whose_an_address_is() {
        let own = Some(ip("2001:db8:1:2::5"));
        for far in ["100.64.0.1", "203.0.113.1", "2001:db8:1:3::1", "9.9.9.9"] {
            assert!(is_providers(ip(far), own), "{far}");
        }
        for near in [
            "10.0.0.1",
            "172.31.0.1",
            "192.168.0.1",
            "169.254.1.1",
            "127.0.0.1",
            "fe80::1",
            "fd00::1",
            "2001:db8:1:2::1",
            "::1",
        ] {
            assert!(!is_providers(ip(near), own), "{near}");
        }
    }

    #[test]
    fn whose_a_link_is() {
        let is_home = |addresses: &[&str], is_router| {
            is_home_link(addresses.iter().map(|a| ip(a)), is_router)
        };
        let six = "2001:db8:1:2::5";
        for is_router in [false, true] {
            assert!(is_home(&["192.168.1.7", six], is_router));
            assert!(!is_home(&["203.0.113.7", six], is_router));
            assert!(!is_home(&["100.64.3.7", six, "fe80::1"], is_router));
            assert_eq!(is_home(&[six], is_router), !is_router);
            assert_eq!(is_home(&["169.254.1.1", six], is_router), !is_router);
        }
        // The provider's own end of its link to us, which is of the same /64.
        assert!(is_providers(ip("2001:db8:1:2::1"), None));
    }

    #[test]
    fn where_nobody_answers_the_search_ends_soon() {
        let (outcome, sent, _) = search(&[None; 20], true);
        assert_eq!(outcome, Outcome::None { answered: 0 });
        assert_eq!(sent.len(), usize::from(SILENT_HOPS * ATTEMPTS));
    }

    #[test]
    fn a_late_answer_is_not_taken_for_the_next_hop() {
        for quotes in [false, true] {
            let mut s = FirstHop::new(7, None);
            let at = |n| Monotonic::from_nanos(n);
            let Step::Send { payload, .. } = s.step(at(0)) else {
                panic!()
            };
            let quoted: &[u8] = if quotes { &payload } else { &[] };
            s.exceeded(ip("10.0.0.1"), quoted);
            assert!(matches!(s.step(at(1)), Step::Send { ttl: 2, .. }));
            s.exceeded(ip("10.0.0.1"), quoted);
            assert_eq!(s.step(at(2)), Step::Wait(at(1 + PATIENCE_NS)));
        }
    }

    #[test]
    fn what_quotes_a_datagram_that_was_never_sent_is_no_hop() {
        let mut s = FirstHop::new(7, None);
        let Step::Send { mut payload, .. } = s.step(Monotonic::ZERO) else {
            panic!()
        };
        payload[8] = 2;
        s.exceeded(ip("203.0.113.1"), &payload);
        payload[8] = 1;
        payload[0] ^= 1;
        s.exceeded(ip("203.0.113.1"), &payload);
        assert!(matches!(s.step(Monotonic::ZERO), Step::Wait(_)));
    }

    proptest! {
        #[test]
        fn every_search_ends_with_the_first_hop_there_is(
            hops in proptest::collection::vec(proptest::option::of((any::<bool>(), 1u8..255)), 0..14),
            quotes in any::<bool>(),
        ) {
            // Every hop has an address of its own, as those of a real way have.
            let hops: Vec<_> = hops.iter().enumerate().map(|(i, hop)| hop.map(|(public, n)| {
                IpAddr::from(if public { [203, 0, i as u8, n] } else { [10, 0, i as u8, n] })
            })).collect();
            let (outcome, _, end) = search(&hops, quotes);
            prop_assert!(end <= 5 + u64::from(MAX_TTL * ATTEMPTS) * PATIENCE_NS);
            let mut silent = 0;
            let seen = hops.iter().take(usize::from(MAX_TTL)).take_while(|h| {
                let go_on = silent < SILENT_HOPS;
                silent = if h.is_none() { silent + 1 } else { 0 };
                go_on
            });
            let mut answered = 0;
            let mut truth = None;
            for (i, hop) in seen.enumerate() {
                match hop {
                    Some(a) if is_providers(*a, None) => {
                        truth = Some(Outcome::Found { address: *a, ttl: i as u8 + 1 });
                        break;
                    }
                    Some(_) => answered += 1,
                    None => {}
                }
            }
            prop_assert_eq!(outcome, truth.unwrap_or(Outcome::None { answered }));
        }

        #[test]
        fn datagrams_of_all_hops_have_one_checksum(cookie in any::<u64>()) {
            let mut s = FirstHop::new(cookie, None);
            let first = checksum(&s.payload());
            for ttl in 1..=MAX_TTL {
                s.ttl = ttl;
                prop_assert_eq!(checksum(&s.payload()), first);
            }
        }

        #[test]
        fn anything_may_be_quoted(quoted in proptest::collection::vec(any::<u8>(), 0..40), from in any::<u128>()) {
            let mut s = FirstHop::new(1, None);
            s.exceeded(IpAddr::from(from.to_be_bytes()), &quoted);
            let _ = s.step(Monotonic::ZERO);
            s.exceeded(IpAddr::from(from.to_be_bytes()), &quoted);
            let _ = s.step(Monotonic::MAX);
        }
    }
}
