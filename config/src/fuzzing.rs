//! What the fuzz targets reach of this crate, which is private otherwise.

use crate::{Document, keyfile, parse_address, parse_duration, parse_size, stampkey};

/// Any configuration or key file.
///
/// # Panics
/// Where a mistake has no place in the file, or a key is not what was read.
pub fn text(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let document = Document::parse("fuzz.toml", text);
    {
        let root = document.root();
        let _ = (root.text("store"), root.texts("interfaces"));
        let _ = root.number("interval", 1..=1_000_000_000);
        let _ = root.parsed("keep", parse_duration);
        root.finish();
    }
    let lines = text.matches('\n').count() + 1;
    for m in document.mistakes() {
        assert!((1..=lines).contains(&m.line) && m.column >= 1, "{m:?}");
    }
    for line in text.lines() {
        let _ = (parse_duration(line), parse_size(line));
        if let Ok(address) = parse_address(line, 9876) {
            assert_eq!(parse_address(&address.to_string(), 1), Ok(address));
        }
    }
    if let Ok(key) = keyfile::parse(text) {
        let again = keyfile::parse(&keyfile::format(&key)).expect("what was just written");
        assert!(again == key);
    }
    let _ = stampkey::parse(text);
}

#[cfg(test)]
mod tests {
    use bufferbane_core::seal::{KeyId, PresharedKey, Secret};

    use super::*;
    use crate::replay::{Seeds, replay};

    #[test]
    fn files_go_through_their_corpus() {
        let key = PresharedKey {
            id: KeyId([7; 8]),
            secret: Secret::new([0x5a; 32]),
        };
        let seeds: Seeds = [
            ("key", keyfile::format(&key).to_string()),
            ("stamp-key", "0b".repeat(20)),
            (
                "values",
                "90s\n1.5d\n500MB\n[2001:db8::7]:99\n192.0.2.7\n".into(),
            ),
            (
                "daemon",
                "store = \"/tmp/s.redb\"\ninterfaces = [\"wan0\", 7]\ninterval = 0\n\
                 keep = \"90d\"\nunknown = 1\n[[target]]\nname = \"a\"\n"
                    .into(),
            ),
            ("not-toml", "[[target]\nname = \"\u{e4}\u{1f600}\n".into()),
        ]
        .map(|(name, text)| (name.to_owned(), text.into_bytes()))
        .into();
        replay("config", &seeds, text);
    }
}
