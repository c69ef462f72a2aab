//! Latency without load against latency under load, test by test, per direction.

use bufferbane_store::{Direction, LoadTest, LoadedDelay};

use super::axis::Scale;
use super::data::Material;
use super::frame::{Frame, Heading, Look, Swatch, subtitle};
use super::scene::Scene;
use super::tested::{Way, median, place, ways};
use super::theme::{Rgb, TINT, mixed};
use crate::fail::Fail;
use crate::show::delay;

/// Narrowest mark of a test, pixels.
const NARROWEST: f64 = 4.0;
/// Delays below this are drawn as this much, ns: they are nothing beside a queue.
const LEAST_NS: u64 = 100_000;

/// Draws it; `None` where there was no test.
pub(crate) fn draw(material: &Material, look: &Look) -> Result<Option<Scene>, Fail> {
    let theme = look.theme;
    let ways = ways(material, true);
    if ways.is_empty() {
        return Ok(None);
    }
    let tint = |direction| mixed(ink(look, direction), theme.background, TINT);
    let mut legend = vec![(Swatch::Dot(theme.text), "median without load")];
    for (direction, name) in [
        (Direction::Up, "up under load: median to p99"),
        (Direction::Down, "down"),
        (Direction::Both, "round trip"),
    ] {
        if ways.iter().any(|w| w.direction == direction) {
            legend.push((Swatch::Box(tint(direction)), name));
        }
    }
    legend.push((Swatch::Dot(theme.up), "90th percentile, which is graded"));
    let sub = subtitle(material.range, &look.zone);
    let title = "Latency with and without load";
    let mut frame = Frame::begin(look, title, &sub, &legend, ways.len(), false)?;
    let scales = frame.marked(ways.iter().map(scale), super::delay_mark);
    for (i, (way, (scale, marks))) in ways.iter().zip(&scales).enumerate() {
        let plot = frame.panel(i, &heading(way), *scale, material.range);
        frame.value_axis(&plot, marks);
        frame.time_axis(&plot, i);
        let y = |ns: u64| plot.y(ns.max(LEAST_NS) as f64);
        for (at_ns, test, d) in parts(way) {
            let (x0, x1) = place(&plot, at_ns, test, NARROWEST);
            let (low, high) = (y(d.loaded.p50), y(d.loaded.p99));
            let bounds = [x0, high.min(low - 1.0), x1, low];
            frame.scene.fill(bounds, tint(way.direction));
        }
        let mut marks = |of: fn(&LoadedDelay) -> u64, color: Rgb| {
            for (at_ns, test, d) in parts(way) {
                let (x0, x1) = place(&plot, at_ns, test, NARROWEST);
                let y = y(of(d));
                frame.scene.fill([x0, y - 1.25, x1, y + 1.25], color);
            }
        };
        marks(|d| d.loaded.p90, ink(look, way.direction));
        marks(|d| d.idle.p50, theme.text);
    }
    Ok(Some(frame.scene))
}

/// The colour of a direction.
fn ink(look: &Look, direction: Direction) -> Rgb {
    match direction {
        Direction::Up => look.theme.up,
        Direction::Down => look.theme.down,
        Direction::Both => look.theme.unknown,
    }
}

/// Each test with what load did to latency this way.
fn parts<'a>(way: &'a Way<'a>) -> impl Iterator<Item = (i64, &'a LoadTest, &'a LoadedDelay)> {
    way.tests.iter().filter_map(|(at_ns, test)| {
        let of = match way.direction {
            Direction::Both => &test.rtt,
            one => &test.ways.iter().find(|w| w.direction == one)?.delay,
        };
        Some((*at_ns, *test, of))
    })
}

fn scale(way: &Way<'_>) -> Scale {
    let idle = || parts(way).map(|(_, _, d)| d.idle.p50.max(LEAST_NS));
    let low = idle().min().unwrap_or(LEAST_NS);
    let high = parts(way).map(|(_, _, d)| d.loaded.p99).max();
    Scale::for_values(
        low as f64,
        median(idle()) as f64,
        high.unwrap_or(0).max(1_000_000) as f64,
    )
}

fn heading(way: &Way<'_>) -> Heading {
    let increase = median(parts(way).map(|(_, _, d)| d.increase.p90));
    let grade = bufferbane_core::load::grade::Grade::of_increase(increase);
    let log = match scale(way) {
        Scale::Log(..) => "log scale · ",
        Scale::Linear(_) => "",
    };
    let typically = if way.tests.len() > 1 {
        "typically "
    } else {
        ""
    };
    Heading {
        name: way.name.clone(),
        detail: String::new(),
        figures: format!(
            "{log}{typically}{} under load: {}",
            match increase {
                0 => "no added delay".into(),
                ns => format!("+{}", delay(ns)),
            },
            grade.as_str()
        ),
    }
}
