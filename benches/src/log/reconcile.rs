//! The log's reconciliation beside crate `negentropy`: bytes, round trips and time, for the same differences.
//!
//! Both are range-based set reconciliation. What differs is the set. A node of OmniMesh compares where the logs of
//! authors end, for a log is a chain: who knows its end knows all of it. `negentropy` compares items by time and id,
//! and knows of no chains.
//!
//! * **heads**: the same items for both, one for each author. What differs are authors whose log is longer on one side,
//!   picked at random. An item of `negentropy` is the time and the hash of such a head.
//! * **entries**: the same logs for both. One node lacks the last entries, as one that was away does. OmniMesh compares
//!   the heads of the authors, `negentropy` the entries, each with its time and hash; missing ones are
//!   the latest, which suits it best.
//! * **round**: the log's whole machine on both sides, nothing is missing.
//!
//! Both sides run in this process; every message is encoded and decoded. The node that lacks something begins.
//! A round trip ends when it knows what it lacks; `negentropy` then knows ids, OmniMesh the heads themselves.

use std::time::{Duration, Instant};

use clap::Args;
use negentropy::{Id, Negentropy, NegentropyStorageVector};
use omnimesh_protocol::log::reconcile::HeadSet;
use omnimesh_protocol::log::wire::Frame;
use omnimesh_protocol::log::{self, AuthorHead, Head, Input, Output, Start, StoredLog, Timer};
use omnimesh_protocol::pattern::PatternGenerator;
use omnimesh_protocol::{Hash, Identity, Mesh, NodeId, Outbox, Seq, Step, Time, config::Config};
use rand::RngExt;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use serde::Serialize;

use crate::Outcome;
use crate::stats::Spread;

/// Authors of the comparison of entries, and of the round.
const AUTHORS: usize = 1000;
/// Entries of all authors together in a second.
const ENTRIES_PER_SECOND: usize = 10;
/// Times of heads are spread over a day; those that one side lacks are of the hour after it.
const DAY_S: u64 = 86_400;
const HOUR_S: u64 = 3_600;
/// Bytes of an identity: a digest.
const DIGEST_BYTES: f64 = 32.0;
/// Rounds of the whole machine that are measured.
const ROUNDS: usize = 201;
/// Messages of one comparison, at most.
const MESSAGES_MAX: usize = 1000;

/// What of reconciliation is compared.
#[derive(Debug, Clone, Args)]
pub(crate) struct ReconcileArgs {
    /// Numbers of items.
    #[arg(long, value_delimiter = ',', default_value = "10000,100000,1000000")]
    reconcile_items: Vec<usize>,
    /// Numbers of items that differ.
    #[arg(long, value_delimiter = ',', default_value = "0,1,10,100,1000,10000")]
    reconcile_differ: Vec<usize>,
    /// Turns of each, every one with other items.
    #[arg(long, default_value_t = 3)]
    reconcile_seeds: u64,
}

/// All of it.
#[derive(Debug, Serialize)]
pub(crate) struct Reconcile {
    pub(crate) heads: Vec<Row>,
    pub(crate) entries: Vec<Row>,
    pub(crate) round: Round,
}

/// One size and one number of differences.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    /// Items that `negentropy` compares.
    pub(crate) items: usize,
    /// Items that OmniMesh compares.
    pub(crate) heads: usize,
    pub(crate) differ: usize,
    /// Bytes to say which of the items differ: log2 of the number of subsets.
    pub(crate) bound_which: f64,
    /// The same, and a digest for each.
    pub(crate) bound: f64,
    pub(crate) ours: Side,
    pub(crate) theirs: Side,
    /// OmniMesh's by the other's.
    pub(crate) bytes_ratio: Spread,
    pub(crate) time_ratio: Spread,
}

/// What one side needed.
#[derive(Debug, Serialize)]
pub(crate) struct Side {
    pub(crate) bytes: Spread,
    pub(crate) round_trips: Spread,
    /// CPU time of both nodes together.
    pub(crate) ms: Spread,
}

/// A round of the whole machine when nothing is missing.
#[derive(Debug, Serialize)]
pub(crate) struct Round {
    pub(crate) authors: usize,
    pub(crate) entries: u64,
    pub(crate) frames: usize,
    pub(crate) bytes: usize,
    /// CPU time of both nodes together.
    pub(crate) us: Spread,
}

/// One comparison.
#[derive(Clone, Copy, Debug)]
struct Cost {
    bytes: usize,
    round_trips: usize,
    took: Duration,
}

/// Compares everything.
pub(crate) fn compare(args: &ReconcileArgs) -> Outcome<Reconcile> {
    let (mut heads, mut entries) = (Vec::new(), Vec::new());
    for &items in &args.reconcile_items {
        eprintln!("reconciliation of {items} items");
        for &differ in args.reconcile_differ.iter().filter(|differ| **differ <= items) {
            heads.push(row(args.reconcile_seeds, items, items, differ, heads_of)?);
            entries.push(row(args.reconcile_seeds, items, AUTHORS, differ, entries_of)?);
        }
    }
    Ok(Reconcile { heads, entries, round: round()? })
}

fn row(
    seeds: u64,
    items: usize,
    heads: usize,
    differ: usize,
    make: fn(&mut ChaCha8Rng, usize, usize) -> Outcome<Sets>,
) -> Outcome<Row> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for seed in 0..seeds.max(1) {
        let sets = make(&mut ChaCha8Rng::seed_from_u64(seed), items, differ)?;
        ours.push(ours_of(&sets.behind, &sets.ahead)?);
        theirs.push(theirs_of(&sets.items_behind, &sets.items_ahead, sets.missing)?);
    }
    let bound_which = log2_subsets(items, differ) / 8.0;
    #[expect(clippy::cast_precision_loss, reason = "a count of bytes for people")]
    let bound = bound_which + differ as f64 * DIGEST_BYTES;
    let ratio = |of: fn(&Cost) -> f64| {
        Spread::of(ours.iter().zip(&theirs).map(|(ours, theirs)| of(ours) / of(theirs)).collect())
    };
    Ok(Row {
        items,
        heads,
        differ,
        bound_which,
        bound,
        bytes_ratio: ratio(Cost::bytes),
        time_ratio: ratio(Cost::ms),
        ours: Side::of(&ours),
        theirs: Side::of(&theirs),
    })
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
impl Cost {
    fn bytes(&self) -> f64 {
        self.bytes as f64
    }

    fn round_trips(&self) -> f64 {
        self.round_trips as f64
    }

    fn ms(&self) -> f64 {
        self.took.as_secs_f64() * 1e3
    }
}

impl Side {
    fn of(costs: &[Cost]) -> Self {
        let spread = |of: fn(&Cost) -> f64| Spread::of(costs.iter().map(of).collect());
        Side { bytes: spread(Cost::bytes), round_trips: spread(Cost::round_trips), ms: spread(Cost::ms) }
    }
}

/// log2 of the number of ways to pick `k` of `n`.
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn log2_subsets(n: usize, k: usize) -> f64 {
    (0..k).map(|i| ((n - i) as f64 / (i + 1) as f64).log2()).sum()
}

/// What the two nodes have, in the words of each side.
struct Sets {
    behind: HeadSet,
    ahead: HeadSet,
    items_behind: NegentropyStorageVector,
    items_ahead: NegentropyStorageVector,
    /// Items that the one behind lacks.
    missing: usize,
}

/// One item for each author.
fn heads_of(rng: &mut ChaCha8Rng, items: usize, differ: usize) -> Outcome<Sets> {
    let (mut behind, mut items_behind) = (HeadSet::new(), NegentropyStorageVector::with_capacity(items));
    let mut items_ahead = NegentropyStorageVector::with_capacity(items);
    let later: std::collections::BTreeSet<usize> = index::sample(rng, items, differ).into_iter().collect();
    let mut grown = Vec::with_capacity(differ);
    for at in 0..items {
        let old = head(NodeId::from_bytes(rng.random()), 900);
        behind.put(old);
        let time = rng.random_range(0..DAY_S);
        items_behind.insert(time, id_of(&old))?;
        if later.contains(&at) {
            let new = head(old.author, 1000);
            items_ahead.insert(DAY_S + rng.random_range(0..HOUR_S), id_of(&new))?;
            grown.push(new);
        } else {
            items_ahead.insert(time, id_of(&old))?;
        }
    }
    let mut ahead = behind.clone();
    grown.into_iter().for_each(|head| ahead.put(head));
    items_behind.seal()?;
    items_ahead.seal()?;
    Ok(Sets { behind, ahead, items_behind, items_ahead, missing: differ })
}

/// Entries of [`AUTHORS`] authors in the order of their time; the last ones are missing.
fn entries_of(rng: &mut ChaCha8Rng, items: usize, differ: usize) -> Outcome<Sets> {
    let authors: Vec<NodeId> = (0..AUTHORS).map(|_| NodeId::from_bytes(rng.random())).collect();
    let mut counts = vec![0_u64; AUTHORS];
    let mut items_behind = NegentropyStorageVector::with_capacity(items);
    let mut items_ahead = NegentropyStorageVector::with_capacity(items);
    let set = |counts: &[u64]| {
        let mut set = HeadSet::new();
        authors.iter().zip(counts).for_each(|(author, count)| set.put(head(*author, *count)));
        set
    };
    let mut behind = None;
    for at in 0..items {
        if at == items - differ {
            behind = Some(set(&counts));
        }
        if let Some(count) = counts.get_mut(rng.random_range(0..AUTHORS)) {
            *count += 1;
        }
        let (time, id) = ((at / ENTRIES_PER_SECOND) as u64, Id::from_byte_array(rng.random()));
        items_ahead.insert(time, id)?;
        if behind.is_none() {
            items_behind.insert(time, id)?;
        }
    }
    items_behind.seal()?;
    items_ahead.seal()?;
    let ahead = set(&counts);
    let behind = behind.unwrap_or_else(|| ahead.clone());
    Ok(Sets { behind, ahead, items_behind, items_ahead, missing: differ })
}

fn head(author: NodeId, seq: u64) -> AuthorHead {
    let digest = Hash::of(&[author.as_bytes().as_slice(), &seq.to_le_bytes()].concat());
    AuthorHead { author, head: Head { seq: Seq(seq), digest }, proof: None }
}

fn id_of(head: &AuthorHead) -> Id {
    Id::from_byte_array(*Hash::of(&head.to_wire()).as_bytes())
}

/// A comparison of heads, as the log's rounds do it.
fn ours_of(behind: &HeadSet, ahead: &HeadSet) -> Outcome<Cost> {
    let began = Instant::now();
    let mut cost = Cost { bytes: 0, round_trips: 0, took: Duration::ZERO };
    let (mut known, mut messages) = (0, 0_usize);
    let mut ranges = vec![behind.all()];
    loop {
        let frame = Frame::Compare { round: 1, ranges };
        let Frame::Compare { ranges: told, .. } = passed(&frame, &mut cost)? else {
            return Err("a comparison became something else".into());
        };
        messages += 1;
        if told.is_empty() {
            break;
        }
        let is_ahead = messages % 2 == 1;
        let answer = if is_ahead { ahead.answer(&told) } else { behind.answer(&told) };
        if !answer.ours.is_empty() {
            let Frame::Heads(heads) = passed(&Frame::Heads(answer.ours), &mut cost)? else {
                return Err("heads became something else".into());
            };
            if is_ahead {
                known += heads.len();
                cost.round_trips = messages.div_ceil(2);
            }
        }
        if !is_ahead && !answer.theirs.is_empty() {
            known += answer.theirs.len();
            cost.round_trips = messages.div_ceil(2);
        }
        ranges = answer.ranges;
        if messages > MESSAGES_MAX {
            return Err("a comparison does not end".into());
        }
    }
    cost.took = began.elapsed();
    let wanted = ahead.iter().filter(|head| behind.get(&head.author) != Some(head)).count();
    // With nothing to learn, one answer says so.
    cost.round_trips = cost.round_trips.max(1);
    if known == wanted { Ok(cost) } else { Err(format!("found {known} of {wanted} heads").into()) }
}

fn passed(frame: &Frame, cost: &mut Cost) -> Outcome<Frame> {
    let bytes = frame.encode();
    cost.bytes += bytes.len();
    Ok(Frame::decode(&bytes)?)
}

/// The same with the other crate.
fn theirs_of(
    behind: &NegentropyStorageVector,
    ahead: &NegentropyStorageVector,
    missing: usize,
) -> Outcome<Cost> {
    let began = Instant::now();
    let (mut asks, mut answers) = (Negentropy::borrowed(behind, 0)?, Negentropy::borrowed(ahead, 0)?);
    let (mut have, mut need) = (Vec::new(), Vec::new());
    let mut cost = Cost { bytes: 0, round_trips: 0, took: Duration::ZERO };
    let mut query = asks.initiate()?;
    loop {
        let answer = answers.reconcile(&query)?;
        cost.bytes += query.len() + answer.len();
        cost.round_trips += 1;
        match asks.reconcile_with_ids(&answer, &mut have, &mut need)? {
            Some(next) => query = next,
            None => break,
        }
        if cost.round_trips > MESSAGES_MAX {
            return Err("a comparison does not end".into());
        }
    }
    cost.took = began.elapsed();
    let found = need.len();
    if found == missing { Ok(cost) } else { Err(format!("found {found} of {missing} items").into()) }
}

/// The machines of two nodes that have the same logs.
struct Pair {
    states: [log::State<usize>; 2],
    rng: ChaCha8Rng,
    now: Time,
    timers: [Option<Timer>; 2],
}

/// What a round took.
#[derive(Default)]
struct Taken {
    frames: usize,
    bytes: usize,
    took: Duration,
}

impl Pair {
    fn new(rng: ChaCha8Rng, logs: &[StoredLog]) -> Outcome<Self> {
        let mesh = Mesh::open("benches")?;
        let settings = Config::default();
        let state = |seed: u8| {
            let patterns = PatternGenerator::new(
                mesh.secret().clone(),
                settings.node.phase_interval.try_into()?,
                std::num::NonZeroUsize::MIN,
            );
            let start = Start { logs: logs.to_vec(), may_have_written: false, ..Start::default() };
            let identity = Identity::from_seed(&[seed; 32]);
            let mut out = Outbox::new();
            let config = log::Config::default();
            Outcome::Ok(log::State::new(config, identity, &mesh, patterns, start, Time::ZERO, &mut out))
        };
        let states = [state(1)?, state(2)?];
        let mut pair = Pair { states, rng, now: Time::ZERO, timers: [Some(Timer::Round(0)), None] };
        for (at, other) in [(0, 1), (1, 0)] {
            let node = pair.states[other].me();
            pair.run([(at, Input::Step(Some(Step(1)))), (at, Input::Connected { peer: other, node })]);
        }
        Ok(pair)
    }

    /// Gives the inputs, and then every frame, until there is nothing more to say.
    fn run(&mut self, inputs: impl IntoIterator<Item = (usize, Input<usize>)>) -> Taken {
        let mut taken = Taken::default();
        let mut waiting: std::collections::VecDeque<_> = inputs.into_iter().collect();
        let mut out = Outbox::new();
        while let Some((at, input)) = waiting.pop_front() {
            let Some(state) = self.states.get_mut(at) else { break };
            let began = Instant::now();
            state.handle(self.now, input, &mut self.rng, &mut out);
            taken.took += began.elapsed();
            for output in out.drain() {
                match output {
                    Output::Send { to, frame } => {
                        taken.frames += 1;
                        taken.bytes += frame.len();
                        waiting.push_back((at, Input::Sent { to, bytes: frame.len() }));
                        waiting.push_back((to, Input::Received { from: at, frame }));
                    }
                    Output::Timer { timer: timer @ Timer::Round(_), .. } => self.timers[at] = Some(timer),
                    _ => {}
                }
            }
        }
        taken
    }

    fn round(&mut self) -> Outcome<Taken> {
        self.now = self.now + Duration::from_secs(2);
        let timer = self.timers[0].take().ok_or("no timer for the next round")?;
        Ok(self.run([(0, Input::Timer(timer))]))
    }
}

/// Rounds of the whole machine: a thousand authors, a million entries, nothing missing.
fn round() -> Outcome<Round> {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let entries_each = 1000;
    let logs: Vec<StoredLog> = (0..AUTHORS)
        .map(|_| {
            let AuthorHead { author, head, .. } = head(NodeId::from_bytes(rng.random()), entries_each);
            StoredLog { author, base: Seq(1), head, step: Step(1), proof: None }
        })
        .collect();
    let mut pair = Pair::new(rng, &logs)?;
    let rounds = (0..ROUNDS).map(|_| pair.round()).collect::<Outcome<Vec<Taken>>>()?;
    let stats = pair.states[0].stats();
    let first = rounds.first().ok_or("no rounds")?;
    if stats.rounds_equal < ROUNDS as u64 || stats.fetches > 0 {
        return Err("two equal nodes found a difference".into());
    }
    Ok(Round {
        authors: stats.authors,
        entries: stats.entries,
        frames: first.frames,
        bytes: rounds.iter().map(|round| round.bytes).max().unwrap_or(0),
        us: Spread::of(rounds.iter().map(|round| round.took.as_secs_f64() * 1e6).collect()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_find_all_differences() {
        for (items, differ) in [(0, 0), (50, 0), (50, 50), (2000, 1), (2000, 300)] {
            for make in [heads_of, entries_of] {
                let sets = make(&mut ChaCha8Rng::seed_from_u64(1), items, differ).unwrap();
                ours_of(&sets.behind, &sets.ahead).unwrap();
                theirs_of(&sets.items_behind, &sets.items_ahead, sets.missing).unwrap();
            }
        }
    }

    #[test]
    fn two_equal_machines_say_little() {
        let round = round().unwrap();
        assert_eq!((round.frames, round.authors, round.entries), (2, 1000, 1_000_000));
        assert!(round.bytes < 1024, "{}", round.bytes);
    }

    #[test]
    fn the_number_of_subsets_is_right() {
        assert_eq!(log2_subsets(10, 0), 0.0);
        assert!((log2_subsets(10, 3) - 120_f64.log2()).abs() < 1e-9);
    }
}
