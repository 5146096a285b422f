//! Runs many real nodes in this process over links of a given latency, and says what came of it.
//!
//! `cargo run --release -p omnimesh-node --example emulation -- [NODES] [DIALS] [MESSAGES] [PER_SECOND] [SETTLE_S]
//! [SLOWDOWN] [LATENCY_MS_MIN] [LATENCY_MS_MAX] [noise|plain]`
//!
//! Each node dials so many others at random; the latency of each pair is drawn once, evenly between the two bounds;
//! after some seconds nodes drawn at random publish. All times but the first two columns are the network's, which
//! goes slower than real time by a factor. The topology follows from the seed in `SEED` (default 1); the
//! nodes' own randomness does not.

use std::collections::BTreeSet;
use std::error::Error;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use omnimesh_node::swarm::{Links, Security};
use omnimesh_node::{EmulatedNetwork, Emulation};
use omnimesh_protocol::Mesh;
use omnimesh_protocol::gossip::Stats;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

const CHANNEL: &str = "news";

struct Arguments {
    nodes: u32,
    dials: u32,
    messages: u32,
    per_second: f64,
    settle: Duration,
    slowdown: NonZeroU32,
    latency_ms: (u64, u64),
    security: Security,
    seed: u64,
}

impl Arguments {
    fn read() -> Result<Self, Box<dyn Error>> {
        let mut words = std::env::args().skip(1);
        let mut next = |default: &str| words.next().unwrap_or_else(|| default.to_owned());
        Ok(Arguments {
            nodes: next("200").parse()?,
            dials: next("8").parse()?,
            messages: next("40").parse()?,
            per_second: next("2").parse()?,
            settle: Duration::from_secs(next("15").parse()?),
            slowdown: next("1").parse()?,
            latency_ms: (next("10").parse()?, next("100").parse()?),
            security: if next("noise") == "plain" { Security::None } else { Security::Noise },
            seed: std::env::var("SEED").unwrap_or_else(|_| "1".to_owned()).parse()?,
        })
    }
}

/// A number below `end`.
fn below(rng: &mut impl Rng, end: u64) -> u64 {
    rng.next_u64() % end.max(1)
}

/// Each node dials so many others; two are connected once.
fn edges(nodes: u32, dials: u32, seed: u64) -> BTreeSet<(u32, u32)> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut pairs = BTreeSet::new();
    let mut edges = BTreeSet::new();
    for from in 0..nodes {
        let mut made = 0;
        while made < dials.min(nodes - 1) {
            let to = u32::try_from(below(&mut rng, nodes.into())).unwrap_or(0);
            if to == from {
                continue;
            }
            made += 1;
            if pairs.insert((from.min(to), from.max(to))) {
                edges.insert((from, to));
            }
        }
    }
    edges
}

/// The same for both directions of a pair, and evenly spread over the pairs.
fn latency((low, high): (u64, u64), seed: u64, a: u32, b: u32) -> Duration {
    let pair = (u64::from(a.min(b)) << 32) | u64::from(a.max(b));
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ pair.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    Duration::from_micros(low * 1000 + below(&mut rng, (high - low) * 1000 + 1))
}

/// Resident memory in KiB, and CPU seconds so far.
fn usage() -> (u64, f64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let rss = rss.and_then(|rss| rss.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0);
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<f64> =
        stat.rsplit(") ").next().unwrap_or_default().split(' ').filter_map(|f| f.parse().ok()).collect();
    // User and system time in hundredths of a second; the state before them is no number.
    (rss, (fields.get(10).unwrap_or(&0.0) + fields.get(11).unwrap_or(&0.0)) / 100.0)
}

struct Stage {
    name: &'static str,
    begun: Instant,
    cpu: f64,
}

impl Stage {
    fn begin(name: &'static str) -> Self {
        Stage { name, begun: Instant::now(), cpu: usage().1 }
    }

    fn end(self, nodes: u32) {
        let (rss, cpu) = usage();
        println!(
            "{:<10} {:>7.2} s wall {:>7.2} s CPU   VmRSS {:>6} MiB, {:>5} KiB a node",
            self.name,
            self.begun.elapsed().as_secs_f64(),
            cpu - self.cpu,
            rss >> 10,
            rss / u64::from(nodes.max(1)),
        );
    }
}

fn percentile(sorted: &[f64], p: f64) -> f64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index below the length")]
    let at = (p * sorted.len() as f64).ceil() as usize;
    sorted.get(at.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

#[actix::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::read()?;
    let Arguments { nodes, dials, messages, per_second, settle, slowdown, latency_ms, security, seed } =
        arguments;
    println!(
        "{nodes} nodes, {dials} dials each, links {}..{} ms, {messages} messages at {per_second}/s, {security:?}, \
         {slowdown} times slower than real time, SEED={seed}",
        latency_ms.0, latency_ms.1
    );
    let links = Links::slow(security, slowdown, move |a, b| latency(latency_ms, seed, a, b));
    let mut network = EmulatedNetwork::new(Emulation::new(Mesh::open("emulation")?, links))?;

    let stage = Stage::begin("start");
    network.add_nodes(nodes).await?;
    stage.end(nodes);
    let stage = Stage::begin("connect");
    let edges = edges(nodes, dials, seed);
    let links = edges.len();
    network.connect_all(edges).await?;
    stage.end(nodes);
    println!("           {links} connections");
    let stage = Stage::begin("ready");
    network.wait_ready().await?;
    let seen: Arc<Mutex<Vec<(u32, Duration)>>> = Arc::default();
    let seen_by_handler = Arc::clone(&seen);
    network
        .on_message(CHANNEL, move |delivery| {
            let number = <[u8; 4]>::try_from(&delivery.message.payload[..4]).map(u32::from_le_bytes);
            let mut seen = seen_by_handler.lock().unwrap_or_else(PoisonError::into_inner);
            seen.push((number.unwrap_or(u32::MAX), delivery.at));
        })
        .await?;
    network.wait_subscribed(CHANNEL).await?;
    stage.end(nodes);
    let stage = Stage::begin("settle");
    network.sleep_until(network.now() + settle).await;
    stage.end(nodes);
    println!("           lag {:?}", network.take_lag());

    let mut degree = 0;
    for node in network.nodes() {
        degree += node.channel_peers(CHANNEL).await?.in_mesh;
    }
    println!("           {:.2} peers in the mesh of a node", degree as f64 / f64::from(nodes));

    let before = totals(&network).await?;
    let stage = Stage::begin("publish");
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 1);
    let mut published = Vec::new();
    let begun = network.now();
    for number in 0..messages {
        let due = begun + Duration::from_secs_f64(f64::from(number) / per_second);
        network.sleep_until(due).await;
        let from = u32::try_from(below(&mut rng, nodes.into())).unwrap_or(0);
        let mut payload = vec![0; 256];
        payload[..4].copy_from_slice(&number.to_le_bytes());
        published.push(network.now());
        network.broadcast(from, CHANNEL, payload).await?;
    }
    let expected = messages as usize * (nodes as usize - 1);
    let deadline = network.now() + Duration::from_secs(30);
    let count = || seen.lock().unwrap_or_else(PoisonError::into_inner).len();
    while count() < expected && network.now() < deadline {
        network.sleep_until(network.now() + Duration::from_millis(50)).await;
    }
    stage.end(nodes);
    let after = totals(&network).await?;
    report(&seen.lock().unwrap_or_else(PoisonError::into_inner), &published, expected);
    let since = |count: fn(&Stats) -> u64| {
        after.iter().map(count).sum::<u64>() - before.iter().map(count).sum::<u64>()
    };
    let (copies, duplicates) = (since(|s| s.copies_received), since(|s| s.duplicates));
    println!(
        "copies {copies}, duplicates {duplicates}: {:.3} for each delivery",
        duplicates as f64 / count().max(1) as f64
    );
    println!(
        "copies sent: own {}, forwarded {}, asked for {}; ids told {}, asked for {}; shed {}, late {}, ignored {}, \
         rejected {}, broken promises {}, graylisted {}, GRAFT {}, PRUNE {}",
        since(|s| s.copies_sent_own),
        since(|s| s.copies_sent_forwarded),
        since(|s| s.copies_sent_iwant),
        since(|s| s.ihave_sent),
        since(|s| s.iwant_sent),
        since(|s| s.shed_messages),
        since(|s| s.verdicts_late),
        since(|s| s.ignored),
        since(|s| s.rejected),
        since(|s| s.broken_promises),
        since(|s| s.graylisted),
        since(|s| s.graft_sent),
        since(|s| s.prune_sent),
    );
    println!("lag {:?}", network.take_lag());
    let stage = Stage::begin("shutdown");
    network.shutdown().await;
    stage.end(nodes);
    Ok(())
}

/// What the router of each node has counted so far.
async fn totals(network: &EmulatedNetwork) -> Result<Vec<Stats>, Box<dyn Error>> {
    let mut stats = Vec::new();
    for index in (0..).take(network.len()) {
        stats.push(network.gossip_stats(index).await?);
    }
    Ok(stats)
}

fn report(seen: &[(u32, Duration)], published: &[Duration], expected: usize) {
    let mut latencies: Vec<f64> = seen
        .iter()
        .filter_map(|(number, at)| Some((*at - *published.get(*number as usize)?).as_secs_f64() * 1000.0))
        .collect();
    latencies.sort_by(f64::total_cmp);
    println!(
        "delivered {} of {expected}; propagation median {:.1} ms, p95 {:.1}, p99 {:.1}, max {:.1}",
        seen.len(),
        percentile(&latencies, 0.5),
        percentile(&latencies, 0.95),
        percentile(&latencies, 0.99),
        percentile(&latencies, 1.0)
    );
}
