//! What all charts have in common: title, legend, panels with their axes, and the time below.

use bufferbane_core::detect::Kind;
use bufferbane_store::Severity;
use jiff::tz::TimeZone;

use super::axis::{Scale, time_marks};
use super::blank::{Blank, blanks};
use super::data::{Column, Track};
use super::scene::{Anchor, Label, Scene};
use super::text;
use super::theme::{Rgb, Theme};
use crate::fail::Fail;
use crate::report::{Event, Time, spells};
use crate::show;
use crate::when::{self, Range};

/// Space round everything.
const PAD: f64 = 14.0;
const TITLE: f64 = 17.0;
const BODY: f64 = 12.5;
pub(crate) const SMALL: f64 = 11.5;
/// Below this a panel says nothing any more.
const LOWEST_PANEL: f64 = 70.0;
/// Two columns of panels need this width, and more panels than this.
const TWO_COLUMNS: (f64, usize) = (800.0, 4);

/// How a chart is to look.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    /// Pixels across.
    pub(crate) width: f64,
    /// Pixels down; as many as it takes where `None`.
    pub(crate) height: Option<f64>,
    /// Its colours.
    pub(crate) theme: Theme,
    /// The zone of its times.
    pub(crate) zone: TimeZone,
}

/// How something looks in the legend.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Swatch {
    /// A line.
    Line(Rgb),
    /// A filled box.
    Box(Rgb),
    /// A flat box, as events are marked.
    Strip(Rgb),
    /// A small square.
    Dot(Rgb),
    /// A bar that is cut off at the top: the bar's colour, and the notch's.
    Notch(Rgb, Rgb),
}

/// A drawing area with its axes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plot {
    /// Left, top, right, bottom.
    pub(crate) bounds: [f64; 4],
    /// The values' scale.
    pub(crate) scale: Scale,
    /// The time at the left and right edge.
    pub(crate) range: Range,
}

impl Plot {
    /// The pixel column of a time.
    pub(crate) fn x(&self, ns: i64) -> f64 {
        let [left, _, right, _] = self.bounds;
        let span = self.range.to_ns.abs_diff(self.range.from_ns).max(1) as f64;
        let offset = (i128::from(ns) - i128::from(self.range.from_ns)) as f64;
        left + (offset / span).clamp(0.0, 1.0) * (right - left)
    }

    /// The pixel row of a value.
    pub(crate) fn y(&self, value: f64) -> f64 {
        let [_, top, _, bottom] = self.bounds;
        bottom - self.scale.place(value) * (bottom - top)
    }

    /// The middle of a column.
    pub(crate) fn center(&self, c: &Column) -> f64 {
        (self.x(c.from_ns) + self.x(c.to_ns)) / 2.0
    }
}

/// What one panel shows, without its drawing.
#[derive(Clone, Debug)]
pub(crate) struct Heading {
    /// Its name.
    pub(crate) name: String,
    /// More about it, where there is room.
    pub(crate) detail: String,
    /// Its figures, at the right.
    pub(crate) figures: String,
}

impl Heading {
    /// The heading of a series.
    pub(crate) fn of(track: &Track, figures: String) -> Self {
        let i = &track.info;
        Self {
            name: format!("{} → {}", i.interface, i.target),
            detail: format!(
                "{}{}, {}",
                i.kind.as_str(),
                i.family,
                match i.size {
                    0 => "mixed sizes".to_owned(),
                    n => show::bytes(u64::from(n)),
                }
            ),
            figures,
        }
    }
}

/// A chart that is being drawn.
pub(crate) struct Frame<'a> {
    /// The drawing.
    pub(crate) scene: Scene,
    /// Its look.
    pub(crate) look: &'a Look,
    panels: Vec<[f64; 4]>,
    /// Width of the marks at the left of each panel.
    left: f64,
    has_right_axis: bool,
    columns: usize,
}

impl<'a> Frame<'a> {
    /// Begins a chart with `count` panels, and draws title and legend.
    pub(crate) fn begin(
        look: &'a Look,
        title: &str,
        subtitle: &str,
        legend: &[(Swatch, &str)],
        count: usize,
        has_right_axis: bool,
    ) -> Result<Self, Fail> {
        let rows = count.div_ceil(columns_for(look, count)).max(1);
        let wanted = match rows {
            1 => 330.0,
            2 => 230.0,
            _ => 175.0,
        };
        let mut frame = Self::sized(look, title, subtitle, legend, count, wanted)?;
        frame.has_right_axis = has_right_axis;
        Ok(frame)
    }

    /// As [`Frame::begin`], with panels as high as `wanted` where nobody asked for a height.
    pub(crate) fn sized(
        look: &'a Look,
        title: &str,
        subtitle: &str,
        legend: &[(Swatch, &str)],
        count: usize,
        wanted: f64,
    ) -> Result<Self, Fail> {
        let theme = look.theme;
        let mut scene = Scene::new(look.width, theme.background);
        scene.description = format!("{title}, {subtitle}");
        let room = look.width - 2.0 * PAD;
        let label = |x, y, text: &str, size, color| Label {
            x,
            y,
            text: text.to_owned(),
            size,
            color,
            anchor: Anchor::Start,
        };
        let mut y = PAD + TITLE / 2.0;
        scene.text(label(PAD, y, title, TITLE, theme.text), room);
        y += TITLE / 2.0 + 6.0 + BODY / 2.0;
        for line in wrap(subtitle, BODY, room) {
            scene.text(label(PAD, y, &line, BODY, theme.muted), room);
            y += BODY + 4.0;
        }
        let mut x = PAD;
        y += 6.0;
        for (swatch, name) in legend {
            let wide = 26.0 + text::width(name, SMALL) + 18.0;
            if x > PAD && x + wide > look.width - PAD {
                x = PAD;
                y += SMALL + 6.0;
            }
            match swatch {
                Swatch::Line(c) => scene.line(vec![(x, y), (x + 20.0, y)], 2.0, *c),
                Swatch::Box(c) => scene.fill([x, y - 5.0, x + 20.0, y + 5.0], *c),
                Swatch::Strip(c) => scene.fill([x, y - 2.5, x + 20.0, y + 2.5], *c),
                Swatch::Dot(c) => scene.fill([x + 7.5, y - 2.5, x + 12.5, y + 2.5], *c),
                Swatch::Notch(bar, notch) => {
                    scene.fill([x, y - 5.0, x + 20.0, y + 5.0], *bar);
                    let corners =
                        vec![(x + 5.0, y - 5.0), (x + 15.0, y - 5.0), (x + 10.0, y + 2.0)];
                    scene.area(corners, *notch);
                }
            }
            scene.text(
                label(x + 26.0, y, name, SMALL, theme.muted),
                look.width - PAD - x - 26.0,
            );
            x += wide;
        }
        let top = y + SMALL / 2.0 + 6.0;

        let columns = columns_for(look, count);
        let rows = count.div_ceil(columns).max(1);
        let footer = SMALL * 2.0 + PAD;
        let panel = match look.height {
            Some(height) => (height - top - footer) / rows as f64,
            None => wanted,
        };
        if panel < LOWEST_PANEL {
            return Err(Fail::Usage(format!(
                "{count} series need a height of at least {:.0} at this width; make the chart \
                 higher, or choose with --interface and --target",
                (top + footer + LOWEST_PANEL * rows as f64).ceil()
            )));
        }
        scene.height = look
            .height
            .unwrap_or_else(|| (top + footer + panel * rows as f64).ceil());
        let width = (look.width - PAD * (columns + 1) as f64) / columns as f64;
        let panels = (0..count)
            .map(|i| {
                let (row, column) = (i / columns, i % columns);
                let x = PAD + column as f64 * (width + PAD);
                let y = top + row as f64 * panel;
                [x, y, x + width, y + panel]
            })
            .collect();
        Ok(Self {
            scene,
            look,
            panels,
            left: 0.0,
            has_right_axis: false,
            columns,
        })
    }

    /// Leaves room at the left for all of these marks.
    pub(crate) fn reserve(&mut self, marks: impl IntoIterator<Item = String>) {
        for mark in marks {
            self.left = self.left.max(text::width(&mark, SMALL) + 8.0);
        }
    }

    /// The marks of each panel's scale with their labels, for which it leaves room at the left.
    pub(crate) fn marked(
        &mut self,
        scales: impl Iterator<Item = Scale>,
        label: fn(f64) -> String,
    ) -> Vec<(Scale, Vec<(f64, String)>)> {
        let count = self.mark_count();
        let marked: Vec<(Scale, Vec<(f64, String)>)> = scales
            .map(|scale| {
                let marks = scale.marks(count).into_iter();
                (scale, marks.map(|v| (v, label(v))).collect())
            })
            .collect();
        self.reserve(
            marked
                .iter()
                .flat_map(|(_, m)| m.iter().map(|(_, l)| l.clone())),
        );
        marked
    }

    /// How high the plot of a panel will be.
    pub(crate) fn plot_height(&self) -> f64 {
        let [_, top, _, bottom] = self.panels[0];
        bottom - top - BODY - 23.0
    }

    /// How many marks a value axis has room for.
    pub(crate) fn mark_count(&self) -> usize {
        ((self.plot_height() / 34.0) as usize).clamp(2, 8)
    }

    /// Draws the heading of panel `index`, and gives its plot.
    pub(crate) fn panel(
        &mut self,
        index: usize,
        heading: &Heading,
        scale: Scale,
        range: Range,
    ) -> Plot {
        let theme = self.look.theme;
        let [left, top, right, bottom] = self.panels[index];
        let y = top + 6.0 + BODY / 2.0;
        // The name first, then the figures, and the details in what is left between them.
        let mut label = Label {
            x: left,
            y,
            text: heading.name.clone(),
            size: BODY,
            color: theme.text,
            anchor: Anchor::Start,
        };
        let wide = right - left;
        let most = wide - text::width(&heading.name, BODY).min(wide * 0.5) - 14.0;
        let told = whole_parts(&heading.figures, most);
        let figures = text::width(told, SMALL);
        let name_room = (wide - figures - 14.0).max(wide * 0.4);
        let used = self.scene.text(label.clone(), name_room) + 12.0;
        label.x += used;
        label.text.clone_from(&heading.detail);
        (label.size, label.color) = (SMALL, theme.muted);
        if used + text::width(&heading.detail, SMALL) + 14.0 + figures <= wide {
            self.scene.text(label.clone(), f64::MAX);
        }
        label.x = right;
        label.text = told.to_owned();
        label.anchor = Anchor::End;
        self.scene.text(label, wide - used);
        let right = right - if self.has_right_axis { 40.0 } else { 6.0 };
        Plot {
            bounds: [left + self.left, top + BODY + 17.0, right, bottom - 6.0],
            scale,
            range,
        }
    }

    /// Draws the value axis of a plot: `marks` with their labels, and their grid lines.
    pub(crate) fn value_axis(&mut self, plot: &Plot, marks: &[(f64, String)]) {
        let theme = self.look.theme;
        let [left, top, right, bottom] = plot.bounds;
        let mut last = f64::MAX;
        for (value, text) in marks {
            let y = plot.y(*value).round();
            if *value > 0.0 {
                self.scene.fill([left, y, right, y + 1.0], theme.grid);
            }
            // The label of a mark at the very edge may not reach into what is above.
            if last - y < SMALL + 2.0 || y < top - 2.0 {
                continue;
            }
            last = y;
            self.scene.text(
                Label {
                    x: left - 6.0,
                    y,
                    text: text.clone(),
                    size: SMALL,
                    color: theme.muted,
                    anchor: Anchor::End,
                },
                f64::MAX,
            );
        }
        self.scene
            .fill([left, bottom, right, bottom + 1.0], theme.axis);
    }

    /// Draws the lines of a time axis, and its labels where the panel is the lowest of its column.
    pub(crate) fn time_axis(&mut self, plot: &Plot, index: usize) {
        let theme = self.look.theme;
        let [left, top, right, bottom] = plot.bounds;
        let lowest = self.is_lowest(index);
        let (from, to) = (plot.range.from_ns, plot.range.to_ns);
        for (at, text) in time_marks(from, to, right - left, SMALL, &self.look.zone) {
            let x = plot.x(at).round();
            self.scene.fill([x, top, x + 1.0, bottom], theme.grid);
            if !lowest {
                continue;
            }
            self.scene
                .fill([x, bottom, x + 1.0, bottom + 4.0], theme.axis);
            // At an edge it is moved inward rather than cut.
            let half = text::width(&text, SMALL) / 2.0;
            let x = x.min(self.look.width - 2.0 - half).max(2.0 + half);
            self.scene.text(
                Label {
                    x,
                    y: bottom + 6.0 + SMALL / 2.0 + 2.0,
                    text,
                    size: SMALL,
                    color: theme.muted,
                    anchor: Anchor::Middle,
                },
                f64::MAX,
            );
        }
    }

    /// Whether no panel is below this one.
    pub(crate) fn is_lowest(&self, index: usize) -> bool {
        index + self.columns >= self.panels.len()
    }

    /// Shades the stretches of a plot without samples, and where `silent` those without answers.
    pub(crate) fn shade(&mut self, plot: &Plot, track: &Track, columns: &[Column], silent: bool) {
        let theme = self.look.theme;
        let [left, top, right, bottom] = plot.bounds;
        for (from, to, what) in blanks(plot.range, track, columns) {
            let color = match what {
                Blank::Unmeasured => theme.unmeasured,
                Blank::Silent if silent => theme.silent,
                Blank::Silent => continue,
            };
            // One lost probe is to be seen however long the range is.
            let x0 = plot.x(from).min(right - 1.0);
            let x1 = plot.x(to).max(x0 + 1.0);
            self.scene.fill([x0.max(left), top, x1, bottom], color);
        }
    }

    /// Marks above a plot when something happened to what it shows; each severity is drawn over
    /// lesser ones.
    pub(crate) fn mark_events(&mut self, plot: &Plot, track: &Track, events: &[Event]) {
        let [_, top, right, _] = plot.bounds;
        let theme = self.look.theme;
        for severity in [Severity::Info, Severity::Warning, Severity::Critical] {
            let mut drawn = f64::MIN;
            let shown = events
                .iter()
                .filter(|e| e.severity == severity && concerns(e, track));
            for (from, to) in extents(shown, plot.range) {
                let x0 = plot.x(from).min(right - 2.0);
                let x1 = plot.x(to).max(x0 + 2.0);
                // Ten thousand marks in one place are one.
                if x1 <= drawn {
                    continue;
                }
                let bounds = [x0.max(drawn), top - 7.0, x1, top - 2.0];
                self.scene.fill(bounds, theme.severity(severity));
                drawn = x1;
            }
        }
    }

    /// Says something in the middle of a plot.
    pub(crate) fn note(&mut self, plot: &Plot, text: &str) {
        let [left, top, right, bottom] = plot.bounds;
        self.scene.text(
            Label {
                x: (left + right) / 2.0,
                y: (top + bottom) / 2.0,
                text: text.to_owned(),
                size: BODY,
                color: self.look.theme.muted,
                anchor: Anchor::Middle,
            },
            right - left,
        );
    }
}

/// As many of the parts of a line of figures, from the first, as `room` has place for; the first at
/// least.
fn whole_parts(figures: &str, room: f64) -> &str {
    let mut told = figures;
    while text::width(told, SMALL) > room
        && let Some((shorter, _)) = told.rsplit_once(" · ")
    {
        told = shorter;
    }
    told
}

/// Whether an event is about what a track shows: what concerns the host concerns all.
fn concerns(e: &Event, track: &Track) -> bool {
    (e.interface.is_empty() || e.interface == track.info.interface)
        && match &e.target {
            Some(target) => *target == track.info.target,
            None => is_shown_by(e, track),
        }
}

/// Whether an event of several targets, or of none, is about a track, too: one that names them only where it is one of
/// them. While nothing is answered at all that is of interest everywhere, and what the line does is for what services do.
fn is_shown_by(e: &Event, track: &Track) -> bool {
    let targets = e.values.get("targets").and_then(|v| v.as_array());
    let named = targets.filter(|t| !t.is_empty());
    let is_outage = [Kind::Outage, Kind::MicroOutage]
        .map(Kind::as_str)
        .contains(&e.kind.as_str());
    is_outage
        || track.info.kind.asks_a_service()
        || named.is_none_or(|t| t.iter().any(|t| *t == track.info.target.as_str()))
}

/// When events were within a range, in the order of the begins: of what came and went, each time.
pub(crate) fn extents<'a>(
    events: impl Iterator<Item = &'a Event>,
    range: Range,
) -> Vec<(i64, i64)> {
    let mut all: Vec<(i64, i64)> = events
        .flat_map(|e| spells(e, Time(range.to_ns)))
        .filter(|(from, to)| *from < range.to_ns && *to >= range.from_ns)
        .map(|(from, to)| (from.max(range.from_ns), to.min(range.to_ns)))
        .collect();
    all.sort_unstable();
    all
}

/// What marks of events look like, for those there are.
pub(crate) fn event_legend(
    events: &[Event],
    theme: Theme,
    legend: &mut Vec<(Swatch, &'static str)>,
) {
    for (severity, name) in [
        (Severity::Critical, "critical event"),
        (Severity::Warning, "warning"),
        (Severity::Info, "notice"),
    ] {
        if events.iter().any(|e| e.severity == severity) {
            legend.push((Swatch::Strip(theme.severity(severity)), name));
        }
    }
}

/// Panels side by side.
fn columns_for(look: &Look, count: usize) -> usize {
    if look.width >= TWO_COLUMNS.0 && count > TWO_COLUMNS.1 {
        2
    } else {
        1
    }
}

/// Title and legend text on as many lines as `room` asks for, broken between words.
fn wrap(text: &str, size: f64, room: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if text::width(&format!("{line} {word}"), size) <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// What stands below the title of a chart over time.
pub(crate) fn subtitle(range: Range, zone: &TimeZone) -> String {
    format!(
        "{} ({})",
        when::range_label(range.from_ns, range.to_ns, zone),
        show::stretch(range.to_ns.abs_diff(range.from_ns))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_that_do_not_fit_are_left_out_as_a_whole() {
        let all = "log scale · median 11.3 ms · p99 14.7 ms · max 269 ms";
        assert_eq!(whole_parts(all, 1e9), all);
        let room = text::width("log scale · median 11.3 ms · p99", SMALL);
        assert_eq!(whole_parts(all, room), "log scale · median 11.3 ms");
        assert_eq!(whole_parts(all, 1.0), "log scale");
    }
}
