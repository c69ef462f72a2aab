//! Strict reading of configuration files, for the daemon and the reflector alike.
//!
//! A [`Document`] is walked by its [`Section`]s: whoever asks for a key says what it may be, and all
//! that is wrong is collected, each with its place, so that a person sees every mistake at once. A
//! key that nobody asked for is a mistake too, with a guess at what was meant.

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod host;
pub mod keyfile;
#[cfg(test)]
#[path = "../../fuzz/replay.rs"]
mod replay;
mod secretfile;
pub use secretfile::open_to_all;
pub mod stampkey;
mod value;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub use host::{check_host, split_port};
pub use value::{
    check_load_rate, format_duration, parse_address, parse_duration, parse_load_rate, parse_rate,
    parse_size, parse_subnet,
};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The file, as it was named.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// The key with its tables: `reflector.interval`.
    pub key: String,
    /// What is wrong, and what is allowed.
    pub text: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.text)
    }
}

/// A configuration file that has been read.
pub struct Document<'a> {
    file: &'a str,
    text: &'a str,
    table: DeTable<'a>,
    mistakes: RefCell<Vec<Mistake>>,
    warnings: RefCell<Vec<Mistake>>,
}

impl<'a> Document<'a> {
    /// Reads `text`, which stands in `file`. What is not TOML is noted, and the rest is read.
    #[must_use]
    pub fn parse(file: &'a str, text: &'a str) -> Self {
        let (table, errors) = DeTable::parse_recoverable(text);
        let doc = Self {
            file,
            text,
            table: table.into_inner(),
            mistakes: RefCell::default(),
            warnings: RefCell::default(),
        };
        for e in errors {
            let text = format!("not valid TOML: {}", e.message().trim());
            doc.note(&doc.mistakes, e.span().unwrap_or(0..0), "", text);
        }
        doc
    }

    /// The whole file as a section.
    #[must_use]
    pub fn root(&'a self) -> Section<'a> {
        Section::new(self, Some(&self.table), String::new(), 0..0)
    }

    /// Every mistake found, in the order of the file; nothing where the file is right.
    #[must_use]
    pub fn mistakes(self) -> Vec<Mistake> {
        let mut all = self.mistakes.into_inner();
        all.sort_by_key(|m| (m.line, m.column));
        all.dedup();
        all
    }

    /// What is right but deserves a word.
    #[must_use]
    pub fn warnings(&self) -> Vec<Mistake> {
        self.warnings.borrow().clone()
    }

    fn note(&self, list: &RefCell<Vec<Mistake>>, span: Range<usize>, key: &str, text: String) {
        let before = &self.text[..self.text.floor_char_boundary(span.start)];
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        list.borrow_mut().push(Mistake {
            file: self.file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            key: key.to_owned(),
            text,
        });
    }
}

/// A table of the file, or an empty one where the file has none.
pub struct Section<'a> {
    doc: &'a Document<'a>,
    table: Option<&'a DeTable<'a>>,
    path: String,
    span: Range<usize>,
    asked: RefCell<Vec<&'static str>>,
    finished: Cell<bool>,
}

impl<'a> Section<'a> {
    fn new(
        doc: &'a Document<'a>,
        table: Option<&'a DeTable<'a>>,
        path: String,
        span: Range<usize>,
    ) -> Self {
        Self {
            doc,
            table,
            path,
            span,
            asked: RefCell::default(),
            finished: Cell::new(false),
        }
    }

    /// Whether the file has this table.
    #[must_use]
    pub const fn is_present(&self) -> bool {
        self.table.is_some()
    }

    /// Whether the file has this key here, right or wrong.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.table
            .is_some_and(|t| t.iter().any(|(k, _)| k.get_ref() == key))
    }

    /// Notes that `key` is missing where it is; one that is there and wrong has been told by whoever
    /// read it.
    pub fn require(&self, key: &str, remedy: &str) {
        if self.is_present() && !self.has(key) {
            self.mistake(key, format!("is missing; {remedy}"));
        }
    }

    /// Notes that `key` of this section, or the section itself where it has no such key, is wrong.
    pub fn mistake(&self, key: &str, text: impl Into<String>) {
        let span = self.place(key);
        self.doc
            .note(&self.doc.mistakes, span, &self.full(key), text.into());
    }

    /// Notes that `key` is right but deserves a word.
    pub fn warning(&self, key: &str, text: impl Into<String>) {
        let span = self.place(key);
        self.doc
            .note(&self.doc.warnings, span, &self.full(key), text.into());
    }

    fn place(&self, key: &str) -> Range<usize> {
        self.table
            .and_then(|t| t.iter().find(|(k, _)| k.get_ref() == key))
            .map_or(self.span.clone(), |(k, _)| k.span())
    }

    fn full(&self, key: &str) -> String {
        match (self.path.as_str(), key) {
            ("", k) => k.to_owned(),
            (p, "") => p.to_owned(),
            (p, k) => format!("{p}.{k}"),
        }
    }

    fn get(&self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.asked.borrow_mut().push(key);
        self.table?
            .iter()
            .find(|(k, _)| k.get_ref() == key)
            .map(|(_, v)| v)
    }

    /// A value that `read` makes something of, or says what is allowed.
    pub fn value<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&DeValue<'a>) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.get(key)?;
        match read(value.get_ref()) {
            Ok(v) => Some(v),
            Err(text) => {
                self.mistake(key, text);
                None
            }
        }
    }

    /// A text.
    #[must_use]
    pub fn text(&self, key: &'static str) -> Option<String> {
        self.value(key, |v| {
            let s = v
                .as_str()
                .ok_or_else(|| wrong_type(v, "a text in quotes"))?;
            if s.is_empty() {
                Err("must not be empty".into())
            } else {
                Ok(s.to_owned())
            }
        })
    }

    /// A text that `read` makes something of.
    pub fn parsed<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.value(key, |v| {
            read(
                v.as_str()
                    .ok_or_else(|| wrong_type(v, "a text in quotes"))?,
            )
        })
    }

    /// Texts in a list; one alone counts as a list of one.
    #[must_use]
    pub fn texts(&self, key: &'static str) -> Option<Vec<String>> {
        self.value(key, |v| {
            if let Some(s) = v.as_str() {
                return Ok(vec![s.to_owned()]);
            }
            let list = v
                .as_array()
                .ok_or_else(|| wrong_type(v, "a list of texts"))?;
            list.iter()
                .map(|item| {
                    let item = item.get_ref();
                    item.as_str()
                        .map(str::to_owned)
                        .ok_or_else(|| wrong_type(item, "a text"))
                })
                .collect()
        })
    }

    /// `true` or `false`.
    #[must_use]
    pub fn flag(&self, key: &'static str) -> Option<bool> {
        self.value(key, |v| {
            v.as_bool().ok_or_else(|| wrong_type(v, "true or false"))
        })
    }

    /// A whole number within `range`.
    #[must_use]
    pub fn number(&self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        self.value(key, |v| {
            let (low, high) = (range.start(), range.end());
            let n = v
                .as_integer()
                .ok_or_else(|| wrong_type(v, "a whole number"))?;
            u64::from_str_radix(n.as_str(), n.radix())
                .ok()
                .filter(|n| range.contains(n))
                .ok_or_else(|| {
                    format!("{} is out of range; {low} to {high} is allowed", n.as_str())
                })
        })
    }

    /// A number within `range`, whole or not.
    #[must_use]
    pub fn real(&self, key: &'static str, range: RangeInclusive<f64>) -> Option<f64> {
        self.value(key, |v| {
            let (low, high) = (range.start(), range.end());
            let text = match (v.as_integer(), v.as_float()) {
                (Some(n), _) if n.radix() == 10 => n.as_str(),
                (_, Some(n)) => n.as_str(),
                _ => return Err(wrong_type(v, "a number")),
            };
            text.parse()
                .ok()
                .filter(|n| range.contains(n))
                .ok_or_else(|| format!("{text} is out of range; {low} to {high} is allowed"))
        })
    }

    /// Whole numbers within `range`, in a list.
    #[must_use]
    pub fn numbers(&self, key: &'static str, range: RangeInclusive<u64>) -> Option<Vec<u64>> {
        let (low, high) = (range.start(), range.end());
        self.value(key, |v| {
            let wanted = "a list of whole numbers";
            let list = v.as_array().ok_or_else(|| wrong_type(v, wanted))?;
            let number = |item: &Spanned<DeValue<'_>>| {
                let item = item.get_ref();
                let n = item.as_integer().ok_or_else(|| wrong_type(item, wanted))?;
                u64::from_str_radix(n.as_str(), n.radix())
                    .ok()
                    .filter(|n| range.contains(n))
                    .ok_or_else(|| {
                        format!("{} is out of range; {low} to {high} is allowed", n.as_str())
                    })
            };
            list.iter().map(number).collect()
        })
    }

    /// A duration within `range`, ns.
    #[must_use]
    pub fn duration_ns(&self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        self.value(key, |v| {
            let s = v
                .as_str()
                .ok_or_else(|| wrong_type(v, "a text in quotes with its unit, such as \"1s\""))?;
            let ns = parse_duration(s)?;
            if range.contains(&ns) {
                return Ok(ns);
            }
            let (low, high) = (
                format_duration(*range.start()),
                format_duration(*range.end()),
            );
            Err(format!(
                "\"{s}\" is out of range; {low} to {high} is allowed"
            ))
        })
    }

    /// One of some words, each with what it stands for.
    #[must_use]
    pub fn choice<T: Copy>(&self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        self.parsed(key, |s| {
            words
                .iter()
                .find(|(w, _)| *w == s)
                .map(|(_, v)| *v)
                .ok_or_else(|| {
                    let allowed: Vec<&str> = words.iter().map(|(w, _)| *w).collect();
                    let meant = suggestion(s, &allowed);
                    format!(
                        "\"{s}\" is not known{meant}{} {}",
                        if meant.is_empty() {
                            "; allowed are"
                        } else {
                            " Allowed are"
                        },
                        allowed.join(", ")
                    )
                })
        })
    }

    /// Texts under names of the file's own choice, in the order of the file.
    #[must_use]
    pub fn texts_by_name(&self, key: &'static str) -> Option<Vec<(String, String)>> {
        self.value(key, |v| {
            let wanted = "a table of texts";
            let table = v.as_table().ok_or_else(|| wrong_type(v, wanted))?;
            let mut all = Vec::new();
            for (name, item) in table {
                let item = item.get_ref();
                let text = item.as_str().ok_or_else(|| wrong_type(item, wanted))?;
                let pair = (name.get_ref().to_string(), text.to_owned());
                all.push((name.span(), pair));
            }
            all.sort_by_key(|(span, _)| span.start);
            Ok(all.into_iter().map(|(_, pair)| pair).collect())
        })
    }

    /// The table `key` of this section.
    #[must_use]
    pub fn section(&self, key: &'static str) -> Section<'a> {
        let found = self.get(key);
        let span = self.place(key);
        let table = found.and_then(|v| {
            let table = v.get_ref().as_table();
            if table.is_none() {
                self.mistake(key, wrong_type(v.get_ref(), &format!("a table: [{key}]")));
            }
            table
        });
        Section::new(self.doc, table, self.full(key), span)
    }

    /// The tables of the list `key` of this section.
    #[must_use]
    pub fn sections(&self, key: &'static str) -> Vec<Section<'a>> {
        let Some(found) = self.get(key) else {
            return Vec::new();
        };
        let Some(list) = found.get_ref().as_array() else {
            self.mistake(
                key,
                wrong_type(
                    found.get_ref(),
                    &format!("a list of tables: [[{key}]], or [] for none"),
                ),
            );
            return Vec::new();
        };
        list.iter()
            .filter_map(|item| {
                let table = item.get_ref().as_table();
                if table.is_none() {
                    let wrong = wrong_type(item.get_ref(), &format!("a table: [[{key}]]"));
                    self.mistake(key, wrong);
                }
                Some(Section::new(
                    self.doc,
                    Some(table?),
                    self.full(key),
                    item.span(),
                ))
            })
            .collect()
    }

    /// Notes every key that nobody asked for. To be called when all has been asked.
    pub fn finish(&self) {
        if self.finished.replace(true) {
            return;
        }
        let asked = self.asked.borrow();
        for (key, _) in self.table.into_iter().flatten() {
            let name = key.get_ref().as_ref();
            if !asked.contains(&name) {
                let meant = suggestion(name, &asked);
                let mut allowed: Vec<&str> = asked.clone();
                allowed.sort_unstable();
                allowed.dedup();
                let text = format!(
                    "unknown key{meant}{} {}",
                    if meant.is_empty() {
                        "; allowed here are"
                    } else {
                        " Allowed here are"
                    },
                    allowed.join(", ")
                );
                self.doc
                    .note(&self.doc.mistakes, key.span(), &self.full(name), text);
            }
        }
    }
}

fn wrong_type(value: &DeValue<'_>, wanted: &str) -> String {
    let found = match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    format!("is {found}, but must be {wanted}")
}

/// `, did you mean "x"?` where one of `words` is near.
#[must_use]
pub fn suggestion(word: &str, words: &[&str]) -> String {
    words
        .iter()
        .map(|w| (distance(word, w), w))
        .min()
        .filter(|(d, w)| *d <= 1 + w.len() / 4)
        .map_or(String::new(), |(_, w)| format!(", did you mean \"{w}\"?"))
}

/// Edits from one word to another (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "[daemon]\nstoer = \"x\"\ncommit_interval = \"0s\"\n\n[[target]]\nname = 5\nkind = \"icpm\"\n[[target]]\nname = \"ok\"\ninterval = \"5 parsecs\"\n";

    fn walk(text: &str) -> Vec<String> {
        let doc = Document::parse("f.toml", text);
        {
            let root = doc.root();
            let daemon = root.section("daemon");
            let _ = daemon.text("store");
            let _ = daemon.duration_ns("commit_interval", 1_000_000_000..=3_600_000_000_000);
            daemon.finish();
            for t in root.sections("target") {
                let _ = t.text("name");
                let _ = t.choice("kind", &[("icmp", 1), ("udp", 2)]);
                let _ = t.duration_ns("interval", 1..=u64::MAX);
                t.finish();
            }
            root.finish();
        }
        doc.mistakes().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_mistake_is_told_at_once_with_its_place_and_remedy() {
        assert_eq!(
            walk(TEXT),
            [
                "f.toml:2:1: daemon.stoer: unknown key, did you mean \"store\"? Allowed here are commit_interval, store",
                "f.toml:3:1: daemon.commit_interval: \"0s\" is out of range; 1s to 1h is allowed",
                "f.toml:6:1: target.name: is a whole number, but must be a text in quotes",
                "f.toml:7:1: target.kind: \"icpm\" is not known, did you mean \"icmp\"? Allowed are icmp, udp",
                "f.toml:10:1: target.interval: \"5 parsecs\" is not a duration; write for example 500ms, 10s, 5m, 24h or 7d",
            ]
        );
    }

    #[test]
    fn what_is_not_toml_is_told_with_its_place() {
        let said = walk("[daemon]\nstore = \n");
        assert!(said.iter().any(|s| s.starts_with("f.toml:2:")), "{said:?}");
        assert!(
            said.iter().any(|s| s.contains("not valid TOML")),
            "{said:?}"
        );
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "\\PC*") {
            walk(&text);
        }
    }
}
