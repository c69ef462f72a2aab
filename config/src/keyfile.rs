//! Key files: what `bbtool keygen` writes and both services read.
//!
//! ```text
//! # Bufferbane key; keep it secret: it lets its holder use the reflector.
//! id = 0123456789abcdef
//! key = 64 hexadecimal digits
//! check = 8 hexadecimal digits, CRC-32C of id and key
//! ```

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use bufferbane_core::seal::{KeyId, PresharedKey, Secret};
use zeroize::Zeroizing;

const CHECKSUM: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);

/// Reads the key file at `path`.
///
/// # Errors
/// What is wrong and what to do: it is not there, others may read it, or it is damaged.
pub fn read(path: &Path) -> Result<PresharedKey, String> {
    let name = path.display();
    let mut file = File::open(path).map_err(|e| {
        format!("key file {name}: {e}; make one with bbtool keygen, or mend the path")
    })?;
    let meta = file
        .metadata()
        .map_err(|e| format!("key file {name}: {e}"))?;
    if !meta.is_file() {
        return Err(format!("key file {name}: not a file"));
    }
    if meta.mode() & 0o007 != 0 {
        return Err(format!(
            "key file {name}: every user may read it (mode {:03o}); chmod 600 {name}",
            meta.mode() & 0o777
        ));
    }
    let mut text = Zeroizing::new(String::new());
    file.read_to_string(&mut text)
        .map_err(|e| format!("key file {name}: {e}"))?;
    parse(&text).map_err(|e| format!("key file {name}: {e}"))
}

/// Writes a new key file that only its owner may read; one that exists is left as it is.
///
/// # Errors
/// When the file exists or cannot be written.
pub fn write_new(path: &Path, key: &PresharedKey) -> std::io::Result<()> {
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(format(key).as_bytes())?;
    file.sync_all()
}

pub(crate) fn format(key: &PresharedKey) -> Zeroizing<String> {
    let (id, secret) = (hex(&key.id.0), Zeroizing::new(hex(key.secret.reveal())));
    Zeroizing::new(format!(
        "# Bufferbane key; keep it secret: it lets its holder use the reflector.\n\
         id = {id}\nkey = {}\ncheck = {:08x}\n",
        *secret,
        check(&key.id.0, key.secret.reveal())
    ))
}

pub(crate) fn parse(text: &str) -> Result<PresharedKey, String> {
    let field = |name: &str| {
        text.lines()
            .filter_map(|l| l.split_once('='))
            .find(|(k, _)| k.trim() == name)
            .map(|(_, v)| v.trim())
            .ok_or_else(|| format!("has no line \"{name} = ..\"; it is not a Bufferbane key file"))
    };
    let id: [u8; 8] = unhex(field("id")?).ok_or("its id is not 16 hexadecimal digits")?;
    let key = unhex(field("key")?).ok_or("its key is not 64 hexadecimal digits")?;
    let said = u32::from_str_radix(field("check")?, 16).ok();
    if said != Some(check(&id, &key)) {
        return Err("is damaged: its check does not fit its id and key; copy it again".into());
    }
    Ok(PresharedKey {
        id: KeyId(id),
        secret: Secret::new(key),
    })
}

fn check(id: &[u8; 8], key: &[u8; 32]) -> u32 {
    let mut digest = CHECKSUM.digest();
    digest.update(id);
    digest.update(key);
    digest.finalize()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.is_ascii() {
        return None;
    }
    let mut out = [0; N];
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

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
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(read(&path).unwrap_err().contains("chmod 600"));
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
