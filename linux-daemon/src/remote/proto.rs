//! The messages: `io.prometheus.write.v2.Request` of remote-write 2.0, and `prometheus.WriteRequest`
//! of 1.0. Fields that are not used here are left out; numbers are those of the specifications.
//!
//! Batches are kept as the first, which has all that the second needs.

use prost::Message;

/// What kind of metric a series belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(super) enum MetricType {
    /// Not told.
    Unspecified = 0,
    Counter = 1,
    Gauge = 2,
    Histogram = 3,
}

/// The value of a series at a time.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Sample {
    #[prost(double, tag = "1")]
    pub(super) value: f64,
    /// ms since 1970.
    #[prost(int64, tag = "2")]
    pub(super) timestamp_ms: i64,
}

/// A run of buckets.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct BucketSpan {
    /// From the end of the run before, or from bucket 0.
    #[prost(sint32, tag = "1")]
    pub(super) offset: i32,
    #[prost(uint32, tag = "2")]
    pub(super) length: u32,
}

/// A native histogram of whole counts, the same in both versions.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Histogram {
    // These two are one-of with others, so that zeros are written, too.
    #[prost(uint64, optional, tag = "1")]
    pub(super) count: Option<u64>,
    #[prost(double, tag = "3")]
    pub(super) sum: f64,
    #[prost(sint32, tag = "4")]
    pub(super) schema: i32,
    #[prost(double, tag = "5")]
    pub(super) zero_threshold: f64,
    #[prost(uint64, optional, tag = "6")]
    pub(super) zero_count: Option<u64>,
    #[prost(message, repeated, tag = "11")]
    pub(super) positive_spans: Vec<BucketSpan>,
    /// Each bucket's count less that of the one before.
    #[prost(sint64, repeated, tag = "12")]
    pub(super) positive_deltas: Vec<i64>,
    /// ms since 1970.
    #[prost(int64, tag = "15")]
    pub(super) timestamp_ms: i64,
}

/// Messages of 2.0.
pub(super) mod v2 {
    use super::{Histogram, Message, MetricType, Sample};

    /// What there is to say of a metric; texts are places in [`Request::symbols`].
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
    pub(in super::super) struct Metadata {
        #[prost(enumeration = "MetricType", tag = "1")]
        pub(in super::super) kind: i32,
        #[prost(uint32, tag = "3")]
        pub(in super::super) help: u32,
        #[prost(uint32, tag = "4")]
        pub(in super::super) unit: u32,
    }

    /// A series.
    #[derive(Clone, PartialEq, Message)]
    pub(in super::super) struct TimeSeries {
        /// Name and value in turn, sorted by name: places in [`Request::symbols`].
        #[prost(uint32, repeated, tag = "1")]
        pub(in super::super) labels: Vec<u32>,
        #[prost(message, repeated, tag = "2")]
        pub(in super::super) samples: Vec<Sample>,
        #[prost(message, repeated, tag = "3")]
        pub(in super::super) histograms: Vec<Histogram>,
        #[prost(message, optional, tag = "5")]
        pub(in super::super) metadata: Option<Metadata>,
    }

    /// A batch.
    #[derive(Clone, PartialEq, Message)]
    pub(in super::super) struct Request {
        /// Each text once; the first is empty.
        #[prost(string, repeated, tag = "4")]
        pub(in super::super) symbols: Vec<String>,
        #[prost(message, repeated, tag = "5")]
        pub(in super::super) series: Vec<TimeSeries>,
    }
}

/// Messages of 1.0.
pub(super) mod v1 {
    use super::{Histogram, Message, Sample};

    /// A label.
    #[derive(Clone, PartialEq, Eq, Hash, Message)]
    pub(in super::super) struct Label {
        #[prost(string, tag = "1")]
        pub(in super::super) name: String,
        #[prost(string, tag = "2")]
        pub(in super::super) value: String,
    }

    /// A series.
    #[derive(Clone, PartialEq, Message)]
    pub(in super::super) struct TimeSeries {
        #[prost(message, repeated, tag = "1")]
        pub(in super::super) labels: Vec<Label>,
        #[prost(message, repeated, tag = "2")]
        pub(in super::super) samples: Vec<Sample>,
        #[prost(message, repeated, tag = "4")]
        pub(in super::super) histograms: Vec<Histogram>,
    }

    /// A batch.
    #[derive(Clone, PartialEq, Message)]
    pub(in super::super) struct WriteRequest {
        #[prost(message, repeated, tag = "1")]
        pub(in super::super) series: Vec<TimeSeries>,
    }
}

/// The same batch for receivers of 1.0; what kind of metrics they are is not in it.
pub(super) fn to_v1(request: v2::Request) -> v1::WriteRequest {
    let text = |at: &u32| {
        let symbol = request.symbols.get(*at as usize);
        symbol.cloned().unwrap_or_default()
    };
    let label = |pair: &[u32]| v1::Label {
        name: pair.first().map(text).unwrap_or_default(),
        value: pair.get(1).map(text).unwrap_or_default(),
    };
    let series = request.series.iter().map(|s| v1::TimeSeries {
        labels: s.labels.chunks(2).map(label).collect(),
        samples: s.samples.clone(),
        histograms: s.histograms.clone(),
    });
    v1::WriteRequest {
        series: series.collect(),
    }
}
