//! Added delay by hour and day: each cell is the 95th percentile of the round-trip time above the
//! smallest of the series, in the steps of the grades.

use std::collections::BTreeMap;

use jiff::civil::Date;

use super::axis::Scale;
use super::data::{Column, Material, Track};
use super::frame::{Frame, Heading, Look, Plot, SMALL, Swatch, subtitle};
use super::scene::{Anchor, Label, Scene};
use super::text;
use crate::fail::Fail;
use crate::show::{delay, percent};
use crate::when;

/// Upper borders of the steps, ns; what is above the last is in the last.
const STEPS_NS: [u64; 5] = [5_000_000, 30_000_000, 60_000_000, 200_000_000, 400_000_000];
const STEPS: [&str; 6] = [
    "< 5 ms", "< 30 ms", "< 60 ms", "< 200 ms", "< 400 ms", "more",
];
/// A cell that lost more than this is marked.
const LOSS: f64 = 0.01;
/// Height of a row where nobody asked for a height.
const ROW: f64 = 11.0;
/// More rows than this are not drawn: the newest are.
const MOST_ROWS: usize = 366;

/// Which row and column of the calendar a cell is in.
type Place = ((Date, i8), i8);

/// Draws it.
pub(crate) fn draw(material: &Material, look: &Look) -> Result<Scene, Fail> {
    let theme = look.theme;
    let mut legend: Vec<(Swatch, &str)> = theme
        .heat
        .iter()
        .zip(STEPS)
        .map(|(c, name)| (Swatch::Box(*c), name))
        .collect();
    legend.push((Swatch::Dot(theme.text), "more than 1 % lost"));
    legend.push((Swatch::Box(theme.silent), "no answer"));
    legend.push((Swatch::Box(theme.unmeasured), "not measured"));
    let fine = material.tracks.iter().all(|t| t.cell_ns < HOUR_NS);
    let rows = rows(material, look, fine);
    let title = if fine {
        "Added delay by hour and minute"
    } else {
        "Added delay by day and hour"
    };
    let wanted = rows.len() as f64 * ROW + 60.0;
    let count = material.tracks.len();
    let sub = format!(
        "95th percentile above the series' smallest, {}",
        subtitle(material.range, &look.zone)
    );
    let mut frame = Frame::sized(look, title, &sub, &legend, count, wanted.max(110.0))?;
    frame.reserve(rows.iter().map(|r| row_label(*r, fine)));
    for (i, track) in material.tracks.iter().enumerate() {
        let heading = Heading::of(track, worst(track, look));
        let mut plot = frame.panel(i, &heading, Scale::Linear(1.0), material.range);
        plot.bounds[3] -= SMALL + 6.0;
        panel(&mut frame, &plot, track, &rows, fine);
    }
    Ok(frame.scene)
}

const HOUR_NS: u64 = 3_600_000_000_000;

/// Where a cell is, by the middle of its time.
fn place(c: &Column, look: &Look, fine: bool) -> Place {
    let middle = c.from_ns / 2 + c.to_ns / 2;
    let at = when::zoned(middle, &look.zone);
    if fine {
        ((at.date(), at.hour()), at.minute() / 5)
    } else {
        ((at.date(), 0), at.hour())
    }
}

/// All rows from the first to the last, those without data too.
fn rows(material: &Material, look: &Look, fine: bool) -> Vec<(Date, i8)> {
    let step: i64 = if fine {
        3_600_000_000_000
    } else {
        21_600_000_000_000
    };
    let range = material.range;
    let mut rows = Vec::new();
    let mut at = range.from_ns;
    while at < range.to_ns {
        let z = when::zoned(at, &look.zone);
        rows.push((z.date(), if fine { z.hour() } else { 0 }));
        at = at.saturating_add(step);
    }
    let last = when::zoned(range.to_ns - 1, &look.zone);
    rows.push((last.date(), if fine { last.hour() } else { 0 }));
    rows.dedup();
    let skip = rows.len().saturating_sub(MOST_ROWS);
    rows.split_off(skip)
}

fn row_label((date, hour): (Date, i8), fine: bool) -> String {
    if fine {
        format!("{hour:02}:00")
    } else {
        date.strftime("%a %-d %b").to_string()
    }
}

fn step(added_ns: u64) -> usize {
    STEPS_NS.partition_point(|s| *s <= added_ns)
}

fn panel(frame: &mut Frame<'_>, plot: &Plot, track: &Track, rows: &[(Date, i8)], fine: bool) {
    let look = frame.look;
    let theme = look.theme;
    let [left, top, right, bottom] = plot.bounds;
    let across: i8 = if fine { 12 } else { 24 };
    let (wide, high) = (
        (right - left) / f64::from(across),
        (bottom - top) / rows.len().max(1) as f64,
    );
    let floor = track.whole.rtt.min().unwrap_or(0);
    let mut cells: BTreeMap<Place, &Column> = BTreeMap::new();
    for c in &track.cells {
        // An hour that occurs twice when clocks go back shows its worse half.
        let slot = cells.entry(place(c, look, fine)).or_insert(c);
        let p95 = |c: &Column| c.rtt.map_or(0, |l| l.p95);
        if p95(c) > p95(slot) || !slot.is_measured() {
            *slot = c;
        }
    }
    // As many labels as have room.
    let every = ((SMALL + 3.0) / high).ceil().max(1.0) as usize;
    let (mut boxes, mut dots) = (Vec::new(), Vec::new());
    for (r, row) in rows.iter().enumerate() {
        let y = top + r as f64 * high;
        if r % every == 0 {
            label(
                frame,
                left - 6.0,
                y + high / 2.0,
                row_label(*row, fine),
                Anchor::End,
            );
        }
        let found = |x: i8| cells.get(&(*row, x)).filter(|c| c.is_measured());
        let color = |x: i8| match found(x).map(|c| c.rtt) {
            None => theme.unmeasured,
            Some(None) => theme.silent,
            Some(Some(l)) => theme.heat[step(l.p95.saturating_sub(floor))],
        };
        let gap = if high > 6.0 { 1.0 } else { 0.0 };
        // Neighbours of one colour are one box: a month is a tenth of the size.
        let mut x = 0;
        while x < across {
            let end = (x..across)
                .find(|e| color(*e) != color(x))
                .unwrap_or(across);
            let x0 = left + f64::from(x) * wide;
            let x1 = left + f64::from(end) * wide - 1.0;
            boxes.push((color(x), [x0, y, x1, y + high - gap]));
            x = end;
        }
        for x in 0..across {
            if let Some(c) = found(x)
                && c.rtt.is_some()
                && c.gone() as f64 > LOSS * (c.sent + c.unsent) as f64
            {
                let (cx, cy) = (left + (f64::from(x) + 0.5) * wide, y + high / 2.0);
                let r = (high / 4.0).clamp(1.0, 2.5);
                dots.push((theme.text, [cx - r, cy - r, cx + r, cy + r]));
            }
        }
    }
    // Boxes of one colour after each other are written as one.
    boxes.sort_by_key(|(color, _)| *color);
    for (color, bounds) in boxes.into_iter().chain(dots) {
        frame.scene.fill(bounds, color);
    }
    let name = |x: i8| {
        if fine {
            format!(":{:02}", x * 5)
        } else {
            format!("{x}")
        }
    };
    let widest = text::width(&name(across - 1), SMALL) + 6.0;
    let every = [1, 2, 3, 4, 6, 12]
        .into_iter()
        .find(|e| f64::from(*e) * wide >= widest)
        .unwrap_or(12);
    for x in (0..across).step_by(every as usize) {
        let middle = left + (f64::from(x) + 0.5) * wide;
        label(
            frame,
            middle,
            bottom + SMALL / 2.0 + 4.0,
            name(x),
            Anchor::Middle,
        );
    }
}

fn label(frame: &mut Frame<'_>, x: f64, y: f64, text: String, anchor: Anchor) {
    let color = frame.look.theme.muted;
    frame.scene.text(
        Label {
            x,
            y,
            text,
            size: SMALL,
            color,
            anchor,
        },
        f64::MAX,
    );
}

/// The worst cell, in words.
fn worst(track: &Track, look: &Look) -> String {
    let worst = track
        .cells
        .iter()
        .filter_map(|c| c.rtt.map(|l| (l.p95, c)))
        .max_by_key(|(p95, _)| *p95);
    let Some((p95, c)) = worst else {
        return "no answer".into();
    };
    let floor = track.whole.rtt.min().unwrap_or(0);
    format!(
        "worst: +{} at {}, {} lost",
        delay(p95.saturating_sub(floor)),
        when::zoned(c.from_ns, &look.zone).strftime("%-d %b %H:%M"),
        percent(c.lost.iter().sum(), c.sent)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_have_the_borders_of_the_grades() {
        let ms = |n: u64| step(n * 1_000_000);
        assert_eq!(
            [0, 4, 5, 29, 30, 60, 200, 399, 400, 9999].map(ms),
            [0, 0, 1, 1, 2, 3, 4, 4, 5, 5]
        );
    }
}
