//! What the world does to jobs: they are submitted, drivers die, others hear of it, and who holds which output.

use super::super::link::{NodeSet, nanos};
use super::super::random::Draw;
use super::{GRAIN_NS, World};

/// Who is back is known after this at most.
const GREETING_NS: u64 = 1_000_000_000;
/// Draws of how long news take.
const OF_NEWS: u64 = 0x6e65_7773;

impl World<'_> {
    pub(super) fn schedule_jobs(&mut self) {
        let (Some(compute), Some(settings)) = (self.shared.scenario.compute.clone(), &self.shared.compute)
        else {
            return;
        };
        let grain = |at: u64| at.div_ceil(GRAIN_NS) * GRAIN_NS;
        let dying = settings.dying.clone();
        let first = |node: u32| settings.jobs.iter().zip(0..).find(|(job, _)| job.submitter == node);
        let deaths: Vec<(u32, u64)> = dying
            .into_iter()
            .filter_map(|node| {
                let (_, job) = first(node)?;
                Some((node, nanos(compute.time_of(job) + compute.driver_death_after)))
            })
            .collect();
        for job in 0..compute.jobs {
            self.schedule(grain(nanos(compute.time_of(job))), super::Control::Submit(job));
        }
        for (node, at) in deaths {
            self.schedule(grain(at), super::Control::Die(node));
        }
    }

    /// Submits a job; later, if its submitter is not there. Like a person who got no answer, it submits again what a submitter
    /// has forgotten that died before the job was on its disk.
    pub(super) fn submit(&mut self, job: u32, now: u64) {
        let Some(settings) = &self.shared.compute else { return };
        let Some(planned) = settings.jobs.get(job as usize) else { return };
        let (submitter, id, spec) = (planned.submitter, planned.id, planned.spec.clone());
        let node = self.node(submitter);
        if node.knows_job(&id) {
            return;
        }
        if node.synchronised_at.is_some() {
            self.with(submitter, now, |node, ctx| node.submit_job(job, spec, ctx));
        }
        self.schedule(now + GREETING_NS, super::Control::Submit(job));
    }

    /// A submitter dies for good.
    pub(super) fn die(&mut self, node: u32, now: u64) {
        if !self.node(node).is_up() {
            // Nobody starts it again.
            self.controls.retain(|_, control| !matches!(control, super::Control::Start(of) if *of == node));
        } else {
            self.with(node, now, |node, ctx| node.kill(ctx));
            self.tell_of(node, false, now);
            self.away.push((node, now, u64::MAX));
        }
        self.shards[0].sink.record.compute.deaths += 1;
    }

    /// Those who have to know hear in a while that a node is up or dead.
    pub(super) fn tell_of(&mut self, of: u32, is_up: bool, now: u64) {
        if !is_up {
            self.shared.up.retain(|node| node != of);
        }
        let Some(settings) = &self.shared.compute else { return };
        let targets: Vec<u32> = if settings.keeps(of) {
            (0..self.shared.scenario.network.nodes).collect()
        } else {
            settings.keepers.clone()
        };
        for to in targets.into_iter().filter(|to| *to != of) {
            self.tell(to, of, (is_up, !is_up), now);
        }
    }

    /// A partition begins or ends.
    pub(super) fn tell_apart(&mut self, inside: &NodeSet, is_up: bool, now: u64) {
        let Some(settings) = &self.shared.compute else { return };
        let keepers = settings.keepers.clone();
        for of in 0..self.shared.scenario.network.nodes {
            for keeper in &keepers {
                if inside.contains(of) != inside.contains(*keeper) {
                    self.tell(of, *keeper, (is_up, false), now);
                    self.tell(*keeper, of, (is_up, false), now);
                }
            }
        }
    }

    fn tell(&mut self, to: u32, of: u32, (is_up, is_death): (bool, bool), now: u64) {
        if !self.node(to).is_up() {
            return;
        }
        let Some(compute) = &self.shared.scenario.compute else { return };
        let notice = nanos(compute.notice);
        let mut draw = Draw::new(self.shared.seed ^ OF_NEWS ^ now, u64::from(to), u64::from(of));
        let after = match (is_up, is_death) {
            (true, _) => draw.next() % GREETING_NS,
            (false, true) => notice / 5 + draw.next() % (notice / 5 * 4).max(1),
            (false, false) => nanos(self.shared.scenario.network.silence) + draw.next() % notice,
        };
        self.with(to, now, |node, ctx| node.hear_of(of, is_up, is_death, after, ctx));
    }

    /// Tells all what the nodes of a shard hold by now.
    pub(super) fn tell_blobs(&mut self, shard: usize) {
        for (hash, node) in std::mem::take(&mut self.shards[shard].sink.blobs) {
            let holders = self.shared.blobs.entry(hash).or_default();
            if let Err(place) = holders.binary_search(&node) {
                holders.insert(place, node);
            }
        }
    }
}
