//! Tests of the dialer: one machine exactly, its rates in virtual time, and lists of operations.

use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

use super::*;

fn node(n: u16) -> NodeId {
    let mut bytes = [0; 32];
    bytes[..2].copy_from_slice(&n.to_be_bytes());
    NodeId::from_bytes(bytes)
}

fn at(n: u16) -> Vec<String> {
    vec![format!("/ip4/10.0.0.{n}/tcp/7411")]
}

struct Rig {
    state: State,
    rng: ChaCha8Rng,
    now: Time,
    timer: Option<(Time, Timer)>,
    /// What the next run begins with.
    undone: Vec<Output>,
}

impl Rig {
    fn new(config: Config, bootstrap: Vec<Bootstrap>) -> Self {
        let state = State::new(config, node(0), bootstrap);
        Rig { state, rng: ChaCha8Rng::seed_from_u64(1), now: Time::ZERO, timer: None, undone: Vec::new() }
    }

    /// Everything but the timer.
    fn give(&mut self, input: Input) -> Vec<Output> {
        let mut out = Outbox::new();
        self.state.handle(self.now, input, &mut self.rng, &mut out);
        self.state.check_invariants();
        let mut outputs = Vec::new();
        for output in out.drain() {
            match output {
                Output::Timer { at, timer } => {
                    assert!(at > self.now, "a timer for now");
                    self.timer = Some((at, timer));
                }
                other => outputs.push(other),
            }
        }
        outputs
    }

    fn learn(&mut self, n: u16, source: Source) -> Vec<Output> {
        self.give(Input::Learned { peer: node(n), addresses: at(n), source })
    }

    /// Runs for so long; what is reachable answers at once. Returns each dial and when.
    fn run(&mut self, span: Duration, is_reachable: impl Fn(NodeId) -> bool) -> Vec<(Time, Option<NodeId>)> {
        let end = self.now + span;
        let mut dials = Vec::new();
        let mut outputs = std::mem::take(&mut self.undone);
        loop {
            while let Some(output) = outputs.pop() {
                if let Output::Dial { dial, peer, .. } = output {
                    dials.push((self.now, peer));
                    let input = match peer.filter(|peer| is_reachable(*peer)) {
                        Some(peer) => Input::Connected { peer, dial: Some(dial) },
                        None => Input::DialFailed { dial, is_self: false },
                    };
                    outputs.extend(self.give(input));
                }
            }
            let Some((at, timer)) = self.timer.filter(|(at, _)| *at <= end) else { break };
            self.now = at;
            outputs = self.give(Input::Timer(timer));
            assert!(dials.len() < 100_000, "a dial storm");
        }
        self.now = end;
        dials
    }
}

fn boot(n: u16) -> Bootstrap {
    Bootstrap { address: at(n).remove(0), peer: Some(node(n)) }
}

#[test]
fn a_bootstrap_address_is_dialled_and_redialled_exactly() {
    let mut rig = Rig::new(Config::default(), vec![boot(1), boot(0)]);
    assert_eq!(rig.learn(2, Source::Hint), [], "nothing before the start");
    let mut rig = Rig::new(Config::default(), vec![boot(1), boot(0)]);
    let dial = DialId(1);
    assert_eq!(rig.give(Input::Start), [Output::Dial { dial, peer: Some(node(1)), addresses: at(1) }]);
    let failed = rig.give(Input::DialFailed { dial, is_self: false });
    let [Output::Event(Event::BootstrapUnreachable { address, attempts: 1, next_in })] = failed.as_slice()
    else {
        panic!("{failed:?}");
    };
    assert_eq!(*address, at(1)[0]);
    let second = Duration::from_secs(1);
    assert!((second..=second * 3 / 2).contains(next_in));
    rig.now = rig.now + *next_in;
    let (_, timer) = rig.timer.unwrap();
    let dial = DialId(2);
    assert_eq!(rig.give(Input::Timer(timer)), [Output::Dial { dial, peer: Some(node(1)), addresses: at(1) }]);
    let event = Event::BootstrapConnected { address: at(1).remove(0), peer: node(1) };
    assert_eq!(rig.give(Input::Connected { peer: node(1), dial: Some(dial) }), []);
    assert_eq!(rig.give(Input::Heard { peer: node(1) }), [Output::Event(event)]);
    assert_eq!(rig.give(Input::Heard { peer: node(1) }), []);
    // A stale timer, a stale dial.
    assert_eq!(rig.give(Input::Timer(timer)), []);
    assert_eq!(rig.give(Input::DialFailed { dial, is_self: false }), []);
}

#[test]
fn the_bootstrap_addresses_of_one_peer_are_dialled_together() {
    let at_port = |port: u16| Bootstrap { address: format!("/ip4/10.0.0.1/tcp/{port}"), peer: Some(node(1)) };
    let mut rig = Rig::new(Config::default(), vec![at_port(1), boot(2), at_port(2)]);
    let both = vec![at_port(1).address, at_port(2).address];
    let dials = rig.give(Input::Start);
    let dial = |n: u16, addresses: Vec<String>| Output::Dial {
        dial: DialId(u64::from(n)),
        peer: Some(node(n)),
        addresses,
    };
    assert_eq!(dials, [dial(1, both.clone()), dial(2, at(2))]);
    let failed = rig.give(Input::DialFailed { dial: DialId(1), is_self: false });
    let told: Vec<_> = failed
        .iter()
        .map(|output| match output {
            Output::Event(Event::BootstrapUnreachable { address, attempts: 1, .. }) => address.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(told, both, "and they are tried again together");
    rig.give(Input::Connected { peer: node(2), dial: Some(DialId(2)) });
    let dials = rig.run(Duration::from_secs(3600), |_| false);
    assert!((120..185).contains(&dials.len()), "as often as one: {} dials in an hour", dials.len());
}

#[test]
fn a_bootstrap_address_is_tried_for_ever_from_1_to_30_s_apart() {
    let mut rig = Rig::new(Config::default(), vec![Bootstrap { address: at(1).remove(0), peer: None }]);
    rig.give(Input::Start);
    rig.give(Input::DialFailed { dial: DialId(1), is_self: false });
    let dials = rig.run(Duration::from_secs(3600), |_| false);
    let waits: Vec<Duration> = dials.windows(2).map(|pair| pair[1].0.since(pair[0].0)).collect();
    assert!(waits.iter().all(|wait| (1.0..=30.001).contains(&wait.as_secs_f64())), "{waits:?}");
    assert!(waits[..3].iter().all(|wait| wait.as_secs_f64() < 15.0), "{waits:?}");
    assert!((120..185).contains(&dials.len()), "{} dials in an hour", dials.len());
    // There it is: connected, and dialled again when it goes.
    let dials = rig.run(Duration::from_secs(31), |_| true);
    assert!(!dials.is_empty());
}

#[test]
fn a_bootstrap_address_of_our_own_is_given_up() {
    let mut rig = Rig::new(Config::default(), vec![Bootstrap { address: at(0).remove(0), peer: None }]);
    rig.give(Input::Start);
    let event = Event::BootstrapIsSelf { address: at(0).remove(0) };
    assert_eq!(rig.give(Input::DialFailed { dial: DialId(1), is_self: true }), [Output::Event(event)]);
    assert_eq!(rig.run(Duration::from_secs(600), |_| true), []);
}

#[test]
fn a_lost_bootstrap_peer_is_dialled_again_after_a_second() {
    let mut rig = Rig::new(Config::default(), vec![boot(1)]);
    rig.give(Input::Start);
    rig.give(Input::Connected { peer: node(1), dial: Some(DialId(1)) });
    rig.give(Input::Heard { peer: node(1) });
    assert_eq!(rig.run(Duration::from_secs(100), |_| true), []);
    let lost = rig.now;
    assert_eq!(rig.give(Input::Disconnected { peer: node(1) }), []);
    let dials = rig.run(Duration::from_secs(4), |_| true);
    assert_eq!(dials.len(), 1);
    let wait = dials[0].0.since(lost).as_secs_f64();
    assert!((1.0..=3.0).contains(&wait), "{wait}");
}

#[test]
fn a_bootstrap_peer_that_is_refused_was_not_reached() {
    let mut rig = Rig::new(Config::default(), vec![boot(1)]);
    rig.give(Input::Start);
    rig.give(Input::Connected { peer: node(1), dial: Some(DialId(1)) });
    let until = rig.now + Duration::from_secs(30);
    rig.give(Input::Refused { peer: node(1), until });
    assert_eq!(rig.give(Input::Heard { peer: node(1) }), []);
    assert_eq!(rig.give(Input::Disconnected { peer: node(1) }), []);
}

#[test]
fn who_closes_without_a_word_is_dialled_less_and_less_often() {
    let mut rig = Rig::new(Config::default(), vec![boot(1)]);
    rig.learn(1, Source::Member);
    let mut dials = rig.give(Input::Start);
    let mut waits = Vec::new();
    for attempt in 1..=8 {
        let [Output::Dial { dial, .. }] = dials.as_slice() else { panic!("{dials:?}") };
        rig.give(Input::Connected { peer: node(1), dial: Some(*dial) });
        let closed = rig.give(Input::Disconnected { peer: node(1) });
        let [Output::Event(Event::BootstrapMute { attempts, next_in, .. })] = closed.as_slice() else {
            panic!("{closed:?}")
        };
        assert_eq!(*attempts, attempt);
        waits.push(next_in.as_secs_f64());
        dials = Vec::new();
        while dials.is_empty() {
            let (at, timer) = rig.timer.unwrap();
            rig.now = rig.now.max(at);
            dials = rig.give(Input::Timer(timer));
        }
    }
    assert!(waits[0] < 2.0 && waits[2] >= 4.0 && waits[7] >= 20.0, "{waits:?}");
    // Once it talks, a loss is an ordinary one.
    let [Output::Dial { dial, .. }] = dials.as_slice() else { panic!("{dials:?}") };
    rig.give(Input::Connected { peer: node(1), dial: Some(*dial) });
    rig.give(Input::Heard { peer: node(1) });
    let lost = rig.now;
    assert_eq!(rig.give(Input::Disconnected { peer: node(1) }), []);
    let dials = rig.run(Duration::from_secs(4), |_| true);
    assert!(dials[0].0.since(lost) <= Duration::from_secs(3), "{dials:?}");
}

#[test]
fn peers_are_sought_up_to_the_target_and_no_further() {
    let mut rig = Rig::new(Config::default(), Vec::new());
    for n in 0..50 {
        rig.learn(n, Source::Member);
    }
    let started = rig.give(Input::Start);
    assert_eq!(started.len(), DIALS_MAX, "{started:?}");
    for output in started {
        let Output::Dial { dial, peer: Some(peer), .. } = output else { panic!("{output:?}") };
        rig.give(Input::Connected { peer, dial: Some(dial) });
    }
    let dials = rig.run(Duration::from_secs(60), |_| true);
    assert_eq!((dials.len(), rig.state.connected()), (4, 12));
    assert!(dials.iter().all(|(_, peer)| *peer != Some(node(0))));
}

#[test]
fn the_dead_are_tried_one_in_ten_seconds_and_all_at_once_when_alone() {
    let mut rig = Rig::new(Config::default(), Vec::new());
    for n in 1..=40 {
        rig.learn(n, Source::Member);
        if n > 1 {
            rig.give(Input::MemberDown { peer: node(n) });
        }
    }
    rig.give(Input::Connected { peer: node(1), dial: None });
    rig.give(Input::Heard { peer: node(1) });
    rig.give(Input::Start);
    let dials = rig.run(Duration::from_secs(600), |_| false);
    assert!((58..=60).contains(&dials.len()), "{} dials of dead in ten minutes", dials.len());
    rig.undone = rig.give(Input::Disconnected { peer: node(1) });
    let lost = rig.now;
    // The network is back after a minute: somebody is reached within the longest wait.
    let before = rig.run(Duration::from_secs(60), |_| false);
    assert!(before.len() > 40, "{} dials", before.len());
    rig.run(Duration::from_secs(32), |_| true);
    // Once it is not alone, it goes on slowly; that more are alive, membership will say.
    assert!(rig.state.connected() >= DIALS_MAX, "{} since {lost}", rig.state.connected());
}

#[test]
fn refused_and_quarantined_peers_are_left_alone_until_later() {
    let mut rig = Rig::new(Config::default(), vec![boot(1)]);
    for n in [2, 3] {
        rig.learn(n, Source::Member);
    }
    rig.give(Input::Refused { peer: node(1), until: Time::from_millis(60_000) });
    rig.give(Input::Refused { peer: node(2), until: Time::from_millis(60_000) });
    rig.give(Input::Quarantined { peer: node(3) });
    assert_eq!(rig.give(Input::Start), []);
    assert_eq!(rig.give(Input::Wanted { peer: node(2) }), []);
    assert_eq!(rig.run(Duration::from_millis(59_999), |_| true), []);
    let dials = rig.run(Duration::from_secs(10), |_| true);
    assert_eq!(dials.iter().filter_map(|dial| dial.1).collect::<BTreeSet<_>>(), [node(1), node(2)].into());
    rig.give(Input::Lifted { peer: node(3) });
    assert_eq!(rig.run(Duration::from_secs(10), |_| true).len(), 1);
}

#[test]
fn a_wanted_peer_is_dialled_at_once_at_a_bounded_rate() {
    let config = Config { target_peers: 0, ..Config::default() };
    let mut rig = Rig::new(config, Vec::new());
    for n in 1..100 {
        rig.learn(n, Source::Member);
    }
    rig.give(Input::Start);
    rig.now = Time::from_millis(60_000);
    let mut dials = 0;
    for n in 1..100 {
        for output in rig.give(Input::Wanted { peer: node(n) }) {
            let Output::Dial { dial, peer, .. } = output else { panic!("{output:?}") };
            assert_eq!(peer, Some(node(n)));
            rig.give(Input::DialFailed { dial, is_self: false });
            dials += 1;
        }
        rig.now = rig.now + Duration::from_millis(100);
    }
    assert!((8 + 16..=8 + 20).contains(&dials), "{dials} in ten seconds");
    assert_eq!(rig.give(Input::Wanted { peer: node(500) }), [], "not in the book");
}

#[test]
fn two_that_dial_each_other_at_once_have_not_failed() {
    let mut rig = Rig::new(Config::default(), vec![boot(1)]);
    rig.give(Input::Start);
    assert_eq!(rig.give(Input::Connected { peer: node(1), dial: None }), []);
    assert_eq!(rig.give(Input::DialFailed { dial: DialId(1), is_self: false }), []);
}

#[test]
fn too_many_connections_are_trimmed() {
    let config = Config { peers_max: 2, target_peers: 2, ..Config::default() };
    let mut rig = Rig::new(config, Vec::new());
    rig.learn(9, Source::Member);
    let Some(Output::Dial { dial, .. }) = rig.give(Input::Start).pop() else { panic!("no dial") };
    for n in [1, 2] {
        assert_eq!(rig.give(Input::Connected { peer: node(n), dial: None }), []);
    }
    assert_eq!(rig.give(Input::Connected { peer: node(3), dial: None }), [Output::Trim { peer: node(3) }]);
    rig.give(Input::Disconnected { peer: node(3) });
    let trimmed = rig.give(Input::Connected { peer: node(9), dial: Some(dial) });
    assert!(matches!(trimmed.as_slice(), [Output::Trim { peer }] if *peer != node(9)), "{trimmed:?}");
}

#[test]
fn a_dead_member_is_cut_off_only_where_nothing_is_heard() {
    let mut rig = Rig::new(Config::default(), Vec::new());
    let trim = |n: u16| [Output::Trim { peer: node(n) }];
    for n in [1, 2, 3] {
        rig.learn(n, Source::Member);
        rig.give(Input::Connected { peer: node(n), dial: None });
    }
    rig.give(Input::Start);
    // Silent for long enough when it is said to be dead: at once, and once.
    rig.now = rig.now + SILENT_MAX;
    assert_eq!(rig.give(Input::MemberDown { peer: node(1) }), trim(1));
    assert_eq!(rig.give(Input::MemberDown { peer: node(2) }), trim(2));
    rig.give(Input::Disconnected { peer: node(2) });
    let timer = |rig: &mut Rig| {
        let (at, timer) = rig.timer.unwrap();
        rig.now = rig.now.max(at);
        rig.give(Input::Timer(timer))
    };
    // Heard a moment ago, and then no more.
    rig.give(Input::Heard { peer: node(3) });
    let heard = rig.now;
    assert_eq!(rig.give(Input::MemberDown { peer: node(3) }), []);
    let closed = (0..10).find_map(|_| (timer(&mut rig) == trim(3)).then_some(rig.now)).unwrap();
    assert!((6.0..8.1).contains(&closed.since(heard).as_secs_f64()), "{heard:?} {closed:?}");
    // Heard again and again, or alive after all: it stays.
    for n in [1, 3] {
        rig.give(Input::Connected { peer: node(n), dial: None });
        assert_eq!(rig.give(Input::MemberDown { peer: node(n) }), []);
    }
    rig.learn(1, Source::Member);
    for _ in 0..100 {
        rig.give(Input::Heard { peer: node(3) });
        let outputs = timer(&mut rig);
        assert!(!outputs.iter().any(|output| matches!(output, Output::Trim { .. })), "{outputs:?}");
    }
}

#[test]
fn the_book_survives_a_restart_and_finds_the_mesh() {
    let mut rig = Rig::new(Config::default(), Vec::new());
    rig.give(Input::Start);
    rig.learn(1, Source::Member);
    rig.learn(2, Source::Hint);
    rig.give(Input::Connected { peer: node(1), dial: None });
    let book = rig.state.book();
    let entry = |n: u16, proven| BookEntry { peer: node(n), addresses: at(n), proven };
    assert_eq!(book, [entry(1, true), entry(2, false)]);
    let json = serde_json::to_string(&book).unwrap();
    let mut rig = Rig::new(Config::default(), Vec::new());
    rig.give(Input::Book(serde_json::from_str(&json).unwrap()));
    assert_eq!(rig.state.book(), book);
    assert_eq!(rig.give(Input::Start).len(), 2);
}

#[test]
fn a_full_book_keeps_whom_it_knows() {
    let config = Config { book_max: 3, target_peers: 0, ..Config::default() };
    let mut rig = Rig::new(config, Vec::new());
    rig.give(Input::Start);
    let known = |rig: &Rig| rig.state.book().iter().map(|entry| entry.peer).collect::<Vec<_>>();
    for n in [1, 2, 3] {
        rig.learn(n, Source::Hint);
    }
    for n in [1, 3] {
        rig.give(Input::Connected { peer: node(n), dial: None });
        rig.give(Input::Heard { peer: node(n) });
        rig.give(Input::Disconnected { peer: node(n) });
    }
    rig.learn(4, Source::Hint);
    assert_eq!(known(&rig), [node(1), node(3), node(4)]);
    rig.give(Input::Connected { peer: node(4), dial: None });
    rig.learn(5, Source::Hint);
    assert_eq!(known(&rig), [node(1), node(3), node(4)], "all are proven");
}

#[test]
fn who_never_answers_is_forgotten() {
    let mut rig = Rig::new(Config::default(), Vec::new());
    rig.learn(1, Source::Hint);
    rig.learn(2, Source::Member);
    rig.give(Input::Connected { peer: node(2), dial: None });
    rig.give(Input::Disconnected { peer: node(2) });
    let started = rig.give(Input::Start);
    for output in started {
        let Output::Dial { dial, .. } = output else { panic!("{output:?}") };
        rig.give(Input::DialFailed { dial, is_self: false });
    }
    rig.run(Duration::from_secs(600), |_| false);
    assert_eq!(rig.state.book().iter().map(|entry| entry.peer).collect::<Vec<_>>(), [node(2)]);
    rig.run(Duration::from_secs(25 * 3600), |_| false);
    assert_eq!(rig.state.book(), []);
}

fn input() -> impl Strategy<Value = Input> {
    let peer = || (0u16..20).prop_map(node);
    let dial = || (0u64..60).prop_map(DialId);
    let source = prop_oneof![Just(Source::Member), Just(Source::Hint)];
    let addresses = || proptest::collection::vec("[a-z/]{0,300}", 0..10);
    prop_oneof![
        1 => Just(Input::Start),
        6 => (peer(), proptest::option::of(dial())).prop_map(|(peer, dial)| Input::Connected { peer, dial }),
        4 => peer().prop_map(|peer| Input::Disconnected { peer }),
        6 => (dial(), any::<bool>()).prop_map(|(dial, is_self)| Input::DialFailed { dial, is_self }),
        8 => (peer(), addresses(), source)
            .prop_map(|(peer, addresses, source)| Input::Learned { peer, addresses, source }),
        2 => peer().prop_map(|peer| Input::MemberDown { peer }),
        2 => peer().prop_map(|peer| Input::Heard { peer }),
        2 => (peer(), 0u64..200_000).prop_map(|(peer, until)| Input::Refused { peer, until: Time::from_millis(until) }),
        1 => peer().prop_map(|peer| Input::Quarantined { peer }),
        1 => peer().prop_map(|peer| Input::Lifted { peer }),
        4 => peer().prop_map(|peer| Input::Wanted { peer }),
        6 => (0u64..60).prop_map(|token| Input::Timer(Timer { token })),
        1 => (peer(), addresses()).prop_map(|(peer, addresses)| {
            Input::Book(vec![BookEntry { peer, addresses, proven: true }; 2])
        }),
    ]
}

proptest! {
    #[test]
    fn nobody_is_dialled_who_should_not_be(inputs in proptest::collection::vec((0u64..20_000, input()), 1..150)) {
        let config = Config { book_max: 6, peers_max: 4, target_peers: 3, ..Config::default() };
        let mut rig = Rig::new(config, vec![boot(1), Bootstrap { address: "/x".into(), peer: None }]);
        let (mut connected, mut quarantined) = (BTreeSet::new(), BTreeSet::new());
        for (wait, input) in inputs {
            rig.now = rig.now + Duration::from_millis(wait);
            match &input {
                Input::Connected { peer, .. } => drop(connected.insert(*peer)),
                Input::Disconnected { peer } => drop(connected.remove(peer)),
                Input::Quarantined { peer } => drop(quarantined.insert(*peer)),
                Input::Lifted { peer } => drop(quarantined.remove(peer)),
                _ => {}
            }
            for output in rig.give(input) {
                match output {
                    Output::Dial { peer: Some(peer), addresses, .. } => {
                        prop_assert!(peer != node(0) && !quarantined.contains(&peer));
                        prop_assert!(!connected.contains(&peer));
                        prop_assert!((1..=ADDRESSES_MAX).contains(&addresses.len()));
                    }
                    Output::Trim { peer } => drop(connected.remove(&peer)),
                    _ => {}
                }
            }
        }
    }
}
