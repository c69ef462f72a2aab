//! What uplinks carried, in as many columns as there are pixels for, and what they were found able to.

use bufferbane_core::household::Minute;
use bufferbane_store::{Capacity, Reader, StoreError, StoredLoad, Window};

use super::data::Levels;
use crate::when::Range;

/// Columns at least this wide are filled from hours, ns; narrower ones from minutes, or what lies on the
/// border of two would be told in the wrong one.
const COARSE_NS: u64 = 6 * 3_600_000_000_000;

/// One uplink over the range of a chart.
#[derive(Debug)]
pub(crate) struct Line {
    /// Its name.
    pub(crate) interface: String,
    /// Stretches in which its counters were read, in the order of time.
    pub(crate) loads: Vec<Load>,
    /// When something was found out, ns since 1970, and what.
    pub(crate) capacities: Vec<(i64, Capacity)>,
    open: Option<Open>,
}

/// What was carried in a stretch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Begin, ns since 1970.
    pub(crate) from_ns: i64,
    /// End.
    pub(crate) to_ns: i64,
    /// Rates of its seconds up and down, bit/s.
    pub(crate) rate: [Option<Levels>; 2],
}

/// The stretch that is being summed up.
#[derive(Debug)]
struct Open {
    column: u64,
    from_ns: i64,
    to_ns: i64,
    sum: Box<Minute>,
}

impl Line {
    fn new(interface: &str) -> Self {
        Self {
            interface: interface.to_owned(),
            loads: Vec::new(),
            capacities: Vec::new(),
            open: None,
        }
    }

    fn add(&mut self, column: u64, load: StoredLoad<'_>) -> Result<(), StoreError> {
        if self.open.as_ref().is_some_and(|o| o.column != column) {
            self.close();
        }
        let open = self.open.get_or_insert_with(|| Open {
            column,
            from_ns: load.from_ns,
            to_ns: load.to_ns,
            sum: Box::default(),
        });
        open.to_ns = open.to_ns.max(load.to_ns);
        load.add_to(&mut open.sum)
    }

    fn close(&mut self) {
        if let Some(o) = self.open.take() {
            self.loads.push(Load {
                from_ns: o.from_ns,
                to_ns: o.to_ns,
                rate: [&o.sum.up, &o.sum.down].map(|way| Levels::of(&way.rate_bps)),
            });
        }
    }
}

/// Reads the uplinks of which `is_wanted`, for `pixels` across.
pub(crate) fn read(
    reader: &Reader,
    range: Range,
    pixels: usize,
    is_wanted: impl Fn(&str) -> bool,
) -> Result<Vec<Line>, StoreError> {
    let mut lines: Vec<Line> = Vec::new();
    let wide = (range.to_ns.abs_diff(range.from_ns) / pixels.max(1) as u64).max(1);
    let window = if wide < COARSE_NS {
        Window::Minute
    } else {
        Window::Hour
    };
    reader.load(window, range.from_ns, range.to_ns, |interface, load| {
        let column = load.from_ns.abs_diff(range.from_ns) / wide;
        place(&mut lines, interface, &is_wanted).map_or(Ok(()), |line| line.add(column, load))
    })?;
    for (at_ns, capacity) in reader.capacities(range.from_ns, range.to_ns)? {
        if let Some(line) = place(&mut lines, &capacity.interface, &is_wanted) {
            line.capacities.push((at_ns, capacity));
        }
    }
    lines.iter_mut().for_each(Line::close);
    lines.sort_by(|a, b| a.interface.cmp(&b.interface));
    Ok(lines)
}

fn place<'a>(
    lines: &'a mut Vec<Line>,
    interface: &str,
    is_wanted: impl Fn(&str) -> bool,
) -> Option<&'a mut Line> {
    if !is_wanted(interface) {
        return None;
    }
    let at = lines.iter().position(|l| l.interface == interface);
    let at = at.unwrap_or_else(|| {
        lines.push(Line::new(interface));
        lines.len() - 1
    });
    lines.get_mut(at)
}
