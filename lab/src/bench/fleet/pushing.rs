//! The receiver's part: batches of a real daemon, told as if by each router.

mod batch;
mod capture;
mod receiver;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use self::batch::Batch;
use self::capture::SERIES;
use self::receiver::{Connection, Receiver};
use super::super::setup::Bench;
use super::{DAY_S, Fail, Options, PUSH_S, mib};

/// How many post at a time.
const POSTING: usize = 4;
/// A receiver may take this long for a batch, and for an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Batches of a router and day.
const DAY_PUSHES: usize = (DAY_S / PUSH_S) as usize;

pub(super) fn run(options: Options) -> Result<(), Fail> {
    let routers = options.routers as usize;
    let bench = Bench::new()?;
    let batches = capture::record(&bench, options.batches as usize)?;
    let samples = batches.first().map_or(0, Batch::samples);
    let receiver = Receiver::start(&bench, "victoria-metrics")?;
    let mut senders = Senders::new(&batches, routers)?;
    let idle = receiver.memory()?;
    let first = senders.push(&receiver, 0..1)?;
    let rest = senders.push(&receiver, 1..batches.len())?;
    let memory = receiver.memory()?;
    senders.all_there(&receiver)?;
    drop(senders);
    let disk = receiver.end()?;

    println!(
        "{routers} routers, each with a connection, push {} batches of a daemon with {SERIES} series (a reflector, and \
         hosts that are pinged, through an emulated line), {samples} samples each, told as {PUSH_S} s apart. They go to \
         victoria-metrics by remote-write 1.0, {POSTING} at a time, as fast as it takes them. Of every router all \
         samples are there.\n",
        batches.len()
    );
    let samples = samples as f64;
    let pushes = (routers * batches.len()) as f64;
    let rest_pushes = pushes - routers as f64;
    let rest_ms = rest.cpu_ns as f64 / rest_pushes / 1e6;
    let due_s = PUSH_S as f64 / routers as f64;
    println!(
        "samples a second            {:>10.0} taken once series are known; {routers} routers make {:.0}",
        rest_pushes * samples / rest.took.as_secs_f64(),
        samples / due_s
    );
    println!(
        "receiver's CPU              {rest_ms:>10.2} ms a batch ({:.2} µs a sample): {:.3} of one for all, {:.1} s a \
         day for each router",
        rest_ms * 1000.0 / samples,
        rest_ms / 1000.0 / due_s,
        rest_ms / 1000.0 * DAY_PUSHES as f64
    );
    println!(
        "  a router's first batch    {:>10.2} ms, with {samples:.0} new series; all of them in {:.1} s",
        first.cpu_ns as f64 / 1e6 / routers as f64,
        first.took.as_secs_f64()
    );
    println!(
        "receiver's memory           {:>10.0} MiB resident, {:.0} MiB before the first batch: {:.0} KiB a router",
        mib(memory.resident_bytes),
        mib(idle.resident_bytes),
        memory.resident_bytes.saturating_sub(idle.resident_bytes) as f64 / 1024.0 / routers as f64
    );
    println!(
        "receiver's disk             {:>10.2} bytes a sample, with {} of a series in a row: {:.1} MB a day for each router",
        disk.data as f64 / (pushes * samples),
        batches.len(),
        disk.data as f64 / pushes * DAY_PUSHES as f64 / 1e6
    );
    println!(
        "  index                     {:>10.1} MB: {:.0} bytes a series, {:.1} kB a router, once",
        disk.index as f64 / 1e6,
        disk.index as f64 / (routers as f64 * samples),
        disk.index as f64 / routers as f64 / 1000.0
    );
    let wire = (first.bytes + rest.bytes) as f64 / pushes;
    println!(
        "on the wire                 {:>10.1} kB a batch with its head: {:.1} MB a day for each router",
        wire / 1000.0,
        wire * DAY_PUSHES as f64 / 1e6
    );
    Ok(())
}

/// What pushes took.
#[derive(Clone, Copy, Debug)]
struct Pushed {
    /// Of the receiver.
    cpu_ns: u64,
    took: Duration,
    /// Requests, with their heads.
    bytes: u64,
}

/// The routers of a fleet.
struct Senders<'a> {
    batches: &'a [Batch],
    /// Each router's number and its connection, which it opens when it has something to say: a receiver
    /// closes those that are silent at first.
    connections: Vec<(usize, Option<Connection>)>,
    /// When the first batch is of, s since 1970: the last is of now.
    begin_s: u64,
}

impl<'a> Senders<'a> {
    fn new(batches: &'a [Batch], routers: usize) -> Result<Self, Fail> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_err(|e| Fail::of("the clock", e))?;
        Ok(Self {
            batches,
            connections: (0..routers).map(|number| (number, None)).collect(),
            begin_s: now.as_secs() - batches.len() as u64 * PUSH_S,
        })
    }

    /// Each router pushes the batches with these numbers.
    fn push(
        &mut self,
        receiver: &Receiver,
        numbers: std::ops::Range<usize>,
    ) -> Result<Pushed, Fail> {
        let (begun, before_ns) = (Instant::now(), receiver.cpu_ns()?);
        let (batches, begin_s) = (self.batches, self.begin_s);
        let each = self.connections.len().div_ceil(POSTING);
        let mut bytes = 0;
        for n in numbers {
            let at_ms = (begin_s + n as u64 * PUSH_S) * 1000;
            let post = |own: &mut [(usize, Option<Connection>)]| -> Result<u64, Fail> {
                let posted = own.iter_mut().map(|(number, connection)| {
                    let connection = match connection {
                        Some(c) => c,
                        None => connection.insert(receiver.connect()?),
                    };
                    connection.post(&batches[n].told(*number, at_ms)?)
                });
                posted.sum()
            };
            let posted: Result<u64, Fail> = std::thread::scope(|scope| {
                let workers: Vec<_> = self
                    .connections
                    .chunks_mut(each)
                    .map(|own| scope.spawn(|| post(own)))
                    .collect();
                let ended = workers.into_iter().map(|w| w.join());
                ended
                    .map(|r| r.map_err(|_| Fail::Failed("a sender panicked".into()))?)
                    .sum()
            });
            bytes += posted?;
        }
        Ok(Pushed {
            cpu_ns: receiver.cpu_ns()? - before_ns,
            took: begun.elapsed(),
            bytes,
        })
    }

    /// Looks whether the receiver has each sample of each router.
    fn all_there(&self, receiver: &Receiver) -> Result<(), Fail> {
        let (routers, span_s) = (self.connections.len(), self.batches.len() as u64 * PUSH_S);
        let found = receiver.samples(routers, self.begin_s + span_s, span_s + PUSH_S)?;
        let wanted: usize = self.batches.iter().map(Batch::samples).sum();
        for (number, _) in &self.connections {
            let name = format!("router-{number:08}");
            let n = found.get(&name).copied().unwrap_or(0);
            if n != wanted {
                return Err(Fail::Failed(format!(
                    "the receiver has {n} samples of {name}, which pushed {wanted}"
                )));
            }
        }
        Ok(())
    }
}
