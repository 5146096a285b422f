//! What the payload of a registry entry says, and its bytes.
//!
//! ```text
//! operation = [ 1, 0, kind, name, after, ttl, fields ]                                   put
//!           | [ 1, 1, kind, name, after, ttl, fields ]                                   update
//!           | [ 1, 2, kind, name, after ]                                                delete
//!           | [ 1, 3, kind, name, relation, kind, name, after ]                          link
//!           | [ 1, 4, kind, name, relation, kind, name, after ]                          unlink
//! after     = null | [ step, count ]        ttl = null | steps        fields = { name: value, … }
//! ```

use std::collections::BTreeMap;

use super::cbor::{Reader, Writer};
use super::fault::Fault;
use super::name::{EntryKey, FieldName, Link};
use super::rank::Tick;
use super::value::{Encoded, next_key};

/// The version of the format.
pub const VERSION: u64 = 1;
/// Most bytes of an operation; fits an envelope of the default size (`gossip.message_bytes_max`).
pub const OPERATION_BYTES_MAX: usize = 49_152;
/// Most fields of an entry, and of an operation. Default: guess.
pub const FIELDS_MAX: usize = 64;

const PUT: u64 = 0;
const UPDATE: u64 = 1;
const DELETE: u64 = 2;
const LINK: u64 = 3;
const UNLINK: u64 = 4;

/// Fields by name.
pub type Fields = BTreeMap<FieldName, Encoded>;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The entry is this and nothing else from now on; makes it if there is none.
    Put {
        /// Which entry.
        key: EntryKey,
        /// For how many steps from the write's own step on it is shown; for ever if `None`. At least 1.
        ttl: Option<u64>,
        /// All its fields; none is null.
        fields: Fields,
    },
    /// Sets some fields of an entry. It does not make one: while there is no entry, nothing is shown.
    Update {
        /// Which entry.
        key: EntryKey,
        /// From the write's own step on it is shown for so many steps; as long as before if `None`. At least 1.
        ttl: Option<u64>,
        /// Fields to be set; one that is null is removed. There is at least one, or a time-to-live.
        fields: Fields,
    },
    /// The entry is no more, nor are the links from and to it.
    Delete {
        /// Which entry.
        key: EntryKey,
    },
    /// There is this link.
    Link(Link),
    /// There is no such link.
    Unlink(Link),
}

/// An action, and what its writer had seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// What is to be done.
    pub action: Action,
    /// The moment of the last write that the writer had seen on what it writes to. See [`super::Rank`].
    pub after: Option<Tick>,
}

impl Operation {
    /// The bytes of a payload.
    ///
    /// # Errors
    /// [`Fault::TooLarge`], [`Fault::TooManyFields`], or [`Fault::Malformed`] for a time-to-live of zero, a null in a
    /// put, or an update of nothing.
    pub fn encode(&self) -> Result<Vec<u8>, Fault> {
        let bytes = self.write()?.bytes;
        if bytes.len() > OPERATION_BYTES_MAX { Err(Fault::TooLarge) } else { Ok(bytes) }
    }

    /// How many bytes [`Operation::encode`] gives, or would give if it were not too many.
    ///
    /// # Errors
    /// As [`Operation::encode`], but for [`Fault::TooLarge`].
    pub fn bytes(&self) -> Result<usize, Fault> {
        Ok(self.write()?.bytes.len())
    }

    fn write(&self) -> Result<Writer, Fault> {
        let mut writer = Writer::default();
        match &self.action {
            Action::Put { key, ttl, fields } => self.write_fields(&mut writer, PUT, key, *ttl, fields)?,
            Action::Update { key, ttl, fields } => {
                self.write_fields(&mut writer, UPDATE, key, *ttl, fields)?;
            }
            Action::Delete { key } => {
                head(&mut writer, 5, DELETE);
                key.write(&mut writer);
                write_after(&mut writer, self.after);
            }
            Action::Link(link) => self.write_link(&mut writer, LINK, link),
            Action::Unlink(link) => self.write_link(&mut writer, UNLINK, link),
        }
        Ok(writer)
    }

    fn write_fields(
        &self,
        writer: &mut Writer,
        code: u64,
        key: &EntryKey,
        ttl: Option<u64>,
        fields: &Fields,
    ) -> Result<(), Fault> {
        check_fields(code, ttl, fields)?;
        head(writer, 7, code);
        key.write(writer);
        write_after(writer, self.after);
        match ttl {
            Some(steps) => writer.unsigned(steps),
            None => writer.null(),
        }
        writer.map(fields.len());
        let mut sorted: Vec<_> = fields.iter().collect();
        sorted.sort_by(|a, b| super::cbor::key_order(a.0.as_str(), b.0.as_str()));
        for (name, value) in sorted {
            writer.text(name.as_str());
            writer.raw(value.as_bytes());
        }
        Ok(())
    }

    fn write_link(&self, writer: &mut Writer, code: u64, link: &Link) {
        head(writer, 8, code);
        link.write(writer);
        write_after(writer, self.after);
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// The first fault that is found; every node finds the same.
    pub fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        if bytes.len() > OPERATION_BYTES_MAX {
            return Err(Fault::TooLarge);
        }
        let mut reader = Reader::new(bytes);
        let items = reader.array()?;
        if reader.unsigned()? != VERSION {
            return Err(Fault::UnknownVersion);
        }
        let code = reader.unsigned()?;
        let expected = match code {
            PUT | UPDATE => 7,
            DELETE => 5,
            LINK | UNLINK => 8,
            _ => return Err(Fault::UnknownOperation),
        };
        if items != expected {
            return Err(Fault::Malformed);
        }
        let operation = match code {
            PUT | UPDATE => {
                let key = EntryKey::read(&mut reader)?;
                let after = read_after(&mut reader)?;
                let ttl = if reader.null() { None } else { Some(reader.unsigned()?) };
                let fields = read_fields(&mut reader)?;
                check_fields(code, ttl, &fields)?;
                let action = if code == PUT {
                    Action::Put { key, ttl, fields }
                } else {
                    Action::Update { key, ttl, fields }
                };
                Operation { action, after }
            }
            DELETE => {
                let key = EntryKey::read(&mut reader)?;
                Operation { action: Action::Delete { key }, after: read_after(&mut reader)? }
            }
            _ => {
                let link = Link::read(&mut reader)?;
                let action = if code == LINK { Action::Link(link) } else { Action::Unlink(link) };
                Operation { action, after: read_after(&mut reader)? }
            }
        };
        reader.finish()?;
        Ok(operation)
    }
}

fn head(writer: &mut Writer, items: usize, code: u64) {
    writer.array(items);
    writer.unsigned(VERSION);
    writer.unsigned(code);
}

fn write_after(writer: &mut Writer, after: Option<Tick>) {
    match after {
        Some(tick) => tick.write(writer),
        None => writer.null(),
    }
}

fn read_after(reader: &mut Reader<'_>) -> Result<Option<Tick>, Fault> {
    if reader.null() { Ok(None) } else { Tick::read(reader).map(Some) }
}

fn read_fields(reader: &mut Reader<'_>) -> Result<Fields, Fault> {
    let pairs = reader.map()?;
    if pairs > FIELDS_MAX as u64 {
        return Err(Fault::TooManyFields);
    }
    let mut fields = Fields::new();
    let mut last = None;
    for _ in 0..pairs {
        let name = FieldName::new(next_key(reader, &mut last)?)?;
        fields.insert(name, Encoded::read(reader)?);
    }
    Ok(fields)
}

fn check_fields(code: u64, ttl: Option<u64>, fields: &Fields) -> Result<(), Fault> {
    if fields.len() > FIELDS_MAX {
        return Err(Fault::TooManyFields);
    }
    let is_empty_update = code == UPDATE && ttl.is_none() && fields.is_empty();
    let is_null_put = code == PUT && fields.values().any(Encoded::is_null);
    if ttl == Some(0) || is_empty_update || is_null_put { Err(Fault::Malformed) } else { Ok(()) }
}
