//! The rules of a worker, one by one.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use omnimesh_protocol::compute::job::{Action, Align, Limits, Params};
use omnimesh_protocol::compute::ledger::{FailReason, Part};
use omnimesh_protocol::compute::wire::{Assignment, Frame};
use omnimesh_protocol::compute::worker::{Config, Done, Input, Output, RunId, State};
use omnimesh_protocol::compute::{AttemptId, BlobRef, JobId, TaskKey, TaskRef};
use omnimesh_protocol::{Hash, Identity, NodeId, Outbox, Time};
use rand_core::SeedableRng;

use crate::mesh::MESH;

struct Bench {
    now: Time,
    state: State,
    rng: rand_chacha::ChaCha8Rng,
}

const A: NodeId = NodeId::from_bytes([1; 32]);
const B: NodeId = NodeId::from_bytes([2; 32]);

impl Bench {
    fn new(config: Config) -> Self {
        let identity = Identity::from_seed(&[9; 32]);
        let state = State::new(config, identity, MESH, Time::ZERO, &mut Outbox::new());
        let mut bench = Bench { now: Time::ZERO, state, rng: rand_chacha::ChaCha8Rng::seed_from_u64(0) };
        bench.give(Input::Connected(A));
        bench.give(Input::Connected(B));
        bench
    }

    /// What comes of an input, and of the flush after it.
    fn give(&mut self, input: Input) -> Vec<Output> {
        let mut out = Outbox::new();
        self.state.handle(self.now, input, &mut self.rng, &mut out);
        self.state.check_invariants();
        self.state.handle(self.now, Input::Flush, &mut self.rng, &mut out);
        assert!(!self.state.wants_flush());
        out.drain().collect()
    }

    fn assign(&mut self, from: NodeId, attempt: u64, key: u8) -> Vec<Output> {
        self.give(Input::Assign { from, assignments: vec![assignment(attempt, key)] })
    }
}

fn assignment(attempt: u64, key: u8) -> Assignment {
    Assignment {
        attempt: AttemptId(attempt),
        job: JobId::from_bytes([7; 32]),
        task: TaskRef::new(0, u32::from(key)),
        key: TaskKey::from_bytes([key; 32]),
        action: Arc::new(Action { operation: "hash".to_owned(), program: None, params: Params::new() }),
        parts: [].into(),
        limits: Limits { memory_bytes: 100, ..Limits::default() },
    }
}

fn runs(outputs: &[Output]) -> Vec<RunId> {
    let run = |output: &Output| if let Output::Run { run, .. } = output { Some(*run) } else { None };
    outputs.iter().filter_map(run).collect()
}

fn results(outputs: &[Output]) -> Vec<(NodeId, u64)> {
    let mut found = Vec::new();
    for output in outputs {
        if let Output::Send { to, frame } = output
            && let Some(signed) = frame.signed_results(MESH, Identity::from_seed(&[9; 32]).id())
        {
            assert!(signed.verify().is_some());
            let Frame::Results { items, .. } = frame else { unreachable!() };
            found.extend(items.iter().map(|item| (*to, item.attempt.0)));
        }
    }
    found
}

fn failures(outputs: &[Output]) -> Vec<(NodeId, u64, FailReason)> {
    let mut found = Vec::new();
    for output in outputs {
        if let Output::Send { to, frame: Frame::Failed(failures) } = output {
            found.extend(failures.iter().map(|failure| (*to, failure.attempt.0, failure.reason)));
        }
    }
    found
}

fn done() -> Done {
    Done::Output { result: BlobRef::of(b"r"), cpu_ms: 1, wall_ms: 1 }
}

#[test]
fn the_same_work_is_done_once_for_all_who_ask() {
    let mut bench = Bench::new(Config::default());
    let run = runs(&bench.assign(A, 1, 5))[0];
    assert!(runs(&bench.assign(B, 8, 5)).is_empty());
    assert_eq!(results(&bench.give(Input::Done { run, done: done() })), [(A, 1), (B, 8)]);
    // Later it is answered from memory, and a second answer of the run does nothing.
    assert_eq!(results(&bench.assign(B, 9, 5)), [(B, 9)]);
    assert!(bench.give(Input::Done { run, done: done() }).is_empty());
    assert_eq!(bench.state.stats().runs, 1);
}

#[test]
fn a_driver_has_one_attempt_at_a_task() {
    let mut bench = Bench::new(Config { slots: 1, ..Config::default() });
    let run = runs(&bench.assign(A, 1, 5))[0];
    // The earlier attempt is answered, too, so that nobody waits for it.
    for attempt in 2..100 {
        let outputs = bench.assign(A, attempt, 5);
        assert_eq!(failures(&outputs), [(A, attempt - 1, FailReason::Busy)]);
    }
    assert!(failures(&bench.assign(A, 99, 5)).is_empty(), "a repeated frame asks for nothing new");
    bench.assign(B, 1, 5);
    assert_eq!(results(&bench.give(Input::Done { run, done: done() })), [(A, 99), (B, 1)]);
}

#[test]
fn who_asks_for_a_job_is_told_of_the_newest_results() {
    let results_max = NonZeroUsize::new(4).unwrap();
    let mut bench = Bench::new(Config { slots: 1, results_max, ..Config::default() });
    for key in 1..=6 {
        let mut asked = assignment(u64::from(key), key);
        asked.job = JobId::from_bytes([key % 2; 32]);
        let run = runs(&bench.give(Input::Assign { from: A, assignments: vec![asked] }))[0];
        bench.give(Input::Done { run, done: done() });
    }
    let mut told = |job| -> Vec<TaskKey> {
        let outputs = bench.give(Input::Ask { from: B, jobs: vec![JobId::from_bytes([job; 32])] });
        let keys = |output: &Output| match output {
            Output::Send { frame: Frame::Has { keys, .. }, .. } => keys.clone(),
            _ => Vec::new(),
        };
        outputs.iter().flat_map(keys).collect()
    };
    assert_eq!(
        [told(0), told(1)],
        [[6, 4], [5, 3]].map(|keys| keys.map(|key| TaskKey::from_bytes([key; 32])).to_vec())
    );
}

#[test]
fn failures_are_not_remembered() {
    let mut bench = Bench::new(Config::default());
    let run = runs(&bench.assign(A, 1, 5))[0];
    let failed = Done::Failed { reason: FailReason::Program, detail: "é".repeat(500), missing: Vec::new() };
    assert_eq!(failures(&bench.give(Input::Done { run, done: failed })), [(A, 1, FailReason::Program)]);
    assert_eq!(runs(&bench.assign(A, 2, 5)).len(), 1);
}

#[test]
fn only_so_much_waits_as_can_begin_soon() {
    let mut bench = Bench::new(Config { slots: 2, ahead: Duration::from_millis(500), ..Config::default() });
    let taken = |bench: &mut Bench, keys: std::ops::Range<u8>| {
        let refused = |key: u8| failures(&bench.assign(A, u64::from(key), key)).len();
        let count = keys.len();
        count - keys.map(refused).sum::<usize>()
    };
    assert_eq!(
        taken(&mut bench, 0..20),
        4,
        "one for each slot waits as long as nobody knows how long they take"
    );
    // Runs are numbered as they come.
    let mut next = 0;
    let mut finish = |bench: &mut Bench, after: Duration| {
        bench.now = bench.now + after;
        while bench.state.active() > 0 {
            bench.give(Input::Done { run: RunId(next), done: done() });
            next += 1;
        }
    };
    finish(&mut bench, Duration::from_secs(4));
    assert_eq!(taken(&mut bench, 20..40), 4, "they take long");
    for round in 0..60 {
        finish(&mut bench, Duration::from_millis(10));
        taken(&mut bench, 40 + 2 * round..42 + 2 * round);
        bench.state.check_invariants();
    }
    finish(&mut bench, Duration::from_millis(10));
    assert!(taken(&mut bench, 160..255) > 50, "they are short by now");
}

#[test]
fn slots_queue_and_memory_are_bounds() {
    let config = Config { slots: 2, queue_max: 1, memory_bytes: 250, ..Config::default() };
    let mut bench = Bench::new(config);
    let first = runs(&bench.assign(A, 1, 1))[0];
    assert_eq!(runs(&bench.assign(A, 2, 2)).len(), 1);
    assert!(runs(&bench.assign(A, 3, 3)).is_empty(), "it waits for a slot");
    assert_eq!(failures(&bench.assign(A, 4, 4)), [(A, 4, FailReason::Busy)]);
    let outputs = bench.give(Input::Done { run: first, done: done() });
    assert_eq!(runs(&outputs).len(), 1);
    // Who was refused hears that there is room.
    let offers =
        outputs.iter().filter(|output| matches!(output, Output::Send { to: A, frame: Frame::Offer(_) }));
    assert_eq!(offers.count(), 1);
    // More memory than there is at all is refused; more than there is now waits.
    let mut large = assignment(5, 5);
    large.limits.memory_bytes = 251;
    let outputs = bench.give(Input::Assign { from: A, assignments: vec![large.clone()] });
    assert_eq!(failures(&outputs), [(A, 5, FailReason::Unavailable)]);
    let mut bench = Bench::new(Config { slots: 4, memory_bytes: 250, ..Config::default() });
    for key in 0..3 {
        bench.assign(A, u64::from(key), key);
    }
    assert_eq!(bench.state.stats().runs, 2);
}

#[test]
fn of_many_who_were_refused_one_is_asked_for_each_place() {
    let config = Config { slots: 1, queue_max: 1, ..Config::default() };
    let mut bench = Bench::new(config);
    let drivers: Vec<NodeId> = (10..14).map(|n| NodeId::from_bytes([n; 32])).collect();
    let first = runs(&bench.assign(A, 1, 1))[0];
    bench.assign(A, 2, 2);
    for (driver, key) in drivers.iter().zip(10..) {
        bench.give(Input::Connected(*driver));
        assert_eq!(failures(&bench.assign(*driver, 9, key)).len(), 1);
    }
    let offered = |outputs: &[Output]| -> Vec<NodeId> {
        let to = |output: &Output| match output {
            Output::Send { to, frame: Frame::Offer(_) } => Some(*to),
            _ => None,
        };
        outputs.iter().filter_map(to).collect()
    };
    // Who has waited longest.
    let outputs = bench.give(Input::Done { run: first, done: done() });
    assert_eq!(offered(&outputs), drivers[..1]);
    // Nothing is left to do: whoever comes first may have it.
    let second = runs(&outputs)[0];
    let outputs = bench.give(Input::Done { run: second, done: done() });
    assert_eq!(offered(&outputs), drivers[1..]);
}

#[test]
fn what_nobody_wants_is_stopped() {
    let mut bench = Bench::new(Config::default());
    let run = runs(&bench.assign(A, 1, 5))[0];
    bench.assign(B, 2, 5);
    let cancel = |from, attempt| Input::Cancel { from, attempts: vec![AttemptId(attempt)] };
    // Nobody cancels for another.
    assert!(bench.give(cancel(B, 1)).is_empty());
    assert!(bench.give(cancel(A, 1)).is_empty());
    assert_eq!(bench.give(cancel(B, 2)), [Output::Stop(run)]);
    assert_eq!(bench.state.active(), 0);
}

#[test]
fn work_of_a_driver_that_dies_goes_on_and_is_there_for_the_next() {
    let mut bench = Bench::new(Config { slots: 1, ..Config::default() });
    let run = runs(&bench.assign(A, 1, 5))[0];
    bench.assign(A, 2, 6);
    bench.give(Input::Disconnected(A));
    assert_eq!(bench.state.active(), 1, "what waited is dropped, what runs goes on");
    assert!(results(&bench.give(Input::Done { run, done: done() })).is_empty());
    assert_eq!(results(&bench.assign(B, 7, 5)), [(B, 7)]);
}

#[test]
fn the_next_driver_hears_what_was_done_and_what_runs() {
    let mut bench = Bench::new(Config { slots: 1, ..Config::default() });
    let run = runs(&bench.assign(A, 1, 1))[0];
    bench.give(Input::Done { run, done: done() });
    bench.assign(A, 2, 2);
    bench.assign(A, 3, 3);
    bench.give(Input::Disconnected(A));
    let (job, other) = (JobId::from_bytes([7; 32]), JobId::from_bytes([8; 32]));
    let answers = bench.give(Input::Ask { from: B, jobs: vec![job, other] });
    let keys = [2, 1].map(|key| TaskKey::from_bytes([key; 32])).to_vec();
    let has = Output::Send { to: B, frame: Frame::Has { job, keys } };
    assert_eq!(
        answers,
        [has],
        "what waited for the other one is not begun, and nothing is known of another job"
    );
}

#[test]
fn who_drains_takes_nothing_and_says_so() {
    let mut bench = Bench::new(Config::default());
    let outputs = bench.give(Input::Drain(true));
    let is_offer = |output: &Output| matches!(output, Output::Send { frame: Frame::Offer(offer), .. } if offer.room == 0);
    assert_eq!(outputs.iter().filter(|output| is_offer(output)).count(), 2);
    assert_eq!(failures(&bench.assign(A, 1, 1)), [(A, 1, FailReason::Unavailable)]);
}

#[test]
fn what_inputs_take_in_memory_counts_and_not_what_they_claim() {
    let of = |size: u64| BlobRef { hash: Hash::from_bytes([3; 32]), size };
    let part = |size: u64, from: u64, to: u64, align: Align| Part::Blob { blob: of(size), from, to, align };
    let is_taken = |program: Option<u64>, parts: Vec<Part>| {
        let mut bench = Bench::new(Config::default());
        let action = Action { operation: "hash".to_owned(), program: program.map(of), params: Params::new() };
        let assignment = Assignment { action: Arc::new(action), parts: parts.into(), ..assignment(1, 1) };
        !runs(&bench.give(Input::Assign { from: A, assignments: vec![assignment] })).is_empty()
    };
    let gib = 1 << 30;
    // A chunk as long as there is room is taken, however it lies; two of them are not.
    for align in [Align::Byte, Align::Line, Align::RowGroup] {
        let chunk = part(9 * gib, gib + 7, 2 * gib + 7, align);
        assert!(is_taken(None, vec![chunk]), "{align:?}");
        assert!(!is_taken(None, vec![chunk, part(9, 0, 1, Align::Byte)]), "{align:?}");
    }
    // Each of these holds the line that it begins in, which may have 1 MiB.
    let lines = |count: usize| vec![part(9 * gib, gib, gib + 2, Align::Line); count];
    assert!(is_taken(None, lines(900)));
    assert!(!is_taken(None, lines(1100)));
    // And these the three groups that they lie in.
    let bytes = vec![part(9 * gib, gib - (300 << 10), gib + (1324 << 10), Align::Byte); 500];
    assert!(is_taken(None, bytes.iter().take(300).copied().collect()));
    assert!(!is_taken(None, bytes));
    // Short outputs, all of which are read, are what they are.
    assert!(is_taken(None, vec![part(4096, 0, 4096, Align::Byte); 16_384]));
    assert!(!is_taken(Some(gib + 1), Vec::new()));
}
