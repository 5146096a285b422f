//! Is a run the same each time, and on any number of threads?
//!
//! Each run leaves a hash of the whole mesh for each virtual second. Where those of two runs differ, both are run
//! again, and what happens in that second is recorded and compared event by event.

use std::ops::Range;
use std::time::Duration;

use super::{RunError, Runner};
use crate::model::{Happening, Options, Progress, Watched};
use crate::outcome::Outcome;
use crate::scenario::{Engine, ScenarioFile};

/// Runs that differ by chance differ elsewhere, or not at all, when they are run again: so often that is tried.
const TRIES_MAX: usize = 3;

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
    /// Where two of them part; nothing if they are the same, or were the same when they were run again.
    pub parting: Option<Parting>,
}

/// The first event that is not the same in two runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parting {
    /// The run that differs from the first one.
    pub run: usize,
    /// What happens in the first one; nothing if it has no more events in that span.
    pub first: Option<Happening>,
    /// What happens in the other one instead.
    pub other: Option<Happening>,
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
        differing.map(|(i, run)| (equal_seconds(&first.checkpoints, &run.checkpoints), i + 1)).min()
    }
}

impl Traced {
    fn new(threads: usize, outcome: Outcome) -> Self {
        Traced {
            threads,
            trace_hash: outcome.trace_hash,
            checkpoints: outcome.checkpoints,
            events: outcome.events,
            wall_seconds: outcome.cost.wall.as_secs_f64(),
        }
    }
}

/// Runs a scenario twice on one thread, then on each other number of threads. If runs differ, two of them are run
/// again to find the event with which that begins.
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
        runs.push(Traced::new(threads, outcome));
    }
    let mut verified = Verified { runs, parting: None };
    if let Some(difference) = verified.first_difference() {
        verified.parting = part(runner, file, &verified.runs, difference, progress)?;
    }
    Ok(verified)
}

/// Runs the first run and another one again, until the second in which they part was recorded of both.
fn part(
    runner: &dyn Runner,
    file: &ScenarioFile,
    runs: &[Traced],
    (mut second, run): (usize, usize),
    mut progress: impl FnMut(usize, Progress),
) -> Result<Option<Parting>, RunError> {
    let threads = [0, run].map(|run| runs.get(run).map_or(1, |run| run.threads));
    let mut number = runs.len();
    for _ in 0..TRIES_MAX {
        let mut watch = |threads| {
            let mut tell = |now| progress(number, now);
            let again = runner.watch(file, Options { threads, progress: Some(&mut tell) }, span(second));
            number += 1;
            again
        };
        let [Some(first), Some(other)] = [watch(threads[0])?, watch(threads[1])?] else { return Ok(None) };
        if let Some((first, other)) = first_apart(&first.happenings, &other.happenings) {
            return Ok(Some(Parting { run, first, other }));
        }
        second = difference(&first, &other).unwrap_or(second);
    }
    Ok(None)
}

/// The virtual second, and what may come after the last full one.
fn span(second: usize) -> Range<Duration> {
    let second = Duration::from_secs(second as u64);
    second..second + Duration::from_secs(1)
}

fn difference(first: &Watched, other: &Watched) -> Option<usize> {
    let (first, other) = (&first.outcome, &other.outcome);
    (first.trace_hash != other.trace_hash).then(|| equal_seconds(&first.checkpoints, &other.checkpoints))
}

fn equal_seconds(a: &[u64], b: &[u64]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The first element in which two records differ.
fn first_apart(first: &[Happening], other: &[Happening]) -> Option<(Option<Happening>, Option<Happening>)> {
    let equal = first.iter().zip(other).take_while(|(a, b)| a == b).count();
    let (a, b) = (first.get(equal).copied(), other.get(equal).copied());
    (a.is_some() || b.is_some()).then_some((a, b))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::experiment::Model;
    use crate::experiment::fake::Fake;
    use crate::model::{Happened, Machine};
    use crate::scenario::{Fault, FaultKind, Who};

    fn file() -> ScenarioFile {
        ScenarioFile::parse("x.toml", "", &[]).unwrap()
    }

    #[test]
    fn equal_runs_are_equal() {
        let verified = verify(&Fake::default(), &file(), &[1, 2], |_, _| {}).unwrap();
        let threads: Vec<_> = verified.runs.iter().map(|run| run.threads).collect();
        assert_eq!(threads, [1, 1, 2]);
        assert!(verified.is_equal());
        assert_eq!((verified.first_difference(), verified.parting), (None, None));
    }

    #[test]
    fn the_first_second_that_differs_is_found() {
        let fake = Fake { threads_change_second: Some(7), ..Fake::default() };
        let verified = verify(&fake, &file(), &[2, 3], |_, _| {}).unwrap();
        assert!(!verified.is_equal());
        assert_eq!(verified.first_difference(), Some((7, 2)));
        assert_eq!(verified.parting, None, "this engine cannot say more");
    }

    /// The model, with a clock that leaps at one node when there are several threads.
    struct Leaping {
        at: Duration,
        /// Runs that leap; after them none does.
        left: AtomicUsize,
    }

    impl Leaping {
        fn file(&self, file: &ScenarioFile, threads: usize) -> ScenarioFile {
            let mut file = file.clone();
            let take = |left: usize| left.checked_sub(1);
            if threads > 1 && self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
                let kind = FaultKind::ClockJump { by: Duration::from_millis(1) };
                file.scenario.faults.push(Fault { at: self.at, until: None, who: Who::Nodes(vec![3]), kind });
            }
            file
        }
    }

    impl Runner for Leaping {
        fn run(&self, file: &ScenarioFile, options: Options<'_>) -> Result<Outcome, RunError> {
            Model.run(&self.file(file, options.threads), options)
        }

        fn watch(
            &self,
            file: &ScenarioFile,
            options: Options<'_>,
            span: Range<Duration>,
        ) -> Result<Option<Watched>, RunError> {
            Model.watch(&self.file(file, options.threads), options, span)
        }
    }

    fn few() -> ScenarioFile {
        ScenarioFile::parse(
            "x.toml",
            "duration_ms = 9500\n[network]\nnodes = 12\n[workload]\nstart_ms = 3000\n",
            &[],
        )
        .unwrap()
    }

    fn leaping(at_ms: u64, runs: usize) -> Verified {
        let runner = Leaping { at: Duration::from_millis(at_ms), left: AtomicUsize::new(runs) };
        verify(&runner, &few(), &[2], |_, _| {}).unwrap()
    }

    #[test]
    fn the_first_event_that_differs_is_found() {
        for at_ms in [300, 4_310, 9_100] {
            let verified = leaping(at_ms, usize::MAX);
            let second = usize::try_from(at_ms / 1_000).unwrap();
            assert_eq!(verified.first_difference(), Some((second, 2)));
            let Some(Parting { run: 2, first: Some(first), other: Some(other) }) = verified.parting else {
                panic!("{:?}", verified.parting);
            };
            println!("{first}\n{other}");
            assert_ne!(first, other);
            let next = first.at_ns.min(other.at_ns);
            assert!(next >= at_ms * 1_000_000, "nothing differs before the clock leaps");
            assert!(next < (at_ms + 1_000) * 1_000_000, "and what comes next does");
            let earlier = if first.key() <= other.key() { first } else { other };
            // A timer of its own, or something that it says; the way of a frame depends on what it did before.
            let is_said = matches!(earlier.what, Happened::Frame(_, 3));
            assert!(earlier.node == 3 || is_said, "{earlier}");
        }
    }

    #[test]
    fn a_difference_that_does_not_come_again_is_told_as_such() {
        let verified = leaping(4_310, 1);
        assert_eq!(verified.first_difference(), Some((4, 2)));
        assert_eq!(verified.parting, None);
    }

    #[test]
    fn records_are_compared_to_the_end_of_both() {
        let happening =
            |at_ns| Happening { at_ns, node: 1, what: Happened::Timer(Machine::Gossip), trace: at_ns };
        let (a, b, c) = (happening(1), happening(2), happening(3));
        assert_eq!(first_apart(&[a, b], &[a, b]), None);
        assert_eq!(first_apart(&[a, c], &[a, b, c]), Some((Some(c), Some(b))));
        assert_eq!(first_apart(&[a], &[a, b]), Some((None, Some(b))));
        let other = Happening { trace: 9, ..b };
        assert_eq!(
            first_apart(&[a, b], &[a, other]),
            Some((Some(b), Some(other))),
            "by what it did to the node"
        );
        assert_eq!(a.to_string(), "0.000000001 s, node 1: gossip timer, trace 0000000000000001");
    }
}
