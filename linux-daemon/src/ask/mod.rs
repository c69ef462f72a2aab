//! Services that are asked through each uplink: resolvers, and whoever takes connections. Their answers take as long as the service
//! takes, over whatever path and with whatever allocations a protocol needs, so they are asked on a
//! thread of their own and not on the ring of the probe thread. From the recorder on their samples go
//! the way of all others.
//!
//! Times are this program's: an answer is seen when the thread is woken.

pub(crate) mod config;
mod dns;
mod socket;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::Duration;

use bufferbane_core::failure::Failure;
use bufferbane_core::limits::SENT_LATE_NS;
use bufferbane_core::sample::{Flags, Observation, Sample, SeriesIndex, Status};
use bufferbane_core::schedule::Slots;
use bufferbane_core::time::ClockSource;
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

pub use config::{Lookup, Service, ServicePlace, ServiceTarget};

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

/// One series of questions.
#[derive(Debug)]
pub(crate) struct Unit {
    pub(crate) id: u32,
    pub(crate) series: SeriesIndex,
    pub(crate) way: Way,
    pub(crate) remote: SocketAddr,
    pub(crate) service: Service,
    pub(crate) rng: ChaCha12Rng,
}

impl Unit {
    /// Bytes of a question; 0 where there is none of one size.
    pub(crate) fn size_of(service: &Service) -> u16 {
        match service {
            Service::Dns(lookup) => dns::size(lookup),
            Service::Tcp { .. } => 0,
        }
    }
}

/// What became of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// It was answered, after so many ns.
    Answered(u64),
    /// The answer is that it is not answered.
    Failed(Failure),
    /// Nobody has answered, and it is known that nobody will.
    Silent,
    /// It could not be asked.
    Unsent(i32),
}

impl Outcome {
    /// What an error says that came once something had been sent.
    fn of(e: &io::Error) -> Self {
        match errno(e) {
            _ if e.kind() == io::ErrorKind::UnexpectedEof => Self::Failed(Failure::CLOSED),
            n @ (libc::ECONNREFUSED | libc::ECONNRESET) => Self::Failed(Failure::errno(n)),
            // It was reset before.
            libc::EPIPE => Self::Failed(Failure::CLOSED),
            // A router's word that it cannot be reached, or this host's that nobody on the link has that
            // address, or that time is up: whoever was asked has not said anything.
            _ => Self::Silent,
        }
    }
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
                let task = units.spawn(ask_again_and_again(unit, gate, orders.clone()));
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

/// Questions that are under way.
#[derive(Default)]
struct Questions {
    tasks: JoinSet<()>,
    samples: HashMap<tokio::task::Id, Sample>,
}

impl Questions {
    /// Asks, and tells what becomes of it.
    fn begin(
        &mut self,
        sample: Sample,
        patience: Duration,
        answer: impl Future<Output = Outcome> + Send + 'static,
        orders: &SyncSender<Order>,
    ) {
        let orders = orders.clone();
        let task = self.tasks.spawn(async move {
            let outcome = tokio::time::timeout(patience, answer).await;
            tell(&orders, finish(sample, outcome.ok()));
        });
        self.samples.insert(task.id(), sample);
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
                    if let Some(sample) = self.samples.remove(&e.id()) {
                        tell(orders, finish(sample, Some(Outcome::Unsent(libc::EIO))));
                    }
                }
            }
        }
    }
}

async fn ask_again_and_again(
    mut unit: Box<Unit>,
    gate: watch::Receiver<Gate>,
    orders: SyncSender<Order>,
) {
    let interval_ns = unit.service.interval_ns();
    let mut slots = Slots::new(clock::now(), interval_ns, SPREAD_PERMILLE, &mut unit.rng);
    let size = Unit::size_of(&unit.service);
    let mut asked = Questions::default();
    let mut seq = 0;
    loop {
        let left = slots.deadline().saturating_since(clock::now());
        if left > 0 {
            tokio::time::sleep(Duration::from_nanos(left)).await;
            continue;
        }
        asked.tidy(&orders);
        let mut sample = Sample::lost(unit.series, seq, clock::now(), size);
        sample.send_late_ns = sample.sent.signed_since(slots.deadline());
        slots.advance(sample.sent, &mut unit.rng);
        match *gate.borrow() {
            Gate::Unknown => continue,
            Gate::Closed(errno) => tell(&orders, finish(sample, Some(Outcome::Unsent(errno)))),
            Gate::Open => {
                let random = [unit.rng.next_u64(), unit.rng.next_u64()];
                let (way, to, service) = (unit.way.clone(), unit.remote, unit.service.clone());
                let patience = Duration::from_nanos(timeout_ns(interval_ns));
                let answer = async move { ask(&way, to, &service, random).await };
                asked.begin(sample, patience, answer, &orders);
            }
        }
        seq += 1;
    }
}

async fn ask(way: &Way, to: SocketAddr, service: &Service, random: [u64; 2]) -> Outcome {
    match service {
        Service::Dns(lookup) => dns::ask(way, to, lookup, random).await,
        Service::Tcp { .. } => {
            let begun = clock::now();
            match socket::connect(way, to).await {
                Ok(_) => Outcome::Answered(clock::now().saturating_since(begun)),
                Err(why) => why,
            }
        }
    }
}

/// The sample of a question of which this became; nothing is silence.
fn finish(mut sample: Sample, outcome: Option<Outcome>) -> Sample {
    if let Some(Outcome::Unsent(errno)) = outcome {
        sample.status = Status::Unsent;
        sample.errno = u16::try_from(errno).unwrap_or(u16::MAX);
        return sample;
    }
    sample.tx_clock = ClockSource::User;
    if sample.send_late_ns > SENT_LATE_NS as i64 {
        sample.flags = sample.flags.with(Flags::SENT_LATE);
    }
    match outcome {
        Some(Outcome::Answered(rtt_ns)) => {
            (sample.status, sample.rtt_ns) = (Status::Ok, Some(rtt_ns));
            sample.rx_clock = ClockSource::User;
        }
        Some(Outcome::Failed(why)) => {
            (sample.status, sample.errno) = (Status::Ok, why.code());
            sample.rx_clock = ClockSource::User;
        }
        Some(Outcome::Unsent(_) | Outcome::Silent) | None => {}
    }
    sample
}

fn tell(orders: &SyncSender<Order>, sample: Sample) {
    // It waits for a recorder that is behind, and is gone only when everything ends.
    let _ = orders.send(Order::Observation(Observation::New(sample)));
}

fn errno(e: &io::Error) -> i32 {
    e.raw_os_error().unwrap_or(libc::EIO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bufferbane_core::time::Monotonic;

    #[tokio::test]
    async fn a_question_that_panics_is_told_once_all_the_same() {
        let (orders, told) = std::sync::mpsc::sync_channel(9);
        let mut asked = Questions::default();
        let patience = Duration::from_secs(60);
        let sample = |seq| Sample::lost(SeriesIndex(3), seq, Monotonic::from_nanos(5), 29);
        asked.begin(sample(1), patience, async { panic!("a mistake") }, &orders);
        asked.begin(sample(2), patience, async { Outcome::Answered(9) }, &orders);
        while !asked.samples.is_empty() {
            tokio::task::yield_now().await;
            asked.tidy(&orders);
        }
        let mut ends: Vec<(u64, Status)> = told
            .try_iter()
            .map(|order| match order {
                Order::Observation(Observation::New(s)) => (s.seq, s.status),
                other => panic!("{other:?}"),
            })
            .collect();
        ends.sort_by_key(|e| e.0);
        assert_eq!(ends, [(1, Status::Unsent), (2, Status::Ok)]);
    }

    #[tokio::test]
    #[should_panic(expected = "a mistake")]
    async fn a_series_that_panics_ends_the_thread() {
        let mut units = JoinSet::new();
        units.spawn(async { panic!("a mistake") });
        pass_on(units.join_next().await.unwrap());
    }

    #[test]
    fn every_question_ends_in_one_status() {
        let sample = Sample::lost(SeriesIndex(3), 7, Monotonic::from_nanos(5), 29);
        let ends = |outcome| {
            let s = finish(sample, outcome);
            assert_eq!((s.seq, s.series), (7, SeriesIndex(3)));
            (s.status, s.rtt_ns, s.errno)
        };
        let failed = |why| Some(Outcome::Failed(why));
        assert_eq!(ends(None), (Status::Lost, None, 0));
        let of = |errno| Some(Outcome::of(&io::Error::from_raw_os_error(errno)));
        for silent in [libc::ETIMEDOUT, libc::EHOSTUNREACH, libc::ENETUNREACH] {
            assert_eq!(ends(of(silent)), (Status::Lost, None, 0));
        }
        assert_eq!(ends(of(111)), (Status::Ok, None, 111));
        assert_eq!(ends(of(104)), (Status::Ok, None, 104));
        assert_eq!(ends(of(libc::EPIPE)), ends(failed(Failure::CLOSED)));
        let early = Outcome::of(&io::ErrorKind::UnexpectedEof.into());
        assert_eq!(early, Outcome::Failed(Failure::CLOSED));
        assert_eq!(
            ends(failed(Failure::TRUNCATED)),
            (Status::Ok, None, Failure::TRUNCATED.code())
        );
        let answered = Some(Outcome::Answered(9));
        assert_eq!(ends(answered), (Status::Ok, Some(9), 0));
        let unsent = Some(Outcome::Unsent(101));
        assert_eq!(ends(unsent), (Status::Unsent, None, 101));
    }
}
