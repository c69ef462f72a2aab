//! Ethernet frames with IP in them: what they carry, and changes of the IP header.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::passage::{Flow, Way};
use super::plan::Rewrite;

const ETHERNET: usize = 14;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const IPV6_HEADER: usize = 40;

/// What is written down of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) flow: Flow,
    pub(super) far: IpAddr,
    pub(super) mark: u64,
    pub(super) tos: u8,
    pub(super) ttl: u8,
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array_at(bytes, at).map(u16::from_be_bytes)
}

/// What a frame carries; `None` where that is not IP, or is neighbour discovery.
pub(super) fn facts_of(frame: &[u8], way: Way) -> Option<Facts> {
    let ip = frame.get(ETHERNET..)?;
    // The far end is the destination of what goes up, and the source of what comes down.
    let (protocol, far, tos, ttl, length, payload) = match u16_at(frame, 12)? {
        IPV4 => {
            let header = usize::from(ip.first()? & 15) * 4;
            let at = if way == Way::Up { 16 } else { 12 };
            let far = IpAddr::from(Ipv4Addr::from(array_at::<4>(ip, at)?));
            (
                *ip.get(9)?,
                far,
                *ip.get(1)?,
                *ip.get(8)?,
                usize::from(u16_at(ip, 2)?),
                ip.get(header..)?,
            )
        }
        IPV6 => {
            let at = if way == Way::Up { 24 } else { 8 };
            let far = IpAddr::from(Ipv6Addr::from(array_at::<16>(ip, at)?));
            let class = (u16_at(ip, 0)? >> 4) as u8;
            let length = IPV6_HEADER + usize::from(u16_at(ip, 4)?);
            (
                *ip.get(6)?,
                far,
                class,
                *ip.get(7)?,
                length,
                ip.get(IPV6_HEADER..)?,
            )
        }
        _ => return None,
    };
    let mut mark = 0;
    let flow = match (protocol, payload.first().copied().unwrap_or(0)) {
        (1, 0 | 8) | (58, 128 | 129) => Flow::Echo(u16_at(payload, 4)?, u16_at(payload, 6)?),
        (58, 133..=137) => return None,
        (17, _) => {
            mark = array_at(payload, 8 + 12).map_or(0, u64::from_be_bytes);
            let length = u16_at(payload, 4)?.saturating_sub(8);
            Flow::Udp(u16_at(payload, 0)?, u16_at(payload, 2)?, length)
        }
        (6, _) => {
            let sequence = array_at(payload, 4).map_or(0, u32::from_be_bytes);
            let header = payload.get(12).map_or(0, |b| usize::from(b >> 4) * 4);
            // What pads a short frame is no payload.
            let end = length.saturating_sub(ip.len() - payload.len());
            let carried = end.min(payload.len()).saturating_sub(header);
            mark = u64::from(sequence) << 32 | carried as u64;
            Flow::Tcp(u16_at(payload, 0)?, u16_at(payload, 2)?)
        }
        _ => Flow::Other,
    };
    Some(Facts {
        flow,
        far,
        mark,
        tos,
        ttl,
    })
}

/// Changes the IP header of `frame` as `rewrite` says.
pub(super) fn rewrite(frame: &mut [u8], rewrite: Rewrite) {
    if rewrite == Rewrite::NONE {
        return;
    }
    let tos = |old: u8| old & rewrite.tos_keep | rewrite.tos_set;
    let ttl = |old: u8| old.saturating_sub(rewrite.ttl_less).max(1);
    let kind = u16_at(frame, 12);
    let Some(ip) = frame.get_mut(ETHERNET..) else {
        return;
    };
    match kind {
        Some(IPV4) if ip.len() >= 20 => {
            ip[1] = tos(ip[1]);
            ip[8] = ttl(ip[8]);
            let header = (usize::from(ip[0] & 15) * 4).clamp(20, ip.len());
            ip[10..12].fill(0);
            let sum = checksum(&ip[..header]);
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        Some(IPV6) if ip.len() >= IPV6_HEADER => {
            let class = tos(ip[0] << 4 | ip[1] >> 4);
            ip[0] = ip[0] & 0xf0 | class >> 4;
            ip[1] = ip[1] & 0x0f | class << 4;
            ip[7] = ttl(ip[7]);
        }
        _ => {}
    }
}

/// RFC 1071.
fn checksum(header: &[u8]) -> u16 {
    let sum: u32 = header
        .chunks(2)
        .map(|c| u32::from(u16::from_be_bytes([c[0], c.get(1).copied().unwrap_or(0)])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A UDP datagram from 10.77.0.1:4000 to 10.99.0.1:9876, TTL 64, TOS 0xb8 (EF).
    fn udp4() -> Vec<u8> {
        let mut f = vec![2; 12];
        f.extend([0x08, 0x00]);
        f.extend([0x45, 0xb8, 0, 48, 0, 1, 0x40, 0, 64, 17, 0, 0]);
        f.extend([10, 77, 0, 1, 10, 99, 0, 1]);
        let sum = checksum(&f[14..34]).to_be_bytes();
        f[24..26].copy_from_slice(&sum);
        f.extend([0x0f, 0xa0, 0x26, 0x94, 0, 28, 0, 0]);
        f.extend([0; 12]);
        f.extend(7u64.to_be_bytes());
        f
    }

    /// An ICMPv6 echo request from fd77::1 to fd99::1, hop limit 64, traffic class 0xb8.
    fn echo6() -> Vec<u8> {
        let mut f = vec![2; 12];
        f.extend([0x86, 0xdd]);
        f.extend([0x6b, 0x80, 0, 0, 0, 8, 58, 64]);
        f.extend("fd77::1".parse::<Ipv6Addr>().unwrap().octets());
        f.extend("fd99::1".parse::<Ipv6Addr>().unwrap().octets());
        f.extend([128, 0, 0, 0, 0, 5, 0, 9]);
        f
    }

    #[test]
    fn both_families_are_read() {
        let up = facts_of(&udp4(), Way::Up).unwrap();
        assert_eq!(up.flow, Flow::Udp(4000, 9876, 20));
        assert_eq!((up.mark, up.tos, up.ttl), (7, 0xb8, 64));
        assert_eq!(up.far, "10.99.0.1".parse::<IpAddr>().unwrap());
        let down = facts_of(&udp4(), Way::Down).unwrap();
        assert_eq!(down.far, "10.77.0.1".parse::<IpAddr>().unwrap());

        let up = facts_of(&echo6(), Way::Up).unwrap();
        assert_eq!(up.flow, Flow::Echo(5, 9));
        assert_eq!((up.tos, up.ttl), (0xb8, 64));
        assert_eq!(up.far, "fd99::1".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn neighbour_discovery_and_stumps_are_left_alone() {
        let mut solicitation = echo6();
        solicitation[54] = 135;
        assert_eq!(facts_of(&solicitation, Way::Up), None);
        for len in 0..34 {
            assert_eq!(facts_of(&udp4()[..len], Way::Up), None, "{len}");
            rewrite(&mut udp4()[..len], Rewrite::BLEACH_DSCP);
        }
    }

    #[test]
    fn a_rewritten_header_has_a_right_checksum_and_keeps_the_rest() {
        let change = Rewrite {
            tos_keep: 0x03,
            tos_set: 0x01,
            ttl_less: 5,
        };
        let mut frame = udp4();
        rewrite(&mut frame, change);
        assert_eq!((frame[15], frame[22]), (0x01, 59));
        assert_eq!(checksum(&frame[14..34]), 0);
        assert_eq!(frame[34..], udp4()[34..]);

        let mut frame = echo6();
        rewrite(&mut frame, change);
        let facts = facts_of(&frame, Way::Up).unwrap();
        assert_eq!((facts.tos, facts.ttl), (0x01, 59));
        assert_eq!(frame[14] >> 4, 6);
        assert_eq!(frame[22..], echo6()[22..]);

        let mut frame = udp4();
        rewrite(
            &mut frame,
            Rewrite {
                ttl_less: 200,
                ..Rewrite::NONE
            },
        );
        assert_eq!(frame[22], 1, "a packet still arrives");
    }
}
