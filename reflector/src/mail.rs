//! What the echo thread and the streams thread say to each other.

use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::{Receiver, SyncSender};

use bufferbane_core::load::datagrams::flows::{Figures, FlowPlan};
use bufferbane_core::load::host::TestHandle;
use bufferbane_core::session::reflector::OrderFrom;
use bufferbane_core::wire::load::{Order, Report};
use bufferbane_linux_io::{SocketId, Waker};

/// Orders that wait between the threads, and reports.
pub(crate) const WAITING: usize = 64;

/// An order, and where its report goes.
pub(crate) struct Asked {
    pub(crate) from: OrderFrom,
    pub(crate) order: Order,
    pub(crate) way: Way,
    /// What the echo thread has counted of its test, if that is one over UDP.
    pub(crate) figures: Option<Figures>,
}

/// Where a datagram came from, and where it was received.
#[derive(Clone, Copy)]
pub(crate) struct Way {
    pub(crate) socket: SocketId,
    pub(crate) peer: SocketAddr,
    pub(crate) local: Option<IpAddr>,
}

/// A report to be sealed and sent.
pub(crate) struct Told {
    pub(crate) to: OrderFrom,
    /// In one place, so that its secret is wiped when it was sent.
    pub(crate) report: Box<Report>,
    pub(crate) way: Way,
}

/// What the streams thread says of tests over UDP.
pub(crate) enum News {
    /// One was granted.
    Begins(Box<FlowPlan>),
    /// One has ended.
    Ends(TestHandle),
}

/// The echo thread's end of it.
pub(crate) struct Mail {
    pub(crate) asked: SyncSender<Asked>,
    pub(crate) told: Receiver<Told>,
    pub(crate) news: Receiver<News>,
    pub(crate) streams: Waker,
}
