//! Series side by side: the distribution of each as a strip on one axis, and its losses.

use super::axis::Scale;
use super::data::{Material, Track};
use super::frame::{Frame, Heading, Look, Plot, SMALL, Swatch, subtitle};
use super::scene::{Anchor, Label, Scene};
use super::text;
use crate::fail::Fail;
use crate::show::{delay, percent};

/// Height of a series: its name and its strip.
const ROW: f64 = 40.0;
const BODY: f64 = 12.5;

/// Draws it.
pub(crate) fn draw(material: &Material, look: &Look) -> Result<Scene, Fail> {
    let theme = look.theme;
    let legend = [
        (Swatch::Box(theme.band), "smallest to 95th percentile"),
        (Swatch::Line(theme.main), "median"),
        (Swatch::Line(theme.p95), "95th percentile"),
        (Swatch::Line(theme.p99), "99th percentile"),
        (Swatch::Line(theme.axis), "up to the largest"),
    ];
    // Those to one target next to each other: they are what one compares.
    let mut tracks: Vec<&Track> = material.tracks.iter().collect();
    tracks.sort_by(|a, b| {
        let key = |t: &Track| {
            (
                t.info.target.clone(),
                t.info.kind.as_str(),
                t.info.interface.clone(),
            )
        };
        key(a).cmp(&key(b))
    });
    let wanted = tracks.len() as f64 * ROW + 36.0;
    let sub = subtitle(material.range, &look.zone);
    let mut frame = Frame::sized(
        look,
        "Round-trip time and loss side by side",
        &sub,
        &legend,
        1,
        wanted.max(110.0),
    )?;
    let all = |of: fn(&Track) -> Option<u64>| tracks.iter().filter_map(move |t| of(t));
    let low = all(|t| t.whole.rtt.min()).min();
    let high = all(|t| t.whole.rtt.max()).max();
    let heading = Heading {
        name: "By target".into(),
        detail: String::new(),
        figures: "logarithmic scale".into(),
    };
    let scale = match (low, high) {
        (Some(low), Some(high)) => Scale::Log(
            (low as f64 * 0.9).max(1.0),
            (high as f64 * 1.1).max(low as f64 * 2.0),
        ),
        _ => Scale::Log(1e6, 1e9),
    };
    let mut plot = frame.panel(0, &heading, scale, material.range);
    // The axis stands where others have their time.
    plot.bounds[3] += SMALL + 8.0;
    axis(&mut frame, &plot);
    let [_, top, _, bottom] = plot.bounds;
    let high = (bottom - SMALL - 8.0 - top) / tracks.len().max(1) as f64;
    for (i, track) in tracks.iter().enumerate() {
        row(&mut frame, &plot, track, top + i as f64 * high, high);
    }
    Ok(frame.scene)
}

fn x(plot: &Plot, ns: u64) -> f64 {
    let [left, _, right, _] = plot.bounds;
    left + plot.scale.place(ns as f64) * (right - left)
}

fn axis(frame: &mut Frame<'_>, plot: &Plot) {
    let theme = frame.look.theme;
    let [left, top, right, bottom] = plot.bounds;
    let foot = bottom - SMALL - 8.0;
    let wanted = ((right - left) / 70.0) as usize;
    let mut free_from = f64::MIN;
    for mark in plot.scale.marks(wanted.clamp(2, 14)) {
        let at = (left + plot.scale.place(mark) * (right - left)).round();
        frame.scene.fill([at, top, at + 1.0, foot], theme.grid);
        let text = super::delay_mark(mark);
        let half = text::width(&text, SMALL) / 2.0;
        let middle = at.clamp(half + 2.0, frame.look.width - half - 2.0);
        if middle - half < free_from {
            continue;
        }
        free_from = middle + half + 8.0;
        frame.scene.text(
            Label {
                x: middle,
                y: foot + SMALL / 2.0 + 5.0,
                text,
                size: SMALL,
                color: theme.muted,
                anchor: Anchor::Middle,
            },
            f64::MAX,
        );
    }
    frame
        .scene
        .fill([left, foot, right, foot + 1.0], theme.axis);
}

fn row(frame: &mut Frame<'_>, plot: &Plot, track: &Track, top: f64, high: f64) {
    let theme = frame.look.theme;
    let [left, _, right, _] = plot.bounds;
    let i = &track.info;
    let s = &track.whole;
    let figures = match (s.rtt.quantile(0.5), s.rtt.quantile(0.99)) {
        (Some(p50), Some(p99)) => format!(
            "{} · p99 {} · {} lost",
            delay(p50),
            delay(p99),
            percent(s.lost, s.sent)
        ),
        _ => "no answer".into(),
    };
    let mut label = Label {
        x: left,
        y: top + BODY / 2.0 + 3.0,
        text: format!(
            "{} via {} ({}{})",
            i.target,
            i.interface,
            i.kind.as_str(),
            i.family
        ),
        size: BODY,
        color: theme.text,
        anchor: Anchor::Start,
    };
    let taken = text::width(&figures, SMALL) + 12.0;
    // Text stands on paper of its own, not on the lines of the grid.
    let line = [left, top + 1.0, right, top + BODY + 5.0];
    frame.scene.fill(line, theme.background);
    frame
        .scene
        .text(label.clone(), (right - left - taken).max(60.0));
    label.x = right;
    label.text = figures;
    label.size = SMALL;
    label.color = theme.muted;
    label.anchor = Anchor::End;
    frame.scene.text(label, right - left - 72.0);
    let (Some(min), Some(max)) = (s.rtt.min(), s.rtt.max()) else {
        return;
    };
    let (y0, y1) = (top + BODY + 8.0, top + high - 4.0);
    let middle = (y0 + y1) / 2.0;
    let at = |q: f64| x(plot, s.rtt.quantile(q).unwrap_or(min));
    frame.scene.fill(
        [x(plot, min), middle - 0.75, x(plot, max), middle + 0.75],
        theme.axis,
    );
    frame
        .scene
        .fill([x(plot, min), y0, at(0.95), y1], theme.band);
    for (q, color) in [(0.99, theme.p99), (0.95, theme.p95), (0.5, theme.main)] {
        let at = at(q);
        frame
            .scene
            .fill([at - 1.25, y0 - 1.0, at + 1.25, y1 + 1.0], color);
    }
}
