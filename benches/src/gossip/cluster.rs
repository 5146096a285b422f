//! Node processes of one kind, each connected to all others, and trials with them.

use std::time::Duration;

use clap::ValueEnum as _;
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout};

use super::node::{Runtime, Side};
use super::wire::{Load, Order, Reply};
use crate::Outcome;
use crate::process::{PATIENCE, Process};
use crate::stats::quantile;

/// How long after the last message was due those under way may still arrive.
const GRACE: Duration = Duration::from_millis(500);
/// The share that must arrive for a rate to count as carried.
const DELIVERED_MIN: f64 = 0.999;
/// A cluster is at rest if it uses less of one core than this.
const REST: f64 = 0.15;

/// The nodes; they end when this is dropped.
pub(super) struct Cluster {
    pub(super) side: Side,
    nodes: Vec<Process>,
    round: u32,
}

/// What came of a trial.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Trial {
    /// Messages offered per second.
    pub(super) offered: f64,
    /// Messages that each receiver got per second.
    pub(super) rate: f64,
    /// What arrived of what should.
    pub(super) delivered: f64,
    /// CPU time of all nodes for one delivery, in microseconds.
    pub(super) cpu_us: f64,
    /// The same of the publisher alone, for one message.
    pub(super) publisher_cpu_us: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    /// What receivers say of losses.
    pub(super) trouble: Option<String>,
}

impl Trial {
    /// Whether nothing to speak of was lost.
    pub(super) fn is_carried(&self) -> bool {
        self.delivered >= DELIVERED_MIN
    }
}

fn start(side: Side, runtime: Runtime, index: usize, others: &[String]) -> Outcome<Process> {
    let side = side.to_possible_value().ok_or("a name")?;
    let index = index.to_string();
    let fixed = ["node", "--side", side.get_name(), "--runtime", runtime.name(), "--index", &index];
    Process::start(fixed.into_iter().chain(others.iter().map(String::as_str)))
}

impl Cluster {
    /// Starts the nodes, connects each with all before it, and waits until messages reach everybody.
    pub(super) async fn start(side: Side, runtime: Runtime, count: usize) -> Outcome<Self> {
        let (mut nodes, mut addresses) = (Vec::new(), Vec::new());
        for index in 0..count {
            let mut node = start(side, runtime, index, &addresses)?;
            let Reply::Listening(address) = node.reply().await? else { return Err("no address".into()) };
            addresses.push(address);
            nodes.push(node);
        }
        let mut cluster = Cluster { side, nodes, round: 0 };
        timeout(PATIENCE, cluster.settle()).await.map_err(|_| format!("{side:?} nodes do not connect"))??;
        Ok(cluster)
    }

    async fn settle(&mut self) -> Outcome<()> {
        let others = self.nodes.len() - 1;
        for node in &mut self.nodes {
            loop {
                node.order(Order::Peers).await?;
                if matches!(node.reply().await?, Reply::Peers(peers) if peers >= others) {
                    break;
                }
                sleep(Duration::from_millis(100)).await;
            }
        }
        // Some heartbeats until the meshes stand; gossipsub's first one comes after five seconds.
        sleep(Duration::from_secs(8)).await;
        while !self.trial(20.0, 1.0, 64).await?.is_carried() {}
        Ok(())
    }

    /// The first node publishes for so long at so many messages per second. Latency counts from when each
    /// message was due.
    pub(super) async fn trial(&mut self, rate: f64, seconds: f64, bytes: usize) -> Outcome<Trial> {
        self.publish(rate, seconds, bytes, false).await
    }

    /// The same, a message now and then. Latency counts from when each message was handed over.
    pub(super) async fn lone(&mut self, rate: f64, seconds: f64, bytes: usize) -> Outcome<Trial> {
        self.publish(rate, seconds, bytes, true).await
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count within a trial")]
    async fn publish(
        &mut self,
        rate: f64,
        seconds: f64,
        bytes: usize,
        from_handover: bool,
    ) -> Outcome<Trial> {
        self.rest().await?;
        self.round += 1;
        let load =
            Load { round: self.round, count: (rate * seconds).ceil() as u32, rate, bytes, from_handover };
        for node in &mut self.nodes {
            node.order(Order::Expect { round: load.round, count: load.count }).await?;
            // Replies of an earlier round may come first.
            while !matches!(node.reply().await?, Reply::Expecting { round } if round == load.round) {}
        }
        let before = self.cpu_s()?;
        let deadline = Instant::now() + Duration::from_secs_f64(seconds) + GRACE;
        self.publisher()?.order(Order::Publish(load)).await?;
        let published = self.published(deadline).await?;
        for node in self.nodes.iter_mut().skip(1) {
            while let Some(reply) = node.reply_before(deadline).await? {
                if matches!(reply, Reply::Arrived { round } if round == load.round) {
                    break;
                }
            }
        }
        let after = self.cpu_s()?;
        let first_us = match published {
            Some(first_us) => first_us,
            None => self.stop().await?,
        };
        self.evaluate(load, first_us, &before, &after).await
    }

    fn publisher(&mut self) -> Outcome<&mut Process> {
        Ok(self.nodes.first_mut().ok_or("no nodes")?)
    }

    async fn published(&mut self, deadline: Instant) -> Outcome<Option<u64>> {
        let round = self.round;
        while let Some(reply) = self.publisher()?.reply_before(deadline).await? {
            if let Reply::Published { round: of, first_us, .. } = reply
                && of == round
            {
                return Ok(Some(first_us));
            }
        }
        Ok(None)
    }

    /// Ends a round whose publisher did not come to its end in time; when its first message was due.
    async fn stop(&mut self) -> Outcome<u64> {
        self.publisher()?.order(Order::Stop).await?;
        let end = self.published(Instant::now() + PATIENCE).await?;
        Ok(end.ok_or("the publisher does not stop")?)
    }

    async fn evaluate(&mut self, load: Load, first_us: u64, before: &[f64], after: &[f64]) -> Outcome<Trial> {
        let (mut received, mut last_us, mut latencies_us, mut trouble) = (0, first_us, Vec::new(), None);
        let receivers = self.nodes.len() - 1;
        for (index, node) in self.nodes.iter_mut().enumerate().skip(1) {
            node.order(Order::Collect).await?;
            let collected = loop {
                match node.reply().await? {
                    Reply::Collected(collected) => break collected,
                    Reply::Arrived { .. } => {}
                    other => return Err(format!("not an answer: {other:?}").into()),
                }
            };
            received += collected.received;
            last_us = last_us.max(collected.last_us);
            latencies_us.extend(collected.latencies_us);
            let of_node = collected.trouble.map(|text| format!("node {index}: {text}"));
            trouble = trouble.into_iter().chain(of_node).reduce(|all, of_node| format!("{all}; {of_node}"));
        }
        latencies_us.sort_unstable();
        let used =
            |nodes: &mut dyn Iterator<Item = (&f64, &f64)>| nodes.map(|(b, a)| a - b).sum::<f64>() * 1e6;
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let (expected, seconds) =
            (f64::from(load.count) * receivers as f64, (last_us - first_us).max(1) as f64 / 1e6);
        let all = f64::from(received).max(1.0);
        Ok(Trial {
            offered: load.rate,
            rate: all / f64::from(u32::try_from(receivers)?) / seconds,
            delivered: f64::from(received) / expected,
            cpu_us: used(&mut before.iter().zip(after)) / all,
            publisher_cpu_us: used(&mut before.iter().zip(after).take(1)) / f64::from(load.count),
            p50_us: f64::from(quantile(&latencies_us, 0.5)),
            p99_us: f64::from(quantile(&latencies_us, 0.99)),
            trouble,
        })
    }

    /// Waits until nothing of an earlier round is under way any more.
    async fn rest(&mut self) -> Outcome<()> {
        let pause = Duration::from_millis(150);
        let end = Instant::now() + PATIENCE;
        let mut before: f64 = self.cpu_s()?.iter().sum();
        while Instant::now() < end {
            sleep(pause).await;
            let now: f64 = self.cpu_s()?.iter().sum();
            if (now - before) / pause.as_secs_f64() < REST {
                return Ok(());
            }
            before = now;
        }
        Err(format!("{:?} nodes do not come to rest", self.side).into())
    }

    fn cpu_s(&self) -> Outcome<Vec<f64>> {
        self.nodes.iter().map(Process::cpu_s).collect()
    }

    /// Ends the nodes.
    pub(super) async fn stop_all(mut self) -> Outcome<()> {
        for node in &mut self.nodes {
            node.kill().await?;
        }
        Ok(())
    }
}
