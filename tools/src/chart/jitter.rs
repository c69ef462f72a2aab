//! How much the round-trip time changes from one probe to the next (IPDV), over time, and the
//! smoothed jitter of RFC 3550.

use super::axis::Scale;
use super::blank::{self, unbroken};
use super::data::{Column, Levels, Material, Track};
use super::frame::{Frame, Heading, Look, Plot, Swatch, subtitle};
use super::scene::Scene;
use crate::fail::Fail;
use crate::show::delay;

/// Draws it.
pub(crate) fn draw(material: &Material, look: &Look) -> Result<Scene, Fail> {
    let (tracks, range) = (&material.tracks, material.range);
    let theme = look.theme;
    let blanks = blank::kinds(tracks, range, |t| &t.coarse);
    let mut legend = vec![
        (Swatch::Line(theme.main), "median"),
        (Swatch::Line(theme.p95), "95th percentile"),
        (Swatch::Line(theme.p99), "smoothed (RFC 3550)"),
        (Swatch::Box(theme.band), "median to 99th percentile"),
    ];
    blank::legend(blanks, theme, &mut legend);
    let mut frame = Frame::begin(
        look,
        "Jitter: change from probe to probe",
        &subtitle(range, &look.zone),
        &legend,
        tracks.len(),
        false,
    )?;
    let scale = |t: &Track| {
        let top = t.coarse.iter().filter_map(|c| c.ipdv).map(|l| l.p99).max();
        Scale::Linear(top.unwrap_or(1_000_000).max(1_000) as f64 * 1.08)
    };
    let scales = frame.marked(tracks.iter().map(scale), super::delay_mark);
    for (i, (track, (scale, marks))) in tracks.iter().zip(&scales).enumerate() {
        let heading = Heading::of(track, figures(track));
        let plot = frame.panel(i, &heading, *scale, range);
        frame.shade(&plot, track, &track.coarse, true);
        frame.value_axis(&plot, marks);
        frame.time_axis(&plot, i);
        curves(&mut frame, &plot, track);
    }
    Ok(frame.scene)
}

fn figures(track: &Track) -> String {
    let h = &track.whole.ipdv;
    let smoothed = track.whole.jitter.and_then(|j| j.mean_ns());
    let smoothed = smoothed.map_or_else(String::new, |ns| format!(" · smoothed {}", delay(ns)));
    match (h.quantile(0.5), h.quantile(0.95), h.quantile(0.99)) {
        (Some(p50), Some(p95), Some(p99)) => format!(
            "median {} · p95 {} · p99 {}{smoothed}",
            delay(p50),
            delay(p95),
            delay(p99)
        ),
        _ => "no two answers in a row".into(),
    }
}

fn curves(frame: &mut Frame<'_>, plot: &Plot, track: &Track) {
    let theme = frame.look.theme;
    let level = |c: &Column| c.ipdv.unwrap_or_default();
    for run in unbroken(track, &track.coarse, |c| c.ipdv.is_some()) {
        let line = |of: fn(&Levels) -> u64| -> Vec<(f64, f64)> {
            run.iter()
                .map(|c| (plot.center(c), plot.y(of(&level(c)) as f64)))
                .collect()
        };
        let edges = |c: &Column| (plot.y(level(c).p50 as f64), plot.y(level(c).p99 as f64));
        super::band(&mut frame.scene, plot, run, edges, theme.band);
        frame.scene.line(line(|l| l.p95), 1.25, theme.p95);
        frame.scene.line(line(|l| l.p50), 1.75, theme.main);
    }
    for run in unbroken(track, &track.coarse, |c| c.jitter.is_some()) {
        let line = run
            .iter()
            .map(|c| (plot.center(c), plot.y(c.jitter.unwrap_or_default() as f64)));
        frame.scene.line(line.collect(), 1.25, theme.p99);
    }
}
