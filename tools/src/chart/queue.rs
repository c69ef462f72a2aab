//! Queueing delay over time: upward above the line, downward below it, on one scale.

use super::blank::unbroken;
use super::data::{Column, Levels, Material, Track};
use super::frame::{Frame, Heading, Look, Plot, SMALL, Swatch, event_legend, subtitle};
use super::scene::{Anchor, Label, Scene};
use super::theme::{FAINT, STRONG, mixed};
use super::{axis::Scale, delay_mark};
use crate::fail::Fail;
use crate::show::delay;

/// Room between the scale's top and what is highest.
const HEADROOM: f64 = 1.08;

/// One of the figures of a distribution.
type Level = fn(&Levels) -> u64;

/// Draws it; `None` where no series tells its directions apart.
pub(crate) fn draw(material: &Material, look: &Look) -> Result<Option<Scene>, Fail> {
    let theme = look.theme;
    let tracks: Vec<&Track> = material
        .tracks
        .iter()
        .filter(|t| t.whole.queue_up.count() > 0)
        .collect();
    if tracks.is_empty() {
        return Ok(None);
    }
    let paper = theme.background;
    let mut legend = vec![
        (
            Swatch::Box(mixed(theme.up, paper, STRONG)),
            "up: 95 of 100 within",
        ),
        (Swatch::Box(mixed(theme.up, paper, FAINT)), "99 of 100"),
        (
            Swatch::Box(mixed(theme.down, paper, STRONG)),
            "down: 95 of 100 within",
        ),
        (Swatch::Box(mixed(theme.down, paper, FAINT)), "99 of 100"),
        (Swatch::Line(theme.text), "median"),
        (Swatch::Box(theme.unmeasured), "not known"),
    ];
    event_legend(&material.events, theme, &mut legend);
    let sub = subtitle(material.range, &look.zone);
    let wanted = if tracks.len() > 2 { 210.0 } else { 330.0 };
    let title = "Queueing delay up and down";
    let mut frame = Frame::sized(look, title, &sub, &legend, tracks.len(), wanted)?;
    let tops: Vec<f64> = tracks.iter().map(|t| top(t)).collect();
    let count = (frame.mark_count() / 2).max(2);
    let marks: Vec<Vec<f64>> = tops
        .iter()
        .map(|top| Scale::Linear(*top).marks(count))
        .collect();
    frame.reserve(marks.iter().flatten().map(|v| delay_mark(*v)));
    for (i, track) in tracks.iter().enumerate() {
        let heading = Heading::of(track, figures(track));
        let plot = frame.panel(i, &heading, Scale::Linear(tops[i]), material.range);
        let [left, top, right, bottom] = plot.bounds;
        blanks(&mut frame, &plot, track);
        frame.time_axis(&plot, i);
        frame.mark_events(&plot, track, &material.events);
        let zero = (top + bottom) / 2.0;
        for (direction, color) in [(0, theme.up), (1, theme.down)] {
            let sign = if direction == 0 { -1.0 } else { 1.0 };
            let y = |ns: f64| zero + sign * plot.scale.place(ns) * (bottom - top) / 2.0;
            for v in &marks[i] {
                let at = y(*v).round();
                frame.scene.fill([left, at, right, at + 1.0], theme.grid);
                if direction == 0 || *v > 0.0 {
                    mark(&mut frame, left - 6.0, at, delay_mark(*v));
                }
            }
            let level = |c: &Column| c.queue[direction].unwrap_or_default();
            let known: fn(&Column) -> bool = |c| c.queue[0].is_some();
            for run in unbroken(track, &track.fine, known) {
                let levels: [(Level, f64); 2] = [(|l| l.p99, FAINT), (|l| l.p95, STRONG)];
                for (of, strength) in levels {
                    for c in run {
                        let (x0, x1) = (plot.x(c.from_ns), plot.x(c.to_ns));
                        let end = y(of(&level(c)) as f64);
                        let (y0, y1) = (end.min(zero), end.max(zero));
                        if y1 - y0 > 0.25 {
                            let bounds = [x0, y0, x1.max(x0 + 1.0), y1];
                            frame.scene.fill(bounds, mixed(color, paper, strength));
                        }
                    }
                }
                let median = run
                    .iter()
                    .map(|c| (plot.center(c), y(level(c).p50 as f64)))
                    .collect();
                frame.scene.line(median, 1.0, theme.text);
            }
        }
        frame
            .scene
            .fill([left, zero, right, zero + 1.0], theme.axis);
        for (word, at) in [("up", top + SMALL), ("down", bottom - SMALL)] {
            side(&mut frame, left + 6.0, at, word);
        }
    }
    Ok(Some(frame.scene))
}

/// The top of both scales: what nearly every column stays below.
fn top(track: &Track) -> f64 {
    let levels = track.fine.iter().flat_map(|c| c.queue).flatten();
    let most = levels.map(|l| l.p99).max().unwrap_or(0);
    most.max(1_000_000) as f64 * HEADROOM
}

fn blanks(frame: &mut Frame<'_>, plot: &Plot, track: &Track) {
    let color = frame.look.theme.unmeasured;
    let [left, top, right, bottom] = plot.bounds;
    let mut end = plot.range.from_ns;
    let slack = track.info.interval_ns.saturating_mul(3);
    let mut put = |from: i64, to: i64| {
        if to > from.saturating_add_unsigned(slack) {
            let bounds = [plot.x(from).max(left), top, plot.x(to).min(right), bottom];
            frame.scene.fill(bounds, color);
        }
    };
    for c in track.fine.iter().filter(|c| c.queue[0].is_some()) {
        put(end, c.from_ns);
        end = end.max(c.to_ns);
    }
    put(end, plot.range.to_ns);
}

/// The label of a mark left of both halves.
pub(super) fn mark(frame: &mut Frame<'_>, x: f64, y: f64, text: String) {
    let label = Label {
        x,
        y,
        text,
        size: SMALL,
        color: frame.look.theme.muted,
        anchor: Anchor::End,
    };
    frame.scene.text(label, f64::MAX);
}

/// Which half is which, on paper of its own.
pub(super) fn side(frame: &mut Frame<'_>, x: f64, y: f64, text: &str) {
    let label = Label {
        x,
        y,
        text: text.to_owned(),
        size: SMALL,
        color: frame.look.theme.text,
        anchor: Anchor::Start,
    };
    let [left, top, right, bottom] = label.bounds();
    let paper = [left - 3.0, top - 2.0, right + 3.0, bottom + 2.0];
    frame.scene.fill(paper, frame.look.theme.background);
    frame.scene.text(label, f64::MAX);
}

fn figures(track: &Track) -> String {
    let part = |h: &bufferbane_core::stats::histogram::Histogram| {
        h.quantile(0.99).map_or_else(|| "–".into(), delay)
    };
    format!(
        "p99 up {} · down {}",
        part(&track.whole.queue_up),
        part(&track.whole.queue_down)
    )
}
