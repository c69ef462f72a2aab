//! Rows as Parquet: the same columns as in CSV, whole numbers as INT64, words as UTF-8 strings, null
//! where something is not known. Snappy, row groups of 64 Ki rows, of which the file's end lists some
//! kilobytes each: that is all that memory grows by, however much is written.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;

use super::Field;
use crate::fail::Fail;

/// Rows that are written together.
const GROUP_ROWS: usize = 65_536;
/// Columns that hold words; all others hold numbers.
const WORDS: [&str; 19] = [
    "interface",
    "target",
    "kind",
    "status",
    "tx_clock",
    "rx_clock",
    "remote_rx_clock",
    "remote_tx_clock",
    "flags",
    "boot",
    "severity",
    "direction",
    "values",
    "text",
    "reflector",
    "asked_by",
    "congestion",
    "grade",
    "protocol",
];

/// What waits of one column.
enum Values {
    Numbers(Vec<i64>),
    Words(Vec<ByteArray>),
}

struct Column {
    values: Values,
    /// 1 where there is a value, 0 where not, for each row.
    levels: Vec<i16>,
}

/// One more word; most are the one before, whose bytes then are not kept twice.
fn push(all: &mut Vec<ByteArray>, word: &str) {
    let again = all.last().filter(|last| last.data() == word.as_bytes());
    all.push(again.cloned().unwrap_or_else(|| ByteArray::from(word)));
}

/// Writes rows into one file.
pub(in crate::export) struct Writer {
    file: SerializedFileWriter<Box<dyn Write + Send>>,
    columns: Vec<Column>,
    rows: usize,
}

fn failed(e: ParquetError) -> Fail {
    match e {
        ParquetError::External(e) => match e.downcast::<io::Error>() {
            Ok(e) => Fail::from(*e),
            Err(e) => Fail::of("cannot write parquet", e),
        },
        e => Fail::of("cannot write parquet", e),
    }
}

impl Writer {
    /// Begins a file, or standard output.
    pub(super) fn begin(path: Option<&Path>, names: &[&str]) -> Result<Self, Fail> {
        let out: Box<dyn Write + Send> = match path {
            Some(p) => Box::new(File::create(p).map_err(|e| Fail::of(p.display(), e))?),
            None => Box::new(io::stdout()),
        };
        // Of a sample `test` is the number of one, of a test it is what was loaded.
        let of_tests = names.contains(&"asked_by");
        let is_word = |name: &str| WORDS.contains(&name) || (of_tests && name == "test");
        let fields = names
            .iter()
            .map(|name| {
                let (physical, logical) = if is_word(name) {
                    (Physical::BYTE_ARRAY, Some(LogicalType::String))
                } else {
                    (Physical::INT64, None)
                };
                Type::primitive_type_builder(name, physical)
                    .with_repetition(Repetition::OPTIONAL)
                    .with_logical_type(logical)
                    .build()
                    .map(Arc::new)
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(failed)?;
        let schema = Type::group_type_builder("bufferbane")
            .with_fields(fields)
            .build()
            .map_err(failed)?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            // An index of pages would be kept for all groups until the file's end.
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_offset_index_disabled(true)
            .build();
        let file = SerializedFileWriter::new(out, Arc::new(schema), Arc::new(properties))
            .map_err(failed)?;
        let columns = names
            .iter()
            .map(|name| Column {
                values: if is_word(name) {
                    Values::Words(Vec::new())
                } else {
                    Values::Numbers(Vec::new())
                },
                levels: Vec::new(),
            })
            .collect();
        Ok(Self {
            file,
            columns,
            rows: 0,
        })
    }

    /// One more row.
    pub(super) fn row(&mut self, fields: &[Field<'_>]) -> Result<(), Fail> {
        for (column, field) in self.columns.iter_mut().zip(fields) {
            column
                .levels
                .push(i16::from(!matches!(field, Field::Empty)));
            match (&mut column.values, field) {
                (_, Field::Empty) => {}
                (Values::Numbers(all), Field::Unsigned(v)) => all.push(v.cast_signed()),
                (Values::Numbers(all), Field::Signed(v)) => all.push(*v),
                (Values::Words(all), Field::Text(v)) => push(all, v),
                (Values::Words(all), Field::Owned(v)) => push(all, v),
                (Values::Words(all), other) => push(all, &serde_json::to_string(other)?),
                (Values::Numbers(_), _) => {
                    return Err(Fail::Failed("a word in a column of numbers".into()));
                }
            }
        }
        self.rows += 1;
        if self.rows == GROUP_ROWS {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Fail> {
        if self.rows == 0 {
            return Ok(());
        }
        let mut group = self.file.next_row_group().map_err(failed)?;
        for column in &mut self.columns {
            let Some(mut writer) = group.next_column().map_err(failed)? else {
                break;
            };
            let levels = Some(column.levels.as_slice());
            match &mut column.values {
                Values::Numbers(all) => {
                    let typed = writer.typed::<Int64Type>();
                    typed.write_batch(all, levels, None).map_err(failed)?;
                    all.clear();
                }
                Values::Words(all) => {
                    let typed = writer.typed::<ByteArrayType>();
                    typed.write_batch(all, levels, None).map_err(failed)?;
                    all.clear();
                }
            }
            writer.close().map_err(failed)?;
            column.levels.clear();
        }
        group.close().map_err(failed)?;
        self.rows = 0;
        Ok(())
    }

    /// Writes what is left, and the file's end.
    pub(super) fn end(mut self) -> Result<(), Fail> {
        self.flush()?;
        self.file.close().map_err(failed)?;
        Ok(())
    }
}
