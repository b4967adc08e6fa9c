//! Each peer with one setting for everything, as people run it.

use std::fmt::Write as _;

use super::cells::{Healthy, KINDS, NEVER, RATES, SHAPES};
use super::compare::Compared;
use super::peers::{PEERS, grid};
use super::report::{Run, seconds, setup};

/// A setting of those with no more false rollbacks over all cells than rollbackd.
struct Fair<'a> {
    number: usize,
    /// In how many cells it finds half of the bad rollouts.
    found: usize,
    /// The cells in which it finds them sooner than rollbackd.
    faster: Vec<&'a Compared>,
    /// In how many it finds them at the same time.
    equal: usize,
}

/// The setting that is faster in most cells, and the one that finds the most.
pub(crate) fn write(run: &Run<'_>, text: &mut String) {
    let sum = |of: &dyn Fn(&Healthy) -> usize| -> usize {
        run.healthy.iter().map(|(_, cell)| of(cell)).sum()
    };
    let allowed = sum(&|cell| cell.rollbackd);
    let found = run.compared.iter().filter(|cell| cell.rollbackd.ticks[0].is_some()).count();
    writeln!(
        text,
        "\n### One setting for all\n\nWho runs a peer sets it once. Of the settings with no more \
         false rollbacks over all {} healthy rollouts than rollbackd ({allowed}), the one that is \
         faster in most of the {} cells, and the one that finds half of the bad rollouts in most \
         (rollbackd: {found}):\n\n| peer | setting | found | faster | equal | slower or never \
         |\n| --- | --- | --- | --- | --- | --- |",
        sum(&|cell| cell.runs),
        run.compared.len(),
    )
    .unwrap();
    let mut sooner = String::new();
    let mut first = 0;
    for peer in PEERS {
        let next = first + grid(peer).len();
        let numbers = (first..next).filter(|n| sum(&|cell| cell.peers[*n]) <= allowed);
        let fair: Vec<Fair<'_>> = numbers.map(|number| Fair::of(run, number)).collect();
        first = next;
        let fastest = fair.iter().max_by_key(|fair| (fair.faster.len(), fair.found));
        let broadest = fair.iter().max_by_key(|fair| (fair.found, fair.faster.len()));
        let (Some(fastest), Some(broadest)) = (fastest, broadest) else {
            writeln!(text, "| {} | none has as few | | | | |", peer.name()).unwrap();
            continue;
        };
        fastest.row(run, peer.name(), text);
        if broadest.number != fastest.number {
            broadest.row(run, peer.name(), text);
        }
        for cell in &fastest.faster {
            fastest.cell(peer.name(), cell, &mut sooner);
        }
    }
    if !sooner.is_empty() {
        writeln!(text, "\nWhere the fastest of them are faster, in the median:\n\n{sooner}")
            .unwrap();
    }
}

impl<'a> Fair<'a> {
    fn of(run: &Run<'a>, number: usize) -> Self {
        let own = |cell: &Compared| cell.rollbackd.median();
        let cells = || run.compared.iter();
        Self {
            number,
            found: cells().filter(|cell| cell.medians[number] != NEVER).count(),
            faster: cells().filter(|cell| cell.medians[number] < own(cell)).collect(),
            equal: cells()
                .filter(|cell| cell.medians[number] == own(cell) && own(cell) != NEVER)
                .count(),
        }
    }

    fn row(&self, run: &Run<'_>, name: &str, text: &mut String) {
        let Self { number, found, faster, equal } = self;
        let slower = run.compared.len() - faster.len() - equal;
        let setting = setup(&run.settings[*number]);
        let faster = faster.len();
        writeln!(text, "| {name} | {setting} | {found} | {faster} | {equal} | {slower} |").unwrap();
    }

    fn cell(&self, name: &str, cell: &Compared, text: &mut String) {
        let time = |ticks: u8| match ticks {
            NEVER => "not within the hour".to_owned(),
            ticks => format!("{} s", seconds(ticks)),
        };
        writeln!(
            text,
            "- {name}: {}× the failures, {}/s, {}, {}: {}, rollbackd {}",
            cell.factor,
            RATES[cell.place.rate],
            SHAPES[cell.place.shape].0,
            KINDS[cell.place.kind].0,
            time(cell.medians[self.number]),
            time(cell.rollbackd.median())
        )
        .unwrap();
    }
}
