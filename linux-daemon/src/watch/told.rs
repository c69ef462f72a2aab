//! What a detector tells, as an event of the store, and in words for people.

use std::collections::BTreeSet;
use std::net::IpAddr;

use bufferbane_core::detect::{
    Direction, Event as Found, Kind, MEASURED_BY, Notice, Role, Severity, Value, WELL_LINE,
};
use bufferbane_core::time::Monotonic;
use bufferbane_store::Event;

use super::{Watched, Watcher};

impl Watcher {
    /// The event of a notice, as the store keeps it.
    pub(crate) fn event(&self, boot: u32, notice: &Notice) -> Event {
        let e = &notice.event;
        let mut targets: Vec<&str> = Vec::new();
        let (mut near, mut near_known, mut house) = (false, false, true);
        let mut families = BTreeSet::new();
        let line = self.lines.name(e.line.into());
        for w in self.series.values() {
            let member = e.series.contains(w.place);
            let is_near = self.is_near(w);
            near_known |= is_near && w.line == e.line;
            near |= is_near && member;
            house &= !member || (w.role == Role::House && !self.watch.is_far(w.place));
            families.extend(member.then_some(w.info.family));
            if member && !targets.contains(&w.info.target.as_str()) {
                targets.push(&w.info.target);
            }
        }
        for w in &self.gone {
            if w.line == e.line && e.series.contains(w.place) {
                families.insert(w.info.family);
                if !targets.contains(&w.info.target.as_str()) {
                    targets.push(&w.info.target);
                }
            }
        }
        targets.sort_unstable();
        let severity = match e.severity {
            Severity::Info => bufferbane_store::Severity::Info,
            Severity::Warning => bufferbane_store::Severity::Warning,
            Severity::Critical => bufferbane_store::Severity::Critical,
        };
        let measured = e.values.iter().find_map(|(name, value)| match *value {
            Value::Number(n) if *name == MEASURED_BY => self.name_of(n),
            _ => None,
        });
        let mut well_line = None;
        for (name, value) in &e.values {
            if let (WELL_LINE, Value::Number(n)) = (*name, *value) {
                well_line = usize::try_from(n).ok().and_then(|n| self.lines.name(n));
            }
        }
        let family = families.first().filter(|_| families.len() == 1).copied();
        let own = line.unwrap_or_default();
        let about = About {
            targets: &targets,
            line: own,
            well_line,
            family,
            measured: measured.as_deref(),
        };
        let text = sentence(notice, &about);
        let mut event = Event::new(e.kind.as_str(), severity, boot, e.start, text);
        event.interface = own.to_owned();
        // What is of the line is of no target, whoever of them tells it.
        if let [only] = targets[..]
            && !(is_of_line(e.kind) && self.far_targets(e.line) > 1)
        {
            event.target = Some(only.to_owned());
        }
        event.direction = e.direction.map(|d| match d {
            Direction::Up => bufferbane_store::Direction::Up,
            Direction::Down => bufferbane_store::Direction::Down,
            Direction::Both => bufferbane_store::Direction::Both,
        });
        event.end_ns = e.end.map(Monotonic::as_nanos);
        for (name, value) in e
            .values
            .iter()
            .filter(|(name, _)| ![WELL_LINE, MEASURED_BY].contains(name))
        {
            let value = match *value {
                Value::Number(n) => n.into(),
                Value::Ratio(r) => r.into(),
                Value::Word(w) => w.into(),
            };
            event.values.insert((*name).to_owned(), value);
        }
        if house && !targets.is_empty() {
            event.values.insert("house".into(), true.into());
        }
        event.values.insert("targets".into(), targets.into());
        if let Some(measured) = measured {
            event.values.insert("measured_to".into(), measured.into());
        }
        if let (Some(family), Kind::MtuBlackHole | Kind::FamilyDiffers) = (family, e.kind) {
            event.values.insert("family".into(), family.into());
        }
        if let Some(well) = well_line {
            event.values.insert("well_interface".into(), well.into());
            let same = self.have_one_gateway([own, well]);
            event.values.insert("same_gateway".into(), same.into());
            for (name, interface) in [("interface_kind", own), ("well_interface_kind", well)] {
                let mut kinds = self.series.values().map(|w| &w.info);
                if let Some(info) = kinds.find(|i| i.interface == interface) {
                    let kind = info.interface_kind.as_str();
                    event.values.insert(name.into(), kind.into());
                }
            }
        }
        if near_known {
            event.values.insert("near".into(), near.into());
        }
        if let Some(class) = self.loads.class(e) {
            event.values.insert("class".into(), class.into());
        }
        event
    }
}

impl Watcher {
    /// How many targets beyond the access line are watched through a line.
    fn far_targets(&self, line: u8) -> usize {
        let far = self
            .series
            .values()
            .filter(|w| w.line == line && w.role == Role::Far);
        let names: BTreeSet<&str> = far.map(|w| w.info.target.as_str()).collect();
        names.len()
    }

    /// Target of the series at this place, and its family where others go there, too.
    fn name_of(&self, place: u64) -> Option<String> {
        let of = |w: &&Watched| u64::from(w.place) == place;
        let w = self.series.values().chain(&self.gone).find(of)?;
        let twin = |o: &Watched| {
            o.line == w.line && o.info.target == w.info.target && o.info.family != w.info.family
        };
        Some(if self.series.values().any(twin) {
            format!("{} over IPv{}", w.info.target, w.info.family)
        } else {
            w.info.target.clone()
        })
    }

    /// Whether a series is to the gateway, or to what else is passed on the way out before the access line.
    fn is_near(&self, w: &Watched) -> bool {
        matches!(w.role, Role::Gateway { .. } | Role::Modem) && !self.watch.is_far(w.place)
    }

    /// Whether both interfaces lead to one router. The link-local addresses of many are the same.
    fn have_one_gateway(&self, interfaces: [&str; 2]) -> bool {
        let [a, b] = interfaces.map(|interface| {
            let own = self.next_hops.iter().filter(move |(i, _)| i == interface);
            own.map(|(_, hop)| *hop).collect::<BTreeSet<IpAddr>>()
        });
        let is_own = |ip: &IpAddr| !matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
        a.intersection(&b).any(is_own)
    }
}

/// Whether an event of this kind is of the line, whoever shows it.
const fn is_of_line(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Outage
            | Kind::MicroOutage
            | Kind::Bufferbloat
            | Kind::UploadDegraded
            | Kind::DownloadDegraded
    )
}

/// A stretch of time of a detector's windows.
fn within(ns: u64) -> String {
    match ns / 1_000_000_000 {
        s @ 0..=60 => format!("{s} s"),
        s => format!("{} min", s.div_ceil(60)),
    }
}

/// Whom an event is about.
struct About<'a> {
    /// The targets that show it.
    targets: &'a [&'a str],
    /// The interface, and another one that is well, where they are held against each other.
    line: &'a str,
    well_line: Option<&'a str>,
    /// That of all of its series, where it is one.
    family: Option<u8>,
    /// The series that its figures are of, where they are of one alone.
    measured: Option<&'a str>,
}

/// What is bad of `whom`, and of `others` not: by what they suffer from.
fn differs(whom: &str, others: &str, e: &Found) -> String {
    let get = |name: &str| e.values.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
    let percent = |name: &str| match get(name) {
        Some(Value::Ratio(r)) => Some(100.0 * r),
        _ => None,
    };
    let ms = |name: &str| match get(name) {
        Some(Value::Number(ns)) => Some(ns as f64 / 1e6),
        _ => None,
    };
    let slow = (get("trouble") == Some(Value::Word("delay"))).then_some(());
    let excess = slow.and_then(|()| ms("excess_ns").zip(ms("excess_of_others_ns")));
    let varied = slow.and_then(|()| percent("varied").zip(percent("varied_of_others")));
    if let Some((mine, theirs)) = excess {
        return format!(
            "probes {whom} took {mine:.0} ms longer than usual, and those {others} {theirs:.0} ms at the same moments"
        );
    }
    if let Some((mine, theirs)) = varied {
        return format!(
            "of neighbouring probes {whom} {mine:.0} % differed much, and of those {others} {theirs:.0} % at the same \
             moments"
        );
    }
    match (get("trouble"), percent("loss"), percent("loss_of_others")) {
        (Some(Value::Word("dead")), ..) => {
            format!("no probe {whom} was answered, while those {others} were at the same moments")
        }
        (_, Some(mine), Some(theirs)) => format!(
            "{mine:.1} % of the probes {whom} were lost, and {theirs:.1} % of those {others} at the same moments"
        ),
        _ => format!(
            "probes {whom} took longer than usual, or varied more, while those {others} were well at the same moments"
        ),
    }
}

/// What happened, for people.
fn sentence(notice: &Notice, about: &About<'_>) -> String {
    let e = &notice.event;
    let get = |name: &str| e.values.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
    let number = |name| match get(name) {
        Some(Value::Number(n)) => n,
        _ => 0,
    };
    let ratio = |name| match get(name) {
        Some(Value::Ratio(r)) => r,
        _ => 0.0,
    };
    let ms = |name| number(name) as f64 / 1e6;
    let way = match e.direction {
        Some(Direction::Up) => " on the way up",
        Some(Direction::Down) => " on the way down",
        Some(Direction::Both) => " both ways",
        None => "",
    };
    let whom = about.targets.join(", ");
    let lasted_s = e.end.map(|end| end.saturating_since(e.start) as f64 / 1e9);
    match e.kind {
        Kind::LatencySpike => format!(
            "delay to {whom} was {:.0} ms above its usual {:.0} ms{way}",
            ms("excess_ns"),
            ms("baseline_ns")
        ),
        Kind::HighJitter => {
            let p95_ns = number("p95_ns").max(number("p95_above_ns"));
            format!(
                "delay to {whom} varies{way}: more than one in twenty neighbouring probes differ by over \
                 {:.0} ms",
                p95_ns as f64 / 1e6
            )
        }
        Kind::PacketLoss => {
            let loss = format!(
                "{:.1} % of the probes to {} were lost{way} within {}, surely more than {:.1} %",
                100.0 * ratio("loss"),
                about.measured.unwrap_or(&whom),
                within(number("within_ns")),
                100.0 * ratio("at_least")
            );
            let others = about.targets.len() - usize::from(about.measured.is_some());
            match about.measured {
                Some(_) if others > 0 => format!("{loss}; seen to {whom}"),
                _ => loss,
            }
        }
        Kind::LossBurst => match about.targets {
            [_] => format!(
                "{} probes to {whom} were lost in a row{way}",
                number("lost")
            ),
            _ => format!(
                "probes to {whom} were lost in a row{way}, {} to one of them",
                number("lost")
            ),
        },
        Kind::PeriodicLoss => format!(
            "loss or delay to {whom} comes back every {:.2} s{way}",
            number("period_ns") as f64 / 1e9
        ),
        Kind::MicroOutage | Kind::Outage => {
            let lasted = lasted_s.map_or_else(String::new, |s| format!(" for {s:.2} s"));
            match (number("far_targets"), number("targets_lost")) {
                (1, _) => format!("no answer{lasted} from {whom}, the only far target"),
                // The others have their turn before and after it.
                (_, 1) => format!(
                    "no answer{lasted} from {whom}, the only far target that was asked meanwhile"
                ),
                _ => format!("no answer from anywhere{lasted}"),
            }
        }
        Kind::Bufferbloat => format!(
            "delay rose from {:.0} to {:.0} ms{way} under load",
            ms("idle_ns"),
            ms("loaded_ns")
        ),
        Kind::RoutingFault => differs(&format!("to {whom}"), "to others", e),
        Kind::InterfaceDiffers => {
            let other = about.well_line.unwrap_or("another interface");
            differs(
                &format!("through {}", about.line),
                &format!("through {other}"),
                e,
            )
        }
        Kind::FamilyDiffers => match about.family {
            Some(6) => differs("over IPv6", "over IPv4", e),
            _ => differs("over IPv4", "over IPv6", e),
        },
        Kind::MtuBlackHole => format!("large packets to {whom} vanish while small ones pass"),
        Kind::RouteChange => {
            let several = about.targets.len() > 1;
            let changed = if several {
                format!("replies from {whom} arrive with another TTL than before")
            } else {
                format!(
                    "replies from {whom} arrive with TTL {} instead of {}",
                    number("ttl_after"),
                    number("ttl_before")
                )
            };
            match number("changes") {
                n if n > about.targets.len().max(1) as u64 => format!("{changed} ({n} changes)"),
                _ => changed,
            }
        }
        Kind::PeakHourCongestion => format!(
            "evenings are slow, {} days in a row: {:.0} ms to {whom} instead of {:.0} ms at night{way}",
            number("days"),
            ms("evening_ns"),
            ms("night_ns")
        ),
        Kind::UploadDegraded | Kind::DownloadDegraded => {
            let mbit = |name| number(name) as f64 / 1e6;
            let other = match (get("other_bps"), get("other_baseline_bps")) {
                (Some(_), Some(_)) => format!(
                    "; the other way {:.1} Mbit/s, usually {:.1}",
                    mbit("other_bps"),
                    mbit("other_baseline_bps")
                ),
                _ => String::new(),
            };
            format!(
                "the line carries {:.1} Mbit/s{way} instead of {:.1}{other}",
                mbit("measured_bps"),
                mbit("baseline_bps")
            )
        }
        // The recorder has words of its own for what services do.
        Kind::DnsSlow | Kind::DnsFailing | Kind::TcpUnstable => format!("{whom} is in trouble"),
    }
}
