//! Many machines in virtual time: who dies is found dead, who lives is not, and islands come together again.

use super::*;
use crate::id::Hash;

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
