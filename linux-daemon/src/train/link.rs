//! A session for trains through one uplink, and one train at a time through it.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use bufferbane_core::flight::{LossSlot, Slot};
use bufferbane_core::packet::RecvMeta;
use bufferbane_core::seal::PresharedKey;
use bufferbane_core::session::client::Client;
use bufferbane_core::time::Stamp;
use bufferbane_core::train::exchange::{Ending, Exchange, Plan};
use bufferbane_core::wire::header::{Kind, Prefix};
use bufferbane_core::wire::train::arrivals;
use bufferbane_linux_io::{Engine, EngineOptions, Event, SocketBuilder, SocketId, Transmit, clock};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rand_chacha::ChaCha12Rng;
use rand_core::Rng;

/// How long a reflector may take to let us in, ns.
const SESSION_NS: u64 = 5_000_000_000;
/// How long one wait lasts at most, ns: whoever wants it all to end is heard that soon.
const TICK_NS: u64 = 20_000_000;
/// The receive buffer asked for, bytes: a whole train.
const RECEIVE_BUFFER: usize = 2 << 20;
/// How long a host's own queue may stay full before a train is given up, ms.
const FULL_MS: u16 = 500;

type Session = Client<Vec<Slot>, Vec<LossSlot>>;

/// See the module.
pub struct Link {
    engine: Engine,
    socket: SocketId,
    /// The same socket, for sending without a ring between.
    sender: UdpSocket,
    remote: SocketAddr,
    /// In one place, wherever this is moved: it holds the key.
    client: Box<Session>,
    next_key: u32,
    drops: Option<u32>,
}

impl Link {
    /// Opens the socket, which leads to `remote` by its interface, source and mark; the session comes with the first train.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn open(
        socket: SocketBuilder,
        remote: SocketAddr,
        key: PresharedKey,
        rng: &mut ChaCha12Rng,
    ) -> Result<Self, String> {
        let options = EngineOptions {
            sockets: 2,
            send_slots: 16,
            completions: 2048,
            ..EngineOptions::prober()
        };
        let mut engine = Engine::new(&options).map_err(|e| e.to_string())?;
        let socket = socket
            .stamps(true, false)
            .receive_buffer(RECEIVE_BUFFER)
            .build()
            .map_err(|e| e.to_string())?;
        let sender = socket
            .as_fd()
            .try_clone_to_owned()
            .map_err(|e| format!("a second handle of a socket: {e}"))?;
        let socket = engine.add_socket(socket).map_err(|e| e.to_string())?;
        Ok(Self {
            engine,
            socket,
            sender: sender.into(),
            remote,
            client: Box::new(Client::new(key, clock::now(), rng)),
            next_key: 0,
            drops: None,
        })
    }

    /// Sees to it that there is a session.
    ///
    /// # Errors
    /// Where the reflector does not answer, or `ended` says that nobody wants it any more.
    pub fn greet(&mut self, rng: &mut ChaCha12Rng, ended: &dyn Fn() -> bool) -> Result<(), String> {
        let begun = clock::now();
        while !self.client.is_answering() {
            if ended() {
                return Err("it was cut off".into());
            }
            if clock::now().saturating_since(begun) > SESSION_NS {
                return Err("the reflector does not answer".into());
            }
            self.step(None, rng)?;
        }
        Ok(())
    }

    /// Sends one train, or has it sent, and hears what became of it.
    ///
    /// # Errors
    /// Where the reflector refuses or does not answer, or `ended` says that nobody wants it any more.
    pub fn run(
        &mut self,
        plan: Plan,
        rng: &mut ChaCha12Rng,
        ended: &dyn Fn() -> bool,
    ) -> Result<Exchange, String> {
        let mut exchange = Exchange::new(plan, rng.next_u32(), clock::now());
        if plan.up {
            self.send(&mut exchange)?;
        }
        while exchange.ending().is_none() {
            if ended() {
                return Err("it was cut off".into());
            }
            self.step(Some(&mut exchange), rng)?;
        }
        match exchange.ending() {
            Some(Ending::Refused(reason)) => Err(reason.as_str().into()),
            Some(Ending::Silent) => Err("the reflector does not answer".into()),
            _ => Ok(exchange),
        }
    }

    /// Sends a train up: sealed beforehand, so that nothing but the host is between two datagrams.
    fn send(&mut self, exchange: &mut Exchange) -> Result<(), String> {
        let plan = exchange.plan();
        let size = usize::from(plan.size);
        let mut sealed = vec![0; size * usize::from(plan.count)];
        for (index, datagram) in (0..).zip(sealed.chunks_exact_mut(size)) {
            let car = exchange.car(index);
            self.client
                .write_car(&car, datagram)
                .ok_or("there is no session")?;
        }
        for datagram in sealed.chunks_exact(size) {
            loop {
                let at = clock::now();
                match self.sender.send_to(datagram, self.remote) {
                    Ok(_) => {
                        exchange.handle_sent(at);
                        break;
                    }
                    Err(e) if is_full(&e) => {
                        let mut fds = [PollFd::new(self.sender.as_fd(), PollFlags::POLLOUT)];
                        let ready = poll(&mut fds, PollTimeout::from(FULL_MS));
                        if !matches!(ready, Ok(1..)) {
                            return Err("the host's own queue is full".into());
                        }
                    }
                    Err(e) => return Err(e.to_string()),
                }
            }
        }
        exchange.handle_all_sent(clock::now());
        Ok(())
    }

    /// Sends what is due, and takes what comes until the next tick.
    fn step(
        &mut self,
        mut exchange: Option<&mut Exchange>,
        rng: &mut ChaCha12Rng,
    ) -> Result<(), String> {
        let now = clock::now();
        self.client.handle_timeout(now);
        let mut datagram = [0; bufferbane_core::limits::MAX_DATAGRAM];
        while let Some((len, _knock)) = self.client.poll_transmit(now, rng, &mut datagram) {
            self.queue(&datagram[..len]);
        }
        let mut until = now.saturating_add(TICK_NS);
        if let Some(exchange) = exchange.as_deref_mut() {
            exchange.handle_timeout(now);
            if let Some((ask, len)) = exchange.poll_ask(now)
                && self.client.write_ask(&ask, &mut datagram[..len]).is_some()
            {
                self.queue(&datagram[..len]);
            }
            until = until.min(exchange.poll_timeout());
        }
        let (client, drops) = (&mut self.client, &mut self.drops);
        let mut copy = [0; 2048];
        self.engine
            .wait(until, &mut |_, event| {
                if let Event::Received { meta, bytes, .. } = event
                    && let Some(datagram) = copy.get_mut(..bytes.len())
                {
                    datagram.copy_from_slice(bytes);
                    if drops.replace(meta.socket_drops) != Some(meta.socket_drops)
                        && meta.socket_drops != 0
                        && let Some(exchange) = exchange.as_deref_mut()
                    {
                        exchange.handle_own_drops();
                    }
                    receive(client, exchange.as_deref_mut(), &meta, datagram);
                }
            })
            .map_err(|e| e.to_string())?;
        while self.client.poll_event().is_some() {}
        Ok(())
    }

    fn queue(&mut self, datagram: &[u8]) {
        let key = self.next_key;
        self.next_key = key.wrapping_add(1);
        let transmit = Transmit::new(self.socket, self.remote, key);
        let mut outbox = self.engine.outbox();
        // What finds no room is said again.
        let _ = outbox.send(&transmit, datagram);
        let _ = outbox.flush();
    }
}

fn receive(
    client: &mut Session,
    exchange: Option<&mut Exchange>,
    meta: &RecvMeta,
    datagram: &mut [u8],
) {
    let now = clock::now();
    match (Prefix::kind_of(datagram), exchange) {
        (Ok(Kind::Train), Some(exchange)) => {
            if let Ok(car) = client.open_car(now, datagram) {
                let at = if meta.at.at > now {
                    Stamp { at: now, ..meta.at }
                } else {
                    meta.at
                };
                // One of a train before is no concern of this one.
                let _ = exchange.handle_car(at, &car);
            }
        }
        (Ok(Kind::TrainReport), Some(exchange)) => {
            if let Ok(report) = client.open_train_report(now, datagram)
                && let Ok(arrived) = arrivals(&report, datagram)
            {
                // So is a report that answers no ask of it.
                let _ = exchange.handle_report(now, &report, arrived);
            }
        }
        (Ok(Kind::Train | Kind::TrainReport), None) => {}
        // What is none of ours is dropped.
        _ => drop(client.handle_reply(now, meta, datagram)),
    }
}

fn is_full(e: &std::io::Error) -> bool {
    e.kind() == std::io::ErrorKind::WouldBlock || e.raw_os_error() == Some(nix::libc::ENOBUFS)
}
