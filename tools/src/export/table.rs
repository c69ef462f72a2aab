//! Rows under named columns, written as CSV, JSON lines or Parquet.

mod parquet;

use std::io::Write;
use std::path::Path;

use bufferbane_core::time::ClockSource;
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::fail::Fail;
use crate::out;

/// One field of a row.
pub(super) enum Field<'a> {
    /// Not known.
    Empty,
    /// A number that is never negative.
    Unsigned(u64),
    /// Any number.
    Signed(i64),
    /// A text that is there already.
    Text(&'a str),
    /// A text made for the row.
    Owned(String),
    /// The further figures of an event.
    Values(&'a serde_json::Map<String, serde_json::Value>),
}

impl From<serde_json::Value> for Field<'_> {
    fn from(v: serde_json::Value) -> Self {
        match v {
            serde_json::Value::Null => Self::Empty,
            serde_json::Value::String(text) => Self::Owned(text),
            v => match (v.as_u64(), v.as_i64()) {
                (Some(n), _) => Self::Unsigned(n),
                (_, Some(n)) => Self::Signed(n),
                _ => Self::Owned(v.to_string()),
            },
        }
    }
}

impl From<Option<u64>> for Field<'_> {
    fn from(v: Option<u64>) -> Self {
        v.map_or(Self::Empty, Self::Unsigned)
    }
}

impl From<Option<u8>> for Field<'_> {
    fn from(v: Option<u8>) -> Self {
        v.map_or(Self::Empty, |v| Self::Unsigned(u64::from(v)))
    }
}

impl From<Option<i64>> for Field<'_> {
    fn from(v: Option<i64>) -> Self {
        v.map_or(Self::Empty, Self::Signed)
    }
}

impl From<ClockSource> for Field<'_> {
    fn from(v: ClockSource) -> Self {
        match v {
            ClockSource::None => Self::Empty,
            v => Self::Text(v.as_str()),
        }
    }
}

impl Serialize for Field<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Empty => to.serialize_none(),
            Self::Unsigned(v) => to.serialize_u64(*v),
            Self::Signed(v) => to.serialize_i64(*v),
            Self::Text(v) => to.serialize_str(v),
            Self::Owned(v) => to.serialize_str(v),
            Self::Values(v) => v.serialize(to),
        }
    }
}

/// Fields under the names of their columns.
struct Record<'a>(&'a [&'a str], &'a [Field<'a>]);

impl Serialize for Record<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(self.0.len()))?;
        for (name, field) in self.0.iter().zip(self.1) {
            map.serialize_entry(name, field)?;
        }
        map.end()
    }
}

/// What rows are written as.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// RFC 4180, with a header.
    Csv,
    /// An object on each line.
    Json,
    /// Typed columns, for other programs.
    Parquet,
}

/// Writes rows of one kind.
pub(super) enum Table<'a> {
    /// As text.
    Lines(Lines<'a>),
    /// As Parquet.
    Parquet(Box<parquet::Writer>),
}

impl<'a> Table<'a> {
    /// Opens `path`, or standard output, and writes what comes before the first row.
    pub(super) fn begin(
        path: Option<&Path>,
        format: Format,
        columns: &'a [&'a str],
    ) -> Result<Self, Fail> {
        if format == Format::Parquet {
            let writer = parquet::Writer::begin(path, columns)?;
            return Ok(Self::Parquet(Box::new(writer)));
        }
        let mut out = out::writer(path)?;
        if format == Format::Csv {
            writeln!(out, "{}", columns.join(","))?;
        }
        Ok(Self::Lines(Lines {
            out,
            format,
            columns,
        }))
    }

    /// Writes a row: a field for each column.
    pub(super) fn row(&mut self, fields: &[Field<'_>]) -> Result<(), Fail> {
        match self {
            Self::Lines(lines) => lines.row(fields),
            Self::Parquet(writer) => writer.row(fields),
        }
    }

    /// There are no more.
    pub(super) fn end(self) -> Result<(), Fail> {
        match self {
            Self::Lines(mut lines) => Ok(lines.out.flush()?),
            Self::Parquet(writer) => writer.end(),
        }
    }
}

/// Rows as lines of text.
pub(super) struct Lines<'a> {
    out: Box<dyn Write>,
    format: Format,
    columns: &'a [&'a str],
}

impl Lines<'_> {
    fn row(&mut self, fields: &[Field<'_>]) -> Result<(), Fail> {
        debug_assert_eq!(fields.len(), self.columns.len());
        if self.format == Format::Json {
            serde_json::to_writer(&mut self.out, &Record(self.columns, fields))?;
        } else {
            for (i, field) in fields.iter().enumerate() {
                if i > 0 {
                    self.out.write_all(b",")?;
                }
                match field {
                    Field::Empty => {}
                    Field::Unsigned(v) => write!(self.out, "{v}")?,
                    Field::Signed(v) => write!(self.out, "{v}")?,
                    Field::Text(v) => quoted(&mut self.out, v)?,
                    Field::Owned(v) => quoted(&mut self.out, v)?,
                    Field::Values(v) => {
                        quoted(&mut self.out, &serde_json::to_string(v)?)?;
                    }
                }
            }
        }
        self.out.write_all(b"\n")?;
        Ok(())
    }
}

/// A text as RFC 4180 has it: in quotes where it has to be.
fn quoted(out: &mut dyn Write, text: &str) -> std::io::Result<()> {
    if text.contains([',', '"', '\n', '\r']) || text.starts_with(' ') || text.ends_with(' ') {
        write!(out, "\"{}\"", text.replace('"', "\"\""))
    } else {
        out.write_all(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted_where_they_have_to_be() {
        let quote = |t: &str| {
            let mut out = Vec::new();
            quoted(&mut out, t).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(quote("eth0"), "eth0");
        assert_eq!(quote("a,\"b\"\nc"), "\"a,\"\"b\"\"\nc\"");
    }
}
