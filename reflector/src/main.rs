//! Entry point of `bufferbane-reflector`.

use std::path::Path;
use std::process::ExitCode;

use argh::FromArgs;
use args::Arguments;
use bufferbane_reflector::config;
use bufferbane_reflector::{journal, service, to_text};

mod args;

const FAILED: u8 = 1;
const WRONG: u8 = 2;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (name, rest) = words
        .split_first()
        .unwrap_or((&"bufferbane-reflector", &[]));
    let arguments = match Arguments::from_args(&[name], rest) {
        Ok(arguments) => arguments,
        Err(exit) if exit.status.is_ok() => {
            println!("{}", exit.output);
            return ExitCode::SUCCESS;
        }
        Err(exit) => {
            eprintln!("{}", exit.output.trim_end());
            eprintln!("Run bufferbane-reflector --help for more information.");
            return ExitCode::from(WRONG);
        }
    };
    if arguments.version {
        println!("bufferbane-reflector {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    if arguments.json && !arguments.status {
        eprintln!("--json is for --status");
        return ExitCode::from(WRONG);
    }
    let file = arguments
        .config
        .unwrap_or_else(|| config::DEFAULT_FILE.into());
    if arguments.status {
        return status(&file, arguments.json);
    }
    run(&file, arguments.check)
}

fn run(file: &Path, check: bool) -> ExitCode {
    let loaded = match config::load(file) {
        Ok(loaded) => loaded,
        Err(mistakes) => {
            for mistake in mistakes {
                eprintln!("{mistake}");
            }
            return ExitCode::from(WRONG);
        }
    };
    const NOBODY: &str = "there is no [[client]]: nobody gets an answer";
    let is_lonely = loaded.config.clients.is_empty();
    if check {
        for warning in &loaded.warnings {
            eprintln!("{warning}");
        }
        if is_lonely {
            eprintln!("{}: {NOBODY}", file.display());
        }
        println!("{}: well", file.display());
        return ExitCode::SUCCESS;
    }
    journal::init();
    for warning in &loaded.warnings {
        log::warn!("{warning}");
    }
    if is_lonely {
        log::warn!("{NOBODY}");
    }
    match service::run(file, loaded.config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            log::error!("{why}");
            ExitCode::from(FAILED)
        }
    }
}

fn status(file: &Path, json: bool) -> ExitCode {
    let Some(socket) = config::control_socket(file) else {
        eprintln!("{} switches the control socket off", file.display());
        return ExitCode::from(FAILED);
    };
    match service::ask_status(&socket) {
        Ok(status) if json => println!("{status:#}"),
        Ok(status) => print!("{}", to_text(&status)),
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::from(FAILED);
        }
    }
    ExitCode::SUCCESS
}
