//! The bytes of a whole ledger.
//!
//! ```text
//! snapshot = body ‖ derive_key("omnimesh 2026-11 ledger snapshot", body)
//! body     = [ 1, floor, [ head, … ], [ cut, … ], [ job, … ] ]
//! head     = [ author, seq, hash ]                cut = [ author, seq, hash ] | [ author, 0, null ]
//! job      = [ id, submission, [ take, … ], [ [ author, until ], … ], [ [ round, stamp ], … ], [ cancel, … ],
//!              [ [ round, stamp ], … ], [ record, … ], [ [ author, seq ], … ] ]
//! submission = null | [ stamp, spec ]             cancel = [ round, stamp, reason, text ]
//! record   = [ stamp, round, commit ]             take = [ first, last ]   stamp, first, last = [ step, author, seq ]
//! ```
//!
//! Every list is sorted by what comes first in its items, takes by their author; records by task, then stamp. There is
//! one encoding only: a reader encodes what it has read once more and compares.

use std::sync::Arc;

use crate::compute::id::{JobId, narrow};
use crate::compute::job::{JobSpec, Plan, Quota, list};
use crate::id::{Hash, NodeId, Seq, Step};
use crate::projection::{Head, SnapshotError, Stamp};
use crate::registry::Fault;
use crate::registry::cbor::{Reader, Writer};

use super::cell::{JobCell, Place, Record, Submission};
use super::operation::{CancelReason, Commit};
use super::state::State;
use super::view::View;

const VERSION: u64 = 1;
const CONTEXT: &str = "omnimesh 2026-11 ledger snapshot";
const CELL_CONTEXT: &str = "omnimesh 2026-11 ledger job";

fn checksum(body: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new_derive_key(CONTEXT).update(body).finalize().as_bytes()
}

/// Equal for jobs of which the same is kept.
pub(super) fn cell_digest(job: &JobId, cell: &JobCell) -> Hash {
    let mut writer = Writer::default();
    write_cell(job, cell, &mut writer);
    Hash::from_bytes(
        *blake3::Hasher::new_derive_key(CELL_CONTEXT).update(&writer.bytes).finalize().as_bytes(),
    )
}

pub(super) fn encode(state: &State) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.array(5);
    writer.unsigned(VERSION);
    writer.unsigned(state.frontier.floor.0);
    writer.array(state.frontier.heads.len());
    state.frontier.heads.iter().for_each(|(author, head)| write_head(author, Some(head), &mut writer));
    writer.array(state.frontier.cuts.len());
    state.frontier.cuts.iter().for_each(|(author, end)| write_head(author, end.as_ref(), &mut writer));
    writer.array(state.jobs.len());
    state.jobs.iter().for_each(|(job, cell)| write_cell(job, cell, &mut writer));
    let checksum = checksum(&writer.bytes);
    writer.bytes.extend_from_slice(&checksum);
    writer.bytes
}

fn write_head(author: &NodeId, head: Option<&Head>, writer: &mut Writer) {
    writer.array(3);
    writer.bytes(author.as_bytes());
    match head {
        Some(head) => {
            writer.unsigned(head.seq.0);
            writer.bytes(head.hash.as_bytes());
        }
        None => {
            writer.unsigned(0);
            writer.null();
        }
    }
}

fn write_stamp(stamp: &Stamp, writer: &mut Writer) {
    writer.array(3);
    writer.unsigned(stamp.step.0);
    writer.bytes(stamp.author.as_bytes());
    writer.unsigned(stamp.seq.0);
}

fn write_cell(job: &JobId, cell: &JobCell, writer: &mut Writer) {
    writer.array(9);
    writer.bytes(job.as_bytes());
    match &cell.submission {
        Some(submission) => {
            writer.array(2);
            write_stamp(&submission.stamp, writer);
            writer.bytes(&submission.spec.encode());
        }
        None => writer.null(),
    }
    writer.array(cell.words.takes().count());
    for [first, last] in cell.words.takes() {
        writer.array(2);
        write_stamp(&first, writer);
        write_stamp(&last, writer);
    }
    let untils = || cell.words.iter().filter_map(|(author, word)| Some((author, word.until?)));
    writer.array(untils().count());
    for (author, until) in untils() {
        writer.array(2);
        writer.bytes(author.as_bytes());
        writer.unsigned(until.0);
    }
    writer.array(cell.rounds.len());
    for (round, stamp) in &cell.rounds {
        writer.array(2);
        writer.unsigned(u64::from(*round));
        write_stamp(stamp, writer);
    }
    writer.array(cell.cancels.len());
    for (round, (stamp, reason, detail)) in &cell.cancels {
        writer.array(4);
        writer.unsigned(u64::from(*round));
        write_stamp(stamp, writer);
        writer.unsigned(reason.number());
        writer.text(detail);
    }
    writer.array(cell.finishes.len());
    for (round, stamp) in &cell.finishes {
        writer.array(2);
        writer.unsigned(u64::from(*round));
        write_stamp(stamp, writer);
    }
    let records = cell.commits.in_order();
    writer.array(records.len());
    for record in records {
        writer.array(3);
        write_stamp(&record.stamp, writer);
        writer.unsigned(u64::from(record.round));
        record.commit.write(writer);
    }
    let versions = || cell.words.iter().filter_map(|(author, word)| Some((author, word.version?)));
    writer.array(versions().count());
    for (author, seq) in versions() {
        writer.array(2);
        writer.bytes(author.as_bytes());
        writer.unsigned(seq.0);
    }
}

pub(super) fn decode(bytes: &[u8]) -> Result<State, SnapshotError> {
    let (body, check) = bytes.split_last_chunk::<32>().ok_or(SnapshotError::Checksum)?;
    if checksum(body) != *check {
        return Err(SnapshotError::Checksum);
    }
    let malformed = |fault: Fault| SnapshotError::Malformed(fault.code());
    let mut reader = Reader::new(body);
    reader.array_of(5).map_err(malformed)?;
    let version = reader.unsigned().map_err(malformed)?;
    if version != VERSION {
        return Err(SnapshotError::UnknownVersion(version));
    }
    let mut state = read_state(&mut reader).map_err(malformed)?;
    reader.finish().map_err(malformed)?;
    state.derive();
    if encode(&state) != bytes {
        return Err(SnapshotError::Malformed(Fault::NotCanonical.code()));
    }
    Ok(state)
}

fn read_state(reader: &mut Reader<'_>) -> Result<State, Fault> {
    let mut state = State::new();
    state.frontier.floor = Step(reader.unsigned()?);
    for (author, head) in list(reader, read_head)? {
        state.frontier.heads.insert(author, head.ok_or(Fault::Malformed)?);
    }
    state.frontier.cuts.extend(list(reader, read_head)?);
    state.jobs.extend(list(reader, read_cell)?);
    Ok(state)
}

fn node(reader: &mut Reader<'_>) -> Result<NodeId, Fault> {
    Ok(NodeId::from_bytes(reader.fixed_bytes()?))
}

fn read_head(reader: &mut Reader<'_>) -> Result<(NodeId, Option<Head>), Fault> {
    reader.array_of(3)?;
    let author = node(reader)?;
    let seq = Seq(reader.unsigned()?);
    if reader.null() {
        return Ok((author, None));
    }
    if seq.0 == 0 {
        return Err(Fault::Malformed);
    }
    Ok((author, Some(Head { seq, hash: Hash::from_bytes(reader.fixed_bytes()?) })))
}

fn read_stamp(reader: &mut Reader<'_>) -> Result<Stamp, Fault> {
    reader.array_of(3)?;
    let step = Step(reader.unsigned()?);
    let author = node(reader)?;
    Ok(Stamp { step, author, seq: Seq(reader.unsigned()?) })
}

fn read_cell(reader: &mut Reader<'_>) -> Result<(JobId, JobCell), Fault> {
    reader.array_of(9)?;
    let job = JobId::read(reader)?;
    let mut cell = JobCell::default();
    if !reader.null() {
        reader.array_of(2)?;
        let stamp = read_stamp(reader)?;
        let bytes = reader.byte_string()?;
        if JobId::of(&stamp.author, bytes) != job {
            return Err(Fault::Malformed);
        }
        let spec = JobSpec::decode(bytes)?;
        let plan = Plan::new(&spec, &Quota::MOST).map_err(|_| Fault::Malformed)?;
        let view = View::new(&plan);
        cell.submission =
            Some(Box::new(Submission { stamp, spec: Arc::new(spec), plan: Arc::new(plan), view }));
    }
    for [first, last] in list(reader, |reader| {
        reader.array_of(2)?;
        Ok([read_stamp(reader)?, read_stamp(reader)?])
    })? {
        if first.author != last.author {
            return Err(Fault::Malformed);
        }
        cell.words.of(first.author).takes = Some([first, last].map(|stamp| Place::of(&stamp)));
    }
    for (author, until) in list(reader, |reader| {
        reader.array_of(2)?;
        Ok((node(reader)?, Step(reader.unsigned()?)))
    })? {
        cell.words.of(author).until = Some(until);
    }
    cell.rounds.extend(list(reader, read_round)?);
    cell.cancels.extend(list(reader, |reader| {
        reader.array_of(4)?;
        let round = narrow(reader.unsigned()?)?;
        let stamp = read_stamp(reader)?;
        let reason = CancelReason::from_number(reader.unsigned()?);
        Ok((round, (stamp, reason, reader.text()?.to_owned())))
    })?);
    cell.finishes.extend(list(reader, read_round)?);
    // Those of one entry are in the reverse of their order there. More than are kept, or of no task of the job, are not
    // what is written in the end.
    for (at, record) in list(reader, read_record)?.into_iter().rev().enumerate() {
        if cell.has(record.commit.task) {
            cell.commits.insert(at, record);
        }
    }
    for (author, seq) in list(reader, |reader| {
        reader.array_of(2)?;
        Ok((node(reader)?, Seq(reader.unsigned()?)))
    })? {
        cell.words.of(author).version = Some(seq);
    }
    Ok((job, cell))
}

fn read_round(reader: &mut Reader<'_>) -> Result<(u32, Stamp), Fault> {
    reader.array_of(2)?;
    Ok((narrow(reader.unsigned()?)?, read_stamp(reader)?))
}

fn read_record(reader: &mut Reader<'_>) -> Result<Record, Fault> {
    reader.array_of(3)?;
    let stamp = read_stamp(reader)?;
    Ok(Record { stamp, round: narrow(reader.unsigned()?)?, commit: Commit::read(reader)? })
}
