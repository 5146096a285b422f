//! Wall clocks that are wrong: the mesh's step does not care.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use omnimesh_tests::{Node, SOON, check, lab, wait_for, wall_clock};

use crate::common::{mesh, wait_all_alive};

/// So soon after it is connected a node has the mesh's step.
const STEP_MAX: Duration = Duration::from_secs(5);

/// Looks at every node's step again and again: none may ever run backwards, whatever happens to the node.
#[derive(Default)]
struct Watch {
    last: BTreeMap<String, u64>,
    looks: u64,
}

impl Watch {
    /// The node's step, if it has one now.
    fn look(&mut self, node: &Node<'_>) -> Result<u64, String> {
        let status = node.view("status")?;
        check(status["ready"] == true, || format!("{} is not ready: {status}", node.name()))?;
        let step = status["step"].as_u64().ok_or("a step is a number")?;
        let last = self.last.entry(node.name().to_owned()).or_default();
        assert!(step >= *last, "{}'s step ran backwards, from {last} to {step}", node.name());
        *last = step;
        self.looks += 1;
        Ok(step)
    }

    /// Whether a node has the step that others have: looked at after the first and before the last of them, with a step of
    /// grace to either side.
    fn agrees(&mut self, node: &Node<'_>, others: &[&Node<'_>]) -> Result<(), String> {
        let steps =
            |this: &mut Self| others.iter().map(|other| this.look(other)).collect::<Result<Vec<_>, _>>();
        let before = steps(self)?;
        let step = self.look(node)?;
        let after = steps(self)?;
        let least = before.into_iter().min().unwrap_or_default().saturating_sub(1);
        let most = after.into_iter().max().unwrap_or_default() + 1;
        check((least..=most).contains(&step), || format!("{} is at {step}, not {least}..{most}", node.name()))
    }

    /// Waits until a node that has just been started is connected, and from then on no longer than allowed until it has the
    /// others' step.
    #[track_caller]
    fn wait_agrees(&mut self, node: &Node<'_>, others: &[&Node<'_>]) {
        let connected = wait_for(&format!("{} to be connected", node.name()), SOON, || {
            let peers = node.view("status")?["peers"].as_u64();
            check(peers > Some(0), || "it has no peers".to_owned()).map(|()| Instant::now())
        });
        wait_for(&format!("{} to have the mesh's step", node.name()), STEP_MAX, || self.agrees(node, others));
        println!("{} agrees {:.2} s after it was connected", node.name(), connected.elapsed().as_secs_f64());
    }
}

/// How far its own clock is from the mesh's, in milliseconds.
#[track_caller]
fn offset_ms(node: &Node<'_>) -> f64 {
    node.json(&["step"])["offset_ms"].as_f64().unwrap()
}

#[test]
fn an_hour_off_makes_no_difference() {
    let (Some(mut ahead), Some(mut behind)) = (wall_clock("+1h"), wall_clock("-1h")) else {
        assert!(std::env::var_os("CI").is_none(), "faketime is missing: install the package faketime");
        eprintln!("!!! NOT TESTED: wrong wall clocks; install the package faketime");
        return;
    };
    for variables in [&mut ahead, &mut behind] {
        // Answers that come late on a machine with much to do count, too: who has none goes by its own clock.
        variables.push(("OMNIMESH_NODE__SYNC_TIMEOUT_MS".to_owned(), "1000".to_owned()));
    }
    let lab = lab!();
    let nodes = mesh(&lab, 3);
    let all: Vec<_> = nodes.iter().collect();
    let mut watch = Watch::default();

    let mut wrong = lab.node("wrong").open("test").bootstrap(&nodes[0]).env(&ahead).start();
    watch.wait_agrees(&wrong, &all);
    assert!(offset_ms(&wrong) < -3_500_000.0, "its clock is an hour ahead of the mesh's");

    // It comes back with its clock two hours back.
    wrong.kill();
    wrong.restart_with(|spec| spec.env(&behind));
    watch.wait_agrees(&wrong, &all);
    assert!(offset_ms(&wrong) > 3_500_000.0, "its clock is an hour behind the mesh's");
    drop(all);

    // Nor does it matter when it is the one that founded the mesh.
    let mut nodes = nodes;
    let mut founder = nodes.remove(0);
    founder.kill();
    founder.restart_with(|spec| spec.env(&ahead));
    let all: Vec<_> = nodes.iter().chain([&wrong]).collect();
    watch.wait_agrees(&founder, &all);
    drop(all);

    nodes.extend([wrong, founder]);
    wait_all_alive(&nodes);
    let steps = watch.last.clone();
    wait_for("all to go on for some steps", SOON, || {
        for node in &nodes {
            let others: Vec<_> = nodes.iter().collect();
            watch.agrees(node, &others).unwrap();
        }
        check(steps.iter().all(|(name, step)| watch.last[name] > step + 2), || format!("{:?}", watch.last))
    });
    println!("{} looks at steps", watch.looks);
}
