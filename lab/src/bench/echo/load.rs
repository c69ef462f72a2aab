//! The load: some clients on one thread, with everything that they will send made beforehand.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use bufferbane_core::seal::PresharedKey;
use bufferbane_linux_io::{counters, host};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use socket2::SockRef;

use super::super::Fail;
use super::irtt::Connection;
use super::session::Session;

/// Most datagrams in one call.
const BATCH: usize = 64;
/// Most bytes in one call that sends.
const MOST_BYTES: usize = 65_000;
/// So many datagrams may follow each other without a pause because the load was late.
const MOST_LATE: u64 = 4;
/// Without an echo for this long, what is outstanding counts as lost.
const SILENCE: Duration = Duration::from_millis(20);
/// One echo in so many is opened.
pub(super) const OPENED: u64 = 1024;

/// Who is talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Speech {
    /// Whatever comes back will do.
    Plain,
    /// The sealed protocol.
    Ours,
    /// irtt's.
    Irtt,
}

#[derive(Debug)]
enum Talk {
    Plain,
    Ours(Session),
    Irtt(Connection),
}

/// One client: a socket, and what it sends next.
#[derive(Debug)]
struct Client {
    socket: UdpSocket,
    talk: Talk,
    datagrams: Vec<u8>,
    next: usize,
    outstanding: usize,
}

/// How the load is made up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Shape {
    /// How many clients there are.
    pub(in super::super) clients: usize,
    /// How many datagrams each sends in a row.
    pub(in super::super) train: usize,
    /// How many of each may be without an answer.
    pub(in super::super) window: usize,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct Outcome {
    pub(in super::super) echoes: u64,
    pub(in super::super) lost: u64,
    pub(in super::super) wall_ns: u64,
    /// Datagrams that were not sent because the load stood still when it was their time.
    pub(in super::super) skipped: u64,
    /// Of the thread that made the load.
    pub(in super::super) cpu_ns: u64,
}

/// See the module.
#[derive(Debug)]
pub(in super::super) struct Load {
    clients: Vec<Client>,
    shape: Shape,
    size: usize,
    /// Where a piece is received.
    room: Box<[u8; PIECE]>,
    opened: u64,
}

impl Load {
    /// Connects the clients to `to`, with a key for each where keys are spoken of.
    pub(in super::super) fn new(
        to: SocketAddr,
        speech: Speech,
        shape: Shape,
        size: usize,
        keys: &[PresharedKey],
    ) -> Result<Self, Fail> {
        let mut rng = ChaCha8Rng::seed_from_u64(u64::from(to.port()) ^ shape.clients as u64);
        let clients = (0..shape.clients).map(|i| {
            let socket = connected(to)?;
            let talk = match speech {
                Speech::Plain => Talk::Plain,
                Speech::Ours => {
                    Talk::Ours(Session::knock(&socket, &keys[i % keys.len()], &mut rng)?)
                }
                Speech::Irtt => Talk::Irtt(Connection::open(&socket, size)?),
            };
            send_pieces(&socket, size)
                .and_then(|()| socket.set_nonblocking(true))
                .map_err(|e| Fail::of("a socket of the load", e))?;
            Ok(Client {
                socket,
                talk,
                datagrams: Vec::new(),
                next: 0,
                outstanding: 0,
            })
        });
        Ok(Self {
            clients: clients.collect::<Result<_, Fail>>()?,
            shape,
            size,
            room: Box::new([0; PIECE]),
            opened: 0,
        })
    }

    /// Makes `count` datagrams for the clients together.
    pub(in super::super) fn prepare(&mut self, count: usize) {
        let each = count
            .div_ceil(self.clients.len())
            .next_multiple_of(self.shape.train);
        for client in &mut self.clients {
            client.next = 0;
            client.datagrams.resize(each * self.size, 0);
            for datagram in client.datagrams.chunks_exact_mut(self.size) {
                match &mut client.talk {
                    Talk::Plain => {}
                    Talk::Ours(session) => session.probe(datagram),
                    Talk::Irtt(connection) => connection.request(datagram),
                }
            }
        }
    }

    /// Sends as fast as echoes come back for `time`, or until everything is sent.
    pub(in super::super) fn run(&mut self, time: Duration) -> Result<Outcome, Fail> {
        self.drive(time, None)
    }

    /// Sends one datagram every `period_ns`, whatever comes back. What it missed while it stood still is left out: in
    /// one go it would be another load.
    pub(in super::super) fn run_paced(
        &mut self,
        time: Duration,
        period_ns: u64,
    ) -> Result<Outcome, Fail> {
        self.drive(time, Some(period_ns))
    }

    fn drive(&mut self, time: Duration, period_ns: Option<u64>) -> Result<Outcome, Fail> {
        let cpu = || counters::thread_cpu_ns().map_err(|e| Fail::of("CPU time of the load", e));
        let mut outcome = Outcome::default();
        let cpu_before_ns = cpu()?;
        let begun = Instant::now();
        let mut last_echo = begun;
        let mut sent = 0u64;
        let mut turn = 0;
        loop {
            let now = Instant::now();
            let elapsed = now - begun;
            if elapsed >= time {
                break;
            }
            let index = turn % self.clients.len();
            turn += 1;
            let client = &mut self.clients[index];
            let mut count = 0;
            // Each look at an empty socket costs as much as an echo.
            while client.outstanding > 0 {
                let came = client.receive(&mut self.room, self.size, &mut self.opened)?;
                count += came as u64;
                if came == 0 {
                    break;
                }
            }
            if count > 0 {
                outcome.echoes += count;
                last_echo = now;
            } else if period_ns.is_none() && now - last_echo > SILENCE {
                for client in &mut self.clients {
                    outcome.lost += std::mem::take(&mut client.outstanding) as u64;
                }
                last_echo = now;
                continue;
            }
            let wanted = match period_ns {
                None => match self.shape.window.saturating_sub(client.outstanding) {
                    free if free >= self.shape.train => free - free % self.shape.train,
                    _ => 0,
                },
                Some(period_ns) => {
                    let due = elapsed.as_nanos() as u64 / period_ns;
                    let late = due.saturating_sub(sent + outcome.skipped);
                    outcome.skipped += late.saturating_sub(MOST_LATE);
                    late.min(1) as usize
                }
            };
            if wanted > 0 {
                let done = client.send(self.size, wanted.min(BATCH));
                sent += done as u64;
                if done == 0 && client.next * self.size >= client.datagrams.len() {
                    break;
                }
            }
        }
        outcome.wall_ns = begun.elapsed().as_nanos() as u64;
        outcome.cpu_ns = cpu()? - cpu_before_ns;
        // What is still on its way must not be counted in the next round.
        std::thread::sleep(SILENCE);
        for client in &mut self.clients {
            while client.receive(&mut self.room, self.size, &mut self.opened)? > 0 {}
            if period_ns.is_some() {
                outcome.lost += client.outstanding as u64;
            }
            client.outstanding = 0;
        }
        Ok(outcome)
    }

    /// How many echoes were opened and found right.
    pub(super) const fn opened(&self) -> u64 {
        self.opened
    }
}

/// A socket on loopback that talks to `to` only.
pub(super) fn connected(to: SocketAddr) -> Result<UdpSocket, Fail> {
    let open = || {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.connect(to)?;
        // For the knocks; under load nothing is waited for.
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        SockRef::from(&socket).set_recv_buffer_size(4 << 20)?;
        take_pieces(&socket)?;
        Ok(socket)
    };
    open().map_err(|e: std::io::Error| Fail::of("a socket on loopback", e))
}

/// Has datagrams that were sent in one piece be received as one. To take them apart is the work of the host
/// that receives them, which on loopback the sender's CPU would do.
fn take_pieces(socket: &UdpSocket) -> std::io::Result<()> {
    set(socket, libc::UDP_GRO, 1)
}

/// Has what is sent at once be datagrams of `size` bytes each. They are taken apart where they are received, on
/// the CPU that sends them: that leaves it time to send more than whoever answers can echo.
fn send_pieces(socket: &UdpSocket, size: usize) -> std::io::Result<()> {
    set(socket, libc::UDP_SEGMENT, size as libc::c_int)
}

/// Sets an option of UDP.
fn set(socket: &UdpSocket, option: libc::c_int, value: libc::c_int) -> std::io::Result<()> {
    // SAFETY: the value is an int that lives until the call returns.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

/// Keeps this thread on `cpu`.
pub(in super::super) fn stay_on(cpu: usize) -> Result<(), Fail> {
    host::run_on(&[cpu]).map_err(|e| Fail::of(format!("running on CPU {cpu}"), e))
}

/// Longest piece that is received: as much as the reflector sends at once.
const PIECE: usize = 8192;

impl Client {
    /// Takes the next piece that has come into `room`: how many echoes it is. Those that were sent in one piece
    /// come in one.
    fn receive(
        &mut self,
        room: &mut [u8; PIECE],
        size: usize,
        opened: &mut u64,
    ) -> Result<usize, Fail> {
        // Nothing has come, or an ICMP message was told, after which there is more to hear at the next turn.
        let Ok(len) = self.socket.recv(room) else {
            return Ok(0);
        };
        let piece = &room[..len];
        // An empty one has no datagram in it.
        let whole = !piece.is_empty() && piece.len().is_multiple_of(size);
        let mut count = 0;
        for datagram in piece.chunks(size) {
            let right = match &self.talk {
                Talk::Plain => true,
                Talk::Ours(session) if (*opened).is_multiple_of(OPENED) => session.opens(datagram),
                Talk::Ours(session) => session.is_echo(datagram),
                Talk::Irtt(connection) => connection.is_echo(datagram),
            };
            if !right || !whole {
                return Err(Fail::Failed(
                    "an answer is not the echo that was asked for".into(),
                ));
            }
            *opened += 1;
            count += 1;
        }
        self.outstanding = self.outstanding.saturating_sub(count);
        Ok(count)
    }

    /// Sends up to `count` of what is ready, in one piece: how many left.
    fn send(&mut self, size: usize, count: usize) -> usize {
        let ready = &self.datagrams[self.next * size..];
        let most = count.min(MOST_BYTES / size) * size;
        let piece = &ready[..ready.len().min(most)];
        // What finds no room is sent at the next turn.
        let sent = self.socket.send(piece).unwrap_or(0);
        self.next += sent / size;
        self.outstanding += sent / size;
        sent / size
    }
}
