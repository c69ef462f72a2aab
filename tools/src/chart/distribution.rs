//! How often which round-trip time occurred: a histogram, what share was at most as long, and the
//! percentiles.

use bufferbane_core::stats::histogram::Histogram;

use super::axis::Scale;
use super::data::Material;
use super::frame::{Frame, Heading, Look, Plot, Swatch, subtitle};
use super::scene::{Anchor, Label, Scene};
use super::text;
use crate::fail::Fail;
use crate::show::delay;

/// A bar is about this wide.
const BAR: f64 = 7.0;
/// Octaves that the widest bucket of a histogram spans: log2(1 + 1/64).
const WIDEST_BUCKET: f64 = 0.0224;
const SIZE: f64 = 11.5;
const MARKED: [(f64, &str); 3] = [(0.5, "median"), (0.95, "p95"), (0.99, "p99")];

/// Draws it.
pub(crate) fn draw(material: &Material, look: &Look) -> Result<Scene, Fail> {
    let (tracks, range) = (&material.tracks, material.range);
    let theme = look.theme;
    let legend = [
        (Swatch::Box(theme.band), "share of answers"),
        (
            Swatch::Line(theme.main),
            "share at most as long (right axis)",
        ),
    ];
    let mut frame = Frame::begin(
        look,
        "Distribution of the round-trip time",
        &subtitle(range, &look.zone),
        &legend,
        tracks.len(),
        true,
    )?;
    let wanted = frame.mark_count().min(4);
    frame.reserve(["100 %".to_owned()]);
    for (i, track) in tracks.iter().enumerate() {
        let h = &track.whole.rtt;
        let heading = Heading::of(track, figures(h));
        // Each panel has a value axis of its own below it, and percentiles above.
        let mut plot = frame.panel(i, &heading, Scale::Linear(1.0), range);
        plot.bounds[3] -= SIZE + 8.0;
        plot.bounds[1] += SIZE * 2.0 + 6.0;
        let (Some(min), Some(max)) = (h.min(), h.max()) else {
            frame.note(&plot, "no answer");
            continue;
        };
        let values = Values::new(&plot, min, max);
        let bars = bars(h, &plot, &values);
        let top = bars.iter().map(|b| b.2).fold(0.0, f64::max);
        plot.scale = Scale::Linear(top.max(1e-9) * 1.05);
        let marks = plot.scale.marks(wanted);
        let labels: Vec<(f64, String)> = marks.into_iter().map(|v| (v, share_mark(v))).collect();
        frame.value_axis(&plot, &labels);
        values.axis(&mut frame, &plot);
        for (low, high, share) in &bars {
            let bounds = [
                values.x(*low),
                plot.y(*share),
                values.x(*high),
                plot.bounds[3],
            ];
            if *share > 0.0 {
                frame.scene.fill(bounds, theme.band);
            }
        }
        percentiles(&mut frame, &plot, &values, h);
        cumulative(&mut frame, &plot, &values, h);
    }
    Ok(frame.scene)
}

fn figures(h: &Histogram) -> String {
    match (h.quantile(0.5), h.quantile(0.95), h.quantile(0.99)) {
        (Some(p50), Some(p95), Some(p99)) => format!(
            "median {} · p95 {} · p99 {}",
            delay(p50),
            delay(p95),
            delay(p99)
        ),
        _ => "no answer".into(),
    }
}

fn share_mark(share: f64) -> String {
    let percent = share * 100.0;
    let digits = if percent == 0.0 || percent >= 0.999 {
        0
    } else {
        1
    };
    format!("{percent:.digits$} %")
}

/// The axis of values, logarithmic.
struct Values {
    low: f64,
    high: f64,
    left: f64,
    right: f64,
}

impl Values {
    fn new(plot: &Plot, min: u64, max: u64) -> Self {
        // At least a fifth of a decade, so that a very even line is not blown up to noise.
        let (min, max) = (min.max(1) as f64, max.max(1) as f64);
        let spread = (max / min).max(1.6) / (max / min);
        Self {
            low: min / spread.sqrt() * 0.97,
            high: max * spread.sqrt() * 1.03,
            left: plot.bounds[0],
            right: plot.bounds[2],
        }
    }

    fn x(&self, ns: f64) -> f64 {
        let place = (ns.max(self.low) / self.low).ln() / (self.high / self.low).ln();
        self.left + place.clamp(0.0, 1.0) * (self.right - self.left)
    }

    fn axis(&self, frame: &mut Frame<'_>, plot: &Plot) {
        let theme = frame.look.theme;
        let [_, top, _, bottom] = plot.bounds;
        let mut end = f64::MIN;
        for (value, has_label) in self.marks() {
            let x = self.x(value).round();
            frame.scene.fill([x, top, x + 1.0, bottom], theme.grid);
            frame
                .scene
                .fill([x, bottom, x + 1.0, bottom + 4.0], theme.axis);
            let text = super::delay_mark(value);
            let half = text::width(&text, SIZE) / 2.0;
            if !has_label || x - half < end + 8.0 || x + half > frame.look.width - 2.0 {
                continue;
            }
            end = x + half;
            frame.scene.text(
                Label {
                    x,
                    y: bottom + 6.0 + SIZE / 2.0 + 2.0,
                    text,
                    size: SIZE,
                    color: theme.muted,
                    anchor: Anchor::Middle,
                },
                f64::MAX,
            );
        }
    }

    /// Values to mark, and whether each has a label.
    fn marks(&self) -> Vec<(f64, bool)> {
        let decades = (self.high / self.low).log10();
        if decades < 0.7 {
            // Too narrow for powers of ten: even steps.
            let scale = Scale::Linear(self.high);
            let steps = ((8.0 * self.high) / (self.high - self.low)) as usize;
            return scale
                .marks(steps.clamp(4, 200))
                .into_iter()
                .filter(|v| *v >= self.low)
                .map(|v| (v, true))
                .collect();
        }
        let first = self.low.log10().floor() as i32;
        let last = self.high.log10().ceil() as i32;
        let (steps, labelled): (&[f64], usize) = match decades {
            d if d < 1.2 => (&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0], 9),
            d if d < 3.0 => (&[1.0, 2.0, 5.0], 3),
            _ => (&[1.0, 2.0, 5.0], 1),
        };
        (first..=last)
            .flat_map(|e| {
                let steps = steps.iter().enumerate();
                steps.map(move |(i, m)| (m * 10f64.powi(e), i < labelled))
            })
            .filter(|(v, _)| (self.low..=self.high).contains(v))
            .collect()
    }
}

/// Bars equally wide on the logarithmic axis: lower edge, upper edge, share. What lies in a bucket
/// of the histogram is spread evenly over it.
fn bars(h: &Histogram, plot: &Plot, values: &Values) -> Vec<(f64, f64, f64)> {
    let width = plot.bounds[2] - plot.bounds[0];
    let octaves = (values.high / values.low).log2();
    // Never narrower than the histogram's buckets, which would comb it.
    let count = (width / BAR).min(octaves / WIDEST_BUCKET).max(4.0) as usize;
    let edge = |i: usize| values.low * 2f64.powf(octaves * i as f64 / count as f64);
    let mut bars: Vec<(f64, f64, f64)> = (0..count).map(|i| (edge(i), edge(i + 1), 0.0)).collect();
    let (min, max) = (h.min().unwrap_or(0) as f64, h.max().unwrap_or(0) as f64);
    for (low, high, n) in h.iter() {
        let low = (low as f64).max(min);
        let high = (high as f64).min(max + 1.0).max(low + 1.0);
        let share = f64::from(n) / h.count() as f64;
        for bar in &mut bars {
            let overlap = high.min(bar.1) - low.max(bar.0);
            if overlap > 0.0 {
                bar.2 += share * overlap / (high - low);
            }
        }
    }
    bars
}

/// The share of answers that were at most as long, with its own axis at the right.
fn cumulative(frame: &mut Frame<'_>, plot: &Plot, values: &Values, h: &Histogram) {
    let theme = frame.look.theme;
    let [left, top, right, bottom] = plot.bounds;
    let y = |share: f64| bottom - share * (bottom - top);
    let mut points = vec![(left, bottom)];
    let mut seen = 0u64;
    for (low, high, n) in h.iter() {
        points.push((values.x(low as f64), y(seen as f64 / h.count() as f64)));
        seen += u64::from(n);
        points.push((values.x(high as f64), y(seen as f64 / h.count() as f64)));
    }
    points.push((right, top));
    frame.scene.line(points, 1.75, theme.main);
    for share in [0.0, 0.5, 1.0] {
        frame.scene.text(
            Label {
                x: right + 6.0,
                y: y(share),
                text: format!("{:.0} %", share * 100.0),
                size: SIZE,
                color: theme.muted,
                anchor: Anchor::Start,
            },
            f64::MAX,
        );
    }
}

/// Marks of the percentiles; their labels give way to each other.
fn percentiles(frame: &mut Frame<'_>, plot: &Plot, values: &Values, h: &Histogram) {
    let theme = frame.look.theme;
    let [left, top, right, bottom] = plot.bounds;
    let mut ends = [f64::MIN; 2];
    for ((q, name), color) in MARKED.into_iter().zip([theme.main, theme.p95, theme.p99]) {
        let Some(value) = h.quantile(q) else { continue };
        let x = values.x(value as f64);
        let half = text::width(name, SIZE) / 2.0;
        let center = x.max(left + half).min(right - half);
        // The lower of two rows where there is room, else the upper, else no label.
        let row = ends.iter().position(|end| center - half > end + 8.0);
        let from = match row {
            Some(row) => {
                ends[row] = center + half;
                let y = top - 8.0 - row as f64 * (SIZE + 3.0);
                frame.scene.text(
                    Label {
                        x: center,
                        y,
                        text: name.to_owned(),
                        size: SIZE,
                        color: theme.text,
                        anchor: Anchor::Middle,
                    },
                    f64::MAX,
                );
                top - 1.0
            }
            None => top,
        };
        frame.scene.fill([x - 0.75, from, x + 0.75, bottom], color);
    }
}
