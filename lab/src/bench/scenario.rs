//! `scenario`: the detectors held against simulated lines that know what they did.

use argh::FromArgs;
use bufferbane_sim::scenario::{list, table};

use super::{Fail, within};

/// What is told of simulated lines against what happened on them: precision, recall, direction,
/// begin and end of each kind of event, and the first verdict.
#[derive(Clone, Debug, FromArgs)]
#[argh(
    subcommand,
    name = "scenario",
    note = "Example: bufferbane-lab scenario all --first-seed 101"
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
}

/// Runs them and prints what came of it.
///
/// # Errors
/// [`Fail::Usage`] where no scenario has that name; [`Fail::Failed`] where what is told is not good
/// enough, see [`table::Table::good`].
pub fn run(options: &Options) -> Result<(), Fail> {
    within("--seeds", options.seeds, 1..=1000)?;
    if let Some(days) = options.days {
        within("--days", days, 1..=400)?;
    }
    let usual = || list::ALL.iter().chain(&list::MIXED);
    let all = || usual().chain(&list::MONTHS);
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
    let seeds = options.first_seed..options.first_seed + options.seeds;
    let table = table::run(&chosen, seeds, options.days, options.verbose);
    print!("{}", table.text);
    if table.good {
        Ok(())
    } else {
        Err(Fail::Failed("what is told is not good enough".into()))
    }
}
