//! What the daemon counts, as a batch.

use std::collections::HashMap;

use prost::Message;

use super::config::Setup;
use super::proto::{BucketSpan, Histogram, MetricType, Sample, v2};
use crate::metrics::{Buckets, Kind, Label, Number, SCHEMA, Sink, unit_of};

/// Below this a value counts as 0 in a native histogram, by custom; ours are 0 or at least 1e-9.
const ZERO_THRESHOLD: f64 = 2.938_735_877_055_719e-39;

/// A batch, as it waits and as receivers of 2.0 take it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    /// When its samples are from, ms since 1970.
    pub(super) at_ms: i64,
    /// How many samples and native histograms there are.
    pub(super) samples: u32,
    /// A [`v2::Request`], compressed by snappy.
    pub(super) body: Vec<u8>,
}

/// See the module.
pub(super) struct Gather<'a> {
    setup: &'a Setup,
    at_ms: i64,
    request: v2::Request,
    places: HashMap<String, u32>,
    family: &'static str,
    metadata: v2::Metadata,
    counter: bool,
}

impl<'a> Gather<'a> {
    /// Nothing yet of `at_ms`.
    pub(super) fn new(setup: &'a Setup, at_ms: i64) -> Self {
        let mut gather = Self {
            setup,
            at_ms,
            request: v2::Request::default(),
            places: HashMap::new(),
            family: "",
            metadata: v2::Metadata::default(),
            counter: false,
        };
        gather.place("");
        gather
    }

    fn place(&mut self, text: &str) -> u32 {
        if let Some(place) = self.places.get(text) {
            return *place;
        }
        let place = self.request.symbols.len() as u32;
        self.request.symbols.push(text.to_owned());
        self.places.insert(text.to_owned(), place);
        place
    }

    /// A series of the present family.
    fn series(&mut self, suffix: &str, labels: &[Label<'_>]) -> v2::TimeSeries {
        let mut all = vec![("__name__".to_owned(), format!("{}{suffix}", self.family))];
        all.extend(self.setup.labels.iter().cloned());
        all.extend(labels.iter().map(|(n, v)| ((*n).to_owned(), v.to_string())));
        // An empty one is the same as none.
        all.retain(|(_, value)| !value.is_empty());
        all.sort();
        v2::TimeSeries {
            labels: all
                .iter()
                .flat_map(|(n, v)| [self.place(n), self.place(v)])
                .collect(),
            metadata: Some(self.metadata),
            ..v2::TimeSeries::default()
        }
    }

    fn sample(&mut self, suffix: &str, labels: &[Label<'_>], value: f64) {
        let mut series = self.series(suffix, labels);
        series.samples.push(Sample {
            value,
            timestamp_ms: self.at_ms,
        });
        self.request.series.push(series);
    }

    /// All of it.
    pub(super) fn finish(self) -> std::io::Result<Batch> {
        let body = compress(&self.request.encode_to_vec())?;
        Ok(Batch {
            at_ms: self.at_ms,
            samples: self.request.series.len() as u32,
            body,
        })
    }
}

/// By snappy's block format, as both versions want it.
pub(super) fn compress(message: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = snap::raw::Encoder::new();
    encoder.compress_vec(message).map_err(std::io::Error::other)
}

impl Sink for Gather<'_> {
    fn family(&mut self, name: &'static str, kind: Kind, help: &'static str) {
        self.family = name;
        self.counter = kind == Kind::Counter;
        let kind = match kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Histogram => MetricType::Histogram,
        };
        self.metadata = v2::Metadata {
            kind: kind.into(),
            help: self.place(help),
            unit: self.place(unit_of(name).unwrap_or_default()),
        };
    }

    fn value(&mut self, labels: &[Label<'_>], value: impl Into<Number>) {
        let suffix = if self.counter { "_total" } else { "" };
        self.sample(suffix, labels, value.into().as_f64());
    }

    fn histogram(&mut self, labels: &[Label<'_>], buckets: &Buckets) {
        if self.setup.histograms.classic() {
            for (edge, n) in buckets.cumulative_s() {
                let mut all = labels.to_vec();
                all.push(("le", &edge));
                self.sample("_bucket", &all, n as f64);
            }
            self.sample("_sum", labels, buckets.sum_s());
            self.sample("_count", labels, buckets.count() as f64);
        }
        if self.setup.histograms.native() {
            let mut series = self.series("", labels);
            series.histograms.push(native(buckets, self.at_ms));
            self.request.series.push(series);
        }
    }
}

fn native(buckets: &Buckets, at_ms: i64) -> Histogram {
    let mut histogram = Histogram {
        count: Some(buckets.count()),
        sum: buckets.sum_s(),
        schema: SCHEMA,
        zero_threshold: ZERO_THRESHOLD,
        zero_count: Some(buckets.fine().zeros()),
        timestamp_ms: at_ms,
        ..Histogram::default()
    };
    let (mut end, mut before) = (0, 0_i64);
    for (first, counts) in buckets.fine().runs() {
        histogram.positive_spans.push(BucketSpan {
            offset: first - end,
            length: counts.len() as u32,
        });
        end = first + counts.len() as i32;
        for count in counts {
            let count = count.cast_signed();
            histogram.positive_deltas.push(count - before);
            before = count;
        }
    }
    histogram
}
