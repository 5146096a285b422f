//! Where things stand in a picture whose arrows go from left to right.

/// How large something is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Size {
    pub(super) width: f64,
    pub(super) height: f64,
}

/// The upper left corner of something.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Place {
    pub(super) x: f64,
    pub(super) y: f64,
}

/// Places of things, and ways of edges between them.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) places: Vec<Place>,
    /// For each edge the points that it goes through.
    pub(super) routes: Vec<Vec<(f64, f64)>>,
}

const GAP: Size = Size { width: 64.0, height: 24.0 };
/// Where an edge passes a layer.
const BEND: Size = Size { width: 0.0, height: 6.0 };
/// Bends in a picture, at most: beyond that edges go straight, and nobody would follow them anyway.
const BENDS_MAX: usize = 4000;
/// How often order and heights are improved: more changes little.
const SWEEPS: usize = 16;

struct Node {
    layer: usize,
    size: Size,
    before: Vec<usize>,
    after: Vec<usize>,
    /// Its middle.
    y: f64,
}

impl Layout {
    /// Lays things of these sizes out; edges name two of them, and form no cycle.
    pub(super) fn new(sizes: &[Size], edges: &[(usize, usize)]) -> Self {
        let layers = layers(sizes.len(), edges);
        let mut nodes: Vec<Node> = sizes
            .iter()
            .zip(&layers)
            .map(|(size, layer)| Node {
                layer: *layer,
                size: *size,
                before: Vec::new(),
                after: Vec::new(),
                y: 0.0,
            })
            .collect();
        let bends: usize =
            edges.iter().map(|(from, to)| (layers[*to] - layers[*from]).saturating_sub(1)).sum();
        let has_bends = bends <= BENDS_MAX;
        let mut ways = Vec::with_capacity(edges.len());
        for &(from, to) in edges {
            let mut way = vec![from];
            if has_bends {
                for layer in layers[from] + 1..layers[to] {
                    way.push(nodes.len());
                    nodes.push(Node { layer, size: BEND, before: Vec::new(), after: Vec::new(), y: 0.0 });
                }
            }
            way.push(to);
            for pair in way.windows(2) {
                nodes[pair[0]].after.push(pair[1]);
                nodes[pair[1]].before.push(pair[0]);
            }
            ways.push(way);
        }
        let mut columns = columns(&nodes);
        order(&mut columns, &nodes);
        stack(&columns, &mut nodes);
        let lefts = lefts(&columns, &nodes);
        Layout::put(sizes, &nodes, &columns, &lefts, &ways)
    }

    fn put(
        sizes: &[Size],
        nodes: &[Node],
        columns: &[Vec<usize>],
        lefts: &[(f64, f64)],
        ways: &[Vec<usize>],
    ) -> Self {
        let top = nodes.iter().map(|node| node.y - node.size.height / 2.0).fold(f64::INFINITY, f64::min);
        let top = if top.is_finite() { top } else { 0.0 };
        let bottom = nodes.iter().map(|node| node.y + node.size.height / 2.0).fold(top, f64::max);
        // In the middle of its column.
        let left = |node: &Node| {
            let (left, width) = lefts[node.layer];
            left + (width - node.size.width) / 2.0
        };
        let places = nodes.iter().take(sizes.len());
        let places =
            places.map(|node| Place { x: left(node), y: node.y - node.size.height / 2.0 - top }).collect();
        let route = |way: &Vec<usize>| {
            let mut points = Vec::new();
            for (place, node) in way.iter().map(|node| &nodes[*node]).enumerate() {
                let (column, width) = lefts[node.layer];
                let y = node.y - top;
                if place > 0 {
                    points.push((if node.size == BEND { column } else { left(node) }, y));
                }
                if place + 1 < way.len() {
                    let right = if node.size == BEND { column + width } else { left(node) + node.size.width };
                    points.push((right, y));
                }
            }
            points
        };
        let width = columns.iter().zip(lefts).map(|(_, (left, width))| left + width).fold(0.0, f64::max);
        Layout { width, height: bottom - top, places, routes: ways.iter().map(route).collect() }
    }
}

/// The longest way to each; what nobody is before stands right before the first that it leads to.
fn layers(count: usize, edges: &[(usize, usize)]) -> Vec<usize> {
    let mut layers = vec![0_usize; count];
    // Each round settles one layer more.
    for _ in 0..count {
        let mut is_settled = true;
        for &(from, to) in edges {
            if layers[to] <= layers[from] {
                layers[to] = layers[from] + 1;
                is_settled = false;
            }
        }
        if is_settled {
            break;
        }
    }
    for node in 0..count {
        if edges.iter().all(|(_, to)| *to != node) {
            let next = edges.iter().filter(|(from, _)| *from == node).map(|(_, to)| layers[*to]).min();
            layers[node] = next.map_or(0, |next| next.saturating_sub(1));
        }
    }
    layers
}

fn columns(nodes: &[Node]) -> Vec<Vec<usize>> {
    let count = nodes.iter().map(|node| node.layer + 1).max().unwrap_or(0);
    let mut columns = vec![Vec::new(); count];
    for (place, node) in nodes.iter().enumerate() {
        columns[node.layer].push(place);
    }
    columns
}

/// Brings those of a column into the order of their neighbours, to and fro.
fn order(columns: &mut [Vec<usize>], nodes: &[Node]) {
    let mut rank = vec![0.0; nodes.len()];
    let note = |column: &[usize], rank: &mut Vec<f64>| {
        for (place, node) in column.iter().enumerate() {
            rank[*node] = place as f64 / column.len().max(1) as f64;
        }
    };
    columns.iter().for_each(|column| note(column, &mut rank));
    for sweep in 0..SWEEPS {
        let is_forward = sweep % 2 == 0;
        let places: Vec<usize> =
            if is_forward { (0..columns.len()).collect() } else { (0..columns.len()).rev().collect() };
        for place in places {
            let key = |node: &usize| {
                let of = &nodes[*node];
                mean(if is_forward { &of.before } else { &of.after }, &rank).unwrap_or(rank[*node])
            };
            let column = &mut columns[place];
            column.sort_by(|a, b| key(a).total_cmp(&key(b)));
            note(column, &mut rank);
        }
    }
}

/// Heights: each as near to its neighbours as those above and below it allow.
fn stack(columns: &[Vec<usize>], nodes: &mut [Node]) {
    for column in columns {
        let mut y = 0.0;
        for &node in column {
            nodes[node].y = y + nodes[node].size.height / 2.0;
            y += nodes[node].size.height + GAP.height;
        }
        column.iter().for_each(|node| nodes[*node].y -= (y - GAP.height) / 2.0);
    }
    for sweep in 0..SWEEPS {
        let places: Vec<usize> =
            if sweep % 2 == 0 { (0..columns.len()).collect() } else { (0..columns.len()).rev().collect() };
        for place in places {
            let ys: Vec<f64> = nodes.iter().map(|node| node.y).collect();
            let wanted: Vec<f64> = columns[place]
                .iter()
                .map(|node| {
                    let both: Vec<usize> =
                        nodes[*node].before.iter().chain(&nodes[*node].after).copied().collect();
                    mean(&both, &ys).unwrap_or(ys[*node])
                })
                .collect();
            settle(&columns[place], &wanted, nodes);
        }
    }
}

/// Puts those of a column where they want to be, as far as they do not overlap.
fn settle(column: &[usize], wanted: &[f64], nodes: &mut [Node]) {
    let mut least = f64::NEG_INFINITY;
    let mut excess = 0.0;
    for (node, wanted) in column.iter().zip(wanted) {
        let half = nodes[*node].size.height / 2.0;
        let y = wanted.max(least + half);
        excess += y - wanted;
        nodes[*node].y = y;
        least = y + half + GAP.height;
    }
    let shift = excess / column.len().max(1) as f64;
    column.iter().for_each(|node| nodes[*node].y -= shift);
}

/// The left side and the width of each column.
fn lefts(columns: &[Vec<usize>], nodes: &[Node]) -> Vec<(f64, f64)> {
    let mut left = 0.0;
    let mut lefts = Vec::with_capacity(columns.len());
    for column in columns {
        let width = column.iter().map(|node| nodes[*node].size.width).fold(0.0, f64::max);
        lefts.push((left, width));
        left += width + GAP.width;
    }
    lefts
}

fn mean(of: &[usize], values: &[f64]) -> Option<f64> {
    (!of.is_empty()).then(|| of.iter().map(|place| values[*place]).sum::<f64>() / of.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_overlaps_and_arrows_go_right() {
        let size = Size { width: 100.0, height: 50.0 };
        let edges = [(0, 1), (0, 2), (1, 3), (2, 3), (0, 3), (3, 4), (5, 4), (0, 4)];
        let layout = Layout::new(&[size; 6], &edges);
        for (a, first) in layout.places.iter().enumerate() {
            assert!(first.x >= 0.0 && first.x + 100.0 <= layout.width, "{first:?}");
            assert!(first.y >= 0.0 && first.y + 50.0 <= layout.height + 0.01, "{first:?}");
            for second in &layout.places[a + 1..] {
                let apart = (first.x - second.x).abs() >= 100.0 || (first.y - second.y).abs() >= 50.0;
                assert!(apart, "{first:?} {second:?}");
            }
        }
        for ((from, to), route) in edges.iter().zip(&layout.routes) {
            assert!(route.windows(2).all(|pair| pair[0].0 <= pair[1].0), "{route:?}");
            assert_eq!(route[0].0, layout.places[*from].x + 100.0);
            assert_eq!(route[route.len() - 1].0, layout.places[*to].x);
        }
        // A lone source stands right before what it leads to.
        assert_eq!(layers(6, &edges), [0, 1, 1, 2, 3, 2]);
    }

    #[test]
    fn nothing_has_a_place_as_well() {
        let layout = Layout::new(&[], &[]);
        assert_eq!((layout.width, layout.height), (0.0, 0.0));
    }
}
