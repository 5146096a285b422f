//! Frames between drivers and workers.
//!
//! Between two members there is one long-lived stream in each direction under [`protocol_name`], as for the control
//! stream: an unsigned varint with its length before each frame. Everybody may be driver and worker at once.
//!
//! A frame is one array in canonical CBOR (that of registry entries): its kind, then its fields.
//!
//! | kind | frame | from | fields |
//! |------|---------|--------|-----------------------------------------------------------------------------|
//! | 0 | Offer   | worker | `[ slots, room, active, memory, { label: text }, region or null, [ operation ], [ hash ] ]` |
//! | 1 | Assign  | driver | array of `[ attempt, job, task, chunk, key, action, [ part ], limits ]` |
//! | 2 | Started | worker | array of attempt |
//! | 3 | Results | worker | array of `[ attempt, key, hash, size, cpu_ms, wall_ms ]` · signature: bytes(64) |
//! | 4 | Failed  | worker | array of `[ attempt, reason, text, [ hash ] ]` |
//! | 5 | Cancel  | driver | array of attempt |
//! | 6 | Ask     | driver | array of job |
//! | 7 | Has     | worker | array of key · job |
//! | 8 | Contents | worker | array of bytes, at most 4,096 each: outputs of the results that follow |
//!
//! A part is `[ hash, size, from, to, align ]`, or null. Action and limits are those of a job. A frame of an unknown
//! kind is dropped; every other fault is one of a broken or hostile peer.

use std::sync::Arc;

use bytes::Bytes;

use crate::id::{Hash, MeshId, NodeId};
use crate::registry::Fault;
use crate::registry::cbor::{Reader, Writer};

use super::id::{AttemptId, BlobRef, JobId, TaskKey, TaskRef};
use super::job::{Action, Align, FAN_IN_MAX, INPUTS_MAX, Limits, list};
use super::ledger::{DETAIL_BYTES_MAX, FailReason, Part};
use super::placement::Offer;
use super::statement::{STATEMENTS_MAX, SignedResults, Statement};

/// The longest frame.
pub const FRAME_BYTES_MAX: usize = 2 << 20;
/// Most attempts in one frame.
pub const BATCH_MAX: usize = STATEMENTS_MAX;
/// The longest output that travels with its result. Default: guess; so many of them fit into a frame.
pub const CONTENT_BYTES_MAX: usize = 4096;
/// Most jobs that one frame asks after.
pub const ASK_MAX: usize = 16;
/// Most missing blobs in one failure.
pub const MISSING_MAX: usize = 256;
/// More than a job can have: fan-in and inputs together.
const PARTS_MAX: usize = 16_384 + INPUTS_MAX;
const _: () = assert!(FAN_IN_MAX == 16_384);

/// The name under which the compute streams of this mesh are negotiated.
pub fn protocol_name(mesh: MeshId) -> String {
    format!("/omnimesh/1/{mesh}/compute")
}

/// What a worker is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The driver's number for it.
    pub attempt: AttemptId,
    /// For which job.
    pub job: JobId,
    /// Which task.
    pub task: TaskRef,
    /// The task with its inputs, whoever asks.
    pub key: TaskKey,
    /// What to do.
    pub action: Arc<Action>,
    /// What to read.
    pub parts: Arc<[Part]>,
    /// How much it may take.
    pub limits: Limits,
}

/// What came of an attempt that went well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResultItem {
    /// Which.
    pub attempt: AttemptId,
    /// What it says.
    pub statement: Statement,
    /// CPU time in milliseconds.
    pub cpu_ms: u64,
    /// Duration in milliseconds.
    pub wall_ms: u64,
}

/// What came of an attempt that did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which.
    pub attempt: AttemptId,
    /// Why.
    pub reason: FailReason,
    /// For people.
    pub detail: String,
    /// With [`FailReason::BlobMissing`]: which.
    pub missing: Vec<Hash>,
}

/// One message on a compute stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// What the worker is and has.
    Offer(Offer),
    /// Work.
    Assign(Vec<Assignment>),
    /// These run now.
    Started(Vec<AttemptId>),
    /// These are done. The signature covers what they say.
    Results {
        /// Each attempt and its result.
        items: Vec<ResultItem>,
        /// The worker's.
        signature: [u8; 64],
    },
    /// These have failed.
    Failed(Vec<Failure>),
    /// These need not be done any more.
    Cancel(Vec<AttemptId>),
    /// What has been done of these jobs, or is being done, for whoever drove them before?
    Ask(Vec<JobId>),
    /// Of this job these have been done, or are being done.
    Has {
        /// Which.
        job: JobId,
        /// Tasks with their inputs.
        keys: Vec<TaskKey>,
    },
    /// Outputs of the results that come next: so many small ones need not be fetched one by one. Each names itself, by its
    /// hash.
    Contents(Vec<Bytes>),
}

/// Why bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not exactly as a frame has to be.
    #[error("malformed compute frame: {0}")]
    Malformed(#[from] Fault),
    /// A kind of a later version. Nobody's fault.
    #[error("unknown kind of compute frame: {0}")]
    UnknownKind(u64),
}

impl Frame {
    /// The results and their signature, to be checked; `None` of another frame.
    pub fn signed_results(&self, mesh: MeshId, worker: NodeId) -> Option<SignedResults> {
        let Frame::Results { items, signature } = self else { return None };
        let statements = items.iter().map(|item| item.statement).collect();
        Some(SignedResults { mesh, worker, statements, signature: *signature })
    }

    /// The bytes of the frame, without the length before it.
    pub fn encode(&self) -> Bytes {
        let mut writer = Writer::default();
        let head = |writer: &mut Writer, items: usize, kind: u64, count: usize| {
            writer.array(items);
            writer.unsigned(kind);
            writer.array(count);
        };
        match self {
            Frame::Offer(offer) => {
                writer.array(2);
                writer.unsigned(0);
                offer.write(&mut writer);
            }
            Frame::Assign(assignments) => {
                head(&mut writer, 2, 1, assignments.len());
                assignments.iter().for_each(|assignment| assignment.write(&mut writer));
            }
            Frame::Started(attempts) => {
                head(&mut writer, 2, 2, attempts.len());
                attempts.iter().for_each(|attempt| writer.unsigned(attempt.0));
            }
            Frame::Results { items, signature } => {
                head(&mut writer, 3, 3, items.len());
                for item in items {
                    writer.array(6);
                    writer.unsigned(item.attempt.0);
                    writer.bytes(item.statement.key.as_bytes());
                    item.statement.result.write(&mut writer);
                    writer.unsigned(item.cpu_ms);
                    writer.unsigned(item.wall_ms);
                }
                writer.bytes(signature);
            }
            Frame::Failed(failures) => {
                head(&mut writer, 2, 4, failures.len());
                for failure in failures {
                    writer.array(4);
                    writer.unsigned(failure.attempt.0);
                    writer.unsigned(failure.reason.number());
                    writer.text(&failure.detail);
                    writer.array(failure.missing.len());
                    failure.missing.iter().for_each(|hash| writer.bytes(hash.as_bytes()));
                }
            }
            Frame::Cancel(attempts) => {
                head(&mut writer, 2, 5, attempts.len());
                attempts.iter().for_each(|attempt| writer.unsigned(attempt.0));
            }
            Frame::Ask(jobs) => {
                head(&mut writer, 2, 6, jobs.len());
                jobs.iter().for_each(|job| writer.bytes(job.as_bytes()));
            }
            Frame::Has { job, keys } => {
                head(&mut writer, 3, 7, keys.len());
                keys.iter().for_each(|key| writer.bytes(key.as_bytes()));
                writer.bytes(job.as_bytes());
            }
            Frame::Contents(contents) => {
                head(&mut writer, 2, 8, contents.len());
                contents.iter().for_each(|content| writer.bytes(content));
            }
        }
        writer.bytes.into()
    }

    /// Reads the bytes of one frame.
    ///
    /// # Errors
    /// Says whether the peer is to blame. Memory stays bounded by the bytes given.
    pub fn decode(bytes: &[u8]) -> Result<Frame, DecodeError> {
        if bytes.len() > FRAME_BYTES_MAX {
            return Err(Fault::TooLarge.into());
        }
        let mut reader = Reader::new(bytes);
        let items = reader.array()?;
        let kind = reader.unsigned()?;
        let expected = match kind {
            0..=2 | 4..=6 | 8 => 2,
            3 | 7 => 3,
            _ => return Err(DecodeError::UnknownKind(kind)),
        };
        if items != expected {
            return Err(Fault::Malformed.into());
        }
        let attempt = |reader: &mut Reader<'_>| reader.unsigned().map(AttemptId);
        let frame = match kind {
            0 => Frame::Offer(Offer::read(&mut reader)?),
            1 => Frame::Assign(batch(&mut reader, Assignment::read)?),
            2 => Frame::Started(batch(&mut reader, attempt)?),
            3 => Frame::Results { items: batch(&mut reader, read_item)?, signature: reader.fixed_bytes()? },
            4 => Frame::Failed(batch(&mut reader, read_failure)?),
            5 => Frame::Cancel(batch(&mut reader, attempt)?),
            6 => match batch(&mut reader, JobId::read)? {
                jobs if jobs.len() > ASK_MAX => return Err(Fault::TooManyFields.into()),
                jobs => Frame::Ask(jobs),
            },
            7 => Frame::Has { keys: batch(&mut reader, TaskKey::read)?, job: JobId::read(&mut reader)? },
            _ => Frame::Contents(batch(&mut reader, read_content)?),
        };
        reader.finish()?;
        Ok(frame)
    }
}

fn batch<T>(
    reader: &mut Reader<'_>,
    read: impl FnMut(&mut Reader<'_>) -> Result<T, Fault>,
) -> Result<Vec<T>, Fault> {
    let items = list(reader, read)?;
    if items.is_empty() || items.len() > BATCH_MAX { Err(Fault::Malformed) } else { Ok(items) }
}

fn read_item(reader: &mut Reader<'_>) -> Result<ResultItem, Fault> {
    reader.array_of(6)?;
    Ok(ResultItem {
        attempt: AttemptId(reader.unsigned()?),
        statement: Statement { key: TaskKey::read(reader)?, result: BlobRef::read(reader)? },
        cpu_ms: reader.unsigned()?,
        wall_ms: reader.unsigned()?,
    })
}

fn read_content(reader: &mut Reader<'_>) -> Result<Bytes, Fault> {
    let content = reader.byte_string()?;
    if content.len() > CONTENT_BYTES_MAX { Err(Fault::TooLarge) } else { Ok(Bytes::copy_from_slice(content)) }
}

fn read_failure(reader: &mut Reader<'_>) -> Result<Failure, Fault> {
    reader.array_of(4)?;
    let failure = Failure {
        attempt: AttemptId(reader.unsigned()?),
        reason: FailReason::from_number(reader.unsigned()?),
        detail: reader.text()?.to_owned(),
        missing: list(reader, |reader| Ok(Hash::from_bytes(reader.fixed_bytes()?)))?,
    };
    let is_good = failure.detail.len() <= DETAIL_BYTES_MAX && failure.missing.len() <= MISSING_MAX;
    if is_good { Ok(failure) } else { Err(Fault::TooLarge) }
}

impl Assignment {
    /// About how many bytes it takes in a frame; never less.
    pub fn bytes(&self) -> usize {
        let params = self.action.params.iter().map(|(name, value)| name.len() + value.as_bytes().len() + 8);
        512 + self.parts.len() * 72 + params.sum::<usize>()
    }

    fn write(&self, writer: &mut Writer) {
        writer.array(8);
        writer.unsigned(self.attempt.0);
        writer.bytes(self.job.as_bytes());
        self.task.write(writer);
        writer.bytes(self.key.as_bytes());
        self.action.write(writer);
        writer.array(self.parts.len());
        for part in self.parts.iter() {
            match part {
                Part::Blob { blob, from, to, align } => {
                    writer.array(5);
                    blob.write(writer);
                    writer.unsigned(*from);
                    writer.unsigned(*to);
                    align.write(writer);
                }
                Part::Missing => writer.null(),
            }
        }
        self.limits.write(writer);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        reader.array_of(8)?;
        let assignment = Assignment {
            attempt: AttemptId(reader.unsigned()?),
            job: JobId::read(reader)?,
            task: TaskRef::read(reader)?,
            key: TaskKey::read(reader)?,
            action: Arc::new(Action::read(reader)?),
            parts: list(reader, read_part)?.into(),
            limits: Limits::read(reader)?,
        };
        if assignment.parts.len() > PARTS_MAX { Err(Fault::TooManyFields) } else { Ok(assignment) }
    }
}

fn read_part(reader: &mut Reader<'_>) -> Result<Part, Fault> {
    if reader.null() {
        return Ok(Part::Missing);
    }
    reader.array_of(5)?;
    let blob = BlobRef::read(reader)?;
    let (from, to) = (reader.unsigned()?, reader.unsigned()?);
    let align = Align::read(reader)?;
    if from > to || to > blob.size { Err(Fault::Malformed) } else { Ok(Part::Blob { blob, from, to, align }) }
}
