//! What throughput tests carried, over time: each test by itself, with the median of all beside it.

use bufferbane_store::{Direction, TestWay};

use super::axis::Scale;
use super::data::Material;
use super::frame::{Frame, Heading, Look, Swatch, subtitle};
use super::scene::Scene;
use super::tested::{Way, median, place, rate_mark, ways};
use super::theme::{TINT, mixed};
use crate::fail::Fail;
use crate::loads::rate;
use crate::show::plural;

/// Narrowest mark of a test, pixels.
const NARROWEST: f64 = 4.0;

/// Draws it; `None` where there was no test.
pub(crate) fn draw(material: &Material, look: &Look) -> Result<Option<Scene>, Fail> {
    let theme = look.theme;
    let ways = ways(material, false);
    if ways.is_empty() {
        return Ok(None);
    }
    let tint = |direction| mixed(ink(look, direction), theme.background, TINT);
    let mut legend = Vec::new();
    for (direction, mean, spread) in [
        (
            Direction::Up,
            "up: mean of a test",
            "80 of 100 of its parts",
        ),
        (Direction::Down, "down: mean", "80 of 100 of its parts"),
    ] {
        if ways.iter().any(|w| w.direction == direction) {
            legend.push((Swatch::Dot(ink(look, direction)), mean));
            legend.push((Swatch::Box(tint(direction)), spread));
        }
    }
    legend.push((Swatch::Line(theme.muted), "median of all tests"));
    let sub = subtitle(material.range, &look.zone);
    let mut frame = Frame::begin(look, "Throughput", &sub, &legend, ways.len(), false)?;
    let scale = |way: &Way<'_>| {
        let most = parts(way).map(|(_, _, w)| w.p90_bps.max(w.mean_bps)).max();
        Scale::Linear(most.unwrap_or(0).max(1000) as f64 * 1.08)
    };
    let scales = frame.marked(ways.iter().map(scale), rate_mark);
    for (i, (way, (scale, marks))) in ways.iter().zip(&scales).enumerate() {
        let plot = frame.panel(i, &heading(way), *scale, material.range);
        frame.value_axis(&plot, marks);
        frame.time_axis(&plot, i);
        let [left, _, right, _] = plot.bounds;
        let middle = plot.y(typical(way) as f64);
        let line = vec![(left, middle), (right, middle)];
        frame.scene.line(line, 1.0, theme.muted);
        for (at_ns, test, w) in parts(way) {
            let (x0, x1) = place(&plot, at_ns, test, NARROWEST);
            let (low, high) = (plot.y(w.p10_bps as f64), plot.y(w.p90_bps as f64));
            let bounds = [x0, high.min(low - 1.0), x1, low];
            frame.scene.fill(bounds, tint(way.direction));
        }
        for (at_ns, test, w) in parts(way) {
            let (x0, x1) = place(&plot, at_ns, test, NARROWEST);
            let y = plot.y(w.mean_bps as f64);
            let bounds = [x0, y - 1.25, x1, y + 1.25];
            frame.scene.fill(bounds, ink(look, way.direction));
        }
    }
    Ok(Some(frame.scene))
}

/// The colour of a direction.
fn ink(look: &Look, direction: Direction) -> super::theme::Rgb {
    match direction {
        Direction::Up => look.theme.up,
        _ => look.theme.down,
    }
}

/// Each test with what it carried this way.
fn parts<'a>(
    way: &'a Way<'a>,
) -> impl Iterator<Item = (i64, &'a bufferbane_store::LoadTest, &'a TestWay)> {
    way.tests.iter().filter_map(|(at_ns, test)| {
        let of = test.ways.iter().find(|w| w.direction == way.direction)?;
        Some((*at_ns, *test, of))
    })
}

fn typical(way: &Way<'_>) -> u64 {
    median(parts(way).map(|(_, _, w)| w.mean_bps))
}

fn heading(way: &Way<'_>) -> Heading {
    let least = parts(way).map(|(_, _, w)| w.mean_bps).min().unwrap_or(0);
    let tests = way.tests.len() as u64;
    let figures = if tests == 1 {
        rate(typical(way))
    } else {
        format!("median {} · lowest {}", rate(typical(way)), rate(least))
    };
    Heading {
        name: way.name.clone(),
        detail: plural(tests, "test", "tests"),
        figures,
    }
}
