//! The links of the model, for real bytes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use omnimesh_node::swarm::{Carry, LinkLaw};

use crate::model::link::{Fate, LinkModel, Parcel, Stream, nanos};
use crate::outcome::Traffic;

/// What is written at once is a frame of the model: it takes as long, and as often has to be sent again.
#[derive(Clone)]
pub(super) struct Law(Arc<Shared>);

struct Shared {
    links: LinkModel,
    /// When the uplink of each node is free again.
    uplinks: Vec<Mutex<u64>>,
    traffic: Mutex<Traffic>,
}

impl Law {
    pub(super) fn new(links: LinkModel, nodes: u32) -> Self {
        let uplinks = (0..nodes).map(|_| Mutex::default()).collect();
        Law(Arc::new(Shared { links, uplinks, traffic: Mutex::default() }))
    }

    /// What went over all links so far.
    pub(super) fn traffic(&self) -> Traffic {
        *lock(&self.0.traffic)
    }
}

impl LinkLaw for Law {
    fn latency(&self, from: u32, to: u32) -> Duration {
        Duration::from_nanos(self.0.links.latency(from, to))
    }

    fn carry(&self, from: u32, to: u32) -> Carry {
        let shared = Arc::clone(&self.0);
        let (mut stream, mut order) = (Stream::default(), 0);
        Box::new(move |at, bytes| {
            let parcel = Parcel { from, to, at: nanos(at), bytes, order };
            order += 1;
            let Some(uplink) = shared.uplinks.get(from as usize) else { return at };
            let mut lost = Traffic::default();
            let fate = shared.links.carry(parcel, &mut stream, &mut lock(uplink), &mut lost, &mut []);
            let mut traffic = lock(&shared.traffic);
            *traffic += lost;
            traffic.frames += 1;
            traffic.bytes += bytes as u64;
            match fate {
                Fate::Arrives(arrives) | Fate::ArrivesTwice(arrives, _) => Duration::from_nanos(arrives),
                // Only where nothing is sent again; no scenario for this engine is so.
                Fate::Lost => at,
            }
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Numbers, whole at any time.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
