//! Settings of the log.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::id::NodeId;

/// Settings and bounds. Every default says where it comes from; "guess" is a guess.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Largest envelope, in bytes; the same on all nodes of a mesh (`gossip.message_bytes_max`).
    pub message_bytes_max: usize,
    /// How many steps ahead of the own one a record may be (`node.step_window_future`).
    pub step_window_future: u64,
    /// Most payloads in a record that this node writes, at most [`PAYLOADS_MAX`](crate::envelope::PAYLOADS_MAX).
    pub bundle_payloads_max: usize,
    /// Most bytes of payloads in an own record of more than one.
    pub bundle_bytes_max: usize,
    /// Appends that wait to be written. Too low: bursts are refused as busy; too high: memory. Default 8192: guess.
    pub pending_max: usize,
    /// Bytes of appends that wait to be written. Default 8 MiB: guess.
    pub pending_bytes_max: usize,
    /// Authors whose logs are kept, about 400 bytes of memory each. Records of further ones are refused. Default
    /// 65,536: as many as the replay windows remember.
    pub authors_max: usize,

    /// Time between two rounds of reconciliation with a random peer, give or take a quarter. Too low costs bytes when
    /// nothing is missing (about 60 in a round), too high finds late what gossip lost. Default 2 s: guess.
    pub interval: Duration,
    /// How long a peer may take to answer in a round. Default 5 s: guess, above a round trip with a full queue.
    pub round_timeout: Duration,
    /// How long what a peer tells of may take to come by gossip, before it is fetched. Too low fetches what is under
    /// way; too high delays. Not waited for what was there when the peer connected. Default 500 ms: guess.
    pub gossip_grace: Duration,

    /// Bytes of records asked for at once from one peer. Default 256 KiB: guess; a peer gives no more.
    pub fetch_bytes: usize,
    /// Requests under way to one peer, for together at most eight times [`Self::fetch_bytes`]. Default 32: guess, so that
    /// many authors of whom little is missing do not take a round trip each.
    pub fetches_per_peer: usize,
    /// Bytes of records that are asked for, being checked, or waiting for what comes before them, because of
    /// requests. Bounds memory while catching up. Default 16 MiB: guess.
    pub fetch_window_bytes: usize,
    /// How long a peer may take to answer a request. Default 5 s: guess.
    pub fetch_timeout: Duration,
    /// How long a peer that answered wrongly, or not at all, is not asked; doubled each further time. Default 2 s: guess.
    pub shun: Duration,
    /// The longest that a peer is not asked. Default 60 s: guess.
    pub shun_max: Duration,

    /// Records of one author that came by gossip and wait for what comes before them. Default 256: guess.
    pub waiting_records_max: usize,
    /// Bytes of them. Default 1 MiB: guess.
    pub waiting_bytes_max: usize,
    /// Bytes of them, of all authors together. Default 16 MiB: guess.
    pub waiting_total_bytes_max: usize,
    /// Bytes of records that wait to be written; beyond, records from others are dropped (and fetched later) and
    /// nothing is asked for. Default 16 MiB: guess.
    pub write_bytes_max: usize,

    /// Requests of one peer that are being answered; further ones are refused as busy. Default 64: twice
    /// what our own nodes have under way.
    pub serves_per_peer: usize,
    /// Bytes that wait to be sent to one peer; while there are more, its requests are refused as busy. Default 4 MiB:
    /// as `limits.outbound_bytes`.
    pub serve_queue_bytes_max: usize,
    /// Frames of comparison that one peer may send in an [`Self::interval`]; further ones are dropped. Default 256: guess,
    /// many times the eight or so of a round.
    pub compares_max: u32,

    /// A checkpoint is made of the entries before every step that is a multiple of this; 0 for none. The same on all
    /// nodes of a mesh, for only equal checkpoints are sealed. Too low costs a fold of what is new, and a state on disk
    /// each time; too high keeps more from being dropped. Default 0: who wants to drop entries sets it.
    pub checkpoint_steps: u64,
    /// How many steps after its step a checkpoint is made, so that late entries are there everywhere. Too low: entries
    /// are on their way, the ids differ and it is not sealed. Default 10: guess, some rounds.
    pub checkpoint_delay_steps: u64,
    /// How many signatures seal a checkpoint, the same on all nodes; 0 for a majority of the members that are alive, two
    /// at least if there ever were others. With 0, two make one good enough to be taken in place of
    /// entries, and to drop entries. Default 0.
    pub checkpoint_signers: usize,
    /// Whose signatures count, beside the own one; empty: everybody's. Who signs answers for the state, which nobody else can
    /// check: where not all who know the mesh's secret are trusted, name those who are (`network.allow`). Default: empty.
    pub checkpoint_members: BTreeSet<NodeId>,
    /// The longest checkpoint that is taken from peers, cut and states together. Default 256 MiB: guess; the state is
    /// held in memory when it is opened.
    pub checkpoint_bytes_max: u64,
    /// Records older than this many steps are dropped, once a sealed checkpoint covers them; 0 keeps them. Default 0.
    pub keep_steps: u64,
    /// All records that a sealed checkpoint covers are dropped when the store has more bytes than this; 0 keeps them.
    /// Default 0.
    pub keep_bytes: u64,

    /// How long after a failed write the next one is tried. Default 1 s: guess.
    pub write_retry: Duration,

    /// How long a node that may have written before (see [`Start`](super::Start)) asks its peers for the
    /// end of its own log before it appends. Default 5 s: guess, enough to connect to a few.
    pub own_head_wait: Duration,
    /// How long it waits for more peers after the first has connected, if all that are there have answered. Default
    /// 1 s: guess.
    pub own_head_settle: Duration,
    /// How long an append waits for its replicas before it is answered with those it has. Default 10 s: guess.
    pub replicas_wait: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            message_bytes_max: 65_536,
            step_window_future: 2,
            bundle_payloads_max: 64,
            bundle_bytes_max: 16_384,
            pending_max: 8192,
            pending_bytes_max: 8 << 20,
            authors_max: 65_536,
            interval: Duration::from_secs(2),
            round_timeout: Duration::from_secs(5),
            gossip_grace: Duration::from_millis(500),
            fetch_bytes: 256 << 10,
            fetches_per_peer: 32,
            fetch_window_bytes: 16 << 20,
            fetch_timeout: Duration::from_secs(5),
            shun: Duration::from_secs(2),
            shun_max: Duration::from_secs(60),
            waiting_records_max: 256,
            waiting_bytes_max: 1 << 20,
            waiting_total_bytes_max: 16 << 20,
            write_bytes_max: 16 << 20,
            serves_per_peer: 64,
            serve_queue_bytes_max: 4 << 20,
            compares_max: 256,
            checkpoint_steps: 0,
            checkpoint_delay_steps: 10,
            checkpoint_signers: 0,
            checkpoint_members: BTreeSet::new(),
            checkpoint_bytes_max: 256 << 20,
            keep_steps: 0,
            keep_bytes: 0,
            write_retry: Duration::from_secs(1),
            own_head_wait: Duration::from_secs(5),
            own_head_settle: Duration::from_secs(1),
            replicas_wait: Duration::from_secs(10),
        }
    }
}
