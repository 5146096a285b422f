//! The page: one file, for people. Whatever comes from the scenario is escaped by the template.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::svg::Plot;
use super::tables::DELIVERIES_ROWS_MAX;
use super::{Facts, file_name, settings, style};
use crate::checkers::Checked;
use crate::scenario::{Engine, Scenario, Who};
use crate::summary::{Effect, LogSummary, Role, Summary};
use crate::words::{bytes, count, counted, decimal, list, mean_bytes, millis, percent};

const NONE: &str = "–";

pub(super) fn render(facts: &Facts<'_>, plots: &[Plot], scenario_text: &str) -> Markup {
    let name = &facts.scenario.name;
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (name) " – OmniMesh simulation" }
                // A style sheet of ours has nothing to escape.
                style { (PreEscaped(style::page())) }
            }
            body {
                (header(facts, name))
                (checks(&facts.summary.checkers))
                section { h2 { "Key figures" } div.cards { (cards(facts)) } }
                section {
                    h2 { "Plots" }
                    div.plots { @for plot in plots { (figure(plot)) } }
                }
                (effects(facts))
                (found(facts))
                (settings_of(facts.scenario))
                (counters(facts.summary))
                (reproduction(facts, scenario_text))
                (cost(facts))
                (definitions(facts))
                footer { "Written by the OmniMesh simulator, version " (facts.manifest.code_version) "." }
            }
        }
    }
}

fn header(facts: &Facts<'_>, name: &str) -> Markup {
    let (manifest, summary) = (facts.manifest, facts.summary);
    html! {
        header {
            h1 { (name) }
            @for paragraph in facts.scenario.description.split("\n\n").filter(|text| !text.trim().is_empty()) {
                p { (paragraph) }
            }
            p.muted {
                (counted(manifest.nodes.into(), "node", "nodes")) ", " (decimal(summary.sim_seconds, 3)) " s of virtual time, "
                (manifest.engine) " engine, seed " (manifest.seed)
            }
        }
    }
}

fn checks(checked: &[Checked]) -> Markup {
    let failed: Vec<&str> = checked.iter().filter(|one| !one.ok).map(|one| one.name.as_str()).collect();
    // Failures first: they are what one came for.
    let (bad, good): (Vec<&Checked>, Vec<&Checked>) = checked.iter().partition(|one| !one.ok);
    html! {
        @if failed.is_empty() {
            div.verdict { "✓ All " (checked.len()) " checks passed" }
        } @else {
            div.verdict.bad { "✗ " (failed.len()) " of " (checked.len()) " checks failed: " (list(&failed, 10)) }
        }
        ul.checks {
            @for one in bad.iter().chain(&good) {
                li {
                    @if one.ok { span.mark.good { "✓ passed" } } @else { span.mark.bad-text { "✗ failed" } }
                    div { h3 { code { (one.name) } } p { (one.detail) } }
                }
            }
        }
    }
}

fn card(name: &str, value: &str, of: &str) -> Markup {
    html! { div.card { div.name { (name) } div.value { (value) } div.of { (of) } } }
}

fn or_none(value: Option<f64>, text: fn(f64) -> String) -> String {
    value.map_or_else(|| NONE.into(), text)
}

fn number(value: f64) -> String {
    decimal(value, 2)
}

fn log_cards(log: &LogSummary) -> Markup {
    let ms = |value| or_none(value, millis);
    let answers = format!(
        "of {} appends; {} refused, {} unanswered",
        count(log.appends),
        count(log.refused),
        count(log.unanswered)
    );
    let everywhere = format!(
        "p99 {}, max {}; {} entries on all of {}",
        ms(log.everywhere_ms.p99),
        ms(log.everywhere_ms.max),
        count(log.everywhere),
        counted(log.nodes, "node", "nodes")
    );
    let rounds = format!("{} rounds, {} with nothing missing", count(log.rounds), count(log.rounds_equal));
    let caught_up = format!("sent for each byte that was missing; {} entries", count(log.caught_up));
    html! {
        (card("Entries acknowledged", &count(log.acknowledged), &answers))
        (card("Acknowledged and lost", &count(log.lost), &format!(
            "entries that nobody has; {} of {} nodes have the same logs", count(log.equal_nodes), count(log.nodes))))
        (card("Time to acknowledge, median", &ms(log.acknowledged_ms.p50), &format!("p99 {}", ms(log.acknowledged_ms.p99))))
        (card("Time to every disk, median", &ms(log.everywhere_ms.p50), &everywhere))
        (card("Reconciliation", &bytes(log.reconciliation_bytes), &rounds))
        (card("Caught up", &or_none(log.catch_up_ratio, number), &caught_up))
        @if log.checkpoints > 0 {
            (card("Checkpoints sealed", &count(log.checkpoints), &format!(
                "taken {} times in place of entries; up to {} entries dropped",
                count(log.checkpoints_adopted), count(log.entries_dropped))))
        }
        (card("Logs frozen", &count(log.frozen), "whose authors signed two records for one place"))
        (card("Damage found", &count(log.damaged), "records that were not what had been written"))
    }
}

fn cards(facts: &Facts<'_>) -> Markup {
    let summary = facts.summary;
    let (latency, skew, detector) = (&summary.latency_ms, &summary.step_skew_ms, &summary.detector);
    let ms = |value| or_none(value, millis);
    let expected = format!("{} of {} expected", count(summary.deliveries), count(summary.expected));
    let percentiles = format!("p95 {}, p99 {}, max {}", ms(latency.p95), ms(latency.p99), ms(latency.max));
    let ldh_max = summary.ldh_max.map_or_else(|| NONE.into(), |hops| hops.to_string());
    let traffic =
        summary.traffic.bytes as f64 / f64::from(summary.nodes.max(1)) / summary.sim_seconds.max(1e-9);
    let refused: u64 = summary.refusals.iter().map(|refusal| refusal.count).sum();
    html! {
        (card("Delivered", &or_none(summary.delivery_ratio, percent), &expected))
        (card("Latency, median", &ms(latency.p50), &percentiles))
        (card("Redundancy (RMR)", &or_none(summary.rmr, number), "copies of a message for each node, beyond the first"))
        (card("Last delivery hop", &or_none(summary.ldh, number), &format!("mean over messages, at most {ldh_max}")))
        (card("Step skew, p99", &ms(skew.p99), &format!("median {}, max {}", ms(skew.p50), ms(skew.max))))
        @if detector.adversaries > 0 {
            (card("Adversaries found", &format!("{} of {}", count(detector.found), count(detector.adversaries)), &format!(
                "precision {}, recall {}; median after {}", or_none(detector.precision, percent),
                or_none(detector.recall, percent), ms(detector.time_to_detect_ms))))
        }
        @if summary.log.appends > 0 {
            (log_cards(&summary.log))
        }
        (card("Wrongly shut out", &count(detector.false_quarantined), "honest nodes, by honest nodes"))
        (card("Refused", &count(refused), "messages, by honest validators"))
        (card("Traffic", &format!("{}/s", mean_bytes(traffic)), "sent by a node, on average"))
        (card("Memory of a node", &bytes(summary.bytes_per_node), "on average, at the end"))
    }
}

fn figure(plot: &Plot) -> Markup {
    html! {
        figure id=(plot.id) {
            h3 { (plot.title) }
            div.scroll { (plot.inline()) }
            figcaption { (plot.caption) " " span.file { "(" (file_name(plot.id)) ")" } }
        }
    }
}

fn effects(facts: &Facts<'_>) -> Markup {
    let scenario = facts.scenario;
    let faults = scenario.faults.iter().map(|fault| (&fault.who, settings::fault(&fault.kind)));
    let adversaries = scenario.adversaries.iter().map(|one| (&one.who, settings::adversary(&one.kind)));
    let (faults, adversaries): (Vec<_>, Vec<_>) = (faults.collect(), adversaries.collect());
    let of = |role: Role| facts.summary.faults.iter().filter(move |effect| effect.role == role);
    let rows = of(Role::Fault).zip(&faults).chain(of(Role::Adversary).zip(&adversaries));
    html! {
        section {
            h2 { "Faults and adversaries" }
            @if facts.summary.faults.is_empty() {
                p { "None was planned." }
            } @else {
                div.scroll { table {
                    thead { tr {
                        th { "Name" } th { "What" } th { "Who" } th { "From" } th { "Until" }
                        th.number { "Planned" } th.number { "Effective" } th {}
                    } }
                    tbody { @for (effect, (who, what)) in rows { (effect_row(effect, &whom(who, facts), what)) } }
                } }
                p.muted { "Planned: nodes to hit, or acts. Effective: frames cut, processes killed, clocks moved, lies told. \
                    What had no effect shows nothing, and fails the run." }
            }
        }
    }
}

fn found(facts: &Facts<'_>) -> Markup {
    let detector = &facts.summary.detector;
    let ms = |value| or_none(value, millis);
    let ratio: fn(f64) -> String = |value| decimal(value, 4);
    html! {
        @if !detector.kinds.is_empty() {
            section {
                h2 { "Who was found" }
                div.scroll { table {
                    thead { tr {
                        th { "Adversary" } th { "Provable" } th.number { "Nodes" } th.number { "Found" }
                        th.number { "Precision" } th.number { "Recall" } th.number { "Time, median" } th.number { "p99" }
                        th.number { "In quarantine everywhere" } th.number { "Spread, p99" }
                    } }
                    tbody { @for kind in &detector.kinds { tr {
                        td { code { (kind.name) } }
                        td { @if kind.provable { "yes" } @else { "no" } }
                        td.number { (count(kind.nodes)) }
                        td.number { (count(kind.found)) }
                        td.number { (or_none(kind.precision, ratio)) }
                        td.number { (or_none(kind.recall, ratio)) }
                        td.number { (ms(kind.time_to_detect_ms)) }
                        td.number { (ms(kind.time_to_detect_p99_ms)) }
                        td.number { @if kind.provable { (count(kind.everywhere)) } }
                        td.number { (ms(kind.spread_p99_ms)) }
                    } } }
                } }
                @if detector.false_verdicts.is_empty() {
                    p { "Honest nodes held nothing against honest nodes." }
                } @else {
                    p { "What honest nodes held against honest nodes, in pairs: "
                        @for (place, kind) in detector.false_verdicts.iter().enumerate() {
                            @if place > 0 { ", " } code { (kind.kind) } " " (count(kind.count))
                        } "." }
                }
                p.muted { "A verdict is a finding that lowers trust, a proof, or silence. One under a name of what the node does \
                    is right, one against an honest node is false; precision is the part of the right ones, recall the part of the \
                    honest nodes that could know it and have a right one." }
            }
        }
    }
}

fn effect_row(effect: &Effect, who: &str, what: &str) -> Markup {
    html! {
        tr {
            td { code { (effect.name) } }
            td { (what) }
            td { (who) }
            td { (decimal(effect.at_s, 3)) " s" }
            td { @match effect.until_s { Some(until) => { (decimal(until, 3)) " s" }, None => (NONE) } }
            td.number { (count(effect.planned)) }
            td.number { (count(effect.effective)) }
            td { @if effect.effective > 0 { span.good { "✓" } } @else { span.mark.bad-text { "✗ no effect" } } }
        }
    }
}

fn whom(who: &Who, facts: &Facts<'_>) -> String {
    let names = facts.region_names();
    match who {
        Who::All => "everybody".into(),
        Who::Nodes(nodes) => format!("nodes {}", list(nodes, 5)),
        Who::Count(number) => counted((*number).into(), "random node", "random nodes"),
        Who::Share(share) => format!("{} of the nodes, at random", percent(*share)),
        Who::Regions(regions) => {
            let name = |&region: &usize| names.get(region).cloned().unwrap_or_else(|| region.to_string());
            list(&regions.iter().map(name).collect::<Vec<_>>(), 5)
        }
    }
}

fn settings_of(scenario: &Scenario) -> Markup {
    html! {
        section {
            h2 { "Settings" }
            div.settings {
                @for (title, rows) in settings::groups(scenario) {
                    section { h3 { (title) } (pairs(&rows)) }
                }
            }
        }
    }
}

fn pairs<N: maud::Render, V: maud::Render>(rows: &[(N, V)]) -> Markup {
    html! { table { tbody { @for (name, value) in rows { tr { th scope="row" { (name) } td { (value) } } } } } }
}

fn counters(summary: &Summary) -> Markup {
    let (gossip, traffic) = (&summary.gossip, &summary.traffic);
    let gossip = [
        ("Copies received", gossip.copies_received),
        ("Of these, duplicates", gossip.duplicates),
        ("Messages accepted", gossip.accepted),
        ("Ignored", gossip.ignored),
        ("Rejected", gossip.rejected),
        ("Copies sent, own", gossip.copies_sent_own),
        ("Copies sent, forwarded", gossip.copies_sent_forwarded),
        ("Copies sent, asked for", gossip.copies_sent_iwant),
        ("Copies saved by IDONTWANT", gossip.copies_saved),
        ("IHAVE ids sent", gossip.ihave_sent),
        ("IWANT ids sent", gossip.iwant_sent),
        ("GRAFT sent", gossip.graft_sent),
        ("PRUNE sent", gossip.prune_sent),
        ("Messages shed", gossip.shed_messages),
        ("Broken promises", gossip.broken_promises),
        ("Frames of graylisted peers", gossip.graylisted),
    ];
    let links = [
        ("Frames sent", count(traffic.frames)),
        ("Bytes sent", bytes(traffic.bytes)),
        ("Of these, gossip", bytes(traffic.gossip_bytes)),
        ("Packets lost", count(traffic.lost)),
        ("Frames duplicated", count(traffic.duplicated)),
        ("Frames overtaken", count(traffic.reordered)),
        ("Frames cut off", count(traffic.cut)),
        ("IHAVE frames", count(traffic.ihave_frames)),
    ];
    let refusals: Vec<(&str, String)> =
        summary.refusals.iter().map(|refusal| (refusal.reason.as_str(), count(refusal.count))).collect();
    html! {
        section {
            h2 { "Counters" }
            div.settings {
                section { h3 { "Honest routers" } (pairs(&gossip.map(|(name, value)| (name, count(value))))) }
                section { h3 { "Links" } (pairs(&links)) }
                @if !refusals.is_empty() { section { h3 { "Refusals by reason" } (pairs(&refusals)) } }
            }
        }
    }
}

fn reproduction(facts: &Facts<'_>, scenario_text: &str) -> Markup {
    let manifest = facts.manifest;
    html! {
        section {
            h2 { "Do it again" }
            @if !manifest.command.is_empty() {
                p { "This run was started by" }
                pre { (manifest.command) }
            }
            @if manifest.engine != Engine::Libp2p.name() {
                p { "From this folder, the same run again, and whether it comes out the same:" }
                pre { "omnimesh sim rerun ." }
            }
            p { "The scenario anew, with what one likes to change:" }
            pre { "omnimesh sim run scenario.toml --engine " (manifest.engine) " --nodes " (manifest.nodes) " --seed "
                (manifest.seed) " --out DIR" }
            div.hashes { (pairs(&[
                ("Seed", html! { code { (manifest.seed) } }),
                ("Trace hash", html! { code { (manifest.trace_hash) } }),
                ("Scenario hash (BLAKE3)", html! { code { (manifest.scenario_hash) } }),
                ("Engine, version", html! { (manifest.engine) ", " (manifest.code_version) }),
            ])) }
            p.muted { "Equal scenario, seed and version give an equal trace hash, on any machine and with any number of \
                threads." }
            details { summary { "The scenario (scenario.toml)" } pre { (scenario_text) } }
        }
    }
}

fn cost(facts: &Facts<'_>) -> Markup {
    let summary = facts.summary;
    let speed = (summary.wall_seconds > 0.0).then(|| summary.sim_seconds / summary.wall_seconds);
    let of_node = summary.peak_rss_bytes / u64::from(summary.nodes.max(1));
    html! {
        section {
            h2 { "Machine cost" }
            div.cards {
                (card("Real time", &format!("{} s", number(summary.wall_seconds)),
                    &format!("{} times as fast as the mesh itself", or_none(speed, number))))
                (card("Events", &count(summary.events),
                    &format!("{} each second", or_none(summary.events_per_second, |x| decimal(x, 0)))))
                (card("Peak memory", &bytes(summary.peak_rss_bytes), &format!("{} for each node", bytes(of_node))))
                (card("Threads", &facts.manifest.threads.to_string(), "that worked"))
            }
        }
    }
}

fn definitions(facts: &Facts<'_>) -> Markup {
    let rows: usize = facts.outcome.deliveries.iter().map(Vec::len).sum();
    html! {
        section {
            h2 { "What the numbers mean" }
            p { "A message is " strong { "expected" } " at its audience: the honest nodes that were up and connected to its \
                author through honest nodes, from publishing until it had the time to arrive. Delivery, latency, hops and \
                redundancy are those of the audience; " (counted(facts.summary.deliveries_unexpected, "delivery", "deliveries"))
                " to others came on top." }
            p { "Percentiles are nearest ranks: of n values in order, the one at rank ⌈p·n⌉. Nothing is interpolated." }
            p { strong { "RMR" } ", relative message redundancy, is m/(n−1)−1, where m copies of a message arrived and n−1 nodes \
                are its audience; the mean over messages. Zero is the optimum. " strong { "Last delivery hop" } " is the number \
                of links over which the last node of the audience got a message (Leitão, Pereira and Rodrigues, 2007)." }
            p { strong { "Step skew" } " is the distance between the first and the last mesh time of honest nodes, in samples \
                taken twice a second from the first one in which all that are up have a step." }
            p { strong { "Precision" } " is the part of the verdicts of honest nodes that is right, " strong { "recall" } " the part \
                of the honest nodes that could know of a misbehaving one and do. Without observers, who is shut out counts as found." }
            p { "The same data are in " code { "summary.json" } ", " code { "messages.csv" } ", " code { "deliveries.csv" } " and "
                code { "samples.csv" } " beside this page."
                @if rows > DELIVERIES_ROWS_MAX {
                    " Of " (count(rows as u64)) " deliveries " code { "deliveries.csv" } " has the first "
                    (count(DELIVERIES_ROWS_MAX as u64)) "; those of later messages are left out."
                }
            }
        }
    }
}
