//! What a worker says of itself.

use std::collections::BTreeMap;

use crate::compute::job::{LABELS_MAX, NAME_BYTES_MAX, OPERATIONS, is_name, list, read_texts, write_texts};
use crate::id::Hash;
use crate::registry::Fault;
use crate::registry::cbor::{Reader, Writer};

/// Most blobs that an offer names. Default: guess; they serve only to bring tasks to their inputs.
pub const HELD_MAX: usize = 256;
/// Most operations that an offer names.
const OPERATIONS_MAX: usize = 64;
/// Most attempts that a worker may say it runs at once: a driver keeps room in proportion.
const SLOTS_MAX: u32 = 4096;

/// What a worker is and has, sent with each heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// Attempts that it runs at once; 0 if it takes none.
    pub slots: u32,
    /// Attempts of this driver that it will take at once: those that run and those that wait.
    pub room: u32,
    /// Attempts under way and waiting, of all drivers.
    pub active: u32,
    /// Memory for attempts, in bytes.
    pub memory_bytes: u64,
    /// What it says it is.
    pub labels: BTreeMap<String, String>,
    /// Where it is.
    pub region: Option<String>,
    /// The operations that it does; all if there is none.
    pub operations: Vec<String>,
    /// Blobs that it holds: the newest.
    pub held: Vec<Hash>,
}

impl Offer {
    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.array(8);
        writer.unsigned(u64::from(self.slots));
        writer.unsigned(u64::from(self.room));
        writer.unsigned(u64::from(self.active));
        writer.unsigned(self.memory_bytes);
        write_texts(&self.labels, writer);
        match &self.region {
            Some(region) => writer.text(region),
            None => writer.null(),
        }
        writer.array(self.operations.len());
        self.operations.iter().for_each(|operation| writer.text(operation));
        writer.array(self.held.len());
        self.held.iter().for_each(|hash| writer.bytes(hash.as_bytes()));
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        reader.array_of(8)?;
        let small = |reader: &mut Reader<'_>| -> Result<u32, Fault> {
            let value = u32::try_from(reader.unsigned()?).map_err(|_| Fault::BadNumber)?;
            if value > SLOTS_MAX { Err(Fault::BadNumber) } else { Ok(value) }
        };
        let offer = Offer {
            slots: small(reader)?,
            room: small(reader)?,
            active: u32::try_from(reader.unsigned()?).map_err(|_| Fault::BadNumber)?,
            memory_bytes: reader.unsigned()?,
            labels: read_texts(reader)?,
            region: if reader.null() { None } else { Some(reader.text()?.to_owned()) },
            operations: list(reader, |reader| Ok(reader.text()?.to_owned()))?,
            held: list(reader, |reader| Ok(Hash::from_bytes(reader.fixed_bytes()?)))?,
        };
        let names =
            offer.labels.keys().chain(offer.labels.values()).chain(&offer.region).chain(&offer.operations);
        if !names.clone().all(|name| is_name(name)) {
            return Err(Fault::BadName);
        }
        if offer.labels.len() > LABELS_MAX
            || offer.operations.len() > OPERATIONS_MAX
            || offer.held.len() > HELD_MAX
        {
            return Err(Fault::TooManyFields);
        }
        debug_assert!(names.into_iter().all(|name| name.len() <= NAME_BYTES_MAX));
        Ok(offer)
    }

    /// True if it does this operation.
    pub fn does(&self, operation: &str) -> bool {
        if self.operations.is_empty() {
            OPERATIONS.contains(&operation)
        } else {
            self.operations.iter().any(|known| known == operation)
        }
    }
}
