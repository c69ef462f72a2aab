//! The probe thread over loopback, driven step by step.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use bufferbane_core::flight::{LossSlot, Slot};
use bufferbane_core::sample::{SeriesIndex, Status};
use bufferbane_core::stamp::{Counting, StampConfig, StampProber};
use bufferbane_core::wire::stamp::Format;
use bufferbane_linux_io::Family;
use rand_core::SeedableRng;

use super::*;

const MS: u64 = 1_000_000;

/// A probe thread with the other ends of its queues.
struct Bench {
    thread: ProbeThread,
    returned: Consumer<Returned>,
    reports: Consumer<Report>,
}

impl Bench {
    fn new() -> Self {
        let (_, command_out) = rtrb::RingBuffer::new(COMMANDS);
        let (returned_in, returned) = rtrb::RingBuffer::new(COMMANDS);
        let (report_in, reports) = rtrb::RingBuffer::new(REPORTS);
        let queues = Queues {
            commands: command_out,
            returned: returned_in,
            reports: report_in,
        };
        Self {
            thread: ProbeThread::new(queues, ChaCha12Rng::from_seed([7; 32])).unwrap(),
            returned,
            reports,
        }
    }

    /// One round of [`ProbeThread::run`], without the wait.
    fn step(&mut self) {
        let now = clock::now();
        self.thread.send_due(now);
        self.thread.report(now);
    }

    fn wait(&mut self, ms: u64) {
        let until = clock::now().saturating_add(ms * MS);
        self.thread.wait(until).unwrap();
    }

    /// Every sample and revision so far.
    fn observations(&mut self) -> Vec<Observation> {
        let mut all = Vec::new();
        while let Ok(report) = self.reports.pop() {
            if let Report::Observation(o) = report {
                all.push(o);
            }
        }
        all
    }
}

fn socket() -> Box<ProbeSocket> {
    Box::new(ProbeSocket::udp(Family::V4).build().unwrap())
}

/// A unit that sends STAMP to `far`.
fn unit(id: u32, far: &UdpSocket, interval_ns: u64, timeout_ns: u64) -> Box<Unit> {
    let remote = far.local_addr().unwrap();
    let config = StampConfig {
        series: SeriesIndex(id as u16),
        remote,
        key: None,
        format: Format::Ntp,
        counting: Counting::Stateless,
        size: 44,
        interval_ns,
        spread_permille: 0,
        timeout_ns,
    };
    let slots: Box<[Slot]> = vec![Slot::default(); 1024].into();
    let losses: Box<[LossSlot]> = Box::new([]);
    let mut rng = ChaCha12Rng::from_seed([id as u8; 32]);
    let prober = StampProber::new(config, clock::now(), slots, losses, &mut rng);
    let prober = Prober::Stamp(Box::new(prober));
    Box::new(Unit::new(id, remote, prober, vec![0], 1024))
}

fn far() -> UdpSocket {
    let far = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    far.set_read_timeout(Some(Duration::from_millis(1)))
        .unwrap();
    far
}

/// What has come to `far`, with whom to answer.
fn heard(far: &UdpSocket) -> Vec<(Vec<u8>, SocketAddr)> {
    let mut all = Vec::new();
    let mut bytes = [0; 2048];
    while let Ok((len, from)) = far.recv_from(&mut bytes) {
        all.push((bytes[..len].to_vec(), from));
    }
    all
}

/// The reply of RFC 8762, section 4.3.1, to each request.
fn answer(far: &UdpSocket, requests: &[(Vec<u8>, SocketAddr)]) {
    for (request, to) in requests {
        let mut reply = [0; 44];
        // Sequence number, time stamp and error estimate, once as ours and once as theirs.
        reply[..16].copy_from_slice(&request[..16]);
        reply[16..24].copy_from_slice(&request[4..12]);
        reply[24..38].copy_from_slice(&request[..14]);
        reply[40] = 64;
        far.send_to(&reply, to).unwrap();
    }
}

#[test]
fn a_burst_of_late_answers_is_told_whole() {
    let mut bench = Bench::new();
    let far = far();
    assert!(bench.thread.obey(Command::Add(unit(1, &far, MS, 20 * MS))));
    assert!(bench.thread.obey(Command::Open(1, socket())));
    let (mut requests, mut lost) = (Vec::new(), 0);
    while lost < 150 {
        bench.step();
        bench.wait(1);
        requests.extend(heard(&far));
        let told = bench.observations();
        lost += told
            .iter()
            .filter(|o| matches!(o, Observation::New(_)))
            .count();
    }
    // Whatever is left in flight is lost before it is answered too.
    std::thread::sleep(Duration::from_millis(40));
    bench.step();
    requests.extend(heard(&far));
    lost += bench.observations().len();
    answer(&far, &requests[..lost]);
    // How many the kernel hands over at a time is its own affair.
    for _ in 0..20 {
        bench.wait(5);
    }
    bench.step();
    let revised = bench.observations();
    let late = |o: &&Observation| matches!(o, Observation::Revised(s) if s.status == Status::Late);
    assert_eq!(revised.iter().filter(late).count(), lost);
    assert_eq!(bench.thread.health.dropped_reports, 0);
}

#[test]
fn what_has_been_answered_is_told_before_a_unit_or_the_thread_ends() {
    for end in [Command::Remove(1), Command::Stop] {
        let mut bench = Bench::new();
        let far = far();
        bench
            .thread
            .obey(Command::Add(unit(1, &far, 1000 * MS, 3000 * MS)));
        bench.thread.obey(Command::Open(1, socket()));
        let mut requests = Vec::new();
        while requests.is_empty() {
            bench.step();
            bench.wait(10);
            requests = heard(&far);
        }
        answer(&far, &requests);
        bench.thread.obey(end);
        let told = bench.observations();
        let [Observation::New(s)] = &told[..] else {
            panic!("{told:?}")
        };
        assert_eq!(s.status, Status::Ok);
    }
}

#[test]
fn more_units_than_half_of_the_places_are_replaced_at_once() {
    let mut bench = Bench::new();
    let far = far();
    let count = u32::from(SOCKETS) - 10;
    for id in 0..count {
        bench
            .thread
            .obey(Command::Add(unit(id, &far, 1000 * MS, 3000 * MS)));
        bench.thread.obey(Command::Open(id, socket()));
    }
    for id in 0..count {
        bench.thread.obey(Command::Remove(id));
    }
    for id in count..2 * count {
        bench
            .thread
            .obey(Command::Add(unit(id, &far, 1000 * MS, 3000 * MS)));
        bench.thread.obey(Command::Open(id, socket()));
    }
    assert_eq!(bench.thread.units.len(), count as usize);
    assert!(bench.thread.units.iter().all(|u| u.socket.is_ok()));
}

#[test]
fn the_keeper_hears_of_a_socket_that_finds_no_place() {
    let mut bench = Bench::new();
    let far = far();
    for id in 0..u32::from(SOCKETS) {
        bench
            .thread
            .obey(Command::Add(unit(id, &far, 1000 * MS, 3000 * MS)));
        bench.thread.obey(Command::Open(id, socket()));
    }
    assert!(bench.returned.pop().is_err());
    // Every place is taken, and a socket more without a unit's giving one up.
    bench.thread.units[0].socket = Err(nix::libc::ENETDOWN);
    bench.thread.obey(Command::Open(0, socket()));
    let Ok(Returned::NotOpened(0, errno)) = bench.returned.pop() else {
        panic!("it is not told")
    };
    assert_eq!(errno, nix::libc::ENFILE);
    assert_eq!(bench.thread.units[0].socket, Err(errno));
}
