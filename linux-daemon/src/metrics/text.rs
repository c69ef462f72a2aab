//! Families of metrics as text: OpenMetrics 1.0, or the format of Prometheus before it.

use std::fmt::{Display, Write};

use super::buckets::Buckets;
use super::sink::{Kind, Label, Number, Sink, unit_of};

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' text format 0.0.4, for those who do not ask for the other.
    Prometheus,
}

impl Format {
    /// The one for somebody who sent this `Accept` header: what OpenMetrics says of who may get it.
    pub(crate) fn accepted(accept: Option<&str>) -> Self {
        let takes = accept.unwrap_or("").split(',').any(|kind| {
            let mut parts = kind.split(';').map(str::trim);
            let is_it = parts
                .next()
                .is_some_and(|k| k.eq_ignore_ascii_case("application/openmetrics-text"));
            let refused = |p: &str| {
                p.strip_prefix("q=")
                    .is_some_and(|q| q.parse() == Ok(0.0_f32))
            };
            is_it && !parts.any(refused)
        });
        if takes {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// What it is called in a `Content-Type` header.
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// What is written so far.
#[derive(Debug)]
pub(super) struct Text {
    format: Format,
    out: String,
    family: &'static str,
    kind: Kind,
}

impl Text {
    pub(super) const fn new(format: Format) -> Self {
        Self {
            format,
            out: String::new(),
            family: "",
            kind: Kind::Gauge,
        }
    }

    /// One line of the present family.
    fn sample(&mut self, suffix: &str, labels: &[Label<'_>], value: impl Display) {
        self.out.push_str(self.family);
        self.out.push_str(suffix);
        let mut before = '{';
        for (name, value) in labels {
            self.out.push(before);
            self.out.push_str(name);
            self.out.push_str("=\"");
            for c in value.to_string().chars() {
                match c {
                    '\\' => self.out.push_str("\\\\"),
                    '"' => self.out.push_str("\\\""),
                    '\n' => self.out.push_str("\\n"),
                    c => self.out.push(c),
                }
            }
            self.out.push('"');
            before = ',';
        }
        if !labels.is_empty() {
            self.out.push('}');
        }
        self.line(format_args!(" {value}"));
    }

    fn line(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to memory does not fail.
        let _ = writeln!(self.out, "{text}");
    }

    /// All of it.
    pub(super) fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.out.push_str("# EOF\n");
        }
        self.out
    }
}

impl Sink for Text {
    fn family(&mut self, name: &'static str, kind: Kind, help: &'static str) {
        (self.family, self.kind) = (name, kind);
        let (shown, unit) = match self.format {
            Format::OpenMetrics => ("", unit_of(name)),
            // There a counter is called as its sample is.
            Format::Prometheus if kind == Kind::Counter => ("_total", None),
            Format::Prometheus => ("", None),
        };
        self.line(format_args!("# TYPE {name}{shown} {}", kind.as_str()));
        if let Some(unit) = unit {
            self.line(format_args!("# UNIT {name} {unit}"));
        }
        self.line(format_args!("# HELP {name}{shown} {help}"));
    }

    fn value(&mut self, labels: &[Label<'_>], value: impl Into<Number>) {
        let suffix = if self.kind == Kind::Counter {
            "_total"
        } else {
            ""
        };
        self.sample(suffix, labels, value.into());
    }

    fn histogram(&mut self, labels: &[Label<'_>], buckets: &Buckets) {
        for (edge, n) in buckets.cumulative_s() {
            let mut all = labels.to_vec();
            all.push(("le", &edge));
            self.sample("_bucket", &all, n);
        }
        self.sample("_sum", labels, buckets.sum_s());
        self.sample("_count", labels, buckets.count());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_goes_to_those_who_ask_for_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0,\
                          application/openmetrics-text;version=0.0.1;q=0.75,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for takes in [prometheus, "text/plain, Application/OpenMetrics-Text ; q=1"] {
            assert_eq!(Format::accepted(Some(takes)), Format::OpenMetrics);
        }
        for other in [
            None,
            Some("*/*"),
            Some("text/plain;version=0.0.4"),
            Some("application/openmetrics-text; q=0, text/plain"),
        ] {
            assert_eq!(Format::accepted(other), Format::Prometheus, "{other:?}");
        }
    }

    #[test]
    fn each_format_has_its_own_words() {
        let write = |format| {
            let mut t = Text::new(format);
            t.family("a_seconds", Kind::Counter, "Time.");
            t.value(&[("name", &"a \"b\"\\\n"), ("n", &5)], 1.5);
            t.family("b", Kind::Gauge, "Things.");
            t.value(&[], 7_u64);
            t.finish()
        };
        assert_eq!(
            write(Format::OpenMetrics),
            "# TYPE a_seconds counter\n# UNIT a_seconds seconds\n# HELP a_seconds Time.\n\
             a_seconds_total{name=\"a \\\"b\\\"\\\\\\n\",n=\"5\"} 1.5\n\
             # TYPE b gauge\n# HELP b Things.\nb 7\n# EOF\n"
        );
        assert_eq!(
            write(Format::Prometheus),
            "# TYPE a_seconds_total counter\n# HELP a_seconds_total Time.\n\
             a_seconds_total{name=\"a \\\"b\\\"\\\\\\n\",n=\"5\"} 1.5\n\
             # TYPE b gauge\n# HELP b Things.\nb 7\n"
        );
    }
}
