//! Services that are asked through each uplink: resolvers, servers of HTTP, and whoever takes connections.
//! Their answers take as long as the service takes, over whatever path and with whatever allocations a
//! protocol needs, so they are asked on a thread of their own and not on the ring of the probe thread.
//! From the recorder on their samples go the way of all others.
//!
//! A question may have several steps, each of them a series. A step that was not reached has no sample, but
//! the last one always has: what became of the whole is to be seen there.
//!
//! Times are this program's: an answer is seen when the thread is woken.

pub(crate) mod config;
mod dns;
mod hold;
mod http;
mod socket;
mod steps;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::Duration;

use bufferbane_core::sample::{Observation, Sample, SeriesIndex};
use bufferbane_core::schedule::Slots;
use bufferbane_linux_io::clock;
use nix::libc;
use rand_chacha::ChaCha12Rng;
use rand_core::Rng;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinError, JoinSet};

use crate::config::timeout_ns;
use crate::equip::SPREAD_PERMILLE;
use crate::recorder::Order;
use crate::scout::Way;

use steps::{Outcome, Steps, errno, finish};

pub use config::{Lookup, Page, Service, ServicePlace, ServiceTarget};

/// What the keeper tells the asking thread.
#[derive(Debug)]
pub(crate) enum Command {
    /// Ask this too; it waits for a word about its way.
    Add(Box<Unit>),
    /// Ask no more.
    Remove(u32),
    /// Its way is open.
    Open(u32),
    /// It is not, for this errno.
    Close(u32, i32),
}

/// Questions that are asked again and again.
#[derive(Debug)]
pub(crate) struct Unit {
    pub(crate) id: u32,
    /// One for each step.
    pub(crate) series: Vec<SeriesIndex>,
    pub(crate) way: Way,
    /// The target's name.
    pub(crate) target: String,
    pub(crate) remote: SocketAddr,
    pub(crate) service: Service,
    pub(crate) rng: ChaCha12Rng,
}

impl Unit {
    /// The connection that is held beside what is asked.
    fn held(&self) -> Option<hold::Hold> {
        let Service::Tcp {
            hold_ns: Some(idle_ns),
            ..
        } = self.service
        else {
            return None;
        };
        Some(hold::Hold {
            way: self.way.clone(),
            target: self.target.clone(),
            to: self.remote,
            idle_ns,
        })
    }
}

/// Asks a resolver once, and waits: whether it gives an answer.
///
/// # Errors
/// When the system has nothing to wait with.
pub(crate) fn is_answered(
    way: &Way,
    to: SocketAddr,
    lookup: &Lookup,
    patience: Duration,
) -> io::Result<bool> {
    let random = [getrandom::u64()?, getrandom::u64()?];
    let asking = dns::ask(way, to, lookup, random);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(async { tokio::time::timeout(patience, asking).await });
    Ok(matches!(outcome, Ok(Outcome::Answered(_))))
}

/// Whether a unit may ask.
#[derive(Clone, Copy, Debug)]
enum Gate {
    Unknown,
    Open,
    Closed(i32),
}

/// Starts the thread; it ends when `commands` has no other end any more.
///
/// # Errors
/// When the system has no thread to give.
pub(crate) fn start(
    commands: mpsc::UnboundedReceiver<Command>,
    orders: SyncSender<Order>,
) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name("ask".into())
        .spawn(move || runtime.block_on(serve(commands, orders)))
}

async fn serve(mut commands: mpsc::UnboundedReceiver<Command>, orders: SyncSender<Order>) {
    // A set ends what is in it when it is dropped.
    let mut units = JoinSet::new();
    let mut running = HashMap::new();
    let set = |running: &HashMap<u32, (watch::Sender<Gate>, AbortHandle)>, id, gate| {
        if let Some((sender, _)) = running.get(&id) {
            sender.send_replace(gate);
        }
    };
    loop {
        let command = tokio::select! {
            command = commands.recv() => command,
            Some(ended) = units.join_next() => {
                pass_on(ended);
                continue;
            }
        };
        match command {
            None => return,
            Some(Command::Add(unit)) => {
                let (sender, gate) = watch::channel(Gate::Unknown);
                let id = unit.id;
                let held = unit
                    .held()
                    .map(|h| hold::hold(h, gate.clone(), orders.clone()));
                let asking = ask_again_and_again(unit, gate, orders.clone());
                let task = units.spawn(async move {
                    match held {
                        Some(held) => drop(tokio::join!(asking, held)),
                        None => asking.await,
                    }
                });
                running.insert(id, (sender, task));
            }
            Some(Command::Remove(id)) => {
                if let Some((_, task)) = running.remove(&id) {
                    task.abort();
                }
            }
            Some(Command::Open(id)) => set(&running, id, Gate::Open),
            Some(Command::Close(id, errno)) => set(&running, id, Gate::Closed(errno)),
        }
    }
}

/// A series that is asked no more although nobody said so ends the thread, so that somebody sees it.
fn pass_on(ended: Result<(), JoinError>) {
    if let Err(e) = ended
        && e.is_panic()
    {
        std::panic::resume_unwind(e.into_panic());
    }
}

/// What is asked, of whom, and how.
struct Question {
    way: Way,
    to: SocketAddr,
    service: Service,
    tls: Option<http::Tls>,
}

impl Question {
    /// # Errors
    /// When it can never be asked.
    fn new(way: Way, to: SocketAddr, service: Service) -> io::Result<Self> {
        let tls = match &service {
            Service::Http(page) => http::Tls::of(page)?,
            Service::Dns(_) | Service::Tcp { .. } => None,
        };
        Ok(Self {
            way,
            to,
            service,
            tls,
        })
    }

    /// Asks; tells in `steps` how far it came.
    async fn ask(&self, random: [u64; 2], steps: &mut Steps) {
        let (way, to) = (&self.way, self.to);
        match &self.service {
            Service::Dns(lookup) => steps.end(dns::ask(way, to, lookup, random).await),
            Service::Tcp { .. } => match socket::connect(way, to).await {
                Ok(_) => steps.answered(),
                Err(why) => steps.end(why),
            },
            Service::Http(page) => http::get(way, to, page, self.tls.as_ref(), steps).await,
        }
    }
}

/// Questions that are under way.
#[derive(Default)]
struct Questions {
    tasks: JoinSet<()>,
    samples: HashMap<tokio::task::Id, Vec<Sample>>,
}

impl Questions {
    /// Asks, and tells what becomes of it; `samples` are those of the steps.
    fn begin(
        &mut self,
        samples: Vec<Sample>,
        patience: Duration,
        question: Arc<Question>,
        random: [u64; 2],
        orders: &SyncSender<Order>,
    ) {
        let (orders, kept) = (orders.clone(), samples.clone());
        let task = self.tasks.spawn(async move {
            let mut steps = Steps::begin();
            let asking = question.ask(random, &mut steps);
            // When time is up, the step that it is at has been answered by nobody.
            let _ = tokio::time::timeout(patience, asking).await;
            for sample in steps.finish(&samples) {
                tell(&orders, sample);
            }
        });
        self.samples.insert(task.id(), kept);
    }

    /// Forgets what has ended. A question that ended by a mistake of ours is told as not asked: it says
    /// nothing of the service nor of the line.
    fn tidy(&mut self, orders: &SyncSender<Order>) {
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            match ended {
                Ok((id, ())) => {
                    self.samples.remove(&id);
                }
                Err(e) => {
                    log::error!("a question to a service was given up by a mistake of ours: {e}");
                    for sample in self.samples.remove(&e.id()).unwrap_or_default() {
                        tell(orders, finish(sample, Outcome::Unsent(libc::EIO)));
                    }
                }
            }
        }
    }
}

async fn ask_again_and_again(
    unit: Box<Unit>,
    gate: watch::Receiver<Gate>,
    orders: SyncSender<Order>,
) {
    let Unit {
        series,
        way,
        remote,
        service,
        mut rng,
        ..
    } = *unit;
    let interval_ns = service.interval_ns();
    let steps: Vec<(SeriesIndex, u16)> = series
        .into_iter()
        .zip(service.steps())
        .map(|(series, step)| (series, service.size(*step)))
        .collect();
    let question = match Question::new(way, remote, service) {
        Ok(question) => Arc::new(question),
        Err(e) => {
            log::error!("{remote} is not asked: {e}");
            return;
        }
    };
    let mut slots = Slots::new(clock::now(), interval_ns, SPREAD_PERMILLE, &mut rng);
    let mut asked = Questions::default();
    let mut seq = 0;
    loop {
        let left = slots.deadline().saturating_since(clock::now());
        if left > 0 {
            tokio::time::sleep(Duration::from_nanos(left)).await;
            continue;
        }
        asked.tidy(&orders);
        let now = clock::now();
        let late_ns = now.signed_since(slots.deadline());
        slots.advance(now, &mut rng);
        let samples = steps.iter().map(|(series, size)| Sample {
            send_late_ns: late_ns,
            ..Sample::lost(*series, seq, now, *size)
        });
        let samples: Vec<Sample> = samples.collect();
        match *gate.borrow() {
            Gate::Unknown => continue,
            Gate::Closed(errno) => {
                for sample in samples {
                    tell(&orders, finish(sample, Outcome::Unsent(errno)));
                }
            }
            Gate::Open => {
                let random = [rng.next_u64(), rng.next_u64()];
                let patience = Duration::from_nanos(timeout_ns(interval_ns));
                asked.begin(samples, patience, Arc::clone(&question), random, &orders);
            }
        }
        seq += 1;
    }
}

fn tell(orders: &SyncSender<Order>, sample: Sample) {
    // It waits for a recorder that is behind, and is gone only when everything ends.
    let _ = orders.send(Order::Observation(Observation::New(sample)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use bufferbane_core::sample::Status;
    use bufferbane_core::time::Monotonic;

    fn sample(series: u16, seq: u64) -> Sample {
        Sample::lost(SeriesIndex(series), seq, Monotonic::from_nanos(5), 29)
    }

    #[tokio::test]
    async fn a_question_that_panics_is_told_once_for_each_step() {
        let (orders, told) = std::sync::mpsc::sync_channel(9);
        let mut asked = Questions::default();
        let task = asked.tasks.spawn(async { panic!("a mistake") });
        let samples = vec![sample(3, 1), sample(4, 1)];
        asked.samples.insert(task.id(), samples);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let service = Service::Tcp {
            interval_ns: 1,
            hold_ns: None,
        };
        let question = Question::new(Way::of(&"lo".into()), to, service).unwrap();
        let patience = Duration::from_secs(60);
        let samples = vec![sample(5, 2)];
        asked.begin(samples, patience, Arc::new(question), [0; 2], &orders);
        while !asked.samples.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
            asked.tidy(&orders);
        }
        let mut ends: Vec<(u16, u64, Status)> = told
            .try_iter()
            .map(|order| match order {
                Order::Observation(Observation::New(s)) => (s.series.0, s.seq, s.status),
                other => panic!("{other:?}"),
            })
            .collect();
        ends.sort_by_key(|e| e.0);
        let expected = [
            (3, 1, Status::Unsent),
            (4, 1, Status::Unsent),
            (5, 2, Status::Ok),
        ];
        assert_eq!(ends, expected);
    }

    #[tokio::test]
    #[should_panic(expected = "a mistake")]
    async fn a_series_that_panics_ends_the_thread() {
        let mut units = JoinSet::new();
        units.spawn(async { panic!("a mistake") });
        pass_on(units.join_next().await.unwrap());
    }
}
