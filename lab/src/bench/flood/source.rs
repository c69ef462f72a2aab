//! The floods: datagrams made beforehand, sent in batches.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use bufferbane_linux_io::host;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use socket2::{Domain, Protocol, Socket, Type};

use super::super::Fail;
use super::captured::Captured;

/// Datagrams in one call.
const BATCH: usize = 64;
/// Different datagrams of a flood.
const DIFFERENT: usize = 1024;
const UDP: usize = 8;
const UDP_PROTOCOL: u8 = 17;
const HOPS: u8 = 64;
/// Of a rate, so much may be made up for when the flood was held up: one part in so many of a second's datagrams.
const BEHIND: u64 = 50;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Random bytes.
    Junk,
    /// Datagrams without any.
    Empty,
    /// The header of a probe of a session that exists, and a tag that is wrong.
    BadTag,
    /// Knocks and a probe that were answered once.
    Replayed,
    /// All of that from addresses that are made up.
    Spoofed,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Junk,
        Self::Empty,
        Self::BadTag,
        Self::Replayed,
        Self::Spoofed,
    ];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Junk => "junk",
            Self::Empty => "empty",
            Self::BadTag => "bad tag",
            Self::Replayed => "replayed",
            Self::Spoofed => "spoofed",
        }
    }
}

/// One flood.
#[derive(Clone, Debug)]
pub struct Flood {
    /// Of what.
    pub kind: Kind,
    /// The reflector's address and port.
    pub to: SocketAddr,
    /// Datagrams per second, never more for longer than a moment; `None` is as many as can be.
    pub rate: Option<u64>,
    /// For how long.
    pub time: Duration,
    /// The CPU that it is sent from.
    pub cpu: usize,
    /// What it is made of.
    pub captured: Captured,
}

impl Flood {
    /// Floods from where this thread is; gives how many datagrams left.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn run(self) -> Result<u64, Fail> {
        let failed = |e: std::io::Error| Fail::of("the stranger's socket", e);
        host::run_on(&[self.cpu]).map_err(|e| Fail::of("the stranger's CPU", e))?;
        let socket = self.socket().map_err(failed)?;
        let mut datagrams = self.datagrams();
        let begun = Instant::now();
        // What could not be sent for longer than a moment is not made up for.
        let (mut sent, mut forgone, mut next) = (0u64, 0u64, 0);
        loop {
            let elapsed = begun.elapsed();
            if elapsed >= self.time {
                return Ok(sent);
            }
            let due = match self.rate {
                None => BATCH,
                Some(rate) => {
                    let due = (elapsed.as_nanos() * u128::from(rate) / 1_000_000_000) as u64;
                    let behind = due.saturating_sub(sent + forgone);
                    forgone += behind.saturating_sub((rate / BEHIND).max(BATCH as u64));
                    (behind as usize).min(BATCH)
                }
            };
            if due == 0 {
                std::thread::sleep(Duration::from_micros(50));
                continue;
            }
            let end = (next + due).min(datagrams.len());
            sent += send(&socket, &mut datagrams[next..end]).map_err(failed)?;
            next = end % datagrams.len();
        }
    }

    fn socket(&self) -> std::io::Result<Socket> {
        let domain = Domain::for_address(self.to);
        if self.kind == Kind::Spoofed {
            // IPPROTO_RAW: whoever sends writes the IP header. A port would be taken for a protocol.
            let raw = Some(Protocol::from(libc::IPPROTO_RAW));
            let socket = Socket::new(domain, Type::RAW, raw)?;
            socket.connect(&SocketAddr::new(self.to.ip(), 0).into())?;
            return Ok(socket);
        }
        let socket = Socket::new(domain, Type::DGRAM, None)?;
        socket.connect(&self.to.into())?;
        Ok(socket)
    }

    fn datagrams(&self) -> Vec<Vec<u8>> {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let one = |n: usize, rng: &mut ChaCha8Rng, kind: Kind| match kind {
            Kind::Junk => {
                let mut bytes = vec![0; 128];
                rng.fill_bytes(&mut bytes);
                bytes
            }
            Kind::Empty => Vec::new(),
            Kind::BadTag => {
                let mut probe = self.captured.probe.clone();
                if n.is_multiple_of(2) {
                    // The first sessions there were, one of them that of the client which is served meanwhile.
                    let session = 1 + (n / 2 % 4) as u32;
                    probe[8..12].copy_from_slice(&session.to_be_bytes());
                }
                probe[12..20].copy_from_slice(&rng.next_u64().to_be_bytes());
                probe
            }
            Kind::Replayed | Kind::Spoofed => {
                let c = &self.captured;
                [&c.hello, &c.join, &c.probe][n % 3].clone()
            }
        };
        let kinds = [Kind::Junk, Kind::Empty, Kind::BadTag, Kind::Replayed];
        (0..DIFFERENT)
            .map(|n| match self.kind {
                Kind::Spoofed => {
                    let payload = one(n / 4, &mut rng, kinds[n % 4]);
                    self.with_made_up_source(n, &payload)
                }
                kind => one(n, &mut rng, kind),
            })
            .collect()
    }

    /// `payload` in a packet from an address that is made up.
    fn with_made_up_source(&self, n: usize, payload: &[u8]) -> Vec<u8> {
        let [high, low] = (n as u16).to_be_bytes();
        let mut udp = vec![0; UDP];
        udp.extend_from_slice(payload);
        let len = udp.len() as u16;
        udp[0..2].copy_from_slice(&(10_000 + n as u16).to_be_bytes());
        udp[2..4].copy_from_slice(&self.to.port().to_be_bytes());
        udp[4..6].copy_from_slice(&len.to_be_bytes());
        let mut packet = match self.to.ip() {
            IpAddr::V4(to) => {
                let mut header = vec![0; 20];
                // Version and header length; the kernel adds the checksum, and UDP needs none.
                header[0] = 0x45;
                header[2..4].copy_from_slice(&(20 + len).to_be_bytes());
                header[8..10].copy_from_slice(&[HOPS, UDP_PROTOCOL]);
                header[12..16].copy_from_slice(&Ipv4Addr::new(10, 66, high, low).octets());
                header[16..20].copy_from_slice(&to.octets());
                header
            }
            IpAddr::V6(to) => {
                let from = Ipv6Addr::new(0xfd66, 0, 0, 0, 0, 0, 0, n as u16);
                let sum = checksum(&from, &to, &udp);
                udp[6..8].copy_from_slice(&sum.to_be_bytes());
                let mut header = vec![0; 40];
                header[0] = 0x60;
                header[4..6].copy_from_slice(&len.to_be_bytes());
                header[6..8].copy_from_slice(&[UDP_PROTOCOL, HOPS]);
                header[8..24].copy_from_slice(&from.octets());
                header[24..40].copy_from_slice(&to.octets());
                header
            }
        };
        packet.append(&mut udp);
        packet
    }
}

/// UDP's checksum over IPv6 (RFC 8200, section 8.1) of a datagram whose own is zero still.
fn checksum(from: &Ipv6Addr, to: &Ipv6Addr, udp: &[u8]) -> u16 {
    let pseudo = [u16::from(UDP_PROTOCOL), udp.len() as u16];
    let pairs = udp.chunks(2).map(|pair| {
        let low = pair.get(1).copied().unwrap_or(0);
        u16::from_be_bytes([pair[0], low])
    });
    let addresses = from.segments().into_iter().chain(to.segments());
    let words = addresses.chain(pseudo).chain(pairs);
    let mut sum: u32 = words.map(u32::from).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    match !(sum as u16) {
        // Zero would say that there is none.
        0 => 0xffff,
        sum => sum,
    }
}

/// Sends all of `datagrams`, at most a batch; gives how many the kernel took.
fn send(socket: &Socket, datagrams: &mut [Vec<u8>]) -> std::io::Result<u64> {
    // SAFETY: all zeros is a valid value of both.
    let (mut vectors, mut messages): ([libc::iovec; BATCH], [libc::mmsghdr; BATCH]) =
        unsafe { std::mem::zeroed() };
    let count = datagrams.len().min(BATCH);
    for (i, datagram) in datagrams.iter_mut().take(BATCH).enumerate() {
        vectors[i].iov_base = datagram.as_mut_ptr().cast();
        vectors[i].iov_len = datagram.len();
        messages[i].msg_hdr.msg_iov = &raw mut vectors[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    // SAFETY: each message points to a datagram that lives until the call returns, with its size.
    let sent = unsafe {
        libc::sendmmsg(
            socket.as_raw_fd(),
            messages.as_mut_ptr(),
            count as u32,
            libc::MSG_DONTWAIT,
        )
    };
    match u64::try_from(sent) {
        Ok(sent) => Ok(sent),
        Err(_) => match std::io::Error::last_os_error() {
            // No room at this moment.
            e if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::ENOBUFS)) => Ok(0),
            // Nobody answers: the word of an earlier datagram's fate.
            e if e.kind() == std::io::ErrorKind::ConnectionRefused => Ok(0),
            e => Err(e),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_what_receivers_expect() {
        let [from, to]: [Ipv6Addr; 2] = ["fd66::1", "fd65::1"].map(|a| a.parse().unwrap());
        for len in [0, 1, 128, 129] {
            let mut udp: Vec<u8> = (0..UDP + len).map(|b| b as u8).collect();
            udp[6..8].fill(0);
            let sum = checksum(&from, &to, &udp);
            udp[6..8].copy_from_slice(&sum.to_be_bytes());
            // With its checksum in place a datagram sums up to all ones, which is said as its complement is.
            assert_eq!(checksum(&from, &to, &udp), 0xffff, "{len}");
        }
    }
}
