//! The probe thread: one ring, every probe socket, absolute deadlines.
//!
//! In its steady state it allocates nothing, takes no lock and touches no disk. Probers and sockets
//! are made by the keeper and arrive ready-made through a queue; what is no longer needed leaves the
//! same way, to be freed elsewhere.

#[cfg(test)]
mod tests;
mod unit;

use std::net::SocketAddr;

use bufferbane_core::drop_reason::DropCounters;
use bufferbane_core::packet::{RecvMeta, SendOutcome, SendToken};
use bufferbane_core::sample::Observation;
use bufferbane_core::session::client::SessionEvent;
use bufferbane_core::time::{Monotonic, Stamp};
use bufferbane_linux_io::{
    Engine, EngineOptions, Event, MAX_PAYLOAD, ProbeSocket, SocketId, StartError, Transmit, Waker,
    clock, counters,
};
use rand_chacha::ChaCha12Rng;
use rtrb::{Consumer, Producer};

use crate::pacing::Pacing;

pub(crate) use unit::{Prober, Unit};

/// Reports that may wait for the recorder: minutes of an ordinary configuration.
pub(crate) const REPORTS: usize = 8192;
/// Commands that may wait for the probe thread.
pub(crate) const COMMANDS: usize = 512;
/// How long the thread sleeps at most, ns: it tells its health at least this often.
const HEALTH_NS: u64 = 1_000_000_000;
/// How long a socket may wait for the place of one that is being closed, ns.
const ROOM_PATIENCE_NS: u64 = 100_000_000;
/// Most sockets at a time.
pub(crate) const SOCKETS: u16 = 128;

/// What the keeper tells the probe thread.
#[derive(Debug)]
pub(crate) enum Command {
    /// Probe this too; it cannot send before it is opened.
    Add(Box<Unit>),
    /// Stop probing this one, and hand it back.
    Remove(u32),
    /// Go on through this socket.
    Open(u32, Box<ProbeSocket>),
    /// It cannot send at present: the errno that says why.
    Close(u32, i32),
    /// Be scheduled so from now on.
    Pace(Pacing),
    /// End.
    Stop,
}

/// What the probe thread gives back to the keeper.
#[derive(Debug)]
pub(crate) enum Returned {
    /// A unit that is probed no more, to be freed.
    Unit(Box<Unit>),
    /// This unit's socket could not be taken in, for this errno.
    NotOpened(u32, i32),
}

/// What the probe thread tells the recorder.
#[derive(Debug)]
pub(crate) enum Report {
    /// A sample.
    Observation(Observation),
    /// Something about a session.
    Session(u32, Monotonic, SessionEvent),
    /// The wall clock was set, by so many ns.
    ClockStep(Monotonic, i64),
    /// The thread's own condition, once a second.
    Health(Health),
}

/// The probe thread's own condition, counted since it started.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Health {
    /// Reports that found the queue to the recorder full.
    pub(crate) dropped_reports: u64,
    /// Datagrams that arrived and were not used, by reason.
    pub(crate) drops: DropCounters,
    /// Datagrams that the sockets dropped for want of room.
    pub(crate) socket_drops: u64,
    /// Slots that passed without a probe.
    pub(crate) skipped_slots: u64,
    /// Datagrams that came without a stamp of the kernel's.
    pub(crate) unstamped: u64,
    /// CPU time of the probe thread, ns.
    pub(crate) cpu_ns: u64,
}

/// The ends of the queues that the probe thread holds.
pub(crate) struct Queues {
    pub(crate) commands: Consumer<Command>,
    pub(crate) returned: Producer<Returned>,
    pub(crate) reports: Producer<Report>,
}

/// The probe thread's state.
pub(crate) struct ProbeThread {
    engine: Engine,
    #[expect(
        clippy::vec_box,
        reason = "a box that came is handed back as it is: no allocation"
    )]
    units: Vec<Box<Unit>>,
    by_socket: Vec<Option<u32>>,
    socket_drops: Vec<u32>,
    queues: Queues,
    health: Health,
    health_at: Monotonic,
    pacing: Pacing,
    rng: ChaCha12Rng,
}

impl ProbeThread {
    /// Makes the ring. To be called on the thread that runs it.
    pub(crate) fn new(queues: Queues, rng: ChaCha12Rng) -> Result<Self, StartError> {
        let options = EngineOptions {
            sockets: SOCKETS,
            ..EngineOptions::prober()
        };
        Ok(Self {
            engine: Engine::new(&options)?,
            units: Vec::with_capacity(usize::from(SOCKETS)),
            by_socket: vec![None; usize::from(SOCKETS)],
            socket_drops: vec![0; usize::from(SOCKETS)],
            queues,
            health: Health::default(),
            health_at: clock::now(),
            pacing: Pacing::default(),
            rng,
        })
    }

    /// Ends the thread's sleep, from others.
    pub(crate) fn waker(&self) -> Waker {
        self.engine.waker()
    }

    /// Probes until it is told to stop.
    pub(crate) fn run(mut self) -> Result<(), String> {
        loop {
            while let Ok(command) = self.queues.commands.pop() {
                if !self.obey(command) {
                    return Ok(());
                }
            }
            let now = clock::now();
            self.send_due(now);
            self.report(now);
            // A deadline that passed meanwhile makes the wait return at once.
            let next = self.units.iter().filter_map(|u| u.poll_timeout()).min();
            let until = next.unwrap_or(Monotonic::MAX).min(self.health_at);
            self.wait(until)
                .map_err(|e| format!("the probe thread's ring failed: {e}"))?;
        }
    }

    fn obey(&mut self, command: Command) -> bool {
        match command {
            Command::Add(unit) => {
                if self.units.len() < self.units.capacity() {
                    self.units.push(unit);
                } else {
                    self.retire(unit);
                }
            }
            Command::Remove(id) => {
                self.take_arrived();
                self.close(id, 0);
                if let Some(at) = self.units.iter().position(|u| u.id == id) {
                    let mut unit = self.units.swap_remove(at);
                    unit.end_answered();
                    hand_on(&mut unit, &mut self.queues.reports, &mut self.health);
                    self.retire(unit);
                }
            }
            Command::Open(id, socket) => {
                self.close(id, 0);
                self.make_room();
                match self.engine.add_socket(*socket) {
                    Ok(socket) => {
                        self.by_socket[socket.index()] = Some(id);
                        self.socket_drops[socket.index()] = 0;
                        if let Some(u) = self.units.iter_mut().find(|u| u.id == id) {
                            u.handle_socket(socket);
                        }
                    }
                    Err(e) => {
                        log::error!("{e}");
                        let errno = e.source.raw_os_error().unwrap_or(nix::libc::EIO);
                        if let Some(u) = self.units.iter_mut().find(|u| u.id == id) {
                            u.socket = Err(errno);
                        }
                        drop(self.queues.returned.push(Returned::NotOpened(id, errno)));
                    }
                }
            }
            Command::Close(id, errno) => self.close(id, errno),
            Command::Pace(pacing) => self.pace(pacing),
            Command::Stop => {
                self.take_arrived();
                for unit in &mut self.units {
                    unit.end_answered();
                }
                self.report(clock::now());
                return false;
            }
        }
        true
    }

    /// Scheduled anew, which happens at the start and when the configuration changes.
    fn pace(&mut self, pacing: Pacing) {
        let before = std::mem::replace(&mut self.pacing, pacing);
        for line in pacing.apply(before) {
            log::warn!("{line}");
        }
        self.engine.set_spin_ns(pacing.wake_early_ns);
    }

    fn close(&mut self, id: u32, errno: i32) {
        if let Some(unit) = self.units.iter_mut().find(|u| u.id == id)
            && let Ok(socket) = std::mem::replace(&mut unit.socket, Err(errno))
        {
            unit.abandon_tokens();
            self.by_socket[socket.index()] = None;
            self.engine.remove_socket(socket);
        }
    }

    /// The keeper frees it; if it does not listen any more, nothing matters any more either.
    fn retire(&mut self, unit: Box<Unit>) {
        drop(self.queues.returned.push(Returned::Unit(unit)));
    }

    /// Takes in what has arrived by now. If the ring fails, the next wait says so.
    fn take_arrived(&mut self) {
        drop(self.wait(clock::now()));
    }

    /// Waits until there is a place for one more socket, but not for long: those of closed sockets
    /// are free once the kernel has ended their operations.
    fn make_room(&mut self) {
        let patience = clock::now().saturating_add(ROOM_PATIENCE_NS);
        while !self.engine.has_room() && clock::now() < patience {
            let until = clock::now().saturating_add(ROOM_PATIENCE_NS / 20);
            if self.wait(until).is_err() {
                return;
            }
        }
    }

    fn send_due(&mut self, now: Monotonic) {
        let mut datagram = [0; MAX_PAYLOAD];
        for unit in &mut self.units {
            unit.expire_tokens(now);
            unit.handle_timeout(now);
            while let Some((len, token)) = unit.poll_transmit(now, &mut self.rng, &mut datagram) {
                send(&mut self.engine, unit, token, &datagram[..len], now);
            }
        }
    }

    fn wait(&mut self, until: Monotonic) -> Result<(), bufferbane_linux_io::EngineError> {
        let Self {
            engine,
            units,
            by_socket,
            socket_drops,
            queues,
            health,
            ..
        } = self;
        let mut datagram = [0; 2048];
        engine.wait(until, &mut |_, event| match event {
            Event::Received {
                socket,
                meta,
                bytes,
            } => {
                let known = &mut socket_drops[socket.index()];
                let dropped = meta.socket_drops.wrapping_sub(*known);
                *known = meta.socket_drops;
                health.socket_drops += u64::from(dropped);
                let unit = at(units, by_socket, socket);
                if let Some(i) = unit.filter(|_| dropped > 0) {
                    units[i].handle_own_drops();
                }
                if let Some(i) = unit
                    && let Some(copy) = datagram.get_mut(..bytes.len())
                {
                    copy.copy_from_slice(bytes);
                    receive(&mut units[i], &meta, copy);
                    // At once: a unit keeps no more than one datagram's worth, and many may have come.
                    hand_on(&mut units[i], &mut queues.reports, health);
                }
            }
            Event::TxStamp { socket, key, stamp } => {
                if let Some(i) = at(units, by_socket, socket) {
                    units[i].return_token(key, SendOutcome::Stamped(stamp));
                }
            }
            Event::Sent {
                socket,
                key,
                errno: Some(errno),
            } => {
                if let Some(i) = at(units, by_socket, socket) {
                    units[i].return_token(key, SendOutcome::Failed(errno));
                }
            }
            Event::Sent { errno: None, .. } | Event::SocketError { .. } | Event::Wake => {}
        })?;
        Ok(())
    }

    /// Hands on what has become known.
    fn report(&mut self, now: Monotonic) {
        for unit in &mut self.units {
            hand_on(unit, &mut self.queues.reports, &mut self.health);
        }
        if let Some(step) = self.engine.take_clock_step() {
            let report = Report::ClockStep(step.noticed, step.step_ns);
            push(&mut self.queues.reports, &mut self.health, report);
        }
        if now >= self.health_at {
            self.health_at = now.saturating_add(HEALTH_NS);
            self.health.drops = DropCounters::default();
            self.health.skipped_slots = 0;
            self.health.unstamped = self.engine.counters().unstamped;
            self.health.cpu_ns = counters::thread_cpu_ns().unwrap_or(self.health.cpu_ns);
            for unit in &self.units {
                self.health.drops.merge(&unit.drops);
                self.health.skipped_slots += unit.skipped_slots();
            }
            let health = self.health;
            push(
                &mut self.queues.reports,
                &mut self.health,
                Report::Health(health),
            );
        }
    }
}

/// The index of the unit that speaks through `socket`.
fn at(units: &[Box<Unit>], by_socket: &[Option<u32>], socket: SocketId) -> Option<usize> {
    let id = by_socket[socket.index()]?;
    units
        .iter()
        .position(|u| u.id == id && u.socket == Ok(socket))
}

fn receive(unit: &mut Unit, meta: &RecvMeta, bytes: &mut [u8]) {
    // A receive stamp of the kernel is older than now; without one, now is what there is.
    let now = clock::now();
    let at = if meta.at.at > now {
        Stamp { at: now, ..meta.at }
    } else {
        meta.at
    };
    unit.handle_reply(now, &RecvMeta { at, ..*meta }, bytes);
}

/// Queues one datagram, or returns its token with the reason why not.
fn send(engine: &mut Engine, unit: &mut Unit, token: SendToken, bytes: &[u8], now: Monotonic) {
    let socket = match unit.socket {
        Ok(socket) => socket,
        Err(errno) => return unit.handle_sent(token, SendOutcome::Failed(errno)),
    };
    let to: SocketAddr = unit.remote;
    let mut transmit = Transmit::new(socket, to, unit.next_key());
    transmit.tos = unit.tos_of(&token);
    match engine.outbox().send(&transmit, bytes) {
        Ok(()) => unit.keep_token(token, now),
        Err(e) => {
            let errno = match e {
                bufferbane_linux_io::SendError::Ring(errno) => errno,
                _ => nix::libc::ENOBUFS,
            };
            unit.handle_sent(token, SendOutcome::Failed(errno));
        }
    }
}

/// Hands on what has become known of a unit.
fn hand_on(unit: &mut Unit, reports: &mut Producer<Report>, health: &mut Health) {
    while let Some(observation) = unit.poll_observation() {
        push(reports, health, Report::Observation(observation));
    }
    while let Some(event) = unit.poll_event() {
        push(
            reports,
            health,
            Report::Session(unit.id, clock::now(), event),
        );
    }
    health.dropped_reports += unit.take_overflowed();
}

fn push(queue: &mut Producer<Report>, health: &mut Health, report: Report) {
    if queue.push(report).is_err() {
        health.dropped_reports += 1;
    }
}
