//! `throughput-bench`: the streams of a throughput test against iperf3 over a virtual cable.
//!
//! Each end has a namespace and a CPU of its own, and the line limits nobody: what is compared is
//! what the programs themselves cost. Rounds alternate; ratios are taken within a round.

mod iperf3;
mod ours;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use argh::FromArgs;
use bufferbane_linux_io::tcp::check_congestion;

use self::iperf3::Iperf3;
use super::{Fail, median, within};
use crate::netns::Namespace;

/// Gbit/s and CPU time per Gbit of the streams of a throughput test against Debian's iperf3, over a
/// virtual cable that limits nobody, one stream and eight, up and down. Needs root or user
/// namespaces, and iperf3.
#[derive(Clone, Copy, Debug, FromArgs)]
#[argh(
    subcommand,
    name = "throughput-bench",
    note = "Example: bufferbane-lab throughput-bench --rounds 5"
)]
pub struct Options {
    /// rounds of everything, 1 to 99 (default: 3)
    #[argh(option, default = "3")]
    pub rounds: u64,
    /// how long each program sends in each round, 1 to 60 s (default: 2)
    #[argh(option, default = "2")]
    pub seconds: u64,
}

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const CLIENT_CPU: usize = 0;
const SERVER_CPU: usize = 1;
/// At least so many times as much as iperf3 carries.
const RATE_AIM: f64 = 1.3;
/// At no more than this share of its CPU time per Gbit.
const CPU_AIM: f64 = 0.8;
const STREAMS: [u16; 2] = [1, 8];

/// Two namespaces, joined.
struct Site {
    client: Namespace,
    server: Namespace,
}

/// What is measured.
#[derive(Clone, Copy, Debug)]
struct Shape {
    streams: u16,
    /// Whether the client sends.
    up: bool,
    congestion: &'static str,
    time: Duration,
}

/// What one program did in one round.
#[derive(Clone, Copy, Debug)]
struct Round {
    /// As the receiver counts it.
    bits_per_second: f64,
    bits: f64,
    /// CPU time of the process or thread that sends, s.
    sender_s: f64,
    receiver_s: f64,
    /// CPU time of both, and of what the kernel runs on their behalf in threads of its own, s.
    both_s: f64,
}

/// Ours and that of iperf3.
type Pair = (Round, Round);

impl Round {
    fn gbit_s(self) -> f64 {
        self.bits_per_second / 1e9
    }

    fn per_gbit(self, seconds: f64) -> f64 {
        seconds / self.bits * 1e9
    }
}

/// Runs it and prints the result.
///
/// # Errors
/// What could not be done.
pub fn run(options: Options) -> Result<(), Fail> {
    within("--rounds", options.rounds, 1..=99)?;
    within("--seconds", options.seconds, 1..=60)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores <= SERVER_CPU {
        return Err(Fail::Failed(format!(
            "this machine has {cores} CPU; the two ends need one each"
        )));
    }
    let program = super::child::installed("iperf3", "iperf3")?;
    crate::netns::possible().map_err(Fail::Failed)?;
    let mut missed = Vec::new();
    for offload in [true, false] {
        let site = Site::new(offload).map_err(|e| Fail::of("the virtual cable", e))?;
        let congestion = site.congestion()?;
        println!(
            "TCP over a virtual cable, {}, {congestion}; client on CPU {CLIENT_CPU}, server on CPU \
             {SERVER_CPU}. Medians of {} alternating rounds of {} s.",
            if offload {
                "with the offloads that the kernel gives it"
            } else {
                "nothing offloaded"
            },
            options.rounds,
            options.seconds
        );
        println!(
            "  {:<18}{:<8}{:>8}{:>15}{:>15}{:>15}",
            "", "", "Gbit/s", "CPU s/Gbit", "of the sender", "the receiver"
        );
        let peer = Iperf3::start(&program, &site)?;
        for streams in STREAMS {
            for up in [true, false] {
                let shape = Shape {
                    streams,
                    up,
                    congestion,
                    time: Duration::from_secs(options.seconds),
                };
                let ratios = compare(&site, &peer, shape, options.rounds)?;
                if offload && !ratios.are_kept() {
                    missed.push(shape.name());
                }
            }
        }
        println!();
    }
    println!(
        "Aims, with offloads: {RATE_AIM} times as much as iperf3 at {CPU_AIM} of its CPU time per Gbit."
    );
    if missed.is_empty() {
        return Ok(());
    }
    Err(Fail::Failed(format!("missed with {}", missed.join(", "))))
}

/// Ours to iperf3's.
struct Ratios {
    rate: f64,
    cpu: f64,
}

impl Ratios {
    fn are_kept(&self) -> bool {
        self.rate >= RATE_AIM && self.cpu <= CPU_AIM
    }
}

impl Shape {
    fn name(&self) -> String {
        format!(
            "{} stream{} {}",
            self.streams,
            if self.streams == 1 { "" } else { "s" },
            if self.up { "up" } else { "down" }
        )
    }
}

fn compare(site: &Site, peer: &Iperf3, shape: Shape, rounds: u64) -> Result<Ratios, Fail> {
    let mut done = Vec::new();
    for round in 0..rounds {
        // Whoever begins has no advantage from it.
        done.push(if round % 2 == 0 {
            let own = ours::round(site, shape)?;
            (own, peer.round(site, shape)?)
        } else {
            let theirs = peer.round(site, shape)?;
            (ours::round(site, shape)?, theirs)
        });
    }
    let of = |pick: &dyn Fn(&Pair) -> f64| middle(&done, pick);
    line(&done, &shape.name(), "ours", |d| d.0);
    line(&done, "", "iperf3", |d| d.1);
    let ratios = Ratios {
        rate: of(&|(o, p)| o.bits_per_second / p.bits_per_second),
        cpu: of(&|(o, p)| o.per_gbit(o.both_s) / p.per_gbit(p.both_s)),
    };
    println!(
        "  {:<18}{:<8}{:>8.2}{:>15.2}{:>15.2}{:>15.2}",
        "",
        "ratio",
        ratios.rate,
        ratios.cpu,
        of(&|(o, p)| o.per_gbit(o.sender_s) / p.per_gbit(p.sender_s)),
        of(&|(o, p)| o.per_gbit(o.receiver_s) / p.per_gbit(p.receiver_s)),
    );
    Ok(ratios)
}

/// The median of what `pick` takes from each round.
fn middle(done: &[Pair], pick: impl Fn(&Pair) -> f64) -> f64 {
    median(&done.iter().map(pick).collect::<Vec<_>>())
}

fn line(done: &[Pair], name: &str, who: &str, pick: fn(&Pair) -> Round) {
    let of = |value: fn(Round) -> f64| middle(done, |d| value(pick(d)));
    println!(
        "  {name:<18}{who:<8}{:>8.2}{:>15.4}{:>15.4}{:>15.4}",
        of(Round::gbit_s),
        of(|r| r.per_gbit(r.both_s)),
        of(|r| r.per_gbit(r.sender_s)),
        of(|r| r.per_gbit(r.receiver_s)),
    );
}

impl Site {
    fn new(offload: bool) -> std::io::Result<Self> {
        let client = Namespace::new("client")?;
        let server = Namespace::new("server")?;
        if offload {
            client.cable_offloading("c0", &server, "s0")?;
        } else {
            client.cable("c0", &server, "s0")?;
        }
        client.ip(&["address", "add", &format!("{CLIENT}/24"), "dev", "c0"])?;
        server.ip(&["address", "add", &format!("{SERVER}/24"), "dev", "s0"])?;
        Ok(Self { client, server })
    }

    /// What tests use by default where sockets may have it, else what every kernel has.
    fn congestion(&self) -> Result<&'static str, Fail> {
        let allowed = |ns: &Namespace| {
            ns.inside(|| check_congestion("cubic").is_ok())
                .map_err(|e| Fail::of("congestion control", e))
        };
        let both = allowed(&self.client)? && allowed(&self.server)?;
        Ok(if both { "cubic" } else { "reno" })
    }
}

const fn address(at: Ipv4Addr) -> IpAddr {
    IpAddr::V4(at)
}
