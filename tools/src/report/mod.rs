//! `bbtool report`: what the line did, for people and for programs.

mod anonymize;
mod build;
mod cable;
mod compare;
mod cover;
mod echoes;
mod explore;
mod health;
mod hours;
pub(crate) mod html;
mod lines;
mod markdown;
mod model;
mod outages;
mod paths;
mod plug;
mod several;
mod sizes;
#[cfg(test)]
mod testing;
mod text;
mod trains;
mod verdict;
mod way;
mod words;

use std::path::{Path, PathBuf};

#[cfg(feature = "demo")]
use bufferbane_store::Reader;
use jiff::tz::TimeZone;

pub(crate) use build::{events, range_of_events, spread};
pub(crate) use model::{Event, Time};
pub(crate) use paths::looks;
pub(crate) use plug::spells;
pub(crate) use text::event_line;

use crate::args::{Report as Arguments, Selection};
use crate::chart::{self, Kind, Look, Material, Theme};
use crate::fail::Fail;
use crate::when::Range;
use crate::{abreast, out, source, when};
use several::Stores;

/// Columns that the charts of a page have: as fine as a screen shows, and small enough to mail.
const PAGE_COLUMNS: usize = 480;
/// The same where panels stand side by side.
const HALF_COLUMNS: usize = 240;
/// More series than this stand side by side.
const SINGLE_FILE: usize = 4;
/// Columns of charts on a phone.
const PHONE_COLUMNS: usize = 120;

/// How fine the charts of a page are.
fn page_columns(stores: &Stores) -> usize {
    if stores.report.series.len() > SINGLE_FILE {
        HALF_COLUMNS
    } else {
        PAGE_COLUMNS
    }
}
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
    let mut selection = args.selection();
    let now_ns = when::now_ns();
    // A mistake in the times is told before anything is opened.
    let asked = selection.range(now_ns)?;
    let compared = compared(args, &selection, now_ns)?;
    if let (None, Some((a, b))) = (asked, compared) {
        selection.from = Some(when::rfc3339(a.from_ns.min(b.from_ns)));
        selection.to = Some(when::rfc3339(a.to_ns.max(b.to_ns)));
    }
    let reader = source::open(&args.place())?;
    let mut stores = Stores::open(reader, args, &selection, now_ns)?;
    if let Some((before, after)) = compared {
        stores.compare(before, after)?;
    }
    if args.anonymize {
        stores.anonymize();
    }
    let zone = when::zone(selection.utc);
    let text = match format {
        Format::Text => text::render(&stores.report, &zone),
        Format::Markdown => markdown::render(&stores.report, &zone),
        Format::Json => {
            let mut json = serde_json::to_string_pretty(&stores.report)?;
            json.push('\n');
            json
        }
        Format::Html => {
            let material = stores.material(page_columns(&stores))?;
            let phone = stores.material(PHONE_COLUMNS)?;
            let page = html::render(&stores.report, &material, &phone, &zone)?;
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

/// The two ranges of `--compare`.
fn compared(
    args: &Arguments,
    selection: &Selection,
    now_ns: i64,
) -> Result<Option<(Range, Range)>, Fail> {
    let typed: Vec<&String> = args.compare.iter().chain(&args.against).collect();
    if typed.is_empty() {
        return Ok(None);
    }
    let wrong = || {
        Fail::Usage(
            "--compare takes two ranges: --compare 2026-05-01..2026-05-08 2026-05-08..2026-05-15"
                .into(),
        )
    };
    let ([before, after], false) = (typed.as_slice(), args.compare.is_empty()) else {
        return Err(wrong());
    };
    let read = |text: &str| {
        let (from, to) = text.split_once("..").ok_or_else(wrong)?;
        let part = Selection {
            from: Some(from.to_owned()),
            to: Some(to.to_owned()),
            utc: selection.utc,
            ..Selection::default()
        };
        part.range(now_ns)?.ok_or_else(wrong)
    };
    Ok(Some((read(before)?, read(after)?)))
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|p| format!("{}\n", p.display())).collect()
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
    let images = abreast::map_heavy(&Kind::ALL, |kind| {
        let Some(scene) = kind.draw(material, &look)? else {
            return Ok(None);
        };
        let height = (scene.height * f64::from(IMAGE_WIDTH) / scene.width).round();
        let image = chart::png(&scene, IMAGE_WIDTH, height as u32)?;
        let path = dir.join(format!("{}.png", kind.name()));
        out::write(Some(&path), &image)?;
        Ok(Some(path))
    })?;
    files.extend(images.into_iter().flatten());
    Ok(files)
}

/// What a finished measurement leaves behind.
#[cfg(feature = "demo")]
#[derive(Debug)]
pub(crate) struct Bundle {
    /// The page, then the images of its charts.
    pub(crate) files: Vec<PathBuf>,
    /// The report as text.
    pub(crate) text: String,
}

/// Reports everything in the store at `store`, which no daemon writes any more, into `dir`.
#[cfg(feature = "demo")]
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
    let stores = Stores::of(reader, &selection, when::now_ns())?;
    let zone = when::zone(false);
    let material = stores.material(page_columns(&stores))?;
    let phone = stores.material(PHONE_COLUMNS)?;
    let page = html::render(&stores.report, &material, &phone, &zone)?;
    Ok(Bundle {
        files: write_bundle(dir, &page, &material, &zone)?,
        text: text::render(&stores.report, &zone),
    })
}
