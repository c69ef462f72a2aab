//! Keys of STAMP's authenticated mode: a file with hexadecimal digits, as other programs have it.

use std::path::Path;

use bufferbane_core::wire::stamp::{Key, MAX_KEY, MIN_KEY};
use zeroize::Zeroizing;

use crate::secretfile::{self, MOST_BYTES};

/// Reads the key in the file at `path`: 32 to 128 hexadecimal digits, spaces and lines between them
/// as one likes. `openssl rand -hex 32` makes one.
///
/// # Errors
/// What is wrong and what to do: it is not there, others may read it, or it is no key.
pub fn read(path: &Path) -> Result<Key, String> {
    let mut room = Zeroizing::new([0; MOST_BYTES]);
    let missing = "openssl rand -hex 32 makes a key";
    let text = secretfile::read(path, missing, &mut room)?;
    parse(text).ok_or_else(|| {
        format!(
            "key file {}: holds no {} to {} hexadecimal digits; openssl rand -hex 32 makes a key",
            path.display(),
            2 * MIN_KEY,
            2 * MAX_KEY
        )
    })
}

pub(crate) fn parse(text: &str) -> Option<Key> {
    let mut bytes = Zeroizing::new([0u8; MAX_KEY]);
    let mut count = 0;
    for c in text.chars().filter(|c| !c.is_whitespace()) {
        let byte = bytes.get_mut(count / 2)?;
        *byte = *byte << 4 | c.to_digit(16)? as u8;
        count += 1;
    }
    // Two digits are a byte.
    let whole = count.is_multiple_of(2);
    Key::new(&bytes[..count / 2]).filter(|_| whole)
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
        assert!(read(&file).unwrap_err().contains("chmod 640"));
        mode(0o600);
        assert_eq!(read(&file).unwrap().reveal(), [0xab; 32]);
        let refused = |text: String| {
            std::fs::write(&file, text).unwrap();
            read(&file).unwrap_err()
        };
        assert!(refused("no key".into()).contains("openssl rand"));
        assert!(refused("ab".repeat(32) + &" ".repeat(4096)).contains("4096 bytes long"));
        let missing = read(&dir.path().join("none")).unwrap_err();
        assert!(missing.contains("openssl rand"), "{missing}");
        assert!(read(dir.path()).unwrap_err().contains("not a file"));
    }
}
