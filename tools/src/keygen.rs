//! `bbtool keygen`: a key file, and the two configuration blocks that use it.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use bufferbane_config::{check_host, keyfile, split_port};
use bufferbane_core::seal::{KeyId, PresharedKey, Secret};

use crate::args::Keygen as Arguments;
use crate::fail::Fail;
use crate::out;

/// The longest name, characters.
const LONGEST_NAME: usize = 64;

/// `bbtool keygen`.
pub(crate) fn run(args: &Arguments) -> Result<(), Fail> {
    let name = args.name.as_str();
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.is_empty()
        || name.len() > LONGEST_NAME
        || name.starts_with(['.', '-'])
        || !name.chars().all(fits)
    {
        return Err(Fail::Usage(format!(
            "\"{}\" cannot be a name; letters, digits, . _ and - are allowed, {LONGEST_NAME} at most",
            crate::show::clean(name)
        )));
    }
    let address = with_port(&args.address).map_err(|e| Fail::Usage(format!("--address: {e}")))?;
    let dir = std::fs::canonicalize(&args.dir)
        .map_err(|e| Fail::of(args.dir.display(), format!("{e}; make the directory first")))?;
    let path = dir.join(format!("{name}.key"));
    let (mut id, mut secret) = ([0; 8], [0; 32]);
    for bytes in [&mut id[..], &mut secret[..]] {
        getrandom::fill(bytes).map_err(|e| Fail::of("no random bytes", e))?;
    }
    let key = PresharedKey {
        id: KeyId(id),
        secret: Secret::new(secret),
    };
    keyfile::write_new(&path, &key).map_err(|e| match e.kind() {
        std::io::ErrorKind::AlreadyExists => Fail::Failed(format!(
            "{} exists and is left as it is; choose another name, or remove it first",
            path.display()
        )),
        std::io::ErrorKind::PermissionDenied => Fail::of(
            path.display(),
            format!("{e}; use sudo, or say with --dir where this user may write"),
        ),
        _ => Fail::of(path.display(), e),
    })?;
    let shared = share_with_service(&dir, &path).map_err(|e| Fail::of(path.display(), e))?;
    let readers = if shared {
        "; the group bufferbane, which is the service, may read it"
    } else {
        ""
    };
    let file = toml_text(&path.to_string_lossy());
    out::print(&format!(
        "# Key written to {}{readers}.\n\
         # Copy it to the reflector's host, and there put it into the same place for the service:\n\
         #   sudo install -m 0640 -g bufferbane {name_of_file} {}\n\
         \n\
         # For bufferbaned.toml on the router:\n\
         [[reflector]]\n\
         name = {name}\n\
         address = {address}\n\
         key_file = {file}\n\
         \n\
         # For reflector.toml on the other host:\n\
         [[client]]\n\
         name = {name}\n\
         key_file = {file}\n\
         # What whoever has the key may cost there. Probes per second in each of its sessions, 16 by default; by\n\
         # default they are up to 190 Mbit/s each way in all:\n\
         #max_pps = 1000\n\
         # Its throughput tests, each way and in 24 hours; without these lines they are not limited:\n\
         #max_rate = \"500Mbit\"\n\
         #daily_bytes = \"20GiB\"\n",
        crate::show::clean(&path.display().to_string()),
        crate::show::clean(&path.display().to_string()),
        name_of_file = format_args!("{name}.key"),
        name = toml_text(name),
        address = toml_text(&address),
    ))
}

/// Lets the service read a key that root has put into the service's own folder; gives whether it
/// was put there. Anywhere else the key is its maker's alone.
fn share_with_service(dir: &Path, key: &Path) -> std::io::Result<bool> {
    let Ok(Some(group)) = nix::unistd::Group::from_name("bufferbane") else {
        return Ok(false);
    };
    let of_service = std::fs::metadata(dir)?.gid() == group.gid.as_raw();
    if !of_service || !nix::unistd::geteuid().is_root() {
        return Ok(false);
    }
    nix::unistd::chown(key, None, Some(group.gid))?;
    std::fs::set_permissions(key, std::fs::Permissions::from_mode(0o640))?;
    Ok(true)
}

/// The address with the port that reflectors have unless it says otherwise.
fn with_port(address: &str) -> Result<String, String> {
    const PORT: u16 = 9876;
    let (host, port) = split_port(address, PORT)?;
    let host = check_host(host)?;
    Ok(match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    })
}

/// A TOML basic string.
fn toml_text(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_get_their_port() {
        for (typed, meant) in [
            ("reflector.example.net", "reflector.example.net:9876"),
            ("reflector.example.net:7", "reflector.example.net:7"),
            ("192.0.2.1", "192.0.2.1:9876"),
            ("2001:db8::1", "[2001:db8::1]:9876"),
            ("[2001:db8::1]:7", "[2001:db8::1]:7"),
        ] {
            assert_eq!(with_port(typed).as_deref(), Ok(meant));
        }
        for wrong in ["http://h", "h:99999", "h:0", "a b", "192.0.2", ""] {
            assert!(with_port(wrong).is_err(), "{wrong}");
        }
        assert_eq!(toml_text("a\"\\\n"), "\"a\\\"\\\\\\u000A\"");
    }
}
