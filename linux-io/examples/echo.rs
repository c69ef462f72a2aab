//! Echoes per second of a reflector's loop on one core, against a plain `recvfrom`/`sendto` loop.
//!
//!     cargo run --release -p bufferbane-linux-io --example echo [ROUNDS [SECONDS]]
//!
//! Both loops answer the same load in turns (172-byte datagrams over loopback, kept to a window of
//! outstanding ones) from a thread pinned to CPU 0; the load comes from CPU 1. What is compared is
//! echoes per second of CPU time that the answering thread used, and the medians of the rounds.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bufferbane_linux_io::support::Features;
use bufferbane_linux_io::{
    Engine, EngineOptions, Event, Family, Outbox, ProbeSocket, Transmit, clock, counters, host,
};

const SIZE: usize = 172;
const WINDOW: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Answerer {
    /// A blocking loop, one system call per datagram each way, no stamps.
    Plain,
    /// The engine without stamps.
    Bare,
    /// The engine with receive stamps.
    Receive,
    /// The engine with receive and transmit stamps, as the reflector runs it.
    Both,
    /// The same without the kernel features after Linux 6.1.
    BothFallback,
}

const ALL: [Answerer; 5] = [
    Answerer::Plain,
    Answerer::Bare,
    Answerer::Receive,
    Answerer::Both,
    Answerer::BothFallback,
];

#[derive(Clone, Copy, Default)]
struct Result {
    echoes: u64,
    stamps: u64,
    cpu_ns: u64,
    wall_ns: u64,
}

impl Result {
    fn per_cpu_second(&self) -> f64 {
        self.echoes as f64 / (self.cpu_ns as f64 / 1e9)
    }

    fn per_second(&self) -> f64 {
        self.echoes as f64 / (self.wall_ns as f64 / 1e9)
    }
}

fn plain(socket: &UdpSocket, stop: &AtomicBool, result: &mut Result) -> io::Result<()> {
    let mut buffer = [0; 2048];
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    while !stop.load(Ordering::Relaxed) {
        if let Ok((len, from)) = socket.recv_from(&mut buffer) {
            socket.send_to(&buffer[..len], from)?;
            result.echoes += 1;
        }
    }
    Ok(())
}

fn engine(kind: Answerer, port: u16, stop: &AtomicBool, result: &mut Result) -> io::Result<()> {
    let other = |e: &dyn std::fmt::Display| io::Error::other(e.to_string());
    let features = match kind {
        Answerer::BothFallback => Features::NONE,
        _ => Features::ALL,
    };
    let options = EngineOptions {
        features,
        ..EngineOptions::reflector()
    };
    let mut engine = Engine::new(&options).map_err(|e| other(&e))?;
    let socket = ProbeSocket::udp(Family::V4)
        .bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))
        .receive_buffer(4 << 20)
        .stamps(
            kind != Answerer::Bare,
            matches!(kind, Answerer::Both | Answerer::BothFallback),
        )
        .build()
        .map_err(|e| other(&e))?;
    engine.add_socket(socket).map_err(|e| other(&e))?;
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
                    ..Transmit::new(socket, meta.from, result.echoes as u32)
                };
                if out.send(&reply, bytes).is_ok() {
                    result.echoes += 1;
                }
            }
            Event::TxStamp { .. } => result.stamps += 1,
            _ => {}
        };
        engine.wait(until, &mut on_event).map_err(|e| other(&e))?;
    }
    Ok(())
}

/// Sends and counts what comes back, never more than the window outstanding.
fn load(to: SocketAddr, stop: &AtomicBool, answered: &AtomicU64) -> io::Result<()> {
    let _ = host::run_on(&[1]);
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    let datagram = [7; SIZE];
    let mut buffer = [0; 2048];
    let mut outstanding = 0;
    while !stop.load(Ordering::Relaxed) {
        while outstanding < WINDOW {
            // Refused while the answering end starts and after it has ended.
            let _ = socket.send(&datagram);
            outstanding += 1;
        }
        // Half of the window at a time, so that both ends work in batches as under real load.
        while outstanding > WINDOW / 2 {
            match socket.recv(&mut buffer) {
                Ok(_) => {
                    outstanding -= 1;
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                Err(_) => outstanding = 0,
            }
        }
    }
    Ok(())
}

fn run(kind: Answerer, time: Duration) -> io::Result<Result> {
    let stop = Arc::new(AtomicBool::new(false));
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let port = socket.local_addr()?.port();
    let answer_stop = Arc::clone(&stop);
    let answering = std::thread::spawn(move || {
        let _ = host::run_on(&[0]);
        let mut result = Result::default();
        let begun = Instant::now();
        let done = if kind == Answerer::Plain {
            plain(&socket, &answer_stop, &mut result)
        } else {
            drop(socket);
            engine(kind, port, &answer_stop, &mut result)
        };
        result.wall_ns = begun.elapsed().as_nanos() as u64;
        result.cpu_ns = counters::thread_cpu_ns()?;
        done.map(|()| result)
    });
    // The engine needs a moment before its port answers.
    std::thread::sleep(Duration::from_millis(50));
    let answered = Arc::new(AtomicU64::new(0));
    let (load_stop, count) = (Arc::clone(&stop), Arc::clone(&answered));
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let loading = std::thread::spawn(move || load(to, &load_stop, &count));
    std::thread::sleep(time);
    stop.store(true, Ordering::Relaxed);
    let failed = |_| io::Error::other("a thread panicked");
    loading.join().map_err(failed)??;
    answering.join().map_err(failed)?
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

fn main() -> io::Result<()> {
    let mut arguments = std::env::args()
        .skip(1)
        .filter_map(|a| a.parse::<f64>().ok());
    let rounds: usize = arguments.next().unwrap_or(5.0) as usize;
    let time = Duration::from_secs_f64(arguments.next().unwrap_or(1.0));
    let mut results = [const { Vec::new() }; ALL.len()];
    for _ in 0..rounds {
        for (kind, results) in ALL.iter().zip(&mut results) {
            results.push(run(*kind, time)?);
        }
    }
    println!("{SIZE}-byte datagrams over loopback, medians of {rounds} alternating rounds");
    println!(
        "{:<14}{:>12}{:>16}{:>8}{:>18}",
        "loop", "echoes/s", "per CPU second", "ratio", "stamps per echo"
    );
    let base = median(results[0].iter().map(Result::per_cpu_second).collect());
    for (kind, results) in ALL.iter().zip(&results) {
        let per_cpu = median(results.iter().map(Result::per_cpu_second).collect());
        let per_second = median(results.iter().map(Result::per_second).collect());
        let echoes: u64 = results.iter().map(|r| r.echoes).sum();
        let stamps: u64 = results.iter().map(|r| r.stamps).sum();
        println!(
            "{:<14}{per_second:>12.0}{per_cpu:>16.0}{:>8.2}{:>18.3}",
            format!("{kind:?}"),
            per_cpu / base,
            stamps as f64 / echoes.max(1) as f64
        );
    }
    Ok(())
}
