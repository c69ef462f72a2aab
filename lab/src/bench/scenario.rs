//! `scenario`: the detectors held against simulated lines that know what they did.

use argh::FromArgs;
use bufferbane_sim::scenario::{count_by_day, list, table};

use super::child::Memory;
use super::{Fail, within};

/// How often the memory is looked at.
const LOOK_DAYS: u64 = 30;
/// More than this is growth, bytes: what the C library keeps of what is given back comes and goes by some pages.
const GROWTH_BYTES: u64 = 256 << 10;

/// What is told of simulated lines against what happened on them: precision, recall, direction,
/// begin and end of each kind of event, and the first verdict.
#[derive(Clone, Debug, FromArgs)]
#[argh(
    subcommand,
    name = "scenario",
    note = "Examples: bufferbane-lab scenario all --first-seed 1100
          bufferbane-lab scenario quiet_month --seeds 1
          bufferbane-lab scenario year --days 365 --memory"
)]
pub struct Options {
    /// a scenario's name, or all
    #[argh(positional, default = "\"all\".into()")]
    pub name: String,
    /// how many seeds (default: 3)
    #[argh(option, default = "3")]
    pub seeds: u64,
    /// the first seed (default: 1)
    #[argh(option, default = "1")]
    pub first_seed: u64,
    /// how many days it takes, 1 to 400 (default: as long as it is made for)
    #[argh(option)]
    pub days: Option<u64>,
    /// list every event, not only those that are wrong
    #[argh(switch)]
    pub verbose: bool,
    /// say after each 30 days of the first seed how much memory is resident instead, and fail where it grows; `year`
    /// is for this only
    #[argh(switch)]
    pub memory: bool,
}

/// Runs them and prints what came of it.
///
/// # Errors
/// [`Fail::Usage`] where no scenario has that name, or it is too short to see memory grow; [`Fail::Failed`]
/// where what is told is not good enough, see [`table::run`], or memory grows.
pub fn run(options: &Options) -> Result<(), Fail> {
    within("--seeds", options.seeds, 1..=1000)?;
    if let Some(days) = options.days {
        within("--days", days, 1..=400)?;
    }
    let usual = || list::ALL.iter().chain(&list::MIXED);
    let years = list::YEARS.iter().filter(|_| options.memory);
    let all = || usual().chain(&list::MONTHS).chain(years.clone());
    let chosen: Vec<_> = if options.name == "all" {
        usual().copied().collect()
    } else {
        all()
            .filter(|(name, _)| options.name == *name)
            .copied()
            .collect()
    };
    if chosen.is_empty() {
        let names: Vec<&str> = all().map(|(name, _)| *name).collect();
        return Err(Fail::Usage(format!(
            "no scenario is called \"{}\"; there are: all {}",
            options.name,
            names.join(" ")
        )));
    }
    if options.memory {
        let days = memory_days(options.days)?;
        return chosen
            .iter()
            .try_for_each(|(name, make)| memory(name, *make, options.first_seed, days));
    }
    let seeds = options.first_seed..options.first_seed + options.seeds;
    let table = table::run(&chosen, seeds, options.days, options.verbose);
    print!("{}", table.text);
    if table.faults.is_empty() {
        Ok(())
    } else {
        let faults = table.faults.join("; ");
        Err(Fail::Failed(format!(
            "what is told is not good enough: {faults}"
        )))
    }
}

/// How many days memory is looked at, of those that were asked for.
fn memory_days(asked: Option<u64>) -> Result<u64, Fail> {
    // Two looks of each half.
    let allowed = 4 * LOOK_DAYS..=400;
    let Some(days) = asked else {
        return Err(Fail::Usage(format!(
            "--memory needs --days: say how many days are to be looked at, {} to {}",
            allowed.start(),
            allowed.end()
        )));
    };
    within("with --memory, --days", days, allowed)?;
    Ok(days)
}

/// How much memory is resident while `days` days of a scenario go on.
fn memory(name: &str, make: list::Make, seed: u64, days: u64) -> Result<(), Fail> {
    let mut looks = Vec::new();
    let (probes, events) = count_by_day(make, seed, days, |day| {
        if day.is_multiple_of(LOOK_DAYS) {
            let look = Memory::of("self");
            if let Ok(m) = &look {
                println!("{name} day {day:>3}: {:>6} KiB", m.resident_bytes >> 10);
            }
            looks.push(look);
        }
    });
    let looks = looks.into_iter().collect::<Result<Vec<_>, _>>()?;
    println!("{name}: {probes} probes, {events} events");
    // Pages of the program itself come as it first needs them.
    let (middle, last) = (looks.get(looks.len() / 2), looks.last());
    match middle.zip(last) {
        Some((middle, last)) if last.resident_bytes > middle.resident_bytes + GROWTH_BYTES => {
            Err(Fail::Failed(format!("{name}: resident memory grows")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_that_nobody_gave_are_asked_for() {
        let of = |args: &[&str]| run(&Options::from_args(&["scenario"], args).unwrap());
        let why = of(&["year", "--memory"]).unwrap_err();
        assert!(matches!(&why, Fail::Usage(_)), "{why:?}");
        assert_eq!(
            why.to_string(),
            "--memory needs --days: say how many days are to be looked at, 120 to 400"
        );
        let why = of(&["year", "--memory", "--days", "30"]).unwrap_err();
        assert_eq!(
            why.to_string(),
            "with --memory, --days 30 is out of range; 120 to 400 is allowed"
        );
    }
}
