//! `[[faults]]`, `[[adversaries]]` and `[[checks]]`: flat tables whose `kind` says which keys belong.

use std::time::Duration;

use super::read::{Section, to_whole};
use crate::scenario::{Adversary, AdversaryKind, Check, Fault, FaultKind, Region, Victims, Who};

/// Keys of faults that belong to some kinds only.
const OF_FAULTS: [&str; 11] = [
    "one_way",
    "restart_after_ms",
    "rate_per_s",
    "away_ms",
    "loss",
    "latency_factor",
    "frame_ms",
    "by_ms",
    "drift_ppm",
    "records",
    "factor",
];
/// Keys of adversaries that belong to some kinds only.
const OF_ADVERSARIES: [&str; 5] = ["after_ms", "by_ms", "rate_per_s", "victims", "dials"];
/// Keys of checks that belong to some kinds only.
const OF_CHECKS: [&str; 9] = [
    "within_ms",
    "ratio",
    "steps",
    "bytes_per_node",
    "bytes",
    "precision_min",
    "recall_min",
    "false_quarantined_max",
    "max",
];
/// How one says whom something hits.
const WHO: [&str; 5] = ["all", "nodes", "count", "share", "regions"];
/// Keys of all kinds.
const OF_ALL: [&str; 3] = ["kind", "at_ms", "until_ms"];

/// A fault. If it could not be read, that is noted, and a harmless one keeps its place in the list.
pub(super) fn fault(section: Section<'_, '_>, regions: &[Region]) -> Fault {
    read_fault(section, regions).unwrap_or(Fault {
        at: Duration::ZERO,
        until: None,
        who: Who::Count(1),
        kind: FaultKind::Crash { restart_after: None },
    })
}

fn read_fault(section: Section<'_, '_>, regions: &[Region]) -> Option<Fault> {
    let name = kind_of(&section, FaultKind::NAMES)?;
    let at = required(&section, name, "at_ms", "when it begins", Section::ms);
    let until = section.ms("until_ms");
    let who = who(&section, name, regions);
    let kind = fault_kind(&section, name);
    finish(section, name, &OF_FAULTS);
    Some(Fault { at: at?, until, who: who?, kind: kind? })
}

fn fault_kind(section: &Section<'_, '_>, name: &'static str) -> Option<FaultKind> {
    Some(match name {
        "partition" => FaultKind::Partition { one_way: section.flag("one_way").unwrap_or(false) },
        "crash" => FaultKind::Crash { restart_after: section.ms("restart_after_ms") },
        "churn" => {
            let per_s = required(section, name, "rate_per_s", "deaths in a second", Section::number);
            let away = required(section, name, "away_ms", "how long each is away", Section::ms);
            FaultKind::Churn { per_s: per_s?, away: away? }
        }
        "degrade" => FaultKind::Degrade {
            loss: section.number("loss").unwrap_or(0.0),
            latency_factor: section.number("latency_factor").unwrap_or(1.0),
        },
        "slow" => FaultKind::Slow {
            frame_time: required(section, name, "frame_ms", "the time for one frame", Section::ms)?,
        },
        "clock_jump" => FaultKind::ClockJump {
            by: required(section, name, "by_ms", "how far the clocks leap", Section::ms)?,
        },
        "clock_drift" => FaultKind::ClockDrift {
            ppm: required(section, name, "drift_ppm", "how fast, in millionths", Section::number)?,
        },
        "crash_in_write" => FaultKind::CrashInWrite { restart_after: restart(section, name)? },
        "lost_tail" => FaultKind::LostTail { restart_after: restart(section, name)? },
        "bit_flip" => FaultKind::BitFlip { records: section.whole("records").unwrap_or(1) },
        "slow_disk" => FaultKind::SlowDisk {
            factor: required(section, name, "factor", "how many times as long", Section::number)?,
        },
        "full_disk" => FaultKind::FullDisk,
        _ => return None,
    })
}

fn restart(section: &Section<'_, '_>, name: &'static str) -> Option<Duration> {
    required(section, name, "restart_after_ms", "when they start again", Section::ms)
}

/// An adversary; as [`fault`].
pub(super) fn adversary(section: Section<'_, '_>, regions: &[Region]) -> Adversary {
    read_adversary(section, regions).unwrap_or(Adversary {
        at: Duration::ZERO,
        until: None,
        who: Who::Count(0),
        kind: AdversaryKind::Silence { rate_per_s: 0.0 },
    })
}

fn read_adversary(section: Section<'_, '_>, regions: &[Region]) -> Option<Adversary> {
    let name = kind_of(&section, AdversaryKind::NAMES)?;
    let at = section.ms("at_ms").unwrap_or(Duration::ZERO);
    let until = section.ms("until_ms");
    let who = who(&section, name, regions);
    let kind = adversary_kind(&section, name);
    finish(section, name, &OF_ADVERSARIES);
    Some(Adversary { at, until, who: who?, kind: kind? })
}

fn adversary_kind(section: &Section<'_, '_>, name: &'static str) -> Option<AdversaryKind> {
    let by = |what| required(section, name, "by_ms", what, Section::ms);
    let rate = |what| required(section, name, "rate_per_s", what, Section::number);
    let dials = || required(section, name, "dials", "how many honest nodes each dials", Section::whole);
    Some(match name {
        "tamper" => AdversaryKind::Tamper,
        "replay" => AdversaryKind::Replay {
            after: required(section, name, "after_ms", "how long after they came", Section::ms)?,
        },
        "rush" => AdversaryKind::Rush { by: by("how far ahead")? },
        "freeze" => AdversaryKind::Freeze,
        "two_faced" => AdversaryKind::TwoFaced { by: by("how far off at most")? },
        "equivocate" => AdversaryKind::Equivocate { rate_per_s: rate("pairs in a second")? },
        "flood" => AdversaryKind::Flood { rate_per_s: rate("messages in a second")? },
        "outsider" => AdversaryKind::Outsider { rate_per_s: rate("messages in a second")? },
        "silence" => AdversaryKind::Silence { rate_per_s: section.number("rate_per_s").unwrap_or(0.0) },
        "never_forward" => AdversaryKind::NeverForward,
        "eclipse" => AdversaryKind::Eclipse { victims: victims(section, Victims::One)? },
        "censor" => AdversaryKind::Censor { victims: victims(section, Victims::Publishers)? },
        "sybil" => AdversaryKind::Sybil { dials: dials()? },
        "cold_boot" => AdversaryKind::ColdBoot { dials: dials()? },
        "covert_flash" => AdversaryKind::CovertFlash,
        "fork" => AdversaryKind::Fork { rate_per_s: rate("records in a second")? },
        "slander" => AdversaryKind::Slander { rate_per_s: rate("accusations in a second")? },
        _ => return None,
    })
}

fn victims(section: &Section<'_, '_>, default: Victims) -> Option<Victims> {
    if !section.has("victims") {
        // Asked for in any case, so that the key is known.
        section.word("victims", &[]);
        return Some(default);
    }
    Some(match section.word("victims", &["one", "publishers", "all"])? {
        "one" => Victims::One,
        "publishers" => Victims::Publishers,
        _ => Victims::All,
    })
}

/// A check; `of_log` has the defaults of those that depend on the length of the run.
pub(super) fn check(section: Section<'_, '_>, of_log: &[Check]) -> Option<Check> {
    let name = kind_of(&section, Check::NAMES)?;
    let others = [Check::of_checkpoints(), Check::of_compute()].concat();
    let defaults = [Check::all().as_slice(), of_log, &others, &[Check::DETECTION]].concat();
    let default = defaults.into_iter().find(|check| check.name() == name)?;
    let within = |within| section.ms("within_ms").unwrap_or(within);
    let check = match default {
        Check::Agreement { within: default } => Check::Agreement { within: within(default) },
        Check::Delivery { ratio } => Check::Delivery { ratio: section.number("ratio").unwrap_or(ratio) },
        Check::Convergence { steps } => Check::Convergence { steps: section.whole("steps").unwrap_or(steps) },
        Check::BoundedMemory { bytes_per_node } => {
            Check::BoundedMemory { bytes_per_node: section.whole("bytes_per_node").unwrap_or(bytes_per_node) }
        }
        Check::NoLostEntry { within: default } => Check::NoLostEntry { within: within(default) },
        Check::EqualLogs { within: default } => Check::EqualLogs { within: within(default) },
        Check::EqualRegistries { within: default } => Check::EqualRegistries { within: within(default) },
        Check::SameFreeze { within: default } => Check::SameFreeze { within: within(default) },
        Check::BoundedBuffers { bytes } => {
            Check::BoundedBuffers { bytes: section.whole("bytes").unwrap_or(bytes) }
        }
        Check::Makespan { max } => Check::Makespan { max: section.number("max").unwrap_or(max) },
        Check::Detection { precision_min, recall_min, false_quarantined_max } => Check::Detection {
            precision_min: section.number("precision_min").unwrap_or(precision_min),
            recall_min: section.number("recall_min").unwrap_or(recall_min),
            false_quarantined_max: section.whole("false_quarantined_max").unwrap_or(false_quarantined_max),
        },
        Check::Monotone
        | Check::Authentic
        | Check::NoFalseQuarantine
        | Check::OnlyWritten
        | Check::TrueCheckpoints
        | Check::TasksCommittedOnce
        | Check::NoWrongResult
        | Check::EveryJobEnds => default,
    };
    finish(section, name, &OF_CHECKS);
    Some(check)
}

/// Notes the keys that do not belong here; `of_kinds` are those that only some kinds have.
fn finish(section: Section<'_, '_>, kind: &'static str, of_kinds: &[&str]) {
    let is_listed = |key: &str| OF_ALL.contains(&key) || WHO.contains(&key) || of_kinds.contains(&key);
    debug_assert!(section.asks_only_for(is_listed), "a key of `{kind}` is in none of the lists");
    section.finish_kind(kind, of_kinds);
}

fn kind_of(section: &Section<'_, '_>, names: &[&'static str]) -> Option<&'static str> {
    if !section.has("kind") {
        section.problem("", "has no kind", format!("add `kind = \"…\"`, one of {}", names.join(", ")));
    }
    section.word("kind", names)
}

/// The value of a key that this kind cannot do without.
fn required<'a, 't, T>(
    section: &Section<'a, 't>,
    kind: &str,
    key: &'static str,
    what: &str,
    get: impl FnOnce(&Section<'a, 't>, &'static str) -> Option<T>,
) -> Option<T> {
    if !section.has(key) {
        section.problem("", format!("`{kind}` needs `{key}`"), format!("add `{key} = …`: {what}"));
    }
    get(section, key)
}

/// Whom it hits: exactly one of the ways to say so.
fn who(section: &Section<'_, '_>, kind: &str, regions: &[Region]) -> Option<Who> {
    let given: Vec<_> = WHO.into_iter().filter(|key| section.has(key)).collect();
    let all = section.flag("all");
    let whole = |value: &_| u32::try_from(to_whole(value)?).ok();
    let nodes = section.list("nodes", "a list of numbers of nodes", "[0, 1]", whole);
    let count = section.whole("count");
    let share = section.number("share");
    let names = section.list("regions", "a list of names", "[\"…\"]", |value| value.as_str());
    match given.as_slice() {
        [] => {
            let remedy = "add one of `all = true`, `nodes = […]`, `count = …`, `share = …`, `regions = […]`";
            section.problem("", format!("`{kind}` does not say whom it hits"), remedy);
            None
        }
        ["all"] => {
            if all == Some(false) {
                section.problem("all", "hits nobody", "remove it and name those who are hit");
            }
            all.filter(|all| *all).map(|_| Who::All)
        }
        ["nodes"] => nodes.map(Who::Nodes),
        ["count"] => count.map(Who::Count),
        ["share"] => share.map(Who::Share),
        ["regions"] => in_regions(section, &names?, regions),
        [_, second, ..] => {
            let message = format!("is a second way to say whom it hits, besides `{}`", given[0]);
            section.problem(second, message, "keep one of them");
            None
        }
        [_] => None,
    }
}

fn in_regions(section: &Section<'_, '_>, names: &[&str], regions: &[Region]) -> Option<Who> {
    let known = || regions.iter().map(|region| region.name.as_str());
    let mut indices = Vec::new();
    for name in names {
        if let Some(index) = known().position(|region| region == *name) {
            indices.push(index);
            continue;
        }
        let remedy = match (crate::suggest::nearest(name, known()), regions.is_empty()) {
            (Some(meant), _) => format!("did you mean \"{meant}\"?"),
            (None, true) => "define regions in `[network]`: `regions = [{ name = …, share = … }]`".to_owned(),
            (None, false) => format!("there are {}", known().collect::<Vec<_>>().join(", ")),
        };
        section.problem("regions", format!("there is no region \"{name}\""), remedy);
    }
    (indices.len() == names.len()).then_some(Who::Regions(indices))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_has_its_name() {
        let of_rest = [Check::of_checkpoints(), Check::of_compute(), vec![Check::DETECTION]].concat();
        let all = [Check::all(), Check::of_log(), of_rest].concat();
        assert_eq!(all.iter().map(Check::name).collect::<Vec<_>>(), Check::NAMES);
    }
}
