//! Frames about blobs.
//!
//! Between two members there is one long-lived stream in each direction under [`protocol_name`], as for the control
//! stream: an unsigned varint with its length before each frame. A frame is one array in canonical CBOR: its kind, then its
//! fields.
//!
//! | kind | frame | fields |
//! |------|------------|---------------------------------------------------------------------------|
//! | 0 | Want       | id: uint · array of hash: who has these? |
//! | 1 | Have       | id: uint · array of `[ hash, size, groups: null or bytes ]`: null is all |
//! | 2 | AskOutline | id: uint · hash |
//! | 3 | Outline    | id: uint · size: uint · values: bytes, 32 for each group |
//! | 4 | Get        | id: uint · hash · group: uint |
//! | 5 | Group      | id: uint · bytes |
//! | 6 | Decline    | id: uint · reason: uint (0 not here, 1 busy) |
//!
//! Each request has one answer with its id. A frame of an unknown kind is dropped; every other fault is one of a broken
//! or hostile peer.

use bytes::Bytes;

use crate::compute::job::list;
use crate::id::{Hash, MeshId};
use crate::registry::Fault;
use crate::registry::cbor::{Reader, Writer};

use super::{GROUP_BYTES, Groups, groups_of};

/// Most blobs in one question. Default: guess.
pub const WANT_MAX: usize = 1024;
/// Longest outline: that of a blob of 1 TiB.
pub const OUTLINE_BYTES_MAX: usize = 32 << 20;
/// The longest frame.
pub const FRAME_BYTES_MAX: usize = OUTLINE_BYTES_MAX + 64;

/// The name under which the blob streams of this mesh are negotiated.
pub fn protocol_name(mesh: MeshId) -> String {
    format!("/omnimesh/1/{mesh}/blob")
}

/// What a peer has of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Which.
    pub hash: Hash,
    /// Its length, as the peer believes.
    pub size: u64,
    /// Which parts.
    pub groups: Groups,
}

/// One message on a blob stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Who has these?
    Want {
        /// Comes back in the answer.
        id: u64,
        /// Which.
        hashes: Vec<Hash>,
    },
    /// Answers `Want`: what the sender has of it.
    Have {
        /// That of the request.
        id: u64,
        /// What is there; what is not is left out.
        held: Vec<Held>,
    },
    /// Asks for the outline of a blob.
    AskOutline {
        /// Comes back in the answer.
        id: u64,
        /// Whose.
        hash: Hash,
    },
    /// Answers `AskOutline`.
    Outline {
        /// That of the request.
        id: u64,
        /// The length of the blob.
        size: u64,
        /// The chaining values one after another.
        values: Bytes,
    },
    /// Asks for one group.
    Get {
        /// Comes back in the answer.
        id: u64,
        /// Of which blob.
        hash: Hash,
        /// Which.
        group: u64,
    },
    /// Answers `Get`.
    Group {
        /// That of the request.
        id: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// Answers any request with nothing.
    Decline {
        /// That of the request.
        id: u64,
        /// True if the sender has too much to do, false if it has not what was asked for.
        is_busy: bool,
    },
}

/// Why bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not exactly as a frame has to be.
    #[error("malformed blob frame: {0}")]
    Malformed(#[from] Fault),
    /// A kind of a later version. Nobody's fault.
    #[error("unknown kind of blob frame: {0}")]
    UnknownKind(u64),
}

impl Frame {
    /// The bytes of the frame, without the length before it.
    pub fn encode(&self) -> Bytes {
        let mut writer = Writer::default();
        let head = |writer: &mut Writer, items: usize, kind: u64, id: u64| {
            writer.array(items);
            writer.unsigned(kind);
            writer.unsigned(id);
        };
        match self {
            Frame::Want { id, hashes } => {
                head(&mut writer, 3, 0, *id);
                writer.array(hashes.len());
                hashes.iter().for_each(|hash| writer.bytes(hash.as_bytes()));
            }
            Frame::Have { id, held } => {
                head(&mut writer, 3, 1, *id);
                writer.array(held.len());
                for held in held {
                    writer.array(3);
                    writer.bytes(held.hash.as_bytes());
                    writer.unsigned(held.size);
                    match &held.groups {
                        Groups::All => writer.null(),
                        Groups::Some(bits) => writer.bytes(bits),
                    }
                }
            }
            Frame::AskOutline { id, hash } => {
                head(&mut writer, 3, 2, *id);
                writer.bytes(hash.as_bytes());
            }
            Frame::Outline { id, size, values } => {
                head(&mut writer, 4, 3, *id);
                writer.unsigned(*size);
                writer.bytes(values);
            }
            Frame::Get { id, hash, group } => {
                head(&mut writer, 4, 4, *id);
                writer.bytes(hash.as_bytes());
                writer.unsigned(*group);
            }
            Frame::Group { id, bytes } => {
                writer.bytes.reserve(bytes.len() + 32);
                head(&mut writer, 3, 5, *id);
                writer.bytes(bytes);
            }
            Frame::Decline { id, is_busy } => {
                head(&mut writer, 3, 6, *id);
                writer.unsigned(u64::from(*is_busy));
            }
        }
        writer.bytes.into()
    }

    /// Reads the bytes of one frame. Outlines and groups are slices of them.
    ///
    /// # Errors
    /// Says whether the peer is to blame. Memory stays bounded by the bytes given.
    pub fn decode(bytes: &Bytes) -> Result<Frame, DecodeError> {
        if bytes.len() > FRAME_BYTES_MAX {
            return Err(Fault::TooLarge.into());
        }
        let mut reader = Reader::new(bytes);
        let items = reader.array()?;
        let kind = reader.unsigned()?;
        let expected = match kind {
            0..=2 | 5 | 6 => 3,
            3 | 4 => 4,
            _ => return Err(DecodeError::UnknownKind(kind)),
        };
        if items != expected {
            return Err(Fault::Malformed.into());
        }
        let id = reader.unsigned()?;
        let hash = |reader: &mut Reader<'_>| Ok(Hash::from_bytes(reader.fixed_bytes()?));
        let frame = match kind {
            0 => Frame::Want { id, hashes: bounded(list(&mut reader, hash)?)? },
            1 => Frame::Have { id, held: bounded(list(&mut reader, read_held)?)? },
            2 => Frame::AskOutline { id, hash: hash(&mut reader)? },
            3 => {
                let size = reader.unsigned()?;
                Frame::Outline { id, size, values: bytes.slice_ref(reader.byte_string()?) }
            }
            4 => Frame::Get { id, hash: hash(&mut reader)?, group: reader.unsigned()? },
            5 => {
                let group = bytes.slice_ref(reader.byte_string()?);
                if group.len() as u64 > GROUP_BYTES {
                    return Err(Fault::TooLarge.into());
                }
                Frame::Group { id, bytes: group }
            }
            _ => Frame::Decline { id, is_busy: reader.unsigned()? == 1 },
        };
        reader.finish()?;
        Ok(frame)
    }
}

fn bounded<T>(items: Vec<T>) -> Result<Vec<T>, Fault> {
    if items.len() > WANT_MAX { Err(Fault::TooManyFields) } else { Ok(items) }
}

fn read_held(reader: &mut Reader<'_>) -> Result<Held, Fault> {
    reader.array_of(3)?;
    let hash = Hash::from_bytes(reader.fixed_bytes()?);
    let size = reader.unsigned()?;
    if reader.null() {
        return Ok(Held { hash, size, groups: Groups::All });
    }
    let bits = reader.byte_string()?;
    if bits.len() as u64 != groups_of(size).div_ceil(8) {
        return Err(Fault::Malformed);
    }
    Ok(Held { hash, size, groups: Groups::Some(bits.to_vec()) })
}
