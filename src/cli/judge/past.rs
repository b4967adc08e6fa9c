//! What the baseline did before the rollout.

use std::path::Path;

use super::counts::Labels;
use super::{JudgeArgs, open};
use crate::cli::CommandError;
use crate::domain::counts::Counts;
use crate::domain::narrow::Part;

/// A file of history, tick by tick, and by slice.
#[derive(Default)]
pub(super) struct Past {
    ticks: Vec<(Counts, Vec<Part>)>,
    /// Whether a row of it is the baseline's.
    pub(super) has_baseline: bool,
}

impl Past {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// When it does not read.
    pub(super) fn read(
        args: &JudgeArgs,
        path: &Path,
        labels: &[String],
    ) -> Result<Self, CommandError> {
        let mut file = open(args, path, &Labels::Same(labels.to_vec()))?;
        let mut ticks = Vec::new();
        while let Some(tick) = file.next_tick()? {
            ticks.push((tick.baseline.unwrap_or_default(), tick.parts.baseline));
        }
        Ok(Self { ticks, has_baseline: file.has_baseline() })
    }

    /// All of it, put together to at most `chunks` chunks of the same number of ticks.
    pub(super) fn chunked(&self, chunks: u32) -> (Vec<Counts>, Vec<Vec<Part>>) {
        let past = &self.ticks;
        let chunks = usize::try_from(chunks).unwrap_or(usize::MAX).max(1);
        let size = past.len().div_ceil(chunks).max(1);
        // Live sessions add up as in a pooled tick: they are at risk for all of the chunk.
        let sum = |ticks: &[(Counts, Vec<Part>)]| {
            ticks.iter().fold(Counts::default(), |sum, (tick, _)| sum + *tick)
        };
        let parts = |ticks: &[(Counts, Vec<Part>)]| {
            ticks.iter().flat_map(|(_, parts)| parts.iter().cloned()).collect()
        };
        (past.chunks(size).map(sum).collect(), past.chunks(size).map(parts).collect())
    }
}
