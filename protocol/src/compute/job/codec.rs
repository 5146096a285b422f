//! The bytes of a [`JobSpec`].
//!
//! ```text
//! spec        = [ 1, name, nonce, deadline_s, spot_check_per_mille, [ input, … ], [ task, … ], [ output, … ] ]
//! input       = [ name, hash, size ]                      output = [ name, task ]
//! task        = [ name, action, [ source, … ], each, [ task, … ], limits, retry, redundancy, constraints, on failure, when missing ]
//! action      = [ operation, null | [ hash, size ], { parameter: value, … } ]
//! source      = [ 0, input ] | [ 1, task ]
//! each        = null | [ 0, input, bytes, align ] | [ 1, task, group ]
//! limits      = [ cpu_ms, memory_bytes, output_bytes, wall_ms ]
//! retry       = [ max, backoff_ms, backoff_max_ms, jitter_per_mille ]
//! constraints = [ { label: text, … }, memory_bytes, null | region ]
//! on failure  = [ 0 ] | [ 1 ] | [ 2, action ]               fail, skip, fallback
//! ```
//!
//! The CBOR is that of registry entries: one encoding only, maps sorted by the encodings of their keys.

use std::collections::BTreeMap;

use crate::compute::id::{BlobRef, narrow};
use crate::registry::cbor::{Reader, Writer, key_order};
use crate::registry::value::next_key;
use crate::registry::{Encoded, Fault};

use super::limits::SPEC_BYTES_MAX;
use super::spec::{
    Action, Align, Constraints, Each, InputSpec, JobSpec, Limits, OnFailure, OutputSpec, Params, Retry,
    Source, TaskSpec, WhenMissing,
};

const VERSION: u64 = 1;

impl JobSpec {
    /// The bytes: what is hashed, logged and sent.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.array(8);
        writer.unsigned(VERSION);
        writer.text(&self.name);
        writer.unsigned(self.nonce);
        writer.unsigned(self.deadline_s);
        writer.unsigned(u64::from(self.spot_check_per_mille));
        writer.array(self.inputs.len());
        for input in &self.inputs {
            writer.array(3);
            writer.text(&input.name);
            input.blob.write(&mut writer);
        }
        writer.array(self.tasks.len());
        self.tasks.iter().for_each(|task| write_task(task, &mut writer));
        writer.array(self.outputs.len());
        for output in &self.outputs {
            writer.array(2);
            writer.text(&output.name);
            writer.unsigned(u64::from(output.task));
        }
        writer.bytes
    }

    /// Reads the bytes. Whether what they say makes sense is for [`Plan::new`](super::Plan::new).
    ///
    /// # Errors
    /// If the bytes are not exactly what [`JobSpec::encode`] writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        if bytes.len() > SPEC_BYTES_MAX {
            return Err(Fault::TooLarge);
        }
        let mut reader = Reader::new(bytes);
        let items = reader.array()?;
        if reader.unsigned()? != VERSION {
            return Err(Fault::UnknownVersion);
        }
        if items != 8 {
            return Err(Fault::Malformed);
        }
        let spec = JobSpec {
            name: reader.text()?.to_owned(),
            nonce: reader.unsigned()?,
            deadline_s: reader.unsigned()?,
            spot_check_per_mille: narrow(reader.unsigned()?)?,
            inputs: list(&mut reader, read_input)?,
            tasks: list(&mut reader, read_task)?,
            outputs: list(&mut reader, read_output)?,
        };
        reader.finish()?;
        Ok(spec)
    }
}

/// Items of one sort. Nothing is allocated by what a head claims.
pub(crate) fn list<T>(
    reader: &mut Reader<'_>,
    mut read: impl FnMut(&mut Reader<'_>) -> Result<T, Fault>,
) -> Result<Vec<T>, Fault> {
    let mut items = Vec::new();
    for _ in 0..reader.array()? {
        items.push(read(reader)?);
    }
    Ok(items)
}

fn read_input(reader: &mut Reader<'_>) -> Result<InputSpec, Fault> {
    reader.array_of(3)?;
    Ok(InputSpec { name: reader.text()?.to_owned(), blob: BlobRef::read(reader)? })
}

fn read_output(reader: &mut Reader<'_>) -> Result<OutputSpec, Fault> {
    reader.array_of(2)?;
    Ok(OutputSpec { name: reader.text()?.to_owned(), task: narrow(reader.unsigned()?)? })
}

fn write_task(task: &TaskSpec, writer: &mut Writer) {
    writer.array(11);
    writer.text(&task.name);
    task.action.write(writer);
    writer.array(task.sources.len());
    for source in &task.sources {
        let (code, place) = match *source {
            Source::Input(place) => (0, place),
            Source::Task(place) => (1, place),
        };
        writer.array(2);
        writer.unsigned(code);
        writer.unsigned(u64::from(place));
    }
    match task.each {
        None => writer.null(),
        Some(Each::Chunk { input, bytes, align }) => {
            writer.array(4);
            writer.unsigned(0);
            writer.unsigned(u64::from(input));
            writer.unsigned(bytes);
            align.write(writer);
        }
        Some(Each::Output { task, group }) => {
            writer.array(3);
            writer.unsigned(1);
            writer.unsigned(u64::from(task));
            writer.unsigned(u64::from(group));
        }
    }
    writer.array(task.after.len());
    task.after.iter().for_each(|place| writer.unsigned(u64::from(*place)));
    task.limits.write(writer);
    writer.array(4);
    writer.unsigned(u64::from(task.retry.max));
    writer.unsigned(task.retry.backoff_ms);
    writer.unsigned(task.retry.backoff_max_ms);
    writer.unsigned(u64::from(task.retry.jitter_per_mille));
    writer.unsigned(u64::from(task.redundancy));
    writer.array(3);
    write_texts(&task.constraints.labels, writer);
    writer.unsigned(task.constraints.memory_bytes);
    match &task.constraints.region {
        Some(region) => writer.text(region),
        None => writer.null(),
    }
    match &task.on_failure {
        OnFailure::Fail => {
            writer.array(1);
            writer.unsigned(0);
        }
        OnFailure::Skip => {
            writer.array(1);
            writer.unsigned(1);
        }
        OnFailure::Fallback(action) => {
            writer.array(2);
            writer.unsigned(2);
            action.write(writer);
        }
    }
    writer.unsigned(u64::from(task.when_missing == WhenMissing::Omit));
}

fn read_task(reader: &mut Reader<'_>) -> Result<TaskSpec, Fault> {
    reader.array_of(11)?;
    Ok(TaskSpec {
        name: reader.text()?.to_owned(),
        action: Action::read(reader)?,
        sources: list(reader, read_source)?,
        each: read_each(reader)?,
        after: list(reader, |reader| narrow(reader.unsigned()?))?,
        limits: Limits::read(reader)?,
        retry: read_retry(reader)?,
        redundancy: narrow(reader.unsigned()?)?,
        constraints: read_constraints(reader)?,
        on_failure: match (reader.array()?, reader.unsigned()?) {
            (1, 0) => OnFailure::Fail,
            (1, 1) => OnFailure::Skip,
            (2, 2) => OnFailure::Fallback(Action::read(reader)?),
            _ => return Err(Fault::Malformed),
        },
        when_missing: match reader.unsigned()? {
            0 => WhenMissing::Skip,
            1 => WhenMissing::Omit,
            _ => return Err(Fault::Malformed),
        },
    })
}

fn read_source(reader: &mut Reader<'_>) -> Result<Source, Fault> {
    reader.array_of(2)?;
    match reader.unsigned()? {
        0 => Ok(Source::Input(narrow(reader.unsigned()?)?)),
        1 => Ok(Source::Task(narrow(reader.unsigned()?)?)),
        _ => Err(Fault::Malformed),
    }
}

fn read_each(reader: &mut Reader<'_>) -> Result<Option<Each>, Fault> {
    if reader.null() {
        return Ok(None);
    }
    Ok(Some(match (reader.array()?, reader.unsigned()?) {
        (4, 0) => Each::Chunk {
            input: narrow(reader.unsigned()?)?,
            bytes: reader.unsigned()?,
            align: Align::read(reader)?,
        },
        (3, 1) => Each::Output { task: narrow(reader.unsigned()?)?, group: narrow(reader.unsigned()?)? },
        _ => return Err(Fault::Malformed),
    }))
}

fn read_retry(reader: &mut Reader<'_>) -> Result<Retry, Fault> {
    reader.array_of(4)?;
    Ok(Retry {
        max: narrow(reader.unsigned()?)?,
        backoff_ms: reader.unsigned()?,
        backoff_max_ms: reader.unsigned()?,
        jitter_per_mille: narrow(reader.unsigned()?)?,
    })
}

fn read_constraints(reader: &mut Reader<'_>) -> Result<Constraints, Fault> {
    reader.array_of(3)?;
    Ok(Constraints {
        labels: read_texts(reader)?,
        memory_bytes: reader.unsigned()?,
        region: if reader.null() { None } else { Some(reader.text()?.to_owned()) },
    })
}

impl Limits {
    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.array(4);
        for limit in [self.cpu_ms, self.memory_bytes, self.output_bytes, self.wall_ms] {
            writer.unsigned(limit);
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        reader.array_of(4)?;
        Ok(Limits {
            cpu_ms: reader.unsigned()?,
            memory_bytes: reader.unsigned()?,
            output_bytes: reader.unsigned()?,
            wall_ms: reader.unsigned()?,
        })
    }
}

impl Align {
    pub(crate) fn write(self, writer: &mut Writer) {
        writer.unsigned(match self {
            Align::Byte => 0,
            Align::Line => 1,
            Align::RowGroup => 2,
        });
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        match reader.unsigned()? {
            0 => Ok(Align::Byte),
            1 => Ok(Align::Line),
            2 => Ok(Align::RowGroup),
            _ => Err(Fault::Malformed),
        }
    }
}

impl Action {
    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.array(3);
        writer.text(&self.operation);
        match &self.program {
            Some(program) => {
                writer.array(2);
                program.write(writer);
            }
            None => writer.null(),
        }
        writer.map(self.params.len());
        for (name, value) in sorted(&self.params) {
            writer.text(name);
            writer.raw(value.as_bytes());
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        reader.array_of(3)?;
        let operation = reader.text()?.to_owned();
        let program = if reader.null() {
            None
        } else {
            reader.array_of(2)?;
            Some(BlobRef::read(reader)?)
        };
        let mut params = Params::new();
        let mut last = None;
        for _ in 0..reader.map()? {
            let name = next_key(reader, &mut last)?.to_owned();
            params.insert(name, Encoded::read(reader)?);
        }
        Ok(Action { operation, program, params })
    }
}

/// Pairs in the order of a map's keys.
fn sorted<V>(map: &BTreeMap<String, V>) -> Vec<(&String, &V)> {
    let mut pairs: Vec<_> = map.iter().collect();
    pairs.sort_by(|a, b| key_order(a.0, b.0));
    pairs
}

pub(crate) fn write_texts(texts: &BTreeMap<String, String>, writer: &mut Writer) {
    writer.map(texts.len());
    for (name, text) in sorted(texts) {
        writer.text(name);
        writer.text(text);
    }
}

pub(crate) fn read_texts(reader: &mut Reader<'_>) -> Result<BTreeMap<String, String>, Fault> {
    let mut texts = BTreeMap::new();
    let mut last = None;
    for _ in 0..reader.map()? {
        let name = next_key(reader, &mut last)?.to_owned();
        texts.insert(name, reader.text()?.to_owned());
    }
    Ok(texts)
}
