//! What must hold of the ledgers when jobs have ended.

use std::collections::BTreeSet;

use omnimesh_protocol::compute::ledger::{JobState, JobView, TaskState};
use omnimesh_protocol::compute::{JobId, TaskRef};
use omnimesh_protocol::projection::Projection;

use super::{Kind, Mesh, truth};

impl Mesh {
    /// Gives every living node every entry that a living node has.
    pub(crate) fn exchange(&mut self) {
        self.island = None;
        for node in 0..self.nodes.len() {
            for peer in 0..self.nodes.len() {
                if self.nodes[node].is_alive && self.nodes[peer].is_alive {
                    for (author, upto) in self.nodes[peer].have.clone() {
                        self.deliver(node, author, upto);
                    }
                }
            }
        }
    }

    /// All living nodes have the same ledger; each task that has ended has one commit that counts, on all of them the
    /// same; no result is wrong unless as many lie as are asked.
    pub(crate) fn check_job(&self, job: &JobId, expected: JobState, context: &str) {
        let mut hashes = BTreeSet::new();
        for node in self.living() {
            node.driver.ledger().check_invariants();
            hashes.insert(node.driver.ledger().hash());
            let view = node.driver.ledger().job(job).unwrap();
            assert_eq!(view.state(), expected, "{context}: {:?}", view.counts());
            for task in view.plan().tasks() {
                self.check_task(&view, task, context);
            }
        }
        assert_eq!(hashes.len(), 1, "{context}: the ledgers are the same");
    }

    fn check_task(&self, view: &JobView<'_>, task: TaskRef, context: &str) {
        let state = view.task(task).unwrap();
        assert!(state.has_ended(), "{context}: {task} is {}", state.code());
        if state != TaskState::Succeeded {
            return;
        }
        let record = view.record(task).unwrap();
        let of = &view.spec().tasks[usize::from(task.task)];
        let action = of.action_at(record.commit.stage);
        let right = truth(&action.operation, &view.parts(task));
        let output = view.output(task).unwrap();
        if output != right {
            let lies = record.commit.workers.iter().filter(|node| self.kind_of(node) != Kind::Honest).count();
            let needed = usize::from(of.redundancy);
            assert!(lies >= needed, "{context}: {task} is wrong, and only {lies} of {needed} have lied");
        }
        // Whoever else has committed it for these inputs came later in the order.
        let same = view.records(task).filter(|other| other.commit.inputs == record.commit.inputs);
        assert!(same.clone().all(|other| other.stamp >= record.stamp), "{context}");
    }
}
