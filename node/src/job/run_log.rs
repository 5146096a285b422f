//! What became of a job and what that cost: times, shares, the bottleneck, and what to change.

use std::collections::BTreeMap;

use omnimesh_protocol::compute::TaskRef;
use omnimesh_protocol::compute::job::{Each, TaskSpec};
use omnimesh_protocol::compute::ledger::{JobState, JobView};

use super::document::{self, family_name, ratio};
use super::history::{JobHistory, Tally};
use super::stats::{FamilyStats, Stats};
use super::{Clock, Seen};
use crate::api::types::{
    FamilyLog, JobLog, JobSummary, JobTimes, JobTroubles, PathTask, Suggestion, WorkerShare,
};
use crate::words;

/// Tasks of the longest chain that are told: so many from each end.
const PATH_MAX: usize = 32;
/// Below this, what a task costs beside its work counts: an assignment, a signature, its part of an entry. Guess.
const SHORT_TASK_MS: u64 = 50;

/// The run log of a job.
pub fn run_log(seen: &Seen<'_>, clock: &Clock, view: &JobView<'_>) -> JobLog {
    let stats = Stats::of(seen, view);
    let history = seen.history.job(&view.id());
    let nothing = BTreeMap::new();
    let tallies = history.map_or(&nothing, JobHistory::families);
    let job = document::summary_of(seen, clock, view, &stats);
    let times = times(seen, clock, view, &stats);
    let families = families(view, &stats, tallies);
    let troubles = troubles(history, tallies);
    let workers = document::shares(&stats);
    let slots: u64 = seen.driver.workers(seen.now).iter().map(|worker| u64::from(worker.offer.slots)).sum();
    let wrong = document::wrong(seen, view).len();
    let advisor =
        Advisor { view, stats: &stats, job: &job, times: &times, families: &families, slots, wrong };
    let bottleneck = advisor.bottleneck();
    let suggestions = advisor.suggestions(&troubles, &workers);
    let names = document::names(view);
    let events = history.map_or_else(Vec::new, JobHistory::events);
    JobLog {
        critical_path: critical_path(view, &stats),
        bottleneck,
        suggestions,
        events: events.into_iter().map(|event| document::event(clock, &names, event)).collect(),
        events_forgotten: history.map_or(0, JobHistory::forgotten),
        job,
        times,
        families,
        workers,
        troubles,
    }
}

fn times(seen: &Seen<'_>, clock: &Clock, view: &JobView<'_>, stats: &Stats) -> JobTimes {
    let (submitted_ms, ended_ms) = document::moments(seen, clock, view);
    let started = seen.history.job(&view.id()).and_then(JobHistory::started);
    let elapsed_ms = ended_ms.unwrap_or(clock.now()).saturating_sub(submitted_ms).max(stats.done_ms());
    JobTimes {
        submitted_ms,
        started_ms: started.map(|time| clock.at(time)),
        ended_ms,
        elapsed_ms,
        work_ms: stats.work_ms,
        cpu_ms: stats.cpu_ms,
        critical_path_ms: stats.critical_ms,
        parallelism: ratio(stats.work_ms, elapsed_ms),
    }
}

fn families(view: &JobView<'_>, stats: &Stats, tallies: &BTreeMap<u16, Tally>) -> Vec<FamilyLog> {
    let family = |(place, family): (u16, &FamilyStats)| {
        let spec = &view.spec().tasks[usize::from(place)];
        let nothing = Tally::default();
        let tally = tallies.get(&place).unwrap_or(&nothing);
        FamilyLog {
            name: spec.name.clone(),
            operation: spec.action.operation.clone(),
            tasks: view.plan().count(place),
            counts: family.counts,
            times: family.times,
            attempts: tally.attempts,
            failures: tally.failures,
            losses: tally.losses,
            stragglers: tally.stragglers,
            critical_ms: family.critical_ms,
            output_bytes: family.output_bytes,
        }
    };
    (0_u16..).zip(&stats.families).map(family).collect()
}

fn troubles(history: Option<&JobHistory>, tallies: &BTreeMap<u16, Tally>) -> JobTroubles {
    let mut troubles = JobTroubles {
        // The submitter is the first.
        drivers: history.map_or(0, |history| history.drivers().saturating_sub(1)),
        held: history.map_or(0, JobHistory::held),
        ..JobTroubles::default()
    };
    for tally in tallies.values() {
        troubles.attempts += tally.attempts;
        troubles.failures += tally.failures;
        troubles.losses += tally.losses;
        troubles.stragglers += tally.stragglers;
        troubles.ties += tally.ties;
        troubles.restored += tally.restored;
        for (reason, count) in &tally.reasons {
            *troubles.reasons.entry((*reason).to_owned()).or_default() += count;
        }
    }
    troubles
}

fn critical_path(view: &JobView<'_>, stats: &Stats) -> Vec<PathTask> {
    let path = &stats.critical_path;
    let (first, last) = if path.len() > 2 * PATH_MAX {
        (&path[..PATH_MAX], &path[path.len() - PATH_MAX..])
    } else {
        (&path[..], &path[..0])
    };
    let step = |step: &super::stats::PathStep| PathTask {
        task: family_name(view.spec(), step.task.task).to_owned(),
        chunk: step.task.chunk,
        wall_ms: step.wall_ms,
        worker: view.record(step.task).and_then(|record| record.commit.workers.first().copied()),
    };
    first.iter().chain(last).map(step).collect()
}

/// Reads figures, and says what follows from them.
struct Advisor<'a> {
    view: &'a JobView<'a>,
    stats: &'a Stats,
    job: &'a JobSummary,
    times: &'a JobTimes,
    families: &'a [FamilyLog],
    /// Attempts that all workers could run at once now.
    slots: u64,
    /// Workers that have signed wrong results.
    wrong: usize,
}

impl Advisor<'_> {
    fn spec(&self, family: &FamilyLog) -> Option<&TaskSpec> {
        self.view.spec().tasks.iter().find(|spec| spec.name == family.name)
    }

    /// What held the job up most.
    fn bottleneck(&self) -> String {
        let elapsed = self.times.elapsed_ms;
        if self.stats.results() == 0 {
            return match &self.job.held {
                Some(held) => format!("no task has a result yet; {held}"),
                None => "no task has a result yet".to_owned(),
            };
        }
        let Some(most) = self.families.iter().max_by_key(|family| family.critical_ms) else {
            return "the job has no tasks".to_owned();
        };
        let chain = self.times.critical_path_ms;
        let share = percent(ratio(most.critical_ms, chain));
        let mut text = format!(
            "`{}` makes {share} of the longest chain of tasks that wait for one another ({} of {})",
            most.name,
            words::duration(most.critical_ms),
            words::duration(chain)
        );
        let place = self.view.spec().task(&most.name);
        let slowest = place
            .and_then(|place| self.stats.families.get(usize::from(place)))
            .and_then(|family| family.slowest);
        if let Some((task, wall)) = slowest.filter(|(task, wall)| self.is_straggler(*task, *wall)) {
            let who = self.view.record(task).and_then(|record| record.commit.workers.first());
            let at = who.map_or_else(String::new, |worker| format!(" at {worker}"));
            text += &format!(
                "; one of them, {}/{}{at}, took {}, where half of its like take {} at most",
                most.name,
                task.chunk,
                words::duration(wall),
                words::duration(most.times.p50_ms)
            );
        }
        let waited = elapsed.saturating_sub(chain);
        text += &format!(
            ". Of {} that passed {} were that chain; the other {} went to waiting for workers, data and the log",
            words::duration(elapsed),
            words::duration(chain.min(elapsed)),
            words::duration(waited)
        );
        text
    }

    /// Whether a task took three times as long as its like, and it matters.
    fn is_straggler(&self, task: TaskRef, wall: u64) -> bool {
        let family = self.stats.families.get(usize::from(task.task));
        let is_on_path = self.stats.critical_path.iter().any(|step| step.task == task);
        is_on_path
            && family
                .is_some_and(|family| family.times.done >= 4 && wall > family.times.p50_ms.saturating_mul(3))
    }

    fn suggestions(&self, troubles: &JobTroubles, workers: &[WorkerShare]) -> Vec<Suggestion> {
        let mut found = Vec::new();
        for family in self.families {
            self.on_chunks(family, &mut found);
        }
        self.on_failures(troubles, &mut found);
        self.on_trust(troubles, &mut found);
        self.on_use(workers, &mut found);
        found
    }

    fn on_chunks(&self, family: &FamilyLog, found: &mut Vec<Suggestion>) {
        let Some(spec) = self.spec(family) else { return };
        let name = &family.name;
        let times = family.times;
        let is_half_done = times.done > 0 && times.done >= family.tasks / 2;
        let what = match spec.each {
            Some(Each::Chunk { .. }) => "chunks (`bytes` in for_each)",
            Some(Each::Output { .. }) => "groups (`group` in for_each)",
            None => return,
        };
        let is_in_the_way = family.critical_ms * 4 >= self.times.critical_path_ms;
        if is_half_done && family.tasks >= 32 && times.p50_ms < SHORT_TASK_MS {
            found.push(Suggestion {
                advice: format!("give `{name}` larger {what}"),
                because: format!(
                    "half of its {} tasks take {} at most, so that giving them away costs more than doing them",
                    family.tasks,
                    words::duration(times.p50_ms)
                ),
            });
        } else if is_half_done
            && is_in_the_way
            && u64::from(family.tasks) < self.slots
            && times.p50_ms > 20 * SHORT_TASK_MS
        {
            found.push(Suggestion {
                advice: format!("give `{name}` smaller {what}"),
                because: format!(
                    "it has {} tasks of {} for {} places at workers: the others were idle meanwhile",
                    family.tasks,
                    words::duration(times.p50_ms),
                    self.slots
                ),
            });
        } else if is_half_done
            && is_in_the_way
            && times.done >= 8
            && times.max_ms > 3 * times.p50_ms.max(SHORT_TASK_MS)
        {
            found.push(Suggestion {
                advice: format!(
                    "give `{name}` smaller {what}, or see with `omnimesh workers` whether one worker is slow"
                ),
                because: format!(
                    "its longest task took {}, {:.1} times the median of {}",
                    words::duration(times.max_ms),
                    ratio(times.max_ms, times.p50_ms),
                    words::duration(times.p50_ms)
                ),
            });
        }
    }

    fn on_failures(&self, troubles: &JobTroubles, found: &mut Vec<Suggestion>) {
        for (reason, advice) in [
            ("memory_limit", "raise `limits.memory`, or use smaller chunks"),
            ("cpu_limit", "raise `limits.cpu`, or use smaller chunks"),
            ("wall_limit", "raise `limits.wall`, or use smaller chunks"),
            ("output_limit", "raise `limits.output`, or use smaller chunks"),
            (
                "blob_missing",
                "pin the inputs at more than one node (`omnimesh blob get` and `blob pin` there)",
            ),
        ] {
            if let Some(count) = troubles.reasons.get(reason).filter(|count| **count > 0) {
                let because = format!("{count} of {} attempts failed with {reason}", troubles.attempts);
                found.push(Suggestion { advice: advice.to_owned(), because });
            }
        }
        if troubles.attempts >= 10 && troubles.losses * 10 > troubles.attempts {
            found.push(Suggestion {
                advice: "see with `omnimesh workers` who dies or has no room; shorter tasks lose less"
                    .to_owned(),
                because: format!(
                    "{} of {} attempts were lost by their workers",
                    troubles.losses, troubles.attempts
                ),
            });
        }
    }

    fn on_trust(&self, troubles: &JobTroubles, found: &mut Vec<Suggestion>) {
        let spec = self.view.spec();
        let wrong = self.wrong;
        let single = spec.tasks.iter().filter(|task| task.redundancy == 1).count();
        if wrong > 0 && single > 0 {
            found.push(Suggestion {
                advice: "do it again with `redundancy = 3`: what a liar did alone before it was found stays"
                    .to_owned(),
                because: format!(
                    "{wrong} workers have signed wrong results, and {single} tasks of the file are done by one worker each"
                ),
            });
        } else if troubles.ties > 0 {
            found.push(Suggestion {
                advice: "see whether the operation gives the same bytes at every worker".to_owned(),
                because: format!("{} votes had no majority at first", troubles.ties),
            });
        } else if single > 0 && spec.spot_check_per_mille == 0 && self.stats.workers.len() > 2 {
            found.push(Suggestion {
                advice: "set `spot_check = 0.02`, or `redundancy = 3`, if the workers are not all your own".to_owned(),
                because: format!(
                    "{} workers took part, and what {single} of {} tasks of the file made was made once, and compared with nothing",
                    self.stats.workers.len(),
                    spec.tasks.len()
                ),
            });
        }
    }

    fn on_use(&self, workers: &[WorkerShare], found: &mut Vec<Suggestion>) {
        let JobTimes { work_ms, cpu_ms, elapsed_ms, critical_path_ms, .. } = *self.times;
        if work_ms > 2000 && cpu_ms * 2 < work_ms {
            found.push(Suggestion {
                advice: "give the workers fewer `compute.slots`, or smaller inputs".to_owned(),
                because: format!(
                    "attempts used the processor for {} of {}: the rest was reading, writing and waiting for it",
                    words::duration(cpu_ms),
                    words::duration(work_ms)
                ),
            });
        }
        let has_ended = self.view.state() != JobState::Running;
        let least = critical_path_ms.max(work_ms.checked_div(self.slots).unwrap_or(0));
        if has_ended && elapsed_ms > 5000 && least > 0 && least * 2 < elapsed_ms {
            found.push(Suggestion {
                advice: "submit several such jobs at once, or see with `omnimesh why job` what they wait for"
                    .to_owned(),
                because: format!(
                    "it took {}, where its work on {} places and its longest chain take {} at least",
                    words::duration(elapsed_ms),
                    self.slots,
                    words::duration(least)
                ),
            });
        }
        if let [first, _, ..] = workers
            && first.share > 0.8
            && self.view.plan().total() > 8
        {
            found.push(Suggestion {
                advice: "use more and smaller chunks, so that there is something for each worker".to_owned(),
                because: format!(
                    "one of {} workers has done {} of the tasks",
                    workers.len(),
                    percent(first.share)
                ),
            });
        }
    }
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}
