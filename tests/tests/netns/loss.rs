//! The network loses packets.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use omnimesh_tests::{SOON, lab};

use crate::hosts::{Hosts, tell};
use crate::mesh::Mesh;

/// Of a hundred packets that arrive at a host.
const LOST: u32 = 20;
/// Messages of each node, and the pause after each: the loss is to last for a while.
const MESSAGES: usize = 30;
const PAUSE: Duration = Duration::from_millis(400);
/// All messages are everywhere so soon after the last was published.
const DELIVERED_MAX: Duration = Duration::from_secs(30);

/// Ends the watch, also when the test fails.
struct Over<'flag>(&'flag AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Every fifth packet is lost from the first on: nodes join, and every broadcast arrives everywhere, once.
#[test]
fn broadcasts_arrive_although_every_fifth_packet_is_lost() {
    let Some(hosts) = Hosts::new(5) else { return };
    hosts.lose(LOST);
    let lab = lab!();
    let began = Instant::now();
    let mesh = Mesh::start(&lab, &hosts);
    let joined = began.elapsed();

    let all = [0, 1, 2, 3, 4];
    let is_over = AtomicBool::new(false);
    let (delivered, flaps) = thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut seen = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                seen.extend((0..hosts.count()).flat_map(|host| mesh.not_alive(host)));
                thread::sleep(Duration::from_secs(1));
            }
            seen
        });
        let over = Over(&is_over);
        let messages = mesh.publish(&all, "lossy", MESSAGES, PAUSE);
        let published = Instant::now();
        mesh.wait_delivered(&messages, &all, DELIVERED_MAX);
        drop(over);
        (published.elapsed(), watch.join().expect("it watches"))
    });
    // Whoever was held for dead is not for ever, while packets are still lost.
    mesh.wait_whole(SOON);
    let lost = hosts.mend();
    assert!(lost.iter().all(|lost| *lost > 100), "the loss took no effect: {lost:?}");
    tell(&format!(
        "{LOST} % lost ({} packets): joined after {joined:.1?}, {} messages everywhere {delivered:.1?} after the last, the slowest in {:.0} ms; \
         of what nodes said of each other meanwhile, {} times «suspect» and {} times «dead»",
        lost.iter().sum::<u64>(),
        5 * MESSAGES,
        mesh.slowest_ms(),
        flaps.iter().filter(|state| *state == "suspect").count(),
        flaps.iter().filter(|state| *state == "dead").count(),
    ));
}
