//! Echoes per second of the engine on one core, against plain loops.
//!
//!     cargo run --release -p bufferbane-linux-io --example echo [ROUNDS [SECONDS]]
//!
//! All loops answer the same load in turns (172-byte datagrams over loopback, a window of them
//! outstanding) from a thread pinned to CPU 0; the load comes from CPU 1. What is compared is
//! echoes per second of CPU time that the answering thread used, by the medians of the rounds.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bufferbane_linux_io::support::Features;
use bufferbane_linux_io::{
    Engine, EngineOptions, Event, Family, Outbox, ProbeSocket, Transmit, clock, counters, host,
};

const SIZE: usize = 172;
const WINDOW: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Answerer {
    /// `recvfrom` and `sendto`: no stamps, nothing known about the datagram.
    Plain,
    /// `recvmsg` and `sendmsg` with receive stamps, TTL, TOS and addresses as the engine has them.
    PlainStamped,
    /// The engine with neither stamps nor facts about the datagram.
    Bare,
    /// The engine with receive stamps, TTL and TOS.
    Received,
    /// The same with transmit stamps.
    Stamped,
    /// The same on a socket bound to any address, which answers from the one that was hit.
    Wildcard,
    /// The same without the kernel features after Linux 6.1.
    Fallbacks,
}

const ALL: [Answerer; 7] = [
    Answerer::Plain,
    Answerer::PlainStamped,
    Answerer::Bare,
    Answerer::Received,
    Answerer::Stamped,
    Answerer::Wildcard,
    Answerer::Fallbacks,
];

#[derive(Clone, Copy, Default)]
struct Outcome {
    echoes: u64,
    stamps: u64,
    cpu_ns: u64,
    wall_ns: u64,
}

impl Outcome {
    fn per_cpu_second(&self) -> f64 {
        self.echoes as f64 / (self.cpu_ns as f64 / 1e9)
    }

    fn per_second(&self) -> f64 {
        self.echoes as f64 / (self.wall_ns as f64 / 1e9)
    }
}

fn plain(socket: &UdpSocket, stop: &AtomicBool, outcome: &mut Outcome) -> io::Result<()> {
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((len, from)) = socket.recv_from(&mut buffer) {
            socket.send_to(&buffer[..len], from)?;
            outcome.echoes += 1;
        }
    }
    Ok(())
}

/// The same facts by ordinary system calls: receive stamps, TTL, TOS, and the address that was hit
/// as the answer's source.
fn plain_stamped(socket: &UdpSocket, stop: &AtomicBool, outcome: &mut Outcome) -> io::Result<()> {
    const SO_TIMESTAMPING_NEW: i32 = 65;
    const RECEIVE_SOFTWARE: i32 = 1 << 3 | 1 << 4;
    let fd = socket.as_raw_fd();
    for (level, name, value) in [
        (libc::IPPROTO_IP, libc::IP_PKTINFO, 1),
        (libc::IPPROTO_IP, libc::IP_RECVTTL, 1),
        (libc::IPPROTO_IP, libc::IP_RECVTOS, 1),
        (libc::SOL_SOCKET, SO_TIMESTAMPING_NEW, RECEIVE_SOFTWARE),
    ] {
        let value: i32 = value;
        // SAFETY: the value is an int that lives until the call returns.
        unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), 4) };
    }
    let mut buffer = [0u8; 2048];
    let mut facts = [0u64; 32];
    // IP_PKTINFO with 127.0.0.1 as the source: length, level and type, index and source.
    let info_type = (libc::IP_PKTINFO as u64) << 32 | libc::IPPROTO_IP as u64;
    let source = u64::from(u32::from_ne_bytes([127, 0, 0, 1])) << 32;
    let mut control = [28u64, info_type, source, 0];
    // SAFETY: both are integers and pointers, for which zero is a valid value.
    let (mut name, mut header): (libc::sockaddr_in, libc::msghdr) = unsafe { std::mem::zeroed() };
    while !stop.load(Ordering::Relaxed) {
        let mut vector = libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: SIZE,
        };
        header.msg_name = (&raw mut name).cast();
        header.msg_namelen = size_of::<libc::sockaddr_in>() as u32;
        header.msg_iov = &raw mut vector;
        header.msg_iovlen = 1;
        header.msg_control = facts.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&facts) as _;
        // SAFETY: the header points to memory of the lengths it says, all of which is on the stack.
        let len = unsafe { libc::recvmsg(fd, &raw mut header, 0) };
        if len != SIZE as isize {
            continue;
        }
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&control) as _;
        // SAFETY: as above.
        if unsafe { libc::sendmsg(fd, &raw const header, 0) } >= 0 {
            outcome.echoes += 1;
        }
    }
    Ok(())
}

fn engine(
    kind: Answerer,
    port: u16,
    ready: &AtomicBool,
    stop: &AtomicBool,
    outcome: &mut Outcome,
) -> io::Result<()> {
    let other = |e: &dyn std::fmt::Display| io::Error::other(e.to_string());
    let transmit = matches!(
        kind,
        Answerer::Stamped | Answerer::Wildcard | Answerer::Fallbacks
    );
    let address = match kind {
        Answerer::Wildcard | Answerer::Fallbacks => Ipv4Addr::UNSPECIFIED,
        _ => Ipv4Addr::LOCALHOST,
    };
    let options = EngineOptions {
        features: match kind {
            Answerer::Fallbacks => Features::NONE,
            _ => Features::ALL,
        },
        ..EngineOptions::reflector()
    };
    let mut engine = Engine::new(&options).map_err(|e| other(&e))?;
    let socket = ProbeSocket::udp(Family::V4)
        .bind(SocketAddr::from((address, port)))
        .receive_buffer(4 << 20)
        .stamps(kind != Answerer::Bare, transmit)
        .header_facts(kind != Answerer::Bare)
        .count_stamps(true)
        .build()
        .map_err(|e| other(&e))?;
    engine.add_socket(socket).map_err(|e| other(&e))?;
    ready.store(true, Ordering::Relaxed);
    while !stop.load(Ordering::Relaxed) {
        let until = clock::now().saturating_add(50_000_000);
        let mut on_event = |out: &mut Outbox<'_>, event: Event<'_>| match event {
            Event::Received {
                socket,
                meta,
                bytes,
            } => {
                let reply = Transmit {
                    from: meta.to,
                    ..Transmit::new(socket, meta.from, outcome.echoes as u32)
                };
                if out.send(&reply, bytes).is_ok() {
                    outcome.echoes += 1;
                }
            }
            Event::TxStamp { .. } => outcome.stamps += 1,
            _ => {}
        };
        engine.wait(until, &mut on_event).map_err(|e| other(&e))?;
    }
    Ok(())
}

/// Sends and counts what comes back, never more than the window outstanding.
fn load(to: SocketAddr, stop: &AtomicBool) -> io::Result<()> {
    host::run_on(&[1])?;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    let datagram = [7; SIZE];
    let mut buffer = [0; 2048];
    let mut outstanding = 0;
    while !stop.load(Ordering::Relaxed) {
        while outstanding < WINDOW {
            // Refused after the answering end has ended.
            let _ = socket.send(&datagram);
            outstanding += 1;
        }
        // Half of the window at a time, so that both ends work in batches as under real load.
        while outstanding > WINDOW / 2 {
            match socket.recv(&mut buffer) {
                Ok(_) => outstanding -= 1,
                Err(_) => outstanding = 0,
            }
        }
    }
    Ok(())
}

fn run(kind: Answerer, time: Duration) -> io::Result<Outcome> {
    let stop = Arc::new(AtomicBool::new(false));
    let ready = Arc::new(AtomicBool::new(false));
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    let port = socket.local_addr()?.port();
    let (answer_stop, answer_ready) = (Arc::clone(&stop), Arc::clone(&ready));
    let answering = std::thread::spawn(move || -> io::Result<Outcome> {
        host::run_on(&[0])?;
        let mut outcome = Outcome::default();
        let begun = Instant::now();
        match kind {
            Answerer::Plain | Answerer::PlainStamped => {
                answer_ready.store(true, Ordering::Relaxed);
                if kind == Answerer::Plain {
                    plain(&socket, &answer_stop, &mut outcome)?;
                } else {
                    plain_stamped(&socket, &answer_stop, &mut outcome)?;
                }
            }
            _ => {
                drop(socket);
                engine(kind, port, &answer_ready, &answer_stop, &mut outcome)?;
            }
        }
        outcome.wall_ns = begun.elapsed().as_nanos() as u64;
        outcome.cpu_ns = counters::thread_cpu_ns()?;
        Ok(outcome)
    });
    while !ready.load(Ordering::Relaxed) && !answering.is_finished() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let load_stop = Arc::clone(&stop);
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let loading = std::thread::spawn(move || load(to, &load_stop));
    std::thread::sleep(time);
    stop.store(true, Ordering::Relaxed);
    let failed = |_| io::Error::other("a thread panicked");
    loading.join().map_err(failed)??;
    answering.join().map_err(failed)?
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1).filter_map(|a| a.parse().ok());
    let rounds: f64 = arguments.next().unwrap_or(5.0);
    let time = Duration::from_secs_f64(arguments.next().unwrap_or(1.0));
    let mut outcomes = [const { Vec::new() }; ALL.len()];
    for _ in 0..rounds as usize {
        for (kind, outcomes) in ALL.iter().zip(&mut outcomes) {
            outcomes.push(run(*kind, time)?);
        }
    }
    println!("{SIZE}-byte datagrams over loopback, medians of {rounds} alternating rounds");
    println!(
        "{:<14}{:>12}{:>16}{:>10}{:>18}{:>18}",
        "loop", "echoes/s", "per CPU second", "to plain", "to plain stamped", "stamps per echo"
    );
    let per_cpu = |i: usize| median(outcomes[i].iter().map(Outcome::per_cpu_second));
    for (i, kind) in ALL.iter().enumerate() {
        let echoes: u64 = outcomes[i].iter().map(|o| o.echoes).sum();
        let stamps: u64 = outcomes[i].iter().map(|o| o.stamps).sum();
        println!(
            "{:<14}{:>12.0}{:>16.0}{:>10.2}{:>18.2}{:>18.3}",
            format!("{kind:?}"),
            median(outcomes[i].iter().map(Outcome::per_second)),
            per_cpu(i),
            per_cpu(i) / per_cpu(0),
            per_cpu(i) / per_cpu(1),
            stamps as f64 / echoes.max(1) as f64
        );
    }
    Ok(())
}
