//! What this host drops of what is to leave by an interface.

use super::parse::{Link, Queue};

/// What an interface, and each one that its packets pass below it in this host, has dropped of what was to leave:
/// in the queue before it, as a shaper does, and in itself. What hardware or a modem drops, and the interface below a
/// PPP link, is not in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaving(Vec<Passed>);

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Passed {
    interface: u32,
    /// Packets, as it counts them itself.
    failed: u64,
    /// Handle and drops of its queue, where it has one.
    queue: Option<(u32, u32)>,
}

impl Leaving {
    /// `None` where there is no such interface.
    pub(super) fn of(index: u32, links: &[Link], queues: &[Queue]) -> Option<Self> {
        let passed = passed(index, links).into_iter().map(|interface| {
            let link = links.iter().find(|l| l.index == interface)?;
            let queue = queues.iter().find(|q| q.interface == interface);
            Some(Passed {
                interface,
                failed: link.failed(),
                queue: queue.map(|q| (q.handle, q.drops)),
            })
        });
        passed.collect::<Option<_>>().map(Self)
    }

    /// Packets that were dropped since `before`, whosever they were; `None` where an interface or a queue is another
    /// one now, so that nobody knows. What a queue drops whole and the sender meant as several datagrams is one.
    #[must_use]
    pub fn dropped_since(&self, before: &Self) -> Option<u64> {
        if self.0.len() != before.0.len() {
            return None;
        }
        let of_each = self.0.iter().zip(&before.0).map(|(now, then)| {
            let queued = match (now.queue, then.queue) {
                (None, None) => 0,
                (Some((is, now)), Some((was, then))) if is == was => now.wrapping_sub(then),
                _ => return None,
            };
            let failed = now.failed.wrapping_sub(then.failed);
            (now.interface == then.interface).then(|| failed.saturating_add(queued.into()))
        });
        of_each.sum()
    }
}

/// The interfaces that what leaves by one passes in this host, itself first: below a VLAN or a tunnel lies another,
/// and a bond has members.
fn passed(index: u32, links: &[Link]) -> Vec<u32> {
    let mut all = vec![index];
    let mut next = 0;
    while let Some(of) = all.get(next).copied() {
        next += 1;
        let here = links.iter().find(|l| l.index == of);
        let kind = here.and_then(|l| l.kind.as_deref());
        // The other end of a cable is no part of the way out.
        let below = here.and_then(|l| l.link).filter(|_| kind != Some("veth"));
        let is_bond = matches!(kind, Some("bond" | "team"));
        let members = links.iter().filter(|l| is_bond && l.master == Some(of));
        for interface in below.into_iter().chain(members.map(|l| l.index)) {
            if !all.contains(&interface) {
                all.push(interface);
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::message::HEADER;
    use super::super::message::Request;
    use super::super::parse::{self, link};
    use super::*;

    const KIND: u16 = 1;

    /// A link as the kernel describes it.
    fn a_link(index: u32, kind: &str, below: &[(u16, u32)], failed: [u64; 2]) -> Link {
        let mut fixed = [0; 16];
        fixed[4..8].copy_from_slice(&index.to_ne_bytes());
        let mut info = vec![(4 + kind.len()) as u8, 0, KIND as u8, 0];
        info.extend(kind.bytes());
        let counters: Vec<u8> = [0; 5]
            .into_iter()
            .chain([failed[0], 0, failed[1]])
            .flat_map(u64::to_ne_bytes)
            .collect();
        let mut message = Request::new(0, 0, 0, fixed).attribute(18, &info);
        for (attribute, value) in below {
            message = message.attribute(*attribute, &value.to_ne_bytes());
        }
        let mut body = message.finish()[HEADER..].to_vec();
        body.extend(68u16.to_ne_bytes());
        body.extend(23u16.to_ne_bytes());
        body.extend(counters);
        link(&body).unwrap()
    }

    const fn queue(interface: u32, handle: u32, drops: u32) -> Queue {
        Queue {
            interface,
            handle,
            drops,
        }
    }

    #[test]
    fn what_leaves_passes_the_interfaces_below_and_no_others() {
        const LINK: u16 = 5;
        const MASTER: u16 = 10;
        const ELSEWHERE: u16 = 37;
        let none = [0; 2];
        let links = [
            a_link(1, "vlan", &[(LINK, 2)], none),
            a_link(2, "bond", &[], none),
            a_link(3, "", &[(MASTER, 2)], none),
            a_link(4, "veth", &[(MASTER, 2), (LINK, 5)], none),
            a_link(5, "veth", &[(LINK, 4)], none),
            a_link(6, "bridge", &[], none),
            a_link(7, "", &[(MASTER, 6)], none),
            a_link(8, "macvlan", &[(LINK, 3), (ELSEWHERE, 0)], none),
        ];
        for (index, all) in [
            (1, vec![1, 2, 3, 4]),
            (2, vec![2, 3, 4]),
            (5, vec![5]),
            (6, vec![6]),
            (8, vec![8]),
        ] {
            assert_eq!(passed(index, &links), all);
        }
        assert_eq!(Leaving::of(9, &links, &[]), None);
    }

    #[test]
    fn drops_of_queues_and_of_interfaces_are_counted_unless_one_was_replaced() {
        let links = |failed| {
            [
                a_link(1, "vlan", &[(5, 2)], [1, failed]),
                a_link(2, "", &[], [0; 2]),
            ]
        };
        let of = |failed, queues: &[Queue]| Leaving::of(1, &links(failed), queues).unwrap();
        let before = of(7, &[queue(2, 0x10000, u32::MAX), queue(3, 0, 0)]);
        let since = |failed, queues: &[Queue]| of(failed, queues).dropped_since(&before);
        assert_eq!(since(7, &[queue(2, 0x10000, u32::MAX)]), Some(0));
        // The kernel's counter wraps, and another interface's is no matter.
        assert_eq!(since(9, &[queue(2, 0x10000, 4), queue(3, 0, 8)]), Some(7));
        assert_eq!(since(7, &[queue(2, 0x20000, u32::MAX)]), None);
        assert_eq!(since(7, &[]), None);
        let alone = Leaving::of(2, &links(0), &[]).unwrap();
        assert_eq!(alone.dropped_since(&before), None);
    }

    #[test]
    fn of_queues_the_one_that_all_passes_says_how_many_it_dropped() {
        let message = |parent: u32| {
            let mut fixed = [0; 20];
            fixed[4..8].copy_from_slice(&3u32.to_ne_bytes());
            fixed[8..12].copy_from_slice(&0x8001_0000u32.to_ne_bytes());
            fixed[12..16].copy_from_slice(&parent.to_ne_bytes());
            let counts: Vec<u8> = [5u32, 6, 7, 8, 9]
                .iter()
                .flat_map(|n| n.to_ne_bytes())
                .collect();
            let mut nested = vec![24, 0, 3, 0];
            nested.extend(counts);
            let mut request = Request::new(0, 0, 0, fixed)
                .attribute(1, b"tbf\0")
                .attribute(7 | 0x8000, &nested);
            parse::queue(&request.finish()[HEADER..])
        };
        assert_eq!(message(u32::MAX), Some(queue(3, 0x8001_0000, 7)));
        // A part of one, and what arrives.
        assert_eq!((message(0x8001_0001), message(0xffff_fff1)), (None, None));
    }
}
