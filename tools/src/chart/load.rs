//! What uplinks carried over time, upward above the line and downward below it, and what they were
//! found able to carry, by a test or from the household's own traffic.

use bufferbane_store::{Capacity, Direction, Method};

use super::axis::Scale;
use super::data::Material;
use super::frame::{Frame, Heading, Look, Plot, Swatch, subtitle};
use super::lines::{Line, Load};
use super::queue::{mark, side};
use super::scene::Scene;
use super::tested::{median, rate_mark};
use super::theme::{FAINT, STRONG, mixed};
use crate::fail::Fail;
use crate::loads::rate;
use crate::show::plural;

/// Room between the scale's top and what is highest.
const HEADROOM: f64 = 1.25;
/// Rates below this are nothing beside any line, bit/s.
const LEAST_BPS: u64 = 100_000;

/// Draws it; `None` where no load was recorded.
pub(crate) fn draw(material: &Material, look: &Look) -> Result<Option<Scene>, Fail> {
    let theme = look.theme;
    let lines: Vec<&Line> = material
        .lines
        .iter()
        .filter(|l| !l.loads.is_empty() || !l.capacities.is_empty())
        .collect();
    if lines.is_empty() {
        return Ok(None);
    }
    let paper = theme.background;
    let mut legend = vec![
        (
            Swatch::Box(mixed(theme.up, paper, STRONG)),
            "up: 95 of 100 seconds within",
        ),
        (Swatch::Box(mixed(theme.up, paper, FAINT)), "busiest second"),
        (
            Swatch::Box(mixed(theme.down, paper, STRONG)),
            "down: 95 of 100 within",
        ),
        (Swatch::Box(mixed(theme.down, paper, FAINT)), "busiest"),
    ];
    let found = |method| {
        lines
            .iter()
            .flat_map(|l| &l.capacities)
            .any(|(_, c)| c.method == method)
    };
    if found(Method::Test) {
        legend.push((Swatch::Dot(theme.text), "capacity by a test"));
    }
    if found(Method::Passive) {
        legend.push((Swatch::Line(theme.unsent), "capacity seen in use"));
    }
    if found(Method::Train) {
        legend.push((Swatch::Box(theme.unsent), "capacity by a packet train"));
    }
    legend.push((Swatch::Box(theme.unmeasured), "not recorded"));
    let sub = subtitle(material.range, &look.zone);
    let wanted = if lines.len() > 2 { 210.0 } else { 330.0 };
    let title = "Load and capacity";
    let mut frame = Frame::sized(look, title, &sub, &legend, lines.len(), wanted)?;
    let tops: Vec<f64> = lines.iter().map(|l| top(l)).collect();
    let count = (frame.mark_count() / 2).max(2);
    let marks: Vec<Vec<f64>> = tops
        .iter()
        .map(|top| Scale::Linear(*top).marks(count))
        .collect();
    frame.reserve(marks.iter().flatten().map(|v| rate_mark(*v)));
    for (i, line) in lines.iter().enumerate() {
        let scale = Scale::Linear(tops[i]);
        let plot = frame.panel(i, &heading(line), scale, material.range);
        blanks(&mut frame, &plot, line);
        frame.time_axis(&plot, i);
        for (direction, way) in [Direction::Up, Direction::Down].into_iter().enumerate() {
            half(&mut frame, &plot, line, (direction, way), &marks[i]);
        }
        let [left, top, right, bottom] = plot.bounds;
        let zero = (top + bottom) / 2.0;
        frame
            .scene
            .fill([left, zero, right, zero + 1.0], theme.axis);
        for (word, at) in [("up", top + 11.5), ("down", bottom - 11.5)] {
            side(&mut frame, left + 6.0, at, word);
        }
    }
    Ok(Some(frame.scene))
}

/// One direction of a panel.
fn half(
    frame: &mut Frame<'_>,
    plot: &Plot,
    line: &Line,
    (index, way): (usize, Direction),
    marks: &[f64],
) {
    let theme = frame.look.theme;
    let [left, top, right, bottom] = plot.bounds;
    let zero = (top + bottom) / 2.0;
    let (sign, ink) = if index == 0 {
        (-1.0, theme.up)
    } else {
        (1.0, theme.down)
    };
    let y = |bps: f64| zero + sign * plot.scale.place(bps) * (bottom - top) / 2.0;
    for v in marks {
        let at = y(*v).round();
        frame.scene.fill([left, at, right, at + 1.0], theme.grid);
        if index == 0 || *v > 0.0 {
            mark(frame, left - 6.0, at, rate_mark(*v));
        }
    }
    for (peaks, strength) in [(true, FAINT), (false, STRONG)] {
        for load in &line.loads {
            let Some(rates) = &load.rate[index] else {
                continue;
            };
            let (x0, x1) = (plot.x(load.from_ns), plot.x(load.to_ns));
            let end = y(if peaks { rates.max } else { rates.p95 } as f64);
            if (end - zero).abs() > 0.25 {
                let bounds = [x0, end.min(zero), x1.max(x0 + 1.0), end.max(zero)];
                let color = mixed(ink, theme.background, strength);
                frame.scene.fill(bounds, color);
            }
        }
    }
    // What was found without a test first, so that tests are seen above it.
    for method in [Method::Train, Method::Passive, Method::Test] {
        for (at_ns, c) in &line.capacities {
            if c.direction != way || c.method != method {
                continue;
            }
            let (x, y) = (plot.x(*at_ns), y(carried(c) as f64));
            match method {
                Method::Train => {
                    let bounds = [x - 2.5, y - 2.5, x + 2.5, y + 2.5];
                    frame.scene.fill(bounds, theme.unsent);
                }
                Method::Passive => {
                    let bounds = [x - 4.0, y - 1.25, x + 4.0, y + 1.25];
                    frame.scene.fill(bounds, theme.unsent);
                }
                Method::Test => {
                    let corners = vec![(x - 3.5, y), (x, y - 3.5), (x + 3.5, y), (x, y + 3.5)];
                    frame.scene.area(corners, theme.text);
                }
            }
        }
    }
}

/// What goes on passing, or where nobody looked for so long, what bursts pass at.
fn carried(c: &Capacity) -> u64 {
    c.sustained_bps.unwrap_or(c.burst_bps)
}

/// The top of both scales.
fn top(line: &Line) -> f64 {
    let rates = line.loads.iter().flat_map(|l| l.rate).flatten();
    let most = rates.map(|l| l.max).max().unwrap_or(0);
    let able = line.capacities.iter().map(|(_, c)| carried(c)).max();
    most.max(able.unwrap_or(0)).max(LEAST_BPS) as f64 * HEADROOM
}

/// Shades the stretches through which no counters were read.
fn blanks(frame: &mut Frame<'_>, plot: &Plot, line: &Line) {
    let color = frame.look.theme.unmeasured;
    let [_, top, _, bottom] = plot.bounds;
    let mut end = plot.range.from_ns;
    let mut put = |from: i64, to: i64| {
        // A minute of load is told when it is over.
        if to.saturating_sub(from) > 120_000_000_000 {
            let bounds = [plot.x(from), top, plot.x(to), bottom];
            frame.scene.fill(bounds, color);
        }
    };
    for Load { from_ns, to_ns, .. } in &line.loads {
        put(end, *from_ns);
        end = end.max(*to_ns);
    }
    put(end, plot.range.to_ns);
}

fn heading(line: &Line) -> Heading {
    let able = |way: Direction| {
        let of = || line.capacities.iter().filter(|(_, c)| c.direction == way);
        let found = median(of().map(|(_, c)| carried(c)));
        of().next().map(|_| rate(found))
    };
    let figures = match (able(Direction::Up), able(Direction::Down)) {
        (None, None) => "capacity not known".to_owned(),
        (up, down) => {
            let word = |w: Option<String>| w.unwrap_or_else(|| "–".into());
            format!("capacity up {} · down {}", word(up), word(down))
        }
    };
    Heading {
        name: line.interface.clone(),
        detail: match line.capacities.len() as u64 {
            0 => String::new(),
            n => plural(n, "estimate of capacity", "estimates of capacity"),
        },
        figures,
    }
}
