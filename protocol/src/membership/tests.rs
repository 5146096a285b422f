//! What tests of membership share: packets as peers make them, and many nodes in virtual time.

mod exact;
mod hostile;
mod mesh;
mod paper;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{BufMut, Bytes};
use foca::{Codec as _, Message};
use rand::RngExt;

use super::wire::Packet;
use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn node(n: usize) -> NodeId {
    NodeId::from_bytes([u8::try_from(n + 1).unwrap(); 32])
}

fn address(n: usize) -> String {
    format!("/ip4/10.0.0.{n}/tcp/7411")
}

fn state(n: usize, generation: u64, config: Config, rng: &mut ChaCha8Rng) -> State {
    let local = Local { node: node(n), generation, addresses: vec![address(n)] };
    State::new(config, local, rng).unwrap()
}

/// A packet of `from` in this life, to `to` in that one.
fn packet(from: &Id, to: &Id, message: Message<Id>, updates: &[foca::Member<Id>]) -> Bytes {
    let header = foca::Header { src: from.clone(), src_incarnation: 0, dst: to.clone(), message };
    let mut bytes = Vec::new();
    Codec::default().encode_header(&header, &mut bytes).unwrap();
    if !updates.is_empty() {
        bytes.put_u16(u16::try_from(updates.len()).unwrap());
        for update in updates {
            Codec::default().encode_member(update, &mut bytes).unwrap();
        }
    }
    bytes.into()
}

fn life(n: usize, generation: u64) -> Id {
    Id::new(node(n), generation, vec![address(n)])
}

struct Host {
    state: State,
    rng: ChaCha8Rng,
    is_up: bool,
    epoch: u64,
    /// Everything reaches this node later by up to this, timers by all of it.
    lag: Duration,
    /// Until then nothing is handled; afterwards the timers come first.
    frozen: Time,
    /// It often freezes just after a ping, when the answer is under way.
    stutters: bool,
    log: Vec<(Time, Output)>,
}

/// Many nodes in virtual time. A packet arrives after 1 to 20 ms, if the link is there.
struct Net {
    now: Time,
    rng: ChaCha8Rng,
    queue: BTreeMap<(Time, u64), (usize, u64, Input)>,
    serial: u64,
    hosts: Vec<Host>,
    /// Nodes below and from this one on do not hear each other.
    cut: Option<usize>,
    /// Nobody hears this one, and it hears nobody.
    muted: Option<usize>,
    loss: f64,
    packets: u64,
    /// Who was pinged when.
    pings: Vec<(Time, usize)>,
}

impl Net {
    fn new(size: usize, seed: u64) -> Self {
        println!("seed {seed}");
        let mut net = Net {
            now: Time::ZERO,
            rng: ChaCha8Rng::seed_from_u64(seed),
            queue: BTreeMap::new(),
            serial: 0,
            hosts: Vec::new(),
            cut: None,
            muted: None,
            loss: 0.0,
            packets: 0,
            pings: Vec::new(),
        };
        for n in 0..size {
            let mut rng = ChaCha8Rng::seed_from_u64(net.rng.random());
            let state = state(n, 1000, Config::default(), &mut rng);
            net.hosts.push(Host {
                state,
                rng,
                is_up: true,
                epoch: 0,
                lag: Duration::ZERO,
                frozen: Time::ZERO,
                stutters: false,
                log: Vec::new(),
            });
        }
        // Everybody knows the first node only.
        for n in 1..size {
            net.connect(0, n);
        }
        net
    }

    /// A mesh that has been up for long enough that all know all.
    fn settled(size: usize, seed: u64) -> Self {
        let mut net = Net::new(size, seed);
        net.run(20 * SECOND);
        net.assert_all(MemberState::Alive);
        net
    }

    fn put(&mut self, after: Duration, to: usize, input: Input) {
        self.serial += 1;
        self.queue.insert((self.now + after, self.serial), (to, self.hosts[to].epoch, input));
    }

    fn connect(&mut self, a: usize, b: usize) {
        self.put(Duration::ZERO, a, Input::Connected { peer: node(b), addresses: vec![address(b)] });
        self.put(Duration::ZERO, b, Input::Connected { peer: node(a), addresses: vec![address(a)] });
    }

    fn kill(&mut self, n: usize) {
        self.hosts[n].is_up = false;
        self.hosts[n].epoch += 1;
    }

    fn restart(&mut self, n: usize, generation: u64) {
        let host = &mut self.hosts[n];
        host.state = state(n, generation, Config::default(), &mut host.rng);
        host.is_up = true;
        let peer = if n == 0 { 1 } else { 0 };
        self.connect(n, peer);
    }

    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        // Bound: some 20 packets a second and node are normal.
        let packets_max = self.packets + self.hosts.len() as u64 * 200 * (span.as_secs() + 1);
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= end) {
            self.now = entry.key().0;
            let (n, epoch, input) = entry.remove();
            let frozen = self.hosts[n].frozen.since(self.now);
            if !frozen.is_zero() {
                let wait =
                    if matches!(input, Input::Timer(_)) { Duration::ZERO } else { Duration::from_micros(1) };
                self.put(frozen + wait, n, input);
                continue;
            }
            if self.hosts[n].epoch == epoch && self.hosts[n].is_up {
                self.give(n, input);
            }
            assert!(self.packets < packets_max, "a packet storm");
        }
        self.now = end;
    }

    fn give(&mut self, n: usize, input: Input) {
        let mut out = Outbox::new();
        let host = &mut self.hosts[n];
        host.state.handle(self.now, input, &mut host.rng, &mut out);
        host.state.check_invariants();
        for output in out.drain() {
            let lag = self.hosts[n].lag;
            match output {
                Output::Send { to, packet } => {
                    self.packets += 1;
                    let is_ping = matches!(Packet::decode(&packet).unwrap().header.message, Message::Ping(_));
                    if self.hosts[n].stutters && is_ping && self.rng.random_bool(0.3) {
                        self.hosts[n].frozen = self.now + Duration::from_millis(1800);
                    }
                    let to = (0..self.hosts.len()).find(|i| node(*i) == to).unwrap();
                    if is_ping {
                        self.pings.push((self.now, to));
                    }
                    let is_cut = self.cut.is_some_and(|cut| (n < cut) != (to < cut))
                        || self.muted.is_some_and(|muted| n == muted || to == muted);
                    let is_lost = self.rng.random_bool(self.loss);
                    if !is_cut && !is_lost {
                        let lag = self.hosts[to].lag.mul_f64(self.rng.random());
                        let after = Duration::from_micros(self.rng.random_range(1000..20_000)) + lag;
                        self.put(after, to, Input::Packet { from: node(n), bytes: packet });
                    }
                }
                Output::Timer { at, timer } => self.put(at.since(self.now) + lag, n, Input::Timer(timer)),
                other => self.hosts[n].log.push((self.now, other)),
            }
        }
    }

    /// How the living nodes, but `n`, see node `n`.
    fn views_of(&self, n: usize) -> Vec<Option<MemberState>> {
        let others = self.hosts.iter().enumerate().filter(|(i, host)| *i != n && host.is_up);
        others.map(|(_, host)| host.state.member_state(&node(n))).collect()
    }

    fn all_see(&self, n: usize, state: MemberState) -> bool {
        self.views_of(n).iter().all(|view| *view == Some(state))
    }

    fn assert_all(&self, state: MemberState) {
        for n in 0..self.hosts.len() {
            assert!(self.all_see(n, state), "at {} node {n} is seen as {:?}", self.now, self.views_of(n));
        }
    }

    /// Runs until all see all these nodes so; how long it took.
    fn until(&mut self, nodes: &[usize], state: MemberState, limit: Duration) -> Duration {
        let start = self.now;
        while !nodes.iter().all(|n| self.all_see(*n, state)) {
            let waited = self.now.since(start);
            assert!(
                waited < limit,
                "not all of {nodes:?} are {state:?} after {waited:?}: {:?}",
                nodes.iter().map(|n| self.views_of(*n)).collect::<Vec<_>>()
            );
            self.run(Duration::from_millis(20));
        }
        self.now.since(start)
    }

    fn count(&self, n: usize, what: impl Fn(&Output) -> bool) -> usize {
        self.hosts[n].log.iter().filter(|(_, output)| what(output)).count()
    }

    fn clear_logs(&mut self) {
        for host in &mut self.hosts {
            host.log.clear();
        }
    }
}
