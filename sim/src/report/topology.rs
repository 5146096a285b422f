//! The gossip mesh at the end, as a circle: nodes side by side with those of their region, links across.

use std::f64::consts::{PI, TAU};

use maud::{Markup, html};

use super::Facts;
use super::svg::{Plot, px};
use crate::words::{count, counted};

/// Links drawn; more make a black disc.
const LINKS_MAX: usize = 3_000;
/// Nodes drawn; more make a line.
const NODES_MAX: u32 = 3_000;
/// Regions that have a colour of their own.
const COLOURS: usize = 5;
const NAME_CHARS_MAX: usize = 16;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 560.0;
const RADIUS: f64 = 232.0;

/// Of runs small enough to be drawn.
pub(super) fn plot(facts: &Facts<'_>) -> Option<Plot> {
    let outcome = facts.outcome;
    if outcome.mesh_links.is_empty() || outcome.nodes > NODES_MAX {
        return None;
    }
    let circle = Circle::new(outcome.nodes, &outcome.regions);
    let mut links: Vec<(u32, u32)> = outcome.mesh_links.iter().map(|&(a, b)| (a.min(b), a.max(b))).collect();
    links.sort_unstable();
    links.dedup();
    let every = links.len().div_ceil(LINKS_MAX).max(1);
    let drawn: Vec<(u32, u32)> = links.iter().step_by(every).copied().collect();
    let body = html! {
        (circle.links(&drawn))
        (circle.nodes(outcome.nodes, &outcome.regions, &outcome.adversary_nodes))
        (circle.arcs(&facts.region_names()))
        (key(!outcome.adversary_nodes.is_empty()))
    };
    let shown = match drawn.len() {
        all if all == links.len() => {
            format!("All {}", counted(all as u64, "gossip mesh link", "gossip mesh links"))
        }
        some => format!("{} of {} gossip mesh links", count(some as u64), count(links.len() as u64)),
    };
    let regions = if outcome.regions.is_empty() { "" } else { ", side by side with those of their region" };
    let mut caption = format!("{shown} at the end. Nodes are on the circle{regions}.");
    if !outcome.adversary_nodes.is_empty() {
        caption += " Diamonds misbehave. Where they have fewer lines than others, the mesh has dropped them.";
    }
    Some(Plot::new("topology", "Gossip mesh", caption, (WIDTH, HEIGHT), body))
}

fn key(has_adversaries: bool) -> Markup {
    html! {
        circle class="r1" cx="16" cy="16" r="4.5" {}
        text x="28" y="20.5" { "honest node" }
        @if has_adversaries {
            path class="adversary" d=(diamond(16.0, 38.0, 7.0)) {}
            text x="28" y="42.5" { "adversary" }
        }
    }
}

/// Where each node is, as an angle.
struct Circle {
    angles: Vec<f64>,
    /// Of each region, its index and from where to where it goes.
    arcs: Vec<(u16, f64, f64)>,
}

impl Circle {
    fn new(nodes: u32, regions: &[u16]) -> Circle {
        let region = |node: u32| regions.get(node as usize).copied().unwrap_or(0);
        let mut order: Vec<u32> = (0..nodes).collect();
        order.sort_by_key(|&node| (region(node), node));
        let groups: Vec<&[u32]> = order.chunk_by(|&a, &b| region(a) == region(b)).collect();
        let gap = if groups.len() > 1 { 0.05 } else { 0.0 };
        let one = (TAU - gap * groups.len() as f64) / f64::from(nodes.max(1));
        let mut angles = vec![0.0; nodes as usize];
        let mut arcs = Vec::new();
        let mut at = -PI / 2.0;
        for group in groups {
            let from = at;
            for &node in group {
                angles[node as usize] = at + one / 2.0;
                at += one;
            }
            arcs.extend(group.first().map(|&first| (region(first), from, at)));
            at += gap;
        }
        Circle { angles, arcs }
    }

    fn place(angle: f64, radius: f64) -> (f64, f64) {
        (WIDTH / 2.0 + radius * angle.cos(), HEIGHT / 2.0 + radius * angle.sin())
    }

    fn node(&self, node: u32) -> Option<(f64, f64)> {
        self.angles.get(node as usize).map(|&angle| Circle::place(angle, RADIUS))
    }

    /// Bent towards the middle, so that those of neighbours are seen too.
    fn links(&self, links: &[(u32, u32)]) -> Markup {
        let mut path = String::new();
        for &(a, b) in links {
            let (Some((ax, ay)), Some((bx, by))) = (self.node(a), self.node(b)) else { continue };
            let (cx, cy) = (WIDTH / 2.0 + (ax + bx - WIDTH) / 5.0, HEIGHT / 2.0 + (ay + by - HEIGHT) / 5.0);
            path += &format!("M{ax:.0} {ay:.0}Q{cx:.0} {cy:.0} {bx:.0} {by:.0}");
        }
        let width = if links.len() > 1_000 { "0.6" } else { "1" };
        html! { path class="link" stroke-width=(width) d=(path) {} }
    }

    fn nodes(&self, nodes: u32, regions: &[u16], adversaries: &[u32]) -> Markup {
        let radius = (RADIUS * TAU / f64::from(nodes.max(1)) * 0.38).clamp(1.2, 5.0);
        let colour = |node: u32| usize::from(regions.get(node as usize).copied().unwrap_or(0)) % COLOURS + 1;
        let outside = |&angle: &f64| Circle::place(angle, RADIUS + 6.0);
        let (bad, good): (Vec<u32>, Vec<u32>) =
            (0..nodes).partition(|node| adversaries.binary_search(node).is_ok());
        html! {
            @for (node, (x, y)) in good.iter().filter_map(|&node| Some((node, self.node(node)?))) {
                circle class={ "r" (colour(node)) } cx=(px(x)) cy=(px(y)) r=(px(radius)) {}
            }
            // A little outside, so that they can be larger and hide no others.
            @for (x, y) in bad.iter().filter_map(|&node| self.angles.get(node as usize)).map(outside) {
                path class="adversary" d=(diamond(x, y, (radius * 1.6).clamp(3.0, 5.5))) {}
            }
        }
    }

    /// A line outside along each region, with its name.
    fn arcs(&self, names: &[String]) -> Markup {
        let arcs = self.arcs.iter().filter_map(|&(region, from, to)| {
            let name: String = names.get(usize::from(region))?.chars().take(NAME_CHARS_MAX).collect();
            Some((usize::from(region) % COLOURS + 1, name, from, to))
        });
        // A single region goes all around, and needs no name.
        let arcs = arcs.filter(|_| self.arcs.len() > 1);
        html! {
            @for (colour, name, from, to) in arcs {
                @let (start, end) = (Circle::place(from, RADIUS + 14.0), Circle::place(to, RADIUS + 14.0));
                @let large = u8::from(to - from > PI);
                @let middle = (from + to) / 2.0;
                @let (x, y) = Circle::place(middle, RADIUS + 26.0);
                @let anchor = if middle.cos() > 0.3 { "start" } else if middle.cos() < -0.3 { "end" } else { "middle" };
                path class={ "a" (colour) } stroke-width="4" d={ "M" (px(start.0)) " " (px(start.1)) "A"
                    (RADIUS + 14.0) " " (RADIUS + 14.0) " 0 " (large) " 1 " (px(end.0)) " " (px(end.1)) } {}
                text class="halo" x=(px(x)) y=(px(y + 4.0 + 6.0 * middle.sin())) text-anchor=(anchor) { (name) }
            }
        }
    }
}

fn diamond(x: f64, y: f64, radius: f64) -> String {
    let [left, right, top, bottom] = [x - radius, x + radius, y - radius, y + radius].map(px);
    let (x, y) = (px(x), px(y));
    format!("M{x} {top}L{right} {y}L{x} {bottom}L{left} {y}Z")
}
