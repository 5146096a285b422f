//! Members that lie about the step: seven nodes, two of them liars, and the honest five stay together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use libp2p::{PeerId, Stream};
use omnimesh_node::swarm::peer;
use omnimesh_protocol::compute::placement::Offer;
use omnimesh_protocol::compute::statement::{SignedResults, Statement};
use omnimesh_protocol::compute::wire::{Assignment, ResultItem};
use omnimesh_protocol::compute::{self, BlobRef};
use omnimesh_protocol::config::Config;
use omnimesh_protocol::control::{Agent, Frame, VERSION, protocol_name};
use omnimesh_protocol::event::Event;
use omnimesh_protocol::membership;
use omnimesh_protocol::{Mesh, NodeId, Outbox, Step, Time};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use tokio::sync::mpsc;

use crate::common::{Dice, MESHSUB, TestNode, config, identity, poll, within};
use crate::raw::{RawPeer, Received, framed, write};
use crate::suspects::{Gossip, SPEAK};

pub(crate) const HONEST: u64 = 5;
const STEP: Duration = Duration::from_millis(200);
/// How long each pair of lies is told.
const PER_LIE: Duration = Duration::from_millis(2500);
/// How often a liar announces, unasked.
const ANNOUNCE: Duration = Duration::from_millis(150);
/// How often the honest ones are looked at.
const LOOK: Duration = Duration::from_millis(5);

/// What a liar says. `ns` is the truth, as well as it knows it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Lie {
    /// Always this.
    Always(u64),
    /// Off by so many milliseconds.
    Off(i64),
    /// Off by so many milliseconds more in each second.
    Drifting(i64),
    /// To half of the others far ahead, to the rest far behind.
    TwoFaced(i64),
    /// Anything, another thing each time, near or far.
    Wild,
    /// It has no step, but a proposal for one.
    Nothing,
}

/// What the two say, one pair after the other.
const LIES: [(Lie, Lie); 8] = [
    (Lie::Always(u64::MAX), Lie::Always(u64::MAX)),
    (Lie::Always(0), Lie::Always(u64::MAX >> 1)),
    (Lie::TwoFaced(300), Lie::TwoFaced(-300)),
    (Lie::Drifting(150), Lie::Drifting(150)),
    (Lie::Drifting(-150), Lie::Drifting(-150)),
    (Lie::TwoFaced(3_600_000), Lie::Wild),
    (Lie::Off(190), Lie::Off(190)),
    (Lie::Nothing, Lie::Wild),
];

impl Lie {
    fn tell(self, to: &NodeId, truth_ns: u64, since: Duration, dice: &mut Dice) -> Option<u64> {
        let off = |ms: i64| truth_ns.saturating_add_signed(ms.saturating_mul(1_000_000));
        Some(match self {
            Lie::Always(ns) => ns,
            Lie::Off(ms) => off(ms),
            Lie::Drifting(ms) => off(ms.saturating_mul(i64::try_from(since.as_millis()).unwrap()) / 1000),
            Lie::TwoFaced(ms) => off(if to.as_bytes()[0] & 1 == 0 { ms } else { -ms }),
            Lie::Wild => match dice.below(4) {
                0 => dice.next(),
                1 => off(i64::try_from(dice.below(1 << 40)).unwrap()),
                2 => off(-i64::try_from(dice.below(1 << 40)).unwrap()),
                _ => off(i64::try_from(dice.below(1000)).unwrap() - 500),
            },
            Lie::Nothing => return None,
        })
    }
}

/// Somebody to lie to.
pub(crate) type Target = (NodeId, PeerId, String);

/// Tells the mesh time in nanoseconds, which a liar must know to bend it.
pub(crate) type Truth = Box<dyn Fn() -> u64 + Send + Sync>;

/// What a member does otherwise than honest ones.
pub(crate) struct Conduct {
    pub(crate) truth: Truth,
    pub(crate) lies: Vec<Lie>,
    /// What it says as a worker, if it is one.
    forger: Option<Forger>,
    /// What it does with messages, if it takes any.
    gossip: Option<Gossip>,
}

/// A real member in all but what it says of the time.
pub(crate) struct Liar {
    raw: RawPeer,
    me: NodeId,
    mesh: Mesh,
    control: String,
    targets: Vec<NodeId>,
    streams: BTreeMap<NodeId, Stream>,
    members: membership::State,
    timers: Vec<(Time, membership::Timer)>,
    rng: ChaCha20Rng,
    dice: Dice,
    conduct: Conduct,
    started: Instant,
    told: Arc<AtomicU64>,
    newcomers: mpsc::Receiver<Target>,
    tell: mpsc::Sender<Target>,
}

/// A worker that does nothing, and signs the same wrong result for everything, at once.
struct Forger {
    compute: String,
    streams: BTreeMap<NodeId, Stream>,
    results: Arc<AtomicU64>,
}

impl Liar {
    async fn start(seed: u64, mesh: &Mesh, honest: &[TestNode], lies: Vec<Lie>) -> Liar {
        let conduct = Conduct { truth: truth(honest), lies, forger: None, gossip: None };
        Liar::start_as(seed, mesh, honest.iter().map(target).collect(), conduct).await
    }

    /// One that tells the truth about the time, and nothing but lies about results. It counts those.
    pub(crate) async fn forger(seed: u64, mesh: &Mesh, honest: &[TestNode]) -> (Liar, Arc<AtomicU64>) {
        let results = Arc::new(AtomicU64::new(0));
        let compute = compute::wire::protocol_name(mesh.id());
        let forger = Some(Forger { compute, streams: BTreeMap::new(), results: Arc::clone(&results) });
        let conduct = Conduct { truth: truth(honest), lies: vec![Lie::Off(0)], forger, gossip: None };
        (Liar::start_as(seed, mesh, honest.iter().map(target).collect(), conduct).await, results)
    }

    /// One that takes part in gossip in its own way.
    pub(crate) async fn gossip(
        seed: u64,
        mesh: &Mesh,
        targets: Vec<Target>,
        (truth, lie): (Truth, Lie),
        gossip: Gossip,
    ) -> Liar {
        let conduct = Conduct { truth, lies: vec![lie], forger: None, gossip: Some(gossip) };
        Liar::start_as(seed, mesh, targets, conduct).await
    }

    async fn start_as(seed: u64, mesh: &Mesh, targets: Vec<Target>, conduct: Conduct) -> Liar {
        let who = identity(seed);
        let control = protocol_name(mesh.id());
        let accepts: Vec<&str> = [control.as_str()]
            .into_iter()
            .chain(conduct.forger.as_ref().map(|forger| forger.compute.as_str()))
            .chain(conduct.gossip.as_ref().map(|_| MESHSUB))
            .collect();
        let raw = RawPeer::start(who.clone(), &accepts).await;
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let local =
            membership::Local { node: who.id(), generation: 1, addresses: vec![raw.listening.to_string()] };
        let members = membership::State::new(membership::Config::default(), local, &mut rng).unwrap();
        let (tell, newcomers) = mpsc::channel(8);
        let mut liar = Liar {
            raw,
            me: who.id(),
            mesh: mesh.clone(),
            control,
            targets: Vec::new(),
            streams: BTreeMap::new(),
            members,
            timers: Vec::new(),
            rng,
            dice: Dice::new(seed),
            conduct,
            started: Instant::now(),
            told: Arc::default(),
            newcomers,
            tell,
        };
        for target in targets {
            liar.meet(target).await;
        }
        liar
    }

    async fn meet(&mut self, (node, peer, address): Target) {
        self.raw.dial(&address, peer).await;
        self.targets.push(node);
        self.greet(node).await;
        if let Some(gossip) = &mut self.conduct.gossip {
            gossip.meet(&self.raw, node).await;
        }
        self.membership(membership::Input::Connected { peer: node, addresses: vec![address] }).await;
    }

    fn now(&self) -> Time {
        Time::ZERO + self.started.elapsed()
    }

    /// Says Hello on a new stream.
    async fn greet(&mut self, to: NodeId) {
        let Some(stream) = self.raw.try_open(peer::peer_id(&to), &self.control).await else { return };
        self.streams.insert(to, stream);
        let proof = self.mesh.member_proof(&self.me, &to);
        self.send(to, &Frame::Hello { version: VERSION, proof, agent: Agent::new("liar") }).await;
    }

    async fn send(&mut self, to: NodeId, frame: &Frame) {
        if let Some(stream) = self.streams.get_mut(&to)
            && !write(stream, &framed(&frame.encode())).await
        {
            self.streams.remove(&to);
        }
    }

    async fn membership(&mut self, input: membership::Input) {
        let mut out = Outbox::new();
        self.members.handle(self.now(), input, &mut self.rng, &mut out);
        for output in out.drain() {
            match output {
                membership::Output::Send { to, packet } => self.send(to, &Frame::Swim(packet)).await,
                membership::Output::Timer { at, timer } => self.timers.push((at, timer)),
                _ => {}
            }
        }
    }

    /// Offers its services, on a stream that it opens first if need be.
    async fn offer(&mut self, to: NodeId) {
        let Some(forger) = &mut self.conduct.forger else { return };
        if !forger.streams.contains_key(&to) {
            let Some(stream) = self.raw.try_open(peer::peer_id(&to), &forger.compute).await else { return };
            forger.streams.insert(to, stream);
        }
        let offer = Offer { slots: 64, room: 64, memory_bytes: 64 << 30, ..Offer::default() };
        self.answer_task(to, &compute::wire::Frame::Offer(offer)).await;
    }

    async fn answer_task(&mut self, to: NodeId, frame: &compute::wire::Frame) {
        let Some(forger) = &mut self.conduct.forger else { return };
        if let Some(stream) = forger.streams.get_mut(&to)
            && !write(stream, &framed(&frame.encode())).await
        {
            forger.streams.remove(&to);
        }
    }

    /// Signs a wrong result for each task that it is given.
    async fn on_task(&mut self, from: NodeId, frame: compute::wire::Frame) {
        let (Some(forger), compute::wire::Frame::Assign(assignments)) = (&self.conduct.forger, frame) else {
            return;
        };
        forger.results.fetch_add(assignments.len() as u64, Ordering::Relaxed);
        let result = BlobRef::of(b"what nobody has computed");
        let item = |assignment: &Assignment| ResultItem {
            attempt: assignment.attempt,
            statement: Statement { key: assignment.key, result },
            cpu_ms: 1,
            wall_ms: 1,
        };
        let items: Vec<ResultItem> = assignments.iter().map(item).collect();
        let statements = items.iter().map(|item| item.statement).collect();
        let signed = SignedResults::sign(&self.raw.identity, self.mesh.id(), statements);
        let frame = compute::wire::Frame::Results { items, signature: signed.signature };
        self.answer_task(from, &frame).await;
    }

    fn lie(&mut self, to: &NodeId) -> Option<u64> {
        let elapsed = self.started.elapsed();
        let Conduct { truth, lies, .. } = &self.conduct;
        let at = usize::try_from(nanos(elapsed) / nanos(PER_LIE)).unwrap() % lies.len();
        let since = Duration::from_nanos(nanos(elapsed) % nanos(PER_LIE));
        lies[at].tell(to, truth(), since, &mut self.dice)
    }

    async fn on_frame(&mut self, from: NodeId, frame: Frame) {
        match frame {
            Frame::StepRequest { nonce } => {
                let mesh_time_ns = self.lie(&from);
                self.told.fetch_add(1, Ordering::Relaxed);
                let proposal_ns = mesh_time_ns.unwrap_or(u64::MAX);
                self.send(from, &Frame::StepReply { nonce, mesh_time_ns, proposal_ns }).await;
            }
            Frame::Swim(bytes) => self.membership(membership::Input::Packet { from, bytes }).await,
            // A new stream of the other side wants to be greeted, as the first did.
            Frame::Hello { .. } if !self.streams.contains_key(&from) => self.greet(from).await,
            _ => {}
        }
    }

    async fn on_received(&mut self, received: Received) {
        let from = peer::node_id(&received.from).unwrap();
        let is_for = |name: &str| received.protocol.as_ref() == name;
        if is_for(MESHSUB) {
            if let Some(gossip) = &mut self.conduct.gossip {
                gossip.on_frame(from, &received.frame).await;
            }
        } else if self.conduct.forger.as_ref().is_some_and(|forger| is_for(&forger.compute)) {
            if let Ok(frame) = compute::wire::Frame::decode(&received.frame) {
                self.on_task(from, frame).await;
            }
        } else if let Ok(frame) = Frame::decode(&received.frame) {
            self.on_frame(from, frame).await;
        }
    }

    /// Lies until it is dropped.
    pub(crate) async fn run(mut self) {
        let mut announce = tokio::time::interval(ANNOUNCE);
        let mut speak = tokio::time::interval(SPEAK);
        loop {
            let due = self.timers.iter().map(|(at, _)| *at).min();
            let wait = due.map_or(Duration::from_secs(1), |at| at.since(self.now()));
            tokio::select! {
                received = self.raw.received.recv() => {
                    let Some(received) = received else { return };
                    self.on_received(received).await;
                }
                () = tokio::time::sleep(wait) => {
                    let now = self.now();
                    let (due, later) = self.timers.drain(..).partition(|(at, _)| *at <= now);
                    self.timers = later;
                    let due: Vec<(Time, membership::Timer)> = due;
                    for (_, timer) in due {
                        self.membership(membership::Input::Timer(timer)).await;
                    }
                }
                newcomer = self.newcomers.recv() => {
                    self.meet(newcomer.expect("this liar has a sender too")).await;
                }
                _ = speak.tick() => {
                    if let Conduct { gossip: Some(gossip), truth, .. } = &mut self.conduct {
                        gossip.speak(truth()).await;
                    }
                }
                _ = announce.tick() => {
                    for node in self.targets.clone() {
                        if let Some(mesh_time_ns) = self.lie(&node) {
                            self.send(node, &Frame::StepAnnounce { mesh_time_ns }).await;
                        }
                        self.offer(node).await;
                    }
                }
            }
        }
    }
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap()
}

fn settings() -> Config {
    let mut settings = config();
    settings.node.step_interval_ms = u64::try_from(STEP.as_millis()).unwrap();
    (settings.node.sync_round_ms, settings.node.sync_timeout_ms) = (250, 200);
    settings
}

/// What an honest node says that the time is.
fn truth(honest: &[TestNode]) -> Truth {
    let witness = honest[0].node.clone();
    Box::new(move || witness.step().map_or(0, |step| step.0 * nanos(STEP)))
}

fn target(node: &TestNode) -> Target {
    (node.node.peer_id(), node.peer, node.address())
}

/// Five honest nodes that all know each other.
pub(crate) async fn honest_nodes(mesh: &Mesh) -> Vec<TestNode> {
    let settings = settings();
    let mut nodes: Vec<TestNode> = Vec::new();
    for seed in 1..=HONEST {
        let mut settings = settings.clone();
        settings.network.bootstrap = nodes.first().map(TestNode::address).into_iter().collect();
        nodes.push(TestNode::start(identity(seed), mesh, settings).await);
    }
    for node in &nodes {
        within("an honest node is ready", node.node.wait_ready()).await.unwrap();
        until_admitted(node, HONEST - 1).await;
    }
    nodes
}

pub(crate) async fn until_admitted(node: &TestNode, count: u64) {
    poll("all are connected", async || {
        (node.metrics().await.get("peers_admitted") == count as f64).then_some(())
    })
    .await;
}

async fn until_admitted_at_least(node: &TestNode, count: u64) {
    poll("they are connected", async || {
        (node.metrics().await.get("peers_admitted") >= count as f64).then_some(())
    })
    .await;
}

/// Looks at the honest nodes all the time; gives the greatest difference seen.
async fn watch_steps(honest: &[TestNode], how_long: Duration) -> u64 {
    let mut last: Vec<Step> = honest.iter().map(TestNode::step).collect();
    let (begin, first) = (Instant::now(), last[0]);
    let mut apart = 0;
    let mut look = tokio::time::interval(LOOK);
    while begin.elapsed() < how_long {
        look.tick().await;
        let looked = Instant::now();
        let now: Vec<Step> = honest.iter().map(TestNode::step).collect();
        if looked.elapsed() > STEP / 4 {
            // This thread was kept from running: they are no clocks of one moment.
            continue;
        }
        for (before, after) in last.iter().zip(&now) {
            assert!(after >= before, "a step ran backwards: {last:?}, then {now:?}");
        }
        let difference = now.iter().max().unwrap().0 - now.iter().min().unwrap().0;
        assert!(difference <= 1, "after {:?} the honest nodes are at {now:?}", begin.elapsed());
        apart = apart.max(difference);
        last = now;
    }
    // Nor were they all dragged along: a clock is slewed by a tenth at most, and here by next to nothing.
    let (passed, expected) = (last[0].0 - first.0, begin.elapsed().as_secs_f64() / STEP.as_secs_f64());
    println!("{passed} steps in a time of {expected:.1}");
    assert!((passed as f64 - expected).abs() <= 2.0 + expected * 0.05, "{passed} steps, not {expected}");
    apart
}

#[actix::test]
async fn two_liars_of_seven_move_nobody() {
    let seed = 77;
    println!("seed {seed}");
    let mesh = Mesh::open("liars").unwrap();
    let honest = honest_nodes(&mesh).await;
    let (left, right): (Vec<Lie>, Vec<Lie>) = LIES.into_iter().unzip();
    let liars =
        [Liar::start(seed, &mesh, &honest, left).await, Liar::start(seed + 1, &mesh, &honest, right).await];
    let told: Vec<Arc<AtomicU64>> = liars.iter().map(|liar| liar.told.clone()).collect();
    let names: Vec<NodeId> = liars.iter().map(|liar| liar.me).collect();
    let lying: Vec<_> = liars.into_iter().map(|liar| tokio::spawn(liar.run())).collect();
    for node in &honest {
        until_admitted(node, HONEST + 1).await;
    }
    let duration = PER_LIE * u32::try_from(LIES.len()).unwrap();
    let apart = watch_steps(&honest, duration).await;
    println!("at most {apart} apart");

    for node in &honest {
        // One whose answer came late is suspected for a moment.
        poll("the liars are members to the end", async || {
            use membership::MemberState::{Alive, Suspect};
            let members = node.node.members().await.unwrap();
            let is_in = |name: &NodeId, states: &[membership::MemberState]| {
                members.iter().any(|m| m.id == *name && states.contains(&m.state))
            };
            assert!(names.iter().all(|name| is_in(name, &[Alive, Suspect])), "one is gone: {members:?}");
            names.iter().all(|name| is_in(name, &[Alive])).then_some(())
        })
        .await;
        let jumped = |event: &Event<_>| matches!(event, Event::Step { what: "jumped" | "holding", .. });
        assert_eq!(node.count(jumped), 0, "nobody had a reason to jump or to wait");
        let noticed = |event: &Event<_>| matches!(event, Event::Step { what: "outlier", .. });
        assert!(node.count(noticed) > 0, "such clocks are noticed");
        assert_eq!(node.metrics().await.get("actor_restarts_total"), 0.0);
    }
    for told in told {
        poll("enough lies are told", async || (told.load(Ordering::Relaxed) > 100).then_some(())).await;
    }
    lying.iter().for_each(tokio::task::JoinHandle::abort);
}

#[actix::test]
async fn a_newcomer_among_liars_takes_the_honest_time() {
    let seed = 177;
    println!("seed {seed}");
    let mesh = Mesh::open("newcomers").unwrap();
    let mut honest = honest_nodes(&mesh).await;
    // They agree on what they say, and it is an hour off: the worst that two can do to somebody new.
    let agreed = vec![Lie::Off(3_600_000)];
    let liars = [
        Liar::start(seed, &mesh, &honest, agreed.clone()).await,
        Liar::start(seed + 1, &mesh, &honest, agreed).await,
    ];
    let tell: Vec<mpsc::Sender<Target>> = liars.iter().map(|liar| liar.tell.clone()).collect();
    let lying: Vec<_> = liars.into_iter().map(|liar| tokio::spawn(liar.run())).collect();
    for node in &honest {
        until_admitted(node, HONEST + 1).await;
    }
    let mut judged = 0;
    for seed in 11..21 {
        let mut settings = settings();
        settings.network.bootstrap = honest.iter().map(TestNode::address).collect();
        let newcomer = TestNode::start(identity(seed), &mesh, settings).await;
        until_admitted_at_least(&newcomer, HONEST - 1).await;
        for tell in &tell {
            tell.send(target(&newcomer)).await.unwrap();
        }
        within("the newcomer is ready", newcomer.node.wait_ready()).await.unwrap();
        // Who hears two that agree and one honest node alone cannot know better; on a busy machine the others may be late.
        let took_from_few = |event: &Event<_>| match event {
            Event::Step { what: "synchronised", detail } => {
                (1..=3).any(|few| detail.ends_with(&format!("from {few} peers")))
            }
            _ => false,
        };
        if newcomer.count(took_from_few) > 0 {
            println!("newcomer {seed} heard too few in time");
            newcomer.node.shutdown().await;
            continue;
        }
        until_admitted_at_least(&newcomer, HONEST + 1).await;
        let (its, theirs) = (newcomer.step(), honest[0].step());
        assert!(its.0.abs_diff(theirs.0) <= 1, "the newcomer is at {its}, the mesh at {theirs}");
        honest.push(newcomer);
        watch_steps(&honest, STEP * 5).await;
        judged += 1;
        if judged == 3 {
            break;
        }
    }
    assert_eq!(judged, 3, "enough of them hear most of the mesh in time");
    lying.iter().for_each(tokio::task::JoinHandle::abort);
}
