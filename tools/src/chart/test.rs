//! One throughput test on one time axis: the rate, queueing delay up and down, and losses.

use bufferbane_store::{Direction, LoadTest, ProbeBin};

use super::axis::Scale;
use super::data::Material;
use super::frame::{Frame, Heading, Look, Plot, Swatch};
use super::scene::Scene;
use super::tested::rate_mark;
use super::theme::Rgb;
use crate::fail::Fail;
use crate::loads::{lost, rate, word};
use crate::show::{delay, plural};
use crate::when::{self, Range};

/// Length of a bin, ns.
const BIN_NS: u64 = 100_000_000;

/// A value over time: from, to, how much.
type Bins = Vec<(i64, i64, u64)>;

/// Draws the newest test; `None` where there was none.
pub(crate) fn draw(material: &Material, look: &Look) -> Result<Option<Scene>, Fail> {
    let Some((_, at_ns, test)) = material.tests.iter().max_by_key(|(_, at, _)| *at) else {
        return Ok(None);
    };
    let theme = look.theme;
    let range = Range {
        from_ns: *at_ns,
        to_ns: at_ns.saturating_add_unsigned(test.end_ns.saturating_sub(test.start_ns).max(1)),
        begin_typed: true,
    };
    let moment = |ns: u64| at_ns.saturating_add_unsigned(ns.saturating_sub(test.start_ns));
    let load = [moment(test.load_start_ns), moment(test.load_end_ns)];
    let queues = queues(test, *at_ns);
    let mut legend = vec![
        (Swatch::Line(theme.up), "up"),
        (Swatch::Line(theme.down), "down"),
    ];
    if queues.iter().any(|(what, _)| *what == Direction::Both) {
        legend.push((Swatch::Line(theme.main), "round trip"));
    }
    legend.push((Swatch::Box(theme.unknown), "lost probes"));
    legend.push((Swatch::Line(theme.axis), "load begins, load ends"));
    let title = format!("Throughput test, {}", when::civil(*at_ns, &look.zone));
    let streams: u64 = test.ways.iter().map(|w| u64::from(w.streams)).sum();
    let sub = format!(
        "{} → {}, {} over {}, {}; times in {}",
        test.interface,
        test.reflector,
        test.kind,
        plural(streams, "TCP stream", "TCP streams"),
        test.congestion,
        when::zone_label(*at_ns, &look.zone)
    );
    let mut frame = Frame::begin(look, &title, &sub, &legend, 3, false)?;
    let wanted = frame.mark_count();
    let rates: Vec<(Direction, Bins)> = test
        .ways
        .iter()
        .map(|w| {
            let bins = w.bins.iter().zip(0u64..).map(|(bytes, i)| {
                let from = load[0].saturating_add_unsigned(i * BIN_NS);
                let to = from.saturating_add_unsigned(BIN_NS);
                (from, to, u64::from(*bytes) * 8 * (1_000_000_000 / BIN_NS))
            });
            (w.direction, bins.collect())
        })
        .collect();
    let top = |of: &[(Direction, Bins)], least: u64| {
        let all = of.iter().flat_map(|(_, b)| b.iter().map(|(_, _, v)| *v));
        Scale::Linear(all.max().unwrap_or(0).max(least) as f64 * 1.08)
    };
    let losses: Vec<(i64, i64, u64)> = probes(test, *at_ns, |p| Some(u64::from(p.lost)));
    let most_lost = losses.iter().map(|l| l.2).max().unwrap_or(0).max(1);
    let scales = [
        top(&rates, 1000),
        top(&queues, 1_000_000),
        Scale::Linear(most_lost as f64 * 1.08),
    ];
    let labels: [fn(f64) -> String; 3] = [rate_mark, super::delay_mark, |v| format!("{v:.0}")];
    let marks: Vec<Vec<(f64, String)>> = scales
        .iter()
        .zip(labels)
        .map(|(scale, label)| {
            let values = scale.marks(wanted).into_iter();
            // Half a probe cannot be lost.
            let whole = values.filter(|v| label(1.5) != "2" || v.fract() == 0.0);
            whole.map(|v| (v, label(v))).collect()
        })
        .collect();
    frame.reserve(marks.iter().flatten().map(|(_, l)| l.clone()));
    for (i, heading) in headings(test, &queues).iter().enumerate() {
        let plot = frame.panel(i, heading, scales[i], range);
        frame.value_axis(&plot, &marks[i]);
        frame.time_axis(&plot, i);
        for at in load {
            let (x, [_, top, _, bottom]) = (plot.x(at), plot.bounds);
            frame.scene.fill([x, top, x + 1.0, bottom], theme.axis);
        }
        match i {
            0 => curves(&mut frame, &plot, &rates),
            1 => curves(&mut frame, &plot, &queues),
            _ => {
                let [.., bottom] = plot.bounds;
                for (from, to, n) in losses.iter().filter(|l| l.2 > 0) {
                    let (x0, x1) = (plot.x(*from), plot.x(*to).max(plot.x(*from) + 1.0));
                    let bounds = [x0, plot.y(*n as f64), x1, bottom];
                    frame.scene.fill(bounds, theme.unknown);
                }
                if losses.iter().all(|l| l.2 == 0) {
                    frame.note(&plot, "nothing lost");
                }
            }
        }
    }
    Ok(Some(frame.scene))
}

/// Each bin of probes of which something is known.
fn probes(test: &LoadTest, at_ns: i64, of: impl Fn(&ProbeBin) -> Option<u64>) -> Bins {
    let bins = test.probes.iter().zip(0u64..);
    bins.filter_map(|(p, i)| {
        let from = at_ns.saturating_add_unsigned(i * BIN_NS);
        Some((from, from.saturating_add_unsigned(BIN_NS), of(p)?))
    })
    .collect()
}

/// Queueing delay up and down; the round trip where they are not told apart.
fn queues(test: &LoadTest, at_ns: i64) -> Vec<(Direction, Bins)> {
    let up = probes(test, at_ns, |p| p.up_ns);
    if up.is_empty() {
        return vec![(Direction::Both, probes(test, at_ns, |p| p.rtt_ns))];
    }
    let down = probes(test, at_ns, |p| p.down_ns);
    vec![(Direction::Down, down), (Direction::Up, up)]
}

fn headings(test: &LoadTest, queues: &[(Direction, Bins)]) -> [Heading; 3] {
    let each = |of: &dyn Fn(&bufferbane_store::TestWay) -> String| {
        let all: Vec<String> = test.ways.iter().map(of).collect();
        all.join(" · ")
    };
    let told_apart = queues.iter().any(|(what, _)| *what == Direction::Up);
    let probes_lost: u64 = test.probes.iter().map(|p| u64::from(p.lost)).sum();
    let of = |name: &str, figures: String| Heading {
        name: name.to_owned(),
        detail: "each 100 ms".to_owned(),
        figures,
    };
    [
        of(
            "Carried",
            each(&|w| {
                let carried = format!("{} {}", word(w.direction), rate(w.mean_bps));
                match &w.datagrams {
                    None => carried,
                    Some(d) => format!(
                        "{carried} of {} over UDP, {}",
                        rate(d.offered_bps),
                        lost(d, w.direction)
                    ),
                }
            }),
        ),
        if told_apart {
            let rise = |w: &bufferbane_store::TestWay| {
                let rise = format!("{} p90 +{}", word(w.direction), delay(w.delay.increase.p90));
                match w.datagrams {
                    None => format!("{rise} ({})", w.grade),
                    Some(_) => rise,
                }
            };
            of("Queueing delay", each(&rise))
        } else {
            let rise = format!("p90 +{}", delay(test.rtt.increase.p90));
            of("Round-trip time", rise)
        },
        of("Lost", plural(probes_lost, "probe", "probes")),
    ]
}

/// Lines that break where nothing is known.
fn curves(frame: &mut Frame<'_>, plot: &Plot, all: &[(Direction, Bins)]) {
    let theme = frame.look.theme;
    for (what, bins) in all {
        let color: Rgb = match what {
            Direction::Up => theme.up,
            Direction::Down => theme.down,
            Direction::Both => theme.main,
        };
        for run in bins.chunk_by(|a, b| a.1 == b.0) {
            let line = run.iter().map(|(from, to, v)| {
                let x = (plot.x(*from) + plot.x(*to)) / 2.0;
                (x, plot.y(*v as f64))
            });
            frame.scene.line(line.collect(), 1.5, color);
        }
    }
}
