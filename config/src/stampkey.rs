//! Keys of STAMP's authenticated mode: a file with hexadecimal digits, as other programs have it.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use bufferbane_core::wire::stamp::{Key, MAX_KEY, MIN_KEY};
use zeroize::Zeroizing;

/// Reads the key in the file at `path`: 32 to 128 hexadecimal digits, spaces and lines between them
/// as one likes. `openssl rand -hex 32` makes one.
///
/// # Errors
/// What is wrong and what to do: it is not there, others may read it, or it is no key.
pub fn read(path: &Path) -> Result<Key, String> {
    let name = path.display();
    let said = |e: &dyn std::fmt::Display| format!("key file {name}: {e}");
    let mut file = File::open(path).map_err(|e| said(&e))?;
    let mode = file.metadata().map_err(|e| said(&e))?.mode();
    if mode & 0o007 != 0 {
        return Err(format!(
            "key file {name}: every user may read it (mode {:03o}); chmod 600 {name}",
            mode & 0o777
        ));
    }
    let mut text = Zeroizing::new(String::new());
    file.read_to_string(&mut text).map_err(|e| said(&e))?;
    parse(&text).ok_or_else(|| {
        format!(
            "key file {name}: holds no {} to {} hexadecimal digits; openssl rand -hex 32 makes a key",
            2 * MIN_KEY,
            2 * MAX_KEY
        )
    })
}

pub(crate) fn parse(text: &str) -> Option<Key> {
    let mut digits = Zeroizing::new(Vec::with_capacity(2 * MAX_KEY));
    for c in text.chars().filter(|c| !c.is_whitespace()) {
        if digits.len() == 2 * MAX_KEY {
            return None;
        }
        digits.push(c.to_digit(16)? as u8);
    }
    let (pairs, []) = digits.as_chunks::<2>() else {
        return None;
    };
    let bytes: Zeroizing<Vec<u8>> = Zeroizing::new(pairs.iter().map(|[a, b]| a << 4 | b).collect());
    Key::new(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn digits_are_a_key_and_little_else_is() {
        assert_eq!(
            parse(&format!("{}\n", "0Fa0 ".repeat(8))).unwrap().reveal(),
            [0x0f, 0xa0].repeat(8)
        );
        for bad in ["", "0b", &"0".repeat(33), &"g".repeat(64), &"0".repeat(130)] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_key_that_everybody_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("k");
        std::fs::write(&file, "ab".repeat(32)).unwrap();
        let mode = |m| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(m)).unwrap();
        mode(0o644);
        assert!(read(&file).unwrap_err().contains("chmod 600"));
        mode(0o600);
        assert_eq!(read(&file).unwrap().reveal(), [0xab; 32]);
        std::fs::write(&file, "no key").unwrap();
        assert!(read(&file).unwrap_err().contains("openssl rand"));
    }
}
