//! One machine exactly, many machines in virtual time, and hostile input.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{BufMut, Bytes};
use foca::{Codec as _, Message};
use proptest::prelude::*;
use rand::RngExt;

use super::wire::Packet;
use super::*;
use crate::id::Hash;

mod paper;

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

#[test]
fn a_connection_is_announced_exactly() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut a = state(0, 5, Config::default(), &mut rng);
    let mut out = Outbox::new();
    let input = Input::Connected { peer: node(1), addresses: vec![address(1)] };
    a.handle(Time::ZERO, input, &mut rng, &mut out);
    let announce = packet(&life(0, 5), &Id::any_life(node(1)), Message::Announce, &[]);
    let [Output::Send { to, packet: sent }, Output::Timer { at, .. }] = out.as_slice() else {
        panic!("{out:?}");
    };
    assert_eq!((*to, sent), (node(1), &announce));
    assert!((Time::from_millis(2500)..Time::from_millis(7500)).contains(at), "{at}");
    assert_eq!(a.counts(), Counts { alive: 1, ..Counts::default() });
    out.drain();

    // The peer answers: it is up, and the probes begin a period later.
    let feed = packet(&life(1, 9), &life(0, 5), Message::Feed, &[]);
    a.handle(Time::from_millis(10), Input::Packet { from: node(1), bytes: feed }, &mut rng, &mut out);
    let up = Output::MemberUp { peer: node(1), addresses: vec![address(1)], cause: UpCause::Joined };
    // The next timer is that of the rumour's gossip.
    assert_eq!(out.as_slice(), [up, Output::Timer { at: Time::from_millis(310), timer: Timer { token: 2 } }]);
    assert_eq!(
        a.members().iter().map(|m| (m.id, m.state)).collect::<Vec<_>>(),
        [(node(0), MemberState::Alive), (node(1), MemberState::Alive)]
    );
    a.check_invariants();
}

#[test]
fn a_ping_is_answered_exactly_and_a_stale_timer_does_nothing() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let mut a = state(0, 5, Config::default(), &mut rng);
    let mut out = Outbox::new();
    let ping = packet(&life(1, 9), &life(0, 5), Message::Ping(77), &[]);
    a.handle(Time::ZERO, Input::Packet { from: node(1), bytes: ping }, &mut rng, &mut out);
    let sent: Vec<_> = out.drain().collect();
    let Output::Send { to, packet: ack } = &sent[1] else { panic!("{sent:?}") };
    let ack = Packet::decode(ack).unwrap();
    assert_eq!((*to, ack.header.message), (node(1), Message::Ack(77)));
    for token in [0, 2, 99] {
        a.handle(Time::from_millis(9000), Input::Timer(Timer { token }), &mut rng, &mut out);
        assert!(out.is_empty(), "{out:?}");
    }
}

#[test]
fn who_speaks_from_an_old_life_is_told_so_once_in_a_second() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut a = state(0, 5, Config::default(), &mut rng);
    let mut told = |at: u64, generation: u64| {
        let mut out = Outbox::new();
        let bytes = packet(&life(1, generation), &life(0, 5), Message::Gossip, &[]);
        a.handle(Time::from_millis(at), Input::Packet { from: node(1), bytes }, &mut rng, &mut out);
        a.check_invariants();
        let correction = packet(&life(0, 5), &life(1, 9), Message::Announce, &[]);
        out.drain().filter(|o| matches!(o, Output::Send { packet, .. } if *packet == correction)).count()
    };
    assert_eq!(
        [told(0, 9), told(1, 3), told(2, 3), told(1000, 3), told(1001, 3), told(1002, 9)],
        [0, 1, 0, 0, 1, 0]
    );
}

#[test]
fn every_refusal_has_its_reason() {
    let config = Config { members_max: 2, ..Config::default() };
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut a = state(0, 5, config, &mut rng);
    let (me, peer) = (life(0, 5), life(1, 9));
    let alive = |n: usize, generation| foca::Member::alive(life(n, generation));
    let gossip = |updates: &[foca::Member<Id>]| packet(&peer, &me, Message::Gossip, updates);
    let long = Bytes::from(vec![0; PACKET_BYTES_MAX + 1]);
    let as_target = Message::PingReq { target: life(7, 1), probe_number: 1 };
    let at_me = Message::PingReq { target: me.clone(), probe_number: 1 };
    let cases = [
        (1, long, Refusal::TooLong),
        (1, Bytes::from_static(b"hello"), Refusal::Malformed),
        (2, gossip(&[]), Refusal::NotTheSender),
        (1, packet(&me, &peer, Message::Gossip, &[]), Refusal::FromOurselves),
        (1, gossip(&[alive(2, u64::MAX)]), Refusal::Implausible),
        (1, gossip(&[alive(2, 1), alive(3, 1)]), Refusal::Full),
        (4, packet(&life(4, 1), &me, Message::Gossip, &[]), Refusal::Full),
        (1, packet(&peer, &me, as_target, &[]), Refusal::UnknownTarget),
        (1, packet(&peer, &me, at_me, &[]), Refusal::OutOfPlace),
    ];
    for (from, bytes, reason) in cases {
        let mut out = Outbox::new();
        let before = a.refusals().get(&reason).copied().unwrap_or(0);
        a.handle(Time::ZERO, Input::Packet { from: node(from), bytes }, &mut rng, &mut out);
        a.check_invariants();
        assert_eq!(a.refusals()[&reason], before + 1, "{reason:?}: {out:?}");
        assert!(
            out.as_slice()
                .iter()
                .any(|o| matches!(o, Output::Event(Event::Refused { reason: r, .. }) if *r == reason)),
            "{reason:?}: {out:?}"
        );
    }
    assert_eq!(a.members().len(), 3);
}

#[test]
fn a_living_newcomer_replaces_the_one_that_is_dead_for_longest() {
    let config = Config { members_max: 3, ..Config::default() };
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let mut a = state(0, 5, config, &mut rng);
    let mut out = Outbox::new();
    let mut tell = |at: u64, update: foca::Member<Id>| {
        let bytes = packet(&life(1, 1), &life(0, 5), Message::Gossip, &[update]);
        a.handle(Time::from_millis(at), Input::Packet { from: node(1), bytes }, &mut rng, &mut out);
        a.check_invariants();
        a.members().iter().skip(1).map(|m| (m.id, m.state)).collect::<Vec<_>>()
    };
    use MemberState::{Alive, Dead};
    tell(0, foca::Member::down(life(2, 1)));
    let full = [(node(1), Alive), (node(2), Dead), (node(3), Dead)];
    assert_eq!(tell(1, foca::Member::down(life(3, 1))), full);
    assert_eq!(tell(2, foca::Member::down(life(4, 1))), full);
    assert_eq!(
        tell(3, foca::Member::alive(life(4, 1))),
        [(node(1), Alive), (node(3), Dead), (node(4), Alive)]
    );
}

#[test]
fn quarantine_shows_and_silences_gossip_about_others() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut a = state(0, 5, Config::default(), &mut rng);
    let mut out = Outbox::new();
    let gossip = |n: usize| {
        let bytes = packet(&life(1, 1), &life(0, 5), Message::Gossip, &[foca::Member::alive(life(n, 1))]);
        Input::Packet { from: node(1), bytes }
    };
    a.handle(Time::ZERO, gossip(2), &mut rng, &mut out);
    a.handle(Time::ZERO, Input::Quarantine { peer: node(1) }, &mut rng, &mut out);
    a.handle(Time::ZERO, gossip(3), &mut rng, &mut out);
    assert_eq!(a.member_state(&node(1)), Some(MemberState::Quarantined));
    assert_eq!(a.counts(), Counts { alive: 2, quarantined: 1, ..Counts::default() });
    assert_eq!(a.member_state(&node(3)), None);
    // Nor can it talk us out of our life.
    let undead = packet(&life(1, 1), &life(0, 5), Message::TurnUndead, &[]);
    a.handle(Time::ZERO, Input::Packet { from: node(1), bytes: undead }, &mut rng, &mut out);
    assert_eq!(a.generation(), 5);
    a.handle(Time::ZERO, Input::Lift { peer: node(1) }, &mut rng, &mut out);
    a.handle(Time::ZERO, gossip(3), &mut rng, &mut out);
    assert_eq!(a.counts().alive, 4);
    // It shows as well of one that was down: it may be back without this node's hearing of it.
    let down = packet(&life(1, 1), &life(0, 5), Message::Gossip, &[foca::Member::down(life(2, 1))]);
    a.handle(Time::ZERO, Input::Packet { from: node(1), bytes: down }, &mut rng, &mut out);
    assert_eq!(a.member_state(&node(2)), Some(MemberState::Dead));
    a.handle(Time::ZERO, Input::Quarantine { peer: node(2) }, &mut rng, &mut out);
    assert_eq!(a.member_state(&node(2)), Some(MemberState::Quarantined));
}

#[test]
fn what_is_known_of_a_member_is_shown() {
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let mut a = state(0, 5, Config::default(), &mut rng);
    let mut out = Outbox::new();
    let bytes = packet(&life(1, 1), &life(0, 5), Message::Gossip, &[]);
    let peer = node(1);
    for input in [
        Input::Packet { from: peer, bytes },
        Input::Claim { peer, step: Step(7) },
        Input::Claim { peer, step: Step(6) },
        Input::Claim { peer: node(0), step: Step(8) },
        Input::Rtt { peer, rtt: SECOND },
        Input::Seen { peer: node(9) },
        Input::Rtt { peer: node(9), rtt: SECOND },
    ] {
        a.handle(Time::from_millis(1), input, &mut rng, &mut out);
    }
    a.handle(Time::from_millis(2), Input::Seen { peer }, &mut rng, &mut out);
    let member = Member {
        id: peer,
        state: MemberState::Alive,
        step: Some(Step(7)),
        addresses: vec![address(1)],
        last_seen: Time::from_millis(2),
        rtt: Some(SECOND),
    };
    let members = a.members();
    assert_eq!(members[1], member);
    assert_eq!(members[0].step, Some(Step(8)));
    assert_eq!(serde_json::to_string(&MemberState::Quarantined).unwrap(), "\"quarantined\"");
}

#[test]
fn twenty_nodes_meet_through_one() {
    let mut net = Net::new(20, 10);
    let all: Vec<usize> = (0..20).collect();
    let took = net.until(&all, MemberState::Alive, 10 * SECOND);
    println!("all know all after {took:?}");
    net.run(60 * SECOND);
    net.assert_all(MemberState::Alive);
    for n in 0..20 {
        assert_eq!(net.count(n, |o| !matches!(o, Output::MemberUp { .. })), 0, "{:?}", net.hosts[n].log);
        assert_eq!(net.hosts[n].state.local_health(), 0);
    }
    let rate = net.packets / 20 / 60;
    println!("{rate} packets per node and second");
    assert!(rate < 10);
}

#[test]
fn a_killed_node_is_dead_for_all_within_15_s_and_alive_after_its_restart() {
    let mut worst = (Duration::ZERO, Duration::ZERO);
    for seed in 20..32 {
        let size = [2, 3, 5, 20, 48][usize::try_from(seed % 5).unwrap()];
        let mut net = Net::settled(size, seed);
        let victim = usize::try_from(seed).unwrap() % size;
        net.kill(victim);
        let died = net.until(&[victim], MemberState::Dead, 15 * SECOND);
        net.run(20 * SECOND);
        net.restart(victim, 50_000);
        let back = net.until(&[victim], MemberState::Alive, 5 * SECOND);
        net.run(20 * SECOND);
        net.assert_all(MemberState::Alive);
        println!("{size} nodes: dead after {died:?}, back after {back:?}");
        worst = (worst.0.max(died), worst.1.max(back));
    }
    println!("worst: dead after {:?}, back after {:?}", worst.0, worst.1);
}

#[test]
fn many_deaths_at_once_are_found_within_15_s() {
    for (size, killed, seed) in [(3, 2, 40), (20, 10, 41), (5, 4, 42)] {
        let mut net = Net::settled(size, seed);
        let victims: Vec<usize> = (size - killed..size).collect();
        for n in &victims {
            net.kill(*n);
        }
        let took = net.until(&victims, MemberState::Dead, 15 * SECOND);
        println!("{killed} of {size} dead after {took:?}");
    }
}

#[test]
fn with_a_fifth_of_the_packets_lost_nobody_dies_and_the_killed_do() {
    let mut net = Net::settled(20, 45);
    net.loss = 0.2;
    net.run(120 * SECOND);
    for n in 0..20 {
        assert_eq!(net.count(n, |o| matches!(o, Output::MemberDown { .. })), 0, "node {n}");
    }
    net.kill(7);
    net.until(&[7], MemberState::Dead, 15 * SECOND);
}

#[test]
fn islands_find_each_other_after_a_minute() {
    for (size, cut, seed) in [(20, 10, 50), (20, 1, 51), (2, 1, 52), (5, 1, 53)] {
        let mut net = Net::settled(size, seed);
        net.cut = Some(cut);
        net.run(60 * SECOND);
        for n in 0..size {
            let counts = net.hosts[n].state.counts();
            let island = if n < cut { cut } else { size - cut };
            assert_eq!((counts.alive, counts.dead), (island, size - island), "node {n}: {counts:?}");
        }
        net.cut = None;
        let all: Vec<usize> = (0..size).collect();
        let took = net.until(&all, MemberState::Alive, 40 * SECOND);
        println!("{size} nodes cut at {cut}: whole after {took:?}");
        net.run(30 * SECOND);
        net.assert_all(MemberState::Alive);
    }
}

#[test]
fn a_slow_node_doubts_itself_and_accuses_nobody() {
    for seed in 60..64 {
        let mut net = Net::settled(20, seed);
        net.clear_logs();
        net.hosts[3].lag = Duration::from_millis(700);
        net.run(120 * SECOND);
        let down = |o: &Output| matches!(o, Output::MemberDown { .. });
        let doubt = |o: &Output| {
            matches!(o, Output::Event(Event::LocalHealth { cause: HealthCause::LateTimers(_), .. }))
        };
        assert!(net.count(3, doubt) > 0, "{:?}", net.hosts[3].log);
        assert!(net.hosts[3].state.local_health() > 0);
        for n in 0..20 {
            assert_eq!(net.count(n, down), 0, "node {n}: {:?}", net.hosts[n].log);
            // The slow one may be suspected by others; it accuses nobody, so nobody else is.
            let accused = |o: &Output| matches!(o, Output::MemberSuspect { peer } if *peer != node(3));
            assert_eq!(net.count(n, accused), 0, "node {n}: {:?}", net.hosts[n].log);
        }
        net.hosts[3].lag = Duration::ZERO;
        net.run(60 * SECOND);
        assert_eq!(net.hosts[3].state.local_health(), 0);
        net.assert_all(MemberState::Alive);
    }
}

#[test]
fn a_node_that_stutters_reads_its_mail_before_it_accuses() {
    let mut net = Net::settled(20, 64);
    net.clear_logs();
    net.hosts[3].stutters = true;
    net.run(120 * SECOND);
    for n in 0..20 {
        let accused = |o: &Output| matches!(o, Output::MemberSuspect { peer } if *peer != node(3));
        assert_eq!(net.count(n, accused), 0, "node {n}: {:?}", net.hosts[n].log);
        assert_eq!(net.count(n, |o| matches!(o, Output::MemberDown { .. })), 0, "node {n}");
    }
}

#[test]
fn a_node_that_was_stopped_for_a_minute_comes_back_by_itself() {
    let mut net = Net::settled(10, 65);
    // All its timers and packets wait; then they come at once, in order.
    let stopped = std::mem::take(&mut net.queue);
    let (kept, waiting): (BTreeMap<_, _>, BTreeMap<_, _>) = stopped.into_iter().partition(|(_, v)| v.0 != 4);
    net.queue = kept;
    net.hosts[4].is_up = false;
    net.until(&[4], MemberState::Dead, 15 * SECOND);
    net.run(40 * SECOND);
    net.clear_logs();
    net.hosts[4].is_up = true;
    for (_, (n, _, input)) in waiting {
        net.put(Duration::ZERO, n, input);
    }
    let took = net.until(&[4], MemberState::Alive, 15 * SECOND);
    println!("back after {took:?}");
    net.run(20 * SECOND);
    net.assert_all(MemberState::Alive);
    assert_eq!(net.count(4, |o| matches!(o, Output::MemberDown { .. })), 0);
    assert!(net.count(4, |o| matches!(o, Output::Rejoined { .. })) > 0);
}

#[test]
fn who_leaves_is_left_and_not_dead() {
    let mut net = Net::settled(20, 70);
    net.clear_logs();
    net.give(6, Input::Leave);
    net.kill(6);
    let took = net.until(&[6], MemberState::Left, 5 * SECOND);
    println!("left for all after {took:?}");
    net.run(30 * SECOND);
    assert!(net.all_see(6, MemberState::Left));
    for n in (0..20).filter(|n| *n != 6) {
        assert_eq!(net.count(n, |o| *o == Output::MemberLeft { peer: node(6) }), 1, "{:?}", net.hosts[n].log);
        assert_eq!(
            net.count(n, |o| matches!(o, Output::MemberDown { .. } | Output::MemberSuspect { .. })),
            0
        );
    }
    net.restart(6, 2000);
    net.until(&[6], MemberState::Alive, 10 * SECOND);
}

#[test]
fn a_restart_with_a_clock_that_went_back_is_alive_again() {
    let mut net = Net::settled(10, 75);
    net.kill(5);
    net.until(&[5], MemberState::Dead, 15 * SECOND);
    net.restart(5, 10);
    let took = net.until(&[5], MemberState::Alive, 10 * SECOND);
    println!("alive after {took:?} in life {}", net.hosts[5].state.generation());
    net.run(20 * SECOND);
    net.assert_all(MemberState::Alive);
}

#[test]
fn a_liar_cannot_take_a_life_for_good_nor_start_a_storm() {
    let mut net = Net::settled(8, 76);
    for round in 0..20 {
        // Node 1 tells all that node 2 is dead, in its highest believable life.
        let generation = if round == 0 { 1 << 63 } else { net.hosts[2].state.generation() };
        for to in (0..8).filter(|to| *to != 1) {
            let update = foca::Member::down(life(2, generation));
            let (from, to_life) = (net.hosts[1].state.generation(), net.hosts[to].state.generation());
            let bytes = packet(&life(1, from), &life(to, to_life), Message::Gossip, &[update]);
            net.put(Duration::ZERO, to, Input::Packet { from: node(1), bytes });
        }
        net.run(Duration::from_millis(500));
    }
    let took = net.until(&[2], MemberState::Alive, 20 * SECOND);
    println!("alive again after {took:?}");
    net.run(20 * SECOND);
    net.assert_all(MemberState::Alive);
    let lives = net.count(2, |o| matches!(o, Output::Rejoined { .. }));
    assert!((2..=13).contains(&lives), "{lives} lives");
}

#[test]
fn new_addresses_reach_all_without_anybody_seeing_a_death() {
    let mut net = Net::settled(10, 77);
    net.clear_logs();
    net.give(3, Input::Addresses(vec!["/ip4/10.9.9.9/tcp/1".into()]));
    net.run(10 * SECOND);
    net.assert_all(MemberState::Alive);
    for n in (0..10).filter(|n| *n != 3) {
        let seen = net.hosts[n].state.members().into_iter().find(|m| m.id == node(3)).unwrap();
        assert_eq!(seen.addresses, ["/ip4/10.9.9.9/tcp/1"]);
        let changed = |o: &Output| matches!(o, Output::MemberUp { cause: UpCause::Changed, .. });
        assert_eq!(net.count(n, changed), net.hosts[n].log.len(), "{:?}", net.hosts[n].log);
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let trace = |seed| {
        let mut net = Net::new(8, seed);
        net.loss = 0.1;
        net.run(10 * SECOND);
        net.kill(2);
        net.run(15 * SECOND);
        let logs: Vec<_> = net.hosts.iter().map(|host| format!("{:?}", host.log)).collect();
        (net.packets, net.now, Hash::of(logs.join("\n").as_bytes()))
    };
    assert_eq!(trace(90), trace(90));
    assert_ne!(trace(90), trace(91));
}

#[test]
fn configurations_that_cannot_work_are_refused() {
    let base = Config::default();
    assert_eq!(base.check(), Ok(()));
    assert_eq!(Config { probe_rtt: 2 * SECOND, ..base.clone() }.check(), Err(ConfigError::ProbeRtt));
    assert_eq!(Config { members_max: 0, ..base }.check(), Err(ConfigError::Zero));
}

/// A step of a hostile or unlucky life.
#[derive(Clone, Debug)]
enum Op {
    Wait(u64),
    Fire,
    Connected(usize),
    Disconnected(usize),
    Quarantine(usize),
    Lift(usize),
    Seen(usize),
    Addresses(u8),
    Tell { from: usize, to_generation: u64, message: u8, updates: Vec<(usize, u64, bool, u16, u8)> },
    Garbage(usize, Vec<u8>),
    Leave,
}

fn op() -> impl Strategy<Value = Op> {
    let generation =
        || prop_oneof![0u64..4, Just(5), Just(6), (1u64 << 63) - 1..(1 << 63) + 2, Just(u64::MAX)];
    let incarnation = || prop_oneof![0u16..3, Just(u16::MAX)];
    let update = (0usize..12, generation(), any::<bool>(), incarnation(), 0u8..3);
    let updates = proptest::collection::vec(update, 0..8);
    prop_oneof![
        4 => (0u64..3000).prop_map(Op::Wait),
        8 => Just(Op::Fire),
        1 => (0usize..12).prop_map(Op::Connected),
        1 => (0usize..12).prop_map(Op::Disconnected),
        1 => (0usize..12).prop_map(Op::Quarantine),
        1 => (0usize..12).prop_map(Op::Lift),
        1 => (0usize..12).prop_map(Op::Seen),
        1 => any::<u8>().prop_map(Op::Addresses),
        10 => (0usize..12, generation(), 0u8..10, updates)
            .prop_map(|(from, to_generation, message, updates)| Op::Tell { from, to_generation, message, updates }),
        1 => (0usize..12, proptest::collection::vec(any::<u8>(), 0..200)).prop_map(|(n, b)| Op::Garbage(n, b)),
        1 => proptest::bool::weighted(0.1).prop_map(|leaves| if leaves { Op::Leave } else { Op::Fire }),
    ]
}

fn message(tag: u8, other: Id) -> Message<Id> {
    match tag {
        0 => Message::Ping(1),
        1 => Message::Ack(1),
        2 => Message::PingReq { target: other, probe_number: 1 },
        3 => Message::IndirectPing { origin: other, probe_number: 1 },
        4 => Message::IndirectAck { target: other, probe_number: 1 },
        5 => Message::ForwardedAck { origin: other, probe_number: 1 },
        6 => Message::Announce,
        7 => Message::Feed,
        8 => Message::Gossip,
        _ => Message::TurnUndead,
    }
}

fn input(op: Op) -> Option<Input> {
    Some(match op {
        Op::Wait(_) | Op::Fire => return None,
        Op::Connected(n) => Input::Connected { peer: node(n), addresses: vec![address(n); 9] },
        Op::Disconnected(n) => Input::Disconnected { peer: node(n) },
        Op::Quarantine(n) => Input::Quarantine { peer: node(n) },
        Op::Lift(n) => Input::Lift { peer: node(n) },
        Op::Seen(n) => Input::Seen { peer: node(n) },
        Op::Addresses(n) => Input::Addresses(vec![address(usize::from(n))]),
        Op::Leave => Input::Leave,
        Op::Garbage(n, bytes) => Input::Packet { from: node(n), bytes: bytes.into() },
        Op::Tell { from, to_generation, message: tag, updates } => {
            let updates: Vec<_> = updates
                .into_iter()
                .map(|(n, generation, left, incarnation, state)| {
                    let state =
                        [foca::State::Alive, foca::State::Suspect, foca::State::Down][usize::from(state)];
                    foca::Member::new(Id { left, ..life(n, generation) }, incarnation, state)
                })
                .collect();
            let updates = if matches!(tag, 6 | 9) { Vec::new() } else { updates };
            let message = message(tag, life(from / 2, to_generation));
            let bytes = packet(&life(from, to_generation), &life(0, to_generation), message, &updates);
            Input::Packet { from: node(from), bytes }
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_list_of_operations_breaks_an_invariant(ops in proptest::collection::vec(op(), 1..120), seed in any::<u64>()) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let config = Config { members_max: 6, forget_after: 20 * SECOND, ..Config::default() };
        let mut a = state(0, 5, config, &mut rng);
        let (mut now, mut timer) = (Time::ZERO, None);
        let mut out = Outbox::new();
        for op in ops {
            let given = match (&op, timer) {
                (Op::Wait(millis), _) => { now = now + Duration::from_millis(*millis); continue }
                (Op::Fire, Some((at, timer))) => { now = now.max(at); Input::Timer(timer) }
                (Op::Fire, None) => continue,
                _ => input(op).unwrap(),
            };
            let generation = a.generation();
            a.handle(now, given, &mut rng, &mut out);
            a.check_invariants();
            prop_assert!(a.generation() >= generation);
            prop_assert!(out.len() < 200, "{} outputs", out.len());
            for output in out.drain() {
                match output {
                    Output::Timer { at, timer: next } => timer = Some((at, next)),
                    Output::Send { to, packet } => {
                        prop_assert!(to != node(0) && packet.len() <= PACKET_BYTES_MAX);
                        prop_assert!(Packet::decode(&packet).is_ok());
                    }
                    _ => {}
                }
            }
        }
    }
}
