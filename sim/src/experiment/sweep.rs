//! Many runs: all combinations of values, each with several seeds, on all cores.

use std::io;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use data_encoding::HEXLOWER;
use serde::Serialize;
use statrs::distribution::{ContinuousCDF, StudentsT};

use super::metrics::{METRICS, Metric, MetricKind};
use super::{RunError, Runner, refuse_others, run};
use crate::checkers::Checked;
use crate::model::Options;
use crate::scenario::{Check, Engine, Override, ScenarioFile, memory};
use crate::summary::Summary;

/// The name of the failure of a run that came to no end.
pub const ENGINE: &str = "engine";
/// The table of all runs, by which a sweep's folder is known.
pub const RUNS: &str = "runs.csv";
/// The table of all combinations.
const COMBINATIONS: &str = "combinations.csv";
/// More runs than this are a mistake.
const CASES_MAX: usize = 1_000_000;

/// A key of the scenario and the values that it takes in turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Axis {
    /// As in [`Override::path`].
    pub path: String,
    /// As in [`Override::value`].
    pub values: Vec<String>,
}

impl Axis {
    /// Reads `network.nodes=50,100,200`. Commas within `[…]`, `{…}` and quotes do not separate.
    ///
    /// # Errors
    /// If there is no key or no value.
    pub fn parse(text: &str) -> Result<Self, RunError> {
        let wrong =
            || RunError::Sweep(format!("`{text}` is not KEY=VALUE[,VALUE…], as in network.nodes=50,100"));
        let (path, values) = text.split_once('=').ok_or_else(wrong)?;
        let list: Result<toml_edit::Array, _> = format!("[{values}]")
            .parse::<toml_edit::Value>()
            .map(|value| value.as_array().cloned().unwrap_or_default());
        let values: Vec<String> = match list {
            Ok(list) => list.iter().map(|value| value.to_string().trim().to_owned()).collect(),
            Err(_) => values.split(',').map(|value| value.trim().to_owned()).collect(),
        };
        let path = path.trim().to_owned();
        if path.is_empty() || values.is_empty() || values.iter().any(String::is_empty) {
            return Err(wrong());
        }
        Ok(Axis { path, values })
    }
}

/// One run of a sweep.
#[derive(Clone, Debug)]
pub struct Case {
    /// Which combination of values: an index into [`Plan::combinations`].
    pub combination: usize,
    /// The seed.
    pub seed: u64,
    /// The scenario with its values.
    pub file: ScenarioFile,
}

/// All runs of a sweep, each valid.
///
/// The check `bounded_memory` is left out: what a run holds cannot be told in a process that has had others.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The keys that are varied.
    pub paths: Vec<String>,
    /// For each combination a value for each path.
    pub combinations: Vec<Vec<String>>,
    /// The runs: all seeds of the first combination, then those of the next.
    pub cases: Vec<Case>,
}

impl Plan {
    /// All combinations of the axes' values, each with so many seeds, from that of the scenario on.
    ///
    /// # Errors
    /// If one of the scenarios cannot be simulated: before any is run.
    pub fn new(base: &ScenarioFile, axes: &[Axis], seeds: u32) -> Result<Self, RunError> {
        for (i, axis) in axes.iter().enumerate() {
            if axes.iter().take(i).any(|other| other.path == axis.path) {
                return Err(RunError::Sweep(format!(
                    "`{}` is set twice: write all its values at once",
                    axis.path
                )));
            }
        }
        let combinations = combinations(axes);
        let runs = combinations.len().saturating_mul(seeds as usize);
        if runs == 0 || runs > CASES_MAX {
            return Err(RunError::Sweep(format!("{runs} runs: there must be 1 to {CASES_MAX}")));
        }
        let has_seed_axis = axes.iter().any(|axis| axis.path == "seed");
        if has_seed_axis && seeds > 1 {
            return Err(RunError::Sweep("`seed` is varied already: leave one of the two out".to_owned()));
        }
        let mut cases = Vec::with_capacity(runs);
        for (combination, values) in combinations.iter().enumerate() {
            let pairs = axes.iter().zip(values);
            let mut overrides: Vec<_> = pairs
                .map(|(axis, value)| Override::new(&axis.path, value, format!("--set {}={value}", axis.path)))
                .collect();
            let first = ScenarioFile::parse_here(&base.origin, &base.text, &overrides)?;
            for number in 0..seeds {
                let seed = first.scenario.seed.wrapping_add(u64::from(number)) & (u64::MAX >> 1);
                overrides.push(Override::new("seed", seed, "--seeds"));
                let mut file = ScenarioFile::parse(&base.origin, &base.text, &overrides)?;
                file.scenario.checks.retain(|check| !matches!(check, Check::BoundedMemory { .. }));
                overrides.pop();
                cases.push(Case { combination, seed, file });
            }
        }
        Ok(Plan { paths: axes.iter().map(|axis| axis.path.clone()).collect(), combinations, cases })
    }

    /// How many runs may go on at once: one for each core, as many as memory holds, and one alone of those in real
    /// time, which would disturb each other.
    pub fn jobs(&self, cores: usize) -> usize {
        if self.cases.iter().any(|case| case.file.engine == Engine::Libp2p) {
            return 1;
        }
        let largest =
            self.cases.iter().map(|case| memory::estimate_bytes(&case.file.scenario, case.file.engine)).max();
        let fit = memory::available_bytes().zip(largest).map(|(free, each)| free / each.max(1));
        let fit = fit.map_or(usize::MAX, |fit| usize::try_from(fit).unwrap_or(usize::MAX));
        cores.min(fit).min(self.cases.len()).max(1)
    }
}

fn combinations(axes: &[Axis]) -> Vec<Vec<String>> {
    let mut all = vec![Vec::new()];
    for axis in axes {
        let longer = |shorter: &Vec<String>, value: &String| {
            let mut longer = shorter.clone();
            longer.push(value.clone());
            longer
        };
        all = all
            .iter()
            .flat_map(|shorter| axis.values.iter().map(move |value| longer(shorter, value)))
            .collect();
    }
    all
}

/// What came of one run of a sweep.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// Which combination of values.
    pub combination: usize,
    /// The seed.
    pub seed: u64,
    /// A hash of everything that happened, in hex; `None` if the engine failed.
    pub trace_hash: Option<String>,
    /// Its numbers; `None` if the engine failed.
    pub summary: Option<Summary>,
    /// The checks that are not fulfilled; [`ENGINE`] if the engine failed.
    pub failures: Vec<Checked>,
}

impl Finished {
    /// Whether all checks are fulfilled.
    pub fn is_ok(&self) -> bool {
        self.failures.is_empty()
    }

    fn metric(&self, metric: &Metric) -> Option<f64> {
        self.summary.as_ref().and_then(metric.of)
    }
}

/// A mean and where it lies with 95 % confidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// Over how many runs: those in which the number has a value.
    pub runs: usize,
    /// The mean.
    pub mean: f64,
    /// Half the length of the 95 % confidence interval; `None` for a single run.
    pub half_width: Option<f64>,
}

impl Interval {
    /// Of independent values, by Student's t distribution.
    pub fn of(values: &[f64]) -> Option<Interval> {
        let runs = values.len();
        let mean = crate::stats::mean(values.iter().copied())?;
        if runs < 2 {
            return Some(Interval { runs, mean, half_width: None });
        }
        let freedom = (runs - 1) as f64;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / freedom;
        let quantile = StudentsT::new(0.0, 1.0, freedom).map(|t| t.inverse_cdf(0.975)).ok();
        Some(Interval { runs, mean, half_width: quantile.map(|t| t * (variance / runs as f64).sqrt()) })
    }
}

/// All runs of one combination.
#[derive(Clone, Debug, PartialEq)]
pub struct Combination {
    /// The value of each path.
    pub values: Vec<String>,
    /// How many runs.
    pub runs: usize,
    /// In how many all checks are fulfilled.
    pub passed: usize,
    /// For each number that has a value in some run: its name, mean and confidence.
    pub metrics: Vec<(&'static str, Interval)>,
}

/// What came of a sweep.
#[derive(Clone, Debug, PartialEq)]
pub struct Swept {
    /// The keys that were varied.
    pub paths: Vec<String>,
    /// In the order of the plan.
    pub combinations: Vec<Combination>,
    /// In the order of the plan.
    pub runs: Vec<Finished>,
}

impl Swept {
    /// The runs in which a check is not fulfilled.
    pub fn failed(&self) -> impl Iterator<Item = &Finished> {
        self.runs.iter().filter(|run| !run.is_ok())
    }

    fn new(plan: &Plan, runs: Vec<Finished>) -> Self {
        let combination = |(i, values): (usize, &Vec<String>)| {
            let runs: Vec<_> = runs.iter().filter(|run| run.combination == i).collect();
            let is_own = |metric: &&Metric| metric.kind == MetricKind::Result;
            let interval = |metric: &Metric| {
                let values: Vec<_> = runs.iter().filter_map(|run| run.metric(metric)).collect();
                Some((metric.name, Interval::of(&values)?))
            };
            Combination {
                values: values.clone(),
                runs: runs.len(),
                passed: runs.iter().filter(|run| run.is_ok()).count(),
                metrics: METRICS.iter().filter(is_own).filter_map(interval).collect(),
            }
        };
        let combinations = plan.combinations.iter().enumerate().map(combination).collect();
        Swept { paths: plan.paths.clone(), combinations, runs }
    }
}

/// Runs all cases of a plan, so many at once, each on one thread; one after the other if any is in real time.
/// `progress` is told of each that is done.
///
/// # Errors
/// As [`Runner::run`], but for an engine that fails: that is noted with the seed.
pub fn sweep(
    runner: &dyn Runner,
    plan: &Plan,
    jobs: NonZeroUsize,
    progress: impl Fn(&Finished) + Sync,
) -> Result<Swept, RunError> {
    // Two at once would slow each other down.
    let is_real_time = plan.cases.iter().any(|case| case.file.engine == Engine::Libp2p);
    let jobs = if is_real_time { NonZeroUsize::MIN } else { jobs };
    let next = AtomicUsize::new(0);
    let is_over = AtomicBool::new(false);
    let results: Mutex<Vec<(usize, Result<Finished, RunError>)>> = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..jobs.get() {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = plan.cases.get(index) else { break };
                    let result = finish(runner, case);
                    match &result {
                        Ok(finished) => progress(finished),
                        Err(_) => is_over.store(true, Ordering::Relaxed),
                    }
                    results.lock().expect("no job panics while it holds the lock").push((index, result));
                }
            });
        }
    });
    let mut results = results.into_inner().expect("no job panics while it holds the lock");
    results.sort_by_key(|(index, _)| *index);
    let runs = results.into_iter().map(|(_, result)| result).collect::<Result<Vec<_>, _>>()?;
    Ok(Swept::new(plan, runs))
}

/// An engine that fails with one seed says something about that seed: the others go on.
fn finish(runner: &dyn Runner, case: &Case) -> Result<Finished, RunError> {
    let finished = |trace_hash, summary, failures| Finished {
        combination: case.combination,
        seed: case.seed,
        trace_hash,
        summary,
        failures,
    };
    match run(runner, &case.file, Options { threads: 1, progress: None }) {
        Ok(done) => {
            let failures = done.failed().cloned().collect();
            Ok(finished(Some(HEXLOWER.encode(&done.outcome.trace_hash)), Some(done.summary), failures))
        }
        Err(RunError::Failed { cause, .. }) => {
            let failure = Checked { name: ENGINE.to_owned(), ok: false, detail: cause };
            Ok(finished(None, None, vec![failure]))
        }
        Err(error) => Err(error),
    }
}

/// Writes `runs.csv`, a row for each run, and `combinations.csv`, a row for each combination with the mean of each
/// number and half the length of its 95 % confidence interval.
///
/// # Errors
/// If the folder cannot be written.
pub fn write_csv(dir: &Path, swept: &Swept) -> Result<(), RunError> {
    let failed = |source| RunError::Write { path: dir.to_owned(), source };
    refuse_others(dir, RUNS)?;
    std::fs::create_dir_all(dir).map_err(failed)?;
    write_runs(&dir.join(RUNS), swept).map_err(failed)?;
    write_combinations(&dir.join(COMBINATIONS), swept).map_err(failed)
}

fn write_runs(path: &Path, swept: &Swept) -> io::Result<()> {
    let mut csv = csv::Writer::from_path(path)?;
    let heads = ["seed", "ok", "failed_checks", "trace_hash"].map(str::to_owned);
    let metrics = || METRICS.iter().filter(|metric| metric.kind != MetricKind::Memory);
    let names = metrics().map(|metric| metric.name.to_owned());
    csv.write_record(swept.paths.iter().cloned().chain(heads).chain(names))?;
    for run in &swept.runs {
        let values = swept.combinations.get(run.combination).map_or(&[][..], |of| of.values.as_slice());
        let failed: Vec<_> = run.failures.iter().map(|checked| checked.name.as_str()).collect();
        let trace_hash = run.trace_hash.clone().unwrap_or_default();
        let facts = [run.seed.to_string(), run.is_ok().to_string(), failed.join(" "), trace_hash];
        let numbers = metrics().map(|metric| number(run.metric(metric)));
        csv.write_record(values.iter().cloned().chain(facts).chain(numbers))?;
    }
    csv.flush()
}

fn write_combinations(path: &Path, swept: &Swept) -> io::Result<()> {
    let mut csv = csv::Writer::from_path(path)?;
    let metrics = || METRICS.iter().filter(|metric| metric.kind == MetricKind::Result);
    let heads = ["runs", "passed"].map(str::to_owned);
    let names = metrics().flat_map(|metric| [metric.name.to_owned(), format!("{}.ci95", metric.name)]);
    csv.write_record(swept.paths.iter().cloned().chain(heads).chain(names))?;
    for of in &swept.combinations {
        let facts = [of.runs.to_string(), of.passed.to_string()];
        let numbers = metrics().flat_map(|metric| {
            let interval =
                of.metrics.iter().find(|(name, _)| *name == metric.name).map(|(_, interval)| interval);
            [number(interval.map(|i| i.mean)), number(interval.and_then(|i| i.half_width))]
        });
        csv.write_record(of.values.iter().cloned().chain(facts).chain(numbers))?;
    }
    csv.flush()
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::fake::Fake;

    fn base() -> ScenarioFile {
        ScenarioFile::parse("x.toml", "seed = 5\n", &[]).unwrap()
    }

    fn axis(text: &str) -> Axis {
        Axis::parse(text).unwrap()
    }

    #[test]
    fn axes_are_lists_of_values() {
        let values = |text: &str| axis(text).values;
        assert_eq!(values("network.nodes=50,100"), ["50", "100"]);
        assert_eq!(values("links.latency=uniform, constant"), ["uniform", "constant"]);
        assert_eq!(values("faults.0.nodes=[1,2],[3]"), ["[1,2]", "[3]"]);
        assert_eq!(values("gossip.score=true"), ["true"]);
        for wrong in ["nodes", "=1", "nodes=", "nodes=1,,2,"] {
            assert!(Axis::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn all_combinations_are_planned_with_all_seeds() {
        let plan =
            Plan::new(&base(), &[axis("network.nodes=50,60"), axis("links.loss=0,0.1,0.2")], 4).unwrap();
        assert_eq!(plan.combinations.len(), 6);
        assert_eq!(plan.combinations[1], ["50", "0.1"]);
        assert_eq!(plan.cases.len(), 24);
        let case = &plan.cases[7];
        assert_eq!((case.combination, case.seed, case.file.scenario.seed), (1, 8, 8));
        assert_eq!(case.file.scenario.network.nodes, 50);
        assert!((case.file.scenario.links.loss - 0.1).abs() < 1e-9);
        assert!(plan.jobs(8) >= 1 && plan.jobs(8) <= 8);
    }

    #[test]
    fn a_plan_that_cannot_be_run_is_refused_before_it_begins() {
        let refused = |axes: &[Axis], seeds| Plan::new(&base(), axes, seeds).unwrap_err().to_string();
        let told = refused(&[axis("network.nodes=50,1")], 1);
        assert!(told.starts_with("--set network.nodes=1: network.nodes = 1: 1 node is no mesh"), "{told}");
        assert!(refused(&[axis("seed=1,2")], 2).contains("varied already"));
        assert!(refused(&[axis("seed=1"), axis("seed=2")], 1).contains("set twice"));
        assert!(refused(&[], 0).contains("0 runs"));
    }

    #[test]
    fn confidence_is_that_of_students_t() {
        // t(0.975, 4) = 2.776; s = sqrt(2.5).
        let interval = Interval::of(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        assert!((interval.mean - 3.0).abs() < 1e-12);
        assert!((interval.half_width.unwrap() - 2.776_445 * (2.5f64 / 5.0).sqrt()).abs() < 1e-4);
        assert_eq!(Interval::of(&[7.0]), Some(Interval { runs: 1, mean: 7.0, half_width: None }));
        assert_eq!(Interval::of(&[]), None);
    }

    #[test]
    fn results_do_not_depend_on_how_many_run_at_once() {
        let plan = Plan::new(&base(), &[axis("network.nodes=50,60")], 5).unwrap();
        let swept = |jobs| sweep(&Fake::default(), &plan, NonZeroUsize::new(jobs).unwrap(), |_| {}).unwrap();
        let one = swept(1);
        assert_eq!(one, swept(4));
        assert_eq!(one.runs.iter().map(|run| run.seed).collect::<Vec<_>>(), [5, 6, 7, 8, 9, 5, 6, 7, 8, 9]);
        assert_eq!(one.combinations[1].values, ["60"]);
        assert_eq!((one.combinations[1].runs, one.combinations[1].metrics.len() > 10), (5, true));
    }

    #[test]
    fn a_seed_with_which_the_engine_fails_is_named_and_the_others_go_on() {
        let plan = Plan::new(&base(), &[], 5).unwrap();
        let fake = Fake { fails_with_seed: Some(7), ..Fake::default() };
        let swept = sweep(&fake, &plan, NonZeroUsize::MIN, |_| {}).unwrap();
        let failed: Vec<_> = swept.failed().filter(|run| run.failures[0].name == ENGINE).collect();
        assert_eq!((failed.len(), failed[0].seed, failed[0].failures[0].detail.as_str()), (1, 7, "as told"));
        assert_eq!((swept.runs.len(), swept.combinations[0].metrics[0].1.runs), (5, 4));
    }

    #[test]
    fn tables_have_a_row_for_each_run_and_each_combination() {
        let plan = Plan::new(&base(), &[axis("network.nodes=50,60")], 3).unwrap();
        let swept = sweep(&Fake::default(), &plan, NonZeroUsize::MIN, |_| {}).unwrap();
        let dir = tempfile::tempdir().unwrap();
        write_csv(dir.path(), &swept).unwrap();
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        let (runs, combinations) = (read("runs.csv"), read("combinations.csv"));
        assert_eq!((runs.lines().count(), combinations.lines().count()), (7, 3));
        assert!(runs.starts_with("network.nodes,seed,ok,failed_checks,trace_hash,delivery_ratio,"), "{runs}");
        assert!(combinations.starts_with("network.nodes,runs,passed,delivery_ratio,delivery_ratio.ci95,"));
        assert!(combinations.contains("\n60,3,"), "{combinations}");
    }
}
