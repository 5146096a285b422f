//! What the payload of an entry of category `job` says, and its bytes.
//!
//! ```text
//! operation = [ 1, 0, spec ]                                              submit
//!           | [ 1, 1, is taken: bool, steps, [ job, … ] ]                 lease: taken, or renewed
//!           | [ 1, 2, job, round, [ commit, … ] ]                         commit
//!           | [ 1, 3, job, round, reason, text ]                          cancel
//!           | [ 1, 4, job, round ]                                        retry: the round that begins
//!           | [ 1, 5, job, round ]                                        finish: the driver has nothing left to do
//! commit    = [ task, chunk, stage, inputs, outcome, [ worker, … ], [ dissenter, … ], cpu_ms, wall_ms ]
//! outcome   = [ 0, hash, size ] | [ 1, reason, text ]
//! ```

use smallvec::SmallVec;

use crate::compute::id::{BlobRef, JobId, TaskRef, narrow};
use crate::compute::job::{SPEC_BYTES_MAX, list};
use crate::id::{Hash, NodeId};
use crate::registry::Fault;
use crate::registry::cbor::{Reader, Writer};

const VERSION: u64 = 1;
/// Most bytes of an operation; fits an envelope of the default size.
pub const OPERATION_BYTES_MAX: usize = 49_152;
/// Most jobs in one lease.
pub const LEASE_JOBS_MAX: usize = 256;
/// Longest lease in steps. Default: guess; a driver that dies silently holds its jobs up for so long at most.
pub const LEASE_STEPS_MAX: u64 = 3600;
/// Most commits in one operation: with seven workers each they fit.
pub const COMMITS_MAX: usize = 64;
/// Longest text about a failure.
pub const DETAIL_BYTES_MAX: usize = 200;
/// Most workers named in a commit. See `job::REDUNDANCY_MAX`.
pub const WORKERS_MAX: usize = 16;

/// Cuts a text about a failure to what fits, between two characters.
pub(crate) fn cut_detail(detail: &mut String) {
    let mut end = detail.len().min(DETAIL_BYTES_MAX);
    while !detail.is_char_boundary(end) {
        end -= 1;
    }
    detail.truncate(end);
}

/// What an entry of the ledger says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// There is a job: these are the bytes of its spec.
    Submit(Vec<u8>),
    /// The author drives these jobs for so many steps from here on.
    Lease {
        /// True if it had not before: it is the driver from now on. False if it still is.
        is_taken: bool,
        /// For how long, from the entry's own step on; at most [`LEASE_STEPS_MAX`].
        steps: u64,
        /// Which jobs.
        jobs: Vec<JobId>,
    },
    /// These tasks have ended.
    Commit {
        /// Of which job.
        job: JobId,
        /// In which round.
        round: u32,
        /// Which, and how.
        commits: Vec<Commit>,
    },
    /// The job is not to go on.
    Cancel {
        /// Which.
        job: JobId,
        /// In which round.
        round: u32,
        /// Why.
        reason: CancelReason,
        /// For people.
        detail: String,
    },
    /// What has failed, was skipped or cancelled is to be done again.
    Retry {
        /// Which job.
        job: JobId,
        /// The round that begins: one more than the last.
        round: u32,
    },
    /// The driver has seen the end of the job.
    Finish {
        /// Which.
        job: JobId,
        /// In which round.
        round: u32,
    },
}

/// How a task has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Which.
    pub task: TaskRef,
    /// 0, or 1 if its fallback was done.
    pub stage: u8,
    /// The digest of what it has read: a commit counts only while its inputs are what the ledger says.
    pub inputs: Hash,
    /// How it has ended.
    pub outcome: Outcome,
    /// The workers whose result it is; they hold the output.
    pub workers: SmallVec<[NodeId; 1]>,
    /// Workers that have signed another result; not asked again for this job.
    pub dissenters: SmallVec<[NodeId; 1]>,
    /// CPU time of the attempt that counts, in milliseconds.
    pub cpu_ms: u64,
    /// How long that attempt took, in milliseconds.
    pub wall_ms: u64,
}

/// How a task has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With this output.
    Succeeded(BlobRef),
    /// For good without one.
    Failed {
        /// Why.
        reason: FailReason,
        /// For people; at most [`DETAIL_BYTES_MAX`] bytes.
        detail: String,
    },
}

macro_rules! reasons {
    ($(#[$top:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $number:literal, $code:literal;)* }) => {
        $(#[$top])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$doc])* $variant,)*
            /// One of a later version.
            Other(u64),
        }

        impl $name {
            /// The stable name.
            pub const fn code(self) -> &'static str {
                match self { $($name::$variant => $code,)* $name::Other(_) => "other" }
            }

            /// The number on the wire.
            pub const fn number(self) -> u64 {
                match self { $($name::$variant => $number,)* $name::Other(number) => number }
            }

            /// The reason with this number.
            pub const fn from_number(number: u64) -> Self {
                match number { $($number => $name::$variant,)* number => $name::Other(number) }
            }
        }
    };
}

reasons! {
    /// Why an attempt, or at last a task, has failed.
    FailReason {
        /// The program says so, or has trapped.
        Program = 0, "program";
        /// More CPU time than its limit.
        CpuLimit = 1, "cpu_limit";
        /// More memory than its limit.
        MemoryLimit = 2, "memory_limit";
        /// A longer output than its limit.
        OutputLimit = 3, "output_limit";
        /// It took longer than its limit.
        WallLimit = 4, "wall_limit";
        /// The program is none, or has parts that are not allowed.
        BadProgram = 5, "bad_program";
        /// The inputs are not what the operation reads.
        BadInput = 6, "bad_input";
        /// The operation or a parameter means nothing to the worker.
        Unsupported = 7, "unsupported";
        /// No majority of workers has the same result.
        NoMajority = 8, "no_majority";
        /// An input cannot be fetched from anybody.
        BlobMissing = 9, "blob_missing";
        /// The worker was lost so often that it is no accident.
        WorkersLost = 10, "workers_lost";
        /// The worker has no room for it.
        Busy = 11, "busy";
        /// The worker cannot do anything at the moment: shutting down, disk full.
        Unavailable = 12, "unavailable";
        /// A key that the task names is not at the worker.
        KeyMissing = 13, "key_missing";
    }
}

impl FailReason {
    /// True if another worker, or the same one later, may do better: it is no word on the task.
    pub const fn is_of_the_worker(self) -> bool {
        matches!(
            self,
            FailReason::Busy
                | FailReason::Unavailable
                | FailReason::BlobMissing
                | FailReason::WorkersLost
                | FailReason::KeyMissing
        )
    }
}

reasons! {
    /// Why a job was cancelled.
    CancelReason {
        /// Somebody wanted it.
        Requested = 0, "requested";
        /// It has not ended before its deadline.
        Deadline = 1, "deadline";
        /// It has taken more than its quota.
        Quota = 2, "quota";
    }
}

impl Operation {
    /// The bytes of a payload.
    ///
    /// # Errors
    /// [`Fault::TooLarge`], or [`Fault::Malformed`] for lists that are empty or too long and texts that are too long.
    pub fn encode(&self) -> Result<Vec<u8>, Fault> {
        let mut writer = Writer::default();
        let head = |writer: &mut Writer, items: usize, code: u64| {
            writer.array(items);
            writer.unsigned(VERSION);
            writer.unsigned(code);
        };
        let job_round = |writer: &mut Writer, job: &JobId, round: u32| {
            writer.bytes(job.as_bytes());
            writer.unsigned(u64::from(round));
        };
        match self {
            Operation::Submit(spec) => {
                head(&mut writer, 3, 0);
                writer.bytes(spec);
                check(spec.len() <= SPEC_BYTES_MAX)?;
            }
            Operation::Lease { is_taken, steps, jobs } => {
                head(&mut writer, 5, 1);
                writer.bool(*is_taken);
                writer.unsigned(*steps);
                writer.array(jobs.len());
                jobs.iter().for_each(|job| writer.bytes(job.as_bytes()));
                check((1..=LEASE_JOBS_MAX).contains(&jobs.len()) && *steps <= LEASE_STEPS_MAX)?;
            }
            Operation::Commit { job, round, commits } => {
                head(&mut writer, 5, 2);
                job_round(&mut writer, job, *round);
                writer.array(commits.len());
                commits.iter().for_each(|commit| commit.write(&mut writer));
                check((1..=COMMITS_MAX).contains(&commits.len()))?;
                commits.iter().try_for_each(Commit::check)?;
            }
            Operation::Cancel { job, round, reason, detail } => {
                head(&mut writer, 6, 3);
                job_round(&mut writer, job, *round);
                writer.unsigned(reason.number());
                writer.text(detail);
                check(detail.len() <= DETAIL_BYTES_MAX)?;
            }
            Operation::Retry { job, round } => {
                head(&mut writer, 4, 4);
                job_round(&mut writer, job, *round);
            }
            Operation::Finish { job, round } => {
                head(&mut writer, 4, 5);
                job_round(&mut writer, job, *round);
            }
        }
        if writer.bytes.len() > OPERATION_BYTES_MAX { Err(Fault::TooLarge) } else { Ok(writer.bytes) }
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// The first fault; every node finds the same.
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
            0 => 3,
            1 | 2 => 5,
            3 => 6,
            4 | 5 => 4,
            _ => return Err(Fault::UnknownOperation),
        };
        check(items == expected)?;
        let operation = read(code, &mut reader)?;
        reader.finish()?;
        Ok(operation)
    }
}

fn read(code: u64, reader: &mut Reader<'_>) -> Result<Operation, Fault> {
    Ok(match code {
        0 => {
            let spec = reader.byte_string()?;
            if spec.len() > SPEC_BYTES_MAX {
                return Err(Fault::TooLarge);
            }
            Operation::Submit(spec.to_vec())
        }
        1 => {
            let (is_taken, steps) = (reader.bool()?, reader.unsigned()?);
            let jobs = list(reader, JobId::read)?;
            check((1..=LEASE_JOBS_MAX).contains(&jobs.len()) && steps <= LEASE_STEPS_MAX)?;
            Operation::Lease { is_taken, steps, jobs }
        }
        2 => {
            let (job, round) = job_round(reader)?;
            let commits = list(reader, Commit::read)?;
            check((1..=COMMITS_MAX).contains(&commits.len()))?;
            Operation::Commit { job, round, commits }
        }
        3 => {
            let (job, round) = job_round(reader)?;
            let reason = CancelReason::from_number(reader.unsigned()?);
            let detail = reader.text()?.to_owned();
            check(detail.len() <= DETAIL_BYTES_MAX)?;
            Operation::Cancel { job, round, reason, detail }
        }
        4 => {
            let (job, round) = job_round(reader)?;
            Operation::Retry { job, round }
        }
        _ => {
            let (job, round) = job_round(reader)?;
            Operation::Finish { job, round }
        }
    })
}

fn job_round(reader: &mut Reader<'_>) -> Result<(JobId, u32), Fault> {
    let job = JobId::read(reader)?;
    Ok((job, narrow(reader.unsigned()?)?))
}

fn check(is_good: bool) -> Result<(), Fault> {
    if is_good { Ok(()) } else { Err(Fault::Malformed) }
}

impl Commit {
    fn check(&self) -> Result<(), Fault> {
        let detail = match &self.outcome {
            Outcome::Succeeded(_) => 0,
            Outcome::Failed { detail, .. } => detail.len(),
        };
        check(
            self.stage <= 1
                && detail <= DETAIL_BYTES_MAX
                && self.workers.len() <= WORKERS_MAX
                && self.dissenters.len() <= WORKERS_MAX,
        )
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.array(9);
        self.task.write(writer);
        writer.unsigned(u64::from(self.stage));
        writer.bytes(self.inputs.as_bytes());
        match &self.outcome {
            Outcome::Succeeded(blob) => {
                writer.array(3);
                writer.unsigned(0);
                blob.write(writer);
            }
            Outcome::Failed { reason, detail } => {
                writer.array(3);
                writer.unsigned(1);
                writer.unsigned(reason.number());
                writer.text(detail);
            }
        }
        for nodes in [&self.workers, &self.dissenters] {
            writer.array(nodes.len());
            nodes.iter().for_each(|node| writer.bytes(node.as_bytes()));
        }
        writer.unsigned(self.cpu_ms);
        writer.unsigned(self.wall_ms);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        reader.array_of(9)?;
        let nodes = |reader: &mut Reader<'_>| -> Result<SmallVec<[NodeId; 1]>, Fault> {
            Ok(list(reader, |reader| Ok(NodeId::from_bytes(reader.fixed_bytes()?)))?.into())
        };
        let commit = Commit {
            task: TaskRef::read(reader)?,
            stage: narrow(reader.unsigned()?)?,
            inputs: Hash::from_bytes(reader.fixed_bytes()?),
            outcome: {
                reader.array_of(3)?;
                match reader.unsigned()? {
                    0 => Outcome::Succeeded(BlobRef::read(reader)?),
                    1 => Outcome::Failed {
                        reason: FailReason::from_number(reader.unsigned()?),
                        detail: reader.text()?.to_owned(),
                    },
                    _ => return Err(Fault::Malformed),
                }
            },
            workers: nodes(reader)?,
            dissenters: nodes(reader)?,
            cpu_ms: reader.unsigned()?,
            wall_ms: reader.unsigned()?,
        };
        commit.check()?;
        Ok(commit)
    }
}
