//! The faults of a scenario: how each begins and ends, and how many of those that were planned had an effect.

use std::time::Duration;

use rand::RngExt;

use super::super::link::{Cut, Degraded, NodeSet, nanos};
use super::super::node::{Ctx, Node};
use super::{Control, DUE_WITHIN, GRAIN_NS, World};
use crate::outcome::Effect;
use crate::scenario::FaultKind;

impl World<'_> {
    pub(super) fn begin_fault(&mut self, number: usize, now: u64) {
        let fault = self.shared.scenario.faults[number].clone();
        let who = self.plan.faults[number].clone();
        match fault.kind {
            FaultKind::Partition { one_way } => self.cut(number, one_way, fault.until, now),
            FaultKind::Crash { restart_after } => {
                for node in who {
                    self.kill(node, number, restart_after, now);
                }
            }
            FaultKind::Churn { per_s, away } => {
                let until = fault.until.unwrap_or(self.shared.scenario.duration);
                let mut at = fault.at.as_secs_f64();
                self.planned[number] = 0;
                loop {
                    at -= (1.0 - self.rng.random_range(0.0..1.0_f64)).ln() / per_s.max(1e-9);
                    if at >= until.as_secs_f64() || who.is_empty() {
                        break;
                    }
                    let node = who[self.rng.random_range(0..who.len())];
                    let at_ns = nanos(Duration::from_secs_f64(at)) / GRAIN_NS * GRAIN_NS;
                    self.planned[number] += 1;
                    let kill = Control::Kill { node, fault: number, restart_after: Some(away) };
                    self.schedule(at_ns.max(now), kill);
                }
            }
            FaultKind::Degrade { loss, latency_factor } => {
                let nodes = who.into_iter().collect();
                self.shared.links.degraded.push(Degraded { fault: number, nodes, loss, latency_factor });
            }
            FaultKind::Slow { frame_time } => {
                self.done[number] += self.each_up(&who, now, |node, _| node.frame_ns = nanos(frame_time));
            }
            FaultKind::ClockJump { by } => {
                self.done[number] += self.each_up(&who, now, |node, ctx| node.leap(by, ctx));
            }
            FaultKind::ClockDrift { ppm } => {
                self.done[number] += self.each_up(&who, now, |node, ctx| node.set_drift(ppm, ctx));
            }
            FaultKind::CrashInWrite { .. } | FaultKind::LostTail { .. } => {
                let survives = matches!(fault.kind, FaultKind::CrashInWrite { .. });
                self.each(&who, now, |node, ctx| node.arm(number, Some(survives), ctx));
            }
            FaultKind::BitFlip { records } => self.flip(number, records, now),
            FaultKind::SlowDisk { factor } => {
                self.each(&who, now, |node, ctx| node.slow_disk(Some((number, factor)), ctx));
            }
            FaultKind::FullDisk => self.each(&who, now, |node, ctx| node.full_disk(Some(number), ctx)),
        }
    }

    pub(super) fn end_fault(&mut self, number: usize, now: u64) {
        let healed =
            self.shared.links.cuts.iter().find(|cut| cut.fault == number).map(|cut| cut.inside.clone());
        self.shared.links.cuts.retain(|cut| cut.fault != number);
        if let Some(inside) = healed {
            self.tell_apart(&inside, true, now);
        }
        self.shared.links.degraded.retain(|degraded| degraded.fault != number);
        let who = self.plan.faults[number].clone();
        match self.shared.scenario.faults[number].kind {
            FaultKind::Slow { .. } => {
                self.each_up(&who, now, |node, _| node.frame_ns = 0);
            }
            FaultKind::ClockDrift { .. } => {
                self.each_up(&who, now, |node, ctx| node.set_drift(0.0, ctx));
            }
            FaultKind::CrashInWrite { .. } | FaultKind::LostTail { .. } => {
                self.each(&who, now, |node, ctx| node.arm(number, None, ctx));
            }
            FaultKind::SlowDisk { .. } => self.each(&who, now, |node, ctx| node.slow_disk(None, ctx)),
            FaultKind::FullDisk => self.each(&who, now, |node, ctx| node.full_disk(None, ctx)),
            // Links are mended above; the others have no end, or end node by node.
            FaultKind::Partition { .. }
            | FaultKind::Degrade { .. }
            | FaultKind::Crash { .. }
            | FaultKind::Churn { .. }
            | FaultKind::ClockJump { .. }
            | FaultKind::BitFlip { .. } => {}
        }
    }

    fn cut(&mut self, number: usize, one_way: bool, until: Option<Duration>, now: u64) {
        let inside: NodeSet = self.plan.faults[number].iter().copied().collect();
        let silence = nanos(self.shared.scenario.network.silence);
        let ends = until.map_or(u64::MAX, nanos);
        let outlives = ends.saturating_sub(now) < silence;
        let crossing: Vec<u32> = (0..)
            .zip(&self.plan.links)
            .filter(|(_, (a, b))| inside.contains(*a) != inside.contains(*b))
            .map(|(link, _)| link)
            .collect();
        if !outlives {
            for link in &crossing {
                let spread = self.rng.random_range(0..=silence / 4);
                let at = (now + silence + spread).div_ceil(GRAIN_NS) * GRAIN_NS;
                self.schedule(at, Control::Break(*link));
            }
        }
        // What was just published may have been on its way to the other side.
        let due = now.saturating_sub(nanos(DUE_WITHIN));
        for sent in self.sent.iter_mut().filter(|sent| sent.at >= due) {
            let with_author = inside.contains(sent.author);
            sent.audience.retain(|node| inside.contains(node) == with_author);
        }
        let heals = outlives.then_some(ends);
        if !outlives {
            self.tell_apart(&inside, false, now);
        }
        self.shared.links.cuts.push(Cut { fault: number, inside, one_way, heals });
    }

    pub(super) fn kill(&mut self, node: u32, fault: usize, restart_after: Option<Duration>, now: u64) {
        if !self.node(node).is_up() {
            return;
        }
        self.with(node, now, |node, ctx| node.kill(ctx));
        self.tell_of(node, false, now);
        self.done[fault] += 1;
        let back = restart_after.map_or(u64::MAX, |after| now + nanos(after));
        self.away.push((node, now, back));
        if back < u64::MAX {
            self.schedule(back, Control::Start(node));
        }
    }

    fn each(&mut self, who: &[u32], now: u64, mut work: impl FnMut(&mut Node, &mut Ctx<'_>)) {
        for id in who {
            self.with(*id, now, |node, ctx| work(node, ctx));
        }
    }

    fn each_up(&mut self, who: &[u32], now: u64, mut work: impl FnMut(&mut Node, &mut Ctx<'_>)) -> u64 {
        let mut done = 0;
        for id in who {
            if self.node(*id).is_up() {
                done += 1;
                self.with(*id, now, |node, ctx| work(node, ctx));
            }
        }
        done
    }

    /// Planned faults; what links did is with the shards.
    pub(super) fn effects(&self) -> Vec<Effect> {
        self.shared
            .scenario
            .faults
            .iter()
            .enumerate()
            .map(|(number, fault)| {
                let of_links = self.shards.iter().map(|shard| shard.sink.record.faults[number]).sum::<u64>();
                Effect {
                    name: format!("{}#{}", fault.kind.name(), number + 1),
                    planned: self.planned[number],
                    effective: self.done[number] + of_links,
                    at: fault.at,
                    until: fault.until,
                }
            })
            .collect()
    }
}
