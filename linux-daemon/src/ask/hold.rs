//! A connection that is held open through an uplink, and made again where it is lost.
//!
//! Nothing is sent through it but the kernel's keep-alives, and what the far end sends is thrown away; one that sends
//! much is let alone, because that is traffic that nobody asked for. So it sees
//! what everybody's long connections suffer from: addresses that change, NATs that forget, resets
//! that somebody on the way makes up, and outages that are longer than the far end has patience. What ends because the
//! uplink itself has gone or this program ends is no drop, and neither is what the far end closes in order.

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use bufferbane_core::held::Patience;
use bufferbane_core::time::Monotonic;
use bufferbane_linux_io::{clock, tcp};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::steps::errno;
use super::{Gate, socket};
use crate::held::{End, Told, What};
use crate::recorder::Order;
use crate::scout::Way;

/// How long a connection may take to be made.
const CONNECTING: Duration = Duration::from_secs(10);
/// What is read at once, and what the kernel is to keep of what has not been read, bytes.
const ROOM: usize = 4096;
/// What the far end may send in a day, bytes (64 KiB): greetings, and a word now and then. More is a
/// stream, and ends the holding.
const MOST_BYTES: u64 = 64 << 10;
const DAY_NS: u64 = 86_400_000_000_000;

/// A connection to be held.
#[derive(Clone, Debug)]
pub(super) struct Hold {
    pub(super) way: Way,
    pub(super) target: String,
    pub(super) to: SocketAddr,
    /// Silence after which a keep-alive is sent, ns.
    pub(super) idle_ns: u64,
}

/// Holds it for as long as this is polled.
pub(super) async fn hold(hold: Hold, mut gate: watch::Receiver<Gate>, orders: SyncSender<Order>) {
    let mut patience = Patience::default();
    let mut taken = Taken {
        since: clock::now(),
        bytes: 0,
    };
    loop {
        if gate.wait_for(|g| matches!(g, Gate::Open)).await.is_err() {
            return;
        }
        let age_ns = tokio::select! {
            age_ns = once(&hold, &orders, &mut taken) => match age_ns {
                Some(age_ns) => age_ns,
                None => return,
            },
            // The uplink is gone: whatever became of the connection, it says nothing of the line.
            () = closed(&mut gate) => {
                tell(&hold, &orders, What::LetGo);
                continue;
            }
        };
        tokio::time::sleep(Duration::from_nanos(patience.wait_ns(age_ns))).await;
    }
}

/// Until the uplink can be used no more, or nobody asks.
async fn closed(gate: &mut watch::Receiver<Gate>) {
    let _ = gate.wait_for(|g| !matches!(g, Gate::Open)).await;
}

/// What the far end has sent.
struct Taken {
    since: Monotonic,
    bytes: u64,
}

impl Taken {
    /// More came at `now`; whether that is too much.
    fn is_too_much(&mut self, now: Monotonic, bytes: usize) -> bool {
        if now.saturating_since(self.since) >= DAY_NS {
            (self.since, self.bytes) = (now, 0);
        }
        self.bytes = self.bytes.saturating_add(bytes as u64);
        self.bytes > MOST_BYTES
    }
}

/// Makes the connection and holds it until it ends; for how long, ns, 0 where it did not come about. None where it is
/// not to be made again.
async fn once(hold: &Hold, orders: &SyncSender<Order>, taken: &mut Taken) -> Option<u64> {
    let connecting = tokio::time::timeout(CONNECTING, socket::connect(&hold.way, hold.to));
    // Why it does not come about is what the series of connections says.
    let Ok(Ok(stream)) = connecting.await else {
        return Some(0);
    };
    if let Err(e) = tcp::keep_alive(&stream, Duration::from_nanos(hold.idle_ns)) {
        log::warn!("{}: the connection is not watched: {e}", hold.target);
        return Some(0);
    }
    // Where the kernel keeps more, a little more comes before it is let go.
    let _ = setsockopt(&stream, sockopt::RcvBuf, &ROOM);
    let begun = clock::now();
    tell(hold, orders, What::Open(begun));
    let end = until_it_ends(&stream, taken).await;
    let at = clock::now();
    let age_ns = at.saturating_since(begun);
    tell(hold, orders, What::End { at, age_ns, end });
    if end == End::TooMuch {
        log::warn!(
            "{} ({}) sends more than {MOST_BYTES} bytes a day into the connection that is held to it through {}: none is \
             held any more until this program is restarted or the target is changed. Name a port whose service waits to \
             be spoken to, or leave hold out.",
            hold.target,
            hold.to,
            hold.way.interface
        );
        return None;
    }
    Some(age_ns)
}

/// Throws away what comes until nothing comes any more, and says why.
async fn until_it_ends(stream: &TcpStream, taken: &mut Taken) -> End {
    let mut room = [0; ROOM];
    loop {
        if let Err(e) = stream.readable().await {
            return End::Lost(errno(&e));
        }
        match stream.try_read(&mut room) {
            Ok(0) => return End::Closed,
            Ok(len) if taken.is_too_much(clock::now(), len) => return End::TooMuch,
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return End::Lost(errno(&e)),
        }
    }
}

fn tell(hold: &Hold, orders: &SyncSender<Order>, what: What) {
    let key = (hold.way.interface.clone(), hold.target.clone(), hold.to);
    let told = Told { key, what };
    // It waits for a recorder that is behind, and is gone only when everything ends.
    let _ = orders.send(Order::Held(told));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn to_far_end(to: SocketAddr) -> Hold {
        Hold {
            way: Way {
                interface: "lo".into(),
                source: None,
                mark: None,
            },
            target: "far".into(),
            to,
            idle_ns: 1_000_000_000,
        }
    }

    /// A far end that sends without end, and one that says little a day.
    #[tokio::test]
    async fn whoever_sends_much_is_left_alone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let far_end = std::thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let mut sent = 0;
            while let Ok(n) = std::io::Write::write(&mut stream, &[7; 1024]) {
                sent += n;
            }
            listener.set_nonblocking(true).unwrap();
            (sent, listener.accept().is_err())
        });
        let (orders, told) = std::sync::mpsc::sync_channel(9);
        let (sender, gate) = watch::channel(Gate::Open);
        hold(to_far_end(to), gate, orders).await;
        let (sent, is_alone) = tokio::task::spawn_blocking(|| far_end.join().unwrap())
            .await
            .unwrap();
        assert!(sent as u64 > MOST_BYTES && is_alone, "{sent}");
        let ends = told.try_iter().filter_map(|order| match order {
            Order::Held(Told {
                what: What::End { end, .. },
                ..
            }) => Some(end),
            _ => None,
        });
        assert_eq!(ends.collect::<Vec<_>>(), [End::TooMuch]);
        drop(sender);
        let at = |days: u64| Monotonic::from_nanos(days * DAY_NS);
        let mut taken = Taken {
            since: at(0),
            bytes: 0,
        };
        let little = MOST_BYTES as usize;
        assert!((1..9).all(|day| !taken.is_too_much(at(day), little)));
        assert!(taken.is_too_much(at(8), 1));
    }

    /// A connection to a far end that ends the first by a reset, closes the second and keeps the third, until the
    /// uplink is gone.
    #[tokio::test]
    async fn how_each_connection_ends_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        // A connection that ends before it is told as open is none.
        let (opened, until_open) = std::sync::mpsc::channel();
        let far_end = std::thread::spawn(move || {
            let reset = listener.accept().unwrap().0;
            until_open.recv().unwrap();
            let at_once = nix::libc::linger {
                l_onoff: 1,
                l_linger: 0,
            };
            setsockopt(&reset, sockopt::Linger, &at_once).unwrap();
            drop(reset);
            let closed = listener.accept().unwrap().0;
            until_open.recv().unwrap();
            drop(closed);
            listener.accept().unwrap().0
        });
        let (orders, told) = std::sync::mpsc::sync_channel(9);
        let (sender, gate) = watch::channel(Gate::Open);
        let holding = tokio::spawn(hold(to_far_end(to), gate, orders));
        let mut whats = Vec::new();
        while whats.len() < 5 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            whats.extend(told.try_iter().map(|order| match order {
                Order::Held(told) => {
                    if let What::Open(_) = told.what {
                        // Of the third nobody waits for it.
                        let _ = opened.send(());
                    }
                    told.what
                }
                other => panic!("{other:?}"),
            }));
        }
        // Kept until here.
        let kept = far_end.join().unwrap();
        sender.send_replace(Gate::Closed(100));
        let last = tokio::task::spawn_blocking(move || told.recv().unwrap());
        let Order::Held(last) = last.await.unwrap() else {
            panic!("another order");
        };
        assert_eq!(last.what, What::LetGo);
        drop((kept, sender));
        holding.await.unwrap();
        let ends: Vec<Option<End>> = whats
            .iter()
            .map(|what| match what {
                What::Open(_) => None,
                What::End { end, .. } => Some(*end),
                What::LetGo => panic!("let go early"),
            })
            .collect();
        let reset = End::Lost(nix::libc::ECONNRESET);
        assert_eq!(ends, [None, Some(reset), None, Some(End::Closed), None]);
    }
}
