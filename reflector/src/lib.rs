//! The reflector: sealed echo with kernel timestamps.
//!
//! ```text
//! sockets ─ ring ─▶ echo thread (core's responder) ─ ring ─▶ sockets
//!                        ▲ commands      │ snapshots
//!                        │               ▼
//!              control: signals, control socket, systemd
//! ```
//!
//! [`Running`] is the echo thread alone, for whoever wants a reflector within a program of its own;
//! [`service`] adds what the installed service has.

mod allowance;
mod cipher;
pub mod config;
mod datagrams;
mod departures;
mod echo;
mod fixed;
pub mod journal;
mod mail;
pub mod service;
pub mod stamp;
mod stats;
mod streams;
mod train;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use bufferbane_core::seal::wipe_stack;
use bufferbane_linux_io::{Waker, clock, host};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use serde::Serialize;
use serde_json::Value;
use zeroize::Zeroizing;

use allowance::Days;
use config::Config;
use echo::{Command, Echo, Started};
use fixed::Fixed;
use mail::Mail;
use stats::{Filled, Listed, Snapshot};
use streams::{Streams, TestCounts};

pub use stats::to_text;

/// How long the echo thread may take to answer a question, many times what it needs.
const PATIENCE: Duration = Duration::from_secs(2);
const OTHER_ANSWER: &str = "the echo thread answers what was not asked";

/// A reflector that runs on a thread of its own; it ends when this is dropped.
pub struct Running {
    commands: SyncSender<Command>,
    filled: Receiver<Filled>,
    waker: Waker,
    thread: Option<JoinHandle<Result<(), String>>>,
    streams: Option<StreamsThread>,
    alive: Arc<AtomicU64>,
    listen: Vec<SocketAddr>,
    stamp_listen: Vec<SocketAddr>,
    warnings: Vec<String>,
    /// As it was started: what cannot change while it runs.
    fixed: Fixed,
    clients: Vec<String>,
    /// What clients have moved today.
    days: Days,
}

/// The streams thread as others reach it.
struct StreamsThread {
    commands: SyncSender<streams::Command>,
    waker: Waker,
    counts: Arc<Mutex<TestCounts>>,
    thread: JoinHandle<Result<(), String>>,
}

impl StreamsThread {
    fn tell(&self, command: streams::Command) {
        // Where it has ended, so does everything.
        let _ = self.commands.send(command);
        self.waker.wake();
    }
}

impl Running {
    /// Starts a reflector. When this returns, its ports are open.
    ///
    /// # Errors
    /// One line that says what failed and what helps: no io_uring, a port that is taken.
    pub fn start(config: &Config) -> Result<Self, String> {
        let (commands, to_do) = sync_channel(4);
        let (fill, filled) = sync_channel(4);
        let mut days = Days::default();
        let (streams, mail) = start_streams(config, &mut days)?;
        let clients = days.allowances(&config.clients);
        let (tell, told) = sync_channel::<Result<Started, String>>(1);
        let alive = Arc::new(AtomicU64::new(0));
        let (thread_config, thread_alive) = (config.clone(), Arc::clone(&alive));
        let thread = std::thread::Builder::new()
            .name("echo".into())
            .spawn(move || {
                let started = Echo::start(&thread_config, to_do, fill, thread_alive, mail, clients);
                // What this thread goes on with is the responder's keys, which can be replaced.
                drop(thread_config);
                wipe_stack();
                // From here on this thread reads what strangers send.
                match started.and_then(|s| give_up(false).map(|()| s)) {
                    Ok((echo, started)) => {
                        // Whoever started us waits for this.
                        let _ = tell.send(Ok(started));
                        echo.run()
                    }
                    Err(e) => {
                        let _ = tell.send(Err(e));
                        Ok(())
                    }
                }
            })
            .map_err(|e| format!("a thread: {e}"))?;
        let started = told
            .recv()
            .map_err(|_| "the echo thread ended at its start".to_owned())??;
        let begin = streams::Command::Begin(started.listen.clone(), started.waker.clone());
        streams.tell(begin);
        Ok(Self {
            commands,
            filled,
            waker: started.waker,
            thread: Some(thread),
            streams: Some(streams),
            alive,
            listen: started.listen,
            stamp_listen: started.stamp_listen,
            warnings: started.warnings,
            fixed: Fixed::of(config),
            clients: config.clients.iter().map(|c| c.name.clone()).collect(),
            days,
        })
    }

    /// The addresses it receives on, with the ports it was given where the configuration left them
    /// open.
    #[must_use]
    pub fn listen(&self) -> &[SocketAddr] {
        &self.listen
    }

    /// The addresses it receives STAMP on.
    #[must_use]
    pub fn stamp_listen(&self) -> &[SocketAddr] {
        &self.stamp_listen
    }

    /// What was left out at the start, one line each.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// How long ago the echo thread came by; it does at least twice a second.
    #[must_use]
    pub fn silence(&self) -> Duration {
        let seen_ns = self.alive.load(Ordering::Relaxed);
        Duration::from_nanos(clock::now().as_nanos().saturating_sub(seen_ns))
    }

    /// Its statistics as an object of JSON.
    ///
    /// # Errors
    /// Where the echo thread has ended or is stuck.
    pub fn status(&mut self) -> Result<Value, String> {
        serde_json::to_value(self.statistics()?).map_err(|e| e.to_string())
    }

    /// The same, to be written without holding all of its text in memory. All of it has been found out when this
    /// returns: only what it is written to can fail.
    ///
    /// # Errors
    /// Where the echo thread has ended or is stuck.
    pub fn statistics(&mut self) -> Result<impl Serialize + '_, String> {
        let (snapshot, listed) = (self.snapshot()?, self.listed()?);
        let mut told = stats::Status::new(snapshot, listed, &self.clients, &self.listen);
        if let Some(streams) = &self.streams
            && let Ok(counts) = streams.counts.lock()
        {
            told.totals
                .insert("tests".into(), stats::tests_json(&counts));
        }
        Ok(told)
    }

    /// The most important of it in one line.
    ///
    /// # Errors
    /// Where the echo thread has ended or is stuck.
    pub fn status_line(&mut self) -> Result<String, String> {
        let s = self.snapshot()?;
        Ok(format!(
            "{} sessions, {} echoes, {} datagrams lost by the socket",
            s.session_count, s.answered, s.socket_drops
        ))
    }

    /// The echo thread's counts.
    fn snapshot(&self) -> Result<Box<Snapshot>, String> {
        let room = Snapshot::with_room(2 * self.clients.len());
        match self.ask(Command::Fill(Box::new(room)))? {
            Filled::Counts(snapshot) => Ok(snapshot),
            Filled::Sessions(_) => Err(OTHER_ANSWER.to_owned()),
        }
    }

    /// All sessions.
    fn listed(&self) -> Result<Listed, String> {
        // Of the room for all only what is filled takes up memory.
        let mut listed = Listed::with_room(self.fixed.sessions());
        while !listed.is_whole {
            listed = match self.ask(Command::List(listed))? {
                Filled::Sessions(listed) => listed,
                Filled::Counts(_) => return Err(OTHER_ANSWER.to_owned()),
            };
        }
        Ok(listed)
    }

    fn ask(&self, question: Command) -> Result<Filled, String> {
        // An answer that came too late for an earlier question.
        while self.filled.try_recv().is_ok() {}
        self.command(question)?;
        self.filled
            .recv_timeout(PATIENCE)
            .map_err(|_| "the echo thread does not answer".to_owned())
    }

    /// Takes over the clients, their keys and limits from `config` without disturbing the sessions
    /// of those that stay. Gives what takes a restart to change, one line each.
    ///
    /// # Errors
    /// Where the echo thread has ended.
    pub fn reconfigure(&mut self, config: &Config) -> Result<Vec<String>, String> {
        let per_client = config.limits.sessions_per_client;
        let clients = self.days.allowances(&config.clients);
        let keys = echo::keys(&config.clients, per_client);
        wipe_stack();
        self.command(Command::Keys(keys, clients))?;
        if let Some(streams) = &self.streams {
            let clients = self.days.allowances(&config.clients);
            streams.tell(streams::Command::Clients(clients, streams::limits(config)));
        }
        self.clients = config.clients.iter().map(|c| c.name.clone()).collect();
        Ok(self.fixed.differs(config))
    }

    /// Ends it and waits for that. Its ports are free some tens of milliseconds later.
    ///
    /// # Errors
    /// Why it had ended before.
    pub fn stop(mut self) -> Result<(), String> {
        self.end()
    }

    /// The name of a thread of it that has ended by itself, as one does where its ring fails; the other may
    /// go on, but half a reflector is none. [`Running::stop`] tells why.
    #[must_use]
    pub fn has_ended(&self) -> Option<&'static str> {
        if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
            return Some("echo");
        }
        let streams = self.streams.as_ref();
        streams
            .is_none_or(|s| s.thread.is_finished())
            .then_some("streams")
    }

    fn command(&self, command: Command) -> Result<(), String> {
        self.commands
            .try_send(command)
            .map_err(|_| "the echo thread has ended or is stuck".to_owned())?;
        self.waker.wake();
        Ok(())
    }

    fn end(&mut self) -> Result<(), String> {
        let streams = self.streams.take().map_or(Ok(()), |streams| {
            streams.tell(streams::Command::Stop);
            let ended = streams.thread.join();
            ended.unwrap_or_else(|_| Err("the streams thread panicked".to_owned()))
        });
        let Some(thread) = self.thread.take() else {
            return streams;
        };
        // A full channel is being emptied, and one without a receiver needs no telling.
        let _ = self.commands.send(Command::Stop);
        self.waker.wake();
        let echo = thread.join();
        let echo = echo.unwrap_or_else(|_| Err("the echo thread panicked".to_owned()));
        echo.and(streams)
    }
}

/// Starts the streams thread; gives the echo thread's end of the mail between them.
fn start_streams(config: &Config, days: &mut Days) -> Result<(StreamsThread, Mail), String> {
    let (commands, to_do) = sync_channel(4);
    let (asked_in, asked) = sync_channel(mail::WAITING);
    let (told, told_out) = sync_channel(mail::WAITING);
    let (news, news_out) = sync_channel(mail::WAITING);
    let counts = Arc::new(Mutex::new(TestCounts::default()));
    let ends = streams::Ends {
        commands: to_do,
        asked,
        told,
        news,
        counts: Arc::clone(&counts),
    };
    let (clients, limits) = (days.allowances(&config.clients), streams::limits(config));
    let (tell, told) = sync_channel::<Result<Waker, String>>(1);
    let thread = std::thread::Builder::new()
        .name("streams".into())
        .spawn(move || match Streams::new(clients, limits, ends) {
            Ok(streams) => {
                // Whoever started us waits for this.
                let _ = tell.send(Ok(streams.waker()));
                wipe_stack();
                streams.run()
            }
            Err(e) => {
                let _ = tell.send(Err(e));
                Ok(())
            }
        })
        .map_err(|e| format!("a thread: {e}"))?;
    let waker = told
        .recv()
        .map_err(|_| "the streams thread ended at its start".to_owned())??;
    let mail = Mail {
        asked: asked_in,
        told: told_out,
        news: news_out,
        streams: waker.clone(),
    };
    let streams = StreamsThread {
        commands,
        waker,
        counts,
        thread,
    };
    Ok((streams, mail))
}

/// Random numbers that the kernel has seeded. Who calls wipes the stack, where the seed was.
fn random() -> Result<ChaCha20Rng, String> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed).map_err(|e| format!("random numbers: {e}"))?;
    Ok(ChaCha20Rng::from_seed(*seed))
}

/// Gives up what the calling thread may do beyond an ordinary user's.
fn give_up(keep_net_admin: bool) -> Result<(), String> {
    host::give_up_capabilities(keep_net_admin).map_err(|e| {
        format!("capabilities cannot be given up (capset): {e}; allow that system call")
    })
}

impl Drop for Running {
    fn drop(&mut self) {
        // Who wants to know calls `stop`.
        let _ = self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_either_thread_is_noticed_and_its_reason_told() {
        let config = Config {
            listen: vec![([127, 0, 0, 1], 0).into()],
            control_socket: None,
            ..Config::default()
        };
        let mut running = Running::start(&config).unwrap();
        assert_eq!(running.has_ended(), None);
        let streams = running.streams.as_mut().unwrap();
        let lost = std::thread::spawn(|| Err("its ring is gone".to_owned()));
        let whole = std::mem::replace(&mut streams.thread, lost);
        while running.has_ended().is_none() {
            std::thread::yield_now();
        }
        assert_eq!(running.has_ended(), Some("streams"));
        assert_eq!(running.stop(), Err("its ring is gone".to_owned()));
        // The command to end reached the one that stood there before.
        assert_eq!(whole.join().unwrap(), Ok(()));

        let mut running = Running::start(&config).unwrap();
        running.command(Command::Stop).unwrap();
        while running.has_ended().is_none() {
            std::thread::yield_now();
        }
        assert_eq!(running.has_ended(), Some("echo"));
        assert!(running.status().is_err());
    }
}
