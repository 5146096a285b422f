//! What befalls the mesh: crashes, restarts, islands, and who hears of it when.

use omnimesh_protocol::compute::{driver, worker};
use omnimesh_protocol::{Outbox, Time};
use rand::RngExt;

use super::{MESH, Mesh, What};

impl Mesh {
    pub(crate) fn crash_at(&mut self, ms: u64, node: usize) {
        self.at(Time::from_millis(ms), What::Crash(node));
    }

    pub(crate) fn restart_at(&mut self, ms: u64, node: usize) {
        self.at(Time::from_millis(ms), What::Restart(node));
    }

    /// Cuts these off from the others, until `heal`.
    pub(crate) fn split_at(&mut self, ms: u64, heal_ms: u64, island: Vec<usize>) {
        self.at(Time::from_millis(ms), What::Split(island));
        self.at(Time::from_millis(heal_ms), What::Heal);
    }

    pub(super) fn crash(&mut self, node: usize) {
        self.nodes[node].is_alive = false;
        self.nodes[node].incarnation += 1;
        for other in 0..self.nodes.len() {
            if other != node {
                let ms = self.rng.random_range(1000..6000);
                self.after(ms, What::Learn { node: other, of: node, is_up: false });
            }
        }
    }

    pub(super) fn restart(&mut self, node: usize) {
        let of = &mut self.nodes[node];
        of.is_alive = true;
        of.is_flushing = false;
        of.driver = driver::State::new(self.options.driver.clone(), of.id);
        let mut out = Outbox::new();
        of.worker =
            worker::State::new(self.options.worker.clone(), of.identity.clone(), MESH, self.now, &mut out);
        self.carry_out_worker(node, &mut out);
        // What it had on disk.
        for (author, upto) in std::mem::take(&mut self.nodes[node].have) {
            self.deliver(node, author, upto);
        }
        for other in 0..self.nodes.len() {
            let ms = self.rng.random_range(10..2000);
            if self.nodes[other].is_alive {
                self.after(ms, What::Learn { node: other, of: node, is_up: true });
                self.after(ms, What::Learn { node, of: other, is_up: true });
            }
        }
    }

    pub(super) fn split(&mut self, island: Option<Vec<usize>>) {
        let before = std::mem::replace(&mut self.island, island.map(|island| island.into_iter().collect()));
        let between = self.island.clone().or(before).unwrap();
        let is_up = self.island.is_none();
        for node in 0..self.nodes.len() {
            for of in 0..self.nodes.len() {
                if between.contains(&node) != between.contains(&of) {
                    let ms = self.rng.random_range(1000..6000);
                    self.after(ms, What::Learn { node, of, is_up });
                }
            }
        }
    }

    pub(super) fn can_talk(&self, a: usize, b: usize) -> bool {
        self.island.as_ref().is_none_or(|island| island.contains(&a) == island.contains(&b))
    }

    pub(super) fn learn(&mut self, node: usize, of: usize, is_up: bool) {
        let id = self.nodes[of].id;
        if is_up {
            self.work(node, worker::Input::Connected(id));
            if node != of {
                self.drive(node, driver::Input::Up(id));
            }
        } else {
            self.work(node, worker::Input::Disconnected(id));
            self.drive(node, driver::Input::Gone(id));
            self.drive(node, driver::Input::Down(id));
        }
    }
}
