//! Which plots a run has.

use std::time::Duration;

use super::svg::{Axis, Chart, Look, Plot, Scale, Span};
use super::{Facts, topology};
use crate::outcome::{Outcome, Sample};
use crate::scenario::{Check, Scenario};
use crate::stats::{cdf, part_within, percentile};
use crate::summary::{first_quarantines, us_to_ms};
use crate::words::{count, counted, decimal, millis, percent};

/// Points of a curve. More are not seen, and make the page heavy.
const POINTS_MAX: usize = 400;

/// All that this run has facts for, in the order of the page.
pub(super) fn all(facts: &Facts<'_>) -> Vec<Plot> {
    let spans = spans(facts.scenario, facts.outcome);
    [
        propagation(facts),
        latency_over_time(facts, &spans),
        skew(facts, &spans),
        rates(facts.outcome, &spans),
        hops(facts.outcome),
        degrees(facts),
        detector(facts, &spans),
        membership(facts, &spans),
        topology::plot(facts),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The names that a plot can have.
pub(super) const IDS: [&str; 9] = [
    "propagation",
    "latency-over-time",
    "step-skew",
    "deliveries-over-time",
    "hops",
    "mesh-degree",
    "detector",
    "membership",
    "topology",
];

/// When what went wrong; an attack lasts to the end if nothing else is said.
fn spans(scenario: &Scenario, outcome: &Outcome) -> Vec<Span> {
    let ended = outcome.ended.as_secs_f64();
    let span = |name: &str, from: Duration, to: Option<Duration>, is_attack| Span {
        name: name.into(),
        from: from.as_secs_f64(),
        to: to.map_or(ended, |to| to.as_secs_f64()).max(from.as_secs_f64()),
        is_attack,
    };
    let faults = outcome.faults.iter().enumerate().map(|(index, effect)| {
        let over = scenario.faults.get(index).map_or(effect.until, crate::scenario::Fault::over);
        span(&effect.name, effect.at, over, false)
    });
    let attacks = outcome.adversaries.iter().map(|effect| span(&effect.name, effect.at, effect.until, true));
    faults.chain(attacks).filter(|span| span.from < ended).collect()
}

fn time_axis(outcome: &Outcome) -> Axis {
    let to = outcome.ended.as_secs_f64().max(1e-3);
    Axis::new("virtual time (s)", Scale::Linear { from: 0.0, to })
}

/// A distribution's axis: up to the greatest value, or, if few are far out, a little beyond most of them.
fn latency_scale(ascending_us: &[u32]) -> Option<(f64, &'static str, f64)> {
    let (p99, max) = (percentile(ascending_us, 990)?, percentile(ascending_us, 1000)?);
    let most = us_to_ms(max).min(us_to_ms(p99) * 3.0).max(0.001);
    Some(if most >= 10_000.0 { (most / 1e3, "s", 1e3) } else { (most, "ms", 1.0) })
}

fn propagation(facts: &Facts<'_>) -> Option<Plot> {
    let ascending = &facts.latencies_us;
    let (most, unit, per_unit) = latency_scale(ascending)?;
    let scale = Scale::up_to(most * 1.02);
    let y = Axis::new("deliveries (% of expected)", Scale::Linear { from: 0.0, to: 100.0 });
    let mut chart = Chart::new("propagation", Axis::new(format!("time since publishing ({unit})"), scale), y);
    chart.key(Look::First, "all messages");
    chart.key(Look::Second, "median message");
    chart.key(Look::Band, "fastest to slowest message");
    let expected = usize::try_from(facts.summary.expected).unwrap_or(usize::MAX);
    let in_units = |us: f64| us / 1e3 / per_unit;

    let by_message = by_message(facts.outcome);
    let curve = |pick: fn(&Reach) -> f64| -> Vec<(f64, f64)> {
        by_message.iter().map(|reach| (in_units(pick(reach)), reach.percent)).collect()
    };
    chart.band(&curve(|reach| reach.fastest_us), &curve(|reach| reach.slowest_us));
    chart.line(Look::Second, curve(|reach| reach.median_us));
    let all = cdf(ascending, expected, POINTS_MAX).into_iter();
    chart.line(
        Look::First,
        [(0.0, 0.0)].into_iter().chain(all.map(|(us, y)| (in_units(us.into()), y * 100.0))),
    );
    let mut told = Vec::new();
    for (per_mille, name) in [(500, "p50"), (950, "p95"), (990, "p99")] {
        if let Some(us) = percentile(ascending, per_mille) {
            let label = format!("{name} {}", millis(us_to_ms(us)));
            let arrived = ascending.len() as f64 / facts.summary.expected.max(1) as f64;
            chart.labelled_point((in_units(us.into()), per_mille as f64 / 10.0 * arrived), &label);
            told.push(label);
        }
    }
    let mut caption = format!(
        "How fast messages spread: the part of all expected deliveries that took place within a time. {}. The band \
         spans the fastest and the slowest of {}, compared where each had reached the same part of its audience. A curve \
         that ends below 100 % shows what never arrived.",
        told.join(", "),
        counted(facts.summary.messages, "message", "messages")
    );
    let Scale::Linear { to, .. } = scale else { return None };
    let shown = part_within(ascending, to * per_unit * 1e3)?;
    if shown < 1.0 {
        let max = ascending.last().map_or_else(String::new, |&us| millis(us_to_ms(us)));
        caption +=
            &format!(" {} of the deliveries lie beyond the right edge, up to {max}.", percent(1.0 - shown));
    }
    Some(chart.finish("Propagation", caption))
}

/// When messages had reached a part of their audience.
struct Reach {
    percent: f64,
    fastest_us: f64,
    /// Infinite where half of the messages never got so far.
    median_us: f64,
    slowest_us: f64,
}

fn by_message(outcome: &Outcome) -> Vec<Reach> {
    let steps: usize = 100;
    let mut at: Vec<Vec<u32>> = vec![Vec::new(); steps];
    let mut messages = 0;
    for (message, deliveries) in outcome.messages.iter().zip(&outcome.deliveries) {
        let mut latencies: Vec<u32> = deliveries
            .iter()
            .filter(|delivery| delivery.is_expected)
            .map(|delivery| delivery.latency_us)
            .collect();
        latencies.sort_unstable();
        let audience = message.audience as usize;
        messages += usize::from(audience > 0);
        for (index, reached) in at.iter_mut().enumerate() {
            let rank = (audience * (index + 1)).div_ceil(steps);
            reached.extend(rank.checked_sub(1).and_then(|rank| latencies.get(rank)));
        }
    }
    let reaches = at.iter_mut().zip(1..).filter_map(|(reached, index): (_, u32)| {
        reached.sort_unstable();
        // Nearest rank among all messages; those that never got so far come last.
        let median = reached.get(messages.div_ceil(2).saturating_sub(1));
        Some(Reach {
            percent: f64::from(index) * 100.0 / steps as f64,
            fastest_us: f64::from(*reached.first()?),
            median_us: median.map_or(f64::INFINITY, |&us| f64::from(us)),
            slowest_us: f64::from(*reached.last()?),
        })
    });
    reaches.collect()
}

fn latency_over_time(facts: &Facts<'_>, spans: &[Span]) -> Option<Plot> {
    let (_, unit, per_unit) = latency_scale(&facts.latencies_us)?;
    let mut rows: Vec<(f64, f64, f64)> = Vec::new();
    for (message, deliveries) in facts.outcome.messages.iter().zip(&facts.outcome.deliveries) {
        let mut us: Vec<u32> = deliveries.iter().filter(|d| d.is_expected).map(|d| d.latency_us).collect();
        us.sort_unstable();
        if let (Some(p50), Some(last)) = (percentile(&us, 500), us.last()) {
            let [p50, last] = [p50, *last].map(|us| us_to_ms(us) / per_unit);
            rows.push((message.at.as_secs_f64(), p50, last));
        }
    }
    let most = rows.iter().map(|row| row.2).fold(0.0, f64::max);
    let y = Axis::new(format!("time since publishing ({unit})"), Scale::up_to(most));
    let mut chart = Chart::new("latency-over-time", time_axis(facts.outcome), y);
    chart.spans(spans);
    chart.key(Look::Points, "median node");
    chart.key(Look::Rings, "last node");
    let width = rows.len().div_ceil(POINTS_MAX).max(1);
    // Of neighbours that would fall together, the slowest.
    let slowest = |chunk: &[(f64, f64, f64)]| chunk.iter().copied().max_by(|a, b| a.2.total_cmp(&b.2));
    let rows: Vec<(f64, f64, f64)> = rows.chunks(width).filter_map(slowest).collect();
    chart.points(Look::Rings, rows.iter().map(|row| (row.0, row.2)));
    chart.points(Look::Points, rows.iter().map(|row| (row.0, row.1)));
    let mut caption = String::from(
        "When a message reached half of its audience and all of it, by the time at which it was published.",
    );
    if width > 1 {
        caption += &format!(" Of each {width} messages in a row the slowest is shown.");
    }
    caption += spans_note(spans);
    Some(chart.finish("Latency over time", caption))
}

fn spans_note(spans: &[Span]) -> &'static str {
    if spans.is_empty() { "" } else { " Bars above and hatching behind show faults and attacks." }
}

/// Samples in so many groups of neighbours as there are points to draw.
fn groups(samples: &[Sample]) -> impl Iterator<Item = &[Sample]> {
    samples.chunks(samples.len().div_ceil(POINTS_MAX).max(1))
}

fn skew(facts: &Facts<'_>, spans: &[Span]) -> Option<Plot> {
    let samples: Vec<Sample> =
        facts.outcome.samples.iter().filter(|sample| sample.synchronised > 1).copied().collect();
    let of = |pick: fn(&Sample) -> f64| -> Vec<(f64, f64)> {
        let most = |group: &[Sample]| group.iter().map(pick).fold(f64::MIN, f64::max);
        groups(&samples).filter_map(|group| Some((group.first()?.at.as_secs_f64(), most(group)))).collect()
    };
    let (all, island) = (of(|sample| sample.skew_ms), of(|sample| sample.island_skew_ms));
    let limits = facts.scenario.checks.iter().filter_map(|check| match check {
        Check::Agreement { within } => Some(within.as_secs_f64() * 1e3),
        _ => None,
    });
    let limit = limits.fold(f64::INFINITY, f64::min);
    let values = || all.iter().chain(&island).map(|point| point.1);
    let most = values().fold(0.0, f64::max);
    let least = values().filter(|&ms| ms > 0.0).fold(most, f64::min);
    if all.is_empty() {
        return None;
    }
    let scale = if most > least * 30.0 {
        let top = if limit.is_finite() { most.max(limit * 1.01) } else { most };
        Scale::decades(least.max(0.001), top)
    } else {
        Scale::up_to(if limit < most * 3.0 { most.max(limit * 1.05) } else { most })
    };
    let is_split = all.iter().zip(&island).any(|(a, b)| a.1 > b.1);
    let mut chart = Chart::new("step-skew", time_axis(facts.outcome), Axis::new("step skew (ms)", scale));
    chart.spans(spans);
    chart.key(Look::First, if is_split { "connected nodes" } else { "all nodes" });
    if is_split {
        chart.key(Look::Second, "all nodes, also of cut-off islands");
        chart.line(Look::Second, all.iter().copied());
    }
    chart.line(Look::First, island.iter().copied());
    if limit.is_finite() && limit <= most.max(limit * 1.01) {
        chart.guide_y(limit, &format!("limit of agreement: {}", millis(limit)));
    }
    let last = all.last().map_or(0.0, |point| point.1);
    let step = facts.scenario.network.step_interval.as_secs_f64() * 1e3;
    let mut caption = format!(
        "Distance between the first and the last mesh time of honest nodes that have one; at the end {}. A step lasts {}.",
        millis(last),
        millis(step)
    );
    if matches!(scale, Scale::Log { .. }) {
        caption += " Logarithmic scale.";
    }
    caption += spans_note(spans);
    Some(chart.finish("Step skew", caption))
}

fn rates(outcome: &Outcome, spans: &[Span]) -> Option<Plot> {
    let ends: Vec<&Sample> = groups(&outcome.samples).filter_map(<[Sample]>::last).collect();
    let rate = |pick: fn(&Sample) -> u64| -> Vec<(f64, f64)> {
        let pairs = ends.windows(2).filter_map(|pair| match pair {
            [a, b] if b.at > a.at => {
                let more = pick(b).saturating_sub(pick(a)) as f64;
                Some((a.at.as_secs_f64(), more / (b.at - a.at).as_secs_f64()))
            }
            _ => None,
        });
        pairs.collect()
    };
    let (deliveries, duplicates) = (rate(|sample| sample.deliveries), rate(|sample| sample.duplicates));
    let most = deliveries.iter().chain(&duplicates).map(|point| point.1).fold(0.0, f64::max);
    if most <= 0.0 {
        return None;
    }
    let y = Axis::new("per second, all nodes", Scale::up_to(most));
    let mut chart = Chart::new("deliveries-over-time", time_axis(outcome), y);
    chart.spans(spans);
    chart.key(Look::First, "deliveries");
    chart.key(Look::Second, "duplicates");
    chart.stairs(Look::Second, &duplicates);
    chart.stairs(Look::First, &deliveries);
    let last = outcome.samples.last()?;
    let for_each = last.duplicates as f64 / last.deliveries.max(1) as f64;
    let caption = format!(
        "First deliveries, and copies of what the receiver had already: {} duplicates for each delivery in the whole \
         run.{}",
        decimal(for_each, 2),
        spans_note(spans)
    );
    Some(chart.finish("Deliveries and duplicates over time", caption))
}

fn hops(outcome: &Outcome) -> Option<Plot> {
    let expected = outcome.deliveries.iter().flatten().filter(|delivery| delivery.is_expected);
    let mut by_hops: Vec<u64> = Vec::new();
    for delivery in expected {
        let hops = usize::from(delivery.hops);
        if by_hops.len() <= hops {
            by_hops.resize(hops + 1, 0);
        }
        by_hops[hops] += 1;
    }
    let all: u64 = by_hops.iter().sum();
    let share = |count: u64| count as f64 * 100.0 / all as f64;
    let bars: Vec<(f64, f64)> =
        by_hops.iter().zip(0u32..).skip(1).map(|(&count, hops)| (f64::from(hops), share(count))).collect();
    let caption = format!(
        "Over how many links deliveries came. On average {} links; at most {}.",
        decimal(bars.iter().map(|(hops, share)| hops * share / 100.0).sum(), 2),
        by_hops.len().saturating_sub(1)
    );
    histogram(("hops", "Hops"), ("links from the author", "deliveries (%)"), &bars, &[], caption)
}

fn degrees(facts: &Facts<'_>) -> Option<Plot> {
    let degrees = &facts.outcome.degrees;
    let last = degrees.iter().rposition(|&nodes| nodes > 0)?;
    let first = degrees.iter().position(|&nodes| nodes > 0)?;
    let nodes: u64 = degrees.iter().map(|&nodes| u64::from(nodes)).sum();
    let links: u64 = degrees.iter().zip(0u64..).map(|(&nodes, degree)| u64::from(nodes) * degree).sum();
    let bars: Vec<(f64, f64)> = degrees
        .iter()
        .zip(0u32..)
        .skip(first)
        .take(last - first + 1)
        .map(|(&nodes, degree)| (f64::from(degree), f64::from(nodes)))
        .collect();
    let gossip = &facts.scenario.gossip;
    let guides =
        [(gossip.mesh_degree_low as f64 - 0.5, "D low"), (gossip.mesh_degree_high as f64 + 0.5, "D high")];
    let caption = format!(
        "Nodes by the number of their gossip mesh links at the end; {} on average. Routers aim at {} (D), add links \
         below {} (D low) and drop some above {} (D high).",
        decimal(links as f64 / nodes as f64, 2),
        gossip.mesh_degree,
        gossip.mesh_degree_low,
        gossip.mesh_degree_high
    );
    histogram(("mesh-degree", "Mesh degree"), ("mesh links of a node", "nodes"), &bars, &guides, caption)
}

fn histogram(
    (id, title): (&'static str, &'static str),
    (x_label, y_label): (&str, &str),
    bars: &[(f64, f64)],
    guides: &[(f64, &str)],
    caption: String,
) -> Option<Plot> {
    let most = bars.iter().map(|bar| bar.1).fold(0.0, f64::max);
    let scale = Scale::Linear { from: bars.first()?.0 - 0.6, to: bars.last()?.0 + 0.6 };
    let x = Axis { whole: true, ..Axis::new(x_label, scale) };
    let y = Axis { whole: y_label == "nodes", ..Axis::new(y_label, Scale::up_to(most * 1.08)) };
    let mut chart = Chart::new(id, x, y);
    for &(x, height) in bars {
        let label = match decimal(height, usize::from(y_label != "nodes")) {
            zero if zero == "0" && height > 0.0 => "<0.1".into(),
            label => label,
        };
        chart.bar(x, 0.42, height, &label);
    }
    for &(x, label) in guides {
        if bars.first()?.0 - 0.6 < x && x < bars.last()?.0 + 0.6 {
            chart.guide_x(x, label);
        }
    }
    Some(chart.finish(title, caption))
}

fn detector(facts: &Facts<'_>, spans: &[Span]) -> Option<Plot> {
    let outcome = facts.outcome;
    let adversaries = outcome.adversary_nodes.len();
    if adversaries == 0 {
        return None;
    }
    let honest = (outcome.nodes as usize).saturating_sub(adversaries).max(1);
    let mut found: Vec<Duration> = first_quarantines(outcome).into_iter().map(|(_, at)| at).collect();
    found.sort_unstable();
    let mut falsely = outcome.false_quarantines.clone();
    falsely.sort_unstable_by_key(|&(_, whom, at)| (whom, at));
    falsely.dedup_by_key(|&mut (_, whom, _)| whom);
    let mut falsely: Vec<Duration> = falsely.into_iter().map(|(_, _, at)| at).collect();
    falsely.sort_unstable();
    let stairs = |times: &[Duration], all: usize| -> Vec<(f64, f64)> {
        let points =
            times.iter().zip(1u32..).map(|(at, n)| (at.as_secs_f64(), f64::from(n) * 100.0 / all as f64));
        let end = (outcome.ended.as_secs_f64(), times.len() as f64 * 100.0 / all as f64);
        [(0.0, 0.0)].into_iter().chain(points).chain([end]).collect()
    };
    let y = Axis::new("shut out (%)", Scale::Linear { from: 0.0, to: 100.0 });
    let mut chart = Chart::new("detector", time_axis(outcome), y);
    chart.spans(spans);
    chart.key(Look::First, "of the adversaries");
    chart.key(Look::Second, "of the honest nodes, wrongly");
    chart.stairs(Look::Second, &stairs(&falsely, honest));
    chart.stairs(Look::First, &stairs(&found, adversaries));
    let detector = &facts.summary.detector;
    let took = detector.time_to_detect_ms.map_or_else(String::new, |ms| {
        format!(", half of these within {} of the beginning of their misbehaviour", millis(ms))
    });
    let caption = format!(
        "Nodes that at least one honest node has shut out. In the end {} of {}{took}; and {} wrongly.",
        count(detector.quarantined),
        counted(detector.adversaries, "adversary", "adversaries"),
        counted(detector.false_quarantined, "honest node", "honest nodes")
    );
    Some(chart.finish("Detection of adversaries", caption))
}

fn membership(facts: &Facts<'_>, spans: &[Span]) -> Option<Plot> {
    if !facts.scenario.network.membership || facts.outcome.samples.is_empty() {
        return None;
    }
    let honest = f64::from(facts.outcome.nodes) - facts.outcome.adversary_nodes.len() as f64;
    let of = |pick: &dyn Fn(&Sample) -> f64| -> Vec<(f64, f64)> {
        let least = |group: &[Sample]| group.iter().map(pick).fold(f64::MAX, f64::min);
        let groups = groups(&facts.outcome.samples);
        groups.filter_map(|group| Some((group.first()?.at.as_secs_f64(), least(group) * 100.0))).collect()
    };
    let known = of(&|sample| sample.membership);
    let up = of(&|sample| f64::from(sample.up) / honest.max(1.0));
    let y = Axis::new("part (%)", Scale::Linear { from: 0.0, to: 100.0 });
    let mut chart = Chart::new("membership", time_axis(facts.outcome), y);
    chart.spans(spans);
    chart.key(Look::First, "pairs that know each other");
    chart.key(Look::Second, "honest nodes that are up");
    chart.stairs(Look::Second, &up);
    chart.stairs(Look::First, &known);
    let last = known.last().map_or(0.0, |point| point.1 / 100.0);
    let caption = format!(
        "Of all ordered pairs of honest nodes that are up, the part in which the first knows the second as alive; at the \
         end {}.{}",
        percent(last),
        spans_note(spans)
    );
    Some(chart.finish("Membership over time", caption))
}
