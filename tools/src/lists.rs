//! `bbtool events`, `status` and `targets`.

mod status;

use std::time::Duration;

use bufferbane_store::{Reader, SeriesInfo};
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::args::{Events, Targets};
use crate::control::{self, ControlError};
use crate::fail::Fail;
use crate::show::{clean, stretch, table};
use crate::{out, report, source, when};

pub(crate) use status::status;

/// How long the daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// `bbtool events`.
pub(crate) fn events(args: &Events) -> Result<(), Fail> {
    let selection = args.selection();
    selection.range(when::now_ns())?;
    let reader = source::open(&args.place())?;
    let range = report::range_of_events(&selection, &reader, when::now_ns())?;
    let events = report::events(&reader, &selection, range)?;
    if args.json {
        return out::print_json(&events);
    }
    if events.is_empty() {
        return out::print("no events\n");
    }
    let zone = when::zone(selection.utc);
    let mut text = String::new();
    for e in &events {
        text.push_str(report::event_line(e, &zone).trim_start());
        text.push('\n');
        for look in report::looks(e, &zone) {
            text.push_str(&format!("  {look}\n"));
        }
    }
    out::print(&text.replace('\u{a0}', " "))
}

/// `bbtool targets`.
pub(crate) fn targets(args: &Targets) -> Result<(), Fail> {
    let place = args.place();
    let running = match control::ask(&place.socket, "targets", PATIENCE) {
        Ok(answer) => answer["targets"].as_array().cloned(),
        Err(ControlError::Absent) => None,
        Err(e) => {
            out::warn(&format!("what is probed now is not known: {e}"));
            None
        }
    };
    let reader = source::open(&place)?;
    let listed = Listed::of(&reader, running.as_deref())?;
    if listed.0.is_empty() {
        return Err(Fail::NoData("nothing has been recorded yet".into()));
    }
    if args.json {
        return out::print_json(&listed.json());
    }
    let text = listed.text(&when::zone(args.utc));
    out::print(&text.replace('\u{a0}', " "))
}

/// A series in a list.
struct Item {
    info: SeriesInfo,
    /// When its first and last sample were sent, ns since 1970.
    extent: Option<(i64, i64)>,
    /// Whether it is probed now, where that is known.
    probed: Option<bool>,
}

/// All series of a store, in the order people read them.
struct Listed(Vec<Item>);

impl Listed {
    /// What `reader` has, of which the daemon probes those in `running`.
    fn of(reader: &Reader, running: Option<&[Value]>) -> Result<Self, Fail> {
        let is = |t: &Value, info: &SeriesInfo| {
            t["interface"] == info.interface.as_str()
                && t["target"] == info.target.as_str()
                && t["kind"] == info.kind.as_str()
                && t["family"] == info.family
                && t["address"] == info.address.as_str()
                && t["interval_ns"] == info.interval_ns
        };
        let mut all = Vec::new();
        for (id, info) in source::sorted(reader.series()?) {
            let extent = reader.extent(id, i64::MIN, i64::MAX)?;
            let probed = running.map(|all| all.iter().any(|t| is(t, &info)));
            all.push(Item {
                info,
                extent,
                probed,
            });
        }
        Ok(Self(all))
    }

    fn json(&self) -> Vec<Value> {
        let one = |item: &Item| {
            let (info, extent) = (&item.info, item.extent);
            json!({
                "interface": info.interface,
                "interface_kind": info.interface_kind,
                "target": info.target,
                "kind": info.kind.as_str(),
                "family": info.family,
                "address": info.address,
                "dscp": info.dscp,
                "size": info.size,
                "interval_ns": info.interval_ns,
                "first": extent.map(|e| when::rfc3339(e.0)),
                "last": extent.map(|e| when::rfc3339(e.1)),
                "probed_now": item.probed,
            })
        };
        self.0.iter().map(one).collect()
    }

    fn text(&self, zone: &TimeZone) -> String {
        let mut rows = Vec::new();
        for Item {
            info,
            extent,
            probed,
        } in &self.0
        {
            let time = |t: Option<i64>| t.map_or_else(|| "–".into(), |t| when::civil(t, zone));
            rows.push(vec![
                clean(&info.interface),
                clean(&info.target),
                format!("{}{}", info.kind.as_str(), info.family),
                clean(&info.address),
                match probed {
                    Some(true) => "yes".into(),
                    Some(false) => "no".into(),
                    None => "–".into(),
                },
                stretch(info.interval_ns),
                time(extent.map(|e| e.0)),
                time(extent.map(|e| e.1)),
            ]);
        }
        let headings = [
            "over", "to", "by", "address", "probed", "every", "first", "last",
        ];
        table(&headings, &rows, 5)
    }
}
