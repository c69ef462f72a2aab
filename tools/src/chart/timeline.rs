//! What happened when: a lane for each kind of event and interface.

use std::collections::BTreeMap;

use bufferbane_store::Severity;

use super::axis::Scale;
use super::data::Material;
use super::frame::{Frame, Heading, Look, SMALL, Swatch, event_legend, extents, subtitle};
use super::scene::{Anchor, Label, Scene};
use super::text;
use crate::fail::Fail;
use crate::report::Event;
use crate::show::{plural, stretch};

/// Height of a lane: its name and its strip.
const LANE: f64 = 34.0;
/// More lanes than this are put together in the last.
const MOST_LANES: usize = 16;
const BODY: f64 = 12.5;

struct Lane<'a> {
    name: String,
    events: Vec<&'a Event>,
}

/// Draws it; `None` where nothing happened.
pub(crate) fn draw(material: &Material, look: &Look) -> Result<Option<Scene>, Fail> {
    let lanes = lanes(material);
    if lanes.is_empty() {
        return Ok(None);
    }
    let theme = look.theme;
    let mut legend: Vec<(Swatch, &str)> = Vec::new();
    event_legend(&material.events, theme, &mut legend);
    let sub = subtitle(material.range, &look.zone);
    let wanted = lanes.len() as f64 * LANE + 40.0;
    let mut frame = Frame::sized(look, "Events", &sub, &legend, 1, wanted.max(100.0))?;
    let heading = Heading {
        name: plural(
            lanes.iter().map(|l| l.events.len() as u64).sum(),
            "event",
            "events",
        ),
        detail: String::new(),
        figures: String::new(),
    };
    let plot = frame.panel(0, &heading, Scale::Linear(1.0), material.range);
    frame.time_axis(&plot, 0);
    let [left, top, right, bottom] = plot.bounds;
    frame
        .scene
        .fill([left, bottom, right, bottom + 1.0], theme.axis);
    let high = (bottom - top) / lanes.len() as f64;
    for (i, lane) in lanes.iter().enumerate() {
        let y = top + i as f64 * high;
        let mut label = Label {
            x: left,
            y: y + BODY / 2.0 + 2.0,
            text: lane.name.clone(),
            size: BODY,
            color: theme.text,
            anchor: Anchor::Start,
        };
        let room = right - left - text::width(&lane.name, BODY) - 12.0;
        let figures = figures(lane, material)
            .into_iter()
            .find(|f| text::width(f, SMALL) <= room)
            .unwrap_or_default();
        let taken = text::width(&figures, SMALL) + 12.0;
        frame
            .scene
            .fill([left, y, right, y + BODY + 4.0], theme.background);
        frame
            .scene
            .text(label.clone(), (right - left - taken).max(60.0));
        label.x = right;
        label.text = figures;
        label.size = SMALL;
        label.color = theme.muted;
        label.anchor = Anchor::End;
        frame.scene.text(label, right - left - 72.0);
        let (y0, y1) = (y + BODY + 6.0, y + high - 5.0);
        frame.scene.fill([left, y0, right, y1], theme.unmeasured);
        for severity in [Severity::Info, Severity::Warning, Severity::Critical] {
            let mut drawn = f64::MIN;
            let shown = lane.events.iter().copied();
            let shown = shown.filter(|e| e.severity == severity);
            for (from, to) in extents(shown, material.range) {
                let x0 = plot.x(from).min(right - 1.5);
                let x1 = plot.x(to).max(x0 + 1.5);
                if x1 > drawn {
                    let bounds = [x0.max(drawn), y0, x1, y1];
                    frame.scene.fill(bounds, theme.severity(severity));
                    drawn = x1;
                }
            }
        }
    }
    Ok(Some(frame.scene))
}

/// Lanes by what is worst in them, then by how much there is.
fn lanes(material: &Material) -> Vec<Lane<'_>> {
    let mut by_name: BTreeMap<String, Vec<&Event>> = BTreeMap::new();
    for e in &material.events {
        if extents([e].into_iter(), material.range).is_empty() {
            continue;
        }
        let direction = match e.direction {
            Some(bufferbane_store::Direction::Up) => " up",
            Some(bufferbane_store::Direction::Down) => " down",
            _ => "",
        };
        let place = if e.interface.is_empty() {
            "this host"
        } else {
            &e.interface
        };
        let name = format!("{}{direction}, {place}", e.kind.replace('_', " "));
        by_name.entry(name).or_default().push(e);
    }
    let mut lanes: Vec<Lane<'_>> = by_name
        .into_iter()
        .map(|(name, events)| Lane { name, events })
        .collect();
    lanes.sort_by_key(|l| {
        let worst = l.events.iter().map(|e| e.severity).max();
        std::cmp::Reverse((worst, l.events.len()))
    });
    if lanes.len() > MOST_LANES {
        let rest = lanes.split_off(MOST_LANES - 1);
        lanes.push(Lane {
            name: plural(rest.len() as u64, "further kind", "further kinds"),
            events: rest.into_iter().flat_map(|l| l.events).collect(),
        });
    }
    for lane in &mut lanes {
        lane.events.sort_by_key(|e| e.start);
    }
    lanes
}

/// How often and how long, at three lengths.
fn figures(lane: &Lane<'_>, material: &Material) -> [String; 3] {
    let lengths = extents(lane.events.iter().copied(), material.range);
    let (longest, total) = lengths_of(lengths.into_iter());
    let times = lane.events.iter().map(|e| {
        let counted = e.values.get("times").and_then(serde_json::Value::as_u64);
        counted.unwrap_or(1)
    });
    let n = plural(times.sum(), "time", "times");
    if longest == 0 {
        return [n.clone(), n.clone(), n];
    }
    let short = format!("{n} · longest {}", stretch(longest));
    [format!("{short} · {} in all", stretch(total)), short, n]
}

/// The longest of spans that are in the order of their begins, and how long they last in all: what several have in common
/// counts once.
fn lengths_of(spans: impl Iterator<Item = (i64, i64)>) -> (u64, u64) {
    let (mut longest, mut total, mut until) = (0, 0, i64::MIN);
    for (from, to) in spans {
        longest = longest.max(to.abs_diff(from));
        let new_from = from.max(until);
        if to > new_from {
            total += to.abs_diff(new_from);
        }
        until = until.max(to);
    }
    (longest, total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_events_have_in_common_counts_once() {
        assert_eq!(lengths_of([].into_iter()), (0, 0));
        let apart = [(0, 10), (20, 25)];
        assert_eq!(lengths_of(apart.into_iter()), (10, 15));
        let over_each_other = [(0, 10), (4, 6), (5, 15), (15, 16), (30, 31)];
        assert_eq!(lengths_of(over_each_other.into_iter()), (10, 17));
    }
}
