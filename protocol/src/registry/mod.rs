//! The registry: entries and links between them, replicated by the log, the same on every node.
//!
//! ```text
//!            entry                                        what its fields are: name -> value
//!   agent/scout ──uses──► model/llama ──deployed_on──► infrastructure/rack-7
//!        │                     ▲
//!        └────runs──► workflow/triage ──uses──► tool/search
//!
//!   write ─► Operation ─► payload of a durable envelope on channel `registry` ─► every node's log
//!                                                                                    │
//!   get · list · links · walk ◄─── State ◄──────────── State::apply, in any order ◄──┘
//! ```
//!
//! An *entry* has a kind ([`KINDS`], or an own one), a name among those of its kind, and fields. A *link* goes from
//! one entry to another and says a relation ([`RELATIONS`], or an own one). [`State`] is a [projection](crate::projection)
//! of the log: a fold that does not depend on the order in which entries arrive.
//!
//! ```
//! use omnimesh_protocol::projection::{EntryRef, Projection};
//! use omnimesh_protocol::registry::{Action, CATEGORY, EntryKey, FieldName, Fields, State, Value};
//! use omnimesh_protocol::{Hash, NodeId, Outbox, Seq, Step};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut registry = State::new();
//! let key = EntryKey::new("model", "llama")?;
//! let fields = Fields::from([(FieldName::new("parameters")?, Value::from(7_000_000_000).encode()?)]);
//!
//! // What a node writes: the payload of a durable envelope of channel `registry`.
//! let now = Step(1000);
//! let put = registry.write(Action::Put { key: key.clone(), ttl: None, fields }, now)?;
//! let payload = put.encode()?;
//!
//! // What every node does with it once it is in the log.
//! let entry = EntryRef {
//!     author: NodeId::from_bytes([1; 32]),
//!     seq: Seq(1),
//!     step: now,
//!     hash: Hash::of(b"the envelope's digest"),
//!     category: CATEGORY,
//!     payload: &payload,
//! };
//! let mut changes = Outbox::new();
//! registry.apply(&entry, &mut changes);
//! assert_eq!(changes.len(), 1);
//!
//! let answer = registry.get(&key, now);
//! assert_eq!(answer.value.unwrap().value("parameters"), Some(Value::Integer(7_000_000_000)));
//! assert_eq!(answer.as_of.authors, 1);
//! # Ok(())
//! # }
//! ```
//!
//! # Which write counts
//! Every write has a [`Rank`] in one total order: step, count within the step, author, sequence number. A write comes
//! after all that its author had seen on the same thing; of two that did not know of each other the one of the later
//! step comes after the other, and in one step that of the higher author (compared as bytes). Then:
//!
//! | writes | who wins |
//! |---|---|
//! | put and put | the higher, with all its fields: a put says what the entry is, and nothing of the lower one stays |
//! | update and update | in each field the higher |
//! | put and update | an update above the put changes it; one below it has no effect |
//! | delete and put | the higher. A put above a delete makes the entry anew; nothing of the old one comes back |
//! | delete and update | the delete, whichever is higher: an update never makes an entry. Without this rule the renewal of a service, sent while another node deletes it, would bring back a torso |
//! | link and unlink | the higher |
//! | link and delete of one of its ends | the higher: a delete removes all links from and to the entry that are below it |
//!
//! Neither "put wins" nor "delete wins" for what is concurrent: each surprises somebody, and the order of steps is as
//! near to what people saw as the mesh can know. As everything is a maximum, applying is commutative, associative and
//! idempotent; [`State::merge`] is the same join for whole states.
//!
//! An author can push the rank of its writes at most [`AHEAD_STEPS_MAX`] steps ahead: who lies wins for that long.
//!
//! # Time-to-live
//! A put or update may say for how many steps from its own step on the entry is shown. Whether it is shown is a
//! function of the step that the reader gives, so expiry needs no messages and changes neither state nor hash. An
//! expired entry comes back by a later put, or by an update with a time-to-live. It stays in the state until somebody
//! deletes it ([`State::expired`]): dropping it at each node's own time would make a late update bring it back at one
//! node and not at another.
//!
//! # What is taken back
//! When a log is cut ([`Projection::cut`](crate::projection::Projection::cut)), the state drops every entry and link
//! whose [version vector](Versions) has a write of the lost part, and has everything applied once more; what is not
//! touched stays and can be read meanwhile. Keeping every write, so as to have the second best at hand, would cost
//! memory without bound for what happens only to who signs twice.
//!
//! # Tombstones
//! What was deleted is remembered, for a lower put may be on its way, from an island for weeks. A tombstone is dropped
//! by [`State::compact`], once it is below a step below which no log takes entries any more (see
//! [the floor](crate::projection)): every later write is above it anyway. Fields that an update has removed go with the
//! entry's next put or delete. Compacting does not change the hash, so nodes that compact at different times agree.
//!
//! # Invariants
//! * Equal sets of entries of the log make equal states, hashes and snapshots (snapshots: with equal floors).
//! * [`State::hash`](crate::projection::Projection::hash) follows from what is seen, and costs the same however much that is (LtHash).
//! * No payload, however hostile, does more than to be refused, and every node refuses the same.
//!
//! # Bounds
//! An operation has at most [`OPERATION_BYTES_MAX`] bytes; an entry shows the [`FIELDS_MAX`] fields that were written
//! last, of at most [`VALUE_BYTES_MAX`] bytes each, and the last [`VERSIONS_MAX`] authors. How many entries there are
//! is bounded by the log alone: a small entry takes about 1.3 KB of memory, a link 0.8 KB (measured). A bound here
//! would refuse what another node, which got entries in another order, had taken.
//!
//! # Not here
//! Who may write what (all members may write everything), and checking whether services are well.

pub(crate) mod cbor;
mod entry;
mod fault;
mod name;
mod operation;
mod query;
mod rank;
mod search;
mod sethash;
mod snapshot;
mod state;
pub(crate) mod value;
mod versions;

pub use entry::{Entry, Field};
pub use fault::Fault;
pub use name::{
    EntryKey, EntryKind, EntryName, FIELD_NAME_BYTES_MAX, FieldName, KIND_BYTES_MAX, KINDS, Link,
    NAME_BYTES_MAX, RELATIONS, Relation,
};
pub use operation::{Action, FIELDS_MAX, Fields, OPERATION_BYTES_MAX, Operation, VERSION};
pub use query::{
    Answer, AsOf, Direction, Filter, LinkView, ListQuery, PAGE_MAX, Page, Reached, SCAN_MAX, WALK_DEPTH_MAX,
    WALK_ENTRIES_MAX, WalkQuery, Walked,
};
pub use rank::{AHEAD_STEPS_MAX, Rank, Tick};
pub use search::{Found, Hit, SEARCH_ENTRIES_MAX, SEARCH_WORDS_MAX, SearchQuery};
pub use state::{Change, Counts, State, WriteError};
pub use value::{Encoded, VALUE_BYTES_MAX, VALUE_DEPTH_MAX, Value};
pub use versions::{VERSIONS_MAX, Versions};

/// The channel of the durable envelopes whose payloads are operations.
pub const CATEGORY: &str = "registry";
