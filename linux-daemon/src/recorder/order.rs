//! What other threads tell the recorder.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::mpsc::SyncSender;

use bufferbane_core::sample::{Observation, SeriesIndex};
use bufferbane_core::time::Monotonic;
use bufferbane_store::{Capacity, Event, LoadTest, SeriesInfo, Severity};

use super::{Session, Settings};
use crate::held::Told;

/// See the module.
#[derive(Debug)]
pub(crate) enum Order {
    /// Samples of this index belong to this series.
    Series(SeriesIndex, SeriesInfo),
    /// They no longer come.
    Forget(SeriesIndex),
    /// This unit has this session with a reflector.
    Session(u32, Session),
    /// It is over since then.
    SessionEnds(Monotonic, u32),
    /// What became of a question that was asked outside the probe thread.
    Observation(Observation),
    /// What became of a connection that is held open.
    Held(Told),
    /// Something happened then, and was over.
    Moment(Monotonic, Fact),
    /// Something began then: (name of the trouble, event).
    Begin(Monotonic, String, Fact),
    /// It is so when probing begins, and may have been so for long.
    Still(Monotonic, String, Fact),
    /// What is so named ended then.
    End(Monotonic, String),
    /// A throughput test loads this interface from then on.
    LoadBegins(String, Monotonic),
    /// And no longer.
    LoadEnds(String, Monotonic),
    /// A packet train is on its way through this interface from then on.
    TrainBegins(String, Monotonic),
    /// And no longer.
    TrainEnds(String, Monotonic),
    /// What a packet train said, whether that is to be recorded, and the rate, bit/s, that the detectors
    /// are to hear of, if it is a word about the line.
    Train(Monotonic, Box<Capacity>, bool, Option<u64>),
    /// A throughput test was made, and how long what it found speaks of the line, ns.
    Test(Box<LoadTest>, u64),
    /// The host's routes are others than before: the interfaces, with the next hops of their default routes.
    Rerouted(BTreeSet<(String, IpAddr)>),
    /// Commit now, and say how it went.
    Commit(SyncSender<Result<(), String>>),
    /// Other settings from now on.
    Settings(Box<Settings>),
    /// Write everything and end.
    Stop,
}

/// What an event says; the recorder adds boot and time.
#[derive(Clone, Debug)]
pub(crate) struct Fact {
    pub(crate) kind: &'static str,
    pub(crate) severity: Severity,
    pub(crate) interface: String,
    pub(crate) target: Option<String>,
    pub(crate) text: String,
    /// Figures by name.
    pub(crate) values: Vec<(&'static str, serde_json::Value)>,
}

impl Fact {
    /// It begins at `at` of `boot`.
    pub(super) fn event(self, boot: u32, at: Monotonic) -> Event {
        let mut event = Event::new(self.kind, self.severity, boot, at, self.text);
        event.interface = self.interface;
        event.target = self.target;
        let values = self.values.into_iter();
        event.values.extend(values.map(|(n, v)| (n.to_owned(), v)));
        event
    }
}
