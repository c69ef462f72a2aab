//! The streams of this project, a thread at each end.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::Duration;

use bufferbane_core::time::Monotonic;
use bufferbane_core::wire::load::TOKEN_LEN;
use bufferbane_linux_io::admission::{self, Prefix};
use bufferbane_linux_io::tcp::{TcpListening, TcpOptions, TcpSocket};
use bufferbane_linux_io::{Bulk, BulkEvent, Family, Role, StreamId, clock, host};
use nix::time::ClockId;

use super::super::Fail;
use super::{CLIENT, CLIENT_CPU, Round, SERVER, SERVER_CPU, Shape, Site, address};

/// How much longer than the test the server waits for its streams to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// Nobody looks at what is sent.
const BYTE: u8 = 0xa5;

/// What one end did.
#[derive(Clone, Copy, Debug, Default)]
struct End {
    /// Received bytes.
    bytes: u64,
    /// When the first and the last of them were.
    first: Option<Monotonic>,
    last: Option<Monotonic>,
    cpu_s: f64,
}

/// Sends from one namespace to the other for as long as is asked.
pub(super) fn round(site: &Site, shape: Shape) -> Result<Round, Fail> {
    let before_s = used_s(ClockId::CLOCK_PROCESS_CPUTIME_ID)?;
    let (tell, told) = mpsc::channel();
    let failed = |e| Fail::of("entering a namespace", e);
    let server = site
        .server
        .spawn(move || serve(shape, &tell))
        .map_err(failed)?;
    let Ok(to) = told.recv() else {
        return Err(match server.join() {
            Ok(Err(e)) => e,
            _ => Fail::Failed("the server ended before it listened".into()),
        });
    };
    let client = site.client.spawn(move || load(shape, to)).map_err(failed)?;
    let join = |thread: std::thread::JoinHandle<Result<End, Fail>>| {
        let end = thread.join();
        end.unwrap_or_else(|_| Err(Fail::Failed("an end of the streams panicked".into())))
    };
    let (client, server) = (join(client)?, join(server)?);
    let both_s = used_s(ClockId::CLOCK_PROCESS_CPUTIME_ID)? - before_s;
    let (sender, receiver) = if shape.up {
        (client, server)
    } else {
        (server, client)
    };
    let (Some(first), Some(last)) = (receiver.first, receiver.last) else {
        return Err(Fail::Failed("no stream carried anything".into()));
    };
    let bits = receiver.bytes as f64 * 8.0;
    Ok(Round {
        bits_per_second: bits / (last.saturating_since(first) as f64 / 1e9),
        bits,
        sender_s: sender.cpu_s,
        receiver_s: receiver.cpu_s,
        both_s,
    })
}

fn serve(shape: Shape, tell: &mpsc::Sender<SocketAddr>) -> Result<End, Fail> {
    stay_on(SERVER_CPU)?;
    let mut bulk = bulk(shape)?;
    let failed = |e: &dyn std::fmt::Display| Fail::of("the server", e);
    let listener =
        TcpListening::new(SocketAddr::new(address(SERVER), 0)).map_err(|e| failed(&e))?;
    admission::admit(&listener, Family::V4, &[Prefix::only(address(CLIENT))])
        .map_err(|e| failed(&e))?;
    let at = listener.local_addr();
    bulk.listen(listener).map_err(|e| failed(&e))?;
    // Whoever waits for it is gone only where the round has failed anyway.
    let _ = tell.send(at);
    let until = after(shape.time + PATIENCE);
    let (mut end, mut ended) = (End::default(), 0);
    let mut events = Vec::new();
    while ended < shape.streams {
        let now = clock::now();
        if now >= until {
            return Err(failed(&"its streams do not come to an end"));
        }
        bulk.wait(until, &mut events).map_err(|e| failed(&e))?;
        for event in events.drain(..) {
            match event {
                BulkEvent::Arrived(id, _, _) => {
                    bulk.configure(id, 0, shape.congestion)
                        .map_err(|e| failed(&e))?;
                    bulk.begin(id, role(!shape.up), &[])
                        .map_err(|e| failed(&e))?;
                }
                BulkEvent::Received { bytes, .. } => end.received(bytes),
                BulkEvent::Ended(..) => ended += 1,
                _ => {}
            }
        }
    }
    end.cpu_s = used_s(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(end)
}

fn load(shape: Shape, to: SocketAddr) -> Result<End, Fail> {
    stay_on(CLIENT_CPU)?;
    let mut bulk = bulk(shape)?;
    let failed = |e: &dyn std::fmt::Display| Fail::of("the client", e);
    let options = TcpOptions {
        interface: None,
        source: None,
        mark: None,
        dscp: 0,
        congestion: shape.congestion.to_owned(),
    };
    let mut streams: Vec<StreamId> = Vec::new();
    for _ in 0..shape.streams {
        let socket = TcpSocket::new(Family::V4, &options).map_err(|e| failed(&e))?;
        streams.push(bulk.connect(socket, to).map_err(|e| failed(&e))?);
    }
    let until = after(shape.time);
    let mut end = End::default();
    let mut events = Vec::new();
    while clock::now() < until {
        bulk.wait(until, &mut events).map_err(|e| failed(&e))?;
        for event in events.drain(..) {
            match event {
                BulkEvent::Connected(id) => bulk
                    .begin(id, role(shape.up), &[BYTE; TOKEN_LEN])
                    .map_err(|e| failed(&e))?,
                BulkEvent::Received { bytes, .. } => end.received(bytes),
                BulkEvent::Ended(_, errno) => {
                    return Err(failed(&std::io::Error::from_raw_os_error(errno)));
                }
                _ => {}
            }
        }
    }
    for id in streams {
        bulk.close(id);
    }
    while bulk.in_use() > 0 {
        bulk.wait(after(PATIENCE), &mut events)
            .map_err(|e| failed(&e))?;
    }
    end.cpu_s = used_s(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(end)
}

impl End {
    fn received(&mut self, bytes: u64) {
        let now = clock::now();
        self.bytes += bytes;
        self.first.get_or_insert(now);
        self.last = Some(now);
    }
}

fn bulk(shape: Shape) -> Result<Bulk, Fail> {
    Bulk::new(shape.streams, |bytes| bytes.fill(BYTE)).map_err(|e| Fail::of("the streams", e))
}

fn stay_on(cpu: usize) -> Result<(), Fail> {
    host::run_on(&[cpu]).map_err(|e| Fail::of(format!("running on CPU {cpu}"), e))
}

const fn role(sends: bool) -> Role {
    if sends { Role::Send } else { Role::Receive }
}

fn after(time: Duration) -> Monotonic {
    clock::now().saturating_add(time.as_nanos() as u64)
}

fn used_s(clock: ClockId) -> Result<f64, Fail> {
    let time = clock.now().map_err(|e| Fail::of("CPU time", e))?;
    Ok(time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9)
}
