//! Charts as SVG: a frame with two axes, and marks in it.
//!
//! Written by hand rather than with a plotting library: shapes carry classes instead of colours, so that one chart
//! serves a light page, a dark one, paper and a file of its own ([`super::style`]); text stays text, each chart
//! has a title for those who cannot see it, and lines differ in their dashes, not in colour alone.

use maud::{Markup, PreEscaped, html};

use super::style;
use crate::words::decimal;

const WIDTH: f64 = 640.0;
/// Of the area within the axes.
const PLOT_HEIGHT: f64 = 290.0;
const LEFT: f64 = 72.0;
const RIGHT: f64 = 18.0;
const BOTTOM: f64 = 48.0;
const ROW: f64 = 20.0;
/// Faults and attacks shown above a chart over time; more would leave no room.
const LANES_MAX: usize = 8;
/// Of a character, on average, at the size of a chart's text.
const CHAR_WIDTH: f64 = 6.9;

/// A chart that is done.
#[derive(Debug)]
pub(super) struct Plot {
    /// Names its file.
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    /// How to read it, and what there is to see.
    pub(super) caption: String,
    width: f64,
    height: f64,
    body: Markup,
}

impl Plot {
    pub(super) fn new(
        id: &'static str,
        title: &'static str,
        caption: String,
        (width, height): (f64, f64),
        body: Markup,
    ) -> Self {
        Plot { id, title, caption, width, height, body }
    }

    /// For a page that has the style.
    pub(super) fn inline(&self) -> Markup {
        self.svg(&PreEscaped(String::new()))
    }

    /// A file of its own.
    pub(super) fn standalone(&self) -> String {
        // A style sheet of ours has nothing to escape.
        let style = html! { style { (PreEscaped(style::svg_light())) } rect class="paper" width="100%" height="100%" {} };
        format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{}\n", self.svg(&style).into_string())
    }

    fn svg(&self, before: &Markup) -> Markup {
        let view = format!("0 0 {} {}", self.width, self.height);
        let id = format!("title-{}", self.id);
        html! {
            svg class="plot" xmlns="http://www.w3.org/2000/svg" viewBox=(view) width=(self.width) height=(self.height)
                role="img" aria-labelledby=(id) {
                title id=(id) { (self.title) }
                (before)
                (self.body)
            }
        }
    }
}

/// From values to places.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scale {
    Linear { from: f64, to: f64 },
    Log { from: f64, to: f64 },
}

impl Scale {
    /// From zero to a round number that is at least `most`.
    pub(super) fn up_to(most: f64) -> Scale {
        let most = if most > 0.0 && most.is_finite() { most } else { 1.0 };
        let step = step(most / 5.0);
        Scale::Linear { from: 0.0, to: (most / step - 1e-9).ceil() * step }
    }

    /// In whole decades.
    pub(super) fn decades(least: f64, most: f64) -> Scale {
        let least = least.max(1e-6).log10().floor();
        let most = most.max(1e-6).log10().ceil().max(least + 1.0);
        Scale::Log { from: 10f64.powf(least), to: 10f64.powf(most) }
    }

    /// 0 at the beginning, 1 at the end. `None` for what is no number.
    fn place(&self, value: f64) -> Option<f64> {
        let place = match *self {
            Scale::Linear { from, to } => (value - from) / (to - from),
            Scale::Log { from, to } => (value.max(from) / from).ln() / (to / from).ln(),
        };
        place.is_finite().then_some(place)
    }

    fn ticks(&self, about: f64) -> Vec<f64> {
        match *self {
            Scale::Linear { from, to } => {
                let step = step((to - from) / about);
                let first = (from / step - 1e-9).ceil();
                (0..)
                    .map(|index| (first + f64::from(index)) * step)
                    .take_while(|&x| x <= to + step * 1e-6)
                    .collect()
            }
            Scale::Log { from, to } => {
                let decades = (0..).map(|index| from * 10f64.powi(index)).take_while(|&x| x <= to * 1.001);
                let few = (to / from) < 1e3;
                decades
                    .flat_map(|x| if few { vec![x, 2.0 * x, 5.0 * x] } else { vec![x] })
                    .filter(|&x| x <= to * 1.001)
                    .collect()
            }
        }
    }
}

/// 1, 2 or 5 times a power of ten, and at least `least`.
fn step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|m| m * power)
        .into_iter()
        .find(|&s| s >= least * (1.0 - 1e-9))
        .unwrap_or(10.0 * power)
}

/// One of the two axes.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    /// What it shows, with its unit.
    pub(super) label: String,
    pub(super) scale: Scale,
    /// Only whole numbers are marked, and as many as there is room for.
    pub(super) whole: bool,
}

impl Axis {
    pub(super) fn new(label: impl Into<String>, scale: Scale) -> Axis {
        Axis { label: label.into(), scale, whole: false }
    }

    fn ticks(&self, about: f64) -> Vec<(f64, String)> {
        let ticks = self.scale.ticks(if self.whole { about * 2.0 } else { about }).into_iter();
        ticks.filter(|x| !self.whole || x.fract() == 0.0).map(|x| (x, decimal(x, 6))).collect()
    }
}

/// Something that lasts for a while, shown above and behind a chart over time.
#[derive(Clone, Debug)]
pub(super) struct Span {
    pub(super) name: String,
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) is_attack: bool,
}

/// How a series looks; the style sheet has the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// A full line in the first colour.
    First,
    /// Dashes in the second.
    Second,
    /// A surface in the first colour, pale.
    Band,
    /// Single points in the first colour.
    Points,
    /// Rings in the second.
    Rings,
}

impl Look {
    fn class(self) -> &'static str {
        match self {
            Look::First => "line c1",
            Look::Second => "line c2 dashed",
            Look::Band => "band",
            Look::Points => "point",
            Look::Rings => "ring c2",
        }
    }
}

/// A chart in the making.
#[derive(Debug)]
pub(super) struct Chart {
    id: &'static str,
    x: Axis,
    y: Axis,
    spans: Vec<Span>,
    hidden_spans: usize,
    legend: Vec<(Look, String)>,
    marks: Vec<Markup>,
    /// Drawn over the marks, not cut off at the frame.
    labels: Vec<Markup>,
}

impl Chart {
    pub(super) fn new(id: &'static str, x: Axis, y: Axis) -> Chart {
        let (spans, legend, marks, labels) = Default::default();
        Chart { id, x, y, spans, hidden_spans: 0, legend, marks, labels }
    }

    /// Shows what went wrong meanwhile. Before any marks.
    pub(super) fn spans(&mut self, spans: &[Span]) {
        self.spans = spans.iter().take(LANES_MAX).cloned().collect();
        self.hidden_spans = spans.len().saturating_sub(LANES_MAX);
    }

    fn lanes(&self) -> usize {
        self.spans.len() + usize::from(self.hidden_spans > 0)
    }

    /// Room above the frame: the legend and the lanes. All series must be declared by [`Chart::key`] before marks
    /// are made, since these depend on it.
    fn top(&self) -> f64 {
        12.0 + if self.legend.is_empty() { 0.0 } else { ROW + 4.0 } + self.lanes() as f64 * ROW
    }

    /// Declares a series for the legend.
    pub(super) fn key(&mut self, look: Look, label: impl Into<String>) {
        self.legend.push((look, label.into()));
    }

    fn x_at(&self, value: f64) -> Option<f64> {
        self.x.scale.place(value).map(|place| LEFT + place * (WIDTH - LEFT - RIGHT))
    }

    fn y_at(&self, value: f64) -> Option<f64> {
        self.y.scale.place(value).map(|place| self.top() + (1.0 - place) * PLOT_HEIGHT)
    }

    fn at(&self, (x, y): (f64, f64)) -> Option<(f64, f64)> {
        Some((self.x_at(x)?, self.y_at(y)?))
    }

    /// Straight from point to point; what is no number leaves a gap.
    pub(super) fn line(&mut self, look: Look, points: impl IntoIterator<Item = (f64, f64)>) {
        let mut path = String::new();
        let mut is_down = false;
        for point in points {
            let Some((x, y)) = self.at(point) else {
                is_down = false;
                continue;
            };
            path += &format!("{}{x:.1} {y:.1}", if is_down { "L" } else { "M" });
            is_down = true;
        }
        self.marks.push(html! { path class=(look.class()) d=(path) {} });
    }

    /// Level until the next point.
    pub(super) fn stairs(&mut self, look: Look, points: &[(f64, f64)]) {
        let mut stairs: Vec<(f64, f64)> = Vec::with_capacity(points.len() * 2);
        for &(x, y) in points {
            stairs.extend(stairs.last().map(|&(_, before)| (x, before)));
            stairs.push((x, y));
        }
        self.line(look, stairs);
    }

    /// The surface between two lines.
    pub(super) fn band(&mut self, lower: &[(f64, f64)], upper: &[(f64, f64)]) {
        let around = lower.iter().chain(upper.iter().rev()).filter_map(|&point| self.at(point));
        let points: Vec<String> = around.map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        self.marks.push(html! { polygon class=(Look::Band.class()) points=(points.join(" ")) {} });
    }

    /// One by one.
    pub(super) fn points(&mut self, look: Look, points: impl IntoIterator<Item = (f64, f64)>) {
        let circles: Vec<(f64, f64)> = points.into_iter().filter_map(|point| self.at(point)).collect();
        self.marks.push(html! {
            @for (x, y) in circles { circle class=(look.class()) cx=(px(x)) cy=(px(y)) r="2.4" {} }
        });
    }

    /// A point with its value beside it.
    pub(super) fn labelled_point(&mut self, point: (f64, f64), label: &str) {
        let Some((x, y)) = self.at(point) else { return };
        let is_right = x + 12.0 + width_of(label) > WIDTH - RIGHT;
        let (anchor, text_x) = if is_right { ("end", x - 9.0) } else { ("start", x + 9.0) };
        self.labels.push(html! {
            circle class="mark" cx=(px(x)) cy=(px(y)) r="4" {}
            text class="halo" x=(px(text_x)) y=(px(y + 15.0)) text-anchor=(anchor) { (label) }
        });
    }

    /// A bar of `height` around `x`, with a label on top of it.
    pub(super) fn bar(&mut self, x: f64, half_width: f64, height: f64, label: &str) {
        let corners = (self.at((x - half_width, height)), self.at((x + half_width, 0.0)));
        let (Some((left, top)), Some((right, bottom))) = corners else { return };
        let (width, height) = ((right - left).max(1.0), (bottom - top).max(0.0));
        self.marks.push(html! {
            rect class="bar" x=(px(left)) y=(px(top)) width=(px(width)) height=(px(height)) {}
        });
        if width_of(label) * 0.85 < width + 8.0 {
            self.labels.push(html! {
                text class="small" x=(px(left + width / 2.0)) y=(px(top - 5.0)) text-anchor="middle" { (label) }
            });
        }
    }

    /// A limit or a setting, across the chart.
    pub(super) fn guide_y(&mut self, y: f64, label: &str) {
        let Some(y) = self.y_at(y).filter(|y| *y >= self.top() - 0.5) else { return };
        let (right, baseline) = (WIDTH - RIGHT, px(y - 6.0));
        self.labels.push(html! {
            line class="guide" x1=(LEFT) x2=(right) y1=(px(y)) y2=(px(y)) {}
            text class="small halo" x=(right - 6.0) y=(baseline) text-anchor="end" { (label) }
        });
    }

    /// The same, upright.
    pub(super) fn guide_x(&mut self, x: f64, label: &str) {
        let Some(x) = self.x_at(x).filter(|x| *x <= WIDTH - RIGHT + 0.5) else { return };
        let (top, bottom) = (self.top(), self.top() + PLOT_HEIGHT);
        let is_right = x + 4.0 + width_of(label) > WIDTH - RIGHT;
        let (anchor, text_x) = if is_right { ("end", x - 4.0) } else { ("start", x + 4.0) };
        self.labels.push(html! {
            line class="guide" x1=(px(x)) x2=(px(x)) y1=(px(top)) y2=(px(bottom)) {}
            text class="small halo" x=(px(text_x)) y=(px(top + 13.0)) text-anchor=(anchor) { (label) }
        });
    }

    pub(super) fn finish(self, title: &'static str, caption: String) -> Plot {
        let (top, inner) = (self.top(), WIDTH - LEFT - RIGHT);
        let height = top + PLOT_HEIGHT + BOTTOM;
        let clip = format!("clip-{}", self.id);
        let body = html! {
            defs {
                clipPath id=(clip) { rect x=(LEFT - 2.0) y=(top - 2.0) width=(inner + 4.0) height=(PLOT_HEIGHT + 4.0) {} }
                (self.hatch("fault", 45)) (self.hatch("attack", -45))
            }
            (self.legend_row())
            (self.shades())
            (self.axes())
            g clip-path={ "url(#" (clip) ")" } { @for mark in &self.marks { (mark) } }
            // Over the feet of bars.
            path class="axis" d={ "M" (LEFT) " " (px(top)) "v" (PLOT_HEIGHT) "h" (inner) } {}
            @for label in &self.labels { (label) }
        };
        Plot::new(self.id, title, caption, (WIDTH, height), body)
    }

    fn hatch(&self, kind: &str, degrees: i32) -> Markup {
        html! {
            @if self.spans.iter().any(|span| span.is_attack == (kind == "attack")) {
                pattern id={ (kind) "-" (self.id) } width="7" height="7" patternUnits="userSpaceOnUse"
                    patternTransform={ "rotate(" (degrees) ")" } {
                    rect class={ (kind) "-ground" } width="7" height="7" {}
                    line class={ (kind) "-hatch" } x1="0" x2="0" y1="0" y2="7" {}
                }
            }
        }
    }

    fn legend_row(&self) -> Markup {
        let widths: Vec<f64> = self.legend.iter().map(|(_, label)| 34.0 + width_of(label) + 18.0).collect();
        let starts = widths.iter().scan(LEFT, |x, width| Some(std::mem::replace(x, *x + width)));
        html! {
            @for ((look, label), x) in self.legend.iter().zip(starts) {
                @match look {
                    Look::Band => rect class="band" x=(px(x)) y="9" width="26" height="13" {},
                    Look::Points | Look::Rings => circle class=(look.class()) cx=(px(x + 13.0)) cy="16" r="3" {},
                    look => path class=(look.class()) d={ "M" (px(x)) " 16h26" } {},
                }
                text x=(px(x + 33.0)) y="20" { (label) }
            }
        }
    }

    /// Faults and attacks: a lane each above the frame, and a hatching through it.
    fn shades(&self) -> Markup {
        let frame = self.top();
        let first = frame - self.lanes() as f64 * ROW - 2.0;
        let lanes = self.spans.iter().zip(0u32..).filter_map(|(span, lane)| {
            let left = self.x_at(span.from)?.min(WIDTH - RIGHT);
            let right = self.x_at(span.to)?.clamp(left, WIDTH - RIGHT);
            Some((span, first + f64::from(lane) * ROW, left, (right - left).max(1.5)))
        });
        html! {
            @for (span, y, left, width) in lanes {
                @let kind = if span.is_attack { "attack" } else { "fault" };
                @let is_left = left + width + 8.0 + width_of(&span.name) > WIDTH - RIGHT;
                @let (anchor, text) = match (is_left, left - 8.0 - width_of(&span.name) > 0.0) {
                    (false, _) => ("start", left + width + 6.0),
                    (true, true) => ("end", left - 6.0),
                    (true, false) => ("start", left + 6.0),
                };
                rect fill={ "url(#" (kind) "-" (self.id) ")" } class="shade" x=(px(left)) y=(px(frame)) width=(px(width))
                    height=(PLOT_HEIGHT) {}
                rect class=(kind) x=(px(left)) y=(px(y + 3.0)) width=(px(width)) height=(ROW - 6.0) {}
                text class="small halo" x=(px(text)) y=(px(y + 14.5)) text-anchor=(anchor) { (span.name) }
            }
            @if self.hidden_spans > 0 {
                text class="small" x=(LEFT) y=(px(frame - ROW + 12.5)) { "and " (self.hidden_spans) " more" }
            }
        }
    }

    fn axes(&self) -> Markup {
        let (top, bottom, right) = (self.top(), self.top() + PLOT_HEIGHT, WIDTH - RIGHT);
        let middle = format!("translate(14 {}) rotate(-90)", px(top + PLOT_HEIGHT / 2.0));
        html! {
            @for (value, label) in self.y.ticks(5.0) {
                @if let Some(y) = self.y_at(value) {
                    line class="grid" x1=(LEFT) x2=(right) y1=(px(y)) y2=(px(y)) {}
                    text x=(LEFT - 8.0) y=(px(y + 4.5)) text-anchor="end" { (label) }
                }
            }
            @for (value, label) in self.x.ticks(8.0) {
                @if let Some(x) = self.x_at(value) {
                    line class="grid" x1=(px(x)) x2=(px(x)) y1=(top) y2=(px(bottom)) {}
                    line class="axis" x1=(px(x)) x2=(px(x)) y1=(px(bottom)) y2=(px(bottom + 5.0)) {}
                    text x=(px(x)) y=(px(bottom + 19.0)) text-anchor="middle" { (label) }
                }
            }
            text class="axis-label" x=(px((LEFT + right) / 2.0)) y=(px(bottom + 41.0)) text-anchor="middle" { (self.x.label) }
            text class="axis-label" transform=(middle) text-anchor="middle" { (self.y.label) }
        }
    }
}

/// A place with one decimal, which is finer than anybody sees.
pub(super) fn px(place: f64) -> String {
    let text = format!("{place:.1}");
    text.strip_suffix(".0").map_or_else(|| text.clone(), Into::into)
}

fn width_of(label: &str) -> f64 {
    label.chars().count() as f64 * CHAR_WIDTH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_ticks() {
        assert_eq!(Scale::up_to(187.0).ticks(5.0), [0.0, 50.0, 100.0, 150.0, 200.0]);
        assert_eq!(Scale::Linear { from: 0.9, to: 1.0 }.ticks(5.0).len(), 6);
        assert_eq!(Scale::decades(12.0, 60_000.0).ticks(5.0), [10.0, 100.0, 1e3, 1e4, 1e5]);
        assert_eq!(Scale::decades(12.0, 80.0).ticks(5.0), [10.0, 20.0, 50.0, 100.0]);
        // Of nothing, too.
        assert_eq!(Scale::up_to(0.0).ticks(5.0).last(), Some(&1.0));
        assert_eq!(Scale::up_to(f64::NAN).ticks(5.0).last(), Some(&1.0));
    }

    #[test]
    fn places_lie_within_the_scale() {
        assert_eq!(Scale::up_to(10.0).place(5.0), Some(0.5));
        assert_eq!(Scale::Log { from: 1.0, to: 100.0 }.place(10.0), Some(0.5));
        assert_eq!(Scale::Log { from: 1.0, to: 100.0 }.place(0.0), Some(0.0));
        assert_eq!(Scale::up_to(10.0).place(f64::NAN), None);
    }

    #[test]
    fn what_is_no_number_leaves_a_gap() {
        let axis = || Axis::new("x", Scale::up_to(10.0));
        let mut chart = Chart::new("test", axis(), axis());
        chart.line(Look::First, [(0.0, 0.0), (1.0, f64::NAN), (2.0, 1.0), (3.0, 1.0)]);
        let svg = chart.finish("Test", String::new()).standalone();
        assert!(!svg.contains("NaN"), "{svg}");
        assert_eq!(svg.matches("class=\"line c1\"").count(), 1);
        let path = svg.split("class=\"line c1\" d=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!((path.matches('M').count(), path.matches('L').count()), (2, 1));
    }
}
