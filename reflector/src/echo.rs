//! The echo thread: one ring, all sockets, and core's responder between them.
//!
//! It allocates nothing once it has started, takes no lock and touches no disk. Other threads reach
//! it over a bounded channel and the ring's waker.

mod answering;
mod sockets;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};

use bufferbane_core::seal::{PresharedKey, wipe_stack};
use bufferbane_core::session::record::StreamRecord;
use bufferbane_core::session::reflector::{
    ClockFacts, KeyEntry, RECORDS_PER_SESSION, Reflector, Session,
};
use bufferbane_core::time::Monotonic;
use bufferbane_linux_io::{Engine, EngineOptions, Event, Outbox, Waker, clock};
use zerocopy::FromZeros;

use crate::allowance::Allowance;
use crate::cipher::Ring;
use crate::config::{Client, Config, MAX_LISTEN};
use crate::mail::Mail;
use crate::stamp::{MAX_STAMP_LISTEN, StampAnswers};
use crate::stats::{Filled, KeyCounts, Listed, Snapshot};
use answering::Answering;
pub(crate) use answering::Responder;

/// The thread comes by at least this often, to look at the clock and to show that it lives, ns.
const ROUND_NS: u64 = 500_000_000;

/// Sessions that are listed without a pause for echoes, but for the rest of one client's.
const LISTED_AT_ONCE: usize = 256;

/// What other threads ask of it.
pub(crate) enum Command {
    /// To fill this in and hand it back.
    Fill(Box<Snapshot>),
    /// To list in this room the sessions of clients after those that are in it.
    List(Listed),
    /// Other keys and limits.
    Keys(Box<[KeyEntry]>, Vec<Allowance>),
    /// To end.
    Stop,
}

/// What it tells once it has started.
pub(crate) struct Started {
    pub(crate) waker: Waker,
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) stamp_listen: Vec<SocketAddr>,
    pub(crate) warnings: Vec<String>,
}

/// The clients' keys as core wants them.
pub(crate) fn keys(clients: &[Client], sessions_per_client: u16) -> Box<[KeyEntry]> {
    // It never grows: what it would be moved from could not be wiped.
    let mut keys = Vec::with_capacity(clients.iter().map(|c| c.keys.len()).sum());
    for (index, client) in clients.iter().enumerate() {
        let (index, max_pps) = (index as u16, client.max_pps);
        let entry =
            |key: &PresharedKey| KeyEntry::new(key.clone(), index, max_pps, sessions_per_client);
        keys.extend(client.keys.iter().map(entry));
    }
    keys.into_boxed_slice()
}

/// The thread.
pub(crate) struct Echo {
    engine: Engine,
    answering: Answering,
    started: Monotonic,
    clock: ClockFacts,
    commands: Receiver<Command>,
    filled: SyncSender<Filled>,
    alive: Arc<AtomicU64>,
}

impl Echo {
    /// Opens the ring and the sockets; to be called on the thread that will [`Echo::run`].
    pub(crate) fn start(
        config: &Config,
        commands: Receiver<Command>,
        filled: SyncSender<Filled>,
        alive: Arc<AtomicU64>,
        mail: Mail,
        clients: Vec<Allowance>,
    ) -> Result<(Self, Started), String> {
        let options = EngineOptions {
            sockets: (MAX_LISTEN + MAX_STAMP_LISTEN) as u16,
            ..EngineOptions::reflector()
        };
        let mut engine = Engine::new(&options).map_err(|e| e.to_string())?;
        let (listen, warnings) = sockets::open(&mut engine, config)?;
        let (stamp, stamp_listen) = match &config.stamp {
            Some(stamp) => {
                let (answers, listen) = StampAnswers::start(&mut engine, stamp)?;
                (Some(answers), listen)
            }
            None => (None, Vec::new()),
        };
        let mut rng = crate::random()?;
        let sessions = usize::from(config.limits.sessions);
        let mut responder = Reflector::new(
            keys(&config.clients, config.limits.sessions_per_client),
            zeroed::<Session>(sessions, "sessions")?,
            zeroed::<StreamRecord>(sessions * RECORDS_PER_SESSION, "records of streams")?,
            config.limits.failed_opens_per_second,
            &mut rng,
        );
        responder.set_cipher(&Ring);
        let started = Started {
            waker: engine.waker(),
            listen,
            stamp_listen,
            warnings,
        };
        let echo = Self {
            engine,
            answering: Answering::new(responder, rng, mail, stamp, clients),
            started: clock::now(),
            clock: ClockFacts::default(),
            commands,
            filled,
            alive,
        };
        Ok((echo, started))
    }

    /// Echoes until it is told to stop.
    pub(crate) fn run(mut self) -> Result<(), String> {
        let mut next_round = Monotonic::ZERO;
        loop {
            let now = clock::now();
            if now >= next_round {
                self.look_at_the_clock();
                self.answering.datagrams.handle_timeout(now);
                self.alive.store(now.as_nanos(), Ordering::Relaxed);
                next_round = now.saturating_add(ROUND_NS);
            }
            let answering = &mut self.answering;
            let until = if answering.trains.is_sending() {
                now
            } else {
                let due = answering.datagrams.poll_timeout(now);
                due.map_or(next_round, |due| due.min(next_round))
            };
            self.engine
                .wait(until, &mut |out: &mut Outbox<'_>, event: Event<'_>| {
                    answering.handle(out, event);
                })
                .map_err(|e| e.to_string())?;
            if self.answering.trains.is_sending() {
                self.answering.send_cars(&mut self.engine.outbox());
            }
            let now = clock::now();
            if self.answering.datagrams.poll_timeout(now) == Some(now) {
                self.answering.send_datagrams(&mut self.engine.outbox());
            }
            if self.answering.take_woken() {
                // Before the report by which a client hears of its test.
                while let Ok(news) = self.answering.mail.news.try_recv() {
                    self.answering.datagrams.hear(news);
                }
                self.answering.send_reports(&mut self.engine.outbox());
                while let Ok(command) = self.commands.try_recv() {
                    match command {
                        Command::Stop => return Ok(()),
                        Command::Keys(keys, clients) => {
                            self.answering.responder.replace_keys(keys);
                            wipe_stack();
                            self.answering.trains.set_clients(clients.clone());
                            self.answering.datagrams.set_clients(clients);
                        }
                        Command::Fill(mut snapshot) => {
                            self.fill(&mut snapshot);
                            // Whoever asked may have gone.
                            let _ = self.filled.try_send(Filled::Counts(snapshot));
                        }
                        Command::List(mut listed) => {
                            self.list(&mut listed);
                            let _ = self.filled.try_send(Filled::Sessions(listed));
                        }
                    }
                }
            }
        }
    }

    fn look_at_the_clock(&mut self) {
        if self.engine.take_clock_step().is_some() {
            self.clock.epoch = self.clock.epoch.wrapping_add(1);
        }
        self.clock.disciplined = clock::is_disciplined();
        self.answering.responder.set_clock(self.clock);
        if let Some(stamp) = &mut self.answering.stamp {
            stamp.set_synchronised(self.clock.disciplined);
        }
    }

    fn fill(&self, s: &mut Snapshot) {
        let a = &self.answering;
        let now = clock::now();
        s.now_ns = now.as_nanos();
        s.started_ns = self.started.as_nanos();
        s.answered = a.responder.answered();
        s.drops = *a.responder.counters();
        s.overload = a.overload;
        s.orders_lost = a.orders_lost;
        s.trains = a.trains.counts();
        s.datagrams = a.datagrams.counts();
        s.stamp = a.stamp.as_ref().map(StampAnswers::counts);
        s.socket_drops = a.socket_drops;
        s.engine = self.engine.counters();
        s.residence.clone_from(&a.residence);
        s.disciplined = self.clock.disciplined;
        s.clock_epoch = self.clock.epoch;
        s.keys.clear();
        let keys = a.responder.keys().iter();
        // No more than there was room made for.
        s.keys.extend(
            keys.map(|k| KeyCounts {
                client: k.client,
                answered: k.answered(),
                displaced: k.displaced(),
                records_displaced: k.records_displaced(),
                drops: *k.drops(),
            })
            .take(s.keys.capacity()),
        );
        s.session_count = a.responder.sessions(now).count();
    }

    /// Adds the sessions of clients after those that are listed, until there are enough for one answer: echoes wait
    /// meanwhile.
    fn list(&self, listed: &mut Listed) {
        let responder = &self.answering.responder;
        let now = clock::now();
        listed.now_ns = now.as_nanos();
        let enough = listed.sessions.len() + LISTED_AT_ONCE;
        let keys = responder.keys();
        // They stand in the order of clients.
        let next = keys.partition_point(|k| usize::from(k.client) < listed.clients);
        for (key, entry) in keys.iter().enumerate().skip(next) {
            let client = usize::from(entry.client);
            if client >= listed.clients && listed.sessions.len() >= enough {
                return;
            }
            let sessions = responder.sessions_of(now, key);
            // No more than there was room made for.
            let room = listed.sessions.capacity() - listed.sessions.len();
            let rows = sessions.take(room).map(|facts| (client, facts));
            listed.sessions.extend(rows);
            listed.clients = client + 1;
        }
        listed.is_whole = true;
    }
}

/// A table of zeroed memory, of which the kernel hands out only what is written to.
fn zeroed<T: FromZeros>(len: usize, what: &str) -> Result<Box<[T]>, String> {
    <[T]>::new_box_zeroed_with_elems(len)
        .map_err(|_| format!("no memory for {len} {what}: lower limits.sessions"))
}
