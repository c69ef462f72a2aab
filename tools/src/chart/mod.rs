//! Charts. Each kind makes a [`scene::Scene`] of [`data::Track`]s; `paint` makes an image of that.

mod axis;
mod blank;
mod bufferbloat;
mod comparison;
mod data;
mod distribution;
mod frame;
mod heatmap;
mod jitter;
mod latency;
mod lines;
mod load;
mod loss;
mod paint;
mod queue;
mod scene;
mod svg;
mod test;
mod tested;
mod text;
mod theme;
mod throughput;
mod timeline;

use std::path::{Path, PathBuf};

use bufferbane_store::{Reader, SeriesId, SeriesInfo};

use crate::args::Chart as Arguments;
use crate::fail::Fail;
use crate::report::{self, Event};
use crate::when::{self, Range};
use crate::{abreast, export_tests, out, source};

pub(crate) use data::{Column, Material, Tested, Track};
pub(crate) use frame::Look;
pub(crate) use paint::png;
pub(crate) use scene::Scene;
pub(crate) use svg::svg;
pub(crate) use theme::{Theme, hex};

use frame::Plot;

/// Charts are laid out for this many pixels across and then scaled, so that text is as large beside
/// the lines in a large image as in a small one.
const PAGE_WIDTH: f64 = 960.0;
/// The widest and highest image, pixels.
const LARGEST: u32 = 8000;
/// The smallest.
const SMALLEST: u32 = 300;

/// The kinds there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Round-trip time over time.
    Latency,
    /// Lost probes over time.
    Loss,
    /// Histogram of the round-trip time.
    Distribution,
    /// Its changes over time.
    Jitter,
    /// Series side by side.
    Comparison,
    /// Added delay by hour and day.
    Heatmap,
    /// What happened when.
    Timeline,
    /// Queueing delay up and down over time.
    Queue,
    /// What tests carried.
    Throughput,
    /// What load does to latency.
    Bufferbloat,
    /// One throughput test.
    Test,
    /// What uplinks carried, and can carry.
    Load,
}

impl Kind {
    /// All of them.
    pub(crate) const ALL: [Self; 12] = [
        Self::Timeline,
        Self::Queue,
        Self::Bufferbloat,
        Self::Throughput,
        Self::Test,
        Self::Load,
        Self::Latency,
        Self::Loss,
        Self::Heatmap,
        Self::Comparison,
        Self::Distribution,
        Self::Jitter,
    ];

    /// What it is called on the command line and in file names.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::Loss => "loss",
            Self::Distribution => "distribution",
            Self::Jitter => "jitter",
            Self::Comparison => "comparison",
            Self::Heatmap => "heatmap",
            Self::Timeline => "timeline",
            Self::Queue => "queue",
            Self::Throughput => "throughput",
            Self::Bufferbloat => "bufferbloat",
            Self::Test => "test",
            Self::Load => "load",
        }
    }

    fn named(name: &str) -> Result<Self, Fail> {
        Self::ALL
            .into_iter()
            .find(|k| k.name() == name)
            .ok_or_else(|| {
                let all = Self::ALL.map(Self::name).join(", ");
                Fail::Usage(format!("there is no chart \"{name}\"; there are {all}"))
            })
    }

    /// Draws it; `None` where there is nothing that it could show.
    pub(crate) fn draw(self, material: &Material, look: &Look) -> Result<Option<Scene>, Fail> {
        match self {
            Self::Latency => latency::draw(material, look).map(Some),
            Self::Loss => loss::draw(material, look).map(Some),
            Self::Distribution => distribution::draw(material, look).map(Some),
            Self::Jitter => jitter::draw(material, look).map(Some),
            Self::Comparison => comparison::draw(material, look).map(Some),
            Self::Heatmap => heatmap::draw(material, look).map(Some),
            Self::Timeline => timeline::draw(material, look),
            Self::Queue => queue::draw(material, look),
            Self::Throughput => throughput::draw(material, look),
            Self::Bufferbloat => bufferbloat::draw(material, look),
            Self::Test => test::draw(material, look),
            Self::Load => load::draw(material, look),
        }
    }

    /// What it is called where it is missing.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Latency => "Round-trip time",
            Self::Loss => "Lost probes",
            Self::Distribution => "Distribution",
            Self::Jitter => "Jitter",
            Self::Comparison => "Comparison",
            Self::Heatmap => "Added delay by day and hour",
            Self::Timeline => "Events",
            Self::Queue => "Queueing delay up and down",
            Self::Throughput => "Throughput",
            Self::Bufferbloat => "Latency with and without load",
            Self::Test => "Throughput test",
            Self::Load => "Load and capacity",
        }
    }

    /// What a place without it says.
    pub(crate) const fn absence(self) -> &'static str {
        match self {
            Self::Timeline => "no event was recorded in this time",
            Self::Queue => "no series with a reflector tells up and down apart in this time",
            Self::Throughput | Self::Bufferbloat | Self::Test => {
                "no throughput test was made in this time; bbtool test makes one"
            }
            Self::Load => "no interface was seen to carry anything in this time",
            _ => "nothing was measured in this time",
        }
    }
}

/// Reads what charts are drawn of, for `pixels` across.
pub(crate) fn material(
    reader: &Reader,
    series: &[(SeriesId, SeriesInfo)],
    (events, tests): (Vec<Event>, Vec<Tested>),
    range: Range,
    pixels: usize,
) -> Result<Material, Fail> {
    let tracks = abreast::map(series, |one| Track::read(reader, one, range, pixels))?;
    let is_wanted = |interface: &str| series.iter().any(|(_, i)| i.interface == interface);
    let lines = lines::read(reader, range, pixels, is_wanted)?;
    Ok(Material {
        tracks: tracks.into_iter().flatten().collect(),
        events,
        tests,
        lines,
        range,
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Png,
    Svg,
}

/// `bbtool chart`.
pub(crate) fn run(args: &Arguments) -> Result<(), Fail> {
    let kind = Kind::named(&args.kind)?;
    let format = format(args)?;
    let theme_name = args.theme.as_deref().unwrap_or("light");
    let theme = Theme::named(theme_name).ok_or_else(|| {
        Fail::Usage(format!(
            "--theme \"{theme_name}\" is not known; light or dark"
        ))
    })?;
    let width = within("--width", args.width.unwrap_or(1600))?;
    let height = args.height.map(|h| within("--height", h)).transpose()?;
    let selection = args.selection();
    // A mistake in the times is told before anything is opened.
    selection.range(when::now_ns())?;

    let reader = source::open(&args.place())?;
    let chosen = source::series(&reader, &selection)?;
    let recorded = source::recorded(&reader)?;
    let range = selection.range_or_day(when::now_ns(), recorded)?;
    let page = PAGE_WIDTH.min(f64::from(width));
    let scale = f64::from(width) / page;
    let events = report::events(&reader, &selection, range)?;
    let mut tests = export_tests::chosen(&reader, &selection, Some(range))?;
    if let Some(number) = args.test {
        tests.retain(|(id, ..)| id.0 == number);
    }
    let about = (events, tests);
    let material = material(&reader, &chosen, about, range, page as usize)?;
    if material.tracks.is_empty() && material.tests.is_empty() && material.lines.is_empty() {
        return Err(source::nothing_there(range, recorded, selection.utc));
    }
    let look = Look {
        width: page,
        height: height.map(|h| f64::from(h) / scale),
        theme,
        zone: when::zone(selection.utc),
    };
    let Some(mut scene) = kind.draw(&material, &look)? else {
        return Err(Fail::NoData(kind.absence().to_owned()));
    };
    let image = match format {
        Format::Png => {
            let height = (scene.height * scale).round() as u32;
            png(&scene, width, height)?
        }
        Format::Svg => {
            scene.description = crate::show::clean(&scene.description);
            svg(&scene, Some(scale)).into_bytes()
        }
    };
    let out = match &args.out {
        Some(path) => Some(path.clone()),
        // Nobody wants an image in their terminal.
        None if out::is_terminal() => Some(PathBuf::from(format!(
            "{}.{}",
            kind.name(),
            if format == Format::Png { "png" } else { "svg" }
        ))),
        None => None,
    };
    out::write(out.as_deref(), &image)?;
    if let (None, Some(path)) = (&args.out, out) {
        out::print(&format!("{}\n", path.display()))?;
    }
    Ok(())
}

fn format(args: &Arguments) -> Result<Format, Fail> {
    let by_name = args
        .out
        .as_deref()
        .and_then(Path::extension)
        .and_then(|e| e.to_str());
    match (args.format.as_deref(), by_name) {
        (Some("png"), _) | (None, Some("png") | None) => Ok(Format::Png),
        (Some("svg"), _) | (None, Some("svg")) => Ok(Format::Svg),
        (Some(other), _) => Err(Fail::Usage(format!(
            "--format \"{other}\" is not known for charts; png or svg"
        ))),
        (None, Some(other)) => Err(Fail::Usage(format!(
            "what \".{other}\" means is not known; name the file .png or .svg, or give --format"
        ))),
    }
}

fn within(option: &str, pixels: u32) -> Result<u32, Fail> {
    if (SMALLEST..=LARGEST).contains(&pixels) {
        return Ok(pixels);
    }
    Err(Fail::Usage(format!(
        "{option} {pixels} is out of range; {SMALLEST} to {LARGEST} pixels are allowed"
    )))
}

/// The label of a duration on an axis, ns: `0`, `250 µs`, `20 ms`, `1.5 s`.
fn delay_mark(ns: f64) -> String {
    let (value, unit) = match ns {
        v if v < 0.5 => return "0".into(),
        v if v < 999.5 => (v, "ns"),
        v if v < 999_500.0 => (v / 1e3, "µs"),
        v if v < 999_500_000.0 => (v / 1e6, "ms"),
        v => (v / 1e9, "s"),
    };
    // As many digits as it has.
    let mut text = format!("{value:.3}");
    text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    format!("{text} {unit}")
}

/// Fills from one edge to another, column by column: nothing is made up between them.
fn band(
    scene: &mut Scene,
    plot: &Plot,
    run: &[Column],
    edges: impl Fn(&Column) -> (f64, f64),
    color: theme::Rgb,
) {
    let (mut low, mut high) = (Vec::new(), Vec::new());
    for c in run {
        let (x0, x1) = (plot.x(c.from_ns), plot.x(c.to_ns));
        let (bottom, top) = edges(c);
        // Never too thin to see.
        let top = top.min(bottom - 0.5);
        low.extend([(x0, bottom), (x1.max(x0 + 1.0), bottom)]);
        high.extend([(x0, top), (x1.max(x0 + 1.0), top)]);
    }
    scene.area(
        high.into_iter().chain(low.into_iter().rev()).collect(),
        color,
    );
}
