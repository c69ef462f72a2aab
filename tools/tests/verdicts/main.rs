//! Real programs on real-time lines that know what they did, and what `bbtool report` says first of them.
//!
//! The lines of [`LINES`] run at the same time, each in namespaces of its own with a daemon and a reflector at its
//! ends: a while well, a while in trouble, and well again. Of each the report has to name the cause and its direction,
//! and no other cause; what its events say in figures has to be what the line's own log says.
//!
//! What needs longer than a minute or two stays with the simulated lines of `core/sim` (docs/scenarios.md): *nothing
//! wrong* in so many words, which takes ten minutes of calm, so that of a good line here nothing at all may be said;
//! evenings, which take days; periods longer than seconds. Capacity that drops is in `household`.
#![cfg(feature = "demo")]

mod far_end;
mod household;
mod line;
mod truth;

use bufferbane_lab::{netns, skip};
use line::{Line, Place, Trouble, run};

/// Probed every 50 ms, and told apart by direction.
const VIENNA: &str = "10.99.0.1";
const BERLIN: &str = "10.99.0.2";
/// Pinged.
const QUAD9: &str = "9.9.9.9";
const CLOUDFLARE: &str = "1.1.1.1";

const fn through(up: &'static str, down: &'static str) -> Trouble {
    Trouble::Line { up, down }
}

/// What is done to each line for so many seconds, and what has to be said of it.
static LINES: [Line; 12] = [
    Line::new("well", Trouble::None, 30, &[]),
    Line {
        place: Place::House,
        ..Line::new(
            "the way to the gateway loses packets",
            through("loss=5%", "loss=5%"),
            45,
            &[("in_house", "both")],
        )
    },
    Line {
        place: Place::RadioAndWire,
        ..Line::new(
            "the radio loses packets and the wire does not",
            through("loss=6%", "loss=6%"),
            70,
            &[("in_house", "both")],
        )
    },
    Line::new(
        "noise upstream",
        through("bursts=0.4%/40/65%", ""),
        45,
        &[("access_loss", "up")],
    ),
    Line::new(
        "loss downstream",
        through("", "loss=8%"),
        45,
        &[("access_loss", "down")],
    ),
    Line::new(
        "a queue of others upstream",
        through("delay=98ms", ""),
        25,
        &[("access_delay", "up")],
    ),
    Line::new(
        "the modem ranges again",
        through("outages=0s/12s/1500ms", ""),
        40,
        &[("access_outages", "")],
    ),
    Line::new(
        "something disturbs it each four seconds",
        through("outages=0s/4s/160ms", ""),
        60,
        &[("periodic_interference", "up")],
    ),
    Line::new(
        "a peering loses packets",
        through("", "loss=8%,only=10.99.0.2/9.9.9.9"),
        70,
        &[("provider_path", "down")],
    ),
    Line {
        starts_at: Some(2),
        ..Line::new(
            "one far end loses packets",
            through("", "loss=50%,only=10.99.0.2"),
            54,
            &[("far_end", "down")],
        )
    },
    Line::new(
        "the resolver fails",
        Trouble::Resolver,
        30,
        &[("resolver", "")],
    ),
    Line::new(
        "this host has no time",
        Trouble::Host,
        40,
        &[("this_host", "")],
    ),
];

#[test]
fn each_line_is_told_as_what_happened_on_it_and_as_nothing_else() {
    if let Err(why) = netns::possible() {
        return skip(&why);
    }
    let running: Vec<_> = LINES
        .iter()
        .map(|line| (line, std::thread::spawn(|| run(line))))
        .collect();
    let mut wrong = Vec::new();
    for (line, thread) in running {
        let found = thread.join().unwrap_or_else(|_| vec!["panicked".into()]);
        wrong.extend(found.into_iter().map(|f| format!("{}: {f}", line.name)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
