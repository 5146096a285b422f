//! Is a run the same each time, and on any number of threads?

use super::{RunError, Runner};
use crate::model::{Options, Progress};
use crate::scenario::{Engine, ScenarioFile};

/// One of the runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Traced {
    /// On how many threads.
    pub threads: usize,
    /// A hash of everything that happened.
    pub trace_hash: [u8; 32],
    /// A hash of the whole run at each virtual second.
    pub checkpoints: Vec<u64>,
    /// Events worked off.
    pub events: u64,
    /// Real time in seconds.
    pub wall_seconds: f64,
}

/// Several runs of one scenario.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    /// In the order in which they ran.
    pub runs: Vec<Traced>,
}

impl Verified {
    /// Whether all are the same.
    pub fn is_equal(&self) -> bool {
        self.runs.windows(2).all(|pair| matches!(pair, [a, b] if a.trace_hash == b.trace_hash))
    }

    /// The first virtual second by whose end some run differs from the first one, and which run.
    ///
    /// Runs whose hashes differ after equal seconds differ after the last full second.
    pub fn first_difference(&self) -> Option<(usize, usize)> {
        let (first, others) = self.runs.split_first()?;
        let differing = others.iter().enumerate().filter(|(_, run)| run.trace_hash != first.trace_hash);
        let second = |run: &Traced| {
            let pairs = first.checkpoints.iter().zip(&run.checkpoints);
            pairs.take_while(|(a, b)| a == b).count()
        };
        differing.map(|(i, run)| (second(run), i + 1)).min()
    }
}

/// Runs a scenario twice on one thread, then on each other number of threads.
///
/// # Errors
/// As [`Runner::run`]; and [`RunError::RealTime`] if no two runs of the engine are the same.
pub fn verify(
    runner: &dyn Runner,
    file: &ScenarioFile,
    threads: &[usize],
    mut progress: impl FnMut(usize, Progress),
) -> Result<Verified, RunError> {
    if file.engine == Engine::Libp2p {
        return Err(RunError::RealTime(file.engine));
    }
    let mut all = vec![1, 1];
    for &number in threads {
        if !all.contains(&number) {
            all.push(number);
        }
    }
    let mut runs = Vec::new();
    for (i, threads) in all.into_iter().enumerate() {
        let mut tell = |now| progress(i, now);
        let outcome = runner.run(file, Options { threads, progress: Some(&mut tell) })?;
        runs.push(Traced {
            threads,
            trace_hash: outcome.trace_hash,
            checkpoints: outcome.checkpoints,
            events: outcome.events,
            wall_seconds: outcome.cost.wall.as_secs_f64(),
        });
    }
    Ok(Verified { runs })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::fake::Fake;

    fn file() -> ScenarioFile {
        ScenarioFile::parse("x.toml", "", &[]).unwrap()
    }

    #[test]
    fn equal_runs_are_equal() {
        let verified = verify(&Fake::default(), &file(), &[1, 2], |_, _| {}).unwrap();
        let threads: Vec<_> = verified.runs.iter().map(|run| run.threads).collect();
        assert_eq!(threads, [1, 1, 2]);
        assert!(verified.is_equal());
        assert_eq!(verified.first_difference(), None);
    }

    #[test]
    fn the_first_second_that_differs_is_found() {
        let fake = Fake { threads_change_second: Some(7), ..Fake::default() };
        let verified = verify(&fake, &file(), &[2, 3], |_, _| {}).unwrap();
        assert!(!verified.is_equal());
        assert_eq!(verified.first_difference(), Some((7, 2)));
    }
}
