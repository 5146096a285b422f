//! Measurements: what the log costs. Printed, not judged: `cargo test --release -p omnimesh-protocol --test log measure --
//! --ignored --nocapture`.

#![expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "a measurement of real time")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use omnimesh_protocol::Step;
use omnimesh_protocol::log::{Config, Record};

use crate::disk::{chain, disk_of, seal};
use crate::network::{World, identity};

#[test]
#[ignore = "measures"]
fn catching_up() {
    println!(
        "{:>8} {:>8} {:>8} {:>10} {:>8} {:>12} {:>12}",
        "authors", "records", "entries", "bytes", "share", "of mesh time", "CPU/record"
    );
    for (authors, records, entries) in [(1, 20_000, 1), (1, 1000, 64), (1000, 20, 1), (1000, 1, 1)] {
        let identities: Vec<_> = (0..authors)
            .map(|n| {
                let mut seed = [9; 32];
                seed[..8].copy_from_slice(&(n as u64).to_le_bytes());
                omnimesh_protocol::Identity::from_seed(&seed)
            })
            .collect();
        let mut all: Vec<Record> = Vec::new();
        for identity in &identities {
            let mut last: Option<Record> = None;
            for _ in 0..records {
                let (first, prev) =
                    last.map_or((1, None), |last: Record| (last.last().0 + 1, Some(last.digest())));
                let record =
                    seal(identity, Step(900), first, prev, &vec![Bytes::from(vec![7; 200]); entries]);
                all.push(record.clone());
                last = Some(record);
            }
        }
        let disk = disk_of(&all);
        let mut world = World::new(1, 1, Config::default());
        world.is_checked = false;
        for n in 1..5 {
            world.add(identity(n), disk.clone());
        }
        world.start_all();
        let began = Instant::now();
        world.spent = Duration::ZERO;
        let took = world.settle(Duration::from_secs(120), "measured");
        let bytes: usize = world.bytes.iter().filter(|((a, b), _)| a * b == 0).map(|(_, bytes)| bytes).sum();
        println!(
            "{authors:>8} {:>8} {:>8} {bytes:>10} {:>8.4} {:>12?} {:>12?}   (wall {:?}, memory {} KiB)",
            all.len(),
            all.len() * entries,
            bytes as f64 / disk.bytes() as f64,
            took,
            world.spent / u32::try_from(all.len()).unwrap(),
            began.elapsed(),
            world.memory_max >> 10,
        );
    }
}

#[test]
#[ignore = "measures"]
fn a_round_with_nothing_missing() {
    for authors in [200_u8] {
        let records: Vec<_> = (0..authors)
            .flat_map(|n| chain(&identity(usize::from(n) + 5), Step(900), None, &[1], "x"))
            .collect();
        let mut world = World::new(1, 0, Config::default());
        world.is_checked = false;
        for n in 0..2 {
            world.add(identity(n), disk_of(&records));
        }
        world.start_all();
        world.run(Duration::from_secs(1));
        world.spent = Duration::ZERO;
        let (bytes, rounds) = (
            world.bytes.values().sum::<usize>(),
            world.state(0).stats().rounds + world.state(1).stats().rounds,
        );
        world.run(Duration::from_secs(1000));
        let bytes = world.bytes.values().sum::<usize>() - bytes;
        let rounds = world.state(0).stats().rounds + world.state(1).stats().rounds - rounds;
        println!(
            "{authors} authors: {} bytes and {:?} of both nodes' CPU a round",
            bytes as u64 / rounds,
            world.spent / u32::try_from(rounds).unwrap()
        );
    }
}
