//! A node process: an OmniMesh node or a stock gossipsub node, told what to do line by line.

use std::time::Duration;

use clap::{Args, ValueEnum};
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, SwarmBuilder, gossipsub, identity, noise, tcp, yamux};
use omnimesh_node::{MeshNode, NodeOptions, Subscription};
use omnimesh_protocol::config::Config;
use omnimesh_protocol::{Identity, Mesh};
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::wire::{CHANNEL, Order, Reply, Schedule, Tally, now_us};
use crate::Outcome;
use crate::process::{orders, say};

/// Messages handed over in one go before the node does anything else.
const BURST: usize = 64;
/// Broadcasts under way at once in the OmniMesh publisher: who publishes much does not wait for each answer.
const WINDOW: usize = 1024;
/// Room of an OmniMesh subscriber: gossipsub has no such bound, so it should not be what is measured.
const SUBSCRIBER_QUEUE: usize = 16_384;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
pub(crate) enum Side {
    /// This project.
    Omnimesh,
    /// Stock rust-libp2p gossipsub.
    Gossipsub,
}

/// The tokio runtime of a stock node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
pub(crate) enum Runtime {
    /// A thread for each core, as `#[tokio::main]` has it.
    Multi,
    /// One thread.
    Single,
}

impl Runtime {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Runtime::Multi => "multi",
            Runtime::Single => "single",
        }
    }
}

/// One node of a comparison.
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// Which kind of node.
    #[arg(long)]
    pub(super) side: Side,
    /// Its number.
    #[arg(long)]
    pub(super) index: u8,
    /// The runtime of a stock node.
    #[arg(long, default_value = "multi")]
    pub(super) runtime: Runtime,
    /// The nodes before it.
    pub(super) others: Vec<String>,
}

/// Runs a node until standard input ends.
pub(crate) fn node(args: &NodeArgs) -> Outcome<()> {
    match (args.side, args.runtime) {
        // As `omnimesh start` does; the reader is a task on the node's arbiter, as `MeshNode::on_message` makes it.
        (Side::Omnimesh, _) => {
            let others = args.others.clone();
            actix::System::new().block_on(async { actix::spawn(omnimesh(others)).await? })
        }
        (Side::Gossipsub, Runtime::Multi) => {
            tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(gossipsub(args))
        }
        (Side::Gossipsub, Runtime::Single) => {
            tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(gossipsub(args))
        }
    }
}

fn say_any(reply: Option<Reply>) -> Outcome<()> {
    reply.into_iter().try_for_each(|reply| say(&reply))
}

/// Waits until the next message of the schedule is due; for ever if there is none.
async fn due(schedule: Option<&Schedule>) {
    match schedule.filter(|schedule| !schedule.is_through()) {
        Some(schedule) => {
            // A timer waits for the next millisecond at least.
            let wait_us = schedule.due_us().saturating_sub(now_us());
            if wait_us > 0 {
                sleep_until(Instant::now() + Duration::from_micros(wait_us)).await;
            }
        }
        None => std::future::pending().await,
    }
}

async fn omnimesh(others: Vec<String>) -> Outcome<()> {
    let mut config = Config::default();
    config.network.listen = vec!["/ip4/127.0.0.1/tcp/0".to_owned()];
    config.network.bootstrap = others;
    config.limits.subscriber_queue = SUBSCRIBER_QUEUE;
    let identity = Identity::from_seed(&seed());
    let mesh = Mesh::open("benches")?;
    let node = MeshNode::start(NodeOptions { config, data_dir: None, identity, mesh, is_new: true }).await?;
    say(&Reply::Listening(node.bootstrap_addresses().into_iter().next().ok_or("it listens nowhere")?))?;
    node.wait_ready().await?;

    let mut orders = orders();
    let mut messages = node.subscribe(CHANNEL).await?;
    let mut tally = Tally::default();
    let mut schedule: Option<Schedule> = None;
    let mut under_way = FuturesUnordered::new();
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                None => return Ok(()),
                Some(Order::Peers) => say(&Reply::Peers(node.metrics().await?.peers))?,
                Some(Order::Expect { round, count }) => {
                    tally.expect(round, count);
                    say(&Reply::Expecting { round })?;
                }
                Some(Order::Publish(load)) => schedule = Some(Schedule::begin(load)),
                Some(Order::Stop) => say_any(schedule.as_mut().and_then(Schedule::stop))?,
                Some(Order::Collect) => say(&tally.collect(trouble(&node, &messages).await?))?,
            },
            Some(message) = messages.next() => {
                say_any(tally.note(&message.payload))?;
                // What waits already needs no turn of its own each.
                while let Some(Some(message)) = messages.next().now_or_never() {
                    say_any(tally.note(&message.payload))?;
                }
            }
            Some(answer) = under_way.next() => {
                let is_taken = |answer: Result<_, _>| answer.is_ok();
                if let Some(schedule) = &mut schedule {
                    say_any(schedule.on_answer(is_taken(answer)))?;
                    while let Some(Some(answer)) = under_way.next().now_or_never() {
                        say_any(schedule.on_answer(is_taken(answer)))?;
                    }
                }
            }
            () = due(schedule.as_ref()), if under_way.len() < WINDOW => {
                let payloads = std::iter::from_fn(|| schedule.as_mut().and_then(Schedule::next_due));
                for payload in payloads.take(BURST) {
                    under_way.push(node.broadcast(CHANNEL, payload));
                }
            }
        }
    }
}

/// What this node lost or refused of late.
async fn trouble(node: &MeshNode, messages: &Subscription) -> Outcome<Option<String>> {
    let (lost, metrics) = (messages.lost(), node.metrics().await?);
    let is_well = lost == 0 && metrics.refused_per_second == 0.0;
    let text = || format!("{lost} lost by its subscriber in all, {} refused/s", metrics.refused_per_second);
    Ok((!is_well).then(text))
}

async fn gossipsub(args: &NodeArgs) -> Outcome<()> {
    let keypair = identity::Keypair::ed25519_from_bytes(seed())?;
    // All of it as it comes; strict signing is the default of the library's own examples and of `Signed`.
    let config =
        gossipsub::ConfigBuilder::default().validation_mode(gossipsub::ValidationMode::Strict).build()?;
    let behaviour: gossipsub::Behaviour =
        gossipsub::Behaviour::new(gossipsub::MessageAuthenticity::Signed(keypair.clone()), config)?;
    let mut swarm = SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)?
        .with_behaviour(|_| behaviour)?
        // Gossipsub lets connections go that are not in a mesh; the other side keeps them too.
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3600)))
        .build();
    let topic = gossipsub::IdentTopic::new(CHANNEL);
    swarm.behaviour_mut().subscribe(&topic)?;
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
    for other in &args.others {
        swarm.dial(other.parse::<Multiaddr>()?)?;
    }

    let mut orders = orders();
    let mut tally = Tally::default();
    let mut schedule: Option<Schedule> = None;
    // Its heartbeat is not polled again on a quiet swarm; any turn of this loop polls it.
    let mut tick = interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                None => return Ok(()),
                Some(Order::Peers) => say(&Reply::Peers(swarm.connected_peers().count()))?,
                Some(Order::Expect { round, count }) => {
                    tally.expect(round, count);
                    say(&Reply::Expecting { round })?;
                }
                Some(Order::Publish(load)) => schedule = Some(Schedule::begin(load)),
                Some(Order::Stop) => say_any(schedule.as_mut().and_then(Schedule::stop))?,
                Some(Order::Collect) => say(&tally.collect(None))?,
            },
            event = swarm.select_next_some() => match event {
                SwarmEvent::NewListenAddr { address, .. } => {
                    say(&Reply::Listening(format!("{address}/p2p/{}", swarm.local_peer_id())))?;
                }
                SwarmEvent::Behaviour(gossipsub::Event::Message { message, .. }) => {
                    say_any(tally.note(&message.data))?;
                }
                _ => {}
            },
            () = due(schedule.as_ref()) => {
                for _ in 0..BURST {
                    let Some(current) = &mut schedule else { break };
                    let Some(payload) = current.next_due() else { break };
                    let published = swarm.behaviour_mut().publish(topic.clone(), payload);
                    say_any(current.on_answer(published.is_ok()))?;
                }
            }
            _ = tick.tick() => {}
        }
    }
}

/// A new identity for each run: an OmniMesh node without a data directory needs one.
fn seed() -> [u8; 32] {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&now_us().to_le_bytes());
    seed[8..12].copy_from_slice(&std::process::id().to_le_bytes());
    seed
}
