//! The share of probes lost over time, by direction.

use super::axis::Scale;
use super::blank;
use super::data::{Column, Material, Track};
use super::frame::{Frame, Heading, Look, Plot, Swatch, event_legend, subtitle};
use super::scene::Scene;
use crate::fail::Fail;
use crate::show::{count, percent};

/// What loses more than this is not seen as scattered loss any more.
const OUTAGE: f64 = 0.5;

/// Draws it.
pub(crate) fn draw(material: &Material, look: &Look) -> Result<Scene, Fail> {
    let (tracks, range) = (&material.tracks, material.range);
    let theme = look.theme;
    let blanks = blank::kinds(tracks, range, |t| &t.coarse);
    let all = tracks.iter().map(|t| &t.whole);
    let sum = |of: fn(&bufferbane_core::stats::summary::Summary) -> u64| -> u64 {
        all.clone().map(of).sum()
    };
    let (up, down) = (sum(|s| s.lost_up), sum(|s| s.lost_down));
    let unknown = sum(|s| s.lost) - up - down;
    let mut legend = Vec::new();
    for (n, color, name) in [
        (up, theme.up, "lost on the way up"),
        (down, theme.down, "lost on the way down"),
        (unknown, theme.unknown, "lost, direction not known"),
        (sum(|s| s.unsent), theme.unsent, "could not be sent"),
    ] {
        if n > 0 {
            legend.push((Swatch::Box(color), name));
        }
    }
    blank::legend([blanks[0], false], theme, &mut legend);
    if tracks
        .iter()
        .any(|t| t.coarse.iter().any(|c| share(c) > highest(t)))
    {
        legend.push((
            Swatch::Notch(theme.unknown, theme.background),
            "goes on up to 100 %",
        ));
    }
    event_legend(&material.events, theme, &mut legend);
    let mut frame = Frame::begin(
        look,
        "Lost probes",
        &subtitle(range, &look.zone),
        &legend,
        tracks.len(),
        false,
    )?;
    let scales = frame.marked(tracks.iter().map(|t| Scale::Linear(highest(t))), mark);
    for (i, (track, (scale, marks))) in tracks.iter().zip(&scales).enumerate() {
        let heading = Heading::of(track, figures(track));
        let plot = frame.panel(i, &heading, *scale, range);
        frame.shade(&plot, track, &track.coarse, false);
        frame.value_axis(&plot, marks);
        frame.time_axis(&plot, i);
        frame.mark_events(&plot, track, &material.events);
        if track.whole.lost + track.whole.unsent == 0 {
            frame.note(&plot, "nothing lost");
        }
        bars(&mut frame, &plot, track);
    }
    Ok(frame.scene)
}

/// Lost and unsent probes of all that were tried.
fn share(c: &Column) -> f64 {
    match c.sent + c.unsent {
        0 => 0.0,
        tried => c.gone() as f64 / tried as f64,
    }
}

/// The top of the axis: outages are cut off where they would press everything else to the ground.
fn highest(track: &Track) -> f64 {
    let largest = |below: f64| {
        let shares = track.coarse.iter().map(share);
        shares.filter(|s| *s < below).fold(0.0, f64::max)
    };
    let (most, rest) = (largest(f64::MAX), largest(OUTAGE));
    let top = if rest > 0.0 && rest < most / 4.0 {
        rest
    } else {
        most
    };
    (top * 1.08).clamp(0.01, 1.0)
}

fn mark(share: f64) -> String {
    let percent = share * 100.0;
    let digits =
        usize::from(percent.fract().abs() > 1e-6 && (percent - percent.round()).abs() > 1e-6);
    format!("{percent:.digits$} %")
}

fn figures(track: &Track) -> String {
    let s = &track.whole;
    let mut text = format!("{} of {} lost", count(s.lost), count(s.sent));
    if s.lost > 0 {
        text.push_str(&format!(" ({})", percent(s.lost, s.sent)));
        let longest = s.runs.longest();
        if longest.packets > 1 {
            text.push_str(&format!(" · longest run {}", count(longest.packets)));
        }
    }
    if s.unsent > 0 {
        text.push_str(&format!(" · {} not sent", count(s.unsent)));
    }
    text
}

fn bars(frame: &mut Frame<'_>, plot: &Plot, track: &Track) {
    let theme = frame.look.theme;
    let colors = [theme.up, theme.down, theme.unknown, theme.unsent];
    let [_, top, _, bottom] = plot.bounds;
    for c in &track.coarse {
        let (x0, x1) = (plot.x(c.from_ns), plot.x(c.to_ns));
        // A bar may be thin, but never too thin to see.
        let x1 = x1.max(x0 + 1.0);
        let (gone, height) = (c.gone() as f64, bottom - plot.y(share(c)));
        let mut below = 0;
        for (n, color) in [c.lost[0], c.lost[1], c.lost[2], c.unsent]
            .into_iter()
            .zip(colors)
        {
            if n == 0 {
                continue;
            }
            // Of a bar that is cut off the parts keep their proportions.
            let y = |n: u64| bottom - height * n as f64 / gone;
            let low = y(below);
            below += n;
            frame
                .scene
                .fill([x0, y(below).min(low - 1.0), x1, low], color);
        }
    }
    for run in track
        .coarse
        .chunk_by(|a, b| is_cut(plot, a) == is_cut(plot, b))
    {
        if !is_cut(plot, &run[0]) {
            continue;
        }
        let x = (plot.x(run[0].from_ns) + plot.x(run[run.len() - 1].to_ns)) / 2.0;
        let notch = vec![(x - 6.0, top), (x + 6.0, top), (x, top + 9.0)];
        frame.scene.area(notch, theme.background);
    }
}

fn is_cut(plot: &Plot, c: &Column) -> bool {
    matches!(plot.scale, Scale::Linear(high) if share(c) > high)
}
