//! A picture of a job: its tasks, what waits for what, how far each is, and the longest chain.
//!
//! Drawn in layers from left to right (Sugiyama, Tagawa and Toda, *Methods for visual understanding of hierarchical system
//! structures*, 1981): each family of tasks stands one layer behind the last of those that it waits for, edges that
//! skip layers bend in between, and the order within a layer follows the neighbours. Shapes carry classes, so that
//! the same picture serves light and dark pages; states have words beside their colours.

mod layout;

use maud::{Markup, PreEscaped, html};
use omnimesh_protocol::compute::ledger::JobView;

use self::layout::{Layout, Place, Size};
use super::document::{self, bytes_text};
use super::stats::Stats;
use super::{Clock, Seen};
use crate::api::types::{JobFamily, JobSummary, TaskCounts};
use crate::words;

const NODE: Size = Size { width: 262.0, height: 106.0 };
const PILL: Size = Size { width: 150.0, height: 40.0 };
const MARGIN: f64 = 28.0;
const HEAD: f64 = 86.0;
const FOOT: f64 = 46.0;
const PAD: f64 = 14.0;
/// Narrower, the legend has no room.
const WIDTH_MIN: f64 = 760.0;
/// Of a character, on average, at the size of a title and of other text.
const CHAR: (f64, f64) = (8.2, 6.3);

/// What each state is drawn with, and its name.
const STATES: [(&str, &str); 7] = [
    ("succeeded", "succeeded"),
    ("running", "running"),
    ("ready", "ready"),
    ("pending", "pending"),
    ("failed", "failed"),
    ("skipped", "skipped"),
    ("cancelled", "cancelled"),
];

const STYLE: &str = "
text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Liberation Sans',sans-serif;font-size:12px;fill:#24292f}
.paper{fill:#fbfcfd}.title{font-size:20px;font-weight:600}.name{font-size:14px;font-weight:600}.soft{fill:#57606a}
.node{fill:#fff;stroke:#b6bec7;stroke-width:1.2}.pill{fill:#eef1f4;stroke:#b6bec7}
.chain{stroke:#b3410e;stroke-width:2.6}.hot{fill:#b3410e;font-weight:600}
.edge{fill:none;stroke:#8c959f;stroke-width:1.4}.edge.chain{stroke:#b3410e;stroke-width:3.2}
.tip{fill:#8c959f}.tip.chain{fill:#b3410e;stroke:none}
.succeeded{fill:#2f9e5b}.running{fill:#2f6fde}.ready{fill:#86b4f5}.pending{fill:#d3d9e0}.failed{fill:#d1343f}
.skipped{fill:#d9a514}.cancelled{fill:#8c959f}
@media (prefers-color-scheme:dark){text{fill:#e6edf3}.paper{fill:#0f141a}.soft{fill:#9aa5b1}
.node{fill:#182028;stroke:#46525f}.pill{fill:#202a34;stroke:#46525f}.chain{stroke:#ff9a5c}.hot{fill:#ff9a5c}
.edge{stroke:#6d7985}.edge.chain{stroke:#ff9a5c}.tip{fill:#6d7985}.tip.chain{fill:#ff9a5c}
.pending{fill:#3a4652}.ready{fill:#3f6fb5}.cancelled{fill:#6d7985}}
";

/// What stands in the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item {
    Input(usize),
    Family(usize),
    Output(usize),
}

/// Draws a job as SVG.
pub fn graph(seen: &Seen<'_>, clock: &Clock, view: &JobView<'_>, stats: &Stats) -> String {
    let detail = document::detail_of(seen, clock, view, stats);
    let (items, edges) = items_and_edges(view);
    let sizes: Vec<Size> =
        items.iter().map(|item| if matches!(item, Item::Family(_)) { NODE } else { PILL }).collect();
    let layout = Layout::new(&sizes, &edges);
    let width = (layout.width + 2.0 * MARGIN).max(WIDTH_MIN);
    let shift = ((width - layout.width) / 2.0, HEAD + MARGIN / 2.0);
    let height = layout.height + HEAD + FOOT + MARGIN;
    let chain = stats.critical_families();
    let is_chain = |from: usize, to: usize| match (items.get(from), items.get(to)) {
        (Some(Item::Family(a)), Some(Item::Family(b))) => {
            chain.windows(2).any(|pair| usize::from(pair[0]) == *a && usize::from(pair[1]) == *b)
        }
        _ => false,
    };
    let mut order: Vec<usize> = (0..edges.len()).collect();
    // What matters is drawn over the rest.
    order.sort_by_key(|edge| is_chain(edges[*edge].0, edges[*edge].1));
    let body = html! {
        g transform=(format!("translate({} {})", px(shift.0), px(shift.1))) {
            @for edge in order {
                (draw_edge(&layout.routes[edge], is_chain(edges[edge].0, edges[edge].1)))
            }
            @for (item, place) in items.iter().zip(&layout.places) {
                @match *item {
                    Item::Input(input) => (draw_input(place, &detail.inputs[input])),
                    Item::Family(family) => {
                        (draw_family(place, &detail.families[family], stats.families[family].critical_ms))
                    },
                    Item::Output(output) => (draw_output(place, &detail.outputs[output])),
                }
            }
        }
    };
    let title = format!("Job {}: {}", detail.summary.name, detail.summary.state);
    let svg = html! {
        svg xmlns="http://www.w3.org/2000/svg" viewBox=(format!("0 0 {} {}", px(width), px(height)))
            width=(px(width)) height=(px(height)) role="img" aria-labelledby="title" {
            title id="title" { (title) }
            style { (PreEscaped(STYLE)) }
            rect class="paper" width="100%" height="100%" {}
            (draw_head(&detail.summary, stats))
            (body)
            (draw_legend(height))
        }
    };
    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{}\n", svg.into_string())
}

/// Inputs that somebody reads, families, outputs; and who is before whom, by places in the list.
fn items_and_edges(view: &JobView<'_>) -> (Vec<Item>, Vec<(usize, usize)>) {
    use omnimesh_protocol::compute::job::{Each, Source};
    let (spec, plan) = (view.spec(), view.plan());
    let families = plan.families();
    let mut items: Vec<Item> = (0..families).map(Item::Family).collect();
    let mut edges = Vec::new();
    for (place, _) in (0_u16..).zip(&spec.tasks) {
        for wait in plan.waits(place) {
            let edge = (usize::from(wait.task), usize::from(place));
            if !edges.contains(&edge) {
                edges.push(edge);
            }
        }
    }
    for (input, of) in spec.inputs.iter().enumerate() {
        let reads = |task: &omnimesh_protocol::compute::job::TaskSpec| {
            let each =
                matches!(task.each, Some(Each::Chunk { input: read, .. }) if usize::from(read) == input);
            let source =
                |source: &Source| matches!(source, Source::Input(read) if usize::from(*read) == input);
            each || task.sources.iter().any(source) || task.action.program == Some(of.blob)
        };
        let readers: Vec<_> =
            spec.tasks.iter().enumerate().filter(|(_, task)| reads(task)).map(|(place, _)| place).collect();
        if !readers.is_empty() {
            edges.extend(readers.into_iter().map(|reader| (items.len(), reader)));
            items.push(Item::Input(input));
        }
    }
    for (output, (_, family)) in view.outputs().into_iter().enumerate() {
        edges.push((usize::from(family), items.len()));
        items.push(Item::Output(output));
    }
    (items, edges)
}

fn draw_head(job: &JobSummary, stats: &Stats) -> Markup {
    let id = job.id.to_string();
    let facts = format!(
        "{} of {} tasks ended ({:.0} %), {} after its submission; {} of work at {} workers; job {}…",
        job.counts.ended(),
        job.tasks,
        (job.progress * 100.0).floor(),
        words::duration(job.elapsed_ms),
        words::duration(stats.work_ms),
        stats.workers.len(),
        id.get(..12).unwrap_or(&id)
    );
    let state = job.state.to_ascii_lowercase();
    html! {
        rect class=(state) x=(px(MARGIN)) y="21" width="6" height="44" rx="3" {}
        text class="title" x=(px(MARGIN + 16.0)) y="38" { (job.name) " · " (job.state) }
        text class="soft" x=(px(MARGIN + 16.0)) y="60" { (facts) }
        @if stats.critical_ms > 0 {
            text class="hot" x=(px(MARGIN + 16.0)) y="79" { "longest chain " (words::duration(stats.critical_ms)) }
        }
    }
}

fn draw_legend(height: f64) -> Markup {
    let mut x = MARGIN;
    let y = height - FOOT / 2.0;
    html! {
        @for (class, name) in STATES {
            rect class=(class) x=(px(x)) y=(px(y - 9.0)) width="12" height="12" rx="2" {}
            text class="soft" x=(px(x + 18.0)) y=(px(y + 1.0)) { (name) }
            ({ x += 44.0 + name.len() as f64 * CHAR.1; "" })
        }
        line class="chain" x1=(px(x)) x2=(px(x + 26.0)) y1=(px(y - 3.0)) y2=(px(y - 3.0)) {}
        text class="soft" x=(px(x + 34.0)) y=(px(y + 1.0)) { "longest chain" }
    }
}

fn draw_family(place: &Place, family: &JobFamily, critical_ms: u64) -> Markup {
    let (x, y) = (place.x, place.y);
    let inner = NODE.width - 2.0 * PAD;
    let is_chain = family.on_critical_path;
    let class = if is_chain { "node chain" } else { "node" };
    let counts = &family.counts;
    let redundancy = if family.redundancy > 1 { format!(" × {}", family.redundancy) } else { String::new() };
    let operation = format!("{}{redundancy}", family.operation);
    let name_room = (inner - operation.len() as f64 * CHAR.1 - 8.0) / CHAR.0;
    let times = family.times;
    let time = if times.done == 0 {
        "no result yet".to_owned()
    } else if family.tasks == 1 {
        format!("took {}", words::duration(times.max_ms))
    } else {
        format!("median {}, max {}", words::duration(times.p50_ms), words::duration(times.max_ms))
    };
    let chain = if is_chain && critical_ms > 0 { words::duration(critical_ms) } else { String::new() };
    let fan_out = family.fan_out.clone().unwrap_or_else(|| "one task".to_owned());
    html! {
        g {
            title { (family.name) ": " (document::counts_text(counts)) }
            rect class=(class) x=(px(x)) y=(px(y)) width=(px(NODE.width)) height=(px(NODE.height)) rx="9" {}
            text class="name" x=(px(x + PAD)) y=(px(y + 24.0)) { (cut(&family.name, name_room)) }
            text class="soft" text-anchor="end" x=(px(x + NODE.width - PAD)) y=(px(y + 24.0)) { (operation) }
            text class="soft" x=(px(x + PAD)) y=(px(y + 42.0)) { (cut(&fan_out, inner / CHAR.1)) }
            (draw_bar(x + PAD, y + 51.0, inner, counts))
            text x=(px(x + PAD)) y=(px(y + 78.0)) { (cut(&progress(family), inner / CHAR.1)) }
            text class="soft" x=(px(x + PAD)) y=(px(y + 95.0)) { (cut(&time, (inner - 64.0) / CHAR.1)) }
            text class="hot" text-anchor="end" x=(px(x + NODE.width - PAD)) y=(px(y + 95.0)) { (chain) }
        }
    }
}

/// How far a family is, in words.
fn progress(family: &JobFamily) -> String {
    let counts = family.counts;
    let mut text = format!("{}/{}", counts.succeeded, family.tasks);
    for (count, name) in [
        (counts.running, "running"),
        (counts.failed, "failed"),
        (counts.skipped, "skipped"),
        (counts.cancelled, "cancelled"),
        (counts.ready, "ready"),
    ] {
        if count > 0 {
            text += &format!(" · {count} {name}");
        }
    }
    text
}

fn draw_bar(x: f64, y: f64, width: f64, counts: &TaskCounts) -> Markup {
    let all = [
        counts.succeeded,
        counts.running,
        counts.ready,
        counts.pending,
        counts.failed,
        counts.skipped,
        counts.cancelled,
    ];
    let total = f64::from(counts.total().max(1));
    let mut from = x;
    html! {
        rect class="pending" x=(px(x)) y=(px(y)) width=(px(width)) height="11" rx="3" {}
        @for (count, (class, _)) in all.into_iter().zip(STATES) {
            @if count > 0 {
                // What there is can be seen, be it ever so little.
                @let part = (f64::from(count) / total * width).max(2.0).min(x + width - from);
                rect class=(class) x=(px(from)) y=(px(y)) width=(px(part.max(0.0))) height="11" {}
                ({ from += part.max(0.0); "" })
            }
        }
    }
}

fn draw_input(place: &Place, input: &crate::api::types::JobInput) -> Markup {
    draw_pill(place, &input.name, &bytes_text(input.size))
}

fn draw_output(place: &Place, output: &crate::api::types::JobOutput) -> Markup {
    let text = if output.chunks > 1 {
        format!("{}/{} chunks, {}", output.done, output.chunks, bytes_text(output.size))
    } else if output.done > 0 {
        bytes_text(output.size)
    } else {
        "not there yet".to_owned()
    };
    draw_pill(place, &output.name, &text)
}

fn draw_pill(place: &Place, name: &str, text: &str) -> Markup {
    let middle = px(place.x + PILL.width / 2.0);
    html! {
        rect class="pill" x=(px(place.x)) y=(px(place.y)) width=(px(PILL.width)) height=(px(PILL.height)) rx="20" {}
        text text-anchor="middle" x=(middle) y=(px(place.y + 17.0)) { (cut(name, (PILL.width - 24.0) / CHAR.1)) }
        text class="soft" text-anchor="middle" x=(middle) y=(px(place.y + 32.0)) {
            (cut(text, (PILL.width - 20.0) / CHAR.1))
        }
    }
}

/// A curve through all points, level at each, and a tip at its end.
fn draw_edge(points: &[(f64, f64)], is_chain: bool) -> Markup {
    let mut path = String::new();
    for (place, (x, y)) in points.iter().enumerate() {
        match place.checked_sub(1).map(|before| points[before]) {
            None => path += &format!("M{} {}", px(*x), px(*y)),
            Some((from_x, from_y)) => {
                let middle = (from_x + x) / 2.0;
                path += &format!(
                    "C{} {} {} {} {} {}",
                    px(middle),
                    px(from_y),
                    px(middle),
                    px(*y),
                    px(*x),
                    px(*y)
                );
            }
        }
    }
    let chain = if is_chain { " chain" } else { "" };
    let (x, y) = points.last().copied().unwrap_or_default();
    let tip = format!("M{} {}l-9 -4.5v9z", px(x + 1.0), px(y));
    html! {
        path class=(format!("edge{chain}")) d=(path) {}
        path class=(format!("tip{chain}")) d=(tip) {}
    }
}

/// A text of at most so many characters.
fn cut(text: &str, room: f64) -> String {
    let mut left = room;
    let mut short = String::new();
    for c in text.chars() {
        left -= 1.0;
        if left < 0.0 {
            short.pop();
            short.push('…');
            break;
        }
        short.push(c);
    }
    short
}

/// A place, to a tenth.
fn px(value: f64) -> String {
    let rounded = (value * 10.0).round() / 10.0;
    // No "-0".
    format!("{}", rounded + 0.0)
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn what_is_too_long_is_cut() {
        assert_eq!([cut("count", 5.0), cut("counts", 5.9), cut("größer", 4.0)], ["count", "coun…", "grö…"]);
        assert_eq!([px(1.25), px(-0.01), px(3.0)], ["1.3", "0", "3"]);
    }
}
