//! Many machines in virtual time. Each seed is one run; a failure names its seed, and the same seed repeats
//! it.

use std::time::Duration;

use super::net::{Lie, Net};
use super::{MS, SECOND};
use crate::step::{Config, Event, Origin};

/// Steps much shorter than the default make the test harder: latency differs by half a step.
fn quick() -> Config {
    Config::new(Duration::from_millis(200))
}

#[test]
fn joiners_with_any_wall_clock_are_in_step_within_five_seconds() {
    for seed in 0..30 {
        let mut net = Net::new(seed, quick());
        net.add_founder();
        net.run_for(10 * SECOND);
        for _ in 0..7 {
            net.add_joiner();
        }
        net.connect_all();
        net.run_for(5 * SECOND);
        net.assert_in_step("after joining");
        for _ in 0..120 {
            net.run_for(SECOND / 2);
            net.assert_in_step("later");
        }
    }
}

#[test]
fn two_faced_liars_do_not_part_seven_nodes() {
    for lie in [Lie::Random, Lie::Huge, Lie::Tiny, Lie::PerPeer, Lie::Near] {
        for seed in 0..20 {
            let when = format!("seed {seed}, {lie:?}");
            let mut net = Net::new(seed, quick());
            net.add_founder();
            for _ in 0..4 {
                net.add_joiner();
            }
            net.connect_all();
            net.run_for(6 * SECOND);
            net.assert_in_step("before the liars come");
            let liars = [net.add_liar(lie), net.add_liar(lie)];
            net.connect_all();
            net.mark();
            for _ in 0..120 {
                net.run_for(SECOND / 2);
                net.assert_in_step(&when);
            }
            let pace = net.worst_pace_ppm();
            assert!(pace.abs() < 2_000, "{when}: a clock ran {pace} ppm off");
            assert!(net.named.iter().all(|peer| liars.contains(peer)), "{when}: {:?}", net.named);
            assert!(matches!(lie, Lie::Near) || net.named.len() == 2, "{when}: {:?}", net.named);
            println!("{when}: skew {} ms, pace {pace} ppm", net.worst_skew_ns() / MS);
            // One more joins among them.
            net.add_joiner();
            net.connect_all();
            net.run_for(5 * SECOND);
            net.assert_in_step(&when);
        }
    }
}

#[test]
fn one_liar_of_three_moves_nobody() {
    for lie in [Lie::Random, Lie::Huge, Lie::Tiny, Lie::PerPeer, Lie::Near] {
        for seed in 0..20 {
            let when = format!("seed {seed}, {lie:?}");
            let mut net = Net::new(seed, quick());
            net.add_founder();
            net.add_joiner();
            net.connect_all();
            net.run_for(4 * SECOND);
            net.add_liar(lie);
            net.connect_all();
            net.mark();
            for _ in 0..60 {
                net.run_for(SECOND);
                net.assert_in_step(&when);
            }
            let pace = net.worst_pace_ppm();
            assert!(pace.abs() < 2_000, "{when}: a clock ran {pace} ppm off");
        }
    }
}

#[test]
fn islands_drift_apart_and_come_together() {
    for seed in 0..20 {
        let mut net = Net::new(seed, quick());
        net.add_founder();
        for _ in 0..5 {
            net.add_joiner();
        }
        net.connect_all();
        net.run_for(8 * SECOND);
        net.cut(&[1, 2], &[3, 4, 5, 6]);
        for _ in 0..60 {
            net.run_for(SECOND);
            net.assert_in_step_among(&[1, 2], "the small island");
            net.assert_in_step_among(&[3, 4, 5, 6], "the large island");
        }
        net.connect_all();
        net.run_for(3 * SECOND);
        for _ in 0..20 {
            net.run_for(SECOND / 2);
            net.assert_in_step("after the cut was healed");
        }
    }
}

#[test]
fn islands_founded_apart_agree_when_they_meet() {
    // Hours apart: those behind jump, those ahead hold for that moment.
    for (seed, (left, right)) in
        (0..20).flat_map(|seed| [(2, 2), (4, 3), (3, 4), (1, 1), (5, 5)].map(|s| (seed, s)))
    {
        let mut net = Net::new(seed, quick());
        let island = |net: &mut Net, size: u8| {
            let ids: Vec<u8> =
                (0..size).map(|i| if i == 0 { net.add_founder() } else { net.add_joiner() }).collect();
            net.connect_among(&ids);
            ids
        };
        let left_ids = island(&mut net, left);
        let right_ids = island(&mut net, right);
        net.run_for(8 * SECOND);
        net.assert_in_step_among(&left_ids, "left");
        net.assert_in_step_among(&right_ids, "right");
        let latest = [1, left + 1].map(|id| net.mesh_time(id)).into_iter().max().unwrap();
        net.connect_all();
        net.run_for(8 * SECOND);
        for _ in 0..20 {
            net.run_for(SECOND / 2);
            net.assert_in_step(&format!("seed {seed}, {left} + {right}"));
        }
        let late = net.mesh_time(1) - latest;
        assert!(
            (17 * SECOND..=19 * SECOND).contains(&late),
            "seed {seed}, {left} + {right}: the later island leads, {late}"
        );
    }
}

#[test]
fn of_new_nodes_exactly_one_founds() {
    for seed in 0..30 {
        let mut net = Net::new(seed, quick());
        for _ in 0..5 {
            net.add_joiner();
        }
        net.connect_all();
        net.run_for(9 * SECOND);
        net.assert_in_step(&format!("seed {seed}"));
        let origins: Vec<Origin> = (1..=5)
            .flat_map(|id| net.events(id).to_vec())
            .filter_map(|event| match event {
                Event::Synchronised { origin, .. } => Some(origin),
                _ => None,
            })
            .collect();
        assert_eq!(origins.iter().filter(|origin| **origin == Origin::Founded).count(), 1, "{origins:?}");
        assert_eq!(origins.first(), Some(&Origin::Founded), "the smallest id");
    }
}

#[test]
fn two_nodes_follow_each_other() {
    for seed in 0..20 {
        let mut net = Net::new(seed, quick());
        net.add_founder();
        net.add_joiner();
        net.connect_all();
        net.run_for(5 * SECOND);
        for _ in 0..60 {
            net.run_for(SECOND);
            net.assert_in_step(&format!("seed {seed}"));
        }
    }
}

#[test]
fn all_restarted_at_once_go_on_where_they_were() {
    for seed in 0..20 {
        let mut net = Net::new(seed, quick());
        net.add_founder();
        for _ in 0..4 {
            net.add_joiner();
        }
        net.connect_all();
        net.run_for(10 * SECOND);
        let before = net.mesh_time(1);
        for id in 1..=5 {
            net.restart(id);
        }
        assert!((1..=5).all(|id| !net.is_synchronised(id)));
        net.connect_all();
        net.run_for(10 * SECOND);
        for _ in 0..20 {
            net.run_for(SECOND / 2);
            net.assert_in_step(&format!("seed {seed}"));
        }
        let passed = net.mesh_time(1) - before;
        assert!((19 * SECOND..=21 * SECOND).contains(&passed), "seed {seed}: {passed}");
    }
}

#[test]
fn nodes_that_come_and_go_leave_the_others_in_step() {
    for seed in 0..10 {
        let mut net = Net::new(seed, quick());
        net.add_founder();
        for _ in 0..6 {
            net.add_joiner();
        }
        net.connect_all();
        net.run_for(8 * SECOND);
        for turn in 0..14u8 {
            let id = turn % 7 + 1;
            net.restart(id);
            net.run_for(SECOND);
            let others: Vec<u8> = (1..=7).filter(|other| *other != id).collect();
            net.assert_in_step_among(&others, &format!("seed {seed}, without {id}"));
            net.connect_all();
            net.run_for(4 * SECOND);
            net.assert_in_step(&format!("seed {seed}, {id} is back"));
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let trace = |seed| {
        let mut net = Net::new(seed, quick());
        net.add_founder();
        for _ in 0..20 {
            net.add_joiner();
        }
        net.add_liar(Lie::Random);
        net.connect_all();
        net.run_for(30 * SECOND);
        assert!(net.frames > 1000);
        net.trace_hash()
    };
    assert_eq!(trace(1), trace(1));
    assert_ne!(trace(1), trace(2));
}
