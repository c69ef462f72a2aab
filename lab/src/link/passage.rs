//! What the log of a line says of a packet.

use std::fmt::{self, Write as _};
use std::io;
use std::net::{IpAddr, Ipv4Addr};

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

impl Way {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Up, Self::Down];
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It left, at this time (`CLOCK_REALTIME`, ns).
    Delivered(i64),
    /// It was lost by chance, alone or in a run.
    Lost,
    /// It was lost in an outage.
    Outage,
    /// The buffer was full.
    Buffer,
    /// It was larger than the line takes.
    Large,
    /// The far interface would not take it.
    Refused,
}

impl Fate {
    /// When it left, where it did, ns.
    #[must_use]
    pub const fn delivered_ns(self) -> Option<i64> {
        match self {
            Self::Delivered(at) => Some(at),
            _ => None,
        }
    }

    /// One word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered(_) => "delivered",
            Self::Lost => "lost",
            Self::Outage => "outage",
            Self::Buffer => "buffer",
            Self::Large => "too large",
            Self::Refused => "refused",
        }
    }
}

/// What a packet is, as far as a log needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Flow {
    /// An ICMP or ICMPv6 echo, request or reply: identifier and sequence number.
    Echo(u16, u16),
    /// UDP: source and destination port, bytes of payload.
    Udp(u16, u16, u16),
    /// TCP: source and destination port.
    Tcp(u16, u16),
    /// Other IP.
    Other,
}

/// One line of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passage {
    /// Which way.
    pub way: Way,
    /// When it arrived, by the kernel's stamp (`CLOCK_REALTIME`, ns).
    pub arrival_ns: i64,
    /// When it was meant to leave, ns; what [`Fate::Delivered`] has beyond is the emulator's lateness.
    pub planned_ns: i64,
    /// Bytes of the frame.
    pub bytes: u32,
    /// What it is.
    pub flow: Flow,
    /// The server's address.
    pub far: IpAddr,
    /// Of UDP, the eight bytes of payload from the twelfth on: what tells one packet of a stream from
    /// the next. Our packets have their counter there, those of `irtt` their number. Of TCP, the sequence
    /// number in the upper half, and bytes of payload in the lower.
    pub mark: u64,
    /// TOS or traffic class (DSCP and ECN) on arrival.
    pub tos: u8,
    /// TTL or hop limit on arrival.
    pub ttl: u8,
    /// How long it waited for the rate, the bucket or a grant, ns.
    pub queue_ns: u64,
    /// It is the second of two that the line made of one.
    pub copy: bool,
    /// What became of it.
    pub fate: Fate,
}

impl Passage {
    /// One that has just arrived.
    pub(crate) const fn arrived(way: Way, arrival_ns: i64, bytes: u32) -> Self {
        Self {
            way,
            arrival_ns,
            planned_ns: arrival_ns,
            bytes,
            flow: Flow::Other,
            far: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            mark: 0,
            tos: 0,
            ttl: 0,
            queue_ns: 0,
            copy: false,
            fate: Fate::Lost,
        }
    }

    /// From its arrival until it left, where it did, ns.
    #[must_use]
    pub fn took_ns(&self) -> Option<i64> {
        self.fate.delivered_ns().map(|at| at - self.arrival_ns)
    }
}

/// The first line of a log as CSV.
pub const CSV_HEADER: &str = "arrival_ns,way,protocol,source_or_id,destination_or_seq,payload,far,\
                              mark,bytes,dscp,ecn,ttl,queue_ns,planned_ns,left_ns,copy,fate\n";

/// Appends `passage` to a log as CSV.
///
/// # Errors
/// What the writer said.
pub fn write_csv(out: &mut impl io::Write, passage: &Passage) -> io::Result<()> {
    let mut line = String::with_capacity(160);
    csv_line(&mut line, passage).map_err(io::Error::other)?;
    out.write_all(line.as_bytes())
}

fn csv_line(line: &mut String, p: &Passage) -> fmt::Result {
    let way = match p.way {
        Way::Up => "up",
        Way::Down => "down",
    };
    write!(line, "{},{way},", p.arrival_ns)?;
    match p.flow {
        Flow::Echo(id, seq) => write!(line, "icmp,{id},{seq},,")?,
        Flow::Udp(from, to, len) => write!(line, "udp,{from},{to},{len},")?,
        Flow::Tcp(from, to) => write!(line, "tcp,{from},{to},,")?,
        Flow::Other => line.write_str("ip,,,,")?,
    }
    write!(line, "{},{:016x},{},", p.far, p.mark, p.bytes)?;
    write!(line, "{},{},{},", p.tos >> 2, p.tos & 3, p.ttl)?;
    write!(line, "{},{},", p.queue_ns, p.planned_ns)?;
    if let Fate::Delivered(at) = p.fate {
        write!(line, "{at}")?;
    }
    writeln!(line, ",{},{}", u8::from(p.copy), p.fate.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_csv_has_as_many_fields_as_the_header() {
        let base = Passage::arrived(Way::Up, 7, 98);
        for (flow, fate) in [
            (Flow::Echo(1, 2), Fate::Delivered(9)),
            (Flow::Udp(1, 2, 3), Fate::Lost),
            (Flow::Tcp(1, 2), Fate::Buffer),
            (Flow::Other, Fate::Outage),
        ] {
            let mut out = Vec::new();
            write_csv(&mut out, &Passage { flow, fate, ..base }).unwrap();
            let line = String::from_utf8(out).unwrap();
            assert_eq!(
                line.matches(',').count(),
                CSV_HEADER.matches(',').count(),
                "{line}"
            );
            assert!(line.ends_with(&format!(",{}\n", fate.as_str())), "{line}");
        }
    }
}
