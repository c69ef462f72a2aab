//! `bbtool report`: what the line did, for people and for programs.

mod build;
pub(crate) mod html;
mod markdown;
mod model;
mod text;
mod verdict;
mod words;

use std::path::{Path, PathBuf};

use bufferbane_store::Reader;
use jiff::tz::TimeZone;

pub(crate) use build::{Built, build, events, range_of_events, spread};
pub(crate) use model::{Event, Time};
pub(crate) use text::event_line;

use crate::args::{Report as Arguments, Selection};
use crate::chart::{self, Kind, Look, Material, Theme};
use crate::fail::Fail;
use crate::{out, source, when};

/// Columns that the charts of a page have: finer than a screen shows, and small enough to mail.
const PAGE_COLUMNS: usize = 480;
/// Width of the images beside a page, pixels.
const IMAGE_WIDTH: u32 = 1600;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    Html,
    Markdown,
    Json,
}

/// `bbtool report`.
pub(crate) fn run(args: &Arguments) -> Result<(), Fail> {
    let format = format(args)?;
    let selection = args.selection();
    // A mistake in the times is told before anything is opened.
    selection.range(when::now_ns())?;
    let reader = source::open(&args.place())?;
    let built = build(&reader, &selection, when::now_ns())?;
    let zone = when::zone(selection.utc);
    let text = match format {
        Format::Text => text::render(&built.report, &zone),
        Format::Markdown => markdown::render(&built.report, &zone),
        Format::Json => {
            let mut json = serde_json::to_string_pretty(&built.report)?;
            json.push('\n');
            json
        }
        Format::Html => {
            let material = material(&reader, &built)?;
            let page = html::render(&built, &material, &zone)?;
            if let Some(dir) = args.out.as_deref().filter(|p| p.is_dir()) {
                let written = write_bundle(dir, &page, &material, &zone)?;
                return out::print(&list(&written));
            }
            if args.out.is_none() && out::is_terminal() {
                // Nobody wants a page's source in their terminal.
                let path = Path::new("report.html");
                out::write(Some(path), page.as_bytes())?;
                return out::print(&list(&[path.to_owned()]));
            }
            page
        }
    };
    out::write(args.out.as_deref(), text.as_bytes())
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|p| format!("{}\n", p.display())).collect()
}

fn material(reader: &Reader, built: &Built) -> Result<Material, Fail> {
    let events = built.report.events.clone();
    chart::material(reader, &built.series, events, built.range, PAGE_COLUMNS)
}

fn format(args: &Arguments) -> Result<Format, Fail> {
    if args.json {
        return match args.format.as_deref() {
            None | Some("json") => Ok(Format::Json),
            Some(other) => Err(Fail::Usage(format!(
                "--json and --format {other} contradict each other"
            ))),
        };
    }
    let extension = args.out.as_deref().and_then(Path::extension);
    let by_name = extension.and_then(|e| e.to_str());
    match args.format.as_deref().or(by_name) {
        Some("text" | "txt") => Ok(Format::Text),
        Some("html" | "htm") => Ok(Format::Html),
        Some("md" | "markdown") => Ok(Format::Markdown),
        Some("json") => Ok(Format::Json),
        None if args.out.as_deref().is_some_and(Path::is_dir) => Ok(Format::Html),
        None => Ok(Format::Text),
        Some(other) => Err(Fail::Usage(format!(
            "\"{other}\" is no format of a report; text, html, md or json"
        ))),
    }
}

/// Writes the page and each of its charts as an image into `dir`. Gives the files, the page first.
fn write_bundle(
    dir: &Path,
    page: &str,
    material: &Material,
    zone: &TimeZone,
) -> Result<Vec<PathBuf>, Fail> {
    let mut files = vec![dir.join("report.html")];
    out::write(Some(&files[0]), page.as_bytes())?;
    let look = Look {
        width: html::WIDE,
        height: None,
        theme: Theme::LIGHT,
        zone: zone.clone(),
    };
    for kind in Kind::ALL {
        let Some(scene) = kind.draw(material, &look)? else {
            continue;
        };
        let height = (scene.height * f64::from(IMAGE_WIDTH) / scene.width).round();
        let image = chart::png(&scene, IMAGE_WIDTH, height as u32)?;
        let path = dir.join(format!("{}.png", kind.name()));
        out::write(Some(&path), &image)?;
        files.push(path);
    }
    Ok(files)
}

/// What a finished measurement leaves behind.
#[cfg_attr(
    not(feature = "demo"),
    allow(dead_code, reason = "only a demonstration asks for all at once")
)]
#[derive(Debug)]
pub(crate) struct Bundle {
    /// The page, then the images of its charts.
    pub(crate) files: Vec<PathBuf>,
    /// The report as text.
    pub(crate) text: String,
}

/// Reports everything in the store at `store`, which no daemon writes any more, into `dir`.
#[cfg_attr(
    not(feature = "demo"),
    allow(dead_code, reason = "only a demonstration asks for all at once")
)]
pub(crate) fn bundle(store: &Path, dir: &Path) -> Result<Bundle, Fail> {
    std::fs::create_dir_all(dir).map_err(|e| Fail::of(dir.display(), e))?;
    let reader = Reader::open(store)?;
    let (from_ns, to_ns) = source::recorded(&reader)?;
    // Typed ends are kept as they are.
    let selection = Selection {
        from: Some(when::rfc3339(from_ns)),
        to: Some(when::rfc3339(to_ns)),
        ..Selection::default()
    };
    let built = build(&reader, &selection, when::now_ns())?;
    let zone = when::zone(false);
    let material = material(&reader, &built)?;
    let page = html::render(&built, &material, &zone)?;
    Ok(Bundle {
        files: write_bundle(dir, &page, &material, &zone)?,
        text: text::render(&built.report, &zone),
    })
}
