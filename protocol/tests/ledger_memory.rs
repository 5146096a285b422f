//! What entries about jobs make every node hold, as the operating system counts it: in proportion to their bytes.
//!
//! In a process of its own, so that nothing else is counted.

#![expect(clippy::unwrap_used, reason = "a test: a panic is its report")]

use omnimesh_protocol::compute::job::{Align, Each, InputSpec, JobSpec, Source, TaskSpec};
use omnimesh_protocol::compute::ledger::{CATEGORY, LEASE_JOBS_MAX, Operation, State};
use omnimesh_protocol::compute::{BlobRef, JobId};
use omnimesh_protocol::projection::{EntryRef, Outcome, Projection};
use omnimesh_protocol::{Hash, NodeId, Outbox, Seq, Step};

const JOBS: u64 = 40;
const TASKS: u64 = 262_144;

/// Bytes of memory in use; none where the system does not say.
fn resident() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse::<usize>().ok().map(|kib| kib * 1024)
}

#[derive(Default)]
struct Log {
    state: State,
    seq: u64,
    bytes: usize,
}

impl Log {
    fn write(&mut self, operation: &Operation) {
        self.seq += 1;
        let payload = operation.encode().unwrap();
        self.bytes += payload.len();
        let entry = EntryRef {
            author: NodeId::from_bytes([1; 32]),
            seq: Seq(self.seq),
            step: Step(1),
            hash: Hash::of(&self.seq.to_le_bytes()),
            category: CATEGORY,
            payload: &payload,
        };
        assert_eq!(self.state.apply(&entry, &mut Outbox::new()), Outcome::Applied);
    }
}

/// As many tasks as there can be, in some 300 bytes.
fn spec(nonce: u64) -> JobSpec {
    let mut map = TaskSpec::new("m", "hash");
    map.each = Some(Each::Chunk { input: 0, bytes: 1, align: Align::Byte });
    let mut sum = TaskSpec::new("s", "concat");
    sum.each = Some(Each::Output { task: 0, group: 16_384 });
    let mut total = TaskSpec::new("t", "concat");
    total.sources = vec![Source::Task(1)];
    let blob = BlobRef { size: TASKS - 17, ..BlobRef::of(b"in") };
    JobSpec {
        name: "j".to_owned(),
        nonce,
        deadline_s: 60,
        spot_check_per_mille: 0,
        inputs: vec![InputSpec { name: "i".to_owned(), blob }],
        tasks: vec![map, sum, total],
        outputs: Vec::new(),
    }
}

#[test]
fn short_entries_take_little() {
    let mut log = Log::default();
    let before = resident();
    for nonce in 0..JOBS {
        log.write(&Operation::Submit(spec(nonce).encode()));
    }
    assert!(log.state.jobs().all(|job| u64::from(job.counts().ready) == TASKS - 17));
    let per_byte = |before: Option<usize>, bytes: usize| Some(resident()?.saturating_sub(before?) / bytes);
    // A thousand times as much when each task takes room. What is left of the largest moment counts, too.
    let taken = per_byte(before, log.bytes);
    assert!(taken.is_none_or(|taken| taken < 200), "{taken:?} bytes of memory for each of the log");

    let mut restored = State::new();
    let before = resident();
    restored.restore(&log.state.snapshot()).unwrap();
    let taken = per_byte(before, log.bytes);
    assert!(taken.is_none_or(|taken| taken < 200), "{taken:?} after a start");

    // Jobs that there are not.
    let mut log = Log::default();
    let before = resident();
    for entry in 0..400_u32 {
        let job = |n: usize| {
            let hash = Hash::of(format!("{entry} {n}").as_bytes());
            JobId::from_bytes(*hash.as_bytes())
        };
        let jobs = (0..LEASE_JOBS_MAX).map(job).collect();
        log.write(&Operation::Lease { is_taken: true, steps: 3600, jobs });
    }
    let taken = per_byte(before, log.bytes);
    assert!(taken.is_none_or(|taken| taken < 20), "{taken:?} bytes of memory for each of the log");
}
