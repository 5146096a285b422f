//! Names of jobs, tasks and attempts.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::{Hash, NodeId};
use crate::registry::Fault;
use crate::registry::cbor::{Reader, Writer};

const JOB_CONTEXT: &str = "omnimesh 2026-11 job";
const KEY_CONTEXT: &str = "omnimesh 2026-11 task key";
const RENDEZVOUS_CONTEXT: &str = "omnimesh 2026-11 job rendezvous";

macro_rules! hash_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Hash);

        impl $name {
            /// Takes the bytes as they are.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                $name(Hash::from_bytes(bytes))
            }

            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                self.0.as_bytes()
            }

            pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Fault> {
                Ok($name::from_bytes(reader.fixed_bytes()?))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = crate::id::ParseHexError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map($name)
            }
        }
    };
}

hash_id! {
    /// A job: follows from who submitted it and what it says, so nobody else can submit under this name.
    JobId
}

hash_id! {
    /// One piece of work, whoever does it and however often: the idempotency key of a task with given inputs.
    TaskKey
}

impl JobId {
    /// The id of the job with these bytes of a [`JobSpec`](super::job::JobSpec), submitted by this node.
    pub fn of(submitter: &NodeId, spec: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(JOB_CONTEXT);
        hasher.update(submitter.as_bytes()).update(spec);
        JobId::from_bytes(*hasher.finalize().as_bytes())
    }

    /// A node's place among those who may drive this job: the highest comes first (Thaler and Ravishankar, *Using
    /// name-based mappings to increase hit rates*, 1998).
    pub fn rendezvous(&self, node: &NodeId) -> Hash {
        let mut hasher = blake3::Hasher::new_derive_key(RENDEZVOUS_CONTEXT);
        hasher.update(self.as_bytes()).update(node.as_bytes());
        Hash::from_bytes(*hasher.finalize().as_bytes())
    }
}

impl TaskKey {
    /// The key of a task of a job, at a stage (0, or 1 for its fallback), with these inputs.
    pub fn of(job: &JobId, task: TaskRef, stage: u8, inputs: &Hash) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(KEY_CONTEXT);
        hasher.update(job.as_bytes());
        hasher.update(&task.task.to_le_bytes());
        hasher.update(&task.chunk.to_le_bytes());
        hasher.update(&[stage]);
        hasher.update(inputs.as_bytes());
        TaskKey::from_bytes(*hasher.finalize().as_bytes())
    }
}

/// A task of a job: which one of the file, and which chunk of a fan-out (0 if there is none).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskRef {
    /// Its place in [`JobSpec::tasks`](super::job::JobSpec::tasks).
    pub task: u16,
    /// Its place in the fan-out.
    pub chunk: u32,
}

impl TaskRef {
    /// The task at this place, at this chunk.
    pub const fn new(task: u16, chunk: u32) -> Self {
        TaskRef { task, chunk }
    }

    pub(crate) fn write(self, writer: &mut Writer) {
        writer.unsigned(u64::from(self.task));
        writer.unsigned(u64::from(self.chunk));
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let task = narrow(reader.unsigned()?)?;
        Ok(TaskRef { task, chunk: narrow(reader.unsigned()?)? })
    }
}

impl fmt::Display for TaskRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.task, self.chunk)
    }
}

/// A driver's number for one run of a task at one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId(pub u64);

/// Content, by hash and length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlobRef {
    /// BLAKE3 of the bytes.
    pub hash: Hash,
    /// How many bytes.
    pub size: u64,
}

impl BlobRef {
    /// The name of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        BlobRef { hash: Hash::of(bytes), size: bytes.len() as u64 }
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.bytes(self.hash.as_bytes());
        writer.unsigned(self.size);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let hash = Hash::from_bytes(reader.fixed_bytes()?);
        Ok(BlobRef { hash, size: reader.unsigned()? })
    }
}

/// A number from outside in a smaller type.
pub(crate) fn narrow<T: TryFrom<u64>>(value: u64) -> Result<T, Fault> {
    T::try_from(value).map_err(|_| Fault::BadNumber)
}
