//! `bufferbaned`.

use std::path::Path;
use std::process::ExitCode;

use argh::FromArgs;
use args::Arguments;
use bufferbaned::{Daemon, Signals, StartError, config};

mod args;
mod logging;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args_os()
        .map(|a| a.to_string_lossy().into_owned())
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let args = match Arguments::from_args(&["bufferbaned"], words.get(1..).unwrap_or_default()) {
        Ok(args) => args,
        Err(exit) if exit.status.is_ok() => {
            println!("{}", exit.output);
            return ExitCode::SUCCESS;
        }
        Err(exit) => {
            eprintln!("{}", exit.output.trim_end());
            eprintln!("bufferbaned --help says what is allowed");
            return ExitCode::from(2);
        }
    };
    if args.version {
        println!("bufferbaned {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    logging::start();
    let default = Path::new(config::DEFAULT_FILE);
    let without = args.config.is_none() && !default.exists();
    // A default file that is missing now may be there when the configuration is read again.
    let file = args.config.unwrap_or_else(|| default.to_owned());
    let loaded = if without {
        Ok(config::Loaded {
            config: config::Config::default(),
            warnings: Vec::new(),
        })
    } else {
        config::load(&file)
    };
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(mistakes) => {
            for m in mistakes {
                eprintln!("{m}");
            }
            return ExitCode::from(2);
        }
    };
    for w in &loaded.warnings {
        log::warn!("{w}");
    }
    if args.check {
        for uplink in config::missing_interfaces(&loaded.config) {
            log::warn!("{}: interface.name: {uplink}", file.display());
        }
        for program in config::missing_programs(&loaded.config) {
            log::warn!("{}: alerts.hook.program: {program}", file.display());
        }
        if without {
            println!(
                "there is no {}: the defaults hold, and are right",
                file.display()
            );
        } else {
            println!("{}: the configuration is right", file.display());
        }
        return ExitCode::SUCCESS;
    }
    let mut signals = match Signals::catch() {
        Ok(signals) => signals,
        Err(e) => {
            log::error!("signals cannot be watched: {e}");
            return ExitCode::FAILURE;
        }
    };
    let started = Daemon::start_unless(loaded.config, Some(file), || signals.end_came());
    let mut daemon = match started {
        Ok(daemon) => daemon,
        Err(e @ StartError::Ended) => {
            log::info!("{e}");
            return ExitCode::SUCCESS;
        }
        Err(e) => {
            log::error!("{e}");
            return ExitCode::FAILURE;
        }
    };
    log::info!("bufferbaned {} is ready", env!("CARGO_PKG_VERSION"));
    if signals.obey(&mut daemon) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
