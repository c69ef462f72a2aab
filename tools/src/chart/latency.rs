//! Round-trip time over time: smallest to largest, median, 95th and 99th percentile.

use super::axis::Scale;
use super::blank::{self, unbroken};
use super::data::{Column, Levels, Material, Track};
use super::frame::{Frame, Heading, Look, Plot, Swatch, event_legend, subtitle};
use super::scene::Scene;
use super::theme::Rgb;
use crate::fail::Fail;
use crate::show::delay;

/// Values that a column needs before its 95th percentile is told apart from its largest.
const FOR_P95: u64 = 20;
/// And its 99th.
const FOR_P99: u64 = 100;

/// Draws it.
pub(crate) fn draw(material: &Material, look: &Look) -> Result<Scene, Fail> {
    let (tracks, range) = (&material.tracks, material.range);
    let theme = look.theme;
    let has = |n: u64| tracks.iter().any(|t| t.has_typically(n));
    let blanks = blank::kinds(tracks, range, |t| &t.fine);
    let mut legend = vec![(
        Swatch::Line(theme.main),
        if has(2) { "median" } else { "each probe" },
    )];
    let mut add = |when: bool, swatch, name| {
        if when {
            legend.push((swatch, name));
        }
    };
    add(
        has(FOR_P95),
        Swatch::Box(theme.band_p95),
        "95 of 100 within",
    );
    add(
        has(FOR_P99),
        Swatch::Box(theme.band_p99),
        "99 of 100 within",
    );
    add(has(2), Swatch::Box(theme.band), "smallest to largest");
    blank::legend(blanks, theme, &mut legend);

    event_legend(&material.events, theme, &mut legend);
    let mut frame = Frame::begin(
        look,
        "Round-trip time",
        &subtitle(range, &look.zone),
        &legend,
        tracks.len(),
        false,
    )?;
    let scales = frame.marked(tracks.iter().map(scale), super::delay_mark);
    for (i, (track, (scale, marks))) in tracks.iter().zip(&scales).enumerate() {
        let heading = Heading::of(track, figures(track, *scale));
        let plot = frame.panel(i, &heading, *scale, range);
        frame.shade(&plot, track, &track.fine, true);
        frame.value_axis(&plot, marks);
        frame.time_axis(&plot, i);
        frame.mark_events(&plot, track, &material.events);
        curves(&mut frame, &plot, track);
    }
    Ok(frame.scene)
}

fn figures(track: &Track, scale: Scale) -> String {
    let rtt = &track.whole.rtt;
    let (Some(p50), Some(p99), Some(max)) = (rtt.quantile(0.5), rtt.quantile(0.99), rtt.max())
    else {
        return "no answer".into();
    };
    let log = match scale {
        Scale::Log(..) => "log scale · ",
        Scale::Linear(_) => "",
    };
    format!(
        "{log}median {} · p99 {} · max {}",
        delay(p50),
        delay(p99),
        delay(max)
    )
}

fn scale(track: &Track) -> Scale {
    let rtt = &track.whole.rtt;
    match (rtt.min(), rtt.quantile(0.5), rtt.max()) {
        (Some(min), Some(p50), Some(max)) => Scale::for_values(min as f64, p50 as f64, max as f64),
        _ => Scale::Linear(1e6),
    }
}

fn curves(frame: &mut Frame<'_>, plot: &Plot, track: &Track) {
    let theme = frame.look.theme;
    let level = |c: &Column| c.rtt.unwrap_or_default();
    for run in unbroken(track, &track.fine, |c| c.rtt.is_some()) {
        let line = |of: fn(&Levels) -> u64| -> Vec<(f64, f64)> {
            run.iter()
                .map(|c| (plot.center(c), plot.y(of(&level(c)) as f64)))
                .collect()
        };
        if !track.single {
            // Nested bands instead of lines that would cross each other all the time.
            let mut put = |of: fn(&Levels) -> u64, color: Rgb| {
                let edges =
                    |c: &Column| (plot.y(level(c).min as f64), plot.y(of(&level(c)) as f64));
                super::band(&mut frame.scene, plot, run, edges, color);
            };
            put(|l| l.max, theme.band);
            if track.has_typically(FOR_P99) {
                put(|l| l.p99, theme.band_p99);
            }
            if track.has_typically(FOR_P95) {
                put(|l| l.p95, theme.band_p95);
            }
        }
        frame.scene.line(line(|l| l.p50), 1.75, theme.main);
    }
}
