//! Key files: what `bbtool keygen` writes and both services read.
//!
//! ```text
//! # Bufferbane key; keep it secret: it lets its holder use the reflector.
//! id = 0123456789abcdef
//! key = 64 hexadecimal digits
//! check = 8 hexadecimal digits, CRC-32C of id and key
//! ```

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use bufferbane_core::seal::{KeyId, PresharedKey, Secret};
use zeroize::Zeroizing;

use crate::secretfile::{self, MOST_BYTES};

const CHECKSUM: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);

/// Reads the key file at `path`.
///
/// # Errors
/// What is wrong and what to do: it is not there, others may read it, or it is damaged.
pub fn read(path: &Path) -> Result<PresharedKey, String> {
    let name = path.display();
    let mut room = Zeroizing::new([0; MOST_BYTES]);
    let missing = "make one with bbtool keygen, or mend the path";
    let text = secretfile::read(path, missing, &mut room)?;
    parse(text).map_err(|e| format!("key file {name}: {e}"))
}

/// Writes a new key file that only its owner may read; one that exists is left as it is.
///
/// # Errors
/// When the file exists or cannot be written: then there is none.
pub fn write_new(path: &Path, key: &PresharedKey) -> std::io::Result<()> {
    make(path, |file| {
        file.write_all(format(key).as_bytes())?;
        file.sync_all()
    })
}

/// Makes a file that `fill` writes. A full disk leaves none: without a key in it, it would only take the name.
fn make(path: &Path, fill: impl FnOnce(&mut File) -> std::io::Result<()>) -> std::io::Result<()> {
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    fill(&mut file).inspect_err(|_| {
        // Why it could not be written is what is told.
        let _ = std::fs::remove_file(path);
    })
}

pub(crate) fn format(key: &PresharedKey) -> Zeroizing<String> {
    // Written into room that is there from the first: see `secretfile`.
    let mut text = Zeroizing::new(String::with_capacity(MOST_BYTES));
    text.push_str("# Bufferbane key; keep it secret: it lets its holder use the reflector.\nid = ");
    push_hex(&mut text, &key.id.0);
    text.push_str("\nkey = ");
    push_hex(&mut text, key.secret.reveal());
    text.push_str("\ncheck = ");
    push_hex(
        &mut text,
        &check(&key.id.0, key.secret.reveal()).to_be_bytes(),
    );
    text.push('\n');
    text
}

pub(crate) fn parse(text: &str) -> Result<PresharedKey, String> {
    let field = |name: &str| {
        text.lines()
            .filter_map(|l| l.split_once('='))
            .find(|(k, _)| k.trim() == name)
            .map(|(_, v)| v.trim())
            .ok_or_else(|| format!("has no line \"{name} = ..\"; it is not a Bufferbane key file"))
    };
    let mut id = [0; 8];
    unhex(field("id")?, &mut id).ok_or("its id is not 16 hexadecimal digits")?;
    let mut key = Zeroizing::new([0; 32]);
    unhex(field("key")?, &mut *key).ok_or("its key is not 64 hexadecimal digits")?;
    let said = u32::from_str_radix(field("check")?, 16).ok();
    if said != Some(check(&id, &key)) {
        return Err("is damaged: its check does not fit its id and key; copy it again".into());
    }
    Ok(PresharedKey {
        id: KeyId(id),
        secret: Secret::new(*key),
    })
}

fn check(id: &[u8; 8], key: &[u8; 32]) -> u32 {
    let mut digest = CHECKSUM.digest();
    digest.update(id);
    digest.update(key);
    digest.finalize()
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    for digit in bytes.iter().flat_map(|b| [b >> 4, b & 0xf]) {
        text.extend(char::from_digit(digit.into(), 16));
    }
}

/// Fills `out`; `None` where `text` is not twice as many digits.
fn unhex(text: &str, out: &mut [u8]) -> Option<()> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return None;
    };
    if pairs.len() != out.len() {
        return None;
    }
    for (byte, [a, b]) in out.iter_mut().zip(pairs) {
        let digit = |c: &u8| char::from(*c).to_digit(16);
        *byte = (digit(a)? << 4 | digit(b)?) as u8;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    #[test]
    fn a_key_file_is_the_one_of_the_vectors() {
        let vectors = include_str!("../../core/tests/vectors/messages.txt");
        let at = vectors.find("[key]\n").unwrap() + "[key]\n".len();
        let file: String = vectors[at..].split_inclusive('\n').take(3).collect();
        let key = parse(&file).unwrap();
        assert_eq!(key.id, KeyId([0, 1, 2, 3, 4, 5, 6, 7]));
        assert!(format(&key).ends_with(&file), "{file}");
    }

    #[test]
    fn a_key_file_is_private_whole_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.key");
        let key = PresharedKey {
            id: KeyId([1, 2, 3, 4, 5, 6, 7, 8]),
            secret: Secret::new([0xa5; 32]),
        };
        write_new(&path, &key).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(read(&path).unwrap(), key);
        assert!(write_new(&path, &key).is_err());
        let full = dir.path().join("full.key");
        let no_room = |_: &mut File| Err(std::io::ErrorKind::StorageFull.into());
        assert!(make(&full, no_room).is_err());
        assert!(!full.exists());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(read(&path).unwrap_err().contains("chmod 640"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let text = std::fs::read_to_string(&path)
            .unwrap()
            .replace("a5a5", "a5a6");
        std::fs::write(&path, text).unwrap();
        assert!(read(&path).unwrap_err().contains("damaged"));
        std::fs::write(&path, "hello").unwrap();
        assert!(read(&path).unwrap_err().contains("not a Bufferbane key"));
        assert!(
            read(&dir.path().join("none"))
                .unwrap_err()
                .contains("keygen")
        );
    }
}
