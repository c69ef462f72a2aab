//! The floods: datagrams made beforehand, sent in batches.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
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
const UDP_AND_IP: usize = 28;

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
    pub to: (Ipv4Addr, u16),
    /// Datagrams per second; `None` is as many as can be.
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
        let (mut sent, mut next) = (0u64, 0);
        loop {
            let elapsed = begun.elapsed();
            if elapsed >= self.time {
                return Ok(sent);
            }
            let due = match self.rate {
                None => BATCH,
                Some(rate) => {
                    let due = (elapsed.as_nanos() * u128::from(rate) / 1_000_000_000) as u64;
                    (due.saturating_sub(sent) as usize).min(BATCH)
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
        let to = SocketAddr::V4(SocketAddrV4::new(self.to.0, self.to.1));
        let socket = if self.kind == Kind::Spoofed {
            // IPPROTO_RAW: whoever sends writes the IP header.
            Socket::new(
                Domain::IPV4,
                Type::RAW,
                Some(Protocol::from(libc::IPPROTO_RAW)),
            )?
        } else {
            Socket::new(Domain::IPV4, Type::DGRAM, None)?
        };
        socket.connect(&to.into())?;
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
                    // The first session there was: that of the client which is served meanwhile.
                    probe[8..12].copy_from_slice(&1u32.to_be_bytes());
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
        let mut packet = vec![0; UDP_AND_IP];
        packet.extend_from_slice(payload);
        let len = packet.len() as u16;
        // Version and header length, total length, TTL, UDP; the kernel adds the checksum.
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        packet[8] = 64;
        packet[9] = 17;
        packet[12..16].copy_from_slice(&[10, 66, (n >> 8) as u8, n as u8]);
        packet[16..20].copy_from_slice(&self.to.0.octets());
        packet[20..22].copy_from_slice(&(10_000 + n as u16).to_be_bytes());
        packet[22..24].copy_from_slice(&self.to.1.to_be_bytes());
        packet[24..26].copy_from_slice(&(len - 20).to_be_bytes());
        packet
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
