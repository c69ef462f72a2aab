//! A client over an ordinary socket, with stamps of its own clock.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "of the tests of the reflector, its refusals and the lab each program uses a part"
)]

pub mod memory;

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bufferbane_config::keyfile;
use bufferbane_core::flight::{LossSlot, Slot};
use bufferbane_core::load::guest::{Grant, Guest, GuestState};
use bufferbane_core::load::write_token;
use bufferbane_core::packet::{RecvMeta, SendOutcome};
use bufferbane_core::sample::{Observation, Sample, SeriesIndex};
use bufferbane_core::seal::{KeyId, PresharedKey, Secret};
use bufferbane_core::session::client::{Client, SessionEvent, StreamConfig};
use bufferbane_core::time::Stamp;
use bufferbane_core::wire::header::{Kind, Prefix};
use bufferbane_linux_io::tcp::{TcpOptions, TcpSocket};
use bufferbane_linux_io::{Bulk, BulkEvent, Family, Role, clock};
use bufferbane_reflector::Running;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use socket2::{Domain, Socket, Type};

pub const MS: u64 = 1_000_000;
/// The most that anything may take on a busy machine.
pub const LONG: Duration = Duration::from_secs(10);

/// Says that a test is left out; in CI that is a failure.
pub fn skip(why: &str) {
    // Not by a macro, whose output a passing test keeps to itself.
    let _ = std::io::Write::write_all(
        &mut std::io::stderr(),
        format!("SKIPPED: {why}\n").as_bytes(),
    );
    assert!(std::env::var_os("CI").is_none(), "skipped in CI: {why}");
}

pub fn key(n: u8) -> PresharedKey {
    PresharedKey {
        id: KeyId([n; 8]),
        // Not one byte over and over, of which there may be a run anywhere in memory.
        secret: Secret::new(std::array::from_fn(|i| {
            (n ^ 0x55).wrapping_mul(i as u8 | 1)
        })),
    }
}

pub fn key_file(dir: &Path, n: u8) -> PathBuf {
    let path = dir.join(format!("{n}.key"));
    keyfile::write_new(&path, &key(n)).unwrap();
    path
}

pub struct Prober {
    client: Client<Vec<Slot>, Vec<LossSlot>>,
    socket: UdpSocket,
    rng: ChaCha20Rng,
    pub samples: Vec<Sample>,
    pub events: Vec<SessionEvent>,
    /// Asks for a throughput test beside probing.
    pub guest: Option<Guest>,
    /// When datagrams of a test over UDP came, and what they were.
    pub loads: Vec<(Instant, Vec<u8>)>,
}

fn socket_between(own: IpAddr, to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((own, 0)).unwrap();
    socket.connect(to).unwrap();
    socket
}

impl Prober {
    /// 200 probes a second of 200 bytes, each given up after 300 ms.
    pub fn new(key: PresharedKey, to: SocketAddr) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(7);
        let now = clock::now();
        let mut client = Client::new(key, now, &mut rng);
        let config = StreamConfig {
            series: SeriesIndex(0),
            size: 200,
            interval_ns: 5 * MS,
            spread_permille: 500,
            timeout_ns: 300 * MS,
        };
        client
            .add_stream(
                config,
                now,
                vec![Slot::default(); 512],
                vec![LossSlot::default(); 512],
                &mut rng,
            )
            .unwrap();
        let own: IpAddr = if to.is_ipv6() {
            Ipv6Addr::UNSPECIFIED.into()
        } else {
            Ipv4Addr::UNSPECIFIED.into()
        };
        Self {
            client,
            socket: socket_between(own, to),
            rng,
            samples: Vec::new(),
            events: Vec::new(),
            guest: None,
            loads: Vec::new(),
        }
    }

    /// Sends this beside what it has to say.
    pub fn send(&self, datagram: &[u8]) {
        self.socket.send(datagram).unwrap();
    }

    /// Sends the first order of `guest` as often, at once.
    pub fn order(&mut self, mut guest: Guest, times: usize) {
        let order = guest.poll_order(clock::now()).unwrap();
        for _ in 0..times {
            let datagram = self.client.write_order(&order).unwrap();
            self.send(&datagram);
        }
    }

    /// Says nothing for as long, and takes what comes of a test over UDP.
    pub fn listen(&mut self, time: Duration) {
        let end = Instant::now() + time;
        let mut bytes = [0; 2048];
        self.socket
            .set_read_timeout(Some(Duration::from_millis(5)))
            .unwrap();
        while Instant::now() < end {
            if let Ok(len) = self.socket.recv(&mut bytes)
                && Prefix::kind_of(&bytes[..len]) == Ok(Kind::Load)
            {
                self.loads.push((Instant::now(), bytes[..len].to_vec()));
            }
        }
    }

    pub fn own_address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    /// Goes on from another address.
    pub fn move_to(&mut self, own: IpAddr) {
        self.socket = socket_between(own, self.socket.peer_addr().unwrap());
    }

    pub fn is_answering(&self) -> bool {
        self.client.is_answering()
    }

    /// Probes for as long.
    pub fn run(&mut self, time: Duration) {
        let end = Instant::now() + time;
        let mut bytes = [0; 2048];
        while Instant::now() < end {
            let now = clock::now();
            self.client.handle_timeout(now);
            while let Some((len, token)) = self.client.poll_transmit(now, &mut self.rng, &mut bytes)
            {
                // Refused while the far end is away.
                let _ = self.socket.send(&bytes[..len]);
                let left = Stamp::user(clock::now());
                self.client.handle_sent(token, SendOutcome::Stamped(left));
            }
            if let Some(guest) = &mut self.guest
                && self.client.is_answering()
            {
                guest.handle_timeout(now);
                if let Some(order) = guest.poll_order(now)
                    && let Some(datagram) = self.client.write_order(&order)
                {
                    let _ = self.socket.send(&datagram);
                }
            }
            self.socket
                .set_read_timeout(Some(Duration::from_millis(1)))
                .unwrap();
            match self.socket.recv_from(&mut bytes) {
                Ok((len, _)) if Prefix::kind_of(&bytes[..len]) == Ok(Kind::Report) => {
                    let report = self.client.open_report(clock::now(), &mut bytes[..len]);
                    if let (Some(guest), Ok(report)) = (&mut self.guest, report) {
                        let _ = guest.handle_report(clock::now(), &report);
                    }
                }
                Ok((len, _)) if Prefix::kind_of(&bytes[..len]) == Ok(Kind::Load) => {
                    self.loads.push((Instant::now(), bytes[..len].to_vec()));
                }
                Ok((len, from)) => {
                    let meta = RecvMeta {
                        at: Stamp::user(clock::now()),
                        from,
                        to: None,
                        ttl: Some(64),
                        tos: Some(0),
                        socket_drops: 0,
                        truncated: false,
                    };
                    let _ = self
                        .client
                        .handle_reply(clock::now(), &meta, &mut bytes[..len]);
                }
                Err(e) => assert!(
                    matches!(
                        e.kind(),
                        ErrorKind::WouldBlock
                            | ErrorKind::TimedOut
                            | ErrorKind::ConnectionRefused
                            // A ring of this process had work for the thread.
                            | ErrorKind::Interrupted
                    ),
                    "{e}"
                ),
            }
            while let Some(o) = self.client.poll_observation() {
                match o {
                    Observation::New(s) => self.samples.push(s),
                    Observation::Revised(s) => {
                        *self.samples.iter_mut().find(|x| x.seq == s.seq).unwrap() = s;
                    }
                }
            }
            while let Some(e) = self.client.poll_event() {
                // Whether somebody keeps this host's clock right is no matter of the session.
                if !matches!(e, SessionEvent::RemoteClock { .. }) {
                    self.events.push(e);
                }
            }
        }
    }
}

/// A client that has asked and been answered so that `wanted` holds.
pub fn asking(r: &Running, n: u8, guest: Guest, wanted: impl Fn(GuestState) -> bool) -> Prober {
    let mut prober = Prober::new(key(n), r.listen()[0]);
    prober.guest = Some(guest);
    until(&mut prober, wanted);
    prober
}

/// Runs a client until its test is as `wanted`.
pub fn until(prober: &mut Prober, wanted: impl Fn(GuestState) -> bool) {
    let end = Instant::now() + LONG;
    loop {
        prober.run(Duration::from_millis(20));
        let state = prober.guest.as_ref().unwrap().state();
        if wanted(state) {
            return;
        }
        assert!(Instant::now() < end, "{state:?}");
    }
}

/// Whether `from` is let in at `to`; whoever is not hears nothing.
pub fn connects(from: [u8; 4], to: SocketAddr) -> bool {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    match socket.connect_timeout(&to.into(), Duration::from_millis(300)) {
        Ok(()) => true,
        Err(e) => {
            assert_eq!(e.kind(), ErrorKind::TimedOut, "{e}");
            false
        }
    }
}

/// What the streams of a test have carried so far, bytes of this end.
#[derive(Default)]
struct Carried {
    sent: AtomicU64,
    received: AtomicU64,
    over: AtomicBool,
}

/// Runs the streams of a granted test for as long; gives what was sent and received here.
pub fn load(prober: &mut Prober, at: SocketAddr, roles: &[Role], time: Duration) -> (u64, u64) {
    let end = Instant::now() + time;
    load_while(prober, at, roles, |_, _| Instant::now() < end)
}

/// The same, for as long as `going` says so, which is asked each millisecond or so with what has been
/// received here so far.
pub fn load_while(
    prober: &mut Prober,
    at: SocketAddr,
    roles: &[Role],
    going: impl FnMut(&Prober, u64) -> bool,
) -> (u64, u64) {
    let (sent, received, ended) = carry(prober, at, roles, going);
    assert!(!ended, "a stream was ended");
    (sent, received)
}

/// The same, until the reflector ends one of them; gives what was received here.
pub fn load_to_the_end(prober: &mut Prober, at: SocketAddr, roles: &[Role]) -> u64 {
    let end = Instant::now() + Duration::from_secs(10);
    let (_, received, ended) = carry(prober, at, roles, |_, _| Instant::now() < end);
    assert!(ended, "no stream was ended");
    received
}

/// What was sent and received here, and whether the reflector ended one of the streams.
fn carry(
    prober: &mut Prober,
    at: SocketAddr,
    roles: &[Role],
    mut going: impl FnMut(&Prober, u64) -> bool,
) -> (u64, u64, bool) {
    let grant = prober.guest.as_ref().unwrap().grant().unwrap().clone();
    let to = SocketAddr::new(at.ip(), grant.port);
    let carried = Carried::default();
    // On a thread of their own: what streams carry must not wait for probes, which wait for answers.
    let ended = std::thread::scope(|threads| {
        let streams = threads.spawn(|| carried.run(to, &grant, roles));
        while !streams.is_finished() && going(prober, carried.received.load(Relaxed)) {
            prober.run(Duration::from_millis(1));
        }
        carried.over.store(true, Relaxed);
        streams.join().expect("no panic")
    });
    let (sent, received) = (carried.sent.into_inner(), carried.received.into_inner());
    (sent, received, ended)
}

impl Carried {
    /// Connects to `to` and carries all that can be until it is over, or the far end has ended a stream; whether
    /// that is so.
    fn run(&self, to: SocketAddr, grant: &Grant, roles: &[Role]) -> bool {
        let mut bulk = Bulk::new(8, |b| b.fill(3)).unwrap();
        let options = TcpOptions {
            interface: None,
            source: None,
            mark: None,
            dscp: 0,
            congestion: "reno".into(),
        };
        let streams: Vec<_> = roles
            .iter()
            .map(|_| {
                let socket = TcpSocket::new(Family::of(&to.ip()), &options).unwrap();
                bulk.connect(socket, to).unwrap()
            })
            .collect();
        let mut events = Vec::new();
        while !self.over.load(Relaxed) {
            bulk.wait(clock::now().saturating_add(MS), &mut events)
                .unwrap();
            for event in events.drain(..) {
                match event {
                    BulkEvent::Connected(id) => {
                        let n = streams.iter().position(|s| *s == id).unwrap();
                        let token = write_token(grant.handle, &grant.secret, n as u8);
                        bulk.begin(id, roles[n], &token).unwrap();
                    }
                    BulkEvent::Sent { bytes, .. } => {
                        self.sent.fetch_add(bytes, Relaxed);
                    }
                    BulkEvent::Received { bytes, .. } => {
                        self.received.fetch_add(bytes, Relaxed);
                    }
                    BulkEvent::Ended(..) => return true,
                    _ => {}
                }
            }
        }
        false
    }
}
