//! One simulated node: the protocol's machines, its clock, its ends of links, and, of some, what is wrong with it; and
//! what can be seen of it.
//!
//! ```text
//!   life: start, death, connections      events: what arrives, timers ──► the machine it is for
//!                                                                              │
//!   send: frames onto links  ◄── outputs: the router, step synchronisation, ◄──┘
//!         own messages           membership; the log, the observer and jobs have files beside this one
//! ```

mod events;
mod life;
mod outputs;
mod send;

use omnimesh_protocol::envelope::Envelope;
use omnimesh_protocol::step::{self, SavedOffset, StepSync};
use omnimesh_protocol::{Step, Time, author, gossip, membership, observer, relay};
use rand_chacha::ChaCha8Rng;
use smallvec::SmallVec;

use super::Machine;
use super::clock::Clock;
use super::compute::{ComputePart, KeptJobs};
use super::disk::Drive;
use super::link::Stream;
use super::log::LogPart;
use super::mischief::Mischief;
use super::observer::{ObserverPart, Saved};
use super::random::mix;
use super::shard::Sink;
use super::shared::Shared;

/// The end of a link at a node.
#[derive(Debug)]
pub(super) struct End {
    pub(super) peer: u32,
    /// This node dials.
    pub(super) is_outbound: bool,
    /// Frames can be sent.
    pub(super) is_up: bool,
    /// Counts the connections there were; a frame of an older one is not delivered.
    pub(super) age: u32,
    stream: Stream,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Timer {
    Gossip(gossip::Timer),
    Step(step::Timer),
    Swim(membership::Timer),
    Mischief(u32),
    /// Something of the log or its disk, by number.
    Log(u32),
    Observer(observer::Timer),
    /// Look at what nobody tells the observer by itself.
    Look,
    /// Something of jobs, by number.
    Compute(u32),
}

impl Timer {
    fn machine(&self) -> Machine {
        match self {
            Timer::Gossip(_) => Machine::Gossip,
            Timer::Step(_) => Machine::Step,
            Timer::Swim(_) => Machine::Membership,
            Timer::Mischief(_) => Machine::Mischief,
            Timer::Log(_) => Machine::Log,
            Timer::Observer(_) | Timer::Look => Machine::Observer,
            Timer::Compute(_) => Machine::Compute,
        }
    }
}

/// The machines of a process.
#[derive(Debug)]
pub(super) struct Machines {
    pub(super) relay: relay::State<u32>,
    pub(super) sync: Option<StepSync<u32>>,
    pub(super) membership: Option<Box<membership::State>>,
    author: Option<Box<author::State>>,
    pub(super) log: Option<Box<LogPart>>,
    pub(super) observer: Option<Box<ObserverPart>>,
    pub(super) compute: Option<Box<ComputePart>>,
    /// The own envelope that the router is being given.
    publishing: Option<Box<Envelope>>,
    /// The step that the relay was last told.
    told: Option<Step>,
}

/// What a node keeps on disk.
#[derive(Clone, Copy, Debug, Default)]
struct Disk {
    next_seq: u64,
    /// The last step that it showed.
    step: Option<Step>,
    offset: Option<SavedOffset>,
    lives: u64,
}

/// A node, running or not.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) machines: Option<Box<Machines>>,
    /// Sorted by peer.
    pub(super) ends: Vec<End>,
    timers: SmallVec<[(Time, Timer); 4]>,
    /// The earliest of them, in global time.
    timer_at: u64,
    clock: Clock,
    pub(super) rng: ChaCha8Rng,
    disk: Disk,
    /// Where the log is, of nodes that keep one.
    pub(super) drive: Option<Box<Drive>>,
    /// What its observer keeps.
    pub(super) saved: Option<Box<Saved>>,
    /// What it keeps of jobs.
    pub(super) kept_jobs: Option<Box<KeptJobs>>,
    /// Events caused so far.
    order: u64,
    /// A hash of all that happened to it.
    trace: u64,
    uplink_free: u64,
    busy_until: u64,
    /// When it is to be woken next.
    wake_at: u64,
    /// Nanoseconds that a frame takes to be worked off.
    pub(super) frame_ns: u64,
    /// Since when it has had a step, in global time.
    pub(super) synchronised_at: Option<u64>,
    pub(super) mischief: Option<Box<Mischief>>,
}

/// What a node works with: the world, where its effects go, and the global time.
pub(super) struct Ctx<'a> {
    pub(super) shared: &'a Shared,
    pub(super) sink: &'a mut Sink,
    pub(super) me: u32,
    pub(super) now: u64,
}

impl Node {
    pub(super) fn new(rng: ChaCha8Rng, ends: Vec<(u32, bool)>) -> Self {
        let ends = ends
            .into_iter()
            .map(|(peer, is_outbound)| End {
                peer,
                is_outbound,
                is_up: false,
                age: 0,
                stream: Stream::default(),
            })
            .collect();
        Node {
            machines: None,
            ends,
            timers: SmallVec::new(),
            timer_at: u64::MAX,
            clock: Clock::new(0, 0.0),
            rng,
            disk: Disk { next_seq: 1, ..Disk::default() },
            drive: None,
            saved: None,
            kept_jobs: None,
            order: 0,
            trace: 0,
            uplink_free: 0,
            busy_until: 0,
            wake_at: u64::MAX,
            frame_ns: 0,
            synchronised_at: None,
            mischief: None,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.machines.is_some()
    }

    pub(super) fn end(&self, peer: u32) -> Option<&End> {
        let at = self.ends.binary_search_by_key(&peer, |end| end.peer).ok()?;
        self.ends.get(at)
    }

    fn end_mut(&mut self, peer: u32) -> Option<&mut End> {
        let at = self.ends.binary_search_by_key(&peer, |end| end.peer).ok()?;
        self.ends.get_mut(at)
    }

    pub(super) fn local(&self, now: u64) -> Time {
        self.clock.local(now)
    }

    // What can be seen of it.

    pub(super) fn mesh_time(&self, now: u64, shared: &Shared) -> Option<u64> {
        let machines = self.machines.as_ref()?;
        match &machines.sync {
            Some(sync) => sync.mesh_time(self.clock.local(now)),
            None => Some(shared.true_time_ns(now)),
        }
    }

    /// The step that it works with.
    pub(super) fn mesh_step(&self, ctx: &Ctx<'_>) -> Option<Step> {
        match &self.machines.as_ref()?.sync {
            Some(sync) => sync.step(self.clock.local(ctx.now)),
            None => Some(ctx.shared.true_step(ctx.now)),
        }
    }

    /// When all that it has sent has left it.
    pub(super) fn uplink_free(&self) -> u64 {
        self.uplink_free
    }

    pub(super) fn log_part(&self) -> Option<&LogPart> {
        self.machines.as_ref()?.log.as_deref()
    }

    pub(super) fn relay_state(&self) -> Option<&relay::State<u32>> {
        self.machines.as_ref().map(|machines| &machines.relay)
    }

    /// Members that it holds for alive, itself among them.
    pub(super) fn alive(&self) -> Option<usize> {
        Some(self.machines.as_ref()?.membership.as_ref()?.counts().alive)
    }

    /// Makes something that happened within the node a part of its trace.
    pub(super) fn set_trace(&mut self, word: u64) {
        self.trace = mix(self.trace ^ word);
    }

    pub(super) fn trace(&self) -> u64 {
        self.trace
    }

    pub(super) fn check_invariants(&self) {
        if let Some(machines) = &self.machines {
            machines.relay.check_invariants();
            if let Some(membership) = &machines.membership {
                membership.check_invariants();
            }
            if let Some(part) = &machines.log {
                part.state().check_invariants();
            }
            if let Some(part) = &machines.observer {
                part.check_invariants();
            }
            if let Some(part) = &machines.compute {
                part.check_invariants();
            }
        }
    }

    pub(super) fn rng(&mut self) -> &mut ChaCha8Rng {
        &mut self.rng
    }
}
