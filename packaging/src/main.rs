//! Writes the man pages and shell completions of all programs into a folder, laid out as under `/usr`:
//!
//! ```text
//! cargo run -p bufferbane-packaging -- target/packaging/usr
//! ```
//!
//! Everything comes from the definitions that the programs parse their command lines with, so it
//! cannot say anything else than they do.

mod man;

#[expect(
    dead_code,
    reason = "only the definitions are used, not what was typed"
)]
#[path = "../../tools/src/args.rs"]
mod bbtool;
#[expect(dead_code, reason = "as above")]
#[path = "../../reflector/src/args.rs"]
mod bufferbane_reflector;
#[expect(dead_code, reason = "as above")]
#[path = "../../linux-daemon/src/args.rs"]
mod bufferbaned;

use std::io;
use std::path::Path;
use std::process::ExitCode;

use argh::ArgsInfo;
use argh_complete::Generator;
use argh_complete::{bash::Bash, fish::Fish, zsh::Zsh};
use argh_shared::CommandInfoWithArgs;
use man::Manual;

/// A program, and what its man page says beyond its command line.
struct Program {
    manual: Manual,
    arguments: CommandInfoWithArgs<'static>,
}

fn programs() -> [Program; 3] {
    [
        Program {
            manual: Manual {
                name: "bufferbaned",
                section: 8,
                files: &[
                    (
                        "/etc/bufferbane/bufferbaned.toml",
                        "the configuration; every line of it is explained there",
                    ),
                    ("/etc/bufferbane/keys/", "keys of reflectors"),
                    ("/var/lib/bufferbane/bufferbane.redb", "the store"),
                    ("/run/bufferbane/control.sock", "the control socket"),
                ],
                see_also: &[("bbtool", 1), ("bufferbane-reflector", 8), ("systemctl", 1)],
            },
            arguments: bufferbaned::Arguments::get_args_info(),
        },
        Program {
            manual: Manual {
                name: "bufferbane-reflector",
                section: 8,
                files: &[
                    (
                        "/etc/bufferbane/reflector.toml",
                        "the configuration; every line of it is explained there",
                    ),
                    ("/etc/bufferbane/keys/", "keys of clients"),
                    (
                        "/run/bufferbane-reflector/control.sock",
                        "the control socket",
                    ),
                ],
                see_also: &[("bbtool", 1), ("bufferbaned", 8), ("systemctl", 1)],
            },
            arguments: bufferbane_reflector::Arguments::get_args_info(),
        },
        Program {
            manual: Manual {
                name: "bbtool",
                section: 1,
                files: &[
                    ("/var/lib/bufferbane/bufferbane.redb", "the store"),
                    (
                        "/run/bufferbane/control.sock",
                        "the daemon's control socket",
                    ),
                ],
                see_also: &[("bufferbaned", 8), ("bufferbane-reflector", 8)],
            },
            arguments: bbtool::Arguments::get_args_info(),
        },
    ]
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    std::fs::write(path, text)
}

fn write_all(usr: &Path) -> io::Result<()> {
    for Program { manual, arguments } in programs() {
        let (name, section) = (manual.name, manual.section);
        let share = usr.join("share");
        let page = share.join(format!("man/man{section}/{name}.{section}"));
        write(&page, &manual.page(&arguments))?;
        let completions = [
            (
                format!("bash-completion/completions/{name}"),
                Bash::generate(name, &arguments),
            ),
            (
                format!("fish/vendor_completions.d/{name}.fish"),
                Fish::generate(name, &arguments),
            ),
            (
                format!("zsh/vendor-completions/_{name}"),
                Zsh::generate(name, &arguments),
            ),
        ];
        for (path, text) in completions {
            write(&share.join(path), &text)?;
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let (Some(dir), None) = (words.next(), words.next()) else {
        eprintln!("give the folder to write into, for example target/packaging/usr");
        return ExitCode::from(2);
    };
    match write_all(Path::new(&dir)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{}: {e}", Path::new(&dir).display());
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every option and command is in the man page, and in what `bash` and `man` can read.
    #[test]
    fn every_option_is_in_a_page_that_man_reads_without_a_word() {
        let dir = tempfile::tempdir().unwrap();
        write_all(dir.path()).unwrap();
        for Program { manual, arguments } in programs() {
            let page = manual.page(&arguments);
            let mut commands = vec![&arguments];
            while let Some(command) = commands.pop() {
                commands.extend(command.commands.iter().map(|c| &c.command));
                for flag in command.flags.iter().filter(|f| !f.hidden) {
                    let long = flag.long.replace('-', "\\-");
                    assert!(page.contains(&long), "{} {long}", manual.name);
                }
            }
            let path = format!("share/man/man{0}/{1}.{0}", manual.section, manual.name);
            let page = dir.path().join(path);
            run(
                "man",
                &["--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z"],
                &page,
            );
            let completion = format!("share/bash-completion/completions/{}", manual.name);
            run("bash", &["-n"], &dir.path().join(completion));
        }
    }

    /// Runs a program over a file; it has to succeed and complain of nothing. Where it is not there,
    /// nothing is held against the file.
    fn run(program: &str, arguments: &[&str], file: &Path) {
        let mut command = std::process::Command::new(program);
        match command.args(arguments).arg(file).output() {
            Ok(said) => assert!(
                said.status.success() && said.stderr.is_empty(),
                "{}: {}",
                file.display(),
                String::from_utf8_lossy(&said.stderr)
            ),
            Err(e) => {
                eprintln!("SKIPPED: {program}: {e}");
                assert!(std::env::var_os("CI").is_none(), "skipped in CI: {program}");
            }
        }
    }
}
